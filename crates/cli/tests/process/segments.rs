//! Segment files as they lie on the disk after a clean end: in Kafka's own format, whole, one behind the
//! other. Where Kafka's jars are at hand, its own tool reads them too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base::batch::{Batches, DecompressBuffer};

/// Files given to one run of Kafka's tool; a virtual machine takes a second to start.
const FILES_DUMPED: usize = 40;
/// Kafka's tool.
const DUMP_TOOL: &str = "org.apache.kafka.tools.DumpLogSegments";
/// Names the directory of Kafka's jars.
const KAFKA_LIBS: &str = "VLTAVA_KAFKA_LIBS";

/// What was read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) segments: usize,
    pub(crate) batches: usize,
}

/// Reads every segment in log directories to its end. None overlap.
pub(crate) fn check(log_dirs: &[PathBuf]) -> Counted {
    read_all(log_dirs, true)
}

/// As [`check`], where copies may be left over that no chain lists (any more): of a rewrite whose leader died before it took
/// its place, say. The next start removes them.
pub(crate) fn check_with_leftovers(log_dirs: &[PathBuf]) -> Counted {
    read_all(log_dirs, false)
}

fn read_all(log_dirs: &[PathBuf], are_apart: bool) -> Counted {
    let mut counted = Counted::default();
    let mut logs = Vec::new();
    let topics = log_dirs.iter().flat_map(|dir| directories(&dir.join("topics")));
    for partition in topics.flat_map(|topic| directories(&topic)) {
        let mut ranges = Vec::new();
        for segment in directories(&partition) {
            let name = segment.file_name().and_then(|name| name.to_str()).expect("digits and dots");
            let (base, _) = name.split_once('.').expect("<base>.<id>.<generation>");
            let log = segment.join(format!("{base}.log"));
            let base: i64 = base.parse().expect("digits");
            let (end, batches) = read(&log, base);
            ranges.push((base, end));
            counted.segments += 1;
            counted.batches += batches;
            logs.push(log);
        }
        ranges.sort();
        let apart = !are_apart || ranges.is_sorted_by(|before, after| before.1 <= after.0);
        assert!(apart, "segments in {} overlap: {ranges:?}", partition.display());
    }
    logs.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).map_or(0, |it| it.len())));
    logs.truncate(FILES_DUMPED);
    dump(&logs);
    counted
}

/// Reads a file of batches; tells the offset behind the last one, and how many there are.
fn read(path: &Path, base: i64) -> (i64, usize) {
    let bytes = fs::read(path).expect("a segment can be read");
    let mut buffer = DecompressBuffer::new(1 << 30);
    let (mut next, mut count) = (base, 0);
    for batch in Batches::new(&bytes) {
        let batch = batch.unwrap_or_else(|error| panic!("{} at offset {next}: {error}", path.display()));
        let wrong = |error| panic!("{}, batch at {}: {error}", path.display(), batch.base_offset);
        batch.verify_crc().unwrap_or_else(wrong);
        assert!(batch.base_offset >= next, "{}: {} comes after {next}", path.display(), batch.base_offset);
        for record in batch.records(&mut buffer).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        {
            record.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        next = batch.next_offset();
        count += 1;
    }
    (next, count)
}

/// Lets Kafka's own tool read the files, if it is at hand.
fn dump(files: &[PathBuf]) {
    let Some(libs) = std::env::var_os(KAFKA_LIBS) else {
        assert!(std::env::var_os("CI").is_none(), "{KAFKA_LIBS} must name Kafka's jars in CI");
        println!("Kafka's dump tool is left out: {KAFKA_LIBS} does not name Kafka's jars");
        return;
    };
    let list: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    let mut java = Command::new("java");
    java.args(["-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp"]).arg(Path::new(&libs).join("*"));
    java.args([DUMP_TOOL, "--deep-iteration", "--files", &list.join(",")]);
    let output = java.output().expect("java runs");
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{err}");
    assert_eq!(out.matches("Log starting offset").count(), files.len(), "{err}");
    assert!(!out.contains("isvalid: false"), "Kafka's tool finds a broken batch");
    let records = out.lines().filter(|line| line.trim_start().starts_with("| offset:")).count();
    println!("Kafka's dump tool read {records} records in {} segments", files.len());
    assert!(records > 0);
}

/// What is in a directory and is one.
fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let paths = entries.map(|entry| entry.expect("a name").path());
    paths.filter(|path| path.is_dir()).collect()
}
