//! Idempotent producers with five requests in flight, over power loss, kills and broken connections: whatever
//! they send again, every record is in the log once, in order, and no correct producer is refused
//! (KIP-98, X-07). `SIM_SEEDS=a..b` picks seeds.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::batch::{BatchBuilder, Batches, DecompressBuffer, next_sequence};
use base::env::sim::CrashPolicy;
use sim::{Connection, Producer, World, run, seeds};

const ADDRESS: &str = "127.0.0.1:9092";
const TOPIC: &str = "orders";
const PARTITIONS: usize = 3;
const PRODUCERS: u64 = 3;
const LIVES: u64 = 5;

/// Small and short-lived segments, so that retries meet rolls.
const SETTINGS: [&str; 2] = ["log.segment.bytes=1048576", "log.roll.ms=150"];

#[derive(Default)]
struct Run {
    producers: Vec<Producer>,
    /// Those that ended with batches whose fate they never learned.
    gone: Vec<Producer>,
    /// What a reader found in each partition so far.
    read: [Vec<u8>; PARTITIONS],
    next_number: u64,
}

/// How often what happened.
#[derive(Default, Debug)]
struct Counts {
    records: usize,
    repeated: u64,
    segments: usize,
}

impl Run {
    /// Some producers are replaced by new ones, as when a client is started anew.
    fn recruit(&mut self, world: &Arc<World>) {
        self.producers.retain(|producer| producer.id() >= 0);
        if world.draw(3) == 0 {
            self.gone.extend(self.producers.pop());
        }
        while (self.producers.len() as u64) < PRODUCERS {
            self.next_number += 1;
            self.producers.push(Producer::new(world.clone(), ADDRESS, TOPIC, PARTITIONS, self.next_number));
        }
    }

    /// Lets all producers work side by side, and `meanwhile` goes on: it may end the broker's life under them.
    async fn work<T>(
        &mut self,
        batches: u64,
        meanwhile: impl AsyncFnOnce() -> Result<T, String>,
    ) -> Result<T, String> {
        let working = self.producers.drain(..).map(|producer| tokio::spawn(producer.work(batches)));
        let working: Vec<_> = working.collect();
        let result = meanwhile().await;
        for task in working {
            self.producers.push(task.await.map_err(|error| error.to_string())??);
        }
        self.check_ids()?;
        result
    }

    fn check_ids(&self) -> Result<(), String> {
        let mut known = HashSet::new();
        let twice = self.everyone().map(Producer::id).find(|id| *id >= 0 && !known.insert(*id));
        twice.map_or(Ok(()), |id| Err(format!("two producers have the id {id}")))
    }

    fn everyone(&self) -> impl Iterator<Item = &Producer> {
        self.producers.iter().chain(&self.gone)
    }

    /// Reads every partition and holds it against what the producers know.
    async fn check(&mut self, world: &World) -> Result<(), String> {
        let mut connection = Connection::open(world, ADDRESS).await.map_err(|error| error.to_string())?;
        for partition in 0..PARTITIONS {
            let bytes = connection.read(TOPIC, partition as i32).await.map_err(|error| error.to_string())?;
            let bytes = bytes.map_err(|code| format!("partition {partition} cannot be read: {code}"))?;
            self.check_partition(partition, &bytes)
                .map_err(|error| format!("partition {partition}: {error}"))?;
            if !bytes.starts_with(&self.read[partition]) {
                return Err(format!("partition {partition}: what was read before is gone or changed"));
            }
            self.read[partition] = bytes;
        }
        Ok(())
    }

    fn check_partition(&self, partition: usize, bytes: &[u8]) -> Result<(), String> {
        let mut found: BTreeMap<i64, Vec<(i64, Vec<u8>)>> = BTreeMap::new();
        let mut buffer = DecompressBuffer::new(1 << 20);
        let mut end = 0;
        for batch in Batches::new(bytes) {
            let batch = batch.map_err(|error| error.to_string())?;
            batch.verify_crc().map_err(|error| error.to_string())?;
            let of_producer = found.entry(batch.producer_id).or_default();
            let expected = next_sequence(0, of_producer.len() as i32);
            if batch.base_sequence != expected {
                let (id, sequence) = (batch.producer_id, batch.base_sequence);
                return Err(format!("offset {end}: sequence {sequence} of id {id}, not {expected}"));
            }
            for record in batch.records(&mut buffer).map_err(|error| error.to_string())? {
                let record = record.map_err(|error| error.to_string())?;
                if record.offset != end {
                    return Err(format!("offset {} where {end} should be", record.offset));
                }
                end += 1;
                of_producer.push((record.offset, record.value.unwrap_or_default().to_vec()));
            }
        }
        for producer in self.everyone() {
            let records = found.remove(&producer.id()).unwrap_or_default();
            check_producer(producer, partition, &records)
                .map_err(|error| format!("id {}: {error}", producer.id()))?;
        }
        if found.is_empty() { Ok(()) } else { Err(format!("ids nobody has: {:?}", found.keys())) }
    }
}

