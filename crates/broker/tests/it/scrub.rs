//! Copies that rot on the disk while nobody reads them are found, and fetched from brokers that have them whole.

use std::path::PathBuf;

use base::chain::{SegmentEntry, SegmentState};
use base::env::OpenMode;
use base::error::ErrorCode;
use base::ids::PartitionId;
use metadata::{Command, Resource, Topic};

use crate::members::Cluster;
use crate::support::{Life, run};

/// All copies are looked at within so long.
const INTERVAL_S: u64 = 20;
const SETTINGS: [&str; 1] = ["vltava.scrub.interval.ms=20000"];
const CONFIGS: [(&str, &str); 1] = [("segment.bytes", "1048576")];
/// Bytes of a value: a segment has five.
const VALUE_BYTES: usize = 250_000;

fn topic(cluster: &Cluster) -> Topic {
    Topic::clone(cluster.metadata.image().topic("t").expect("it was made"))
}

/// The sealed segments of partition 0.
fn sealed(cluster: &Cluster) -> Vec<SegmentEntry> {
    let topic = topic(cluster);
    let state = topic.partition(PartitionId(0)).expect("it has partitions");
    state.chain.iter().filter(|entry| !entry.is_open()).cloned().collect()
}

fn path(cluster: &Cluster, node: i32, entry: &SegmentEntry) -> PathBuf {
    let SegmentEntry { base, id, generation, .. } = entry;
    let partition = format!("/log-{node}/topics/t/0.{}", topic(cluster).id);
    PathBuf::from(format!("{partition}/{base:020}.{id}.{generation}/{base:020}.log"))
}

fn content(cluster: &Cluster, node: i32, entry: &SegmentEntry) -> Option<Vec<u8>> {
    let file = cluster.env.disk.open(&path(cluster, node, entry), OpenMode::Read).ok()?;
    let mut bytes = vec![0; file.len().ok()? as usize];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}

/// Changes a byte of a copy.
fn damage(cluster: &Cluster, node: i32, entry: &SegmentEntry, position: u64) {
    let file = cluster.env.disk.open(&path(cluster, node, entry), OpenMode::Existing).expect("a copy");
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).expect("it is as long");
    let changed = [byte[0] ^ 4];
    file.write_all_at(&[std::io::IoSlice::new(&changed)], position).expect("it can be written");
}

/// Fills some segments of partition 0; what was written.
async fn fill(cluster: &Cluster, copies: usize) -> Vec<String> {
    let values: Vec<String> = (0..18).map(|number| format!("{number}/{}", "v".repeat(VALUE_BYTES))).collect();
    for value in &values {
        cluster.produce_to_leader(1, "t", 0, value).await;
    }
    let is_whole = |entry: &SegmentEntry| matches!(&entry.state, SegmentState::Sealed { replicas, .. } if replicas.len() == copies);
    let are_there = || {
        let sealed = sealed(cluster);
        sealed.len() >= 3 && sealed.iter().all(is_whole)
    };
    cluster.until("three segments are sealed", 10, are_there).await;
    values
}

fn found(life: &Life) -> (bool, u64) {
    let node = life.metrics.node();
    (node.scrub_read_bytes.get() > 0, node.scrub_damaged_segments.get())
}

#[test]
fn damaged_copies_are_fetched_anew() {
    run(async {
        let cluster = Cluster::new(71).await;
        let mut lives = Vec::new();
        for node in 1..=3 {
            lives.push(cluster.start_with(node, &SETTINGS).await);
        }
        assert_eq!(cluster.create_with(1, "t", 3, &CONFIGS).await, ErrorCode::None);
        let values = fill(&cluster, 3).await;
        // The leader has all segments open now.
        assert!(cluster.values(1, "t", 0).await == values);
        let leader = cluster.look(1, "t").await.leader(0);
        let (one, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
        let sealed = sealed(&cluster);
        let whole: Vec<_> = sealed.iter().map(|entry| content(&cluster, one, entry)).collect();
        assert!(whole.iter().all(Option::is_some), "all copies are there");
        // Records of the leader's, the base offset of a batch, which no CRC of its own covers, and a file that is gone.
        damage(&cluster, leader, &sealed[0], 100_000);
        damage(&cluster, one, &sealed[1], 7);
        cluster.env.disk.remove_file(&path(&cluster, other, &sealed[2])).expect("a copy");
        let is_mended = |node| {
            let mut copies = sealed.iter().zip(&whole);
            copies.all(|(entry, whole)| content(&cluster, node, entry) == *whole)
        };
        cluster.until("all copies are whole", 3 * INTERVAL_S, || (1..=3).all(is_mended)).await;
        for (life, node) in lives.iter().zip(1..) {
            assert_eq!(found(life), (true, 1), "broker {node}");
        }
        assert!(cluster.values(1, "t", 0).await == values, "the leader reads the new file");
    });
}

#[test]
fn damage_of_the_only_copy_is_told_and_the_rest_is_served() {
    run(async {
        let cluster = Cluster::new(72).await;
        let life = cluster.start_with(1, &SETTINGS).await;
        assert_eq!(cluster.create_with(1, "t", 1, &CONFIGS).await, ErrorCode::None);
        fill(&cluster, 1).await;
        damage(&cluster, 1, &sealed(&cluster)[0], 100_000);
        cluster.until("the damage is found", 3 * INTERVAL_S, || found(&life).1 > 0).await;
        let second = sealed(&cluster)[1].base;
        let (code, _, bytes) = cluster.fetch(1, "t", 0, second).await.expect("it serves");
        assert!(code == ErrorCode::None && !bytes.is_empty());
    });
}

#[test]
fn nothing_is_read_until_it_is_asked_for() {
    run(async {
        let cluster = Cluster::new(73).await;
        let life = cluster.start_with(1, &["vltava.scrub.interval.ms=0"]).await;
        assert_eq!(cluster.create_with(1, "t", 1, &CONFIGS).await, ErrorCode::None);
        fill(&cluster, 1).await;
        assert_eq!(found(&life), (false, 0));
        let changes = vec![("vltava.scrub.interval.ms".to_owned(), Some("20000".to_owned()))];
        let command = Command::AlterConfigs { resource: Resource::AllBrokers, changes };
        cluster.metadata.propose(command).await.expect("it is a key of all brokers");
        // It is looked for once in a minute whether it is wanted.
        cluster.until("copies are read", 60 + INTERVAL_S, || found(&life).0).await;
    });
}
