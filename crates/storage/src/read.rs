//! Reading a segment: whole batches by offset, records by time.
//!
//! Bytes come from the page cache with one read in the common case: a reader that goes on where it
//! stopped needs neither index nor search. The start of a chunk is trimmed to the batch wanted and its
//! end to the last batch that fits. CRCs are not checked on the way: clients do, and damage that breaks
//! the chain of headers is reported here.

use std::io;

use base::batch::{BatchError, BatchHeader, BatchView, DecompressBuffer, HEADER_LEN};
use base::env::{File, FileRange};
use base::ids::{Offset, TimestampMs};
use bytes::Bytes;

use crate::error::StorageError;
use crate::layout::SegmentFile;
use crate::scan::{HeaderScan, Patience, read_patiently};
use crate::segment::Segment;

/// No read gives more than this, bytes, except for a first batch that is larger.
const READ_BYTES_MAX: usize = 16 << 20;

/// What is sent from the file is at least as long, bytes: below that copying costs less.
const RANGE_BYTES_MIN: u64 = 64 << 10;
/// A walk over more batches costs more than copying them.
const WALK_MAX: usize = 64;
/// How far apart samples of a part of a file are, bytes.
const SAMPLE_BYTES: usize = 128 << 10;

/// What a read gives back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadSlice {
    /// Whole batches, one after the other.
    pub bytes: Bytes,
    /// Where the next read should begin: after the last batch given; `from` when none is given.
    pub next_offset: Offset,
    /// True when the segment has no batch at or after `next_offset` that lies wholly below `upper`.
    pub exhausted: bool,
}

/// A piece of the file in memory.
struct Window {
    position: u64,
    bytes: Vec<u8>,
}

/// How much one read gives.
#[derive(Clone, Copy)]
struct Size {
    max_bytes: usize,
    at_least_one: bool,
}

/// Where the batch was found that a read begins with.
struct First {
    window: Window,
    at: usize,
    header: BatchHeader,
}

