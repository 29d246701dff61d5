//! Consumer groups as pure state machines.
//!
//! The groups of one partition of `__consumer_offsets` form a [`GroupShard`]: requests, the outcomes of appends
//! and the passing of time go in, answers and records to append come out as [`Effect`]s. Which shard a group
//! belongs to says [`partition_for`]. The protocol is Kafka's classic one: members join, the leader among
//! them assigns, all sync, heartbeats keep them in; offsets are committed under the generation or without
//! any membership. State lives in the log in Kafka's own record formats.
//!
//! Answers that promise something are given once the records they promise are in the log. Where a client waits for
//! others (JoinGroup, SyncGroup) its answer is an effect of a later call.
//!
//! What clients can make a broker hold here is counted over all its shards and bounded ([`GroupMemory`]). Beyond the
//! bound they hear what lets them try again after a pause: COORDINATOR_LOAD_IN_PROGRESS, and for a SyncGroup, where
//! clients do not expect that one, COORDINATOR_NOT_AVAILABLE.
//!
//! What it does not do: sockets, disks, clocks, threads, authorization, topics' existence, transactions
//! (OffsetFetch's `require_stable` waits for plain commits in flight).
//!
//! Where it differs from Kafka on purpose:
//! - a JoinGroup with rebalance timeout 0 takes the session timeout, instead of throwing members out before they sync;
//! - a request displaced by a later one of the same member, or parked by a member that is removed, is answered;
//! - a static member that returns updates all it says of itself, and is not refused because the group is full;
//! - a time-out of an append answers the clients but does not guess its outcome;
//! - many deletions are spread over several batches instead of failing as one that is too large;
//! - a new member whose client goes before it has its first answer is out at once;
//! - a group whose client was only given a member id is not written to the log;
//! - a member id nobody came back with leaves a stable group alone.

mod admin_api;
mod answer;
mod append;
mod config;
mod consumer_protocol;
mod context;
mod group;
mod join;
mod member;
mod member_api;
mod memory;
mod offset_api;
mod offsets;
mod partition;
mod rebalance;
mod record;
mod replay;
mod request;
mod shard;
mod timer;

pub use answer::{
    Answer, CommittedTopic, DescribedGroup, DescribedMember, FetchedOffset, FetchedTopic, JoinAnswer,
    JoinedMember, LeaveAnswer, LeftMember, ListedGroup, OffsetCommitAnswer, OffsetDeleteAnswer,
    OffsetFetchAnswer, SyncAnswer,
};
pub use append::{AppendId, KeyValue};
pub use config::GroupConfig;
pub use context::{Counters, Effect};
pub use memory::GroupMemory;
pub use partition::partition_for;
pub use record::RecordError;
pub use request::{
    CommitPartition, CommitTopic, FetchTopic, HeartbeatRequest, JoinRequest, LeaveRequest, LeavingMember,
    ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, Protocol, Request,
    SyncRequest, Token,
};
pub use shard::{GroupShard, GroupSummary, ShardSize};
