//! The sparse indexes of a segment: from offsets and timestamps to positions in its log file.
//!
//! Both files are Kafka's to the byte, big-endian, entries in order:
//! - offset index, 8 bytes an entry: last offset of a batch minus the segment's base i32, position of
//!   that batch's start i32;
//! - time index, 12 bytes an entry: largest timestamp so far i64, last offset of the first batch that
//!   has it minus the base i32; only when the timestamp has grown.
//!
//! An entry is made for the first batch that begins more than the index interval after the last one.
//! Entries of the newest part live in memory ([`Tail`]) until a checkpoint writes them; older ones are
//! looked up in the file, a few reads from the page cache each, so an idle segment keeps none in memory.

use std::io;

use base::batch::BatchHeader;
use base::env::File;
use base::ids::{Offset, TimestampMs};

use crate::crc;

/// Size of an entry of the offset index, bytes.
pub(crate) const OFFSET_ENTRY_BYTES: usize = 8;
/// Size of an entry of the time index, bytes.
pub(crate) const TIME_ENTRY_BYTES: usize = 12;
/// A search in a file reads this many bytes at once when as few are left to search.
const SEARCH_BLOCK_BYTES: usize = 4096;

/// An entry of the offset index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    /// Last offset of the batch, relative to the base.
    pub(crate) last: u32,
    /// Where the batch begins, bytes.
    pub(crate) position: u32,
}

/// An entry of the time index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    /// Largest timestamp up to and with the batch.
    pub(crate) timestamp: TimestampMs,
    /// Last offset of the batch, relative to the base.
    pub(crate) last: u32,
}

/// An entry as it lies in its file.
pub(crate) trait Entry: Copy {
    const BYTES: usize;
    fn put(&self, out: &mut Vec<u8>);
    /// `bytes` has [`Entry::BYTES`].
    fn get(bytes: &[u8]) -> Self;
}

fn be<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has the size of an entry")
}

impl Entry for OffsetEntry {
    const BYTES: usize = OFFSET_ENTRY_BYTES;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.last.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    fn get(bytes: &[u8]) -> Self {
        OffsetEntry { last: u32::from_be_bytes(be(bytes, 0)), position: u32::from_be_bytes(be(bytes, 4)) }
    }
}

impl Entry for TimeEntry {
    const BYTES: usize = TIME_ENTRY_BYTES;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.last.to_be_bytes());
    }

    fn get(bytes: &[u8]) -> Self {
        TimeEntry { timestamp: i64::from_be_bytes(be(bytes, 0)), last: u32::from_be_bytes(be(bytes, 8)) }
    }
}

/// How many entries the files hold, and their CRCs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IndexCounts {
    pub(crate) offsets: u32,
    pub(crate) offsets_crc: u32,
    pub(crate) times: u32,
    pub(crate) times_crc: u32,
}

/// Where the making of entries stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexMarks {
    /// Bytes since the last entry of the offset index.
    pub(crate) bytes_since_entry: u64,
    /// Largest timestamp so far, -1 for none.
    pub(crate) max_timestamp: TimestampMs,
    /// Last offset of the first batch with it; the base without one.
    pub(crate) max_timestamp_offset: Offset,
    /// Timestamp of the last time entry made, -1 for none.
    pub(crate) last_time: TimestampMs,
}

/// Decides which batches get entries. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexBuilder {
    base: Offset,
    interval_bytes: u64,
    marks: IndexMarks,
}

impl IndexBuilder {
    pub(crate) fn new(base: Offset, interval_bytes: u32) -> IndexBuilder {
        IndexBuilder {
            base,
            interval_bytes: u64::from(interval_bytes),
            marks: IndexMarks {
                bytes_since_entry: 0,
                max_timestamp: -1,
                max_timestamp_offset: base,
                last_time: -1,
            },
        }
    }

    /// Goes on where a checkpoint was taken.
    pub(crate) fn resume(base: Offset, interval_bytes: u32, marks: IndexMarks) -> IndexBuilder {
        IndexBuilder { marks, ..IndexBuilder::new(base, interval_bytes) }
    }

    /// What [`IndexBuilder::resume`] needs.
    pub(crate) fn marks(&self) -> IndexMarks {
        self.marks
    }

    fn relative(&self, offset: Offset) -> u32 {
        // Appends keep offsets within 31 bits of the base; a rebuild of a damaged file may not.
        u32::try_from(offset - self.base).unwrap_or(u32::MAX)
    }

