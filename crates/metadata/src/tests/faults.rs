//! The Raft store against power loss, kills, full disks, failed syncs, damage, and what the operator reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::env::sim::{CrashPolicy, Sim, SimRandom};
use base::ids::{BrokerId, Uuid};
use futures::future::join_all;

use super::commands::{member, registration, topic};
use super::simulated;
use crate::command::{Command, CommandResult, Resource};
use crate::image::Image;
use crate::raft::{Limits, MetadataOpenError, RaftStore};
use crate::store::{MetadataStore, ProposeError};

const DIR: &str = "/data/metadata";
const SMALL: Limits =
    Limits { snapshot_entries: 10, snapshot_log_bytes: 4_000, file_bytes: 1_000, feed_entries: 10 };

async fn open(sim: &Sim, limits: Limits) -> Result<RaftStore, MetadataOpenError> {
    RaftStore::open_with(sim.env.clone(), PathBuf::from(DIR), BrokerId(1), limits, None).await
}

/// One config value under a key that is used once, so that the image tells what was applied.
fn set(number: u64, length: usize) -> Command {
    let changes = vec![(format!("key {number:06}"), Some("v".repeat(length)))];
    Command::AlterConfigs { resource: Resource::AllBrokers, changes }
}

fn applied(image: &Image) -> Vec<u64> {
    let configs = image.configs(&Resource::AllBrokers);
    configs.keys().map(|key| key.trim_start_matches("key ").parse().unwrap()).collect()
}

/// What a run knows of the store from outside.
#[derive(Default)]
struct Witness {
    next: u64,
    /// Numbers of each life, in the order in which they were proposed, and whether they were answered.
    lives: Vec<BTreeMap<u64, bool>>,
    cluster_id: Option<Uuid>,
}

impl Witness {
    fn check(&mut self, image: &Image, seed: u64) {
        let found = applied(image);
        for life in &self.lives {
            let here: Vec<u64> =
                life.keys().copied().filter(|number| found.binary_search(number).is_ok()).collect();
            let first: Vec<u64> = life.keys().copied().take(here.len()).collect();
            assert_eq!(here, first, "seed {seed}: applied out of order");
            let answered = life.values().filter(|answered| **answered).count();
            assert!(here.len() >= answered, "seed {seed}: an answered command is lost");
        }
        assert_eq!(image.version, 1 + found.len() as u64, "seed {seed}: not exactly once");
        assert_eq!(*self.cluster_id.get_or_insert(image.cluster_id), image.cluster_id, "seed {seed}");
    }

    /// Proposes in groups until the store fails or the groups are done.
    async fn propose(&mut self, store: &RaftStore, random: &SimRandom, groups: u64) {
        let mut life = BTreeMap::new();
        for _ in 0..groups {
            let numbers = self.next..self.next + 1 + random.below(6);
            self.next = numbers.end;
            let answers =
                numbers.clone().map(|number| store.propose(set(number, random.below(300) as usize)));
            let answers = join_all(answers.collect::<Vec<_>>()).await;
            life.extend(numbers.zip(answers.iter().map(Result::is_ok)));
            if answers.iter().any(Result::is_err) {
                break;
            }
        }
        self.lives.push(life);
    }
}

async fn survive(seed: u64) -> u64 {
    let sim = Sim::new(seed);
    let random = SimRandom::new(seed ^ 0x5eed);
    let limits = Limits {
        snapshot_entries: 2 + random.below(20),
        snapshot_log_bytes: 500 + random.below(4_000) as usize,
        file_bytes: 200 + random.below(3_000) as usize,
        ..Limits::default()
    };
    let mut witness = Witness::default();
    for _ in 0..4 {
        let end = random.below(4);
        if end > 0 {
            sim.disk.cut_power_after(random.below(150));
        }
        let opened = open(&sim, limits).await;
        match &opened {
            Ok(store) => {
                witness.check(&store.image(), seed);
                witness.propose(store, &random, 1 + random.below(25)).await;
                if end > 0 {
                    sim.disk.cut_power_after(0);
                }
                store.shutdown().await;
            }
            Err(error @ MetadataOpenError::Damaged { .. }) => panic!("seed {seed}: {error}"),
            Err(error) => assert!(sim.disk.is_cut(), "seed {seed}: {error}"),
        }
        drop(opened);
        sim.env.clock.sleep(Duration::from_secs(10)).await;
        match end {
            0 | 1 => sim.disk.kill(),
            2 => sim.disk.crash(CrashPolicy::LoseAll),
            _ => sim.disk.crash(CrashPolicy::Random),
        }
    }
    let store = open(&sim, limits).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    witness.check(&store.image(), seed);
    store.shutdown().await;
    store.image().version
}

#[test]
fn every_answered_command_survives_power_loss_and_kills_exactly_once_and_in_order() {
    let applied: u64 = (0..1_000).map(|seed| simulated(survive(seed))).sum();
    assert!(applied > 20_000, "the lives do too little: {applied}");
}

