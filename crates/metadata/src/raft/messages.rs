//! What nodes say to voters, and voters to each other, as bytes: one request, one response; or, for who follows, a feed
//! of responses without end.
//!
//! Protocol buffers with tagged fields, like the entries inside. Field numbers are part of what nodes of different
//! versions understand.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::ids::{BrokerId, Incarnation};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{LogId, Vote};
use prost::{Message, Oneof};

use super::TypeConfig;
use super::entry::{
    Batch, BatchRecord, LogIdRecord, Meta, VoteRecord, decode_entry, decode_snapshot, encode_entry,
    encode_snapshot,
};
use crate::record::RecordError;

/// What a voter asks of another.
#[derive(Debug)]
pub(super) enum PeerRequest {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<u64>),
    Snapshot(InstallSnapshotRequest<TypeConfig>),
    /// Commands for the leader, encoded, to be one entry.
    Propose(Batch),
    /// A life of a broker goes on.
    Heartbeat {
        broker: BrokerId,
        incarnation: Incarnation,
    },
    /// Everything from this entry on, as it is applied; nothing else is asked on the connection afterwards.
    Follow {
        next: u64,
    },
    /// How far each voter is, as the leader knows.
    Ends,
}

/// What it hears.
#[derive(Debug, PartialEq)]
pub(super) enum PeerResponse {
    Append(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    Snapshot(InstallSnapshotResponse<u64>),
    /// They are the entry of this index, which is committed.
    Proposed(u64),
    /// Somebody else leads, if anybody.
    NotLeader(Option<u64>),
    /// It could not be done.
    Failed(String),
    /// The heartbeat was noted.
    Heard,
    /// Where each voter is reached, `host:port`.
    Voters(BTreeMap<u64, String>),
    /// An image comes, of so many bytes in parts, which shows every entry before `next`.
    Image {
        next: u64,
        bytes: u64,
    },
    /// A part of the image.
    Part(Vec<u8>),
    /// Entries that were applied: index and encoded commands, in order and without gaps.
    Entries(Vec<(u64, Batch)>),
    /// Nothing new; who leads, if somebody does.
    Alive(Option<u64>),
    /// The term of the leader, and how many entries of the log each voter has.
    Ends {
        term: u64,
        ends: BTreeMap<u64, u64>,
    },
}

#[derive(Clone, PartialEq, Message)]
struct RequestRecord {
    #[prost(oneof = "RequestKind", tags = "1, 2, 3, 4, 5, 6, 7")]
    kind: Option<RequestKind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum RequestKind {
    #[prost(message, tag = "1")]
    Append(AppendRecord),
    #[prost(message, tag = "2")]
    Vote(VoteRequestRecord),
    #[prost(message, tag = "3")]
    Snapshot(SnapshotPartRecord),
    #[prost(message, tag = "4")]
    Propose(BatchRecord),
    #[prost(message, tag = "5")]
    Heartbeat(HeartbeatRecord),
    #[prost(uint64, tag = "6")]
    Follow(u64),
    #[prost(bool, tag = "7")]
    Ends(bool),
}

#[derive(Clone, PartialEq, Message)]
struct HeartbeatRecord {
    #[prost(int32, tag = "1")]
    broker: i32,
    #[prost(int64, tag = "2")]
    incarnation: i64,
}

#[derive(Clone, PartialEq, Message)]
struct AppendRecord {
    #[prost(message, optional, tag = "1")]
    vote: Option<VoteRecord>,
    #[prost(message, optional, tag = "2")]
    previous: Option<LogIdRecord>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    entries: Vec<Vec<u8>>,
    #[prost(message, optional, tag = "4")]
    committed: Option<LogIdRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct VoteRequestRecord {
    #[prost(message, optional, tag = "1")]
    vote: Option<VoteRecord>,
    #[prost(message, optional, tag = "2")]
    last: Option<LogIdRecord>,
}

/// A part of a snapshot.
#[derive(Clone, PartialEq, Message)]
struct SnapshotPartRecord {
    #[prost(message, optional, tag = "1")]
    vote: Option<VoteRecord>,
    /// What it covers, as the head of a snapshot without an image.
    #[prost(bytes = "vec", tag = "2")]
    meta: Vec<u8>,
    #[prost(uint64, tag = "3")]
    offset: u64,
    #[prost(bytes = "vec", tag = "4")]
    data: Vec<u8>,
    #[prost(bool, tag = "5")]
    done: bool,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseRecord {
    #[prost(oneof = "ResponseKind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16")]
    kind: Option<ResponseKind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum ResponseKind {
    #[prost(bool, tag = "1")]
    Appended(bool),
    #[prost(message, tag = "2")]
    AppendedTo(LastRecord),
    #[prost(bool, tag = "3")]
    Conflict(bool),
    #[prost(message, tag = "4")]
    HigherVote(VoteRecord),
    #[prost(message, tag = "5")]
    Vote(VoteResponseRecord),
    #[prost(message, tag = "6")]
    Snapshot(VoteRecord),
    #[prost(uint64, tag = "7")]
    Proposed(u64),
    #[prost(message, tag = "8")]
    NotLeader(LeaderRecord),
    #[prost(string, tag = "9")]
    Failed(String),
    #[prost(bool, tag = "10")]
    Heard(bool),
    #[prost(message, tag = "11")]
    Voters(VotersRecord),
    #[prost(message, tag = "12")]
    Image(ImageHeadRecord),
    #[prost(bytes, tag = "13")]
    Part(Vec<u8>),
    #[prost(message, tag = "14")]
    Entries(AppliedEntriesRecord),
    #[prost(message, tag = "15")]
    Alive(LeaderRecord),
    #[prost(message, tag = "16")]
    Ends(EndsRecord),
}

#[derive(Clone, PartialEq, Message)]
struct EndsRecord {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(btree_map = "uint64, uint64", tag = "2")]
    ends: BTreeMap<u64, u64>,
}

#[derive(Clone, PartialEq, Message)]
struct VotersRecord {
    #[prost(btree_map = "uint64, string", tag = "1")]
    addresses: BTreeMap<u64, String>,
}

#[derive(Clone, PartialEq, Message)]
struct ImageHeadRecord {
    #[prost(uint64, tag = "1")]
    next: u64,
    #[prost(uint64, tag = "2")]
    bytes: u64,
}

#[derive(Clone, PartialEq, Message)]
struct AppliedEntriesRecord {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<AppliedEntryRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct AppliedEntryRecord {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(bytes = "vec", repeated, tag = "2")]
    commands: Vec<Vec<u8>>,
    /// The batch's name, without its commands.
    #[prost(message, optional, tag = "3")]
    name: Option<BatchRecord>,
}

fn write_applied((index, batch): &(u64, Batch)) -> AppliedEntryRecord {
    let name = batch.id.map(|id| (&Batch { id: Some(id), ..Batch::default() }).into());
    AppliedEntryRecord { index: *index, commands: batch.commands.to_vec(), name }
}

fn read_applied(record: AppliedEntryRecord) -> Result<(u64, Batch), RecordError> {
    let id = record.name.map(BatchRecord::read).transpose()?.and_then(|name| name.id);
    Ok((record.index, Batch { commands: Arc::new(record.commands), id }))
}

#[derive(Clone, PartialEq, Message)]
struct LastRecord {
    #[prost(message, optional, tag = "1")]
    last: Option<LogIdRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct VoteResponseRecord {
    #[prost(message, optional, tag = "1")]
    vote: Option<VoteRecord>,
    #[prost(message, optional, tag = "2")]
    last: Option<LogIdRecord>,
    #[prost(bool, tag = "3")]
    granted: bool,
}

#[derive(Clone, PartialEq, Message)]
struct LeaderRecord {
    #[prost(uint64, optional, tag = "1")]
    leader: Option<u64>,
}

fn write_id(id: Option<&LogId<u64>>) -> Option<LogIdRecord> {
    id.map(LogIdRecord::from)
}

fn read_id(id: Option<LogIdRecord>) -> Option<LogId<u64>> {
    id.map(|id| id.read())
}

fn read_vote(vote: Option<VoteRecord>) -> Result<Vote<u64>, RecordError> {
    vote.map(|vote| vote.read()).ok_or(RecordError::Field("vote"))
}

impl PeerRequest {
    /// As bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let kind = match self {
            PeerRequest::Append(request) => RequestKind::Append(AppendRecord {
                vote: Some((&request.vote).into()),
                previous: write_id(request.prev_log_id.as_ref()),
                entries: request.entries.iter().map(encode_entry).collect(),
                committed: write_id(request.leader_commit.as_ref()),
            }),
            PeerRequest::Vote(request) => RequestKind::Vote(VoteRequestRecord {
                vote: Some((&request.vote).into()),
                last: write_id(request.last_log_id.as_ref()),
            }),
            PeerRequest::Snapshot(request) => RequestKind::Snapshot(SnapshotPartRecord {
                vote: Some((&request.vote).into()),
                meta: encode_snapshot(&request.meta, Vec::new()),
                offset: request.offset,
                data: request.data.clone(),
                done: request.done,
            }),
            PeerRequest::Propose(batch) => RequestKind::Propose(batch.into()),
            PeerRequest::Heartbeat { broker, incarnation } => {
                RequestKind::Heartbeat(HeartbeatRecord { broker: broker.0, incarnation: incarnation.0 })
            }
            PeerRequest::Follow { next } => RequestKind::Follow(*next),
            PeerRequest::Ends => RequestKind::Ends(true),
        };
        RequestRecord { kind: Some(kind) }.encode_to_vec()
    }

