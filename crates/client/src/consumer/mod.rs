//! Reads records from partitions that its owner names, from positions its owner names.
//!
//! ```text
//! poll ─► for leaders and positions not known yet: tasks with Metadata and ListOffsets
//!      ─► for each leader without one: a task with one Fetch over all its partitions
//!      ◄─ the first answer: records, new positions, errors to sort out
//! ```
//!
//! Invariants: records of one partition come in order, each once per assignment; at most one Fetch per
//! leader is under way, so memory is bounded by `brokers × fetch_bytes_max`; an answer for a partition
//! that was taken away or moved meanwhile is thrown away. `poll` may be cancelled at any await: whatever
//! waits for a broker is a task. A partition that cannot be read rests for a growing while and holds up no
//! other; `poll` fails when that has lasted for [`ClientConfig::retry_for`](crate::ClientConfig::retry_for).

mod decode;
mod fetch;
mod look_up;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base::batch::{DecompressBuffer, TimestampType};
use base::error::ErrorCode;
use base::ids::{BrokerId, Offset, TimestampMs};
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::admin::leader_moved;
use crate::cluster::Backoff;
use crate::pool::Connections;
use crate::{Client, ClientError, PartitionName, Result};
use fetch::{FetchLimits, FetchPlan, FetchedPartition, fetch};
use look_up::{Found, LookedUp, find_leaders, find_offsets};

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
#[derive(Debug)]
struct Progress {
    start: Start,
    /// Offset of the next record; `None` while [`Progress::start`] is not looked up.
    next: Option<Offset>,
    /// Where records end for now, as the last answer said.
    end: Option<Offset>,
    /// Whether its leader or position is being looked up.
    looking: bool,
    /// While the last attempt to read it failed.
    retry: Option<Retry>,
}

/// When to try again.
struct Retry {
    at: Duration,
    backoff: Backoff,
}

impl std::fmt::Debug for Retry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retry").field("at", &self.at).finish_non_exhaustive()
    }
}

