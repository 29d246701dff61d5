//! Fetch (1), versions 4 to 18: batches from the offset asked for on, with sessions and long poll.
//!
//! Partitions are read in the order the session gives (those that gave records go last, so none
//! starves). The first that has records gives at least one whole batch whatever the limits say; then
//! `max_bytes` and each partition's limit bind (KIP-74). With fewer than `min_bytes` and no error the
//! request parks until enough is committed, `max_wait_ms` passes, or the broker drains. While memory is spent it waits
//! as long for that, and then gives no records.
//!
//! A consumer that keeps up with a quick producer would fetch a few records thousands of times a second. Where several
//! batches came for it each time, it is answered once in `vltava.fetch.debounce.ms` ([`crate::net::AnswerPace`]); one that
//! is behind, waits for single batches or sets narrow limits is not held back.
//!
//! Where a client asks a broker that does not lead, or does not lead any more as the client believes, the answer names
//! the leader (KIP-951).
//!
//! A consumer that names its rack is told which broker there to read from, where the configuration says so, and one that
//! reads from a broker that does not lead gets what that one knows to be committed (KIP-392, [`crate::nearest`]). Beyond
//! that the answer is OFFSET_NOT_AVAILABLE, not OFFSET_OUT_OF_RANGE: the leader may have it.
//!
//! Without transactions the last stable offset is the high watermark, and nothing is ever aborted.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base::batch::Batches;
use base::config::keys;
use base::env::Env;
use base::error::ErrorCode;
use base::ids::{LeaderEpoch, Offset};
use base::metrics::TopicMetrics;
use bytes::Bytes;
use replication::stream::{FollowError, Followed};
use replication::{Patience, ReadError, ReadWaiter, StorageError};
use wire::Payload;
use wire::message::fetch_response::{EpochEndOffset, LeaderIdAndEpoch, NodeEndpoint, PartitionData};
use wire::message::{FetchRequest, FetchResponse};

use super::cluster::{self, BrokerView};
use super::k02_list_offsets::read_code;
use super::leaders::Leaders;
use super::{Close, RequestContext};
use crate::nearest::{Follower, Nearest, rack_of};
use crate::net::{Held, MemoryBudget};
use crate::partition::{Partition, check_epoch};
use crate::session::{FetchPartition, TopicKey};
use crate::turns::Turns;

/// `isolation_level` of a consumer that reads committed records only.
const READ_COMMITTED: i8 = 1;

/// Longest time a fetch parks, whatever it asks for: keeps a mistaken client's connection alive.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Answers with fewer bytes are small: a consumer that is behind gets more.
const SMALL_BYTES: usize = 64 << 10;

/// Version from which an answer names leaders and where they are reached.
const LEADER_VERSION: i16 = 16;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: FetchRequest<'_>,
) -> Result<FetchResponse<'static>, Close> {
    let sessions = &context.broker.sessions;
    let round = match sessions.begin(context.api_version, &request) {
        Ok(round) => round,
        Err(code) => return Ok(FetchResponse { error_code: code.code(), ..FetchResponse::default() }),
    };
    let wanted = round.partitions();
    let config = context.broker.config();
    let now = context.broker.env.clock.now();
    let deadline = now + Duration::from_millis(request.max_wait_ms.max(0) as u64).min(WAIT_MAX);
    let debounce = Duration::from_millis(config.get(keys::FETCH_DEBOUNCE_MS).unsigned_abs());
    let due = context.connection.answers.due(debounce).min(now + debounce).min(deadline);
    if due > now {
        context.rest_until(due).await;
    }
    if !context.broker.memory.has_room_for_answers() {
        // Without room until then the answer comes without records, as if there were none.
        tokio::select! {
            biased;
            () = context.broker.memory.room_for_answers() => {}
            () = context.rest_until(deadline) => {}
        }
    }
    let rack = rack_of(context, &request.rack_id);
    let limit = usize::try_from(request.max_bytes.min(config.get(keys::FETCH_MAX_BYTES)));
    let reader = Reader {
        limit: limit.unwrap_or(0),
        memory: context.broker.memory.clone(),
        env: context.broker.env.clone(),
        committed_only: request.isolation_level == READ_COMMITTED,
        nearest: rack.and_then(|rack| Nearest::of(context, rack)),
        sources: open_all(context, wanted, rack.is_some()).await,
    };
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0).min(reader.limit().unwrap_or(0));
    let mut read = reader.read(wanted).await;
    while read.bytes < min_bytes && !read.is_due && request.max_wait_ms > 0 && !wanted.is_empty() {
        // Registered first and looked at again after, so that nothing committed in between is missed.
        let waiter = ReadWaiter::new((min_bytes - read.bytes) as u64);
        reader.sources.iter().flatten().for_each(|source| source.register(&waiter));
        if reader.is_old(&read) {
            read = reader.read(wanted).await;
            if read.bytes >= min_bytes || read.is_due {
                break;
            }
        }
        // Read anew after the wait: who only waits holds no records.
        drop(read);
        let ended = tokio::select! {
            biased;
            () = waiter.woken() => false,
            () = context.rest_until(deadline) => true,
        };
        read = reader.read(wanted).await;
        if ended {
            break;
        }
    }
    reader.count(&read);
    if is_small(&request, wanted, &read) {
        context.connection.answers.sent(context.broker.env.clock.now(), debounce);
    }
    let leaders = name_leaders(context, wanted, &mut read.results);
    let mut response = round.finish(sessions, read.results).await;
    response.node_endpoints = leaders.into_iter().map(endpoint).collect();
    Ok(response)
}

