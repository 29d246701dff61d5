//! Properties after `-X`, by librdkafka's names.

use std::time::Duration;

use base::batch::Compression;
use client::{Acks, ConsumerConfig, GroupConfig, Isolation, ProducerConfig, Start};

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
    session_timeout: Option<Duration>,
    heartbeat_interval: Option<Duration>,
    instance_id: Option<String>,
    pub(super) start: Option<Start>,
}

const KNOWN: &str = "acks, auto.offset.reset, batch.size, bootstrap.servers, compression.codec, \
                     enable.idempotence, fetch.wait.max.ms, group.instance.id, heartbeat.interval.ms, \
                     isolation.level, linger.ms, message.max.bytes, message.timeout.ms, session.timeout.ms";

impl Properties {
    /// Reads `key=value` texts; of two to one key the later counts.
    pub(super) fn parse(texts: &[String]) -> Outcome<Properties> {
        let mut properties = Properties::default();
        for text in texts {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            match properties.take(key.trim(), value.trim()) {
                Some(true) => {}
                Some(false) => {
                    return Err(Failure::new(format!("`{}` cannot be `{}`", key.trim(), value.trim())));
                }
                None => {
                    let unknown = Failure::new(format!("the property `{}` is not known", key.trim()));
                    return Err(unknown.help(format!("known are {KNOWN}")));
                }
            }
        }
        Ok(properties)
    }

    /// Whether the value is valid; `None` if the key is not known.
    fn take(&mut self, key: &str, value: &str) -> Option<bool> {
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
            "session.timeout.ms" => put(&mut self.session_timeout, millis(value)),
            "heartbeat.interval.ms" => put(&mut self.heartbeat_interval, millis(value)),
            "group.instance.id" => put(&mut self.instance_id, Some(value.to_owned())),
            "auto.offset.reset" => put(&mut self.start, start(value)),
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
    }

    /// Lays the properties over the settings of a member of a group.
    pub(super) fn lay_over_group(&self, config: &mut GroupConfig) {
        lay(self.session_timeout, &mut config.session_timeout);
        lay(self.heartbeat_interval, &mut config.heartbeat_interval);
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

fn start(value: &str) -> Option<Start> {
    match value {
        "earliest" | "smallest" | "beginning" => Some(Start::Beginning),
        "latest" | "largest" | "end" => Some(Start::End),
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
    }
}
