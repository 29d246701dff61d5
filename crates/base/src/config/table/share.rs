//! Share groups (KIP-932), which are not served yet.

use super::reasons::SHARE;
use crate::config::key::{int, list, short, string};

config_keys! { pub(in crate::config) ROWS;
    [] int("group.share.assignment.interval.ms").default("1000").min(0).cluster_wide()
        .doc("Least time between two assignments of a share group, ms.")
        .no_effect(SHARE);
    [] int("group.share.min.assignment.interval.ms").default("0").min(0)
        .doc("Lower bound of the interval a share group may set for assignments, ms.")
        .no_effect(SHARE);
    [] int("group.share.max.assignment.interval.ms").default("15000").min(0)
        .doc("Upper bound of the interval a share group may set for assignments, ms.")
        .no_effect(SHARE);
    [] list("group.share.assignors").default("simple")
        .doc("Assignors for share groups.")
        .no_effect(SHARE);
    [] int("group.share.delivery.count.limit").default("5").between(2, 10)
        .doc("Deliveries of a record after which it is given up.")
        .no_effect(SHARE);
    [] int("group.share.min.delivery.count.limit").default("2").between(2, 5)
        .doc("Lower bound of the deliveries a share group may set.")
        .no_effect(SHARE);
    [] int("group.share.max.delivery.count.limit").default("10").between(5, 25)
        .doc("Upper bound of the deliveries a share group may set.")
        .no_effect(SHARE);
    [] int("group.share.heartbeat.interval.ms").default("5000").min(1)
        .doc("Time between heartbeats that members of share groups are told, ms.")
        .no_effect(SHARE);
    [] int("group.share.min.heartbeat.interval.ms").default("5000").min(1)
        .doc("Lower bound of the heartbeat interval a share group may set, ms.")
        .no_effect(SHARE);
    [] int("group.share.max.heartbeat.interval.ms").default("15000").min(1)
        .doc("Upper bound of the heartbeat interval a share group may set, ms.")
        .no_effect(SHARE);
    [] int("group.share.initialize.retry.interval.ms").default("30000").min(1).low().internal()
        .doc("Time between two tries to set up the state of a share partition, ms.")
        .no_effect(SHARE);
    [] int("group.share.partition.max.record.locks").default("2000").between(100, 10000)
        .doc("Records of a share partition that may be in delivery at once.")
        .no_effect(SHARE);
    [] int("group.share.min.partition.max.record.locks").default("100").between(100, 2000)
        .doc("Lower bound of the records in delivery a share group may set.")
        .no_effect(SHARE);
    [] int("group.share.max.partition.max.record.locks").default("4000").between(2000, 10000)
        .doc("Upper bound of the records in delivery a share group may set.")
        .no_effect(SHARE);
    [] int("group.share.record.lock.duration.ms").default("30000").between(1000, 3600000)
        .doc("How long, ms, a delivered record stays with its consumer.")
        .no_effect(SHARE);
    [] int("group.share.min.record.lock.duration.ms").default("15000").between(1000, 30000)
        .doc("Lower bound of that time a share group may set, ms.")
        .no_effect(SHARE);
    [] int("group.share.max.record.lock.duration.ms").default("60000").between(30000, 3600000)
        .doc("Upper bound of that time a share group may set, ms.")
        .no_effect(SHARE);
    [] int("group.share.session.timeout.ms").default("45000").min(1)
        .doc("Silence after which a member of a share group is removed, ms.")
        .no_effect(SHARE);
    [] int("group.share.min.session.timeout.ms").default("45000").min(1)
        .doc("Lower bound of the session timeout a share group may set, ms.")
        .no_effect(SHARE);
    [] int("group.share.max.session.timeout.ms").default("60000").min(1)
        .doc("Upper bound of the session timeout a share group may set, ms.")
        .no_effect(SHARE);
    [] int("group.share.max.share.sessions").default("2000").min(1)
        .doc("Share sessions a broker keeps at once.")
        .no_effect(SHARE);
    [] int("group.share.max.size").default("200").between(1, 1000)
        .doc("Members a share group may have.")
        .no_effect(SHARE);
    [] string("group.share.persister.class.name")
        .default("org.apache.kafka.server.share.persister.DefaultStatePersister").internal()
        .doc("Class that stores the state of share groups.")
        .no_effect(SHARE);
    [] int("share.coordinator.append.linger.ms").default("-1").min(-1)
        .doc("How long, ms, changes of share state are gathered before they are written; -1 adapts.")
        .no_effect(SHARE);
    [] int("share.coordinator.cached.buffer.max.bytes").default("1048588").min(524288).cluster_wide()
        .doc("Largest write buffer the share coordinator keeps, bytes.")
        .no_effect(SHARE);
    [] int("share.coordinator.cold.partition.snapshot.interval.ms").default("300000").min(1).low()
        .internal()
        .doc("Time after which the state of a quiet share partition is written whole, ms.")
        .no_effect(SHARE);
    [] int("share.coordinator.load.buffer.size").default("5242880").min(1).high()
        .doc("Bytes read at once when share state is loaded.")
        .no_effect(SHARE);
    [] int("share.coordinator.snapshot.update.records.per.snapshot").default("500").between(0, 500)
        .doc("Changes of share state between two whole writes.")
        .no_effect(SHARE);
    [] int("share.coordinator.state.topic.compression.codec").default("0").high()
        .doc("Codec of the topic that holds share state.")
        .no_effect(SHARE);
    [] short("share.coordinator.state.topic.min.isr").default("2").min(1).high()
        .doc("Least copies in sync of the topic that holds share state.")
        .no_effect(SHARE);
    [] int("share.coordinator.state.topic.num.partitions").default("50").min(1).high()
        .doc("Partitions of the topic that holds share state.")
        .no_effect(SHARE);
    [] int("share.coordinator.state.topic.prune.interval.ms").default("300000").min(1).low().internal()
        .doc("Time between two cuts of old share state, ms.")
        .no_effect(SHARE);
    [] short("share.coordinator.state.topic.replication.factor").default("3").min(1).high()
        .doc("Copies of the topic that holds share state.")
        .no_effect(SHARE);
    [] int("share.coordinator.state.topic.segment.bytes").default("104857600").min(1).high()
        .doc("Segment size of the topic that holds share state, bytes.")
        .no_effect(SHARE);
    [] int("share.coordinator.threads").default("1").min(1)
        .doc("Threads that run the share coordinator.")
        .no_effect(SHARE);
    [] int("share.coordinator.write.timeout.ms").default("5000").min(1).high()
        .doc("How long, ms, a write of share state may take.")
        .no_effect(SHARE);
}
