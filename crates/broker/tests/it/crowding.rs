//! Clients that fill groups and go: what they make the broker hold is bounded, comes back, and is no hindrance to
//! the members that are there.

use std::time::Duration;

use base::env::{Env, Stream};
use base::error::ErrorCode;
use wire::message::*;
use wire::request_frame;

use crate::support::{Life, ask, run, send};

/// Of `vltava.group.memory.max.bytes` in these tests.
const MAX_BYTES: i64 = 1_000_000;
/// What a hostile member brings, bytes.
const METADATA_BYTES: usize = 100_000;
/// The shortest session there is, ms.
const SESSION_MS: i32 = 6_000;

struct World {
    env: Env,
    life: Life,
}

impl World {
    async fn new(seed: u64) -> World {
        let env = Env::sim(seed);
        let bound = format!("vltava.group.memory.max.bytes={MAX_BYTES}");
        let settings = ["listeners=PLAINTEXT://127.0.0.1:9092", "offsets.topic.num.partitions=3", &bound];
        let life = Life::start(&env, &settings).await;
        let world = World { env, life };
        let find = FindCoordinatorRequest { key: "g".into(), ..Default::default() };
        let code = |response: FindCoordinatorResponse<'_>| response.error_code;
        assert_eq!(ask(&mut *world.connect().await, 3, &find, code).await, 0);
        world
    }

    async fn connect(&self) -> Box<dyn Stream> {
        self.env.network.connect("127.0.0.1:9092").await.expect("the broker listens")
    }

    /// Lets time pass.
    async fn pass(&self, time: Duration) {
        self.env.clock.sleep(time).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    fn held(&self) -> i64 {
        self.life.metrics.node().group_member_bytes.get()
    }
}

fn join_request<'a>(group: &'a str, member: &'a str, metadata: &'a [u8]) -> JoinGroupRequest<'a> {
    let protocol =
        join_group_request::JoinGroupRequestProtocol { name: "range".into(), metadata: metadata.into() };
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: SESSION_MS,
        // For ever, as far as it goes.
        rebalance_timeout_ms: i32::MAX,
        member_id: member.into(),
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
        ..Default::default()
    }
}

/// Joins; the code, the generation and the member id.
async fn join(
    stream: &mut dyn Stream,
    version: i16,
    request: &JoinGroupRequest<'_>,
) -> (ErrorCode, i32, String) {
    let read = |response: JoinGroupResponse<'_>| {
        let code = ErrorCode::from_code(response.error_code);
        (code, response.generation_id, response.member_id.into_owned())
    };
    ask(stream, version, request, read).await
}

async fn sync(
    stream: &mut dyn Stream,
    group: &str,
    member: &str,
    generation: i32,
    assignment: &[u8],
) -> ErrorCode {
    let assignment = sync_group_request::SyncGroupRequestAssignment {
        member_id: member.into(),
        assignment: assignment.into(),
    };
    let request = SyncGroupRequest {
        group_id: group.into(),
        generation_id: generation,
        member_id: member.into(),
        assignments: vec![assignment],
        ..Default::default()
    };
    let code = |response: SyncGroupResponse<'_>| ErrorCode::from_code(response.error_code);
    ask(stream, 3, &request, code).await
}

/// A member that does what it should, with a long session.
struct Honest {
    stream: Box<dyn Stream>,
    member: String,
    generation: i32,
}

impl Honest {
    async fn new(world: &World) -> Honest {
        let mut honest = Honest { stream: world.connect().await, member: String::new(), generation: 0 };
        let (code, _, member) = honest.join().await;
        assert_eq!(code, ErrorCode::MemberIdRequired);
        honest.member = member;
        honest
    }

    async fn join(&mut self) -> (ErrorCode, i32, String) {
        let request = join_request("honest", &self.member, &[7; 1_000]);
        join(&mut *self.stream, 5, &JoinGroupRequest { session_timeout_ms: 1_800_000, ..request }).await
    }

    /// Comes to a new generation with its assignment.
    async fn works(&mut self) {
        let (code, generation, _) = self.join().await;
        assert_eq!((code, generation), (ErrorCode::None, self.generation + 1));
        self.generation = generation;
        let code = sync(&mut *self.stream, "honest", &self.member, generation, &[8; 500]).await;
        assert_eq!(code, ErrorCode::None);
    }

