//! Idempotent producers of one partition: who wrote what last, so that a retry is recognised.
//!
//! For each producer id the last five batches are kept (Java clients have at most five in flight),
//! in memory, in every segment's snapshot and hence over restarts. Apache Kafka writes only the last
//! batch of a producer into its snapshots, so that after a restart the retry of an older one is
//! answered OUT_OF_ORDER_SEQUENCE_NUMBER and clients write it again under a new epoch; here it is
//! recognised.
//!
//! Invariants: sequences of one producer and epoch are contiguous (modulo 2^31); an entry's batches
//! are in offset order; state after replaying a log equals state after writing it, but for producers forgotten
//! meanwhile.
//!
//! What all partitions of a broker remember is bounded ([`ProducerMemory`]). Where there is no room for one more, the
//! partition it comes to forgets one that was silent for longest, as if `producer.id.expiration.ms` had passed for it: its
//! next batch is taken with whatever sequence it has, and a retry of its last ones is no longer recognised.
//!
//! Pure: time comes in as a parameter. What it does not do: transactions (the format has room).

use std::collections::HashMap;
use std::sync::Arc;

use base::batch::{BatchHeader, next_sequence};
use base::error::ErrorCode;
use base::ids::{Offset, TimestampMs};
use bytes::Bytes;
use replication::{Derived, LiveProducer};
use smallvec::SmallVec;

use crate::memory::ProducerMemory;

/// Batches remembered per producer; the largest `max.in.flight.requests.per.connection` with which
/// clients stay idempotent (KIP-98).
const BATCHES_KEPT: usize = 5;

/// What a producer takes in the map, bytes: right after it has grown, a map has room for 16 where 7 are.
const PRODUCER_BYTES: usize = size_of::<(i64, Producer)>() * 16 / 7;

/// Producers that a partition may know however little memory there is.
const KEPT_MIN: usize = 4;

/// Producers forgotten when one more comes and there is no room.
const EVICTED_AT_ONCE: usize = 2;

/// One of so many producers, those silent for longest, are found by looking through all: so that is rare.
const LOOKED_UP_PART: usize = 16;

/// A map with room for so many times what is in it is made smaller.
const SHRINK_FACTOR: usize = 4;

/// First byte of a snapshot; another value is another format.
const SNAPSHOT_FORMAT: u8 = 1;

/// What a batch says about its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerBatch {
    /// Id from InitProducerId, 0 or more.
    pub(crate) producer_id: i64,
    /// Epoch of that id.
    pub(crate) producer_epoch: i16,
    /// Sequence of the first record.
    pub(crate) first_sequence: i32,
    /// Sequence of the last record; less than the first when the numbers wrapped.
    pub(crate) last_sequence: i32,
    /// Records from first to last, less one.
    pub(crate) offset_delta: i32,
    /// Largest timestamp in the batch.
    pub(crate) timestamp: TimestampMs,
}

impl ProducerBatch {
    /// What the header of a batch with a producer id says.
    pub(crate) fn of(header: &BatchHeader, timestamp: TimestampMs) -> ProducerBatch {
        ProducerBatch {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            offset_delta: header.last_offset_delta,
            timestamp,
        }
    }
}

/// A batch already written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) first_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) last_offset: Offset,
    pub(crate) offset_delta: i32,
    pub(crate) timestamp: TimestampMs,
}

impl Remembered {
    /// Offset of the batch's first record.
    pub(crate) fn base_offset(&self) -> Offset {
        self.last_offset - Offset::from(self.offset_delta)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    /// Broker time of the last write: what expiry goes by.
    written_at_ms: TimestampMs,
    batches: SmallVec<[Remembered; BATCHES_KEPT]>,
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Append it.
    New,
    /// It is there already; answer with its old offset.
    Duplicate(Remembered),
}

/// The producers of one partition.
#[derive(Debug)]
pub(crate) struct Producers {
    by_id: HashMap<i64, Producer>,
    /// What all partitions hold, and what this one has told it, bytes.
    memory: Arc<ProducerMemory>,
    held_bytes: usize,
    /// Those that were silent for longest, with the time of their last write, the most silent last.
    silent: Vec<(TimestampMs, i64)>,
    /// Broker time at the start: what batches replayed from the log count as written at, because their
    /// own timestamps are the clients' and may lie far back.
    started_at_ms: TimestampMs,
}

/// What [`Producers::undo`] needs to take back a [`Producers::record`].
#[derive(Debug)]
pub(crate) struct Undo(i64, Option<Producer>);

impl Producers {
    /// No producers yet, at this time; what they take is counted in `memory`.
    pub(crate) fn new(now_ms: TimestampMs, memory: Arc<ProducerMemory>) -> Producers {
        Producers { by_id: HashMap::new(), memory, held_bytes: 0, silent: Vec::new(), started_at_ms: now_ms }
    }

