//! A simulated world: everything a run does follows from one seed.
//!
//! Time is tokio's paused clock, so build the world inside a runtime made with `start_paused(true)`
//! on one thread; then tasks, waiting and "threads" ([`Workers`]) interleave the same way on every run
//! of a seed. A world ([`SimWorld`]) has machines ([`Sim`]), each with a disk ([`SimDisk`]) that knows what was synced and
//! what was not and can lose the rest, a wall clock and workers of its own; the network ([`SimNetwork`]) between them
//! carries bytes within the process. One machine alone is a world of its own ([`Sim::new`]).
//!
//! A machine may live several lives ([`Sim::boot`]): each is given its own [`Env`], through which nothing works any more
//! when it ended, and nothing goes on while it stands still.
//!
//! What it does not do: simulate CPU time, or faults that nobody asked for.
#![allow(clippy::disallowed_methods, reason = "this is the door's other side")]

mod disk;
mod life;
mod network;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod machine_tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

pub use disk::{CrashPolicy, DiskCounts, SimDisk};
pub use network::SimNetwork;
use parking_lot::Mutex;

use self::life::Life;
use self::network::Hub;
use super::{BoxFuture, Clock, Env, Random, Workers};
use crate::ids::TimestampMs;

/// Wall-clock time at which every simulated world begins, ms since the Unix epoch.
pub const START_WALL_MS: TimestampMs = 1_700_000_000_000;

/// Longest time a job waits for its simulated thread, µs.
const JOB_DELAY_MAX_US: u64 = 2_000;

/// Several machines on one network.
pub struct SimWorld {
    random: SimRandom,
    hub: Arc<Hub>,
}

impl SimWorld {
    /// A world without machines.
    pub fn new(seed: u64) -> SimWorld {
        let random = SimRandom::new(seed);
        let hub = Arc::new(Hub::new(random.next_u64()));
        SimWorld { random, hub }
    }

    /// Adds a machine with an empty disk, which others reach by this name.
    pub fn machine(&self, name: &str) -> Sim {
        Sim::plug(&self.hub, name, self.random.next_u64())
    }

    /// The network, as a bystander sees it: to heal all links.
    pub fn heal_network(&self) {
        self.hub.heal_all();
    }

    /// Sets the longest delay of bytes between any two machines, ms.
    pub fn set_delay_max_ms(&self, ms: u64) {
        self.hub.set_delay_max_ms(ms);
    }
}

/// A simulated machine and the handles to disturb it.
pub struct Sim {
    /// What the product is given where lives do not matter, or whoever stands outside of them.
    pub env: Env,
    /// The disk behind `env.disk`.
    pub disk: Arc<SimDisk>,
    /// The network behind `env.network`.
    pub network: Arc<SimNetwork>,
    /// The clock behind `env.clock`.
    pub clock: Arc<SimClock>,
    random: Arc<SimRandom>,
    pool: Arc<Pool>,
    /// The present one, if there was any.
    life: Mutex<Option<Arc<Life>>>,
    hub: Arc<Hub>,
}

impl Sim {
    /// A machine with an empty disk, alone in its world.
    pub fn new(seed: u64) -> Sim {
        Sim::plug(&Arc::new(Hub::new(seed)), "alone", seed)
    }

    fn plug(hub: &Arc<Hub>, name: &str, seed: u64) -> Sim {
        let random = Arc::new(SimRandom::new(seed));
        let disk = Arc::new(SimDisk::new(random.next_u64()));
        let network = Arc::new(hub.plug(name));
        let clock = Arc::new(SimClock::new());
        let pool = Arc::new(Pool {
            random: SimRandom::new(random.next_u64()),
            disk: disk.clone(),
            jobs_die: AtomicBool::new(false),
            delay_max_us: AtomicU64::new(JOB_DELAY_MAX_US),
        });
        let workers = Arc::new(SimWorkers { pool: pool.clone(), life: None });
        let env = Env {
            clock: clock.clone(),
            disk: disk.clone(),
            network: network.clone(),
            random: random.clone(),
            background: workers.clone(),
            workers,
        };
        Sim { env, disk, network, clock, random, pool, life: Mutex::default(), hub: hub.clone() }
    }

