//! `kill -9` at random moments, over and over: everything that was acknowledged is there afterwards.
//!
//! Each round: start (killed again while it starts, some times), compare all there is with all that is
//! known, more load, kill, or now and then SIGTERM. The load never stops meanwhile.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::batch::Compression;
use base::env::Env;
use base::env::sim::SimRandom;
use client::admin::NewTopic;
use client::{Acks, Topics};
use tokio::task::JoinSet;

use crate::churn;
use crate::inspect::{Inspection, inspect};
use crate::journal::{Existence, Journal, Promise};
use crate::load::{self, Field, Load, Writer};
use crate::run;
use crate::segments;
use crate::server::{Home, Server};

/// How long the rounds go on, on a slow machine until there were so many kills.
const ROUNDS_FOR: Duration = Duration::from_secs(65);
const KILLS_MIN: usize = 25;
/// A clean end under load may take so long.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Durable, written by idempotent producers.
const LEDGER: Field = Field { topic: "ledger", partitions: 4 };
/// Page-cache class, acks=1, no idempotence: the system outlives the process, so nothing may be lost either.
const CACHED: Field = Field { topic: "cached", partitions: 3 };
/// Compacted.
const KEYED: Field = Field { topic: "keyed", partitions: 2 };

const SETTINGS: [&str; 6] = [
    "group.min.session.timeout.ms=1000",
    "group.initial.rebalance.delay.ms=0",
    "offsets.topic.num.partitions=3",
    "offsets.topic.segment.bytes=1048576",
    "log.cleaner.backoff.ms=200",
    "log.retention.check.interval.ms=500",
];

#[test]
fn what_was_acknowledged_survives_kills_at_random_moments() {
    let seed = seed();
    println!("PROCESS_SEED={seed}");
    let home = Home::new("kills", &SETTINGS).with_log_dirs(1 + seed % 2);
    let tally = run(Rounds::new(&home, seed).play());
    println!("{tally}");
    // The last life ended cleanly.
    let read = segments::check(home.log_dirs());
    println!("{} segments of {} batches read from disk to their end", read.segments, read.batches);
    assert!(read.segments > 50, "segments did not roll");
}

/// The seed of this run: one that is asked for, or a new one.
fn seed() -> u64 {
    let asked = std::env::var("PROCESS_SEED").ok();
    asked.map_or_else(|| Env::os().random.next_u64() >> 16, |text| text.parse().expect("a number"))
}

/// What happened.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    kills_while_starting: usize,
    ends: usize,
    comparisons: usize,
    slowest_start: Duration,
    slowest_comparison: Duration,
    records: usize,
    commits: usize,
    read: Inspection,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally {
            kills, kills_while_starting, ends, comparisons, slowest_start, slowest_comparison, ..
        } = self;
        let Tally { records, commits, read, .. } = self;
        write!(
            f,
            "{kills} kills ({kills_while_starting} while starting), {ends} clean ends; {records} records and \
             {commits} committed positions known at the end, {comparisons} comparisons read {read}; slowest \
             start {slowest_start:.1?}, slowest comparison {slowest_comparison:.1?}"
        )
    }
}

struct Rounds<'a> {
    home: &'a Home,
    seed: u64,
    choices: SimRandom,
    journal: Arc<Journal>,
    tally: Tally,
    /// Bytes of the log when the last clean end was over.
    clean_log: Option<usize>,
}

impl<'a> Rounds<'a> {
    fn new(home: &'a Home, seed: u64) -> Rounds<'a> {
        let choices = SimRandom::new(seed);
        Rounds { home, seed, choices, journal: Arc::default(), tally: Tally::default(), clean_log: None }
    }

    async fn play(mut self) -> Tally {
        let began = Instant::now();
        let mut server = self.home.start();
        let load = Load::new(self.home.client().await, self.journal.clone(), self.seed);
        self.create_topics(&load).await;
        let mut clients = spawn_clients(&load);
        while began.elapsed() < ROUNDS_FOR || self.tally.kills < KILLS_MIN {
            // Some lives are so short that nothing can be compared.
            if self.choices.below(3) > 0 {
                self.compare(&load).await;
                self.wait(3_000).await;
            } else {
                self.wait(300).await;
            }
            match self.choices.below(6) {
                0 => self.end(server).await,
                _ => self.kill(server),
            }
            server = self.start().await;
        }
        load.end();
        while let Some(ended) = clients.join_next().await {
            ended.expect("clients do not panic");
        }
        self.compare(&load).await;
        self.end(server).await;
        // Of a clean end nothing is left to recover, and everything is there.
        let server = self.start().await;
        self.compare(&load).await;
        self.end(server).await;
        self.tally
    }

    async fn wait(&self, ms_max: u64) {
        Env::os().clock.sleep(Duration::from_millis(self.choices.below(ms_max))).await;
    }
}

/// The steps of a round.
impl<'a> Rounds<'a> {
    /// Compares all there is with all that is known; on a difference the test fails.
    async fn compare(&mut self, load: &Load) {
        let began = Instant::now();
        // Nobody changes topics or trims meanwhile; everything else goes on.
        let _quiet = load.quiet.lock().await;
        let client = self.home.client().await;
        let cluster = client.metadata(Topics::All).await.expect("the server listens");
        self.journal.check_topics(&cluster);
        let topics = [(LEDGER.topic, Promise::Once), (CACHED.topic, Promise::AtLeastOnce)];
        let topics = topics.into_iter().chain([(KEYED.topic, Promise::LastOfKey)]);
        let topics: Vec<_> = topics.chain(churn::NAMES.map(|name| (name, churn::PROMISE))).collect();
        match inspect(&client, &self.journal, &topics).await {
            Ok(inspection) => self.tally.read += inspection,
            Err(error) => self.journal.find(format!("nothing can be compared: {error}")),
        }
        self.tally.comparisons += 1;
        (self.tally.records, self.tally.commits) = (self.journal.len(), self.journal.commit_count());
        self.tally.slowest_comparison = self.tally.slowest_comparison.max(began.elapsed());
        let findings = self.journal.findings();
        let (seed, tally) = (self.seed, &self.tally);
        assert!(findings.is_empty(), "seed {seed}, {tally}:\n{}", findings.join("\n"));
    }

