//! One conformance suite for every metadata store: what callers may rely on.

use std::path::PathBuf;
use std::sync::Arc;

use base::chain::{ChainError, Member, Rewrite, Seal, SegmentState};
use base::env::sim::Sim;
use base::error::ErrorCode;
use base::ids::{
    BrokerId, Generation, Incarnation, LeaderEpoch, PartitionId, SegmentId, StorageId, TopicPartition, Uuid,
};

use super::commands::{member, placements, registration, storages, topic};
use super::group::Group;
use super::simulated;
use crate::command::{
    ChainEdit, Command, CommandResult, EditError, MetadataVersions, NewTopic, Placement, Refusal,
    Registration, Resource, StorageHealth,
};
use crate::memory::MemoryStore;
use crate::raft::{Limits, RaftStore};
use crate::residence::{LEAVING_BROKERS, Residence};
use crate::store::{COMMAND_BYTES_MAX, MetadataStore, ProposeError};
use crate::{PRODUCER_IDS_PER_COMMAND_MAX, TOPIC_PARTITIONS_MAX};

async fn on_each<F: Future<Output = ()>>(suite: impl Fn(Arc<dyn MetadataStore>) -> F) {
    suite(Arc::new(MemoryStore::default())).await;
    let sim = Sim::new(1);
    let opened = RaftStore::open(sim.env.clone(), PathBuf::from("/data/metadata"), BrokerId(1)).await;
    let store = Arc::new(opened.unwrap());
    suite(store.clone()).await;
    store.shutdown().await;
    let refused = store.propose(Command::ElectAll { leader: BrokerId(1) }).await;
    assert!(matches!(refused, Err(ProposeError::Unavailable(_))));
    // What ended lets go of its directory, though its handle lives on.
    let again = RaftStore::open(sim.env.clone(), PathBuf::from("/data/metadata"), BrokerId(1)).await.unwrap();
    assert_eq!(*again.image(), *store.image());
    again.shutdown().await;
    let group = Group::start(1, Limits::default()).await;
    suite(Arc::new(group.follower(9, &[1]).await)).await;
    let mut group = Group::start(3, Limits::default()).await;
    // The others name the cluster too, which counts.
    group.agree().await;
    let other = group.leader() as usize % 3;
    suite(Arc::new(group.stores[other].take().expect("it runs"))).await;
}

async fn items(store: &dyn MetadataStore, command: Command) -> Vec<Result<(), ErrorCode>> {
    match store.propose(command).await.unwrap() {
        CommandResult::Items(items) => {
            items.into_iter().map(|item| item.map_err(|Refusal { code, .. }| code)).collect()
        }
        other => panic!("{other:?}"),
    }
}

async fn register(store: &dyn MetadataStore, broker: i32) -> Incarnation {
    match store.propose(Command::RegisterBroker(registration(broker))).await.unwrap() {
        CommandResult::Registered(incarnation) => incarnation,
        other => panic!("{other:?}"),
    }
}

