//! The list of all metrics, for documentation, dashboards and tests.

use super::NODE_ROWS;

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows; its name ends with `_total` when shown.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values in buckets.
    Histogram,
}

impl MetricKind {
    /// The kind of a metric of the Rust type with this name.
    pub(super) const fn of(type_name: &str) -> MetricKind {
        match type_name.as_bytes() {
            b"Counter" => MetricKind::Counter,
            b"Histogram" => MetricKind::Histogram,
            b"Gauge" | b"Ratio" => MetricKind::Gauge,
            _ => panic!("no metric has this type"),
        }
    }

    /// Prometheus' name.
    pub fn name(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct MetricRow {
    /// Name without the `_total` of counters.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// Its labels; a topic's series stands beside one without labels that is the sum.
    pub labels: &'static [&'static str],
    /// What it tells, one sentence without the point.
    pub help: &'static str,
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> MetricRow {
    MetricRow { name, kind: MetricKind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> MetricRow {
    MetricRow { name, kind: MetricKind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> MetricRow {
    MetricRow { name, kind: MetricKind::Histogram, labels, help }
}

const PARTITION: &[&str] = &["topic", "partition"];
const GROUP: &[&str] = &["consumergroup"];
const GROUP_TOPIC: &[&str] = &["consumergroup", "topic"];
const GROUP_PARTITION: &[&str] = &["consumergroup", "topic", "partition"];

/// The metrics beyond [`super::NodeMetrics`], in the order in which they are rendered.
const LABELLED_ROWS: &[MetricRow] = &[
    gauge("vltava_build_info", &["version"], "Always 1; the label tells the version"),
    counter("kafka_server_brokertopicmetrics_messagesin", &["topic"], "Records appended"),
    counter("kafka_server_brokertopicmetrics_bytesin", &["topic"], "Bytes of batches appended"),
    counter("kafka_server_brokertopicmetrics_bytesout", &["topic"], "Bytes of batches sent to consumers"),
    counter(
        "kafka_server_brokertopicmetrics_totalproducerequests",
        &["topic"],
        "Partitions of Produce requests handled",
    ),
    counter(
        "kafka_server_brokertopicmetrics_totalfetchrequests",
        &["topic"],
        "Partitions of Fetch requests handled",
    ),
    counter(
        "kafka_server_brokertopicmetrics_failedproducerequests",
        &["topic"],
        "Partitions of Produce requests refused",
    ),
    counter(
        "kafka_server_brokertopicmetrics_failedfetchrequests",
        &["topic"],
        "Partitions of Fetch requests refused",
    ),
    counter("kafka_network_requestmetrics_requests", &["request"], "Requests answered"),
    counter("kafka_network_requestmetrics_errors", &["request", "error"], "Error codes in answers"),
    histogram(
        "kafka_network_requestmetrics_totaltime_seconds",
        &["request"],
        "Time from the last byte of a request read to its answer handed over",
    ),
    gauge("kafka_log_log_size", PARTITION, "Bytes of the segments of a partition"),
    gauge("kafka_log_log_numlogsegments", PARTITION, "Segments of a partition"),
    gauge("kafka_log_log_logstartoffset", PARTITION, "First offset of a partition"),
    gauge("kafka_log_log_logendoffset", PARTITION, "Offset the next record of a partition gets"),
    gauge("kafka_topic_partition_current_offset", PARTITION, "High watermark of a partition"),
    gauge("kafka_topic_partition_oldest_offset", PARTITION, "First offset of a partition that can be read"),
    gauge("kafka_topic_partitions", &["topic"], "Partitions of a topic on this node"),
    gauge("kafka_coordinator_group_groupmetadatamanager_numgroups", &[], "Groups this node coordinates"),
    gauge(
        "kafka_coordinator_group_groupmetadatamanager_numgroupsstable",
        &[],
        "Of these, with all members settled",
    ),
    gauge("kafka_coordinator_group_groupmetadatamanager_numgroupsempty", &[], "Of these, without members"),
    gauge("kafka_coordinator_group_groupmetadatamanager_numgroupsdead", &[], "Of these, about to be dropped"),
    gauge(
        "kafka_coordinator_group_groupmetadatamanager_numgroupspreparingrebalance",
        &[],
        "Of these, waiting for members to join",
    ),
    gauge(
        "kafka_coordinator_group_groupmetadatamanager_numgroupscompletingrebalance",
        &[],
        "Of these, waiting for the assignment",
    ),
    gauge("kafka_consumergroup_members", GROUP, "Members of a group"),
    gauge("kafka_consumergroup_current_offset", GROUP_PARTITION, "Offset a group has committed"),
    gauge(
        "kafka_consumergroup_lag",
        GROUP_PARTITION,
        "Records between the committed offset and the high watermark",
    ),
    gauge("kafka_consumergroup_lag_sum", GROUP_TOPIC, "Lag of a group over the partitions of a topic"),
    gauge("kafka_log_logmanager_offlinelogdirectorycount", &[], "Log directories that failed"),
    gauge("vltava_directory_total_bytes", &["directory"], "Size of the file system under a log directory"),
    gauge("vltava_directory_available_bytes", &["directory"], "What may still be written to a log directory"),
    gauge("vltava_series_left_out", &[], "Partitions and group offsets without series because of the bound"),
];

/// Every metric, in the order in which they are rendered.
pub fn metric_rows() -> impl Iterator<Item = &'static MetricRow> {
    NODE_ROWS.iter().chain(LABELLED_ROWS)
}

/// The row of a name.
pub(super) fn row(name: &str) -> &'static MetricRow {
    metric_rows().find(|row| row.name == name).expect("a test finds every rendered name in the table")
}

/// The table as Markdown, for the documentation.
pub fn metrics_table_markdown() -> String {
    let mut out = String::from("| metric | kind | labels | what it tells |\n|---|---|---|---|\n");
    for row in metric_rows() {
        let total = if row.kind == MetricKind::Counter { "_total" } else { "" };
        let labels = row.labels.join(", ");
        out.push_str(&format!("| `{}{total}` | {} | {labels} | {} |\n", row.name, row.kind.name(), row.help));
    }
    out
}
