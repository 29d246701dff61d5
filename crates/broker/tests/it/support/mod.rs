//! A simulated machine with one broker at a time on it, and a client that speaks in raw frames.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::config::{Assignment, BrokerConfig, UnknownKeys};
use base::env::{Env, Stream};
use base::ids::BrokerId;
use base::metrics::Metrics;
use broker::{Broker, BrokerParts};
use metadata::{Command, MetadataStore, RaftStore};
use replication::{Storage, StorageError, StorageOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::{Message, Reader, RequestMessage, request_frame};

/// One life of a broker.
pub(crate) struct Life {
    pub(crate) broker: Arc<Broker>,
    #[allow(dead_code, reason = "not every proof reads metrics")]
    pub(crate) metrics: Metrics,
    pub(crate) metadata: Arc<dyn MetadataStore>,
    storage: Arc<Storage>,
    housekeeping: tokio::task::JoinHandle<()>,
}

impl Life {
    /// Starts a broker on what the disk of `env` holds.
    #[allow(dead_code, reason = "not every proof has one broker")]
    pub(crate) async fn start(env: &Env, settings: &[&str]) -> Life {
        let metadata = RaftStore::open(env.clone(), PathBuf::from("/metadata"), BrokerId(1)).await.unwrap();
        let metadata: Arc<dyn MetadataStore> = Arc::new(metadata);
        metadata.propose(Command::Bootstrap { cluster_id: env.random_uuid() }).await.unwrap();
        Life::begin(env, settings, metadata, "/log").await
    }

    /// Starts one of several brokers, which listens on port 9090 and its number, and has a directory of its own.
    #[allow(dead_code, reason = "not every proof has several brokers")]
    pub(crate) async fn member(env: &Env, metadata: &Arc<dyn MetadataStore>, node: i32) -> Life {
        Life::member_with(env, metadata, node, &[]).await
    }

    /// With further settings.
    #[allow(dead_code, reason = "not every proof has several brokers")]
    pub(crate) async fn member_with(
        env: &Env,
        metadata: &Arc<dyn MetadataStore>,
        node: i32,
        settings: &[&str],
    ) -> Life {
        let listeners = format!("listeners=PLAINTEXT://127.0.0.1:{}", 9_090 + node);
        let node_id = format!("node.id={node}");
        let settings: Vec<&str> =
            [node_id.as_str(), listeners.as_str()].into_iter().chain(settings.iter().copied()).collect();
        Life::begin(env, &settings, metadata.clone(), &format!("/log-{node}")).await
    }

    async fn begin(env: &Env, settings: &[&str], metadata: Arc<dyn MetadataStore>, dir: &str) -> Life {
        let assignments: Vec<_> =
            settings.iter().map(|text| Assignment::from_argument(text).expect("key=value")).collect();
        let config = BrokerConfig::load(&assignments, UnknownKeys::Refuse).expect("good settings").config;
        let metrics = Metrics::default();
        let options = StorageOptions {
            metrics: metrics.node().clone(),
            sync_journal_bytes: 1 << 20,
            ..StorageOptions::default()
        };
        let storage = open(env, dir, &options).await;
        let housekeeping = tokio::spawn(storage.clone().run());
        let parts = BrokerParts {
            env: env.clone(),
            config: Arc::new(config),
            metadata: metadata.clone(),
            storages: vec![storage.clone()],
            metrics: metrics.clone(),
        };
        let broker = Broker::start(parts).await.unwrap();
        Life { broker, metrics, metadata, storage, housekeeping }
    }

    /// Ends it in order, and leaves the metadata to others.
    #[allow(dead_code, reason = "not every proof has several brokers")]
    pub(crate) async fn leave(self, env: &Env) {
        self.broker.shutdown().await;
        env.blocking(move || self.storage.shutdown_clean()).await.unwrap();
        self.housekeeping.abort();
    }

    /// Ends it in order.
    #[allow(dead_code, reason = "not every proof needs a second life")]
    pub(crate) async fn stop(self, env: &Env) {
        self.broker.shutdown().await;
        let storage = self.storage.clone();
        env.blocking(move || storage.shutdown_clean()).await.unwrap();
        self.metadata.shutdown().await;
        self.housekeeping.abort();
    }
}

/// Opens a log directory. Jobs that the life before began may hold it for a moment.
async fn open(env: &Env, dir: &str, options: &StorageOptions) -> Arc<Storage> {
    for _ in 0..100 {
        match Storage::open(env.clone(), PathBuf::from(dir), options.clone()) {
            Ok(storage) => return storage,
            Err(StorageError::Unusable { .. }) => env.clock.sleep(Duration::from_millis(1)).await,
            Err(error) => panic!("{dir}: {error}"),
        }
    }
    panic!("{dir} is held by somebody");
}

/// Runs a test on one thread with simulated time.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(test);
}

pub(crate) async fn send(stream: &mut dyn Stream, bytes: &[u8]) {
    // The broker may close while it is being written to.
    let _ = stream.write_all(bytes).await;
}

/// The next frame, without its size; `None` at the end of the stream.
pub(crate) async fn receive(stream: &mut dyn Stream) -> Option<Vec<u8>> {
    let mut size = [0; 4];
    stream.read_exact(&mut size).await.ok()?;
    let mut frame = vec![0; i32::from_be_bytes(size) as usize];
    stream.read_exact(&mut frame).await.expect("a whole frame");
    Some(frame)
}

/// Sends a request and hands its answer to `read`.
#[allow(dead_code, reason = "hostile clients do not wait for answers")]
pub(crate) async fn ask<'q, Q: RequestMessage<'q>, T>(
    stream: &mut dyn Stream,
    version: i16,
    request: &Q,
    read: impl for<'r> FnOnce(Q::Response<'r>) -> T,
) -> T {
    const CORRELATION: i32 = 77;
    send(stream, &request_frame(CORRELATION, Some("test"), version, request).unwrap()).await;
    let frame = receive(stream).await.expect("an answer");
    let mut reader = Reader::new(&frame);
    let header_version = Q::API_KEY.response_header_version(version);
    let header = wire::message::ResponseHeader::decode(&mut reader, header_version).unwrap();
    assert_eq!(header.correlation_id, CORRELATION);
    read(Q::Response::decode(&mut reader, version).unwrap())
}
