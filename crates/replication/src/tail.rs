//! The tail of a log: who owns it appends, and the chain edits that open the next segment.
//!
//! One caller at a time owns the tail, for as long as it takes to append what has arrived, with one
//! write. The segment an append goes to was opened by this life of the broker; opening it is an edit
//! of the chain (`SealAndOpen`), during which appends wait:
//!
//! ```text
//!   AfterEdit ──edit_tail()──► Editing ──chain edited, file made──► Yes
//!       ▲                         │                                  │ size or age reached,
//!       └──── edit refused ◄──────┘        ◄── roll: synced first ───┘
//! ```
//!
//! Edits run in tasks of their own, so a client that hangs up does not leave one half done.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::batch::HEADER_LEN;
use base::chain::{Member, PartitionState, Seal, SegmentState};
use base::config::{Durability, TopicSettings};
use base::ids::{BrokerId, LeaderEpoch, Offset, StorageId, TimestampMs};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::Shared;
use parking_lot::MutexGuard;
use storage::{Batch, CreateSegment, StorageState};
use tokio::sync::oneshot;

use crate::chain_store::ChainStoreError;
use crate::commit::Committed;
use crate::led::{Led, OwnPace};
use crate::log::{AppendError, Derived, Held, Log, View};

/// A segment is rolled at `segment.bytes` or here, whichever is less: it bounds what a lone survivor
/// has to copy after a failure (replication.md section 7).
pub const SEGMENT_BYTES_MAX: u64 = 256 << 20;

/// What recovery may have to scan of a segment: a checkpoint is taken whenever as much was appended.
const CHECKPOINT_BYTES: u64 = 1 << 20;
/// And so many times the length of the snapshot in the last one, so that many producers do not multiply what is
/// written: at most a quarter more.
const CHECKPOINT_SNAPSHOTS: u64 = 4;

/// What may stay without a checkpoint between two sweeps.
const SLOW_CHECKPOINT_BYTES: u64 = 64 << 10;

/// What a segment that is rolled may hold unsynced when appends begin to wait for the next one.
const ROLL_UNSYNCED_BYTES: u64 = 1 << 20;

/// Time for a broker to copy a segment that is to be sealed.
const COPY_PATIENCE: Duration = Duration::from_secs(60);

/// How often it is synced for that. Each time there is less to sync than the last, if the disk is faster than what
/// comes; if not, appends must wait some time.
const ROLL_SYNCS_MAX: usize = 8;

/// The segment that takes appends, and its other members if it has any.
type Opened = (Held, Option<Arc<Led>>);

/// An edit in flight; every append that waits for it holds a copy.
type Edit = Shared<oneshot::Receiver<Result<(), AppendError>>>;

pub(crate) enum Writable {
    /// Appends go to this segment.
    Yes(Held),
    /// The open segment belongs to an earlier life, or is to be rolled: edit the chain first.
    AfterEdit(Held),
    /// The edit is in flight.
    Editing(Edit),
    /// Not any more.
    Never(AppendError),
}

/// What the owner of the tail owns.
pub(crate) struct Tail<S> {
    pub(crate) writable: Writable,
    /// Set while the open segment has other members.
    pub(crate) led: Option<Arc<Led>>,
    pub(crate) end: Offset,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) derived: S,
    /// Length of the last snapshot of it, bytes.
    pub(crate) snapshot_bytes: u64,
    /// Wall time of the first append to the open segment, for rolls by age; `None` while empty.
    pub(crate) opened_at_ms: Option<TimestampMs>,
    /// Drawn for the open segment: which part of `segment.jitter.ms` it is rolled early.
    pub(crate) jitter_draw: u64,
}

/// What somebody finds who wants to append.
pub enum TailState<'a, S> {
    /// It takes appends, and the caller owns it.
    Ready(TailGuard<'a, S>),
    /// The chain must be edited first: await [`Log::edit_tail`].
    NeedsEdit,
    /// It takes no appends.
    Refused(AppendError),
}

/// One batch to append: a header stamped with its offset and epoch, and the bytes behind it.
#[derive(Debug)]
pub struct Append<'a> {
    /// The stamped header.
    pub header: [u8; HEADER_LEN],
    /// The rest of the batch.
    pub rest: &'a [u8],
    /// Offset after the batch's last.
    pub next_offset: Offset,
    /// What somebody waits for.
    pub wait: Wait,
}

