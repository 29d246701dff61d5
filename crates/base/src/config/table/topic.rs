//! What a topic may set for itself.

use super::reasons::{FLUSH, INDEX_SIZE, LZ4_LEVEL, PREALLOCATE, REMOVAL, THROTTLE, TIERED};
use crate::config::key::{Key, List, Text, boolean, double, int, list, long, string};

config_keys! { pub(in crate::config) ROWS;
    [CLEANUP_POLICY: List] list("cleanup.policy").default("delete").each_of(&["compact", "delete"])
        .synonyms(&[("log.cleanup.policy", 1)])
        .doc("What happens to old records: delete drops them by age and size, compact keeps the last \
              one of each key; both may be named.");
    [COMPRESSION_TYPE: Text] string("compression.type").default("producer")
        .one_of(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"])
        .synonyms(&[("compression.type", 1)])
        .doc("How batches are stored: producer keeps what the client chose, another value compresses \
              anew.");
    [COMPRESSION_GZIP_LEVEL: i32] int("compression.gzip.level").default("-1").between_or(1, 9, -1)
        .synonyms(&[("compression.gzip.level", 1)])
        .doc("Level for compressing anew with gzip, -1 for its own default.");
    [] int("compression.lz4.level").default("9").between(1, 17).synonyms(&[("compression.lz4.level", 1)])
        .doc("Level for compressing anew with lz4.")
        .no_effect(LZ4_LEVEL);
    [COMPRESSION_ZSTD_LEVEL: i32] int("compression.zstd.level").default("3").between(-131072, 22)
        .synonyms(&[("compression.zstd.level", 1)])
        .doc("Level for compressing anew with zstd.");
    [DELETE_RETENTION_MS: i64] long("delete.retention.ms").default("86400000").min(0)
        .synonyms(&[("log.cleaner.delete.retention.ms", 1)])
        .doc("How long, ms, a tombstone stays after compaction has seen it. A reader that starts at the \
              beginning must reach the end within this time to see every deletion.");
    [FILE_DELETE_DELAY_MS: i64] long("file.delete.delay.ms").default("60000").min(0)
        .synonyms(&[("log.segment.delete.delay.ms", 1)])
        .doc("How long, ms, the files of a dropped segment stay on disk.")
        .no_effect(REMOVAL);
    [] long("flush.messages").default("9223372036854775807").min(1)
        .synonyms(&[("log.flush.interval.messages", 1)])
        .doc("Records after which the log is forced to the device.")
        .no_effect(FLUSH);
    [] long("flush.ms").default("9223372036854775807").min(0)
        .synonyms(&[("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)])
        .doc("Time after which the log is forced to the device, ms.")
        .no_effect(FLUSH);
    [] list("follower.replication.throttled.replicas").default("").replicas()
        .doc("Copies whose followers are throttled, as partition:broker, or * for all.")
        .no_effect(THROTTLE);
    [] list("leader.replication.throttled.replicas").default("").replicas()
        .doc("Copies whose leaders are throttled, as partition:broker, or * for all.")
        .no_effect(THROTTLE);
    [INDEX_INTERVAL_BYTES: i32] int("index.interval.bytes").default("4096").min(0)
        .synonyms(&[("log.index.interval.bytes", 1)])
        .doc("Bytes of records between two entries of a segment's index.");
    [INTERNAL_SEGMENT_BYTES: Option<i32>] int("internal.segment.bytes").internal()
        .doc("Segment size below what segment.bytes allows, bytes, for tests.");
    [] long("local.retention.bytes").default("-2").min(-2).synonyms(&[("log.local.retention.bytes", 1)])
        .doc("Bytes of a tiered partition that are kept locally, -2 for as many as retention.bytes allows.")
        .no_effect(TIERED);
    [] long("local.retention.ms").default("-2").min(-2).synonyms(&[("log.local.retention.ms", 1)])
        .doc("How long, ms, a tiered partition is kept locally, -2 for as long as retention.ms allows.")
        .no_effect(TIERED);
    [MAX_COMPACTION_LAG_MS: i64] long("max.compaction.lag.ms").default("9223372036854775807").min(1)
        .synonyms(&[("log.cleaner.max.compaction.lag.ms", 1)])
        .doc("After how long, ms, a record is compacted even when the share of new bytes is small.");
    [MAX_MESSAGE_BYTES: i32] int("max.message.bytes").default("1048588").min(0)
        .synonyms(&[("message.max.bytes", 1)])
        .doc("Largest record batch that is taken, bytes, as compressed by the producer.");
    [MESSAGE_TIMESTAMP_AFTER_MAX_MS: i64] long("message.timestamp.after.max.ms").default("3600000").min(0)
        .synonyms(&[("log.message.timestamp.after.max.ms", 1)])
        .doc("How far, ms, a producer's timestamp may lie after the broker's clock.");
    [MESSAGE_TIMESTAMP_BEFORE_MAX_MS: i64] long("message.timestamp.before.max.ms")
        .default("9223372036854775807").min(0).synonyms(&[("log.message.timestamp.before.max.ms", 1)])
        .doc("How far, ms, a producer's timestamp may lie before the broker's clock.");
    [MESSAGE_TIMESTAMP_TYPE: Text] string("message.timestamp.type").default("CreateTime")
        .one_of(&["CreateTime", "LogAppendTime"]).synonyms(&[("log.message.timestamp.type", 1)])
        .doc("Whose clock the records carry: the producer's (CreateTime) or the broker's (LogAppendTime).");
    [MIN_CLEANABLE_DIRTY_RATIO: f64] double("min.cleanable.dirty.ratio").default("0.5").ratio(0.0, 1.0)
        .synonyms(&[("log.cleaner.min.cleanable.ratio", 1)])
        .doc("Least share of not yet compacted bytes at which the log is compacted.");
    [MIN_COMPACTION_LAG_MS: i64] long("min.compaction.lag.ms").default("0").min(0)
        .synonyms(&[("log.cleaner.min.compaction.lag.ms", 1)])
        .doc("How long, ms, a record stays untouched by compaction at least.");
    [MIN_INSYNC_REPLICAS: i32] int("min.insync.replicas").default("1").min(1)
        .synonyms(&[("min.insync.replicas", 1)])
        .doc("Copies that must hold a record before a producer with acks=all is answered.");
    [] boolean("preallocate").default("false").synonyms(&[("log.preallocate", 1)])
        .doc("Reserve the disk space of a whole segment when it is begun.")
        .no_effect(PREALLOCATE);
    [] boolean("remote.log.copy.disable").default("false")
        .doc("Stop copying segments to remote storage.")
        .no_effect(TIERED);
    [] boolean("remote.log.delete.on.disable").default("false")
        .doc("Drop what lies in remote storage when tiering is switched off.")
        .no_effect(TIERED);
    [] boolean("remote.storage.enable").default("false")
        .doc("Move old segments to remote storage.")
        .no_effect(TIERED);
    [RETENTION_BYTES: i64] long("retention.bytes").default("-1").synonyms(&[("log.retention.bytes", 1)])
        .doc("How many bytes of a partition are kept, -1 for all.");
    [RETENTION_MS: i64] long("retention.ms").default("604800000").min(-1)
        .synonyms(&[("log.retention.ms", 1), ("log.retention.minutes", 60_000), ("log.retention.hours", 3_600_000)])
        .doc("How long records are kept, ms, -1 for ever.");
    [SEGMENT_BYTES: i32] int("segment.bytes").default("1073741824").min(1048576)
        .synonyms(&[("log.segment.bytes", 1)])
        .doc("Size at which a segment is closed and the next begun, bytes.");
    [] int("segment.index.bytes").default("10485760").min(4).synonyms(&[("log.index.size.max.bytes", 1)])
        .doc("Largest index of a segment, bytes.")
        .no_effect(INDEX_SIZE);
    [SEGMENT_JITTER_MS: i64] long("segment.jitter.ms").default("0").min(0)
        .synonyms(&[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", 3_600_000)])
        .doc("How much earlier, at random, a segment may be closed, ms.");
    [SEGMENT_MS: i64] long("segment.ms").default("604800000").min(1)
        .synonyms(&[("log.roll.ms", 1), ("log.roll.hours", 3_600_000)])
        .doc("Age at which a segment is closed, ms.");
    [] boolean("unclean.leader.election.enable").default("false")
        .synonyms(&[("unclean.leader.election.enable", 1)])
        .doc("Let a copy lead that may lack acknowledged records, which are lost then, where no other is left.");
    [TOPIC_DURABILITY: Text] string("vltava.durability").default("fsync").one_of(&["fsync", "page-cache"])
        .synonyms(&[("vltava.durability", 1)])
        .doc("What an acknowledgement promises: fsync survives power loss, page-cache survives the \
              death of the process, as in Kafka.");
}
