//! Records on their way into the log, and what hangs on them.
//!
//! An append is open from the moment it is handed to the caller until the caller says whether its records
//! are in the log. A time-out answers the clients that wait but leaves it open: the records may still
//! be committed, and the state must follow the log, not the clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::error::ErrorCode;
use bytes::Bytes;

use crate::answer::Answer;
use crate::group::Group;
use crate::memory::Share;
use crate::request::{Protocol, Token};

/// Number of an append, rising in the order in which the records must stand in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(pub u64);

/// A record of the offsets topic; without a value it is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Key, in Kafka's format.
    pub key: Bytes,
    /// Value, in Kafka's format.
    pub value: Option<Bytes>,
}

/// A record without its key and value, bytes.
const RECORD_BYTES: usize = 128;

impl KeyValue {
    /// What it holds.
    pub(crate) fn bytes(&self) -> usize {
        RECORD_BYTES + self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// An offset's place: topic and partition within a group.
pub(crate) type OffsetPlace = (Arc<str>, i32);

/// An open append.
#[derive(Debug, Default)]
pub(crate) struct PendingAppend {
    /// The group whose records these are.
    pub(crate) group: Arc<str>,
    /// Offsets of the group that are set or removed by it.
    pub(crate) offsets: Vec<OffsetPlace>,
    /// Answers that say success once the records are in.
    pub(crate) answers: Vec<(Token, Answer)>,
    /// What else follows.
    pub(crate) outcome: Outcome,
    /// The caller has reported a time-out.
    pub(crate) timed_out: bool,
    /// Counts the records as long as their outcome is not known.
    pub(crate) share: Share,
}

/// What follows once an append is decided.
#[derive(Debug, Default)]
pub(crate) enum Outcome {
    /// Nothing but the offsets and answers.
    #[default]
    Plain,
    /// The leader's assignment: the group becomes stable.
    Assignment(Assignment),
    /// A static member has come back under another member id.
    StaticMember(Box<StaticMemberChange>),
    /// A part of the deletion of a group; on failure the group comes back.
    Deletion {
        /// The request that waits for it, and the group's place in its answer.
        job: Option<(u64, usize)>,
        /// The group, in the last part.
        group: Option<Box<Group>>,
    },
}

/// What the leader has assigned, until the members have it.
#[derive(Debug)]
pub(crate) struct Assignment {
    /// By member id.
    pub(crate) by_member: BTreeMap<Arc<str>, Bytes>,
    /// What it holds, and what the assignments before it did.
    pub(crate) share: Share,
}

/// How to answer a static member that came back, and how to undo it.
#[derive(Debug)]
pub(crate) struct StaticMemberChange {
    /// Generation in which it came back.
    pub(crate) generation: i32,
    pub(crate) new_id: Arc<str>,
    pub(crate) old_id: Arc<str>,
    pub(crate) leader_before: String,
    pub(crate) may_skip_assignment: bool,
    pub(crate) old_protocols: Vec<Protocol>,
    /// Counts the old protocols as long as they are kept.
    pub(crate) _share: Share,
    pub(crate) old_session_timeout_ms: i32,
    pub(crate) old_rebalance_timeout_ms: i32,
    pub(crate) old_client_id: String,
    pub(crate) old_client_host: String,
}

/// What the client hears when records could not be appended: codes that group clients know how to act on.
pub(crate) fn append_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::UnknownTopicOrPartition | ErrorCode::NotEnoughReplicas | ErrorCode::RequestTimedOut => {
            ErrorCode::CoordinatorNotAvailable
        }
        // The same to the client: the write is not safe, try again. Kafka lets this one through as it is.
        ErrorCode::NotEnoughReplicasAfterAppend => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError | ErrorCode::FencedLeaderEpoch => {
            ErrorCode::NotCoordinator
        }
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidFetchSize => {
            ErrorCode::UnknownServerError
        }
        ErrorCode::None => ErrorCode::UnknownServerError,
        other => other,
    }
}
