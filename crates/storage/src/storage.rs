//! One log directory: what it is, who may use it, and the making and finding of segments in it.
//!
//! Locks: none is held while a file is written or synced, except `names` for reading while directories
//! are made (so that an empty one is not removed from under them).

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use base::batch::BatchHeader;
use base::env::{Disk, Env, File, OpenMode};
use base::ids::{LeaderEpoch, Offset, SegmentId, StorageId, TopicPartition, Uuid};
use base::metrics::{Metrics, NodeMetrics};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint};
use crate::crc;
use crate::error::StorageError;
use crate::format::{self, Doubt, Life};
use crate::handles::HandlePool;
use crate::index::{IndexBuilder, IndexCounts, Tail};
use crate::journal::{self, SyncJournal};
use crate::keeper::Trash;
use crate::layout::{Layout, SegmentFile, SegmentName};
use crate::recover::{TailEnd, TailRules, scan_tail};
use crate::scan::{self, HeaderScan};
use crate::segment::{Segment, SegmentStart, is_full};
use crate::space::{Fullness, SpaceLimits, StorageState};
use crate::sync::SyncQueue;

/// Longest number of a process in a lock file, bytes.
const LOCK_BYTES_MAX: usize = 32;

/// Limits of one storage.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// Bytes of batches per entry of the sparse indexes (Kafka's `index.interval.bytes`).
    pub index_interval_bytes: u32,
    /// File handles kept open at most, apart from those in use at the moment; never more than two thirds of
    /// what the process may have. A segment that is appended to needs one.
    pub open_files_max: usize,
    /// Size of the file that is given up when the disk is full, bytes; at most a hundredth of the disk.
    pub reserve_bytes: u64,
    /// When the disk counts as full.
    pub space: SpaceLimits,
    /// No batch is unfolded to more than this for a search by time or for compaction, bytes.
    pub decompressed_batch_bytes_max: usize,
    /// Size of the file in which many small appends become durable with one sync, bytes; at most a hundredth of the
    /// disk. 0: each file is synced by itself, or all are.
    pub sync_journal_bytes: u64,
    /// Files with small appends that are synced before it is made: who syncs seldom needs none.
    pub sync_journal_after_files: u64,
    /// Where sync rounds and failures are counted.
    pub metrics: NodeMetrics,
}

impl StorageOptions {
    /// How many of the file handles that the process may have all storages together keep open: two thirds. The rest is left
    /// for connections and everything else.
    pub fn open_files_share(disk: &dyn Disk) -> usize {
        disk.open_files_max() / 3 * 2
    }
}

impl Default for StorageOptions {
    fn default() -> StorageOptions {
        StorageOptions {
            index_interval_bytes: 4096,
            open_files_max: 500_000,
            reserve_bytes: 64 << 20,
            space: SpaceLimits::default(),
            decompressed_batch_bytes_max: 256 << 20,
            sync_journal_bytes: 128 << 20,
            sync_journal_after_files: 64,
            metrics: Metrics::default().node().clone(),
        }
    }
}

/// What a new segment begins with.
#[derive(Clone, Debug)]
pub struct CreateSegment {
    /// Epoch of every batch in it; -1 for batches of any epoch.
    pub leader_epoch: LeaderEpoch,
    /// Opaque state derived from everything below the base offset; durable before the first batch is.
    pub snapshot: Bytes,
}

