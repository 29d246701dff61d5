//! Produce (0), versions 3 to 13: take one batch for each partition named.
//!
//! All batches are checked and queued before anything is waited for, so that requests of one connection
//! reach the logs in order however many are in flight. An answer promises what `acks` and the topic's
//! durability class say: in class *fsync* both acks=1 and acks=all wait for the sync round, because an
//! acknowledged record survives power loss; acks=all waits for all members of the open segment. acks=0 has no answer; an error closes the connection, as
//! in Kafka, because the producer has no other way to learn of it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::batch::Rejection;
use base::config::Durability;
use base::error::ErrorCode;
use base::ids::{Offset, TimestampMs};
use replication::Wait;
use tokio::sync::oneshot;
use wire::message::produce_request::PartitionProduceData;
use wire::message::produce_response::{LeaderIdAndEpoch, NodeEndpoint};
use wire::message::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
    TopicProduceResponse,
};

use super::cluster::{self, BrokerView};
use super::leaders::Leaders;
use super::{Close, RequestContext};
use crate::partition::{self, AppendFailure, Appended, Partition, append_code};
use crate::session::TopicKey;
use crate::turns::Turns;

/// Version from which topics are named by id (KIP-516).
const TOPIC_ID_VERSION: i16 = 13;

/// Version from which an answer names leaders and where they are reached (KIP-951).
const LEADER_VERSION: i16 = 10;

/// Shortest time a batch gets to reach the disk. Kafka's timeout is about copies on other brokers; what its own disk
/// takes it waits for, and so a client may well ask for no time at all.
const TIMEOUT_MIN: Duration = Duration::from_secs(5);

/// A partition of the request on its way.
enum Begun {
    Refused(Refusal),
    Queued { partition: Arc<Partition>, answer: oneshot::Receiver<Result<Appended, AppendFailure>> },
}

struct Refusal {
    code: ErrorCode,
    message: Option<String>,
    records: Vec<(i32, String)>,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Refusal {
        Refusal { code, message: None, records: Vec::new() }
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Refusal {
        let records = rejection.records.iter().map(|record| (record.index, record.to_string())).collect();
        Refusal { code: rejection.code, message: Some(rejection.message), records }
    }
}

/// Answers the request; `None` for acks=0.
pub(crate) async fn handle<'a>(
    context: &RequestContext<'_>,
    request: ProduceRequest<'a>,
) -> Result<Option<ProduceResponse<'a>>, Close> {
    let now_ms = context.broker.env.clock.wall_ms();
    let timeout = Duration::from_millis(request.timeout_ms.max(0) as u64).max(TIMEOUT_MIN);
    let deadline = context.broker.env.clock.now() + timeout;
    let begin = |topic: &TopicProduceData<'a>, data: &PartitionProduceData<'a>| {
        let begun = begin(context, &request, topic, data.index, data.records, now_ms);
        (data.index, begun.unwrap_or_else(Begun::Refused))
    };
    let begin = |topic: &TopicProduceData<'a>| -> Vec<_> {
        topic.partition_data.iter().map(|data| begin(topic, data)).collect()
    };
    // All of them, before anything is waited for.
    let begun: Vec<_> = request.topic_data.iter().map(begin).collect();
    let mut failed = None;
    let mut turns = Turns::default();
    let mut responses = Vec::<TopicProduceResponse<'_>>::with_capacity(begun.len());
    // As in Kafka a topic that is named twice is answered once, and one without partitions not at all.
    let (may_repeat, mut places) = (begun.len() > 1, HashMap::new());
    for (topic, begun) in request.topic_data.into_iter().zip(begun).filter(|(_, begun)| !begun.is_empty()) {
        let mut partition_responses = Vec::with_capacity(begun.len());
        for (index, begun) in begun {
            turns.done(1).await;
            let response = finish(context, index, begun, deadline).await;
            if response.error_code != 0 {
                failed = Some(ErrorCode::from_code(response.error_code));
                context.broker.metrics_of(&topic.name).produce_failed();
            }
            partition_responses.push(response);
        }
        let (name, topic_id) = (topic.name, topic.topic_id);
        let next = responses.len();
        let place = if may_repeat { *places.entry((name.clone(), topic_id)).or_insert(next) } else { next };
        match responses.get_mut(place) {
            Some(earlier) => earlier.partition_responses.append(&mut partition_responses),
            None => responses.push(TopicProduceResponse { name, topic_id, partition_responses }),
        }
    }
    let leaders = name_leaders(context, &mut responses);
    if request.acks != 0 {
        let node_endpoints = leaders.into_iter().map(endpoint).collect();
        return Ok(Some(ProduceResponse { responses, node_endpoints, ..ProduceResponse::default() }));
    }
    match failed {
        None => Ok(None),
        Some(code) => Err(Close::because(format!("Produce with acks=0 failed with {code}"))),
    }
}

