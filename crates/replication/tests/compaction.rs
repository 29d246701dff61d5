//! Rewrites of one log through its chain, on a simulated disk: compaction (K-2.9-02, K-2.9-03, replication.md 2.15), and the
//! joining of small segments (2.13).

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::batch::{BatchBuilder, BatchHeader, Batches, DecompressBuffer, HEADER_LEN};
use base::chain::{Member, NewSegment, PartitionState, Rewrite, Seal};
use base::config::{Durability, TopicSettings};
use base::env::sim::Sim;
use base::env::{BoxFuture, Env};
use base::ids::*;
use bytes::Bytes;
use parking_lot::Mutex;
use replication::*;

const BROKER: BrokerId = BrokerId(1);
const INCARNATION: Incarnation = Incarnation(1);
const PARTITION: TopicPartition = TopicPartition { topic_id: Uuid([7; 16]), partition: PartitionId(0) };

/// A chain in memory, and a hook for what happens before the next `Replace`.
struct Chains {
    state: Mutex<(PartitionState, u64)>,
    before_replace: Mutex<Option<Offset>>,
    /// The next `Replace` is made, and nobody hears of it.
    loses_answer: AtomicBool,
}

impl Chains {
    fn edit(
        &self,
        edit: impl FnOnce(&mut PartitionState, SegmentId) -> Result<(), base::chain::ChainError>,
    ) -> Result<Arc<PartitionState>, ChainStoreError> {
        let mut guard = self.state.lock();
        guard.1 += 1;
        let next = SegmentId(guard.1);
        edit(&mut guard.0, next)?;
        Ok(Arc::new(guard.0.clone()))
    }

    fn now<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
        Box::pin(std::future::ready(value))
    }
}

type Edited<'a> = BoxFuture<'a, Result<Arc<PartitionState>, ChainStoreError>>;

impl ChainStore for Chains {
    fn takes_edits(&self) -> bool {
        true
    }

    fn partition(&self, _: TopicPartition) -> Option<Arc<PartitionState>> {
        Some(Arc::new(self.state.lock().0.clone()))
    }

    fn seal_and_open(&self, _: TopicPartition, seal: Seal, ensemble: Vec<Member>) -> Edited<'_> {
        Chains::now(
            self.edit(|state, id| state.seal_and_open(&seal, NewSegment { id, ensemble, ack_quorum: 1 }, 1)),
        )
    }

    fn trim(&self, _: TopicPartition, start: Offset) -> Edited<'_> {
        Chains::now(self.edit(|state, _| state.trim(start).map(drop)))
    }

    fn replace(&self, partition: TopicPartition, rewrite: Rewrite) -> Edited<'_> {
        if let Some(start) = self.before_replace.lock().take() {
            drop(self.trim(partition, start));
        }
        let edited = self.edit(|state, _| state.replace(rewrite, 1).map(drop));
        let is_lost = self.loses_answer.swap(false, Ordering::Relaxed);
        Chains::now(if is_lost { Err(ChainStoreError::Unavailable("lost".into())) } else { edited })
    }
}

/// Producer 9 is alive, and wrote its last batch where this says.
#[derive(Default)]
struct Alive(Option<Offset>);

impl Derived for Alive {
    fn restore(&mut self, _: &[u8]) -> bool {
        true
    }
    fn replay(&mut self, _: &BatchHeader) {}
    fn snapshot(&self) -> Bytes {
        Bytes::new()
    }
    fn live_producers(&self) -> HashMap<i64, LiveProducer> {
        self.0.map(|offset| (9, LiveProducer { epoch: 0, last_offset: Some(offset) })).into_iter().collect()
    }
}

struct World {
    env: Env,
    storage: Arc<Storage>,
    chains: Arc<Chains>,
    log: Arc<Log<Alive>>,
    /// What was written last for each key.
    table: BTreeMap<String, Option<String>>,
}

fn settings() -> TopicSettings {
    TopicSettings {
        compact: true,
        delete: false,
        durability: Durability::PageCache,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: 60_000,
        ..TopicSettings::default()
    }
}

impl World {
    fn new(settings: TopicSettings) -> World {
        let env = Sim::new(5).env;
        let storage = Storage::open(env.clone(), PathBuf::from("/log"), StorageOptions::default()).unwrap();
        let member = Member { broker: BROKER, storage: storage.id(), incarnation: INCARNATION };
        let first = NewSegment { id: SegmentId(1), ensemble: vec![member], ack_quorum: 1 };
        let state = PartitionState::create(BROKER, LeaderEpoch(0), vec![BROKER], 0, first);
        let chains = Arc::new(Chains {
            state: Mutex::new((state.clone(), 1)),
            before_replace: Mutex::default(),
            loses_answer: AtomicBool::new(false),
        });
        let log = open(&env, &storage, &chains, settings);
        World { env, storage, chains, log, table: BTreeMap::new() }
    }

