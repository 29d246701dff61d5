//! OffsetDelete (47), version 0: a group forgets how far it has come in topics it does not read (KIP-496).

use std::borrow::Cow;
use std::collections::HashMap;

use base::error::ErrorCode;
use base::ids::PartitionId;
use coordinator::{Answer, OffsetDeleteAnswer, OffsetDeleteRequest as Delete, Request};
use wire::message::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use wire::message::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::{Close, RequestContext, wrong_answer};
use crate::turns::Turns;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: OffsetDeleteRequest<'_>,
) -> Result<OffsetDeleteResponse<'static>, Close> {
    let image = context.broker.image();
    let group = request.group_id.into_owned();
    let (mut topics, mut responses) = (Vec::new(), Vec::new());
    let mut turns = Turns::default();
    for topic in request.topics {
        turns.done(1 + topic.partitions.len()).await;
        let name = topic.name.into_owned();
        let numbers = topic.partitions.iter().map(|partition| partition.partition_index);
        let known = image.topic(&name);
        let exists =
            |number: &i32| known.is_some_and(|topic| topic.partition(PartitionId(*number)).is_some());
        let (there, unknown): (Vec<i32>, Vec<i32>) = numbers.partition(exists);
        let unknown: Vec<_> =
            unknown.into_iter().map(|number| (number, ErrorCode::UnknownTopicOrPartition)).collect();
        if !unknown.is_empty() {
            responses.push((name.clone(), unknown));
        }
        if !there.is_empty() {
            topics.push((name, there));
        }
    }
    let delete = Delete { group_id: group.clone(), topics };
    let answer = match context.broker.groups.ask(&group, Request::OffsetDelete(delete)).await {
        Ok(Answer::OffsetDelete(answer)) => answer,
        Ok(other) => OffsetDeleteAnswer { error: wrong_answer(&other), topics: Vec::new() },
        Err(error) => OffsetDeleteAnswer { error, topics: Vec::new() },
    };
    if answer.error.is_error() {
        return Ok(OffsetDeleteResponse {
            error_code: answer.error.code(),
            ..OffsetDeleteResponse::default()
        });
    }
    let mut places = HashMap::new();
    for (place, (name, _)) in responses.iter().enumerate() {
        places.entry(name.clone()).or_insert(place);
    }
    for (name, mut outcomes) in answer.topics {
        match places.get(&name) {
            Some(place) => responses[*place].1.append(&mut outcomes),
            None => responses.push((name, outcomes)),
        }
    }
    let topics = responses.into_iter().map(|(name, outcomes)| shown(name, outcomes));
    Ok(OffsetDeleteResponse { topics: topics.collect(), ..OffsetDeleteResponse::default() })
}

fn shown(name: String, partitions: Vec<(i32, ErrorCode)>) -> OffsetDeleteResponseTopic<'static> {
    let partition = |(partition_index, code): (i32, ErrorCode)| OffsetDeleteResponsePartition {
        partition_index,
        error_code: code.code(),
    };
    OffsetDeleteResponseTopic {
        name: Cow::Owned(name),
        partitions: partitions.into_iter().map(partition).collect(),
    }
}
