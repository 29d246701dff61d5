//! Logs: what a topic gets that sets nothing itself, and how the node keeps its logs.

use super::reasons::{
    CHECKPOINT, CLEANER_BUFFER, FLUSH, INDEX_SIZE, LZ4_LEVEL, PREALLOCATE, PRODUCER_SWEEP, REMOVAL,
    TASK_DELAY, UNCLEAN,
};
use crate::config::key::{Key, List, Text, boolean, double, int, list, long, string};

config_keys! { pub(in crate::config) ROWS;
    [NUM_PARTITIONS: i32] int("num.partitions").default("1").min(1)
        .doc("Partitions of a topic that is created without a number of them.");
    [DEFAULT_REPLICATION_FACTOR: i32] int("default.replication.factor").default("1")
        .doc("Copies of a topic that is created without a number of them; never more than there are nodes.");
    [AUTO_CREATE_TOPICS_ENABLE: bool] boolean("auto.create.topics.enable").default("true").high()
        .doc("Create a topic when a client that allows it asks for one that does not exist.");
    [DELETE_TOPIC_ENABLE: bool] boolean("delete.topic.enable").default("true").high()
        .doc("Allow topics to be deleted.");
    [MIN_INSYNC_REPLICAS: i32] int("min.insync.replicas").default("1").min(1).high().cluster_wide()
        .doc("Copies that must hold a record before a producer with acks=all is answered.");
    [UNCLEAN_LEADER_ELECTION_ENABLE: bool] boolean("unclean.leader.election.enable").default("false").high().cluster_wide()
        .doc("Let a copy lead that may lack acknowledged records, which are lost then, where no other is left. Where it is \
              not set for the topic or for all brokers, the controllers' own files count.");
    [] long("unclean.leader.election.interval.ms").default("300000").min(1).internal()
        .doc("Time between two searches for partitions that need an unclean election, ms.")
        .no_effect(UNCLEAN);
    [MESSAGE_MAX_BYTES: i32] int("message.max.bytes").default("1048588").min(0).high().cluster_wide()
        .doc("Largest record batch that is taken, bytes, as compressed by the producer.");
    [COMPRESSION_TYPE: Text] string("compression.type").default("producer")
        .one_of(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]).high().cluster_wide()
        .doc("How batches are stored: producer keeps what the client chose, another value compresses \
              anew.");
    [COMPRESSION_GZIP_LEVEL: i32] int("compression.gzip.level").default("-1").between_or(1, 9, -1)
        .cluster_wide()
        .doc("Level for compressing anew with gzip, -1 for its own default.");
    [] int("compression.lz4.level").default("9").between(1, 17).cluster_wide()
        .doc("Level for compressing anew with lz4.")
        .no_effect(LZ4_LEVEL);
    [COMPRESSION_ZSTD_LEVEL: i32] int("compression.zstd.level").default("3").between(-131072, 22)
        .cluster_wide()
        .doc("Level for compressing anew with zstd.");
    [LOG_SEGMENT_BYTES: i32] int("log.segment.bytes").default("1073741824").min(1048576).high()
        .cluster_wide()
        .doc("Size at which a segment is closed and the next begun, bytes.");
    [LOG_ROLL_MS: Option<i64>] long("log.roll.ms").high().cluster_wide()
        .doc("Age at which a segment is closed, ms; log.roll.hours counts when not set.");
    [LOG_ROLL_HOURS: i32] int("log.roll.hours").default("168").min(1).high()
        .doc("Age at which a segment is closed, hours.");
    [LOG_ROLL_JITTER_MS: Option<i64>] long("log.roll.jitter.ms").high().cluster_wide()
        .doc("How much earlier, at random, a segment may be closed, ms; log.roll.jitter.hours counts \
              when not set.");
    [LOG_ROLL_JITTER_HOURS: i32] int("log.roll.jitter.hours").default("0").min(0).high()
        .doc("How much earlier, at random, a segment may be closed, hours.");
    [LOG_RETENTION_MS: Option<i64>] long("log.retention.ms").high().cluster_wide()
        .doc("How long records are kept, ms, -1 for ever; log.retention.minutes counts when not set.");
    [LOG_RETENTION_MINUTES: Option<i32>] int("log.retention.minutes").high()
        .doc("How long records are kept, minutes; log.retention.hours counts when not set.");
    [LOG_RETENTION_HOURS: i32] int("log.retention.hours").default("168").high()
        .doc("How long records are kept, hours.");
    [LOG_RETENTION_BYTES: i64] long("log.retention.bytes").default("-1").high().cluster_wide()
        .doc("How many bytes of a partition are kept, -1 for all.");
    [LOG_RETENTION_CHECK_INTERVAL_MS: i64] long("log.retention.check.interval.ms").default("300000").min(1)
        .doc("Time between two searches for records to drop, ms.");
    [LOG_CLEANUP_POLICY: List] list("log.cleanup.policy").default("delete")
        .each_of(&["compact", "delete"]).cluster_wide()
        .doc("What happens to old records: delete drops them by age and size, compact keeps the last \
              one of each key; both may be named.");
    [LOG_SEGMENT_DELETE_DELAY_MS: i64] long("log.segment.delete.delay.ms").default("60000").min(0).high()
        .cluster_wide()
        .doc("How long, ms, the files of a dropped segment stay on disk.")
        .no_effect(REMOVAL);
    [LOG_INDEX_INTERVAL_BYTES: i32] int("log.index.interval.bytes").default("4096").min(0).cluster_wide()
        .doc("Bytes of records between two entries of a segment's index.");
    [] int("log.index.size.max.bytes").default("10485760").min(4).cluster_wide()
        .doc("Largest index of a segment, bytes.")
        .no_effect(INDEX_SIZE);
    [] boolean("log.preallocate").default("false").cluster_wide()
        .doc("Reserve the disk space of a whole segment when it is begun.")
        .no_effect(PREALLOCATE);
    [LOG_MESSAGE_TIMESTAMP_TYPE: Text] string("log.message.timestamp.type").default("CreateTime")
        .one_of(&["CreateTime", "LogAppendTime"]).cluster_wide()
        .doc("Whose clock the records carry: the producer's (CreateTime) or the broker's (LogAppendTime).");
    [LOG_MESSAGE_TIMESTAMP_BEFORE_MAX_MS: i64] long("log.message.timestamp.before.max.ms")
        .default("9223372036854775807").min(0).cluster_wide()
        .doc("How far, ms, a producer's timestamp may lie before the broker's clock.");
    [LOG_MESSAGE_TIMESTAMP_AFTER_MAX_MS: i64] long("log.message.timestamp.after.max.ms")
        .default("3600000").min(0).cluster_wide()
        .doc("How far, ms, a producer's timestamp may lie after the broker's clock.");
    [] long("log.flush.interval.messages").default("9223372036854775807").min(1).high().cluster_wide()
        .doc("Records after which a log is forced to the device.")
        .no_effect(FLUSH);
    [] long("log.flush.interval.ms").high().cluster_wide()
        .doc("Time after which a log is forced to the device, ms.")
        .no_effect(FLUSH);
    [] long("log.flush.scheduler.interval.ms").default("9223372036854775807").high()
        .doc("Time between two searches for logs that must be forced to the device, ms.")
        .no_effect(FLUSH);
    [] int("log.flush.offset.checkpoint.interval.ms").default("60000").min(0).high()
        .doc("Time between two writes of the recovery points, ms.")
        .no_effect(CHECKPOINT);
    [] int("log.flush.start.offset.checkpoint.interval.ms").default("60000").min(0).high()
        .doc("Time between two writes of the log start offsets, ms.")
        .no_effect(CHECKPOINT);
    [LOG_INITIAL_TASK_DELAY_MS: i64] long("log.initial.task.delay.ms").default("30000").min(0).low()
        .internal()
        .doc("How long after the start, ms, retention and similar work begin.")
        .no_effect(TASK_DELAY);
    [LOG_CLEANER_ENABLE: bool] boolean("log.cleaner.enable").default("true")
        .doc("Run compaction. Small segments are joined without it, too.");
    [LOG_CLEANER_THREADS: i32] int("log.cleaner.threads").default("1").min(0).cluster_wide()
        .doc("Logs that may be compacted, or have small segments joined, at the same time.");
    [LOG_CLEANER_IO_MAX_BYTES_PER_SECOND: f64] double("log.cleaner.io.max.bytes.per.second")
        .default("1.7976931348623157E308").cluster_wide()
        .doc("Bytes that all compaction and joining of small segments together may read and write in a second.");
    [LOG_CLEANER_DEDUPE_BUFFER_SIZE: i64] long("log.cleaner.dedupe.buffer.size").default("134217728")
        .cluster_wide()
        .doc("Memory for the keys seen, over all compaction threads, bytes. More keys take more passes. Where it is \
              not set, it is a sixteenth of vltava.memory.limit if that is less.");
    [] int("log.cleaner.io.buffer.size").default("524288").min(0).cluster_wide()
        .doc("Memory for reading and writing, over all compaction threads, bytes.")
        .no_effect(CLEANER_BUFFER);
    [LOG_CLEANER_IO_BUFFER_LOAD_FACTOR: f64] double("log.cleaner.io.buffer.load.factor").default("0.9")
        .cluster_wide()
        .doc("How full the memory for keys may get.");
    [LOG_CLEANER_BACKOFF_MS: i64] long("log.cleaner.backoff.ms").default("15000").min(0).cluster_wide()
        .doc("How long compaction and the joining of small segments sleep, ms, when no log needs them.");
    [LOG_CLEANER_MIN_CLEANABLE_RATIO: f64] double("log.cleaner.min.cleanable.ratio").default("0.5")
        .ratio(0.0, 1.0).cluster_wide()
        .doc("Least share of not yet compacted bytes at which a log is compacted.");
    [LOG_CLEANER_MIN_COMPACTION_LAG_MS: i64] long("log.cleaner.min.compaction.lag.ms").default("0").min(0)
        .cluster_wide()
        .doc("How long, ms, a record stays untouched by compaction at least.");
    [LOG_CLEANER_MAX_COMPACTION_LAG_MS: i64] long("log.cleaner.max.compaction.lag.ms")
        .default("9223372036854775807").min(1).cluster_wide()
        .doc("After how long, ms, a record is compacted even when the share of new bytes is small.");
    [LOG_CLEANER_DELETE_RETENTION_MS: i64] long("log.cleaner.delete.retention.ms").default("86400000")
        .min(0).cluster_wide()
        .doc("How long, ms, a tombstone stays after compaction has seen it.");
    [PRODUCER_ID_EXPIRATION_MS: i32] int("producer.id.expiration.ms").default("86400000").min(1).low()
        .cluster_wide()
        .doc("How long, ms, the state of an idle idempotent producer is kept.");
    [PRODUCER_ID_EXPIRATION_CHECK_INTERVAL_MS: i32] int("producer.id.expiration.check.interval.ms")
        .default("600000").min(1).low().internal()
        .doc("Time between two searches for idle producers, ms.")
        .no_effect(PRODUCER_SWEEP);
}