    /// Reads it back.
    pub(super) fn decode(bytes: &[u8]) -> Result<PeerRequest, RecordError> {
        Ok(match RequestRecord::decode(bytes)?.kind.ok_or(RecordError::Field("request"))? {
            RequestKind::Append(record) => PeerRequest::Append(AppendEntriesRequest {
                vote: read_vote(record.vote)?,
                prev_log_id: read_id(record.previous),
                entries: record.entries.iter().map(|entry| decode_entry(entry)).collect::<Result<_, _>>()?,
                leader_commit: read_id(record.committed),
            }),
            RequestKind::Vote(record) => PeerRequest::Vote(VoteRequest {
                vote: read_vote(record.vote)?,
                last_log_id: read_id(record.last),
            }),
            RequestKind::Snapshot(record) => {
                let (meta, _): (Meta, _) = decode_snapshot(&record.meta)?;
                let SnapshotPartRecord { vote, offset, data, done, .. } = record;
                PeerRequest::Snapshot(InstallSnapshotRequest {
                    vote: read_vote(vote)?,
                    meta,
                    offset,
                    data,
                    done,
                })
            }
            RequestKind::Propose(record) => PeerRequest::Propose(record.read()?),
            RequestKind::Heartbeat(record) => PeerRequest::Heartbeat {
                broker: BrokerId(record.broker),
                incarnation: Incarnation(record.incarnation),
            },
            RequestKind::Follow(next) => PeerRequest::Follow { next },
            RequestKind::Ends(_) => PeerRequest::Ends,
        })
    }
}

impl PeerResponse {
    /// As bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let kind = match self {
            PeerResponse::Append(AppendEntriesResponse::Success) => ResponseKind::Appended(true),
            PeerResponse::Append(AppendEntriesResponse::PartialSuccess(last)) => {
                ResponseKind::AppendedTo(LastRecord { last: write_id(last.as_ref()) })
            }
            PeerResponse::Append(AppendEntriesResponse::Conflict) => ResponseKind::Conflict(true),
            PeerResponse::Append(AppendEntriesResponse::HigherVote(vote)) => {
                ResponseKind::HigherVote(vote.into())
            }
            PeerResponse::Vote(response) => ResponseKind::Vote(VoteResponseRecord {
                vote: Some((&response.vote).into()),
                last: write_id(response.last_log_id.as_ref()),
                granted: response.vote_granted,
            }),
            PeerResponse::Snapshot(response) => ResponseKind::Snapshot((&response.vote).into()),
            PeerResponse::Proposed(index) => ResponseKind::Proposed(*index),
            PeerResponse::NotLeader(leader) => ResponseKind::NotLeader(LeaderRecord { leader: *leader }),
            PeerResponse::Failed(why) => ResponseKind::Failed(why.clone()),
            PeerResponse::Heard => ResponseKind::Heard(true),
            PeerResponse::Voters(addresses) => {
                ResponseKind::Voters(VotersRecord { addresses: addresses.clone() })
            }
            PeerResponse::Image { next, bytes } => {
                ResponseKind::Image(ImageHeadRecord { next: *next, bytes: *bytes })
            }
            PeerResponse::Part(bytes) => ResponseKind::Part(bytes.clone()),
            PeerResponse::Entries(entries) => ResponseKind::Entries(AppliedEntriesRecord {
                entries: entries.iter().map(write_applied).collect(),
            }),
            PeerResponse::Alive(leader) => ResponseKind::Alive(LeaderRecord { leader: *leader }),
            PeerResponse::Ends { term, ends } => {
                ResponseKind::Ends(EndsRecord { term: *term, ends: ends.clone() })
            }
        };
        ResponseRecord { kind: Some(kind) }.encode_to_vec()
    }

