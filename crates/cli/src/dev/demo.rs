//! `vltava dev cluster --demo`: one node is killed while records are written, and nothing that was acknowledged is lost.

use std::time::Duration;

use client::admin::NewTopic;
use client::{
    Client, ClientConfig, Consumer, ConsumerConfig, PartitionName, Producer, ProducerConfig, ProducerRecord,
    Start,
};

use super::layout::Layout;
use super::process::Process;
use crate::failure::{Failure, Outcome};
use crate::output::{self, count, duration};

/// Nodes it takes for a majority of the controllers to be left when one is killed.
pub(super) const NODES_MIN: u16 = 3;
/// The topic, of one partition, which every node has a copy of.
const TOPIC: &str = "demo";
/// Time between two records.
const PACE: Duration = Duration::from_millis(2);
/// How long is written before the leader is killed, and after that.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(2);
/// How long a poll waits, and how long reading back may take.
const POLL_WAIT: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(30);

/// What was written.
struct Written {
    records: u64,
    /// The longest time from one acknowledgement to the next.
    longest_gap: Duration,
}

/// Writes numbered records, kills the node that leads, writes on, reads all back and compares.
pub(super) async fn run(layout: &Layout, processes: &mut [Process]) -> Outcome {
    let env = base::env::Env::os();
    let bootstrap = layout.bootstrap();
    let client = Client::connect(&env, ClientConfig::new(bootstrap.split(',').map(str::to_owned))).await?;
    let copies = layout.nodes.min(3);
    let configs = vec![("min.insync.replicas".to_owned(), copies.min(2).to_string())];
    let topic = NewTopic {
        partitions: Some(1),
        replication_factor: i16::try_from(copies).ok(),
        configs,
        ..NewTopic::named(TOPIC)
    };
    for created in client.create_topics(&[topic], false).await? {
        created?;
    }
    tell!("topic {TOPIC}: 1 partition, {copies} copies; acks=all, each on the disks of those in sync");
    let producer =
        Producer::new(&client, ProducerConfig { linger: Duration::ZERO, ..ProducerConfig::default() });
    let first = write(&client, &producer, 0, BEFORE).await?;
    let partition = PartitionName::new(TOPIC, 0);
    let leader = client.leader(&partition).await?;
    let process = processes.iter_mut().find(|process| i32::from(process.node) == leader.0);
    let process =
        process.ok_or_else(|| Failure::new(format!("no node of this cluster is broker {leader}")))?;
    process.kill().await;
    tell!("node {leader}, which leads it, is killed as with kill -9 while records are written");
    let second = write(&client, &producer, first.records, AFTER).await?;
    let leader = client.leader(&partition).await?;
    output::line(&format!(
        "fail-over  {} without an acknowledgement, {} before that; node {leader} leads now",
        duration(second.longest_gap),
        duration(first.longest_gap)
    ))?;
    read_back(&client, partition, second.records).await?;
    output::line(&format!(
        "compared   {} records were acknowledged, all are there, once and in order",
        count(second.records)
    ))
}

/// Writes records numbered from `from` on, each when the one before is acknowledged.
async fn write(client: &Client, producer: &Producer, from: u64, time: Duration) -> Outcome<Written> {
    let clock = &client.env().clock;
    let began = clock.now();
    let mut written = Written { records: from, longest_gap: Duration::ZERO };
    let mut acknowledged_at = began;
    while clock.now() < began + time {
        let value = written.records.to_string();
        producer.send(ProducerRecord::value(TOPIC, value.as_bytes())).await?.wait().await?;
        written.records += 1;
        let now = clock.now();
        written.longest_gap = written.longest_gap.max(now - acknowledged_at);
        acknowledged_at = now;
        clock.sleep(PACE).await;
    }
    Ok(written)
}

async fn read_back(client: &Client, partition: PartitionName, expected: u64) -> Outcome {
    let clock = client.env().clock.clone();
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    consumer.assign([(partition, Start::Beginning)]);
    let deadline = clock.now() + PATIENCE;
    let mut next = 0u64;
    while next < expected {
        if clock.now() > deadline {
            return Err(Failure::new(format!("only {next} of {expected} records came back")));
        }
        for record in consumer.poll(POLL_WAIT).await? {
            if record.value.as_deref() != Some(next.to_string().as_bytes()) {
                let at = record.offset;
                return Err(Failure::new(format!("the record at offset {at} is not number {next}"))
                    .help("this is a defect: please report it"));
            }
            next += 1;
        }
    }
    Ok(())
}
