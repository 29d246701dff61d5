//! A member's end of a stream: takes what a leader pushes, and acknowledges what it holds.
//!
//! ```text
//! frames ─► one after the other ─► Replicas
//!                                     │ a durable end moved
//! frames ◄─ one write for many ◄─ Outbox: streams to acknowledge, answers
//! ```
//!
//! Invariants: the frames of a stream are applied in the order in which they came (those that open files are worked at
//! side by side: a leader sends nothing more of a stream before it hears that it has begun); an acknowledgement covers what is durable (class
//! *fsync*) or written (class *page-cache*) at the moment it is written; answers that nobody reads hold back the reading
//! of requests. Bytes that cannot be right end the connection.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::config::Durability;
use base::env::Stream;
use base::ids::Offset;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore};

use super::copy::{Copy, Watch};
use super::frame::{FrameReader, send};
use super::message::{
    BrokerLife, Create, FenceRequest, FenceResult, FetchRequest, Hello, Message, PullRequest, Reason,
    Refusal, VERSION,
};
use super::replicas::{Fenced, NotTaken, Replicas, Target, of_failed};

/// Time for saying hello.
const HELLO_TIME: Duration = Duration::from_secs(3);
/// Streams of one connection at a time.
const STREAMS_MAX: usize = 500_000;
/// Bytes of answers that wait to be sent; with more, nothing is read.
const OUTBOX_BYTES_MAX: usize = 4 << 20;
/// Fences that wait for a sync; with more, nothing is read.
const FENCES_MAX: usize = 50_000;
/// Copies that are opened at a time, for streams that begin and for fences.
const OPENINGS_MAX: usize = 16;
/// Pulls that are read from the disk at a time.
const PULLS_MAX: usize = 4;
/// Frames applied before others get a turn.
const TURN_FRAMES: usize = 64;

