//! Keys that Kafka does not have; their names begin with `vltava.`.

use crate::config::key::{Key, Text, string};

config_keys! { pub(in crate::config) ROWS;
    [DURABILITY: Text] string("vltava.durability").default("fsync").one_of(&["fsync", "page-cache"])
        .high().cluster_wide()
        .doc("What an acknowledgement promises for topics that say nothing: fsync survives power loss, \
              page-cache survives the death of the process, as in Kafka.");
    [HTTP_LISTENER: Text] string("vltava.http.listener").default("127.0.0.1:9644")
        .doc("Where /metrics, /healthz and the JSON status are served, as host:port; empty serves none.");
}
