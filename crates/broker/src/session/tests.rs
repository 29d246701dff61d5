//! Tests of fetch sessions.

use base::metrics::Metrics;
use bytes::Bytes;
use wire::Payload;
use wire::message::fetch_request::{self, FetchTopic};

use super::*;

const BY_NAME: i16 = 12;
/// Bytes that sessions may hold: 500,000 partitions of topics with short names.
const BYTES_MAX: usize = 500_000 * (PARTITION_BYTES + 1);

struct World {
    sessions: FetchSessions,
    env: Env,
}

impl World {
    fn new(slots: usize) -> World {
        let env = Env::sim(3);
        let metrics = Metrics::default().node().clone();
        World { sessions: FetchSessions::new(env.clone(), slots, BYTES_MAX, metrics), env }
    }

    /// Sends a request and answers every partition by `result`.
    async fn fetch(
        &self,
        request: &FetchRequest<'_>,
        result: impl Fn(&FetchPartition) -> PartitionData,
    ) -> FetchResponse<'static> {
        let round = self.sessions.begin(BY_NAME, request).expect("a good request");
        let results = round.partitions().iter().map(result).collect();
        round.finish(&self.sessions, results).await
    }

    /// Sessions open and the partitions in them.
    fn counts(&self) -> (usize, usize) {
        let cache = self.sessions.cache.lock();
        assert_eq!(cache.metrics.fetch_sessions.get(), cache.sessions.len() as i64);
        assert_eq!(cache.metrics.fetch_session_bytes.get(), cache.bytes as i64);
        let (mut bytes, mut partitions) = (0, 0);
        for entry in cache.sessions.values() {
            let session = entry.session.lock();
            let held: usize = session.order.values().map(|cached| bytes_of(&cached.request)).sum();
            assert_eq!((entry.bytes, session.bytes), (held, held));
            bytes += held;
            partitions += session.order.len();
        }
        assert_eq!(cache.bytes, bytes);
        (cache.sessions.len(), partitions)
    }

    async fn pass(&self, seconds: u64) {
        self.env.clock.sleep(Duration::from_secs(seconds)).await;
    }
}

