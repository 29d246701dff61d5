//! A whole broker against clients that send what they should not: no bug is found by them, no memory is
//! wasted on them, others are served.

use std::sync::atomic::{AtomicUsize, Ordering};

use base::env::sim::SimRandom;
use base::env::{Env, Random, Stream};
use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::message::*;
use wire::{ApiKey, Message, Reader, RequestMessage, Writer, request_frame};

use crate::source::{Sample, Source};
use crate::support::{Life, receive, send};

#[path = "../../wire/tests/proof/samples.rs"]
mod samples;
#[path = "../../wire/tests/proof/source.rs"]
#[allow(dead_code, reason = "the proofs of the codec use more of it")]
mod source;
#[path = "it/support/mod.rs"]
mod support;

/// Bugs met so far by any thread: a connection's task that panics is ended quietly by the runtime.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn run(seed: u64, test: impl AsyncFnOnce(World)) {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            usual(info);
        }));
    });
    support::run(async {
        test(World::new(seed).await).await;
    });
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "a request met a bug");
}

struct World {
    env: Env,
    random: SimRandom,
    life: Life,
    /// What ApiVersions tells: key and versions.
    served: Vec<(ApiKey, i16, i16)>,
}

impl World {
    async fn new(seed: u64) -> World {
        let env = Env::sim(seed);
        let settings = ["listeners=PLAINTEXT://127.0.0.1:9092", "offsets.topic.num.partitions=3"];
        let life = Life::start(&env, &settings).await;
        let mut world = World { env, random: SimRandom::new(seed), life, served: Vec::new() };
        world.served = world.ask_versions().await;
        world
    }

    async fn connect(&self) -> Box<dyn Stream> {
        self.env.network.connect("127.0.0.1:9092").await.expect("the broker listens")
    }

    /// Asks as a good client does, over a connection of its own.
    async fn ask_versions(&self) -> Vec<(ApiKey, i16, i16)> {
        let mut stream = self.connect().await;
        let request =
            ApiVersionsRequest { client_software_name: "test".into(), client_software_version: "1".into() };
        send(&mut *stream, &request_frame(7, None, 3, &request).unwrap()).await;
        let answer = receive(&mut *stream).await.expect("an answer");
        let mut reader = Reader::new(&answer);
        assert_eq!(reader.i32(), Ok(7), "the correlation id");
        let response = ApiVersionsResponse::decode(&mut reader, 3).unwrap();
        let known = response.api_keys.iter().map(|api| {
            let key = ApiKey::from_code(api.api_key).expect("a key we speak");
            (key, api.min_version.max(key.versions().min), api.max_version)
        });
        known.collect()
    }

    fn below(&self, bound: usize) -> usize {
        self.random.below(bound as u64) as usize
    }

    /// A whole random request of an API that is served.
    fn random_request(&self) -> Vec<u8> {
        let (key, min, max) = self.served[self.below(self.served.len())];
        let version = min + self.below((max - min + 1) as usize) as i16;
        let mut choices = vec![0; self.below(400)];
        self.random.fill(&mut choices);
        sample_request(key, version, &choices)
    }
}

fn framed<'a, R: Sample + RequestMessage<'a>>(version: i16, choices: &[u8]) -> Vec<u8> {
    let body = R::sample(&mut Source::new(choices), version);
    match request_frame(1, Some("hostile"), version, &body) {
        Ok(frame) => frame.to_vec(),
        // A sample may be longer than its field can say.
        Err(_) => Vec::new(),
    }
}

macro_rules! sample_any {
    ($($key:ident $request:ident)+) => {
        fn sample_request(key: ApiKey, version: i16, choices: &[u8]) -> Vec<u8> {
            match key {
                $(ApiKey::$key => framed::<$request>(version, choices),)+
                other => panic!("{other} is served but not tested: add it to the list"),
            }
        }
    };
}

