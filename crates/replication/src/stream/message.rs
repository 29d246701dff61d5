//! What brokers say to each other on a stream, as bytes.
//!
//! ```text
//! connection: magic (8 bytes) | frame: Hello ─►   ◄─ frame: Welcome or Refused   then frames, both ways
//! frame:      length u32 | kind u8 | fields
//! ```
//!
//! Numbers are big-endian. Invariants: no frame is longer than [`FRAME_BYTES_MAX`]; no bytes make a decoder panic, or
//! allocate more than they are themselves; a topic's name is one that is safe as part of a path. The four first bytes of
//! the magic, as a number, are above any size of a Kafka request, so a stream can share the port of Kafka's clients.

use std::sync::Arc;

use base::config::Durability;
use base::ids::{
    BrokerId, Generation, Incarnation, LeaderEpoch, Offset, PartitionId, SegmentId, StorageId,
    TopicPartition, Uuid,
};
use bytes::{Buf, Bytes};
use storage::{SealedInfo, SegmentName};

use crate::protocol::{FenceAnswer, Nack};

/// What a connection begins with.
pub const MAGIC: [u8; 8] = *b"VLTAVA\x01\n";
/// Number of this way of talking; another one is refused.
pub const VERSION: u16 = 1;
/// Largest frame, bytes, without its length field: a largest batch or snapshot, and what stands around it.
pub const FRAME_BYTES_MAX: usize = 128 << 20;
/// Bytes of the length field of a frame.
pub(super) const LENGTH_BYTES: usize = 4;
/// Longest text, bytes; longer ones are cut.
const TEXT_BYTES_MAX: usize = 1_000;
/// Longest name of a topic, bytes, as in Kafka.
const TOPIC_BYTES_MAX: usize = 249;
/// Most leader epochs of one segment.
const EPOCHS_MAX: usize = 1 << 16;

/// Bytes that are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// They end within a field.
    #[error("the message ends early")]
    Short,
    /// They go on behind the last field.
    #[error("{0} bytes follow the message")]
    Long(usize),
    /// A frame of so many bytes is longer than any may be, or empty.
    #[error("no frame has {0} bytes")]
    Length(usize),
    /// A field has a value it cannot have.
    #[error("the field `{0}` has a value it cannot have")]
    Field(&'static str),
}

/// One life of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BrokerLife {
    /// The broker.
    pub broker: BrokerId,
    /// Which of its lives.
    pub incarnation: Incarnation,
}

/// Who calls, and whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// See [`VERSION`].
    pub version: u16,
    /// The cluster both belong to.
    pub cluster: Uuid,
    /// The caller.
    pub from: BrokerLife,
    /// Whom it means to reach.
    pub to: BrokerLife,
}

/// Why a caller is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// It speaks another version.
    Version = 1,
    /// It is of another cluster.
    Cluster = 2,
    /// It means another broker.
    Broker = 3,
    /// It means another life of this broker, or is itself an earlier life than one that called before.
    Incarnation = 4,
}

/// For what a leader pushes a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PushKind {
    /// The storage is a member of the ensemble: what it acknowledges counts for the high watermark.
    Member = 1,
    /// The storage need not be a member: it gets a copy for a seal (replication.md 2.7, 2.8), and promises the epoch.
    CopyUp = 2,
}

/// Which segment a stream is about, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// Number the sender gives the stream; never given twice on one connection.
    pub stream: u32,
    /// The segment.
    pub name: SegmentName,
    /// The storage that is to hold it.
    pub storage: StorageId,
    /// The epoch in which the sender leads.
    pub epoch: LeaderEpoch,
    /// The epochs the segment is written in, and where each begins; at least one.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// The life of the receiver that the ensemble names. Of no meaning for [`PushKind::CopyUp`].
    pub incarnation: Incarnation,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// What for.
    pub kind: PushKind,
    /// Producer state at the segment's base.
    pub snapshot: Bytes,
}

/// Asks a storage to promise an epoch and tell what it holds (replication.md 2.6 and 2.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceRequest {
    /// The open segment.
    pub name: SegmentName,
    /// The storage.
    pub storage: StorageId,
    /// The epochs the segment is written in, and where each begins; at least one.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// The epoch of the election.
    pub epoch: LeaderEpoch,
    /// What acknowledgements from the segment promised.
    pub durability: Durability,
}

