//! Builds batches: for our client, the coordinators' records, compaction and tests.
//!
//! Records are encoded as they come and compressed once at the end. Errors are kept and told by
//! [`BatchBuilder::finish`], so that a run of appends reads as one.

use super::control::{ControlRecordType, EndTransactionMarker};
use super::header::batch_crc;
use super::varint::{put_varint, put_varlong, varint_len, varlong_len};
use super::{
    BatchHeader, CONTROL_BIT, CRC_AT, Compression, DELETE_HORIZON_BIT, HEADER_LEN, Header, Headers,
    LOG_APPEND_TIME_BIT, LOG_OVERHEAD, NO_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE,
    NO_TIMESTAMP, Record, TRANSACTIONAL_BIT,
};
use crate::ids::{Offset, TimestampMs};

/// Why a batch cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Offsets must grow from record to record and lie at most 2^31 - 1 above the base offset.
    #[error("offset {offset} does not follow in a batch that begins at {base_offset}")]
    Offset {
        /// The offset that does not fit.
        offset: Offset,
        /// Base offset of the batch.
        base_offset: Offset,
    },
    /// No batch may be longer than its length field can say.
    #[error("the batch would be larger than 2 GiB")]
    TooLarge,
    /// A batch without records needs the last offset it stands for.
    #[error("the batch has no records and no last offset")]
    Empty,
}

