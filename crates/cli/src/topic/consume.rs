//! `vltava topic consume`.

use clap::Args;
use client::{Client, Consumer, ConsumerConfig, GroupConfig, Isolation, PartitionName};

use super::{existing, no_such_partition};
use crate::completion;
use crate::failure::Outcome;
use crate::moment::parse_start;
use crate::output::Form;
use crate::reading::{Reading, Shape, read, read_in_group};
use crate::record::{Format, unescape};

/// Arguments of `vltava topic consume`.
#[derive(Args, Debug)]
pub(crate) struct ConsumeArguments {
    /// Names of the topics
    #[arg(required = true, value_name = "TOPIC", add = completion::topics())]
    topics: Vec<String>,
    /// Only these partitions; may be given several times
    #[arg(short, long = "partition", value_name = "NUMBER", conflicts_with = "group")]
    partitions: Vec<i32>,
    /// Where to begin: beginning, end, an offset, -N for N before the end, @TIME.
    /// In a group it counts where nothing is committed [default: beginning]
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true, add = completion::positions())]
    from: Option<String>,
    /// Read as a member of this group, and commit what was printed
    #[arg(short, long, add = completion::groups())]
    group: Option<String>,
    /// Stop after that many records
    #[arg(short = 'n', long = "count", value_name = "COUNT")]
    limit: Option<u64>,
    /// Stop at the end instead of waiting for more
    #[arg(short = 'e', long)]
    exit_at_end: bool,
    /// How to print a record, in kcat's tokens, as in '%k: %s\n' (see `vltava cat --help`)
    #[arg(short, long)]
    format: Option<String>,
    /// Print the key and this text before the value
    #[arg(short = 'K', long, value_name = "TEXT", conflicts_with = "format")]
    key_delimiter: Option<String>,
    /// What to print behind each record
    #[arg(short = 'D', long, value_name = "TEXT", default_value = "\\n")]
    delimiter: String,
    /// Do not show records of transactions that are open or were aborted
    #[arg(long)]
    read_committed: bool,
}

impl ConsumeArguments {
    fn reading(&self, form: Form) -> Outcome<Reading> {
        let shape = match (form, &self.format) {
            (Form::Json, _) => Shape::Json,
            (Form::Table, Some(format)) => Shape::Format(Format::parse(format, false)?),
            (Form::Table, None) => {
                let key_delimiter = self.key_delimiter.as_deref().map(unescape).transpose()?;
                let delimiter = unescape(&self.delimiter)?;
                Shape::Format(Format::usual(key_delimiter.as_deref(), &delimiter, false))
            }
        };
        Ok(Reading {
            shape,
            limit: self.limit,
            stop_at_end: self.exit_at_end,
            tell: false,
            commit: true,
            end_ms: None,
        })
    }
}

pub(crate) async fn run(client: &Client, arguments: &ConsumeArguments, form: Form) -> Outcome {
    let reading = arguments.reading(form)?;
    let from = arguments.from.as_deref().unwrap_or("beginning");
    let start = parse_start(from, client.env().clock.wall_ms())?;
    let topics = existing(client, &arguments.topics).await?;
    let mut config = ConsumerConfig::default();
    if arguments.read_committed {
        config.isolation = Isolation::ReadCommitted;
    }
    reading.tune(&mut config);
    if let Some(group) = &arguments.group {
        let mut member = GroupConfig::new(group, topics.keys());
        (member.start, member.consumer) = (Some(start), config);
        return read_in_group(client, member, &reading).await.map(drop);
    }
    let mut assigned = Vec::new();
    for (name, topic) in &topics {
        if let Some(missing) =
            arguments.partitions.iter().find(|wanted| !topic.partitions.contains_key(wanted))
        {
            return Err(no_such_partition(name, *missing));
        }
        let wanted = |index: &&i32| arguments.partitions.is_empty() || arguments.partitions.contains(index);
        let partitions = topic.partitions.keys().filter(wanted);
        assigned.extend(partitions.map(|index| (PartitionName::new(name.as_str(), *index), start)));
    }
    let mut consumer = Consumer::new(client, config);
    consumer.assign(assigned);
    read(consumer, &reading).await.map(drop)
}
