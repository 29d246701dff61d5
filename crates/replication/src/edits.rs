//! Edits at the head of a log: retention and DeleteRecords.
//!
//! The leader decides, the metadata store decides durably, then readers see it and files go
//! (replication.md 2.14). The log start never goes back.

use std::sync::Arc;

use base::ids::{Offset, TimestampMs};

use crate::chain_store::ChainStoreError;
use crate::log::{AppendError, Derived, Log};
use crate::retention::{Aged, Limits, expired_head};

/// Why records were not deleted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TrimError {
    /// Only committed records can be deleted.
    #[error("offset {asked} is outside [0, {high_watermark}]")]
    OutOfRange {
        /// Offset asked for.
        asked: Offset,
        /// End of what may be deleted.
        high_watermark: Offset,
    },
    /// The chain could not be edited.
    #[error(transparent)]
    Chain(#[from] ChainStoreError),
    /// The open segment could not be ended.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl<S: Derived> Log<S> {
    /// Deletes the records before `start` (DeleteRecords): raises the log start and drops whole
    /// segments below it. Returns the log start then.
    ///
    /// # Errors
    /// [`TrimError`].
    pub async fn trim(self: &Arc<Self>, start: Offset) -> Result<Offset, TrimError> {
        let high_watermark = self.high_watermark();
        if start < 0 || start > high_watermark {
            return Err(TrimError::OutOfRange { asked: start, high_watermark });
        }
        if start <= self.log_start() {
            return Ok(self.log_start());
        }
        // Records that power loss may still take cannot be deleted for good: later ones would get their offsets.
        let open = self.view.load().segments.last().cloned();
        if let Some(open) = open.filter(|open| open.durable_end() < start) {
            self.sync(&open).await?;
        }
        // An own task: who asked may go away between the edit and its showing.
        let log = self.clone();
        let edit = tokio::spawn(async move {
            let _edit = log.edits.lock().await;
            let state = log.spec.store.trim(log.partition(), start).await?;
            let log_start = state.log_start;
            log.show(state, None);
            Ok(log_start)
        });
        edit.await.unwrap_or(Err(TrimError::Append(AppendError::Closed)))
    }

    /// Drops the expired head of the log, as `retention.ms` and `retention.bytes` say. Returns how many
    /// segments went.
    ///
    /// # Errors
    /// [`TrimError`].
    pub async fn retain(self: &Arc<Self>, now_ms: TimestampMs) -> Result<usize, TrimError> {
        let settings = self.settings();
        // An edit that nobody can make would only keep appends waiting.
        if !settings.delete || !self.spec.store.takes_edits() {
            return Ok(0);
        }
        let limits =
            Limits { retention_ms: settings.retention_ms, retention_bytes: settings.retention_bytes };
        let aged = self.aged()?;
        let Some(start) = expired_head(&aged, limits, self.high_watermark(), now_ms) else {
            return Ok(0);
        };
        let whole_log = aged.last().is_some_and(|last| last.bytes > 0 && last.end == start);
        if whole_log {
            self.roll_now().await?;
        }
        self.trim(start).await?;
        Ok(aged.iter().take_while(|segment| segment.end <= start).count())
    }

    fn aged(&self) -> Result<Vec<Aged>, AppendError> {
        let view = self.view.load();
        let age = |segment: &crate::log::Held| {
            // Records without timestamps are as old as the file.
            let timestamp_ms = segment.max_timestamp()?.or_else(|| segment.modified_ms()).unwrap_or(-1);
            Ok(Aged { end: segment.end(), bytes: segment.bytes(), timestamp_ms })
        };
        view.segments.iter().map(age).collect()
    }

    /// Gives the log up: no appends any more, and who waits is told so. For deleted topics.
    pub fn abandon(&self) {
        self.resign();
    }
}
