//! `vltava cluster decommission`: empties a broker, and takes it off the list once it has ended.
//!
//! The cluster does the work; this command says that the broker leaves, looks on, and asks whether it can go. Ending it
//! (Ctrl-C) changes nothing: the broker goes on leaving, and the command may be run again.

use std::collections::BTreeSet;
use std::time::Duration;

use base::error::ErrorCode;
use base::ids::BrokerId;
use clap::Args;
use client::admin::{ConfigChange, ConfigOperation, ConfigResource};
use client::{Client, ClientError, PartitionName, Topics};
use replication::balance::Aim;
use serde_json::json;

use super::plan::{LEAVING, Layout, Sizes, leaving, print_moves, summary, total};
use crate::failure::{Failure, Outcome};
use crate::output::{self, Form, bytes, counted};

/// How often it is looked how far the broker is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is told why nothing happens.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Arguments of `vltava cluster decommission`.
#[derive(Args, Debug)]
pub(crate) struct DecommissionArguments {
    /// Number of the broker (its node.id)
    #[arg(value_name = "NODE", value_parser = clap::value_parser!(i32).range(0..))]
    node: i32,
    /// Show what would move, and change nothing
    #[arg(long, conflicts_with = "cancel")]
    dry_run: bool,
    /// Let the broker stay: what has not moved yet stays with it
    #[arg(long)]
    cancel: bool,
    /// Do not wait until the broker is empty
    #[arg(long, conflicts_with_all = ["cancel", "dry_run"])]
    no_wait: bool,
}

pub(crate) async fn run(client: &Client, arguments: &DecommissionArguments, form: Form) -> Outcome {
    let node = BrokerId(arguments.node);
    if arguments.cancel {
        return cancel(client, node, form).await;
    }
    let layout = Layout::of(client).await?;
    let sizes = Sizes::ask(client, layout.alive.iter().copied()).await;
    let mut leave = layout.leaving.clone();
    leave.insert(node);
    let moves = layout.plan(&leave, Aim::Vacate, &sizes);
    // Where its place was given to another already, the plan does not name it.
    let stuck: Vec<&PartitionName> = layout
        .after(&moves)
        .iter()
        .zip(&layout.partitions)
        .filter(|(brokers, _)| brokers.contains(&node))
        .map(|(_, partition)| partition)
        .collect();
    if let Some(partition) = stuck.first() {
        let text = counted(stuck.len(), "partition");
        return Err(Failure::new(format!("{text} cannot move: no other broker is there for {partition}"))
            .help("add a broker, or give the topics fewer copies (kafka-reassign-partitions.sh)"));
    }
    if arguments.dry_run {
        if form == Form::Json {
            let moved = moves.iter().map(|it| {
                json!({
                    "topic": &*it.partition.topic,
                    "partition": it.partition.partition,
                    "brokers": it.before.iter().map(|id| id.0).collect::<Vec<_>>(),
                    "brokers_then": it.after.iter().map(|id| id.0).collect::<Vec<_>>(),
                    "bytes": it.bytes,
                })
            });
            return output::json(&json!({
                "broker": node.0,
                "bytes": total(&moves),
                "moves": moved.collect::<Vec<_>>(),
            }));
        }
        print_moves(&moves, &leave)?;
        output::line("")?;
        layout.print_loads(&moves)?;
        output::line("")?;
        return output::line(&format!("would move: {}; nothing was changed", summary(&moves)));
    }
    if !layout.leaving.contains(&node) {
        change(client, node, ConfigOperation::Append).await?;
        tell!("broker {node} leaves: {}; `--cancel` lets it stay", summary(&moves));
    }
    if arguments.no_wait {
        return done(form, node, "leaving", &format!("broker {node} is leaving; run this again to look on"));
    }
    wait(client, node, form).await
}

/// Changes who leaves.
async fn change(client: &Client, node: BrokerId, operation: ConfigOperation) -> Outcome {
    let change = ConfigChange { name: LEAVING.to_owned(), operation, value: node.to_string() };
    Ok(client.alter_configs(&ConfigResource::AllBrokers, &[change], false).await?)
}

/// What is still to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    /// Partitions of which the broker has a copy, or is to have one.
    partitions: usize,
    /// Bytes of those copies, if the broker tells.
    bytes: Option<u64>,
}

