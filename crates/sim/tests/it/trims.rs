//! DeleteRecords in the class *page-cache* under power loss: what was deleted stays deleted, and no record
//! is ever acknowledged at an offset that nobody can read (replication.md 2.14).

use base::batch::{BatchBuilder, Batches};
use base::env::sim::CrashPolicy;
use sim::{Connection, World, run, seeds};
use wire::Reader;
use wire::message::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use wire::message::{DeleteRecordsRequest, DeleteRecordsResponse};

const ADDRESS: &str = "127.0.0.1:9092";
const TOPIC: &str = "queue";
const SETTINGS: [&str; 2] = ["vltava.durability=page-cache", "log.segment.bytes=1048576"];
const OFFSET_OUT_OF_RANGE: i16 = 1;

async fn delete(connection: &mut Connection, before: i64) -> std::io::Result<(i64, i16)> {
    let partition = DeleteRecordsPartition { partition_index: 0, offset: before };
    let topic = DeleteRecordsTopic { name: TOPIC.into(), partitions: vec![partition] };
    let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 60_000 };
    let body = connection.ask(2, &request).await?;
    let response = DeleteRecordsResponse::decode(&mut Reader::from_bytes(&body), 2);
    let response = response.map_err(std::io::Error::other)?;
    let answer = &response.topics[0].partitions[0];
    Ok((answer.low_watermark, answer.error_code))
}

/// Produces and deletes; false when the connection broke. `deleted` is what was acknowledged.
async fn work(world: &World, steps: u64, deleted: &mut i64) -> bool {
    let draw = |bound| world.sim.env.random.next_u64() % bound;
    let Ok(mut connection) = Connection::open(world, ADDRESS).await else { return false };
    if !matches!(connection.create_topic(TOPIC, 1).await, Ok(true)) {
        return false;
    }
    let mut next = None;
    for _ in 0..steps {
        let mut batch = BatchBuilder::new();
        batch.append(1, None, Some(&vec![b'v'; draw(60_000) as usize]));
        let batch = batch.finish().expect("a batch of one record");
        match connection.produce(TOPIC, 0, &batch).await {
            Ok((offset, 0)) => {
                assert!(offset >= *deleted, "{offset} was given after all before {deleted} were deleted");
                assert!(next.is_none_or(|next| offset == next), "a gap before {offset}");
                let Ok((bytes, code)) = connection.fetch(TOPIC, 0, offset).await else { return false };
                if world.sim.disk.is_cut() {
                    return false;
                }
                assert!(
                    code == 0 && !bytes.is_empty(),
                    "{offset} was acknowledged, and reading it gives {code}"
                );
                next = Some(offset + 1);
            }
            Ok(_) => {}
            Err(_) => return false,
        }
        if draw(8) == 0 {
            match delete(&mut connection, -1).await {
                Ok((low_watermark, 0)) => *deleted = low_watermark,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
    true
}

async fn lives(seed: u64) -> i64 {
    let world = World::new(seed, 1, &SETTINGS);
    let draw = |bound| world.sim.env.random.next_u64() % bound;
    let mut deleted = 0;
    for _ in 0..5 {
        let life = world.start().await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(life.broker.status().offline_partitions, 0, "seed {seed}: the log does not open");
        if deleted > 0 {
            let mut connection = Connection::open(&world, ADDRESS).await.expect("the broker listens");
            let (_, code) = connection.fetch(TOPIC, 0, deleted - 1).await.expect("an answer");
            assert_eq!(code, OFFSET_OUT_OF_RANGE, "seed {seed}: a deleted record came back");
            let (bytes, code) = connection.fetch(TOPIC, 0, deleted).await.expect("an answer");
            // A deletion whose answer was lost may have gone further.
            assert!(code == 0 || code == OFFSET_OUT_OF_RANGE, "seed {seed}: {code}");
            assert!(Batches::new(&bytes).all(|batch| batch.is_ok()));
        }
        world.sim.disk.cut_power_after(draw(300));
        work(&world, 150, &mut deleted).await;
        let policy = [CrashPolicy::LoseAll, CrashPolicy::Random][draw(2) as usize];
        world.sim.disk.crash(policy);
        life.bury().await;
    }
    deleted
}

#[test]
fn what_was_deleted_stays_so_and_no_offset_is_given_twice() {
    let deleted: i64 = seeds(60).map(|seed| run(lives(seed))).sum();
    assert!(deleted > 0, "nothing was deleted");
}
