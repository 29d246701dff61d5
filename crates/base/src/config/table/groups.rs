//! Consumer groups and their offsets.

use super::reasons::{COORDINATOR_BATCH, KIP848, LOAD_BUFFER, ONLY_CLASSIC, STREAMS, THREADS};
use crate::config::key::{Key, int, list, long, short, string};

config_keys! { pub(in crate::config) ROWS;
    [GROUP_MIN_SESSION_TIMEOUT_MS: i32] int("group.min.session.timeout.ms").default("6000")
        .doc("Shortest session timeout a classic member may ask for, ms.");
    [GROUP_MAX_SESSION_TIMEOUT_MS: i32] int("group.max.session.timeout.ms").default("1800000")
        .doc("Longest session timeout a classic member may ask for, ms.");
    [GROUP_INITIAL_REBALANCE_DELAY_MS: i32] int("group.initial.rebalance.delay.ms").default("3000")
        .doc("How long, ms, a new group waits for more members before its first assignment.");
    [GROUP_MAX_SIZE: i32] int("group.max.size").default("2147483647").min(1)
        .doc("Members a classic group may have.");
    [] list("group.coordinator.rebalance.protocols").default("classic,consumer,streams")
        .each_of(&["consumer", "classic", "share", "streams"])
        .doc("Group protocols that are served.")
        .no_effect(ONLY_CLASSIC);
    [] int("group.coordinator.threads").default("4").min(1).high()
        .doc("Threads that run the groups.")
        .no_effect(THREADS);
    [] int("group.coordinator.background.threads").default("2").min(1).high()
        .doc("Threads for the background work of groups.")
        .no_effect(THREADS);
    [] int("group.coordinator.append.linger.ms").default("-1").min(-1)
        .doc("How long, ms, changes of groups are gathered before they are written; -1 adapts.")
        .no_effect(COORDINATOR_BATCH);
    [] int("group.coordinator.cached.buffer.max.bytes").default("1048588").min(524288).cluster_wide()
        .doc("Largest write buffer a coordinator keeps, bytes.")
        .no_effect(COORDINATOR_BATCH);
    [OFFSET_METADATA_MAX_BYTES: i32] int("offset.metadata.max.bytes").default("4096").high()
        .doc("Longest text a client may store beside a committed offset, bytes.");
    [OFFSETS_RETENTION_MINUTES: i32] int("offsets.retention.minutes").default("10080").min(1).high()
        .doc("How long, minutes, the offsets of a group without members are kept.");
    [OFFSETS_RETENTION_CHECK_INTERVAL_MS: i64] long("offsets.retention.check.interval.ms")
        .default("600000").min(1).high()
        .doc("Time between two searches for offsets to drop, ms.");
    [OFFSETS_TOPIC_NUM_PARTITIONS: i32] int("offsets.topic.num.partitions").default("50").min(1).high()
        .doc("Partitions of the topic that holds groups and offsets; it must not change once the topic \
              exists.");
    [OFFSETS_TOPIC_REPLICATION_FACTOR: i16] short("offsets.topic.replication.factor").default("3").min(1)
        .high()
        .doc("Copies of the topic that holds groups and offsets; never more than there are nodes.");
    [OFFSETS_TOPIC_SEGMENT_BYTES: i32] int("offsets.topic.segment.bytes").default("104857600").min(1).high()
        .doc("Segment size of the topic that holds groups and offsets, bytes.");
    [OFFSETS_TOPIC_COMPRESSION_CODEC: i32] int("offsets.topic.compression.codec").default("0").high()
        .doc("Codec of the topic that holds groups and offsets: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.");
    [] int("offsets.load.buffer.size").default("5242880").min(1).high()
        .doc("Bytes read at once when groups are loaded.")
        .no_effect(LOAD_BUFFER);
    [OFFSETS_COMMIT_TIMEOUT_MS: i32] int("offsets.commit.timeout.ms").default("5000").min(1).high()
        .doc("How long, ms, a commit may wait for its copies.");
    [] int("group.consumer.assignment.interval.ms").default("1000").min(0).cluster_wide()
        .doc("Least time between two assignments of a group, ms.")
        .no_effect(KIP848);
    [] int("group.consumer.min.assignment.interval.ms").default("0").min(0)
        .doc("Lower bound of the interval a group may set for assignments, ms.")
        .no_effect(KIP848);
    [] int("group.consumer.max.assignment.interval.ms").default("15000").min(0)
        .doc("Upper bound of the interval a group may set for assignments, ms.")
        .no_effect(KIP848);
    [] list("group.consumer.assignors").default("uniform,range")
        .doc("Assignors of the broker, the first is the default.")
        .no_effect(KIP848);
    [] int("group.consumer.heartbeat.interval.ms").default("5000").min(1)
        .doc("Time between heartbeats that members are told, ms.")
        .no_effect(KIP848);
    [] int("group.consumer.min.heartbeat.interval.ms").default("5000").min(1)
        .doc("Lower bound of the heartbeat interval a group may set, ms.")
        .no_effect(KIP848);
    [] int("group.consumer.max.heartbeat.interval.ms").default("15000").min(1)
        .doc("Upper bound of the heartbeat interval a group may set, ms.")
        .no_effect(KIP848);
    [] int("group.consumer.session.timeout.ms").default("45000").min(1)
        .doc("Silence after which a member is removed, ms.")
        .no_effect(KIP848);
    [] int("group.consumer.min.session.timeout.ms").default("45000").min(1)
        .doc("Lower bound of the session timeout a group may set, ms.")
        .no_effect(KIP848);
    [] int("group.consumer.max.session.timeout.ms").default("60000").min(1)
        .doc("Upper bound of the session timeout a group may set, ms.")
        .no_effect(KIP848);
    [] int("group.consumer.max.size").default("2147483647").min(1)
        .doc("Members a consumer group may have.")
        .no_effect(KIP848);
    [] string("group.consumer.migration.policy").default("bidirectional")
        .one_of_any_case(&["DISABLED", "DOWNGRADE", "UPGRADE", "BIDIRECTIONAL"])
        .doc("Whether groups may change between the classic and the consumer protocol while they run.")
        .no_effect(KIP848);
    [] int("group.consumer.regex.refresh.interval.ms").default("600000").min(10000).internal()
        .doc("Time between two evaluations of subscriptions by regular expression, ms.")
        .no_effect(KIP848);
    [] int("group.streams.assignment.interval.ms").default("1000").min(0).cluster_wide()
        .doc("Least time between two assignments of a streams group, ms.")
        .no_effect(STREAMS);
    [] int("group.streams.min.assignment.interval.ms").default("0").min(0)
        .doc("Lower bound of the interval a streams group may set for assignments, ms.")
        .no_effect(STREAMS);
    [] int("group.streams.max.assignment.interval.ms").default("15000").min(0)
        .doc("Upper bound of the interval a streams group may set for assignments, ms.")
        .no_effect(STREAMS);
    [] int("group.streams.heartbeat.interval.ms").default("5000").min(1)
        .doc("Time between heartbeats that members of streams groups are told, ms.")
        .no_effect(STREAMS);
    [] int("group.streams.min.heartbeat.interval.ms").default("5000").min(1)
        .doc("Lower bound of the heartbeat interval a streams group may set, ms.")
        .no_effect(STREAMS);
    [] int("group.streams.max.heartbeat.interval.ms").default("15000").min(1)
        .doc("Upper bound of the heartbeat interval a streams group may set, ms.")
        .no_effect(STREAMS);
    [] int("group.streams.initial.rebalance.delay.ms").default("3000").min(0)
        .doc("How long, ms, a new streams group waits for more members.")
        .no_effect(STREAMS);
    [] int("group.streams.session.timeout.ms").default("45000").min(1)
        .doc("Silence after which a member of a streams group is removed, ms.")
        .no_effect(STREAMS);
    [] int("group.streams.min.session.timeout.ms").default("45000").min(1)
        .doc("Lower bound of the session timeout a streams group may set, ms.")
        .no_effect(STREAMS);
    [] int("group.streams.max.session.timeout.ms").default("60000").min(1)
        .doc("Upper bound of the session timeout a streams group may set, ms.")
        .no_effect(STREAMS);
    [] int("group.streams.max.size").default("2147483647").min(1)
        .doc("Members a streams group may have.")
        .no_effect(STREAMS);
    [] int("group.streams.num.standby.replicas").default("0").min(0)
        .doc("Standby copies of each task.")
        .no_effect(STREAMS);
    [] int("group.streams.max.standby.replicas").default("2").min(0)
        .doc("Upper bound of the standby copies a streams group may set.")
        .no_effect(STREAMS);
}
