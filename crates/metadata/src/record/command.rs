//! Commands: the entries of the metadata log.

use base::chain::Rewrite;
use base::ids::{BrokerId, Generation, Incarnation, LeaderEpoch, SegmentId, StorageId};
use prost::{Message, Oneof};

use super::chain::{EntryRecord, MemberRecord, PartitionIdRecord, SealRecord, read_members, write_members};
use super::{RecordError, required, uuid};
use crate::command::{
    ChainEdit, Command, Endpoint, MetadataVersions, NewTopic, Placement, Registration, Resource,
    StorageHealth,
};

#[derive(Clone, PartialEq, Message)]
struct CommandRecord {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Kind {
    #[prost(bytes, tag = "1")]
    Bootstrap(Vec<u8>),
    #[prost(message, tag = "2")]
    RegisterBroker(RegistrationRecord),
    #[prost(message, tag = "3")]
    CreateTopics(CreateTopicsRecord),
    #[prost(message, tag = "4")]
    DeleteTopics(IdsRecord),
    #[prost(message, tag = "5")]
    CreatePartitions(CreatePartitionsRecord),
    #[prost(message, tag = "6")]
    AlterConfigs(AlterConfigsRecord),
    #[prost(int32, tag = "7")]
    ElectAll(i32),
    #[prost(message, tag = "8")]
    Edit(EditsRecord),
    #[prost(int64, tag = "9")]
    AllocateProducerIds(i64),
    #[prost(message, tag = "10")]
    SetFenced(SetFencedRecord),
    #[prost(message, tag = "11")]
    SetStorageHealth(SetStorageHealthRecord),
    #[prost(message, tag = "12")]
    Drain(DrainRecord),
    #[prost(message, tag = "13")]
    FormatCluster(FormatRecord),
    #[prost(int32, tag = "14")]
    SetMetadataVersion(i32),
    #[prost(int32, tag = "15")]
    AllocateBrokerId(i32),
    #[prost(int32, tag = "16")]
    UnregisterBroker(i32),
}

#[derive(Clone, PartialEq, Message)]
struct FormatRecord {
    #[prost(bytes = "vec", tag = "1")]
    cluster_id: Vec<u8>,
    #[prost(int32, tag = "2")]
    metadata_version: i32,
}

/// Reads a level of the metadata. One that this version does not know may come with entries that mean something else to
/// it: it stops before the first of them.
pub(super) fn metadata_version(number: i32) -> Result<i16, RecordError> {
    let most = MetadataVersions::SUPPORTED.max;
    let known = i16::try_from(number).ok().filter(|version| (0..=most).contains(version));
    known.ok_or(RecordError::MetadataVersion(number))
}

#[derive(Clone, PartialEq, Message)]
struct DrainRecord {
    #[prost(int32, tag = "1")]
    broker: i32,
    #[prost(int64, tag = "2")]
    incarnation: i64,
}

#[derive(Clone, PartialEq, Message)]
struct SetFencedRecord {
    #[prost(int32, tag = "1")]
    broker: i32,
    #[prost(int64, tag = "2")]
    incarnation: i64,
    #[prost(bool, tag = "3")]
    fenced: bool,
}

#[derive(Clone, PartialEq, Message)]
struct SetStorageHealthRecord {
    #[prost(int32, tag = "1")]
    broker: i32,
    #[prost(message, optional, tag = "2")]
    storage: Option<StorageRecord>,
}

/// A log directory and what it is good for.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StorageRecord {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    state: u32,
}

impl StorageRecord {
    pub(super) fn new(id: StorageId, state: StorageHealth) -> StorageRecord {
        StorageRecord { id: id.0.to_vec(), state: state as u32 }
    }

