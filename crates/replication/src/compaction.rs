//! Compaction of one log: what there is to do, and doing it as edits of the chain.
//!
//! ```text
//!   chain start      compacted_to               uncleanable (lag, open segment)
//!       ├──── clean ──────┤├──────── dirty ────────┤───────────
//!                            1. keys of the dirty part, as far as memory allows
//!       ├─ group ─┤├─ group ─┤├── group ──┤
//!                            2. each rewritten, then put in its place by one Replace, oldest first
//! ```
//!
//! The leader compacts, and the other holders fetch the same bytes before the `Replace` (replication.md 2.15).
//!
//! The last `Replace` of a pass raises `compacted_to`; a crash before it leaves a chain that reads the
//! same, and the next pass begins where this one did. Readers see the old or the new segments, never
//! both, because they read the chain from one view.
//!
//! A tombstone whose delete horizon has passed goes in a pass over its segment alone, without keys.
//! Horizons are known for rewrites of this life; others wait for the next pass, as in Kafka (KIP-534).
//!
//! What it does not do: choose between logs, or when to look (the broker does).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use base::chain::{PartitionState, SegmentEntry};
use base::config::TopicSettings;
use base::ids::{Generation, LeaderEpoch, Offset, SegmentId, TimestampMs};
use storage::{
    CompactionRules, CompactionStats, Keep, KeyIndexer, NoTransactions, OffsetMap, SegmentExtent,
    StorageError, Throttle, group_segments,
};

use crate::chain_store::ChainStoreError;
use crate::log::{Derived, Held, Log};
use crate::rewriting::Run;
use crate::tail::SEGMENT_BYTES_MAX;

/// What one pass may use.
#[derive(Clone)]
pub struct CompactionBudget {
    /// Paid for every byte read and written.
    pub throttle: Arc<Throttle>,
    /// Memory for the keys, bytes.
    pub map_bytes: usize,
    /// How full that memory may get, 0 to 1.
    pub load_factor: f64,
}

/// What compaction would find in a log now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dirt {
    /// Bytes that were compacted before.
    pub clean_bytes: u64,
    /// Bytes that were not, and may be now.
    pub dirty_bytes: u64,
    /// How long the oldest of them has been waiting beyond `max.compaction.lag.ms`, ms; 0 for not at all.
    pub overdue_ms: i64,
    /// Tombstones are kept in the log that may go now.
    pub expired_tombstones: bool,
}

impl Dirt {
    /// Share of the bytes that were not compacted, 0 to 1.
    pub fn ratio(&self) -> f64 {
        let all = self.clean_bytes + self.dirty_bytes;
        if all == 0 { 0.0 } else { self.dirty_bytes as f64 / all as f64 }
    }

    /// Whether it is worth a pass (`min.cleanable.dirty.ratio`, `max.compaction.lag.ms`).
    pub fn is_due(&self, settings: &TopicSettings) -> bool {
        self.keys_are_due(settings) || self.expired_tombstones
    }

    fn keys_are_due(&self, settings: &TopicSettings) -> bool {
        self.dirty_bytes > 0 && (self.overdue_ms > 0 || self.ratio() > settings.min_cleanable_dirty_ratio)
    }
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Segments that were rewritten.
    pub segments_before: usize,
    /// Segments they became.
    pub segments_after: usize,
    /// Bytes read to find the keys.
    pub bytes_indexed: u64,
    /// Bytes of the old segments.
    pub bytes_read: u64,
    /// Bytes of the new segments.
    pub bytes_written: u64,
    /// Records in the old segments.
    pub records_read: u64,
    /// Records in the new segments.
    pub records_kept: u64,
    /// Batches that could not be unfolded and were kept as they are.
    pub batches_unreadable: u64,
}

