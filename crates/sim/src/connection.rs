//! A client that speaks raw frames: it sees exactly what was acknowledged and what was not.

use std::io;

use base::env::Stream;
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
    correlation_id: i32,
}

impl Connection {
    /// Connects to the broker's listener.
    ///
    /// # Errors
    /// Of the simulated network.
    pub async fn open(world: &World, address: &str) -> io::Result<Connection> {
        Ok(Connection { stream: world.sim.env.network.connect(address).await?, correlation_id: 0 })
    }

    /// Sends a request and reads the bytes of its answer's body.
    ///
    /// # Errors
    /// When the connection ends, or the answer is none.
    pub async fn ask<'a, R: RequestMessage<'a>>(&mut self, version: i16, body: &R) -> io::Result<Bytes> {
        self.correlation_id += 1;
        let frame =
            request_frame(self.correlation_id, Some("sim"), version, body).map_err(io::Error::other)?;
        for run in frame {
            self.stream.write_all(&run).await?;
        }
        self.stream.flush().await?;
        let size = usize::try_from(self.stream.read_i32().await?).unwrap_or(usize::MAX);
        if size > ANSWER_BYTES_MAX {
            return Err(io::Error::other("the answer is too long"));
        }
        let mut answer = vec![0; size];
        self.stream.read_exact(&mut answer).await?;
        let mut reader = Reader::new(&answer);
        let header_version = R::API_KEY.response_header_version(version);
        let header = ResponseHeader::decode(&mut reader, header_version).map_err(io::Error::other)?;
        if header.correlation_id != self.correlation_id {
            return Err(io::Error::other("the answer is another request's"));
        }
        let body = answer.len() - reader.remaining();
        Ok(Bytes::from(answer).slice(body..))
    }

    /// Creates a topic; true when it was created or is there already.
    ///
    /// # Errors
    /// As [`Connection::ask`].
    pub async fn create_topic(&mut self, name: &str, partitions: i32) -> io::Result<bool> {
        const VERSION: i16 = 5;
        const EXISTS: i16 = 36;
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        let body = self.ask(VERSION, &request).await?;
        let response = decode::<wire::message::CreateTopicsResponse<'_>>(&body, VERSION)?;
        Ok(response.topics.iter().all(|topic| topic.error_code == 0 || topic.error_code == EXISTS))
    }

    /// Produces one batch with acks=all; the offset and error code of the answer.
    ///
    /// # Errors
    /// As [`Connection::ask`]; whether the batch was written is not known then.
    pub async fn produce(&mut self, topic: &str, partition: i32, batch: &[u8]) -> io::Result<(i64, i16)> {
        const VERSION: i16 = 9;
        let data = PartitionProduceData { index: partition, records: Some(batch) };
        let topic = TopicProduceData { name: topic.into(), partition_data: vec![data], ..Default::default() };
        let request =
            ProduceRequest { acks: -1, timeout_ms: 60_000, topic_data: vec![topic], ..Default::default() };
        let body = self.ask(VERSION, &request).await?;
        let response = decode::<wire::message::ProduceResponse<'_>>(&body, VERSION)?;
        let answer = response.responses.first().and_then(|topic| topic.partition_responses.first());
        let answer = answer.ok_or_else(|| io::Error::other("the answer is empty"))?;
        Ok((answer.base_offset, answer.error_code))
    }

    /// Reads a partition from `offset` on: batches and error code.
    ///
    /// # Errors
    /// As [`Connection::ask`].
    pub async fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> io::Result<(Bytes, i16)> {
        const VERSION: i16 = 11;
        let asked = FetchPartition {
            partition,
            fetch_offset: offset,
            current_leader_epoch: -1,
            partition_max_bytes: 1 << 20,
            ..FetchPartition::default()
        };
        let topic = FetchTopic { topic: topic.into(), partitions: vec![asked], ..Default::default() };
        let request = FetchRequest {
            replica_id: -1,
            max_bytes: 1 << 20,
            session_epoch: -1,
            topics: vec![topic],
            ..FetchRequest::default()
        };
        let body = self.ask(VERSION, &request).await?;
        let response = decode::<wire::message::FetchResponse<'_>>(&body, VERSION)?;
        let answer = response.responses.first().and_then(|topic| topic.partitions.first());
        let answer = answer.ok_or_else(|| io::Error::other("the answer is empty"))?;
        Ok((answer.records.to_bytes(), answer.error_code))
    }
}

fn decode<'a, R: ResponseMessage<'a>>(body: &'a Bytes, version: i16) -> io::Result<R> {
    R::decode(&mut Reader::from_bytes(body), version).map_err(io::Error::other)
}
