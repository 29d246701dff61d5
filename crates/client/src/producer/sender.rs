//! Sends the batches of one partition, in order, and sends them again when that may help.
//!
//! ```text
//! queue ─take─► in flight (at most `in_flight_max`, all over one connection) ─answer of the first─► settled
//!                   ▲                                                           │ error
//!                   └── all that are not settled, in order ◄── wait for the answers of the rest
//! ```
//!
//! Invariants: batches in flight go over one connection, so a broker sees them in order even while the
//! leader moves; after an error nothing new is sent until the answers of all the others are in; no batch is
//! sent that lies `in_flight_max` or more behind one that is not settled, since a broker that remembers so
//! many would no longer know that one; a batch is sent again under the same producer id and sequence,
//! unless a broker has refused the ones before it for good. When it stays unknown whether a batch was
//! written, the partition goes on under a new producer id.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::batch::{BatchBuilder, BatchView, Compression, DecompressBuffer, next_sequence};
use base::env::BoxFuture;
use base::error::ErrorCode;
use bytes::Bytes;
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::sync::watch;
use wire::message::{InitProducerIdRequest, InitProducerIdResponse};

use super::broker_sender::BrokerSender;
use super::queue::{OpenBatch, PartitionQueue, PlacedBatch};
use super::{Acks, Shared};
use crate::admin::leader_moved;
use crate::{Client, ClientError, Result};

/// Who an idempotent producer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    id: i64,
    epoch: i16,
}

/// A batch as it is sent.
struct Batch {
    /// Counts the batches of the partition.
    number: u64,
    bytes: Bytes,
    count: i32,
    /// Sequence of its first record; of no account without an identity.
    sequence: i32,
    deadline: Duration,
    /// The last error after which an attempt may have been carried out all the same.
    doubt: Option<ClientError>,
    room: usize,
    outcome: watch::Sender<Option<Result<PlacedBatch>>>,
}

pub(super) struct PartitionSender {
    shared: Arc<Shared>,
    queue: Arc<PartitionQueue>,
    identity: Option<Identity>,
    /// Whether the identity all partitions share is of no use for this one any more.
    disowned: bool,
    /// Whether the broker has taken a batch under this identity. Before that it takes any sequence for
    /// the first one, so a second batch must not be able to overtake.
    proven: bool,
    /// Sequence of the first record not in a batch yet.
    next_sequence: i32,
    /// Number of the next batch.
    next_number: u64,
    /// The way of all batches in flight.
    broker: Option<BrokerSender>,
    /// Batches not settled, in order; as many of the first as there are `answers` have been sent.
    batches: VecDeque<Batch>,
    answers: FuturesOrdered<BoxFuture<'static, Result<PlacedBatch>>>,
    /// Whether a batch could not be sent, so that none may follow until that is dealt with.
    stalled: bool,
    backoff: Option<crate::cluster::Backoff>,
}

impl PartitionSender {
    pub(super) fn new(shared: Arc<Shared>, queue: Arc<PartitionQueue>) -> PartitionSender {
        PartitionSender {
            shared,
            queue,
            identity: None,
            disowned: false,
            proven: false,
            next_sequence: 0,
            next_number: 0,
            broker: None,
            batches: VecDeque::new(),
            answers: FuturesOrdered::new(),
            stalled: false,
            backoff: None,
        }
    }

    pub(super) async fn run(mut self) {
        let shared = self.shared.clone();
        let queue = self.queue.clone();
        let clock = shared.client.env().clock.clone();
        loop {
            self.fill().await;
            let ripe = queue.ripe(&clock, || shared.ripeness());
            if self.batches.is_empty() {
                ripe.await;
                continue;
            }
            let has_room = self.has_room();
            tokio::select! {
                answer = self.answers.next() => {
                    let answer = answer.expect("the first batch is always sent");
                    self.take_answer(answer).await;
                }
                () = ripe, if has_room => {}
            }
        }
    }

    /// Whether another batch may be sent.
    fn has_room(&self) -> bool {
        let unproven = self.identity.is_some() && !self.proven;
        let in_flight_max = if unproven { 1 } else { self.shared.in_flight_max() };
        let first = self.batches.front().map_or(self.next_number, |batch| batch.number);
        let next = self.batches.get(self.answers.len()).map_or(self.next_number, |batch| batch.number);
        next - first < in_flight_max as u64 && !self.stalled
    }

