//! What a leader answers to producers that it does not know how to place, when it does not know either that it was deposed.

use std::sync::Arc;
use std::time::Duration;

use base::batch::BatchBuilder;
use base::error::ErrorCode;
use metadata::MetadataStore;
use wire::message::*;

use crate::cuts::{Cuts, Remote};
use crate::members::Cluster;
use crate::support::{Life, ask, run};

const PRODUCER: i64 = 7;

/// Three brokers, and the first leader of the topic `t`.
struct Brokers {
    cluster: Cluster,
    cuts: Cuts,
    remotes: Vec<Arc<Remote>>,
    _lives: Vec<Life>,
    old: i32,
}

impl Brokers {
    async fn new(seed: u64) -> Brokers {
        let cluster = Cluster::new(seed).await;
        let (cuts, mut remotes, mut lives) = (Cuts::default(), Vec::new(), Vec::new());
        for node in 1..=3 {
            let remote = Remote::new(cluster.metadata.clone());
            let metadata: Arc<dyn MetadataStore> = remote.clone();
            lives.push(Life::member(&cuts.env(&cluster.env, node), &metadata, node).await);
            remotes.push(remote);
        }
        let configs = [("min.insync.replicas", "2")];
        assert_eq!(cluster.create_with(1, "t", 3, &configs).await, ErrorCode::None);
        let old = cluster.look(1, "t").await.leader(0);
        Brokers { cluster, cuts, remotes, _lives: lives, old }
    }

    /// Nothing is heard of the old leader until another one leads.
    async fn depose(&self) -> i32 {
        (1..=3).filter(|other| *other != self.old).for_each(|other| self.cuts.cut(self.old, other));
        self.remotes[self.old as usize - 1].set_cut(true);
        let asked = self.old % 3 + 1;
        self.cluster.metadata(asked, "t", |view| view.leader(0) != self.old).await.leader(0)
    }

    /// One record of the producer.
    async fn write(&self, node: i32, epoch: i16, sequence: i32) -> ErrorCode {
        let mut batch = BatchBuilder::new().producer(PRODUCER, epoch, sequence);
        batch.append(self.cluster.env.clock.wall_ms(), None, Some(b"v"));
        let batch = batch.finish().unwrap();
        let data = produce_request::PartitionProduceData { index: 0, records: Some(&batch) };
        let topic = produce_request::TopicProduceData {
            name: "t".into(),
            partition_data: vec![data],
            ..Default::default()
        };
        let request =
            ProduceRequest { acks: -1, timeout_ms: 5_000, topic_data: vec![topic], ..Default::default() };
        let mut stream = self.cluster.connect(node).await;
        ask(&mut *stream, 9, &request, |response| {
            ErrorCode::from_code(response.responses[0].partition_responses[0].error_code)
        })
        .await
    }

    /// Until a leader that has just been elected takes it.
    async fn write_soon(&self, node: i32, epoch: i16, sequence: i32) {
        for _ in 0..100 {
            match self.write(node, epoch, sequence).await {
                ErrorCode::None => return,
                ErrorCode::NotLeaderOrFollower | ErrorCode::NotEnoughReplicas => {}
                other => panic!("{other} for number {sequence}"),
            }
            self.cluster.env.clock.sleep(Duration::from_millis(100)).await;
        }
        panic!("number {sequence} was never taken");
    }
}

#[test]
fn a_leader_that_leads_tells_of_gaps_and_old_epochs() {
    run(async {
        let brokers = Brokers::new(1).await;
        brokers.write_soon(brokers.old, 1, 0).await;
        assert_eq!(brokers.write(brokers.old, 1, 5).await, ErrorCode::OutOfOrderSequenceNumber);
        assert_eq!(brokers.write(brokers.old, 0, 0).await, ErrorCode::InvalidProducerEpoch);
    });
}

#[test]
fn a_deposed_leader_sends_producers_away_whose_records_it_missed() {
    run(async {
        let brokers = Brokers::new(2).await;
        let old = brokers.old;
        brokers.write_soon(old, 1, 0).await;
        let new = brokers.depose().await;
        for sequence in 1..4 {
            brokers.write_soon(new, 1, sequence).await;
        }
        // Reached by clients alone it cannot find out; reached by its members, too, it hears of them.
        assert_eq!(brokers.write(old, 1, 4).await, ErrorCode::NotLeaderOrFollower);
        brokers.cuts.heal();
        assert_eq!(brokers.write(old, 1, 4).await, ErrorCode::NotLeaderOrFollower);
        brokers.write_soon(new, 1, 4).await;
    });
}

#[test]
fn a_deposed_leader_ends_no_producer_of_an_epoch_that_it_alone_has_seen() {
    run(async {
        let brokers = Brokers::new(3).await;
        let old = brokers.old;
        brokers.write_soon(old, 1, 0).await;
        let new = brokers.depose().await;
        // Of the newer epoch nobody else hears.
        assert_ne!(brokers.write(old, 2, 0).await, ErrorCode::None);
        assert_eq!(brokers.write(old, 1, 1).await, ErrorCode::NotLeaderOrFollower);
        brokers.write_soon(new, 1, 1).await;
    });
}
