//! What a leader checks in a producer's batch before it takes it.
//!
//! Header rules need no look at the records; record rules do, and cost about 10 ns a record when the
//! batch is not compressed. A rejection carries what the Produce answer shows: one error for the
//! partition and, where single records are to blame, one line for each (KIP-467).

use std::fmt;

use super::{BatchError, BatchView, DecompressBuffer, NO_TIMESTAMP, Record, TimestampType};
use crate::error::ErrorCode;
use crate::ids::TimestampMs;

/// A topic's rules for records, and the clock they are held against.
#[derive(Clone, Copy, Debug)]
pub struct RecordRules {
    /// The topic is compacted: every record needs a key.
    pub keys_required: bool,
    /// `message.timestamp.type` of the topic.
    pub timestamp_type: TimestampType,
    /// How far a timestamp may lie before now, ms (`message.timestamp.before.max.ms`).
    pub before_max_ms: i64,
    /// How far a timestamp may lie after now, ms (`message.timestamp.after.max.ms`).
    pub after_max_ms: i64,
    /// Wall clock of the broker, ms.
    pub now_ms: TimestampMs,
}

/// What the records of an accepted batch come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordSummary {
    /// The highest timestamp; now when the topic has LogAppendTime, -1 when no record has one. The
    /// header must carry it: some clients leave the field unset, and time look-ups read it.
    pub max_timestamp: TimestampMs,
    /// Offset delta of the first record with that timestamp; 0 when the topic has LogAppendTime.
    pub max_timestamp_delta: i32,
    /// Bytes of the records, not compressed.
    pub uncompressed_bytes: usize,
}

/// Why one record is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordErrorKind {
    /// No key although the topic is compacted.
    MissingKey,
    /// The timestamp is too far from the broker's clock.
    TimestampOutOfRange {
        /// Timestamp of the record.
        timestamp: TimestampMs,
        /// Least timestamp the topic takes now.
        earliest: TimestampMs,
        /// Greatest timestamp the topic takes now.
        latest: TimestampMs,
    },
    /// The producer marked the batch as stamped by the broker, and gave no time.
    ProducerSetLogAppendTime,
}

/// One refused record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// Position of the record in its batch, from 0.
    pub index: i32,
    /// Why.
    pub kind: RecordErrorKind,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RecordErrorKind::MissingKey => {
                f.write_str("The topic is compacted, so every record needs a key.")
            }
            RecordErrorKind::TimestampOutOfRange { timestamp, earliest, latest } => {
                write!(
                    f,
                    "Timestamp {timestamp} is outside of {earliest} to {latest}, which the topic takes now."
                )
            }
            RecordErrorKind::ProducerSetLogAppendTime => {
                f.write_str("A producer must not mark its batch as LogAppendTime without a time.")
            }
        }
    }
}

/// A batch is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Error of the partition.
    pub code: ErrorCode,
    /// What is wrong, in one sentence.
    pub message: String,
    /// The records to blame, in order; empty when the batch itself is wrong.
    pub records: Vec<RecordError>,
}

impl From<BatchError> for Rejection {
    fn from(error: BatchError) -> Rejection {
        Rejection { code: error.error_code(), message: format!("{error}."), records: Vec::new() }
    }
}

impl Rejection {
    fn invalid(message: String) -> Rejection {
        Rejection { code: ErrorCode::InvalidRecord, message, records: Vec::new() }
    }

    fn of_records(records: Vec<RecordError>) -> Rejection {
        let about_time = records.iter().any(|error| error.kind != RecordErrorKind::MissingKey);
        let code = if about_time { ErrorCode::InvalidTimestamp } else { ErrorCode::InvalidRecord };
        let first = records.first().expect("a rejection for records names at least one");
        let message =
            format!("{} of the records are refused; record {}: {first}", records.len(), first.index);
        Rejection { code, message, records }
    }
}