sample_any! {
    Produce ProduceRequest
    Fetch FetchRequest
    ListOffsets ListOffsetsRequest
    Metadata MetadataRequest
    OffsetCommit OffsetCommitRequest
    OffsetFetch OffsetFetchRequest
    FindCoordinator FindCoordinatorRequest
    JoinGroup JoinGroupRequest
    Heartbeat HeartbeatRequest
    LeaveGroup LeaveGroupRequest
    SyncGroup SyncGroupRequest
    DescribeGroups DescribeGroupsRequest
    ListGroups ListGroupsRequest
    ApiVersions ApiVersionsRequest
    CreateTopics CreateTopicsRequest
    DeleteTopics DeleteTopicsRequest
    DeleteRecords DeleteRecordsRequest
    InitProducerId InitProducerIdRequest
    OffsetForLeaderEpoch OffsetForLeaderEpochRequest
    DescribeConfigs DescribeConfigsRequest
    AlterConfigs AlterConfigsRequest
    CreatePartitions CreatePartitionsRequest
    DeleteGroups DeleteGroupsRequest
    ElectLeaders ElectLeadersRequest
    IncrementalAlterConfigs IncrementalAlterConfigsRequest
    AlterPartitionReassignments AlterPartitionReassignmentsRequest
    ListPartitionReassignments ListPartitionReassignmentsRequest
    OffsetDelete OffsetDeleteRequest
    DescribeLogDirs DescribeLogDirsRequest
    DescribeQuorum DescribeQuorumRequest
    DescribeCluster DescribeClusterRequest
    DescribeTopicPartitions DescribeTopicPartitionsRequest
    UnregisterBroker UnregisterBrokerRequest
}

#[test]
fn random_requests_are_answered_or_end_their_connection() {
    run(1, async |world| {
        let mut stream = world.connect().await;
        let (mut answered, mut closed) = (0, 0);
        for _ in 0..4_000 {
            let request = world.random_request();
            send(&mut *stream, &request).await;
            // Half-closed: Produce with acks=0 has no answer, and the end of the stream says so.
            let _ = stream.shutdown().await;
            match receive(&mut *stream).await {
                Some(_) => answered += 1,
                None => closed += 1,
            }
            stream = world.connect().await;
        }
        assert!(answered > 2_000 && closed > 0, "{answered} answered, {closed} closed");
        assert_eq!(world.ask_versions().await, world.served);
    });
}

#[test]
fn lengths_of_two_gigabytes_and_truncated_requests_cost_nothing() {
    let spent = allocation_counter::measure(|| {
        run(2, async |world| {
            for _ in 0..300 {
                let good = world.random_request();
                if good.len() < 12 {
                    continue;
                }
                let at = 8 + world.below(good.len() - 8);
                let huge: &[u8] = match world.below(3) {
                    0 => &[0x7f, 0xff, 0xff, 0xff],
                    1 => &[0xff, 0xff, 0xff, 0xff, 0x07],
                    _ => &[0x7f, 0xff],
                };
                let mut bad = good.clone();
                bad.splice(at..(at + huge.len()).min(good.len()), huge.iter().copied());
                let mut cut = good[..at].to_vec();
                for frame in [&mut bad, &mut cut] {
                    let size = (frame.len() - 4) as i32;
                    frame[..4].copy_from_slice(&size.to_be_bytes());
                    let mut stream = world.connect().await;
                    send(&mut *stream, frame).await;
                    let _ = stream.shutdown().await;
                    receive(&mut *stream).await;
                }
            }
            assert_eq!(world.ask_versions().await, world.served);
        });
    });
    assert!(spent.bytes_max < 16 << 20, "{spent:?}");
}

#[test]
fn noise_behind_a_good_header_is_answered_or_ends_its_connection() {
    run(3, async |world| {
        for (key, min, max) in world.served.clone() {
            for version in min..=max {
                for _ in 0..20 {
                    let mut noise = vec![0; world.below(200)];
                    world.random.fill(&mut noise);
                    let mut writer = Writer::new();
                    let header = RequestHeader {
                        request_api_key: key.code(),
                        request_api_version: version,
                        correlation_id: 1,
                        client_id: None,
                    };
                    Message::encode(&header, &mut writer, key.request_header_version(version)).unwrap();
                    let body = [writer.to_vec(), noise].concat();
                    let mut stream = world.connect().await;
                    send(&mut *stream, &[&(body.len() as i32).to_be_bytes()[..], &body].concat()).await;
                    let _ = stream.shutdown().await;
                    receive(&mut *stream).await;
                }
            }
        }
        assert_eq!(world.ask_versions().await, world.served);
    });
}

