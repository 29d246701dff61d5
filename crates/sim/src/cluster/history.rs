//! What clients of a cluster saw, and whether all of it can be true (replication.md section 4, invariants 1, 2, 5 and 10).
//!
//! Pure: clients tell what they sent and what was answered; the first answer that contradicts another is an error, and at
//! the end each log is held against all of it.

use std::collections::{BTreeMap, BTreeSet};

use base::batch::{Batches, DecompressBuffer};

/// Most bytes that a batch is unfolded to.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// A partition by the name of its topic.
pub type Place = (String, i32);

/// What a topic promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// Segments are rewritten: of each key the last record stays.
    pub compacted: bool,
    /// Old segments are removed.
    pub trimmed: bool,
}

/// Who writes a record, and as which of his.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Number of the writer.
    pub writer: u32,
    /// Records of this writer to this partition before this one.
    pub number: u32,
}

impl Mark {
    /// The value of a record: the mark, and something behind it.
    pub fn value(self, filling: usize) -> Vec<u8> {
        let mut value = format!("{}/{}/", self.writer, self.number).into_bytes();
        value.resize(value.len() + filling, b'.');
        value
    }

    /// Reads a value.
    pub fn of(value: &[u8]) -> Option<Mark> {
        let mut parts = std::str::from_utf8(value).ok()?.split('/');
        let mut number = || parts.next()?.parse().ok();
        Some(Mark { writer: number()?, number: number()? })
    }
}

/// What is known of one partition.
#[derive(Default, Debug)]
struct Log {
    promise: Promise,
    /// By offset: acknowledged to whoever wrote it, or shown to somebody.
    known: BTreeMap<i64, Mark>,
    /// Of these, what was acknowledged.
    acknowledged: BTreeSet<i64>,
    /// The greatest high watermark that an answer of a leader epoch showed.
    watermarks: BTreeMap<i32, i64>,
}

/// See the module's head.
#[derive(Default, Debug)]
pub struct History {
    logs: BTreeMap<Place, Log>,
    /// Writers whose records are there once each, in order.
    idempotent: BTreeSet<u32>,
    /// By writer and partition: records sent.
    sent: BTreeMap<(u32, Place), u32>,
}

impl History {
    /// Says what a topic's partition promises; nothing is trimmed nor compacted without.
    pub fn promise(&mut self, place: Place, promise: Promise) {
        self.logs.entry(place).or_default().promise = promise;
    }

    /// A writer whose every record is to be there once.
    pub fn idempotent(&mut self, writer: u32) {
        self.idempotent.insert(writer);
    }

    /// A writer is about to send this record.
    pub fn sending(&mut self, place: &Place, mark: Mark) {
        let sent = self.sent.entry((mark.writer, place.clone())).or_default();
        *sent = (*sent).max(mark.number + 1);
    }

    /// A record was acknowledged.
    ///
    /// # Errors
    /// Another one was acknowledged or shown there.
    pub fn acknowledged(&mut self, place: &Place, offset: i64, mark: Mark) -> Result<(), String> {
        self.know(place, offset, mark, "acknowledged")?;
        self.log(place).acknowledged.insert(offset);
        Ok(())
    }

    /// Records from `end` on are lost, as whoever asked for a leader in spite of that was told.
    pub fn lost(&mut self, place: &Place, end: i64) {
        let log = self.log(place);
        log.known.retain(|offset, _| *offset < end);
        log.acknowledged.retain(|offset| *offset < end);
        log.watermarks.clear();
    }

    /// Records acknowledged so far.
    pub fn acknowledgements(&self) -> usize {
        self.logs.values().map(|log| log.acknowledged.len()).sum()
    }

    /// Offset behind the last record acknowledged or shown.
    pub fn end(&self, place: &Place) -> i64 {
        self.logs.get(place).and_then(|log| log.known.keys().next_back()).map_or(0, |last| last + 1)
    }

