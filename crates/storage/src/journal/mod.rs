//! The sync journal: one file in which a sync round of many small appends becomes durable with one sync.
//!
//! ```text
//! round: unsynced ranges of the segments ─► blocks in the half in use ─► one sync ─► durable ends move
//! half full: use the other one; meanwhile sync the segments whose ranges are in this one ─► it is free again
//! power cut: apply both halves to the segment files, sync all, forget them ─► recovery as ever
//! ```
//!
//! Invariants:
//! - whatever a segment counts as durable is in its file, synced, or in a half that is not free;
//! - a half is overwritten only after every segment with a range in it was synced;
//! - ranges are of bytes that never change again, so applying one twice, or after the segment was synced,
//!   changes nothing. Whoever cuts back a log below its durable end must sync the halves first;
//! - the file has its full size and its blocks before it is used: writing to it needs neither room nor
//!   changes to the file system's own structures.
//!
//! A round the journal cannot take (no half is free, not made yet, too large) goes the other ways of `sync.rs`. An
//! error while writing or syncing it fails the storage, as that of any file does.

mod apply;
mod block;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::env::{Env, File, OpenMode, Space};
use parking_lot::Mutex;

use crate::error::StorageError;
use crate::layout::{SegmentFile, SegmentName};
use crate::segment::{Segment, is_full};
use crate::storage::Storage;
use crate::sync::{Item, PARALLEL_SYNCS, SyncLoad, SyncPlan, sync_plan};
use block::{ALIGNMENT, BlockBuilder, Stamp, Target, entry_bytes};

pub(crate) use apply::{apply, reset};

/// Smallest half, bytes; with less room on the disk there is no journal.
const HALF_BYTES_MIN: u64 = 16 << 10;
/// At most this share of the disk: 1 part in so many.
const DISK_SHARE: u64 = 100;
/// Bytes written at once while the file is made.
const PREPARE_CHUNK_BYTES: usize = 1 << 20;
/// Time after which making the file is tried again when there was no room.
const PREPARE_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Checkpoints at the base that are larger go their own way, bytes.
const SNAPSHOT_BYTES_MAX: usize = 64 << 10;

/// Size of each half, bytes; 0 for no journal.
pub(crate) fn half_bytes(wanted: u64, space: Space) -> u64 {
    let half = wanted.min(space.total / DISK_SHARE) / 2;
    let half = half - half % ALIGNMENT as u64;
    if half < HALF_BYTES_MIN { 0 } else { half }
}

/// The journal of one storage.
pub(crate) struct SyncJournal {
    state: Mutex<State>,
    /// Size of each half, bytes; 0 for no journal.
    half_bytes: u64,
    /// Segments of the half that is not in use, until they are synced.
    behind: Mutex<Behind>,
    /// Files it took, or would have taken.
    wanted: AtomicU64,
}

enum State {
    /// There is no file; making one may be tried from this time on.
    Absent {
        from: Duration,
    },
    /// It is being made, or a round writes to it.
    Busy,
    Ready(Box<Writer>),
}

/// A segment with ranges in a half. Others may let go of it before its file is synced.
#[derive(Clone)]
struct Journaled {
    name: SegmentName,
    segment: Weak<Segment>,
}

/// The segments of a half that is to be free again.
#[derive(Default)]
struct Behind {
    /// Those whose syncing has not begun.
    waiting: Vec<Journaled>,
    /// How many there were.
    total: usize,
    /// How many may go on waiting for now.
    keep: usize,
    /// Jobs that sync some now.
    running: usize,
    /// So many waited when housekeeping looked; `None` before it did.
    seen: Option<usize>,
}

impl Behind {
    fn of(segments: Vec<Journaled>) -> Behind {
        let total = segments.len();
        Behind { waiting: segments, total, keep: total, ..Behind::default() }
    }

    /// Whether all are synced.
    fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.running == 0
    }

    /// The next one to be synced; `None` for a job that ends.
    fn next(&mut self) -> Option<Journaled> {
        let next = (self.waiting.len() > self.keep).then(|| self.waiting.pop()).flatten();
        self.running -= usize::from(next.is_none());
        next
    }

    /// A job ends with what it did not sync.
    fn give_up(&mut self, left: impl IntoIterator<Item = Journaled>) {
        self.waiting.extend(left);
        self.running -= 1;
    }
}