    fn kill(&mut self, server: Server<'_>) {
        server.kill();
        self.tally.kills += 1;
        self.clean_log = None;
    }

    /// SIGTERM: the process answers what it has taken, closes its files and ends without a complaint.
    async fn end(&mut self, server: Server<'_>) {
        let (status, took) = server.end();
        let seed = self.seed;
        assert!(status.success(), "seed {seed}: SIGTERM, {status}:\n{}", self.home.last_words());
        assert!(took < END_WITHIN, "seed {seed}: SIGTERM took {took:?}");
        for dir in self.home.log_dirs() {
            let life = fs::read_to_string(dir.join("life")).expect("a log directory knows its last life");
            assert!(life.contains("clean=true"), "seed {seed}: {life}");
        }
        self.tally.ends += 1;
        self.clean_log = Some(self.home.log().len());
    }

    /// Starts the next life, which may be killed while it starts, several times.
    async fn start(&mut self) -> Server<'a> {
        while self.choices.below(4) == 0 {
            let server = self.home.spawn();
            self.wait(120).await;
            self.kill(server);
            self.tally.kills_while_starting += 1;
        }
        let mut server = self.home.spawn();
        let took = server.wait_until_listening();
        self.tally.slowest_start = self.tally.slowest_start.max(took);
        if let Some(before) = self.clean_log.take() {
            let log = self.home.log();
            let recovered =
                log[before..].lines().find(|line| RECOVERY.iter().any(|word| line.contains(word)));
            assert_eq!(recovered, None, "seed {}: recovery after a clean end", self.seed);
        }
        server
    }

    async fn create_topics(&self, load: &Load) {
        let rolls = || vec![pair("segment.bytes", "1048576"), pair("segment.ms", "700")];
        let cached = [rolls(), vec![pair("vltava.durability", "page-cache")]].concat();
        let compacted = vec![
            pair("cleanup.policy", "compact"),
            pair("segment.ms", "300"),
            pair("min.cleanable.dirty.ratio", "0.01"),
        ];
        for (field, configs) in [(LEDGER, rolls()), (CACHED, cached), (KEYED, compacted)] {
            let topic =
                NewTopic { partitions: Some(field.partitions), configs, ..NewTopic::named(field.topic) };
            let created = load.client.create_topics(&[topic], false).await.expect("an answer").remove(0);
            let partitions = field.partitions as usize;
            let there = Existence::There { id: created.expect("a new topic").id, partitions };
            self.journal.set_topic(field.topic, there);
        }
    }
}

/// What the log says of a life that has something to recover. Files of segments that left their chain in the
/// last moments are removed by the next life; that is no recovery.
const RECOVERY: [&str; 2] = ["unfinished write", "making the index"];

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

fn spawn_clients(load: &Arc<Load>) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    let mut write = |field, acks, compression, keyed| {
        let id = clients.len() as u16;
        clients.spawn(load::write(load.clone(), Writer { id, field, acks, compression, keyed }));
    };
    for compression in Compression::ALL {
        write(LEDGER, Acks::All, compression, false);
        write(KEYED, Acks::All, compression, true);
    }
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        write(CACHED, Acks::Leader, compression, false);
    }
    const READ: &[Field] = &[LEDGER, CACHED];
    for _ in 0..2 {
        clients.spawn(load::read_in_group(load.clone(), "stay", READ, u64::MAX));
        clients.spawn(load::read_in_group(load.clone(), "come-and-go", READ, 300));
    }
    clients.spawn(load::read_in_group(load.clone(), "alone", &[CACHED], 50));
    clients.spawn(load::commit_without_members(load.clone(), LEDGER));
    clients.spawn(load::trim(load.clone(), READ));
    clients.spawn(load::watch(load.clone(), &[LEDGER, CACHED, KEYED]));
    clients.spawn(churn::churn(load.clone()));
    clients
}
