//! All metadata at one moment: an immutable value that every reader may hold on to.
//!
//! Topics, partitions and configs are persistent maps: a change shares all it does not touch, so an
//! image of 20,000 partitions is as cheap to change as a small one.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::chain::{Member, PartitionState};
use base::ids::{BrokerId, Incarnation, PartitionId, SegmentId, StorageId, TopicId, TopicPartition, Uuid};
use imbl::{OrdMap, Vector};

use crate::command::{Registration, Resource, StorageHealth, index};
use crate::proposals::Proposers;

/// A topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// Whether only brokers may write to it.
    pub internal: bool,
    /// Partitions by number.
    pub partitions: Vector<Arc<PartitionState>>,
}

impl Topic {
    /// One of its partitions.
    pub fn partition(&self, partition: PartitionId) -> Option<&Arc<PartitionState>> {
        self.partitions.get(index(partition)?)
    }

    /// Brokers that hold copies of a partition: the same for all when none was ever moved.
    pub fn replication_factor(&self) -> usize {
        self.partitions.front().map_or(0, |partition| partition.placement.len())
    }
}

/// A broker as it registered last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// What it said.
    pub registration: Registration,
    /// Number of its present life.
    pub incarnation: Incarnation,
    /// It did not show that it lives: it leads nothing new and is in no new ensemble.
    pub fenced: bool,
    /// It is about to end its life in order: it leads nothing that another broker can lead, and is in no new ensemble
    /// of others.
    pub draining: bool,
    /// Every log directory it has or had.
    pub storages: BTreeMap<StorageId, StorageHealth>,
}

/// Config values of one resource.
pub type Configs = Arc<BTreeMap<String, String>>;

/// All metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    /// Commands applied so far.
    pub version: u64,
    /// Id of the cluster; zero before it is bootstrapped.
    pub cluster_id: Uuid,
    pub(crate) brokers: OrdMap<BrokerId, Arc<Broker>>,
    pub(crate) topics: OrdMap<TopicId, Arc<Topic>>,
    pub(crate) names: OrdMap<Arc<str>, TopicId>,
    /// Topics whose names have `.` or `_`, by the name with `_` for each `.`. Follows from `names`.
    pub(crate) metric_names: OrdMap<Arc<str>, TopicId>,
    pub(crate) configs: OrdMap<Resource, Configs>,
    pub(crate) next_segment_id: u64,
    pub(crate) next_producer_id: i64,
    pub(crate) next_incarnation: i64,
    /// 0 before any was set.
    pub(crate) metadata_version: i16,
    /// The least number of a node that was never reserved.
    pub(crate) next_broker_id: i32,
    /// What was applied last of each proposer (see [`crate::proposals`]).
    pub(crate) proposers: Proposers,
}

impl Image {
    /// What the metadata may hold (see [`crate::MetadataVersions`]); 1 or more.
    pub fn metadata_version(&self) -> i16 {
        self.metadata_version.max(1)
    }

    /// The last segment id that was given; ids are given in ascending order.
    pub fn last_segment_id(&self) -> SegmentId {
        SegmentId(self.next_segment_id)
    }

    /// A topic by name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(name)?)
    }

    /// A topic by id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    /// All topics in the order of their names.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.names.values().filter_map(|id| self.topics.get(id))
    }

    /// A partition.
    pub fn partition(&self, partition: &TopicPartition) -> Option<&Arc<PartitionState>> {
        self.topics.get(&partition.topic_id)?.partition(partition.partition)
    }

    /// All brokers in the order of their ids.
    pub fn brokers(&self) -> impl Iterator<Item = &Arc<Broker>> {
        self.brokers.values()
    }

    /// A broker.
    pub fn broker(&self, id: BrokerId) -> Option<&Arc<Broker>> {
        self.brokers.get(&id)
    }

    /// Config values of a resource; empty when none were set.
    pub fn configs(&self, resource: &Resource) -> Configs {
        self.configs.get(resource).cloned().unwrap_or_default()
    }

    /// How many copies records of a partition need: `min.insync.replicas` as its leader has it, at most the replication
    /// factor (replication.md section 2.1). What was set for the topic counts, else for the leader, for all brokers, and
    /// last what the leader's own configuration says.
    pub fn copies_min(&self, id: &TopicPartition, replication_factor: usize) -> usize {
        const KEY: &str = "min.insync.replicas";
        let set = |resource: Resource| self.configs.get(&resource)?.get(KEY)?.trim().parse::<usize>().ok();
        let leader = self.partition(id).map(|state| state.leader);
        let topic = self.topics.get(&id.topic_id).map(|topic| topic.name.to_string());
        let own = || {
            let registration = &self.broker(leader?)?.registration;
            usize::try_from(registration.min_insync_replicas?).ok()
        };
        let wanted = topic
            .and_then(|topic| set(Resource::Topic(topic)))
            .or_else(|| set(Resource::Broker(leader?)))
            .or_else(|| set(Resource::AllBrokers))
            .or_else(own);
        wanted.unwrap_or(1).clamp(1, replication_factor.max(1))
    }

    /// Adds a topic under its id and names.
    pub(crate) fn insert_topic(&mut self, topic: Topic) {
        if let Some(metric_name) = metric_name(&topic.name) {
            self.metric_names.insert(metric_name.into(), topic.id);
        }
        self.names.insert(topic.name.clone(), topic.id);
        self.topics.insert(topic.id, Arc::new(topic));
    }

    /// Takes a topic out.
    pub(crate) fn remove_topic(&mut self, id: TopicId) -> Option<Arc<Topic>> {
        let topic = self.topics.remove(&id)?;
        self.names.remove(&topic.name);
        if let Some(metric_name) = metric_name(&topic.name) {
            self.metric_names.remove(&*metric_name);
        }
        Some(topic)
    }

    /// The topic that metrics would take for one of this name.
    pub(crate) fn metric_twin(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.metric_names.get(&*metric_name(name)?)?)
    }

    /// Whether a new segment may have the member: a storage that takes segments, if need be though it is nearly full, of
    /// a broker's present life, which is not fenced.
    pub(crate) fn is_usable(&self, member: &Member) -> bool {
        self.brokers.get(&member.broker).is_some_and(|broker| {
            broker.incarnation == member.incarnation
                && !broker.fenced
                && broker.storages.get(&member.storage).is_some_and(|state| state.can_be_read())
        })
    }

    /// Whether what a storage holds can be read now: it works, and its broker is not fenced.
    pub fn is_readable(&self, storage: StorageId) -> bool {
        let mut brokers = self.brokers.values().filter(|broker| !broker.fenced);
        brokers.any(|broker| broker.storages.get(&storage).is_some_and(|state| state.can_be_read()))
    }

    /// What a storage is good for; `None` for one that no broker ever had.
    pub fn storage_health(&self, storage: StorageId) -> Option<StorageHealth> {
        self.brokers.values().find_map(|broker| broker.storages.get(&storage).copied())
    }

    /// Resources that have config values, in order.
    pub fn configured(&self) -> impl Iterator<Item = (&Resource, &Configs)> {
        self.configs.iter()
    }
}

/// The name as metrics show it, where `.` and `_` are the same; `None` for a name without either, which
/// no other name can be taken for.
fn metric_name(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}
