//! Long stories in simulated time: faults, power cuts, and what must still be there.

mod cluster;
mod coalescing;
mod committed_offsets;
mod compaction;
mod idempotent_producers;
mod limbo;
mod log_directories;
mod metadata_failure;
mod power_loss;
mod topic_deletion;
mod trims;
