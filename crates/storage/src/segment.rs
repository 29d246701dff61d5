//! One segment: a log file that grows by whole batches until it is sealed, with its indexes.
//!
//! Locks, in the order they are taken: `files` (index and checkpoint files are being written),
//! `appender` (one append at a time), `index` and `pending` (a few instructions). Readers take only
//! `index`. A sync takes none of them. `end` and `bytes` are published after the write, `bytes` first,
//! so that whoever sees an end finds the bytes below it.

mod cut;
mod verify;

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use base::batch::{BatchHeader, Batches, HEADER_LEN};
use base::env::{File, OpenMode};
use base::ids::{LeaderEpoch, Offset, TimestampMs};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::checkpoint::Checkpoint;
use crate::crc;
use crate::error::StorageError;
use crate::handles::{HandleKind, HandleOwner, Handles};
use crate::index::{self, IndexBuilder, IndexCounts, IndexMarks, OffsetEntry, Tail, TimeEntry};
use crate::layout::{SegmentFile, SegmentName};
use crate::scan::{HeaderScan, ScanError};
use crate::storage::Storage;

pub use verify::Verification;

/// Positions and relative offsets in the indexes are non-negative 32-bit numbers.
const INDEXABLE_MAX: u64 = i32::MAX as u64;
/// Places to go on reading that are remembered for each segment.
const HINTS: usize = 4;
/// Housekeeping rounds after which a checkpoint is written although nobody synced what it covers.
const UNSYNCED_ROUNDS: u8 = 2;

/// The headers of one append.
type Headers = SmallVec<[BatchHeader; 4]>;

/// One batch to append.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The header, stamped with base offset and leader epoch.
    pub header: &'a [u8; HEADER_LEN],
    /// The bytes behind the header, as many as its length field says.
    pub rest: &'a [u8],
}

/// How a segment ended: what a seal states in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedInfo {
    /// Offset after the last one.
    pub end: Offset,
    /// Length of the file.
    pub bytes: u64,
    /// CRC-32C over the whole file.
    pub crc: u32,
}

/// Told when the durable end of a segment moves. Called from the syncing thread (and for a failure
/// that happened before, from the caller's): must be cheap and must not call back into the storage.
pub trait DurableListener: Send + Sync {
    /// Everything below `end` survives power loss from now on.
    fn durable(&self, end: Offset);
    /// The durable end will never move again. May be told more than once.
    fn failed(&self, error: &StorageError);
}

/// What only the one who appends touches.
pub(crate) struct Appender {
    /// CRC over the whole file.
    pub(crate) crc: u32,
    pub(crate) builder: IndexBuilder,
    /// Epoch every batch must have, -1 for any.
    epoch: i32,
    /// The directory and the log file exist.
    made: bool,
    /// Length of the file when the last checkpoint was asked for.
    checkpointed: u64,
}

/// Whether the entries in the index files can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefix {
    /// How many there are is not known: the segment was loaded and nothing was looked up yet.
    Unread,
    /// How many there should be is known, not whether they are intact.
    Unchecked,
    /// Yes.
    Good,
}

/// Where to look.
pub(crate) struct Index {
    tail: Tail,
    prefix: Prefix,
    /// Where reads ended lately: offset of the next batch and its position.
    hints: [(Offset, u64); HINTS],
    next_hint: u8,
}

/// A checkpoint that is to be written.
struct Mark {
    offset: Offset,
    position: u64,
    crc: u32,
    marks: IndexMarks,
    offsets: u32,
    times: u32,
    snapshot: Bytes,
}

#[derive(Default)]
struct Pending {
    /// The one that is written next, once it is durable.
    waiting: Option<Box<Mark>>,
    /// The newest; it does not replace the waiting one, or else under load none would ever be written.
    next: Option<Box<Mark>>,
    rounds: u8,
    listed: bool,
}

