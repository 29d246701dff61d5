//! The durable metadata store: one Raft group, today of one voter.
//!
//! ```text
//!  propose ─► edits of chains that meet are merged ─► openraft ─► journal (fsync) ─► state machine ─► image
//! ```
//!
//! openraft runs with one voter and no timers: the voter is made leader when the store opens. The log is a
//! [`journal`] of our own; a snapshot is an image in one file, replaced as a whole. Nothing outside this
//! module knows openraft.

mod entry;
mod journal;
mod log_store;
mod machine;

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::env::{BoxFuture, Env};
use base::ids::BrokerId;
use openraft::{BasicNode, Raft, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::command::{ChainEdit, Command, CommandResult};
use crate::image::Image;
use crate::store::{MetadataStore, ProposeError};
use journal::JournalError;
use log_store::LogStore;
use machine::Machine;

openraft::declare_raft_types!(
    /// The types of our Raft group.
    pub(crate) TypeConfig:
        D = Command,
        R = CommandResult,
        NodeId = u64,
        Node = BasicNode,
        SnapshotData = Cursor<Vec<u8>>,
);

/// What the file `format` must hold.
const FORMAT: &[u8] = b"vltava metadata format 1\n";
/// Entries between two snapshots: bounds the log on disk and in memory, and the replay at the start.
const SNAPSHOT_ENTRIES: u64 = 2_000;
/// Entries kept behind a snapshot.
const ENTRIES_KEPT: u64 = 100;
/// Edits that ride in one entry at most.
const EDITS_MERGED_MAX: usize = 20_000;
/// How long the single voter may take to lead and apply its log when the store opens.
const OPENING_PATIENCE: Duration = Duration::from_secs(60);
/// Longest small file (vote, format).
const SMALL_FILE_BYTES_MAX: usize = 4_096;
/// Longest snapshot.
const SNAPSHOT_BYTES_MAX: usize = 1 << 30;

/// Why a metadata directory cannot be opened; says how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum MetadataOpenError {
    /// The directory was written by another version.
    #[error(
        "{dir} has another metadata format ({found:?}); start the version that wrote it, or point to an empty directory"
    )]
    Format {
        /// The directory.
        dir: PathBuf,
        /// What its format file says.
        found: String,
    },
    /// A file is damaged.
    #[error(
        "the metadata in {dir} cannot be read: {what}; restore the directory from a copy, nothing in it was changed"
    )]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What and where.
        what: String,
    },
    /// The operating system refused something.
    #[error("the metadata directory {dir} cannot be used: {source}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The Raft library failed.
    #[error("the metadata log does not start: {0}")]
    Raft(String),
}

/// See the module's head.
pub struct RaftStore {
    raft: Raft<TypeConfig>,
    images: watch::Receiver<Arc<Image>>,
    edits: Arc<Mutex<Merging>>,
}

/// Edits that wait for the entry under way.
#[derive(Default)]
struct Merging {
    waiting: Vec<(Vec<ChainEdit>, oneshot::Sender<Result<CommandResult, ProposeError>>)>,
    running: bool,
}

impl RaftStore {
    /// Opens the store in a directory, which is formatted when it is new.
    ///
    /// # Errors
    /// [`MetadataOpenError`].
    pub async fn open(env: Env, dir: PathBuf, node: BrokerId) -> Result<RaftStore, MetadataOpenError> {
        let opening = (env.clone(), dir.clone());
        let (log, machine) = env
            .blocking(move || {
                let (env, dir) = opening;
                check_format(&env, &dir)?;
                let log = LogStore::open(&env, &dir).map_err(|error| open_error(&dir, error))?;
                let machine = Machine::open(&env, &dir)?;
                Ok::<_, MetadataOpenError>((log, machine))
            })
            .await?;
        let images = machine.subscribe();
        let last = log.last_index();
        let config = openraft::Config {
            cluster_name: "vltava".to_owned(),
            enable_tick: false,
            enable_heartbeat: false,
            enable_elect: false,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
            max_in_snapshot_log_to_keep: ENTRIES_KEPT,
            ..openraft::Config::default()
        };
        let failed = |error: String| MetadataOpenError::Raft(error);
        let config = Arc::new(config.validate().map_err(|error| failed(error.to_string()))?);
        let id = u64::try_from(node.0).map_err(|_| failed(format!("node.id {node} is negative")))?;
        let raft = Raft::new(id, config, NoPeers, log, machine).await.map_err(|error| failed(error.to_string()))?;
        if raft.is_initialized().await.map_err(|error| failed(error.to_string()))? {
            raft.trigger().elect().await.map_err(|error| failed(error.to_string()))?;
        } else {
            let members = std::collections::BTreeMap::from([(id, BasicNode::default())]);
            raft.initialize(members).await.map_err(|error| failed(error.to_string()))?;
        }
        let wait = raft.wait(Some(OPENING_PATIENCE));
        wait.metrics(
            |metrics| {
                metrics.current_leader == Some(id)
                    && metrics.last_applied.map(|applied| applied.index) >= last
                    && metrics.last_applied.map(|applied| applied.index) == metrics.last_log_index
            },
            "the single voter leads and has applied its log",
        )
        .await
        .map_err(|error| failed(error.to_string()))?;
        let store = RaftStore { raft, images, edits: Arc::default() };
        if store.image().cluster_id.is_zero() {
            let command = Command::Bootstrap { cluster_id: env.random_uuid() };
            store.propose(command).await.map_err(|error| failed(error.to_string()))?;
        }
        Ok(store)
    }

