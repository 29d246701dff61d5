//! Where copies are wanted once brokers come or go for good: what the active controller changes by itself.
//!
//! ```text
//!  a broker leaves (vltava.leaving.brokers) ─► its places go to others ─► the leader opens its next segment with those,
//!     who fetch the sealed ones (repair) ─► one of them leads ─► the broker gives up what it has
//!  a broker has nothing ─► it gets its share of places ─► next segments are there, too; who had the place keeps what it
//!     has of sealed ones, so that nothing is copied but what the new one shall lead
//! ```
//!
//! Plans are made from the metadata alone ([`replication::balance`]), so that another controller goes on where one stopped.

use std::collections::BTreeSet;
use std::time::Duration;

use base::chain::{PartitionState, SegmentState};
use base::ids::{BrokerId, StorageId, TopicPartition};
use metadata::{ChainEdit, Image, StorageHealth};
use replication::balance::{self, Aim, Host, Spot};

use crate::elections::partitions_of;

/// How often it is looked who came and went.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a broker must have lived before it gets its share: one that falls at once gets nothing.
pub(crate) const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// Dead copies that are forgotten in one go.
const FORGOTTEN_AT_ONCE: usize = 5_000;

/// When it was looked last, and which metadata nothing had to be changed in.
#[derive(Debug, Default)]
pub(crate) struct Moving {
    looked_at: Option<Duration>,
    idle: Option<(u64, Duration)>,
}

impl Moving {
    /// Changes of placements, and copies of dead brokers that are needed no more. `spreads` tells which brokers that have
    /// nothing get their share.
    pub(crate) fn plan(
        &mut self,
        image: &Image,
        spreads: impl Fn(BrokerId) -> bool,
        now: Duration,
    ) -> Vec<ChainEdit> {
        if self.looked_at.is_some_and(|looked_at| now.saturating_sub(looked_at) < LOOK_INTERVAL) {
            return Vec::new();
        }
        self.looked_at = Some(now);
        // Time alone settles brokers, and nothing else.
        let is_same = |(version, at): (u64, Duration)| {
            version == image.version && now.saturating_sub(at) < SETTLED_AFTER
        };
        if self.idle.is_some_and(is_same) {
            return Vec::new();
        }
        let leaving = image.leaving();
        let mut edits = placements(image, &leaving, spreads);
        edits.extend(forgotten(image, &leaving));
        self.idle = edits.is_empty().then_some((image.version, now));
        edits
    }
}

/// All partitions, and as the planner sees them.
fn spots(image: &Image) -> (Vec<(TopicPartition, &PartitionState)>, Vec<Spot>) {
    let (mut partitions, mut spots) = (Vec::new(), Vec::new());
    for (number, topic) in image.topics().enumerate() {
        for (id, state) in partitions_of(topic) {
            spots.push(Spot { topic: number, brokers: state.placement.clone(), leader: state.leader });
            partitions.push((id, state));
        }
    }
    (partitions, spots)
}

/// Brokers that take places: those that live and stay, without those that are nearly full as long as others suffice.
fn hosts(image: &Image, leaving: &BTreeSet<BrokerId>, copies_max: usize) -> Vec<Host> {
    let has = |broker: &metadata::Broker, wanted: StorageHealth| {
        broker.storages.values().any(|health| *health == wanted)
    };
    let stays = |broker: &&std::sync::Arc<metadata::Broker>| {
        !broker.fenced && !broker.draining && !leaving.contains(&broker.registration.broker)
    };
    let all: Vec<_> = image.brokers().filter(stays).collect();
    let roomy = all.iter().filter(|broker| has(broker, StorageHealth::Writable)).count();
    let takes = |broker: &metadata::Broker| {
        has(broker, StorageHealth::Writable) || (roomy < copies_max && has(broker, StorageHealth::ReadOnly))
    };
    let taking = all.into_iter().filter(|broker| takes(broker));
    let host = |broker: &std::sync::Arc<metadata::Broker>| Host {
        broker: broker.registration.broker,
        rack: broker.registration.rack.clone(),
    };
    taking.map(host).collect()
}

