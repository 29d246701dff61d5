//! A broker on one thread, for counting what it does: the network and the clock are simulated, the disk is the
//! real one, and jobs run as tasks of the same thread, so that a run does the same work each time.
//!
//! The disk is real because the simulated one remembers what a power cut would leave, which takes more
//! instructions than the broker itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::config::{Assignment, BrokerConfig, UnknownKeys};
use base::env::{Env, Stream, Workers};
use base::ids::BrokerId;
use base::metrics::Metrics;
use broker::{Broker, BrokerParts};
use metadata::{Command, MetadataStore, RaftStore};
use replication::{Storage, StorageOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use wire::message::ResponseHeader;
use wire::{Message, Reader, RequestMessage, request_frame};

/// Where the broker listens, in a network of its own.
const ADDRESS: &str = "127.0.0.1:9092";

/// Correlation id of all requests.
const CORRELATION: i32 = 7;

/// One thread with simulated time.
pub(crate) fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime on this thread")
}

/// A running broker and a client's connection to it.
pub(crate) struct Machine {
    _broker: Arc<Broker>,
    stream: Box<dyn Stream>,
    answer: Vec<u8>,
}

/// Runs each job as a task of the runtime's only thread.
struct Tasks;

impl Workers for Tasks {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { job() })),
            Err(_) => job(),
        }
    }
}

impl Machine {
    /// Starts a broker on an empty folder; `settings` are broker settings as `key=value`.
    pub(crate) async fn start(folder: &Path, settings: &[&str]) -> Machine {
        let workers = Arc::new(Tasks);
        let env = Env { disk: Env::os().disk, workers: workers.clone(), background: workers, ..Env::sim(1) };
        let listener = format!("listeners=PLAINTEXT://{ADDRESS}");
        let settings = settings.iter().copied().chain(["offsets.topic.num.partitions=1", &listener]);
        let assignments: Vec<_> =
            settings.map(|text| Assignment::from_argument(text).expect("key=value")).collect();
        let config = BrokerConfig::load(&assignments, UnknownKeys::Refuse).expect("good settings").config;
        let store = RaftStore::open(env.clone(), folder.join("metadata"), BrokerId(1)).await;
        let metadata: Arc<dyn MetadataStore> = Arc::new(store.expect("an empty folder"));
        let bootstrap = Command::Bootstrap { cluster_id: env.random_uuid() };
        metadata.propose(bootstrap).await.expect("a new cluster");
        let metrics = Metrics::default();
        let options = StorageOptions { metrics: metrics.node().clone(), ..StorageOptions::default() };
        let log: PathBuf = folder.join("log");
        let storage = Storage::open(env.clone(), log, options).expect("an empty folder");
        tokio::spawn(storage.clone().run());
        let parts = BrokerParts {
            env: env.clone(),
            config: Arc::new(config),
            metadata,
            storages: vec![storage],
            metrics,
        };
        let broker = Broker::start(parts).await.expect("a broker that starts");
        let stream = env.network.connect(ADDRESS).await.expect("the broker listens");
        Machine { _broker: broker, stream, answer: Vec::new() }
    }

    /// Sends a request and reads its answer to the end, which [`Machine::answer`] then shows.
    pub(crate) async fn exchange(&mut self, frame: &[u8]) {
        self.stream.write_all(frame).await.expect("the broker reads");
        let size = self.stream.read_i32().await.expect("an answer");
        self.answer.resize(usize::try_from(size).expect("a size"), 0);
        self.stream.read_exact(&mut self.answer).await.expect("a whole answer");
    }

    /// Hands the last answer, which was one to a `Q` of this version, to `read`.
    pub(crate) fn answer<'q, Q: RequestMessage<'q>, T>(
        &self,
        version: i16,
        read: impl for<'r> FnOnce(Q::Response<'r>) -> T,
    ) -> T {
        let mut reader = Reader::new(&self.answer);
        let header_version = Q::API_KEY.response_header_version(version);
        let header = ResponseHeader::decode(&mut reader, header_version).expect("a header");
        assert_eq!(header.correlation_id, CORRELATION);
        read(Q::Response::decode(&mut reader, version).expect("an answer that can be read"))
    }

    /// Sends a request and hands its answer to `read`.
    pub(crate) async fn ask<'q, Q: RequestMessage<'q>, T>(
        &mut self,
        version: i16,
        request: &Q,
        read: impl for<'r> FnOnce(Q::Response<'r>) -> T,
    ) -> T {
        self.exchange(&frame(version, request)).await;
        self.answer::<Q, T>(version, read)
    }
}

/// A request as it goes over the wire.
pub(crate) fn frame<'q, Q: RequestMessage<'q>>(version: i16, request: &Q) -> Vec<u8> {
    request_frame(CORRELATION, Some("guard"), version, request).expect("a request").to_vec()
}
