//! Metrics as text, in the OpenMetrics form that Prometheus reads.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::table::row;
use super::{Histogram, Inner, MetricKind, Metrics, Shown, TrafficCounters};
use crate::error::ErrorCode;

impl Metrics {
    /// The `Content-Type` of what [`Metrics::render`] returns.
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// All metrics as text.
    pub fn render(&self) -> String {
        if let Some(probe) = self.0.probe.get() {
            probe.refresh(&self.0.node);
        }
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut out = String::new();
        text::encode(&mut out, &registry).expect("writing to a string does not fail");
        out
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let inner = &*self.0;
        inner.node.visit(&mut |name, shown| {
            let mut metric = begin(&mut encoder, name)?;
            match shown {
                Shown::Counter(counter) => metric.encode_counter::<NoLabelSet, _, u64>(&counter.get(), None),
                Shown::Gauge(gauge) => metric.encode_gauge(&gauge.get()),
                Shown::Ratio(gauge) => metric.encode_gauge(&gauge.get()),
                Shown::Histogram(histogram) => put_histogram(metric, histogram),
            }
        })?;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        begin(&mut encoder, "vltava_build_info")?.encode_family(&version)?.encode_gauge(&1i64)?;
        encode_traffic(inner, &mut encoder)?;
        encode_apis(inner, &mut encoder)?;
        encode_probe(inner, &mut encoder)
    }
}

fn begin<'s>(
    encoder: &'s mut DescriptorEncoder<'_>,
    name: &'static str,
) -> Result<MetricEncoder<'s>, fmt::Error> {
    let row = row(name);
    let kind = match row.kind {
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Histogram => MetricType::Histogram,
    };
    encoder.encode_descriptor(row.name, row.help, None, kind)
}

fn put_histogram(mut metric: MetricEncoder<'_>, histogram: &Histogram) -> fmt::Result {
    let numbers = histogram.snapshot();
    metric.encode_histogram::<NoLabelSet>(numbers.sum, numbers.count, &numbers.buckets, None)
}

type TrafficField = fn(&TrafficCounters) -> &Counter;

const TRAFFIC: [(&str, TrafficField); 7] = [
    ("kafka_server_brokertopicmetrics_messagesin", |counters| &counters.messages_in),
    ("kafka_server_brokertopicmetrics_bytesin", |counters| &counters.bytes_in),
    ("kafka_server_brokertopicmetrics_bytesout", |counters| &counters.bytes_out),
    ("kafka_server_brokertopicmetrics_totalproducerequests", |counters| &counters.produce_requests),
    ("kafka_server_brokertopicmetrics_totalfetchrequests", |counters| &counters.fetch_requests),
    ("kafka_server_brokertopicmetrics_failedproducerequests", |counters| &counters.failed_produce_requests),
    ("kafka_server_brokertopicmetrics_failedfetchrequests", |counters| &counters.failed_fetch_requests),
];

/// The sum over all topics without a label, as boards expect it, then each topic.
fn encode_traffic(inner: &Inner, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let topics = inner.topics.read();
    for (name, field) in TRAFFIC {
        let mut metric = begin(encoder, name)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&field(&inner.totals).get(), None)?;
        for (topic, counters) in topics.iter() {
            let labels = [("topic", topic.as_str())];
            metric
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&field(counters).get(), None)?;
        }
    }
    Ok(())
}

fn encode_apis(inner: &Inner, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let apis = inner.apis.read();
    // An API nobody has called makes no series.
    let called = || apis.values().filter(|api| api.requests.get() > 0);
    let mut metric = begin(encoder, "kafka_network_requestmetrics_requests")?;
    for api in called() {
        let labels = [("request", api.name)];
        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&api.requests.get(), None)?;
    }
    let mut metric = begin(encoder, "kafka_network_requestmetrics_errors")?;
    for api in apis.values() {
        for (slot, count) in api.errors.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let labels = [("request", api.name), ("error", ErrorCode::from_code(slot as i16 - 1).name())];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
    }
    let mut metric = begin(encoder, "kafka_network_requestmetrics_totaltime_seconds")?;
    for api in called() {
        put_histogram(metric.encode_family(&[("request", api.name)])?, &api.total_time)?;
    }
    Ok(())
}

/// What a probe tells, gathered before it is written: Prometheus wants all series of a name together.
#[derive(Default)]
struct Gathered {
    partitions: Vec<(String, String, [i64; 6])>,
    topics: BTreeMap<String, i64>,
    states: [i64; 6],
    members: Vec<(String, i64)>,
    offsets: Vec<(String, String, String, i64, Option<i64>)>,
    lag_sums: BTreeMap<(String, String), i64>,
    directories: Vec<(String, i64, i64)>,
    offline_directories: i64,
    left_out: i64,
}

/// Metrics of a partition, in the order of their values in [`Gathered::partitions`].
const PARTITION_METRICS: [&str; 6] = [
    "kafka_log_log_size",
    "kafka_log_log_numlogsegments",
    "kafka_log_log_logstartoffset",
    "kafka_log_log_logendoffset",
    "kafka_topic_partition_current_offset",
    "kafka_topic_partition_oldest_offset",
];

