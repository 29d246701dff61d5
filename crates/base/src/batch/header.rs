//! The 61 bytes in front of the records: read, checked for shape, stamped.

use super::{
    ATTRIBUTES_AT, BASE_OFFSET_AT, BASE_SEQUENCE_AT, BASE_TIMESTAMP_AT, BATCH_LENGTH_AT, BatchError,
    COMPRESSION_MASK, CONTROL_BIT, CRC_AT, Compression, DELETE_HORIZON_BIT, HEADER_LEN, LAST_OFFSET_DELTA_AT,
    LEADER_EPOCH_AT, LOG_APPEND_TIME_BIT, LOG_OVERHEAD, MAGIC, MAGIC_AT, MAX_TIMESTAMP_AT, MIN_BATCH_LENGTH,
    NO_PRODUCER_ID, NO_SEQUENCE, PRODUCER_EPOCH_AT, PRODUCER_ID_AT, RECORD_COUNT_AT, TRANSACTIONAL_BIT,
};
use crate::ids::{Offset, TimestampMs};

/// Whose clock the timestamps of a batch are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer's, one per record.
    CreateTime,
    /// The broker's at append, one for the batch.
    LogAppendTime,
}

/// The header of a batch as plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record the batch was written with.
    pub base_offset: Offset,
    /// Bytes after the length field; see [`BatchHeader::total_size`].
    pub batch_length: i32,
    /// Leader epoch under which it was appended, -1 when not known.
    pub leader_epoch: i32,
    /// CRC-32C over everything from the attributes on.
    pub crc: u32,
    /// Codec and flags, raw.
    pub attributes: i16,
    /// Distance from the base offset to the last offset the batch covers. Compaction keeps it when
    /// records go, so it may exceed `record_count - 1`.
    pub last_offset_delta: i32,
    /// What record timestamps are relative to; -1 in an empty batch.
    pub base_timestamp: TimestampMs,
    /// Highest timestamp in the batch, -1 when it has none.
    pub max_timestamp: TimestampMs,
    /// Producer id, -1 without idempotence.
    pub producer_id: i64,
    /// Producer epoch, -1 without idempotence.
    pub producer_epoch: i16,
    /// Sequence of the first record, -1 without idempotence.
    pub base_sequence: i32,
    /// Records in the batch; 0 after compaction removed all.
    pub record_count: i32,
}

fn field<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("header fields lie within the header")
}

impl BatchHeader {
    /// Reads the header and checks its shape: length, magic, counts, offsets that fit. No CRC.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<BatchHeader, BatchError> {
        let magic = bytes[MAGIC_AT] as i8;
        let batch_length = i32::from_be_bytes(field(bytes, BATCH_LENGTH_AT));
        if batch_length < MIN_BATCH_LENGTH {
            return Err(BatchError::InvalidLength(batch_length));
        }
        if magic != MAGIC {
            return Err(BatchError::UnsupportedMagic(magic));
        }
        let header = BatchHeader::read(bytes, batch_length);
        let BatchHeader { record_count, last_offset_delta, base_offset, .. } = header;
        // One more than the last offset must fit too: it is the next offset to write.
        let next_offset = base_offset.checked_add(i64::from(last_offset_delta) + 1);
        if record_count < 0 || last_offset_delta < 0 || next_offset.is_none() {
            return Err(BatchError::InvalidCount { record_count, last_offset_delta });
        }
        Ok(header)
    }

    fn read(bytes: &[u8; HEADER_LEN], batch_length: i32) -> BatchHeader {
        BatchHeader {
            base_offset: i64::from_be_bytes(field(bytes, BASE_OFFSET_AT)),
            batch_length,
            leader_epoch: i32::from_be_bytes(field(bytes, LEADER_EPOCH_AT)),
            crc: u32::from_be_bytes(field(bytes, CRC_AT)),
            attributes: i16::from_be_bytes(field(bytes, ATTRIBUTES_AT)),
            last_offset_delta: i32::from_be_bytes(field(bytes, LAST_OFFSET_DELTA_AT)),
            base_timestamp: i64::from_be_bytes(field(bytes, BASE_TIMESTAMP_AT)),
            max_timestamp: i64::from_be_bytes(field(bytes, MAX_TIMESTAMP_AT)),
            producer_id: i64::from_be_bytes(field(bytes, PRODUCER_ID_AT)),
            producer_epoch: i16::from_be_bytes(field(bytes, PRODUCER_EPOCH_AT)),
            base_sequence: i32::from_be_bytes(field(bytes, BASE_SEQUENCE_AT)),
            record_count: i32::from_be_bytes(field(bytes, RECORD_COUNT_AT)),
        }
    }

    /// The header as bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        put(&mut bytes, BASE_OFFSET_AT, &self.base_offset.to_be_bytes());
        put(&mut bytes, BATCH_LENGTH_AT, &self.batch_length.to_be_bytes());
        put(&mut bytes, LEADER_EPOCH_AT, &self.leader_epoch.to_be_bytes());
        bytes[MAGIC_AT] = MAGIC as u8;
        put(&mut bytes, CRC_AT, &self.crc.to_be_bytes());
        put(&mut bytes, ATTRIBUTES_AT, &self.attributes.to_be_bytes());
        put(&mut bytes, LAST_OFFSET_DELTA_AT, &self.last_offset_delta.to_be_bytes());
        put(&mut bytes, BASE_TIMESTAMP_AT, &self.base_timestamp.to_be_bytes());
        put(&mut bytes, MAX_TIMESTAMP_AT, &self.max_timestamp.to_be_bytes());
        put(&mut bytes, PRODUCER_ID_AT, &self.producer_id.to_be_bytes());
        put(&mut bytes, PRODUCER_EPOCH_AT, &self.producer_epoch.to_be_bytes());
        put(&mut bytes, BASE_SEQUENCE_AT, &self.base_sequence.to_be_bytes());
        put(&mut bytes, RECORD_COUNT_AT, &self.record_count.to_be_bytes());
        bytes
    }

    /// Size of the whole batch, bytes, from the base offset to the last record.
    pub fn total_size(&self) -> usize {
        // `parse` refuses lengths below the minimum, so this is never negative.
        LOG_OVERHEAD + self.batch_length as usize
    }

    /// Last offset the batch covers, whether or not a record is left there.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Offset after the batch.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().saturating_add(1)
    }

    /// The codec; fails for attribute bits that name none.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::from_code((self.attributes & COMPRESSION_MASK) as u8)
    }

    /// Whose clock the timestamps are from.
    pub fn timestamp_type(&self) -> TimestampType {
        match self.attributes & LOG_APPEND_TIME_BIT {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        }
    }

    /// Part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Holds control records, such as the end of a transaction.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// From when on compaction may drop the tombstones in this batch, when it is already set (KIP-534).
    pub fn delete_horizon_ms(&self) -> Option<TimestampMs> {
        (self.attributes & DELETE_HORIZON_BIT != 0).then_some(self.base_timestamp)
    }

    /// Written by an idempotent or transactional producer.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// Sequence of the last offset the batch covers, -1 without idempotence.
    pub fn last_sequence(&self) -> i32 {
        match self.base_sequence {
            NO_SEQUENCE => NO_SEQUENCE,
            base => next_sequence(base, self.last_offset_delta),
        }
    }
}

