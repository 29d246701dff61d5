//! Three brokers that are killed, held and ended at random, one by one and together, cut off from one another, or given
//! bad disks: what was acknowledged is there afterwards, once and in order, and everything is as it was before.
//!
//! `PROCESS_SEED=n` repeats the choices of a run, `PROCESS_CHAOS_SECONDS` says how long faults go on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base::env::Env;
use base::env::sim::SimRandom;
use base::error::ErrorCode;
use client::admin::NewTopic;
use client::{
    Acks, Client, ClientConfig, ClientError, Connections, GroupConfig, GroupConsumer, PartitionName,
    Producer, ProducerConfig, ProducerRecord, Start,
};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use wire::message::fetch_request::{FetchPartition, FetchTopic};
use wire::message::{FetchRequest, FetchResponse, MetadataRequest, MetadataResponse};

use crate::cluster::{Node, Place, Process, wait_for};
use crate::faults::{Fault, Plan};
use crate::inspect::inspect;
use crate::journal::{Journal, Known, Promise};
use crate::load::{Field, Load};
use crate::run;
use crate::segments;
use crate::wires::{Wires, inside};

/// How long faults go on.
const FAULTS_FOR: Duration = Duration::from_secs(35);
/// How long the cluster may take, after the last fault, until all is as it was.
pub(crate) const HEAL_WITHIN: Duration = Duration::from_secs(60);
/// How long a partition may take no records while all nodes run.
pub(crate) const BACK_WITHIN: Duration = Duration::from_secs(6);
/// How long clients go on trying.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// A clean end under load may take so long.
pub(crate) const END_WITHIN: Duration = Duration::from_secs(15);
pub(crate) const COPIES: usize = 3;

/// Durable, written by idempotent producers.
pub(crate) const LEDGER: Field = Field { topic: "ledger", partitions: 6 };
/// Page-cache class, written by idempotent producers.
pub(crate) const CACHED: Field = Field { topic: "cached", partitions: 3 };
/// Durable, written by a producer that is not idempotent.
pub(crate) const PLAIN: Field = Field { topic: "plain", partitions: 2 };
pub(crate) const FIELDS: [(Field, Promise); 3] =
    [(LEDGER, Promise::Once), (CACHED, Promise::Once), (PLAIN, Promise::AtLeastOnce)];

pub(crate) const SETTINGS: &str = "min.insync.replicas=2\ndefault.replication.factor=3\nlog.segment.bytes=1048576\nlog.roll.ms=4000\n\
    group.min.session.timeout.ms=1000\ngroup.initial.rebalance.delay.ms=0\noffsets.topic.num.partitions=3\n\
    vltava.memory.limit=268435456\n";

/// Nodes and their present lives.
pub(crate) struct Nodes {
    pub(crate) _place: Place,
    /// What connects them; nothing but loopback when there are none.
    pub(crate) wires: Option<Wires>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) lives: Vec<Option<Process>>,
}

impl Nodes {
    pub(crate) fn start(name: &str) -> Nodes {
        Nodes::start_for(name, Plan::Lives)
    }