    fn budget(&self) -> CompactionBudget {
        CompactionBudget {
            throttle: Arc::new(Throttle::new(&self.env, None)),
            map_bytes: 1 << 20,
            load_factor: 0.9,
        }
    }

    fn append(&mut self, batch: BatchBuilder, writes: &[(&str, Option<&str>)]) {
        let now_ms = self.env.clock.wall_ms();
        let TailState::Ready(mut tail) = self.log.tail() else { panic!("the tail takes appends") };
        let base = tail.next_offset();
        let mut batch = batch.base_offset(base).leader_epoch(tail.leader_epoch().0);
        for (key, value) in writes {
            batch.append(now_ms, Some(key.as_bytes()), value.map(str::as_bytes));
            self.table.insert((*key).to_owned(), value.map(str::to_owned));
        }
        let bytes = batch.finish().unwrap();
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().unwrap();
        let next_offset = base + writes.len() as i64;
        tail.append(&[Append { header: *header, rest, next_offset, wait: replication::Wait::No }]).unwrap();
    }

    fn write(&mut self, writes: &[(&str, Option<&str>)]) {
        self.append(BatchBuilder::new(), writes);
    }

    async fn compact(&self) -> Compacted {
        self.log.compact(&self.budget(), self.env.clock.wall_ms()).await.unwrap()
    }

    async fn coalesce(&self) -> Coalesced {
        self.log.coalesce(&self.budget().throttle).await.unwrap()
    }

    /// Writes a record into a segment of its own, so many times.
    async fn write_segments(&mut self, count: usize) {
        for _ in 0..count {
            let round = self.table.len().to_string();
            self.log.edit_tail().await.unwrap();
            self.write(&[(&round, Some("x"))]);
            self.log.roll_now().await.unwrap();
        }
    }

    /// Names of the segments on the disk, and of those in the chain.
    fn names(&self) -> [Vec<(SegmentId, Generation)>; 2] {
        let mut found: Vec<_> =
            self.storage.scan().map(|name| name.unwrap()).map(|name| (name.id, name.generation)).collect();
        found.sort();
        let state = self.chains.partition(PARTITION).unwrap();
        let mut listed: Vec<_> = state.chain.iter().map(|entry| (entry.id, entry.generation)).collect();
        listed.sort();
        // What was opened last has no file before its first record.
        listed.retain(|name| *name != (state.last().id, state.last().generation));
        found.retain(|name| *name != (state.last().id, state.last().generation));
        [found, listed]
    }

    /// Elects this broker anew, which begins an epoch with the next segment.
    fn elect(&mut self) {
        self.log.close();
        self.chains.state.lock().0.elect(BROKER);
        let settings = TopicSettings::clone(&self.log.settings());
        self.log = open(&self.env, &self.storage, &self.chains, settings);
    }
}

fn open(env: &Env, storage: &Arc<Storage>, chains: &Arc<Chains>, settings: TopicSettings) -> Arc<Log<Alive>> {
    let spec = LogSpec {
        env: env.clone(),
        partition: PARTITION,
        topic: "table".into(),
        broker: BROKER,
        incarnation: INCARNATION,
        storages: Arc::new(vec![storage.clone()]),
        store: chains.clone(),
        settings: Arc::new(settings),
        peers: None,
    };
    let state = chains.state.lock().0.clone();
    Log::open(spec, Arc::new(state), Alive::default()).unwrap()
}

/// Offset, key and value of all records from the log start to the end, the end being reached.
fn read(log: &Log<Alive>) -> Vec<(Offset, String, Option<String>)> {
    let mut found = Vec::new();
    let mut offset = log.log_start();
    loop {
        let bytes = log.read(offset, 100, true).unwrap();
        if bytes.is_empty() {
            assert_eq!(offset, log.high_watermark(), "a reader must come to the end");
            return found;
        }
        for batch in Batches::new(&bytes) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            offset = batch.next_offset();
            for record in batch.records(&mut DecompressBuffer::new(1 << 20)).unwrap() {
                let record = record.unwrap();
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                found.push((record.offset, text(record.key.unwrap()), record.value.map(text)));
            }
        }
    }
}

