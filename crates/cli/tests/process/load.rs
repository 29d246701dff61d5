//! Clients that keep a server busy and write down what it tells them, over its deaths and restarts.
//!
//! Every client goes on trying while the server is away, so none of them may ever be told of a failure,
//! except where an answer was lost with the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use base::batch::Compression;
use base::env::Random;
use base::env::sim::SimRandom;
use base::error::ErrorCode;
use base::ids::Offset;
use client::admin::OffsetAt;
use client::{
    Acks, Client, ClientError, GroupConfig, GroupConsumer, Isolation, PartitionName, Producer,
    ProducerConfig, ProducerRecord, Start,
};
use tokio::task::JoinSet;

use crate::journal::{Journal, Known, VALUE_BYTES_MAX, VALUE_BYTES_MIN};

/// How long a client goes on trying.
const PATIENCE: Duration = Duration::from_secs(60);
/// Silence after which a group goes on without a member. Shorter than most lives of the server: a member
/// that has left before a kill comes back with the group's last record, and is waited for.
const SESSION_TIMEOUT: Duration = Duration::from_secs(1);
/// Of so many records one is large.
const LARGE_ONE_OF: u64 = 16;
/// What is not large, bytes.
const SMALL_BYTES_MAX: u64 = 600;

/// A topic that is there from the beginning to the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) topic: &'static str,
    pub(crate) partitions: i32,
}

impl Field {
    /// Its partitions.
    pub(crate) fn names(self) -> impl Iterator<Item = PartitionName> {
        (0..self.partitions).map(move |partition| PartitionName::new(self.topic, partition))
    }
}

/// What all clients of a run share.
pub(crate) struct Load {
    pub(crate) client: Client,
    pub(crate) journal: Arc<Journal>,
    /// Held by whoever changes topics or trims, and by whoever compares.
    pub(crate) quiet: tokio::sync::Mutex<()>,
    ended: AtomicBool,
    next_seed: AtomicU32,
    seed: u64,
}

impl Load {
    /// Of a client, with the seed of all choices.
    pub(crate) fn new(client: Client, journal: Arc<Journal>, seed: u64) -> Arc<Load> {
        let (ended, next_seed) = (AtomicBool::new(false), AtomicU32::new(0));
        Arc::new(Load { client, journal, quiet: tokio::sync::Mutex::default(), ended, next_seed, seed })
    }

    /// Lets all clients come to their end.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether clients go on.
    pub(crate) fn goes_on(&self) -> bool {
        !self.ended.load(Ordering::Relaxed)
    }

    /// Choices for one client, unlike those of the others.
    pub(crate) fn choices(&self) -> SimRandom {
        SimRandom::new(self.seed ^ (u64::from(self.next_seed.fetch_add(1, Ordering::Relaxed)) << 32))
    }

    /// Waits up to so many ms.
    pub(crate) async fn pause(&self, choices: &SimRandom, ms_max: u64) {
        let pause = Duration::from_millis(choices.below(ms_max + 1));
        self.client.env().clock.sleep(pause).await;
    }

    fn unexpected(&self, who: &str, error: &ClientError) {
        self.journal.find(format!("{who}: {error}"));
    }
}

/// How a writer writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer {
    /// Nobody else has it.
    pub(crate) id: u16,
    pub(crate) field: Field,
    pub(crate) acks: Acks,
    pub(crate) compression: Compression,
    /// Every record with the same key, so that compaction keeps the last one.
    pub(crate) keyed: bool,
}

/// Writes until the load ends; then waits until all is acknowledged.
pub(crate) async fn write(load: Arc<Load>, writer: Writer) {
    let choices = load.choices();
    let config = ProducerConfig {
        acks: writer.acks,
        idempotent: writer.acks == Acks::All,
        compression: writer.compression,
        linger: Duration::from_millis(choices.below(4)),
        delivery_timeout: PATIENCE,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&load.client, config);
    let mut numbers = vec![0; writer.field.partitions as usize];
    let mut deliveries = JoinSet::new();
    while load.goes_on() {
        for _ in 0..=choices.below(8) {
            let partition = choices.below(numbers.len() as u64) as usize;
            let value = value(&choices, writer.id, numbers[partition]);
            numbers[partition] += 1;
            let known = Known::of_value(&value).expect("it was made so");
            let key = writer.keyed.then(|| writer.id.to_be_bytes());
            let record = ProducerRecord {
                partition: Some(partition as i32),
                key: key.as_ref().map(|key| &key[..]),
                ..ProducerRecord::value(writer.field.topic, &value)
            };
            match producer.send(record).await {
                Ok(delivery) => drop(deliveries.spawn(acknowledge(load.clone(), writer, delivery, known))),
                Err(error) => load.unexpected(&format!("writer {}", writer.id), &error),
            }
        }
        while deliveries.try_join_next().is_some() {}
        load.pause(&choices, 60).await;
    }
    deliveries.join_all().await;
}

async fn acknowledge(load: Arc<Load>, writer: Writer, delivery: client::Delivery, known: Known) {
    match delivery.wait().await {
        Ok(placed) => match placed.offset {
            Some(offset) => load.journal.record(&placed.partition, offset, known),
            None => load.journal.find(format!("writer {}: {known:?} is a duplicate of no offset", writer.id)),
        },
        Err(error) => load.unexpected(&format!("writer {}, {known:?}", writer.id), &error),
    }
}

