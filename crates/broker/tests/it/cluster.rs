//! Several brokers with the same metadata: what each of them tells and takes.

use std::time::Duration;

use base::error::ErrorCode;
use wire::message::*;

use crate::members::{Cluster, PARTITIONS};
use crate::support::{Life, ask, run};

#[test]
fn every_broker_tells_the_same_and_each_leads_its_share() {
    run(async {
        let cluster = Cluster::new(1).await;
        let _lives = [cluster.start(1).await, cluster.start(2).await, cluster.start(3).await];
        assert_eq!(cluster.create(1, "t").await, ErrorCode::None);
        let told = cluster.metadata(1, "t", |view| view.brokers.len() == 3).await;
        assert_eq!(told.brokers, [(1, 9091), (2, 9092), (3, 9093)]);
        for node in 1..=3 {
            let leads = told.leaders.iter().filter(|(leader, _)| *leader == node).count();
            assert_eq!(leads, 2, "broker {node} of {told:?}");
            assert_eq!(cluster.metadata(node, "t", |view| view.error == ErrorCode::None).await, told);
        }
        for partition in 0..PARTITIONS {
            let leader = told.leader(partition);
            let other = leader % 3 + 1;
            let elsewhere = (ErrorCode::NotLeaderOrFollower, leader, Some(9_090 + leader));
            assert_eq!(cluster.produce(other, "t", partition).await, elsewhere);
            cluster.produce_soon(leader, "t", partition).await;
        }
        let unknown = (ErrorCode::UnknownTopicOrPartition, -1, None);
        assert_eq!(cluster.produce(2, "t", PARTITIONS).await, unknown);
    });
}

#[test]
fn a_topic_that_one_broker_deletes_is_gone_on_all() {
    run(async {
        let cluster = Cluster::new(2).await;
        let _lives = [cluster.start(1).await, cluster.start(2).await];
        assert_eq!(cluster.create(1, "t").await, ErrorCode::None);
        let told = cluster.metadata(2, "t", |view| view.error == ErrorCode::None).await;
        for partition in 0..PARTITIONS {
            cluster.produce_soon(told.leader(partition), "t", partition).await;
        }
        let files = |node: i32| {
            let dir = std::path::PathBuf::from(format!("/log-{node}/topics/t"));
            cluster.env.disk.read_dir(&dir).map_or(0, |found| found.len())
        };
        assert!(files(1) > 0 && files(2) > 0);
        let mut stream = cluster.connect(1).await;
        let request =
            DeleteTopicsRequest { topic_names: vec!["t".into()], timeout_ms: 5_000, ..Default::default() };
        let code = ask(&mut *stream, 5, &request, |response| response.responses[0].error_code).await;
        assert_eq!(code, 0);
        let unknown = (ErrorCode::UnknownTopicOrPartition, -1, None);
        assert_eq!(cluster.produce(1, "t", 0).await, unknown);
        cluster.env.clock.sleep(Duration::from_secs(5)).await;
        assert_eq!(cluster.produce(2, "t", 0).await, unknown);
        assert_eq!((files(1), files(2)), (0, 0));
    });
}

#[test]
fn each_group_has_one_coordinator_which_all_brokers_name() {
    run(async {
        let cluster = Cluster::new(3).await;
        let _lives = [cluster.start(1).await, cluster.start(2).await, cluster.start(3).await];
        let mut coordinators = std::collections::BTreeSet::new();
        for group in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            let mut named = Vec::new();
            for node in 1..=3 {
                let request =
                    FindCoordinatorRequest { coordinator_keys: vec![group.into()], ..Default::default() };
                let mut stream = cluster.connect(node).await;
                let found = ask(&mut *stream, 4, &request, |response| {
                    let found = &response.coordinators[0];
                    assert_eq!((found.error_code, found.port), (0, 9_090 + found.node_id));
                    found.node_id
                });
                named.push(found.await);
            }
            assert!(named.iter().all(|node| *node == named[0]), "{group}: {named:?}");
            coordinators.insert(named[0]);
            for node in 1..=3 {
                let request =
                    HeartbeatRequest { group_id: group.into(), member_id: "m".into(), ..Default::default() };
                let mut stream = cluster.connect(node).await;
                let mut code = ErrorCode::CoordinatorLoadInProgress;
                while code == ErrorCode::CoordinatorLoadInProgress {
                    cluster.env.clock.sleep(Duration::from_millis(10)).await;
                    let answered = ask(&mut *stream, 4, &request, |response| response.error_code).await;
                    code = ErrorCode::from_code(answered);
                }
                let expected = match node == named[0] {
                    true => ErrorCode::UnknownMemberId,
                    false => ErrorCode::NotCoordinator,
                };
                assert_eq!(code, expected, "group {group} at broker {node}");
            }
        }
        assert_eq!(coordinators.len(), 3, "groups are spread");
    });
}

