//! The own copy of a partition's open segment, for a broker that is about to lead it.

use std::sync::Arc;

use base::ids::Offset;
use bytes::Bytes;
use storage::{Patience, SealedInfo, Segment, SegmentName, StorageError};

use super::message::{Create, FenceRequest, FenceResult, PushKind, Refusal};
use super::push::PushSource;
use super::replicas::{Fenced, NotTaken, Replicas, Target, of_failed};

/// A copy on this broker that others are asked to complete, or complete themselves from.
pub(crate) struct OwnCopy {
    replicas: Arc<Replicas>,
    target: Target,
}

impl Replicas {
    /// Promises an epoch for the own copy and tells what it holds durably, as another broker would be told.
    pub(crate) async fn fence_own(self: &Arc<Self>, request: FenceRequest) -> FenceResult {
        match self.fence(request).await {
            Fenced::Now(result) => result,
            Fenced::Once(copy, result) => {
                copy.sync().await;
                of_failed(result, &copy.storage, Some(&copy))
            }
        }
    }

    /// The own copy of a segment, opened. It must be there: `create` names it, as a copy of no ensemble.
    ///
    /// # Errors
    /// What is told to a leader who is refused.
    pub(crate) async fn own_copy(self: &Arc<Self>, create: Create) -> Result<OwnCopy, Refusal> {
        debug_assert_eq!(create.kind, PushKind::CopyUp);
        match self.begin(create).await {
            Ok(target) => Ok(OwnCopy { replicas: self.clone(), target }),
            Err(NotTaken::Refused(refusal)) => Err(refusal),
            Err(NotTaken::Invalid(reason)) => {
                tracing::warn!(reason, "the own copy of a segment cannot be opened");
                Err(Refusal::StorageFailed)
            }
        }
    }
}

impl OwnCopy {
    /// Offset after its last record.
    pub(crate) fn end(&self) -> Offset {
        self.segment().end()
    }

    /// The file.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.target.copy.segment
    }

    /// Producer state at its base; `None` where nobody knows it any more.
    pub(crate) fn base_snapshot(&self) -> Option<Bytes> {
        self.target.copy.storage.base_snapshot(self.segment())
    }

    /// Appends whole batches that begin at its end.
    ///
    /// # Errors
    /// What is wrong with them, or with the storage.
    pub(crate) fn append(&self, from: Offset, bytes: &[u8]) -> Result<(), String> {
        match self.replicas.append(&self.target, from, bytes) {
            Ok(_) => Ok(()),
            Err(NotTaken::Refused(refusal)) => Err(refusal.to_string()),
            Err(NotTaken::Invalid(reason)) => Err(reason),
        }
    }

    /// Ends it at `end`, durably. Blocks meanwhile only where blocking is allowed.
    ///
    /// # Errors
    /// [`StorageError`].
    pub(crate) async fn seal_at(&self, end: Offset) -> Result<SealedInfo, StorageError> {
        let segment = self.segment().clone();
        let sealed = self.replicas.spec.env.blocking(move || segment.seal_at(end)).await?;
        if !self.target.copy.sync().await {
            return Err(StorageError::Failed { reason: "the copy cannot be synced".into() });
        }
        Ok(sealed)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &SegmentName {
        self.segment().name()
    }

    /// What others copy from.
    pub(crate) fn source(&self) -> Arc<dyn PushSource> {
        Arc::new(Whole(self.segment().clone()))
    }
}

/// A segment that does not grow.
struct Whole(Arc<Segment>);

impl PushSource for Whole {
    fn end(&self) -> Offset {
        self.0.end()
    }

    fn high_watermark(&self) -> Offset {
        self.0.base()
    }

    fn read(&self, from: Offset, max_bytes: usize, patience: Patience) -> Result<Bytes, StorageError> {
        self.0.read_with(patience, (from, self.0.end()), max_bytes, true).map(|slice| slice.bytes)
    }
}
