//! The chain of a partition whose leader was elected uncleanly (replication.md 2.9): nobody is left who surely holds all
//! that was committed, so it ends where the best of the copies does that are left.
//!
//! ```text
//!  sealed, somebody has it │ sealed, nobody has it │ open, nobody is sure
//! ─────────────────────────┼──────────────────┬────┼──────────
//!          stays           │  the best copy   │ lost
//! ```
//!
//! Records beyond are lost, and the chain says so. Whoever held them cuts or removes them when it comes back: its copy is
//! longer than what was sealed, or of a segment that no chain lists.
//!
//! Where a member of the open segment is sure and segments before are lost, nothing is cut, and the chain begins behind those.

use base::chain::{PartitionState, Seal, SegmentEntry, SegmentState};
use base::ids::{BrokerId, Offset, StorageId};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::sync::Arc;
use storage::SealedInfo;

use crate::stream::{Create, FenceResult, PushKind};
use crate::takeover::{FENCE_PATIENCE, TakeOver, TakeOverError};

/// A copy that is left.
#[derive(Clone, Copy, Debug)]
struct Left {
    broker: BrokerId,
    storage: StorageId,
    end: Offset,
}

impl TakeOver<'_> {
    /// Ends the chain where the best copy does, and opens the next segment. Returns the partition then.
    ///
    /// # Errors
    /// [`TakeOverError`]; unless another leader was elected it may be tried again.
    pub(crate) async fn salvage(&self) -> Result<Arc<PartitionState>, TakeOverError> {
        let entry = self.first_lost();
        let best = self.best_copy(entry).await?;
        let own = self.own_storage(&best).ok_or(TakeOverError::NotMember)?;
        let end = best.map_or(entry.base, |best| best.end);
        let kept = best.filter(|_| end > entry.base.max(self.state.log_start));
        let sealed = match kept {
            Some(best) => self.keep(entry, own, best).await?,
            None => SealedInfo { end, bytes: 0, crc: 0 },
        };
        let ensemble = self.spec.ensemble(self.state, &[]).unwrap_or_default();
        if ensemble.is_empty() {
            return Err(TakeOverError::TooFewCopies { have: 0, need: 1 });
        }
        let SealedInfo { end, bytes, crc } = sealed;
        let (segment, leader_epoch) = (entry.id, self.epoch);
        let seal = Seal { segment, leader_epoch, end, crc, bytes, holders: vec![own], unclean: true };
        let state = self.spec.store.seal_and_open(self.spec.partition, seal, ensemble).await?;
        tracing::warn!(
            topic = &*self.spec.topic,
            partition = self.spec.partition.partition.0,
            epoch = self.epoch.0,
            offset = state.last().base,
            "an unclean election: records from this offset on that were acknowledged may be lost"
        );
        Ok(state)
    }

    /// Where the open segment is sure and older ones are lost: has the partition begin behind those, because readers go on
    /// from an offset, and none would come across a gap. Does nothing without leave to lose records.
    ///
    /// # Errors
    /// [`TakeOverError`]; it may be tried again.
    pub(crate) async fn leave_lost_behind(&self) -> Result<(), TakeOverError> {
        let lost = self.state.chain.iter().rfind(|entry| !entry.is_open() && self.is_lost(entry));
        let Some(start) = lost.filter(|_| self.state.unclean).and_then(SegmentEntry::end) else {
            return Ok(());
        };
        self.spec.store.trim(self.spec.partition, start).await?;
        tracing::warn!(
            topic = &*self.spec.topic,
            partition = self.spec.partition.partition.0,
            epoch = self.epoch.0,
            offset = start,
            "an unclean election: records before this offset are lost with the brokers that had them"
        );
        Ok(())
    }

    /// The first segment that nobody who lives surely has all of.
    fn first_lost(&self) -> &SegmentEntry {
        self.state.chain.iter().find(|entry| self.is_lost(entry)).unwrap_or(self.state.last())
    }

    fn is_lost(&self, entry: &SegmentEntry) -> bool {
        match &entry.state {
            SegmentState::Open { .. } => true,
            SegmentState::Sealed { replicas, .. } => {
                !replicas.iter().any(|storage| self.peers.candidates.home(*storage).is_some())
            }
        }
    }

    /// Storages of brokers that live which may hold a part of the partition.
    fn storages_left(&self) -> Vec<(BrokerId, StorageId)> {
        let candidates = &self.peers.candidates;
        let listed = self.state.chain.iter().flat_map(|entry| match &entry.state {
            SegmentState::Open { ensemble } => ensemble.iter().map(|member| member.storage).collect(),
            SegmentState::Sealed { replicas, .. } => replicas.clone(),
        });
        let listed = listed.filter_map(|storage| Some((candidates.home(storage)?, storage)));
        let others = candidates.alive().into_iter().map(|candidate| (candidate.broker, candidate.storage));
        let mut left: Vec<_> = listed.chain(others).collect();
        left.sort_unstable();
        left.dedup();
        left
    }

    /// The longest copy of a segment that is left, the own one of several.
    async fn best_copy(&self, entry: &SegmentEntry) -> Result<Option<Left>, TakeOverError> {
        let mut asked: FuturesUnordered<_> = self
            .storages_left()
            .into_iter()
            .map(async |(broker, storage)| (broker, storage, self.fence_copy(entry, broker, storage).await))
            .collect();
        let clock = &self.spec.env.clock;
        let deadline = clock.now() + FENCE_PATIENCE;
        let mut best: Option<Left> = None;
        loop {
            let (broker, storage, answer) = tokio::select! {
                biased;
                answered = asked.next() => match answered {
                    Some(answered) => answered,
                    None => return Ok(best),
                },
                () = clock.sleep_until(deadline) => return Ok(best),
            };
            match answer {
                Ok(FenceResult::Promised { answer, .. }) => {
                    let end = entry.end().map_or(answer.end, |end| answer.end.min(end));
                    let rank = |left: &Left| (left.end, left.broker == self.spec.broker);
                    let left = Left { broker, storage, end };
                    if best.as_ref().is_none_or(|best| rank(best) < rank(&left)) {
                        best = Some(left);
                    }
                }
                Ok(FenceResult::Fenced(epoch)) => return Err(TakeOverError::Superseded(epoch)),
                Ok(FenceResult::Unknown) => {}
                Err(error) => {
                    tracing::warn!(partition = %self.spec.partition, %broker, %error, "a copy cannot be asked for");
                }
            }
        }
    }

    /// The storage that the own copy is on, or goes to.
    fn own_storage(&self, best: &Option<Left>) -> Option<StorageId> {
        if let Some(best) = best.filter(|best| best.broker == self.spec.broker) {
            return Some(best.storage);
        }
        let own = self.storages_left().into_iter().find(|(broker, _)| *broker == self.spec.broker);
        own.map(|(_, storage)| storage)
    }

    /// Completes the own copy from the best one and ends it there.
    async fn keep(
        &self,
        entry: &SegmentEntry,
        storage: StorageId,
        best: Left,
    ) -> Result<SealedInfo, TakeOverError> {
        let create = Create {
            stream: 0,
            name: self.spec.segment_name(entry),
            storage,
            epoch: self.epoch,
            epochs: entry.epochs.clone(),
            incarnation: self.spec.incarnation,
            durability: self.spec.settings.durability,
            kind: PushKind::CopyUp,
            snapshot: Bytes::new(),
        };
        let own = self
            .peers
            .replicas
            .own_copy(create)
            .await
            .map_err(|refusal| TakeOverError::OwnCopy(refusal.to_string()))?;
        while own.end() < best.end {
            let bytes = self.pull((best.broker, best.storage), &own).await.map_err(TakeOverError::OwnCopy)?;
            if bytes.is_empty() {
                return Err(TakeOverError::OwnCopy(format!("broker {} has no more of it", best.broker)));
            }
            own.append(own.end(), &bytes).map_err(TakeOverError::OwnCopy)?;
        }
        Ok(own.seal_at(best.end).await?)
    }
}
