//! A partition as a chain of segments, and the edits a chain may undergo.
//!
//! ```text
//!   log start            sealed                sealed            open
//!       │     ┌──────────────────────────┬──────────────────┬─────────────→
//!       └────►│ id 7, epoch 3, gen 1     │ id 12, epoch 4   │ id 15, epoch 6
//!             └──────────────────────────┴──────────────────┴─────────────→
//!             base                    end = base          end = base
//! ```
//!
//! Invariants, checked by every edit (replication.md sections 2.2 and 2.3):
//! - entries touch: `entries[k].end == entries[k + 1].base`; leader epochs never fall along the chain;
//! - only the last entry may be open; a chain whose last entry is sealed is closed for good;
//! - `(end, crc, bytes)` of a sealed entry never change, except that [`PartitionState::replace`]
//!   puts one new generation in the place of a run of them, over the same offsets;
//! - `log_start` and `version` never fall; an idle partition's chain does not grow.
//!
//! Pure values: the metadata state machine applies the edits, leaders and readers look things up.
//! A chain may begin at any offset and leader epoch. What it does not do: know which bytes exist.

use crate::ids::{BrokerId, Generation, Incarnation, LeaderEpoch, Offset, SegmentId, StorageId};

/// How a segment's bytes are kept. More kinds (foreign, object) come with their own features;
/// the number is part of the metadata format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum SegmentKind {
    /// One append-only file on each replica's storage.
    #[default]
    Replicated = 1,
}

impl SegmentKind {
    /// The kind for a stored number; `None` for a kind this version does not know.
    pub fn from_number(number: u32) -> Option<SegmentKind> {
        (number == 1).then_some(SegmentKind::Replicated)
    }
}

/// One storage that takes part in an open segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// The broker that runs the storage.
    pub broker: BrokerId,
    /// The log directory.
    pub storage: StorageId,
    /// The life of the broker that was a member; a restarted broker is not.
    pub incarnation: Incarnation,
}

/// Whether a segment still grows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SegmentState {
    /// The leader appends; every member holds a prefix.
    Open {
        /// The storages that must hold a record before it is committed.
        ensemble: Vec<Member>,
    },
    /// Ended for ever.
    Sealed {
        /// Offset after the last one covered.
        end: Offset,
        /// CRC32C over the whole file.
        crc: u32,
        /// Length of the file, bytes.
        bytes: u64,
        /// Storages known to hold all of it.
        replicas: Vec<StorageId>,
    },
}

/// One link of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SegmentEntry {
    /// Unique for ever.
    pub id: SegmentId,
    /// How the bytes are kept.
    pub kind: SegmentKind,
    /// Count of rewrites.
    pub generation: Generation,
    /// First offset covered.
    pub base: Offset,
    /// Leader epochs and the offset at which each begins, ascending; the first begins at or below
    /// `base`. One pair for a segment as written, several for a rewrite of a run of segments.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// How many members must hold a record before it is committed (Qa); today always all of them.
    pub ack_quorum: u32,
    /// Open or sealed.
    pub state: SegmentState,
    /// Set when an unclean election may have lost committed records in this range.
    pub unclean: bool,
}

impl SegmentEntry {
    /// Whether a storage holds the segment, or is to.
    pub fn is_on(&self, storage: StorageId) -> bool {
        match &self.state {
            SegmentState::Open { ensemble } => ensemble.iter().any(|member| member.storage == storage),
            SegmentState::Sealed { replicas, .. } => replicas.contains(&storage),
        }
    }

    /// Offset after the last one covered; `None` while open.
    pub fn end(&self) -> Option<Offset> {
        match &self.state {
            SegmentState::Open { .. } => None,
            SegmentState::Sealed { end, .. } => Some(*end),
        }
    }

    /// True while the segment grows.
    pub fn is_open(&self) -> bool {
        matches!(self.state, SegmentState::Open { .. })
    }

    /// The epoch in which the last record of this segment was (or is) written.
    pub fn last_epoch(&self) -> LeaderEpoch {
        self.epochs.last().map_or(LeaderEpoch(-1), |(epoch, _)| *epoch)
    }
}

/// A partition as the metadata log knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionState {
    /// Raised by every edit.
    pub version: u64,
    /// Who may write.
    pub leader: BrokerId,
    /// Raised by every election.
    pub leader_epoch: LeaderEpoch,
    /// Where copies are wanted.
    pub placement: Vec<BrokerId>,
    /// Brokers that are not of the placement and keep what they have of sealed segments all the same: where others take
    /// new segments without copying old ones.
    pub keepers: Vec<BrokerId>,
    /// First offset a reader may ask for; may lie inside a segment.
    pub log_start: Offset,
    /// Compaction has done a whole pass over everything below: of the keys written there, the segments
    /// hold one record each. Goes back with an unclean seal alone.
    pub compacted_to: Offset,
    /// The leader was elected although it may lack records that were committed: it may end the chain where the best copy
    /// that is left does (replication.md 2.9). Over with the next segment, and with the election of another broker.
    pub unclean: bool,
    /// Members of the open segment that may have lost records of it, by their own account ("limbo", replication.md 2.10).
    pub doubtful: Vec<StorageId>,
    /// The segments, oldest first; never empty.
    pub chain: Vec<SegmentEntry>,
}

