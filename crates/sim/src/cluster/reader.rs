//! A consumer of one partition that reads on and on, from its leader, and now and then from the beginning again.

use std::sync::Arc;

use base::batch::{BatchView, Batches};
use base::env::sim::SimRandom;
use base::error::ErrorCode;
use wire::message::fetch_request::{FetchPartition, FetchTopic};
use wire::message::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use wire::message::{FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse};

use super::clients::{Broken, Clients};
use super::history::{Place, Promise};
use crate::connection::{Connection, decode};

const FETCH_VERSION: i16 = 11;
const OFFSETS_VERSION: i16 = 6;
/// Timestamp that stands for the start of a log.
const EARLIEST: i64 = -2;
/// Bytes of one answer.
const BYTES_MAX: i32 = 256 << 10;

/// See the module's head.
pub(crate) struct Reader {
    clients: Arc<Clients>,
    place: Place,
    promise: Promise,
    random: SimRandom,
    /// What it reads next.
    offset: i64,
    /// The epoch it reads in.
    epoch: i32,
}

/// An answer to a fetch.
struct Fetched {
    code: ErrorCode,
    high_watermark: i64,
    bytes: Vec<u8>,
}

impl Reader {
    pub(crate) fn new(clients: Arc<Clients>, place: Place, promise: Promise, seed: u64) -> Reader {
        Reader { clients, place, promise, random: SimRandom::new(seed), offset: 0, epoch: -1 }
    }

    /// Reads until clients are to end.
    pub(crate) async fn run(mut self) {
        while !self.clients.is_ending() {
            if let Some((node, epoch)) = self.clients.leader(&self.random, &self.place, self.epoch).await {
                self.epoch = epoch;
                if let Err(Broken::Word(word)) = self.talk(node).await {
                    let Reader { place, offset, .. } = &self;
                    return self
                        .clients
                        .accuse(format!("reader of {place:?} at {offset} from node {node}: {word}"));
                }
            }
            self.clients.sleep_ms(10 + self.random.below(150)).await;
        }
    }

    /// Reads a partition from its start to its end: where it starts, and what is in it.
    pub(crate) async fn read_all(mut self) -> Result<(i64, Vec<u8>), String> {
        let mut all = Vec::new();
        let mut start = None;
        for _ in 0..400 {
            let read = self.read_more(&mut start, &mut all).await;
            match (read, start) {
                (Ok(()), Some(start)) => return Ok((start, all)),
                (Err(Broken::Word(word)), _) => return Err(format!("{:?}: {word}", self.place)),
                _ => self.clients.sleep_ms(50).await,
            }
        }
        Err(format!("{:?} cannot be read", self.place))
    }

    async fn read_more(&mut self, start: &mut Option<i64>, all: &mut Vec<u8>) -> Result<(), Broken> {
        let leader = self.clients.leader(&self.random, &self.place, self.epoch).await;
        let (node, epoch) = leader.ok_or(Broken::Connection)?;
        self.epoch = epoch;
        let mut connection = self.clients.dial(node).await?;
        if start.is_none() {
            self.offset = self.earliest(&mut connection).await?;
            *start = Some(self.offset);
        }
        loop {
            let fetched = self.fetch(&mut connection).await?;
            match fetched.code {
                ErrorCode::None => {}
                // Trimmed meanwhile: from the beginning again.
                ErrorCode::OffsetOutOfRange if self.promise.trimmed => {
                    (*start, *all) = (None, Vec::new());
                    return Err(Broken::Connection);
                }
                code if goes_elsewhere(code) => return Err(Broken::Connection),
                code => return Err(Broken::Word(code.to_string())),
            }
            self.offset = self.clients.history.lock().shown(&self.place, self.offset, &fetched.bytes)?;
            all.extend_from_slice(&fetched.bytes);
            if fetched.bytes.is_empty() {
                return match self.offset >= fetched.high_watermark || self.promise.compacted {
                    true => Ok(()),
                    false => Err(Broken::Connection),
                };
            }
        }
    }

