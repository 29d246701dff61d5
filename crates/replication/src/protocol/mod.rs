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
pub use recovery::{Decision, Recovery};
pub use replica::{FenceAnswer, Life, Nack, PartitionReplica};

#[cfg(test)]
mod fixture {
    use base::chain::{Member, NewSegment, PartitionState};
    use base::ids::{BrokerId, Incarnation, LeaderEpoch, SegmentId, StorageId, Uuid};

    pub(super) fn storage(number: u8) -> StorageId {
        Uuid([number; 16])
    }

    /// A partition whose only segment is open from offset 10 on storages 1 to `members`.
    pub(super) fn partition(members: u8, ack_quorum: u32) -> PartitionState {
        let member = |number| Member {
            broker: BrokerId(i32::from(number)),
            storage: storage(number),
            incarnation: Incarnation(1),
        };
        let first =
            NewSegment { id: SegmentId(1), ensemble: (1..=members).map(member).collect(), ack_quorum };
        PartitionState::create(BrokerId(1), LeaderEpoch(0), Vec::new(), 10, first)
    }
}
