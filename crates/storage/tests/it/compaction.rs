//! Compaction of a small log, by the mechanism as the layer above drives it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use base::batch::{BatchBuilder, Compression, DecompressBuffer};
use base::env::Disk;
use base::env::sim::{CrashPolicy, Sim, SimRandom};
use base::ids::{Generation, Offset, TimestampMs};
use bytes::Bytes;
use storage::{
    CompactionRules, CompactionStats, CreateSegment, Keep, KeyIndexer, LiveProducer, NoTransactions,
    OffsetMap, RewriteRequest, Rewritten, Segment, SegmentExtent, SegmentName, Storage, StorageError,
    Throttle, group_segments, rewrite,
};

use crate::common::*;

type Value = Option<Vec<u8>>;
/// Offset, timestamp, key, value.
type Row = (Offset, TimestampMs, Option<Vec<u8>>, Value);

const NOW: TimestampMs = 1_000_000;
const RETENTION: i64 = 10_000;

/// A log of sealed segments, as a chain would list them.
struct Log {
    storage: Arc<Storage>,
    segments: Vec<Arc<Segment>>,
    next_id: u64,
    /// Offset after the last record a pass has cleaned.
    clean: Offset,
}

/// How a pass is run.
#[derive(Clone)]
struct Pass {
    buffer_bytes: usize,
    group_bytes: u64,
    now_ms: TimestampMs,
    live_producers: HashMap<i64, LiveProducer>,
    bytes_per_second: Option<f64>,
}

impl Default for Pass {
    fn default() -> Pass {
        let live_producers = HashMap::new();
        Pass {
            buffer_bytes: 1 << 20,
            group_bytes: 1 << 20,
            now_ms: NOW,
            live_producers,
            bytes_per_second: None,
        }
    }
}

impl Log {
    fn new(storage: Arc<Storage>) -> Log {
        Log { storage, segments: Vec::new(), next_id: 0, clean: 0 }
    }

    fn end(&self) -> Offset {
        self.segments.last().map_or(0, |segment| segment.end())
    }

    fn name(&mut self, base: Offset, generation: u32) -> SegmentName {
        self.next_id += 1;
        SegmentName { generation: Generation(generation), ..name(0, self.next_id, base) }
    }

    fn add(&mut self, batches: &[Vec<u8>]) {
        let name = self.name(self.end(), 0);
        let snapshot = Bytes::from(format!("state at {}", name.base));
        let segment = self.storage.create(name, CreateSegment { leader_epoch: EPOCH, snapshot }).unwrap();
        append(&segment, batches).unwrap();
        segment.seal().unwrap();
        self.segments.push(segment);
    }

    /// Indexes the dirty part and rewrites all, oldest group first.
    async fn compact(&mut self, sim: &Sim, pass: &Pass) -> Result<CompactionStats, StorageError> {
        let map = OffsetMap::new(&sim.env, pass.buffer_bytes, 0.9, 10_000, self.clean);
        let throttle = Arc::new(Throttle::new(&sim.env, pass.bytes_per_second));
        let mut indexer = KeyIndexer::new(map, Box::new(NoTransactions), throttle.clone());
        for segment in self.segments.iter().filter(|segment| segment.end() > self.clean) {
            if !indexer.add(segment, self.clean).await? {
                break;
            }
        }
        let map = Arc::new(indexer.finish());
        let inside: Vec<SegmentExtent> = self
            .segments
            .iter()
            .take_while(|segment| segment.base() < map.end())
            .map(|segment| SegmentExtent { base: segment.base(), end: segment.end(), bytes: segment.bytes() })
            .collect();
        let mut total = CompactionStats::default();
        for (done, group) in group_segments(&inside, pass.group_bytes).into_iter().enumerate() {
            let old = self.segments[done..done + group.len()].to_vec();
            let generation = old.iter().map(|segment| segment.name().generation.0).max().unwrap() + 1;
            let request = RewriteRequest {
                name: self.name(old[0].base(), generation),
                run: old.clone(),
                keep: Keep::Latest {
                    map: map.clone(),
                    rules: CompactionRules {
                        now_ms: pass.now_ms,
                        delete_retention_ms: RETENTION,
                        older_is_clean: true,
                        keep_offset: None,
                        live_producers: pass.live_producers.clone(),
                    },
                },
            };
            let name = request.name.clone();
            let rewritten = rewrite(request, Box::new(NoTransactions), &throttle).await?;
            let info = rewritten.info;
            let new = self.storage.load(name, info.end, info.bytes, info.crc);
            new.verify()?;
            self.segments.splice(done..done + group.len(), [new]);
            for segment in old {
                self.storage.remove(segment.name())?;
            }
            total.records_read += rewritten.stats.records_read;
            total.records_kept += rewritten.stats.records_kept;
            total.bytes_read += rewritten.stats.bytes_read;
            total.bytes_written += rewritten.stats.bytes_written;
        }
        self.clean = map.end();
        Ok(total)
    }