impl Left {
    async fn look(client: &Client, node: BrokerId) -> Result<Left, ClientError> {
        let metadata = client.metadata(Topics::All).await?;
        let mut partitions = BTreeSet::new();
        for (name, topic) in &metadata.topics {
            for (index, partition) in &topic.partitions {
                if partition.replicas.contains(&node) || partition.leader == Some(node) {
                    partitions.insert(PartitionName::new(name.as_str(), *index));
                }
            }
        }
        let moving = client.reassignments().await?.into_iter();
        partitions.extend(moving.filter(|it| it.replicas.contains(&node)).map(|it| it.partition));
        let alive = metadata.brokers.contains_key(&node).then_some(node);
        let bytes = Sizes::ask(client, alive).await.on(node);
        Ok(Left { partitions: partitions.len(), bytes })
    }

    fn text(self) -> String {
        let partitions = counted(self.partitions, "partition");
        match self.bytes {
            Some(left) => format!("{partitions}, {} left", bytes(left)),
            None => format!("{partitions} left"),
        }
    }
}

/// Waits until the broker has nothing and all records have as many copies as are wanted elsewhere.
async fn wait(client: &Client, node: BrokerId, form: Form) -> Outcome {
    let clock = &client.env().clock;
    let mut told: Option<(Left, Duration)> = None;
    loop {
        let left = Left::look(client, node).await?;
        let now = clock.now();
        let is_news = told.is_none_or(|(before, at)| before != left || now - at >= TELL_EVERY);
        // Nobody but the cluster knows of every segment; it refuses as long as any would be lost.
        let (code, reason) = match client.unregister_broker(node).await {
            Ok(()) => (ErrorCode::None, String::new()),
            Err(ClientError::Broker { code, message, .. }) => (code, message.unwrap_or_default()),
            Err(error) => return Err(error.into()),
        };
        match code {
            ErrorCode::None | ErrorCode::BrokerIdNotRegistered => {
                return done(
                    form,
                    node,
                    "gone",
                    &format!("broker {node} had nothing any more and is off the list"),
                );
            }
            ErrorCode::DuplicateBrokerRegistration => {
                let text = format!(
                    "broker {node} has nothing any more: stop it, then run this again to take it off the list"
                );
                return done(form, node, "empty", &text);
            }
            ErrorCode::ReassignmentInProgress => {}
            code => return Err(Failure::new(format!("broker {node}: {reason} ({})", code.name()))),
        }
        if is_news {
            let is_stuck = told.is_some_and(|(before, _)| before == left);
            match is_stuck || left.partitions == 0 {
                true => tell!("broker {node}: {}; {reason}", left.text()),
                false => tell!("broker {node}: {}", left.text()),
            }
            told = Some((left, now));
        }
        clock.sleep(LOOK_EVERY).await;
        if !leaving(client).await?.contains(&node) {
            return Err(Failure::new(format!("broker {node} is to stay: somebody called this off")));
        }
    }
}

async fn cancel(client: &Client, node: BrokerId, form: Form) -> Outcome {
    if !leaving(client).await?.contains(&node) {
        return Err(Failure::new(format!("broker {node} is not leaving")));
    }
    change(client, node, ConfigOperation::Subtract).await?;
    let moving = client.reassignments().await?.into_iter();
    let back: Vec<_> = moving
        .filter(|it| it.removing.contains(&node) && !it.adding.is_empty())
        .map(|it| (it.partition, None))
        .collect();
    let mut stay = 0;
    for result in client.reassign(&back).await? {
        match result {
            Ok(()) => stay += 1,
            // It was done meanwhile.
            Err(error) if error.code() == Some(ErrorCode::NoReassignmentInProgress) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let text = format!(
        "broker {node} stays, with {} that had not moved yet; `vltava cluster rebalance` spreads copies anew",
        counted(stay, "partition")
    );
    done(form, node, "stays", &text)
}

fn done(form: Form, node: BrokerId, state: &str, text: &str) -> Outcome {
    match form {
        Form::Json => output::json(&json!({ "broker": node.0, "state": state })),
        Form::Table => output::line(text),
    }
}
