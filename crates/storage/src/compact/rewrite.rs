//! Building the new generation of a run: read, filter, write, put in place. No chain lists it yet then.

use std::sync::Arc;

use base::batch::{BatchView, DecompressBuffer, HEADER_LEN};
use base::env::File;

use super::filter::{Filtered, Kept, TransactionView, filter_batch};
use super::{CompactionStats, Keep, RewriteRequest, Rewritten, STEP_BYTES};
use crate::building::Building;
use crate::crc;
use crate::error::StorageError;
use crate::layout::SegmentFile;
use crate::scan::Chunk;
use crate::segment::Segment;

/// Bytes read at once. Reads, writes and syncs are short, because most kernels let nobody else run on the processor
/// in the midst of one.
const READ_BYTES: usize = 32 << 10;
/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 32 << 10;
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
    building: Building,
    request: RewriteRequest,
    transactions: Box<dyn TransactionView>,
    reader: BatchReader,
    source: usize,
    /// The last one with batches: its last batch stays.
    last_source: usize,
    buffer: DecompressBuffer,
    out: Vec<u8>,
    /// Length of the new file, with what is not written yet.
    length: u64,
    stats: CompactionStats,
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
        let building = Building::begin(&storage, request.name.clone())?;
        let last_source = request.run.iter().rposition(|segment| segment.bytes() > 0).unwrap_or(0);
        Ok(Box::new(Rewrite {
            building,
            transactions,
            reader: BatchReader::new(first),
            source: 0,
            last_source,
            buffer: DecompressBuffer::new(storage.options.decompressed_batch_bytes_max),
            out: Vec::with_capacity(WRITE_BYTES),
            length: 0,
            stats: CompactionStats::default(),
            request,
        }))
    }

    /// Reads and filters about [`STEP_BYTES`].
    pub(super) fn step(&mut self) -> Result<Step, StorageError> {
        self.building.storage().check_writable()?;
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
        let Rewrite { building, request, transactions, buffer, out, length, stats, .. } = self;
        let position = self.reader.position();
        let more = self.reader.next(|batch| {
            let is_last = last_source && position + batch.total_size() as u64 == source_bytes;
            let filtered = match &request.keep {
                Keep::All => Filtered::same(batch),
                Keep::Latest { map, rules } => {
                    let fate = transactions.fate(batch);
                    filter_batch(batch, fate, is_last, map, rules, buffer)
                }
            };
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
            building.index(new.header(), *length);
            *length += bytes.len() as u64;
            out.extend_from_slice(bytes);
            Ok(())
        })?;
        if self.out.len() >= WRITE_BYTES || !more {
            self.flush()?;
        }
        Ok(more)
    }

    /// Writes what was gathered.
    fn flush(&mut self) -> Result<(), StorageError> {
        self.building.write(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Puts the segment in its place, durably.
    pub(super) fn finish(mut self: Box<Self>) -> Result<Rewritten, StorageError> {
        self.flush()?;
        let Rewrite { building, request, mut stats, length, .. } = *self;
        let end = request.run.last().map_or(request.name.base, |segment| segment.end());
        // The state below the run is the state below its first segment.
        let storage = building.storage().clone();
        let beginning = storage.read_checkpoint(request.run[0].name(), SegmentFile::BaseCheckpoint);
        let parent = storage.layout.partition(&request.name.topic, request.name.partition);
        if !storage.env.disk.exists(&parent) {
            return Err(StorageError::NotHere { path: parent.as_path().into() });
        }
        let info = building.finish(end, beginning)?;
        stats.bytes_written = length;
        Ok(Rewritten { info, stats })
    }
}
