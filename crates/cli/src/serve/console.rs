//! What the console shows of the node.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::config::BrokerConfig;
use base::env::Env;
use base::metrics::Metrics;
use broker::Broker;
use console::Health;
use metadata::MetadataStore;
use replication::StorageState;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

/// What a node serves with.
pub(super) struct Serving {
    /// `None` for a node that is only a controller.
    pub(super) broker: Option<Arc<Broker>>,
    pub(super) metadata: Arc<dyn MetadataStore>,
}

impl Serving {
    fn problems(&self) -> Vec<String> {
        match &self.broker {
            Some(broker) => broker.status().problems(),
            None => self.metadata.problem().into_iter().collect(),
        }
    }
}

/// The node as the console sees it, from before it serves.
pub(super) struct Shown {
    pub(super) env: Env,
    /// When the node began, on the environment's clock.
    pub(super) began: Duration,
    /// As it was at the start.
    pub(super) config: Arc<BrokerConfig>,
    /// Set when it serves.
    pub(super) serving: Arc<OnceLock<Serving>>,
    /// What it does until then.
    pub(super) stage: watch::Receiver<String>,
    pub(super) metrics: Metrics,
    /// Where the data is.
    pub(super) data: String,
}

impl console::Node for Shown {
    fn health(&self) -> Health {
        let Some(serving) = self.serving.get() else {
            return Health::NotServing(format!("it is starting: {}", *self.stage.borrow()));
        };
        match serving.problems() {
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
            "node_id": self.config.node().0,
            "roles": self.config.roles().to_string(),
        });
        let more = match self.serving.get() {
            None => Map::from_iter([("waits_for".to_owned(), json!(*self.stage.borrow()))]),
            Some(serving) => served(serving),
        };
        let shown_fields = shown.as_object_mut().expect("an object was made");
        shown_fields.extend(more);
        if self.config.has_other_voters() {
            let voters = self.config.voters();
            let voters = voters.iter().map(|(id, address)| (id.to_string(), json!(address.to_string())));
            shown_fields.insert("voters".to_owned(), Value::Object(voters.collect()));
        }
        shown
    }

    fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }
}

/// What there is to tell of a node that serves.
fn served(serving: &Serving) -> Map<String, Value> {
    let Serving { broker, metadata } = serving;
    let problems = serving.problems();
    let shown = [
        ("state", json!("serving")),
        ("healthy", json!(problems.is_empty())),
        ("problems", json!(problems)),
        ("cluster_id", json!(metadata.image().cluster_id.to_string())),
        ("controller", json!(metadata.controller().map(|controller| controller.0))),
    ];
    let mut shown: Map<_, _> = shown.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    shown.extend(broker.iter().flat_map(|broker| brokering(broker)));
    shown
}

/// What there is to tell of a broker that serves.
fn brokering(broker: &Broker) -> Map<String, Value> {
    let status = broker.status();
    let directory = |directory: &broker::DirectoryStatus| json!({ "path": directory.path, "state": state_name(&directory.state) });
    let listener = |(name, address): (String, std::net::SocketAddr)| (name, json!(address.to_string()));
    let listeners: Map<_, _> = broker.addresses().into_iter().map(listener).collect();
    let shown = [
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
