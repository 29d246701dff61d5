//! `vltava topic list`.

use clap::Args;
use client::{Client, TopicMetadata, Topics};
use serde_json::json;

use crate::failure::Outcome;
use crate::output::{self, Align, Form, Table};

/// Arguments of `vltava topic list`.
#[derive(Args, Debug)]
pub(crate) struct ListArguments {
    /// Show the topics that belong to the broker itself too
    #[arg(long)]
    internal: bool,
}

pub(crate) async fn run(client: &Client, arguments: &ListArguments, form: Form) -> Outcome {
    let metadata = client.metadata(Topics::All).await?;
    let topics = metadata.topics.iter().filter(|(_, topic)| arguments.internal || !topic.internal);
    match form {
        Form::Json => {
            let object = |(name, topic): (&String, &TopicMetadata)| {
                json!({
                    "topic": name,
                    "topic_id": topic.id.to_string(),
                    "internal": topic.internal,
                    "partitions": topic.partitions.len(),
                    "replicas": replicas(topic),
                    "without_leader": without_leader(topic),
                })
            };
            output::json(&topics.map(object).collect::<Vec<_>>())
        }
        Form::Table => {
            let mut table = Table::new(&[
                ("TOPIC", Align::Left),
                ("PARTITIONS", Align::Right),
                ("REPLICAS", Align::Right),
                ("NOTE", Align::Left),
            ]);
            for (name, topic) in topics {
                let note = match without_leader(topic) {
                    0 if topic.internal => "internal".to_owned(),
                    0 => String::new(),
                    count => format!("{count} without leader"),
                };
                let partitions = topic.partitions.len().to_string();
                table.row([name.clone(), partitions, replicas(topic).to_string(), note]);
            }
            table.print()
        }
    }
}

fn replicas(topic: &TopicMetadata) -> usize {
    topic.partitions.values().map(|partition| partition.replicas.len()).max().unwrap_or(0)
}

fn without_leader(topic: &TopicMetadata) -> usize {
    topic.partitions.values().filter(|partition| partition.leader.is_none()).count()
}