/// The state a reader comes to.
fn table(records: &[(Offset, String, Option<String>)]) -> BTreeMap<String, Option<String>> {
    records.iter().map(|(_, key, value)| (key.clone(), value.clone())).collect()
}

fn simulate(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(test);
}

#[test]
fn k_2_9_02_of_every_key_the_last_record_stays_at_its_offset() {
    simulate(async {
        let mut world = World::new(settings());
        for round in 0..10 {
            for key in ["a", "b", "c"] {
                world.write(&[(key, Some(&format!("{key}{round}")))]);
            }
            world.log.roll_now().await.unwrap();
        }
        let before = read(&world.log);
        let done = world.compact().await;
        assert_eq!((done.segments_before, done.segments_after, done.records_kept), (10, 1, 3));
        let after = read(&world.log);
        assert_eq!(after, before[27..], "offsets stay");
        assert_eq!(world.log.state().compacted_to, 30);
        world.write(&[("a", Some("new")), ("d", Some("open"))]);
        assert_eq!(table(&read(&world.log)), world.table);
        assert!(!world.log.dirt(0).unwrap().is_due(&settings()), "the open segment is left alone");
        world.env.clock.sleep(Duration::from_secs(1)).await;
        let names = world.storage.scan().count();
        assert_eq!(names, world.log.segment_count(), "the old files are gone");
    });
}

#[test]
fn readers_find_the_table_at_every_moment_of_a_pass() {
    simulate(async {
        let mut world = World::new(TopicSettings { segment_bytes: 2_000, ..settings() });
        for round in 0..40 {
            for key in 0..20 {
                world.write(&[(&format!("key {key}"), Some(&format!("{round} {key}")))]);
            }
            world.log.roll_now().await.unwrap();
        }
        let (log, budget) = (world.log.clone(), world.budget());
        let pass = tokio::spawn(async move { log.compact(&budget, 0).await });
        let mut looks = 0;
        while !pass.is_finished() {
            assert_eq!(table(&read(&world.log)), world.table);
            world.env.clock.sleep(Duration::from_micros(100)).await;
            looks += 1;
        }
        let done = pass.await.unwrap().unwrap();
        assert!(looks > 20 && done.segments_after > 5, "{looks} looks at {done:?}");
        assert_eq!(done.records_kept, 20);
        assert_eq!(table(&read(&world.log)), world.table);
    });
}

#[test]
fn epochs_end_where_they_ended_before_the_rewrite() {
    simulate(async {
        let mut world = World::new(settings());
        for round in 0..6 {
            world.write(&[("a", Some("x")), ("b", Some("y"))]);
            if round % 2 == 1 {
                world.elect();
            }
            world.log.roll_now().await.unwrap();
        }
        let ends = || (0..5).map(|epoch| world.log.epoch_end(LeaderEpoch(epoch))).collect::<Vec<_>>();
        let before = ends();
        assert_eq!(before[0], Some((LeaderEpoch(0), 4)));
        world.compact().await;
        assert_eq!(world.log.state().chain[0].epochs.len(), 3);
        assert_eq!(ends(), before);
    });
}

#[test]
fn a_trim_that_comes_first_wins_and_the_rewrite_leaves_nothing() {
    simulate(async {
        let mut world = World::new(settings());
        for _ in 0..4 {
            world.write(&[("a", Some("x")), ("b", Some("y"))]);
            world.log.roll_now().await.unwrap();
        }
        *world.chains.before_replace.lock() = Some(4);
        let error = world.log.compact(&world.budget(), 0).await.unwrap_err();
        assert!(matches!(error, CompactionError::Chain(ChainStoreError::Refused(_))), "{error}");
        let state = world.chains.partition(PARTITION).unwrap();
        assert_eq!((state.log_start, state.compacted_to), (4, 0));
        assert_eq!(world.log.trim(5).await.unwrap(), 5);
        world.env.clock.sleep(Duration::from_secs(1)).await;
        let names = world.storage.scan().map(|name| name.unwrap().generation).collect::<Vec<_>>();
        assert_eq!(names.len(), world.log.segment_count());
        assert!(names.iter().all(|generation| generation.0 == 0), "{names:?}");
        world.compact().await;
        assert_eq!(table(&read(&world.log)), world.table);
    });
}

