//! A broker with the least memory there may be (`vltava.memory.limit`), and clients that would make it hold much more:
//! each pool stays within its share, and clients that behave go on.

use std::time::Duration;

use base::env::{Env, Stream};
use bytes::Bytes;
use wire::message::*;
use wire::request_frame;

use crate::support::{Life, ask, receive, run, send};

const LIMIT_BYTES: i64 = 64 << 20;
/// What requests and answers may hold, bytes: an eighth. Answers begin up to a quarter beyond it.
const REQUEST_BYTES: i64 = LIMIT_BYTES / 8;
/// What a batch of these tests takes, bytes: an answer that is begun in time holds one at least.
const BATCH_BYTES: usize = 900_000;
const BATCHES: usize = 8;
/// Clients of a flood.
const FLOOD: usize = 200;
const FETCH_VERSION: i16 = 12;
const PRODUCE_VERSION: i16 = 8;
const TOPIC: &str = "t";

struct World {
    env: Env,
    life: Life,
}

impl World {
    async fn new(seed: u64) -> World {
        let env = Env::sim(seed);
        let limit = format!("vltava.memory.limit={LIMIT_BYTES}");
        let settings = ["listeners=PLAINTEXT://127.0.0.1:9092", "vltava.durability=page-cache", &limit];
        let life = Life::start(&env, &settings).await;
        let world = World { env, life };
        let topic = metadata_request::MetadataRequestTopic { name: Some(TOPIC.into()), ..Default::default() };
        let create = MetadataRequest {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: true,
            ..Default::default()
        };
        let created = |response: MetadataResponse<'_>| response.topics[0].error_code;
        assert_eq!(ask(&mut *world.connect().await, 9, &create, created).await, 0);
        world
    }

    async fn connect(&self) -> Box<dyn Stream> {
        self.env.network.connect("127.0.0.1:9092").await.expect("the broker listens")
    }

    async fn produce(&self, records: &Bytes) -> i16 {
        let code = |response: ProduceResponse<'_>| response.responses[0].partition_responses[0].error_code;
        ask(&mut *self.connect().await, PRODUCE_VERSION, &produce(records), code).await
    }

    /// Bytes of requests and answers held, as of a second ago at most.
    fn held(&self) -> i64 {
        self.life.metrics.node().request_bytes_queued.get()
    }

    async fn pass(&self, seconds: u64) {
        self.env.clock.sleep(Duration::from_secs(seconds)).await;
    }
}

fn batch(value: &[u8], producer_id: i64) -> Bytes {
    let mut batch = base::batch::BatchBuilder::new().producer(producer_id, 0, 0);
    batch.append(1, None, Some(value));
    Bytes::from(batch.finish().expect("a batch"))
}

fn produce(records: &Bytes) -> ProduceRequest<'_> {
    let data = produce_request::PartitionProduceData { index: 0, records: Some(records) };
    let topic = produce_request::TopicProduceData {
        name: TOPIC.into(),
        partition_data: vec![data],
        ..Default::default()
    };
    ProduceRequest { acks: 1, timeout_ms: 5_000, topic_data: vec![topic], ..Default::default() }
}

/// Asks for everything, and waits half a second for it.
fn fetch() -> FetchRequest<'static> {
    let partition = fetch_request::FetchPartition { partition_max_bytes: 50 << 20, ..Default::default() };
    let topic =
        fetch_request::FetchTopic { topic: TOPIC.into(), partitions: vec![partition], ..Default::default() };
    FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 50 << 20,
        session_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    }
}

/// The error code of the partition, and bytes of its records.
fn fetched(response: FetchResponse<'_>) -> (i16, usize) {
    let partition = &response.responses[0].partitions[0];
    (partition.error_code, partition.records.len())
}

