//! A broker of several that ends in order: others lead what it led before it goes, and producers hardly notice.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use base::error::ErrorCode;
use base::ids::BrokerId;

use crate::members::{Cluster, PARTITIONS};
use crate::support::{Life, run};

/// Longest time between two records that a producer gets through while a broker ends: an election, a look at who ends, and
/// the pause after a refusal.
const GAP_MAX: Duration = Duration::from_millis(500);

async fn three(cluster: &Cluster) -> Vec<Option<Life>> {
    let mut lives = Vec::new();
    for node in 1..=3 {
        lives.push(Some(cluster.start(node).await));
    }
    lives
}

/// Produces to one partition until `stop`, to whoever leads by what was heard last. Returns the values that were taken and
/// the longest time between two of them.
async fn produce(
    cluster: &Cluster,
    acks: i16,
    partition: i32,
    mut leader: i32,
    stop: Rc<Cell<bool>>,
) -> (Vec<String>, Duration) {
    let (mut taken, mut gap) = (Vec::new(), Duration::ZERO);
    let mut last = cluster.env.clock.now();
    while !stop.get() {
        let value = format!("{partition}/{}", taken.len());
        let (code, named, _) = cluster.produce_acked(acks, leader, "t", partition, value.as_bytes()).await;
        match code {
            ErrorCode::None => {
                let now = cluster.env.clock.now();
                gap = gap.max(now - last);
                last = now;
                taken.push(value);
                cluster.env.clock.sleep(Duration::from_millis(5)).await;
            }
            ErrorCode::NotLeaderOrFollower => {
                assert!(named > 0, "the new leader is named");
                leader = named;
                cluster.env.clock.sleep(Duration::from_millis(20)).await;
            }
            other => panic!("{other}"),
        }
    }
    (taken, gap)
}

/// Produces to all partitions while the first broker ends; returns the longest gap.
async fn end_while_producing(cluster: &Cluster, acks: i16) -> Duration {
    let mut lives = three(cluster).await;
    let created = cluster.create_with(1, "t", 3, &[("min.insync.replicas", "2")]).await;
    assert_eq!(created, ErrorCode::None);
    for partition in 0..PARTITIONS {
        cluster.produce_to_leader(1, "t", partition, "first").await;
    }
    let before = cluster.look(2, "t").await;
    assert!(before.leaders.iter().any(|leader| leader.0 == 1));
    let stop = Rc::new(Cell::new(false));
    let producers = (0..PARTITIONS).map(|it| produce(cluster, acks, it, before.leader(it), stop.clone()));
    let end = async {
        cluster.env.clock.sleep(Duration::from_millis(300)).await;
        let began = cluster.env.clock.now();
        lives[0].take().unwrap().leave(&cluster.env).await;
        let took = cluster.env.clock.now() - began;
        assert!(took < Duration::from_secs(2), "it ended after {took:?}");
        let image = cluster.metadata.image();
        let ending = image.broker(BrokerId(1)).unwrap();
        assert!(ending.draining && ending.fenced, "nobody waits for it");
        for state in &image.topic("t").unwrap().partitions {
            assert_ne!(state.leader, BrokerId(1));
        }
        cluster.env.clock.sleep(Duration::from_secs(2)).await;
        stop.set(true);
    };
    let (produced, ()) = futures::join!(futures::future::join_all(producers), end);
    let mut longest = Duration::ZERO;
    for (partition, (mut taken, gap)) in produced.into_iter().enumerate() {
        assert!(taken.len() > 100, "{}", taken.len());
        taken.insert(0, "first".to_owned());
        let mut values = cluster.values(2, "t", partition as i32).await;
        // What was refused because another broker leads may be there nevertheless, and was sent again.
        values.dedup();
        assert_eq!(values, taken, "partition {partition}");
        longest = longest.max(gap);
    }
    longest
}

#[test]
fn producing_goes_on_when_a_broker_ends() {
    run(async {
        let gap = end_while_producing(&Cluster::new(11).await, -1).await;
        println!("longest gap with acks=all: {gap:?}");
        assert!(gap < GAP_MAX, "{gap:?}");
    });
}

/// Of acks=1 only the leader knows for sure; that a broker ends in order must not cost such records.
#[test]
fn what_only_the_leader_has_is_handed_over_with_the_rest() {
    run(async {
        for seed in 12..16 {
            let gap = end_while_producing(&Cluster::new(seed).await, 1).await;
            println!("longest gap with acks=1: {gap:?}");
            assert!(gap < GAP_MAX, "{gap:?}");
        }
    });
}

#[test]
fn a_broker_that_comes_back_is_a_member_again_and_leads_what_it_is_preferred_for() {
    run(async {
        let cluster = Cluster::balanced(17, Duration::from_secs(30)).await;
        let mut lives = three(&cluster).await;
        assert_eq!(cluster.create_with(1, "t", 3, &[]).await, ErrorCode::None);
        for partition in 0..PARTITIONS {
            cluster.produce_to_leader(1, "t", partition, "first").await;
        }
        let before = cluster.look(2, "t").await;
        lives[0].take().unwrap().leave(&cluster.env).await;
        cluster.env.clock.sleep(Duration::from_secs(1)).await;
        lives[0] = Some(cluster.start(1).await);
        for partition in 0..PARTITIONS {
            cluster.produce_to_leader(2, "t", partition, "second").await;
        }
        cluster.env.clock.sleep(Duration::from_secs(60)).await;
        let after = cluster.look(2, "t").await;
        for partition in 0..PARTITIONS {
            assert_eq!(after.leader(partition), before.leader(partition), "{after:?}");
            cluster.produce_to_leader(1, "t", partition, "third").await;
            assert_eq!(cluster.values(1, "t", partition).await, ["first", "second", "third"]);
        }
        let image = cluster.metadata.image();
        for state in &image.topic("t").unwrap().partitions {
            assert_eq!(state.open_members(), 3);
        }
    });
}

/// Nobody can take anything over: there is nothing to wait for.
#[test]
fn brokers_that_all_end_do_not_wait_for_each_other() {
    run(async {
        let cluster = Cluster::new(18).await;
        let mut lives = three(&cluster).await;
        assert_eq!(cluster.create_with(1, "t", 3, &[("min.insync.replicas", "2")]).await, ErrorCode::None);
        for partition in 0..PARTITIONS {
            cluster.produce_to_leader(1, "t", partition, "first").await;
        }
        let began = cluster.env.clock.now();
        let ends = lives.iter_mut().map(|life| life.take().unwrap().leave(&cluster.env));
        futures::future::join_all(ends).await;
        let took = cluster.env.clock.now() - began;
        assert!(took < Duration::from_secs(1), "{took:?}");
        cluster.env.clock.sleep(Duration::from_secs(1)).await;
        let _lives = three(&cluster).await;
        for partition in 0..PARTITIONS {
            cluster.produce_to_leader(1, "t", partition, "second").await;
            assert_eq!(cluster.values(1, "t", partition).await, ["first", "second"]);
        }
    });
}
