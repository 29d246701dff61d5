//! Brokers that come and go for good: who takes what they had, and what they get.

use std::collections::BTreeMap;
use std::time::Duration;

use base::chain::{PartitionState, SegmentEntry, SegmentState};
use base::error::ErrorCode;
use base::ids::{BrokerId, PartitionId, StorageId};
use metadata::{Command, LEAVING_BROKERS, Residence, Resource, StorageHealth};
use wire::message::*;

use crate::members::Cluster;
use crate::support::{Life, ask, run};

async fn start(cluster: &Cluster, brokers: i32) -> Vec<Option<Life>> {
    let mut lives = Vec::new();
    for node in 1..=brokers {
        lives.push(Some(cluster.start(node).await));
    }
    lives
}

/// `copies` brokers for each of `count` partitions, in turn over brokers 1 to `brokers`.
fn round(brokers: i32, count: i32, copies: i32) -> Vec<Vec<i32>> {
    let placement = |number| (0..copies).map(|rank| 1 + (number + rank) % brokers).collect();
    (0..count).map(placement).collect()
}

fn states(cluster: &Cluster) -> Vec<PartitionState> {
    let image = cluster.metadata.image();
    let topic = image.topic("t").unwrap();
    topic.partitions.iter().map(|state| PartitionState::clone(state)).collect()
}

fn state(cluster: &Cluster, partition: i32) -> PartitionState {
    let image = cluster.metadata.image();
    PartitionState::clone(image.topic("t").unwrap().partition(PartitionId(partition)).unwrap())
}

fn storages(cluster: &Cluster, broker: i32) -> Vec<StorageId> {
    cluster.metadata.image().broker(BrokerId(broker)).unwrap().storages.keys().copied().collect()
}

/// How many sealed segments of a partition a broker has.
fn sealed_on(cluster: &Cluster, state: &PartitionState, broker: i32) -> usize {
    let storages = storages(cluster, broker);
    let sealed = state.chain.iter().filter(|entry| !entry.is_open());
    sealed.filter(|entry| storages.iter().any(|storage| entry.is_on(*storage))).count()
}

/// The least copies that any sealed segment has with brokers that live.
fn copies_least(cluster: &Cluster) -> usize {
    let image = cluster.metadata.image();
    let states = states(cluster);
    let copies = states.iter().flat_map(|state| &state.chain).filter_map(|entry| match &entry.state {
        SegmentState::Sealed { replicas, .. } => {
            Some(replicas.iter().filter(|storage| image.is_readable(**storage)).count())
        }
        SegmentState::Open { .. } => None,
    });
    copies.min().expect("something is sealed")
}

fn files(cluster: &Cluster, node: i32) -> usize {
    let dir = std::path::PathBuf::from(format!("/log-{node}/topics/t"));
    let partitions = cluster.env.disk.read_dir(&dir).unwrap_or_default();
    let count = |name: &str| cluster.env.disk.read_dir(&dir.join(name)).map_or(0, |found| found.len());
    partitions.iter().map(|it| count(&it.name)).sum()
}

async fn seconds(cluster: &Cluster, seconds: u64) {
    cluster.env.clock.sleep(Duration::from_secs(seconds)).await;
}

/// Waits until the controller has fenced a broker.
async fn fenced(cluster: &Cluster, broker: i32) {
    let is_fenced = || cluster.metadata.image().broker(BrokerId(broker)).unwrap().fenced;
    cluster.until("it is fenced", 10, is_fenced).await;
}

/// Records of all partitions, numbered.
struct Written(i32);

impl Written {
    /// Writes some more records to each.
    async fn more(&mut self, cluster: &Cluster, asked: i32, count: i32) {
        for partition in 0..states(cluster).len() as i32 {
            for value in self.0..self.0 + count {
                cluster.produce_to_leader(asked, "t", partition, &value.to_string()).await;
            }
        }
        self.0 += count;
    }

    async fn check(&self, cluster: &Cluster, asked: i32) {
        let expected: Vec<String> = (0..self.0).map(|value| value.to_string()).collect();
        for partition in 0..states(cluster).len() as i32 {
            let mut values = cluster.values(asked, "t", partition).await;
            // What was refused because another broker leads may be there nevertheless, and was sent again.
            values.dedup();
            assert_eq!(values, expected, "partition {partition}");
        }
    }
}

