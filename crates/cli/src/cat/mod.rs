//! `vltava cat`: kcat's letters and formats, so that fingers and scripts carry over.
//!
//! It follows kcat where kcat is sensible. Properties after `-X` are librdkafka's names; those that have
//! a meaning here are taken, others are refused rather than ignored.

mod arguments;
mod consume;
mod list;
mod produce;
mod properties;
mod query;

pub(crate) use arguments::CatArguments;
pub(crate) use properties::KNOWN as KNOWN_PROPERTIES;

use std::io::IsTerminal;

use base::env::Env;

use crate::arguments::Bootstrap;
use crate::connect::connect;
use crate::failure::{Failure, Outcome};
use arguments::Mode;
use properties::Properties;

/// Runs the command.
pub(crate) async fn run(mut arguments: CatArguments) -> Outcome {
    let env = Env::os();
    let mut texts = match &arguments.properties_file {
        Some(path) => properties::read_file(&env, path)?,
        None => Vec::new(),
    };
    texts.append(&mut arguments.properties);
    let properties = Properties::parse(&texts)?;
    if let Some(brokers) = &properties.bootstrap {
        arguments.bootstrap.brokers.clone_from(brokers);
    }
    let mode = arguments.mode().unwrap_or_else(|| {
        let from_pipe = !std::io::stdin().is_terminal();
        if from_pipe { Mode::Produce } else { Mode::Consume }
    });
    // With -m records are tried no shorter: in kcat it bounds look-ups alone.
    let timeout = arguments.metadata_timeout.or(arguments.bootstrap.timeout);
    let client = connect(&Bootstrap { timeout, ..arguments.bootstrap.clone() }).await?;
    match mode {
        Mode::List => list::run(&client, &arguments, &properties).await,
        Mode::Query => query::run(&client, &arguments).await,
        Mode::Produce => produce::run(&client, &arguments, &properties).await,
        Mode::Consume => consume::run(&client, &arguments, &properties).await,
        Mode::Group => consume::run_in_group(&client, &arguments, &properties).await,
    }
}

/// The topic, where the mode needs exactly one.
fn one_topic(arguments: &CatArguments) -> Outcome<&str> {
    match arguments.topics.as_slice() {
        [topic] => Ok(topic),
        [] => Err(Failure::usage("no topic is named").help("say -t TOPIC")),
        _ => {
            Err(Failure::usage("more than one topic is named")
                .help("name one with -t, or read a group with -G"))
        }
    }
}
