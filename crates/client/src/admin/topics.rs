//! Topics: create, delete, add partitions.

use std::borrow::Cow;

use base::error::ErrorCode;
use base::ids::TopicId;
use wire::message::create_partitions_request::CreatePartitionsTopic;
use wire::message::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use wire::message::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse,
};

use super::{CHANGE_WAIT, CHANGE_WAIT_MS};
use crate::{Client, ClientError, Result};

/// A topic to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Partitions; `None` leaves it to the broker's `num.partitions`.
    pub partitions: Option<i32>,
    /// Copies of each; `None` leaves it to the broker's `default.replication.factor`.
    pub replication_factor: Option<i16>,
    /// Configs set for the topic, key and value.
    pub configs: Vec<(String, String)>,
}

impl NewTopic {
    /// A topic as the broker's defaults have it.
    pub fn named(name: impl Into<String>) -> NewTopic {
        NewTopic { name: name.into(), partitions: None, replication_factor: None, configs: Vec::new() }
    }
}

/// A topic as it was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its id; zero when the broker tells none.
    pub id: TopicId,
    /// Partitions; `None` when the broker does not tell.
    pub partitions: Option<i32>,
    /// Copies of each; `None` when the broker does not tell.
    pub replication_factor: Option<i16>,
}

impl Client {
    /// Creates topics, or with `validate_only` says what would happen.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<Vec<Result<CreatedTopic>>> {
        let request = CreateTopicsRequest {
            topics: topics.iter().map(creatable).collect(),
            timeout_ms: CHANGE_WAIT_MS,
            validate_only,
        };
        let mut backoff = self.backoff();
        loop {
            let error = match self.call_controller(&request, CHANGE_WAIT).await {
                Ok(answer) => {
                    let response: CreateTopicsResponse = answer.read()?;
                    let results: Vec<_> =
                        topics.iter().map(|topic| created(&response, &topic.name)).collect();
                    match self.moved_controller(&results).await? {
                        Some(error) => error,
                        None => return Ok(results),
                    }
                }
                Err(error) if error.retriable() && !error.outcome_unknown() => error,
                Err(error) => return Err(error),
            };
            backoff.pause(error).await?;
        }
    }

    /// Deletes topics by name.
    pub async fn delete_topics(&self, names: &[&str]) -> Result<Vec<Result<()>>> {
        let request = DeleteTopicsRequest {
            topic_names: names.iter().map(|name| Cow::Borrowed(*name)).collect(),
            timeout_ms: CHANGE_WAIT_MS,
            ..Default::default()
        };
        let mut backoff = self.backoff();
        loop {
            let error = match self.call_controller(&request, CHANGE_WAIT).await {
                Ok(answer) => {
                    let response: DeleteTopicsResponse = answer.read()?;
                    let result = |name: &&str| {
                        let found = response.responses.iter().find(|row| row.name.as_deref() == Some(*name));
                        let subject = || format!("topic `{name}`");
                        let row = found.ok_or_else(|| ClientError::Missing { subject: subject() })?;
                        ClientError::check(row.error_code, row.error_message.as_deref(), subject)
                    };
                    let results: Vec<_> = names.iter().map(result).collect();
                    names.iter().for_each(|name| self.forget_topic(name));
                    match self.moved_controller(&results).await? {
                        Some(error) => error,
                        None => return Ok(results),
                    }
                }
                Err(error) if error.retriable() && !error.outcome_unknown() => error,
                Err(error) => return Err(error),
            };
            backoff.pause(error).await?;
        }
    }

    /// Raises the number of partitions of a topic to `total`.
    pub async fn create_partitions(&self, topic: &str, total: i32, validate_only: bool) -> Result<()> {
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic { name: topic.into(), count: total, assignments: None }],
            timeout_ms: CHANGE_WAIT_MS,
            validate_only,
        };
        let mut backoff = self.backoff();
        loop {
            let error = match self.call_controller(&request, CHANGE_WAIT).await {
                Ok(answer) => {
                    let response: CreatePartitionsResponse = answer.read()?;
                    let subject = || format!("topic `{topic}`");
                    let row = response.results.iter().find(|row| row.name == topic);
                    let row = row.ok_or_else(|| ClientError::Missing { subject: subject() })?;
                    let result = ClientError::check(row.error_code, row.error_message.as_deref(), subject);
                    self.forget_topic(topic);
                    match self.moved_controller(std::slice::from_ref(&result)).await? {
                        Some(error) => error,
                        None => return result,
                    }
                }
                Err(error) if error.retriable() && !error.outcome_unknown() => error,
                Err(error) => return Err(error),
            };
            backoff.pause(error).await?;
        }
    }

    /// The error to try again for, if the broker asked is not the one that takes changes.
    async fn moved_controller<T>(&self, results: &[Result<T>]) -> Result<Option<ClientError>> {
        let errors = results.iter().filter_map(|result| result.as_ref().err());
        match errors.into_iter().find(|error| error.code() == Some(ErrorCode::NotController)) {
            Some(error) => {
                self.find_controller().await?;
                Ok(Some(error.clone()))
            }
            None => Ok(None),
        }
    }
}

fn creatable(topic: &NewTopic) -> CreatableTopic<'_> {
    let config = |(name, value): &'_ (String, String)| CreatableTopicConfig {
        name: Cow::Owned(name.clone()),
        value: Some(Cow::Owned(value.clone())),
    };
    CreatableTopic {
        name: topic.name.as_str().into(),
        num_partitions: topic.partitions.unwrap_or(-1),
        replication_factor: topic.replication_factor.unwrap_or(-1),
        assignments: Vec::new(),
        configs: topic.configs.iter().map(config).collect(),
    }
}

fn created(response: &CreateTopicsResponse<'_>, name: &str) -> Result<CreatedTopic> {
    let subject = || format!("topic `{name}`");
    let row = response.topics.iter().find(|row| row.name == name);
    let row = row.ok_or_else(|| ClientError::Missing { subject: subject() })?;
    ClientError::check(row.error_code, row.error_message.as_deref(), subject)?;
    Ok(CreatedTopic {
        id: row.topic_id,
        partitions: Some(row.num_partitions).filter(|count| *count >= 0),
        replication_factor: Some(row.replication_factor).filter(|count| *count >= 0),
    })
}