/// Whether an answer is worth waiting for more: it brings all there is, little, and in several batches.
fn is_small(request: &FetchRequest<'_>, wanted: &[FetchPartition], read: &ReadPass) -> bool {
    let is_limited =
        |bytes: usize, limit: i32| bytes.saturating_mul(2) >= usize::try_from(limit).unwrap_or(0);
    if read.bytes == 0
        || read.bytes >= SMALL_BYTES
        || read.is_due
        || is_limited(read.bytes, request.max_bytes)
    {
        return false;
    }
    let mut batches = 0;
    for (asked, data) in wanted.iter().zip(&read.results) {
        let Payload::One(records) = &data.records else { return false };
        if records.is_empty() {
            continue;
        }
        if is_limited(records.len(), asked.max_bytes) {
            return false;
        }
        batches += Batches::new(records).take(2).count();
    }
    batches > 1
}

/// Names the leader of each partition that was asked for in vain because of it. Returns where they are reached.
fn name_leaders(
    context: &RequestContext<'_>,
    wanted: &[FetchPartition],
    results: &mut [PartitionData],
) -> Vec<BrokerView> {
    if context.api_version < LEADER_VERSION {
        return Vec::new();
    }
    let mut leaders = Leaders::new(context.broker.image());
    for (asked, data) in wanted.iter().zip(results) {
        let code = ErrorCode::from_code(data.error_code);
        if !matches!(code, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch) {
            continue;
        }
        let leader = leaders.of(&asked.topic, asked.partition);
        data.current_leader = LeaderIdAndEpoch { leader_id: leader.id, leader_epoch: leader.epoch };
    }
    leaders.endpoints(|image| cluster::brokers(context, image))
}

fn endpoint(broker: BrokerView) -> NodeEndpoint<'static> {
    NodeEndpoint {
        node_id: broker.id,
        host: Cow::Owned(broker.address.host),
        port: i32::from(broker.address.port),
        rack: broker.rack.map(Cow::Owned),
    }
}

/// The partitions of one request, found once.
struct Reader {
    /// Bytes the client and the configuration let one answer have.
    limit: usize,
    memory: Arc<MemoryBudget>,
    env: Env,
    committed_only: bool,
    /// Set where the consumer is to read from a broker near it.
    nearest: Option<Nearest>,
    sources: Vec<Result<Source, ErrorCode>>,
}

/// Where a partition is read from.
enum Source {
    Led(Arc<Partition>),
    Followed(Arc<Follower>),
}

impl Source {
    fn register(&self, waiter: &Arc<ReadWaiter>) {
        match self {
            Source::Led(partition) => partition.log.register(waiter),
            Source::Followed(follower) => {
                // Of one that cannot be read any more the next pass tells.
                if let Ok(followed) = follower.now() {
                    followed.register(waiter);
                }
            }
        }
    }

    fn metrics(&self) -> &TopicMetrics {
        match self {
            Source::Led(partition) => &partition.metrics,
            Source::Followed(follower) => &follower.metrics,
        }
    }
}

/// One pass over them.
struct ReadPass {
    results: Vec<PartitionData>,
    bytes: usize,
    /// Something is to be told at once.
    is_due: bool,
    /// Counts `bytes` until the connection does.
    held: Held,
}

async fn open_all(
    context: &RequestContext<'_>,
    wanted: &[FetchPartition],
    has_rack: bool,
) -> Vec<Result<Source, ErrorCode>> {
    let mut turns = Turns::default();
    let mut sources = Vec::with_capacity(wanted.len());
    for asked in wanted {
        sources.push(open(context, asked, has_rack));
        turns.done(1).await;
    }
    sources
}

