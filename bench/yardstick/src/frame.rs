//! The bytes of Produce version 7 and Fetch version 4, as far as both sides of the yardstick need them.

use std::io::{Error, Read, Result};

use crc_fast::{CrcAlgorithm, checksum};

pub const PRODUCE: i16 = 0;
pub const FETCH: i16 = 1;
pub const PRODUCE_VERSION: i16 = 7;
pub const FETCH_VERSION: i16 = 4;
pub const TOPIC: &str = "yardstick";

/// Bytes of a batch before its records.
pub const BATCH_HEAD: usize = 61;
/// Where the checksum of a batch stands, and from where on it is taken.
const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;
/// Bytes of each record's value.
const VALUE_BYTES: usize = 100;
/// No frame is longer.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// Reads one frame, without its length, into the buffer.
pub fn read_frame(from: &mut impl Read, frame: &mut Vec<u8>) -> Result<()> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(Error::other("a frame is too long"));
    }
    frame.resize(length, 0);
    from.read_exact(frame)
}

/// Reads numbers, texts and bytes off a frame; what is not there is an error.
pub struct Cursor<'a> {
    pub left: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8]> {
        let (head, left) =
            self.left.split_at_checked(bytes).ok_or_else(|| Error::other("a frame is too short"))?;
        self.left = left;
        Ok(head)
    }

    pub fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into().expect("two bytes")))
    }

    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }

    /// A text that may be null, which is -1 long.
    pub fn text(&mut self) -> Result<&'a [u8]> {
        let length = self.i16()?.max(0);
        self.take(length as usize)
    }
}

/// Length, key, version, correlation id and a client id of a request, then its body.
pub fn request(api_key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 4];
    frame.extend(api_key.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(0_i32.to_be_bytes());
    put_text(&mut frame, TOPIC);
    frame.extend(body);
    set_length(&mut frame);
    frame
}

/// Writes the length of a frame into its first four bytes.
pub fn set_length(frame: &mut [u8]) {
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
}

pub fn put_text(frame: &mut Vec<u8>, text: &str) {
    frame.extend((text.len() as i16).to_be_bytes());
    frame.extend(text.as_bytes());
}

/// One partition of one topic, as arrays of one element each begin.
pub fn put_partition(frame: &mut Vec<u8>, partition: i32) {
    frame.extend(1_i32.to_be_bytes());
    put_text(frame, TOPIC);
    frame.extend(1_i32.to_be_bytes());
    frame.extend(partition.to_be_bytes());
}

/// As many records as fit, in one batch.
pub fn batch(bytes_max: usize, now_ms: i64) -> Vec<u8> {
    let (mut records, mut count) = (Vec::new(), 0_i32);
    loop {
        let mut record = vec![0]; // attributes
        put_varint(&mut record, 0); // time after the batch's
        put_varint(&mut record, count);
        put_varint(&mut record, -1); // no key
        put_varint(&mut record, VALUE_BYTES as i32);
        record.extend((0..VALUE_BYTES).map(|at| b'a' + ((at + count as usize) % 26) as u8));
        put_varint(&mut record, 0); // no headers
        let mut whole = Vec::new();
        put_varint(&mut whole, record.len() as i32);
        whole.extend(record);
        if BATCH_HEAD + records.len() + whole.len() > bytes_max && count > 0 {
            break;
        }
        records.extend(whole);
        count += 1;
    }
    let mut batch = Vec::with_capacity(BATCH_HEAD + records.len());
    batch.extend(0_i64.to_be_bytes()); // base offset
    batch.extend(((BATCH_HEAD - 12 + records.len()) as i32).to_be_bytes());
    batch.extend((-1_i32).to_be_bytes()); // leader epoch
    batch.push(2); // magic
    batch.extend([0; 4]); // checksum
    batch.extend(0_i16.to_be_bytes()); // attributes
    batch.extend((count - 1).to_be_bytes());
    batch.extend(now_ms.to_be_bytes());
    batch.extend(now_ms.to_be_bytes());
    batch.extend((-1_i64).to_be_bytes()); // producer id
    batch.extend((-1_i16).to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.extend(count.to_be_bytes());
    batch.extend(records);
    let crc = crc_of(&batch);
    batch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn put_varint(to: &mut Vec<u8>, value: i32) {
    let mut left = ((value << 1) ^ (value >> 31)) as u32;
    while left >= 0x80 {
        to.push(left as u8 | 0x80);
        left >>= 7;
    }
    to.push(left as u8);
}

/// What the checksum of a batch must be.
pub fn crc_of(batch: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, &batch[CRC_FROM..]) as u32
}

/// Whether the batch is whole and its checksum right.
pub fn is_sound(batch: &[u8]) -> bool {
    batch.len() >= BATCH_HEAD
        && length_of(batch) == Some(batch.len())
        && batch[CRC_AT..CRC_FROM] == crc_of(batch).to_be_bytes()
}

/// Length of the batch that begins here, bytes; `None` when its head is not whole.
pub fn length_of(batch: &[u8]) -> Option<usize> {
    let length = batch.get(8..12)?.try_into().ok()?;
    usize::try_from(i32::from_be_bytes(length)).ok()?.checked_add(12)
}

/// Offsets that the batch takes.
pub fn offsets_of(batch: &[u8]) -> i64 {
    i64::from(i32::from_be_bytes(batch[23..27].try_into().expect("four bytes"))) + 1
}
