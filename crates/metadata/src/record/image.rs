//! Images: the content of a snapshot.

use std::sync::Arc;

use base::ids::Incarnation;
use prost::Message;

use super::chain::PartitionRecord;
use super::command::{ConfigRecord, RegistrationRecord, ResourceRecord, StorageRecord, metadata_version};
use super::{RecordError, required, uuid};
use crate::image::{Broker, Image, Topic};
use crate::proposals::{Applied, Proposers};

#[derive(Clone, PartialEq, Message)]
struct ImageRecord {
    #[prost(uint64, tag = "1")]
    version: u64,
    #[prost(bytes = "vec", tag = "2")]
    cluster_id: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    brokers: Vec<BrokerRecord>,
    #[prost(message, repeated, tag = "4")]
    topics: Vec<TopicRecord>,
    #[prost(message, repeated, tag = "5")]
    configs: Vec<ConfiguredRecord>,
    #[prost(uint64, tag = "6")]
    next_segment_id: u64,
    #[prost(int64, tag = "7")]
    next_producer_id: i64,
    #[prost(int64, tag = "8")]
    next_incarnation: i64,
    #[prost(int32, tag = "9")]
    metadata_version: i32,
    #[prost(int32, tag = "10")]
    next_broker_id: i32,
    #[prost(message, repeated, tag = "11")]
    proposers: Vec<ProposerRecord>,
}

/// The last proposal of a proposer that was applied.
#[derive(Clone, PartialEq, Message)]
struct ProposerRecord {
    #[prost(bytes = "vec", tag = "1")]
    proposer: Vec<u8>,
    #[prost(uint64, tag = "2")]
    sequence: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
}

#[derive(Clone, PartialEq, Message)]
struct BrokerRecord {
    #[prost(message, optional, tag = "1")]
    registration: Option<RegistrationRecord>,
    #[prost(int64, tag = "2")]
    incarnation: i64,
    #[prost(bool, tag = "3")]
    fenced: bool,
    #[prost(message, repeated, tag = "4")]
    storages: Vec<StorageRecord>,
    #[prost(bool, tag = "5")]
    draining: bool,
}

#[derive(Clone, PartialEq, Message)]
struct TopicRecord {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(bool, tag = "3")]
    internal: bool,
    #[prost(message, repeated, tag = "4")]
    partitions: Vec<PartitionRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct ConfiguredRecord {
    #[prost(message, optional, tag = "1")]
    resource: Option<ResourceRecord>,
    #[prost(message, repeated, tag = "2")]
    values: Vec<ConfigRecord>,
}

/// An image as bytes: equal images give equal bytes.
pub(crate) fn encode_image(image: &Image) -> Vec<u8> {
    let topic = |topic: &Arc<Topic>| TopicRecord {
        id: topic.id.0.to_vec(),
        name: topic.name.to_string(),
        internal: topic.internal,
        partitions: topic.partitions.iter().map(|state| PartitionRecord::from(&**state)).collect(),
    };
    let broker = |broker: &Arc<Broker>| BrokerRecord {
        registration: Some((&broker.registration).into()),
        incarnation: broker.incarnation.0,
        fenced: broker.fenced,
        draining: broker.draining,
        storages: broker.storages.iter().map(|(id, state)| StorageRecord::new(*id, *state)).collect(),
    };
    let record = ImageRecord {
        version: image.version,
        cluster_id: image.cluster_id.0.to_vec(),
        brokers: image.brokers().map(broker).collect(),
        topics: image.topics().map(topic).collect(),
        configs: image
            .configured()
            .map(|(resource, values)| ConfiguredRecord {
                resource: Some(resource.into()),
                values: values.iter().map(|(key, value)| ConfigRecord::new(key, Some(value))).collect(),
            })
            .collect(),
        next_segment_id: image.next_segment_id,
        next_producer_id: image.next_producer_id,
        next_incarnation: image.next_incarnation,
        metadata_version: image.metadata_version.into(),
        next_broker_id: image.next_broker_id,
        proposers: image
            .proposers
            .rows()
            .map(|(proposer, last)| ProposerRecord {
                proposer: proposer.0.to_vec(),
                sequence: last.sequence,
                index: last.index,
            })
            .collect(),
    };
    record.encode_to_vec()
}

fn read_proposers(records: Vec<ProposerRecord>) -> Result<Proposers, RecordError> {
    let row = |record: ProposerRecord| {
        Ok((uuid(&record.proposer)?, Applied { sequence: record.sequence, index: record.index }))
    };
    Ok(Proposers::of(records.into_iter().map(row).collect::<Result<Vec<_>, RecordError>>()?))
}

/// Reads an image back.
pub(crate) fn decode_image(bytes: &[u8]) -> Result<Image, RecordError> {
    let record = ImageRecord::decode(bytes)?;
    let mut image = Image {
        version: record.version,
        cluster_id: uuid(&record.cluster_id)?,
        next_segment_id: record.next_segment_id,
        next_producer_id: record.next_producer_id,
        next_incarnation: record.next_incarnation,
        metadata_version: metadata_version(record.metadata_version)?,
        next_broker_id: record.next_broker_id,
        proposers: read_proposers(record.proposers)?,
        ..Image::default()
    };
    for broker in record.brokers {
        let registration = required(broker.registration, "registration")?.read()?;
        let incarnation = Incarnation(broker.incarnation);
        let storages = broker.storages.into_iter().map(StorageRecord::read).collect::<Result<_, _>>()?;
        let (fenced, draining) = (broker.fenced, broker.draining);
        let broker = Broker { registration, incarnation, fenced, draining, storages };
        image.brokers.insert(broker.registration.broker, Arc::new(broker));
    }
    for topic in record.topics {
        let partitions = topic.partitions.into_iter().map(|state| state.read().map(Arc::new));
        let read = Topic {
            id: uuid(&topic.id)?,
            name: topic.name.into(),
            internal: topic.internal,
            partitions: partitions.collect::<Result<_, _>>()?,
        };
        image.insert_topic(read);
    }
    for configured in record.configs {
        let resource = required(configured.resource, "resource")?.read()?;
        let values = configured.values.into_iter().map(ConfigRecord::read_set);
        image.configs.insert(resource, Arc::new(values.collect::<Result<_, _>>()?));
    }
    Ok(image)
}
