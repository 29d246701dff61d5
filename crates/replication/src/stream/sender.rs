//! One connection of a leader, from the hello to its end.
//!
//! The writing half goes round the pushes that have something to send, a bounded piece of each, and sends many pieces
//! with one write; nothing but that buffer is kept of what was read from the leader's own files. The reading half moves
//! the ends, and so gives credit back.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::env::{BoxFuture, Clock, Stream};
use base::ids::Offset;
use bytes::Bytes;
use parking_lot::Mutex;
use storage::{Patience, StorageError};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::copy::whole_batches;
use super::frame::FrameReader;
use super::link::{CREDIT_BYTES, Link, PUSH_CREDIT_BYTES, Shared};
use super::message::{Message, PushKind, Refusal, encode_append};
use super::push::{Outgoing, Refused, Wire};

/// Bytes of one push that are sent before others get a turn, unless one batch alone is larger.
const PIECE_BYTES: usize = 64 << 10;
/// With so many bytes a write begins.
const WRITE_BYTES: usize = 512 << 10;
/// A connection on which an answer is due and nothing comes for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How often that is looked at, and what had to wait is tried again.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// How long a new high watermark waits for records that take it along: under load they come sooner, and save a frame each.
const COMMIT_WITHIN: Duration = Duration::from_millis(5);
/// A connection that nobody needs is closed after so many looks.
const IDLE_LOOKS: u32 = 300;

/// How a connection ended.
pub(super) struct Ended {
    pub(super) heard_anything: bool,
    /// Fine when nobody needed it any more.
    pub(super) result: io::Result<()>,
}

/// Uses the connection to its end.
pub(super) async fn run(shared: &Shared, link: &Link, stream: Box<dyn Stream>) -> Ended {
    link.begin_anew();
    let env = &shared.spec.env;
    let connection = shared.next_connection();
    let sender = Sender { shared, link, connection, clock: &*env.clock, state: Mutex::default() };
    let (reading, writing) = tokio::io::split(stream);
    // In this order, so that runs of a seed do not differ.
    let result = tokio::select! {
        biased;
        result = sender.read(reading) => result,
        result = sender.write(writing) => result,
        result = sender.watch() => result,
    };
    let heard_anything = sender.state.lock().heard_anything;
    Ended { heard_anything, result }
}

struct Sender<'a> {
    shared: &'a Shared,
    link: &'a Link,
    connection: u64,
    clock: &'a dyn Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    streams: HashMap<u32, Arc<Outgoing>>,
    next_stream: u32,
    /// Bytes sent and not acknowledged.
    in_flight: usize,
    /// Streams that were begun and not answered.
    begun: usize,
    /// Pushes for which there was no file handle, here or there, to be tried again.
    later: Vec<Arc<Outgoing>>,
    heard_anything: bool,
    /// Since when an answer is due and nothing came.
    silent_since: Option<Duration>,
}

/// A push, and what was read for it from an offset on.
type ColdRead = (Arc<Outgoing>, Offset, Result<Bytes, StorageError>);

/// Reads from a disk that are under way: one at a time, so that who catches up does not crowd out the others.
#[derive(Default)]
struct ColdReads {
    waiting: VecDeque<Arc<Outgoing>>,
    running: Option<BoxFuture<'static, ColdRead>>,
}

impl ColdReads {
    /// Completes when a read is done; never without one.
    async fn done(&mut self) -> ColdRead {
        match &mut self.running {
            Some(running) => {
                let done = running.await;
                self.running = None;
                done
            }
            None => std::future::pending().await,
        }
    }
}

/// Pushes that have nothing to send but a high watermark.
#[derive(Default)]
struct Commits {
    waiting: Vec<Arc<Outgoing>>,
    /// When the first of them has waited long enough.
    due_at: Option<Duration>,
}

impl Commits {
    fn add(&mut self, outgoing: Arc<Outgoing>, now: Duration) {
        self.waiting.push(outgoing);
        self.due_at.get_or_insert(now + COMMIT_WITHIN);
    }

