//! Groups: who is in them, what they have committed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use base::error::ErrorCode;
use base::ids::Offset;
use wire::message::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use wire::message::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use wire::message::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DeleteGroupsRequest, DeleteGroupsResponse,
    DescribeGroupsRequest, DescribeGroupsResponse, ListGroupsRequest, ListGroupsResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
    OffsetFetchResponse,
};
use wire::{ApiKey, RequestMessage};

use crate::group::protocol::read_assignment;
use crate::{Answer, Client, ClientError, PartitionName, Result, Topics};

/// A group as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its id.
    pub group: String,
    /// What its members do, `consumer` for most.
    pub protocol_type: String,
    /// Its state in Kafka's words; empty when the broker does not tell.
    pub state: String,
    /// `classic`, `consumer`, `share` …; empty when the broker does not tell.
    pub kind: String,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedGroup {
    /// Its id.
    pub group: String,
    /// Its state in Kafka's words: `Empty`, `Stable`, `PreparingRebalance` …
    pub state: String,
    /// What its members do.
    pub protocol_type: String,
    /// How partitions are assigned.
    pub assignor: String,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Its id.
    pub member_id: String,
    /// The id it keeps over restarts, if it has one.
    pub instance_id: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// What it reads.
    pub partitions: Vec<PartitionName>,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset the group will read.
    pub offset: Offset,
    /// What the committer wrote beside it.
    pub metadata: String,
}

type Committed = BTreeMap<PartitionName, CommittedOffset>;

impl Client {
    /// All groups, from all brokers, by id.
    pub async fn list_groups(&self) -> Result<Vec<ListedGroup>> {
        self.metadata(Topics::None).await?;
        let mut groups = Vec::new();
        for broker in self.brokers() {
            let answer = self.broker(broker).await?.call(&ListGroupsRequest::default()).await?;
            let response: ListGroupsResponse = answer.read()?;
            ClientError::check(response.error_code, None, || format!("groups of broker {broker}"))?;
            groups.extend(response.groups.iter().map(|group| ListedGroup {
                group: group.group_id.clone().into_owned(),
                protocol_type: group.protocol_type.clone().into_owned(),
                state: group.group_state.clone().into_owned(),
                kind: group.group_type.clone().into_owned(),
            }));
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        groups.dedup_by(|a, b| a.group == b.group);
        Ok(groups)
    }

    /// Describes a group of either kind; `GROUP_ID_NOT_FOUND` if there is none of that id.
    pub async fn describe_group(&self, group: &str) -> Result<DescribedGroup> {
        let request = DescribeGroupsRequest { groups: vec![group.into()], ..Default::default() };
        let answer = self.call_coordinator(group, &request, |answer| {
            let response: DescribeGroupsResponse = answer.read()?;
            Ok(response.groups.first().map_or(0, |row| row.error_code))
        });
        let missing = match answer.await {
            Ok(answer) => {
                let response: DescribeGroupsResponse = answer.read()?;
                let row = response.groups.first();
                let row = row.ok_or_else(|| ClientError::Missing { subject: subject(group) })?;
                if row.group_state != "Dead" {
                    return Ok(classic_group(row));
                }
                ClientError::Broker {
                    subject: subject(group),
                    code: ErrorCode::GroupIdNotFound,
                    message: None,
                }
            }
            Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => error,
            Err(error) => return Err(error),
        };
        self.describe_consumer_group(group).await?.ok_or(missing)
    }

    /// Describes a group of KIP-848; `None` if there is none, or if the broker knows no such groups.
    async fn describe_consumer_group(&self, group: &str) -> Result<Option<DescribedGroup>> {
        let coordinator = self.coordinator(group).await?;
        if self.broker(coordinator).await?.version_of(ApiKey::ConsumerGroupDescribe).is_err() {
            return Ok(None);
        }
        let request = ConsumerGroupDescribeRequest { group_ids: vec![group.into()], ..Default::default() };
        let answer = self.call_coordinator(group, &request, |answer| {
            let response: ConsumerGroupDescribeResponse = answer.read()?;
            Ok(response.groups.first().map_or(0, |row| row.error_code))
        });
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => return Ok(None),
            Err(error) => return Err(error),
        };
        let response: ConsumerGroupDescribeResponse = answer.read()?;
        Ok(response.groups.first().map(consumer_group))
    }

