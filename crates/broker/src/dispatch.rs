//! From frame to handler and back: the table of what is served.
//!
//! [`SERVED`] is the only place that says which APIs and versions there are: ApiVersions answers from it, requests
//! are judged by it, `docs/COMPAT.md` is made of it. What does not fit it closes the connection, as in Kafka:
//! the protocol has no answer for an API or version one does not speak. The one exception is ApiVersions itself
//! (KIP-511).

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use base::env::{BoxFuture, Stream};
use base::error::ErrorCode;
use base::metrics::ApiMetrics;
use bytes::Bytes;
use futures::FutureExt;
use wire::message::api_versions_response::ApiVersion;
use wire::message::*;
use wire::{ApiKey, DecodeError, FrameHead, Reader, ResponseMessage, VersionRange, response_frame};

use crate::api::{self, Close, ErrorCodes, RequestContext};
use crate::broker::Broker;
use crate::net::{ConnectionInfo, Held, Outcome, Pace, Service};
use crate::peers::serve_peer;

/// Elements of all arrays of a request together, most that are taken. It bounds what small elements become in
/// memory and in the answer, and how long a worker is busy with one request; some ten times what a client
/// of a node full of partitions sends.
const REQUEST_ELEMENTS_MAX: usize = 100_000;

/// What an answer that may be large is taken to hold while it is made, bytes: Metadata of some 10,000 partitions.
const BULKY_ANSWER_BYTES: usize = 1024 * 1024;

/// One API that is served.
pub(crate) struct Served {
    /// The API.
    pub(crate) key: ApiKey,
    /// What is answered.
    versions: VersionRange,
    /// The oldest version clients are told of, lower than what is answered where clients rely on it.
    told_min: i16,
    pace: Pace,
    /// An answer may be much larger than its request.
    bulky: bool,
    /// For people, in `docs/COMPAT.md`.
    note: &'static str,
    start: fn(Call) -> BoxFuture<'static, Outcome>,
}

impl Served {
    /// As ApiVersions tells it.
    pub(crate) fn advertised(&self) -> ApiVersion {
        ApiVersion { api_key: self.key.code(), min_version: self.told_min, max_version: self.versions.max }
    }

    const fn told_from(self, told_min: i16) -> Served {
        Served { told_min, ..self }
    }

    const fn pipelined(self) -> Served {
        Served { pace: Pace::Pipelined, ..self }
    }

    const fn bulky(self) -> Served {
        Served { bulky: true, ..self }
    }

    const fn note(self, note: &'static str) -> Served {
        Served { note, ..self }
    }
}

/// A row of the table: all versions `wire` knows, answered by `handle` of a module in [`crate::api`].
macro_rules! serve {
    ($module:ident, $key:ident, $request:ident) => {
        Served {
            key: ApiKey::$key,
            versions: ApiKey::$key.versions(),
            told_min: ApiKey::$key.versions().min,
            pace: Pace::Alone,
            bulky: false,
            note: "",
            start: |call| {
                async move {
                    let _held = call.admitted().await;
                    let mut reader = Reader::new(&call.frame).with_elements_max(REQUEST_ELEMENTS_MAX);
                    let opened = match FrameHead::decode(&mut reader) {
                        Ok((head, header)) => {
                            $request::decode(&mut reader, head.version).map(|request| (head, header, request))
                        }
                        Err(error) => Err(error),
                    };
                    let (head, header, request) = match opened {
                        Ok(opened) => opened,
                        Err(error) => return call.malformed(ApiKey::$key, &error),
                    };
                    let context = call.context(&head, &header);
                    let answer = api::$module::handle(&context, request).await;
                    call.finish(&head, &header, answer)
                }
                .boxed()
            },
        }
    };
}