/// How many of so many segments may still wait when so much of the half in use is filled: all are begun when it is filled
/// by four fifths, so that its other fifth is left for syncs that take long. Pure.
fn may_wait(total: usize, used: u64, half_bytes: u64) -> usize {
    let due = (used as f64 * 1.25 / half_bytes as f64).clamp(0.0, 1.0);
    total - (total as f64 * due) as usize
}

/// What only the round that runs touches.
pub(crate) struct Writer {
    file: Arc<dyn File>,
    stamp: Stamp,
    /// Which half is in use, and how many bytes of it.
    half: u64,
    used: u64,
    /// Segments with ranges in it.
    segments: Vec<Journaled>,
    /// Count of halves begun: tells each segment whether it is in the list.
    cycle: u64,
    block: BlockBuilder,
}

impl SyncJournal {
    /// A journal whose file is there ([`Writer::begin`]), or is yet to be made.
    pub(crate) fn new(half_bytes: u64, writer: Option<Writer>) -> SyncJournal {
        let state = match writer {
            Some(writer) => State::Ready(Box::new(writer)),
            None => State::Absent { from: Duration::ZERO },
        };
        SyncJournal {
            state: Mutex::new(state),
            half_bytes,
            behind: Mutex::default(),
            wanted: AtomicU64::new(0),
        }
    }

    /// Bytes of entries one round may write: a part of a half, so that blocks' edges have room.
    pub(crate) fn room(&self) -> u64 {
        match &*self.state.lock() {
            State::Ready(_) => self.half_bytes / 4,
            State::Absent { .. } | State::Busy => 0,
        }
    }

    fn take(&self) -> Option<Box<Writer>> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Busy) {
            State::Ready(writer) => Some(writer),
            other => {
                *state = other;
                None
            }
        }
    }

    fn put(&self, state: State) {
        *self.state.lock() = state;
    }
}

impl Writer {
    /// Makes a file of the right size that of a new life, durably: what it holds is void. Blocks.
    fn begin(file: Arc<dyn File>, half_bytes: u64, env: &Env) -> io::Result<Writer> {
        let mut block = BlockBuilder::default();
        let stamp = Stamp { life: env.random.next_u64(), sequence: 0, round: 0 };
        for half in [0, half_bytes] {
            file.write_all_at(&[IoSlice::new(block.finish(stamp))], half)?;
            block.clear();
        }
        file.sync_data()?;
        let stamp = Stamp { sequence: 1, ..stamp };
        Ok(Writer { file, stamp, half: 0, used: ALIGNMENT as u64, segments: Vec::new(), cycle: 1, block })
    }

    /// Writes the block in the making and begins the next; `None` when the half has no room for it.
    fn write(&mut self, half_bytes: u64) -> io::Result<Option<u64>> {
        let bytes = self.block.finish(self.stamp);
        let size = bytes.len() as u64;
        let fits = self.used + size <= half_bytes;
        if fits {
            self.file.write_all_at(&[IoSlice::new(bytes)], self.half * half_bytes + self.used)?;
            self.used += size;
            self.stamp.sequence += 1;
        }
        self.block.clear();
        Ok(fits.then_some(size))
    }
}

/// A round on its way into the journal.
#[derive(Default)]
struct JournalRound {
    /// Which items are in blocks that were written.
    taken: Vec<bool>,
    /// Items of the block in the making.
    in_block: Vec<usize>,
    /// Bytes of the blocks written.
    written: u64,
}

impl JournalRound {
    /// Writes the block in the making; false when there was no room for it.
    fn write(&mut self, writer: &mut Writer, half_bytes: u64) -> io::Result<bool> {
        if writer.block.is_empty() {
            return Ok(true);
        }
        let written = writer.write(half_bytes)?;
        for index in self.in_block.drain(..) {
            self.taken[index] = written.is_some();
        }
        self.written += written.unwrap_or_default();
        Ok(written.is_some())
    }
}