impl Compacted {
    fn add(&mut self, segments: usize, stats: &CompactionStats) {
        self.segments_before += segments;
        self.segments_after += 1;
        self.bytes_read += stats.bytes_read;
        self.bytes_written += stats.bytes_written;
        self.records_read += stats.records_read;
        self.records_kept += stats.records_kept;
        self.batches_unreadable += stats.batches_unreadable;
    }
}

/// Why a pass did not come to its end. What it had put in place stays.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CompactionError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The chain was edited meanwhile, or cannot be.
    #[error(transparent)]
    Chain(#[from] ChainStoreError),
    /// The keys of not even one batch fit.
    #[error(
        "the keys of one batch do not fit into {map_bytes} bytes: raise log.cleaner.dedupe.buffer.size, \
         or lower log.cleaner.threads, which share it"
    )]
    MapTooSmall {
        /// Memory there is, bytes.
        map_bytes: usize,
    },
    /// Too few brokers have the rewrite for it to take the place of what it rewrites.
    #[error("{have} brokers have the rewrite, {need} must (min.insync.replicas)")]
    TooFewCopies {
        /// How many have it.
        have: usize,
        /// How many must.
        need: usize,
    },
    /// Another pass over this log runs.
    #[error("the log is being compacted already")]
    Busy,
}

/// Delete horizons of segments that this life rewrote.
pub(crate) type Horizons = BTreeMap<(SegmentId, Generation), TimestampMs>;

/// The part of a log that compaction may touch, oldest first.
struct Cleanable {
    state: Arc<PartitionState>,
    leader_epoch: LeaderEpoch,
    segments: Vec<Held>,
    /// How many of the segments are clean as a whole.
    clean: usize,
    /// First offset not compacted.
    from: Offset,
}

impl Cleanable {
    fn end(&self) -> Offset {
        self.segments.last().map_or(self.from, |last| last.end())
    }
}

impl<S: Derived> Log<S> {
    /// What compaction would find now; nothing for a topic that is not compacted. May read files.
    ///
    /// # Errors
    /// [`StorageError`] when timestamps cannot be read.
    pub fn dirt(&self, now_ms: TimestampMs) -> Result<Dirt, StorageError> {
        let settings = self.settings();
        if !settings.compact {
            return Ok(Dirt::default());
        }
        self.dirt_in(&self.cleanable(&settings, now_ms)?, &settings, now_ms)
    }

    fn dirt_in(
        &self,
        cleanable: &Cleanable,
        settings: &TopicSettings,
        now_ms: TimestampMs,
    ) -> Result<Dirt, StorageError> {
        let bytes = |segments: &[Held]| segments.iter().map(|segment| segment.bytes()).sum();
        let (clean, dirty) = cleanable.segments.split_at(cleanable.clean);
        Ok(Dirt {
            clean_bytes: bytes(clean),
            dirty_bytes: bytes(dirty),
            overdue_ms: overdue_ms(dirty, settings, now_ms)?,
            expired_tombstones: !self.expired_tombstones(cleanable, now_ms).is_empty(),
        })
    }

    /// When the first tombstones kept by rewrites of this life may go, ms; `None` without any.
    pub fn next_tombstone_horizon_ms(&self) -> Option<TimestampMs> {
        self.horizons.lock().values().copied().min()
    }

    /// Compacts what is due ([`Dirt::is_due`]). Dropping the future gives the pass up between two edits
    /// of the chain.
    ///
    /// # Errors
    /// [`CompactionError`].
    pub async fn compact(
        self: &Arc<Self>,
        budget: &CompactionBudget,
        now_ms: TimestampMs,
    ) -> Result<Compacted, CompactionError> {
        let _running = self.compacting.try_lock().map_err(|_| CompactionError::Busy)?;
        let settings = self.settings();
        let cleanable = self.cleanable(&settings, now_ms)?;
        let keys_are_due = self.dirt_in(&cleanable, &settings, now_ms)?.keys_are_due(&settings);
        let order = Order { cleanable, settings: &settings, budget, now_ms };
        if keys_are_due { self.compact_keys(order).await } else { self.drop_tombstones(order).await }
    }

