//! What a broker does by itself: retention, rolls by age, checkpoints of slow logs, forgetting idle
//! producers, the members of open segments.
//!
//! Tasks woken by the clock. Each works through partitions one after the other and yields between them;
//! deletions go to the disk's own workers.

use std::sync::{Arc, Weak};
use std::time::Duration;

use base::chain::Member;
use base::config::keys;
use base::ids::BrokerId;
use futures::StreamExt;
use replication::TailState;

use crate::broker::Broker;
use crate::partition::Partition;

/// How often all logs are looked at: for rolls by age, expired producers, checkpoints.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Most and least time between two looks at logs whose segments are rolled younger than that.
const ROLL_INTERVAL_MAX: Duration = Duration::from_secs(1);
const ROLL_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// How often members of open segments are looked after.
const MEND_INTERVAL: Duration = Duration::from_millis(100);

/// Of so many partitions the members of one more are changed at a time.
const PARTITIONS_PER_MOVE: usize = 50;

/// Least time between two looks at retention, whatever the configuration says.
const RETENTION_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Logs by the rhythm in which their retention is looked at. As in Kafka, for those that are compacted and deleted
/// from it is the rhythm of compaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Logs {
    Plain,
    Compacted,
}

impl Broker {
    /// Starts the task; it ends with the broker.
    pub(crate) fn spawn_keeper(self: &Arc<Self>) {
        tokio::spawn(sweep_for_ever(Arc::downgrade(self)));
        tokio::spawn(roll_for_ever(Arc::downgrade(self)));
        tokio::spawn(mend_for_ever(Arc::downgrade(self)));
        tokio::spawn(move_for_ever(Arc::downgrade(self)));
        tokio::spawn(retain_for_ever(Arc::downgrade(self), Logs::Plain));
        tokio::spawn(retain_for_ever(Arc::downgrade(self), Logs::Compacted));
    }

    /// The broker after a time, for tasks that do something again and again; `None` once it is no more, which does not wait
    /// for them.
    pub(crate) async fn after(broker: &Weak<Broker>, interval: Duration) -> Option<Arc<Broker>> {
        let sleep = broker.upgrade()?.env.clock.sleep(interval);
        sleep.await;
        broker.upgrade()
    }

    async fn sweep(&self) {
        let now_ms = self.env.clock.wall_ms();
        let expiration_ms = i64::from(self.config().get(keys::PRODUCER_ID_EXPIRATION_MS));
        let mut producers = 0;
        for partition in self.partitions.all() {
            producers += partition.log.with_derived(|derived| {
                derived.expire(now_ms, expiration_ms);
                derived.len()
            });
            if let TailState::Ready(tail) = partition.log.tail() {
                tail.checkpoint_slow();
            }
            partition.log.roll_if_due();
            tokio::task::yield_now().await;
        }
        self.metrics.node().producer_ids.set(i64::try_from(producers).unwrap_or(i64::MAX));
    }

    /// Rolls what is due of the logs whose segments grow old faster than the sweep comes round. Returns when
    /// to look again.
    async fn roll_quick_ones(&self) -> Duration {
        let mut next = ROLL_INTERVAL_MAX;
        for partition in self.partitions.all() {
            let age = Duration::from_millis(u64::try_from(partition.log.roll_age_ms()).unwrap_or(0));
            if age < SWEEP_INTERVAL {
                partition.log.roll_if_due();
                next = next.min(age);
                tokio::task::yield_now().await;
            }
        }
        next.max(ROLL_INTERVAL_MIN)
    }

    async fn retain(&self, logs: Logs) {
        for partition in self.partitions.all() {
            if partition.log.settings().compact != (logs == Logs::Compacted) {
                continue;
            }
            let now_ms = self.env.clock.wall_ms();
            match partition.log.retain(now_ms).await {
                Ok(0) => {}
                Ok(segments) => {
                    self.metrics.node().retention_segments.inc_by(segments as u64);
                    let log_start = partition.log.log_start();
                    tracing::info!(
                        topic = &*partition.topic,
                        partition = partition.id().partition.0,
                        segments,
                        log_start,
                        "old segments were deleted"
                    );
                }
                Err(error) => {
                    tracing::warn!(topic = &*partition.topic, partition = partition.id().partition.0, %error, "retention is put off");
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Broker {
    /// Looks after the members of open segments that other brokers have copies of.
    async fn mend_ensembles(&self) {
        let image = self.image();
        if image.brokers().nth(1).is_none() {
            return;
        }
        let now = self.env.clock.now();
        let life = |broker: BrokerId| image.broker(broker).map(|broker| broker.incarnation);
        let avoided = self.probation.lock().avoided(now, life);
        self.peers.avoided.lock().clone_from(&avoided);
        for partition in self.partitions.all() {
            for Member { broker, incarnation, .. } in partition.log.mend_ensemble(&avoided) {
                // One that was begun since has not failed.
                if life(broker) == Some(incarnation) {
                    self.probation.lock().failed(now, broker, incarnation);
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Changes members where others are wanted and nothing is wrong with those there are: a part of the partitions at a
    /// time, because those that write to one wait meanwhile, and all of them for the same disks.
    async fn move_members(&self) {
        let image = self.image();
        if image.brokers().nth(1).is_none() {
            return;
        }
        let life = |broker: BrokerId| image.broker(broker).map(|broker| broker.incarnation);
        let change = async |partition: Arc<Partition>| {
            // Asked anew for each: members fail meanwhile.
            let avoided = self.probation.lock().avoided(self.env.clock.now(), life);
            partition.log.change_members(&avoided).await;
            tokio::task::yield_now().await;
        };
        let partitions = self.partitions.all();
        let at_once = 1 + partitions.len() / PARTITIONS_PER_MOVE;
        futures::stream::iter(partitions).for_each_concurrent(at_once, change).await;
    }
}

async fn move_for_ever(broker: Weak<Broker>) {
    while let Some(strong) = Broker::after(&broker, MEND_INTERVAL).await {
        strong.move_members().await;
    }
}

async fn mend_for_ever(broker: Weak<Broker>) {
    while let Some(strong) = Broker::after(&broker, MEND_INTERVAL).await {
        strong.mend_ensembles().await;
    }
}

async fn sweep_for_ever(broker: Weak<Broker>) {
    while let Some(strong) = Broker::after(&broker, SWEEP_INTERVAL).await {
        strong.sweep().await;
    }
}

async fn roll_for_ever(broker: Weak<Broker>) {
    let mut interval = ROLL_INTERVAL_MAX;
    while let Some(strong) = Broker::after(&broker, interval).await {
        interval = strong.roll_quick_ones().await;
    }
}

async fn retain_for_ever(broker: Weak<Broker>, logs: Logs) {
    loop {
        let Some(strong) = broker.upgrade() else { return };
        let interval_ms = strong.config().get(match logs {
            Logs::Plain => keys::LOG_RETENTION_CHECK_INTERVAL_MS,
            Logs::Compacted => keys::LOG_CLEANER_BACKOFF_MS,
        });
        let interval = Duration::from_millis(u64::try_from(interval_ms).unwrap_or(0));
        drop(strong);
        let Some(strong) = Broker::after(&broker, interval.max(RETENTION_INTERVAL_MIN)).await else { return };
        strong.retain(logs).await;
    }
}
