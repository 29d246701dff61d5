//! `vltava topic offsets`.

use std::collections::BTreeMap;

use clap::Args;
use client::admin::OffsetAt;
use client::{Client, PartitionName, TopicMetadata};
use serde_json::json;

use super::{existing, offsets_at, ranges, records, shown};
use crate::completion;
use crate::failure::{Failure, Outcome};
use crate::moment::parse_moment;
use crate::output::{self, Align, Form, Table, count, counted};

/// Arguments of `vltava topic offsets`.
#[derive(Args, Debug)]
pub(crate) struct OffsetsArguments {
    /// Name of the topic
    #[arg(add = completion::topics())]
    topic: String,
    /// Show the first offset at or after a time too: 2026-01-31T12:30, 15m (ago), ms since 1970
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
}

pub(crate) async fn run(client: &Client, arguments: &OffsetsArguments, form: Form) -> Outcome {
    let topics = existing(client, std::slice::from_ref(&arguments.topic)).await?;
    let mut ranges = ranges(client, &topics).await?;
    let at_time = match &arguments.at {
        Some(text) => {
            let time = parse_moment(text, client.env().clock.wall_ms())?;
            let partitions: Vec<_> = ranges.keys().cloned().collect();
            Some(offsets_at(client, &partitions, OffsetAt::Time(time)).await?)
        }
        None => None,
    };
    for (name, topic) in &topics {
        for index in topic.partitions.keys() {
            ranges.entry(PartitionName::new(name.as_str(), *index)).or_default();
        }
    }
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
            output::json(&objects.collect::<Vec<_>>())?;
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
            table.print()?;
        }
    }
    refuse_leaderless(&topics)
}

/// What is shown is not all when a partition has no leader: nobody tells where it begins and ends.
fn refuse_leaderless(topics: &BTreeMap<String, TopicMetadata>) -> Outcome {
    let partitions = topics.values().flat_map(|topic| topic.partitions.values());
    match partitions.filter(|partition| partition.leader.is_none()).count() {
        0 => Ok(()),
        number => {
            let what = counted(number, "partition");
            let has = if number == 1 { "has" } else { "have" };
            Err(Failure::new(format!("{what} {has} no leader, so nobody tells the offsets"))
                .help("`vltava topic describe` shows which; the broker's log says why"))
        }
    }
}

#[cfg(test)]
mod tests {
    use base::error::ErrorCode;
    use base::ids::{BrokerId, LeaderEpoch, TopicId};
    use client::PartitionMetadata;

    use super::*;

    #[test]
    fn a_partition_without_leader_is_no_success() {
        let partition = |leader| PartitionMetadata {
            error: ErrorCode::None,
            leader,
            leader_epoch: LeaderEpoch(1),
            replicas: Vec::new(),
            in_sync: Vec::new(),
            offline: Vec::new(),
        };
        let topic = |leaders: [Option<BrokerId>; 2]| TopicMetadata {
            error: ErrorCode::None,
            id: TopicId::default(),
            internal: false,
            partitions: (0..).zip(leaders.map(partition)).collect(),
        };
        let refused = |leaders| refuse_leaderless(&BTreeMap::from([("t".to_owned(), topic(leaders))]));
        assert!(refused([Some(BrokerId(1)), Some(BrokerId(1))]).is_ok());
        let failure = refused([Some(BrokerId(1)), None]).expect_err("one has none").to_string();
        assert!(failure.starts_with("error: 1 partition has no leader"), "{failure}");
    }
}
