//! `vltava cluster …`: the cluster itself.

mod decommission;
mod plan;
mod rebalance;

use clap::{Args, Subcommand};
use client::Client;
use client::admin::{ClusterDescription, DescribedBroker};
use serde_json::json;

use crate::arguments::{Bootstrap, Output};
use crate::connect::connect;
use crate::failure::Outcome;
use crate::output::{self, Align, Form, Table};

/// Arguments of `vltava cluster`.
#[derive(Args, Debug)]
pub(crate) struct ClusterArguments {
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the cluster's id and its brokers
    Info {
        /// Show which requests each broker serves, in which versions
        #[arg(long)]
        versions: bool,
    },
    /// Empty a broker that shall leave the cluster, and take it off the list
    Decommission(decommission::DecommissionArguments),
    /// Spread copies and leaders evenly over all brokers
    Rebalance(rebalance::RebalanceArguments),
}

/// Runs the command.
pub(crate) async fn run(arguments: ClusterArguments) -> Outcome {
    let client = connect(&arguments.bootstrap).await?;
    let form = arguments.output.form;
    match &arguments.verb {
        Verb::Info { versions } => info(&client, *versions, form).await,
        Verb::Decommission(arguments) => decommission::run(&client, arguments, form).await,
        Verb::Rebalance(arguments) => rebalance::run(&client, arguments, form).await,
    }
}

async fn info(client: &Client, versions: bool, form: Form) -> Outcome {
    let cluster = client.describe_cluster().await?;
    let mut served = Vec::new();
    if versions {
        for broker in &cluster.brokers {
            let of_broker = client.broker_versions(broker.id).await?;
            served.extend(of_broker.into_iter().map(|(api, range)| (broker.id.0, api, range)));
        }
        served.sort_by_key(|(broker, api, _)| (*broker, api.code()));
    }
    match form {
        Form::Json => {
            let versions = served.iter().map(|(broker, api, range)| {
                json!({
                    "broker": broker,
                    "api_key": api.code(),
                    "api": api.name(),
                    "min_version": range.min,
                    "max_version": range.max,
                })
            });
            let mut object = object(&cluster);
            if !served.is_empty() {
                object["versions"] = json!(versions.collect::<Vec<_>>());
            }
            output::json(&object)
        }
        Form::Table => {
            print(client, &cluster)?;
            if served.is_empty() {
                return Ok(());
            }
            output::line("")?;
            let columns = [
                ("BROKER", Align::Right),
                ("KEY", Align::Right),
                ("API", Align::Left),
                ("VERSIONS", Align::Left),
            ];
            let mut table = Table::new(&columns);
            for (broker, api, range) in served {
                table.row([
                    broker.to_string(),
                    api.code().to_string(),
                    api.name().to_owned(),
                    range.to_string(),
                ]);
            }
            table.print()
        }
    }
}

fn object(cluster: &ClusterDescription) -> serde_json::Value {
    let broker = |broker: &DescribedBroker| {
        json!({
            "id": broker.id.0,
            "host": broker.host,
            "port": broker.port,
            "rack": broker.rack,
            "controller": cluster.controller == Some(broker.id),
        })
    };
    json!({
        "cluster_id": cluster.cluster_id,
        "controller": cluster.controller.map(|id| id.0),
        "brokers": cluster.brokers.iter().map(broker).collect::<Vec<_>>(),
    })
}

fn print(client: &Client, cluster: &ClusterDescription) -> Outcome {
    output::line(&format!("cluster    {}", cluster.cluster_id))?;
    output::line(&format!("asked at   {}", client.config().bootstrap.join(", ")))?;
    output::line("")?;
    let columns =
        [("BROKER", Align::Right), ("ADDRESS", Align::Left), ("RACK", Align::Left), ("NOTE", Align::Left)];
    let mut table = Table::new(&columns);
    for broker in &cluster.brokers {
        let note = if cluster.controller == Some(broker.id) { "controller" } else { "" };
        table.row([
            broker.id.to_string(),
            format!("{}:{}", broker.host, broker.port),
            broker.rack.clone().unwrap_or_default(),
            note.to_owned(),
        ]);
    }
    table.print()
}
