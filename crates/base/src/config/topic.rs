//! A topic's configuration: its own values over the broker's.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::suggest::topic_hint;
use super::table::topic::{MAX_COMPACTION_LAG_MS, MIN_COMPACTION_LAG_MS};
use super::{BrokerConfig, ConfigError, ConfigKey, ConfigType, Effect, Key, Kind, Value, topic_key};

/// A topic's values: what is set for it, and behind that the broker's.
pub(super) struct TopicConfig<'a> {
    broker: &'a BrokerConfig,
    overrides: &'a BTreeMap<String, String>,
}

impl<'a> TopicConfig<'a> {
    pub(super) fn new(broker: &'a BrokerConfig, overrides: &'a BTreeMap<String, String>) -> TopicConfig<'a> {
        TopicConfig { broker, overrides }
    }

    /// Whether the topic itself sets the key.
    pub(super) fn is_set(&self, key: &ConfigKey) -> bool {
        self.overrides.contains_key(key.name)
    }

    /// The value that counts. One that is not valid (set under another release, say) counts as not set.
    pub(super) fn value(&self, key: &ConfigKey) -> Value {
        let own = self.overrides.get(key.name).and_then(|text| key.parse(text).ok());
        own.or_else(|| self.broker.first_of(key.synonyms)).unwrap_or_else(|| key.default_value())
    }

    /// The value that counts, as the key's type.
    pub(super) fn get<T: ConfigType, R>(&self, key: Key<T>, read: impl FnOnce(T::Output<'_>) -> R) -> R {
        read(key.value_of(&self.value(key.row())))
    }
}

/// Checks one value that shall be set for a topic.
pub fn check_topic_value(name: &str, value: &str) -> Result<&'static ConfigKey, ConfigError> {
    let unknown = || ConfigError::new(format!("unknown topic key `{name}`{}", topic_hint(name)));
    let key = topic_key(name).ok_or_else(unknown)?;
    let parsed = key.parse(value)?;
    match key.effect {
        Effect::DefaultOnly(reason) if parsed != key.default_value() => {
            Err(ConfigError::new(format!("`{name}` cannot be honoured here, because {reason}")))
        }
        _ => Ok(key),
    }
}

/// Checks all values a topic shall have, each for itself and together.
pub fn check_topic_values(
    broker: &BrokerConfig,
    overrides: &BTreeMap<String, String>,
) -> Result<(), ConfigError> {
    for (name, value) in overrides {
        check_topic_value(name, value)?;
    }
    let config = TopicConfig::new(broker, overrides);
    let least = config.get(MIN_COMPACTION_LAG_MS, |value| value);
    let most = config.get(MAX_COMPACTION_LAG_MS, |value| value);
    if least > most {
        return Err(ConfigError::new(format!(
            "`min.compaction.lag.ms` ({least}) must not exceed `max.compaction.lag.ms` ({most})"
        )));
    }
    Ok(())
}

/// Ways to change a list without naming it whole (KIP-339).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListChange {
    /// Adds items that are not in it yet.
    Append,
    /// Takes items out.
    Subtract,
}

/// The list after a change, in text form. `current` is what is set now; without it the change starts
/// from the default. Fails for a key that is no list; the result still needs to be checked.
pub fn change_list(
    key: &ConfigKey,
    current: Option<&str>,
    change: ListChange,
    items: &str,
) -> Result<String, ConfigError> {
    if key.kind != Kind::List {
        let verb = if change == ListChange::Append { "appended to" } else { "subtracted from" };
        let kind = key.kind.name();
        return Err(ConfigError::new(format!(
            "`{}` is a {kind} and no list: nothing can be {verb} it",
            key.name
        )));
    }
    let current = current.unwrap_or_else(|| key.default.unwrap_or_default());
    let mut list: Vec<Cow<'_, str>> = split(current).map(Cow::Borrowed).collect();
    match change {
        ListChange::Append => {
            for item in split(items) {
                if !list.iter().any(|other| other == item) {
                    list.push(Cow::Borrowed(item));
                }
            }
        }
        ListChange::Subtract => list.retain(|item| !split(items).any(|other| other == item)),
    }
    Ok(list.join(","))
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}
