//! Elections and edits of chains.
//!
//! What `base::chain` cannot know is checked here: which broker lives with which storages, and which
//! names of segments are given. An edit that was made before and whose answer was lost is answered as
//! made (replication.md section 2.3).

use std::sync::Arc;

use base::chain::{
    ChainError, Member, NewSegment, PartitionState, Rewrite, Seal, SegmentEntry, SegmentState,
};
use base::ids::{BrokerId, Generation, SegmentId, StorageId, TopicPartition};

use crate::command::{ChainEdit, EditError, StorageHealth, index};
use crate::image::{Image, Topic};

/// From this `metadata.version` on a rewrite takes the place of segments only where enough of the log directories that hold
/// it can be read: one may have gone for good since it fetched the rewrite.
const REWRITES_ON_WHAT_IS_THERE: i16 = 3;

/// Elects `leader` for every partition it leads or is placed on alone.
pub(super) fn elect_all(image: &mut Image, leader: BrokerId) -> usize {
    let mut count = 0;
    let topics: Vec<Arc<Topic>> = image.topics.values().cloned().collect();
    for topic in topics {
        // Who is placed there but holds nothing yet, because the partition is being moved, cannot lead.
        let is_member = |partition: &PartitionState| match &partition.last().state {
            SegmentState::Open { ensemble } => ensemble.iter().any(|member| member.broker == leader),
            SegmentState::Sealed { .. } => true,
        };
        let concerns = |partition: &PartitionState| {
            partition.leader == leader || (partition.placement == [leader] && is_member(partition))
        };
        if !topic.partitions.iter().any(|partition| concerns(partition)) {
            continue;
        }
        let mut elected = (*topic).clone();
        for partition in elected.partitions.iter_mut() {
            if concerns(partition) {
                Arc::make_mut(partition).elect(leader);
                count += 1;
            }
        }
        image.topics.insert(topic.id, Arc::new(elected));
    }
    count
}

/// Applies one edit.
pub(super) fn edit(image: &mut Image, edit: ChainEdit) -> Result<Arc<PartitionState>, EditError> {
    let id = edit.partition();
    let present = image.partition(&id).ok_or(EditError::UnknownPartition)?.clone();
    let copies_min = image.copies_min(&id, present.placement.len());
    let mut state = PartitionState::clone(&present);
    match edit {
        ChainEdit::SealAndOpen { seal, ensemble, .. } => {
            if was_sealed(&present, &seal, &ensemble) {
                return Ok(present);
            }
            let next = SegmentId(image.next_segment_id + 1);
            let ack_quorum = u32::try_from(ensemble.len()).unwrap_or(u32::MAX);
            let opened = NewSegment { id: next, ensemble: ensemble.clone(), ack_quorum };
            state.seal_and_open(&seal, opened, copies_min)?;
            // After the checks of the chain: a leader of yesterday hears that, not that its life is over.
            check_ensemble(image, present.leader, &ensemble)?;
            image.next_segment_id = next.0;
        }
        ChainEdit::Trim { start, .. } => {
            state.trim(start)?;
        }
        ChainEdit::Replace { rewrite, .. } => {
            if was_replaced(&present, &rewrite) {
                return Ok(present);
            }
            check_rewrite_name(image, &present, &rewrite)?;
            let there = check_copies_there(image, &rewrite.new, copies_min);
            // First the checks of the chain: a leader of yesterday hears that it is one.
            state.replace(rewrite, copies_min)?;
            there?;
        }
        ChainEdit::Elect { leader, epoch, .. } => {
            if (present.leader, present.leader_epoch) == (leader, epoch) {
                return Ok(present);
            }
            state.elect_in(leader, epoch)?;
            check_leader(image, leader)?;
        }
        ChainEdit::ElectUnclean { leader, epoch, .. } => {
            if (present.leader, present.leader_epoch) == (leader, epoch) {
                return Ok(present);
            }
            state.elect_unclean_in(leader, epoch)?;
            check_leader(image, leader)?;
        }
        ChainEdit::Doubt { segment, storages, .. } => state.doubt(segment, &storages)?,
        ChainEdit::AddReplica { segment, storage, crc, .. } => {
            if matches!(image.storage_health(storage), None | Some(StorageHealth::Lost)) {
                return Err(ChainError::UnknownStorage(storage).into());
            }
            state.add_replica(segment, storage, crc)?;
        }
        ChainEdit::DropReplica { segment, storage, .. } => {
            if !matches!(image.storage_health(storage), None | Some(StorageHealth::Lost)) {
                check_drop(image, &present, segment, storage)?;
            }
            state.drop_replica(segment, storage, 0)?;
        }
        ChainEdit::SetPlacement { brokers, keepers, .. } => {
            check_placement(image, &brokers, &keepers)?;
            state.set_placement(brokers, keepers);
        }
    }
    if state.version == present.version {
        return Ok(present);
    }
    let state = Arc::new(state);
    store(image, &id, state.clone());
    Ok(state)
}

