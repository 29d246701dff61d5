//! Sends to one broker: batches of many partitions share a request, a few requests are in flight.
//!
//! What is due while all requests that may be in flight are goes into the next one, as in Kafka's producer: a request
//! costs a broker much the same whether it brings one batch or a hundred.
//!
//! Invariants: batches of one partition are sent in the order in which they came, each in a request of its own, over
//! one connection; every batch is answered, if only with the error that ended the connection. What waits is bounded by
//! the batches that each partition may have on their way.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::env::BoxFuture;
use base::error::ErrorCode;
use bytes::Bytes;
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use wire::message::produce_request::{PartitionProduceData, TopicProduceData};
use wire::message::{PartitionProduceResponse, ProduceRequest, ProduceResponse};

use super::Acks;
use super::queue::PlacedBatch;
use crate::{Answer, ClientError, Connection, PartitionName, Result};

/// How long a leader may wait for the other copies before it answers.
const PRODUCE_WAIT: Duration = Duration::from_secs(15);
/// The same, as requests carry it.
const PRODUCE_WAIT_MS: i32 = 15_000;
/// Requests that may be in flight over one connection; Kafka's `max.in.flight.requests.per.connection`.
const REQUESTS_IN_FLIGHT_MAX: usize = 5;
/// Bytes of batches beyond which no other batch joins a request; Kafka's `max.request.size`.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// A batch on its way to a broker.
struct Departure {
    partition: PartitionName,
    bytes: Bytes,
    outcome: oneshot::Sender<Result<PlacedBatch>>,
}

/// The way to one broker over one connection. Clones lead the same way.
#[derive(Clone)]
pub(super) struct BrokerSender {
    connection: Arc<Connection>,
    departures: mpsc::UnboundedSender<Departure>,
}

impl BrokerSender {
    /// Sends a batch behind those of its partition that were given before; what comes of it.
    pub(super) fn send(
        &self,
        partition: &PartitionName,
        bytes: Bytes,
    ) -> oneshot::Receiver<Result<PlacedBatch>> {
        let (outcome, told) = oneshot::channel();
        // With nobody there to take it, its outcome is dropped, which tells as much.
        let _ = self.departures.send(Departure { partition: partition.clone(), bytes, outcome });
        told
    }

    /// Sends a batch that no broker acknowledges (acks=0); returns once it is queued.
    pub(super) async fn send_unanswered(&self, partition: &PartitionName, bytes: &Bytes) -> Result<()> {
        self.connection.send(&request(Acks::None, [(partition, bytes)])).await
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

/// The ways to all brokers that a producer writes to.
#[derive(Default)]
pub(super) struct BrokerSenders {
    open: Vec<BrokerSender>,
    tasks: JoinSet<()>,
}

impl BrokerSenders {
    /// The way over a connection, opened if there is none yet.
    pub(super) fn over(&mut self, connection: &Arc<Connection>, acks: Acks) -> BrokerSender {
        if let Some(sender) = self.open.iter().find(|sender| Arc::ptr_eq(&sender.connection, connection)) {
            return sender.clone();
        }
        self.open.retain(|sender| !sender.connection.is_ended());
        while self.tasks.try_join_next().is_some() {}
        let (departures, queue) = mpsc::unbounded_channel();
        self.tasks.spawn(run(connection.clone(), acks, queue));
        let sender = BrokerSender { connection: connection.clone(), departures };
        self.open.push(sender.clone());
        sender
    }
}

/// A request that was answered, or will never be.
type Arrival = (Vec<Departure>, Result<Answer>);

/// Sends what comes, until nobody is left to give anything and all is answered.
async fn run(connection: Arc<Connection>, acks: Acks, mut departures: mpsc::UnboundedReceiver<Departure>) {
    let mut waiting = VecDeque::new();
    let mut in_flight: FuturesOrdered<BoxFuture<'static, Arrival>> = FuturesOrdered::new();
    let mut given_up = false;
    loop {
        tokio::select! {
            departure = departures.recv(), if !given_up => match departure {
                Some(departure) => waiting.push_back(departure),
                None => given_up = true,
            },
            Some((batches, answer)) = in_flight.next() => deliver(batches, answer),
            else => return,
        }
        while let Ok(departure) = departures.try_recv() {
            waiting.push_back(departure);
        }
        while in_flight.len() < REQUESTS_IN_FLIGHT_MAX && !waiting.is_empty() {
            let batches = take(&mut waiting);
            let rows = batches.iter().map(|batch| (&batch.partition, &batch.bytes));
            match connection.start(&request(acks, rows), PRODUCE_WAIT).await {
                Ok(pending) => in_flight.push_back(Box::pin(async move { (batches, pending.wait().await) })),
                Err(error) => deliver(batches, Err(error)),
            }
        }
    }
}

/// Takes batches for one request from those that wait: the first of each partition, as many as fit.
fn take(waiting: &mut VecDeque<Departure>) -> Vec<Departure> {
    let (mut taken, mut left, mut bytes) = (Vec::new(), VecDeque::new(), 0);
    let mut partitions = HashSet::new();
    while let Some(departure) = waiting.pop_front() {
        bytes += departure.bytes.len();
        if bytes > REQUEST_BYTES_MAX && !taken.is_empty() {
            waiting.push_front(departure);
            break;
        }
        if partitions.insert(departure.partition.clone()) {
            taken.push(departure);
        } else {
            bytes -= departure.bytes.len();
            left.push_back(departure);
        }
    }
    left.append(waiting);
    *waiting = left;
    taken
}

fn request<'a>(
    acks: Acks,
    batches: impl IntoIterator<Item = (&'a PartitionName, &'a Bytes)>,
) -> ProduceRequest<'a> {
    let mut topic_data: Vec<TopicProduceData<'a>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (partition, bytes) in batches {
        let place = *places.entry(&partition.topic).or_insert(topic_data.len());
        if place == topic_data.len() {
            topic_data.push(TopicProduceData { name: (*partition.topic).into(), ..Default::default() });
        }
        let row = PartitionProduceData { index: partition.partition, records: Some(bytes) };
        topic_data[place].partition_data.push(row);
    }
    ProduceRequest { acks: acks as i16, timeout_ms: PRODUCE_WAIT_MS, topic_data, ..Default::default() }
}

