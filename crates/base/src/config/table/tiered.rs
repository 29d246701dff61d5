//! Tiered storage, which is not served yet.

use super::reasons::TIERED;
use crate::config::key::{boolean, double, int, long, string};

config_keys! { pub(in crate::config) ROWS;
    [] boolean("follower.fetch.last.tiered.offset.enable").default("false").cluster_wide()
        .doc("Let a new follower begin after what already lies in remote storage.")
        .no_effect(TIERED);
    [] long("log.local.retention.bytes").default("-2").min(-2).cluster_wide()
        .doc("Bytes of a tiered partition that are kept locally, -2 for as many as retention allows.")
        .no_effect(TIERED);
    [] long("log.local.retention.ms").default("-2").min(-2).cluster_wide()
        .doc("How long, ms, a tiered partition is kept locally, -2 for as long as retention allows.")
        .no_effect(TIERED);
    [] int("remote.fetch.max.wait.ms").default("500").min(1).cluster_wide()
        .doc("How long, ms, a fetch waits for remote storage.")
        .no_effect(TIERED);
    [] long("remote.list.offsets.request.timeout.ms").default("30000").min(1).cluster_wide()
        .doc("How long, ms, a search for an offset waits for remote storage.")
        .no_effect(TIERED);
    [] long("remote.log.index.file.cache.total.size.bytes").default("1073741824").min(1).low()
        .cluster_wide()
        .doc("Disk space for cached indexes of remote segments, bytes.")
        .no_effect(TIERED);
    [] long("remote.log.index.file.cache.ttl.ms").default("900000").min(-1).low().internal()
        .doc("How long, ms, an unused cached index is kept; -1 for no limit.")
        .no_effect(TIERED);
    [] int("remote.log.manager.copier.thread.pool.size").default("10").min(1).cluster_wide()
        .doc("Threads that copy segments to remote storage.")
        .no_effect(TIERED);
    [] long("remote.log.manager.copy.max.bytes.per.second").default("9223372036854775807").min(1)
        .cluster_wide()
        .doc("Bytes per second copied to remote storage.")
        .no_effect(TIERED);
    [] int("remote.log.manager.copy.quota.window.num").default("11").min(1)
        .doc("Samples over which copying is measured.")
        .no_effect(TIERED);
    [] int("remote.log.manager.copy.quota.window.size.seconds").default("1").min(1)
        .doc("Length of a sample of copying, seconds.")
        .no_effect(TIERED);
    [] int("remote.log.manager.expiration.thread.pool.size").default("10").min(1).cluster_wide()
        .doc("Threads that drop expired remote segments.")
        .no_effect(TIERED);
    [] long("remote.log.manager.fetch.max.bytes.per.second").default("9223372036854775807").min(1)
        .cluster_wide()
        .doc("Bytes per second read from remote storage.")
        .no_effect(TIERED);
    [] int("remote.log.manager.fetch.quota.window.num").default("11").min(1)
        .doc("Samples over which reading is measured.")
        .no_effect(TIERED);
    [] int("remote.log.manager.fetch.quota.window.size.seconds").default("1").min(1)
        .doc("Length of a sample of reading, seconds.")
        .no_effect(TIERED);
    [] int("remote.log.manager.follower.thread.pool.size").default("2").min(1).cluster_wide()
        .doc("Threads for partitions this node follows.")
        .no_effect(TIERED);
    [] long("remote.log.manager.task.interval.ms").default("30000").min(1).low()
        .doc("Time between two rounds of work on remote storage, ms.")
        .no_effect(TIERED);
    [] long("remote.log.manager.task.retry.backoff.max.ms").default("30000").min(1).low().internal()
        .doc("Longest wait after failed work on remote storage, ms.")
        .no_effect(TIERED);
    [] long("remote.log.manager.task.retry.backoff.ms").default("500").min(1).low().internal()
        .doc("First wait after failed work on remote storage, ms.")
        .no_effect(TIERED);
    [] double("remote.log.manager.task.retry.jitter").default("0.2").ratio(0.0, 0.5).low().internal()
        .doc("Random share of those waits.")
        .no_effect(TIERED);
    [] int("remote.log.manager.thread.pool.size").default("2").min(1)
        .doc("Threads that plan work on remote storage.")
        .no_effect(TIERED);
    [] int("remote.log.metadata.custom.metadata.max.bytes").default("128").min(0).low()
        .doc("Longest text a storage plug-in may keep per segment, bytes.")
        .no_effect(TIERED);
    [] string("remote.log.metadata.manager.class.name")
        .default("org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager")
        .not_empty()
        .doc("Class that keeps the list of remote segments.")
        .no_effect(TIERED);
    [] string("remote.log.metadata.manager.class.path")
        .doc("Where that class is loaded from.")
        .no_effect(TIERED);
    [] string("remote.log.metadata.manager.impl.prefix").default("rlmm.config.").not_empty()
        .doc("Prefix of the keys handed to that class.")
        .no_effect(TIERED);
    [] string("remote.log.metadata.manager.listener.name").not_empty()
        .doc("Listener that class connects to.")
        .no_effect(TIERED);
    [] int("remote.log.reader.max.pending.tasks").default("100").min(1)
        .doc("Reads from remote storage that may wait.")
        .no_effect(TIERED);
    [] int("remote.log.reader.threads").default("10").min(1).cluster_wide()
        .doc("Threads that read from remote storage.")
        .no_effect(TIERED);
    [] string("remote.log.storage.manager.class.name").not_empty()
        .doc("Class that stores segments remotely.")
        .no_effect(TIERED);
    [] string("remote.log.storage.manager.class.path")
        .doc("Where that class is loaded from.")
        .no_effect(TIERED);
    [] string("remote.log.storage.manager.impl.prefix").default("rsm.config.").not_empty()
        .doc("Prefix of the keys handed to that class.")
        .no_effect(TIERED);
    [] boolean("remote.log.storage.system.enable").default("false")
        .doc("Allow topics to move old segments to remote storage.")
        .no_effect(TIERED);
}
