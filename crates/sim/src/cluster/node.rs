//! One node of a simulated cluster: its machine, its configuration, and its lives, which are put together as `vltava serve`
//! does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::config::{Assignment, BrokerConfig, UnknownKeys};
use base::env::sim::{CrashPolicy, Sim};
use base::env::{Disk, Env};
use base::ids::BrokerId;
use base::metrics::Metrics;
use broker::{Broker, BrokerParts, ControllerSpec, spawn_controller};
use metadata::{FollowerStore, MetadataStore, Quorum, RaftStore};
use parking_lot::Mutex;
use storage::{SegmentName, Storage, StorageOptions};

/// Where clients and brokers connect.
pub const CLIENT_PORT: u16 = 9092;
/// Where controllers listen.
const CONTROLLER_PORT: u16 = 9093;
/// Voters of the metadata log at most.
const VOTERS_MAX: usize = 3;
/// Where a node keeps its things.
const METADATA_DIR: &str = "/data/metadata";
const LOG_DIR: &str = "/data/log";

/// A node. See the module's head.
pub struct Node {
    /// Its number, from 1.
    pub id: i32,
    /// Its machine.
    pub sim: Sim,
    settings: Vec<String>,
    state: Mutex<State>,
}

/// What a node is doing.
#[derive(Clone)]
pub enum State {
    /// No process runs.
    Down,
    /// It starts.
    Starting,
    /// It serves.
    Serving(Life),
    /// The process ended by itself: it could not start.
    Failed(String),
}

/// A life that serves.
#[derive(Clone)]
pub struct Life {
    env: Env,
    /// Its broker.
    pub broker: Arc<Broker>,
    /// Its metadata.
    pub metadata: Arc<dyn MetadataStore>,
    /// Its log directories.
    pub storages: Vec<Arc<Storage>>,
}

/// The name of a node's machine.
pub fn host(id: i32) -> String {
    format!("node-{id}")
}

/// Where clients reach a node.
pub fn address(id: i32) -> String {
    format!("{}:{CLIENT_PORT}", host(id))
}

/// Voters of a cluster of so many nodes; the others follow them.
fn voters(nodes: usize) -> impl Iterator<Item = i32> {
    (1..).take(nodes.min(VOTERS_MAX))
}