    /// The high watermark that an answer of a leader epoch, asked for from now on, must show at least.
    pub fn watermark(&self, place: &Place, epoch: i32) -> i64 {
        let shown = self.logs.get(place).map(|log| log.watermarks.range(..=epoch).map(|(_, shown)| *shown));
        shown.and_then(|shown| shown.max()).unwrap_or(0)
    }

    /// An answer of a leader epoch showed a high watermark; `least` is what [`History::watermark`] said when it was asked.
    ///
    /// # Errors
    /// It fell.
    pub fn shown_watermark(
        &mut self,
        place: &Place,
        epoch: i32,
        shown: i64,
        least: i64,
    ) -> Result<(), String> {
        if shown < least {
            return Err(format!(
                "{place:?}: epoch {epoch} shows high watermark {shown}, {least} was shown before"
            ));
        }
        let known = self.log(place).watermarks.entry(epoch).or_default();
        *known = (*known).max(shown);
        Ok(())
    }

    /// Batches that were shown to a reader who asked for `from`; returns the offset to go on at.
    ///
    /// # Errors
    /// They are damaged, or contradict what is known.
    pub fn shown(&mut self, place: &Place, from: i64, bytes: &[u8]) -> Result<i64, String> {
        let compacted = self.log(place).promise.compacted;
        let mut next = from;
        for (offset, mark) in records(bytes).map_err(|error| format!("{place:?}: {error}"))? {
            // The first batch may begin below what was asked for.
            if offset < from {
                continue;
            }
            if offset != next && !compacted {
                return Err(format!("{place:?}: offset {offset} is shown where {next} should be"));
            }
            self.know(place, offset, mark, "shown")?;
            next = offset + 1;
        }
        let end = Batches::new(bytes).filter_map(Result::ok).last().map(|batch| batch.next_offset());
        Ok(end.unwrap_or(next).max(next))
    }

    fn log(&mut self, place: &Place) -> &mut Log {
        self.logs.entry(place.clone()).or_default()
    }

    fn know(&mut self, place: &Place, offset: i64, mark: Mark, how: &str) -> Result<(), String> {
        if self.sent.get(&(mark.writer, place.clone())).is_none_or(|sent| *sent <= mark.number) {
            return Err(format!("{place:?}: {mark:?} is {how} at {offset} and was never sent"));
        }
        match self.log(place).known.insert(offset, mark) {
            Some(before) if before != mark => {
                Err(format!("{place:?}: {mark:?} is {how} at offset {offset}, where {before:?} was before"))
            }
            _ => Ok(()),
        }
    }

    /// Holds a log, read from its start to its end after all faults, against everything that is known of it.
    ///
    /// # Errors
    /// The first promise that was not kept.
    pub fn check_log(&self, place: &Place, start: i64, bytes: &[u8]) -> Result<(), String> {
        let of_place = |error: String| format!("{place:?}: {error}");
        let Some(log) = self.logs.get(place) else { return Ok(()) };
        let found: BTreeMap<i64, Mark> = records(bytes).map_err(of_place)?.into_iter().collect();
        if start > 0 && !log.promise.trimmed {
            return Err(of_place(format!("it begins at {start}")));
        }
        if !log.promise.compacted {
            let offsets = found.keys().zip(start.max(found.keys().next().copied().unwrap_or(start))..);
            if let Some((found, expected)) = offsets.into_iter().find(|(found, expected)| *found != expected)
            {
                return Err(of_place(format!("offset {found} comes where {expected} should be")));
            }
        }
        for (offset, mark) in log.known.range(start..) {
            match found.get(offset) {
                Some(there) if there == mark => {}
                None if log.promise.compacted => {}
                there => {
                    let was = if log.acknowledged.contains(offset) { "acknowledged" } else { "shown" };
                    return Err(of_place(format!("{mark:?} was {was} at {offset}, where {there:?} is")));
                }
            }
        }
        self.check_sequences(place, start, &found).map_err(of_place)?;
        let top = log.watermarks.values().max().copied().unwrap_or(0);
        let end = Batches::new(bytes).filter_map(Result::ok).last().map_or(start, |last| last.next_offset());
        match end >= top {
            true => Ok(()),
            false => Err(of_place(format!("it ends at {end}, and high watermark {top} was shown"))),
        }
    }

