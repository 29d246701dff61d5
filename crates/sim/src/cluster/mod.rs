//! A cluster of whole nodes in one seeded thread: metadata voters and followers, brokers and controllers, each on a machine
//! of its own, clients that write, read and commit, and faults from the seed. Afterwards everything is healed, and what the
//! clients saw is held against what is there ([`history`]), images against each other ([`chains`]), copies against what was
//! sealed.

pub mod chains;
mod clients;
mod disks;
pub mod faults;
mod groups;
pub mod history;
pub mod limbo;
pub mod node;
mod panics;
mod quiet;
mod reader;
mod storm;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use base::env::Random;
use base::env::sim::{SimRandom, SimWorld};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use self::chains::Witness;
use self::clients::Clients;
use self::disks::Spoilt;
use self::faults::Kind;
use self::history::{Place, Promise};
use self::node::{Life, Node, State, host};
use self::reader::Reader;
use self::writer::Writer;
use crate::trace::Trace;

/// How long nodes may take to serve when nothing is wrong.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long clients may take to finish what they began, once everything is healed.
const END_PATIENCE: Duration = Duration::from_secs(60);
/// Brokers that hold a partition.
const COPIES: i16 = 3;
/// Groups that commit offsets.
const GROUPS: u64 = 2;

/// What all nodes are told: everything small and quick, so that a run sees rolls, retention and compaction.
const SETTINGS: [&str; 15] = [
    "min.insync.replicas=2",
    "default.replication.factor=3",
    "num.partitions=1",
    "offsets.topic.num.partitions=1",
    "offsets.topic.replication.factor=3",
    "log.segment.bytes=1048576",
    "log.roll.ms=1500",
    "log.retention.check.interval.ms=500",
    "log.cleaner.backoff.ms=300",
    "log.cleaner.min.cleanable.ratio=0.2",
    "log.cleaner.delete.retention.ms=5000",
    "log.cleaner.dedupe.buffer.size=1048576",
    "group.initial.rebalance.delay.ms=0",
    "leader.imbalance.check.interval.seconds=5",
    "vltava.scrub.interval.ms=15000",
];

/// A topic of every run.
struct Topic {
    name: &'static str,
    partitions: i32,
    promise: Promise,
    configs: &'static [(&'static str, &'static str)],
}

const TOPICS: [Topic; 3] = [
    Topic {
        name: "ledger",
        partitions: 2,
        promise: Promise { compacted: false, trimmed: false },
        configs: &[],
    },
    Topic {
        name: "brief",
        partitions: 1,
        promise: Promise { compacted: false, trimmed: true },
        configs: &[("retention.ms", "4000")],
    },
    Topic {
        name: "table",
        partitions: 1,
        promise: Promise { compacted: true, trimmed: false },
        configs: &[("cleanup.policy", "compact")],
    },
];

/// What a run is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// Nodes; at most three of them vote.
    pub nodes: usize,
    /// Kinds of faults; none is a quiet run.
    pub faults: Vec<Kind>,
    /// Whether logs are compacted; if not, there is no compacted topic either.
    pub compaction: bool,
    /// Prints the trace as it grows.
    pub echo: bool,
}

impl Options {
    /// Three nodes, compaction and all kinds of faults.
    pub fn new(seed: u64) -> Options {
        let faults = Kind::ALL.iter().map(|(kind, _)| *kind).collect();
        Options { seed, nodes: 3, faults, compaction: true, echo: false }
    }
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records acknowledged.
    pub records: usize,
    /// Copies of sealed segments that were compared.
    pub copies: usize,
    /// Faults carried out.
    pub faults: usize,
    /// How often a disk was lost or damaged.
    pub disks: usize,
    /// Simulated time, ms.
    pub simulated_ms: u64,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// What it did, or which promise was broken.
    pub result: Result<Counts, String>,
    /// What happened when.
    pub trace: String,
}

/// Nodes, clients and who watches them.
struct Cluster {
    world: SimWorld,
    nodes: Vec<Arc<Node>>,
    clients: Arc<Clients>,
    witness: Arc<Mutex<Witness>>,
    spoilt: Mutex<Spoilt>,
    trace: Trace,
    random: SimRandom,
}

