//! Requests with as many names as are let through: others are served meanwhile, and what answers take is bounded.

use std::cell::Cell;
use std::rc::Rc;

use base::env::{Env, Stream};
use wire::message::*;
use wire::{RequestMessage, request_frame};

use crate::support::{Life, ask, receive, send};

/// Names in a request, each an element or two; 100,000 elements are let through.
const NAMES: usize = 49_000;

/// Turns that another task of the thread has at least while such a request is answered.
const TURNS_MIN: usize = NAMES / 256;

/// Runs a test that takes at most so many bytes of memory at once, with requests, answers and the broker in it.
fn run(max_bytes: u64, test: impl Future<Output = ()>) {
    let spent = allocation_counter::measure(|| crate::support::run(test));
    assert!(spent.bytes_max < max_bytes, "{} bytes at once", spent.bytes_max);
}

struct World {
    env: Env,
    _life: Life,
    names: Vec<String>,
}

impl World {
    async fn new() -> World {
        let env = Env::sim(1);
        let settings = [
            "listeners=PLAINTEXT://127.0.0.1:9092",
            "offsets.topic.num.partitions=3",
            "auto.create.topics.enable=false",
        ];
        let _life = Life::start(&env, &settings).await;
        let names = (0..NAMES).map(|number| format!("n{number:09}")).collect();
        let world = World { env, _life, names };
        let find = FindCoordinatorRequest { key: "g".into(), ..Default::default() };
        assert_eq!(ask(&mut *world.connect().await, 3, &find, |response| response.error_code).await, 0);
        world
    }

    async fn connect(&self) -> Box<dyn Stream> {
        self.env.network.connect("127.0.0.1:9092").await.expect("the broker listens")
    }

    /// Something for each name.
    fn each<'w, T>(&'w self, make: impl Fn(&'w str) -> T) -> Vec<T> {
        self.names.iter().map(|name| make(name)).collect()
    }

