//! DeleteRecords (21), versions 0 to 2: raise the log start of partitions (KIP-107).
//!
//! Offset -1 stands for the high watermark. A topic that is compacted and not also deleted keeps its
//! records: POLICY_VIOLATION.

use base::error::ErrorCode;
use base::ids::Offset;
use replication::TrimError;
use wire::message::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteRecordsTopicResult,
};

use super::{Close, RequestContext};

const TO_HIGH_WATERMARK: Offset = -1;

/// Answers the request.
pub(crate) async fn handle<'a>(
    context: &RequestContext<'_>,
    request: DeleteRecordsRequest<'a>,
) -> Result<DeleteRecordsResponse<'a>, Close> {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let result = delete(context, &topic.name, asked).await;
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: asked.partition_index,
                low_watermark: *result.as_ref().unwrap_or(&-1),
                error_code: result.err().unwrap_or(ErrorCode::None).code(),
            });
        }
        topics.push(DeleteRecordsTopicResult { name: topic.name, partitions });
    }
    Ok(DeleteRecordsResponse { topics, ..DeleteRecordsResponse::default() })
}

async fn delete(
    context: &RequestContext<'_>,
    topic: &str,
    asked: &DeleteRecordsPartition,
) -> Result<Offset, ErrorCode> {
    if context.broker.is_internal(topic) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let partition = context.broker.partition(topic, asked.partition_index)?;
    let settings = partition.log.settings();
    if settings.compact && !settings.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    let start = match asked.offset {
        TO_HIGH_WATERMARK => partition.log.high_watermark(),
        offset => offset,
    };
    partition.log.trim(start).await.map_err(|error| match error {
        TrimError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        TrimError::Chain(_) | TrimError::Append(_) => {
            tracing::warn!(topic, partition = asked.partition_index, %error, "records are not deleted");
            ErrorCode::NotLeaderOrFollower
        }
    })
}