/// The segment that an edit opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSegment {
    /// A fresh id.
    pub id: SegmentId,
    /// Its ensemble; the leader's storage is a member.
    pub ensemble: Vec<Member>,
    /// Its ack quorum.
    pub ack_quorum: u32,
}

/// What takes the place of a run of sealed segments (compaction, coalescing; replication.md 2.15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// The run, exactly as it stands in the chain.
    pub old: Vec<(SegmentId, Generation)>,
    /// The new segment: sealed, and covering the same offsets.
    pub new: SegmentEntry,
    /// Where the compaction pass that this rewrite completes ended; the old value for one that completes
    /// none.
    pub compacted_to: Offset,
    /// The epoch in which the caller leads: the log of a later leader would not see the rewrite. `None` for one that a
    /// former version made, which did not say.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// What a seal states about the segment it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The open segment to end; compared with the chain's last entry.
    pub segment: SegmentId,
    /// The epoch in which the caller leads.
    pub leader_epoch: LeaderEpoch,
    /// Where it ends.
    pub end: Offset,
    /// CRC32C over the file up to `end`.
    pub crc: u32,
    /// Length of the file up to `end`, bytes.
    pub bytes: u64,
    /// Storages that hold everything below `end`.
    pub holders: Vec<StorageId>,
    /// Nobody knows whether records that were committed are missing: all copies that could tell are gone, and the
    /// chain ends where the best of the others does (replication.md 2.9). One holder is enough then, and the segment need
    /// not be the open one: those behind it leave the chain.
    pub unclean: bool,
}

/// An edit that does not fit the chain as it is. The caller reads the chain anew or steps down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Another edit came first: the named segment is not (or no longer) where the edit expects it.
    #[error("segment {0} is not the one the chain has there")]
    StaleSegment(SegmentId),
    /// The caller's epoch is not the current one.
    #[error("leader epoch {asked} is not the current {current}")]
    StaleEpoch {
        /// Epoch of the caller.
        asked: LeaderEpoch,
        /// Epoch of the partition.
        current: LeaderEpoch,
    },
    /// An offset lies outside what the edit may touch.
    #[error("offset {0} is out of range for this edit")]
    BadOffset(Offset),
    /// Fewer copies than `min.insync.replicas` asks for.
    #[error("{have} copies, {need} needed")]
    TooFewCopies {
        /// Copies named by the edit.
        have: usize,
        /// Copies needed.
        need: usize,
    },
    /// The leader was not elected to lose records.
    #[error("the leader of epoch {0} was elected to keep all records")]
    CleanLeader(LeaderEpoch),
    /// A member of the new segment is not of its broker's present life, or takes no segments.
    #[error(
        "broker {0} is fenced, or not registered with the storage and incarnation that the ensemble names, or the \
         storage takes no segments"
    )]
    ForeignMember(BrokerId),
    /// No broker has the storage, or it is lost.
    #[error("no broker has storage {0}, or it is lost")]
    UnknownStorage(StorageId),
    /// Copies are wanted of nobody, of somebody twice, or of a broker that was never registered.
    #[error(
        "a placement names one or more registered brokers, each once, and other registered ones as keepers"
    )]
    BadPlacement,
    /// A copy is not what was sealed.
    #[error("the copy's CRC is {found:08x}, that of the segment is {sealed:08x}")]
    WrongCrc {
        /// CRC32C of the copy.
        found: u32,
        /// CRC32C that the segment was sealed with.
        sealed: u32,
    },
    /// The leader keeps no copy of the new segment.
    #[error("the ensemble lacks the leader, broker {0}")]
    LeaderNotMember(BrokerId),
}

impl PartitionState {
    /// A new partition: one open segment at `base`, in epoch `leader_epoch`.
    pub fn create(
        leader: BrokerId,
        leader_epoch: LeaderEpoch,
        placement: Vec<BrokerId>,
        base: Offset,
        first: NewSegment,
    ) -> PartitionState {
        let open = open_entry(first, base, leader_epoch);
        PartitionState {
            version: 0,
            leader,
            leader_epoch,
            placement,
            keepers: Vec::new(),
            log_start: base,
            compacted_to: base,
            unclean: false,
            doubtful: Vec::new(),
            chain: vec![open],
        }
    }