/// What is known of a segment when its object is made.
pub(crate) struct SegmentStart {
    pub(crate) end: Offset,
    pub(crate) durable_end: Offset,
    pub(crate) bytes: u64,
    pub(crate) sealed: bool,
    pub(crate) crc: u32,
    pub(crate) epoch: LeaderEpoch,
    /// Where the indexes stand; `None` when they have to be looked for first.
    pub(crate) index: Option<(IndexBuilder, Tail)>,
    /// The directory and the log file exist; else the first append makes them.
    pub(crate) made: bool,
    pub(crate) names_durable: bool,
    pub(crate) checkpoint_sequence: u64,
    pub(crate) checkpointed: u64,
}

/// One offset range of one partition: a directory with a log file and its sparse indexes.
///
/// Made by [`Storage::create`], [`Storage::recover`] and [`Storage::load`].
pub struct Segment {
    me: Weak<Segment>,
    pub(crate) storage: Arc<Storage>,
    pub(crate) name: SegmentName,
    end: AtomicI64,
    durable_end: AtomicI64,
    bytes: AtomicU64,
    /// What of the log file survives power loss, bytes: it was synced, or is in the sync journal.
    pub(crate) covered_bytes: AtomicU64,
    /// In which of the sync journal's cycles it was last written there.
    pub(crate) journal_cycle: AtomicU64,
    sealed: AtomicBool,
    /// The index was made anew because a lookup led astray; once is enough to tell damage.
    index_rebuilt: AtomicBool,
    /// Waits for the next sync round.
    pub(crate) sync_queued: AtomicBool,
    /// The names on the path to the log file survive power loss.
    pub(crate) names_durable: AtomicBool,
    appender: Mutex<Appender>,
    index: Mutex<Index>,
    /// Number of the next checkpoint; held while files other than the log are written.
    files: Mutex<u64>,
    pending: Mutex<Pending>,
    handles: Handles,
    listener: Mutex<Option<Arc<dyn DurableListener>>>,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("name", &self.name).field("end", &self.end()).finish_non_exhaustive()
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.storage.handles.release(&self.handles);
    }
}

impl HandleOwner for Segment {
    fn handles(&self) -> &Handles {
        &self.handles
    }

    fn needs_handle(&self) -> bool {
        self.sync_queued.load(Ordering::Relaxed)
    }
}

impl Segment {
    pub(crate) fn new(storage: Arc<Storage>, name: SegmentName, start: SegmentStart) -> Arc<Segment> {
        let fresh = IndexBuilder::new(name.base, storage.options.index_interval_bytes);
        let (builder, tail, prefix) = match start.index {
            None if start.bytes == 0 => (fresh, Tail::default(), Prefix::Good),
            None => (fresh, Tail::default(), Prefix::Unread),
            Some((builder, tail)) if tail.flushed == IndexCounts::default() => (builder, tail, Prefix::Good),
            Some((builder, tail)) => (builder, tail, Prefix::Unchecked),
        };
        Arc::new_cyclic(|me| Segment {
            me: me.clone(),
            storage,
            end: AtomicI64::new(start.end),
            durable_end: AtomicI64::new(start.durable_end),
            bytes: AtomicU64::new(start.bytes),
            covered_bytes: AtomicU64::new(start.bytes),
            journal_cycle: AtomicU64::new(0),
            sealed: AtomicBool::new(start.sealed),
            index_rebuilt: AtomicBool::new(false),
            sync_queued: AtomicBool::new(false),
            names_durable: AtomicBool::new(start.names_durable),
            appender: Mutex::new(Appender {
                crc: start.crc,
                builder,
                epoch: start.epoch.0,
                made: start.made,
                checkpointed: start.checkpointed,
            }),
            index: Mutex::new(Index { tail, prefix, hints: [(name.base, 0); HINTS], next_hint: 0 }),
            files: Mutex::new(start.checkpoint_sequence),
            pending: Mutex::default(),
            handles: Handles::default(),
            listener: Mutex::new(None),
            name,
        })
    }

    /// Which segment this is.
    pub fn name(&self) -> &SegmentName {
        &self.name
    }

    /// First offset covered.
    pub fn base(&self) -> Offset {
        self.name.base
    }

    /// Offset after the last batch written.
    pub fn end(&self) -> Offset {
        self.end.load(Ordering::Acquire)
    }

