//! `vltava topic offsets`.

use std::collections::BTreeMap;

use clap::Args;
use client::admin::OffsetAt;
use client::{Client, PartitionName};
use serde_json::json;

use super::{existing, offsets_at, ranges, records, shown};
use crate::failure::Outcome;
use crate::moment::parse_moment;
use crate::output::{self, Align, Form, Table, count};

/// Arguments of `vltava topic offsets`.
#[derive(Args, Debug)]
pub(crate) struct OffsetsArguments {
    /// Name of the topic
    topic: String,
    /// Show the first offset at or after a time too: 2026-01-31T12:30, 15m (ago), ms since 1970
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
}

pub(crate) async fn run(client: &Client, arguments: &OffsetsArguments, form: Form) -> Outcome {
    let topics = existing(client, std::slice::from_ref(&arguments.topic)).await?;
    let ranges = ranges(client, &topics).await?;
    let at_time = match &arguments.at {
        Some(text) => {
            let time = parse_moment(text, client.env().clock.wall_ms())?;
            let partitions: Vec<_> = ranges.keys().cloned().collect();
            Some(offsets_at(client, &partitions, OffsetAt::Time(time)).await?)
        }
        None => None,
    };
    let of_time = |partition: &PartitionName| {
        at_time.as_ref().and_then(|found: &BTreeMap<_, _>| found.get(partition).copied().flatten())
    };
    match form {
        Form::Json => {
            let objects = ranges.iter().map(|(partition, range)| {
                let mut object = json!({
                    "topic": &*partition.topic,
                    "partition": partition.partition,
                    "first_offset": range.0,
                    "end_offset": range.1,
                });
                if at_time.is_some() {
                    object["offset_at_time"] = json!(of_time(partition));
                }
                object
            });
            output::json(&objects.collect::<Vec<_>>())
        }
        Form::Table => {
            let mut columns = vec![
                ("PARTITION", Align::Right),
                ("FIRST", Align::Right),
                ("END", Align::Right),
                ("RECORDS", Align::Right),
            ];
            if at_time.is_some() {
                columns.push(("AT TIME", Align::Right));
            }
            let mut table = Table::new(&columns);
            for (partition, range) in &ranges {
                let mut row = vec![
                    partition.partition.to_string(),
                    shown(range.0),
                    shown(range.1),
                    records(*range).map_or_else(|| "–".to_owned(), count),
                ];
                if at_time.is_some() {
                    row.push(shown(of_time(partition)));
                }
                table.row(row);
            }
            table.print()
        }
    }
}
