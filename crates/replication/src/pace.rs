//! How soon a member acknowledges, and whether that is far later than the others do.
//!
//! One that always takes so much longer holds all of them up: records are committed when the slowest member has them. It is
//! better done without (replication.md 2.7, "ack age > adaptive limit"). What all of them take long for is load, and what one
//! took long for now and then is chance.

use std::time::Duration;

/// Nobody is slow who acknowledges sooner.
const AGE_MIN: Duration = Duration::from_millis(50);
/// Nor who takes less than so many times what another one does.
const TIMES: u32 = 4;
/// Slow is who was late so often in a row,
const LATE_MIN: u32 = 3;
/// and for so long.
const LATE_PATIENCE: Duration = Duration::from_millis(500);

/// How long that counts for a leader's own storage, which is not done without at once.
const LATELY: Duration = Duration::from_secs(5);

/// What is known of one member.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// What it takes, smoothed.
    usual: Option<Duration>,
    /// Its last acknowledgements, if they were late.
    late: Option<Late>,
}

#[derive(Clone, Copy, Debug)]
struct Late {
    count: u32,
    first_at: Duration,
    last_at: Duration,
}

impl Pace {
    /// What the member takes, as far as that is known.
    pub(crate) fn usual(&self) -> Option<Duration> {
        self.usual
    }

    /// It acknowledged what was sent so long ago. `others` is what the slowest of the others takes; without any there is
    /// nothing to go by.
    pub(crate) fn note(&mut self, now: Duration, age: Duration, others: Option<Duration>) {
        self.usual = Some(self.usual.map_or(age, |usual| (usual * 7 + age) / 8));
        let is_late = others.is_some_and(|others| age >= AGE_MIN.max(others * TIMES));
        self.late = is_late.then(|| {
            let Late { count, first_at, .. } =
                self.late.unwrap_or(Late { count: 0, first_at: now, last_at: now });
            Late { count: count + 1, first_at, last_at: now }
        });
    }

    /// Whether it is slow and that is not long ago: where nothing is written, nothing shows that it is over.
    pub(crate) fn is_slow_lately(&self, now: Duration) -> bool {
        self.is_slow() && self.late.is_some_and(|late| now.saturating_sub(late.last_at) < LATELY)
    }

    /// Whether the others should go on without it.
    pub(crate) fn is_slow(&self) -> bool {
        self.late.is_some_and(|late| late.count >= LATE_MIN && late.last_at - late.first_at >= LATE_PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Acknowledgements of these ages, one every so often, beside others that take so long.
    fn after(every_ms: u64, ages_ms: &[u64], others_ms: Option<u64>) -> bool {
        let mut pace = Pace::default();
        let mut now = Duration::ZERO;
        for age in ages_ms {
            now += ms(every_ms);
            pace.note(now, ms(*age), others_ms.map(ms));
        }
        pace.is_slow()
    }

    #[test]
    fn who_is_always_late_is_slow() {
        assert!(after(100, &[100; 6], Some(2)));
        assert!(!after(100, &[100; 5], Some(2)), "not for long enough");
        assert!(after(1_000, &[100; 3], Some(2)));
        assert!(!after(1_000, &[100; 2], Some(2)), "not often enough");
    }

    #[test]
    fn who_is_in_time_now_and_then_is_not() {
        assert!(!after(200, &[100, 100, 100, 10, 100, 100], Some(2)));
        assert!(after(200, &[100, 10, 100, 100, 100, 100], Some(2)));
    }

    #[test]
    fn what_all_of_them_take_is_load() {
        assert!(!after(200, &[100; 10], Some(26)));
        assert!(after(200, &[104; 10], Some(26)));
        assert!(!after(200, &[49; 10], Some(0)), "that is quick enough");
        assert!(!after(200, &[1_000; 10], None), "there is nothing to go by");
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let mut pace = Pace::default();
        for at in 1..=4 {
            pace.note(ms(1_000 * at), ms(100), Some(ms(2)));
        }
        assert!(pace.is_slow_lately(ms(8_999)));
        assert!(!pace.is_slow_lately(ms(9_000)));
    }

    #[test]
    fn what_it_takes_is_smoothed() {
        let mut pace = Pace::default();
        assert_eq!(pace.usual(), None);
        pace.note(ms(0), ms(80), None);
        assert_eq!(pace.usual(), Some(ms(80)));
        pace.note(ms(1), ms(0), None);
        assert_eq!(pace.usual(), Some(ms(70)));
    }
}