    async fn leaves(&mut self) {
        let member = leave_group_request::MemberIdentity {
            member_id: self.member.as_str().into(),
            ..Default::default()
        };
        let leave =
            LeaveGroupRequest { group_id: "honest".into(), members: vec![member], ..Default::default() };
        let code = |response: LeaveGroupResponse<'_>| response.error_code;
        assert_eq!(ask(&mut *self.stream, 3, &leave, code).await, 0);
    }
}

#[test]
fn who_joins_and_hangs_up_holds_nothing() {
    run(async {
        let world = World::new(1).await;
        let mut honest = Honest::new(&world).await;
        honest.works().await;
        let before = world.held();
        assert!((1_500..5_000).contains(&before), "{before}");
        let metadata = vec![1; METADATA_BYTES];
        for round in 0..5 {
            let mut waiting = Vec::new();
            for number in 0..30 {
                let group = format!("hostile-{round}-{number}");
                let mut stream = world.connect().await;
                let request = join_request(&group, "", &metadata);
                send(&mut *stream, &request_frame(1, None, 3, &request).unwrap()).await;
                waiting.push(stream);
            }
            world.pass(Duration::from_millis(10)).await;
            let held = world.held();
            assert!(held <= MAX_BYTES && held > MAX_BYTES - 2 * METADATA_BYTES as i64, "{held} bytes");
            // Those beyond the bound hear that they may come back; so does a newcomer, without a connection's end.
            let mut newcomer = world.connect().await;
            let refused = join(&mut *newcomer, 3, &join_request("new", "", &metadata)).await;
            assert_eq!(refused.0, ErrorCode::CoordinatorLoadInProgress);
            honest.works().await;
            drop(waiting);
            // The members go with their connections, long before their sessions end.
            world.pass(Duration::from_millis(10)).await;
            assert_eq!(world.held(), before, "round {round}");
        }
        honest.leaves().await;
        assert_eq!(world.held(), 0);
        assert!(world.life.metrics.node().group_bytes.get() < 5_000, "hostile groups are forgotten");
    });
}

#[test]
fn who_becomes_a_member_and_goes_holds_memory_for_its_session_alone() {
    run(async {
        let world = World::new(2).await;
        let mut honest = Honest::new(&world).await;
        honest.works().await;
        let before = world.held();
        let metadata = vec![1; METADATA_BYTES];
        let mut refused = 0;
        for number in 0..12 {
            let group = format!("hostile-{number}");
            let mut stream = world.connect().await;
            let request =
                JoinGroupRequest { session_timeout_ms: 60_000, ..join_request(&group, "", &metadata) };
            let (code, generation, member) = join(&mut *stream, 3, &request).await;
            if code == ErrorCode::CoordinatorLoadInProgress {
                refused += 1;
                continue;
            }
            assert_eq!((code, generation), (ErrorCode::None, 1));
            if sync(&mut *stream, &group, &member, generation, &vec![2; METADATA_BYTES]).await
                == ErrorCode::CoordinatorNotAvailable
            {
                refused += 1;
            }
            assert!(world.held() <= MAX_BYTES);
        }
        assert!((5..10).contains(&refused), "{refused} refused");
        honest.works().await;
        world.pass(Duration::from_secs(61)).await;
        assert_eq!(world.held(), before);
    });
}

#[test]
fn ids_that_are_handed_out_are_bounded_too() {
    run(async {
        let world = World::new(3).await;
        let mut honest = Honest::new(&world).await;
        honest.works().await;
        let before = world.held();
        let client = "c".repeat(30_000);
        let mut stream = world.connect().await;
        for number in 0..200 {
            let group = format!("hostile-{number}");
            let request = JoinGroupRequest { session_timeout_ms: 60_000, ..join_request(&group, "", &[1]) };
            let frame = request_frame(1, Some(&client), 5, &request).unwrap();
            send(&mut *stream, &frame).await;
            crate::support::receive(&mut *stream).await.expect("an answer");
        }
        let held = world.held();
        assert!(held <= MAX_BYTES && held > MAX_BYTES - 100_000, "{held}");
        assert!(world.life.metrics.node().group_bytes.get() < 50_000);
        let refused = join(&mut *stream, 3, &join_request("new", "", &[1; METADATA_BYTES])).await;
        assert_eq!(refused.0, ErrorCode::CoordinatorLoadInProgress);
        honest.works().await;
        world.pass(Duration::from_secs(61)).await;
        assert_eq!(world.held(), before);
    });
}

