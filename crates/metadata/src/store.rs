//! The trait in front of every metadata store.

use std::io;
use std::sync::Arc;

use base::env::{BoxFuture, Stream};
use base::ids::{BrokerId, Incarnation};

use crate::command::{Command, CommandResult};
use crate::image::Image;
use crate::sessions::Sessions;
use crate::watch;

/// Why a command was not applied, as far as is known.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// The store has shut down or failed; the command may or may not have been applied.
    #[error("the metadata store is not available: {0}")]
    Unavailable(String),
    /// The command is too long and was not applied.
    #[error("the command takes {bytes} bytes, more than the {COMMAND_BYTES_MAX} that one may take; split it")]
    TooLarge {
        /// Its encoded length.
        bytes: usize,
    },
    /// Too much waits for the disk; the command was not applied.
    #[error("too many commands wait for the metadata store's disk; try again later")]
    Busy,
}

/// Longest encoded command, bytes: what one request can make every reader of the log hold. A topic of
/// 100,000 partitions with three copies takes a third.
pub const COMMAND_BYTES_MAX: usize = 32 << 20;

/// Refuses a command whose encoding is too long.
pub(crate) fn check_length(encoded: &[u8]) -> Result<(), ProposeError> {
    match encoded.len() {
        bytes if bytes > COMMAND_BYTES_MAX => Err(ProposeError::TooLarge { bytes }),
        _ => Ok(()),
    }
}

/// The group of controllers at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuorumState {
    /// The active controller, if one is known.
    pub leader: Option<BrokerId>,
    /// Its term; `None` where it is not known.
    pub term: Option<u64>,
    /// Entries of the metadata log that were applied here.
    pub applied: u64,
    /// The controllers, in the order of their ids.
    pub voters: Vec<VoterState>,
}

/// One of the controllers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoterState {
    /// Its node.
    pub id: BrokerId,
    /// Where the others reach it, host and port; `None` for one that is alone.
    pub address: Option<String>,
    /// Entries of the metadata log that it has; `None` where that is not known.
    pub log_end: Option<u64>,
}

/// Holds the metadata and applies commands to it, one after the other.
pub trait MetadataStore: Send + Sync {
    /// The metadata now. Shows at least every command answered before the call.
    fn image(&self) -> Arc<Image>;

    /// Applies a command durably; commands are applied in the order of the calls. Once called, it is
    /// applied even if the future is dropped.
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<CommandResult, ProposeError>>;

    /// Every image from now on; a slow reader sees only the newest.
    fn subscribe(&self) -> watch::Receiver<Arc<Image>>;

    /// Why no command is applied at the moment, and what mends it; `None` when all is well. Waits for nothing.
    fn problem(&self) -> Option<String>;

    /// The active controller, as far as this node knows; the only one where there are no others.
    fn controller(&self) -> Option<BrokerId>;

    /// The group of controllers, as far as this node knows; all that there is to know where the active one is.
    fn quorum(&self) -> QuorumState;

    /// As [`MetadataStore::quorum`], with what the active controller says, if it does so within two seconds.
    fn ask_quorum(&self) -> BoxFuture<'_, QuorumState> {
        Box::pin(std::future::ready(self.quorum()))
    }

    /// Shows every controller that a life of a broker goes on. Cheap: for calls every few hundred ms. A store speaks for
    /// the broker of its own node; that one is named.
    ///
    /// # Errors
    /// [`ProposeError::Unavailable`] when fewer than a majority of the controllers heard it within a second; it is
    /// brought to the others as soon as they can be reached.
    fn heartbeat(
        &self,
        broker: BrokerId,
        incarnation: Incarnation,
    ) -> BoxFuture<'_, Result<(), ProposeError>>;

    /// Answers another node that dialled a port of this one's broker, and began with [`crate::NODE_MAGIC`], which was read:
    /// a node that is no controller learns of the metadata that way. Ends with the connection, or with the store.
    fn serve_node(&self, stream: Box<dyn Stream>) -> BoxFuture<'static, io::Result<()>>;

    /// What this node heard of brokers; `None` unless it is the active controller.
    fn sessions(&self) -> Option<Sessions>;

    /// Ends the store's tasks; all that was answered is durable.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}
