//! `vltava bench produce` and `vltava bench latency`: producers under an open loop, and consumers that wait for what
//! they send.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base::batch::Compression;
use base::env::Env;
use base::env::Random;
use base::env::sim::SimRandom;
use clap::Args;
use client::admin::NewTopic;
use client::{Client, Delivery, Producer, ProducerConfig, ProducerRecord};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use indicatif::ProgressBar;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::pace::{Gate, Pacemaker, Schedule};
use super::receive::{Receivers, Stamp};
use super::report::{Latencies, Report, cpu_time};
use super::{clients, partition_count};
use crate::arguments::Bootstrap;
use crate::completion;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::topic::{AcksWord, parse_config};

/// Acknowledgements whose latency is measured, a second: each costs this process time that records then lack.
const SAMPLES_PER_SECOND: f64 = 20_000.0;
/// Different values that are sent in turn.
const VALUES: u64 = 64;
/// Time for connections, first batches and the broker's files before anything is due.
const HEAD_START: Duration = Duration::from_millis(200);

/// What is sent, and how fast.
#[derive(Args, Debug)]
pub(super) struct LoadArguments {
    /// The topic; one that does not exist is made, and deleted at the end
    #[arg(long, value_name = "TOPIC", default_value = "vltava-bench", add = completion::topics())]
    topic: String,
    /// Partitions of a topic that is made
    #[arg(short, long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// Copies of each partition of a topic that is made
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(i16).range(1..))]
    replicas: i16,
    /// A config of a topic that is made; may be given several times
    #[arg(short, long = "config", value_name = "KEY=VALUE", value_parser = parse_config,
          add = completion::topic_assignments())]
    configs: Vec<(String, String)>,
    /// Leave a topic that was made
    #[arg(long)]
    keep: bool,
    /// Records a second over all producers [default: as many as go]
    #[arg(short, long, value_name = "RECORDS", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Bytes of each value
    #[arg(short = 's', long, value_name = "BYTES", default_value_t = 1024, value_parser = parse_size)]
    record_bytes: usize,
    /// Producers, each with a connection of its own
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    producers: u16,
    /// How long to measure, seconds
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// How long to produce before that, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    warm_up: u32,
    /// What to wait for: all copies in sync, the leader, or nothing
    #[arg(long, value_enum, default_value_t = AcksWord::All)]
    acks: AcksWord,
    /// How to compress batches: none, gzip, snappy, lz4 or zstd
    #[arg(short = 'z', long, value_name = "CODEC", default_value = "none", value_parser = Compression::from_str,
          add = completion::codecs())]
    compression: Compression,
    /// How long a batch waits for more records, ms
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    linger_ms: u32,
    /// Size at which a batch is sent, bytes
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 10)]
    batch_bytes: usize,
    /// Each producer waits for a record's acknowledgement before it sends the next
    #[arg(long)]
    one_at_a_time: bool,
    /// Each record goes to the next partition, rather than a batch's worth to one
    #[arg(long)]
    round_robin: bool,
}

/// Arguments of `vltava bench latency`.
#[derive(Args, Debug)]
pub(super) struct LatencyArguments {
    #[command(flatten)]
    pub(super) load: LoadArguments,
    /// Consumers, each of which reads everything over a connection of its own
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) consumers: u16,
}

/// How far records are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// To their acknowledgement.
    Acknowledged,
    /// To so many consumers.
    Consumed { consumers: u16 },
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| (0.001..=1e8).contains(rate));
    rate.ok_or_else(|| "it must be a number of records a second".to_owned())
}

/// Values hold a [`Stamp`], and are no longer than what brokers take by default.
fn parse_size(text: &str) -> Result<usize, String> {
    const BYTES_MAX: usize = 1_000_000;
    let size = text.parse().ok().filter(|size| (Stamp::BYTES..=BYTES_MAX).contains(size));
    size.ok_or_else(|| format!("it must be a number from {} to {BYTES_MAX}", Stamp::BYTES))
}

impl LoadArguments {
    fn producer(&self) -> ProducerConfig {
        ProducerConfig {
            acks: self.acks.into(),
            compression: self.compression,
            linger: Duration::from_millis(self.linger_ms.into()),
            batch_bytes: self.batch_bytes,
            ..ProducerConfig::default()
        }
    }
}

/// The times of a run, on the environment's clock.
#[derive(Clone, Copy)]
struct Span {
    begin: Duration,
    /// Records due from here on count.
    measured: Duration,
    end: Duration,
}

/// What one producer did.
#[derive(Default)]
struct Part {
    /// All that it sent, counted or not.
    sent: u64,
    records: u64,
    acks: Latencies,
    late: Latencies,
}

impl Part {
    fn add(&mut self, other: &Part) {
        self.sent += other.sent;
        self.records += other.records;
        self.acks.add(&other.acks);
        self.late.add(&other.late);
    }
}