    /// Accounts for the next batch, which begins at `position`.
    pub(crate) fn add(&mut self, header: &BatchHeader, position: u64, tail: &mut Tail) {
        // A batch emptied by compaction has no record with its timestamp.
        if header.record_count > 0 && header.max_timestamp > self.marks.max_timestamp {
            self.marks.max_timestamp = header.max_timestamp;
            self.marks.max_timestamp_offset = header.last_offset();
        }
        if self.marks.bytes_since_entry > self.interval_bytes {
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            tail.offsets.push(OffsetEntry { last: self.relative(header.last_offset()), position });
            self.add_time(tail);
            self.marks.bytes_since_entry = 0;
        }
        self.marks.bytes_since_entry += header.total_size() as u64;
    }

    /// Makes sure the time index ends with the largest timestamp, as Kafka's does in a finished segment.
    pub(crate) fn add_time(&mut self, tail: &mut Tail) {
        if self.marks.max_timestamp > self.marks.last_time {
            let last = self.relative(self.marks.max_timestamp_offset);
            tail.times.push(TimeEntry { timestamp: self.marks.max_timestamp, last });
            self.marks.last_time = self.marks.max_timestamp;
        }
    }
}

/// The index of a segment: how much of it is in the files, and the entries that are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) flushed: IndexCounts,
    pub(crate) offsets: Vec<OffsetEntry>,
    pub(crate) times: Vec<TimeEntry>,
}

/// Where a search for an offset or timestamp should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found<E> {
    /// This entry, the last one that fits.
    Entry(E),
    /// The last one that fits among the first so many of the file, if any.
    InFile(u32),
}

impl Tail {
    /// All entries, flushed or not.
    pub(crate) fn total_offsets(&self) -> u32 {
        self.flushed.offsets + self.offsets.len() as u32
    }

    /// All entries, flushed or not.
    pub(crate) fn total_times(&self) -> u32 {
        self.flushed.times + self.times.len() as u32
    }

    /// The last entry of the offset index that fits; those that do come before all others.
    pub(crate) fn find_offset(&self, fits: impl Fn(&OffsetEntry) -> bool) -> Found<OffsetEntry> {
        match self.offsets.partition_point(fits).checked_sub(1) {
            Some(at) => Found::Entry(self.offsets[at]),
            None => Found::InFile(self.flushed.offsets),
        }
    }

    /// The last entry with at most this timestamp.
    pub(crate) fn find_time(&self, timestamp: TimestampMs) -> Found<TimeEntry> {
        match self.times.partition_point(|entry| entry.timestamp <= timestamp).checked_sub(1) {
            Some(at) => Found::Entry(self.times[at]),
            None => Found::InFile(self.flushed.times),
        }
    }

    /// Entries up to the given totals, which are to be written behind the flushed ones.
    pub(crate) fn unflushed(&self, offsets: u32, times: u32) -> (Vec<OffsetEntry>, Vec<TimeEntry>) {
        let offsets = offsets.saturating_sub(self.flushed.offsets) as usize;
        let times = times.saturating_sub(self.flushed.times) as usize;
        let offsets = self.offsets[..offsets.min(self.offsets.len())].to_vec();
        (offsets, self.times[..times.min(self.times.len())].to_vec())
    }

    /// Notes that what [`Tail::unflushed`] gave lies in the files now.
    pub(crate) fn set_flushed(&mut self, counts: IndexCounts) {
        let offsets = (counts.offsets - self.flushed.offsets) as usize;
        let times = (counts.times - self.flushed.times) as usize;
        self.offsets.drain(..offsets);
        self.times.drain(..times);
        self.offsets.shrink_to(64);
        self.times.shrink_to(64);
        self.flushed = counts;
    }
}

/// Entries as bytes, and the CRC of the file with them at its end.
pub(crate) fn encode<E: Entry>(entries: &[E], crc: u32) -> (Vec<u8>, u32) {
    let mut out = Vec::with_capacity(entries.len() * E::BYTES);
    for entry in entries {
        entry.put(&mut out);
    }
    let crc = crc::extend(crc, &out);
    (out, crc)
}

