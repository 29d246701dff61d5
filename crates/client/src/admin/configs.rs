//! Configs of topics and brokers.

use std::borrow::Cow;
use std::time::Duration;

use base::ids::BrokerId;
use wire::RequestMessage;
use wire::message::describe_configs_request::DescribeConfigsResource;
use wire::message::describe_configs_response::DescribeConfigsResourceResult;
use wire::message::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use wire::message::{
    DescribeConfigsRequest, DescribeConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};

use super::CHANGE_WAIT;
use crate::{Answer, Client, ClientError, Result};

/// What has configs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigResource {
    /// A topic.
    Topic(String),
    /// One broker.
    Broker(BrokerId),
    /// What is set for all brokers while they run.
    AllBrokers,
}

/// One config of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its key.
    pub name: String,
    /// Its value; `None` for one that is secret or not set.
    pub value: Option<String>,
    /// Where the value comes from, in Kafka's words (`DYNAMIC_TOPIC_CONFIG`, `DEFAULT_CONFIG` …).
    pub source: &'static str,
    /// Whether nobody set it: the value is the default.
    pub is_default: bool,
    /// Whether it cannot be changed while the broker runs.
    pub read_only: bool,
    /// Whether the value is never shown.
    pub sensitive: bool,
    /// What it means, if the broker says so.
    pub documentation: Option<String>,
}

/// How a config is to be changed (KIP-339).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigOperation {
    /// Give it a value.
    Set,
    /// Go back to the default.
    Delete,
    /// Add items to a list.
    Append,
    /// Take items out of a list.
    Subtract,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    /// Its key.
    pub name: String,
    /// What to do.
    pub operation: ConfigOperation,
    /// The value or items; of no account with [`ConfigOperation::Delete`].
    pub value: String,
}

impl ConfigResource {
    fn code(&self) -> i8 {
        match self {
            ConfigResource::Topic(_) => 2,
            ConfigResource::Broker(_) | ConfigResource::AllBrokers => 4,
        }
    }

    fn name(&self) -> Cow<'_, str> {
        match self {
            ConfigResource::Topic(name) => name.as_str().into(),
            ConfigResource::Broker(id) => id.to_string().into(),
            ConfigResource::AllBrokers => "".into(),
        }
    }

    fn subject(&self) -> String {
        match self {
            ConfigResource::Topic(name) => format!("topic `{name}`"),
            ConfigResource::Broker(id) => format!("broker {id}"),
            ConfigResource::AllBrokers => "configs of all brokers".to_owned(),
        }
    }
}

/// Kafka's name of where a value comes from.
fn source_name(code: i8) -> &'static str {
    match code {
        1 => "DYNAMIC_TOPIC_CONFIG",
        2 => "DYNAMIC_BROKER_CONFIG",
        3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        4 => "STATIC_BROKER_CONFIG",
        5 => "DEFAULT_CONFIG",
        6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
        7 => "DYNAMIC_CLIENT_METRICS_CONFIG",
        8 => "DYNAMIC_GROUP_CONFIG",
        _ => "UNKNOWN",
    }
}

fn entry(row: &DescribeConfigsResourceResult<'_>) -> ConfigEntry {
    ConfigEntry {
        name: row.name.clone().into_owned(),
        value: row.value.as_deref().map(str::to_owned),
        source: source_name(row.config_source),
        is_default: row.config_source == 5,
        read_only: row.read_only,
        sensitive: row.is_sensitive,
        documentation: row.documentation.as_deref().map(str::to_owned),
    }
}

impl Client {
    /// All configs of a resource, by key.
    pub async fn describe_configs(
        &self,
        resource: &ConfigResource,
        with_documentation: bool,
    ) -> Result<Vec<ConfigEntry>> {
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: resource.code(),
                resource_name: resource.name(),
                configuration_keys: None,
            }],
            include_synonyms: false,
            include_documentation: with_documentation,
        };
        let answer = self.call_owner(resource, &request, Duration::ZERO).await?;
        let response: DescribeConfigsResponse = answer.read()?;
        let row = response.results.first();
        let row = row.ok_or_else(|| ClientError::Missing { subject: resource.subject() })?;
        ClientError::check(row.error_code, row.error_message.as_deref(), || resource.subject())?;
        let mut entries: Vec<_> = row.configs.iter().map(entry).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Changes configs of a resource, all or none; with `validate_only` says what would happen.
    pub async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<()> {
        let alterable = |change: &'_ ConfigChange| AlterableConfig {
            name: Cow::Owned(change.name.clone()),
            config_operation: change.operation as i8,
            value: (change.operation != ConfigOperation::Delete).then(|| Cow::Owned(change.value.clone())),
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: resource.code(),
                resource_name: resource.name(),
                configs: changes.iter().map(alterable).collect(),
            }],
            validate_only,
        };
        let answer = self.call_owner(resource, &request, CHANGE_WAIT).await?;
        let response: IncrementalAlterConfigsResponse = answer.read()?;
        let row = response.responses.first();
        let row = row.ok_or_else(|| ClientError::Missing { subject: resource.subject() })?;
        ClientError::check(row.error_code, row.error_message.as_deref(), || resource.subject())
    }

    /// Asks the broker itself about its own configs, any broker about others.
    async fn call_owner<'a, R: RequestMessage<'a>>(
        &self,
        resource: &ConfigResource,
        request: &R,
        broker_wait: Duration,
    ) -> Result<Answer> {
        let connection = match resource {
            ConfigResource::Broker(id) => self.broker(*id).await?,
            _ => self.any().await?,
        };
        connection.start(request, broker_wait).await?.wait().await
    }
}