/// Runs one seed in a world of its own, on this thread.
pub fn run_seed(options: &Options) -> Outcome {
    run_in(options, async |cluster| cluster.live(options).await)
}

/// Builds a cluster and runs its life in a world of its own, on this thread.
fn run_in(options: &Options, life: impl AsyncFnOnce(&Cluster) -> Result<Counts, String>) -> Outcome {
    crate::run(async {
        let cluster = Cluster::new(options);
        panics::forget();
        let lived = life(&cluster).await;
        let result = panics::take().map_or(lived, |panic| Err(format!("a task of a node panicked: {panic}")));
        if let Err(error) = &result {
            cluster.trace.note(format!("the run failed: {error}"));
        }
        Outcome { result, trace: cluster.trace.text() }
    })
}

impl Cluster {
    fn new(options: &Options) -> Cluster {
        let world = SimWorld::new(options.seed);
        let random = SimRandom::new(options.seed ^ 0x5eed);
        let mut settings: Vec<String> = SETTINGS.iter().map(|text| (*text).to_owned()).collect();
        settings.push(format!("log.cleaner.enable={}", options.compaction));
        let nodes = (1..=options.nodes as i32)
            .map(|id| Arc::new(Node::new(id, options.nodes, world.machine(&host(id)), &settings)));
        let nodes: Vec<_> = nodes.collect();
        let env = world.machine("clients").env;
        let trace = Trace::new(env.clock.clone(), options.echo);
        let clients = Clients::new(env, options.nodes, trace.clone());
        Cluster { world, nodes, clients, witness: Arc::default(), spoilt: Mutex::default(), trace, random }
    }

    /// The whole run.
    async fn live(&self, options: &Options) -> Result<Counts, String> {
        self.nodes.iter().for_each(|node| self.boot(node));
        self.all_serve().await?;
        let places = self.create_topics(options.compaction).await?;
        let work = self.hire(&places);
        let faults = self.storm(&options.faults).await?;
        self.heal().await?;
        self.clients.end();
        let groups = self.finish(work).await?;
        self.quiet().await?;
        self.check_logs(&places).await?;
        for group in groups {
            group.check().await?;
        }
        self.sweep().await?;
        let copies = self.check_copies().await?;
        self.accused()?;
        let records = self.clients.history.lock().acknowledgements();
        let simulated_ms = self.clients.env.clock.now().as_millis() as u64;
        self.trace.note(format!("{records} records, {copies} copies are as they should be"));
        let disks = self.spoilt.lock().times;
        Ok(Counts { records, copies, faults, disks, simulated_ms })
    }

    /// Starts a node and watches what it shows.
    fn boot(&self, node: &Arc<Node>) {
        let (trace, id) = (self.trace.clone(), node.id);
        let (witness, clients, life) = (self.witness.clone(), self.clients.clone(), self.random.next_u64());
        trace.note(format!("node {id} starts"));
        node.boot(move |started| match started {
            Ok(serving) => {
                trace.note(format!("node {id} serves"));
                tokio::spawn(watch(id, life, serving, witness, clients));
            }
            Err(why) => trace.note(format!("node {id} does not start: {why}")),
        });
    }

    /// The first promise that was broken so far.
    fn accused(&self) -> Result<(), String> {
        let panicked = || panics::seen().map(|panic| format!("a task of a node panicked: {panic}"));
        self.clients.accusation().or_else(panicked).map_or(Ok(()), Err)
    }

    async fn sleep_ms(&self, ms: u64) {
        self.clients.sleep_ms(ms).await;
    }

    /// Waits until something is so.
    async fn until(
        &self,
        patience: Duration,
        mut missing: impl AsyncFnMut() -> Option<String>,
    ) -> Result<(), String> {
        let clock = &self.clients.env.clock;
        let deadline = clock.now() + patience;
        loop {
            self.accused()?;
            let Some(what) = missing().await else { return Ok(()) };
            if clock.now() >= deadline {
                return Err(format!("after {} s without a fault: {what}", patience.as_secs()));
            }
            self.sleep_ms(50).await;
        }
    }

