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
use std::io::{self, Cursor};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::env::{BoxFuture, Env, Stream};
use base::ids::{BrokerId, Incarnation};
use openraft::{BasicNode, Raft, SnapshotPolicy};

use crate::command::{Command, CommandResult, MetadataVersions};
use crate::image::Image;
use crate::sessions::{NO_CONNECTION, Sessions};
use crate::store::{MetadataStore, ProposeError, QuorumState, VoterState};
use crate::watch;
use answer::Host;
pub(crate) use answer::refuse;
use beats::Beats;
use entry::Batch;
pub use follower::{FollowerStore, allocate_node_id};
use group::Group;
pub use group::Quorum;
use home::{Home, Phase};
use lead::Lead;
use log_store::LogStore;
pub use open::MetadataOpenError;
pub use peers::NODE_MAGIC;
use peers::Speaker;
use queue::{Queue, Sink};

openraft::declare_raft_types!(
    /// The types of our Raft group.
    pub(crate) TypeConfig:
        D = entry::Batch,
        R = Option<Vec<CommandResult>>,
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
    /// Answers other nodes.
    host: Arc<Host>,
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
                    let written = written.map_err(|error| error.to_string());
                    written.and_then(|response| response.data.ok_or_else(|| group::FORGOTTEN.to_owned()))
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
        let (home, log, machine) =
            env.blocking(move || open::open_parts(&opening.0, &dir, node, &opening.1, limits)).await?;
        let images = machine.subscribe();
        let last = log.last_index();
        let has_peers = voters.len() > 1;
        let config = raft_config(limits, has_peers, &env)?;
        let speaker =
            Speaker { env: env.clone(), node: id, images: images.clone(), voters: Arc::new(voters.clone()) };
        let shared = machine.shared();
        let group = has_peers.then(|| Group::new(speaker.clone(), shared.results));
        let raft = Raft::new(id, config, speaker.clone(), log.clone(), machine).await;
        let raft = raft.map_err(|error| open::of_raft(&home, &error))?;
        let ended = watch::Sender::new(false);
        let parts = Arc::new(Parts { raft: raft.clone(), log, home: home.clone(), group });
        let lead = Arc::new(Lead::new(env.clock.clone(), id, has_peers));
        let store = RaftStore {
            queue: Queue::new(parts.clone(), has_peers.then(|| env.random_uuid())),
            parts,
            images,
            beats: Beats::new(speaker.clone(), ended.subscribe()),
            host: Arc::new(Host::new(speaker, raft.clone(), lead.clone(), shared.feed)),
            lead,
            ended,
        };
        store.beats.set_voters(voters);
        if let Some(Quorum { listen, .. }) = quorum {
            let listener = env.network.listen(listen).await;
            let listener = listener.map_err(|error| MetadataOpenError::Listen(listen, error))?;
            tokio::spawn(store.host.clone().serve(listener, store.ended.subscribe()));
        }
        match quorum.filter(|_| has_peers) {
            Some(quorum) => {
                tokio::spawn(store.lead.clone().watch(raft, store.ended.subscribe()));
                store.wait_for_leader(&quorum).await?;
            }
            None => elect(&raft, &home, id, last).await?,
        }
        store.name_cluster(&env, has_peers).await?;
        home.enter(Phase::Serving);
        Ok(store)
    }

    /// Gives a new cluster its id.
    async fn name_cluster(&self, env: &Env, has_peers: bool) -> Result<(), MetadataOpenError> {
        let home = &self.parts.home;
        while self.image().cluster_id.is_zero() {
            let metadata_version = MetadataVersions::SUPPORTED.max;
            let command = Command::FormatCluster { cluster_id: env.random_uuid(), metadata_version };
            if let Err(error) = self.propose(command).await {
                if !has_peers || home.failure().is_some() {
                    return Err(open::of_raft(home, &error));
                }
                tracing::warn!(%error, "the cluster has no id yet: trying again");
                env.clock.sleep(BOOTSTRAP_AGAIN_AFTER).await;
            }
        }
        Ok(())
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
        let ends = answer::ends(&metrics);
        let voter = |id: u64| {
            let log_end = ends.get(&id).copied();
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

    fn ask_quorum(&self) -> BoxFuture<'_, QuorumState> {
        let known = self.quorum();
        Box::pin(async move {
            match &self.parts.group {
                Some(group) => group.ask_ends(known, &self.beats.voters()).await,
                None => known,
            }
        })
    }

    fn heartbeat(
        &self,
        broker: BrokerId,
        incarnation: Incarnation,
    ) -> BoxFuture<'_, Result<(), ProposeError>> {
        self.lead.table.lock().note(broker, incarnation, NO_CONNECTION, self.lead.now());
        Box::pin(self.beats.beat(broker, incarnation))
    }

    fn serve_node(&self, stream: Box<dyn Stream>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(self.host.clone().serve_node(stream, self.ended.subscribe()))
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
    use base::env::sim::{CrashPolicy, Sim};

    use super::*;
    use crate::proposals::ProposalId;
    use crate::record::encode_command;

    async fn voters(sim: &Sim, limits: Limits) -> Vec<RaftStore> {
        let address = |node: i32| format!("127.0.0.1:{}", 9_090 + node);
        let voter = |node: i32| {
            let quorum = Quorum {
                listen: address(node).parse().expect("an address"),
                voters: (1..=3).map(|id| (BrokerId(id), address(id))).collect(),
            };
            let dir = PathBuf::from(format!("/metadata-{node}"));
            RaftStore::open_with(sim.env.clone(), dir, BrokerId(node), limits, Some(quorum))
        };
        let opened = futures::future::join_all((1..=3).map(voter)).await;
        opened.into_iter().map(|store| store.expect("a store")).collect()
    }

    async fn write(store: &RaftStore, batch: &Batch) -> Result<Vec<CommandResult>, String> {
        let Parts { raft, group, .. } = &*store.parts;
        group.as_ref().expect("there are others").write(raft, batch.clone()).await
    }

    #[test]
    fn a_proposal_that_two_leaders_were_given_is_applied_once_and_answered_alike() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            for seed in 0..4 {
                let sim = Sim::new(seed);
                let limits = Limits { snapshot_entries: 5 + 200 * (seed % 2), ..Limits::default() };
                let stores = voters(&sim, limits).await;
                let command = encode_command(&Command::AllocateProducerIds { count: 5 });
                let batch = |sequence| Batch {
                    commands: Arc::new(vec![command.clone()]),
                    id: Some(ProposalId { proposer: base::ids::Uuid([7; 16]), sequence }),
                };
                let first = Ok(vec![CommandResult::FirstId(0)]);
                assert_eq!(write(&stores[0], &batch(1)).await, first);
                let leader = stores[0].leader().expect("one leads").0 as usize - 1;
                stores[leader].shutdown().await;
                for number in (0..3).filter(|number| *number != leader) {
                    assert_eq!(write(&stores[number], &batch(1)).await, first, "seed {seed}");
                    assert_eq!(stores[number].image().next_producer_id, 5);
                }
                // A snapshot has it, too, and so has what a power cut leaves.
                let survivor = &stores[(leader + 1) % 3];
                for _ in 0..20 {
                    survivor.propose(Command::ElectAll { leader: BrokerId(1) }).await.unwrap();
                }
                drop(stores);
                sim.disk.crash(CrashPolicy::LoseAll);
                sim.env.clock.sleep(Duration::from_secs(1)).await;
                let stores = voters(&sim, limits).await;
                match write(&stores[0], &batch(1)).await {
                    Ok(results) => assert_eq!(Ok(results), first),
                    Err(why) => assert_eq!(why, group::FORGOTTEN),
                }
                assert_eq!(stores[0].image().next_producer_id, 5, "seed {seed}");
                assert_eq!(write(&stores[0], &batch(2)).await, Ok(vec![CommandResult::FirstId(5)]));
                assert_eq!(write(&stores[0], &batch(1)).await, Err(group::FORGOTTEN.to_owned()));
                assert_eq!(stores[0].image().next_producer_id, 10, "seed {seed}");
            }
        });
    }

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
