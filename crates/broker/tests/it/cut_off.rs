//! Brokers that others do not reach: what they may not say, what they give up, and what is lost with them when that is
//! allowed.

use std::sync::Arc;
use std::time::Duration;

use base::error::ErrorCode;
use metadata::{ChainEdit, Command, MetadataStore, Resource};
use wire::message::*;

use crate::cuts::{Cuts, Remote};
use crate::members::Cluster;
use crate::support::{Life, ask, run};

/// Three brokers of which each may be cut off.
struct Brokers {
    cluster: Cluster,
    cuts: Cuts,
    remotes: Vec<Arc<Remote>>,
    _lives: Vec<Life>,
}

impl Brokers {
    async fn new(seed: u64, copies_min: &str) -> Brokers {
        Brokers::with(seed, copies_min, &[]).await
    }

    /// With further settings.
    async fn with(seed: u64, copies_min: &str, more: &[&str]) -> Brokers {
        let cluster = Cluster::new(seed).await;
        let mut brokers = Brokers { cluster, cuts: Cuts::default(), remotes: Vec::new(), _lives: Vec::new() };
        for node in 1..=3 {
            let remote = Remote::new(brokers.cluster.metadata.clone());
            let metadata: Arc<dyn MetadataStore> = remote.clone();
            let env = brokers.cuts.env(&brokers.cluster.env, node);
            let rack = format!("broker.rack=r{node}");
            let settings = [&*rack, "offsets.topic.replication.factor=3", "offsets.topic.num.partitions=1"];
            let settings = [&settings[..], more].concat();
            brokers._lives.push(Life::member_with(&env, &metadata, node, &settings).await);
            brokers.remotes.push(remote);
        }
        let configs = [("min.insync.replicas", copies_min)];
        assert_eq!(brokers.cluster.create_with(1, "t", 3, &configs).await, ErrorCode::None);
        brokers
    }

    /// No other broker reaches it from now on.
    fn cut_from_others(&self, node: i32) {
        (1..=3).filter(|other| *other != node).for_each(|other| self.cuts.cut(node, other));
    }

    fn cut_from_controllers(&self, node: i32, is_cut: bool) {
        self.remotes[node as usize - 1].set_cut(is_cut);
    }

    async fn sleep(&self, seconds: u64) {
        self.cluster.env.clock.sleep(Duration::from_secs(seconds)).await;
    }

    async fn leader(&self, asked: i32) -> (i32, i32) {
        self.cluster.look(asked, "t").await.leaders[0]
    }

    async fn produce(&self, asked: i32, values: std::ops::Range<i32>) -> Vec<String> {
        let values: Vec<String> = values.map(|number| format!("k/{number}")).collect();
        for value in &values {
            self.cluster.produce_to_leader(asked, "t", 0, value).await;
        }
        values
    }

    fn all_are_members(&self) -> bool {
        match &self.state().last().state {
            base::chain::SegmentState::Open { ensemble } => ensemble.len() == 3,
            base::chain::SegmentState::Sealed { .. } => false,
        }
    }

    fn state(&self) -> Arc<base::chain::PartitionState> {
        self.cluster.metadata.image().topic("t").unwrap().partitions[0].clone()
    }
}

async fn allow_losses(cluster: &Cluster) {
    let changes = vec![("unclean.leader.election.enable".to_owned(), Some("true".to_owned()))];
    let resource = Resource::Topic("t".to_owned());
    cluster.metadata.propose(Command::AlterConfigs { resource, changes }).await.unwrap();
}

async fn commit(brokers: &Brokers, node: i32, offset: i64) -> ErrorCode {
    let partition = offset_commit_request::OffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: offset,
        committed_leader_epoch: -1,
        ..Default::default()
    };
    let topic = offset_commit_request::OffsetCommitRequestTopic {
        name: "t".into(),
        partitions: vec![partition],
        ..Default::default()
    };
    let request = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let mut stream = brokers.cluster.connect(node).await;
    ask(&mut *stream, 7, &request, |response| {
        ErrorCode::from_code(response.topics[0].partitions[0].error_code)
    })
    .await
}

async fn committed(brokers: &Brokers, node: i32) -> (ErrorCode, Option<i64>) {
    let topic =
        offset_fetch_request::OffsetFetchRequestTopic { name: "t".into(), partition_indexes: vec![0] };
    let request =
        OffsetFetchRequest { group_id: "g".into(), topics: Some(vec![topic]), ..Default::default() };
    let mut stream = brokers.cluster.connect(node).await;
    ask(&mut *stream, 7, &request, |response| {
        let offset = response.topics.first().map(|topic| topic.partitions[0].committed_offset);
        (ErrorCode::from_code(response.error_code), offset)
    })
    .await
}

