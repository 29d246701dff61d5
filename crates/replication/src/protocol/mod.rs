//! The replication protocol as pure state machines: who may write, what is committed, where a segment ends.
//!
//! ```text
//!   SegmentLeader ── Append ──► PartitionReplica      one per ensemble member
//!        ▲   └─────── Ack ◄───────────┘
//!        │ SealAndOpen (base::chain)
//!   Recovery ─────── Fence ──► PartitionReplica       after an election
//! ```
//!
//! A segment is written by one leader in one epoch, and a member holds a prefix of it, so what a member holds is one
//! number: the offset after its last durable record. Everything here is arithmetic on such numbers (replication.md
//! sections 2.5 to 2.10). Nothing does I/O or knows the time: callers move the bytes, persist what a
//! [`PartitionReplica`] promises before they answer with it, and send the edits to the metadata store.
//! `tests/protocol` searches all orders in which messages, elections and crashes can come.

mod leader;
mod quorum;
mod recovery;
mod replica;

pub use leader::SegmentLeader;
pub use quorum::{committed, coverage, nth_largest};
pub use recovery::{Decision, Recovery};
pub use replica::{FenceAnswer, Life, Nack, PartitionReplica};