    /// Completes when they are to be sent; never without one.
    async fn due(&self, clock: &dyn Clock) {
        match self.due_at {
            Some(at) => clock.sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn take_due(&mut self, now: Duration) -> Vec<Arc<Outgoing>> {
        if self.due_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.due_at = None;
        std::mem::take(&mut self.waiting)
    }
}

impl Sender<'_> {
    async fn write(&self, mut stream: impl AsyncWrite + Unpin) -> io::Result<()> {
        let (mut cold, mut commits) = (ColdReads::default(), Commits::default());
        let mut frames = Vec::new();
        loop {
            if self.shared.is_closed() {
                return Ok(());
            }
            frames.clear();
            self.fill(&mut frames, &mut cold, &mut commits)?;
            self.tell_commits(&mut frames, &mut commits)?;
            self.begin_cold_read(&mut cold);
            if !frames.is_empty() {
                self.expect_answer();
                stream.write_all(&frames).await?;
                stream.flush().await?;
                continue;
            }
            // One large batch does not claim its memory for ever.
            frames.shrink_to(2 * WRITE_BYTES);
            tokio::select! {
                biased;
                () = self.link.filled.notified() => {}
                () = commits.due(self.clock) => {}
                (outgoing, from, read) = cold.done() => {
                    let mut wire = outgoing.wire.lock();
                    (wire.is_cold, wire.read) = (false, Some((from, read)));
                    drop(wire);
                    self.link.list(&outgoing);
                }
            }
        }
    }

    /// Collects what one write sends.
    fn fill(&self, frames: &mut Vec<u8>, cold: &mut ColdReads, commits: &mut Commits) -> io::Result<()> {
        self.link.take_requests(frames, WRITE_BYTES);
        for outgoing in self.link.take_dropped() {
            let mut wire = outgoing.wire.lock();
            wire.on(self.connection);
            self.close(&mut wire, frames)?;
        }
        while frames.len() < WRITE_BYTES && self.state.lock().in_flight < CREDIT_BYTES {
            let Some(outgoing) = self.link.next_listed() else { break };
            let mut wire = outgoing.wire.lock();
            // What was done on an earlier one does not count here.
            wire.on(self.connection);
            let step = self.step(&outgoing, &mut wire, frames)?;
            match step {
                Step::Done => {}
                Step::More => {
                    drop(wire);
                    self.link.list(&outgoing);
                }
                Step::Commit if wire.commit_waits => {}
                Step::Commit => {
                    wire.commit_waits = true;
                    drop(wire);
                    commits.add(outgoing, self.clock.now());
                }
                Step::Cold => {
                    wire.is_cold = true;
                    drop(wire);
                    cold.waiting.push_back(outgoing);
                }
                Step::Later => {
                    drop(wire);
                    self.state.lock().later.push(outgoing);
                }
                Step::Failed(error) => {
                    self.close(&mut wire, frames)?;
                    drop(wire);
                    self.link.refuse(&outgoing, Refused::Source(error));
                }
            }
        }
        Ok(())
    }

    /// Sends what is next of a push, at most a piece.
    fn step(&self, outgoing: &Arc<Outgoing>, wire: &mut Wire, frames: &mut Vec<u8>) -> io::Result<Step> {
        if outgoing.is_over.load(Ordering::Acquire) {
            return Ok(Step::Done);
        }
        let Some(stream) = wire.stream else {
            return self.create(outgoing, wire, frames).map(|()| Step::Done);
        };
        // Until the storage said what it holds, and while its turn at the disk comes, others go on.
        let Some(cursor) = wire.cursor.filter(|_| !wire.is_cold) else { return Ok(Step::Done) };
        if wire.in_flight >= PUSH_CREDIT_BYTES {
            wire.is_held = true;
            return Ok(Step::Done);
        }
        // Before the end: what the high watermark covers is there.
        let high_watermark = outgoing.source.high_watermark();
        let end = outgoing.source.end().min(outgoing.limit);
        if cursor >= end {
            return Ok(if high_watermark > wire.told_high_watermark { Step::Commit } else { Step::Done });
        }
        let read = match wire.read.take() {
            Some((from, read)) if from == cursor => read,
            _ => outgoing.source.read(cursor, PIECE_BYTES, Patience::Cached),
        };
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(StorageError::NotCached) => return Ok(Step::Cold),
            Err(StorageError::NoHandles { .. }) => return Ok(Step::Later),
            Err(error) => return Ok(Step::Failed(error)),
        };
        let (length, next) = whole_batches(&bytes, cursor, end);
        if length == 0 {
            let reason = format!("there is no batch at offset {cursor}, below the end {end}");
            return Ok(Step::Failed(StorageError::InvalidBatch { reason }));
        }
        if let Err(error) = encode_append(frames, stream, cursor, high_watermark, &bytes[..length]) {
            let reason = error.to_string();
            return Ok(Step::Failed(StorageError::InvalidBatch { reason }));
        }
        wire.told_high_watermark = high_watermark;
        wire.note_sent(next, length, self.clock.now());
        self.state.lock().in_flight += length;
        Ok(if next < end { Step::More } else { Step::Done })
    }

