//! All copies of open segments on one broker's storages that other brokers lead.
//!
//! ```text
//! stream ── begin, append ──► Partition ──► PartitionReplica   may it?      one per storage
//!        ── fence ──────────►            └► Segment            the bytes
//! ```
//!
//! Invariants:
//! - what is answered was asked of the pure core first, under the lock under which it is done;
//! - an epoch promised for a partition holds for all storages of the broker;
//! - nobody has two [`Segment`]s of one file to append to: opening is done once, to its end, whatever becomes of who
//!   asked, and [`Replicas::release`] lets go of a copy before the leader's side opens it.
//!
//! Promises live as long as the process. That is enough: a restarted process takes no appends for segments that were
//! opened before (replication.md 2.6). What it does not do: decide what to seal, delete files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use base::chain::{SegmentEntry, SegmentState};
use base::config::Durability;
use base::env::Env;
use base::ids::{Incarnation, LeaderEpoch, Offset, SegmentId, StorageId, TopicPartition, Uuid};
use bytes::Bytes;
use parking_lot::Mutex;
use storage::{CreateSegment, Segment, SegmentName, Storage, StorageError, StorageState};
use tokio::sync::Notify;

use super::copy::{Copy, check_batches, whole_batches};
use super::follow::Readers;
use super::message::{
    BrokerLife, ConfirmRequest, Create, FenceRequest, FenceResult, PullRequest, PullResult, PushKind, Refusal,
};
use super::sessions::Sessions;
use crate::peers::Peers;
use crate::protocol::{FenceAnswer, Life, PartitionReplica};

/// Most that one pull brings, bytes, unless one batch is larger.
pub const PULL_BYTES_MAX: usize = 4 << 20;

/// What the part of the broker that leads partitions says when another leader turns up.
pub enum Local {
    /// This broker does not lead the partition; nobody but [`Replicas`] writes to its files.
    Follows,
    /// It leads it, in this epoch, which is the one asked about or later.
    Leads(LeaderEpoch),
    /// It led it in an earlier epoch, and has stopped: nothing is appended any more but by [`Replicas`].
    Stopped {
        /// The open segment, to go on with, and the storage it is on; `None` where the files are nobody's.
        open: Option<(Arc<Segment>, Arc<Storage>)>,
        /// How far the records were committed; -1 when that is not known.
        high_watermark: Offset,
    },
}

/// The part of the broker that leads partitions. From [`Replicas::release`] on it answers for a partition, until it
/// has said [`Local::Stopped`].
pub trait Leading: Send + Sync {
    /// A leader of `epoch` turned up: stops the own one of `partition` if its epoch is lower. Must not block.
    fn fence(&self, partition: TopicPartition, epoch: LeaderEpoch) -> Local;
}

/// A broker that leads nothing.
impl Leading for () {
    fn fence(&self, _: TopicPartition, _: LeaderEpoch) -> Local {
        Local::Follows
    }
}

/// What [`Replicas`] is made of.
pub struct ReplicasSpec {
    /// The world.
    pub env: Env,
    /// The cluster.
    pub cluster: Uuid,
    /// This broker's present life.
    pub life: BrokerLife,
    /// The newest segment of all when this life was registered: up to this one they are older than it.
    pub newest_segment: SegmentId,
    /// Every storage of this broker.
    pub storages: Arc<Vec<Arc<Storage>>>,
    /// Who is asked about partitions that this broker leads itself.
    pub leading: Arc<dyn Leading>,
}

/// What became of a copy whose segment was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealedCopy {
    /// It is durable and equals what was sealed.
    Whole(StorageId),
    /// It ends at this offset, before the segment does.
    Short(StorageId, Offset),
    /// Its bytes are others than were sealed. Nothing was cut.
    Damaged(StorageId),
    /// There is none.
    Absent,
}

