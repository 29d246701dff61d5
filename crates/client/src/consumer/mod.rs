//! Reads records from partitions that its owner names, from positions its owner names.
//!
//! ```text
//! poll ─► positions not known yet ─► ListOffsets
//!      ─► for each leader without one: a task with one Fetch over all its partitions
//!      ◄─ the first answer: records, new positions, errors to sort out
//! ```
//!
//! Invariants: records of one partition come in order, each once per assignment; at most one Fetch per
//! leader is under way, so memory is bounded by `brokers × fetch_bytes_max`; an answer for a partition
//! that was taken away or moved meanwhile is thrown away. `poll` may be cancelled at any await.

mod decode;
mod fetch;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base::batch::{DecompressBuffer, TimestampType};
use base::error::ErrorCode;
use base::ids::{BrokerId, Offset, TimestampMs};
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::admin::{OffsetAt, leader_moved};
use crate::cluster::Backoff;
use crate::pool::Connections;
use crate::{Client, ClientError, PartitionName, Result};
use fetch::{FetchLimits, FetchPlan, FetchedPartition, fetch};

/// Which records are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Isolation {
    /// All.
    ReadUncommitted = 0,
    /// Those of open or aborted transactions are not.
    ReadCommitted = 1,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first record there is.
    Beginning,
    /// Behind the last record there is.
    End,
    /// At an offset.
    Offset(Offset),
    /// That many records before the end, as offsets count them.
    BeforeEnd(u64),
    /// At the first record with this timestamp or a later one; at the end if there is none.
    Time(TimestampMs),
}

/// Settings of a [`Consumer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// How long a broker waits for records before it answers with none.
    pub fetch_wait: Duration,
    /// Bytes for which a broker waits, as long as it may.
    pub fetch_bytes_min: usize,
    /// Bytes of one answer; the first batch comes even if it is larger.
    pub fetch_bytes_max: usize,
    /// Bytes of one partition in an answer; the first batch comes even if it is larger.
    pub partition_bytes_max: usize,
    /// Largest size to which a batch may unfold, bytes.
    pub batch_bytes_max: usize,
    /// Which records are shown.
    pub isolation: Isolation,
    /// Where to go when a position is not there any more (or not yet); `None` makes it an error.
    pub reset: Option<Start>,
}

impl Default for ConsumerConfig {
    fn default() -> ConsumerConfig {
        ConsumerConfig {
            fetch_wait: Duration::from_millis(500),
            fetch_bytes_min: 1,
            fetch_bytes_max: 16 * 1024 * 1024,
            partition_bytes_max: 1024 * 1024,
            batch_bytes_max: 256 * 1024 * 1024,
            isolation: Isolation::ReadUncommitted,
            reset: None,
        }
    }
}

/// A record that was read. Its parts may share the bytes of the answer it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Number of the partition.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: Offset,
    /// Timestamp, if it has one.
    pub timestamp: Option<TimestampMs>,
    /// Who set the timestamp.
    pub timestamp_type: TimestampType,
    /// Key, null allowed.
    pub key: Option<Bytes>,
    /// Value, null for a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// What is known of a partition that is read.
#[derive(Clone, Debug)]
struct Progress {
    start: Start,
    /// Offset of the next record; `None` while [`Progress::start`] is not looked up.
    next: Option<Offset>,
    /// Where records end for now, as the last answer said.
    end: Option<Offset>,
}

/// Reads partitions.
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    connections: Arc<Connections>,
    partitions: BTreeMap<PartitionName, Progress>,
    fetches: JoinSet<(BrokerId, FetchPlan, Result<Vec<FetchedPartition>>)>,
    /// Leaders that have a fetch under way.
    busy: HashSet<BrokerId>,
    /// Fetches begun so far; turns the order of partitions, so that none starves behind another.
    turn: usize,
    buffer: DecompressBuffer,
    backoff: Option<Backoff>,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

impl Consumer {
    /// A consumer that reads nothing yet.
    pub fn new(client: &Client, config: ConsumerConfig) -> Consumer {
        Consumer {
            client: client.clone(),
            connections: Arc::new(Connections::new(client.env(), client.config().clone())),
            partitions: BTreeMap::new(),
            fetches: JoinSet::new(),
            busy: HashSet::new(),
            turn: 0,
            buffer: DecompressBuffer::new(config.batch_bytes_max),
            backoff: None,
            config,
        }
    }

    /// Reads these partitions from now on, and no others.
    pub fn assign(&mut self, partitions: impl IntoIterator<Item = (PartitionName, Start)>) {
        let progress = |(partition, start)| (partition, Progress { start, next: None, end: None });
        self.partitions = partitions.into_iter().map(progress).collect();
    }

