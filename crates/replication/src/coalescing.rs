//! Joins small neighbours of a chain, so that it stays short: every fail-over, change of members and restart seals a segment.
//!
//! ```text
//!   before  │███████████│█████│██│▌│▌│▌│▌│▌│▌│▌│▌│ open
//!   after   │███████████│█████│██████            │ open      offsets, batches and epochs as they were
//! ```
//!
//! The choice is pure ([`joins`]): from the oldest on, a segment is joined with what follows it unless it is more than twice
//! as large. So what is rewritten again has grown by half at least, and of what stays every segment is more than twice as
//! large as the next, or the two together are larger than a segment may be. A chain of T bytes in segments of at most L and
//! at least s has at most `(2T/L + 1) · (log2(L/s) + 1)` of them, and [`SAVED_MIN`] more, because less is not worth an edit.
//!
//! A result is never larger than a segment may grow (`segment.bytes`), nor so long that retention would keep records much
//! longer than without ([`JoinLimits::of`]). Above [`CHAIN_LENGTH_MAX`] segments `segment.ms` is no reason any more to leave
//! them apart. What stays apart always: segments that other storages hold, records that compaction has seen and others,
//! what an unclean election may have cut and others. Of a compacted topic what compaction has seen is left to compaction,
//! which joins what it rewrites.
//!
//! Every holder fetches the result before it takes its place: there are never fewer copies of a record than before.

use std::ops::Range;
use std::sync::Arc;

use base::chain::{PartitionState, SegmentEntry, SegmentState};
use base::config::TopicSettings;
use base::ids::{LeaderEpoch, Offset, StorageId, TimestampMs};
use storage::{Keep, StorageError, Throttle};

use crate::compaction::CompactionError;
use crate::log::{Derived, Held, Log};
use crate::rewriting::Run;
use crate::tail::SEGMENT_BYTES_MAX;

/// Segments by which a chain must become shorter for segments of it to be joined.
pub const SAVED_MIN: usize = 8;

/// Above so many segments `segment.ms` keeps none apart.
pub const CHAIN_LENGTH_MAX: usize = 1_000;

/// A segment this many times as large as what follows it is left alone.
const LARGER_MAX: u64 = 2;

/// Most leader epochs of a result.
const EPOCHS_MAX: usize = 1_000;

/// What is kept by time or size is kept in this many parts at least.
const RETENTION_PARTS: u64 = 8;

/// Offsets and positions in an index are 31 bits long.
const INDEXABLE_MAX: u64 = i32::MAX as u64;

/// A sealed segment as the choice sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First offset covered.
    pub base: Offset,
    /// Offset after the last one covered.
    pub end: Offset,
    /// Length, bytes.
    pub bytes: u64,
    /// Leader epochs that have records in it, at most.
    pub epochs: usize,
    /// Largest record timestamp, ms; `None` where no record has one.
    pub latest_ms: Option<TimestampMs>,
}

/// What a result may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinLimits {
    /// Bytes.
    pub bytes_max: u64,
    /// Time is cut into windows of so many ms, and the largest timestamps of what becomes one lie in the same; `None` is
    /// without limit. With one, segments without timestamps stay as they are: their age is that of their files.
    pub window_ms: Option<i64>,
}

impl JoinLimits {
    /// Those of a topic whose chain is so long: half of `segment.ms`, so that what was rolled by age stays as it is, and an
    /// eighth of `retention.ms` and `retention.bytes`, so that they are kept as finely as that.
    pub fn of(settings: &TopicSettings, chain_length: usize) -> JoinLimits {
        let roll_ms = crate::tail::roll_age_ms(settings) / 2;
        let roll_ms = (chain_length <= CHAIN_LENGTH_MAX).then_some(roll_ms);
        let kept_ms = settings.retention_ms.filter(|_| settings.delete).map(|ms| ms / RETENTION_PARTS as i64);
        let kept_bytes =
            settings.retention_bytes.filter(|_| settings.delete).map(|all| all / RETENTION_PARTS);
        let bytes_max = settings.segment_bytes.min(SEGMENT_BYTES_MAX).min(kept_bytes.unwrap_or(u64::MAX));
        JoinLimits { bytes_max, window_ms: roll_ms.into_iter().chain(kept_ms).min() }
    }

    /// Segments of more bytes can hardly be joined with anything: of those that become one all but one are smaller.
    fn is_small(&self, bytes: u64) -> bool {
        bytes <= self.bytes_max / 2
    }

