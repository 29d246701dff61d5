//! Deadlines, kept lazily: a heartbeat moves a member's deadline thousands of times for every time it fires,
//! so moving one later only writes a number. The heap holds an entry at or before each deadline; an entry that
//! comes up early is put back at the true deadline.
//!
//! Invariant: a slot with a deadline has `queued` at or before it, and the heap holds an entry for `queued`.
//! Entries whose time is not the slot's `queued` are leftovers; they are dropped when they come up, or when there
//! are too many.

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

    /// True if the heap holds its entry at this time.
    pub(crate) fn is_queued_at(&self, at_ms: TimestampMs) -> bool {
        self.queued_ms == Some(at_ms)
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

/// An entry without its names, bytes.
const ENTRY_BYTES: usize = 64;
/// Leftovers are not swept below this, bytes.
const SWEEP_MIN_BYTES: usize = 256 << 10;

impl Entry {
    /// What it holds when nothing but it knows its names any more.
    fn bytes(&self) -> usize {
        let member = match &self.key.kind {
            TimerKind::Member(id) => id.len(),
            TimerKind::Join | TimerKind::Sync | TimerKind::Expiry => 0,
        };
        ENTRY_BYTES + self.key.group.len() + member
    }
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
#[derive(Debug)]
pub(crate) struct Timers {
    heap: BinaryHeap<Entry>,
    sequence: u64,
    /// What the entries hold.
    bytes: usize,
    /// With more than this, leftovers are looked for.
    sweep_above_bytes: usize,
}

impl Default for Timers {
    fn default() -> Timers {
        Timers { heap: BinaryHeap::new(), sequence: 0, bytes: 0, sweep_above_bytes: SWEEP_MIN_BYTES }
    }
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
        let entry = Entry { at_ms, sequence: self.sequence, key };
        self.bytes += entry.bytes();
        self.heap.push(entry);
    }

    /// Drops the leftovers once they may be as many as the rest: clients that come and go would fill the memory with
    /// them long before they come up. `is_queued` says whether the slot a name leads to has its entry at that time.
    pub(crate) fn sweep(&mut self, mut is_queued: impl FnMut(&TimerKey, TimestampMs) -> bool) {
        if self.bytes <= self.sweep_above_bytes {
            return;
        }
        self.heap.retain(|entry| is_queued(&entry.key, entry.at_ms));
        self.bytes = self.heap.iter().map(Entry::bytes).sum();
        self.sweep_above_bytes = (2 * self.bytes).max(SWEEP_MIN_BYTES);
    }

    /// The earliest entry, which may be a leftover: its time and name.
    pub(crate) fn first(&self) -> Option<(TimestampMs, &TimerKey)> {
        self.heap.peek().map(|entry| (entry.at_ms, &entry.key))
    }

    /// Takes the earliest entry. `timer` is the slot its name leads to, if that still exists.
    pub(crate) fn take_first(&mut self, timer: Option<&mut Timer>) -> Due {
        let Some(entry) = self.heap.pop() else { return Due::Again };
        self.bytes -= entry.bytes();
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
    fn leftovers_are_swept_before_they_come_up() {
        let mut timers = Timers::default();
        let member = |number: usize| TimerKey {
            group: "g".into(),
            kind: TimerKind::Member(format!("{number:01000}").into()),
        };
        let mut kept = Timer::default();
        timers.schedule(&mut kept, 5_000, || member(7));
        for number in 1_000..11_000 {
            // A member that is gone at once.
            timers.schedule(&mut Timer::default(), 1_000_000, || member(number));
            timers.sweep(|key, at_ms| *key == member(7) && kept.is_queued_at(at_ms));
            assert!(timers.bytes <= SWEEP_MIN_BYTES + 2_000, "{}", timers.bytes);
        }
        assert!(timers.len() < 300, "{}", timers.len());
        assert_eq!(timers.take_first(Some(&mut kept)), Due::Fire(member(7)));
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
