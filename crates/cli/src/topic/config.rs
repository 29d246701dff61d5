//! `vltava topic config`.

use clap::Args;
use client::Client;
use client::admin::{ConfigChange, ConfigEntry, ConfigOperation, ConfigResource};
use serde_json::json;

use super::create::parse_config;
use super::existing;
use crate::completion;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Align, Form, Table};

/// Arguments of `vltava topic config`.
#[derive(Args, Debug)]
pub(crate) struct ConfigArguments {
    /// Name of the topic
    #[arg(add = completion::topics())]
    topic: String,
    /// Give a config a value; each change may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_config,
          add = completion::topic_assignments())]
    set: Vec<(String, String)>,
    /// Let a config go back to the broker's default
    #[arg(long, value_name = "KEY", add = completion::topic_keys())]
    reset: Vec<String>,
    /// Add items to a list, separated by commas
    #[arg(long, value_name = "KEY=ITEMS", value_parser = parse_config, add = completion::appended())]
    append: Vec<(String, String)>,
    /// Take items out of a list
    #[arg(long, value_name = "KEY=ITEMS", value_parser = parse_config, add = completion::appended())]
    subtract: Vec<(String, String)>,
    /// Show the configs nobody has set too
    #[arg(long)]
    all: bool,
    /// Show what each config means
    #[arg(long)]
    explain: bool,
    /// Let the broker check the changes, make none
    #[arg(long)]
    dry_run: bool,
}

impl ConfigArguments {
    fn changes(&self) -> Vec<ConfigChange> {
        let with_value = |operation| {
            move |(name, value): &(String, String)| ConfigChange {
                name: name.clone(),
                operation,
                value: value.clone(),
            }
        };
        let reset = |name: &String| ConfigChange {
            name: name.clone(),
            operation: ConfigOperation::Delete,
            value: String::new(),
        };
        let set = self.set.iter().map(with_value(ConfigOperation::Set));
        let append = self.append.iter().map(with_value(ConfigOperation::Append));
        let subtract = self.subtract.iter().map(with_value(ConfigOperation::Subtract));
        set.chain(self.reset.iter().map(reset)).chain(append).chain(subtract).collect()
    }
}

pub(crate) async fn run(client: &Client, arguments: &ConfigArguments, form: Form) -> Outcome {
    existing(client, std::slice::from_ref(&arguments.topic)).await?;
    let resource = ConfigResource::Topic(arguments.topic.clone());
    let changes = arguments.changes();
    if !arguments.reset.is_empty() {
        let known = client.describe_configs(&resource, false).await?;
        refuse_unknown(&arguments.reset, &known)?;
    }
    if !changes.is_empty() {
        client.alter_configs(&resource, &changes, arguments.dry_run).await?;
        let done = if arguments.dry_run { "would be changed" } else { "changed" };
        tell!("configs of topic {} {done}: {}", arguments.topic, changes.len());
    }
    let entries = client.describe_configs(&resource, arguments.explain).await?;
    let shown: Vec<_> = entries.into_iter().filter(|entry| arguments.all || !entry.is_default).collect();
    match form {
        Form::Json => output::json(&shown.iter().map(object).collect::<Vec<_>>()),
        Form::Table => print(&shown, arguments),
    }
}

/// Brokers let a key nobody knows go back to its default without a word, which hides a slip.
fn refuse_unknown(reset: &[String], known: &[ConfigEntry]) -> Outcome {
    match reset.iter().find(|name| !known.iter().any(|entry| entry.name == **name)) {
        Some(name) => Err(Failure::new(format!("a topic has no config `{name}`"))
            .help("`vltava topic config TOPIC --all` shows those there are")),
        None => Ok(()),
    }
}

fn object(entry: &ConfigEntry) -> serde_json::Value {
    json!({
        "name": entry.name,
        "value": entry.value,
        "source": entry.source,
        "default": entry.is_default,
        "read_only": entry.read_only,
        "sensitive": entry.sensitive,
        "documentation": entry.documentation,
    })
}

fn print(entries: &[ConfigEntry], arguments: &ConfigArguments) -> Outcome {
    let mut columns = vec![("KEY", Align::Left), ("VALUE", Align::Left), ("SOURCE", Align::Left)];
    if arguments.explain {
        columns.push(("MEANING", Align::Left));
    }
    let mut table = Table::new(&columns);
    for entry in entries {
        let value = match (&entry.value, entry.sensitive) {
            (_, true) => "(secret)",
            (Some(value), false) => value,
            (None, false) => "–",
        };
        let mut row = vec![entry.name.clone(), value.to_owned(), entry.source.to_owned()];
        if arguments.explain {
            row.push(entry.documentation.clone().unwrap_or_default());
        }
        table.row(row);
    }
    table.print()?;
    if entries.is_empty() && !arguments.all {
        tell!("no config was set for this topic; --all shows the defaults");
    }
    Ok(())
}