    fn allow(&self, whole: &Joined) -> bool {
        whole.bytes <= self.bytes_max.min(INDEXABLE_MAX)
            && whole.end.abs_diff(whole.base) <= INDEXABLE_MAX
            && whole.epochs <= EPOCHS_MAX
            && (self.window_ms.is_none() || whole.window.is_some())
    }

    /// In which window something lies.
    fn window(&self, latest_ms: TimestampMs) -> i64 {
        latest_ms.div_euclid(self.window_ms.unwrap_or(1).max(1))
    }
}

/// Pieces that become one.
#[derive(Clone, Copy)]
struct Joined {
    start: usize,
    base: Offset,
    end: Offset,
    bytes: u64,
    epochs: usize,
    /// The window in which all of them lie, if there is one.
    window: Option<i64>,
}

impl Joined {
    fn with(&self, next: &Joined) -> Joined {
        Joined {
            end: next.end,
            bytes: self.bytes.saturating_add(next.bytes),
            epochs: self.epochs + next.epochs,
            window: self.window.filter(|window| Some(*window) == next.window),
            ..*self
        }
    }
}

/// Which neighbours of `pieces`, oldest first, are to become one each: runs of two and more, in order. Pure.
pub fn joins(pieces: &[Piece], limits: &JoinLimits) -> Vec<Range<usize>> {
    let mut joined: Vec<Joined> = Vec::new();
    // Retention keeps a segment as long as one before it.
    let mut kept_ms = TimestampMs::MIN;
    for (start, piece) in pieces.iter().enumerate() {
        let Piece { base, end, bytes, epochs, latest_ms } = *piece;
        kept_ms = kept_ms.max(latest_ms.unwrap_or(TimestampMs::MIN));
        let window = latest_ms.map(|_| limits.window(kept_ms));
        let mut last = Joined { start, base, end, bytes, epochs, window };
        while let Some(before) = joined.last() {
            let whole = before.with(&last);
            if before.bytes > last.bytes.saturating_mul(LARGER_MAX) || !limits.allow(&whole) {
                break;
            }
            last = whole;
            joined.pop();
        }
        joined.push(last);
    }
    let ends = joined.iter().skip(1).map(|next| next.start).chain([pieces.len()]);
    joined.iter().zip(ends).map(|(run, end)| run.start..end).filter(|run| run.len() > 1).collect()
}

/// Whether two neighbours of a chain may become one, as far as their entries tell.
fn are_kin(one: &SegmentEntry, other: &SegmentEntry, compacted_to: Offset) -> bool {
    let (Some(one_end), Some(other_end)) = (one.end(), other.end()) else { return false };
    let (ours, others) = (holders(one), holders(other));
    one.kind == other.kind
        && one.unclean == other.unclean
        && (one_end <= compacted_to) == (other_end <= compacted_to)
        && ours.len() == others.len()
        && ours.iter().all(|storage| others.contains(storage))
}

/// What of a chain is to be joined.
pub(crate) struct Joins {
    state: Arc<PartitionState>,
    segments: Vec<Held>,
    leader_epoch: LeaderEpoch,
    runs: Vec<Range<usize>>,
}

impl Joins {
    /// By how many segments the chain becomes shorter.
    fn saved(&self) -> usize {
        self.runs.iter().map(|run| run.len() - 1).sum()
    }
}

