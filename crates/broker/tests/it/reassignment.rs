//! Copies and leaders that are moved because somebody asks for it.

use std::time::Duration;

use base::chain::PartitionState;
use base::error::ErrorCode;
use base::ids::{BrokerId, PartitionId};
use metadata::{Command, CommandResult};
use wire::message::*;

use crate::members::Cluster;
use crate::support::{Life, ask, run};

const NONE: i16 = 0;

async fn start(cluster: &Cluster, brokers: i32) -> Vec<Option<Life>> {
    let mut lives = Vec::new();
    for node in 1..=brokers {
        lives.push(Some(cluster.start(node).await));
    }
    lives
}

fn state(cluster: &Cluster, partition: i32) -> PartitionState {
    let image = cluster.metadata.image();
    let topic = image.topic("t").unwrap();
    PartitionState::clone(topic.partition(PartitionId(partition)).unwrap())
}

fn placement(cluster: &Cluster, partition: i32) -> Vec<i32> {
    state(cluster, partition).placement.iter().map(|broker| broker.0).collect()
}

/// Asks broker 2 to elect; `None` asks for all partitions.
async fn elect(cluster: &Cluster, kind: i8, asked: Option<&[(&str, i32)]>) -> Vec<(i32, ErrorCode)> {
    let topic = |(topic, partition): &(&str, i32)| elect_leaders_request::TopicPartitions {
        topic: (*topic).to_owned().into(),
        partitions: vec![*partition],
    };
    let request = ElectLeadersRequest {
        election_type: kind,
        topic_partitions: asked.map(|asked| asked.iter().map(topic).collect()),
        timeout_ms: 5_000,
    };
    let mut stream = cluster.connect(2).await;
    ask(&mut *stream, 2, &request, |response| {
        assert_eq!(response.error_code, NONE);
        let results = response.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
        results.map(|it| (it.partition_id, ErrorCode::from_code(it.error_code))).collect()
    })
    .await
}

async fn reassign(
    cluster: &Cluster,
    topic: &str,
    partition: i32,
    replicas: Option<&[i32]>,
    may_change: bool,
) -> ErrorCode {
    let partition = alter_partition_reassignments_request::ReassignablePartition {
        partition_index: partition,
        replicas: replicas.map(<[i32]>::to_vec),
    };
    let topic = alter_partition_reassignments_request::ReassignableTopic {
        name: topic.to_owned().into(),
        partitions: vec![partition],
    };
    let request = AlterPartitionReassignmentsRequest {
        timeout_ms: 5_000,
        allow_replication_factor_change: may_change,
        topics: vec![topic],
    };
    let mut stream = cluster.connect(2).await;
    ask(&mut *stream, 1, &request, |response| {
        assert_eq!(response.error_code, NONE);
        ErrorCode::from_code(response.responses[0].partitions[0].error_code)
    })
    .await
}

type Ongoing = (i32, Vec<i32>, Vec<i32>, Vec<i32>);

async fn list(cluster: &Cluster, asked: Option<i32>) -> Vec<Ongoing> {
    let topic = |partition| list_partition_reassignments_request::ListPartitionReassignmentsTopics {
        name: "t".into(),
        partition_indexes: vec![partition, 77],
    };
    let topics = asked.map(|partition| vec![topic(partition)]);
    let request = ListPartitionReassignmentsRequest { timeout_ms: 5_000, topics };
    let mut stream = cluster.connect(2).await;
    ask(&mut *stream, 0, &request, |response| {
        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        let shown = |it: &list_partition_reassignments_response::OngoingPartitionReassignment| {
            let (adding, removing) = (it.adding_replicas.clone(), it.removing_replicas.clone());
            (it.partition_index, it.replicas.clone(), adding, removing)
        };
        partitions.map(shown).collect()
    })
    .await
}