    /// Waits until all nodes serve; one that could not start is started again.
    async fn all_serve(&self) -> Result<(), String> {
        self.until(START_PATIENCE, async || {
            let mut missing = None;
            for node in &self.nodes {
                match node.state() {
                    State::Serving(_) => continue,
                    State::Down | State::Failed(_) => self.boot(node),
                    State::Starting => {}
                }
                missing = Some(format!("node {} does not serve", node.id));
            }
            missing
        })
        .await
    }

    async fn create_topics(&self, compaction: bool) -> Result<Vec<(Place, Promise)>, String> {
        let mut places = Vec::new();
        for Topic { name, partitions, promise, configs } in TOPICS {
            if promise.compacted && !compaction {
                continue;
            }
            self.create_topic(name, partitions, configs).await?;
            for partition in 0..partitions {
                let place = (name.to_owned(), partition);
                self.clients.history.lock().promise(place.clone(), promise);
                places.push((place, promise));
            }
        }
        self.trace.note("the topics are made");
        Ok(places)
    }

    async fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<(), String> {
        const EXISTS: i16 = 36;
        let clients = &self.clients;
        self.until(START_PATIENCE, async || {
            let node = clients.somebody(&self.random);
            match groups::create(clients, node, name, partitions, COPIES, configs).await {
                Ok(0 | EXISTS) => None,
                other => Some(format!("{name} is not created: {other:?}")),
            }
        })
        .await
    }

    /// Sets clients to work.
    fn hire(&self, places: &[(Place, Promise)]) -> Work {
        let mut work = Work::default();
        let mut number = 0;
        for (place, promise) in places {
            for idempotent in [true, false] {
                number += 1;
                let clients = self.clients.clone();
                let writer = Writer::new(clients, place.clone(), number, idempotent, self.random.next_u64());
                work.tasks.push(tokio::spawn(writer.run()));
            }
            let reader = Reader::new(self.clients.clone(), place.clone(), *promise, self.random.next_u64());
            work.tasks.push(tokio::spawn(reader.run()));
        }
        for number in 0..GROUPS {
            let group = groups::Group::new(self.clients.clone(), number, "ledger", self.random.next_u64());
            work.groups.push(tokio::spawn(group.run()));
        }
        let creating = groups::create_topics(self.clients.clone(), COPIES, self.random.next_u64());
        work.tasks.push(tokio::spawn(creating));
        work
    }

    /// Waits until clients have finished what they began.
    async fn finish(&self, work: Work) -> Result<Vec<groups::Group>, String> {
        self.until(END_PATIENCE, async || {
            let open = work.tasks.iter().filter(|task| !task.is_finished()).count();
            let open = open + work.groups.iter().filter(|task| !task.is_finished()).count();
            (open > 0).then(|| format!("{open} clients have not finished"))
        })
        .await?;
        for task in work.tasks {
            task.await.map_err(|error| error.to_string())?;
        }
        let mut groups = Vec::new();
        for task in work.groups {
            groups.push(task.await.map_err(|error| error.to_string())?);
        }
        self.trace.note("the clients are done");
        Ok(groups)
    }
}

/// Clients at work.
#[derive(Default)]
struct Work {
    tasks: Vec<JoinHandle<()>>,
    groups: Vec<JoinHandle<groups::Group>>,
}

/// Tells the witness every image that a node shows in one life.
async fn watch(node: i32, life: u64, serving: Life, witness: Arc<Mutex<Witness>>, clients: Arc<Clients>) {
    let mut images = serving.metadata.subscribe();
    drop(serving);
    loop {
        let image = images.borrow_and_update().clone();
        let seen = witness.lock().see(node, life, &image);
        match seen {
            Ok(Some(news)) => clients.trace.note(news),
            Ok(None) => {}
            Err(error) => return clients.accuse(format!("the metadata of node {node}: {error}")),
        }
        if images.changed().await.is_err() {
            return;
        }
    }
}