/// Every API that is served, by key.
pub(crate) const SERVED: &[Served] = &[
    // Clients of librdkafka before 2.11.1 compress nothing when they are told of a newer minimum (KAFKA-18659).
    serve!(k00_produce, Produce, ProduceRequest)
        .pipelined()
        .told_from(0)
        .note("record batches of magic 2 only; no transactions"),
    serve!(k01_fetch, Fetch, FetchRequest),
    serve!(k02_list_offsets, ListOffsets, ListOffsetsRequest),
    serve!(k03_metadata, Metadata, MetadataRequest).bulky(),
    serve!(k08_offset_commit, OffsetCommit, OffsetCommitRequest),
    serve!(k09_offset_fetch, OffsetFetch, OffsetFetchRequest).bulky(),
    serve!(k10_find_coordinator, FindCoordinator, FindCoordinatorRequest).note("groups only"),
    serve!(k11_join_group, JoinGroup, JoinGroupRequest),
    serve!(k12_heartbeat, Heartbeat, HeartbeatRequest),
    serve!(k13_leave_group, LeaveGroup, LeaveGroupRequest),
    serve!(k14_sync_group, SyncGroup, SyncGroupRequest),
    serve!(k15_describe_groups, DescribeGroups, DescribeGroupsRequest).bulky(),
    serve!(k16_list_groups, ListGroups, ListGroupsRequest).bulky(),
    serve!(k18_api_versions, ApiVersions, ApiVersionsRequest)
        .note("no finalised features: none of the protocols they switch on is served"),
    serve!(k19_create_topics, CreateTopics, CreateTopicsRequest),
    serve!(k20_delete_topics, DeleteTopics, DeleteTopicsRequest),
    serve!(k21_delete_records, DeleteRecords, DeleteRecordsRequest),
    serve!(k22_init_producer_id, InitProducerId, InitProducerIdRequest).note("no transactional ids"),
    serve!(k23_offset_for_leader_epoch, OffsetForLeaderEpoch, OffsetForLeaderEpochRequest),
    serve!(k32_describe_configs, DescribeConfigs, DescribeConfigsRequest).bulky().note("topics and brokers"),
    serve!(k33_alter_configs, AlterConfigs, AlterConfigsRequest).note("topics and brokers"),
    serve!(k35_describe_log_dirs, DescribeLogDirs, DescribeLogDirsRequest)
        .bulky()
        .note("without open segments of partitions that another broker leads"),
    serve!(k37_create_partitions, CreatePartitions, CreatePartitionsRequest),
    serve!(k42_delete_groups, DeleteGroups, DeleteGroupsRequest),
    serve!(k43_elect_leaders, ElectLeaders, ElectLeadersRequest),
    serve!(k44_incremental_alter_configs, IncrementalAlterConfigs, IncrementalAlterConfigsRequest)
        .note("topics and brokers"),
    serve!(
        k45_alter_partition_reassignments,
        AlterPartitionReassignments,
        AlterPartitionReassignmentsRequest
    ),
    serve!(k46_list_partition_reassignments, ListPartitionReassignments, ListPartitionReassignmentsRequest)
        .bulky(),
    serve!(k47_offset_delete, OffsetDelete, OffsetDeleteRequest),
    serve!(k55_describe_quorum, DescribeQuorum, DescribeQuorumRequest).note("no observers"),
    serve!(k60_describe_cluster, DescribeCluster, DescribeClusterRequest),
    serve!(k64_unregister_broker, UnregisterBroker, UnregisterBrokerRequest)
        .note("refused while the broker runs or has copies"),
    serve!(k75_describe_topic_partitions, DescribeTopicPartitions, DescribeTopicPartitionsRequest).bulky(),
];

/// A request that has come, before it is decoded.
struct Call {
    broker: Arc<Broker>,
    connection: Arc<ConnectionInfo>,
    frame: Bytes,
    metrics: Arc<ApiMetrics>,
    /// See [`Served::bulky`].
    bulky: bool,
    /// When its last byte was read, on the environment's clock.
    came_at: Duration,
}

impl Call {
    /// Waits, if the answer may be a large one, until there is memory for it, and takes some.
    async fn admitted(&self) -> Option<Held> {
        if !self.bulky {
            return None;
        }
        self.broker.memory.room_for_answers().await;
        let mut held = self.broker.memory.answering();
        held.set(BULKY_ANSWER_BYTES);
        Some(held)
    }

