//! The metadata store that goes with a node's roles: alone, one of several voters, or a follower of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ::metadata::{FollowerStore, MemoryStore, MetadataStore, Quorum, RaftStore};
use base::config::{BrokerConfig, HostPort};
use base::env::Env;
use base::ids::BrokerId;

use super::node::resolve;
use super::place::{KAFKA_PROPERTIES, Place};
use crate::failure::{Failure, Outcome};

/// Whether opening the store takes other nodes.
pub(super) fn waits_for_others(config: &BrokerConfig) -> bool {
    !config.roles().controller || config.has_other_voters()
}

/// Whether the node listens for other nodes at its controller listener. A controller without any is found by brokers
/// elsewhere at the listener of its own broker.
pub(super) fn listens_for_controllers(config: &BrokerConfig) -> bool {
    config.roles().controller && config.controller_listener().is_some()
}

/// What the node waits for while its store opens.
pub(super) fn awaited(config: &BrokerConfig) -> String {
    let what = if config.roles().controller { "a majority of the controllers" } else { "a controller" };
    format!("{what} is waited for: {}", controllers_text(config))
}

/// The controllers as `controller.quorum.voters` has them, or else `controller.quorum.bootstrap.servers`.
pub(super) fn controllers_text(config: &BrokerConfig) -> String {
    let voters = config.voters();
    let named = voters.iter().map(|(id, address)| format!("{id}@{address}"));
    let all: Vec<_> = match voters.is_empty() {
        true => config.controller_bootstrap().iter().map(HostPort::to_string).collect(),
        false => named.collect(),
    };
    all.join(", ")
}

/// Opens the store. One of several voters waits for a majority of them, a follower for one.
pub(super) async fn open(env: &Env, config: &BrokerConfig, place: &Place) -> Outcome<Arc<dyn MetadataStore>> {
    let failed = |error: ::metadata::MetadataOpenError| Failure::new(error.to_string());
    if !config.roles().controller {
        tracing::info!(node = config.node().0, "{}", awaited(config));
        let controllers = config.controller_bootstrap().iter().map(HostPort::to_string).collect();
        let store = FollowerStore::open(env.clone(), config.node(), controllers).await;
        return Ok(Arc::new(store.map_err(failed)?));
    }
    let dir = place.metadata_dir(env, config);
    if let Some(dir) = &dir {
        refuse_kafkas(env, dir)?;
    }
    if let (true, Some(listener)) = (listens_for_controllers(config), config.controller_listener()) {
        let listen = resolve(env, &listener.bind).await.map_err(|error| {
            Failure::new(format!("listener {} cannot listen on {}: {error}", listener.name, listener.bind))
                .help("name an address of this machine in `listeners`, or none, as in CONTROLLER://:9093")
        })?;
        let text = |(id, address): (BrokerId, HostPort)| (id, address.to_string());
        let mut voters: BTreeMap<BrokerId, String> = config.voters().into_iter().map(text).collect();
        // By which address others reach it they know themselves.
        voters.entry(config.node()).or_default();
        if config.has_other_voters() {
            tracing::info!(
                node = config.node().0,
                voters = controllers_text(config),
                "joining the controllers"
            );
        }
        let dir = dir.unwrap_or_else(|| place.temporary_metadata_dir());
        let quorum = Quorum { listen, voters };
        return Ok(Arc::new(RaftStore::join(env.clone(), dir, config.node(), quorum).await.map_err(failed)?));
    }
    let Some(dir) = dir else {
        return Ok(Arc::new(MemoryStore::default()));
    };
    Ok(Arc::new(RaftStore::open(env.clone(), dir, config.node()).await.map_err(failed)?))
}

/// Refuses to keep metadata within a directory of Apache Kafka, which would be neither's then.
fn refuse_kafkas(env: &Env, dir: &Path) -> Outcome {
    let parent = dir.parent().unwrap_or(Path::new("."));
    match env.disk.exists(&parent.join(KAFKA_PROPERTIES)) {
        true => Err(Failure::new(format!("{} is a log directory of Apache Kafka", parent.display()))
            .help("name an empty directory with `--data DIR`, or in log.dirs and metadata.log.dir")),
        false => Ok(()),
    }
}
