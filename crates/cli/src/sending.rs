//! Lines to a topic: the work of `topic produce`, `cat -P` and `quickstart`.

use std::io::Write;
use std::time::Duration;

use base::batch::Header;
use base::ids::TimestampMs;
use client::{Client, Delivery, Producer, ProducerConfig, ProducerRecord};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::failure::{Failure, Outcome};
use crate::input::{Pieces, Source};
use crate::output::{self, InputProgress, written};
use crate::record::KeyRule;
use crate::signals::EndSignals;

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
    /// The signal that ended it before its input did.
    pub(crate) ended_by: Option<&'static str>,
}

/// Sends all pieces and waits for their acknowledgement. Ends early when one is refused; at a signal it sends
/// no more and waits for what is under way.
pub(crate) async fn send_all(
    client: &Client,
    pieces: &mut Pieces,
    sending: &Sending,
    progress: &InputProgress,
) -> Outcome<Sent> {
    let clock = client.env().clock.clone();
    let producer = Producer::new(client, sending.producer.clone());
    let headers = sending.headers.iter();
    let headers: Vec<Header<'_>> =
        headers.map(|(key, value)| Header { key, value: value.as_deref() }).collect();
    let mut sent = Sent::default();
    let mut began = None;
    let mut watch = Watch::default();
    let mut signals = EndSignals::listen()?;
    while sending.limit.is_none_or(|limit| sent.records < limit) {
        let Some(piece) = next(pieces, &mut signals, &mut sent).await? else { break };
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
        // While the broker is away, there may be no room for long.
        let delivery = tokio::select! {
            biased;
            delivery = producer.send(record) => delivery?,
            signal = signals.next() => {
                sent.ended_by = Some(signal);
                break;
            }
        };
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
        progress.advance(sent.records, pieces.taken());
    }
    settle(&producer, &mut signals, &sent).await?;
    sent.took = began.map_or(Duration::ZERO, |began| clock.now() - began);
    Ok(sent)
}

/// The next piece; `None` at the end of the input and at a signal, which is noted.
async fn next(pieces: &mut Pieces, signals: &mut EndSignals, sent: &mut Sent) -> Outcome<Option<Vec<u8>>> {
    // Where pieces come fast, the signals are looked at among them.
    if sent.records.is_multiple_of(LOOK_EVERY) {
        sent.ended_by = signals.next().now_or_never();
    }
    if sent.ended_by.is_some() {
        return Ok(None);
    }
    tokio::select! {
        biased;
        piece = pieces.next() => piece,
        signal = signals.next() => {
            sent.ended_by = Some(signal);
            Ok(None)
        }
    }
}

/// Waits for the acknowledgement of all that is under way, unless the user cannot.
async fn settle(producer: &Producer, signals: &mut EndSignals, sent: &Sent) -> Outcome {
    let signal = async {
        match sent.ended_by {
            Some(_) => signals.impatience().await,
            None => signals.next().await,
        }
    };
    tokio::select! {
        flushed = producer.flush() => Ok(flushed?),
        signal = signal => {
            Err(Failure::new(format!("{signal} came while records were under way: some may not be written"))
                .help("`vltava topic offsets` shows what is there"))
        }
    }
}

impl Sent {
    /// The failure of a command whose file was not sent to its end. Standard input has no end but this one.
    pub(crate) fn whole(&self, source: &Source) -> Outcome {
        match (self.ended_by, source) {
            (Some(signal), Source::File(path)) => {
                let message = format!("ended by {signal} before the end of {}", path.display());
                Err(Failure::new(message).help(format!("its first {} are written", counted(self.records))))
            }
            _ => Ok(()),
        }
    }
}

fn counted(records: u64) -> String {
    output::counted(usize::try_from(records).unwrap_or(usize::MAX), "record")
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