    /// Sends what may be sent now: first what was sent before, then what is ripe.
    async fn fill(&mut self) {
        while self.has_room() {
            if self.answers.len() < self.batches.len() {
                self.transmit(self.answers.len()).await;
                continue;
            }
            let now = self.shared.client.env().clock.now();
            match self.queue.take_ripe(now, self.shared.ripeness()) {
                Some(open) => self.close(open).await,
                None => return,
            }
        }
    }

    /// Closes a batch and puts it behind the others.
    async fn close(&mut self, open: OpenBatch) {
        let OpenBatch { builder, opened_at, room, outcome } = open;
        let count = builder.record_count();
        let builder = match self.identify().await {
            Ok(Some(Identity { id, epoch })) => builder.producer(id, epoch, self.next_sequence),
            Ok(None) => builder,
            Err(error) => return self.settle(room, &outcome, Err(error)),
        };
        let bytes = match builder.finish() {
            Ok(bytes) => bytes.into(),
            Err(error) => return self.settle(room, &outcome, Err(error.into())),
        };
        let deadline = opened_at + self.shared.config.delivery_timeout;
        let (number, sequence) = (self.next_number, self.next_sequence);
        (self.next_number, self.next_sequence) = (number + 1, next_sequence(sequence, count));
        self.batches.push_back(Batch {
            number,
            bytes,
            count,
            sequence,
            deadline,
            doubt: None,
            room,
            outcome,
        });
    }

    /// The producer's identity, asked for at the first batch; `None` for one that is not idempotent.
    async fn identify(&mut self) -> Result<Option<Identity>> {
        if self.shared.config.idempotent && self.identity.is_none() {
            let shared = &self.shared;
            self.identity = Some(if self.disowned {
                new_identity(&shared.client).await?
            } else {
                *shared.identity.get_or_try_init(|| new_identity(&shared.client)).await?
            });
        }
        Ok(self.identity)
    }

    /// Puts a batch on the wire; an error takes the place of its answer, so that it is met in turn.
    async fn transmit(&mut self, index: usize) {
        let answer = match self.start(self.batches[index].bytes.clone()).await {
            Ok(answer) => answer,
            Err(error) => {
                self.stalled = true;
                Box::pin(std::future::ready(Err(error))) as BoxFuture<'static, _>
            }
        };
        self.answers.push_back(answer);
    }

