//! Life of segments: create, append, seal, load, restart, remove.

use std::path::Path;
use std::sync::Arc;

use base::env::Disk;
use base::env::sim::{CrashPolicy, Sim};
use base::ids::{Generation, LeaderEpoch};
use bytes::Bytes;
use storage::{CreateSegment, SegmentName, Storage, StorageError};

use crate::common::*;

#[test]
fn k_3_02_appends_are_one_write_and_keep_every_batch() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let segment = create(&storage, name(0, 1, 100));
    let writes = sim.disk.counts().writes;
    let run: Vec<Vec<u8>> = (0..5).map(|i| batch(100 + i * 3, 3, 50, 1_000 + i)).collect();
    append(&segment, &run).unwrap();
    assert_eq!(sim.disk.counts().writes - writes, 1);
    assert_eq!((segment.base(), segment.end(), segment.durable_end()), (100, 115, 100));
    assert_eq!(read_all(&segment, 1).unwrap(), run.concat());
    assert_eq!(segment.bytes(), run.concat().len() as u64);
    assert_eq!(segment.max_timestamp().unwrap(), Some(1_004));
}

#[test]
fn what_does_not_belong_is_refused_and_nothing_is_written() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let segment = create(&storage, name(0, 1, 100));
    append(&segment, &[batch(100, 2, 10, 1)]).unwrap();
    let gap = append(&segment, &[batch(102, 1, 10, 1), batch(104, 1, 10, 1)]);
    assert!(matches!(gap, Err(StorageError::OffsetGap { expected: 103, found: 104 })));
    let mut short = batch(102, 1, 10, 1);
    short.pop();
    assert!(matches!(append(&segment, &[short]), Err(StorageError::InvalidBatch { .. })));
    let mut other_epoch = batch(102, 1, 10, 1);
    other_epoch[15] = 9;
    assert!(matches!(append(&segment, &[other_epoch]), Err(StorageError::InvalidBatch { .. })));
    let mut far = batch(102, 1, 10, 1);
    far[23..27].copy_from_slice(&i32::MAX.to_be_bytes());
    assert!(matches!(append(&segment, &[far]), Err(StorageError::SegmentFull)));
    assert_eq!(segment.end(), 102);
    append(&segment, &[]).unwrap();
    append(&segment, &[batch(102, 1, 10, 1)]).unwrap();
    assert_eq!(batches(&read_all(&segment, 1 << 20).unwrap()).len(), 2);
}

#[test]
fn a_sealed_segment_is_loaded_by_what_the_seal_said() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let segment = create(&storage, name(0, 1, 0));
    fill(&segment, 40, 200);
    let content = read_all(&segment, 700).unwrap();
    let info = segment.seal().unwrap();
    assert_eq!((info.end, info.bytes), (40, content.len() as u64));
    assert_eq!(segment.seal().unwrap(), info);
    assert!(matches!(append(&segment, &[batch(40, 1, 1, 1)]), Err(StorageError::Sealed)));
    segment.verify().unwrap();
    let opens = sim.disk.counts().opens;
    let loaded = storage.load(name(0, 1, 0), info.end, info.bytes, info.crc);
    assert_eq!(sim.disk.counts().opens, opens, "loading reads nothing");
    loaded.verify().unwrap();
    assert_eq!(read_all(&loaded, 300).unwrap(), content);
    assert_eq!(loaded.max_timestamp().unwrap(), Some(1_039));
    assert_eq!((loaded.durable_end(), loaded.is_sealed()), (40, true));
    let wrong = storage.load(name(0, 1, 0), info.end, info.bytes, info.crc ^ 1);
    assert!(matches!(wrong.verify(), Err(StorageError::Corrupt(_))));
    let long = storage.load(name(0, 1, 0), info.end + 1, info.bytes + 100, info.crc);
    assert!(matches!(long.read(0, 41, 1, true), Err(StorageError::Corrupt(_))));
    let missing = storage.load(name(0, 2, 0), 5, 100, 0);
    assert!(matches!(missing.read(0, 5, 100, true), Err(StorageError::NotHere { .. })));
}

