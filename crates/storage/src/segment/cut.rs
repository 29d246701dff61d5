//! Ending a segment before its own end, where the chain says that it was sealed.
//!
//! What a copy holds beyond the end of its segment was never committed (replication.md 2.7). After a power cut the sync
//! journal may bring the bytes back behind the end; nobody looks there, because a sealed segment is read as far as the
//! chain says.

use std::io;
use std::sync::atomic::Ordering;

use base::env::OpenMode;
use base::ids::Offset;
use bytes::Bytes;

use super::{HINTS, Index, Pending, Prefix, SealedInfo, Segment};
use crate::error::StorageError;
use crate::index::{IndexBuilder, Tail};
use crate::layout::SegmentFile;
use crate::scan::HeaderScan;

/// The part of a segment that stays.
struct Kept {
    bytes: u64,
    crc: u32,
    builder: IndexBuilder,
    tail: Tail,
}

impl Segment {
    /// Ends the segment at `end`, which lies at its own end or at that of an earlier batch: what lies behind is cut off, for
    /// good. The segment was sealed there in the chain, so nobody reads behind it any more. Reads the whole log where
    /// there is something to cut. Blocks.
    ///
    /// # Errors
    /// [`StorageError::OffsetGap`] where the segment ends before, [`StorageError::InvalidBatch`] where no batch ends
    /// there, [`StorageError::Sealed`] when it was sealed at another end; nothing was changed then.
    /// [`StorageError::Io`], [`StorageError::Corrupt`], [`StorageError::Failed`].
    pub fn seal_at(&self, end: Offset) -> Result<SealedInfo, StorageError> {
        let files = self.files.lock();
        let mut appender = self.appender.lock();
        let own = self.end();
        if end == own {
            drop(appender);
            drop(files);
            return self.seal();
        }
        if self.is_sealed() {
            return Err(StorageError::Sealed);
        }
        if end > own || end < self.name.base {
            return Err(StorageError::OffsetGap { expected: own, found: end });
        }
        self.storage.check_open()?;
        let mut kept = self.kept(end)?;
        self.sealed.store(true, Ordering::Release);
        self.end.store(end, Ordering::Release);
        self.bytes.store(kept.bytes, Ordering::Release);
        self.durable_end.fetch_min(end, Ordering::AcqRel);
        self.covered_bytes.fetch_min(kept.bytes, Ordering::AcqRel);
        kept.builder.add_time(&mut kept.tail);
        (appender.crc, appender.builder) = (kept.crc, kept.builder);
        *self.index.lock() = Index {
            tail: kept.tail,
            prefix: Prefix::Good,
            hints: [(self.name.base, 0); HINTS],
            next_hint: 0,
        };
        *self.pending.lock() = Pending::default();
        let mark = self.mark(&appender, Bytes::new());
        let made = appender.made;
        drop(appender);
        if made {
            self.cut_file(kept.bytes)?;
            self.durable_end.fetch_max(end, Ordering::AcqRel);
            self.write_end(mark);
        }
        drop(files);
        self.storage.check_open()?;
        Ok(SealedInfo { end, bytes: kept.bytes, crc: kept.crc })
    }

    /// What the batches below `end` come to.
    fn kept(&self, end: Offset) -> Result<Kept, StorageError> {
        let mut builder = IndexBuilder::new(self.name.base, self.storage.options.index_interval_bytes);
        let mut tail = Tail::default();
        let (mut bytes, mut next_offset) = (0, self.name.base);
        if end > self.name.base {
            let log = self.log()?;
            let mut scan = HeaderScan::new(&*log, 0, self.bytes(), self.name.base);
            while let Some((position, header)) = scan.next().map_err(|error| self.scan_error(error))? {
                if header.next_offset() > end {
                    break;
                }
                builder.add(&header, position, &mut tail);
                bytes = position + header.total_size() as u64;
                next_offset = header.next_offset();
            }
        }
        if next_offset != end {
            let reason = format!("no batch ends at offset {end}, one does at {next_offset}");
            return Err(StorageError::InvalidBatch { reason });
        }
        Ok(Kept { bytes, crc: self.crc_below(bytes)?, builder, tail })
    }

    /// Cuts off what the file of a sealed segment has behind its end, durably: records that the copy had from a leader who
    /// ended before he knew that anybody had them. Blocks.
    ///
    /// # Errors
    /// [`StorageError::Io`], [`StorageError::Failed`].
    pub fn cut_rest(&self) -> Result<(), StorageError> {
        let path = self.path(SegmentFile::Log);
        let length = self.storage.env.disk.open(&path, OpenMode::Existing).and_then(|log| log.len());
        match length {
            Ok(length) if length > self.bytes() => self.cut_file(self.bytes()),
            Ok(_) => Ok(()),
            // An empty one may have no file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StorageError::io("measure", &path, error)),
        }
    }

    /// Cuts the log file, durably. Checkpoints go first: one that knew of more would make the file look damaged.
    fn cut_file(&self, length: u64) -> Result<(), StorageError> {
        let disk = &self.storage.env.disk;
        for file in [SegmentFile::EvenCheckpoint, SegmentFile::OddCheckpoint] {
            let path = self.path(file);
            match disk.remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.storage.fail("remove", &path, &error));
                }
                _ => {}
            }
        }
        let dir = self.storage.layout.segment(&self.name);
        disk.sync_dir(&dir).map_err(|error| self.storage.fail("sync", &dir, &error))?;
        let path = self.path(SegmentFile::Log);
        let log = disk.open(&path, OpenMode::Existing);
        let cut = log.and_then(|log| log.set_len(length).and_then(|()| log.sync_data()));
        cut.map_err(|error| self.storage.fail("cut", &path, &error))
    }
}
