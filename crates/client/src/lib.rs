//! A small Kafka client for our own tools and tests, over the [`base::env`] door so that it also runs in
//! the simulator.
//!
//! ```text
//! Client ── metadata, coordinators, retries ── Connections ── Connection (pipelined, one task each)
//!   ├── admin calls: topics, partitions, configs, records, groups, offsets
//!   ├── Producer: one sender task per partition, batches, idempotence, order kept over retries
//!   ├── Consumer: fetches from explicit positions
//!   └── GroupConsumer: a Consumer whose partitions and positions come from a classic group
//! ```
//!
//! It speaks only the Kafka protocol and knows nothing of our internals, so it works against any broker
//! since Apache Kafka 2.1. Every queue and buffer has a bound, named in [`ClientConfig`],
//! [`ProducerConfig`], [`ConsumerConfig`] or beside its user.
//!
//! What it does not do: TLS and SASL, transactions, fetch sessions, the group protocol of KIP-848, message
//! formats before version 2.

pub mod admin;
mod cluster;
mod config;
mod connection;
mod consumer;
mod error;
mod group;
mod metadata;
mod pool;
mod producer;
mod trouble;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use cluster::Client;
pub use config::ClientConfig;
pub use connection::{Answer, Connection, PendingAnswer};
pub use consumer::{ConsumedRecord, Consumer, ConsumerConfig, Isolation, Start};
pub use error::{ClientError, Result, io_text};
pub use group::{GroupConfig, GroupConsumer};
pub use metadata::{BrokerAddress, ClusterMetadata, PartitionMetadata, PartitionName, TopicMetadata, Topics};
pub use pool::Connections;
pub use producer::{Acks, Delivery, Placed, Producer, ProducerConfig, ProducerRecord, partition_of_key};
pub use trouble::Trouble;
