//! OffsetFetch (9), versions 1 to 10: how far groups have come.
//!
//! Up to version 7 a request asks for one group, from 8 on for several (KIP-709); from version 10 on topics are
//! named by id. No topics (null) means all that have offsets. A partition without a committed offset is
//! answered with -1 and no error.
//!
//! No offset is told that is older than one that was acknowledged when the request came, by another coordinator even:
//! this broker makes sure first that it still is the coordinator. Where it cannot, the answer is NOT_COORDINATOR.

use std::borrow::Cow;
use std::collections::BTreeSet;

use base::error::ErrorCode;
use base::ids::Uuid;
use coordinator::{
    Answer, FetchTopic, FetchedOffset, FetchedTopic, OffsetFetchAnswer, OffsetFetchRequest as Fetch, Request,
};
use metadata::Image;
use wire::message::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use wire::message::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use wire::message::{OffsetFetchRequest, OffsetFetchResponse};

use super::k08_offset_commit::TOPIC_ID_VERSION;
use super::{Close, RequestContext, wrong_answer};
use crate::turns::Turns;

/// Version from which a request asks for several groups.
const GROUPS_VERSION: i16 = 8;

/// Version from which an answer has an error code of its own; before it every partition carries it.
const TOP_ERROR_VERSION: i16 = 2;

/// Offsets after which no further group is answered: one request may name all groups, and each of them often.
const OFFSETS_MAX: usize = 500_000;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: OffsetFetchRequest<'_>,
) -> Result<OffsetFetchResponse<'static>, Close> {
    if context.api_version < GROUPS_VERSION {
        return Ok(single(context, request).await);
    }
    let mut groups = Vec::with_capacity(request.groups.len());
    let mut turns = Turns::default();
    let mut offsets = 0;
    let mut confirmed = BTreeSet::new();
    for group in request.groups {
        let group = if offsets < OFFSETS_MAX {
            fetch_group(context, group, request.require_stable, &mut confirmed, &mut turns).await
        } else {
            // Clients ask again for those groups that are answered so.
            OffsetFetchResponseGroup {
                group_id: Cow::Owned(group.group_id.into_owned()),
                topics: Vec::new(),
                error_code: ErrorCode::CoordinatorLoadInProgress.code(),
            }
        };
        let told: usize = group.topics.iter().map(|topic| 1 + topic.partitions.len()).sum();
        offsets += told;
        turns.done(1 + told).await;
        groups.push(group);
    }
    Ok(OffsetFetchResponse { groups, ..OffsetFetchResponse::default() })
}

async fn single(
    context: &RequestContext<'_>,
    request: OffsetFetchRequest<'_>,
) -> OffsetFetchResponse<'static> {
    let topics: Option<Vec<FetchTopic>> = request.topics.map(|topics| {
        let asked = topics.into_iter().map(|topic| FetchTopic {
            name: topic.name.into_owned(),
            topic_id: Uuid::ZERO,
            partitions: topic.partition_indexes,
        });
        asked.collect()
    });
    let mut confirmed = BTreeSet::new();
    let answer =
        ask(context, &request.group_id, topics.clone(), request.require_stable, &mut confirmed).await;
    if answer.error.is_error() && context.api_version < TOP_ERROR_VERSION {
        let topics = topics.unwrap_or_default().into_iter().map(|topic| failed(topic, answer.error));
        return OffsetFetchResponse {
            topics: topics.map(single_topic).collect(),
            ..OffsetFetchResponse::default()
        };
    }
    OffsetFetchResponse {
        error_code: answer.error.code(),
        topics: answer.topics.into_iter().map(single_topic).collect(),
        ..OffsetFetchResponse::default()
    }
}

fn single_topic(topic: FetchedTopic) -> OffsetFetchResponseTopic<'static> {
    let partition = |offset: FetchedOffset| OffsetFetchResponsePartition {
        partition_index: offset.partition,
        committed_offset: offset.offset,
        committed_leader_epoch: offset.leader_epoch,
        metadata: Some(Cow::Owned(offset.metadata)),
        error_code: offset.error.code(),
    };
    OffsetFetchResponseTopic {
        name: Cow::Owned(topic.name),
        partitions: topic.partitions.into_iter().map(partition).collect(),
    }
}

