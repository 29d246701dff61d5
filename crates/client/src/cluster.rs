//! A client of a cluster: finds the broker that can answer, remembers who leads what, tries again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::env::{Clock, Env};
use base::error::ErrorCode;
use base::ids::BrokerId;
use parking_lot::Mutex;
use wire::RequestMessage;
use wire::message::{
    FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest, MetadataRequestTopic, MetadataResponse,
};

use crate::config::{RETRY_PAUSE_MAX, RETRY_PAUSE_MIN};
use crate::pool::Connections;
use crate::trouble::{TroubleNote, Troubles};
use crate::{
    Answer, ClientConfig, ClientError, ClusterMetadata, Connection, PartitionName, Result, TopicMetadata,
    Topics, Trouble,
};

/// Coordinators remembered at most; beyond it all are asked for again.
const COORDINATORS_MAX: usize = 1024;

/// A handle to a cluster. Cloning is cheap; clones share connections and knowledge.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    env: Env,
    config: Arc<ClientConfig>,
    connections: Connections,
    metadata: Mutex<ClusterMetadata>,
    coordinators: Mutex<HashMap<String, BrokerId>>,
    troubles: Arc<Troubles>,
    /// Whose turn it is to be asked, of the brokers that are known.
    turn: AtomicUsize,
}

impl Client {
    /// Finds the cluster behind the bootstrap addresses. Fails at once when none of them answers.
    pub async fn connect(env: &Env, config: ClientConfig) -> Result<Client> {
        let config = Arc::new(config);
        let connections = Connections::new(env, config.clone());
        let client = Client {
            shared: Arc::new(Shared {
                env: env.clone(),
                config,
                connections,
                metadata: Mutex::default(),
                coordinators: Mutex::default(),
                troubles: Arc::default(),
                turn: AtomicUsize::new(0),
            }),
        };
        client.metadata(Topics::None).await?;
        Ok(client)
    }

    /// The world the client lives in.
    pub fn env(&self) -> &Env {
        &self.shared.env
    }