#[test]
fn concurrent_commands_of_any_kind_share_few_syncs() {
    simulated(async {
        let sim = Sim::new(1);
        let store = open(&sim, Limits::default()).await.unwrap();
        let registered = store.propose(Command::RegisterBroker(registration(1))).await.unwrap();
        let CommandResult::Registered(incarnation) = registered else { panic!("{registered:?}") };
        let before = sim.disk.counts();
        let command = |number: u64| match number % 3 {
            0 => Command::AllocateProducerIds { count: 1 },
            1 => set(number, 10),
            _ => Command::CreateTopics(vec![topic(&format!("t{number}"), 1, member(1, incarnation.0))]),
        };
        let answers = join_all((0..1_000).map(|number| store.propose(command(number)))).await;
        assert!(answers.iter().all(Result::is_ok));
        let syncs = sim.disk.counts().file_syncs - before.file_syncs;
        assert!(syncs <= 5, "{syncs}");
        assert_eq!(answers[999].as_ref().unwrap(), &CommandResult::FirstId(333));
        store.shutdown().await;
    });
}

#[test]
fn snapshots_bound_the_log_by_entries_and_by_bytes() {
    simulated(async {
        for limits in [SMALL, Limits { snapshot_entries: 1 << 40, ..SMALL }] {
            let sim = Sim::new(2);
            let store = open(&sim, limits).await.unwrap();
            for number in 0..200 {
                store.propose(set(number, 100)).await.unwrap();
            }
            store.shutdown().await;
            let names = sim.env.disk.read_dir(Path::new(DIR)).unwrap();
            let logs = names.iter().filter(|entry| entry.name.ends_with(".log")).count();
            assert!(names.iter().any(|entry| entry.name == "snapshot") && logs <= 10, "{logs}");
            sim.disk.kill();
            let store = open(&sim, limits).await.unwrap();
            assert_eq!(applied(&store.image()).len(), 200);
        }
    });
}

#[test]
fn a_full_disk_delays_answers_and_nothing_is_lost() {
    simulated(async {
        for seed in 0..40 {
            let sim = Sim::new(seed);
            sim.disk.set_capacity(9_000 + seed * 37);
            let store = Arc::new(open(&sim, SMALL).await.unwrap());
            let proposing = store.clone();
            let proposed = tokio::spawn(async move {
                for number in 0..100 {
                    proposing.propose(set(number, 300)).await.unwrap();
                }
            });
            sim.env.clock.sleep(Duration::from_secs(60)).await;
            let so_far = applied(&store.image()).len();
            assert!(!proposed.is_finished() && so_far > 1, "seed {seed}: {so_far}");
            let problem = store.problem().expect("a problem is told of");
            assert!(problem.contains("wait") && problem.contains("free space"), "{problem}");
            sim.disk.set_capacity(1 << 30);
            proposed.await.unwrap();
            assert_eq!(store.problem(), None);
            store.shutdown().await;
            sim.disk.kill();
            let store = open(&sim, SMALL).await.unwrap();
            assert_eq!(applied(&store.image()).len(), 100, "seed {seed}");
        }
    });
}

#[test]
fn a_store_that_waits_for_room_can_be_shut_down() {
    simulated(async {
        let sim = Sim::new(3);
        sim.disk.set_capacity(9_000);
        let store = open(&sim, SMALL).await.unwrap();
        let answers = join_all((0..100).map(|number| store.propose(set(number, 300))));
        let end = async {
            sim.env.clock.sleep(Duration::from_secs(60)).await;
            store.shutdown().await;
        };
        let (answers, ()) = futures::join!(answers, end);
        assert!(matches!(answers[99], Err(ProposeError::Unavailable(_))));
    });
}

#[test]
fn a_failed_sync_stops_the_store_for_good_and_says_so() {
    simulated(async {
        for after in 0..12 {
            let sim = Sim::new(after);
            let store = open(&sim, SMALL).await.unwrap();
            sim.disk.fail_sync_after(after);
            let mut answered = 0;
            let failed = loop {
                match store.propose(set(answered, 100)).await {
                    Ok(_) => answered += 1,
                    Err(error) => break error.to_string(),
                }
            };
            assert!(failed.contains("cannot sync") && failed.contains("check the disk"), "{failed}");
            assert!(store.problem().is_some_and(|problem| problem.contains("cannot sync")));
            let again = store.propose(set(1_000, 1)).await.unwrap_err().to_string();
            assert!(again.contains("cannot sync"), "{again}");
            store.shutdown().await;
            drop(store);
            if after % 2 == 0 {
                // The next life reads from the cache what the sync did not write; more is put behind it.
                sim.disk.kill();
                let store = open(&sim, SMALL).await.unwrap();
                store.propose(set(answered, 100)).await.unwrap();
                answered += 1;
                store.shutdown().await;
            }
            sim.disk.crash(if after % 4 == 0 { CrashPolicy::LoseAll } else { CrashPolicy::Random });
            let store = open(&sim, SMALL).await.unwrap();
            assert!(applied(&store.image()).len() as u64 >= answered);
        }
    });
}