const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Says to a broker that another one leaves, or stays.
async fn leave(cluster: &Cluster, asked: i32, operation: i8, broker: &str) -> ErrorCode {
    leave_as(cluster, asked, "", operation, broker).await
}

async fn leave_as(cluster: &Cluster, asked: i32, resource: &str, operation: i8, broker: &str) -> ErrorCode {
    const BROKER: i8 = 4;
    let config = incremental_alter_configs_request::AlterableConfig {
        name: LEAVING_BROKERS.into(),
        config_operation: operation,
        value: Some(broker.to_owned().into()),
    };
    let resource = incremental_alter_configs_request::AlterConfigsResource {
        resource_type: BROKER,
        resource_name: resource.to_owned().into(),
        configs: vec![config],
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let mut stream = cluster.connect(asked).await;
    ask(&mut *stream, 1, &request, |response| ErrorCode::from_code(response.responses[0].error_code)).await
}

async fn unregister(cluster: &Cluster, asked: i32, broker: i32) -> (ErrorCode, String) {
    let request = UnregisterBrokerRequest { broker_id: broker };
    let mut stream = cluster.connect(asked).await;
    ask(&mut *stream, 0, &request, |response| {
        let message = response.error_message.as_deref().unwrap_or_default().to_owned();
        (ErrorCode::from_code(response.error_code), message)
    })
    .await
}

/// Bytes of all partitions that a broker says it has.
async fn log_dir_bytes(cluster: &Cluster, asked: i32) -> i64 {
    let mut stream = cluster.connect(asked).await;
    let request = DescribeLogDirsRequest { topics: None };
    ask(&mut *stream, 4, &request, |response| {
        assert_eq!((response.error_code, response.results.len()), (0, 1));
        let dir = &response.results[0];
        assert_eq!((dir.error_code, &*dir.log_dir), (0, &*format!("/log-{asked}")));
        assert!(dir.total_bytes >= dir.usable_bytes && dir.usable_bytes > 0);
        dir.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.partition_size).sum()
    })
    .await
}

async fn set(cluster: &Cluster, key: &str, value: &str) {
    let changes = vec![(key.to_owned(), Some(value.to_owned()))];
    let command = Command::AlterConfigs { resource: Resource::AllBrokers, changes };
    cluster.metadata.propose(command).await.unwrap();
}

fn leaves(seed: u64, copies: usize) {
    run(async {
        let cluster = Cluster::new(seed).await;
        let mut lives = start(&cluster, 4).await;
        cluster.create_on(&round(4, 8, copies as i32)).await;
        let mut written = Written(0);
        written.more(&cluster, 1, 10).await;
        assert_eq!(unregister(&cluster, 2, 4).await.0, ErrorCode::ReassignmentInProgress);
        assert!(log_dir_bytes(&cluster, 4).await > 0);
        assert_eq!(leave(&cluster, 2, APPEND, "4").await, ErrorCode::None);
        let is_empty = || Residence::of(&cluster.metadata.image(), BrokerId(4)).is_empty();
        for _ in 0..200 {
            written.more(&cluster, 1, 1).await;
            if is_empty() {
                break;
            }
        }
        cluster.until("broker 4 has nothing", 30, is_empty).await;
        for state in states(&cluster) {
            assert!(!state.placement.contains(&BrokerId(4)) && state.leader != BrokerId(4), "{state:?}");
            assert_eq!((state.placement.len(), state.open_members()), (copies, copies));
        }
        let (code, message) = unregister(&cluster, 3, 4).await;
        assert_eq!(code, ErrorCode::DuplicateBrokerRegistration, "{message}");
        seconds(&cluster, 5).await;
        assert_eq!((files(&cluster, 4), log_dir_bytes(&cluster, 4).await), (0, 0));
        lives[3].take().unwrap().leave(&cluster.env).await;
        assert_eq!(unregister(&cluster, 3, 4).await.0, ErrorCode::None);
        assert!(cluster.metadata.image().broker(BrokerId(4)).is_none());
        assert_eq!(unregister(&cluster, 3, 4).await.0, ErrorCode::BrokerIdNotRegistered);
        written.more(&cluster, 1, 5).await;
        written.check(&cluster, 1).await;
        // Another one with its number begins anew.
        lives[3] = Some(cluster.start(4).await);
        assert!(cluster.metadata.image().leaving().is_empty());
    });
}

