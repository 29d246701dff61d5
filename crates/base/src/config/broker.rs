//! A broker's configuration: read from a file and the command line, changed while the node runs.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::describe::BROKER_SYNONYMS;
use super::listeners::{Listeners, read_listeners};
use super::suggest::broker_hint;
use super::table::{broker_key, broker_keys};
use super::{
    Assignment, ConfigKey, ConfigType, Effect, HostPort, Key, Listener, Origin, UpdateMode, Value, keys,
};

/// Values of one layer, by key.
pub(super) type Layer = BTreeMap<&'static str, Value>;

/// The configuration of one broker. Immutable: a change makes a new one.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// From the file and the command line.
    pub(super) fixed: Layer,
    /// Set for all brokers while they run.
    pub(super) for_all: Layer,
    /// Set for this broker while it runs.
    pub(super) for_this: Layer,
    effective: HashMap<&'static str, Value>,
    listeners: Vec<Listener>,
    pub(super) controller_listener: Option<Listener>,
}

/// What to do with keys nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownKeys {
    /// Refuse to start: it is a slip, and the default in its place may be dangerous.
    Refuse,
    /// Start and tell.
    Tell,
}

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the value was set, when it was in a file or on the command line.
    pub origin: Option<Origin>,
    /// What is wrong and what would be right, one sentence without the point.
    pub message: String,
}

impl ConfigError {
    pub(super) fn new(message: String) -> ConfigError {
        ConfigError { origin: None, message }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

impl From<super::InvalidValue> for ConfigError {
    fn from(error: super::InvalidValue) -> ConfigError {
        ConfigError::new(error.to_string())
    }
}

/// Something an operator should know although the node starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where the value was set.
    pub origin: Origin,
    /// The key as written.
    pub key: String,
    /// What is to be known, a phrase that follows the key.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}` {}", self.origin, self.key, self.text)
    }
}

/// A configuration that can be started, and the notes about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: BrokerConfig,
    /// Keys without effect and the like, in the order of the assignments.
    pub notes: Vec<Note>,
}

/// Keys that older releases of Kafka had; they may linger in a file and do nothing in Kafka 4 either.
const REMOVED_KEYS: &[&str] = &[
    "auto.include.jmx.reporter",
    "broker.id.generation.enable",
    "control.plane.listener.name",
    "delegation.token.master.key",
    "group.coordinator.new.enable",
    "inter.broker.protocol.version",
    "leader.imbalance.per.broker.percentage",
    "log.message.downconversion.enable",
    "log.message.format.version",
    "log.message.timestamp.difference.max.ms",
    "offsets.commit.required.acks",
    "reserved.broker.max.id",
];
/// Beginnings of keys that older releases of Kafka had.
const REMOVED_PREFIXES: &[&str] = &["zookeeper.", "password.encoder."];
/// Beginnings of keys that Kafka hands to plug-ins.
const PLUG_IN_PREFIXES: &[&str] = &["rsm.config.", "rlmm.config.", "metrics.context."];
/// Beginning of keys that count for one listener alone.
const LISTENER_PREFIX: &str = "listener.name.";
/// The least `vltava.memory.limit`, bytes: with less, the shares serve nobody.
const MEMORY_LIMIT_MIN_BYTES: u64 = 64 * 1024 * 1024;

impl BrokerConfig {
    /// The defaults alone.
    pub fn defaults() -> BrokerConfig {
        BrokerConfig::load(&[], UnknownKeys::Refuse)
            .map(|loaded| loaded.config)
            .expect("the defaults are valid")
    }

