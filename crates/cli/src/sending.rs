//! Lines to a topic: the work of `topic produce`, `cat -P` and `quickstart`.

use std::io::Write;
use std::time::Duration;

use base::batch::Header;
use base::ids::TimestampMs;
use client::{Client, Delivery, Producer, ProducerConfig, ProducerRecord};
use futures::FutureExt;
use futures::future::BoxFuture;
use indicatif::ProgressBar;

use crate::failure::Outcome;
use crate::input::Pieces;
use crate::output::written;
use crate::record::KeyRule;

/// Lines between two looks at how the oldest watched record fares.
const LOOK_EVERY: u64 = 64;

/// What is to be sent, and how.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    pub(crate) topic: String,
    /// `None` lets the key decide.
    pub(crate) partition: Option<i32>,
    pub(crate) keys: KeyRule,
    pub(crate) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// `None` is the time of sending.
    pub(crate) timestamp: Option<TimestampMs>,
    /// Stop after that many records.
    pub(crate) limit: Option<u64>,
    /// Print what was read to standard output too, with this behind each piece.
    pub(crate) tee: Option<Vec<u8>>,
    pub(crate) producer: ProducerConfig,
}

impl Sending {
    /// Lines as values, acknowledged by all copies.
    pub(crate) fn lines_to(topic: &str) -> Sending {
        Sending {
            topic: topic.to_owned(),
            partition: None,
            keys: KeyRule::default(),
            headers: Vec::new(),
            timestamp: None,
            limit: None,
            tee: None,
            producer: ProducerConfig::default(),
        }
    }
}

/// What was sent and acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) records: u64,
    /// Bytes of keys and values.
    pub(crate) bytes: u64,
    /// From the first line to the last acknowledgement.
    pub(crate) took: Duration,
}

/// Sends all pieces and waits for their acknowledgement. Ends early when one is refused.
pub(crate) async fn send_all(
    client: &Client,
    pieces: &mut Pieces,
    sending: &Sending,
    progress: &ProgressBar,
) -> Outcome<Sent> {
    let clock = client.env().clock.clone();
    let producer = Producer::new(client, sending.producer.clone());
    let headers = sending.headers.iter();
    let headers: Vec<Header<'_>> =
        headers.map(|(key, value)| Header { key, value: value.as_deref() }).collect();
    let mut sent = Sent::default();
    let mut began = None;
    let mut watch = Watch::default();
    while sending.limit.is_none_or(|limit| sent.records < limit) {
        let Some(piece) = pieces.next().await? else { break };
        began.get_or_insert_with(|| clock.now());
        let parsed = sending.keys.apply(&piece);
        let record = ProducerRecord {
            topic: &sending.topic,
            partition: sending.partition,
            key: parsed.key,
            value: parsed.value,
            headers: &headers,
            timestamp: sending.timestamp,
        };
        let delivery = producer.send(record).await?;
        if sent.records.is_multiple_of(LOOK_EVERY) {
            watch.look(delivery)?;
        }
        if let Some(delimiter) = &sending.tee {
            let mut out = std::io::stdout().lock();
            written(
                out.write_all(&piece).and_then(|()| out.write_all(delimiter)).and_then(|()| out.flush()),
            )?;
        }
        sent.records += 1;
        sent.bytes +=
            [parsed.key, parsed.value].into_iter().flatten().map(|part| part.len() as u64).sum::<u64>();
        progress.set_position(sent.records);
    }
    producer.flush().await?;
    sent.took = began.map_or(Duration::ZERO, |began| clock.now() - began);
    Ok(sent)
}

/// Follows one record at a time, so that an endless input is not read on after a refusal.
#[derive(Default)]
struct Watch(Option<BoxFuture<'static, client::Result<client::Placed>>>);

impl Watch {
    fn look(&mut self, newest: Delivery) -> client::Result<()> {
        let settled = match &mut self.0 {
            Some(followed) => followed.now_or_never().map(|placed| placed.map(drop)),
            None => Some(Ok(())),
        };
        if let Some(result) = settled {
            result?;
            self.0 = Some(newest.wait().boxed());
        }
        Ok(())
    }
}