async fn edit(
    store: &dyn MetadataStore,
    edit: ChainEdit,
) -> Result<Arc<base::chain::PartitionState>, EditError> {
    match store.propose(Command::Edit(vec![edit])).await.unwrap() {
        CommandResult::Chains(mut chains) => chains.pop().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn topics_are_created_read_back_grown_and_deleted() {
    simulated(on_each(async |store: Arc<dyn MetadataStore>| {
        let store = &*store;
        let incarnation = register(store, 1).await;
        let one = |name| topic(name, 2, member(1, incarnation.0));
        let mut bad_member = one("bad");
        bad_member.placements[0].ensemble[0].incarnation.0 += 1;
        let topics = vec![
            one("a.b"),
            one("a_b"),
            one(".."),
            one("c"),
            one("c"),
            topic("none", 0, member(1, 1)),
            bad_member,
        ];
        let results = items(store, Command::CreateTopics(topics)).await;
        use ErrorCode::{
            InvalidPartitions, InvalidReplicaAssignment, InvalidTopicException, TopicAlreadyExists,
        };
        let invalid = Err(InvalidTopicException);
        // The second "c" has the id of the first: the same topic, asked for again.
        let expected =
            [Ok(()), invalid, invalid, Ok(()), Ok(()), Err(InvalidPartitions), Err(InvalidReplicaAssignment)];
        assert_eq!(results, expected);
        let names: Vec<String> = store.image().topics().map(|topic| topic.name.to_string()).collect();
        assert_eq!(names, ["a.b", "c"]);
        assert_eq!(items(store, Command::CreateTopics(vec![one("a.b")])).await, [Ok(())]);
        let other = crate::NewTopic { id: Uuid([9; 16]), ..one("a.b") };
        assert_eq!(items(store, Command::CreateTopics(vec![other])).await, [Err(TopicAlreadyExists)]);

        let id = one("c").id;
        let grow = |present, count| Command::CreatePartitions {
            topic_id: id,
            present,
            placements: placements(count, member(1, incarnation.0)),
        };
        assert_eq!(items(store, grow(2, 3)).await, [Ok(())]);
        for (present, count) in [(2, 3), (-1, 1), (5, TOPIC_PARTITIONS_MAX), (5, 0)] {
            assert_eq!(items(store, grow(present, count)).await, [Err(InvalidPartitions)]);
        }
        assert_eq!(store.image().topic("c").unwrap().partitions.len(), 5);
        let none = TopicPartition { topic_id: id, partition: PartitionId(-1) };
        assert!(store.image().partition(&none).is_none());

        let delete = Command::DeleteTopics(vec![one("a.b").id, Uuid([8; 16])]);
        assert_eq!(items(store, delete).await, [Ok(()), Err(ErrorCode::UnknownTopicId)]);
        assert_eq!(items(store, Command::CreateTopics(vec![one("a_b")])).await, [Ok(())]);
    }));
}

#[test]
fn configs_are_set_and_deleted_and_go_with_their_topic() {
    simulated(on_each(async |store: Arc<dyn MetadataStore>| {
        let store = &*store;
        let incarnation = register(store, 1).await;
        let new = topic("t", 1, member(1, incarnation.0));
        items(store, Command::CreateTopics(vec![new.clone()])).await;
        let resource = Resource::Topic("t".to_owned());
        let alter = |resource: &Resource, key: &str, value: Option<&str>| Command::AlterConfigs {
            resource: resource.clone(),
            changes: vec![(key.to_owned(), value.map(str::to_owned))],
        };
        assert_eq!(items(store, alter(&resource, "a", Some("1"))).await, [Ok(())]);
        assert_eq!(store.image().configs(&resource).get("a").map(String::as_str), Some("1"));
        assert_eq!(items(store, alter(&resource, "a", None)).await, [Ok(())]);
        assert_eq!(store.image().configured().count(), 0);
        let nobody = Resource::Topic("nobody".to_owned());
        assert_eq!(
            items(store, alter(&nobody, "a", Some("1"))).await,
            [Err(ErrorCode::UnknownTopicOrPartition)]
        );
        items(store, alter(&resource, "a", Some("1"))).await;
        items(store, alter(&Resource::AllBrokers, "b", Some("2"))).await;
        items(store, Command::DeleteTopics(vec![new.id])).await;
        assert_eq!(
            store.image().configured().map(|(resource, _)| resource.clone()).collect::<Vec<_>>(),
            [Resource::AllBrokers]
        );
    }));
}

#[test]
fn producer_ids_are_given_once_and_in_bounds() {
    simulated(on_each(async |store: Arc<dyn MetadataStore>| {
        let mut next = 0;
        for count in [1, 1_000, PRODUCER_IDS_PER_COMMAND_MAX, 5] {
            let result = store.propose(Command::AllocateProducerIds { count }).await.unwrap();
            assert_eq!(result, CommandResult::FirstId(next));
            next += count;
        }
        for count in [0, -1, i64::MIN, i64::MAX, PRODUCER_IDS_PER_COMMAND_MAX + 1] {
            let refused = items(&*store, Command::AllocateProducerIds { count }).await;
            assert_eq!(refused, [Err(ErrorCode::InvalidRequest)]);
        }
        assert_eq!(
            store.propose(Command::AllocateProducerIds { count: 1 }).await.unwrap(),
            CommandResult::FirstId(next)
        );
    }));
}

/// Broker 1, with a topic of one partition on it.
async fn create_one(store: &dyn MetadataStore) -> (Incarnation, TopicPartition) {
    let life = register(store, 1).await;
    let new = topic("t", 1, member(1, life.0));
    items(store, Command::CreateTopics(vec![new.clone()])).await;
    (life, TopicPartition { topic_id: new.id, partition: PartitionId(0) })
}

/// Of a segment that broker 1 alone holds.
fn seal(segment: SegmentId, epoch: i32, end: i64) -> Seal {
    Seal {
        segment,
        leader_epoch: LeaderEpoch(epoch),
        end,
        crc: 7,
        bytes: end as u64,
        holders: vec![storages(1)[0]],
        unclean: false,
    }
}

#[test]
fn chains_are_edited_by_the_present_leader_alone() {
    simulated(on_each(async |store: Arc<dyn MetadataStore>| {
        let store = &*store;
        let (first, partition) = create_one(store).await;
        let opened = store.image().partition(&partition).unwrap().last().id;
        let now = register(store, 1).await;
        assert_eq!(
            store.propose(Command::ElectAll { leader: BrokerId(1) }).await.unwrap(),
            CommandResult::Count(1)
        );
        let seal_and_open = |seal, member| ChainEdit::SealAndOpen { partition, seal, ensemble: vec![member] };
        let refused = edit(store, seal_and_open(seal(opened, 0, 10), member(1, first.0))).await;
        assert!(matches!(refused, Err(EditError::Chain(ChainError::StaleEpoch { .. }))));
        let refused = edit(store, seal_and_open(seal(opened, 1, 10), member(1, first.0))).await;
        assert_eq!(refused, Err(EditError::Chain(ChainError::ForeignMember(BrokerId(1)))));
        let other = register(store, 2).await;
        let refused = edit(store, seal_and_open(seal(opened, 1, 10), member(2, other.0))).await;
        assert_eq!(refused, Err(EditError::Chain(ChainError::LeaderNotMember(BrokerId(1)))));

        let good = seal_and_open(seal(opened, 1, 10), member(1, now.0));
        let state = edit(store, good.clone()).await.unwrap();
        assert_eq!((state.chain.len(), state.last().base), (2, 10));
        assert_eq!(edit(store, good).await.unwrap(), state, "the answer was lost, the edit was made");
        let differs = Seal { crc: 8, ..seal(opened, 1, 10) };
        let refused = edit(store, seal_and_open(differs, member(1, now.0))).await;
        assert_eq!(refused, Err(EditError::Chain(ChainError::StaleSegment(opened))));

        let mut rewrite = state.chain[0].clone();
        let old = vec![(rewrite.id, rewrite.generation)];
        let replace = |new, epoch: i32| {
            let leader_epoch = Some(LeaderEpoch(epoch));
            let rewrite = Rewrite { old: old.clone(), new, compacted_to: 10, leader_epoch };
            ChainEdit::Replace { partition, rewrite }
        };
        for (id, generation) in [(rewrite.id, 0), (SegmentId(1_000), 1), (state.last().id, 0)] {
            rewrite.generation.0 = generation;
            let named = base::chain::SegmentEntry { id, ..rewrite.clone() };
            let refused = edit(store, replace(named, 1)).await;
            assert_eq!(refused, Err(EditError::Chain(ChainError::StaleSegment(id))));
        }
        rewrite.generation.0 = 1;
        rewrite.state = SegmentState::Sealed { end: 10, crc: 1, bytes: 2, replicas: vec![storages(1)[0]] };
        let refused = edit(store, replace(rewrite.clone(), 0)).await;
        assert!(matches!(refused, Err(EditError::Chain(ChainError::StaleEpoch { .. }))));
        let replaced = edit(store, replace(rewrite.clone(), 1)).await.unwrap();
        assert_eq!((&replaced.chain[0], replaced.compacted_to), (&rewrite, 10));
        assert_eq!(edit(store, replace(rewrite, 1)).await.unwrap(), replaced);

        let trimmed = edit(store, ChainEdit::Trim { partition, start: 10 }).await.unwrap();
        assert_eq!((trimmed.chain.len(), trimmed.log_start), (1, 10));
        let nowhere = TopicPartition { partition: PartitionId(1), ..partition };
        let refused = edit(store, ChainEdit::Trim { partition: nowhere, start: 1 }).await;
        assert_eq!(refused, Err(EditError::UnknownPartition));
    }));
}

/// Seals the first segment of a partition; returns what puts a rewrite in its place that only the given storage has.
async fn sealed(store: &dyn MetadataStore) -> impl Fn(StorageId) -> ChainEdit {
    let (life, partition) = create_one(store).await;
    let present = store.image().partition(&partition).unwrap().clone();
    let seal = seal(present.last().id, present.leader_epoch.0, 10);
    let ensemble = vec![member(1, life.0)];
    let sealed = edit(store, ChainEdit::SealAndOpen { partition, seal, ensemble }).await.unwrap();
    move |storage| {
        let mut new = sealed.chain[0].clone();
        let old = vec![(new.id, new.generation)];
        new.generation.0 += 1;
        new.state = SegmentState::Sealed { end: 10, crc: 1, bytes: 2, replicas: vec![storage] };
        let rewrite = Rewrite { old, new, compacted_to: 10, leader_epoch: Some(sealed.leader_epoch) };
        ChainEdit::Replace { partition, rewrite }
    }
}

#[test]
fn a_rewrite_is_refused_that_is_where_nothing_is_any_more() {
    simulated(on_each(async |store: Arc<dyn MetadataStore>| {
        let store = &*store;
        let replace = sealed(store).await;
        // It was fetched by a log directory that its broker came back without.
        register(store, 2).await;
        let [gone, kept] = storages(2)[..] else { panic!("two log directories") };
        let without = Registration { storages: vec![kept], ..registration(2) };
        let registered = store.propose(Command::RegisterBroker(without)).await.unwrap();
        assert!(matches!(registered, CommandResult::Registered(_)), "{registered:?}");
        for storage in [gone, Uuid([9; 16])] {
            let refused = edit(store, replace(storage)).await;
            assert_eq!(refused, Err(EditError::Chain(ChainError::TooFewCopies { have: 0, need: 1 })));
        }
        assert!(edit(store, replace(kept)).await.is_ok());
    }));
}

#[test]
fn nodes_of_an_earlier_level_take_a_rewrite_wherever_it_is() {
    simulated(async {
        let store = MemoryStore::default().at_metadata_version(2);
        let replace = sealed(&store).await;
        assert!(edit(&store, replace(Uuid([9; 16]))).await.is_ok());
    });
}

#[test]
fn the_quorum_has_its_leader_and_says_how_far_it_is() {
    simulated(on_each(async |store: Arc<dyn MetadataStore>| {
        register(&*store, 1).await;
        let quorum = store.quorum();
        assert_eq!(quorum.leader, store.controller());
        let voter =
            quorum.voters.iter().find(|voter| Some(voter.id) == quorum.leader).expect("it leads itself");
        assert!(quorum.applied > 0, "{quorum:?}");
        assert!(voter.log_end.is_none_or(|end| end >= quorum.applied), "{quorum:?}");
    }));
}

#[test]
fn a_number_is_not_taken_over_from_a_process_that_lives() {
    simulated(on_each(async |store: Arc<dyn MetadataStore>| {
        let store = &*store;
        let first = register(store, 1).await;
        let other = Registration { storages: vec![Uuid([9; 16])], ..registration(1) };
        let enter = async |registration: &Registration| match store
            .propose(Command::RegisterBroker(registration.clone()))
            .await
            .unwrap()
        {
            CommandResult::Registered(incarnation) => Ok(incarnation),
            CommandResult::Items(mut items) => Err(items.remove(0).unwrap_err()),
            other => panic!("{other:?}"),
        };
        let refused = enter(&other).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::DuplicateBrokerRegistration);
        assert!(refused.message.contains("localhost:9092"), "{refused}");
        assert_eq!(store.image().broker(BrokerId(1)).unwrap().incarnation, first, "nothing changed");
        // One of its directories is enough: it cannot be open in two processes.
        let with_one = Registration { storages: vec![Uuid([8; 16]), storages(1)[1]], ..registration(1) };
        let second = enter(&with_one).await.unwrap();
        assert!(second > first);
        let fence = Command::SetFenced { broker: BrokerId(1), incarnation: second, fenced: true };
        assert_eq!(items(store, fence).await, [Ok(())]);
        assert!(enter(&other).await.unwrap() > second);
        let later = MetadataVersions::SUPPORTED.max + 1;
        let metadata_versions = MetadataVersions { min: later, max: later };
        let refused = enter(&Registration { metadata_versions, ..registration(2) }).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::UnsupportedVersion);
        assert!(refused.message.contains(&format!("serves at {later} to {later}")), "{refused}");
        assert!(store.image().broker(BrokerId(2)).is_none());
    }));
}

