//! What a client sees of a whole broker that no single part could promise.

use std::borrow::Cow;

use base::env::sim::Sim;
use base::env::{Env, Stream};
use bytes::Bytes;
use wire::message::*;

use crate::support::{Life, ask, receive, run, send};

const GROUP: &str = "g";

async fn connect(env: &Env, address: &str) -> Box<dyn Stream> {
    env.network.connect(address).await.expect("the broker listens")
}

fn named(name: &str) -> MetadataRequest<'_> {
    let topic = metadata_request::MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
    MetadataRequest { topics: Some(vec![topic]), ..Default::default() }
}

/// Host and port of the one broker there is.
async fn told(stream: &mut dyn Stream) -> (String, i32) {
    let of =
        |response: MetadataResponse<'_>| (response.brokers[0].host.to_string(), response.brokers[0].port);
    ask(stream, 12, &MetadataRequest { topics: Some(Vec::new()), ..Default::default() }, of).await
}

#[test]
fn clients_are_told_the_address_of_their_own_listener() {
    run(async {
        let env = Env::sim(1);
        let settings = [
            "listeners=PLAINTEXT://127.0.0.1:9092,OUTSIDE://127.0.0.1:9094,CONTROLLER://127.0.0.1:9093",
            "advertised.listeners=OUTSIDE://kafka.example:19094",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,OUTSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names=CONTROLLER",
        ];
        let _life = Life::start(&env, &settings).await;
        let mut inside = connect(&env, "127.0.0.1:9092").await;
        assert_eq!(told(&mut *inside).await, ("127.0.0.1".to_owned(), 9092));
        let mut outside = connect(&env, "127.0.0.1:9094").await;
        assert_eq!(told(&mut *outside).await, ("kafka.example".to_owned(), 19094));
        let find = FindCoordinatorRequest { key: GROUP.into(), ..Default::default() };
        let host = |response: FindCoordinatorResponse<'_>| response.host.to_string();
        assert_eq!(ask(&mut *outside, 3, &find, host).await, "kafka.example");
        assert!(env.network.connect("127.0.0.1:9093").await.is_err(), "nothing listens for controllers");
    });
}

fn batch(value: &[u8]) -> Bytes {
    let mut batch = base::batch::BatchBuilder::new();
    batch.append(1, None, Some(value));
    Bytes::from(batch.finish().unwrap())
}

fn produce(records: &Bytes, acks: i16) -> ProduceRequest<'_> {
    let data = produce_request::PartitionProduceData { index: 0, records: Some(records) };
    let topic = produce_request::TopicProduceData {
        name: "t".into(),
        partition_data: vec![data],
        ..Default::default()
    };
    ProduceRequest { acks, timeout_ms: 5_000, topic_data: vec![topic], ..Default::default() }
}

fn latest() -> ListOffsetsRequest<'static> {
    let partition = list_offsets_request::ListOffsetsPartition { timestamp: -1, ..Default::default() };
    let topic = list_offsets_request::ListOffsetsTopic { name: "t".into(), partitions: vec![partition] };
    ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() }
}

#[test]
fn a_request_sees_what_those_before_it_did() {
    run(async {
        let env = Env::sim(2);
        let _life = Life::start(&env, &["listeners=PLAINTEXT://127.0.0.1:9092"]).await;
        let mut stream = connect(&env, "127.0.0.1:9092").await;
        let created = |response: MetadataResponse<'_>| response.topics[0].error_code;
        assert_eq!(ask(&mut *stream, 9, &named("t"), created).await, 0, "it is there at once");
        let batches: Vec<Bytes> = (0..20).map(|number| batch(&[number])).collect();
        // All at once: ten that want an answer, ten that do not, and a question about the result.
        let mut frames = Vec::new();
        for (number, records) in batches.iter().enumerate() {
            let acks = if number % 2 == 0 { -1 } else { 0 };
            frames.push(wire::request_frame(number as i32, None, 8, &produce(records, acks)).unwrap());
        }
        frames.push(wire::request_frame(99, None, 3, &latest()).unwrap());
        send(&mut *stream, &frames.concat()).await;
        for number in (0..20).step_by(2) {
            let answer = receive(&mut *stream).await.unwrap();
            assert_eq!(answer[..4], i32::to_be_bytes(number));
            let response = ProduceResponse::decode(&mut wire::Reader::new(&answer[4..]), 8).unwrap();
            assert_eq!(response.responses[0].partition_responses[0].base_offset, i64::from(number));
        }
        let answer = receive(&mut *stream).await.unwrap();
        let response = ListOffsetsResponse::decode(&mut wire::Reader::new(&answer[4..]), 3).unwrap();
        assert_eq!(response.topics[0].partitions[0].offset, 20);
    });
}

#[test]
fn acks_0_that_fails_ends_the_connection() {
    run(async {
        let env = Env::sim(3);
        let _life = Life::start(&env, &["listeners=PLAINTEXT://127.0.0.1:9092"]).await;
        let mut stream = connect(&env, "127.0.0.1:9092").await;
        let records = batch(b"lost");
        send(&mut *stream, &wire::request_frame(1, None, 8, &produce(&records, 0)).unwrap()).await;
        assert_eq!(receive(&mut *stream).await, None, "there is no such topic, and no other way to say so");
    });
}

