//! Properties after `-X`, by librdkafka's names.

use std::path::Path;
use std::time::Duration;

use base::batch::Compression;
use base::config::parse_properties;
use base::env::Env;
use client::{Acks, ConsumerConfig, GroupConfig, Isolation, ProducerConfig, Start, io_text};

use crate::failure::{Failure, Outcome};

/// What the properties say; `None` where they say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Properties {
    pub(super) bootstrap: Option<Vec<String>>,
    acks: Option<Acks>,
    idempotent: Option<bool>,
    compression: Option<Compression>,
    linger: Option<Duration>,
    batch_bytes: Option<usize>,
    record_bytes_max: Option<usize>,
    delivery_timeout: Option<Duration>,
    isolation: Option<Isolation>,
    fetch_wait: Option<Duration>,
    fetch_bytes_min: Option<usize>,
    fetch_bytes_max: Option<usize>,
    partition_bytes_max: Option<usize>,
    rebalance_timeout: Option<Duration>,
    session_timeout: Option<Duration>,
    heartbeat_interval: Option<Duration>,
    instance_id: Option<String>,
    /// Where a group begins that has committed nothing; `Some(None)` makes that an error.
    start: Option<Option<Start>>,
    /// Whether a topic that is asked about is to be created.
    pub(super) creates_topics: bool,
    /// Whether a group commits.
    pub(super) commits: Option<bool>,
}

/// Longest file of properties, bytes.
const FILE_BYTES_MAX: usize = 1 << 20;

/// The properties that have a meaning here.
pub(crate) const KNOWN: &str = "acks, allow.auto.create.topics, auto.offset.reset, batch.size, bootstrap.servers, \
                     compression.codec, enable.auto.commit, enable.idempotence, fetch.max.bytes, \
                     fetch.min.bytes, fetch.wait.max.ms, group.instance.id, heartbeat.interval.ms, \
                     isolation.level, linger.ms, max.partition.fetch.bytes, max.poll.interval.ms, \
                     message.max.bytes, message.timeout.ms, partition.assignment.strategy, \
                     security.protocol, session.timeout.ms";

/// Properties that tune what librdkafka has and we do not: whatever they say, the result is the same.
const WITHOUT_MEANING: &[&str] = &[
    "api.version.request",
    "api.version.fallback.ms",
    "auto.commit.interval.ms",
    "batch.num.messages",
    "broker.address.family",
    "broker.version.fallback",
    "check.crcs",
    "client.id",
    "debug",
    "enable.partition.eof",
    "log.connection.close",
    "max.in.flight.requests.per.connection",
    "message.send.max.retries",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "reconnect.backoff.ms",
    "retries",
    "retry.backoff.ms",
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "socket.timeout.ms",
    "statistics.interval.ms",
    "topic.metadata.refresh.interval.ms",
];

/// The properties of a file, as they would stand behind `-X`.
pub(super) fn read_file(env: &Env, path: &Path) -> Outcome<Vec<String>> {
    let failed = |reason: String| Failure::new(format!("{}: {reason}", path.display()));
    let bytes = env.disk.read(path, FILE_BYTES_MAX).map_err(|error| failed(io_text(&error)))?;
    let text = String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8".to_owned()))?;
    let read = parse_properties(&text).map_err(|error| failed(error.to_string()))?;
    Ok(read.into_iter().map(|property| format!("{}={}", property.key, property.value)).collect())
}

impl Properties {
    /// Reads `key=value` texts; of two to one key the later counts.
    pub(super) fn parse(texts: &[String]) -> Outcome<Properties> {
        let mut properties = Properties::default();
        for text in texts {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            match properties.take(key.trim(), value.trim()) {
                Some(true) => {}
                Some(false) => {
                    return Err(Failure::usage(format!("`{}` cannot be `{}`", key.trim(), value.trim())));
                }
                None => {
                    let unknown = Failure::usage(format!("the property `{}` is not known", key.trim()));
                    return Err(unknown.help(format!("known are {KNOWN}")));
                }
            }
        }
        Ok(properties)
    }

    /// Whether the value is valid; `None` if the key is not known.
    fn take(&mut self, key: &str, value: &str) -> Option<bool> {
        // Properties of topics may be marked as such.
        let key =
            key.strip_prefix("topic.").filter(|rest| *rest != "metadata.refresh.interval.ms").unwrap_or(key);
        let valid = match key {
            "bootstrap.servers" | "metadata.broker.list" => {
                let brokers = value.split(',').map(str::to_owned).collect();
                put(&mut self.bootstrap, Some(brokers).filter(|_| !value.is_empty()))
            }
            "acks" | "request.required.acks" => put(&mut self.acks, acks(value)),
            "enable.idempotence" => put(&mut self.idempotent, value.parse().ok()),
            "compression.codec" | "compression.type" => put(&mut self.compression, value.parse().ok()),
            "linger.ms" | "queue.buffering.max.ms" => put(&mut self.linger, millis(value)),
            "batch.size" => put(&mut self.batch_bytes, value.parse().ok()),
            "message.max.bytes" => put(&mut self.record_bytes_max, value.parse().ok()),
            "message.timeout.ms" | "delivery.timeout.ms" => put(&mut self.delivery_timeout, millis(value)),
            "isolation.level" => put(&mut self.isolation, isolation(value)),
            "fetch.wait.max.ms" => put(&mut self.fetch_wait, millis(value)),
            "fetch.min.bytes" => put(&mut self.fetch_bytes_min, value.parse().ok()),
            "fetch.max.bytes" => put(&mut self.fetch_bytes_max, value.parse().ok()),
            "max.partition.fetch.bytes" | "fetch.message.max.bytes" => {
                put(&mut self.partition_bytes_max, value.parse().ok())
            }
            "max.poll.interval.ms" => put(&mut self.rebalance_timeout, millis(value)),
            "enable.auto.commit" => put(&mut self.commits, value.parse().ok()),
            "allow.auto.create.topics" => value.parse().map(|creates| self.creates_topics = creates).is_ok(),
            "partition.assignment.strategy" => value.split(',').any(|strategy| strategy.trim() == "range"),
            "security.protocol" => value.eq_ignore_ascii_case("plaintext"),
            "session.timeout.ms" => put(&mut self.session_timeout, millis(value)),
            "heartbeat.interval.ms" => put(&mut self.heartbeat_interval, millis(value)),
            "group.instance.id" => put(&mut self.instance_id, Some(value.to_owned())),
            "auto.offset.reset" => put(&mut self.start, start(value)),
            _ if WITHOUT_MEANING.contains(&key) => true,
            _ => return None,
        };
        Some(valid)
    }

