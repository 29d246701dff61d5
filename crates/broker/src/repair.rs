//! Brings copies of sealed segments where they are wanted: this broker fetches what it is to have and does not, and gives
//! up what others have enough of.
//!
//! Every broker plans from the same metadata ([`placement::repairs`]) and does its own part; what it has fetched or given
//! up it tells the metadata store. A copy that others should have and that nobody who lives can give is told once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::chain::{PartitionState, SegmentEntry, SegmentState};
use base::env::Env;
use base::ids::{BrokerId, Generation, PartitionId, SegmentId, StorageId, TopicPartition};
use metadata::{ChainEdit, Command, CommandResult, Image, MetadataStore, StorageHealth, Topic};
use replication::placement::{self, Repair};
use replication::stream::SealedCopy;
use replication::{Peers, SealedInfo, SegmentName, Storage, StorageState, WantedSegment, fetch_segment};

use crate::broker::Broker;
use crate::peers::candidates;

/// How often it is looked at what is missing, at least.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a segment whose fetching failed is left alone.
const FAILURE_PAUSE: Duration = Duration::from_secs(10);

/// A sealed segment of a partition.
type Segment = (TopicPartition, SegmentId, Generation);

/// What there is to do for this broker.
enum Task {
    Fetch { topic: Arc<str>, id: TopicPartition, entry: SegmentEntry, sources: Vec<(BrokerId, StorageId)> },
    GiveUp { id: TopicPartition, segment: (SegmentId, Generation), storage: StorageId },
}

/// What is remembered from one look to the next.
#[derive(Default)]
struct Memory {
    /// Until when a segment is left alone.
    failed: BTreeMap<Segment, Duration>,
    /// Segments that nobody has, of which it was told.
    missing: BTreeSet<Segment>,
}

/// Fetches and gives up.
pub(crate) struct Mender {
    pub(crate) env: Env,
    pub(crate) id: BrokerId,
    pub(crate) metadata: Arc<dyn MetadataStore>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) storages: Arc<Vec<Arc<Storage>>>,
    /// Held by whoever makes a copy until the metadata has it, and alone by who removes one that was given up: it may be
    /// wanted again by then.
    pub(crate) copying: tokio::sync::RwLock<()>,
}

impl Broker {
    /// Starts the task; it ends with the broker.
    pub(crate) fn spawn_repair(self: &Arc<Self>) {
        tokio::spawn(repair_for_ever(Arc::downgrade(self)));
    }
}

impl Mender {
    /// Fetches sealed segments of a partition that this broker is about to lead and does not have: its log needs all.
    /// Returns the partition then; `None` where one cannot be fetched yet.
    pub(crate) async fn complete(
        &self,
        topic: &Arc<str>,
        id: TopicPartition,
        state: Arc<PartitionState>,
    ) -> Option<Arc<PartitionState>> {
        let image = self.metadata.image();
        let own: Vec<StorageId> = self.storages.iter().map(|storage| storage.id()).collect();
        for entry in state.chain.iter().filter(|entry| !entry.is_open()) {
            if own.iter().any(|storage| entry.is_on(*storage)) {
                continue;
            }
            let sources = homes(&image)
                .into_iter()
                .filter(|(storage, broker)| *broker != self.id && entry.is_on(*storage));
            let sources = sources.map(|(storage, broker)| (broker, storage)).collect();
            let task = Task::Fetch { topic: topic.clone(), id, entry: entry.clone(), sources };
            if !self.carry_out(task).await {
                return None;
            }
        }
        self.metadata.image().partition(&id).cloned()
    }

    /// Does one thing; false when it failed.
    async fn carry_out(&self, task: Task) -> bool {
        let _copying = self.copying.read().await;
        let mut fetched = None;
        let (id, segment, edit) = match task {
            Task::GiveUp { id, segment, storage } => {
                (id, segment, ChainEdit::DropReplica { partition: id, segment, storage })
            }
            Task::Fetch { topic, id, entry, sources } => {
                let segment = (entry.id, entry.generation);
                let Some((storage, crc)) = self.fetch(&topic, id, &entry, sources).await else {
                    return false;
                };
                fetched = Some(SegmentName {
                    topic: topic.clone(),
                    partition: id,
                    id: entry.id,
                    generation: entry.generation,
                    base: entry.base,
                });
                (id, segment, ChainEdit::AddReplica { partition: id, segment, storage, crc })
            }
        };
        match self.metadata.propose(Command::Edit(vec![edit])).await {
            Ok(CommandResult::Chains(results)) if results.iter().all(Result::is_ok) => true,
            // The chain has moved on, or the copy was counted for others meanwhile: planned anew.
            other => {
                tracing::debug!(partition = %id, segment = %segment.0, ?other, "a copy is not noted");
                if let Some(name) = fetched {
                    self.remove_unlisted(name).await;
                }
                false
            }
        }
    }

