//! A storage on a simulated disk, batches to put in it, and a listener that writes down what it hears.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::batch::{BatchBuilder, BatchHeader, BatchView, Batches, Compression, HEADER_LEN};
use base::env::Env;
use base::env::sim::Sim;
use base::ids::{Generation, LeaderEpoch, Offset, PartitionId, SegmentId, TimestampMs, TopicPartition, Uuid};
use bytes::Bytes;
use parking_lot::Mutex;
use storage::{
    Batch, CreateSegment, DurableListener, Recovered, Replay, Segment, SegmentName, Storage, StorageError,
    StorageOptions,
};

pub(crate) const EPOCH: LeaderEpoch = LeaderEpoch(3);
pub(crate) const DIR: &str = "/data/log";

pub(crate) fn name(partition: i32, id: u64, base: Offset) -> SegmentName {
    SegmentName {
        topic: "orders".into(),
        partition: TopicPartition { topic_id: Uuid([7; 16]), partition: PartitionId(partition) },
        id: SegmentId(id),
        generation: Generation(0),
        base,
    }
}

/// A temporary directory of the real file system.
pub(crate) struct TempDir {
    pub(crate) env: Env,
    pub(crate) path: PathBuf,
}

impl TempDir {
    pub(crate) fn new() -> TempDir {
        let env = Env::os();
        let path = std::env::temp_dir().join(format!("vltava-storage-{}", env.random_uuid()));
        env.disk.create_dir_all(&path).unwrap();
        TempDir { env, path }
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = self.env.disk.remove_dir_all(&self.path);
    }
}

pub(crate) fn options() -> StorageOptions {
    // Small enough that it is full soon.
    let (sync_journal_bytes, sync_journal_after_files) = (256 << 10, 20);
    let usual = StorageOptions::default();
    StorageOptions { index_interval_bytes: 1_000, sync_journal_bytes, sync_journal_after_files, ..usual }
}

/// As [`options`], without the sync journal.
pub(crate) fn no_journal() -> StorageOptions {
    StorageOptions { sync_journal_bytes: 0, ..options() }
}

pub(crate) fn open(sim: &Sim) -> Arc<Storage> {
    try_open(sim).unwrap()
}

pub(crate) fn try_open(sim: &Sim) -> Result<Arc<Storage>, StorageError> {
    open_with(sim, options())
}

pub(crate) fn open_with(sim: &Sim, options: StorageOptions) -> Result<Arc<Storage>, StorageError> {
    Storage::open(sim.env.clone(), PathBuf::from(DIR), options)
}

pub(crate) fn create(storage: &Arc<Storage>, name: SegmentName) -> Arc<Segment> {
    let create = CreateSegment { leader_epoch: EPOCH, snapshot: Bytes::from_static(b"at base") };
    storage.create(name, create).unwrap()
}

/// A batch of `records` records with values of `size` bytes and the given timestamps' maximum.
pub(crate) fn batch(base: Offset, records: usize, size: usize, timestamp: TimestampMs) -> Vec<u8> {
    batch_with(base, records, size, timestamp, Compression::None)
}

pub(crate) fn batch_with(
    base: Offset,
    records: usize,
    size: usize,
    timestamp: TimestampMs,
    codec: Compression,
) -> Vec<u8> {
    let mut builder = BatchBuilder::new().base_offset(base).leader_epoch(EPOCH.0).compression(codec);
    for index in 0..records {
        let value: Vec<u8> = (0..size).map(|i| (base as usize * 7 + index * 13 + i) as u8 | 1).collect();
        let timestamp = timestamp - (records - 1 - index) as i64;
        builder.append(timestamp, Some(format!("key-{base}-{index}").as_bytes()), Some(&value));
    }
    builder.finish().unwrap()
}

pub(crate) fn append(segment: &Segment, batches: &[Vec<u8>]) -> Result<(), StorageError> {
    let parts: Vec<Batch<'_>> = batches
        .iter()
        .map(|bytes| Batch { header: bytes.first_chunk().unwrap(), rest: &bytes[HEADER_LEN..] })
        .collect();
    segment.append(&parts)
}

/// Appends batches of one record each until the end is `end`.
pub(crate) fn fill(segment: &Segment, end: Offset, size: usize) {
    while segment.end() < end {
        let offset = segment.end();
        append(segment, &[batch(offset, 1, size, 1_000 + offset)]).unwrap();
    }
}

/// What a listener heard.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) durable: Mutex<Vec<Offset>>,
    pub(crate) failed: Mutex<Vec<String>>,
}

impl Heard {
    pub(crate) fn on(segment: &Segment) -> Arc<Heard> {
        let heard = Arc::new(Heard::default());
        segment.set_listener(heard.clone());
        heard
    }

    pub(crate) fn end(&self) -> Offset {
        self.durable.lock().last().copied().unwrap_or(-1)
    }
}

impl DurableListener for Heard {
    fn durable(&self, end: Offset) {
        self.durable.lock().push(end);
    }
    fn failed(&self, error: &StorageError) {
        self.failed.lock().push(error.to_string());
    }
}

/// What recovery replayed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    pub(crate) snapshots: Vec<Vec<u8>>,
    pub(crate) offsets: Vec<Offset>,
}

impl Replayed {
    pub(crate) fn note(&mut self, event: Replay<'_>) -> bool {
        match event {
            Replay::Snapshot(bytes) => self.snapshots.push(bytes.to_vec()),
            Replay::Batch(BatchHeader { base_offset, .. }) => self.offsets.push(*base_offset),
        }
        true
    }
}

pub(crate) fn recover(
    storage: &Arc<Storage>,
    name: &SegmentName,
) -> Result<(Recovered, Replayed), StorageError> {
    let mut replayed = Replayed::default();
    let recovered =
        storage.recover(name.clone(), &[(EPOCH, name.base)], &mut |event| replayed.note(event))?;
    Ok((recovered, replayed))
}

/// Everything in a segment, read in steps of `max_bytes`.
pub(crate) fn read_all(segment: &Segment, max_bytes: usize) -> Result<Vec<u8>, StorageError> {
    let mut all = Vec::new();
    let mut from = segment.base();
    loop {
        let slice = segment.read(from, segment.end(), max_bytes, true)?;
        all.extend_from_slice(&slice.bytes);
        from = slice.next_offset;
        if slice.exhausted {
            return Ok(all);
        }
        assert!(!slice.bytes.is_empty(), "a read that is not exhausted brings something");
    }
}

pub(crate) fn batches(bytes: &[u8]) -> Vec<BatchView<'_>> {
    let batches: Vec<_> = Batches::new(bytes).map(Result::unwrap).collect();
    for batch in &batches {
        batch.verify_crc().unwrap();
    }
    batches
}

/// The log file of a segment.
pub(crate) fn log_path(name: &SegmentName) -> PathBuf {
    file_path(name, &format!("{:020}.log", name.base))
}

pub(crate) fn file_path(name: &SegmentName, file: &str) -> PathBuf {
    Path::new(DIR)
        .join("topics")
        .join(&*name.topic)
        .join(format!("{}.{}", name.partition.partition, name.partition.topic_id))
        .join(format!("{:020}.{}.{}", name.base, name.id, name.generation))
        .join(file)
}

/// Runs a simulation to its end on a paused clock.
pub(crate) fn simulate<T>(seed: u64, work: impl AsyncFnOnce(Sim) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async { work(Sim::new(seed)).await })
}

/// Lets background work run for `ms` of simulated time.
pub(crate) async fn pass(sim: &Sim, ms: u64) {
    sim.env.clock.sleep(std::time::Duration::from_millis(ms)).await;
}