/// Tells each batch what the answer says of it. Whoever sent it may have gone away.
fn deliver(batches: Vec<Departure>, answer: Result<Answer>) {
    let answer = answer.and_then(|answer| {
        let response: ProduceResponse = answer.read()?;
        let mut rows = HashMap::new();
        for topic in &response.responses {
            let name: &str = &topic.name;
            rows.extend(topic.partition_responses.iter().map(|row| ((name, row.index), row)));
        }
        let placed = |batch: &Departure| {
            let row = rows.get(&(&*batch.partition.topic, batch.partition.partition));
            let missing = || ClientError::Missing { subject: batch.partition.to_string() };
            placed(&batch.partition, row.ok_or_else(missing)?)
        };
        Ok(batches.iter().map(placed).collect::<Vec<_>>())
    });
    match answer {
        Ok(outcomes) => {
            for (batch, outcome) in batches.into_iter().zip(outcomes) {
                let _ = batch.outcome.send(outcome);
            }
        }
        Err(error) => {
            for batch in batches {
                let _ = batch.outcome.send(Err(error.clone()));
            }
        }
    }
}

fn placed(partition: &PartitionName, row: &PartitionProduceResponse<'_>) -> Result<PlacedBatch> {
    if row.error_code == ErrorCode::DuplicateSequenceNumber.code() {
        return Ok(PlacedBatch { base_offset: None, timestamp: None });
    }
    let of_record = row.record_errors.first().and_then(|e| e.batch_index_error_message.as_deref());
    let message = row.error_message.as_deref().or(of_record);
    ClientError::check(row.error_code, message, || partition.to_string())?;
    Ok(PlacedBatch {
        base_offset: Some(row.base_offset).filter(|offset| *offset >= 0),
        timestamp: Some(row.log_append_time_ms).filter(|timestamp| *timestamp >= 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn departure(partition: i32, bytes: usize) -> Departure {
        let partition = PartitionName::new("t", partition);
        Departure { partition, bytes: vec![0; bytes].into(), outcome: oneshot::channel().0 }
    }

    fn rows(departures: impl IntoIterator<Item = Departure>) -> Vec<(i32, usize)> {
        let row = |departure: Departure| (departure.partition.partition, departure.bytes.len());
        departures.into_iter().map(row).collect()
    }

    #[test]
    fn a_request_takes_one_batch_of_each_partition_and_the_others_keep_their_order() {
        let mut waiting: VecDeque<_> =
            [(1, 10), (1, 11), (2, 20), (1, 12), (3, 30), (2, 21)].map(|(p, b)| departure(p, b)).into();
        assert_eq!(rows(take(&mut waiting)), [(1, 10), (2, 20), (3, 30)]);
        assert_eq!(rows(take(&mut waiting)), [(1, 11), (2, 21)]);
        assert_eq!(rows(take(&mut waiting)), [(1, 12)]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_request_ends_where_the_next_batch_does_not_fit_and_nothing_overtakes_it() {
        let half = REQUEST_BYTES_MAX / 2;
        let mut waiting: VecDeque<_> =
            [(1, half), (1, half), (2, half), (3, 1), (2, 1)].map(|(p, b)| departure(p, b)).into();
        assert_eq!(rows(take(&mut waiting)), [(1, half), (2, half)]);
        assert_eq!(rows(take(&mut waiting)), [(1, half), (3, 1), (2, 1)]);
        let mut waiting: VecDeque<_> =
            [(1, 3 * half), (2, 1), (3, half * 2), (2, 1)].map(|(p, b)| departure(p, b)).into();
        assert_eq!(rows(take(&mut waiting)), [(1, 3 * half)]);
        assert_eq!(rows(take(&mut waiting)), [(2, 1)]);
        assert_eq!(rows(take(&mut waiting)), [(3, half * 2)]);
        assert_eq!(rows(take(&mut waiting)), [(2, 1)]);
    }
}
