//! A rewrite takes the place of a run of sealed segments: for compaction, and where small segments are joined.
//!
//! ```text
//! build it beside ─► the other holders of the run fetch it ─► Replace ─► readers see it ─► the old files go
//! ```
//!
//! Until the `Replace` no chain lists it, so that a crash at any step leaves the old or the new. Whether a `Replace` whose
//! answer was lost was made is asked until somebody tells: the name of a rewrite is that of its run, and building another of
//! the same name would overwrite what the chain lists.

use std::sync::Arc;
use std::time::Duration;

use base::chain::{PartitionState, Rewrite, SegmentEntry, SegmentState};
use base::ids::{Generation, LeaderEpoch, Offset, SegmentId, StorageId, TimestampMs};
use bytes::Bytes;
use storage::{
    CompactionStats, Keep, NoTransactions, RewriteRequest, Rewritten, SegmentName, Storage, Throttle,
};

use crate::chain_store::ChainStoreError;
use crate::compaction::CompactionError;
use crate::log::{Derived, Held, Log};
use crate::stream::FetchRequest;
use crate::tail::Writable;

/// Time for another broker to fetch a rewrite.
const COPY_PATIENCE: Duration = Duration::from_secs(120);

/// Pause before the metadata store is asked again what became of an edit.
const ANSWER_PAUSE: Duration = Duration::from_secs(1);

/// What is to be rewritten as one segment.
pub(crate) struct Run<'a> {
    /// Sealed neighbours, oldest first.
    pub(crate) old: &'a [Held],
    /// Their entries.
    pub(crate) entries: &'a [SegmentEntry],
    /// What stays of them.
    pub(crate) keep: Keep,
    /// So many storages must hold the rewrite.
    pub(crate) copies_min: usize,
    /// What the edit says of compaction.
    pub(crate) compacted_to: Offset,
    /// The epoch in which this broker leads.
    pub(crate) leader_epoch: LeaderEpoch,
}

impl<S: Derived> Log<S> {
    /// Rewrites neighbours as one segment and puts it in their place.
    pub(crate) async fn rewrite_run(
        self: &Arc<Self>,
        run: Run<'_>,
        throttle: &Throttle,
    ) -> Result<CompactionStats, CompactionError> {
        let Run { old, entries, keep, copies_min, compacted_to, leader_epoch } = run;
        let name = self.name_of_rewrite(entries);
        let request = RewriteRequest {
            run: old.iter().map(|held| held.segment.clone()).collect(),
            name: name.clone(),
            keep,
        };
        let Rewritten { info, stats } = storage::rewrite(request, Box::new(NoTransactions), throttle).await?;
        let storage = old[0].storage.clone();
        let fetch = FetchRequest {
            name: name.clone(),
            storage: storage.id(),
            sealed: info,
            source: storage.id(),
            epoch: leader_epoch,
            snapshot: self.state_at(&old[0]).await,
        };
        let replicas = self.copy_rewrite(fetch, entries).await;
        let have = replicas.len();
        if have < copies_min {
            self.remove_rewrite(storage, name).await;
            return Err(CompactionError::TooFewCopies { have, need: copies_min });
        }
        let state = SegmentState::Sealed { end: info.end, crc: info.crc, bytes: info.bytes, replicas };
        let rewrite = Rewrite {
            old: entries.iter().map(|entry| (entry.id, entry.generation)).collect(),
            new: rewritten_entry(entries, name.generation, state),
            compacted_to,
            leader_epoch: Some(leader_epoch),
        };
        if let Err(error) = self.replace(rewrite, stats.next_horizon_ms).await {
            // Listed nowhere, unless nobody told: then the chain is read anew before it is opened.
            if matches!(error, ChainStoreError::Refused(_) | ChainStoreError::UnknownPartition) {
                self.remove_rewrite(storage, name).await;
            }
            return Err(error.into());
        }
        Ok(stats)
    }

    /// What is known of the state at a segment's base, for other brokers.
    async fn state_at(&self, first: &Held) -> Option<Bytes> {
        self.spec.peers.as_ref()?;
        let (first, base) = (first.clone(), first.base());
        let snapshot = self.spec.env.blocking(move || first.storage.base_snapshot(&first.segment)).await;
        // Below the first offset there is nothing to know.
        snapshot.filter(|snapshot| base > 0 || !snapshot.is_empty())
    }

    async fn remove_rewrite(&self, storage: Arc<Storage>, name: SegmentName) {
        let removed = self.spec.env.blocking(move || storage.remove(&name)).await;
        if let Err(error) = removed {
            tracing::warn!(partition = %self.partition(), %error, "a rewrite that nobody lists is not removed yet");
        }
    }