    /// Judges a batch that is about to be appended.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_EPOCH` for an epoch that was succeeded, `OUT_OF_ORDER_SEQUENCE_NUMBER` for a
    /// gap, a batch older than those remembered, or a new epoch that does not begin at 0.
    pub(crate) fn judge(&self, batch: &ProducerBatch) -> Result<Verdict, ErrorCode> {
        let Some(producer) = self.by_id.get(&batch.producer_id) else {
            return Ok(Verdict::New);
        };
        if batch.producer_epoch < producer.epoch {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        if batch.producer_epoch > producer.epoch {
            return if batch.first_sequence == 0 {
                Ok(Verdict::New)
            } else {
                Err(ErrorCode::OutOfOrderSequenceNumber)
            };
        }
        let same = |old: &&Remembered| {
            old.first_sequence == batch.first_sequence && old.last_sequence == batch.last_sequence
        };
        if let Some(old) = producer.batches.iter().find(same) {
            return Ok(Verdict::Duplicate(*old));
        }
        match producer.batches.last() {
            Some(last) if next_sequence(last.last_sequence, 1) != batch.first_sequence => {
                Err(ErrorCode::OutOfOrderSequenceNumber)
            }
            _ => Ok(Verdict::New),
        }
    }

    /// Remembers a batch whose last record got `last_offset`. `now_ms` is the broker's time.
    pub(crate) fn record(&mut self, batch: &ProducerBatch, last_offset: Offset, now_ms: TimestampMs) -> Undo {
        let undo = Undo(batch.producer_id, self.by_id.get(&batch.producer_id).cloned());
        if undo.1.is_none() {
            self.make_room();
        }
        let producer = self.by_id.entry(batch.producer_id).or_insert_with(|| Producer {
            epoch: batch.producer_epoch,
            written_at_ms: now_ms,
            batches: SmallVec::new(),
        });
        if producer.epoch != batch.producer_epoch {
            producer.epoch = batch.producer_epoch;
            producer.batches.clear();
        }
        producer.written_at_ms = producer.written_at_ms.max(now_ms);
        if producer.batches.len() == BATCHES_KEPT {
            producer.batches.remove(0);
        }
        producer.batches.push(Remembered {
            first_sequence: batch.first_sequence,
            last_sequence: batch.last_sequence,
            last_offset,
            offset_delta: batch.offset_delta,
            timestamp: batch.timestamp,
        });
        self.count();
        undo
    }

    /// Forgets a producer that was silent for longest if there is no memory for one more; two, if more is held than may
    /// be. So a partition to which many come makes no room for itself at the cost of others.
    fn make_room(&mut self) {
        let excess = self.memory.excess(PRODUCER_BYTES).div_ceil(PRODUCER_BYTES);
        for _ in 0..excess.min(EVICTED_AT_ONCE) {
            if self.by_id.len() < KEPT_MIN {
                return;
            }
            let Some(id) = self.most_silent() else { return };
            self.by_id.remove(&id);
            self.memory.evicted(1);
        }
    }

    /// The producer that has not written for longest.
    fn most_silent(&mut self) -> Option<i64> {
        loop {
            if self.silent.is_empty() {
                let written = |(id, producer): (&i64, &Producer)| (producer.written_at_ms, *id);
                self.silent.extend(self.by_id.iter().map(written));
                let count = self.by_id.len().div_ceil(LOOKED_UP_PART);
                if count < self.silent.len() {
                    self.silent.select_nth_unstable(count);
                    self.silent.truncate(count);
                }
                self.silent.sort_unstable_by(|a, b| b.cmp(a));
                self.silent.shrink_to_fit();
            }
            let (written_at_ms, id) = self.silent.pop()?;
            // It may have written since, or be gone.
            if self.by_id.get(&id).is_some_and(|producer| producer.written_at_ms == written_at_ms) {
                return Some(id);
            }
        }
    }

    /// Tells how much all of it takes.
    fn count(&mut self) {
        let bytes = self.by_id.len() * PRODUCER_BYTES;
        if bytes != self.held_bytes {
            self.memory.changed(self.held_bytes, bytes);
            self.held_bytes = bytes;
        }
    }

    /// Takes back the last [`Producers::record`] that was not taken back.
    pub(crate) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo(id, Some(before)) => self.by_id.insert(id, before),
            Undo(id, None) => self.by_id.remove(&id),
        };
        self.count();
    }

