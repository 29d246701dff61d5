//! What compaction keeps of a batch. Pure.
//!
//! - A record stays if no later one in the map's range has its key. Records beyond the range stay.
//! - A tombstone (no value) stays until its batch's delete horizon has passed. The horizon is set, to
//!   now plus `delete.retention.ms`, when the older records it deletes are gone (KIP-534): in the first
//!   rewrite that has everything older rewritten by the same map.
//! - A record without a key cannot be compacted and goes, as in Kafka.
//! - Offsets, sequences, timestamps and the codec stay. A batch with nothing left goes too, except the
//!   last one of a rewrite and the last one of each live producer, which stay empty.

use std::collections::HashMap;

use base::batch::{BatchBuilder, BatchError, BatchHeader, BatchView, DecompressBuffer, Record};
use base::ids::{Offset, TimestampMs};

use super::map::OffsetMap;

/// A producer whose state must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveProducer {
    /// Its epoch.
    pub epoch: i16,
    /// Last offset of its last batch of records; `None` when its last batch is a control batch, which
    /// is kept then.
    pub last_offset: Option<Offset>,
}

/// What to do with the records of a batch, as far as transactions decide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchFate {
    /// Records of a committed transaction, or of none: judge each. A control batch stays.
    Judge,
    /// Records of an aborted transaction: all go.
    Discard,
    /// A control batch of a transaction of which no record is left: it goes like a tombstone.
    Expire,
}

/// Knows transactions, so that compaction need not.
pub trait TransactionView: Send {
    /// Asked once for each batch of a pass, in offset order.
    fn fate(&mut self, batch: &BatchView<'_>) -> BatchFate;
}

/// A log without transactions.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTransactions;

impl TransactionView for NoTransactions {
    fn fate(&mut self, _: &BatchView<'_>) -> BatchFate {
        BatchFate::Judge
    }
}

/// The rules of one rewrite.
#[derive(Clone, Debug)]
pub struct CompactionRules {
    /// Wall clock, ms.
    pub now_ms: TimestampMs,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// Everything older than the rewritten run is gone or was rewritten by the same map already, so that
    /// tombstones in the run have done their work. Rewriting in ascending order from the log start, each
    /// committed before the next, makes it so.
    pub older_is_clean: bool,
    /// The record at this offset stays whatever becomes of others: the log's last one, because some
    /// consumers ask without end for what follows a batch that is empty and the last.
    pub keep_offset: Option<Offset>,
    /// Producers that are not expired, by id.
    pub live_producers: HashMap<i64, LiveProducer>,
}

impl CompactionRules {
    fn keeps_empty(&self, header: &BatchHeader) -> bool {
        let Some(live) = self.live_producers.get(&header.producer_id) else { return false };
        header.has_producer_id()
            && match live.last_offset {
                Some(offset) => header.last_offset() == offset,
                None => header.is_control() && header.producer_epoch == live.epoch,
            }
    }

    fn new_horizon(&self) -> TimestampMs {
        self.now_ms.saturating_add(self.delete_retention_ms.max(0))
    }
}

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// As it is.
    Same,
    /// Nothing.
    Nothing,
    /// These bytes in its place.
    Rewritten(Vec<u8>),
}

/// A batch's outcome, with what there is to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filtered {
    pub(crate) kept: Kept,
    pub(crate) records_kept: u64,
    /// The time from which on tombstones or expired markers that were kept may go.
    pub(crate) horizon_ms: Option<TimestampMs>,
    /// It could not be read, so it stays as it is.
    pub(crate) unreadable: bool,
}

impl Filtered {
    /// The batch stays as it is, and nobody looks into it.
    pub(crate) fn same(batch: &BatchView<'_>) -> Filtered {
        outcome(Kept::Same, batch.record_count.max(0) as u64, None)
    }
}

fn outcome(kept: Kept, records_kept: u64, horizon_ms: Option<TimestampMs>) -> Filtered {
    Filtered { kept, records_kept, horizon_ms, unreadable: false }
}

