//! Power cuts, kills and failed syncs at random moments, over many seeds.
//!
//! A run appends, syncs, checkpoints, seals and rolls as the layer above does, is cut off somewhere,
//! recovers, checks and goes on with the next life. What must hold after each cut:
//! - everything that was reported durable is there, byte for byte, in order, once;
//! - whatever else is there is a prefix of what was written;
//! - the snapshot replay starts from belongs to its offset;
//! - without syncs (class *page-cache*) the log opens again all the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::env::sim::{CrashPolicy, Sim, SimRandom};
use base::ids::Offset;
use base::metrics::Metrics;
use bytes::Bytes;
use storage::{CreateSegment, Segment, SegmentName, Storage, StorageError, StorageOptions};

use crate::common::*;

const PARTITIONS: usize = 3;

/// What the layer above knows of one segment.
struct Expected {
    name: SegmentName,
    written: Vec<u8>,
    /// Offset and position of every batch boundary.
    boundaries: BTreeMap<Offset, usize>,
    durable: Offset,
    sealed: Option<storage::SealedInfo>,
    segment: Option<Arc<Segment>>,
    heard: Option<Arc<Heard>>,
}

impl Expected {
    fn new(name: SegmentName) -> Expected {
        let boundaries = BTreeMap::from([(name.base, 0)]);
        let durable = name.base;
        Expected { name, written: Vec::new(), boundaries, durable, sealed: None, segment: None, heard: None }
    }

    fn create(&mut self, storage: &Arc<Storage>) -> Result<(), StorageError> {
        // Below offset 0 there is no state.
        let snapshot = match self.name.base {
            0 => Bytes::new(),
            base => Bytes::from(format!("state at {base}")),
        };
        let segment = storage.create(self.name.clone(), CreateSegment { leader_epoch: EPOCH, snapshot })?;
        self.watch(segment);
        Ok(())
    }

    fn watch(&mut self, segment: Arc<Segment>) {
        self.heard = Some(Heard::on(&segment));
        self.segment = Some(segment);
    }

    /// Takes over what the life that ends now was told.
    fn end_life(&mut self) {
        if let Some(heard) = self.heard.take() {
            self.durable = self.durable.max(heard.end());
        }
        self.segment = None;
    }

    fn check_content(&self, segment: &Segment, what: &str) {
        let read = read_all(segment, 3_000).unwrap();
        let end = segment.end();
        assert!(end >= self.durable, "{what}: durable up to {}, found up to {end}", self.durable);
        let position = *self.boundaries.get(&end).unwrap_or_else(|| panic!("{what}: {end} is no boundary"));
        assert!(read == self.written[..position], "{what}: other bytes than were written");
        batches(&read);
    }

    fn check_open(&mut self, storage: &Arc<Storage>, what: &str) {
        let (recovered, replayed) = match recover(storage, &self.name) {
            Ok(found) => found,
            Err(StorageError::NotHere { .. }) => {
                assert_eq!(self.durable, self.name.base, "{what}: a durable segment is not there");
                self.written.clear();
                self.boundaries = BTreeMap::from([(self.name.base, 0)]);
                self.create(storage).unwrap();
                return;
            }
            Err(error) => panic!("{what}: {error}"),
        };
        let segment = recovered.segment;
        self.check_content(&segment, what);
        if !recovered.snapshot_missing {
            let snapshot = String::from_utf8(replayed.snapshots[0].clone()).unwrap();
            let at: Offset = snapshot.strip_prefix("state at ").map_or(0, |text| text.parse().unwrap());
            let expected: Vec<Offset> =
                self.boundaries.range(at..segment.end()).map(|(offset, _)| *offset).collect();
            assert_eq!(replayed.offsets, expected, "{what}: replay from {at}");
        }
        // Recovery vouches for what it found.
        self.durable = segment.end();
        self.boundaries.retain(|offset, _| *offset <= segment.end());
        self.written.truncate(self.boundaries[&segment.end()]);
        self.watch(segment);
    }
}

struct Run {
    random: SimRandom,
    metrics: Metrics,
    sync: bool,
    /// Many small appends, so that the halves of the sync journal change hands.
    small: bool,
    next_id: u64,
    partitions: Vec<Vec<Expected>>,
}

impl Run {
    fn new(seed: u64, sync: bool) -> Run {
        let mut run = Run {
            random: SimRandom::new(seed),
            metrics: Metrics::default(),
            sync,
            small: seed % 2 == 1,
            next_id: 0,
            partitions: Vec::new(),
        };
        for partition in 0..PARTITIONS {
            let first = Expected::new(run.name(partition, 0));
            run.partitions.push(vec![first]);
        }
        run
    }

    /// Opens the storage for the next life: with a sync journal of this or that size, or without one.
    fn open(&self, sim: &Sim) -> Arc<Storage> {
        let sync_journal_bytes = [0, 32 << 10, 64 << 10, 128 << 10][self.random.below(4) as usize];
        let sync_journal_after_files = 1 + self.random.below(3);
        let metrics = self.metrics.node().clone();
        let options = StorageOptions { sync_journal_bytes, sync_journal_after_files, metrics, ..options() };
        open_with(sim, options).unwrap()
    }

    fn name(&mut self, partition: usize, base: Offset) -> SegmentName {
        self.next_id += 1;
        name(partition as i32, self.next_id, base)
    }

