//! What the console shows of the node.

use std::sync::Arc;

use base::metrics::Metrics;
use broker::Broker;
use console::Health;
use replication::StorageState;
use serde_json::{Value, json};

/// The node as the console sees it.
pub(super) struct Shown {
    pub(super) broker: Arc<Broker>,
    pub(super) metrics: Metrics,
    pub(super) data: String,
}

impl console::Node for Shown {
    fn health(&self) -> Health {
        match self.broker.status().problems() {
            problems if problems.is_empty() => Health::Serving,
            problems => Health::NotServing(problems.join("; ")),
        }
    }

    fn status(&self) -> Value {
        let status = self.broker.status();
        let problems = status.problems();
        let directory = |directory: &broker::DirectoryStatus| json!({ "path": directory.path, "state": state_name(&directory.state) });
        let listeners: serde_json::Map<_, _> = self
            .broker
            .addresses()
            .into_iter()
            .map(|(name, address)| (name, json!(address.to_string())))
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "healthy": problems.is_empty(),
            "problems": problems,
            "cluster_id": status.cluster_id.to_string(),
            "broker_id": status.broker_id.0,
            "incarnation": status.incarnation.0,
            "listeners": listeners,
            "connections": status.connections,
            "topics": status.topics,
            "partitions": status.partitions,
            "offline_partitions": status.offline_partitions,
            "metadata_version": status.metadata_version,
            "durability": self.broker.config().durability().name(),
            "data": self.data,
            "directories": status.directories.iter().map(directory).collect::<Vec<_>>(),
        })
    }

    fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }
}

fn state_name(state: &StorageState) -> &'static str {
    match state {
        StorageState::Writable => "writable",
        StorageState::ReadOnly => "read-only",
        StorageState::NoSpace => "full",
        StorageState::Failed(_) => "failed",
    }
}
