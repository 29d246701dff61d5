//! `vltava bench …`: load for any Kafka cluster, and what it bore.

mod consume;
mod load;
mod pace;
mod receive;
mod report;

use clap::{Args, Subcommand};
use client::{Client, Topics};

use crate::arguments::{Bootstrap, Output};
use crate::connect::connect;
use crate::failure::{Failure, Outcome};
use load::Reach;

/// Arguments of `vltava bench`.
#[derive(Args, Debug)]
pub(crate) struct BenchArguments {
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Produce at a rate, or as fast as it goes, and measure until records are acknowledged
    Produce(load::LoadArguments),
    /// Produce at a rate and measure until consumers have the records
    Latency(load::LatencyArguments),
    /// Read a topic from its beginning to its end
    Consume(consume::ConsumeArguments),
}

/// Runs the command.
pub(crate) async fn run(arguments: BenchArguments) -> Outcome {
    let form = arguments.output.form;
    let report = match &arguments.verb {
        Verb::Produce(load) => load::run(&arguments.bootstrap, load, Reach::Acknowledged).await?,
        Verb::Latency(latency) => {
            let reach = Reach::Consumed { consumers: latency.consumers };
            load::run(&arguments.bootstrap, &latency.load, reach).await?
        }
        Verb::Consume(consume) => consume::run(&arguments.bootstrap, consume).await?,
    };
    report.print(form)
}

/// So many clients, each with connections of its own.
async fn clients(bootstrap: &Bootstrap, count: u16) -> Outcome<Vec<Client>> {
    let mut clients = Vec::with_capacity(count.into());
    for _ in 0..count {
        clients.push(connect(bootstrap).await?);
    }
    Ok(clients)
}

/// How many partitions a topic has; 0 when there is none of that name. Never creates any.
async fn partition_count(client: &Client, topic: &str) -> Outcome<i32> {
    let metadata = client.metadata(Topics::Named(&[topic])).await?;
    let count = metadata.topics.get(topic).map_or(0, |topic| topic.partitions.len());
    i32::try_from(count).map_err(|_| Failure::new(format!("topic {topic} has {count} partitions")))
}
