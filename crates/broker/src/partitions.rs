//! The partitions this broker leads: opened at the start, kept in step with the metadata. One that another broker leads
//! from now on is closed. Where others may hold more of the open segment than this broker, it is taken over first, in a
//! task of its own and as often as it takes.
//!
//! Invariants: a partition is in the registry only while its log is open; one that cannot be opened
//! stays out with the reason, and only it is offline; topics are opened and closed by one task at a
//! time ([`Partitions::sync_topic`]), so a name that is deleted and created anew never mixes the two.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use base::chain::PartitionState;
use base::config::{BrokerConfig, TopicSettings};
use base::env::Env;
use base::error::ErrorCode;
use base::ids::{BrokerId, Incarnation, LeaderEpoch, PartitionId, StorageId, TopicId, TopicPartition};
use base::metrics::Metrics;
use metadata::{ChainEdit, Command, Image, Resource, Topic};
use parking_lot::RwLock;
use replication::stream::Local;
use replication::{ChainStore, Log, LogSpec, Peers, Storage, TakeOverError, must_take_over, take_over};
use tokio::sync::{Notify, Semaphore};

use crate::memory::ProducerMemory;
use crate::partition::{Partition, Producers};
use crate::repair::Mender;

/// Logs opened side by side at the start: enough to keep a disk and two cores busy.
const OPENING_AT_ONCE: usize = 4;

/// Partitions taken over side by side: most of the time each waits for others.
const TAKEN_OVER_AT_ONCE: usize = 256;

/// Pauses between two attempts to take a partition over.
const TAKE_OVER_PAUSE_MIN: Duration = Duration::from_millis(100);
const TAKE_OVER_PAUSE_MAX: Duration = Duration::from_secs(2);

/// What opening a log needs.
pub(crate) struct Opening {
    pub(crate) env: Env,
    pub(crate) metrics: Metrics,
    pub(crate) broker: BrokerId,
    pub(crate) incarnation: Incarnation,
    pub(crate) storages: Arc<Vec<Arc<Storage>>>,
    pub(crate) store: Arc<dyn ChainStore>,
    pub(crate) producers: Arc<ProducerMemory>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) mender: Arc<Mender>,
}

enum Slot {
    /// It is being taken over in this epoch.
    Opening(LeaderEpoch),
    Open(Arc<Partition>),
    /// Its files cannot be used.
    Offline,
}

impl Slot {
    fn is_opening_in(&self, epoch: LeaderEpoch) -> bool {
        matches!(self, Slot::Opening(own) if *own == epoch)
    }
}

/// Without random keys: partitions are looked at in an order that follows from their ids, which we have drawn ourselves.
type Slots = HashMap<TopicPartition, Slot, BuildHasherDefault<DefaultHasher>>;

/// The registry. See the module's head.
pub(crate) struct Partitions {
    opening: Arc<Opening>,
    slots: RwLock<Slots>,
    /// Held while topics are opened or closed.
    topology: tokio::sync::Mutex<()>,
    /// Told when a partition was taken over, and at the end.
    taken_over: Arc<Notify>,
    /// Bounds what is taken over side by side.
    turns: Semaphore,
}

impl Partitions {
    pub(crate) fn new(opening: Opening) -> Arc<Partitions> {
        Arc::new(Partitions {
            opening: Arc::new(opening),
            slots: RwLock::default(),
            topology: tokio::sync::Mutex::new(()),
            taken_over: Arc::default(),
            turns: Semaphore::new(TAKEN_OVER_AT_ONCE),
        })
    }

