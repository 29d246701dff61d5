//! Copies of segments: appended as they come from the leader, and cut where the segment was sealed.

use base::env::sim::{CrashPolicy, Sim};
use storage::{Replay, StorageError};

use crate::common::*;

#[test]
fn many_batches_are_appended_as_the_bytes_they_are() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let (one, other) = (create(&storage, name(0, 1, 100)), create(&storage, name(1, 2, 100)));
    let run: Vec<Vec<u8>> = (0..50).map(|i| batch(100 + i * 3, 3, 50, 1_000 + i)).collect();
    append(&one, &run).unwrap();
    let writes = sim.disk.counts().writes;
    other.append_raw(&run.concat()).unwrap();
    assert_eq!(sim.disk.counts().writes - writes, 1);
    assert_eq!(one.seal().unwrap(), other.seal().unwrap());
    assert_eq!(read_all(&other, 1 << 20).unwrap(), run.concat());
}

#[test]
fn of_bytes_that_are_no_batches_nothing_is_written() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let segment = create(&storage, name(0, 1, 100));
    let (first, second) = (batch(100, 2, 10, 1), batch(102, 1, 10, 1));
    let whole = [&first[..], &second].concat();
    let cut = segment.append_raw(&whole[..whole.len() - 1]);
    assert!(matches!(cut, Err(StorageError::InvalidBatch { .. })));
    let gap = segment.append_raw(&[&first[..], &batch(103, 1, 10, 1)].concat());
    assert!(matches!(gap, Err(StorageError::OffsetGap { expected: 102, found: 103 })));
    assert_eq!((segment.end(), segment.bytes()), (100, 0));
    segment.append_raw(&whole).unwrap();
    assert_eq!(segment.end(), 103);
}

/// Whether a power cut or nothing comes between, a cut copy is the copy that never had more.
#[test]
fn a_cut_copy_equals_one_that_never_had_more() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let storage = open(&sim);
        let (longer, exact) = (create(&storage, name(0, 1, 100)), create(&storage, name(1, 2, 100)));
        fill(&exact, 140, 300);
        fill(&longer, 180, 300);
        storage.request_sync(&longer);
        longer.checkpoint(bytes::Bytes::from_static(b"state"));
        storage.keep_house();
        let cut = longer.seal_at(140).unwrap();
        assert_eq!(cut, exact.seal().unwrap());
        assert_eq!((longer.end(), longer.durable_end(), longer.bytes()), (140, 140, cut.bytes));
        assert_eq!(read_all(&longer, 700).unwrap(), read_all(&exact, 700).unwrap());
        assert_eq!(longer.seal_at(140).unwrap(), cut);
        assert!(matches!(longer.seal_at(120), Err(StorageError::Sealed)));
        drop((longer, exact, storage));
        sim.disk.crash(CrashPolicy::Random);
        let storage = open(&sim);
        let loaded = storage.load(name(0, 1, 100), cut.end, cut.bytes, cut.crc);
        loaded.verify().unwrap();
        // An operator's look at the file finds its end as well, if the journal brought nothing back.
        let recovered = storage.recover(name(0, 1, 100), &[(EPOCH, 100)], &mut |event| {
            !matches!(event, Replay::Snapshot(b"state"))
        });
        assert!(recovered.unwrap().segment.end() >= 140);
    }
}

/// A copy that was away when the end was settled has more than was sealed, and is not sealed itself.
#[test]
fn what_a_copy_has_behind_the_end_that_others_settled_is_cut_off() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let (longer, exact) = (create(&storage, name(0, 1, 100)), create(&storage, name(1, 2, 100)));
    fill(&exact, 140, 300);
    fill(&longer, 180, 300);
    let sealed = exact.seal().unwrap();
    let length = longer.bytes();
    drop(longer);
    let loaded = storage.load(name(0, 1, 100), sealed.end, sealed.bytes, sealed.crc);
    loaded.verify().unwrap();
    loaded.cut_rest().unwrap();
    loaded.cut_rest().unwrap();
    assert!(sealed.bytes < length);
    let recovered = storage.recover(name(0, 1, 100), &[(EPOCH, 100)], &mut |_| true).unwrap();
    assert_eq!((recovered.segment.end(), recovered.segment.bytes()), (140, sealed.bytes));
    loaded.verify().unwrap();
}

#[test]
fn only_the_end_of_a_batch_can_be_the_end() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let segment = create(&storage, name(0, 1, 100));
    for base in [100, 103, 106] {
        append(&segment, &[batch(base, 3, 20, 1)]).unwrap();
    }
    assert!(matches!(segment.seal_at(104), Err(StorageError::InvalidBatch { .. })));
    assert!(matches!(segment.seal_at(110), Err(StorageError::OffsetGap { expected: 109, found: 110 })));
    assert!(matches!(segment.seal_at(99), Err(StorageError::OffsetGap { .. })));
    append(&segment, &[batch(109, 1, 20, 1)]).unwrap();
    let info = segment.seal_at(100).unwrap();
    assert_eq!((info.end, info.bytes, info.crc), (100, 0, 0));
    assert!(matches!(append(&segment, &[batch(100, 1, 20, 1)]), Err(StorageError::Sealed)));
}
