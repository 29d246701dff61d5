//! OffsetCommit, OffsetFetch and OffsetDelete, and the end of offsets by time or with their topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::error::ErrorCode;
use base::ids::{TimestampMs, TopicId};

use crate::answer::{
    CommittedTopic, FetchedOffset, FetchedTopic, OffsetCommitAnswer, OffsetDeleteAnswer, OffsetFetchAnswer,
};
use crate::append::{AppendId, KeyValue};
use crate::config::GroupConfig;
use crate::group::{Group, GroupState};
use crate::offsets::{CommittedOffset, GroupOffsets, Slot};
use crate::record::{self, MAX_STRING_BYTES};
use crate::request::{
    CommitPartition, FetchTopic, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
};

/// OffsetCommit's "keep it as long as the broker says".
const DEFAULT_RETENTION: i64 = -1;

/// Changes to a group's offsets, ready to be appended; `None` removes.
pub(crate) type Changes = Vec<(Arc<str>, i32, Option<CommittedOffset>)>;

/// The records of some changes.
pub(crate) fn records(group: &str, changes: &[(Arc<str>, i32, Option<CommittedOffset>)]) -> Vec<KeyValue> {
    let record = |(topic, partition, change): &(Arc<str>, i32, Option<CommittedOffset>)| match change {
        Some(offset) => record::offset(group, topic, *partition, offset),
        None => record::offset_tombstone(group, topic, *partition),
    };
    changes.iter().map(record).collect()
}

/// Whether the sender of a commit may commit.
///
/// # Errors
/// The code to answer for every partition.
pub(crate) fn check_commit(group: &Group, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
    if request.generation < 0 && group.state == GroupState::Empty {
        // A tool, or a consumer that assigns its partitions itself.
        return Ok(());
    }
    let instance_id = request.instance_id.as_deref();
    if request.generation >= 0 || !request.member_id.is_empty() || instance_id.is_some() {
        group.check_member(&request.member_id, instance_id)?;
        if request.generation != group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
    } else if group.state != GroupState::Empty {
        return Err(ErrorCode::UnknownMemberId);
    }
    if group.state == GroupState::CompletingRebalance {
        // The generation is right, but its assignment is not made yet, so the member cannot have read under it.
        return Err(ErrorCode::RebalanceInProgress);
    }
    Ok(())
}

/// The changes a commit asks for, and the answer if they go through.
pub(crate) fn commit(
    request: OffsetCommitRequest,
    config: &GroupConfig,
    now_ms: TimestampMs,
) -> (Changes, OffsetCommitAnswer) {
    let expire_timestamp_ms = (request.retention_time_ms != DEFAULT_RETENTION)
        .then(|| now_ms.saturating_add(request.retention_time_ms));
    let mut changes = Changes::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name: Arc<str> = Arc::from(topic.name.as_str());
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let (partition, error) = (asked.partition, check_offset(&topic.name, &asked, config));
            partitions.push((partition, error));
            if error == ErrorCode::None {
                let offset = CommittedOffset {
                    offset: asked.offset,
                    leader_epoch: asked.leader_epoch,
                    metadata: asked.metadata.unwrap_or_default(),
                    commit_timestamp_ms: now_ms,
                    expire_timestamp_ms,
                    topic_id: topic.topic_id,
                };
                changes.push((name.clone(), partition, Some(offset)));
            }
        }
        topics.push(CommittedTopic { name: topic.name, topic_id: topic.topic_id, partitions });
    }
    (changes, OffsetCommitAnswer { topics })
}

fn check_offset(topic: &str, asked: &CommitPartition, config: &GroupConfig) -> ErrorCode {
    if topic.len() > MAX_STRING_BYTES {
        return ErrorCode::InvalidTopicException;
    }
    let metadata = asked.metadata.as_deref().unwrap_or_default();
    // No text has more UTF-16 units than bytes, so most need no counting.
    let fits = metadata.len() <= config.offset_metadata_max_size
        || metadata.encode_utf16().count() <= config.offset_metadata_max_size;
    if fits && metadata.len() <= MAX_STRING_BYTES {
        ErrorCode::None
    } else {
        ErrorCode::OffsetMetadataTooLarge
    }
}