/// Judges one batch. `is_last` marks the last one of the rewrite.
pub(crate) fn filter_batch(
    batch: &BatchView<'_>,
    fate: BatchFate,
    is_last: bool,
    map: &OffsetMap,
    rules: &CompactionRules,
    buffer: &mut DecompressBuffer,
) -> Filtered {
    let empty = |batch: &BatchView<'_>| {
        if !is_last && !rules.keeps_empty(batch) {
            return outcome(Kept::Nothing, 0, None);
        }
        let same = batch.record_count == 0 && batch.delete_horizon_ms().is_none();
        let kept = if same { Kept::Same } else { emptied(batch) };
        outcome(kept, 0, None)
    };
    let count = batch.record_count.max(0) as u64;
    let horizon = batch.delete_horizon_ms();
    let passed = horizon.is_some_and(|horizon| horizon <= rules.now_ms);
    match fate {
        _ if count == 0 => empty(batch),
        BatchFate::Discard => empty(batch),
        BatchFate::Expire if passed => empty(batch),
        BatchFate::Expire if horizon.is_none() && rules.older_is_clean => {
            let horizon_ms = rules.new_horizon();
            let rebuilt = rebuild(batch, Some(horizon_ms), buffer, |_| true);
            rebuilt.map_or_else(
                |_| unreadable(count),
                |bytes| outcome(Kept::Rewritten(bytes), count, Some(horizon_ms)),
            )
        }
        BatchFate::Expire => outcome(Kept::Same, count, horizon),
        BatchFate::Judge if batch.is_control() => outcome(Kept::Same, count, None),
        BatchFate::Judge => {
            let kept_anyway = |record: &Record<'_>| rules.keep_offset == Some(record.offset);
            let stays = |record: &Record<'_>| kept_anyway(record) || stays(record, passed, map);
            let waits = |record: &Record<'_>| record.value.is_none() && !kept_anyway(record);
            let Ok(survey) = survey(batch, buffer, stays, waits) else { return unreadable(count) };
            if survey.kept == 0 {
                return empty(batch);
            }
            let horizon = match horizon {
                Some(horizon) => Some(horizon),
                // Beyond the map nobody looked for the older records of these keys.
                None if rules.older_is_clean && batch.next_offset() <= map.end() => Some(rules.new_horizon()),
                None => None,
            };
            let horizon = horizon.filter(|_| survey.tombstones);
            let same = survey.kept == count && horizon == batch.delete_horizon_ms();
            if same || survey.kept == count && !survey.tombstones {
                return outcome(Kept::Same, survey.kept, horizon);
            }
            rebuild(batch, horizon, buffer, stays).map_or_else(
                |_| unreadable(count),
                |bytes| outcome(Kept::Rewritten(bytes), survey.kept, horizon),
            )
        }
    }
}

/// Whether a record stays, in a batch whose delete horizon has `passed` or not.
fn stays(record: &Record<'_>, passed: bool, map: &OffsetMap) -> bool {
    if record.offset >= map.end() {
        return true;
    }
    let Some(key) = record.key else { return false };
    let latest = map.get(key).is_none_or(|latest| record.offset >= latest);
    latest && (record.value.is_some() || !passed)
}

struct Survey {
    kept: u64,
    /// Some of those kept go once their time has come.
    tombstones: bool,
}

