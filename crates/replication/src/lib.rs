//! One log as a chain of segments: the tail and its owner, the committed end, and the edits that roll,
//! trim and rewrite.
//!
//! On one node the ensemble of every segment is the own storage; the words and formats are those of
//! many nodes (replication.md 2.20). It knows no Kafka semantics: what is derived from records
//! (producer state) is a parameter of [`Log`], and the chain is edited through [`ChainStore`].

mod chain_store;
mod commit;
mod compaction;
mod edits;
mod log;
pub mod placement;
pub mod protocol;
mod retention;
mod tail;

pub use chain_store::{ChainStore, ChainStoreError};
pub use commit::{CommitError, Committed, ReadWaiter};
pub use compaction::{Compacted, CompactionBudget, CompactionError, Dirt};
pub use edits::TrimError;
pub use log::{AppendError, Derived, Log, LogSpec, ReadError};
pub use retention::{Aged, Limits, expired_head};
pub use storage::{LiveProducer, Patience, Storage, StorageError, StorageOptions, StorageState, Throttle};
pub use tail::{Append, SEGMENT_BYTES_MAX, TailGuard, TailState};
