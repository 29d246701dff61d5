//! A histogram whose recording is two atomic additions, for the path of every request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of durations, in nanoseconds: 50 µs to 10 s.
const DURATION_BOUNDS_NS: &[u64] = &[
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];
/// Upper bounds of counts: powers of 2 to 4096.
const COUNT_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096];
/// Buckets of the longest list of bounds and the one beyond it.
const BUCKETS_MAX: usize = 18;

/// A histogram with fixed bounds. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bounds: &'static [u64],
    /// Recorded units in one unit shown.
    divisor: f64,
    buckets: [AtomicU64; BUCKETS_MAX],
    sum: AtomicU64,
}

/// The numbers of a histogram at one moment, in the unit shown.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSnapshot {
    /// Sum of all values.
    pub sum: f64,
    /// Number of values.
    pub count: u64,
    /// Upper bound of each bucket and the number of values in it alone; the last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// A histogram of durations, shown in seconds.
    pub fn of_durations() -> Histogram {
        Histogram::new(DURATION_BOUNDS_NS, 1e9)
    }

    /// A histogram of small counts.
    pub fn of_counts() -> Histogram {
        Histogram::new(COUNT_BOUNDS, 1.0)
    }

    fn new(bounds: &'static [u64], divisor: f64) -> Histogram {
        debug_assert!(bounds.len() < BUCKETS_MAX);
        let buckets = std::array::from_fn(|_| AtomicU64::new(0));
        Histogram(Arc::new(Inner { bounds, divisor, buckets, sum: AtomicU64::new(0) }))
    }

    /// Records a duration.
    pub fn record_duration(&self, duration: Duration) {
        self.record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Records a count.
    pub fn record(&self, value: u64) {
        let index = self.0.bounds.partition_point(|bound| *bound < value);
        self.0.buckets[index].fetch_add(1, Ordering::Relaxed);
        self.0.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// The numbers now. Count and buckets agree; the sum may be ahead of them by values just recorded.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let Inner { bounds, divisor, buckets, sum } = &*self.0;
        let limits = bounds.iter().map(|bound| *bound as f64 / divisor).chain([f64::INFINITY]);
        let buckets: Vec<_> =
            limits.zip(buckets).map(|(limit, bucket)| (limit, bucket.load(Ordering::Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        HistogramSnapshot { sum: sum.load(Ordering::Relaxed) as f64 / divisor, count, buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let counts = Histogram::of_counts();
        for value in [0, 1, 2, 3, 4096, 4097] {
            counts.record(value);
        }
        let snapshot = counts.snapshot();
        assert_eq!((snapshot.count, snapshot.sum), (6, 8199.0));
        assert_eq!(snapshot.buckets[..3], [(1.0, 2), (2.0, 1), (4.0, 1)]);
        assert_eq!(snapshot.buckets[12..], [(4096.0, 1), (f64::INFINITY, 1)]);
    }

    #[test]
    fn durations_are_shown_in_seconds() {
        let durations = Histogram::of_durations();
        durations.record_duration(Duration::from_micros(50));
        durations.record_duration(Duration::from_secs(100));
        let snapshot = durations.snapshot();
        assert!((snapshot.sum - 100.00005).abs() < 1e-9);
        assert_eq!(snapshot.buckets.first().map(|bucket| bucket.1), Some(1));
        assert_eq!(snapshot.buckets.last(), Some(&(f64::INFINITY, 1)));
    }
}