#[test]
fn a_clean_shutdown_needs_no_scan() {
    for policy in [None, Some(CrashPolicy::LoseAll), Some(CrashPolicy::Random)] {
        let sim = Sim::new(1);
        let storage = open(&sim);
        assert!(storage.last_shutdown_was_clean() && storage.same_boot());
        let segment = create(&storage, name(0, 1, 0));
        fill(&segment, 20, 300);
        segment.checkpoint(Bytes::from_static(b"at 20"));
        storage.shutdown_clean().unwrap();
        assert!(append(&segment, &[batch(20, 1, 1, 1)]).is_err());
        match policy {
            None => sim.disk.kill(),
            Some(policy) => sim.disk.crash(policy),
        }
        let storage = open(&sim);
        assert!(storage.last_shutdown_was_clean());
        assert_eq!(storage.same_boot(), policy.is_none());
        let (recovered, replayed) = recover(&storage, &name(0, 1, 0)).unwrap();
        assert_eq!((recovered.scanned_bytes, recovered.torn_bytes), (0, 0));
        assert_eq!((replayed.snapshots, replayed.offsets), (vec![b"at 20".to_vec()], vec![]));
        let segment = recovered.segment;
        assert_eq!((segment.end(), segment.durable_end()), (20, 20));
        let read = read_all(&segment, 1_000).unwrap();
        assert_eq!(batches(&read).len(), 20);
        fill(&segment, 30, 10);
        let info = segment.seal().unwrap();
        segment.verify().unwrap();
        assert_eq!(segment.max_timestamp().unwrap(), Some(1_029));
        assert_eq!(info.end, 30);
    }
}

#[test]
fn a_crash_replays_what_came_after_the_checkpoint() {
    simulate(1, async |sim| {
        let storage = open(&sim);
        let runner = tokio::spawn(storage.clone().run());
        let segment = create(&storage, name(0, 1, 0));
        fill(&segment, 20, 300);
        assert!(segment.bytes_since_checkpoint() > 6_000);
        segment.checkpoint(Bytes::from_static(b"at 20"));
        assert_eq!(segment.bytes_since_checkpoint(), 0);
        fill(&segment, 25, 300);
        storage.request_sync(&segment);
        pass(&sim, 2_000).await;
        fill(&segment, 28, 300);
        storage.request_sync(&segment);
        pass(&sim, 100).await;
        runner.abort();
        sim.disk.crash(CrashPolicy::KeepAll);
        let storage = open(&sim);
        assert!(!storage.last_shutdown_was_clean() && !storage.same_boot());
        let (recovered, replayed) = recover(&storage, &name(0, 1, 0)).unwrap();
        assert_eq!(replayed.snapshots, [b"at 20".to_vec()]);
        assert_eq!(replayed.offsets, (20..28).collect::<Vec<_>>());
        let read = read_all(&recovered.segment, 500).unwrap();
        assert_eq!(batches(&read).len(), 28);
        recovered.segment.seal().unwrap();
        recovered.segment.verify().unwrap();
    });
}

#[test]
fn a_kill_loses_nothing_even_unsynced() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let segment = create(&storage, name(0, 1, 0));
    fill(&segment, 20, 300);
    sim.disk.kill();
    let storage = open(&sim);
    assert!(!storage.last_shutdown_was_clean() && storage.same_boot());
    let (recovered, replayed) = recover(&storage, &name(0, 1, 0)).unwrap();
    assert_eq!(replayed.snapshots, [b"at base".to_vec()]);
    assert_eq!(replayed.offsets.len(), 20);
    sim.disk.crash(CrashPolicy::LoseAll);
    drop(recovered);
    let storage = open(&sim);
    let (recovered, _) = recover(&storage, &name(0, 1, 0)).unwrap();
    assert_eq!(recovered.segment.end(), 20, "what recovery vouched for is durable");
}

#[test]
fn checkpoints_nobody_synced_count_only_until_the_next_boot() {
    simulate(1, async |sim| {
        let storage = open(&sim);
        let runner = tokio::spawn(storage.clone().run());
        let segment = create(&storage, name(0, 1, 0));
        fill(&segment, 20, 300);
        segment.checkpoint(Bytes::from_static(b"at 20"));
        pass(&sim, 5_000).await;
        runner.abort();
        sim.disk.kill();
        let storage = open(&sim);
        let (recovered, replayed) = recover(&storage, &name(0, 1, 0)).unwrap();
        assert_eq!((recovered.scanned_bytes, replayed.snapshots), (0, vec![b"at 20".to_vec()]));
        sim.disk.crash(CrashPolicy::KeepAll);
        let storage = open(&sim);
        let (recovered, replayed) = recover(&storage, &name(0, 1, 0)).unwrap();
        assert_eq!(replayed.snapshots, [b"at base".to_vec()]);
        assert_eq!(replayed.offsets.len(), 20);
        // Nor may a later clean shutdown bring it back.
        fill(&recovered.segment, 22, 300);
        storage.shutdown_clean().unwrap();
        sim.disk.kill();
        let (_, replayed) = recover(&open(&sim), &name(0, 1, 0)).unwrap();
        assert_eq!(replayed.snapshots, [b"at base".to_vec()]);
    });
}