/// What is to be written for one item.
struct Entries<'a> {
    item: &'a Item,
    log: Arc<dyn File>,
    /// The checkpoint at the base; empty for none.
    checkpoint: Vec<u8>,
    /// What they take in a block.
    bytes: usize,
}

impl Entries<'_> {
    /// Adds them to a block; false when the log cannot be read, of which the other way tells.
    fn add(&self, block: &mut BlockBuilder) -> bool {
        let Item { segment, from, .. } = self.item;
        let read = |out: &mut [u8]| self.log.read_exact_at(out, *from);
        if block.add(&segment.name, Target::Log, *from, self.item.length() as usize, read).is_err() {
            return false;
        }
        if !self.checkpoint.is_empty() {
            let copy = |out: &mut [u8]| -> io::Result<()> {
                out.copy_from_slice(&self.checkpoint);
                Ok(())
            };
            return block.add(&segment.name, Target::BaseCheckpoint, 0, self.checkpoint.len(), copy).is_ok();
        }
        true
    }
}

impl Storage {
    /// Makes the ranges of a round durable in the journal and returns the items it did not take. After an error
    /// those are all, and the storage has failed or the journal is given up. Blocks.
    pub(crate) fn sync_to_journal(self: &Arc<Self>, items: Vec<Item>) -> Vec<Item> {
        let Some(mut writer) = self.journal.take() else { return items };
        let bytes: usize =
            items.iter().map(|item| entry_bytes(&item.segment.name, item.length() as usize)).sum();
        if !self.make_room(&mut writer, (bytes + 2 * ALIGNMENT) as u64) {
            self.journal.put(State::Ready(writer));
            return items;
        }
        let mut round = JournalRound { taken: vec![false; items.len()], ..JournalRound::default() };
        if let Err(error) = self.write_round(&mut writer, &items, &mut round) {
            // Without the writer the journal is not used again in this life: what it holds stays there.
            if is_full(&error) {
                self.out_of_space();
            } else {
                self.fail("write", &self.layout.journal(), &error);
            }
            return items;
        }
        let mut left = Vec::new();
        for (item, taken) in items.into_iter().zip(round.taken) {
            if !taken {
                left.push(item);
                continue;
            }
            if item.segment.journal_cycle.swap(writer.cycle, Ordering::AcqRel) != writer.cycle {
                let segment = Arc::downgrade(&item.segment);
                writer.segments.push(Journaled { name: item.segment.name.clone(), segment });
            }
            item.cover();
        }
        let used = writer.used;
        self.journal.put(State::Ready(writer));
        self.sync_behind(used);
        left
    }

    /// Goes to the other half if this one has not so much room; false when that is not free.
    fn make_room(self: &Arc<Self>, writer: &mut Writer, bytes: u64) -> bool {
        if writer.used + bytes <= self.journal.half_bytes {
            return true;
        }
        let mut behind = self.journal.behind.lock();
        if !behind.is_done() {
            drop(behind);
            self.sync_rest();
            return false;
        }
        *behind = Behind::of(std::mem::take(&mut writer.segments));
        drop(behind);
        writer.half = 1 - writer.half;
        writer.used = ALIGNMENT as u64;
        writer.cycle += 1;
        true
    }

    /// Syncs the segments of the other half, as many as are due when so much of this one is used. All at once, or the file
    /// system as a whole, would be thousands of small writes, and the next round would wait behind them.
    fn sync_behind(self: &Arc<Self>, used: u64) {
        if self.check_open().is_err() {
            return;
        }
        let jobs = {
            let mut behind = self.journal.behind.lock();
            behind.keep = behind.keep.min(may_wait(behind.total, used, self.journal.half_bytes));
            let due = behind.waiting.len().saturating_sub(behind.keep);
            let jobs = due.min(PARALLEL_SYNCS).saturating_sub(behind.running);
            behind.running += jobs;
            jobs
        };
        for _ in 0..jobs {
            let storage = self.clone();
            self.env.workers.run(Box::new(move || storage.work_behind()));
        }
    }