/// What a storage answers to a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceResult {
    /// It promised the epoch.
    Promised {
        /// What it holds durably.
        answer: FenceAnswer,
        /// Something at or below the high watermark, if the broker has heard of one.
        high_watermark: Option<Offset>,
    },
    /// It promised this later epoch before.
    Fenced(LeaderEpoch),
    /// The broker has no such storage, or cannot read what it holds.
    Unknown,
}

/// Asks for bytes of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// The segment.
    pub name: SegmentName,
    /// The storage that is to have it.
    pub storage: StorageId,
    /// How it was sealed; `None` while it is open.
    pub sealed: Option<SealedInfo>,
    /// First offset wanted.
    pub from: Offset,
    /// Bytes wanted at most; one batch comes whatever its size.
    pub max_bytes: u32,
}

/// Asks a storage to fetch a sealed segment from the sender, who has it, although no chain lists it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// The segment.
    pub name: SegmentName,
    /// The storage that is to have it.
    pub storage: StorageId,
    /// How it was sealed.
    pub sealed: SealedInfo,
    /// The sender's storage that has it.
    pub source: StorageId,
    /// The epoch in which the sender leads: a later leader may have made another of the same name.
    pub epoch: LeaderEpoch,
    /// Producer state at the segment's base, where the sender knows it.
    pub snapshot: Option<Bytes>,
}

/// Asks a member of an open segment whether a leader still leads (replication.md 2.6). Answered with nothing, or with why
/// it takes no more from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfirmRequest {
    /// What is led.
    pub partition: TopicPartition,
    /// The epoch in which the sender leads.
    pub epoch: LeaderEpoch,
    /// The life of the receiver that the ensemble names.
    pub incarnation: Incarnation,
}

/// What a storage answers to a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullResult {
    /// Whole batches whose CRCs are right, from the one that holds the first offset on; none behind the end.
    Bytes(Bytes),
    /// The storage does not hold the segment, for sure.
    NotHere,
    /// It cannot tell, or what it holds is damaged.
    Unknown,
    /// It cannot be read now.
    Failed(String),
}

/// Why a storage takes nothing of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A later epoch was promised.
    #[error("epoch {0} was promised")]
    Fenced(LeaderEpoch),
    /// The ensemble names another life of the broker than this one.
    #[error("the ensemble does not name the present life of the broker, {0}")]
    StaleIncarnation(Incarnation),
    /// The copy ends before what was sent begins. The stream goes on from there.
    #[error("the copy ends at {0}")]
    Gap(Offset),
    /// The disk is full.
    #[error("the disk is full")]
    NoSpace,
    /// The storage failed, is not there, or its copy is damaged.
    #[error("the storage failed")]
    StorageFailed,
    /// The chain says that the segment was sealed.
    #[error("the segment is sealed")]
    Sealed,
    /// The broker has no file handle left at the moment. The stream is begun anew after a while.
    #[error("the broker has no file handle left")]
    Busy,
}

impl From<Nack> for Refusal {
    fn from(nack: Nack) -> Refusal {
        match nack {
            Nack::Fenced(epoch) => Refusal::Fenced(epoch),
            Nack::StaleIncarnation(incarnation) => Refusal::StaleIncarnation(incarnation),
            Nack::Gap(end) => Refusal::Gap(end),
        }
    }
}