/// Serves a connection of another broker, of which [`super::MAGIC`] was read, to its end.
///
/// # Errors
/// Those of the connection, and of a caller who is turned away or talks nonsense; for the log.
pub async fn serve(mut stream: Box<dyn Stream>, replicas: Arc<Replicas>) -> io::Result<()> {
    let clock = replicas.spec.env.clock.clone();
    let hello = async {
        let mut reader = FrameReader::new(&mut *stream);
        match reader.message().await? {
            Some(Message::Hello(hello)) => Ok(hello),
            _ => Err(invalid("the first frame is no hello")),
        }
    };
    let hello = tokio::select! {
        biased;
        hello = hello => hello?,
        () = clock.sleep(HELLO_TIME) => return Err(io::ErrorKind::TimedOut.into()),
    };
    let session = judge(&replicas, &hello).and_then(|()| {
        let late = "a later life of the caller has called before";
        replicas.sessions.begin(hello.from).ok_or((Reason::Incarnation, late.to_owned()))
    });
    let session = match session {
        Ok(session) => session,
        Err((reason, text)) => {
            send(&mut *stream, &[], &Message::Refused(reason, text.clone())).await?;
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    };
    send(&mut *stream, &[], &Message::Welcome).await?;
    let (reading, writing) = tokio::io::split(stream);
    let connection = Arc::new(Connection {
        replicas: replicas.clone(),
        from: hello.from,
        outbox: Arc::default(),
        streams: Mutex::default(),
        openings: Arc::new(Semaphore::new(OPENINGS_MAX)),
        pulls: Arc::new(Semaphore::new(PULLS_MAX)),
    });
    // In this order, so that runs of a seed do not differ.
    tokio::select! {
        biased;
        () = session.ended() => Ok(()),
        result = connection.read(reading) => result,
        result = connection.write(writing) => result,
    }
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// Whether a hello is meant for this life of this broker; else why not.
fn judge(replicas: &Replicas, hello: &Hello) -> Result<(), (Reason, String)> {
    let (cluster, BrokerLife { broker, incarnation }) = (replicas.spec.cluster, replicas.spec.life);
    if hello.version != VERSION {
        let text = format!("streams of this version are of number {VERSION}, not {}", hello.version);
        return Err((Reason::Version, text));
    }
    if hello.cluster != cluster {
        return Err((Reason::Cluster, format!("this is cluster {cluster}, not {}", hello.cluster)));
    }
    if hello.to.broker != broker {
        return Err((Reason::Broker, format!("this is broker {broker}, not {}", hello.to.broker)));
    }
    if hello.to.incarnation != incarnation {
        let text = format!("this is incarnation {incarnation}, not {}", hello.to.incarnation);
        return Err((Reason::Incarnation, text));
    }
    Ok(())
}

/// What is to be sent.
#[derive(Default)]
struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
    drained: Notify,
}

#[derive(Default)]
struct Waiting {
    /// Streams to be acknowledged, each once.
    moved: Vec<u32>,
    /// Answers.
    frames: Vec<u8>,
    /// Fences that wait for a sync.
    fences: Vec<(u64, Arc<Copy>, FenceResult)>,
    /// Why the connection must end.
    failure: Option<io::Error>,
}

impl Outbox {
    fn answer(&self, message: &Message) -> io::Result<()> {
        message.encode(&mut self.waiting.lock().frames).map_err(io::Error::other)?;
        self.filled.notify_one();
        Ok(())
    }

    /// Ends the connection.
    fn fail(&self, error: io::Error) {
        self.waiting.lock().failure = Some(error);
        self.filled.notify_one();
    }

    /// Waits until there is room for the answers to one more request.
    async fn room(&self) {
        loop {
            let is_full = {
                let waiting = self.waiting.lock();
                waiting.frames.len() > OUTBOX_BYTES_MAX || waiting.fences.len() > FENCES_MAX
            };
            if !is_full {
                return;
            }
            self.drained.notified().await;
        }
    }
}

/// A fence may wait for any copy, so all are looked at.
impl Watch for Outbox {
    fn moved(&self) {
        self.filled.notify_one();
    }
}

/// One segment that is pushed here.
struct Incoming {
    stream: u32,
    target: Target,
    outbox: Arc<Outbox>,
    /// Listed to be acknowledged.
    listed: AtomicBool,
    /// Of a gap the leader is told once, until it has closed it.
    gap_told: AtomicBool,
}

impl Incoming {
    fn end(&self) -> Offset {
        self.target.copy.end(self.target.create.durability)
    }
}

impl Watch for Incoming {
    fn moved(&self) {
        if !self.listed.swap(true, Ordering::AcqRel) {
            self.outbox.waiting.lock().moved.push(self.stream);
            self.outbox.filled.notify_one();
        }
    }
}

/// What a number stands for.
enum Slot {
    /// Its copy is being opened.
    Opening,
    Open(Arc<Incoming>),
}

struct Connection {
    replicas: Arc<Replicas>,
    from: BrokerLife,
    outbox: Arc<Outbox>,
    streams: Mutex<HashMap<u32, Slot>>,
    openings: Arc<Semaphore>,
    pulls: Arc<Semaphore>,
}

impl Connection {
    async fn read(self: &Arc<Self>, stream: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut reader = FrameReader::new(stream);
        let mut frames = 0_usize;
        while let Some(message) = reader.message().await? {
            self.apply(message).await?;
            frames += 1;
            if frames.is_multiple_of(TURN_FRAMES) {
                // Frames that are in memory already would keep acknowledgements waiting.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn apply(self: &Arc<Self>, message: Message) -> io::Result<()> {
        match message {
            Message::Create(create) => self.create(*create).await,
            Message::Append { stream, from, high_watermark, bytes } => {
                self.append(stream, from, high_watermark, &bytes)
            }
            Message::Commit { stream, high_watermark } => {
                if let Some(incoming) = self.find(stream) {
                    incoming.target.note_high_watermark(high_watermark);
                }
                Ok(())
            }
            Message::Close { stream } => {
                self.streams.lock().remove(&stream);
                Ok(())
            }
            Message::Fence(request, fence) => self.fence(request, *fence).await,
            Message::Pull(request, pull) => self.pull(request, *pull).await,
            Message::Fetch(request, fetch) => self.fetch(request, *fetch).await,
            Message::Confirm(request, confirm) => {
                self.outbox.room().await;
                self.outbox.answer(&Message::Confirmed(request, self.replicas.refusal_of(&confirm)))
            }
            _ => Err(invalid("a frame of this kind is not for a member")),
        }
    }

    fn find(&self, stream: u32) -> Option<Arc<Incoming>> {
        match self.streams.lock().get(&stream) {
            Some(Slot::Open(incoming)) => Some(incoming.clone()),
            Some(Slot::Opening) | None => None,
        }
    }

    async fn create(self: &Arc<Self>, create: Create) -> io::Result<()> {
        let stream = create.stream;
        {
            let mut streams = self.streams.lock();
            if streams.contains_key(&stream) || streams.len() >= STREAMS_MAX {
                return Err(invalid(format!("stream {stream} cannot be begun")));
            }
            streams.insert(stream, Slot::Opening);
        }
        self.outbox.room().await;
        let permit = self.openings.clone().acquire_owned().await.map_err(io::Error::other)?;
        let connection = self.clone();
        tokio::spawn(async move {
            let topic = create.name.topic.clone();
            let begun = connection.replicas.begin(create).await;
            if let Err(error) = connection.begun(stream, &topic, begun) {
                connection.outbox.fail(error);
            }
            drop(permit);
        });
        Ok(())
    }

    /// Answers once a copy is open, or not.
    fn begun(&self, stream: u32, topic: &str, begun: Result<Target, NotTaken>) -> io::Result<()> {
        let target = match begun {
            Ok(target) => target,
            Err(NotTaken::Refused(refusal)) => {
                self.streams.lock().remove(&stream);
                return self.outbox.answer(&Message::Nack { stream, refusal });
            }
            Err(NotTaken::Invalid(reason)) => return Err(self.not_taken(topic, &reason)),
        };
        let incoming = Arc::new(Incoming {
            stream,
            target,
            outbox: self.outbox.clone(),
            listed: AtomicBool::new(false),
            gap_told: AtomicBool::new(false),
        });
        {
            let mut streams = self.streams.lock();
            // The leader may have given it up meanwhile.
            let Some(slot) = streams.get_mut(&stream) else { return Ok(()) };
            *slot = Slot::Open(incoming.clone());
        }
        let watch: Weak<Incoming> = Arc::downgrade(&incoming);
        incoming.target.copy.watch(watch);
        if incoming.end() < incoming.target.copy.segment.end() {
            // What an earlier stream brought is not durable yet.
            incoming.target.copy.request_sync();
        }
        incoming.moved();
        Ok(())
    }

    fn not_taken(&self, topic: &str, reason: &str) -> io::Error {
        tracing::warn!(
            topic,
            broker = self.from.broker.0,
            reason,
            "what a leader sent was not taken; its connection is closed"
        );
        invalid(reason)
    }

    fn append(&self, stream: u32, from: Offset, high_watermark: Offset, bytes: &[u8]) -> io::Result<()> {
        // Frames may be on their way when a stream ends.
        let Some(incoming) = self.find(stream) else { return Ok(()) };
        let target = &incoming.target;
        match self.replicas.append(target, from, bytes) {
            Ok(is_new) => {
                incoming.gap_told.store(false, Ordering::Relaxed);
                target.note_high_watermark(high_watermark);
                if is_new && target.create.durability == Durability::Fsync {
                    // The sync round tells when it is durable.
                    target.copy.request_sync();
                } else {
                    // Also of what it had before: the leader may not know.
                    incoming.moved();
                }
                Ok(())
            }
            Err(NotTaken::Refused(refusal @ Refusal::Gap(_))) => {
                if incoming.gap_told.swap(true, Ordering::Relaxed) {
                    return Ok(());
                }
                self.outbox.answer(&Message::Nack { stream, refusal })
            }
            Err(NotTaken::Refused(refusal)) => {
                self.streams.lock().remove(&stream);
                self.outbox.answer(&Message::Nack { stream, refusal })
            }
            Err(NotTaken::Invalid(reason)) => Err(self.not_taken(&target.create.name.topic, &reason)),
        }
    }

    async fn fence(self: &Arc<Self>, request: u64, fence: FenceRequest) -> io::Result<()> {
        self.outbox.room().await;
        let permit = self.openings.clone().acquire_owned().await.map_err(io::Error::other)?;
        let connection = self.clone();
        tokio::spawn(async move {
            match connection.replicas.fence(fence).await {
                Fenced::Now(result) => {
                    if let Err(error) = connection.outbox.answer(&Message::FenceAnswer(request, result)) {
                        connection.outbox.fail(error);
                    }
                }
                Fenced::Once(copy, result) => {
                    let watch: Weak<Outbox> = Arc::downgrade(&connection.outbox);
                    copy.watch(watch);
                    connection.outbox.waiting.lock().fences.push((request, copy, result));
                    connection.outbox.filled.notify_one();
                }
            }
            drop(permit);
        });
        Ok(())
    }

    async fn pull(&self, request: u64, pull: PullRequest) -> io::Result<()> {
        self.outbox.room().await;
        let permit = self.pulls.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (replicas, outbox) = (self.replicas.clone(), self.outbox.clone());
        // What is pulled is in no order to what is pushed, and must not wait for the disk with it.
        tokio::spawn(async move {
            let result = replicas.pull(pull).await;
            if let Err(error) = outbox.answer(&Message::Pulled(request, result)) {
                outbox.fail(error);
            }
            drop(permit);
        });
        Ok(())
    }

    async fn fetch(&self, request: u64, fetch: FetchRequest) -> io::Result<()> {
        self.outbox.room().await;
        let (replicas, outbox, from) = (self.replicas.clone(), self.outbox.clone(), self.from.broker);
        tokio::spawn(async move {
            let failure = replicas.fetch_from(from, fetch).await.err();
            if let Err(error) = outbox.answer(&Message::Fetched(request, failure)) {
                outbox.fail(error);
            }
        });
        Ok(())
    }

    async fn write(&self, mut stream: impl AsyncWrite + Unpin) -> io::Result<()> {
        loop {
            self.outbox.filled.notified().await;
            let (mut frames, moved, fences) = {
                let mut waiting = self.outbox.waiting.lock();
                if let Some(failure) = waiting.failure.take() {
                    return Err(failure);
                }
                let (ready, fences) = std::mem::take(&mut waiting.fences)
                    .into_iter()
                    .partition(|(_, copy, result)| is_ready(copy, result));
                waiting.fences = fences;
                let ready: Vec<(u64, Arc<Copy>, FenceResult)> = ready;
                (std::mem::take(&mut waiting.frames), std::mem::take(&mut waiting.moved), ready)
            };
            for stream in moved {
                self.acknowledge(stream, &mut frames)?;
            }
            for (request, copy, result) in fences {
                let result = of_failed(result, &copy.storage, Some(&copy));
                Message::FenceAnswer(request, result).encode(&mut frames).map_err(io::Error::other)?;
            }
            if !frames.is_empty() {
                stream.write_all(&frames).await?;
                stream.flush().await?;
            }
            self.outbox.drained.notify_one();
        }
    }

    fn acknowledge(&self, stream: u32, frames: &mut Vec<u8>) -> io::Result<()> {
        let Some(incoming) = self.find(stream) else { return Ok(()) };
        // Before the end is read: what moves it later lists the stream anew.
        incoming.listed.swap(false, Ordering::AcqRel);
        let message = if incoming.target.copy.has_failed() {
            self.streams.lock().remove(&stream);
            Message::Nack { stream, refusal: Refusal::StorageFailed }
        } else {
            Message::Ack { stream, end: incoming.end() }
        };
        message.encode(frames).map_err(io::Error::other)
    }
}

/// Whether a fence need not wait any longer.
fn is_ready(copy: &Copy, result: &FenceResult) -> bool {
    let due = match result {
        FenceResult::Promised { answer, .. } => answer.end,
        FenceResult::Fenced(_) | FenceResult::Unknown => Offset::MIN,
    };
    copy.has_failed() || copy.segment.durable_end() >= due
}
