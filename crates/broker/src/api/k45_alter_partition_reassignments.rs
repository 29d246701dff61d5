//! AlterPartitionReassignments (45), versions 0 and 1: says where copies of partitions shall be, or calls that off.
//!
//! It answers once that stands in the metadata; what follows takes its time ([`crate::reassignments`]).

use std::borrow::Cow;

use base::error::ErrorCode;
use base::ids::{BrokerId, PartitionId, TopicPartition};
use metadata::{ChainEdit, Command, CommandResult, Image, LEAVING_BROKERS, Refusal};
use wire::message::alter_partition_reassignments_request::ReassignablePartition;
use wire::message::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use wire::message::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};

use super::{Close, RequestContext, in_time};
use crate::reassignments::Moves;
use crate::topics::{unavailable, unknown_topic};
use crate::turns::Turns;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: AlterPartitionReassignmentsRequest<'_>,
) -> Result<AlterPartitionReassignmentsResponse<'static>, Close> {
    let allow_change = request.allow_replication_factor_change;
    let overdue = in_time(request.timeout_ms).err();
    let image = context.broker.image();
    let moves = Moves::of(&image);
    let mut turns = Turns::default();
    let (mut edits, mut outcomes) = (Vec::new(), Vec::new());
    for topic in &request.topics {
        for partition in &topic.partitions {
            turns.done(1).await;
            outcomes.push(match &overdue {
                Some(overdue) => Err(overdue.clone()),
                None => {
                    plan(&image, &moves, &topic.name, partition, allow_change).map(|edit| edits.push(edit))
                }
            });
        }
    }
    propose(context, edits, &mut outcomes).await;
    let mut outcomes = outcomes.into_iter();
    let mut responses = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let shown = |partition: &ReassignablePartition| {
            shown(partition.partition_index, outcomes.next().unwrap_or_else(|| Err(unavailable())))
        };
        responses.push(ReassignableTopicResponse {
            name: Cow::Owned(topic.name.to_string()),
            partitions: topic.partitions.iter().map(shown).collect(),
        });
    }
    Ok(AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: allow_change,
        error_code: overdue.as_ref().map_or(ErrorCode::None, |overdue| overdue.code).code(),
        // As Kafka, which says nothing of nothing with an empty text.
        error_message: request.topics.is_empty().then_some(Cow::Borrowed("")),
        responses,
        ..AlterPartitionReassignmentsResponse::default()
    })
}

/// What is to be changed for one partition.
fn plan(
    image: &Image,
    moves: &Moves<'_>,
    topic: &str,
    asked: &ReassignablePartition,
    allow_change: bool,
) -> Result<ChainEdit, Refusal> {
    let topic = image.topic(topic).ok_or_else(|| unknown_topic(topic))?;
    let number = asked.partition_index;
    let id = TopicPartition { topic_id: topic.id, partition: PartitionId(number) };
    let state = topic.partition(id.partition).ok_or_else(|| {
        let message = format!("Topic '{}' has no partition {number}.", topic.name);
        Refusal::new(ErrorCode::UnknownTopicOrPartition, message)
    })?;
    let brokers = match &asked.replicas {
        Some(brokers) => {
            check(image, brokers)?;
            brokers.iter().copied().map(BrokerId).collect()
        }
        None => moves.before(state).ok_or_else(|| {
            let message = "Nothing is under way, or all copies are made already.";
            Refusal::new(ErrorCode::NoReassignmentInProgress, message)
        })?,
    };
    if !allow_change && asked.replicas.is_some() && brokers.len() != state.placement.len() {
        let (have, wanted) = (state.placement.len(), brokers.len());
        let message = format!("The replication factor is {have}; {wanted} would change it.");
        return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, message));
    }
    // Everything goes where it is wanted now, whoever kept it so far.
    Ok(ChainEdit::SetPlacement { partition: id, brokers, keepers: Vec::new() })
}

fn check(image: &Image, brokers: &[i32]) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
    if brokers.is_empty() {
        return refuse("A partition is assigned to one broker at least.".to_owned());
    }
    if let Some(broker) = brokers.iter().find(|broker| image.broker(BrokerId(**broker)).is_none()) {
        return refuse(format!("Broker {broker} is not registered."));
    }
    let leaving = image.leaving();
    if let Some(broker) = brokers.iter().find(|broker| leaving.contains(&BrokerId(**broker))) {
        return refuse(format!("Broker {broker} leaves the cluster ({LEAVING_BROKERS})."));
    }
    let repeated = brokers.iter().enumerate().find(|(index, broker)| brokers[..*index].contains(broker));
    match repeated {
        Some((_, broker)) => refuse(format!("The partition is assigned to broker {broker} twice.")),
        None => Ok(()),
    }
}

/// Makes the changes, and notes which were not made.
async fn propose(context: &RequestContext<'_>, edits: Vec<ChainEdit>, outcomes: &mut [Result<(), Refusal>]) {
    if edits.is_empty() {
        return;
    }
    let results = match context.broker.metadata.propose(Command::Edit(edits)).await {
        Ok(CommandResult::Chains(results)) => results,
        other => {
            tracing::error!(?other, "partitions cannot be reassigned");
            Vec::new()
        }
    };
    let mut results = results.into_iter();
    for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
        *outcome = match results.next() {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => {
                Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, format!("Not reassigned: {error}.")))
            }
            None => Err(unavailable()),
        };
    }
}

fn shown(partition_index: i32, outcome: Result<(), Refusal>) -> ReassignablePartitionResponse<'static> {
    let (code, message) = match outcome {
        Ok(()) => (ErrorCode::None, None),
        Err(refused) => (refused.code, Some(Cow::Owned(refused.message))),
    };
    ReassignablePartitionResponse { partition_index, error_code: code.code(), error_message: message }
}
