//! The metadata store fails while the data is well: changes of topics are refused and the operator is told, but
//! records go on being taken and read, past the limits at which a segment would be rolled (replication.md 2.12).

use std::time::Duration;

use base::batch::{BatchBuilder, Batches};
use sim::{Connection, Journal, World, run};

const ADDRESS: &str = "127.0.0.1:9092";
const TOPIC: &str = "steady";

async fn produce(world: &World, connection: &mut Connection, journal: &mut Journal, number: u64) {
    let value = format!("record {number}").into_bytes();
    let mut batch = BatchBuilder::new();
    batch.append(world.sim.env.clock.wall_ms(), None, Some(&value));
    let batch = batch.finish().expect("a batch of one record");
    let (offset, code) = connection.produce(TOPIC, 0, &batch).await.expect("an answer");
    assert_eq!(code, 0, "record {number}");
    journal.acknowledge(0, offset, value);
}

async fn read(connection: &mut Connection) -> Vec<u8> {
    let mut all = Vec::new();
    let mut offset = 0;
    loop {
        let (bytes, code) = connection.fetch(TOPIC, 0, offset).await.expect("an answer");
        assert_eq!(code, 0);
        let Some(last) = Batches::new(&bytes).last() else { return all };
        offset = last.expect("whole batches").next_offset();
        all.extend_from_slice(&bytes);
    }
}

async fn the_metadata_store_fails(seed: u64) {
    // Segments are rolled each second, and records expire soon, too.
    let world = World::new(
        seed,
        1,
        &["log.roll.ms=1000", "log.retention.check.interval.ms=500", "log.retention.ms=120000"],
    );
    let life = world.start().await.unwrap();
    let mut connection = Connection::open(&world, ADDRESS).await.unwrap();
    let mut journal = Journal::default();
    assert!(connection.create_topic(TOPIC, 1).await.unwrap());
    produce(&world, &mut connection, &mut journal, 0).await;
    // What is durable by now is not synced again, so that the next sync is that of the metadata.
    world.sim.env.clock.sleep(Duration::from_secs(30)).await;
    produce(&world, &mut connection, &mut journal, 1).await;
    assert_eq!(life.broker.status().problems(), Vec::<String>::new());

    world.sim.disk.fail_sync_after(0);
    let refused = connection.create_topic("new", 1).await;
    assert!(!matches!(refused, Ok(true)), "{refused:?}");
    let problems = life.broker.status().problems();
    assert!(problems.len() == 1 && problems[0].contains("metadata"), "{problems:?}");

    for number in 2..60 {
        produce(&world, &mut connection, &mut journal, number).await;
        world.sim.env.clock.sleep(Duration::from_secs(1)).await;
    }
    journal.check(0, &read(&mut connection).await).unwrap();
    life.stop(&world).await.unwrap();

    let life = world.start().await.unwrap();
    let mut connection = Connection::open(&world, ADDRESS).await.unwrap();
    produce(&world, &mut connection, &mut journal, 60).await;
    journal.check(0, &read(&mut connection).await).unwrap();
    assert_eq!(life.broker.status().problems(), Vec::<String>::new());
    life.stop(&world).await.unwrap();
}

#[test]
fn records_are_taken_while_the_metadata_store_has_failed() {
    for seed in 0..20 {
        run(the_metadata_store_fails(seed));
    }
}
