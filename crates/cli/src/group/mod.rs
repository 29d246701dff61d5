//! `vltava group …`: everything about consumer groups.

mod delete;
mod describe;
mod list;
mod reset;

use clap::{Args, Subcommand};

use crate::arguments::{Bootstrap, Output};
use crate::connect::connect;
use crate::failure::Outcome;

/// Arguments of `vltava group`.
#[derive(Args, Debug)]
pub(crate) struct GroupArguments {
    #[command(flatten)]
    pub(crate) bootstrap: Bootstrap,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List groups
    List,
    /// Show members, committed offsets and how far they lag behind
    Describe(describe::DescribeArguments),
    /// Move committed offsets
    Reset(reset::ResetArguments),
    /// Delete groups, or what they committed for some topics
    Delete(delete::DeleteArguments),
}

/// Runs the command.
pub(crate) async fn run(arguments: GroupArguments) -> Outcome {
    let form = arguments.output.form;
    let client = connect(&arguments.bootstrap).await?;
    match arguments.verb {
        Verb::List => list::run(&client, form).await,
        Verb::Describe(arguments) => describe::run(&client, &arguments, form).await,
        Verb::Reset(arguments) => reset::run(&client, &arguments, form).await,
        Verb::Delete(arguments) => delete::run(&client, &arguments, form).await,
    }
}
