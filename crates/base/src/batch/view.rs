//! One whole batch in memory, read in place.

use std::ops::Deref;

use super::header::batch_crc;
use super::{
    ATTRIBUTES_AT, BatchError, BatchHeader, CRC_AT, Compression, DecompressBuffer, HEADER_LEN,
    LOG_APPEND_TIME_BIT, MAX_TIMESTAMP_AT, Records, TimestampType, stamp,
};
use crate::ids::{Offset, TimestampMs};

/// Position of the records within a batch.
pub const PAYLOAD_OFFSET: usize = HEADER_LEN;

/// A batch over borrowed bytes. Header fields come through [`Deref`] to [`BatchHeader`].
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl Deref for BatchView<'_> {
    type Target = BatchHeader;

    fn deref(&self) -> &BatchHeader {
        &self.header
    }
}

impl<'a> BatchView<'a> {
    /// The batch at the front of `bytes`, which may go on behind it. Checks what
    /// [`BatchHeader::parse`] checks and that the batch is there whole; the CRC and the records are
    /// not looked at.
    pub fn parse(bytes: &'a [u8]) -> Result<BatchView<'a>, BatchError> {
        let Some(first) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::truncated_header(bytes.len()));
        };
        let header = BatchHeader::parse(first)?;
        match bytes.get(..header.total_size()) {
            Some(bytes) => Ok(BatchView { header, bytes }),
            None => Err(BatchError::Truncated { needed: header.total_size(), available: bytes.len() }),
        }
    }

    /// The header as numbers.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// All bytes of the batch.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The header as bytes.
    pub fn header_bytes(&self) -> &'a [u8; HEADER_LEN] {
        self.bytes.first_chunk().expect("a view holds a whole header")
    }

    /// The records as they were written, compressed or not.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[PAYLOAD_OFFSET..]
    }

    /// Compares the bytes with the CRC in the header.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let computed = crc_fast::crc32_iscsi(&self.bytes[ATTRIBUTES_AT..]);
        if computed == self.crc {
            Ok(())
        } else {
            Err(BatchError::CrcMismatch { stored: self.crc, computed })
        }
    }

    /// The records one by one. Uncompressed ones are read where they lie; others are decompressed into
    /// `buffer`, which also holds the limit on what they may grow to.
    pub fn records<'b>(&self, buffer: &'b mut DecompressBuffer) -> Result<Records<'b>, BatchError>
    where
        'a: 'b,
    {
        let payload = match self.compression()? {
            Compression::None => self.payload(),
            // An emptied batch may keep the codec of its former records.
            _ if self.record_count == 0 => self.payload(),
            codec => buffer.decompress(codec, self.payload())?,
        };
        Ok(Records::new(&self.header, payload))
    }

    /// The records of an uncompressed batch, tied to the batch's own bytes; `None` when compressed.
    pub fn records_in_place(&self) -> Option<Records<'a>> {
        match self.compression() {
            Ok(Compression::None) => Some(Records::new(&self.header, self.payload())),
            _ => None,
        }
    }

    /// The header with base offset and leader epoch set; see [`stamp`].
    pub fn stamped(&self, base_offset: Offset, leader_epoch: i32) -> [u8; HEADER_LEN] {
        stamp(self.header_bytes(), base_offset, leader_epoch)
    }

    /// The header with base offset, leader epoch, timestamp type and max timestamp set.
    ///
    /// With [`TimestampType::LogAppendTime`] every record takes `max_timestamp` as its timestamp. The
    /// CRC is computed anew (one pass over the batch) only when type or max timestamp really change.
    pub fn stamped_with_timestamp(
        &self,
        base_offset: Offset,
        leader_epoch: i32,
        timestamp_type: TimestampType,
        max_timestamp: TimestampMs,
    ) -> [u8; HEADER_LEN] {
        let mut header = self.stamped(base_offset, leader_epoch);
        if timestamp_type == self.timestamp_type() && max_timestamp == self.max_timestamp {
            return header;
        }
        let attributes = match timestamp_type {
            TimestampType::CreateTime => self.attributes & !LOG_APPEND_TIME_BIT,
            TimestampType::LogAppendTime => self.attributes | LOG_APPEND_TIME_BIT,
        };
        header[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
        header[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&max_timestamp.to_be_bytes());
        let crc = batch_crc(&header, self.payload());
        header[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
        header
    }
}

/// Batch after batch over a run of bytes, as in a fetch answer or a piece of a segment file.
///
/// Ends after the last byte or after the first error. [`BatchError::Truncated`] as the last item is a
/// batch that the bytes do not hold whole, which readers of fetch answers skip.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    /// Iterates over `bytes`.
    pub fn new(bytes: &'a [u8]) -> Batches<'a> {
        Batches { rest: bytes }
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = BatchView::parse(self.rest);
        self.rest = match &parsed {
            Ok(batch) => &self.rest[batch.total_size()..],
            Err(_) => &[],
        };
        Some(parsed)
    }
}