fn placements(
    image: &Image,
    leaving: &BTreeSet<BrokerId>,
    spreads: impl Fn(BrokerId) -> bool,
) -> Vec<ChainEdit> {
    let is_placed = |broker: BrokerId| {
        let mut placements = image.topics().flat_map(|topic| &topic.partitions);
        placements.any(|state| state.placement.contains(&broker))
    };
    let is_new = |broker: &metadata::Broker| {
        let id = broker.registration.broker;
        !broker.fenced && !leaving.contains(&id) && spreads(id) && !is_placed(id)
    };
    let fills = image.brokers().any(|broker| is_new(broker));
    if leaving.is_empty() && !fills {
        return Vec::new();
    }
    let (partitions, spots) = spots(image);
    let copies_max = spots.iter().map(|spot| spot.brokers.len()).max().unwrap_or(0);
    let mut hosts = hosts(image, leaving, copies_max);
    // One that came just now gets its share later, whole.
    hosts.retain(|host| spreads(host.broker) || is_placed(host.broker) || !fills);
    let aim = if fills { Aim::Fill } else { Aim::Vacate };
    let changes = balance::plan(&hosts, leaving, &spots, aim);
    let mut changes = changes.into_iter().peekable();
    let mut edits = Vec::new();
    for (number, (partition, state)) in partitions.into_iter().enumerate() {
        let changed = changes.next_if(|change| change.spot == number).map(|change| change.brokers);
        let brokers = changed.unwrap_or_else(|| state.placement.clone());
        // Who gives up a place keeps what it has, unless it leaves.
        let keeps = |broker: &&BrokerId| !brokers.contains(broker) && !leaving.contains(broker);
        let keepers: Vec<BrokerId> = match brokers == state.placement {
            true => state.keepers.iter().filter(keeps).copied().collect(),
            false => keepers(state, &brokers, leaving),
        };
        if (&brokers, &keepers) != (&state.placement, &state.keepers) {
            edits.push(ChainEdit::SetPlacement { partition, brokers, keepers });
        }
    }
    edits
}

/// Who keeps what it has of sealed segments once a partition is placed on `brokers`.
fn keepers(state: &PartitionState, brokers: &[BrokerId], leaving: &BTreeSet<BrokerId>) -> Vec<BrokerId> {
    let mut keepers: Vec<BrokerId> = Vec::new();
    for broker in state.keepers.iter().chain(&state.placement) {
        if !brokers.contains(broker) && !leaving.contains(broker) && !keepers.contains(broker) {
            keepers.push(*broker);
        }
    }
    keepers
}

/// Copies of brokers that leave and are down already, of which there are enough elsewhere: nobody else takes them off.
fn forgotten(image: &Image, leaving: &BTreeSet<BrokerId>) -> Vec<ChainEdit> {
    let is_dead = |broker: &&std::sync::Arc<metadata::Broker>| {
        broker.fenced && leaving.contains(&broker.registration.broker)
    };
    let dead: BTreeSet<StorageId> =
        image.brokers().filter(is_dead).flat_map(|broker| broker.storages.keys().copied()).collect();
    if dead.is_empty() {
        return Vec::new();
    }
    let staying =
        image.brokers().filter(|broker| !broker.fenced && !leaving.contains(&broker.registration.broker));
    let good: BTreeSet<StorageId> = staying
        .flat_map(|broker| broker.storages.iter().filter(|(_, health)| health.can_be_read()))
        .map(|(storage, _)| *storage)
        .collect();
    let mut edits = Vec::new();
    for (partition, state) in image.topics().flat_map(|topic| partitions_of(topic)) {
        for entry in &state.chain {
            let SegmentState::Sealed { replicas, .. } = &entry.state else { continue };
            if replicas.iter().filter(|storage| good.contains(storage)).count() < state.placement.len() {
                continue;
            }
            let segment = (entry.id, entry.generation);
            let drop = |storage: &StorageId| ChainEdit::DropReplica { partition, segment, storage: *storage };
            edits.extend(replicas.iter().filter(|storage| dead.contains(storage)).map(drop));
            if edits.len() >= FORGOTTEN_AT_ONCE {
                return edits;
            }
        }
    }
    edits
}

#[cfg(test)]
mod tests {
    use base::chain::{Member, Seal};
    use base::ids::{Incarnation, LeaderEpoch, Uuid};
    use metadata::{
        Command, LEAVING_BROKERS, MemoryStore, MetadataStore, MetadataVersions, NewTopic, Placement,
        Registration, Resource,
    };

    use super::*;

    fn storage(broker: i32) -> StorageId {
        Uuid([broker as u8; 16])
    }

    async fn register(store: &MemoryStore, broker: i32) {
        let registration = Registration {
            broker: BrokerId(broker),
            listeners: Vec::new(),
            rack: None,
            storages: vec![storage(broker)],
            metadata_versions: MetadataVersions::SUPPORTED,
            min_insync_replicas: None,
        };
        store.propose(Command::RegisterBroker(registration)).await.unwrap();
    }