    /// The settings.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.shared.config
    }

    /// Asks the cluster about itself, and remembers what it says.
    pub async fn metadata(&self, topics: Topics<'_>) -> Result<ClusterMetadata> {
        let asked = match topics {
            Topics::All => None,
            Topics::None => Some(Vec::new()),
            Topics::Named(names) | Topics::NamedOrCreated(names) => Some(names.iter().map(named).collect()),
        };
        let request = MetadataRequest {
            allow_auto_topic_creation: matches!(topics, Topics::NamedOrCreated(_)),
            topics: asked,
            ..Default::default()
        };
        let answer = self.any().await?.call(&request).await?;
        let response: MetadataResponse = answer.read()?;
        ClientError::check(response.error_code, None, || "cluster".to_owned())?;
        let metadata = ClusterMetadata::from_response(&response);
        self.shared.metadata.lock().merge(&metadata);
        Ok(metadata)
    }

    /// What the client, or a producer or consumer made with it, tries again at the moment.
    pub fn trouble(&self) -> Option<Trouble> {
        self.shared.troubles.oldest()
    }

    /// What is known of some topics, asked for if not remembered; those that do not exist are created if
    /// the broker is set to do so. Waits for them as long as calls are tried again.
    pub async fn topics(&self, names: &[&str]) -> Result<BTreeMap<String, TopicMetadata>> {
        let mut backoff = self.backoff();
        loop {
            match self.topics_once(Topics::NamedOrCreated(names), names).await {
                Err(error) if error.retriable() => backoff.pause(error).await?,
                other => return other,
            }
        }
    }

    /// `asked` are these names, with the word whether they may be created.
    async fn topics_once(
        &self,
        asked: Topics<'_>,
        names: &[&str],
    ) -> Result<BTreeMap<String, TopicMetadata>> {
        let known = |metadata: &ClusterMetadata, name: &str| metadata.topics.get(name).cloned();
        let remembered: Option<BTreeMap<_, _>> = {
            let metadata = self.shared.metadata.lock();
            names.iter().map(|name| Some(((*name).to_owned(), known(&metadata, name)?))).collect()
        };
        if let Some(topics) = remembered {
            return Ok(topics);
        }
        let mut metadata = self.metadata(asked).await?;
        let mut topics = BTreeMap::new();
        for name in names {
            let subject = || format!("topic `{name}`");
            let topic = metadata.topics.remove(*name);
            let topic = topic.ok_or_else(|| ClientError::Missing { subject: subject() })?;
            ClientError::check(topic.error.code(), None, subject)?;
            topics.insert((*name).to_owned(), topic);
        }
        Ok(topics)
    }

    /// What was learned does not hold any more: the next question goes to another broker.
    fn ask_another(&self) {
        self.shared.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets what is known of a topic, because a broker said that it is no longer so.
    pub fn forget_topic(&self, name: &str) {
        self.ask_another();
        self.shared.metadata.lock().topics.remove(name);
    }

    /// Who leads a partition; asks if that is not known. An error that may pass while nobody leads it.
    /// Never creates a topic.
    pub async fn leader(&self, partition: &PartitionName) -> Result<BrokerId> {
        self.leader_among(partition, Topics::Named(&[&partition.topic])).await
    }

    /// The same for a writer, whose topic is created anew (if the broker is set to do so) when it is gone.
    pub(crate) async fn leader_to_write(&self, partition: &PartitionName) -> Result<BrokerId> {
        self.leader_among(partition, Topics::NamedOrCreated(&[&partition.topic])).await
    }

    async fn leader_among(&self, partition: &PartitionName, asked: Topics<'_>) -> Result<BrokerId> {
        if let Some(leader) = self.shared.metadata.lock().leader(partition) {
            return Ok(leader);
        }
        let topics = self.topics_once(asked, &[&partition.topic]).await?;
        let leader = leader_in(&topics, partition);
        if leader.is_err() {
            self.forget_topic(&partition.topic);
        }
        leader
    }

    /// Who leads a partition and at which address, if both are known.
    pub(crate) fn known_leader(&self, partition: &PartitionName) -> Option<(BrokerId, Arc<str>)> {
        let metadata = self.shared.metadata.lock();
        let leader = metadata.leader(partition)?;
        Some((leader, metadata.brokers.get(&leader)?.address.clone()))
    }

    /// Asks who leads these partitions, whatever is known; answers in their order. Never creates a topic.
    pub(crate) async fn find_leaders(&self, partitions: &[PartitionName]) -> Vec<Result<BrokerId>> {
        let mut names: Vec<&str> = partitions.iter().map(|partition| &*partition.topic).collect();
        names.sort_unstable();
        names.dedup();
        let metadata = match self.metadata(Topics::Named(&names)).await {
            Ok(metadata) => metadata,
            Err(error) => return partitions.iter().map(|_| Err(error.clone())).collect(),
        };
        let leader = |partition: &PartitionName| {
            let topic = metadata.topics.get(&*partition.topic);
            let code = topic.map_or(ErrorCode::UnknownTopicOrPartition, |topic| topic.error);
            ClientError::check(code.code(), None, || format!("topic `{}`", partition.topic))?;
            let leader = leader_in(&metadata.topics, partition)?;
            match metadata.brokers.contains_key(&leader) {
                true => Ok(leader),
                false => Err(refused(format!("broker {leader}"), ErrorCode::BrokerNotAvailable)),
            }
        };
        partitions.iter().map(leader).collect()
    }

    /// The brokers as last heard of.
    pub fn brokers(&self) -> Vec<BrokerId> {
        self.shared.metadata.lock().brokers.keys().copied().collect()
    }

    /// The address of a broker as last heard of.
    pub fn address(&self, broker: BrokerId) -> Option<Arc<str>> {
        self.shared.metadata.lock().brokers.get(&broker).map(|broker| broker.address.clone())
    }

    /// A connection to a broker.
    pub async fn broker(&self, broker: BrokerId) -> Result<Arc<Connection>> {
        self.shared.connections.to(&self.known_address(broker).await?).await
    }

    /// The address of a broker, asked for if it is not known.
    pub(crate) async fn known_address(&self, broker: BrokerId) -> Result<Arc<str>> {
        if let Some(address) = self.address(broker) {
            return Ok(address);
        }
        self.metadata(Topics::None).await?;
        let gone = || refused(format!("broker {broker}"), ErrorCode::BrokerNotAvailable);
        self.address(broker).ok_or_else(gone)
    }

    /// A connection to any broker: one that is known, else one at a bootstrap address. The same one as long as what was
    /// learned holds: one that is cut off from the others would go on telling what was so before.
    pub async fn any(&self) -> Result<Arc<Connection>> {
        let mut addresses: Vec<Arc<str>> = {
            let metadata = self.shared.metadata.lock();
            metadata.brokers.values().map(|broker| broker.address.clone()).collect()
        };
        if !addresses.is_empty() {
            let turn = self.shared.turn.load(Ordering::Relaxed) % addresses.len();
            addresses.rotate_left(turn);
        }
        addresses.extend(self.shared.config.bootstrap.iter().map(|address| address.as_str().into()));
        let mut tried = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            if addresses[..index].contains(address) {
                continue;
            }
            match self.shared.connections.to(address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => tried.push(error),
            }
        }
        Err(ClientError::Bootstrap { tried })
    }

    /// Calls the broker that takes changes to topics and configs.
    pub(crate) async fn call_controller<'a, R: RequestMessage<'a>>(
        &self,
        request: &R,
        broker_wait: Duration,
    ) -> Result<Answer> {
        let controller = self.shared.metadata.lock().controller;
        let connection = match controller {
            Some(id) => self.broker(id).await?,
            None => self.any().await?,
        };
        connection.start(request, broker_wait).await?.wait().await
    }

    /// Learns anew who takes changes, after a broker said that it does not.
    pub(crate) async fn find_controller(&self) -> Result<()> {
        self.metadata(Topics::None).await.map(drop)
    }

    /// The broker that looks after a group; asks if that is not known.
    pub async fn coordinator(&self, group: &str) -> Result<BrokerId> {
        if let Some(broker) = self.shared.coordinators.lock().get(group) {
            return Ok(*broker);
        }
        let request = FindCoordinatorRequest { key: group.into(), ..Default::default() };
        let answer = self.any().await?.call(&request).await?;
        let response: FindCoordinatorResponse = answer.read()?;
        let message = response.error_message.as_deref();
        ClientError::check(response.error_code, message, || format!("group `{group}`"))?;
        let broker = BrokerId(response.node_id);
        self.known_address(broker).await?;
        let mut coordinators = self.shared.coordinators.lock();
        if coordinators.len() >= COORDINATORS_MAX {
            coordinators.clear();
        }
        coordinators.insert(group.to_owned(), broker);
        Ok(broker)
    }

    /// Forgets who looks after a group when an error says that it is another broker now, or that the
    /// one known cannot be reached.
    pub(crate) fn note_group_error(&self, group: &str, error: &ClientError) {
        let moved = matches!(
            error.code(),
            Some(
                ErrorCode::NotCoordinator
                    | ErrorCode::CoordinatorNotAvailable
                    | ErrorCode::BrokerNotAvailable
            )
        );
        if moved || (error.retriable() && error.code().is_none()) {
            self.ask_another();
            self.shared.coordinators.lock().remove(group);
        }
    }

    /// Pauses between attempts, counted from now.
    pub(crate) fn backoff(&self) -> Backoff {
        self.backoff_for(self.shared.config.retry_for)
    }

    /// The same with another patience.
    pub(crate) fn backoff_for(&self, retry_for: Duration) -> Backoff {
        let clock = self.shared.env.clock.clone();
        let deadline = clock.now() + retry_for;
        let troubles = self.shared.troubles.clone();
        Backoff { clock, deadline, pause: RETRY_PAUSE_MIN, troubles, note: None }
    }
}

