//! Reads of consumers from copies that other brokers lead (KIP-392).
//!
//! A member of the open segment knows from its leader how far the records are committed, and has the sealed segments
//! that the chain lists for its storages. Both together it may show to consumers.
//!
//! Invariants: nothing is shown that is not known to be committed, so nothing is shown that any later leader takes back;
//! what the leader said of one segment is never taken for another one, whose offsets may be others after an unclean
//! election. What it does not do: know where the log really ends. Only the leader does.

use std::sync::{Arc, Weak};

use base::chain::{PartitionState, SegmentEntry, SegmentState};
use base::env::FileRange;
use base::ids::{LeaderEpoch, Offset, TopicPartition};
use bytes::Bytes;
use parking_lot::Mutex;
use storage::{Patience, Segment, SegmentName, StorageError};

use super::copy::Copy;
use super::replicas::Replicas;
use crate::commit::ReadWaiter;

/// Sealed segments of a partition that are kept ready to read: consumers are in a few places at a time.
const READY_MAX: usize = 4;

/// Why a copy gives nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FollowError {
    /// This broker is no member of the open segment in its present life, or lacks what is asked for.
    #[error("this broker has no copy of it")]
    NotHere,
    /// The leader may have it, the copy not yet.
    #[error("offset {asked} is beyond the copy, which ends at {end}")]
    NotYet {
        /// Offset asked for.
        asked: Offset,
        /// Offset after the last record of the copy.
        end: Offset,
    },
    /// The offset is before the log start.
    #[error("offset {asked} is below the log start, {log_start}")]
    OutOfRange {
        /// Offset asked for.
        asked: Offset,
        /// First offset there is.
        log_start: Offset,
    },
    /// The bytes cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Who reads a partition's copies.
#[derive(Default)]
pub(super) struct Readers {
    waiting: Mutex<Vec<Weak<ReadWaiter>>>,
    /// Sealed segments, the one used last at the end.
    ready: Mutex<Vec<Arc<Segment>>>,
}

impl Readers {
    /// More is committed.
    pub(super) fn wake(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.iter().filter_map(Weak::upgrade).for_each(|reader| reader.wake());
    }

    fn register(&self, reader: &Arc<ReadWaiter>) {
        let mut waiting = self.waiting.lock();
        if waiting.len() == waiting.capacity() {
            waiting.retain(|reader| reader.strong_count() > 0);
        }
        waiting.push(Arc::downgrade(reader));
    }

    fn find(&self, name: &SegmentName) -> Option<Arc<Segment>> {
        let mut ready = self.ready.lock();
        let at = ready.iter().position(|segment| segment.name() == name)?;
        let found = ready.remove(at);
        ready.push(found.clone());
        Some(found)
    }

    fn keep(&self, segment: &Arc<Segment>) {
        let mut ready = self.ready.lock();
        if ready.len() >= READY_MAX {
            ready.remove(0);
        }
        ready.push(segment.clone());
    }

    /// The file of a segment is removed or replaced.
    pub(super) fn forget(&self, name: &SegmentName) {
        self.ready.lock().retain(|segment| segment.name() != name);
    }
}

/// A partition's copies on this broker, as one chain lists them.
pub struct Followed {
    replicas: Arc<Replicas>,
    topic: Arc<str>,
    partition: TopicPartition,
    state: Arc<PartitionState>,
    /// The copy of the open segment; `None` before its leader began to push it.
    open: Option<Arc<Copy>>,
}

impl Replicas {
    /// What this broker has of a partition that another one leads; `None` where it is no member of the open segment in
    /// its present life, and so hears of nothing.
    pub fn follow(
        self: &Arc<Self>,
        topic: &Arc<str>,
        partition: TopicPartition,
        state: &Arc<PartitionState>,
    ) -> Option<Followed> {
        let life = &self.spec.life;
        let SegmentState::Open { ensemble } = &state.last().state else { return None };
        let own = ensemble.iter().find(|member| {
            (member.broker, member.incarnation) == (life.broker, life.incarnation)
                && state.leader != life.broker
        })?;
        let open = self.copy_on(partition, (state.last().id, own.storage));
        if open.as_ref().is_some_and(|copy| copy.has_failed()) {
            return None;
        }
        Some(Followed { replicas: self.clone(), topic: topic.clone(), partition, state: state.clone(), open })
    }
}

