//! Metrics: one table of names, the handles that count, and their text form.
//!
//! Names follow the dashboards people have: `kafka_…` ones are those of Strimzi's JMX rules and of
//! `kafka_exporter`, `vltava_…` ones have no twin there. [`metric_rows`] lists every name; a
//! test holds it against what is rendered, and the documentation is made from it.
//!
//! Recording is a few atomic additions on handles that callers keep: [`Metrics::api`] and
//! [`Metrics::topic`] are looked up once, not per request. Values that would cost every append (sizes,
//! offsets, lags) are read through a [`Probe`] when somebody looks, and the number of series they make
//! is bounded.
//!
//! What it does not do: serve HTTP, or remember anything over time.

mod histogram;
mod probe;
mod render;
mod table;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

pub use histogram::{Histogram, HistogramSnapshot};
pub use probe::{DirectorySample, GroupOffset, GroupSample, PartitionSample, Probe};
pub use table::{MetricKind, MetricRow, metric_rows, metrics_table_markdown};

use crate::error::ErrorCode;

/// Topics that get series of their own unless another number is set. Further ones count in the totals.
pub const TOPIC_SERIES_DEFAULT: usize = 1_000;
/// Partitions, and likewise group offsets, that get series of their own unless another number is set.
pub const PARTITION_SERIES_DEFAULT: usize = 2_000;

/// Room for all error codes, the slot of -1 in front.
const ERROR_SLOTS: usize = 160;

/// How many series may be made of names that clients choose.
#[derive(Clone, Copy, Debug)]
pub struct SeriesLimits {
    /// Topics with counters of their own.
    pub topics: usize,
    /// Partitions with values of their own, and likewise offsets of groups.
    pub partitions: usize,
}

impl Default for SeriesLimits {
    fn default() -> Self {
        SeriesLimits { topics: TOPIC_SERIES_DEFAULT, partitions: PARTITION_SERIES_DEFAULT }
    }
}

/// All metrics of a process. Cheap to clone; clones are handles to the same ones.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

struct Inner {
    node: NodeMetrics,
    totals: TrafficCounters,
    topics: RwLock<BTreeMap<String, Arc<TrafficCounters>>>,
    apis: RwLock<BTreeMap<i16, Arc<ApiMetrics>>>,
    limits: SeriesLimits,
    probe: OnceLock<Box<dyn Probe>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new(SeriesLimits::default())
    }
}

impl Metrics {
    /// Metrics that are all zero.
    pub fn new(limits: SeriesLimits) -> Metrics {
        Metrics(Arc::new(Inner {
            node: NodeMetrics::new(),
            totals: TrafficCounters::default(),
            topics: RwLock::default(),
            apis: RwLock::default(),
            limits,
            probe: OnceLock::new(),
        }))
    }

    /// The metrics without labels.
    pub fn node(&self) -> &NodeMetrics {
        &self.0.node
    }

    /// Sets what is asked for partitions, groups and directories; only the first call counts.
    pub fn set_probe(&self, probe: impl Probe + 'static) {
        // A second probe would be a mistake of the assembly, not of the input: keep the first.
        let _ = self.0.probe.set(Box::new(probe));
    }

    /// The metrics of an API, made when first asked for. Keep the handle.
    pub fn api(&self, key: i16, name: &'static str) -> Arc<ApiMetrics> {
        if let Some(api) = self.0.apis.read().get(&key) {
            return api.clone();
        }
        self.0.apis.write().entry(key).or_insert_with(|| Arc::new(ApiMetrics::new(name))).clone()
    }

    /// The traffic of a topic. Keep the handle. When the bound on topics is reached, a further topic
    /// counts in the totals alone.
    pub fn topic(&self, name: &str) -> TopicMetrics {
        let metrics = self.clone();
        if let Some(counters) = self.0.topics.read().get(name) {
            return TopicMetrics { metrics, counters: Some(counters.clone()) };
        }
        let mut topics = self.0.topics.write();
        if topics.len() >= self.0.limits.topics && !topics.contains_key(name) {
            return TopicMetrics { metrics, counters: None };
        }
        let counters = Some(topics.entry(name.to_owned()).or_default().clone());
        TopicMetrics { metrics, counters }
    }