/// Holds the records of one producer in one partition, in the log's order, against what it knows.
fn check_producer(producer: &Producer, partition: usize, records: &[(i64, Vec<u8>)]) -> Result<(), String> {
    let sent = producer.values(partition);
    for (sequence, (offset, value)) in records.iter().enumerate() {
        if sent.get(sequence) != Some(&&value[..]) {
            return Err(format!("offset {offset} does not hold what was sent as sequence {sequence}"));
        }
    }
    for (sequence, offset) in producer.acknowledged(partition) {
        let found = records.get(sequence as usize).map(|(offset, _)| *offset);
        if found != Some(offset) {
            return Err(format!("sequence {sequence} was acknowledged at {offset} and is at {found:?}"));
        }
    }
    if producer.is_settled() && records.len() != sent.len() {
        return Err(format!("{} records were acknowledged, {} are there", sent.len(), records.len()));
    }
    Ok(())
}

async fn life(world: &Arc<World>, run: &mut Run) -> Result<(), String> {
    let life = world.start().await?;
    let mut connection = Connection::open(world, ADDRESS).await.map_err(|error| error.to_string())?;
    if !matches!(connection.create_topic(TOPIC, PARTITIONS as i32).await, Ok(true)) {
        return Err("the topic is not there".to_owned());
    }
    run.check(world).await?;
    run.recruit(world);
    let moment = Duration::from_millis(world.draw(1_500));
    let at_random = world.sim.env.clock.sleep(moment);
    match world.draw(4) {
        0 => {
            let stop = async || {
                at_random.await;
                life.stop(world).await
            };
            run.work(60, stop).await
        }
        1 => {
            let kill = async || {
                at_random.await;
                world.kill(life).await;
                Ok(())
            };
            run.work(60, kill).await
        }
        2 => {
            let lose_power = async || {
                at_random.await;
                world.lose_power(life).await;
                Ok(())
            };
            run.work(60, lose_power).await
        }
        _ => {
            world.sim.disk.cut_power_after(world.draw(400));
            run.work(60, async || Ok(())).await?;
            world.lose_power(life).await;
            Ok(())
        }
    }
}

async fn lives(seed: u64) -> Result<Counts, String> {
    let world = Arc::new(World::new(seed, 1 + seed as usize % 2, &SETTINGS));
    let mut run = Run::default();
    for _ in 0..LIVES {
        life(&world, &mut run).await?;
    }
    let life = world.start().await?;
    run.check(&world).await?;
    run.work(5, async || Ok(())).await?;
    if !run.producers.iter().all(Producer::is_settled) {
        return Err("a life without faults left batches without an answer".to_owned());
    }
    run.check(&world).await?;
    let count =
        |producer: &Producer| (0..PARTITIONS).map(|at| producer.acknowledged(at).len()).sum::<usize>();
    let records = run.everyone().map(count).sum();
    let repeated = run.everyone().map(|producer| producer.repeated).sum();
    let segments = life.segments();
    life.stop(&world).await?;
    Ok(Counts { records, repeated, segments })
}

#[test]
fn kip_98_pipelined_batches_are_written_once_and_in_order_whatever_is_sent_again() {
    let mut all = Counts::default();
    for seed in seeds(40) {
        let counts = run(lives(seed)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        all.records += counts.records;
        all.repeated += counts.repeated;
        all.segments += counts.segments;
    }
    assert!(all.records > 0 && all.repeated > 0 && all.segments > PARTITIONS, "{all:?} proves nothing");
    println!("{all:?}");
}

/// The power cut kept the bytes of a batch nobody was answered for, but not the producers' state at the base
/// of its segment: the batches below count as much as before.
#[test]
fn retries_are_recognised_when_the_state_at_the_base_of_the_open_segment_is_lost() {
    run(async {
        let world = World::new(1, 1, &SETTINGS);
        let batch = |sequence| {
            let mut batch = BatchBuilder::new().producer(7, 0, sequence);
            batch.append(world.sim.env.clock.wall_ms(), None, Some(b"value"));
            batch.finish().expect("a batch of one record")
        };
        let batches: Vec<_> = (0..4).map(batch).collect();
        let life = world.start().await.unwrap();
        let mut connection = Connection::open(&world, ADDRESS).await.unwrap();
        assert!(connection.create_topic(TOPIC, 1).await.unwrap());
        for (offset, batch) in (0..3).zip(&batches) {
            assert_eq!(connection.produce(TOPIC, 0, batch).await.unwrap(), (offset, 0));
        }
        world.sim.env.clock.sleep(Duration::from_secs(1)).await;
        assert_eq!(connection.produce(TOPIC, 0, &batches[3]).await.unwrap(), (3, 0));
        let image = life.broker.image();
        let topic = image.topic(TOPIC).unwrap();
        let last = topic.partitions[0].chain.last().unwrap();
        assert_eq!(last.base, 3, "the segment was rolled");
        let directory = format!("/data/log0/topics/{TOPIC}/0.{}/{:020}.{}.0", topic.id, last.base, last.id);
        world.sim.disk.crash(CrashPolicy::KeepAll);
        world.sim.disk.overwrite(&Path::new(&directory).join("base.checkpoint"), b"").unwrap();
        life.bury().await;

        let life = world.start().await.unwrap();
        let mut connection = Connection::open(&world, ADDRESS).await.unwrap();
        for (offset, batch) in (0..4).zip(&batches) {
            assert_eq!(connection.produce(TOPIC, 0, batch).await.unwrap(), (offset, 0), "sent again");
        }
        life.stop(&world).await.unwrap();
    });
}
