//! A storage's copies of one partition's segments: what it accepts, and what it may say of itself.

use std::collections::BTreeMap;

use base::ids::{Incarnation, LeaderEpoch, Offset, SegmentId};

/// How a storage began its present life (replication.md 2.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    /// What it had acknowledged is there: everything was synced, or the process alone had ended.
    Whole,
    /// Bytes that were acknowledged from the page cache may be gone ("limbo"): of segments of earlier lives it can
    /// say what it has, not what it never had.
    Doubtful,
}

/// What a fenced storage answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FenceAnswer {
    /// Offset after the last record it holds durably; the segment's base if it holds none.
    pub end: Offset,
    /// Whether nothing it ever acknowledged lies beyond `end`. Others do not count in a recovery.
    pub authoritative: bool,
}

/// Why an append, a fence or a copy was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Nack {
    /// A later epoch was promised.
    #[error("epoch {0} was promised")]
    Fenced(LeaderEpoch),
    /// The ensemble names another life of this storage: what was opened before a restart takes no more.
    #[error("the ensemble does not name the present life of the storage, {0}")]
    StaleIncarnation(Incarnation),
    /// Records between the copy's end, which is given, and those sent are missing.
    #[error("the copy ends at {0}")]
    Gap(Offset),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Copy {
    base: Offset,
    end: Offset,
}

/// All that a storage knows of one partition. The caller makes every change durable before it answers for it.
///
/// Invariants: the promised epoch never falls; a copy's end falls only by [`PartitionReplica::cut`] and with a crash;
/// a segment of an earlier life takes no appends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionReplica {
    promised: LeaderEpoch,
    incarnation: Incarnation,
    /// Segments up to this one are older than the present life.
    older_than_life: Option<SegmentId>,
    life: Life,
    copies: BTreeMap<SegmentId, Copy>,
}

impl PartitionReplica {
    /// A storage in its first life, without copies.
    pub fn new(incarnation: Incarnation) -> PartitionReplica {
        PartitionReplica {
            promised: LeaderEpoch(-1),
            incarnation,
            older_than_life: None,
            life: Life::Whole,
            copies: BTreeMap::new(),
        }
    }

    /// The present life.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The epoch that was promised: writers of earlier ones are refused.
    pub fn promised(&self) -> LeaderEpoch {
        self.promised
    }

    /// Offset after the last record of a segment's copy; `None` without one.
    pub fn end(&self, segment: SegmentId) -> Option<Offset> {
        self.copies.get(&segment).map(|copy| copy.end)
    }

    /// A new life, registered as `incarnation` when `newest` was the newest segment of all. Doubt that was never
    /// dispelled stays for the segments it was about.
    pub fn restarted(&mut self, incarnation: Incarnation, newest: SegmentId, life: Life) {
        self.incarnation = incarnation;
        if life == Life::Doubtful || self.life == Life::Whole {
            self.older_than_life = Some(newest);
            self.life = life;
        }
    }

    /// What a copy held from `end` on is gone: a crash took it, or the segment was sealed there.
    pub fn cut(&mut self, segment: SegmentId, end: Offset) {
        if let Some(copy) = self.copies.get_mut(&segment) {
            copy.end = copy.end.min(end.max(copy.base));
        }
    }

    /// Records from `from` up to `end`, written in `epoch`, for a segment that begins at `base` and whose ensemble
    /// names this storage's life as `named`. Returns the copy's end, also where it held them all before.
    ///
    /// # Errors
    /// [`Nack`]; nothing is taken then.
    pub fn append(
        &mut self,
        (segment, base): (SegmentId, Offset),
        epoch: LeaderEpoch,
        named: Incarnation,
        (from, end): (Offset, Offset),
    ) -> Result<Offset, Nack> {
        if epoch < self.promised {
            return Err(Nack::Fenced(self.promised));
        }
        if named != self.incarnation {
            return Err(Nack::StaleIncarnation(self.incarnation));
        }
        let have = self.end(segment).unwrap_or(base);
        if from > have {
            return Err(Nack::Gap(have));
        }
        Ok(self.take(segment, base, epoch, end))
    }

    /// Promises `epoch` and says what is held of a segment that begins at `base`.
    ///
    /// # Errors
    /// [`Nack::Fenced`] where a later epoch was promised.
    pub fn fence(
        &mut self,
        (segment, base): (SegmentId, Offset),
        epoch: LeaderEpoch,
    ) -> Result<FenceAnswer, Nack> {
        if epoch < self.promised {
            return Err(Nack::Fenced(self.promised));
        }
        self.promised = epoch;
        let in_doubt = self.life == Life::Doubtful && self.older_than_life.is_some_and(|old| segment <= old);
        Ok(FenceAnswer { end: self.end(segment).unwrap_or(base), authoritative: !in_doubt })
    }

