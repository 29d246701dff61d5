//! Vocabulary every crate shares: ids, record batch, error codes, chain, config tables, metrics
//! and the door to the operating system. Imports nothing of ours.

pub mod batch;
pub mod chain;
pub mod config;
pub mod env;
pub mod error;
pub mod ids;
pub mod metrics;