/// What [`Replicas::release`] let go of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// The epoch that was promised; -1 for none.
    pub promised: LeaderEpoch,
    /// Something at or below the high watermark, if the broker has heard of one.
    pub high_watermark: Option<Offset>,
    /// The copies, the storage of each, and where it ends. Durable, unless the storage failed.
    pub copies: Vec<(SegmentName, StorageId, Offset)>,
}

/// Why records were not taken.
pub(super) enum NotTaken {
    /// To be told to the leader.
    Refused(Refusal),
    /// What came cannot be right; the connection is not to be trusted.
    Invalid(String),
}

impl From<Refusal> for NotTaken {
    fn from(refusal: Refusal) -> NotTaken {
        NotTaken::Refused(refusal)
    }
}

/// A fence that was promised.
pub(super) enum Fenced {
    /// The answer.
    Now(FenceResult),
    /// The answer, once the copy is durable up to its end.
    Once(Arc<Copy>, FenceResult),
}

/// The copies of a partition's open segments.
pub(super) struct Partition {
    id: TopicPartition,
    state: Mutex<State>,
    /// Held while a copy is opened or let go of.
    opening: Arc<tokio::sync::Mutex<()>>,
    high_watermark: AtomicI64,
    readers: Arc<Readers>,
}

struct State {
    promised: LeaderEpoch,
    cores: Vec<(StorageId, PartitionReplica)>,
    copies: BTreeMap<(SegmentId, StorageId), Arc<Copy>>,
    /// The newest segment that is known to be sealed: its leader, and those before, push no more.
    sealed_to: Option<SegmentId>,
}

/// What a stream appends to.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) partition: Arc<Partition>,
    pub(super) copy: Arc<Copy>,
    pub(super) create: Arc<Create>,
}

impl Target {
    /// The leader told how far the log is committed.
    pub(super) fn note_high_watermark(&self, high_watermark: Offset) {
        self.partition.note_high_watermark(high_watermark);
        if self.copy.note_high_watermark(high_watermark) {
            self.partition.readers.wake();
        }
    }
}

/// All copies. See the module's head.
pub struct Replicas {
    pub(super) spec: ReplicasSpec,
    partitions: Mutex<HashMap<TopicPartition, Arc<Partition>>>,
    pub(super) sessions: Sessions,
    pub(super) peers: OnceLock<Weak<Peers>>,
    /// Segments that are being fetched, and who is told when one is there or not.
    pub(super) imports: Mutex<HashSet<SegmentName>>,
    pub(super) import_ended: Notify,
}

impl Partition {
    fn new(id: TopicPartition) -> Partition {
        let (cores, copies) = (Vec::new(), BTreeMap::new());
        Partition {
            id,
            state: Mutex::new(State { promised: LeaderEpoch(-1), cores, copies, sealed_to: None }),
            opening: Arc::default(),
            high_watermark: AtomicI64::new(-1),
            readers: Arc::default(),
        }
    }

    /// Hears of a high watermark.
    pub(super) fn note_high_watermark(&self, high_watermark: Offset) {
        self.high_watermark.fetch_max(high_watermark, Ordering::AcqRel);
    }

    fn high_watermark(&self) -> Option<Offset> {
        Some(self.high_watermark.load(Ordering::Acquire)).filter(|offset| *offset >= 0)
    }
}

impl State {
    /// What the storage may say of the partition's segments.
    fn core(
        &mut self,
        spec: &ReplicasSpec,
        storage: &Storage,
        durability: Durability,
    ) -> &mut PartitionReplica {
        let id = storage.id();
        let at = self.cores.iter().position(|(other, _)| *other == id).unwrap_or_else(|| {
            let mut core = PartitionReplica::new(spec.life.incarnation);
            core.restarted(spec.life.incarnation, spec.newest_segment, Life::Whole);
            promise(&mut core, self.promised);
            self.cores.push((id, core));
            self.cores.len() - 1
        });
        let core = &mut self.cores[at].1;
        if durability == Durability::PageCache
            && let Some(doubtful_to) = storage.doubtful_to()
        {
            core.restarted(spec.life.incarnation, doubtful_to, Life::Doubtful);
        }
        core
    }

