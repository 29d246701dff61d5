//! The own copy of a partition's open segment, for a broker that is about to lead it; and what others ask it to fetch.

use std::sync::{Arc, Weak};

use base::ids::{BrokerId, Offset};
use bytes::Bytes;
use storage::{Patience, SealedInfo, Segment, SegmentName, StorageError};

use super::message::{Create, FenceRequest, FenceResult, FetchRequest, PushKind, Refusal};
use super::push::PushSource;
use super::replicas::{Fenced, NotTaken, Replicas, Target, of_failed};
use crate::hydrate::{FetchError, Wanted, fetch_unless};
use crate::peers::Peers;

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

impl Replicas {
    /// Who the other brokers are: what they ask to be fetched is fetched through them.
    pub fn set_peers(&self, peers: &Arc<Peers>) {
        // Said once, when both are made.
        let _ = self.peers.set(Arc::downgrade(peers));
    }

    /// Waits until nobody fetches the segment; until what is returned is dropped, nobody else does.
    pub(crate) async fn importing(&self, name: &SegmentName) -> Importing<'_> {
        loop {
            let ended = self.import_ended.notified();
            let mut ended = std::pin::pin!(ended);
            ended.as_mut().enable();
            if self.imports.lock().insert(name.clone()) {
                return Importing { replicas: self, name: name.clone() };
            }
            ended.await;
        }
    }

    /// Fetches a sealed segment that no chain lists yet from the broker that asks for it, unless a later leader was promised
    /// to be followed.
    ///
    /// # Errors
    /// Why it is not there.
    pub(super) async fn fetch_from(&self, broker: BrokerId, fetch: FetchRequest) -> Result<(), String> {
        let FetchRequest { name, storage, sealed, source, epoch, snapshot } = fetch;
        let partition = name.partition;
        let promised = || self.promised(partition).filter(|promised| *promised > epoch);
        if let Some(promised) = promised() {
            return Err(FetchError::Superseded(promised).to_string());
        }
        let peers = self.peers.get().and_then(Weak::upgrade).ok_or("the broker ends")?;
        let to = self.spec.storages.iter().find(|own| own.id() == storage).cloned();
        let to = to.ok_or("the storage is not on this broker")?;
        let (env, sources) = (&self.spec.env, vec![(broker, source)]);
        let wanted = Wanted { env, name, sealed, sources, to, throttle: None };
        fetch_unless(&peers, &wanted, snapshot, promised).await.map_err(|error| error.to_string())
    }
}

/// A segment that is being fetched.
pub(crate) struct Importing<'a> {
    replicas: &'a Replicas,
    name: SegmentName,
}

impl Drop for Importing<'_> {
    fn drop(&mut self) {
        self.replicas.imports.lock().remove(&self.name);
        self.replicas.import_ended.notify_waiters();
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
