//! One partition's log on its leader: a chain of segments of which the last takes appends.
//!
//! ```text
//!   log start                         high watermark   log end offset
//!       │   ┌───────────┬──────────────────┬──┴──────────┴┐
//!       └──►│  sealed   │      sealed      │     open     │
//!           └───────────┴──────────────────┴──────────────┘
//! ```
//!
//! Invariants:
//! - the tail has one owner at a time ([`TailGuard`]); offsets are given in the order of ownership;
//! - this life of the broker appends only to segments it opened itself: the segment an earlier life
//!   left open is sealed at its end before the first append (replication.md 2.6, 2.20);
//! - the high watermark never falls and never passes what every member of the ensemble holds durably
//!   (class *fsync*) or has written (class *page-cache*);
//! - the chain the readers see is always one the metadata store has had; it never goes back.
//!
//! Edits of the chain are made one at a time; while one that replaces the open segment is in flight,
//! appends wait for it. What it does not do: decide when (that is [`crate::keeper`]), know what a
//! record means (the state derived from records is a parameter), talk to other nodes yet.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use base::batch::BatchHeader;
use base::chain::{Member, PartitionState, SegmentEntry, SegmentState};
use base::config::TopicSettings;
use base::env::{Env, FileRange};
use base::ids::{
    BrokerId, Generation, Incarnation, LeaderEpoch, Offset, SegmentId, StorageId, TimestampMs, TopicPartition,
};
use bytes::Bytes;
use parking_lot::Mutex;
use storage::{
    CreateSegment, LiveProducer, Patience, Recovered, Replay, Segment, SegmentName, Storage, StorageError,
};

use crate::chain_store::{ChainStore, ChainStoreError};
use crate::commit::{CommitError, CommitPoint, Committed, ReadWaiter};
use crate::compaction::Horizons;
use crate::led::Led;
use crate::peers::Peers;
use crate::tail::{Tail, TailGuard, TailState, Writable};

/// What the layer above derives from the records of a log and needs back after a restart: producer
/// state. Kept as an opaque snapshot beside each segment.
pub trait Derived: Send + 'static {
    /// Takes over a snapshot; false when the bytes are not one.
    fn restore(&mut self, snapshot: &[u8]) -> bool;
    /// Accounts for a batch that is in the log already.
    fn replay(&mut self, batch: &BatchHeader);
    /// The state as bytes; empty for none.
    fn snapshot(&self) -> Bytes;
    /// Producers, by id, whose last batch compaction must leave, empty if need be.
    fn live_producers(&self) -> HashMap<i64, LiveProducer>;
}

/// Nothing derived.
impl Derived for () {
    fn restore(&mut self, _: &[u8]) -> bool {
        true
    }
    fn replay(&mut self, _: &BatchHeader) {}
    fn snapshot(&self) -> Bytes {
        Bytes::new()
    }
    fn live_producers(&self) -> HashMap<i64, LiveProducer> {
        HashMap::new()
    }
}

/// Why a log takes no append now.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The storage that holds the tail failed or is full.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The next segment could not be opened.
    #[error("the next segment cannot be opened: {0}")]
    Chain(ChainStoreError),
    /// Too few brokers can hold the next segment.
    #[error("{have} brokers can hold the next segment, {need} must (min.insync.replicas)")]
    TooFewMembers {
        /// How many there are.
        have: usize,
        /// How many it takes.
        need: usize,
    },
    /// What was appended will not be known to be committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The log was closed: its topic was deleted or the broker shuts down.
    #[error("the log was closed")]
    Closed,
}

/// Why a log cannot be read there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is before the log start or beyond the log end.
    #[error("offset {asked} is outside [{log_start}, {log_end}]")]
    OutOfRange {
        /// Offset asked for.
        asked: Offset,
        /// First offset there is.
        log_start: Offset,
        /// Log end offset.
        log_end: Offset,
    },
    /// The bytes cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What a log is made of.
pub struct LogSpec {
    /// The world.
    pub env: Env,
    /// Whose log it is.
    pub partition: TopicPartition,
    /// Name of the topic; part of the path of its files.
    pub topic: Arc<str>,
    /// This broker.
    pub broker: BrokerId,
    /// Its present life.
    pub incarnation: Incarnation,
    /// Every storage of this broker.
    pub storages: Arc<Vec<Arc<Storage>>>,
    /// Where the chain lives.
    pub store: Arc<dyn ChainStore>,
    /// The topic's settings.
    pub settings: Arc<TopicSettings>,
    /// The other brokers; `None` for one that has none and needs none.
    pub peers: Option<Arc<Peers>>,
}

