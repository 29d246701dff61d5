//! Log compaction: of every key, keep the last record. And the joining of small segments, which keeps all.
//!
//! ```text
//!  sealed segments  ├── clean ──┤├──────── dirty ────────┤          open
//!                                     │ KeyIndexer: key → last offset
//!                                     ▼
//!  groups of neighbours ── rewrite ──► one new generation each, same offsets, beside the old ones
//! ```
//!
//! A pass indexes the keys of the dirty part (as far as the map has room) and then rewrites everything
//! from the log start to the map's end in groups, oldest first. Each rewrite is built apart, made
//! durable, and renamed into place under its own name: until the layer above lists it in the chain (and
//! removes the old ones) nobody reads it, so a crash at any step leaves the old or the new, and at
//! most a directory nobody lists. Readers of the old segments are never in the way.
//!
//! The work runs on background threads in small steps, paid for with a [`Throttle`] between them. Memory is the
//! map, one chunk read, one chunk to be written and one batch unfolded.
//!
//! What it does not do: choose logs and moments (dirty ratio, lags), know transactions
//! ([`TransactionView`] does), edit the chain.

mod filter;
mod map;
mod rewrite;
mod throttle;

use std::ops::Range;
use std::sync::Arc;

use base::batch::{BatchView, DecompressBuffer};
use base::ids::{Offset, TimestampMs};

pub use filter::{BatchFate, CompactionRules, LiveProducer, NoTransactions, TransactionView};
pub use map::{OFFSET_MAP_ENTRY_BYTES, OffsetMap};
pub use throttle::Throttle;

use crate::error::StorageError;
use crate::layout::SegmentName;
use crate::segment::{SealedInfo, Segment};
use filter::index_batch;
use rewrite::{BatchReader, Rewrite};

/// Input bytes per step: the work between two payments.
const STEP_BYTES: u64 = 1 << 20;

/// A segment as the grouping sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentExtent {
    /// First offset covered.
    pub base: Offset,
    /// Offset after the last one covered.
    pub end: Offset,
    /// Length, bytes.
    pub bytes: u64,
}

/// Groups neighbouring segments so that what a group can become is at most `bytes_max` long, or one
/// segment that is longer already. Keeps positions and relative offsets within the indexes' 31 bits. Pure.
pub fn group_segments(segments: &[SegmentExtent], bytes_max: u64) -> Vec<Range<usize>> {
    const INDEXABLE_MAX: u64 = i32::MAX as u64;
    let bytes_max = bytes_max.min(INDEXABLE_MAX);
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0u64;
    for (index, segment) in segments.iter().enumerate() {
        if let Some(group) = groups.last_mut() {
            let offsets = segment.end.abs_diff(segments[group.start].base);
            if bytes + segment.bytes <= bytes_max && offsets <= INDEXABLE_MAX {
                bytes += segment.bytes;
                group.end = index + 1;
                continue;
            }
        }
        bytes = segment.bytes;
        groups.push(index..index + 1);
    }
    groups
}

/// What a rewrite did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionStats {
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes of the new segment.
    pub bytes_written: u64,
    /// Records found.
    pub records_read: u64,
    /// Records kept.
    pub records_kept: u64,
    /// Batches that could not be read and were kept as they are.
    pub batches_unreadable: u64,
    /// The earliest time at which tombstones that were kept may go, ms.
    pub next_horizon_ms: Option<TimestampMs>,
}

/// What a rewrite keeps.
#[derive(Clone, Debug)]
pub enum Keep {
    /// Every batch, byte for byte.
    All,
    /// Of every key the last record.
    Latest {
        /// The keys.
        map: Arc<OffsetMap>,
        /// What may go.
        rules: CompactionRules,
    },
}

/// A run of segments to be rewritten as one.
#[derive(Clone, Debug)]
pub struct RewriteRequest {
    /// Sealed neighbours, oldest first.
    pub run: Vec<Arc<Segment>>,
    /// Name of the new segment: its base is the first one's.
    pub name: SegmentName,
    /// What of them stays.
    pub keep: Keep,
}

/// A rewrite that is durable and in its place, listed nowhere yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// What the chain states about it; its end is the run's.
    pub info: SealedInfo,
    /// What was done.
    pub stats: CompactionStats,
}

/// Fills an [`OffsetMap`] from segments in ascending order.
pub struct KeyIndexer {
    throttle: Arc<Throttle>,
    /// Gone while a step runs; stays so after an error.
    state: Option<Box<IndexState>>,
}

