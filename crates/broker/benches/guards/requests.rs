//! The requests whose cost is guarded. Each is made ready as a number of frames, so that sending them costs the
//! client next to nothing, and its answers are checked: a refused request would be cheap.

use std::path::Path;

use base::batch::BatchBuilder;
use base::env::sim::START_WALL_MS;
use base::ids::TopicId;
use wire::message::fetch_request::{FetchPartition, FetchTopic};
use wire::message::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use wire::message::produce_request::{PartitionProduceData, TopicProduceData};
use wire::message::*;

use crate::machine::{Machine, frame};

/// The requests there are.
pub(crate) const NAMES: [&str; 11] = [
    "api-versions",
    "produce-1",
    "produce-10",
    "produce-100",
    "produce-1-fsync",
    "produce-100-fsync",
    "fetch-1",
    "fetch-100",
    "fetch-100-partitions",
    "offset-commit",
    "metadata-10000",
];

/// Requests sent before counting begins: files are open then, buffers have grown and sessions exist.
pub(crate) const WARM_UP: usize = 14;
/// Requests counted.
pub(crate) const COUNTED: usize = 50;

/// Records of a batch.
const RECORDS: i32 = 10;
/// Bytes of a record's value; a batch has about a kilobyte.
const VALUE_BYTES: usize = 100;
/// Acknowledged once written, and durable after that, as in Kafka.
const PAGE_CACHE: &str = "vltava.durability=page-cache";
const API_VERSIONS: i16 = 4;
const METADATA: i16 = 13;
const CREATE_TOPICS: i16 = 7;
const PRODUCE: i16 = 13;
const FETCH: i16 = 17;
const OFFSET_COMMIT: i16 = 9;

/// A broker and what is sent to it.
pub(crate) struct Requests {
    machine: Machine,
    frames: Vec<Vec<u8>>,
    sent: usize,
    check: fn(&Machine),
}

impl Requests {
    /// Starts a broker on an empty folder and makes the requests of this name ready.
    ///
    /// # Panics
    /// When the name is not one of [`NAMES`].
    pub(crate) async fn prepare(name: &str, folder: &Path) -> Requests {
        let (settings, batches): (&[&str], usize) = match name {
            "produce-1" => (&[PAGE_CACHE], 1),
            "produce-10" => (&[PAGE_CACHE], 10),
            "produce-100" => (&[PAGE_CACHE], 100),
            _ => (&[], 0),
        };
        let mut machine = Machine::start(folder, settings).await;
        let (frames, check): (_, fn(&Machine)) = match name {
            "api-versions" => (api_versions(), check_api_versions),
            "produce-1" | "produce-10" | "produce-100" => {
                (produce(&mut machine, batches).await, check_produce)
            }
            "produce-1-fsync" => (produce(&mut machine, 1).await, check_produce),
            "produce-100-fsync" => (produce(&mut machine, 100).await, check_produce),
            "fetch-1" => (fetch(&mut machine, 1, 1).await, check_fetch::<1>),
            "fetch-100" => (fetch(&mut machine, 1, 100).await, check_fetch::<100>),
            "fetch-100-partitions" => (fetch(&mut machine, 100, 1).await, check_fetch::<100>),
            "offset-commit" => (offset_commit(&mut machine).await, check_offset_commit),
            "metadata-10000" => (metadata(&mut machine).await, check_metadata),
            _ => panic!("there are no requests `{name}`"),
        };
        Requests { machine, frames, sent: 0, check }
    }

    /// Sends the next so many requests, each after the answer to the one before.
    pub(crate) async fn send(&mut self, count: usize) {
        for frame in &self.frames[self.sent..self.sent + count] {
            self.machine.exchange(frame).await;
        }
        self.sent += count;
    }

    /// Looks whether the last answer is as it should be.
    ///
    /// # Panics
    /// When it is not.
    pub(crate) fn check(&self) {
        (self.check)(&self.machine);
    }
}

/// As many frames as are sent; each is given its number.
fn frames(frame: impl Fn(usize) -> Vec<u8>) -> Vec<Vec<u8>> {
    (0..WARM_UP + COUNTED).map(frame).collect()
}

async fn create_topic(machine: &mut Machine, name: &str, partitions: usize) -> TopicId {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: partitions as i32,
        replication_factor: 1,
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    let created = machine.ask(CREATE_TOPICS, &request, |response| {
        let topic = &response.topics[0];
        (topic.error_code, topic.topic_id)
    });
    let (code, id) = created.await;
    assert_eq!(code, 0, "the topic {name} is not created");
    id
}

/// What every connection begins with; little more than the cost of any request.
fn api_versions() -> Vec<Vec<u8>> {
    let request =
        ApiVersionsRequest { client_software_name: "guard".into(), client_software_version: "1".into() };
    frames(|_| frame(API_VERSIONS, &request))
}

fn check_api_versions(machine: &Machine) {
    machine.answer::<ApiVersionsRequest<'_>, _>(API_VERSIONS, |response| {
        assert_eq!(response.error_code, 0);
        assert!(response.api_keys.len() > 20);
    });
}

