//! Brokers and partitions as Metadata, DescribeCluster and DescribeTopicPartitions show them.

use base::chain::{PartitionState, SegmentState};
use base::config::HostPort;
use base::error::ErrorCode;
use base::ids::{PartitionId, TopicPartition};
use metadata::{Image, Topic};

use super::RequestContext;
use crate::groups::OFFSETS_TOPIC;

/// The other topic that Kafka's clients and tools take for internal by its name.
const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// True for names that only the broker's own topics may bear.
pub(super) fn is_internal_name(name: &str) -> bool {
    name == OFFSETS_TOPIC || name == TRANSACTIONS_TOPIC
}

/// A broker and where the asking client reaches it.
pub(super) struct BrokerView {
    pub(super) id: i32,
    pub(super) address: HostPort,
    pub(super) rack: Option<String>,
}

/// The brokers that the client can reach through the listener it uses.
pub(super) fn brokers(context: &RequestContext<'_>, image: &Image) -> Vec<BrokerView> {
    let listener = &context.connection.listener.name;
    let view = |broker: &std::sync::Arc<metadata::Broker>| {
        let registration = &broker.registration;
        let address = if registration.broker == context.broker.id {
            context.connection.advertised()
        } else {
            let endpoint = registration.listeners.iter().find(|endpoint| endpoint.name == *listener)?;
            HostPort { host: endpoint.host.clone(), port: endpoint.port }
        };
        Some(BrokerView { id: registration.broker.0, address, rack: registration.rack.clone() })
    };
    image.brokers().filter_map(view).collect()
}

/// A partition as clients see it.
pub(super) struct PartitionView {
    pub(super) error: ErrorCode,
    pub(super) index: i32,
    pub(super) leader: i32,
    pub(super) leader_epoch: i32,
    pub(super) replicas: Vec<i32>,
    pub(super) in_sync: Vec<i32>,
    pub(super) offline: Vec<i32>,
}

/// The partitions of a topic, in order.
pub(super) fn partitions(context: &RequestContext<'_>, topic: &Topic) -> impl Iterator<Item = PartitionView> {
    topic.partitions.iter().enumerate().map(|(index, state)| {
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        partition(context, topic, index, state)
    })
}

fn partition(
    context: &RequestContext<'_>,
    topic: &Topic,
    index: i32,
    state: &PartitionState,
) -> PartitionView {
    let replicas: Vec<i32> = state.placement.iter().map(|broker| broker.0).collect();
    let in_sync = match &state.last().state {
        SegmentState::Open { ensemble } => ensemble.iter().map(|member| member.broker.0).collect(),
        SegmentState::Sealed { .. } => replicas.clone(),
    };
    let view = PartitionView {
        error: ErrorCode::None,
        index,
        leader: state.leader.0,
        leader_epoch: state.leader_epoch.0,
        replicas,
        in_sync,
        offline: Vec::new(),
    };
    if state.leader != context.broker.id {
        return view;
    }
    let id = TopicPartition { topic_id: topic.id, partition: PartitionId(index) };
    match context.broker.partitions.get(id) {
        // Its files cannot be used, so there is no leader.
        Err(ErrorCode::KafkaStorageError) => PartitionView {
            error: ErrorCode::LeaderNotAvailable,
            leader: -1,
            in_sync: Vec::new(),
            offline: vec![context.broker.id.0],
            ..view
        },
        // One that is being opened or removed has its leader, as in Apache Kafka, where the image alone decides:
        // an error here breaks clients that look at all topics, whichever they are about.
        Ok(_) | Err(_) => view,
    }
}