#[test]
fn a_refused_snapshot_leads_to_an_older_one() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let segment = create(&storage, name(0, 1, 0));
    fill(&segment, 5, 300);
    segment.checkpoint(Bytes::from_static(b"at 5"));
    storage.shutdown_clean().unwrap();
    sim.disk.kill();
    let storage = open(&sim);
    let mut replayed = Replayed::default();
    let mut refuse = |event: storage::Replay<'_>| {
        let refused = matches!(event, storage::Replay::Snapshot(b"at 5"));
        replayed.note(event) && !refused
    };
    let recovered = storage.recover(name(0, 1, 0), &[(EPOCH, 0)], &mut refuse).unwrap();
    assert!(!recovered.snapshot_missing);
    assert_eq!(replayed.snapshots, [b"at 5".to_vec(), b"at base".to_vec()]);
    assert_eq!(replayed.offsets, (0..5).collect::<Vec<_>>());
}

#[test]
fn sealed_segments_replay_from_their_base() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let segment = create(&storage, name(0, 1, 7));
    fill(&segment, 20, 300);
    let info = segment.seal().unwrap();
    let loaded = storage.load(name(0, 1, 7), info.end, info.bytes, info.crc);
    let mut replayed = Replayed::default();
    storage.replay(&loaded, &mut |event| replayed.note(event)).unwrap();
    assert_eq!(replayed.snapshots, [b"at base".to_vec()]);
    assert_eq!(replayed.offsets, (7..20).collect::<Vec<_>>());
}

#[test]
fn removed_segments_are_gone_at_once_and_deleted_behind() {
    simulate(1, async |sim| {
        let storage = open(&sim);
        let segment = create(&storage, name(0, 1, 0));
        fill(&segment, 5, 300);
        let other = create(&storage, name(0, 2, 5));
        fill(&other, 9, 10);
        storage.remove(&name(0, 1, 0)).unwrap();
        storage.remove(&name(0, 1, 0)).unwrap();
        assert!(!storage.holds(&name(0, 1, 0)) && storage.holds(&name(0, 2, 5)));
        assert_eq!(read_all(&segment, 100).unwrap().len() as u64, segment.bytes(), "reads that run finish");
        assert!(matches!(recover(&storage, &name(0, 1, 0)), Err(StorageError::NotHere { .. })));
        pass(&sim, 1_000).await;
        let trash = Path::new(DIR).join("trash");
        assert!(sim.disk.read_dir(&trash).unwrap().is_empty());
        storage.remove_partition("orders", name(0, 2, 5).partition).unwrap();
        pass(&sim, 1_000).await;
        assert!(!sim.disk.exists(&Path::new(DIR).join("topics/orders")));
        let again = create(&storage, name(0, 3, 0));
        fill(&again, 1, 1);
    });
}

#[test]
fn removal_that_was_interrupted_is_finished_later() {
    simulate(1, async |sim| {
        let storage = open(&sim);
        create(&storage, name(0, 1, 0));
        storage.remove(&name(0, 1, 0)).unwrap();
        sim.disk.kill();
        let storage = open(&sim);
        pass(&sim, 1_000).await;
        assert!(sim.disk.read_dir(&Path::new(DIR).join("trash")).unwrap().is_empty());
        drop(storage);
    });
}

#[test]
fn scanning_finds_every_segment_and_nothing_else() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let mut made: Vec<SegmentName> = Vec::new();
    for partition in 0..3 {
        for id in 0..2 {
            let mut name = name(partition, 10 + id, id as i64 * 5);
            name.topic = format!("topic-{partition}").into();
            name.generation = Generation(id as u32);
            create(&storage, name.clone());
            made.push(name);
        }
    }
    sim.disk.create_dir_all(&Path::new(DIR).join("topics/topic-0/lost+found")).unwrap();
    sim.disk.replace(&Path::new(DIR).join("topics/topic-1/0.note"), b"").unwrap();
    let mut found: Vec<SegmentName> = storage.scan().map(Result::unwrap).collect();
    found.sort_by_key(|name| (name.partition, name.id));
    assert_eq!(found, made);
}

#[test]
fn creating_again_begins_anew() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    fill(&create(&storage, name(0, 1, 0)), 5, 10);
    let again = create(&storage, name(0, 1, 0));
    assert_eq!((again.end(), again.bytes()), (0, 0));
    fill(&again, 2, 10);
    assert_eq!(batches(&read_all(&again, 100).unwrap()).len(), 2);
}

#[test]
fn segments_of_any_epoch_take_any_epoch() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let create = CreateSegment { leader_epoch: LeaderEpoch(-1), snapshot: Bytes::new() };
    let segment = storage.create(name(0, 1, 0), create).unwrap();
    for epoch in [1u8, 2, 9] {
        let mut bytes = batch(segment.end(), 1, 10, 5);
        bytes[15] = epoch;
        append(&segment, &[bytes]).unwrap();
    }
    sim.disk.kill();
    let storage = open(&sim);
    let recovered = storage.recover(name(0, 1, 0), &[], &mut |_| true).unwrap();
    assert_eq!(recovered.segment.end(), 3);
}