    /// Deletes a group that has no members, with all it has committed.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        let request = DeleteGroupsRequest { groups_names: vec![group.into()] };
        let answer = self.call_coordinator(group, &request, |answer| {
            let response: DeleteGroupsResponse = answer.read()?;
            let code = response.results.first().map(|row| row.error_code);
            code.ok_or_else(|| ClientError::Missing { subject: subject(group) })
        });
        answer.await.map(drop)
    }

    /// What a group has committed, for the partitions named or for all.
    pub async fn committed_offsets(
        &self,
        group: &str,
        partitions: Option<&[PartitionName]>,
    ) -> Result<Committed> {
        let request = OffsetFetchRequest {
            group_id: group.into(),
            topics: partitions.map(|partitions| {
                let by_topic = by_topic(partitions.iter().map(|partition| (partition, partition.partition)));
                let topic = |(name, partition_indexes)| wire::message::OffsetFetchRequestTopic {
                    name: Cow::Borrowed(name),
                    partition_indexes,
                };
                by_topic.into_iter().map(topic).collect()
            }),
            require_stable: true,
            ..Default::default()
        };
        let answer = self.call_coordinator(group, &request, |answer| {
            let response: OffsetFetchResponse = answer.read()?;
            let mut rows = response.topics.iter().flat_map(|topic| &topic.partitions);
            let of_row = rows.find(|row| row.error_code != 0).map_or(0, |row| row.error_code);
            Ok(if response.error_code != 0 { response.error_code } else { of_row })
        });
        let answer = answer.await?;
        let response: OffsetFetchResponse = answer.read()?;
        let mut committed = BTreeMap::new();
        for topic in &response.topics {
            let name: std::sync::Arc<str> = topic.name.as_ref().into();
            for row in topic.partitions.iter().filter(|row| row.committed_offset >= 0) {
                let metadata = row.metadata.as_deref().unwrap_or_default().to_owned();
                let value = CommittedOffset { offset: row.committed_offset, metadata };
                committed.insert(PartitionName::new(name.clone(), row.partition_index), value);
            }
        }
        Ok(committed)
    }

    /// Commits offsets for a group that has no members now.
    pub async fn commit_offsets(&self, group: &str, offsets: &BTreeMap<PartitionName, Offset>) -> Result<()> {
        let request = offset_commit_request(group, -1, "", offsets);
        self.call_coordinator(group, &request, offset_commit_error).await.map(drop)
    }

    /// Forgets what a group has committed for some partitions of topics it does not subscribe to now.
    pub async fn delete_offsets(&self, group: &str, partitions: &[PartitionName]) -> Result<()> {
        let rows = by_topic(partitions.iter().map(|partition| {
            (partition, OffsetDeleteRequestPartition { partition_index: partition.partition })
        }));
        let topic = |(name, partitions)| OffsetDeleteRequestTopic { name: Cow::Borrowed(name), partitions };
        let request =
            OffsetDeleteRequest { group_id: group.into(), topics: rows.into_iter().map(topic).collect() };
        let answer = self.call_coordinator(group, &request, |answer| {
            let response: OffsetDeleteResponse = answer.read()?;
            let mut rows = response.topics.iter().flat_map(|topic| &topic.partitions);
            let of_row = rows.find(|row| row.error_code != 0).map_or(0, |row| row.error_code);
            Ok(if response.error_code != 0 { response.error_code } else { of_row })
        });
        answer.await.map(drop)
    }

    /// Calls the coordinator of a group until `error_of` reads no error from the answer, or one that will
    /// not pass.
    async fn call_coordinator<'a, R: RequestMessage<'a>>(
        &self,
        group: &str,
        request: &R,
        error_of: impl Fn(&Answer) -> Result<i16>,
    ) -> Result<Answer> {
        let mut backoff = self.backoff();
        loop {
            let error = match self.call_coordinator_once(group, request, &error_of).await {
                Err(error) if error.retriable() => error,
                other => return other,
            };
            self.note_group_error(group, &error);
            backoff.pause(error).await?;
        }
    }

    async fn call_coordinator_once<'a, R: RequestMessage<'a>>(
        &self,
        group: &str,
        request: &R,
        error_of: &impl Fn(&Answer) -> Result<i16>,
    ) -> Result<Answer> {
        let coordinator = self.coordinator(group).await?;
        let connection = self.broker(coordinator).await?;
        let answer = connection.start(request, Duration::ZERO).await?.wait().await?;
        ClientError::check(error_of(&answer)?, None, || subject(group))?;
        Ok(answer)
    }
}

