//! The open segment of a log whose other members this broker pushes it to: what they acknowledged, what that commits, and
//! who of them fails.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use base::chain::{Member, PartitionState, SegmentState};
use base::config::Durability;
use base::env::Env;
use base::ids::{Offset, StorageId};
use bytes::Bytes;
use parking_lot::Mutex;
use storage::{DurableListener, Patience, Segment, StorageError};
use tokio::sync::Notify;

use crate::commit::{CommitError, CommitPoint, Committed};
use crate::log::{Held, LogSpec};
use crate::pace::Pace;
use crate::protocol::SegmentLeader;
use crate::stream::{Push, PushSink, PushSource, Refused};

/// A member whose connection ended and does not come back within this time has failed.
const LOST_PATIENCE: Duration = Duration::from_millis(200);
/// A member that does not acknowledge within this time what was there then has failed.
const LAG_MAX: Duration = Duration::from_millis(1_500);
/// A seal waits this long for members that it does not need, so that they hold all of the segment too.
const SEAL_GRACE: Duration = Duration::from_millis(100);
/// And this long for those it needs.
const SEAL_PATIENCE: Duration = Duration::from_secs(5);

/// See the module's head. Dropping it ends the pushes.
pub(crate) struct Led {
    acks: Arc<Acks>,
    source: Arc<Growing>,
    pushes: Vec<Push>,
}

/// What is known of the members.
struct Acks {
    env: Env,
    commit: Arc<CommitPoint>,
    own: StorageId,
    /// How far the leader's own storage holds the segment.
    written: CommitPoint,
    state: Mutex<State>,
    /// Told of every acknowledgement and failure.
    moved: Notify,
    led: OnceLock<Weak<Led>>,
}

struct State {
    core: SegmentLeader,
    others: Vec<Other>,
    own: Own,
}

/// The leader's own storage.
#[derive(Default)]
struct Own {
    /// An end it does not hold yet, and when the writing of that began.
    owes: Option<(Duration, Offset)>,
    /// Compared with the other members; what they take is measured here, and looks long if this broker is held up.
    beside_others: Pace,
    /// By itself.
    alone: Pace,
}

/// How long a leader's own storage takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnPace {
    /// Not long.
    InTime,
    /// Long, but others may take as long.
    Late,
    /// Far longer than those of the other members.
    Slow,
}

/// A member other than the leader.
struct Other {
    member: Member,
    acked: Offset,
    refused: bool,
    /// When its connection ended.
    lost_at: Option<Duration>,
    /// An end it did not acknowledge yet, and when it was seen that there was that much.
    owes: Option<(Duration, Offset)>,
    pace: Pace,
}

impl Other {
    fn has_failed(&self, now: Duration) -> bool {
        let is_over =
            |since: Option<Duration>, patience| since.is_some_and(|at| now.saturating_sub(at) >= patience);
        let owes_since = self.owes.map(|(at, _)| at);
        self.refused
            || self.pace.is_slow()
            || is_over(self.lost_at, LOST_PATIENCE)
            || is_over(owes_since, LAG_MAX)
    }
}

impl Led {
    /// Begins to push the open segment of a partition, which `held` holds; `None` if it has no other members.
    pub(crate) fn begin(
        spec: &LogSpec,
        state: &PartitionState,
        held: &Held,
        commit: &Arc<CommitPoint>,
        snapshot: &Bytes,
    ) -> Option<Arc<Led>> {
        let SegmentState::Open { ensemble } = &state.last().state else { return None };
        let own = held.storage.id();
        let others: Vec<Member> = ensemble.iter().copied().filter(|member| member.storage != own).collect();
        let peers = spec.peers.as_ref().filter(|_| !others.is_empty())?;
        let other = |member: &Member| Other {
            member: *member,
            acked: state.last().base,
            refused: false,
            lost_at: None,
            owes: None,
            pace: Pace::default(),
        };
        let core = SegmentLeader::new(state.last(), own, spec.copies_min(state))?;
        let acks = Arc::new(Acks {
            env: spec.env.clone(),
            commit: commit.clone(),
            own,
            written: CommitPoint::new(state.last().base),
            state: Mutex::new(State {
                core,
                others: others.iter().map(other).collect(),
                own: Own::default(),
            }),
            moved: Notify::new(),
            led: OnceLock::new(),
        });
        held.set_listener(acks.clone());
        let source = Arc::new(Growing { segment: held.segment.clone(), commit: commit.clone() });
        let push = |member: &Member| {
            let target = spec.push_target(state.last(), state.leader_epoch, member, snapshot.clone());
            peers.links.push(target, source.clone(), acks.clone())
        };
        let pushes = others.iter().map(push).collect();
        let led = Arc::new(Led { acks: acks.clone(), source: source.clone(), pushes });
        // The cell was made here and is empty.
        let _ = acks.led.set(Arc::downgrade(&led));
        Some(led)
    }

