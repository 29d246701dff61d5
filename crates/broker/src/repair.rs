//! Brings copies of sealed segments where they are wanted: this broker fetches what it is to have and does not, and gives
//! up what others have enough of.
//!
//! Every broker plans from the same metadata ([`placement::repairs`]) and does its own part; what it has fetched or given
//! up it tells the metadata store. A broker that is fenced is waited for (`vltava.repair.delay.ms`); then others make the
//! copies that it had, and give them up when it is back. Every broker counts that time itself: who counts from later on only
//! begins later. A copy that others should have and that nobody who lives can give is told once.
//!
//! A copy that is listed and turns out not to be whole (its member lost what the page cache held, in the moment in which the
//! segment was sealed; or [`crate::scrub`] found it damaged) is fetched as well.
//!
//! Segments with too few copies come first. All fetching together keeps to `vltava.repair.io.max.bytes.per.second`, and a
//! round of it ends after a while, so that what has become needless meanwhile is not begun.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::chain::{PartitionState, SegmentEntry, SegmentState};
use base::config::{BrokerConfig, Durability, keys};
use base::env::Env;
use base::ids::{BrokerId, Generation, PartitionId, SegmentId, StorageId, TopicPartition};
use base::metrics::NodeMetrics;
use futures::StreamExt;
use futures::stream;
use metadata::{ChainEdit, Command, CommandResult, Image, MetadataStore, StorageHealth, Topic};
use parking_lot::Mutex;
use replication::placement::{self, Candidate, Draw, Home, Repair, Standing};
use replication::stream::SealedCopy;
use replication::{
    Peers, SealedInfo, SegmentName, Storage, StorageState, Throttle, WantedSegment, fetch_segment,
};

use crate::broker::Broker;
use crate::elections::partitions_of;
use crate::partitions::settings_of;
use crate::peers::candidates;

/// How often it is looked at what is missing, at least.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a segment whose fetching failed is left alone.
const FAILURE_PAUSE: Duration = Duration::from_secs(10);

/// Segments that are fetched side by side.
const FETCHES_AT_ONCE: usize = 4;

/// Copies that are given up with one command.
const GIVEN_UP_AT_ONCE: usize = 500;

/// No fetch is begun later than so long after it was planned.
const ROUND: Duration = Duration::from_secs(10);

/// A sealed segment of a partition.
type Segment = (TopicPartition, SegmentId, Generation);

/// A segment that this broker is to have.
struct Fetch {
    topic: Arc<str>,
    id: TopicPartition,
    entry: SegmentEntry,
    sources: Vec<(BrokerId, StorageId)>,
    /// Copies that can be read and count are fewer than are wanted.
    is_short: bool,
}

impl Fetch {
    fn segment(&self) -> Segment {
        (self.id, self.entry.id, self.entry.generation)
    }

    fn bytes(&self) -> u64 {
        match self.entry.state {
            SegmentState::Sealed { bytes, .. } => bytes,
            SegmentState::Open { .. } => 0,
        }
    }
}

/// What there is to do for this broker.
#[derive(Default)]
struct Plan {
    fetches: Vec<Fetch>,
    given_up: Vec<ChainEdit>,
    /// Sealed segments of the partitions that it leads of which there are too few copies.
    short: usize,
}

/// What is remembered from one look to the next.
#[derive(Default)]
struct Memory {
    /// Until when a segment is left alone.
    failed: BTreeMap<Segment, Duration>,
    /// Segments that nobody has, of which it was told.
    missing: BTreeSet<Segment>,
    /// Since when brokers are known to be fenced.
    fenced: BTreeMap<BrokerId, Duration>,
}

impl Memory {
    /// Brokers that are fenced and expected back.
    fn away(&mut self, image: &Image, now: Duration, delay: Duration) -> BTreeSet<BrokerId> {
        let fenced = image.brokers().filter(|broker| broker.fenced);
        let fenced: BTreeSet<BrokerId> = fenced.map(|broker| broker.registration.broker).collect();
        self.fenced.retain(|broker, _| fenced.contains(broker));
        for broker in &fenced {
            self.fenced.entry(*broker).or_insert(now);
        }
        let is_away = |(_, since): &(&BrokerId, &Duration)| now.saturating_sub(**since) < delay;
        self.fenced.iter().filter(is_away).map(|(broker, _)| *broker).collect()
    }
}