    fn work_behind(self: &Arc<Self>) {
        loop {
            let Some(next) = self.journal.behind.lock().next() else { return };
            // A failure was told to everybody; without a handle, the next round or housekeeping tries again.
            if self.check_open().and_then(|()| self.sync_journaled(&next)).is_err() {
                return self.journal.behind.lock().give_up([next]);
            }
        }
    }

    fn sync_journaled(self: &Arc<Self>, journaled: &Journaled) -> Result<(), StorageError> {
        match journaled.segment.upgrade() {
            Some(segment) => self.sync_segment(&segment),
            None => self.sync_files(&journaled.name),
        }
    }

    /// Syncs the segments of the other half although this one does not fill up.
    pub(crate) fn sync_behind_at_rest(self: &Arc<Self>) {
        let is_at_rest = {
            let mut behind = self.journal.behind.lock();
            let waiting = behind.waiting.len();
            behind.seen.replace(waiting) == Some(waiting)
        };
        if is_at_rest {
            self.sync_behind(self.journal.half_bytes);
        }
    }

    /// Syncs what is left of the other half at once, because this one is full.
    fn sync_rest(self: &Arc<Self>) {
        let rest = {
            let mut behind = self.journal.behind.lock();
            let load = SyncLoad { syncs: behind.waiting.len(), ..SyncLoad::default() };
            let together = sync_plan(load) == SyncPlan::All;
            behind.running += usize::from(together);
            together.then(|| std::mem::take(&mut behind.waiting))
        };
        let Some(rest) = rest else { return self.sync_behind(self.journal.half_bytes) };
        let storage = self.clone();
        self.env.workers.run(Box::new(move || {
            let root = storage.layout.root();
            let synced =
                |()| storage.env.disk.sync_all(root).map_err(|error| storage.fail("sync", root, &error));
            let synced = storage.check_open().and_then(synced).and_then(|()| storage.check_open());
            let left = match synced {
                Ok(()) => {
                    for segment in rest.iter().filter_map(|journaled| journaled.segment.upgrade()) {
                        segment.names_durable.store(true, Ordering::Release);
                    }
                    Vec::new()
                }
                Err(_) => rest,
            };
            storage.journal.behind.lock().give_up(left);
        }));
    }

    fn write_round(&self, writer: &mut Writer, items: &[Item], round: &mut JournalRound) -> io::Result<()> {
        writer.stamp.round = writer.stamp.sequence;
        for (index, item) in items.iter().enumerate() {
            let Some(entries) = self.entries_of(item) else { continue };
            if !writer.block.has_room(entries.bytes) && !round.write(writer, self.journal.half_bytes)? {
                break;
            }
            if entries.add(&mut writer.block) {
                round.in_block.push(index);
            }
        }
        round.write(writer, self.journal.half_bytes)?;
        if round.written > 0 {
            writer.file.sync_data()?;
            let metrics = &self.options.metrics;
            metrics.sync_journal_rounds.inc();
            metrics.sync_journal_bytes.inc_by(round.written);
        }
        Ok(())
    }

