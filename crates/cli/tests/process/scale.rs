//! Thousands of partitions on three brokers: a broker that led a third of them is killed, then all are restarted one by
//! one, and nothing is lost. On request: `cargo test --release -p cli --test process scale -- --ignored --nocapture`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::env::Env;
use client::admin::NewTopic;
use client::{Acks, Client, ClientConfig, PartitionName, Producer, ProducerConfig, ProducerRecord};
use tokio::task::JoinSet;

use crate::chaos::{COPIES, HEAL_WITHIN, Nodes, PATIENCE, pause_ms};
use crate::inspect::inspect;
use crate::journal::{Journal, Known, Promise};
use crate::load::Field;
use crate::run;

/// As many as are to be steady on three brokers of one machine.
const MANY: Field = Field { topic: "many", partitions: 5_000 };
/// All partitions that the killed broker led are to be led again within this; asked for 1,000 of them.
const LED_WITHIN: Duration = Duration::from_secs(3);

/// While nodes are restarted one in so many is written to.
const SOME: usize = 10;

/// Writes one record to each of some partitions, and waits for all of them.
struct Rounds {
    producer: Producer,
    journal: Arc<Journal>,
    /// Of the next record of each partition.
    numbers: Vec<u32>,
}

impl Rounds {
    fn new(client: &Client, journal: &Arc<Journal>) -> Rounds {
        let config = ProducerConfig {
            acks: Acks::All,
            idempotent: true,
            delivery_timeout: PATIENCE,
            ..ProducerConfig::default()
        };
        Rounds {
            producer: Producer::new(client, config),
            journal: journal.clone(),
            numbers: vec![0; MANY.partitions as usize],
        }
    }

    /// How long it took.
    async fn write(&mut self, partitions: impl Iterator<Item = i32>) -> Duration {
        let began = Instant::now();
        let mut deliveries = JoinSet::new();
        for partition in partitions {
            let number = &mut self.numbers[partition as usize];
            let value = Known::begin_value(0, *number);
            *number += 1;
            let known = Known::of_value(&value).expect("it was made so");
            let record =
                ProducerRecord { partition: Some(partition), ..ProducerRecord::value(MANY.topic, &value) };
            let delivery = self.producer.send(record).await.expect("room comes");
            deliveries.spawn(async move { (delivery.wait().await, known) });
        }
        while let Some(delivered) = deliveries.join_next().await {
            let (placed, known) = delivered.expect("no panic");
            let placed = placed.expect("it is acknowledged in the end");
            let offset = placed.offset.expect("acks=all tells the offset");
            self.journal.record(&placed.partition, offset, known);
        }
        began.elapsed()
    }
}

/// Partitions that a node leads.
async fn led_by(nodes: &Nodes, node: usize) -> Vec<i32> {
    let view = nodes.view(node).await.expect("it serves");
    let led = view
        .partitions
        .iter()
        .filter(|(name, (leader, ..))| &*name.topic == MANY.topic && *leader == node as i32 + 1);
    led.map(|(name, _)| name.partition).collect()
}

#[test]
#[ignore = "takes minutes, in which nothing else should run"]
fn thousands_of_partitions_outlive_a_kill_and_a_rolling_restart() {
    run(async {
        let mut nodes = Nodes::start("scale");
        // A request for each partition: on a slow machine the last ones wait for long.
        let config = ClientConfig { request_timeout: Duration::from_secs(30), ..nodes.config() };
        let client = Client::connect(&Env::os(), config).await.expect("they serve");
        let topic = NewTopic {
            partitions: Some(MANY.partitions),
            replication_factor: Some(COPIES as i16),
            ..NewTopic::named(MANY.topic)
        };
        let began = Instant::now();
        client.create_topics(&[topic], false).await.expect("an answer").remove(0).expect("a new topic");
        println!("{} partitions made in {:.2?}", MANY.partitions, began.elapsed());
        let journal = Arc::new(Journal::default());
        let mut rounds = Rounds::new(&client, &journal);
        println!("a record to each: {:.2?}", rounds.write(0..MANY.partitions).await);
        kill_one(&mut nodes, &mut rounds).await;
        restart_all(&mut nodes, &mut rounds).await;
        let inspection =
            inspect(&client, &journal, &[(MANY.topic, Promise::Once)]).await.expect("all can be read");
        println!("read {inspection}");
        let findings = journal.findings();
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    });
}

async fn kill_one(nodes: &mut Nodes, rounds: &mut Rounds) {
    let led = led_by(nodes, 0).await;
    nodes.kill(0);
    let killed = Instant::now();
    let is_led = |view: &BTreeMap<PartitionName, (i32, i32, usize)>| {
        led.iter()
            .all(|it| view.get(&PartitionName::new(MANY.topic, *it)).is_some_and(|(leader, ..)| *leader > 1))
    };
    while !nodes.view(1).await.is_some_and(|view| is_led(&view.partitions)) {
        assert!(killed.elapsed() < HEAL_WITHIN, "some have no leader");
        pause_ms(20).await;
    }
    let elected = killed.elapsed();
    rounds.write(led.iter().copied()).await;
    let written = killed.elapsed();
    println!(
        "{} partitions of a killed broker: others lead after {elected:.2?}, all take records after {written:.2?}",
        led.len()
    );
    nodes.restart(0);
    let healed = nodes.heal(HEAL_WITHIN).await.expect("all copies come back");
    println!("all copies are in sync {healed:.2?} after its start");
    assert!(elected <= LED_WITHIN, "{elected:?} for {} partitions", led.len());
}

async fn restart_all(nodes: &mut Nodes, rounds: &mut Rounds) {
    for node in 0..COPIES {
        let ended = tokio::task::block_in_place(|| nodes.end(node));
        let written = rounds.write((0..MANY.partitions).step_by(SOME)).await;
        nodes.restart(node);
        let healed = nodes
            .heal(HEAL_WITHIN)
            .await
            .unwrap_or_else(|error| panic!("{}", error.lines().take(5).collect::<Vec<_>>().join("\n")));
        println!(
            "node {}: ended in {ended:.2?}, a record to some without it {written:.2?}, all copies {healed:.2?} after its start",
            node + 1
        );
    }
}
