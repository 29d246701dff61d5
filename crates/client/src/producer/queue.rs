//! Records of one partition on their way: batches that fill up, and what became of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::batch::{BatchBuilder, Compression};
use base::env::Clock;
use base::ids::{Offset, TimestampMs};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::ProducerRecord;
use crate::{ClientError, PartitionName, Result};

/// Where a record came to lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The partition.
    pub partition: PartitionName,
    /// Its offset; `None` when the broker was not asked (acks=0), or knew the batch from an earlier
    /// attempt but not its offset any more.
    pub offset: Option<Offset>,
    /// The timestamp the broker gave it, if the topic has `LogAppendTime`.
    pub timestamp: Option<TimestampMs>,
}

/// Where a batch came to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlacedBatch {
    pub(super) base_offset: Option<Offset>,
    pub(super) timestamp: Option<TimestampMs>,
}

type Outcome = Option<Result<PlacedBatch>>;

/// What will become of a record that was sent. May be dropped when nobody wants to know.
#[derive(Clone, Debug)]
pub struct Delivery {
    partition: PartitionName,
    index: i32,
    outcome: watch::Receiver<Outcome>,
}

impl Delivery {
    /// Waits until the record is acknowledged or given up.
    pub async fn wait(mut self) -> Result<Placed> {
        let outcome = self.outcome.wait_for(Option::is_some).await;
        let outcome = outcome.map_err(|_| ClientError::Ended("producer"))?.clone();
        let batch = outcome.ok_or(ClientError::Ended("producer"))??;
        Ok(Placed {
            partition: self.partition,
            offset: batch.base_offset.map(|base| base + i64::from(self.index)),
            timestamp: batch.timestamp,
        })
    }
}

/// A batch that still takes records.
pub(super) struct OpenBatch {
    pub(super) builder: BatchBuilder,
    pub(super) opened_at: Duration,
    /// Bytes of the producer's buffer it holds.
    pub(super) room: usize,
    pub(super) outcome: watch::Sender<Outcome>,
}

/// The batches of one partition that are not sent yet; the last one is open.
pub(super) struct PartitionQueue {
    pub(super) partition: PartitionName,
    batches: Mutex<VecDeque<OpenBatch>>,
    wake: Notify,
}

/// When a batch is to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ripeness {
    pub(super) batch_bytes: usize,
    pub(super) linger: Duration,
}

impl PartitionQueue {
    pub(super) fn new(partition: PartitionName) -> Arc<PartitionQueue> {
        Arc::new(PartitionQueue { partition, batches: Mutex::default(), wake: Notify::new() })
    }

    /// Adds a record; `room` is what it holds of the producer's buffer.
    pub(super) fn append(
        &self,
        record: &ProducerRecord<'_>,
        timestamp: TimestampMs,
        room: usize,
        now: Duration,
        (ripeness, compression): (Ripeness, Compression),
    ) -> Delivery {
        let mut batches = self.batches.lock();
        let fits = has_room(&batches, record, ripeness.batch_bytes);
        if !fits {
            let builder = BatchBuilder::new().compression(compression);
            batches.push_back(OpenBatch {
                builder,
                opened_at: now,
                room: 0,
                outcome: watch::Sender::new(None),
            });
        }
        let last = batches.back_mut().expect("a batch was pushed when there was none");
        let index = last.builder.record_count();
        last.builder.append_with_headers(timestamp, record.key, record.value, record.headers);
        last.room += room;
        let outcome = last.outcome.subscribe();
        let full = last.builder.size() >= ripeness.batch_bytes;
        drop(batches);
        if !fits || full {
            self.wake.notify_one();
        }
        Delivery { partition: self.partition.clone(), index, outcome }
    }

    /// Takes the first batch if it is to be sent now.
    pub(super) fn take_ripe(&self, now: Duration, ripeness: Ripeness) -> Option<OpenBatch> {
        let mut batches = self.batches.lock();
        if ripe_at(&batches, ripeness)? > now {
            return None;
        }
        batches.pop_front()
    }

    /// Waits until [`PartitionQueue::take_ripe`] will take something. `ripeness` is asked anew after
    /// every [`PartitionQueue::wake`].
    pub(super) async fn ripe(&self, clock: &Arc<dyn Clock>, ripeness: impl Fn() -> Ripeness) {
        loop {
            let ripe_at = ripe_at(&self.batches.lock(), ripeness());
            match ripe_at {
                Some(at) if at <= clock.now() => return,
                Some(at) => tokio::select! {
                    () = clock.sleep_until(at) => {}
                    () = self.wake.notified() => {}
                },
                None => self.wake.notified().await,
            }
        }
    }

    /// Makes whoever waits for a ripe batch look again.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Whether a record would join others in a batch instead of beginning one.
    pub(super) fn would_join(&self, record: &ProducerRecord<'_>, batch_bytes: usize) -> bool {
        has_room(&self.batches.lock(), record, batch_bytes)
    }
}

fn has_room(batches: &VecDeque<OpenBatch>, record: &ProducerRecord<'_>, batch_bytes: usize) -> bool {
    let size_with = |batch: &OpenBatch| batch.builder.size_with(record.key, record.value, record.headers);
    batches.back().is_some_and(|last| size_with(last) <= batch_bytes)
}

/// When the first batch is to be sent: now if it is full, else when it has lingered.
fn ripe_at(batches: &VecDeque<OpenBatch>, ripeness: Ripeness) -> Option<Duration> {
    let first = batches.front()?;
    let full = batches.len() > 1 || first.builder.size() >= ripeness.batch_bytes;
    Some(if full { Duration::ZERO } else { first.opened_at + ripeness.linger })
}
