//! Apache Kafka's own DumpLogSegments reads our files without a complaint.
//!
//! Needs a JDK and Kafka's jars: `VLTAVA_KAFKA_LIBS` names the directory that holds them. Without it
//! the test fails where `CI` is set and says that it was skipped elsewhere.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use base::batch::{BatchBuilder, Compression, ControlRecordType, end_transaction_batch};
use base::ids::Generation;
use storage::{
    CompactionRules, Keep, KeyIndexer, NoTransactions, OffsetMap, RewriteRequest, SegmentName, Storage,
    Throttle, rewrite,
};

use crate::common::*;

const TOOLS: [&str; 2] = ["org.apache.kafka.tools.DumpLogSegments", "kafka.tools.DumpLogSegments"];

fn libs() -> Option<PathBuf> {
    match std::env::var_os("VLTAVA_KAFKA_LIBS") {
        Some(libs) => Some(libs.into()),
        None if std::env::var_os("CI").is_some() => panic!("VLTAVA_KAFKA_LIBS must name Kafka's jars in CI"),
        None => {
            println!("skipped: VLTAVA_KAFKA_LIBS does not name Kafka's jars");
            None
        }
    }
}

/// Runs the tool; gives back what it printed and what it complained about.
fn dump(libs: &std::path::Path, arguments: &[&str]) -> (String, String) {
    for tool in TOOLS {
        let mut java = Command::new("java");
        java.args(["-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp"]).arg(libs.join("*")).arg(tool);
        let output = java.args(arguments).output().expect("java runs");
        let [out, err] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        // The class moved between releases.
        if err.contains("ClassNotFoundException") && err.contains(tool) {
            continue;
        }
        let complaints: Vec<&str> =
            err.lines().filter(|line| !line.contains("SLF4J") && !line.contains("StatusLogger")).collect();
        assert!(output.status.success(), "{err}");
        return (out, complaints.join("\n"));
    }
    panic!("none of {TOOLS:?} is in {}", libs.display());
}

#[test]
fn k_3_01_kafkas_dump_tool_reads_log_index_and_time_index() {
    let Some(libs) = libs() else { return };
    // Of every log that begins elsewhere, Kafka's own too, release 4.3 says "-1 is followed by …".
    let dir = TempDir::new();
    let storage = Storage::open(dir.env.clone(), dir.path.clone(), options()).unwrap();
    let segment = create(&storage, name(0, 1, 0));
    for round in 0..60i64 {
        let codec = Compression::ALL[round as usize % 5];
        // Some batches are older than those before them.
        let timestamp = 1_700_000_000_000 + round * 1_000 - (round % 3) * 2_500;
        append(&segment, &[batch_with(segment.end(), 1 + round as usize % 4, 700, timestamp, codec)])
            .unwrap();
    }
    let mut idempotent =
        BatchBuilder::new().base_offset(segment.end()).leader_epoch(EPOCH.0).producer(9, 1, 5);
    idempotent.append(1_700_000_100_000, Some(b"key"), None);
    append(&segment, &[idempotent.transactional().finish().unwrap()]).unwrap();
    let marker = end_transaction_batch(ControlRecordType::Commit, 9, 1, 3, 1_700_000_100_001);
    let mut stamped = marker.clone();
    let header = base::batch::stamp(marker.first_chunk().unwrap(), segment.end(), EPOCH.0);
    stamped[..header.len()].copy_from_slice(&header);
    append(&segment, &[stamped]).unwrap();
    let info = segment.seal().unwrap();

    let file = |extension: &str| {
        let name = name(0, 1, 0);
        let inner = file_path(&name, &format!("00000000000000000000.{extension}"));
        let inner = inner.strip_prefix(DIR).unwrap().to_owned();
        dir.path.join(inner).to_str().unwrap().to_owned()
    };
    let (log, complaints) = dump(&libs, &["--deep-iteration", "--print-data-log", "--files", &file("log")]);
    assert_eq!(complaints, "");
    assert!(log.contains("Log starting offset: 0"), "{log}");
    let records = log.lines().filter(|line| line.trim_start().starts_with("| offset:")).count() as i64;
    assert_eq!(records, info.end);
    assert!(log.contains("endTxnMarker: COMMIT coordinatorEpoch: 3"), "{log}");
    assert!(!log.contains("isvalid: false"));

    let (index, complaints) = dump(&libs, &["--files", &file("index")]);
    assert_eq!(complaints, "");
    let entries = index.lines().filter(|line| line.starts_with("offset:")).count() as u64;
    assert_eq!(entries * 8, dir.env.disk.read(file("index").as_ref(), 1 << 20).unwrap().len() as u64);
    assert!(entries > 10);

    let (times, complaints) = dump(&libs, &["--files", &file("timeindex")]);
    assert_eq!(complaints, "");
    let entries: Vec<&str> = times.lines().filter(|line| line.starts_with("timestamp:")).collect();
    assert!(entries.len() > 10);
    let newest = format!("timestamp: 1700000100001 offset: {}", info.end - 1);
    assert_eq!(entries.last(), Some(&newest.as_str()), "{times}");
    for sanity in [file("index"), file("timeindex")] {
        let (out, complaints) = dump(&libs, &["--index-sanity-check", "--files", &sanity]);
        assert_eq!(complaints, "");
        assert!(out.contains("passed sanity check"), "{out}");
    }
}