    /// Sealed, committed segments whose records are all older than `min.compaction.lag.ms`.
    fn cleanable(&self, settings: &TopicSettings, now_ms: TimestampMs) -> Result<Cleanable, StorageError> {
        let view = self.view.load();
        let youngest_ms = now_ms.saturating_sub(settings.min_compaction_lag_ms);
        let high_watermark = self.high_watermark();
        let from = view.state.compacted_to.max(view.state.chain[0].base);
        let mut segments = Vec::new();
        for (entry, segment) in view.state.chain.iter().zip(&view.segments) {
            let dirty = segment.end() > from;
            if entry.is_open() || segment.end() > high_watermark {
                break;
            }
            let lags = settings.min_compaction_lag_ms > 0;
            if dirty && lags && segment.max_timestamp()?.is_some_and(|latest| latest > youngest_ms) {
                break;
            }
            segments.push(segment.clone());
        }
        let clean = segments.partition_point(|segment| segment.end() <= from);
        let leader_epoch = self.tail.lock().epoch;
        let state = self.state_behind(&view).unwrap_or_else(|| view.state.clone());
        Ok(Cleanable { state, leader_epoch, segments, clean, from })
    }

    /// Indexes of clean segments with tombstones that may go.
    fn expired_tombstones(&self, cleanable: &Cleanable, now_ms: TimestampMs) -> Vec<usize> {
        let horizons = self.horizons.lock();
        let expired = |segment: &Held| {
            let name = (segment.name().id, segment.name().generation);
            horizons.get(&name).is_some_and(|horizon| *horizon <= now_ms)
        };
        (0..cleanable.segments.len()).filter(|index| expired(&cleanable.segments[*index])).collect()
    }

    /// A whole pass: of every key in the dirty part, older records go.
    async fn compact_keys(self: &Arc<Self>, order: Order<'_>) -> Result<Compacted, CompactionError> {
        let mut done = Compacted::default();
        let map = self.index_keys(&order, &mut done).await?;
        let compacted_to = map.end();
        if compacted_to <= order.cleanable.from {
            return Err(CompactionError::MapTooSmall { map_bytes: order.budget.map_bytes });
        }
        let segments = &order.cleanable.segments;
        let count = segments.partition_point(|segment| segment.base() < compacted_to);
        let groups = groups(&segments[..count], order.settings);
        let mut pass = self.pass(order, map, true);
        for (index, group) in groups.iter().enumerate() {
            if index + 1 == groups.len() {
                pass.compacted_to = compacted_to;
            }
            let stats = self.rewrite_group(&pass, group.clone()).await?;
            done.add(group.len(), &stats);
        }
        Ok(done)
    }

    async fn index_keys(&self, order: &Order<'_>, done: &mut Compacted) -> Result<OffsetMap, StorageError> {
        let Order { cleanable, budget, .. } = order;
        let (from, end) = (cleanable.from, cleanable.end());
        let keys_max = u64::try_from(end - from).unwrap_or(0);
        let map = OffsetMap::new(&self.spec.env, budget.map_bytes, budget.load_factor, keys_max, from);
        let mut indexer = KeyIndexer::new(map, Box::new(NoTransactions), budget.throttle.clone());
        for segment in &cleanable.segments[cleanable.clean..] {
            done.bytes_indexed += segment.bytes();
            if !indexer.add(&segment.segment, from).await? {
                return Ok(indexer.finish());
            }
        }
        let mut map = indexer.finish();
        // Offsets without a record at the end of the last segment are accounted for, too.
        map.advance(end);
        Ok(map)
    }