/// A segment and the storage that holds it.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) segment: Arc<Segment>,
    pub(crate) storage: Arc<Storage>,
}

impl Deref for Held {
    type Target = Segment;

    fn deref(&self) -> &Segment {
        &self.segment
    }
}

impl Held {
    pub(crate) fn same(&self, other: &Held) -> bool {
        Arc::ptr_eq(&self.segment, &other.segment)
    }

    pub(crate) fn request_sync(&self) {
        self.storage.request_sync(&self.segment);
    }
}

/// The chain as readers see it: `segments[k]` holds the bytes of `state.chain[k]`.
pub(crate) struct View {
    pub(crate) state: Arc<PartitionState>,
    pub(crate) segments: Vec<Held>,
}

/// A partition's log. See the module's head.
pub struct Log<S> {
    pub(crate) spec: LogSpec,
    pub(crate) tail: Mutex<Tail<S>>,
    pub(crate) view: ArcSwap<View>,
    pub(crate) commit: Arc<CommitPoint>,
    settings: ArcSwap<TopicSettings>,
    /// Held while the chain is edited.
    pub(crate) edits: tokio::sync::Mutex<()>,
    /// Whether a roll is under way, so that one is asked for once.
    pub(crate) rolling: AtomicBool,
    /// Brokers that the next segment has as members only where it takes them.
    pub(crate) avoided: Mutex<Vec<BrokerId>>,
    /// Held by the one pass of compaction that may run.
    pub(crate) compacting: tokio::sync::Mutex<()>,
    pub(crate) horizons: Mutex<Horizons>,
}

impl LogSpec {
    pub(crate) fn storage_of(
        &self,
        ids: impl Iterator<Item = StorageId>,
    ) -> Result<Arc<Storage>, StorageError> {
        let mut asked = Vec::new();
        for id in ids {
            if let Some(storage) = self.storages.iter().find(|storage| storage.id() == id) {
                return Ok(storage.clone());
            }
            asked.push(id);
        }
        Err(StorageError::Missing(asked))
    }

    /// This life as a member of an ensemble, with one of its storages.
    pub(crate) fn member_on(&self, storage: &Storage) -> Member {
        Member { broker: self.broker, storage: storage.id(), incarnation: self.incarnation }
    }

    pub(crate) fn segment_name(&self, entry: &SegmentEntry) -> SegmentName {
        SegmentName {
            topic: self.topic.clone(),
            partition: self.partition,
            id: entry.id,
            generation: entry.generation,
            base: entry.base,
        }
    }