    /// As the faults that are planned need them.
    pub(crate) fn start_for(name: &str, plan: Plan) -> Nodes {
        let place = Place::new(name);
        let wires = (plan == Plan::Wires).then(|| Wires::lay(COPIES));
        let mut nodes = match &wires {
            Some(wires) => Node::at(&place, &wires.addresses()),
            None => Node::several(&place, COPIES),
        };
        for node in &mut nodes {
            node.set(SETTINGS);
            node.wired = wires.is_some();
            node.faulty = plan == Plan::Disks;
        }
        let lives = nodes.iter().map(|node| Some(node.start())).collect();
        let mut nodes = Nodes { _place: place, wires, nodes, lives };
        wait_for("all serve", || {
            let ended = (0..COPIES).find(|node| nodes.life(*node).ended().is_some());
            assert_eq!(ended, None, "it ended while it started");
            nodes.nodes.iter().all(Node::serves)
        });
        nodes
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.clients.to_string()).collect()
    }

    pub(crate) fn config(&self) -> ClientConfig {
        ClientConfig {
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(2),
            retry_for: PATIENCE,
            ..ClientConfig::new(self.addresses())
        }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&Env::os(), self.config()).await.expect("they serve")
    }

    pub(crate) fn life(&mut self, node: usize) -> &mut Process {
        self.lives[node].as_mut().expect("it runs")
    }

    pub(crate) fn kill(&mut self, node: usize) {
        let ended = self.life(node).ended();
        assert!(ended.is_none(), "node {} ended by itself: {ended:?}\n{}", node + 1, self.last_words(node));
        self.lives[node].take().expect("it runs").kill();
    }

    pub(crate) fn restart(&mut self, node: usize) {
        self.lives[node] = Some(self.nodes[node].start());
    }

    pub(crate) fn end(&mut self, node: usize) -> Duration {
        let asked = Instant::now();
        let status = self.life(node).end(END_WITHIN);
        assert!(status.success(), "SIGTERM of node {}: {status}\n{}", node + 1, self.last_words(node));
        self.lives[node] = None;
        asked.elapsed()
    }

    pub(crate) fn last_words(&self, node: usize) -> String {
        let log = self.nodes[node].log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// What a node says of all partitions; nothing where it does not answer.
    pub(crate) async fn view(&self, node: usize) -> Option<View> {
        let config = ClientConfig { request_timeout: Duration::from_millis(500), ..self.config() };
        let connections = Connections::new(&Env::os(), Arc::new(config));
        let connection = connections.to(&self.nodes[node].clients.to_string()).await.ok()?;
        let request = MetadataRequest { topics: None, ..Default::default() };
        let answer = connection.call(&request).await.ok()?;
        let response: MetadataResponse = answer.read().ok()?;
        let mut view = View { controller: response.controller_id, partitions: BTreeMap::new() };
        for topic in &response.topics {
            let name = topic.name.as_deref().unwrap_or_default();
            for row in &topic.partitions {
                let partition = PartitionName::new(name, row.partition_index);
                view.partitions.insert(partition, (row.leader_id, row.leader_epoch, row.isr_nodes.len()));
            }
        }
        Some(view)
    }

    /// Waits until all nodes say that all partitions are led and have all copies; tells how long that took.
    pub(crate) async fn heal(&self, within: Duration) -> Result<Duration, String> {
        let began = Instant::now();
        loop {
            let mut wrong = Vec::new();
            let mut leaders = Vec::new();
            for node in 0..self.nodes.len() {
                let Some(view) = self.view(node).await else {
                    wrong.push(format!("node {} does not answer", node + 1));
                    continue;
                };
                for (partition, (leader, epoch, copies)) in &view.partitions {
                    if *leader < 0 || *copies < COPIES {
                        let node = node + 1;
                        wrong.push(format!(
                            "node {node}: {partition}: leader {leader}, epoch {epoch}, {copies} in sync"
                        ));
                    }
                }
                leaders.push(view.partitions);
            }
            if wrong.is_empty() && leaders.windows(2).all(|pair| pair[0] == pair[1]) {
                return Ok(began.elapsed());
            }
            if began.elapsed() > within {
                return Err(wrong.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in 0..self.nodes.len() {
                eprintln!("--- the log of node {} ends with\n{}", node + 1, self.last_words(node));
            }
        }
        self.lives.clear();
    }
}

pub(crate) struct View {
    pub(crate) controller: i32,
    /// Leader, its epoch, copies in sync.
    pub(crate) partitions: BTreeMap<PartitionName, (i32, i32, usize)>,
}

/// When what was acknowledged.
pub(crate) struct Acknowledged {
    pub(crate) began: Instant,
    pub(crate) times: Mutex<BTreeMap<PartitionName, Vec<Duration>>>,
    /// The greatest number acknowledged of each writer.
    pub(crate) greatest: Mutex<BTreeMap<(PartitionName, u16), u32>>,
    pub(crate) without_offset: AtomicUsize,
}

impl Acknowledged {
    pub(crate) fn new() -> Acknowledged {
        Acknowledged {
            began: Instant::now(),
            times: Mutex::default(),
            greatest: Mutex::default(),
            without_offset: AtomicUsize::new(0),
        }
    }

    pub(crate) fn note(&self, partition: &PartitionName, writer: u16, number: u32) {
        self.times.lock().entry(partition.clone()).or_default().push(self.began.elapsed());
        let mut greatest = self.greatest.lock();
        let known = greatest.entry((partition.clone(), writer)).or_default();
        *known = number.max(*known);
    }
}

/// Writes to all partitions of a field until the load ends; then waits until all is acknowledged.
pub(crate) async fn write(load: Arc<Load>, acks: Arc<Acknowledged>, id: u16, field: Field, idempotent: bool) {
    let choices = load.choices();
    let config = ProducerConfig {
        acks: Acks::All,
        idempotent,
        linger: Duration::from_millis(choices.below(4)),
        delivery_timeout: PATIENCE,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&load.client, config);
    let mut numbers = vec![0u32; field.partitions as usize];
    let mut deliveries = JoinSet::new();
    while load.goes_on() {
        for _ in 0..=choices.below(4) {
            let index = choices.below(numbers.len() as u64) as usize;
            let number = numbers[index];
            numbers[index] += 1;
            let mut value = Known::begin_value(id, number);
            value.resize(10 + choices.below(1_500) as usize, b'.');
            let known = Known::of_value(&value).expect("it was made so");
            let record = ProducerRecord {
                partition: Some(index as i32),
                ..ProducerRecord::value(field.topic, &value)
            };
            let (load, acks) = (load.clone(), acks.clone());
            match producer.send(record).await {
                Ok(delivery) => drop(deliveries.spawn(async move {
                    match delivery.wait().await {
                        Ok(placed) => {
                            acks.note(&placed.partition, id, number);
                            match placed.offset {
                                Some(offset) => load.journal.record(&placed.partition, offset, known),
                                None => drop(acks.without_offset.fetch_add(1, Ordering::Relaxed)),
                            }
                        }
                        Err(error) => load.journal.find(format!("writer {id}, {known:?}: {error}")),
                    }
                })),
                Err(error) => load.journal.find(format!("writer {id}: {error}")),
            }
        }
        while deliveries.try_join_next().is_some() {}
        load.pause(&choices, 30).await;
    }
    deliveries.join_all().await;
}

/// What watchers of high watermarks and commits noticed that need not be wrong: answers of brokers that did not know yet
/// that they lead no more.
#[derive(Default)]
pub(crate) struct Stale {
    pub(crate) notes: Mutex<Vec<String>>,
    pub(crate) fetches: AtomicUsize,
    pub(crate) out_of_range: AtomicUsize,
    /// Times a client gave up because of a broker that is not there, and was made anew.
    pub(crate) gone: AtomicUsize,
}

/// Fetches from each partition behind its end, again and again: the high watermark never falls.
pub(crate) async fn watch(load: Arc<Load>, stale: Arc<Stale>, began: Instant, field: Field) {
    let mut told: BTreeMap<PartitionName, (i64, i32, Duration)> = BTreeMap::new();
    while load.goes_on() {
        for partition in field.names() {
            let known_to_any = load.journal.end(&partition);
            let before = told.get(&partition).copied().unwrap_or((0, 0, Duration::ZERO));
            let Some((node, code, end)) = fetch_end(&load.client, &partition, before.0).await else {
                load.client.forget_topic(&partition.topic);
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let now = began.elapsed();
            match ErrorCode::from_code(code) {
                ErrorCode::None => {
                    stale.fetches.fetch_add(1, Ordering::Relaxed);
                    if end < before.0 {
                        load.journal.find(format!(
                            "{partition}: the high watermark fell from {} (node {}, at {:.3?}) to {end} (node {node}, at {now:.3?})",
                            before.0, before.1, before.2
                        ));
                    } else if end < known_to_any {
                        let text = format!(
                            "{partition}: node {node} says {end} at {now:.3?}, {known_to_any} was known before"
                        );
                        stale.notes.lock().push(text);
                    }
                    load.journal.end_told(&partition, end);
                    told.insert(partition, (end.max(before.0), node, now));
                }
                other => {
                    if other == ErrorCode::OffsetOutOfRange {
                        stale.out_of_range.fetch_add(1, Ordering::Relaxed);
                        let text = format!(
                            "{partition}: node {node} says at {now:.3?} that {} is out of range (its end: {end}), told by node {} at {:.3?}",
                            before.0, before.1, before.2
                        );
                        stale.notes.lock().push(text);
                    }
                    load.client.forget_topic(&partition.topic);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn fetch_end(client: &Client, partition: &PartitionName, from: i64) -> Option<(i32, i16, i64)> {
    let leader = client.leader(partition).await.ok()?;
    let connection = client.broker(leader).await.ok()?;
    let request = FetchRequest {
        max_wait_ms: 0,
        min_bytes: 0,
        max_bytes: 1,
        topics: vec![FetchTopic {
            topic: (*partition.topic).into(),
            partitions: vec![FetchPartition {
                partition: partition.partition,
                fetch_offset: from,
                partition_max_bytes: 1,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer = connection.call(&request).await.ok()?;
    let response: FetchResponse = answer.read().ok()?;
    let row = response.responses.first()?.partitions.first()?;
    Some((leader.0, row.error_code, row.high_watermark))
}

/// Reads what groups have committed, again and again.
async fn watch_commits(load: Arc<Load>, stale: Arc<Stale>, config: ClientConfig, began: Instant) {
    let mut client = load.client.clone();
    while load.goes_on() {
        for group in load.journal.groups() {
            let acknowledged = load.journal.commits_acknowledged(&group);
            match client.committed_offsets(&group, None).await {
                Ok(found) => {
                    for (partition, least) in acknowledged {
                        let found = found.get(&partition).map(|committed| committed.offset);
                        if found < Some(least) {
                            let now = began.elapsed();
                            let text = format!(
                                "group {group}, {partition}: {least} was committed, {found:?} is found at {now:.3?}"
                            );
                            stale.notes.lock().push(text);
                        }
                    }
                }
                Err(error) if is_gone(&error) => {
                    stale.gone.fetch_add(1, Ordering::Relaxed);
                    client = anew(&config).await.unwrap_or(client);
                }
                Err(error) => load.journal.find(format!("group {group}: {error}")),
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether an error comes of the client, which gives up where the broker it is sent to is not among those that live, and
/// goes on thinking so of the coordinator of a group.
fn is_gone(error: &ClientError) -> bool {
    error.code() == Some(ErrorCode::BrokerNotAvailable)
}

async fn anew(config: &ClientConfig) -> Option<Client> {
    Client::connect(&Env::os(), config.clone()).await.ok()
}

/// A member of a group that reads and commits; after so many polls it leaves, and another one comes.
async fn read_in_group(
    load: Arc<Load>,
    stale: Arc<Stale>,
    config: ClientConfig,
    group: &'static str,
    fields: &'static [Field],
    polls: u64,
) {
    let choices = load.choices();
    let mut client = load.client.clone();
    while load.goes_on() {
        let group_config = GroupConfig {
            heartbeat_interval: Duration::from_millis(300),
            session_timeout: Duration::from_secs(3),
            commit_interval: None,
            start: Some(Start::Beginning),
            ..GroupConfig::new(group, fields.iter().map(|field| field.topic))
        };
        let mut member = GroupConsumer::new(&client, group_config);
        let mut gone = false;
        for _ in 0..=choices.below(polls) {
            if !load.goes_on() || gone {
                break;
            }
            match member.poll(Duration::from_millis(100)).await {
                Ok(records) => load.journal.shown(&records),
                Err(error) if is_gone(&error) => gone = true,
                Err(error) => load.journal.find(format!("a member of {group}: {error}")),
            }
            if choices.below(3) == 0 && !gone {
                let positions = member.positions();
                load.journal.commit_asked(group, &positions);
                match member.commit().await {
                    Ok(()) => load.journal.committed(group, &positions),
                    Err(error) if is_gone(&error) => gone = true,
                    Err(error) => match error.code() {
                        Some(
                            ErrorCode::RebalanceInProgress
                            | ErrorCode::IllegalGeneration
                            | ErrorCode::UnknownMemberId,
                        ) => {}
                        _ => load.journal.find(format!("a member of {group} commits: {error}")),
                    },
                }
            }
        }
        if gone {
            stale.gone.fetch_add(1, Ordering::Relaxed);
            pause_ms(50).await;
            client = anew(&config).await.unwrap_or(client);
        } else if let Err(error) = member.leave().await
            && !error.retriable()
            && !is_gone(&error)
        {
            load.journal.find(format!("a member of {group} leaves: {error}"));
        }
    }
}

/// Commits rising offsets for groups without members.
async fn commit_without_members(load: Arc<Load>, stale: Arc<Stale>, config: ClientConfig, field: Field) {
    let choices = load.choices();
    let mut client = load.client.clone();
    let mut turn = 0;
    while load.goes_on() {
        turn += 1;
        let group = format!("keeps-{}", turn % 5);
        let offsets: BTreeMap<_, i64> = field.names().map(|partition| (partition, turn)).collect();
        load.journal.commit_asked(&group, &offsets);
        match client.commit_offsets(&group, &offsets).await {
            Ok(()) => load.journal.committed(&group, &offsets),
            Err(error) if is_gone(&error) => {
                stale.gone.fetch_add(1, Ordering::Relaxed);
                pause_ms(50).await;
                client = anew(&config).await.unwrap_or(client);
            }
            Err(error) => load.journal.find(format!("{group}: {error}")),
        }
        load.pause(&choices, 60).await;
    }
}

pub(crate) fn seed() -> u64 {
    let asked = std::env::var("PROCESS_SEED").ok();
    asked.map_or_else(
        || base::env::Random::next_u64(&*Env::os().random) >> 16,
        |text| text.parse().expect("a number"),
    )
}

pub(crate) async fn pause_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// The longest time without an acknowledgement of one partition.
#[derive(Debug, Default)]
struct Gap {
    /// All of it.
    whole: Duration,
    text: String,
    /// Of any, what lies between two faults: all nodes run.
    healthy: Duration,
    healthy_text: String,
}

/// The longest times without an acknowledgement, by the kind of the first fault that began in them, or of the last before
/// them; what lies between two faults by the kind of the one before.
fn gaps(acknowledged: &Acknowledged, faults: &[Fault]) -> BTreeMap<&'static str, Gap> {
    let mut gaps: BTreeMap<&'static str, Gap> = BTreeMap::new();
    for (partition, times) in &*acknowledged.times.lock() {
        for pair in times.windows(2) {
            let (begin, end) = (pair[0], pair[1]);
            let first = faults.iter().find(|fault| fault.at >= begin && fault.at <= end);
            let fault = first.or_else(|| faults.iter().rfind(|fault| fault.at <= begin));
            let gap = gaps.entry(fault.map_or("none", |fault| fault.kind)).or_default();
            if end.saturating_sub(begin) > gap.whole {
                gap.whole = end.saturating_sub(begin);
                gap.text = format!("{partition}, from {begin:.2?}");
            }
            for (index, fault) in faults.iter().enumerate() {
                let next = faults.get(index + 1).map_or(Duration::MAX, |fault| fault.at);
                let healthy = end.min(next).saturating_sub(begin.max(fault.over));
                let gap = gaps.entry(fault.kind).or_default();
                if healthy > gap.healthy {
                    gap.healthy = healthy;
                    let over = fault.over;
                    gap.healthy_text = format!("{partition}, after `{}`, over at {over:.2?}", fault.text);
                }
            }
        }
    }
    gaps
}

pub(crate) async fn create_topics(client: &Client) {
    let topic = |(field, _): &(Field, Promise)| {
        let class =
            (field.topic == CACHED.topic).then(|| ("vltava.durability".to_owned(), "page-cache".to_owned()));
        NewTopic {
            partitions: Some(field.partitions),
            replication_factor: Some(COPIES as i16),
            configs: class.into_iter().collect(),
            ..NewTopic::named(field.topic)
        }
    };
    let topics: Vec<_> = FIELDS.iter().map(topic).collect();
    for created in client.create_topics(&topics, false).await.expect("an answer") {
        created.expect("a new topic");
    }
}

#[test]
fn what_was_acknowledged_survives_faults_of_nodes() {
    chaos(Plan::Lives);
}

#[test]
fn what_was_acknowledged_survives_faults_of_the_network() {
    if inside("chaos::what_was_acknowledged_survives_faults_of_the_network") {
        chaos(Plan::Wires);
    }
}

#[test]
fn what_was_acknowledged_survives_faults_of_disks_and_clocks() {
    chaos(Plan::Disks);
}

fn chaos(plan: Plan) {
    let seed = seed();
    println!("PROCESS_SEED={seed}");
    run(suffer(plan, seed));
}

async fn suffer(plan: Plan, seed: u64) {
    let choices = SimRandom::new(seed);
    let mut nodes = Nodes::start_for("chaos", plan);
    let journal = Arc::new(Journal::default());
    let load = Load::new(nodes.client().await, journal.clone(), seed);
    create_topics(&load.client).await;
    let healed = nodes.heal(HEAL_WITHIN).await;
    println!("all copies are there after {healed:?}");
    let (acks, stale) = (Arc::new(Acknowledged::new()), Arc::new(Stale::default()));
    let began = acks.began;
    let mut clients = Clients::start(&nodes, &load, (&acks, &stale), &journal, seed).await;
    pause_ms(2_000).await;
    let mut faults = Vec::new();
    let faults_for = std::env::var("PROCESS_CHAOS_SECONDS").ok().map(|text| text.parse().expect("a number"));
    let faults_for = faults_for.map_or(FAULTS_FOR, Duration::from_secs);
    while began.elapsed() < faults_for {
        faults.push(plan.strike(&mut nodes, &choices, began).await);
        let ms = if choices.below(3) == 0 { choices.below(300) } else { 500 + choices.below(3_500) };
        pause_ms(ms).await;
    }
    println!("{:7.2} s  faults are over", began.elapsed().as_secs_f64());
    match nodes.heal(HEAL_WITHIN).await {
        Ok(took) => println!("{:7.2} s  healed after {took:.2?}", began.elapsed().as_secs_f64()),
        Err(error) => {
            summary(seed, &acks, &stale, &faults, &journal);
            panic!("seed {seed}: not healed within {HEAL_WITHIN:?}:\n{error}");
        }
    }
    pause_ms(1_000).await;
    load.end();
    clients.end(&journal).await;
    let topics: Vec<_> = FIELDS.iter().map(|(field, promise)| (field.topic, *promise)).collect();
    let client = nodes.client().await;
    match inspect(&client, &journal, &topics).await {
        Ok(inspection) => println!("read {inspection}"),
        Err(error) => journal.find(format!("nothing can be compared: {error}")),
    }
    summary(seed, &acks, &stale, &faults, &journal);
    if let Err(error) = same_segments(&nodes).await {
        journal.find(error);
    }
    end_nodes(&mut nodes, &journal);
    let findings = journal.findings();
    assert!(findings.is_empty(), "seed {seed}: {} findings:\n{}", findings.len(), findings.join("\n"));
}

/// Ends all nodes in order and looks at their files.
fn end_nodes(nodes: &mut Nodes, journal: &Journal) {
    for node in 0..3 {
        if let Some(status) = nodes.life(node).ended() {
            journal.find(format!("node {} ended by itself: {status}", node + 1));
            continue;
        }
        let took = tokio::task::block_in_place(|| nodes.end(node));
        let counted = segments::check_with_leftovers(&[nodes.nodes[node].dir.join("data")]);
        println!(
            "node {}: ended in {took:.2?}, {} segments of {} batches",
            node + 1,
            counted.segments,
            counted.batches
        );
    }
}

/// All that write, read, commit and watch. Each goes its own way, and all end together.
struct Clients {
    loads: Vec<Arc<Load>>,
    writers: JoinSet<()>,
    readers: JoinSet<()>,
}

impl Clients {
    async fn start(
        nodes: &Nodes,
        load: &Arc<Load>,
        (acks, stale): (&Arc<Acknowledged>, &Arc<Stale>),
        journal: &Arc<Journal>,
        seed: u64,
    ) -> Clients {
        const READ: &[Field] = &[LEDGER, CACHED, PLAIN];
        let mut clients = Clients { loads: Vec::new(), writers: JoinSet::new(), readers: JoinSet::new() };
        for id in 0..6 {
            let (field, idempotent) = match id {
                0..3 => (LEDGER, true),
                3..5 => (CACHED, true),
                _ => (PLAIN, false),
            };
            let own = Load::new(nodes.client().await, journal.clone(), seed + id);
            clients.writers.spawn(write(own.clone(), acks.clone(), id as u16, field, idempotent));
            clients.loads.push(own);
        }
        let readers = &mut clients.readers;
        for (group, polls) in [("stay", u64::MAX), ("stay", u64::MAX), ("come-and-go", 200)] {
            readers.spawn(read_in_group(load.clone(), stale.clone(), nodes.config(), group, READ, polls));
        }
        readers.spawn(commit_without_members(load.clone(), stale.clone(), nodes.config(), LEDGER));
        for (field, _) in FIELDS {
            let own = Load::new(nodes.client().await, journal.clone(), seed);
            readers.spawn(watch(own.clone(), stale.clone(), acks.began, field));
            clients.loads.push(own);
        }
        let own = Load::new(nodes.client().await, journal.clone(), seed);
        readers.spawn(watch_commits(own.clone(), stale.clone(), nodes.config(), acks.began));
        clients.loads.push(own);
        clients
    }

    async fn end(&mut self, journal: &Journal) {
        self.loads.iter().for_each(|load| load.end());
        for (what, clients) in [("writers", &mut self.writers), ("readers", &mut self.readers)] {
            let all = async {
                while let Some(ended) = clients.join_next().await {
                    ended.expect("clients do not panic")
                }
            };
            if tokio::time::timeout(PATIENCE + Duration::from_secs(20), all).await.is_err() {
                journal.find(format!("{} {what} do not end", clients.len()));
                clients.abort_all();
            }
        }
    }
}

pub(crate) fn summary(seed: u64, acks: &Acknowledged, stale: &Stale, faults: &[Fault], journal: &Journal) {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    faults.iter().for_each(|fault| *kinds.entry(fault.kind).or_default() += 1);
    let records: usize = acks.times.lock().values().map(Vec::len).sum();
    println!(
        "seed {seed}: {} faults {kinds:?}; {records} records acknowledged ({} without an offset), {} known, {} positions committed; {} high watermarks fetched, {} out of range, {} stale answers, {} clients gave up",
        faults.len(),
        acks.without_offset.load(Ordering::Relaxed),
        journal.len(),
        journal.commit_count(),
        stale.fetches.load(Ordering::Relaxed),
        stale.out_of_range.load(Ordering::Relaxed),
        stale.notes.lock().len(),
        stale.gone.load(Ordering::Relaxed),
    );
    for (kind, gap) in gaps(acks, faults) {
        let Gap { whole, text, healthy, healthy_text } = gap;
        println!(
            "  {kind}: longest without an acknowledgement {whole:.2?} ({text}); while all run {healthy:.2?} ({healthy_text})"
        );
        if healthy > BACK_WITHIN {
            journal.find(format!(
                "nothing was acknowledged for {healthy:.2?} while all nodes ran: {healthy_text}"
            ));
        }
    }
    for note in stale.notes.lock().iter().take(30) {
        println!("  stale: {note}");
    }
}

/// Waits until all nodes have the same files of all but the last segment of each partition, and the same bytes in them.
async fn same_segments(nodes: &Nodes) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let sealed: Vec<_> = nodes.nodes.iter().map(|node| sealed(&node.dir.join("data"))).collect();
        let different: Vec<_> = (1..sealed.len())
            .flat_map(|node| {
                let all = sealed[0].iter().chain(&sealed[node]);
                let differs = all.filter(|(path, len)| {
                    sealed[0].get(*path) != Some(len) || sealed[node].get(*path) != Some(len)
                });
                let text = |(path, _): (&PathBuf, &u64)| {
                    format!(
                        "{}: node 1 {:?}, node {} {:?}",
                        path.display(),
                        sealed[0].get(path),
                        node + 1,
                        sealed[node].get(path)
                    )
                };
                differs.map(text).collect::<Vec<_>>()
            })
            .collect();
        if different.is_empty() {
            println!(
                "{} sealed segments are alike on all nodes after {:.2?}",
                sealed[0].len(),
                began.elapsed()
            );
            for path in sealed[0].keys() {
                let read = |node: &Node| {
                    fs::read(node.dir.join("data").join(path)).map_err(|error| error.to_string())
                };
                let first = read(&nodes.nodes[0])?;
                for node in &nodes.nodes[1..] {
                    if read(node)? != first {
                        return Err(format!(
                            "{} differs between node 1 and {}",
                            path.display(),
                            node.dir.display()
                        ));
                    }
                }
            }
            return Ok(());
        }
        if began.elapsed() > HEAL_WITHIN {
            return Err(format!(
                "copies of segments differ after {HEAL_WITHIN:?}: {} files:\n{}",
                different.len(),
                different[..different.len().min(20)].join("\n")
            ));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Log files of a data directory but the last of each partition, with their lengths.
fn sealed(data: &Path) -> BTreeMap<PathBuf, u64> {
    let list = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut entries: Vec<_> = entries.collect();
        entries.sort();
        entries
    };
    let mut files = BTreeMap::new();
    for partition in list(&data.join("topics")).iter().flat_map(|topic| list(topic)) {
        let mut segments = list(&partition);
        segments.retain(|path| path.is_dir());
        segments.pop();
        for segment in segments {
            for file in list(&segment).into_iter().filter(|path| path.extension().is_some_and(|e| e == "log"))
            {
                let len = fs::metadata(&file).map_or(0, |it| it.len());
                files.insert(file.strip_prefix(data).expect("it is below").to_owned(), len);
            }
        }
    }
    files
}
