//! The real `vltava` process: killed under load, measured, pestered.
//!
//! Run by `cargo test --release -p cli --test process -- --test-threads=1
//! --nocapture`: in a release build and one after the other, because they measure time and memory. `VLTAVA_BINARY=path`
//! tests another binary than the one that was built with them.
//! `PROCESS_SEED=n` repeats the choices of a run whose output names that seed.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests stand outside of the process they look at"
)]

mod bench;
mod beside;
mod bystander;
mod chaos;
mod churn;
mod cluster;
mod compaction;
mod completion;
mod failover;
mod faults;
mod hostile;
mod idle;
mod inspect;
mod joining;
mod journal;
mod kills;
mod load;
mod memory;
mod moving;
mod partitions;
mod retries;
mod rudeness;
mod scale;
mod segments;
mod server;
mod slow;
mod start;
mod wires;

use std::future::Future;
use std::sync::OnceLock;

/// The binary to be tested.
fn binary() -> &'static str {
    static BINARY: OnceLock<String> = OnceLock::new();
    let built = || env!("CARGO_BIN_EXE_vltava").to_owned();
    BINARY.get_or_init(|| std::env::var("VLTAVA_BINARY").unwrap_or_else(|_| built()))
}

/// Runs a test on threads of its own.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads").block_on(test)
}