    /// Refuses earlier epochs from now on, on every storage.
    fn promise(&mut self, epoch: LeaderEpoch) {
        self.promised = epoch.max(self.promised);
        let promised = self.promised;
        self.cores.iter_mut().for_each(|(_, core)| promise(core, promised));
    }

    /// Takes up a copy whose file was opened.
    fn insert(&mut self, spec: &ReplicasSpec, copy: &Arc<Copy>, durability: Durability) {
        let (segment, promised) = (&copy.segment, self.promised);
        let core = self.core(spec, &copy.storage, durability);
        // It holds this whatever is promised to whom.
        let taken = core.copy_up((segment.name().id, segment.base()), promised, segment.end());
        debug_assert_eq!(taken, Ok(segment.end()));
        self.copies.insert(copy.key(), copy.clone());
    }

    /// Forgets a copy, and that it was ever there: what the file holds is asked of the file next time.
    fn remove(&mut self, spec: &ReplicasSpec, key: (SegmentId, StorageId), durability: Durability) {
        self.copies.remove(&key);
        self.cores.retain(|(storage, _)| *storage != key.1);
        let others: Vec<_> =
            self.copies.values().filter(|copy| copy.storage.id() == key.1).cloned().collect();
        others.iter().for_each(|copy| self.insert(spec, copy, durability));
    }
}

/// Raises what was promised. Which segment is asked about does not matter for that.
fn promise(core: &mut PartitionReplica, epoch: LeaderEpoch) {
    // A later promise stays.
    let _ = core.fence((SegmentId(u64::MAX), 0), epoch);
}

fn is_failed(storage: &Storage) -> bool {
    matches!(storage.state(), StorageState::Failed(_))
}

/// Runs the work to its end, even if who waits for it goes away.
async fn to_its_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

impl Replicas {
    /// No copies yet: they are opened when somebody asks. Notes on each storage what may be missing there
    /// ([`Storage::note_doubt`]), which may block shortly.
    pub fn new(spec: ReplicasSpec) -> Arc<Replicas> {
        for storage in spec.storages.iter() {
            if let Err(error) = storage.note_doubt(spec.newest_segment) {
                tracing::error!(dir = %storage.dir().display(), %error, "the doubt cannot be noted");
            }
        }
        Arc::new(Replicas {
            spec,
            partitions: Mutex::default(),
            sessions: Sessions::default(),
            peers: OnceLock::new(),
            imports: Mutex::default(),
            import_ended: Notify::new(),
        })
    }

    /// The epoch promised for a partition in this life; `None` for none.
    pub fn promised(&self, partition: TopicPartition) -> Option<LeaderEpoch> {
        let promised = self.find(partition)?.state.lock().promised;
        (promised >= LeaderEpoch(0)).then_some(promised)
    }

    /// Promises an epoch: leaders of earlier ones are refused from now on. For a leader of this broker, before it asks
    /// the others.
    ///
    /// # Errors
    /// The later epoch that was promised before.
    pub fn promise(&self, partition: TopicPartition, epoch: LeaderEpoch) -> Result<(), LeaderEpoch> {
        let partition = self.partition(partition);
        let mut state = partition.state.lock();
        if epoch < state.promised {
            return Err(state.promised);
        }
        state.promise(epoch);
        Ok(())
    }

    /// Why nothing is taken any more from a leader that asks; `None` where a record from it would be.
    pub(super) fn refusal_of(&self, confirm: &ConfirmRequest) -> Option<Refusal> {
        let own = self.spec.life.incarnation;
        if confirm.incarnation != own {
            // Promises ended with the life in which they were made.
            return Some(Refusal::StaleIncarnation(own));
        }
        self.promised(confirm.partition).filter(|promised| *promised > confirm.epoch).map(Refusal::Fenced)
    }

