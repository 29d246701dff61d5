//! A topic's settings as plain numbers, for code that reads them on every batch.

use std::collections::BTreeMap;

use super::BrokerConfig;
use super::table::topic as keys;
use super::topic::TopicConfig;
use crate::batch::{Compression, TimestampType};

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// The record survives power loss: it was on the device before the answer.
    #[default]
    Fsync,
    /// The record survives the death of the process: it was in the page cache before the answer, as in Kafka.
    PageCache,
}

impl Durability {
    /// The value of `vltava.durability`.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Fsync => "fsync",
            Durability::PageCache => "page-cache",
        }
    }
}

/// The settings of one topic, worked out from its own values and the broker's.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicSettings {
    /// Old records are dropped by age and size.
    pub delete: bool,
    /// Only the last record of each key is kept; every record needs a key.
    pub compact: bool,
    /// How long records are kept, ms; `None` for ever.
    pub retention_ms: Option<i64>,
    /// Bytes of a partition that are kept; `None` for all.
    pub retention_bytes: Option<u64>,
    /// Size at which a segment is closed, bytes.
    pub segment_bytes: u64,
    /// Age at which a segment is closed, ms.
    pub segment_ms: i64,
    /// How much earlier a segment may be closed, ms; each segment draws its own part of it.
    pub segment_jitter_ms: i64,
    /// Bytes of records between two index entries.
    pub index_interval_bytes: u64,
    /// How long the files of a dropped segment stay on disk, ms.
    pub file_delete_delay_ms: i64,
    /// Largest batch that is taken, bytes.
    pub max_message_bytes: usize,
    /// Whose clock the records carry.
    pub timestamp_type: TimestampType,
    /// How far a timestamp may lie before the broker's clock, ms.
    pub timestamp_before_max_ms: i64,
    /// How far a timestamp may lie after the broker's clock, ms.
    pub timestamp_after_max_ms: i64,
    /// Codec that batches are stored in; `None` keeps the producer's.
    pub compression: Option<Compression>,
    /// Level for that codec; `None` for the codec's default.
    pub compression_level: Option<i32>,
    /// Copies that must hold a record before acks=all is answered.
    pub min_insync_replicas: i32,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// How long a tombstone stays after compaction has seen it, ms.
    pub delete_retention_ms: i64,
    /// How long a record stays untouched by compaction at least, ms.
    pub min_compaction_lag_ms: i64,
    /// After how long a record is compacted at the latest, ms.
    pub max_compaction_lag_ms: i64,
    /// Least share of not yet compacted bytes at which compaction begins, 0 to 1.
    pub min_cleanable_dirty_ratio: f64,
}

impl Default for TopicSettings {
    /// The settings of a topic that sets nothing, on a broker that sets nothing.
    fn default() -> Self {
        TopicSettings::resolve(&BrokerConfig::defaults(), &BTreeMap::new())
    }
}

impl TopicSettings {
    /// Works the settings out. Values that are not valid count as not set.
    pub fn resolve(broker: &BrokerConfig, overrides: &BTreeMap<String, String>) -> TopicSettings {
        let config = TopicConfig::new(broker, overrides);
        let int = |key| config.get::<i32, _>(key, |value| value);
        let long = |key| config.get::<i64, _>(key, |value| value);
        let has_policy =
            |name: &str| config.get(keys::CLEANUP_POLICY, |list| list.iter().any(|item| item == name));
        let segment_bytes = config.get(keys::INTERNAL_SEGMENT_BYTES, |bytes| bytes);
        let compression = config.get(keys::COMPRESSION_TYPE, compression_of);
        let compression_level = match compression {
            Some(Compression::Gzip) => Some(int(keys::COMPRESSION_GZIP_LEVEL)).filter(|level| *level != -1),
            Some(Compression::Zstd) => Some(int(keys::COMPRESSION_ZSTD_LEVEL)),
            _ => None,
        };
        TopicSettings {
            delete: has_policy("delete"),
            compact: has_policy("compact"),
            retention_ms: Some(long(keys::RETENTION_MS)).filter(|ms| *ms >= 0),
            retention_bytes: u64::try_from(long(keys::RETENTION_BYTES)).ok(),
            segment_bytes: segment_bytes.unwrap_or_else(|| int(keys::SEGMENT_BYTES)).max(0) as u64,
            segment_ms: long(keys::SEGMENT_MS),
            segment_jitter_ms: long(keys::SEGMENT_JITTER_MS),
            index_interval_bytes: int(keys::INDEX_INTERVAL_BYTES).max(0) as u64,
            file_delete_delay_ms: long(keys::FILE_DELETE_DELAY_MS),
            max_message_bytes: int(keys::MAX_MESSAGE_BYTES).max(0) as usize,
            timestamp_type: config.get(keys::MESSAGE_TIMESTAMP_TYPE, timestamp_type_of),
            timestamp_before_max_ms: long(keys::MESSAGE_TIMESTAMP_BEFORE_MAX_MS),
            timestamp_after_max_ms: long(keys::MESSAGE_TIMESTAMP_AFTER_MAX_MS),
            compression,
            compression_level,
            min_insync_replicas: int(keys::MIN_INSYNC_REPLICAS),
            durability: config.get(keys::TOPIC_DURABILITY, durability_of),
            delete_retention_ms: long(keys::DELETE_RETENTION_MS),
            min_compaction_lag_ms: long(keys::MIN_COMPACTION_LAG_MS),
            max_compaction_lag_ms: long(keys::MAX_COMPACTION_LAG_MS),
            min_cleanable_dirty_ratio: config.get(keys::MIN_CLEANABLE_DIRTY_RATIO, |ratio| ratio),
        }
    }
}

fn compression_of(name: &str) -> Option<Compression> {
    match name {
        "uncompressed" => Some(Compression::None),
        // `producer` is no codec: batches stay as they come.
        other => other.parse().ok(),
    }
}

fn timestamp_type_of(name: &str) -> TimestampType {
    if name == "LogAppendTime" { TimestampType::LogAppendTime } else { TimestampType::CreateTime }
}

fn durability_of(name: &str) -> Durability {
    if name == Durability::PageCache.name() { Durability::PageCache } else { Durability::Fsync }
}

impl BrokerConfig {
    /// The value of `vltava.durability` for topics that set none.
    pub fn durability(&self) -> Durability {
        durability_of(self.get(super::keys::DURABILITY))
    }
}
