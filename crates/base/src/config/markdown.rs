//! The tables as Markdown, for `docs/CONFIG.md`.

use std::fmt::Write;

use super::{ConfigKey, Effect, broker_keys, topic_keys};

/// The broker keys that have effect here, then those that are known and have none.
pub fn broker_table_markdown() -> String {
    let (honoured, others): (Vec<&ConfigKey>, Vec<&ConfigKey>) = broker_keys()
        .iter()
        .copied()
        .filter(|key| !key.internal)
        .partition(|key| key.effect == Effect::Honoured);
    let mut out = String::from(
        "| key | type | default | takes | changes | what it is for |\n|---|---|---|---|---|---|\n",
    );
    for key in honoured {
        let change = key.update.name();
        row(&mut out, &[&code(key.name), key.kind.name(), &default(key), &key.allowed(), change, key.doc]);
    }
    out.push_str("\nKeys of Apache Kafka that are known and have no effect here:\n\n");
    out.push_str("| key | type | default | what it is for in Kafka | no effect here, because |\n");
    out.push_str("|---|---|---|---|---|\n");
    for key in others {
        row(&mut out, &[&code(key.name), key.kind.name(), &default(key), key.doc, &reason(key)]);
    }
    out
}

/// The topic keys.
pub fn topic_table_markdown() -> String {
    let mut out = String::from(
        "| key | type | default | takes | broker key behind it | what it is for |\n|---|---|---|---|---|---|\n",
    );
    for key in topic_keys().iter().filter(|key| !key.internal) {
        let synonyms: Vec<String> = key.synonyms.iter().map(|(name, _)| code(name)).collect();
        let doc = match key.effect {
            Effect::Honoured => key.doc.to_owned(),
            _ => format!("{} No effect here, because {}.", key.doc, reason(key)),
        };
        let takes = key.allowed();
        row(&mut out, &[&code(key.name), key.kind.name(), &default(key), &takes, &synonyms.join(", "), &doc]);
    }
    out
}

fn reason(key: &ConfigKey) -> String {
    match key.effect {
        Effect::Honoured => String::new(),
        Effect::Accepted(reason) => reason.to_owned(),
        Effect::DefaultOnly(reason) => format!("{reason}; another value than the default is refused"),
    }
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn default(key: &ConfigKey) -> String {
    match key.default {
        None => "none".to_owned(),
        Some("") => "empty".to_owned(),
        Some(text) => code(text),
    }
}

fn row(out: &mut String, cells: &[&str]) {
    for cell in cells {
        // A bar inside a cell would end it.
        write!(out, "| {} ", cell.replace('|', "\\|")).expect("writing to a string does not fail");
    }
    out.push_str("|\n");
}
