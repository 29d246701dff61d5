//! Kafka request handling: connections, dispatch, one file per API key, partitions.

mod api;
mod broker;
mod chain_store;
mod compaction;
mod configs;
mod dispatch;
mod groups;
mod keeper;
mod memory;
pub mod net;
mod partition;
mod partitions;
mod producer_ids;
mod session;
mod status;
mod strays;
mod topics;
mod turns;

pub use broker::{Broker, BrokerParts, StartError};
pub use dispatch::compat_markdown;
pub use status::{BrokerStatus, DirectoryStatus};