    /// Something at or below the high watermark of a partition, as its leader told; `None` before it told any.
    pub fn high_watermark(&self, partition: TopicPartition) -> Option<Offset> {
        self.find(partition)?.high_watermark()
    }

    /// The copy of an open segment that is in use, to read below the high watermark.
    pub fn copy(&self, partition: TopicPartition, segment: SegmentId) -> Option<Arc<Segment>> {
        let partition = self.find(partition)?;
        let state = partition.state.lock();
        let found = state.copies.iter().find(|((id, _), _)| *id == segment);
        found.map(|(_, copy)| copy.segment.clone())
    }

    /// As [`Replicas::copy`], on one storage.
    pub(super) fn copy_on(
        &self,
        partition: TopicPartition,
        key: (SegmentId, StorageId),
    ) -> Option<Arc<Copy>> {
        self.find(partition)?.state.lock().copies.get(&key).cloned()
    }

    /// Who reads a partition's copies.
    pub(super) fn readers(&self, partition: TopicPartition) -> Arc<Readers> {
        self.partition(partition).readers.clone()
    }

    /// Lets go of a partition's copies, so that the leader's side can open the files: streams that append to them are
    /// refused, and what was written is synced. What was promised stays. `None` for a partition never heard of.
    pub async fn release(self: &Arc<Self>, partition: TopicPartition) -> Option<Released> {
        let partition = self.find(partition)?;
        let opening = partition.opening.clone();
        Some(
            to_its_end(async move {
                let _opening = opening.lock_owned().await;
                let (copies, promised) = {
                    let mut state = partition.state.lock();
                    state.cores.clear();
                    (std::mem::take(&mut state.copies), state.promised)
                };
                let mut released = Vec::with_capacity(copies.len());
                for copy in copies.into_values() {
                    // Of a failure the leader's side hears when it opens the file.
                    copy.sync().await;
                    let name = copy.segment.name().clone();
                    released.push((name, copy.storage.id(), copy.segment.end()));
                }
                Released { promised, high_watermark: partition.high_watermark(), copies: released }
            })
            .await,
        )
    }

    /// Closes the copy of a segment, so that another takes the place of its file. Streams that append to it are refused.
    pub async fn forget(self: &Arc<Self>, name: &SegmentName) {
        let Some(partition) = self.find(name.partition) else { return };
        let _opening = partition.opening.lock().await;
        partition.readers.forget(name);
        let mut state = partition.state.lock();
        let keys: Vec<_> = state.copies.keys().filter(|(segment, _)| *segment == name.id).copied().collect();
        for key in keys {
            // What is known of others stays as doubtful as it was.
            state.remove(&self.spec, key, Durability::Fsync);
        }
    }

    /// Forgets a partition whose topic is gone. Its files are the caller's to remove.
    pub fn remove(&self, partition: TopicPartition) {
        let removed = self.partitions.lock().remove(&partition);
        if let Some(removed) = removed {
            // Streams that go on find nothing to append to.
            removed.state.lock().copies.clear();
        }
    }

    /// The chain says that a segment was sealed: cuts this broker's copy where it is longer, and tells whether it is
    /// whole. A whole copy is not kept in memory any more.
    ///
    /// # Errors
    /// [`StorageError`] where the copy cannot be read or cut, or made durable; asking again tries again.
    pub async fn sealed(
        self: &Arc<Self>,
        topic: &Arc<str>,
        partition: TopicPartition,
        entry: &SegmentEntry,
    ) -> Result<SealedCopy, StorageError> {
        let (replicas, entry, partition) = (self.clone(), entry.clone(), self.partition(partition));
        let name = SegmentName {
            topic: topic.clone(),
            partition: partition.id,
            id: entry.id,
            generation: entry.generation,
            base: entry.base,
        };
        let opening = partition.opening.clone();
        to_its_end(async move {
            let _opening = opening.lock_owned().await;
            replicas.seal(&partition, name, &entry).await
        })
        .await
    }