/// A batch in the making. A new one is uncompressed, starts at offset 0, takes create times and has no producer.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    header: BatchHeader,
    compression: Compression,
    level: Option<i32>,
    records: Vec<u8>,
    next_offset: Offset,
    last_offset: Option<Offset>,
    log_append_time: Option<TimestampMs>,
    error: Option<BuildError>,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        BatchBuilder::new()
    }
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new() -> BatchBuilder {
        let header = BatchHeader {
            base_offset: 0,
            batch_length: 0,
            leader_epoch: NO_LEADER_EPOCH,
            crc: 0,
            attributes: 0,
            last_offset_delta: 0,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            record_count: 0,
        };
        BatchBuilder {
            header,
            compression: Compression::None,
            level: None,
            records: Vec::new(),
            next_offset: 0,
            last_offset: None,
            log_append_time: None,
            error: None,
        }
    }

    /// A batch that takes the place of another: same offsets, producer, flags, epoch and codec, no
    /// records yet. What compaction keeps is appended with [`BatchBuilder::append_record`]; the last
    /// offset (and with it the last sequence) stays even if its record goes (KIP-98). An empty batch
    /// keeps its max timestamp. The delete horizon does not carry over: set it with
    /// [`BatchBuilder::delete_horizon_ms`] where the new batch still has tombstones.
    pub fn rewrite(header: &BatchHeader, compression: Compression) -> BatchBuilder {
        let mut builder = BatchBuilder::new();
        builder.header = BatchHeader { record_count: 0, ..*header };
        builder.header.attributes &= !(super::COMPRESSION_MASK | DELETE_HORIZON_BIT);
        builder.header.base_timestamp = NO_TIMESTAMP;
        builder.next_offset = header.base_offset;
        builder.last_offset = Some(header.last_offset());
        builder.compression = compression;
        match header.timestamp_type() {
            super::TimestampType::LogAppendTime => builder.log_append_time = Some(header.max_timestamp),
            super::TimestampType::CreateTime => {}
        }
        builder
    }

    /// First offset; records count on from it. Set before the first record.
    pub fn base_offset(mut self, offset: Offset) -> Self {
        self.header.base_offset = offset;
        self.next_offset = offset;
        self
    }

    /// Last offset the batch covers, when no record lies there.
    pub fn last_offset(mut self, offset: Offset) -> Self {
        self.last_offset = Some(offset);
        self
    }

    /// Leader epoch, -1 unless set.
    pub fn leader_epoch(mut self, epoch: i32) -> Self {
        self.header.leader_epoch = epoch;
        self
    }

    /// Codec.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Level of the codec; the codec's default unless set.
    pub fn level(mut self, level: i32) -> Self {
        self.level = Some(level);
        self
    }

    /// Idempotent producer: id, epoch and the sequence of the first record.
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Part of a transaction.
    pub fn transactional(mut self) -> Self {
        self.header.attributes |= TRANSACTIONAL_BIT;
        self
    }

    /// Holds control records.
    pub fn control(mut self) -> Self {
        self.header.attributes |= CONTROL_BIT;
        self
    }

    /// All records carry this timestamp, the broker's.
    pub fn log_append_time(mut self, now_ms: TimestampMs) -> Self {
        self.header.attributes |= LOG_APPEND_TIME_BIT;
        self.log_append_time = Some(now_ms);
        self
    }

    /// From when on the tombstones in the batch may go (KIP-534). Set before the first record.
    pub fn delete_horizon_ms(mut self, horizon_ms: TimestampMs) -> Self {
        self.header.attributes |= DELETE_HORIZON_BIT;
        self.header.base_timestamp = horizon_ms;
        self
    }

    /// Appends a record at the next offset.
    pub fn append(&mut self, timestamp: TimestampMs, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.append_with_headers(timestamp, key, value, &[]);
    }

    /// Appends a record with headers at the next offset.
    pub fn append_with_headers(
        &mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) {
        self.append_at(self.next_offset, timestamp, key, value, HeaderSource::List(headers));
    }

    /// Appends a record read from another batch, at its own offset.
    pub fn append_record(&mut self, record: &Record<'_>) {
        let Record { offset, timestamp, key, value, headers, .. } = *record;
        self.append_at(offset, timestamp, key, value, HeaderSource::Encoded(headers));
    }

    /// Records so far.
    pub fn record_count(&self) -> i32 {
        self.header.record_count
    }

    /// True without records.
    pub fn is_empty(&self) -> bool {
        self.header.record_count == 0
    }

    /// Offset the next [`BatchBuilder::append`] takes.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Size of the batch so far, bytes, before compression.
    pub fn size(&self) -> usize {
        HEADER_LEN + self.records.len()
    }

    /// Size of the batch once a record with these parts were in it, bytes, before compression; never too low.
    pub fn size_with(&self, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) -> usize {
        // Length, attributes, two deltas and the header count at their longest.
        const RECORD_OVERHEAD: usize = 5 + 1 + 10 + 5 + 5;
        let headers_len = HeaderSource::List(headers).encoded_len();
        self.size() + RECORD_OVERHEAD + nullable_len(key) + nullable_len(value) + headers_len
    }

    fn append_at(
        &mut self,
        offset: Offset,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: HeaderSource<'_>,
    ) {
        if self.error.is_some() {
            return;
        }
        let base_offset = self.header.base_offset;
        let delta = offset.checked_sub(base_offset).and_then(|delta| i32::try_from(delta).ok());
        let (Some(delta), true) = (delta, offset >= self.next_offset) else {
            self.error = Some(BuildError::Offset { offset, base_offset });
            return;
        };
        if self.is_empty() {
            if self.header.attributes & DELETE_HORIZON_BIT == 0 {
                self.header.base_timestamp = timestamp;
            }
            self.header.max_timestamp = timestamp;
        }
        let timestamp_delta = timestamp.wrapping_sub(self.header.base_timestamp);
        let body = 1
            + varlong_len(timestamp_delta)
            + varint_len(delta)
            + nullable_len(key)
            + nullable_len(value)
            + varint_len(headers.count() as i32)
            + headers.encoded_len();
        if body > (i32::MAX as usize).saturating_sub(self.size()) {
            self.error = Some(BuildError::TooLarge);
            return;
        }
        let out = &mut self.records;
        put_varint(out, body as i32);
        out.push(0);
        put_varlong(out, timestamp_delta);
        put_varint(out, delta);
        put_nullable(out, key);
        put_nullable(out, value);
        put_varint(out, headers.count() as i32);
        headers.put(out);
        self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
        self.header.record_count += 1;
        self.next_offset = offset + 1;
    }

    /// The batch as bytes.
    pub fn finish(self) -> Result<Vec<u8>, BuildError> {
        let mut out = Vec::with_capacity(self.size());
        self.finish_into(&mut out)?;
        Ok(out)
    }

    /// Appends the batch to `out`; leaves `out` as it was on an error.
    pub fn finish_into(mut self, out: &mut Vec<u8>) -> Result<(), BuildError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let base_offset = self.header.base_offset;
        let last_offset = match self.last_offset {
            None if self.is_empty() => return Err(BuildError::Empty),
            None => self.next_offset - 1,
            Some(offset) if offset < self.next_offset - 1 => {
                return Err(BuildError::Offset { offset, base_offset });
            }
            Some(offset) => offset,
        };
        let delta = last_offset.checked_sub(base_offset).and_then(|delta| i32::try_from(delta).ok());
        let delta = delta.filter(|delta| *delta >= 0);
        self.header.last_offset_delta =
            delta.ok_or(BuildError::Offset { offset: last_offset, base_offset })?;
        if let Some(time) = self.log_append_time {
            self.header.max_timestamp = time;
        }
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_LEN]);
        // Nothing to compress is written as nothing, which every reader takes for no records.
        if !self.is_empty() {
            self.header.attributes |= i16::from(self.compression.code());
            self.compression.compress(self.level, &self.records, out);
        }
        let Ok(batch_length) = i32::try_from(out.len() - start - LOG_OVERHEAD) else {
            out.truncate(start);
            return Err(BuildError::TooLarge);
        };
        self.header.batch_length = batch_length;
        let mut header = self.header.to_bytes();
        let crc = batch_crc(&header, &out[start + HEADER_LEN..]);
        header[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
        out[start..start + HEADER_LEN].copy_from_slice(&header);
        Ok(())
    }
}

