//! Records to a broker and back, compared byte by byte.

use std::time::Duration;

use base::config::Durability;
use base::env::{Env, OpenMode};
use base::error::ErrorCode;
use client::admin::NewTopic;
use client::{
    Client, ClientError, GroupConfig, GroupConsumer, Producer, ProducerConfig, ProducerRecord, io_text,
};

use crate::failure::{Failure, Outcome};
use crate::input::{Pieces, Source};
use crate::output::{self, InputProgress, bytes, count, duration, rate};
use crate::sending::{Sending, send_all};

/// The beginning of what is sent when no file is named; the generated reference follows.
const README: &str = include_str!("../../../../README.md");
/// Standard input is kept to be compared, up to that many bytes.
const STDIN_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The topic when none is named.
const USUAL_TOPIC: &str = "quickstart";
/// Runs over one directory whose topics are told apart by a number.
const TOPICS_MAX: u32 = 1_000;
/// How long a poll waits for records that were acknowledged already.
const POLL_WAIT: Duration = Duration::from_millis(200);
/// Reading back fails when nothing comes for so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Records sent one by one to measure latency.
const LATENCY_PROBES: usize = 51;

/// Creates the topic, sends, reads back, compares, and tells how it went. A difference is a failure.
/// Without a name it takes a topic that is not there yet; answers the topic's name.
/// `durability` is what acknowledgements promise, without which a latency says nothing.
pub(super) async fn round_trip(
    client: &Client,
    source: Source,
    topic: Option<&str>,
    durability: Durability,
) -> Outcome<String> {
    let env = client.env();
    let began = env.clock.now();
    let topic = match topic {
        Some(topic) => create(client, topic).await.map(|()| topic.to_owned()).map_err(taken)?,
        None => create_fresh(client, USUAL_TOPIC).await?,
    };
    tell!("topic {topic} created in {}", duration(env.clock.now() - began));
    let latency = median_latency(client, &format!("{topic}-latency")).await?;
    let mut pieces = Pieces::open(env, source.clone(), b"\n")?;
    let progress = InputProgress::new(source.size(env), "producing");
    let sent = send_all(client, &mut pieces, &Sending::lines_to(&topic), &progress).await?;
    progress.finish();
    let took = read_back(client, &topic, source, sent.records).await?;
    let (records, size) = (count(sent.records), bytes(sent.bytes));
    output::line(&format!("produced   {records} records, {size}, {}", rate(sent.records, sent.took)))?;
    // What came at once took a time that says nothing of a rate.
    let pace = took.map_or_else(|| "in one answer".to_owned(), |took| rate(sent.records, took));
    output::line(&format!("consumed   {records} records in a group, {pace}"))?;
    output::line(&format!(
        "latency    {} median of {LATENCY_PROBES} single records, from send to acknowledgement ({})",
        duration(latency),
        durability.name()
    ))?;
    match sent.records {
        0 => output::line("compared   nothing: what was sent is empty")?,
        _ => output::line(&format!("compared   {records} records, all bytes are equal"))?,
    }
    Ok(topic)
}

/// What is sent. It is read twice, so standard input is kept; a file must be readable.
pub(super) async fn source(env: &Env, file: Option<&str>) -> Outcome<Source> {
    match file.map(Source::from_argument) {
        Some(Source::Stdin) => {
            let bytes = keep_stdin(env).await?;
            Ok(Source::Memory(bytes.into()))
        }
        Some(Source::File(path)) => {
            let opened = env.disk.open(&path, OpenMode::Read);
            opened.map_err(|error| Failure::new(format!("{}: {}", path.display(), io_text(&error))))?;
            Ok(Source::File(path))
        }
        Some(source) => Ok(source),
        None => {
            let config = base::config::broker_table_markdown() + &base::config::topic_table_markdown();
            let text = [README, &config, &base::metrics::metrics_table_markdown()].join("\n");
            Ok(Source::Memory(text.into()))
        }
    }
}

