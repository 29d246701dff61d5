//! The leader of an open segment: what is committed, and where to end the segment.

use std::collections::BTreeSet;

use base::chain::{SegmentEntry, SegmentState};
use base::ids::{LeaderEpoch, Offset, SegmentId, StorageId};

use super::quorum;

/// What the leader of one open segment knows of its members (replication.md 2.5 and 2.7).
///
/// Invariants: the high watermark never falls; once frozen, it does not pass the frozen end, whatever is acknowledged
/// later, because an edit that ends the segment there may be under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SegmentLeader {
    segment: SegmentId,
    epoch: LeaderEpoch,
    own: StorageId,
    ack_quorum: usize,
    copies_min: usize,
    acked: Vec<(StorageId, Offset)>,
    copied: BTreeSet<StorageId>,
    /// Members that may have lost what they acknowledged.
    distrusted: BTreeSet<StorageId>,
    high_watermark: Offset,
    frozen: Option<Offset>,
}

impl SegmentLeader {
    /// Begins to lead an open segment, all of whose members hold what lies below its base. `own` is the leader's
    /// storage; `copies_min` is the lesser of `min.insync.replicas` and the replication factor. `None` unless the
    /// segment is open and `own` a member.
    pub fn new(entry: &SegmentEntry, own: StorageId, copies_min: usize) -> Option<SegmentLeader> {
        let SegmentState::Open { ensemble } = &entry.state else { return None };
        ensemble.iter().any(|member| member.storage == own).then(|| SegmentLeader {
            segment: entry.id,
            epoch: entry.last_epoch(),
            own,
            ack_quorum: entry.ack_quorum as usize,
            copies_min,
            acked: ensemble.iter().map(|member| (member.storage, entry.base)).collect(),
            copied: BTreeSet::new(),
            distrusted: BTreeSet::new(),
            high_watermark: entry.base,
            frozen: None,
        })
    }

    /// The segment.
    pub fn segment(&self) -> SegmentId {
        self.segment
    }

    /// The epoch it is written in.
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Everything below is committed: readers may have it, and producers with acks=all are answered.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Where the segment is to end, once that is settled.
    pub fn frozen(&self) -> Option<Offset> {
        self.frozen
    }

    /// A member, the leader's own storage included, holds everything below `end` durably. Acknowledgements may come
    /// late, twice and out of order, and from storages that are no members. True when the high watermark moved.
    pub fn acked(&mut self, storage: StorageId, end: Offset) -> bool {
        let Some((_, acked)) = self.acked.iter_mut().find(|(member, _)| *member == storage) else {
            return false;
        };
        *acked = end.max(*acked);
        let ends = self.acked.iter().map(|(_, end)| *end);
        let Some(committed) = quorum::nth_largest(ends, self.ack_quorum) else { return false };
        let committed = self.frozen.map_or(committed, |end| committed.min(end));
        let moves = committed > self.high_watermark;
        self.high_watermark = committed.max(self.high_watermark);
        moves
    }

    /// Settles where the segment ends: as late as `copies_min` members, the leader among them, hold everything, so
    /// that the seal waits for nobody. Where there are too few members for that, at the leader's own end, and others
    /// must copy it first ([`SegmentLeader::copies_missing`]). An end that was settled before stays.
    pub fn freeze(&mut self) -> Offset {
        let own = self.end_of(self.own);
        let held = quorum::nth_largest(self.acked.iter().map(|(_, end)| *end), self.copies_min);
        self.freeze_at(held.unwrap_or(own).min(own))
    }

    /// Settles that the segment ends at `end`, or at the high watermark if that is later: for a roll that nothing
    /// forces, at the leader's own end, which members then acknowledge. An end that was settled before stays.
    pub fn freeze_at(&mut self, end: Offset) -> Offset {
        *self.frozen.get_or_insert(end.max(self.high_watermark))
    }

    /// A storage that is no member copied everything below the frozen end. It counts for the seal, never for the high
    /// watermark.
    pub fn copied(&mut self, storage: StorageId) {
        if self.frozen.is_some() {
            self.copied.insert(storage);
        }
    }

    /// A member may have lost what it acknowledged: it counts for the seal only once it copied everything anew.
    pub fn distrust(&mut self, member: StorageId) {
        self.distrusted.insert(member);
    }

