//! The durable metadata store: one Raft group of one voter or several.
//!
//! ```text
//!  propose ─► queue (what waits rides together) ─► openraft ─► journal (fsync) ─► state machine ─► image
//! ```
//!
//! A single voter runs without timers and is made leader when the store opens. Several elect one; the others give it
//! their commands ([`group`]) and apply the same entries. The log is a [`journal`] of our own; a snapshot is an image in
//! one file, replaced as a whole. Nothing outside this module knows openraft.
//!
//! Invariants: an answered command survives power loss; a full disk delays, any other failed write or sync
//! stops the store for good, because nobody knows what the disk holds then.

mod entry;
mod group;
mod home;
mod journal;
mod log_store;
mod machine;
mod messages;
mod open;
mod peers;
mod queue;
mod results;

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
use group::Group;
pub use group::Quorum;
use home::{Home, Phase};
pub use open::MetadataOpenError;
use peers::Speaker;
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

/// Between two signs of life of the leader, ms.
const HEARTBEAT_INTERVAL_MS: u64 = 100;
/// Without a sign of life of the leader another voter stands for election after this or up to twice as long, ms.
const ELECTION_TIMEOUT_MIN_MS: u64 = 400;
/// Time for a part of a snapshot, ms.
const INSTALL_SNAPSHOT_TIMEOUT_MS: u64 = 5_000;
/// Pause before a new cluster's id is proposed again.
const BOOTSTRAP_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often it is told that nobody leads.
const LEADER_WAIT: Duration = Duration::from_secs(5);

/// How long the single voter may take to lead and apply its log when the store opens.
const OPENING_PATIENCE: Duration = Duration::from_secs(60);

/// See the module's head.
pub struct RaftStore {
    queue: Queue,
    images: watch::Receiver<Arc<Image>>,
    /// Tells the tasks that serve other voters.
    ended: watch::Sender<bool>,
}

impl RaftStore {
    /// Opens the store in a directory, which is formatted when it is new and locked while it is open.
    ///
    /// # Errors
    /// [`MetadataOpenError`].
    pub async fn open(env: Env, dir: PathBuf, node: BrokerId) -> Result<RaftStore, MetadataOpenError> {
        RaftStore::open_with(env, dir, node, Limits::default(), None).await
    }

    /// Opens the store of one of several voters; returns when one of them leads. Until then a majority of the others is
    /// waited for.
    ///
    /// # Errors
    /// [`MetadataOpenError`].
    pub async fn join(
        env: Env,
        dir: PathBuf,
        node: BrokerId,
        quorum: Quorum,
    ) -> Result<RaftStore, MetadataOpenError> {
        RaftStore::open_with(env, dir, node, Limits::default(), Some(quorum)).await
    }

    /// Who leads, as far as this node knows.
    pub fn leader(&self) -> Option<BrokerId> {
        let leader = self.queue.raft.metrics().borrow().current_leader?;
        i32::try_from(leader).ok().map(BrokerId)
    }

