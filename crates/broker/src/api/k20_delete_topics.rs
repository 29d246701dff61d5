//! DeleteTopics (20), versions 1 to 6: by name, from version 6 on also by id (KIP-516).

use std::borrow::Cow;
use std::collections::HashSet;

use base::config::keys;
use base::error::ErrorCode;
use base::ids::{TopicId, Uuid};
use metadata::Refusal;
use wire::message::delete_topics_request::DeleteTopicState;
use wire::message::delete_topics_response::DeletableTopicResult;
use wire::message::{DeleteTopicsRequest, DeleteTopicsResponse};

use super::mentions::{Mention, Mentions};
use super::{Close, RequestContext, in_time};
use crate::topics::unknown_topic;
use crate::turns::Turns;

/// Version from which a topic may be named by id.
const TOPIC_ID_VERSION: i16 = 6;

/// Version from which a client knows that deletion can be switched off.
const DELETION_DISABLED_VERSION: i16 = 3;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: DeleteTopicsRequest<'_>,
) -> Result<DeleteTopicsResponse<'static>, Close> {
    let asked: Vec<DeleteTopicState<'_>> = if context.api_version < TOPIC_ID_VERSION {
        let named = |name| DeleteTopicState { name: Some(name), topic_id: Uuid::ZERO };
        request.topic_names.into_iter().map(named).collect()
    } else {
        request.topics
    };
    let mut mentions = Mentions::of(asked.iter().map(key));
    let twice = named_and_by_id(context, &asked);
    let mut responses = Vec::with_capacity(asked.len());
    let mut turns = Turns::default();
    for topic in &asked {
        turns.done(1).await;
        let refused = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
        let response = match mentions.next(&key(topic)) {
            Mention::Only => match in_time(request.timeout_ms).and_then(|()| find(context, topic)) {
                Ok((_, id)) if twice.contains(&id) && topic.name.is_none() => continue,
                Ok((name, id)) if twice.contains(&id) => {
                    shown(Some(&name), id, refused("The request names the topic by its id, too."))
                }
                Ok((name, id)) => shown(Some(&name), id, context.broker.delete_topic(id).await),
                Err(refused) => shown(topic.name.as_deref(), topic.topic_id, Err(refused)),
            },
            Mention::FirstOfSeveral => {
                shown(topic.name.as_deref(), topic.topic_id, refused("The request names the topic twice."))
            }
            Mention::Again => continue,
        };
        responses.push(response);
    }
    Ok(DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() })
}

fn key<'t>(topic: &'t DeleteTopicState<'_>) -> (Option<&'t str>, TopicId) {
    (topic.name.as_deref(), topic.topic_id)
}

/// Topics that a request names both by name and by id. They are refused where they are named by name.
fn named_and_by_id(context: &RequestContext<'_>, asked: &[DeleteTopicState<'_>]) -> HashSet<TopicId> {
    let image = context.broker.image();
    let ids: HashSet<TopicId> =
        asked.iter().filter(|topic| topic.name.is_none()).map(|topic| topic.topic_id).collect();
    let names =
        asked.iter().filter(|topic| topic.topic_id.is_zero()).filter_map(|topic| topic.name.as_deref());
    let named = names.filter_map(|name| image.topic(name)).map(|topic| topic.id);
    named.filter(|id| ids.contains(id)).collect()
}

fn find(context: &RequestContext<'_>, topic: &DeleteTopicState<'_>) -> Result<(String, TopicId), Refusal> {
    if !context.broker.config().get(keys::DELETE_TOPIC_ENABLE) {
        let code = if context.api_version < DELETION_DISABLED_VERSION {
            ErrorCode::InvalidRequest
        } else {
            ErrorCode::TopicDeletionDisabled
        };
        return Err(Refusal::new(code, "delete.topic.enable is false on this broker."));
    }
    let image = context.broker.image();
    let found = match &topic.name {
        Some(_) if !topic.topic_id.is_zero() => {
            let message = "A topic is named by its name or by its id, not by both.";
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
        Some(name) => image.topic(name).ok_or_else(|| unknown_topic(name))?,
        None if topic.topic_id.is_zero() => {
            return Err(Refusal::new(ErrorCode::InvalidRequest, "Neither a name nor an id is given."));
        }
        None => image.topic_by_id(topic.topic_id).ok_or_else(|| {
            let message = format!("There is no topic with id {}.", topic.topic_id);
            Refusal::new(ErrorCode::UnknownTopicId, message)
        })?,
    };
    Ok((found.name.to_string(), found.id))
}

fn shown(
    name: Option<&str>,
    topic_id: TopicId,
    outcome: Result<(), Refusal>,
) -> DeletableTopicResult<'static> {
    let (code, message) = match outcome {
        Ok(()) => (ErrorCode::None, None),
        Err(refused) => (refused.code, Some(Cow::Owned(refused.message))),
    };
    DeletableTopicResult {
        name: name.map(|name| Cow::Owned(name.to_owned())),
        topic_id,
        error_code: code.code(),
        error_message: message,
    }
}
