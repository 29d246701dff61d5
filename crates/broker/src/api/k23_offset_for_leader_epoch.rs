//! OffsetForLeaderEpoch (23), versions 2 to 4: where the records of an epoch end (KIP-320).
//!
//! Computed from the chain; consumers use it to find out whether the log they read was cut behind
//! them. An epoch later than the current one is answered with -1 and -1, one from before the log with the log's start.

use base::error::ErrorCode;
use base::ids::LeaderEpoch;
use wire::message::offset_for_leader_epoch_response::EpochEndOffset;
use wire::message::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
};

use super::{Close, RequestContext};
use crate::turns::Turns;

/// Answers the request.
pub(crate) async fn handle<'a>(
    context: &RequestContext<'_>,
    request: OffsetForLeaderEpochRequest<'a>,
) -> Result<OffsetForLeaderEpochResponse<'a>, Close> {
    let mut turns = Turns::default();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            partitions.push(look_up(context, &topic.topic, asked));
            turns.done(1).await;
        }
        topics.push(OffsetForLeaderTopicResult { topic: topic.topic, partitions });
    }
    Ok(OffsetForLeaderEpochResponse { topics, ..OffsetForLeaderEpochResponse::default() })
}

fn look_up(context: &RequestContext<'_>, topic: &str, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let found = context.broker.partition(topic, asked.partition).and_then(|partition| {
        partition.check_epoch(asked.current_leader_epoch)?;
        Ok(partition.log.epoch_end(LeaderEpoch(asked.leader_epoch)))
    });
    let (code, end) = match found {
        Ok(end) => (ErrorCode::None, end),
        Err(code) => (code, None),
    };
    let (LeaderEpoch(leader_epoch), end_offset) = end.unwrap_or((LeaderEpoch(-1), -1));
    EpochEndOffset { error_code: code.code(), partition: asked.partition, leader_epoch, end_offset }
}
