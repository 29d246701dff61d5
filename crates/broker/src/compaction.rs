//! Which logs are rewritten when: compacted ones the dirtiest first, and any whose chain has become long, a few at a time,
//! within one budget.
//!
//! One task looks at every log, starts passes while `log.cleaner.threads` allows, and sleeps
//! `log.cleaner.backoff.ms` when there is nothing to do; less where a topic's `max.compaction.lag.ms`
//! or a tombstone asks for it. The work itself runs on background threads (see `replication`), so this
//! task only waits. It ends with the broker; a pass that runs is given up then, which harms nothing.
//!
//! Small segments are joined before logs are compacted that may wait: it happens rarely and is soon done. Without
//! `log.cleaner.enable` it is all that happens.
//!
//! A log whose pass fails is left alone for a while, longer each time; one that cannot be compacted is counted as
//! uncleanable.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::config::{BrokerConfig, keys};
use base::env::Env;
use base::ids::{TimestampMs, TopicPartition};
use base::metrics::NodeMetrics;
use futures::StreamExt;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use metadata::Image;
use replication::{
    ChainStoreError, Coalesced, Compacted, CompactionBudget, CompactionError, Dirt, StorageError, Throttle,
};

use crate::broker::Broker;
use crate::memory::MemoryShares;
use crate::net::DrainSignal;
use crate::partition::Partition;

/// Least time between two looks, whatever the configuration says.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// How long a log is left alone after its first failure; twice as long after each further one.
const FAILURE_PAUSE_MIN: Duration = Duration::from_secs(15);

/// How long at most.
const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// What may be done to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Work {
    Compact,
    Coalesce,
}

/// A log, and what there is to do.
struct Look {
    partition: Arc<Partition>,
    work: Work,
    /// Nothing where small segments are to be joined.
    dirt: Dirt,
}

impl Look {
    fn is_due(&self) -> bool {
        self.work == Work::Coalesce || self.dirt.is_due(&self.partition.log.settings())
    }
}

/// A log that is left alone.
struct Failure {
    count: u32,
    /// On the clock of the environment.
    until: Duration,
}

/// What a pass did.
enum Done {
    Compacted(Compacted),
    Coalesced(Coalesced),
}

/// A pass that ended.
struct Ended {
    partition: Arc<Partition>,
    work: Work,
    result: Result<Done, CompactionError>,
    took: Duration,
}

/// What the task remembers.
struct Compactor {
    env: Env,
    metrics: NodeMetrics,
    throttle: Arc<Throttle>,
    bytes_per_second: f64,
    compacts: bool,
    failures: HashMap<(TopicPartition, Work), Failure>,
    running: HashSet<TopicPartition>,
}

impl Broker {
    /// Starts the task. Before it begins, what an earlier life left is
    /// removed; `image` is the metadata this life began with.
    pub(crate) fn spawn_compaction(self: &Arc<Self>, image: Arc<Image>) {
        let broker = Arc::downgrade(self);
        let (drain, enabled) = (self.drain.clone(), self.config().get(keys::LOG_CLEANER_ENABLE));
        if !enabled {
            tracing::warn!(
                "compaction is switched off (log.cleaner.enable): compacted topics keep every record"
            );
        }
        tokio::spawn(async move {
            if let Some(strong) = broker.upgrade() {
                strong.remove_strays(image).await;
            }
            rewrite_for_ever(broker, drain, enabled).await;
        });
    }
}

async fn rewrite_for_ever(broker: Weak<Broker>, drain: DrainSignal, compacts: bool) {
    let Some(strong) = broker.upgrade() else { return };
    let bytes_per_second = strong.config().get(keys::LOG_CLEANER_IO_MAX_BYTES_PER_SECOND);
    let mut compactor = Compactor {
        env: strong.env.clone(),
        metrics: strong.metrics.node().clone(),
        throttle: Arc::new(Throttle::new(&strong.env, Some(bytes_per_second))),
        bytes_per_second,
        compacts,
        failures: HashMap::new(),
        running: HashSet::new(),
    };
    drop(strong);
    let mut passes = FuturesUnordered::new();
    while let Some(strong) = broker.upgrade() {
        let config = strong.config();
        let partitions = strong.partitions.all();
        drop(strong);
        compactor.follow(&config);
        let (looks, sleep) = compactor.look(partitions, &config).await;
        let threads = usize::try_from(config.get(keys::LOG_CLEANER_THREADS)).unwrap_or(0);
        for look in looks.into_iter().take(threads.saturating_sub(compactor.running.len())) {
            passes.push(compactor.start(look, &config));
        }
        let sleep = compactor.env.clock.sleep(sleep);
        match select(pin!(drain.draining()), select(sleep, pin!(next_of(&mut passes)))).await {
            Either::Left(_) => return,
            Either::Right((Either::Left(_), _)) => {}
            Either::Right((Either::Right((ended, _)), _)) => compactor.note(ended),
        }
    }
}

