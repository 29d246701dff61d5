//! A disk that fills up and empties again (replication.md 2.11).

use std::path::Path;

use base::env::Disk;
use base::env::sim::Sim;
use storage::{SpaceLimits, Storage, StorageError, StorageOptions, StorageState};

use crate::common::*;

const SIZE: u64 = 1 << 20;

fn small(sim: &Sim) -> std::sync::Arc<Storage> {
    sim.disk.set_capacity(SIZE);
    let space = SpaceLimits { ample_bytes: u64::MAX, ..SpaceLimits::default() };
    let options = StorageOptions { space, reserve_bytes: 8_192, ..options() };
    Storage::open(sim.env.clone(), DIR.into(), options).unwrap()
}

/// Fills the disk by a file of somebody else so that `left` bytes are available.
fn fill_disk(sim: &Sim, left: u64) {
    let file = sim.disk.open(Path::new("/ballast"), base::env::OpenMode::ReadWrite).unwrap();
    let available = sim.disk.space(Path::new("/")).unwrap().available;
    let length = file.len().unwrap() + available - left;
    file.set_len(length).unwrap();
}

#[test]
fn states_follow_the_room_left() {
    let sim = Sim::new(1);
    let storage = small(&sim);
    let reserve = Path::new(DIR).join("reserve");
    let segment = create(&storage, name(0, 1, 0));
    fill(&segment, 3, 100);
    assert_eq!(storage.state(), StorageState::Writable);
    assert!(sim.disk.exists(&reserve));
    fill_disk(&sim, SIZE / 20);
    storage.poll_space();
    assert_eq!(storage.state(), StorageState::ReadOnly);
    fill(&segment, 4, 100);
    fill_disk(&sim, SIZE / 50);
    storage.poll_space();
    assert_eq!(storage.state(), StorageState::NoSpace);
    assert!(!sim.disk.exists(&reserve), "the reserve is given up");
    let writes = sim.disk.counts().writes;
    assert!(matches!(append(&segment, &[batch(4, 1, 1, 1)]), Err(StorageError::NoSpace { .. })));
    assert_eq!(sim.disk.counts().writes, writes, "nothing is written");
    storage.poll_space();
    assert_eq!(storage.state(), StorageState::NoSpace, "giving up the reserve is no cure");
    assert_eq!(batches(&read_all(&segment, 1_000).unwrap()).len(), 4);
    sim.disk.remove_file(Path::new("/ballast")).unwrap();
    storage.poll_space();
    assert_eq!(storage.state(), StorageState::Writable);
    assert!(sim.disk.exists(&reserve));
    fill(&segment, 6, 100);
}

#[test]
fn a_write_that_finds_no_room_is_taken_back() {
    for seed in 0..50 {
        let sim = Sim::new(seed);
        let storage = small(&sim);
        let segment = create(&storage, name(0, 1, 0));
        fill(&segment, 3, 100);
        sim.disk.fail_write_after(0, true);
        let refused = append(&segment, &[batch(3, 1, 700, 1), batch(4, 1, 700, 1)]);
        assert!(matches!(refused, Err(StorageError::NoSpace { .. })));
        assert_eq!(storage.state(), StorageState::NoSpace);
        assert_eq!(sim.disk.read(&log_path(segment.name()), 9_999).unwrap().len() as u64, segment.bytes());
        storage.poll_space();
        fill(&segment, 6, 100);
        segment.seal().unwrap();
        segment.verify().unwrap();
        assert_eq!(batches(&read_all(&segment, 1_000).unwrap()).len(), 6);
    }
}

#[test]
fn sealing_on_a_full_disk_succeeds_without_an_index() {
    let sim = Sim::new(1);
    let storage = small(&sim);
    let segment = create(&storage, name(0, 1, 0));
    fill(&segment, 40, 200);
    fill_disk(&sim, 0);
    let info = segment.seal().unwrap();
    assert_eq!(batches(&read_all(&segment, 1_000).unwrap()).len(), 40);
    sim.disk.remove_file(Path::new("/ballast")).unwrap();
    storage.poll_space();
    let loaded = storage.load(name(0, 1, 0), info.end, info.bytes, info.crc);
    assert_eq!(batches(&read_all(&loaded, 1_000).unwrap()).len(), 40);
    assert_eq!(loaded.max_timestamp().unwrap(), Some(1_039));
}