#[test]
fn consumers_that_do_not_read_hold_no_more_than_their_share_and_are_cut_off() {
    run(async {
        let world = World::new(1).await;
        for number in 0..BATCHES {
            assert_eq!(world.produce(&batch(&vec![1; BATCH_BYTES], number as i64)).await, 0);
        }
        let alone = ask(&mut *world.connect().await, FETCH_VERSION, &fetch(), fetched).await;
        assert!(alone.0 == 0 && alone.1 >= 2 * BATCH_BYTES, "{alone:?}: a quarter of what there is");

        let frame = request_frame(1, None, FETCH_VERSION, &fetch()).expect("a request");
        let mut flood = Vec::new();
        for _ in 0..FLOOD {
            let mut stream = world.connect().await;
            send(&mut *stream, &[&frame[..]; 3].concat()).await;
            flood.push(stream);
        }
        world.pass(5).await;
        let (held, wanted) = (world.held(), (FLOOD * BATCH_BYTES) as i64);
        println!("{FLOOD} clients hold {held} bytes of {REQUEST_BYTES}; a batch each would be {wanted}");
        assert!(held > REQUEST_BYTES && held < REQUEST_BYTES * 5 / 4 + 2 * BATCH_BYTES as i64, "{held}");

        // Others go on meanwhile: small requests at once, consumers when those are gone that do not read.
        let began = world.env.clock.now();
        assert_eq!(world.produce(&batch(b"small", 1_000)).await, 0);
        assert!(world.env.clock.now() - began < Duration::from_millis(100));
        let mut consumer = world.connect().await;
        let waited = ask(&mut *consumer, FETCH_VERSION, &fetch(), fetched).await;
        assert_eq!(waited, (0, 0), "no records, no error");
        let took = world.env.clock.now() - began;
        assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(1), "{took:?}");
        while ask(&mut *consumer, FETCH_VERSION, &fetch(), fetched).await == (0, 0) {
            let took = world.env.clock.now() - began;
            assert!(took < Duration::from_secs(40), "nobody was cut off after {took:?}");
        }
        drop(flood);
        world.pass(2).await;
        assert_eq!(world.held(), 0);
    });
}

#[test]
fn requests_with_large_answers_wait_for_memory() {
    run(async {
        let world = World::new(2).await;
        for number in 0..BATCHES {
            assert_eq!(world.produce(&batch(&vec![1; BATCH_BYTES], number as i64)).await, 0);
        }
        let frame = request_frame(1, None, FETCH_VERSION, &fetch()).expect("a request");
        let mut flood = Vec::new();
        for _ in 0..FLOOD {
            let mut stream = world.connect().await;
            send(&mut *stream, &frame).await;
            flood.push(stream);
        }
        world.pass(2).await;
        let mut other = world.connect().await;
        let all = MetadataRequest { topics: None, ..Default::default() };
        send(&mut *other, &request_frame(5, None, 9, &all).expect("a request")).await;
        let early = tokio::select! {
            answer = receive(&mut *other) => answer,
            () = world.env.clock.sleep(Duration::from_secs(3)) => None,
        };
        assert_eq!(early, None, "memory is spent");
        // One that reads after all makes room for it.
        for stream in &mut flood {
            receive(&mut **stream).await.expect("an answer");
        }
        assert!(receive(&mut *other).await.is_some());
    });
}

#[test]
fn producers_without_number_are_forgotten_in_time() {
    const PRODUCERS: i64 = 25_000;
    run(async {
        let world = World::new(3).await;
        let mut stream = world.connect().await;
        for first in (0..PRODUCERS).step_by(50) {
            let ids = first..first + 50;
            let batches: Vec<Bytes> = ids.map(|id| batch(b"v", id)).collect();
            let frames = batches.iter().map(|records| {
                request_frame(1, None, PRODUCE_VERSION, &produce(records)).expect("a request")
            });
            let frames: Vec<_> = frames.collect();
            send(&mut *stream, &frames.concat()).await;
            for _ in 0..batches.len() {
                let answer = receive(&mut *stream).await.expect("an answer");
                let response = ProduceResponse::decode(&mut wire::Reader::new(&answer[4..]), PRODUCE_VERSION);
                let response = response.expect("a response");
                assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
            }
        }
        let node = world.life.metrics.node();
        let (held, max) = (node.producer_bytes.get(), node.producer_bytes_max.get());
        let evicted = node.producers_evicted.get();
        println!("{PRODUCERS} producers hold {held} bytes of {max}; {evicted} were forgotten");
        assert_eq!(max, LIMIT_BYTES / 8);
        assert!(held <= max && held > max / 10 * 9 && evicted > 0);
        // The last ones are still known.
        let retried =
            |response: ProduceResponse<'_>| response.responses[0].partition_responses[0].base_offset;
        let again = batch(b"v", PRODUCERS - 1);
        assert_eq!(ask(&mut *stream, PRODUCE_VERSION, &produce(&again), retried).await, PRODUCERS - 1);
    });
}