    /// Everything below survives power loss.
    pub fn durable_end(&self) -> Offset {
        // A sync round that began before a cut counts what was there then.
        self.durable_end.load(Ordering::Acquire).min(self.end())
    }

    /// Length of the log file, bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// True once it takes no more appends.
    pub fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// The largest record timestamp; `None` without records that have one. Reads a small file the first
    /// time for a loaded segment.
    ///
    /// # Errors
    /// [`StorageError::Io`], [`StorageError::Corrupt`], [`StorageError::NotHere`].
    pub fn max_timestamp(&self) -> Result<Option<TimestampMs>, StorageError> {
        self.prepare_index()?;
        let timestamp = self.appender.lock().builder.marks().max_timestamp;
        Ok((timestamp >= 0).then_some(timestamp))
    }

    /// When it was last written to, wall clock, ms; `None` where the file system does not tell, and before
    /// the first append.
    pub fn modified_ms(&self) -> Option<TimestampMs> {
        self.storage.env.disk.modified_ms(&self.path(SegmentFile::Log)).ok()
    }

    /// Who is told of progress from now on, in the place of an earlier one. Of a failure of the storage
    /// that happened before it is told at once.
    pub fn set_listener(&self, listener: Arc<dyn DurableListener>) {
        *self.listener.lock() = Some(listener.clone());
        if let Some(failure) = self.storage.failure() {
            listener.failed(failure);
        }
    }

    /// Notes that a sync has covered everything below `end`.
    pub(crate) fn set_durable(&self, end: Offset) {
        self.durable_end.fetch_max(end, Ordering::AcqRel);
        let listener = self.listener.lock().clone();
        if let Some(listener) = listener {
            listener.durable(end.min(self.end()));
        }
    }

    /// Tells the listener that the storage failed.
    pub(crate) fn tell_failure(&self, failure: &StorageError) {
        let listener = self.listener.lock().clone();
        if let Some(listener) = listener {
            listener.failed(failure);
        }
    }

    pub(crate) fn path(&self, file: SegmentFile) -> PathBuf {
        self.storage.layout.file(&self.name, file)
    }

    pub(crate) fn io_error(&self, action: &'static str, file: SegmentFile, error: io::Error) -> StorageError {
        StorageError::io(action, &self.path(file), error)
    }

    pub(crate) fn corrupt(&self, position: u64, reason: impl Into<String>) -> StorageError {
        StorageError::corrupt(&self.path(SegmentFile::Log), position, reason)
    }

    pub(crate) fn scan_error(&self, error: ScanError) -> StorageError {
        match error {
            ScanError::Io(error) => self.io_error("read", SegmentFile::Log, error),
            ScanError::Damage { position, reason } => self.corrupt(position, reason),
        }
    }