#[test]
fn new_nodes_are_given_numbers_that_nobody_has() {
    simulated(on_each(async |store: Arc<dyn MetadataStore>| {
        let allocate =
            async |above| store.propose(Command::AllocateBrokerId { above: BrokerId(above) }).await.unwrap();
        assert_eq!(allocate(-1).await, CommandResult::FirstId(0));
        register(&*store, 2).await;
        assert_eq!(allocate(-1).await, CommandResult::FirstId(3));
        assert_eq!(allocate(-1).await, CommandResult::FirstId(4), "one that was given is not given again");
        assert_eq!(allocate(7).await, CommandResult::FirstId(8));
        let refused = allocate(i32::MAX).await;
        assert!(matches!(&refused, CommandResult::Items(items) if items[0].is_err()), "{refused:?}");
        assert_eq!(allocate(0).await, CommandResult::FirstId(9));
    }));
}

#[test]
fn the_version_of_the_metadata_only_rises() {
    simulated(async {
        let store = MemoryStore::default().at_metadata_version(1);
        register(&store, 1).await;
        let other = Registration { storages: vec![Uuid([9; 16])], ..registration(1) };
        let entered = store.propose(Command::RegisterBroker(other)).await.unwrap();
        assert!(matches!(entered, CommandResult::Registered(_)), "as earlier versions do: {entered:?}");
        for (version, result) in [(2, Ok(())), (1, Err(ErrorCode::InvalidUpdateVersion)), (2, Ok(()))] {
            assert_eq!(items(&store, Command::SetMetadataVersion(version)).await, [result]);
            assert_eq!(store.image().metadata_version(), 2);
        }
    });
}