#[test]
fn versions_and_apis_that_are_not_served_close_but_for_api_versions() {
    run(4, async |world| {
        let raw = |key: i16, version: i16| {
            let mut body = [key.to_be_bytes(), version.to_be_bytes()].concat();
            body.extend([0, 0, 0, 9, 0xff, 0xff, 0]);
            [&(body.len() as i32).to_be_bytes()[..], &body].concat()
        };
        for (key, version) in [(0, 2), (0, 14), (3, 14), (3, -1), (4, 0), (17, 1), (68, 1), (999, 0), (-1, 0)]
        {
            let mut stream = world.connect().await;
            send(&mut *stream, &raw(key, version)).await;
            assert_eq!(receive(&mut *stream).await, None, "key {key} version {version}");
        }
        for version in [5, 99, i16::MAX, -1] {
            let mut stream = world.connect().await;
            send(&mut *stream, &raw(18, version)).await;
            let answer = receive(&mut *stream).await.expect("an answer");
            // Version 0: correlation id, error 35, one API, which is this one.
            assert_eq!(answer, [0, 0, 0, 9, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4], "version {version}");
        }
    });
}

#[test]
fn the_end_of_a_broker_answers_those_who_wait() {
    run(5, async |world| {
        let join = |member_id: String| JoinGroupRequest {
            group_id: "g".into(),
            session_timeout_ms: 30_000,
            rebalance_timeout_ms: 300_000,
            member_id: member_id.into(),
            protocol_type: "consumer".into(),
            protocols: vec![Default::default()],
            ..Default::default()
        };
        let mut stream = world.connect().await;
        let find = FindCoordinatorRequest { key: "g".into(), ..Default::default() };
        send(&mut *stream, &request_frame(1, None, 3, &find).unwrap()).await;
        receive(&mut *stream).await.expect("a coordinator");
        send(&mut *stream, &request_frame(2, None, 5, &join(String::new())).unwrap()).await;
        let answer = receive(&mut *stream).await.expect("a member id");
        let response = JoinGroupResponse::decode(&mut Reader::new(&answer[4..]), 5).unwrap();
        let member_id = response.member_id.into_owned();
        let mut fetching = world.connect().await;
        let name = || metadata_request::MetadataRequestTopic { name: Some("t".into()), ..Default::default() };
        let create = MetadataRequest { topics: Some(vec![name()]), ..Default::default() };
        send(&mut *fetching, &request_frame(5, None, 4, &create).unwrap()).await;
        receive(&mut *fetching).await.expect("a topic");
        let partition = fetch_request::FetchPartition { partition_max_bytes: 1_000, ..Default::default() };
        let topic = fetch_request::FetchTopic {
            topic: "t".into(),
            partitions: vec![partition],
            ..Default::default()
        };
        let fetch =
            FetchRequest { max_wait_ms: 200_000, min_bytes: 1, topics: vec![topic], ..Default::default() };
        send(&mut *fetching, &request_frame(3, None, 4, &fetch).unwrap()).await;
        send(&mut *stream, &request_frame(4, None, 5, &join(member_id)).unwrap()).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let mut byte = [0];
        assert!(
            stream.read(&mut byte).now_or_never().is_none()
                && fetching.read(&mut byte).now_or_never().is_none()
        );
        let began = world.env.clock.now();
        world.life.broker.shutdown().await;
        assert!((world.env.clock.now() - began).as_secs() < 5, "it did not wait for them");
        assert!(receive(&mut *stream).await.is_some() && receive(&mut *fetching).await.is_some());
        assert_eq!(receive(&mut *stream).await, None);
    });
}
