//! From the bytes a producer sent for a partition to a batch that may be appended. Pure.
//!
//! Checks what a leader must check (reference: Kafka's produce path, KIP-98, KIP-467, KIP-724): exactly
//! one batch of magic 2 at base offset 0, its size, CRC, counts, codec, sequence, every record's structure, key and
//! timestamp. Bytes behind the batch that make no whole batch are dropped, as Kafka does. What comes out knows how its header is to be stamped once offset and epoch are known;
//! the records are never touched unless the topic asks for another codec.

use base::batch::{
    BATCH_LENGTH_AT, BatchBuilder, BatchHeader, BatchView, Compression, DecompressBuffer, HEADER_LEN,
    LOG_OVERHEAD, MAGIC, MAGIC_AT, RecordRules, Rejection, TimestampType,
};
use base::config::TopicSettings;
use base::error::ErrorCode;
use base::ids::{LeaderEpoch, Offset, TimestampMs};
use bytes::Bytes;

use super::producers::ProducerBatch;

/// zstd came with Produce version 7 (KIP-110).
const ZSTD_VERSION_MIN: i16 = 7;

/// What the shortest batch of any magic says of its length: an empty message of magic 0.
const LENGTH_MIN: usize = 14;

/// What a batch may grow to when it is decompressed for a check: twenty times the largest batch a
/// topic takes, or 64 MiB where that is more.
const DECOMPRESSED_BYTES_MIN: usize = 64 << 20;
const DECOMPRESSED_FACTOR: usize = 20;

/// A batch that passed every check.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    bytes: Bytes,
    header: BatchHeader,
    timestamp_type: TimestampType,
    max_timestamp: TimestampMs,
    /// The broker's time when the topic stamps batches with it, else -1; part of the answer.
    pub(crate) log_append_time_ms: TimestampMs,
    /// Set for idempotent producers.
    pub(crate) producer: Option<ProducerBatch>,
}

impl Prepared {
    /// Offsets the batch takes.
    pub(crate) fn offset_count(&self) -> i64 {
        i64::from(self.header.last_offset_delta) + 1
    }

    /// Length on disk.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// True for a batch of a transaction.
    pub(crate) fn is_transactional(&self) -> bool {
        self.header.is_transactional()
    }

    /// Number of records, for metrics.
    pub(crate) fn record_count(&self) -> i32 {
        self.header.record_count
    }

    /// The header for this place in the log.
    pub(crate) fn stamped(&self, base_offset: Offset, epoch: LeaderEpoch) -> [u8; HEADER_LEN] {
        let view = BatchView::parse(&self.bytes).expect("the bytes were parsed before");
        view.stamped_with_timestamp(base_offset, epoch.0, self.timestamp_type, self.max_timestamp)
    }

    /// The bytes behind the header.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[HEADER_LEN..]
    }
}

/// A batch this broker wrote itself (group state): nothing to check.
pub(crate) fn internal(bytes: Bytes) -> Prepared {
    let header = *BatchView::parse(&bytes).expect("a batch this broker built").header();
    Prepared {
        timestamp_type: header.timestamp_type(),
        max_timestamp: header.max_timestamp,
        log_append_time_ms: -1,
        producer: None,
        header,
        bytes,
    }
}