#[test]
fn a_group_that_is_asked_for_over_and_over_is_told_until_it_is_enough() {
    run(async {
        let world = World::new(4).await;
        let mut stream = world.connect().await;
        let (code, generation, member) =
            join(&mut *stream, 3, &join_request("large", "", &[1; METADATA_BYTES])).await;
        assert_eq!(code, ErrorCode::None);
        let assignment = [2; METADATA_BYTES];
        assert_eq!(sync(&mut *stream, "large", &member, generation, &assignment).await, ErrorCode::None);
        let describe = DescribeGroupsRequest { groups: vec!["large".into(); 1_000], ..Default::default() };
        let told = |response: DescribeGroupsResponse<'_>| {
            let code = |group: &describe_groups_response::DescribedGroup<'_>| {
                (ErrorCode::from_code(group.error_code), group.members.len())
            };
            response.groups.iter().map(code).collect::<Vec<_>>()
        };
        let told = ask(&mut *stream, 5, &describe, told).await;
        let whole = told.iter().take_while(|group| **group == (ErrorCode::None, 1)).count();
        assert!((100..200).contains(&whole), "{whole} times 200,000 bytes");
        assert_eq!(told.len(), 1_000);
        assert!(told[whole..].iter().all(|group| *group == (ErrorCode::CoordinatorLoadInProgress, 0)));
    });
}

#[test]
fn offsets_that_are_asked_for_over_and_over_are_told_until_it_is_enough() {
    run(async {
        const PARTITIONS: i32 = 500;
        let world = World::new(5).await;
        let mut stream = world.connect().await;
        let topic = create_topics_request::CreatableTopic {
            name: "t".into(),
            num_partitions: PARTITIONS,
            replication_factor: 1,
            ..Default::default()
        };
        let create = CreateTopicsRequest { topics: vec![topic], timeout_ms: 1_000, ..Default::default() };
        assert_eq!(ask(&mut *stream, 5, &create, |response| response.topics[0].error_code).await, 0);
        let partition = |partition_index| offset_commit_request::OffsetCommitRequestPartition {
            partition_index,
            ..Default::default()
        };
        let topic = offset_commit_request::OffsetCommitRequestTopic {
            name: "t".into(),
            partitions: (0..PARTITIONS).map(partition).collect(),
            ..Default::default()
        };
        let commit = OffsetCommitRequest {
            group_id: "g".into(),
            generation_id_or_member_epoch: -1,
            topics: vec![topic],
            ..Default::default()
        };
        let code = |response: OffsetCommitResponse<'_>| response.topics[0].partitions[0].error_code;
        assert_eq!(ask(&mut *stream, 8, &commit, code).await, 0);
        let group = || offset_fetch_request::OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics: None,
            ..Default::default()
        };
        let groups = (0..1_200).map(|_| group()).collect();
        let fetch = OffsetFetchRequest { groups, ..Default::default() };
        let told = |response: OffsetFetchResponse<'_>| {
            let offsets = |group: &offset_fetch_response::OffsetFetchResponseGroup<'_>| {
                let offsets: usize = group.topics.iter().map(|topic| topic.partitions.len()).sum();
                (ErrorCode::from_code(group.error_code), offsets)
            };
            response.groups.iter().map(offsets).collect::<Vec<_>>()
        };
        let told = ask(&mut *stream, 9, &fetch, told).await;
        let whole = told.iter().take_while(|group| **group == (ErrorCode::None, PARTITIONS as usize)).count();
        assert!((900..=1_000).contains(&whole), "{whole} times {PARTITIONS} offsets");
        assert_eq!(told.len(), 1_200);
        assert!(told[whole..].iter().all(|group| *group == (ErrorCode::CoordinatorLoadInProgress, 0)));
    });
}
