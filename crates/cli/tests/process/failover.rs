//! How soon other brokers lead when one is killed, held, ended in order or left alone, and that it does no harm when it is
//! back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::env::Env;
use client::admin::NewTopic;
use client::{Acks, Client, ClientConfig, PartitionName, Producer, ProducerConfig, ProducerRecord};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::chaos::{
    Acknowledged, BACK_WITHIN, CACHED, COPIES, HEAL_WITHIN, LEDGER, Nodes, PATIENCE, Stale, View,
    create_topics, pause_ms, seed, summary, watch, write,
};
use crate::cluster::wait_for;
use crate::faults::Plan;
use crate::inspect::inspect;
use crate::journal::{Journal, Promise};
use crate::load::{Field, Load};
use crate::run;

/// A topic whose partitions are probed.
pub(crate) const PROBED: Field = Field { topic: "probed", partitions: 6 };

/// Acknowledgements of records by when they were sent: of each partition the latest send that was acknowledged.
pub(crate) struct Probes {
    pub(crate) began: Instant,
    /// Sent, acknowledged.
    done: Mutex<Vec<Vec<(Duration, Duration)>>>,
    pub(crate) errors: Mutex<BTreeMap<String, usize>>,
}

impl Probes {
    fn new() -> Arc<Probes> {
        let done = Mutex::new(vec![Vec::new(); PROBED.partitions as usize]);
        Arc::new(Probes { began: Instant::now(), done, errors: Mutex::default() })
    }

    /// What records of a partition took that were sent in a time.
    pub(crate) fn latencies(&self, partition: usize, from: Duration, to: Duration) -> Vec<Duration> {
        let done = self.done.lock();
        let sent_then = done[partition].iter().filter(|(sent, _)| (from..to).contains(sent));
        sent_then.map(|(sent, acked)| *acked - *sent).collect()
    }

    /// When the first record of a partition was acknowledged that was sent after `since`.
    fn first_after(&self, partition: usize, since: Duration) -> Option<Duration> {
        let done = self.done.lock();
        done[partition].iter().filter(|(sent, _)| *sent > since).map(|(_, acked)| *acked).min()
    }
}