    /// The last entry; for a chain that is not closed this is the open one.
    pub fn last(&self) -> &SegmentEntry {
        self.chain.last().expect("a chain is never empty")
    }

    /// The entry that covers `offset`, or will cover it once written.
    pub fn entry_for(&self, offset: Offset) -> Option<&SegmentEntry> {
        let after = self.chain.partition_point(|entry| entry.base <= offset);
        let entry = self.chain.get(after.checked_sub(1)?)?;
        entry.end().is_none_or(|end| offset < end).then_some(entry)
    }

    /// Whether a segment of this base and generation will never be listed again, if it ever was: what lies there now is
    /// as late a rewrite, or the offset was trimmed. Judged by a chain of long ago, too, it is true for ever.
    pub fn has_outlived(&self, base: Offset, generation: Generation) -> bool {
        match self.entry_for(base) {
            Some(entry) => !entry.is_open() && generation <= entry.generation,
            None => base < self.chain[0].base,
        }
    }

    /// Makes `leader` the leader in `epoch`, if that is the next one.
    ///
    /// # Errors
    /// [`ChainError::StaleEpoch`]: another election came first.
    pub fn elect_in(&mut self, leader: BrokerId, epoch: LeaderEpoch) -> Result<(), ChainError> {
        if epoch.0 != self.leader_epoch.0 + 1 {
            return Err(ChainError::StaleEpoch { asked: epoch, current: self.leader_epoch });
        }
        self.elect(leader);
        Ok(())
    }

    /// As [`PartitionState::elect_in`], of a leader that may end the chain where the best copy that is left does.
    ///
    /// # Errors
    /// [`ChainError::StaleEpoch`]: another election came first.
    pub fn elect_unclean_in(&mut self, leader: BrokerId, epoch: LeaderEpoch) -> Result<(), ChainError> {
        self.elect_in(leader, epoch)?;
        self.unclean = true;
        Ok(())
    }

    /// Notes that members of the open segment may have lost records of it. Those that are noted already, and storages that
    /// are no members, change nothing.
    ///
    /// # Errors
    /// [`ChainError::StaleSegment`] unless the segment is the open one.
    pub fn doubt(&mut self, segment: SegmentId, storages: &[StorageId]) -> Result<(), ChainError> {
        let last = self.last();
        if last.id != segment || !last.is_open() {
            return Err(ChainError::StaleSegment(segment));
        }
        let is_new = |storage: &&StorageId| last.is_on(**storage) && !self.doubtful.contains(*storage);
        let new: Vec<StorageId> = storages.iter().filter(is_new).copied().collect();
        if !new.is_empty() {
            self.doubtful.extend(new);
            self.version += 1;
        }
        Ok(())
    }

    /// Members of the open segment that are not known to have lost anything of it; none where it is not open.
    pub fn sure_members(&self) -> impl Iterator<Item = &Member> {
        let members: &[Member] = match &self.last().state {
            SegmentState::Open { ensemble } => ensemble,
            SegmentState::Sealed { .. } => &[],
        };
        members.iter().filter(|member| !self.doubtful.contains(&member.storage))
    }

    /// Notes that a storage holds a whole copy of a sealed segment. One that is noted already changes nothing.
    ///
    /// # Errors
    /// [`ChainError::StaleSegment`] unless the segment is in the chain and sealed, [`ChainError::WrongCrc`].
    pub fn add_replica(
        &mut self,
        segment: (SegmentId, Generation),
        storage: StorageId,
        crc: u32,
    ) -> Result<(), ChainError> {
        let (sealed, replicas) = self.sealed_mut(segment)?;
        if crc != sealed {
            return Err(ChainError::WrongCrc { found: crc, sealed });
        }
        if !replicas.contains(&storage) {
            replicas.push(storage);
            self.version += 1;
        }
        Ok(())
    }

    /// Takes a storage from those that hold a sealed segment, of which at least `copies_min` must remain. One that is
    /// not among them changes nothing.
    ///
    /// # Errors
    /// [`ChainError::StaleSegment`] unless the segment is in the chain and sealed, [`ChainError::TooFewCopies`].
    pub fn drop_replica(
        &mut self,
        segment: (SegmentId, Generation),
        storage: StorageId,
        copies_min: usize,
    ) -> Result<(), ChainError> {
        let (_, replicas) = self.sealed_mut(segment)?;
        let Some(at) = replicas.iter().position(|replica| *replica == storage) else { return Ok(()) };
        let have = replicas.len() - 1;
        if have < copies_min {
            return Err(ChainError::TooFewCopies { have, need: copies_min });
        }
        replicas.remove(at);
        self.version += 1;
        Ok(())
    }

    /// Says where copies are wanted, and who besides keeps those of sealed segments. Chains follow one by one.
    pub fn set_placement(&mut self, placement: Vec<BrokerId>, keepers: Vec<BrokerId>) {
        if placement != self.placement || keepers != self.keepers {
            self.placement = placement;
            self.keepers = keepers;
            self.version += 1;
        }
    }

