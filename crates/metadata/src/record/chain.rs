//! Chains and what is in them.

use base::chain::{Member, PartitionState, Seal, SegmentEntry, SegmentKind, SegmentState};
use base::ids::{BrokerId, Generation, Incarnation, LeaderEpoch, PartitionId, SegmentId, TopicPartition};
use prost::Message;

use super::{RecordError, required, uuid};

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartitionIdRecord {
    #[prost(bytes = "vec", tag = "1")]
    topic_id: Vec<u8>,
    #[prost(int32, tag = "2")]
    partition: i32,
}

impl From<TopicPartition> for PartitionIdRecord {
    fn from(id: TopicPartition) -> Self {
        PartitionIdRecord { topic_id: id.topic_id.0.to_vec(), partition: id.partition.0 }
    }
}

impl PartitionIdRecord {
    pub(super) fn read(self) -> Result<TopicPartition, RecordError> {
        Ok(TopicPartition { topic_id: uuid(&self.topic_id)?, partition: PartitionId(self.partition) })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MemberRecord {
    #[prost(int32, tag = "1")]
    broker: i32,
    #[prost(bytes = "vec", tag = "2")]
    storage: Vec<u8>,
    #[prost(int64, tag = "3")]
    incarnation: i64,
}

pub(super) fn write_members(members: &[Member]) -> Vec<MemberRecord> {
    let write = |member: &Member| MemberRecord {
        broker: member.broker.0,
        storage: member.storage.0.to_vec(),
        incarnation: member.incarnation.0,
    };
    members.iter().map(write).collect()
}

pub(super) fn read_members(members: Vec<MemberRecord>) -> Result<Vec<Member>, RecordError> {
    let read = |member: MemberRecord| {
        Ok(Member {
            broker: BrokerId(member.broker),
            storage: uuid(&member.storage)?,
            incarnation: Incarnation(member.incarnation),
        })
    };
    members.into_iter().map(read).collect()
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SealRecord {
    #[prost(uint64, tag = "1")]
    segment: u64,
    #[prost(int32, tag = "2")]
    leader_epoch: i32,
    #[prost(int64, tag = "3")]
    end: i64,
    #[prost(fixed32, tag = "4")]
    crc: u32,
    #[prost(uint64, tag = "5")]
    bytes: u64,
    #[prost(bytes = "vec", repeated, tag = "6")]
    holders: Vec<Vec<u8>>,
    #[prost(bool, tag = "7")]
    unclean: bool,
}

impl From<&Seal> for SealRecord {
    fn from(seal: &Seal) -> Self {
        SealRecord {
            segment: seal.segment.0,
            leader_epoch: seal.leader_epoch.0,
            end: seal.end,
            crc: seal.crc,
            bytes: seal.bytes,
            holders: seal.holders.iter().map(|id| id.0.to_vec()).collect(),
            unclean: seal.unclean,
        }
    }
}

impl SealRecord {
    pub(super) fn read(self) -> Result<Seal, RecordError> {
        Ok(Seal {
            segment: SegmentId(self.segment),
            leader_epoch: LeaderEpoch(self.leader_epoch),
            end: self.end,
            crc: self.crc,
            bytes: self.bytes,
            holders: self.holders.iter().map(|id| uuid(id)).collect::<Result<_, _>>()?,
            unclean: self.unclean,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct EpochRecord {
    #[prost(int32, tag = "1")]
    epoch: i32,
    #[prost(int64, tag = "2")]
    start: i64,
}

#[derive(Clone, PartialEq, Message)]
struct SealedRecord {
    #[prost(int64, tag = "1")]
    end: i64,
    #[prost(fixed32, tag = "2")]
    crc: u32,
    #[prost(uint64, tag = "3")]
    bytes: u64,
    #[prost(bytes = "vec", repeated, tag = "4")]
    replicas: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EntryRecord {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(uint32, tag = "3")]
    generation: u32,
    #[prost(int64, tag = "4")]
    base: i64,
    #[prost(message, repeated, tag = "5")]
    epochs: Vec<EpochRecord>,
    #[prost(uint32, tag = "6")]
    ack_quorum: u32,
    #[prost(bool, tag = "7")]
    unclean: bool,
    /// Absent while open.
    #[prost(message, optional, tag = "8")]
    sealed: Option<SealedRecord>,
    /// Members while open.
    #[prost(message, repeated, tag = "9")]
    ensemble: Vec<MemberRecord>,
}

impl From<&SegmentEntry> for EntryRecord {
    fn from(entry: &SegmentEntry) -> Self {
        let (sealed, ensemble) = match &entry.state {
            SegmentState::Open { ensemble } => (None, write_members(ensemble)),
            SegmentState::Sealed { end, crc, bytes, replicas } => {
                let replicas = replicas.iter().map(|id| id.0.to_vec()).collect();
                (Some(SealedRecord { end: *end, crc: *crc, bytes: *bytes, replicas }), Vec::new())
            }
        };
        let epoch = |(epoch, start): &(LeaderEpoch, i64)| EpochRecord { epoch: epoch.0, start: *start };
        EntryRecord {
            id: entry.id.0,
            kind: entry.kind as u32,
            generation: entry.generation.0,
            base: entry.base,
            epochs: entry.epochs.iter().map(epoch).collect(),
            ack_quorum: entry.ack_quorum,
            unclean: entry.unclean,
            sealed,
            ensemble,
        }
    }
}

impl EntryRecord {
    pub(super) fn read(self) -> Result<SegmentEntry, RecordError> {
        let state = match self.sealed {
            None => SegmentState::Open { ensemble: read_members(self.ensemble)? },
            Some(sealed) => SegmentState::Sealed {
                end: sealed.end,
                crc: sealed.crc,
                bytes: sealed.bytes,
                replicas: sealed.replicas.iter().map(|id| uuid(id)).collect::<Result<_, _>>()?,
            },
        };
        Ok(SegmentEntry {
            id: SegmentId(self.id),
            kind: required(SegmentKind::from_number(self.kind), "segment kind")?,
            generation: Generation(self.generation),
            base: self.base,
            epochs: self.epochs.iter().map(|pair| (LeaderEpoch(pair.epoch), pair.start)).collect(),
            ack_quorum: self.ack_quorum,
            state,
            unclean: self.unclean,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartitionRecord {
    #[prost(uint64, tag = "1")]
    version: u64,
    #[prost(int32, tag = "2")]
    leader: i32,
    #[prost(int32, tag = "3")]
    leader_epoch: i32,
    #[prost(int32, repeated, tag = "4")]
    placement: Vec<i32>,
    #[prost(int64, tag = "5")]
    log_start: i64,
    #[prost(message, repeated, tag = "6")]
    chain: Vec<EntryRecord>,
    #[prost(int64, tag = "7")]
    compacted_to: i64,
    #[prost(int32, repeated, tag = "10")]
    keepers: Vec<i32>,
    #[prost(bool, tag = "8")]
    unclean: bool,
    #[prost(bytes = "vec", repeated, tag = "9")]
    doubtful: Vec<Vec<u8>>,
}

impl From<&PartitionState> for PartitionRecord {
    fn from(state: &PartitionState) -> Self {
        PartitionRecord {
            version: state.version,
            leader: state.leader.0,
            leader_epoch: state.leader_epoch.0,
            placement: state.placement.iter().map(|id| id.0).collect(),
            log_start: state.log_start,
            chain: state.chain.iter().map(EntryRecord::from).collect(),
            compacted_to: state.compacted_to,
            keepers: state.keepers.iter().map(|id| id.0).collect(),
            unclean: state.unclean,
            doubtful: state.doubtful.iter().map(|id| id.0.to_vec()).collect(),
        }
    }
}

impl PartitionRecord {
    pub(super) fn read(self) -> Result<PartitionState, RecordError> {
        if self.chain.is_empty() {
            return Err(RecordError::Field("chain"));
        }
        Ok(PartitionState {
            version: self.version,
            leader: BrokerId(self.leader),
            leader_epoch: LeaderEpoch(self.leader_epoch),
            placement: self.placement.into_iter().map(BrokerId).collect(),
            keepers: self.keepers.into_iter().map(BrokerId).collect(),
            log_start: self.log_start,
            compacted_to: self.compacted_to,
            unclean: self.unclean,
            doubtful: self.doubtful.iter().map(|id| uuid(id)).collect::<Result<_, _>>()?,
            chain: self.chain.into_iter().map(EntryRecord::read).collect::<Result<_, _>>()?,
        })
    }
}
