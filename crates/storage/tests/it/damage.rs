//! Damaged files: what is an aid is made anew, what is data is reported.

use base::env::sim::{CrashPolicy, Sim};
use base::env::{Disk, OpenMode};
use bytes::Bytes;
use storage::{SealedInfo, StorageError};

use crate::common::*;

const RECORDS: i64 = 60;

fn sealed(sim: &Sim) -> SealedInfo {
    let storage = open(sim);
    let segment = create(&storage, name(0, 1, 0));
    fill(&segment, RECORDS, 400);
    let info = segment.seal().unwrap();
    storage.shutdown_clean().unwrap();
    sim.disk.kill();
    info
}

/// Everything a loaded segment answers is as it was.
fn check_loaded(sim: &Sim, info: SealedInfo) {
    let storage = open(sim);
    let loaded = storage.load(name(0, 1, 0), info.end, info.bytes, info.crc);
    for from in 0..RECORDS {
        let slice = loaded.read(from, RECORDS, 1, true).unwrap();
        assert_eq!(batches(&slice.bytes)[0].base_offset, from);
        assert_eq!(loaded.find_timestamp(1_000 + from, 0, RECORDS).unwrap(), Some((from, 1_000 + from)));
    }
    assert_eq!(loaded.max_timestamp().unwrap(), Some(1_000 + RECORDS - 1));
    storage.shutdown_clean().unwrap();
    sim.disk.kill();
}

#[test]
fn damaged_indexes_are_made_anew() {
    for file in ["00000000000000000000.index", "00000000000000000000.timeindex", "end.checkpoint"] {
        let sim = Sim::new(1);
        let info = sealed(&sim);
        let path = file_path(&name(0, 1, 0), file);
        let before = sim.disk.read(&path, 1 << 20).unwrap();
        for bit in (0..before.len() as u64 * 8).step_by(7) {
            sim.disk.flip_bit(&path, bit).unwrap();
            check_loaded(&sim, info);
            assert_mended(&sim, file, &before);
        }
        sim.disk.remove_file(&path).unwrap();
        check_loaded(&sim, info);
        assert_mended(&sim, file, &before);
        sim.disk.overwrite(&path, &before[..before.len() / 2]).unwrap();
        check_loaded(&sim, info);
    }
}

fn assert_mended(sim: &Sim, file: &str, before: &[u8]) {
    let after = sim.disk.read(&file_path(&name(0, 1, 0), file), 1 << 20).unwrap();
    // A checkpoint also says what it knows about durability, which is more now.
    assert!(after == before || file == "end.checkpoint" && after.len() == before.len(), "{file}");
}

#[test]
fn damage_to_data_is_found_by_verifying_and_never_hidden() {
    let sim = Sim::new(1);
    let info = sealed(&sim);
    let path = log_path(&name(0, 1, 0));
    let before = sim.disk.read(&path, 1 << 20).unwrap();
    for bit in (0..before.len() as u64 * 8).step_by(1_003) {
        sim.disk.flip_bit(&path, bit).unwrap();
        let storage = open(&sim);
        let loaded = storage.load(name(0, 1, 0), info.end, info.bytes, info.crc);
        assert!(matches!(loaded.verify(), Err(StorageError::Corrupt(_))));
        // Reads give the bytes as they are, or say that the headers do not fit; they never end early.
        match read_all(&loaded, 2_000) {
            Ok(bytes) => assert_eq!(bytes.len(), before.len()),
            Err(error) => assert!(matches!(error, StorageError::Corrupt(_)), "{error}"),
        }
        sim.disk.kill();
        sim.disk.flip_bit(&path, bit).unwrap();
    }
}