    /// Reads it back.
    pub(super) fn decode(bytes: &[u8]) -> Result<PeerResponse, RecordError> {
        Ok(match ResponseRecord::decode(bytes)?.kind.ok_or(RecordError::Field("response"))? {
            ResponseKind::Appended(_) => PeerResponse::Append(AppendEntriesResponse::Success),
            ResponseKind::AppendedTo(record) => {
                PeerResponse::Append(AppendEntriesResponse::PartialSuccess(read_id(record.last)))
            }
            ResponseKind::Conflict(_) => PeerResponse::Append(AppendEntriesResponse::Conflict),
            ResponseKind::HigherVote(vote) => {
                PeerResponse::Append(AppendEntriesResponse::HigherVote(vote.read()))
            }
            ResponseKind::Vote(record) => PeerResponse::Vote(VoteResponse {
                vote: read_vote(record.vote)?,
                vote_granted: record.granted,
                last_log_id: read_id(record.last),
            }),
            ResponseKind::Snapshot(vote) => {
                PeerResponse::Snapshot(InstallSnapshotResponse { vote: vote.read() })
            }
            ResponseKind::Proposed(index) => PeerResponse::Proposed(index),
            ResponseKind::NotLeader(record) => PeerResponse::NotLeader(record.leader),
            ResponseKind::Failed(why) => PeerResponse::Failed(why),
            ResponseKind::Heard(_) => PeerResponse::Heard,
            ResponseKind::Voters(record) => PeerResponse::Voters(record.addresses),
            ResponseKind::Image(ImageHeadRecord { next, bytes }) => PeerResponse::Image { next, bytes },
            ResponseKind::Part(bytes) => PeerResponse::Part(bytes),
            ResponseKind::Entries(record) => {
                PeerResponse::Entries(record.entries.into_iter().map(read_applied).collect::<Result<_, _>>()?)
            }
            ResponseKind::Alive(record) => PeerResponse::Alive(record.leader),
            ResponseKind::Ends(EndsRecord { term, ends }) => PeerResponse::Ends { term, ends },
        })
    }
}

#[cfg(test)]
mod tests {
    use base::env::sim::SimRandom;
    use base::ids::Uuid;
    use openraft::{CommittedLeaderId, Entry, EntryPayload};