/// Fetches and gives up.
pub(crate) struct Mender {
    pub(crate) env: Env,
    pub(crate) id: BrokerId,
    pub(crate) metadata: Arc<dyn MetadataStore>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) storages: Arc<Vec<Arc<Storage>>>,
    /// Held by whoever makes a copy until the metadata has it, and alone by who removes one that was given up: it may be
    /// wanted again by then.
    pub(crate) copying: tokio::sync::RwLock<()>,
    /// Copies that are listed here and may not be whole.
    suspects: Mutex<BTreeSet<Segment>>,
    pub(crate) metrics: NodeMetrics,
}

impl Broker {
    /// Starts the task; it ends with the broker, whose life begins with this metadata and these settings.
    pub(crate) fn spawn_repair(self: &Arc<Self>, image: &Image, config: &BrokerConfig) {
        let is_cached = |topic: &str| settings_of(image, config, topic).durability == Durability::PageCache;
        self.mender.suspect_after_power_cut(image, is_cached);
        tokio::spawn(repair_for_ever(Arc::downgrade(self)));
    }
}

impl Mender {
    pub(crate) fn new(
        env: Env,
        id: BrokerId,
        metadata: Arc<dyn MetadataStore>,
        peers: Arc<Peers>,
        storages: Arc<Vec<Arc<Storage>>>,
        metrics: NodeMetrics,
    ) -> Mender {
        let (copying, suspects) = Default::default();
        Mender { env, id, metadata, peers, storages, copying, suspects, metrics }
    }

    /// This broker's copy of a sealed segment may not be whole: it is looked at, and fetched if it is not.
    pub(crate) fn suspect(&self, partition: TopicPartition, entry: &SegmentEntry) {
        self.suspects.lock().insert((partition, entry.id, entry.generation));
    }

    fn has_suspects(&self) -> bool {
        !self.suspects.lock().is_empty()
    }

    /// Suspects what was sealed last before a power cut: this broker may have lost it before it had it durably.
    pub(crate) fn suspect_after_power_cut(&self, image: &Image, is_cached: impl Fn(&str) -> bool) {
        let in_doubt = |entry: &SegmentEntry| {
            let may_lack = |storage: &Arc<Storage>| {
                entry.is_on(storage.id()) && storage.doubtful_to().is_some_and(|newest| entry.id <= newest)
            };
            self.storages.iter().any(may_lack)
        };
        for topic in image.topics() {
            for (partition, state) in partitions_of(topic) {
                let last = state.chain.iter().rev().find(|entry| !entry.is_open());
                if let Some(last) = last.filter(|entry| in_doubt(entry) && is_cached(&topic.name)) {
                    self.suspect(partition, last);
                }
            }
        }
    }

    /// Fetches sealed segments of a partition that this broker is about to lead and does not have: its log needs all.
    /// Returns the partition then; `None` where one cannot be fetched yet.
    pub(crate) async fn complete(
        &self,
        topic: &Arc<str>,
        id: TopicPartition,
        state: Arc<PartitionState>,
    ) -> Option<Arc<PartitionState>> {
        let image = self.metadata.image();
        let own: Vec<StorageId> = self.storages.iter().map(|storage| storage.id()).collect();
        for entry in state.chain.iter().filter(|entry| !entry.is_open()) {
            if own.iter().any(|storage| entry.is_on(*storage)) {
                continue;
            }
            let all = homes(&image, &BTreeSet::new());
            let sources =
                all.iter().filter(|(storage, home)| home.broker != self.id && entry.is_on(**storage));
            let sources = sources.map(|(storage, home)| (home.broker, *storage)).collect();
            let fetch = Fetch { topic: topic.clone(), id, entry: entry.clone(), sources, is_short: false };
            if !self.bring(&fetch, None).await {
                if fetch.sources.is_empty() {
                    tracing::warn!(
                        topic = &**topic,
                        partition = id.partition.0,
                        segment = %entry.id,
                        offset = entry.base,
                        "nobody who lives has this segment, so the partition is not led: start the brokers that had it, or \
                         have it left behind by an unclean election"
                    );
                }
                return None;
            }
        }
        self.metadata.image().partition(&id).cloned()
    }