    /// Stops reading a partition.
    pub fn unassign(&mut self, partition: &PartitionName) {
        self.partitions.remove(partition);
    }

    /// The partitions it reads.
    pub fn assignment(&self) -> impl Iterator<Item = &PartitionName> {
        self.partitions.keys()
    }

    /// Offsets of the next records, of the partitions where that is known.
    pub fn positions(&self) -> BTreeMap<PartitionName, Offset> {
        let known =
            |(partition, progress): (&PartitionName, &Progress)| Some((partition.clone(), progress.next?));
        self.partitions.iter().filter_map(known).collect()
    }

    /// Whether everything was read that was there when the brokers were last asked.
    pub fn caught_up(&self) -> bool {
        self.partitions.values().all(Progress::caught_up)
    }

    /// Whether a partition was read to the end it had when its leader was last asked.
    pub fn caught_up_with(&self, partition: &PartitionName) -> bool {
        self.partitions.get(partition).is_some_and(Progress::caught_up)
    }

    /// The next records, none if there are none within `max_wait`.
    pub async fn poll(&mut self, max_wait: Duration) -> Result<Vec<ConsumedRecord>> {
        let clock = self.client.env().clock.clone();
        let deadline = clock.now() + max_wait;
        loop {
            tokio::select! {
                biased;
                records = self.advance() => {
                    let records = records?;
                    if !records.is_empty() || clock.now() >= deadline {
                        return Ok(records);
                    }
                }
                () = clock.sleep_until(deadline) => return Ok(Vec::new()),
            }
        }
    }

    /// One step: looks up positions, begins fetches, takes one answer.
    async fn advance(&mut self) -> Result<Vec<ConsumedRecord>> {
        let step = match self.look_up_starts().await {
            Ok(()) => self.begin_fetches().await,
            Err(error) => Err(error),
        };
        if let Err(error) = step {
            self.pause(error).await?;
            return Ok(Vec::new());
        }
        let Some(done) = self.fetches.join_next().await else {
            // Nothing to read: wait to be told what.
            return std::future::pending().await;
        };
        let (leader, plan, fetched) = done.map_err(|_| ClientError::Ended("consumer"))?;
        self.busy.remove(&leader);
        let (records, trouble) = match fetched {
            Ok(partitions) => self.take_all(&plan, partitions),
            Err(error) => {
                plan.partitions.iter().for_each(|(partition, _)| self.client.forget_topic(&partition.topic));
                (Vec::new(), Some(error))
            }
        };
        match trouble {
            None => self.backoff = None,
            // What came before it is shown first; the trouble will be met again.
            Some(_) if !records.is_empty() => {}
            Some(error) => self.pause(error).await?,
        }
        Ok(records)
    }

    /// Waits after an error that may pass; gives the others back.
    async fn pause(&mut self, error: ClientError) -> Result<()> {
        if !error.retriable() {
            return Err(error);
        }
        let client = &self.client;
        self.backoff.get_or_insert_with(|| client.backoff()).pause(error).await
    }

