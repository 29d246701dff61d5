//! DescribeConfigs (32), versions 1 to 4: values with their sources and what stands behind them.

use std::borrow::Cow;
use std::collections::HashSet;

use base::config::{ConfigSource, Described, Synonym};
use base::error::ErrorCode;
use metadata::{Refusal, Resource};
use wire::message::describe_configs_request::DescribeConfigsResource;
use wire::message::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use wire::message::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::{Close, RequestContext};
use crate::configs::{broker_resource, loggers_of};
use crate::topics::unknown_topic;
use crate::turns::Turns;

/// Kafka's number for topics.
pub(super) const TOPIC: i8 = 2;
/// Kafka's number for brokers.
pub(super) const BROKER: i8 = 4;
/// Kafka's number for the loggers of a broker.
pub(super) const BROKER_LOGGER: i8 = 8;

/// Pieces of work for telling the values of a resource, see [`Turns`].
const PIECES_PER_RESOURCE: usize = 64;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: DescribeConfigsRequest<'_>,
) -> Result<DescribeConfigsResponse<'static>, Close> {
    let shown = Shown { synonyms: request.include_synonyms, documentation: request.include_documentation };
    // Each is described once, however often it is named.
    let mut named = HashSet::new();
    let mut turns = Turns::default();
    let mut results = Vec::new();
    for resource in request.resources {
        if !named.insert((resource.resource_type, spelled(&resource))) {
            turns.done(1).await;
            continue;
        }
        let described = describe(context, &resource);
        let (code, message, configs) = match described {
            // Empty rather than null, as in Kafka.
            Ok(configs) => (ErrorCode::None, Some(Cow::Borrowed("")), configs),
            Err(refused) => (refused.code, Some(Cow::Owned(refused.message)), Vec::new()),
        };
        // No keys, or an empty list of them, means all; unknown ones are left out.
        let keys = resource.configuration_keys.filter(|keys| !keys.is_empty());
        let wanted = |described: &Described| {
            keys.as_ref().is_none_or(|keys| keys.iter().any(|key| key == described.key.name))
        };
        results.push(DescribeConfigsResult {
            error_code: code.code(),
            error_message: message,
            resource_type: resource.resource_type,
            resource_name: Cow::Owned(resource.resource_name.into_owned()),
            configs: configs.into_iter().filter(wanted).map(|config| shown.config(config)).collect(),
        });
        turns.done(PIECES_PER_RESOURCE).await;
    }
    Ok(DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() })
}

/// The name of a resource in one spelling: the number of a broker has many, with a sign or with noughts in front.
fn spelled(resource: &DescribeConfigsResource<'_>) -> String {
    let name = &*resource.resource_name;
    match resource.resource_type {
        BROKER | BROKER_LOGGER => name.parse().map_or(name.to_owned(), |number: i32| number.to_string()),
        _ => name.to_owned(),
    }
}

fn describe(
    context: &RequestContext<'_>,
    resource: &DescribeConfigsResource<'_>,
) -> Result<Vec<Described>, Refusal> {
    let broker = context.broker;
    let config = broker.config();
    let name = &*resource.resource_name;
    match resource.resource_type {
        TOPIC => {
            metadata::check_name(name)?;
            let image = broker.image();
            let topic = image.topic(name).ok_or_else(|| unknown_topic(name))?;
            let overrides = image.configs(&Resource::Topic(topic.name.to_string()));
            Ok(config.describe_topic(&overrides))
        }
        BROKER => match broker_resource(broker.id, name)? {
            Resource::AllBrokers => Ok(config.describe_for_all()),
            _ => Ok(config.describe()),
        },
        // Log levels are not set through the protocol here, so there are none to show.
        BROKER_LOGGER => loggers_of(broker.id, name).map(|()| Vec::new()),
        other => {
            let message = format!("Resources of type {other} have no values here.");
            Err(Refusal::new(ErrorCode::InvalidRequest, message))
        }
    }
}

/// What the client wants to see besides the values.
struct Shown {
    synonyms: bool,
    documentation: bool,
}

impl Shown {
    fn config(&self, described: Described) -> DescribeConfigsResourceResult<'static> {
        let synonyms = if self.synonyms { described.synonyms } else { Vec::new() };
        DescribeConfigsResourceResult {
            name: Cow::Borrowed(described.key.name),
            value: described.value.map(Cow::Owned),
            read_only: described.read_only,
            config_source: ConfigSource::code(described.source),
            is_sensitive: described.key.is_sensitive(),
            synonyms: synonyms.into_iter().map(synonym).collect(),
            config_type: described.key.kind.code(),
            documentation: self.documentation.then_some(Cow::Borrowed(described.key.doc)),
        }
    }
}

fn synonym(synonym: Synonym) -> DescribeConfigsSynonym<'static> {
    DescribeConfigsSynonym {
        name: Cow::Borrowed(synonym.name),
        value: synonym.value.map(Cow::Owned),
        source: synonym.source.code(),
    }
}
