//! An idempotent producer as Kafka's clients are: up to five requests in flight, each with one batch for some
//! of the partitions; a batch without an answer, or with one that asks for it, is sent again with the same
//! sequence, before any later one.
//!
//! Invariants: a batch is acknowledged only after all earlier ones of its partition; sequences have no gaps.
//! A broker that does not let this producer keep them is at fault, and [`Producer::work`] says so.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::batch::{BatchBuilder, Compression};
use base::error::ErrorCode;
use wire::message::produce_request::{PartitionProduceData, TopicProduceData};
use wire::message::{
    InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};

use crate::connection::{Connection, decode};
use crate::world::World;

/// Requests in flight, the most with which Kafka's clients stay idempotent.
const IN_FLIGHT_MAX: usize = 5;
/// Times one piece of work may connect: more, and it gets nowhere.
const CONNECTIONS_MAX: u64 = 2_000;
const PRODUCE_VERSION: i16 = 9;
const INIT_VERSION: i16 = 4;
/// Stands for no producer id.
const NONE: i64 = -1;

/// A batch that was sent at least once.
struct Sent {
    base_sequence: i32,
    values: Vec<Vec<u8>>,
    bytes: Vec<u8>,
    /// Offset of its first record, once acknowledged.
    offset: Option<i64>,
}

/// What goes to one partition.
#[derive(Default)]
struct Lane {
    sent: Vec<Sent>,
    /// Batches acknowledged: those before this index.
    settled: usize,
    /// The batch to send next.
    next: usize,
    in_flight: usize,
    /// One in flight was refused: those behind it may be, too, and all are sent again when they are answered.
    refused: bool,
}

/// A producer. See the module's head.
pub struct Producer {
    world: Arc<World>,
    address: &'static str,
    topic: &'static str,
    number: u64,
    /// From the broker, or -1.
    id: i64,
    lanes: Vec<Lane>,
    /// For each request in flight its partitions, with the index of the batch.
    in_flight: VecDeque<Vec<(usize, usize)>>,
    /// Sends again one batch at a time, as Kafka's Java client; else all at once, as others do.
    careful: bool,
    /// Batches sent again so far.
    pub repeated: u64,
}

/// Why a conversation with the broker ended early.
enum Broken {
    Connection,
    /// The broker broke its word.
    Word(String),
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Broken {
        Broken::Connection
    }
}

impl Producer {
    /// A producer that wrote nothing yet, to so many partitions of `topic`. `number` tells its values from
    /// those of others.
    pub fn new(
        world: Arc<World>,
        address: &'static str,
        topic: &'static str,
        partitions: usize,
        number: u64,
    ) -> Producer {
        let careful = world.draw(2) == 0;
        let lanes = (0..partitions).map(|_| Lane::default()).collect();
        let in_flight = VecDeque::new();
        Producer { world, address, topic, number, id: NONE, lanes, in_flight, careful, repeated: 0 }
    }

    /// Its id, or -1 if it has none yet.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// For a partition the values sent, each with its sequence, in order.
    pub fn values(&self, partition: usize) -> Vec<&[u8]> {
        self.lanes[partition].sent.iter().flat_map(|sent| &sent.values).map(Vec::as_slice).collect()
    }

    /// For a partition the acknowledged records: sequence and offset.
    pub fn acknowledged(&self, partition: usize) -> Vec<(i32, i64)> {
        let lane = &self.lanes[partition];
        let of = |sent: &Sent| {
            let offset = sent.offset.unwrap_or(NONE);
            let numbers = (sent.base_sequence..).zip(offset..).take(sent.values.len());
            numbers.collect::<Vec<_>>()
        };
        lane.sent[..lane.settled].iter().flat_map(of).collect()
    }

    /// Whether every batch was acknowledged.
    pub fn is_settled(&self) -> bool {
        self.lanes.iter().all(|lane| lane.settled == lane.sent.len())
    }

    /// Sends what was not acknowledged, then so many new batches, until all of it is, or the broker is gone.
    ///
    /// # Errors
    /// What the broker did that it must not do to a correct producer.
    pub async fn work(mut self, mut batches: u64) -> Result<Producer, String> {
        for _ in 0..CONNECTIONS_MAX {
            let Ok(mut connection) = Connection::open(&self.world, self.address).await else {
                return Ok(self);
            };
            match self.talk(&mut connection, &mut batches).await {
                Ok(()) => return Ok(self),
                Err(Broken::Word(word)) => {
                    return Err(format!("producer {} with id {}: {word}", self.number, self.id));
                }
                Err(Broken::Connection) => self.forget_in_flight(),
            }
            if self.world.sim.disk.is_cut() {
                return Ok(self);
            }
        }
        Err(format!("producer {} gets nowhere", self.number))
    }

    fn forget_in_flight(&mut self) {
        self.in_flight.clear();
        for lane in &mut self.lanes {
            (lane.in_flight, lane.refused, lane.next) = (0, false, lane.settled);
        }
    }

    async fn talk(&mut self, connection: &mut Connection, batches: &mut u64) -> Result<(), Broken> {
        if self.id == NONE {
            let request = InitProducerIdRequest {
                transactional_id: None,
                transaction_timeout_ms: i32::MAX,
                producer_id: NONE,
                producer_epoch: -1,
            };
            let body = connection.ask(INIT_VERSION, &request).await?;
            let response: InitProducerIdResponse = decode(&body, INIT_VERSION)?;
            if response.error_code != 0 {
                self.sleep(100).await;
                return Err(Broken::Connection);
            }
            self.id = response.producer_id;
        }
        loop {
            if self.world.draw(200) == 0 || self.world.sim.disk.is_cut() {
                return Err(Broken::Connection);
            }
            if self.world.draw(10) == 0 {
                self.sleep(60).await;
            }
            let may_send =
                self.in_flight.len() < IN_FLIGHT_MAX && (self.in_flight.is_empty() || self.world.draw(3) > 0);
            if may_send && self.send(connection, batches).await? {
                continue;
            }
            if self.in_flight.is_empty() {
                return Ok(());
            }
            self.receive(connection).await?;
        }
    }

