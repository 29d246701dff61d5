//! What a client knows of a cluster: brokers, topics, who leads which partition.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base::error::ErrorCode;
use base::ids::{BrokerId, LeaderEpoch, TopicId};
use wire::message::{MetadataResponse, MetadataResponsePartition, MetadataResponseTopic};

/// A partition by the name of its topic, as users know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionName {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Number of the partition, 0 or more.
    pub partition: i32,
}

impl PartitionName {
    /// The partition of that number in that topic.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> PartitionName {
        PartitionName { topic: topic.into(), partition }
    }
}

impl fmt::Display for PartitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} of topic `{}`", self.partition, self.topic)
    }
}

/// Which topics to ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topics<'a> {
    /// All there are.
    All,
    /// None: brokers alone.
    None,
    /// These; those that do not exist are told with an error.
    Named(&'a [&'a str]),
    /// These; those that do not exist are created if the broker is set to do so.
    NamedOrCreated(&'a [&'a str]),
}

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Host and port as the broker advertises them.
    pub address: Arc<str>,
    /// Host alone.
    pub host: Arc<str>,
    /// Port alone.
    pub port: i32,
    /// Rack, if it has one.
    pub rack: Option<String>,
}

/// One answer of a cluster about itself.
#[derive(Clone, Debug, Default)]
pub struct ClusterMetadata {
    /// Id of the cluster.
    pub cluster_id: Option<String>,
    /// The broker to which changes are sent.
    pub controller: Option<BrokerId>,
    /// Brokers that are alive.
    pub brokers: BTreeMap<BrokerId, BrokerAddress>,
    /// The topics asked for, by name.
    pub topics: BTreeMap<String, TopicMetadata>,
}

/// A topic.
#[derive(Clone, Debug)]
pub struct TopicMetadata {
    /// Why nothing is known of it; [`ErrorCode::None`] if all is well.
    pub error: ErrorCode,
    /// Its id; zero when the broker tells none.
    pub id: TopicId,
    /// Whether it belongs to the broker itself.
    pub internal: bool,
    /// Its partitions, by number.
    pub partitions: BTreeMap<i32, PartitionMetadata>,
}

/// A partition.
#[derive(Clone, Debug)]
pub struct PartitionMetadata {
    /// What is wrong with it, if anything.
    pub error: ErrorCode,
    /// Who leads it; `None` while nobody does.
    pub leader: Option<BrokerId>,
    /// Epoch of the leader, -1 when the broker tells none.
    pub leader_epoch: LeaderEpoch,
    /// Brokers that hold a copy, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// Those whose copy is in sync.
    pub in_sync: Vec<BrokerId>,
    /// Those whose copy cannot be reached.
    pub offline: Vec<BrokerId>,
}

impl ClusterMetadata {
    pub(crate) fn from_response(response: &MetadataResponse<'_>) -> ClusterMetadata {
        let broker = |broker: &wire::message::MetadataResponseBroker<'_>| {
            // An IPv6 address needs brackets before a port can follow.
            let address = match broker.host.contains(':') {
                true => format!("[{}]:{}", broker.host, broker.port),
                false => format!("{}:{}", broker.host, broker.port),
            };
            let rack = broker.rack.as_deref().map(str::to_owned);
            let host = broker.host.as_ref().into();
            let value = BrokerAddress { address: address.into(), host, port: broker.port, rack };
            (BrokerId(broker.node_id), value)
        };
        ClusterMetadata {
            cluster_id: response.cluster_id.as_deref().map(str::to_owned),
            controller: Some(BrokerId(response.controller_id)).filter(|id| id.0 >= 0),
            brokers: response.brokers.iter().map(broker).collect(),
            topics: response.topics.iter().map(topic).collect(),
        }
    }

    /// Takes over what a newer answer says; topics it does not speak of stay.
    pub(crate) fn merge(&mut self, newer: &ClusterMetadata) {
        self.cluster_id.clone_from(&newer.cluster_id);
        self.controller = newer.controller;
        self.brokers.clone_from(&newer.brokers);
        for (name, topic) in &newer.topics {
            if topic.error == ErrorCode::None {
                self.topics.insert(name.clone(), topic.clone());
            } else {
                self.topics.remove(name);
            }
        }
    }

    /// Who leads a partition, as far as known.
    pub fn leader(&self, partition: &PartitionName) -> Option<BrokerId> {
        self.topics.get(&*partition.topic)?.partitions.get(&partition.partition)?.leader
    }
}

fn topic(topic: &MetadataResponseTopic<'_>) -> (String, TopicMetadata) {
    let value = TopicMetadata {
        error: ErrorCode::from_code(topic.error_code),
        id: topic.topic_id,
        internal: topic.is_internal,
        partitions: topic.partitions.iter().map(partition).collect(),
    };
    (topic.name.as_deref().unwrap_or_default().to_owned(), value)
}

fn partition(partition: &MetadataResponsePartition) -> (i32, PartitionMetadata) {
    let ids = |ids: &[i32]| ids.iter().map(|id| BrokerId(*id)).collect();
    let value = PartitionMetadata {
        error: ErrorCode::from_code(partition.error_code),
        leader: Some(BrokerId(partition.leader_id)).filter(|id| id.0 >= 0),
        leader_epoch: LeaderEpoch(partition.leader_epoch),
        replicas: ids(&partition.replica_nodes),
        in_sync: ids(&partition.isr_nodes),
        offline: ids(&partition.offline_replicas),
    };
    (partition.partition_index, value)
}