    async fn talk(&mut self, node: i32) -> Result<(), Broken> {
        let mut connection = self.clients.dial(node).await?;
        while !self.clients.is_ending() {
            if self.random.below(100) == 0 {
                self.offset = self.earliest(&mut connection).await?;
            }
            if self.random.below(5) == 0 {
                self.clients.sleep_ms(self.random.below(200)).await;
            }
            let least = self.clients.history.lock().watermark(&self.place, self.epoch);
            let Fetched { code, high_watermark, bytes } = self.fetch(&mut connection).await?;
            if tells_of_damage(code, &bytes) && self.clients.is_damaged(node) {
                self.clients.sleep_ms(self.random.below(1_000)).await;
                return Err(Broken::Connection);
            }
            match code {
                ErrorCode::None => {
                    let mut history = self.clients.history.lock();
                    history.shown_watermark(&self.place, self.epoch, high_watermark, least)?;
                    self.offset = history.shown(&self.place, self.offset, &bytes)?;
                }
                ErrorCode::OffsetOutOfRange if self.promise.trimmed => {
                    self.offset = self.earliest(&mut connection).await?;
                }
                code if goes_elsewhere(code) => return Err(Broken::Connection),
                code => return Err(Broken::Word(format!("{code} in epoch {}", self.epoch))),
            }
        }
        Ok(())
    }

    async fn fetch(&mut self, connection: &mut Connection) -> Result<Fetched, Broken> {
        let (topic, partition) = &self.place;
        let partition = FetchPartition {
            partition: *partition,
            fetch_offset: self.offset,
            current_leader_epoch: self.epoch,
            partition_max_bytes: BYTES_MAX,
            ..FetchPartition::default()
        };
        let topic = FetchTopic { topic: topic.into(), partitions: vec![partition], ..Default::default() };
        let request = FetchRequest {
            replica_id: -1,
            max_wait_ms: 200,
            min_bytes: 1,
            max_bytes: BYTES_MAX,
            session_epoch: -1,
            topics: vec![topic],
            ..FetchRequest::default()
        };
        let body = self.clients.within(connection.ask(FETCH_VERSION, &request)).await?;
        let response: FetchResponse<'_> = decode(&body, FETCH_VERSION)?;
        let answer = response.responses.first().and_then(|topic| topic.partitions.first());
        let answer = answer.ok_or_else(|| Broken::Word(format!("an answer with {}", response.error_code)))?;
        let bytes = answer.records.to_bytes()?.to_vec();
        let (code, high_watermark) = (ErrorCode::from_code(answer.error_code), answer.high_watermark);
        self.clients.trace.mix(format_args!(
            "{:?} from {} in {}: {code} {high_watermark} {}",
            self.place,
            self.offset,
            self.epoch,
            bytes.len()
        ));
        Ok(Fetched { code, high_watermark, bytes })
    }

    async fn earliest(&self, connection: &mut Connection) -> Result<i64, Broken> {
        let (topic, partition) = &self.place;
        let partition = ListOffsetsPartition {
            partition_index: *partition,
            current_leader_epoch: self.epoch,
            timestamp: EARLIEST,
        };
        let topic = ListOffsetsTopic { name: topic.into(), partitions: vec![partition] };
        let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
        let body = self.clients.within(connection.ask(OFFSETS_VERSION, &request)).await?;
        let response: ListOffsetsResponse<'_> = decode(&body, OFFSETS_VERSION)?;
        let answer = response.topics.first().and_then(|topic| topic.partitions.first());
        match answer.map(|answer| (ErrorCode::from_code(answer.error_code), answer.offset)) {
            Some((ErrorCode::None, offset)) => Ok(offset),
            Some((code, _)) if goes_elsewhere(code) => Err(Broken::Connection),
            other => Err(Broken::Word(format!("ListOffsets: {other:?}"))),
        }
    }
}

/// Whether a reader of this answer knows that it is damaged.
fn tells_of_damage(code: ErrorCode, bytes: &[u8]) -> bool {
    let is_good = |batch: Result<_, _>| batch.is_ok_and(|batch: BatchView<'_>| batch.verify_crc().is_ok());
    code == ErrorCode::CorruptMessage || !Batches::new(bytes).all(is_good)
}

/// Whether a reader that meets the error asks who leads and goes there.
fn goes_elsewhere(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotLeaderOrFollower
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::KafkaStorageError
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::OffsetNotAvailable
            | ErrorCode::ReplicaNotAvailable
    )
}
