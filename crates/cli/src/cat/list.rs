//! `cat -L`: brokers, topics, partitions.

use base::ids::BrokerId;
use client::{Client, ClusterMetadata, PartitionMetadata, TopicMetadata, Topics};
use serde_json::{Value, json};

use super::CatArguments;
use crate::failure::Outcome;
use crate::output;

pub(super) async fn run(client: &Client, arguments: &CatArguments) -> Outcome {
    let names: Vec<&str> = arguments.topics.iter().map(String::as_str).collect();
    let topics = if names.is_empty() { Topics::All } else { Topics::Named(&names) };
    let metadata = client.metadata(topics).await?;
    let origin = client.any().await?.address().to_string();
    if arguments.json {
        // One line, as kcat prints it.
        return output::line(&object(&metadata, &origin, &names).to_string());
    }
    let what = if names.is_empty() { "all topics".to_owned() } else { names.join(", ") };
    output::line(&format!("Metadata for {what} (from {origin}):"))?;
    output::line(&format!(" {} brokers:", metadata.brokers.len()))?;
    for (id, broker) in &metadata.brokers {
        let note = if metadata.controller == Some(*id) { " (controller)" } else { "" };
        output::line(&format!("  broker {id} at {}{note}", broker.address))?;
    }
    output::line(&format!(" {} topics:", metadata.topics.len()))?;
    for (name, topic) in &metadata.topics {
        let note = error_note(topic.error);
        output::line(&format!("  topic \"{name}\" with {} partitions:{note}", topic.partitions.len()))?;
        for (index, partition) in &topic.partitions {
            output::line(&partition_line(*index, partition))?;
        }
    }
    Ok(())
}

fn partition_line(index: i32, partition: &PartitionMetadata) -> String {
    let ids = |brokers: &[BrokerId]| brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let leader = partition.leader.map_or(-1, |leader| leader.0);
    let (replicas, in_sync) = (ids(&partition.replicas), ids(&partition.in_sync));
    let note = error_note(partition.error);
    format!("    partition {index}, leader {leader}, replicas: {replicas}, isrs: {in_sync}{note}")
}

fn error_note(error: base::error::ErrorCode) -> String {
    if error.is_error() { format!(", {}", error.name()) } else { String::new() }
}

/// Kcat's own names.
fn object(metadata: &ClusterMetadata, origin: &str, names: &[&str]) -> Value {
    let ids = |brokers: &[BrokerId]| brokers.iter().map(|id| json!({ "id": id.0 })).collect::<Vec<_>>();
    let partition = |(index, partition): (&i32, &PartitionMetadata)| {
        json!({
            "partition": index,
            "leader": partition.leader.map_or(-1, |leader| leader.0),
            "replicas": ids(&partition.replicas),
            "isrs": ids(&partition.in_sync),
        })
    };
    let topic = |(name, topic): (&String, &TopicMetadata)| {
        let partitions = topic.partitions.iter().map(partition).collect::<Vec<_>>();
        let mut object = json!({ "topic": name, "partitions": partitions });
        if topic.error.is_error() {
            object["error"] = json!(topic.error.name());
        }
        object
    };
    let broker =
        |(id, broker): (&BrokerId, &client::BrokerAddress)| json!({ "id": id.0, "name": &*broker.address });
    json!({
        "originating_broker": { "name": origin },
        "query": { "topic": if names.is_empty() { "*".to_owned() } else { names.join(",") } },
        "controllerid": metadata.controller.map_or(-1, |id| id.0),
        "brokers": metadata.brokers.iter().map(broker).collect::<Vec<_>>(),
        "topics": metadata.topics.iter().map(topic).collect::<Vec<_>>(),
    })
}
