//! A whole node in this process: storages, metadata, broker, console, in the order they need each other.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use ::metadata::MetadataStore;
use base::config::{BrokerConfig, HostPort, keys};
use base::env::Env;
use base::metrics::Metrics;
use broker::{Broker, BrokerParts, ControllerSpec, StartError, spawn_controller};
use storage::{Storage, StorageError, StorageOptions};
use tokio::sync::watch;

use super::console::{Serving, Shown};
use super::{Place, conflicts, identity, metadata};
use crate::failure::{Failure, Outcome};

/// What the console says until something else is waited for.
const OPENING: &str = "logs are being opened";

/// A running node. [`Node::shutdown`] ends it so that the next start has nothing to recover.
pub(crate) struct Node {
    /// `None` for a node that is only a controller.
    broker: Option<Arc<Broker>>,
    /// As it was at the start.
    config: Arc<BrokerConfig>,
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
        let config = Arc::new(identity::complete(env, config, &place).await?);
        let metrics = Metrics::default();
        let place_text = place.text(&config);
        let serving = Arc::new(OnceLock::new());
        let stage = watch::Sender::new(OPENING.to_owned());
        let shown = Shown {
            env: env.clone(),
            began: env.clock.now(),
            config: config.clone(),
            serving: serving.clone(),
            stage: stage.subscribe(),
            metrics: metrics.clone(),
            data: place_text.clone(),
        };
        let console = match config.http_listener() {
            Some(address) => Some(start_console(env, &address, shown).await?),
            None => None,
        };
        let (storages, metadata) = open(env, &config, &place, &metrics, &stage).await?;
        if let Err(failure) = identity::note(env, &config, &place, &*metadata) {
            let _ = close(env, &storages, &*metadata).await;
            return Err(failure);
        }
        if config.roles().controller {
            spawn_controller(env.clone(), &metadata, ControllerSpec::from_config(&config));
        }
        let mut node = Node {
            broker: None,
            config: config.clone(),
            env: env.clone(),
            metadata: metadata.clone(),
            storages: storages.clone(),
            console,
            place_text,
            place,
        };
        if config.roles().broker {
            let parts =
                BrokerParts { env: env.clone(), config, metadata: metadata.clone(), storages, metrics };
            match Broker::start(parts).await {
                Ok(broker) => node.broker = Some(broker),
                Err(error) => {
                    // What was opened is closed in order, so that the next start need not recover.
                    let _ = node.shutdown().await;
                    return Err(start_failure(error));
                }
            }
        }
        // The cell was made here and is empty.
        let _ = serving.set(Serving { broker: node.broker.clone(), metadata });
        Ok(node)
    }

    /// Completes when another process serves as this node, so that it should end.
    pub(crate) async fn replaced(&self) {
        match &self.broker {
            Some(broker) => broker.replaced().await,
            None => std::future::pending().await,
        }
    }

    /// The configuration now.
    pub(crate) fn config(&self) -> Arc<BrokerConfig> {
        self.broker.as_ref().map_or_else(|| self.config.clone(), |broker| broker.config())
    }

    /// Name and address of every listener for clients.
    pub(crate) fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.broker.as_ref().map(|broker| broker.addresses()).unwrap_or_default()
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
        if let Some(broker) = &self.broker {
            broker.shutdown().await;
        }
        close(&self.env, &self.storages, &*self.metadata).await
    }
}

/// Opens the log directories, if the node is a broker, and the metadata.
async fn open(
    env: &Env,
    config: &BrokerConfig,
    place: &Place,
    metrics: &Metrics,
    stage: &watch::Sender<String>,
) -> Outcome<(Vec<Arc<Storage>>, Arc<dyn MetadataStore>)> {
    let tell = |what: &str| drop(stage.send_replace(what.to_owned()));
    if !metadata::waits_for_others(config) {
        let storages = match config.roles().broker {
            true => open_storages(env, config, metrics).await?,
            false => Vec::new(),
        };
        return Ok((storages, metadata::open(env, config, place).await?));
    }
    // While others are waited for, nothing is open that an end in the midst would leave to be recovered; and the
    // controllers agree while logs are recovered.
    tell(&metadata::awaited(config));
    let metadata = metadata::open(env, config, place).await?;
    tell(OPENING);
    if !config.roles().broker {
        return Ok((Vec::new(), metadata));
    }
    match open_storages(env, config, metrics).await {
        Ok(storages) => Ok((storages, metadata)),
        Err(failure) => {
            metadata.shutdown().await;
            Err(failure)
        }
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
    // All directories together get what one alone would.
    let directories = config.log_dirs().len().max(1);
    let usual = StorageOptions::default();
    let options = StorageOptions {
        open_files_max: usual.open_files_max.min(StorageOptions::open_files_share(&*env.disk)) / directories,
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

fn start_failure(error: StartError) -> Failure {
    let failure = Failure::new(error.to_string());
    match &error {
        StartError::Bind(bind) if bind.source.kind() == std::io::ErrorKind::AddrInUse => failure.help(
            "another process listens there: stop it, or say --set listeners=PLAINTEXT://127.0.0.1:9192",
        ),
        StartError::Bind(bind) if bind.source.kind() == std::io::ErrorKind::PermissionDenied => {
            failure.help("ports below 1024 need a privilege: name another in `listeners`")
        }
        StartError::Refused { is_taken: true, .. } => failure
            .help("stop that process, or give this one a node.id of its own; `vltava cluster info` lists those in use"),
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
    let address = resolve(env, listener).await.map_err(failed)?;
    console::Server::start(env, address, Arc::new(shown)).await.map_err(failed)
}

/// The address to listen on; no host means every interface.
pub(super) async fn resolve(env: &Env, listener: &HostPort) -> std::io::Result<SocketAddr> {
    let host = if listener.host.is_empty() { "0.0.0.0" } else { &listener.host };
    let full = HostPort { host: host.to_owned(), port: listener.port }.to_string();
    let addresses = env.network.resolve(&full).await?;
    addresses.into_iter().next().ok_or_else(|| std::io::ErrorKind::AddrNotAvailable.into())
}