#[test]
fn a_life_that_ends_is_marked_until_the_next_begins() {
    simulated(on_each(async |store: Arc<dyn MetadataStore>| {
        let store = &*store;
        let first = register(store, 1).await;
        let drain =
            |broker: i32, incarnation| items(store, Command::Drain { broker: BrokerId(broker), incarnation });
        let is_draining = || store.image().broker(BrokerId(1)).unwrap().draining;
        assert_eq!(drain(2, first).await, [Err(ErrorCode::BrokerIdNotRegistered)]);
        assert_eq!(drain(1, Incarnation(first.0 + 1)).await, [Err(ErrorCode::StaleBrokerEpoch)]);
        assert!(!is_draining());
        assert_eq!(drain(1, first).await, [Ok(())]);
        assert_eq!(drain(1, first).await, [Ok(())]);
        assert!(is_draining());
        register(store, 1).await;
        assert!(!is_draining());
    }));
}

#[test]
fn a_fenced_broker_and_a_storage_that_takes_nothing_are_in_no_new_ensemble() {
    simulated(on_each(async |store: Arc<dyn MetadataStore>| {
        let store = &*store;
        let lives = [register(store, 1).await, register(store, 2).await];
        let new = NewTopic {
            placements: vec![Placement {
                brokers: vec![BrokerId(1), BrokerId(2)],
                ensemble: vec![member(1, lives[0].0), member(2, lives[1].0)],
            }],
            ..topic("t", 1, member(1, lives[0].0))
        };
        items(store, Command::CreateTopics(vec![new.clone()])).await;
        let partition = TopicPartition { topic_id: new.id, partition: PartitionId(0) };
        let fence = |broker: i32, incarnation: Incarnation, fenced| {
            let command = Command::SetFenced { broker: BrokerId(broker), incarnation, fenced };
            async move { items(store, command).await }
        };
        assert_eq!(fence(2, lives[0], true).await, [Err(ErrorCode::StaleBrokerEpoch)]);
        assert_eq!(fence(3, lives[0], true).await, [Err(ErrorCode::BrokerIdNotRegistered)]);
        assert_eq!(fence(2, lives[1], true).await, [Ok(())]);

        let elect = |leader: i32, epoch| {
            let (leader, epoch) = (BrokerId(leader), LeaderEpoch(epoch));
            edit(store, ChainEdit::Elect { partition, leader, epoch })
        };
        assert_eq!(elect(2, 1).await, Err(EditError::Chain(ChainError::ForeignMember(BrokerId(2)))));
        let elected = elect(1, 1).await.unwrap();
        assert_eq!((elected.leader, elected.leader_epoch), (BrokerId(1), LeaderEpoch(1)));
        assert_eq!(elect(1, 1).await.unwrap(), elected, "the answer was lost, the election was held");

        let seal_and_open = |epoch, ensemble: Vec<Member>| {
            let seal = Seal {
                segment: elected.last().id,
                leader_epoch: LeaderEpoch(epoch),
                end: 10,
                crc: 7,
                bytes: 10,
                holders: vec![storages(1)[0]],
                unclean: false,
            };
            edit(store, ChainEdit::SealAndOpen { partition, seal, ensemble })
        };
        let foreign = |broker| Err(EditError::Chain(ChainError::ForeignMember(BrokerId(broker))));
        let both = || vec![member(1, lives[0].0), member(2, lives[1].0)];
        assert_eq!(seal_and_open(1, both()).await, foreign(2));
        fence(2, lives[1], false).await;
        let state = |state| {
            let command = Command::SetStorageHealth { broker: BrokerId(1), storage: storages(1)[0], state };
            async move { items(store, command).await }
        };
        assert_eq!(state(StorageHealth::Failed).await, [Ok(())]);
        assert_eq!(seal_and_open(1, both()).await, foreign(1));
        assert_eq!(state(StorageHealth::Writable).await, [Ok(())]);
        let sealed = seal_and_open(1, both()).await.unwrap();
        assert_eq!(sealed.chain.len(), 2);
    }));
}

