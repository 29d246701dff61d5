//! The broker: what a process that serves clients consists of, how it starts and how it ends.
//!
//! ```text
//!  start: register (new incarnation) ─► elect for its partitions ─► open logs ─► load groups ─► listen
//!  end:   others lead ─► stop accepting, drain ─► close logs ─► (the caller shuts storages and metadata down)
//! ```
//!
//! It knows neither files nor HTTP nor Raft: storages and the metadata store are handed in.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use base::config::{BrokerConfig, keys};
use base::env::Env;
use base::error::ErrorCode;
use base::ids::{BrokerId, Incarnation, PartitionId, TimestampMs, TopicId, TopicPartition};
use base::metrics::{Metrics, TopicMetrics};
use metadata::{
    Command, CommandResult, Endpoint, Image, MetadataStore, MetadataVersions, ProposeError, Registration,
    Topic,
};
use parking_lot::Mutex;
use replication::stream::BrokerLife;
use replication::{Peers, Storage, StorageError};

use crate::catch_up::CatchUp;
use crate::chain_store::MetadataChains;
use crate::dispatch::Dispatcher;
use crate::groups::Groups;
use crate::memory::{MemoryShares, ProducerMemory};
use crate::net::{
    BindError, DrainSignal, DrainTrigger, Limits, MemoryBudget, Server, ServerOptions, drain_channel,
};
use crate::partition::Partition;
use crate::partitions::{Opening, Partitions};
use crate::peers::{Leaders, PeersSpec, peers};
use crate::probation::Probation;
use crate::producer_ids::ProducerIds;
use crate::repair::Mender;
use crate::session::FetchSessions;
use crate::status::BrokerProbe;

/// How long requests in flight may take to finish when the broker drains.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// How long after `broker.session.timeout.ms` the controllers may take to find that the last process with this number is
/// gone, when its log directories were others.
const REGISTRATION_GRACE: Duration = Duration::from_secs(2);
/// Pause before a registration is tried again.
const REGISTER_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// File handles for what is neither a connection nor a segment: metadata, the console, the runtime.
const HANDLES_RESERVED: usize = 64;

/// What a broker is made of.
pub struct BrokerParts {
    /// The world.
    pub env: Env,
    /// The parsed configuration.
    pub config: Arc<BrokerConfig>,
    /// The metadata store, already open.
    pub metadata: Arc<dyn MetadataStore>,
    /// The log directories, already open; at least one.
    pub storages: Vec<Arc<Storage>>,
    /// Where everything is counted.
    pub metrics: Metrics,
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A log directory is another cluster's.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// No log directory can be used.
    #[error("no log directory can be used; see log.dirs")]
    NoStorage,
    /// The metadata store did not answer.
    #[error(transparent)]
    Metadata(#[from] ProposeError),
    /// The metadata store refused this broker.
    #[error("the controllers refuse broker {broker}: {reason}")]
    Refused {
        /// `node.id`.
        broker: BrokerId,
        /// Why.
        reason: String,
        /// Another process has the number, and lives.
        is_taken: bool,
    },
    /// A listener cannot be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// A running broker. See the module's head.
pub struct Broker {
    pub(crate) env: Env,
    pub(crate) id: BrokerId,
    pub(crate) incarnation: Incarnation,
    /// Wall clock when this life began.
    pub(crate) started_at_ms: TimestampMs,
    pub(crate) metadata: Arc<dyn MetadataStore>,
    pub(crate) metrics: Metrics,
    /// The way to other brokers, and what this one holds for them.
    pub(crate) peers: Arc<Peers>,
    /// Brings copies where they are wanted.
    pub(crate) mender: Arc<Mender>,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) catch_up: CatchUp,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) sessions: FetchSessions,
    pub(crate) groups: Groups,
    pub(crate) storages: Arc<Vec<Arc<Storage>>>,
    /// Clock's `now` when the last heartbeat was sent that was heard.
    pub(crate) heard_at: Mutex<Duration>,
    /// Who gets no new segments for a while.
    pub(crate) probation: Mutex<Probation>,
    /// Heard by requests that wait: the broker ends.
    pub(crate) drain: DrainSignal,
    /// What connections hold, and so how large one more answer should be.
    pub(crate) memory: Arc<MemoryBudget>,
    /// How much memory clients may take, and for what; as it was at the start.
    shares: MemoryShares,
    config: ArcSwap<BrokerConfig>,
    server: OnceLock<Server<Dispatcher>>,
    /// Taken and said when the broker ends.
    trigger: Mutex<Option<DrainTrigger>>,
}