/// A frame's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first frame of a caller.
    Hello(Hello),
    /// The answer to it.
    Welcome,
    /// The other answer; nothing follows.
    Refused(Reason, String),
    /// Begins a stream. Answered with [`Message::Ack`] or [`Message::Nack`].
    Create(Box<Create>),
    /// Whole batches.
    Append {
        /// The stream.
        stream: u32,
        /// Base offset of the first one.
        from: Offset,
        /// As the sender knows it now.
        high_watermark: Offset,
        /// The batches.
        bytes: Bytes,
    },
    /// A new high watermark, without records.
    Commit {
        /// The stream.
        stream: u32,
        /// As the sender knows it now.
        high_watermark: Offset,
    },
    /// Ends a stream; its segment stays.
    Close {
        /// The stream.
        stream: u32,
    },
    /// See [`FenceRequest`]; with the number of the request.
    Fence(u64, Box<FenceRequest>),
    /// See [`PullRequest`]; with the number of the request.
    Pull(u64, Box<PullRequest>),
    /// See [`FetchRequest`]; with the number of the request.
    Fetch(u64, Box<FetchRequest>),
    /// See [`ConfirmRequest`]; with the number of the request.
    Confirm(u64, ConfirmRequest),
    /// Everything below `end` is held, as the durability class says.
    Ack {
        /// The stream.
        stream: u32,
        /// The end.
        end: Offset,
    },
    /// Nothing was taken; but for [`Refusal::Gap`] the stream is over.
    Nack {
        /// The stream.
        stream: u32,
        /// Why.
        refusal: Refusal,
    },
    /// The answer to a fence.
    FenceAnswer(u64, FenceResult),
    /// The answer to a pull.
    Pulled(u64, PullResult),
    /// What became of a [`Message::Fetch`]: nothing to say, or why the segment is not there.
    Fetched(u64, Option<String>),
    /// The answer to a [`Message::Confirm`]: nothing, or why the sender leads no more.
    Confirmed(u64, Option<Refusal>),
}

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSED: u8 = 3;
const CREATE: u8 = 4;
const APPEND: u8 = 5;
const COMMIT: u8 = 6;
const CLOSE: u8 = 7;
const FENCE: u8 = 8;
const PULL: u8 = 9;
const ACK: u8 = 10;
const NACK: u8 = 11;
const FENCE_ANSWER: u8 = 12;
const PULLED: u8 = 13;
const FETCH: u8 = 14;
const FETCHED: u8 = 15;
const CONFIRM: u8 = 16;
const CONFIRMED: u8 = 17;