    /// A partition by id.
    ///
    /// # Errors
    /// `NOT_LEADER_OR_FOLLOWER`, or `KAFKA_STORAGE_ERROR` for one that is offline.
    pub(crate) fn get(&self, id: TopicPartition) -> Result<Arc<Partition>, ErrorCode> {
        match self.slots.read().get(&id) {
            Some(Slot::Open(partition)) => Ok(partition.clone()),
            Some(Slot::Offline) => Err(ErrorCode::KafkaStorageError),
            Some(Slot::Opening(_)) | None => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// All open partitions.
    pub(crate) fn all(&self) -> Vec<Arc<Partition>> {
        let open = |slot: &Slot| match slot {
            Slot::Open(partition) => Some(partition.clone()),
            Slot::Opening(_) | Slot::Offline => None,
        };
        self.slots.read().values().filter_map(open).collect()
    }

    /// Number of partitions, and of those that are offline.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let slots = self.slots.read();
        (slots.len(), slots.values().filter(|slot| matches!(slot, Slot::Offline)).count())
    }

    /// Partitions that are being taken over, and the epoch of each.
    pub(crate) fn opening(&self) -> Vec<(TopicPartition, LeaderEpoch)> {
        let opening = |(id, slot): (&TopicPartition, &Slot)| match slot {
            Slot::Opening(epoch) => Some((*id, *epoch)),
            Slot::Open(_) | Slot::Offline => None,
        };
        self.slots.read().iter().filter_map(opening).collect()
    }

    /// Whether a partition is being taken over.
    pub(crate) fn is_opening(&self, id: TopicPartition) -> bool {
        matches!(self.slots.read().get(&id), Some(Slot::Opening(_)))
    }

    /// Told when a partition was taken over, and when nothing is led any more.
    pub(crate) fn taken_over(&self) -> Arc<Notify> {
        self.taken_over.clone()
    }

    /// Another broker was elected in `epoch`: what this one led before it leads no more.
    pub(crate) fn fence(&self, id: TopicPartition, epoch: LeaderEpoch) -> Local {
        let mut slots = self.slots.write();
        let own = match slots.get(&id) {
            None | Some(Slot::Offline) => return Local::Follows,
            // It is this broker itself that asks.
            Some(Slot::Opening(own)) if *own == epoch => return Local::Follows,
            Some(Slot::Opening(own)) => *own,
            Some(Slot::Open(partition)) => partition.log.leader_epoch(),
        };
        if own >= epoch {
            return Local::Leads(own);
        }
        match slots.remove(&id) {
            Some(Slot::Open(partition)) => {
                let open = partition.log.resign();
                Local::Stopped { open, high_watermark: partition.log.high_watermark() }
            }
            _ => Local::Follows,
        }
    }

    /// Opens every partition of the image; at the start.
    pub(crate) async fn open_all(self: &Arc<Self>, image: &Image, config: &BrokerConfig) {
        let _topology = self.topology.lock().await;
        let mut wanted = Vec::new();
        for topic in image.topics() {
            self.collect_missing(topic, &settings_of(image, config, &topic.name), &mut wanted);
        }
        self.open(wanted).await;
    }

    /// Brings one topic in step with the metadata: opens partitions that this broker leads from now on, closes those
    /// that it does not lead any more, takes over changed settings. Does nothing for one that is gone
    /// ([`Partitions::remove`]).
    pub(crate) async fn sync_topic(self: &Arc<Self>, image: &Image, config: &BrokerConfig, id: TopicId) {
        let _topology = self.topology.lock().await;
        let Some(topic) = image.topic_by_id(id) else { return };
        let settings = settings_of(image, config, &topic.name);
        self.configure(id, &settings);
        self.close_lost(topic);
        let mut wanted = Vec::new();
        self.collect_missing(topic, &settings, &mut wanted);
        self.open(wanted).await;
    }

    /// Takes over changed settings of every topic.
    pub(crate) fn configure_all(&self, image: &Image, config: &BrokerConfig) {
        for topic in image.topics() {
            self.configure(topic.id, &settings_of(image, config, &topic.name));
        }
    }

    fn configure(&self, id: TopicId, settings: &Arc<TopicSettings>) {
        for (partition, slot) in self.slots.read().iter() {
            if let Slot::Open(open) = slot
                && partition.topic_id == id
            {
                open.log.configure(settings.clone());
            }
        }
    }

    fn collect_missing(&self, topic: &Topic, settings: &Arc<TopicSettings>, wanted: &mut Vec<Wanted>) {
        let slots = self.slots.read();
        for (number, state) in topic.partitions.iter().enumerate() {
            let number = PartitionId(i32::try_from(number).unwrap_or(i32::MAX));
            let id = TopicPartition { topic_id: topic.id, partition: number };
            if state.leader == self.opening.broker && !slots.contains_key(&id) {
                let spec = self.opening.spec(id, topic.name.clone(), settings.clone());
                wanted.push(Wanted { spec, state: state.clone() });
            }
        }
    }

    /// Closes partitions of the topic that another broker leads now, or this one in a later epoch. Who waits for a
    /// commit is sent there.
    fn close_lost(&self, topic: &Topic) {
        let is_lost = |id: &TopicPartition, slot: &Slot| {
            let own = match slot {
                Slot::Opening(epoch) => Some(*epoch),
                Slot::Open(partition) => Some(partition.log.leader_epoch()),
                Slot::Offline => None,
            };
            // This image may be older than what was opened: from a later one, which others have seen before.
            let is_others = |state: &PartitionState| match own {
                Some(own) if state.leader_epoch == own => state.leader != self.opening.broker,
                Some(own) => state.leader_epoch > own,
                None => state.leader != self.opening.broker,
            };
            id.topic_id == topic.id && topic.partition(id.partition).is_some_and(|state| is_others(state))
        };
        let lost: Vec<_> = self.slots.write().extract_if(|id, slot| is_lost(id, slot)).collect();
        for (id, slot) in lost {
            if let Slot::Open(partition) = slot {
                tracing::info!(topic = &*topic.name, partition = id.partition.0, "another broker leads now");
                partition.log.abandon();
            }
        }
    }

    async fn open(self: &Arc<Self>, wanted: Vec<Wanted>) {
        let is_others = |wanted: &mut Wanted| must_take_over(&wanted.spec, &wanted.state);
        let mut wanted = wanted;
        let others: Vec<Wanted> = wanted.extract_if(.., is_others).collect();
        for wanted in others {
            let epoch = wanted.state.leader_epoch;
            self.slots.write().insert(wanted.spec.partition, Slot::Opening(epoch));
            tokio::spawn(take_over_and_open(self.clone(), wanted));
        }
        let share = wanted.len().div_ceil(OPENING_AT_ONCE).max(1);
        let mut shares = Vec::new();
        let mut wanted = wanted.into_iter().peekable();
        while wanted.peek().is_some() {
            let share: Vec<_> = wanted.by_ref().take(share).collect();
            let opening = self.opening.clone();
            let env = self.opening.env.clone();
            shares.push(async move {
                env.blocking(move || share.into_iter().map(|one| opening.open(one)).collect::<Vec<_>>()).await
            });
        }
        for opened in futures::future::join_all(shares).await {
            self.slots.write().extend(opened);
        }
    }

    /// Takes a partition over as often as it takes, and completes what its log needs. `None` when another broker leads it.
    async fn take_over(&self, spec: &LogSpec, epoch: LeaderEpoch) -> Option<Arc<PartitionState>> {
        let (id, topic) = (spec.partition, &spec.topic);
        let mut pause = TAKE_OVER_PAUSE_MIN;
        while self.slots.read().get(&id).is_some_and(|slot| slot.is_opening_in(epoch)) {
            // Never closed.
            let turn = self.turns.acquire().await;
            // An attempt whose answer was lost may have been made.
            let state = self.opening.store.partition(id);
            let state = state.filter(|state| (state.leader, state.leader_epoch) == (spec.broker, epoch));
            let Some(state) = state else {
                self.give_up(id, epoch);
                return None;
            };
            let taken = match must_take_over(spec, &state) {
                true => take_over(spec, &state).await,
                false => Ok(state.clone()),
            };
            match taken {
                Ok(taken) => {
                    let is_cut = taken.chain.iter().rev().take(2).any(|entry| entry.unclean);
                    if state.unclean && (is_cut || taken.log_start > state.log_start) {
                        self.opening.metrics.node().unclean_elections.inc();
                    }
                    let whole = self.opening.mender.complete(topic, id, taken).await;
                    if let Some(whole) =
                        whole.filter(|state| (state.leader, state.leader_epoch) == (spec.broker, epoch))
                    {
                        return Some(whole);
                    }
                }
                Err(error @ TakeOverError::Superseded(_)) => {
                    tracing::info!(topic = &**topic, partition = id.partition.0, %error, "another broker leads now");
                    self.give_up(id, epoch);
                    return None;
                }
                Err(error) => {
                    tracing::warn!(topic = &**topic, partition = id.partition.0, %error, "the partition cannot be taken over yet");
                    if let TakeOverError::Uncovered { doubtful, .. } = error {
                        self.note_doubt(id, &state, doubtful).await;
                    }
                }
            }
            drop(turn);
            // What is in the way may be gone when it is tried again.
            spec.env.clock.sleep(pause).await;
            pause = (2 * pause).min(TAKE_OVER_PAUSE_MAX);
        }
        None
    }

    /// Tells the metadata of members of the open segment that may have lost records, unless it knows.
    async fn note_doubt(&self, partition: TopicPartition, state: &PartitionState, storages: Vec<StorageId>) {
        if storages.iter().all(|storage| state.doubtful.contains(storage)) {
            return;
        }
        let segment = state.last().id;
        let doubt = Command::Edit(vec![ChainEdit::Doubt { partition, segment, storages }]);
        if let Err(error) = self.opening.mender.metadata.propose(doubt).await {
            tracing::warn!(%partition, %error, "the controllers do not hear that members may have lost records");
        }
    }

    /// Forgets a partition that was being taken over in this epoch.
    fn give_up(&self, id: TopicPartition, epoch: LeaderEpoch) {
        let mut slots = self.slots.write();
        if slots.get(&id).is_some_and(|slot| slot.is_opening_in(epoch)) {
            slots.remove(&id);
        }
    }

    /// Closes the partitions of a topic that was deleted, and removes their files.
    pub(crate) async fn remove(&self, topic: &Topic) {
        let _topology = self.topology.lock().await;
        let own: Vec<StorageId> = self.opening.storages.iter().map(|storage| storage.id()).collect();
        let mut gone = Vec::new();
        for (number, state) in topic.partitions.iter().enumerate() {
            let partition = PartitionId(i32::try_from(number).unwrap_or(i32::MAX));
            let id = TopicPartition { topic_id: topic.id, partition };
            let slot = self.slots.write().remove(&id);
            if let Some(Slot::Open(partition)) = &slot {
                partition.log.abandon();
            }
            if slot.is_some() || state.chain.iter().any(|entry| own.iter().any(|own| entry.is_on(*own))) {
                self.opening.peers.replicas.remove(id);
                gone.push(id);
            }
        }
        self.opening.metrics.forget_topic(&topic.name);
        let (storages, name) = (self.opening.storages.clone(), topic.name.clone());
        let remove = move || {
            for id in gone {
                for storage in storages.iter() {
                    if let Err(error) = storage.remove_partition(&name, id) {
                        tracing::warn!(topic = &*name, %error, "files of a deleted topic are not removed yet");
                    }
                }
            }
        };
        self.opening.env.blocking(remove).await;
    }
}

impl Drop for Partitions {
    fn drop(&mut self) {
        self.taken_over.notify_one();
    }
}

/// Takes a partition over until that is done or another broker leads it, and opens it.
async fn take_over_and_open(partitions: Arc<Partitions>, wanted: Wanted) {
    let Wanted { spec, state } = wanted;
    let (id, topic, epoch) = (spec.partition, spec.topic.clone(), state.leader_epoch);
    let Some(taken) = partitions.take_over(&spec, epoch).await else { return };
    let end = taken.last().base;
    partitions.opening.peers.replicas.release(id).await;
    let (opening, env) = (partitions.opening.clone(), spec.env.clone());
    let (_, slot) = env.blocking(move || opening.open(Wanted { spec, state: taken })).await;
    let opened = matches!(slot, Slot::Open(_));
    {
        let mut slots = partitions.slots.write();
        match slots.get_mut(&id) {
            Some(opening) if opening.is_opening_in(epoch) => *opening = slot,
            // Another broker was faster.
            _ => {
                if let Slot::Open(partition) = slot {
                    partition.log.abandon();
                }
                return;
            }
        }
    }
    if opened {
        tracing::info!(
            topic = &*topic,
            partition = id.partition.0,
            epoch = epoch.0,
            end,
            "leads the partition"
        );
    }
    partitions.taken_over.notify_one();
}

/// A partition to open.
struct Wanted {
    spec: LogSpec,
    state: Arc<PartitionState>,
}

impl Opening {
    fn spec(&self, partition: TopicPartition, topic: Arc<str>, settings: Arc<TopicSettings>) -> LogSpec {
        LogSpec {
            env: self.env.clone(),
            partition,
            topic,
            broker: self.broker,
            incarnation: self.incarnation,
            storages: self.storages.clone(),
            store: self.store.clone(),
            settings,
            peers: Some(self.peers.clone()),
        }
    }

    fn open(&self, wanted: Wanted) -> (TopicPartition, Slot) {
        let Wanted { spec, state } = wanted;
        let (id, topic) = (spec.partition, spec.topic.clone());
        let producers = Producers::new(self.env.clock.wall_ms(), self.producers.clone());
        let slot = match Log::open(spec, state, producers) {
            Ok(log) => {
                let metrics = self.metrics.topic(&topic);
                Slot::Open(Partition::new(topic, log, metrics))
            }
            Err(error) => {
                tracing::error!(topic = &*topic, partition = id.partition.0, %error, "the partition is offline");
                Slot::Offline
            }
        };
        (id, slot)
    }
}

/// The settings of a topic as its own and the brokers' values make them.
pub(crate) fn settings_of(image: &Image, config: &BrokerConfig, topic: &str) -> Arc<TopicSettings> {
    Arc::new(TopicSettings::resolve(config, &image.configs(&Resource::Topic(topic.to_owned()))))
}
