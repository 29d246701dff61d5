//! A whole node in this process: storages, metadata, broker, console, in the order they need each other.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use base::config::{BrokerConfig, HostPort, keys};
use base::env::Env;
use base::ids::BrokerId;
use base::metrics::Metrics;
use broker::{Broker, BrokerParts, StartError};
use metadata::{MemoryStore, MetadataStore, RaftStore};
use storage::{Storage, StorageError, StorageOptions};

use super::console::Shown;
use super::{Place, conflicts};
use crate::failure::{Failure, Outcome};

/// A running node. [`Node::shutdown`] ends it so that the next start has nothing to recover.
pub(crate) struct Node {
    pub(crate) broker: Arc<Broker>,
    env: Env,
    metadata: Arc<dyn MetadataStore>,
    storages: Vec<Arc<Storage>>,
    console: Option<console::Server>,
    place_text: String,
    /// Last, so that a temporary place is removed when nothing uses it any more.
    place: Place,
}

impl Node {
    /// Opens everything and serves. The console comes first, so that whoever asks hears of a long start.
    pub(crate) async fn start(env: &Env, config: BrokerConfig, place: Place) -> Outcome<Node> {
        conflicts::refuse(env, &config).await?;
        let config = Arc::new(config);
        let metrics = Metrics::default();
        let place_text = place.text(&config);
        let serving = Arc::new(OnceLock::new());
        let shown = Shown {
            env: env.clone(),
            began: env.clock.now(),
            broker: serving.clone(),
            metrics: metrics.clone(),
            data: place_text.clone(),
        };
        let console = match config.http_listener() {
            Some(address) => Some(start_console(env, &address, shown).await?),
            None => None,
        };
        let storages = open_storages(env, &config, &metrics).await?;
        let metadata = open_metadata(env, &config, &place).await?;
        let parts = BrokerParts {
            env: env.clone(),
            config,
            metadata: metadata.clone(),
            storages: storages.clone(),
            metrics,
        };
        match Broker::start(parts).await {
            Ok(broker) => {
                // The cell was made here and is empty.
                let _ = serving.set(broker.clone());
                let env = env.clone();
                Ok(Node { broker, env, metadata, storages, console, place_text, place })
            }
            Err(error) => {
                // What was opened is closed in order, so that the next start need not recover.
                let _ = close(env, &storages, &*metadata).await;
                Err(start_failure(error))
            }
        }
    }

    /// Where HTTP is served, if it is.
    pub(crate) fn console_address(&self) -> Option<SocketAddr> {
        self.console.as_ref().map(console::Server::address)
    }

    /// Where the data is, for people.
    pub(crate) fn place_text(&self) -> &str {
        &self.place_text
    }

    /// Whether nothing outlives the node.
    pub(crate) fn is_temporary(&self) -> bool {
        self.place.is_temporary()
    }

    /// Ends the node: clients first, then what they wrote is closed.
    pub(crate) async fn shutdown(mut self) -> Outcome {
        if let Some(console) = self.console.take() {
            console.stop().await;
        }
        self.broker.shutdown().await;
        close(&self.env, &self.storages, &*self.metadata).await
    }
}

/// Closes storages and metadata; tells the first failure.
async fn close(env: &Env, storages: &[Arc<Storage>], metadata: &dyn MetadataStore) -> Outcome {
    let mut first_failure = None;
    for storage in storages {
        let closing = storage.clone();
        if let Err(error) = env.blocking(move || closing.shutdown_clean()).await {
            let message = format!("{} was not closed cleanly: {error}", storage.dir().display());
            tracing::error!("{message}");
            first_failure.get_or_insert(Failure::new(message).help("the next start recovers it"));
        }
    }
    metadata.shutdown().await;
    first_failure.map_or(Ok(()), Err)
}

/// Opens every log directory. One that fails is left out while others are there.
async fn open_storages(env: &Env, config: &BrokerConfig, metrics: &Metrics) -> Outcome<Vec<Arc<Storage>>> {
    // All directories together get what one alone would: half of what the process may have open.
    let directories = config.log_dirs().len().max(1);
    let usual = StorageOptions::default();
    let options = StorageOptions {
        open_files_max: usual.open_files_max.min(env.disk.open_files_max() / 2) / directories,
        index_interval_bytes: u32::try_from(config.get(keys::LOG_INDEX_INTERVAL_BYTES)).unwrap_or(0),
        sync_journal_bytes: u64::try_from(config.get(keys::SYNC_JOURNAL_BYTES)).unwrap_or(0),
        metrics: metrics.node().clone(),
        ..usual
    };
    let mut storages = Vec::new();
    let mut failures = Vec::new();
    for dir in config.log_dirs() {
        let (opening, dir, options) = (env.clone(), PathBuf::from(dir), options.clone());
        match env.blocking(move || Storage::open(opening, dir, options)).await {
            Ok(storage) => {
                tokio::spawn(storage.clone().run());
                storages.push(storage);
            }
            Err(error) => failures.push(error),
        }
    }
    if let (true, Some(error)) = (storages.is_empty(), failures.first()) {
        return Err(storage_failure(error));
    }
    for error in failures {
        tracing::error!(%error, "a log directory is left out");
    }
    Ok(storages)
}

fn storage_failure(error: &StorageError) -> Failure {
    let failure = Failure::new(error.to_string());
    match error {
        StorageError::Io { .. } => {
            failure.help("may this user write there? `--data DIR` names another directory")
        }
        _ => failure,
    }
}

async fn open_metadata(env: &Env, config: &BrokerConfig, place: &Place) -> Outcome<Arc<dyn MetadataStore>> {
    let Some(dir) = place.metadata_dir(env, config) else {
        return Ok(Arc::new(MemoryStore::default()));
    };
    let opened = RaftStore::open(env.clone(), dir, BrokerId(config.get(keys::NODE_ID))).await;
    let store = opened.map_err(|error| Failure::new(error.to_string()))?;
    Ok(Arc::new(store))
}

fn start_failure(error: StartError) -> Failure {
    let failure = Failure::new(error.to_string());
    match &error {
        StartError::Bind(bind) if bind.source.kind() == std::io::ErrorKind::AddrInUse => failure.help(
            "another process listens there: stop it, or say --set listeners=PLAINTEXT://127.0.0.1:9192",
        ),
        StartError::Bind(bind) if bind.source.kind() == std::io::ErrorKind::PermissionDenied => {
            failure.help("ports below 1024 need a privilege: name another in `listeners`")
        }
        StartError::Bind(_) => failure
            .help("name an address of this machine in `listeners`, or none, as in PLAINTEXT://:9092, for all of them"),
        _ => failure,
    }
}

async fn start_console(env: &Env, listener: &HostPort, shown: Shown) -> Outcome<console::Server> {
    let failed = |error: std::io::Error| {
        Failure::new(format!("vltava.http.listener cannot listen on {listener}: {error}"))
            .help("say --set vltava.http.listener=127.0.0.1:9744, or leave it empty to serve no HTTP")
    };
    let host = if listener.host.is_empty() { "0.0.0.0" } else { &listener.host };
    let full = HostPort { host: host.to_owned(), port: listener.port }.to_string();
    let addresses = env.network.resolve(&full).await.map_err(failed)?;
    let none = || failed(std::io::ErrorKind::AddrNotAvailable.into());
    let address = addresses.into_iter().next().ok_or_else(none)?;
    console::Server::start(env, address, Arc::new(shown)).await.map_err(failed)
}