/// Whether enough copies of a rewrite are in log directories that can be read, now or once their brokers answer again.
fn check_copies_there(image: &Image, new: &SegmentEntry, need: usize) -> Result<(), ChainError> {
    let SegmentState::Sealed { replicas, .. } = &new.state else { return Ok(()) };
    let is_there =
        |storage: &&StorageId| image.storage_health(**storage).is_some_and(StorageHealth::can_be_read);
    let have = replicas.iter().filter(is_there).count();
    match have < need && image.metadata_version() >= REWRITES_ON_WHAT_IS_THERE {
        true => Err(ChainError::TooFewCopies { have, need }),
        false => Ok(()),
    }
}

/// Whether a broker is there to lead.
fn check_leader(image: &Image, leader: BrokerId) -> Result<(), ChainError> {
    match image.broker(leader).is_some_and(|broker| !broker.fenced) {
        true => Ok(()),
        false => Err(ChainError::ForeignMember(leader)),
    }
}

/// Whether a new segment of a partition led by `leader` may have these members.
pub(super) fn check_ensemble(image: &Image, leader: BrokerId, ensemble: &[Member]) -> Result<(), ChainError> {
    if let Some(foreign) = ensemble.iter().find(|member| !image.is_usable(member)) {
        return Err(ChainError::ForeignMember(foreign.broker));
    }
    if !ensemble.iter().any(|member| member.broker == leader) {
        return Err(ChainError::LeaderNotMember(leader));
    }
    Ok(())
}

/// Whether a copy may go: as many as are wanted remain with brokers that live, so that no record ever has fewer because
/// two brokers gave up theirs at once.
fn check_drop(
    image: &Image,
    state: &PartitionState,
    segment: (SegmentId, Generation),
    storage: StorageId,
) -> Result<(), ChainError> {
    let entry = state.chain.iter().find(|entry| (entry.id, entry.generation) == segment);
    let Some(SegmentState::Sealed { replicas, .. }) = entry.map(|entry| &entry.state) else { return Ok(()) };
    let remains = |replica: &&StorageId| **replica != storage && image.is_readable(**replica);
    let (have, need) = (replicas.iter().filter(remains).count(), state.placement.len());
    if replicas.contains(&storage) && have < need {
        return Err(ChainError::TooFewCopies { have, need });
    }
    Ok(())
}

fn check_placement(image: &Image, brokers: &[BrokerId], keepers: &[BrokerId]) -> Result<(), ChainError> {
    let all = [brokers, keepers].concat();
    let is_new = |(index, broker): (usize, &BrokerId)| !all[..index].contains(broker);
    let is_good = !brokers.is_empty()
        && all.iter().enumerate().all(is_new)
        && all.iter().all(|broker| image.broker(*broker).is_some());
    is_good.then_some(()).ok_or(ChainError::BadPlacement)
}

/// Whether this very edit was made before and nothing since: the open segment is the one it opened, in the
/// same epoch, and the one it ended is sealed as it says or, ended empty, gone.
fn was_sealed(state: &PartitionState, seal: &Seal, ensemble: &[Member]) -> bool {
    let last = state.last();
    let opened = seal.leader_epoch == state.leader_epoch
        && last.id > seal.segment
        && last.epochs == [(seal.leader_epoch, seal.end)]
        && matches!(&last.state, SegmentState::Open { ensemble: members } if members == ensemble);
    if !opened {
        return false;
    }
    match state.chain.iter().rev().nth(1).filter(|entry| entry.id >= seal.segment) {
        Some(entry) => {
            let SegmentState::Sealed { end, crc, .. } = &entry.state else { return false };
            entry.id == seal.segment && (*end, *crc) == (seal.end, seal.crc)
        }
        None => seal.bytes == 0,
    }
}

fn was_replaced(state: &PartitionState, rewrite: &Rewrite) -> bool {
    let Rewrite { old, new, compacted_to, .. } = rewrite;
    state.chain.contains(new)
        && state.compacted_to >= *compacted_to
        && !state.chain.iter().any(|entry| old.contains(&(entry.id, entry.generation)))
}

/// A rewrite must bear a name that no file of the partition has or will have: an id that was given to one
/// of the run, in a later generation, or an id given to none in the chain.
fn check_rewrite_name(
    image: &Image,
    state: &PartitionState,
    Rewrite { old, new, .. }: &Rewrite,
) -> Result<(), ChainError> {
    let taken = |entry: &SegmentEntry| match old.contains(&(entry.id, entry.generation)) {
        true => entry.id == new.id && entry.generation >= new.generation,
        false => (entry.id, entry.generation) == (new.id, new.generation),
    };
    if new.id.0 > image.next_segment_id || state.chain.iter().any(taken) {
        return Err(ChainError::StaleSegment(new.id));
    }
    Ok(())
}

fn store(image: &mut Image, id: &TopicPartition, state: Arc<PartitionState>) {
    let (Some(topic), Some(index)) = (image.topics.get_mut(&id.topic_id), index(id.partition)) else {
        return;
    };
    let topic = Arc::make_mut(topic);
    if index < topic.partitions.len() {
        topic.partitions.set(index, state);
    }
}
