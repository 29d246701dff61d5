//! The groups this broker coordinates: one [`GroupShard`] for each partition of `__consumer_offsets` it leads.
//!
//! ```text
//! request ─► shard of the group ─► machine (pure) ─► answer at once, or when others have come
//!                                       └► records ─► partition ─► committed ─► machine ─► answer
//! ```
//!
//! The topic is created when a coordinator is first asked for. Shards are filled from their logs before they
//! answer; until then clients hear COORDINATOR_LOAD_IN_PROGRESS. Which shard a group belongs to follows from the
//! number of partitions, so that must not change once the topic exists.
//!
//! It knows nothing of the wire: that is the handlers' part.

mod clock;
mod load;
mod shard;

#[cfg(test)]
mod tests;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::config::{BrokerConfig, keys};
use base::env::{BoxFuture, Env};
use base::error::ErrorCode;
use base::ids::{BrokerId, LeaderEpoch, PartitionId, TopicId, TopicPartition};
use base::metrics::{GroupOffset, GroupSample};
use bytes::Bytes;
use coordinator::{Answer, GroupConfig, GroupMemory, GroupShard, Request, partition_for};
use futures::StreamExt;
use metadata::{Command, Image};
use parking_lot::RwLock;
use replication::Wait;

use crate::broker::Broker;
use crate::memory::MemoryShares;
use crate::partition::{self, AppendFailure, Partition, append_code};
use crate::topics::TopicSpec;
use crate::turns::Turns;

use clock::SteadyClock;
use shard::{GroupLog, Lost, Shard, ShardSpec};

/// Name of the topic that holds groups and offsets.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Shards filled side by side.
const LOADING_AT_ONCE: usize = 4;

/// Groups that a shard is asked about in one step, which keeps others from it.
const GROUPS_AT_ONCE: usize = 256;

/// How long the start of a broker waits for its shards; what is not filled by then is filled behind.
const LOAD_PATIENCE: Duration = Duration::from_secs(1);

/// How long the controllers may take to say who leads.
const METADATA_PATIENCE: Duration = Duration::from_secs(2);

/// The groups of a broker. See the module's head.
pub(crate) struct Groups {
    env: Env,
    clock: SteadyClock,
    config: GroupConfig,
    memory: GroupMemory,
    commit_timeout: Duration,
    shards: RwLock<Shards>,
    /// Held while the topic is created and its shards are opened.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Shards {
    /// Partitions of the topic, 0 while there is none.
    count: i32,
    topic: TopicId,
    /// Those of them that this broker leads.
    slots: BTreeMap<i32, Slot>,
}

struct Slot {
    /// The epoch in which the broker leads the partition.
    epoch: LeaderEpoch,
    /// `None` while it is being filled.
    shard: Option<Arc<Shard>>,
}

impl Slot {
    fn resign(self) {
        if let Some(shard) = self.shard {
            shard.resign();
        }
    }
}

impl Groups {
    /// No groups yet.
    pub(crate) fn new(env: Env, config: &BrokerConfig, memory: &MemoryShares) -> Groups {
        let commit_timeout_ms = u64::try_from(config.get(keys::OFFSETS_COMMIT_TIMEOUT_MS)).unwrap_or(0);
        Groups {
            clock: SteadyClock::new(&*env.clock),
            config: group_config(config, memory),
            memory: GroupMemory::default(),
            commit_timeout: Duration::from_millis(commit_timeout_ms),
            shards: RwLock::default(),
            opening: tokio::sync::Mutex::new(()),
            env,
        }
    }

    /// Begins to fill the shards from the topic, if there is one; waits for them for a moment.
    pub(crate) async fn load(&self, broker: &Arc<Broker>) {
        let broker = broker.clone();
        let loading = tokio::spawn(async move {
            broker.groups.sync(&broker).await;
        });
        tokio::select! {
            biased;
            _ = loading => {}
            () = self.env.clock.sleep(LOAD_PATIENCE) => tracing::info!("groups are still being loaded"),
        }
    }

    /// Creates the topic if there is none, and waits until its shards answer.
    ///
    /// # Errors
    /// What the client hears when the topic cannot be created: it may try again.
    pub(crate) async fn ensure(&self, broker: &Arc<Broker>) -> Result<(), ErrorCode> {
        if self.shards.read().count > 0 {
            return Ok(());
        }
        // One creates and opens, the others wait: the topic is in the image before its logs are open.
        let _opening = self.opening.lock().await;
        if broker.image().topic(OFFSETS_TOPIC).is_none() {
            let created = broker.create_topics(vec![offsets_topic(broker)], false).await;
            for refused in created.into_iter().filter_map(Result::err) {
                if refused.code != ErrorCode::TopicAlreadyExists {
                    tracing::error!(reason = %refused, "{OFFSETS_TOPIC} cannot be created");
                    return Err(ErrorCode::CoordinatorNotAvailable);
                }
            }
        }
        self.open(broker).await;
        Ok(())
    }

