//! Where copies of partitions are and shall be, who leads, and brokers that go.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use base::error::ErrorCode;
use base::ids::BrokerId;
use wire::RequestMessage;
use wire::message::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use wire::message::elect_leaders_request::TopicPartitions;
use wire::message::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, DescribeLogDirsRequest,
    DescribeLogDirsResponse, ElectLeadersRequest, ElectLeadersResponse, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse, UnregisterBrokerRequest, UnregisterBrokerResponse,
};

use super::{CHANGE_WAIT, CHANGE_WAIT_MS};
use crate::{Answer, Client, ClientError, PartitionName, Result};

/// Partitions that are named in one request.
const PARTITIONS_AT_ONCE: usize = 1_000;

/// A partition whose copies are being moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// Which.
    pub partition: PartitionName,
    /// Brokers that have copies, or shall.
    pub replicas: Vec<BrokerId>,
    /// Those that do not have everything yet.
    pub adding: Vec<BrokerId>,
    /// Those that give theirs up afterwards.
    pub removing: Vec<BrokerId>,
}

/// A log directory of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDir {
    /// Its path, on the broker's machine.
    pub path: String,
    /// Why nothing is known of it; [`ErrorCode::None`] if all is well.
    pub error: ErrorCode,
    /// Bytes of each partition that has a copy there.
    pub partitions: BTreeMap<PartitionName, u64>,
}

impl Client {
    /// Partitions whose copies are being moved.
    pub async fn reassignments(&self) -> Result<Vec<Reassignment>> {
        let request = ListPartitionReassignmentsRequest { timeout_ms: CHANGE_WAIT_MS, topics: None };
        let answer = self.ask_controller(&request).await?;
        let response: ListPartitionReassignmentsResponse = answer.read()?;
        let message = response.error_message.as_deref();
        ClientError::check(response.error_code, message, || "reassignments".to_owned())?;
        let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect();
        let mut reassignments = Vec::new();
        for topic in &response.topics {
            for row in &topic.partitions {
                reassignments.push(Reassignment {
                    partition: PartitionName::new(&*topic.name, row.partition_index),
                    replicas: ids(&row.replicas),
                    adding: ids(&row.adding_replicas),
                    removing: ids(&row.removing_replicas),
                });
            }
        }
        Ok(reassignments)
    }

    /// Says where copies of partitions shall be, the preferred leader first; `None` calls off what is under way. A result
    /// for each, in order. It is done some time after that.
    pub async fn reassign(
        &self,
        moves: &[(PartitionName, Option<Vec<BrokerId>>)],
    ) -> Result<Vec<Result<()>>> {
        let mut results = Vec::with_capacity(moves.len());
        for moves in moves.chunks(PARTITIONS_AT_ONCE) {
            let topic = |(partition, brokers): &(PartitionName, Option<Vec<BrokerId>>)| ReassignableTopic {
                name: Cow::Owned(partition.topic.to_string()),
                partitions: vec![ReassignablePartition {
                    partition_index: partition.partition,
                    replicas: brokers.as_ref().map(|brokers| brokers.iter().map(|id| id.0).collect()),
                }],
            };
            let request = AlterPartitionReassignmentsRequest {
                timeout_ms: CHANGE_WAIT_MS,
                // Brokers before Kafka 4.1 do not know that it could be forbidden.
                allow_replication_factor_change: true,
                topics: moves.iter().map(topic).collect(),
            };
            let answer = self.ask_controller(&request).await?;
            let response: AlterPartitionReassignmentsResponse = answer.read()?;
            let message = response.error_message.as_deref();
            ClientError::check(response.error_code, message, || "reassignment".to_owned())?;
            let mut told = BTreeMap::new();
            for topic in &response.responses {
                for row in &topic.partitions {
                    let partition = PartitionName::new(&*topic.name, row.partition_index);
                    let subject = || partition.to_string();
                    let result = ClientError::check(row.error_code, row.error_message.as_deref(), subject);
                    told.insert(partition, result);
                }
            }
            let missing = |partition: &PartitionName| ClientError::Missing { subject: partition.to_string() };
            let result = |(partition, _): &(PartitionName, _)| {
                told.remove(partition).unwrap_or_else(|| Err(missing(partition)))
            };
            results.extend(moves.iter().map(result));
        }
        Ok(results)
    }

