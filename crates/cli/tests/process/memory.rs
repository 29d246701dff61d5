//! Memory under one producer and one consumer that go as fast as they can.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base::env::sim::SimRandom;
use base::env::{Env, Random};
use client::admin::NewTopic;
use client::{
    Client, Consumer, ConsumerConfig, PartitionName, Producer, ProducerConfig, ProducerRecord, Start,
};

use crate::run;
use crate::server::{Home, megabytes};

/// Most that may be resident, bytes.
const BYTES_MAX: u64 = 150_000_000;
/// How long the two go on.
const GO_ON_FOR: Duration = Duration::from_secs(15);
/// How often memory is looked at; the peak is what the system has noted.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const TOPIC: &str = "flood";
const PARTITIONS: i32 = 4;
const RECORD_BYTES: usize = 1024;
/// Keeps the disk from filling up.
const RETAINED_BYTES: &str = "268435456";

#[test]
fn a_saturating_producer_and_consumer_need_150_mb_with_fsync() {
    saturate("fsync");
}

#[test]
fn a_saturating_producer_and_consumer_need_150_mb_in_the_page_cache() {
    saturate("page-cache");
}

fn saturate(durability: &'static str) {
    let home = Home::new("memory", &["log.retention.check.interval.ms=1000"]);
    let server = home.start();
    run(async {
        let client = home.client().await;
        let config = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let configs = vec![
            config("vltava.durability", durability),
            config("segment.bytes", "67108864"),
            config("retention.bytes", RETAINED_BYTES),
        ];
        let topic = NewTopic { partitions: Some(PARTITIONS), configs, ..NewTopic::named(TOPIC) };
        client.create_topics(&[topic], false).await.expect("an answer").remove(0).expect("a new topic");
        let ended = Arc::new(AtomicBool::new(false));
        let consumed = Arc::new(AtomicU64::new(0));
        // A client each, as two processes would have it.
        let producing = tokio::spawn(produce(client, ended.clone()));
        let consuming = tokio::spawn(consume(home.client().await, ended.clone(), consumed.clone()));
        let began = Instant::now();
        let mut anonymous = 0;
        while began.elapsed() < GO_ON_FOR {
            Env::os().clock.sleep(LOOK_EVERY).await;
            anonymous = anonymous.max(server.memory().anonymous);
        }
        let took = began.elapsed().as_secs_f64();
        ended.store(true, Ordering::Relaxed);
        let memory = server.memory();
        let produced = producing.await.expect("the producer ends");
        consuming.await.expect("the consumer ends");
        let consumed = consumed.load(Ordering::Relaxed);
        let rate = |records: u64| megabytes(records * RECORD_BYTES as u64) / took;
        println!(
            "{durability}: produced {:.0} MB/s, consumed {:.0} MB/s; memory {memory}, anonymous at most {:.1} MB; \
             at most {:.0} MB",
            rate(produced),
            rate(consumed),
            megabytes(anonymous),
            megabytes(BYTES_MAX)
        );
        assert!(memory.peak < BYTES_MAX, "{memory}");
        assert!(consumed > 0, "nothing was consumed");
    });
}

/// Produces as fast as the server takes it; tells how many records.
async fn produce(client: Client, ended: Arc<AtomicBool>) -> u64 {
    let config = ProducerConfig { batch_bytes: 256 * 1024, ..ProducerConfig::default() };
    let producer = Producer::new(&client, config);
    let mut value = vec![0; RECORD_BYTES];
    SimRandom::new(1).fill(&mut value);
    let mut count = 0;
    while !ended.load(Ordering::Relaxed) {
        producer.send(ProducerRecord::value(TOPIC, &value)).await.expect("room");
        count += 1;
    }
    producer.flush().await.expect("acknowledged");
    count
}

async fn consume(client: Client, ended: Arc<AtomicBool>, consumed: Arc<AtomicU64>) {
    // Retention may overtake it.
    let config = ConsumerConfig { reset: Some(Start::Beginning), ..ConsumerConfig::default() };
    let mut consumer = Consumer::new(&client, config);
    consumer
        .assign((0..PARTITIONS).map(|partition| (PartitionName::new(TOPIC, partition), Start::Beginning)));
    while !ended.load(Ordering::Relaxed) {
        let records = consumer.poll(Duration::from_millis(100)).await.expect("records");
        consumed.fetch_add(records.len() as u64, Ordering::Relaxed);
    }
}
