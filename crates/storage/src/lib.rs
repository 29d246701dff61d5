//! One node's disk: segment files, sparse index, group fsync, recovery, compaction.
//!
//! ```text
//!  Storage (one log directory) ──► Segment (one offset range of one partition, one directory)
//!    sync rounds, handle pool,        append ─► one vectored write ─► end
//!    disk-full states, trash          request_sync ─► round ─► durable end ─► listener
//!                                     read, find_timestamp, checkpoint, seal
//! ```
//!
//! It speaks bytes, batches and offsets, never Kafka requests, and knows nothing of chains: which
//! segments exist and where they end is told by the layer above ([`Storage::load`]), except for the
//! one segment that was open when the process died, whose end is found out ([`Storage::recover`]).
//!
//! Invariants:
//! - what [`Segment::durable_end`] covers survives power loss, in order and once;
//! - after any failed write or sync the whole storage refuses writes for good and syncing is never
//!   retried; reads go on;
//! - a torn tail is cut, damage is reported and never cut, and the two are told apart as far as bytes
//!   can tell (the head of `recover.rs` says how);
//! - memory is bounded by the number of segments (below 1 KiB each when idle), file handles by
//!   [`StorageOptions::open_files_max`]; nothing is mapped into memory.
//!
//! A durability class is no property of a segment: of class *fsync* is what [`Storage::request_sync`]
//! is called for, of class *page-cache* what it is not.
//!
//! What it does not do: decide what to keep, replicate, cache record bytes (the page cache does).

mod building;
mod checkpoint;
mod compact;
mod crc;
mod error;
mod format;
mod handles;
mod import;
mod index;
mod journal;
mod keeper;
mod layout;
mod read;
mod recover;
mod scan;
mod segment;
mod space;
mod storage;
mod sync;

pub use compact::{
    BatchFate, CompactionRules, CompactionStats, Keep, KeyIndexer, LiveProducer, NoTransactions,
    OFFSET_MAP_ENTRY_BYTES, OffsetMap, RewriteRequest, Rewritten, SegmentExtent, Throttle, TransactionView,
    group_segments, rewrite,
};
pub use error::{Corruption, StorageError};
pub use import::Import;
pub use keeper::Scan;
pub use layout::SegmentName;
pub use read::ReadSlice;
pub use scan::Patience;
pub use segment::{Batch, DurableListener, SealedInfo, Segment, Verification};
pub use space::{SpaceLimits, StorageState};
pub use storage::{CreateSegment, Recovered, Replay, Storage, StorageOptions};