    /// Has the preferred leaders of partitions lead. Partitions that they lead already, or that they cannot lead now, are
    /// not errors of the call: a result for each that is answered.
    pub async fn elect_preferred(
        &self,
        partitions: &[PartitionName],
    ) -> Result<Vec<(PartitionName, Result<()>)>> {
        const PREFERRED: i8 = 0;
        let mut results = Vec::new();
        for partitions in partitions.chunks(PARTITIONS_AT_ONCE) {
            let topic = |partition: &PartitionName| TopicPartitions {
                topic: Cow::Owned(partition.topic.to_string()),
                partitions: vec![partition.partition],
            };
            let request = ElectLeadersRequest {
                election_type: PREFERRED,
                topic_partitions: Some(partitions.iter().map(topic).collect()),
                timeout_ms: CHANGE_WAIT_MS,
            };
            let answer = self.ask_controller(&request).await?;
            let response: ElectLeadersResponse = answer.read()?;
            ClientError::check(response.error_code, None, || "election".to_owned())?;
            for topic in &response.replica_election_results {
                for row in &topic.partition_result {
                    let partition = PartitionName::new(&*topic.topic, row.partition_id);
                    let subject = || partition.to_string();
                    let result = match ErrorCode::from_code(row.error_code) {
                        ErrorCode::ElectionNotNeeded => Ok(()),
                        _ => ClientError::check(row.error_code, row.error_message.as_deref(), subject),
                    };
                    results.push((partition, result));
                }
            }
        }
        Ok(results)
    }

    /// The log directories of a broker that lives.
    pub async fn log_dirs(&self, broker: BrokerId) -> Result<Vec<LogDir>> {
        let request = DescribeLogDirsRequest { topics: None };
        let connection = self.broker(broker).await?;
        let answer = connection.start(&request, Duration::ZERO).await?.wait().await?;
        let response: DescribeLogDirsResponse = answer.read()?;
        ClientError::check(response.error_code, None, || format!("log directories of broker {broker}"))?;
        let dir = |row: &wire::message::describe_log_dirs_response::DescribeLogDirsResult<'_>| {
            let mut partitions = BTreeMap::new();
            for topic in &row.topics {
                for partition in &topic.partitions {
                    let name = PartitionName::new(&*topic.name, partition.partition_index);
                    partitions.insert(name, u64::try_from(partition.partition_size).unwrap_or(0));
                }
            }
            LogDir { path: row.log_dir.to_string(), error: ErrorCode::from_code(row.error_code), partitions }
        };
        Ok(response.results.iter().map(dir).collect())
    }

    /// Takes a broker that has ended, and has nothing any more, off the list of brokers.
    pub async fn unregister_broker(&self, broker: BrokerId) -> Result<()> {
        let request = UnregisterBrokerRequest { broker_id: broker.0 };
        let answer = self.ask_controller(&request).await?;
        let response: UnregisterBrokerResponse = answer.read()?;
        let message = response.error_message.as_deref();
        ClientError::check(response.error_code, message, || format!("broker {broker}"))
    }

    /// Asks until the broker that takes changes answers: another one may just have become it. For requests that may be
    /// carried out twice.
    async fn ask_controller<'a, R: RequestMessage<'a>>(&self, request: &R) -> Result<Answer> {
        let mut backoff = self.backoff();
        loop {
            match self.call_controller(request, CHANGE_WAIT).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.retriable() => backoff.pause(error).await?,
                Err(error) => return Err(error),
            }
            self.find_controller().await?;
        }
    }
}