/// Reads partitions.
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    connections: Arc<Connections>,
    partitions: BTreeMap<PartitionName, Progress>,
    fetches: JoinSet<(BrokerId, FetchPlan, Result<Vec<FetchedPartition>>)>,
    /// Leaders that have a fetch under way.
    busy: BTreeSet<BrokerId>,
    look_ups: JoinSet<LookedUp>,
    /// Fetches begun so far; turns the order of partitions, so that none starves behind another.
    turn: usize,
    buffer: DecompressBuffer,
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
            busy: BTreeSet::new(),
            look_ups: JoinSet::new(),
            turn: 0,
            buffer: DecompressBuffer::new(config.batch_bytes_max),
            config,
        }
    }

    /// Reads these partitions from now on, and no others.
    pub fn assign(&mut self, partitions: impl IntoIterator<Item = (PartitionName, Start)>) {
        let progress = |(partition, start)| (partition, Progress::new(start));
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

    /// One step: begins look-ups and fetches, takes one answer.
    async fn advance(&mut self) -> Result<Vec<ConsumedRecord>> {
        let clock = self.client.env().clock.clone();
        let now = clock.now();
        self.begin_look_ups(now);
        self.begin_fetches(now);
        let resting = self.partitions.values().filter_map(|progress| progress.retry.as_ref());
        let next_retry = resting.map(|retry| retry.at).filter(|at| *at > now).min();
        let rest = async {
            match next_retry {
                Some(at) => clock.sleep_until(at).await,
                // Nothing rests: wait for an answer or, with nothing to read, to be told what.
                None => std::future::pending().await,
            }
        };
        let ended = |_| ClientError::Ended("consumer");
        tokio::select! {
            biased;
            Some(done) = self.look_ups.join_next() => {
                self.take_look_up(done.map_err(ended)?)?;
                Ok(Vec::new())
            }
            Some(done) = self.fetches.join_next() => {
                let (leader, plan, fetched) = done.map_err(ended)?;
                self.busy.remove(&leader);
                let (records, trouble) = self.take_all(&plan, fetched);
                match trouble {
                    // What came before it is shown first; the trouble will be met again.
                    Some(error) if records.is_empty() => Err(error),
                    _ => Ok(records),
                }
            }
            () = rest => Ok(Vec::new()),
        }
    }

    /// Looks up leaders and positions of the partitions that lack them, unless that is under way.
    fn begin_look_ups(&mut self, now: Duration) {
        let mut by_leader: BTreeMap<Option<BrokerId>, Vec<(PartitionName, Start)>> = BTreeMap::new();
        for (partition, progress) in &mut self.partitions {
            if let Start::Offset(offset) = progress.start {
                progress.next.get_or_insert(offset);
            }
            let leader = self.client.known_leader(partition).map(|(leader, _)| leader);
            let lacks = progress.next.is_none() || leader.is_none();
            if lacks && !progress.looking && progress.is_due(now) {
                progress.looking = true;
                by_leader.entry(leader).or_default().push((partition.clone(), progress.start));
            }
        }
        for (leader, wanted) in by_leader {
            let client = self.client.clone();
            match leader {
                None => self.look_ups.spawn(find_leaders(client, wanted)),
                Some(leader) => {
                    self.look_ups.spawn(find_offsets(client, leader, wanted, self.config.isolation))
                }
            };
        }
    }

    /// Takes over what was looked up, for partitions that are still to begin there; answers the first
    /// error that does not pass.
    fn take_look_up(&mut self, looked_up: LookedUp) -> Result<()> {
        let mut result = Ok(());
        for (partition, start, found) in looked_up {
            let Some(progress) = self.partitions.get_mut(&partition) else { continue };
            if progress.start != start || !std::mem::take(&mut progress.looking) {
                continue;
            }
            match found {
                Ok(Found::Leader) => {}
                Ok(Found::Offset(offset)) => progress.next = progress.next.or(Some(offset)),
                Err(error) => result = result.and(self.rest(&partition, error)),
            }
        }
        result
    }

    /// Lets a partition rest after an error that may pass, so that others are read on. Gives back an error
    /// that does not pass or has lasted too long.
    fn rest(&mut self, partition: &PartitionName, error: ClientError) -> Result<()> {
        let client = &self.client;
        // While nobody leads it, asking again is enough: what is known of the others stays.
        if leader_moved(&error) && error.code() != Some(ErrorCode::LeaderNotAvailable) {
            client.forget_topic(&partition.topic);
        }
        let Some(progress) = self.partitions.get_mut(partition) else { return Ok(()) };
        if !error.retriable() {
            return Err(error);
        }
        let retry = progress.retry.get_or_insert_with(|| {
            let backoff = client.backoff();
            Retry { at: Duration::ZERO, backoff }
        });
        let (pause, in_time) = retry.backoff.failed(&error);
        retry.at = client.env().clock.now() + pause;
        if in_time { Ok(()) } else { Err(error) }
    }

    fn start_at(&mut self, partition: &PartitionName, start: Start) {
        if let Some(progress) = self.partitions.get_mut(partition) {
            (progress.start, progress.next, progress.looking) = (start, None, false);
        }
    }

    /// Begins a fetch at every leader that has none under way.
    fn begin_fetches(&mut self, now: Duration) {
        let mut plans: BTreeMap<BrokerId, FetchPlan> = BTreeMap::new();
        for (partition, progress) in &self.partitions {
            let Some(next) = progress.next.filter(|_| progress.is_due(now)) else { continue };
            if let Some((leader, address)) = self.client.known_leader(partition)
                && !self.busy.contains(&leader)
            {
                let new = || FetchPlan { address, partitions: Vec::new() };
                plans.entry(leader).or_insert_with(new).partitions.push((partition.clone(), next));
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
        for (leader, mut plan) in plans {
            self.turn = self.turn.wrapping_add(1);
            let first = self.turn % plan.partitions.len();
            plan.partitions.rotate_left(first);
            let connections = self.connections.clone();
            self.busy.insert(leader);
            self.fetches.spawn(async move {
                let fetched = fetch(&connections, &plan, limits).await;
                (leader, plan, fetched)
            });
        }
    }

    /// Takes over an answer: records of partitions that still stand where they stood when it was asked for,
    /// and the first trouble that ends the reading.
    fn take_all(
        &mut self,
        plan: &FetchPlan,
        fetched: Result<Vec<FetchedPartition>>,
    ) -> (Vec<ConsumedRecord>, Option<ClientError>) {
        let asked: HashMap<_, _> = plan.partitions.iter().map(|(name, offset)| (name, *offset)).collect();
        let mut records = Vec::new();
        let mut trouble = None;
        let rows: Vec<(PartitionName, Result<FetchedPartition>)> = match fetched {
            Ok(rows) => rows.into_iter().map(|row| (row.partition.clone(), Ok(row))).collect(),
            Err(error) => {
                plan.partitions.iter().map(|(name, _)| (name.clone(), Err(error.clone()))).collect()
            }
        };
        for (partition, row) in rows {
            let current = self.partitions.get(&partition).and_then(|progress| progress.next);
            if current.is_none() || asked.get(&partition).copied() != current {
                continue;
            }
            let taken = row.and_then(|row| self.take(row, &mut records));
            if let Err(error) = taken.or_else(|error| self.rest(&partition, error)) {
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
                self.start_at(&partition, start);
                return Ok(());
            }
            (_, _, Err(error)) => return Err(error),
        }
        progress.retry = None;
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
    fn new(start: Start) -> Progress {
        Progress { start, next: None, end: None, looking: false, retry: None }
    }

    /// Whether it does not rest.
    fn is_due(&self, now: Duration) -> bool {
        self.retry.as_ref().is_none_or(|retry| retry.at <= now)
    }

    fn caught_up(&self) -> bool {
        matches!((self.next, self.end), (Some(next), Some(end)) if next >= end)
    }
}