/// Waits until nothing is moved any more.
async fn settled(cluster: &Cluster) {
    for _ in 0..300 {
        if list(cluster, None).await.is_empty() {
            return;
        }
        cluster.env.clock.sleep(Duration::from_millis(100)).await;
    }
    panic!("it never ends: {:?} {:#?}", list(cluster, None).await, state(cluster, 0));
}

/// Files of a topic that a broker has.
fn files(cluster: &Cluster, node: i32) -> usize {
    let dir = std::path::PathBuf::from(format!("/log-{node}/topics/t"));
    let partitions = cluster.env.disk.read_dir(&dir).unwrap_or_default();
    partitions
        .iter()
        .map(|it| cluster.env.disk.read_dir(&dir.join(&it.name)).map_or(0, |found| found.len()))
        .sum()
}

async fn produce(cluster: &Cluster, partition: i32, values: std::ops::Range<i32>) {
    for value in values {
        cluster.produce_to_leader(1, "t", partition, &value.to_string()).await;
    }
}

async fn check(cluster: &Cluster, partition: i32, count: i32) {
    let expected: Vec<String> = (0..count).map(|value| value.to_string()).collect();
    let mut values = cluster.values(1, "t", partition).await;
    // What was refused because another broker leads may be there nevertheless, and was sent again.
    values.dedup();
    assert_eq!(values, expected, "partition {partition}");
}

#[test]
fn leaders_are_elected_on_demand() {
    run(async {
        let cluster = Cluster::new(21).await;
        let mut lives = start(&cluster, 3).await;
        cluster.create_on(&[&[1, 2], &[2, 3], &[3, 1], &[1, 3]]).await;
        let not_needed = ErrorCode::ElectionNotNeeded;
        assert_eq!(elect(&cluster, 0, Some(&[("t", 0)])).await, [(0, not_needed)]);
        assert_eq!(elect(&cluster, 0, None).await, []);
        let unknown = ErrorCode::UnknownTopicOrPartition;
        assert_eq!(elect(&cluster, 0, Some(&[("u", 0), ("t", 4)])).await, [(0, unknown), (4, unknown)]);
        produce(&cluster, 0, 0..5).await;
        assert_eq!(cluster.create_with(1, "single", 1, &[]).await, ErrorCode::None);
        let single = cluster.look(1, "single").await;
        let of_third = single.leaders.iter().position(|leader| leader.0 == 3).unwrap() as i32;
        lives[0].take().unwrap().leave(&cluster.env).await;
        lives[2].take().unwrap().leave(&cluster.env).await;
        cluster.env.clock.sleep(Duration::from_secs(5)).await;
        // Broker 2 stood in for those that ended.
        let unavailable = ErrorCode::PreferredLeaderNotAvailable;
        let asked = [("t", 0), ("t", 1), ("t", 2)];
        let told = [(0, unavailable), (1, not_needed), (2, unavailable)];
        assert_eq!(elect(&cluster, 0, Some(&asked)).await, told);
        let told = [(0, not_needed), (of_third, ErrorCode::EligibleLeadersNotAvailable)];
        assert_eq!(elect(&cluster, 1, Some(&[("t", 0), ("single", of_third)])).await, told);
        lives[0] = Some(cluster.start(1).await);
        lives[2] = Some(cluster.start(3).await);
        settled(&cluster).await;
        assert_eq!(state(&cluster, 0).leader, BrokerId(2));
        assert_eq!(
            elect(&cluster, 0, Some(&[("t", 0), ("t", 1)])).await,
            [(0, ErrorCode::None), (1, not_needed)]
        );
        assert_eq!(state(&cluster, 0).leader, BrokerId(1));
        produce(&cluster, 0, 5..10).await;
        check(&cluster, 0, 10).await;
    });
}

#[test]
fn an_election_of_an_unknown_kind_is_refused() {
    run(async {
        let cluster = Cluster::new(22).await;
        let _lives = start(&cluster, 1).await;
        let request = ElectLeadersRequest { election_type: 2, topic_partitions: None, timeout_ms: 5_000 };
        let mut stream = cluster.connect(1).await;
        let code = ask(&mut *stream, 2, &request, |response| response.error_code).await;
        assert_eq!(ErrorCode::from_code(code), ErrorCode::InvalidRequest);
    });
}