    /// What has to be written for an item; `None` when that is not for the journal.
    fn entries_of<'a>(&self, item: &'a Item) -> Option<Entries<'a>> {
        let segment = &item.segment;
        // Nothing to write, but names to sync, or something to tell.
        if item.length() == 0 {
            return None;
        }
        let log = segment.log().ok()?;
        let is_new = item.from == 0 && !segment.names_durable.load(Ordering::Acquire);
        let checkpoint = if is_new { self.base_checkpoint(segment)? } else { Vec::new() };
        let name = &segment.name;
        let bytes = entry_bytes(name, item.length() as usize) + entry_bytes(name, checkpoint.len());
        Some(Entries { item, log, checkpoint, bytes })
    }

    /// The checkpoint at the base of a segment, nothing if it has none, `None` if it is too large for the journal.
    fn base_checkpoint(&self, segment: &Segment) -> Option<Vec<u8>> {
        let path = segment.path(SegmentFile::BaseCheckpoint);
        match self.env.disk.read(&path, SNAPSHOT_BYTES_MAX) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Vec::new()),
            // What is wrong with it the other way tells.
            Err(_) => None,
        }
    }

    /// Syncs a segment nobody has in hand, with its names.
    fn sync_files(&self, name: &SegmentName) -> Result<(), StorageError> {
        let path = self.layout.file(name, SegmentFile::Log);
        let synced = self.env.disk.open(&path, OpenMode::Existing).and_then(|log| log.sync_data());
        match synced {
            // Removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result.map_err(|error| self.fail("sync", &path, &error))?,
        }
        self.sync_names(name)
    }

    /// Counts files that the journal would have taken, and begins to make it when they are many, unless it is there
    /// or was tried a short while ago. Never blocks.
    pub(crate) fn prepare_journal(self: &Arc<Self>, files: usize) {
        let wanted = self.journal.wanted.fetch_add(files as u64, Ordering::Relaxed) + files as u64;
        if self.journal.half_bytes == 0 || wanted < self.options.sync_journal_after_files || !self.is_roomy()
        {
            return;
        }
        let now = self.env.clock.now();
        {
            let mut state = self.journal.state.lock();
            if !matches!(&*state, State::Absent { from } if *from <= now) {
                return;
            }
            *state = State::Busy;
        }
        // Held weakly: to make the file takes longer than others may want to wait for the directory's lock.
        let (storage, env) = (Arc::downgrade(self), self.env.clone());
        let dir = self.layout.unfinished_journal(env.random.next_u64());
        let half_bytes = self.journal.half_bytes;
        self.env.workers.run(Box::new(move || {
            let path = dir.join("file");
            let is_wanted = || storage.upgrade().is_some_and(|storage| !storage.is_closed());
            let made = make_file(&env, &path, half_bytes, is_wanted);
            let Some(storage) = storage.upgrade().filter(|storage| !storage.is_closed()) else { return };
            let named = made.and_then(|writer| {
                env.disk.rename(&path, &storage.layout.journal())?;
                env.disk.sync_dir(storage.layout.root())?;
                Ok(writer)
            });
            // If it stays, the next start removes it.
            let _ = env.disk.remove_dir_all(&dir);
            storage.journal.put(match named {
                Ok(writer) => State::Ready(Box::new(writer)),
                Err(error) => {
                    if !is_full(&error) {
                        storage.fail("make", &path, &error);
                    }
                    State::Absent { from: env.clock.now() + PREPARE_AGAIN_AFTER }
                }
            });
        }));
    }
}

/// Makes the file with all its blocks: space that is reserved only would be recorded as written with each sync.
fn make_file(env: &Env, path: &Path, half_bytes: u64, is_wanted: impl Fn() -> bool) -> io::Result<Writer> {
    let length = 2 * half_bytes;
    if let Some(dir) = path.parent() {
        env.disk.create_dir_all(dir)?;
    }
    let file = env.disk.open(path, OpenMode::CreateNew)?;
    file.allocate(0, length)?;
    let zeros = vec![0; PREPARE_CHUNK_BYTES];
    let mut position = 0;
    while position < length {
        if !is_wanted() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let chunk = (length - position).min(PREPARE_CHUNK_BYTES as u64) as usize;
        file.write_all_at(&[IoSlice::new(&zeros[..chunk])], position)?;
        // All at once would hold up for some 200 ms whoever syncs to the same disk meanwhile.
        file.sync_data()?;
        position += chunk as u64;
    }
    Writer::begin(file, half_bytes, env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_behind_are_begun_as_the_half_in_use_fills() {
        let waiting = |used| may_wait(1_000, used, 100_000);
        assert_eq!([0, 40_000, 80_000, 100_000].map(waiting), [1_000, 500, 0, 0]);
        assert_eq!(may_wait(0, 50, 100), 0);
        assert_eq!(may_wait(3, 10, 100), 3);
    }

    #[test]
    fn a_journal_takes_little_of_a_disk() {
        let half = |wanted, total| half_bytes(wanted, Space { total, available: total });
        assert_eq!(half(128 << 20, 1 << 40), 64 << 20);
        assert_eq!(half(128 << 20, 1 << 30), (1u64 << 30) / 200 / 4096 * 4096);
        assert_eq!(half(0, 1 << 40), 0);
        assert_eq!(half(128 << 20, 1 << 20), 0);
    }
}
