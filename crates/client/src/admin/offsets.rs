//! Offsets of partitions: where they begin and end, what lies at a time, and cutting their beginning off.

use std::collections::{BTreeMap, HashMap};

use base::error::ErrorCode;
use base::ids::{BrokerId, Offset, TimestampMs};
use wire::message::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use wire::message::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use wire::message::{DeleteRecordsRequest, DeleteRecordsResponse, ListOffsetsRequest, ListOffsetsResponse};

use super::{CHANGE_WAIT, CHANGE_WAIT_MS};
use crate::{Client, ClientError, Isolation, PartitionName, Result};

/// Which offset of a partition is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetAt {
    /// The first that is there.
    Earliest,
    /// The one the next record will get (or, for readers of committed records, the last stable one).
    Latest,
    /// That of the record with the greatest timestamp (KIP-734).
    MaxTimestamp,
    /// That of the first record with this timestamp or a later one.
    Time(TimestampMs),
}

impl OffsetAt {
    fn code(self) -> i64 {
        match self {
            OffsetAt::Latest => -1,
            OffsetAt::Earliest => -2,
            OffsetAt::MaxTimestamp => -3,
            OffsetAt::Time(timestamp) => timestamp.max(0),
        }
    }
}

/// An offset and the record that lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset; `None` when no record is as late as asked for.
    pub offset: Option<Offset>,
    /// Timestamp of the record, if one was looked for and found.
    pub timestamp: Option<TimestampMs>,
}

type ByPartition<T> = BTreeMap<PartitionName, T>;

impl Client {
    /// Looks up offsets, each at the leader of its partition.
    pub async fn list_offsets(
        &self,
        wanted: &[(PartitionName, OffsetAt)],
        isolation: Isolation,
    ) -> Result<ByPartition<Result<ListedOffset>>> {
        let mut found = BTreeMap::new();
        let mut left: Vec<_> = wanted.to_vec();
        let mut backoff = self.backoff();
        loop {
            let again = self.list_offsets_once(&left, isolation, &mut found).await;
            let Some((_, error)) = again.first() else {
                return Ok(found);
            };
            if let Err(error) = backoff.pause(error.clone()).await {
                if found.is_empty() && error.code().is_none() {
                    return Err(error);
                }
                found.extend(again.into_iter().map(|((partition, _), error)| (partition, Err(error))));
                return Ok(found);
            }
            left = again.into_iter().map(|(wanted, _)| wanted).collect();
        }
    }

    /// One round; returns what is to be asked again, with the reason.
    async fn list_offsets_once(
        &self,
        wanted: &[(PartitionName, OffsetAt)],
        isolation: Isolation,
        found: &mut ByPartition<Result<ListedOffset>>,
    ) -> Vec<((PartitionName, OffsetAt), ClientError)> {
        let mut again = Vec::new();
        let mut by_leader: HashMap<BrokerId, Vec<(PartitionName, OffsetAt)>> = HashMap::new();
        for (partition, at) in wanted {
            match self.leader(partition).await {
                Ok(leader) => by_leader.entry(leader).or_default().push((partition.clone(), *at)),
                Err(error) if error.retriable() => again.push(((partition.clone(), *at), error)),
                Err(error) => drop(found.insert(partition.clone(), Err(error))),
            }
        }
        for (leader, group) in by_leader {
            match self.list_offsets_at(leader, &group, isolation).await {
                Ok(results) => {
                    for ((partition, at), result) in group.into_iter().zip(results) {
                        match result {
                            Err(error) if error.retriable() => {
                                self.forget_topic(&partition.topic);
                                again.push(((partition, at), error));
                            }
                            result => drop(found.insert(partition, result)),
                        }
                    }
                }
                Err(error) if error.retriable() => {
                    group.iter().for_each(|(partition, _)| self.forget_topic(&partition.topic));
                    again.extend(group.into_iter().map(|wanted| (wanted, error.clone())));
                }
                Err(error) => {
                    found.extend(group.into_iter().map(|(partition, _)| (partition, Err(error.clone()))))
                }
            }
        }
        again
    }