/// The next leader has opened a segment on another broker when the log start is raised by the one before, who does not know
/// yet that he is deposed.
#[test]
fn a_log_does_not_show_the_chain_of_a_later_leader() {
    simulate(async {
        let mut world = World::new(settings());
        for _ in 0..2 {
            world.write(&[("a", Some("x")), ("b", Some("y"))]);
            world.log.roll_now().await.unwrap();
        }
        let before = read(&world.log);
        {
            let mut chains = world.chains.state.lock();
            chains.0.elect(BrokerId(2));
            let (broker, storage) = (BrokerId(2), Uuid([2; 16]));
            let member = Member { broker, storage, incarnation: INCARNATION };
            let last = chains.0.last();
            let seal = Seal {
                segment: last.id,
                leader_epoch: LeaderEpoch(1),
                end: last.base,
                crc: 0,
                bytes: 0,
                holders: vec![storage],
                unclean: false,
            };
            let next = NewSegment { id: SegmentId(99), ensemble: vec![member], ack_quorum: 1 };
            chains.0.seal_and_open(&seal, next, 1).unwrap();
        }
        assert_eq!(world.log.trim(2).await.unwrap(), 2);
        assert_eq!((world.log.leader_epoch(), world.log.log_start()), (LeaderEpoch(0), 0));
        assert_eq!(read(&world.log), before);
    });
}

#[test]
fn k_2_9_03_young_records_are_left_alone_and_old_ones_are_not() {
    simulate(async {
        let lags = TopicSettings { min_compaction_lag_ms: 10_000, ..settings() };
        let mut world = World::new(lags);
        world.write(&[("a", Some("1"))]);
        world.write(&[("a", Some("2"))]);
        world.log.roll_now().await.unwrap();
        world.env.clock.sleep(Duration::from_secs(8)).await;
        world.write(&[("a", Some("3"))]);
        world.write(&[("a", Some("4"))]);
        world.log.roll_now().await.unwrap();
        let now_ms = || world.env.clock.wall_ms();
        assert_eq!(world.log.dirt(now_ms()).unwrap().dirty_bytes, 0);
        world.env.clock.sleep(Duration::from_secs(3)).await;
        world.compact().await;
        let offsets: Vec<_> = read(&world.log).iter().map(|record| record.0).collect();
        assert_eq!(offsets, [1, 2, 3], "younger duplicates survive");

        let impatient =
            TopicSettings { max_compaction_lag_ms: 5_000, min_cleanable_dirty_ratio: 1.0, ..settings() };
        world.log.configure(Arc::new(impatient.clone()));
        assert!(!world.log.dirt(now_ms()).unwrap().is_due(&impatient));
        world.env.clock.sleep(Duration::from_secs(4)).await;
        let dirt = world.log.dirt(now_ms()).unwrap();
        assert!(dirt.is_due(&impatient) && (1_000..3_000).contains(&dirt.overdue_ms), "{dirt:?}");
        world.compact().await;
        assert_eq!(read(&world.log).len(), 1);
    });
}

#[test]
fn tombstones_go_after_their_time_without_a_new_write() {
    simulate(async {
        let mut world = World::new(settings());
        world.write(&[("a", Some("1")), ("b", Some("1"))]);
        world.write(&[("a", None)]);
        world.write(&[("c", Some("1"))]);
        world.log.roll_now().await.unwrap();
        world.compact().await;
        let keys = |world: &World| read(&world.log).into_iter().map(|record| record.1).collect::<Vec<_>>();
        assert_eq!(keys(&world), ["b", "a", "c"], "the tombstone stays for delete.retention.ms");
        let due_ms = world.log.next_tombstone_horizon_ms().unwrap();
        assert!(!world.log.dirt(due_ms - 1).unwrap().is_due(&settings()));
        assert!(world.log.dirt(due_ms).unwrap().is_due(&settings()));
        world.env.clock.sleep(Duration::from_secs(61)).await;
        world.compact().await;
        assert_eq!(keys(&world), ["b", "c"]);
        assert_eq!(world.log.next_tombstone_horizon_ms(), None);
        assert!(!world.log.dirt(i64::MAX).unwrap().is_due(&settings()));
    });
}

#[test]
fn the_logs_last_record_stays_even_as_a_tombstone_until_another_follows() {
    simulate(async {
        let mut world = World::new(settings());
        world.write(&[("a", Some("1"))]);
        world.write(&[("a", None)]);
        world.log.roll_now().await.unwrap();
        world.compact().await;
        world.env.clock.sleep(Duration::from_secs(61)).await;
        assert!(!world.log.dirt(i64::MAX).unwrap().is_due(&settings()), "nothing to do again and again");
        assert_eq!(
            read(&world.log),
            [(1, "a".to_owned(), None)],
            "consumers must be given something at the end"
        );
        world.write(&[("b", Some("1"))]);
        world.log.roll_now().await.unwrap();
        world.compact().await;
        world.env.clock.sleep(Duration::from_secs(61)).await;
        world.compact().await;
        assert_eq!(read(&world.log), [(2, "b".to_owned(), Some("1".to_owned()))]);
    });
}

