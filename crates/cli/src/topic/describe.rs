//! `vltava topic describe`.

use std::collections::BTreeMap;

use base::ids::BrokerId;
use clap::Args;
use client::admin::{ConfigEntry, ConfigResource};
use client::{Client, PartitionMetadata, PartitionName, TopicMetadata};
use serde_json::{Value, json};

use super::{Range, existing, ranges, records, shown};
use crate::completion;
use crate::failure::Outcome;
use crate::output::{self, Align, Form, Table, count};

/// Arguments of `vltava topic describe`.
#[derive(Args, Debug)]
pub(crate) struct DescribeArguments {
    /// Names of the topics
    #[arg(required = true, value_name = "TOPIC", add = completion::topics())]
    topics: Vec<String>,
}

pub(crate) async fn run(client: &Client, arguments: &DescribeArguments, form: Form) -> Outcome {
    let topics = existing(client, &arguments.topics).await?;
    let ranges = ranges(client, &topics).await?;
    let mut objects = Vec::new();
    for (index, (name, topic)) in topics.iter().enumerate() {
        let configs = client.describe_configs(&ConfigResource::Topic(name.clone()), false).await?;
        let set: Vec<_> = configs.into_iter().filter(|entry| !entry.is_default).collect();
        match form {
            Form::Json => objects.push(object(name, topic, &set, &ranges)),
            Form::Table => {
                if index > 0 {
                    output::line("")?;
                }
                print(name, topic, &set, &ranges)?;
            }
        }
    }
    if form == Form::Json { output::json(&objects) } else { Ok(()) }
}

fn range_of(ranges: &BTreeMap<PartitionName, Range>, name: &str, partition: i32) -> Range {
    ranges.get(&PartitionName::new(name, partition)).copied().unwrap_or((None, None))
}

fn object(
    name: &str,
    topic: &TopicMetadata,
    set: &[ConfigEntry],
    ranges: &BTreeMap<PartitionName, Range>,
) -> Value {
    let ids = |brokers: &[BrokerId]| brokers.iter().map(|broker| broker.0).collect::<Vec<_>>();
    let partition = |(index, partition): (&i32, &PartitionMetadata)| {
        let (first, end) = range_of(ranges, name, *index);
        json!({
            "partition": index,
            "leader": partition.leader.map(|leader| leader.0),
            "leader_epoch": partition.leader_epoch.0,
            "replicas": ids(&partition.replicas),
            "in_sync": ids(&partition.in_sync),
            "first_offset": first,
            "end_offset": end,
        })
    };
    let configs: serde_json::Map<_, _> =
        set.iter().map(|entry| (entry.name.clone(), json!(entry.value))).collect();
    json!({
        "topic": name,
        "topic_id": topic.id.to_string(),
        "internal": topic.internal,
        "configs": configs,
        "partitions": topic.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

fn print(
    name: &str,
    topic: &TopicMetadata,
    set: &[ConfigEntry],
    ranges: &BTreeMap<PartitionName, Range>,
) -> Outcome {
    output::line(&format!("topic    {name}{}", if topic.internal { "  (internal)" } else { "" }))?;
    output::line(&format!("id       {}", topic.id))?;
    for (index, entry) in set.iter().enumerate() {
        let label = if index == 0 { "configs" } else { "" };
        let value = entry.value.as_deref().unwrap_or("(secret)");
        output::line(&format!("{label:<8} {}={value}", entry.name))?;
    }
    output::line("")?;
    let mut table = Table::new(&[
        ("PARTITION", Align::Right),
        ("LEADER", Align::Right),
        ("EPOCH", Align::Right),
        ("REPLICAS", Align::Left),
        ("IN SYNC", Align::Left),
        ("FIRST", Align::Right),
        ("END", Align::Right),
        ("RECORDS", Align::Right),
    ]);
    let ids = |brokers: &[BrokerId]| brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    for (index, partition) in &topic.partitions {
        let range = range_of(ranges, name, *index);
        table.row([
            index.to_string(),
            partition.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
            partition.leader_epoch.to_string(),
            ids(&partition.replicas),
            ids(&partition.in_sync),
            shown(range.0),
            shown(range.1),
            records(range).map_or_else(|| "–".to_owned(), count),
        ]);
    }
    table.print()
}
