//! Raft's own values as bytes: log entries, votes, the head of a snapshot.
//!
//! Protocol buffers with tagged fields, like the commands inside. Field numbers are part of the format.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openraft::{BasicNode, EntryPayload, LogId, Membership, SnapshotMeta, StoredMembership, Vote};
use openraft::{CommittedLeaderId, Entry};
use prost::{Message, Oneof};

use super::TypeConfig;
use crate::proposals::ProposalId;
use crate::record::{RecordError, uuid};

#[derive(Clone, PartialEq, Message)]
pub(super) struct LogIdRecord {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    node: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
}

impl From<&LogId<u64>> for LogIdRecord {
    fn from(id: &LogId<u64>) -> Self {
        LogIdRecord { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
    }
}

impl LogIdRecord {
    pub(super) fn read(&self) -> LogId<u64> {
        LogId::new(CommittedLeaderId::new(self.term, self.node), self.index)
    }
}

#[derive(Clone, PartialEq, Message)]
struct EntryRecord {
    #[prost(message, optional, tag = "1")]
    id: Option<LogIdRecord>,
    #[prost(oneof = "PayloadRecord", tags = "2, 3, 4")]
    payload: Option<PayloadRecord>,
}

#[derive(Clone, PartialEq, Oneof)]
enum PayloadRecord {
    #[prost(bool, tag = "2")]
    Blank(bool),
    #[prost(message, tag = "3")]
    Batch(BatchRecord),
    #[prost(message, tag = "4")]
    Membership(MembershipRecord),
}

/// Commands in the order in which they are applied.
#[derive(Clone, PartialEq, Message)]
pub(super) struct BatchRecord {
    #[prost(bytes = "vec", repeated, tag = "1")]
    commands: Vec<Vec<u8>>,
    /// Empty where no name was given.
    #[prost(bytes = "vec", tag = "2")]
    proposer: Vec<u8>,
    #[prost(uint64, tag = "3")]
    sequence: u64,
}

impl From<&Batch> for BatchRecord {
    fn from(batch: &Batch) -> Self {
        BatchRecord {
            commands: batch.commands.to_vec(),
            proposer: batch.id.map(|id| id.proposer.0.to_vec()).unwrap_or_default(),
            sequence: batch.id.map_or(0, |id| id.sequence),
        }
    }
}

impl BatchRecord {
    pub(super) fn read(self) -> Result<Batch, RecordError> {
        let id = match self.proposer.is_empty() {
            true => None,
            false => Some(ProposalId { proposer: uuid(&self.proposer)?, sequence: self.sequence }),
        };
        Ok(Batch { commands: Arc::new(self.commands), id })
    }
}

/// Voters as a list of sets (two while the membership changes), and every node's address.
#[derive(Clone, PartialEq, Message)]
struct MembershipRecord {
    #[prost(message, repeated, tag = "1")]
    configs: Vec<NodeSetRecord>,
    #[prost(btree_map = "uint64, string", tag = "2")]
    nodes: BTreeMap<u64, String>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeSetRecord {
    #[prost(uint64, repeated, tag = "1")]
    nodes: Vec<u64>,
}

fn write_membership(membership: &Membership<u64, BasicNode>) -> MembershipRecord {
    let set = |set: &BTreeSet<u64>| NodeSetRecord { nodes: set.iter().copied().collect() };
    MembershipRecord {
        configs: membership.get_joint_config().iter().map(set).collect(),
        nodes: membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
    }
}

fn read_membership(record: MembershipRecord) -> Membership<u64, BasicNode> {
    let configs = record.configs.into_iter().map(|set| set.nodes.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, BasicNode> =
        record.nodes.into_iter().map(|(id, addr)| (id, BasicNode { addr })).collect();
    Membership::new(configs, nodes)
}

/// What rides in one entry. Clones share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Encoded commands, in the order in which they are applied.
    pub(super) commands: Arc<Vec<Vec<u8>>>,
    /// The name by which a repeat is known; `None` where nothing is ever proposed twice, and from nodes that give none.
    pub(super) id: Option<ProposalId>,
}

impl Batch {
    /// Length of the commands, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.commands.iter().map(Vec::len).sum()
    }
}

/// An entry as the payload of the journal.
pub(super) fn encode_entry(entry: &Entry<TypeConfig>) -> Vec<u8> {
    let payload = match &entry.payload {
        EntryPayload::Blank => PayloadRecord::Blank(true),
        EntryPayload::Normal(batch) => PayloadRecord::Batch(batch.into()),
        EntryPayload::Membership(membership) => PayloadRecord::Membership(write_membership(membership)),
    };
    EntryRecord { id: Some((&entry.log_id).into()), payload: Some(payload) }.encode_to_vec()
}

/// Reads an entry back. The commands in it are read when they are applied.
pub(super) fn decode_entry(bytes: &[u8]) -> Result<Entry<TypeConfig>, RecordError> {
    let record = EntryRecord::decode(bytes)?;
    let log_id = record.id.ok_or(RecordError::Field("log id"))?.read();
    let payload = match record.payload.ok_or(RecordError::Field("payload"))? {
        PayloadRecord::Blank(_) => EntryPayload::Blank,
        PayloadRecord::Batch(batch) => EntryPayload::Normal(batch.read()?),
        PayloadRecord::Membership(record) => EntryPayload::Membership(read_membership(record)),
    };
    Ok(Entry { log_id, payload })
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct VoteRecord {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    node: u64,
    #[prost(bool, tag = "3")]
    committed: bool,
}

impl From<&Vote<u64>> for VoteRecord {
    fn from(vote: &Vote<u64>) -> Self {
        let (term, node) = (vote.leader_id.term, vote.leader_id.node_id);
        VoteRecord { term, node, committed: vote.committed }
    }
}

impl VoteRecord {
    pub(super) fn read(&self) -> Vote<u64> {
        if self.committed {
            Vote::new_committed(self.term, self.node)
        } else {
            Vote::new(self.term, self.node)
        }
    }
}

pub(super) fn encode_vote(vote: &Vote<u64>) -> Vec<u8> {
    VoteRecord::from(vote).encode_to_vec()
}

/// Reads a vote back, never as a committed one: a node that restarts stands for election in a new term, so
/// that no (term, index) is used twice.
pub(super) fn decode_vote(bytes: &[u8]) -> Result<Vote<u64>, RecordError> {
    let record = VoteRecord::decode(bytes)?;
    Ok(Vote::new(record.term, record.node))
}

/// A snapshot file: what it covers, then the image.
#[derive(Clone, PartialEq, Message)]
struct SnapshotRecord {
    #[prost(message, optional, tag = "1")]
    last: Option<LogIdRecord>,
    #[prost(message, optional, tag = "2")]
    membership_at: Option<LogIdRecord>,
    #[prost(message, optional, tag = "3")]
    membership: Option<MembershipRecord>,
    #[prost(bytes = "vec", tag = "4")]
    image: Vec<u8>,
}

pub(super) type Meta = SnapshotMeta<u64, BasicNode>;

pub(super) fn encode_snapshot(meta: &Meta, image: Vec<u8>) -> Vec<u8> {
    SnapshotRecord {
        last: meta.last_log_id.as_ref().map(LogIdRecord::from),
        membership_at: meta.last_membership.log_id().as_ref().map(LogIdRecord::from),
        membership: Some(write_membership(meta.last_membership.membership())),
        image,
    }
    .encode_to_vec()
}

pub(super) fn decode_snapshot(bytes: &[u8]) -> Result<(Meta, Vec<u8>), RecordError> {
    let record = SnapshotRecord::decode(bytes)?;
    let membership = read_membership(record.membership.ok_or(RecordError::Field("membership"))?);
    let last_log_id = record.last.map(|id| id.read());
    let last_membership = StoredMembership::new(record.membership_at.map(|id| id.read()), membership);
    Ok((Meta { last_log_id, last_membership, snapshot_id: snapshot_id(last_log_id) }, record.image))
}

/// A snapshot is named by what it covers: two of the same content are the same.
pub(super) fn snapshot_id(last: Option<LogId<u64>>) -> String {
    last.map_or_else(|| "empty".to_owned(), |id| format!("{}-{}", id.leader_id.term, id.index))
}
