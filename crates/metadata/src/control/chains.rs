//! Elections and edits of chains.

use std::sync::Arc;

use base::chain::{NewSegment, PartitionState};
use base::ids::{BrokerId, SegmentId, TopicPartition};

use crate::command::{ChainEdit, EditError, Resource, index};
use crate::image::{Image, Topic};

/// Elects `leader` for every partition it leads or is placed on alone.
pub(super) fn elect_all(image: &mut Image, leader: BrokerId) -> usize {
    let mut count = 0;
    let topics: Vec<Arc<Topic>> = image.topics.values().cloned().collect();
    for topic in topics {
        let mut elected = (*topic).clone();
        let mut changed = false;
        for partition in elected.partitions.iter_mut() {
            if partition.leader == leader || partition.placement == [leader] {
                Arc::make_mut(partition).elect(leader);
                count += 1;
                changed = true;
            }
        }
        if changed {
            image.topics.insert(topic.id, Arc::new(elected));
        }
    }
    count
}

/// Applies one edit.
pub(super) fn edit(image: &mut Image, edit: ChainEdit) -> Result<Arc<PartitionState>, EditError> {
    let id = edit.partition();
    let present = image.partition(&id).ok_or(EditError::UnknownPartition)?;
    let mut state = PartitionState::clone(present);
    let copies_min = copies_min(image, &id, state.placement.len());
    match edit {
        ChainEdit::SealAndOpen { seal, ensemble, .. } => {
            let next = SegmentId(image.next_segment_id + 1);
            let ack_quorum = u32::try_from(ensemble.len()).unwrap_or(u32::MAX);
            state.seal_and_open(&seal, NewSegment { id: next, ensemble, ack_quorum }, copies_min)?;
            image.next_segment_id = next.0;
        }
        ChainEdit::Trim { start, .. } => {
            state.trim(start)?;
        }
        ChainEdit::Replace { old, new, .. } => {
            state.replace(&old, new, copies_min)?;
        }
    }
    let state = Arc::new(state);
    store(image, &id, state.clone());
    Ok(state)
}

/// `min.insync.replicas`, at most the replication factor (replication.md section 2.1).
fn copies_min(image: &Image, id: &TopicPartition, replication_factor: usize) -> usize {
    let name = image.topics.get(&id.topic_id).map(|topic| topic.name.to_string()).unwrap_or_default();
    let wanted = [Resource::Topic(name), Resource::AllBrokers]
        .iter()
        .find_map(|resource| image.configs(resource).get("min.insync.replicas")?.parse::<usize>().ok());
    wanted.unwrap_or(1).clamp(1, replication_factor.max(1))
}

fn store(image: &mut Image, id: &TopicPartition, state: Arc<PartitionState>) {
    let (Some(topic), Some(index)) = (image.topics.get_mut(&id.topic_id), index(id.partition)) else { return };
    let topic = Arc::make_mut(topic);
    if index < topic.partitions.len() {
        topic.partitions.set(index, state);
    }
}
