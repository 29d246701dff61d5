//! Keys that Kafka does not have; their names begin with `vltava.`.

use crate::config::key::{Key, Text, long, string};

config_keys! { pub(in crate::config) ROWS;
    [DURABILITY: Text] string("vltava.durability").default("fsync").one_of(&["fsync", "page-cache"])
        .high().cluster_wide()
        .doc("What an acknowledgement promises for topics that say nothing: fsync survives power loss, \
              page-cache survives the death of the process, as in Kafka.");
    [GROUP_MEMORY_MAX_BYTES: i64] long("vltava.group.memory.max.bytes").default("268435456").min(1)
        .doc("Bytes of memory that the members of all groups may hold together, as much again the groups \
              themselves, as much again records on their way to the log, and as much again committed offsets. \
              Beyond it members that ask for more than they have are told to come back later. Where it is not set, \
              it is a sixteenth of vltava.memory.limit if that is less.");
    [HTTP_LISTENER: Text] string("vltava.http.listener").default("127.0.0.1:9644")
        .doc("Where /metrics, /healthz and the JSON status are served, as host:port; empty serves none.");
    [MEMORY_LIMIT: i64] long("vltava.memory.limit").default("-1").high()
        .doc("Bytes of memory that what clients bring and ask for may take: connections, requests and answers, groups, \
              producer states, fetch sessions, and compaction get fixed shares of three quarters of it. -1 \
              stands for half of what the machine, or the cgroup, has. Keys that bound one of them win over its share.");
    [SYNC_JOURNAL_BYTES: i64] long("vltava.sync.journal.bytes").default("134217728").min(0)
        .doc("Size of the file in each log directory in which small appends become durable with one sync, whatever \
              the number of their partitions, bytes; at most a hundredth of the disk. 0: each file is synced itself.");
}