    /// Brings the shards in step with who leads the topic's partitions, and waits until they answer.
    pub(crate) async fn sync(&self, broker: &Arc<Broker>) {
        let _opening = self.opening.lock().await;
        self.open(broker).await;
    }

    /// Opens shards of partitions that this broker leads from now on and fills them; ends those of others. The caller
    /// holds `opening`.
    async fn open(&self, broker: &Arc<Broker>) {
        let image = broker.image();
        let Some(topic) = image.topic(OFFSETS_TOPIC) else { return };
        let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        let leads = |number: i32| {
            let partition = PartitionId(number);
            let state = topic.partition(partition).filter(|state| state.leader == broker.id)?;
            // One that is being taken over comes when that is done.
            let id = TopicPartition { topic_id: topic.id, partition };
            (!broker.partitions.is_opening(id)).then_some((number, state.leader_epoch))
        };
        let led: BTreeMap<i32, LeaderEpoch> = (0..count).filter_map(leads).collect();
        let mut loads = Vec::new();
        {
            let mut shards = self.shards.write();
            if shards.topic != topic.id {
                std::mem::take(&mut *shards).slots.into_values().for_each(Slot::resign);
                shards.topic = topic.id;
            }
            shards.count = count;
            let over = |number: &i32, slot: &mut Slot| led.get(number) != Some(&slot.epoch);
            shards.slots.extract_if(.., over).for_each(|(_, slot)| slot.resign());
            for (number, epoch) in &led {
                if let Entry::Vacant(vacant) = shards.slots.entry(*number) {
                    vacant.insert(Slot { epoch: *epoch, shard: None });
                    loads.push(self.open_shard(broker, topic.id, *number, *epoch));
                }
            }
        }
        futures::stream::iter(loads).buffer_unordered(LOADING_AT_ONCE).collect::<()>().await;
    }

    async fn open_shard(&self, broker: &Arc<Broker>, topic: TopicId, number: i32, epoch: LeaderEpoch) {
        let opened = self.filled_shard(broker, topic, number).await;
        let mut shards = self.shards.write();
        // The topic may have been deleted meanwhile.
        let is_ours =
            shards.topic == topic && shards.slots.get(&number).is_some_and(|slot| slot.epoch == epoch);
        match opened {
            Ok(shard) if is_ours => drop(shards.slots.insert(number, Slot { epoch, shard: Some(shard) })),
            Ok(shard) => shard.resign(),
            Err(reason) => {
                tracing::error!(partition = number, reason, "the groups of a partition cannot be loaded");
                if is_ours {
                    shards.slots.remove(&number);
                }
            }
        }
    }

    async fn filled_shard(
        &self,
        broker: &Arc<Broker>,
        topic_id: TopicId,
        number: i32,
    ) -> Result<Arc<Shard>, String> {
        let id = TopicPartition { topic_id, partition: PartitionId(number) };
        let partition = broker.partitions.get(id).map_err(|code| code.to_string())?;
        let (log, empty) =
            (partition.log.clone(), GroupShard::sharing(self.config.clone(), self.memory.clone()));
        let machine = self.env.blocking(move || load::fill(&log, empty)).await?;
        let spec = ShardSpec {
            env: self.env.clone(),
            clock: self.clock,
            log: Box::new(partition),
            metrics: broker.metrics.node().clone(),
            commit_timeout: self.commit_timeout,
        };
        Ok(Shard::start(spec, machine))
    }

    /// Who coordinates a group: the leader of its partition. `None` while there is no such topic.
    pub(crate) fn coordinator(image: &Image, group: &str) -> Option<BrokerId> {
        let topic = image.topic(OFFSETS_TOPIC)?;
        let number = partition_for(group, i32::try_from(topic.partitions.len()).ok()?)?;
        topic.partition(PartitionId(number)).map(|state| state.leader)
    }