    async fn seal(
        &self,
        partition: &Arc<Partition>,
        name: SegmentName,
        entry: &SegmentEntry,
    ) -> Result<SealedCopy, StorageError> {
        let SegmentState::Sealed { end, crc, bytes, .. } = entry.state else {
            return Ok(SealedCopy::Absent);
        };
        {
            let mut state = partition.state.lock();
            state.sealed_to = state.sealed_to.max(Some(entry.id));
        }
        let open = partition.state.lock().copies.values().find(|copy| copy.segment.name() == &name).cloned();
        let copy = match open {
            Some(copy) => copy,
            None => {
                let Some(storage) = self.holder(&name) else { return Ok(SealedCopy::Absent) };
                let loaded = storage.load(name.clone(), end, bytes, crc);
                // It may have more than was sealed, if it was away when the end was settled.
                let whole = move || loaded.verify().and_then(|()| loaded.cut_rest());
                if self.spec.env.blocking(whole).await.is_ok() {
                    return Ok(SealedCopy::Whole(storage.id()));
                }
                // Only what a leader wrote is without gaps, as what is recovered must be.
                let recovered =
                    self.open(partition, &name, &storage, &entry.epochs, Durability::Fsync, None).await;
                match recovered {
                    Ok(Some(copy)) => copy,
                    Ok(None) => return Ok(SealedCopy::Absent),
                    Err(StorageError::Corrupt(_)) => return Ok(SealedCopy::Damaged(storage.id())),
                    Err(error) => return Err(error),
                }
            }
        };
        let id = copy.storage.id();
        let segment = copy.segment.clone();
        if segment.end() < end {
            return Ok(SealedCopy::Short(id, segment.end()));
        }
        let sealing = segment.clone();
        let sealed = match self.spec.env.blocking(move || sealing.seal_at(end)).await {
            Ok(sealed) => sealed,
            Err(StorageError::InvalidBatch { .. } | StorageError::Sealed) => {
                return Ok(SealedCopy::Damaged(id));
            }
            Err(error) => return Err(error),
        };
        if !copy.sync().await {
            return Err(StorageError::Failed { reason: "the copy cannot be synced".into() });
        }
        partition.state.lock().remove(&self.spec, copy.key(), Durability::Fsync);
        let is_equal = (sealed.bytes, sealed.crc) == (bytes, crc);
        Ok(if is_equal { SealedCopy::Whole(id) } else { SealedCopy::Damaged(id) })
    }

    /// The storage that has a directory of the segment.
    fn holder(&self, name: &SegmentName) -> Option<Arc<Storage>> {
        self.spec.storages.iter().find(|storage| storage.holds(name)).cloned()
    }

    fn storage(&self, id: StorageId) -> Option<Arc<Storage>> {
        self.spec.storages.iter().find(|storage| storage.id() == id).cloned()
    }

    fn find(&self, partition: TopicPartition) -> Option<Arc<Partition>> {
        self.partitions.lock().get(&partition).cloned()
    }

    fn partition(&self, id: TopicPartition) -> Arc<Partition> {
        self.partitions.lock().entry(id).or_insert_with(|| Arc::new(Partition::new(id))).clone()
    }

    /// The copy in use, or the one that is in the files, or with a snapshot a new one. The caller holds `opening`.
    async fn open(
        &self,
        partition: &Partition,
        name: &SegmentName,
        storage: &Arc<Storage>,
        epochs: &[(LeaderEpoch, Offset)],
        durability: Durability,
        snapshot: Option<Bytes>,
    ) -> Result<Option<Arc<Copy>>, StorageError> {
        let key = (name.id, storage.id());
        if let Some(copy) = partition.state.lock().copies.get(&key) {
            return Ok(Some(copy.clone()));
        }
        let (opening, name, epochs) = (storage.clone(), name.clone(), epochs.to_vec());
        let opened = self.spec.env.blocking(move || open_file(&opening, name, &epochs, snapshot)).await?;
        let Some(segment) = opened else { return Ok(None) };
        let copy = Copy::new(segment, storage.clone());
        partition.state.lock().insert(&self.spec, &copy, durability);
        Ok(Some(copy))
    }

