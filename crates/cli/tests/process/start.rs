//! How long a start takes, until the process listens and until a record has gone through it, and how much
//! memory it takes when it has nothing to do.

use std::time::Duration;

use base::env::Env;
use client::{Consumer, ConsumerConfig, PartitionName, Producer, ProducerConfig, ProducerRecord, Start};

use crate::run;
use crate::server::{Home, megabytes};

/// From the start of the process on an empty directory until it takes connections.
const LISTENS_WITHIN: Duration = Duration::from_millis(300);
/// From the same moment until a record was produced and consumed.
const SERVES_WITHIN: Duration = Duration::from_secs(3);
/// Resident memory of a process that idles, bytes.
const IDLE_BYTES_MAX: u64 = 25_000_000;
/// Starts that are measured; the middle one counts, because other processes use the machine too.
const STARTS: usize = 7;
/// How long the process is left alone before its memory counts.
const IDLE_FOR: Duration = Duration::from_secs(3);

#[test]
fn starts_on_an_empty_directory_within_300_ms() {
    let mut times: Vec<_> = (0..STARTS)
        .map(|_| {
            let home = Home::new("start", &[]);
            let mut server = home.spawn();
            server.wait_until_listening()
        })
        .collect();
    times.sort();
    let median = times[STARTS / 2];
    println!(
        "start to listening on an empty directory: {median:.1?} (all: {times:.1?}), at most {LISTENS_WITHIN:?}"
    );
    assert!(median < LISTENS_WITHIN);
}

#[test]
fn serves_the_first_record_within_3_s_and_idles_in_25_mb() {
    let home = Home::new("first-record", &[]);
    let server = home.start();
    run(async {
        let client = home.client().await;
        let producer = Producer::new(&client, ProducerConfig::default());
        // Nobody has created the topic.
        let sent = producer.send(ProducerRecord::value("hello", b"world")).await.expect("room");
        sent.wait().await.expect("acknowledged");
        let mut consumer = Consumer::new(&client, ConsumerConfig::default());
        consumer.assign([(PartitionName::new("hello", 0), Start::Beginning)]);
        let records = consumer.poll(SERVES_WITHIN).await.expect("records");
        let age = server.age();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].value.as_deref(), Some(&b"world"[..]));
        println!("start to first record produced and consumed: {age:.1?}, at most {SERVES_WITHIN:?}");
        assert!(age < SERVES_WITHIN);
        Env::os().clock.sleep(IDLE_FOR).await;
    });
    let memory = server.memory();
    println!("memory when idle: {memory}, at most {:.0} MB", megabytes(IDLE_BYTES_MAX));
    assert!(memory.peak < IDLE_BYTES_MAX);
}