    /// The shard of a group.
    ///
    /// # Errors
    /// What the client hears: it looks for the coordinator again, or waits.
    fn shard(&self, group: &str) -> Result<Arc<Shard>, ErrorCode> {
        let shards = self.shards.read();
        let number = partition_for(group, shards.count).ok_or(ErrorCode::NotCoordinator)?;
        let slot = shards.slots.get(&number).ok_or(ErrorCode::NotCoordinator)?;
        slot.shard.clone().ok_or(ErrorCode::CoordinatorLoadInProgress)
    }

    /// Asks the shard of a group. It has seen the request when the future was polled once.
    ///
    /// # Errors
    /// What the client hears when there is no such shard, or it ends before it answers.
    pub(crate) async fn ask(&self, group: &str, request: Request) -> Result<Answer, ErrorCode> {
        let answer = self.shard(group)?.ask(request);
        answer.await.map_err(|_| ErrorCode::NotCoordinator)
    }

    /// Sees to it that no other broker coordinated a group before this call: what is read of it from now on is as new as
    /// anything that was acknowledged before (replication.md 2.6). `confirmed` are the partitions for which that was done
    /// for the same request.
    ///
    /// # Errors
    /// `NOT_COORDINATOR` where another one may have.
    pub(crate) async fn confirm(
        &self,
        broker: &Broker,
        group: &str,
        confirmed: &mut BTreeSet<i32>,
    ) -> Result<(), ErrorCode> {
        let (id, number, epoch) = {
            let shards = self.shards.read();
            let number = partition_for(group, shards.count).ok_or(ErrorCode::NotCoordinator)?;
            // Who has no shard hears that when it is asked.
            let Some(slot) = shards.slots.get(&number) else { return Ok(()) };
            let id = TopicPartition { topic_id: shards.topic, partition: PartitionId(number) };
            (id, number, slot.epoch)
        };
        if confirmed.contains(&number) {
            return Ok(());
        }
        let partition = broker.partitions.get(id).map_err(|_| ErrorCode::NotCoordinator)?;
        let leads = partition.log.leader_epoch() == epoch
            && (partition.log.confirm_lead().await || is_leader_by_metadata(broker, id, epoch).await);
        if !leads {
            return Err(ErrorCode::NotCoordinator);
        }
        confirmed.insert(number);
        Ok(())
    }

    /// Asks the shards of several groups, each for some of its groups at once. `request` makes the request for groups
    /// of one shard. An error stands for all groups it was asked about.
    pub(crate) async fn ask_each(
        &self,
        groups: &[String],
        request: impl Fn(Vec<String>) -> Request,
    ) -> Vec<(Vec<String>, Result<Answer, ErrorCode>)> {
        let mut by_partition: BTreeMap<Option<i32>, Vec<String>> = BTreeMap::new();
        let count = self.shards.read().count;
        let mut turns = Turns::default();
        for group in groups {
            by_partition.entry(partition_for(group, count)).or_default().push(group.clone());
            turns.done(1).await;
        }
        let mut answers = Vec::with_capacity(by_partition.len());
        for groups in by_partition.values().flat_map(|groups| groups.chunks(GROUPS_AT_ONCE)) {
            // All of them have the same shard; there is at least one.
            let answer = self.ask(&groups[0], request(groups.to_vec())).await;
            answers.push((groups.to_vec(), answer));
            turns.done(groups.len()).await;
        }
        answers
    }

    /// Asks every shard. An error stands for shards that are not ready.
    pub(crate) async fn ask_all(&self, request: impl Fn() -> Request) -> Vec<Result<Answer, ErrorCode>> {
        let shards: Vec<_> = {
            let shards = self.shards.read();
            let active = |slot: &Slot| slot.shard.clone().ok_or(ErrorCode::CoordinatorLoadInProgress);
            shards.slots.values().map(active).collect()
        };
        let mut answers = Vec::with_capacity(shards.len());
        for shard in shards {
            answers.push(match shard {
                Ok(shard) => shard.ask(request()).await.map_err(|_| ErrorCode::NotCoordinator),
                Err(code) => Err(code),
            });
        }
        answers
    }

    /// Drops the offsets of a topic that was deleted. If it is the topic of the groups itself, all groups are gone.
    pub(crate) fn topic_deleted(&self, name: &str, id: TopicId) {
        if name == OFFSETS_TOPIC {
            let mut shards = self.shards.write();
            // Another of this name may be there already.
            if shards.topic == id {
                std::mem::take(&mut *shards).slots.into_values().for_each(Slot::resign);
            }
            return;
        }
        let topics = [(name.to_owned(), id)];
        for shard in self.active() {
            shard.topics_deleted(&topics);
        }
    }

