//! Several brokers with the same metadata, and a client that asks each of them.

use std::sync::Arc;
use std::time::Duration;

use base::batch::BatchBuilder;
use base::env::{Env, Stream};
use base::error::ErrorCode;
use base::ids::BrokerId;
use broker::{ControllerSpec, spawn_controller};
use metadata::{Command, MemoryStore, MetadataStore};
use wire::message::*;

use crate::support::{Life, ask};

const SESSION: Duration = Duration::from_secs(3);
pub(crate) const PARTITIONS: i32 = 6;

pub(crate) struct Cluster {
    pub(crate) env: Env,
    pub(crate) metadata: Arc<dyn MetadataStore>,
}

impl Cluster {
    pub(crate) async fn new(seed: u64) -> Cluster {
        Cluster::with(seed, ControllerSpec::new(SESSION)).await
    }

    /// With leaders moved back every so often.
    pub(crate) async fn balanced(seed: u64, interval: Duration) -> Cluster {
        let spec = ControllerSpec { balance_interval: Some(interval), ..ControllerSpec::new(SESSION) };
        Cluster::with(seed, spec).await
    }

    /// Likewise, and with brokers that have nothing getting their share.
    pub(crate) async fn spreading(seed: u64, interval: Duration) -> Cluster {
        let spec = ControllerSpec {
            balance_interval: Some(interval),
            spreads: true,
            ..ControllerSpec::new(SESSION)
        };
        Cluster::with(seed, spec).await
    }