impl Message {
    /// Appends the message as a frame, length field included.
    ///
    /// # Errors
    /// [`MessageError::Length`] for one that is too long; nothing is appended then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), MessageError> {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        self.put(&mut Writer(out));
        let length = out.len() - start - LENGTH_BYTES;
        if length > FRAME_BYTES_MAX {
            out.truncate(start);
            return Err(MessageError::Length(length));
        }
        out[start..start + LENGTH_BYTES].copy_from_slice(&(length as u32).to_be_bytes());
        Ok(())
    }

    /// Those that a member sends.
    fn put_answer(&self, out: &mut Writer<'_>) {
        match self {
            Message::Fetched(request, failure) => {
                out.u8(FETCHED);
                out.u64(*request);
                out.text(failure.as_deref().unwrap_or_default());
            }
            Message::Confirmed(request, refusal) => {
                out.u8(CONFIRMED);
                out.u64(*request);
                out.u8(u8::from(refusal.is_some()));
                if let Some(refusal) = refusal {
                    out.refusal(*refusal);
                }
            }
            Message::Ack { stream, end } => {
                out.u8(ACK);
                out.u32(*stream);
                out.i64(*end);
            }
            Message::Nack { stream, refusal } => {
                out.u8(NACK);
                out.u32(*stream);
                out.refusal(*refusal);
            }
            Message::FenceAnswer(request, result) => {
                out.u8(FENCE_ANSWER);
                out.u64(*request);
                out.fence_result(result);
            }
            Message::Pulled(request, result) => {
                out.u8(PULLED);
                out.u64(*request);
                out.pull_result(result);
            }
            _ => debug_assert!(false, "a leader sends it: {self:?}"),
        }
    }

    fn put(&self, out: &mut Writer<'_>) {
        match self {
            Message::Hello(hello) => {
                out.u8(HELLO);
                out.u16(hello.version);
                out.uuid(hello.cluster);
                out.life(hello.from);
                out.life(hello.to);
            }
            Message::Welcome => out.u8(WELCOME),
            Message::Refused(reason, text) => {
                out.u8(REFUSED);
                out.u8(*reason as u8);
                out.text(text);
            }
            Message::Create(create) => {
                out.u8(CREATE);
                out.create(create);
            }
            Message::Append { stream, from, high_watermark, bytes } => {
                out.append(*stream, *from, *high_watermark, bytes);
            }
            Message::Commit { stream, high_watermark } => {
                out.u8(COMMIT);
                out.u32(*stream);
                out.i64(*high_watermark);
            }
            Message::Close { stream } => {
                out.u8(CLOSE);
                out.u32(*stream);
            }
            Message::Fence(request, fence) => {
                out.u8(FENCE);
                out.u64(*request);
                out.fence(fence);
            }
            Message::Pull(request, pull) => {
                out.u8(PULL);
                out.u64(*request);
                out.pull(pull);
            }
            Message::Fetch(request, fetch) => {
                out.u8(FETCH);
                out.u64(*request);
                out.fetch(fetch);
            }
            Message::Confirm(request, confirm) => {
                out.u8(CONFIRM);
                out.u64(*request);
                out.uuid(confirm.partition.topic_id);
                out.i32(confirm.partition.partition.0);
                out.i32(confirm.epoch.0);
                out.i64(confirm.incarnation.0);
            }
            answer => answer.put_answer(out),
        }
    }

    /// Reads the content of a frame, without its length field. What is large shares the frame's memory.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(frame: Bytes) -> Result<Message, MessageError> {
        if frame.is_empty() || frame.len() > FRAME_BYTES_MAX {
            return Err(MessageError::Length(frame.len()));
        }
        let mut from = Reader(frame);
        let message = match from.u8()? {
            HELLO => {
                let version = from.u16()?;
                let (cluster, caller, called) = (from.uuid()?, from.life()?, from.life()?);
                // A later version may have more to say; it is refused by its number.
                let rest = if version == VERSION { from.0.len() } else { 0 };
                from.0.advance(from.0.len() - rest);
                Message::Hello(Hello { version, cluster, from: caller, to: called })
            }
            WELCOME => Message::Welcome,
            REFUSED => Message::Refused(from.reason()?, from.text()?),
            CREATE => Message::Create(Box::new(from.create()?)),
            APPEND => Message::Append {
                stream: from.u32()?,
                from: from.offset("from")?,
                high_watermark: from.i64()?,
                bytes: from.rest(),
            },
            COMMIT => Message::Commit { stream: from.u32()?, high_watermark: from.i64()? },
            CLOSE => Message::Close { stream: from.u32()? },
            FENCE => Message::Fence(from.u64()?, Box::new(from.fence()?)),
            PULL => Message::Pull(from.u64()?, Box::new(from.pull()?)),
            FETCH => Message::Fetch(from.u64()?, Box::new(from.fetch()?)),
            FETCHED => Message::Fetched(from.u64()?, Some(from.text()?).filter(|text| !text.is_empty())),
            CONFIRM => Message::Confirm(from.u64()?, from.confirm()?),
            CONFIRMED => {
                let request = from.u64()?;
                let refusal = if from.flag()? { Some(from.refusal()?) } else { None };
                Message::Confirmed(request, refusal)
            }
            ACK => Message::Ack { stream: from.u32()?, end: from.offset("end")? },
            NACK => Message::Nack { stream: from.u32()?, refusal: from.refusal()? },
            FENCE_ANSWER => Message::FenceAnswer(from.u64()?, from.fence_result()?),
            PULLED => Message::Pulled(from.u64()?, from.pull_result()?),
            _ => return Err(MessageError::Field("kind")),
        };
        if from.0.is_empty() { Ok(message) } else { Err(MessageError::Long(from.0.len())) }
    }
}

/// Appends an [`Message::Append`] as a frame without a copy of its bytes in between.
pub(super) fn encode_append(
    out: &mut Vec<u8>,
    stream: u32,
    from: Offset,
    high_watermark: Offset,
    bytes: &[u8],
) -> Result<(), MessageError> {
    let length = APPEND_HEAD_BYTES + bytes.len();
    if length > FRAME_BYTES_MAX {
        return Err(MessageError::Length(length));
    }
    out.extend_from_slice(&(length as u32).to_be_bytes());
    Writer(out).append(stream, from, high_watermark, bytes);
    Ok(())
}