    /// Drops the series of a topic that was deleted.
    pub fn forget_topic(&self, name: &str) {
        self.0.topics.write().remove(name);
    }
}

/// Traffic of one topic or of all.
#[derive(Debug, Default)]
struct TrafficCounters {
    messages_in: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    produce_requests: Counter,
    fetch_requests: Counter,
    failed_produce_requests: Counter,
    failed_fetch_requests: Counter,
}

/// Counts the traffic of one topic, and with it that of all.
#[derive(Clone, Debug)]
pub struct TopicMetrics {
    metrics: Metrics,
    counters: Option<Arc<TrafficCounters>>,
}

impl TopicMetrics {
    /// Records were appended: one partition of a Produce request.
    pub fn produced(&self, records: u64, bytes: u64) {
        self.each(|counters| {
            counters.produce_requests.inc();
            counters.messages_in.inc_by(records);
            counters.bytes_in.inc_by(bytes);
        });
    }

    /// One partition of a Produce request was refused.
    pub fn produce_failed(&self) {
        self.each(|counters| {
            counters.produce_requests.inc();
            counters.failed_produce_requests.inc();
        });
    }

    /// Records were read, or none were there: one partition of a Fetch request.
    pub fn fetched(&self, bytes: u64) {
        self.each(|counters| {
            counters.fetch_requests.inc();
            counters.bytes_out.inc_by(bytes);
        });
    }

    /// One partition of a Fetch request was refused.
    pub fn fetch_failed(&self) {
        self.each(|counters| {
            counters.fetch_requests.inc();
            counters.failed_fetch_requests.inc();
        });
    }

    fn each(&self, count: impl Fn(&TrafficCounters)) {
        count(&self.metrics.0.totals);
        if let Some(counters) = &self.counters {
            count(counters);
        }
    }
}

/// Requests of one API.
#[derive(Debug)]
pub struct ApiMetrics {
    name: &'static str,
    requests: Counter,
    total_time: Histogram,
    errors: [AtomicU64; ERROR_SLOTS],
}

