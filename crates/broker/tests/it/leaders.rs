//! Who asks in vain is told who leads and where that is (KIP-951).

use std::time::Duration;

use base::env::{Env, Stream};
use base::error::ErrorCode;
use base::ids::TopicId;
use bytes::Bytes;
use wire::message::*;

use crate::support::{Life, ask, run};

/// Leader and epoch of the first partition, and nodes with their addresses.
type Told = (ErrorCode, (i32, i32), Vec<(i32, String, i32)>);

const NOBODY: (i32, i32) = (-1, -1);

/// A broker in its second life, in which it leads a topic `t` in epoch 1.
async fn second_life(env: &Env) -> (Life, Box<dyn Stream>) {
    let settings = [
        "listeners=PLAINTEXT://127.0.0.1:9092,OUTSIDE://127.0.0.1:9094",
        "advertised.listeners=OUTSIDE://kafka.example:19094",
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,OUTSIDE:PLAINTEXT",
    ];
    let life = Life::start(env, &settings).await;
    let mut stream = connect(env).await;
    let name = metadata_request::MetadataRequestTopic { name: Some("t".into()), ..Default::default() };
    let create = MetadataRequest { topics: Some(vec![name]), ..Default::default() };
    assert_eq!(ask(&mut *stream, 9, &create, |response| response.topics[0].error_code).await, 0);
    let written = produce(&mut *stream, 10, TopicId::ZERO).await;
    assert_eq!(written, (ErrorCode::None, NOBODY, Vec::new()));
    life.stop(env).await;
    let life = Life::start(env, &settings).await;
    let stream = connect(env).await;
    (life, stream)
}

async fn connect(env: &Env) -> Box<dyn Stream> {
    env.network.connect("127.0.0.1:9094").await.expect("the broker listens")
}

/// Writes to a partition of `t`, up to version 12 by name.
async fn produce(stream: &mut dyn Stream, version: i16, topic_id: TopicId) -> Told {
    let mut batch = base::batch::BatchBuilder::new();
    batch.append(1, None, Some(b"v"));
    let batch = Bytes::from(batch.finish().unwrap());
    let data = produce_request::PartitionProduceData { index: 0, records: Some(&batch) };
    let topic = TopicProduceData { name: "t".into(), topic_id, partition_data: vec![data] };
    let request =
        ProduceRequest { acks: -1, timeout_ms: 5_000, topic_data: vec![topic], ..Default::default() };
    let told = |response: ProduceResponse<'_>| {
        let partition = &response.responses[0].partition_responses[0];
        let leader = (partition.current_leader.leader_id, partition.current_leader.leader_epoch);
        let node =
            |node: &produce_response::NodeEndpoint<'_>| (node.node_id, node.host.to_string(), node.port);
        let nodes = response.node_endpoints.iter().map(node).collect();
        (ErrorCode::from_code(partition.error_code), leader, nodes)
    };
    ask(stream, version, &request, told).await
}

/// Fetches from a partition of `t`, up to version 12 by name.
async fn fetch(stream: &mut dyn Stream, version: i16, id: TopicId, epoch: i32) -> Told {
    let partition = fetch_request::FetchPartition {
        current_leader_epoch: epoch,
        partition_max_bytes: 1_000,
        ..Default::default()
    };
    let topic = fetch_request::FetchTopic { topic: "t".into(), topic_id: id, partitions: vec![partition] };
    let request =
        FetchRequest { max_bytes: 1_000, session_epoch: -1, topics: vec![topic], ..Default::default() };
    let told = |response: FetchResponse<'_>| {
        let partition = &response.responses[0].partitions[0];
        let leader = (partition.current_leader.leader_id, partition.current_leader.leader_epoch);
        let node = |node: &fetch_response::NodeEndpoint<'_>| (node.node_id, node.host.to_string(), node.port);
        let nodes = response.node_endpoints.iter().map(node).collect();
        (ErrorCode::from_code(partition.error_code), leader, nodes)
    };
    ask(stream, version, &request, told).await
}

/// This broker as the client's listener advertises it.
fn this_broker() -> Vec<(i32, String, i32)> {
    vec![(1, "kafka.example".to_owned(), 19094)]
}