/// What was joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coalesced {
    /// Segments that were.
    pub segments_before: usize,
    /// Segments they became.
    pub segments_after: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl<S: Derived> Log<S> {
    /// Whether the chain has become so long that small segments of it are to be joined. May read files.
    ///
    /// # Errors
    /// [`StorageError`] when timestamps cannot be read.
    pub fn coalescing_is_due(&self) -> Result<bool, StorageError> {
        Ok(self.joins()?.saved() >= SAVED_MIN)
    }

    /// Joins what [`Log::coalescing_is_due`] found, if that is still so. Dropping the future gives it up between two edits of
    /// the chain.
    ///
    /// # Errors
    /// [`CompactionError`]; what was put in place stays.
    pub async fn coalesce(self: &Arc<Self>, throttle: &Throttle) -> Result<Coalesced, CompactionError> {
        let _running = self.compacting.try_lock().map_err(|_| CompactionError::Busy)?;
        let log = self.clone();
        let joins = self.spec.env.in_background(move || log.joins()).await?;
        let mut done = Coalesced::default();
        if joins.saved() < SAVED_MIN {
            return Ok(done);
        }
        for range in &joins.runs {
            let entries = &joins.state.chain[range.clone()];
            let run = Run {
                old: &joins.segments[range.clone()],
                entries,
                keep: Keep::All,
                copies_min: holders(&entries[0]).len(),
                compacted_to: joins.state.compacted_to,
                leader_epoch: joins.leader_epoch,
            };
            let stats = self.rewrite_run(run, throttle).await?;
            done.segments_before += range.len();
            done.segments_after += 1;
            done.bytes += stats.bytes_written;
        }
        Ok(done)
    }

    fn joins(&self) -> Result<Joins, StorageError> {
        let view = self.view.load_full();
        let settings = self.settings();
        let limits = JoinLimits::of(&settings, view.segments.len());
        let leader_epoch = self.tail.lock().epoch;
        let none = Joins { state: view.state.clone(), segments: Vec::new(), leader_epoch, runs: Vec::new() };
        let is_small = |segment: &&Held| segment.is_sealed() && limits.is_small(segment.bytes());
        if view.segments.iter().filter(is_small).count() < SAVED_MIN {
            return Ok(none);
        }
        // What is being edited at the moment is looked at again later.
        let Some(state) = self.state_behind(&view) else { return Ok(none) };
        let compacted_to = state.compacted_to;
        let both: Vec<_> = state.chain.iter().zip(&view.segments).collect();
        let mut runs = Vec::new();
        let mut start = 0;
        for kin in both.chunk_by(|one, other| {
            are_kin(one.0, other.0, compacted_to) && one.1.storage.id() == other.1.storage.id()
        }) {
            let first = start;
            start += kin.len();
            let is_compactions = settings.compact && kin[0].1.end() <= compacted_to;
            if kin.len() < 2 || is_compactions || !self.are_at_hand(holders(kin[0].0)) {
                continue;
            }
            let pieces = kin.iter().map(|(entry, segment)| piece(entry, segment));
            let pieces = pieces.collect::<Result<Vec<_>, StorageError>>()?;
            let found = joins(&pieces, &limits).into_iter();
            runs.extend(found.map(|run| first + run.start..first + run.end));
        }
        Ok(Joins { state, segments: view.segments.clone(), leader_epoch, runs })
    }

    /// Whether all these storages are of brokers that live.
    fn are_at_hand(&self, storages: &[StorageId]) -> bool {
        let is_own = |storage: &StorageId| self.spec.storages.iter().any(|own| own.id() == *storage);
        let peers = self.spec.peers.as_ref();
        let is_there =
            |storage: &StorageId| peers.is_some_and(|peers| peers.candidates.home(*storage).is_some());
        storages.iter().all(|storage| is_own(storage) || is_there(storage))
    }
}

fn holders(entry: &SegmentEntry) -> &[StorageId] {
    match &entry.state {
        SegmentState::Sealed { replicas, .. } => replicas,
        SegmentState::Open { .. } => &[],
    }
}

fn piece(entry: &SegmentEntry, segment: &Held) -> Result<Piece, StorageError> {
    let latest_ms = segment.max_timestamp()?;
    let (base, end, bytes) = (segment.base(), segment.end(), segment.bytes());
    Ok(Piece { base, end, bytes, epochs: entry.epochs.len(), latest_ms })
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "what is compared are lists of runs")]
mod tests {
    use base::ids::{Generation, SegmentId, Uuid};

    use super::*;

    const LIMITS: JoinLimits = JoinLimits { bytes_max: 1 << 20, window_ms: None };

    fn pieces(sizes: &[u64]) -> Vec<Piece> {
        let bases = (0..).step_by(10);
        let piece = |(bytes, base): (&u64, i64)| Piece {
            base,
            end: base + 10,
            bytes: *bytes,
            epochs: 1,
            latest_ms: Some(base),
        };
        sizes.iter().zip(bases).map(piece).collect()
    }

    #[test]
    fn small_neighbours_become_one_and_large_ones_stay() {
        let limits = JoinLimits { bytes_max: 100, window_ms: None };
        assert_eq!(joins(&pieces(&[90, 10, 10, 10, 60]), &limits), [1..5]);
        assert_eq!(joins(&pieces(&[90, 10, 10, 10, 61, 60]), &limits), [1..5]);
        assert_eq!(joins(&pieces(&[40, 19, 9, 4, 1]), &limits), [], "each is twice as large as the next");
        assert_eq!(joins(&pieces(&[40, 19, 9, 4, 2]), &limits), [0..5]);
        assert_eq!(joins(&pieces(&[100, 100, 100]), &limits), []);
        assert_eq!(joins(&pieces(&[5, 200, 5]), &limits), []);
        assert_eq!(joins(&pieces(&[1]), &limits), []);
        assert_eq!(joins(&[], &limits), []);
    }