    fn rows(&self) -> Vec<Row> {
        self.segments.iter().flat_map(|segment| rows(segment)).collect()
    }
}

/// Every record of a segment.
fn rows(segment: &Segment) -> Vec<Row> {
    let mut rows = Vec::new();
    let bytes = read_all(segment, 2_000).unwrap();
    let mut buffer = DecompressBuffer::new(1 << 20);
    for batch in batches(&bytes) {
        for record in batch.records(&mut buffer).unwrap().map(Result::unwrap) {
            let [key, value] = [record.key, record.value].map(|bytes| bytes.map(<[u8]>::to_vec));
            rows.push((record.offset, record.timestamp, key, value));
        }
    }
    rows
}

/// What a reader from the beginning ends up with.
fn last_writes(rows: &[Row]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut map = BTreeMap::new();
    for (_, _, key, value) in rows {
        let Some(key) = key else { continue };
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
    map
}

/// A batch of random writes to a few keys, some of them tombstones.
fn writes(random: &SimRandom, base: Offset) -> Vec<u8> {
    let codec = Compression::ALL[random.below(5) as usize];
    let mut builder = BatchBuilder::new().base_offset(base).leader_epoch(EPOCH.0).compression(codec);
    for _ in 0..1 + random.below(6) {
        let key = format!("key-{}", random.below(25));
        let value = vec![b'v'; random.below(400) as usize + 1];
        let value = (random.below(6) > 0).then_some(&value[..]);
        let key = (random.below(40) > 0).then_some(key.as_bytes());
        builder.append(5_000 + random.below(1_000) as i64, key, value);
    }
    builder.finish().unwrap()
}

fn grow(log: &mut Log, random: &SimRandom, segments: u64) {
    for _ in 0..segments {
        let mut batches_made = Vec::new();
        let mut end = log.end();
        for _ in 0..1 + random.below(8) {
            let bytes = writes(random, end);
            end = batches(&bytes)[0].next_offset();
            batches_made.push(bytes);
        }
        log.add(&batches_made);
    }
}

#[test]
fn k_6_a_compacted_log_equals_the_last_writes() {
    for seed in 0..150 {
        simulate(seed, async |sim| {
            let random = SimRandom::new(seed);
            let mut log = Log::new(open(&sim));
            let mut all: Vec<Row> = Vec::new();
            for round in 0..4 {
                let before = log.end();
                grow(&mut log, &random, 1 + random.below(5));
                all.extend(log.rows().into_iter().filter(|row| row.0 >= before));
                let pass = Pass {
                    // Sometimes too small for all keys of the dirty part.
                    buffer_bytes: [24 * 14, 1 << 20][random.below(2) as usize],
                    group_bytes: [1, 5_000, 1 << 20][random.below(3) as usize],
                    now_ms: NOW + round * RETENTION * random.below(2) as i64,
                    ..Pass::default()
                };
                let kept_before = log.rows().len();
                log.compact(&sim, &pass).await.unwrap();
                let rows = log.rows();
                assert_eq!(last_writes(&rows), last_writes(&all), "seed {seed} round {round}");
                assert!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0));
                let known: HashMap<Offset, &Row> = all.iter().map(|row| (row.0, row)).collect();
                assert!(rows.iter().all(|row| known[&row.0] == row), "records stay what they were");
                assert!(rows.len() <= kept_before);
                // Of the clean part every key has one record.
                let mut keys = BTreeMap::new();
                for row in rows.iter().filter(|row| row.0 < log.clean) {
                    *keys.entry(row.2.clone().expect("keyless records go")).or_insert(0) += 1;
                }
                assert!(keys.values().all(|count| *count == 1), "seed {seed}: {keys:?}");
            }
        });
    }
}