    /// Records of idempotent writers are there once each, in order.
    fn check_sequences(&self, place: &Place, start: i64, found: &BTreeMap<i64, Mark>) -> Result<(), String> {
        let promise = self.logs.get(place).map(|log| log.promise).unwrap_or_default();
        let mut next: BTreeMap<u32, u32> = BTreeMap::new();
        for (offset, Mark { writer, number }) in found {
            if self.sent.get(&(*writer, place.clone())).is_none_or(|sent| sent <= number) {
                return Err(format!("number {number} of writer {writer} at {offset} was never sent"));
            }
            if !self.idempotent.contains(writer) {
                continue;
            }
            let begins = if start == 0 { 0 } else { *number };
            let expected = next.entry(*writer).or_insert(begins);
            let in_order = if promise.compacted { number >= expected } else { number == expected };
            if !in_order {
                return Err(format!("number {number} of writer {writer} at {offset}, not {expected}"));
            }
            *expected = number + 1;
        }
        Ok(())
    }

    /// Holds the last record of each key in a compacted log against what was acknowledged. `keys` tells the key of a mark.
    ///
    /// # Errors
    /// A key shows something older than what was acknowledged last.
    pub fn check_keys(&self, place: &Place, bytes: &[u8], key: impl Fn(Mark) -> u64) -> Result<(), String> {
        let Some(log) = self.logs.get(place) else { return Ok(()) };
        let mut latest = BTreeMap::new();
        for (offset, mark) in records(bytes)? {
            latest.insert(key(mark), offset);
        }
        for (offset, mark) in &log.known {
            if latest.get(&key(*mark)).is_none_or(|last| last < offset) {
                let key = key(*mark);
                return Err(format!(
                    "{place:?}: key {key}: {mark:?} at {offset} is gone, and nothing is behind it"
                ));
            }
        }
        Ok(())
    }
}