/// Writes to one partition every few ms; not idempotent and with little patience each, so that every attempt
/// is a fresh one without the pauses of the one before.
async fn probe(load: Arc<Load>, probes: Arc<Probes>, partition: usize, eager: bool) {
    let patience = if eager { Duration::from_millis(60) } else { PATIENCE };
    let config = ProducerConfig {
        acks: Acks::All,
        idempotent: !eager,
        linger: Duration::ZERO,
        delivery_timeout: patience,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&load.client, config);
    let mut pending = JoinSet::new();
    while load.goes_on() {
        let sent = probes.began.elapsed();
        let record = ProducerRecord {
            partition: Some(partition as i32),
            ..ProducerRecord::value(PROBED.topic, b"0123456789")
        };
        let delivery = producer.send(record).await;
        let probes = probes.clone();
        let wait = async move {
            match delivery {
                Ok(delivery) => match delivery.wait().await {
                    Ok(_) => probes.done.lock()[partition].push((sent, probes.began.elapsed())),
                    Err(error) => *probes.errors.lock().entry(error.to_string()).or_default() += 1,
                },
                Err(error) => *probes.errors.lock().entry(error.to_string()).or_default() += 1,
            }
        };
        if eager {
            wait.await;
        } else {
            pending.spawn(wait);
            while pending.try_join_next().is_some() {}
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Probes of both kinds, each with a client of its own.
pub(crate) async fn spawn_probes(
    nodes: &Nodes,
    clients: &mut JoinSet<()>,
) -> (Vec<Arc<Load>>, [Arc<Probes>; 2]) {
    let mut loads = Vec::new();
    let probes = [Probes::new(), Probes::new()];
    for (eager, probes) in [false, true].into_iter().zip(&probes) {
        for partition in 0..PROBED.partitions as usize {
            if partition % 3 == 0 {
                loads.push(Load::new(nodes.client().await, Arc::default(), 0));
            }
            let load = loads.last().expect("just made").clone();
            clients.spawn(probe(load, probes.clone(), partition, eager));
        }
    }
    (loads, probes)
}

pub(crate) async fn create_probed(nodes: &Nodes) {
    let client = nodes.client().await;
    let topic = NewTopic {
        partitions: Some(PROBED.partitions),
        replication_factor: Some(COPIES as i16),
        ..NewTopic::named(PROBED.topic)
    };
    client.create_topics(&[topic], false).await.expect("an answer").remove(0).expect("a new topic");
    nodes.heal(HEAL_WITHIN).await.expect("all copies are made");
}

/// The node that leads most, counted from 0, and which partitions.
fn busiest(view: &View) -> (usize, Vec<usize>) {
    let led = |node: i32| {
        let of_node = view
            .partitions
            .iter()
            .filter(|(name, (leader, ..))| *leader == node && &*name.topic == PROBED.topic);
        of_node.map(|(name, _)| name.partition as usize).collect::<Vec<_>>()
    };
    (1..=3).map(|node| (node as usize - 1, led(node))).max_by_key(|(_, led)| led.len()).expect("three")
}

/// Waits until all of these have an acknowledgement of what was sent after `since`; how long that took.
pub(crate) async fn acknowledged_again(probes: &Probes, partitions: &[usize], since: Instant) -> Duration {
    let at = since.duration_since(probes.began);
    let began = Instant::now();
    loop {
        let times: Option<Vec<_>> =
            partitions.iter().map(|partition| probes.first_after(*partition, at)).collect();
        if let Some(latest) = times.and_then(|times| times.into_iter().max()) {
            return latest - at;
        }
        assert!(
            began.elapsed() < Duration::from_secs(40),
            "nothing is acknowledged: {:?}",
            probes.errors.lock()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn another_leader_acknowledges_within_a_second_of_a_kill() {
    run(async {
        let mut nodes = Nodes::start("failover");
        create_probed(&nodes).await;
        let mut clients = JoinSet::new();
        let (loads, [patient, eager]) = spawn_probes(&nodes, &mut clients).await;
        pause_ms(2_000).await;
        let mut times: [Vec<Duration>; 2] = Default::default();
        for round in 0..10 {
            let view = nodes.view(0).await.expect("it serves");
            let (node, led) = busiest(&view);
            let killed = Instant::now();
            nodes.kill(node);
            let survivor = (node + 1) % 3;
            let elected = async {
                loop {
                    if let Some(view) = nodes.view(survivor).await
                        && led.iter().all(|partition| {
                            let row =
                                view.partitions.get(&PartitionName::new(PROBED.topic, *partition as i32));
                            row.is_some_and(|(leader, ..)| *leader > 0 && *leader != node as i32 + 1)
                        })
                    {
                        return killed.elapsed();
                    }
                    pause_ms(5).await;
                }
            };
            let (elected, patient_time, eager_time) = tokio::join!(
                elected,
                acknowledged_again(&patient, &led, killed),
                acknowledged_again(&eager, &led, killed)
            );
            let was_controller = view.controller == node as i32 + 1;
            println!(
                "round {round}: node {} killed (controller: {was_controller}), led {}; others elected after {elected:.3?}, acknowledged again: eager producers {eager_time:.3?}, patient ones {patient_time:.3?}",
                node + 1,
                led.len()
            );
            times[0].push(patient_time);
            times[1].push(eager_time);
            nodes.restart(node);
            let healed =
                nodes.heal(HEAL_WITHIN).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
            println!("          back with all copies after {healed:.2?}");
            pause_ms(500).await;
        }
        loads.iter().for_each(|load| load.end());
        while clients.join_next().await.is_some() {}
        for (name, times) in ["patient", "eager"].iter().zip(&mut times) {
            times.sort();
            println!(
                "{name} producers: median {:.3?}, least {:.3?}, most {:.3?}",
                (times[4] + times[5]) / 2,
                times[0],
                times[9]
            );
        }
        println!("errors of patient producers: {:?}", patient.errors.lock());
        let median = (times[1][4] + times[1][5]) / 2;
        assert!(median <= Duration::from_secs(1), "the median is {median:?}");
        assert!(patient.errors.lock().is_empty());
    });
}

#[test]
fn a_leader_that_is_held_is_replaced_and_does_no_harm_afterwards() {
    run(async {
        let seed = seed();
        println!("PROCESS_SEED={seed}");
        let mut nodes = Nodes::start("held");
        create_probed(&nodes).await;
        let client = nodes.client().await;
        create_topics(&client).await;
        let journal = Arc::new(Journal::default());
        let (acks, stale) = (Arc::new(Acknowledged::new()), Arc::new(Stale::default()));
        let mut clients = JoinSet::new();
        let mut loads = Vec::new();
        for (id, field) in [(0, LEDGER), (1, LEDGER), (2, CACHED)] {
            let load = Load::new(nodes.client().await, journal.clone(), seed + id);
            clients.spawn(write(load.clone(), acks.clone(), id as u16, field, true));
            loads.push(load);
        }
        for field in [LEDGER, CACHED] {
            let load = Load::new(nodes.client().await, journal.clone(), seed);
            clients.spawn(watch(load.clone(), stale.clone(), acks.began, field));
            loads.push(load);
        }
        pause_ms(1_500).await;
        let mut slowest = Duration::ZERO;
        for round in 0..5 {
            slowest = slowest.max(hold_busiest(&mut nodes, round).await);
            pause_ms(500).await;
        }
        loads.iter().for_each(|load| load.end());
        while clients.join_next().await.is_some() {}
        let topics = [(LEDGER.topic, Promise::Once), (CACHED.topic, Promise::Once)];
        let inspection = inspect(&client, &journal, &topics).await.expect("all can be read");
        println!("read {inspection}; slowest {slowest:.2?}");
        summary(seed, &acks, &stale, &[], &journal);
        let findings = journal.findings();
        assert!(findings.is_empty(), "seed {seed}:\n{}", findings.join("\n"));
        assert!(slowest <= Duration::from_secs(5), "the slowest took {slowest:?}");
    });
}

/// Holds the node that leads most, until others have acknowledged records of all that it led, and a second longer. Returns
/// how long that took.
async fn hold_busiest(nodes: &mut Nodes, round: u32) -> Duration {
    let view = nodes.view(0).await.expect("it serves");
    let (node, led) = busiest(&view);
    let held = Instant::now();
    nodes.life(node).hold(true);
    let survivor = (node + 1) % 3;
    let elected = loop {
        if let Some(view) = nodes.view(survivor).await
            && view.partitions.values().all(|(leader, ..)| *leader > 0 && *leader != node as i32 + 1)
        {
            break held.elapsed();
        }
        assert!(held.elapsed() < Duration::from_secs(20), "nobody replaces node {}", node + 1);
        pause_ms(10).await;
    };
    // A client that never heard of the one that is held.
    let addresses = nodes.addresses().into_iter().enumerate().filter(|(other, _)| *other != node);
    let config =
        ClientConfig { bootstrap: addresses.map(|(_, address)| address).collect(), ..nodes.config() };
    let fresh = Client::connect(&Env::os(), config).await.expect("two serve");
    let delivery_timeout = Duration::from_secs(60);
    let config = ProducerConfig { idempotent: false, delivery_timeout, ..ProducerConfig::default() };
    let producer = Producer::new(&fresh, config);
    for partition in &led {
        let record = ProducerRecord {
            partition: Some(*partition as i32),
            ..ProducerRecord::value(PROBED.topic, b"0123456789")
        };
        producer.send(record).await.expect("room").wait().await.expect("another leads");
    }
    let again = held.elapsed();
    pause_ms(1_000).await;
    nodes.life(node).hold(false);
    let healed = nodes.heal(HEAL_WITHIN).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
    let was_controller = view.controller == node as i32 + 1;
    println!(
        "round {round}: node {} held (controller: {was_controller}), led {}; others lead after {elected:.2?}, acknowledged after {again:.2?}; all copies {healed:.2?} after it goes on",
        node + 1,
        led.len()
    );
    again
}

#[test]
fn a_leader_whose_disk_is_full_has_others_lead() {
    run(async {
        let nodes = Nodes::start_for("full", Plan::Disks);
        create_probed(&nodes).await;
        nodes.heal(HEAL_WITHIN).await.expect("all copies");
        let view = nodes.view(0).await.expect("it serves");
        // Its log of the metadata is on the same disk, so that it falls silent, too.
        let node = (0..COPIES).find(|node| view.controller != *node as i32 + 1).expect("one controls");
        let led: Vec<i32> = (0..PROBED.partitions)
            .filter(|it| view.partitions[&PartitionName::new(PROBED.topic, *it)].0 == node as i32 + 1)
            .collect();
        assert!(!led.is_empty(), "leaders are spread");
        let producer = Producer::new(&nodes.client().await, ProducerConfig::default());
        let write = async || {
            let began = Instant::now();
            for partition in &led {
                let record = ProducerRecord {
                    partition: Some(*partition),
                    ..ProducerRecord::value(PROBED.topic, b"0123456789")
                };
                producer.send(record).await.expect("room").wait().await.expect("somebody has room");
            }
            began.elapsed()
        };
        write().await;
        nodes.nodes[node].fault("full=true");
        wait_for("it has no room", || nodes.nodes[node].log().contains("full: true"));
        let took = write().await;
        println!("node {} has no room, and led {}: acknowledged after {took:.2?}", node + 1, led.len());
        assert!(took <= Duration::from_secs(10), "{took:?}");
        nodes.nodes[node].fault("");
        nodes.heal(HEAL_WITHIN).await.expect("it has room again");
    });
}

#[test]
fn a_leader_whose_followers_died_one_by_one_goes_on_when_they_are_back() {
    followers_die(1_500);
}

#[test]
fn a_leader_whose_followers_died_together_goes_on_when_they_are_back() {
    followers_die(0);
}

fn followers_die(between_ms: u64) {
    run(async {
        let mut nodes = Nodes::start("lonely");
        create_probed(&nodes).await;
        let mut clients = JoinSet::new();
        let (loads, [patient, _]) = spawn_probes(&nodes, &mut clients).await;
        pause_ms(1_500).await;
        let (leader, led) = busiest(&nodes.view(0).await.expect("it serves"));
        let (first, second) = ((leader + 1) % 3, (leader + 2) % 3);
        nodes.kill(first);
        // After a while the ensembles are the leader and one other.
        pause_ms(between_ms).await;
        nodes.kill(second);
        pause_ms(1_000).await;
        let back = Instant::now();
        nodes.restart(first);
        nodes.restart(second);
        let all: Vec<_> = (0..PROBED.partitions as usize).collect();
        for (what, partitions) in [("the leader's own", &led), ("all", &all)] {
            let again = acknowledged_again(&patient, partitions, back).await;
            println!("{what} partitions are acknowledged again {again:.2?} after the others are started");
        }
        loads.iter().for_each(|load| load.end());
        while clients.join_next().await.is_some() {}
        nodes.heal(HEAL_WITHIN).await.expect("all copies are made");
    });
}

#[test]
fn a_rolling_restart_holds_nobody_up_for_long() {
    run(async {
        let mut nodes = Nodes::start("rolling");
        create_probed(&nodes).await;
        let mut clients = JoinSet::new();
        let (loads, [patient, _]) = spawn_probes(&nodes, &mut clients).await;
        pause_ms(1_500).await;
        for patience in [true, false] {
            for node in 0..COPIES {
                let took = tokio::task::block_in_place(|| nodes.end(node));
                pause_ms(500).await;
                nodes.restart(node);
                while !nodes.nodes[node].serves() {
                    pause_ms(5).await;
                }
                let healed = if patience { Some(nodes.heal(HEAL_WITHIN).await) } else { None };
                println!("node {} ended in {took:.2?}, healed {healed:.2?}", node + 1);
                pause_ms(1_000).await;
            }
        }
        let healed = nodes.heal(HEAL_WITHIN).await;
        println!("healed at the end: {healed:.2?}");
        let mut longest = (Duration::ZERO, 0, Duration::ZERO);
        for (partition, done) in patient.done.lock().iter().enumerate() {
            let mut times: Vec<_> = done.iter().map(|(_, acked)| *acked).collect();
            times.push(patient.began.elapsed());
            times.sort();
            for pair in times.windows(2) {
                longest = longest.max((pair[1] - pair[0], partition, pair[0]));
            }
        }
        println!(
            "longest without an acknowledgement {:.2?}: partition {} from {:.2?} on",
            longest.0, longest.1, longest.2
        );
        loads.iter().for_each(|load| load.end());
        assert!(healed.is_ok() && longest.0 < BACK_WITHIN, "{longest:?}");
        while clients.join_next().await.is_some() {}
        println!("errors: {:?}", patient.errors.lock());
        assert!(patient.errors.lock().is_empty());
    });
}