    /// Forgets producers that have not written for `expiration_ms` (`producer.id.expiration.ms`).
    pub(crate) fn expire(&mut self, now_ms: TimestampMs, expiration_ms: i64) {
        self.by_id.retain(|_, producer| now_ms.saturating_sub(producer.written_at_ms) < expiration_ms);
        if self.by_id.capacity() > SHRINK_FACTOR * self.by_id.len() {
            self.by_id.shrink_to_fit();
        }
        self.count();
    }

    /// How many producers are known.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// True when no producer is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The state as bytes: kept beside each segment, read back by [`read_snapshot`].
    /// Empty for no producers.
    pub(crate) fn to_snapshot(&self) -> Vec<u8> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut ids: Vec<_> = self.by_id.keys().copied().collect();
        ids.sort_unstable();
        let mut bytes = vec![SNAPSHOT_FORMAT];
        bytes.extend_from_slice(&u32::try_from(ids.len()).unwrap_or(u32::MAX).to_be_bytes());
        for id in ids {
            let producer = &self.by_id[&id];
            bytes.extend_from_slice(&id.to_be_bytes());
            bytes.extend_from_slice(&producer.epoch.to_be_bytes());
            bytes.extend_from_slice(&producer.written_at_ms.to_be_bytes());
            bytes.push(producer.batches.len() as u8);
            for batch in &producer.batches {
                bytes.extend_from_slice(&batch.first_sequence.to_be_bytes());
                bytes.extend_from_slice(&batch.last_sequence.to_be_bytes());
                bytes.extend_from_slice(&batch.last_offset.to_be_bytes());
                bytes.extend_from_slice(&batch.offset_delta.to_be_bytes());
                bytes.extend_from_slice(&batch.timestamp.to_be_bytes());
            }
        }
        bytes
    }
}

impl Drop for Producers {
    fn drop(&mut self) {
        self.memory.changed(self.held_bytes, 0);
    }
}

/// Reads a snapshot back; `None` when the bytes are not one.
fn read_snapshot(bytes: &[u8]) -> Option<HashMap<i64, Producer>> {
    let mut producers = HashMap::new();
    if bytes.is_empty() {
        return Some(producers);
    }
    let mut rest = Rest(bytes);
    if rest.take::<1>()? != [SNAPSHOT_FORMAT] {
        return None;
    }
    let count = u32::from_be_bytes(rest.take()?);
    for _ in 0..count {
        let id = i64::from_be_bytes(rest.take()?);
        let epoch = i16::from_be_bytes(rest.take()?);
        let written_at_ms = i64::from_be_bytes(rest.take()?);
        let [length] = rest.take::<1>()?;
        if usize::from(length) > BATCHES_KEPT {
            return None;
        }
        let mut batches = SmallVec::new();
        for _ in 0..length {
            batches.push(Remembered {
                first_sequence: i32::from_be_bytes(rest.take()?),
                last_sequence: i32::from_be_bytes(rest.take()?),
                last_offset: i64::from_be_bytes(rest.take()?),
                offset_delta: i32::from_be_bytes(rest.take()?),
                timestamp: i64::from_be_bytes(rest.take()?),
            });
        }
        producers.insert(id, Producer { epoch, written_at_ms, batches });
    }
    rest.0.is_empty().then_some(producers)
}

impl Derived for Producers {
    fn restore(&mut self, snapshot: &[u8]) -> bool {
        let Some(restored) = read_snapshot(snapshot) else { return false };
        self.by_id = restored;
        self.count();
        true
    }

    fn replay(&mut self, batch: &BatchHeader) {
        if batch.has_producer_id() && !batch.is_control() {
            let now_ms = self.started_at_ms;
            self.record(&ProducerBatch::of(batch, batch.max_timestamp), batch.last_offset(), now_ms);
        }
    }

    fn snapshot(&self) -> Bytes {
        self.to_snapshot().into()
    }

