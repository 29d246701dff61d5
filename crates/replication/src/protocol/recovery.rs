//! A new leader finds out where the segment of its predecessor ends.

use std::collections::{BTreeMap, BTreeSet};

use base::chain::{SegmentEntry, SegmentState};
use base::ids::{LeaderEpoch, Offset, SegmentId, StorageId};

use super::quorum;
use super::replica::FenceAnswer;

/// Where the segment ends, settled once and for all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// The end.
    pub end: Offset,
    /// Who holds everything below it.
    pub holders: BTreeSet<StorageId>,
}

/// What a new leader learned from the members of the open segment (replication.md 2.8).
///
/// Invariants: only authoritative answers of members count; an end that was decided never changes, because copies are
/// made up to it; there is nothing to seal before `copies_min` storages hold all of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recovery {
    segment: SegmentId,
    base: Offset,
    epoch: LeaderEpoch,
    members: BTreeSet<StorageId>,
    ack_quorum: usize,
    copies_min: usize,
    ends: BTreeMap<StorageId, Offset>,
    decision: Option<Decision>,
}

impl Recovery {
    /// Begins for the open segment of a chain, in the epoch of the election. `copies_min` is the lesser of
    /// `min.insync.replicas` and the replication factor. `None` for a sealed segment.
    pub fn new(entry: &SegmentEntry, epoch: LeaderEpoch, copies_min: usize) -> Option<Recovery> {
        let SegmentState::Open { ensemble } = &entry.state else { return None };
        Some(Recovery {
            segment: entry.id,
            base: entry.base,
            epoch,
            members: ensemble.iter().map(|member| member.storage).collect(),
            ack_quorum: entry.ack_quorum as usize,
            copies_min,
            ends: BTreeMap::new(),
            decision: None,
        })
    }

    /// The segment and its base.
    pub fn segment(&self) -> (SegmentId, Offset) {
        (self.segment, self.base)
    }

    /// The epoch of the election.
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// A storage that promised the epoch answered. Late answers change nothing that was decided.
    pub fn answered(&mut self, storage: StorageId, answer: FenceAnswer) {
        let counts = answer.authoritative && self.decision.is_none() && self.members.contains(&storage);
        if counts {
            self.ends.insert(storage, answer.end.max(self.base));
        }
    }

    /// Whether so many answered that every committed record is on one of them.
    pub fn is_covered(&self) -> bool {
        self.ends.len() >= quorum::coverage(self.members.len(), self.ack_quorum)
    }

    /// Decides where the segment ends, if enough answered: at the longest copy if `is_small` says of what others would
    /// have to copy, from one offset to another, that it is little; else as late as needs no copying, and never
    /// below what may be committed. The first decision stays.
    pub fn decide(&mut self, is_small: impl FnOnce(Offset, Offset) -> bool) -> Option<&Decision> {
        if self.decision.is_none() && self.is_covered() {
            let ends = || self.ends.values().copied();
            let longest = quorum::nth_largest(ends(), 1)?;
            // As many as the coverage can be behind before a record may still be on a whole quorum.
            let smallest = ends().len() + 1 - quorum::coverage(self.members.len(), self.ack_quorum);
            let committed = quorum::nth_largest(ends(), smallest)?;
            let held = quorum::nth_largest(ends(), self.copies_min.min(ends().len()))?;
            let shortest = committed.max(held);
            let end = if is_small(shortest, longest) { longest } else { shortest };
            let holders = self.ends.iter().filter(|(_, held)| **held >= end).map(|(storage, _)| *storage);
            self.decision = Some(Decision { end, holders: holders.collect() });
        }
        self.decision.as_ref()
    }

    /// The decision, once it is made.
    pub fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }

    /// A storage copied everything below the end that was decided, and promised the epoch.
    pub fn copied(&mut self, storage: StorageId) {
        if let Some(decision) = &mut self.decision {
            decision.holders.insert(storage);
        }
    }

    /// How many copies more the seal needs; `None` before the end is decided.
    pub fn copies_missing(&self) -> Option<usize> {
        let decision = self.decision.as_ref()?;
        Some(self.copies_min.saturating_sub(decision.holders.len()))
    }

    /// What to seal: the end and who holds everything below it. `None` before there are enough: a seal with fewer
    /// would show readers what one more failure takes away.
    pub fn seal(&self) -> Option<(Offset, Vec<StorageId>)> {
        let decision = self.decision.as_ref().filter(|_| self.copies_missing() == Some(0))?;
        Some((decision.end, decision.holders.iter().copied().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{partition, storage};
    use super::*;

    fn recovery(members: u8, ack_quorum: u32, copies_min: usize) -> Recovery {
        Recovery::new(partition(members, ack_quorum).last(), LeaderEpoch(1), copies_min).unwrap()
    }

    fn answer(recovery: &mut Recovery, number: u8, end: Offset) {
        recovery.answered(storage(number), FenceAnswer { end, authoritative: true });
    }

    #[test]
    fn one_survivor_of_a_full_quorum_knows_the_end_but_may_not_be_alone() {
        let mut recovery = recovery(3, 3, 2);
        assert_eq!(recovery.decide(|_, _| true), None);
        answer(&mut recovery, 2, 17);
        assert_eq!(recovery.decide(|_, _| false).unwrap().end, 17);
        assert_eq!((recovery.copies_missing(), recovery.seal()), (Some(1), None));
        // Too late to move the end, and no copy of it.
        answer(&mut recovery, 3, 20);
        assert_eq!(recovery.seal(), None);
        recovery.copied(storage(5));
        assert_eq!(recovery.seal(), Some((17, vec![storage(2), storage(5)])));
    }

    #[test]
    fn a_little_is_copied_rather_than_lost() {
        let mut cheap = recovery(3, 3, 2);
        let mut dear = recovery(3, 3, 2);
        for recovery in [&mut cheap, &mut dear] {
            answer(recovery, 1, 20);
            answer(recovery, 2, 18);
            answer(recovery, 3, 15);
        }
        assert_eq!(cheap.decide(|from, to| (from, to) == (18, 20)).unwrap().end, 20);
        assert_eq!(cheap.copies_missing(), Some(1));
        assert_eq!(dear.decide(|_, _| false).unwrap().end, 18);
        assert_eq!(dear.seal(), Some((18, vec![storage(1), storage(2)])));
    }

    #[test]
    fn a_majority_needs_a_majority_of_answers() {
        let mut recovery = recovery(3, 2, 1);
        answer(&mut recovery, 1, 10);
        assert!(!recovery.is_covered());
        answer(&mut recovery, 2, 14);
        // Member 3 may hold it too, so what member 2 alone shows may be committed.
        assert_eq!(recovery.decide(|_, _| false).unwrap().end, 14);
    }

    #[test]
    fn answers_in_doubt_and_of_strangers_do_not_count() {
        let mut recovery = recovery(2, 2, 1);
        recovery.answered(storage(1), FenceAnswer { end: 12, authoritative: false });
        answer(&mut recovery, 9, 30);
        assert!(!recovery.is_covered());
        answer(&mut recovery, 2, 11);
        assert_eq!(recovery.decide(|_, _| true).unwrap().end, 11);
    }
}
