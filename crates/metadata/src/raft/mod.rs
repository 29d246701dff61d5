//! The durable metadata store: one Raft group, today of one voter.
//!
//! ```text
//!  propose ─► queue (what waits rides together) ─► openraft ─► journal (fsync) ─► state machine ─► image
//! ```
//!
//! openraft runs with one voter and no timers: the voter is made leader when the store opens. The log is a
//! [`journal`] of our own; a snapshot is an image in one file, replaced as a whole. Nothing outside this
//! module knows openraft.
//!
//! Invariants: an answered command survives power loss; a full disk delays, any other failed write or sync
//! stops the store for good, because nobody knows what the disk holds then.

mod entry;
mod home;
mod journal;
mod log_store;
mod machine;
mod open;
mod queue;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::env::{BoxFuture, Env};
use base::ids::BrokerId;
use openraft::{BasicNode, Raft, SnapshotPolicy};
use tokio::sync::watch;

use crate::command::{Command, CommandResult};
use crate::image::Image;
use crate::record::encode_command;
use crate::store::{MetadataStore, ProposeError, check_length};
use home::{Home, Phase};
pub use open::MetadataOpenError;
use queue::Queue;

openraft::declare_raft_types!(
    /// The types of our Raft group.
    pub(crate) TypeConfig:
        D = entry::Batch,
        R = Vec<CommandResult>,
        NodeId = u64,
        Node = BasicNode,
        SnapshotData = Cursor<Vec<u8>>,
);

/// What bounds the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Entries between two snapshots: bounds the replay at the start.
    pub(crate) snapshot_entries: u64,
    /// Bytes of log between two snapshots: bounds the log on disk and in memory.
    pub(crate) snapshot_log_bytes: usize,
    /// A log file that has this many bytes is followed by another.
    pub(crate) file_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { snapshot_entries: 2_000, snapshot_log_bytes: 16 << 20, file_bytes: 8 << 20 }
    }
}

/// How long the single voter may take to lead and apply its log when the store opens.
const OPENING_PATIENCE: Duration = Duration::from_secs(60);

/// See the module's head.
pub struct RaftStore {
    queue: Queue,
    images: watch::Receiver<Arc<Image>>,
}

impl RaftStore {
    /// Opens the store in a directory, which is formatted when it is new and locked while it is open.
    ///
    /// # Errors
    /// [`MetadataOpenError`].
    pub async fn open(env: Env, dir: PathBuf, node: BrokerId) -> Result<RaftStore, MetadataOpenError> {
        RaftStore::open_with(env, dir, node, Limits::default()).await
    }

    /// Opens the store with other limits.
    pub(crate) async fn open_with(
        env: Env,
        dir: PathBuf,
        node: BrokerId,
        limits: Limits,
    ) -> Result<RaftStore, MetadataOpenError> {
        let id = u64::try_from(node.0);
        let id = id.map_err(|_| MetadataOpenError::Raft(format!("node.id {node} is negative")))?;
        let opening = env.clone();
        let (home, log, machine) =
            env.blocking(move || open::open_parts(&opening, &dir, node, limits)).await?;
        let images = machine.subscribe();
        let last = log.last_index();
        let raft = Raft::new(id, raft_config(limits)?, NoPeers, log.clone(), machine).await;
        let raft = raft.map_err(|error| open::of_raft(&home, &error))?;
        lead(&raft, &home, id, last).await?;
        let store = RaftStore { queue: Queue::new(raft, log, home.clone()), images };
        if store.image().cluster_id.is_zero() {
            let command = Command::Bootstrap { cluster_id: env.random_uuid() };
            store.propose(command).await.map_err(|error| open::of_raft(&home, &error))?;
        }
        home.enter(Phase::Serving);
        Ok(store)
    }
}

fn raft_config(limits: Limits) -> Result<Arc<openraft::Config>, MetadataOpenError> {
    let config = openraft::Config {
        cluster_name: "vltava".to_owned(),
        enable_tick: false,
        enable_heartbeat: false,
        enable_elect: false,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(limits.snapshot_entries),
        // Nobody follows the log, so what a snapshot covers is not needed.
        max_in_snapshot_log_to_keep: 0,
        ..openraft::Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| MetadataOpenError::Raft(error.to_string()))
}

