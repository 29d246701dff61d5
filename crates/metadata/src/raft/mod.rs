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

mod answer;
mod beats;
mod entry;
mod feed;
mod follower;
mod group;
mod home;
mod identity;
mod journal;
mod lead;
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
use base::ids::{BrokerId, Incarnation};
use openraft::{BasicNode, Raft, SnapshotPolicy};

use crate::command::{Command, CommandResult};
use crate::image::Image;
use crate::sessions::{NO_CONNECTION, Sessions};
use crate::store::{MetadataStore, ProposeError, QuorumState, VoterState};
use crate::watch;
use answer::Host;
use beats::Beats;
use entry::Batch;
pub use follower::FollowerStore;
use group::Group;
pub use group::Quorum;
use home::{Home, Phase};
use lead::Lead;
use log_store::LogStore;
pub use open::MetadataOpenError;
use peers::Speaker;
use queue::{Queue, Sink};

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
    /// Applied entries kept for nodes that follow, each as large as it is.
    pub(crate) feed_entries: usize,
    /// A log file that has this many bytes is followed by another.
    pub(crate) file_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            snapshot_entries: 2_000,
            snapshot_log_bytes: 16 << 20,
            file_bytes: 8 << 20,
            feed_entries: 10_000,
        }
    }
}

/// Between two signs of life of the leader, ms.
const HEARTBEAT_INTERVAL_MS: u64 = 50;
/// Without a sign of life of the leader another voter stands for election after twice this or up to four times as long,
/// ms: openraft first waits until the lease of the leader is over, which is as long as the time-out.
const ELECTION_TIMEOUT_MIN_MS: u64 = 200;
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
    parts: Arc<Parts>,
    images: watch::Receiver<Arc<Image>>,
    lead: Arc<Lead>,
    /// To the other voters.
    beats: Arc<Beats>,
    /// Tells the tasks that serve others.
    ended: watch::Sender<bool>,
}

/// What writes the log.
struct Parts {
    raft: Raft<TypeConfig>,
    log: LogStore,
    home: Arc<Home>,
    /// The other voters, if there are any.
    group: Option<Group>,
}

impl Sink for Parts {
    fn has_ended(&self) -> bool {
        self.home.phase() == Phase::Ending
    }

