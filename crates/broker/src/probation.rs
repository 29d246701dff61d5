//! Brokers whose storages failed or were slow lately: for a while they get no new segments.
//!
//! One that fails again soon after that is tried again later each time: trying costs those who write a moment.

use std::collections::BTreeMap;
use std::time::Duration;

use base::ids::{BrokerId, Incarnation};

/// How long a broker gets no new segments the first time, and at most.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);

struct Entry {
    /// The life in which it failed.
    incarnation: Incarnation,
    until: Duration,
    length: Duration,
}

/// Who is on probation. Times are those of the clock's `now`.
#[derive(Default)]
pub(crate) struct Probation(BTreeMap<BrokerId, Entry>);

impl Probation {
    /// Those who get nothing now. `life` is the life that a broker lives; in a new one it begins anew.
    pub(crate) fn avoided(
        &mut self,
        now: Duration,
        life: impl Fn(BrokerId) -> Option<Incarnation>,
    ) -> Vec<BrokerId> {
        // Who did well for as long as it was kept out is as good as any.
        self.0.retain(|broker, it| life(*broker) == Some(it.incarnation) && now < it.until + it.length);
        self.0.iter().filter(|(_, it)| now < it.until).map(|(broker, _)| *broker).collect()
    }

    /// A broker failed in this life.
    pub(crate) fn failed(&mut self, now: Duration, broker: BrokerId, incarnation: Incarnation) {
        let length = match self.0.get(&broker).filter(|it| it.incarnation == incarnation) {
            // Others of its segments fail at the same time.
            Some(it) if now < it.until => it.length,
            Some(it) => (it.length * 2).min(LONGEST),
            None => FIRST,
        };
        self.0.insert(broker, Entry { incarnation, until: now + length, length });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: BrokerId = BrokerId(1);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn life(number: i64) -> impl Fn(BrokerId) -> Option<Incarnation> {
        move |_| Some(Incarnation(number))
    }

    #[test]
    fn it_lasts_longer_each_time_unless_it_did_well() {
        let mut probation = Probation::default();
        let mut now = s(100);
        for length in [10, 20, 40, 80, 160, 320, 600, 600] {
            probation.failed(now, ONE, Incarnation(7));
            assert_eq!(probation.avoided(now + s(length) - s(1), life(7)), [ONE], "{length}");
            now += s(length);
            assert_eq!(probation.avoided(now, life(7)), [], "{length}");
        }
        now += s(600);
        assert_eq!(probation.avoided(now, life(7)), []);
        probation.failed(now, ONE, Incarnation(7));
        assert_eq!(probation.avoided(now + s(10), life(7)), [], "it did well for long enough");
    }

    #[test]
    fn what_fails_at_the_same_time_counts_once() {
        let mut probation = Probation::default();
        probation.failed(s(1), ONE, Incarnation(7));
        probation.failed(s(2), ONE, Incarnation(7));
        assert_eq!(probation.avoided(s(11), life(7)), [ONE]);
        assert_eq!(probation.avoided(s(12), life(7)), []);
    }

    #[test]
    fn a_new_life_begins_anew() {
        let mut probation = Probation::default();
        probation.failed(s(1), ONE, Incarnation(7));
        assert_eq!(probation.avoided(s(2), life(8)), []);
        assert_eq!(probation.avoided(s(2), |_| None), []);
    }
}
