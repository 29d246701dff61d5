//! Kafka request handling: connections, dispatch, one file per API key, partitions.

mod api;
mod broker;
mod catch_up;
mod chain_store;
mod compaction;
mod configs;
mod controller;
mod dispatch;
mod elections;
mod following;
mod groups;
mod handover;
mod keeper;
mod liveness;
mod memory;
mod moving;
mod nearest;
pub mod net;
mod partition;
mod partitions;
mod peers;
mod probation;
mod producer_ids;
mod reassignments;
mod repair;
mod resigning;
mod room;
mod session;
mod status;
mod strays;
mod topics;
mod turns;

pub use broker::{Broker, BrokerParts, StartError};
pub use controller::{ControllerSpec, spawn_controller};
pub use dispatch::compat_markdown;
pub use status::{BrokerStatus, DirectoryStatus};
