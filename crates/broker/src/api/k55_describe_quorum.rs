//! DescribeQuorum (55), versions 0 to 2: the controllers and how far their logs go.
//!
//! Any broker answers. How far the logs of other controllers go only the active one knows, and is asked; what it does not
//! say in time is -1. So are the times of all but the active one.

use std::borrow::Cow;

use base::error::ErrorCode;
use base::ids::TimestampMs;
use metadata::{QuorumState, VoterState};
use wire::message::describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData};
use wire::message::{DescribeQuorumRequest, DescribeQuorumResponse, describe_quorum_request};

use super::{Close, RequestContext};
use crate::topics::METADATA_TOPIC;

/// What the listener of controllers is called in answers; ours has no name.
const LISTENER: &str = "CONTROLLER";

/// First version that tells where controllers are reached.
const NODES_VERSION: i16 = 2;

/// Answers the request. As in Kafka, one that asks for anything else besides is refused as a whole.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: DescribeQuorumRequest<'_>,
) -> Result<DescribeQuorumResponse<'static>, Close> {
    let quorum = context.broker.metadata.ask_quorum().await;
    let now_ms = context.broker.env.clock.wall_ms();
    let is_asked = match &request.topics[..] {
        [topic] if topic.topic_name == METADATA_TOPIC => {
            matches!(&topic.partitions[..], [partition] if partition.partition_index == 0)
        }
        _ => false,
    };
    let partition = |index: i32| match is_asked {
        true => described(&quorum, now_ms),
        false => PartitionData {
            partition_index: index,
            error_code: ErrorCode::UnknownTopicOrPartition.code(),
            error_message: Some(Cow::Borrowed(
                "Only partition 0 of the metadata's topic is described, and alone.",
            )),
            ..PartitionData::default()
        },
    };
    let topic = |topic: &describe_quorum_request::TopicData<'_>| TopicData {
        topic_name: Cow::Owned(topic.topic_name.to_string()),
        partitions: topic.partitions.iter().map(|it| partition(it.partition_index)).collect(),
    };
    let tells_nodes = is_asked && context.api_version >= NODES_VERSION;
    let nodes = if tells_nodes { quorum.voters.iter().filter_map(node).collect() } else { Vec::new() };
    let topics = request.topics.iter().map(topic).collect();
    Ok(DescribeQuorumResponse { topics, nodes, ..DescribeQuorumResponse::default() })
}

fn described(quorum: &QuorumState, now_ms: TimestampMs) -> PartitionData<'static> {
    let number = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok()).unwrap_or(-1);
    let voter = |voter: &VoterState| {
        // The active one has all there is, now.
        let time_ms = if quorum.leader == Some(voter.id) { now_ms } else { -1 };
        ReplicaState {
            replica_id: voter.id.0,
            log_end_offset: number(voter.log_end),
            last_fetch_timestamp: time_ms,
            last_caught_up_timestamp: time_ms,
            ..ReplicaState::default()
        }
    };
    PartitionData {
        leader_id: quorum.leader.map_or(-1, |leader| leader.0),
        leader_epoch: i32::try_from(number(quorum.term)).unwrap_or(i32::MAX),
        high_watermark: number(Some(quorum.applied)),
        current_voters: quorum.voters.iter().map(voter).collect(),
        ..PartitionData::default()
    }
}

fn node(voter: &VoterState) -> Option<Node<'static>> {
    let (host, port) = voter.address.as_ref()?.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let listener = Listener {
        name: Cow::Borrowed(LISTENER),
        host: Cow::Owned(host.to_owned()),
        port: port.parse().ok()?,
    };
    Some(Node { node_id: voter.id.0, listeners: vec![listener] })
}
