//! Writes records: gathers them into batches, and those into requests to the leaders of their partitions; tries
//! again without changing their order.
//!
//! Invariants: records of one partition are written in the order of their `send` calls; with
//! [`ProducerConfig::idempotent`] each of them once, whatever connections and brokers do in between
//! (KIP-98), and without it at most one batch of a partition is on its way at a time. Memory is bounded by
//! [`ProducerConfig::buffer_bytes`]: `send` waits while that much is not acknowledged.
//!
//! What it does not do: transactions; noticing partitions that were added to a topic it already writes to.

mod broker_sender;
mod partitioner;
mod queue;
mod sender;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::batch::{BatchBuilder, Compression, Header};
use base::ids::TimestampMs;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;

use broker_sender::BrokerSenders;
pub use partitioner::partition_of_key;
pub use queue::{Delivery, Placed};
use queue::{PartitionQueue, Ripeness};
use sender::{Identity, PartitionSender};

use crate::{Client, ClientError, Connection, PartitionName, Result};

/// How much the broker must have done before it acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum Acks {
    /// Nothing, and it does not acknowledge: records may be lost without notice.
    None = 0,
    /// The leader has the records.
    Leader = 1,
    /// All copies in sync have the records.
    All = -1,
}

/// Settings of a [`Producer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerConfig {
    /// What an acknowledgement means.
    pub acks: Acks,
    /// Whether the broker sorts out what was sent twice; needs [`Acks::All`].
    pub idempotent: bool,
    /// How batches are compressed.
    pub compression: Compression,
    /// Size at which a batch is sent, bytes before compression. A larger record makes its own batch.
    pub batch_bytes: usize,
    /// How long a batch waits for more records.
    pub linger: Duration,
    /// Batches of one partition that may be on their way; 5 is the most an idempotent producer may have.
    pub in_flight_batches: usize,
    /// Bytes of records that may wait for their acknowledgement.
    pub buffer_bytes: usize,
    /// Largest record, bytes; a topic's `max.message.bytes` may be lower.
    pub record_bytes_max: usize,
    /// How long a batch is tried again before it is given up.
    pub delivery_timeout: Duration,
}

impl Default for ProducerConfig {
    fn default() -> ProducerConfig {
        ProducerConfig {
            acks: Acks::All,
            idempotent: true,
            compression: Compression::None,
            batch_bytes: 64 * 1024,
            linger: Duration::from_millis(5),
            in_flight_batches: 5,
            buffer_bytes: 32 * 1024 * 1024,
            record_bytes_max: 16 * 1024 * 1024,
            delivery_timeout: Duration::from_secs(120),
        }
    }
}

/// Most batches of a partition an idempotent producer may have on their way: the broker remembers five.
const IDEMPOTENT_IN_FLIGHT_MAX: usize = 5;

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub struct ProducerRecord<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition; `None` lets the key decide, or without a key the producer.
    pub partition: Option<i32>,
    /// Key, null allowed.
    pub key: Option<&'a [u8]>,
    /// Value, null for a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers, in order.
    pub headers: &'a [Header<'a>],
    /// Timestamp; `None` is now.
    pub timestamp: Option<TimestampMs>,
}

impl<'a> ProducerRecord<'a> {
    /// A record with a value alone.
    pub fn value(topic: &'a str, value: &'a [u8]) -> ProducerRecord<'a> {
        ProducerRecord {
            topic,
            partition: None,
            key: None,
            value: Some(value),
            headers: &[],
            timestamp: None,
        }
    }
}

/// Writes records to a cluster. Dropping it gives up what is not acknowledged yet; see
/// [`Producer::flush`].
pub struct Producer {
    shared: Arc<Shared>,
    topics: Mutex<HashMap<Arc<str>, TopicQueues>>,
    senders: Mutex<JoinSet<()>>,
}

/// What the senders of all partitions share.
struct Shared {
    client: Client,
    config: ProducerConfig,
    /// Free bytes of the buffer.
    room: Semaphore,
    /// Calls of `flush` that are waiting: while there are any, nothing lingers.
    flushing: AtomicUsize,
    first_failure: Mutex<Option<ClientError>>,
    /// Connections over which batches went that nobody will acknowledge.
    unanswered: Mutex<Vec<Arc<Connection>>>,
    brokers: Mutex<BrokerSenders>,
    identity: OnceCell<Identity>,
}

impl Shared {
    fn ripeness(&self) -> Ripeness {
        let flushing = self.flushing.load(Ordering::Acquire) > 0;
        let linger = if flushing { Duration::ZERO } else { self.config.linger };
        Ripeness { batch_bytes: self.config.batch_bytes, linger }
    }

    fn note_unanswered(&self, connection: &Arc<Connection>) {
        let mut unanswered = self.unanswered.lock();
        if !unanswered.iter().any(|other| Arc::ptr_eq(other, connection)) {
            unanswered.push(connection.clone());
        }
    }

    fn in_flight_max(&self) -> usize {
        match (self.config.idempotent, self.config.acks) {
            (true, _) => self.config.in_flight_batches.clamp(1, IDEMPOTENT_IN_FLIGHT_MAX),
            // Nothing is tried again, so nothing can change places.
            (false, Acks::None) => self.config.in_flight_batches.max(1),
            (false, _) => 1,
        }
    }
}

/// The partitions of a topic, and the one that takes records without a key at the moment.
struct TopicQueues {
    partitions: Vec<Arc<PartitionQueue>>,
    sticky: usize,
    /// What that one took since it was chosen, bytes.
    sticky_bytes: usize,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Producer")
    }
}

