//! The partitions this broker leads: opened at the start, kept in step with the metadata.
//!
//! Invariants: a partition is in the registry only while its log is open; one that cannot be opened
//! stays out with the reason, and only it is offline; topics are opened and closed by one task at a
//! time ([`Partitions::sync_topic`]), so a name that is deleted and created anew never mixes the two.

use std::collections::HashMap;
use std::sync::Arc;

use base::chain::PartitionState;
use base::config::{BrokerConfig, TopicSettings};
use base::env::Env;
use base::error::ErrorCode;
use base::ids::{BrokerId, Incarnation, PartitionId, TopicId, TopicPartition};
use base::metrics::Metrics;
use metadata::{Image, Resource, Topic};
use parking_lot::RwLock;
use replication::{ChainStore, Log, LogSpec, Storage, StorageError};

use crate::memory::ProducerMemory;
use crate::partition::{Partition, Producers};

/// Logs opened side by side at the start: enough to keep a disk and two cores busy.
const OPENING_AT_ONCE: usize = 4;

/// What opening a log needs.
pub(crate) struct Opening {
    pub(crate) env: Env,
    pub(crate) metrics: Metrics,
    pub(crate) broker: BrokerId,
    pub(crate) incarnation: Incarnation,
    pub(crate) storages: Arc<Vec<Arc<Storage>>>,
    pub(crate) store: Arc<dyn ChainStore>,
    pub(crate) producers: Arc<ProducerMemory>,
}

enum Slot {
    Open(Arc<Partition>),
    /// The files of this topic's partition cannot be used.
    Offline(Arc<str>),
}

/// The registry. See the module's head.
pub(crate) struct Partitions {
    opening: Arc<Opening>,
    slots: RwLock<HashMap<TopicPartition, Slot>>,
    /// Held while topics are opened or closed.
    topology: tokio::sync::Mutex<()>,
}

impl Partitions {
    pub(crate) fn new(opening: Opening) -> Partitions {
        Partitions {
            opening: Arc::new(opening),
            slots: RwLock::default(),
            topology: tokio::sync::Mutex::new(()),
        }
    }

    /// A partition by id.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC_OR_PARTITION`, or `KAFKA_STORAGE_ERROR` for one that is offline.
    pub(crate) fn get(&self, id: TopicPartition) -> Result<Arc<Partition>, ErrorCode> {
        match self.slots.read().get(&id) {
            Some(Slot::Open(partition)) => Ok(partition.clone()),
            Some(Slot::Offline(_)) => Err(ErrorCode::KafkaStorageError),
            None => Err(ErrorCode::UnknownTopicOrPartition),
        }
    }

    /// All open partitions.
    pub(crate) fn all(&self) -> Vec<Arc<Partition>> {
        let open = |slot: &Slot| match slot {
            Slot::Open(partition) => Some(partition.clone()),
            Slot::Offline(_) => None,
        };
        self.slots.read().values().filter_map(open).collect()
    }

    /// Number of partitions, and of those that are offline.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let slots = self.slots.read();
        (slots.len(), slots.values().filter(|slot| matches!(slot, Slot::Offline(_))).count())
    }

    /// Opens every partition of the image; at the start.
    pub(crate) async fn open_all(&self, image: &Image, config: &BrokerConfig) {
        let _topology = self.topology.lock().await;
        let mut wanted = Vec::new();
        for topic in image.topics() {
            self.collect_missing(topic, &settings_of(image, config, &topic.name), &mut wanted);
        }
        self.open(wanted).await;
    }

    /// Brings one topic in step with the metadata: opens new partitions, closes and removes those of a
    /// deleted topic, takes over changed settings.
    pub(crate) async fn sync_topic(&self, image: &Image, config: &BrokerConfig, id: TopicId) {
        let _topology = self.topology.lock().await;
        match image.topic_by_id(id) {
            Some(topic) => {
                let settings = settings_of(image, config, &topic.name);
                self.configure(id, &settings);
                let mut wanted = Vec::new();
                self.collect_missing(topic, &settings, &mut wanted);
                self.open(wanted).await;
            }
            None => self.remove(id).await,
        }
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
                let (topic, settings, state) = (topic.name.clone(), settings.clone(), state.clone());
                wanted.push(Wanted { id, topic, settings, state });
            }
        }
    }

    async fn open(&self, wanted: Vec<Wanted>) {
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

    async fn remove(&self, id: TopicId) {
        let gone: Vec<_> = self.slots.write().extract_if(|partition, _| partition.topic_id == id).collect();
        for (_, slot) in &gone {
            if let Slot::Open(partition) = slot {
                self.opening.metrics.forget_topic(&partition.topic);
                partition.log.abandon();
            }
        }
        let storages = self.opening.storages.clone();
        let remove = move || {
            for (id, slot) in gone {
                let topic = match &slot {
                    Slot::Open(partition) => &partition.topic,
                    Slot::Offline(topic) => topic,
                };
                for storage in storages.iter() {
                    if let Err(error) = storage.remove_partition(topic, id) {
                        tracing::warn!(topic = &**topic, %error, "files of a deleted topic are not removed yet");
                    }
                }
            }
        };
        self.opening.env.blocking(remove).await;
    }
}

/// A partition to open.
struct Wanted {
    id: TopicPartition,
    topic: Arc<str>,
    settings: Arc<TopicSettings>,
    state: Arc<PartitionState>,
}

impl Opening {
    fn open(&self, wanted: Wanted) -> (TopicPartition, Slot) {
        let Wanted { id, topic, settings, state } = wanted;
        let slot = match self.open_log(id, topic.clone(), settings, state) {
            Ok(log) => {
                let metrics = self.metrics.topic(&topic);
                Slot::Open(Partition::new(topic, log, metrics))
            }
            Err(error) => {
                tracing::error!(topic = &*topic, partition = id.partition.0, %error, "the partition is offline");
                Slot::Offline(topic)
            }
        };
        (id, slot)
    }

    fn open_log(
        &self,
        partition: TopicPartition,
        topic: Arc<str>,
        settings: Arc<TopicSettings>,
        state: Arc<PartitionState>,
    ) -> Result<Arc<Log<Producers>>, StorageError> {
        let spec = LogSpec {
            env: self.env.clone(),
            partition,
            topic,
            broker: self.broker,
            incarnation: self.incarnation,
            storages: self.storages.clone(),
            store: self.store.clone(),
            settings,
        };
        Log::open(spec, state, Producers::new(self.env.clock.wall_ms(), self.producers.clone()))
    }
}

/// The settings of a topic as its own and the brokers' values make them.
pub(crate) fn settings_of(image: &Image, config: &BrokerConfig, topic: &str) -> Arc<TopicSettings> {
    Arc::new(TopicSettings::resolve(config, &image.configs(&Resource::Topic(topic.to_owned()))))
}
