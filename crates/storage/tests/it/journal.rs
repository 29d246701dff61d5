//! The sync journal: rounds of many small appends that one sync makes durable.

use std::path::Path;
use std::sync::Arc;

use base::env::sim::{CrashPolicy, Sim};
use base::env::{Disk, OpenMode};
use storage::{Segment, Storage, StorageError, StorageState};

use crate::common::*;

const COUNT: i32 = 20;
/// Room for one record in each of the segments is a small part of a half.
const RECORD_BYTES: usize = 500;

fn journal_path() -> &'static Path {
    Path::new("/data/log/sync-journal")
}

/// Segments with one durable record each, and a journal that is ready.
async fn begin(sim: &Sim, storage: &Arc<Storage>) -> Vec<Arc<Segment>> {
    let segments: Vec<_> = (0..COUNT).map(|id| create(storage, name(id, id as u64, 0))).collect();
    round(sim, storage, &segments, 1).await;
    assert!(sim.disk.exists(journal_path()));
    segments
}

/// Appends up to `end` in each, and waits for the round.
async fn round(sim: &Sim, storage: &Arc<Storage>, segments: &[Arc<Segment>], end: i64) {
    for segment in segments {
        fill(segment, end, RECORD_BYTES);
        storage.request_sync(segment);
    }
    pass(sim, 100).await;
    assert!(segments.iter().all(|segment| segment.durable_end() == end));
}

/// Opens it after a cut and looks for everything below `end`.
fn check(sim: &Sim, ids: std::ops::Range<i32>, end: i64) -> Arc<Storage> {
    let storage = open(sim);
    for id in ids {
        let (recovered, replayed) = recover(&storage, &name(id, id as u64, 0)).unwrap();
        assert_eq!(recovered.segment.end(), end, "partition {id}");
        assert_eq!(replayed.snapshots[0], b"at base");
        batches(&read_all(&recovered.segment, 10_000).unwrap());
    }
    storage
}

#[test]
fn one_sync_makes_many_appends_durable() {
    simulate(1, async |sim| {
        let storage = open(&sim);
        let segments = begin(&sim, &storage).await;
        let before = sim.disk.counts();
        round(&sim, &storage, &segments, 2).await;
        let after = sim.disk.counts();
        let rounds = after.file_syncs - before.file_syncs;
        assert!((1..=2).contains(&rounds) && after.full_syncs == before.full_syncs, "{rounds} syncs");
        drop((segments, storage));
        sim.disk.crash(CrashPolicy::LoseAll);
        check(&sim, 0..COUNT, 2);
    });
}

#[test]
fn a_segment_that_was_never_synced_is_made_again_with_its_state() {
    simulate(1, async |sim| {
        let storage = open(&sim);
        let _old = begin(&sim, &storage).await;
        let new: Vec<_> = (COUNT..2 * COUNT).map(|id| create(&storage, name(id, id as u64, 0))).collect();
        let before = sim.disk.counts();
        round(&sim, &storage, &new, 3).await;
        assert_eq!(sim.disk.counts().dir_syncs, before.dir_syncs);
        drop((new, storage));
        sim.disk.crash(CrashPolicy::LoseAll);
        check(&sim, COUNT..2 * COUNT, 3);
    });
}

#[test]
fn a_full_half_is_used_again_once_its_segments_are_synced() {
    simulate(1, async |sim| {
        let storage = open(&sim);
        let segments = begin(&sim, &storage).await;
        // Ten thousand bytes and more a round: the halves change hands several times.
        let end = 60;
        for end in 2..=end {
            round(&sim, &storage, &segments, end).await;
        }
        let length = sim.disk.open(journal_path(), OpenMode::Read).unwrap().len().unwrap();
        assert_eq!(length, 256 << 10);
        drop((segments, storage));
        sim.disk.crash(CrashPolicy::LoseAll);
        check(&sim, 0..COUNT, end);
    });
}

#[test]
fn a_life_without_a_journal_applies_the_one_it_finds() {
    simulate(1, async |sim| {
        let storage = open(&sim);
        let segments = begin(&sim, &storage).await;
        round(&sim, &storage, &segments, 2).await;
        drop((segments, storage));
        sim.disk.crash(CrashPolicy::LoseAll);
        drop(open_with(&sim, no_journal()).unwrap());
        assert!(!sim.disk.exists(journal_path()));
        sim.disk.crash(CrashPolicy::LoseAll);
        check(&sim, 0..COUNT, 2);
    });
}

#[test]
fn a_removed_segment_does_not_come_back_for_good() {
    simulate(1, async |sim| {
        let storage = open(&sim);
        let mut segments = begin(&sim, &storage).await;
        round(&sim, &storage, &segments, 2).await;
        let removed = segments.remove(0);
        storage.remove(removed.name()).unwrap();
        round(&sim, &storage, &segments, 3).await;
        let gone = removed.name().clone();
        drop((removed, segments, storage));
        sim.disk.crash(CrashPolicy::Random);
        let storage = check(&sim, 1..COUNT, 3);
        // What no chain lists is found and removed as ever.
        let strays = storage.scan().filter(|found| found.as_ref().unwrap().id == gone.id).count();
        assert!(strays <= 1);
        storage.remove(&gone).unwrap();
    });
}

