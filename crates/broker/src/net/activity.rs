//! Since when a connection stands still, and whether that is too long.
//!
//! Each connection notes what it waits for; once a second all notes are looked through. So a connection needs no
//! timer of its own, and thousands of idle ones cost next to nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use super::lanes::{self, Move, Share};
use super::limits::{
    AFTER_END_OF_INPUT, FRAME_BYTES_PER_SECOND, FRAME_GRACE, SHORT_OF_MEMORY_FRAME, SHORT_OF_MEMORY_WRITE,
    UNREAD_ANSWERS,
};

/// What a connection waits for. Times are those of the environment's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Requests that are being answered.
    pub(super) in_work: usize,
    /// It has nothing to do since then.
    pub(super) idle_since: Option<Duration>,
    /// The peer owes the rest of a frame.
    pub(super) frame: Option<AwaitedFrame>,
    /// Answers wait for the peer to read, and none has moved since then.
    pub(super) unread_since: Option<Duration>,
    /// It reads although memory is spent, since then.
    pub(super) overdrawn_since: Option<Duration>,
    /// The peer has closed its sending side then.
    pub(super) input_ended_at: Option<Duration>,
}

/// A frame of which a part has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AwaitedFrame {
    /// Since when the rest is awaited.
    pub(super) since: Duration,
    /// Bytes that have come since.
    pub(super) bytes: u64,
    /// When the last of them came.
    pub(super) moved_at: Duration,
}

/// Why a connection is closed that did nothing wrong by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was idle for `connections.max.idle.ms`.
    Idle,
    /// Its frame does not get complete.
    SlowFrame,
    /// Its answers are not read.
    UnreadAnswers,
    /// Others wait for the memory it holds.
    ShortOfMemory,
    /// The peer has gone.
    PeerGone,
    /// The broker stops and does not wait any longer.
    Stopped,
}

impl Verdict {
    /// True if the peer let a time pass.
    pub(super) fn is_expiry(self) -> bool {
        self == Verdict::Idle || self.is_notable()
    }

    /// True for what an operator should hear of.
    pub(super) fn is_notable(self) -> bool {
        matches!(self, Verdict::SlowFrame | Verdict::UnreadAnswers | Verdict::ShortOfMemory)
    }

    /// What the log says.
    pub(super) fn explanation(self) -> &'static str {
        match self {
            Verdict::Idle => "idle for longer than connections.max.idle.ms",
            Verdict::SlowFrame => "a request did not get complete in time",
            Verdict::UnreadAnswers => "answers are not being read",
            Verdict::ShortOfMemory => "it held memory that other connections waited for",
            Verdict::PeerGone => "the peer has closed the connection",
            Verdict::Stopped => "the broker stops",
        }
    }
}

impl Standing {
    /// Whether this is too long. `memory_is_spent`: connections wait for memory that others hold.
    fn judge(&self, now: Duration, idle_max: Option<Duration>, memory_is_spent: bool) -> Option<Verdict> {
        let older = |since: Option<Duration>, limit: Duration| {
            since.is_some_and(|since| now.saturating_sub(since) >= limit)
        };
        if idle_max.is_some_and(|limit| older(self.idle_since, limit)) {
            return Some(Verdict::Idle);
        }
        if let Some(frame) = self.frame {
            let overtime = now.saturating_sub(frame.since).saturating_sub(FRAME_GRACE);
            if !overtime.is_zero() && frame.bytes < overtime.as_secs() * FRAME_BYTES_PER_SECOND {
                return Some(Verdict::SlowFrame);
            }
        }
        if older(self.unread_since, idle_max.unwrap_or(UNREAD_ANSWERS)) {
            return Some(Verdict::UnreadAnswers);
        }
        let holds_others_up = older(self.overdrawn_since, SHORT_OF_MEMORY_FRAME)
            || older(self.frame.map(|frame| frame.moved_at), SHORT_OF_MEMORY_FRAME)
            || older(self.unread_since, SHORT_OF_MEMORY_WRITE);
        if memory_is_spent && holds_others_up {
            return Some(Verdict::ShortOfMemory);
        }
        older(self.input_ended_at, AFTER_END_OF_INPUT).then_some(Verdict::PeerGone)
    }
}

/// The note of one connection and the way to wake it.
#[derive(Debug, Default)]
pub(super) struct Activity {
    note: Mutex<Note>,
    waker: AtomicWaker,
    /// Turns with something done, since the last look.
    work: AtomicU64,
    /// The lane it is on, and the one it shall be on.
    lane: AtomicUsize,
    lane_wanted: AtomicUsize,
}

#[derive(Debug, Default)]
struct Note {
    standing: Standing,
    verdict: Option<Verdict>,
}

impl Activity {
    /// Lets the connection be woken by a verdict or a drain.
    pub(super) fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Writes down what the connection waits for; the verdict on it, if there is one, comes back.
    pub(super) fn note(&self, standing: Standing) -> Option<Verdict> {
        let mut note = self.note.lock();
        note.standing = standing;
        note.verdict
    }

