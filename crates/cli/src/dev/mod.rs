//! `vltava dev …`: what developers need on their own machine.

mod cluster;
mod demo;
mod layout;
mod process;

use clap::{Args, Subcommand};

use crate::failure::Outcome;

/// Arguments of `vltava dev`.
#[derive(Args, Debug)]
pub(crate) struct DevArguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a cluster of several nodes on this machine and end it with Ctrl-C
    Cluster(cluster::ClusterArguments),
}

/// Runs the command.
pub(crate) async fn run(arguments: DevArguments) -> Outcome {
    let Verb::Cluster(arguments) = arguments.verb;
    cluster::run(arguments).await
}
