//! `vltava serve`: a node with its storages, its metadata and its console in one process.

mod advertised;
mod conflicts;
mod console;
mod ephemeral;
mod faults;
mod greeting;
mod identity;
mod metadata;
mod node;
mod place;

use base::config::{Assignment, BrokerConfig, ConfigError, Loaded, Origin, UnknownKeys, keys};
use base::env::Env;
use clap::Args;
use client::io_text;

pub(crate) use ephemeral::Ephemeral;
pub(crate) use node::Node;
pub(crate) use place::{Place, Wanted};

use crate::completion;
use crate::failure::{Failure, Outcome};
use crate::signals::{EndSignals, end_with_parent};

/// Longest configuration file, bytes.
const CONFIG_BYTES_MAX: usize = 1024 * 1024;

/// Arguments of `vltava serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArguments {
    /// Directory of metadata and records; made when it is not there, and counts more than the log.dirs of
    /// a file [default: ./vltava-data]
    #[arg(long, value_name = "DIR", add = completion::directories())]
    data: Option<String>,
    /// Forget everything at the end: data in a temporary directory, metadata in memory
    #[arg(long, conflicts_with = "data")]
    memory: bool,
    /// Kafka's server.properties, read as it is
    #[arg(long, value_name = "FILE", add = completion::files())]
    config: Option<String>,
    /// A configuration key, over what the file says; may be given several times
    #[arg(long, value_name = "KEY=VALUE", add = completion::broker_assignments())]
    set: Vec<String>,
    /// Become a broker of the cluster that a node at this address belongs to; several, separated by commas, are asked in
    /// turn. The cluster gives the new node its number, unless node.id does
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    join: Vec<String>,
    /// Start although there are keys that nobody knows
    #[arg(long)]
    allow_unknown: bool,
    /// End, as at SIGTERM, when the process of this number is gone, which has started this one
    #[arg(long, hide = true, value_name = "PROCESS")]
    end_with: Option<u32>,
    /// Let disk and clock misbehave as this file says, and look for changes of it all the time
    #[arg(long, hide = true, value_name = "FILE")]
    faults: Option<std::path::PathBuf>,
}

/// Runs the command until the user or the system ends it.
pub(crate) async fn run(arguments: ServeArguments) -> Outcome {
    let env = match arguments.faults.clone() {
        None => Env::os(),
        Some(path) => faults::rehearse(Env::os(), path)?,
    };
    let mut signals = EndSignals::listen()?;
    arguments.end_with.map_or(Ok(()), end_with_parent)?;
    let wanted = if arguments.memory { Wanted::Memory } else { Wanted::Directory(arguments.data.clone()) };
    let place = Place::choose(&env, wanted)?;
    let config = load_config(&env, &arguments, &place).await?;
    for warning in advertised::warnings(&config) {
        tracing::warn!("{warning}");
    }
    let node = tokio::select! {
        node = Node::start(&env, config, place) => node?,
        signal = signals.next() => {
            tracing::info!(signal, "ended while starting");
            return Ok(());
        }
    };
    for line in greeting::lines(&node) {
        tell!("{line}");
    }
    let replaced = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "ending");
            None
        }
        () = node.replaced() => {
            let id = node.config().node();
            tracing::error!(node = id.0, "another process serves as this node: ending");
            let why = format!("another process serves as node {id}, because this one was silent for too long");
            Some(Failure::new(why).help("give each process a node.id of its own"))
        }
    };
    tokio::select! {
        ended = node.shutdown() => replaced.map_or(ended, Err),
        signal = signals.impatience() => Err(Failure::new(format!("{signal} came again: ended at once"))
            .help("the next start recovers what was not closed")),
    }
}

/// Reads the file and the command line. What an operator should know goes to the log.
async fn load_config(env: &Env, arguments: &ServeArguments, place: &Place) -> Outcome<BrokerConfig> {
    let mut assignments = Vec::new();
    if let Some(path) = &arguments.config {
        let failed = |text: String| Failure::new(format!("{path}: {text}"));
        let bytes = env.disk.read(path.as_ref(), CONFIG_BYTES_MAX).map_err(|error| {
            failed(io_text(&error))
                .help("--config names a file of KEY=VALUE lines such as Kafka's server.properties")
        })?;
        let text = String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8".to_owned()))?;
        let read = base::config::parse_properties(&text);
        assignments.extend(read.map_err(|error| failed(error.to_string()))?);
    }
    for text in &arguments.set {
        let assignment = base::config::Assignment::from_argument(text);
        assignments.push(assignment.ok_or_else(|| {
            Failure::usage(format!("`--set {text}` sets nothing")).help("say --set KEY=VALUE")
        })?);
    }
    if !arguments.join.is_empty() {
        assignments.extend(joining(env, &arguments.join, &assignments).await);
    }
    let assignments = place.complete(assignments)?;
    let unknown = if arguments.allow_unknown { UnknownKeys::Tell } else { UnknownKeys::Refuse };
    let source = arguments.config.as_deref();
    match BrokerConfig::load(&assignments, unknown) {
        Ok(Loaded { config, notes }) => {
            for note in notes {
                tracing::info!("{}{note}", source.map(|path| format!("{path}, ")).unwrap_or_default());
            }
            if !arguments.join.is_empty() {
                identity::refuse_unreachable(&config, advertised::is_loopback)?;
            }
            Ok(config)
        }
        Err(errors) => Err(config_failure(source, &errors)),
    }
}