    /// Sends the high watermarks that have waited long enough, where no records took them along.
    fn tell_commits(&self, frames: &mut Vec<u8>, commits: &mut Commits) -> io::Result<()> {
        for outgoing in commits.take_due(self.clock.now()) {
            let mut wire = outgoing.wire.lock();
            wire.commit_waits = false;
            let high_watermark = outgoing.source.high_watermark();
            let Some(stream) = wire.stream.filter(|_| high_watermark > wire.told_high_watermark) else {
                continue;
            };
            wire.told_high_watermark = high_watermark;
            Message::Commit { stream, high_watermark }.encode(frames).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn create(&self, outgoing: &Arc<Outgoing>, wire: &mut Wire, frames: &mut Vec<u8>) -> io::Result<()> {
        let mut state = self.state.lock();
        let stream = state.next_stream;
        state.next_stream = stream.checked_add(1).ok_or_else(|| io::Error::other("all streams were used"))?;
        state.streams.insert(stream, outgoing.clone());
        state.begun += 1;
        drop(state);
        wire.stream = Some(stream);
        let create = outgoing.target.create(stream, outgoing.kind);
        Message::Create(Box::new(create)).encode(frames).map_err(io::Error::other)
    }

    /// Ends a stream from this side.
    fn close(&self, wire: &mut Wire, frames: &mut Vec<u8>) -> io::Result<()> {
        let Some(stream) = self.end(wire) else { return Ok(()) };
        Message::Close { stream }.encode(frames).map_err(io::Error::other)
    }

    /// Forgets a stream; its number, if it had one.
    fn end(&self, wire: &mut Wire) -> Option<u32> {
        let stream = wire.stream.take()?;
        let mut state = self.state.lock();
        state.streams.remove(&stream);
        state.in_flight -= wire.give_up_sent();
        if wire.cursor.is_none() {
            state.begun -= 1;
        }
        Some(stream)
    }

    fn begin_cold_read(&self, cold: &mut ColdReads) {
        while cold.running.is_none()
            && let Some(outgoing) = cold.waiting.pop_front()
        {
            let Some(from) = outgoing.wire.lock().cursor else { continue };
            let env = self.shared.spec.env.clone();
            cold.running = Some(Box::pin(async move {
                let source = outgoing.source.clone();
                let read = env.blocking(move || source.read(from, PIECE_BYTES, Patience::Wait)).await;
                (outgoing, from, read)
            }));
        }
    }

    async fn read(&self, stream: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut reader = FrameReader::new(stream);
        while let Some(message) = reader.message().await? {
            match message {
                Message::Ack { stream, end } => self.acked(stream, end),
                Message::Nack { stream, refusal } => self.refused(stream, refusal),
                Message::FenceAnswer(request, _)
                | Message::Pulled(request, _)
                | Message::Fetched(request, _)
                | Message::Confirmed(request, _) => {
                    self.link.answer(request, message);
                }
                _ => {
                    let reason = "a frame of this kind is not for a leader";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
                }
            }
            self.heard();
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn find(&self, stream: u32) -> Option<Arc<Outgoing>> {
        self.state.lock().streams.get(&stream).cloned()
    }

    fn acked(&self, stream: u32, end: Offset) {
        let Some(outgoing) = self.find(stream) else { return };
        if outgoing.kind == PushKind::Member && end > outgoing.source.end() {
            // All copies are prefixes of the leader's: this one is of something else.
            tracing::error!(name = ?outgoing.target.name, end, "a copy is longer than its leader's");
            self.end(&mut outgoing.wire.lock());
            self.link.refuse(&outgoing, Refused::Storage(Refusal::StorageFailed));
            return;
        }
        let (goes_on, sent_at) = {
            let mut wire = outgoing.wire.lock();
            let (freed, sent_at) = wire.note_acked(end);
            let is_first = wire.cursor.is_none();
            wire.cursor.get_or_insert(end);
            wire.told_lost = false;
            let was_full = {
                let mut state = self.state.lock();
                let was_full = state.in_flight >= CREDIT_BYTES;
                state.in_flight -= freed;
                state.begun -= usize::from(is_first);
                was_full
            };
            if was_full {
                self.link.filled.notify_one();
            }
            (is_first || std::mem::take(&mut wire.is_held), sent_at)
        };
        if goes_on {
            self.link.list(&outgoing);
        }
        let age = sent_at.map(|at| self.clock.now().saturating_sub(at));
        outgoing.sink.acked(outgoing.target.storage, end, age);
    }

    fn refused(&self, stream: u32, refusal: Refusal) {
        let Some(outgoing) = self.find(stream) else { return };
        if let Refusal::Gap(end) = refusal {
            let mut wire = outgoing.wire.lock();
            let freed = wire.give_up_sent();
            let is_first = wire.cursor.replace(end).is_none();
            let mut state = self.state.lock();
            state.in_flight -= freed;
            state.begun -= usize::from(is_first);
            drop(state);
            wire.is_held = false;
            drop(wire);
            self.link.list(&outgoing);
            self.link.filled.notify_one();
            return;
        }
        {
            let mut wire = outgoing.wire.lock();
            self.end(&mut wire);
            wire.restart();
        }
        if refusal == Refusal::Busy {
            self.state.lock().later.push(outgoing);
        } else {
            self.link.refuse(&outgoing, Refused::Storage(refusal));
        }
        // The credit of what was in flight is free.
        self.link.filled.notify_one();
    }

    fn is_answer_due(&self, state: &State) -> bool {
        state.in_flight > 0 || state.begun > 0 || self.link.has_requests()
    }

    fn expect_answer(&self) {
        let mut state = self.state.lock();
        if state.silent_since.is_none() && self.is_answer_due(&state) {
            state.silent_since = Some(self.clock.now());
        }
    }

    fn heard(&self) {
        let mut state = self.state.lock();
        state.heard_anything = true;
        state.silent_since = self.is_answer_due(&state).then(|| self.clock.now());
    }

    /// Gives the connection up where the broker is silent, and where nobody needs it.
    async fn watch(&self) -> io::Result<()> {
        let mut idle_looks = 0;
        while idle_looks < IDLE_LOOKS {
            self.clock.sleep(WATCH_EVERY).await;
            let later = std::mem::take(&mut self.state.lock().later);
            later.iter().for_each(|outgoing| self.link.list(outgoing));
            idle_looks = if self.link.is_needed() { 0 } else { idle_looks + 1 };
            let now = self.clock.now();
            let since = self.state.lock().silent_since;
            if since.is_some_and(|since| now.saturating_sub(since) > SILENCE_MAX) {
                let reason =
                    format!("nothing came for {} s although an answer is due", SILENCE_MAX.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
        }
        Ok(())
    }
}

/// What came of a look at a push.
enum Step {
    /// It has nothing more to send for now.
    Done,
    /// It has.
    More,
    /// Nothing but a high watermark.
    Commit,
    /// What it is to send must be read from the disk.
    Cold,
    /// It cannot be read now.
    Later,
    /// It cannot be read.
    Failed(StorageError),
}
