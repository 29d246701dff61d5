//! Many segments on the real file system: handles, memory and time stay bounded. A process of its own,
//! because it measures the process.

use std::path::Path;
use std::sync::Arc;

use base::env::Env;
use storage::{Segment, Storage, StorageOptions};

#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "it/common.rs"]
mod common;

use common::*;

/// Enough to pass every limit set here; the full 20,000 are a matter of scale, not of kind, and run
/// with `VLTAVA_SEGMENTS=20000`.
fn segments() -> i32 {
    std::env::var("VLTAVA_SEGMENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

/// Resident memory of this process, bytes.
fn resident_bytes(env: &Env) -> u64 {
    // The length of files in /proc is not told beforehand.
    let status = env.disk.open(Path::new("/proc/self/statm"), base::env::OpenMode::Read).unwrap();
    let mut bytes = [0; 256];
    let count = status.read_at(&mut bytes, 0).unwrap();
    let text = std::str::from_utf8(&bytes[..count]).unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn open_handles(env: &Env) -> usize {
    env.disk.read_dir(Path::new("/proc/self/fd")).unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k_3_12_many_segments_keep_handles_memory_and_time_bounded() {
    let dir = TempDir::new();
    let env = dir.env.clone();
    let options = StorageOptions { open_files_max: 100, ..StorageOptions::default() };
    let open = || Storage::open(env.clone(), dir.path.clone(), options.clone()).unwrap();
    let storage = open();
    let (handles, memory, start) = (open_handles(&env), resident_bytes(&env), env.clock.now());
    let made: Vec<Arc<Segment>> =
        (0..segments()).map(|partition| create(&storage, name(partition, partition as u64, 1))).collect();
    let created = env.clock.now();
    let heard: Vec<Arc<Heard>> = made.iter().map(|segment| Heard::on(segment)).collect();
    for segment in &made {
        append(segment, &[batch(1, 3, 300, 1_000)]).unwrap();
        storage.request_sync(segment);
    }
    while heard.iter().any(|heard| heard.end() < 4) {
        env.clock.sleep(std::time::Duration::from_millis(5)).await;
        assert!(env.clock.now() - created < std::time::Duration::from_secs(120), "syncing takes too long");
    }
    let synced = env.clock.now();
    assert!(storage.open_files() <= 100);
    assert!(open_handles(&env) < handles + 300);
    let per_segment = (resident_bytes(&env).saturating_sub(memory)) / made.len() as u64;
    println!(
        "{} segments: created in {:?}, appended and synced in {:?}, {per_segment} bytes each",
        made.len(),
        created - start,
        synced - created
    );
    // Their names and listeners are this test's; a debug build is no leaner.
    assert!(per_segment < 4_000, "{per_segment} bytes a segment");

    drop((made, storage));
    let restart = env.clock.now();
    let storage = open();
    let recovered: Vec<Arc<Segment>> = (0..segments())
        .map(|partition| recover(&storage, &name(partition, partition as u64, 1)).unwrap().0.segment)
        .collect();
    println!("recovered in {:?}", env.clock.now() - restart);
    assert!(recovered.iter().all(|segment| segment.end() == 4));
    assert!(storage.open_files() <= 100);
}
