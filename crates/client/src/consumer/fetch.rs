//! One Fetch request and its answer.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::error::ErrorCode;
use base::ids::Offset;
use bytes::Bytes;
use wire::message::fetch_request::{FetchPartition, FetchTopic};
use wire::message::{FetchRequest, FetchResponse};

use super::Isolation;
use super::decode::Aborted;
use crate::pool::Connections;
use crate::{ClientError, PartitionName, Result};

/// Partitions to fetch from one leader, each from its offset.
#[derive(Clone, Debug)]
pub(super) struct FetchPlan {
    /// Host and port of the leader.
    pub(super) address: Arc<str>,
    pub(super) partitions: Vec<(PartitionName, Offset)>,
}

/// How much and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct FetchLimits {
    pub(super) wait: Duration,
    pub(super) bytes_min: usize,
    pub(super) bytes_max: usize,
    pub(super) partition_bytes_max: usize,
    pub(super) isolation: Isolation,
}

/// What an answer says of one partition.
#[derive(Debug)]
pub(super) struct FetchedPartition {
    pub(super) partition: PartitionName,
    pub(super) code: ErrorCode,
    pub(super) high_watermark: Offset,
    pub(super) stable_end: Offset,
    pub(super) aborted: Vec<Aborted>,
    pub(super) bytes: Bytes,
}

/// Fetches without a session: the plan is told whole each time.
pub(super) async fn fetch(
    connections: &Connections,
    plan: &FetchPlan,
    limits: FetchLimits,
) -> Result<Vec<FetchedPartition>> {
    let address = &plan.address;
    let connection = connections.to(address).await?;
    let request = request(plan, limits);
    let answer = connection.start(&request, limits.wait).await?.wait().await?;
    let response: FetchResponse = answer.read()?;
    ClientError::check(response.error_code, None, || format!("fetch from {address}"))?;
    let mut fetched = Vec::new();
    for topic in response.responses {
        let name: Arc<str> = topic.topic.as_ref().into();
        for row in topic.partitions {
            let aborted = row.aborted_transactions.unwrap_or_default().into_iter();
            fetched.push(FetchedPartition {
                partition: PartitionName::new(name.clone(), row.partition_index),
                code: ErrorCode::from_code(row.error_code),
                high_watermark: row.high_watermark,
                stable_end: row.last_stable_offset,
                aborted: aborted
                    .map(|a| Aborted { producer_id: a.producer_id, first_offset: a.first_offset })
                    .collect(),
                bytes: row.records.to_bytes().expect("what was decoded is in memory"),
            });
        }
    }
    Ok(fetched)
}

fn request(plan: &FetchPlan, limits: FetchLimits) -> FetchRequest<'_> {
    let bytes = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
    let mut order: Vec<&str> = Vec::new();
    let mut topics: BTreeMap<&str, Vec<FetchPartition>> = BTreeMap::new();
    for (partition, offset) in &plan.partitions {
        let name = &*partition.topic;
        let rows = topics.entry(name).or_insert_with(|| {
            order.push(name);
            Vec::new()
        });
        rows.push(FetchPartition {
            partition: partition.partition,
            fetch_offset: *offset,
            partition_max_bytes: bytes(limits.partition_bytes_max),
            ..Default::default()
        });
    }
    let topic = |name: &str| topics.remove(name).unwrap_or_default();
    let topics = order.iter().copied().map(topic);
    FetchRequest {
        max_wait_ms: i32::try_from(limits.wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: bytes(limits.bytes_min),
        max_bytes: bytes(limits.bytes_max),
        isolation_level: limits.isolation as i8,
        topics: order
            .iter()
            .zip(topics)
            .map(|(name, partitions)| FetchTopic {
                topic: Cow::Borrowed(*name),
                partitions,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}
