//! The other brokers: where they are, who of them can hold copies, and the streams that they open to this one.

use std::io;
use std::sync::{Arc, OnceLock, Weak};

use base::config::{BrokerConfig, HostPort};
use base::env::{Env, Stream};
use base::ids::{BrokerId, LeaderEpoch, StorageId, TopicPartition};
use metadata::{Image, MetadataStore, NODE_MAGIC, StorageHealth};
use parking_lot::Mutex;
use replication::placement::Candidate;
use replication::stream::{
    BrokerLife, Directory, Leading, Links, LinksSpec, Local, MAGIC, PeerAddress, Replicas, ReplicasSpec,
    serve,
};
use replication::{Candidates, Peers, Storage};
use tokio::io::AsyncReadExt;

use crate::partitions::Partitions;

/// What [`peers`] is made of.
pub(crate) struct PeersSpec<'a> {
    pub(crate) env: &'a Env,
    pub(crate) config: &'a BrokerConfig,
    pub(crate) metadata: &'a Arc<dyn MetadataStore>,
    pub(crate) life: BrokerLife,
    pub(crate) storages: &'a Arc<Vec<Arc<Storage>>>,
    /// Who leads partitions on this broker, once that is known.
    pub(crate) leading: Arc<Leaders>,
}

/// The way to the other brokers, and what this one holds for them.
pub(crate) fn peers(spec: PeersSpec<'_>) -> Arc<Peers> {
    let PeersSpec { env, config, metadata, life, storages, leading } = spec;
    let image = metadata.image();
    let listener = config.inter_broker_listener_name().unwrap_or_default().to_owned();
    let cluster = Arc::new(Cluster { metadata: metadata.clone(), listener, own: life.broker });
    let replicas = Replicas::new(ReplicasSpec {
        env: env.clone(),
        cluster: image.cluster_id,
        life,
        newest_segment: image.last_segment_id(),
        storages: storages.clone(),
        leading,
    });
    let links = Links::new(LinksSpec {
        env: env.clone(),
        cluster: image.cluster_id,
        life,
        directory: cluster.clone(),
    });
    let peers = Arc::new(Peers { links, replicas, candidates: cluster, avoided: Mutex::default() });
    peers.replicas.set_peers(&peers);
    peers
}

/// Serves a connection on which another broker may push, or another node follow the metadata. Its first bytes are read
/// here.
pub(crate) async fn serve_peer(
    mut stream: Box<dyn Stream>,
    replicas: Arc<Replicas>,
    metadata: Arc<dyn MetadataStore>,
) -> io::Result<()> {
    let mut magic = [0; MAGIC.len()];
    stream.read_exact(&mut magic).await?;
    match magic {
        MAGIC => serve(stream, replicas).await,
        NODE_MAGIC => metadata.serve_node(stream).await,
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no node of this version")),
    }
}

/// The brokers as the metadata tells.
struct Cluster {
    metadata: Arc<dyn MetadataStore>,
    /// The listener through which brokers speak with each other.
    listener: String,
    own: BrokerId,
}

impl Directory for Cluster {
    fn peer(&self, broker: BrokerId) -> Option<PeerAddress> {
        let image = self.metadata.image();
        let broker = image.broker(broker)?;
        let listeners = &broker.registration.listeners;
        let endpoint =
            listeners.iter().find(|endpoint| endpoint.name == self.listener).or(listeners.first())?;
        let address = HostPort { host: endpoint.host.clone(), port: endpoint.port };
        Some(PeerAddress { host_port: address.to_string(), incarnation: broker.incarnation })
    }
}

impl Candidates for Cluster {
    fn candidates(&self) -> Vec<Candidate> {
        let image = self.metadata.image();
        // A broker that ends itself looks for nobody else: its successors do.
        let all = image.broker(self.own).is_some_and(|own| own.draining);
        candidates(&image, |broker| !broker.fenced && (all || !broker.draining))
    }

    fn alive(&self) -> Vec<Candidate> {
        candidates(&self.metadata.image(), |broker| !broker.fenced)
    }

    fn home(&self, storage: StorageId) -> Option<BrokerId> {
        let image = self.metadata.image();
        let mut alive = image.brokers().filter(|broker| !broker.fenced);
        let has = |broker: &&Arc<metadata::Broker>| {
            broker.storages.get(&storage).is_some_and(|health| health.can_be_read())
        };
        alive.find(has).map(|broker| broker.registration.broker)
    }
}

/// Those brokers for which `lives` holds and that have a log directory which takes segments. Those that leave the cluster
/// or whose directories are all nearly full are reluctant.
pub(crate) fn candidates(image: &Image, lives: impl Fn(&metadata::Broker) -> bool) -> Vec<Candidate> {
    let leaving = image.leaving();
    let candidate = |broker: &Arc<metadata::Broker>| {
        let of = |wanted| broker.storages.iter().find(|(_, state)| **state == wanted);
        let (storage, state) = of(StorageHealth::Writable).or_else(|| of(StorageHealth::ReadOnly))?;
        let id = broker.registration.broker;
        Some(Candidate {
            broker: id,
            incarnation: broker.incarnation,
            storage: *storage,
            rack: broker.registration.rack.clone(),
            copies: 0,
            reluctant: *state == StorageHealth::ReadOnly || leaving.contains(&id),
        })
    };
    image.brokers().filter(|broker| lives(broker)).filter_map(candidate).collect()
}

/// Stands for the partitions that a broker leads, which are there only after what they need.
#[derive(Default)]
pub(crate) struct Leaders(OnceLock<Weak<Partitions>>);

impl Leaders {
    /// Says which partitions those are, once.
    pub(crate) fn are(&self, partitions: &Arc<Partitions>) {
        // Said once, by the start of the broker.
        let _ = self.0.set(Arc::downgrade(partitions));
    }
}

impl Leading for Leaders {
    fn fence(&self, partition: TopicPartition, epoch: LeaderEpoch) -> Local {
        match self.0.get().and_then(Weak::upgrade) {
            Some(partitions) => partitions.fence(partition, epoch),
            None => Local::Follows,
        }
    }
}
