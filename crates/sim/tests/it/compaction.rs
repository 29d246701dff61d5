//! Compaction under power loss and kills at random moments: whoever reads from the beginning finds for
//! every key what was last acknowledged, whatever was rewritten and whenever the disk stopped
//! (K-2.9-02, replication.md 2.15). `SIM_SEEDS=a..b` picks seeds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use base::batch::{BatchBuilder, Batches, Compression, DecompressBuffer};
use base::metrics::Metrics;
use sim::{Connection, Life, World, run};

const LIVES: u64 = 4;
const TOPIC: &str = "table";
const ADDRESS: &str = "127.0.0.1:9092";

/// Few keys with long values, or so many that the memory for keys is too small for a whole pass.
#[derive(Clone, Copy)]
struct Shape {
    keys: u64,
    value_bytes_max: u64,
    batch_records_max: u64,
}

const SHAPES: [Shape; 2] = [
    Shape { keys: 12, value_bytes_max: 30_000, batch_records_max: 6 },
    Shape { keys: 3_000, value_bytes_max: 200, batch_records_max: 100 },
];

/// Everything small and quick, so that a run sees many passes, and tombstones that go.
const SETTINGS: [&str; 8] = [
    "log.segment.bytes=1048576",
    "log.cleanup.policy=compact",
    "log.roll.ms=300",
    "log.cleaner.backoff.ms=50",
    "log.cleaner.min.cleanable.ratio=0.2",
    "log.cleaner.delete.retention.ms=60000",
    // Together room for some 400 keys: passes end within segments.
    "log.cleaner.dedupe.buffer.size=1048576",
    "log.cleaner.io.buffer.load.factor=0.01",
];

type Write = (Vec<u8>, Option<Vec<u8>>);

/// What was sent and what is known of it.
#[derive(Default)]
struct Table {
    /// Writes that are in the log for certain, by offset.
    written: BTreeMap<i64, Write>,
    acknowledged: usize,
    /// Writes without an answer.
    unknown: HashSet<Write>,
    /// Keys whose deletion may or may not have happened.
    maybe_deleted: BTreeSet<Vec<u8>>,
}

impl Table {
    fn lose_sight(&mut self, write: Write) {
        if write.1.is_none() {
            self.maybe_deleted.insert(write.0.clone());
        }
        self.unknown.insert(write);
    }

    /// Holds what a reader found, from the beginning to the end, against what was written.
    fn check(&mut self, read: &[(i64, Write)]) -> Result<(), String> {
        let mut found: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for pair in read.windows(2) {
            if pair[0].0 >= pair[1].0 {
                return Err(format!("offset {} after {}", pair[1].0, pair[0].0));
            }
        }
        for (offset, write) in read {
            match self.written.get(offset) {
                Some(sent) if sent == write => {}
                Some(_) => return Err(format!("offset {offset} holds another write")),
                None if self.unknown.contains(write) => {
                    self.written.insert(*offset, write.clone());
                }
                None => return Err(format!("offset {offset} was never written")),
            }
            found.insert(write.0.clone(), write.1.clone());
        }
        let mut latest: BTreeMap<&Vec<u8>, &Option<Vec<u8>>> = BTreeMap::new();
        for (key, value) in self.written.values() {
            latest.insert(key, value);
        }
        for (key, value) in latest {
            let seen = found.get(key).cloned().flatten();
            if seen != *value && !(seen.is_none() && self.maybe_deleted.contains(key)) {
                let length = |value: &Option<Vec<u8>>| value.as_ref().map(Vec::len);
                return Err(format!("{key:?}: {:?} bytes, not {:?}", length(&seen), length(value)));
            }
        }
        Ok(())
    }
}

struct Run {
    world: World,
    shape: Shape,
    table: Table,
    next_value: u64,
    /// Passes that came to their end, over all lives.
    passes: u64,
}

impl Run {
    fn draw(&self, bound: u64) -> u64 {
        self.world.draw(bound)
    }

    fn draw_write(&mut self) -> Write {
        let key = format!("key-{}", self.draw(self.shape.keys)).into_bytes();
        if self.draw(6) == 0 {
            return (key, None);
        }
        self.next_value += 1;
        let mut value = self.next_value.to_string().into_bytes();
        value.resize(value.len() + self.draw(self.shape.value_bytes_max) as usize, b'.');
        (key, Some(value))
    }