#[test]
fn a_broker_that_leaves_gives_everything_to_others_under_load() {
    leaves(41, 3);
}

#[test]
fn single_copies_leave_too() {
    leaves(50, 1);
}

#[test]
fn copies_never_fall_below_what_is_asked_while_a_broker_leaves() {
    run(async {
        let cluster = Cluster::new(42).await;
        let _lives = start(&cluster, 4).await;
        cluster.create_on(&round(4, 8, 3)).await;
        let mut written = Written(0);
        written.more(&cluster, 1, 10).await;
        leave(&cluster, 1, APPEND, "3").await;
        let image = || cluster.metadata.image();
        let mut images = cluster.metadata.subscribe();
        loop {
            // Every change of the metadata is looked at.
            let now = images.borrow_and_update().clone();
            for state in now.topics().flat_map(|topic| &topic.partitions) {
                for entry in &state.chain {
                    let copies = match &entry.state {
                        SegmentState::Sealed { replicas, .. } => replicas.len(),
                        SegmentState::Open { ensemble } => ensemble.len(),
                    };
                    assert!(copies >= 3, "{state:?}");
                }
            }
            if Residence::of(&image(), BrokerId(3)).is_empty() {
                break;
            }
            images.changed().await.unwrap();
        }
        written.check(&cluster, 1).await;
    });
}

#[test]
fn a_broker_that_is_down_can_leave_as_far_as_others_have_what_it_had() {
    run(async {
        let cluster = Cluster::new(43).await;
        let mut lives = start(&cluster, 4).await;
        cluster.create_on(&round(4, 4, 2)).await;
        let mut written = Written(0);
        written.more(&cluster, 1, 10).await;
        lives[3].take().unwrap().leave(&cluster.env).await;
        written.more(&cluster, 1, 10).await;
        assert_eq!(leave(&cluster, 1, APPEND, "4").await, ErrorCode::None);
        let is_empty = || Residence::of(&cluster.metadata.image(), BrokerId(4)).is_empty();
        cluster.until("nothing is wanted of broker 4 any more", 30, is_empty).await;
        assert_eq!(copies_least(&cluster), 2);
        assert_eq!(unregister(&cluster, 3, 4).await.0, ErrorCode::None);
        written.check(&cluster, 1).await;
    });
}

#[test]
fn what_only_a_dead_broker_has_keeps_it_on_the_list() {
    run(async {
        let cluster = Cluster::new(44).await;
        let mut lives = start(&cluster, 3).await;
        cluster.create_on(&[vec![3], vec![1]]).await;
        Written(0).more(&cluster, 1, 10).await;
        lives[2].take().unwrap().leave(&cluster.env).await;
        assert_eq!(leave(&cluster, 1, APPEND, "3").await, ErrorCode::None);
        seconds(&cluster, 30).await;
        let (code, message) = unregister(&cluster, 1, 3).await;
        assert_eq!(code, ErrorCode::ReassignmentInProgress, "{message}");
        assert!(message.contains("copies of segments"), "{message}");
        // It comes back, gives what it has, and can go.
        lives[2] = Some(cluster.start(3).await);
        let is_empty = || Residence::of(&cluster.metadata.image(), BrokerId(3)).is_empty();
        cluster.until("broker 3 has nothing", 30, is_empty).await;
    });
}

