//! Whole brokers in simulated time, one or several, and clients that speak in raw frames.

mod cluster;
mod coalescing;
mod crowding;
mod cut_off;
#[path = "support/cuts.rs"]
mod cuts;
mod debounce;
mod handover;
mod leaders;
mod life;
mod many_names;
#[path = "support/cluster.rs"]
mod members;
mod memory;
mod moving;
mod nearest;
mod numbers;
mod reassignment;
mod scrub;
mod stale_producers;
mod support;
