//! A node that joins three others under load, and one of these that leaves: open segments come to the new one at once,
//! everything goes from the other, and all that was acknowledged is there afterwards.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base::env::Env;
use base::error::ErrorCode;
use base::ids::BrokerId;
use client::admin::NewTopic;
use client::{
    Client, ClientConfig, Consumer, ConsumerConfig, PartitionName, Producer, ProducerConfig, ProducerRecord,
    Start, Topics,
};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::binary;
use crate::cluster::{Node, Place, wait_for};
use crate::run;

const TOPIC: &str = "moved";
const PARTITIONS: i32 = 8;
/// How long a new node may take until it has its share of open segments.
const SHARE_WITHIN: Duration = Duration::from_secs(60);
/// How long a node may take to give away what it has: some MB.
const EMPTY_WITHIN: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(30);
/// By how much the 99th percentile of acknowledgements may rise while a node gives everything away.
const LEAVING_TIMES: u32 = 3;

const SETTINGS: &str = "min.insync.replicas=2\ndefault.replication.factor=3\nlog.segment.bytes=1048576\n\
    leader.imbalance.check.interval.seconds=5\nvltava.memory.limit=268435456\n";

/// Runs `vltava cluster …` against a node; standard output and how it ended.
fn cluster(node: &Node, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(binary());
    command.args(["cluster", "-b", &node.clients.to_string()]).args(arguments).env_remove("RUST_LOG");
    let output = command.stdin(Stdio::null()).output().expect("the binary was built for this test");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
}

/// What batches of ten records took, and when they were sent.
type Times = Arc<Mutex<Vec<(Instant, Duration)>>>;

/// The 99th percentile of what was sent in a time.
fn percentile_99(times: &Times, from: Instant, to: Instant) -> Duration {
    let times = times.lock();
    let mut took: Vec<_> =
        times.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, took)| *took).collect();
    took.sort();
    took[took.len() * 99 / 100]
}

/// Looks at what batches took in quiet, while a node joined and while one left, which began and ended then.
fn compare(times: &Times, at: [Instant; 4]) {
    let [quiet, joined, left] = [0, 1, 2].map(|phase| percentile_99(times, at[phase], at[phase + 1]));
    println!(
        "p99 of ten records: {quiet:.2?} in quiet, {joined:.2?} while one joined, {left:.2?} while one left"
    );
    assert!(left < quiet * LEAVING_TIMES, "{left:?} while one left, {quiet:?} in quiet");
}

/// Writes numbered records to a partition until told to stop; how many were acknowledged, all in order.
async fn write(client: Client, partition: i32, stop: Arc<AtomicBool>, times: Times) -> u64 {
    let config = ProducerConfig { delivery_timeout: PATIENCE, ..ProducerConfig::default() };
    let producer = Producer::new(&client, config);
    let mut count = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let mut deliveries = Vec::new();
        let began = Instant::now();
        for _ in 0..10 {
            let value = [&count.to_be_bytes()[..], &[b'.'; 500]].concat();
            let record =
                ProducerRecord { partition: Some(partition), ..ProducerRecord::value(TOPIC, &value) };
            deliveries.push(producer.send(record).await.expect("it is tried again"));
            count += 1;
        }
        for delivery in deliveries {
            delivery.wait().await.expect("it is acknowledged, whoever leads");
        }
        times.lock().push((began, began.elapsed()));
        sleep(Duration::from_millis(20)).await;
    }
    count
}

async fn read_back(client: &Client, partition: i32, expected: u64) {
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    consumer.assign([(PartitionName::new(TOPIC, partition), Start::Beginning)]);
    let (began, mut next) = (Instant::now(), 0u64);
    while next < expected {
        assert!(began.elapsed() < PATIENCE, "partition {partition}: {next} of {expected} records came back");
        for record in consumer.poll(Duration::from_millis(200)).await.expect("it can be read") {
            let value = record.value.as_deref().expect("a value");
            assert_eq!(value[..8], next.to_be_bytes(), "partition {partition}, offset {}", record.offset);
            next += 1;
        }
    }
}

/// Partitions that have a broker among their copies in sync, and those that it leads.
async fn has(client: &Client, broker: i32) -> (usize, usize) {
    let metadata = client.metadata(Topics::Named(&[TOPIC])).await.expect("it answers");
    let partitions: Vec<_> = metadata.topics[TOPIC].partitions.values().collect();
    let broker = BrokerId(broker);
    let in_sync = partitions.iter().filter(|partition| partition.in_sync.contains(&broker)).count();
    (in_sync, partitions.iter().filter(|partition| partition.leader == Some(broker)).count())
}

