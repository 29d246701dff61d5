//! ListPartitionReassignments (46), version 0: which partitions are being moved.
//!
//! As in Kafka, what does not exist or is not being moved is left out, and the timeout means nothing.

use std::borrow::Cow;
use std::collections::BTreeSet;

use base::ids::{BrokerId, PartitionId};
use metadata::Topic;
use wire::message::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use wire::message::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use super::{Close, RequestContext};
use crate::reassignments::{Move, Moves};
use crate::turns::Turns;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: ListPartitionReassignmentsRequest<'_>,
) -> Result<ListPartitionReassignmentsResponse<'static>, Close> {
    let image = context.broker.image();
    let moves = Moves::of(&image);
    let mut turns = Turns::default();
    let mut topics = Vec::new();
    match &request.topics {
        None => {
            for topic in image.topics() {
                turns.done(1 + topic.partitions.len()).await;
                let all = (0..).take(topic.partitions.len());
                topics.extend(ongoing(&moves, topic, all));
            }
        }
        Some(asked) => {
            for asked in asked {
                turns.done(1 + asked.partition_indexes.len()).await;
                let numbers: BTreeSet<i32> = asked.partition_indexes.iter().copied().collect();
                let topic = image.topic(&asked.name);
                topics.extend(topic.and_then(|topic| ongoing(&moves, topic, numbers.into_iter())));
            }
        }
    }
    Ok(ListPartitionReassignmentsResponse {
        error_message: None,
        topics,
        ..ListPartitionReassignmentsResponse::default()
    })
}

/// Those of the partitions of a topic that are being moved, if any are.
fn ongoing(
    moves: &Moves<'_>,
    topic: &Topic,
    numbers: impl Iterator<Item = i32>,
) -> Option<OngoingTopicReassignment<'static>> {
    let shown = |number: i32| {
        let state = topic.partition(PartitionId(number))?;
        Some(shown(number, moves.of_partition(state)?))
    };
    let partitions: Vec<_> = numbers.filter_map(shown).collect();
    let name = Cow::Owned(topic.name.to_string());
    (!partitions.is_empty()).then_some(OngoingTopicReassignment { name, partitions })
}

fn shown(partition_index: i32, ongoing: Move) -> OngoingPartitionReassignment {
    let ids = |brokers: Vec<BrokerId>| brokers.into_iter().map(|broker| broker.0).collect();
    OngoingPartitionReassignment {
        partition_index,
        replicas: ids(ongoing.brokers),
        adding_replicas: ids(ongoing.adding),
        removing_replicas: ids(ongoing.removing),
    }
}
