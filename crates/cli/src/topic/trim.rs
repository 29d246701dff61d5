//! `vltava topic trim`.

use std::collections::BTreeMap;

use base::ids::Offset;
use clap::{ArgGroup, Args};
use client::admin::OffsetAt;
use client::{Client, PartitionName};
use serde_json::json;

use super::{Range, existing, no_such_partition, offsets_at, ranges, records, shown};
use crate::arguments::Consent;
use crate::completion;
use crate::failure::{Failure, Outcome};
use crate::moment::parse_moment;
use crate::output::{self, Align, Form, Table, count};

/// Arguments of `vltava topic trim`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("before").required(true).args(["before_offset", "before_time", "all"])))]
pub(crate) struct TrimArguments {
    /// Name of the topic
    #[arg(add = completion::topics())]
    topic: String,
    /// Only these partitions; may be given several times
    #[arg(short, long = "partition", value_name = "NUMBER")]
    partitions: Vec<i32>,
    /// Delete the records before this offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..),
          allow_negative_numbers = true)]
    before_offset: Option<Offset>,
    /// Delete the records before this time: 2026-01-31T12:30, 7d (ago), ms since 1970
    #[arg(long, value_name = "TIME")]
    before_time: Option<String>,
    /// Delete all records
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    consent: Consent,
}

/// Where a partition begins and ends, and where it is to begin.
type Plan = BTreeMap<PartitionName, (Range, Offset)>;

pub(crate) async fn run(client: &Client, arguments: &TrimArguments, form: Form) -> Outcome {
    let plan = plan(client, arguments).await?;
    if !arguments.consent.yes {
        show(&plan, None, form)?;
        tell!("nothing was deleted: say --yes to delete these records for good");
        return Ok(());
    }
    let wanted: Vec<_> =
        plan.iter().map(|(partition, (_, before))| (partition.clone(), Some(*before))).collect();
    let results = client.delete_records(&wanted).await;
    let mut done = BTreeMap::new();
    let mut first_failure = None;
    for (partition, result) in results {
        match result {
            Ok(first) => drop(done.insert(partition, first)),
            Err(error) if first_failure.is_none() => first_failure = Some(Failure::from(error)),
            Err(error) => tell!("{}", Failure::from(error)),
        }
    }
    show(&plan, Some(&done), form)?;
    first_failure.map_or(Ok(()), Err)
}

async fn plan(client: &Client, arguments: &TrimArguments) -> Outcome<Plan> {
    let topics = existing(client, std::slice::from_ref(&arguments.topic)).await?;
    let mut ranges = ranges(client, &topics).await?;
    for wanted in &arguments.partitions {
        if !ranges.contains_key(&PartitionName::new(arguments.topic.as_str(), *wanted)) {
            return Err(no_such_partition(&arguments.topic, *wanted));
        }
    }
    if !arguments.partitions.is_empty() {
        ranges.retain(|partition, _| arguments.partitions.contains(&partition.partition));
    }
    let at_time = match &arguments.before_time {
        Some(text) => {
            let time = parse_moment(text, client.env().clock.wall_ms())?;
            let partitions: Vec<_> = ranges.keys().cloned().collect();
            offsets_at(client, &partitions, OffsetAt::Time(time)).await?
        }
        None => BTreeMap::new(),
    };
    let target = |(partition, range): (PartitionName, Range)| {
        let end = range.1.unwrap_or(0);
        let before = match (arguments.before_offset, arguments.all) {
            (Some(offset), _) => offset.min(end),
            (None, true) => end,
            // No record as late as that: all are older.
            (None, false) => at_time.get(&partition).copied().flatten().unwrap_or(end),
        };
        let before = before.max(range.0.unwrap_or(0));
        (partition, (range, before))
    };
    Ok(ranges.into_iter().map(target).collect())
}

fn show(plan: &Plan, done: Option<&BTreeMap<PartitionName, Offset>>, form: Form) -> Outcome {
    let after = |partition: &PartitionName, before: Offset| match done {
        Some(done) => done.get(partition).copied(),
        None => Some(before),
    };
    match form {
        Form::Json => {
            let objects = plan.iter().map(|(partition, (range, before))| {
                json!({
                    "topic": &*partition.topic,
                    "partition": partition.partition,
                    "first_offset": range.0,
                    "end_offset": range.1,
                    "first_offset_after": after(partition, *before),
                    "deleted": done.is_some_and(|done| done.contains_key(partition)),
                })
            });
            output::json(&objects.collect::<Vec<_>>())
        }
        Form::Table => {
            let mut table = Table::new(&[
                ("PARTITION", Align::Right),
                ("FIRST", Align::Right),
                ("END", Align::Right),
                (if done.is_some() { "FIRST NOW" } else { "FIRST THEN" }, Align::Right),
                (if done.is_some() { "DELETED" } else { "TO DELETE" }, Align::Right),
            ]);
            for (partition, (range, before)) in plan {
                let after = after(partition, *before);
                table.row([
                    partition.partition.to_string(),
                    shown(range.0),
                    shown(range.1),
                    shown(after),
                    records((range.0, after)).map_or_else(|| "–".to_owned(), count),
                ]);
            }
            table.print()
        }
    }
}
