//! Incremental fetch sessions (KIP-227): a consumer names its partitions once, later requests carry only what
//! changed, and answers leave out partitions about which there is nothing new.
//!
//! ```text
//! epoch -1      no session; one named is closed
//! epoch 0       all partitions; one named is closed, a new one begins if there is room (id 0: there is none)
//! epoch n > 0   changes to the session named, which must be at exactly n; then it is at n + 1
//! ```
//!
//! Invariants: a partition is left out of an answer only if it has no records and no error and the client knows its
//! high watermark and log start; partitions that gave records go to the end of the order, so that the first ones
//! do not starve the rest; sessions and the partitions in them are bounded.
//!
//! What it does not do: read records, or know which topics exist.

mod asked;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base::env::Env;
use base::error::ErrorCode;
use base::ids::{Offset, TopicId, Uuid};
use base::metrics::NodeMetrics;
use parking_lot::Mutex;
use wire::message::fetch_request::ForgottenTopic;
use wire::message::fetch_response::PartitionData;
use wire::message::{FetchRequest, FetchResponse, FetchableTopicResponse};

use crate::turns::Turns;

use asked::{partitions_asked, topic_key};

/// From this version on a Fetch names topics by id.
const FIRST_VERSION_WITH_TOPIC_IDS: i16 = 13;

/// Epoch of a request that wants no session.
const FINAL_EPOCH: i32 = -1;

/// Epoch of a request that wants a new session.
const INITIAL_EPOCH: i32 = 0;

/// A session unused for this long may be evicted by any other, one younger than this by none (Kafka's constant).
const EVICTABLE_AFTER: Duration = Duration::from_secs(120);

/// What a partition of a session takes besides its topic's name, in both maps, bytes.
const PARTITION_BYTES: usize = 256;

/// How a Fetch names a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TopicKey {
    /// Up to version 12.
    Name(Arc<str>),
    /// From version 13 on.
    Id(TopicId),
}

/// One partition that a Fetch asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FetchPartition {
    /// The topic.
    pub(crate) topic: TopicKey,
    /// Number of the partition.
    pub(crate) partition: i32,
    /// First offset wanted.
    pub(crate) fetch_offset: Offset,
    /// Soft limit of the bytes from this partition.
    pub(crate) max_bytes: i32,
    /// Leader epoch as the client knows it, -1 for "do not check".
    pub(crate) current_leader_epoch: i32,
    /// Leader epoch of the last record fetched, -1 if not told.
    pub(crate) last_fetched_epoch: i32,
}

/// The sessions of a broker.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    env: Env,
    cache: Mutex<Cache>,
}

#[derive(Debug)]
struct Cache {
    slots: usize,
    /// Bytes that all sessions together may hold.
    bytes_max: usize,
    sessions: HashMap<i32, Entry>,
    bytes: usize,
    metrics: NodeMetrics,
}

#[derive(Debug)]
struct Entry {
    session: Arc<Mutex<Session>>,
    created_at: Duration,
    used_at: Duration,
    /// Bytes the session holds, so that looking for one to evict takes no further locks.
    bytes: usize,
}

/// One session.
#[derive(Debug)]
struct Session {
    id: i32,
    epoch: i32,
    by_topic_id: bool,
    /// Place in the order by topic and partition.
    places: HashMap<(TopicKey, i32), u64>,
    /// Partitions in the order in which they are read.
    order: BTreeMap<u64, Cached>,
    next_place: u64,
    /// What its partitions take.
    bytes: usize,
}

/// A partition, and what the client knows of it.
#[derive(Debug)]
struct Cached {
    request: FetchPartition,
    high_watermark: Offset,
    log_start_offset: Offset,
}

/// A Fetch between its beginning and its answer.
#[derive(Debug)]
pub(crate) struct FetchRound {
    partitions: Vec<FetchPartition>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Sessionless,
    /// Begin a session when the answer is known.
    Full {
        by_topic_id: bool,
    },
    /// Answer what changed; the session must then be at this epoch.
    Incremental {
        session: Arc<Mutex<Session>>,
        epoch: i32,
    },
}