    fn live_producers(&self) -> HashMap<i64, LiveProducer> {
        let live = |(id, producer): (&i64, &Producer)| {
            let last_offset = producer.batches.last().map(|batch| batch.last_offset);
            (*id, LiveProducer { epoch: producer.epoch, last_offset })
        };
        self.by_id.iter().map(live).collect()
    }
}

/// Bytes still to be read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*front)
    }
}

#[cfg(test)]
mod tests {
    use base::metrics::{Metrics, NodeMetrics};

    use super::*;

    /// Without a bound.
    fn unbounded() -> Producers {
        Producers::new(0, memory(usize::MAX).0)
    }

    fn memory(max_bytes: usize) -> (Arc<ProducerMemory>, NodeMetrics) {
        let metrics = Metrics::default().node().clone();
        (ProducerMemory::new(max_bytes, metrics.clone()), metrics)
    }

    /// The first batch of a producer.
    fn first_of(producer_id: i64) -> ProducerBatch {
        ProducerBatch { producer_id, ..batch(0, 0, 1) }
    }

    fn batch(epoch: i16, first: i32, count: i32) -> ProducerBatch {
        let last = (i64::from(first) + i64::from(count) - 1) % (1 << 31);
        ProducerBatch {
            producer_id: 7,
            producer_epoch: epoch,
            first_sequence: first,
            last_sequence: last as i32,
            offset_delta: count - 1,
            timestamp: 1000,
        }
    }

    /// Judges and, when new, records; returns the base offset it has or got.
    fn write(producers: &mut Producers, batch: ProducerBatch, end: &mut Offset) -> Result<Offset, ErrorCode> {
        match producers.judge(&batch)? {
            Verdict::Duplicate(old) => Ok(old.base_offset()),
            Verdict::New => {
                let base = *end;
                *end += Offset::from(batch.offset_delta) + 1;
                producers.record(&batch, *end - 1, 0);
                Ok(base)
            }
        }
    }

    #[test]
    fn a_retry_of_any_of_the_last_five_gets_its_old_offset() {
        let (mut producers, mut end) = (unbounded(), 100);
        for i in 0..7 {
            assert_eq!(write(&mut producers, batch(0, i * 10, 10), &mut end), Ok(100 + i64::from(i) * 10));
        }
        for i in 2..7 {
            assert_eq!(write(&mut producers, batch(0, i * 10, 10), &mut end), Ok(100 + i64::from(i) * 10));
        }
        let older = write(&mut producers, batch(0, 10, 10), &mut end);
        assert_eq!(older, Err(ErrorCode::OutOfOrderSequenceNumber));
    }

    #[test]
    fn a_gap_is_refused_and_the_first_sequence_is_free() {
        let (mut producers, mut end) = (unbounded(), 0);
        assert_eq!(write(&mut producers, batch(0, 55, 1), &mut end), Ok(0));
        assert_eq!(
            write(&mut producers, batch(0, 57, 1), &mut end),
            Err(ErrorCode::OutOfOrderSequenceNumber)
        );
        assert_eq!(write(&mut producers, batch(0, 56, 1), &mut end), Ok(1));
    }