    /// Ends the connection at its next turn, which is now.
    pub(super) fn condemn(&self, verdict: Verdict) {
        self.note.lock().verdict.get_or_insert(verdict);
        self.waker.wake();
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// Counts a turn in which something was done.
    pub(super) fn worked(&self) {
        self.work.fetch_add(1, Ordering::Relaxed);
    }

    /// It is on this lane now, and stays.
    pub(super) fn settle_on(&self, lane: usize) {
        self.lane.store(lane, Ordering::Relaxed);
        self.lane_wanted.store(lane, Ordering::Relaxed);
    }

    /// The lane it is on.
    pub(super) fn lane(&self) -> usize {
        self.lane.load(Ordering::Relaxed)
    }

    /// The lane it shall move to, if it shall.
    pub(super) fn is_to_move(&self) -> Option<usize> {
        let wanted = self.lane_wanted.load(Ordering::Relaxed);
        (wanted != self.lane.load(Ordering::Relaxed)).then_some(wanted)
    }

    fn move_to(&self, lane: usize) {
        self.lane_wanted.store(lane, Ordering::Relaxed);
        self.waker.wake();
    }
}

/// The notes of all connections.
#[derive(Debug, Default)]
pub(super) struct Register(Mutex<BTreeMap<u64, Arc<Activity>>>);

impl Register {
    /// Adds a connection; it leaves by [`Register::remove`].
    pub(super) fn add(&self, connection: u64) -> Arc<Activity> {
        let activity = Arc::new(Activity::default());
        self.0.lock().insert(connection, activity.clone());
        activity
    }

    pub(super) fn remove(&self, connection: u64) {
        self.0.lock().remove(&connection);
    }

    /// Ends every connection that stands still for too long. Returns how many requests all of them have in work.
    pub(super) fn check(&self, now: Duration, idle_max: Option<Duration>, memory_is_spent: bool) -> usize {
        let mut in_work = 0;
        for activity in self.0.lock().values() {
            let standing = activity.note.lock().standing;
            in_work += standing.in_work;
            if let Some(verdict) = standing.judge(now, idle_max, memory_is_spent) {
                activity.condemn(verdict);
            }
        }
        in_work
    }

    /// Moves connections to other lanes, as [`lanes::plan`] says. `busy` is the share of its time each lane was busy
    /// since the last call.
    pub(super) fn balance(&self, busy: &[f64]) {
        let connections = self.0.lock();
        let share = |(connection, activity): (&u64, &Arc<Activity>)| Share {
            connection: *connection,
            lane: activity.lane.load(Ordering::Relaxed),
            work: activity.work.swap(0, Ordering::Relaxed),
        };
        let shares: Vec<Share> = connections.iter().map(share).filter(|share| share.work > 0).collect();
        for Move { connection, lane } in lanes::plan(busy, &shares) {
            if let Some(activity) = connections.get(&connection) {
                activity.move_to(lane);
            }
        }
    }

    /// Wakes all, so that they see that the broker drains.
    pub(super) fn wake_all(&self) {
        self.0.lock().values().for_each(|activity| activity.wake());
    }

    /// Ends all.
    pub(super) fn condemn_all(&self, verdict: Verdict) {
        self.0.lock().values().for_each(|activity| activity.condemn(verdict));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(10_000);
    const IDLE: Option<Duration> = Some(Duration::from_secs(600));

    fn ago(seconds: u64) -> Option<Duration> {
        Some(NOW - Duration::from_secs(seconds))
    }

    #[test]
    fn a_connection_at_rest_is_closed_after_the_idle_limit() {
        let standing = |seconds| Standing { idle_since: ago(seconds), ..Standing::default() };
        assert_eq!(standing(599).judge(NOW, IDLE, true), None);
        assert_eq!(standing(600).judge(NOW, IDLE, false), Some(Verdict::Idle));
        assert_eq!(standing(9_000).judge(NOW, None, false), None);
        assert_eq!(Standing::default().judge(NOW, IDLE, true), None, "a request is in work");
    }

    #[test]
    fn a_frame_may_be_slow_but_not_drip() {
        let standing = |seconds, bytes| {
            let since = NOW - Duration::from_secs(seconds);
            Standing { frame: Some(AwaitedFrame { since, bytes, moved_at: NOW }), ..Standing::default() }
        };
        assert_eq!(standing(30, 0).judge(NOW, IDLE, true), None);
        assert_eq!(standing(31, 31).judge(NOW, IDLE, false), Some(Verdict::SlowFrame));
        assert_eq!(standing(1_030, 1_000 * FRAME_BYTES_PER_SECOND).judge(NOW, IDLE, false), None);
        let dripping = standing(1_030, 1_000 * FRAME_BYTES_PER_SECOND - 1);
        assert_eq!(dripping.judge(NOW, IDLE, false), Some(Verdict::SlowFrame));
    }

    #[test]
    fn who_holds_memory_that_others_need_gets_less_time() {
        let unread = |seconds| Standing { unread_since: ago(seconds), ..Standing::default() };
        assert_eq!(unread(599).judge(NOW, IDLE, false), None);
        assert_eq!(unread(600).judge(NOW, IDLE, false), Some(Verdict::UnreadAnswers));
        assert_eq!(unread(599).judge(NOW, None, false), None);
        assert_eq!(unread(600).judge(NOW, None, false), Some(Verdict::UnreadAnswers));
        assert_eq!(unread(30).judge(NOW, IDLE, true), Some(Verdict::ShortOfMemory));
        let overdrawn = Standing { overdrawn_since: ago(10), ..Standing::default() };
        assert_eq!(overdrawn.judge(NOW, IDLE, false), None);
        assert_eq!(overdrawn.judge(NOW, IDLE, true), Some(Verdict::ShortOfMemory));
        let since = NOW - Duration::from_secs(10);
        let frame = Some(AwaitedFrame { since, bytes: 0, moved_at: since });
        let still = Standing { frame, ..Standing::default() };
        assert_eq!(still.judge(NOW, IDLE, false), None);
        assert_eq!(still.judge(NOW, IDLE, true), Some(Verdict::ShortOfMemory));
    }
}