fn topic(name: &'static str, partitions: impl IntoIterator<Item = i32>) -> FetchTopic<'static> {
    let wanted = |partition| fetch_request::FetchPartition { partition, ..Default::default() };
    FetchTopic {
        topic: name.into(),
        partitions: partitions.into_iter().map(wanted).collect(),
        ..Default::default()
    }
}

fn request(session_id: i32, session_epoch: i32, topics: Vec<FetchTopic<'static>>) -> FetchRequest<'static> {
    FetchRequest { session_id, session_epoch, topics, ..Default::default() }
}

fn empty(_: &FetchPartition) -> PartitionData {
    PartitionData { high_watermark: 10, log_start_offset: 0, records: Payload::empty(), ..Default::default() }
}

fn with_records(partition: &FetchPartition) -> PartitionData {
    PartitionData { records: Payload::One(Bytes::from_static(b"batch")), ..empty(partition) }
}

/// Partitions of an answer as `topic-number`.
fn shown(response: &FetchResponse<'_>) -> String {
    let partitions = response.responses.iter().flat_map(|topic| {
        topic.partitions.iter().map(move |partition| format!("{}-{}", topic.topic, partition.partition_index))
    });
    partitions.collect::<Vec<_>>().join(" ")
}

#[tokio::test(start_paused = true)]
async fn an_empty_request_stands_for_all_partitions_and_only_news_come_back() {
    let world = World::new(10);
    let full = world.fetch(&request(0, 0, vec![topic("a", 0..2), topic("b", [7])]), empty).await;
    assert_eq!(shown(&full), "a-0 a-1 b-7");
    assert!(full.session_id > 0);
    let id = full.session_id;
    assert_eq!(shown(&world.fetch(&request(id, 1, vec![]), empty).await), "");
    let moved = world
        .fetch(&request(id, 2, vec![]), |partition| PartitionData {
            high_watermark: 10 + i64::from(partition.partition == 1),
            ..empty(partition)
        })
        .await;
    assert_eq!((shown(&moved).as_str(), moved.session_id), ("a-1", id));
    let trimmed = world
        .fetch(&request(id, 3, vec![]), |partition| PartitionData {
            high_watermark: 10 + i64::from(partition.partition == 1),
            log_start_offset: i64::from(partition.partition == 7),
            ..empty(partition)
        })
        .await;
    assert_eq!(shown(&trimmed), "b-7");
    assert_eq!(world.counts(), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn an_error_is_told_each_time_and_its_end_too() {
    let world = World::new(10);
    let id = world.fetch(&request(0, 0, vec![topic("a", 0..2)]), empty).await.session_id;
    let failing = |partition: &FetchPartition| match partition.partition {
        0 => PartitionData { error_code: ErrorCode::NotLeaderOrFollower.code(), ..empty(partition) },
        _ => empty(partition),
    };
    assert_eq!(shown(&world.fetch(&request(id, 1, vec![]), failing).await), "a-0");
    assert_eq!(shown(&world.fetch(&request(id, 2, vec![]), failing).await), "a-0");
    assert_eq!(shown(&world.fetch(&request(id, 3, vec![]), empty).await), "a-0");
    assert_eq!(shown(&world.fetch(&request(id, 4, vec![]), empty).await), "");
}

#[tokio::test(start_paused = true)]
async fn partitions_that_gave_records_go_to_the_end() {
    let world = World::new(10);
    let id = world.fetch(&request(0, 0, vec![topic("a", 0..3)]), empty).await.session_id;
    let first_only = |partition: &FetchPartition| match partition.partition {
        0 => with_records(partition),
        _ => empty(partition),
    };
    assert_eq!(shown(&world.fetch(&request(id, 1, vec![]), first_only).await), "a-0");
    assert_eq!(shown(&world.fetch(&request(id, 2, vec![]), with_records).await), "a-1 a-2 a-0");
    assert_eq!(shown(&world.fetch(&request(id, 3, vec![]), with_records).await), "a-1 a-2 a-0");
}

#[tokio::test(start_paused = true)]
async fn partitions_are_added_changed_and_forgotten() {
    let world = World::new(10);
    let id = world.fetch(&request(0, 0, vec![topic("a", 0..3)]), empty).await.session_id;
    let mut change = request(id, 1, vec![topic("b", [0])]);
    change.topics.push(topic("a", [1]));
    change.topics[1].partitions[0].fetch_offset = 42;
    change.forgotten_topics_data =
        vec![ForgottenTopic { topic: "a".into(), partitions: vec![0, 9], ..Default::default() }];
    let round = world.sessions.begin(BY_NAME, &change).unwrap();
    let offsets: Vec<_> =
        round.partitions().iter().map(|partition| (partition.partition, partition.fetch_offset)).collect();
    assert_eq!(offsets, [(1, 42), (2, 0), (0, 0)]);
    assert_eq!(
        shown(&round.finish(&world.sessions, vec![empty(&change_dummy()); 3]).await),
        "b-0",
        "new ones are news"
    );
    assert_eq!(world.counts().1, 3);
    let mut last = request(id, 2, vec![]);
    last.forgotten_topics_data = vec![
        ForgottenTopic { topic: "a".into(), partitions: vec![1, 2], ..Default::default() },
        ForgottenTopic { topic: "b".into(), partitions: vec![0], ..Default::default() },
    ];
    assert_eq!(world.fetch(&last, empty).await.session_id, 0, "a session without partitions is closed");
    assert_eq!(world.counts(), (0, 0));
}

fn change_dummy() -> FetchPartition {
    FetchPartition {
        topic: TopicKey::Id(Uuid::ZERO),
        partition: 0,
        fetch_offset: 0,
        max_bytes: 0,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_named_twice_counts_once_as_named_last() {
    let world = World::new(10);
    let mut twice = request(0, 0, vec![topic("a", [0, 1, 0])]);
    twice.topics[0].partitions[2].fetch_offset = 5;
    let round = world.sessions.begin(BY_NAME, &twice).unwrap();
    assert_eq!(round.partitions().len(), 2);
    assert_eq!(round.partitions()[0].fetch_offset, 5);
}

#[tokio::test(start_paused = true)]
async fn sessions_that_do_not_fit_the_request_are_refused() {
    let world = World::new(10);
    let id = world.fetch(&request(0, 0, vec![topic("a", [0])]), empty).await.session_id;
    let begin = |version, session_id, epoch| {
        let begun = world.sessions.begin(version, &request(session_id, epoch, vec![]));
        begun.map(|_| ()).unwrap_err()
    };
    assert_eq!(begin(BY_NAME, id.wrapping_add(1).max(1), 1), ErrorCode::FetchSessionIdNotFound);
    assert_eq!(begin(BY_NAME, 0, 1), ErrorCode::FetchSessionIdNotFound);
    assert_eq!(begin(BY_NAME, -5, 1), ErrorCode::FetchSessionIdNotFound);
    assert_eq!(begin(BY_NAME, id, 2), ErrorCode::InvalidFetchSessionEpoch);
    assert_eq!(begin(BY_NAME, id, -2), ErrorCode::InvalidFetchSessionEpoch);
    assert_eq!(begin(13, id, 1), ErrorCode::FetchSessionTopicIdError);
}

#[tokio::test(start_paused = true)]
async fn a_request_sent_twice_is_answered_for_the_later_one() {
    let world = World::new(10);
    let id = world.fetch(&request(0, 0, vec![topic("a", [0])]), empty).await.session_id;
    let parked = world.sessions.begin(BY_NAME, &request(id, 1, vec![])).unwrap();
    world.fetch(&request(id, 2, vec![]), empty).await;
    let late = parked.finish(&world.sessions, vec![with_records(&change_dummy())]).await;
    assert_eq!(late.error_code, ErrorCode::InvalidFetchSessionEpoch.code());
    assert_eq!((late.session_id, late.responses.len()), (id, 0));
}

#[tokio::test(start_paused = true)]
async fn full_requests_close_the_session_they_name() {
    let world = World::new(10);
    let first = world.fetch(&request(0, 0, vec![topic("a", [0])]), empty).await.session_id;
    let second = world.fetch(&request(first, 0, vec![topic("a", [0])]), empty).await.session_id;
    assert_ne!(first, second);
    assert_eq!(world.counts().0, 1);
    let none = world.fetch(&request(second, -1, vec![topic("a", [0])]), empty).await;
    assert_eq!((none.session_id, shown(&none).as_str()), (0, "a-0"));
    assert_eq!(world.counts(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn epochs_wrap_to_one() {
    assert_eq!(next_epoch(i32::MAX), 1);
    assert_eq!(next_epoch(0), 1);
}

#[tokio::test(start_paused = true)]
async fn when_it_is_full_only_old_and_small_sessions_make_room() {
    let world = World::new(2);
    let open = async |partitions| {
        world.fetch(&request(0, 0, vec![topic("a", 0..partitions)]), empty).await.session_id
    };
    let (small, large) = (open(1).await, open(5).await);
    assert!(small > 0 && large > 0);
    assert_eq!(open(9).await, 0, "both are young");
    let touch = |id, epoch| world.sessions.begin(BY_NAME, &request(id, epoch, vec![])).is_ok();
    world.pass(100).await;
    assert!(touch(small, 1) && touch(large, 1));
    world.pass(30).await;
    assert_eq!(open(1).await, 0, "not larger than the smallest");
    assert!(open(2).await > 0, "the small one is old enough");
    assert!(!touch(small, 2) && touch(large, 2));
    world.pass(121).await;
    assert!(touch(large, 3));
    assert!(open(1).await > 0, "the other is unused");
    assert_eq!(world.counts(), (2, 6));
    let none = World::new(0);
    assert_eq!(none.fetch(&request(0, 0, vec![topic("a", [0])]), empty).await.session_id, 0);
}

#[tokio::test(start_paused = true)]
async fn too_many_partitions_get_no_session() {
    let world = World::new(10);
    let id = world.fetch(&request(0, 0, vec![topic("a", 0..300_000)]), empty).await.session_id;
    assert!(id > 0);
    assert_eq!(world.fetch(&request(0, 0, vec![topic("b", 0..300_000)]), empty).await.session_id, 0);
    let grown = world.sessions.begin(BY_NAME, &request(id, 1, vec![topic("b", 0..300_000)]));
    assert_eq!(grown.map(|_| ()).unwrap_err(), ErrorCode::FetchSessionIdNotFound);
    assert_eq!(world.counts().1, 0);
}

#[tokio::test(start_paused = true)]
async fn names_count_and_unused_sessions_make_room_for_them() {
    let world = World::new(10);
    // One partition each of a topic with a name that fills a tenth of what there is.
    let name: &'static str = "n".repeat(BYTES_MAX / 10 - PARTITION_BYTES).leak();
    let open = async || world.fetch(&request(0, 0, vec![topic(name, [0])]), empty).await.session_id;
    for _ in 0..9 {
        assert!(open().await > 0);
    }
    let small = world.fetch(&request(0, 0, vec![topic("a", [0])]), empty).await.session_id;
    assert!(small > 0);
    assert_eq!(open().await, 0, "all are in use");
    world.pass(121).await;
    assert!(open().await > 0);
    assert_eq!(world.counts(), (10, 10));
}