    /// Builds a configuration from assignments; of two to one key the later counts. All that is wrong is
    /// told at once.
    pub fn load(assignments: &[Assignment], unknown: UnknownKeys) -> Result<Loaded, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let mut notes = Vec::new();
        let mut fixed = Layer::new();
        let mut origins = HashMap::new();
        for assignment in assignments {
            let origin = assignment.origin;
            match read_assignment(assignment, unknown) {
                Ok((row, value, note)) => {
                    notes.extend(note);
                    if let Some(Origin::Line(_)) = origins.insert(row.name, origin)
                        && matches!(origin, Origin::Line(_))
                    {
                        let text = "was set before; this later value counts".to_owned();
                        notes.push(Note { origin, key: row.name.to_owned(), text });
                    }
                    fixed.insert(row.name, value);
                }
                Err(Unread::Note(text)) => notes.push(Note { origin, key: assignment.key.clone(), text }),
                Err(Unread::Error(message)) => errors.push(ConfigError { origin: Some(origin), message }),
            }
        }
        join_node_ids(&mut fixed);
        let mut config = BrokerConfig {
            fixed,
            for_all: Layer::new(),
            for_this: Layer::new(),
            effective: HashMap::new(),
            listeners: Vec::new(),
            controller_listener: None,
        };
        config.settle();
        for (key, message) in config.contradictions() {
            errors.push(ConfigError {
                origin: origins.get(key).copied(),
                message: format!("`{key}`: {message}"),
            });
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        notes.extend(config.notes_of_quorum(&origins));
        notes.sort_by_key(|note| note.origin);
        Ok(Loaded { config, notes })
    }

    /// The same broker with values that were set while it runs: for all brokers and for this one.
    ///
    /// Values that are not valid are left out and told, so that one bad value (of another release, say)
    /// does not undo the others. A change is checked by applying it and looking at the errors.
    pub fn with_changes(
        &self,
        for_all: &BTreeMap<String, String>,
        for_this: &BTreeMap<String, String>,
    ) -> (BrokerConfig, Vec<ConfigError>) {
        let mut errors = Vec::new();
        let for_all = read_layer(for_all, false, &mut errors);
        let for_this = read_layer(for_this, true, &mut errors);
        let together = self.with_layers(for_all.clone(), for_this.clone());
        if together.contradictions().is_empty() {
            return (together, errors);
        }
        // Take the values one by one and leave out those that do not go with what is there.
        let mut changed = self.with_layers(Layer::new(), Layer::new());
        let every = for_all.into_iter().map(|entry| (false, entry));
        for (one_broker, (name, value)) in every.chain(for_this.into_iter().map(|entry| (true, entry))) {
            let mut next = changed.clone();
            let layer = if one_broker { &mut next.for_this } else { &mut next.for_all };
            layer.insert(name, value);
            next.settle();
            match next.contradictions().into_iter().next() {
                None => changed = next,
                Some((key, text)) => {
                    errors.push(ConfigError::new(format!("`{name}` is left out: `{key}`: {text}")))
                }
            }
        }
        (changed, errors)
    }

    fn with_layers(&self, for_all: Layer, for_this: Layer) -> BrokerConfig {
        let mut changed = BrokerConfig { for_all, for_this, ..self.clone() };
        changed.settle();
        changed
    }

