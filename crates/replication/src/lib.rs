//! One log as a chain of segments: the tail and its owner, the committed end, and the edits that roll,
//! trim and rewrite.
//!
//! A leader pushes its open segment to the other members of the ensemble ([`stream`]); a record is committed when all
//! of them hold it ([`protocol`]). On one node the ensemble is the own storage (replication.md 2.20). It knows no Kafka semantics: what is derived from records
//! (producer state) is a parameter of [`Log`], and the chain is edited through [`ChainStore`].

pub mod balance;
mod barrier;
mod chain_store;
mod coalescing;
mod commit;
mod compaction;
mod edits;
mod hydrate;
mod led;
mod log;
mod pace;
mod peers;
pub mod placement;
pub mod protocol;
mod retention;
mod rewriting;
mod salvage;
pub mod stream;
mod tail;
mod takeover;

pub use chain_store::{ChainStore, ChainStoreError};
pub use coalescing::{CHAIN_LENGTH_MAX, Coalesced, JoinLimits, Piece, SAVED_MIN, joins};
pub use commit::{CommitError, Committed, ReadWaiter};
pub use compaction::{Compacted, CompactionBudget, CompactionError, Dirt};
pub use edits::TrimError;
pub use hydrate::{FetchError, Wanted as WantedSegment, fetch_segment};
pub use led::OwnPace;
pub use log::{AppendError, Derived, Log, LogSpec, ReadError};
pub use peers::{Candidates, Peers};
pub use retention::{Aged, Limits, expired_head};
pub use storage::{
    LiveProducer, Patience, SealedInfo, SegmentName, Storage, StorageError, StorageOptions, StorageState,
    Throttle, Verification,
};
pub use tail::{Append, SEGMENT_BYTES_MAX, TailGuard, TailState, Wait};
pub use takeover::{TakeOverError, must_take_over, take_over};
