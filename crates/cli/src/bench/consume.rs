//! `vltava bench consume`.

use std::time::Duration;

use clap::Args;
use client::{Client, Consumer, ConsumerConfig, PartitionName, Start};

use super::report::{Report, cpu_time};
use super::{clients, partition_count};
use crate::arguments::Bootstrap;
use crate::completion;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::topic::existing;

/// How long a poll waits for records.
const POLL_WAIT: Duration = Duration::from_millis(200);
/// Reading fails when nothing comes for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `vltava bench consume`.
#[derive(Args, Debug)]
pub(super) struct ConsumeArguments {
    /// Name of the topic
    #[arg(add = completion::topics())]
    topic: String,
    /// Consumers, each of which reads everything over a connection of its own
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    consumers: u16,
    /// Bytes a broker may answer with at once
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    fetch_bytes_max: usize,
    /// Bytes of one partition in an answer
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    partition_bytes_max: usize,
}

/// What a consumer found.
#[derive(Clone, Copy, Default)]
struct Found {
    records: u64,
    bytes: u64,
}

pub(super) async fn run(bootstrap: &Bootstrap, arguments: &ConsumeArguments) -> Outcome<Report> {
    let clients = clients(bootstrap, arguments.consumers).await?;
    let env = clients[0].env().clone();
    existing(&clients[0], std::slice::from_ref(&arguments.topic)).await?;
    let partitions = partition_count(&clients[0], &arguments.topic).await?;
    let config = ConsumerConfig {
        fetch_bytes_max: arguments.fetch_bytes_max,
        partition_bytes_max: arguments.partition_bytes_max,
        ..ConsumerConfig::default()
    };
    let progress = output::counting("consuming");
    let cpu = cpu_time(&*env.disk);
    let began = env.clock.now();
    let readers = clients.iter().map(|client| {
        let names = (0..partitions).map(|partition| PartitionName::new(arguments.topic.as_str(), partition));
        let (client, config, names, progress) =
            (client.clone(), config.clone(), names.collect(), progress.clone());
        tokio::spawn(async move { read_all(&client, config, names, |records| progress.inc(records)).await })
    });
    let mut report = Report { verb: "consumed", ..Report::default() };
    for reader in readers.collect::<Vec<_>>() {
        let found = reader.await.expect("a reader does not panic")?;
        report.records += found.records;
        report.bytes += found.bytes;
    }
    report.took = env.clock.now() - began;
    report.client_cpu = cpu_time(&*env.disk).unwrap_or_default().saturating_sub(cpu.unwrap_or_default());
    progress.finish_and_clear();
    Ok(report)
}

/// Reads partitions from their beginning to where they end when that is reached.
async fn read_all(
    client: &Client,
    config: ConsumerConfig,
    mut left: Vec<PartitionName>,
    heard: impl Fn(u64),
) -> Outcome<Found> {
    let clock = client.env().clock.clone();
    let mut consumer = Consumer::new(client, config);
    consumer.assign(left.iter().map(|name| (name.clone(), Start::Beginning)));
    let mut found = Found::default();
    let mut last = clock.now();
    while !left.is_empty() {
        let records = consumer.poll(POLL_WAIT).await?;
        if !records.is_empty() {
            last = clock.now();
        } else if clock.now() > last + PATIENCE {
            return Err(Failure::new(format!("nothing more came for {} s", PATIENCE.as_secs())));
        }
        found.records += records.len() as u64;
        let parts = records.iter().flat_map(|record| [&record.key, &record.value]);
        found.bytes += parts.flatten().map(|part| part.len() as u64).sum::<u64>();
        heard(records.len() as u64);
        left.retain(|name| !consumer.caught_up_with(name));
    }
    Ok(found)
}
