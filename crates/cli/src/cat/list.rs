//! `cat -L`: brokers, topics, partitions.

use base::error::ErrorCode;
use base::ids::BrokerId;
use client::{Client, ClusterMetadata, Connection, PartitionMetadata, TopicMetadata, Topics};
use serde_json::{Value, json};

use super::CatArguments;
use super::properties::Properties;
use crate::failure::Outcome;
use crate::output;

pub(super) async fn run(client: &Client, arguments: &CatArguments, properties: &Properties) -> Outcome {
    let names: Vec<&str> = arguments.topics.iter().map(String::as_str).collect();
    let topics = match names.as_slice() {
        [] => Topics::All,
        names if properties.creates_topics => Topics::NamedOrCreated(names),
        names => Topics::Named(names),
    };
    let metadata = client.metadata(topics).await?;
    let connection = client.any().await?;
    let origin = Origin::new(&metadata, &connection);
    if arguments.json {
        // One line, as kcat prints it.
        return output::line(&object(&metadata, &origin, &names).to_string());
    }
    let what = if names.is_empty() { "all topics".to_owned() } else { names.join(", ") };
    output::line(&format!("Metadata for {what} (from {}):", origin.text()))?;
    output::line(&format!(" {} brokers:", metadata.brokers.len()))?;
    for (id, broker) in &metadata.brokers {
        let note = if metadata.controller == Some(*id) { " (controller)" } else { "" };
        output::line(&format!("  broker {id} at {}{note}", broker.address))?;
    }
    output::line(&format!(" {} topics:", metadata.topics.len()))?;
    for (name, topic) in &metadata.topics {
        let note =
            if topic.error.is_error() { format!(" {}", error_text(topic.error)) } else { String::new() };
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
    let note =
        if partition.error.is_error() { format!(", {}", error_text(partition.error)) } else { String::new() };
    format!("    partition {index}, leader {leader}, replicas: {replicas}, isrs: {in_sync}{note}")
}

/// Begins as kcat's texts do.
fn error_text(error: ErrorCode) -> String {
    format!("Broker: {}", error.message().trim_end_matches('.'))
}

/// The broker that answered.
struct Origin {
    /// `None` when it was a bootstrap address that no broker advertises.
    id: Option<BrokerId>,
    address: String,
}

impl Origin {
    fn new(metadata: &ClusterMetadata, connection: &Connection) -> Origin {
        let address = connection.address().to_string();
        let mut brokers = metadata.brokers.iter();
        let id = brokers.find(|(_, broker)| *broker.address == *address).map(|(id, _)| *id);
        Origin { id, address }
    }

    fn name(&self) -> String {
        let id = self.id.map_or_else(|| "bootstrap".to_owned(), |id| id.to_string());
        format!("{}/{id}", self.address)
    }

    fn text(&self) -> String {
        format!("broker {}: {}", self.id.map_or(-1, |id| id.0), self.name())
    }
}

/// Kcat's own names.
fn object(metadata: &ClusterMetadata, origin: &Origin, names: &[&str]) -> Value {
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
            object["error"] = json!(error_text(topic.error));
        }
        object
    };
    let broker =
        |(id, broker): (&BrokerId, &client::BrokerAddress)| json!({ "id": id.0, "name": &*broker.address });
    json!({
        "originating_broker": { "id": origin.id.map_or(-1, |id| id.0), "name": origin.name() },
        "query": { "topic": if names.is_empty() { "*".to_owned() } else { names.join(",") } },
        "controllerid": metadata.controller.map_or(-1, |id| id.0),
        "brokers": metadata.brokers.iter().map(broker).collect::<Vec<_>>(),
        "topics": metadata.topics.iter().map(topic).collect::<Vec<_>>(),
    })
}
