//! ListOffsets (2), versions 1 to 11: offsets by place or by time.
//!
//! Special timestamps: -1 latest, -2 earliest, -3 the record with the largest timestamp (KIP-734), -4
//! earliest kept locally (KIP-405), -5 latest tiered (KIP-1005), -6 earliest not yet tiered (KIP-1023).
//! Nothing is tiered here: the earliest local offset is the earliest, and neither is there a latest tiered one
//! nor one that waits to be tiered. A partition that a request names twice is refused, and told once; one entry
//! of the answer has all that was asked of a topic.
//! A search by time finds the first record, inside compressed batches too, with at least the
//! timestamp asked for; none is offset -1, not an error.

use std::sync::Arc;

use base::error::ErrorCode;
use base::ids::{LeaderEpoch, Offset, TimestampMs};
use indexmap::IndexMap;
use replication::ReadError;
use wire::message::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};

use super::mentions::{Mention, Mentions};
use super::{Close, RequestContext};
use crate::partition::Partition;
use crate::turns::Turns;

const LATEST: TimestampMs = -1;
const EARLIEST: TimestampMs = -2;
const MAX_TIMESTAMP: TimestampMs = -3;
const EARLIEST_LOCAL: TimestampMs = -4;
const LATEST_TIERED: TimestampMs = -5;
const EARLIEST_PENDING_UPLOAD: TimestampMs = -6;

/// Version from which answers tell the epoch of the record found.
const LEADER_EPOCH_VERSION: i16 = 4;

/// Special timestamps and the version that brought each.
const SPECIAL_SINCE: [(TimestampMs, i16); 4] =
    [(MAX_TIMESTAMP, 7), (EARLIEST_LOCAL, 8), (LATEST_TIERED, 9), (EARLIEST_PENDING_UPLOAD, 11)];

/// An offset, its timestamp (-1 for none) and its leader epoch, if there is one.
type Found = Option<(Offset, TimestampMs)>;

/// Answers the request.
pub(crate) async fn handle<'a>(
    context: &RequestContext<'_>,
    request: ListOffsetsRequest<'a>,
) -> Result<ListOffsetsResponse<'a>, Close> {
    let mut asked = Vec::new();
    for topic in &request.topics {
        asked.extend(topic.partitions.iter().map(|partition| (&topic.name, partition)));
    }
    let mut mentions =
        Mentions::of(asked.iter().map(|(topic, partition)| (*topic, partition.partition_index)));
    let mut found = IndexMap::<_, Vec<_>>::new();
    let mut turns = Turns::default();
    for (topic, partition) in asked {
        turns.done(1).await;
        let response = match mentions.next(&(topic, partition.partition_index)) {
            Mention::Only => look_up(context, topic, partition).await,
            Mention::FirstOfSeveral => refused(partition.partition_index, ErrorCode::InvalidRequest),
            Mention::Again => continue,
        };
        found.entry(topic).or_default().push(response);
    }
    let topics = found
        .into_iter()
        .map(|(name, partitions)| ListOffsetsTopicResponse { name: name.clone(), partitions });
    let topics = topics.collect();
    Ok(ListOffsetsResponse { topics, ..ListOffsetsResponse::default() })
}

async fn look_up(
    context: &RequestContext<'_>,
    topic: &str,
    asked: &ListOffsetsPartition,
) -> ListOffsetsPartitionResponse {
    let mut response = refused(asked.partition_index, ErrorCode::None);
    match find(context, topic, asked).await {
        Ok((_, None)) => {}
        Ok((partition, Some((offset, timestamp)))) => {
            response.offset = offset;
            response.timestamp = timestamp;
            if context.api_version >= LEADER_EPOCH_VERSION {
                response.leader_epoch = epoch_of(&partition, offset).0;
            }
        }
        Err(code) => response.error_code = code.code(),
    }
    response
}

/// What is told where there is no offset to tell.
fn refused(partition_index: i32, code: ErrorCode) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse {
        partition_index,
        error_code: code.code(),
        timestamp: -1,
        offset: -1,
        leader_epoch: -1,
    }
}

async fn find(
    context: &RequestContext<'_>,
    topic: &str,
    asked: &ListOffsetsPartition,
) -> Result<(Arc<Partition>, Found), ErrorCode> {
    let too_new = |(timestamp, since): &(TimestampMs, i16)| {
        *timestamp == asked.timestamp && context.api_version < *since
    };
    if asked.timestamp < EARLIEST_PENDING_UPLOAD || SPECIAL_SINCE.iter().any(too_new) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let partition = context.broker.partition(topic, asked.partition_index)?;
    partition.check_epoch(asked.current_leader_epoch)?;
    let log = &partition.log;
    let found = match asked.timestamp {
        LATEST => Some((log.high_watermark(), -1)),
        EARLIEST | EARLIEST_LOCAL => Some((log.log_start(), -1)),
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => None,
        timestamp => {
            let log = log.clone();
            // The search reads files, maybe cold ones.
            let search = move || match timestamp {
                MAX_TIMESTAMP => log.max_timestamp(),
                timestamp => log.find_timestamp(timestamp, log.high_watermark()),
            };
            context.broker.env.blocking(search).await.map_err(|error| {
                tracing::warn!(topic, partition = asked.partition_index, %error, "a search by time failed");
                read_code(&error)
            })?
        }
    };
    Ok((partition, found))
}

/// The epoch in which the record at `offset` was written; the current one at the log end.
fn epoch_of(partition: &Partition, offset: Offset) -> LeaderEpoch {
    let state = partition.log.state();
    let epochs = state.chain.iter().flat_map(|entry| &entry.epochs);
    let covering = epochs.take_while(|(_, start)| *start <= offset).last();
    match covering {
        Some((epoch, _)) if offset < partition.log.end() => *epoch,
        _ => state.leader_epoch,
    }
}

/// What a client hears when a log cannot be read.
pub(crate) fn read_code(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Storage(_) => ErrorCode::KafkaStorageError,
    }
}
