//! Records of `__consumer_offsets` in Kafka's own formats, so that Kafka's tools can read the topic.
//!
//! A key begins with the kind of the record, 16 bits: 0 and 1 an offset, 2 a classic group; higher ones belong to
//! other kinds of groups. A value begins with its version, 16 bits. What is written is what Kafka 4.3 writes:
//! offsets in value version 4 (1 if the client named a retention), groups in value version 3.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use wire::message::group_metadata_value::MemberMetadata;
use wire::message::{GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue};
use wire::{DecodeError, EncodeError, Reader, Writer};

use crate::append::KeyValue;
use crate::group::Group;
use crate::offsets::CommittedOffset;

/// Kind of an offset in topics written before Kafka 0.9; its key has the same fields.
const LEGACY_OFFSET_KIND: i16 = 0;
const OFFSET_KIND: i16 = OffsetCommitKey::RECORD_TYPE;
const GROUP_KIND: i16 = GroupMetadataKey::RECORD_TYPE;
/// Version of the fields of every key.
const KEY_VERSION: i16 = 0;
const GROUP_VALUE_VERSION: i16 = 3;
const OFFSET_VALUE_VERSION: i16 = 4;
const OFFSET_VALUE_VERSION_WITH_EXPIRY: i16 = 1;
const HIGHEST_VALUE_VERSION: i16 = 4;

/// The longest string the formats can hold. Requests that would lead to longer ones are refused when they come in,
/// so that everything a shard holds can be written; reading records refuses longer ones by itself.
pub(crate) const MAX_STRING_BYTES: usize = i16::MAX as usize;

const FITS: &str = "lengths are checked when requests come in";

/// Why a record of the offsets topic cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes are not of the format.
    #[error("malformed record: {0}")]
    Malformed(String),
    /// The value is of a version newer than this software knows.
    #[error("value version {0} is not known")]
    UnknownValueVersion(i16),
}

impl From<DecodeError> for RecordError {
    fn from(error: DecodeError) -> Self {
        RecordError::Malformed(error.to_string())
    }
}

/// A record as read.
#[derive(Debug)]
pub(crate) enum Record<'a> {
    /// An offset; without value a tombstone.
    Offset { key: OffsetCommitKey<'a>, value: Option<CommittedOffset> },
    /// A classic group; without value a tombstone.
    Group { key: GroupMetadataKey<'a>, value: Option<GroupMetadataValue<'a>> },
    /// A record of another type of group, by its kind.
    Other(i16),
}

fn encode(prefix: i16, body: impl FnOnce(&mut Writer) -> Result<(), EncodeError>) -> Bytes {
    let mut writer = Writer::new();
    writer.i16(prefix);
    body(&mut writer).expect(FITS);
    Bytes::from(writer.to_vec())
}

fn offset_key(group: &str, topic: &str, partition: i32) -> Bytes {
    let key = OffsetCommitKey { group: group.into(), topic: topic.into(), partition };
    encode(OFFSET_KIND, |writer| key.encode(writer, KEY_VERSION))
}

fn group_key(group: &str) -> Bytes {
    let key = GroupMetadataKey { group: group.into() };
    encode(GROUP_KIND, |writer| key.encode(writer, KEY_VERSION))
}

/// A committed offset.
pub(crate) fn offset(group: &str, topic: &str, partition: i32, offset: &CommittedOffset) -> KeyValue {
    let value = OffsetCommitValue {
        offset: offset.offset,
        leader_epoch: offset.leader_epoch,
        metadata: Cow::Borrowed(&offset.metadata),
        commit_timestamp: offset.commit_timestamp_ms,
        expire_timestamp: offset.expire_timestamp_ms.unwrap_or(-1),
        topic_id: offset.topic_id,
    };
    let version = match offset.expire_timestamp_ms {
        Some(_) => OFFSET_VALUE_VERSION_WITH_EXPIRY,
        None => OFFSET_VALUE_VERSION,
    };
    let value = encode(version, |writer| value.encode(writer, version));
    KeyValue { key: offset_key(group, topic, partition), value: Some(value) }
}