    /// Queues edits and sees to it that they are proposed together with what else has arrived.
    async fn merged(&self, edits: Vec<ChainEdit>) -> Result<CommandResult, ProposeError> {
        let (answer, receiver) = oneshot::channel();
        let start = {
            let mut merging = self.edits.lock();
            merging.waiting.push((edits, answer));
            !std::mem::replace(&mut merging.running, true)
        };
        if start {
            tokio::spawn(propose_merged(self.raft.clone(), self.edits.clone()));
        }
        receiver.await.unwrap_or_else(|_| Err(ProposeError::Unavailable("it was shut down".to_owned())))
    }
}

/// Proposes waiting edits, entry by entry, until none wait.
async fn propose_merged(raft: Raft<TypeConfig>, merging: Arc<Mutex<Merging>>) {
    loop {
        let batch = {
            let mut merging = merging.lock();
            let count = merging.waiting.len().min(EDITS_MERGED_MAX);
            let batch: Vec<_> = merging.waiting.drain(..count).collect();
            merging.running = !batch.is_empty();
            batch
        };
        if batch.is_empty() {
            return;
        }
        let (edits, answers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let counts: Vec<usize> = edits.iter().map(Vec::len).collect();
        let result = write(&raft, Command::Edit(edits.into_iter().flatten().collect())).await;
        let mut chains = match result {
            Ok(CommandResult::Chains(chains)) => chains.into_iter(),
            other => {
                for answer in answers {
                    // Who asked may have gone away; then nobody wants the answer.
                    let _ = answer.send(other.clone());
                }
                continue;
            }
        };
        for (answer, count) in answers.into_iter().zip(counts) {
            let _ = answer.send(Ok(CommandResult::Chains(chains.by_ref().take(count).collect())));
        }
    }
}

async fn write(raft: &Raft<TypeConfig>, command: Command) -> Result<CommandResult, ProposeError> {
    match raft.client_write(command).await {
        Ok(response) => Ok(response.data),
        Err(error) => Err(ProposeError::Unavailable(error.to_string())),
    }
}

impl MetadataStore for RaftStore {
    fn image(&self) -> Arc<Image> {
        self.images.borrow().clone()
    }

    fn propose(&self, command: Command) -> BoxFuture<'_, Result<CommandResult, ProposeError>> {
        Box::pin(async move {
            match command {
                Command::Edit(edits) => self.merged(edits).await,
                command => {
                    // A task of its own: the command is applied even if the caller goes away.
                    let raft = self.raft.clone();
                    let task = tokio::spawn(async move { write(&raft, command).await });
                    task.await.unwrap_or_else(|error| Err(ProposeError::Unavailable(error.to_string())))
                }
            }
        })
    }

    fn subscribe(&self) -> watch::Receiver<Arc<Image>> {
        self.images.clone()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.raft.shutdown().await {
                tracing::warn!(%error, "the metadata log did not end cleanly");
            }
        })
    }
}

fn check_format(env: &Env, dir: &Path) -> Result<(), MetadataOpenError> {
    let fail = |source| MetadataOpenError::Io { dir: dir.to_owned(), source };
    env.disk.create_dir_all(dir).map_err(fail)?;
    let path = dir.join("format");
    if env.disk.exists(&path) {
        let found = env.disk.read(&path, SMALL_FILE_BYTES_MAX).map_err(fail)?;
        if found != FORMAT {
            let found = String::from_utf8_lossy(&found).trim().chars().take(80).collect();
            return Err(MetadataOpenError::Format { dir: dir.to_owned(), found });
        }
        return Ok(());
    }
    if env.disk.read_dir(dir).map_err(fail)?.iter().any(|entry| entry.name.ends_with(".log")) {
        let found = "no format file".to_owned();
        return Err(MetadataOpenError::Format { dir: dir.to_owned(), found });
    }
    env.disk.replace(&path, FORMAT).map_err(fail)
}

fn open_error(dir: &Path, error: JournalError) -> MetadataOpenError {
    match error {
        JournalError::Io { source, .. } => MetadataOpenError::Io { dir: dir.to_owned(), source },
        damaged => MetadataOpenError::Damaged { dir: dir.to_owned(), what: damaged.to_string() },
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
        ) -> Result<InstallSnapshotResponse<u64>, RPCError<u64, BasicNode, RaftError<u64, InstallSnapshotError>>>
        {
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