/// Runs the load and tells what was measured.
pub(super) async fn run(bootstrap: &Bootstrap, load: &LoadArguments, reach: Reach) -> Outcome<Report> {
    let producers = clients(bootstrap, load.producers).await?;
    let env = producers[0].env().clone();
    let made = prepare_topic(&producers[0], load).await?;
    let result = measure(bootstrap, &env, &producers, load, reach).await;
    if made && !load.keep {
        let deleted = producers[0].delete_topics(&[load.topic.as_str()]).await;
        // What went wrong with the run says more.
        if result.is_ok() {
            deleted?.into_iter().collect::<client::Result<Vec<_>>>()?;
        }
    }
    result
}

/// Makes the topic unless it exists; answers whether it was made.
async fn prepare_topic(client: &Client, load: &LoadArguments) -> Outcome<bool> {
    if partition_count(client, &load.topic).await? > 0 {
        tell!("topic {} exists and is used as it is", load.topic);
        return Ok(false);
    }
    let topic = NewTopic {
        name: load.topic.clone(),
        partitions: Some(load.partitions),
        replication_factor: Some(load.replicas),
        configs: load.configs.clone(),
    };
    client.create_topics(&[topic], false).await?.into_iter().try_for_each(|created| created.map(drop))?;
    while partition_count(client, &load.topic).await? < load.partitions {
        client.env().clock.sleep(Duration::from_millis(50)).await;
    }
    Ok(true)
}

async fn measure(
    bootstrap: &Bootstrap,
    env: &Env,
    clients: &[Client],
    load: &LoadArguments,
    reach: Reach,
) -> Outcome<Report> {
    let stamp = Stamp::new(env);
    let rounds = rounds(clients, load).await?;
    let receivers = match reach {
        Reach::Acknowledged => None,
        Reach::Consumed { consumers } => {
            Some(Receivers::start(bootstrap, consumers, &load.topic, stamp).await?)
        }
    };
    let progress = output::counting("producing");
    let begin = env.clock.now() + HEAD_START;
    let measured = begin + Duration::from_secs(load.warm_up.into());
    let span = Span { begin, measured, end: measured + Duration::from_secs(load.seconds.into()) };
    if let Some(receivers) = &receivers {
        receivers.count_from(span.measured);
    }
    let (_pacemaker, mut gates) = pace(env, load, span);
    let cpu = cpu_at(env, span.measured);
    let tasks: Vec<JoinHandle<Outcome<Part>>> = clients
        .iter()
        .enumerate()
        .map(|(number, client)| {
            let sender = Sender {
                client: client.clone(),
                producer: Producer::new(client, load.producer()),
                topic: load.topic.clone(),
                gate: gates.as_mut().map(|gates| gates.remove(0)),
                span,
                sample_every: (load.rate.unwrap_or(0.0) / SAMPLES_PER_SECOND).ceil().max(1.0) as u64,
                one_at_a_time: load.one_at_a_time,
                round: rounds.get(number).copied(),
                progress: progress.clone(),
            };
            let values = Values::new(stamp, load.record_bytes, number as u64);
            tokio::spawn(sender.run(values))
        })
        .collect();
    let mut whole = Part::default();
    for task in tasks {
        whole.add(&task.await.expect("a producer does not panic")?);
    }
    let mut latencies = vec![("ack", "from when a record was due to its acknowledgement", whole.acks)];
    if load.rate.is_none() {
        latencies[0].1 = "from when a record was sent to its acknowledgement";
    }
    if let Some(receivers) = receivers {
        let received = receivers.finish(whole.sent).await?;
        latencies.push(("end_to_end", "from when a record was due to its consumers", received));
    }
    let took = env.clock.now().saturating_sub(span.measured);
    let before = cpu.await.expect("a look at the time does not panic");
    progress.finish_and_clear();
    Ok(Report {
        verb: "produced",
        records: whole.records,
        bytes: whole.records * load.record_bytes as u64,
        took,
        latencies,
        late: load.rate.map(|_| whole.late),
        client_cpu: cpu_time(&*env.disk).unwrap_or_default().saturating_sub(before.unwrap_or_default()),
    })
}

/// The processor time this process will have taken by then.
fn cpu_at(env: &Env, time: Duration) -> JoinHandle<Option<Duration>> {
    let env = env.clone();
    tokio::spawn(async move {
        env.clock.sleep_until(time).await;
        cpu_time(&*env.disk)
    })
}

type Gates = Vec<(Schedule, Arc<Gate>)>;

/// Gates for all producers, which share the rate by turns; none without a rate.
fn pace(env: &Env, load: &LoadArguments, span: Span) -> (Option<Pacemaker>, Option<Gates>) {
    let Some(rate) = load.rate else { return (None, None) };
    let count = f64::from(load.producers);
    let schedule = |number| Schedule::new(span.begin, rate / count, f64::from(number) / count);
    let schedules: Vec<_> = (0..load.producers).map(schedule).collect();
    let (pacemaker, gates) = Pacemaker::start(env, schedules.clone());
    (Some(pacemaker), Some(schedules.into_iter().zip(gates).collect()))
}