impl Node {
    /// A node that never ran, one of `nodes`.
    pub fn new(id: i32, nodes: usize, sim: Sim, settings: &[String]) -> Node {
        let quorum: Vec<String> =
            voters(nodes).map(|voter| format!("{voter}@{}:{CONTROLLER_PORT}", host(voter))).collect();
        let votes = voters(nodes).any(|voter| voter == id);
        let mut own = vec![
            format!("node.id={id}"),
            format!("controller.quorum.voters={}", quorum.join(",")),
            "controller.listener.names=CONTROLLER".to_owned(),
            format!("advertised.listeners=PLAINTEXT://{}", address(id)),
        ];
        if votes {
            own.push("process.roles=broker,controller".to_owned());
            own.push(format!(
                "listeners=PLAINTEXT://0.0.0.0:{CLIENT_PORT},CONTROLLER://0.0.0.0:{CONTROLLER_PORT}"
            ));
        } else {
            own.push("process.roles=broker".to_owned());
            own.push(format!("listeners=PLAINTEXT://0.0.0.0:{CLIENT_PORT}"));
        }
        own.extend_from_slice(settings);
        Node { id, sim, settings: own, state: Mutex::new(State::Down) }
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// The life that serves, if one does.
    pub fn life(&self) -> Option<Life> {
        match &*self.state.lock() {
            State::Serving(life) => Some(life.clone()),
            _ => None,
        }
    }

    /// Starts a process; `serves` is called when it serves, or why it ended.
    pub fn boot(self: &Arc<Self>, serves: impl FnOnce(Result<Life, String>) + Send + 'static) {
        let env = self.sim.boot();
        *self.state.lock() = State::Starting;
        let node = self.clone();
        tokio::spawn(async move {
            // A life that ended meanwhile waits here for ever.
            let started = start(&env, &node.settings).await;
            env.clock.sleep(std::time::Duration::ZERO).await;
            *node.state.lock() = match &started {
                Ok(life) => State::Serving(life.clone()),
                Err(why) => State::Failed(why.clone()),
            };
            serves(started);
        });
    }

    /// Kills the process (SIGKILL).
    pub fn kill(&self) {
        self.sim.kill();
        *self.state.lock() = State::Down;
    }

    /// Takes the power from the machine.
    pub fn lose_power(&self, policy: CrashPolicy) {
        self.sim.lose_power(policy);
        *self.state.lock() = State::Down;
    }

    /// Kills the process and takes its log directory away, with everything in it. The metadata stays: it is on a disk of its
    /// own, since a voter that lost what it promised must not come back under its number.
    pub fn lose_log_directory(&self) {
        self.kill();
        let parent = Path::new(LOG_DIR).parent().unwrap_or(Path::new("/"));
        let lost =
            self.sim.disk.remove_dir_all(Path::new(LOG_DIR)).and_then(|()| self.sim.disk.sync_dir(parent));
        if let Err(error) = lost {
            // A node that never served has none.
            debug_assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        }
    }

    /// Ends the process in order (SIGTERM), if it serves; kills one that does not.
    pub async fn stop(&self) {
        if let Some(life) = self.life() {
            life.broker.shutdown().await;
            for storage in life.storages.clone() {
                // What was not closed is recovered by the next start.
                let _ = life.env.blocking(move || storage.shutdown_clean()).await;
            }
            life.metadata.shutdown().await;
        }
        self.kill();
    }
}

/// Puts a node together, as `vltava serve` does.
async fn start(env: &Env, settings: &[String]) -> Result<Life, String> {
    let assignments = settings.iter().map(|text| Assignment::from_argument(text));
    let assignments: Vec<_> =
        assignments.collect::<Option<_>>().ok_or("a setting is not of the form key=value")?;
    let config = BrokerConfig::load(&assignments, UnknownKeys::Refuse);
    let config = Arc::new(config.map_err(|errors| format!("{errors:?}"))?.config);
    let metadata = open_metadata(env, &config).await?;
    let metrics = Metrics::default();
    let options = StorageOptions {
        reserve_bytes: 1 << 20,
        // So small that its halves change hands; or none.
        sync_journal_bytes: [0, 32 << 10, 128 << 10][(env.random.next_u64() % 3) as usize],
        sync_journal_after_files: env.random.next_u64() % 20,
        metrics: metrics.node().clone(),
        ..StorageOptions::default()
    };
    let opening = env.clone();
    let storage = env.blocking(move || Storage::open(opening, PathBuf::from(LOG_DIR), options)).await;
    let storage = match storage {
        Ok(storage) => storage,
        Err(error) => {
            metadata.shutdown().await;
            return Err(error.to_string());
        }
    };
    tokio::spawn(storage.clone().run());
    if config.roles().controller {
        spawn_controller(env.clone(), &metadata, ControllerSpec::from_config(&config));
    }
    let parts = BrokerParts {
        env: env.clone(),
        config,
        metadata: metadata.clone(),
        storages: vec![storage.clone()],
        metrics,
    };
    let broker = Broker::start(parts).await;
    match broker {
        Ok(broker) => Ok(Life { env: env.clone(), broker, metadata, storages: vec![storage] }),
        Err(error) => {
            metadata.shutdown().await;
            Err(error.to_string())
        }
    }
}

async fn open_metadata(env: &Env, config: &BrokerConfig) -> Result<Arc<dyn MetadataStore>, String> {
    let text = |error: metadata::MetadataOpenError| error.to_string();
    if !config.roles().controller {
        let controllers = config.controller_bootstrap().iter().map(ToString::to_string).collect();
        let store = FollowerStore::open(env.clone(), config.node(), controllers).await;
        return Ok(Arc::new(store.map_err(text)?));
    }
    let quorum = Quorum {
        listen: ([0, 0, 0, 0], CONTROLLER_PORT).into(),
        voters: config
            .voters()
            .into_iter()
            .map(|(id, address): (BrokerId, _)| (id, address.to_string()))
            .collect(),
    };
    let store = RaftStore::join(env.clone(), PathBuf::from(METADATA_DIR), config.node(), quorum).await;
    Ok(Arc::new(store.map_err(text)?))
}

/// Where a segment's records lie on the disk of a node.
pub fn records_path(name: &SegmentName) -> PathBuf {
    let SegmentName { topic, partition, id, generation, base } = name;
    let directory = format!(
        "{LOG_DIR}/topics/{topic}/{}.{}/{base:020}.{id}.{}",
        partition.partition.0, partition.topic_id, generation.0
    );
    PathBuf::from(directory).join(format!("{base:020}.log"))
}
