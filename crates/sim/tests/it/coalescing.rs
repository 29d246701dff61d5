//! Small segments are joined under power loss and kills at random moments: every acknowledged record is there afterwards,
//! in order, once, and of what was joined no file is left (replication.md 2.13). `SIM_SEEDS=a..b` picks seeds.

use std::time::Duration;

use base::batch::BatchBuilder;
use sim::{Connection, Journal, Life, World, run, seeds};

const PARTITIONS: i32 = 2;
/// Each seals a segment, so that a run sees several joins.
const LIVES: u64 = 24;
const TOPIC: &str = "ledger";
const ADDRESS: &str = "127.0.0.1:9092";
/// Long enough for what is due.
const QUIET: Duration = Duration::from_secs(3);
/// Segments that are left at most: some of each size, and those whose joining is not due yet.
const SEGMENTS_MAX: usize = PARTITIONS as usize * 18;

const SETTINGS: [&str; 3] = ["log.segment.bytes=1048576", "num.partitions=2", "log.cleaner.backoff.ms=50"];

struct Run {
    world: World,
    journal: Journal,
    next_value: u64,
    /// Segments that were joined, in all lives.
    joined: u64,
}

impl Run {
    fn draw(&self, bound: u64) -> u64 {
        self.world.draw(bound)
    }

    /// Produces until the connection breaks or enough was written, and waits for what is joined.
    async fn work(&mut self, batches: u64) {
        let Ok(mut connection) = Connection::open(&self.world, ADDRESS).await else { return };
        if !matches!(connection.create_topic(TOPIC, PARTITIONS).await, Ok(true)) {
            return;
        }
        for _ in 0..batches {
            if self.draw(8) == 0 {
                self.world.sim.env.clock.sleep(Duration::from_millis(self.draw(300))).await;
            }
            let partition = self.draw(PARTITIONS as u64) as i32;
            self.next_value += 1;
            let mut value = self.next_value.to_string().into_bytes();
            value.resize(value.len() + self.draw(10_000) as usize, b'.');
            let mut batch = BatchBuilder::new();
            batch.append(self.world.sim.env.clock.wall_ms(), None, Some(&value));
            let batch = batch.finish().expect("a batch of one record");
            match connection.produce(TOPIC, partition, &batch).await {
                Ok((base, 0)) => self.journal.acknowledge(partition, base, value),
                answer => {
                    self.journal.lose_sight(partition, value);
                    if answer.is_err() {
                        return;
                    }
                }
            }
        }
        self.world.sim.env.clock.sleep(Duration::from_millis(self.draw(500))).await;
    }

    async fn check(&mut self) -> Result<(), String> {
        let mut connection =
            Connection::open(&self.world, ADDRESS).await.map_err(|error| error.to_string())?;
        for partition in 0..PARTITIONS {
            let all = connection.read(TOPIC, partition).await.map_err(|error| error.to_string())?;
            let all = match all {
                Err(3) if self.journal.end(partition) == 0 => Vec::new(),
                all => all.map_err(|code| format!("partition {partition}: {code}"))?,
            };
            self.journal.check(partition, &all)?;
        }
        Ok(())
    }
}

async fn life(run: &mut Run) -> Result<(), String> {
    let life: Life = run.world.start().await?;
    let metrics = life.metrics.clone();
    if !run.journal.is_empty() {
        run.check().await?;
    }
    let batches = run.draw(12);
    match run.draw(5) {
        0 => {
            run.work(batches).await;
            life.stop(&run.world).await?;
        }
        1 | 2 => {
            run.work(batches).await;
            run.world.kill(life).await;
        }
        _ => {
            run.world.sim.disk.cut_power_after(run.draw(400));
            run.work(batches).await;
            run.world.lose_power(life).await;
        }
    }
    run.joined += metrics.node().coalesced_segments.get();
    Ok(())
}

async fn lives(seed: u64) -> Result<Run, String> {
    let world = World::new(seed, 1 + seed as usize % 2, &SETTINGS);
    let mut run = Run { world, journal: Journal::default(), next_value: 0, joined: 0 };
    for _ in 0..LIVES {
        life(&mut run).await?;
    }
    let life: Life = run.world.start().await?;
    run.world.sim.env.clock.sleep(QUIET).await;
    run.check().await?;
    let (strays, segments) = (life.strays(), life.segments());
    if !strays.is_empty() {
        return Err(format!("no chain lists {strays:?}"));
    }
    if segments > SEGMENTS_MAX {
        return Err(format!("{segments} segments"));
    }
    run.joined += life.metrics.node().coalesced_segments.get();
    life.stop(&run.world).await?;
    Ok(run)
}

#[test]
fn every_acknowledged_record_survives_the_joining_of_segments_and_power_loss() {
    let (mut acknowledged, mut joined, seeds) = (0, 0, seeds(24));
    for seed in seeds.clone() {
        let done = run(lives(seed)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        acknowledged += done.journal.len();
        joined += done.joined;
    }
    println!("{joined} segments were joined, {acknowledged} acknowledged records were found again");
    let enough = 8 * (seeds.end - seeds.start);
    assert!(
        joined > enough && acknowledged > 0,
        "{joined} segments and {acknowledged} records prove nothing"
    );
}
