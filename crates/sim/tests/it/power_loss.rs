//! Power loss and kills at random moments over many seeds: every acknowledged record is there afterwards,
//! in order, once (X-07, R-2-01). `SIM_SEEDS=a..b` picks seeds.

use base::batch::BatchBuilder;
use sim::{Connection, Journal, Life, World, run, seeds};

const PARTITIONS: i32 = 3;
const LIVES: u64 = 4;
const TOPIC: &str = "ledger";
const ADDRESS: &str = "127.0.0.1:9092";

/// Small segments, so that lives see many rolls.
const SETTINGS: [&str; 2] = ["log.segment.bytes=1048576", "num.partitions=3"];

struct Run {
    world: World,
    journal: Journal,
    next_value: u64,
}

impl Run {
    fn draw(&self, bound: u64) -> u64 {
        self.world.draw(bound)
    }

    /// Produces until the connection breaks or enough was written; false when it broke.
    async fn produce(&mut self, count: u64) -> bool {
        let Ok(mut connection) = Connection::open(&self.world, ADDRESS).await else { return false };
        match connection.create_topic(TOPIC, PARTITIONS).await {
            Ok(true) => {}
            _ => return false,
        }
        for _ in 0..count {
            let partition = self.draw(PARTITIONS as u64) as i32;
            let records = 1 + self.draw(5);
            let mut batch = BatchBuilder::new();
            let mut values = Vec::new();
            for _ in 0..records {
                self.next_value += 1;
                let mut value = self.next_value.to_string().into_bytes();
                value.resize(value.len() + self.draw(20_000) as usize, b'.');
                batch.append(1_700_000_000_000, None, Some(&value));
                values.push(value);
            }
            let batch = batch.finish().expect("a batch of a few records");
            match connection.produce(TOPIC, partition, &batch).await {
                Ok((base, 0)) => {
                    for (offset, value) in (base..).zip(values) {
                        self.journal.acknowledge(partition, offset, value);
                    }
                }
                // Refused for certain or unknown: both may be in the log, neither must.
                answer => {
                    values.into_iter().for_each(|value| self.journal.lose_sight(partition, value));
                    if answer.is_err() {
                        return false;
                    }
                }
            }
        }
        true
    }

    async fn check(&mut self, seed: u64) {
        let mut connection = Connection::open(&self.world, ADDRESS).await.expect("the broker listens");
        for partition in 0..PARTITIONS {
            let all = match connection.read(TOPIC, partition).await.expect("an answer") {
                Err(3) if self.journal.end(partition) == 0 => Vec::new(),
                all => all.unwrap_or_else(|code| panic!("seed {seed}: partition {partition}: {code}")),
            };
            self.journal.check(partition, &all).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }
}

async fn start(run: &Run, seed: u64) -> Life {
    run.world.start().await.unwrap_or_else(|error| panic!("seed {seed}: the broker does not start: {error}"))
}

async fn lives(seed: u64) -> usize {
    let world = World::new(seed, 1 + seed as usize % 2, &SETTINGS);
    let mut run = Run { world, journal: Journal::default(), next_value: 0 };
    for _ in 0..LIVES {
        let life = start(&run, seed).await;
        if !run.journal.is_empty() {
            run.check(seed).await;
        }
        match run.draw(4) {
            0 => {
                let count = run.draw(60);
                run.produce(count).await;
                life.stop(&run.world).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
            1 => {
                let count = run.draw(60);
                run.produce(count).await;
                run.world.kill(life).await;
            }
            _ => {
                run.world.sim.disk.cut_power_after(run.draw(400));
                run.produce(200).await;
                run.world.lose_power(life).await;
            }
        }
    }
    let life = start(&run, seed).await;
    run.check(seed).await;
    life.stop(&run.world).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    run.journal.len()
}

#[test]
fn r_2_01_every_acknowledged_record_survives_power_loss() {
    let mut acknowledged = 0;
    for seed in seeds(100) {
        acknowledged += run(lives(seed));
    }
    assert!(acknowledged > 0, "the runs wrote nothing");
    println!("{acknowledged} acknowledged records were found again");
}
