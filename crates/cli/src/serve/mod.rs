//! `vltava serve`: a broker with its storages, its metadata and its console in one process.

mod console;
mod ephemeral;
mod greeting;
mod node;
mod place;

use base::config::{BrokerConfig, Loaded, UnknownKeys};
use base::env::Env;
use clap::Args;

pub(crate) use node::Node;
pub(crate) use place::{Place, Wanted};

use crate::failure::{Failure, Outcome};
use crate::signals::EndSignals;

/// Longest configuration file, bytes.
const CONFIG_BYTES_MAX: usize = 1024 * 1024;

/// Arguments of `vltava serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArguments {
    /// Directory of metadata and records; made when it is not there, and counts more than the log.dirs of
    /// a file [default: ./vltava-data]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Forget everything at the end: data in a temporary directory, metadata in memory
    #[arg(long, conflicts_with = "data")]
    memory: bool,
    /// Kafka's server.properties, read as it is
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// A configuration key, over what the file says; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Start although there are keys that nobody knows
    #[arg(long)]
    allow_unknown: bool,
}

/// Runs the command until the user or the system ends it.
pub(crate) async fn run(arguments: ServeArguments) -> Outcome {
    let env = Env::os();
    let mut signals = EndSignals::listen()?;
    let wanted = if arguments.memory { Wanted::Memory } else { Wanted::Directory(arguments.data.clone()) };
    let place = Place::choose(&env, wanted)?;
    let config = load_config(&env, &arguments, &place)?;
    let node = tokio::select! {
        node = Node::start(&env, config, place) => node?,
        signal = signals.next() => {
            tracing::info!(signal, "ended while starting");
            return Ok(());
        }
    };
    for line in greeting::lines(&node) {
        eprintln!("{line}");
    }
    let signal = signals.next().await;
    tracing::info!(signal, "ending");
    tokio::select! {
        ended = node.shutdown() => ended,
        signal = signals.next() => Err(Failure::new(format!("{signal} came again: ended at once"))
            .help("the next start recovers what was not closed")),
    }
}

/// Reads the file and the command line. What an operator should know goes to the log.
fn load_config(env: &Env, arguments: &ServeArguments, place: &Place) -> Outcome<BrokerConfig> {
    let mut assignments = Vec::new();
    if let Some(path) = &arguments.config {
        let failed = |text: String| Failure::new(format!("{path}: {text}"));
        let bytes =
            env.disk.read(path.as_ref(), CONFIG_BYTES_MAX).map_err(|error| failed(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8".to_owned()))?;
        let read = base::config::parse_properties(&text);
        assignments.extend(read.map_err(|error| failed(error.to_string()))?);
    }
    for text in &arguments.set {
        let assignment = base::config::Assignment::from_argument(text);
        assignments.push(assignment.ok_or_else(|| {
            Failure::new(format!("`--set {text}` sets nothing")).help("say --set KEY=VALUE")
        })?);
    }
    let assignments = place.complete(assignments)?;
    let unknown = if arguments.allow_unknown { UnknownKeys::Tell } else { UnknownKeys::Refuse };
    let source = arguments.config.as_deref();
    match BrokerConfig::load(&assignments, unknown) {
        Ok(Loaded { config, notes }) => {
            for note in notes {
                tracing::info!("{}{note}", source.map(|path| format!("{path}, ")).unwrap_or_default());
            }
            Ok(config)
        }
        Err(errors) => Err(config_failure(source, &errors)),
    }
}

/// All that is wrong, each on its line.
fn config_failure(source: Option<&str>, errors: &[base::config::ConfigError]) -> Failure {
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let where_from = source.unwrap_or("the command line");
    let message = match lines.as_slice() {
        [line] => format!("configuration of {where_from}: {line}"),
        lines => format!("configuration of {where_from}:\n  {}", lines.join("\n  ")),
    };
    Failure::new(message).help(
        "`vltava docs config` lists every key; --allow-unknown starts although there are keys nobody knows",
    )
}
