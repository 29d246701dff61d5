//! The blocks of a sync journal. Bytes in, bytes out.
//!
//! ```text
//! block  magic "VSJ1" | crc u32 over all behind it | life u64 | sequence u64 | round u64 | length u32 | entries | zeros
//! entry  kind u8 | topic length u8 | topic | topic id 16 | partition u32 | segment id u64 | generation u32 |
//!        base offset i64 | position u64 | length u32 | content
//! ```
//!
//! Numbers are big-endian. A block begins at a multiple of [`ALIGNMENT`] and has a multiple of it as its size, so
//! that no write touches a page of an earlier block. `life` is drawn anew whenever the journal is opened and
//! `sequence` grows by one from block to block, so that what an earlier life or cycle left behind is never taken for
//! the next block. `round` is the sequence of the first block of the same round: those were synced together. Each half begins with a block without entries of sequence 0, which says whose it is.

use base::ids::{Generation, PartitionId, SegmentId, TopicPartition, Uuid};

use crate::checkpoint::Reader;
use crate::crc;
use crate::layout::SegmentName;

/// Of blocks, bytes: a page, which no disk's sector exceeds.
pub(crate) const ALIGNMENT: usize = 4096;
/// Largest block that is written or read, bytes.
pub(crate) const BLOCK_BYTES_MAX: usize = 2 << 20;

const MAGIC: &[u8; 4] = b"VSJ1";
const CRC_AT: usize = 4;
const CRC_END: usize = 8;
const LENGTH_AT: usize = 32;
/// Bytes before the first entry.
const HEAD_BYTES: usize = 36;
/// Bytes of an entry but for topic and content.
const ENTRY_HEAD_BYTES: usize = 1 + 1 + 16 + 4 + 8 + 4 + 8 + 8 + 4;

const LOG: u8 = 1;
const BASE_CHECKPOINT: u8 = 2;

/// Which file of a segment an entry belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Bytes of the log file from a position on.
    Log,
    /// The whole checkpoint at the base.
    BaseCheckpoint,
}

/// What is written again after a power cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) name: SegmentName,
    pub(crate) target: Target,
    pub(crate) position: u64,
    pub(crate) content: &'a [u8],
}

/// Which block it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) life: u64,
    pub(crate) sequence: u64,
    /// Sequence of the first block of its round.
    pub(crate) round: u64,
}

/// Bytes an entry takes in a block.
pub(crate) fn entry_bytes(name: &SegmentName, content: usize) -> usize {
    ENTRY_HEAD_BYTES + name.topic.len() + content
}

/// A block in the making, in a buffer that is used again.
#[derive(Default)]
pub(crate) struct BlockBuilder {
    bytes: Vec<u8>,
}

impl BlockBuilder {
    /// True when nothing was added since the last [`BlockBuilder::clear`].
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() <= HEAD_BYTES
    }

    /// Whether an entry of so many bytes has room. The first always has.
    pub(crate) fn has_room(&self, entry_bytes: usize) -> bool {
        self.is_empty() || self.bytes.len() + entry_bytes <= BLOCK_BYTES_MAX
    }

    /// Begins anew.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Adds an entry whose content `fill` writes; on its error the block is as before.
    pub(crate) fn add<E>(
        &mut self,
        name: &SegmentName,
        target: Target,
        position: u64,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.bytes.is_empty() {
            self.bytes.resize(HEAD_BYTES, 0);
        }
        let before = self.bytes.len();
        let out = &mut self.bytes;
        out.push(match target {
            Target::Log => LOG,
            Target::BaseCheckpoint => BASE_CHECKPOINT,
        });
        // Kafka's names of topics have at most 249 characters.
        out.push(name.topic.len() as u8);
        out.extend_from_slice(name.topic.as_bytes());
        out.extend_from_slice(&name.partition.topic_id.0);
        out.extend_from_slice(&name.partition.partition.0.to_be_bytes());
        out.extend_from_slice(&name.id.0.to_be_bytes());
        out.extend_from_slice(&name.generation.0.to_be_bytes());
        out.extend_from_slice(&name.base.to_be_bytes());
        out.extend_from_slice(&position.to_be_bytes());
        out.extend_from_slice(&(length as u32).to_be_bytes());
        let content = out.len();
        out.resize(content + length, 0);
        let filled = fill(&mut out[content..]);
        if filled.is_err() {
            out.truncate(before);
        }
        filled
    }

    /// The finished block.
    pub(crate) fn finish(&mut self, stamp: Stamp) -> &[u8] {
        self.bytes.resize(self.bytes.len().max(HEAD_BYTES), 0);
        let entries = self.bytes.len() - HEAD_BYTES;
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        let bytes = &mut self.bytes;
        bytes[..CRC_AT].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&stamp.life.to_be_bytes());
        bytes[16..24].copy_from_slice(&stamp.sequence.to_be_bytes());
        bytes[24..LENGTH_AT].copy_from_slice(&stamp.round.to_be_bytes());
        bytes[LENGTH_AT..HEAD_BYTES].copy_from_slice(&(entries as u32).to_be_bytes());
        let crc = crc::extend(crc::EMPTY, &bytes[CRC_END..HEAD_BYTES + entries]);
        bytes[CRC_AT..CRC_END].copy_from_slice(&crc.to_be_bytes());
        bytes
    }
}

/// What the first bytes of a block say, before its CRC is known to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHead {
    pub(crate) stamp: Stamp,
    /// Size of the block with its padding, bytes.
    pub(crate) size: usize,
}