#[test]
fn who_cannot_leave_is_refused_and_who_leaves_may_stay() {
    run(async {
        let cluster = Cluster::new(45).await;
        let _lives = start(&cluster, 3).await;
        cluster.create_on(&round(3, 3, 3)).await;
        let mut written = Written(0);
        written.more(&cluster, 1, 5).await;
        let invalid = ErrorCode::InvalidRequest;
        for broker in ["9", "x", "1,2,3"] {
            assert_eq!(leave(&cluster, 1, APPEND, broker).await, invalid, "{broker}");
        }
        assert_eq!(leave_as(&cluster, 1, "1", APPEND, "1").await, invalid, "it is no matter of one broker");
        // Nobody can take what broker 3 has: it goes on as before, but leads nothing that others can lead.
        assert_eq!(leave(&cluster, 1, APPEND, "3").await, ErrorCode::None);
        cluster.until("others lead", 10, || states(&cluster).iter().all(|it| it.leader != BrokerId(3))).await;
        written.more(&cluster, 1, 5).await;
        assert!(states(&cluster).iter().all(|state| state.placement.len() == 3 && state.open_members() == 3));
        assert_eq!(unregister(&cluster, 1, 3).await.0, ErrorCode::ReassignmentInProgress);
        assert_eq!(cluster.create_with(1, "more", 3, &[]).await, ErrorCode::InvalidReplicationFactor);
        assert_eq!(cluster.create_with(1, "more", 2, &[]).await, ErrorCode::None);
        let image = cluster.metadata.image();
        let more = image.topic("more").unwrap();
        assert!(more.partitions.iter().all(|state| !state.placement.contains(&BrokerId(3))));
        assert_eq!(leave(&cluster, 2, SUBTRACT, "3").await, ErrorCode::None);
        assert_eq!(cluster.create_with(1, "again", 3, &[]).await, ErrorCode::None);
        written.check(&cluster, 1).await;
    });
}

#[test]
fn a_broker_that_is_gone_is_replaced_after_a_while_and_gets_its_copies_back() {
    run(async {
        let cluster = Cluster::new(46).await;
        set(&cluster, "vltava.repair.delay.ms", "60000").await;
        let mut lives = start(&cluster, 5).await;
        cluster.create_on(&[vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2]]).await;
        let mut written = Written(0);
        written.more(&cluster, 1, 20).await;
        lives[2].take().unwrap().leave(&cluster.env).await;
        written.more(&cluster, 1, 10).await;
        seconds(&cluster, 40).await;
        let spare = |state: &PartitionState| sealed_on(&cluster, state, 4) + sealed_on(&cluster, state, 5);
        let first = |state: &PartitionState| {
            let storages = [storages(&cluster, 4), storages(&cluster, 5)].concat();
            storages.iter().any(|storage| state.chain[0].is_on(*storage))
        };
        assert!(!states(&cluster).iter().any(first), "it may come back");
        seconds(&cluster, 30).await;
        assert!(states(&cluster).iter().all(first), "{:#?}", states(&cluster));
        assert_eq!(copies_least(&cluster), 3);
        let short = |life: &Option<Life>| {
            life.as_ref().map_or(0, |life| life.metrics.node().under_replicated_segments.get())
        };
        assert_eq!(lives.iter().map(short).sum::<i64>(), 0);
        let fetched = |node: usize| lives[node].as_ref().unwrap().metrics.node().repair_fetched_bytes.get();
        assert!(fetched(3) + fetched(4) > 0);
        written.more(&cluster, 1, 10).await;
        lives[2] = Some(cluster.start(3).await);
        let is_back = || states(&cluster).iter().all(|state| spare(state) == 0 && state.open_members() == 3);
        cluster.until("copies elsewhere are given up", 60, is_back).await;
        assert_eq!(copies_least(&cluster), 3);
        seconds(&cluster, 5).await;
        assert_eq!((files(&cluster, 4), files(&cluster, 5)), (0, 0));
        written.more(&cluster, 1, 5).await;
        written.check(&cluster, 1).await;
    });
}

#[test]
fn fetching_keeps_to_its_pace() {
    run(async {
        let cluster = Cluster::new(47).await;
        set(&cluster, "vltava.repair.delay.ms", "0").await;
        set(&cluster, "vltava.repair.io.max.bytes.per.second", "1000").await;
        let mut lives = start(&cluster, 3).await;
        cluster.create_on(&vec![vec![1, 2]; 6]).await;
        let value = "x".repeat(2_500);
        for partition in 0..6 {
            cluster.produce_to_leader(1, "t", partition, &value).await;
        }
        lives[1].take().unwrap().leave(&cluster.env).await;
        fenced(&cluster, 2).await;
        let began = cluster.env.clock.now();
        let whole = || copies_least(&cluster) == 2;
        assert!(!whole());
        cluster.until("all are copied", 60, whole).await;
        let took = cluster.env.clock.now() - began;
        // At 1,000 bytes a second; it was begun a moment before or after.
        let of = |entry: &SegmentEntry| {
            if let SegmentState::Sealed { bytes, .. } = entry.state { bytes } else { 0 }
        };
        let bytes: u64 = states(&cluster).iter().flat_map(|state| &state.chain).map(of).sum();
        let due = bytes / 1_000;
        assert!((due - 2..due + 5).contains(&took.as_secs()), "{bytes} bytes: {took:?}");
    });
}

