//! Fetches a sealed segment from another broker that has it.
//!
//! The receiver pulls, at its own pace; any broker that has the segment will do, and what came is compared with what was
//! sealed before it is put in its place (replication.md 2.13).

use std::sync::Arc;
use std::time::Duration;

use base::batch::Batches;
use base::env::Env;
use base::ids::{BrokerId, LeaderEpoch, Offset, StorageId};
use bytes::Bytes;
use storage::{Import, SealedInfo, SegmentName, Storage, StorageError, Throttle};

use crate::peers::Peers;
use crate::stream::{LinkError, PULL_BYTES_MAX, PullRequest, PullResult};

/// Time for one piece.
const PULL_PATIENCE: Duration = Duration::from_secs(10);

/// Why a segment was not fetched.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody who has it is there.
    #[error("no broker that has the segment answers")]
    NoSource,
    /// A broker that should have it gives nothing, or something else.
    #[error("broker {0} does not give it: {1}")]
    Source(BrokerId, String),
    /// Who asked for it leads no more.
    #[error("epoch {0} was promised to another leader")]
    Superseded(LeaderEpoch),
    /// The own storage does not take it.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What is to be fetched, and where to.
pub struct Wanted<'a> {
    /// The world.
    pub env: &'a Env,
    /// The segment's name.
    pub name: SegmentName,
    /// How it was sealed.
    pub sealed: SealedInfo,
    /// Brokers that have it, with the storage it is on.
    pub sources: Vec<(BrokerId, StorageId)>,
    /// The own storage.
    pub to: Arc<Storage>,
    /// What bounds its pace; nothing where somebody waits for it.
    pub throttle: Option<&'a Throttle>,
}

/// Fetches a segment.
///
/// # Errors
/// [`FetchError`], of the last source that was asked.
pub async fn fetch_segment(peers: &Peers, wanted: &Wanted<'_>) -> Result<(), FetchError> {
    fetch_unless(peers, wanted, None, || None).await
}

/// As [`fetch_segment`], unless another leader was promised to be followed when its turn comes; with the state at the
/// segment's base.
pub(crate) async fn fetch_unless(
    peers: &Peers,
    wanted: &Wanted<'_>,
    snapshot: Option<Bytes>,
    superseded: impl Fn() -> Option<LeaderEpoch>,
) -> Result<(), FetchError> {
    // A take-over and a repair may want the same one: the second finds what the first has brought.
    let _turn = peers.replicas.importing(&wanted.name).await;
    if let Some(epoch) = superseded() {
        return Err(FetchError::Superseded(epoch));
    }
    let SealedInfo { end, bytes, crc } = wanted.sealed;
    if wanted.to.holds(&wanted.name) {
        let there = wanted.to.load(wanted.name.clone(), end, bytes, crc);
        // A leader that was replaced may have gone on and sealed it at an end of its own.
        if wanted.env.blocking(move || there.verify().and_then(|()| there.cut_rest())).await.is_ok() {
            return Ok(());
        }
    }
    let mut last = FetchError::NoSource;
    for source in &wanted.sources {
        match fetch_from(peers, wanted, snapshot.clone(), *source).await {
            Ok(()) => return Ok(()),
            Err(error @ FetchError::Storage(StorageError::NoSpace { .. } | StorageError::Failed { .. })) => {
                return Err(error);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn fetch_from(
    peers: &Peers,
    wanted: &Wanted<'_>,
    snapshot: Option<Bytes>,
    (broker, storage): (BrokerId, StorageId),
) -> Result<(), FetchError> {
    let (env, sealed) = (wanted.env, wanted.sealed);
    let (to, name) = (wanted.to.clone(), wanted.name.clone());
    let mut import = env.blocking(move || Import::begin(&to, name, sealed)).await?;
    let mut from = wanted.name.base;
    while from < sealed.end {
        let pull = PullRequest {
            name: wanted.name.clone(),
            storage,
            sealed: Some(sealed),
            from,
            max_bytes: PULL_BYTES_MAX as u32,
        };
        let bytes = match peers.links.pull(broker, pull, PULL_PATIENCE).await {
            Ok(PullResult::Bytes(bytes)) => bytes,
            Ok(PullResult::NotHere) => return Err(FetchError::Source(broker, "it has none".to_owned())),
            Ok(PullResult::Unknown) => {
                return Err(FetchError::Source(broker, "it cannot tell what it has".to_owned()));
            }
            Ok(PullResult::Failed(reason)) => return Err(FetchError::Source(broker, reason)),
            Err(LinkError::TimedOut { .. } | LinkError::Closed) => return Err(FetchError::NoSource),
            Err(error) => return Err(FetchError::Source(broker, error.to_string())),
        };
        // A segment that was compacted may end in offsets without records.
        let Some(next) = end_of(&bytes) else { break };
        from = next;
        if let Some(throttle) = wanted.throttle {
            throttle.pay(bytes.len() as u64).await;
        }
        import = env
            .blocking(move || {
                import.append(&bytes)?;
                Ok::<_, StorageError>(import)
            })
            .await?;
    }
    env.blocking(move || import.finish(snapshot)).await?;
    Ok(())
}

/// Offset after the last of whole batches; `None` for none.
fn end_of(bytes: &Bytes) -> Option<Offset> {
    Batches::new(bytes).filter_map(Result::ok).last().map(|batch| batch.next_offset())
}