    /// Lays the properties over the settings of a producer.
    pub(super) fn lay_over_producer(&self, config: &mut ProducerConfig) {
        lay(self.acks, &mut config.acks);
        lay(self.idempotent, &mut config.idempotent);
        lay(self.compression, &mut config.compression);
        lay(self.linger, &mut config.linger);
        lay(self.batch_bytes, &mut config.batch_bytes);
        lay(self.record_bytes_max, &mut config.record_bytes_max);
        lay(self.delivery_timeout, &mut config.delivery_timeout);
    }

    /// Lays the properties over the settings of a consumer.
    pub(super) fn lay_over_consumer(&self, config: &mut ConsumerConfig) {
        lay(self.isolation, &mut config.isolation);
        lay(self.fetch_wait, &mut config.fetch_wait);
        lay(self.fetch_bytes_min, &mut config.fetch_bytes_min);
        lay(self.fetch_bytes_max, &mut config.fetch_bytes_max);
        lay(self.partition_bytes_max, &mut config.partition_bytes_max);
    }

    /// Lays the properties over the settings of a member of a group.
    pub(super) fn lay_over_group(&self, config: &mut GroupConfig) {
        lay(self.session_timeout, &mut config.session_timeout);
        lay(self.heartbeat_interval, &mut config.heartbeat_interval);
        lay(self.rebalance_timeout, &mut config.rebalance_timeout);
        lay(self.start, &mut config.start);
        config.instance_id.clone_from(&self.instance_id);
    }
}

fn lay<T>(said: Option<T>, place: &mut T) {
    if let Some(value) = said {
        *place = value;
    }
}

fn put<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    let valid = value.is_some();
    *place = value;
    valid
}

fn millis(value: &str) -> Option<Duration> {
    value.parse().ok().map(Duration::from_millis)
}

fn acks(value: &str) -> Option<Acks> {
    match value {
        "all" | "-1" => Some(Acks::All),
        "1" => Some(Acks::Leader),
        "0" => Some(Acks::None),
        _ => None,
    }
}

fn isolation(value: &str) -> Option<Isolation> {
    match value {
        "read_committed" => Some(Isolation::ReadCommitted),
        "read_uncommitted" => Some(Isolation::ReadUncommitted),
        _ => None,
    }
}

fn start(value: &str) -> Option<Option<Start>> {
    match value {
        "earliest" | "smallest" | "beginning" => Some(Some(Start::Beginning)),
        "latest" | "largest" | "end" => Some(Some(Start::End)),
        "error" | "none" => Some(None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Outcome<Properties> {
        Properties::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn known_properties_reach_the_settings() {
        let properties =
            parse(&["acks=1", "linger.ms=20", "compression.type=lz4", "isolation.level=read_committed"]);
        let properties = properties.expect("all are valid");
        let mut producer = ProducerConfig::default();
        properties.lay_over_producer(&mut producer);
        assert_eq!((producer.acks, producer.compression), (Acks::Leader, Compression::Lz4));
        assert_eq!(producer.linger, Duration::from_millis(20));
        assert_eq!(producer.batch_bytes, ProducerConfig::default().batch_bytes);
        let mut consumer = ConsumerConfig::default();
        properties.lay_over_consumer(&mut consumer);
        assert_eq!(consumer.isolation, Isolation::ReadCommitted);
    }

    #[test]
    fn what_is_not_known_or_not_valid_is_refused() {
        let unknown = parse(&["ack=1"]).unwrap_err().to_string();
        assert!(unknown.contains("`ack` is not known") && unknown.contains("known are acks,"), "{unknown}");
        assert_eq!(parse(&["acks=2"]).unwrap_err().to_string(), "error: `acks` cannot be `2`");
        assert!(parse(&["linger.ms"]).is_err());
        assert!(parse(&["partition.assignment.strategy=roundrobin"]).is_err());
        assert!(parse(&["security.protocol=ssl"]).is_err());
    }

    #[test]
    fn groups_begin_where_they_are_told() {
        let start = |text: &str| {
            let mut config = GroupConfig::new("g", ["t"]);
            parse(&[text]).expect("valid").lay_over_group(&mut config);
            config.start
        };
        assert_eq!(start("topic.auto.offset.reset=latest"), Some(Start::End));
        assert_eq!(start("auto.offset.reset=smallest"), Some(Start::Beginning));
        assert_eq!(start("auto.offset.reset=error"), None);
        assert_eq!(start("topic.metadata.refresh.interval.ms=5"), Some(Start::Beginning));
    }
}