/// What of a batch stays, and whether any of that waits for its delete horizon, without building it anew: most batches stay as they are.
fn survey(
    batch: &BatchView<'_>,
    buffer: &mut DecompressBuffer,
    stays: impl Fn(&Record<'_>) -> bool,
    waits: impl Fn(&Record<'_>) -> bool,
) -> Result<Survey, BatchError> {
    let mut survey = Survey { kept: 0, tombstones: false };
    for record in batch.records(buffer)? {
        let record = record?;
        if stays(&record) {
            survey.kept += 1;
            survey.tombstones |= waits(&record);
        }
    }
    Ok(survey)
}

/// The batch with those records that stay. An error of the builder counts as one of the batch.
fn rebuild(
    batch: &BatchView<'_>,
    horizon_ms: Option<TimestampMs>,
    buffer: &mut DecompressBuffer,
    stays: impl Fn(&Record<'_>) -> bool,
) -> Result<Vec<u8>, BatchError> {
    let mut builder = BatchBuilder::rewrite(batch.header(), batch.compression()?);
    if let Some(horizon_ms) = horizon_ms {
        builder = builder.delete_horizon_ms(horizon_ms);
    }
    for record in batch.records(buffer)? {
        let record = record?;
        if stays(&record) {
            builder.append_record(&record);
        }
    }
    let reason = "it cannot be built again";
    builder.finish().map_err(|_| BatchError::InvalidRecord { index: 0, reason })
}

fn emptied(batch: &BatchView<'_>) -> Kept {
    let builder = BatchBuilder::rewrite(batch.header(), base::batch::Compression::None);
    Kept::Rewritten(builder.finish().expect("an empty batch with its last offset can be built"))
}

fn unreadable(records: u64) -> Filtered {
    Filtered { kept: Kept::Same, records_kept: records, horizon_ms: None, unreadable: true }
}

/// Puts the keys of a batch into the map; false when they do not fit, and none was put then.
pub(crate) fn index_batch(
    batch: &BatchView<'_>,
    fate: BatchFate,
    map: &mut OffsetMap,
    buffer: &mut DecompressBuffer,
) -> bool {
    let counted = fate == BatchFate::Judge && !batch.is_control();
    if counted {
        if !map.has_room_for(batch.record_count.max(0) as usize) && !fits(batch, map, buffer) {
            return false;
        }
        let Ok(records) = batch.records(buffer) else {
            map.advance(batch.next_offset());
            return true;
        };
        // A record that cannot be read ends the batch for the rewrite too, which leaves it as it is.
        for record in records.map_while(Result::ok) {
            if let Some(key) = record.key {
                map.put(key, record.offset);
            }
        }
    }
    map.advance(batch.next_offset());
    true
}

/// Whether the new keys of a batch fit, counted one by one.
fn fits(batch: &BatchView<'_>, map: &OffsetMap, buffer: &mut DecompressBuffer) -> bool {
    let Ok(records) = batch.records(buffer) else { return true };
    let keys = records.map_while(Result::ok).filter_map(|record| record.key);
    map.has_room_for(keys.filter(|key| map.get(key).is_none()).count())
}

#[cfg(test)]
mod tests {
    use base::batch::Compression;
    use base::env::Env;

    use super::*;

    const NOW: TimestampMs = 1_000_000;
    const RETENTION: i64 = 1_000;

    fn rules(older_is_clean: bool) -> CompactionRules {
        CompactionRules {
            now_ms: NOW,
            delete_retention_ms: RETENTION,
            older_is_clean,
            keep_offset: None,
            live_producers: HashMap::new(),
        }
    }

    /// A map that has seen these keys at these offsets, up to `end`.
    fn map(keys: &[(&str, Offset)], end: Offset) -> OffsetMap {
        let mut map = OffsetMap::new(&Env::sim(1), 24_000, 0.9, 100, 0);
        for (key, offset) in keys {
            assert!(map.put(key.as_bytes(), *offset));
        }
        map.advance(end);
        map
    }

    fn builder() -> BatchBuilder {
        BatchBuilder::new().base_offset(10).leader_epoch(2)
    }

    /// Key, value, at offsets from 10 on.
    fn batch(builder: BatchBuilder, records: &[(Option<&str>, Option<&str>)]) -> Vec<u8> {
        let mut builder = builder;
        for (index, (key, value)) in records.iter().enumerate() {
            builder.append(100 + index as i64, key.map(str::as_bytes), value.map(str::as_bytes));
        }
        builder.finish().unwrap()
    }

    fn filter(
        bytes: &[u8],
        fate: BatchFate,
        is_last: bool,
        map: &OffsetMap,
        rules: &CompactionRules,
    ) -> Filtered {
        let view = BatchView::parse(bytes).unwrap();
        filter_batch(&view, fate, is_last, map, rules, &mut DecompressBuffer::new(1 << 20))
    }

    fn offsets(bytes: &[u8]) -> Vec<Offset> {
        let view = BatchView::parse(bytes).unwrap();
        view.verify_crc().unwrap();
        let mut buffer = DecompressBuffer::new(1 << 20);
        view.records(&mut buffer).unwrap().map(|record| record.unwrap().offset).collect()
    }

    fn rewritten(filtered: &Filtered) -> &[u8] {
        match &filtered.kept {
            Kept::Rewritten(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_last_record_of_a_key_stays() {
        let map = map(&[("a", 12), ("b", 50), ("c", 13)], 60);
        for codec in Compression::ALL {
            let records = [
                (Some("a"), Some("1")),
                (Some("b"), Some("2")),
                (Some("a"), Some("3")),
                (Some("c"), Some("4")),
                (None, Some("no key")),
            ];
            let bytes = batch(builder().compression(codec), &records);
            let filtered = filter(&bytes, BatchFate::Judge, false, &map, &rules(true));
            assert_eq!(offsets(rewritten(&filtered)), [12, 13]);
            assert_eq!(filtered.records_kept, 2);
            let header = *BatchView::parse(rewritten(&filtered)).unwrap().header();
            assert_eq!((header.base_offset, header.last_offset(), header.leader_epoch), (10, 14, 2));
            assert_eq!(header.compression(), Ok(codec));
        }
    }

    #[test]
    fn what_nobody_overwrote_is_not_touched() {
        let map = map(&[("a", 10), ("b", 11)], 60);
        let bytes = batch(builder(), &[(Some("a"), Some("1")), (Some("b"), Some("2"))]);
        let filtered = filter(&bytes, BatchFate::Judge, false, &map, &rules(true));
        assert_eq!((filtered.kept, filtered.records_kept), (Kept::Same, 2));
    }

    #[test]
    fn records_beyond_the_map_stay() {
        let map = map(&[("a", 50)], 11);
        let bytes = batch(builder(), &[(Some("a"), Some("1")), (Some("a"), Some("2")), (None, None)]);
        let filtered = filter(&bytes, BatchFate::Judge, false, &map, &rules(false));
        assert_eq!(offsets(rewritten(&filtered)), [11, 12]);
        let tombstone = batch(builder().base_offset(11), &[(Some("b"), None)]);
        let kept = filter(&tombstone, BatchFate::Judge, false, &map, &rules(true));
        assert_eq!((kept.kept, kept.horizon_ms), (Kept::Same, None), "an older value may be left");
    }

    #[test]
    fn tombstones_get_a_horizon_and_go_after_it() {
        let map = map(&[("a", 10), ("b", 11)], 60);
        let bytes = batch(builder(), &[(Some("a"), None), (Some("b"), Some("2"))]);
        let waiting = filter(&bytes, BatchFate::Judge, false, &map, &rules(false));
        assert_eq!((waiting.kept, waiting.horizon_ms), (Kept::Same, None), "older records may be left");
        let first = filter(&bytes, BatchFate::Judge, false, &map, &rules(true));
        assert_eq!(first.horizon_ms, Some(NOW + RETENTION));
        let bytes = rewritten(&first);
        let view = BatchView::parse(bytes).unwrap();
        assert_eq!(view.delete_horizon_ms(), Some(NOW + RETENTION));
        let mut buffer = DecompressBuffer::new(1 << 20);
        let times: Vec<_> = view.records(&mut buffer).unwrap().map(|r| r.unwrap().timestamp).collect();
        assert_eq!(times, [100, 101], "record times stay");
        let before = CompactionRules { now_ms: NOW + RETENTION - 1, ..rules(true) };
        let kept = filter(bytes, BatchFate::Judge, false, &map, &before);
        assert_eq!((kept.kept, kept.horizon_ms), (Kept::Same, Some(NOW + RETENTION)), "set once");
        let after = CompactionRules { now_ms: NOW + RETENTION, ..rules(true) };
        let gone = filter(bytes, BatchFate::Judge, false, &map, &after);
        assert_eq!(offsets(rewritten(&gone)), [11]);
        assert_eq!(BatchView::parse(rewritten(&gone)).unwrap().delete_horizon_ms(), None);
    }

    #[test]
    fn emptied_batches_go_unless_somebody_needs_them() {
        let map = map(&[("a", 50)], 60);
        let bytes = batch(builder().producer(7, 1, 3), &[(Some("a"), Some("1")), (Some("a"), Some("2"))]);
        let gone = filter(&bytes, BatchFate::Judge, false, &map, &rules(true));
        assert_eq!(gone.kept, Kept::Nothing);
        let last = filter(&bytes, BatchFate::Judge, true, &map, &rules(true));
        let live = |last_offset| {
            let live_producers = HashMap::from([(7, LiveProducer { epoch: 1, last_offset })]);
            CompactionRules { live_producers, ..rules(true) }
        };
        let of_producer = filter(&bytes, BatchFate::Judge, false, &map, &live(Some(11)));
        for kept in [last, of_producer] {
            let header = *BatchView::parse(rewritten(&kept)).unwrap().header();
            assert_eq!((header.record_count, header.base_offset, header.last_offset()), (0, 10, 11));
            assert_eq!((header.producer_id, header.producer_epoch, header.last_sequence()), (7, 1, 4));
            let again = filter(rewritten(&kept), BatchFate::Judge, false, &map, &live(Some(11)));
            assert_eq!(again.kept, Kept::Same);
        }
        let older = filter(&bytes, BatchFate::Judge, false, &map, &live(Some(99)));
        assert_eq!(older.kept, Kept::Nothing);
    }

    #[test]
    fn transactions_decide_over_their_batches() {
        let map = map(&[("a", 10)], 60);
        let data = batch(builder().producer(7, 1, 3).transactional(), &[(Some("a"), Some("1"))]);
        assert_eq!(filter(&data, BatchFate::Judge, false, &map, &rules(true)).kept, Kept::Same);
        assert_eq!(filter(&data, BatchFate::Discard, false, &map, &rules(true)).kept, Kept::Nothing);
        let marker = batch(
            builder().producer(7, 1, -1).transactional().control(),
            &[(Some("\0\0\0\x01"), Some("\0\0\0\0\0\x05"))],
        );
        assert_eq!(filter(&marker, BatchFate::Judge, false, &map, &rules(true)).kept, Kept::Same);
        assert_eq!(filter(&marker, BatchFate::Expire, false, &map, &rules(false)).kept, Kept::Same);
        let marked = filter(&marker, BatchFate::Expire, false, &map, &rules(true));
        assert_eq!((marked.horizon_ms, marked.records_kept), (Some(NOW + RETENTION), 1));
        let marked = rewritten(&marked).to_vec();
        assert_eq!(filter(&marked, BatchFate::Expire, false, &map, &rules(true)).kept, Kept::Same);
        let later = CompactionRules { now_ms: NOW + RETENTION, ..rules(true) };
        assert_eq!(filter(&marked, BatchFate::Expire, false, &map, &later).kept, Kept::Nothing);
        let live_producers = HashMap::from([(7, LiveProducer { epoch: 1, last_offset: None })]);
        let live = CompactionRules { live_producers, ..later };
        let kept = filter(&marked, BatchFate::Expire, false, &map, &live);
        let header = *BatchView::parse(rewritten(&kept)).unwrap().header();
        assert!(header.is_control() && header.record_count == 0);
    }

    #[test]
    fn what_cannot_be_read_stays_as_it_is() {
        let map = map(&[("a", 50)], 60);
        let mut bytes = batch(builder().compression(Compression::Gzip), &[(Some("a"), Some("1"))]);
        let last = bytes.len() - 5;
        bytes[last] ^= 0xff;
        let kept = filter(&bytes, BatchFate::Judge, false, &map, &rules(true));
        assert_eq!((kept.kept, kept.unreadable), (Kept::Same, true));
    }

    #[test]
    fn the_map_is_filled_batch_by_batch() {
        let mut map = OffsetMap::new(&Env::sim(1), 24 * 4, 0.9, 100, 10);
        let mut buffer = DecompressBuffer::new(1 << 20);
        let mut index = |bytes: &[u8], fate, map: &mut OffsetMap| {
            index_batch(&BatchView::parse(bytes).unwrap(), fate, map, &mut buffer)
        };
        let first =
            batch(builder(), &[(Some("a"), None), (Some("b"), None), (Some("a"), None), (None, None)]);
        assert!(index(&first, BatchFate::Judge, &mut map));
        assert_eq!((map.len(), map.end(), map.get(b"a")), (2, 14, Some(12)));
        let two_more = batch(builder().base_offset(14), &[(Some("c"), None), (Some("d"), None)]);
        assert!(!index(&two_more, BatchFate::Judge, &mut map), "only one fits");
        assert_eq!((map.len(), map.end()), (2, 14));
        assert!(index(&two_more, BatchFate::Discard, &mut map), "aborted records do not count");
        let known =
            batch(builder().base_offset(16), &[(Some("a"), None), (Some("b"), None), (Some("c"), None)]);
        assert!(index(&known, BatchFate::Judge, &mut map));
        assert_eq!((map.len(), map.end(), map.get(b"b")), (3, 19, Some(17)));
    }
}