    /// Fetches a segment and has that noted; false when it failed.
    async fn bring(&self, fetch: &Fetch, throttle: Option<&Throttle>) -> bool {
        let _copying = self.copying.read().await;
        let Fetch { topic, id, entry, .. } = fetch;
        let Some((storage, crc)) = self.fetch(fetch, throttle).await else { return false };
        let segment = (entry.id, entry.generation);
        let edit = ChainEdit::AddReplica { partition: *id, segment, storage, crc };
        match self.metadata.propose(Command::Edit(vec![edit])).await {
            Ok(CommandResult::Chains(results)) if results.iter().all(Result::is_ok) => {
                self.suspects.lock().remove(&fetch.segment());
                true
            }
            // The chain has moved on: planned anew.
            other => {
                tracing::debug!(partition = %id, segment = %entry.id, ?other, "a copy is not noted");
                let (topic, partition) = (topic.clone(), *id);
                let (id, generation, base) = (entry.id, entry.generation, entry.base);
                self.remove_unlisted(SegmentName { topic, partition, id, generation, base }).await;
                false
            }
        }
    }

    /// Gives copies up. What is refused was counted for others meanwhile: planned anew.
    async fn give_up(&self, edits: Vec<ChainEdit>) {
        for edits in edits.chunks(GIVEN_UP_AT_ONCE) {
            let _copying = self.copying.read().await;
            if let Err(error) = self.metadata.propose(Command::Edit(edits.to_vec())).await {
                tracing::debug!(%error, "copies cannot be given up yet");
                return;
            }
        }
    }

    /// Removes the files of a segment that left the chain, or whose copy here did.
    pub(crate) async fn remove_copy(&self, name: SegmentName) {
        self.peers.replicas.forget(&name).await;
        let storages = self.storages.clone();
        let remove = move || {
            for storage in storages.iter().filter(|storage| storage.holds(&name)) {
                if let Err(error) = storage.remove(&name) {
                    tracing::warn!(topic = &*name.topic, %error, "a segment that left the chain is not removed yet");
                }
            }
        };
        self.env.blocking(remove).await;
    }

    /// Removes a copy whose segment left the chain while it was fetched: nobody else would know of it.
    async fn remove_unlisted(&self, name: SegmentName) {
        let image = self.metadata.image();
        let is_listed = image.partition(&name.partition).is_some_and(|state| {
            state.chain.iter().any(|entry| (entry.id, entry.generation) == (name.id, name.generation))
        });
        if !is_listed {
            self.remove_copy(name).await;
        }
    }

    /// Removes the copy of a segment that was given up, unless it was noted again meanwhile.
    pub(crate) async fn remove_given_up(&self, name: SegmentName) {
        let _alone = self.copying.write().await;
        let image = self.metadata.image();
        let is_noted = image.partition(&name.partition).is_some_and(|state| {
            let same = |entry: &&SegmentEntry| (entry.id, entry.generation) == (name.id, name.generation);
            let entry = state.chain.iter().find(same);
            entry.is_some_and(|entry| self.storages.iter().any(|storage| entry.is_on(storage.id())))
        });
        if !is_noted {
            self.remove_copy(name).await;
        }
    }

    /// Sees to it that this broker has a whole copy of a sealed segment. Tells on which storage, and its CRC.
    async fn fetch(&self, fetch: &Fetch, throttle: Option<&Throttle>) -> Option<(StorageId, u32)> {
        let Fetch { topic, id, entry, sources, .. } = fetch;
        let (id, sources) = (*id, sources.clone());
        let SegmentState::Sealed { end, crc, bytes, .. } = entry.state else { return None };
        // A member that was too slow for the seal may have all of it by now.
        if let Ok(SealedCopy::Whole(storage)) = self.peers.replicas.sealed(topic, id, entry).await {
            return Some((storage, crc));
        }
        let to = self.storage_for(id)?;
        let storage = to.id();
        let (generation, base) = (entry.generation, entry.base);
        let name = SegmentName { topic: topic.clone(), partition: id, id: entry.id, generation, base };
        self.peers.replicas.forget(&name).await;
        let sealed = SealedInfo { end, bytes, crc };
        let wanted = WantedSegment { env: &self.env, name, sealed, sources, to, throttle };
        match fetch_segment(&self.peers, &wanted).await {
            Ok(()) => {
                self.metrics.repair_fetched_bytes.inc_by(bytes);
                Some((storage, crc))
            }
            Err(error) => {
                tracing::warn!(topic = &**topic, partition = id.partition.0, segment = %entry.id, %error, "a copy cannot be fetched yet");
                None
            }
        }
    }