/// When whoever appends a batch is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Never.
    No,
    /// When the leader's own storage holds it, as the class of the topic says (acks=1).
    Own,
    /// When it is committed (acks=all).
    Committed,
}

/// Ownership of the tail.
pub struct TailGuard<'a, S> {
    log: &'a Arc<Log<S>>,
    tail: MutexGuard<'a, Tail<S>>,
}

impl<'a, S: Derived> TailGuard<'a, S> {
    pub(crate) fn new(log: &'a Arc<Log<S>>, tail: MutexGuard<'a, Tail<S>>) -> TailGuard<'a, S> {
        TailGuard { log, tail }
    }

    /// The offset the next batch gets.
    pub fn next_offset(&self) -> Offset {
        self.tail.end
    }

    /// The epoch it is stamped with.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.tail.epoch
    }

    /// State derived from all records below [`TailGuard::next_offset`]; the caller keeps it so.
    pub fn derived(&mut self) -> &mut S {
        &mut self.tail.derived
    }

    /// Appends the batches, which begin at [`TailGuard::next_offset`] and touch, with one write. For
    /// each that somebody waits for there is a [`Committed`] in the answer, in order.
    ///
    /// # Errors
    /// [`AppendError::Storage`]; nothing was appended then.
    pub fn append(&mut self, batches: &[Append<'_>]) -> Result<Vec<Option<Committed>>, AppendError> {
        let Writable::Yes(segment) = &self.tail.writable else {
            return Err(AppendError::Closed);
        };
        let segment = segment.clone();
        let writes: Vec<_> =
            batches.iter().map(|batch| Batch { header: &batch.header, rest: batch.rest }).collect();
        let began = self.tail.led.is_some().then(|| self.log.spec.env.clock.now());
        segment.append(&writes)?;
        let commits = batches
            .iter()
            .map(|batch| {
                let bytes = (HEADER_LEN + batch.rest.len()) as u64;
                let own = self.tail.led.as_ref().filter(|_| batch.wait == Wait::Own);
                let waits_for_all = own.is_none() && batch.wait != Wait::No;
                let committed = self.log.commit.appended(batch.next_offset, bytes, waits_for_all);
                committed.or_else(|| own.map(|led| led.own(batch.next_offset)))
            })
            .collect();
        self.tail.end = segment.end();
        self.tail.opened_at_ms.get_or_insert_with(|| self.log.spec.env.clock.wall_ms());
        let is_written = self.log.settings().durability == Durability::PageCache;
        match &self.tail.led {
            Some(led) if is_written => led.written(self.tail.end),
            None if is_written => self.log.commit.advance(self.tail.end),
            led => {
                if let Some((led, began)) = led.as_ref().zip(began) {
                    led.appended(self.tail.end, began);
                }
                segment.request_sync();
            }
        }
        if let Some(led) = &self.tail.led {
            led.wake();
        }
        Ok(commits)
    }

    /// Takes a checkpoint if more than a little was appended since the last: for logs that grow slowly, so
    /// that many of them together leave recovery little to scan.
    pub fn checkpoint_slow(&self) {
        if let Writable::Yes(segment) = &self.tail.writable
            && segment.bytes_since_checkpoint() > SLOW_CHECKPOINT_BYTES
        {
            segment.checkpoint(self.tail.derived.snapshot());
        }
    }

    /// Gives the tail up after looking whether a checkpoint or a roll is due. The caller has brought
    /// [`TailGuard::derived`] up to the end.
    pub fn release(mut self) {
        let Writable::Yes(segment) = &self.tail.writable else { return };
        let segment = segment.clone();
        if segment.bytes_since_checkpoint() >= checkpoint_bytes(self.tail.snapshot_bytes) {
            let snapshot = self.tail.derived.snapshot();
            self.tail.snapshot_bytes = snapshot.len() as u64;
            segment.checkpoint(snapshot);
        }
        if self.log.roll_is_due(&self.tail, &segment)
            && self.log.spec.store.takes_edits()
            && !self.log.rolling.swap(true, Ordering::AcqRel)
        {
            let log = self.log.clone();
            tokio::spawn(async move { log.roll(segment).await });
        }
    }
}

