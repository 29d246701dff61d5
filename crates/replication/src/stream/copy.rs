//! One copy of an open segment that another broker leads, and who waits for it to become durable.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use base::batch::Batches;
use base::config::Durability;
use base::ids::{LeaderEpoch, Offset, SegmentId, StorageId};
use parking_lot::Mutex;
use storage::{DurableListener, Segment, Storage, StorageError};
use tokio::sync::Notify;

/// Somebody to be told when a copy's durable end moved or its storage failed.
pub(super) trait Watch: Send + Sync {
    /// It did. Called from the syncing thread: must be cheap and not call back.
    fn moved(&self);
}

/// A copy.
pub(super) struct Copy {
    pub(super) segment: Arc<Segment>,
    pub(super) storage: Arc<Storage>,
    progress: Arc<Progress>,
    /// Something at or below the high watermark, as the leader told for this very segment.
    high_watermark: AtomicI64,
}

#[derive(Default)]
struct Progress {
    failed: AtomicBool,
    watchers: Mutex<Vec<Weak<dyn Watch>>>,
    synced: Notify,
}

impl Progress {
    fn tell(&self) {
        self.watchers.lock().retain(|watcher| match watcher.upgrade() {
            Some(watcher) => {
                watcher.moved();
                true
            }
            None => false,
        });
        self.synced.notify_waiters();
    }
}

impl DurableListener for Progress {
    fn durable(&self, _: Offset) {
        self.tell();
    }

    fn failed(&self, _: &StorageError) {
        self.failed.store(true, Ordering::Release);
        self.tell();
    }
}

impl Copy {
    pub(super) fn new(segment: Arc<Segment>, storage: Arc<Storage>) -> Arc<Copy> {
        let progress = Arc::new(Progress::default());
        segment.set_listener(progress.clone());
        Arc::new(Copy { segment, storage, progress, high_watermark: AtomicI64::new(-1) })
    }

    /// Hears of a high watermark; whether that is news.
    pub(super) fn note_high_watermark(&self, high_watermark: Offset) -> bool {
        self.high_watermark.fetch_max(high_watermark, Ordering::AcqRel) < high_watermark
    }

    /// Offset after the last record here that is known to be committed; below the base where none is.
    pub(super) fn committed_end(&self) -> Offset {
        self.high_watermark.load(Ordering::Acquire).min(self.segment.end())
    }

    /// Under which it is kept.
    pub(super) fn key(&self) -> (SegmentId, StorageId) {
        (self.segment.name().id, self.storage.id())
    }

    /// Offset after the last record that an acknowledgement of this class may cover.
    pub(super) fn end(&self, durability: Durability) -> Offset {
        match durability {
            Durability::Fsync => self.segment.durable_end(),
            Durability::PageCache => self.segment.end(),
        }
    }

    /// Whether its storage failed.
    pub(super) fn has_failed(&self) -> bool {
        self.progress.failed.load(Ordering::Acquire)
    }

    /// Tells `watcher` of every move from now on, until it is dropped.
    pub(super) fn watch(&self, watcher: Weak<dyn Watch>) {
        let mut watchers = self.progress.watchers.lock();
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(watcher);
    }

    /// Lets it take part in the next sync round.
    pub(super) fn request_sync(&self) {
        self.storage.request_sync(&self.segment);
    }

    /// Syncs what is written now; false when the storage failed.
    pub(super) async fn sync(&self) -> bool {
        let end = self.segment.end();
        let synced = self.progress.synced.notified();
        let mut synced = std::pin::pin!(synced);
        synced.as_mut().enable();
        self.request_sync();
        loop {
            if self.has_failed() {
                return false;
            }
            if self.segment.durable_end() >= end {
                return true;
            }
            synced.as_mut().await;
            synced.set(self.progress.synced.notified());
            synced.as_mut().enable();
        }
    }
}

