//! Walking a log file batch by batch, headers only.
//!
//! Small batches come many to a read; of large ones only the header is read. No CRC is checked: what a
//! header cannot be (offsets that go back, a length beyond the end) ends the walk with where it was.

use std::io::{self, IoSlice};
use std::ops::Range;

use base::batch::{BatchHeader, HEADER_LEN};
use base::env::File;
use base::ids::Offset;

/// Bytes per read.
const CHUNK_BYTES: usize = 64 * 1024;

/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;

/// Why a walk ended early.
#[derive(Debug)]
pub(crate) enum ScanError {
    Io(io::Error),
    /// What lies at this position is no batch that could follow.
    Damage {
        position: u64,
        reason: String,
    },
}

/// Whether a reader waits for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It does.
    Wait,
    /// It takes what is in memory, or is told [`StorageError::NotCached`](crate::StorageError::NotCached).
    Cached,
}

/// Reads until the buffer is full or the file ends; returns the bytes read.
pub(crate) fn read_up_to(file: &dyn File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    read_patiently(file, buffer, position, Patience::Wait)
}

/// As [`read_up_to`]; fails with `WouldBlock` where that takes more patience.
pub(crate) fn read_patiently(
    file: &dyn File,
    buffer: &mut [u8],
    position: u64,
    patience: Patience,
) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        let (rest, position) = (&mut buffer[done..], position + done as u64);
        let read = match patience {
            Patience::Wait => file.read_at(rest, position),
            Patience::Cached => file.read_cached_at(rest, position),
        };
        match read {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// A moving window of a file.
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    position: u64,
    size: usize,
}

impl Chunk {
    /// A window that reads `size` bytes at once, more only for what needs more.
    pub(crate) fn new(size: usize) -> Chunk {
        Chunk { bytes: Vec::new(), position: 0, size }
    }

    /// The bytes from `position` on, at least `need` of them unless the file ends at `length`.
    pub(crate) fn at(
        &mut self,
        file: &dyn File,
        position: u64,
        length: u64,
        need: usize,
    ) -> io::Result<&[u8]> {
        let need = (need as u64).min(length - position) as usize;
        let held = position.checked_sub(self.position).and_then(|at| usize::try_from(at).ok());
        let held = held.filter(|at| self.bytes.len().saturating_sub(*at) >= need);
        let at = match held {
            Some(at) => at,
            None => {
                let want = (need.max(self.size) as u64).min(length - position) as usize;
                self.bytes.resize(want, 0);
                self.position = position;
                let count = read_up_to(file, &mut self.bytes, position)?;
                self.bytes.truncate(count);
                0
            }
        };
        Ok(self.bytes.get(at..).unwrap_or_default())
    }
}

/// Reads a range of a file and writes the same bytes there.
pub(crate) fn write_anew(file: &dyn File, range: Range<u64>) -> io::Result<()> {
    let mut chunk = Chunk::new(COPY_BYTES);
    let mut position = range.start;
    while position < range.end {
        let bytes = chunk.at(file, position, range.end, 1)?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_all_at(&[IoSlice::new(bytes)], position)?;
        position += bytes.len() as u64;
    }
    Ok(())
}

/// The walk.
pub(crate) struct HeaderScan<'a> {
    file: &'a dyn File,
    /// Where the next batch begins.
    position: u64,
    /// Where the file ends as far as this walk goes.
    end: u64,
    /// The next batch begins at this offset or later.
    expected: Offset,
    chunk: Vec<u8>,
    chunk_at: u64,
}

impl<'a> HeaderScan<'a> {
    /// Walks from `position`, where a batch begins whose base offset is `expected` or more, to `end`.
    pub(crate) fn new(file: &'a dyn File, position: u64, end: u64, expected: Offset) -> HeaderScan<'a> {
        HeaderScan { file, position, end, expected, chunk: Vec::new(), chunk_at: position }
    }

    fn header_bytes(&mut self) -> Result<&[u8; HEADER_LEN], ScanError> {
        let within = |chunk_at: u64, chunk: &[u8], position: u64| {
            let at = usize::try_from(position.checked_sub(chunk_at)?).ok()?;
            (chunk.len().checked_sub(at)? >= HEADER_LEN).then_some(at)
        };
        if within(self.chunk_at, &self.chunk, self.position).is_none() {
            let want = (self.end - self.position).min(CHUNK_BYTES as u64) as usize;
            self.chunk.resize(want, 0);
            let count = read_up_to(self.file, &mut self.chunk, self.position).map_err(ScanError::Io)?;
            self.chunk.truncate(count);
            self.chunk_at = self.position;
        }
        let position = self.position;
        let at = within(self.chunk_at, &self.chunk, position);
        at.and_then(|at| self.chunk[at..].first_chunk())
            .ok_or_else(|| ScanError::Damage { position, reason: "the file ends within a header".into() })
    }

    /// The next batch's position and header; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, BatchHeader)>, ScanError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let damage = |reason: String| ScanError::Damage { position, reason };
        let header = BatchHeader::parse(self.header_bytes()?).map_err(|error| damage(error.to_string()))?;
        if header.base_offset < self.expected {
            let expected = self.expected;
            return Err(damage(format!(
                "base offset {} where at least {expected} is due",
                header.base_offset
            )));
        }
        let next = position + header.total_size() as u64;
        if next > self.end {
            return Err(damage(format!("a batch of {} bytes ends beyond the file", header.total_size())));
        }
        self.position = next;
        self.expected = header.next_offset();
        Ok(Some((position, header)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::path::Path;

    use base::batch::BatchBuilder;
    use base::env::sim::Sim;
    use base::env::{Disk, OpenMode};

    use super::*;

    fn log() -> Vec<u8> {
        let mut log = Vec::new();
        for (base, size) in [(0, 10), (1, 200_000), (2, 50), (9, 70_000), (10, 1)] {
            let mut batch = BatchBuilder::new().base_offset(base);
            batch.append(0, None, Some(&vec![2; size]));
            batch.finish_into(&mut log).unwrap();
        }
        log
    }

    #[test]
    fn it_walks_small_and_large_batches() {
        let sim = Sim::new(1);
        let file = sim.disk.open(Path::new("/log"), OpenMode::CreateNew).unwrap();
        let log = log();
        file.write_all_at(&[IoSlice::new(&log)], 0).unwrap();
        let mut scan = HeaderScan::new(&*file, 0, log.len() as u64, 0);
        let mut found = Vec::new();
        let mut next = 0;
        while let Some((position, header)) = scan.next().unwrap() {
            assert_eq!(position, next);
            next += header.total_size() as u64;
            found.push(header.base_offset);
        }
        assert_eq!(found, [0, 1, 2, 9, 10]);
        let mut short = HeaderScan::new(&*file, 0, 80, 0);
        assert!(short.next().is_ok());
        assert!(matches!(short.next(), Err(ScanError::Damage { .. })));
        let mut back = HeaderScan::new(&*file, 0, log.len() as u64, 1);
        assert!(matches!(back.next(), Err(ScanError::Damage { position: 0, .. })));
        sim.disk.fail_read_after(0);
        assert!(matches!(HeaderScan::new(&*file, 0, 1_000, 0).next(), Err(ScanError::Io(_))));
    }
}
