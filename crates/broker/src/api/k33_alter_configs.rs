//! AlterConfigs (33), versions 0 to 2: the values of a resource become exactly those given. Older clients use it;
//! newer ones change single values ([`super::k44_incremental_alter_configs`]).

use std::borrow::Cow;

use base::error::ErrorCode;
use metadata::{Refusal, Resource};
use wire::message::alter_configs_request::AlterConfigsResource;
use wire::message::alter_configs_response::AlterConfigsResourceResponse;
use wire::message::{AlterConfigsRequest, AlterConfigsResponse};

use super::k32_describe_configs::{BROKER, TOPIC};
use super::{Close, RequestContext};
use crate::configs::{Change, Values, broker_resource};
use crate::turns::Turns;

/// Pieces of work of a change, see [`Turns`]: all values of a broker are checked together.
pub(super) const PIECES_PER_RESOURCE: usize = 64;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: AlterConfigsRequest<'_>,
) -> Result<AlterConfigsResponse<'static>, Close> {
    let named = request.resources.iter().map(|resource| (resource.resource_type, &*resource.resource_name));
    let named_twice = Repeated::among(named);
    let mut responses = Vec::with_capacity(request.resources.len());
    let mut turns = Turns::default();
    for resource in &request.resources {
        turns.done(PIECES_PER_RESOURCE).await;
        let outcome = match named_twice.has(resource.resource_type, &resource.resource_name) {
            true => Err(named_twice.refusal()),
            false => alter(context, resource, request.validate_only).await,
        };
        let (code, message) = match outcome {
            Ok(()) => (ErrorCode::None, None),
            Err(refused) => (refused.code, Some(Cow::Owned(refused.message))),
        };
        responses.push(AlterConfigsResourceResponse {
            error_code: code.code(),
            error_message: message,
            resource_type: resource.resource_type,
            resource_name: Cow::Owned(resource.resource_name.to_string()),
        });
    }
    Ok(AlterConfigsResponse { responses, ..AlterConfigsResponse::default() })
}

async fn alter(
    context: &RequestContext<'_>,
    resource: &AlterConfigsResource<'_>,
    validate_only: bool,
) -> Result<(), Refusal> {
    let target = target(context, resource.resource_type, &resource.resource_name)?;
    let mut values = Values::new();
    for config in &resource.configs {
        let value = config.value.as_deref().ok_or_else(|| no_value(&config.name))?;
        if values.insert(config.name.to_string(), value.to_owned()).is_some() {
            return Err(key_twice(&config.name));
        }
    }
    context.broker.alter_configs(target, Change::Replace(values), validate_only).await
}

/// What a resource of a request stands for.
pub(super) fn target(
    context: &RequestContext<'_>,
    resource_type: i8,
    name: &str,
) -> Result<Resource, Refusal> {
    match resource_type {
        TOPIC if name.is_empty() => {
            Err(Refusal::new(ErrorCode::InvalidRequest, "There are no values for all topics at once."))
        }
        TOPIC => {
            metadata::check_name(name)?;
            Ok(Resource::Topic(name.to_owned()))
        }
        BROKER => broker_resource(context.broker.id, name),
        other => {
            let message = format!("Resources of type {other} have no values here.");
            Err(Refusal::new(ErrorCode::InvalidRequest, message))
        }
    }
}

/// The refusal of a key that is to be set to nothing.
pub(super) fn no_value(key: &str) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, format!("`{key}` has no value."))
}

/// The refusal of a key that a request names more than once.
pub(super) fn key_twice(key: &str) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, format!("The request names `{key}` twice."))
}

/// Resources that a request names more than once, in order; which of the changes is meant nobody knows.
pub(super) struct Repeated<'a>(Vec<(i8, &'a str)>);

impl<'a> Repeated<'a> {
    pub(super) fn among(named: impl Iterator<Item = (i8, &'a str)>) -> Repeated<'a> {
        let mut all: Vec<_> = named.collect();
        all.sort_unstable();
        let repeated = all.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        Repeated(repeated.collect())
    }

    pub(super) fn has(&self, resource_type: i8, name: &str) -> bool {
        self.0.binary_search(&(resource_type, name)).is_ok()
    }

    pub(super) fn refusal(&self) -> Refusal {
        Refusal::new(ErrorCode::InvalidRequest, "The request names the resource twice.")
    }
}