/// Where the headers of a new record come from.
enum HeaderSource<'a> {
    List(&'a [Header<'a>]),
    Encoded(Headers<'a>),
}

impl HeaderSource<'_> {
    fn count(&self) -> usize {
        match self {
            HeaderSource::List(headers) => headers.len(),
            HeaderSource::Encoded(headers) => headers.len(),
        }
    }

    fn encoded_len(&self) -> usize {
        match self {
            HeaderSource::List(headers) => {
                headers.iter().map(|header| nullable_len(Some(header.key)) + nullable_len(header.value)).sum()
            }
            HeaderSource::Encoded(headers) => headers.raw().len(),
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            HeaderSource::List(headers) => {
                for header in *headers {
                    put_nullable(out, Some(header.key));
                    put_nullable(out, header.value);
                }
            }
            HeaderSource::Encoded(headers) => out.extend_from_slice(headers.raw()),
        }
    }
}

/// The control batch that ends a producer's transaction in one partition.
pub fn end_transaction_batch(
    kind: ControlRecordType,
    producer_id: i64,
    producer_epoch: i16,
    coordinator_epoch: i32,
    timestamp: TimestampMs,
) -> Vec<u8> {
    let mut builder =
        BatchBuilder::new().producer(producer_id, producer_epoch, NO_SEQUENCE).transactional().control();
    let value = EndTransactionMarker { coordinator_epoch }.value();
    builder.append(timestamp, Some(&kind.key()), Some(&value));
    builder.finish().expect("one small record makes a batch")
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, bytes.len() as i32);
            out.extend_from_slice(bytes);
        }
    }
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    // A length beyond 2 GiB is refused before it is written, so its prefix need not be exact.
    bytes.map_or(1, |bytes| varint_len(bytes.len().min(i32::MAX as usize) as i32) + bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchError, BatchView, Batches, DecompressBuffer};

    #[test]
    fn compaction_keeps_offsets_sequences_and_flags() {
        for codec in Compression::ALL {
            let mut full = BatchBuilder::new().base_offset(1000).leader_epoch(4).producer(9, 1, i32::MAX - 1);
            for offset in 0..6 {
                full.append_with_headers(
                    offset,
                    Some(b"key"),
                    None,
                    &[Header { key: b"h", value: Some(b"v") }],
                );
            }
            let full = full.transactional().compression(codec).finish().unwrap();
            let full = BatchView::parse(&full).unwrap();
            let mut rewritten = BatchBuilder::rewrite(full.header(), codec).delete_horizon_ms(77);
            let mut buffer = DecompressBuffer::new(1000);
            for record in full.records(&mut buffer).unwrap().map(Result::unwrap) {
                if record.offset % 3 == 2 {
                    rewritten.append_record(&record);
                }
            }
            let rewritten = rewritten.finish().unwrap();
            let rewritten = BatchView::parse(&rewritten).unwrap();
            assert_eq!(rewritten.verify_crc(), Ok(()));
            assert_eq!((rewritten.base_offset, rewritten.last_offset()), (1000, 1005));
            assert_eq!((rewritten.base_sequence, rewritten.last_sequence()), (i32::MAX - 1, 3));
            assert_eq!((rewritten.leader_epoch, rewritten.record_count), (4, 2));
            assert_eq!((rewritten.delete_horizon_ms(), rewritten.max_timestamp), (Some(77), 4));
            assert!(rewritten.is_transactional());
            let records: Vec<_> = rewritten.records(&mut buffer).unwrap().map(Result::unwrap).collect();
            let kept: Vec<_> = records.iter().map(|r| (r.offset, r.timestamp, r.headers.len())).collect();
            assert_eq!(kept, [(1001, 1, 1), (1004, 4, 1)], "{codec}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_at_the_end() {
        assert_eq!(BatchBuilder::new().finish(), Err(BuildError::Empty));
        let mut full = BatchBuilder::new().base_offset(5);
        full.append(0, None, None);
        let short = full.clone().last_offset(4).finish();
        assert_eq!(short, Err(BuildError::Offset { offset: 4, base_offset: 5 }));
        let far = full.clone().last_offset(1 << 40).finish();
        assert_eq!(far, Err(BuildError::Offset { offset: 1 << 40, base_offset: 5 }));
        let bytes = full.clone().finish().unwrap();
        let record = BatchView::parse(&bytes).unwrap().records_in_place().unwrap().next().unwrap().unwrap();
        full.append_record(&record);
        full.append(0, None, None);
        let mut out = b"before".to_vec();
        assert_eq!(full.finish_into(&mut out), Err(BuildError::Offset { offset: 5, base_offset: 5 }));
        assert_eq!(out, b"before");
    }

    #[test]
    fn the_size_with_one_more_record_is_never_too_low() {
        let mut builder = BatchBuilder::new();
        for index in 0..40i64 {
            let value = vec![0; 1usize << (index % 16)];
            let headers = [Header { key: b"name", value: Some(&value) }];
            let expected = builder.size_with(Some(b"k"), Some(&value), &headers);
            builder.append_with_headers(index << 30, Some(b"k"), Some(&value), &headers);
            assert!(builder.size() <= expected && expected - builder.size() < 32, "{index}");
        }
        let size = builder.size();
        assert_eq!(builder.finish().unwrap().len(), size);
    }

    #[test]
    fn batches_follow_each_other_and_a_cut_one_is_told() {
        let mut run = Vec::new();
        for base in [0, 10, 20] {
            let mut builder = BatchBuilder::new().base_offset(base);
            builder.append(1, None, Some(b"value"));
            builder.finish_into(&mut run).unwrap();
        }
        let offsets: Vec<_> = Batches::new(&run).map(|batch| batch.unwrap().base_offset).collect();
        assert_eq!(offsets, [0, 10, 20]);
        let one = run.len() / 3;
        for cut in 1..one {
            let batches: Vec<_> = Batches::new(&run[..2 * one + cut]).collect();
            assert_eq!(batches.len(), 3);
            assert!(matches!(batches[2], Err(BatchError::Truncated { available, .. }) if available == cut));
        }
        run[one + crate::batch::MAGIC_AT] = 1;
        assert_eq!(Batches::new(&run).count(), 2);
    }
}
