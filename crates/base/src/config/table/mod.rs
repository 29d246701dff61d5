//! The tables: every key of Apache Kafka 4.3's brokers and topics, and our own.
//!
//! One row tells name, type, default, bounds, importance, how it may change while the node runs, what
//! it is for and whether it has effect here. Parsing, DescribeConfigs, documentation and completion
//! all read these rows. A test compares them with the facts of Kafka 4.3.1 (`kafka_4_3_1.tsv`).

/// Defines rows of a table, and a typed key for each row with a name in brackets.
macro_rules! config_keys {
    ($visibility:vis $table:ident; $([$($name:ident: $type:ty)?] $row:expr;)*) => {
        $($(
            #[doc = concat!("Typed key of the row `", stringify!($name), "`.")]
            pub const $name: Key<$type> = {
                const ROW: &crate::config::key::ConfigKey = &$row;
                Key::of(ROW)
            };
        )?)*

        $visibility const $table: &[crate::config::key::ConfigKey] = &[$($row),*];
    };
}

pub(super) mod cluster;
pub(super) mod groups;
pub(super) mod log;
pub(super) mod network;
pub(super) mod node;
pub(super) mod own;
mod reasons;
pub(super) mod sasl;
pub(super) mod share;
pub(super) mod tiered;
pub(super) mod tls;
pub(super) mod topic;
pub(super) mod transactions;

use std::sync::LazyLock;

use super::key::ConfigKey;

static BROKER: LazyLock<Vec<&'static ConfigKey>> = LazyLock::new(|| {
    let tables = [
        node::ROWS,
        network::ROWS,
        log::ROWS,
        groups::ROWS,
        share::ROWS,
        transactions::ROWS,
        cluster::ROWS,
        tiered::ROWS,
        sasl::ROWS,
        tls::ROWS,
        own::ROWS,
    ];
    sorted(tables.into_iter().flatten())
});

static TOPIC: LazyLock<Vec<&'static ConfigKey>> = LazyLock::new(|| sorted(topic::ROWS.iter()));

fn sorted(rows: impl Iterator<Item = &'static ConfigKey>) -> Vec<&'static ConfigKey> {
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by_key(|row| row.name);
    rows
}

/// All broker keys, by name.
pub fn broker_keys() -> &'static [&'static ConfigKey] {
    &BROKER
}

/// All topic keys, by name.
pub fn topic_keys() -> &'static [&'static ConfigKey] {
    &TOPIC
}

/// The broker key of a name.
pub fn broker_key(name: &str) -> Option<&'static ConfigKey> {
    find(&BROKER, name)
}

/// The topic key of a name.
pub fn topic_key(name: &str) -> Option<&'static ConfigKey> {
    find(&TOPIC, name)
}

fn find(rows: &[&'static ConfigKey], name: &str) -> Option<&'static ConfigKey> {
    rows.binary_search_by_key(&name, |row| row.name).ok().map(|index| rows[index])
}
