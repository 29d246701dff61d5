//! Files of segments that no chain lists: left by a crash between an edit of a chain and the removal of
//! what left it, between the making of a rewrite and its `Replace`, or in the middle of a topic's
//! deletion.
//!
//! Looked for after the start, behind everything else and before compaction begins, because a
//! rewrite that is not listed yet looks the same. Only what was made before this life is touched: a
//! segment with an id that the metadata of the start had not given yet stays. That the log directory
//! and the metadata belong together was checked before (`Storage::claim`).
//!
//! A rewrite of what another broker leads stays, too, until its chain has outlived it: its leader may have had it fetched
//! by an earlier life of this broker, or just now, and be about to list it here.
//!
//! Where there are other brokers, what is provably of no use is looked for now and then, too
//! ([`PartitionState::has_outlived`]): a copy may come to be while its segment leaves the chain.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::chain::{PartitionState, SegmentEntry};
use base::ids::{Generation, TopicPartition};
use metadata::Image;
use replication::{SegmentName, Storage, StorageError};

use crate::broker::Broker;

/// Least time between two looks for what chains have outlived.
const LOOK_INTERVAL: Duration = Duration::from_secs(20);
/// A look is followed by so many times its own duration without one.
const REST_FACTOR: u32 = 200;

impl Broker {
    /// Removes what no chain listed in `image`, the metadata this life began with.
    pub(crate) async fn remove_strays(&self, image: Arc<Image>) {
        for storage in self.storages.iter() {
            let (storage, image) = (storage.clone(), image.clone());
            let dir = storage.dir().display().to_string();
            let (id, now) = (self.id, self.image());
            let leads = move |partition: &TopicPartition, state: &PartitionState| {
                let now = now.partition(partition).map(|now| (now.leader, now.leader_epoch));
                state.leader == id && now == Some((id, state.leader_epoch))
            };
            match self.env.in_background(move || sweep(&storage, &image, leads)).await {
                Ok(0) => {}
                Ok(segments) => {
                    tracing::info!(dir, segments, "leftover segments that no chain lists were removed");
                }
                Err(error) => tracing::warn!(dir, %error, "leftover segments are not removed yet"),
            }
        }
    }

    /// Starts the task that looks for what chains have outlived; it ends with the broker.
    pub(crate) fn spawn_sweeper(self: &Arc<Self>) {
        tokio::spawn(sweep_for_ever(Arc::downgrade(self)));
    }

    async fn remove_outlived(&self, image: &Arc<Image>) {
        for storage in self.storages.iter() {
            let (storage, image) = (storage.clone(), image.clone());
            let dir = storage.dir().display().to_string();
            match self.env.in_background(move || outlived(&storage, &image)).await {
                Ok(names) => {
                    for name in names {
                        tracing::info!(dir, topic = &*name.topic, segment = %name.id, "a segment whose chain outlived it is removed");
                        self.mender.remove_copy(name).await;
                    }
                }
                Err(error) => tracing::warn!(dir, %error, "leftover segments are not looked for"),
            }
        }
    }
}

async fn sweep_for_ever(broker: Weak<Broker>) {
    let mut looked_at = None;
    let mut rest = LOOK_INTERVAL;
    while let Some(strong) = Broker::after(&broker, rest).await {
        let image = strong.image();
        if strong.drain.is_draining() || image.brokers().nth(1).is_none() || looked_at == Some(image.version)
        {
            continue;
        }
        looked_at = Some(image.version);
        let began = strong.env.clock.now();
        strong.remove_outlived(&image).await;
        rest = LOOK_INTERVAL.max((strong.env.clock.now() - began) * REST_FACTOR);
    }
}

fn is_listed(state: &PartitionState, name: &SegmentName) -> bool {
    let listed = |entry: &SegmentEntry| (entry.id, entry.generation) == (name.id, name.generation);
    state.chain.iter().any(listed)
}

fn outlived(storage: &Arc<Storage>, image: &Image) -> Result<Vec<SegmentName>, StorageError> {
    let is_outlived = |name: &SegmentName| {
        image
            .partition(&name.partition)
            .is_some_and(|state| !is_listed(state, name) && state.has_outlived(name.base, name.generation))
    };
    storage.scan().filter(|found| found.as_ref().map_or(true, is_outlived)).collect()
}

/// Whether a leader may be about to list this rewrite.
fn may_be_listed(state: &PartitionState, name: &SegmentName) -> bool {
    name.generation > Generation(0) && !state.has_outlived(name.base, name.generation)
}

fn sweep(
    storage: &Arc<Storage>,
    image: &Image,
    leads: impl Fn(&TopicPartition, &PartitionState) -> bool,
) -> Result<usize, StorageError> {
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
                let is_awaited = may_be_listed(state, &name) && !leads(&name.partition, state);
                if !is_listed(state, &name) && !is_awaited {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base::chain::{Rewrite, SegmentState};
    use base::ids::{SegmentId, Uuid};

    use super::*;
    use crate::repair::tests::sealed_on;

    /// Ten records that are sealed and rewritten once, and an open segment.
    fn rewritten() -> PartitionState {
        let mut state = sealed_on(&[1]);
        let mut new = state.chain[0].clone();
        new.generation = Generation(1);
        let SegmentState::Sealed { crc, .. } = &mut new.state else { panic!("it is sealed") };
        *crc = 8;
        let old = vec![(state.chain[0].id, state.chain[0].generation)];
        state.replace(Rewrite { old, new, compacted_to: 10, leader_epoch: None }, 1).unwrap();
        state
    }

    #[test]
    fn only_a_later_rewrite_may_be_listed_yet() {
        let state = rewritten();
        let name = |id, generation, base| SegmentName {
            topic: Arc::from("t"),
            partition: TopicPartition { topic_id: Uuid([2; 16]), partition: base::ids::PartitionId(0) },
            id: SegmentId(id),
            generation: Generation(generation),
            base,
        };
        assert!(may_be_listed(&state, &name(1, 2, 0)));
        assert!(!may_be_listed(&state, &name(1, 1, 0)), "it is what is listed, or as old");
        assert!(!may_be_listed(&state, &name(1, 0, 0)));
        assert!(!may_be_listed(&state, &name(3, 0, 10)), "it is no rewrite");
    }
}