/// How much is appended between two checkpoints when the last one held a snapshot of so many bytes.
fn checkpoint_bytes(snapshot_bytes: u64) -> u64 {
    CHECKPOINT_BYTES.max(CHECKPOINT_SNAPSHOTS * snapshot_bytes)
}

/// `segment.ms`; earlier where compaction must come sooner (`max.compaction.lag.ms`, KIP-354), because it
/// leaves the open segment alone.
pub(crate) fn roll_age_ms(settings: &TopicSettings) -> i64 {
    if settings.compact {
        settings.segment_ms.min(settings.max_compaction_lag_ms)
    } else {
        settings.segment_ms
    }
}

/// How much earlier than that this segment is rolled, ms: below `segment.jitter.ms`, so that segments of
/// one age do not all end at once.
fn roll_jitter_ms(settings: &TopicSettings, draw: u64) -> i64 {
    let bound = settings.segment_jitter_ms.min(roll_age_ms(settings));
    u64::try_from(bound).ok().filter(|bound| *bound > 0).map_or(0, |bound| (draw % bound) as i64)
}

/// The open segment of a log that this broker leads, before its members change.
struct Ensembles {
    state: Arc<PartitionState>,
    /// Members that fail.
    failed: Vec<Member>,
    /// The next segment was to be opened before, in vain.
    is_due: bool,
}