async fn coordinator(brokers: &Brokers, asked: i32) -> i32 {
    let request = FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
    let mut stream = brokers.cluster.connect(asked).await;
    ask(&mut *stream, 4, &request, |response| response.coordinators[0].node_id).await
}

#[test]
fn a_coordinator_that_was_cut_off_tells_no_offset_older_than_its_successor_acknowledged() {
    run(async {
        let brokers = Brokers::new(1, "2").await;
        let old = coordinator(&brokers, 1).await;
        while commit(&brokers, old, 5).await != ErrorCode::None {
            brokers.sleep(1).await;
        }
        assert_eq!(committed(&brokers, old).await, (ErrorCode::None, Some(5)));
        brokers.cut_from_others(old);
        brokers.cut_from_controllers(old, true);
        let other = old % 3 + 1;
        brokers.sleep(5).await;
        let new = coordinator(&brokers, other).await;
        assert_ne!(new, old);
        while commit(&brokers, new, 9).await != ErrorCode::None {
            brokers.sleep(1).await;
        }
        assert_eq!(committed(&brokers, new).await, (ErrorCode::None, Some(9)));
        assert_eq!(committed(&brokers, old).await.0, ErrorCode::NotCoordinator);
        // It hears nothing of its successor, but the others again.
        brokers.cuts.heal();
        brokers.sleep(2).await;
        assert_eq!(committed(&brokers, old).await.0, ErrorCode::NotCoordinator);
        brokers.cut_from_controllers(old, false);
        brokers.sleep(5).await;
        assert_eq!(committed(&brokers, new).await, (ErrorCode::None, Some(9)));
    });
}

#[test]
fn a_coordinator_without_controllers_answers_as_long_as_the_others_confirm_it() {
    run(async {
        let brokers = Brokers::new(2, "2").await;
        let node = coordinator(&brokers, 1).await;
        while commit(&brokers, node, 5).await != ErrorCode::None {
            brokers.sleep(1).await;
        }
        for node in 1..=3 {
            brokers.cut_from_controllers(node, true);
        }
        assert_eq!(committed(&brokers, node).await, (ErrorCode::None, Some(5)));
    });
}

#[test]
fn a_leader_that_reaches_nobody_gives_up_what_others_can_lead() {
    run(async {
        let brokers = Brokers::new(3, "2").await;
        let mut values = brokers.produce(1, 0..3).await;
        let (old, epoch) = brokers.leader(1).await;
        let other = old % 3 + 1;
        // The controllers see all of them.
        brokers.cut_from_others(old);
        let (code, _, _) = brokers.cluster.produce_value(old, "t", 0, b"k/lost").await;
        assert_ne!(code, ErrorCode::None);
        brokers.sleep(10).await;
        let (new, later) = brokers.leader(other).await;
        assert_ne!(new, old);
        assert_eq!(later, epoch + 1, "once is enough");
        values.extend(brokers.produce(other, 3..6).await);
        brokers.cuts.heal();
        brokers.sleep(20).await;
        values.extend(brokers.produce(other, 6..9).await);
        assert_eq!(brokers.cluster.values(other, "t", 0).await, values);
    });
}

#[test]
fn where_nobody_could_replace_a_leader_elections_become_rare() {
    run(async {
        let brokers = Brokers::new(4, "2").await;
        brokers.produce(1, 0..3).await;
        let (old, epoch) = brokers.leader(1).await;
        // Only one other lives: two must hold a record.
        let (other, third) = (old % 3 + 1, (old + 1) % 3 + 1);
        brokers.cut_from_controllers(third, true);
        brokers.cut_from_others(third);
        brokers.sleep(10).await;
        brokers.cuts.cut(old, other);
        let (code, _, _) = brokers.cluster.produce_value(old, "t", 0, b"k/open").await;
        assert_ne!(code, ErrorCode::None);
        brokers.sleep(240).await;
        let (_, before) = brokers.leader(old).await;
        assert!(before - epoch <= 12, "{} elections in four minutes", before - epoch);
        brokers.sleep(120).await;
        let (_, later) = brokers.leader(old).await;
        assert!(later - before <= 4, "{} elections in two minutes", later - before);
        brokers.cuts.heal();
        brokers.cut_from_controllers(third, false);
        brokers.sleep(70).await;
        brokers.produce(old, 3..6).await;
        let mut found = brokers.cluster.values(old, "t", 0).await;
        // Nobody was told that it is there, nor that it is not.
        found.retain(|value| value != "k/open");
        let expected: Vec<String> = (0..6).map(|number| format!("k/{number}")).collect();
        assert_eq!(found, expected);
    });
}

/// Leaves the leader alone with records that nobody else has, and then without anybody. Returns it and another broker.
async fn lose_leader(brokers: &Brokers) -> (i32, i32) {
    brokers.produce(1, 0..5).await;
    let (old, _) = brokers.leader(1).await;
    let other = old % 3 + 1;
    brokers.cut_from_others(old);
    // The first of these is in a segment that the others have a part of.
    brokers.produce(old, 5..8).await;
    brokers.cut_from_controllers(old, true);
    brokers.sleep(20).await;
    (old, other)
}

