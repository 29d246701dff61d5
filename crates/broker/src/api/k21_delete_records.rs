//! DeleteRecords (21), versions 0 to 2: raise the log start of partitions (KIP-107).
//!
//! Offset -1 stands for the high watermark. A topic that is compacted and not also deleted keeps its
//! records: POLICY_VIOLATION.

use std::collections::HashMap;

use base::error::ErrorCode;
use base::ids::Offset;
use indexmap::IndexMap;
use replication::TrimError;
use wire::message::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult,
};

use super::{Close, RequestContext};
use crate::turns::Turns;

const TO_HIGH_WATERMARK: Offset = -1;

/// Answers the request.
pub(crate) async fn handle<'a>(
    context: &RequestContext<'_>,
    request: DeleteRecordsRequest<'a>,
) -> Result<DeleteRecordsResponse<'a>, Close> {
    let mut asked = Vec::new();
    for topic in &request.topics {
        asked.extend(topic.partitions.iter().map(|partition| (&topic.name, partition)));
    }
    // Of a partition that is named more than once the last mention counts.
    let mut offsets: HashMap<_, _> =
        asked.iter().map(|(topic, asked)| ((*topic, asked.partition_index), asked.offset)).collect();
    let mut deleted = IndexMap::<_, Vec<_>>::new();
    let mut turns = Turns::default();
    for (topic, asked) in asked {
        turns.done(1).await;
        let Some(offset) = offsets.remove(&(topic, asked.partition_index)) else { continue };
        let result = delete(context, topic, asked.partition_index, offset).await;
        let result = DeleteRecordsPartitionResult {
            partition_index: asked.partition_index,
            low_watermark: *result.as_ref().unwrap_or(&-1),
            error_code: result.err().unwrap_or(ErrorCode::None).code(),
        };
        deleted.entry(topic).or_default().push(result);
    }
    let topics = deleted
        .into_iter()
        .map(|(name, partitions)| DeleteRecordsTopicResult { name: name.clone(), partitions });
    let topics = topics.collect();
    Ok(DeleteRecordsResponse { topics, ..DeleteRecordsResponse::default() })
}

async fn delete(
    context: &RequestContext<'_>,
    topic: &str,
    index: i32,
    offset: Offset,
) -> Result<Offset, ErrorCode> {
    let partition = context.broker.partition(topic, index)?;
    if context.broker.is_internal(topic) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let settings = partition.log.settings();
    if settings.compact && !settings.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    let start = match offset {
        TO_HIGH_WATERMARK => partition.log.high_watermark(),
        offset => offset,
    };
    partition.log.trim(start).await.map_err(|error| match error {
        TrimError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        TrimError::Chain(_) | TrimError::Append(_) => {
            tracing::warn!(topic, partition = index, %error, "records are not deleted");
            ErrorCode::NotLeaderOrFollower
        }
    })
}