    pub(super) fn read(self) -> Result<(StorageId, StorageHealth), RecordError> {
        Ok((uuid(&self.id)?, required(StorageHealth::from_number(self.state), "storage state")?))
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RegistrationRecord {
    #[prost(int32, tag = "1")]
    broker: i32,
    #[prost(message, repeated, tag = "2")]
    listeners: Vec<EndpointRecord>,
    #[prost(string, optional, tag = "3")]
    rack: Option<String>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    storages: Vec<Vec<u8>>,
    /// 0 where it was not told.
    #[prost(int32, tag = "5")]
    metadata_version_min: i32,
    #[prost(int32, tag = "6")]
    metadata_version_max: i32,
    #[prost(int32, optional, tag = "7")]
    min_insync_replicas: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct EndpointRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    host: String,
    #[prost(uint32, tag = "3")]
    port: u32,
}

impl From<&Registration> for RegistrationRecord {
    fn from(registration: &Registration) -> Self {
        let endpoint = |endpoint: &Endpoint| EndpointRecord {
            name: endpoint.name.clone(),
            host: endpoint.host.clone(),
            port: endpoint.port.into(),
        };
        RegistrationRecord {
            broker: registration.broker.0,
            listeners: registration.listeners.iter().map(endpoint).collect(),
            rack: registration.rack.clone(),
            storages: registration.storages.iter().map(|id| id.0.to_vec()).collect(),
            metadata_version_min: registration.metadata_versions.min.into(),
            metadata_version_max: registration.metadata_versions.max.into(),
            min_insync_replicas: registration.min_insync_replicas,
        }
    }
}

impl RegistrationRecord {
    pub(super) fn read(self) -> Result<Registration, RecordError> {
        let endpoint = |endpoint: EndpointRecord| {
            let port = u16::try_from(endpoint.port).map_err(|_| RecordError::Field("port"))?;
            Ok(Endpoint { name: endpoint.name, host: endpoint.host, port })
        };
        let version = |number: i32| i16::try_from(number).map_err(|_| RecordError::Field("metadata.version"));
        let metadata_versions = match (self.metadata_version_min, self.metadata_version_max) {
            (0, 0) => MetadataVersions::UNTOLD,
            (min, max) => MetadataVersions { min: version(min)?, max: version(max)? },
        };
        Ok(Registration {
            metadata_versions,
            broker: BrokerId(self.broker),
            listeners: self.listeners.into_iter().map(endpoint).collect::<Result<_, RecordError>>()?,
            rack: self.rack,
            storages: self.storages.iter().map(|id| uuid(id)).collect::<Result<_, _>>()?,
            min_insync_replicas: self.min_insync_replicas,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct IdsRecord {
    #[prost(bytes = "vec", repeated, tag = "1")]
    ids: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct PlacementRecord {
    #[prost(int32, repeated, tag = "1")]
    brokers: Vec<i32>,
    #[prost(message, repeated, tag = "2")]
    ensemble: Vec<MemberRecord>,
}

fn write_placements(placements: &[Placement]) -> Vec<PlacementRecord> {
    let write = |placement: &Placement| PlacementRecord {
        brokers: placement.brokers.iter().map(|id| id.0).collect(),
        ensemble: write_members(&placement.ensemble),
    };
    placements.iter().map(write).collect()
}

fn read_placements(placements: Vec<PlacementRecord>) -> Result<Vec<Placement>, RecordError> {
    let read = |placement: PlacementRecord| {
        let brokers = placement.brokers.into_iter().map(BrokerId).collect();
        Ok(Placement { brokers, ensemble: read_members(placement.ensemble)? })
    };
    placements.into_iter().map(read).collect()
}

#[derive(Clone, PartialEq, Message)]
struct CreateTopicsRecord {
    #[prost(message, repeated, tag = "1")]
    topics: Vec<NewTopicRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct NewTopicRecord {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(bool, tag = "3")]
    internal: bool,
    #[prost(message, repeated, tag = "4")]
    placements: Vec<PlacementRecord>,
    #[prost(message, repeated, tag = "5")]
    configs: Vec<ConfigRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct CreatePartitionsRecord {
    #[prost(bytes = "vec", tag = "1")]
    topic_id: Vec<u8>,
    #[prost(int32, tag = "2")]
    present: i32,
    #[prost(message, repeated, tag = "3")]
    placements: Vec<PlacementRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct AlterConfigsRecord {
    #[prost(message, optional, tag = "1")]
    resource: Option<ResourceRecord>,
    #[prost(message, repeated, tag = "2")]
    changes: Vec<ConfigRecord>,
}

/// A config value; without one it is a deletion.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ConfigRecord {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

impl ConfigRecord {
    pub(super) fn new(key: &str, value: Option<&String>) -> ConfigRecord {
        ConfigRecord { key: key.to_owned(), value: value.cloned() }
    }

    pub(super) fn read_set(self) -> Result<(String, String), RecordError> {
        Ok((self.key, required(self.value, "config value")?))
    }
}

/// A resource: its Kafka type number (AllBrokers is a broker without a name) and name.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceRecord {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    name: String,
}

const TOPIC: i32 = 2;
const BROKER: i32 = 4;
const CLIENT_METRICS: i32 = 16;
const GROUP: i32 = 32;

impl From<&Resource> for ResourceRecord {
    fn from(resource: &Resource) -> Self {
        let (kind, name) = match resource {
            Resource::Topic(name) => (TOPIC, name.clone()),
            Resource::Broker(id) => (BROKER, id.to_string()),
            Resource::AllBrokers => (BROKER, String::new()),
            Resource::ClientMetrics(name) => (CLIENT_METRICS, name.clone()),
            Resource::Group(name) => (GROUP, name.clone()),
        };
        ResourceRecord { kind, name }
    }
}

impl ResourceRecord {
    pub(super) fn read(self) -> Result<Resource, RecordError> {
        match self.kind {
            TOPIC => Ok(Resource::Topic(self.name)),
            BROKER if self.name.is_empty() => Ok(Resource::AllBrokers),
            BROKER => {
                let id = self.name.parse().map_err(|_| RecordError::Field("broker id"))?;
                Ok(Resource::Broker(BrokerId(id)))
            }
            CLIENT_METRICS => Ok(Resource::ClientMetrics(self.name)),
            GROUP => Ok(Resource::Group(self.name)),
            _ => Err(RecordError::Field("resource type")),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct EditsRecord {
    #[prost(message, repeated, tag = "1")]
    edits: Vec<EditRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct EditRecord {
    #[prost(message, optional, tag = "1")]
    partition: Option<PartitionIdRecord>,
    #[prost(oneof = "EditKind", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10")]
    kind: Option<EditKind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum EditKind {
    #[prost(message, tag = "2")]
    SealAndOpen(SealAndOpenRecord),
    #[prost(int64, tag = "3")]
    Trim(i64),
    #[prost(message, tag = "4")]
    Replace(ReplaceRecord),
    #[prost(message, tag = "5")]
    Elect(ElectRecord),
    #[prost(message, tag = "6")]
    AddReplica(ReplicaRecord),
    #[prost(message, tag = "7")]
    DropReplica(ReplicaRecord),
    #[prost(message, tag = "8")]
    SetPlacement(PlacementEditRecord),
    #[prost(message, tag = "9")]
    ElectUnclean(ElectRecord),
    #[prost(message, tag = "10")]
    Doubt(DoubtRecord),
}

#[derive(Clone, PartialEq, Message)]
struct DoubtRecord {
    #[prost(uint64, tag = "1")]
    segment: u64,
    #[prost(bytes = "vec", repeated, tag = "2")]
    storages: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct ElectRecord {
    #[prost(int32, tag = "1")]
    leader: i32,
    #[prost(int32, tag = "2")]
    epoch: i32,
}

/// A copy of a sealed segment.
#[derive(Clone, PartialEq, Message)]
struct ReplicaRecord {
    #[prost(message, optional, tag = "1")]
    segment: Option<SegmentNameRecord>,
    #[prost(bytes = "vec", tag = "2")]
    storage: Vec<u8>,
    /// 0 for one that is dropped.
    #[prost(fixed32, tag = "3")]
    crc: u32,
}

#[derive(Clone, PartialEq, Message)]
struct PlacementEditRecord {
    #[prost(int32, repeated, tag = "1")]
    brokers: Vec<i32>,
    #[prost(int32, repeated, tag = "2")]
    keepers: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct SealAndOpenRecord {
    #[prost(message, optional, tag = "1")]
    seal: Option<SealRecord>,
    #[prost(message, repeated, tag = "2")]
    ensemble: Vec<MemberRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct ReplaceRecord {
    #[prost(message, repeated, tag = "1")]
    old: Vec<SegmentNameRecord>,
    #[prost(message, optional, tag = "2")]
    new: Option<EntryRecord>,
    #[prost(int64, tag = "3")]
    compacted_to: i64,
    /// Absent in what the first versions wrote.
    #[prost(int32, optional, tag = "4")]
    leader_epoch: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct SegmentNameRecord {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint32, tag = "2")]
    generation: u32,
}

impl SegmentNameRecord {
    fn new((id, generation): (SegmentId, Generation)) -> SegmentNameRecord {
        SegmentNameRecord { id: id.0, generation: generation.0 }
    }

    fn read(&self) -> (SegmentId, Generation) {
        (SegmentId(self.id), Generation(self.generation))
    }
}

/// A command as bytes.
pub(crate) fn encode_command(command: &Command) -> Vec<u8> {
    let kind = match command {
        Command::Bootstrap { cluster_id } => Kind::Bootstrap(cluster_id.0.to_vec()),
        Command::FormatCluster { cluster_id, metadata_version } => Kind::FormatCluster(FormatRecord {
            cluster_id: cluster_id.0.to_vec(),
            metadata_version: (*metadata_version).into(),
        }),
        Command::SetMetadataVersion(version) => Kind::SetMetadataVersion((*version).into()),
        Command::AllocateBrokerId { above } => Kind::AllocateBrokerId(above.0),
        Command::RegisterBroker(registration) => Kind::RegisterBroker(registration.into()),
        Command::CreateTopics(topics) => {
            Kind::CreateTopics(CreateTopicsRecord { topics: topics.iter().map(write_topic).collect() })
        }
        Command::DeleteTopics(ids) => {
            Kind::DeleteTopics(IdsRecord { ids: ids.iter().map(|id| id.0.to_vec()).collect() })
        }
        Command::CreatePartitions { topic_id, present, placements } => {
            Kind::CreatePartitions(CreatePartitionsRecord {
                topic_id: topic_id.0.to_vec(),
                present: *present,
                placements: write_placements(placements),
            })
        }
        Command::AlterConfigs { resource, changes } => {
            let changes = changes.iter().map(|(key, value)| ConfigRecord::new(key, value.as_ref())).collect();
            Kind::AlterConfigs(AlterConfigsRecord { resource: Some(resource.into()), changes })
        }
        Command::ElectAll { leader } => Kind::ElectAll(leader.0),
        Command::Edit(edits) => Kind::Edit(EditsRecord { edits: edits.iter().map(write_edit).collect() }),
        Command::AllocateProducerIds { count } => Kind::AllocateProducerIds(*count),
        Command::SetFenced { broker, incarnation, fenced } => {
            Kind::SetFenced(SetFencedRecord { broker: broker.0, incarnation: incarnation.0, fenced: *fenced })
        }
        Command::Drain { broker, incarnation } => {
            Kind::Drain(DrainRecord { broker: broker.0, incarnation: incarnation.0 })
        }
        Command::UnregisterBroker { broker } => Kind::UnregisterBroker(broker.0),
        Command::SetStorageHealth { broker, storage, state } => {
            Kind::SetStorageHealth(SetStorageHealthRecord {
                broker: broker.0,
                storage: Some(StorageRecord::new(*storage, *state)),
            })
        }
    };
    CommandRecord { kind: Some(kind) }.encode_to_vec()
}

fn write_topic(topic: &NewTopic) -> NewTopicRecord {
    NewTopicRecord {
        id: topic.id.0.to_vec(),
        name: topic.name.clone(),
        internal: topic.internal,
        placements: write_placements(&topic.placements),
        configs: topic.configs.iter().map(|(key, value)| ConfigRecord::new(key, Some(value))).collect(),
    }
}

fn write_edit(edit: &ChainEdit) -> EditRecord {
    let kind = match edit {
        ChainEdit::SealAndOpen { seal, ensemble, .. } => EditKind::SealAndOpen(SealAndOpenRecord {
            seal: Some(seal.into()),
            ensemble: write_members(ensemble),
        }),
        ChainEdit::Trim { start, .. } => EditKind::Trim(*start),
        ChainEdit::Replace { rewrite: Rewrite { old, new, compacted_to, leader_epoch }, .. } => {
            EditKind::Replace(ReplaceRecord {
                old: old.iter().copied().map(SegmentNameRecord::new).collect(),
                new: Some(new.into()),
                compacted_to: *compacted_to,
                leader_epoch: leader_epoch.map(|epoch| epoch.0),
            })
        }
        ChainEdit::Elect { leader, epoch, .. } => {
            EditKind::Elect(ElectRecord { leader: leader.0, epoch: epoch.0 })
        }
        ChainEdit::ElectUnclean { leader, epoch, .. } => {
            EditKind::ElectUnclean(ElectRecord { leader: leader.0, epoch: epoch.0 })
        }
        ChainEdit::Doubt { segment, storages, .. } => EditKind::Doubt(DoubtRecord {
            segment: segment.0,
            storages: storages.iter().map(|id| id.0.to_vec()).collect(),
        }),
        ChainEdit::AddReplica { segment, storage, crc, .. } => {
            EditKind::AddReplica(write_replica(*segment, *storage, *crc))
        }
        ChainEdit::DropReplica { segment, storage, .. } => {
            EditKind::DropReplica(write_replica(*segment, *storage, 0))
        }
        ChainEdit::SetPlacement { brokers, keepers, .. } => EditKind::SetPlacement(PlacementEditRecord {
            brokers: brokers.iter().map(|id| id.0).collect(),
            keepers: keepers.iter().map(|id| id.0).collect(),
        }),
    };
    EditRecord { partition: Some(edit.partition().into()), kind: Some(kind) }
}

fn write_replica(segment: (SegmentId, Generation), storage: StorageId, crc: u32) -> ReplicaRecord {
    ReplicaRecord { segment: Some(SegmentNameRecord::new(segment)), storage: storage.0.to_vec(), crc }
}

/// Reads a command back.
pub(crate) fn decode_command(bytes: &[u8]) -> Result<Command, RecordError> {
    Ok(match required(CommandRecord::decode(bytes)?.kind, "command")? {
        Kind::Bootstrap(id) => Command::Bootstrap { cluster_id: uuid(&id)? },
        Kind::FormatCluster(record) => Command::FormatCluster {
            cluster_id: uuid(&record.cluster_id)?,
            metadata_version: metadata_version(record.metadata_version)?,
        },
        Kind::SetMetadataVersion(version) => Command::SetMetadataVersion(metadata_version(version)?),
        Kind::AllocateBrokerId(above) => Command::AllocateBrokerId { above: BrokerId(above) },
        Kind::RegisterBroker(registration) => Command::RegisterBroker(registration.read()?),
        Kind::CreateTopics(record) => {
            Command::CreateTopics(record.topics.into_iter().map(read_topic).collect::<Result<_, _>>()?)
        }
        Kind::DeleteTopics(record) => {
            Command::DeleteTopics(record.ids.iter().map(|id| uuid(id)).collect::<Result<_, _>>()?)
        }
        Kind::CreatePartitions(record) => Command::CreatePartitions {
            topic_id: uuid(&record.topic_id)?,
            present: record.present,
            placements: read_placements(record.placements)?,
        },
        Kind::AlterConfigs(record) => Command::AlterConfigs {
            resource: required(record.resource, "resource")?.read()?,
            changes: record.changes.into_iter().map(|change| (change.key, change.value)).collect(),
        },
        Kind::ElectAll(leader) => Command::ElectAll { leader: BrokerId(leader) },
        Kind::Edit(record) => {
            Command::Edit(record.edits.into_iter().map(read_edit).collect::<Result<_, _>>()?)
        }
        Kind::AllocateProducerIds(count) => Command::AllocateProducerIds { count },
        Kind::SetFenced(record) => Command::SetFenced {
            broker: BrokerId(record.broker),
            incarnation: Incarnation(record.incarnation),
            fenced: record.fenced,
        },
        Kind::Drain(record) => {
            Command::Drain { broker: BrokerId(record.broker), incarnation: Incarnation(record.incarnation) }
        }
        Kind::UnregisterBroker(broker) => Command::UnregisterBroker { broker: BrokerId(broker) },
        Kind::SetStorageHealth(record) => {
            let (storage, state) = required(record.storage, "storage")?.read()?;
            Command::SetStorageHealth { broker: BrokerId(record.broker), storage, state }
        }
    })
}

fn read_topic(record: NewTopicRecord) -> Result<NewTopic, RecordError> {
    Ok(NewTopic {
        id: uuid(&record.id)?,
        name: record.name,
        internal: record.internal,
        placements: read_placements(record.placements)?,
        configs: record.configs.into_iter().map(ConfigRecord::read_set).collect::<Result<_, _>>()?,
    })
}

fn read_edit(record: EditRecord) -> Result<ChainEdit, RecordError> {
    let partition = required(record.partition, "partition")?.read()?;
    Ok(match required(record.kind, "edit")? {
        EditKind::SealAndOpen(record) => ChainEdit::SealAndOpen {
            partition,
            seal: required(record.seal, "seal")?.read()?,
            ensemble: read_members(record.ensemble)?,
        },
        EditKind::Trim(start) => ChainEdit::Trim { partition, start },
        EditKind::Replace(record) => {
            let rewrite = Rewrite {
                old: record.old.iter().map(SegmentNameRecord::read).collect(),
                new: required(record.new, "rewrite")?.read()?,
                compacted_to: record.compacted_to,
                leader_epoch: record.leader_epoch.map(LeaderEpoch),
            };
            ChainEdit::Replace { partition, rewrite }
        }
        EditKind::Elect(ElectRecord { leader, epoch }) => {
            ChainEdit::Elect { partition, leader: BrokerId(leader), epoch: LeaderEpoch(epoch) }
        }
        EditKind::ElectUnclean(ElectRecord { leader, epoch }) => {
            ChainEdit::ElectUnclean { partition, leader: BrokerId(leader), epoch: LeaderEpoch(epoch) }
        }
        EditKind::Doubt(DoubtRecord { segment, storages }) => ChainEdit::Doubt {
            partition,
            segment: SegmentId(segment),
            storages: storages.iter().map(|id| uuid(id)).collect::<Result<_, _>>()?,
        },
        EditKind::AddReplica(record) => ChainEdit::AddReplica {
            partition,
            segment: required(record.segment, "segment")?.read(),
            storage: uuid(&record.storage)?,
            crc: record.crc,
        },
        EditKind::DropReplica(record) => ChainEdit::DropReplica {
            partition,
            segment: required(record.segment, "segment")?.read(),
            storage: uuid(&record.storage)?,
        },
        EditKind::SetPlacement(record) => ChainEdit::SetPlacement {
            partition,
            brokers: record.brokers.into_iter().map(BrokerId).collect(),
            keepers: record.keepers.into_iter().map(BrokerId).collect(),
        },
    })
}