    /// Where a partition's copy goes: the storage that has others of it, or the first that takes segments.
    fn storage_for(&self, id: TopicPartition) -> Option<Arc<Storage>> {
        let image = self.metadata.image();
        let state = image.partition(&id)?;
        let has = |storage: &Arc<Storage>| state.chain.iter().any(|entry| entry.is_on(storage.id()));
        // One that is getting full takes what no other can.
        let rank = |storage: &&Arc<Storage>| match storage.state() {
            StorageState::Writable => Some((0, !has(storage))),
            StorageState::ReadOnly => Some((1, !has(storage))),
            StorageState::NoSpace | StorageState::Failed(_) => None,
        };
        let found = self.storages.iter().filter(|storage| rank(storage).is_some()).min_by_key(rank);
        if found.is_none() {
            tracing::warn!(partition = %id, "no log directory takes a copy: all are full or failed");
        }
        found.cloned()
    }

    fn plan(&self, image: &Image, memory: &mut Memory, delay: Duration) -> Plan {
        let now = self.env.clock.now();
        let away = memory.away(image, now, delay);
        let candidates = staying(image);
        let homes = homes(image, &away);
        memory.failed.retain(|_, until| now < *until);
        let mut plan = Plan::default();
        for topic in image.topics() {
            for (number, state) in topic.partitions.iter().enumerate() {
                // One copy is where its log is; there is nothing to bring anywhere.
                if is_alone(state) {
                    continue;
                }
                let partition = PartitionId(i32::try_from(number).unwrap_or(i32::MAX));
                let id = TopicPartition { topic_id: topic.id, partition };
                if state.leader == self.id {
                    plan.short += state.chain.iter().filter(|entry| is_short(state, entry, &homes)).count();
                    plan.given_up.extend(given_up_for(image, id, state, &homes));
                }
                for repair in placement::repairs(Draw::of(&id), state, &candidates, &homes) {
                    self.add(&mut plan, (topic, id, state), repair, &homes, memory);
                }
            }
        }
        self.add_suspects(&mut plan, image, &homes, memory);
        plan.fetches.sort_by_key(|fetch| !fetch.is_short);
        plan
    }

    /// Adds the copies of this broker that may not be whole. Those that are not listed any more are forgotten.
    fn add_suspects(
        &self,
        plan: &mut Plan,
        image: &Image,
        homes: &BTreeMap<StorageId, Home>,
        memory: &Memory,
    ) {
        let own = |storage: &StorageId| self.storages.iter().any(|own| own.id() == *storage);
        self.suspects.lock().retain(|segment @ (id, number, generation)| {
            let topic = image.topic_by_id(id.topic_id);
            let entry = image.partition(id).and_then(|state| {
                state.chain.iter().find(|entry| (entry.id, entry.generation) == (*number, *generation))
            });
            let (Some(topic), Some(entry)) = (topic, entry) else { return false };
            let SegmentState::Sealed { replicas, .. } = &entry.state else { return false };
            if !replicas.iter().any(own) {
                return false;
            }
            if !memory.failed.contains_key(segment) {
                let others = replicas.iter().filter(|storage| !own(storage));
                let sources = others.filter_map(|storage| Some((homes.get(storage)?.broker, *storage)));
                let (topic, entry, sources) = (topic.name.clone(), entry.clone(), sources.collect());
                plan.fetches.push(Fetch { topic, id: *id, entry, sources, is_short: true });
            }
            true
        });
    }

