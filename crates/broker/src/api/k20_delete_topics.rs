//! DeleteTopics (20), versions 1 to 6: by name, from version 6 on also by id (KIP-516).

use std::borrow::Cow;
use std::collections::HashMap;

use base::config::keys;
use base::error::ErrorCode;
use base::ids::{TopicId, Uuid};
use metadata::Refusal;
use wire::message::delete_topics_request::DeleteTopicState;
use wire::message::delete_topics_response::DeletableTopicResult;
use wire::message::{DeleteTopicsRequest, DeleteTopicsResponse};

use super::{Close, RequestContext};
use crate::topics::unknown_topic;

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
    let mut mentions: HashMap<DeleteTopicKey, usize> = HashMap::new();
    for topic in &asked {
        *mentions.entry(key(topic)).or_default() += 1;
    }
    let mut responses = Vec::with_capacity(asked.len());
    for topic in asked {
        match mentions.get_mut(&key(&topic)) {
            Some(1) => responses.push(delete(context, topic).await),
            // Named more than once: told once.
            Some(count) if *count > 0 => {
                *count = 0;
                let refused = Refusal::new(ErrorCode::InvalidRequest, "The request names the topic twice.");
                responses.push(shown(topic.name, topic.topic_id, Err(refused)));
            }
            _ => {}
        }
    }
    Ok(DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() })
}

type DeleteTopicKey = (Option<String>, TopicId);

fn key(topic: &DeleteTopicState<'_>) -> DeleteTopicKey {
    (topic.name.as_deref().map(str::to_owned), topic.topic_id)
}

async fn delete(context: &RequestContext<'_>, topic: DeleteTopicState<'_>) -> DeletableTopicResult<'static> {
    let (name, id) = match find(context, &topic) {
        Ok(found) => found,
        Err(refused) => return shown(topic.name, topic.topic_id, Err(refused)),
    };
    let deleted = context.broker.delete_topic(id).await;
    shown(Some(Cow::Owned(name)), id, deleted)
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
    name: Option<Cow<'_, str>>,
    topic_id: TopicId,
    outcome: Result<(), Refusal>,
) -> DeletableTopicResult<'static> {
    let (code, message) = match outcome {
        Ok(()) => (ErrorCode::None, None),
        Err(refused) => (refused.code, Some(Cow::Owned(refused.message))),
    };
    DeletableTopicResult {
        name: name.map(|name| Cow::Owned(name.into_owned())),
        topic_id,
        error_code: code.code(),
        error_message: message,
    }
}