    /// How many copies more the seal needs.
    pub fn copies_missing(&self) -> usize {
        self.copies_min.saturating_sub(self.holders().len())
    }

    /// What to seal: the frozen end and who holds everything below it. `None` before there are enough, the leader
    /// among them.
    pub fn seal(&self) -> Option<(Offset, Vec<StorageId>)> {
        let end = self.frozen?;
        let holders = self.holders();
        (holders.len() >= self.copies_min && holders.contains(&self.own)).then_some((end, holders))
    }

    fn holders(&self) -> Vec<StorageId> {
        let Some(end) = self.frozen else { return Vec::new() };
        let members = self.acked.iter().filter(|(_, acked)| *acked >= end).map(|(member, _)| *member);
        let mut holders: BTreeSet<StorageId> =
            members.filter(|member| !self.distrusted.contains(member)).collect();
        holders.extend(&self.copied);
        holders.into_iter().collect()
    }

    fn end_of(&self, storage: StorageId) -> Offset {
        let member = self.acked.iter().find(|(member, _)| *member == storage);
        member.map_or(self.high_watermark, |(_, end)| *end)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{partition, storage};
    use super::*;

    fn leader(members: u8, ack_quorum: u32, copies_min: usize) -> SegmentLeader {
        SegmentLeader::new(partition(members, ack_quorum).last(), storage(1), copies_min).unwrap()
    }

    #[test]
    fn the_slowest_member_says_what_is_committed() {
        let mut leader = leader(3, 3, 2);
        assert!(!leader.acked(storage(1), 20));
        assert!(!leader.acked(storage(2), 15));
        assert!(leader.acked(storage(3), 12));
        assert_eq!(leader.high_watermark(), 12);
        // Late, and from nobody's member.
        assert!(!leader.acked(storage(3), 11));
        assert!(!leader.acked(storage(9), 99));
        assert_eq!(leader.high_watermark(), 12);
    }

    #[test]
    fn nothing_beyond_a_frozen_end_is_committed() {
        let mut leader = leader(3, 3, 2);
        leader.acked(storage(1), 20);
        leader.acked(storage(2), 15);
        assert_eq!(leader.freeze(), 15);
        assert_eq!(leader.seal(), Some((15, vec![storage(1), storage(2)])));
        for number in 1..=3 {
            leader.acked(storage(number), 20);
        }
        assert_eq!(leader.high_watermark(), 15);
        assert_eq!(leader.freeze_at(20), 15);
    }

    #[test]
    fn who_may_have_lost_what_it_acknowledged_does_not_hold_it() {
        let mut leader = leader(3, 3, 2);
        for number in 1..=3 {
            leader.acked(storage(number), 20);
        }
        leader.freeze_at(20);
        leader.distrust(storage(3));
        assert_eq!(leader.seal(), Some((20, vec![storage(1), storage(2)])));
        leader.distrust(storage(2));
        assert_eq!((leader.seal(), leader.copies_missing()), (None, 1));
        leader.copied(storage(3));
        assert_eq!(leader.seal(), Some((20, vec![storage(1), storage(3)])));
        assert_eq!(leader.high_watermark(), 20, "it was committed all the same");
    }

    #[test]
    fn too_few_members_need_copies_first() {
        let mut leader = leader(1, 1, 2);
        leader.acked(storage(1), 20);
        assert_eq!((leader.freeze(), leader.copies_missing()), (20, 1));
        assert_eq!(leader.seal(), None);
        leader.copied(storage(4));
        assert_eq!(leader.seal(), Some((20, vec![storage(1), storage(4)])));
    }

    #[test]
    fn a_leader_seals_only_what_it_holds_itself() {
        let mut leader = leader(3, 2, 2);
        leader.acked(storage(2), 20);
        leader.acked(storage(3), 20);
        // Two of three hold it: committed, although the leader's own disk is behind.
        assert_eq!((leader.high_watermark(), leader.freeze()), (20, 20));
        assert_eq!(leader.seal(), None);
        leader.acked(storage(1), 20);
        assert_eq!(leader.seal(), Some((20, vec![storage(1), storage(2), storage(3)])));
    }
}
