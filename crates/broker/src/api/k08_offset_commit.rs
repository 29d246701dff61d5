//! OffsetCommit (8), versions 2 to 10: how far a group has come.
//!
//! Offsets for topics and partitions that do not exist are refused one by one; from version 10 on topics are named
//! by id (KIP-848). An offset is acknowledged once it is in the log of the group's shard.

use std::borrow::Cow;
use std::collections::HashMap;

use base::error::ErrorCode;
use base::ids::{PartitionId, TopicId};
use coordinator::{
    Answer, CommitPartition, CommitTopic, CommittedTopic, OffsetCommitRequest as Commit, Request,
};
use metadata::{Image, Topic};
use wire::message::offset_commit_request::OffsetCommitRequestTopic;
use wire::message::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use wire::message::{OffsetCommitRequest, OffsetCommitResponse};

use super::{Close, RequestContext, wrong_answer};
use crate::turns::Turns;

/// Version from which topics are named by id.
pub(super) const TOPIC_ID_VERSION: i16 = 10;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: OffsetCommitRequest<'_>,
) -> Result<OffsetCommitResponse<'static>, Close> {
    let image = context.broker.image();
    let mut responses = Vec::with_capacity(request.topics.len());
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut turns = Turns::default();
    for topic in &request.topics {
        turns.done(1 + topic.partitions.len()).await;
        let known = match known(&image, context.api_version, topic) {
            Ok(known) => known,
            Err(code) => {
                responses.push(refused(topic, code, |_| true));
                continue;
            }
        };
        let exists = |number: i32| known.partition(PartitionId(number)).is_some();
        if !topic.partitions.iter().all(|partition| exists(partition.partition_index)) {
            responses.push(refused(topic, ErrorCode::UnknownTopicOrPartition, |number| !exists(number)));
        }
        let commit = commit_topic(known.name.to_string(), topic, exists);
        if !commit.partitions.is_empty() {
            topics.push(commit);
        }
    }
    if !topics.is_empty() {
        let committed = commit(context, &request, topics).await;
        add(context.api_version, &mut responses, committed);
    }
    Ok(OffsetCommitResponse { topics: responses, ..OffsetCommitResponse::default() })
}

/// Adds the outcomes of topics, each to those of its partitions that were refused, if there are any.
fn add(
    version: i16,
    responses: &mut Vec<OffsetCommitResponseTopic<'static>>,
    committed: Vec<OffsetCommitResponseTopic<'static>>,
) {
    let key = |topic: &OffsetCommitResponseTopic<'static>| -> (TopicId, Cow<'static, str>) {
        match version {
            TOPIC_ID_VERSION.. => (topic.topic_id, Cow::Borrowed("")),
            _ => (TopicId::ZERO, topic.name.clone()),
        }
    };
    let mut places = HashMap::new();
    for (place, topic) in responses.iter().enumerate() {
        places.entry(key(topic)).or_insert(place);
    }
    for mut topic in committed {
        match places.get(&key(&topic)) {
            Some(place) => responses[*place].partitions.append(&mut topic.partitions),
            None => responses.push(topic),
        }
    }
}

async fn commit(
    context: &RequestContext<'_>,
    request: &OffsetCommitRequest<'_>,
    topics: Vec<CommitTopic>,
) -> Vec<OffsetCommitResponseTopic<'static>> {
    let commit = Commit {
        api_version: context.api_version,
        group_id: request.group_id.to_string(),
        generation: request.generation_id_or_member_epoch,
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.as_deref().map(str::to_owned),
        retention_time_ms: request.retention_time_ms,
        topics: topics.clone(),
    };
    let code = match context.broker.groups.ask(&request.group_id, Request::OffsetCommit(commit)).await {
        Ok(Answer::OffsetCommit(answer)) => return answer.topics.into_iter().map(answered).collect(),
        Ok(other) => wrong_answer(&other),
        Err(code) => code,
    };
    let refused = topics.into_iter().map(|topic| CommittedTopic {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: topic.partitions.iter().map(|partition| (partition.partition, code)).collect(),
    });
    refused.map(answered).collect()
}

fn known<'i>(
    image: &'i Image,
    version: i16,
    topic: &OffsetCommitRequestTopic<'_>,
) -> Result<&'i Topic, ErrorCode> {
    if version >= TOPIC_ID_VERSION {
        return image.topic_by_id(topic.topic_id).map(|topic| &**topic).ok_or(ErrorCode::UnknownTopicId);
    }
    image.topic(&topic.name).map(|topic| &**topic).ok_or(ErrorCode::UnknownTopicOrPartition)
}

fn commit_topic(
    name: String,
    topic: &OffsetCommitRequestTopic<'_>,
    exists: impl Fn(i32) -> bool,
) -> CommitTopic {
    let there = topic.partitions.iter().filter(|partition| exists(partition.partition_index));
    let partitions = there.map(|partition| CommitPartition {
        partition: partition.partition_index,
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata.as_deref().map(str::to_owned),
    });
    CommitTopic { name, topic_id: topic.topic_id, partitions: partitions.collect() }
}

fn answered(topic: CommittedTopic) -> OffsetCommitResponseTopic<'static> {
    let partition = |(partition_index, code): (i32, ErrorCode)| OffsetCommitResponsePartition {
        partition_index,
        error_code: code.code(),
    };
    OffsetCommitResponseTopic {
        name: Cow::Owned(topic.name),
        topic_id: topic.topic_id,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    }
}

/// The outcome for those partitions of a topic that are refused.
fn refused(
    topic: &OffsetCommitRequestTopic<'_>,
    code: ErrorCode,
    is_refused: impl Fn(i32) -> bool,
) -> OffsetCommitResponseTopic<'static> {
    let numbers = topic.partitions.iter().map(|partition| partition.partition_index);
    answered(CommittedTopic {
        name: topic.name.to_string(),
        topic_id: topic.topic_id,
        partitions: numbers.filter(|number| is_refused(*number)).map(|number| (number, code)).collect(),
    })
}