/// What recovery and [`Storage::replay`] hand to the caller, in order: one snapshot, then each batch
/// behind it.
#[derive(Debug)]
pub enum Replay<'a> {
    /// State to start from. Answer false when the bytes are not a snapshot: then an older one is
    /// offered. If none is taken the replay begins at the base without one.
    Snapshot(&'a [u8]),
    /// The next batch. The answer does not matter.
    Batch(&'a BatchHeader),
}

/// A segment whose end was found out.
#[derive(Debug)]
pub struct Recovered {
    /// The segment, open: append to it or seal it.
    pub segment: Arc<Segment>,
    /// Bytes of unfinished writes that were cut off its end.
    pub torn_bytes: u64,
    /// Bytes that had to be read to find the end.
    pub scanned_bytes: u64,
    /// No snapshot survived (or none was taken): derived state below the base is not known.
    pub snapshot_missing: bool,
}

/// One log directory. See the crate's head.
pub struct Storage {
    pub(crate) env: Env,
    pub(crate) layout: Layout,
    pub(crate) options: StorageOptions,
    pub(crate) boot: String,
    pub(crate) handles: HandlePool,
    pub(crate) syncs: SyncQueue,
    pub(crate) journal: SyncJournal,
    id: StorageId,
    former_life: Life,
    doubt: Mutex<Doubt>,
    /// What the cache shows behind the last durable checkpoint may not be on the disk, synced or not: a sync failed
    /// since the machine was booted.
    cache_lies: bool,
    failure: OnceLock<StorageError>,
    closed: AtomicBool,
    pub(crate) fullness: AtomicU8,
    /// The file that is given up when the disk is full is there.
    pub(crate) reserve_held: AtomicBool,
    /// Bytes written and not known to be on the disk, about.
    dirty_bytes: AtomicU64,
    /// Segments with a checkpoint to be written. Of one that everybody let go of nobody needs it.
    pub(crate) checkpoints: Mutex<Vec<Weak<Segment>>>,
    /// Segments whose sync could not be begun, to be asked for again.
    pub(crate) deferred_syncs: Mutex<Vec<Arc<Segment>>>,
    pub(crate) trash: Mutex<Trash>,
    /// Held for reading while directories are made, for writing while empty ones are removed.
    pub(crate) names: RwLock<()>,
    /// Topics whose directory is known to be durable.
    pub(crate) durable_topics: Mutex<HashSet<Arc<str>>>,
    _lock: Box<dyn Send + Sync>,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage")
            .field("dir", self.layout.root())
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Storage {
    /// Opens a directory as a storage; formats it when it is new. Everything a former life wrote is
    /// made durable before this returns. Blocks.
    ///
    /// # Errors
    /// [`StorageError::Unusable`] for a directory that is another process's, another format's or no
    /// storage; [`StorageError::Io`].
    pub fn open(env: Env, dir: PathBuf, options: StorageOptions) -> Result<Arc<Storage>, StorageError> {
        let layout = Layout::new(&dir);
        let io = |action| move |path: &Path, error| StorageError::io(action, path, error);
        env.disk.create_dir_all(&dir).map_err(|error| io("make")(&dir, error))?;
        let lock = env.disk.lock(&layout.lock()).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StorageError::unusable(
                &dir,
                "another process uses it: stop that one, or give each its own directory",
            ),
            _ => io("lock")(&layout.lock(), error),
        })?;
        let id = format::read_or_format(&env, &layout)?;
        for dir in [layout.topics(), layout.trash(), layout.building()] {
            env.disk.create_dir_all(&dir).map_err(|error| io("make")(&dir, error))?;
        }
        let boot = env.disk.boot_id();
        let former_life = format::read_life(&env, &layout)?;
        let doubt = former_life.doubt_in(&boot);
        // Within one boot the page cache shows what the journal holds, unless a sync failed.
        if !former_life.clean && (former_life.failed || former_life.boot != boot) {
            let ranges = journal::apply(&env, &layout)?;
            if ranges > 0 {
                tracing::info!(dir = %dir.display(), ranges, "applied the sync journal");
            }
        }
        if !former_life.clean {
            // What is there now is what recovery will find and vouch for.
            env.disk.sync_all(&dir).map_err(|error| {
                // The kernel tells of a failed write-back once; the next start must know of it all the same.
                let life = Life { boot: boot.clone(), clean: false, failed: true, doubt };
                let _ = format::write_life(&env, &layout, &life);
                io("sync")(&dir, error)
            })?;
        }
        let space = env.disk.space(&dir).map_err(|error| io("measure")(&dir, error))?;
        let half_bytes = journal::half_bytes(options.sync_journal_bytes, space);
        let writer = journal::reset(&env, &layout, half_bytes)?;
        // After a reboot there is no cache that could show what is not on the disk.
        let cache_lies = former_life.failed && former_life.boot == boot;
        let life = Life { boot: boot.clone(), clean: false, failed: cache_lies, doubt };
        format::write_life(&env, &layout, &life)?;
        let handles_max = options.open_files_max.min(StorageOptions::open_files_share(&*env.disk));
        let storage = Arc::new(Storage {
            handles: HandlePool::new(handles_max),
            syncs: SyncQueue::default(),
            journal: SyncJournal::new(half_bytes, writer),
            id,
            boot,
            former_life,
            doubt: Mutex::new(doubt),
            cache_lies,
            failure: OnceLock::new(),
            closed: AtomicBool::new(false),
            fullness: AtomicU8::new(Fullness::Roomy as u8),
            reserve_held: AtomicBool::new(false),
            dirty_bytes: AtomicU64::new(0),
            checkpoints: Mutex::default(),
            deferred_syncs: Mutex::default(),
            trash: Mutex::default(),
            names: RwLock::default(),
            durable_topics: Mutex::default(),
            _lock: lock,
            env,
            layout,
            options,
        });
        storage.clear_leftovers()?;
        storage.poll_space();
        Ok(storage)
    }

    /// Who holds a directory at the moment, for people; `None` when nobody does. Blocks.
    pub fn holder(env: &Env, dir: &Path) -> Option<String> {
        let lock = Layout::new(dir).lock();
        let is_held = env.disk.exists(&lock)
            && env.disk.lock(&lock).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        is_held.then(|| {
            let number = env.disk.read(&lock, LOCK_BYTES_MAX).ok();
            let number = number.and_then(|bytes| String::from_utf8(bytes).ok()?.parse::<u32>().ok());
            number.map_or_else(|| "another process".to_owned(), |number| format!("process {number}"))
        })
    }

    /// Its id: random, given when it was formatted, never reused.
    pub fn id(&self) -> StorageId {
        self.id
    }

    /// Makes the directory that of a cluster, for good. Blocks.
    ///
    /// # Errors
    /// [`StorageError::Unusable`] when it is another's: its files would be taken for leftovers.
    pub fn claim(&self, cluster_id: Uuid) -> Result<(), StorageError> {
        format::claim(&self.env, &self.layout, cluster_id)
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.layout.root()
    }

    /// What it can do now.
    pub fn state(&self) -> StorageState {
        if let Some(failure) = self.failure() {
            return StorageState::Failed(failure.to_string().into());
        }
        match Fullness::from_u8(self.fullness.load(Ordering::Acquire)) {
            Fullness::Roomy => StorageState::Writable,
            Fullness::Filling => StorageState::ReadOnly,
            Fullness::Full => StorageState::NoSpace,
        }
    }

    /// Whether the life before this one ended with [`Storage::shutdown_clean`]; true when newly formatted.
    pub fn last_shutdown_was_clean(&self) -> bool {
        self.former_life.clean
    }

    /// Whether the machine has not been rebooted since the life before this one, so that everything
    /// that life wrote is there, synced or not; true when newly formatted.
    pub fn same_boot(&self) -> bool {
        self.former_life.boot.is_empty() || self.former_life.boot == self.boot
    }

    /// Notes for this life and all after it that of segments up to `newest`, the newest of all now, what was written and
    /// not synced may be missing, if the power went before this life, or before an earlier one that did not note it.
    /// Blocks.
    ///
    /// # Errors
    /// [`StorageError::Failed`]; the doubt counts in this life all the same, and the next one can note it.
    pub fn note_doubt(&self, newest: SegmentId) -> Result<(), StorageError> {
        let doubt = {
            let mut doubt = self.doubt.lock();
            if !doubt.power_lost {
                return Ok(());
            }
            *doubt = Doubt { power_lost: false, up_to: doubt.up_to.max(Some(newest)) };
            *doubt
        };
        self.check_open()?;
        let life = Life { boot: self.boot.clone(), clean: false, failed: self.cache_lies, doubt };
        format::write_life(&self.env, &self.layout, &life).map_err(|error| self.fail_with(&error))
    }

    /// The newest segment of which something may be missing that was written and not synced, although the storage is
    /// well; `None` for none. See [`Storage::note_doubt`].
    pub fn doubtful_to(&self) -> Option<SegmentId> {
        self.doubt.lock().up_to
    }

    /// Whether there is room for what could be done without.
    pub(crate) fn is_roomy(&self) -> bool {
        self.fullness.load(Ordering::Acquire) == Fullness::Roomy as u8
    }

    /// File handles kept open now.
    pub fn open_files(&self) -> usize {
        self.handles.open_count()
    }

    pub(crate) fn failure(&self) -> Option<&StorageError> {
        self.failure.get()
    }

    /// An error once the storage has failed.
    pub(crate) fn check_open(&self) -> Result<(), StorageError> {
        self.failure().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// An error when nothing may be appended.
    pub(crate) fn check_writable(&self) -> Result<(), StorageError> {
        self.check_open()?;
        if self.closed.load(Ordering::Acquire) {
            return Err(StorageError::Failed { reason: "it was shut down".into() });
        }
        if self.fullness.load(Ordering::Acquire) == Fullness::Full as u8 {
            return Err(StorageError::NoSpace { path: self.layout.root().clone() });
        }
        Ok(())
    }

    /// Gives the storage up for good; returns what everybody is told from now on. When only file handles
    /// are wanting, that is returned and the storage goes on.
    pub(crate) fn fail(&self, action: &'static str, path: &Path, error: &io::Error) -> StorageError {
        if let Some(transient) = StorageError::no_handles(action, path, error) {
            return transient;
        }
        let reason = format!("cannot {action} {}: {error}", path.display());
        self.fail_with_reason(reason)
    }

    /// Gives the storage up for good.
    pub(crate) fn fail_with(&self, error: &StorageError) -> StorageError {
        if matches!(error, StorageError::NoHandles { .. }) {
            return error.clone();
        }
        self.fail_with_reason(error.to_string())
    }

    fn fail_with_reason(&self, reason: String) -> StorageError {
        let failure = StorageError::Failed { reason: reason.as_str().into() };
        if self.failure.set(failure).is_ok() {
            self.note_failed_life();
            self.options.metrics.storage_failures.inc();
            tracing::error!(dir = %self.dir().display(), %reason, "the storage failed and takes no more writes");
        }
        self.failure.get().expect("just set").clone()
    }

    /// Tells the next life of the failure before this one goes on. That may fail, too: the disk is not well.
    fn note_failed_life(&self) {
        let life = Life { boot: self.boot.clone(), clean: false, failed: true, doubt: *self.doubt.lock() };
        if let Err(error) = format::write_life(&self.env, &self.layout, &life) {
            tracing::error!(%error, "the failure of the storage could not be noted");
        }
    }

    /// Counts what the page cache has to write some time.
    pub(crate) fn note_appended(&self, bytes: u64) {
        self.dirty_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes bytes that are synced now off the count; returns what is left.
    pub(crate) fn note_synced(&self, bytes: u64) -> u64 {
        let update = |dirty: u64| Some(dirty.saturating_sub(bytes));
        let before = self.dirty_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        before.unwrap_or_default().saturating_sub(bytes)
    }

    /// The kernel writes back in its own time; about a thirtieth of what is dirty in a second.
    pub(crate) fn decay_dirty(&self) {
        self.note_synced(self.dirty_bytes.load(Ordering::Relaxed) / 60);
    }

    pub(crate) fn list_checkpoint(&self, segment: &Arc<Segment>) {
        self.checkpoints.lock().push(Arc::downgrade(segment));
    }

    /// Whether the segment's directory is here. One look-up.
    pub fn holds(&self, name: &SegmentName) -> bool {
        self.env.disk.exists(&self.layout.segment(name))
    }

    /// Makes a new open segment. What an earlier, unfinished attempt left under the name is removed.
    /// Its names become durable with the first sync round that covers it. Blocks shortly.
    ///
    /// Of a segment that begins at offset 0 with no state nothing is written before the first append, so
    /// that partitions nobody uses cost no files; [`Storage::holds`] says no until then.
    ///
    /// # Errors
    /// [`StorageError::NoSpace`], [`StorageError::Failed`].
    pub fn create(
        self: &Arc<Self>,
        name: SegmentName,
        create: CreateSegment,
    ) -> Result<Arc<Segment>, StorageError> {
        self.check_writable()?;
        if self.holds(&name) {
            self.remove(&name)?;
        }
        let bare = self.bare_start(&name);
        let made = name.base != 0 || !create.snapshot.is_empty();
        if made {
            self.make_files(&name, Some(&self.first_checkpoint(&name, create.snapshot)))?;
        }
        let interval = self.options.index_interval_bytes;
        let start = SegmentStart {
            end: name.base,
            durable_end: name.base,
            bytes: 0,
            sealed: false,
            crc: crc::EMPTY,
            epoch: create.leader_epoch,
            index: Some((IndexBuilder::resume(name.base, interval, bare.marks), Tail::default())),
            made,
            names_durable: false,
            checkpoint_sequence: 0,
            checkpointed: 0,
        };
        Ok(Segment::new(self.clone(), name, start))
    }

    /// Makes a segment's directory, its first checkpoint if it needs one, and its log file, in this
    /// order: a log file that is there has its state beside it.
    pub(crate) fn make_files(
        &self,
        name: &SegmentName,
        first: Option<&Checkpoint>,
    ) -> Result<(), StorageError> {
        let failed = |path: &Path, error: io::Error| {
            if is_full(&error) { self.out_of_space() } else { self.fail("make", path, &error) }
        };
        let _names = self.names.read();
        let disk = &self.env.disk;
        let dir = self.layout.segment(name);
        disk.create_dir_all(&dir).map_err(|error| failed(&dir, error))?;
        if let Some(first) = first {
            let path = self.layout.file(name, SegmentFile::BaseCheckpoint);
            disk.open(&path, OpenMode::ReadWrite)
                .and_then(|file| file.write_all_at(&[IoSlice::new(&first.encode())], 0))
                .map_err(|error| failed(&path, error))?;
        }
        let path = self.layout.file(name, SegmentFile::Log);
        disk.open(&path, OpenMode::ReadWrite).map_err(|error| failed(&path, error))?;
        Ok(())
    }

    /// Makes a segment's first checkpoint and every name on the path to its files durable.
    pub(crate) fn sync_names(&self, name: &SegmentName) -> Result<(), StorageError> {
        let disk = &self.env.disk;
        let path = self.layout.file(name, SegmentFile::BaseCheckpoint);
        let synced = disk.open(&path, OpenMode::Read).and_then(|file| file.sync_data());
        match synced {
            // A segment without state has none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(|error| self.fail("sync", &path, &error))?,
        }
        // A segment that is removed meanwhile needs no names.
        let failed = |path: &Path, error: io::Error| match error.kind() {
            io::ErrorKind::NotFound if !self.holds(name) => Ok(()),
            _ => Err(self.fail("sync", path, &error)),
        };
        let topic_is_durable = self.durable_topics.lock().contains(&name.topic);
        let mut dirs = vec![
            self.layout.segment(name),
            self.layout.partition(&name.topic, name.partition),
            self.layout.topic(&name.topic),
        ];
        if !topic_is_durable {
            dirs.extend([self.layout.topics(), self.layout.root().to_path_buf()]);
        }
        for dir in dirs {
            disk.sync_dir(&dir).or_else(|error| failed(&dir, error))?;
        }
        if !topic_is_durable && self.holds(name) {
            self.durable_topics.lock().insert(name.topic.clone());
        }
        Ok(())
    }

    /// A checkpoint of a segment, if there is one and it is intact.
    pub(crate) fn read_checkpoint(&self, name: &SegmentName, file: SegmentFile) -> Option<Checkpoint> {
        let bytes = self.env.disk.read(&self.layout.file(name, file), CHECKPOINT_BYTES_MAX).ok()?;
        let checkpoint = Checkpoint::decode(&bytes)?;
        ((checkpoint.id, checkpoint.generation) == (name.id, name.generation)).then_some(checkpoint)
    }

    /// A sealed segment. No I/O before the first read.
    pub fn load(self: &Arc<Self>, name: SegmentName, end: Offset, bytes: u64, crc: u32) -> Arc<Segment> {
        let start = SegmentStart {
            end,
            durable_end: end,
            bytes,
            sealed: true,
            crc,
            epoch: LeaderEpoch(-1),
            index: None,
            made: true,
            names_durable: true,
            checkpoint_sequence: 0,
            checkpointed: bytes,
        };
        Segment::new(self.clone(), name, start)
    }

    /// Whether the state below a segment is known from what lies beside it: a snapshot, or that there is nothing
    /// below. Blocks.
    pub fn has_base_state(&self, segment: &Segment) -> bool {
        let first = self.read_checkpoint(&segment.name, SegmentFile::BaseCheckpoint);
        segment.base() == 0 || first.is_some_and(|checkpoint| checkpoint.snapshot.is_some())
    }

    /// What was kept of the state at a segment's base; `None` where it is not known. Blocks.
    pub fn base_snapshot(&self, segment: &Segment) -> Option<Bytes> {
        let first = self.read_checkpoint(&segment.name, SegmentFile::BaseCheckpoint);
        let kept = first.and_then(|checkpoint| checkpoint.snapshot);
        // Below the first offset there is nothing.
        kept.or_else(|| (segment.base() == 0).then(Bytes::new))
    }

    /// Replays a whole segment: the snapshot at its base, then each of its batches. Blocks.
    ///
    /// # Errors
    /// As [`Segment::read`].
    pub fn replay(
        &self,
        segment: &Segment,
        replay: &mut dyn FnMut(Replay<'_>) -> bool,
    ) -> Result<(), StorageError> {
        let first = self.read_checkpoint(&segment.name, SegmentFile::BaseCheckpoint);
        if let Some(snapshot) = first.and_then(|checkpoint| checkpoint.snapshot) {
            replay(Replay::Snapshot(&snapshot));
        }
        let log = segment.log()?;
        let mut scan = HeaderScan::new(&*log, 0, segment.bytes(), segment.base());
        while let Some((_, header)) = scan.next().map_err(|error| segment.scan_error(error))? {
            replay(Replay::Batch(&header));
        }
        Ok(())
    }

    /// Opens the segment that was open when the process ended, cuts a torn tail and replays what came
    /// after the newest usable checkpoint. `epochs` are the leader epochs of its range and where each
    /// begins; none stands for any. Its whole content is durable when this returns. Blocks.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] for damage that is no torn tail: the file is left as it is.
    /// [`StorageError::NotHere`] when nothing of it survived: create it anew.
    pub fn recover(
        self: &Arc<Self>,
        name: SegmentName,
        epochs: &[(LeaderEpoch, Offset)],
        replay: &mut dyn FnMut(Replay<'_>) -> bool,
    ) -> Result<Recovered, StorageError> {
        let path = self.layout.file(&name, SegmentFile::Log);
        let not_here = || StorageError::NotHere { path: path.as_path().into() };
        let log = self.env.disk.open(&path, OpenMode::Existing);
        let log = log.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => not_here(),
            _ => StorageError::io("open", &path, error),
        })?;
        let length = log.len().map_err(|error| StorageError::io("measure", &path, error))?;
        let found = self.starting_points(&name, &path, length)?;
        let has_base = found.has_base;
        let taken = found.points.into_iter().find(|point| {
            let snapshot = point.snapshot.as_deref().unwrap_or_default();
            replay(Replay::Snapshot(snapshot))
        });
        let snapshot_missing = taken.is_none();
        let start = taken.unwrap_or_else(|| self.bare_start(&name));
        let interval = self.options.index_interval_bytes;
        let mut builder = IndexBuilder::resume(name.base, interval, start.marks);
        let mut tail = Tail { flushed: start.counts, ..Tail::default() };
        let (mut end, mut bytes, mut crc) = (start.offset, start.position, start.crc);
        let power_lost = !self.former_life.clean && !self.same_boot();
        let rules = TailRules { position: bytes, offset: end, length, epochs, power_lost };
        let tail_end = scan_tail(&*log, rules, &mut |position, batch| {
            builder.add(batch.header(), position, &mut tail);
            crc = crc::extend(crc, batch.bytes());
            bytes = position + batch.total_size() as u64;
            end = batch.next_offset();
            replay(Replay::Batch(batch.header()));
        })
        .map_err(|error| StorageError::io("read", &path, error))?;
        if let TailEnd::Damaged { position, reason } = tail_end {
            return Err(StorageError::damaged_tail(&path, position, &reason));
        }
        if !has_base && end == name.base {
            return Err(not_here());
        }
        if bytes < length {
            self.cut_off(&path, &*log, bytes..length)?;
        }
        let segment = SegmentStart {
            end,
            durable_end: end,
            bytes,
            sealed: false,
            crc,
            epoch: epochs.last().map_or(LeaderEpoch(-1), |(epoch, _)| *epoch),
            index: Some((builder, tail)),
            made: true,
            names_durable: true,
            checkpoint_sequence: found.next_sequence,
            checkpointed: start.position,
        };
        let segment = Segment::new(self.clone(), name, segment);
        if self.cache_lies {
            let from = if start.durable { start.position } else { 0 };
            self.write_anew(&segment, &*log, from..bytes)?;
        }
        Ok(Recovered {
            segment,
            torn_bytes: length - bytes,
            scanned_bytes: length - start.position,
            snapshot_missing,
        })
    }

    /// Cuts an unfinished write off the end of a log.
    fn cut_off(&self, path: &Path, log: &dyn File, torn: Range<u64>) -> Result<(), StorageError> {
        tracing::info!(path = %path.display(), from = torn.start, to = torn.end, "cutting off an unfinished write");
        // Synced, or the torn bytes could come back in the midst of what is appended next.
        let cut = log.set_len(torn.start).and_then(|()| log.sync_data());
        cut.map_err(|error| self.fail("cut", path, &error))
    }

    /// Writes what the cache shows of a segment, so that a sync has something to write again.
    fn write_anew(&self, segment: &Segment, log: &dyn File, range: Range<u64>) -> Result<(), StorageError> {
        let name = &segment.name;
        let anew = |path: &Path, file: &dyn File, range: Range<u64>| {
            scan::write_anew(file, range)
                .and_then(|()| file.sync_data())
                .map_err(|error| self.fail("write again", path, &error))
        };
        anew(&self.layout.file(name, SegmentFile::Log), log, range)?;
        let path = self.layout.file(name, SegmentFile::BaseCheckpoint);
        match self.env.disk.open(&path, OpenMode::Existing) {
            Ok(first) => {
                let length = first.len().map_err(|error| StorageError::io("measure", &path, error))?;
                anew(&path, &*first, 0..length)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StorageError::io("open", &path, error)),
        }
        self.sync_names(name)
    }

    /// Where recovery may begin, the best first.
    fn starting_points(&self, name: &SegmentName, log: &Path, length: u64) -> Result<Found, StorageError> {
        let slots = [SegmentFile::EvenCheckpoint, SegmentFile::OddCheckpoint];
        let trusted = |point: &Checkpoint| {
            self.former_life.clean || point.durable || (point.boot == self.boot && !self.cache_lies)
        };
        let mut points = Vec::with_capacity(3);
        let mut next_sequence = 0;
        for (slot, file) in slots.into_iter().enumerate() {
            let Some(point) = self.read_checkpoint(name, file) else { continue };
            if !trusted(&point) {
                // Or a later life would trust it after a clean shutdown.
                let path = self.layout.file(name, file);
                self.env.disk.remove_file(&path).map_err(|error| self.fail("remove", &path, &error))?;
                continue;
            }
            if points.iter().all(|other: &Checkpoint| other.offset < point.offset) {
                // The older of the two is overwritten next.
                next_sequence = 1 - slot as u64;
            }
            points.push(point);
        }
        points.retain(|point| point.snapshot.is_some() && point.offset >= name.base);
        points.sort_by_key(|point| std::cmp::Reverse(point.offset));
        if let Some(best) = points.first().filter(|best| best.position > length) {
            let reason = format!("the file has {length} bytes, {} were written", best.position);
            return Err(StorageError::corrupt(log, length, reason));
        }
        let mut first = self.read_checkpoint(name, SegmentFile::BaseCheckpoint);
        let path = self.layout.file(name, SegmentFile::BaseCheckpoint);
        if first.is_none() && name.base == 0 && !self.env.disk.exists(&path) {
            // Below offset 0 there is nothing a state could come from.
            first = Some(Checkpoint { snapshot: Some(Bytes::new()), ..self.bare_start(name) });
        }
        let has_base = first.is_some();
        points.extend(first);
        Ok(Found { points, has_base, next_sequence })
    }

    /// The start of a segment about which nothing else is known.
    /// What is noted of the state at a segment's base.
    pub(crate) fn first_checkpoint(&self, name: &SegmentName, snapshot: Bytes) -> Checkpoint {
        Checkpoint { snapshot: Some(snapshot), boot: self.boot.clone(), ..self.bare_start(name) }
    }

    pub(crate) fn bare_start(&self, name: &SegmentName) -> Checkpoint {
        let builder = IndexBuilder::new(name.base, self.options.index_interval_bytes);
        Checkpoint {
            id: name.id,
            generation: name.generation,
            offset: name.base,
            position: 0,
            crc: crc::EMPTY,
            durable: true,
            boot: String::new(),
            counts: IndexCounts::default(),
            marks: builder.marks(),
            snapshot: None,
        }
    }

    /// Writes pending checkpoints, makes everything durable and notes that the life ended cleanly, so
    /// that the next one scans nothing. The caller has taken a checkpoint of every open segment and
    /// appends no more. Blocks.
    ///
    /// # Errors
    /// [`StorageError::Failed`]; then the next life recovers as after a crash.
    pub fn shutdown_clean(&self) -> Result<(), StorageError> {
        self.check_open()?;
        self.closed.store(true, Ordering::Release);
        let listed = std::mem::take(&mut *self.checkpoints.lock());
        for segment in listed.iter().filter_map(Weak::upgrade) {
            segment.write_pending(true);
        }
        self.check_open()?;
        let root = self.layout.root();
        self.env.disk.sync_all(root).map_err(|error| self.fail("sync", root, &error))?;
        let life = Life { boot: self.boot.clone(), clean: true, failed: false, doubt: *self.doubt.lock() };
        format::write_life(&self.env, &self.layout, &life).map_err(|error| self.fail_with(&error))
    }

    /// True after [`Storage::shutdown_clean`] began.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Removes everything of a partition whose topic is gone for good.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn remove_partition(
        self: &Arc<Self>,
        topic: &str,
        partition: TopicPartition,
    ) -> Result<(), StorageError> {
        self.discard(&self.layout.partition(topic, partition))?;
        self.remove_empty_topic(topic);
        Ok(())
    }

    /// Removes a segment: gone from its place at once, its space freed behind. Reads that run finish.
    ///
    /// # Errors
    /// [`StorageError::Io`]; the segment stays then.
    pub fn remove(self: &Arc<Self>, name: &SegmentName) -> Result<(), StorageError> {
        self.discard(&self.layout.segment(name))
    }
}

/// Where recovery may begin.
struct Found {
    /// Best first; the base, if it is known, last.
    points: Vec<Checkpoint>,
    has_base: bool,
    /// Number for the next checkpoint.
    next_sequence: u64,
}