/// The same error for every partition of a commit.
pub(crate) fn commit_error(request: &OffsetCommitRequest, error: ErrorCode) -> OffsetCommitAnswer {
    let topics = request.topics.iter().map(|topic| CommittedTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic.partitions.iter().map(|asked| (asked.partition, error)).collect(),
    });
    OffsetCommitAnswer { topics: topics.collect() }
}

/// The answer to OffsetFetch as the log stands. A group nobody knows is one without offsets. What an append up to
/// `unstable_up_to` changes and is not decided yet is not told.
pub(crate) fn fetch(
    offsets: Option<&GroupOffsets>,
    request: &OffsetFetchRequest,
    unstable_up_to: Option<AppendId>,
) -> OffsetFetchAnswer {
    let topics = match &request.topics {
        Some(topics) => topics.iter().map(|topic| fetch_topic(offsets, topic, unstable_up_to)).collect(),
        None => fetch_all(offsets, unstable_up_to),
    };
    OffsetFetchAnswer { error: ErrorCode::None, topics }
}

fn fetch_topic(
    offsets: Option<&GroupOffsets>,
    topic: &FetchTopic,
    unstable_up_to: Option<AppendId>,
) -> FetchedTopic {
    let fetched = |partition: &i32| {
        let slot = offsets.and_then(|offsets| offsets.slot(&topic.name, *partition));
        fetched_offset(*partition, slot, topic.topic_id, unstable_up_to)
    };
    FetchedTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic.partitions.iter().map(fetched).collect(),
    }
}

fn fetch_all(offsets: Option<&GroupOffsets>, unstable_up_to: Option<AppendId>) -> Vec<FetchedTopic> {
    let mut topics = Vec::new();
    for (name, slots) in offsets.into_iter().flat_map(GroupOffsets::topics) {
        let is_shown = |slot: &Slot| slot.committed().is_some() || is_unstable(slot, unstable_up_to);
        let partitions: Vec<FetchedOffset> = slots
            .iter()
            .filter(|(_, slot)| is_shown(slot))
            .map(|(partition, slot)| fetched_offset(*partition, Some(slot), TopicId::ZERO, unstable_up_to))
            .collect();
        if !partitions.is_empty() {
            topics.push(FetchedTopic { name: name.to_string(), topic_id: TopicId::ZERO, partitions });
        }
    }
    topics
}

fn is_unstable(slot: &Slot, unstable_up_to: Option<AppendId>) -> bool {
    unstable_up_to.is_some_and(|id| slot.is_open_up_to(id))
}

fn fetched_offset(
    partition: i32,
    slot: Option<&Slot>,
    topic_id: TopicId,
    unstable_up_to: Option<AppendId>,
) -> FetchedOffset {
    let none =
        |error| FetchedOffset { partition, error, offset: -1, leader_epoch: -1, metadata: String::new() };
    let Some(slot) = slot else { return none(ErrorCode::None) };
    if is_unstable(slot, unstable_up_to) {
        return none(ErrorCode::UnstableOffsetCommit);
    }
    match slot.committed() {
        Some(committed) if is_same_topic(committed.topic_id, topic_id) => FetchedOffset {
            partition,
            error: ErrorCode::None,
            offset: committed.offset,
            leader_epoch: committed.leader_epoch,
            metadata: committed.metadata.clone(),
        },
        _ => none(ErrorCode::None),
    }
}

/// Ids differ only if both are known.
fn is_same_topic(one: TopicId, other: TopicId) -> bool {
    one.is_zero() || other.is_zero() || one == other
}