    fn write(&self, batch: Batch) -> BoxFuture<'_, Result<Vec<CommandResult>, String>> {
        Box::pin(async move {
            let written = match &self.group {
                Some(group) => group.write(&self.raft, batch).await,
                None => {
                    let written = self.raft.client_write(batch).await;
                    written.map(|response| response.data).map_err(|error| error.to_string())
                }
            };
            if self.log.bytes() >= self.home.limits.snapshot_log_bytes {
                // Ignored while one is built; fails only when the store has stopped, which the next write tells.
                let _ = self.raft.trigger().snapshot().await;
            }
            written.map_err(|error| self.home.failure().map_or(error, |failure| failure.text))
        })
    }
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
        let leader = self.parts.raft.metrics().borrow().current_leader?;
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
        let id = raft_id(node)?;
        let voters = voters_of(id, quorum.as_ref())?;
        let opening = (env.clone(), voters.keys().copied().collect());
        let (home, log, mut machine) =
            env.blocking(move || open::open_parts(&opening.0, &dir, node, &opening.1, limits)).await?;
        let images = machine.subscribe();
        let last = log.last_index();
        let config = raft_config(limits, quorum.is_some(), &env)?;
        let speaker =
            Speaker { env: env.clone(), node: id, images: images.clone(), voters: Arc::new(voters.clone()) };
        let shared = quorum.as_ref().map(|_| machine.share());
        let group = shared.as_ref().map(|shared| Group::new(speaker.clone(), shared.results.clone()));
        let raft = Raft::new(id, config, speaker.clone(), log.clone(), machine).await;
        let raft = raft.map_err(|error| open::of_raft(&home, &error))?;
        let ended = watch::Sender::new(false);
        let parts = Arc::new(Parts { raft: raft.clone(), log, home: home.clone(), group });
        let store = RaftStore {
            queue: Queue::new(parts.clone()),
            parts,
            images,
            lead: Arc::new(Lead::new(env.clock.clone(), id, quorum.is_some())),
            beats: Beats::new(speaker.clone(), ended.subscribe()),
            ended,
        };
        store.beats.set_voters(voters);
        match (&quorum, shared) {
            (Some(quorum), Some(shared)) => {
                let listener = env.network.listen(quorum.listen).await;
                let listener = listener.map_err(|error| MetadataOpenError::Listen(quorum.listen, error))?;
                tokio::spawn(store.lead.clone().watch(raft.clone(), store.ended.subscribe()));
                let host = Host::new(speaker, raft, store.lead.clone(), shared.feed);
                tokio::spawn(Arc::new(host).serve(listener, store.ended.subscribe()));
                store.wait_for_leader(quorum).await?;
            }
            _ => elect(&raft, &home, id, last).await?,
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
        let Parts { raft, home, .. } = &*self.parts;
        let fail = |error: &dyn std::fmt::Display| open::of_raft(home, error);
        if !raft.is_initialized().await.map_err(|error| fail(&error))? {
            let members = self.beats.voters();
            let members = members.into_iter().map(|(id, addr)| (id, BasicNode { addr }));
            let members: BTreeMap<u64, BasicNode> = members.collect();
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

fn raft_id(node: BrokerId) -> Result<u64, MetadataOpenError> {
    u64::try_from(node.0).map_err(|_| MetadataOpenError::Raft(format!("node.id {node} is negative")))
}

/// The voters and where they are; `id` alone without others.
fn voters_of(id: u64, quorum: Option<&Quorum>) -> Result<BTreeMap<u64, String>, MetadataOpenError> {
    let Some(quorum) = quorum else { return Ok(BTreeMap::from([(id, String::new())])) };
    quorum.voters.iter().map(|(voter, address)| Ok((raft_id(*voter)?, address.clone()))).collect()
}

fn raft_config(
    limits: Limits,
    has_peers: bool,
    env: &Env,
) -> Result<Arc<openraft::Config>, MetadataOpenError> {
    // openraft draws the time-out once, from this range; drawn here, a simulated run follows from its seed.
    let drawn = if has_peers { env.random.next_u64() % ELECTION_TIMEOUT_MIN_MS } else { 0 };
    let election_timeout_min = ELECTION_TIMEOUT_MIN_MS + drawn;
    let config = openraft::Config {
        cluster_name: "vltava".to_owned(),
        enable_tick: has_peers,
        enable_heartbeat: has_peers,
        enable_elect: has_peers,
        heartbeat_interval: HEARTBEAT_INTERVAL_MS,
        election_timeout_min,
        election_timeout_max: election_timeout_min + 1,
        install_snapshot_timeout: INSTALL_SNAPSHOT_TIMEOUT_MS,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(limits.snapshot_entries),
        // Where nobody follows the log, what a snapshot covers is not needed.
        max_in_snapshot_log_to_keep: if has_peers { limits.snapshot_entries / 2 } else { 0 },
        ..openraft::Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| MetadataOpenError::Raft(error.to_string()))
}

/// Makes the single voter lead and waits until it has applied its log, up to `last` at least.
async fn elect(
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
        self.queue.propose(&command)
    }

    fn subscribe(&self) -> watch::Receiver<Arc<Image>> {
        self.images.clone()
    }

    fn problem(&self) -> Option<String> {
        self.parts.home.problem().or_else(|| self.lead.problem())
    }

    fn controller(&self) -> Option<BrokerId> {
        let leader = self.lead.leader(&self.parts.raft)?;
        i32::try_from(leader).ok().map(BrokerId)
    }

    fn quorum(&self) -> QuorumState {
        let metrics = self.parts.raft.metrics().borrow().clone();
        let addresses = self.beats.voters();
        let end = |index: Option<u64>| index.map_or(0, |index| index + 1);
        let voter = |id: u64| {
            let log_end = if id == metrics.id {
                Some(end(metrics.last_log_index))
            } else {
                let followers = metrics.replication.as_ref();
                followers.and_then(|ends| ends.get(&id)).map(|last| end(last.map(|last| last.index)))
            };
            let address = addresses.get(&id).filter(|address| !address.is_empty()).cloned();
            Some(VoterState { id: BrokerId(i32::try_from(id).ok()?), address, log_end })
        };
        QuorumState {
            leader: self.controller(),
            term: Some(metrics.current_term),
            applied: end(metrics.last_applied.map(|applied| applied.index)),
            voters: metrics.membership_config.membership().voter_ids().filter_map(voter).collect(),
        }
    }

    fn heartbeat(
        &self,
        broker: BrokerId,
        incarnation: Incarnation,
    ) -> BoxFuture<'_, Result<(), ProposeError>> {
        self.lead.table.lock().note(broker, incarnation, NO_CONNECTION, self.lead.now());
        Box::pin(self.beats.beat(broker, incarnation))
    }

    fn sessions(&self) -> Option<Sessions> {
        self.lead.table.lock().sessions(self.lead.now())
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        let Parts { raft, log, home, .. } = &*self.parts;
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
        self.parts.home.enter(Phase::Ending);
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
