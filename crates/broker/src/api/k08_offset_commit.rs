//! OffsetCommit (8), versions 2 to 10: how far a group has come.
//!
//! Offsets for topics that do not exist are refused one by one; from version 10 on topics are named by id
//! (KIP-848). An offset is acknowledged once it is in the log of the group's shard.

use std::borrow::Cow;

use base::error::ErrorCode;
use coordinator::{
    Answer, CommitPartition, CommitTopic, CommittedTopic, OffsetCommitRequest as Commit, Request,
};
use metadata::Image;
use wire::message::offset_commit_request::OffsetCommitRequestTopic;
use wire::message::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use wire::message::{OffsetCommitRequest, OffsetCommitResponse};

use super::{Close, RequestContext, wrong_answer};

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
    for topic in &request.topics {
        match known_name(&image, context.api_version, topic) {
            Ok(name) => topics.push(commit_topic(name, topic)),
            Err(code) => responses.push(refused(topic, code)),
        }
    }
    if !topics.is_empty() {
        responses.extend(commit(context, &request, topics).await);
    }
    Ok(OffsetCommitResponse { topics: responses, ..OffsetCommitResponse::default() })
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

fn known_name(
    image: &Image,
    version: i16,
    topic: &OffsetCommitRequestTopic<'_>,
) -> Result<String, ErrorCode> {
    if version >= TOPIC_ID_VERSION {
        let known = image.topic_by_id(topic.topic_id).ok_or(ErrorCode::UnknownTopicId)?;
        return Ok(known.name.to_string());
    }
    match image.topic(&topic.name) {
        Some(known) => Ok(known.name.to_string()),
        None => Err(ErrorCode::UnknownTopicOrPartition),
    }
}

fn commit_topic(name: String, topic: &OffsetCommitRequestTopic<'_>) -> CommitTopic {
    let partitions = topic.partitions.iter().map(|partition| CommitPartition {
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

fn refused(topic: &OffsetCommitRequestTopic<'_>, code: ErrorCode) -> OffsetCommitResponseTopic<'static> {
    answered(CommittedTopic {
        name: topic.name.to_string(),
        topic_id: topic.topic_id,
        partitions: topic.partitions.iter().map(|partition| (partition.partition_index, code)).collect(),
    })
}