struct IndexState {
    map: OffsetMap,
    transactions: Box<dyn TransactionView>,
    buffer: Option<DecompressBuffer>,
}

impl KeyIndexer {
    /// Begins with an empty map.
    pub fn new(
        map: OffsetMap,
        transactions: Box<dyn TransactionView>,
        throttle: Arc<Throttle>,
    ) -> KeyIndexer {
        KeyIndexer { throttle, state: Some(Box::new(IndexState { map, transactions, buffer: None })) }
    }

    /// Adds the keys of a sealed segment's batches that end beyond `from`. False when the map has no room
    /// for the next batch: it accounts for everything below [`OffsetMap::end`] then. To be given up after
    /// an error or when the future is dropped.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when a batch is damaged; [`StorageError::Io`].
    ///
    /// # Panics
    /// When called after an error.
    pub async fn add(&mut self, segment: &Arc<Segment>, from: Offset) -> Result<bool, StorageError> {
        let env = segment.storage.env.clone();
        let mut reader = BatchReader::new(segment.clone());
        loop {
            let mut state = self.state.take().expect("not used after an error");
            let step = env.in_background(move || {
                let result = index_step(&mut state, &mut reader, from);
                (state, reader, result)
            });
            let (state, back, result) = step.await;
            let (read, room) = result?;
            (self.state, reader) = (Some(state), back);
            self.throttle.pay(read).await;
            if !room || read == 0 {
                return Ok(room);
            }
        }
    }

    /// The map.
    ///
    /// # Panics
    /// When called after an error.
    pub fn finish(self) -> OffsetMap {
        self.state.expect("not used after an error").map
    }
}

/// Indexes about [`STEP_BYTES`]; tells the bytes read, 0 at the end, and whether there is room for more.
fn index_step(
    state: &mut IndexState,
    reader: &mut BatchReader,
    from: Offset,
) -> Result<(u64, bool), StorageError> {
    let IndexState { map, transactions, buffer } = state;
    let limit = reader.unfolded_bytes_max();
    let buffer = buffer.get_or_insert_with(|| DecompressBuffer::new(limit));
    let start = reader.position();
    while reader.position() - start < STEP_BYTES {
        let mut room = true;
        let more = reader.next(|batch: &BatchView<'_>| {
            if batch.next_offset() > from {
                let fate = transactions.fate(batch);
                room = index_batch(batch, fate, map, buffer);
            }
            Ok(())
        })?;
        if !room {
            return Ok((reader.position() - start, false));
        }
        if !more {
            reader.check_whole()?;
            break;
        }
    }
    Ok((reader.position() - start, true))
}

/// Rewrites a run of sealed segments as one new generation that covers the same offsets, with what the
/// rules keep. Dropping the future gives the rewrite up.
///
/// # Errors
/// [`StorageError::InvalidRun`] for segments that are not sealed neighbours;
/// [`StorageError::Corrupt`] when an input is damaged (nothing is built from damaged bytes);
/// [`StorageError::NoSpace`], [`StorageError::Failed`], [`StorageError::Io`].
pub async fn rewrite(
    request: RewriteRequest,
    transactions: Box<dyn TransactionView>,
    throttle: &Throttle,
) -> Result<Rewritten, StorageError> {
    let Some(storage) = request.run.first().map(|segment| segment.storage.clone()) else {
        return Err(StorageError::InvalidRun { reason: "there is none".into() });
    };
    let env = storage.env.clone();
    let mut job = env.in_background(move || Rewrite::begin(request, transactions)).await?;
    loop {
        let (back, step) = env
            .in_background(move || {
                let step = job.step();
                (job, step)
            })
            .await;
        job = back;
        let step = step?;
        throttle.pay(step.bytes).await;
        if step.done {
            break;
        }
    }
    env.in_background(move || job.finish()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_to_the_limits() {
        let extent = |base, end, bytes| SegmentExtent { base, end, bytes };
        let segments = [
            extent(0, 10, 60),
            extent(10, 20, 40),
            extent(20, 30, 1),
            extent(30, 40, 500),
            extent(40, 41, 5),
        ];
        assert_eq!(group_segments(&segments, 100), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(group_segments(&segments, 101), [0..3, 3..4, 4..5]);
        assert_eq!(group_segments(&segments, u64::MAX).len(), 1);
        let far = [extent(0, 1 << 30, 1), extent(1 << 30, 1 << 32, 1)];
        assert_eq!(group_segments(&far, 100), [0..1, 1..2]);
        assert!(group_segments(&[], 100).is_empty());
    }
}
