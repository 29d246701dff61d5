//! A producer for one partition: it finds who leads, keeps up to five batches in flight if it is idempotent, and sends
//! again, in order, whatever was not acknowledged (acks=all).

use std::collections::VecDeque;
use std::sync::Arc;

use base::batch::{BatchBuilder, Compression};
use base::env::sim::SimRandom;
use base::error::ErrorCode;
use wire::message::produce_request::{PartitionProduceData, TopicProduceData};
use wire::message::{InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse};

use super::clients::{Broken, Clients};
use super::history::{Mark, Place};
use crate::connection::{Connection, decode};

const PRODUCE_VERSION: i16 = 9;
const INIT_VERSION: i16 = 4;
/// With which Kafka's clients stay idempotent.
const IN_FLIGHT_MAX: usize = 5;
/// How long the broker may wait for copies, ms.
const ACKS_PATIENCE_MS: i32 = 3_000;
/// Stands for no producer id.
const NONE: i64 = -1;
/// Keys of a compacted topic.
pub(crate) const KEYS: u32 = 7;

/// The key of a record.
pub(crate) fn key_of(mark: Mark) -> u64 {
    u64::from(mark.number % KEYS)
}

/// Batches that were made and not acknowledged yet.
struct Batch {
    marks: Vec<Mark>,
    bytes: Vec<u8>,
}

/// See the module's head.
pub(crate) struct Writer {
    clients: Arc<Clients>,
    place: Place,
    number: u32,
    idempotent: bool,
    random: SimRandom,
    /// From a broker.
    id: i64,
    queue: VecDeque<Batch>,
    /// Records made so far.
    made: u32,
    settled: u64,
    /// Offset behind the last acknowledged record.
    end: i64,
    /// Longest pause between two batches, ms.
    pace_ms: u64,
}

impl Writer {
    pub(crate) fn new(
        clients: Arc<Clients>,
        place: Place,
        number: u32,
        idempotent: bool,
        seed: u64,
    ) -> Writer {
        if idempotent {
            clients.history.lock().idempotent(number);
        }
        let random = SimRandom::new(seed);
        let pace_ms = 50 + random.below(300);
        Writer {
            clients,
            place,
            number,
            idempotent,
            random,
            id: NONE,
            queue: VecDeque::new(),
            made: 0,
            settled: 0,
            end: 0,
            pace_ms,
        }
    }

    /// Writes until clients are to end and all is acknowledged.
    pub(crate) async fn run(mut self) {
        while !(self.clients.is_ending() && self.queue.is_empty()) && self.clients.accusation().is_none() {
            if let Some((node, _)) = self.clients.leader(&self.random, &self.place, -1).await {
                match self.talk(node).await {
                    Ok(()) | Err(Broken::Connection) => {}
                    Err(Broken::Word(word)) => {
                        let Writer { number, place, id, .. } = &self;
                        return self
                            .clients
                            .accuse(format!("writer {number} to {place:?} with id {id}: {word}"));
                    }
                }
            }
            self.clients.sleep_ms(10 + self.random.below(150)).await;
        }
    }

    async fn talk(&mut self, node: i32) -> Result<(), Broken> {
        let mut connection = self.clients.dial(node).await?;
        if self.idempotent && self.id == NONE {
            self.init(&mut connection).await?;
        }
        let mut in_flight = 0;
        // Batches that were not acknowledged; those behind the first may be, but all are sent again.
        let mut refused = 0;
        loop {
            if self.random.below(150) == 0 {
                return Err(Broken::Connection);
            }
            // Until the first is there no broker can tell that a later one comes too early.
            let limit = if self.idempotent && self.settled > 0 { IN_FLIGHT_MAX } else { 1 };
            if refused > 0 {
                if in_flight == 0 {
                    return Err(Broken::Connection);
                }
            } else if in_flight < self.queue.len().min(limit) {
                self.send(&mut connection, in_flight).await?;
                in_flight += 1;
                continue;
            } else if self.queue.len() < limit && !self.clients.is_ending() {
                if in_flight == 0 || self.random.below(4) == 0 {
                    self.clients.sleep_ms(self.random.below(self.pace_ms)).await;
                }
                if in_flight == 0 || self.random.below(3) > 0 {
                    let batch = self.make();
                    self.queue.push_back(batch);
                    continue;
                }
            }
            if in_flight == 0 {
                return Ok(());
            }
            let (code, offset) = self.receive(&mut connection).await?;
            in_flight -= 1;
            if !self.settle(code, offset, refused)? || refused > 0 {
                refused += 1;
            }
        }
    }