    /// A pass over single segments for the sake of their tombstones.
    async fn drop_tombstones(self: &Arc<Self>, order: Order<'_>) -> Result<Compacted, CompactionError> {
        let expired = self.expired_tombstones(&order.cleanable, order.now_ms);
        // No key is in this map, so that every record counts as its key's last.
        let map = OffsetMap::new(&self.spec.env, 0, order.budget.load_factor, 0, order.cleanable.from);
        let pass = self.pass(order, map, false);
        let mut done = Compacted::default();
        for index in expired {
            let stats = self.rewrite_group(&pass, index..index + 1).await?;
            done.add(1, &stats);
        }
        Ok(done)
    }

    fn pass(&self, order: Order<'_>, map: OffsetMap, older_is_clean: bool) -> Pass {
        let Order { cleanable, settings, budget, now_ms } = order;
        Pass {
            rules: CompactionRules {
                now_ms,
                delete_retention_ms: settings.delete_retention_ms,
                older_is_clean,
                keep_offset: Some(self.end() - 1),
                live_producers: self.tail.lock().derived.live_producers(),
            },
            compacted_to: cleanable.state.compacted_to,
            cleanable,
            map: Arc::new(map),
            throttle: budget.throttle.clone(),
        }
    }

    /// Rewrites neighbours as one segment and puts it in their place.
    async fn rewrite_group(
        self: &Arc<Self>,
        pass: &Pass,
        group: Range<usize>,
    ) -> Result<CompactionStats, CompactionError> {
        let (old, entries) = pass.of(group);
        let run = Run {
            old,
            entries,
            keep: Keep::Latest { map: pass.map.clone(), rules: pass.rules.clone() },
            copies_min: self.spec.copies_min(&pass.cleanable.state),
            compacted_to: pass.compacted_to,
            leader_epoch: pass.cleanable.leader_epoch,
        };
        self.rewrite_run(run, &pass.throttle).await
    }
}

/// A pass that is to be made.
struct Order<'a> {
    cleanable: Cleanable,
    settings: &'a TopicSettings,
    budget: &'a CompactionBudget,
    now_ms: TimestampMs,
}

/// A pass over a log whose keys are known.
struct Pass {
    cleanable: Cleanable,
    map: Arc<OffsetMap>,
    rules: CompactionRules,
    /// What the next edit says.
    compacted_to: Offset,
    throttle: Arc<Throttle>,
}

impl Pass {
    fn of(&self, group: Range<usize>) -> (&[Held], &[SegmentEntry]) {
        (&self.cleanable.segments[group.clone()], &self.cleanable.state.chain[group])
    }
}

/// Neighbours that may become one segment: on one storage, together no larger than a segment.
fn groups(segments: &[Held], settings: &TopicSettings) -> Vec<Range<usize>> {
    let bytes_max = settings.segment_bytes.clamp(1, SEGMENT_BYTES_MAX);
    let mut groups = Vec::new();
    let mut start = 0;
    for run in segments.chunk_by(|a, b| a.storage.id() == b.storage.id()) {
        let extents: Vec<_> = run
            .iter()
            .map(|segment| SegmentExtent { base: segment.base(), end: segment.end(), bytes: segment.bytes() })
            .collect();
        let found = group_segments(&extents, bytes_max);
        groups.extend(found.into_iter().map(|group| start + group.start..start + group.end));
        start += run.len();
    }
    groups
}

/// How long ago the oldest dirty batch should have been compacted, ms.
fn overdue_ms(dirty: &[Held], settings: &TopicSettings, now_ms: TimestampMs) -> Result<i64, StorageError> {
    if settings.max_compaction_lag_ms == i64::MAX {
        return Ok(0);
    }
    let mut oldest_ms: Option<TimestampMs> = None;
    for segment in dirty {
        oldest_ms = oldest_ms.into_iter().chain(segment.first_timestamp()?).min();
    }
    let waited_ms = oldest_ms.map_or(0, |oldest| now_ms.saturating_sub(oldest));
    Ok(waited_ms.saturating_sub(settings.max_compaction_lag_ms).max(0))
}