impl Producer {
    /// A producer. `idempotent` is taken back unless acks are [`Acks::All`].
    pub fn new(client: &Client, config: ProducerConfig) -> Producer {
        let idempotent = config.idempotent && config.acks == Acks::All;
        let buffer_bytes = config.buffer_bytes.clamp(1, u32::MAX as usize);
        let config = ProducerConfig { idempotent, buffer_bytes, ..config };
        let shared = Shared {
            client: client.clone(),
            room: Semaphore::new(buffer_bytes),
            config,
            flushing: AtomicUsize::new(0),
            first_failure: Mutex::new(None),
            unanswered: Mutex::default(),
            brokers: Mutex::default(),
            identity: OnceCell::new(),
        };
        Producer { shared: Arc::new(shared), topics: Mutex::default(), senders: Mutex::default() }
    }

    /// Takes a record; waits for room in the buffer, and for the topic if it is not known yet. What
    /// becomes of the record is told by the [`Delivery`] and by [`Producer::flush`].
    pub async fn send(&self, record: ProducerRecord<'_>) -> Result<Delivery> {
        let config = &self.shared.config;
        let size = BatchBuilder::new().size_with(record.key, record.value, record.headers);
        let limit = config.record_bytes_max.min(config.buffer_bytes);
        if size > limit {
            return Err(ClientError::RecordTooLarge { size, limit });
        }
        if !self.topics.lock().contains_key(record.topic) {
            self.add_topic(record.topic).await?;
        }
        let permits = u32::try_from(size).expect("a record is smaller than the buffer, which fits");
        let room =
            self.shared.room.acquire_many(permits).await.map_err(|_| ClientError::Ended("producer"))?;
        let mut topics = self.topics.lock();
        let topic = topics.get_mut(record.topic).expect("topics are never taken out");
        let index = topic.index_for(&record, size, config.batch_bytes)?;
        let env = self.shared.client.env();
        let timestamp = record.timestamp.unwrap_or_else(|| env.clock.wall_ms());
        let how = (self.shared.ripeness(), config.compression);
        let delivery = topic.partitions[index].append(&record, timestamp, size, env.clock.now(), how);
        // The room goes back when the batch is settled.
        room.forget();
        Ok(delivery)
    }

    async fn add_topic(&self, name: &str) -> Result<()> {
        let metadata = self.shared.client.topics(&[name]).await?;
        let partitions = metadata.get(name).map_or(0, |topic| topic.partitions.len());
        let mut topics = self.topics.lock();
        if topics.contains_key(name) {
            return Ok(());
        }
        let name: Arc<str> = name.into();
        let queue = |index| PartitionQueue::new(PartitionName::new(name.clone(), index as i32));
        let partitions: Vec<_> = (0..partitions).map(queue).collect();
        let mut senders = self.senders.lock();
        for queue in &partitions {
            senders.spawn(PartitionSender::new(self.shared.clone(), queue.clone()).run());
        }
        let sticky = self.shared.client.env().random.next_u64() as usize % partitions.len().max(1);
        topics.insert(name, TopicQueues { partitions, sticky, sticky_bytes: 0 });
        Ok(())
    }

    /// Waits until everything sent so far is acknowledged or given up; `send` waits as long. With
    /// [`Acks::None`] it waits until the brokers have read everything. Tells the first failure since the
    /// last call.
    pub async fn flush(&self) -> Result<()> {
        struct Flushing<'a>(&'a AtomicUsize);
        impl Drop for Flushing<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Release);
            }
        }
        self.shared.flushing.fetch_add(1, Ordering::Release);
        let _flushing = Flushing(&self.shared.flushing);
        for topic in self.topics.lock().values() {
            topic.partitions.iter().for_each(|partition| partition.wake());
        }
        // All room is free once nothing waits for its acknowledgement.
        let all = u32::try_from(self.shared.config.buffer_bytes).expect("the buffer's size fits");
        drop(self.shared.room.acquire_many(all).await.map_err(|_| ClientError::Ended("producer"))?);
        let unanswered = std::mem::take(&mut *self.shared.unanswered.lock());
        for connection in unanswered {
            if let Err(error) = connection.round_trip().await {
                self.shared.first_failure.lock().get_or_insert(error);
            }
        }
        self.shared.first_failure.lock().take().map_or(Ok(()), Err)
    }

    /// Bytes of records that are not acknowledged yet.
    pub fn pending_bytes(&self) -> usize {
        self.shared.config.buffer_bytes.saturating_sub(self.shared.room.available_permits())
    }
}

impl TopicQueues {
    fn index_for(&mut self, record: &ProducerRecord<'_>, size: usize, batch_bytes: usize) -> Result<usize> {
        let count = self.partitions.len();
        let index = match (record.partition, record.key) {
            (Some(partition), _) => usize::try_from(partition).ok(),
            (None, Some(key)) => usize::try_from(partition_of_key(key, count as i32)).ok(),
            (None, None) => {
                // Every partition takes a batch's worth in its turn, in however many batches that is: where nothing
                // lingers, those that come while others are on their way go together (KIP-794).
                let joins = |queue: &Arc<PartitionQueue>| queue.would_join(record, batch_bytes);
                let has_its_share = self.sticky_bytes >= batch_bytes;
                if count > 1 && has_its_share && !self.partitions.get(self.sticky).is_some_and(joins) {
                    (self.sticky, self.sticky_bytes) = ((self.sticky + 1) % count, 0);
                }
                self.sticky_bytes += size;
                Some(self.sticky)
            }
        };
        index.filter(|index| *index < count).ok_or_else(|| ClientError::Broker {
            subject: PartitionName::new(record.topic, record.partition.unwrap_or_default()).to_string(),
            code: base::error::ErrorCode::UnknownTopicOrPartition,
            message: Some(format!("the topic has {count} partitions")),
        })
    }
}
