//! A client that speaks raw frames: it sees exactly what was acknowledged and what was not.

use std::io;

use base::batch::Batches;
use base::env::{Env, Stream};
use base::ids::TopicId;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::message::fetch_request::{FetchPartition, FetchTopic};
use wire::message::produce_request::{PartitionProduceData, TopicProduceData};
use wire::message::{CreatableTopic, CreateTopicsRequest, FetchRequest, ProduceRequest, ResponseHeader};
use wire::{Reader, RequestMessage, ResponseMessage, request_frame};

use crate::world::World;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// One connection to the broker.
pub struct Connection {
    stream: Box<dyn Stream>,
    /// Requests sent; each has its number as correlation id.
    sent: i32,
    /// Answers received.
    received: i32,
}

impl Connection {
    /// Connects to the broker's listener.
    ///
    /// # Errors
    /// Of the simulated network.
    pub async fn open(world: &World, address: &str) -> io::Result<Connection> {
        Connection::dial(&world.sim.env, address).await
    }

    /// Connects from the machine of `env`.
    ///
    /// # Errors
    /// Of the simulated network.
    pub async fn dial(env: &Env, address: &str) -> io::Result<Connection> {
        Ok(Connection { stream: env.network.connect(address).await?, sent: 0, received: 0 })
    }