/// Kind, stream, offset and high watermark.
const APPEND_HEAD_BYTES: usize = 1 + 4 + 8 + 8;

/// Whether a topic may be called so: Kafka's rules, by which a name is safe as part of a path.
fn is_topic_name(name: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=TOPIC_BYTES_MAX).contains(&name.len()) && name.iter().all(fits) && name != b"." && name != b".."
}

struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn uuid(&mut self, value: Uuid) {
        self.0.extend_from_slice(&value.0);
    }

    /// Cut at [`TEXT_BYTES_MAX`], where a character ends.
    fn text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        self.u16(text.len() as u16);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn life(&mut self, life: BrokerLife) {
        self.i32(life.broker.0);
        self.i64(life.incarnation.0);
    }

    fn name(&mut self, name: &SegmentName) {
        self.text(&name.topic);
        self.uuid(name.partition.topic_id);
        self.i32(name.partition.partition.0);
        self.u64(name.id.0);
        self.u32(name.generation.0);
        self.i64(name.base);
    }

    fn epochs(&mut self, epochs: &[(LeaderEpoch, Offset)]) {
        self.u32(epochs.len() as u32);
        for (epoch, start) in epochs {
            self.i32(epoch.0);
            self.i64(*start);
        }
    }

    fn durability(&mut self, durability: Durability) {
        self.u8(match durability {
            Durability::Fsync => 1,
            Durability::PageCache => 2,
        });
    }

    fn create(&mut self, create: &Create) {
        self.u32(create.stream);
        self.name(&create.name);
        self.uuid(create.storage);
        self.i32(create.epoch.0);
        self.epochs(&create.epochs);
        self.i64(create.incarnation.0);
        self.durability(create.durability);
        self.u8(create.kind as u8);
        self.0.extend_from_slice(&create.snapshot);
    }

    fn append(&mut self, stream: u32, from: Offset, high_watermark: Offset, bytes: &[u8]) {
        self.u8(APPEND);
        self.u32(stream);
        self.i64(from);
        self.i64(high_watermark);
        self.0.extend_from_slice(bytes);
    }

    fn fence(&mut self, fence: &FenceRequest) {
        self.name(&fence.name);
        self.uuid(fence.storage);
        self.epochs(&fence.epochs);
        self.i32(fence.epoch.0);
        self.durability(fence.durability);
    }

    fn pull(&mut self, pull: &PullRequest) {
        self.name(&pull.name);
        self.uuid(pull.storage);
        self.u8(u8::from(pull.sealed.is_some()));
        if let Some(SealedInfo { end, bytes, crc }) = pull.sealed {
            self.i64(end);
            self.u64(bytes);
            self.u32(crc);
        }
        self.i64(pull.from);
        self.u32(pull.max_bytes);
    }

    fn fetch(&mut self, fetch: &FetchRequest) {
        self.name(&fetch.name);
        self.uuid(fetch.storage);
        let SealedInfo { end, bytes, crc } = fetch.sealed;
        self.i64(end);
        self.u64(bytes);
        self.u32(crc);
        self.uuid(fetch.source);
        self.i32(fetch.epoch.0);
        self.u8(u8::from(fetch.snapshot.is_some()));
        self.0.extend_from_slice(fetch.snapshot.as_deref().unwrap_or_default());
    }

    fn refusal(&mut self, refusal: Refusal) {
        let (kind, number) = match refusal {
            Refusal::Fenced(epoch) => (1, i64::from(epoch.0)),
            Refusal::StaleIncarnation(incarnation) => (2, incarnation.0),
            Refusal::Gap(end) => (3, end),
            Refusal::NoSpace => (4, 0),
            Refusal::StorageFailed => (5, 0),
            Refusal::Sealed => (6, 0),
            Refusal::Busy => (7, 0),
        };
        self.u8(kind);
        self.i64(number);
    }

    fn fence_result(&mut self, result: &FenceResult) {
        match result {
            FenceResult::Promised { answer, high_watermark } => {
                self.u8(1);
                self.i64(answer.end);
                self.u8(u8::from(answer.authoritative));
                self.i64(high_watermark.unwrap_or(-1));
            }
            FenceResult::Fenced(epoch) => {
                self.u8(2);
                self.i32(epoch.0);
            }
            FenceResult::Unknown => self.u8(3),
        }
    }

    fn pull_result(&mut self, result: &PullResult) {
        match result {
            PullResult::Bytes(bytes) => {
                self.u8(1);
                self.0.extend_from_slice(bytes);
            }
            PullResult::NotHere => self.u8(2),
            PullResult::Unknown => self.u8(3),
            PullResult::Failed(text) => {
                self.u8(4);
                self.text(text);
            }
        }
    }
}

