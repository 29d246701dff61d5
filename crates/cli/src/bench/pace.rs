//! When each record is due: an open loop, which does not slow down when the broker does.
//!
//! A load generator that waits for an answer before it sends the next record leaves out the very moments in
//! which answers are slow ("coordinated omission"). So records are due at fixed times, whatever happens, and
//! latency counts from there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::env::Env;
use tokio::sync::Semaphore;

/// Shortest sleep of the thread that keeps the time: records due within it are let go together.
const TICK: Duration = Duration::from_micros(100);

/// The times at which the records of one producer are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    start: Duration,
    /// Seconds between two records.
    interval: f64,
}

impl Schedule {
    /// So many records a second from `start` on, at `share` of an interval into the first: producers that
    /// share a rate take turns.
    pub(super) fn new(start: Duration, records_per_second: f64, share: f64) -> Schedule {
        let interval = 1.0 / records_per_second;
        Schedule { start: start + Duration::from_secs_f64(interval * share), interval }
    }

    /// When that record is due.
    pub(super) fn due(&self, index: u64) -> Duration {
        self.start + Duration::from_secs_f64(self.interval * index as f64)
    }

    /// How many records are due by `now`.
    pub(super) fn due_by(&self, now: Duration) -> u64 {
        match now.checked_sub(self.start) {
            Some(since) => (since.as_secs_f64() / self.interval) as u64 + 1,
            None => 0,
        }
    }
}

/// Lets a producer go on when a record is due.
#[derive(Debug)]
pub(super) struct Gate {
    permits: Semaphore,
}

impl Gate {
    /// Waits for the next record's time.
    pub(super) async fn pass(&self) {
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
    }
}

/// The thread that keeps the time; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Pacemaker(Arc<AtomicBool>);

impl Drop for Pacemaker {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Pacemaker {
    /// Begins; answers a gate for each schedule. Sleeps of a thread are exact to some tens of microseconds,
    /// those of tasks to a millisecond.
    pub(super) fn start(env: &Env, schedules: Vec<Schedule>) -> (Pacemaker, Vec<Arc<Gate>>) {
        let gates: Vec<_> = schedules.iter().map(|_| Arc::new(Gate { permits: Semaphore::new(0) })).collect();
        let ended = Arc::new(AtomicBool::new(false));
        let (clock, told, opened) = (env.clock.clone(), ended.clone(), gates.clone());
        let keep_time = move || {
            let mut passed = vec![0; schedules.len()];
            while !told.load(Ordering::Acquire) {
                let now = clock.now();
                let mut next = Duration::MAX;
                for ((schedule, gate), passed) in schedules.iter().zip(&opened).zip(&mut passed) {
                    let due = schedule.due_by(now);
                    gate.permits.add_permits(usize::try_from(due - *passed).unwrap_or(0));
                    *passed = due;
                    next = next.min(schedule.due(due));
                }
                sleep(next.saturating_sub(clock.now()).max(TICK).min(Duration::from_millis(100)));
            }
        };
        env.workers.run(Box::new(keep_time));
        (Pacemaker(ended), gates)
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock's sleeps are those of tasks, a millisecond coarse")]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_due_at_even_distances() {
        let start = Duration::from_secs(10);
        let schedule = Schedule::new(start, 1_000.0, 0.5);
        assert_eq!(schedule.due(0), start + Duration::from_micros(500));
        assert_eq!(schedule.due(1_000), start + Duration::from_micros(1_000_500));
        assert_eq!(schedule.due_by(start), 0);
        for index in [0, 1, 7, 999, 123_456] {
            let due = schedule.due(index) + Duration::from_nanos(100);
            assert_eq!(schedule.due_by(due), index + 1, "{index}");
        }
    }

    #[test]
    fn a_late_generator_makes_up_for_what_it_missed() {
        let schedule = Schedule::new(Duration::ZERO, 10_000.0, 0.0);
        assert_eq!(schedule.due_by(Duration::from_secs(2)), 20_001);
    }
}