/// Makes the single voter lead and waits until it has applied its log, up to `last` at least.
async fn lead(
    raft: &Raft<TypeConfig>,
    home: &Home,
    id: u64,
    last: Option<u64>,
) -> Result<(), MetadataOpenError> {
    if raft.is_initialized().await.map_err(|error| open::of_raft(home, &error))? {
        raft.trigger().elect().await.map_err(|error| open::of_raft(home, &error))?;
    } else {
        let members = BTreeMap::from([(id, BasicNode::default())]);
        raft.initialize(members).await.map_err(|error| open::of_raft(home, &error))?;
    }
    let wait = raft.wait(Some(OPENING_PATIENCE));
    let leads = wait.metrics(
        |metrics| {
            let applied = metrics.last_applied.map(|applied| applied.index);
            metrics.current_leader == Some(id) && applied >= last && applied == metrics.last_log_index
        },
        "the single voter leads and has applied its log",
    );
    leads.await.map(drop).map_err(|error| open::of_raft(home, &error))
}

impl MetadataStore for RaftStore {
    fn image(&self) -> Arc<Image> {
        self.images.borrow().clone()
    }

    fn propose(&self, command: Command) -> BoxFuture<'_, Result<CommandResult, ProposeError>> {
        let encoded = encode_command(&command);
        let receiver = check_length(&encoded).and_then(|()| self.queue.push(encoded));
        Box::pin(async move {
            let gone = |_| Err(ProposeError::Unavailable("it was shut down".to_owned()));
            receiver?.await.unwrap_or_else(gone)
        })
    }

    fn subscribe(&self) -> watch::Receiver<Arc<Image>> {
        self.images.clone()
    }

    fn problem(&self) -> Option<String> {
        self.queue.home.problem()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        let Queue { raft, log, home, .. } = &self.queue;
        Box::pin(async move {
            home.enter(Phase::Ending);
            if let Err(error) = raft.shutdown().await {
                tracing::warn!(%error, "the metadata log did not end cleanly");
            }
            // A snapshot under way is finished; none begins after this.
            drop(home.building.lock().await);
            if home.failure().is_none()
                && let Err(error) = log.finish().await
            {
                tracing::warn!(%error, "the metadata log's end is not marked as clean");
            }
            home.unlock();
        })
    }
}

impl Drop for RaftStore {
    fn drop(&mut self) {
        self.queue.home.enter(Phase::Ending);
    }
}

/// The network of a group of one.
struct NoPeers;

impl openraft::RaftNetworkFactory<TypeConfig> for NoPeers {
    type Network = NoPeers;

    async fn new_client(&mut self, _: u64, _: &BasicNode) -> NoPeers {
        NoPeers
    }
}

mod no_peers {
    //! Every call to a peer fails: there are none.

    use openraft::BasicNode;
    use openraft::error::{InstallSnapshotError, RPCError, RaftError, Unreachable};
    use openraft::network::{RPCOption, RaftNetwork};
    use openraft::raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    };

    use super::{NoPeers, TypeConfig};

    fn unreachable() -> Unreachable {
        Unreachable::new(&std::io::Error::new(std::io::ErrorKind::NotConnected, "this group has one voter"))
    }

    impl RaftNetwork<TypeConfig> for NoPeers {
        async fn append_entries(
            &mut self,
            _: AppendEntriesRequest<TypeConfig>,
            _: RPCOption,
        ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
            Err(RPCError::Unreachable(unreachable()))
        }

        async fn install_snapshot(
            &mut self,
            _: InstallSnapshotRequest<TypeConfig>,
            _: RPCOption,
        ) -> Result<
            InstallSnapshotResponse<u64>,
            RPCError<u64, BasicNode, RaftError<u64, InstallSnapshotError>>,
        > {
            Err(RPCError::Unreachable(unreachable()))
        }

        async fn vote(
            &mut self,
            _: VoteRequest<u64>,
            _: RPCOption,
        ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
            Err(RPCError::Unreachable(unreachable()))
        }
    }
}

#[cfg(test)]
mod tests {
    use base::env::sim::Sim;

    use super::*;

    #[test]
    fn a_command_of_a_later_version_stops_the_store_and_says_which_to_start() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let sim = Sim::new(1);
            let open = || RaftStore::open(sim.env.clone(), PathBuf::from("/metadata"), BrokerId(1));
            let store = open().await.unwrap();
            // Field 1000: a kind of command that is not known.
            let answer = store.queue.push(vec![0xc2, 0x3e, 0]).unwrap().await.unwrap();
            let said = answer.unwrap_err().to_string();
            assert!(said.contains("cannot be applied") && said.contains("start the version"), "{said}");
            store.shutdown().await;
            drop(store);
            sim.disk.kill();
            let said = open().await.err().unwrap().to_string();
            assert!(said.contains("entry") && said.contains("start the version that wrote it"), "{said}");
        });
    }
}