    /// The value of a key.
    pub fn get<T: ConfigType>(&self, key: Key<T>) -> T::Output<'_> {
        key.value_of(self.value(key.row()))
    }

    /// The value of a key where somebody has set it; `None` where the default counts.
    pub fn set_value<T: ConfigType>(&self, key: Key<T>) -> Option<T::Output<'_>> {
        let layers = [&self.for_this, &self.for_all, &self.fixed];
        let is_set = layers.iter().any(|layer| layer.contains_key(key.name()));
        is_set.then(|| self.get(key))
    }

    /// The value of a row of the broker table.
    pub fn value(&self, row: &ConfigKey) -> &Value {
        self.effective.get(row.name).expect("every row of the broker table has a value")
    }

    /// The value of a broker key by name.
    pub fn value_by_name(&self, name: &str) -> Option<&Value> {
        self.effective.get(name)
    }

    /// The listeners for clients, in the order they are written; none where the node is no broker.
    pub fn client_listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The directories of the data: `log.dirs`, or else `log.dir`.
    pub fn log_dirs(&self) -> &[String] {
        self.get(keys::LOG_DIRS).unwrap_or(self.get(keys::LOG_DIR))
    }

    /// Where HTTP is served; `None` when it is not.
    pub fn http_listener(&self) -> Option<HostPort> {
        HostPort::parse(self.get(keys::HTTP_LISTENER))
    }

    /// Most connections from one address, by the address and for all others.
    pub fn connections_per_address(&self) -> (HashMap<String, i32>, i32) {
        let overrides = read_overrides(self.get(keys::MAX_CONNECTIONS_PER_IP_OVERRIDES));
        (overrides.unwrap_or_default(), self.get(keys::MAX_CONNECTIONS_PER_IP))
    }

    /// Bytes of memory for what clients bring and ask for (`vltava.memory.limit`); `None` leaves the choice to the
    /// node.
    pub fn memory_limit_bytes(&self) -> Option<u64> {
        u64::try_from(self.get(keys::MEMORY_LIMIT)).ok()
    }

    /// Bytes of requests that may be in work at once; `None` leaves the choice to the node.
    pub fn queued_max_request_bytes(&self) -> Option<u64> {
        u64::try_from(self.get(keys::QUEUED_MAX_REQUEST_BYTES)).ok().filter(|bytes| *bytes > 0)
    }

    /// Time after which an idle connection is closed, ms; `None` for never.
    pub fn connections_max_idle_ms(&self) -> Option<u64> {
        u64::try_from(self.get(keys::CONNECTIONS_MAX_IDLE_MS)).ok()
    }

    /// The first of several keys that has a value, times its factor; no overflow, and negative stays -1.
    pub(super) fn first_of(&self, synonyms: &[(&'static str, i64)]) -> Option<Value> {
        let values = synonyms.iter().filter_map(|(name, factor)| Some((self.effective.get(name)?, *factor)));
        let (value, factor) = values.into_iter().find(|(value, _)| **value != Value::Null)?;
        Some(match value {
            Value::Number(number) if factor != 1 && *number < 0 => Value::Number(-1),
            Value::Number(number) => Value::Number(number.saturating_mul(factor)),
            other => other.clone(),
        })
    }

    /// Works out the effective values and the listeners from the layers.
    pub(super) fn settle(&mut self) {
        let layers = [&self.for_this, &self.for_all, &self.fixed];
        let value_of = |row: &ConfigKey| layers.iter().find_map(|layer| layer.get(row.name)).cloned();
        let effective = broker_keys().iter();
        self.effective =
            effective.map(|row| (row.name, value_of(row).unwrap_or(row.default_value()))).collect();
        let Listeners { clients, controllers } = read_listeners(&self.listener_texts()).unwrap_or_default();
        (self.listeners, self.controller_listener) = (clients, controllers);
    }

    /// Valid values that do not go together: the key to blame and why.
    fn contradictions(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut check = |holds: bool, key: &'static str, message: &str| {
            if !holds {
                found.push((key, message.to_owned()));
            }
        };
        let long = |key| if let Some(Value::Number(number)) = self.first_of(key) { number } else { 0 };
        let node_id = self.get(keys::NODE_ID);
        let broker_id = self.get(keys::BROKER_ID);
        check(
            broker_id == -1 || broker_id == node_id,
            "broker.id",
            "it must equal `node.id` when both are set",
        );
        let retention_ms = long(keys::topic::RETENTION_MS.row().synonyms);
        check(
            retention_ms == -1 || retention_ms > 0,
            "log.retention.ms",
            "records are kept for -1 (ever) or 1 ms and more",
        );
        let roll_ms = long(keys::topic::SEGMENT_MS.row().synonyms);
        check(roll_ms > 0, "log.roll.ms", "a segment is closed after 1 ms at least");
        let jitter_ms = long(keys::topic::SEGMENT_JITTER_MS.row().synonyms);
        check(jitter_ms >= 0, "log.roll.jitter.ms", "it must not be negative");
        let (least, most) = (
            self.get(keys::LOG_CLEANER_MIN_COMPACTION_LAG_MS),
            self.get(keys::LOG_CLEANER_MAX_COMPACTION_LAG_MS),
        );
        check(
            least <= most,
            "log.cleaner.min.compaction.lag.ms",
            "it must not exceed `log.cleaner.max.compaction.lag.ms`",
        );
        let threads = i64::from(self.get(keys::LOG_CLEANER_THREADS));
        let per_thread = self.get(keys::LOG_CLEANER_DEDUPE_BUFFER_SIZE) / threads.max(1);
        check(
            per_thread >= 1 << 20,
            "log.cleaner.dedupe.buffer.size",
            "each thread of `log.cleaner.threads` needs 1 MiB of it",
        );
        found.extend(self.contradictions_of_service());
        found
    }

    /// The part of [`BrokerConfig::contradictions`] that is not about logs and the node itself.
    fn contradictions_of_service(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut check = |holds: bool, key: &'static str, message: &str| {
            if !holds {
                found.push((key, message.to_owned()));
            }
        };
        check(
            self.memory_limit_bytes().is_none_or(|bytes| bytes >= MEMORY_LIMIT_MIN_BYTES),
            "vltava.memory.limit",
            "it takes 67108864 (64 MiB) and more, or -1",
        );
        let queued = self.queued_max_request_bytes();
        let largest = self.get(keys::SOCKET_REQUEST_MAX_BYTES);
        check(
            queued.is_none_or(|bytes| bytes >= largest as u64),
            "queued.max.request.bytes",
            "the largest request (`socket.request.max.bytes`) must fit into it",
        );
        let (shortest, longest) =
            (self.get(keys::GROUP_MIN_SESSION_TIMEOUT_MS), self.get(keys::GROUP_MAX_SESSION_TIMEOUT_MS));
        check(
            shortest <= longest,
            "group.min.session.timeout.ms",
            "it must not exceed `group.max.session.timeout.ms`",
        );
        let codec = self.get(keys::OFFSETS_TOPIC_COMPRESSION_CODEC);
        check((0..=4).contains(&codec), "offsets.topic.compression.codec", "it takes a number from 0 to 4");
        let overrides = read_overrides(self.get(keys::MAX_CONNECTIONS_PER_IP_OVERRIDES));
        check(
            overrides.is_some(),
            "max.connections.per.ip.overrides",
            "it takes address:number, separated by commas",
        );
        let http = self.get(keys::HTTP_LISTENER);
        check(
            http.is_empty() || HostPort::parse(http).is_some(),
            "vltava.http.listener",
            "it takes host:port, or nothing",
        );
        let selector = self.get(keys::REPLICA_SELECTOR_CLASS).unwrap_or(keys::LEADER_SELECTOR);
        check(
            [keys::LEADER_SELECTOR, keys::RACK_AWARE_SELECTOR].contains(&selector),
            "replica.selector.class",
            "classes cannot be loaded; it takes org.apache.kafka.common.replica.RackAwareReplicaSelector or \
             org.apache.kafka.common.replica.LeaderSelector",
        );
        let dirs = self.log_dirs();
        check(!dirs.is_empty(), "log.dirs", "at least one directory is needed");
        let twice = dirs.iter().enumerate().any(|(index, dir)| dirs[..index].contains(dir));
        check(!twice, "log.dirs", "a directory is named twice");
        found.extend(read_listeners(&self.listener_texts()).err());
        found.extend(self.contradictions_of_quorum());
        found
    }
}