    async fn init(&mut self, connection: &mut Connection) -> Result<(), Broken> {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            producer_id: NONE,
            producer_epoch: -1,
        };
        let body = self.clients.within(connection.ask(INIT_VERSION, &request)).await?;
        let response: InitProducerIdResponse = decode(&body, INIT_VERSION)?;
        if response.error_code != 0 {
            return Err(Broken::Connection);
        }
        self.id = response.producer_id;
        Ok(())
    }

    fn make(&mut self) -> Batch {
        let codec = Compression::ALL[self.random.below(Compression::ALL.len() as u64) as usize];
        let mut batch = BatchBuilder::new().compression(codec);
        if self.idempotent {
            batch = batch.producer(self.id, 0, self.made as i32);
        }
        let longest = if self.random.below(20) == 0 { 60_000 } else { 200 };
        let mut marks = Vec::new();
        for _ in 0..=self.random.below(4) {
            let mark = Mark { writer: self.number, number: self.made };
            self.made += 1;
            let key = key_of(mark).to_string();
            let value = mark.value(self.random.below(longest) as usize);
            batch.append(self.clients.env.clock.wall_ms(), Some(key.as_bytes()), Some(&value));
            self.clients.history.lock().sending(&self.place, mark);
            marks.push(mark);
        }
        Batch { marks, bytes: batch.finish().expect("a batch of a few records") }
    }

    async fn send(&mut self, connection: &mut Connection, index: usize) -> Result<(), Broken> {
        let (topic, partition) = &self.place;
        let data = PartitionProduceData { index: *partition, records: Some(&self.queue[index].bytes) };
        let topic_data =
            TopicProduceData { name: topic.into(), partition_data: vec![data], ..Default::default() };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: ACKS_PATIENCE_MS,
            topic_data: vec![topic_data],
            ..Default::default()
        };
        Ok(self.clients.within(connection.send(PRODUCE_VERSION, &request)).await?)
    }

    async fn receive(&self, connection: &mut Connection) -> Result<(ErrorCode, i64), Broken> {
        let body = self.clients.within(connection.receive::<ProduceRequest<'_>>(PRODUCE_VERSION)).await?;
        let response: ProduceResponse<'_> = decode(&body, PRODUCE_VERSION)?;
        let answer = response.responses.first().and_then(|topic| topic.partition_responses.first());
        let answer = answer.ok_or_else(|| Broken::Word("an answer without partition".to_owned()))?;
        let (code, offset) = (ErrorCode::from_code(answer.error_code), answer.base_offset);
        self.clients.trace.mix(format_args!("{} {:?} {code} {offset}", self.number, self.place));
        Ok((code, offset))
    }

    /// Takes an answer to the oldest batch in flight, behind so many that were refused; false when it is to be sent again.
    fn settle(&mut self, code: ErrorCode, offset: i64, refused: usize) -> Result<bool, Broken> {
        match code {
            ErrorCode::None => {
                let marks = &self.queue[refused].marks;
                let mut history = self.clients.history.lock();
                for (mark, offset) in marks.iter().zip(offset..) {
                    history.acknowledged(&self.place, offset, *mark)?;
                }
                if refused == 0 {
                    if self.idempotent && offset < self.end {
                        let (first, end) = (marks[0], self.end);
                        return Err(Broken::Word(format!("{first:?} is at {offset}, before {end}")));
                    }
                    self.end = offset + marks.len() as i64;
                    self.settled += 1;
                    self.queue.pop_front();
                }
                Ok(true)
            }
            ErrorCode::NotLeaderOrFollower
            | ErrorCode::KafkaStorageError
            | ErrorCode::RequestTimedOut
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::NotEnoughReplicasAfterAppend
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::LeaderNotAvailable => Ok(false),
            ErrorCode::OutOfOrderSequenceNumber if refused > 0 => Ok(false),
            code => {
                let first = self.queue.front().map(|batch| batch.marks[0]);
                Err(Broken::Word(format!("{code} for {first:?}, {} settled", self.settled)))
            }
        }
    }
}
