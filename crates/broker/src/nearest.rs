//! Reads from the nearest copy (KIP-392): a consumer that names its rack is sent to a broker in sync that stands there,
//! and that one gives it what it knows to be committed.
//!
//! Whom to read from only the leader says, and only with `replica.selector.class` set; a consumer that is told nothing, or
//! is sent away, reads from the leader. A broker that does not lead serves those alone that name a rack: anybody else came
//! by mistake, and is told who leads.

use std::cmp::Reverse;
use std::sync::Arc;

use base::config::keys;
use base::error::ErrorCode;
use base::ids::{BrokerId, Offset, PartitionId, TopicPartition};
use base::metrics::TopicMetrics;
use metadata::{Image, MetadataStore};
use replication::stream::{Followed, Replicas};

use crate::api::RequestContext;
use crate::broker::Broker;
use crate::partition::Partition;
use crate::session::TopicKey;

/// Version of Fetch from which consumers name their rack.
const RACK_VERSION: i16 = 11;

/// The rack that a consumer names, if it names one.
pub(crate) fn rack_of<'r>(context: &RequestContext<'_>, rack: &'r str) -> Option<&'r str> {
    (context.api_version >= RACK_VERSION && !rack.is_empty()).then_some(rack)
}

/// Chooses the broker that a consumer in a rack should read from, where that is not the leader.
pub(crate) struct Nearest {
    image: Arc<Image>,
    listener: String,
    rack: String,
}

impl Nearest {
    /// For a consumer in `rack`; `None` where all of them read from leaders, and this one stands there itself.
    pub(crate) fn of(context: &RequestContext<'_>, rack: &str) -> Option<Nearest> {
        let config = context.broker.config();
        let is_rack_aware = config.get(keys::REPLICA_SELECTOR_CLASS) == Some(keys::RACK_AWARE_SELECTOR);
        if !is_rack_aware || config.get(keys::BROKER_RACK) == Some(rack) {
            return None;
        }
        let listener = context.connection.listener.name.clone();
        Some(Nearest { image: context.broker.image(), listener, rack: rack.to_owned() })
    }

    /// The broker that should be read from at `offset`: of those in the rack that live and have everything from there on
    /// the one that has come farthest. `None` for the leader.
    pub(crate) fn choose(&self, partition: &Partition, offset: Offset) -> Option<BrokerId> {
        let mut there = partition.log.readable_elsewhere(offset);
        there.retain(|(broker, _)| self.stands_here(*broker));
        there.into_iter().max_by_key(|(broker, end)| (*end, Reverse(*broker))).map(|(id, _)| id)
    }

    fn stands_here(&self, broker: BrokerId) -> bool {
        self.image.broker(broker).is_some_and(|broker| {
            let registration = &broker.registration;
            !broker.fenced
                && registration.rack.as_deref() == Some(&*self.rack)
                && registration.listeners.iter().any(|endpoint| endpoint.name == self.listener)
        })
    }
}

/// A partition that another broker leads, as this one may show it to consumers.
pub(crate) struct Follower {
    metadata: Arc<dyn MetadataStore>,
    replicas: Arc<Replicas>,
    id: TopicPartition,
    pub(crate) topic: Arc<str>,
    pub(crate) metrics: TopicMetrics,
}

impl Follower {
    /// As it is now.
    ///
    /// # Errors
    /// `NOT_LEADER_OR_FOLLOWER` where this broker has no copy of it that its leader keeps up to date.
    pub(crate) fn now(&self) -> Result<Followed, ErrorCode> {
        let image = self.metadata.image();
        let state = image.partition(&self.id).ok_or(ErrorCode::NotLeaderOrFollower)?;
        self.replicas.follow(&self.topic, self.id, state).ok_or(ErrorCode::NotLeaderOrFollower)
    }
}

impl Broker {
    /// A partition that another broker leads.
    ///
    /// # Errors
    /// `NOT_LEADER_OR_FOLLOWER` for one that cannot be read here: this broker has no copy that its leader keeps up to date,
    /// or may have been left out meanwhile, because the controllers do not hear it.
    pub(crate) fn follower(&self, topic: &TopicKey, partition: i32) -> Result<Follower, ErrorCode> {
        let image = self.image();
        let topic = match topic {
            TopicKey::Name(name) => image.topic(name),
            TopicKey::Id(id) => image.topic_by_id(*id),
        };
        let topic = topic.ok_or(ErrorCode::NotLeaderOrFollower)?;
        if self.unheard_for() >= self.config().broker_session_timeout() {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let follower = Follower {
            metadata: self.metadata.clone(),
            replicas: self.peers.replicas.clone(),
            id: TopicPartition { topic_id: topic.id, partition: PartitionId(partition) },
            topic: topic.name.clone(),
            metrics: self.metrics.topic(&topic.name),
        };
        follower.now().map(|_| follower)
    }
}