/// A store with a snapshot and some log, shut down cleanly.
async fn finished(seed: u64) -> Sim {
    let sim = Sim::new(seed);
    let store = open(&sim, SMALL).await.unwrap();
    for number in 0..16 {
        store.propose(set(number, 60)).await.unwrap();
    }
    store.shutdown().await;
    drop(store);
    sim.disk.kill();
    sim
}

#[test]
fn flipped_bits_are_reported_wherever_they_are() {
    simulated(async {
        let sim = finished(4).await;
        let random = SimRandom::new(4);
        let names: Vec<String> =
            sim.env.disk.read_dir(Path::new(DIR)).unwrap().into_iter().map(|entry| entry.name).collect();
        let last_log = names.iter().filter(|name| name.ends_with(".log")).max().cloned();
        let mut flips = 0;
        for name in names.iter().filter(|name| *name != "lock") {
            let path = Path::new(DIR).join(name);
            let length = sim.env.disk.read(&path, 1 << 20).unwrap().len() as u64;
            // The mark of a clean end may go; it only makes the rest be checked.
            let length = if Some(name) == last_log.as_ref() { length - 24 } else { length };
            for _ in 0..60.min(length) {
                let bit = random.below(length * 8);
                sim.disk.flip_bit(&path, bit).unwrap();
                let refused = open(&sim, SMALL).await.err().map(|error| error.to_string());
                let said = refused.unwrap_or_else(|| panic!("{name} bit {bit} passed"));
                assert!(
                    said.contains(DIR) && said.contains(if name == "format" { "format" } else { "re" }),
                    "{said}"
                );
                sim.disk.flip_bit(&path, bit).unwrap();
                sim.disk.kill();
                flips += 1;
            }
        }
        assert!(flips > 150, "{flips} in {names:?}");
        assert_eq!(applied(&open(&sim, SMALL).await.unwrap().image()).len(), 16);
    });
}

#[test]
fn every_error_at_the_start_says_what_happened_and_how_to_mend_it() {
    simulated(async {
        let says = async |sim: &Sim, parts: &[&str]| {
            let said = open(sim, SMALL).await.err().map(|error| error.to_string());
            let said = said.unwrap_or_else(|| panic!("it opened; expected {parts:?}"));
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        };
        let sim = finished(5).await;
        sim.disk.overwrite(&Path::new(DIR).join("format"), b"vltava metadata format 9\n").unwrap();
        says(&sim, &["format 9", "start the version that wrote it"]).await;

        let sim = finished(5).await;
        sim.env.disk.remove_file(&Path::new(DIR).join("format")).unwrap();
        says(&sim, &["without a file `format`"]).await;

        let sim = finished(5).await;
        sim.env.disk.remove_file(&Path::new(DIR).join("snapshot")).unwrap();
        says(&sim, &["entries before it are missing", "nothing was changed", "from a copy"]).await;

        let sim = finished(5).await;
        let holder = open(&sim, SMALL).await.unwrap();
        says(&sim, &["in use by another process"]).await;
        holder.shutdown().await;
        drop(holder);

        let sim = finished(5).await;
        let other = RaftStore::open_with(sim.env.clone(), PathBuf::from(DIR), BrokerId(2), SMALL, None).await;
        let said = other.err().unwrap().to_string();
        assert!(said.contains("belongs to node.id 1, not 2") && said.contains("set node.id=1"), "{said}");

        for capacity in (0..400).step_by(13) {
            let sim = Sim::new(6);
            sim.disk.set_capacity(capacity);
            match open(&sim, SMALL).await {
                Ok(store) => store.shutdown().await,
                Err(error) => {
                    let said = error.to_string();
                    assert!(said.contains("is full") && said.contains("Free"), "{capacity}: {said}");
                    sim.disk.kill();
                    sim.disk.set_capacity(1 << 30);
                    assert!(open(&sim, SMALL).await.is_ok(), "{capacity}");
                }
            }
        }
    });
}

#[test]
fn a_store_that_was_dropped_without_an_end_opens_with_all_that_was_answered() {
    simulated(async {
        let sim = Sim::new(7);
        for life in 0..5 {
            let store = open(&sim, SMALL).await.unwrap();
            assert_eq!(applied(&store.image()).len(), life as usize * 7);
            for number in 0..7 {
                store
                    .propose(set(life * 7 + number, 200 + sim.env.random.next_u64() as usize % 100))
                    .await
                    .unwrap();
            }
            drop(store);
            sim.env.clock.sleep(Duration::from_secs(10)).await;
            sim.disk.kill();
        }
    });
}