    /// Brokers 1 to 3, and a topic with a partition for each list of them.
    async fn store(partitions: &[&[i32]]) -> MemoryStore {
        let store = MemoryStore::default();
        for broker in 1..=3 {
            register(&store, broker).await;
        }
        let member = |broker: &i32| Member {
            broker: BrokerId(*broker),
            storage: storage(*broker),
            incarnation: Incarnation(i64::from(*broker)),
        };
        let placement = |brokers: &&[i32]| Placement {
            brokers: brokers.iter().copied().map(BrokerId).collect(),
            ensemble: brokers.iter().map(member).collect(),
        };
        let placements = partitions.iter().map(placement).collect();
        let (id, name) = (Uuid([9; 16]), "t".to_owned());
        let topic = NewTopic { id, name, placements, configs: Vec::new(), internal: false };
        store.propose(Command::CreateTopics(vec![topic])).await.unwrap();
        store
    }

    async fn leave(store: &MemoryStore, brokers: &str) {
        let changes = vec![(LEAVING_BROKERS.to_owned(), Some(brokers.to_owned()))];
        let command = Command::AlterConfigs { resource: Resource::AllBrokers, changes };
        store.propose(command).await.unwrap();
    }

    /// Carries out what is planned until nothing is; how many edits that were.
    async fn settle(store: &MemoryStore, spreads: bool) -> usize {
        let (mut moving, mut edits) = (Moving::default(), 0);
        for second in 0..10 {
            let plan = moving.plan(&store.image(), |_| spreads, Duration::from_secs(second));
            if plan.is_empty() {
                return edits;
            }
            edits += plan.len();
            let result = store.propose(Command::Edit(plan)).await.unwrap();
            let metadata::CommandResult::Chains(results) = result else { panic!() };
            assert!(results.iter().all(Result::is_ok), "{results:?}");
        }
        panic!("it never ends");
    }

    /// Placements and keepers.
    fn placed(store: &MemoryStore) -> Vec<(Vec<i32>, Vec<i32>)> {
        let ids = |brokers: &[BrokerId]| brokers.iter().map(|broker| broker.0).collect();
        let image = store.image();
        let partitions = &image.topic("t").unwrap().partitions;
        partitions.iter().map(|state| (ids(&state.placement), ids(&state.keepers))).collect()
    }

    #[tokio::test]
    async fn a_new_broker_gets_places_and_who_had_them_keeps_what_it_has_unless_it_leaves() {
        let store = store(&[&[1, 2], &[2, 3], &[3, 1], &[1, 2]]).await;
        register(&store, 4).await;
        assert_eq!(settle(&store, false).await, 0, "it has not settled, or that is switched off");
        assert_eq!(settle(&store, true).await, 2);
        let moved: Vec<_> = placed(&store).into_iter().filter(|(_, keepers)| !keepers.is_empty()).collect();
        assert_eq!(moved.len(), 2, "{moved:?}");
        assert!(moved.iter().all(|(brokers, _)| brokers.contains(&4)), "{moved:?}");
        let keeper = moved[0].1[0];
        leave(&store, &keeper.to_string()).await;
        settle(&store, true).await;
        let is_named =
            |(brokers, keepers): &(Vec<i32>, Vec<i32>)| [&brokers[..], keepers].concat().contains(&keeper);
        assert!(!placed(&store).iter().any(is_named), "{:?}", placed(&store));
    }

    #[tokio::test]
    async fn what_a_dead_broker_that_leaves_had_is_forgotten_once_there_is_enough_elsewhere() {
        let store = store(&[&[1, 3]]).await;
        let partition = TopicPartition { topic_id: Uuid([9; 16]), partition: base::ids::PartitionId(0) };
        let state = store.image().partition(&partition).unwrap().clone();
        let (segment, end) = (state.last().id, 10);
        let (leader_epoch, holders) = (LeaderEpoch(0), vec![storage(1), storage(3)]);
        let seal = Seal { segment, leader_epoch, end, crc: 1, bytes: 5, holders, unclean: false };
        let member = |broker: i32| Member {
            broker: BrokerId(broker),
            storage: storage(broker),
            incarnation: Incarnation(i64::from(broker)),
        };
        let ensemble = vec![member(1), member(2)];
        let edit = ChainEdit::SealAndOpen { partition, seal, ensemble };
        store.propose(Command::Edit(vec![edit])).await.unwrap();
        let (broker, incarnation) = (BrokerId(3), Incarnation(3));
        store.propose(Command::SetFenced { broker, incarnation, fenced: true }).await.unwrap();
        leave(&store, "3").await;
        assert_eq!(settle(&store, true).await, 1);
        assert_eq!(placed(&store), [(vec![1, 2], vec![])]);
        let segment = (segment, base::ids::Generation(0));
        let copied = ChainEdit::AddReplica { partition, segment, storage: storage(2), crc: 1 };
        store.propose(Command::Edit(vec![copied])).await.unwrap();
        assert_eq!(settle(&store, true).await, 1);
        let state = store.image().partition(&partition).unwrap().clone();
        assert!(!state.chain[0].is_on(storage(3)) && state.chain[0].is_on(storage(2)));
    }
}