#[test]
fn copies_of_a_sealed_segment_are_counted_and_lost_storages_hold_none() {
    simulated(on_each(async |store: Arc<dyn MetadataStore>| {
        let store = &*store;
        let life = register(store, 1).await;
        register(store, 2).await;
        let new = topic("t", 1, member(1, life.0));
        items(store, Command::CreateTopics(vec![new.clone()])).await;
        let partition = TopicPartition { topic_id: new.id, partition: PartitionId(0) };
        let open = store.image().partition(&partition).unwrap().last().id;
        let [here, there] = [storages(1)[0], storages(2)[0]];
        let seal = Seal {
            segment: open,
            leader_epoch: LeaderEpoch(0),
            end: 10,
            crc: 7,
            bytes: 10,
            holders: vec![here],
            unclean: false,
        };
        edit(store, ChainEdit::SealAndOpen { partition, seal, ensemble: vec![member(1, life.0)] })
            .await
            .unwrap();
        let segment = (open, Generation(0));
        let add = |storage, crc| edit(store, ChainEdit::AddReplica { partition, segment, storage, crc });
        let drop = |storage| edit(store, ChainEdit::DropReplica { partition, segment, storage });
        let unknown = Uuid([9; 16]);
        assert_eq!(add(unknown, 7).await, Err(EditError::Chain(ChainError::UnknownStorage(unknown))));
        assert!(matches!(add(there, 8).await, Err(EditError::Chain(ChainError::WrongCrc { .. }))));
        assert!(matches!(
            drop(here).await,
            Err(EditError::Chain(ChainError::TooFewCopies { have: 0, need: 1 }))
        ));
        add(there, 7).await.unwrap();
        drop(here).await.unwrap();
        let lost =
            Command::SetStorageHealth { broker: BrokerId(2), storage: there, state: StorageHealth::Lost };
        assert_eq!(items(store, lost).await, [Ok(())]);
        let state = drop(there).await.unwrap();
        let SegmentState::Sealed { replicas, .. } = &state.chain[0].state else { panic!("sealed") };
        assert!(replicas.is_empty(), "what was lost is listed no more");

        let place = |brokers: &[i32]| {
            let brokers = brokers.iter().copied().map(BrokerId).collect();
            edit(store, ChainEdit::SetPlacement { partition, brokers, keepers: vec![BrokerId(1)] })
        };
        for bad in [&[][..], &[1, 1], &[1, 3]] {
            assert_eq!(place(bad).await, Err(EditError::Chain(ChainError::BadPlacement)));
        }
        assert_eq!(
            place(&[2, 1]).await,
            Err(EditError::Chain(ChainError::BadPlacement)),
            "who keeps what it has is no other one"
        );
        let placed = place(&[2]).await.unwrap();
        assert_eq!((&placed.placement[..], &placed.keepers[..]), (&[BrokerId(2)][..], &[BrokerId(1)][..]));
    }));
}

