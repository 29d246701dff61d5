//! `vltava topic delete`.

use clap::Args;
use client::Client;
use serde_json::json;

use super::{existing, ranges, records};
use crate::arguments::Consent;
use crate::completion;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Align, Form, Table, count};

/// Arguments of `vltava topic delete`.
#[derive(Args, Debug)]
pub(crate) struct DeleteArguments {
    /// Names of the topics
    #[arg(required = true, value_name = "TOPIC", add = completion::topics())]
    topics: Vec<String>,
    #[command(flatten)]
    consent: Consent,
}

pub(crate) async fn run(client: &Client, arguments: &DeleteArguments, form: Form) -> Outcome {
    let topics = existing(client, &arguments.topics).await?;
    if !arguments.consent.yes {
        return preview(client, &topics, form).await;
    }
    let names: Vec<&str> = topics.keys().map(String::as_str).collect();
    let results = client.delete_topics(&names).await?;
    let mut first_failure = None;
    let mut deleted = Vec::new();
    for (name, result) in names.into_iter().zip(results) {
        match result {
            Ok(()) => deleted.push(json!({ "topic": name, "deleted": true })),
            Err(error) if first_failure.is_none() => first_failure = Some(Failure::from(error)),
            Err(error) => tell!("{}", Failure::from(error)),
        }
    }
    match form {
        Form::Json => output::json(&deleted)?,
        Form::Table => {
            for topic in &deleted {
                output::line(&format!("topic {} deleted", topic["topic"].as_str().unwrap_or_default()))?;
            }
        }
    }
    first_failure.map_or(Ok(()), Err)
}

async fn preview(
    client: &Client,
    topics: &std::collections::BTreeMap<String, client::TopicMetadata>,
    form: Form,
) -> Outcome {
    let ranges = ranges(client, topics).await?;
    let of = |name: &str| {
        let own = ranges.iter().filter(move |(partition, _)| &*partition.topic == name);
        own.filter_map(|(_, range)| records(*range)).sum::<i64>()
    };
    match form {
        Form::Json => {
            let object = |(name, topic): (&String, &client::TopicMetadata)| {
                json!({
                    "topic": name,
                    "partitions": topic.partitions.len(),
                    "records": of(name),
                    "deleted": false,
                })
            };
            output::json(&topics.iter().map(object).collect::<Vec<_>>())?;
        }
        Form::Table => {
            let mut table = Table::new(&[
                ("TOPIC", Align::Left),
                ("PARTITIONS", Align::Right),
                ("RECORDS", Align::Right),
            ]);
            for (name, topic) in topics {
                table.row([name.clone(), topic.partitions.len().to_string(), count(of(name))]);
            }
            table.print()?;
        }
    }
    tell!("nothing was deleted: say --yes to delete these topics for good");
    Ok(())
}