    /// Adds this broker's part of a repair.
    fn add(
        &self,
        plan: &mut Plan,
        (topic, id, state): (&Topic, TopicPartition, &PartitionState),
        repair: Repair,
        homes: &BTreeMap<StorageId, Home>,
        memory: &mut Memory,
    ) {
        match repair {
            Repair::Copy { segment, to, from } if to.broker == self.id => {
                let entry = state.chain.iter().find(|entry| (entry.id, entry.generation) == segment);
                if memory.failed.contains_key(&(id, segment.0, segment.1)) {
                    return;
                }
                let sources =
                    from.iter().filter_map(|storage| Some((homes.get(storage)?.broker, *storage))).collect();
                plan.fetches.extend(entry.map(|entry| Fetch {
                    topic: topic.name.clone(),
                    id,
                    entry: entry.clone(),
                    sources,
                    is_short: is_short(state, entry, homes),
                }));
            }
            // Who leads needs all segments, where no copies are wanted any more, too: another broker leads soon.
            Repair::Drop { segment, storage }
                if homes.get(&storage).is_some_and(|home| home.broker == self.id)
                    && state.leader != self.id =>
            {
                plan.given_up.push(ChainEdit::DropReplica { partition: id, segment, storage });
            }
            Repair::Missing { segment } if memory.missing.insert((id, segment.0, segment.1)) => {
                tracing::error!(
                    topic = &*topic.name, partition = id.partition.0, segment = %segment.0,
                    "no broker that lives has this segment: start those that have it"
                );
            }
            Repair::Copy { .. } | Repair::Drop { .. } | Repair::Missing { .. } => {}
        }
    }
}

/// Whether a sealed segment has fewer copies that can be read and count than are wanted.
fn is_short(state: &PartitionState, entry: &SegmentEntry, homes: &BTreeMap<StorageId, Home>) -> bool {
    let SegmentState::Sealed { replicas, .. } = &entry.state else { return false };
    let is_here =
        |storage: &&StorageId| homes.get(storage).is_some_and(|home| home.standing == Standing::Here);
    replicas.iter().filter(is_here).count() < state.placement.len()
}

/// Copies on log directories that brokers have lost which live: where others were made in their place, nobody waits for
/// them. One whose directory comes back nevertheless removes them, as no chain lists them.
fn given_up_for(
    image: &Image,
    partition: TopicPartition,
    state: &PartitionState,
    homes: &BTreeMap<StorageId, Home>,
) -> Vec<ChainEdit> {
    let is_gone = |storage: &StorageId| {
        let lives = |broker: &Arc<metadata::Broker>| {
            !broker.fenced && broker.storages.get(storage).is_some_and(|state| !state.can_be_read())
        };
        !homes.contains_key(storage) && image.brokers().any(lives)
    };
    let mut edits = Vec::new();
    for entry in state.chain.iter().filter(|entry| !is_short(state, entry, homes)) {
        let SegmentState::Sealed { replicas, .. } = &entry.state else { continue };
        let gone = replicas.iter().filter(|storage| is_gone(storage));
        let segment = (entry.id, entry.generation);
        edits.extend(gone.map(|storage| ChainEdit::DropReplica { partition, segment, storage: *storage }));
    }
    edits
}

/// Whether there is and shall be one copy, where the partition is led.
fn is_alone(state: &PartitionState) -> bool {
    let has_one = |entry: &SegmentEntry| match &entry.state {
        SegmentState::Open { ensemble } => ensemble.len() == 1,
        SegmentState::Sealed { replicas, .. } => replicas.len() == 1,
    };
    state.placement == [state.leader] && state.chain.iter().all(has_one)
}

/// Brokers that live and stay in the cluster.
fn staying(image: &Image) -> Vec<Candidate> {
    let leaving = image.leaving();
    candidates(image, |broker| !broker.fenced && !leaving.contains(&broker.registration.broker))
}

/// What the copies on each storage are worth. Brokers in `away` are fenced and expected back.
fn homes(image: &Image, away: &BTreeSet<BrokerId>) -> BTreeMap<StorageId, Home> {
    let leaving = image.leaving();
    let of_broker = |broker: &Arc<metadata::Broker>| {
        let id = broker.registration.broker;
        let standing = match (broker.fenced, leaving.contains(&id)) {
            (false, false) => Some(Standing::Here),
            (false, true) => Some(Standing::Leaving),
            (true, leaves) => (away.contains(&id) && !leaves).then_some(Standing::Away),
        };
        // A log directory that failed under a broker which lives comes back after a restart, if ever.
        let counts = move |state: StorageHealth| match standing {
            Some(Standing::Away) => state != StorageHealth::Lost,
            _ => state.can_be_read(),
        };
        let storages: Vec<_> = broker.storages.iter().filter(|(_, state)| counts(**state)).collect();
        let home =
            move |(storage, _): (&StorageId, _)| Some((*storage, Home { broker: id, standing: standing? }));
        storages.into_iter().filter_map(home).collect::<Vec<_>>()
    };
    image.brokers().flat_map(of_broker).collect()
}

