//! Files of segments that no chain lists: left by a crash between an edit of a chain and the removal of
//! what left it, between the making of a rewrite and its `Replace`, or in the middle of a topic's
//! deletion.
//!
//! Looked for once after the start, behind everything else and before compaction begins, because a
//! rewrite that is not listed yet looks the same. Only what was made before this life is touched: a
//! segment with an id that the metadata of the start had not given yet stays. That the log directory
//! and the metadata belong together was checked before (`Storage::claim`).

use std::collections::HashSet;
use std::sync::Arc;

use base::ids::TopicPartition;
use metadata::Image;
use replication::{Storage, StorageError};

use crate::broker::Broker;

impl Broker {
    /// Removes what no chain listed in `image`, the metadata this life began with.
    pub(crate) async fn remove_strays(&self, image: Arc<Image>) {
        for storage in self.storages.iter() {
            let (storage, image) = (storage.clone(), image.clone());
            let dir = storage.dir().display().to_string();
            match self.env.in_background(move || sweep(&storage, &image)).await {
                Ok(0) => {}
                Ok(segments) => {
                    tracing::info!(dir, segments, "leftover segments that no chain lists were removed");
                }
                Err(error) => tracing::warn!(dir, %error, "leftover segments are not removed yet"),
            }
        }
    }
}

fn sweep(storage: &Arc<Storage>, image: &Image) -> Result<usize, StorageError> {
    let mut removed = 0;
    let mut gone: HashSet<TopicPartition> = HashSet::new();
    let mut scan = storage.scan();
    for found in scan.by_ref() {
        let name = found?;
        if name.id > image.last_segment_id() || gone.contains(&name.partition) {
            continue;
        }
        match image.partition(&name.partition) {
            Some(state) => {
                let listed = |entry: &base::chain::SegmentEntry| {
                    (entry.id, entry.generation) == (name.id, name.generation)
                };
                if !state.chain.iter().any(listed) {
                    storage.remove(&name)?;
                    removed += 1;
                }
            }
            // The topic was deleted, and its partitions are never made again: ids are not reused.
            None => {
                storage.remove_partition(&name.topic, name.partition)?;
                gone.insert(name.partition);
                removed += 1;
            }
        }
    }
    scan.remove_empty();
    Ok(removed)
}