#[test]
fn a_consumer_with_an_old_epoch_is_told_the_new_one() {
    run(async {
        let env = Env::sim(1);
        let (life, mut stream) = second_life(&env).await;
        let id = life.metadata.image().topic("t").expect("the topic is there").id;
        let fenced = ErrorCode::FencedLeaderEpoch;
        for version in 16..=18 {
            assert_eq!(
                fetch(&mut *stream, version, id, 0).await,
                (fenced, (1, 1), this_broker()),
                "v{version}"
            );
            let current = fetch(&mut *stream, version, id, 1).await;
            assert_eq!(current, (ErrorCode::None, NOBODY, Vec::new()), "v{version}");
            // The consumer knows more than the broker, which has nothing to tell it.
            let future = fetch(&mut *stream, version, id, 2).await;
            assert_eq!(future, (ErrorCode::UnknownLeaderEpoch, NOBODY, Vec::new()), "v{version}");
        }
        for version in [12, 15] {
            assert_eq!(fetch(&mut *stream, version, id, 0).await, (fenced, NOBODY, Vec::new()), "v{version}");
        }
    });
}

#[test]
fn a_producer_that_cannot_write_here_is_told_who_leads() {
    run(async {
        let env = Env::sim(2);
        let (life, mut stream) = second_life(&env).await;
        let id = life.metadata.image().topic("t").expect("the topic is there").id;
        // The first write of a life opens a segment, which takes the metadata.
        life.metadata.shutdown().await;
        let refused = ErrorCode::NotLeaderOrFollower;
        assert_eq!(produce(&mut *stream, 9, id).await, (refused, NOBODY, Vec::new()));
        for version in [10, 12, 13] {
            assert_eq!(
                produce(&mut *stream, version, id).await,
                (refused, (1, 1), this_broker()),
                "v{version}"
            );
        }
    });
}

/// Topics and partitions for which a Metadata answer for all topics names an error.
async fn errors_of_all(stream: &mut dyn Stream) -> Vec<String> {
    let errors = |response: MetadataResponse<'_>| {
        let partitions = response.topics.iter().flat_map(|topic| {
            let of_topic = move |code| format!("{:?}: {:?}", topic.name, ErrorCode::from_code(code));
            topic.partitions.iter().map(|partition| partition.error_code).map(of_topic)
        });
        partitions.filter(|error| !error.ends_with("None")).collect()
    };
    ask(stream, 9, &MetadataRequest { topics: None, ..Default::default() }, errors).await
}

/// kafkajs' `listTopics` breaks when any partition of the cluster has an error, and Apache Kafka gives none for a
/// topic just made or going: its image names the leader.
#[test]
fn topics_that_come_and_go_have_a_leader_all_along() {
    run(async {
        let env = Env::sim(3);
        let life = Life::start(&env, &["listeners=PLAINTEXT://127.0.0.1:9094"]).await;
        let (mut changing, mut looking) = (connect(&env).await, connect(&env).await);
        let (done, mut ended) = tokio::sync::oneshot::channel();
        let changes = async {
            for round in 0..20 {
                let name = format!("t{round}");
                let topic = create_topics_request::CreatableTopic {
                    name: name.as_str().into(),
                    num_partitions: 20,
                    replication_factor: 1,
                    ..Default::default()
                };
                let create =
                    CreateTopicsRequest { topics: vec![topic], timeout_ms: 5_000, ..Default::default() };
                let code = |response: CreateTopicsResponse<'_>| response.topics[0].error_code;
                assert_eq!(ask(&mut *changing, 5, &create, code).await, 0);
                let delete = DeleteTopicsRequest {
                    topic_names: vec![name.as_str().into()],
                    timeout_ms: 5_000,
                    ..Default::default()
                };
                let code = |response: DeleteTopicsResponse<'_>| response.responses[0].error_code;
                assert_eq!(ask(&mut *changing, 5, &delete, code).await, 0);
            }
            done.send(()).expect("the other side looks until then");
        };
        let looks = async {
            let mut looks = 0;
            while ended.try_recv().is_err() {
                assert_eq!(errors_of_all(&mut *looking).await, Vec::<String>::new(), "look {looks}");
                looks += 1;
                // Simulated time passes only while nobody has anything to do.
                env.clock.sleep(Duration::from_micros(100)).await;
            }
            assert!(looks > 20, "{looks} looks");
        };
        tokio::join!(changes, looks);
        life.stop(&env).await;
    });
}
