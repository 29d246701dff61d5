//! A consumer to which each answer brings a little, and several batches, is answered once in an interval; others at once.

use std::time::Duration;

use base::env::Stream;
use base::error::ErrorCode;
use wire::message::*;

use crate::members::Cluster;
use crate::support::{ask, run};

const FETCHES: u32 = 20;
/// Answers that may leave ahead of their time, and the one that leaves when it is due.
const AT_ONCE: u32 = 5;
const INTERVAL: Duration = Duration::from_millis(100);

/// Fetches one partition again and again from the same offset over one connection; how long that took, and bytes of an answer.
async fn fetches(cluster: &Cluster, offset: i64, max_bytes: i32) -> (Duration, usize) {
    let mut stream = cluster.connect(1).await;
    let (began, mut bytes) = (cluster.env.clock.now(), 0);
    for _ in 0..FETCHES {
        bytes = fetch(&mut *stream, offset, max_bytes).await;
    }
    (cluster.env.clock.now() - began, bytes)
}

async fn fetch(stream: &mut dyn Stream, offset: i64, max_bytes: i32) -> usize {
    let partition = fetch_request::FetchPartition {
        partition: 0,
        fetch_offset: offset,
        partition_max_bytes: max_bytes,
        ..Default::default()
    };
    let topic =
        fetch_request::FetchTopic { topic: "t".into(), partitions: vec![partition], ..Default::default() };
    let request = FetchRequest {
        max_bytes: 1 << 20,
        max_wait_ms: 5_000,
        min_bytes: 1,
        topics: vec![topic],
        ..Default::default()
    };
    ask(stream, 11, &request, |response| response.responses[0].partitions[0].records.len()).await
}

async fn filled(setting: &str) -> (Cluster, crate::support::Life) {
    let cluster = Cluster::new(81).await;
    let life = cluster.start_with(1, &[setting]).await;
    assert_eq!(cluster.create(1, "t").await, ErrorCode::None);
    // A large one, and ten small ones: offsets 0, and 1 to 10.
    cluster.produce_to_leader(1, "t", 0, &"v".repeat(100_000)).await;
    for _ in 0..10 {
        cluster.produce_to_leader(1, "t", 0, "small").await;
    }
    (cluster, life)
}

#[test]
fn only_small_answers_of_several_batches_are_held_back() {
    run(async {
        let (cluster, _life) = filled("vltava.fetch.debounce.ms=100").await;
        let (several, bytes) = fetches(&cluster, 1, 1 << 20).await;
        assert!(bytes > 0 && several >= INTERVAL * (FETCHES - AT_ONCE), "{several:?}");
        assert!(several <= INTERVAL * FETCHES, "{several:?}");
        let (single, bytes) = fetches(&cluster, 10, 1 << 20).await;
        assert!(bytes > 0 && single < INTERVAL, "a single batch: {single:?}");
        let (large, bytes) = fetches(&cluster, 0, 1 << 20).await;
        assert!(bytes > 65_536 && large < INTERVAL, "much: {large:?}");
        let (limited, bytes) = fetches(&cluster, 1, 300).await;
        assert!(bytes > 0 && limited < INTERVAL, "a narrow limit: {limited:?}");
    });
}

#[test]
fn none_is_held_back_where_that_is_turned_off() {
    run(async {
        let (cluster, _life) = filled("vltava.fetch.debounce.ms=0").await;
        let (several, bytes) = fetches(&cluster, 1, 1 << 20).await;
        assert!(bytes > 0 && several < INTERVAL, "{several:?}");
    });
}