/// The loop's state between two looks.
#[derive(Default)]
struct Looks {
    memory: Memory,
    /// The metadata that was looked at last.
    seen: Option<u64>,
    /// Something was left undone, or time alone will change the plan.
    again: bool,
    throttle: Option<(f64, Arc<Throttle>)>,
}

impl Looks {
    async fn look(&mut self, broker: &Broker) {
        let image = broker.image();
        let is_new = self.seen != Some(image.version) || self.again || broker.mender.has_suspects();
        if broker.drain.is_draining() || image.brokers().nth(1).is_none() || !is_new {
            return;
        }
        self.seen = Some(image.version);
        let config = broker.config();
        let delay_ms = u64::try_from(config.get(keys::REPAIR_DELAY_MS)).unwrap_or(0);
        let plan = broker.mender.plan(&image, &mut self.memory, Duration::from_millis(delay_ms));
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let metrics = &broker.mender.metrics;
        metrics.repair_segments.set(gauge(plan.fetches.len() as u64));
        metrics.repair_bytes.set(gauge(plan.fetches.iter().map(Fetch::bytes).sum()));
        metrics.under_replicated_segments.set(gauge(plan.short as u64));
        let throttle = self.throttle(broker, config.get(keys::REPAIR_IO_MAX_BYTES_PER_SECOND));
        broker.mender.give_up(plan.given_up).await;
        let (mender, clock) = (&broker.mender, &broker.env.clock);
        let (until, planned) = (clock.now() + ROUND, plan.fetches.len());
        let bring = |fetch: Fetch| {
            let throttle = throttle.clone();
            async move {
                let done = mender.bring(&fetch, Some(&throttle)).await;
                // A log that leads may have a copy open that this one took the place of.
                if done && let Ok(partition) = broker.partitions.get(fetch.id) {
                    partition.log.read_anew(fetch.entry.id, fetch.entry.generation);
                }
                (fetch.segment(), done)
            }
        };
        let begun = stream::iter(plan.fetches).take_while(|_| std::future::ready(clock.now() < until));
        let outcomes: Vec<(Segment, bool)> =
            begun.map(bring).buffer_unordered(FETCHES_AT_ONCE).collect().await;
        self.again = outcomes.len() < planned;
        let until = clock.now() + FAILURE_PAUSE;
        let failed = outcomes.into_iter().filter(|(_, done)| !done);
        self.memory.failed.extend(failed.map(|(segment, _)| (segment, until)));
        self.again |= !self.memory.failed.is_empty() || !self.memory.fenced.is_empty();
    }

    /// All fetching shares one, until its rate is changed.
    fn throttle(&mut self, broker: &Broker, rate: f64) -> Arc<Throttle> {
        match &self.throttle {
            Some((known, throttle)) if *known == rate => throttle.clone(),
            _ => {
                let throttle = Arc::new(Throttle::new(&broker.env, Some(rate)));
                self.throttle = Some((rate, throttle.clone()));
                throttle
            }
        }
    }
}