/// Brokers 1 and 2, both with a whole copy of what a partition had before its open segment, which 1 leads alone.
async fn two_copies(store: &dyn MetadataStore) -> (TopicPartition, (SegmentId, Generation)) {
    let life = register(store, 1).await;
    register(store, 2).await;
    let new = topic("t", 1, member(1, life.0));
    items(store, Command::CreateTopics(vec![new.clone()])).await;
    let partition = TopicPartition { topic_id: new.id, partition: PartitionId(0) };
    let segment = store.image().partition(&partition).unwrap().last().id;
    let holders = vec![storages(1)[0], storages(2)[0]];
    let (leader_epoch, unclean) = (LeaderEpoch(0), false);
    let seal = Seal { segment, leader_epoch, end: 10, crc: 7, bytes: 100, holders, unclean };
    let ensemble = vec![member(1, life.0)];
    edit(store, ChainEdit::SealAndOpen { partition, seal, ensemble }).await.unwrap();
    (partition, (segment, Generation(0)))
}

#[test]
fn a_copy_goes_only_where_as_many_as_are_wanted_remain_with_brokers_that_live() {
    simulated(on_each(async |store: Arc<dyn MetadataStore>| {
        let store = &*store;
        let (partition, segment) = two_copies(store).await;
        let place = |brokers: &[i32]| {
            let brokers = brokers.iter().copied().map(BrokerId).collect();
            edit(store, ChainEdit::SetPlacement { partition, brokers, keepers: Vec::new() })
        };
        place(&[1, 2]).await.unwrap();
        let drop =
            |broker| edit(store, ChainEdit::DropReplica { partition, segment, storage: storages(broker)[0] });
        let too_few = Err(EditError::Chain(ChainError::TooFewCopies { have: 1, need: 2 }));
        assert_eq!(drop(2).await, too_few);
        place(&[1]).await.unwrap();
        let incarnation = store.image().broker(BrokerId(1)).unwrap().incarnation;
        let fence = |fenced| Command::SetFenced { broker: BrokerId(1), incarnation, fenced };
        items(store, fence(true)).await;
        let too_few = Err(EditError::Chain(ChainError::TooFewCopies { have: 0, need: 1 }));
        assert_eq!(drop(2).await, too_few, "what nobody can read does not count");
        items(store, fence(false)).await;
        drop(2).await.unwrap();
    }));
}

