//! `vltava topic create`.

use std::time::Duration;

use base::error::ErrorCode;
use clap::Args;
use client::admin::NewTopic;
use client::{Client, TopicMetadata, Topics};
use serde_json::json;

use crate::completion;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Form};

/// Arguments of `vltava topic create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArguments {
    /// Names of the topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Partitions of each (default: the broker's num.partitions)
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Copies of each partition (default: the broker's default.replication.factor)
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(i16).range(1..))]
    replicas: Option<i16>,
    /// A config, as in retention.ms=3600000; may be given several times
    #[arg(short, long = "config", value_name = "KEY=VALUE", value_parser = parse_config,
          add = completion::topic_assignments())]
    configs: Vec<(String, String)>,
    /// Be content with topics that exist already
    #[arg(long)]
    if_not_exists: bool,
    /// Let the broker check everything, create nothing
    #[arg(long)]
    dry_run: bool,
}

/// How long to wait until a new topic is known everywhere.
const SPREAD_PATIENCE: Duration = Duration::from_secs(5);
/// Time between two looks.
const SPREAD_PAUSE: Duration = Duration::from_millis(50);

/// Reads `key=value`.
pub(crate) fn parse_config(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("it must look like KEY=VALUE".to_owned()),
    }
}

pub(crate) async fn run(client: &Client, arguments: &CreateArguments, form: Form) -> Outcome {
    let topic = |name: &String| NewTopic {
        name: name.clone(),
        partitions: arguments.partitions,
        replication_factor: arguments.replicas,
        configs: arguments.configs.clone(),
    };
    let topics: Vec<_> = arguments.topics.iter().map(topic).collect();
    let results = client.create_topics(&topics, arguments.dry_run).await?;
    let mut created = Vec::new();
    let mut new = Vec::new();
    let mut first_failure = None;
    for (name, result) in arguments.topics.iter().zip(results) {
        match result {
            Ok(topic) => {
                new.push(name.clone());
                created.push(json!({
                    "topic": name,
                    "topic_id": topic.id.to_string(),
                    "partitions": topic.partitions,
                    "replicas": topic.replication_factor,
                    "created": !arguments.dry_run,
                }));
            }
            Err(error) if arguments.if_not_exists && error.code() == Some(ErrorCode::TopicAlreadyExists) => {
                created.push(json!({ "topic": name, "created": false }));
            }
            Err(error) if first_failure.is_none() => first_failure = Some(Failure::from(error)),
            Err(error) => tell!("{}", Failure::from(error)),
        }
    }
    if !arguments.dry_run {
        wait_for_leaders(client, &new, arguments.partitions.unwrap_or(1)).await?;
    }
    match form {
        Form::Json => output::json(&created)?,
        Form::Table => {
            created.iter().try_for_each(|topic| output::line(&sentence(topic, arguments.dry_run)))?
        }
    }
    first_failure.map_or(Ok(()), Err)
}

/// Waits until the broker asked knows that many partitions of each topic and their leaders, so that the next
/// command can use them: brokers answer before the news has spread. Gives up quietly, because they are there.
pub(super) async fn wait_for_leaders(client: &Client, names: &[String], partitions: i32) -> Outcome {
    let clock = client.env().clock.clone();
    let deadline = clock.now() + SPREAD_PATIENCE;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    loop {
        let metadata = client.metadata(Topics::Named(&names)).await?;
        let led = |topic: &TopicMetadata| {
            i32::try_from(topic.partitions.len()).is_ok_and(|known| known >= partitions)
                && topic.partitions.values().all(|partition| partition.leader.is_some())
        };
        let spread = names.iter().all(|name| metadata.topics.get(*name).is_some_and(led));
        if spread || clock.now() >= deadline {
            return Ok(());
        }
        clock.sleep(SPREAD_PAUSE).await;
    }
}

fn sentence(topic: &serde_json::Value, dry_run: bool) -> String {
    let name = topic["topic"].as_str().unwrap_or_default();
    if topic["created"] == false && !dry_run {
        return format!("topic {name} exists already");
    }
    let mut text = format!("topic {name} {}", if dry_run { "would be created" } else { "created" });
    if let (Some(partitions), Some(replicas)) = (topic["partitions"].as_i64(), topic["replicas"].as_i64()) {
        text += &format!(": partitions {partitions}, replicas {replicas}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_are_keys_and_values() {
        assert_eq!(parse_config("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(parse_config(" a ="), Ok(("a".to_owned(), String::new())));
        assert!(parse_config("a").is_err() && parse_config("=a").is_err());
    }

    #[test]
    fn results_read_as_sentences() {
        let topic = json!({ "topic": "t", "created": true, "partitions": 3, "replicas": 1 });
        assert_eq!(sentence(&topic, false), "topic t created: partitions 3, replicas 1");
        let there = json!({ "topic": "t", "created": false });
        assert_eq!(sentence(&there, false), "topic t exists already");
        assert_eq!(sentence(&there, true), "topic t would be created");
    }
}