    /// Starts a process on the machine, and ends one that still ran as [`Sim::kill`] does. What it is given works until
    /// its life ends.
    pub fn boot(&self) -> Env {
        let lives = self.life.lock().as_ref().is_some_and(|life| !life.has_ended());
        if lives {
            self.kill();
        }
        let life = Arc::new(Life::new(self.hub.changed.clone()));
        *self.life.lock() = Some(life.clone());
        let workers = Arc::new(SimWorkers { pool: self.pool.clone(), life: Some(life.clone()) });
        Env {
            clock: Arc::new(LifeClock { clock: self.clock.clone(), life: life.clone() }),
            disk: Arc::new(self.disk.of_this_life()),
            network: Arc::new(self.network.of_life(life)),
            random: Arc::new(SimRandom::new(self.random.next_u64())),
            background: workers.clone(),
            workers,
        }
    }

    /// The process is killed: nothing written is lost, its connections end.
    pub fn kill(&self) {
        self.end_life(true);
        self.disk.kill();
    }

    /// The power goes: of what was not synced, `policy` says what is lost. Nobody is told that connections ended before
    /// the machine is booted again.
    pub fn lose_power(&self, policy: CrashPolicy) {
        self.end_life(false);
        self.disk.crash(policy);
    }

    fn end_life(&self, has_power: bool) {
        if let Some(life) = &*self.life.lock() {
            life.end();
        }
        self.network.die(has_power);
    }

    /// Lets the process stand still (SIGSTOP) or go on (SIGCONT): meanwhile no timer, job or connection of it moves.
    pub fn pause(&self, paused: bool) {
        if let Some(life) = &*self.life.lock() {
            life.pause(paused);
        }
    }

    /// Whether a process runs there and does not stand still.
    pub fn is_running(&self) -> bool {
        self.life.lock().as_ref().is_some_and(|life| life.is_running())
    }

    /// How long jobs that may wait for the device take, µs at most: a slow disk. `None` is as usual.
    pub fn set_job_delay_max_us(&self, us: Option<u64>) {
        self.pool.delay_max_us.store(us.unwrap_or(JOB_DELAY_MAX_US), Ordering::Relaxed);
    }

    /// From now on a job whose life ended before it began never begins. Whoever waits for it waits for ever, so this is
    /// for lives nobody has to wind up.
    pub fn let_jobs_die_with_their_life(&self) {
        self.pool.jobs_die.store(true, Ordering::Relaxed);
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

/// The clock of one life: no timer of it fires while it stands still or after its end.
struct LifeClock {
    clock: Arc<SimClock>,
    life: Arc<Life>,
}

impl Clock for LifeClock {
    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn wall_ms(&self) -> TimestampMs {
        self.clock.wall_ms()
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture<'static, ()> {
        let (sleep, life) = (self.clock.sleep_until(deadline), self.life.clone());
        Box::pin(async move {
            sleep.await;
            life.running().await;
        })
    }
}

/// The threads of a machine.
struct Pool {
    random: SimRandom,
    disk: Arc<SimDisk>,
    jobs_die: AtomicBool,
    delay_max_us: AtomicU64,
}

/// Jobs as tasks that begin after a random delay, so that their order varies with the seed. Outside a
/// runtime a job runs at once, on the caller's stack.
struct SimWorkers {
    pool: Arc<Pool>,
    life: Option<Arc<Life>>,
}

impl Workers for SimWorkers {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        let delay_max_us = self.pool.delay_max_us.load(Ordering::Relaxed);
        let delay = Duration::from_micros(self.pool.random.below(delay_max_us));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let (pool, begun_in, life) = (self.pool.clone(), self.pool.disk.life(), self.life.clone());
                drop(runtime.spawn(async move {
                    tokio::time::sleep(delay).await;
                    if let Some(life) = life {
                        life.running().await;
                    }
                    if pool.jobs_die.load(Ordering::Relaxed) && pool.disk.life() != begun_in {
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