/// Checks what a Produce request of `version` carries for one partition.
///
/// # Errors
/// The [`Rejection`] the answer shows.
pub(crate) fn produced(
    records: Option<Bytes>,
    version: i16,
    settings: &TopicSettings,
    now_ms: TimestampMs,
) -> Result<Prepared, Rejection> {
    let records = records.unwrap_or_default();
    let size = batch_size(&records)?;
    let size = size.ok_or_else(|| invalid("Exactly one record batch is needed, there is none."))?;
    if records[MAGIC_AT] != MAGIC as u8 {
        return Err(invalid("Only record batches of magic 2 are taken."));
    }
    if batch_size(&records[size..])?.is_some() {
        return Err(invalid("Exactly one record batch is taken for a partition."));
    }
    let bytes = records.slice(..size);
    let batch = BatchView::parse(&bytes)?;
    let codec = batch.compression().map_err(Rejection::from)?;
    if codec == Compression::Zstd && version < ZSTD_VERSION_MIN {
        let message = format!("zstd needs Produce version {ZSTD_VERSION_MIN}, this is version {version}.");
        return Err(Rejection { code: ErrorCode::UnsupportedCompressionType, message, records: Vec::new() });
    }
    if batch.header().base_offset != 0 {
        return Err(invalid("The base offset of a batch that is not in a log yet must be 0."));
    }
    let limit = settings.max_message_bytes;
    if bytes.len() > limit {
        let message = format!("The batch has {} bytes, more than max.message.bytes {limit}.", bytes.len());
        return Err(Rejection { code: ErrorCode::MessageTooLarge, message, records: Vec::new() });
    }
    batch.verify_crc()?;
    batch.check_producer_header()?;
    let rules = RecordRules {
        keys_required: settings.compact,
        timestamp_type: settings.timestamp_type,
        before_max_ms: settings.timestamp_before_max_ms,
        after_max_ms: settings.timestamp_after_max_ms,
        now_ms,
    };
    let cap = limit.saturating_mul(DECOMPRESSED_FACTOR).max(DECOMPRESSED_BYTES_MIN);
    let mut buffer = DecompressBuffer::new(cap);
    let summary = batch.validate_records(&rules, &mut buffer)?;
    let header = *batch.header();
    let producer = header.has_producer_id().then(|| ProducerBatch::of(&header, summary.max_timestamp));
    let stamps_time = settings.timestamp_type == TimestampType::LogAppendTime;
    let (bytes, header) = match settings.compression {
        Some(wanted) if wanted != codec => {
            recompressed(&bytes, wanted, settings.compression_level, cap, limit)?
        }
        _ => (bytes, header),
    };
    Ok(Prepared {
        bytes,
        header,
        timestamp_type: settings.timestamp_type,
        max_timestamp: summary.max_timestamp,
        log_append_time_ms: if stamps_time { now_ms } else { -1 },
        producer,
    })
}

/// The size of the batch of any magic at the start of `bytes`, or `None` where they end before it does.
///
/// # Errors
/// The first bytes cannot be those of a batch.
fn batch_size(bytes: &[u8]) -> Result<Option<usize>, Rejection> {
    let Some(length) = bytes.get(BATCH_LENGTH_AT..).and_then(|rest| rest.first_chunk()) else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*length);
    let Some(length) = usize::try_from(length).ok().filter(|length| *length >= LENGTH_MIN) else {
        return Err(corrupt(format!("A batch of length {length} there cannot be.")));
    };
    match bytes.get(MAGIC_AT) {
        Some(magic) if *magic > MAGIC as u8 => {
            Err(corrupt(format!("There are no batches of magic {magic}.")))
        }
        magic => {
            let size = length.saturating_add(LOG_OVERHEAD);
            Ok(Some(size).filter(|size| magic.is_some() && *size <= bytes.len()))
        }
    }
}

/// The batch in the topic's own codec.
fn recompressed(
    bytes: &Bytes,
    wanted: Compression,
    level: Option<i32>,
    cap: usize,
    limit: usize,
) -> Result<(Bytes, BatchHeader), Rejection> {
    let batch = BatchView::parse(bytes)?;
    let mut buffer = DecompressBuffer::new(cap);
    let mut builder = BatchBuilder::rewrite(batch.header(), wanted);
    if let Some(level) = level {
        builder = builder.level(level);
    }
    for record in batch.records(&mut buffer)? {
        builder.append_record(&record?);
    }
    let bytes = Bytes::from(builder.finish().map_err(|error| invalid(&format!("{error}.")))?);
    if bytes.len() > limit {
        let message = format!("The batch has {} bytes as {}, more than {limit}.", bytes.len(), wanted.name());
        return Err(Rejection { code: ErrorCode::MessageTooLarge, message, records: Vec::new() });
    }
    let header = *BatchView::parse(&bytes)?.header();
    Ok((bytes, header))
}

