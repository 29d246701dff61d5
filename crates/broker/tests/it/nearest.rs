//! Consumers that name their rack read from a broker there (KIP-392).

use std::time::Duration;

use base::batch::Batches;
use base::error::ErrorCode;
use wire::message::*;

use crate::members::Cluster;
use crate::support::{Life, ask, run};

const RACKS: [&str; 3] = ["a", "b", "c"];
const RACK_AWARE: &str = "replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector";

/// What a Fetch asks for.
#[derive(Clone, Copy)]
struct Wish<'a> {
    rack: &'a str,
    offset: i64,
    epoch: i32,
    wait_ms: i32,
}

impl<'a> Wish<'a> {
    fn of(rack: &'a str, offset: i64) -> Wish<'a> {
        Wish { rack, offset, epoch: -1, wait_ms: 0 }
    }
}

/// What it is told.
#[derive(Debug, PartialEq)]
struct Told {
    code: ErrorCode,
    high_watermark: i64,
    preferred: i32,
    values: Vec<String>,
}

impl Told {
    fn error(code: ErrorCode) -> Told {
        Told { code, high_watermark: -1, preferred: -1, values: Vec::new() }
    }
}

async fn start(cluster: &Cluster, node: i32) -> Life {
    let rack = format!("broker.rack={}", RACKS[node as usize - 1]);
    cluster.start_with(node, &[&rack, RACK_AWARE]).await
}

/// Three brokers in three racks, and a topic with three copies of which two must hold a record.
async fn begin(seed: u64) -> (Cluster, Vec<Option<Life>>) {
    let cluster = Cluster::new(seed).await;
    let mut lives = Vec::new();
    for node in 1..=3 {
        lives.push(Some(start(&cluster, node).await));
    }
    let configs = [("min.insync.replicas", "2")];
    assert_eq!(cluster.create_with(1, "t", 3, &configs).await, ErrorCode::None);
    (cluster, lives)
}

/// Asks for partition 0 of the topic.
async fn fetch(cluster: &Cluster, node: i32, wish: Wish<'_>) -> Told {
    let partition = fetch_request::FetchPartition {
        partition: 0,
        fetch_offset: wish.offset,
        current_leader_epoch: wish.epoch,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let topic =
        fetch_request::FetchTopic { topic: "t".into(), partitions: vec![partition], ..Default::default() };
    let request = FetchRequest {
        rack_id: wish.rack.into(),
        max_wait_ms: wish.wait_ms,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![topic],
        ..Default::default()
    };
    let mut stream = cluster.connect(node).await;
    ask(&mut *stream, 11, &request, |response| {
        let data = &response.responses[0].partitions[0];
        let bytes = data.records.to_bytes().unwrap();
        let mut values = Vec::new();
        for batch in Batches::new(&bytes) {
            for record in batch.unwrap().records_in_place().unwrap() {
                values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
            }
        }
        Told {
            code: ErrorCode::from_code(data.error_code),
            high_watermark: data.high_watermark,
            preferred: data.preferred_read_replica,
            values,
        }
    })
    .await
}

/// Asks until it is told what is waited for: brokers learn of things one after the other.
async fn fetch_until(cluster: &Cluster, node: i32, wish: Wish<'_>, good: impl Fn(&Told) -> bool) -> Told {
    for _ in 0..400 {
        let told = fetch(cluster, node, wish).await;
        if good(&told) {
            return told;
        }
        cluster.env.clock.sleep(Duration::from_millis(50)).await;
    }
    panic!("broker {node} never told what was waited for: {:?}", fetch(cluster, node, wish).await);
}

async fn produce(cluster: &Cluster, asked: i32, values: std::ops::Range<i32>) -> Vec<String> {
    let values: Vec<String> = values.map(|number| format!("k/{number}")).collect();
    for value in &values {
        cluster.produce_to_leader(asked, "t", 0, value).await;
    }
    values
}

async fn leader(cluster: &Cluster, asked: i32) -> (i32, i32) {
    cluster.look(asked, "t").await.leaders[0]
}

#[test]
fn a_consumer_is_sent_to_its_rack_and_reads_there_what_is_committed() {
    run(async {
        let (cluster, _lives) = begin(1).await;
        let values = produce(&cluster, 1, 0..5).await;
        let (leads, epoch) = leader(&cluster, 1).await;
        let near = leads % 3 + 1;
        let rack = RACKS[near as usize - 1];
        let sent = Told { code: ErrorCode::None, high_watermark: 5, preferred: near, values: Vec::new() };
        // At once, although it would wait for records.
        let patient = Wish { wait_ms: 60_000, ..Wish::of(rack, 5) };
        let began = cluster.env.clock.now();
        assert_eq!(
            fetch_until(&cluster, leads, Wish::of(rack, 0), |told| told.preferred == near).await,
            sent
        );
        assert_eq!(fetch(&cluster, leads, patient).await, sent);
        assert!(cluster.env.clock.now() - began < Duration::from_secs(5));
        let read = Told { preferred: -1, values: values.clone(), ..sent };
        for rack in ["", "elsewhere", RACKS[leads as usize - 1]] {
            assert_eq!(fetch(&cluster, leads, Wish::of(rack, 0)).await, read, "rack `{rack}`");
        }
        let there = Wish { epoch, ..Wish::of(rack, 0) };
        assert_eq!(fetch_until(&cluster, near, there, |told| told.high_watermark == 5).await, read);
        for (wish, code) in [
            (Wish::of("", 0), ErrorCode::NotLeaderOrFollower),
            (Wish { epoch: epoch + 1, ..there }, ErrorCode::UnknownLeaderEpoch),
            (Wish { offset: -1, ..there }, ErrorCode::OffsetOutOfRange),
            // The leader alone knows whether there is such an offset.
            (Wish { offset: 6, ..there }, ErrorCode::OffsetNotAvailable),
        ] {
            assert_eq!(fetch(&cluster, near, wish).await, Told::error(code));
        }
        let beyond = Told::error(ErrorCode::OffsetOutOfRange);
        assert_eq!(fetch(&cluster, leads, Wish::of(rack, 6)).await, beyond);
        assert_eq!(latest(&cluster, near).await, (ErrorCode::NotLeaderOrFollower, -1));
        assert_eq!(latest(&cluster, leads).await, (ErrorCode::None, 5));
    });
}

async fn latest(cluster: &Cluster, node: i32) -> (ErrorCode, i64) {
    let partition = list_offsets_request::ListOffsetsPartition {
        partition_index: 0,
        current_leader_epoch: -1,
        timestamp: -1,
    };
    let topic = list_offsets_request::ListOffsetsTopic { name: "t".into(), partitions: vec![partition] };
    let request = ListOffsetsRequest { topics: vec![topic], ..Default::default() };
    let mut stream = cluster.connect(node).await;
    ask(&mut *stream, 5, &request, |response| {
        let told = &response.topics[0].partitions[0];
        (ErrorCode::from_code(told.error_code), told.offset)
    })
    .await
}

#[test]
fn who_waits_at_a_copy_is_woken_by_what_is_committed() {
    run(async {
        let (cluster, _lives) = begin(2).await;
        produce(&cluster, 1, 0..3).await;
        let (leads, _) = leader(&cluster, 1).await;
        let near = leads % 3 + 1;
        let rack = RACKS[near as usize - 1];
        fetch_until(&cluster, near, Wish::of(rack, 3), |told| told.high_watermark == 3).await;
        let began = cluster.env.clock.now();
        let waiting = fetch(&cluster, near, Wish { wait_ms: 30_000, ..Wish::of(rack, 3) });
        let producing = async {
            cluster.env.clock.sleep(Duration::from_secs(2)).await;
            produce(&cluster, 1, 3..4).await
        };
        let (told, values) = futures::join!(waiting, producing);
        let waited = cluster.env.clock.now() - began;
        assert_eq!((told.code, &told.values, told.high_watermark), (ErrorCode::None, &values, 4));
        assert!(waited >= Duration::from_secs(2) && waited < Duration::from_secs(4), "{waited:?}");
    });
}

#[test]
fn a_broker_that_is_left_out_sends_consumers_away_until_it_has_all_again() {
    run(async {
        let (cluster, mut lives) = begin(3).await;
        let mut values = produce(&cluster, 1, 0..5).await;
        let (leads, _) = leader(&cluster, 1).await;
        let near = leads % 3 + 1;
        let rack = RACKS[near as usize - 1];
        fetch_until(&cluster, leads, Wish::of(rack, 0), |told| told.preferred == near).await;
        lives[near as usize - 1].take().unwrap().leave(&cluster.env).await;
        values.extend(produce(&cluster, leads, 5..10).await);
        let leaders = fetch(&cluster, leads, Wish::of(rack, 0)).await;
        assert_eq!((leaders.code, leaders.preferred, leaders.high_watermark), (ErrorCode::None, -1, 10));
        assert_eq!(leaders.values, values[..leaders.values.len()]);
        assert!(!leaders.values.is_empty());
        lives[near as usize - 1] = Some(start(&cluster, near).await);
        // It holds records of its life before, and does not know of those that came since.
        assert_eq!(
            fetch(&cluster, near, Wish::of(rack, 0)).await,
            Told::error(ErrorCode::NotLeaderOrFollower)
        );
        values.extend(produce(&cluster, leads, 10..12).await);
        fetch_until(&cluster, leads, Wish::of(rack, 0), |told| told.preferred == near).await;
        let told = fetch_until(&cluster, near, Wish::of(rack, 0), |told| told.high_watermark == 12).await;
        assert_eq!(told.code, ErrorCode::None);
        let mut read = told.values;
        // One answer has no records of two segments.
        while read.len() < 12 {
            let told = fetch(&cluster, near, Wish::of(rack, read.len() as i64)).await;
            assert_eq!(told.code, ErrorCode::None);
            read.extend(told.values);
        }
        assert_eq!(read, values);
    });
}

#[test]
fn nothing_that_was_read_from_a_copy_is_undone_by_a_new_leader() {
    for seed in 10..20 {
        run(async move {
            let (cluster, mut lives) = begin(seed).await;
            produce(&cluster, 1, 0..3).await;
            let (leads, _) = leader(&cluster, 1).await;
            let near = leads % 3 + 1;
            let other = near % 3 + 1;
            let rack = RACKS[near as usize - 1];
            let mut read: Vec<String> = Vec::new();
            for round in 1..6 {
                let from = 3 * round;
                let reading = async {
                    for _ in 0..20 {
                        let wish = Wish { wait_ms: 20, ..Wish::of(rack, read.len() as i64) };
                        let told = fetch(&cluster, near, wish).await;
                        if told.code == ErrorCode::None {
                            read.extend(told.values);
                        }
                    }
                };
                let producing = async {
                    if round == 3 {
                        lives[leads as usize - 1].take().unwrap().leave(&cluster.env).await;
                    }
                    produce(&cluster, other, from..from + 3).await
                };
                futures::join!(reading, producing);
            }
            assert!(read.len() >= 3, "seed {seed}: nothing was read from the copy");
            let all = cluster.values(other, "t", 0).await;
            assert_eq!(read, all[..read.len()], "seed {seed}");
        });
    }
}
