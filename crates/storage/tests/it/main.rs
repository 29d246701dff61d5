//! The storage as the layer above uses it, on the simulated disk and on the real one.

mod common;
mod compaction;
mod cutting;
mod damage;
mod doubt;
mod full_disk;
mod journal;
mod kafka_dump;
mod power_loss;
mod reading;
mod segments;
mod syncing;