/// Checks that the bytes are whole batches that follow each other from `from` on, each of the epoch that is due at its
/// offset and with a right CRC. Returns the offset after the last.
///
/// # Errors
/// What is wrong.
pub(super) fn check_batches(
    bytes: &[u8],
    from: Offset,
    epochs: &[(LeaderEpoch, Offset)],
) -> Result<Offset, String> {
    let mut end = from;
    for batch in Batches::new(bytes) {
        let batch = batch.map_err(|error| format!("at offset {end}: {error}"))?;
        if batch.base_offset != end {
            return Err(format!("a batch begins at offset {} where {end} is due", batch.base_offset));
        }
        let at = epochs.partition_point(|(_, start)| *start <= end);
        let epoch = at.checked_sub(1).map(|at| epochs[at].0);
        if epoch != Some(LeaderEpoch(batch.leader_epoch)) {
            return Err(format!("the batch at offset {end} is of leader epoch {}", batch.leader_epoch));
        }
        batch.verify_crc().map_err(|error| format!("at offset {end}: {error}"))?;
        end = batch.next_offset();
    }
    if end == from { Err("no batch".to_owned()) } else { Ok(end) }
}

/// How far whole batches go that follow each other from `from` on and lie below `limit`: bytes, and the offset after
/// the last.
pub(super) fn whole_batches(bytes: &[u8], from: Offset, limit: Offset) -> (usize, Offset) {
    let (mut length, mut end) = (0, from);
    for batch in Batches::new(bytes) {
        match batch {
            Ok(batch) if batch.base_offset == end && batch.next_offset() <= limit => {
                length += batch.total_size();
                end = batch.next_offset();
            }
            _ => break,
        }
    }
    (length, end)
}

#[cfg(test)]
mod tests {
    use base::batch::BatchBuilder;

    use super::*;

    const EPOCHS: &[(LeaderEpoch, Offset)] = &[(LeaderEpoch(3), 0), (LeaderEpoch(5), 12)];

    fn batch(base: Offset, records: usize, epoch: i32) -> Vec<u8> {
        let mut batch = BatchBuilder::new().base_offset(base).leader_epoch(epoch);
        for _ in 0..records {
            batch.append(5, None, Some(b"value"));
        }
        batch.finish().unwrap()
    }

    #[test]
    fn batches_that_follow_each_other_pass() {
        let bytes = [batch(10, 2, 3), batch(12, 3, 5)].concat();
        assert_eq!(check_batches(&bytes, 10, EPOCHS), Ok(15));
    }

    #[test]
    fn whatever_is_wrong_is_refused() {
        let good = [batch(10, 2, 3), batch(12, 3, 5)].concat();
        for (bytes, from) in [
            (Vec::new(), 10),
            (good.clone(), 9),
            (good[..good.len() - 1].to_vec(), 10),
            ([batch(10, 2, 3), batch(13, 3, 5)].concat(), 10),
            ([batch(10, 2, 3), batch(12, 3, 3)].concat(), 10),
        ] {
            assert!(check_batches(&bytes, from, EPOCHS).is_err());
        }
        assert!(check_batches(&good, 10, &EPOCHS[1..]).is_err());
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // Nothing but the CRC protects the records, and nothing but what is due the rest.
            assert!(check_batches(&bytes, 10, EPOCHS) != Ok(15), "bit {bit}");
        }
    }

    #[test]
    fn as_much_as_lies_below_the_limit_is_sent() {
        let (first, second) = (batch(10, 2, 3), batch(12, 3, 5));
        let bytes = [&first[..], &second].concat();
        assert_eq!(whole_batches(&bytes, 10, 15), (bytes.len(), 15));
        assert_eq!(whole_batches(&bytes, 10, 14), (first.len(), 12));
        assert_eq!(whole_batches(&bytes, 10, 11), (0, 10));
        assert_eq!(whole_batches(&bytes, 9, 15), (0, 9));
        assert_eq!(whole_batches(&bytes[..bytes.len() - 1], 10, 15), (first.len(), 12));
    }
}
