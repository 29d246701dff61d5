//! The world of a run: one simulated machine, and the lives of the broker on it.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use base::config::{Assignment, BrokerConfig, UnknownKeys};
use base::env::sim::{CrashPolicy, Sim};
use base::ids::BrokerId;
use base::metrics::Metrics;
use broker::{Broker, BrokerParts};
use metadata::{MetadataStore, RaftStore};
use storage::{Storage, StorageOptions};

/// Runs one seeded simulation to its end, on this thread, with simulated time.
///
/// # Panics
/// When the runtime cannot be made.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime on this thread");
    runtime.block_on(future)
}

/// The seeds a test runs over: `SIM_SEEDS=a..b`, or so many from 0.
///
/// # Panics
/// When the variable is of another form.
pub fn seeds(default: u64) -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("SIM_SEEDS") else { return 0..default };
    let (from, to) = text.split_once("..").expect("SIM_SEEDS=a..b");
    from.parse().expect("a number")..to.parse().expect("a number")
}

/// One machine. See the module's head.
pub struct World {
    /// The simulated environment and its handles for faults.
    pub sim: Sim,
    settings: Vec<String>,
    /// How many log directories the next life is given.
    pub directories: usize,
}

/// One life of the broker.
pub struct Life {
    /// The broker.
    pub broker: Arc<Broker>,
    /// What it counts.
    pub metrics: Metrics,
    metadata: Arc<RaftStore>,
    storages: Vec<Arc<Storage>>,
    /// What runs in this life; ended with it.
    housekeeping: Vec<tokio::task::JoinHandle<()>>,
}

impl World {
    /// A machine with an empty disk and so many log directories; `settings` are broker settings as
    /// `key=value`.
    pub fn new(seed: u64, directories: usize, settings: &[&str]) -> World {
        let settings = settings.iter().map(|text| (*text).to_owned()).collect();
        World { sim: Sim::new(seed), settings, directories }
    }

    /// A number below `bound`, which must not be 0.
    pub fn draw(&self, bound: u64) -> u64 {
        self.sim.env.random.next_u64() % bound
    }

    /// The power goes, the machine starts anew: of what was not synced the seed decides what is left.
    pub async fn lose_power(&self, life: Life) {
        let policies = [CrashPolicy::LoseAll, CrashPolicy::KeepAll, CrashPolicy::Random];
        self.sim.disk.crash(policies[self.draw(3) as usize]);
        life.bury().await;
    }

    /// The broker's process is killed.
    pub async fn kill(&self, life: Life) {
        self.sim.disk.kill();
        life.bury().await;
    }

    /// Starts the broker on what the disk holds.
    ///
    /// # Errors
    /// What kept it from starting, as text.
    pub async fn start(&self) -> Result<Life, String> {
        let env = self.sim.env.clone();
        let assignments = self.settings.iter().map(|text| Assignment::from_argument(text));
        let assignments: Vec<_> =
            assignments.collect::<Option<_>>().ok_or("a setting is not of the form key=value")?;
        let config = BrokerConfig::load(&assignments, UnknownKeys::Refuse);
        let config = Arc::new(config.map_err(|errors| format!("{errors:?}"))?.config);
        let metadata = RaftStore::open(env.clone(), PathBuf::from("/data/metadata"), BrokerId(1));
        let metadata = Arc::new(metadata.await.map_err(|error| error.to_string())?);
        let mut storages = Vec::new();
        for number in 0..self.directories {
            let opening = env.clone();
            let options = StorageOptions {
                reserve_bytes: 1 << 20,
                // So small that its halves change hands; or none.
                sync_journal_bytes: [0, 32 << 10, 128 << 10][(env.random.next_u64() % 3) as usize],
                sync_journal_after_files: env.random.next_u64() % 20,
                ..StorageOptions::default()
            };
            let open = move || Storage::open(opening, format!("/data/log{number}").into(), options);
            storages.push(env.blocking(open).await.map_err(|error| error.to_string())?);
        }
        // The order in which `log.dirs` names them means nothing.
        if env.random.next_u64() % 2 == 1 {
            storages.reverse();
        }
        let housekeeping = storages.iter().map(|storage| tokio::spawn(storage.clone().run())).collect();
        let metrics = Metrics::default();
        let parts = BrokerParts {
            env,
            config,
            metadata: metadata.clone(),
            storages: storages.clone(),
            metrics: metrics.clone(),
        };
        let broker = Broker::start(parts).await.map_err(|error| error.to_string())?;
        Ok(Life { broker, metrics, metadata, storages, housekeeping })
    }
}

impl Life {
    /// Ends the life as SIGTERM does.
    ///
    /// # Errors
    /// What went wrong, as text.
    pub async fn stop(self, world: &World) -> Result<(), String> {
        self.broker.shutdown().await;
        let storages = self.storages.clone();
        let stop = move || storages.iter().try_for_each(|storage| storage.shutdown_clean());
        let stopped = world.sim.env.blocking(stop).await;
        self.metadata.shutdown().await;
        self.housekeeping.iter().for_each(|task| task.abort());
        world.sim.disk.kill();
        stopped.map_err(|error| error.to_string())
    }

    /// Segments on the disks that no chain lists.
    ///
    /// # Panics
    /// When a directory cannot be listed.
    pub fn strays(&self) -> Vec<String> {
        let image = self.broker.image();
        let found = self.storages.iter().flat_map(|storage| storage.scan());
        let names = found.map(|name| name.expect("the directory can be listed"));
        let listed = |name: &storage::SegmentName| {
            let chain = image.partition(&name.partition).map(|state| &state.chain);
            chain
                .is_some_and(|chain| chain.iter().any(|e| (e.id, e.generation) == (name.id, name.generation)))
        };
        names.filter(|name| !listed(name)).map(|name| format!("{name:?}")).collect()
    }

    /// Segments in the chains of all partitions.
    pub fn segments(&self) -> usize {
        let image = self.broker.image();
        image.topics().flat_map(|topic| topic.partitions.iter()).map(|state| state.chain.len()).sum()
    }

    /// Forgets the life after the disk was killed or lost power under it.
    pub async fn bury(self) {
        self.housekeeping.iter().for_each(|task| task.abort());
        self.metadata.shutdown().await;
        self.broker.shutdown().await;
    }
}