impl ApiMetrics {
    fn new(name: &'static str) -> ApiMetrics {
        ApiMetrics {
            name,
            requests: Counter::default(),
            total_time: Histogram::of_durations(),
            errors: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// A request was answered; `total_time` runs from its last byte read to its answer handed over.
    pub fn answered(&self, total_time: Duration) {
        self.requests.inc();
        self.total_time.record_duration(total_time);
    }

    /// An answer held this error code, at its top or for one of its parts. Success is not counted.
    pub fn error(&self, code: ErrorCode) {
        let slot = usize::try_from(code.code() + 1).ok().and_then(|slot| self.errors.get(slot));
        if let (Some(slot), true) = (slot, code.is_error()) {
            slot.fetch_add(1, Ordering::Relaxed);
        }
    }
}

macro_rules! node_metrics {
    ($($field:ident: $type:ident $($constructor:ident)? = $name:literal, $help:literal;)*) => {
        /// The metrics without labels: public handles, each an atomic.
        #[derive(Clone, Debug)]
        pub struct NodeMetrics {
            $(#[doc = concat!($help, ".")] pub $field: $type,)*
        }

        /// The rows of [`NodeMetrics`].
        const NODE_ROWS: &[MetricRow] = &[
            $(MetricRow { name: $name, kind: MetricKind::of(stringify!($type)), labels: &[], help: $help },)*
        ];

        impl NodeMetrics {
            fn new() -> NodeMetrics {
                NodeMetrics { $($field: node_metrics!(@new $type $($constructor)?),)* }
            }

            /// Hands every metric to `visit`, by name.
            fn visit(&self, visit: &mut dyn FnMut(&'static str, Shown<'_>) -> fmt::Result) -> fmt::Result {
                $(visit($name, Shown::from(&self.$field))?;)*
                Ok(())
            }
        }
    };
    (@new $type:ident $constructor:ident) => { $type::$constructor() };
    (@new $type:ident) => { $type::default() };
}

/// A metric as the renderer sees it.
enum Shown<'a> {
    Counter(&'a Counter),
    Gauge(&'a Gauge),
    Ratio(&'a Ratio),
    Histogram(&'a Histogram),
}

macro_rules! shown_from {
    ($($type:ident)*) => {
        $(impl<'a> From<&'a $type> for Shown<'a> {
            fn from(metric: &'a $type) -> Shown<'a> {
                Shown::$type(metric)
            }
        })*
    };
}

shown_from! { Counter Gauge Ratio Histogram }

/// A gauge of a number with a fraction.
pub type Ratio = Gauge<f64, AtomicU64>;

node_metrics! {
    connections: Gauge = "kafka_server_socket_server_metrics_connection_count",
        "Connections open now";
    connections_accepted: Counter = "vltava_connections_accepted",
        "Connections accepted";
    connections_refused: Counter = "vltava_connections_refused",
        "Connections closed at once because a limit was reached";
    connections_idle_closed: Counter = "vltava_connections_idle_closed",
        "Connections closed because they were idle too long";
    connections_malformed: Counter = "vltava_connections_malformed",
        "Connections closed because their bytes were no request";
    memory_limit_bytes: Gauge = "vltava_memory_limit_bytes",
        "Bytes of memory for what clients bring and ask for: vltava.memory.limit, or what was chosen for it";
    request_bytes_queued: Gauge = "vltava_request_bytes_queued",
        "Bytes of requests in work and of answers not sent now";
    request_bytes_max: Gauge = "vltava_request_max_bytes",
        "Bytes of requests in work and of answers not sent above which no more is read";
    requests_waiting: Gauge = "vltava_requests_waiting",
        "Requests that wait for something: records, copies, other members";
    group_member_bytes: Gauge = "vltava_group_member_bytes",
        "Bytes that members of groups hold, as counted against vltava.group.memory.max.bytes";
    group_bytes: Gauge = "vltava_group_bytes",
        "Bytes that groups hold besides their members and offsets, counted likewise";
    group_offset_bytes: Gauge = "vltava_group_offset_bytes",
        "Bytes that committed offsets of groups hold, counted likewise";
    group_bytes_max: Gauge = "vltava_group_max_bytes",
        "Bytes that members of groups may hold, and likewise the groups themselves, and their offsets";
    fetch_session_bytes: Gauge = "vltava_fetch_session_bytes",
        "Bytes that fetch sessions hold";
    fetch_session_bytes_max: Gauge = "vltava_fetch_session_max_bytes",
        "Bytes that fetch sessions may hold; a fetch that finds no room gets no session";
    producer_bytes: Gauge = "vltava_producer_bytes",
        "Bytes that partitions hold to know idempotent producers' retries again";
    producer_bytes_max: Gauge = "vltava_producer_max_bytes",
        "Bytes for that, above which a partition forgets those silent for longest";
    producers_evicted: Counter = "vltava_producers_evicted",
        "Idempotent producers that a partition forgot before producer.id.expiration.ms for want of memory";
    repair_segments: Gauge = "vltava_repair_segments",
        "Sealed segments that this node has yet to fetch because copies are wanted here";
    repair_bytes: Gauge = "vltava_repair_bytes",
        "Bytes of those segments";
    repair_fetched_bytes: Counter = "vltava_repair_fetched_bytes",
        "Bytes of sealed segments that this node fetched from others";
    scrub_read_bytes: Counter = "vltava_scrub_read_bytes",
        "Bytes of sealed segments that were read to see whether they are what was sealed";
    scrub_damaged_segments: Counter = "vltava_scrub_damaged_segments",
        "Sealed segments that were found not to be what was sealed, or could not be read";
    under_replicated_segments: Gauge = "vltava_under_replicated_segments",
        "Sealed segments of partitions led here of which fewer copies than wanted can be read";
    connections_max: Gauge = "vltava_connections_max",
        "Connections above which no more are accepted";
    fetch_sessions: Gauge = "kafka_server_fetchsessioncache_numincrementalfetchsessions",
        "Fetch sessions kept now";
    partitions: Gauge = "kafka_server_replicamanager_partitioncount",
        "Partitions this node holds";
    leaders: Gauge = "kafka_server_replicamanager_leadercount",
        "Partitions this node leads";
    producer_ids: Gauge = "kafka_server_replicamanager_produceridcount",
        "Idempotent producers that partitions remember, each counted once per partition";
    under_replicated_partitions: Gauge = "kafka_server_replicamanager_underreplicatedpartitions",
        "Partitions with fewer copies in sync than they should have";
    under_min_isr_partitions: Gauge = "kafka_server_replicamanager_underminisrpartitioncount",
        "Partitions with fewer copies in sync than acks=all needs";
    active_controller: Gauge = "kafka_controller_kafkacontroller_activecontrollercount",
        "1 on the node that is the controller";
    offline_partitions: Gauge = "kafka_controller_kafkacontroller_offlinepartitionscount",
        "Partitions without a leader";
    leaderless_partitions: Gauge = "vltava_leaderless_partitions",
        "Partitions of the cluster that nobody leads: whoever surely has all that was committed is gone";
    unclean_elections: Counter = "kafka_controller_controllerstats_uncleanleaderelections",
        "Partitions that this node leads since, although records may have been lost";
    metadata_available: Gauge = "vltava_metadata_available",
        "1 while the metadata store takes changes";
    topics: Gauge = "kafka_controller_kafkacontroller_globaltopiccount",
        "Topics of the cluster";
    cluster_partitions: Gauge = "kafka_controller_kafkacontroller_globalpartitioncount",
        "Partitions of the cluster";
    sync_rounds: Counter = "vltava_sync_rounds",
        "Sync rounds: what had become dirty was made durable together";
    sync_round_time: Histogram of_durations = "vltava_sync_round_seconds",
        "How long a sync round took";
    sync_round_files: Histogram of_counts = "vltava_sync_round_files",
        "Files a sync round made durable";
    sync_journal_rounds: Counter = "vltava_sync_journal_rounds",
        "Sync rounds that wrote what was appended to the sync journal, once more, to sync one file instead of many";
    sync_journal_bytes: Counter = "vltava_sync_journal_written_bytes",
        "Bytes written to the sync journal";
    storage_failures: Counter = "vltava_storage_failures",
        "Log directories given up after a failed write or sync";
    retention_segments: Counter = "vltava_retention_dropped_segments",
        "Segments that retention dropped";
    compaction_passes: Counter = "vltava_compaction_passes",
        "Passes of compaction over a log that came to their end";
    compaction_failures: Counter = "vltava_compaction_failures",
        "Passes of compaction that failed";
    compaction_bytes_read: Counter = "vltava_compaction_read_bytes",
        "Bytes that compaction read, for the keys and for the rewrite";
    compaction_bytes_written: Counter = "vltava_compaction_written_bytes",
        "Bytes that compaction wrote";
    compaction_records_dropped: Counter = "vltava_compaction_dropped_records",
        "Records that compaction left out";
    coalesced_segments: Counter = "vltava_coalesced_segments",
        "Small segments that were joined with their neighbours, to keep chains short";
    coalesced_bytes: Counter = "vltava_coalesced_bytes",
        "Bytes written for that";
    coalescing_failures: Counter = "vltava_coalescing_failures",
        "Times that this failed; it is tried again";
    longest_chain: Gauge = "vltava_longest_chain_segments",
        "Segments of the longest log led here";
    compaction_max_dirty_percent: Gauge = "kafka_log_logcleanermanager_max_dirty_percent",
        "Share of not yet compacted bytes in the dirtiest compacted log, percent";
    compaction_uncleanable: Gauge = "kafka_log_logcleanermanager_uncleanable_partitions_count",
        "Compacted logs whose last pass failed";
    offset_commits: Counter = "kafka_coordinator_group_groupcoordinatormetrics_offsetcommits",
        "Offset commits";
    offset_expirations: Counter = "kafka_coordinator_group_groupcoordinatormetrics_offsetexpirations",
        "Offsets dropped because their group was idle too long";
    rebalances: Counter = "kafka_coordinator_group_groupcoordinatormetrics_groupcompletedrebalances",
        "Rebalances of groups that were completed";
    resident_memory_bytes: Gauge = "process_resident_memory_bytes",
        "Memory of the process that is resident, bytes";
    open_files: Gauge = "process_open_fds",
        "Files and sockets the process has open";
    start_time_seconds: Ratio = "process_start_time_seconds",
        "When the process began, seconds since the Unix epoch";
}
