//! A simulated world: everything a run does follows from one seed.
//!
//! Time is tokio's paused clock, so build the world inside a runtime made with `start_paused(true)`
//! on one thread; then tasks, waiting and "threads" ([`Workers`]) interleave the same way on every run
//! of a seed. The disk ([`SimDisk`]) knows what was synced and what was not and can lose the rest; the
//! network ([`SimNetwork`]) carries bytes within the process.
//!
//! What it does not do: simulate CPU time, or faults that nobody asked for.
#![allow(clippy::disallowed_methods, reason = "this is the door's other side")]

mod disk;
mod network;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod disk_tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

pub use disk::{CrashPolicy, DiskCounts, SimDisk};
pub use network::SimNetwork;

use super::{BoxFuture, Clock, Env, Random, Workers};
use crate::ids::TimestampMs;

/// Wall-clock time at which every simulated world begins, ms since the Unix epoch.
pub const START_WALL_MS: TimestampMs = 1_700_000_000_000;

/// Longest time a job waits for its simulated thread, µs.
const JOB_DELAY_MAX_US: u64 = 2_000;

/// A simulated world and the handles to disturb it.
pub struct Sim {
    /// What the product is given.
    pub env: Env,
    /// The disk behind `env.disk`.
    pub disk: Arc<SimDisk>,
    /// The network behind `env.network`.
    pub network: Arc<SimNetwork>,
    /// The clock behind `env.clock`.
    pub clock: Arc<SimClock>,
    jobs_die: Arc<AtomicBool>,
}

impl Sim {
    /// A fresh world with an empty disk.
    pub fn new(seed: u64) -> Sim {
        let random = Arc::new(SimRandom::new(seed));
        let disk = Arc::new(SimDisk::new(random.next_u64()));
        let network = Arc::new(SimNetwork::new());
        let clock = Arc::new(SimClock::new());
        let jobs_die = Arc::new(AtomicBool::new(false));
        let workers = Arc::new(SimWorkers {
            random: SimRandom::new(random.next_u64()),
            disk: disk.clone(),
            jobs_die: jobs_die.clone(),
        });
        let env = Env {
            clock: clock.clone(),
            disk: disk.clone(),
            network: network.clone(),
            random,
            background: workers.clone(),
            workers,
        };
        Sim { env, disk, network, clock, jobs_die }
    }

    /// From now on a job whose life ended before it began never begins. Whoever waits for it waits for ever, so this is
    /// for lives nobody has to wind up.
    pub fn let_jobs_die_with_their_life(&self) {
        self.jobs_die.store(true, Ordering::Relaxed);
    }
}

impl Env {
    /// A simulated world when no handle to disturb it is needed; see [`Sim::new`].
    pub fn sim(seed: u64) -> Env {
        Sim::new(seed).env
    }
}

/// Time of the tokio runtime it was made in.
pub struct SimClock {
    start: tokio::time::Instant,
    wall_jump_ms: AtomicI64,
}

impl SimClock {
    fn new() -> SimClock {
        SimClock { start: tokio::time::Instant::now(), wall_jump_ms: AtomicI64::new(0) }
    }

    /// Moves the wall clock, forward or back, as an operator or NTP may.
    pub fn jump_wall(&self, by_ms: i64) {
        self.wall_jump_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        tokio::time::Instant::now().saturating_duration_since(self.start)
    }

    fn wall_ms(&self) -> TimestampMs {
        let since_ms = i64::try_from(self.now().as_millis()).unwrap_or(i64::MAX / 2);
        START_WALL_MS + since_ms + self.wall_jump_ms.load(Ordering::Relaxed)
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(self.start + deadline))
    }
}

/// Seeded random numbers (SplitMix64): good mixing, no claim to secrecy.
pub struct SimRandom {
    state: AtomicU64,
}

impl SimRandom {
    /// A sequence that depends on `seed` alone.
    pub fn new(seed: u64) -> SimRandom {
        SimRandom { state: AtomicU64::new(seed) }
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.next_u64() % bound
    }
}

impl Random for SimRandom {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }

    fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Jobs as tasks that begin after a random delay, so that their order varies with the seed. Outside a
/// runtime a job runs at once, on the caller's stack.
struct SimWorkers {
    random: SimRandom,
    disk: Arc<SimDisk>,
    jobs_die: Arc<AtomicBool>,
}

impl Workers for SimWorkers {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        let delay = Duration::from_micros(self.random.below(JOB_DELAY_MAX_US));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let (disk, life) = (self.disk.clone(), self.disk.life());
                let jobs_die = self.jobs_die.clone();
                drop(runtime.spawn(async move {
                    tokio::time::sleep(delay).await;
                    if jobs_die.load(Ordering::Relaxed) && disk.life() != life {
                        std::future::pending::<()>().await;
                    }
                    job();
                }));
            }
            Err(_) => job(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_of_a_life_that_ended_never_begin() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let sim = Sim::new(1);
            sim.let_jobs_die_with_their_life();
            let runs = Arc::new(AtomicU64::new(0));
            let count = || {
                let runs = runs.clone();
                Box::new(move || {
                    runs.fetch_add(1, Ordering::Relaxed);
                })
            };
            sim.env.workers.run(count());
            sim.disk.kill();
            sim.env.workers.run(count());
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(runs.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn random_numbers_follow_from_the_seed() {
        let draw = |seed| {
            let random = SimRandom::new(seed);
            let mut bytes = [0; 11];
            random.fill(&mut bytes);
            (bytes, random.next_u64())
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn time_and_jobs_follow_from_the_seed() {
        let run = |seed| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.expect("a runtime").block_on(async move {
                let sim = Sim::new(seed);
                let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
                let jobs = (0..5).map(|index| {
                    let order = order.clone();
                    sim.env.blocking(move || order.lock().push(index))
                });
                futures::future::join_all(jobs.collect::<Vec<_>>()).await;
                sim.env.clock.sleep(Duration::from_secs(3600)).await;
                sim.clock.jump_wall(-5_000);
                let order = order.lock().clone();
                (order, sim.env.clock.now(), sim.env.clock.wall_ms())
            })
        };
        assert_eq!(run(7), run(7));
        assert!((0..50).any(|seed| run(seed).0 != run(7).0));
        let (_, now, wall_ms) = run(7);
        assert!(now >= Duration::from_secs(3600) && now < Duration::from_secs(3601));
        assert_eq!(wall_ms, START_WALL_MS + now.as_millis() as i64 - 5_000);
    }
}