    /// CRC and holders of a sealed segment.
    fn sealed_mut(
        &mut self,
        segment: (SegmentId, Generation),
    ) -> Result<(u32, &mut Vec<StorageId>), ChainError> {
        let stale = ChainError::StaleSegment(segment.0);
        let entry = self.chain.iter_mut().find(|entry| (entry.id, entry.generation) == segment);
        match entry.map(|entry| &mut entry.state) {
            Some(SegmentState::Sealed { crc, replicas, .. }) => Ok((*crc, replicas)),
            _ => Err(stale),
        }
    }

    /// How many storages the open segment is written to; 0 where none is open.
    pub fn open_members(&self) -> usize {
        match &self.last().state {
            SegmentState::Open { ensemble } => ensemble.len(),
            SegmentState::Sealed { .. } => 0,
        }
    }

    /// Makes `leader` the leader in the next epoch.
    pub fn elect(&mut self, leader: BrokerId) {
        self.unclean &= self.leader == leader;
        self.leader = leader;
        self.leader_epoch.0 += 1;
        self.version += 1;
    }

    /// Ends the open segment and opens the next, at once (replication.md 2.3). A segment that ends
    /// empty leaves the chain, so that idle partitions never grow theirs.
    ///
    /// `copies_min` is the least number of holders and of members (`min.insync.replicas`, at most
    /// the replication factor).
    ///
    /// # Errors
    /// [`ChainError`]; the chain is unchanged then.
    pub fn seal_and_open(
        &mut self,
        seal: &Seal,
        next: NewSegment,
        copies_min: usize,
    ) -> Result<(), ChainError> {
        let stale = ChainError::StaleSegment(seal.segment);
        let at = self.chain.iter().rposition(|entry| entry.id == seal.segment).ok_or(stale.clone())?;
        let entry = &self.chain[at];
        let is_last = at + 1 == self.chain.len() && entry.is_open();
        if !self.last().is_open() || !(is_last || seal.unclean) {
            return Err(stale);
        }
        if seal.leader_epoch != self.leader_epoch {
            return Err(ChainError::StaleEpoch { asked: seal.leader_epoch, current: self.leader_epoch });
        }
        if seal.unclean && !self.unclean {
            return Err(ChainError::CleanLeader(self.leader_epoch));
        }
        if seal.end < entry.base || entry.end().is_some_and(|end| seal.end > end) {
            return Err(ChainError::BadOffset(seal.end));
        }
        let (holders_min, members_min) = if seal.unclean { (1, 1) } else { (copies_min, copies_min) };
        for (have, need) in [(seal.holders.len(), holders_min), (next.ensemble.len(), members_min)] {
            if have < need {
                return Err(ChainError::TooFewCopies { have, need });
            }
        }
        self.chain.truncate(at + 1);
        self.end_last(seal);
        let base = if seal.unclean { seal.end.max(self.log_start) } else { seal.end };
        let mut open = open_entry(next, base, self.leader_epoch);
        // Where nothing of the segment is left that was cut, the one behind tells.
        open.unclean = seal.unclean && self.chain.len() <= at;
        self.chain.push(open);
        self.unclean = false;
        self.doubtful.clear();
        self.compacted_to = self.compacted_to.min(self.last().base);
        self.version += 1;
        Ok(())
    }

    /// Seals the last segment; one that ends empty leaves the chain, and one that is cut at the log start or before it.
    fn end_last(&mut self, seal: &Seal) {
        let is_below_start = seal.unclean && seal.end <= self.log_start;
        let Some(last) = self.chain.last_mut() else { return };
        if seal.end == last.base || is_below_start {
            self.chain.pop();
            return;
        }
        last.state = SegmentState::Sealed {
            end: seal.end,
            crc: seal.crc,
            bytes: seal.bytes,
            replicas: seal.holders.clone(),
        };
        last.unclean |= seal.unclean;
        if seal.unclean {
            // A rewrite that is cut loses the epochs that begin behind the cut.
            last.epochs.retain(|(_, start)| *start < seal.end);
        }
    }

    /// Raises the log start; segments that end at or below it leave the chain and are returned.
    /// A start at or below the present one changes nothing.
    ///
    /// # Errors
    /// [`ChainError::BadOffset`] beyond the end of a closed chain. The leader guards the bound that
    /// only it knows: the high watermark.
    pub fn trim(&mut self, start: Offset) -> Result<Vec<SegmentEntry>, ChainError> {
        if start <= self.log_start {
            return Ok(Vec::new());
        }
        if self.last().end().is_some_and(|end| start > end) {
            return Err(ChainError::BadOffset(start));
        }
        let keep_last = self.chain.len() - 1;
        let dropped =
            self.chain.iter().take(keep_last).take_while(|e| e.end().is_some_and(|end| end <= start));
        let count = dropped.count();
        self.log_start = start;
        self.version += 1;
        Ok(self.chain.drain(..count).collect())
    }

