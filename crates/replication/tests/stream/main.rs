//! Streams between simulated brokers: seeded delays, resets and crashes.

mod failures;
mod network;
mod pushing;
mod real;
mod replicas;
mod world;
