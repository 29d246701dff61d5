//! What DescribeConfigs tells: every value, where it comes from and what stands behind it.
//!
//! Sources and synonym chains are Kafka's, one oddity included: the chain begins at the key's own name,
//! so a retention that only `log.retention.hours` sets shows as a default without synonyms.

use std::collections::BTreeMap;

use super::broker::{Layer, broker_synonyms};
use super::topic::TopicConfig;
use super::{BrokerConfig, ConfigKey, UpdateMode, broker_key, broker_keys, topic_key, topic_keys};

/// Where a value comes from; the numbers are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigSource {
    /// Set for the topic.
    DynamicTopic = 1,
    /// Set for this broker while it runs.
    DynamicBroker = 2,
    /// Set for all brokers while they run.
    DynamicDefaultBroker = 3,
    /// From the broker's file or command line.
    StaticBroker = 4,
    /// Nobody set it.
    Default = 5,
}

impl ConfigSource {
    /// The number in DescribeConfigs answers.
    pub fn code(self) -> i8 {
        self as i8
    }

    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            ConfigSource::DynamicTopic => "DYNAMIC_TOPIC_CONFIG",
            ConfigSource::DynamicBroker => "DYNAMIC_BROKER_CONFIG",
            ConfigSource::DynamicDefaultBroker => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            ConfigSource::StaticBroker => "STATIC_BROKER_CONFIG",
            ConfigSource::Default => "DEFAULT_CONFIG",
        }
    }
}

/// One value that stands behind a value, the first one being that which counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// Key it was set by.
    pub name: &'static str,
    /// Value in text form; `None` for a secret.
    pub value: Option<String>,
    /// Where it was set.
    pub source: ConfigSource,
}

/// One entry of a DescribeConfigs answer.
#[derive(Clone, Debug)]
pub struct Described {
    /// The row: name, type, words, whether the value is secret.
    pub key: &'static ConfigKey,
    /// Value in text form; `None` for null and for secrets.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: ConfigSource,
    /// Cannot be changed while the broker runs.
    pub read_only: bool,
    /// What stands behind it.
    pub synonyms: Vec<Synonym>,
}

/// Keys that share one chain of synonyms, and the chain.
pub(super) const BROKER_SYNONYMS: &[(&[&str], &[&str])] = &[
    (&["log.flush.interval.ms"], &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"]),
    (RETENTION, RETENTION),
    (ROLL, ROLL),
    (ROLL_JITTER, ROLL_JITTER),
];
const RETENTION: &[&str] = &["log.retention.ms", "log.retention.minutes", "log.retention.hours"];
const ROLL: &[&str] = &["log.roll.ms", "log.roll.hours"];
const ROLL_JITTER: &[&str] = &["log.roll.jitter.ms", "log.roll.jitter.hours"];

impl BrokerConfig {
    /// All values of this broker, by name.
    pub fn describe(&self) -> Vec<Described> {
        let shown = broker_keys().iter().filter(|key| !key.internal || self.fixed.contains_key(key.name));
        shown.map(|key| self.describe_key(key)).collect()
    }

    /// The values set for all brokers while they run.
    pub fn describe_for_all(&self) -> Vec<Described> {
        let keys = self.for_all.keys().filter_map(|name| broker_key(name));
        let mut all: Vec<_> = keys.map(|key| self.describe_key(key)).collect();
        for described in &mut all {
            described.synonyms.retain(|synonym| synonym.source == ConfigSource::DynamicDefaultBroker);
            described.source = ConfigSource::DynamicDefaultBroker;
            described.value = described.synonyms.first().and_then(|synonym| synonym.value.clone());
        }
        all
    }

    fn describe_key(&self, key: &'static ConfigKey) -> Described {
        let synonyms = self.chain(key.name);
        Described {
            key,
            value: if key.is_sensitive() { None } else { self.value(key).to_text() },
            source: synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source),
            read_only: key.update == UpdateMode::ReadOnly,
            synonyms,
        }
    }

    /// What stands behind a broker key, from its own name on.
    fn chain(&self, name: &'static str) -> Vec<Synonym> {
        let names = broker_synonyms(name);
        let mut all = Vec::new();
        let mut add = |layer: &Layer, source| {
            for name in &names {
                if let (Some(value), Some(row)) = (layer.get(name), broker_key(name)) {
                    let value = if row.is_sensitive() { None } else { value.to_text() };
                    all.push(Synonym { name: row.name, value, source });
                }
            }
        };
        add(&self.for_this, ConfigSource::DynamicBroker);
        add(&self.for_all, ConfigSource::DynamicDefaultBroker);
        add(&self.fixed, ConfigSource::StaticBroker);
        for row in names.iter().filter_map(|name| broker_key(name)) {
            if row.default.is_some() {
                let value = row.default_value().to_text();
                all.push(Synonym { name: row.name, value, source: ConfigSource::Default });
            }
        }
        all.into_iter().skip_while(|synonym| synonym.name != name).collect()
    }

    /// All values of a topic, by name, given what is set for the topic itself.
    pub fn describe_topic(&self, overrides: &BTreeMap<String, String>) -> Vec<Described> {
        let config = TopicConfig::new(self, overrides);
        let shown = topic_keys().iter().filter(|key| !key.internal || overrides.contains_key(key.name));
        shown.map(|key| self.describe_topic_key(key, &config)).collect()
    }

    fn describe_topic_key(&self, key: &'static ConfigKey, config: &TopicConfig<'_>) -> Described {
        let value = config.value(key).to_text();
        let mut synonyms = Vec::new();
        if config.is_set(key) {
            synonyms.push(Synonym {
                name: key.name,
                value: value.clone(),
                source: ConfigSource::DynamicTopic,
            });
        }
        if let Some((name, _)) = key.synonyms.first() {
            synonyms.extend(self.chain(name));
        }
        let source = synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source);
        Described { key, value, source, read_only: false, synonyms }
    }

    /// One value of a topic by its key's name, as [`BrokerConfig::describe_topic`] tells it.
    pub fn describe_topic_value(
        &self,
        overrides: &BTreeMap<String, String>,
        name: &str,
    ) -> Option<Described> {
        topic_key(name).map(|key| self.describe_topic_key(key, &TopicConfig::new(self, overrides)))
    }
}