    async fn with(seed: u64, spec: ControllerSpec) -> Cluster {
        let env = Env::sim(seed);
        let metadata: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new(env.clone(), BrokerId(1)));
        metadata.propose(Command::Bootstrap { cluster_id: env.random_uuid() }).await.unwrap();
        spawn_controller(env.clone(), &metadata, spec);
        Cluster { env, metadata }
    }

    /// Waits until something holds, and asks for it four times a second.
    pub(crate) async fn until(&self, what: &str, within_s: u64, holds: impl Fn() -> bool) {
        for _ in 0..within_s * 4 {
            if holds() {
                return;
            }
            self.env.clock.sleep(Duration::from_millis(250)).await;
        }
        panic!("{what}: not within {within_s} s: {:#?}", self.metadata.image().topic("t"));
    }

    pub(crate) async fn start(&self, node: i32) -> Life {
        Life::member(&self.env, &self.metadata, node).await
    }

    /// With further settings.
    pub(crate) async fn start_with(&self, node: i32, settings: &[&str]) -> Life {
        Life::member_with(&self.env, &self.metadata, node, settings).await
    }

    pub(crate) async fn connect(&self, node: i32) -> Box<dyn Stream> {
        self.try_connect(node).await.expect("the broker listens")
    }

    pub(crate) async fn try_connect(&self, node: i32) -> Option<Box<dyn Stream>> {
        self.env.network.connect(&format!("127.0.0.1:{}", 9_090 + node)).await.ok()
    }

    /// Asks a broker for a topic until `good`; they learn of changes one after the other.
    pub(crate) async fn metadata(&self, node: i32, topic: &str, good: impl Fn(&View) -> bool) -> View {
        for _ in 0..100 {
            let view = self.look(node, topic).await;
            if good(&view) {
                return view;
            }
            self.env.clock.sleep(Duration::from_millis(100)).await;
        }
        panic!("broker {node} never told what was waited for: {:?}", self.look(node, topic).await);
    }

    pub(crate) async fn look(&self, node: i32, topic: &str) -> View {
        let topic = metadata_request::MetadataRequestTopic { name: Some(topic.into()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
        let mut stream = self.connect(node).await;
        ask(&mut *stream, 12, &request, |response| View {
            brokers: response.brokers.iter().map(|broker| (broker.node_id, broker.port)).collect(),
            error: ErrorCode::from_code(response.topics[0].error_code),
            leaders: response.topics[0].partitions.iter().map(|it| (it.leader_id, it.leader_epoch)).collect(),
            errors: response.topics[0]
                .partitions
                .iter()
                .map(|it| ErrorCode::from_code(it.error_code))
                .collect(),
        })
        .await
    }

    pub(crate) async fn create(&self, node: i32, topic: &str) -> ErrorCode {
        self.create_with(node, topic, 1, &[]).await
    }

    /// A topic `t` with a partition for each list of brokers.
    pub(crate) async fn create_on(&self, partitions: &[impl AsRef<[i32]>]) {
        let mut assignments = Vec::new();
        for (index, brokers) in partitions.iter().enumerate() {
            assignments.push(create_topics_request::CreatableReplicaAssignment {
                partition_index: index as i32,
                broker_ids: brokers.as_ref().to_vec(),
            });
        }
        let topic = create_topics_request::CreatableTopic {
            name: "t".into(),
            num_partitions: -1,
            replication_factor: -1,
            assignments,
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 5_000, ..Default::default() };
        let mut stream = self.connect(1).await;
        let code = ask(&mut *stream, 7, &request, |response| response.topics[0].error_code).await;
        assert_eq!(code, 0);
    }

    pub(crate) async fn create_with(
        &self,
        node: i32,
        topic: &str,
        copies: i16,
        configs: &[(&str, &str)],
    ) -> ErrorCode {
        let config = |(name, value): &(&str, &str)| create_topics_request::CreatableTopicConfig {
            name: name.to_string().into(),
            value: Some(value.to_string().into()),
        };
        let topic = create_topics_request::CreatableTopic {
            name: topic.into(),
            num_partitions: PARTITIONS,
            replication_factor: copies,
            configs: configs.iter().map(config).collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 5_000, ..Default::default() };
        let mut stream = self.connect(node).await;
        ask(&mut *stream, 7, &request, |response| ErrorCode::from_code(response.topics[0].error_code)).await
    }

    /// Produces to a leader that may not know yet that it is one.
    pub(crate) async fn produce_soon(&self, node: i32, topic: &str, partition: i32) {
        for _ in 0..100 {
            match self.produce(node, topic, partition).await.0 {
                ErrorCode::None => return,
                ErrorCode::NotLeaderOrFollower => self.env.clock.sleep(Duration::from_millis(10)).await,
                other => panic!("{other}"),
            }
        }
        panic!("broker {node} never led partition {partition}");
    }

    /// Error, leader named with it, and where that is reached.
    pub(crate) async fn produce(
        &self,
        node: i32,
        topic: &str,
        partition: i32,
    ) -> (ErrorCode, i32, Option<i32>) {
        self.produce_value(node, topic, partition, b"v").await
    }

    /// Produces to whoever leads, as often as it takes.
    pub(crate) async fn produce_to_leader(&self, asked: i32, topic: &str, partition: i32, value: &str) {
        for _ in 0..600 {
            let leader = self.look(asked, topic).await.leaders[partition as usize].0;
            if leader >= 0 {
                match self.produce_value(leader, topic, partition, value.as_bytes()).await.0 {
                    ErrorCode::None => return,
                    ErrorCode::NotLeaderOrFollower
                    | ErrorCode::NotEnoughReplicas
                    | ErrorCode::RequestTimedOut => {}
                    other => panic!("{other}"),
                }
            }
            self.env.clock.sleep(Duration::from_millis(50)).await;
        }
        panic!("nobody took `{value}` for partition {partition}: {:?}", self.look(asked, topic).await);
    }

    /// All values of a partition, as its leader gives them.
    pub(crate) async fn values(&self, asked: i32, topic: &str, partition: i32) -> Vec<String> {
        self.values_from(asked, topic, partition, 0).await
    }

    /// Those from an offset on.
    pub(crate) async fn values_from(
        &self,
        asked: i32,
        topic: &str,
        partition: i32,
        mut offset: i64,
    ) -> Vec<String> {
        let mut values = Vec::new();
        for _ in 0..600 {
            let leader = self.look(asked, topic).await.leaders[partition as usize].0;
            let Some((code, high_watermark, bytes)) = self.fetch(leader, topic, partition, offset).await
            else {
                self.env.clock.sleep(Duration::from_millis(50)).await;
                continue;
            };
            if code != ErrorCode::None {
                self.env.clock.sleep(Duration::from_millis(50)).await;
                continue;
            }
            for batch in base::batch::Batches::new(&bytes) {
                let batch = batch.unwrap();
                offset = batch.next_offset();
                for record in batch.records_in_place().unwrap() {
                    values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
                }
            }
            if offset >= high_watermark {
                return values;
            }
        }
        panic!("partition {partition} cannot be read");
    }

    pub(crate) async fn fetch(
        &self,
        node: i32,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Option<(ErrorCode, i64, Vec<u8>)> {
        if node < 0 {
            return None;
        }
        let partition = fetch_request::FetchPartition {
            partition,
            fetch_offset: offset,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        };
        let topic = fetch_request::FetchTopic {
            topic: topic.to_owned().into(),
            partitions: vec![partition],
            ..Default::default()
        };
        let request = FetchRequest { max_bytes: 1 << 20, topics: vec![topic], ..Default::default() };
        let mut stream = self.try_connect(node).await?;
        Some(
            ask(&mut *stream, 11, &request, |response| {
                let data = &response.responses[0].partitions[0];
                let bytes = data.records.to_bytes().unwrap().to_vec();
                (ErrorCode::from_code(data.error_code), data.high_watermark, bytes)
            })
            .await,
        )
    }

    pub(crate) async fn produce_value(
        &self,
        node: i32,
        topic: &str,
        partition: i32,
        value: &[u8],
    ) -> (ErrorCode, i32, Option<i32>) {
        self.produce_acked(-1, node, topic, partition, value).await
    }

    /// With `acks`.
    pub(crate) async fn produce_acked(
        &self,
        acks: i16,
        node: i32,
        topic: &str,
        partition: i32,
        value: &[u8],
    ) -> (ErrorCode, i32, Option<i32>) {
        let mut batch = BatchBuilder::new();
        // The key is what stands before the slash: compaction keeps one of each.
        let key = value.split(|byte| *byte == b'/').next();
        batch.append(self.env.clock.wall_ms(), key, Some(value));
        let batch = batch.finish().unwrap();
        let data = produce_request::PartitionProduceData { index: partition, records: Some(&batch) };
        let data = produce_request::TopicProduceData {
            name: topic.to_owned().into(),
            partition_data: vec![data],
            ..Default::default()
        };
        let request =
            ProduceRequest { acks, timeout_ms: 5_000, topic_data: vec![data], ..Default::default() };
        let Some(mut stream) = self.try_connect(node).await else {
            return (ErrorCode::NotLeaderOrFollower, -1, None);
        };
        ask(&mut *stream, 10, &request, |response| {
            let answer = &response.responses[0].partition_responses[0];
            let endpoint = response.node_endpoints.first().map(|endpoint| endpoint.port);
            (ErrorCode::from_code(answer.error_code), answer.current_leader.leader_id, endpoint)
        })
        .await
    }
}

#[derive(Debug, PartialEq)]
pub(crate) struct View {
    pub(crate) brokers: Vec<(i32, i32)>,
    pub(crate) error: ErrorCode,
    pub(crate) leaders: Vec<(i32, i32)>,
    pub(crate) errors: Vec<ErrorCode>,
}

impl View {
    pub(crate) fn leader(&self, partition: i32) -> i32 {
        self.leaders[partition as usize].0
    }
}