/// Values in turn: half of each is the same letter, half is random, so that codecs have work and success.
struct Values {
    stamp: Stamp,
    values: Vec<Vec<u8>>,
}

impl Values {
    fn new(stamp: Stamp, bytes: usize, seed: u64) -> Values {
        let random = SimRandom::new(seed);
        let value = |_| {
            let mut value = vec![b'v'; bytes];
            random.fill(&mut value[..bytes / 2]);
            value
        };
        Values { stamp, values: (0..VALUES).map(value).collect() }
    }

    /// The value of a record that is due then.
    fn stamped(&mut self, index: u64, due: Duration) -> &[u8] {
        let value = &mut self.values[(index % VALUES) as usize];
        self.stamp.write(due, value);
        value
    }
}

/// One producer.
struct Sender {
    client: Client,
    producer: Producer,
    topic: String,
    /// When its records are due; without one, always.
    gate: Option<(Schedule, Arc<Gate>)>,
    span: Span,
    /// One in so many acknowledgements is measured.
    sample_every: u64,
    one_at_a_time: bool,
    /// Which partitions its records go to; without it the producer chooses.
    round: Option<Round>,
    progress: ProgressBar,
}

/// Where the producers send records to, if not to where they like.
async fn rounds(clients: &[Client], load: &LoadArguments) -> Outcome<Vec<Round>> {
    let Some(client) = clients.first().filter(|_| load.round_robin) else { return Ok(Vec::new()) };
    let partitions = partition_count(client, &load.topic).await?;
    Ok((0..clients.len()).map(|producer| Round::new(partitions, producer, clients.len())).collect())
}

/// Partitions in turn. Producers begin at different ones.
#[derive(Clone, Copy)]
struct Round {
    partitions: u64,
    first: u64,
}

impl Round {
    fn new(partitions: i32, producer: usize, producers: usize) -> Round {
        let partitions = u64::try_from(partitions).unwrap_or(0).max(1);
        Round { partitions, first: partitions * producer as u64 / producers.max(1) as u64 }
    }

    fn partition(&self, index: u64) -> i32 {
        i32::try_from((self.first + index) % self.partitions).unwrap_or(0)
    }
}

impl Sender {
    async fn run(self, mut values: Values) -> Outcome<Part> {
        let clock = self.client.env().clock.clone();
        let (watched, watching) = watch(&self.client);
        let mut part = Part::default();
        let mut next_sample = Duration::ZERO;
        clock.sleep_until(self.span.begin).await;
        for index in 0.. {
            let partition = self.round.as_ref().map(|round| round.partition(index));
            let due = match &self.gate {
                Some((schedule, gate)) => {
                    gate.pass().await;
                    schedule.due(index)
                }
                None => clock.now(),
            };
            if due >= self.span.end {
                break;
            }
            let now = clock.now();
            let value = values.stamped(index, due);
            let record = ProducerRecord { partition, ..ProducerRecord::value(&self.topic, value) };
            let delivery = self.producer.send(record).await?;
            part.sent += 1;
            self.progress.inc(1);
            let counts = due >= self.span.measured;
            if counts {
                part.records += 1;
                part.late.record(now.saturating_sub(due));
            }
            if self.one_at_a_time {
                delivery.wait().await?;
                if counts {
                    part.acks.record(clock.now() - due);
                }
                continue;
            }
            let sampled = match self.gate {
                Some(_) => index % self.sample_every == 0,
                None => now >= next_sample,
            };
            if counts && sampled {
                next_sample = now + Duration::from_secs_f64(1.0 / SAMPLES_PER_SECOND);
                // The watcher ends after this task.
                let _ = watched.send((due, delivery));
            }
        }
        self.producer.flush().await?;
        drop(watched);
        part.acks.add(&watching.await.expect("a watcher does not panic")?);
        Ok(part)
    }
}

type Watched = mpsc::UnboundedSender<(Duration, Delivery)>;

/// Notes when deliveries are acknowledged. They are bounded by the producer's buffer.
fn watch(client: &Client) -> (Watched, JoinHandle<Outcome<Latencies>>) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Duration, Delivery)>();
    let clock = client.env().clock.clone();
    let watcher = tokio::spawn(async move {
        let mut latencies = Latencies::default();
        let mut pending = FuturesUnordered::new();
        let mut more = true;
        while more || !pending.is_empty() {
            tokio::select! {
                watched = receiver.recv(), if more => match watched {
                    Some((due, delivery)) => pending.push(async move { (due, delivery.wait().await) }),
                    None => more = false,
                },
                Some((due, outcome)) = pending.next(), if !pending.is_empty() => {
                    outcome.map_err(Failure::from)?;
                    latencies.record(clock.now().saturating_sub(due));
                }
            }
        }
        Ok(latencies)
    });
    (sender, watcher)
}