/// The last of the first `count` entries of a file for which `fits` holds; it holds for a prefix.
pub(crate) fn search<E: Entry>(
    file: &dyn File,
    count: u32,
    fits: impl Fn(&E) -> bool,
) -> io::Result<Option<E>> {
    let block = SEARCH_BLOCK_BYTES / E::BYTES;
    // Of the entries below `low` all fit, from `high` on none does; `best` is the entry before `low`.
    let (mut low, mut high) = (0usize, count as usize);
    let mut best = None;
    let mut buffer = [0; SEARCH_BLOCK_BYTES];
    while high - low > block {
        let middle = low + (high - low) / 2;
        let bytes = &mut buffer[..E::BYTES];
        file.read_exact_at(bytes, (middle * E::BYTES) as u64)?;
        let entry = E::get(bytes);
        if fits(&entry) {
            best = Some(entry);
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let bytes = &mut buffer[..(high - low) * E::BYTES];
    file.read_exact_at(bytes, (low * E::BYTES) as u64)?;
    let rest = bytes.chunks_exact(E::BYTES).map(E::get).take_while(|entry| fits(entry)).last();
    Ok(rest.or(best))
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::path::Path;

    use base::env::sim::Sim;
    use base::env::{Disk, OpenMode};

    use super::*;

    fn batch(base_offset: Offset, records: i32, size: usize, max_timestamp: TimestampMs) -> BatchHeader {
        BatchHeader {
            base_offset,
            batch_length: size as i32 - 12,
            leader_epoch: 0,
            crc: 0,
            attributes: 0,
            last_offset_delta: records - 1,
            base_timestamp: max_timestamp,
            max_timestamp,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: records,
        }
    }

    #[test]
    fn entries_come_once_per_interval_and_times_only_grow() {
        let mut builder = IndexBuilder::new(100, 1_000);
        let mut tail = Tail::default();
        let mut position = 0;
        for (index, timestamp) in [50, 90, 70, 60, 80, 95, 20].into_iter().enumerate() {
            builder.add(&batch(100 + index as i64 * 10, 10, 600, timestamp), position, &mut tail);
            position += 600;
        }
        let offsets: Vec<_> = tail.offsets.iter().map(|entry| (entry.last, entry.position)).collect();
        assert_eq!(offsets, [(29, 1_200), (49, 2_400), (69, 3_600)]);
        let times: Vec<_> = tail.times.iter().map(|entry| (entry.timestamp, entry.last)).collect();
        assert_eq!(times, [(90, 19), (95, 59)]);
        builder.add(&batch(170, 10, 600, 99), position, &mut tail);
        builder.add_time(&mut tail);
        builder.add_time(&mut tail);
        assert_eq!(tail.times.last(), Some(&TimeEntry { timestamp: 99, last: 79 }));
        assert_eq!(tail.times.len(), 3);
    }

    #[test]
    fn emptied_batches_have_no_time() {
        let mut builder = IndexBuilder::new(0, 0);
        let empty = BatchHeader { record_count: 0, ..batch(0, 5, 61, 77) };
        builder.add(&empty, 0, &mut Tail::default());
        assert_eq!(builder.marks().max_timestamp, -1);
    }

    #[test]
    fn searches_find_the_last_entry_that_fits() {
        let sim = Sim::new(1);
        let file = sim.disk.open(Path::new("/index"), OpenMode::CreateNew).unwrap();
        for count in [0u32, 1, 2, 511, 512, 513, 1_025, 5_000] {
            let entries: Vec<OffsetEntry> =
                (0..count).map(|i| OffsetEntry { last: i * 10 + 9, position: i * 100 }).collect();
            let (bytes, crc) = encode(&entries, crc::EMPTY);
            assert_eq!(crc, crc::extend(crc::EMPTY, &bytes));
            file.write_all_at(&[IoSlice::new(&bytes)], 0).unwrap();
            for wanted in [0, 8, 9, 10, 19, 1_000, 5_119, 5_120, 10_249, 49_999, u32::MAX] {
                let expected = entries.iter().rfind(|entry| entry.last <= wanted).copied();
                let found = search(&*file, count, |e: &OffsetEntry| e.last <= wanted).unwrap();
                assert_eq!(found, expected, "{wanted} of {count}");
            }
        }
        assert!(search(&*file, 6_000, |_: &OffsetEntry| true).is_err(), "the file is shorter");
    }

    #[test]
    fn flushing_moves_entries_from_memory_to_the_file() {
        let mut tail = Tail::default();
        for i in 0..10 {
            tail.offsets.push(OffsetEntry { last: i * 10, position: i * 100 });
        }
        let (offsets, times) = tail.unflushed(4, 0);
        assert_eq!((offsets.len(), times.len()), (4, 0));
        let counts = IndexCounts { offsets: 4, ..IndexCounts::default() };
        tail.set_flushed(counts);
        assert_eq!((tail.total_offsets(), tail.offsets.len()), (10, 6));
        assert_eq!(
            tail.find_offset(|entry| entry.last <= 45),
            Found::Entry(OffsetEntry { last: 40, position: 400 })
        );
        assert_eq!(tail.find_offset(|entry| entry.last <= 39), Found::InFile(4));
        assert_eq!(tail.unflushed(3, 0).0, []);
    }
}
