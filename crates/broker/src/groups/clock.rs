//! Wall-clock time that does not jump.

use std::time::Duration;

use base::env::Clock;
use base::ids::TimestampMs;

/// Wall-clock time at its making, carried on by the monotonic clock: when the system's clock is set, sessions
/// neither end at once nor last for hours.
#[derive(Clone, Copy, Debug)]
pub(super) struct SteadyClock {
    wall_ms: TimestampMs,
    at: Duration,
}

impl SteadyClock {
    pub(super) fn new(clock: &dyn Clock) -> SteadyClock {
        SteadyClock { wall_ms: clock.wall_ms(), at: clock.now() }
    }

    pub(super) fn now_ms(&self, clock: &dyn Clock) -> TimestampMs {
        let since_ms = clock.now().saturating_sub(self.at).as_millis();
        self.wall_ms.saturating_add(i64::try_from(since_ms).unwrap_or(i64::MAX))
    }

    /// When the monotonic clock shows this time, at the earliest now.
    pub(super) fn when(&self, time_ms: TimestampMs) -> Duration {
        let after_ms = time_ms.saturating_sub(self.wall_ms);
        self.at.saturating_add(Duration::from_millis(u64::try_from(after_ms).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use base::env::sim::Sim;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn setting_the_wall_clock_changes_nothing() {
        let sim = Sim::new(1);
        let clock = SteadyClock::new(&*sim.clock);
        let start_ms = clock.now_ms(&*sim.clock);
        sim.clock.jump_wall(3_600_000);
        sim.clock.sleep(Duration::from_millis(1_500)).await;
        assert_eq!(clock.now_ms(&*sim.clock) - start_ms, 1_500);
        sim.clock.sleep_until(clock.when(start_ms + 4_000)).await;
        assert_eq!(clock.now_ms(&*sim.clock) - start_ms, 4_000);
        assert!(clock.when(0) <= sim.clock.now());
    }
}
