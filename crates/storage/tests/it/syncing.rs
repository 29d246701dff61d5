//! Sync rounds and what follows from a failed one.

use base::env::sim::{CrashPolicy, Sim};
use storage::{Storage, StorageError, StorageState};

use crate::common::*;

#[test]
fn a_round_makes_durable_what_was_appended_before_it() {
    simulate(1, async |sim| {
        let storage = open(&sim);
        let segment = create(&storage, name(0, 1, 0));
        let heard = Heard::on(&segment);
        fill(&segment, 3, 10);
        storage.request_sync(&segment);
        storage.request_sync(&segment);
        assert_eq!(segment.durable_end(), 0);
        pass(&sim, 50).await;
        assert_eq!((segment.durable_end(), heard.durable.lock().clone()), (3, vec![3]));
        let syncs = sim.disk.counts();
        fill(&segment, 7, 10);
        storage.request_sync(&segment);
        pass(&sim, 50).await;
        assert_eq!(heard.end(), 7);
        let now = sim.disk.counts();
        assert_eq!(now.file_syncs - syncs.file_syncs, 1, "names are synced once");
        assert_eq!(now.dir_syncs, syncs.dir_syncs);
    });
}

#[test]
fn few_files_are_synced_each_and_many_at_once() {
    simulate(1, async |sim| {
        let storage = open_with(&sim, no_journal()).unwrap();
        let segments: Vec<_> = (0..200).map(|id| create(&storage, name(id, id as u64, 0))).collect();
        let heard: Vec<_> = segments.iter().map(|segment| Heard::on(segment)).collect();
        for segment in &segments {
            fill(segment, 2, 10);
            storage.request_sync(segment);
        }
        pass(&sim, 100).await;
        let counts = sim.disk.counts();
        assert!(counts.full_syncs >= 1 && counts.file_syncs < 20, "{counts:?}");
        assert!(heard.iter().all(|heard| heard.end() == 2));
        for segment in &segments[..20] {
            fill(segment, 3, 10);
            storage.request_sync(segment);
        }
        pass(&sim, 100).await;
        let after = sim.disk.counts();
        assert_eq!((after.full_syncs, after.file_syncs), (counts.full_syncs, counts.file_syncs + 20));
        assert!(heard[..20].iter().all(|heard| heard.end() == 3));
    });
}

#[test]
fn k_3_11_a_failed_sync_is_for_good() {
    for many in [false, true] {
        simulate(1, async |sim| {
            let storage = open(&sim);
            let count = if many { 100 } else { 5 };
            let segments: Vec<_> = (0..count).map(|id| create(&storage, name(id, id as u64, 0))).collect();
            let heard: Vec<_> = segments.iter().map(|segment| Heard::on(segment)).collect();
            for segment in &segments {
                fill(segment, 1, 10);
                storage.request_sync(segment);
            }
            pass(&sim, 50).await;
            let content = read_all(&segments[0], 100).unwrap();
            sim.disk.fail_sync_after(0);
            for segment in &segments {
                fill(segment, 2, 10);
                storage.request_sync(segment);
            }
            pass(&sim, 50).await;
            assert!(matches!(storage.state(), StorageState::Failed(_)));
            let failed = heard.iter().filter(|heard| !heard.failed.lock().is_empty()).count();
            assert!(failed > 0 && (!many || failed == 100), "{failed}");
            let syncs = sim.disk.counts();
            assert!(matches!(append(&segments[0], &[batch(2, 1, 1, 1)]), Err(StorageError::Failed { .. })));
            for segment in &segments {
                storage.request_sync(segment);
            }
            let create_error = storage.create(
                name(9_999, 9_999, 0),
                storage::CreateSegment { leader_epoch: EPOCH, snapshot: bytes::Bytes::new() },
            );
            assert!(matches!(create_error, Err(StorageError::Failed { .. })));
            assert!(storage.shutdown_clean().is_err());
            pass(&sim, 5_000).await;
            let now = sim.disk.counts();
            assert_eq!((now.file_syncs, now.full_syncs), (syncs.file_syncs, syncs.full_syncs), "no retry");
            assert!(heard.iter().all(|heard| !heard.failed.lock().is_empty()));
            assert_eq!(segments[0].durable_end(), 1);
            assert!(read_all(&segments[0], 100).unwrap().starts_with(&content), "reads go on");
            let late = Heard::on(&segments[1]);
            assert_eq!(late.failed.lock().len(), 1);
        });
    }
}

