//! The stream between two brokers: a leader pushes the open segments of all its partitions to the storages of another.
//!
//! ```text
//! Links ── one connection per broker ──► serve ──► Replicas ── PartitionReplica, files
//!   ▲ Push, fence, pull, copy_up
//! ```
//!
//! One ordered connection carries all partitions that one broker leads and the other holds copies of (replication.md 2.4).
//! The leader pushes from its own files, as much as it has credit for; members acknowledge how far they hold a segment
//! durably; fences, copies for a seal and pulls go the same way. [`Links`] is the leader's side, [`Replicas`] with
//! [`serve`] the member's.
//!
//! What it does not do: decide what is committed, where a segment ends and who leads.

mod copy;
mod follow;
mod frame;
mod link;
mod local;
mod message;
mod push;
mod replicas;
mod sender;
mod serve;
mod sessions;

#[cfg(test)]
mod message_tests;

pub use follow::{FollowError, Followed};
pub use link::{CREDIT_BYTES, Directory, LinkError, Links, LinksSpec, PUSH_CREDIT_BYTES, PeerAddress};
pub(crate) use local::OwnCopy;
pub use message::{
    BrokerLife, ConfirmRequest, Create, FRAME_BYTES_MAX, FenceRequest, FenceResult, FetchRequest, Hello,
    MAGIC, Message, MessageError, PullRequest, PullResult, PushKind, Reason, Refusal, VERSION,
};
pub use push::{Push, PushSink, PushSource, PushTarget, Refused};
pub use replicas::{Leading, Local, PULL_BYTES_MAX, Released, Replicas, ReplicasSpec, SealedCopy};
pub use serve::serve;