    /// The open segment's file: recovered, or made anew when the crash came between the edit of the
    /// chain and the making of the file (then nothing can have been acknowledged from it). `before` are the
    /// segments below it: the state comes from them when a power cut took what was kept of it at the base.
    fn open_tail<S: Derived>(
        &self,
        storage: &Arc<Storage>,
        entry: &SegmentEntry,
        before: &[Held],
        derived: &mut S,
    ) -> Result<Arc<Segment>, StorageError> {
        let name = self.segment_name(entry);
        if storage.holds(&name) {
            let recovered =
                storage.recover(name.clone(), &entry.epochs, &mut |event| replay_into(derived, event));
            match recovered {
                Ok(recovered) => {
                    if recovered.snapshot_missing {
                        derive(before, derived)?;
                        storage.replay(&recovered.segment, &mut |event| replay_into(derived, event))?;
                    }
                    return Ok(self.report(recovered));
                }
                Err(StorageError::NotHere { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        derive(before, derived)?;
        let snapshot = derived.snapshot();
        storage.create(name, CreateSegment { leader_epoch: entry.last_epoch(), snapshot })
    }

    /// The log ends before its own start: going on would give offsets that nobody could read.
    fn shortened(&self, dir: &Path, log_start: Offset, end: Offset) -> StorageError {
        StorageError::Unusable {
            path: dir.to_owned(),
            reason: format!(
                "partition {} of topic {} begins at offset {log_start}, but its files end at {end}: bring back those \
                 that are missing, or delete the topic",
                self.partition.partition.0, self.topic
            ),
        }
    }

    /// What is committed of a log that ends at `end`, and what commits more of it.
    fn begin_to_lead<S: Derived>(
        &self,
        state: &PartitionState,
        writable: &Writable,
        end: Offset,
        derived: &S,
    ) -> (Arc<CommitPoint>, Option<Arc<Led>>) {
        let (Writable::Yes(open) | Writable::AfterEdit(open)) = writable else {
            return (Arc::new(CommitPoint::new(end)), None);
        };
        let is_shared =
            matches!(writable, Writable::Yes(_)) && state.open_members() > 1 && self.peers.is_some();
        if is_shared {
            // Other members may hold less; all of them hold what is sealed.
            let commit = Arc::new(CommitPoint::new(state.last().base));
            let led = Led::begin(self, state, open, &commit, &derived.snapshot());
            return (commit, led);
        }
        let commit = Arc::new(CommitPoint::new(end));
        open.set_listener(commit.clone());
        (commit, None)
    }

    fn report(&self, recovered: Recovered) -> Arc<Segment> {
        if recovered.torn_bytes > 0 {
            tracing::warn!(
                topic = &*self.topic,
                partition = self.partition.partition.0,
                end = recovered.segment.end(),
                torn_bytes = recovered.torn_bytes,
                "an unfinished write was cut off the log's end; nothing acknowledged was in it"
            );
        }
        recovered.segment
    }
}

/// Derives the state at the end of `segments` anew, from the last of them that has it at its base.
fn derive(segments: &[Held], derived: &mut impl Derived) -> Result<(), StorageError> {
    derived.restore(&[]);
    let from = segments.iter().rposition(|held| held.storage.has_base_state(held)).unwrap_or(0);
    for held in &segments[from..] {
        held.storage.replay(held, &mut |event| replay_into(derived, event))?;
    }
    Ok(())
}

fn replay_into(derived: &mut impl Derived, event: Replay<'_>) -> bool {
    match event {
        Replay::Snapshot(bytes) => derived.restore(bytes),
        Replay::Batch(header) => {
            derived.replay(header);
            true
        }
    }
}

impl<S: Derived> Log<S> {
    /// Opens the log of a partition this broker leads, from what the chain says and the files hold:
    /// recovers the open segment an earlier life left, or makes the first file of a new partition.
    /// Reads and writes files: call it where blocking is allowed.
    ///
    /// # Errors
    /// [`StorageError`] when a storage the log needs is missing, failed or damaged.
    pub fn open(
        spec: LogSpec,
        state: Arc<PartitionState>,
        mut derived: S,
    ) -> Result<Arc<Self>, StorageError> {
        let mut segments: Vec<Held> = Vec::with_capacity(state.chain.len());
        let mut end = state.log_start;
        let mut writable = Writable::Never(AppendError::Closed);
        for entry in &state.chain {
            match &entry.state {
                SegmentState::Sealed { end: sealed_end, bytes, crc, replicas } => {
                    let storage = spec.storage_of(replicas.iter().copied())?;
                    let segment = storage.load(spec.segment_name(entry), *sealed_end, *bytes, *crc);
                    segments.push(Held { segment, storage });
                    end = *sealed_end;
                }
                SegmentState::Open { ensemble } => {
                    let storage = spec.storage_of(ensemble.iter().map(|member| member.storage))?;
                    let segment = spec.open_tail(&storage, entry, &segments, &mut derived)?;
                    end = segment.end();
                    let held = Held { segment, storage };
                    segments.push(held.clone());
                    let ours = ensemble.contains(&spec.member_on(&held.storage))
                        && entry.last_epoch() == state.leader_epoch;
                    writable = if ours { Writable::Yes(held) } else { Writable::AfterEdit(held) };
                }
            }
        }
        if end < state.log_start {
            let dir = segments.last().map_or(Path::new(&*spec.topic), |last| last.storage.dir());
            return Err(spec.shortened(dir, state.log_start, end));
        }
        let (commit, led) = spec.begin_to_lead(&state, &writable, end, &derived);
        let epoch = state.leader_epoch;
        // What an earlier life left open is as old as this one, at least.
        let opened_at_ms = (end > state.last().base).then(|| spec.env.clock.wall_ms());
        let jitter_draw = spec.env.random.next_u64();
        Ok(Arc::new(Log {
            tail: Mutex::new(Tail {
                writable,
                led,
                end,
                epoch,
                derived,
                snapshot_bytes: 0,
                opened_at_ms,
                jitter_draw,
            }),
            view: ArcSwap::from_pointee(View { state, segments }),
            commit,
            settings: ArcSwap::new(spec.settings.clone()),
            edits: tokio::sync::Mutex::new(()),
            rolling: AtomicBool::new(false),
            avoided: Mutex::default(),
            compacting: tokio::sync::Mutex::new(()),
            horizons: Mutex::default(),
            spec,
        }))
    }

    /// Whose log it is.
    pub fn partition(&self) -> TopicPartition {
        self.spec.partition
    }

    /// Wall clock of this broker, ms.
    pub fn now_ms(&self) -> TimestampMs {
        self.spec.env.clock.wall_ms()
    }

    /// The topic's settings now.
    pub fn settings(&self) -> Arc<TopicSettings> {
        self.settings.load_full()
    }

    /// Takes over changed settings of the topic.
    pub fn configure(&self, settings: Arc<TopicSettings>) {
        self.settings.store(settings);
    }

    /// The partition as the metadata store had it after the last edit made here.
    pub fn state(&self) -> Arc<PartitionState> {
        self.view.load().state.clone()
    }

    /// The partition as the metadata store has it now, with copies that came and went since; `None` while its segments are
    /// others than those of `view`.
    pub(crate) fn state_behind(&self, view: &View) -> Option<Arc<PartitionState>> {
        let state = self.spec.store.partition(self.partition())?;
        let name = |entry: &SegmentEntry| (entry.id, entry.generation);
        state.chain.iter().map(name).eq(view.state.chain.iter().map(name)).then_some(state)
    }

    /// First offset a reader may ask for.
    pub fn log_start(&self) -> Offset {
        self.view.load().state.log_start
    }

    /// Everything below is committed and may be shown.
    pub fn high_watermark(&self) -> Offset {
        self.commit.high_watermark()
    }

    /// The offset the next record gets.
    pub fn end(&self) -> Offset {
        self.tail.lock().end
    }

    /// The epoch in which this broker leads.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.view.load().state.leader_epoch
    }

    /// Whether its topic was deleted, so that nothing of it will be read or written again.
    pub fn is_closed(&self) -> bool {
        self.commit.is_closed()
    }

    /// How many segments there are.
    pub fn segment_count(&self) -> usize {
        self.view.load().segments.len()
    }

    /// Bytes in all segments.
    pub fn size(&self) -> u64 {
        self.view.load().segments.iter().map(|segment| segment.bytes()).sum()
    }

    /// Has a sealed segment read from its file as it is now: its copy was replaced by a whole one.
    pub fn read_anew(&self, segment: SegmentId, generation: Generation) {
        let view = self.view.load();
        let at =
            view.state.chain.iter().position(|entry| (entry.id, entry.generation) == (segment, generation));
        let held = at.and_then(|at| view.segments.get(at));
        if let Some(held) = held.filter(|held| held.is_sealed()) {
            held.reopen();
        }
    }

    /// Kafka's OffsetForLeaderEpoch over this chain (KIP-320): the largest epoch at most `asked` that
    /// has records, and the offset after its last.
    pub fn epoch_end(&self, asked: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.view.load().state.epoch_end(asked, self.end())
    }

    /// Completes when everything below `end`, which was appended before, is committed.
    pub fn committed(&self, end: Offset) -> Committed {
        self.commit.reaches(end)
    }

    /// Registers a parked fetch: it is told of bytes committed from now on. The caller reads once
    /// more after registering, so that nothing committed in between is missed.
    pub fn register(&self, reader: &Arc<ReadWaiter>) {
        self.commit.register(reader);
    }

    /// Becomes the owner of the tail, if it takes appends. Waits for another owner, who never holds it
    /// longer than a write takes.
    pub fn tail(self: &Arc<Self>) -> TailState<'_, S> {
        let tail = self.tail.lock();
        match &tail.writable {
            Writable::Yes(_) => TailState::Ready(TailGuard::new(self, tail)),
            Writable::AfterEdit(_) | Writable::Editing(_) => TailState::NeedsEdit,
            Writable::Never(error) => TailState::Refused(error.clone()),
        }
    }

    /// Gives what was derived from the log's records to `look`, who must not wait.
    pub fn with_derived<R>(&self, look: impl FnOnce(&mut S) -> R) -> R {
        look(&mut self.tail.lock().derived)
    }

    /// Reads whole batches from the one that holds `from` on, committed ones only. With
    /// `at_least_one` the first batch comes whatever its size; otherwise at most `max_bytes`.
    /// Empty when `from` is the high watermark or beyond (but not beyond the log end).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, from: Offset, max_bytes: usize, at_least_one: bool) -> Result<Bytes, ReadError> {
        self.read_with(Patience::Wait, from, max_bytes, at_least_one)
    }

    /// As [`Log::read`].
    ///
    /// # Errors
    /// [`ReadError`]; without patience also [`StorageError::NotCached`].
    pub fn read_with(
        &self,
        patience: Patience,
        from: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Bytes, ReadError> {
        self.with_view(|view| self.read_in(view, patience, from, max_bytes, at_least_one))
    }

    /// Where whole batches lie in a file that are to be sent from there, as [`Segment::range`] tells; `None` where
    /// [`Log::read_with`] must be asked.
    pub fn range(&self, from: Offset, max_bytes: usize) -> Option<FileRange> {
        let view = self.view.load();
        if from < view.state.log_start {
            return None;
        }
        let segments = &view.segments;
        let at = segments.partition_point(|segment| segment.base() <= from).checked_sub(1)?;
        // What went wrong a whole read tells better.
        segments[at].range(from, self.high_watermark(), max_bytes).ok().flatten()
    }

    /// Gives the chain to `read`, and again if its files were removed meanwhile because the chain was edited.
    fn with_view<R>(&self, read: impl Fn(&View) -> Result<R, ReadError>) -> Result<R, ReadError> {
        loop {
            let view = self.view.load_full();
            let result = read(&view);
            let gone = matches!(result, Err(ReadError::Storage(StorageError::NotHere { .. })));
            if !gone || Arc::ptr_eq(&view, &self.view.load()) {
                return result;
            }
        }
    }

    fn read_in(
        &self,
        view: &View,
        patience: Patience,
        from: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Bytes, ReadError> {
        let upper = self.high_watermark();
        let log_start = view.state.log_start;
        if from < log_start || from > upper {
            let log_end = self.end();
            if from < log_start || from > log_end {
                return Err(ReadError::OutOfRange { asked: from, log_start, log_end });
            }
            return Ok(Bytes::new());
        }
        let first = view.segments.partition_point(|segment| segment.base() <= from).saturating_sub(1);
        for segment in &view.segments[first..] {
            if segment.base() >= upper {
                break;
            }
            let range = (from.max(segment.base()), upper);
            let slice = segment.read_with(patience, range, max_bytes, at_least_one)?;
            // Empty but not exhausted: the limit kept a batch back, and the next segment is none of it.
            if !slice.bytes.is_empty() || !slice.exhausted {
                return Ok(slice.bytes);
            }
        }
        Ok(Bytes::new())
    }

    /// The first committed record with a timestamp of at least `timestamp` (KIP-79), as its offset and
    /// timestamp.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn find_timestamp(
        &self,
        timestamp: TimestampMs,
        upper: Offset,
    ) -> Result<Option<(Offset, TimestampMs)>, ReadError> {
        self.with_view(|view| {
            for segment in &view.segments {
                if segment.base() >= upper {
                    break;
                }
                if let Some(found) = segment.find_timestamp(timestamp, view.state.log_start, upper)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
    }

    /// The committed record with the largest timestamp, the first of several (KIP-734), as its offset
    /// and timestamp.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn max_timestamp(&self) -> Result<Option<(Offset, TimestampMs)>, ReadError> {
        let largest = self.with_view(|view| {
            let mut largest: Option<TimestampMs> = None;
            for segment in &view.segments {
                largest = largest.max(segment.max_timestamp()?);
            }
            Ok(largest)
        })?;
        let Some(largest) = largest else { return Ok(None) };
        let upper = self.high_watermark();
        let found = self.find_timestamp(largest, upper)?;
        if found.is_some() {
            return Ok(found);
        }
        // It is that of a record that was deleted or is not committed: look for the largest there is.
        let mut best = self.find_timestamp(0, upper)?;
        let (mut low, mut high) = (best.map_or(0, |(_, timestamp)| timestamp), largest);
        while best.is_some() && low + 1 < high {
            let middle = low + (high - low) / 2;
            match self.find_timestamp(middle, upper)? {
                Some(later) => (best, low) = (Some(later), later.1.max(middle)),
                None => high = middle,
            }
        }
        Ok(best)
    }
}
