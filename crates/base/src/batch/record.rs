//! Records within a batch, read in place and without allocation.
//!
//! ```text
//! length varint | attributes i8 | timestamp delta varlong | offset delta varint
//!   | key length varint, key | value length varint, value | header count varint
//!   | (key length varint, key, value length varint, value)…
//! ```
//! A length of -1 is null. Headers keep their order and their duplicates.

use std::borrow::Cow;

use super::varint::Cursor;
use super::{BatchError, BatchHeader, TimestampType};
use crate::ids::{Offset, TimestampMs};

/// One record, borrowed from the bytes of its batch.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Unused by Kafka, always 0.
    pub attributes: i8,
    /// Its offset in the partition.
    pub offset: Offset,
    /// Its timestamp; the batch's max timestamp when the batch carries LogAppendTime.
    pub timestamp: TimestampMs,
    /// Key, null allowed.
    pub key: Option<&'a [u8]>,
    /// Value, null for a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers, in order.
    pub headers: Headers<'a>,
    /// Bytes the record takes in an uncompressed batch, with its length prefix.
    pub size: usize,
}

/// A name and a value beside a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Name; UTF-8 by convention, which nobody checks.
    pub key: &'a [u8],
    /// Value, null allowed.
    pub value: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// The name as text, with replacement characters where it is not UTF-8.
    pub fn key_text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.key)
    }
}

/// The headers of a record; iterates in the order they were written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    count: usize,
    // Checked when the record was read: holds exactly `count` well-formed headers.
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True without headers.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The headers as they lie in the record, without their count.
    pub fn raw(&self) -> &'a [u8] {
        self.bytes
    }

    /// The last value under a name, as Kafka's `lastHeader`.
    pub fn last_named(&self, key: &[u8]) -> Option<Header<'a>> {
        self.filter(|header| header.key == key).last()
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.count == 0 {
            return None;
        }
        self.count -= 1;
        let mut cursor = Cursor::new(self.bytes);
        let header = read_header(&mut cursor)?;
        self.bytes = cursor.rest();
        Some(header)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

fn read_header<'a>(cursor: &mut Cursor<'a>) -> Option<Header<'a>> {
    let key = cursor.nullable_bytes()??;
    Some(Header { key, value: cursor.nullable_bytes()? })
}

/// Iterator over the records of one batch.
///
/// Yields as many records as the header says, or ends with the first error. After the last record no
/// byte may be left over.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    base_offset: Offset,
    base_timestamp: TimestampMs,
    log_append_time: Option<TimestampMs>,
    record_count: i32,
    index: i32,
    failed: bool,
}

impl<'a> Records<'a> {
    /// Iterates over uncompressed record bytes under the given header.
    pub(super) fn new(header: &BatchHeader, bytes: &'a [u8]) -> Records<'a> {
        let log_append_time = match header.timestamp_type() {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(header.max_timestamp),
        };
        Records {
            bytes,
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            log_append_time,
            record_count: header.record_count,
            index: 0,
            failed: false,
        }
    }

    /// Record bytes not read yet.
    pub fn remaining_bytes(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    fn read(&mut self) -> Result<Record<'a>, &'static str> {
        let mut cursor = Cursor::new(self.bytes);
        let length = cursor.varint().ok_or("its length is cut or too long")?;
        let length = usize::try_from(length).map_err(|_| "its length is negative")?;
        let body = cursor.take(length).ok_or("it is longer than the bytes left in the batch")?;
        let size = self.bytes.len() - cursor.len();
        let record = self.read_body(body, size)?;
        self.bytes = cursor.rest();
        Ok(record)
    }

    #[inline]
    fn read_body(&self, body: &'a [u8], size: usize) -> Result<Record<'a>, &'static str> {
        let mut cursor = Cursor::new(body);
        let attributes = cursor.byte().ok_or("it is empty")? as i8;
        let timestamp_delta = cursor.varlong().ok_or("its timestamp is cut or too long")?;
        let offset_delta = cursor.varint().ok_or("its offset is cut or too long")?;
        let key = cursor.nullable_bytes().ok_or("its key does not fit")?;
        let value = cursor.nullable_bytes().ok_or("its value does not fit")?;
        let count = cursor.varint().ok_or("its header count is cut or too long")?;
        let count = usize::try_from(count).map_err(|_| "its header count is negative")?;
        let bytes = cursor.rest();
        // Every header takes two bytes or more, so a false count ends with the bytes.
        for _ in 0..count {
            read_header(&mut cursor).ok_or("a header does not fit")?;
        }
        if !cursor.is_empty() {
            return Err("it is shorter than its length says");
        }
        Ok(Record {
            attributes,
            offset: self.base_offset.wrapping_add(i64::from(offset_delta)),
            timestamp: self.log_append_time.unwrap_or(self.base_timestamp.wrapping_add(timestamp_delta)),
            key,
            value,
            headers: Headers { count, bytes },
            size,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let index = self.index;
        if index == self.record_count {
            if self.bytes.is_empty() {
                return None;
            }
            self.failed = true;
            return Some(Err(BatchError::InvalidRecord { index, reason: "bytes follow the last record" }));
        }
        self.index += 1;
        Some(self.read().map_err(|reason| {
            self.failed = true;
            BatchError::InvalidRecord { index, reason }
        }))
    }
}