fn corrupt(message: String) -> Rejection {
    Rejection { code: ErrorCode::CorruptMessage, message, records: Vec::new() }
}

fn invalid(message: &str) -> Rejection {
    Rejection { code: ErrorCode::InvalidRecord, message: message.to_owned(), records: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: TimestampMs = 1_700_000_000_000;
    const VERSION: i16 = 12;

    fn one() -> BatchBuilder {
        let mut builder = BatchBuilder::new();
        builder.append(NOW_MS, Some(b"key"), Some(b"value"));
        builder
    }

    fn take(bytes: &[u8]) -> Result<Prepared, ErrorCode> {
        let settings = TopicSettings::default();
        produced(Some(Bytes::copy_from_slice(bytes)), VERSION, &settings, NOW_MS)
            .map_err(|refused| refused.code)
    }

    #[test]
    fn what_is_no_whole_batch_is_an_invalid_record() {
        let batch = one().finish().unwrap();
        for end in [0, 1, 11, 12, 16, 17, 60, 61, batch.len() - 1] {
            assert_eq!(take(&batch[..end]).unwrap_err(), ErrorCode::InvalidRecord, "{end}");
        }
        assert_eq!(take(&[&batch[..], &batch].concat()).unwrap_err(), ErrorCode::InvalidRecord);
        let refused = produced(None, VERSION, &TopicSettings::default(), NOW_MS).unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidRecord);
    }

    #[test]
    fn what_cannot_be_the_start_of_a_batch_is_corrupt() {
        assert_eq!(take(&[0xff; 100]).unwrap_err(), ErrorCode::CorruptMessage);
        for (magic, code) in [
            (0, ErrorCode::InvalidRecord),
            (1, ErrorCode::InvalidRecord),
            (3, ErrorCode::CorruptMessage),
            (0xff, ErrorCode::CorruptMessage),
        ] {
            let mut batch = one().finish().unwrap();
            batch[MAGIC_AT] = magic;
            assert_eq!(take(&batch).unwrap_err(), code, "magic {magic}");
        }
        let mut too_short = one().finish().unwrap();
        too_short[BATCH_LENGTH_AT..BATCH_LENGTH_AT + 4].copy_from_slice(&13_i32.to_be_bytes());
        assert_eq!(take(&too_short).unwrap_err(), ErrorCode::CorruptMessage);
    }

    #[test]
    fn bytes_behind_the_batch_are_dropped_unless_they_cannot_begin_one() {
        let batch = one().finish().unwrap();
        let taken = take(&[&batch[..], b"\0"].concat()).unwrap();
        assert_eq!(taken.size(), batch.len());
        let taken = take(&[&batch[..], &batch[..40]].concat()).unwrap();
        assert_eq!(taken.size(), batch.len());
        assert_eq!(take(&[&batch[..], &[0xff; 12]].concat()).unwrap_err(), ErrorCode::CorruptMessage);
    }

    #[test]
    fn a_batch_must_not_have_a_place_yet() {
        let mut batch = one().finish().unwrap();
        batch[7] = 1;
        assert_eq!(take(&batch).unwrap_err(), ErrorCode::InvalidRecord);
    }

    #[test]
    fn a_claimed_append_time_is_stored_as_create_time() {
        let batch = one().log_append_time(NOW_MS + 5).finish().unwrap();
        let taken = take(&batch).unwrap();
        assert_eq!(taken.log_append_time_ms, -1);
        let stored = [&taken.stamped(7, LeaderEpoch(2))[..], taken.rest()].concat();
        let stored = BatchView::parse(&stored).unwrap();
        stored.verify_crc().unwrap();
        let header = stored.header();
        assert_eq!(header.timestamp_type(), TimestampType::CreateTime);
        assert_eq!((header.base_offset, header.max_timestamp), (7, NOW_MS + 5));
    }
}
