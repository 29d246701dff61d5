//! `vltava group describe`.

use std::collections::BTreeMap;

use base::ids::Offset;
use clap::Args;
use client::admin::{DescribedGroup, OffsetAt};
use client::{Client, Isolation, PartitionName};
use serde_json::{Value, json};

use super::existing;
use crate::completion;
use crate::failure::Outcome;
use crate::output::{self, Align, Form, Table, count};

/// Arguments of `vltava group describe`.
#[derive(Args, Debug)]
pub(crate) struct DescribeArguments {
    /// Names of the groups
    #[arg(required = true, value_name = "GROUP", add = completion::groups())]
    groups: Vec<String>,
}

/// How far a group is in a partition.
struct Standing {
    partition: PartitionName,
    /// The next offset it will read; `None` for a partition it is assigned but has committed nothing for.
    committed: Option<Offset>,
    /// `None` when the partition is gone or has no leader.
    end: Option<Offset>,
    /// The member that reads it now.
    member: Option<String>,
}

impl Standing {
    fn lag(&self) -> Option<i64> {
        Some((self.end? - self.committed?).max(0))
    }
}

pub(crate) async fn run(client: &Client, arguments: &DescribeArguments, form: Form) -> Outcome {
    let mut objects = Vec::new();
    for (index, name) in arguments.groups.iter().enumerate() {
        let group = existing(client, name).await?;
        let standings = standings(client, &group).await?;
        match form {
            Form::Json => objects.push(object(&group, &standings)),
            Form::Table => {
                if index > 0 {
                    output::line("")?;
                }
                print(&group, &standings)?;
            }
        }
    }
    if form == Form::Json { output::json(&objects) } else { Ok(()) }
}

async fn standings(client: &Client, group: &DescribedGroup) -> Outcome<Vec<Standing>> {
    let committed = client.committed_offsets(&group.group, None).await?;
    let mut readers: BTreeMap<PartitionName, String> = BTreeMap::new();
    for member in &group.members {
        readers
            .extend(member.partitions.iter().map(|partition| (partition.clone(), member.member_id.clone())));
    }
    let mut partitions: Vec<_> = committed.keys().chain(readers.keys()).cloned().collect();
    partitions.sort();
    partitions.dedup();
    let wanted: Vec<_> = partitions.iter().map(|partition| (partition.clone(), OffsetAt::Latest)).collect();
    // A topic that is gone has no end; the rest is worth showing all the same.
    let ends = client.list_offsets(&wanted, Isolation::ReadUncommitted).await?;
    let standing = |partition: PartitionName| Standing {
        committed: committed.get(&partition).map(|committed| committed.offset),
        end: ends.get(&partition).and_then(|listed| listed.as_ref().ok()?.offset),
        member: readers.get(&partition).cloned(),
        partition,
    };
    Ok(partitions.into_iter().map(standing).collect())
}

fn object(group: &DescribedGroup, standings: &[Standing]) -> Value {
    let members = group.members.iter().map(|member| {
        json!({
            "member_id": member.member_id,
            "instance_id": member.instance_id,
            "client_id": member.client_id,
            "host": member.host,
            "partitions": member.partitions.len(),
        })
    });
    let offsets = standings.iter().map(|standing| {
        json!({
            "topic": &*standing.partition.topic,
            "partition": standing.partition.partition,
            "committed_offset": standing.committed,
            "end_offset": standing.end,
            "lag": standing.lag(),
            "member_id": standing.member,
        })
    });
    json!({
        "group": group.group,
        "state": group.state,
        "protocol_type": group.protocol_type,
        "assignor": group.assignor,
        "lag": standings.iter().filter_map(Standing::lag).sum::<i64>(),
        "members": members.collect::<Vec<_>>(),
        "offsets": offsets.collect::<Vec<_>>(),
    })
}

fn print(group: &DescribedGroup, standings: &[Standing]) -> Outcome {
    let lag = standings.iter().filter_map(Standing::lag).sum::<i64>();
    output::line(&format!("group    {}", group.group))?;
    output::line(&format!("state    {}", group.state))?;
    if !group.assignor.is_empty() {
        output::line(&format!("assignor {}", group.assignor))?;
    }
    output::line(&format!("lag      {}", count(lag)))?;
    if !group.members.is_empty() {
        output::line("")?;
        let mut table = Table::new(&[
            ("MEMBER", Align::Left),
            ("CLIENT", Align::Left),
            ("HOST", Align::Left),
            ("PARTITIONS", Align::Right),
        ]);
        for member in &group.members {
            let id = match &member.instance_id {
                Some(instance) => format!("{} ({instance})", member.member_id),
                None => member.member_id.clone(),
            };
            let partitions = member.partitions.len().to_string();
            table.row([id, member.client_id.clone(), member.host.clone(), partitions]);
        }
        table.print()?;
    }
    if standings.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let mut table = Table::new(&[
        ("TOPIC", Align::Left),
        ("PARTITION", Align::Right),
        ("COMMITTED", Align::Right),
        ("END", Align::Right),
        ("LAG", Align::Right),
        ("MEMBER", Align::Left),
    ]);
    let or_dash = |number: Option<i64>| number.map_or_else(|| "–".to_owned(), |number| number.to_string());
    for standing in standings {
        table.row([
            standing.partition.topic.to_string(),
            standing.partition.partition.to_string(),
            or_dash(standing.committed),
            or_dash(standing.end),
            standing.lag().map_or_else(|| "–".to_owned(), count),
            standing.member.clone().unwrap_or_default(),
        ]);
    }
    table.print()
}