#[tokio::test]
async fn kafkas_dump_tool_reads_compacted_segments() {
    let Some(libs) = libs() else { return };
    let dir = TempDir::new();
    let storage = Storage::open(dir.env.clone(), dir.path.clone(), options()).unwrap();
    let segment = create(&storage, name(0, 1, 0));
    for round in 0..200i64 {
        let codec = Compression::ALL[round as usize % 5];
        let mut builder =
            BatchBuilder::new().base_offset(segment.end()).leader_epoch(EPOCH.0).compression(codec);
        for record in 0..3i64 {
            let key = format!("key-{}", (round * 3 + record) * 7 % 250);
            let value = (record != 1).then_some(&[b'v'; 300][..]);
            builder.append(1_700_000_000_000 + round * 10 + record, Some(key.as_bytes()), value);
        }
        append(&segment, &[builder.finish().unwrap()]).unwrap();
    }
    segment.seal().unwrap();
    let throttle = Arc::new(Throttle::new(&dir.env, None));
    let map = OffsetMap::new(&dir.env, 1 << 20, 0.9, 1_000, 0);
    let mut indexer = KeyIndexer::new(map, Box::new(NoTransactions), throttle.clone());
    assert!(indexer.add(&segment, 0).await.unwrap());
    let name = SegmentName { generation: Generation(1), ..name(0, 2, 0) };
    let request = RewriteRequest {
        run: vec![segment],
        name: name.clone(),
        keep: Keep::Latest {
            map: Arc::new(indexer.finish()),
            rules: CompactionRules {
                now_ms: 1_700_000_009_000,
                delete_retention_ms: 1_000,
                older_is_clean: true,
                keep_offset: None,
                live_producers: HashMap::new(),
            },
        },
    };
    let rewritten = rewrite(request, Box::new(NoTransactions), &throttle).await.unwrap();
    assert_eq!(rewritten.stats.records_kept, 250);
    for extension in ["index", "timeindex"] {
        let file = file_path(&name, &format!("00000000000000000000.{extension}"));
        let file = dir.path.join(file.strip_prefix(DIR).unwrap());
        let (out, complaints) = dump(&libs, &["--files", file.to_str().unwrap()]);
        assert_eq!(complaints, "");
        assert!(out.matches("offset:").count() > 10, "{out}");
    }
    let file = file_path(&name, "00000000000000000000.log");
    let file = dir.path.join(file.strip_prefix(DIR).unwrap());
    let (out, complaints) = dump(&libs, &["--deep-iteration", "--files", file.to_str().unwrap()]);
    // Gaps are what compaction is for.
    let gap = |line: &str| line.contains("is followed by") || line.starts_with("Non-consecutive offsets in");
    assert!(complaints.lines().all(gap), "{complaints}");
    assert_eq!(out.lines().filter(|line| line.trim_start().starts_with("| offset:")).count(), 250);
    assert!(out.contains("deleteHorizonMs: OptionalLong[1700000010000]"), "{out}");
}