#[test]
fn tombstones_go_after_their_time_and_not_before() {
    simulate(1, async |sim| {
        let mut log = Log::new(open(&sim));
        let write = |base: Offset, key: &str, value: Option<&str>| {
            let mut builder = BatchBuilder::new().base_offset(base).leader_epoch(EPOCH.0);
            builder.append(7, Some(key.as_bytes()), value.map(str::as_bytes));
            builder.finish().unwrap()
        };
        log.add(&[write(0, "a", Some("1")), write(1, "b", Some("2"))]);
        log.add(&[write(2, "a", None), write(3, "c", Some("3"))]);
        let at = |now_ms| Pass { now_ms, ..Pass::default() };
        log.compact(&sim, &at(NOW)).await.unwrap();
        let offsets = |log: &Log| log.rows().iter().map(|row| row.0).collect::<Vec<_>>();
        assert_eq!(offsets(&log), [1, 2, 3]);
        log.compact(&sim, &at(NOW + RETENTION - 1)).await.unwrap();
        assert_eq!(offsets(&log), [1, 2, 3]);
        log.compact(&sim, &at(NOW + RETENTION)).await.unwrap();
        assert_eq!(offsets(&log), [1, 3]);
        assert_eq!(log.end(), 4);
    });
}

#[test]
fn compacted_segments_are_read_by_offset_and_time_over_their_gaps() {
    for seed in 0..40 {
        simulate(seed, async |sim| {
            let random = SimRandom::new(seed);
            let mut log = Log::new(open(&sim));
            grow(&mut log, &random, 6);
            log.compact(&sim, &Pass::default()).await.unwrap();
            assert_eq!(log.segments.len(), 1);
            let segment = &log.segments[0];
            let rows = rows(segment);
            let bytes = read_all(segment, 1 << 20).unwrap();
            let ends: Vec<Offset> = batches(&bytes).iter().map(|batch| batch.next_offset()).collect();
            for from in 0..log.end() {
                let slice = segment.read(from, log.end(), 1, true).unwrap();
                let expected = ends.iter().find(|end| **end > from);
                assert_eq!(Some(&slice.next_offset), expected, "seed {seed}: from {from}");
                assert_eq!(batches(&slice.bytes).len(), 1);
            }
            for timestamp in (4_990..6_010).step_by(5) {
                let expected = rows.iter().find(|row| row.1 >= timestamp).map(|row| (row.0, row.1));
                assert_eq!(segment.find_timestamp(timestamp, 0, i64::MAX).unwrap(), expected);
            }
        });
    }
}

#[test]
fn a_cut_at_any_step_leaves_the_old_or_the_new() {
    // How many steps a pass takes, counted without a cut.
    let steps = |seed| {
        simulate(seed, async |sim| {
            let mut log = Log::new(open(&sim));
            grow(&mut log, &SimRandom::new(seed), 4);
            sync_everything(&sim);
            let before = sim.disk.counts().steps;
            log.compact(&sim, &Pass { group_bytes: 3_000, ..Pass::default() }).await.unwrap();
            sim.disk.counts().steps - before
        })
    };
    for seed in 0..12 {
        for cut in 0..steps(seed) {
            simulate(seed, async |sim| {
                let random = SimRandom::new(seed);
                let mut log = Log::new(open(&sim));
                grow(&mut log, &random, 4);
                sync_everything(&sim);
                let expected = last_writes(&log.rows());
                sim.disk.cut_power_after(cut);
                let groups = Pass { group_bytes: 3_000, ..Pass::default() };
                let cut_short = log.compact(&sim, &groups).await.is_err();
                let listed: Vec<(SegmentName, Offset, u64)> = log
                    .segments
                    .iter()
                    .map(|segment| (segment.name().clone(), segment.end(), segment.bytes()))
                    .collect();
                let seals: Vec<u32> =
                    log.segments.iter().map(|segment| segment.seal().unwrap().crc).collect();
                drop(log.segments);
                sim.disk.crash(if cut % 3 == 0 { CrashPolicy::LoseAll } else { CrashPolicy::Random });
                let mut log = Log { storage: open(&sim), segments: Vec::new(), next_id: 100, clean: 0 };
                for ((name, end, bytes), crc) in listed.into_iter().zip(seals) {
                    let segment = log.storage.load(name, end, bytes, crc);
                    segment.verify().unwrap_or_else(|error| panic!("seed {seed} cut {cut}: {error}"));
                    log.segments.push(segment);
                }
                assert_eq!(last_writes(&log.rows()), expected, "seed {seed} cut {cut} {cut_short}");
                pass(&sim, 100).await;
                let building = Path::new(DIR).join("building");
                assert!(sim.disk.read_dir(&building).unwrap().is_empty());
                log.compact(&sim, &Pass::default()).await.unwrap();
                assert_eq!(last_writes(&log.rows()), expected, "seed {seed} cut {cut} again");
            });
        }
    }
}

