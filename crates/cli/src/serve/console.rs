//! What the console shows of the node.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::env::Env;
use base::metrics::Metrics;
use broker::Broker;
use console::Health;
use replication::StorageState;
use serde_json::{Map, Value, json};

/// The node as the console sees it, from before its broker serves.
pub(super) struct Shown {
    pub(super) env: Env,
    /// When the node began, on the environment's clock.
    pub(super) began: Duration,
    /// Set when it serves.
    pub(super) broker: Arc<OnceLock<Arc<Broker>>>,
    pub(super) metrics: Metrics,
    /// Where the data is.
    pub(super) data: String,
}

impl console::Node for Shown {
    fn health(&self) -> Health {
        let Some(broker) = self.broker.get() else {
            return Health::NotServing("it is starting: logs are being opened".to_owned());
        };
        match broker.status().problems() {
            problems if problems.is_empty() => Health::Serving,
            problems => Health::NotServing(problems.join("; ")),
        }
    }

    fn status(&self) -> Value {
        let mut shown = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "state": "starting",
            "uptime_seconds": (self.env.clock.now() - self.began).as_secs(),
            "data": self.data,
        });
        if let Some(broker) = self.broker.get() {
            let serving = serving(broker);
            shown.as_object_mut().expect("an object was made").extend(serving);
        }
        shown
    }

    fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }
}

/// What there is to tell of a broker that serves.
fn serving(broker: &Broker) -> Map<String, Value> {
    let status = broker.status();
    let problems = status.problems();
    let directory = |directory: &broker::DirectoryStatus| json!({ "path": directory.path, "state": state_name(&directory.state) });
    let listener = |(name, address): (String, std::net::SocketAddr)| (name, json!(address.to_string()));
    let listeners: Map<_, _> = broker.addresses().into_iter().map(listener).collect();
    let shown = [
        ("state", json!("serving")),
        ("healthy", json!(problems.is_empty())),
        ("problems", json!(problems)),
        ("cluster_id", json!(status.cluster_id.to_string())),
        ("broker_id", json!(status.broker_id.0)),
        ("incarnation", json!(status.incarnation.0)),
        ("listeners", Value::Object(listeners)),
        ("connections", json!(status.connections)),
        ("topics", json!(status.topics)),
        ("partitions", json!(status.partitions)),
        ("offline_partitions", json!(status.offline_partitions)),
        ("metadata_version", json!(status.metadata_version)),
        ("durability", json!(broker.config().durability().name())),
        ("directories", status.directories.iter().map(directory).collect()),
    ];
    shown.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn state_name(state: &StorageState) -> &'static str {
    match state {
        StorageState::Writable => "writable",
        StorageState::ReadOnly => "read-only",
        StorageState::NoSpace => "full",
        StorageState::Failed(_) => "failed",
    }
}
