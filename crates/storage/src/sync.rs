//! Sync rounds: what became dirty since the last round is made durable together.
//!
//! One round runs at a time; segments that ask while it runs form the next one, so that under load many
//! appends share one sync, and a lone one waits for nobody. Small appends of several files go to the sync
//! journal (`journal/mod.rs`), which one sync makes durable. Otherwise a round of few files syncs each of them
//! on a few workers at once and answers each as soon as it is done; a round of many syncs the whole file
//! system once. No worker waits for another: whoever finishes a round's last file begins the next round.
//!
//! After the first error the storage has failed: what waits is told so, nothing is synced again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::ids::Offset;
use parking_lot::Mutex;

use crate::error::StorageError;
use crate::layout::SegmentFile;
use crate::segment::Segment;
use crate::storage::Storage;

/// Files synced at the same time.
pub(crate) const PARALLEL_SYNCS: usize = 8;
/// More syncs than this in a round are made one of the whole file system: 1,000 files cost 41 ms one by
/// one with 16 threads, 7 ms together.
const SINGLE_SYNCS_MAX: usize = 64;
/// With more than this written to files that nobody asked to sync, bytes, a sync of the whole file
/// system would wait for those too.
const UNRELATED_BYTES_MAX: u64 = 64 << 20;
/// Syncs for a segment whose names are not durable yet: its file, its first checkpoint, and the
/// directories above.
const FIRST_SYNCS: usize = 6;

/// Appends to one file that are larger go to the file alone, bytes: with 1 KiB in each, 4 files took 380 µs and 64
/// files 2,800 µs one by one, through the journal 160 µs and 210 µs; with 256 KiB in each the journal takes longer.
/// Even one file takes less there, because no change of its length has to be recorded.
const JOURNAL_RANGE_BYTES_MAX: u64 = 64 << 10;

/// What a round has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SyncLoad {
    /// Files and directories to be synced.
    pub(crate) syncs: usize,
    /// Dirty bytes in other files, about.
    pub(crate) unrelated_bytes: u64,
    /// Files with so little to be synced that the journal may take it, and how much that is, bytes.
    pub(crate) small_files: usize,
    pub(crate) small_bytes: u64,
    /// How much the journal takes in one round, bytes; 0 when it cannot be used.
    pub(crate) journal_room: u64,
}

/// How a round does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncPlan {
    /// What is small through the journal; then the rest is planned again.
    Journal,
    /// Each file by itself, so many at once.
    Each { parallel: usize },
    /// The whole file system.
    All,
}

/// Chooses the cheapest way. Pure.
pub(crate) fn sync_plan(load: SyncLoad) -> SyncPlan {
    if (1..=load.journal_room).contains(&load.small_bytes) {
        SyncPlan::Journal
    } else if load.syncs > SINGLE_SYNCS_MAX && load.unrelated_bytes <= UNRELATED_BYTES_MAX {
        SyncPlan::All
    } else {
        SyncPlan::Each { parallel: load.syncs.clamp(1, PARALLEL_SYNCS) }
    }
}

/// Segments that wait for a round.
#[derive(Default)]
pub(crate) struct SyncQueue {
    state: Mutex<QueueState>,
}

#[derive(Default)]
struct QueueState {
    waiting: Vec<Arc<Segment>>,
    running: bool,
}

impl SyncQueue {
    /// Adds a segment; true when the caller must start a round.
    fn push(&self, segment: Arc<Segment>) -> bool {
        let mut state = self.state.lock();
        state.waiting.push(segment);
        !std::mem::replace(&mut state.running, true)
    }

    /// The next round's segments; none ends the running of rounds.
    fn take(&self) -> Vec<Arc<Segment>> {
        let mut state = self.state.lock();
        let waiting = std::mem::take(&mut state.waiting);
        state.running = !waiting.is_empty();
        waiting
    }
}

/// A segment and how far this round makes it durable.
pub(crate) struct Item {
    pub(crate) segment: Arc<Segment>,
    /// Bytes of its log that were covered before, and that will be; those are whole batches, up to `end` at least.
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) end: Offset,
}