    async fn sleep(&self, up_to_ms: u64) {
        self.world.sim.env.clock.sleep(Duration::from_millis(self.world.draw(up_to_ms))).await;
    }

    /// Sends one request; false when there is nothing to send now.
    async fn send(&mut self, connection: &mut Connection, batches: &mut u64) -> Result<bool, Broken> {
        let count = self.lanes.len();
        let (first, wanted) = (self.world.draw(count as u64) as usize, 1 + self.world.draw(2) as usize);
        let mut chosen = Vec::new();
        for at in (0..count).map(|step| (first + step) % count) {
            if chosen.len() < wanted && self.is_ready(at, batches) {
                let lane = &mut self.lanes[at];
                chosen.push((at, lane.next));
                (lane.next, lane.in_flight) = (lane.next + 1, lane.in_flight + 1);
            }
        }
        if chosen.is_empty() {
            return Ok(false);
        }
        let data = chosen.iter().map(|(at, index)| PartitionProduceData {
            index: *at as i32,
            records: Some(&self.lanes[*at].sent[*index].bytes),
        });
        let topic = TopicProduceData {
            name: self.topic.into(),
            partition_data: data.collect(),
            ..TopicProduceData::default()
        };
        let request =
            ProduceRequest { acks: -1, timeout_ms: 1_000, topic_data: vec![topic], ..Default::default() };
        let sent = connection.send(PRODUCE_VERSION, &request).await;
        self.in_flight.push_back(chosen);
        Ok(sent.map(|()| true)?)
    }

    /// Whether a batch can go to the partition now; makes a new one if all were sent.
    fn is_ready(&mut self, at: usize, batches: &mut u64) -> bool {
        let lane = &self.lanes[at];
        if lane.refused {
            return false;
        }
        if lane.next < lane.sent.len() {
            let ready = !self.careful || lane.in_flight == 0;
            self.repeated += u64::from(ready);
            return ready;
        }
        if *batches == 0 {
            return false;
        }
        *batches -= 1;
        let batch = self.new_batch(at);
        self.lanes[at].sent.push(batch);
        true
    }

    fn new_batch(&self, at: usize) -> Sent {
        let base_sequence =
            self.lanes[at].sent.last().map_or(0, |last| last.base_sequence + last.values.len() as i32);
        let codec = Compression::ALL[self.world.draw(Compression::ALL.len() as u64) as usize];
        let mut batch = BatchBuilder::new().compression(codec).producer(self.id, 0, base_sequence);
        let longest = if self.world.draw(10) == 0 { 120_000 } else { 300 };
        let mut values = Vec::new();
        for sequence in (base_sequence..).take(1 + self.world.draw(4) as usize) {
            let mut value = format!("{} {at} {sequence} ", self.number).into_bytes();
            value.resize(value.len() + self.world.draw(longest) as usize, b'.');
            batch.append(self.world.sim.env.clock.wall_ms(), None, Some(&value));
            values.push(value);
        }
        let bytes = batch.finish().expect("a batch of a few records");
        Sent { base_sequence, values, bytes, offset: None }
    }

    async fn receive(&mut self, connection: &mut Connection) -> Result<(), Broken> {
        let body = connection.receive::<ProduceRequest<'_>>(PRODUCE_VERSION).await?;
        let response: ProduceResponse<'_> = decode(&body, PRODUCE_VERSION)?;
        let chosen = self.in_flight.pop_front().unwrap_or_default();
        let answers = response.responses.iter().flat_map(|topic: &TopicProduceResponse<'_>| {
            topic
                .partition_responses
                .iter()
                .map(|answer| (answer.index, answer.error_code, answer.base_offset))
        });
        let answers: Vec<_> = answers.collect();
        for (at, index) in chosen {
            let answer = answers.iter().find(|(partition, _, _)| *partition == at as i32);
            let Some((_, code, offset)) = answer else {
                return Err(Broken::Word(format!("no answer for partition {at}")));
            };
            self.settle(at, index, ErrorCode::from_code(*code), *offset)?;
        }
        if self.lanes.iter().any(|lane| lane.refused) {
            self.sleep(20).await;
        }
        Ok(())
    }

    fn settle(&mut self, at: usize, index: usize, code: ErrorCode, offset: i64) -> Result<(), Broken> {
        let lane = &mut self.lanes[at];
        lane.in_flight -= 1;
        match code {
            ErrorCode::None if index == lane.settled => {
                lane.sent[index].offset = Some(offset);
                lane.settled += 1;
            }
            ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError | ErrorCode::RequestTimedOut => {
                lane.refused = true
            }
            ErrorCode::OutOfOrderSequenceNumber if lane.refused && index > lane.settled => {}
            code => {
                let earlier = index - lane.settled.min(index);
                return Err(Broken::Word(format!(
                    "{code} for sequence {} of partition {at}, {earlier} unanswered before it",
                    lane.sent[index].base_sequence
                )));
            }
        }
        if lane.refused && lane.in_flight == 0 {
            (lane.refused, lane.next) = (false, lane.settled);
        }
        Ok(())
    }
}
