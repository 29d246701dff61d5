//! A shard with a log that does as it is told.

use std::sync::Arc;
use std::time::Duration;

use base::batch::{Batches, DecompressBuffer};
use base::env::{BoxFuture, Env};
use base::error::ErrorCode;
use base::metrics::Metrics;
use bytes::Bytes;
use coordinator::{
    Answer, CommitPartition, CommitTopic, GroupConfig, GroupShard, HeartbeatRequest, JoinAnswer, JoinRequest,
    OffsetCommitRequest, OffsetFetchRequest, Protocol, Request, SyncRequest,
};
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::clock::SteadyClock;
use super::shard::{GroupLog, Lost, Shard, ShardSpec};

type Decision = oneshot::Sender<Result<(), Lost>>;

#[derive(Clone, Default)]
struct TestLog {
    batches: Arc<Mutex<Vec<Bytes>>>,
    pending: Arc<Mutex<Vec<Decision>>>,
}

impl GroupLog for TestLog {
    fn append(&self, batch: Bytes) -> BoxFuture<'static, Result<(), Lost>> {
        self.batches.lock().push(batch);
        let (sender, receiver) = oneshot::channel();
        self.pending.lock().push(sender);
        Box::pin(async move { receiver.await.unwrap_or(Err(Lost::Unknown(ErrorCode::NotLeaderOrFollower))) })
    }
}

struct World {
    env: Env,
    log: TestLog,
    metrics: Metrics,
    shard: Arc<Shard>,
}

impl World {
    fn new() -> World {
        let env = Env::sim(1);
        let (log, metrics) = (TestLog::default(), Metrics::default());
        let shard = start(&env, &log, &metrics, GroupShard::new(GroupConfig::default()));
        World { env, log, metrics, shard }
    }

    async fn pass(&self, ms: u64) {
        self.env.clock.sleep(Duration::from_millis(ms)).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    /// Decides the oldest append that is open.
    async fn decide(&self, outcome: Result<(), Lost>) {
        let sender = self.log.pending.lock().remove(0);
        sender.send(outcome).expect("the shard waits");
        self.pass(0).await;
    }
}

fn start(env: &Env, log: &TestLog, metrics: &Metrics, machine: GroupShard) -> Arc<Shard> {
    let spec = ShardSpec {
        env: env.clone(),
        clock: SteadyClock::new(&*env.clock),
        log: Box::new(log.clone()),
        metrics: metrics.node().clone(),
        commit_timeout: Duration::from_secs(5),
    };
    Shard::start(spec, machine)
}

fn commit(offset: i64) -> Request {
    let partition = CommitPartition { partition: 0, offset, leader_epoch: -1, metadata: None };
    let topic = CommitTopic { name: "t".into(), topic_id: Default::default(), partitions: vec![partition] };
    Request::OffsetCommit(OffsetCommitRequest {
        api_version: 8,
        group_id: "g".into(),
        generation: -1,
        member_id: String::new(),
        instance_id: None,
        retention_time_ms: -1,
        topics: vec![topic],
    })
}

fn fetch() -> Request {
    Request::OffsetFetch(OffsetFetchRequest { group_id: "g".into(), topics: None, require_stable: false })
}

fn join(member_id: &str) -> Request {
    Request::Join(JoinRequest {
        api_version: 5,
        group_id: "g".into(),
        member_id: member_id.into(),
        instance_id: None,
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol { name: "range".into(), metadata: Bytes::new() }],
        reason: None,
        member_uuid: base::ids::Uuid([1; 16]),
    })
}

fn committed_code(answer: &Answer) -> ErrorCode {
    match answer {
        Answer::OffsetCommit(answer) => answer.topics[0].partitions[0].1,
        other => panic!("{other:?}"),
    }
}

async fn offset(world: &World) -> i64 {
    match world.shard.ask(fetch()).await.unwrap() {
        Answer::OffsetFetch(answer) => answer.topics.first().map_or(-1, |topic| topic.partitions[0].offset),
        other => panic!("{other:?}"),
    }
}