/// Open segments and leaders, by broker.
fn spread(cluster: &Cluster) -> (BTreeMap<i32, usize>, BTreeMap<i32, usize>) {
    let (mut open, mut led) = (BTreeMap::new(), BTreeMap::new());
    for state in states(cluster) {
        *led.entry(state.leader.0).or_default() += 1;
        let SegmentState::Open { ensemble } = &state.last().state else { panic!("it is open") };
        ensemble.iter().for_each(|member| *open.entry(member.broker.0).or_default() += 1);
    }
    (open, led)
}

fn is_even(counts: &BTreeMap<i32, usize>, brokers: usize) -> bool {
    let (least, most) = (counts.values().min(), counts.values().max());
    counts.len() == brokers && most.zip(least).is_some_and(|(most, least)| most - least <= 1)
}

#[test]
fn a_new_broker_takes_open_segments_of_old_topics_at_once_and_copies_only_what_it_shall_lead() {
    run(async {
        let cluster = Cluster::spreading(48, Duration::from_secs(15)).await;
        let mut lives = start(&cluster, 3).await;
        cluster.create_on(&round(3, 12, 3)).await;
        let mut written = Written(0);
        written.more(&cluster, 1, 10).await;
        let began = cluster.env.clock.now();
        lives.push(Some(cluster.start(4).await));
        let is_spread = || is_even(&spread(&cluster).0, 4);
        while !is_spread() && cluster.env.clock.now() - began < Duration::from_secs(60) {
            written.more(&cluster, 1, 1).await;
            seconds(&cluster, 1).await;
        }
        assert!(is_spread(), "{:?}", spread(&cluster));
        cluster.until("leaders are spread", 60, || is_even(&spread(&cluster).1, 4)).await;
        for state in states(&cluster) {
            let is_preferred = state.placement[0] == BrokerId(4);
            let has_first = storages(&cluster, 4).iter().any(|storage| state.chain[0].is_on(*storage));
            assert_eq!(has_first, is_preferred, "only what it leads is copied: {state:?}");
        }
        assert!(copies_least(&cluster) >= 3);
        written.more(&cluster, 1, 5).await;
        written.check(&cluster, 4).await;
    });
}

#[test]
fn who_is_nearly_full_gets_no_new_segments_as_long_as_others_have_room() {
    run(async {
        let cluster = Cluster::new(49).await;
        let _lives = start(&cluster, 4).await;
        cluster.create_on(&[vec![1, 2], vec![2, 1]]).await;
        let mut written = Written(0);
        written.more(&cluster, 1, 5).await;
        // As its broker tells; it takes that back a minute later at the earliest.
        let full = Command::SetStorageHealth {
            broker: BrokerId(2),
            storage: storages(&cluster, 2)[0],
            state: StorageHealth::ReadOnly,
        };
        cluster.metadata.propose(full).await.unwrap();
        let has_left = || {
            let SegmentState::Open { ensemble } = state(&cluster, 0).last().state.clone() else {
                return false;
            };
            ensemble.len() == 2 && ensemble.iter().all(|member| member.broker != BrokerId(2))
        };
        cluster.until("the next segment is elsewhere", 10, has_left).await;
        assert_eq!(state(&cluster, 1).leader, BrokerId(2), "who leads goes on");
        written.more(&cluster, 1, 5).await;
        assert_eq!(cluster.create_with(1, "u", 3, &[]).await, ErrorCode::None);
        let image = cluster.metadata.image();
        let placed = |name: &str| {
            let topic = image.topic(name).unwrap();
            topic.partitions.iter().any(|state| state.placement.contains(&BrokerId(2)))
        };
        assert!(!placed("u"));
        assert_eq!(cluster.create_with(1, "v", 4, &[]).await, ErrorCode::None, "nothing else is left");
        cluster.until("it has room again", 90, || !has_left()).await;
        written.check(&cluster, 1).await;
    });
}
