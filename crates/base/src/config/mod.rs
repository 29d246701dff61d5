//! Configuration: one table of broker keys, one of topic keys, and what reads them.
//!
//! Names, types, defaults and bounds are Apache Kafka 4.3's, so that a `server.properties` written for
//! it starts this broker unchanged; keys of our own begin with `vltava.`. The tables (`table/`) are
//! the only place a key is written down: parsing ([`BrokerConfig::load`]), changes at run time, topic
//! settings, DescribeConfigs, shell completion and `docs/CONFIG.md` all come from there.
//!
//! ```text
//! topic value:  the topic's own ► broker value
//! broker value: set for this broker ► set for all brokers ► file and command line ► default
//! ```
//!
//! Invariants: every default is valid for its own row; a [`BrokerConfig`] holds only valid values; a
//! typed [`Key`] cannot be read as another type. What it does not do: read files or store changes.

mod broker;
mod describe;
mod key;
mod listeners;
mod markdown;
mod properties;
mod quorum;
mod settings;
mod suggest;
mod table;
mod topic;

#[cfg(test)]
mod quorum_tests;
#[cfg(test)]
mod tests;

pub use broker::{BrokerConfig, ConfigError, Loaded, Note, UnknownKeys};
pub use describe::{ConfigSource, Described, Synonym};
pub use key::{
    ConfigKey, ConfigType, Effect, Importance, InvalidValue, Key, Kind, List, Text, UpdateMode, Value,
};
pub use listeners::{HostPort, Listener};
pub use markdown::{broker_table_markdown, topic_table_markdown};
pub use properties::{Assignment, Origin, PropertiesError, parse_properties};
pub use quorum::Roles;
pub use settings::{Durability, TopicSettings};
pub use table::{broker_key, broker_keys, topic_key, topic_keys};
pub use topic::{ListChange, change_list, check_topic_value, check_topic_values};

/// Typed keys of broker values, for [`BrokerConfig::get`].
pub mod keys {
    pub use super::table::cluster::*;
    pub use super::table::groups::*;
    pub use super::table::log::*;
    pub use super::table::network::*;
    pub use super::table::node::*;
    pub use super::table::own::*;

    /// Typed keys of topic values.
    pub mod topic {
        pub use crate::config::table::topic::*;
    }
}