#[test]
fn damage_in_the_open_tail_is_reported_and_the_file_left_alone() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let segment = create(&storage, name(0, 1, 0));
    fill(&segment, RECORDS, 400);
    sim.disk.kill();
    let path = log_path(&name(0, 1, 0));
    let before = sim.disk.read(&path, 1 << 20).unwrap();
    let last = before.len() as u64 * 8 * (RECORDS as u64 - 1) / RECORDS as u64;
    for bit in (0..last).step_by(997) {
        sim.disk.flip_bit(&path, bit).unwrap();
        let damaged = sim.disk.read(&path, 1 << 20).unwrap();
        let error = recover(&open(&sim), &name(0, 1, 0)).unwrap_err();
        let StorageError::Corrupt(corruption) = error else { panic!("bit {bit}: {error}") };
        let batch_len = before.len() as u64 / RECORDS as u64;
        assert!(corruption.position.abs_diff(bit / 8) <= batch_len + 10, "bit {bit}: {corruption}");
        assert_eq!(sim.disk.read(&path, 1 << 20).unwrap(), damaged);
        sim.disk.kill();
        let advice = format!("truncate -s {} '{}'", corruption.position, path.display());
        assert!(corruption.reason.contains(&advice), "{corruption}");
        sim.disk.open(&path, OpenMode::Existing).unwrap().set_len(corruption.position).unwrap();
        let left = recover(&open(&sim), &name(0, 1, 0)).unwrap().0.segment.end();
        assert_eq!(left, batches(&before[..corruption.position as usize]).len() as i64);
        assert!(left < RECORDS);
        sim.disk.kill();
        sim.disk.overwrite(&path, &before).unwrap();
    }
    assert_eq!(recover(&open(&sim), &name(0, 1, 0)).unwrap().0.segment.end(), RECORDS);
}

#[test]
fn damaged_checkpoints_cost_time_only() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let segment = create(&storage, name(0, 1, 0));
    fill(&segment, 20, 400);
    segment.checkpoint(Bytes::from_static(b"at 20"));
    storage.shutdown_clean().unwrap();
    sim.disk.kill();
    let path = file_path(&name(0, 1, 0), "even.checkpoint");
    let length = sim.disk.read(&path, 1 << 20).unwrap().len() as u64;
    for bit in 0..length * 8 {
        sim.disk.flip_bit(&path, bit).unwrap();
        let storage = open(&sim);
        let (recovered, replayed) = recover(&storage, &name(0, 1, 0)).unwrap();
        assert_eq!((recovered.segment.end(), recovered.snapshot_missing), (20, false));
        assert_eq!((replayed.snapshots, replayed.offsets.len()), (vec![b"at base".to_vec()], 20));
        storage.shutdown_clean().unwrap();
        sim.disk.kill();
        sim.disk.flip_bit(&path, bit).unwrap();
    }
    let base = file_path(&name(0, 1, 0), "base.checkpoint");
    sim.disk.flip_bit(&base, 100).unwrap();
    sim.disk.flip_bit(&path, 100).unwrap();
    let (recovered, replayed) = recover(&open(&sim), &name(0, 1, 0)).unwrap();
    assert_eq!((recovered.segment.end(), recovered.snapshot_missing), (20, true));
    assert_eq!((replayed.snapshots.len(), replayed.offsets.len()), (0, 20));
}

#[test]
fn a_file_shorter_than_its_checkpoint_is_damage() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let segment = create(&storage, name(0, 1, 0));
    fill(&segment, 20, 400);
    segment.checkpoint(Bytes::from_static(b"at 20"));
    storage.shutdown_clean().unwrap();
    sim.disk.crash(CrashPolicy::LoseAll);
    let path = log_path(&name(0, 1, 0));
    let content = sim.disk.read(&path, 1 << 20).unwrap();
    sim.disk.overwrite(&path, &content[..content.len() - 1]).unwrap();
    assert!(matches!(recover(&open(&sim), &name(0, 1, 0)), Err(StorageError::Corrupt(_))));
}

#[test]
fn a_failing_read_says_so_and_fails_nothing_else() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let segment = create(&storage, name(0, 1, 0));
    fill(&segment, 20, 400);
    sim.disk.fail_read_after(0);
    assert!(matches!(segment.read(5, 20, 1_000, true), Err(StorageError::Io { .. })));
    assert_eq!(storage.state(), storage::StorageState::Writable);
    fill(&segment, 21, 400);
    assert_eq!(batches(&read_all(&segment, 1_000).unwrap()).len(), 21);
}
