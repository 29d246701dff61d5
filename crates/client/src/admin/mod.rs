//! Calls of an administrator: topics, configs, records, offsets, groups.
//!
//! A call about many things answers for each of them, in the order asked; an error of the whole call is
//! told once. Every call is tried again while its error may pass.

mod cluster;
mod configs;
mod copies;
mod groups;
mod offsets;
mod topics;

pub(crate) use groups::{offset_commit_error, offset_commit_request};
pub(crate) use offsets::leader_moved;

pub use cluster::{ClusterDescription, DescribedBroker};
pub use configs::{ConfigChange, ConfigEntry, ConfigOperation, ConfigResource};
pub use copies::{LogDir, Reassignment};
pub use groups::{CommittedOffset, DescribedGroup, GroupMember, ListedGroup};
pub use offsets::{ListedOffset, OffsetAt};
pub use topics::{CreatedTopic, NewTopic};

use std::time::Duration;

/// How long a broker may take to carry out a change before it answers with a time-out.
const CHANGE_WAIT: Duration = Duration::from_secs(15);
/// The same, as requests carry it.
const CHANGE_WAIT_MS: i32 = 15_000;
