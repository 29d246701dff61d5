//! A broker of one topic for this crate's tests: it keeps what it is sent, sorts out repeated batches as
//! Kafka does, and misbehaves on demand.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::batch::{BatchView, DecompressBuffer, next_sequence, stamp};
use base::env::{Env, Run, Stream};
use base::error::ErrorCode;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use wire::message::fetch_response::PartitionData;
use wire::message::{
    ApiVersion, ApiVersionsResponse, FetchRequest, FetchResponse, FetchableTopicResponse,
    InitProducerIdResponse, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse, MetadataRequest, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic, PartitionProduceResponse, ProduceRequest,
    ProduceResponse, TopicProduceResponse,
};
use wire::{ApiKey, FrameHead, Payload, Reader, in_memory, response_frame};

/// Name of its topic.
pub(crate) const TOPIC: &str = "t";

/// What the broker does wrong with one Produce request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Answers with an error and keeps nothing.
    Refuse(ErrorCode),
    /// Keeps the records and answers with an error.
    KeepAndRefuse(ErrorCode),
    /// Closes the connection and keeps nothing.
    Close,
    /// Keeps the records and closes the connection.
    KeepAndClose,
}

/// A running broker.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) address: String,
    pub(crate) state: Arc<Mutex<State>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

/// What it knows and how it behaves.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) logs: Vec<Log>,
    /// Faults of the Produce requests to come, first to last.
    pub(crate) faults: VecDeque<Option<Fault>>,
    /// The newest version of ApiVersions it knows.
    pub(crate) api_versions_max: i16,
    /// Requests it has read.
    pub(crate) requests: Vec<(ApiKey, i16)>,
    /// It reads and never answers.
    pub(crate) silent: bool,
    /// Partitions that nobody leads.
    pub(crate) leaderless: Vec<usize>,
    /// Metadata requests that allowed it to create topics.
    pub(crate) may_create: usize,
    next_producer_id: i64,
}

/// A partition.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) start: i64,
    pub(crate) end: i64,
    batches: Vec<Bytes>,
    /// Next sequence of a producer, and its last batches: first sequence and offset.
    producers: HashMap<i64, (i32, VecDeque<(i32, i64)>)>,
}

impl Log {
    fn append(&mut self, bytes: &[u8]) -> Result<i64, ErrorCode> {
        let batch = BatchView::parse(bytes).expect("clients build whole batches");
        batch.verify_crc().expect("and their CRC is right");
        batch.check_producer_header().expect("and they keep the rules");
        if batch.has_producer_id() {
            let known = self.producers.get(&batch.producer_id);
            if let Some((next, last)) = known {
                if let Some((_, offset)) = last.iter().find(|(first, _)| *first == batch.base_sequence) {
                    return Ok(*offset);
                }
                if *next != batch.base_sequence {
                    return Err(ErrorCode::OutOfOrderSequenceNumber);
                }
            }
            let (next, last) = self.producers.entry(batch.producer_id).or_default();
            *next = next_sequence(batch.base_sequence, batch.record_count);
            last.push_back((batch.base_sequence, self.end));
            if last.len() > 5 {
                last.pop_front();
            }
        }
        let head = stamp(batch.header_bytes(), self.end, 0);
        self.batches.push([&head[..], batch.payload()].concat().into());
        let offset = self.end;
        self.end += i64::from(batch.record_count);
        Ok(offset)
    }

    /// Values of all records, as text.
    pub(crate) fn values(&self) -> Vec<String> {
        let mut buffer = DecompressBuffer::new(1 << 30);
        let mut values = Vec::new();
        for bytes in &self.batches {
            let batch = BatchView::parse(bytes).expect("it was checked");
            for record in batch.records(&mut buffer).expect("it was checked") {
                let value = record.expect("it was checked").value.unwrap_or_default();
                values.push(String::from_utf8_lossy(value).into_owned());
            }
        }
        values
    }

    fn first_at(&self, timestamp: i64) -> Option<(i64, i64)> {
        let mut buffer = DecompressBuffer::new(1 << 30);
        for bytes in &self.batches {
            let batch = BatchView::parse(bytes).expect("it was checked");
            let mut records = batch.records(&mut buffer).expect("it was checked").flatten();
            if let Some(record) = records.find(|record| record.timestamp >= timestamp) {
                return Some((record.offset, record.timestamp));
            }
        }
        None
    }
}

impl Fake {
    /// A broker with an empty topic.
    pub(crate) async fn start(env: &Env, partitions: usize) -> Fake {
        let state = State {
            logs: (0..partitions).map(|_| Log::default()).collect(),
            api_versions_max: ApiKey::ApiVersions.versions().max,
            next_producer_id: 100,
            ..State::default()
        };
        let address = "127.0.0.1:0".to_owned();
        let mut fake = Fake { address, state: Arc::new(Mutex::new(state)), tasks: Arc::default() };
        fake.start_again(env).await;
        fake
    }