impl FetchSessions {
    /// No sessions; at most `slots` of them at once (`max.incremental.fetch.session.cache.slots`), which may hold
    /// `bytes_max` together, counted in `metrics`.
    pub(crate) fn new(env: Env, slots: usize, bytes_max: usize, metrics: NodeMetrics) -> FetchSessions {
        let cache = Cache { slots, bytes_max, sessions: HashMap::new(), bytes: 0, metrics };
        FetchSessions { env, cache: Mutex::new(cache) }
    }

    /// Begins to answer a request: finds out which partitions it asks for.
    ///
    /// # Errors
    /// The code of the whole answer, which then carries session id 0 and no partitions.
    pub(crate) fn begin(&self, version: i16, request: &FetchRequest<'_>) -> Result<FetchRound, ErrorCode> {
        let by_topic_id = version >= FIRST_VERSION_WITH_TOPIC_IDS;
        let asked = partitions_asked(&request.topics, by_topic_id);
        if request.session_epoch == FINAL_EPOCH || request.session_epoch == INITIAL_EPOCH {
            if request.session_id != 0 {
                self.cache.lock().remove(request.session_id);
            }
            let kind = match request.session_epoch {
                FINAL_EPOCH => Kind::Sessionless,
                _ => Kind::Full { by_topic_id },
            };
            return Ok(FetchRound { partitions: asked, kind });
        }
        self.begin_incremental(by_topic_id, request, asked)
    }

    fn begin_incremental(
        &self,
        by_topic_id: bool,
        request: &FetchRequest<'_>,
        asked: Vec<FetchPartition>,
    ) -> Result<FetchRound, ErrorCode> {
        let now = self.env.clock.now();
        // The sessions of others are not held up by what may be many changes to this one.
        let (handle, room) = self.cache.lock().find(request.session_id)?;
        let mut session = handle.lock();
        if session.epoch != request.session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_topic_id != by_topic_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        if session.bytes + asked.iter().map(bytes_of).sum::<usize>() > room {
            self.cache.lock().remove(request.session_id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        session.change(&asked, &request.forgotten_topics_data);
        if session.order.is_empty() {
            self.cache.lock().remove(request.session_id);
            return Ok(FetchRound { partitions: asked, kind: Kind::Sessionless });
        }
        session.epoch = next_epoch(session.epoch);
        let partitions: Vec<_> = session.order.values().map(|cached| cached.request.clone()).collect();
        let epoch = session.epoch;
        self.cache.lock().used(request.session_id, now, session.bytes);
        drop(session);
        Ok(FetchRound { partitions, kind: Kind::Incremental { session: handle, epoch } })
    }
}

impl FetchRound {
    /// The partitions to read, in the order in which they are to be served.
    pub(crate) fn partitions(&self) -> &[FetchPartition] {
        &self.partitions
    }

    /// Makes the answer from the results for [`FetchRound::partitions`], in the same order. The index of each result
    /// is set here.
    pub(crate) async fn finish(
        self,
        sessions: &FetchSessions,
        mut results: Vec<PartitionData>,
    ) -> FetchResponse<'static> {
        debug_assert_eq!(results.len(), self.partitions.len(), "one result for each partition");
        for (result, partition) in results.iter_mut().zip(&self.partitions) {
            result.partition_index = partition.partition;
        }
        let answered = self.partitions.into_iter().zip(results);
        match self.kind {
            Kind::Sessionless => response(0, answered).await,
            Kind::Full { by_topic_id } => {
                let answered: Vec<_> = answered.collect();
                let id = sessions.create(by_topic_id, &answered).await;
                response(id, answered).await
            }
            Kind::Incremental { session, epoch } => match news(&session, epoch, answered) {
                Ok((id, news)) => response(id, news).await,
                Err(refused) => refused,
            },
        }
    }
}

/// The id of a session, and what of the answer its client must be told.
///
/// # Errors
/// The whole answer, if another request of the session came in between: this one was sent twice.
fn news(
    session: &Mutex<Session>,
    epoch: i32,
    answered: impl Iterator<Item = (FetchPartition, PartitionData)>,
) -> Result<(i32, Vec<(FetchPartition, PartitionData)>), FetchResponse<'static>> {
    let mut session = session.lock();
    if session.epoch != epoch {
        return Err(FetchResponse {
            error_code: ErrorCode::InvalidFetchSessionEpoch.code(),
            session_id: session.id,
            ..FetchResponse::default()
        });
    }
    let news = answered.filter(|(partition, result)| session.is_news(partition, result)).collect();
    Ok((session.id, news))
}