#[test]
fn a_live_producers_last_batch_stays_and_memory_for_keys_bounds_a_pass() {
    simulate(async {
        let mut world = World::new(settings());
        world.append(BatchBuilder::new().producer(9, 0, 0), &[("a", Some("1"))]);
        world.append(BatchBuilder::new().producer(9, 0, 1), &[("a", Some("2"))]);
        world.write(&[("a", Some("3")), ("b", Some("3")), ("c", Some("3"))]);
        world.log.roll_now().await.unwrap();
        let TailState::Ready(mut tail) = world.log.tail() else { panic!("the tail takes appends") };
        tail.derived().0 = Some(1);
        drop(tail);
        let tight = CompactionBudget { map_bytes: 24 * 3, ..world.budget() };
        world.log.compact(&tight, 0).await.unwrap();
        assert_eq!(world.log.state().compacted_to, 2, "two keys fit, and the next batch has three");
        let error = world.log.compact(&tight, 0).await.unwrap_err();
        assert!(matches!(error, CompactionError::MapTooSmall { .. }), "{error}");
        world.compact().await;
        assert_eq!(table(&read(&world.log)), world.table);
        let bytes = world.log.read(0, 1_000, true).unwrap();
        let batches: Vec<_> = Batches::new(&bytes).map(|batch| batch.unwrap().record_count).collect();
        assert_eq!(batches, [0, 3], "the empty batch of producer 9, then the rest");
    });
}

fn plain() -> TopicSettings {
    TopicSettings {
        compact: false,
        delete: true,
        durability: Durability::PageCache,
        ..TopicSettings::default()
    }
}

#[test]
fn small_segments_become_one_and_nobody_sees_a_difference() {
    simulate(async {
        let mut world = World::new(plain());
        for _ in 0..4 {
            world.write_segments(4).await;
            world.elect();
        }
        world.write_segments(1).await;
        let ends =
            |world: &World| (-1..6).map(|epoch| world.log.epoch_end(LeaderEpoch(epoch))).collect::<Vec<_>>();
        let (records, before) = (read(&world.log), ends(&world));
        assert_eq!(before[1..3], [Some((LeaderEpoch(0), 4)), Some((LeaderEpoch(1), 8))]);
        assert!(world.log.coalescing_is_due().unwrap());
        let bytes = world.log.size();
        let done = world.coalesce().await;
        assert!(done.segments_before >= 16 && done.segments_after <= 2 && done.bytes <= bytes, "{done:?}");
        assert_eq!(world.log.segment_count(), 18 - done.segments_before + done.segments_after);
        assert!(!world.log.coalescing_is_due().unwrap());
        assert_eq!(world.coalesce().await, Coalesced::default());
        assert_eq!(
            (read(&world.log), ends(&world), world.log.size()),
            (records.clone(), before.clone(), bytes)
        );
        world.env.clock.sleep(Duration::from_secs(1)).await;
        let [found, listed] = world.names();
        assert_eq!(found, listed);
        // Another life finds the same.
        world.log.close();
        world.log = open(&world.env, &world.storage, &world.chains, plain());
        assert_eq!((read(&world.log), ends(&world)), (records, before));
        assert_eq!(world.log.trim(6).await.unwrap(), 6);
        assert_eq!(read(&world.log)[0].0, 6);
    });
}

#[test]
fn what_is_soon_joined_again_waits_until_it_is_worth_it() {
    simulate(async {
        let mut world = World::new(plain());
        let mut longest = 0;
        for _ in 0..90 {
            world.write_segments(1).await;
            if world.log.coalescing_is_due().unwrap() {
                world.coalesce().await;
            }
            longest = longest.max(world.log.segment_count());
        }
        assert!(longest < 25, "{longest}");
        assert_eq!(read(&world.log).len(), 90);
    });
}

