//! Deadlines, kept lazily: a heartbeat moves a member's deadline thousands of times for every time it fires,
//! so moving one later only writes a number. The heap holds an entry at or before each deadline; an entry that
//! comes up early is put back at the true deadline.
//!
//! Invariant: a slot with a deadline has `queued` at or before it, and the heap holds an entry for `queued`.
//! Entries whose time is not the slot's `queued` are leftovers and are dropped when they come up.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use base::ids::TimestampMs;

/// One deadline, embedded in what it belongs to.
#[derive(Debug, Default, Clone)]
pub(crate) struct Timer {
    deadline_ms: Option<TimestampMs>,
    queued_ms: Option<TimestampMs>,
}

impl Timer {
    /// Takes the deadline away; a leftover entry in the heap does no harm.
    pub(crate) fn cancel(&mut self) {
        self.deadline_ms = None;
    }

    /// When it fires, if it is set.
    #[cfg(test)]
    pub(crate) fn deadline_ms(&self) -> Option<TimestampMs> {
        self.deadline_ms
    }
}

/// What a deadline is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TimerKind {
    /// End of a group's join phase.
    Join,
    /// End of a group's sync phase.
    Sync,
    /// Session of a member, or of a member id that was handed out.
    Member(Arc<str>),
    /// Search for expired offsets over all groups of the shard; its group is empty.
    Expiry,
}

/// Name of a timer, by which its slot is found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TimerKey {
    pub(crate) group: Arc<str>,
    pub(crate) kind: TimerKind,
}

#[derive(Debug)]
struct Entry {
    at_ms: TimestampMs,
    sequence: u64,
    key: TimerKey,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest, since the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ms, other.sequence).cmp(&(self.at_ms, self.sequence))
    }
}

/// What came up when the heap was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// This timer's deadline has come; the slot is cleared.
    Fire(TimerKey),
    /// The entry was a leftover or early; ask again.
    Again,
}

/// All deadlines of a shard.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Entry>,
    sequence: u64,
}

impl Timers {
    /// Sets or moves a deadline.
    pub(crate) fn schedule(&mut self, timer: &mut Timer, at_ms: TimestampMs, key: impl FnOnce() -> TimerKey) {
        timer.deadline_ms = Some(at_ms);
        if timer.queued_ms.is_none_or(|queued| at_ms < queued) {
            timer.queued_ms = Some(at_ms);
            self.push(at_ms, key());
        }
    }

    fn push(&mut self, at_ms: TimestampMs, key: TimerKey) {
        self.sequence += 1;
        self.heap.push(Entry { at_ms, sequence: self.sequence, key });
    }

    /// The earliest entry, which may be a leftover: its time and name.
    pub(crate) fn first(&self) -> Option<(TimestampMs, &TimerKey)> {
        self.heap.peek().map(|entry| (entry.at_ms, &entry.key))
    }

    /// Takes the earliest entry. `timer` is the slot its name leads to, if that still exists.
    pub(crate) fn take_first(&mut self, timer: Option<&mut Timer>) -> Due {
        let Some(entry) = self.heap.pop() else { return Due::Again };
        let Some(timer) = timer.filter(|timer| timer.queued_ms == Some(entry.at_ms)) else {
            return Due::Again;
        };
        match timer.deadline_ms {
            Some(deadline) if deadline <= entry.at_ms => {
                *timer = Timer::default();
                Due::Fire(entry.key)
            }
            Some(deadline) => {
                timer.queued_ms = Some(deadline);
                self.push(deadline, entry.key);
                Due::Again
            }
            None => {
                timer.queued_ms = None;
                Due::Again
            }
        }
    }

    /// True if the earliest entry stands exactly for the deadline of `timer`.
    pub(crate) fn first_is_exact(&self, timer: Option<&Timer>) -> bool {
        match (self.heap.peek(), timer) {
            (Some(entry), Some(timer)) => {
                timer.queued_ms == Some(entry.at_ms) && timer.deadline_ms == Some(entry.at_ms)
            }
            _ => false,
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.heap.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TimerKey {
        TimerKey { group: "g".into(), kind: TimerKind::Join }
    }

    fn fire_all(timers: &mut Timers, timer: &mut Timer, now_ms: i64) -> usize {
        let mut fired = 0;
        while timers.first().is_some_and(|(at, _)| at <= now_ms) {
            fired += usize::from(timers.take_first(Some(timer)) == Due::Fire(key()));
        }
        fired
    }

    #[test]
    fn moving_a_deadline_later_adds_no_entry() {
        let (mut timers, mut timer) = (Timers::default(), Timer::default());
        for at in 100..1_100 {
            timers.schedule(&mut timer, at, key);
        }
        assert_eq!(timers.len(), 1);
        assert_eq!(fire_all(&mut timers, &mut timer, 1_098), 0);
        assert_eq!(timers.len(), 1);
        assert_eq!(fire_all(&mut timers, &mut timer, 1_099), 1);
        assert_eq!(timers.len(), 0);
    }

    #[test]
    fn moving_a_deadline_earlier_fires_once_at_the_earlier_time() {
        let (mut timers, mut timer) = (Timers::default(), Timer::default());
        timers.schedule(&mut timer, 100, key);
        timers.schedule(&mut timer, 50, key);
        assert_eq!(fire_all(&mut timers, &mut timer, 50), 1);
        assert_eq!(timer.deadline_ms(), None);
        assert_eq!(fire_all(&mut timers, &mut timer, 1_000), 0);
        assert_eq!(timers.len(), 0);
    }

    #[test]
    fn a_cancelled_deadline_does_not_fire_until_it_is_set_again() {
        let (mut timers, mut timer) = (Timers::default(), Timer::default());
        timers.schedule(&mut timer, 100, key);
        timer.cancel();
        timers.schedule(&mut timer, 200, key);
        timer.cancel();
        assert_eq!(fire_all(&mut timers, &mut timer, 150), 0);
        timers.schedule(&mut timer, 300, key);
        assert_eq!(fire_all(&mut timers, &mut timer, 299), 0);
        assert_eq!(fire_all(&mut timers, &mut timer, 300), 1);
    }
}
