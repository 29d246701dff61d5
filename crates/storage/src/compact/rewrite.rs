//! Building the new generation of a run: read, filter, write, make durable, put in place.
//!
//! What a crash leaves at each step is a directory under `building/`, which the next opening deletes, or
//! the finished segment in its place, which no chain lists yet. The rename is the only step that shows.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::batch::{BatchView, DecompressBuffer, HEADER_LEN};
use base::env::{File, OpenMode};

use super::filter::{Kept, TransactionView, filter_batch};
use super::{CompactionStats, RewriteRequest, Rewritten, STEP_BYTES};
use crate::checkpoint::Checkpoint;
use crate::crc;
use crate::error::StorageError;
use crate::index::{self, IndexBuilder, IndexCounts, Tail};
use crate::layout::{SegmentFile, file_name};
use crate::scan::Chunk;
use crate::segment::{SealedInfo, Segment, is_full};
use crate::storage::Storage;

/// Bytes read at once. Reads, writes and syncs are short, because most kernels let nobody else run on the processor
/// in the midst of one.
const READ_BYTES: usize = 32 << 10;
/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 32 << 10;
/// Bytes after which the new file is synced, so that no sync has much to do and the disk stays free for
/// those who wait for theirs.
const SYNC_BYTES: u64 = 1 << 20;

/// Batches of a sealed segment, one by one, their CRCs checked.
pub(super) struct BatchReader {
    segment: Arc<Segment>,
    log: Option<Arc<dyn File>>,
    chunk: Chunk,
    position: u64,
    crc: u32,
}