    /// Opens the store with other limits.
    pub(crate) async fn open_with(
        env: Env,
        dir: PathBuf,
        node: BrokerId,
        limits: Limits,
        quorum: Option<Quorum>,
    ) -> Result<RaftStore, MetadataOpenError> {
        let id = u64::try_from(node.0);
        let id = id.map_err(|_| MetadataOpenError::Raft(format!("node.id {node} is negative")))?;
        let opening = env.clone();
        let (home, log, mut machine) =
            env.blocking(move || open::open_parts(&opening, &dir, node, limits)).await?;
        let images = machine.subscribe();
        let last = log.last_index();
        let config = raft_config(limits, quorum.is_some())?;
        let voters = quorum.iter().flat_map(|quorum| quorum.voters.keys());
        let voters = Arc::new(voters.filter_map(|voter| u64::try_from(voter.0).ok()).collect());
        let speaker = Speaker { env: env.clone(), node: id, images: images.clone(), voters };
        let group = quorum.as_ref().map(|_| Arc::new(Group::new(speaker.clone(), machine.keep_results())));
        let raft = Raft::new(id, config, speaker.clone(), log.clone(), machine).await;
        let raft = raft.map_err(|error| open::of_raft(&home, &error))?;
        let store = RaftStore {
            queue: Queue::new(raft.clone(), log, home.clone(), group),
            images,
            ended: watch::Sender::new(false),
        };
        match &quorum {
            None => lead(&raft, &home, id, last).await?,
            Some(quorum) => {
                let listener = env.network.listen(quorum.listen).await;
                let listener = listener.map_err(|error| MetadataOpenError::Listen(quorum.listen, error))?;
                tokio::spawn(peers::serve(speaker, listener, raft.clone(), store.ended.subscribe()));
                store.wait_for_leader(quorum).await?;
            }
        }
        while store.image().cluster_id.is_zero() {
            let command = Command::Bootstrap { cluster_id: env.random_uuid() };
            let done = store.propose(command).await;
            if let Err(error) = done {
                if quorum.is_none() || home.failure().is_some() {
                    return Err(open::of_raft(&home, &error));
                }
                tracing::warn!(%error, "the cluster has no id yet: trying again");
                env.clock.sleep(BOOTSTRAP_AGAIN_AFTER).await;
            }
        }
        home.enter(Phase::Serving);
        Ok(store)
    }

    /// Waits until one of several voters leads.
    async fn wait_for_leader(&self, quorum: &Quorum) -> Result<(), MetadataOpenError> {
        let Queue { raft, home, .. } = &self.queue;
        let fail = |error: &dyn std::fmt::Display| open::of_raft(home, error);
        if !raft.is_initialized().await.map_err(|error| fail(&error))? {
            let member = |(id, address): (&BrokerId, &String)| {
                u64::try_from(id.0).map(|id| (id, BasicNode { addr: address.clone() }))
            };
            let members: Result<BTreeMap<u64, BasicNode>, _> = quorum.voters.iter().map(member).collect();
            let members = members.map_err(|_| fail(&"the id of a voter is negative"))?;
            // All do so with the same members; who is late finds that it was done.
            if let Err(error) = raft.initialize(members).await {
                tracing::debug!(%error, "the metadata log was begun by another controller");
            }
        }
        loop {
            let wait = raft.wait(Some(LEADER_WAIT));
            match wait.metrics(|metrics| metrics.current_leader.is_some(), "a controller leads").await {
                Ok(_) => return Ok(()),
                Err(openraft::metrics::WaitError::Timeout(..)) => {
                    let voters: Vec<String> =
                        quorum.voters.iter().map(|(id, address)| format!("{id}@{address}")).collect();
                    let voters = voters.join(", ");
                    tracing::warn!(voters, "no controller leads yet: waiting for a majority of them");
                }
                Err(error) => return Err(fail(&error)),
            }
        }
    }
}

fn raft_config(limits: Limits, has_peers: bool) -> Result<Arc<openraft::Config>, MetadataOpenError> {
    let config = openraft::Config {
        cluster_name: "vltava".to_owned(),
        enable_tick: has_peers,
        enable_heartbeat: has_peers,
        enable_elect: has_peers,
        heartbeat_interval: HEARTBEAT_INTERVAL_MS,
        election_timeout_min: ELECTION_TIMEOUT_MIN_MS,
        election_timeout_max: 2 * ELECTION_TIMEOUT_MIN_MS,
        install_snapshot_timeout: INSTALL_SNAPSHOT_TIMEOUT_MS,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(limits.snapshot_entries),
        // Where nobody follows the log, what a snapshot covers is not needed.
        max_in_snapshot_log_to_keep: if has_peers { limits.snapshot_entries / 2 } else { 0 },
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
            self.ended.send_replace(true);
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
        self.ended.send_replace(true);
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
