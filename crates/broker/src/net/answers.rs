//! How often small answers may leave over a connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many answers may leave ahead of their time.
const BURST: u64 = 4;

/// Lets a few answers leave at once and then one in each interval. Who waits for the next one gets more with it: that
/// saves requests where there would be very many.
#[derive(Debug, Default)]
pub struct AnswerPace {
    /// Until when, on the environment's clock, what was sent is paid for by waiting, ns.
    paid_until_ns: AtomicU64,
}

impl AnswerPace {
    /// When the next answer may be prepared, on the environment's clock: long ago for most.
    pub fn due(&self, interval: Duration) -> Duration {
        let free_ns = nanoseconds(interval).saturating_mul(BURST);
        Duration::from_nanos(self.paid_until_ns.load(Ordering::Relaxed).saturating_sub(free_ns))
    }

    /// Counts one that leaves now.
    pub fn sent(&self, now: Duration, interval: Duration) {
        let paid_ns = self.paid_until_ns.load(Ordering::Relaxed).max(nanoseconds(now));
        self.paid_until_ns.store(paid_ns.saturating_add(nanoseconds(interval)), Ordering::Relaxed);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(1);

    /// When so many answers leave, one of which is ready so long after the last, µs.
    fn sent(pace: &AnswerPace, ready_us: u64, count: usize) -> Vec<u64> {
        let mut now = Duration::from_secs(5);
        let began = now;
        let mut times = Vec::new();
        for _ in 0..count {
            now = (now + Duration::from_micros(ready_us)).max(pace.due(INTERVAL));
            pace.sent(now, INTERVAL);
            times.push((now - began).as_micros() as u64);
        }
        times
    }

    #[test]
    fn after_a_burst_there_is_one_in_each_interval() {
        assert_eq!(sent(&AnswerPace::default(), 100, 8), [100, 200, 300, 400, 500, 1_100, 2_100, 3_100]);
    }

    #[test]
    fn those_that_come_less_often_are_never_held_back() {
        assert_eq!(sent(&AnswerPace::default(), 1_000, 6), [1_000, 2_000, 3_000, 4_000, 5_000, 6_000]);
    }

    #[test]
    fn a_rest_allows_a_new_burst() {
        let pace = AnswerPace::default();
        pace.sent(Duration::from_secs(1), INTERVAL);
        assert!(pace.due(INTERVAL) <= Duration::from_secs(1));
        sent(&pace, 100, 20);
        assert!(pace.due(INTERVAL) <= Duration::from_secs(6));
    }
}