    /// Puts a rewrite in the place of what it rewrites. Returns the entries that left.
    ///
    /// # Errors
    /// [`ChainError::StaleSegment`] unless the run stands in the chain exactly as named;
    /// [`ChainError::StaleEpoch`] when another leader was elected meanwhile; [`ChainError::BadOffset`] unless the new
    /// segment is sealed and covers the same offsets, and `compacted_to` lies in the sealed part;
    /// [`ChainError::TooFewCopies`] below `copies_min` replicas.
    pub fn replace(&mut self, rewrite: Rewrite, copies_min: usize) -> Result<Vec<SegmentEntry>, ChainError> {
        let Rewrite { old, new, compacted_to, leader_epoch } = rewrite;
        if let Some(asked) = leader_epoch.filter(|asked| *asked != self.leader_epoch) {
            return Err(ChainError::StaleEpoch { asked, current: self.leader_epoch });
        }
        let stale = || ChainError::StaleSegment(old.first().map_or(new.id, |(id, _)| *id));
        let first = old.first().ok_or_else(stale)?;
        let at = self.chain.iter().position(|e| (e.id, e.generation) == *first).ok_or_else(stale)?;
        let run = self.chain.get(at..at + old.len()).ok_or_else(stale)?;
        if !run
            .iter()
            .zip(&old)
            .all(|(entry, name)| (entry.id, entry.generation) == *name && !entry.is_open())
        {
            return Err(stale());
        }
        let end = run.last().and_then(SegmentEntry::end);
        let SegmentState::Sealed { end: new_end, replicas, .. } = &new.state else {
            return Err(ChainError::BadOffset(new.base));
        };
        if new.base != run[0].base || Some(*new_end) != end {
            return Err(ChainError::BadOffset(*new_end));
        }
        if replicas.len() < copies_min {
            return Err(ChainError::TooFewCopies { have: replicas.len(), need: copies_min });
        }
        let sealed_end = self.last().end().unwrap_or(self.last().base);
        if compacted_to > sealed_end {
            return Err(ChainError::BadOffset(compacted_to));
        }
        let removed = self.chain.splice(at..at + old.len(), [new]).collect();
        self.compacted_to = self.compacted_to.max(compacted_to);
        self.version += 1;
        Ok(removed)
    }

    /// Kafka's OffsetForLeaderEpoch (KIP-279): the largest epoch at most `asked` that has records,
    /// and the offset after its last one. `log_end` is the end the leader may show. When every record
    /// is of a later epoch, `asked` itself ends where the first of those begins, as in Kafka. `None`
    /// when `asked` is negative or later than the current epoch. Epochs of which every record lies below the log start
    /// are gone, and the next begins there, however the chain is cut into segments.
    pub fn epoch_end(&self, asked: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        if asked == self.leader_epoch {
            return Some((asked, log_end));
        }
        if asked > self.leader_epoch || asked == LeaderEpoch(-1) {
            return None;
        }
        let mut found = None;
        for (epoch, start) in self.chain.iter().flat_map(|entry| &entry.epochs) {
            if *start <= self.log_start {
                found = None;
            }
            let start = (*start).max(self.log_start);
            match found {
                _ if *epoch <= asked => found = Some((*epoch, log_end)),
                Some((before, _)) => return Some((before, start)),
                None => return Some((asked, start)),
            }
        }
        found
    }
}