async fn fetch_group(
    context: &RequestContext<'_>,
    group: OffsetFetchRequestGroup<'_>,
    require_stable: bool,
    confirmed: &mut BTreeSet<i32>,
    turns: &mut Turns,
) -> OffsetFetchResponseGroup<'static> {
    let image = context.broker.image();
    let by_id = context.api_version >= TOPIC_ID_VERSION;
    let mut unknown = Vec::new();
    let asks_for_all = group.topics.is_none();
    let topics = match group.topics {
        Some(topics) => Some(asked_topics(&image, by_id, topics, &mut unknown, turns).await),
        None => None,
    };
    let answer = ask(context, &group.group_id, topics, require_stable, confirmed).await;
    let mut topics = answer.topics;
    if by_id && asks_for_all {
        // The shard knows names alone; an offset of a topic that is no more has no id to be told by.
        topics.retain_mut(|topic| match image.topic(&topic.name) {
            Some(known) => {
                topic.topic_id = known.id;
                true
            }
            None => false,
        });
    }
    if !answer.error.is_error() {
        topics.extend(unknown);
    }
    OffsetFetchResponseGroup {
        group_id: Cow::Owned(group.group_id.into_owned()),
        topics: topics.into_iter().map(|topic| group_topic(topic, by_id)).collect(),
        error_code: answer.error.code(),
    }
}

/// The topics to ask the shard for; those whose id nobody knows go to `unknown`.
async fn asked_topics(
    image: &Image,
    by_id: bool,
    topics: Vec<OffsetFetchRequestTopics<'_>>,
    unknown: &mut Vec<FetchedTopic>,
    turns: &mut Turns,
) -> Vec<FetchTopic> {
    let mut asked = Vec::with_capacity(topics.len());
    for topic in topics {
        turns.done(1).await;
        let mut topic = FetchTopic {
            name: topic.name.into_owned(),
            topic_id: topic.topic_id,
            partitions: topic.partition_indexes,
        };
        match image.topic_by_id(topic.topic_id) {
            _ if !by_id => asked.push(topic),
            Some(known) => {
                topic.name = known.name.to_string();
                asked.push(topic);
            }
            None => unknown.push(failed(topic, ErrorCode::UnknownTopicId)),
        }
    }
    asked
}

fn group_topic(topic: FetchedTopic, by_id: bool) -> OffsetFetchResponseTopics<'static> {
    let partition = |offset: FetchedOffset| OffsetFetchResponsePartitions {
        partition_index: offset.partition,
        committed_offset: offset.offset,
        committed_leader_epoch: offset.leader_epoch,
        metadata: Some(Cow::Owned(offset.metadata)),
        error_code: offset.error.code(),
    };
    OffsetFetchResponseTopics {
        name: if by_id { Cow::Borrowed("") } else { Cow::Owned(topic.name) },
        topic_id: if by_id { topic.topic_id } else { Uuid::ZERO },
        partitions: topic.partitions.into_iter().map(partition).collect(),
    }
}

async fn ask(
    context: &RequestContext<'_>,
    group: &str,
    topics: Option<Vec<FetchTopic>>,
    require_stable: bool,
    confirmed: &mut BTreeSet<i32>,
) -> OffsetFetchAnswer {
    let fetch = Fetch { group_id: group.to_owned(), topics, require_stable };
    let groups = &context.broker.groups;
    let error = match groups.confirm(context.broker, group, confirmed).await {
        Ok(()) => match groups.ask(group, Request::OffsetFetch(fetch)).await {
            Ok(Answer::OffsetFetch(answer)) => return answer,
            Ok(other) => wrong_answer(&other),
            Err(code) => code,
        },
        Err(code) => code,
    };
    OffsetFetchAnswer { error, topics: Vec::new() }
}

/// A topic of which nothing can be told.
fn failed(topic: FetchTopic, error: ErrorCode) -> FetchedTopic {
    let partition =
        |partition| FetchedOffset { partition, error, offset: -1, leader_epoch: -1, metadata: String::new() };
    FetchedTopic {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    }
}
