//! A limit on bytes per second, shared by all who pay it.

use std::time::Duration;

use base::env::Env;
use parking_lot::Mutex;

/// Payments that reach less far ahead than this are not waited for: sleeping is not free.
const SHORTEST_SLEEP: Duration = Duration::from_millis(5);

/// The limit. Who pays goes into debt first and waits then, so no payment is too large.
pub struct Throttle {
    env: Env,
    /// `None` for no limit.
    bytes_per_second: Option<f64>,
    /// Until when what was paid so far lasts.
    paid_until: Mutex<Duration>,
}

impl Throttle {
    /// A limit of so many bytes per second; without limit when there is none, or one that is no
    /// positive number (Kafka's `log.cleaner.io.max.bytes.per.second`).
    pub fn new(env: &Env, bytes_per_second: Option<f64>) -> Throttle {
        let bytes_per_second = bytes_per_second.filter(|rate| *rate > 0.0 && *rate < 1e15);
        Throttle { env: env.clone(), bytes_per_second, paid_until: Mutex::new(Duration::ZERO) }
    }

    /// Pays for bytes read or written and waits as long as that takes at the allowed rate.
    pub async fn pay(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        let now = self.env.clock.now();
        let until = {
            let mut paid_until = self.paid_until.lock();
            // A day is longer than any single payment should take; it keeps odd rates harmless.
            let cost = Duration::from_secs_f64((bytes as f64 / rate).min(86_400.0));
            *paid_until = (*paid_until).max(now) + cost;
            *paid_until
        };
        if until > now + SHORTEST_SLEEP {
            self.env.clock.sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn payers_share_the_rate() {
        let env = Env::sim(1);
        let throttle = Throttle::new(&env, Some(1_000.0));
        tokio::join!(
            async {
                for _ in 0..10 {
                    throttle.pay(500).await;
                }
            },
            async {
                for _ in 0..5 {
                    throttle.pay(1_000).await;
                }
            }
        );
        assert!((9.9..10.1).contains(&env.clock.now().as_secs_f64()), "{:?}", env.clock.now());
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_never_waits() {
        let env = Env::sim(1);
        for rate in [None, Some(f64::MAX), Some(0.0), Some(f64::NAN)] {
            Throttle::new(&env, rate).pay(u64::MAX).await;
        }
        assert_eq!(env.clock.now(), Duration::ZERO);
    }
}
