//! Where the chain lives: the one trait through which a leader edits it.
//!
//! The metadata store stands behind it in a broker, a map in tests. Every call is a compare-and-set
//! on the chain as the caller saw it; a refused one changes nothing.

use std::sync::Arc;

use base::chain::{ChainError, Member, PartitionState, Rewrite, Seal};
use base::env::BoxFuture;
use base::ids::{Offset, TopicPartition};

/// Why an edit did not happen, or may not have happened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChainStoreError {
    /// The edit does not fit the chain as it is now.
    #[error(transparent)]
    Refused(#[from] ChainError),
    /// The partition is not there any more: its topic was deleted.
    #[error("the partition does not exist")]
    UnknownPartition,
    /// Nobody can say whether the edit was made; the chain must be read anew.
    #[error("the metadata store did not answer: {0}")]
    Unavailable(String),
}

/// Edits the chain of a partition durably. Each call returns the partition as it is after the edit.
pub trait ChainStore: Send + Sync {
    /// Whether an edit asked for now would be made soon, as far as is known. Limits that an edit would keep are
    /// soft while it would not (replication.md 2.12). Waits for nothing.
    fn takes_edits(&self) -> bool;

    /// The partition as it is now; `None` when its topic was deleted.
    fn partition(&self, partition: TopicPartition) -> Option<Arc<PartitionState>>;

    /// Ends the open segment and opens the next one on `ensemble`.
    fn seal_and_open(
        &self,
        partition: TopicPartition,
        seal: Seal,
        ensemble: Vec<Member>,
    ) -> BoxFuture<'_, Result<Arc<PartitionState>, ChainStoreError>>;

    /// Raises the log start.
    fn trim(
        &self,
        partition: TopicPartition,
        start: Offset,
    ) -> BoxFuture<'_, Result<Arc<PartitionState>, ChainStoreError>>;

    /// Puts a rewrite in the place of a run of sealed segments.
    fn replace(
        &self,
        partition: TopicPartition,
        rewrite: Rewrite,
    ) -> BoxFuture<'_, Result<Arc<PartitionState>, ChainStoreError>>;
}
