//! What is rendered against what is listed, the bounds on series, and the numbers.

use std::collections::BTreeSet;

use super::*;

struct Fixed {
    partitions: i32,
}

impl Probe for Fixed {
    fn refresh(&self, node: &NodeMetrics) {
        node.active_controller.set(1);
    }

    fn partitions(&self, visit: &mut dyn FnMut(PartitionSample<'_>)) {
        for partition in 0..self.partitions {
            let sample = PartitionSample {
                topic: "orders",
                partition,
                log_start_offset: 5,
                high_watermark: 90,
                log_end_offset: 100,
                size_bytes: 4096,
                segments: 2,
            };
            visit(sample);
        }
    }

    fn groups(&self, visit: &mut dyn FnMut(GroupSample<'_>)) {
        let offset = |partition, committed, high_watermark| GroupOffset {
            topic: "orders",
            partition,
            committed,
            high_watermark,
        };
        let offsets = [offset(0, 80, Some(90)), offset(1, 95, Some(90)), offset(2, 1, None)];
        visit(GroupSample { group: "billing", state: "Stable", members: 3, offsets: &offsets });
        visit(GroupSample { group: "old", state: "Empty", members: 0, offsets: &[] });
    }

    fn directories(&self, visit: &mut dyn FnMut(DirectorySample<'_>)) {
        visit(DirectorySample { path: "/data", offline: false, total_bytes: 10, available_bytes: 4 });
        visit(DirectorySample { path: "/data2", offline: true, total_bytes: 0, available_bytes: 0 });
    }
}

fn busy() -> Metrics {
    let metrics = Metrics::default();
    metrics.set_probe(Fixed { partitions: 3 });
    let topic = metrics.topic("orders");
    topic.produced(10, 1000);
    topic.fetched(400);
    topic.produce_failed();
    metrics.topic("other \"name\"").fetch_failed();
    let produce = metrics.api(0, "Produce");
    produce.answered(Duration::from_micros(120));
    produce.error(ErrorCode::NotLeaderOrFollower);
    produce.error(ErrorCode::UnknownServerError);
    produce.error(ErrorCode::None);
    metrics.node().sync_round_files.record(3);
    metrics.node().start_time_seconds.set(0.25);
    metrics
}

fn assert_line(text: &str, line: &str) {
    assert!(text.lines().any(|other| other == line), "`{line}` is missing in\n{text}");
}

#[test]
fn what_is_rendered_is_what_is_listed() {
    let text = busy().render();
    let described: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let listed: Vec<&str> = metric_rows().map(|row| row.name).collect();
    assert_eq!(described, listed);
    assert!(text.ends_with("# EOF\n"));
    let unique: BTreeSet<&str> = listed.iter().copied().collect();
    assert_eq!(unique.len(), listed.len());
    // Labels of the series are those of the row.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let row =
            metric_rows().filter(|row| name.starts_with(row.name)).max_by_key(|row| row.name.len()).unwrap();
        if let Some((_, labels)) = line.split_once('{') {
            let inside = labels.rsplit_once('}').unwrap().0;
            let names: Vec<&str> = inside.split(',').map(|label| label.split('=').next().unwrap()).collect();
            let names: Vec<&str> = names.into_iter().filter(|name| *name != "le").collect();
            assert_eq!(names, row.labels, "{line}");
        }
    }
}

#[test]
fn numbers_arrive() {
    let text = busy().render();
    for line in [
        "kafka_server_brokertopicmetrics_messagesin_total 10",
        "kafka_server_brokertopicmetrics_messagesin_total{topic=\"orders\"} 10",
        "kafka_server_brokertopicmetrics_totalproducerequests_total 2",
        "kafka_server_brokertopicmetrics_failedproducerequests_total{topic=\"orders\"} 1",
        "kafka_server_brokertopicmetrics_failedfetchrequests_total{topic=\"other \\\"name\\\"\"} 1",
        "kafka_network_requestmetrics_requests_total{request=\"Produce\"} 1",
        "kafka_network_requestmetrics_errors_total{request=\"Produce\",error=\"NOT_LEADER_OR_FOLLOWER\"} 1",
        "kafka_network_requestmetrics_errors_total{request=\"Produce\",error=\"UNKNOWN_SERVER_ERROR\"} 1",
        "kafka_network_requestmetrics_totaltime_seconds_bucket{le=\"0.0001\",request=\"Produce\"} 0",
        "kafka_network_requestmetrics_totaltime_seconds_bucket{le=\"0.00025\",request=\"Produce\"} 1",
        "kafka_network_requestmetrics_totaltime_seconds_bucket{le=\"+Inf\",request=\"Produce\"} 1",
        "kafka_network_requestmetrics_totaltime_seconds_sum{request=\"Produce\"} 0.00012",
        "vltava_sync_round_files_count 1",
        "process_start_time_seconds 0.25",
        "kafka_log_log_size{topic=\"orders\",partition=\"2\"} 4096",
        "kafka_topic_partition_current_offset{topic=\"orders\",partition=\"0\"} 90",
        "kafka_topic_partitions{topic=\"orders\"} 3",
        "kafka_coordinator_group_groupmetadatamanager_numgroups 2",
        "kafka_coordinator_group_groupmetadatamanager_numgroupsempty 1",
        "kafka_consumergroup_members{consumergroup=\"billing\"} 3",
        "kafka_consumergroup_lag{consumergroup=\"billing\",topic=\"orders\",partition=\"0\"} 10",
        "kafka_consumergroup_lag{consumergroup=\"billing\",topic=\"orders\",partition=\"1\"} 0",
        "kafka_consumergroup_lag_sum{consumergroup=\"billing\",topic=\"orders\"} 10",
        "kafka_log_logmanager_offlinelogdirectorycount 1",
        "vltava_directory_available_bytes{directory=\"/data\"} 4",
    ] {
        assert_line(&text, line);
    }
    assert!(!text.contains("error=\"NONE\""));
    assert!(
        !text.contains("kafka_consumergroup_lag{consumergroup=\"billing\",topic=\"orders\",partition=\"2\"}")
    );
}

#[test]
fn series_are_bounded_and_what_is_left_out_is_told() {
    let metrics = Metrics::new(SeriesLimits { topics: 2, partitions: 2 });
    metrics.set_probe(Fixed { partitions: 1000 });
    for number in 0..100 {
        metrics.topic(&format!("topic-{number}")).produced(1, 1);
    }
    let text = metrics.render();
    assert_line(&text, "kafka_server_brokertopicmetrics_messagesin_total 100");
    assert_eq!(text.matches("messagesin_total{").count(), 2);
    assert_eq!(text.matches("kafka_log_log_size{").count(), 2);
    assert_line(&text, "kafka_topic_partitions{topic=\"orders\"} 1000");
    // 998 partitions and one offset of a group.
    assert_line(&text, "vltava_series_left_out 999");
    metrics.forget_topic("topic-0");
    metrics.topic("topic-50").produced(1, 1);
    assert_line(&metrics.render(), "kafka_server_brokertopicmetrics_messagesin_total{topic=\"topic-50\"} 1");
}

#[test]
fn every_error_code_has_a_slot() {
    let api = Metrics::default().api(1, "Fetch");
    for code in ErrorCode::ALL {
        api.error(*code);
    }
    let counted: u64 = api.errors.iter().map(|slot| slot.load(Ordering::Relaxed)).sum();
    assert_eq!(counted as usize, ErrorCode::ALL.len() - 1);
}

#[test]
fn the_markdown_lists_every_metric() {
    let text = metrics_table_markdown();
    assert!(metric_rows().all(|row| text.contains(row.name)));
    assert!(text.contains("| `vltava_sync_rounds_total` | counter |"));
    assert!(metric_rows().all(|row| !row.help.ends_with('.')));
}