impl Item {
    fn new(segment: Arc<Segment>) -> Item {
        // Before the end is read: what is appended later asks anew. A plain store could be seen by the appender
        // only after the end was read here, and neither side would ask again.
        segment.sync_queued.swap(false, Ordering::AcqRel);
        let end = segment.end();
        let to = segment.bytes();
        let from = segment.covered_bytes.load(Ordering::Acquire);
        Item { segment, from, to, end }
    }

    /// Bytes to be made durable.
    pub(crate) fn length(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    fn is_small(&self) -> bool {
        self.length() <= JOURNAL_RANGE_BYTES_MAX
    }

    /// Files and directories to sync.
    fn syncs(&self) -> usize {
        if self.segment.names_durable.load(Ordering::Acquire) { 1 } else { FIRST_SYNCS }
    }

    /// Notes and tells that all of it survives power loss.
    pub(crate) fn cover(&self) {
        self.segment.covered_bytes.fetch_max(self.to, Ordering::AcqRel);
        self.segment.set_durable(self.end);
    }
}

/// A round whose files are synced one by one.
struct Round {
    items: Vec<Item>,
    /// Files of the whole round, the journal's included.
    files: usize,
    began_at: Duration,
    next: AtomicUsize,
    left: AtomicUsize,
}

impl Storage {
    /// Lets `segment` take part in the next sync round. When that is done its durable end is at least
    /// what its end is now, and its listener has been told, or told of the failure. Never blocks.
    pub fn request_sync(self: &Arc<Self>, segment: &Arc<Segment>) {
        if segment.sync_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(failure) = self.failure() {
            segment.tell_failure(failure);
            return;
        }
        if self.syncs.push(segment.clone()) {
            let storage = self.clone();
            self.env.workers.run(Box::new(move || storage.run_rounds()));
        }
    }

    fn run_rounds(self: Arc<Self>) {
        loop {
            let waiting = self.syncs.take();
            if waiting.is_empty() {
                return;
            }
            if let Some(failure) = self.failure() {
                waiting.iter().for_each(|segment| segment.tell_failure(failure));
                continue;
            }
            if !self.run_round(waiting) {
                return;
            }
        }
    }

    /// Runs a round or a part of it; true when it is complete and the caller goes on with the next.
    fn run_round(self: &Arc<Self>, waiting: Vec<Arc<Segment>>) -> bool {
        let began_at = self.env.clock.now();
        let mut items: Vec<Item> = waiting.into_iter().map(Item::new).collect();
        let files = items.len();
        let unrelated_bytes = self.note_synced(items.iter().map(Item::length).sum());
        let mut load = self.sync_load(&items, unrelated_bytes);
        self.prepare_journal(load.small_files);
        if sync_plan(load) == SyncPlan::Journal {
            let (small, large) = items.into_iter().partition(Item::is_small);
            items = large;
            items.extend(self.sync_to_journal(small));
            load = SyncLoad { journal_room: 0, ..self.sync_load(&items, unrelated_bytes) };
        }
        if items.is_empty() {
            self.count_round(files, began_at);
            return true;
        }
        let SyncPlan::Each { parallel } = sync_plan(load) else {
            self.sync_all(&items);
            self.count_round(files, began_at);
            return true;
        };
        let parallel = parallel.min(items.len());
        let left = AtomicUsize::new(items.len());
        let round = Arc::new(Round { items, files, began_at, next: AtomicUsize::new(0), left });
        for _ in 1..parallel {
            let (storage, round) = (self.clone(), round.clone());
            self.env.workers.run(Box::new(move || {
                if storage.work(&round) {
                    storage.run_rounds();
                }
            }));
        }
        self.work(&round)
    }

    fn sync_load(&self, items: &[Item], unrelated_bytes: u64) -> SyncLoad {
        let small = || items.iter().filter(|item| item.is_small());
        SyncLoad {
            syncs: items.iter().map(Item::syncs).sum(),
            unrelated_bytes,
            small_files: small().count(),
            small_bytes: small().map(Item::length).sum(),
            journal_room: self.journal.room(),
        }
    }

    /// Syncs files of the round until none is left to begin; true for whoever finished the last one.
    fn work(self: &Arc<Self>, round: &Round) -> bool {
        while let Some(item) = round.items.get(round.next.fetch_add(1, Ordering::AcqRel)) {
            self.sync_one(item);
            if round.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.count_round(round.files, round.began_at);
                return true;
            }
        }
        false
    }