/// The removal of an offset.
pub(crate) fn offset_tombstone(group: &str, topic: &str, partition: i32) -> KeyValue {
    KeyValue { key: offset_key(group, topic, partition), value: None }
}

/// A group as it stands, with `assignments` in the place of the members' own if given.
pub(crate) fn group(group: &Group, assignments: Option<&BTreeMap<Arc<str>, Bytes>>) -> KeyValue {
    let assignment = |member: &crate::member::Member| match assignments {
        Some(assignments) => assignments.get(&member.id).cloned().unwrap_or_default(),
        None => member.assignment.clone(),
    };
    let members = group.members.values().map(|member| MemberMetadata {
        member_id: Cow::Borrowed(&member.id),
        group_instance_id: member.instance_id.as_deref().map(Cow::Borrowed),
        client_id: Cow::Borrowed(&member.client_id),
        client_host: Cow::Borrowed(&member.client_host),
        rebalance_timeout: member.rebalance_timeout_ms,
        session_timeout: member.session_timeout_ms,
        subscription: Cow::Owned(member.metadata(group.protocol_name.as_deref()).to_vec()),
        assignment: Cow::Owned(assignment(member).to_vec()),
    });
    let value = GroupMetadataValue {
        protocol_type: Cow::Borrowed(group.protocol_type.as_deref().unwrap_or_default()),
        generation: group.generation,
        protocol: group.protocol_name.as_deref().map(Cow::Borrowed),
        leader: group.leader.as_deref().map(Cow::Borrowed),
        current_state_timestamp: group.state_since_ms.unwrap_or(-1),
        members: members.collect(),
    };
    let value = encode(GROUP_VALUE_VERSION, |writer| value.encode(writer, GROUP_VALUE_VERSION));
    KeyValue { key: group_key(&group.id), value: Some(value) }
}

/// The removal of a group.
pub(crate) fn group_tombstone(group: &str) -> KeyValue {
    KeyValue { key: group_key(group), value: None }
}

/// Reads a record.
pub(crate) fn decode<'a>(key: &'a [u8], value: Option<&'a [u8]>) -> Result<Record<'a>, RecordError> {
    let mut reader = Reader::new(key);
    match reader.i16()? {
        LEGACY_OFFSET_KIND | OFFSET_KIND => {
            let key = OffsetCommitKey::decode(&mut reader, KEY_VERSION)?;
            let value = value.map(decode_offset).transpose()?;
            Ok(Record::Offset { key, value })
        }
        GROUP_KIND => {
            let key = GroupMetadataKey::decode(&mut reader, KEY_VERSION)?;
            let value = value.map(decode_group).transpose()?;
            Ok(Record::Group { key, value })
        }
        other if other > GROUP_KIND => Ok(Record::Other(other)),
        other => Err(RecordError::Malformed(format!("kind {other}"))),
    }
}

fn value_version(reader: &mut Reader<'_>) -> Result<i16, RecordError> {
    match reader.i16()? {
        version @ 0..=HIGHEST_VALUE_VERSION => Ok(version),
        version => Err(RecordError::UnknownValueVersion(version)),
    }
}

fn decode_offset(bytes: &[u8]) -> Result<CommittedOffset, RecordError> {
    let mut reader = Reader::new(bytes);
    let version = value_version(&mut reader)?;
    let value = OffsetCommitValue::decode(&mut reader, version)?;
    Ok(CommittedOffset {
        offset: value.offset,
        leader_epoch: value.leader_epoch,
        metadata: value.metadata.into_owned(),
        commit_timestamp_ms: value.commit_timestamp,
        expire_timestamp_ms: (value.expire_timestamp != -1).then_some(value.expire_timestamp),
        topic_id: value.topic_id,
    })
}

fn decode_group(bytes: &[u8]) -> Result<GroupMetadataValue<'_>, RecordError> {
    let mut reader = Reader::new(bytes);
    let version = value_version(&mut reader)?;
    Ok(GroupMetadataValue::decode(&mut reader, version)?)
}
