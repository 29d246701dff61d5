//! The one truth about a cluster: topics, chains, brokers, configs.
//!
//! ```text
//!  propose(Command) ─► Raft log (durable) ─► state machine ─► Image ─► every reader
//! ```
//!
//! The state machine ([`control`]) is a pure function over an immutable [`Image`]; [`RaftStore`] keeps
//! its log and snapshots on disk, [`FollowerStore`] follows those that do, [`MemoryStore`] forgets all. All sit behind
//! [`MetadataStore`].
//! Only this crate knows openraft, and only in its module `raft`.
//!
//! Invariants: an answered command is durable (not in memory, of course) and visible in
//! [`MetadataStore::image`]; images follow one another in the order of the log; stored commands and
//! snapshots carry tagged fields, so that an older version can skip what it does not know.

mod command;
mod control;
mod image;
mod memory;
mod proposals;
mod raft;
mod record;
mod residence;
mod sessions;
mod store;
#[cfg(test)]
mod tests;
pub mod watch;

pub use command::{
    ChainEdit, Command, CommandResult, EditError, Endpoint, MetadataVersions, NewTopic, Placement, Refusal,
    Registration, Resource, StorageHealth,
};
pub use control::{PRODUCER_IDS_PER_COMMAND_MAX, TOPIC_NAME_LENGTH_MAX, TOPIC_PARTITIONS_MAX, check_name};
pub use image::{Broker, Configs, Image, Topic};
pub use memory::MemoryStore;
pub use raft::{FollowerStore, MetadataOpenError, NODE_MAGIC, Quorum, RaftStore, allocate_node_id};
pub use residence::{LEAVING_BROKERS, Residence};
pub use sessions::{Heard, Sessions};
pub use store::{COMMAND_BYTES_MAX, MetadataStore, ProposeError, QuorumState, VoterState};
