//! Nodes that join a node which nobody configured, each by one command with one address.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use base::env::Env;
use base::ids::BrokerId;
use client::admin::NewTopic;
use client::{
    Client, ClientConfig, Consumer, ConsumerConfig, PartitionName, Producer, ProducerConfig, ProducerRecord,
    Start,
};

use crate::binary;
use crate::cluster::{Place, Process, wait_for};
use crate::run;
use crate::server::free_address;

const TOPIC: &str = "joined";
const PARTITIONS: i32 = 6;
const RECORDS: usize = 300;
const PATIENCE: Duration = Duration::from_secs(60);

/// A node with its own directory, in which it runs.
struct Node {
    dir: PathBuf,
    arguments: Vec<String>,
}

impl Node {
    fn new(place: &Place, name: &str, arguments: &[&str]) -> Node {
        let dir = place.join(name);
        fs::create_dir_all(&dir).expect("a directory");
        Node { dir, arguments: arguments.iter().map(|text| (*text).to_owned()).collect() }
    }

    fn start(&self) -> Process {
        let log = File::create(self.dir.join("log")).expect("a log");
        let mut command = Command::new(binary());
        command.arg("serve").args(&self.arguments).current_dir(&self.dir);
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Process::spawn(command)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Starts it and waits until it serves.
    fn serve(&self) -> Process {
        let mut process = self.start();
        wait_for("the node serves", || {
            assert!(process.ended().is_none(), "{}", self.log());
            self.log().contains("bootstrap servers")
        });
        process
    }
}

async fn client(address: &SocketAddr) -> Client {
    let config = ClientConfig { retry_for: PATIENCE, ..ClientConfig::new([address.to_string()]) };
    Client::connect(&Env::os(), config).await.expect("it serves")
}

/// Waits until the node at an address knows these brokers to live.
async fn wait_for_brokers(address: &SocketAddr, wanted: &[i32]) {
    let client = client(address).await;
    let wanted: Vec<BrokerId> = wanted.iter().copied().map(BrokerId).collect();
    let mut seen = Vec::new();
    for _ in 0..600 {
        let cluster = client.describe_cluster().await.expect("an answer");
        seen = cluster.brokers.iter().map(|broker| broker.id).collect();
        if seen == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the brokers are {seen:?}, not {wanted:?}");
}

async fn produce(address: &SocketAddr, from: usize) {
    let producer = Producer::new(&client(address).await, ProducerConfig::default());
    for number in from..from + RECORDS {
        let value = format!("{number}");
        let partition = Some(number as i32 % PARTITIONS);
        let record = ProducerRecord { partition, ..ProducerRecord::value(TOPIC, value.as_bytes()) };
        drop(producer.send(record).await.expect("there is room"));
    }
    producer.flush().await.expect("all are acknowledged");
}

async fn read_all(address: &SocketAddr, count: usize) {
    let mut consumer = Consumer::new(&client(address).await, ConsumerConfig::default());
    let partition = |partition| (PartitionName { topic: TOPIC.into(), partition }, Start::Beginning);
    consumer.assign((0..PARTITIONS).map(partition));
    let mut values = BTreeSet::new();
    while values.len() < count {
        for record in consumer.poll(PATIENCE).await.expect("records") {
            let value = String::from_utf8(record.value.expect("a value").to_vec()).expect("a number");
            assert!(values.insert(value.parse::<usize>().expect("a number")), "{value} came twice");
        }
    }
    assert!(values.into_iter().eq(0..count));
}

#[test]
fn two_nodes_join_one_that_nobody_configured_and_records_outlive_a_kill() {
    let place = Place::new("joining");
    let (clients, http) = (free_address(), free_address());
    let first = Node::new(
        &place,
        "1",
        // Addresses alone, because others may have the usual ones.
        &[
            "--set",
            &format!("listeners=PLAINTEXT://{clients}"),
            "--set",
            &format!("vltava.http.listener={http}"),
        ],
    );
    let _first = first.serve();
    let address = clients.to_string();
    let second = Node::new(&place, "2", &["--join", &address]);
    let _second = second.serve();
    let third = Node::new(&place, "3", &["--join", &address]);
    let killed = third.serve();
    run(async {
        wait_for_brokers(&clients, &[1, 2, 3]).await;
        let client = client(&clients).await;
        let topic = NewTopic {
            partitions: Some(PARTITIONS),
            replication_factor: Some(3),
            configs: vec![("min.insync.replicas".to_owned(), "2".to_owned())],
            ..NewTopic::named(TOPIC)
        };
        client.create_topics(&[topic], false).await.expect("an answer").remove(0).expect("a new topic");
        produce(&clients, 0).await;
    });
    killed.kill();
    run(async {
        read_all(&clients, RECORDS).await;
        produce(&clients, RECORDS).await;
        wait_for_brokers(&clients, &[1, 2]).await;
    });
    // The same command brings it back as the same node.
    let back = third.serve();
    run(async {
        wait_for_brokers(&clients, &[1, 2, 3]).await;
        read_all(&clients, 2 * RECORDS).await;
    });
    let known = fs::read_to_string(third.dir.join("vltava-data/metadata/node.properties")).expect("a file");
    assert!(known.starts_with("node.id=3\ncluster.id="), "{known}");
    // Another process with its number is refused, and does it no harm.
    let other = Node::new(&place, "other", &["--join", &address, "--set", "node.id=3"]);
    let mut refused = other.start();
    wait_for("it ends", || refused.ended().is_some());
    let log = other.log();
    assert!(log.contains("Broker 3 is another process") && log.contains("a node.id of its own"), "{log}");
    run(wait_for_brokers(&clients, &[1, 2, 3]));
    drop(back);
    // Nor does its directory serve under another number.
    let renamed = Node::new(&place, "3", &["--join", &address, "--set", "node.id=7"]);
    let mut refused = renamed.start();
    wait_for("it ends", || refused.ended().is_some());
    assert!(renamed.log().contains("belongs to node.id 3, not 7"), "{}", renamed.log());
}

#[test]
fn a_node_that_listens_to_its_own_machine_alone_joins_no_cluster_on_another() {
    let place = Place::new("joining-far");
    let node = Node::new(&place, "1", &["--join", "far.example:9092"]);
    let mut process = node.start();
    wait_for("it ends", || process.ended().is_some());
    let log = node.log();
    assert!(log.contains("could not reach this node") && log.contains("--set listeners="), "{log}");
}
