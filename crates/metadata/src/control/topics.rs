//! Topics: names, creation, growth, deletion.

use std::sync::Arc;

use base::chain::{NewSegment, PartitionState};
use base::error::ErrorCode;
use base::ids::{BrokerId, LeaderEpoch, SegmentId, TopicId};

use crate::command::{NewTopic, Placement, Refusal, Resource};
use crate::image::{Image, Topic};

/// Longest topic name, as in Kafka: with a partition number it still makes a file name.
pub const TOPIC_NAME_LENGTH_MAX: usize = 249;

/// Most partitions one topic may have; bounds what one request makes us hold.
pub const TOPIC_PARTITIONS_MAX: usize = 100_000;

/// Checks a name by Kafka's rules.
///
/// # Errors
/// `INVALID_TOPIC_EXCEPTION`.
pub fn check_name(name: &str) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Refusal::new(ErrorCode::InvalidTopicException, message));
    if name.is_empty() {
        return refuse("A topic name is not empty.".to_owned());
    }
    if name == "." || name == ".." {
        return refuse(format!("A topic cannot be called `{name}`."));
    }
    if name.len() > TOPIC_NAME_LENGTH_MAX {
        return refuse(format!("A topic name has at most {TOPIC_NAME_LENGTH_MAX} characters."));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        return refuse(format!(
            "`{name}` has characters other than ASCII letters, digits, `.`, `_` and `-`."
        ));
    }
    Ok(())
}

/// Creates a topic. One that stands there with this id and name already is the work of an earlier try.
pub(super) fn create(image: &mut Image, new: NewTopic) -> Result<(), Refusal> {
    check_name(&new.name)?;
    if let Some(present) = image.topic(&new.name) {
        if present.id == new.id {
            return Ok(());
        }
        let message = format!("Topic `{}` exists.", new.name);
        return Err(Refusal::new(ErrorCode::TopicAlreadyExists, message));
    }
    // Metric names take `.` and `_` for the same, so two topics must not differ in them alone.
    if let Some(twin) = image.metric_twin(&new.name) {
        let message = format!("Topic `{}` differs from `{}` only in `.` and `_`.", new.name, twin.name);
        return Err(Refusal::new(ErrorCode::InvalidTopicException, message));
    }
    if new.id.is_zero() || image.topics.contains_key(&new.id) {
        return Err(Refusal::new(ErrorCode::InvalidRequest, "The topic's id is zero or taken."));
    }
    check_placements(image, &new.placements)?;
    let partitions = new.placements.into_iter().map(|placement| Arc::new(open(image, placement))).collect();
    let name: Arc<str> = new.name.as_str().into();
    image.insert_topic(Topic { id: new.id, name, internal: new.internal, partitions });
    if !new.configs.is_empty() {
        image.configs.insert(Resource::Topic(new.name), Arc::new(new.configs.into_iter().collect()));
    }
    Ok(())
}

fn check_placements(image: &Image, placements: &[Placement]) -> Result<(), Refusal> {
    if placements.is_empty() || placements.len() > TOPIC_PARTITIONS_MAX {
        let message = format!("A topic has 1 to {TOPIC_PARTITIONS_MAX} partitions.");
        return Err(Refusal::new(ErrorCode::InvalidPartitions, message));
    }
    for placement in placements {
        let Some(leader) = placement.brokers.first() else {
            return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, "A partition needs a broker."));
        };
        super::chains::check_ensemble(image, *leader, &placement.ensemble).map_err(|error| {
            Refusal::new(ErrorCode::InvalidReplicaAssignment, format!("Partition: {error}."))
        })?;
    }
    Ok(())
}

fn open(image: &mut Image, placement: Placement) -> PartitionState {
    image.next_segment_id += 1;
    let id = SegmentId(image.next_segment_id);
    let ack_quorum = u32::try_from(placement.ensemble.len()).unwrap_or(u32::MAX);
    let first = NewSegment { id, ensemble: placement.ensemble, ack_quorum };
    let leader = placement.brokers.first().copied().unwrap_or(BrokerId(-1));
    PartitionState::create(leader, LeaderEpoch(0), placement.brokers, 0, first)
}

pub(super) fn grow(
    image: &mut Image,
    id: TopicId,
    present: i32,
    placements: Vec<Placement>,
) -> Result<(), Refusal> {
    let Some(topic) = image.topics.get(&id).cloned() else { return Err(unknown()) };
    if usize::try_from(present).ok() != Some(topic.partitions.len()) {
        let message = format!("The topic has {} partitions by now.", topic.partitions.len());
        return Err(Refusal::new(ErrorCode::InvalidPartitions, message));
    }
    check_placements(image, &placements)?;
    if topic.partitions.len() + placements.len() > TOPIC_PARTITIONS_MAX {
        let message = format!("A topic has at most {TOPIC_PARTITIONS_MAX} partitions.");
        return Err(Refusal::new(ErrorCode::InvalidPartitions, message));
    }
    let mut topic = (*topic).clone();
    for placement in placements {
        topic.partitions.push_back(Arc::new(open(image, placement)));
    }
    image.topics.insert(id, Arc::new(topic));
    Ok(())
}

pub(super) fn delete(image: &mut Image, id: TopicId) -> Result<(), Refusal> {
    let Some(topic) = image.remove_topic(id) else { return Err(unknown()) };
    image.configs.remove(&Resource::Topic(topic.name.to_string()));
    Ok(())
}

fn unknown() -> Refusal {
    Refusal::new(ErrorCode::UnknownTopicId, "There is no topic with this id.")
}