    /// Sends a request while another task of the thread has a turn whenever it may. Returns its turns and the bytes of
    /// the answer.
    async fn answered<'q, Q: RequestMessage<'q>>(&self, version: i16, request: &Q) -> (usize, usize) {
        let frame = request_frame(1, None, version, request).unwrap();
        let turns = Rc::new(Cell::new(0));
        let counted = turns.clone();
        let count = async move {
            loop {
                counted.set(counted.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        let mut stream = self.connect().await;
        let local = tokio::task::LocalSet::new();
        let counting = local.spawn_local(count);
        let asked = async {
            send(&mut *stream, &frame).await;
            receive(&mut *stream).await.expect("an answer")
        };
        let answer = local.run_until(asked).await;
        counting.abort();
        println!("{:?}: {} bytes, {} answered, {} turns", Q::API_KEY, frame.len(), answer.len(), turns.get());
        (turns.get(), answer.len())
    }

    /// The same, and the others are not kept waiting.
    async fn shares_its_thread<'q, Q: RequestMessage<'q>>(&self, version: i16, request: &Q) -> usize {
        let (turns, bytes) = self.answered(version, request).await;
        assert!(turns >= TURNS_MIN, "{:?} leaves others {turns} turns", Q::API_KEY);
        bytes
    }
}

#[test]
fn topics_that_nobody_has_are_refused_in_turns() {
    run(96 << 20, async {
        let world = World::new().await;
        let topics = world.each(|name| metadata_request::MetadataRequestTopic {
            name: Some(name.into()),
            ..Default::default()
        });
        world.shares_its_thread(9, &MetadataRequest { topics: Some(topics), ..Default::default() }).await;
        let topics = world.each(|name| describe_topic_partitions_request::TopicRequest { name: name.into() });
        let page =
            DescribeTopicPartitionsRequest { topics, response_partition_limit: 9, ..Default::default() };
        world.shares_its_thread(0, &page).await;
        let topics = world.each(|name| delete_topics_request::DeleteTopicState {
            name: Some(name.into()),
            ..Default::default()
        });
        world.shares_its_thread(6, &DeleteTopicsRequest { topics, ..Default::default() }).await;
        let topics = world.each(|name| list_offsets_request::ListOffsetsTopic {
            name: name.into(),
            partitions: vec![Default::default()],
        });
        world.shares_its_thread(7, &ListOffsetsRequest { topics, ..Default::default() }).await;
        let topics = world.each(|name| offset_for_leader_epoch_request::OffsetForLeaderTopic {
            topic: name.into(),
            partitions: vec![Default::default()],
        });
        world.shares_its_thread(4, &OffsetForLeaderEpochRequest { topics, ..Default::default() }).await;
        let topics = world.each(|name| delete_records_request::DeleteRecordsTopic {
            name: name.into(),
            partitions: vec![Default::default()],
        });
        world.shares_its_thread(2, &DeleteRecordsRequest { topics, ..Default::default() }).await;
        let topics = world.each(|name| fetch_request::FetchTopic {
            topic: name.into(),
            partitions: vec![Default::default()],
            ..Default::default()
        });
        world.shares_its_thread(12, &FetchRequest { topics, ..Default::default() }).await;
        let topic_data = world.each(|name| produce_request::TopicProduceData {
            name: name.into(),
            partition_data: vec![Default::default()],
            ..Default::default()
        });
        world.shares_its_thread(9, &ProduceRequest { acks: 1, topic_data, ..Default::default() }).await;
    });
}

#[test]
fn groups_that_nobody_has_are_told_in_turns() {
    run(48 << 20, async {
        let world = World::new().await;
        let coordinator_keys = world.each(|name| name.into());
        let find = FindCoordinatorRequest { coordinator_keys, ..Default::default() };
        world.shares_its_thread(4, &find).await;
        let groups = world.each(|name| name.into());
        world.shares_its_thread(5, &DescribeGroupsRequest { groups, ..Default::default() }).await;
        let groups_names = world.each(|name| name.into());
        world.shares_its_thread(2, &DeleteGroupsRequest { groups_names }).await;
        let groups = world.each(|name| offset_fetch_request::OffsetFetchRequestGroup {
            group_id: name.into(),
            topics: None,
            ..Default::default()
        });
        world.shares_its_thread(9, &OffsetFetchRequest { groups, ..Default::default() }).await;
        let topics = world.each(|name| offset_fetch_request::OffsetFetchRequestTopics {
            name: name.into(),
            partition_indexes: vec![0],
            ..Default::default()
        });
        let group = offset_fetch_request::OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics: Some(topics),
            ..Default::default()
        };
        world.shares_its_thread(9, &OffsetFetchRequest { groups: vec![group], ..Default::default() }).await;
        let topics = world.each(|name| offset_commit_request::OffsetCommitRequestTopic {
            name: name.into(),
            partitions: vec![Default::default()],
            ..Default::default()
        });
        let commit = OffsetCommitRequest { group_id: "g".into(), topics, ..Default::default() };
        world.shares_its_thread(9, &commit).await;
        let topics = world.each(|name| offset_delete_request::OffsetDeleteRequestTopic {
            name: name.into(),
            partitions: vec![Default::default()],
        });
        let delete = OffsetDeleteRequest { group_id: "g".into(), topics };
        world.shares_its_thread(0, &delete).await;
    });
}

#[test]
fn config_values_are_told_once_and_changed_in_turns() {
    run(48 << 20, async {
        let world = World::new().await;
        let named = |number: usize| format!("{:0>1$}", 1, 1 + number % 200);
        let spellings: Vec<String> = (0..NAMES).map(named).collect();
        let resources = spellings.iter().map(|name| describe_configs_request::DescribeConfigsResource {
            resource_type: 4,
            resource_name: name.into(),
            configuration_keys: None,
        });
        let describe = DescribeConfigsRequest {
            resources: resources.collect(),
            include_synonyms: true,
            include_documentation: true,
        };
        let bytes = world.shares_its_thread(4, &describe).await;
        assert!((10_000..500_000).contains(&bytes), "{bytes} bytes for one broker");
        let (first, _) = world.names.split_at(NAMES / 2);
        let resources = first.iter().chain(first).map(|name| alter_configs_request::AlterConfigsResource {
            resource_type: 2,
            resource_name: name.into(),
            configs: Vec::new(),
        });
        let alter = AlterConfigsRequest { resources: resources.collect(), validate_only: true };
        world.shares_its_thread(2, &alter).await;
        let resources =
            first[..1_000].iter().map(|name| incremental_alter_configs_request::AlterConfigsResource {
                resource_type: 2,
                resource_name: name.into(),
                configs: Vec::new(),
            });
        let alter = IncrementalAlterConfigsRequest { resources: resources.collect(), validate_only: true };
        let (turns, _) = world.answered(1, &alter).await;
        assert!(turns >= 240, "a change is more work than a name; {turns} turns");
    });
}

#[test]
fn topics_beyond_ten_thousand_are_refused_and_not_told_at_length() {
    run(128 << 20, async {
        let world = World::new().await;
        let topics = world.each(|name| create_topics_request::CreatableTopic {
            name: name.into(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        });
        let create = CreateTopicsRequest { topics, timeout_ms: 1_000, validate_only: true };
        world.shares_its_thread(7, &create).await;
        let codes = |response: CreateTopicsResponse<'_>| {
            let of = |code: i16| response.topics.iter().filter(|topic| topic.error_code == code).count();
            let told: usize = response.topics.iter().flat_map(|topic| &topic.configs).map(Vec::len).sum();
            (of(0), of(44), told / 10_000)
        };
        let (created, refused, told) = ask(&mut *world.connect().await, 7, &create, codes).await;
        assert_eq!((created, refused), (10_000, NAMES - 10_000));
        assert!((20..100).contains(&told), "{told} values of a topic");
    });
}

#[test]
fn a_question_creates_a_thousand_topics_and_the_next_one_the_rest() {
    run(16 << 20, async {
        let env = Env::sim(2);
        let life = Life::start(&env, &["listeners=PLAINTEXT://127.0.0.1:9092"]).await;
        let mut stream = env.network.connect("127.0.0.1:9092").await.expect("the broker listens");
        let names: Vec<String> = (0..1_100).map(|number| format!("t{number}")).collect();
        let topics = names.iter().map(|name| metadata_request::MetadataRequestTopic {
            name: Some(name.into()),
            ..Default::default()
        });
        let question = MetadataRequest { topics: Some(topics.collect()), ..Default::default() };
        for (there, to_come) in [(1_000, 100), (1_100, 0)] {
            let codes = |response: MetadataResponse<'_>| {
                let of = |code| response.topics.iter().filter(|topic| topic.error_code == code).count();
                (of(0), of(5))
            };
            assert_eq!(ask(&mut *stream, 9, &question, codes).await, (there, to_come));
        }
        life.stop(&env).await;
    });
}
