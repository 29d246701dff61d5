//! Listeners, connections, requests.

use super::reasons::{
    BACKLOG, CONNECTION_RATE, EARLY, NODE_TIMES, PURGATORY, QUEUE, QUOTA_CALLBACK, QUOTAS, SOCKET_BUFFERS,
};
use crate::config::key::{Key, List, Text, class, int, list, long, string};

config_keys! { pub(in crate::config) ROWS;
    [LISTENERS: List] list("listeners").default("PLAINTEXT://127.0.0.1:9092").high().per_broker()
        .doc("Where to listen, as name://host:port, separated by commas. An empty host listens on every \
              interface.");
    [ADVERTISED_LISTENERS: Option<List>] list("advertised.listeners").high()
        .doc("What clients are told to connect to, per listener. Without it a client is told the \
              address it used itself.");
    [LISTENER_SECURITY_PROTOCOL_MAP: Text] string("listener.security.protocol.map")
        .default("SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT").low()
        .per_broker()
        .doc("Security protocol of each listener name, as name:protocol, separated by commas. Only \
              PLAINTEXT is served yet; a listener with another one is refused at start.");
    [INTER_BROKER_LISTENER_NAME: Option<Text>] string("inter.broker.listener.name")
        .doc("Listener that brokers use among themselves; where it is not set, the one that has the name of \
              security.inter.broker.protocol.");
    [SECURITY_INTER_BROKER_PROTOCOL: Text] string("security.inter.broker.protocol").default("PLAINTEXT")
        .one_of(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])
        .doc("Names the listener that brokers use among themselves; only one of it and \
              inter.broker.listener.name may be set.");
    [] list("early.start.listeners").high()
        .doc("Listeners that accept connections before the node is ready.")
        .no_effect(EARLY);
    [CONTROLLER_LISTENER_NAMES: List] list("controller.listener.names").default("CONTROLLER").high()
        .doc("Names of the listeners for controllers, of which the first is used; clients are not told of them. A \
              controller without other voters needs none: other nodes reach it at inter.broker.listener.name, too.");
    [SOCKET_REQUEST_MAX_BYTES: i32] int("socket.request.max.bytes").default("104857600").min(1).high()
        .doc("Largest request that is read, bytes; a longer one closes the connection. Where it is not set, it is \
              an eighth of vltava.memory.limit if that is less.");
    [QUEUED_MAX_REQUEST_BYTES: i64] long("queued.max.request.bytes").default("-1")
        .doc("Bytes of requests that may be in work at once over all connections; -1 takes an eighth of \
              vltava.memory.limit, at most 128 MiB. Beyond it connections wait.");
    [] int("queued.max.requests").default("500").min(1).high()
        .doc("Requests that may wait for a handler thread.")
        .no_effect(QUEUE);
    [CONNECTIONS_MAX_IDLE_MS: i64] long("connections.max.idle.ms").default("600000")
        .doc("A connection without requests for this long, ms, is closed; -1 never closes one.");
    [MAX_CONNECTIONS: i32] int("max.connections").default("2147483647").min(0).cluster_wide()
        .doc("Connections the node accepts at once; never more than a third of the files that the process may have \
              open, less 64, nor than one for each 80 KiB of vltava.memory.limit.");
    [MAX_CONNECTIONS_PER_IP: i32] int("max.connections.per.ip").default("2147483647").min(0).cluster_wide()
        .doc("Connections accepted at once from one address.");
    [MAX_CONNECTIONS_PER_IP_OVERRIDES: Text] string("max.connections.per.ip.overrides").default("")
        .cluster_wide()
        .doc("Other numbers of connections for single addresses, as address:number, separated by commas.");
    [] int("max.connection.creation.rate").default("2147483647").min(0).cluster_wide()
        .doc("Connections accepted per second.")
        .no_effect(CONNECTION_RATE);
    [] int("socket.listen.backlog.size").default("50").min(1)
        .doc("Connections that may wait to be accepted.")
        .no_effect(BACKLOG);
    [] int("socket.receive.buffer.bytes").default("102400").high()
        .doc("Receive buffer of a socket, bytes; -1 leaves it to the system.")
        .no_effect(SOCKET_BUFFERS);
    [] int("socket.send.buffer.bytes").default("102400").high()
        .doc("Send buffer of a socket, bytes; -1 leaves it to the system.")
        .no_effect(SOCKET_BUFFERS);
    [] long("socket.connection.setup.timeout.ms").default("10000")
        .doc("How long, ms, connecting to another node may take.")
        .no_effect(NODE_TIMES);
    [] long("socket.connection.setup.timeout.max.ms").default("30000")
        .doc("Upper bound of the growing time to connect to another node, ms.")
        .no_effect(NODE_TIMES);
    [] int("request.timeout.ms").default("30000").high()
        .doc("How long, ms, a node waits for another node's answer.")
        .no_effect(NODE_TIMES);
    [MAX_INCREMENTAL_FETCH_SESSION_CACHE_SLOTS: i32] int("max.incremental.fetch.session.cache.slots")
        .default("1000").min(0)
        .doc("Fetch sessions kept at once (KIP-227); 0 keeps none.");
    [FETCH_MAX_BYTES: i32] int("fetch.max.bytes").default("57671680").min(1024)
        .doc("Most bytes a fetch answer may hold, whatever the client asks for; the first batch always \
              fits.");
    [MAX_REQUEST_PARTITION_SIZE_LIMIT: i32] int("max.request.partition.size.limit").default("2000").min(1)
        .doc("Partitions one answer of DescribeTopicPartitions may hold.");
    [] int("fetch.purgatory.purge.interval.requests").default("1000")
        .doc("Fetches after which the list of waiting ones is cleaned.")
        .no_effect(PURGATORY);
    [] int("producer.purgatory.purge.interval.requests").default("1000")
        .doc("Produce requests after which the list of waiting ones is cleaned.")
        .no_effect(PURGATORY);
    [] int("delete.records.purgatory.purge.interval.requests").default("1")
        .doc("DeleteRecords requests after which the list of waiting ones is cleaned.")
        .no_effect(PURGATORY);
    [] int("share.fetch.purgatory.purge.interval.requests").default("1000")
        .doc("Share fetches after which the list of waiting ones is cleaned.")
        .no_effect(PURGATORY);
    [] int("quota.window.num").default("11").min(1).low()
        .doc("Samples over which a client quota is measured.")
        .no_effect(QUOTAS);
    [] int("quota.window.size.seconds").default("1").min(1).low()
        .doc("Length of a sample of client quotas, seconds.")
        .no_effect(QUOTAS);
    [] int("controller.quota.window.num").default("11").min(1).low()
        .doc("Samples over which the quota on metadata changes is measured.")
        .no_effect(QUOTAS);
    [] int("controller.quota.window.size.seconds").default("1").min(1).low()
        .doc("Length of a sample of the quota on metadata changes, seconds.")
        .no_effect(QUOTAS);
    [] class("client.quota.callback.class").low()
        .doc("Class that decides quotas.")
        .default_only(QUOTA_CALLBACK);
}
