//! What several nodes need: the controller quorum and replication.

use super::reasons::{CONTROLLER_EVENTS, FETCHERS, METADATA_LOG, MOVE_DIRS, QUORUM, THROTTLE, VOTERS};
use crate::config::key::{Key, List, Text, boolean, int, list, long, string};

/// Consumers read from leaders.
pub const LEADER_SELECTOR: &str = "org.apache.kafka.common.replica.LeaderSelector";
/// Consumers read from a copy in their rack.
pub const RACK_AWARE_SELECTOR: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

config_keys! { pub(in crate::config) ROWS;
    [] long("controller.performance.always.log.threshold.ms").default("2000").min(0).internal()
        .doc("Time from which on a slow controller event is always logged, ms.")
        .no_effect(CONTROLLER_EVENTS);
    [] long("controller.performance.sample.period.ms").default("60000").min(100).internal()
        .doc("Time between two reports on slow controller events, ms.")
        .no_effect(CONTROLLER_EVENTS);
    [] int("controller.quorum.append.linger.ms").default("25").min(0)
        .doc("How long, ms, metadata changes are gathered before they are written.")
        .no_effect(QUORUM);
    [] boolean("controller.quorum.auto.join.enable").default("false").low()
        .doc("Let a new controller join the quorum by itself.")
        .no_effect(VOTERS);
    [CONTROLLER_QUORUM_BOOTSTRAP_SERVERS: List] list("controller.quorum.bootstrap.servers").default("").high()
        .doc("Controllers that a node which is only a broker asks, as host:port, or brokers that tell of them; one is \
              enough. Where it is not set, those of controller.quorum.voters. Controllers need the voters.");
    [CONTROLLER_QUORUM_VOTERS: List] list("controller.quorum.voters").default("").high()
        .doc("Controllers of the cluster, as id@host:port, the same on every node and for good: 3 or 5, of which a \
              majority must run. Without it a controller is the only one.");
    [] int("controller.quorum.election.backoff.max.ms").default("1000").min(0).high()
        .doc("Longest wait between two elections of a controller, ms.")
        .no_effect(QUORUM);
    [] int("controller.quorum.election.timeout.ms").default("1000").min(0).high()
        .doc("How long, ms, an election of a controller may take.")
        .no_effect(QUORUM);
    [] int("controller.quorum.fetch.max.bytes").default("1048576").min(1).low()
        .doc("Most bytes of metadata fetched at once.")
        .no_effect(QUORUM);
    [] int("controller.quorum.fetch.snapshot.max.bytes").default("1048576").min(1).low()
        .doc("Most bytes of a metadata snapshot fetched at once.")
        .no_effect(QUORUM);
    [] int("controller.quorum.fetch.timeout.ms").default("2000").min(0).high()
        .doc("Silence of the leading controller after which another one stands for election, ms.")
        .no_effect(QUORUM);
    [] int("controller.quorum.request.timeout.ms").default("2000").min(0)
        .doc("How long, ms, a controller waits for another one's answer.")
        .no_effect(QUORUM);
    [] int("controller.quorum.retry.backoff.ms").default("20").min(0).low()
        .doc("Wait before a request to a controller is sent again, ms.")
        .no_effect(QUORUM);
    [] int("controller.socket.timeout.ms").default("30000")
        .doc("How long, ms, a broker waits for the controller's answer.")
        .no_effect(QUORUM);
    [] long("metadata.log.max.record.bytes.between.snapshots").default("20971520").min(1).high()
        .doc("Bytes of metadata records between two snapshots.")
        .no_effect(METADATA_LOG);
    [] long("metadata.log.max.snapshot.interval.ms").default("3600000").min(0).high()
        .doc("Longest time between two snapshots of the metadata, ms.")
        .no_effect(METADATA_LOG);
    [] int("metadata.log.segment.bytes").default("1073741824").min(8388608).high()
        .doc("Segment size of the metadata log, bytes.")
        .no_effect(METADATA_LOG);
    [] long("metadata.log.segment.ms").default("604800000").high()
        .doc("Age at which a segment of the metadata log is closed, ms.")
        .no_effect(METADATA_LOG);
    [] int("metadata.max.idle.interval.ms").default("500").min(0).low()
        .doc("Time after which the controller writes an empty record, ms.")
        .no_effect(METADATA_LOG);
    [] long("metadata.max.retention.bytes").default("104857600").high()
        .doc("Bytes of the metadata log that are kept.")
        .no_effect(METADATA_LOG);
    [] long("metadata.max.retention.ms").default("604800000").high()
        .doc("How long the metadata log is kept, ms.")
        .no_effect(METADATA_LOG);
    [] long("internal.metadata.delete.delay.millis").default("60000").low().internal()
        .doc("How long, ms, dropped files of the metadata log stay on disk.")
        .no_effect(METADATA_LOG);
    [] int("internal.metadata.log.segment.bytes").low().internal()
        .doc("Segment size of the metadata log in tests, bytes.")
        .no_effect(METADATA_LOG);
    [] int("internal.metadata.max.batch.size.in.bytes").default("8388608").low().internal()
        .doc("Largest batch of metadata records, bytes.")
        .no_effect(METADATA_LOG);
    [AUTO_LEADER_REBALANCE_ENABLE: bool] boolean("auto.leader.rebalance.enable").default("true").high()
        .doc("Move leaders back to the first copy of their partition.");
    [LEADER_IMBALANCE_CHECK_INTERVAL_SECONDS: i64] long("leader.imbalance.check.interval.seconds").default("300")
        .min(1).high()
        .doc("Time between two searches for leaders to move back, seconds.");
    [] int("num.replica.fetchers").default("1").min(1).high().cluster_wide()
        .doc("Threads that copy from each other node.")
        .no_effect(FETCHERS);
    [] int("replica.fetch.backoff.ms").default("1000").min(0)
        .doc("Wait after a failed copy, ms.")
        .no_effect(FETCHERS);
    [] int("replica.fetch.max.bytes").default("1048576").min(0)
        .doc("Bytes a follower asks for per partition.")
        .no_effect(FETCHERS);
    [] int("replica.fetch.min.bytes").default("1").high()
        .doc("Bytes a follower waits for.")
        .no_effect(FETCHERS);
    [] int("replica.fetch.response.max.bytes").default("10485760").min(0)
        .doc("Bytes a follower asks for over all partitions.")
        .no_effect(FETCHERS);
    [] int("replica.fetch.wait.max.ms").default("500").high()
        .doc("Longest wait of a follower's fetch, ms.")
        .no_effect(FETCHERS);
    [] long("replica.high.watermark.checkpoint.interval.ms").default("5000").high()
        .doc("Time between two writes of the high watermarks, ms.")
        .no_effect(FETCHERS);
    [] long("replica.lag.time.max.ms").default("30000").high()
        .doc("How long, ms, a follower may lag before it counts as out of sync.")
        .no_effect(FETCHERS);
    [REPLICA_SELECTOR_CLASS: Option<Text>] string("replica.selector.class")
        .doc("Which copy consumers read from: the leader's, or with \
              org.apache.kafka.common.replica.RackAwareReplicaSelector one in the rack that they name in client.rack, if a \
              broker with that broker.rack is in sync.");
    [] int("replica.socket.receive.buffer.bytes").default("65536").high()
        .doc("Receive buffer of a follower's socket, bytes.")
        .no_effect(FETCHERS);
    [] int("replica.socket.timeout.ms").default("30000").high()
        .doc("How long, ms, a follower waits for an answer.")
        .no_effect(FETCHERS);
    [] int("replication.quota.window.num").default("11").min(1).low()
        .doc("Samples over which replication quotas are measured.")
        .no_effect(THROTTLE);
    [] int("replication.quota.window.size.seconds").default("1").min(1).low()
        .doc("Length of a sample of replication quotas, seconds.")
        .no_effect(THROTTLE);
    [] long("leader.replication.throttled.rate").default("9223372036854775807").min(0).cluster_wide()
        .doc("Bytes per second a leader may send for throttled copies.")
        .no_effect(THROTTLE);
    [] long("follower.replication.throttled.rate").default("9223372036854775807").min(0).cluster_wide()
        .doc("Bytes per second a follower may receive for throttled copies.")
        .no_effect(THROTTLE);
    [] long("replica.alter.log.dirs.io.max.bytes.per.second").default("9223372036854775807").min(0)
        .cluster_wide()
        .doc("Bytes per second for moving partitions between directories.")
        .no_effect(MOVE_DIRS);
    [] int("alter.log.dirs.replication.quota.window.num").default("11").min(1).low()
        .doc("Samples over which moves between directories are measured.")
        .no_effect(MOVE_DIRS);
    [] int("alter.log.dirs.replication.quota.window.size.seconds").default("1").min(1).low()
        .doc("Length of a sample of moves between directories, seconds.")
        .no_effect(MOVE_DIRS);
}
