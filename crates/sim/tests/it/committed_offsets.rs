//! Committed offsets under compaction of their topic, power loss and kills: OffsetFetch never shows an older
//! offset than one that was acknowledged, however often `__consumer_offsets` was rewritten.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use base::env::sim::CrashPolicy;
use sim::{Connection, World, decode, run, seeds};
use wire::message::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use wire::message::{
    FindCoordinatorRequest, FindCoordinatorResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetFetchRequest, OffsetFetchResponse,
};

const ADDRESS: &str = "127.0.0.1:9092";
const TOPIC: &str = "t";
const GROUPS: u64 = 4;

const SETTINGS: [&str; 5] = [
    "offsets.topic.num.partitions=2",
    "log.roll.ms=300",
    "log.cleaner.backoff.ms=50",
    "log.cleaner.min.cleanable.ratio=0.1",
    "log.cleaner.delete.retention.ms=1000",
];

/// For a group and partition: the last offset acknowledged, and the last sent.
type Commits = BTreeMap<(u64, i32), (i64, i64)>;

async fn find(world: &World, connection: &mut Connection, group: u64) -> io::Result<()> {
    for _ in 0..100 {
        let request = FindCoordinatorRequest { key: format!("g{group}").into(), ..Default::default() };
        let body = connection.ask(3, &request).await?;
        match decode::<FindCoordinatorResponse<'_>>(&body, 3)?.error_code {
            0 => return Ok(()),
            // The topic is being made, or its log cannot be written.
            15 | 56 => world.sim.env.clock.sleep(Duration::from_millis(100)).await,
            code => panic!("FindCoordinator: {code}"),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

async fn commit(connection: &mut Connection, group: u64, partition: i32, offset: i64) -> io::Result<i16> {
    let partition = OffsetCommitRequestPartition {
        partition_index: partition,
        committed_offset: offset,
        ..Default::default()
    };
    let topic =
        OffsetCommitRequestTopic { name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
    let request = OffsetCommitRequest {
        group_id: format!("g{group}").into(),
        topics: vec![topic],
        ..Default::default()
    };
    let body = connection.ask(8, &request).await?;
    Ok(decode::<OffsetCommitResponse<'_>>(&body, 8)?.topics[0].partitions[0].error_code)
}

/// Holds what the group has against what was acknowledged.
async fn check(world: &World, connection: &mut Connection, group: u64, commits: &Commits) -> io::Result<()> {
    for _ in 0..100 {
        let request =
            OffsetFetchRequest { group_id: format!("g{group}").into(), topics: None, ..Default::default() };
        let body = connection.ask(7, &request).await?;
        let response = decode::<OffsetFetchResponse<'_>>(&body, 7)?;
        match response.error_code {
            0 => {
                compare(&response, group, commits);
                return Ok(());
            }
            // Being loaded, or the log cannot be read.
            14..=16 => world.sim.env.clock.sleep(Duration::from_millis(100)).await,
            code => panic!("OffsetFetch: {code}"),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn compare(response: &OffsetFetchResponse<'_>, group: u64, commits: &Commits) {
    let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    let found: BTreeMap<i32, i64> = partitions.map(|p| (p.partition_index, p.committed_offset)).collect();
    for ((_, partition), (acknowledged, sent)) in commits.range((group, 0)..(group + 1, 0)) {
        let found = found.get(partition).copied().unwrap_or(-1);
        let allowed = *acknowledged..=*sent;
        assert!(
            allowed.contains(&found),
            "group {group} partition {partition}: {found} is not in {allowed:?}"
        );
    }
}

async fn work(world: &World, commits: &mut Commits, steps: u64) -> io::Result<()> {
    let draw = |bound| world.sim.env.random.next_u64() % bound;
    let mut connection = Connection::open(world, ADDRESS).await?;
    for _ in 0..20 {
        // A topic whose creation was acknowledged is there; before, nothing can be committed.
        if connection.create_topic(TOPIC, 3).await? {
            break;
        }
    }
    for group in 0..GROUPS {
        find(world, &mut connection, group).await?;
        check(world, &mut connection, group, commits).await?;
    }
    for _ in 0..steps {
        let (group, partition) = (draw(GROUPS), draw(3) as i32);
        let entry = commits.entry((group, partition)).or_insert((-1, -1));
        entry.1 += 1;
        let offset = entry.1;
        if commit(&mut connection, group, partition, offset).await? == 0 {
            commits.entry((group, partition)).and_modify(|(acknowledged, _)| *acknowledged = offset);
        }
        if draw(15) == 0 {
            world.sim.env.clock.sleep(Duration::from_millis(draw(1_500))).await;
            check(world, &mut connection, group, commits).await?;
        }
    }
    Ok(())
}

async fn lives(seed: u64) -> (usize, u64) {
    let world = World::new(seed, 1, &SETTINGS);
    let draw = |bound| world.sim.env.random.next_u64() % bound;
    let (mut commits, mut passes) = (Commits::new(), 0);
    for number in 0..6 {
        let life = world.start().await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        if number < 5 && draw(3) > 0 {
            world.sim.disk.cut_power_after(draw(2_000));
        }
        let ended = work(&world, &mut commits, 200).await;
        assert!(ended.is_ok() || world.sim.disk.is_cut(), "seed {seed}: {ended:?}");
        passes += life.metrics.node().compaction_passes.get();
        match (number, draw(3)) {
            (5, _) | (_, 0) if !world.sim.disk.is_cut() => {
                // The cut that was to come does not.
                world.sim.disk.cut_power_after(u64::MAX);
                life.stop(&world).await.unwrap();
            }
            (_, 1) => {
                world.sim.disk.kill();
                life.bury().await;
            }
            _ => {
                world.sim.disk.crash(CrashPolicy::Random);
                life.bury().await;
            }
        }
    }
    (commits.len(), passes)
}

#[test]
fn x_07_committed_offsets_survive_compaction_and_power_loss() {
    let (mut committed, mut passes) = (0, 0);
    for seed in seeds(30) {
        let (more, run_passes) = run(lives(seed));
        (committed, passes) = (committed + more, passes + run_passes);
    }
    assert!(committed > 0 && passes > 30, "{passes} passes over {committed} positions prove nothing");
    println!("{passes} passes over the offsets of {committed} positions");
}
