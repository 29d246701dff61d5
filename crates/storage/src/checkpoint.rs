//! What a checkpoint file says: "up to here all is known". Bytes in, bytes out.
//!
//! ```text
//! magic "VCP1" | length u32 | body | CRC-32C over all before it
//! ```
//!
//! Numbers are big-endian. A checkpoint is an aid: one that is torn, foreign or missing costs time, not
//! data, except the one at the base, which holds the only copy of the state below the segment and is
//! synced before the first batch is acknowledged.
//!
//! Trust: the records below `offset` are certainly there if `durable`, or if the machine has not been
//! rebooted since (`boot`), or if the storage was shut down cleanly afterwards.

use base::ids::{Generation, Offset, SegmentId};
use bytes::Bytes;

use crate::crc;
use crate::index::{IndexCounts, IndexMarks};

const MAGIC: &[u8; 4] = b"VCP1";
/// Magic and length.
const HEAD_BYTES: usize = 8;
const CRC_BYTES: usize = 4;
/// Largest file that is read, bytes; state of some hundred thousand producers fits.
pub(crate) const CHECKPOINT_BYTES_MAX: usize = 256 << 20;
/// Longest boot id that is kept, bytes.
const BOOT_ID_BYTES_MAX: usize = 255;

const FLAG_DURABLE: u8 = 1;
const FLAG_SNAPSHOT: u8 = 2;

/// A segment's state at one offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Whose it is; compared, so that a misplaced file is not believed.
    pub(crate) id: SegmentId,
    pub(crate) generation: Generation,
    /// Everything below `offset` lies below `position` in the log file, and has this CRC.
    pub(crate) offset: Offset,
    pub(crate) position: u64,
    pub(crate) crc: u32,
    /// What was below `position` had been synced when this was written.
    pub(crate) durable: bool,
    /// Boot during which this was written.
    pub(crate) boot: String,
    /// The index files as far as they describe the log below `position`.
    pub(crate) counts: IndexCounts,
    /// Where the making of index entries stood.
    pub(crate) marks: IndexMarks,
    /// The caller's state at `offset`; none in the checkpoint that a seal writes.
    pub(crate) snapshot: Option<Bytes>,
}

/// Reads numbers off the front of a slice; `None` once it is too short.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }
}

impl Checkpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let snapshot = self.snapshot.as_deref().unwrap_or_default();
        let mut out = Vec::with_capacity(192 + snapshot.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.id.0.to_be_bytes());
        out.extend_from_slice(&self.generation.0.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
        out.extend_from_slice(&self.crc.to_be_bytes());
        let durable = if self.durable { FLAG_DURABLE } else { 0 };
        let has_snapshot = if self.snapshot.is_some() { FLAG_SNAPSHOT } else { 0 };
        out.push(durable | has_snapshot);
        let boot = &self.boot.as_bytes()[..self.boot.len().min(BOOT_ID_BYTES_MAX)];
        out.push(boot.len() as u8);
        out.extend_from_slice(boot);
        let IndexCounts { offsets, offsets_crc, times, times_crc } = self.counts;
        for number in [offsets, offsets_crc, times, times_crc] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        let IndexMarks { bytes_since_entry, max_timestamp, max_timestamp_offset, last_time } = self.marks;
        out.extend_from_slice(&bytes_since_entry.to_be_bytes());
        for number in [max_timestamp, max_timestamp_offset, last_time] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(snapshot);
        let length = (out.len() - HEAD_BYTES) as u32;
        out[4..HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
        let crc = crc::extend(crc::EMPTY, &out);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    /// `None` unless the bytes begin with a whole checkpoint; a longer, older one may lie behind it.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Checkpoint> {
        let mut head = Reader(bytes);
        if head.take(MAGIC.len())? != MAGIC {
            return None;
        }
        let covered = HEAD_BYTES.checked_add(head.u32()? as usize)?;
        let stored = bytes.get(covered..covered.checked_add(CRC_BYTES)?)?;
        if crc::extend(crc::EMPTY, &bytes[..covered]).to_be_bytes() != stored {
            return None;
        }
        let mut body = Reader(&bytes[HEAD_BYTES..covered]);
        let id = SegmentId(body.u64()?);
        let generation = Generation(body.u32()?);
        let (offset, position, crc) = (body.i64()?, body.u64()?, body.u32()?);
        let flags = body.u8()?;
        let boot_len = body.u8()?;
        let boot = String::from_utf8(body.take(usize::from(boot_len))?.to_vec()).ok()?;
        let counts = IndexCounts {
            offsets: body.u32()?,
            offsets_crc: body.u32()?,
            times: body.u32()?,
            times_crc: body.u32()?,
        };
        Some(Checkpoint {
            id,
            generation,
            offset,
            position,
            crc,
            durable: flags & FLAG_DURABLE != 0,
            boot,
            counts,
            marks: IndexMarks {
                bytes_since_entry: body.u64()?,
                max_timestamp: body.i64()?,
                max_timestamp_offset: body.i64()?,
                last_time: body.i64()?,
            },
            snapshot: (flags & FLAG_SNAPSHOT != 0).then(|| Bytes::copy_from_slice(body.0)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            id: SegmentId(7),
            generation: Generation(1),
            offset: 1_000,
            position: 2_000,
            crc: 3,
            durable: true,
            boot: "a-boot".into(),
            counts: IndexCounts { offsets: 4, offsets_crc: 5, times: 6, times_crc: 7 },
            marks: IndexMarks {
                bytes_since_entry: 8,
                max_timestamp: 9,
                max_timestamp_offset: 999,
                last_time: 5,
            },
            snapshot: Some(Bytes::from_static(b"state")),
        }
    }

    #[test]
    fn bytes_and_values_round_trip() {
        let with = checkpoint();
        let without = Checkpoint { snapshot: None, durable: false, boot: String::new(), ..with.clone() };
        let empty = Checkpoint { snapshot: Some(Bytes::new()), ..with.clone() };
        for checkpoint in [with, without, empty] {
            let mut bytes = checkpoint.encode();
            assert_eq!(Checkpoint::decode(&bytes), Some(checkpoint.clone()));
            bytes.extend_from_slice(b"the end of a longer one");
            assert_eq!(Checkpoint::decode(&bytes), Some(checkpoint));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let bytes = checkpoint().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Checkpoint::decode(&damaged), None, "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(Checkpoint::decode(&bytes[..cut]), None, "cut {cut}");
        }
        let mut long = bytes;
        long[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(Checkpoint::decode(&long), None);
    }
}