impl Broker {
    /// Starts a broker and listens.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(parts: BrokerParts) -> Result<Arc<Broker>, StartError> {
        if parts.storages.is_empty() {
            return Err(StartError::NoStorage);
        }
        let cluster_id = parts.metadata.image().cluster_id;
        for storage in &parts.storages {
            let storage = storage.clone();
            parts.env.blocking(move || storage.claim(cluster_id)).await?;
        }
        let id = BrokerId(parts.config.get(keys::NODE_ID));
        let incarnation = register(&parts, id).await?;
        parts.metadata.propose(Command::ElectAll { leader: id }).await?;
        let broker = Broker::assemble(parts, BrokerLife { broker: id, incarnation });
        broker.reload_config();
        let config = broker.config();
        let image = broker.image();
        broker.partitions.open_all(&image, &config).await;
        broker.groups.load(&broker).await;
        broker.metrics.set_probe(BrokerProbe(Arc::downgrade(&broker)));
        broker.spawn_heartbeats();
        broker.spawn_keeper();
        broker.spawn_repair(&image, &config);
        broker.spawn_sweeper();
        broker.spawn_scrub();
        broker.spawn_resigning();
        broker.follow_metadata(image.clone());
        broker.spawn_compaction(image);
        broker.listen(&config).await?;
        Ok(broker)
    }

    /// Puts together what a broker consists of. Nothing is opened yet.
    fn assemble(parts: BrokerParts, life: BrokerLife) -> Arc<Broker> {
        let BrokerParts { env, config, metadata, storages, metrics } = parts;
        let BrokerLife { broker: id, incarnation } = life;
        let shares = MemoryShares::from_config(&config, env.disk.memory_max_bytes());
        shares.show(metrics.node());
        let storages = Arc::new(storages);
        let leading = Arc::new(Leaders::default());
        let peers = peers(PeersSpec {
            env: &env,
            config: &config,
            metadata: &metadata,
            life,
            storages: &storages,
            leading: leading.clone(),
        });
        let (store, node_metrics) = (metadata.clone(), metrics.node().clone());
        let mender =
            Mender::new(env.clone(), id, store, peers.clone(), storages.clone(), node_metrics.clone());
        let mender = Arc::new(mender);
        let partitions = Partitions::new(Opening {
            env: env.clone(),
            metrics: metrics.clone(),
            broker: id,
            incarnation,
            storages: storages.clone(),
            store: Arc::new(MetadataChains(metadata.clone())),
            producers: ProducerMemory::new(shares.producer_bytes, metrics.node().clone()),
            peers: peers.clone(),
            mender: mender.clone(),
        });
        leading.are(&partitions);
        let (trigger, drain) = drain_channel();
        let (slots, bytes) = (fetch_session_slots(&config), shares.fetch_session_bytes);
        Arc::new(Broker {
            id,
            incarnation,
            started_at_ms: env.clock.wall_ms(),
            heard_at: Mutex::new(env.clock.now()),
            probation: Mutex::default(),
            peers,
            mender,
            partitions,
            catch_up: CatchUp::default(),
            producer_ids: ProducerIds::new(metadata.clone()),
            sessions: FetchSessions::new(env.clone(), slots, bytes, node_metrics),
            groups: Groups::new(env.clone(), &config, &shares),
            drain,
            memory: MemoryBudget::new(shares.request_bytes),
            shares,
            config: ArcSwap::new(config),
            server: OnceLock::new(),
            trigger: Mutex::new(Some(trigger)),
            storages,
            metadata,
            metrics,
            env,
        })
    }

    async fn listen(self: &Arc<Self>, config: &BrokerConfig) -> Result<(), StartError> {
        let limits = self.limits(config);
        let options = ServerOptions {
            listeners: config.client_listeners().to_vec(),
            budget: self.memory.clone(),
            limits,
            drain: self.drain.clone(),
            http_address: config.http_listener().map(|address| address.to_string()),
            metrics: self.metrics.node().clone(),
        };
        let dispatcher = Arc::new(Dispatcher::new(self.clone()));
        let server = Server::start(self.env.clone(), options, dispatcher).await?;
        // A broker listens once: the cell is empty.
        let _ = self.server.set(server);
        Ok(())
    }

    /// What the configuration allows, and the operating system: sockets get the third of the file handles that
    /// log directories leave, less some for everything else.
    fn limits(&self, config: &BrokerConfig) -> Limits {
        let limits = Limits::from_config(config, &self.shares);
        let sockets_max = (self.env.disk.open_files_max() / 3).saturating_sub(HANDLES_RESERVED).max(1);
        Limits { connections_max: limits.connections_max.min(sockets_max), ..limits }
    }

    /// Name and address of every listener.
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.server.get().map(|server| server.listeners().to_vec()).unwrap_or_default()
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.server.get().map_or(0, Server::connections)
    }

    /// Whether another process began a later life of this broker.
    fn is_replaced(&self, image: &Image) -> bool {
        image.broker(self.id).is_some_and(|broker| broker.incarnation > self.incarnation)
    }

    /// Completes when another process serves as this broker: it was let in because this one was silent for too long. Nobody
    /// heeds this one any more, so it should end.
    pub async fn replaced(&self) {
        let mut images = self.metadata.subscribe();
        if images.wait_for(|image| self.is_replaced(image)).await.is_err() {
            std::future::pending().await
        }
    }

    /// Ends the broker: others lead what they can, no new connections, requests in flight are finished (parked fetches at
    /// once), logs are closed with a checkpoint, and the controllers are told that it is gone. The caller then shuts storages
    /// and metadata store down.
    pub async fn shutdown(&self) {
        let in_order =
            self.config().get(keys::CONTROLLED_SHUTDOWN_ENABLE) && !self.is_replaced(&self.image());
        let is_known = in_order && self.hand_over().await;
        // The guard must not be held while waiting.
        let trigger = self.trigger.lock().take();
        if let Some(trigger) = trigger {
            trigger.drain();
        }
        if let Some(server) = self.server.get() {
            let left = server.drained(DRAIN_PATIENCE).await;
            if left > 0 {
                tracing::warn!(
                    connections = left,
                    "connections were cut: their requests did not finish in time"
                );
            }
        }
        for partition in self.partitions.all() {
            partition.log.close();
        }
        if is_known {
            self.take_leave().await;
        }
    }

    /// The configuration now.
    pub fn config(&self) -> Arc<BrokerConfig> {
        self.config.load_full()
    }

    /// Takes over changed dynamic values.
    pub(crate) fn set_config(&self, config: Arc<BrokerConfig>) {
        self.partitions.configure_all(&self.image(), &config);
        if let Some(server) = self.server.get() {
            server.set_limits(self.limits(&config));
        }
        self.config.store(config);
    }

    /// The metadata now.
    pub fn image(&self) -> Arc<Image> {
        self.metadata.image()
    }

    /// A partition by the name of its topic.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC_OR_PARTITION`, `NOT_LEADER_OR_FOLLOWER`, or `KAFKA_STORAGE_ERROR` for one that is offline.
    pub(crate) fn partition(&self, topic: &str, partition: i32) -> Result<Arc<Partition>, ErrorCode> {
        let image = self.image();
        self.partition_of(image.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?, partition)
    }

    fn partition_of(&self, topic: &Topic, partition: i32) -> Result<Arc<Partition>, ErrorCode> {
        let partition = PartitionId(partition);
        topic.partition(partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        self.partitions.get(TopicPartition { topic_id: topic.id, partition })
    }

    /// A partition by the id of its topic.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC_ID`, `UNKNOWN_TOPIC_OR_PARTITION`, `NOT_LEADER_OR_FOLLOWER`, or `KAFKA_STORAGE_ERROR` for one that
    /// is offline.
    pub(crate) fn partition_by_id(
        &self,
        topic: TopicId,
        partition: i32,
    ) -> Result<Arc<Partition>, ErrorCode> {
        let image = self.image();
        self.partition_of(image.topic_by_id(topic).ok_or(ErrorCode::UnknownTopicId)?, partition)
    }

    /// Whether only brokers may write to the topic.
    pub(crate) fn is_internal(&self, topic: &str) -> bool {
        self.image().topic(topic).is_some_and(|topic| topic.internal)
    }

    /// Traffic counters of a topic, or of all where there is none of this name.
    pub(crate) fn metrics_of(&self, topic: &str) -> TopicMetrics {
        // A name clients made up must not become a series.
        if self.image().topic(topic).is_some() { self.metrics.topic(topic) } else { self.metrics.topic("") }
    }
}

