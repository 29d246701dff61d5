//! Tests of the crate as a whole: commands, the state machine, the stores.

mod commands;
mod faults;
mod followers;
mod group;
mod heartbeats;
mod identity;
mod joining;
mod machine;
mod records;
mod scale;
mod stores;

/// Runs a future on this thread with simulated time.
fn simulated<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime on this thread").block_on(future)
}