impl BatchView<'_> {
    /// The rules a producer's batch must keep that its header alone tells: a known codec, dense offsets
    /// from the first to the last record, no control records, a sequence where there is a producer id.
    pub fn check_producer_header(&self) -> Result<(), Rejection> {
        self.compression()?;
        if self.record_count == 0 || i64::from(self.last_offset_delta) + 1 != i64::from(self.record_count) {
            return Err(BatchError::InvalidCount {
                record_count: self.record_count,
                last_offset_delta: self.last_offset_delta,
            }
            .into());
        }
        if self.is_control() {
            return Err(Rejection::invalid("Clients may not write control records.".to_owned()));
        }
        if self.has_producer_id() && self.base_sequence < 0 {
            let sequence = self.base_sequence;
            return Err(Rejection::invalid(format!(
                "Sequence {sequence} of an idempotent producer is negative."
            )));
        }
        Ok(())
    }

    /// Walks all records: structure, dense offsets, keys and timestamps by the topic's rules.
    /// [`BatchView::check_producer_header`] must have passed.
    pub fn validate_records(
        &self,
        rules: &RecordRules,
        buffer: &mut DecompressBuffer,
    ) -> Result<RecordSummary, Rejection> {
        let mut summary =
            RecordSummary { max_timestamp: NO_TIMESTAMP, max_timestamp_delta: 0, uncompressed_bytes: 0 };
        let mut errors = Vec::new();
        for (index, record) in self.records(buffer)?.enumerate() {
            let record = record?;
            let index = index as i32;
            if record.offset != self.base_offset.wrapping_add(i64::from(index)) {
                let delta = record.offset.wrapping_sub(self.base_offset);
                return Err(Rejection::invalid(format!(
                    "Record {index} of the batch has offset delta {delta}."
                )));
            }
            if let Some(kind) = self.record_fault(&record, rules) {
                errors.push(RecordError { index, kind });
            }
            if record.timestamp > summary.max_timestamp {
                summary.max_timestamp = record.timestamp;
                summary.max_timestamp_delta = index;
            }
            summary.uncompressed_bytes += record.size;
        }
        if !errors.is_empty() {
            return Err(Rejection::of_records(errors));
        }
        if rules.timestamp_type == TimestampType::LogAppendTime {
            summary.max_timestamp = rules.now_ms;
            summary.max_timestamp_delta = 0;
        }
        Ok(summary)
    }

    fn record_fault(&self, record: &Record<'_>, rules: &RecordRules) -> Option<RecordErrorKind> {
        if rules.keys_required && record.key.is_none() {
            return Some(RecordErrorKind::MissingKey);
        }
        if rules.timestamp_type == TimestampType::LogAppendTime {
            return None;
        }
        if record.timestamp == NO_TIMESTAMP {
            let marked = self.timestamp_type() == TimestampType::LogAppendTime;
            return marked.then_some(RecordErrorKind::ProducerSetLogAppendTime);
        }
        let age_ms = i128::from(rules.now_ms) - i128::from(record.timestamp);
        let in_range = age_ms <= i128::from(rules.before_max_ms) && -age_ms <= i128::from(rules.after_max_ms);
        (!in_range).then(|| RecordErrorKind::TimestampOutOfRange {
            timestamp: record.timestamp,
            earliest: rules.now_ms.saturating_sub(rules.before_max_ms),
            latest: rules.now_ms.saturating_add(rules.after_max_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, BatchHeader, Compression, ControlRecordType, end_transaction_batch};

    const NOW_MS: i64 = 1_700_000_000_000;
    const RULES: RecordRules = RecordRules {
        keys_required: false,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: 3_600_000,
        now_ms: NOW_MS,
    };

    fn validate(bytes: &[u8], rules: RecordRules) -> Result<RecordSummary, Rejection> {
        let batch = BatchView::parse(bytes).unwrap();
        batch.check_producer_header()?;
        batch.validate_records(&rules, &mut DecompressBuffer::new(1 << 20))
    }

    fn batch(timestamps: &[i64]) -> BatchBuilder {
        let mut builder = BatchBuilder::new();
        timestamps.iter().for_each(|timestamp| builder.append(*timestamp, Some(b"key"), Some(b"value")));
        builder
    }

    #[test]
    fn the_highest_timestamp_is_found_whatever_the_header_says() {
        for codec in Compression::ALL {
            let bytes =
                batch(&[NOW_MS, NOW_MS + 9, NOW_MS + 3, NOW_MS + 9]).compression(codec).finish().unwrap();
            let mut header = *BatchView::parse(&bytes).unwrap().header();
            header.max_timestamp = -1;
            let bytes = [&header.to_bytes()[..], &bytes[61..]].concat();
            let summary = validate(&bytes, RULES).unwrap();
            assert_eq!((summary.max_timestamp, summary.max_timestamp_delta), (NOW_MS + 9, 1), "{codec}");
            let at_append = RecordRules { timestamp_type: TimestampType::LogAppendTime, ..RULES };
            let summary = validate(&bytes, at_append).unwrap();
            assert_eq!((summary.max_timestamp, summary.max_timestamp_delta), (NOW_MS, 0), "{codec}");
        }
    }

    #[test]
    fn timestamps_out_of_range_are_named_record_by_record() {
        let hour_ms = 3_600_000;
        let bytes =
            batch(&[NOW_MS, NOW_MS + hour_ms, NOW_MS + hour_ms + 1, -1, i64::MIN + 1, NOW_MS - hour_ms]);
        let bytes = bytes.finish().unwrap();
        let rejection = validate(&bytes, RULES).unwrap_err();
        assert_eq!(rejection.code, ErrorCode::InvalidTimestamp);
        assert_eq!(rejection.records.iter().map(|error| error.index).collect::<Vec<_>>(), [2, 4]);
        let narrow = RecordRules { before_max_ms: hour_ms - 1, after_max_ms: hour_ms + 1, ..RULES };
        let rejection = validate(&bytes, narrow).unwrap_err();
        assert_eq!(rejection.records.iter().map(|error| error.index).collect::<Vec<_>>(), [4, 5]);
        let at_append = RecordRules { timestamp_type: TimestampType::LogAppendTime, ..narrow };
        assert!(validate(&bytes, at_append).is_ok());
    }

    #[test]
    fn compacted_topics_need_keys() {
        let mut builder = batch(&[1]);
        builder.append(2, None, Some(b"value"));
        builder.append(3, Some(b""), None);
        let bytes = builder.finish().unwrap();
        assert!(validate(&bytes, RULES).is_ok());
        let rejection = validate(&bytes, RecordRules { keys_required: true, ..RULES }).unwrap_err();
        assert_eq!(rejection.code, ErrorCode::InvalidRecord);
        assert_eq!(rejection.records, [RecordError { index: 1, kind: RecordErrorKind::MissingKey }]);
    }

    #[test]
    fn an_append_time_that_a_producer_claims_counts_as_its_records_time() {
        let bytes = batch(&[1, 2]).log_append_time(5).finish().unwrap();
        assert_eq!(validate(&bytes, RULES).unwrap().max_timestamp, 5);
        let too_late = batch(&[1]).log_append_time(NOW_MS + 3_600_001).finish().unwrap();
        assert_eq!(validate(&too_late, RULES).unwrap_err().code, ErrorCode::InvalidTimestamp);
        let bytes = batch(&[1]).log_append_time(-1).finish().unwrap();
        let rejection = validate(&bytes, RULES).unwrap_err();
        assert_eq!(rejection.code, ErrorCode::InvalidTimestamp);
        assert_eq!(rejection.records[0].kind, RecordErrorKind::ProducerSetLogAppendTime);
    }

    #[test]
    fn offsets_must_be_dense() {
        let mut gap = batch(&[1]);
        gap = gap.last_offset(2);
        gap.append(2, Some(b"key"), None);
        assert_eq!(validate(&gap.finish().unwrap(), RULES).unwrap_err().code, ErrorCode::InvalidRecord);
        // The counts agree, the deltas do not: 0 and 2 instead of 0 and 1.
        let bytes = batch(&[1, 1, 1]).finish().unwrap();
        let records = BatchView::parse(&bytes).unwrap().records_in_place().unwrap();
        let kept: Vec<_> = records.map(Result::unwrap).filter(|record| record.offset != 1).collect();
        let mut holed = BatchBuilder::new();
        kept.iter().for_each(|record| holed.append_record(record));
        let bytes = holed.finish().unwrap();
        let header = BatchHeader { last_offset_delta: 1, ..*BatchView::parse(&bytes).unwrap().header() };
        let bytes = [&header.to_bytes()[..], &bytes[61..]].concat();
        let rejection = validate(&bytes, RULES).unwrap_err();
        assert_eq!(
            (rejection.code, &rejection.message[..]),
            (ErrorCode::InvalidRecord, "Record 1 of the batch has offset delta 2.")
        );
    }

    #[test]
    fn headers_no_producer_may_send_are_refused() {
        let marker = end_transaction_batch(ControlRecordType::Abort, 1, 0, 0, 0);
        assert_eq!(validate(&marker, RULES).unwrap_err().code, ErrorCode::InvalidRecord);
        let no_sequence = batch(&[1]).producer(1, 0, -1).finish().unwrap();
        assert_eq!(validate(&no_sequence, RULES).unwrap_err().code, ErrorCode::InvalidRecord);
        let empty = BatchBuilder::new().last_offset(0).finish().unwrap();
        assert_eq!(validate(&empty, RULES).unwrap_err().code, ErrorCode::InvalidRecord);
        let mut unknown_codec = batch(&[1]).finish().unwrap();
        unknown_codec[22] |= 7;
        assert_eq!(validate(&unknown_codec, RULES).unwrap_err().code, ErrorCode::UnsupportedCompressionType);
        let bomb = batch(&[1; 1000]).compression(Compression::Gzip).finish().unwrap();
        let refused =
            BatchView::parse(&bomb).unwrap().validate_records(&RULES, &mut DecompressBuffer::new(1000));
        assert_eq!(refused.unwrap_err().code, ErrorCode::MessageTooLarge);
    }
}