/// Metrics of group states, in the order of [`Gathered::states`], with Kafka's name of the state; the
/// first counts all.
const STATE_METRICS: [(&str, &str); 6] = [
    ("kafka_coordinator_group_groupmetadatamanager_numgroups", ""),
    ("kafka_coordinator_group_groupmetadatamanager_numgroupsstable", "Stable"),
    ("kafka_coordinator_group_groupmetadatamanager_numgroupsempty", "Empty"),
    ("kafka_coordinator_group_groupmetadatamanager_numgroupsdead", "Dead"),
    ("kafka_coordinator_group_groupmetadatamanager_numgroupspreparingrebalance", "PreparingRebalance"),
    ("kafka_coordinator_group_groupmetadatamanager_numgroupscompletingrebalance", "CompletingRebalance"),
];

fn gather(inner: &Inner) -> Gathered {
    let mut all = Gathered::default();
    let Some(probe) = inner.probe.get() else {
        return all;
    };
    let (topics_max, series_max) = (inner.limits.topics, inner.limits.partitions);
    probe.partitions(&mut |sample| {
        if let Some(count) = all.topics.get_mut(sample.topic) {
            *count += 1;
        } else if all.topics.len() < topics_max {
            all.topics.insert(sample.topic.to_owned(), 1);
        }
        if all.partitions.len() == series_max {
            all.left_out += 1;
            return;
        }
        let (size, segments) = (sample.size_bytes as i64, sample.segments as i64);
        let (start, end, high) = (sample.log_start_offset, sample.log_end_offset, sample.high_watermark);
        let (topic, partition) = (sample.topic.to_owned(), sample.partition.to_string());
        all.partitions.push((topic, partition, [size, segments, start, end, high, start]));
    });
    probe.groups(&mut |sample| {
        for (count, (_, state)) in all.states.iter_mut().zip(STATE_METRICS) {
            *count += i64::from(state.is_empty() || state == sample.state);
        }
        if all.members.len() == series_max {
            all.left_out += sample.offsets.len() as i64;
            return;
        }
        all.members.push((sample.group.to_owned(), sample.members as i64));
        for offset in sample.offsets {
            let lag = offset.high_watermark.map(|end| (end - offset.committed).max(0));
            let key = (sample.group.to_owned(), offset.topic.to_owned());
            if let (Some(lag), true) =
                (lag, all.lag_sums.len() < series_max || all.lag_sums.contains_key(&key))
            {
                *all.lag_sums.entry(key).or_default() += lag;
            }
            if all.offsets.len() == series_max {
                all.left_out += 1;
                continue;
            }
            let (topic, partition) = (offset.topic.to_owned(), offset.partition.to_string());
            all.offsets.push((sample.group.to_owned(), topic, partition, offset.committed, lag));
        }
    });
    probe.directories(&mut |sample| {
        all.offline_directories += i64::from(sample.offline);
        let (total, available) = (sample.total_bytes as i64, sample.available_bytes as i64);
        all.directories.push((sample.path.to_owned(), total, available));
    });
    all
}

fn encode_probe(inner: &Inner, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let all = gather(inner);
    for (index, name) in PARTITION_METRICS.into_iter().enumerate() {
        let mut metric = begin(encoder, name)?;
        for (topic, partition, values) in &all.partitions {
            let labels = [("topic", topic.as_str()), ("partition", partition.as_str())];
            metric.encode_family(&labels)?.encode_gauge(&values[index])?;
        }
    }
    let mut metric = begin(encoder, "kafka_topic_partitions")?;
    for (topic, count) in &all.topics {
        metric.encode_family(&[("topic", topic.as_str())])?.encode_gauge(count)?;
    }
    for (count, (name, _)) in all.states.iter().zip(STATE_METRICS) {
        begin(encoder, name)?.encode_gauge(count)?;
    }
    encode_groups(&all, encoder)?;
    begin(encoder, "kafka_log_logmanager_offlinelogdirectorycount")?
        .encode_gauge(&all.offline_directories)?;
    let mut metric = begin(encoder, "vltava_directory_total_bytes")?;
    for (path, total, _) in &all.directories {
        metric.encode_family(&[("directory", path.as_str())])?.encode_gauge(total)?;
    }
    let mut metric = begin(encoder, "vltava_directory_available_bytes")?;
    for (path, _, available) in &all.directories {
        metric.encode_family(&[("directory", path.as_str())])?.encode_gauge(available)?;
    }
    begin(encoder, "vltava_series_left_out")?.encode_gauge(&all.left_out)
}

fn encode_groups(all: &Gathered, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut metric = begin(encoder, "kafka_consumergroup_members")?;
    for (group, members) in &all.members {
        metric.encode_family(&[("consumergroup", group.as_str())])?.encode_gauge(members)?;
    }
    let labels =
        |group, topic, partition| [("consumergroup", group), ("topic", topic), ("partition", partition)];
    let mut metric = begin(encoder, "kafka_consumergroup_current_offset")?;
    for (group, topic, partition, committed, _) in &all.offsets {
        metric.encode_family(&labels(group, topic, partition))?.encode_gauge(committed)?;
    }
    let mut metric = begin(encoder, "kafka_consumergroup_lag")?;
    for (group, topic, partition, _, lag) in &all.offsets {
        if let Some(lag) = lag {
            metric.encode_family(&labels(group, topic, partition))?.encode_gauge(lag)?;
        }
    }
    let mut metric = begin(encoder, "kafka_consumergroup_lag_sum")?;
    for ((group, topic), lag) in &all.lag_sums {
        let labels = [("consumergroup", group.as_str()), ("topic", topic.as_str())];
        metric.encode_family(&labels)?.encode_gauge(lag)?;
    }
    Ok(())
}
