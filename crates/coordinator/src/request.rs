//! What a shard is asked: Kafka's group requests as owned values, without wire versions where they do not matter.
//!
//! Authorization, unknown topics, throttling and the choice of the shard are the caller's.

use base::ids::{Offset, TopicId, Uuid};
use bytes::Bytes;

/// The caller's name for one request; comes back with its answer. The shard never looks into it, and answers
/// each token exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A request to the groups of one shard.
#[derive(Clone, Debug)]
pub enum Request {
    /// JoinGroup.
    Join(JoinRequest),
    /// SyncGroup.
    Sync(SyncRequest),
    /// Heartbeat.
    Heartbeat(HeartbeatRequest),
    /// LeaveGroup.
    Leave(LeaveRequest),
    /// OffsetCommit.
    OffsetCommit(OffsetCommitRequest),
    /// OffsetFetch for one group.
    OffsetFetch(OffsetFetchRequest),
    /// OffsetDelete.
    OffsetDelete(OffsetDeleteRequest),
    /// DeleteGroups, with those of its groups that belong to this shard.
    DeleteGroups {
        /// Ids of the groups.
        groups: Vec<String>,
    },
    /// DescribeGroups, with those of its groups that belong to this shard.
    DescribeGroups {
        /// Ids of the groups.
        groups: Vec<String>,
        /// Version of the request; an unknown group is an error from version 6 on.
        api_version: i16,
    },
    /// ListGroups; the answers of all shards together make the response.
    ListGroups(ListGroupsRequest),
}

/// JoinGroup: a member enters a group or comes back to it for the next generation.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// Version of the request. From 4 on a member without id is first given one (KIP-394), from 9 on a
    /// returning static leader is told to skip the assignment (KIP-814).
    pub api_version: i16,
    /// The group.
    pub group_id: String,
    /// Id of the member, empty if it has none yet.
    pub member_id: String,
    /// `group.instance.id` of a static member (KIP-345).
    pub instance_id: Option<String>,
    /// Client id from the request header, empty if none.
    pub client_id: String,
    /// Address of the client. Kafka shows it with a leading slash; it is added where it is missing.
    pub client_host: String,
    /// How long the member may stay silent.
    pub session_timeout_ms: i32,
    /// How long the member may take to come back in a rebalance. 0 or less, as version 0 has none,
    /// stands for the session timeout.
    pub rebalance_timeout_ms: i32,
    /// `consumer`, `connect` and the like; the same for all members.
    pub protocol_type: String,
    /// The member's protocols, the one it likes best first.
    pub protocols: Vec<Protocol>,
    /// Why it joins, for the log (KIP-800).
    pub reason: Option<String>,
    /// Random bytes from which a new member id is made, if one is needed.
    pub member_uuid: Uuid,
}

/// One assignment protocol a member supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Name, such as `range` or `cooperative-sticky`.
    pub name: String,
    /// What the leader needs to know of the member under this protocol.
    pub metadata: Bytes,
}

/// SyncGroup: the leader hands in the assignment, every member asks for its own.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// Version of the request; from 5 on protocol type and name must be there (KIP-559).
    pub api_version: i16,
    /// The group.
    pub group_id: String,
    /// Generation the member joined.
    pub generation: i32,
    /// Id of the member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Type of the protocol as the member knows it.
    pub protocol_type: Option<String>,
    /// Name of the protocol as the member knows it.
    pub protocol_name: Option<String>,
    /// Assignment by member id; only the leader's counts.
    pub assignments: Vec<(String, Bytes)>,
}

/// Heartbeat: the member lives.
#[derive(Clone, Debug)]
pub struct HeartbeatRequest {
    /// The group.
    pub group_id: String,
    /// Generation the member is in.
    pub generation: i32,
    /// Id of the member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
}

/// LeaveGroup: members go, by themselves or removed by an administrator.
#[derive(Clone, Debug)]
pub struct LeaveRequest {
    /// The group.
    pub group_id: String,
    /// Who goes; exactly one before version 3.
    pub members: Vec<LeavingMember>,
}

/// One member that leaves.
#[derive(Clone, Debug)]
pub struct LeavingMember {
    /// Id of the member; empty to name a static member by its instance id alone.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Why it goes, for the log.
    pub reason: Option<String>,
}

/// OffsetCommit.
#[derive(Clone, Debug)]
pub struct OffsetCommitRequest {
    /// Version of the request; an unknown group is GROUP_ID_NOT_FOUND from 9 on, ILLEGAL_GENERATION before.
    pub api_version: i16,
    /// The group; may be empty, as old clients without a group commit so.
    pub group_id: String,
    /// Generation, or -1 for a consumer that does not use membership.
    pub generation: i32,
    /// Id of the member, or empty.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Versions 2 to 4: how long to keep the offsets; -1 for the broker's retention.
    pub retention_time_ms: i64,
    /// The offsets.
    pub topics: Vec<CommitTopic>,
}

/// Offsets of one topic.
#[derive(Clone, Debug)]
pub struct CommitTopic {
    /// Name of the topic; from version 10 on found by the caller from its id.
    pub name: String,
    /// Id of the topic, all zero if not known.
    pub topic_id: TopicId,
    /// The offsets.
    pub partitions: Vec<CommitPartition>,
}

/// The offset of one partition.
#[derive(Clone, Debug)]
pub struct CommitPartition {
    /// Number of the partition.
    pub partition: i32,
    /// Offset of the next record to read.
    pub offset: Offset,
    /// Leader epoch of the last record read, -1 if not known.
    pub leader_epoch: i32,
    /// Text of the client, kept with the offset; null is kept as empty.
    pub metadata: Option<String>,
}

/// OffsetFetch for one group (from version 8 on a request carries several).
#[derive(Clone, Debug)]
pub struct OffsetFetchRequest {
    /// The group; may be empty.
    pub group_id: String,
    /// What is asked; `None` for all offsets of the group.
    pub topics: Option<Vec<FetchTopic>>,
    /// Wait until commits in flight are decided (KIP-447).
    pub require_stable: bool,
}

/// Partitions of one topic whose offsets are asked.
#[derive(Clone, Debug)]
pub struct FetchTopic {
    /// Name of the topic.
    pub name: String,
    /// Id of the topic, all zero if not known. An offset committed under another id is not found.
    pub topic_id: TopicId,
    /// Numbers of the partitions.
    pub partitions: Vec<i32>,
}

/// OffsetDelete (KIP-496).
#[derive(Clone, Debug)]
pub struct OffsetDeleteRequest {
    /// The group.
    pub group_id: String,
    /// Topics and partition numbers.
    pub topics: Vec<(String, Vec<i32>)>,
}

/// ListGroups: filters that are empty let everything pass; names nobody knows match nothing.
#[derive(Clone, Debug, Default)]
pub struct ListGroupsRequest {
    /// State names, in any case, from version 4 on (KIP-518).
    pub states: Vec<String>,
    /// Type names, in any case, from version 5 on (KIP-848).
    pub types: Vec<String>,
}
