//! `vltava group reset`.

use std::collections::BTreeMap;

use base::error::ErrorCode;
use base::ids::Offset;
use clap::{ArgGroup, Args};
use client::admin::OffsetAt;
use client::{Client, PartitionName, Start};
use serde_json::json;

use crate::arguments::Consent;
use crate::completion;
use crate::failure::{Failure, Outcome};
use crate::moment::parse_start;
use crate::output::{self, Align, Form, Table, count, counted};
use crate::topic::{Range, existing, no_such_partition, offsets_at, ranges, shown};

/// Arguments of `vltava group reset`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("target").required(true).args(["to", "shift"])))]
#[command(group(ArgGroup::new("scope").required(true).multiple(false).args(["topics", "all_topics"])))]
pub(crate) struct ResetArguments {
    /// Name of the group, which must have no members now; one that does not exist is created
    #[arg(add = completion::groups())]
    group: String,
    /// Topics, or partitions as in orders:3; may be given several times
    #[arg(long = "topic", value_name = "TOPIC[:PARTITION]", add = completion::topics())]
    topics: Vec<String>,
    /// All topics for which the group has committed something
    #[arg(long)]
    all_topics: bool,
    /// Where to: beginning, end, an offset, -N for N before the end, @TIME
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true, add = completion::positions())]
    to: Option<String>,
    /// Move by that many records, back when negative
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    shift: Option<i64>,
    #[command(flatten)]
    consent: Consent,
}

/// Where a partition ranges, what was committed, what will be.
struct Move {
    range: Range,
    before: Option<Offset>,
    after: Offset,
}

pub(crate) async fn run(client: &Client, arguments: &ResetArguments, form: Form) -> Outcome {
    refuse_members(client, &arguments.group).await?;
    let moves = plan(client, arguments).await?;
    if moves.is_empty() && arguments.shift.is_some() {
        let message =
            format!("group {} has committed nothing there, so nothing can be shifted", arguments.group);
        return Err(Failure::new(message)
            .help("--to names a position; `vltava group describe` shows what is committed"));
    }
    if arguments.consent.yes {
        let offsets = moves.iter().map(|(partition, it)| (partition.clone(), it.after)).collect();
        client.commit_offsets(&arguments.group, &offsets).await?;
    }
    show(&moves, &arguments.group, form, arguments.consent.yes)?;
    if !arguments.consent.yes {
        tell!("nothing was moved: say --yes to move these offsets");
    }
    Ok(())
}

