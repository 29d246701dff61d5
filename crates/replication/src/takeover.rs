//! A broker that was elected finds out where the segment of its predecessor ends, and opens the next one.
//!
//! ```text
//! promise the epoch ─► fence all members ─► decide the end ─► complete the own copy ─► copies for min.insync.replicas
//!        ─► seal the own copy ─► SealAndOpen
//! ```
//!
//! Where nobody can tell the end for sure, it waits for somebody who can, unless it was elected to do without
//! ([`crate::salvage`]).
//!
//! [`Recovery`] decides, this moves the bytes (replication.md 2.8). It is over before the log is opened: a log never has
//! records that it does not know to be committed below its open segment. Done again from the start after a failure,
//! which is harmless: promises stay, and an end that was decided twice may differ as long as nothing was sealed there.

use std::sync::Arc;
use std::time::Duration;

use base::chain::{Member, PartitionState, Seal, SegmentEntry, SegmentState};
use base::ids::{BrokerId, LeaderEpoch, Offset, StorageId};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use storage::{SealedInfo, StorageError};

use crate::chain_store::ChainStoreError;
use crate::log::LogSpec;
use crate::peers::Peers;
use crate::placement::{Draw, next_ensemble};
use crate::protocol::Recovery;
use crate::stream::{
    Create, FenceRequest, FenceResult, LinkError, OwnCopy, PULL_BYTES_MAX, PullRequest, PullResult, PushKind,
    PushTarget,
};

/// How long members are waited for that must answer.
pub(crate) const FENCE_PATIENCE: Duration = Duration::from_secs(5);
/// How long those are waited for that need not answer, once enough did.
const GRACE: Duration = Duration::from_millis(100);
/// Time for one piece of a segment, and for a copy of one.
const PULL_PATIENCE: Duration = Duration::from_secs(10);
const COPY_PATIENCE: Duration = Duration::from_secs(60);

/// Why a broker does not lead yet.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TakeOverError {
    /// Another one was elected after it.
    #[error("epoch {0} was promised to another leader")]
    Superseded(LeaderEpoch),
    /// Nobody can say where the segment ends.
    #[error(
        "{answered} of {members} members of the open segment answered with what they surely hold, too few to tell where it ends"
    )]
    Uncovered {
        /// Members that answered.
        answered: usize,
        /// All of them.
        members: usize,
        /// Storages that answered, and may have lost records.
        doubtful: Vec<StorageId>,
    },
    /// There would be too few copies.
    #[error("{have} brokers hold or can take the partition, {need} must (min.insync.replicas)")]
    TooFewCopies {
        /// How many there are.
        have: usize,
        /// How many it takes.
        need: usize,
    },
    /// This broker has no copy to lead from.
    #[error("this broker is no member of the open segment")]
    NotMember,
    /// Its own copy cannot be used, or not be completed.
    #[error("the own copy of the open segment cannot be used: {0}")]
    OwnCopy(String),
    /// The chain was not edited.
    #[error(transparent)]
    Chain(#[from] ChainStoreError),
}

impl From<StorageError> for TakeOverError {
    fn from(error: StorageError) -> TakeOverError {
        TakeOverError::OwnCopy(error.to_string())
    }
}

/// Whether the open segment of a partition, which the broker leads, must be taken over before its log can be opened:
/// another broker, another epoch or an earlier life of this one opened it, and others may hold more of it.
pub fn must_take_over(spec: &LogSpec, state: &PartitionState) -> bool {
    let SegmentState::Open { ensemble } = &state.last().state else { return false };
    if spec.peers.is_none() {
        return false;
    }
    let is_own_now = |member: &Member| (member.broker, member.incarnation) == (spec.broker, spec.incarnation);
    let is_own = |member: &Member| member.broker == spec.broker;
    let opened_now = ensemble.iter().any(is_own_now) && state.last().last_epoch() == state.leader_epoch;
    !opened_now && !ensemble.iter().all(is_own)
}

/// Seals the open segment where it ends and opens the next one, with this broker among its members. Returns the partition
/// then.
///
/// # Errors
/// [`TakeOverError`]; unless another leader was elected it may be tried again.
pub async fn take_over(spec: &LogSpec, state: &PartitionState) -> Result<Arc<PartitionState>, TakeOverError> {
    let peers = spec.peers.clone().ok_or(TakeOverError::NotMember)?;
    let epoch = state.leader_epoch;
    peers.replicas.promise(spec.partition, epoch).map_err(TakeOverError::Superseded)?;
    TakeOver { spec, state, peers, epoch }.run().await
}