/// What `--join` says as keys. The usual ports are likely to be those of the node that is joined, when it is on this
/// machine, so that free ones are taken where nobody names any.
async fn joining(env: &Env, controllers: &[String], assignments: &[Assignment]) -> Vec<Assignment> {
    let is_set = |key: &str| assignments.iter().any(|it| it.key == key);
    let assign =
        |key: &str, value: String| Assignment { key: key.to_owned(), value, origin: Origin::CommandLine };
    let mut all = vec![
        assign(keys::PROCESS_ROLES.name(), "broker".to_owned()),
        assign(keys::CONTROLLER_QUORUM_BOOTSTRAP_SERVERS.name(), controllers.join(",")),
    ];
    let usual = BrokerConfig::defaults();
    if let (false, Some(listener)) = (is_set(keys::LISTENERS.name()), usual.client_listeners().first()) {
        let free = conflicts::free_from(env, &listener.bind).await;
        all.push(assign(keys::LISTENERS.name(), format!("{}://{free}", listener.name)));
    }
    if let (false, Some(http)) = (is_set(keys::HTTP_LISTENER.name()), usual.http_listener()) {
        let free = conflicts::free_from(env, &http).await;
        all.push(assign(keys::HTTP_LISTENER.name(), free.to_string()));
    }
    all
}

/// All that is wrong, each with the place where it stands.
fn config_failure(source: Option<&str>, errors: &[ConfigError]) -> Failure {
    let text = |error: &ConfigError| match (error.origin, source) {
        (Some(Origin::Line(line)), Some(path)) => format!("{path}, line {line}: {}", error.message),
        _ => error.to_string(),
    };
    let lines: Vec<_> = errors.iter().map(text).collect();
    let message = match lines.as_slice() {
        [line] => line.clone(),
        lines => format!("the configuration is wrong:\n  {}", lines.join("\n  ")),
    };
    // What stands in a file is no slip on the command line.
    let in_file = errors.iter().any(|error| matches!(error.origin, Some(Origin::Line(_))));
    let failure = if in_file { Failure::new(message) } else { Failure::usage(message) };
    let unknown = errors.iter().any(|error| error.message.starts_with("unknown key"));
    failure.help(match unknown {
        true => "`vltava docs config` lists every key; --allow-unknown starts although there are keys nobody knows",
        false => "`vltava docs config` lists every key with the values it takes",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(file: &str, set: &[&str]) -> Failure {
        let mut assignments = base::config::parse_properties(file).expect("properties");
        assignments.extend(set.iter().filter_map(|text| base::config::Assignment::from_argument(text)));
        let errors = BrokerConfig::load(&assignments, UnknownKeys::Refuse).expect_err("a wrong value");
        config_failure((!file.is_empty()).then_some("a.properties"), &errors)
    }

    #[test]
    fn a_wrong_key_is_told_with_its_place_once() {
        let of_line = refused("log.dirs=/d\nnum.partition=3\n", &[]);
        let text = of_line.to_string();
        assert!(text.starts_with("error: a.properties, line 2: unknown key `num.partition`"), "{text}");
        assert!(text.contains("--allow-unknown") && of_line.exit_status() == 1, "{text}");
        let of_command = refused("log.dirs=/d\n", &["num.partition=3"]);
        let text = of_command.to_string();
        assert!(text.starts_with("error: command line: unknown key `num.partition`"), "{text}");
        assert_eq!(of_command.exit_status(), 2);
    }

    #[test]
    fn a_wrong_value_is_not_advised_to_be_an_unknown_key() {
        let text = refused("log.dirs=/d\n", &["num.partitions=many"]).to_string();
        assert!(text.contains("num.partitions") && !text.contains("--allow-unknown"), "{text}");
    }
}