/// A value of a random size, one half of it easy to compress.
fn value(choices: &SimRandom, writer: u16, number: u32) -> Vec<u8> {
    let large = choices.below(LARGE_ONE_OF) == 0;
    let bytes_max = if large { VALUE_BYTES_MAX as u64 } else { SMALL_BYTES_MAX };
    let size = VALUE_BYTES_MIN + choices.below(bytes_max - VALUE_BYTES_MIN as u64 + 1) as usize;
    let mut value = Known::begin_value(writer, number);
    let noise_from = value.len();
    value.resize(noise_from.max(size / 2), 0);
    choices.fill(&mut value[noise_from..]);
    value.resize(size, b'.');
    value
}

/// A member of a group that reads and commits; after so many polls it leaves, and another one comes.
pub(crate) async fn read_in_group(
    load: Arc<Load>,
    group: &'static str,
    fields: &'static [Field],
    polls: u64,
) {
    let choices = load.choices();
    let who = format!("a member of {group}");
    while load.goes_on() {
        let config = GroupConfig {
            heartbeat_interval: Duration::from_millis(300),
            session_timeout: SESSION_TIMEOUT,
            commit_interval: None,
            start: Some(Start::Beginning),
            ..GroupConfig::new(group, fields.iter().map(|field| field.topic))
        };
        let mut member = GroupConsumer::new(&load.client, config);
        for _ in 0..=choices.below(polls) {
            if !load.goes_on() {
                break;
            }
            match member.poll(Duration::from_millis(100)).await {
                Ok(records) => load.journal.shown(&records),
                Err(error) => load.unexpected(&who, &error),
            }
            if choices.below(3) == 0 {
                commit(&load, group, &mut member).await;
            }
        }
        // Who cannot say good-bye, because the server is away, is missed after its session.
        if let Err(error) = member.leave().await
            && !error.retriable()
        {
            load.unexpected(&who, &error);
        }
    }
}

async fn commit(load: &Load, group: &str, member: &mut GroupConsumer) {
    let positions = member.positions();
    load.journal.commit_asked(group, &positions);
    match member.commit().await {
        Ok(()) => load.journal.committed(group, &positions),
        // The group has moved on; the next poll joins it anew.
        Err(error) => match error.code() {
            Some(
                ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration | ErrorCode::UnknownMemberId,
            ) => {}
            _ => load.unexpected(&format!("a member of {group} commits"), &error),
        },
    }
}

/// Commits rising offsets for groups without members, and removes others as soon as they have committed.
pub(crate) async fn commit_without_members(load: Arc<Load>, field: Field) {
    let choices = load.choices();
    let mut turn = 0;
    while load.goes_on() {
        turn += 1;
        let group = format!("keeps-{}", turn % 5);
        let offsets: BTreeMap<_, Offset> = field.names().map(|partition| (partition, turn)).collect();
        load.journal.commit_asked(&group, &offsets);
        match load.client.commit_offsets(&group, &offsets).await {
            Ok(()) => load.journal.committed(&group, &offsets),
            Err(error) => load.unexpected(&group, &error),
        }
        if turn % 4 == 0 {
            let group = format!("goes-{turn}");
            let done = match load.client.commit_offsets(&group, &offsets).await {
                Ok(()) => load.client.delete_group(&group).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => load.journal.group_deleted(&group),
                // An earlier attempt had been carried out.
                Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => {
                    load.journal.group_deleted(&group);
                }
                Err(error) => load.unexpected(&group, &error),
            }
        }
        load.pause(&choices, 60).await;
    }
}

/// Deletes the records before random offsets of the first partition of each field.
pub(crate) async fn trim(load: Arc<Load>, fields: &'static [Field]) {
    let choices = load.choices();
    while load.goes_on() {
        load.pause(&choices, 800).await;
        let field = fields[choices.below(fields.len() as u64) as usize];
        let partition = PartitionName::new(field.topic, 0);
        let _quiet = load.quiet.lock().await;
        let end = load.journal.end(&partition);
        let offset = end - choices.below(end as u64 / 4 + 1) as Offset;
        load.journal.trim_asked(&partition, offset);
        let done = load.client.delete_records(&[(partition.clone(), Some(offset))]).await;
        match done.into_values().next().expect("it was asked for") {
            Ok(start) if start >= offset => load.journal.trimmed(&partition, start),
            Ok(start) => load.journal.find(format!("{partition}: trimmed to {offset}, begins at {start}")),
            Err(error) => load.unexpected(&format!("{partition}, trim to {offset}"), &error),
        }
    }
}

/// Asks for high watermarks.
pub(crate) async fn watch(load: Arc<Load>, fields: &'static [Field]) {
    let choices = load.choices();
    let names = fields.iter().flat_map(|field| field.names());
    let wanted: Vec<_> = names.map(|partition| (partition, OffsetAt::Latest)).collect();
    while load.goes_on() {
        match load.client.list_offsets(&wanted, Isolation::ReadUncommitted).await {
            Ok(listed) => listed.into_iter().for_each(|(partition, listed)| match listed {
                Ok(listed) => load.journal.end_told(&partition, listed.offset.unwrap_or(0)),
                Err(error) => load.unexpected("high watermarks", &error),
            }),
            Err(error) => load.unexpected("high watermarks", &error),
        }
        load.pause(&choices, 100).await;
    }
}