    fn context<'a>(&'a self, head: &FrameHead, header: &'a RequestHeader<'a>) -> RequestContext<'a> {
        RequestContext {
            broker: &self.broker,
            connection: &self.connection,
            client_id: header.client_id.as_deref(),
            api_version: head.version,
            frame: &self.frame,
        }
    }

    fn malformed(&self, key: ApiKey, error: &DecodeError) -> Outcome {
        self.broker.metrics.node().connections_malformed.inc();
        Outcome::Close(format!("a {key} request cannot be read: {error}").into())
    }

    /// Turns what a handler gives into bytes, and counts it.
    fn finish(&self, head: &FrameHead, header: &RequestHeader<'_>, answer: impl Answer) -> Outcome {
        let outcome = answer.outcome(header.correlation_id, head.version, &self.metrics);
        self.metrics.answered(self.broker.env.clock.now().saturating_sub(self.came_at));
        outcome
    }
}

/// What a handler may give back.
trait Answer {
    fn outcome(self, correlation_id: i32, version: i16, metrics: &ApiMetrics) -> Outcome;
}

impl<'a, R: ResponseMessage<'a> + ErrorCodes> Answer for Result<R, Close> {
    fn outcome(self, correlation_id: i32, version: i16, metrics: &ApiMetrics) -> Outcome {
        match self {
            Ok(response) => encoded(correlation_id, version, &response, metrics),
            Err(Close(reason)) => Outcome::Close(reason),
        }
    }
}

/// Produce with acks=0 has no response.
impl Answer for Result<Option<ProduceResponse<'_>>, Close> {
    fn outcome(self, correlation_id: i32, version: i16, metrics: &ApiMetrics) -> Outcome {
        match self {
            Ok(None) => Outcome::Silence,
            Ok(Some(response)) => Ok(response).outcome(correlation_id, version, metrics),
            Err(close) => Err::<ProduceResponse<'_>, _>(close).outcome(correlation_id, version, metrics),
        }
    }
}

fn encoded<'a, R: ResponseMessage<'a> + ErrorCodes>(
    correlation_id: i32,
    version: i16,
    response: &R,
    metrics: &ApiMetrics,
) -> Outcome {
    response.each_error_code(&mut |code| {
        if code != ErrorCode::None.code() {
            metrics.error(ErrorCode::from_code(code));
        }
    });
    match response_frame(correlation_id, version, response) {
        Ok(runs) => Outcome::Answer(runs),
        Err(error) => {
            // A handler made something the version cannot say: a bug of ours, not of the client.
            tracing::error!(api = R::API_KEY.name(), version, %error, "an answer cannot be written");
            Outcome::Close("an answer cannot be written".into())
        }
    }
}

/// Answers the frames of all connections by the table.
pub(crate) struct Dispatcher {
    broker: Arc<Broker>,
    /// Of each row of the table.
    metrics: Vec<Arc<ApiMetrics>>,
}

impl Dispatcher {
    pub(crate) fn new(broker: Arc<Broker>) -> Dispatcher {
        let of = |served: &Served| broker.metrics.api(served.key.code(), served.key.name());
        Dispatcher { metrics: SERVED.iter().map(of).collect(), broker }
    }

    /// The row for a frame, or what becomes of it without one.
    fn find(&self, frame: &[u8]) -> Result<usize, Outcome> {
        let (Some(key), Some(version)) = (number_at(frame, 0), number_at(frame, 2)) else {
            return Err(self.unreadable("a request is too short for a header".to_owned()));
        };
        let Some(index) = served(key) else {
            let name = ApiKey::from_code(key).map_or("unknown", ApiKey::name);
            return Err(Outcome::Close(format!("API {key} ({name}) is not served").into()));
        };
        let served = &SERVED[index];
        if served.versions.contains(version) {
            return Ok(index);
        }
        if served.key == ApiKey::ApiVersions {
            return Err(self.unknown_api_versions(frame));
        }
        let (name, served) = (served.key.name(), served.versions);
        Err(Outcome::Close(format!("{name} version {version} is not served, {served} are").into()))
    }

