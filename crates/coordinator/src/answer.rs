//! What a shard answers, and how an answer turns into an error when the records it waited for were not kept.

use base::error::ErrorCode;
use base::ids::{Offset, TopicId};
use bytes::Bytes;

/// The answer to one [`Request`](crate::Request), of the same name.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To JoinGroup.
    Join(JoinAnswer),
    /// To SyncGroup.
    Sync(SyncAnswer),
    /// To Heartbeat.
    Heartbeat(ErrorCode),
    /// To LeaveGroup.
    Leave(LeaveAnswer),
    /// To OffsetCommit.
    OffsetCommit(OffsetCommitAnswer),
    /// To OffsetFetch for one group.
    OffsetFetch(OffsetFetchAnswer),
    /// To OffsetDelete.
    OffsetDelete(OffsetDeleteAnswer),
    /// To DeleteGroups: each group with its outcome, in the order asked.
    DeleteGroups(Vec<(String, ErrorCode)>),
    /// To DescribeGroups, in the order asked.
    DescribeGroups(Vec<DescribedGroup>),
    /// To ListGroups, by group id.
    ListGroups(Vec<ListedGroup>),
}

impl Answer {
    /// Turns a success that was waiting for its records into `error`.
    pub(crate) fn fail(&mut self, error: ErrorCode) {
        match self {
            Answer::Join(answer) => *answer = JoinAnswer::error(error, std::mem::take(&mut answer.member_id)),
            Answer::Sync(answer) => *answer = SyncAnswer::error(error),
            Answer::Heartbeat(code) => *code = error,
            Answer::Leave(answer) => *answer = LeaveAnswer { error, members: Vec::new() },
            Answer::OffsetCommit(answer) => answer.fail(error),
            Answer::OffsetFetch(answer) => {
                *answer = OffsetFetchAnswer { error, topics: Vec::new() };
            }
            Answer::OffsetDelete(answer) => *answer = OffsetDeleteAnswer { error, topics: Vec::new() },
            Answer::DeleteGroups(groups) => {
                for (_, code) in groups.iter_mut().filter(|(_, code)| *code == ErrorCode::None) {
                    *code = error;
                }
            }
            // Reads wait for no records.
            Answer::DescribeGroups(_) | Answer::ListGroups(_) => {}
        }
    }
}

/// Answer to JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinAnswer {
    /// Outcome.
    pub error: ErrorCode,
    /// Generation joined, -1 on error.
    pub generation: i32,
    /// Type of the protocol, if the join succeeded.
    pub protocol_type: Option<String>,
    /// The protocol chosen, if the join succeeded. Before version 7 the wire knows no null: it is sent as empty
    /// there.
    pub protocol_name: Option<String>,
    /// Member id of the leader, empty on error.
    pub leader: String,
    /// The leader keeps the assignment there is (KIP-814).
    pub skip_assignment: bool,
    /// Id of the member.
    pub member_id: String,
    /// All members, for the leader only.
    pub members: Vec<JoinedMember>,
}

impl JoinAnswer {
    /// A refusal.
    pub fn error(error: ErrorCode, member_id: impl Into<String>) -> JoinAnswer {
        JoinAnswer {
            error,
            generation: -1,
            protocol_type: None,
            protocol_name: None,
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.into(),
            members: Vec::new(),
        }
    }
}

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Id of the member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Its metadata under the chosen protocol.
    pub metadata: Bytes,
}

/// Answer to SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncAnswer {
    /// Outcome.
    pub error: ErrorCode,
    /// Type of the protocol, if the sync succeeded.
    pub protocol_type: Option<String>,
    /// The protocol, if the sync succeeded.
    pub protocol_name: Option<String>,
    /// What is assigned to the member.
    pub assignment: Bytes,
}

impl SyncAnswer {
    /// A refusal.
    pub fn error(error: ErrorCode) -> SyncAnswer {
        SyncAnswer { error, protocol_type: None, protocol_name: None, assignment: Bytes::new() }
    }
}

/// Answer to LeaveGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveAnswer {
    /// Outcome of the request as a whole.
    pub error: ErrorCode,
    /// Outcome for each member, in the order asked.
    pub members: Vec<LeftMember>,
}

impl LeaveAnswer {
    /// The one code that versions before 3 can carry.
    pub fn single_error(&self) -> ErrorCode {
        let member_error = self.members.iter().map(|member| member.error).find(|error| error.is_error());
        if self.error.is_error() { self.error } else { member_error.unwrap_or(ErrorCode::None) }
    }
}

/// Outcome of leaving for one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftMember {
    /// Member id as it was asked.
    pub member_id: String,
    /// Instance id as it was asked.
    pub instance_id: Option<String>,
    /// Outcome.
    pub error: ErrorCode,
}

/// Answer to OffsetCommit: the topics and partitions asked, in that order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitAnswer {
    /// The topics.
    pub topics: Vec<CommittedTopic>,
}

impl OffsetCommitAnswer {
    fn fail(&mut self, error: ErrorCode) {
        for topic in &mut self.topics {
            topic.partitions.iter_mut().for_each(|(_, code)| *code = error);
        }
    }
}

/// Outcome of a commit for one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedTopic {
    /// Name as asked.
    pub name: String,
    /// Id as asked.
    pub topic_id: TopicId,
    /// Partition numbers and outcomes.
    pub partitions: Vec<(i32, ErrorCode)>,
}

/// Answer to OffsetFetch for one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFetchAnswer {
    /// Outcome for the group.
    pub error: ErrorCode,
    /// The topics asked, in that order; all that have offsets, by name, if all were asked.
    pub topics: Vec<FetchedTopic>,
}

/// Offsets of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedTopic {
    /// Name of the topic.
    pub name: String,
    /// Id as asked; all zero if all topics were asked (the caller knows the ids).
    pub topic_id: TopicId,
    /// The partitions.
    pub partitions: Vec<FetchedOffset>,
}

/// The committed offset of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    /// Number of the partition.
    pub partition: i32,
    /// Outcome: UNSTABLE_OFFSET_COMMIT while the offset is undecided and a decided one was required.
    pub error: ErrorCode,
    /// The offset, -1 if there is none.
    pub offset: Offset,
    /// Leader epoch committed with it, -1 if none.
    pub leader_epoch: i32,
    /// Text committed with it.
    pub metadata: String,
}

/// Answer to OffsetDelete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetDeleteAnswer {
    /// Outcome for the group.
    pub error: ErrorCode,
    /// Topics with partition numbers and outcomes, in the order asked.
    pub topics: Vec<(String, Vec<(i32, ErrorCode)>)>,
}

/// A group as DescribeGroups shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedGroup {
    /// Outcome.
    pub error: ErrorCode,
    /// Words to the error; null without one.
    pub error_message: Option<String>,
    /// The group.
    pub group_id: String,
    /// State name; `Dead` for a group that does not exist.
    pub state: &'static str,
    /// Type of the protocol, empty if none.
    pub protocol_type: String,
    /// The protocol, while the group is stable.
    pub protocol_name: String,
    /// The members, by id.
    pub members: Vec<DescribedMember>,
}

/// A member as DescribeGroups shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// Id of the member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Client id.
    pub client_id: String,
    /// Address, with a leading slash.
    pub client_host: String,
    /// Metadata under the chosen protocol, while the group is stable.
    pub metadata: Bytes,
    /// What is assigned to it.
    pub assignment: Bytes,
}

/// A group as ListGroups shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group.
    pub group_id: String,
    /// Type of the protocol, empty if none.
    pub protocol_type: String,
    /// State name.
    pub state: &'static str,
    /// Type name: `classic`.
    pub group_type: &'static str,
}