fn set(value: &str) -> IncrementalAlterConfigsRequest<'_> {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = AlterableConfig {
        name: "max.connections.per.ip".into(),
        config_operation: 0,
        value: Some(Cow::Borrowed(value)),
    };
    let resource =
        AlterConfigsResource { resource_type: 4, resource_name: "1".into(), configs: vec![config] };
    IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false }
}

fn commit() -> OffsetCommitRequest<'static> {
    use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    let partition = OffsetCommitRequestPartition { committed_offset: 7, ..Default::default() };
    let topic =
        OffsetCommitRequestTopic { name: "t".into(), partitions: vec![partition], ..Default::default() };
    OffsetCommitRequest { group_id: GROUP.into(), topics: vec![topic], ..Default::default() }
}

#[test]
fn what_was_set_and_committed_counts_in_the_next_life() {
    run(async {
        let env = Env::sim(4);
        let settings = ["listeners=PLAINTEXT://127.0.0.1:9092", "offsets.topic.num.partitions=3"];
        let life = Life::start(&env, &settings).await;
        let mut first = connect(&env, "127.0.0.1:9092").await;
        ask(&mut *first, 9, &named("t"), |_| ()).await;
        let find = FindCoordinatorRequest { key: GROUP.into(), ..Default::default() };
        ask(&mut *first, 3, &find, |response| assert_eq!(response.error_code, 0)).await;
        let code = |response: OffsetCommitResponse<'_>| response.topics[0].partitions[0].error_code;
        assert_eq!(ask(&mut *first, 8, &commit(), code).await, 0);
        let altered = |response: IncrementalAlterConfigsResponse<'_>| response.responses[0].error_code;
        assert_eq!(ask(&mut *first, 1, &set("1"), altered).await, 0);
        let mut second = connect(&env, "127.0.0.1:9092").await;
        assert_eq!(receive(&mut *second).await, None, "it counts at once");
        drop(first);
        life.stop(&env).await;

        let _life = Life::start(&env, &settings).await;
        let mut first = connect(&env, "127.0.0.1:9092").await;
        let fetch = OffsetFetchRequest { group_id: GROUP.into(), topics: None, ..Default::default() };
        let offset = |response: OffsetFetchResponse<'_>| response.topics[0].partitions[0].committed_offset;
        assert_eq!(ask(&mut *first, 7, &fetch, offset).await, 7);
        let mut second = connect(&env, "127.0.0.1:9092").await;
        assert_eq!(receive(&mut *second).await, None, "it still counts");
    });
}

#[test]
fn metrics_say_what_the_broker_is() {
    run(async {
        let env = Env::sim(5);
        let life = Life::start(&env, &["num.partitions=3"]).await;
        let mut stream = connect(&env, "127.0.0.1:9092").await;
        let request = MetadataRequest { allow_auto_topic_creation: true, ..named("t") };
        ask(&mut *stream, 12, &request, |response: MetadataResponse<'_>| response.topics.len()).await;
        let records = batch(b"value");
        let request = produce(&records, -1);
        ask(&mut *stream, 9, &request, |response: ProduceResponse<'_>| response.responses.len()).await;
        let text = life.metrics.render();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is missing")).parse::<f64>().expect("a number")
        };
        assert_eq!(value("kafka_controller_kafkacontroller_activecontrollercount"), 1.0);
        assert_eq!(value("kafka_controller_kafkacontroller_offlinepartitionscount"), 0.0);
        let partitions = value("kafka_server_replicamanager_partitioncount");
        assert!(partitions >= 3.0, "{partitions}");
        assert_eq!(value("kafka_server_replicamanager_leadercount"), partitions);
        assert!(value("vltava_sync_rounds_total") >= 1.0, "the produced record was synced");
        assert!(value("process_start_time_seconds") > 1.6e9);
        life.stop(&env).await;
    });
}

#[test]
fn a_parked_fetch_is_answered_when_its_topic_is_deleted() {
    run(async {
        let env = Env::sim(9);
        let _life = Life::start(&env, &["listeners=PLAINTEXT://127.0.0.1:9092"]).await;
        let mut reader = connect(&env, "127.0.0.1:9092").await;
        let mut admin = connect(&env, "127.0.0.1:9092").await;
        ask(&mut *admin, 9, &named("t"), |_| ()).await;
        let partition = fetch_request::FetchPartition { partition_max_bytes: 1_000, ..Default::default() };
        let topic = fetch_request::FetchTopic {
            topic: "t".into(),
            partitions: vec![partition],
            ..Default::default()
        };
        let fetch = FetchRequest {
            max_wait_ms: 200_000,
            min_bytes: 1,
            max_bytes: 1_000,
            topics: vec![topic],
            ..Default::default()
        };
        let delete =
            DeleteTopicsRequest { topic_names: vec!["t".into()], timeout_ms: 10_000, ..Default::default() };
        let began = env.clock.now();
        let parked = ask(&mut *reader, 11, &fetch, |response: FetchResponse<'_>| {
            response.responses[0].partitions[0].error_code
        });
        let deleted = async {
            env.clock.sleep(std::time::Duration::from_secs(1)).await;
            let code = |response: DeleteTopicsResponse<'_>| response.responses[0].error_code;
            ask(&mut *admin, 5, &delete, code).await
        };
        let (parked, deleted) = tokio::join!(parked, deleted);
        assert_eq!((parked, deleted), (3, 0));
        assert!(env.clock.now() - began < std::time::Duration::from_secs(5), "it was not told");
    });
}