    fn unreadable(&self, reason: String) -> Outcome {
        self.broker.metrics.node().connections_malformed.inc();
        Outcome::Close(reason.into())
    }

    fn unknown_api_versions(&self, frame: &[u8]) -> Outcome {
        const VERSION: i16 = 0;
        match FrameHead::decode(&mut Reader::new(frame)) {
            Err(error) => self.unreadable(format!("the header of a request cannot be read: {error}")),
            Ok((_, header)) => {
                let response = api::k18_api_versions::unknown_version();
                match response_frame(header.correlation_id, VERSION, &response) {
                    Ok(runs) => Outcome::Answer(runs),
                    Err(error) => self.unreadable(format!("an answer cannot be written: {error}")),
                }
            }
        }
    }
}

/// Where an API stands in the table.
fn served(key: i16) -> Option<usize> {
    SERVED.binary_search_by_key(&key, |served| served.key.code()).ok()
}

fn number_at(frame: &[u8], at: usize) -> Option<i16> {
    frame.get(at..)?.first_chunk().copied().map(i16::from_be_bytes)
}

impl Service for Dispatcher {
    fn pace(&self, frame: &[u8]) -> Pace {
        number_at(frame, 0).and_then(served).map_or(Pace::Alone, |index| SERVED[index].pace)
    }

    fn start(&self, connection: &Arc<ConnectionInfo>, frame: Bytes) -> BoxFuture<'static, Outcome> {
        let index = match self.find(&frame) {
            Ok(index) => index,
            Err(outcome) => return Box::pin(std::future::ready(outcome)),
        };
        (SERVED[index].start)(Call {
            broker: self.broker.clone(),
            connection: connection.clone(),
            frame,
            metrics: self.metrics[index].clone(),
            bulky: SERVED[index].bulky,
            came_at: self.broker.env.clock.now(),
        })
    }

    fn serve_peer(
        &self,
        connection: &Arc<ConnectionInfo>,
        stream: Box<dyn Stream>,
    ) -> BoxFuture<'static, ()> {
        let (peer, listener) = (connection.peer, connection.listener.name.clone());
        let is_for_brokers = self.broker.config().inter_broker_listener_name() == Some(&*listener);
        let (replicas, metadata) = (self.broker.peers.replicas.clone(), self.broker.metadata.clone());
        Box::pin(async move {
            if !is_for_brokers {
                tracing::warn!(%peer, listener, "a node calls on a listener that is not inter.broker.listener.name");
                return;
            }
            if let Err(error) = serve_peer(stream, replicas, metadata).await {
                tracing::info!(%peer, %error, "the stream of another node ended");
            }
        })
    }
}

/// The table of APIs for `docs/COMPAT.md`.
pub fn compat_markdown() -> String {
    let mut text = String::from("| key | API | versions | notes |\n|---|---|---|---|\n");
    for served in SERVED {
        let (key, name, versions) = (served.key.code(), served.key.name(), served.versions);
        let told = match served.told_min {
            min if min < versions.min => format!("; ApiVersions tells {min}-{}", versions.max),
            _ => String::new(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {key} | {name} | {versions}{told} | {} |", served.note);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_tells_what_is_answered() {
        assert!(SERVED.is_sorted_by_key(|served| served.key.code()));
        for row in SERVED {
            assert_eq!(served(row.key.code()).map(|index| SERVED[index].key), Some(row.key));
            let told = row.advertised();
            assert!(told.min_version <= row.versions.min && told.max_version == row.versions.max);
        }
    }

    #[test]
    fn only_produce_starts_behind_its_like() {
        let pipelined = SERVED.iter().filter(|row| row.pace == Pace::Pipelined).map(|row| row.key);
        assert_eq!(pipelined.collect::<Vec<_>>(), [ApiKey::Produce]);
    }

    #[test]
    fn the_page_has_a_line_for_each() {
        let page = compat_markdown();
        assert_eq!(page.lines().count(), SERVED.len() + 2);
        assert!(page.contains("| 0 | Produce | 3-13; ApiVersions tells 0-13 |"));
        assert!(page.contains("| 18 | ApiVersions | 0-4 |"));
    }
}