    /// One step of a life; an error when the power is gone.
    async fn step(&mut self, sim: &Sim, storage: &Arc<Storage>) -> Result<(), StorageError> {
        let at = self.random.below(PARTITIONS as u64) as usize;
        let last = self.partitions[at].last_mut().unwrap();
        let segment = last.segment.clone().unwrap();
        match self.random.below(10) {
            0 if self.sync => storage.request_sync(&segment),
            1 => pass(sim, self.random.below(5)).await,
            2 => segment.checkpoint(Bytes::from(format!("state at {}", segment.end()))),
            3 if self.random.below(4) == 0 => {
                let info = segment.seal()?;
                last.sealed = Some(info);
                // As the chain's edit would, the seal waits for the sync.
                storage.request_sync(&segment);
                pass(sim, 20).await;
                if segment.durable_end() < info.end {
                    return Err(StorageError::Sealed);
                }
                let mut next = Expected::new(self.name(at, info.end));
                next.create(storage)?;
                self.partitions[at].push(next);
            }
            4 if self.random.below(3) == 0 => pass(sim, 700).await,
            _ => {
                let mut run = Vec::new();
                for _ in 0..1 + self.random.below(3) {
                    let base = *last.boundaries.last_key_value().unwrap().0;
                    let bytes = random_batch(&self.random, base, self.small);
                    let next = batches(&bytes)[0].next_offset();
                    last.written.extend_from_slice(&bytes);
                    last.boundaries.insert(next, last.written.len());
                    run.push(bytes);
                }
                append(&segment, &run)?;
                if self.sync {
                    storage.request_sync(&segment);
                }
            }
        }
        Ok(())
    }

    fn recover(&mut self, storage: &Arc<Storage>, what: &str) {
        for partition in &mut self.partitions {
            let last = partition.len() - 1;
            for (index, expected) in partition.iter_mut().enumerate() {
                match expected.sealed {
                    Some(info) if index < last => {
                        let name = expected.name.clone();
                        let loaded = storage.load(name, info.end, info.bytes, info.crc);
                        loaded.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
                        expected.check_content(&loaded, what);
                        let newest = loaded.max_timestamp().unwrap();
                        assert!(info.end == expected.name.base || newest.is_some(), "{what}");
                    }
                    _ => {
                        expected.sealed = None;
                        expected.check_open(storage, what);
                    }
                }
            }
        }
    }

    async fn live(&mut self, sim: &Sim, storage: &Arc<Storage>) {
        let housekeeping = tokio::spawn(storage.clone().run());
        let longer = if self.small { 4 } else { 1 };
        let steps = 5 + self.random.below(60 * longer);
        if self.random.below(2) == 0 {
            sim.disk.cut_power_after(self.random.below(150 * longer));
        } else if self.random.below(3) == 0 {
            sim.disk.fail_sync_after(self.random.below(40));
        }
        for _ in 0..steps {
            if self.step(sim, storage).await.is_err() {
                break;
            }
        }
        if self.random.below(6) == 0 && !sim.disk.is_cut() {
            for expected in self.partitions.iter().filter_map(|partition| partition.last()) {
                let segment = expected.segment.as_ref().unwrap();
                segment.checkpoint(Bytes::from(format!("state at {}", segment.end())));
            }
            // May fail when the power goes meanwhile.
            let _ = storage.shutdown_clean();
        }
        housekeeping.abort();
        self.partitions.iter_mut().flatten().for_each(Expected::end_life);
    }
}

fn random_batch(random: &SimRandom, base: Offset, small: bool) -> Vec<u8> {
    let size = [20, 300, 700, 3_000][random.below(if small { 2 } else { 4 }) as usize];
    batch(base, 1 + random.below(3) as usize, size, 5_000 + base)
}

/// Four lives; returns how many sync rounds went to the journal.
fn run(seed: u64, sync: bool) -> u64 {
    simulate(seed, async |sim| {
        sim.let_jobs_die_with_their_life();
        let mut run = Run::new(seed, sync);
        let mut storage = run.open(&sim);
        for partition in &mut run.partitions {
            partition[0].create(&storage).unwrap();
        }
        for life in 0..4 {
            run.live(&sim, &storage).await;
            match run.random.below(4) {
                0 => sim.disk.kill(),
                1 => sim.disk.crash(CrashPolicy::LoseAll),
                _ => sim.disk.crash(CrashPolicy::Random),
            }
            storage = run.open(&sim);
            run.recover(&storage, &format!("seed {seed}, after life {life}"));
        }
        run.metrics.node().sync_journal_rounds.get()
    })
}

/// Seeds per test; more by `VLTAVA_SEEDS`.
fn seeds() -> u64 {
    std::env::var("VLTAVA_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000)
}

#[test]
fn what_was_reported_durable_survives_every_cut() {
    let journaled: u64 = (0..seeds()).map(|seed| run(seed, true)).sum();
    // Or nothing is proved of the journal.
    assert!(journaled > 5 * seeds(), "{journaled} rounds went to the journal");
}

#[test]
fn without_syncs_the_log_opens_again_after_every_cut() {
    for seed in 0..seeds() {
        run(1_000_000 + seed, false);
    }
}

#[test]
fn runs_follow_from_their_seed() {
    let trace = |seed| {
        simulate(seed, async |sim| {
            let mut run = Run::new(seed, true);
            let storage = run.open(&sim);
            for partition in &mut run.partitions {
                partition[0].create(&storage).unwrap();
            }
            run.live(&sim, &storage).await;
            (sim.disk.counts(), sim.env.random.next_u64(), sim.env.clock.now())
        })
    };
    for seed in 0..20 {
        assert_eq!(trace(seed), trace(seed));
    }
}