/// The next pass that ends; never when none runs.
async fn next_of(passes: &mut FuturesUnordered<impl Future<Output = Ended>>) -> Ended {
    match passes.next().await {
        Some(ended) => ended,
        None => std::future::pending().await,
    }
}

impl Compactor {
    /// Takes over changed settings. All passes share one throttle, so a change of its rate reaches those that
    /// begin from now on.
    fn follow(&mut self, config: &BrokerConfig) {
        let bytes_per_second = config.get(keys::LOG_CLEANER_IO_MAX_BYTES_PER_SECOND);
        if bytes_per_second != self.bytes_per_second {
            self.throttle = Arc::new(Throttle::new(&self.env, Some(bytes_per_second)));
            self.bytes_per_second = bytes_per_second;
        }
    }

    /// The logs that are due, most urgent first, and how long nothing else will be.
    async fn look(
        &mut self,
        partitions: Vec<Arc<Partition>>,
        config: &BrokerConfig,
    ) -> (Vec<Look>, Duration) {
        let now = self.env.clock.now();
        let now_ms = self.env.clock.wall_ms();
        let known: HashSet<_> = partitions.iter().map(|partition| partition.id()).collect();
        self.failures.retain(|(id, _), _| known.contains(id));
        let uncleanable = self.failures.keys().filter(|(_, work)| *work == Work::Compact).count();
        self.metrics.compaction_uncleanable.set(i64::try_from(uncleanable).unwrap_or(i64::MAX));
        let longest = partitions.iter().map(|partition| partition.log.segment_count()).max().unwrap_or(0);
        self.metrics.longest_chain.set(i64::try_from(longest).unwrap_or(i64::MAX));
        let is_paused = |partition: &Partition, work| {
            self.failures.get(&(partition.id(), work)).is_some_and(|failure| failure.until > now)
        };
        let idle: Vec<_> =
            partitions.into_iter().filter(|partition| !self.running.contains(&partition.id())).collect();
        let candidates: Vec<_> = idle
            .iter()
            .filter(|partition| self.compacts && partition.log.settings().compact)
            .filter(|partition| !is_paused(partition, Work::Compact))
            .cloned()
            .collect();
        let long: Vec<_> =
            idle.into_iter().filter(|partition| !is_paused(partition, Work::Coalesce)).collect();
        let backoff_ms = u64::try_from(config.get(keys::LOG_CLEANER_BACKOFF_MS)).unwrap_or(0);
        let soonest_ms = candidates.iter().map(|partition| due_in_ms(partition, now_ms)).min();
        let sleep_ms =
            soonest_ms.and_then(|ms| u64::try_from(ms).ok()).map_or(backoff_ms, |ms| ms.min(backoff_ms));
        // Looking reads indexes and headers.
        let looks = self.env.in_background(move || looks(candidates, long, now_ms)).await;
        let dirtiest = looks.iter().map(|look| look.dirt.ratio()).fold(0.0, f64::max);
        self.metrics.compaction_max_dirty_percent.set((dirtiest * 100.0) as i64);
        let mut due: Vec<_> = looks.into_iter().filter(Look::is_due).collect();
        due.sort_by(|a, b| urgency(b, a));
        // One thing at a time for each log.
        let mut seen = HashSet::new();
        due.retain(|look| seen.insert(look.partition.id()));
        (due, Duration::from_millis(sleep_ms).max(LOOK_INTERVAL_MIN))
    }

    /// Begins a pass.
    fn start(&mut self, look: Look, config: &BrokerConfig) -> impl Future<Output = Ended> + Send + use<> {
        let Look { partition, work, .. } = look;
        self.running.insert(partition.id());
        let threads = usize::try_from(config.get(keys::LOG_CLEANER_THREADS)).unwrap_or(1).max(1);
        let shares = MemoryShares::from_config(config, self.env.disk.memory_max_bytes());
        let budget = CompactionBudget {
            throttle: self.throttle.clone(),
            map_bytes: shares.compaction_bytes / threads,
            load_factor: config.get(keys::LOG_CLEANER_IO_BUFFER_LOAD_FACTOR),
        };
        let clock = self.env.clock.clone();
        async move {
            let begun = clock.now();
            let log = &partition.log;
            let result = match work {
                Work::Compact => log.compact(&budget, clock.wall_ms()).await.map(Done::Compacted),
                Work::Coalesce => log.coalesce(&budget.throttle).await.map(Done::Coalesced),
            };
            Ended { partition, work, result, took: clock.now() - begun }
        }
    }