    /// There is more to push.
    pub(crate) fn wake(&self) {
        self.pushes.iter().for_each(Push::wake);
    }

    /// Something was written from `began` on; the log ends at `end`, and the leader's own storage is about to hold it.
    pub(crate) fn appended(&self, end: Offset, began: Duration) {
        let mut state = self.acks.state.lock();
        // A sync that was under way may have had it done already.
        if state.own.owes.is_none() && self.acks.written.high_watermark() < end {
            state.own.owes = Some((began, end));
        }
    }

    /// The leader's own storage holds everything below `end`, as the class of the topic says.
    pub(crate) fn written(&self, end: Offset) {
        self.acks.written.advance(end);
        self.acks.note(self.acks.own, end);
    }

    /// Completes when the leader's own storage holds everything below `end`.
    pub(crate) fn own(&self, end: Offset) -> Committed {
        self.acks.written.reaches(end)
    }

    /// Members, in the life in which they are, that failed or lag. `end` is how far the log goes now.
    pub(crate) fn failed(&self, end: Offset) -> Vec<Member> {
        let now = self.acks.env.clock.now();
        let mut state = self.acks.state.lock();
        for other in &mut state.others {
            if other.owes.is_none_or(|(_, owed)| other.acked >= owed) {
                other.owes = (other.acked < end).then_some((now, end));
            }
        }
        state.others.iter().filter(|other| other.has_failed(now)).map(|other| other.member).collect()
    }

    /// How long the leader's own storage takes.
    pub(crate) fn own_pace(&self) -> OwnPace {
        let now = self.acks.env.clock.now();
        let state = self.acks.state.lock();
        let is_overdue = state.own.owes.is_some_and(|(at, owed)| {
            let mut well = state.others.iter().filter(|other| !other.has_failed(now)).peekable();
            let all_hold_it = well.peek().is_some() && well.all(|other| other.acked >= owed);
            all_hold_it && now.saturating_sub(at) >= LAG_MAX
        });
        let Own { beside_others, alone, .. } = &state.own;
        match (is_overdue || beside_others.is_slow_lately(now), alone.is_slow_lately(now)) {
            (true, _) => OwnPace::Slow,
            (false, true) => OwnPace::Late,
            (false, false) => OwnPace::InTime,
        }
    }

    /// How many members there are, this broker among them, and how many of them have not failed.
    pub(crate) fn in_sync(&self) -> (usize, usize) {
        let now = self.acks.env.clock.now();
        let state = self.acks.state.lock();
        let failed = state.others.iter().filter(|other| other.has_failed(now)).count();
        (1 + state.others.len(), 1 + state.others.len() - failed)
    }

    /// Other members that have not failed and acknowledged everything below `offset`, and how far each has come.
    pub(crate) fn caught_up(&self, offset: Offset) -> Vec<(Member, Offset)> {
        let now = self.acks.env.clock.now();
        let state = self.acks.state.lock();
        let is_there = |other: &&Other| other.acked >= offset && !other.has_failed(now);
        state.others.iter().filter(is_there).map(|other| (other.member, other.acked)).collect()
    }

    /// A storage that is no member in its present life copied everything below the end that was settled.
    pub(crate) fn copied(&self, storage: StorageId) {
        self.acks.state.lock().core.copied(storage);
    }

    /// Who holds everything below the end that was settled, once those are enough.
    pub(crate) fn holders(&self) -> Option<Vec<StorageId>> {
        self.acks.state.lock().core.seal().map(|(_, holders)| holders)
    }

    /// What others copy from.
    pub(crate) fn source(&self) -> Arc<dyn PushSource> {
        self.source.clone()
    }

    /// Settles that the segment ends at `end`, the leader's own, and waits until enough members hold everything below:
    /// returns who does. `None` when too few do in time, or too few are left that could. In class *page-cache* who failed
    /// or is away may have lost what it acknowledged.
    pub(crate) async fn settle(&self, end: Offset, durability: Durability) -> Option<Vec<StorageId>> {
        let clock = &self.acks.env.clock;
        self.acks.state.lock().core.freeze_at(end);
        self.wake();
        let began = clock.now();
        loop {
            let moved = self.acks.moved.notified();
            let mut moved = std::pin::pin!(moved);
            moved.as_mut().enable();
            let (all, sealed) = {
                let mut state = self.acks.state.lock();
                let State { core, others, .. } = &mut *state;
                let now = clock.now();
                if durability == Durability::PageCache {
                    let gone = |other: &&Other| other.lost_at.is_some() || other.has_failed(now);
                    others.iter().filter(gone).for_each(|other| core.distrust(other.member.storage));
                }
                let holds = |other: &Other| other.acked >= end || other.has_failed(now);
                (others.iter().all(holds), core.seal())
            };
            let patience = if sealed.is_some() { SEAL_GRACE } else { SEAL_PATIENCE };
            let waited = clock.now().saturating_sub(began);
            match sealed {
                Some((_, holders)) if all || waited >= patience => return Some(holders),
                None if all || waited >= patience => return None,
                _ => {}
            }
            tokio::select! {
                biased;
                () = moved => {}
                () = clock.sleep_until(began + patience) => {}
            }
        }
    }
}