/// All of standard input.
async fn keep_stdin(env: &Env) -> Outcome<Vec<u8>> {
    let progress = InputProgress::new(None, "reading");
    let mut lines = Pieces::open(env, Source::Stdin, b"\n")?;
    let mut kept = Vec::new();
    let mut count = 0;
    while let Some(line) = lines.next().await? {
        count += 1;
        kept.extend_from_slice(&line);
        kept.push(b'\n');
        progress.advance(count, lines.taken());
        if kept.len() > STDIN_BYTES_MAX {
            return Err(Failure::new(format!(
                "standard input is longer than {}",
                bytes(STDIN_BYTES_MAX as u64)
            ))
            .help("put it into a file: a file is read twice and may be of any size"));
        }
    }
    progress.finish();
    Ok(kept)
}

async fn create(client: &Client, topic: &str) -> client::Result<()> {
    let new = NewTopic { partitions: Some(1), ..NewTopic::named(topic) };
    client.create_topics(&[new], false).await?.into_iter().try_for_each(|created| created.map(drop))
}

fn taken(error: ClientError) -> Failure {
    Failure::from(error).help("name another topic with --topic, or another directory with --data")
}

/// Creates a topic of that name or, where earlier runs have left theirs, of that name with a number.
async fn create_fresh(client: &Client, name: &str) -> Outcome<String> {
    let mut fresh = name.to_owned();
    for number in 2..=TOPICS_MAX {
        match create(client, &fresh).await {
            Ok(()) => return Ok(fresh),
            Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => {
                fresh = format!("{name}-{number}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    create(client, &fresh).await.map(|()| fresh).map_err(taken)
}

/// The median time from sending one record to its acknowledgement, in a topic that is gone afterwards.
async fn median_latency(client: &Client, topic: &str) -> Outcome<Duration> {
    let topic = &create_fresh(client, topic).await?;
    let clock = &client.env().clock;
    let producer =
        Producer::new(client, ProducerConfig { linger: Duration::ZERO, ..ProducerConfig::default() });
    let mut times = Vec::with_capacity(LATENCY_PROBES);
    for _ in 0..LATENCY_PROBES {
        let began = clock.now();
        producer.send(ProducerRecord::value(topic, b"ping")).await?.wait().await?;
        times.push(clock.now() - began);
    }
    drop(producer);
    for result in client.delete_topics(&[topic]).await? {
        result?;
    }
    times.sort_unstable();
    Ok(times[LATENCY_PROBES / 2])
}

/// Reads that many records as the only member of a group and compares each with its line; answers how
/// long the records took to come, from the first to the last; `None` when all came at once.
async fn read_back(client: &Client, topic: &str, source: Source, expected: u64) -> Outcome<Option<Duration>> {
    let clock = client.env().clock.clone();
    let mut lines = Pieces::open(client.env(), source, b"\n")?;
    let mut consumer = GroupConsumer::new(client, GroupConfig::new(format!("{topic}-readers"), [topic]));
    let progress = output::towards(expected, "consuming");
    let mut compared = 0u64;
    let (mut began, mut heard) = (None, clock.now());
    while compared < expected {
        let records = consumer.poll(POLL_WAIT).await?;
        if records.is_empty() && clock.now() > heard + PATIENCE {
            return Err(Failure::new(format!("only {compared} of {expected} records came back")));
        }
        let at_once = records.len() as u64 == expected;
        if !records.is_empty() {
            heard = clock.now();
            began = began.or((!at_once).then_some(heard));
        }
        for record in records {
            compared += 1;
            if lines.next().await?.as_deref() != record.value.as_deref() {
                let at = record.offset;
                return Err(Failure::new(format!("record {compared}, at offset {at}, is not what was sent"))
                    .help("if the file has not changed meanwhile, this is a defect: please report it"));
            }
        }
        progress.set_position(compared);
    }
    let took = began.map(|began| clock.now() - began);
    consumer.leave().await?;
    progress.finish_and_clear();
    Ok(took)
}