    /// Removes the files of a segment that left the chain, or whose copy here did.
    pub(crate) async fn remove_copy(&self, name: SegmentName) {
        self.peers.replicas.forget(&name).await;
        let storages = self.storages.clone();
        let remove = move || {
            for storage in storages.iter().filter(|storage| storage.holds(&name)) {
                if let Err(error) = storage.remove(&name) {
                    tracing::warn!(topic = &*name.topic, %error, "a segment that left the chain is not removed yet");
                }
            }
        };
        self.env.blocking(remove).await;
    }

    /// Removes a copy whose segment left the chain while it was fetched: nobody else would know of it.
    async fn remove_unlisted(&self, name: SegmentName) {
        let image = self.metadata.image();
        let is_listed = image.partition(&name.partition).is_some_and(|state| {
            state.chain.iter().any(|entry| (entry.id, entry.generation) == (name.id, name.generation))
        });
        if !is_listed {
            self.remove_copy(name).await;
        }
    }

    /// Removes the copy of a segment that was given up, unless it was noted again meanwhile.
    pub(crate) async fn remove_given_up(&self, name: SegmentName) {
        let _alone = self.copying.write().await;
        let image = self.metadata.image();
        let is_noted = image.partition(&name.partition).is_some_and(|state| {
            let same = |entry: &&SegmentEntry| (entry.id, entry.generation) == (name.id, name.generation);
            let entry = state.chain.iter().find(same);
            entry.is_some_and(|entry| self.storages.iter().any(|storage| entry.is_on(storage.id())))
        });
        if !is_noted {
            self.remove_copy(name).await;
        }
    }

    /// Sees to it that this broker has a whole copy of a sealed segment. Tells on which storage, and its CRC.
    async fn fetch(
        &self,
        topic: &Arc<str>,
        id: TopicPartition,
        entry: &SegmentEntry,
        sources: Vec<(BrokerId, StorageId)>,
    ) -> Option<(StorageId, u32)> {
        let SegmentState::Sealed { end, crc, bytes, .. } = entry.state else { return None };
        // A member that was too slow for the seal may have all of it by now.
        if let Ok(SealedCopy::Whole(storage)) = self.peers.replicas.sealed(topic, id, entry).await {
            return Some((storage, crc));
        }
        let to = self.storage_for(id)?;
        let storage = to.id();
        let (generation, base) = (entry.generation, entry.base);
        let name = SegmentName { topic: topic.clone(), partition: id, id: entry.id, generation, base };
        self.peers.replicas.forget(&name).await;
        let sealed = SealedInfo { end, bytes, crc };
        let wanted = WantedSegment { env: &self.env, name, sealed, sources, to };
        match fetch_segment(&self.peers, &wanted).await {
            Ok(()) => Some((storage, crc)),
            Err(error) => {
                tracing::warn!(topic = &**topic, partition = id.partition.0, segment = %entry.id, %error, "a copy cannot be fetched yet");
                None
            }
        }
    }

    /// Where a partition's copy goes: the storage that has others of it, or the first that takes segments.
    fn storage_for(&self, id: TopicPartition) -> Option<Arc<Storage>> {
        let image = self.metadata.image();
        let state = image.partition(&id)?;
        let has = |storage: &Arc<Storage>| state.chain.iter().any(|entry| entry.is_on(storage.id()));
        // One that is getting full takes what no other can.
        let rank = |storage: &&Arc<Storage>| match storage.state() {
            StorageState::Writable => Some((0, !has(storage))),
            StorageState::ReadOnly => Some((1, !has(storage))),
            StorageState::NoSpace | StorageState::Failed(_) => None,
        };
        let found = self.storages.iter().filter(|storage| rank(storage).is_some()).min_by_key(rank);
        if found.is_none() {
            tracing::warn!(partition = %id, "no log directory takes a copy: all are full or failed");
        }
        found.cloned()
    }