#[test]
fn what_a_broker_led_alone_waits_for_it() {
    run(async {
        let cluster = Cluster::new(4).await;
        let _first = cluster.start(1).await;
        let second = cluster.start(2).await;
        assert_eq!(cluster.create(1, "t").await, ErrorCode::None);
        let before = cluster.metadata(2, "t", |view| view.error == ErrorCode::None).await;
        let of_second = before.leaders.iter().position(|leader| *leader == (2, 0)).unwrap() as i32;
        cluster.produce_soon(2, "t", of_second).await;
        second.leave(&cluster.env).await;
        let without = cluster.metadata(1, "t", |view| view.brokers.len() == 1).await;
        assert_eq!(without.leaders[of_second as usize], (-1, 0));
        assert_eq!(without.errors[of_second as usize], ErrorCode::LeaderNotAvailable);
        assert_eq!(cluster.produce(1, "t", of_second).await.0, ErrorCode::NotLeaderOrFollower);
        assert!(without.leaders.contains(&(1, 0)), "the others are led as before");
        let _second = cluster.start(2).await;
        let back = cluster.metadata(1, "t", |view| view.brokers.len() == 2).await;
        assert_eq!(back.leaders[of_second as usize], (2, 1));
        cluster.produce_soon(2, "t", of_second).await;
    });
}

#[test]
fn what_three_brokers_hold_outlives_the_leader() {
    run(async {
        let cluster = Cluster::new(5).await;
        let mut lives: Vec<Option<Life>> = Vec::new();
        for node in 1..=3 {
            lives.push(Some(cluster.start(node).await));
        }
        let created = cluster.create_with(1, "t", 3, &[("min.insync.replicas", "2")]).await;
        assert_eq!(created, ErrorCode::None);
        for round in 0..5 {
            for partition in 0..PARTITIONS {
                cluster.produce_to_leader(1, "t", partition, &format!("{partition}/{round}")).await;
            }
        }
        lives[0].take().unwrap().leave(&cluster.env).await;
        for round in 5..10 {
            for partition in 0..PARTITIONS {
                cluster.produce_to_leader(2, "t", partition, &format!("{partition}/{round}")).await;
            }
        }
        lives[0] = Some(cluster.start(1).await);
        cluster.env.clock.sleep(Duration::from_secs(20)).await;
        lives[1].take().unwrap().leave(&cluster.env).await;
        for round in 10..15 {
            for partition in 0..PARTITIONS {
                cluster.produce_to_leader(3, "t", partition, &format!("{partition}/{round}")).await;
            }
        }
        for partition in 0..PARTITIONS {
            let values = cluster.values(3, "t", partition).await;
            let expected: Vec<String> = (0..15).map(|round| format!("{partition}/{round}")).collect();
            assert_eq!(values, expected, "partition {partition}");
        }
    });
}

#[test]
fn a_compacted_topic_has_equal_copies_that_outlive_the_leader() {
    run(async {
        let cluster = Cluster::new(6).await;
        let mut lives = vec![cluster.start(1).await, cluster.start(2).await, cluster.start(3).await];
        let configs = [
            ("min.insync.replicas", "2"),
            ("cleanup.policy", "compact"),
            ("segment.ms", "500"),
            ("min.cleanable.dirty.ratio", "0"),
        ];
        assert_eq!(cluster.create_with(1, "t", 3, &configs).await, ErrorCode::None);
        for round in 0..40 {
            for key in ["a", "b", "c"] {
                cluster.produce_to_leader(1, "t", 0, &format!("{key}/{round}")).await;
            }
            cluster.env.clock.sleep(Duration::from_millis(200)).await;
        }
        // Long enough for a pass, which looks every 15 s.
        cluster.env.clock.sleep(Duration::from_secs(40)).await;
        let image = cluster.metadata.image();
        let state = image.topic("t").unwrap().partitions[0].clone();
        let rewritten: Vec<_> = state.chain.iter().filter(|entry| entry.generation.0 > 0).collect();
        assert!(!rewritten.is_empty(), "{state:?}");
        for entry in rewritten {
            let base::chain::SegmentState::Sealed { replicas, .. } = &entry.state else { panic!("sealed") };
            assert_eq!(replicas.len(), 3, "{entry:?}");
        }
        let before = cluster.values(1, "t", 0).await;
        assert!(before.len() < 60, "{} records of 120 are left", before.len());
        lives.remove(0).leave(&cluster.env).await;
        cluster.env.clock.sleep(Duration::from_secs(10)).await;
        let after = cluster.values(2, "t", 0).await;
        assert_eq!(after, before);
    });
}