    /// Listens where it did before, with what it knew.
    pub(crate) async fn start_again(&mut self, env: &Env) {
        let mut listener = env.network.listen(self.address.parse().unwrap()).await.unwrap();
        self.address = listener.local_address().unwrap().to_string();
        let (serving, env) = (self.clone(), env.clone());
        self.tasks.lock().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = serving.clone().serve(env.clone(), stream);
                serving.tasks.lock().spawn(connection);
            }
        });
    }

    /// Cuts its connections and listens no more.
    pub(crate) async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
    }

    /// Values of one partition.
    pub(crate) fn values(&self, partition: usize) -> Vec<String> {
        self.state.lock().logs[partition].values()
    }

    async fn serve(self, env: Env, mut stream: Box<dyn Stream>) {
        while let Ok(size) = stream.read_u32().await {
            let mut frame = vec![0; size as usize];
            if stream.read_exact(&mut frame).await.is_err() {
                return;
            }
            let mut reader = Reader::new(&frame);
            let (head, header) = FrameHead::decode(&mut reader).expect("clients send whole requests");
            let (silent, wait) = {
                let mut state = self.state.lock();
                state.requests.push((head.api_key, head.version));
                (state.silent, state.fetch_wait(head, &mut reader.clone()))
            };
            if silent {
                continue;
            }
            env.clock.sleep(wait).await;
            let answer = self.answer(head, header.correlation_id, &mut reader);
            let Some(answer) = answer else { return };
            if stream.write_all(&in_memory(&answer).expect("all of it")).await.is_err() {
                return;
            }
        }
    }

    /// The frames of the answer; `None` closes the connection.
    fn answer(&self, head: FrameHead, correlation_id: i32, reader: &mut Reader<'_>) -> Option<Vec<Run>> {
        let version = head.version;
        let mut state = self.state.lock();
        let frame = match head.api_key {
            ApiKey::ApiVersions => {
                let (response, version) = state.versions(version);
                response_frame(correlation_id, version, &response)
            }
            ApiKey::Metadata => {
                let request = MetadataRequest::decode(reader, version).expect("a Metadata request");
                let names = request.topics.is_some_and(|topics| !topics.is_empty());
                state.may_create += usize::from(names && request.allow_auto_topic_creation);
                response_frame(correlation_id, version, &self.metadata(&state))
            }
            ApiKey::InitProducerId => {
                state.next_producer_id += 1;
                let producer_id = state.next_producer_id;
                let response =
                    InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() };
                response_frame(correlation_id, version, &response)
            }
            ApiKey::Produce => {
                let request = ProduceRequest::decode(reader, version).expect("a Produce request");
                let response = state.produce(&request)?;
                if request.acks == 0 {
                    return Some(Vec::new());
                }
                response_frame(correlation_id, version, &response)
            }
            ApiKey::Fetch => {
                let request = FetchRequest::decode(reader, version).expect("a Fetch request");
                response_frame(correlation_id, version, &state.fetch(&request))
            }
            ApiKey::ListOffsets => {
                let request = ListOffsetsRequest::decode(reader, version).expect("a ListOffsets request");
                response_frame(correlation_id, version, &state.list_offsets(&request))
            }
            other => panic!("the tests need no {other}"),
        };
        Some(frame.expect("the answer can be written"))
    }

    fn metadata(&self, state: &State) -> MetadataResponse<'static> {
        let (host, port) = self.address.rsplit_once(':').unwrap();
        let partition = |index| MetadataResponsePartition {
            partition_index: index as i32,
            leader_id: if state.leaderless.contains(&index) { -1 } else { 7 },
            replica_nodes: vec![7],
            isr_nodes: vec![7],
            ..Default::default()
        };
        MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: 7,
                host: host.to_owned().into(),
                port: port.parse().unwrap(),
                rack: None,
            }],
            cluster_id: Some("fake".into()),
            controller_id: 7,
            topics: vec![MetadataResponseTopic {
                name: Some(TOPIC.into()),
                partitions: (0..state.logs.len()).map(partition).collect(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }
}

impl State {
    /// A Fetch that finds nothing waits as long as it may.
    fn fetch_wait(&self, head: FrameHead, reader: &mut Reader<'_>) -> Duration {
        if head.api_key != ApiKey::Fetch {
            return Duration::ZERO;
        }
        let request = FetchRequest::decode(reader, head.version).expect("a Fetch request");
        let rows = request.topics.iter().flat_map(|topic| &topic.partitions);
        let nothing = |row: &wire::message::fetch_request::FetchPartition| {
            row.fetch_offset == self.logs[row.partition as usize].end
        };
        let waits = rows.into_iter().all(nothing);
        Duration::from_millis(if waits { request.max_wait_ms as u64 } else { 0 })
    }

    fn versions(&self, asked: i16) -> (ApiVersionsResponse<'static>, i16) {
        let known = asked <= self.api_versions_max;
        let row = |api: &ApiKey| {
            let max = if *api == ApiKey::ApiVersions { self.api_versions_max } else { api.versions().max };
            ApiVersion { api_key: api.code(), min_version: api.versions().min, max_version: max }
        };
        let response = ApiVersionsResponse {
            error_code: if known { 0 } else { ErrorCode::UnsupportedVersion.code() },
            api_keys: ApiKey::ALL.iter().map(row).collect(),
            ..Default::default()
        };
        (response, if known { asked } else { 0 })
    }

    fn produce(&mut self, request: &ProduceRequest<'_>) -> Option<ProduceResponse<'static>> {
        let fault = self.faults.pop_front().flatten();
        let keeps = !matches!(fault, Some(Fault::Refuse(_) | Fault::Close));
        let rows = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
        let partition = |row: &wire::message::produce_request::PartitionProduceData<'_>| {
            let log = &mut self.logs[row.index as usize];
            let kept = if keeps { log.append(row.records.unwrap_or_default()) } else { Ok(-1) };
            let (code, base_offset) = match (fault, kept) {
                (Some(Fault::Refuse(code) | Fault::KeepAndRefuse(code)), _) => (code, -1),
                (_, Ok(offset)) => (ErrorCode::None, offset),
                (_, Err(code)) => (code, -1),
            };
            let (index, error_code) = (row.index, code.code());
            PartitionProduceResponse { index, error_code, base_offset, ..Default::default() }
        };
        let mut partition_responses: Vec<_> = rows.map(partition).collect();
        if matches!(fault, Some(Fault::Close | Fault::KeepAndClose)) {
            return None;
        }
        // Nothing says that answers keep the order of the request.
        partition_responses.reverse();
        let topic = TopicProduceResponse { name: TOPIC.into(), partition_responses, ..Default::default() };
        Some(ProduceResponse { responses: vec![topic], ..Default::default() })
    }

    fn fetch(&self, request: &FetchRequest<'_>) -> FetchResponse<'static> {
        let rows = request.topics.iter().flat_map(|topic| &topic.partitions);
        let partition = |row: &wire::message::fetch_request::FetchPartition| {
            let log = &self.logs[row.partition as usize];
            let within = (log.start..=log.end).contains(&row.fetch_offset);
            let code = if within { ErrorCode::None } else { ErrorCode::OffsetOutOfRange };
            let wanted = |bytes: &&Bytes| {
                within && BatchView::parse(bytes).expect("it was checked").last_offset() >= row.fetch_offset
            };
            // A batch or two at a time, and a third cut in half, as a broker's size limit does.
            let mut chunks: Vec<Bytes> = log.batches.iter().filter(wanted).take(3).cloned().collect();
            if let Some(third) = chunks.get_mut(2) {
                *third = third.slice(..third.len() / 2);
            }
            PartitionData {
                partition_index: row.partition,
                error_code: code.code(),
                high_watermark: log.end,
                last_stable_offset: log.end,
                log_start_offset: log.start,
                records: Payload::from(chunks),
                ..Default::default()
            }
        };
        let partitions = rows.map(partition).collect();
        let topic = FetchableTopicResponse { topic: TOPIC.into(), partitions, ..Default::default() };
        FetchResponse { responses: vec![topic], ..Default::default() }
    }

    fn list_offsets(&self, request: &ListOffsetsRequest<'_>) -> ListOffsetsResponse<'static> {
        let partition = |row: &wire::message::list_offsets_request::ListOffsetsPartition| {
            let log = &self.logs[row.partition_index as usize];
            let (offset, timestamp) = match row.timestamp {
                -1 => (log.end, -1),
                -2 => (log.start, -1),
                timestamp => log.first_at(timestamp).unwrap_or((-1, -1)),
            };
            let partition_index = row.partition_index;
            ListOffsetsPartitionResponse { partition_index, timestamp, offset, ..Default::default() }
        };
        let rows = request.topics.iter().flat_map(|topic| &topic.partitions);
        let partitions = rows.map(partition).collect();
        let topic = ListOffsetsTopicResponse { name: TOPIC.into(), partitions };
        ListOffsetsResponse { topics: vec![topic], ..Default::default() }
    }
}
