//! Brokers that come and go seal one segment after the other; the chains stay short, and nobody sees a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use base::chain::{SegmentEntry, SegmentState};
use base::env::OpenMode;
use base::error::ErrorCode;
use base::ids::TopicId;
use wire::message::*;

use crate::members::Cluster;
use crate::support::{Life, ask, run};

const NODES: i32 = 3;
const LED: [i32; 2] = [0, 1];
const ROUNDS: usize = 14;

/// Where an epoch ends: the epoch told, and the offset.
type End = (i32, i64);

async fn epoch_end(cluster: &Cluster, asked: i32, partition: i32, epoch: i32) -> End {
    for _ in 0..600 {
        let leader = cluster.look(asked, "t").await.leaders[partition as usize].0;
        let partitions =
            vec![OffsetForLeaderPartition { partition, current_leader_epoch: -1, leader_epoch: epoch }];
        let topics = vec![OffsetForLeaderTopic { topic: "t".into(), partitions }];
        let request = OffsetForLeaderEpochRequest { topics, ..Default::default() };
        if let Some(mut stream) = cluster.try_connect(leader + i32::from(leader < 0) * 9).await {
            let (code, end) = ask(&mut *stream, 4, &request, |response| {
                let told = &response.topics[0].partitions[0];
                (ErrorCode::from_code(told.error_code), (told.leader_epoch, told.end_offset))
            })
            .await;
            match code {
                ErrorCode::None => return end,
                ErrorCode::NotLeaderOrFollower => {}
                other => panic!("{other}"),
            }
        }
        cluster.env.clock.sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody tells where epoch {epoch} of partition {partition} ends");
}

/// The ends of all epochs before the present one: nothing that comes later changes them.
async fn note_ends(cluster: &Cluster, asked: i32, ends: &mut BTreeMap<(i32, i32), End>) {
    for partition in LED {
        let present = cluster.look(asked, "t").await.leaders[partition as usize].1;
        for epoch in 0..present {
            if let std::collections::btree_map::Entry::Vacant(new) = ends.entry((partition, epoch)) {
                new.insert(epoch_end(cluster, asked, partition, epoch).await);
            }
        }
    }
}

/// Names of the segments that a broker has of a partition.
fn segments(cluster: &Cluster, node: i32, topic: TopicId, partition: i32) -> BTreeSet<String> {
    let found = cluster.env.disk.read_dir(&dir(node, topic, partition)).unwrap();
    found.into_iter().map(|entry| entry.name).collect()
}

fn name_of(entry: &SegmentEntry) -> String {
    format!("{:020}.{}.{}", entry.base, entry.id, entry.generation)
}

fn dir(node: i32, topic: TopicId, partition: i32) -> PathBuf {
    PathBuf::from(format!("/log-{node}/topics/t/{partition}.{topic}"))
}

fn log_bytes(cluster: &Cluster, node: i32, topic: TopicId, partition: i32, segment: &str) -> Vec<u8> {
    let base: u64 = segment.split('.').next().unwrap().parse().unwrap();
    let path = dir(node, topic, partition).join(segment).join(format!("{base:020}.log"));
    let file = cluster.env.disk.open(&path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn many_hand_overs_leave_short_chains_with_equal_copies() {
    run(async {
        let cluster = Cluster::new(31).await;
        let mut lives: Vec<Option<Life>> = Vec::new();
        for node in 1..=NODES {
            lives.push(Some(cluster.start(node).await));
        }
        assert_eq!(cluster.create_with(1, "t", 3, &[("min.insync.replicas", "2")]).await, ErrorCode::None);
        let mut values: Vec<Vec<String>> = vec![Vec::new(); LED.len()];
        let mut ends = BTreeMap::new();
        let mut sealed = 0;
        for round in 0..ROUNDS {
            let node = round as i32 % NODES + 1;
            let other = node % NODES + 1;
            for step in 0..2 {
                for partition in LED {
                    let value = format!("{partition}/{round}/{step}");
                    cluster.produce_to_leader(other, "t", partition, &value).await;
                    values[partition as usize].push(value);
                }
                if step == 0 {
                    lives[node as usize - 1].take().unwrap().leave(&cluster.env).await;
                }
            }
            lives[node as usize - 1] = Some(cluster.start(node).await);
            cluster.env.clock.sleep(Duration::from_secs(2)).await;
            note_ends(&cluster, other, &mut ends).await;
            sealed = sealed.max(cluster.metadata.image().last_segment_id().0);
        }
        // Long enough for a look, which is every 15 s, and for what failed while a broker was away.
        cluster.env.clock.sleep(Duration::from_secs(120)).await;
        let image = cluster.metadata.image();
        let topic = image.topic("t").unwrap().clone();
        let mut with_state = 0;
        for partition in LED {
            let state = &topic.partitions[partition as usize];
            let joined = state.chain.iter().filter(|entry| entry.generation.0 > 0).count();
            assert!(joined > 0 && state.chain.len() < 14, "{} segments, {joined} joined", state.chain.len());
            let names: BTreeSet<String> = state.chain.iter().map(name_of).collect();
            for entry in state.chain.iter().filter(|entry| entry.generation.0 > 0) {
                let SegmentState::Sealed { replicas, bytes, .. } = &entry.state else { panic!("sealed") };
                assert_eq!(replicas.len(), 3, "{entry:?}");
                let name = name_of(entry);
                let copies = [1, 2, 3].map(|node| log_bytes(&cluster, node, topic.id, partition, &name));
                // With the state of producers at its base, wherever it was built.
                let has_state = |node: i32| {
                    let file = dir(node, topic.id, partition).join(&name).join("base.checkpoint");
                    cluster.env.disk.exists(&file)
                };
                assert!(entry.base == 0 || (1..=NODES).all(has_state), "{entry:?}");
                with_state += usize::from(entry.base > 0);
                assert!(copies.iter().all(|copy| *copy == copies[0]) && copies[0].len() as u64 == *bytes);
            }
            for node in 1..=NODES {
                let found = segments(&cluster, node, topic.id, partition);
                assert!(found.is_subset(&names), "broker {node}: {found:?} of {names:?}");
            }
            let read = cluster.values(1, "t", partition).await;
            assert_eq!(read, values[partition as usize], "partition {partition}");
        }
        assert!(with_state > 0, "all begin at the first offset");
        let epochs = ends.len();
        assert!(epochs >= ROUNDS / 2 && sealed > 30, "{epochs} epochs and {sealed} segments prove little");
        for ((partition, epoch), end) in ends {
            let now = epoch_end(&cluster, 1, partition, epoch).await;
            assert_eq!(now, end, "epoch {epoch} of partition {partition}");
        }
    });
}