/// While members live, they would overwrite the offsets with their own.
async fn refuse_members(client: &Client, group: &str) -> Outcome {
    match client.describe_group(group).await {
        Ok(described) if described.members.is_empty() => Ok(()),
        Ok(described) => {
            Err(Failure::new(format!("group {group} has {}", counted(described.members.len(), "member")))
                .help("stop them first; `vltava group describe` names them"))
        }
        Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn plan(client: &Client, arguments: &ResetArguments) -> Outcome<BTreeMap<PartitionName, Move>> {
    let committed = client.committed_offsets(&arguments.group, None).await?;
    let scopes: Vec<Scope> = match arguments.all_topics {
        true => committed.keys().map(|partition| Scope::topic(&partition.topic)).collect(),
        false => arguments.topics.iter().map(|text| Scope::parse(text)).collect(),
    };
    if scopes.is_empty() {
        return Err(Failure::new(format!("group {} has committed nothing", arguments.group))
            .help("name the topics with --topic"));
    }
    let names: Vec<String> = scopes.iter().map(|scope| scope.topic.clone()).collect();
    let topics = existing(client, &names).await?;
    for scope in &scopes {
        if let Some(partition) = scope.partition
            && !topics[&scope.topic].partitions.contains_key(&partition)
        {
            return Err(no_such_partition(&scope.topic, partition));
        }
    }
    let mut ranges = ranges(client, &topics).await?;
    ranges.retain(|partition, _| scopes.iter().any(|scope| scope.covers(partition)));
    let target = match &arguments.to {
        Some(text) => Some(parse_start(text, client.env().clock.wall_ms())?),
        None => None,
    };
    let at_time = match target {
        Some(Start::Time(time)) => {
            let partitions: Vec<_> = ranges.keys().cloned().collect();
            offsets_at(client, &partitions, OffsetAt::Time(time)).await?
        }
        _ => BTreeMap::new(),
    };
    let planned = ranges.into_iter().filter_map(|(partition, range)| {
        let before = committed.get(&partition).map(|committed| committed.offset);
        let at = at_time.get(&partition).copied().flatten();
        let after = aim(target, arguments.shift, before, range, at)?;
        Some((partition, Move { range, before, after }))
    });
    Ok(planned.collect())
}

/// Where a partition's offset goes, within what there is; `None` to leave it alone: it cannot be shifted
/// if nothing is committed, and a partition without leader has no range.
fn aim(
    target: Option<Start>,
    shift: Option<i64>,
    before: Option<Offset>,
    range: Range,
    at_time: Option<Offset>,
) -> Option<Offset> {
    let (first, end) = (range.0?, range.1?);
    let wanted = match target {
        Some(Start::Beginning) => first,
        Some(Start::End) => end,
        Some(Start::Offset(offset)) => offset,
        Some(Start::BeforeEnd(count)) => end.saturating_sub_unsigned(count),
        Some(Start::Time(_)) => at_time.unwrap_or(end),
        None => before?.saturating_add(shift?),
    };
    Some(wanted.clamp(first, end.max(first)))
}

/// A topic or one partition of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    topic: String,
    partition: Option<i32>,
}

impl Scope {
    fn topic(name: &str) -> Scope {
        Scope { topic: name.to_owned(), partition: None }
    }

    /// `topic` or `topic:partition`; a topic's name has no colon.
    fn parse(text: &str) -> Scope {
        match text.rsplit_once(':').and_then(|(topic, partition)| Some((topic, partition.parse().ok()?))) {
            Some((topic, partition)) => Scope { topic: topic.to_owned(), partition: Some(partition) },
            None => Scope::topic(text),
        }
    }

    fn covers(&self, partition: &PartitionName) -> bool {
        *self.topic == *partition.topic && self.partition.is_none_or(|number| number == partition.partition)
    }
}

fn show(moves: &BTreeMap<PartitionName, Move>, group: &str, form: Form, done: bool) -> Outcome {
    match form {
        Form::Json => {
            let object = |(partition, it): (&PartitionName, &Move)| {
                json!({
                    "group": group,
                    "topic": &*partition.topic,
                    "partition": partition.partition,
                    "offset_before": it.before,
                    "offset_after": it.after,
                    "end_offset": it.range.1,
                    "moved": done,
                })
            };
            output::json(&moves.iter().map(object).collect::<Vec<_>>())
        }
        Form::Table => {
            let mut table = Table::new(&[
                ("TOPIC", Align::Left),
                ("PARTITION", Align::Right),
                ("BEFORE", Align::Right),
                ("AFTER", Align::Right),
                ("LAG AFTER", Align::Right),
            ]);
            for (partition, it) in moves {
                table.row([
                    partition.topic.to_string(),
                    partition.partition.to_string(),
                    shown(it.before),
                    it.after.to_string(),
                    it.range.1.map_or_else(|| "–".to_owned(), |end| count((end - it.after).max(0))),
                ]);
            }
            table.print()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_go_where_they_should_and_stay_within_what_there_is() {
        let range = (Some(10), Some(100));
        let to = |start| aim(Some(start), None, Some(50), range, Some(33));
        assert_eq!(to(Start::Beginning), Some(10));
        assert_eq!(to(Start::End), Some(100));
        assert_eq!(to(Start::Offset(5)), Some(10));
        assert_eq!(to(Start::Offset(500)), Some(100));
        assert_eq!(to(Start::BeforeEnd(7)), Some(93));
        assert_eq!(to(Start::BeforeEnd(u64::MAX)), Some(10));
        assert_eq!(to(Start::Time(0)), Some(33));
        assert_eq!(aim(Some(Start::Time(0)), None, None, range, None), Some(100));
        assert_eq!(aim(None, Some(-20), Some(50), range, None), Some(30));
        assert_eq!(aim(None, Some(i64::MAX), Some(50), range, None), Some(100));
        assert_eq!(aim(None, Some(1), None, range, None), None);
        assert_eq!(aim(Some(Start::End), None, None, (None, None), None), None);
    }

    #[test]
    fn a_scope_is_a_topic_or_a_partition() {
        assert_eq!(Scope::parse("a.b"), Scope::topic("a.b"));
        assert_eq!(Scope::parse("a:3"), Scope { topic: "a".to_owned(), partition: Some(3) });
        assert!(Scope::parse("a:3").covers(&PartitionName::new("a", 3)));
        assert!(!Scope::parse("a:3").covers(&PartitionName::new("a", 4)));
        assert!(Scope::parse("a").covers(&PartitionName::new("a", 4)));
    }
}
