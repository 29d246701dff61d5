//! A client that creates topics, writes to them, adds partitions, deletes them, and creates others of the
//! same names.

use std::sync::Arc;

use base::env::sim::SimRandom;
use client::admin::NewTopic;
use client::{PartitionName, Producer, ProducerConfig, ProducerRecord, Topics};

use crate::journal::{Existence, Known, Promise};
use crate::load::Load;

/// Topics that come and go.
pub(crate) const NAMES: [&str; 6] = ["come-0", "come-1", "come-2", "come-3", "come-4", "come-5"];
/// What they promise.
pub(crate) const PROMISE: Promise = Promise::Once;
/// Writers from this one on are of topics that come and go.
const FIRST_WRITER: u16 = 1_000;

/// Goes on until the load ends.
pub(crate) async fn churn(load: Arc<Load>) {
    let choices = load.choices();
    let mut writer = FIRST_WRITER;
    while load.goes_on() {
        let name = NAMES[choices.below(NAMES.len() as u64) as usize];
        let quiet = load.quiet.lock().await;
        match load.journal.topic(name) {
            Existence::Gone => create(&load, name, 1 + choices.below(4) as usize).await,
            Existence::There { id, partitions } => match choices.below(4) {
                0 => delete(&load, name, Existence::PerhapsDeleted { id, partitions }).await,
                1 if partitions < 8 => {
                    let to = partitions + 1;
                    grow(&load, name, Existence::PerhapsGrown { id, from: partitions, to }).await;
                }
                _ => {
                    writer += 1;
                    write(&load, &choices, name, partitions, writer).await;
                }
            },
            _ => settle(&load).await,
        }
        drop(quiet);
        load.pause(&choices, 40).await;
    }
}

async fn create(load: &Load, name: &str, partitions: usize) {
    let topic = NewTopic {
        partitions: Some(partitions as i32),
        configs: vec![("segment.ms".to_owned(), "300".to_owned())],
        ..NewTopic::named(name)
    };
    load.journal.set_topic(name, Existence::PerhapsCreated { partitions });
    let mut created = match load.client.create_topics(&[topic], false).await {
        Ok(created) => created,
        Err(error) if error.outcome_unknown() => return,
        Err(error) => return load.journal.find(format!("creation of {name}: {error}")),
    };
    match created.remove(0) {
        Ok(created) => load.journal.set_topic(name, Existence::There { id: created.id, partitions }),
        Err(error) => load.journal.find(format!("creation of {name}: {error}")),
    }
}

async fn delete(load: &Load, name: &str, perhaps: Existence) {
    load.journal.set_topic(name, perhaps);
    let mut deleted = match load.client.delete_topics(&[name]).await {
        Ok(deleted) => deleted,
        Err(error) if error.outcome_unknown() => return,
        Err(error) => return load.journal.find(format!("deletion of {name}: {error}")),
    };
    match deleted.remove(0) {
        Ok(()) => load.journal.set_topic(name, Existence::Gone),
        Err(error) => load.journal.find(format!("deletion of {name}: {error}")),
    }
}

async fn grow(load: &Load, name: &str, perhaps: Existence) {
    let Existence::PerhapsGrown { id, to, .. } = perhaps else { unreachable!("that is what is given") };
    load.journal.set_topic(name, perhaps);
    match load.client.create_partitions(name, to as i32, false).await {
        Ok(()) => load.journal.set_topic(name, Existence::There { id, partitions: to }),
        // Never sent, or nobody knows.
        Err(error) if error.outcome_unknown() || error.retriable() => {}
        Err(error) => load.journal.find(format!("partition {to} of {name}: {error}")),
    }
}

/// A few records in random partitions, all acknowledged before the topic is touched again.
async fn write(load: &Load, choices: &SimRandom, name: &str, partitions: usize, writer: u16) {
    load.client.forget_topic(name);
    let producer = Producer::new(&load.client, ProducerConfig::default());
    let partition = choices.below(partitions as u64) as i32;
    for number in 0..1 + choices.below(5) as u32 {
        let mut value = Known::begin_value(writer, number);
        value.resize(value.len() + choices.below(500) as usize, b'.');
        let known = Known::of_value(&value).expect("it was made so");
        let record = ProducerRecord { partition: Some(partition), ..ProducerRecord::value(name, &value) };
        let placed = match producer.send(record).await {
            Ok(delivery) => delivery.wait().await,
            Err(error) => Err(error),
        };
        match placed.map(|placed| placed.offset) {
            Ok(Some(offset)) => load.journal.record(&PartitionName::new(name, partition), offset, known),
            other => load.journal.find(format!("{name}, partition {partition}, {known:?}: {other:?}")),
        }
    }
}

/// Finds out what became of a topic.
async fn settle(load: &Load) {
    // While the server is away nobody can tell.
    if let Ok(cluster) = load.client.metadata(Topics::All).await {
        load.journal.check_topics(&cluster);
    }
}