/// Reads fields off the front.
struct Reader(Bytes);

impl Reader {
    fn take(&mut self, count: usize) -> Result<Bytes, MessageError> {
        if count > self.0.len() { Err(MessageError::Short) } else { Ok(self.0.split_to(count)) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let array = self.0.first_chunk().copied().ok_or(MessageError::Short)?;
        self.0.advance(N);
        Ok(array)
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    fn u8(&mut self) -> Result<u8, MessageError> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, MessageError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, MessageError> {
        self.array().map(u32::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, MessageError> {
        self.array().map(i32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, MessageError> {
        self.array().map(u64::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, MessageError> {
        self.array().map(i64::from_be_bytes)
    }

    fn uuid(&mut self) -> Result<Uuid, MessageError> {
        self.array().map(Uuid)
    }

    fn offset(&mut self, field: &'static str) -> Result<Offset, MessageError> {
        self.i64().and_then(|offset| if offset < 0 { Err(MessageError::Field(field)) } else { Ok(offset) })
    }

    fn text(&mut self) -> Result<String, MessageError> {
        let length = usize::from(self.u16()?);
        let bytes = self.take(length)?;
        String::from_utf8(bytes.into()).map_err(|_| MessageError::Field("text"))
    }

    fn flag(&mut self) -> Result<bool, MessageError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(MessageError::Field("flag")),
        }
    }

    fn life(&mut self) -> Result<BrokerLife, MessageError> {
        Ok(BrokerLife { broker: BrokerId(self.i32()?), incarnation: Incarnation(self.i64()?) })
    }

    fn reason(&mut self) -> Result<Reason, MessageError> {
        match self.u8()? {
            1 => Ok(Reason::Version),
            2 => Ok(Reason::Cluster),
            3 => Ok(Reason::Broker),
            4 => Ok(Reason::Incarnation),
            _ => Err(MessageError::Field("reason")),
        }
    }

    fn name(&mut self) -> Result<SegmentName, MessageError> {
        let length = usize::from(self.u16()?);
        let topic = self.take(length)?;
        let topic = std::str::from_utf8(&topic).ok().filter(|_| is_topic_name(&topic));
        let topic: Arc<str> = topic.ok_or(MessageError::Field("topic"))?.into();
        let topic_id = self.uuid()?;
        let partition = self.i32()?;
        if partition < 0 {
            return Err(MessageError::Field("partition"));
        }
        Ok(SegmentName {
            topic,
            partition: TopicPartition { topic_id, partition: PartitionId(partition) },
            id: SegmentId(self.u64()?),
            generation: Generation(self.u32()?),
            base: self.offset("base")?,
        })
    }

    fn epoch(&mut self) -> Result<LeaderEpoch, MessageError> {
        let epoch = self.i32()?;
        if epoch < 0 { Err(MessageError::Field("epoch")) } else { Ok(LeaderEpoch(epoch)) }
    }

    fn epochs(&mut self) -> Result<Vec<(LeaderEpoch, Offset)>, MessageError> {
        const PAIR_BYTES: usize = 4 + 8;
        let count = self.u32()? as usize;
        if !(1..=EPOCHS_MAX).contains(&count) {
            return Err(MessageError::Field("epochs"));
        }
        if count * PAIR_BYTES > self.0.len() {
            return Err(MessageError::Short);
        }
        let epochs: Vec<_> =
            (0..count).map(|_| Ok((self.epoch()?, self.i64()?))).collect::<Result<_, _>>()?;
        let ascend = epochs.windows(2).all(|pair: &[_]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        if ascend { Ok(epochs) } else { Err(MessageError::Field("epochs")) }
    }

    fn durability(&mut self) -> Result<Durability, MessageError> {
        match self.u8()? {
            1 => Ok(Durability::Fsync),
            2 => Ok(Durability::PageCache),
            _ => Err(MessageError::Field("durability")),
        }
    }

    fn create(&mut self) -> Result<Create, MessageError> {
        Ok(Create {
            stream: self.u32()?,
            name: self.name()?,
            storage: self.uuid()?,
            epoch: self.epoch()?,
            epochs: self.epochs()?,
            incarnation: Incarnation(self.i64()?),
            durability: self.durability()?,
            kind: match self.u8()? {
                1 => PushKind::Member,
                2 => PushKind::CopyUp,
                _ => return Err(MessageError::Field("kind of push")),
            },
            snapshot: self.rest(),
        })
    }

    fn fence(&mut self) -> Result<FenceRequest, MessageError> {
        Ok(FenceRequest {
            name: self.name()?,
            storage: self.uuid()?,
            epochs: self.epochs()?,
            epoch: self.epoch()?,
            durability: self.durability()?,
        })
    }

    fn pull(&mut self) -> Result<PullRequest, MessageError> {
        let (name, storage) = (self.name()?, self.uuid()?);
        let sealed = if self.flag()? {
            Some(SealedInfo { end: self.offset("end")?, bytes: self.u64()?, crc: self.u32()? })
        } else {
            None
        };
        Ok(PullRequest { name, storage, sealed, from: self.offset("from")?, max_bytes: self.u32()? })
    }

    fn fetch(&mut self) -> Result<FetchRequest, MessageError> {
        let (name, storage) = (self.name()?, self.uuid()?);
        let sealed = SealedInfo { end: self.offset("end")?, bytes: self.u64()?, crc: self.u32()? };
        let (source, epoch) = (self.uuid()?, self.epoch()?);
        let snapshot = match self.u8()? {
            0 => None,
            1 => Some(self.rest()),
            _ => return Err(MessageError::Field("snapshot")),
        };
        Ok(FetchRequest { name, storage, sealed, source, epoch, snapshot })
    }

    fn confirm(&mut self) -> Result<ConfirmRequest, MessageError> {
        let (topic_id, partition) = (self.uuid()?, PartitionId(self.i32()?));
        let partition = TopicPartition { topic_id, partition };
        Ok(ConfirmRequest { partition, epoch: self.epoch()?, incarnation: Incarnation(self.i64()?) })
    }

    fn refusal(&mut self) -> Result<Refusal, MessageError> {
        let (kind, number) = (self.u8()?, self.i64()?);
        let epoch = || i32::try_from(number).map(LeaderEpoch).map_err(|_| MessageError::Field("epoch"));
        match kind {
            1 => Ok(Refusal::Fenced(epoch()?)),
            2 => Ok(Refusal::StaleIncarnation(Incarnation(number))),
            3 if number >= 0 => Ok(Refusal::Gap(number)),
            4 => Ok(Refusal::NoSpace),
            5 => Ok(Refusal::StorageFailed),
            6 => Ok(Refusal::Sealed),
            7 => Ok(Refusal::Busy),
            _ => Err(MessageError::Field("refusal")),
        }
    }

    fn fence_result(&mut self) -> Result<FenceResult, MessageError> {
        match self.u8()? {
            1 => {
                let answer = FenceAnswer { end: self.offset("end")?, authoritative: self.flag()? };
                let high_watermark = Some(self.i64()?).filter(|offset| *offset >= 0);
                Ok(FenceResult::Promised { answer, high_watermark })
            }
            2 => Ok(FenceResult::Fenced(LeaderEpoch(self.i32()?))),
            3 => Ok(FenceResult::Unknown),
            _ => Err(MessageError::Field("fence answer")),
        }
    }

    fn pull_result(&mut self) -> Result<PullResult, MessageError> {
        match self.u8()? {
            1 => Ok(PullResult::Bytes(self.rest())),
            2 => Ok(PullResult::NotHere),
            3 => Ok(PullResult::Unknown),
            4 => Ok(PullResult::Failed(self.text()?)),
            _ => Err(MessageError::Field("pull answer")),
        }
    }
}