    use super::*;
    use crate::proposals::ProposalId;

    fn requests() -> Vec<PeerRequest> {
        let last_log_id = Some(LogId::new(CommittedLeaderId::new(3, 1), u64::MAX));
        let entry = |payload| Entry { log_id: LogId::new(CommittedLeaderId::new(1, 2), 7), payload };
        let id = Some(ProposalId { proposer: Uuid([5; 16]), sequence: u64::MAX });
        let batch = Batch { commands: Arc::new(vec![vec![1, 2], Vec::new()]), id };
        let vote = Vote::new_committed(u64::MAX, 3);
        let entries = vec![entry(EntryPayload::Blank), entry(EntryPayload::Normal(batch.clone()))];
        let data = vec![9; 20];
        vec![
            PeerRequest::Append(AppendEntriesRequest {
                vote,
                prev_log_id: None,
                entries,
                leader_commit: last_log_id,
            }),
            PeerRequest::Vote(VoteRequest { vote: Vote::new(0, 0), last_log_id }),
            PeerRequest::Snapshot(InstallSnapshotRequest {
                vote,
                meta: Meta::default(),
                offset: 5,
                data,
                done: true,
            }),
            PeerRequest::Propose(batch),
            PeerRequest::Heartbeat { broker: BrokerId(7), incarnation: Incarnation(i64::MAX) },
            PeerRequest::Follow { next: 0 },
            PeerRequest::Follow { next: u64::MAX },
            PeerRequest::Ends,
        ]
    }