    /// Stops the own leader of the partition, if there is one of an earlier epoch, and takes over its open segment. The
    /// caller holds `opening`.
    fn stop_leading(
        &self,
        partition: &Partition,
        epoch: LeaderEpoch,
        durability: Durability,
    ) -> Result<(), LeaderEpoch> {
        match self.spec.leading.fence(partition.id, epoch) {
            Local::Follows => Ok(()),
            Local::Leads(own) => {
                let mut state = partition.state.lock();
                state.promise(own);
                Err(state.promised)
            }
            Local::Stopped { open, high_watermark } => {
                partition.note_high_watermark(high_watermark);
                if let Some((segment, storage)) = open {
                    let copy = Copy::new(segment, storage);
                    copy.note_high_watermark(high_watermark);
                    let mut state = partition.state.lock();
                    if !state.copies.contains_key(&copy.key()) {
                        state.insert(&self.spec, &copy, durability);
                    }
                }
                Ok(())
            }
        }
    }

    /// Begins a stream: opens or makes the copy it appends to.
    pub(super) async fn begin(self: &Arc<Self>, create: Create) -> Result<Target, NotTaken> {
        let (replicas, partition) = (self.clone(), self.partition(create.name.partition));
        let opening = partition.opening.clone();
        to_its_end(async move {
            let _opening = opening.lock_owned().await;
            replicas.begin_locked(partition, create).await
        })
        .await
    }

    async fn begin_locked(&self, partition: Arc<Partition>, create: Create) -> Result<Target, NotTaken> {
        let Some(storage) = self.storage(create.storage) else { return Err(Refusal::StorageFailed.into()) };
        let segment = (create.name.id, create.name.base);
        let incarnation = self.spec.life.incarnation;
        // Before any file is touched: nothing is made for who may not write.
        {
            let mut state = partition.state.lock();
            let core = state.core(&self.spec, &storage, create.durability).clone();
            admit(core, segment, &create, incarnation)?;
            if create.kind == PushKind::Member && state.sealed_to >= Some(segment.0) {
                return Err(Refusal::Sealed.into());
            }
        }
        self.stop_leading(&partition, create.epoch, create.durability).map_err(Refusal::Fenced)?;
        let Create { name, epochs, durability, snapshot, .. } = &create;
        let opened = self.open(&partition, name, &storage, epochs, *durability, Some(snapshot.clone())).await;
        let copy = match opened {
            Ok(Some(copy)) => copy,
            Ok(None) => return Err(Refusal::StorageFailed.into()),
            Err(StorageError::NoSpace { .. }) => return Err(Refusal::NoSpace.into()),
            Err(StorageError::NoHandles { .. }) => return Err(Refusal::Busy.into()),
            Err(error) => {
                tracing::warn!(topic = &*name.topic, partition = %partition.id, %error, "a copy cannot be opened");
                return Err(Refusal::StorageFailed.into());
            }
        };
        {
            // It may have been fenced meanwhile.
            let mut state = partition.state.lock();
            let core = state.core(&self.spec, &storage, create.durability);
            admit(core.clone(), segment, &create, incarnation)?;
            state.promise(create.epoch);
        }
        let create = Arc::new(Create { snapshot: Bytes::new(), ..create });
        Ok(Target { partition, copy, create })
    }

