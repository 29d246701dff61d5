//! The node itself: its number, its data, its life, what runs inside it.

use super::reasons::{
    CORDON, DIR_FAILURE, METRIC_SAMPLES, MOVE_DIRS, POLICY, PROVIDERS, RECOVERY, REGISTRATION, REPORTERS,
    STARTUP, TELEMETRY, THREADS, UNSTABLE,
};
use crate::config::key::{Key, List, Text, boolean, class, int, list, long, string};

config_keys! { pub(in crate::config) ROWS;
    [NODE_ID: i32] int("node.id").default("1").min(0).high()
        .doc("Number of this node in its cluster. It is written into the data directory at first start \
              and must not change afterwards. A node that is only a broker and is given none is told one by the \
              controllers.");
    [BROKER_ID: i32] int("broker.id").default("-1").high()
        .doc("Older name of node.id; when both are set they must agree.");
    [PROCESS_ROLES: List] list("process.roles").default("broker,controller")
        .each_of(&["broker", "controller"]).high()
        .doc("What this process is: a broker serves clients, a controller votes on the metadata; or both.");
    [BROKER_RACK: Option<Text>] string("broker.rack")
        .doc("Where the node stands, a rack or a zone, as Metadata answers report it.");
    [LOG_DIR: List] list("log.dir").default("vltava-data").high()
        .doc("Directory of the data, unless log.dirs names others.");
    [LOG_DIRS: Option<List>] list("log.dirs").high()
        .doc("Directories of the data, separated by commas; one may fail without the others. Takes the \
              place of log.dir.");
    [METADATA_LOG_DIR: Option<Text>] string("metadata.log.dir").high()
        .doc("Directory of the metadata log; the first of log.dirs when not set. A log that lies in another of these \
              directories already stays there.");
    [] list("cordoned.log.dirs").default("").per_broker()
        .doc("Directories that take no new partitions.")
        .no_effect(CORDON);
    [] long("log.dir.failure.timeout.ms").default("30000").min(1).low()
        .doc("How long, ms, a node may serve without telling the controller about a failed directory.")
        .no_effect(DIR_FAILURE);
    [] int("num.recovery.threads.per.data.dir").default("2").min(1).high().cluster_wide()
        .doc("Threads a directory gets to recover logs at start.")
        .no_effect(RECOVERY);
    [] int("background.threads").default("10").min(1).high().cluster_wide()
        .doc("Threads for background work.")
        .no_effect(THREADS);
    [] int("num.io.threads").default("8").min(1).high().cluster_wide()
        .doc("Threads that handle requests.")
        .no_effect(THREADS);
    [] int("num.network.threads").default("3").min(1).high().cluster_wide()
        .doc("Threads that read requests from and write answers to sockets, per listener.")
        .no_effect(THREADS);
    [] int("num.replica.alter.log.dirs.threads").high()
        .doc("Threads that move partitions between directories of one node.")
        .no_effect(MOVE_DIRS);
    [CONTROLLED_SHUTDOWN_ENABLE: bool] boolean("controlled.shutdown.enable").default("true")
        .doc("Hand leadership over before stopping.");
    [] long("server.max.startup.time.ms").default("9223372036854775807").min(0).internal()
        .doc("How long, ms, the start may take before the process gives up.")
        .no_effect(STARTUP);
    [] int("initial.broker.registration.timeout.ms").default("60000")
        .doc("How long, ms, a starting broker tries to register before it gives up.")
        .no_effect(REGISTRATION);
    [BROKER_HEARTBEAT_INTERVAL_MS: i32] int("broker.heartbeat.interval.ms").default("2000")
        .doc("Time between a broker's heartbeats to the controller, ms; at most a third of broker.session.timeout.ms \
              is taken.");
    [BROKER_SESSION_TIMEOUT_MS: i32] int("broker.session.timeout.ms").default("3000")
        .doc("Silence after which the controller takes a broker for dead, ms.");
    [] list("config.providers").default("").low().cluster_wide()
        .doc("Classes that look up values kept outside of the configuration.")
        .default_only(PROVIDERS);
    [] class("create.topic.policy.class.name").low()
        .doc("Class that may refuse the creation of topics.")
        .default_only(POLICY);
    [] class("alter.config.policy.class.name").low()
        .doc("Class that may refuse changes of configurations.")
        .default_only(POLICY);
    [] list("metric.reporters").default("org.apache.kafka.common.metrics.JmxReporter").low().cluster_wide()
        .doc("Classes that receive the metrics.")
        .no_effect(REPORTERS);
    [] list("kafka.metrics.reporters").default("").low()
        .doc("Classes that receive the metrics of the older metrics library.")
        .no_effect(REPORTERS);
    [] int("kafka.metrics.polling.interval.secs").default("10").min(1).low()
        .doc("Time between two looks at the older metrics library, seconds.")
        .no_effect(REPORTERS);
    [] int("metrics.num.samples").default("2").min(1).low()
        .doc("Samples over which rates are computed.")
        .no_effect(METRIC_SAMPLES);
    [] string("metrics.recording.level").default("INFO").low()
        .doc("How much is measured: INFO, DEBUG or TRACE.")
        .no_effect(METRIC_SAMPLES);
    [] long("metrics.sample.window.ms").default("30000").min(1).low()
        .doc("Length of a metrics sample, ms.")
        .no_effect(METRIC_SAMPLES);
    [] int("telemetry.max.bytes").default("1048576").min(1).low()
        .doc("Largest push of client metrics that is taken, bytes.")
        .no_effect(TELEMETRY);
    [] boolean("unstable.api.versions.enable").default("false").high().internal()
        .doc("Serve versions of requests that are not released yet.")
        .no_effect(UNSTABLE);
    [] boolean("unstable.feature.versions.enable").default("false").high().internal()
        .doc("Allow feature levels that are not released yet.")
        .no_effect(UNSTABLE);
}