impl Followed {
    /// Everything below is committed and may be shown; it is at most what the leader knows.
    pub fn high_watermark(&self) -> Offset {
        let base = self.state.last().base;
        self.open.as_ref().map_or(base, |copy| copy.committed_end().max(base))
    }

    /// First offset a reader may ask for.
    pub fn log_start(&self) -> Offset {
        self.state.log_start
    }

    /// The epoch in which the leader leads.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.state.leader_epoch
    }

    /// As [`crate::Log::epoch_end`], with the end this broker knows.
    pub fn epoch_end(&self, asked: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.state.epoch_end(asked, self.end())
    }

    fn end(&self) -> Offset {
        self.open.as_ref().map_or(self.state.last().base, |copy| copy.segment.end())
    }

    /// Wakes `reader` when more is committed. It reads once more after registering.
    pub fn register(&self, reader: &Arc<ReadWaiter>) {
        self.replicas.readers(self.partition).register(reader);
    }

    /// As [`crate::Log::range`].
    pub fn range(&self, from: Offset, max_bytes: usize) -> Option<FileRange> {
        self.check(from).ok()?;
        let upper = self.high_watermark();
        let entry = self.state.entry_for(from)?;
        let upper = entry.end().map_or(upper, |end| end.min(upper));
        // What went wrong a whole read tells better.
        self.segment(entry).ok()?.range(from, upper, max_bytes).ok().flatten()
    }

    /// As [`crate::Log::read_with`]. Empty when `from` is the high watermark or lies in what the copy holds beyond it.
    ///
    /// # Errors
    /// [`FollowError`]; without patience also [`StorageError::NotCached`].
    pub fn read_with(
        &self,
        patience: Patience,
        from: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Bytes, FollowError> {
        self.check(from)?;
        let upper = self.high_watermark();
        let first = self.state.chain.partition_point(|entry| entry.base <= from).saturating_sub(1);
        for entry in &self.state.chain[first..] {
            if entry.base >= upper {
                break;
            }
            let end = entry.end().map_or(upper, |end| end.min(upper));
            if from >= end {
                continue;
            }
            let segment = self.segment(entry)?;
            let range = (from.max(entry.base), end);
            let slice = match segment.read_with(patience, range, max_bytes, at_least_one) {
                Err(StorageError::NotHere { .. }) => {
                    self.replicas.readers(self.partition).forget(segment.name());
                    return Err(FollowError::NotHere);
                }
                slice => slice?,
            };
            if !slice.bytes.is_empty() || !slice.exhausted {
                return Ok(slice.bytes);
            }
        }
        Ok(Bytes::new())
    }

    /// Whether an offset is one that this broker can say something about.
    ///
    /// # Errors
    /// [`FollowError::OutOfRange`], [`FollowError::NotYet`].
    pub fn check(&self, from: Offset) -> Result<(), FollowError> {
        let (log_start, end) = (self.state.log_start, self.end());
        if from < log_start {
            return Err(FollowError::OutOfRange { asked: from, log_start });
        }
        if from > end { Err(FollowError::NotYet { asked: from, end }) } else { Ok(()) }
    }

    fn segment(&self, entry: &SegmentEntry) -> Result<Arc<Segment>, FollowError> {
        let SegmentState::Sealed { end, crc, bytes, replicas } = &entry.state else {
            return self.open.as_ref().map(|copy| copy.segment.clone()).ok_or(FollowError::NotHere);
        };
        let name = SegmentName {
            topic: self.topic.clone(),
            partition: self.partition,
            id: entry.id,
            generation: entry.generation,
            base: entry.base,
        };
        let readers = self.replicas.readers(self.partition);
        if let Some(segment) = readers.find(&name) {
            return Ok(segment);
        }
        let is_own = |storage: &&Arc<storage::Storage>| replicas.contains(&storage.id());
        let storage = self.replicas.spec.storages.iter().find(is_own).ok_or(FollowError::NotHere)?;
        let segment = storage.load(name, *end, *bytes, *crc);
        readers.keep(&segment);
        Ok(segment)
    }
}
