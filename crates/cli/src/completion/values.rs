//! Values that are known without a broker: keys of configs and what they take, codecs, positions, paths.

use std::ffi::OsStr;

use base::config::{ConfigKey, Effect};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter};

use crate::cat::KNOWN_PROPERTIES;

/// The codecs batches may be compressed with.
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// Positions with a name.
const POSITIONS: [&str; 2] = ["beginning", "end"];
/// Levels of a log.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// `KEY=VALUE` of a broker.
pub(crate) fn broker_assignments() -> ArgValueCompleter {
    completer(|typed| assignments(base::config::broker_keys(), typed))
}

/// `KEY=VALUE` of a topic.
pub(crate) fn topic_assignments() -> ArgValueCompleter {
    completer(|typed| assignments(base::config::topic_keys(), typed))
}

/// `KEY=ITEMS` of a topic, for keys that hold a list.
pub(crate) fn appended() -> ArgValueCompleter {
    completer(|typed| {
        let keys = base::config::topic_keys().iter().copied();
        assignments(&keys.filter(|key| key.kind == base::config::Kind::List).collect::<Vec<_>>(), typed)
    })
}

/// Keys of a topic alone.
pub(crate) fn topic_keys() -> ArgValueCompleter {
    completer(|typed| keys(base::config::topic_keys(), typed, ""))
}

/// Codecs.
pub(crate) fn codecs() -> ArgValueCompleter {
    completer(|typed| beginning_with(typed, CODECS))
}

/// Positions in a partition.
pub(crate) fn positions() -> ArgValueCompleter {
    completer(|typed| beginning_with(typed, POSITIONS))
}

/// The offsets of kcat.
pub(crate) fn offsets() -> ArgValueCompleter {
    completer(|typed| beginning_with(typed, POSITIONS.into_iter().chain(["s@", "e@"])))
}

/// Levels of the log.
pub(crate) fn levels() -> ArgValueCompleter {
    completer(|typed| beginning_with(typed, LEVELS))
}

/// `KEY=` of the properties that `cat -X` knows.
pub(crate) fn properties() -> ArgValueCompleter {
    completer(|typed| {
        let known = KNOWN_PROPERTIES.split(", ").filter(|name| name.starts_with(typed));
        known.map(|name| CompletionCandidate::new(format!("{name}="))).collect()
    })
}

/// Files; directories on the way to them.
pub(crate) fn files() -> ArgValueCompleter {
    ArgValueCompleter::new(PathCompleter::file())
}

/// Directories.
pub(crate) fn directories() -> ArgValueCompleter {
    ArgValueCompleter::new(PathCompleter::dir())
}

fn completer(
    candidates: impl Fn(&str) -> Vec<CompletionCandidate> + Send + Sync + 'static,
) -> ArgValueCompleter {
    ArgValueCompleter::new(move |typed: &OsStr| typed.to_str().map(&candidates).unwrap_or_default())
}

fn beginning_with<'a>(typed: &str, all: impl IntoIterator<Item = &'a str>) -> Vec<CompletionCandidate> {
    all.into_iter().filter(|value| value.starts_with(typed)).map(CompletionCandidate::new).collect()
}

/// Before the `=` the key, behind it what the key takes: its default too, which shows of what kind it is.
fn assignments(table: &[&'static ConfigKey], typed: &str) -> Vec<CompletionCandidate> {
    let Some((name, value)) = typed.split_once('=') else { return keys(table, typed, "=") };
    let Some(key) = table.iter().find(|key| key.name == name) else { return Vec::new() };
    // In a list, what follows the last comma is completed.
    let done = match key.kind {
        base::config::Kind::List => value.rfind(',').map_or(0, |comma| comma + 1),
        _ => 0,
    };
    let (done, last) = value.split_at(done);
    let is_new = |choice: &&str| !done.split(',').any(|item| item == *choice);
    let choices: Vec<&str> = match key.choices() {
        [] => key.default.into_iter().filter(|default| !default.is_empty() && done.is_empty()).collect(),
        choices => choices.iter().copied().filter(is_new).collect(),
    };
    let fitting = choices.into_iter().filter(|choice| choice.starts_with(last));
    fitting
        .map(|choice| {
            let is_default = key.default == Some(choice);
            CompletionCandidate::new(format!("{name}={done}{choice}"))
                .help(is_default.then(|| "the default".into()))
        })
        .collect()
}

/// Keys that have effect here; where none fits, also those that have none.
fn keys(table: &[&'static ConfigKey], typed: &str, behind: &str) -> Vec<CompletionCandidate> {
    let fitting: Vec<_> = table.iter().filter(|key| !key.internal && key.name.starts_with(typed)).collect();
    let any_honoured = fitting.iter().any(|key| key.effect == Effect::Honoured);
    let offered = fitting.into_iter().filter(|key| !any_honoured || key.effect == Effect::Honoured);
    offered
        .map(|key| CompletionCandidate::new(format!("{}{behind}", key.name)).help(Some(key.doc.into())))
        .collect()
}