    #[test]
    fn what_is_kept_for_different_times_stays_apart() {
        let limits = JoinLimits { bytes_max: 100, window_ms: Some(25) };
        assert_eq!(joins(&pieces(&[1; 7]), &limits), [0..3, 3..5, 5..7]);
        let mut backwards = pieces(&[1; 3]);
        backwards[0].latest_ms = Some(1_000);
        assert_eq!(joins(&backwards, &limits), [0..3], "the first one keeps the others");
        let mut of_no_age = pieces(&[1; 4]);
        of_no_age[1].latest_ms = None;
        assert_eq!(joins(&of_no_age, &JoinLimits { window_ms: Some(50), ..limits }), [2..4]);
        assert_eq!(joins(&of_no_age, &LIMITS), [0..3], "what is kept for ever needs no age");
    }

    #[test]
    fn an_index_can_hold_a_result_and_a_chain_its_epochs() {
        let mut far = pieces(&[1, 1, 1]);
        far[1].end = 1 << 32;
        (far[2].base, far[2].end) = (1 << 32, (1 << 32) + 5);
        assert_eq!(joins(&far, &LIMITS), []);
        let limits = JoinLimits { bytes_max: u64::MAX, window_ms: None };
        assert_eq!(joins(&pieces(&[1 << 30, 1 << 30]), &limits), []);
        let mut epochs = pieces(&[1, 1, 1]);
        epochs[0].epochs = EPOCHS_MAX - 1;
        assert_eq!(joins(&epochs, &LIMITS), [0..2]);
    }

    #[test]
    fn limits_are_those_of_the_topic() {
        const HOUR_MS: i64 = 3_600_000;
        let delete = TopicSettings {
            delete: true,
            compact: false,
            segment_bytes: 1 << 20,
            segment_ms: 2 * HOUR_MS,
            retention_ms: Some(80 * HOUR_MS),
            retention_bytes: None,
            ..TopicSettings::default()
        };
        let of = |settings: &TopicSettings, length| {
            let limits = JoinLimits::of(settings, length);
            (limits.bytes_max, limits.window_ms)
        };
        assert_eq!(of(&delete, 10), (1 << 20, Some(HOUR_MS)));
        assert_eq!(of(&delete, CHAIN_LENGTH_MAX + 1), (1 << 20, Some(10 * HOUR_MS)));
        let short =
            TopicSettings { retention_ms: Some(HOUR_MS), retention_bytes: Some(1 << 20), ..delete.clone() };
        assert_eq!(of(&short, 10), (1 << 17, Some(HOUR_MS / 8)));
        let compacted = TopicSettings { delete: false, compact: true, ..short };
        assert_eq!(of(&compacted, 10), (1 << 20, Some(HOUR_MS)));
        assert_eq!(of(&compacted, CHAIN_LENGTH_MAX + 1), (1 << 20, None));
        let large = TopicSettings { segment_bytes: 1 << 40, ..delete };
        assert_eq!(of(&large, 10).0, SEGMENT_BYTES_MAX);
    }

    /// A number from a seed, evenly spread.
    struct Draws(u64);

