//! `vltava group …`: everything about consumer groups.

mod delete;
mod describe;
mod list;
mod reset;

use base::error::ErrorCode;
use clap::{Args, Subcommand};
use client::Client;
use client::admin::DescribedGroup;

use crate::arguments::{Bootstrap, Output};
use crate::connect::connect;
use crate::failure::{Failure, Outcome};
use crate::topic::did_you_mean;

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

/// The group of this name, which must exist.
async fn existing(client: &Client, name: &str) -> Outcome<DescribedGroup> {
    match client.describe_group(name).await {
        Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => {
            let names = client.list_groups().await.map(|groups| groups.into_iter().map(|group| group.group));
            let meant = names.map(|names| did_you_mean(name, names)).unwrap_or_default();
            Err(Failure::from(error).help(format!("{meant}`vltava group list` shows the groups there are")))
        }
        described => Ok(described?),
    }
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