impl FetchSessions {
    /// Opens a session if there is room for it. Returns its id, or 0.
    async fn create(&self, by_topic_id: bool, answered: &[(FetchPartition, PartitionData)]) -> i32 {
        let now = self.env.clock.now();
        let bytes = answered.iter().map(|(partition, _)| bytes_of(partition)).sum();
        if !self.cache.lock().make_room(bytes, now) {
            return 0;
        }
        let mut session = Session {
            id: 0,
            epoch: next_epoch(INITIAL_EPOCH),
            by_topic_id,
            places: HashMap::with_capacity(answered.len()),
            order: BTreeMap::new(),
            next_place: 0,
            bytes: 0,
        };
        let mut turns = Turns::default();
        for (partition, result) in answered {
            turns.done(1).await;
            session.add(Cached {
                request: partition.clone(),
                high_watermark: result.high_watermark,
                log_start_offset: result.log_start_offset,
            });
        }
        let bytes = session.bytes;
        let mut cache = self.cache.lock();
        if !cache.make_room(bytes, now) {
            return 0;
        }
        let id = loop {
            let id = (self.env.random.next_u64() >> 33) as i32;
            if id > 0 && !cache.sessions.contains_key(&id) {
                break id;
            }
        };
        session.id = id;
        cache.bytes += bytes;
        let session = Arc::new(Mutex::new(session));
        cache.sessions.insert(id, Entry { session, created_at: now, used_at: now, bytes });
        cache.show();
        id
    }
}

impl Cache {
    /// A session, and how many bytes it may hold beside the others.
    fn find(&self, id: i32) -> Result<(Arc<Mutex<Session>>, usize), ErrorCode> {
        let entry = self.sessions.get(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        let others = self.bytes - entry.bytes;
        Ok((entry.session.clone(), self.bytes_max.saturating_sub(others)))
    }

    /// Notes that a session was used, and what it holds after that, if it is still there.
    fn used(&mut self, id: i32, now: Duration, bytes: usize) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        entry.used_at = now;
        let before = std::mem::replace(&mut entry.bytes, bytes);
        if before != bytes {
            self.bytes = self.bytes - before + bytes;
            self.show();
        }
    }

    fn remove(&mut self, id: i32) {
        if let Some(entry) = self.sessions.remove(&id) {
            self.bytes -= entry.bytes;
            self.show();
        }
    }

    fn show(&self) {
        self.metrics.fetch_sessions.set(self.sessions.len() as i64);
        self.metrics.fetch_session_bytes.set(i64::try_from(self.bytes).unwrap_or(i64::MAX));
    }

    /// True if a session of so many bytes may be added, for which others may have to go: those that nobody uses, and
    /// where slots are short, or else the smallest of those that are not young, if it is smaller than the new one.
    fn make_room(&mut self, bytes: usize, now: Duration) -> bool {
        if bytes > self.bytes_max || self.slots == 0 {
            return false;
        }
        while self.bytes + bytes > self.bytes_max {
            let Some(unused) = self.unused(now) else { return false };
            self.remove(unused);
        }
        if self.sessions.len() < self.slots {
            return true;
        }
        let Some(evicted) = self.unused(now).or_else(|| self.smallest(bytes, now)) else { return false };
        self.remove(evicted);
        true
    }

    /// The session that was unused for longest, if that is long.
    fn unused(&self, now: Duration) -> Option<i32> {
        let unused = self.sessions.iter().min_by_key(|(id, entry)| (entry.used_at, **id));
        unused.filter(|(_, entry)| is_old(entry.used_at, now)).map(|(id, _)| *id)
    }