    fn responses() -> Vec<PeerResponse> {
        let last = Some(LogId::new(CommittedLeaderId::new(3, 1), 0));
        let vote = Vote::new_committed(1, 3);
        vec![
            PeerResponse::Append(AppendEntriesResponse::Success),
            PeerResponse::Append(AppendEntriesResponse::PartialSuccess(last)),
            PeerResponse::Append(AppendEntriesResponse::PartialSuccess(None)),
            PeerResponse::Append(AppendEntriesResponse::Conflict),
            PeerResponse::Append(AppendEntriesResponse::HigherVote(vote)),
            PeerResponse::Vote(VoteResponse { vote, vote_granted: true, last_log_id: last }),
            PeerResponse::Snapshot(InstallSnapshotResponse { vote }),
            PeerResponse::Proposed(u64::MAX),
            PeerResponse::NotLeader(Some(0)),
            PeerResponse::NotLeader(None),
            PeerResponse::Failed("why".to_owned()),
            PeerResponse::Heard,
            PeerResponse::Voters(BTreeMap::from([(1, "a:1".to_owned()), (u64::MAX, String::new())])),
            PeerResponse::Image { next: 0, bytes: u64::MAX },
            PeerResponse::Part(vec![1; 9]),
            PeerResponse::Entries(vec![
                (0, Batch::default()),
                (1, Batch { commands: Arc::new(vec![vec![3; 4], Vec::new()]), id: None }),
                (
                    2,
                    Batch {
                        id: Some(ProposalId { proposer: Uuid([6; 16]), sequence: 0 }),
                        ..Batch::default()
                    },
                ),
            ]),
            PeerResponse::Alive(None),
            PeerResponse::Alive(Some(2)),
            PeerResponse::Ends { term: u64::MAX, ends: BTreeMap::from([(1, 0), (2, u64::MAX)]) },
        ]
    }

    #[test]
    fn what_is_said_comes_back() {
        for request in requests() {
            let bytes = request.encode();
            assert_eq!(PeerRequest::decode(&bytes).unwrap().encode(), bytes, "{request:?}");
        }
        for response in responses() {
            assert_eq!(PeerResponse::decode(&response.encode()).unwrap(), response);
        }
    }

    #[test]
    fn mutated_bytes_never_panic() {
        let random = SimRandom::new(5);
        let said = requests().iter().map(PeerRequest::encode).collect::<Vec<_>>();
        let answered = responses().iter().map(PeerResponse::encode).collect::<Vec<_>>();
        let mut refused = 0;
        for original in said.iter().chain(&answered).cycle().take(5_000) {
            let mut bytes = original.clone();
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(3) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, random.below(256) as u8),
                _ => bytes[at] ^= 1 << random.below(8),
            }
            refused += usize::from(PeerRequest::decode(&bytes).is_err());
            refused += usize::from(PeerResponse::decode(&bytes).is_err());
        }
        assert!(refused > 1_000, "{refused}");
    }
}
