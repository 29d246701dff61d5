//! Which logs are compacted when: the dirtiest first, a few at a time, within one budget.
//!
//! One task looks at every compacted log, starts passes while `log.cleaner.threads` allows, and sleeps
//! `log.cleaner.backoff.ms` when there is nothing to do; less where a topic's `max.compaction.lag.ms`
//! or a tombstone asks for it. The work itself runs on background threads (see `replication`), so this
//! task only waits. It ends with the broker; a pass that runs is given up then, which harms nothing.
//!
//! A log whose pass fails is left alone for a while, longer each time, and counted as uncleanable.

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
use replication::{ChainStoreError, Compacted, CompactionBudget, CompactionError, Dirt, Throttle};

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

/// A compacted log, and what there is to do.
struct Look {
    partition: Arc<Partition>,
    dirt: Dirt,
}

/// A log that is left alone.
struct Failure {
    count: u32,
    /// On the clock of the environment.
    until: Duration,
}

/// A pass that ended.
struct Ended {
    partition: Arc<Partition>,
    result: Result<Compacted, CompactionError>,
    took: Duration,
}

/// What the task remembers.
struct Compactor {
    env: Env,
    metrics: NodeMetrics,
    throttle: Arc<Throttle>,
    bytes_per_second: f64,
    failures: HashMap<TopicPartition, Failure>,
    running: HashSet<TopicPartition>,
}

impl Broker {
    /// Starts the task, unless `log.cleaner.enable` says no. Before it begins, what an earlier life left is
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
            if enabled {
                compact_for_ever(broker, drain).await;
            }
        });
    }
}

async fn compact_for_ever(broker: Weak<Broker>, drain: DrainSignal) {
    let Some(strong) = broker.upgrade() else { return };
    let bytes_per_second = strong.config().get(keys::LOG_CLEANER_IO_MAX_BYTES_PER_SECOND);
    let mut compactor = Compactor {
        env: strong.env.clone(),
        metrics: strong.metrics.node().clone(),
        throttle: Arc::new(Throttle::new(&strong.env, Some(bytes_per_second))),
        bytes_per_second,
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
        self.failures.retain(|id, _| known.contains(id));
        self.metrics.compaction_uncleanable.set(i64::try_from(self.failures.len()).unwrap_or(i64::MAX));
        let paused = |id: &TopicPartition| self.failures.get(id).is_some_and(|failure| failure.until > now);
        let candidates: Vec<_> = partitions
            .into_iter()
            .filter(|partition| partition.log.settings().compact)
            .filter(|partition| !paused(&partition.id()) && !self.running.contains(&partition.id()))
            .collect();
        let backoff_ms = u64::try_from(config.get(keys::LOG_CLEANER_BACKOFF_MS)).unwrap_or(0);
        let soonest_ms = candidates.iter().map(|partition| due_in_ms(partition, now_ms)).min();
        let sleep_ms =
            soonest_ms.and_then(|ms| u64::try_from(ms).ok()).map_or(backoff_ms, |ms| ms.min(backoff_ms));
        // Looking reads indexes and headers.
        let looks = self.env.in_background(move || looks(candidates, now_ms)).await;
        let dirtiest = looks.iter().map(|look| look.dirt.ratio()).fold(0.0, f64::max);
        self.metrics.compaction_max_dirty_percent.set((dirtiest * 100.0) as i64);
        let due = looks.into_iter().filter(|look| look.dirt.is_due(&look.partition.log.settings()));
        let mut due: Vec<_> = due.collect();
        due.sort_by(|a, b| urgency(&b.dirt, &a.dirt));
        (due, Duration::from_millis(sleep_ms).max(LOOK_INTERVAL_MIN))
    }

    /// Begins a pass.
    fn start(&mut self, look: Look, config: &BrokerConfig) -> impl Future<Output = Ended> + Send + use<> {
        let Look { partition, .. } = look;
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
            let result = partition.log.compact(&budget, clock.wall_ms()).await;
            Ended { partition, result, took: clock.now() - begun }
        }
    }

    fn note(&mut self, ended: Ended) {
        let Ended { partition, result, took } = ended;
        let (id, topic) = (partition.id(), &*partition.topic);
        self.running.remove(&id);
        match result {
            Ok(done) => {
                self.failures.remove(&id);
                self.count(&done);
                tracing::info!(
                    topic,
                    partition = id.partition.0,
                    segments_before = done.segments_before,
                    segments_after = done.segments_after,
                    bytes_before = done.bytes_read,
                    bytes_after = done.bytes_written,
                    records_before = done.records_read,
                    records_after = done.records_kept,
                    took_ms = took.as_millis() as u64,
                    "a log was compacted"
                );
            }
            // Deleted, trimmed or closed meanwhile: nothing is wrong.
            Err(CompactionError::Chain(
                error @ (ChainStoreError::Refused(_) | ChainStoreError::UnknownPartition),
            )) => {
                tracing::debug!(topic, partition = id.partition.0, %error, "a pass of compaction came too late");
            }
            Err(error) => self.fail(&partition, &error),
        }
    }

    fn count(&self, done: &Compacted) {
        self.metrics.compaction_passes.inc();
        self.metrics.compaction_bytes_read.inc_by(done.bytes_indexed + done.bytes_read);
        self.metrics.compaction_bytes_written.inc_by(done.bytes_written);
        self.metrics.compaction_records_dropped.inc_by(done.records_read - done.records_kept);
    }

    fn fail(&mut self, partition: &Partition, error: &CompactionError) {
        self.metrics.compaction_failures.inc();
        let failure =
            self.failures.entry(partition.id()).or_insert(Failure { count: 0, until: Duration::ZERO });
        let pause = FAILURE_PAUSE_MIN.saturating_mul(1 << failure.count.min(16)).min(FAILURE_PAUSE_MAX);
        failure.count += 1;
        failure.until = self.env.clock.now() + pause;
        tracing::error!(
            topic = &*partition.topic,
            partition = partition.id().partition.0,
            %error,
            again_in_s = pause.as_secs(),
            "a log cannot be compacted now; it is served as it is"
        );
    }
}

/// In how many ms a log may be due though it was not a moment ago, as far as time decides.
fn due_in_ms(partition: &Partition, now_ms: TimestampMs) -> i64 {
    let horizon_ms = partition.log.next_tombstone_horizon_ms();
    let horizon_in_ms = horizon_ms.map_or(i64::MAX, |horizon| horizon.saturating_sub(now_ms));
    partition.log.settings().max_compaction_lag_ms.min(horizon_in_ms).max(0)
}

fn looks(candidates: Vec<Arc<Partition>>, now_ms: TimestampMs) -> Vec<Look> {
    let mut looks = Vec::with_capacity(candidates.len());
    for partition in candidates {
        match partition.log.dirt(now_ms) {
            Ok(dirt) => looks.push(Look { partition, dirt }),
            Err(error) => tracing::warn!(
                topic = &*partition.topic,
                partition = partition.id().partition.0,
                %error,
                "cannot tell what there is to compact"
            ),
        }
    }
    looks
}

/// Overdue ones first, then by the share of dirty bytes.
fn urgency(a: &Dirt, b: &Dirt) -> Ordering {
    (a.overdue_ms > 0).cmp(&(b.overdue_ms > 0)).then(a.ratio().total_cmp(&b.ratio()))
}