/// The changes an OffsetDelete asks for, and the answer if they go through.
///
/// # Errors
/// The code for the group as a whole: NON_EMPTY_GROUP if it has members that do not tell what they read.
pub(crate) fn delete(
    group: &Group,
    offsets: Option<&GroupOffsets>,
    request: &OffsetDeleteRequest,
) -> Result<(Changes, OffsetDeleteAnswer), ErrorCode> {
    if group.state != GroupState::Empty && !group.uses_consumer_protocol() {
        return Err(ErrorCode::NonEmptyGroup);
    }
    let mut changes = Changes::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for (topic, partitions) in &request.topics {
        let is_subscribed = group.is_subscribed_to(topic);
        let error = if is_subscribed { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
        topics.push((topic.clone(), partitions.iter().map(|partition| (*partition, error)).collect()));
        if is_subscribed {
            continue;
        }
        let name: Arc<str> = Arc::from(topic.as_str());
        let has_offset = |partition: &&i32| {
            let slot = offsets.and_then(|offsets| offsets.slot(topic, **partition));
            slot.is_some_and(|slot| slot.latest().is_some())
        };
        changes
            .extend(partitions.iter().filter(has_offset).map(|partition| (name.clone(), *partition, None)));
    }
    Ok((changes, OffsetDeleteAnswer { error: ErrorCode::None, topics }))
}

/// Offsets of deleted topics, which go with them. An offset committed under another id belongs to a new topic
/// of the same name.
pub(crate) fn of_deleted_topics(offsets: &GroupOffsets, deleted: &BTreeMap<&str, TopicId>) -> Changes {
    let mut changes = Changes::new();
    for (topic, slots) in offsets.topics() {
        let Some(deleted_id) = deleted.get(&**topic) else { continue };
        let goes = |slot: &Slot| {
            slot.latest().is_some_and(|offset| offset.topic_id.is_zero() || offset.topic_id == *deleted_id)
        };
        let partitions = slots.iter().filter(|(_, slot)| goes(slot));
        changes.extend(partitions.map(|(partition, _)| (topic.clone(), *partition, None)));
    }
    changes
}

/// All offsets of a group, to be removed with it.
pub(crate) fn all(offsets: Option<&GroupOffsets>) -> Changes {
    let slots = offsets.into_iter().flat_map(GroupOffsets::slots);
    slots
        .filter(|(_, _, slot)| slot.latest().is_some())
        .map(|(topic, partition, _)| (topic.clone(), partition, None))
        .collect()
}

/// Offsets whose time is over, and whether none is left after them.
pub(crate) fn expired(
    group: &Group,
    offsets: Option<&GroupOffsets>,
    retention_ms: i64,
    now_ms: TimestampMs,
) -> (Changes, bool) {
    let Some(offsets) = offsets else { return (Changes::new(), true) };
    let Some(rule) = expiry_rule(group) else { return (Changes::new(), false) };
    let mut changes = Changes::new();
    let mut none_left = true;
    for (topic, partition, slot) in offsets.slots() {
        let is_over = |offset: &CommittedOffset| match offset.expire_timestamp_ms {
            Some(at_ms) => now_ms >= at_ms,
            None => {
                let since_ms = rule.since_ms.unwrap_or(offset.commit_timestamp_ms);
                now_ms.saturating_sub(since_ms) >= retention_ms
            }
        };
        let goes = !slot.is_open() && slot.committed().is_some_and(is_over) && !group.is_subscribed_to(topic);
        if goes {
            changes.push((topic.clone(), partition, None));
        } else {
            none_left = false;
        }
    }
    (changes, none_left)
}

struct ExpiryRule {
    /// Retention counts from here; `None`: from each offset's own commit.
    since_ms: Option<TimestampMs>,
}

/// From when on retention counts, or `None` while no offset of the group may expire:
/// - a group that lost its last member: from then;
/// - a stable consumer group that tells what it reads: from the commit, for topics it no longer reads;
/// - a group without members ever (offsets only): from the commit.
fn expiry_rule(group: &Group) -> Option<ExpiryRule> {
    match group.state {
        _ if group.protocol_type.is_none() => Some(ExpiryRule { since_ms: None }),
        GroupState::Empty => Some(ExpiryRule { since_ms: group.state_since_ms }),
        GroupState::Stable if group.subscribed_topics.is_some() => Some(ExpiryRule { since_ms: None }),
        _ => None,
    }
}
