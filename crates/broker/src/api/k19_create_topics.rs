//! CreateTopics (19), versions 2 to 7. The topics' partitions are open when this answers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base::config::Described;
use base::error::ErrorCode;
use base::ids::Uuid;
use metadata::Refusal;
use wire::message::create_topics_request::CreatableTopic;
use wire::message::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use wire::message::{CreateTopicsRequest, CreateTopicsResponse};

use super::cluster::is_internal_name;
use super::mentions::{Mention, Mentions};
use super::{Close, RequestContext, in_time};
use crate::topics::{CreatedTopic, TopicSpec};
use crate::turns::Turns;

/// Topics that one request creates at most, as in Kafka: with all its values told, a topic takes some hundred times
/// the place in an answer that it takes in a request.
const TOPICS_MAX: usize = 10_000;

/// Pieces of work for telling the values of a topic, see [`Turns`].
const PIECES_PER_TOPIC: usize = 32;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: CreateTopicsRequest<'_>,
) -> Result<CreateTopicsResponse<'static>, Close> {
    let mut mentions = Mentions::of(request.topics.iter().map(|topic| &topic.name));
    let mut results = Vec::with_capacity(request.topics.len());
    let (mut places, mut specs) = (Vec::new(), Vec::new());
    let mut turns = Turns::default();
    for topic in &request.topics {
        turns.done(1).await;
        match mentions.next(&&topic.name) {
            Mention::Only => match in_time(request.timeout_ms).and_then(|()| specified(topic)) {
                Ok(spec) if specs.len() >= TOPICS_MAX => {
                    let message = format!("One request can create at most {TOPICS_MAX} topics.");
                    let refused = Refusal::new(ErrorCode::PolicyViolation, message);
                    results.push(Some(failed(spec.name, refused)));
                }
                Ok(spec) => {
                    places.push(results.len());
                    specs.push(spec);
                    results.push(None);
                }
                Err(refused) => results.push(Some(failed(topic.name.to_string(), refused))),
            },
            Mention::FirstOfSeveral => {
                let refused = Refusal::new(ErrorCode::InvalidRequest, "The request names the topic twice.");
                results.push(Some(failed(topic.name.to_string(), refused)));
            }
            Mention::Again => {}
        }
    }
    let created = context.broker.create_topics(specs.clone(), request.validate_only).await;
    for ((place, spec), created) in places.into_iter().zip(specs).zip(created) {
        results[place] = Some(match created {
            Ok(created) => succeeded(context, spec, &created),
            Err(refused) => failed(spec.name, refused),
        });
        turns.done(PIECES_PER_TOPIC).await;
    }
    Ok(CreateTopicsResponse {
        topics: results.into_iter().flatten().collect(),
        ..CreateTopicsResponse::default()
    })
}

fn specified(topic: &CreatableTopic<'_>) -> Result<TopicSpec, Refusal> {
    let mut configs = Vec::with_capacity(topic.configs.len());
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let message = format!("`{}` has no value.", config.name);
            return Err(Refusal::new(ErrorCode::InvalidConfig, message));
        };
        configs.push((config.name.to_string(), value.to_string()));
    }
    Ok(TopicSpec {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: i32::from(topic.replication_factor),
        assignments: assigned(topic)?,
        configs,
        internal: is_internal_name(&topic.name),
    })
}

/// The brokers of each partition, if the request chooses them.
fn assigned(topic: &CreatableTopic<'_>) -> Result<Option<Vec<Vec<i32>>>, Refusal> {
    if topic.assignments.is_empty() {
        return Ok(None);
    }
    let mut by_partition = BTreeMap::new();
    for assignment in &topic.assignments {
        if by_partition.insert(assignment.partition_index, assignment.broker_ids.clone()).is_some() {
            let message = format!("Partition {} is assigned twice.", assignment.partition_index);
            return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
        }
    }
    let expected = 0..i32::try_from(by_partition.len()).unwrap_or(i32::MAX);
    if !by_partition.keys().copied().eq(expected) {
        let message = "The assigned partitions are not numbered from 0 without a gap.";
        return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
    }
    Ok(Some(by_partition.into_values().collect()))
}

fn succeeded(
    context: &RequestContext<'_>,
    spec: TopicSpec,
    created: &CreatedTopic,
) -> CreatableTopicResult<'static> {
    let overrides: BTreeMap<String, String> = spec.configs.into_iter().collect();
    let described = context.broker.config().describe_topic(&overrides);
    CreatableTopicResult {
        name: Cow::Owned(spec.name),
        topic_id: created.id,
        num_partitions: i32::try_from(created.partitions).unwrap_or(i32::MAX),
        replication_factor: i16::try_from(created.replication_factor).unwrap_or(i16::MAX),
        configs: Some(described.into_iter().map(config).collect()),
        error_message: None,
        ..CreatableTopicResult::default()
    }
}

fn config(described: Described) -> CreatableTopicConfigs<'static> {
    CreatableTopicConfigs {
        name: Cow::Borrowed(described.key.name),
        value: described.value.map(Cow::Owned),
        read_only: described.read_only,
        config_source: described.source.code(),
        is_sensitive: described.key.is_sensitive(),
    }
}

fn failed(name: String, refused: Refusal) -> CreatableTopicResult<'static> {
    CreatableTopicResult {
        name: Cow::Owned(name),
        topic_id: Uuid::ZERO,
        error_code: refused.code.code(),
        error_message: Some(Cow::Owned(refused.message)),
        num_partitions: -1,
        replication_factor: -1,
        configs: Some(Vec::new()),
        ..CreatableTopicResult::default()
    }
}
