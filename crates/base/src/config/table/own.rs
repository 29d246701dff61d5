//! Keys that Kafka does not have; their names begin with `vltava.`.

use crate::config::key::{Key, Text, boolean, double, list, long, string};

config_keys! { pub(in crate::config) ROWS;
    [AUTO_SPREAD_ENABLE: bool] boolean("vltava.auto.spread.enable").default("true")
        .doc("Give a broker that has no partitions its share of the copies of topics with several: new segments go \
              there at once, sealed ones only where it shall lead. What is uneven otherwise waits for \
              `vltava cluster rebalance`. The value of the active controller counts.");
    [DURABILITY: Text] string("vltava.durability").default("fsync").one_of(&["fsync", "page-cache"])
        .high().cluster_wide()
        .doc("What an acknowledgement promises for topics that say nothing: fsync survives power loss, \
              page-cache survives the death of the process, as in Kafka.");
    [FETCH_DEBOUNCE_MS: i64] long("vltava.fetch.debounce.ms").default("1").between(0, 1000).cluster_wide()
        .doc("A consumer that fetches less than 64 KiB in several batches more often than once in so long, ms, is answered \
              that often: each answer then brings what came meanwhile, which saves processor time on both sides where \
              records come very quickly. 0: every fetch is answered at once.");
    [GROUP_MEMORY_MAX_BYTES: i64] long("vltava.group.memory.max.bytes").default("268435456").min(1)
        .doc("Bytes of memory that the members of all groups may hold together, as much again the groups \
              themselves, as much again records on their way to the log, and as much again committed offsets. \
              Beyond it members that ask for more than they have are told to come back later. Where it is not set, \
              it is a sixteenth of vltava.memory.limit if that is less.");
    [HTTP_LISTENER: Text] string("vltava.http.listener").default("127.0.0.1:9644")
        .doc("Where /metrics, /healthz and the JSON status are served, as host:port; empty serves none.");
    [] list("vltava.leaving.brokers").default("").cluster_wide()
        .doc("Brokers that leave the cluster, by id: they get no partitions, and what they lead and hold goes to others \
              (`vltava cluster decommission`).");
    [MEMORY_LIMIT: i64] long("vltava.memory.limit").default("-1").high()
        .doc("Bytes of memory that what clients bring and ask for may take: connections, requests and answers, groups, \
              producer states, fetch sessions, and compaction get fixed shares of three quarters of it. -1 \
              stands for half of what the machine, or the cgroup, has. Keys that bound one of them win over its share.");
    [REPAIR_DELAY_MS: i64] long("vltava.repair.delay.ms").default("600000").min(0).cluster_wide()
        .doc("How long a broker that does not answer is waited for, ms, before other brokers make the copies of sealed \
              segments that it has.");
    [REPAIR_IO_MAX_BYTES_PER_SECOND: f64] double("vltava.repair.io.max.bytes.per.second")
        .default("5.24288E7").cluster_wide()
        .doc("Bytes of sealed segments that the broker may fetch in a second from others where copies are missing or move. \
              What a partition lacks that it is to lead at once is not held up.");
    [SCRUB_INTERVAL_MS: i64] long("vltava.scrub.interval.ms").default("604800000").min(0).cluster_wide()
        .doc("Within how long all sealed segments that the broker has are read and compared with the CRC they were sealed \
              with, ms. What differs is fetched from another broker that has it. 0: never.");
    [SCRUB_IO_MAX_BYTES_PER_SECOND: f64] double("vltava.scrub.io.max.bytes.per.second")
        .default("2.097152E7").cluster_wide()
        .doc("Bytes that the broker may read in a second to compare them so; without limit where this is not positive. \
              Where it is too few, all takes longer than vltava.scrub.interval.ms.");
    [SYNC_JOURNAL_BYTES: i64] long("vltava.sync.journal.bytes").default("134217728").min(0)
        .doc("Size of the file in each log directory in which small appends become durable with one sync, whatever \
              the number of their partitions, bytes; at most a hundredth of the disk. 0: each file is synced itself.");
}