#[test]
fn what_an_earlier_life_left_open_is_rolled_by_age_without_a_write() {
    run(async {
        let env = Env::sim(11);
        // Older than the time between two sweeps.
        let settings = ["listeners=PLAINTEXT://127.0.0.1:9092", "log.roll.ms=20000"];
        let life = Life::start(&env, &settings).await;
        let mut stream = connect(&env, "127.0.0.1:9092").await;
        ask(&mut *stream, 9, &named("t"), |_| ()).await;
        let records = batch(b"v");
        let code = |response: ProduceResponse<'_>| response.responses[0].partition_responses[0].error_code;
        assert_eq!(ask(&mut *stream, 9, &produce(&records, -1), code).await, 0);
        drop(stream);
        life.stop(&env).await;

        let life = Life::start(&env, &settings).await;
        let chain = || {
            let image = life.broker.image();
            let partition = image.topic("t").expect("the topic").partitions[0].clone();
            partition.chain.iter().map(|entry| (entry.base, entry.is_open())).collect::<Vec<_>>()
        };
        assert_eq!(chain(), [(0, true)]);
        env.clock.sleep(std::time::Duration::from_secs(60)).await;
        assert_eq!(chain(), [(0, false), (1, true)], "sealed once, and the empty one after it stays");
    });
}

/// As Kafka's cleaner does: waiting for `log.retention.check.interval.ms` would be waiting for minutes.
#[test]
fn what_expired_of_a_compacted_log_goes_in_the_rhythm_of_compaction() {
    for (policy, log_start) in [("log.cleanup.policy=compact,delete", 1), ("log.cleanup.policy=delete", 0)] {
        run(async {
            let env = Env::sim(12);
            let settings = ["listeners=PLAINTEXT://127.0.0.1:9092", policy, "log.cleaner.backoff.ms=1000"];
            let life = Life::start(&env, &settings).await;
            let mut stream = connect(&env, "127.0.0.1:9092").await;
            ask(&mut *stream, 9, &named("t"), |_| ()).await;
            let mut records = base::batch::BatchBuilder::new();
            records.append(1, Some(b"key"), Some(b"long expired"));
            let records = Bytes::from(records.finish().unwrap());
            let code =
                |response: ProduceResponse<'_>| response.responses[0].partition_responses[0].error_code;
            assert_eq!(ask(&mut *stream, 9, &produce(&records, -1), code).await, 0);
            env.clock.sleep(std::time::Duration::from_secs(10)).await;
            let image = life.broker.image();
            assert_eq!(image.topic("t").expect("the topic").partitions[0].log_start, log_start, "{policy}");
        });
    }
}

#[test]
fn records_that_are_not_in_memory_are_served_all_the_same() {
    run(async {
        let sim = Sim::new(7);
        let _life = Life::start(&sim.env, &["listeners=PLAINTEXT://127.0.0.1:9092"]).await;
        let mut stream = connect(&sim.env, "127.0.0.1:9092").await;
        let created = |response: MetadataResponse<'_>| response.topics[0].error_code;
        for _ in 0..20 {
            ask(
                &mut *stream,
                12,
                &MetadataRequest { allow_auto_topic_creation: true, ..named("t") },
                created,
            )
            .await;
        }
        let records = batch(b"cold");
        let code = |response: ProduceResponse<'_>| response.responses[0].partition_responses[0].error_code;
        assert_eq!(ask(&mut *stream, 9, &produce(&records, -1), code).await, 0);
        let partition = fetch_request::FetchPartition { partition_max_bytes: 1_000, ..Default::default() };
        let topic = fetch_request::FetchTopic {
            topic: "t".into(),
            partitions: vec![partition],
            ..Default::default()
        };
        let fetch = FetchRequest { max_bytes: 1_000, topics: vec![topic], ..Default::default() };
        let fetched = |response: FetchResponse<'_>| {
            let partition = &response.responses[0].partitions[0];
            (partition.error_code, partition.records.len())
        };
        let warm = ask(&mut *stream, 11, &fetch, fetched).await;
        // The first batch comes whatever the limit (KIP-74).
        let no_bytes = FetchRequest { max_bytes: 0, ..fetch.clone() };
        assert_eq!(ask(&mut *stream, 11, &no_bytes, fetched).await, warm);
        sim.disk.set_cold(true);
        assert_eq!((warm, ask(&mut *stream, 11, &fetch, fetched).await), ((0, records.len()), warm));
    });
}