fn named<'a>(name: &&'a str) -> MetadataRequestTopic<'a> {
    MetadataRequestTopic { name: Some((*name).into()), ..Default::default() }
}

fn leader_in(topics: &BTreeMap<String, TopicMetadata>, partition: &PartitionName) -> Result<BrokerId> {
    let found = topics.get(&*partition.topic).and_then(|topic| topic.partitions.get(&partition.partition));
    let refused = |code| refused(partition.to_string(), code);
    let found = found.ok_or_else(|| refused(ErrorCode::UnknownTopicOrPartition))?;
    found.leader.ok_or_else(|| refused(ErrorCode::LeaderNotAvailable))
}

fn refused(subject: String, code: ErrorCode) -> ClientError {
    ClientError::Broker { subject, code, message: None }
}

/// Growing pauses between attempts, until time is up. While it lives, the client's
/// [`Client::trouble`] tells of the attempts that failed.
pub(crate) struct Backoff {
    clock: Arc<dyn Clock>,
    deadline: Duration,
    pause: Duration,
    troubles: Arc<Troubles>,
    note: Option<TroubleNote>,
}

impl Backoff {
    /// Notes that an attempt failed; answers how long to wait before the next, and whether time is left
    /// for that one.
    pub(crate) fn failed(&mut self, error: &ClientError) -> (Duration, bool) {
        match &self.note {
            Some(note) => note.update(error.clone()),
            None => self.note = Some(self.troubles.begin(self.clock.now(), error.clone())),
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(RETRY_PAUSE_MAX);
        tracing::debug!(%error, "trying again in {} ms", pause.as_millis());
        (pause, self.clock.now() + pause <= self.deadline)
    }

    /// Waits before the next attempt; gives the error back when no time is left for one.
    pub(crate) async fn pause(&mut self, error: ClientError) -> Result<()> {
        match self.failed(&error) {
            (_, false) => Err(error),
            (pause, true) => {
                self.clock.sleep(pause).await;
                Ok(())
            }
        }
    }

    /// Waits before the next attempt, whether or not time is left.
    pub(crate) async fn sleep(&mut self, error: &ClientError) {
        let (pause, _) = self.failed(error);
        self.clock.sleep(pause).await;
    }
}