fn open_entry(new: NewSegment, base: Offset, epoch: LeaderEpoch) -> SegmentEntry {
    SegmentEntry {
        id: new.id,
        kind: SegmentKind::Replicated,
        generation: Generation(0),
        base,
        epochs: vec![(epoch, base)],
        ack_quorum: new.ack_quorum,
        state: SegmentState::Open { ensemble: new.ensemble },
        unclean: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Uuid;

    const STORAGE: StorageId = Uuid([1; 16]);

    fn segment(id: u64) -> NewSegment {
        let member = Member { broker: BrokerId(1), storage: STORAGE, incarnation: Incarnation(1) };
        NewSegment { id: SegmentId(id), ensemble: vec![member], ack_quorum: 1 }
    }

    fn seal(id: u64, epoch: i32, end: Offset) -> Seal {
        Seal {
            segment: SegmentId(id),
            leader_epoch: LeaderEpoch(epoch),
            end,
            crc: 9,
            bytes: 100,
            holders: vec![STORAGE],
            unclean: false,
        }
    }

    fn partition() -> PartitionState {
        PartitionState::create(BrokerId(1), LeaderEpoch(0), vec![BrokerId(1)], 0, segment(1))
    }

    /// Segments [0,10) [10,20) in epoch 0, [20,30) in epoch 2, open at 30 in epoch 2.
    fn grown() -> PartitionState {
        let mut p = partition();
        p.seal_and_open(&seal(1, 0, 10), segment(2), 1).unwrap();
        p.seal_and_open(&seal(2, 0, 20), segment(3), 1).unwrap();
        p.elect(BrokerId(1));
        p.elect(BrokerId(1));
        p.seal_and_open(&seal(3, 2, 20), segment(4), 1).unwrap();
        p.seal_and_open(&seal(4, 2, 30), segment(5), 1).unwrap();
        p
    }

    #[test]
    fn entries_touch_and_empty_segments_leave_the_chain() {
        let p = grown();
        let bounds: Vec<_> = p.chain.iter().map(|e| (e.id.0, e.base, e.end())).collect();
        assert_eq!(bounds, [(1, 0, Some(10)), (2, 10, Some(20)), (4, 20, Some(30)), (5, 30, None)]);
    }

    #[test]
    fn what_is_sealed_trimmed_or_rewritten_since_is_outlived() {
        let mut p = grown();
        let outlived = |p: &PartitionState, base, generation| p.has_outlived(base, Generation(generation));
        // One that was never listed because another leader sealed further, and the empty one at 20.
        assert!(outlived(&p, 15, 0) && outlived(&p, 20, 0));
        // One that is being made to follow the open one, and a rewrite that is being made.
        assert!(!outlived(&p, 30, 0) && !outlived(&p, 31, 0) && !outlived(&p, 10, 1));
        p.trim(12).unwrap();
        assert!(outlived(&p, 0, 0) && outlived(&p, 0, 1) && !outlived(&p, 10, 1));
    }

    #[test]
    fn a_second_seal_of_the_same_segment_is_stale() {
        let mut p = partition();
        p.seal_and_open(&seal(1, 0, 10), segment(2), 1).unwrap();
        let before = p.clone();
        assert_eq!(
            p.seal_and_open(&seal(1, 0, 10), segment(3), 1),
            Err(ChainError::StaleSegment(SegmentId(1)))
        );
        assert_eq!(p, before);
    }

    #[test]
    fn an_old_leader_cannot_seal() {
        let mut p = partition();
        p.elect(BrokerId(2));
        assert!(matches!(
            p.seal_and_open(&seal(1, 0, 10), segment(2), 1),
            Err(ChainError::StaleEpoch { .. })
        ));
    }

    #[test]
    fn a_seal_needs_enough_copies() {
        let mut p = partition();
        let error = p.seal_and_open(&seal(1, 0, 10), segment(2), 2);
        assert_eq!(error, Err(ChainError::TooFewCopies { have: 1, need: 2 }));
    }

    #[test]
    fn an_unclean_seal_needs_one_copy_and_shows_in_the_chain() {
        let mut p = partition();
        let unclean = Seal { unclean: true, ..seal(1, 1, 10) };
        assert_eq!(
            p.seal_and_open(&Seal { leader_epoch: LeaderEpoch(0), ..unclean.clone() }, segment(2), 2),
            Err(ChainError::CleanLeader(LeaderEpoch(0)))
        );
        p.elect_unclean_in(BrokerId(1), LeaderEpoch(1)).unwrap();
        p.seal_and_open(&unclean, segment(2), 2).unwrap();
        assert!(!p.unclean, "the licence is used up");
        assert!(p.chain[0].unclean && !p.chain[1].unclean);
        let mut p = partition();
        p.elect_unclean_in(BrokerId(1), LeaderEpoch(1)).unwrap();
        let of_none = Seal { holders: Vec::new(), ..unclean };
        assert!(matches!(p.seal_and_open(&of_none, segment(2), 2), Err(ChainError::TooFewCopies { .. })));
    }

    #[test]
    fn an_unclean_seal_may_cut_the_chain_and_the_epochs_show_it() {
        let unclean = |id, end| Seal { unclean: true, ..seal(id, 3, end) };
        let elected = |log_start| {
            let mut p = grown();
            p.trim(log_start).unwrap();
            p.compacted_to = 25;
            p.elect_unclean_in(BrokerId(1), LeaderEpoch(3)).unwrap();
            p
        };
        let mut p = elected(0);
        for (id, end) in [(2, 9), (2, 21), (4, 31)] {
            assert_eq!(p.seal_and_open(&unclean(id, end), segment(9), 1), Err(ChainError::BadOffset(end)));
        }
        p.seal_and_open(&unclean(2, 15), segment(9), 2).unwrap();
        let ids: Vec<_> =
            p.chain.iter().map(|entry| (entry.id.0, entry.base, entry.end(), entry.unclean)).collect();
        assert_eq!(ids, [(1, 0, Some(10), false), (2, 10, Some(15), true), (9, 15, None, false)]);
        assert_eq!((p.compacted_to, p.leader_epoch), (15, LeaderEpoch(3)));
        assert_eq!(p.epoch_end(LeaderEpoch(2), 15), Some((LeaderEpoch(0), 15)));
        // A clean seal takes nothing away.
        assert!(p.seal_and_open(&seal(1, 3, 5), segment(10), 1).is_err());
        let mut empty = elected(0);
        empty.seal_and_open(&unclean(2, 10), segment(9), 1).unwrap();
        let ids: Vec<_> = empty.chain.iter().map(|entry| (entry.id.0, entry.unclean)).collect();
        assert_eq!(ids, [(1, false), (9, true)]);
        let mut below = elected(17);
        below.seal_and_open(&unclean(2, 15), segment(9), 1).unwrap();
        assert_eq!((below.chain.len(), below.last().base, below.log_start), (1, 17, 17));
    }

    #[test]
    fn a_licence_to_lose_records_is_the_elected_brokers_own() {
        let mut p = partition();
        p.elect_unclean_in(BrokerId(2), LeaderEpoch(1)).unwrap();
        p.elect(BrokerId(2));
        assert!(p.unclean, "it began a new life");
        p.elect(BrokerId(3));
        assert!(!p.unclean);
    }

    #[test]
    fn doubt_is_of_members_of_the_open_segment_and_ends_with_it() {
        let mut p = partition();
        let version = p.version;
        p.doubt(SegmentId(1), &[Uuid([7; 16])]).unwrap();
        assert_eq!((p.version, p.sure_members().count()), (version, 1));
        assert_eq!(p.doubt(SegmentId(2), &[STORAGE]), Err(ChainError::StaleSegment(SegmentId(2))));
        p.doubt(SegmentId(1), &[STORAGE]).unwrap();
        p.doubt(SegmentId(1), &[STORAGE]).unwrap();
        assert_eq!((p.version, p.sure_members().count()), (version + 1, 0));
        p.seal_and_open(&seal(1, 0, 10), segment(2), 1).unwrap();
        assert!(p.doubtful.is_empty());
    }

    #[test]
    fn an_election_is_of_the_next_epoch() {
        let mut p = partition();
        p.elect_in(BrokerId(2), LeaderEpoch(1)).unwrap();
        assert_eq!((p.leader, p.leader_epoch, p.version), (BrokerId(2), LeaderEpoch(1), 1));
        for epoch in [1, 3] {
            let result = p.elect_in(BrokerId(3), LeaderEpoch(epoch));
            let (asked, current) = (LeaderEpoch(epoch), LeaderEpoch(1));
            assert_eq!(result, Err(ChainError::StaleEpoch { asked, current }));
        }
    }

    #[test]
    fn copies_of_sealed_segments_come_and_go() {
        let mut p = grown();
        let other = Uuid([2; 16]);
        let name = |id| (SegmentId(id), Generation(0));
        assert_eq!(p.add_replica(name(1), other, 8), Err(ChainError::WrongCrc { found: 8, sealed: 9 }));
        for stale in [name(5), name(3), (SegmentId(1), Generation(1))] {
            assert_eq!(p.add_replica(stale, other, 9), Err(ChainError::StaleSegment(stale.0)));
            assert_eq!(p.drop_replica(stale, other, 1), Err(ChainError::StaleSegment(stale.0)));
        }
        let version = p.version;
        p.add_replica(name(1), other, 9).unwrap();
        p.add_replica(name(1), other, 9).unwrap();
        assert_eq!(p.version, version + 1);
        assert_eq!(p.drop_replica(name(1), STORAGE, 2), Err(ChainError::TooFewCopies { have: 1, need: 2 }));
        p.drop_replica(name(1), STORAGE, 1).unwrap();
        p.drop_replica(name(1), STORAGE, 1).unwrap();
        let SegmentState::Sealed { replicas, .. } = &p.chain[0].state else { panic!("sealed") };
        assert_eq!((replicas, p.version), (&vec![other], version + 2));
        p.set_placement(vec![BrokerId(2)], vec![BrokerId(1)]);
        p.set_placement(vec![BrokerId(2)], vec![BrokerId(1)]);
        assert_eq!((p.placement, p.version), (vec![BrokerId(2)], version + 3));
    }

    #[test]
    fn trim_drops_whole_segments_and_never_goes_back() {
        let mut p = grown();
        let dropped: Vec<_> = p.trim(25).unwrap().into_iter().map(|e| e.id.0).collect();
        assert_eq!((dropped, p.log_start), (vec![1, 2], 25));
        assert!(p.trim(5).unwrap().is_empty());
        assert_eq!(p.log_start, 25);
        let dropped: Vec<_> = p.trim(35).unwrap().into_iter().map(|e| e.id.0).collect();
        assert_eq!((dropped, p.log_start, p.chain.len()), (vec![4], 35, 1));
    }

    #[test]
    fn replace_takes_exactly_the_named_run() {
        let mut p = grown();
        let new = SegmentEntry {
            id: SegmentId(6),
            generation: Generation(1),
            epochs: vec![(LeaderEpoch(0), 0)],
            state: SegmentState::Sealed { end: 20, crc: 1, bytes: 50, replicas: vec![STORAGE] },
            ..p.chain[0].clone()
        };
        let run = vec![(SegmentId(1), Generation(0)), (SegmentId(2), Generation(0))];
        let leader_epoch = Some(LeaderEpoch(2));
        let rewrite = |old, compacted_to| Rewrite { old, new: new.clone(), compacted_to, leader_epoch };
        assert!(p.clone().replace(rewrite(run[..1].to_vec(), 20), 1).is_err());
        assert!(p.clone().replace(rewrite(vec![run[1], run[0]], 20), 1).is_err());
        assert_eq!(p.clone().replace(rewrite(run.clone(), 31), 1), Err(ChainError::BadOffset(31)));
        let late = Rewrite { leader_epoch: Some(LeaderEpoch(1)), ..rewrite(run.clone(), 15) };
        let (asked, current) = (LeaderEpoch(1), LeaderEpoch(2));
        assert_eq!(p.clone().replace(late, 1), Err(ChainError::StaleEpoch { asked, current }));
        let unsaid = Rewrite { leader_epoch: None, ..rewrite(run.clone(), 15) };
        assert_eq!(p.clone().replace(unsaid, 1).map(|removed| removed.len()), Ok(2));
        let removed = p.replace(rewrite(run.clone(), 15), 1).unwrap();
        assert_eq!((removed.len(), p.compacted_to), (2, 15));
        assert_eq!(p.chain[0], new);
        assert!(p.replace(rewrite(run, 20), 1).is_err());
    }

    #[test]
    fn lookup_finds_the_covering_segment() {
        let mut p = grown();
        let id = |p: &PartitionState, offset| p.entry_for(offset).map(|e| e.id.0);
        assert_eq!([0, 9, 10, 29, 30, 1000].map(|o| id(&p, o)), [1, 1, 2, 4, 5, 5].map(Some));
        p.trim(20).unwrap();
        assert_eq!(id(&p, 19), None);
    }

    #[test]
    fn epoch_end_follows_kip_279() {
        let p = grown();
        assert_eq!(p.epoch_end(LeaderEpoch(2), 37), Some((LeaderEpoch(2), 37)));
        assert_eq!(p.epoch_end(LeaderEpoch(1), 37), Some((LeaderEpoch(0), 20)));
        assert_eq!(p.epoch_end(LeaderEpoch(0), 37), Some((LeaderEpoch(0), 20)));
        assert_eq!(p.epoch_end(LeaderEpoch(3), 37), None);
        let mut trimmed = p;
        trimmed.trim(30).unwrap();
        assert_eq!(trimmed.epoch_end(LeaderEpoch(1), 37), Some((LeaderEpoch(1), 30)));
        assert_eq!(trimmed.epoch_end(LeaderEpoch(-1), 37), None);
        assert_eq!(trimmed.epoch_end(LeaderEpoch(-5), 37), Some((LeaderEpoch(-5), 30)));
    }

    #[test]
    fn epochs_end_in_the_same_place_however_the_chain_is_cut() {
        let cut = grown();
        let mut joined = cut.clone();
        let new = SegmentEntry {
            generation: Generation(1),
            epochs: vec![(LeaderEpoch(0), 0), (LeaderEpoch(2), 20)],
            state: SegmentState::Sealed { end: 30, crc: 1, bytes: 50, replicas: vec![STORAGE] },
            ..cut.chain[0].clone()
        };
        let old = cut.chain[..3].iter().map(|entry| (entry.id, entry.generation)).collect();
        joined.replace(Rewrite { old, new, compacted_to: 0, leader_epoch: None }, 1).unwrap();
        for start in 0..=30 {
            for partition in [&mut joined, &mut cut.clone()] {
                partition.trim(start).unwrap();
                let end = |asked| partition.epoch_end(LeaderEpoch(asked), 37);
                let (zero, one) = match start {
                    0..20 => ((LeaderEpoch(0), 20), (LeaderEpoch(0), 20)),
                    // As Kafka's cache of epochs, which is cut at the log start.
                    start => ((LeaderEpoch(0), start), (LeaderEpoch(1), start)),
                };
                let expected = [None, Some(zero), Some(one), Some((LeaderEpoch(2), 37)), None];
                assert_eq!([-1, 0, 1, 2, 3].map(end), expected, "log start {start}");
            }
        }
    }
}
