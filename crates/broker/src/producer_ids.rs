//! Ids for idempotent producers: unique for ever, taken from the metadata store a block at a time.

use std::sync::Arc;

use base::error::ErrorCode;
use metadata::{Command, CommandResult, MetadataStore};

/// Ids reserved at once (Kafka's block size): what a crash wastes at most.
const BLOCK: i64 = 1_000;

/// See the module's head.
pub(crate) struct ProducerIds {
    store: Arc<dyn MetadataStore>,
    /// Next id and the end of the block. An async lock: whoever finds the block used up fetches the
    /// next while the others wait.
    block: tokio::sync::Mutex<(i64, i64)>,
}

impl ProducerIds {
    pub(crate) fn new(store: Arc<dyn MetadataStore>) -> ProducerIds {
        ProducerIds { store, block: tokio::sync::Mutex::new((0, 0)) }
    }

    /// An id nobody has.
    ///
    /// # Errors
    /// `COORDINATOR_NOT_AVAILABLE`, which makes clients ask again, when no block can be had.
    pub(crate) async fn next(&self) -> Result<i64, ErrorCode> {
        let mut block = self.block.lock().await;
        if block.0 == block.1 {
            let command = Command::AllocateProducerIds { count: BLOCK };
            match self.store.propose(command).await {
                Ok(CommandResult::FirstId(first)) => *block = (first, first + BLOCK),
                other => {
                    tracing::error!(?other, "no block of producer ids can be reserved");
                    return Err(ErrorCode::CoordinatorNotAvailable);
                }
            }
        }
        let id = block.0;
        block.0 += 1;
        Ok(id)
    }
}
