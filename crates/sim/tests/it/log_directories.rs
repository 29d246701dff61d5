//! Several log directories: one that fails, at work or at the start, takes only its own partitions
//! offline (KIP-112), and nothing acknowledged is lost.

use base::batch::BatchBuilder;
use base::error::ErrorCode;
use sim::{Connection, Journal, World, run};

const ADDRESS: &str = "127.0.0.1:9092";
const TOPIC: &str = "spread";
const PARTITIONS: i32 = 4;

struct Run {
    connection: Connection,
    journal: Journal,
    next_value: u64,
}

impl Run {
    async fn reconnect(&mut self, world: &World) {
        self.connection = Connection::open(world, ADDRESS).await.expect("the broker listens");
    }

    /// Produces one record to each partition; those that took it.
    async fn produce(&mut self, topic: &str, partitions: i32) -> Vec<i32> {
        let mut taken = Vec::new();
        for partition in 0..partitions {
            self.next_value += 1;
            let value = format!("{topic} {}", self.next_value).into_bytes();
            let mut batch = BatchBuilder::new();
            batch.append(1, None, Some(&value));
            let batch = batch.finish().expect("a batch of one record");
            let (offset, code) = self.connection.produce(topic, partition, &batch).await.expect("an answer");
            if code == 0 {
                taken.push(partition);
            } else {
                assert_eq!(code, ErrorCode::KafkaStorageError.code(), "partition {partition}");
            }
            match (topic == TOPIC, code) {
                (true, 0) => self.journal.acknowledge(partition, offset, value),
                (true, _) => self.journal.lose_sight(partition, value),
                (false, _) => {}
            }
        }
        taken
    }

    /// Reads every partition and holds it against the journal; those that can be read.
    async fn read(&mut self) -> Vec<i32> {
        let mut readable = Vec::new();
        for partition in 0..PARTITIONS {
            match self.connection.read(TOPIC, partition).await.expect("an answer") {
                Ok(bytes) => {
                    self.journal.check(partition, &bytes).unwrap();
                    readable.push(partition);
                }
                Err(code) => assert_eq!(code, ErrorCode::KafkaStorageError.code()),
            }
        }
        readable
    }
}

const ALL: [i32; 4] = [0, 1, 2, 3];

async fn a_directory_fails(seed: u64) {
    let mut world = World::new(seed, 2, &[]);
    let life = world.start().await.unwrap();
    let connection = Connection::open(&world, ADDRESS).await.unwrap();
    let mut run = Run { connection, journal: Journal::default(), next_value: 0 };
    assert!(run.connection.create_topic(TOPIC, PARTITIONS).await.unwrap());
    assert_eq!(run.produce(TOPIC, PARTITIONS).await, ALL);

    world.sim.disk.fail_sync_after(0);
    assert_eq!(run.produce(TOPIC, PARTITIONS).await.len(), 2, "half of the partitions lie elsewhere");
    let taken = run.produce(TOPIC, PARTITIONS).await;
    assert_eq!(taken.len(), 2, "the failure is for good");
    assert_eq!(run.read().await, ALL, "what was acknowledged can be read");
    assert_eq!(life.broker.status().problems().len(), 1);
    assert!(run.connection.create_topic("new", 2).await.unwrap());
    assert_eq!(run.produce("new", 2).await, [0, 1], "new partitions go where they can be written");
    assert!(life.stop(&world).await.is_err(), "one directory did not end cleanly");

    world.directories = 1;
    let life = world.start().await.unwrap();
    run.reconnect(&world).await;
    let readable = run.read().await;
    assert_eq!(readable.len(), 2);
    assert_eq!(run.produce(TOPIC, PARTITIONS).await, readable);
    assert_eq!(life.broker.status().offline_partitions % 2, 0);
    assert!(life.broker.status().offline_partitions >= 2);
    life.stop(&world).await.unwrap();

    world.directories = 2;
    let life = world.start().await.unwrap();
    run.reconnect(&world).await;
    assert_eq!(run.read().await, ALL);
    assert_eq!(run.produce(TOPIC, PARTITIONS).await, ALL, "a directory that came back takes appends again");
    assert_eq!(run.read().await, ALL);
    assert_eq!(life.broker.status().problems(), Vec::<String>::new());
    life.stop(&world).await.unwrap();
}

#[test]
fn kip_112_a_failed_log_directory_takes_only_its_own_partitions_offline() {
    for seed in 0..20 {
        run(a_directory_fails(seed));
    }
}
