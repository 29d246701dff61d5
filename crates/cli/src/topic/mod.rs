//! `vltava topic …`: everything about topics.

mod alter;
mod config;
mod consume;
mod create;
mod delete;
mod describe;
mod list;
mod offsets;
mod produce;
mod trim;

pub(crate) use create::parse_config;
pub(crate) use produce::AcksWord;

use std::collections::{BTreeMap, BTreeSet};

use base::error::ErrorCode;
use base::ids::Offset;
use clap::{Args, Subcommand};
use client::admin::OffsetAt;
use client::{Client, ClientError, Isolation, PartitionName, TopicMetadata, Topics};

use crate::arguments::{Bootstrap, Output};
use crate::connect::connect;
use crate::failure::{Failure, Outcome};

/// Arguments of `vltava topic`.
#[derive(Args, Debug)]
pub(crate) struct TopicArguments {
    #[command(flatten)]
    pub(crate) bootstrap: Bootstrap,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create topics
    Create(create::CreateArguments),
    /// List topics
    List(list::ListArguments),
    /// Show partitions, leaders, copies, offsets and the configs that were set
    Describe(describe::DescribeArguments),
    /// Delete topics with all their records
    Delete(delete::DeleteArguments),
    /// Add partitions
    Alter(alter::AlterArguments),
    /// Show or change configs
    Config(config::ConfigArguments),
    /// Write records, one from each line of a file or of standard input
    Produce(produce::ProduceArguments),
    /// Read records
    Consume(consume::ConsumeArguments),
    /// Show where partitions begin and end, or the offsets at a time
    Offsets(offsets::OffsetsArguments),
    /// Delete the records at the beginning of partitions
    Trim(trim::TrimArguments),
}

/// Runs the command.
pub(crate) async fn run(arguments: TopicArguments) -> Outcome {
    let form = arguments.output.form;
    let client = connect(&arguments.bootstrap).await?;
    match arguments.verb {
        Verb::Create(arguments) => create::run(&client, &arguments, form).await,
        Verb::List(arguments) => list::run(&client, &arguments, form).await,
        Verb::Describe(arguments) => describe::run(&client, &arguments, form).await,
        Verb::Delete(arguments) => delete::run(&client, &arguments, form).await,
        Verb::Alter(arguments) => alter::run(&client, &arguments, form).await,
        Verb::Config(arguments) => config::run(&client, &arguments, form).await,
        Verb::Produce(verb) => {
            let timeout = arguments.bootstrap.delivery_timeout();
            produce::run(&client, &verb, form, timeout).await
        }
        Verb::Consume(arguments) => consume::run(&client, &arguments, form).await,
        Verb::Offsets(arguments) => offsets::run(&client, &arguments, form).await,
        Verb::Trim(arguments) => trim::run(&client, &arguments, form).await,
    }
}

/// The topics of these names, which must exist. Never creates any.
pub(crate) async fn existing(client: &Client, names: &[String]) -> Outcome<BTreeMap<String, TopicMetadata>> {
    // One that is named twice is one all the same.
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let mut metadata = client.metadata(Topics::Named(&names)).await?;
    let mut topics = BTreeMap::new();
    for name in names {
        let subject = || format!("topic `{name}`");
        let topic = metadata.topics.remove(name);
        let topic = topic.ok_or_else(|| ClientError::Missing { subject: subject() })?;
        if topic.error == ErrorCode::UnknownTopicOrPartition {
            return Err(no_such_topic(client, name).await);
        }
        ClientError::check(topic.error.code(), None, subject)?;
        topics.insert(name.to_owned(), topic);
    }
    Ok(topics)
}

/// Names less alike than this are no help.
const LEAST_LIKENESS: f64 = 0.6;

/// A topic was named that does not exist: perhaps one that is called nearly so is meant.
async fn no_such_topic(client: &Client, name: &str) -> Failure {
    let names = client.metadata(Topics::All).await.map(|metadata| metadata.topics.into_keys());
    let meant = names.map(|names| did_you_mean(name, names)).unwrap_or_default();
    Failure::new(format!("topic `{name}` does not exist ({})", ErrorCode::UnknownTopicOrPartition.name()))
        .help(format!("{meant}`vltava topic list` shows the topics there are"))
}

/// A question and a blank, if one of the names is nearly the one that does not exist.
pub(crate) fn did_you_mean(name: &str, names: impl Iterator<Item = String>) -> String {
    let scored = names.map(|other| (strsim::normalized_damerau_levenshtein(name, &other), other));
    match scored.max_by(|(one, _), (other, _)| one.total_cmp(other)) {
        Some((likeness, other)) if likeness >= LEAST_LIKENESS => format!("did you mean `{other}`? "),
        _ => String::new(),
    }
}

/// A partition was named that its topic does not have.
pub(crate) fn no_such_partition(topic: &str, partition: i32) -> Failure {
    Failure::new(format!("topic {topic} has no partition {partition}"))
        .help("`vltava topic describe` shows the partitions there are")
}

/// Where a partition begins and ends; `None` while no leader tells.
pub(crate) type Range = (Option<Offset>, Option<Offset>);

/// First and end offsets of the partitions of some topics that have a leader.
pub(crate) async fn ranges(
    client: &Client,
    topics: &BTreeMap<String, TopicMetadata>,
) -> Outcome<BTreeMap<PartitionName, Range>> {
    let partitions = topics.iter().flat_map(|(name, topic)| {
        let led = topic.partitions.iter().filter(|(_, partition)| partition.leader.is_some());
        led.map(move |(index, _)| PartitionName::new(name.as_str(), *index))
    });
    let partitions: Vec<_> = partitions.collect();
    let first = offsets_at(client, &partitions, OffsetAt::Earliest).await?;
    let mut end = offsets_at(client, &partitions, OffsetAt::Latest).await?;
    let range = |(partition, first): (PartitionName, _)| {
        let end = end.remove(&partition).flatten();
        (partition, (first, end))
    };
    Ok(first.into_iter().map(range).collect())
}

/// One offset of each partition; `None` where there is none such.
pub(crate) async fn offsets_at(
    client: &Client,
    partitions: &[PartitionName],
    at: OffsetAt,
) -> Outcome<BTreeMap<PartitionName, Option<Offset>>> {
    let wanted: Vec<_> = partitions.iter().map(|partition| (partition.clone(), at)).collect();
    let found = client.list_offsets(&wanted, Isolation::ReadUncommitted).await?;
    let offset = |(partition, listed): (_, client::Result<_>)| {
        listed.map(|listed: client::admin::ListedOffset| (partition, listed.offset))
    };
    Ok(found.into_iter().map(offset).collect::<client::Result<_>>()?)
}

/// Records between two offsets, as offsets count them.
pub(crate) fn records(range: Range) -> Option<i64> {
    Some((range.1? - range.0?).max(0))
}

/// An offset, or a dash.
pub(crate) fn shown(offset: Option<Offset>) -> String {
    offset.map_or_else(|| "–".to_owned(), |offset| offset.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_in_a_name_is_understood() {
        let meant = |name| did_you_mean(name, ["orders", "payments"].map(str::to_owned).into_iter());
        assert_eq!(meant("order"), "did you mean `orders`? ");
        assert_eq!(meant("paymnets"), "did you mean `payments`? ");
        assert_eq!(meant("clicks"), "");
    }
}