enum Unread {
    Note(String),
    Error(String),
}

type Read = (&'static ConfigKey, Value, Option<Note>);

fn read_assignment(assignment: &Assignment, unknown: UnknownKeys) -> Result<Read, Unread> {
    let Assignment { key, value, origin } = assignment;
    let Some(row) = broker_key(key) else {
        return Err(read_unknown(key, unknown));
    };
    let parsed = row.parse(value).map_err(|error| Unread::Error(error.to_string()))?;
    let is_default = parsed == row.default_value() || parsed == Value::List(Vec::new());
    let is_empty = parsed.to_text().is_none_or(|text| text.is_empty());
    match row.effect {
        Effect::DefaultOnly(reason) if !is_default && !is_empty => {
            Err(Unread::Error(format!("`{key}` cannot be honoured here, because {reason}; leave it out")))
        }
        Effect::Accepted(reason) if !is_default && !is_empty => {
            let text = format!("has no effect here, because {reason}");
            Ok((row, parsed, Some(Note { origin: *origin, key: key.clone(), text })))
        }
        _ => Ok((row, parsed, None)),
    }
}

fn read_unknown(key: &str, unknown: UnknownKeys) -> Unread {
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| key.starts_with(prefix));
    if REMOVED_KEYS.contains(&key) || begins(REMOVED_PREFIXES) {
        return Unread::Note("has no effect here, because Kafka 4 has it no more".to_owned());
    }
    if begins(PLUG_IN_PREFIXES) {
        return Unread::Note("has no effect here, because there is no plug-in to hand it to".to_owned());
    }
    // listener.name.<listener>.<key> or, for SASL, listener.name.<listener>.<mechanism>.<key>.
    if let Some((_, rest)) = key.strip_prefix(LISTENER_PREFIX).and_then(|rest| rest.split_once('.')) {
        let behind_mechanism = rest.split_once('.').and_then(|(_, name)| broker_key(name));
        if broker_key(rest).or(behind_mechanism).is_some() {
            return Unread::Note(
                "has no effect here, because listeners have no values of their own yet".to_owned(),
            );
        }
    }
    let message = format!("unknown key `{key}`{}", broker_hint(key));
    match unknown {
        UnknownKeys::Refuse => Unread::Error(message),
        UnknownKeys::Tell => {
            Unread::Note(format!("has no effect here, because nobody knows it{}", broker_hint(key)))
        }
    }
}