impl Segment {
    /// Whole batches from the one that holds `from` on (or the first after it, where compaction left a
    /// gap), only such as lie wholly below `upper`, at most `max_bytes`; with `at_least_one` the first
    /// one whatever its size.
    ///
    /// # Errors
    /// [`StorageError::Io`], [`StorageError::Corrupt`], [`StorageError::NotHere`].
    pub fn read(
        &self,
        from: Offset,
        upper: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<ReadSlice, StorageError> {
        self.read_with(Patience::Wait, (from, upper), max_bytes, at_least_one)
    }

    /// As [`Segment::read`], from one offset up to another.
    ///
    /// # Errors
    /// As [`Segment::read`], and without patience [`StorageError::NotCached`].
    pub fn read_with(
        &self,
        patience: Patience,
        (from, upper): (Offset, Offset),
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<ReadSlice, StorageError> {
        // The end is loaded before the length that covers it.
        let upper = upper.min(self.end());
        let from = from.max(self.base());
        if from >= upper {
            return Ok(ReadSlice { bytes: Bytes::new(), next_offset: from, exhausted: true });
        }
        if patience == Patience::Cached && !self.index_is_ready() {
            return Err(StorageError::NotCached);
        }
        let (position, exact) = self.locate(from)?;
        let size = Size { max_bytes, at_least_one };
        match self.read_at(position, exact, (from, upper), size, patience) {
            // An index that leads astray looks like a damaged log; only the log itself decides.
            Err(StorageError::Corrupt(corruption)) if position > 0 => {
                if !self.rebuild_index()? {
                    return Err(StorageError::Corrupt(corruption));
                }
                let (position, exact) = self.locate(from)?;
                self.read_at(position, exact, (from, upper), size, patience)
            }
            result => result,
        }
    }

    /// Where in the file whole batches lie from the one that holds `from` on, at most `max_bytes` of those that lie wholly
    /// below `upper`. `None` where little is to be read, and where that would have to wait for the disk: then
    /// [`Segment::read_with`] tells what there is.
    ///
    /// The bytes in the middle are not looked at. Where they are not batches, their reader finds out.
    ///
    /// # Errors
    /// As [`Segment::read`].
    pub fn range(
        &self,
        from: Offset,
        upper: Offset,
        max_bytes: usize,
    ) -> Result<Option<FileRange>, StorageError> {
        let is_short = |bytes: u64| bytes < RANGE_BYTES_MIN;
        if is_short(self.bytes().min(max_bytes as u64)) || from < self.base() || !self.index_is_ready() {
            return Ok(None);
        }
        let found = self.locate(from)?.0;
        let (length, log) = (self.bytes(), self.log()?);
        let log_file = &*log;
        let walk = |from, goes_on: &dyn Fn(&BatchHeader, u64) -> bool| {
            self.walk_cached(log_file, from, length, goes_on)
        };
        let Some((position, _)) = walk(found, &|batch, _| batch.next_offset() <= from)? else {
            return Ok(None);
        };
        let limit = position + max_bytes.min(READ_BYTES_MAX) as u64;
        let Some(last) = self.last_entry_until(limit, upper)? else { return Ok(None) };
        let fits = |batch: &BatchHeader, after| after <= limit && batch.next_offset() <= upper;
        let Some((stop, next_offset)) = walk(last.max(position), &fits)? else { return Ok(None) };
        if is_short(stop - position) || !self.is_cached(log_file, position, stop)? {
            return Ok(None);
        }
        self.remember(next_offset, stop);
        Ok(Some(FileRange { file: log, position, length: (stop - position) as usize }))
    }

    /// Goes over the batches from a position on to the first for which `goes_on`, which hears where it ends, is false, or
    /// to the end. Gives where that one begins and the offset behind those before it. `None` where there are many of them
    /// and where that would have to wait for the disk.
    fn walk_cached(
        &self,
        log: &dyn File,
        mut position: u64,
        length: u64,
        goes_on: &dyn Fn(&BatchHeader, u64) -> bool,
    ) -> Result<Option<(u64, Offset)>, StorageError> {
        let mut next_offset = None;
        for _ in 0..WALK_MAX {
            if position >= length {
                return Ok(next_offset.map(|next_offset| (position, next_offset)));
            }
            let Some(batch) = self.header_if_cached(log, position, length)? else { return Ok(None) };
            let after = position + batch.total_size() as u64;
            if !goes_on(&batch, after) {
                return Ok(Some((position, next_offset.unwrap_or(batch.base_offset))));
            }
            (position, next_offset) = (after, Some(batch.next_offset()));
        }
        Ok(None)
    }

    /// The header there, if that needs no waiting for the disk.
    fn header_if_cached(
        &self,
        log: &dyn File,
        position: u64,
        length: u64,
    ) -> Result<Option<BatchHeader>, StorageError> {
        match self.window(log, position, HEADER_LEN, Patience::Cached) {
            Ok(window) => {
                let header = window.bytes.first_chunk().expect("a window has the length asked for");
                self.parse(header, position, length).map(Some)
            }
            Err(StorageError::NotCached) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a part of the file is in memory, as far as samples tell: the system brings it there in larger pieces.
    fn is_cached(&self, log: &dyn File, position: u64, stop: u64) -> Result<bool, StorageError> {
        for position in (position..stop).step_by(SAMPLE_BYTES) {
            match read_patiently(log, &mut [0], position, Patience::Cached) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(self.io_error("read", SegmentFile::Log, error)),
            }
        }
        Ok(true)
    }

    /// The largest timestamp in the first batch, as Kafka takes it for the segment's age; `None` for an empty
    /// segment or records without timestamps.
    ///
    /// # Errors
    /// [`StorageError::Io`], [`StorageError::Corrupt`], [`StorageError::NotHere`].
    pub fn first_timestamp(&self) -> Result<Option<TimestampMs>, StorageError> {
        let length = self.bytes();
        if length == 0 {
            return Ok(None);
        }
        let window = self.window(&*self.log()?, 0, HEADER_LEN, Patience::Wait)?;
        let header = window.bytes.first_chunk().expect("a window has the length asked for");
        let timestamp = self.parse(header, 0, length)?.max_timestamp;
        Ok((timestamp >= 0).then_some(timestamp))
    }

    fn window(
        &self,
        log: &dyn File,
        position: u64,
        length: usize,
        patience: Patience,
    ) -> Result<Window, StorageError> {
        let mut bytes = vec![0; length];
        let count =
            read_patiently(log, &mut bytes, position, patience).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => StorageError::NotCached,
                _ => self.io_error("read", SegmentFile::Log, error),
            })?;
        if count < length {
            return Err(self.corrupt(position + count as u64, "the file ends early"));
        }
        Ok(Window { position, bytes })
    }

    fn parse(
        &self,
        bytes: &[u8; HEADER_LEN],
        position: u64,
        length: u64,
    ) -> Result<BatchHeader, StorageError> {
        let header = BatchHeader::parse(bytes).map_err(|error| self.corrupt(position, error.to_string()))?;
        let in_range = header.base_offset >= self.base() && header.next_offset() <= self.end();
        if !in_range || header.total_size() as u64 > length - position {
            return Err(self.corrupt(position, "the batch there reaches beyond the segment"));
        }
        Ok(header)
    }

    /// Goes forward from `position` to the batch that holds `from`; `None` when all end before.
    fn find_first(
        &self,
        log: &dyn File,
        mut position: u64,
        length: u64,
        from: Offset,
        want: usize,
        patience: Patience,
    ) -> Result<Option<First>, StorageError> {
        let mut window = Window { position, bytes: Vec::new() };
        while position < length {
            let at = usize::try_from(position - window.position).unwrap_or(usize::MAX);
            let header = window.bytes.get(at..).and_then(|rest| rest.first_chunk::<HEADER_LEN>());
            let Some(header) = header else {
                let left = length - position;
                if left < HEADER_LEN as u64 {
                    return Err(self.corrupt(position, "the file ends within a header"));
                }
                window =
                    self.window(log, position, left.min(want.max(HEADER_LEN) as u64) as usize, patience)?;
                continue;
            };
            let header = self.parse(header, position, length)?;
            if header.next_offset() > from {
                return Ok(Some(First { window, at, header }));
            }
            position += header.total_size() as u64;
        }
        Ok(None)
    }

    fn read_at(
        &self,
        position: u64,
        exact: bool,
        (from, upper): (Offset, Offset),
        Size { max_bytes, at_least_one }: Size,
        patience: Patience,
    ) -> Result<ReadSlice, StorageError> {
        let length = self.bytes();
        let log = self.log()?;
        let limit = max_bytes.min(READ_BYTES_MAX);
        // An entry of the index lies at most an interval and a batch before what it stands for.
        let slack = if exact { 0 } else { 2 * self.storage.options.index_interval_bytes as usize };
        let nothing = |exhausted| ReadSlice { bytes: Bytes::new(), next_offset: from, exhausted };
        let want = limit.saturating_add(slack);
        let Some(first) = self.find_first(&*log, position, length, from, want, patience)? else {
            return Ok(nothing(true));
        };
        let First { mut window, mut at, header } = first;
        let size = header.total_size();
        if header.next_offset() > upper {
            return Ok(nothing(true));
        }
        if size > max_bytes && !at_least_one {
            return Ok(nothing(false));
        }
        if window.bytes.len() - at < size {
            let position = window.position + at as u64;
            let want = (size.max(limit) as u64).min(length - position);
            window = self.window(&*log, position, want as usize, patience)?;
            at = 0;
        }
        let mut stop = at + size;
        let mut next_offset = header.next_offset();
        let mut exhausted = false;
        while let Some(bytes) = window.bytes[stop..].first_chunk::<HEADER_LEN>() {
            // Damage here is told to whoever begins to read here.
            let Ok(header) = self.parse(bytes, window.position + stop as u64, length) else { break };
            if header.next_offset() > upper {
                exhausted = true;
                break;
            }
            let after = stop + header.total_size();
            if after - at > limit || after > window.bytes.len() || header.base_offset < next_offset {
                break;
            }
            (stop, next_offset) = (after, header.next_offset());
        }
        let stop_position = window.position + stop as u64;
        exhausted |= next_offset >= upper || stop_position >= length;
        self.remember(next_offset, stop_position);
        Ok(ReadSlice { bytes: trim(window.bytes, at, stop), next_offset, exhausted })
    }

    /// The first record at or after `from` and below `upper` whose timestamp is at least `timestamp`, as
    /// its offset and timestamp. A batch that cannot be unfolded counts as a whole.
    ///
    /// # Errors
    /// As [`Segment::read`].
    pub fn find_timestamp(
        &self,
        timestamp: TimestampMs,
        from: Offset,
        upper: Offset,
    ) -> Result<Option<(Offset, TimestampMs)>, StorageError> {
        let upper = upper.min(self.end());
        let from = from.max(self.base());
        if from >= upper || self.max_timestamp()?.is_none_or(|max| max < timestamp) {
            return Ok(None);
        }
        let length = self.bytes();
        let log = self.log()?;
        let (position, _) = self.locate(self.locate_time(timestamp)?.max(from))?;
        let mut scan = HeaderScan::new(&*log, position, length, self.base());
        let mut buffer = DecompressBuffer::new(self.storage.options.decompressed_batch_bytes_max);
        while let Some((position, header)) = scan.next().map_err(|error| self.scan_error(error))? {
            if header.base_offset >= upper {
                break;
            }
            let may_have = header.record_count > 0 && header.max_timestamp >= timestamp;
            if header.next_offset() <= from || !may_have {
                continue;
            }
            let batch = self.window(&*log, position, header.total_size(), Patience::Wait)?;
            let batch =
                BatchView::parse(&batch.bytes).map_err(|error| self.corrupt(position, error.to_string()))?;
            match first_record(&batch, timestamp, from, &mut buffer) {
                Ok(Some(found)) if found.0 < upper => return Ok(Some(found)),
                Ok(Some(_)) => break,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, offset = header.base_offset, "a batch cannot be searched by time");
                    return Ok(Some((header.base_offset.max(from), header.max_timestamp)));
                }
            }
        }
        Ok(None)
    }
}

/// The first record of a batch at or after `from` with at least this timestamp.
fn first_record(
    batch: &BatchView<'_>,
    timestamp: TimestampMs,
    from: Offset,
    buffer: &mut DecompressBuffer,
) -> Result<Option<(Offset, TimestampMs)>, BatchError> {
    for record in batch.records(buffer)? {
        let record = record?;
        if record.offset >= from && record.timestamp >= timestamp {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}

/// A part of a buffer, without keeping a much larger buffer alive for it.
fn trim(bytes: Vec<u8>, start: usize, end: usize) -> Bytes {
    if end - start < bytes.len() / 2 {
        Bytes::copy_from_slice(&bytes[start..end])
    } else {
        Bytes::from(bytes).slice(start..end)
    }
}