    /// Takes records for a stream's copy; those it has already are passed over. False when those are all.
    pub(super) fn append(&self, target: &Target, from: Offset, bytes: &[u8]) -> Result<bool, NotTaken> {
        let Target { partition, copy, create } = target;
        let end = check_batches(bytes, from, &create.epochs).map_err(NotTaken::Invalid)?;
        let segment = (create.name.id, create.name.base);
        let mut state = partition.state.lock();
        let is_ours = state.copies.get(&copy.key()).is_some_and(|ours| Arc::ptr_eq(ours, copy));
        if !is_ours {
            return Err(Refusal::Fenced(state.promised).into());
        }
        let core = state.core(&self.spec, &copy.storage, create.durability);
        match create.kind {
            PushKind::Member => {
                core.append(segment, create.epoch, create.incarnation, (from, end)).map_err(Refusal::from)?;
            }
            PushKind::CopyUp => {
                let have = copy.segment.end();
                if from > have {
                    return Err(Refusal::Gap(have).into());
                }
                core.copy_up(segment, create.epoch, end).map_err(Refusal::from)?;
            }
        }
        let taken = append_missing(&copy.segment, from, end, bytes);
        if taken.is_err() {
            core.cut(segment.0, copy.segment.end());
        }
        taken
    }

    /// Promises the epoch and tells what is held.
    pub(super) async fn fence(self: &Arc<Self>, request: FenceRequest) -> Fenced {
        let (replicas, partition) = (self.clone(), self.partition(request.name.partition));
        let opening = partition.opening.clone();
        to_its_end(async move {
            let _opening = opening.lock_owned().await;
            replicas.fence_locked(partition, request).await
        })
        .await
    }

    async fn fence_locked(&self, partition: Arc<Partition>, request: FenceRequest) -> Fenced {
        let FenceRequest { name, storage, epochs, epoch, durability } = request;
        if let Err(promised) = self.stop_leading(&partition, epoch, durability) {
            return Fenced::Now(FenceResult::Fenced(promised));
        }
        {
            let mut state = partition.state.lock();
            if epoch < state.promised {
                return Fenced::Now(FenceResult::Fenced(state.promised));
            }
            state.promise(epoch);
        }
        let Some(storage) = self.storage(storage) else { return Fenced::Now(FenceResult::Unknown) };
        let copy = match self.open(&partition, &name, &storage, &epochs, durability, None).await {
            Ok(copy) => copy,
            Err(error) => {
                tracing::warn!(topic = &*name.topic, partition = %partition.id, %error, "a copy cannot be opened");
                return Fenced::Now(FenceResult::Unknown);
            }
        };
        let fenced = {
            let mut state = partition.state.lock();
            state.core(&self.spec, &storage, durability).fence((name.id, name.base), epoch)
        };
        let answer = match fenced {
            Ok(answer) => answer,
            Err(_) => return Fenced::Now(FenceResult::Fenced(partition.state.lock().promised)),
        };
        let result = FenceResult::Promised { answer, high_watermark: partition.high_watermark() };
        match copy {
            Some(copy) => {
                copy.request_sync();
                Fenced::Once(copy, result)
            }
            None => Fenced::Now(of_failed(result, &storage, None)),
        }
    }

    /// Reads what another broker lacks.
    pub(super) async fn pull(&self, request: PullRequest) -> PullResult {
        let PullRequest { name, storage, sealed, from, max_bytes } = request;
        let id = name.id;
        let Some(storage) = self.storage(storage) else { return PullResult::Unknown };
        let open = self.find(name.partition).and_then(|partition| {
            let state = partition.state.lock();
            state.copies.get(&(name.id, storage.id())).map(|copy| copy.segment.clone())
        });
        let segment = match (open, sealed) {
            (Some(segment), _) => segment,
            (None, Some(sealed)) => storage.load(name, sealed.end, sealed.bytes, sealed.crc),
            (None, None) if storage.holds(&name) => return PullResult::Unknown,
            (None, None) => return absent(&storage, id),
        };
        let max_bytes = (max_bytes as usize).min(PULL_BYTES_MAX);
        let read = move || {
            let read = segment.read(from, segment.end(), max_bytes, true)?;
            let is_good = |bytes: &[u8]| {
                base::batch::Batches::new(bytes)
                    .all(|batch| batch.is_ok_and(|batch| batch.verify_crc().is_ok()))
            };
            Ok(is_good(&read.bytes).then_some(read.bytes))
        };
        match self.spec.env.blocking(read).await {
            Ok(Some(bytes)) => PullResult::Bytes(bytes),
            Ok(None) | Err(StorageError::Corrupt(_)) => PullResult::Unknown,
            Err(StorageError::NotHere { .. }) => absent(&storage, id),
            Err(error) => PullResult::Failed(error.to_string()),
        }
    }
}