#[test]
fn without_leave_to_lose_records_a_partition_waits() {
    run(async {
        let brokers = Brokers::new(5, "1").await;
        let (old, other) = lose_leader(&brokers).await;
        let told = brokers.cluster.look(other, "t").await;
        assert_eq!((told.leaders[0], told.errors[0]), ((-1, 0), ErrorCode::LeaderNotAvailable));
        assert_eq!(describe(&brokers.cluster, other).await, (vec![], vec![old], vec![]));
        brokers.cuts.heal();
        brokers.cut_from_controllers(old, false);
        brokers.sleep(10).await;
        let expected: Vec<String> = (0..8).map(|number| format!("k/{number}")).collect();
        assert_eq!(brokers.cluster.values(other, "t", 0).await, expected, "nothing was lost");
    });
}

/// Copies in sync, eligible leaders and those that were known last of partition 0.
async fn describe(cluster: &Cluster, node: i32) -> (Vec<i32>, Vec<i32>, Vec<i32>) {
    let topic = describe_topic_partitions_request::TopicRequest { name: "t".into() };
    let request = DescribeTopicPartitionsRequest {
        topics: vec![topic],
        response_partition_limit: 10,
        ..Default::default()
    };
    let mut stream = cluster.connect(node).await;
    ask(&mut *stream, 0, &request, |response| {
        let told = &response.topics[0].partitions[0];
        let list = |list: &Option<Vec<i32>>| {
            let mut list = list.clone().unwrap_or_default();
            list.sort_unstable();
            list
        };
        (told.isr_nodes.clone(), list(&told.eligible_leader_replicas), list(&told.last_known_elr))
    })
    .await
}

/// Where the records of an epoch end.
async fn epoch_end(brokers: &Brokers, node: i32, epoch: i32) -> (ErrorCode, i32, i64) {
    let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition {
        partition: 0,
        current_leader_epoch: -1,
        leader_epoch: epoch,
    };
    let topic = offset_for_leader_epoch_request::OffsetForLeaderTopic {
        topic: "t".into(),
        partitions: vec![partition],
    };
    let request = OffsetForLeaderEpochRequest { topics: vec![topic], ..Default::default() };
    let mut stream = brokers.cluster.connect(node).await;
    ask(&mut *stream, 3, &request, |response| {
        let told = &response.topics[0].partitions[0];
        (ErrorCode::from_code(told.error_code), told.leader_epoch, told.end_offset)
    })
    .await
}

/// The log after an unclean election has lost the last three of eight records, on every broker, and goes on.
async fn expect_loss(brokers: &Brokers, old: i32, other: i32) {
    let new = brokers.cluster.metadata(other, "t", |view| view.leaders[0].0 > 0).await.leaders[0];
    assert_eq!((new.0 != old, new.1), (true, 1));
    let mut values: Vec<String> = (0..5).map(|number| format!("k/{number}")).collect();
    assert_eq!(
        brokers.cluster.values(other, "t", 0).await,
        values,
        "it loses what nobody else had, and no more"
    );
    assert_eq!(epoch_end(brokers, new.0, 0).await, (ErrorCode::None, 0, 5));
    assert!(brokers.state().chain.iter().any(|entry| entry.unclean), "the chain says so");
    assert!(!brokers.state().unclean, "it may not go on losing");
    values.extend(brokers.produce(other, 20..24).await);
    brokers.cuts.heal();
    brokers.cut_from_controllers(old, false);
    brokers.sleep(30).await;
    values.extend(brokers.produce(other, 24..26).await);
    let state = brokers.state();
    for entry in state.chain.iter().filter(|entry| !entry.is_open()) {
        for broker in brokers.cluster.metadata.image().brokers() {
            let has = broker.storages.keys().any(|storage| entry.is_on(*storage));
            assert!(has, "broker {} lacks {entry:?}", broker.registration.broker);
        }
    }
    // The old leader leads again, from its own copy.
    let partition = base::ids::TopicPartition {
        topic_id: brokers.cluster.metadata.image().topic("t").unwrap().id,
        partition: base::ids::PartitionId(0),
    };
    let epoch = base::ids::LeaderEpoch(state.leader_epoch.0 + 1);
    let elect = ChainEdit::Elect { partition, leader: base::ids::BrokerId(old), epoch };
    brokers.cluster.metadata.propose(Command::Edit(vec![elect])).await.unwrap();
    brokers.cluster.metadata(other, "t", |view| view.leaders[0] == (old, epoch.0)).await;
    assert_eq!(brokers.cluster.values(other, "t", 0).await, values);
}