fn fetch_session_slots(config: &BrokerConfig) -> usize {
    usize::try_from(config.get(keys::MAX_INCREMENTAL_FETCH_SESSION_CACHE_SLOTS)).unwrap_or(0)
}

async fn register(parts: &BrokerParts, id: BrokerId) -> Result<Incarnation, StartError> {
    let BrokerParts { env, config, metadata, storages, .. } = parts;
    let mut listeners = Vec::new();
    for listener in config.client_listeners() {
        let address = listener.advertised.clone().unwrap_or_else(|| listener.bind.clone());
        let host = if address.host.is_empty() { own_name(env).await } else { address.host };
        listeners.push(Endpoint { name: listener.name.clone(), host, port: address.port });
    }
    let registration = Registration {
        broker: id,
        listeners,
        rack: config.get(keys::BROKER_RACK).map(str::to_owned),
        storages: storages.iter().map(|storage| storage.id()).collect(),
        metadata_versions: MetadataVersions::SUPPORTED,
        min_insync_replicas: Some(config.get(keys::MIN_INSYNC_REPLICAS)),
    };
    let deadline = env.clock.now() + config.broker_session_timeout() + REGISTRATION_GRACE;
    let mut is_told = false;
    loop {
        let refusal = match metadata.propose(Command::RegisterBroker(registration.clone())).await? {
            CommandResult::Registered(incarnation) => return Ok(incarnation),
            CommandResult::Items(items) => items.into_iter().find_map(Result::err),
            _ => None,
        };
        let is_taken = refusal.as_ref().is_some_and(|it| it.code == ErrorCode::DuplicateBrokerRegistration);
        if !is_taken || env.clock.now() >= deadline {
            let reason = refusal.map_or_else(String::new, |refusal| refusal.message);
            return Err(StartError::Refused { broker: id, reason, is_taken });
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(
                broker = id.0,
                "another process has this node.id: waiting in case it has just ended"
            );
        }
        env.clock.sleep(REGISTER_AGAIN_AFTER).await;
    }
}

/// What others dial to reach a listener on all addresses of this machine that is not advertised otherwise: its name, as
/// with Kafka, if it can be resolved here.
async fn own_name(env: &Env) -> String {
    let name = env.network.host_name();
    match env.network.resolve(&format!("{name}:0")).await {
        Ok(addresses) if !addresses.is_empty() => name,
        _ => "localhost".to_owned(),
    }
}