    fn plan_repairs(&self, image: &Image, memory: &mut Memory) -> Vec<Task> {
        let candidates = candidates(image, |broker| !broker.fenced);
        let homes = homes(image);
        let now = self.env.clock.now();
        memory.failed.retain(|_, until| now < *until);
        let mut tasks = Vec::new();
        for topic in image.topics() {
            for (number, state) in topic.partitions.iter().enumerate() {
                // One copy is where its log is; there is nothing to bring anywhere.
                if is_alone(state) {
                    continue;
                }
                let partition = PartitionId(i32::try_from(number).unwrap_or(i32::MAX));
                let id = TopicPartition { topic_id: topic.id, partition };
                for repair in placement::repairs(state, &candidates, &homes) {
                    tasks.extend(self.task(topic, id, state, repair, &homes, memory));
                }
            }
        }
        tasks
    }

    /// This broker's part of a repair.
    fn task(
        &self,
        topic: &Topic,
        id: TopicPartition,
        state: &PartitionState,
        repair: Repair,
        homes: &BTreeMap<StorageId, BrokerId>,
        memory: &mut Memory,
    ) -> Option<Task> {
        match repair {
            Repair::Copy { segment, to, from } if to.broker == self.id => {
                // A broker that is no home of the partition gets a copy only where one of those is gone for long.
                let is_home = state.placement.contains(&self.id);
                if !is_home || memory.failed.contains_key(&(id, segment.0, segment.1)) {
                    return None;
                }
                let entry = state.chain.iter().find(|entry| (entry.id, entry.generation) == segment)?;
                let sources =
                    from.iter().filter_map(|storage| Some((*homes.get(storage)?, *storage))).collect();
                Some(Task::Fetch { topic: topic.name.clone(), id, entry: entry.clone(), sources })
            }
            // Who leads needs all segments, where no copies are wanted any more, too: another broker leads soon.
            Repair::Drop { segment, storage }
                if homes.get(&storage) == Some(&self.id) && state.leader != self.id =>
            {
                Some(Task::GiveUp { id, segment, storage })
            }
            Repair::Missing { segment } if memory.missing.insert((id, segment.0, segment.1)) => {
                tracing::error!(
                    topic = &*topic.name, partition = id.partition.0, segment = %segment.0,
                    "no broker that lives has this segment: start those that have it"
                );
                None
            }
            Repair::Copy { .. } | Repair::Drop { .. } | Repair::Missing { .. } => None,
        }
    }
}

/// Whether there is and shall be one copy, where the partition is led.
fn is_alone(state: &PartitionState) -> bool {
    let has_one = |entry: &SegmentEntry| match &entry.state {
        SegmentState::Open { ensemble } => ensemble.len() == 1,
        SegmentState::Sealed { replicas, .. } => replicas.len() == 1,
    };
    state.placement == [state.leader] && state.chain.iter().all(has_one)
}

/// Which broker that lives has which storage, of those that can be read.
fn homes(image: &Image) -> BTreeMap<StorageId, BrokerId> {
    let alive = image.brokers().filter(|broker| !broker.fenced);
    let homes = alive.flat_map(|broker| {
        let can_be_read =
            |state: &StorageHealth| matches!(state, StorageHealth::Writable | StorageHealth::ReadOnly);
        let storages = broker.storages.iter().filter(move |(_, state)| can_be_read(state));
        storages.map(|(storage, _)| (*storage, broker.registration.broker))
    });
    homes.collect()
}

async fn repair_for_ever(broker: Weak<Broker>) {
    let mut memory = Memory::default();
    let mut looked_at = None;
    loop {
        let Some(strong) = broker.upgrade() else { return };
        let sleep = strong.env.clock.sleep(LOOK_INTERVAL);
        drop(strong);
        sleep.await;
        let Some(strong) = broker.upgrade() else { return };
        let image = strong.image();
        let is_new = looked_at != Some(image.version) || !memory.failed.is_empty();
        if strong.drain.is_draining() || image.brokers().nth(1).is_none() || !is_new {
            continue;
        }
        looked_at = Some(image.version);
        for task in strong.mender.plan_repairs(&image, &mut memory) {
            let segment = match &task {
                Task::Fetch { id, entry, .. } => Some((*id, entry.id, entry.generation)),
                Task::GiveUp { .. } => None,
            };
            if !strong.mender.carry_out(task).await
                && let Some(segment) = segment
            {
                memory.failed.insert(segment, strong.env.clock.now() + FAILURE_PAUSE);
            }
        }
    }
}