/// Offsets and marks of all records in batches, each checked.
fn records(bytes: &[u8]) -> Result<Vec<(i64, Mark)>, String> {
    let mut found = Vec::new();
    let mut buffer = DecompressBuffer::new(BATCH_BYTES_MAX);
    for batch in Batches::new(bytes) {
        let batch = batch.map_err(|error| error.to_string())?;
        batch.verify_crc().map_err(|error| error.to_string())?;
        for record in batch.records(&mut buffer).map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            let mark = record.value.and_then(Mark::of);
            found.push((record.offset, mark.ok_or_else(|| format!("offset {} is nobody's", record.offset))?));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use base::batch::BatchBuilder;

    use super::*;

    fn place() -> Place {
        ("t".to_owned(), 0)
    }

    fn mark(writer: u32, number: u32) -> Mark {
        Mark { writer, number }
    }

    /// A log of one batch for each record.
    fn log(records: &[(i64, Mark)]) -> Vec<u8> {
        let mut log = Vec::new();
        for (offset, mark) in records {
            let mut batch = BatchBuilder::new();
            batch.append(1, None, Some(&mark.value(3)));
            let mut bytes = batch.finish().unwrap();
            bytes[..8].copy_from_slice(&offset.to_be_bytes());
            log.extend(bytes);
        }
        log
    }

    fn history(records: &[(i64, Mark)]) -> History {
        let mut history = History::default();
        for (offset, mark) in records {
            history.sending(&place(), *mark);
            history.acknowledged(&place(), *offset, *mark).unwrap();
        }
        history
    }

    #[test]
    fn what_was_acknowledged_must_be_there() {
        let all = [(0, mark(1, 0)), (1, mark(2, 0)), (2, mark(1, 1))];
        let mut history = history(&all);
        assert_eq!(history.check_log(&place(), 0, &log(&all)), Ok(()));
        let lost = history.check_log(&place(), 0, &log(&all[..2])).unwrap_err();
        assert!(lost.contains("acknowledged at 2"), "{lost}");
        let changed = [all[0], (1, mark(1, 1)), all[2]];
        assert!(history.check_log(&place(), 0, &log(&changed)).is_err());
        assert!(history.check_log(&place(), 1, &log(&all[1..])).is_err(), "nothing may be trimmed");
        history.promise(place(), Promise { trimmed: true, compacted: false });
        assert_eq!(history.check_log(&place(), 1, &log(&all[1..])), Ok(()));
        assert!(history.check_log(&place(), 0, &log(&[all[0], all[2]])).is_err(), "there is a gap");
    }

    #[test]
    fn an_idempotent_writer_is_there_once_and_in_order() {
        let mut history = history(&[(0, mark(1, 0))]);
        history.sending(&place(), mark(1, 1));
        let twice = log(&[(0, mark(1, 0)), (1, mark(1, 0))]);
        assert_eq!(history.check_log(&place(), 0, &twice), Ok(()));
        history.idempotent(1);
        assert!(history.check_log(&place(), 0, &twice).is_err());
        let more = [(0, mark(1, 0)), (1, mark(1, 1))];
        assert_eq!(
            history.check_log(&place(), 0, &log(&more)),
            Ok(()),
            "it was sent, though not acknowledged"
        );
        assert!(history.check_log(&place(), 0, &log(&[more[0], (1, mark(1, 2))])).is_err(), "never sent");
    }

    #[test]
    fn what_was_shown_stays() {
        let mut history = history(&[(0, mark(1, 0))]);
        history.sending(&place(), mark(1, 2));
        let shown = log(&[(0, mark(1, 0)), (1, mark(1, 1))]);
        assert_eq!(history.shown(&place(), 0, &shown), Ok(2));
        let other = log(&[(1, mark(1, 2))]);
        assert!(history.shown(&place(), 1, &other).is_err());
        assert!(history.acknowledged(&place(), 0, mark(1, 1)).is_err());
        assert!(history.shown(&place(), 0, &log(&[(1, mark(1, 1))])).is_err(), "there is a gap");
    }

    #[test]
    fn a_watermark_never_falls_but_an_older_leader_may_know_less() {
        let mut history = History::default();
        assert_eq!(history.shown_watermark(&place(), 3, 10, 0), Ok(()));
        assert_eq!((history.watermark(&place(), 2), history.watermark(&place(), 4)), (0, 10));
        let least = history.watermark(&place(), 4);
        assert!(history.shown_watermark(&place(), 4, 9, least).is_err());
        assert_eq!(history.shown_watermark(&place(), 2, 9, 0), Ok(()));
        assert!(history.check_log(&place(), 0, &[]).is_err(), "the log ends below it");
    }

    #[test]
    fn a_compacted_log_has_the_last_of_each_key() {
        let all = [(0, mark(1, 0)), (1, mark(1, 1)), (2, mark(1, 2))];
        let mut history = history(&all);
        history.promise(place(), Promise { compacted: true, trimmed: false });
        let key = |mark: Mark| u64::from(mark.number % 2);
        let kept = log(&all[1..]);
        assert_eq!(history.check_log(&place(), 0, &kept), Ok(()));
        assert_eq!(history.check_keys(&place(), &kept, key), Ok(()));
        assert!(history.check_keys(&place(), &log(&all[2..]), key).is_err(), "key 1 is gone");
        assert!(history.check_keys(&place(), &log(&all[..2]), key).is_err(), "key 0 is old");
    }
}
