//! Kafka request handling: connections, dispatch, one file per API key, partitions

pub mod net;
mod session;