/// The kernel takes pages for clean whose write-back failed: the life after a failed sync reads them, and no sync
/// of its own writes them, unless they are written again.
#[test]
fn what_a_failed_sync_left_in_the_cache_is_written_again() {
    for crash_between in [false, true] {
        simulate(1, async |sim| {
            let storage = open(&sim);
            let segment = create(&storage, name(0, 1, 0));
            fill(&segment, 3, 10);
            storage.request_sync(&segment);
            pass(&sim, 50).await;
            sim.disk.fail_sync_after(0);
            fill(&segment, 5, 2_000);
            storage.request_sync(&segment);
            pass(&sim, 50).await;
            assert!(matches!(storage.state(), StorageState::Failed(_)));
            drop((segment, storage));
            sim.disk.kill();
            if crash_between {
                // A life that came to no recovery passes the word on.
                drop(open(&sim));
                sim.disk.kill();
            }
            let storage = open(&sim);
            let (recovered, _) = recover(&storage, &name(0, 1, 0)).unwrap();
            assert_eq!(recovered.segment.end(), 5, "the cache has it");
            let heard = Heard::on(&recovered.segment);
            fill(&recovered.segment, 7, 2_000);
            storage.request_sync(&recovered.segment);
            pass(&sim, 50).await;
            assert_eq!(heard.end(), 7);
            drop((recovered, storage));
            sim.disk.crash(CrashPolicy::LoseAll);
            let (recovered, _) = recover(&open(&sim), &name(0, 1, 0)).unwrap();
            assert_eq!(recovered.segment.end(), 7);
        });
    }
}

#[test]
fn a_failed_write_is_for_good_too() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let segment = create(&storage, name(0, 1, 0));
    fill(&segment, 3, 10);
    sim.disk.fail_write_after(0, false);
    assert!(matches!(append(&segment, &[batch(3, 1, 500, 1)]), Err(StorageError::Failed { .. })));
    assert_eq!(segment.end(), 3);
    assert!(matches!(storage.state(), StorageState::Failed(_)));
    assert_eq!(batches(&read_all(&segment, 1_000).unwrap()).len(), 3);
    sim.disk.kill();
    let (recovered, _) = recover(&open(&sim), &name(0, 1, 0)).unwrap();
    assert_eq!(recovered.segment.end(), 3);
}

#[test]
fn one_directory_fails_alone() {
    simulate(1, async |sim| {
        let first = open(&sim);
        let second = Storage::open(sim.env.clone(), "/other/log".into(), options()).unwrap();
        let (a, b) = (create(&first, name(0, 1, 0)), create(&second, name(1, 2, 0)));
        let heard = Heard::on(&b);
        fill(&a, 1, 10);
        sim.disk.fail_sync_after(0);
        first.request_sync(&a);
        pass(&sim, 50).await;
        assert!(matches!(first.state(), StorageState::Failed(_)));
        fill(&b, 1, 10);
        second.request_sync(&b);
        pass(&sim, 50).await;
        assert_eq!((heard.end(), second.state()), (1, StorageState::Writable));
    });
}

#[test]
fn seals_and_removals_do_not_disturb_a_round() {
    simulate(1, async |sim| {
        let storage = open(&sim);
        let (sealed, removed) = (create(&storage, name(0, 1, 0)), create(&storage, name(1, 2, 0)));
        let heard = Heard::on(&sealed);
        fill(&sealed, 4, 10);
        fill(&removed, 4, 10);
        storage.request_sync(&sealed);
        storage.request_sync(&removed);
        let info = sealed.seal().unwrap();
        storage.remove(removed.name()).unwrap();
        pass(&sim, 50).await;
        assert_eq!((heard.end(), storage.state()), (info.end, StorageState::Writable));
        sim.disk.crash(CrashPolicy::LoseAll);
        let storage = open(&sim);
        let loaded = storage.load(name(0, 1, 0), info.end, info.bytes, info.crc);
        loaded.verify().unwrap();
        assert_eq!(batches(&read_all(&loaded, 1_000).unwrap()).len(), 4);
    });
}

/// Nothing is there to be synced before the first append; what that makes must be synced all the same.
#[test]
fn names_made_after_a_sync_of_everything_are_synced() {
    simulate(1, async |sim| {
        let storage = open_with(&sim, no_journal()).unwrap();
        let create = |id| {
            let create = storage::CreateSegment { leader_epoch: EPOCH, snapshot: bytes::Bytes::new() };
            storage.create(name(id, id as u64, 0), create).unwrap()
        };
        let segments: Vec<_> = (0..100).map(create).collect();
        for end in [0, 1] {
            for segment in &segments {
                fill(segment, end, 10);
                storage.request_sync(segment);
            }
            pass(&sim, 100).await;
        }
        assert!(segments.iter().all(|segment| segment.durable_end() == 1));
        drop((segments, storage));
        sim.disk.crash(CrashPolicy::LoseAll);
        let storage = open_with(&sim, no_journal()).unwrap();
        for id in 0..100 {
            assert_eq!(recover(&storage, &name(id, id as u64, 0)).unwrap().0.segment.end(), 1);
        }
    });
}