    async fn start(&mut self, bytes: Bytes) -> Result<BoxFuture<'static, Result<PlacedBatch>>> {
        let Shared { client, config, .. } = &*self.shared;
        let partition = &self.queue.partition;
        let broker = match &self.broker {
            Some(broker) => broker,
            None => {
                let connection = client.broker(client.leader_to_write(partition).await?).await?;
                self.broker.insert(self.shared.brokers.lock().over(&connection, config.acks))
            }
        };
        if config.acks == Acks::None {
            broker.send_unanswered(partition, &bytes).await?;
            self.shared.note_unanswered(broker.connection());
            let placed = PlacedBatch { base_offset: None, timestamp: None };
            return Ok(Box::pin(std::future::ready(Ok(placed))));
        }
        let told = broker.send(partition, bytes);
        Ok(Box::pin(async move { told.await.unwrap_or(Err(ClientError::Ended("producer"))) }))
    }

    /// Takes the answer of the first batch in flight.
    async fn take_answer(&mut self, answer: Result<PlacedBatch>) {
        match answer {
            Ok(placed) => {
                self.backoff = None;
                self.proven = true;
                let batch = self.batches.pop_front().expect("an answer belongs to a batch");
                self.settle(batch.room, &batch.outcome, Ok(placed));
            }
            Err(error) => self.recover(error).await,
        }
        if self.batches.is_empty() {
            (self.broker, self.backoff) = (None, None);
        }
    }

    /// The first batch in flight failed: waits for the answers of the others, then gives it up or pauses.
    /// What is not settled is sent again by [`PartitionSender::fill`].
    async fn recover(&mut self, error: ClientError) {
        let mut kept = VecDeque::from([self.batches.pop_front().expect("a failure belongs to a batch")]);
        while let Some(answer) = self.answers.next().await {
            let mut batch = self.batches.pop_front().expect("an answer belongs to a batch");
            match answer {
                Ok(placed) => self.settle(batch.room, &batch.outcome, Ok(placed)),
                Err(error) => {
                    batch.doubt = Some(error).filter(ClientError::outcome_unknown).or(batch.doubt);
                    kept.push_back(batch);
                }
            }
        }
        kept.append(&mut self.batches);
        self.batches = kept;
        self.broker = None;
        self.stalled = false;
        if leader_moved(&error) {
            self.shared.client.forget_topic(&self.queue.partition.topic);
        }
        let env = self.shared.client.env();
        let first = self.batches.front_mut().expect("the failed batch was kept");
        if error.outcome_unknown() {
            first.doubt = Some(error.clone());
        }
        if !error.retriable() || env.clock.now() >= first.deadline {
            return self.give_up_first(error).await;
        }
        tracing::debug!(partition = %self.queue.partition, %error, "sending again");
        let new_backoff = || self.shared.client.backoff_for(self.shared.config.delivery_timeout);
        self.backoff.get_or_insert_with(new_backoff).sleep(&error).await;
    }

    /// Fails the first batch for good and lets those behind it move up.
    async fn give_up_first(&mut self, error: ClientError) {
        let first = self.batches.pop_front().expect("the failed batch was kept");
        let disowned = matches!(
            error.code(),
            Some(
                ErrorCode::OutOfOrderSequenceNumber
                    | ErrorCode::UnknownProducerId
                    | ErrorCode::InvalidProducerEpoch
                    | ErrorCode::ProducerFenced
                    | ErrorCode::InvalidProducerIdMapping
            )
        );
        self.settle(first.room, &first.outcome, Err(error));
        if self.identity.is_none() {
            return;
        }
        let mut sequence = first.sequence;
        if first.doubt.is_some() || disowned {
            // Which sequence the broker waits for cannot be known: begin anew.
            match new_identity(&self.shared.client).await {
                Ok(identity) => (self.identity, self.proven) = (Some(identity), false),
                Err(error) => return self.give_up_all(error),
            }
            sequence = 0;
        }
        for mut batch in std::mem::take(&mut self.batches) {
            // Under another number the broker could not tell that it has the batch already.
            let renumbered = match batch.doubt.take() {
                Some(doubt) => Err(doubt),
                None => renumber(&batch.bytes, self.identity, sequence, self.shared.config.compression),
            };
            match renumbered {
                Ok(bytes) => {
                    (batch.bytes, batch.sequence) = (bytes, sequence);
                    sequence = next_sequence(sequence, batch.count);
                    self.batches.push_back(batch);
                }
                Err(error) => self.settle(batch.room, &batch.outcome, Err(error)),
            }
        }
        self.next_sequence = sequence;
    }

    /// Fails everything that was taken from the queue; the next batch asks for an identity of its own.
    fn give_up_all(&mut self, error: ClientError) {
        for batch in std::mem::take(&mut self.batches) {
            self.settle(batch.room, &batch.outcome, Err(error.clone()));
        }
        (self.identity, self.disowned, self.proven, self.next_sequence) = (None, true, false, 0);
    }

    fn settle(
        &self,
        room: usize,
        outcome: &watch::Sender<Option<Result<PlacedBatch>>>,
        result: Result<PlacedBatch>,
    ) {
        if let Err(error) = &result {
            self.shared.first_failure.lock().get_or_insert_with(|| error.clone());
        }
        outcome.send_replace(Some(result));
        self.shared.room.add_permits(room);
    }
}

/// Asks for a producer id that nobody has used.
async fn new_identity(client: &Client) -> Result<Identity> {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: i32::MAX,
        ..Default::default()
    };
    let mut backoff = client.backoff();
    loop {
        let attempt = async {
            let answer = client.any().await?.call(&request).await?;
            let response: InitProducerIdResponse = answer.read()?;
            ClientError::check(response.error_code, None, || "producer id".to_owned())?;
            Ok(Identity { id: response.producer_id, epoch: response.producer_epoch })
        };
        match attempt.await {
            Err(error) if ClientError::retriable(&error) => backoff.pause(error).await?,
            other => return other,
        }
    }
}

/// The same records under another producer id or sequence.
fn renumber(
    bytes: &Bytes,
    identity: Option<Identity>,
    sequence: i32,
    compression: Compression,
) -> Result<Bytes> {
    // The records are our own: they unfold to what the builder took in.
    let mut buffer = DecompressBuffer::new(i32::MAX as usize);
    let unreadable = |_| ClientError::Build(base::batch::BuildError::TooLarge);
    let batch = BatchView::parse(bytes).map_err(unreadable)?;
    let mut builder = BatchBuilder::new().compression(compression);
    if let Some(Identity { id, epoch }) = identity {
        builder = builder.producer(id, epoch, sequence);
    }
    for record in batch.records(&mut buffer).map_err(unreadable)? {
        builder.append_record(&record.map_err(unreadable)?);
    }
    Ok(builder.finish()?.into())
}
