//! Brokers and partitions as Metadata, DescribeCluster and DescribeTopicPartitions show them.

use base::chain::{PartitionState, SegmentState};
use base::config::HostPort;
use base::error::ErrorCode;
use base::ids::{BrokerId, Incarnation, PartitionId, TopicPartition};
use metadata::{Image, Topic};

use super::RequestContext;
use crate::elections::is_in_doubt;
use crate::groups::OFFSETS_TOPIC;

/// The other topic that Kafka's clients and tools take for internal by its name.
const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// True for names that only the broker's own topics may bear.
pub(super) fn is_internal_name(name: &str) -> bool {
    name == OFFSETS_TOPIC || name == TRANSACTIONS_TOPIC
}

/// A broker and where the asking client reaches it.
#[derive(Clone)]
pub(super) struct BrokerView {
    pub(super) id: i32,
    pub(super) address: HostPort,
    pub(super) rack: Option<String>,
    /// It does not answer the controller, and so perhaps nobody.
    pub(super) fenced: bool,
}

/// The broker that looks after changes of the cluster, -1 for none. Any takes them; as Kafka we name one that serves
/// clients.
pub(super) fn controller(context: &RequestContext<'_>, brokers: &[BrokerView]) -> i32 {
    let is_there = |id: i32| brokers.iter().any(|broker| broker.id == id && !broker.fenced);
    let active = context.broker.metadata.controller().map(|controller| controller.0);
    active.filter(|id| is_there(*id)).unwrap_or(context.broker.id.0)
}

/// The brokers that live and that the client can reach through the listener it uses.
pub(super) fn brokers(context: &RequestContext<'_>, image: &Image) -> Vec<BrokerView> {
    let mut brokers = all_brokers(context, image);
    brokers.retain(|broker| !broker.fenced);
    brokers
}

/// As [`brokers`], those that are fenced too.
pub(super) fn all_brokers(context: &RequestContext<'_>, image: &Image) -> Vec<BrokerView> {
    let listener = &context.connection.listener.name;
    let view = |broker: &std::sync::Arc<metadata::Broker>| {
        let registration = &broker.registration;
        let address = if registration.broker == context.broker.id {
            context.connection.advertised()
        } else {
            let endpoint = registration.listeners.iter().find(|endpoint| endpoint.name == *listener)?;
            HostPort { host: endpoint.host.clone(), port: endpoint.port }
        };
        let rack = registration.rack.clone();
        Some(BrokerView { id: registration.broker.0, address, rack, fenced: broker.fenced })
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
    /// Members of the open segment that take records.
    pub(super) in_sync: Vec<i32>,
    /// Other members, which have all that is committed (KIP-966).
    pub(super) eligible: Vec<i32>,
    /// Others, which may have lost some of it.
    pub(super) last_known: Vec<i32>,
    pub(super) offline: Vec<i32>,
}

/// Brokers that are registered and not fenced, and the life of each.
pub(super) fn alive(image: &Image) -> Vec<(BrokerId, Incarnation)> {
    let alive = image.brokers().filter(|broker| !broker.fenced);
    alive.map(|broker| (broker.registration.broker, broker.incarnation)).collect()
}

/// Whether a broker is registered and not fenced.
pub(super) fn is_alive(image: &Image, broker: BrokerId) -> bool {
    image.broker(broker).is_some_and(|broker| !broker.fenced)
}

/// Whether a partition has a leader that lives, and that is not waiting for somebody who surely has all records.
pub(super) fn is_led(image: &Image, state: &PartitionState) -> bool {
    is_alive(image, state.leader) && !is_in_doubt(state, |broker| is_alive(image, broker))
}

/// The partitions of a topic, in order. `alive` are the brokers that live ([`alive`]).
pub(super) fn partitions(
    context: &RequestContext<'_>,
    alive: &[(BrokerId, Incarnation)],
    topic: &Topic,
) -> impl Iterator<Item = PartitionView> {
    topic.partitions.iter().enumerate().map(|(index, state)| {
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        partition(context, alive, topic, index, state)
    })
}

fn partition(
    context: &RequestContext<'_>,
    alive: &[(BrokerId, Incarnation)],
    topic: &Topic,
    index: i32,
    state: &PartitionState,
) -> PartitionView {
    // There are few brokers, and many partitions.
    let lives = |id: i32| alive.iter().any(|(broker, _)| broker.0 == id);
    let is_led = lives(state.leader.0) && !is_in_doubt(state, |broker| lives(broker.0));
    let replicas: Vec<i32> = state.placement.iter().map(|broker| broker.0).collect();
    let (mut in_sync, mut eligible, mut last_known) = (Vec::new(), Vec::new(), Vec::new());
    match &state.last().state {
        SegmentState::Open { ensemble } => {
            for member in ensemble {
                let takes_records = alive.contains(&(member.broker, member.incarnation));
                let shown = match () {
                    () if takes_records || (is_led && member.broker == state.leader) => &mut in_sync,
                    () if state.doubtful.contains(&member.storage) => &mut last_known,
                    () => &mut eligible,
                };
                shown.push(member.broker.0);
            }
        }
        SegmentState::Sealed { .. } => in_sync.clone_from(&replicas),
    }
    let offline = replicas.iter().copied().filter(|id| !lives(*id)).collect();
    let view = PartitionView {
        error: ErrorCode::None,
        index,
        leader: state.leader.0,
        leader_epoch: state.leader_epoch.0,
        replicas,
        in_sync,
        eligible,
        last_known,
        offline,
    };
    if !is_led {
        return PartitionView { error: ErrorCode::LeaderNotAvailable, leader: -1, ..view };
    }
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