#[test]
fn damage_between_blocks_is_told_and_nothing_is_taken_for_the_end() {
    simulate(1, async |sim| {
        let storage = open(&sim);
        let segments = begin(&sim, &storage).await;
        for end in 2..6 {
            round(&sim, &storage, &segments, end).await;
        }
        drop((segments, storage));
        sim.disk.crash(CrashPolicy::LoseAll);
        let file = sim.disk.open(journal_path(), OpenMode::Existing).unwrap();
        file.write_all_at(&[std::io::IoSlice::new(b"rot")], 4096 + 200).unwrap();
        file.sync_data().unwrap();
        let error = try_open(&sim).unwrap_err();
        assert!(matches!(&error, StorageError::Corrupt(_)), "{error}");
        assert!(error.to_string().contains("remove the file"), "{error}");
        sim.disk.remove_file(journal_path()).unwrap();
        open(&sim);
    });
}

/// A round of several blocks is synced once: a power cut may leave any of them, in any order.
#[test]
fn a_round_of_several_blocks_may_be_torn_in_its_first() {
    simulate(1, async |sim| {
        let options = || storage::StorageOptions { sync_journal_bytes: 32 << 20, ..options() };
        let storage = open_with(&sim, options()).unwrap();
        let segments: Vec<_> = (0..60).map(|id| create(&storage, name(id, id as u64, 0))).collect();
        round(&sim, &storage, &segments, 1).await;
        for segment in &segments {
            fill(segment, 2, 55_000);
            storage.request_sync(segment);
        }
        pass(&sim, 100).await;
        drop((segments, storage));
        sim.disk.crash(CrashPolicy::LoseAll);
        let file = sim.disk.open(journal_path(), OpenMode::Existing).unwrap();
        let mut head = [0; 4];
        let is_block = |page: &u64| file.read_exact_at(&mut head, page * 4096).is_ok() && &head == b"VSJ1";
        let blocks: Vec<u64> = (1..4096).filter(is_block).collect();
        assert!(blocks.len() >= 2, "{blocks:?}");
        let first_of_round = blocks[blocks.len() - 2];
        file.write_all_at(&[std::io::IoSlice::new(&[0; 4096])], first_of_round * 4096).unwrap();
        file.sync_data().unwrap();
        open_with(&sim, options()).unwrap();
    });
}

#[test]
fn an_error_of_the_journal_fails_the_storage_and_tells_nobody_it_was_durable() {
    simulate(1, async |sim| {
        let storage = open(&sim);
        let segments = begin(&sim, &storage).await;
        let heard: Vec<_> = segments.iter().map(|segment| Heard::on(segment)).collect();
        sim.disk.fail_sync_after(0);
        for segment in &segments {
            fill(segment, 2, RECORD_BYTES);
            storage.request_sync(segment);
        }
        pass(&sim, 100).await;
        assert!(matches!(storage.state(), StorageState::Failed(_)));
        assert!(heard.iter().all(|heard| heard.end() < 2 && !heard.failed.lock().is_empty()));
        assert!(segments.iter().all(|segment| segment.durable_end() == 1));
    });
}

/// Sealed segments are not looked at when a log is opened: what of them was durable in the journal alone must be in
/// their files before it is void, also where a sync of those files failed in the same boot.
#[test]
fn what_a_failed_life_left_to_the_journal_is_written_again() {
    simulate(1, async |sim| {
        let storage = open(&sim);
        let segments = begin(&sim, &storage).await;
        round(&sim, &storage, &segments, 2).await;
        let info = segments[0].seal().unwrap();
        sim.disk.fail_sync_after(0);
        fill(&segments[1], 3, RECORD_BYTES);
        storage.request_sync(&segments[1]);
        pass(&sim, 100).await;
        drop((segments, storage));
        sim.disk.kill();
        drop(open(&sim));
        sim.disk.crash(CrashPolicy::LoseAll);
        let storage = open(&sim);
        let sealed = storage.load(name(0, 0, 0), info.end, info.bytes, info.crc);
        sealed.verify().unwrap();
    });
}

#[test]
fn without_room_there_is_no_journal_and_everything_goes_on() {
    simulate(1, async |sim| {
        // Room for the segments and the reserve, not for the journal.
        let options = || storage::StorageOptions { reserve_bytes: 0, ..options() };
        sim.disk.set_capacity(64 << 20);
        let storage = open_with(&sim, options()).unwrap();
        let full = sim.disk.open(Path::new("/data/other"), OpenMode::CreateNew).unwrap();
        full.allocate(0, 1).unwrap();
        full.write_all_at(&[std::io::IoSlice::new(&vec![1; (64 << 20) - (150 << 10)])], 0).unwrap();
        let segments: Vec<_> = (0..COUNT).map(|id| create(&storage, name(id, id as u64, 0))).collect();
        round(&sim, &storage, &segments, 1).await;
        round(&sim, &storage, &segments, 2).await;
        assert!(!sim.disk.exists(journal_path()));
        assert!(!matches!(storage.state(), StorageState::Failed(_)));
        drop((segments, storage));
        sim.disk.crash(CrashPolicy::LoseAll);
        check(&sim, 0..COUNT, 2);
    });
}