    impl Draws {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) % bound
        }
    }

    /// A segment of a simulated chain, and the arrivals that it came from.
    struct Grown {
        piece: Piece,
        arrivals: Range<usize>,
    }

    /// Lets `arrivals` come one by one, joins what is due after each, and returns how often each was rewritten and the chain.
    fn grow(arrivals: &[Piece], limits: &JoinLimits) -> (Vec<u32>, Vec<Grown>) {
        let mut rewritten = vec![0; arrivals.len()];
        let mut chain: Vec<Grown> = Vec::new();
        for (index, piece) in arrivals.iter().enumerate() {
            chain.push(Grown { piece: *piece, arrivals: index..index + 1 });
            let pieces: Vec<Piece> = chain.iter().map(|grown| grown.piece).collect();
            let runs = joins(&pieces, limits);
            if runs.iter().map(|run| run.len() - 1).sum::<usize>() < SAVED_MIN {
                continue;
            }
            for run in runs.into_iter().rev() {
                let mut old = chain.splice(run, []).collect::<Vec<_>>();
                let at = chain.partition_point(|grown| grown.piece.base < old[0].piece.base);
                let mut new = old.remove(0);
                for grown in old {
                    assert_eq!(new.piece.end, grown.piece.base, "neighbours");
                    new.piece.end = grown.piece.end;
                    new.piece.bytes += grown.piece.bytes;
                    new.piece.epochs += grown.piece.epochs;
                    new.piece.latest_ms = new.piece.latest_ms.max(grown.piece.latest_ms);
                    new.arrivals.end = grown.arrivals.end;
                }
                assert!(new.piece.bytes <= limits.bytes_max);
                if let Some(window_ms) = limits.window_ms {
                    let all = &arrivals[..new.arrivals.end];
                    let kept_ms =
                        |until: usize| all[..until].iter().filter_map(|piece| piece.latest_ms).max();
                    let (first, last) = (kept_ms(new.arrivals.start + 1), kept_ms(new.arrivals.end));
                    assert!(last.unwrap() - first.unwrap() < window_ms);
                }
                rewritten[new.arrivals.clone()].iter_mut().for_each(|count| *count += 1);
                chain.insert(at, new);
            }
        }
        (rewritten, chain)
    }

    #[test]
    fn a_byte_is_rewritten_as_often_as_its_segment_can_double_and_the_chain_stays_short() {
        let largest = LIMITS.bytes_max;
        for seed in 0..200_u64 {
            let mut draws = Draws(seed);
            let (shape, smallest) = (seed % 4, 1 << (seed % 8));
            let sizes: Vec<u64> = (0..600)
                .map(|index: u64| match shape {
                    // All alike; of every size; what would be a ruler if nothing were joined; tiny ones and large ones.
                    0 => smallest,
                    1 => smallest << draws.below(20 - seed % 8),
                    2 => smallest << (2 * (index + 1).trailing_zeros()).min(12),
                    _ => {
                        if draws.below(9) == 0 {
                            largest / 2 + draws.below(largest)
                        } else {
                            smallest + draws.below(9)
                        }
                    }
                })
                .collect();
            let arrivals = pieces(&sizes);
            let (rewritten, chain) = grow(&arrivals, &LIMITS);
            for (count, bytes) in rewritten.iter().zip(&sizes) {
                // Once when it comes, and then when it has grown by half.
                let growths = (largest as f64 / *bytes as f64).max(1.0).log(1.5);
                assert!(f64::from(*count) <= 1.0 + growths, "seed {seed}: {count} times {bytes} bytes");
            }
            let total: u64 = sizes.iter().sum();
            let full = 2 * total / largest + 1;
            let bound = full * u64::from((2 * largest / smallest).ilog2() + 1) + SAVED_MIN as u64;
            assert!(chain.len() as u64 <= bound, "seed {seed}: {} of at most {bound}", chain.len());
            assert_eq!(chain.iter().map(|grown| grown.piece.bytes).sum::<u64>(), total);
            assert_eq!((chain[0].piece.base, chain.last().unwrap().piece.end), (0, 6_000));
            if shape != 3 {
                assert!(chain.len() < 120, "seed {seed}: {}", chain.len());
            }
        }
    }

    #[test]
    fn ages_bound_what_becomes_one_whatever_the_sizes() {
        for seed in 0..50 {
            let mut draws = Draws(seed);
            let sizes: Vec<u64> = (0..400).map(|_| 1 + draws.below(1 << 12)).collect();
            let mut arrivals = pieces(&sizes);
            for piece in &mut arrivals {
                piece.latest_ms = Some(piece.base + draws.below(50) as i64);
            }
            let limits = JoinLimits { window_ms: Some(1_000), ..LIMITS };
            let (_, chain) = grow(&arrivals, &limits);
            assert!(chain.len() < 60, "{}", chain.len());
        }
    }

    #[test]
    fn what_must_stay_apart_is_no_kin() {
        let (one, two) = (Uuid([1; 16]), Uuid([2; 16]));
        let entry = |base: Offset, replicas: &[StorageId]| SegmentEntry {
            id: SegmentId(base as u64),
            kind: base::chain::SegmentKind::Replicated,
            generation: Generation(0),
            base,
            epochs: vec![(LeaderEpoch(0), base)],
            ack_quorum: 1,
            state: SegmentState::Sealed { end: base + 10, crc: 0, bytes: 5, replicas: replicas.to_vec() },
            unclean: false,
        };
        let (a, b) = (entry(0, &[one, two]), entry(10, &[two, one]));
        assert!(are_kin(&a, &b, 0) && are_kin(&a, &b, 20));
        assert!(!are_kin(&a, &b, 10) && !are_kin(&a, &b, 15), "one was compacted as a whole, the other not");
        assert!(!are_kin(&a, &entry(10, &[one]), 0) && !are_kin(&entry(0, &[two]), &entry(10, &[one]), 0));
        assert!(!are_kin(&a, &SegmentEntry { unclean: true, ..b.clone() }, 0));
        let open = SegmentEntry { state: SegmentState::Open { ensemble: Vec::new() }, ..b };
        assert!(!are_kin(&a, &open, 0));
    }
}