#[test]
fn a_replace_whose_answer_was_lost_is_asked_for_again() {
    simulate(async {
        let mut world = World::new(plain());
        world.write_segments(12).await;
        let records = read(&world.log);
        world.chains.loses_answer.store(true, Ordering::Relaxed);
        world.coalesce().await;
        let state = world.chains.partition(PARTITION).unwrap();
        assert_eq!(*world.log.state(), *state, "the log knows that it was made");
        assert_eq!(read(&world.log), records);
        world.env.clock.sleep(Duration::from_secs(1)).await;
        let [found, listed] = world.names();
        assert_eq!(found, listed, "what is listed is not overwritten or removed");
        for held in found {
            let entry = state.chain.iter().find(|entry| (entry.id, entry.generation) == held).unwrap();
            let base::chain::SegmentState::Sealed { end, crc, bytes, .. } = entry.state else {
                panic!("sealed")
            };
            let name = SegmentName {
                topic: "table".into(),
                partition: PARTITION,
                id: entry.id,
                generation: entry.generation,
                base: entry.base,
            };
            world.storage.load(name, end, bytes, crc).verify().unwrap();
        }
    });
}

#[test]
fn a_leader_that_was_replaced_joins_nothing() {
    simulate(async {
        let mut world = World::new(plain());
        world.write_segments(12).await;
        world.chains.state.lock().0.elect(BrokerId(2));
        let before = world.chains.partition(PARTITION).unwrap();
        let error = world.log.coalesce(&world.budget().throttle).await.unwrap_err();
        assert!(matches!(error, CompactionError::Chain(ChainStoreError::Refused(_))), "{error}");
        assert_eq!(world.chains.partition(PARTITION).unwrap(), before);
        let [found, listed] = world.names();
        assert_eq!(found, listed);
    });
}

#[test]
fn records_are_deleted_while_their_segments_are_joined() {
    simulate(async {
        let mut world = World::new(plain());
        world.write_segments(12).await;
        *world.chains.before_replace.lock() = Some(4);
        let error = world.log.coalesce(&world.budget().throttle).await.unwrap_err();
        assert!(matches!(error, CompactionError::Chain(ChainStoreError::Refused(_))), "{error}");
        assert_eq!(world.log.trim(5).await.unwrap(), 5);
        world.write_segments(6).await;
        world.coalesce().await;
        let offsets: Vec<_> = read(&world.log).iter().map(|record| record.0).collect();
        assert_eq!(offsets, (5..18).collect::<Vec<_>>());
        world.env.clock.sleep(Duration::from_secs(1)).await;
        let [found, listed] = world.names();
        assert_eq!(found, listed);
    });
}

#[test]
fn of_a_compacted_log_only_what_waits_for_compaction_is_joined() {
    simulate(async {
        let lazy = TopicSettings { min_cleanable_dirty_ratio: 0.9, segment_bytes: 150, ..settings() };
        let mut world = World::new(lazy.clone());
        world.write_segments(10).await;
        world.compact().await;
        let clean: Vec<_> =
            world.log.state().chain.iter().filter(|entry| !entry.is_open()).cloned().collect();
        assert!(clean.len() >= 5, "two of them fit into one: {}", clean.len());
        world.log.configure(Arc::new(TopicSettings { segment_bytes: 1 << 20, ..lazy }));
        world.write_segments(SAVED_MIN).await;
        assert!(!world.log.coalescing_is_due().unwrap());
        world.write_segments(6).await;
        world.coalesce().await;
        assert_eq!(world.log.state().chain[..clean.len()], clean);
        assert!(world.log.segment_count() < clean.len() + 6, "{}", world.log.segment_count());
        assert_eq!(table(&read(&world.log)), world.table);
        world.compact().await;
        assert_eq!(table(&read(&world.log)), world.table);
    });
}

#[test]
fn what_retention_keeps_for_different_times_stays_apart() {
    simulate(async {
        let day = Duration::from_secs(86_400);
        let settings = TopicSettings { retention_ms: Some(8 * 86_400_000), ..plain() };
        let mut world = World::new(settings.clone());
        for _ in 0..20 {
            world.write_segments(1).await;
            world.env.clock.sleep(day).await;
        }
        assert!(!world.log.coalescing_is_due().unwrap(), "one for each day");
        for _ in 0..20 {
            world.write_segments(4).await;
            world.env.clock.sleep(day).await;
        }
        world.coalesce().await;
        let now_ms = world.env.clock.wall_ms();
        world.log.retain(now_ms).await.unwrap();
        // What is less than eight days old is kept, and what lies in the same eighth of them as the eldest of that.
        let kept = read(&world.log).len();
        assert!((4 * 7..=4 * 8).contains(&kept), "{kept}");
    });
}