/// `broker.id` and `node.id` are two names of one number: whichever is set sets the other.
fn join_node_ids(fixed: &mut Layer) {
    let (node, broker) = (keys::NODE_ID.name(), keys::BROKER_ID.name());
    match (fixed.get(node).cloned(), fixed.get(broker).cloned()) {
        (Some(value), None) => fixed.insert(broker, value),
        (None, Some(value)) if value != Value::Number(-1) => fixed.insert(node, value),
        _ => None,
    };
}

fn read_layer(values: &BTreeMap<String, String>, one_broker: bool, errors: &mut Vec<ConfigError>) -> Layer {
    let mut layer = Layer::new();
    for (name, text) in values {
        match read_change(name, text, one_broker) {
            Ok((row, value)) => {
                layer.insert(row.name, value);
            }
            Err(error) => errors.push(error),
        }
    }
    layer
}

fn read_change(name: &str, text: &str, one_broker: bool) -> Result<(&'static ConfigKey, Value), ConfigError> {
    let row = broker_key(name)
        .ok_or_else(|| ConfigError::new(format!("unknown broker key `{name}`{}", broker_hint(name))))?;
    match row.update {
        UpdateMode::ReadOnly => {
            return Err(ConfigError::new(format!(
                "`{name}` changes only with a restart, not while the broker runs"
            )));
        }
        UpdateMode::PerBroker if !one_broker => {
            return Err(ConfigError::new(format!("`{name}` is set for one broker at a time, not for all")));
        }
        UpdateMode::PerBroker | UpdateMode::ClusterWide => {}
    }
    let value = row.parse(text)?;
    match row.effect {
        Effect::DefaultOnly(reason) if value != row.default_value() => {
            Err(ConfigError::new(format!("`{name}` cannot be honoured here, because {reason}")))
        }
        _ => Ok((row, value)),
    }
}

/// `address:number` items; `None` when one is of another form.
fn read_overrides(text: &str) -> Option<HashMap<String, i32>> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let read = |item: &str| {
        let (address, number) = item.rsplit_once(':')?;
        Some((address.trim().to_owned(), number.trim().parse().ok().filter(|number| *number >= 0)?))
    };
    items.map(read).collect()
}

/// The broker keys that stand for one value, in the order in which they count.
pub(super) fn broker_synonyms(name: &'static str) -> Vec<&'static str> {
    let chain = BROKER_SYNONYMS.iter().find(|(names, _)| names.contains(&name));
    chain.map_or_else(|| vec![name], |(_, chain)| chain.to_vec())
}