async fn until(what: &str, within: Duration, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < within, "{what}: not within {within:?}");
        sleep(Duration::from_millis(250)).await;
    }
    began.elapsed()
}

/// Waits until so many batches were written.
async fn until_wrote(times: &Times, batches: usize) {
    until("they write", PATIENCE, async || times.lock().len() >= batches).await;
}

#[test]
fn a_node_joins_and_another_leaves_under_load() {
    let place = Place::new("moving");
    let mut nodes = Node::several(&place, 3);
    nodes.push(Node::broker(&place, 4, &nodes[0]));
    nodes.iter().for_each(|node| node.set(SETTINGS));
    let mut lives: Vec<_> = nodes[..3].iter().map(|node| Some(node.start())).collect();
    wait_for("three serve", || nodes[..3].iter().all(Node::serves));
    run(async {
        let addresses: Vec<_> = nodes.iter().map(|node| node.clients.to_string()).collect();
        let config = ClientConfig { retry_for: PATIENCE, ..ClientConfig::new(addresses) };
        let client = Client::connect(&Env::os(), config).await.expect("they serve");
        let topic =
            NewTopic { partitions: Some(PARTITIONS), replication_factor: Some(3), ..NewTopic::named(TOPIC) };
        until("the topic is there", PATIENCE, async || {
            let created =
                client.create_topics(std::slice::from_ref(&topic), false).await.expect("it answers");
            created[0].is_ok()
        })
        .await;
        let (stop, times) = (Arc::new(AtomicBool::new(false)), Times::default());
        let writers: Vec<_> = (0..PARTITIONS)
            .map(|partition| tokio::spawn(write(client.clone(), partition, stop.clone(), times.clone())))
            .collect();
        // The first records open connections and files.
        until_wrote(&times, 50).await;
        let quiet = Instant::now();
        until_wrote(&times, 1_050).await;
        let joins = Instant::now();
        lives.push(Some(nodes[3].start()));
        let share = (PARTITIONS * 3 / 4) as usize;
        let took = until("node 4 has its share of open segments", SHARE_WITHIN, async || {
            has(&client, 4).await.0 >= share
        })
        .await;
        println!("node 4 has its share of open segments {took:?} after its start");
        let (done, text) =
            tokio::task::block_in_place(|| cluster(&nodes[0], &["decommission", "3", "--dry-run"]));
        assert!(done && text.contains("would move:"), "{text}");
        assert!(has(&client, 3).await.0 > 0, "nothing was changed");
        let began = Instant::now();
        let (done, text) =
            tokio::task::block_in_place(|| cluster(&nodes[0], &["decommission", "3", "--timeout", "60"]));
        assert!(done && text.contains("has nothing any more: stop it"), "{text}");
        assert!(began.elapsed() < EMPTY_WITHIN, "{:?}\n{text}", began.elapsed());
        println!("node 3 gave everything away within {:?}", began.elapsed());
        compare(&times, [quiet, joins, began, Instant::now()]);
        assert_eq!(has(&client, 3).await, (0, 0));
        let dirs = client.log_dirs(BrokerId(3)).await.expect("it answers");
        assert!(dirs.iter().all(|dir| dir.error == ErrorCode::None && dir.partitions.is_empty()), "{dirs:?}");
        let status = lives[2].as_mut().expect("it runs").end(PATIENCE);
        assert!(status.success(), "{status}: {}", nodes[2].log());
        let (done, text) =
            tokio::task::block_in_place(|| cluster(&nodes[0], &["decommission", "3", "--timeout", "60"]));
        assert!(done && text.contains("is off the list"), "{text}");
        sleep(Duration::from_secs(1)).await;
        stop.store(true, Ordering::Relaxed);
        let brokers: BTreeSet<i32> =
            client.describe_cluster().await.expect("it answers").brokers.iter().map(|it| it.id.0).collect();
        assert_eq!(brokers, BTreeSet::from([1, 2, 4]));
        let (done, text) = tokio::task::block_in_place(|| cluster(&nodes[0], &["rebalance", "--dry-run"]));
        assert!(done, "{text}");
        let mut written = 0;
        for (partition, writer) in (0..).zip(writers) {
            let count = writer.await.expect("it wrote");
            read_back(&client, partition, count).await;
            written += count;
        }
        println!("{written} records were acknowledged, and all are there");
    });
}