    fn note(&mut self, ended: Ended) {
        let Ended { partition, work, result, took } = ended;
        let (id, topic) = (partition.id(), &*partition.topic);
        self.running.remove(&id);
        match result {
            Ok(done) => {
                self.failures.remove(&(id, work));
                self.count(&done);
                tell(&partition, &done, took);
            }
            // Deleted, trimmed or closed meanwhile: nothing is wrong.
            Err(CompactionError::Chain(
                error @ (ChainStoreError::Refused(_) | ChainStoreError::UnknownPartition),
            )) => {
                tracing::debug!(topic, partition = id.partition.0, ?work, %error, "a rewrite came too late");
            }
            Err(error) => self.fail(&partition, work, &error),
        }
    }

    fn count(&self, done: &Done) {
        match done {
            Done::Compacted(done) => {
                self.metrics.compaction_passes.inc();
                self.metrics.compaction_bytes_read.inc_by(done.bytes_indexed + done.bytes_read);
                self.metrics.compaction_bytes_written.inc_by(done.bytes_written);
                self.metrics.compaction_records_dropped.inc_by(done.records_read - done.records_kept);
            }
            Done::Coalesced(done) => {
                self.metrics.coalesced_segments.inc_by(done.segments_before as u64);
                self.metrics.coalesced_bytes.inc_by(done.bytes);
            }
        }
    }

    fn fail(&mut self, partition: &Partition, work: Work, error: &CompactionError) {
        let failure = self
            .failures
            .entry((partition.id(), work))
            .or_insert(Failure { count: 0, until: Duration::ZERO });
        let pause = FAILURE_PAUSE_MIN.saturating_mul(1 << failure.count.min(16)).min(FAILURE_PAUSE_MAX);
        failure.count += 1;
        failure.until = self.env.clock.now() + pause;
        let (topic, number, again_in_s) = (&*partition.topic, partition.id().partition.0, pause.as_secs());
        match work {
            Work::Compact => {
                self.metrics.compaction_failures.inc();
                tracing::error!(
                    topic,
                    partition = number,
                    %error,
                    again_in_s,
                    "a log cannot be compacted now; it is served as it is"
                );
            }
            Work::Coalesce => {
                self.metrics.coalescing_failures.inc();
                tracing::warn!(
                    topic,
                    partition = number,
                    %error,
                    again_in_s,
                    "small segments cannot be joined now; the log is served as it is"
                );
            }
        }
    }
}

fn tell(partition: &Partition, done: &Done, took: Duration) {
    let (topic, number, took_ms) = (&*partition.topic, partition.id().partition.0, took.as_millis() as u64);
    match done {
        Done::Compacted(done) => tracing::info!(
            topic,
            partition = number,
            segments_before = done.segments_before,
            segments_after = done.segments_after,
            bytes_before = done.bytes_read,
            bytes_after = done.bytes_written,
            records_before = done.records_read,
            records_after = done.records_kept,
            took_ms,
            "a log was compacted"
        ),
        Done::Coalesced(done) => tracing::info!(
            topic,
            partition = number,
            segments_before = done.segments_before,
            segments_after = done.segments_after,
            bytes = done.bytes,
            took_ms,
            "small segments of a log were joined"
        ),
    }
}

/// In how many ms a log may be due though it was not a moment ago, as far as time decides.
fn due_in_ms(partition: &Partition, now_ms: TimestampMs) -> i64 {
    let horizon_ms = partition.log.next_tombstone_horizon_ms();
    let horizon_in_ms = horizon_ms.map_or(i64::MAX, |horizon| horizon.saturating_sub(now_ms));
    partition.log.settings().max_compaction_lag_ms.min(horizon_in_ms).max(0)
}

/// Looks at logs that may be compacted, and at those that may have become long.
fn looks(compacted: Vec<Arc<Partition>>, long: Vec<Arc<Partition>>, now_ms: TimestampMs) -> Vec<Look> {
    let mut looks = Vec::with_capacity(compacted.len());
    let warn = |partition: &Partition, error: StorageError| {
        tracing::warn!(
            topic = &*partition.topic,
            partition = partition.id().partition.0,
            %error,
            "cannot tell what there is to rewrite"
        );
    };
    for partition in compacted {
        match partition.log.dirt(now_ms) {
            Ok(dirt) => looks.push(Look { partition, work: Work::Compact, dirt }),
            Err(error) => warn(&partition, error),
        }
    }
    for partition in long {
        match partition.log.coalescing_is_due() {
            Ok(true) => looks.push(Look { partition, work: Work::Coalesce, dirt: Dirt::default() }),
            Ok(false) => {}
            Err(error) => warn(&partition, error),
        }
    }
    looks
}

/// Overdue ones first, then long ones, then by the share of dirty bytes.
fn urgency(a: &Look, b: &Look) -> Ordering {
    let rank = |look: &Look| (look.dirt.overdue_ms > 0, look.work == Work::Coalesce);
    rank(a).cmp(&rank(b)).then(a.dirt.ratio().total_cmp(&b.dirt.ratio()))
}