impl BatchReader {
    pub(super) fn new(segment: Arc<Segment>) -> BatchReader {
        BatchReader { segment, log: None, chunk: Chunk::new(READ_BYTES), position: 0, crc: crc::EMPTY }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn unfolded_bytes_max(&self) -> usize {
        self.segment.storage.options.decompressed_batch_bytes_max
    }

    /// Gives the next batch to `visit`; false when there is none.
    pub(super) fn next(
        &mut self,
        visit: impl FnOnce(&BatchView<'_>) -> Result<(), StorageError>,
    ) -> Result<bool, StorageError> {
        let (position, length) = (self.position, self.segment.bytes());
        if position >= length {
            return Ok(false);
        }
        let log = match &self.log {
            Some(log) => log.clone(),
            None => self.log.insert(self.segment.log()?).clone(),
        };
        let segment = &self.segment;
        let failed = |error| segment.io_error("read", SegmentFile::Log, error);
        let damaged = |reason: String| segment.corrupt(position, reason);
        let head = self.chunk.at(&*log, position, length, HEADER_LEN).map_err(failed)?;
        let size = match BatchView::parse(head) {
            Ok(batch) => batch.total_size(),
            Err(base::batch::BatchError::Truncated { needed, .. }) => needed,
            Err(error) => return Err(damaged(error.to_string())),
        };
        let bytes = self.chunk.at(&*log, position, length, size).map_err(failed)?;
        let batch = BatchView::parse(bytes).map_err(|error| damaged(error.to_string()))?;
        batch.verify_crc().map_err(|error| damaged(error.to_string()))?;
        self.crc = crc::extend(self.crc, batch.bytes());
        self.position += batch.total_size() as u64;
        visit(&batch)?;
        Ok(true)
    }

    /// An error unless everything that was read is what the segment was sealed with.
    pub(super) fn check_whole(&self) -> Result<(), StorageError> {
        let sealed = self.segment.seal()?;
        if self.crc == sealed.crc {
            return Ok(());
        }
        let reason = format!("the file has CRC {:#010x}, {:#010x} is due", self.crc, sealed.crc);
        Err(self.segment.corrupt(0, reason))
    }
}

/// What one step did.
pub(super) struct Step {
    /// Bytes read and written.
    pub(super) bytes: u64,
    pub(super) done: bool,
}

/// A rewrite under way.
pub(super) struct Rewrite {
    storage: Arc<Storage>,
    request: RewriteRequest,
    transactions: Box<dyn TransactionView>,
    /// Where it is built.
    dir: PathBuf,
    log: Arc<dyn File>,
    reader: BatchReader,
    source: usize,
    /// The last one with batches: its last batch stays.
    last_source: usize,
    buffer: DecompressBuffer,
    out: Vec<u8>,
    /// Length of the new file, with what is not written yet.
    length: u64,
    synced: u64,
    crc: u32,
    builder: IndexBuilder,
    tail: Tail,
    stats: CompactionStats,
    in_place: bool,
}

impl Drop for Rewrite {
    fn drop(&mut self) {
        if !self.in_place
            && let Err(error) = self.storage.discard(&self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot remove an unfinished rewrite");
        }
    }
}

fn check_run(request: &RewriteRequest) -> Result<(), StorageError> {
    let invalid = |reason: &str| Err(StorageError::InvalidRun { reason: reason.into() });
    let run = &request.run;
    if run.iter().any(|segment| !segment.is_sealed()) {
        return invalid("one is not sealed");
    }
    if run.windows(2).any(|pair| pair[0].end() != pair[1].base()) {
        return invalid("they do not touch");
    }
    if run.first().is_none_or(|first| first.base() != request.name.base) {
        return invalid("the new one begins elsewhere");
    }
    if run.iter().any(|segment| *segment.name() == request.name) {
        return invalid("the new one has the name of an old one");
    }
    Ok(())
}

impl Rewrite {
    pub(super) fn begin(
        request: RewriteRequest,
        transactions: Box<dyn TransactionView>,
    ) -> Result<Box<Rewrite>, StorageError> {
        check_run(&request)?;
        let first = request.run[0].clone();
        let storage = first.storage.clone();
        storage.check_writable()?;
        let dir = storage.layout.building_segment(&request.name);
        storage.discard(&dir)?;
        let disk = &storage.env.disk;
        disk.create_dir_all(&dir).map_err(|error| write_failed(&storage, &dir, &error))?;
        let path = dir.join(file_name(SegmentFile::Log, request.name.base));
        let log = disk.open(&path, OpenMode::CreateNew);
        let log = log.map_err(|error| write_failed(&storage, &path, &error))?;
        let last_source = request.run.iter().rposition(|segment| segment.bytes() > 0).unwrap_or(0);
        Ok(Box::new(Rewrite {
            transactions,
            dir,
            log,
            reader: BatchReader::new(first),
            source: 0,
            last_source,
            buffer: DecompressBuffer::new(storage.options.decompressed_batch_bytes_max),
            out: Vec::with_capacity(WRITE_BYTES),
            length: 0,
            synced: 0,
            crc: crc::EMPTY,
            builder: IndexBuilder::new(request.name.base, storage.options.index_interval_bytes),
            tail: Tail::default(),
            stats: CompactionStats::default(),
            in_place: false,
            storage,
            request,
        }))
    }

    /// Reads and filters about [`STEP_BYTES`].
    pub(super) fn step(&mut self) -> Result<Step, StorageError> {
        self.storage.check_writable()?;
        let (start, written) = (self.reader.position(), self.length);
        let mut done = false;
        while self.reader.position() - start < STEP_BYTES {
            if self.next_batch()? {
                continue;
            }
            self.reader.check_whole()?;
            self.source += 1;
            done = self.source == self.request.run.len();
            let read = self.reader.position() - start;
            self.stats.bytes_read += read;
            if !done {
                self.reader = BatchReader::new(self.request.run[self.source].clone());
            }
            return Ok(Step { bytes: read + self.length - written, done });
        }
        let read = self.reader.position() - start;
        self.stats.bytes_read += read;
        Ok(Step { bytes: read + self.length - written, done })
    }

    fn next_batch(&mut self) -> Result<bool, StorageError> {
        let source = &self.request.run[self.source];
        let (source_bytes, last_source) = (source.bytes(), self.source == self.last_source);
        let Rewrite { request, transactions, buffer, out, length, crc, builder, tail, stats, .. } = self;
        let position = self.reader.position();
        let more = self.reader.next(|batch| {
            let is_last = last_source && position + batch.total_size() as u64 == source_bytes;
            let fate = transactions.fate(batch);
            let filtered = filter_batch(batch, fate, is_last, &request.map, &request.rules, buffer);
            stats.records_read += batch.record_count.max(0) as u64;
            stats.records_kept += filtered.records_kept;
            stats.batches_unreadable += u64::from(filtered.unreadable);
            stats.next_horizon_ms = match (stats.next_horizon_ms, filtered.horizon_ms) {
                (Some(known), Some(new)) => Some(known.min(new)),
                (known, new) => known.or(new),
            };
            let bytes: &[u8] = match &filtered.kept {
                Kept::Nothing => return Ok(()),
                Kept::Same => batch.bytes(),
                Kept::Rewritten(bytes) => bytes,
            };
            let invalid =
                |error: base::batch::BatchError| StorageError::InvalidBatch { reason: error.to_string() };
            let new = BatchView::parse(bytes).map_err(invalid)?;
            builder.add(new.header(), *length, tail);
            *crc = crc::extend(*crc, bytes);
            *length += bytes.len() as u64;
            out.extend_from_slice(bytes);
            Ok(())
        })?;
        if self.out.len() >= WRITE_BYTES || !more {
            self.flush()?;
        }
        Ok(more)
    }

    /// Writes what was gathered, and syncs once that is much.
    fn flush(&mut self) -> Result<(), StorageError> {
        let position = self.length - self.out.len() as u64;
        let path = self.dir.join(file_name(SegmentFile::Log, self.request.name.base));
        let written = self.log.write_all_at(&[IoSlice::new(&self.out)], position);
        written.map_err(|error| write_failed(&self.storage, &path, &error))?;
        self.out.clear();
        if self.length - self.synced >= SYNC_BYTES {
            self.log.sync_data().map_err(|error| self.storage.fail("sync", &path, &error))?;
            self.synced = self.length;
        }
        Ok(())
    }

    /// Completes the files and puts the segment in its place, durably.
    pub(super) fn finish(mut self: Box<Self>) -> Result<Rewritten, StorageError> {
        self.storage.check_writable()?;
        self.flush()?;
        self.builder.add_time(&mut self.tail);
        let end = self.request.run.last().map_or(self.request.name.base, |segment| segment.end());
        let info = SealedInfo { end, bytes: self.length, crc: self.crc };
        self.write_beside(info)?;
        let path = self.dir.join(file_name(SegmentFile::Log, self.request.name.base));
        let (storage, disk) = (&self.storage, &self.storage.env.disk);
        let sync_failed = |path: &Path, error: io::Error| storage.fail("sync", path, &error);
        self.log.sync_data().map_err(|error| sync_failed(&path, error))?;
        disk.sync_dir(&self.dir).map_err(|error| sync_failed(&self.dir, error))?;
        let name = &self.request.name;
        // An earlier rewrite of this name that nobody listed.
        storage.remove(name)?;
        let place = storage.layout.segment(name);
        let parent = storage.layout.partition(&name.topic, name.partition);
        if !disk.exists(&parent) {
            return Err(StorageError::NotHere { path: parent.as_path().into() });
        }
        disk.rename(&self.dir, &place).map_err(|error| StorageError::io("rename", &self.dir, error))?;
        self.in_place = true;
        disk.sync_dir(&parent).map_err(|error| sync_failed(&parent, error))?;
        self.stats.bytes_written = self.length;
        Ok(Rewritten { info, stats: self.stats })
    }

    /// Writes the index files and checkpoints.
    fn write_beside(&mut self, info: SealedInfo) -> Result<(), StorageError> {
        let (offset_bytes, offsets_crc) = index::encode(&self.tail.offsets, crc::EMPTY);
        let (time_bytes, times_crc) = index::encode(&self.tail.times, crc::EMPTY);
        let counts = IndexCounts {
            offsets: self.tail.offsets.len() as u32,
            offsets_crc,
            times: self.tail.times.len() as u32,
            times_crc,
        };
        let name = &self.request.name;
        let ending = Checkpoint {
            id: name.id,
            generation: name.generation,
            offset: info.end,
            position: info.bytes,
            crc: info.crc,
            durable: true,
            boot: self.storage.boot.clone(),
            counts,
            marks: self.builder.marks(),
            snapshot: None,
        };
        // The state below the run is the state below its first segment.
        let first = self.request.run[0].name();
        let beginning = self.storage.read_checkpoint(first, SegmentFile::BaseCheckpoint);
        let beginning =
            beginning.map(|point| Checkpoint { id: name.id, generation: name.generation, ..point }.encode());
        self.write_file(SegmentFile::Index, &offset_bytes)?;
        self.write_file(SegmentFile::TimeIndex, &time_bytes)?;
        self.write_file(SegmentFile::EndCheckpoint, &ending.encode())?;
        if let Some(beginning) = beginning {
            self.write_file(SegmentFile::BaseCheckpoint, &beginning)?;
        }
        Ok(())
    }

    fn write_file(&self, file: SegmentFile, bytes: &[u8]) -> Result<(), StorageError> {
        let path = self.dir.join(file_name(file, self.request.name.base));
        let handle = self.storage.env.disk.open(&path, OpenMode::CreateNew);
        let handle = handle.and_then(|handle| {
            handle.write_all_at(&[IoSlice::new(bytes)], 0)?;
            Ok(handle)
        });
        let handle = handle.map_err(|error| write_failed(&self.storage, &path, &error))?;
        handle.sync_data().map_err(|error| self.storage.fail("sync", &path, &error))
    }
}

fn write_failed(storage: &Storage, path: &Path, error: &io::Error) -> StorageError {
    if is_full(error) { storage.out_of_space() } else { storage.fail("write", path, error) }
}