#[test]
fn an_unclean_election_loses_what_nobody_else_has_and_the_old_leader_drops_it() {
    run(async {
        let brokers = Brokers::new(6, "1").await;
        let (old, other) = lose_leader(&brokers).await;
        allow_losses(&brokers.cluster).await;
        brokers.sleep(20).await;
        expect_loss(&brokers, old, other).await;
    });
}

#[test]
fn who_asks_for_an_unclean_election_gets_it() {
    run(async {
        let brokers = Brokers::new(7, "1").await;
        let (old, other) = lose_leader(&brokers).await;
        assert_eq!(elect_unclean(&brokers, other).await, ErrorCode::None);
        brokers.sleep(20).await;
        assert_eq!(elect_unclean(&brokers, other).await, ErrorCode::ElectionNotNeeded);
        expect_loss(&brokers, old, other).await;
    });
}

/// Asks a broker for an unclean election of partition 0.
async fn elect_unclean(brokers: &Brokers, asked: i32) -> ErrorCode {
    let topic = elect_leaders_request::TopicPartitions { topic: "t".into(), partitions: vec![0] };
    let request =
        ElectLeadersRequest { election_type: 1, topic_partitions: Some(vec![topic]), timeout_ms: 10_000 };
    let mut stream = brokers.cluster.connect(asked).await;
    ask(&mut *stream, 2, &request, |response| {
        ErrorCode::from_code(response.replica_election_results[0].partition_result[0].error_code)
    })
    .await
}

/// The leader is lost, and with it a segment that nobody else had fetched yet; the others have what came behind, records 8
/// and 9. Who it was, and one of the others.
async fn lose_older_records(seed: u64) -> (Brokers, i32, i32) {
    let brokers = Brokers::with(seed, "1", &["vltava.repair.io.max.bytes.per.second=1"]).await;
    brokers.produce(1, 0..5).await;
    let (old, _) = brokers.leader(1).await;
    brokers.cut_from_others(old);
    brokers.produce(old, 5..8).await;
    brokers.cuts.heal();
    brokers.cluster.until("all are members again", 60, || brokers.all_are_members()).await;
    brokers.produce(old, 8..10).await;
    let had_by_one = |entry: &base::chain::SegmentEntry| match &entry.state {
        base::chain::SegmentState::Sealed { replicas, .. } => replicas.len() == 1,
        base::chain::SegmentState::Open { .. } => false,
    };
    assert!(brokers.state().chain.iter().any(had_by_one), "{:#?}", brokers.state());
    brokers.cut_from_others(old);
    brokers.cut_from_controllers(old, true);
    let is_replaced = || brokers.state().leader.0 != old;
    brokers.cluster.until("another one is elected", 30, is_replaced).await;
    (brokers, old, old % 3 + 1)
}

/// What came behind the lost segment is served once the partition begins there, and it goes on.
async fn expect_a_later_start(brokers: &Brokers, old: i32, other: i32) {
    brokers.cluster.until("it begins later", 30, || brokers.state().log_start == 8).await;
    let mut values = vec!["k/8".to_owned(), "k/9".to_owned()];
    assert_eq!(brokers.cluster.values_from(other, "t", 0, 8).await, values);
    assert!(!brokers.state().unclean, "it may not go on losing");
    values.extend(brokers.produce(other, 20..24).await);
    brokers.cuts.heal();
    brokers.cut_from_controllers(old, false);
    brokers.cluster.until("the old leader is a member again", 60, || brokers.all_are_members()).await;
    values.extend(brokers.produce(other, 24..26).await);
    assert_eq!(brokers.cluster.values_from(other, "t", 0, 8).await, values);
    assert_eq!(brokers.state().log_start, 8, "what was lost does not come back");
}

#[test]
fn a_leader_that_lacks_what_a_lost_broker_had_waits_and_begins_behind_it_where_that_is_allowed() {
    run(async {
        let (brokers, old, other) = lose_older_records(8).await;
        // Nothing happens, for longer than an unclean election waits where it is allowed.
        brokers.sleep(60).await;
        let (leader, _) = brokers.leader(other).await;
        let (code, ..) = brokers.cluster.produce(leader, "t", 0).await;
        assert_eq!(code, ErrorCode::NotLeaderOrFollower, "it waits for the records before");
        allow_losses(&brokers.cluster).await;
        expect_a_later_start(&brokers, old, other).await;
    });
}

#[test]
fn a_leader_that_waits_for_a_lost_broker_begins_behind_what_that_had_where_somebody_asks_for_it() {
    run(async {
        let (brokers, old, other) = lose_older_records(9).await;
        assert_eq!(elect_unclean(&brokers, other).await, ErrorCode::None);
        expect_a_later_start(&brokers, old, other).await;
        assert_eq!(elect_unclean(&brokers, other).await, ErrorCode::ElectionNotNeeded);
    });
}
