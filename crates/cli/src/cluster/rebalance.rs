//! `vltava cluster rebalance`: copies and leaders within one of each other on all brokers.
//!
//! The plan is made here ([`replication::balance`]) and carried out with requests that any client of Kafka's can send.

use std::collections::BTreeSet;
use std::time::Duration;

use base::error::ErrorCode;
use base::ids::BrokerId;
use clap::Args;
use client::{Client, PartitionName};
use replication::balance::Aim;
use serde_json::json;

use super::plan::{Layout, Move, Sizes, print_moves, summary, total};
use crate::failure::{Failure, Outcome};
use crate::output::{self, Form, counted};

/// How often it is looked how far the moves are.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a broker that has everything may take until it can lead.
const ELECTION_PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `vltava cluster rebalance`.
#[derive(Args, Debug)]
pub(crate) struct RebalanceArguments {
    /// Show what would move, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// A partition that another broker is to lead.
struct Election {
    partition: PartitionName,
    from: BrokerId,
    to: BrokerId,
}

pub(crate) async fn run(client: &Client, arguments: &RebalanceArguments, form: Form) -> Outcome {
    let layout = Layout::of(client).await?;
    let sizes = Sizes::ask(client, layout.alive.iter().copied()).await;
    let moves = layout.plan(&layout.leaving, Aim::Even, &sizes);
    let elections = elections(&layout, &moves);
    if form == Form::Table {
        show(&layout, &moves, &elections)?;
    }
    if arguments.dry_run {
        return finish(form, &moves, &elections, false);
    }
    carry_out(client, &moves, &elections).await?;
    finish(form, &moves, &elections, true)
}

/// Who is to lead what another broker leads now.
fn elections(layout: &Layout, moves: &[Move]) -> Vec<Election> {
    let after = layout.after(moves);
    let mut elections = Vec::new();
    for ((partition, spot), brokers) in layout.partitions.iter().zip(&layout.spots).zip(after) {
        let Some(preferred) = brokers.first().copied().filter(|to| layout.alive.contains(to)) else {
            continue;
        };
        if preferred != spot.leader {
            elections.push(Election { partition: partition.clone(), from: spot.leader, to: preferred });
        }
    }
    elections
}

fn show(layout: &Layout, moves: &[Move], elections: &[Election]) -> Outcome {
    if !moves.is_empty() {
        print_moves(moves, &layout.leaving)?;
        output::line("")?;
    }
    for Election { partition, from, to } in elections {
        match from.0 {
            -1 => output::line(&format!("{partition}: broker {to} leads, nobody does now"))?,
            _ => output::line(&format!("{partition}: broker {to} leads instead of {from}"))?,
        }
    }
    if !elections.is_empty() {
        output::line("")?;
    }
    layout.print_loads(moves)
}

fn finish(form: Form, moves: &[Move], elections: &[Election], done: bool) -> Outcome {
    if form == Form::Json {
        let ids = |brokers: &[BrokerId]| brokers.iter().map(|id| id.0).collect::<Vec<_>>();
        let moved = |it: &Move| {
            json!({
                "topic": &*it.partition.topic,
                "partition": it.partition.partition,
                "brokers": ids(&it.before),
                "brokers_then": ids(&it.after),
                "bytes": it.bytes,
            })
        };
        let elected = |it: &Election| {
            json!({
                "topic": &*it.partition.topic,
                "partition": it.partition.partition,
                "leader": (it.from.0 >= 0).then_some(it.from.0),
                "leader_then": it.to.0,
            })
        };
        return output::json(&json!({
            "done": done,
            "bytes": total(moves),
            "moves": moves.iter().map(moved).collect::<Vec<_>>(),
            "elections": elections.iter().map(elected).collect::<Vec<_>>(),
        }));
    }
    output::line("")?;
    let what = format!("{}; {} with another leader", summary(moves), counted(elections.len(), "partition"));
    match (moves.is_empty() && elections.is_empty(), done) {
        (true, _) => output::line("copies and leaders are spread evenly already"),
        (false, true) => output::line(&format!("moved: {what}")),
        (false, false) => output::line(&format!("would move: {what}; nothing was changed")),
    }
}

async fn carry_out(client: &Client, moves: &[Move], elections: &[Election]) -> Outcome {
    let asked: Vec<_> = moves.iter().map(|it| (it.partition.clone(), Some(it.after.clone()))).collect();
    for result in client.reassign(&asked).await? {
        result?;
    }
    let clock = &client.env().clock;
    let moved: BTreeSet<&PartitionName> = moves.iter().map(|it| &it.partition).collect();
    let mut told = None;
    loop {
        let moving = client.reassignments().await?;
        let left = moving.iter().filter(|it| moved.contains(&it.partition)).count();
        if left == 0 {
            break;
        }
        if told != Some(left) {
            tell!("{} left to move", counted(left, "partition"));
            told = Some(left);
        }
        clock.sleep(LOOK_EVERY).await;
    }
    let mut left: Vec<PartitionName> = elections.iter().map(|it| it.partition.clone()).collect();
    let deadline = clock.now() + ELECTION_PATIENCE;
    while !left.is_empty() {
        let mut refused = Vec::new();
        for (partition, result) in client.elect_preferred(&left).await? {
            match result {
                Ok(()) => {}
                Err(error) if clock.now() >= deadline => return Err(error.into()),
                Err(error) if error.code() == Some(ErrorCode::PreferredLeaderNotAvailable) => {
                    refused.push(partition);
                }
                Err(error) => return Err(Failure::from(error)),
            }
        }
        left = refused;
        if !left.is_empty() {
            clock.sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}