    /// A handle that stays open for the next use.
    fn handle(&self, kind: HandleKind) -> Result<Arc<dyn File>, StorageError> {
        if let Some(handle) = self.handles.get(kind) {
            return Ok(handle);
        }
        let (file, mode) = match kind {
            HandleKind::Log if !self.is_sealed() => (SegmentFile::Log, OpenMode::Existing),
            HandleKind::Log => (SegmentFile::Log, OpenMode::Read),
            HandleKind::Index => (SegmentFile::Index, OpenMode::Read),
            HandleKind::TimeIndex => (SegmentFile::TimeIndex, OpenMode::Read),
        };
        let path = self.path(file);
        let handle = self.storage.env.disk.open(&path, mode).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StorageError::NotHere { path: path.as_path().into() },
            _ => StorageError::io("open", &path, error),
        })?;
        if kind == HandleKind::Log {
            let (expected, length) = (self.bytes(), handle.len());
            let length = length.map_err(|error| StorageError::io("measure", &path, error))?;
            if length < expected {
                let reason = format!("the file has {length} bytes, {expected} were written");
                return Err(StorageError::corrupt(&path, length, reason));
            }
        }
        if let Some(owner) = self.me.upgrade() {
            let owner: Arc<dyn HandleOwner> = owner;
            self.storage.handles.keep(&owner, kind, handle.clone());
        }
        Ok(handle)
    }

    /// The log file, open.
    pub(crate) fn log(&self) -> Result<Arc<dyn File>, StorageError> {
        self.handle(HandleKind::Log)
    }

    /// Appends batches with one vectored write; on success the new end is visible to readers. Nothing
    /// is durable until a sync round ([`Storage::request_sync`]) has covered it. One appender at a time,
    /// others wait. The CRCs of the batches are not looked at. On an error nothing was appended.
    ///
    /// # Errors
    /// [`StorageError::NoSpace`], [`StorageError::Failed`], [`StorageError::Sealed`],
    /// [`StorageError::SegmentFull`], [`StorageError::OffsetGap`], [`StorageError::InvalidBatch`].
    pub fn append(&self, batches: &[Batch<'_>]) -> Result<(), StorageError> {
        let appender = self.open_appender()?;
        let mut headers: Headers = SmallVec::with_capacity(batches.len());
        let mut buffers: SmallVec<[IoSlice<'_>; 8]> = SmallVec::with_capacity(2 * batches.len());
        let mut end = self.end.load(Ordering::Relaxed);
        for batch in batches {
            let header = self.check(batch, end, appender.epoch)?;
            end = header.next_offset();
            headers.push(header);
            buffers.extend([IoSlice::new(batch.header), IoSlice::new(batch.rest)]);
        }
        self.write(appender, &headers, &buffers)
    }

    /// As [`Segment::append`], of whole batches that lie one behind the other.
    ///
    /// # Errors
    /// As [`Segment::append`]; [`StorageError::InvalidBatch`] also where the bytes are no whole batches.
    pub fn append_raw(&self, bytes: &[u8]) -> Result<(), StorageError> {
        let appender = self.open_appender()?;
        let mut headers = Headers::new();
        let mut end = self.end.load(Ordering::Relaxed);
        for batch in Batches::new(bytes) {
            let batch = batch.map_err(|error| StorageError::InvalidBatch { reason: error.to_string() })?;
            let whole = Batch { header: batch.header_bytes(), rest: batch.payload() };
            let header = self.check(&whole, end, appender.epoch)?;
            end = header.next_offset();
            headers.push(header);
        }
        self.write(appender, &headers, &[IoSlice::new(bytes)])
    }

    /// What the next append needs.
    fn open_appender(&self) -> Result<MutexGuard<'_, Appender>, StorageError> {
        self.storage.check_writable()?;
        let appender = self.appender.lock();
        if self.is_sealed() { Err(StorageError::Sealed) } else { Ok(appender) }
    }

    /// Writes the batches of these headers, which were checked.
    fn write(
        &self,
        mut appender: MutexGuard<'_, Appender>,
        headers: &[BatchHeader],
        buffers: &[IoSlice<'_>],
    ) -> Result<(), StorageError> {
        let start = self.bytes();
        let length = start + headers.iter().map(|header| header.total_size() as u64).sum::<u64>();
        let end = headers.last().map_or(self.end(), BatchHeader::next_offset);
        if length > INDEXABLE_MAX || end.abs_diff(self.name.base) > INDEXABLE_MAX {
            return Err(StorageError::SegmentFull);
        }
        if !appender.made {
            self.storage.make_files(&self.name, None)?;
            appender.made = true;
        }
        let file = self.log()?;
        if let Err(error) = file.write_all_at(buffers, start) {
            return Err(self.append_failed(&*file, start, error));
        }
        for buffer in buffers {
            appender.crc = crc::extend(appender.crc, buffer);
        }
        let mut index = self.index.lock();
        let mut position = start;
        for header in headers {
            appender.builder.add(header, position, &mut index.tail);
            position += header.total_size() as u64;
        }
        drop(index);
        self.bytes.store(length, Ordering::Release);
        self.end.store(end, Ordering::Release);
        self.storage.note_appended(length - start);
        Ok(())
    }

    fn check(&self, batch: &Batch<'_>, end: Offset, epoch: i32) -> Result<BatchHeader, StorageError> {
        let invalid = |reason: String| StorageError::InvalidBatch { reason };
        let header = BatchHeader::parse(batch.header).map_err(|error| invalid(error.to_string()))?;
        if header.total_size() != HEADER_LEN + batch.rest.len() {
            let (named, given) = (header.total_size(), HEADER_LEN + batch.rest.len());
            return Err(invalid(format!("it has {given} bytes but names {named}")));
        }
        if header.base_offset != end {
            return Err(StorageError::OffsetGap { expected: end, found: header.base_offset });
        }
        if epoch >= 0 && header.leader_epoch != epoch {
            return Err(invalid(format!("leader epoch {} in a segment of {epoch}", header.leader_epoch)));
        }
        Ok(header)
    }

    /// Takes back a write that stopped in the middle, or gives the storage up.
    fn append_failed(&self, file: &dyn File, start: u64, error: io::Error) -> StorageError {
        let path = self.path(SegmentFile::Log);
        if !is_full(&error) {
            return self.storage.fail("write", &path, &error);
        }
        match file.set_len(start) {
            Ok(()) => self.storage.out_of_space(),
            Err(error) => self.storage.fail("cut", &path, &error),
        }
    }

    /// Bytes appended since the last [`Segment::checkpoint`]: what recovery would have to scan.
    pub fn bytes_since_checkpoint(&self) -> u64 {
        let appender = self.appender.lock();
        self.bytes() - appender.checkpointed
    }

    /// Notes the state derived from everything below the present end, so that recovery need not begin
    /// before it. Cheap: the file is written behind, once a sync round has covered the end (or soon, for
    /// a segment nobody syncs). The caller excludes appends between taking the snapshot and this call.
    pub fn checkpoint(&self, snapshot: Bytes) {
        let Some(me) = self.me.upgrade() else { return };
        let mut appender = self.appender.lock();
        // At its base a segment has the state it began with.
        if self.is_sealed() || self.bytes() == 0 || self.storage.check_open().is_err() {
            return;
        }
        appender.checkpointed = self.bytes();
        let mark = Box::new(self.mark(&appender, snapshot));
        let mut pending = self.pending.lock();
        if pending.waiting.is_none() {
            pending.waiting = Some(mark);
            pending.rounds = 0;
        } else {
            pending.next = Some(mark);
        }
        if !std::mem::replace(&mut pending.listed, true) {
            self.storage.list_checkpoint(&me);
        }
    }

    fn mark(&self, appender: &Appender, snapshot: Bytes) -> Mark {
        let index = self.index.lock();
        Mark {
            offset: self.end(),
            position: self.bytes(),
            crc: appender.crc,
            marks: appender.builder.marks(),
            offsets: index.tail.total_offsets(),
            times: index.tail.total_times(),
            snapshot,
        }
    }

    /// Writes the pending checkpoint if its time has come; with `now` the newest one whatever is
    /// durable. Returns whether the segment has another one pending.
    pub(crate) fn write_pending(&self, now: bool) -> bool {
        let mut files = self.files.lock();
        let mark = {
            let mut pending = self.pending.lock();
            if now && let Some(next) = pending.next.take() {
                pending.waiting = Some(next);
            }
            pending.rounds = pending.rounds.saturating_add(1);
            let ready = |mark: &Mark| mark.offset <= self.durable_end();
            let due = now || pending.rounds >= UNSYNCED_ROUNDS && !self.needs_handle();
            let mark = pending.waiting.take_if(|mark| due || ready(mark));
            if mark.is_some() {
                pending.waiting = pending.next.take();
                pending.rounds = 0;
            }
            mark
        };
        if let Some(mark) = mark {
            self.write_mark(&mut files, *mark);
        }
        let mut pending = self.pending.lock();
        pending.listed = pending.waiting.is_some();
        pending.listed
    }

    fn write_mark(&self, files: &mut MutexGuard<'_, u64>, mark: Mark) {
        // The index in the files must be exactly as the checkpoint says; after a rebuild it is not.
        let Some(counts) = self.flush_index(mark.offsets, mark.times) else { return };
        let slot =
            if files.is_multiple_of(2) { SegmentFile::EvenCheckpoint } else { SegmentFile::OddCheckpoint };
        **files += 1;
        let checkpoint = Checkpoint {
            id: self.name.id,
            generation: self.name.generation,
            offset: mark.offset,
            position: mark.position,
            crc: mark.crc,
            durable: mark.offset <= self.durable_end(),
            boot: self.storage.boot.clone(),
            counts,
            marks: mark.marks,
            snapshot: Some(mark.snapshot),
        };
        self.write_file(slot, &checkpoint.encode(), 0);
    }

    /// Writes a file beside the log; true on success. What is lost by a failure is time, so a full disk
    /// is borne; anything else fails the storage.
    fn write_file(&self, file: SegmentFile, bytes: &[u8], position: u64) -> bool {
        if self.storage.check_open().is_err() {
            return false;
        }
        let path = self.path(file);
        let handle = self.storage.env.disk.open(&path, OpenMode::ReadWrite);
        match handle.and_then(|handle| handle.write_all_at(&[IoSlice::new(bytes)], position)) {
            Ok(()) => true,
            Err(error) if is_full(&error) => {
                self.storage.out_of_space();
                false
            }
            // Removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                self.storage.fail("write", &path, &error);
                false
            }
        }
    }

    /// Writes index entries up to the given totals to the files and lets go of them in memory. `None`
    /// when that is not possible. The caller holds `files`.
    fn flush_index(&self, offsets: u32, times: u32) -> Option<IndexCounts> {
        let (before, offset_entries, time_entries) = {
            let index = self.index.lock();
            let (offset_entries, time_entries) = index.tail.unflushed(offsets, times);
            (index.tail.flushed, offset_entries, time_entries)
        };
        let (offset_bytes, offsets_crc) = index::encode(&offset_entries, before.offsets_crc);
        let (time_bytes, times_crc) = index::encode(&time_entries, before.times_crc);
        let counts = IndexCounts {
            offsets: before.offsets + offset_entries.len() as u32,
            offsets_crc,
            times: before.times + time_entries.len() as u32,
            times_crc,
        };
        if (counts.offsets, counts.times) != (offsets, times) {
            return None;
        }
        let offsets_at = u64::from(before.offsets) * index::OFFSET_ENTRY_BYTES as u64;
        let times_at = u64::from(before.times) * index::TIME_ENTRY_BYTES as u64;
        let written = (offset_bytes.is_empty()
            || self.write_file(SegmentFile::Index, &offset_bytes, offsets_at))
            && (time_bytes.is_empty() || self.write_file(SegmentFile::TimeIndex, &time_bytes, times_at));
        if !written {
            return None;
        }
        self.index.lock().tail.set_flushed(counts);
        Some(counts)
    }

    /// Ends the segment: no appends any more, index files complete. To be called after the last append;
    /// idempotent. Durable once `durable_end() == end`.
    ///
    /// # Errors
    /// [`StorageError::Failed`].
    pub fn seal(&self) -> Result<SealedInfo, StorageError> {
        let (info, mark) = {
            let mut appender = self.appender.lock();
            let info = SealedInfo { end: self.end(), bytes: self.bytes(), crc: appender.crc };
            if self.sealed.swap(true, Ordering::AcqRel) {
                return Ok(info);
            }
            appender.builder.add_time(&mut self.index.lock().tail);
            *self.pending.lock() = Pending::default();
            (info, self.mark(&appender, Bytes::new()))
        };
        let files = self.files.lock();
        self.write_end(mark);
        drop(files);
        self.storage.check_open()?;
        Ok(info)
    }

    /// Writes the rest of the index files and the checkpoint that vouches for them. The caller holds
    /// `files`.
    fn write_end(&self, mark: Mark) {
        let Some(counts) = self.flush_index(mark.offsets, mark.times) else { return };
        // Kafka's tools expect the files even where there is no entry.
        if counts.offsets == 0 {
            self.write_file(SegmentFile::Index, &[], 0);
        }
        if counts.times == 0 {
            self.write_file(SegmentFile::TimeIndex, &[], 0);
        }
        let checkpoint = Checkpoint {
            id: self.name.id,
            generation: self.name.generation,
            offset: mark.offset,
            position: mark.position,
            crc: mark.crc,
            durable: mark.offset <= self.durable_end(),
            boot: self.storage.boot.clone(),
            counts,
            marks: mark.marks,
            snapshot: None,
        };
        self.write_file(SegmentFile::EndCheckpoint, &checkpoint.encode(), 0);
    }

    /// Makes the entries in the index files usable: reads how many there are, checks them, and makes
    /// them anew from the log when they are damaged or missing.
    pub(crate) fn prepare_index(&self) -> Result<(), StorageError> {
        if self.index.lock().prefix == Prefix::Good {
            return Ok(());
        }
        let _files = self.files.lock();
        let prefix = self.index.lock().prefix;
        let usable = match prefix {
            Prefix::Good => return Ok(()),
            Prefix::Unread => self.read_end() && self.check_index_files(),
            Prefix::Unchecked => self.check_index_files(),
        };
        if usable {
            self.index.lock().prefix = Prefix::Good;
            return Ok(());
        }
        self.rebuild_locked()
    }

    /// Whether a look-up needs no preparation.
    pub(crate) fn index_is_ready(&self) -> bool {
        self.index.lock().prefix == Prefix::Good
    }

    /// Takes over what the checkpoint of a sealed segment says; false without a usable one.
    fn read_end(&self) -> bool {
        let Some(checkpoint) = self.storage.read_checkpoint(&self.name, SegmentFile::EndCheckpoint) else {
            return false;
        };
        let mut appender = self.appender.lock();
        if (checkpoint.position, checkpoint.crc) != (self.bytes(), appender.crc) {
            return false;
        }
        let interval = self.storage.options.index_interval_bytes;
        appender.builder = IndexBuilder::resume(self.name.base, interval, checkpoint.marks);
        let mut index = self.index.lock();
        index.tail = Tail { flushed: checkpoint.counts, ..Tail::default() };
        index.prefix = Prefix::Unchecked;
        true
    }

    /// Whether the index files hold what their CRCs say.
    fn check_index_files(&self) -> bool {
        let counts = self.index.lock().tail.flushed;
        let good = |kind, count: u32, entry_bytes: usize, crc| {
            if count == 0 {
                return true;
            }
            let Ok(file) = self.handle(kind) else { return false };
            let length = u64::from(count) * entry_bytes as u64;
            if file.len().is_ok_and(|have| have < length) {
                return false;
            }
            let mut bytes = vec![0; length as usize];
            file.read_exact_at(&mut bytes, 0).is_ok() && crc::extend(crc::EMPTY, &bytes) == crc
        };
        good(HandleKind::Index, counts.offsets, index::OFFSET_ENTRY_BYTES, counts.offsets_crc)
            && good(HandleKind::TimeIndex, counts.times, index::TIME_ENTRY_BYTES, counts.times_crc)
    }

    /// Makes the index anew from the log, for when a lookup led astray; false when that was done before.
    pub(crate) fn rebuild_index(&self) -> Result<bool, StorageError> {
        if self.index_rebuilt.swap(true, Ordering::AcqRel) {
            return Ok(false);
        }
        let _files = self.files.lock();
        self.rebuild_locked()?;
        Ok(true)
    }

    fn rebuild_locked(&self) -> Result<(), StorageError> {
        let log = self.log()?;
        let mut appender = self.appender.lock();
        tracing::warn!(path = %self.path(SegmentFile::Log).display(), "making the index of a segment anew");
        let mut builder = IndexBuilder::new(self.name.base, self.storage.options.index_interval_bytes);
        let mut tail = Tail::default();
        let mut scan = HeaderScan::new(&*log, 0, self.bytes(), self.name.base);
        while let Some((position, header)) = scan.next().map_err(|error| self.scan_error(error))? {
            builder.add(&header, position, &mut tail);
        }
        if self.is_sealed() {
            builder.add_time(&mut tail);
        }
        appender.builder = builder;
        {
            let mut index = self.index.lock();
            index.tail = tail;
            index.prefix = Prefix::Good;
            index.hints = [(self.name.base, 0); HINTS];
        }
        // Checkpoints that wait count on the former files.
        {
            let mut pending = self.pending.lock();
            *pending = Pending { listed: pending.listed, ..Pending::default() };
        }
        if self.is_sealed() {
            let mark = self.mark(&appender, Bytes::new());
            drop(appender);
            self.write_end(mark);
        }
        Ok(())
    }

    /// Where to begin looking for `offset`: a position at which a batch begins that does not lie behind
    /// it, and whether that batch is known to be the one that holds it.
    pub(crate) fn locate(&self, offset: Offset) -> Result<(u64, bool), StorageError> {
        let relative = u32::try_from(offset - self.name.base).unwrap_or(0);
        let in_file = {
            let index = self.index.lock();
            if let Some((_, position)) = index.hints.iter().find(|hint| hint.0 == offset) {
                return Ok((*position, true));
            }
            match index.tail.find_offset(|entry| entry.last <= relative) {
                index::Found::Entry(entry) => return Ok((u64::from(entry.position), false)),
                index::Found::InFile(0) if index.prefix == Prefix::Good => return Ok((0, false)),
                index::Found::InFile(count) => (index.prefix == Prefix::Good).then_some(count),
            }
        };
        let count = match in_file {
            Some(count) => count,
            None => {
                self.prepare_index()?;
                return self.locate(offset);
            }
        };
        let file = self.handle(HandleKind::Index)?;
        let entry = index::search(&*file, count, |entry: &OffsetEntry| entry.last <= relative)
            .map_err(|error| self.io_error("read", SegmentFile::Index, error))?;
        Ok((entry.map_or(0, |entry| u64::from(entry.position)), false))
    }

    /// Where the last batch begins of those that have an entry in the index, which is ready, begin at or before `position`
    /// and lie below `upper`.
    pub(crate) fn last_entry_until(&self, position: u64, upper: Offset) -> Result<Option<u64>, StorageError> {
        let below = |entry: &OffsetEntry| self.name.base + i64::from(entry.last) < upper;
        let fits = |entry: &OffsetEntry| u64::from(entry.position) <= position && below(entry);
        let count = match self.index.lock().tail.find_offset(fits) {
            index::Found::Entry(entry) => return Ok(Some(u64::from(entry.position))),
            index::Found::InFile(count) => count,
        };
        let file = self.handle(HandleKind::Index)?;
        let entry = index::search(&*file, count, fits)
            .map_err(|error| self.io_error("read", SegmentFile::Index, error))?;
        Ok(entry.map(|entry| u64::from(entry.position)))
    }

    /// An offset at or below which a search for `timestamp` may begin.
    pub(crate) fn locate_time(&self, timestamp: TimestampMs) -> Result<Offset, StorageError> {
        self.prepare_index()?;
        let found = self.index.lock().tail.find_time(timestamp);
        let entry = match found {
            index::Found::Entry(entry) => Some(entry),
            index::Found::InFile(0) => None,
            index::Found::InFile(count) => {
                let file = self.handle(HandleKind::TimeIndex)?;
                index::search(&*file, count, |entry: &TimeEntry| entry.timestamp <= timestamp)
                    .map_err(|error| self.io_error("read", SegmentFile::TimeIndex, error))?
            }
        };
        Ok(entry.map_or(self.name.base, |entry| self.name.base + i64::from(entry.last)))
    }

    /// Remembers where the batch at `offset` begins: whoever read up to there will go on there.
    pub(crate) fn remember(&self, offset: Offset, position: u64) {
        let mut index = self.index.lock();
        if index.hints.iter().any(|hint| hint.0 == offset) {
            return;
        }
        let at = usize::from(index.next_hint);
        index.hints[at] = (offset, position);
        index.next_hint = (index.next_hint + 1) % HINTS as u8;
    }
}

/// The disk or a quota is exhausted.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_segment_is_small() {
        assert!(size_of::<Segment>() <= 512, "{} bytes", size_of::<Segment>());
    }
}
