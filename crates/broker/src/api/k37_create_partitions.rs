//! CreatePartitions (37), versions 0 to 3: more partitions for a topic. They are open when this answers.

use std::borrow::Cow;

use base::error::ErrorCode;
use metadata::Refusal;
use wire::message::create_partitions_request::CreatePartitionsTopic;
use wire::message::create_partitions_response::CreatePartitionsTopicResult;
use wire::message::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::mentions::{Mention, Mentions};
use super::{Close, RequestContext, in_time};
use crate::groups::OFFSETS_TOPIC;
use crate::turns::Turns;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: CreatePartitionsRequest<'_>,
) -> Result<CreatePartitionsResponse<'static>, Close> {
    let mut mentions = Mentions::of(request.topics.iter().map(|topic| &topic.name));
    let mut results = Vec::with_capacity(request.topics.len());
    let mut turns = Turns::default();
    for topic in &request.topics {
        turns.done(1).await;
        let outcome = match mentions.next(&&topic.name) {
            Mention::Only => match in_time(request.timeout_ms) {
                Ok(()) => create(context, topic, request.validate_only).await,
                Err(overdue) => Err(overdue),
            },
            Mention::FirstOfSeveral => {
                Err(Refusal::new(ErrorCode::InvalidRequest, "The request names the topic twice."))
            }
            Mention::Again => continue,
        };
        let (code, message) = match outcome {
            Ok(()) => (ErrorCode::None, None),
            Err(refused) => (refused.code, Some(Cow::Owned(refused.message))),
        };
        results.push(CreatePartitionsTopicResult {
            name: Cow::Owned(topic.name.to_string()),
            error_code: code.code(),
            error_message: message,
        });
    }
    Ok(CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() })
}

async fn create(
    context: &RequestContext<'_>,
    topic: &CreatePartitionsTopic<'_>,
    validate_only: bool,
) -> Result<(), Refusal> {
    if topic.name == OFFSETS_TOPIC {
        // Kafka lets it happen; groups then look for their offsets in other partitions and find none.
        let message = "The number of its partitions decides where a group's offsets are; it cannot change.";
        return Err(Refusal::new(ErrorCode::InvalidPartitions, message));
    }
    let assignments = topic.assignments.as_ref();
    let assignments =
        assignments.map(|all| all.iter().map(|assignment| assignment.broker_ids.clone()).collect());
    context.broker.create_partitions(&topic.name, topic.count, assignments, validate_only).await
}