impl BlockHead {
    /// `None` for what is no block's beginning.
    pub(crate) fn parse(bytes: &[u8]) -> Option<BlockHead> {
        let mut head = Reader::new(bytes);
        if head.take(MAGIC.len())? != MAGIC {
            return None;
        }
        head.u32()?;
        let stamp = Stamp { life: head.u64()?, sequence: head.u64()?, round: head.u64()? };
        let size = HEAD_BYTES + head.u32()? as usize;
        (size <= BLOCK_BYTES_MAX).then(|| BlockHead { stamp, size: size.next_multiple_of(ALIGNMENT) })
    }
}

/// The entries of a whole block; `None` when its CRC is wrong or they make no sense.
pub(crate) fn entries(block: &[u8]) -> Option<Vec<Entry<'_>>> {
    let length = u32::from_be_bytes(block.get(LENGTH_AT..HEAD_BYTES)?.try_into().ok()?) as usize;
    let covered = block.get(CRC_END..HEAD_BYTES.checked_add(length)?)?;
    if crc::extend(crc::EMPTY, covered).to_be_bytes() != block[CRC_AT..CRC_END] {
        return None;
    }
    let mut rest = Reader::new(&block[HEAD_BYTES..HEAD_BYTES + length]);
    let mut entries = Vec::new();
    while !rest.is_empty() {
        entries.push(entry(&mut rest)?);
    }
    Some(entries)
}

fn entry<'a>(rest: &mut Reader<'a>) -> Option<Entry<'a>> {
    let target = match rest.u8()? {
        LOG => Target::Log,
        BASE_CHECKPOINT => Target::BaseCheckpoint,
        _ => return None,
    };
    let topic = usize::from(rest.u8()?);
    let topic = std::str::from_utf8(rest.take(topic)?).ok().filter(|topic| is_file_name(topic))?;
    let topic_id = Uuid(rest.array()?);
    let partition = PartitionId(rest.u32()? as i32);
    let name = SegmentName {
        topic: topic.into(),
        partition: TopicPartition { topic_id, partition },
        id: SegmentId(rest.u64()?),
        generation: Generation(rest.u32()?),
        base: rest.i64()?,
    };
    let position = rest.u64()?;
    let length = rest.u32()? as usize;
    Some(Entry { name, target, position, content: rest.take(length)? })
}

/// Names of topics are names of directories.
fn is_file_name(topic: &str) -> bool {
    !matches!(topic, "" | "." | "..") && !topic.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const STAMP: Stamp = Stamp { life: 7, sequence: 42, round: 41 };

    fn name(topic: &str) -> SegmentName {
        SegmentName {
            topic: topic.into(),
            partition: TopicPartition { topic_id: Uuid([9; 16]), partition: PartitionId(3) },
            id: SegmentId(1 << 40),
            generation: Generation(2),
            base: 1 << 50,
        }
    }

    fn block(contents: &[(Target, &[u8])]) -> Vec<u8> {
        let mut builder = BlockBuilder::default();
        for (index, (target, content)) in contents.iter().enumerate() {
            let fill = |out: &mut [u8]| {
                out.copy_from_slice(content);
                Ok::<(), Infallible>(())
            };
            builder.add(&name("orders.eu"), *target, index as u64, content.len(), fill).unwrap();
        }
        builder.finish(STAMP).to_vec()
    }

    #[test]
    fn what_is_written_is_read() {
        let contents: [(Target, &[u8]); 3] =
            [(Target::BaseCheckpoint, b"state"), (Target::Log, &[5; 5_000]), (Target::Log, b"")];
        let bytes = block(&contents);
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        assert_eq!(BlockHead::parse(&bytes), Some(BlockHead { stamp: STAMP, size: bytes.len() }));
        let read = entries(&bytes).unwrap();
        assert_eq!(read.len(), 3);
        for (index, (entry, (target, content))) in read.iter().zip(contents).enumerate() {
            let expected = Entry { name: name("orders.eu"), target, position: index as u64, content };
            assert_eq!(*entry, expected);
        }
    }

    #[test]
    fn no_damage_passes_for_a_block() {
        let bytes = block(&[(Target::Log, b"content")]);
        let used = HEAD_BYTES + entry_bytes(&name("orders.eu"), 7);
        for bit in 0..used * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let head = BlockHead::parse(&damaged);
            let accepted = head.is_some_and(|head| head.size == bytes.len()) && entries(&damaged).is_some();
            assert!(!accepted, "bit {bit}");
        }
        for cut in 0..used {
            assert!(entries(&bytes[..cut]).is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn a_topic_that_leads_out_of_the_directory_is_none() {
        for topic in ["", ".", "..", "a/b", "../x"] {
            let mut builder = BlockBuilder::default();
            builder.add(&name(topic), Target::Log, 0, 0, |_| Ok::<(), Infallible>(())).unwrap();
            assert!(entries(builder.finish(STAMP)).is_none(), "{topic:?}");
        }
    }

    #[test]
    fn an_entry_that_cannot_be_filled_leaves_no_trace() {
        let mut builder = BlockBuilder::default();
        builder.add(&name("a"), Target::Log, 0, 10, |_| Err(())).unwrap_err();
        assert!(builder.is_empty());
        builder.add(&name("a"), Target::Log, 5, 1, |_| Ok::<(), ()>(())).unwrap();
        builder.add(&name("b"), Target::Log, 0, 9_999, |_| Err(())).unwrap_err();
        let read = entries(builder.finish(STAMP)).unwrap().len();
        assert_eq!(read, 1);
    }
}
