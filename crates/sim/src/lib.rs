//! Whole brokers in one seeded thread. One alone ([`World`]): its disk loses power, its process is killed. A cluster of
//! them ([`cluster`]): machines, disks, links and clocks fail. Every record that was acknowledged is looked for afterwards.
//!
//! A run follows from its seed ([`base::env::sim`]): a failing seed is a test case. What it does not do: simulate the cost of
//! computing.

pub mod cluster;
mod connection;
mod journal;
mod producer;
mod trace;
mod world;

pub use connection::{Connection, decode};
pub use journal::Journal;
pub use producer::Producer;
pub use trace::Trace;
pub use world::{Life, World, run, seeds};
