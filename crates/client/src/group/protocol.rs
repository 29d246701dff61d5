//! What consumers put into the opaque fields of the group protocol: subscriptions and assignments.
//!
//! Both begin with their version; a newer version than ours is read as far as ours goes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use wire::message::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use wire::{DecodeError, Reader, Writer};

use crate::{PartitionName, Result};

/// Version in which ours are written: old enough for every client.
const VERSION: i16 = 1;

pub(super) fn write_subscription(topics: &[String]) -> Result<Vec<u8>> {
    let subscription = ConsumerProtocolSubscription {
        topics: topics.iter().map(|topic| Cow::Borrowed(topic.as_str())).collect(),
        ..Default::default()
    };
    let mut writer = Writer::new();
    writer.i16(VERSION);
    subscription.encode(&mut writer, VERSION)?;
    Ok(writer.to_vec())
}

pub(super) fn read_subscription(bytes: &[u8]) -> std::result::Result<Vec<String>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.i16()?.clamp(0, ConsumerProtocolSubscription::VERSIONS.max);
    let subscription = ConsumerProtocolSubscription::decode(&mut reader, version)?;
    Ok(subscription.topics.into_iter().map(Cow::into_owned).collect())
}

pub(super) fn write_assignment(partitions: &[PartitionName]) -> Result<Vec<u8>> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(&partition.topic).or_default().push(partition.partition);
    }
    let topic = |(topic, partitions)| wire::message::consumer_protocol_assignment::TopicPartition {
        topic: Cow::Borrowed(topic),
        partitions,
    };
    let assignment = ConsumerProtocolAssignment {
        assigned_partitions: topics.into_iter().map(topic).collect(),
        ..Default::default()
    };
    let mut writer = Writer::new();
    writer.i16(VERSION);
    assignment.encode(&mut writer, VERSION)?;
    Ok(writer.to_vec())
}

/// The partitions of an assignment; none for empty bytes, which a member without work may get.
pub(crate) fn read_assignment(bytes: &[u8]) -> std::result::Result<Vec<PartitionName>, DecodeError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = Reader::new(bytes);
    let version = reader.i16()?.clamp(0, ConsumerProtocolAssignment::VERSIONS.max);
    let assignment = ConsumerProtocolAssignment::decode(&mut reader, version)?;
    let mut partitions = Vec::new();
    for topic in assignment.assigned_partitions {
        let name: Arc<str> = topic.topic.as_ref().into();
        partitions.extend(topic.partitions.into_iter().map(|index| PartitionName::new(name.clone(), index)));
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_and_assignments_come_back() {
        let topics = ["a".to_owned(), "b".to_owned()];
        let bytes = write_subscription(&topics).unwrap();
        assert_eq!(read_subscription(&bytes).unwrap(), topics);
        // Bytes of a version to come: more fields follow.
        let newer = [&[0, 9][..], &bytes[2..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]].concat();
        assert_eq!(read_subscription(&newer).unwrap(), topics);
        let partitions = [PartitionName::new("a", 0), PartitionName::new("a", 7), PartitionName::new("b", 1)];
        let bytes = write_assignment(&partitions).unwrap();
        assert_eq!(read_assignment(&bytes).unwrap(), partitions);
        assert_eq!(read_assignment(&[]).unwrap(), []);
        assert!(read_assignment(&bytes[..bytes.len() - 5]).is_err());
    }
}