fn open(context: &RequestContext<'_>, asked: &FetchPartition, has_rack: bool) -> Result<Source, ErrorCode> {
    let led = match &asked.topic {
        TopicKey::Name(name) => context.broker.partition(name, asked.partition),
        TopicKey::Id(id) => context.broker.partition_by_id(*id, asked.partition),
    };
    match led {
        Err(ErrorCode::NotLeaderOrFollower) if has_rack => {
            let follower = context.broker.follower(&asked.topic, asked.partition)?;
            Ok(Source::Followed(Arc::new(follower)))
        }
        led => led.map(Source::Led),
    }
}

impl Reader {
    /// Bytes an answer may have now, but for a first batch that is larger; `None` for no records when memory is spent.
    fn limit(&self) -> Option<usize> {
        self.memory.has_room_for_answers().then(|| self.limit.min(self.memory.allowance()))
    }

    async fn read(&self, wanted: &[FetchPartition]) -> ReadPass {
        let mut turns = Turns::default();
        let (results, held) = (Vec::with_capacity(wanted.len()), self.memory.answering());
        let mut pass = ReadPass { results, bytes: 0, is_due: false, held };
        let limit = self.limit();
        for (source, asked) in self.sources.iter().zip(wanted) {
            let room = limit.unwrap_or(0).saturating_sub(pass.bytes);
            let first = pass.bytes == 0 && limit.is_some();
            let result = match source {
                Ok(Source::Led(partition)) if partition.log.is_closed() => Err(deleted(&asked.topic)),
                Ok(Source::Led(partition)) => self.read_one(partition, asked, room, first).await,
                Ok(Source::Followed(follower)) => self.read_followed(follower, asked, room, first).await,
                Err(code) => Err(*code),
            };
            let data = result.unwrap_or_else(refused);
            pass.is_due |=
                data.error_code != 0 || data.diverging_epoch.epoch >= 0 || data.preferred_read_replica >= 0;
            pass.bytes += data.records.len();
            pass.held.set(pass.bytes);
            pass.results.push(data);
            turns.done(1).await;
        }
        pass
    }

    /// Whether there may be more by now than a pass found.
    fn is_old(&self, pass: &ReadPass) -> bool {
        self.sources.iter().zip(&pass.results).any(|(source, data)| match source {
            Ok(Source::Led(partition)) => {
                partition.log.is_closed() || partition.log.high_watermark() != data.high_watermark
            }
            Ok(Source::Followed(_)) => true,
            Err(_) => false,
        })
    }

    async fn read_one(
        &self,
        partition: &Arc<Partition>,
        asked: &FetchPartition,
        room: usize,
        first: bool,
    ) -> Result<PartitionData, ErrorCode> {
        // Any negative epoch stands for none here.
        partition.check_epoch(asked.current_leader_epoch.max(-1))?;
        let log = &partition.log;
        let mut data = self.begin(log.high_watermark(), log.log_start());
        let epoch_end = |epoch| log.epoch_end(epoch);
        if let Some(diverging) = divergence(epoch_end, asked)? {
            data.diverging_epoch = diverging;
            return Ok(data);
        }
        if let Some(nearest) = &self.nearest
            && let Some(broker) = nearest.choose(partition, asked.fetch_offset)
        {
            data.preferred_read_replica = broker.0;
            return Ok(data);
        }
        let limit = usize::try_from(asked.max_bytes).unwrap_or(0).min(room);
        if room == 0 && !first {
            check_range(partition, asked)?;
        } else if let Some(range) = log.range(asked.fetch_offset, limit) {
            data.records = Payload::File(range);
        } else {
            data.records = Payload::One(self.read_records(partition, asked, limit, first).await?);
        }
        Ok(data)
    }

    fn begin(&self, high_watermark: Offset, log_start_offset: Offset) -> PartitionData {
        PartitionData {
            high_watermark,
            last_stable_offset: high_watermark,
            log_start_offset,
            aborted_transactions: self.committed_only.then(Vec::new),
            records: Payload::empty(),
            ..PartitionData::default()
        }
    }

