//! From the bytes a producer sent for a partition to a batch that may be appended. Pure.
//!
//! Checks what a leader must check (reference: Kafka's produce path, KIP-98, KIP-467, KIP-724): exactly
//! one batch of magic 2, its size, CRC, counts, codec, sequence, every record's structure, key and
//! timestamp. What comes out knows how its header is to be stamped once offset and epoch are known;
//! the records are never touched unless the topic asks for another codec.

use base::batch::{
    BatchBuilder, BatchHeader, BatchView, Compression, DecompressBuffer, HEADER_LEN, MAGIC_AT, RecordRules,
    Rejection, TimestampType,
};
use base::config::TopicSettings;
use base::error::ErrorCode;
use base::ids::{LeaderEpoch, Offset, TimestampMs};
use bytes::Bytes;

use super::producers::ProducerBatch;

/// zstd came with Produce version 7 (KIP-110).
const ZSTD_VERSION_MIN: i16 = 7;

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
    let records = records.filter(|records| !records.is_empty());
    let bytes = records.ok_or_else(|| invalid("Exactly one record batch is needed, there is none."))?;
    if bytes.get(MAGIC_AT).is_some_and(|magic| *magic != 2) {
        return Err(invalid("Only record batches of magic 2 are taken."));
    }
    let batch = BatchView::parse(&bytes)?;
    let codec = batch.compression().map_err(Rejection::from)?;
    if codec == Compression::Zstd && version < ZSTD_VERSION_MIN {
        let message = format!("zstd needs Produce version {ZSTD_VERSION_MIN}, this is version {version}.");
        return Err(Rejection { code: ErrorCode::UnsupportedCompressionType, message, records: Vec::new() });
    }
    if batch.bytes().len() < bytes.len() {
        return Err(invalid("Exactly one record batch is taken for a partition."));
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

fn invalid(message: &str) -> Rejection {
    Rejection { code: ErrorCode::InvalidRecord, message: message.to_owned(), records: Vec::new() }
}