/// Moves partitions of a topic while records come.
fn moved(seed: u64, from: &[&[i32]], to: &[&[i32]]) {
    run(async {
        let cluster = Cluster::new(seed).await;
        let _lives = start(&cluster, 5).await;
        cluster.create_on(from).await;
        for partition in 0..from.len() as i32 {
            produce(&cluster, partition, 0..20).await;
        }
        assert_eq!(list(&cluster, None).await, []);
        for (partition, brokers) in to.iter().enumerate() {
            let code = reassign(&cluster, "t", partition as i32, Some(brokers), true).await;
            assert_eq!(code, ErrorCode::None);
        }
        let (_, _, adding, removing) = list(&cluster, Some(0)).await.remove(0);
        let missing = |brokers: &[i32], of: &[i32]| brokers.iter().any(|broker| !of.contains(broker));
        assert_eq!(
            (!adding.is_empty(), !removing.is_empty()),
            (missing(to[0], from[0]), missing(from[0], to[0]))
        );
        for partition in 0..from.len() as i32 {
            produce(&cluster, partition, 20..60).await;
        }
        settled(&cluster).await;
        for (partition, brokers) in to.iter().enumerate() {
            assert_eq!(placement(&cluster, partition as i32), *brokers);
            let now = state(&cluster, partition as i32);
            assert!(brokers.contains(&now.leader.0), "{now:?}");
            assert_eq!(now.open_members(), brokers.len());
            produce(&cluster, partition as i32, 60..80).await;
            check(&cluster, partition as i32, 80).await;
        }
        cluster.env.clock.sleep(Duration::from_secs(5)).await;
        for node in 1..=5 {
            let is_wanted = to.iter().any(|brokers| brokers.contains(&node));
            assert_eq!(files(&cluster, node) > 0, is_wanted, "files of broker {node}");
        }
    });
}

#[test]
fn all_copies_move_while_records_come() {
    moved(23, &[&[1, 2, 3], &[3, 2, 1]], &[&[4, 5, 3], &[5, 4, 3]]);
}

#[test]
fn single_copies_move_too() {
    moved(28, &[&[1], &[2], &[3]], &[&[4], &[5], &[3]]);
}

#[test]
fn there_may_be_more_copies_afterwards_or_fewer() {
    moved(29, &[&[1, 2], &[2, 1]], &[&[3, 4, 5], &[2, 1, 4]]);
    moved(30, &[&[1, 2, 3], &[2, 3, 1]], &[&[1, 2], &[3]]);
}

#[test]
fn what_cannot_be_reassigned_is_refused() {
    run(async {
        let cluster = Cluster::new(24).await;
        let _lives = start(&cluster, 3).await;
        cluster.create_on(&[&[1, 2]]).await;
        let unknown = ErrorCode::UnknownTopicOrPartition;
        assert_eq!(reassign(&cluster, "u", 0, Some(&[1]), true).await, unknown);
        assert_eq!(reassign(&cluster, "t", 1, Some(&[1]), true).await, unknown);
        for brokers in [&[][..], &[1, 9], &[1, 1], &[-1]] {
            let invalid = ErrorCode::InvalidReplicaAssignment;
            assert_eq!(reassign(&cluster, "t", 0, Some(brokers), true).await, invalid, "{brokers:?}");
        }
        let wrong = ErrorCode::InvalidReplicationFactor;
        assert_eq!(reassign(&cluster, "t", 0, Some(&[1, 2, 3]), false).await, wrong);
        assert_eq!(reassign(&cluster, "t", 0, None, true).await, ErrorCode::NoReassignmentInProgress);
        assert_eq!(placement(&cluster, 0), [1, 2]);
    });
}

