//! IncrementalAlterConfigs (44), versions 0 and 1: single values are set, deleted, or gain and lose items of
//! their list (KIP-339).

use std::borrow::Cow;
use std::collections::HashSet;

use base::error::ErrorCode;
use metadata::Refusal;
use wire::message::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use wire::message::incremental_alter_configs_response::AlterConfigsResourceResponse;
use wire::message::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::k32_describe_configs::BROKER_LOGGER;
use super::k33_alter_configs::{PIECES_PER_RESOURCE, Repeated, key_twice, no_value, target};
use super::{Close, RequestContext};
use crate::configs::{Change, Operation, loggers_of};
use crate::turns::Turns;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: IncrementalAlterConfigsRequest<'_>,
) -> Result<IncrementalAlterConfigsResponse<'static>, Close> {
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
    Ok(IncrementalAlterConfigsResponse { responses, ..IncrementalAlterConfigsResponse::default() })
}

async fn alter(
    context: &RequestContext<'_>,
    resource: &AlterConfigsResource<'_>,
    validate_only: bool,
) -> Result<(), Refusal> {
    if resource.resource_type == BROKER_LOGGER {
        loggers_of(context.broker.id, &resource.resource_name)?;
        let message = "Log levels are not set through the protocol here.";
        return Err(Refusal::new(ErrorCode::InvalidConfig, message));
    }
    let target = target(context, resource.resource_type, &resource.resource_name)?;
    let mut seen = HashSet::new();
    if let Some(config) = resource.configs.iter().find(|config| !seen.insert(&config.name)) {
        return Err(key_twice(&config.name));
    }
    let edits: Result<Vec<_>, Refusal> = resource.configs.iter().map(edit).collect();
    context.broker.alter_configs(target, Change::Edit(edits?), validate_only).await
}

fn edit(config: &AlterableConfig<'_>) -> Result<(String, Operation), Refusal> {
    let value = || config.value.as_deref().map(str::to_owned).ok_or_else(|| no_value(&config.name));
    let operation = match config.config_operation {
        SET => Operation::Set(value()?),
        DELETE => Operation::Delete,
        APPEND => Operation::Append(value()?),
        SUBTRACT => Operation::Subtract(value()?),
        other => {
            let message = format!("There is no operation {other} on config values.");
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
    };
    Ok((config.name.to_string(), operation))
}