impl Drop for Led {
    fn drop(&mut self) {
        // Another one leads, or all was sealed, and so is written.
        self.acks.written.fail(&CommitError::Closed);
    }
}

impl State {
    /// What the slowest of the members takes that are connected, apart from one and the leader.
    fn usual_but(&self, storage: StorageId) -> Option<Duration> {
        let counts =
            |other: &&Other| other.member.storage != storage && !other.refused && other.lost_at.is_none();
        self.others.iter().filter(counts).filter_map(|other| other.pace.usual()).max()
    }

    /// The leader's own storage holds everything below `end`.
    fn note_own(&mut self, own: StorageId, now: Duration, end: Offset) {
        let Some((at, _)) = self.own.owes.take_if(|(_, owed)| *owed <= end) else { return };
        let usual = self.usual_but(own);
        let age = now.saturating_sub(at);
        self.own.beside_others.note(now, age, usual);
        self.own.alone.note(now, age, Some(Duration::ZERO));
    }
}

impl Acks {
    fn note(&self, storage: StorageId, end: Offset) {
        let committed = {
            let mut state = self.state.lock();
            if let Some(other) = state.others.iter_mut().find(|other| other.member.storage == storage) {
                other.acked = end.max(other.acked);
                other.lost_at = None;
                if other.owes.is_some_and(|(_, owed)| owed <= other.acked) {
                    other.owes = None;
                }
            }
            if storage == self.own {
                state.note_own(storage, self.env.clock.now(), end);
            }
            state.core.acked(storage, end).then(|| state.core.high_watermark())
        };
        if let Some(high_watermark) = committed {
            self.commit.advance(high_watermark);
            // Members hear of it with what comes next, or now.
            if let Some(led) = self.led.get().and_then(Weak::upgrade) {
                led.wake();
            }
        }
        self.moved.notify_waiters();
    }

    /// A member took so long to acknowledge.
    fn note_age(&self, storage: StorageId, age: Duration) {
        let mut state = self.state.lock();
        let usual = state.usual_but(storage);
        if let Some(other) = state.others.iter_mut().find(|other| other.member.storage == storage) {
            other.pace.note(self.env.clock.now(), age, usual);
        }
    }

    fn change(&self, storage: StorageId, change: impl FnOnce(&mut Other)) {
        if let Some(other) = self.state.lock().others.iter_mut().find(|other| other.member.storage == storage)
        {
            change(other);
        }
        self.moved.notify_waiters();
    }
}

impl PushSink for Acks {
    fn acked(&self, storage: StorageId, end: Offset, age: Option<Duration>) {
        if let Some(age) = age {
            self.note_age(storage, age);
        }
        self.note(storage, end);
    }

    fn refused(&self, storage: StorageId, refused: Refused) {
        tracing::warn!(%storage, %refused, "a member takes no more of a segment");
        self.change(storage, |other| other.refused = true);
    }

    fn lost(&self, storage: StorageId) {
        let now = self.env.clock.now();
        self.change(storage, |other| other.lost_at = Some(other.lost_at.unwrap_or(now)));
    }
}

impl DurableListener for Acks {
    fn durable(&self, end: Offset) {
        self.written.advance(end);
        self.note(self.own, end);
        self.commit.round_passed();
    }

    fn failed(&self, error: &StorageError) {
        let error = CommitError::Storage(error.to_string());
        self.written.fail(&error);
        self.commit.fail(&error);
    }
}

/// The leader's own copy.
struct Growing {
    segment: Arc<Segment>,
    commit: Arc<CommitPoint>,
}

impl PushSource for Growing {
    fn end(&self) -> Offset {
        self.segment.end()
    }

    fn high_watermark(&self) -> Offset {
        self.commit.high_watermark()
    }

    fn read(&self, from: Offset, max_bytes: usize, patience: Patience) -> Result<Bytes, StorageError> {
        self.segment.read_with(patience, (from, self.segment.end()), max_bytes, true).map(|slice| slice.bytes)
    }
}