#[test]
fn a_broker_goes_off_the_list_once_it_has_nothing_and_ended() {
    simulated(on_each(async |store: Arc<dyn MetadataStore>| {
        let store = &*store;
        let (partition, segment) = two_copies(store).await;
        let code = async |broker| {
            let items = items(store, Command::UnregisterBroker { broker: BrokerId(broker) }).await;
            items[0]
        };
        assert_eq!(code(3).await, Err(ErrorCode::BrokerIdNotRegistered));
        assert_eq!(code(1).await, Err(ErrorCode::ReassignmentInProgress), "it leads");
        assert_eq!(code(2).await, Err(ErrorCode::ReassignmentInProgress), "it has a copy");
        assert_eq!(
            Residence::of(&store.image(), BrokerId(2)),
            Residence { partitions: 0, copies: 1, bytes: 100, short: 0 }
        );
        let of_leader = Residence::of(&store.image(), BrokerId(1));
        assert_eq!(of_leader, Residence { partitions: 1, copies: 2, bytes: 100, short: 1 });
        let storage = storages(2)[0];
        edit(store, ChainEdit::DropReplica { partition, segment, storage }).await.unwrap();
        assert_eq!(code(2).await, Err(ErrorCode::DuplicateBrokerRegistration), "it lives");
        let leaving = |value: &str| Command::AlterConfigs {
            resource: Resource::AllBrokers,
            changes: vec![(LEAVING_BROKERS.to_owned(), Some(value.to_owned()))],
        };
        items(store, leaving("2,1, 7")).await;
        assert_eq!(store.image().leaving(), [1, 2, 7].map(BrokerId).into());
        let incarnation = store.image().broker(BrokerId(2)).unwrap().incarnation;
        items(store, Command::SetFenced { broker: BrokerId(2), incarnation, fenced: true }).await;
        assert_eq!(code(2).await, Ok(()));
        assert!(store.image().broker(BrokerId(2)).is_none());
        assert_eq!(store.image().leaving(), [1, 7].map(BrokerId).into(), "another one may have its number");
    }));
}

#[test]
fn what_is_proposed_is_applied_in_order_though_nobody_waits_and_subscribers_see_it() {
    simulated(on_each(async |store: Arc<dyn MetadataStore>| {
        let mut images = store.subscribe();
        let before = store.image().version;
        for _ in 0..50 {
            drop(store.propose(Command::AllocateProducerIds { count: 10 }));
        }
        let result = store.propose(Command::AllocateProducerIds { count: 1 }).await.unwrap();
        assert_eq!(result, CommandResult::FirstId(500));
        assert_eq!(store.image().version, before + 51);
        assert_eq!(images.borrow_and_update().version, before + 51);
    }));
}

#[test]
fn a_command_that_is_too_long_is_refused() {
    simulated(on_each(async |store: Arc<dyn MetadataStore>| {
        let before = store.image();
        let value = Some("x".repeat(COMMAND_BYTES_MAX));
        let command =
            Command::AlterConfigs { resource: Resource::AllBrokers, changes: vec![("a".to_owned(), value)] };
        assert!(matches!(store.propose(command).await, Err(ProposeError::TooLarge { .. })));
        assert_eq!(*before, *store.image());
    }));
}
