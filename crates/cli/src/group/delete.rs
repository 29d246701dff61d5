//! `vltava group delete`.

use clap::Args;
use client::{Client, PartitionName};
use serde_json::json;

use super::existing;
use crate::arguments::Consent;
use crate::completion;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Align, Form, Table, counted};

/// Arguments of `vltava group delete`.
#[derive(Args, Debug)]
pub(crate) struct DeleteArguments {
    /// Names of the groups
    #[arg(required = true, value_name = "GROUP", add = completion::groups())]
    groups: Vec<String>,
    /// Delete only what the groups committed for this topic; may be given several times
    #[arg(long = "topic", value_name = "TOPIC", add = completion::topics())]
    topics: Vec<String>,
    #[command(flatten)]
    consent: Consent,
}

/// A group, and which of its offsets go.
struct Doomed {
    group: String,
    state: String,
    partitions: Vec<PartitionName>,
}

pub(crate) async fn run(client: &Client, arguments: &DeleteArguments, form: Form) -> Outcome {
    let mut doomed = Vec::new();
    for name in &arguments.groups {
        let group = existing(client, name).await?;
        let committed = client.committed_offsets(name, None).await?;
        let partitions = committed.into_keys();
        let wanted = |p: &PartitionName| {
            arguments.topics.is_empty() || arguments.topics.iter().any(|topic| **topic == *p.topic)
        };
        let partitions: Vec<_> = partitions.filter(wanted).collect();
        if partitions.is_empty() && !arguments.topics.is_empty() {
            let topics = arguments.topics.join(", ");
            return Err(Failure::new(format!("group {name} has committed nothing for {topics}"))
                .help("`vltava group describe` shows what is committed"));
        }
        doomed.push(Doomed { group: group.group, state: group.state, partitions });
    }
    if !arguments.consent.yes {
        show(&doomed, arguments, form, false)?;
        tell!("nothing was deleted: say --yes to delete for good");
        return Ok(());
    }
    let mut first_failure = None;
    let mut done = Vec::new();
    for one in doomed {
        let result = match arguments.topics.is_empty() {
            true => client.delete_group(&one.group).await,
            false => client.delete_offsets(&one.group, &one.partitions).await,
        };
        match result {
            Ok(()) => done.push(one),
            Err(error) if first_failure.is_none() => first_failure = Some(Failure::from(error)),
            Err(error) => tell!("{}", Failure::from(error)),
        }
    }
    show(&done, arguments, form, true)?;
    first_failure.map_or(Ok(()), Err)
}

fn show(groups: &[Doomed], arguments: &DeleteArguments, form: Form, done: bool) -> Outcome {
    let whole = arguments.topics.is_empty();
    match form {
        Form::Json => {
            let object = |one: &Doomed| {
                json!({
                    "group": one.group,
                    "state": one.state,
                    "offsets": one.partitions.len(),
                    "whole_group": whole,
                    "deleted": done,
                })
            };
            output::json(&groups.iter().map(object).collect::<Vec<_>>())
        }
        Form::Table => {
            let mut table = Table::new(&[
                ("GROUP", Align::Left),
                ("STATE", Align::Left),
                (if done { "DELETED" } else { "TO DELETE" }, Align::Left),
            ]);
            for one in groups {
                let offsets = counted(one.partitions.len(), "committed offset");
                let what = if whole { format!("the group and {offsets}") } else { offsets };
                table.row([one.group.clone(), one.state.clone(), what]);
            }
            table.print()
        }
    }
}