fn subject(group: &str) -> String {
    format!("group `{group}`")
}

/// Items of partitions gathered under the names of their topics.
fn by_topic<'a, T>(items: impl Iterator<Item = (&'a PartitionName, T)>) -> BTreeMap<&'a str, Vec<T>> {
    let mut topics: BTreeMap<&str, Vec<T>> = BTreeMap::new();
    for (partition, item) in items {
        topics.entry(&partition.topic).or_default().push(item);
    }
    topics
}

/// The request that commits offsets, as a member of a generation or (-1, "") as nobody.
pub(crate) fn offset_commit_request<'a>(
    group: &'a str,
    generation: i32,
    member_id: &'a str,
    offsets: &'a BTreeMap<PartitionName, Offset>,
) -> OffsetCommitRequest<'a> {
    let rows = by_topic(offsets.iter().map(|(partition, offset)| {
        let row = OffsetCommitRequestPartition {
            partition_index: partition.partition,
            committed_offset: *offset,
            committed_metadata: Some("".into()),
            ..Default::default()
        };
        (partition, row)
    }));
    let topic = |(name, partitions)| OffsetCommitRequestTopic {
        name: Cow::Borrowed(name),
        partitions,
        ..Default::default()
    };
    OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: generation,
        member_id: member_id.into(),
        topics: rows.into_iter().map(topic).collect(),
        ..Default::default()
    }
}

/// The first error of a commit.
pub(crate) fn offset_commit_error(answer: &Answer) -> Result<i16> {
    let response: OffsetCommitResponse = answer.read()?;
    let mut rows = response.topics.iter().flat_map(|topic| &topic.partitions);
    Ok(rows.find(|row| row.error_code != 0).map_or(0, |row| row.error_code))
}

fn classic_group(row: &wire::message::describe_groups_response::DescribedGroup<'_>) -> DescribedGroup {
    let member = |member: &wire::message::DescribedGroupMember<'_>| GroupMember {
        member_id: member.member_id.clone().into_owned(),
        instance_id: member.group_instance_id.as_deref().map(str::to_owned),
        client_id: member.client_id.clone().into_owned(),
        host: member.client_host.trim_start_matches('/').to_owned(),
        // Only consumers say in this form what they read; others keep it to themselves.
        partitions: read_assignment(&member.member_assignment).unwrap_or_default(),
    };
    DescribedGroup {
        group: row.group_id.clone().into_owned(),
        state: row.group_state.clone().into_owned(),
        protocol_type: row.protocol_type.clone().into_owned(),
        assignor: row.protocol_data.clone().into_owned(),
        members: row.members.iter().map(member).collect(),
    }
}

fn consumer_group(
    row: &wire::message::consumer_group_describe_response::DescribedGroup<'_>,
) -> DescribedGroup {
    let member = |member: &wire::message::Member<'_>| GroupMember {
        member_id: member.member_id.clone().into_owned(),
        instance_id: member.instance_id.as_deref().map(str::to_owned),
        client_id: member.client_id.clone().into_owned(),
        host: member.client_host.trim_start_matches('/').to_owned(),
        partitions: {
            let topics = member.assignment.topic_partitions.iter();
            let names = topics.flat_map(|topic| {
                let name: std::sync::Arc<str> = topic.topic_name.as_ref().into();
                topic.partitions.iter().map(move |index| PartitionName::new(name.clone(), *index))
            });
            names.collect()
        },
    };
    DescribedGroup {
        group: row.group_id.clone().into_owned(),
        state: row.group_state.clone().into_owned(),
        protocol_type: "consumer".to_owned(),
        assignor: row.assignor_name.clone().into_owned(),
        members: row.members.iter().map(member).collect(),
    }
}