    /// Everything of a segment below `end`, from the leader of `epoch`, for a storage that need not be a member: it
    /// promises the epoch first. Returns the copy's end.
    ///
    /// # Errors
    /// [`Nack::Fenced`] where a later epoch was promised.
    pub fn copy_up(
        &mut self,
        (segment, base): (SegmentId, Offset),
        epoch: LeaderEpoch,
        end: Offset,
    ) -> Result<Offset, Nack> {
        if epoch < self.promised {
            return Err(Nack::Fenced(self.promised));
        }
        Ok(self.take(segment, base, epoch, end))
    }

    fn take(&mut self, segment: SegmentId, base: Offset, epoch: LeaderEpoch, end: Offset) -> Offset {
        self.promised = epoch.max(self.promised);
        let copy = self.copies.entry(segment).or_insert(Copy { base, end: base });
        copy.end = copy.end.max(end);
        copy.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: (SegmentId, Offset) = (SegmentId(1), 10);
    const LIFE: Incarnation = Incarnation(7);

    fn epoch(number: i32) -> LeaderEpoch {
        LeaderEpoch(number)
    }

    #[test]
    fn records_come_in_order_and_as_often_as_they_like() {
        let mut replica = PartitionReplica::new(LIFE);
        assert_eq!(replica.append(FIRST, epoch(0), LIFE, (10, 12)), Ok(12));
        assert_eq!(replica.append(FIRST, epoch(0), LIFE, (10, 12)), Ok(12));
        assert_eq!(replica.append(FIRST, epoch(0), LIFE, (13, 15)), Err(Nack::Gap(12)));
        assert_eq!(replica.append(FIRST, epoch(0), LIFE, (11, 15)), Ok(15));
    }

    #[test]
    fn a_fence_shuts_out_earlier_epochs_for_every_segment() {
        let mut replica = PartitionReplica::new(LIFE);
        replica.append(FIRST, epoch(0), LIFE, (10, 12)).unwrap();
        let answer = FenceAnswer { end: 12, authoritative: true };
        assert_eq!(replica.fence(FIRST, epoch(2)), Ok(answer));
        assert_eq!(replica.append(FIRST, epoch(1), LIFE, (12, 13)), Err(Nack::Fenced(epoch(2))));
        let second = (SegmentId(2), 12);
        assert_eq!(replica.append(second, epoch(1), LIFE, (12, 13)), Err(Nack::Fenced(epoch(2))));
        assert_eq!(replica.fence(FIRST, epoch(1)), Err(Nack::Fenced(epoch(2))));
        assert_eq!(replica.copy_up(FIRST, epoch(1), 20), Err(Nack::Fenced(epoch(2))));
        assert_eq!(replica.copy_up(FIRST, epoch(3), 20), Ok(20));
        assert_eq!(replica.promised(), epoch(3));
    }

    #[test]
    fn a_restart_ends_every_membership() {
        let mut replica = PartitionReplica::new(LIFE);
        replica.append(FIRST, epoch(0), LIFE, (10, 12)).unwrap();
        let next = Incarnation(8);
        replica.restarted(next, SegmentId(1), Life::Whole);
        assert_eq!(replica.append(FIRST, epoch(0), LIFE, (12, 13)), Err(Nack::StaleIncarnation(next)));
        // It knows what it has, and so what it never had.
        let answer = FenceAnswer { end: 12, authoritative: true };
        assert_eq!(replica.fence(FIRST, epoch(1)), Ok(answer));
        assert_eq!(replica.append((SegmentId(2), 12), epoch(1), next, (12, 13)), Ok(13));
    }

    #[test]
    fn doubt_is_about_all_segments_before_the_crash_and_outlives_a_clean_restart() {
        let mut replica = PartitionReplica::new(LIFE);
        replica.append(FIRST, epoch(0), LIFE, (10, 12)).unwrap();
        replica.cut(SegmentId(1), 11);
        replica.restarted(Incarnation(8), SegmentId(2), Life::Doubtful);
        replica.restarted(Incarnation(9), SegmentId(3), Life::Whole);
        for (segment, authoritative) in [(1, false), (2, false), (3, true), (4, true)] {
            let answer = replica.fence((SegmentId(segment), 10), epoch(1)).unwrap();
            assert_eq!(answer.authoritative, authoritative, "segment {segment}");
        }
        assert_eq!(replica.end(SegmentId(1)), Some(11));
    }
}