/// The sequence `count` records after `sequence`; sequences wrap from 2^31 - 1 to 0.
/// Both must be 0 or more.
pub fn next_sequence(sequence: i32, count: i32) -> i32 {
    (i64::from(sequence) + i64::from(count)).rem_euclid(1 << 31) as i32
}

/// The header with another base offset and leader epoch. The CRC stays right: it covers neither.
///
/// A writer sends this and the bytes from [`HEADER_LEN`] on as two buffers, so records are not copied.
pub fn stamp(header: &[u8; HEADER_LEN], base_offset: Offset, leader_epoch: i32) -> [u8; HEADER_LEN] {
    let mut bytes = *header;
    put(&mut bytes, BASE_OFFSET_AT, &base_offset.to_be_bytes());
    put(&mut bytes, LEADER_EPOCH_AT, &leader_epoch.to_be_bytes());
    bytes
}

fn put(bytes: &mut [u8; HEADER_LEN], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// CRC-32C over the covered part of a header and the records after it.
pub(super) fn batch_crc(header: &[u8; HEADER_LEN], payload: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&header[ATTRIBUTES_AT..]);
    digest.update(payload);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(next_sequence(5, 3), 8);
        assert_eq!(next_sequence(i32::MAX, 0), i32::MAX);
        assert_eq!(next_sequence(i32::MAX, 1), 0);
        assert_eq!(next_sequence(i32::MAX - 1, 4), 2);
    }

    #[test]
    fn bytes_and_numbers_are_the_same_header() {
        let header = BatchHeader {
            base_offset: 1,
            batch_length: 49,
            leader_epoch: 2,
            crc: 0xdead_beef,
            attributes: 0x55,
            last_offset_delta: 3,
            base_timestamp: 4,
            max_timestamp: 5,
            producer_id: 6,
            producer_epoch: 7,
            base_sequence: i32::MAX,
            record_count: 0,
        };
        assert_eq!(BatchHeader::parse(&header.to_bytes()), Ok(header));
        assert_eq!(header.last_offset(), 4);
        assert_eq!(header.last_sequence(), 2);
        assert_eq!(header.delete_horizon_ms(), Some(4));
        assert_eq!(header.compression(), Err(BatchError::UnknownCompression(5)));
    }

    #[test]
    fn shapes_that_cannot_be_are_refused() {
        let good = BatchHeader {
            base_offset: 0,
            batch_length: 49,
            leader_epoch: 0,
            crc: 0,
            attributes: 0,
            last_offset_delta: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: 1,
        };
        let parse = |header: BatchHeader| BatchHeader::parse(&header.to_bytes());
        assert!(parse(good).is_ok());
        assert_eq!(parse(BatchHeader { batch_length: 48, ..good }), Err(BatchError::InvalidLength(48)));
        assert_eq!(parse(BatchHeader { batch_length: -1, ..good }), Err(BatchError::InvalidLength(-1)));
        for bad in [
            BatchHeader { record_count: -1, ..good },
            BatchHeader { last_offset_delta: -1, ..good },
            BatchHeader { base_offset: i64::MAX, ..good },
        ] {
            assert!(matches!(parse(bad), Err(BatchError::InvalidCount { .. })), "{bad:?}");
        }
        let mut old = good.to_bytes();
        old[MAGIC_AT] = 1;
        assert_eq!(BatchHeader::parse(&old), Err(BatchError::UnsupportedMagic(1)));
    }
}