    /// One question to one leader; answers in the order of the group.
    pub(crate) async fn list_offsets_at(
        &self,
        leader: BrokerId,
        group: &[(PartitionName, OffsetAt)],
        isolation: Isolation,
    ) -> Result<Vec<Result<ListedOffset>>> {
        let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for (partition, at) in group {
            let row = ListOffsetsPartition {
                partition_index: partition.partition,
                timestamp: at.code(),
                ..Default::default()
            };
            topics.entry(&partition.topic).or_default().push(row);
        }
        let topic =
            |(name, partitions)| ListOffsetsTopic { name: std::borrow::Cow::Borrowed(name), partitions };
        let request = ListOffsetsRequest {
            replica_id: -1,
            isolation_level: isolation as i8,
            topics: topics.into_iter().map(topic).collect(),
            timeout_ms: CHANGE_WAIT_MS,
        };
        let answer = self.broker(leader).await?.start(&request, CHANGE_WAIT).await?.wait().await?;
        let response: ListOffsetsResponse = answer.read()?;
        let result = |(partition, _): &(PartitionName, OffsetAt)| {
            let topic = response.topics.iter().find(|topic| topic.name == *partition.topic);
            let rows = topic.into_iter().flat_map(|topic| &topic.partitions);
            let row = rows.into_iter().find(|row| row.partition_index == partition.partition);
            let row = row.ok_or_else(|| ClientError::Missing { subject: partition.to_string() })?;
            ClientError::check(row.error_code, None, || partition.to_string())?;
            Ok(ListedOffset {
                offset: Some(row.offset).filter(|offset| *offset >= 0),
                timestamp: Some(row.timestamp).filter(|timestamp| *timestamp >= 0),
            })
        };
        Ok(group.iter().map(result).collect())
    }

    /// Deletes the records before an offset, each at the leader of its partition; `None` means all there
    /// are. Answers the first offset that is left.
    pub async fn delete_records(
        &self,
        before: &[(PartitionName, Option<Offset>)],
    ) -> ByPartition<Result<Offset>> {
        let mut done = BTreeMap::new();
        for (partition, offset) in before {
            let mut backoff = self.backoff();
            let result = loop {
                match self.delete_records_of(partition, offset.unwrap_or(-1)).await {
                    Err(error) if error.retriable() => {
                        self.forget_topic(&partition.topic);
                        if let Err(error) = backoff.pause(error).await {
                            break Err(error);
                        }
                    }
                    result => break result,
                }
            };
            done.insert(partition.clone(), result);
        }
        done
    }

    async fn delete_records_of(&self, partition: &PartitionName, offset: Offset) -> Result<Offset> {
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: (*partition.topic).into(),
                partitions: vec![DeleteRecordsPartition { partition_index: partition.partition, offset }],
            }],
            timeout_ms: CHANGE_WAIT_MS,
        };
        let leader = self.leader(partition).await?;
        let answer = self.broker(leader).await?.start(&request, CHANGE_WAIT).await?.wait().await?;
        let response: DeleteRecordsResponse = answer.read()?;
        let row = response.topics.first().and_then(|topic| topic.partitions.first());
        let row = row.ok_or_else(|| ClientError::Missing { subject: partition.to_string() })?;
        ClientError::check(row.error_code, None, || partition.to_string())?;
        Ok(row.low_watermark)
    }
}

/// Whether an error of a partition means that another broker leads it now.
pub(crate) fn leader_moved(error: &ClientError) -> bool {
    matches!(
        error.code(),
        Some(
            ErrorCode::NotLeaderOrFollower
                | ErrorCode::LeaderNotAvailable
                | ErrorCode::UnknownTopicOrPartition
                | ErrorCode::FencedLeaderEpoch
                | ErrorCode::UnknownLeaderEpoch
                | ErrorCode::KafkaStorageError
                | ErrorCode::ReplicaNotAvailable
        )
    ) || (error.retriable() && error.code().is_none())
}