pub(crate) struct TakeOver<'a> {
    pub(crate) spec: &'a LogSpec,
    pub(crate) state: &'a PartitionState,
    pub(crate) peers: Arc<Peers>,
    pub(crate) epoch: LeaderEpoch,
}

/// What became of the fences.
struct Asked {
    /// Brokers that did not answer with what they surely hold.
    silent: Vec<BrokerId>,
    /// Those of them that did not answer at all.
    mute: Vec<BrokerId>,
    /// Storages that answered, and may have lost records.
    doubtful: Vec<StorageId>,
}

impl TakeOver<'_> {
    async fn run(&self) -> Result<Arc<PartitionState>, TakeOverError> {
        let entry = self.state.last();
        let need = self.spec.copies_min(self.state);
        let closed = || TakeOverError::Chain(ChainStoreError::UnknownPartition);
        let mut recovery = Recovery::new(entry, self.epoch, need).ok_or_else(closed)?;
        let asked = self.fence_all(&mut recovery).await?;
        // What members lack of each other is what was under way when the leader went: little.
        let Some(decision) = recovery.decide(|_, _| true).cloned() else {
            let alive = self.peers.candidates.alive();
            let is_awaited = |broker: &BrokerId| alive.iter().any(|candidate| candidate.broker == *broker);
            if self.state.unclean && !asked.mute.iter().any(is_awaited) {
                return self.salvage().await;
            }
            return Err(self.uncovered(asked));
        };
        self.leave_lost_behind().await?;
        let silent = asked.silent;
        let sealed = if decision.end == entry.base {
            SealedInfo { end: entry.base, bytes: 0, crc: 0 }
        } else {
            let own = self.own_copy().await?;
            self.complete(&own, decision.end, decision.holders.iter().copied()).await?;
            recovery.copied(self.own_member()?.storage);
            self.copy_to_others(&own, &mut recovery, need).await?;
            own.seal_at(decision.end).await?
        };
        let holders = match recovery.seal() {
            Some((_, holders)) => holders,
            // An empty segment needs no holders, and is not listed.
            None if sealed.end == entry.base => self.members().iter().map(|member| member.storage).collect(),
            None => return Err(TakeOverError::TooFewCopies { have: decision.holders.len(), need }),
        };
        // Those that were silent are taken last, those that failed or were slow lately only where there are too few.
        let avoided: Vec<BrokerId> = self.peers.avoided.lock().clone();
        let last: Vec<BrokerId> = silent.into_iter().chain(avoided.iter().copied()).collect();
        let ensemble = self.spec.ensemble(self.state, &last).unwrap_or_default();
        let ensemble = self.spec.without(self.state, ensemble, &avoided);
        if ensemble.len() < need {
            return Err(TakeOverError::TooFewCopies { have: ensemble.len(), need });
        }
        let SealedInfo { end, bytes, crc } = sealed;
        let seal =
            Seal { segment: entry.id, leader_epoch: self.epoch, end, crc, bytes, holders, unclean: false };
        Ok(self.spec.store.seal_and_open(self.spec.partition, seal, ensemble).await?)
    }

    fn members(&self) -> &[Member] {
        match &self.state.last().state {
            SegmentState::Open { ensemble } => ensemble,
            SegmentState::Sealed { .. } => &[],
        }
    }

    fn own_member(&self) -> Result<Member, TakeOverError> {
        let own = self.members().iter().find(|member| member.broker == self.spec.broker);
        own.copied().ok_or(TakeOverError::NotMember)
    }

    fn uncovered(&self, asked: Asked) -> TakeOverError {
        let members = self.members().len();
        let answered = members - asked.silent.len().min(members);
        TakeOverError::Uncovered { answered, members, doubtful: asked.doubtful }
    }

    /// Asks all members for a promise.
    async fn fence_all(&self, recovery: &mut Recovery) -> Result<Asked, TakeOverError> {
        let mut fences: FuturesUnordered<_> =
            self.members().iter().map(|member| self.fence(*member)).collect();
        let members: Vec<BrokerId> = self.members().iter().map(|member| member.broker).collect();
        let mut asked = Asked { silent: members.clone(), mute: members, doubtful: Vec::new() };
        let clock = &self.spec.env.clock;
        let mut deadline = clock.now() + FENCE_PATIENCE;
        let mut covered = false;
        let alive = self.peers.candidates.alive();
        let may_answer = |broker: &BrokerId| alive.iter().any(|candidate| candidate.broker == *broker);
        loop {
            if covered && !asked.silent.iter().any(may_answer) {
                return Ok(asked);
            }
            let (member, answer) = tokio::select! {
                biased;
                answered = fences.next() => match answered {
                    Some(answered) => answered,
                    None => return Ok(asked),
                },
                () = clock.sleep_until(deadline) => return Ok(asked),
            };
            if answer.is_ok() {
                asked.mute.retain(|broker| *broker != member.broker);
            }
            match answer {
                Ok(FenceResult::Promised { answer, .. }) => {
                    recovery.answered(member.storage, answer);
                    if answer.authoritative {
                        asked.silent.retain(|broker| *broker != member.broker);
                    } else {
                        asked.doubtful.push(member.storage);
                    }
                }
                Ok(FenceResult::Fenced(epoch)) => return Err(TakeOverError::Superseded(epoch)),
                Ok(FenceResult::Unknown) => {}
                Err(error) => {
                    tracing::debug!(partition = %self.spec.partition, %error, "a member is not fenced")
                }
            }
            if !covered && recovery.is_covered() {
                covered = true;
                deadline = deadline.min(clock.now() + GRACE);
            }
        }
    }

    async fn fence(&self, member: Member) -> (Member, Result<FenceResult, LinkError>) {
        (member, self.fence_copy(self.state.last(), member.broker, member.storage).await)
    }

    pub(crate) async fn fence_copy(
        &self,
        entry: &SegmentEntry,
        broker: BrokerId,
        storage: StorageId,
    ) -> Result<FenceResult, LinkError> {
        let request = FenceRequest {
            name: self.spec.segment_name(entry),
            storage,
            epochs: entry.epochs.clone(),
            epoch: self.epoch,
            durability: self.spec.settings.durability,
        };
        if broker == self.spec.broker {
            return Ok(self.peers.replicas.fence_own(request).await);
        }
        self.peers.links.fence(broker, request, FENCE_PATIENCE).await
    }

    async fn own_copy(&self) -> Result<OwnCopy, TakeOverError> {
        let member = self.own_member()?;
        let entry = self.state.last();
        let create = Create {
            stream: 0,
            name: self.spec.segment_name(entry),
            storage: member.storage,
            epoch: self.epoch,
            epochs: entry.epochs.clone(),
            incarnation: member.incarnation,
            durability: self.spec.settings.durability,
            kind: PushKind::CopyUp,
            snapshot: Bytes::new(),
        };
        let refused = |refusal: crate::stream::Refusal| TakeOverError::OwnCopy(refusal.to_string());
        self.peers.replicas.own_copy(create).await.map_err(refused)
    }

    /// Fetches what the own copy lacks below `end` from whoever has it.
    async fn complete(
        &self,
        own: &OwnCopy,
        end: Offset,
        holders: impl Iterator<Item = StorageId>,
    ) -> Result<(), TakeOverError> {
        let is_holder: Vec<StorageId> = holders.collect();
        let others = self
            .members()
            .iter()
            .filter(|member| member.broker != self.spec.broker && is_holder.contains(&member.storage));
        let mut others = others.cycle().take(2 * is_holder.len());
        while own.end() < end {
            let Some(member) = others.next() else {
                let reason =
                    format!("it ends at {}, and what follows up to {end} cannot be fetched", own.end());
                return Err(TakeOverError::OwnCopy(reason));
            };
            while own.end() < end {
                match self.pull((member.broker, member.storage), own).await {
                    Ok(bytes) if !bytes.is_empty() => {
                        own.append(own.end(), &bytes).map_err(TakeOverError::OwnCopy)?;
                    }
                    _ => break,
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn pull(
        &self,
        (broker, storage): (BrokerId, StorageId),
        own: &OwnCopy,
    ) -> Result<Bytes, String> {
        let pull = PullRequest {
            name: own.name().clone(),
            storage,
            sealed: None,
            from: own.end(),
            max_bytes: PULL_BYTES_MAX as u32,
        };
        match self.peers.links.pull(broker, pull, PULL_PATIENCE).await {
            Ok(PullResult::Bytes(bytes)) => Ok(bytes),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Makes as many copies as a seal needs.
    async fn copy_to_others(
        &self,
        own: &OwnCopy,
        recovery: &mut Recovery,
        need: usize,
    ) -> Result<(), TakeOverError> {
        if recovery.copies_missing() == Some(0) {
            return Ok(());
        }
        let entry = self.state.last();
        let end = recovery.decision().map_or(entry.base, |decision| decision.end);
        for target in self.spec.ensemble(self.state, &[]).unwrap_or_default() {
            let holds =
                recovery.decision().is_some_and(|decision| decision.holders.contains(&target.storage));
            if recovery.copies_missing() == Some(0) || holds || target.broker == self.spec.broker {
                continue;
            }
            let Some(snapshot) = own.base_snapshot() else { break };
            let push = self.spec.push_target(entry, self.epoch, &target, snapshot);
            match self.peers.links.copy_up(push, own.source(), end, COPY_PATIENCE).await {
                Ok(()) => recovery.copied(target.storage),
                Err(error) => {
                    tracing::warn!(partition = %self.spec.partition, broker = %target.broker, %error, "a copy is not made");
                }
            }
        }
        match recovery.copies_missing() {
            Some(0) => Ok(()),
            missing => Err(TakeOverError::TooFewCopies { have: need - missing.unwrap_or(need), need }),
        }
    }
}

impl LogSpec {
    /// How many copies records need to be committed: the lesser of `min.insync.replicas` and the replication factor.
    pub(crate) fn copies_min(&self, state: &PartitionState) -> usize {
        let wanted = usize::try_from(self.settings.min_insync_replicas).unwrap_or(1);
        wanted.clamp(1, state.placement.len().max(1))
    }

    /// Members of the next segment of a partition that this broker leads; `None` if it cannot be one itself. Brokers in
    /// `avoided` are taken last.
    pub(crate) fn ensemble(&self, state: &PartitionState, avoided: &[BrokerId]) -> Option<Vec<Member>> {
        let candidates = self.peers.as_ref()?.candidates.candidates();
        next_ensemble(Draw::of(&self.partition), state, &candidates, avoided)
    }

    /// Brokers that may be members of a segment: neither silent nor about to end.
    pub(crate) fn alive(&self) -> Vec<BrokerId> {
        let candidates = self.peers.as_ref().map(|peers| peers.candidates.candidates());
        candidates.unwrap_or_default().iter().map(|candidate| candidate.broker).collect()
    }

    /// Members of the next segment, which are not those that failed in the life they still live. Brokers in `avoided` are
    /// members only where there would be too few without them.
    pub(crate) fn members(
        &self,
        state: &PartitionState,
        failed: &[Member],
        avoided: &[BrokerId],
    ) -> Vec<Member> {
        let has_failed = |member: &Member| {
            let is_same =
                |other: &Member| (other.broker, other.incarnation) == (member.broker, member.incarnation);
            failed.iter().any(is_same)
        };
        self.without(state, self.ensemble_of(state, &has_failed, avoided), avoided)
    }

    /// The members apart from the brokers in `avoided`; all of them where there would be too few.
    fn without(&self, state: &PartitionState, mut members: Vec<Member>, avoided: &[BrokerId]) -> Vec<Member> {
        let good = members.iter().filter(|member| !avoided.contains(&member.broker)).count();
        if good >= self.copies_min(state) {
            members.retain(|member| !avoided.contains(&member.broker));
        }
        members
    }

    fn ensemble_of(
        &self,
        state: &PartitionState,
        has_failed: &dyn Fn(&Member) -> bool,
        avoided: &[BrokerId],
    ) -> Vec<Member> {
        let Some(peers) = &self.peers else { return Vec::new() };
        let mut candidates = peers.candidates.candidates();
        candidates.retain(|candidate| {
            let (broker, storage, incarnation) = (candidate.broker, candidate.storage, candidate.incarnation);
            !has_failed(&Member { broker, storage, incarnation })
        });
        next_ensemble(Draw::of(&self.partition), state, &candidates, avoided).unwrap_or_default()
    }

    /// Where a segment is pushed to.
    pub(crate) fn push_target(
        &self,
        entry: &SegmentEntry,
        epoch: LeaderEpoch,
        member: &Member,
        snapshot: Bytes,
    ) -> PushTarget {
        PushTarget {
            broker: member.broker,
            storage: member.storage,
            incarnation: member.incarnation,
            name: self.segment_name(entry),
            epoch,
            epochs: entry.epochs.clone(),
            durability: self.settings.durability,
            snapshot,
        }
    }
}