async fn repair_for_ever(broker: Weak<Broker>) {
    let mut looks = Looks::default();
    while let Some(strong) = Broker::after(&broker, LOOK_INTERVAL).await {
        looks.look(&strong).await;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use base::chain::{Member, NewSegment, Seal};
    use base::ids::LeaderEpoch;
    use metadata::{MemoryStore, MetadataVersions, Registration};

    use super::*;

    const DELAY: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn a_broker_that_is_fenced_is_waited_for_from_when_that_is_seen() {
        let store = MemoryStore::default();
        register(&store, 1, 1).await;
        register(&store, 2, 2).await;
        let fence = |fenced| {
            let (broker, incarnation) = (BrokerId(2), base::ids::Incarnation(2));
            store.propose(Command::SetFenced { broker, incarnation, fenced })
        };
        let mut memory = Memory::default();
        let at = Duration::from_secs;
        let mut away = |image: &Image, now| memory.away(image, now, DELAY);
        assert_eq!(away(&store.image(), at(5)), BTreeSet::new());
        fence(true).await.unwrap();
        let two = BTreeSet::from([BrokerId(2)]);
        assert_eq!(away(&store.image(), at(10)), two);
        assert_eq!(away(&store.image(), at(609)), two);
        let homes_of = |away: &BTreeSet<BrokerId>| {
            let homes = homes(&store.image(), away);
            homes.into_values().map(|home| (home.broker.0, home.standing)).collect::<Vec<_>>()
        };
        assert_eq!(homes_of(&two), [(1, Standing::Here), (2, Standing::Away)]);
        assert_eq!(away(&store.image(), at(610)), BTreeSet::new(), "it is gone");
        assert_eq!(homes_of(&BTreeSet::new()), [(1, Standing::Here)]);
        fence(false).await.unwrap();
        assert_eq!(away(&store.image(), at(700)), BTreeSet::new());
        fence(true).await.unwrap();
        assert_eq!(away(&store.image(), at(800)), two, "and is waited for anew");
        let changes = vec![(metadata::LEAVING_BROKERS.to_owned(), Some("1,2".to_owned()))];
        let command = Command::AlterConfigs { resource: metadata::Resource::AllBrokers, changes };
        store.propose(command).await.unwrap();
        assert_eq!(homes_of(&two), [(1, Standing::Leaving)], "who leaves is not waited for");
    }

    async fn register(store: &MemoryStore, broker: i32, storage: u8) {
        let registration = Registration {
            broker: BrokerId(broker),
            listeners: Vec::new(),
            rack: None,
            storages: vec![base::ids::Uuid([storage; 16])],
            metadata_versions: MetadataVersions::SUPPORTED,
            min_insync_replicas: None,
        };
        store.propose(Command::RegisterBroker(registration)).await.unwrap();
    }

    /// A sealed segment of ten records on these storages, and an open one.
    pub(crate) fn sealed_on(storages: &[u8]) -> PartitionState {
        let member = Member {
            broker: BrokerId(1),
            storage: base::ids::Uuid([1; 16]),
            incarnation: base::ids::Incarnation(1),
        };
        let segment = |id| NewSegment { id: SegmentId(id), ensemble: vec![member], ack_quorum: 1 };
        let brokers = vec![BrokerId(1), BrokerId(2)];
        let mut state = PartitionState::create(BrokerId(1), LeaderEpoch(0), brokers, 0, segment(1));
        let seal = Seal {
            segment: SegmentId(1),
            leader_epoch: LeaderEpoch(0),
            end: 10,
            crc: 7,
            bytes: 100,
            holders: storages.iter().map(|storage| base::ids::Uuid([*storage; 16])).collect(),
            unclean: false,
        };
        state.seal_and_open(&seal, segment(2), 1).unwrap();
        state
    }

    #[tokio::test]
    async fn copies_on_a_lost_log_directory_are_given_up_once_others_are_there() {
        let store = MemoryStore::default();
        register(&store, 1, 1).await;
        register(&store, 2, 2).await;
        let id = TopicPartition { topic_id: base::ids::Uuid([5; 16]), partition: PartitionId(0) };
        let given_up = |state: &PartitionState| {
            let image = store.image();
            let edits = given_up_for(&image, id, state, &homes(&image, &BTreeSet::new()));
            let storage = |edit: &ChainEdit| match edit {
                ChainEdit::DropReplica { storage, .. } => storage.0[0],
                other => panic!("{other:?}"),
            };
            edits.iter().map(storage).collect::<Vec<_>>()
        };
        assert_eq!(given_up(&sealed_on(&[1, 2])), []);
        // The broker comes back with an empty one, and has nothing yet; then it has fetched what it lacks.
        store
            .propose(Command::SetFenced {
                broker: BrokerId(2),
                incarnation: base::ids::Incarnation(2),
                fenced: true,
            })
            .await
            .unwrap();
        assert_eq!(given_up(&sealed_on(&[1, 2])), []);
        register(&store, 2, 9).await;
        assert_eq!(given_up(&sealed_on(&[1, 2])), []);
        assert_eq!(given_up(&sealed_on(&[1, 2, 9])), [2]);
        // Who is away may bring it back.
        let image = store.image();
        let incarnation = image.broker(BrokerId(2)).unwrap().incarnation;
        store.propose(Command::SetFenced { broker: BrokerId(2), incarnation, fenced: true }).await.unwrap();
        register(&store, 3, 3).await;
        assert_eq!(given_up(&sealed_on(&[1, 3, 2])), []);
    }
}