#[test]
fn a_directory_is_one_process_and_one_format() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let id = storage.id();
    assert!(matches!(try_open(&sim), Err(StorageError::Unusable { .. })), "it is locked");
    drop(storage);
    assert_eq!(open(&sim).id(), id);
    let properties = Path::new(DIR).join("storage.properties");
    let text = sim.disk.read(&properties, 4096).unwrap();
    let newer = String::from_utf8(text.clone()).unwrap().replace("format=1", "format=2");
    sim.disk.overwrite(&properties, newer.as_bytes()).unwrap();
    let refused = try_open(&sim).unwrap_err().to_string();
    assert!(refused.contains("format 2") && refused.contains("use the version"), "{refused}");
    sim.disk.overwrite(&properties, b"format=1\n").unwrap();
    assert!(try_open(&sim).is_err());
    sim.disk.overwrite(&properties, &text).unwrap();
    assert_eq!(open(&sim).id(), id);
    sim.disk.remove_file(&properties).unwrap();
    create_topic_dir(&sim);
    assert!(try_open(&sim).unwrap_err().to_string().contains("storage.properties"));
}

fn create_topic_dir(sim: &Sim) {
    sim.disk.create_dir_all(&Path::new(DIR).join("topics/orders")).unwrap();
}

#[test]
fn a_log_directory_of_kafka_is_refused() {
    let sim = Sim::new(1);
    sim.disk.create_dir_all(Path::new(DIR)).unwrap();
    sim.disk.replace(&Path::new(DIR).join("meta.properties"), b"version=1\n").unwrap();
    let refused = try_open(&sim).unwrap_err().to_string();
    assert!(refused.contains("Apache Kafka"), "{refused}");
}

#[test]
fn two_storages_have_two_ids() {
    let sim = Sim::new(1);
    let first = open(&sim);
    let second = Storage::open(sim.env.clone(), "/data/other".into(), options()).unwrap();
    assert_ne!(first.id(), second.id());
    assert_eq!(Arc::strong_count(&second), 1);
}

#[test]
fn partitions_nobody_uses_cost_no_files() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let steps = sim.disk.counts().steps;
    let idle = CreateSegment { leader_epoch: EPOCH, snapshot: Bytes::new() };
    let segment = storage.create(name(0, 1, 0), idle.clone()).unwrap();
    assert_eq!(sim.disk.counts().steps, steps);
    assert!(!storage.holds(&name(0, 1, 0)));
    assert!(segment.read(0, 9, 100, true).unwrap().exhausted);
    assert_eq!(segment.max_timestamp().unwrap(), None);
    segment.checkpoint(Bytes::from_static(b"at 0"));
    storage.request_sync(&segment);
    let sealed = storage.create(name(1, 2, 0), idle).unwrap().seal().unwrap();
    assert_eq!((sealed.end, sealed.bytes), (0, 0));
    fill(&segment, 2, 10);
    assert!(storage.holds(&name(0, 1, 0)));
    storage.shutdown_clean().unwrap();
    sim.disk.kill();
    let (recovered, replayed) = recover(&open(&sim), &name(0, 1, 0)).unwrap();
    assert_eq!((recovered.segment.end(), recovered.snapshot_missing), (2, false));
    assert_eq!((replayed.snapshots, replayed.offsets), (vec![vec![]], vec![0, 1]));
}

/// A power cut can take a removal back by halves: the directory is in its old place again, and empty.
#[test]
fn directories_in_which_nothing_is_left_are_removed_behind_a_scan() {
    let sim = Sim::new(1);
    let storage = open(&sim);
    let segment = create(&storage, name(0, 1, 0));
    fill(&segment, 1, 10);
    let topics = Path::new(DIR).join("topics");
    let emptied = format!("1.{}", segment.name().partition.topic_id);
    sim.disk.create_dir_all(&topics.join("orders").join(&emptied)).unwrap();
    sim.disk.create_dir_all(&topics.join("gone").join(&emptied)).unwrap();
    sim.disk.create_dir_all(&topics.join("bare")).unwrap();
    let mut scan = storage.scan();
    assert_eq!(scan.by_ref().count(), 1);
    scan.remove_empty();
    for (dir, left) in [(topics.clone(), "orders"), (topics.join("orders"), &*format!("0.{}", &emptied[2..]))]
    {
        let names: Vec<_> = sim.disk.read_dir(&dir).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, [left]);
    }
    fill(&segment, 2, 10);
}