    /// The smallest of the sessions that are not young, if it holds less than `bytes`.
    fn smallest(&self, bytes: usize, now: Duration) -> Option<i32> {
        let grown = self.sessions.iter().filter(|(_, entry)| is_old(entry.created_at, now));
        let smallest = grown.min_by_key(|(id, entry)| (entry.bytes, **id));
        smallest.filter(|(_, entry)| entry.bytes < bytes).map(|(id, _)| *id)
    }
}

fn is_old(since: Duration, now: Duration) -> bool {
    now.saturating_sub(since) > EVICTABLE_AFTER
}

impl Session {
    fn add(&mut self, cached: Cached) {
        let key = (cached.request.topic.clone(), cached.request.partition);
        match self.places.insert(key, self.next_place) {
            Some(place) => drop(self.order.remove(&place)),
            None => self.bytes += bytes_of(&cached.request),
        }
        self.order.insert(self.next_place, cached);
        self.next_place += 1;
    }

    /// Adds or changes partitions, then drops some.
    fn change(&mut self, asked: &[FetchPartition], forgotten: &[ForgottenTopic<'_>]) {
        for partition in asked {
            let place = self.places.get(&(partition.topic.clone(), partition.partition));
            match place.and_then(|place| self.order.get_mut(place)) {
                Some(cached) => cached.request = partition.clone(),
                None => {
                    self.add(Cached { request: partition.clone(), high_watermark: -1, log_start_offset: -1 })
                }
            }
        }
        for topic in forgotten {
            let key = topic_key(&topic.topic, topic.topic_id, self.by_topic_id);
            for partition in &topic.partitions {
                if let Some(place) = self.places.remove(&(key.clone(), *partition))
                    && let Some(cached) = self.order.remove(&place)
                {
                    self.bytes -= bytes_of(&cached.request);
                }
            }
        }
    }

    /// Whether the client must be told this result; notes what it is told.
    fn is_news(&mut self, partition: &FetchPartition, result: &PartitionData) -> bool {
        let key = (partition.topic.clone(), partition.partition);
        let Some(place) = self.places.get(&key) else { return true };
        let Some(cached) = self.order.get_mut(place) else { return true };
        let has_records = !result.records.is_empty();
        let has_error = result.error_code != ErrorCode::None.code();
        let is_news = has_records
            || has_error
            || cached.high_watermark != result.high_watermark
            || cached.log_start_offset != result.log_start_offset
            || result.preferred_read_replica >= 0
            || result.diverging_epoch.epoch >= 0;
        // After an error the client is told again where the partition stands.
        cached.high_watermark = if has_error { -1 } else { result.high_watermark };
        cached.log_start_offset = result.log_start_offset;
        if has_records && let Some(cached) = self.order.remove(place) {
            self.add(cached);
        }
        is_news
    }
}

/// What a partition takes in a session, bytes. Partitions of one topic may share its name; it is counted for each.
fn bytes_of(partition: &FetchPartition) -> usize {
    PARTITION_BYTES
        + match &partition.topic {
            TopicKey::Name(name) => name.len(),
            TopicKey::Id(_) => 0,
        }
}

fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

/// Puts results into an answer; neighbours of one topic share its entry.
async fn response(
    session_id: i32,
    results: impl IntoIterator<Item = (FetchPartition, PartitionData)>,
) -> FetchResponse<'static> {
    let mut responses: Vec<FetchableTopicResponse<'static>> = Vec::new();
    let mut last = None;
    let mut turns = Turns::default();
    for (partition, result) in results {
        turns.done(1).await;
        if last.as_ref() != Some(&partition.topic) {
            let (topic, topic_id) = match &partition.topic {
                TopicKey::Name(name) => (name.to_string(), Uuid::ZERO),
                TopicKey::Id(id) => (String::new(), *id),
            };
            responses.push(FetchableTopicResponse { topic: topic.into(), topic_id, partitions: Vec::new() });
            last = Some(partition.topic);
        }
        if let Some(topic) = responses.last_mut() {
            topic.partitions.push(result);
        }
    }
    FetchResponse { session_id, responses, ..FetchResponse::default() }
}

#[cfg(test)]
mod tests;