/// The layer above lists only segments that are durable.
fn sync_everything(sim: &Sim) {
    sim.disk.sync_all(Path::new(DIR)).unwrap();
}

#[test]
fn live_producers_keep_their_last_batch_and_their_state() {
    simulate(1, async |sim| {
        let mut log = Log::new(open(&sim));
        let write = |base: Offset, producer: i64, sequence: i32| {
            let mut builder =
                BatchBuilder::new().base_offset(base).leader_epoch(EPOCH.0).producer(producer, 0, sequence);
            builder.append(7, Some(b"same key"), Some(b"value"));
            builder.finish().unwrap()
        };
        log.add(&[write(0, 1, 0), write(1, 2, 0), write(2, 1, 1)]);
        log.add(&[write(3, 3, 0), write(4, 3, 1)]);
        let live = |last_offset| LiveProducer { epoch: 0, last_offset: Some(last_offset) };
        let with_live =
            Pass { live_producers: HashMap::from([(1, live(2)), (3, live(4))]), ..Pass::default() };
        log.compact(&sim, &with_live).await.unwrap();
        let bytes = read_all(&log.segments[0], 1_000).unwrap();
        let kept: Vec<_> = batches(&bytes)
            .iter()
            .map(|b| (b.last_offset(), b.producer_id, b.last_sequence(), b.record_count))
            .collect();
        assert_eq!(kept, [(2, 1, 1, 0), (4, 3, 1, 1)]);
        let mut replayed = Replayed::default();
        log.storage.replay(&log.segments[0], &mut |event| replayed.note(event)).unwrap();
        assert_eq!(
            replayed.snapshots,
            [b"state at 0".to_vec()],
            "the state below the run is the first one's"
        );
        assert_eq!(replayed.offsets, [2, 4]);
    });
}

#[test]
fn the_throttle_sets_the_pace() {
    let run = |bytes_per_second| {
        simulate(1, async |sim| {
            let mut log = Log::new(open(&sim));
            grow(&mut log, &SimRandom::new(1), 6);
            let start = sim.env.clock.now();
            let stats = log.compact(&sim, &Pass { bytes_per_second, ..Pass::default() }).await.unwrap();
            let seconds = (sim.env.clock.now() - start).as_secs_f64();
            // The keys are read once more.
            (seconds, (2 * stats.bytes_read + stats.bytes_written) as f64)
        })
    };
    let (free, bytes) = run(None);
    let (slow, _) = run(Some(1_000.0));
    assert!(free < 1.0, "{free}");
    assert!((slow - bytes / 1_000.0).abs() < 1.0, "{slow} s for {bytes} bytes");
}

#[test]
fn readers_of_the_old_segments_are_not_disturbed() {
    simulate(1, async |sim| {
        let mut log = Log::new(open(&sim));
        grow(&mut log, &SimRandom::new(1), 6);
        let old = log.segments.clone();
        let before: Vec<Vec<Row>> = old.iter().map(|segment| rows(segment)).collect();
        log.compact(&sim, &Pass::default()).await.unwrap();
        assert!(old.iter().map(|segment| rows(segment)).eq(before));
    });
}

#[test]
fn a_rewrite_that_is_given_up_leaves_nothing() {
    simulate(1, async |sim| {
        let mut log = Log::new(open(&sim));
        grow(&mut log, &SimRandom::new(1), 6);
        let slow = Pass { bytes_per_second: Some(10.0), ..Pass::default() };
        let before = log.rows();
        tokio::select! {
            _ = log.compact(&sim, &slow) => panic!("too fast"),
            () = pass(&sim, 600_000) => {}
        }
        pass(&sim, 100).await;
        assert!(sim.disk.read_dir(&Path::new(DIR).join("building")).unwrap().is_empty());
        assert_eq!(log.rows(), before);
    });
}