/// A fence's answer, corrected where the storage failed: what it wrote before may be lost, and no sync tells.
pub(super) fn of_failed(result: FenceResult, storage: &Storage, copy: Option<&Copy>) -> FenceResult {
    match result {
        FenceResult::Promised { answer, high_watermark } if is_failed(storage) => {
            let end = copy.map_or(answer.end, |copy| copy.segment.durable_end());
            FenceResult::Promised { answer: FenceAnswer { end, authoritative: false }, high_watermark }
        }
        result => result,
    }
}

/// What a storage says of a segment it does not find: whether it never had it is only for some to tell.
fn absent(storage: &Storage, segment: SegmentId) -> PullResult {
    let is_doubtful = storage.doubtful_to().is_some_and(|doubtful_to| segment <= doubtful_to);
    if is_doubtful || is_failed(storage) { PullResult::Unknown } else { PullResult::NotHere }
}

/// Whether the core lets the stream begin.
fn admit(
    mut core: PartitionReplica,
    segment: (SegmentId, Offset),
    create: &Create,
    incarnation: Incarnation,
) -> Result<(), Refusal> {
    debug_assert_eq!(core.incarnation(), incarnation);
    let base = segment.1;
    match create.kind {
        PushKind::Member => core.append(segment, create.epoch, create.incarnation, (base, base)),
        PushKind::CopyUp => core.copy_up(segment, create.epoch, base),
    }
    .map(drop)
    .map_err(Refusal::from)
}

/// The file of a copy: found, or with a snapshot made. Blocks.
fn open_file(
    storage: &Arc<Storage>,
    name: SegmentName,
    epochs: &[(LeaderEpoch, Offset)],
    snapshot: Option<Bytes>,
) -> Result<Option<Arc<Segment>>, StorageError> {
    if storage.holds(&name) {
        match storage.recover(name.clone(), epochs, &mut |_| true) {
            Ok(recovered) => return Ok(Some(recovered.segment)),
            Err(StorageError::NotHere { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let Some(snapshot) = snapshot else { return Ok(None) };
    let leader_epoch = epochs.last().map_or(LeaderEpoch(-1), |(epoch, _)| *epoch);
    storage.create(name, CreateSegment { leader_epoch, snapshot }).map(Some)
}

/// Appends what the segment lacks of batches from `from` to `end`.
fn append_missing(segment: &Segment, from: Offset, end: Offset, bytes: &[u8]) -> Result<bool, NotTaken> {
    let have = segment.end();
    if end <= have {
        return Ok(false);
    }
    let (skip, reached) = whole_batches(bytes, from, have);
    if reached != have {
        let reason = format!("the copy ends at {have}, within a batch of the leader's");
        return Err(NotTaken::Invalid(reason));
    }
    segment.append_raw(&bytes[skip..]).map(|()| true).map_err(|error| match error {
        StorageError::NoSpace { .. } => Refusal::NoSpace.into(),
        StorageError::Sealed => Refusal::Sealed.into(),
        StorageError::NoHandles { .. } => Refusal::Busy.into(),
        StorageError::Failed { .. } | StorageError::Io { .. } => Refusal::StorageFailed.into(),
        error => NotTaken::Invalid(error.to_string()),
    })
}
