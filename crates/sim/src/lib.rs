//! A whole broker in one seeded thread: its disk loses power, its process is killed, and every record it
//! acknowledged is looked for afterwards.
//!
//! A run follows from its seed ([`base::env::sim`]): a failing seed is a test case. What it does not do:
//! several nodes (there is one yet), or simulate the cost of computing.

mod connection;
mod journal;
mod producer;
mod world;

pub use connection::{Connection, decode};
pub use journal::Journal;
pub use producer::Producer;
pub use world::{Life, World, run, seeds};