#[test]
fn a_move_to_a_broker_that_is_down_can_be_called_off() {
    run(async {
        let cluster = Cluster::new(25).await;
        let mut lives = start(&cluster, 4).await;
        cluster.create_on(&[&[1, 2, 3]]).await;
        produce(&cluster, 0, 0..10).await;
        lives[3].take().unwrap().leave(&cluster.env).await;
        cluster.env.clock.sleep(Duration::from_secs(1)).await;
        assert_eq!(reassign(&cluster, "t", 0, Some(&[2, 4, 3]), true).await, ErrorCode::None);
        produce(&cluster, 0, 10..20).await;
        cluster.env.clock.sleep(Duration::from_secs(10)).await;
        assert_eq!(list(&cluster, Some(0)).await, [(0, vec![2, 4, 3, 1], vec![4], vec![1])]);
        assert_eq!(reassign(&cluster, "t", 0, None, true).await, ErrorCode::None);
        let mut back = placement(&cluster, 0);
        back.sort_unstable();
        assert_eq!(back, [1, 2, 3]);
        settled(&cluster).await;
        produce(&cluster, 0, 20..30).await;
        check(&cluster, 0, 30).await;
    });
}

/// A broker that is to have a partition alone but has nothing yet must not become its leader when it starts.
#[test]
fn who_starts_leads_nothing_that_it_does_not_have() {
    run(async {
        let cluster = Cluster::new(26).await;
        let mut lives = start(&cluster, 2).await;
        cluster.create_on(&[&[1]]).await;
        produce(&cluster, 0, 0..10).await;
        lives[1].take().unwrap().leave(&cluster.env).await;
        let id = base::ids::TopicPartition {
            topic_id: cluster.metadata.image().topic("t").unwrap().id,
            partition: PartitionId(0),
        };
        let edit = metadata::ChainEdit::SetPlacement {
            partition: id,
            brokers: vec![BrokerId(2)],
            keepers: Vec::new(),
        };
        let edited = cluster.metadata.propose(Command::Edit(vec![edit])).await.unwrap();
        assert!(matches!(edited, CommandResult::Chains(results) if results[0].is_ok()));
        cluster.env.clock.sleep(Duration::from_secs(1)).await;
        assert_eq!(state(&cluster, 0).leader, BrokerId(1));
        lives[1] = Some(cluster.start(2).await);
        settled(&cluster).await;
        assert_eq!(state(&cluster, 0).leader, BrokerId(2));
        produce(&cluster, 0, 10..20).await;
        check(&cluster, 0, 20).await;
    });
}

#[test]
fn the_quorum_is_told() {
    run(async {
        let cluster = Cluster::new(27).await;
        let _lives = start(&cluster, 2).await;
        let topic = |name: &'static str, partition_index| describe_quorum_request::TopicData {
            topic_name: name.into(),
            partitions: vec![describe_quorum_request::PartitionData { partition_index }],
        };
        let mut stream = cluster.connect(2).await;
        let request = DescribeQuorumRequest { topics: vec![topic("__cluster_metadata", 0)] };
        ask(&mut *stream, 2, &request, |response| {
            let quorum = &response.topics[0].partitions[0];
            assert_eq!((quorum.error_code, quorum.leader_id), (NONE, 1));
            assert!(quorum.high_watermark > 0);
            let voters: Vec<_> = quorum.current_voters.iter().map(|voter| voter.replica_id).collect();
            assert_eq!(voters, [1]);
        })
        .await;
        let good = || topic("__cluster_metadata", 0);
        for topics in [vec![topic("__cluster_metadata", 1)], vec![topic("t", 0)], vec![good(), topic("t", 0)]]
        {
            ask(&mut *stream, 2, &DescribeQuorumRequest { topics }, |response| {
                let code = ErrorCode::from_code(response.topics[0].partitions[0].error_code);
                assert_eq!(code, ErrorCode::UnknownTopicOrPartition);
            })
            .await;
        }
    });
}