#[test]
fn damaged_or_unfit_input_is_refused() {
    simulate(1, async |sim| {
        let mut log = Log::new(open(&sim));
        grow(&mut log, &SimRandom::new(1), 3);
        let map = Arc::new(OffsetMap::new(&sim.env, 1_000, 0.9, 10, 0));
        let throttle = Throttle::new(&sim.env, None);
        let rules = CompactionRules {
            now_ms: NOW,
            delete_retention_ms: 0,
            older_is_clean: true,
            keep_offset: None,
            live_producers: HashMap::new(),
        };
        let name = log.name(0, 1);
        let attempt = async |run: Vec<Arc<Segment>>, name: &SegmentName| {
            let keep = Keep::Latest { map: map.clone(), rules: rules.clone() };
            let request = RewriteRequest { run, name: name.clone(), keep };
            rewrite(request, Box::new(NoTransactions), &throttle).await
        };
        let [a, b, c] = [0, 1, 2].map(|at| log.segments[at].clone());
        let invalid = |result| matches!(result, Err(StorageError::InvalidRun { .. }));
        assert!(invalid(attempt(vec![], &name).await));
        assert!(invalid(attempt(vec![a.clone(), c.clone()], &name).await));
        assert!(invalid(attempt(vec![b.clone()], &name).await));
        assert!(invalid(attempt(vec![a.clone()], a.name()).await));
        let open = log.name(log.end(), 0);
        let open = create(&log.storage, open);
        assert!(invalid(attempt(vec![a.clone(), b.clone(), c.clone(), open], &name).await));

        let path = log_path(b.name());
        sim.disk.flip_bit(&path, 8 * 40).unwrap();
        let damaged = attempt(vec![a.clone(), b.clone()], &name).await;
        assert!(matches!(damaged, Err(StorageError::Corrupt(_))));
        sim.disk.flip_bit(&path, 8 * 40).unwrap();
        // A bit that no batch's CRC covers.
        sim.disk.flip_bit(&path, 8 * 13).unwrap();
        let damaged = attempt(vec![a.clone(), b.clone()], &name).await;
        assert!(matches!(damaged, Err(StorageError::Corrupt(_))));
        sim.disk.flip_bit(&path, 8 * 13).unwrap();

        sim.disk.fail_write_after(0, true);
        assert!(matches!(
            attempt(vec![a.clone(), b.clone()], &name).await,
            Err(StorageError::NoSpace { .. })
        ));
        pass(&sim, 100).await;
        assert!(sim.disk.read_dir(&Path::new(DIR).join("building")).unwrap().is_empty());
        log.storage.poll_space();
        assert!(!log.storage.holds(&name));
        attempt(vec![a, b], &name).await.unwrap();
        assert!(log.storage.holds(&name));
    });
}

#[test]
fn segments_that_are_joined_keep_every_byte_and_the_state_below_them() {
    simulate(1, async |sim| {
        let mut log = Log::new(open(&sim));
        grow(&mut log, &SimRandom::new(1), 7);
        let run = log.segments[1..6].to_vec();
        let bytes_of = |segment: &Segment| {
            let upper = segment.end();
            segment.read(segment.base(), upper, 1 << 30, true).unwrap().bytes
        };
        let before: Vec<u8> = run.iter().flat_map(|segment| bytes_of(segment)).collect();
        let times: Vec<_> = run.iter().map(|segment| segment.max_timestamp().unwrap()).collect();
        let throttle = Throttle::new(&sim.env, None);
        let name = log.name(run[0].base(), 1);
        let request = RewriteRequest { run: run.clone(), name: name.clone(), keep: Keep::All };
        let Rewritten { info, stats } = rewrite(request, Box::new(NoTransactions), &throttle).await.unwrap();
        assert_eq!((info.end, info.bytes), (run[4].end(), before.len() as u64));
        assert_eq!((stats.records_kept, stats.next_horizon_ms), (stats.records_read, None));
        for segment in &run {
            log.storage.remove(segment.name()).unwrap();
        }
        let storage = {
            drop((log, run));
            sim.disk.crash(CrashPolicy::LoseAll);
            open(&sim)
        };
        let joined = storage.load(name.clone(), info.end, info.bytes, info.crc);
        joined.verify().unwrap();
        assert_eq!(bytes_of(&joined), before);
        assert_eq!(joined.max_timestamp().unwrap(), times.into_iter().max().unwrap());
        assert_eq!(storage.base_snapshot(&joined).unwrap(), format!("state at {}", name.base));
    });
}