    #[test]
    fn sequences_wrap_after_the_largest() {
        let (mut producers, mut end) = (unbounded(), 0);
        assert_eq!(write(&mut producers, batch(0, i32::MAX - 1, 2), &mut end), Ok(0));
        assert_eq!(write(&mut producers, batch(0, 0, 3), &mut end), Ok(2));
        let mut wrapped = unbounded();
        assert_eq!(write(&mut wrapped, batch(0, i32::MAX, 2), &mut end), Ok(5));
        assert_eq!(write(&mut wrapped, batch(0, 1, 1), &mut end), Ok(7));
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_fences_the_old() {
        let (mut producers, mut end) = (unbounded(), 0);
        write(&mut producers, batch(3, 0, 5), &mut end).unwrap();
        assert_eq!(write(&mut producers, batch(4, 5, 1), &mut end), Err(ErrorCode::OutOfOrderSequenceNumber));
        assert_eq!(write(&mut producers, batch(4, 0, 5), &mut end), Ok(5));
        assert_eq!(write(&mut producers, batch(3, 5, 1), &mut end), Err(ErrorCode::InvalidProducerEpoch));
    }

    #[test]
    fn a_record_can_be_taken_back() {
        let (mut producers, mut end) = (unbounded(), 0);
        write(&mut producers, batch(0, 0, 5), &mut end).unwrap();
        let before = producers.to_snapshot();
        let first = producers.record(&batch(0, 5, 5), 9, 0);
        let second = producers.record(&batch(1, 0, 5), 14, 0);
        producers.undo(second);
        producers.undo(first);
        assert_eq!(producers.to_snapshot(), before);
    }

    #[test]
    fn idle_producers_expire() {
        let mut producers = unbounded();
        producers.record(&batch(0, 0, 1), 0, 1_000);
        producers.expire(1_999, 1_000);
        assert!(!producers.is_empty());
        producers.expire(2_000, 1_000);
        assert!(producers.is_empty());
    }

    #[test]
    fn a_snapshot_keeps_all_five_batches() {
        let (mut producers, mut end) = (unbounded(), 0);
        for i in 0..9 {
            write(&mut producers, batch(1, i, 1), &mut end).unwrap();
        }
        let mut restored = unbounded();
        assert!(restored.restore(&producers.to_snapshot()));
        assert_eq!(restored.to_snapshot(), producers.to_snapshot());
        assert!(
            matches!(restored.judge(&batch(1, 4, 1)), Ok(Verdict::Duplicate(old)) if old.last_offset == 4)
        );
    }

    #[test]
    fn damaged_snapshots_are_refused_without_panic() {
        let mut producers = unbounded();
        producers.record(&batch(0, 0, 1), 0, 1_000);
        let good = producers.to_snapshot();
        for cut in 1..good.len() {
            assert_eq!(read_snapshot(&good[..cut]), None);
        }
        let mut huge = good.clone();
        huge[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(read_snapshot(&huge), None);
    }

    #[test]
    fn a_flood_of_producers_makes_its_partition_forget_the_most_silent() {
        const ROOM: usize = 1_000;
        let (memory, metrics) = memory(ROOM * PRODUCER_BYTES);
        let (mut quiet, mut flooded) = (Producers::new(0, memory.clone()), Producers::new(0, memory));
        for id in 0..100 {
            quiet.record(&first_of(id), id, 1);
        }
        // The first of them goes on writing all the time.
        for id in 0..20_000 {
            flooded.record(&first_of(id), id, id);
            flooded.record(&ProducerBatch { first_sequence: 1, last_sequence: 1, ..first_of(0) }, id, id);
            assert!(metrics.producer_bytes.get() as usize <= ROOM * PRODUCER_BYTES);
        }
        assert_eq!((quiet.len(), flooded.len()), (100, ROOM - 100));
        assert_eq!(metrics.producers_evicted.get(), 20_000 - (ROOM as u64 - 100));
        let known = |id: i64| flooded.by_id.contains_key(&id);
        assert!(known(0) && !known(1) && known(19_999) && known(20_000 - 890) && !known(20_000 - 1_000));
        quiet.record(&first_of(1_000), 1_000, 2);
        assert_eq!(quiet.len(), 100, "no partition grows at the cost of another");
        flooded.expire(i64::MAX, 1);
        assert_eq!(metrics.producer_bytes.get() as usize, 100 * PRODUCER_BYTES);
        drop(quiet);
        assert_eq!(metrics.producer_bytes.get(), 0);
    }

    #[test]
    fn a_partition_keeps_a_few_producers_however_little_memory_there_is() {
        let (memory, metrics) = memory(0);
        let mut producers = Producers::new(0, memory);
        for id in 0..100 {
            producers.record(&first_of(id), id, id);
        }
        assert_eq!((producers.len(), metrics.producers_evicted.get()), (KEPT_MIN, 100 - KEPT_MIN as u64));
        let retry = producers.judge(&first_of(99));
        assert!(matches!(retry, Ok(Verdict::Duplicate(old)) if old.last_offset == 99));
        assert_eq!(producers.judge(&ProducerBatch { first_sequence: 7, ..first_of(1) }), Ok(Verdict::New));
    }

    #[test]
    fn a_state_restored_beyond_the_bound_shrinks_as_others_come() {
        let mut before = unbounded();
        (0..50).for_each(|id| drop(before.record(&first_of(id), id, id)));
        let (memory, _) = memory(20 * PRODUCER_BYTES);
        let mut restored = Producers::new(0, memory);
        assert!(restored.restore(&before.to_snapshot()));
        assert_eq!(restored.len(), 50);
        (50..100).for_each(|id| drop(restored.record(&first_of(id), id, id)));
        assert_eq!(restored.len(), 20);
    }
}