    /// Sends a request and waits for nothing.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn send<'a, R: RequestMessage<'a>>(&mut self, version: i16, body: &R) -> io::Result<()> {
        self.sent += 1;
        let frame = request_frame(self.sent, Some("sim"), version, body).map_err(io::Error::other)?;
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }

    /// Reads the body of the answer to the oldest request without one, which was an `R` of `version`.
    ///
    /// # Errors
    /// When the connection ends, or the answer is none.
    pub async fn receive<'a, R: RequestMessage<'a>>(&mut self, version: i16) -> io::Result<Bytes> {
        self.received += 1;
        let size = usize::try_from(self.stream.read_i32().await?).unwrap_or(usize::MAX);
        if size > ANSWER_BYTES_MAX {
            return Err(io::Error::other("the answer is too long"));
        }
        let mut answer = vec![0; size];
        self.stream.read_exact(&mut answer).await?;
        let mut reader = Reader::new(&answer);
        let header_version = R::API_KEY.response_header_version(version);
        let header = ResponseHeader::decode(&mut reader, header_version).map_err(io::Error::other)?;
        if header.correlation_id != self.received {
            return Err(io::Error::other("the answer is another request's"));
        }
        let body = answer.len() - reader.remaining();
        Ok(Bytes::from(answer).slice(body..))
    }

    /// Sends a request and reads the bytes of its answer's body.
    ///
    /// # Errors
    /// When the connection ends, or the answer is none.
    pub async fn ask<'a, R: RequestMessage<'a>>(&mut self, version: i16, body: &R) -> io::Result<Bytes> {
        self.send(version, body).await?;
        self.receive::<R>(version).await
    }

    /// Creates a topic; true when it was created or is there already.
    ///
    /// # Errors
    /// As [`Connection::ask`].
    pub async fn create_topic(&mut self, name: &str, partitions: i32) -> io::Result<bool> {
        const EXISTS: i16 = 36;
        let (code, _) = self.create_new_topic(name, partitions).await?;
        Ok(code == 0 || code == EXISTS)
    }

    /// Creates a topic; the error code of the answer, and the id given.
    ///
    /// # Errors
    /// As [`Connection::ask`]; whether the topic was created is not known then.
    pub async fn create_new_topic(&mut self, name: &str, partitions: i32) -> io::Result<(i16, TopicId)> {
        const VERSION: i16 = 7;
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        let body = self.ask(VERSION, &request).await?;
        let response = decode::<wire::message::CreateTopicsResponse<'_>>(&body, VERSION)?;
        let answer = response.topics.first().ok_or_else(empty)?;
        Ok((answer.error_code, answer.topic_id))
    }

    /// Produces one batch with acks=all; the offset and error code of the answer.
    ///
    /// # Errors
    /// As [`Connection::ask`]; whether the batch was written is not known then.
    pub async fn produce(&mut self, topic: &str, partition: i32, batch: &[u8]) -> io::Result<(i64, i16)> {
        self.produce_to(9, TopicProduceData { name: topic.into(), ..Default::default() }, partition, batch)
            .await
    }

    /// As [`Connection::produce`], to the topic with this id, whatever its name.
    ///
    /// # Errors
    /// As [`Connection::produce`].
    pub async fn produce_by_id(
        &mut self,
        topic_id: TopicId,
        partition: i32,
        batch: &[u8],
    ) -> io::Result<(i64, i16)> {
        self.produce_to(13, TopicProduceData { topic_id, ..Default::default() }, partition, batch).await
    }

    async fn produce_to(
        &mut self,
        version: i16,
        mut topic: TopicProduceData<'_>,
        partition: i32,
        batch: &[u8],
    ) -> io::Result<(i64, i16)> {
        topic.partition_data = vec![PartitionProduceData { index: partition, records: Some(batch) }];
        let request =
            ProduceRequest { acks: -1, timeout_ms: 60_000, topic_data: vec![topic], ..Default::default() };
        let body = self.ask(version, &request).await?;
        let response = decode::<wire::message::ProduceResponse<'_>>(&body, version)?;
        let answer = response.responses.first().and_then(|topic| topic.partition_responses.first());
        let answer = answer.ok_or_else(empty)?;
        Ok((answer.base_offset, answer.error_code))
    }

    /// Reads a partition from `offset` on: batches and error code.
    ///
    /// # Errors
    /// As [`Connection::ask`].
    pub async fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> io::Result<(Bytes, i16)> {
        self.fetch_from(11, FetchTopic { topic: topic.into(), ..Default::default() }, partition, offset).await
    }

    async fn fetch_from(
        &mut self,
        version: i16,
        mut topic: FetchTopic<'_>,
        partition: i32,
        offset: i64,
    ) -> io::Result<(Bytes, i16)> {
        topic.partitions = vec![FetchPartition {
            partition,
            fetch_offset: offset,
            current_leader_epoch: -1,
            partition_max_bytes: 1 << 20,
            ..FetchPartition::default()
        }];
        let request = FetchRequest {
            replica_id: -1,
            max_bytes: 1 << 20,
            session_epoch: -1,
            topics: vec![topic],
            ..FetchRequest::default()
        };
        let body = self.ask(version, &request).await?;
        let response = decode::<wire::message::FetchResponse<'_>>(&body, version)?;
        let answer = response.responses.first().and_then(|topic| topic.partitions.first());
        let answer = answer.ok_or_else(empty)?;
        Ok((answer.records.to_bytes()?, answer.error_code))
    }

    /// Reads a partition from offset 0 to its end, or the error code met on the way.
    ///
    /// # Errors
    /// As [`Connection::ask`], and when the bytes are not batches.
    pub async fn read(&mut self, topic: &str, partition: i32) -> io::Result<Result<Vec<u8>, i16>> {
        self.read_from(11, FetchTopic { topic: topic.into(), ..Default::default() }, partition).await
    }

    /// As [`Connection::read`], of the topic with this id, whatever its name.
    ///
    /// # Errors
    /// As [`Connection::read`].
    pub async fn read_by_id(
        &mut self,
        topic_id: TopicId,
        partition: i32,
    ) -> io::Result<Result<Vec<u8>, i16>> {
        self.read_from(13, FetchTopic { topic_id, ..Default::default() }, partition).await
    }

    async fn read_from(
        &mut self,
        version: i16,
        topic: FetchTopic<'_>,
        partition: i32,
    ) -> io::Result<Result<Vec<u8>, i16>> {
        let (mut all, mut offset) = (Vec::new(), 0);
        loop {
            let (bytes, code) = self.fetch_from(version, topic.clone(), partition, offset).await?;
            if code != 0 {
                return Ok(Err(code));
            }
            let Some(last) = Batches::new(&bytes).last() else { return Ok(Ok(all)) };
            offset = last.map_err(io::Error::other)?.next_offset();
            all.extend_from_slice(&bytes);
        }
    }
}

/// Decodes the body of an answer.
///
/// # Errors
/// When the bytes are no such answer.
pub fn decode<'a, R: ResponseMessage<'a>>(body: &'a Bytes, version: i16) -> io::Result<R> {
    R::decode(&mut Reader::from_bytes(body), version).map_err(io::Error::other)
}

fn empty() -> io::Error {
    io::Error::other("the answer is empty")
}