impl<S: Derived> Log<S> {
    /// Opens the segment that the next append needs, or waits for who is doing it.
    ///
    /// # Errors
    /// [`AppendError`] when it cannot be opened; asking again tries again.
    pub async fn edit_tail(self: &Arc<Self>) -> Result<(), AppendError> {
        let edit = {
            let mut tail = self.tail.lock();
            match &tail.writable {
                Writable::Yes(_) => return Ok(()),
                Writable::Never(error) => return Err(error.clone()),
                Writable::Editing(edit) => edit.clone(),
                Writable::AfterEdit(segment) => {
                    let (sender, receiver) = oneshot::channel();
                    let edit = receiver.shared();
                    let (log, segment) = (self.clone(), segment.clone());
                    let snapshot = tail.derived.snapshot();
                    tokio::spawn(async move {
                        let result = log.open_next(segment, snapshot).await;
                        // Everyone who waited may have gone away.
                        let _ = sender.send(result);
                    });
                    tail.writable = Writable::Editing(edit.clone());
                    edit
                }
            }
        };
        edit.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Ends the open segment now if it holds anything, whatever its size.
    ///
    /// # Errors
    /// As [`Log::edit_tail`].
    pub async fn roll_now(self: &Arc<Self>) -> Result<(), AppendError> {
        {
            let mut tail = self.tail.lock();
            match &tail.writable {
                Writable::Yes(segment) if segment.bytes() > 0 => {
                    tail.writable = Writable::AfterEdit(segment.clone());
                }
                Writable::Yes(_) => return Ok(()),
                _ => {}
            }
        }
        self.edit_tail().await
    }

    /// Stops appends for good, with a checkpoint of the end. Who waits for a commit is told by the last
    /// sync round, or by [`Log::abandon`].
    pub fn close(&self) {
        let mut tail = self.tail.lock();
        if let Writable::Yes(segment) | Writable::AfterEdit(segment) = &tail.writable {
            segment.checkpoint(tail.derived.snapshot());
        }
        tail.writable = Writable::Never(AppendError::Closed);
    }

    /// Ends the log because another broker leads: nothing is appended or committed any more, and who waits is sent there.
    /// Returns the open segment and its storage, which are the caller's from now on.
    pub fn resign(&self) -> Option<(Arc<storage::Segment>, Arc<storage::Storage>)> {
        let (open, led) = {
            let mut tail = self.tail.lock();
            let open = match std::mem::replace(&mut tail.writable, Writable::Never(AppendError::Closed)) {
                Writable::Yes(held) | Writable::AfterEdit(held) => Some((held.segment, held.storage)),
                Writable::Editing(_) | Writable::Never(_) => None,
            };
            (open, tail.led.take())
        };
        drop(led);
        self.commit.fail(&crate::commit::CommitError::Closed);
        open
    }

    /// How many members the open segment has, and how many of them hold or will hold what is appended now.
    pub fn in_sync(&self) -> (usize, usize) {
        let led = self.tail.lock().led.clone();
        led.map_or((1, 1), |led| led.in_sync())
    }

    /// Whether the log directory of the open segment has no room for another record.
    pub fn has_no_room(&self) -> bool {
        let view = self.view.load();
        view.segments.last().is_some_and(|open| matches!(open.storage.state(), StorageState::NoSpace))
    }

    /// The log directory of the open segment.
    pub fn open_storage(&self) -> Option<StorageId> {
        self.view.load().segments.last().map(|open| open.storage.id())
    }

    /// How long the log directory of the open segment takes, where there are other members.
    pub fn own_pace(&self) -> OwnPace {
        let led = self.tail.lock().led.clone();
        led.map_or(OwnPace::InTime, |led| led.own_pace())
    }

    /// Other brokers that can give consumers everything from `offset` on, and how far each has come: members of the open
    /// segment that answer, and have the sealed ones.
    pub fn readable_elsewhere(&self, offset: Offset) -> Vec<(BrokerId, Offset)> {
        let led = self.tail.lock().led.clone();
        let (Some(led), Some(state)) = (led, self.spec.store.partition(self.partition())) else {
            return Vec::new();
        };
        if offset < state.log_start {
            return Vec::new();
        }
        let sealed = state.chain.iter().filter(|entry| entry.end().is_some_and(|end| end > offset));
        let has_all = |member: &Member| sealed.clone().all(|entry| entry.is_on(member.storage));
        let caught_up = led.caught_up(offset).into_iter().filter(|(member, _)| has_all(member));
        caught_up.map(|(member, end)| (member.broker, end)).collect()
    }

    /// Looks after the members of the open segment: opens the next one without those that fail, end or are gone. `avoided`
    /// brokers are missed only where it takes them; members that are among them stay. Does nothing where too few are left.
    /// Returns those that fail.
    pub fn mend_ensemble(self: &Arc<Self>, avoided: &[BrokerId]) -> Vec<Member> {
        let Some(Ensembles { state, failed, is_due }) = self.ensembles() else { return Vec::new() };
        let SegmentState::Open { ensemble } = &state.last().state else { return failed };
        let is_member = |broker: &BrokerId| ensemble.iter().any(|member| member.broker == *broker);
        let avoided: Vec<BrokerId> = avoided.iter().copied().filter(|broker| !is_member(broker)).collect();
        *self.avoided.lock() = avoided.clone();
        let alive = self.spec.alive();
        let is_gone = |member: &Member| !alive.contains(&member.broker);
        if !is_due && failed.is_empty() && !ensemble.iter().any(is_gone) {
            return failed;
        }
        let next = self.spec.members(&state, &failed, &avoided);
        if next.len() < self.spec.copies_min(&state) || self.rolling.swap(true, Ordering::AcqRel) {
            return failed;
        }
        let brokers: Vec<BrokerId> = failed.iter().map(|member| member.broker).collect();
        tracing::info!(partition = %self.partition(), failed = ?brokers, members = next.len(), "the ensemble changes");
        let log = self.clone();
        tokio::spawn(async move {
            log.reopen().await;
            log.rolling.store(false, Ordering::Release);
        });
        failed
    }

    /// Whether other brokers should be members of the open segment than are, though none of these fails.
    fn wants_other_members(&self, avoided: &[BrokerId]) -> bool {
        let Some(Ensembles { state, failed, .. }) = self.ensembles() else { return false };
        let SegmentState::Open { ensemble } = &state.last().state else { return false };
        let is_member = |broker: BrokerId| ensemble.iter().any(|member| member.broker == broker);
        let avoided: Vec<BrokerId> = avoided.iter().copied().filter(|broker| !is_member(*broker)).collect();
        let next = self.spec.members(&state, &failed, &avoided);
        let is_other = next.len() != ensemble.len() || next.iter().any(|member| !is_member(member.broker));
        failed.is_empty() && is_other && next.len() >= self.spec.copies_min(&state)
    }

    /// Opens the next segment with other members where others are wanted though none of these fails, `avoided` as in
    /// [`Log::mend_ensemble`]. Appends wait meanwhile.
    pub async fn change_members(self: &Arc<Self>, avoided: &[BrokerId]) {
        if !self.wants_other_members(avoided) || self.rolling.swap(true, Ordering::AcqRel) {
            return;
        }
        self.reopen().await;
        self.rolling.store(false, Ordering::Release);
    }

    /// What there is to know before members change; `None` where they cannot.
    fn ensembles(&self) -> Option<Ensembles> {
        // The placement may have changed since the segment was opened.
        let state = self.spec.store.partition(self.partition())?;
        let leads = (state.leader, state.leader_epoch) == (self.spec.broker, self.leader_epoch());
        // One copy, where it is wanted.
        let is_alone = state.placement == [self.spec.broker] && state.open_members() == 1;
        if self.spec.peers.is_none() || !leads || is_alone || !self.spec.store.takes_edits() {
            return None;
        }
        let tail = self.tail.lock();
        let (failed, is_due) = match &tail.writable {
            Writable::Yes(_) => {
                (tail.led.as_ref().map(|led| led.failed(tail.end)).unwrap_or_default(), false)
            }
            // It was tried before, in vain.
            Writable::AfterEdit(_) => (Vec::new(), true),
            Writable::Editing(_) | Writable::Never(_) => return None,
        };
        Some(Ensembles { state, failed, is_due })
    }

    async fn reopen(self: &Arc<Self>) {
        {
            let mut tail = self.tail.lock();
            if let Writable::Yes(segment) = &tail.writable {
                tail.writable = Writable::AfterEdit(segment.clone());
            }
        }
        if let Err(error) = self.edit_tail().await {
            tracing::warn!(partition = %self.partition(), %error, "the next segment cannot be opened yet");
        }
    }

    fn roll_is_due(&self, tail: &Tail<S>, segment: &Held) -> bool {
        let settings = self.settings();
        let limit = settings.segment_bytes.clamp(1, SEGMENT_BYTES_MAX);
        let age_ms =
            tail.opened_at_ms.map_or(0, |opened| self.spec.env.clock.wall_ms().saturating_sub(opened));
        let age_max_ms = roll_age_ms(&settings) - roll_jitter_ms(&settings, tail.jitter_draw);
        segment.bytes() >= limit || (segment.bytes() > 0 && age_ms >= age_max_ms)
    }

    /// The age at which a segment is rolled at the latest, ms.
    pub fn roll_age_ms(&self) -> i64 {
        roll_age_ms(&self.settings())
    }

    /// Rolls if size or age ask for it; for logs nobody appends to.
    pub fn roll_if_due(self: &Arc<Self>) {
        match self.tail() {
            TailState::Ready(tail) => tail.release(),
            TailState::NeedsEdit => {
                let tail = self.tail.lock();
                if matches!(&tail.writable, Writable::AfterEdit(segment) if self.roll_is_due(&tail, segment))
                {
                    let log = self.clone();
                    tokio::spawn(async move {
                        if let Err(error) = log.edit_tail().await {
                            tracing::warn!(partition = %log.partition(), %error, "the next segment cannot be opened yet");
                        }
                    });
                }
            }
            TailState::Refused(_) => {}
        }
    }

    /// Syncs all but a little of the segment while appends go on: they wait for the rest when it is sealed.
    async fn sync_ahead(&self, segment: &Held) -> Result<(), AppendError> {
        for _ in 0..ROLL_SYNCS_MAX {
            let bytes = segment.bytes();
            self.sync(segment).await?;
            if segment.bytes() - bytes <= ROLL_UNSYNCED_BYTES {
                break;
            }
        }
        Ok(())
    }

    /// Syncs the segment, then lets the next append open the next one.
    async fn roll(self: Arc<Self>, segment: Held) {
        if let Err(error) = self.sync_ahead(&segment).await {
            tracing::warn!(partition = %self.partition(), %error, "a segment that is to be rolled cannot be synced");
            self.rolling.store(false, Ordering::Release);
            return;
        }
        if !self.spec.store.takes_edits() {
            // Appends go on in this segment, and ask again.
            self.rolling.store(false, Ordering::Release);
            return;
        }
        {
            let mut tail = self.tail.lock();
            if matches!(&tail.writable, Writable::Yes(open) if open.same(&segment)) {
                tail.writable = Writable::AfterEdit(segment);
            }
        }
        if let Err(error) = self.edit_tail().await {
            tracing::warn!(partition = %self.partition(), %error, "the next segment cannot be opened yet");
        }
        self.rolling.store(false, Ordering::Release);
    }

    /// Waits until all that is in `segment` now is durable.
    pub(crate) async fn sync(&self, segment: &Held) -> Result<(), AppendError> {
        let end = segment.end();
        segment.request_sync();
        self.commit.durable(|| segment.durable_end() >= end).await?;
        Ok(())
    }

    /// Seals `segment` and opens the next; leaves `Writable` as what came of it.
    async fn open_next(self: Arc<Self>, segment: Held, snapshot: Bytes) -> Result<(), AppendError> {
        let edit = self.edits.lock().await;
        let led = self.tail.lock().led.clone();
        let result = self.seal_and_open(&segment, led.as_ref(), snapshot).await;
        drop(edit);
        let mut tail = self.tail.lock();
        if matches!(tail.writable, Writable::Never(_)) {
            return Err(AppendError::Closed);
        }
        match result {
            Ok((next, led)) => {
                tail.epoch = self.view.load().state.leader_epoch;
                tail.writable = Writable::Yes(next);
                tail.led = led;
                tail.opened_at_ms = None;
                tail.jitter_draw = self.spec.env.random.next_u64();
                Ok(())
            }
            Err(error) => {
                tail.writable = Writable::AfterEdit(segment);
                Err(error)
            }
        }
    }

    async fn seal_and_open(
        self: &Arc<Self>,
        segment: &Held,
        led: Option<&Arc<Led>>,
        snapshot: Bytes,
    ) -> Result<Opened, AppendError> {
        let id = segment.name().id;
        let known = self.spec.store.partition(self.partition());
        let known = known.ok_or(AppendError::Chain(ChainStoreError::UnknownPartition))?;
        if (known.leader, known.leader_epoch) != (self.spec.broker, self.leader_epoch()) {
            // Whoever leads now asks all members first where the segment ends.
            return Err(AppendError::Closed);
        }
        // An edit whose answer was lost may have been made.
        let state = if known.last().id != id {
            known
        } else {
            segment.checkpoint(snapshot.clone());
            let sealing = segment.segment.clone();
            let sealed = self.spec.env.blocking(move || sealing.seal()).await?;
            self.sync(segment).await?;
            let need = self.spec.copies_min(&known);
            let (holders, failed) = match led {
                None => (vec![segment.storage.id()], Vec::new()),
                Some(led) => {
                    let holders = match led.settle(sealed.end, self.settings().durability).await {
                        Some(holders) => holders,
                        None => self.copy_to_others(&known, segment, led, sealed.end).await?,
                    };
                    (holders, led.failed(sealed.end))
                }
            };
            let seal = Seal {
                segment: id,
                leader_epoch: known.leader_epoch,
                end: sealed.end,
                crc: sealed.crc,
                bytes: sealed.bytes,
                holders,
                unclean: false,
            };
            let ensemble = self.next_ensemble(&known, segment, &failed);
            if ensemble.len() < need {
                return Err(AppendError::TooFewMembers { have: ensemble.len(), need });
            }
            self.spec
                .store
                .seal_and_open(self.partition(), seal, ensemble)
                .await
                .map_err(AppendError::Chain)?
        };
        self.open_file(state, snapshot).await
    }

    /// Has others copy the segment, which was settled to end at `end`, until enough hold all of it (replication.md 2.7):
    /// members that failed are no members in the life they began since, and others never were. Returns who does.
    async fn copy_to_others(
        &self,
        state: &PartitionState,
        segment: &Held,
        led: &Led,
        end: Offset,
    ) -> Result<Vec<StorageId>, AppendError> {
        let need = self.spec.copies_min(state);
        let mut have = 1;
        let Some(peers) = &self.spec.peers else { return Err(AppendError::TooFewMembers { have, need }) };
        let failed = led.failed(end);
        let held = segment.clone();
        let snapshot = self.spec.env.blocking(move || held.storage.base_snapshot(&held.segment)).await;
        for target in self.spec.members(state, &failed, &[]) {
            if let Some(holders) = led.holders() {
                return Ok(holders);
            }
            let Some(snapshot) = snapshot.clone().filter(|_| target.broker != self.spec.broker) else {
                continue;
            };
            let push = self.spec.push_target(state.last(), state.leader_epoch, &target, snapshot);
            match peers.links.copy_up(push, led.source(), end, COPY_PATIENCE).await {
                Ok(()) => {
                    have += 1;
                    led.copied(target.storage);
                }
                Err(error) => {
                    tracing::warn!(partition = %self.partition(), broker = %target.broker, %error, "a copy is not made");
                }
            }
        }
        led.holders().ok_or(AppendError::TooFewMembers { have, need })
    }

    /// Members of the segment after `segment`. This broker's part stays in its log directory: directories are chosen when
    /// a partition is made.
    fn next_ensemble(&self, state: &PartitionState, segment: &Held, failed: &[Member]) -> Vec<Member> {
        let own = self.spec.member_on(&segment.storage);
        if state.placement == [own.broker] {
            return vec![own];
        }
        let avoided = self.avoided.lock().clone();
        let mut members = self.spec.members(state, failed, &avoided);
        members.retain(|member| member.broker != own.broker);
        members.insert(0, own);
        members
    }

    /// Makes the file of the segment that the chain says is open and shows the new chain to readers.
    async fn open_file(
        self: &Arc<Self>,
        state: Arc<PartitionState>,
        snapshot: Bytes,
    ) -> Result<Opened, AppendError> {
        let SegmentState::Open { ensemble } = &state.last().state else {
            return Err(AppendError::Closed);
        };
        let storage = self.spec.storage_of(ensemble.iter().map(|member| member.storage))?;
        let name = self.spec.segment_name(state.last());
        let create = CreateSegment { leader_epoch: state.last().last_epoch(), snapshot: snapshot.clone() };
        let making = storage.clone();
        let segment = self.spec.env.blocking(move || making.create(name, create)).await?;
        let made = Held { segment, storage };
        // What was sealed is committed, whoever holds it.
        self.commit.advance(state.last().base);
        let led = Led::begin(&self.spec, &state, &made, &self.commit, &snapshot);
        if led.is_none() {
            made.set_listener(self.commit.clone());
        }
        self.show(state, Some(made.clone()));
        Ok((made, led))
    }

    /// Shows a newer chain to readers and removes the files of segments that left it. One of a later leader is not shown: it
    /// has segments of his, and this log is about to be closed.
    pub(crate) fn show(self: &Arc<Self>, state: Arc<PartitionState>, opened: Option<Held>) {
        let old = self.view.load_full();
        if state.leader_epoch != old.state.leader_epoch {
            return;
        }
        let mut segments = Vec::with_capacity(state.chain.len());
        for entry in &state.chain {
            let same = |segment: &&Held| {
                (segment.name().id, segment.name().generation) == (entry.id, entry.generation)
            };
            if let Some(segment) = old.segments.iter().chain(&opened).find(same) {
                segments.push(segment.clone());
            } else if let SegmentState::Sealed { end, bytes, crc, replicas } = &entry.state
                && let Ok(storage) = self.spec.storage_of(replicas.iter().copied())
            {
                let segment = storage.load(self.spec.segment_name(entry), *end, *bytes, *crc);
                segments.push(Held { segment, storage });
            } else if matches!(entry.state, SegmentState::Open { .. }) {
                // The answer to the edit that opened it was lost: who asks for that again makes its file and shows it.
                return;
            }
        }
        debug_assert_eq!(segments.len(), state.chain.len(), "every segment of the chain is at hand");
        let left = |old: &&Held| !segments.iter().any(|new| new.same(old));
        let gone: Vec<_> = old.segments.iter().filter(left).cloned().collect();
        self.view.store(Arc::new(View { state, segments }));
        self.remove_files(gone);
    }

    fn remove_files(self: &Arc<Self>, gone: Vec<Held>) {
        if gone.is_empty() {
            return;
        }
        let partition = self.partition();
        self.spec.env.workers.run(Box::new(move || {
            for held in gone {
                if let Err(error) = held.storage.remove(held.name()) {
                    tracing::warn!(%partition, %error, "a segment that left the chain is not removed yet");
                }
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_add_a_quarter_to_what_is_written_at_most() {
        for snapshot_bytes in [0, 1, 1 << 10, 1 << 18, 1 << 20, 10 << 20] {
            let appended = checkpoint_bytes(snapshot_bytes);
            assert!(appended >= CHECKPOINT_BYTES && snapshot_bytes * 4 <= appended, "{snapshot_bytes}");
        }
    }
}
