//! 10,000 partitions on one node: created, written to, found again after `kill -9`.

use std::time::{Duration, Instant};

use client::admin::NewTopic;
use client::{Client, Producer, ProducerConfig, ProducerRecord};

use crate::run;
use crate::server::{Home, Server, megabytes, need_descriptors};

const TOPICS: i32 = 100;
const PARTITIONS_EACH: i32 = 100;
/// Topics of one request.
const TOPICS_CREATED_AT_ONCE: usize = 10;
const CREATED_WITHIN: Duration = Duration::from_secs(20);
/// From the start after a kill until the process listens and a record is acknowledged.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// Most that may be resident at any time, bytes.
const BYTES_MAX: u64 = 400_000_000;
/// What the server opens at most for them, with room to spare.
const DESCRIPTORS: usize = 16_384;

#[test]
fn ten_thousand_partitions_are_created_written_and_found_again() {
    need_descriptors(DESCRIPTORS);
    let home = Home::new("partitions", &[]);
    let server = home.start();
    run(async {
        let client = home.client().await;
        let began = Instant::now();
        create(&client).await;
        let took = began.elapsed();
        report("created", took, Some(CREATED_WITHIN), &server);
        assert!(took < CREATED_WITHIN);
        produce_to_all(&client, &server, "first record in each").await;
        produce_to_all(&client, &server, "second record in each").await;
    });
    server.kill();
    let mut server = home.spawn();
    let listening = server.wait_until_listening();
    report("listening after kill -9", listening, Some(BACK_WITHIN), &server);
    run(async {
        let client = home.client().await;
        let producer = Producer::new(&client, ProducerConfig::default());
        produce(&producer, 0..1).await;
        let back = server.age();
        report("producing after kill -9", back, Some(BACK_WITHIN), &server);
        assert!(back < BACK_WITHIN);
        produce_to_all(&client, &server, "third record in each").await;
    });
    let (status, took) = server.end();
    assert!(status.success(), "{}", home.last_words());
    println!("10,000 partitions: clean end in {took:.1?}");
    let mut server = home.spawn();
    let listening = server.wait_until_listening();
    report("listening after a clean end", listening, Some(BACK_WITHIN), &server);
    assert!(listening < BACK_WITHIN);
}

fn report(what: &str, took: Duration, bar: Option<Duration>, server: &Server<'_>) {
    let memory = server.memory();
    let bar = bar.map(|bar| format!(", at most {bar:?}")).unwrap_or_default();
    println!(
        "10,000 partitions: {what} in {took:.1?}{bar}; memory {memory}, at most {:.0} MB",
        megabytes(BYTES_MAX)
    );
    assert!(memory.peak < BYTES_MAX);
}

async fn create(client: &Client) {
    let topics: Vec<_> = (0..TOPICS).map(topic_name).collect();
    for names in topics.chunks(TOPICS_CREATED_AT_ONCE) {
        let topic = |name: &String| NewTopic { partitions: Some(PARTITIONS_EACH), ..NewTopic::named(name) };
        let topics: Vec<_> = names.iter().map(topic).collect();
        for created in client.create_topics(&topics, false).await.expect("an answer") {
            created.expect("a new topic");
        }
    }
}

fn topic_name(number: i32) -> String {
    format!("many-{number}")
}

/// One record to each partition.
async fn produce_to_all(client: &Client, server: &Server<'_>, what: &str) {
    let producer = Producer::new(client, ProducerConfig::default());
    let began = Instant::now();
    produce(&producer, 0..TOPICS).await;
    report(what, began.elapsed(), None, server);
}

/// One record to each partition of topics; all must be acknowledged.
async fn produce(producer: &Producer, topics: std::ops::Range<i32>) {
    for topic in topics {
        let name = topic_name(topic);
        for partition in 0..PARTITIONS_EACH {
            let record =
                ProducerRecord { partition: Some(partition), ..ProducerRecord::value(&name, &[b'v'; 100]) };
            producer.send(record).await.expect("room");
        }
    }
    producer.flush().await.expect("all are acknowledged");
}