    /// Looks up where partitions begin that have no position yet.
    async fn look_up_starts(&mut self) -> Result<()> {
        let mut wanted = Vec::new();
        for (partition, progress) in &mut self.partitions {
            match progress.start {
                _ if progress.next.is_some() => {}
                Start::Offset(offset) => progress.next = Some(offset),
                Start::Beginning => wanted.push((partition.clone(), OffsetAt::Earliest)),
                Start::End | Start::BeforeEnd(_) => wanted.push((partition.clone(), OffsetAt::Latest)),
                Start::Time(timestamp) => wanted.push((partition.clone(), OffsetAt::Time(timestamp))),
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let found = self.client.list_offsets(&wanted, self.config.isolation).await?;
        let mut none_so_late = Vec::new();
        let mut before_end = Vec::new();
        for (partition, listed) in found {
            let offset = listed?.offset;
            let Some(progress) = self.partitions.get_mut(&partition) else { continue };
            match (progress.start, offset) {
                (Start::Time(_), None) => none_so_late.push(partition),
                (Start::BeforeEnd(count), Some(end)) => {
                    before_end.push((partition, end.saturating_sub_unsigned(count).max(0)));
                }
                (_, offset) => progress.next = offset,
            }
        }
        self.start_at(none_so_late.into_iter().map(|partition| (partition, Start::End)));
        self.look_up_before_end(before_end).await
    }

    /// The wanted offsets, or the first one there is where that is later.
    async fn look_up_before_end(&mut self, wanted: Vec<(PartitionName, Offset)>) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let earliest = wanted.iter().map(|(partition, _)| (partition.clone(), OffsetAt::Earliest));
        let earliest: Vec<_> = earliest.collect();
        let mut earliest = self.client.list_offsets(&earliest, self.config.isolation).await?;
        for (partition, offset) in wanted {
            let first = match earliest.remove(&partition) {
                Some(listed) => listed?.offset.unwrap_or(0),
                None => 0,
            };
            if let Some(progress) = self.partitions.get_mut(&partition) {
                progress.next = Some(offset.max(first));
            }
        }
        Ok(())
    }

    fn start_at(&mut self, partitions: impl Iterator<Item = (PartitionName, Start)>) {
        for (partition, start) in partitions {
            if let Some(progress) = self.partitions.get_mut(&partition) {
                (progress.start, progress.next) = (start, None);
            }
        }
    }

    /// Begins a fetch at every leader that has none under way.
    async fn begin_fetches(&mut self) -> Result<()> {
        let mut plans: HashMap<BrokerId, Vec<(PartitionName, Offset)>> = HashMap::new();
        for (partition, progress) in &self.partitions {
            if let Some(next) = progress.next {
                let leader = self.client.leader(partition).await?;
                if !self.busy.contains(&leader) {
                    plans.entry(leader).or_default().push((partition.clone(), next));
                }
            }
        }
        let config = &self.config;
        let limits = FetchLimits {
            wait: config.fetch_wait,
            bytes_min: config.fetch_bytes_min,
            bytes_max: config.fetch_bytes_max,
            partition_bytes_max: config.partition_bytes_max,
            isolation: config.isolation,
        };
        for (leader, mut partitions) in plans {
            let address = self.client.known_address(leader).await?;
            self.turn = self.turn.wrapping_add(1);
            let first = self.turn % partitions.len();
            partitions.rotate_left(first);
            let plan = FetchPlan { partitions };
            let connections = self.connections.clone();
            self.busy.insert(leader);
            self.fetches.spawn(async move {
                let fetched = fetch(&connections, &address, &plan, limits).await;
                (leader, plan, fetched)
            });
        }
        Ok(())
    }

    /// Takes over an answer: records of partitions that still stand where they stood when it was asked for,
    /// and the first trouble.
    fn take_all(
        &mut self,
        plan: &FetchPlan,
        fetched: Vec<FetchedPartition>,
    ) -> (Vec<ConsumedRecord>, Option<ClientError>) {
        let asked: HashMap<_, _> = plan.partitions.iter().map(|(name, offset)| (name, *offset)).collect();
        let mut records = Vec::new();
        let mut trouble = None;
        for fetched in fetched {
            let current = self.partitions.get(&fetched.partition).and_then(|progress| progress.next);
            if current.is_none() || asked.get(&fetched.partition).copied() != current {
                continue;
            }
            if let Err(error) = self.take(fetched, &mut records) {
                trouble.get_or_insert(error);
            }
        }
        (records, trouble)
    }

    fn take(&mut self, fetched: FetchedPartition, records: &mut Vec<ConsumedRecord>) -> Result<()> {
        let FetchedPartition { partition, code, high_watermark, stable_end, aborted, bytes } = fetched;
        let Some(progress) = self.partitions.get_mut(&partition) else { return Ok(()) };
        let refused = ClientError::check(code.code(), None, || partition.to_string());
        match (code, self.config.reset, refused) {
            (_, _, Ok(())) => {}
            (ErrorCode::OffsetOutOfRange, Some(start), _) => {
                tracing::debug!(%partition, position = ?progress.next, "starting anew: no such offset");
                (progress.start, progress.next) = (start, None);
                return Ok(());
            }
            (_, _, Err(error)) => {
                if leader_moved(&error) {
                    self.client.forget_topic(&partition.topic);
                }
                return Err(error);
            }
        }
        let next = progress.next.expect("the caller has compared positions");
        let decoded = decode::decode(&partition, &bytes, next, aborted, &mut self.buffer);
        progress.next = Some(decoded.next);
        progress.end = Some(match self.config.isolation {
            Isolation::ReadUncommitted => high_watermark,
            Isolation::ReadCommitted => stable_end,
        });
        let nothing = decoded.records.is_empty() && decoded.next == next;
        records.extend(decoded.records);
        match decoded.error {
            // Met again at its own position if records came before it.
            Some(source) if nothing => Err(ClientError::Batch { partition, offset: decoded.next, source }),
            _ => Ok(()),
        }
    }
}

impl Progress {
    fn caught_up(&self) -> bool {
        matches!((self.next, self.end), (Some(next), Some(end)) if next >= end)
    }
}