    /// Visits every group with its committed offsets and the ends of their partitions.
    pub(crate) fn sample(&self, broker: &Broker, visit: &mut dyn FnMut(GroupSample<'_>)) {
        for group in self.active().iter().flat_map(|shard| shard.summaries()) {
            let end = |topic: &str, partition| {
                broker.partition(topic, partition).ok().map(|partition| partition.log.high_watermark())
            };
            let offsets: Vec<_> = group
                .offsets
                .iter()
                .map(|(topic, partition, committed)| GroupOffset {
                    topic,
                    partition: *partition,
                    committed: *committed,
                    high_watermark: end(topic, *partition),
                })
                .collect();
            let (state, members) = (group.state, group.members);
            visit(GroupSample { group: &group.id, state, members, offsets: &offsets });
        }
    }

    fn active(&self) -> Vec<Arc<Shard>> {
        self.shards.read().slots.values().filter_map(|slot| slot.shard.clone()).collect()
    }
}

/// Whether the metadata names this broker as the leader in an epoch, all changes that were made before the call included.
/// Where members of the open segment do not answer that are too few to be left out, this tells as well, at a higher price.
async fn is_leader_by_metadata(broker: &Broker, id: TopicPartition, epoch: LeaderEpoch) -> bool {
    // A change of nothing comes behind all that was changed before.
    let asked = tokio::select! {
        biased;
        asked = broker.metadata.propose(Command::Edit(Vec::new())) => asked.is_ok(),
        () = broker.env.clock.sleep(METADATA_PATIENCE) => false,
    };
    let image = broker.image();
    asked
        && image.partition(&id).is_some_and(|state| (state.leader, state.leader_epoch) == (broker.id, epoch))
}

/// What the configuration says of groups.
fn group_config(config: &BrokerConfig, memory: &MemoryShares) -> GroupConfig {
    let count = |number: i32| usize::try_from(number).unwrap_or(0);
    let minutes = i64::from(config.get(keys::OFFSETS_RETENTION_MINUTES));
    GroupConfig {
        initial_rebalance_delay_ms: config.get(keys::GROUP_INITIAL_REBALANCE_DELAY_MS),
        min_session_timeout_ms: config.get(keys::GROUP_MIN_SESSION_TIMEOUT_MS),
        max_session_timeout_ms: config.get(keys::GROUP_MAX_SESSION_TIMEOUT_MS),
        max_size: count(config.get(keys::GROUP_MAX_SIZE)),
        offset_metadata_max_size: count(config.get(keys::OFFSET_METADATA_MAX_BYTES)),
        offsets_retention_ms: minutes * 60_000,
        offsets_retention_check_interval_ms: config.get(keys::OFFSETS_RETENTION_CHECK_INTERVAL_MS),
        max_memory_bytes: memory.group_bytes,
        ..GroupConfig::default()
    }
}

/// The topic as Kafka makes it.
fn offsets_topic(broker: &Broker) -> TopicSpec {
    let config = broker.config();
    let segment_bytes = config.get(keys::OFFSETS_TOPIC_SEGMENT_BYTES).to_string();
    let configs = [
        ("cleanup.policy", "compact"),
        ("compression.type", "producer"),
        ("segment.bytes", segment_bytes.as_str()),
        // A commit that is acknowledged survives power loss whatever other topics do.
        ("vltava.durability", "fsync"),
    ];
    TopicSpec {
        name: OFFSETS_TOPIC.to_owned(),
        partitions: config.get(keys::OFFSETS_TOPIC_NUM_PARTITIONS),
        replication_factor: broker.default_copies(config.get(keys::OFFSETS_TOPIC_REPLICATION_FACTOR).into()),
        assignments: None,
        configs: configs.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
        internal: true,
    }
}

impl GroupLog for Arc<Partition> {
    fn append(&self, batch: Bytes) -> BoxFuture<'static, Result<(), Lost>> {
        let answer = Partition::append(self, partition::internal(batch), Wait::Committed);
        Box::pin(async move {
            let refused = |failure: AppendFailure| Lost::Refused(failure.code());
            let appended = answer.await.map_err(|_| Lost::Unknown(ErrorCode::NotLeaderOrFollower))?;
            let Some(committed) = appended.map_err(refused)?.committed else { return Ok(()) };
            let committed = committed.await.map_err(|_| Lost::Unknown(ErrorCode::NotLeaderOrFollower))?;
            committed.map_err(|error| Lost::Unknown(append_code(&error.into())))
        })
    }
}