async fn join_alone(world: &World) -> JoinAnswer {
    let Answer::Join(refused) = world.shard.ask(join("")).await.unwrap() else { panic!("no join") };
    assert_eq!(refused.error, ErrorCode::MemberIdRequired);
    let joining = world.shard.ask(join(&refused.member_id));
    let Answer::Join(joined) = joining.await.unwrap() else { panic!("no join") };
    joined
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_answered_and_seen_once_it_is_in_the_log() {
    let world = World::new();
    let mut answer = world.shard.ask(commit(5));
    world.pass(100).await;
    assert!((&mut answer).now_or_never().is_none());
    assert_eq!(offset(&world).await, -1);
    world.decide(Ok(())).await;
    assert_eq!(committed_code(&answer.await.unwrap()), ErrorCode::None);
    assert_eq!(offset(&world).await, 5);
    assert_eq!(world.metrics.node().offset_commits.get(), 1);
    assert_eq!(world.shard.summaries()[0].offsets.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_appended_fills_the_next_shard() {
    let world = World::new();
    for offset in [5, 9] {
        let answer = world.shard.ask(commit(offset));
        world.decide(Ok(())).await;
        assert_eq!(committed_code(&answer.await.unwrap()), ErrorCode::None);
    }
    let mut machine = GroupShard::new(GroupConfig::default());
    let mut buffer = DecompressBuffer::new(1 << 20);
    for bytes in world.log.batches.lock().iter() {
        for batch in Batches::new(bytes) {
            for record in batch.unwrap().records(&mut buffer).unwrap() {
                let record = record.unwrap();
                machine.replay(record.key.expect("a key"), record.value).unwrap();
            }
        }
    }
    let shard = start(&world.env, &world.log, &world.metrics, machine);
    let next = World { shard, ..world };
    assert_eq!(offset(&next).await, 9);
}

#[tokio::test(start_paused = true)]
async fn a_refused_append_fails_its_request_alone() {
    let world = World::new();
    let answer = world.shard.ask(commit(5));
    world.decide(Err(Lost::Refused(ErrorCode::KafkaStorageError))).await;
    assert_eq!(committed_code(&answer.await.unwrap()), ErrorCode::NotCoordinator);
    let answer = world.shard.ask(commit(6));
    world.decide(Ok(())).await;
    assert_eq!(committed_code(&answer.await.unwrap()), ErrorCode::None);
    assert_eq!(offset(&world).await, 6);
}

#[tokio::test(start_paused = true)]
async fn a_slow_append_is_told_and_counts_when_it_arrives() {
    let world = World::new();
    let answer = world.shard.ask(commit(5));
    world.pass(5_100).await;
    assert_eq!(committed_code(&answer.await.unwrap()), ErrorCode::CoordinatorNotAvailable);
    world.decide(Ok(())).await;
    assert_eq!(offset(&world).await, 5);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_failed_ends_the_shard() {
    let world = World::new();
    let parked = world.shard.ask(join(""));
    drop(parked);
    let answer = world.shard.ask(commit(5));
    world.decide(Err(Lost::Unknown(ErrorCode::KafkaStorageError))).await;
    assert_eq!(committed_code(&answer.await.unwrap()), ErrorCode::NotCoordinator);
    assert!(world.shard.ask(fetch()).await.is_err());
    world.pass(100_000).await;
    assert_eq!(Arc::strong_count(&world.shard), 1, "nothing holds on to it");
}

#[tokio::test(start_paused = true)]
async fn deadlines_come_by_themselves() {
    let world = World::new();
    let began = world.env.clock.now();
    let joined = join_alone(&world).await;
    assert_eq!((joined.error, joined.generation), (ErrorCode::None, 1));
    assert_eq!((world.env.clock.now() - began).as_secs(), 3, "the initial delay");
    let sync = world.shard.ask(Request::Sync(SyncRequest {
        api_version: 3,
        group_id: "g".into(),
        generation: 1,
        member_id: joined.member_id.clone(),
        instance_id: None,
        protocol_type: None,
        protocol_name: None,
        assignments: vec![(joined.member_id.clone(), Bytes::from_static(b"all"))],
    }));
    world.decide(Ok(())).await;
    let Answer::Sync(synced) = sync.await.unwrap() else { panic!("no sync") };
    assert_eq!(synced.assignment, "all");
    assert_eq!(world.metrics.node().rebalances.get(), 1);
    let heartbeat = || {
        Request::Heartbeat(HeartbeatRequest {
            group_id: "g".into(),
            generation: 1,
            member_id: joined.member_id.clone(),
            instance_id: None,
        })
    };
    for _ in 0..5 {
        world.pass(9_000).await;
        assert_eq!(world.shard.ask(heartbeat()).await.unwrap(), Answer::Heartbeat(ErrorCode::None));
    }
    world.pass(10_500).await;
    assert_eq!(world.shard.ask(heartbeat()).await.unwrap(), Answer::Heartbeat(ErrorCode::UnknownMemberId));
}

#[tokio::test(start_paused = true)]
async fn a_new_member_goes_with_who_asked_for_it() {
    let world = World::new();
    let held = || world.metrics.node().group_member_bytes.get();
    let Answer::Join(refused) = world.shard.ask(join("")).await.unwrap() else { panic!("no join") };
    let handed_out = held();
    let mut parked = world.shard.ask(join(&refused.member_id));
    assert!((&mut parked).now_or_never().is_none());
    assert!(held() > handed_out && handed_out > 0);
    drop(parked);
    assert_eq!(held(), 0);
    assert!(world.shard.summaries().is_empty());
    // An answer that nobody took is an answer: the member has its session.
    let joined = join_alone(&world).await;
    drop(world.shard.ask(join(&joined.member_id)));
    assert_eq!(world.shard.summaries()[0].members, 1);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_resigns_sends_everyone_away() {
    let world = World::new();
    let Answer::Join(refused) = world.shard.ask(join("")).await.unwrap() else { panic!("no join") };
    let parked = world.shard.ask(join(&refused.member_id));
    world.shard.resign();
    match parked.await {
        Ok(Answer::Join(answer)) => assert_eq!(answer.error, ErrorCode::NotCoordinator),
        other => panic!("{other:?}"),
    }
    assert!(world.shard.ask(fetch()).await.is_err());
}