    /// Has the other brokers that hold all of what was rewritten fetch the rewrite, which takes its place. Returns who has
    /// it, the own storage first; others get it later as they get any sealed segment.
    async fn copy_rewrite(&self, fetch: FetchRequest, entries: &[SegmentEntry]) -> Vec<StorageId> {
        let own = fetch.source;
        let Some(peers) = &self.spec.peers else { return vec![own] };
        let SegmentState::Sealed { replicas, .. } = &entries[0].state else { return vec![own] };
        let holds_all = |storage: &StorageId| entries.iter().all(|entry| entry.is_on(*storage));
        let others = replicas.iter().copied().filter(|storage| *storage != own && holds_all(storage));
        let fetches = others.filter_map(|storage| Some((storage, peers.candidates.home(storage)?)));
        let fetches =
            fetches.map(|(storage, broker)| (storage, broker, FetchRequest { storage, ..fetch.clone() }));
        let fetches = fetches.map(|(storage, broker, fetch)| async move {
            let fetched = peers.links.have_fetched(broker, fetch, COPY_PATIENCE).await;
            if let Err(error) = &fetched {
                tracing::warn!(partition = %self.partition(), %broker, %error, "a rewrite is not copied yet");
            }
            fetched.is_ok().then_some(storage)
        });
        let copied = futures::future::join_all(fetches).await;
        std::iter::once(own).chain(copied.into_iter().flatten()).collect()
    }

    fn name_of_rewrite(&self, entries: &[SegmentEntry]) -> SegmentName {
        let latest = entries.iter().map(|entry| entry.generation.0).max().unwrap_or(0);
        SegmentName {
            topic: self.spec.topic.clone(),
            partition: self.partition(),
            id: entries[0].id,
            generation: Generation(latest + 1),
            base: entries[0].base,
        }
    }

    /// Edits the chain and shows it, in a task of its own: who compacts may be given up in between.
    async fn replace(
        self: &Arc<Self>,
        rewrite: Rewrite,
        horizon_ms: Option<TimestampMs>,
    ) -> Result<(), ChainStoreError> {
        let log = self.clone();
        let new = (rewrite.new.id, rewrite.new.generation);
        let edit = tokio::spawn(async move {
            let state = log.replace_surely(&rewrite).await?;
            let listed: std::collections::HashSet<_> =
                state.chain.iter().map(|entry| (entry.id, entry.generation)).collect();
            let mut horizons = log.horizons.lock();
            horizons.retain(|name, _| listed.contains(name));
            horizons.extend(horizon_ms.map(|horizon| (new, horizon)));
            Ok(())
        });
        edit.await.unwrap_or_else(|_| Err(ChainStoreError::Unavailable("the broker ends".into())))
    }

    /// Edits the chain and shows it; asks again where the answer was lost, as long as this broker leads.
    async fn replace_surely(
        self: &Arc<Self>,
        rewrite: &Rewrite,
    ) -> Result<Arc<PartitionState>, ChainStoreError> {
        loop {
            {
                let _edit = self.edits.lock().await;
                let made = match self.spec.store.replace(self.partition(), rewrite.clone()).await {
                    Err(error @ ChainStoreError::Refused(_)) => {
                        // It may have been made, and a copy of it come or gone, before it was asked for again.
                        self.spec
                            .store
                            .partition(self.partition())
                            .filter(|state| lists(state, &rewrite.new))
                            .ok_or(error)
                    }
                    made => made,
                };
                match made {
                    Ok(state) => {
                        // A later leader's chain is not this log's.
                        if Some(state.leader_epoch) == rewrite.leader_epoch {
                            self.show(state.clone(), None);
                        }
                        return Ok(state);
                    }
                    Err(ChainStoreError::Unavailable(_)) if !self.has_ended() => {}
                    Err(error) => return Err(error),
                }
            }
            self.spec.env.clock.sleep(ANSWER_PAUSE).await;
        }
    }
}

impl<S> Log<S> {
    /// Whether it takes no appends any more.
    fn has_ended(&self) -> bool {
        matches!(self.tail.lock().writable, Writable::Never(_))
    }
}

fn lists(state: &PartitionState, new: &SegmentEntry) -> bool {
    let name: (SegmentId, Generation) = (new.id, new.generation);
    state.chain.iter().any(|entry| (entry.id, entry.generation) == name)
}

/// The chain's entry for a rewrite of `run`: every epoch that has a start in it keeps that start.
fn rewritten_entry(run: &[SegmentEntry], generation: Generation, state: SegmentState) -> SegmentEntry {
    let mut epochs = run[0].epochs.clone();
    for (epoch, start) in run[1..].iter().flat_map(|entry| &entry.epochs) {
        if epochs.last().is_none_or(|(last, _)| epoch > last) {
            epochs.push((*epoch, *start));
        }
    }
    SegmentEntry {
        generation,
        epochs,
        state,
        unclean: run.iter().any(|entry| entry.unclean),
        ..run[0].clone()
    }
}