    /// As [`Reader::read_one`], of a copy.
    async fn read_followed(
        &self,
        follower: &Arc<Follower>,
        asked: &FetchPartition,
        room: usize,
        first: bool,
    ) -> Result<PartitionData, ErrorCode> {
        let followed = follower.now()?;
        check_epoch(followed.leader_epoch(), asked.current_leader_epoch.max(-1))?;
        let from = asked.fetch_offset;
        followed.check(from).map_err(|error| follow_code(&error))?;
        let mut data = self.begin(followed.high_watermark(), followed.log_start());
        if let Some(diverging) = divergence(|epoch| followed.epoch_end(epoch), asked)? {
            data.diverging_epoch = diverging;
            return Ok(data);
        }
        let limit = usize::try_from(asked.max_bytes).unwrap_or(0).min(room);
        if room == 0 && !first {
            return Ok(data);
        }
        if let Some(range) = followed.range(from, limit) {
            data.records = Payload::File(range);
            return Ok(data);
        }
        let read = self.read_copy(followed, from, limit, first).await;
        data.records = Payload::One(read.map_err(|error| {
            if let FollowError::Storage(error) = &error {
                tracing::error!(topic = &*follower.topic, partition = asked.partition, %error, "records cannot be read");
            }
            follow_code(&error)
        })?);
        Ok(data)
    }

    /// As [`Reader::read_records`].
    async fn read_copy(
        &self,
        followed: Followed,
        from: Offset,
        limit: usize,
        first: bool,
    ) -> Result<Bytes, FollowError> {
        match followed.read_with(Patience::Cached, from, limit, first) {
            Err(FollowError::Storage(StorageError::NotCached)) => {
                self.env.blocking(move || followed.read_with(Patience::Wait, from, limit, first)).await
            }
            read => read,
        }
    }

    /// Reads what is in memory at once, and anything else where that may take the disk's time: the requests of others
    /// must not wait for it.
    async fn read_records(
        &self,
        partition: &Arc<Partition>,
        asked: &FetchPartition,
        limit: usize,
        first: bool,
    ) -> Result<Bytes, ErrorCode> {
        let from = asked.fetch_offset;
        let mut read = partition.log.read_with(Patience::Cached, from, limit, first);
        if matches!(read, Err(ReadError::Storage(StorageError::NotCached))) {
            let partition = partition.clone();
            read = self.env.blocking(move || partition.log.read(from, limit, first)).await;
        }
        read.map_err(|error| {
            if let ReadError::Storage(error) = &error {
                let (topic, partition) = (&*partition.topic, asked.partition);
                tracing::error!(topic, partition, %error, "records cannot be read");
            }
            read_code(&error)
        })
    }

    fn count(&self, pass: &ReadPass) {
        for (source, data) in self.sources.iter().zip(&pass.results) {
            let Ok(source) = source else { continue };
            match data.error_code {
                0 => source.metrics().fetched(data.records.len() as u64),
                _ => source.metrics().fetch_failed(),
            }
        }
    }
}

/// What the name or id of a topic that was deleted meanwhile stands for.
fn deleted(topic: &TopicKey) -> ErrorCode {
    match topic {
        TopicKey::Name(_) => ErrorCode::UnknownTopicOrPartition,
        TopicKey::Id(_) => ErrorCode::UnknownTopicId,
    }
}

/// A partition beyond the limits is still told when its offset is out of range.
fn check_range(partition: &Partition, asked: &FetchPartition) -> Result<(), ErrorCode> {
    let range = partition.log.log_start()..=partition.log.end();
    if range.contains(&asked.fetch_offset) { Ok(()) } else { Err(ErrorCode::OffsetOutOfRange) }
}

/// What a consumer hears when a copy gives it nothing.
fn follow_code(error: &FollowError) -> ErrorCode {
    match error {
        FollowError::NotHere => ErrorCode::NotLeaderOrFollower,
        FollowError::NotYet { .. } => ErrorCode::OffsetNotAvailable,
        FollowError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        FollowError::Storage(_) => ErrorCode::KafkaStorageError,
    }
}

/// Where the client's log and this one part, if it says which epoch it read last (KIP-595).
fn divergence(
    epoch_end: impl Fn(LeaderEpoch) -> Option<(LeaderEpoch, Offset)>,
    asked: &FetchPartition,
) -> Result<Option<EpochEndOffset>, ErrorCode> {
    if asked.last_fetched_epoch < 0 {
        return Ok(None);
    }
    let end = epoch_end(LeaderEpoch(asked.last_fetched_epoch));
    let (epoch, end_offset) = end.ok_or(ErrorCode::OffsetOutOfRange)?;
    let parted = epoch.0 < asked.last_fetched_epoch || end_offset < asked.fetch_offset;
    Ok(parted.then_some(EpochEndOffset { epoch: epoch.0, end_offset }))
}

fn refused(code: ErrorCode) -> PartitionData {
    let is_unknown = matches!(code, ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId);
    PartitionData {
        error_code: code.code(),
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        // An error lists none. Kafka says so by an empty list of what it does not know, else by null.
        aborted_transactions: is_unknown.then(Vec::new),
        records: Payload::empty(),
        ..PartitionData::default()
    }
}
