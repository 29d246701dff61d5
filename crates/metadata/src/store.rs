//! The trait in front of every metadata store.

use std::sync::Arc;

use base::env::BoxFuture;
use tokio::sync::watch;

use crate::command::{Command, CommandResult};
use crate::image::Image;

/// Why a command was not applied, as far as is known.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// The store has shut down or failed; the command may or may not have been applied.
    #[error("the metadata store is not available: {0}")]
    Unavailable(String),
}

/// Holds the metadata and applies commands to it, one after the other.
pub trait MetadataStore: Send + Sync {
    /// The metadata now. Shows at least every command answered before the call.
    fn image(&self) -> Arc<Image>;

    /// Applies a command durably. It is applied even if the future is dropped.
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<CommandResult, ProposeError>>;

    /// Every image from now on; a slow reader sees only the newest.
    fn subscribe(&self) -> watch::Receiver<Arc<Image>>;

    /// Ends the store's tasks; all that was answered is durable.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}