    /// Writes, pauses and reads until the connection breaks or enough was done.
    async fn work(&mut self, steps: u64) -> Result<(), String> {
        let Ok(mut connection) = Connection::open(&self.world, ADDRESS).await else { return Ok(()) };
        if !matches!(connection.create_topic(TOPIC, 1).await, Ok(true)) {
            return Ok(());
        }
        for _ in 0..steps {
            match self.draw(12) {
                0 => self.sleep(70_000).await,
                1 | 2 => self.sleep(400).await,
                3 => {
                    if !self.read_and_check(&mut connection).await? {
                        return Ok(());
                    }
                }
                _ => {
                    if !self.write(&mut connection).await {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    async fn sleep(&self, ms: u64) {
        let up_to = Duration::from_millis(self.draw(ms));
        self.world.sim.env.clock.sleep(up_to).await;
    }

    async fn write(&mut self, connection: &mut Connection) -> bool {
        let writes: Vec<Write> =
            (0..1 + self.draw(self.shape.batch_records_max)).map(|_| self.draw_write()).collect();
        let codec = [Compression::None, Compression::Lz4, Compression::Zstd][self.draw(3) as usize];
        let mut batch = BatchBuilder::new().compression(codec);
        for (key, value) in &writes {
            batch.append(self.world.sim.env.clock.wall_ms(), Some(key), value.as_deref());
        }
        let batch = batch.finish().expect("a batch of a few records");
        match connection.produce(TOPIC, 0, &batch).await {
            Ok((base, 0)) => {
                self.table.acknowledged += writes.len();
                self.table.written.extend((base..).zip(writes));
                true
            }
            answer => {
                writes.into_iter().for_each(|write| self.table.lose_sight(write));
                answer.is_ok()
            }
        }
    }

    /// Reads all there is; false when the connection broke before the end.
    async fn read_and_check(&mut self, connection: &mut Connection) -> Result<bool, String> {
        let mut read = Vec::new();
        let mut offset = 0;
        loop {
            let Ok((bytes, code)) = connection.fetch(TOPIC, 0, offset).await else { return Ok(false) };
            match code {
                0 => {}
                // The topic was not acknowledged, or the disk failed.
                3 if self.table.acknowledged == 0 => return Ok(true),
                56 => return Ok(false),
                code => return Err(format!("code {code} at offset {offset}")),
            }
            if bytes.is_empty() {
                break;
            }
            for batch in Batches::new(&bytes) {
                let batch = batch.map_err(|error| error.to_string())?;
                batch.verify_crc().map_err(|error| error.to_string())?;
                let mut buffer = DecompressBuffer::new(1 << 20);
                for record in batch.records(&mut buffer).map_err(|error| error.to_string())? {
                    let record = record.map_err(|error| error.to_string())?;
                    let write = (record.key.unwrap_or_default().to_vec(), record.value.map(<[u8]>::to_vec));
                    read.push((record.offset, write));
                }
                offset = batch.next_offset();
            }
        }
        self.table.check(&read)?;
        Ok(true)
    }
}

async fn life(run: &mut Run) -> Result<(), String> {
    let life: Life = run.world.start().await?;
    let metrics: Metrics = life.metrics.clone();
    let mut connection = Connection::open(&run.world, ADDRESS).await.map_err(|error| error.to_string())?;
    if !run.read_and_check(&mut connection).await? {
        return Err("the log cannot be read after a start".to_owned());
    }
    let steps = run.draw(120);
    match run.draw(4) {
        0 => {
            run.work(steps).await?;
            life.stop(&run.world).await?;
        }
        1 => {
            run.work(steps).await?;
            run.world.kill(life).await;
        }
        _ => {
            run.world.sim.disk.cut_power_after(run.draw(1_500));
            run.work(200).await?;
            run.world.lose_power(life).await;
        }
    }
    run.passes += metrics.node().compaction_passes.get();
    Ok(())
}

/// A last life without faults: the log reads as it should, and of what was rewritten or removed in all the
/// lives before no file is left.
async fn last_life(run: &mut Run) -> Result<(), String> {
    let life: Life = run.world.start().await?;
    // Long enough for every pass that is due, too short for tombstones to become so.
    run.world.sim.env.clock.sleep(Duration::from_secs(10)).await;
    let mut connection = Connection::open(&run.world, ADDRESS).await.map_err(|error| error.to_string())?;
    run.read_and_check(&mut connection).await?;
    let strays = life.strays();
    if !strays.is_empty() {
        return Err(format!("no chain lists {strays:?}"));
    }
    life.stop(&run.world).await
}

async fn lives(seed: u64) -> Result<Run, String> {
    let world = World::new(seed, 1, &SETTINGS);
    let shape = SHAPES[seed as usize % SHAPES.len()];
    let mut run = Run { world, shape, table: Table::default(), next_value: 0, passes: 0 };
    for _ in 0..LIVES {
        life(&mut run).await?;
    }
    last_life(&mut run).await?;
    Ok(run)
}

#[test]
fn k_2_9_02_the_last_write_of_every_key_survives_compaction_and_power_loss() {
    let (mut acknowledged, mut passes) = (0, 0);
    for seed in sim::seeds(40) {
        let done = run(lives(seed)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        acknowledged += done.table.acknowledged;
        passes += done.passes;
    }
    assert!(passes > 100 && acknowledged > 0, "{passes} passes over {acknowledged} writes prove nothing");
    println!("{passes} passes over {acknowledged} acknowledged writes");
}