/// As a Kafka producer does by default: idempotent, acks=all; one batch for each of so many partitions.
async fn produce(machine: &mut Machine, partitions: usize) -> Vec<Vec<u8>> {
    let topic = create_topic(machine, "produced", partitions).await;
    let init = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
    };
    let producer = machine.ask(4, &init, |response| (response.error_code, response.producer_id)).await;
    assert_eq!(producer.0, 0, "no producer id");
    frames(|number| produce_frame(topic, partitions, &batch(producer.1, number)))
}

/// The batch of a producer with this number; sequences follow each other.
fn batch(producer: i64, number: usize) -> Vec<u8> {
    let mut batch = BatchBuilder::new().producer(producer, 0, number as i32 * RECORDS);
    for _ in 0..RECORDS {
        batch.append(START_WALL_MS, None, Some(&[b'v'; VALUE_BYTES]));
    }
    batch.finish().expect("a batch of a few records")
}

fn produce_frame(topic_id: TopicId, partitions: usize, batch: &[u8]) -> Vec<u8> {
    let data = |index| PartitionProduceData { index: index as i32, records: Some(batch) };
    let partition_data = (0..partitions).map(data).collect();
    let topic = TopicProduceData { topic_id, partition_data, ..Default::default() };
    let request =
        ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() };
    frame(PRODUCE, &request)
}

fn check_produce(machine: &Machine) {
    machine.answer::<ProduceRequest<'_>, _>(PRODUCE, |response| {
        let answers = response.responses.iter().flat_map(|topic| &topic.partition_responses);
        for answer in answers {
            assert_eq!(answer.error_code, 0, "partition {}", answer.index);
            assert_eq!(answer.base_offset % i64::from(RECORDS), 0);
        }
        assert!(!response.responses.is_empty());
    });
}

/// As a Kafka consumer does: in a session, each request names the partitions that gave records before. Reads so many
/// batches from each of so many partitions.
async fn fetch(machine: &mut Machine, partitions: usize, batches: usize) -> Vec<Vec<u8>> {
    let topic_id = create_topic(machine, "fetched", partitions).await;
    // Without a producer id; there is nothing to be said about that here.
    const STORED: usize = WARM_UP + COUNTED + 1;
    for _ in 0..STORED.max(batches) {
        machine.exchange(&produce_frame(topic_id, partitions, &batch(-1, 0))).await;
        check_produce(machine);
    }
    let batch_bytes = batch(-1, 0).len() as i32;
    let request = |session_id, session_epoch, number: usize| {
        let offset = if batches == 1 { number as i64 * i64::from(RECORDS) } else { 0 };
        let partition = |partition| FetchPartition {
            partition: partition as i32,
            fetch_offset: offset,
            current_leader_epoch: -1,
            partition_max_bytes: batch_bytes * batches as i32,
            ..Default::default()
        };
        let topic = FetchTopic {
            topic_id,
            partitions: (0..partitions).map(partition).collect(),
            ..Default::default()
        };
        FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 50 << 20,
            session_id,
            session_epoch,
            topics: vec![topic],
            ..Default::default()
        }
    };
    let session = machine.ask(FETCH, &request(0, 0, 0), |response| response.session_id).await;
    assert_ne!(session, 0, "no session");
    frames(|number| frame(FETCH, &request(session, number as i32 + 1, number)))
}

fn check_fetch<const BATCHES: usize>(machine: &Machine) {
    machine.answer::<FetchRequest<'_>, _>(FETCH, |response| {
        assert_eq!(response.error_code, 0);
        let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
        let mut bytes = 0;
        for partition in partitions {
            assert_eq!(partition.error_code, 0);
            bytes += partition.records.len();
        }
        assert_eq!(bytes, BATCHES * batch(-1, 0).len());
    });
}

/// As a consumer without group management does, of one partition.
async fn offset_commit(machine: &mut Machine) -> Vec<Vec<u8>> {
    create_topic(machine, "committed", 1).await;
    // This creates the topic of offsets.
    let find = FindCoordinatorRequest { coordinator_keys: vec!["group".into()], ..Default::default() };
    let code = machine.ask(4, &find, |response| response.coordinators[0].error_code).await;
    assert_eq!(code, 0, "no coordinator");
    let commit = |number: usize| {
        let partition = OffsetCommitRequestPartition {
            committed_offset: number as i64,
            committed_metadata: Some("".into()),
            ..Default::default()
        };
        let topic = OffsetCommitRequestTopic {
            name: "committed".into(),
            partitions: vec![partition],
            ..Default::default()
        };
        frame(
            OFFSET_COMMIT,
            &OffsetCommitRequest { group_id: "group".into(), topics: vec![topic], ..Default::default() },
        )
    };
    frames(commit)
}

fn check_offset_commit(machine: &Machine) {
    machine.answer::<OffsetCommitRequest<'_>, _>(OFFSET_COMMIT, |response| {
        assert_eq!(response.topics[0].partitions[0].error_code, 0);
    });
}

/// All topics: a hundred with a hundred partitions each.
async fn metadata(machine: &mut Machine) -> Vec<Vec<u8>> {
    for number in 0..100 {
        create_topic(machine, &format!("topic-{number}"), 100).await;
    }
    frames(|_| frame(METADATA, &MetadataRequest { topics: None, ..Default::default() }))
}

fn check_metadata(machine: &Machine) {
    machine.answer::<MetadataRequest<'_>, _>(METADATA, |response| {
        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        assert_eq!(partitions.filter(|partition| partition.error_code == 0).count(), 10_000);
    });
}