    fn count_round(&self, files: usize, began_at: Duration) {
        let metrics = &self.options.metrics;
        metrics.sync_rounds.inc();
        metrics.sync_round_files.record(files as u64);
        metrics.sync_round_time.record_duration(self.env.clock.now().saturating_sub(began_at));
    }

    fn sync_all(&self, items: &[Item]) {
        let root = self.layout.root();
        let synced = |()| self.env.disk.sync_all(root).map_err(|error| self.fail("sync", root, &error));
        let result = self.check_open().and_then(synced);
        for item in items {
            let segment = &item.segment;
            match &result {
                Ok(()) => {
                    // Before the first append there are none.
                    if item.to > 0 {
                        segment.names_durable.store(true, Ordering::Release);
                    }
                    item.cover();
                }
                Err(StorageError::NoHandles { .. }) => self.deferred_syncs.lock().push(segment.clone()),
                Err(failure) => segment.tell_failure(failure),
            }
        }
    }

    fn sync_one(self: &Arc<Self>, item: &Item) {
        let segment = &item.segment;
        let synced = match self.failure() {
            Some(failure) => Err(failure.clone()),
            None => self.sync_segment(segment),
        };
        // A failure of another file meanwhile fails this one too: all or none is simpler to reason about.
        match synced.and_then(|()| self.check_open()) {
            Ok(()) => item.cover(),
            // Nothing is wrong with the disk: housekeeping asks again.
            Err(StorageError::NoHandles { .. }) => self.deferred_syncs.lock().push(segment.clone()),
            Err(failure) => segment.tell_failure(&failure),
        }
    }

    pub(crate) fn sync_segment(self: &Arc<Self>, segment: &Segment) -> Result<(), StorageError> {
        let log = match segment.log() {
            Ok(log) => log,
            // Removed while it waited: nobody will read it again.
            Err(StorageError::NotHere { .. }) => return Ok(()),
            Err(error) => return Err(self.fail_with(&error)),
        };
        let path = segment.path(SegmentFile::Log);
        log.sync_data().map_err(|error| self.fail("sync", &path, &error))?;
        if !segment.names_durable.load(Ordering::Acquire) {
            if !self.holds(&segment.name) {
                return Ok(());
            }
            self.sync_names(&segment.name)?;
            segment.names_durable.store(true, Ordering::Release);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_files_are_synced_each_and_many_together() {
        let plan = |syncs, unrelated_bytes| {
            let load =
                SyncLoad { syncs, unrelated_bytes, small_files: syncs, small_bytes: 1, journal_room: 0 };
            sync_plan(load)
        };
        assert_eq!(plan(0, 0), SyncPlan::Each { parallel: 1 });
        assert_eq!(plan(1, 0), SyncPlan::Each { parallel: 1 });
        assert_eq!(plan(3, u64::MAX), SyncPlan::Each { parallel: 3 });
        assert_eq!(plan(64, 0), SyncPlan::Each { parallel: 8 });
        assert_eq!(plan(65, 0), SyncPlan::All);
        assert_eq!(plan(20_000, UNRELATED_BYTES_MAX), SyncPlan::All);
        assert_eq!(plan(20_000, UNRELATED_BYTES_MAX + 1), SyncPlan::Each { parallel: 8 });
    }

    #[test]
    fn small_appends_go_to_the_journal_while_it_has_room() {
        let plan = |small_files, small_bytes| {
            sync_plan(SyncLoad {
                syncs: 1,
                small_files,
                small_bytes,
                journal_room: 1 << 20,
                ..SyncLoad::default()
            })
        };
        assert_eq!(plan(0, 0), SyncPlan::Each { parallel: 1 });
        assert_eq!(plan(5, 0), SyncPlan::Each { parallel: 1 });
        assert_eq!(plan(1, 10), SyncPlan::Journal);
        assert_eq!(plan(20_000, 1 << 20), SyncPlan::Journal);
        assert_eq!(plan(20_000, (1 << 20) + 1), SyncPlan::Each { parallel: 1 });
    }
}