/// Names the leader of each partition that another broker leads. Returns where they are reached.
fn name_leaders(context: &RequestContext<'_>, responses: &mut [TopicProduceResponse<'_>]) -> Vec<BrokerView> {
    if context.api_version < LEADER_VERSION {
        return Vec::new();
    }
    let mut leaders = Leaders::new(context.broker.image());
    for topic in responses {
        let is_elsewhere = |response: &PartitionProduceResponse<'_>| {
            response.error_code == ErrorCode::NotLeaderOrFollower.code()
        };
        if !topic.partition_responses.iter().any(is_elsewhere) {
            continue;
        }
        let key = match context.api_version {
            TOPIC_ID_VERSION.. => TopicKey::Id(topic.topic_id),
            _ => TopicKey::Name(Arc::from(&*topic.name)),
        };
        for response in topic.partition_responses.iter_mut().filter(|response| is_elsewhere(response)) {
            let leader = leaders.of(&key, response.index);
            response.current_leader = LeaderIdAndEpoch { leader_id: leader.id, leader_epoch: leader.epoch };
        }
    }
    leaders.endpoints(|image| cluster::brokers(context, image))
}

fn endpoint(broker: BrokerView) -> NodeEndpoint<'static> {
    NodeEndpoint {
        node_id: broker.id,
        host: Cow::Owned(broker.address.host),
        port: i32::from(broker.address.port),
        rack: broker.rack.map(Cow::Owned),
    }
}

/// Checks what came for one partition and queues it.
fn begin(
    context: &RequestContext<'_>,
    request: &ProduceRequest<'_>,
    topic: &TopicProduceData<'_>,
    index: i32,
    records: Option<&[u8]>,
    now_ms: TimestampMs,
) -> Result<Begun, Refusal> {
    let partition = if context.api_version >= TOPIC_ID_VERSION {
        context.broker.partition_by_id(topic.topic_id, index)?
    } else {
        context.broker.partition(&topic.name, index)?
    };
    if !matches!(request.acks, -1..=1) {
        return Err(ErrorCode::InvalidRequiredAcks.into());
    }
    if context.broker.is_internal(&partition.topic) {
        // Only the broker itself writes group state; a client that could would forge commits.
        return Err(ErrorCode::InvalidTopicException.into());
    }
    let settings = partition.log.settings();
    if request.acks == -1 && partition.has_too_few_copies() {
        return Err(ErrorCode::NotEnoughReplicas.into());
    }
    let records = records.map(|records| context.frame.slice_ref(records));
    let prepared = partition::produced(records, context.api_version, &settings, now_ms)?;
    if prepared.is_transactional() {
        // No transaction can be open: transactions are not served.
        return Err(ErrorCode::InvalidTxnState.into());
    }
    partition.metrics.produced(prepared.record_count() as u64, prepared.size() as u64);
    let wait = match (request.acks, settings.durability) {
        (-1, _) => Wait::Committed,
        (1, Durability::Fsync) => Wait::Own,
        _ => Wait::No,
    };
    let answer = partition.append(prepared, wait);
    Ok(Begun::Queued { partition, answer })
}

async fn finish(
    context: &RequestContext<'_>,
    index: i32,
    begun: Begun,
    deadline: Duration,
) -> PartitionProduceResponse<'static> {
    let (partition, answer) = match begun {
        Begun::Refused(refusal) => return refused(index, refusal),
        Begun::Queued { partition, answer } => (partition, answer),
    };
    let written = async {
        let mut appended = match answer.await.map_err(|_| ErrorCode::NotLeaderOrFollower)? {
            Ok(appended) => appended,
            // In a box of its own: it is rare, and would make every request larger.
            Err(failure) => return Err(Box::pin(refusal_of(&partition, &failure)).await),
        };
        if let Some(committed) = appended.committed.take() {
            let committed = committed.await.map_err(|_| ErrorCode::NotLeaderOrFollower)?;
            committed.map_err(|error| append_code(&error.into()))?;
        }
        Ok((appended.base_offset, appended.log_append_time_ms))
    };
    let written = tokio::select! {
        biased;
        written = written => written,
        // What is written already takes no timer.
        () = async { context.broker.env.clock.sleep_until(deadline).await } => Err(ErrorCode::RequestTimedOut),
    };
    match written {
        Ok((base_offset, log_append_time_ms)) => PartitionProduceResponse {
            index,
            base_offset,
            log_append_time_ms,
            log_start_offset: partition.log.log_start(),
            ..PartitionProduceResponse::default()
        },
        Err(code) => refused(index, code.into()),
    }
}

/// What the client hears of a batch that was not appended. That its producer is unknown here or has gone on says nothing
/// where another broker may lead by now and have taken what is missing here; and clients give up when they hear it.
async fn refusal_of(partition: &Partition, failure: &AppendFailure) -> ErrorCode {
    match failure {
        AppendFailure::Producer(_) if !partition.log.confirm_lead().await => ErrorCode::NotLeaderOrFollower,
        failure => failure.code(),
    }
}

fn refused(index: i32, refusal: Refusal) -> PartitionProduceResponse<'static> {
    const NONE: Offset = -1;
    let record_errors = refusal.records.into_iter().map(|(batch_index, message)| BatchIndexAndErrorMessage {
        batch_index,
        batch_index_error_message: Some(Cow::Owned(message)),
    });
    PartitionProduceResponse {
        index,
        error_code: refusal.code.code(),
        base_offset: NONE,
        log_append_time_ms: -1,
        log_start_offset: NONE,
        record_errors: record_errors.collect(),
        error_message: refusal.message.map(Cow::Owned),
        ..PartitionProduceResponse::default()
    }
}
