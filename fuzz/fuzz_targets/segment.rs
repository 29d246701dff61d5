//! The files of a segment with some bytes changed, cut or replaced: log, indexes, checkpoints. Opening it as the
//! open segment or as a sealed one, reading and searching end in values or errors.

#![no_main]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::batch::{BatchBuilder, HEADER_LEN};
use base::env::sim::Sim;
use base::env::{Disk, OpenMode};
use base::ids::{Generation, LeaderEpoch, Offset, PartitionId, SegmentId, TopicPartition, Uuid};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use storage::{Batch, CreateSegment, SealedInfo, SegmentName, Storage, StorageOptions};

const EPOCH: LeaderEpoch = LeaderEpoch(3);
const BATCHES: Offset = 8;
const DIR: &str = "/data/log";
const FILES: [&str; 7] = [
    "00000000000000000005.log",
    "00000000000000000005.index",
    "00000000000000000005.timeindex",
    "base.checkpoint",
    "even.checkpoint",
    "odd.checkpoint",
    "end.checkpoint",
];

fn name() -> SegmentName {
    SegmentName {
        topic: "orders".into(),
        partition: TopicPartition { topic_id: Uuid([7; 16]), partition: PartitionId(0) },
        id: SegmentId(1),
        generation: Generation(0),
        base: 5,
    }
}

fn open(sim: &Sim) -> Arc<Storage> {
    let options = StorageOptions { index_interval_bytes: 100, ..StorageOptions::default() };
    Storage::open(sim.env.clone(), PathBuf::from(DIR), options).expect("the directory itself is sound")
}

fn path(file: &str) -> PathBuf {
    let partition = format!("topics/orders/0.{}", Uuid([7; 16]));
    Path::new(DIR).join(partition).join("00000000000000000005.1.0").join(file)
}

/// Makes the segment, with a checkpoint in its middle, and seals it if asked to.
fn make(sim: &Sim, seal: bool) -> Option<SealedInfo> {
    let storage = open(sim);
    let create = CreateSegment { leader_epoch: EPOCH, snapshot: Bytes::from_static(b"state") };
    let segment = storage.create(name(), create).expect("an empty disk");
    for number in 0..BATCHES {
        let mut batch = BatchBuilder::new().base_offset(5 + number).leader_epoch(EPOCH.0);
        batch.append(1_000 + number, Some(b"key"), Some(&[b'v'; 90]));
        let batch = batch.finish().expect("a batch of one record");
        let header = batch.first_chunk().expect("a batch has a header");
        segment.append(&[Batch { header, rest: &batch[HEADER_LEN..] }]).expect("room");
        if number == BATCHES / 2 {
            segment.checkpoint(Bytes::from_static(b"state in the middle"));
        }
    }
    let info = seal.then(|| segment.seal().expect("nothing is damaged yet"));
    storage.shutdown_clean().expect("nothing failed");
    sim.disk.kill();
    info
}

fn change(sim: &Sim, file: &str, how: u8, at: u8, content: &[u8]) {
    let path = path(file);
    let mut bytes = sim.disk.read(&path, 1 << 20).unwrap_or_default();
    let at = usize::from(at).wrapping_mul(usize::from(how / 4) + 1) % (bytes.len() + 1);
    match how % 4 {
        0 => bytes.truncate(at),
        1 => bytes = content.to_vec(),
        2 => bytes.extend_from_slice(content),
        _ => {
            let end = (at + content.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&content[..end - at]);
        }
    }
    if sim.disk.open(&path, OpenMode::ReadWrite).is_ok() {
        sim.disk.overwrite(&path, &bytes).expect("the file is there");
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, mut rest)) = bytes.split_first() else { return };
    let sim = Sim::new(1);
    let info = make(&sim, choice % 2 == 0);
    while let [file, how, at, length, content @ ..] = rest {
        let (content, behind) = content.split_at(content.len().min(usize::from(length % 32)));
        rest = behind;
        change(&sim, FILES[usize::from(*file) % FILES.len()], *how, *at, content);
    }
    let storage = open(&sim);
    let segment = match info {
        Some(info) => storage.load(name(), info.end, info.bytes, info.crc),
        None => match storage.recover(name(), &[(EPOCH, 5)], &mut |_| true) {
            Ok(recovered) => recovered.segment,
            Err(error) => return drop(error.to_string()),
        },
    };
    for from in 5..5 + BATCHES {
        let _ = segment.read(from, Offset::MAX, 1, true);
        let _ = segment.find_timestamp(995 + from, from, Offset::MAX);
    }
    let _ = (segment.max_timestamp(), segment.first_timestamp(), segment.verify());
    let _ = storage.replay(&segment, &mut |_| true);
});
