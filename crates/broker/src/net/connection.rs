//! One connection: reads, starts requests, writes answers, in bounded turns.
//!
//! A turn polls what is under way, starts what may start, writes, reads once. If there may be more to do at once
//! the task goes to the back of its thread's queue first, so every connection of the thread gets its turn after
//! at most 64 KiB of this one's.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::env::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::account::Account;
use super::activity::{Activity, AwaitedFrame, Standing, Verdict};
use super::input::{BadSize, Input};
use super::limits::{FAREWELL, OUTPUT_BYTES, READ_BYTES};
use super::output::Output;
use super::prefixed::Prefixed;
use super::server::Shared;
use super::stranger::Stranger;
use super::window::Window;
use super::{ConnectionInfo, Service};

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The peer closed it, or the broker drained and everything was answered.
    Finished,
    /// The system says so.
    Failed(io::Error),
    /// It stood still for too long, or the broker stops.
    Condemned(Verdict),
    /// A request could not be answered.
    Refused(Cow<'static, str>),
    /// A frame has an impossible size.
    BadFrame(i32),
    /// The peer does not speak Kafka.
    Stranger(Stranger),
}

/// Why no more is read, if so.
#[derive(Debug)]
enum Reading {
    Open,
    /// Close when all is answered and sent; then this is the reason.
    Ending(End),
}

/// What a turn leaves.
enum Turn {
    /// The context is woken when there is something to do.
    Wait,
    /// There may be something to do at once.
    Again,
}

pub(super) struct Connection<S: Service> {
    stream: Box<dyn Stream>,
    info: Arc<ConnectionInfo>,
    shared: Arc<Shared<S>>,
    service: Arc<S>,
    activity: Arc<Activity>,
    account: Account,
    input: Input,
    window: Window,
    output: Output,
    reading: Reading,
    standing: Standing,
    /// It waits for bytes from the peer, not for anything of ours.
    is_reading: bool,
    /// Number of the frame whose rest is awaited, counted by [`Input::frames`].
    awaited_frame: u64,
}

/// How a connection leaves a lane.
pub(super) enum Parting<S: Service> {
    /// For ever.
    End(End),
    /// For another lane.
    Move(Box<Connection<S>>),
}

impl<S: Service> Connection<S> {
    pub(super) fn new(
        stream: Box<dyn Stream>,
        info: Arc<ConnectionInfo>,
        shared: Arc<Shared<S>>,
        service: Arc<S>,
        activity: Arc<Activity>,
    ) -> Connection<S> {
        let account = Account::new(shared.budget.clone(), info.id);
        let input = Input::new(shared.limits.load().frame_bytes_max);
        Connection {
            stream,
            info,
            shared,
            service,
            activity,
            account,
            input,
            window: Window::default(),
            output: Output::default(),
            reading: Reading::Open,
            standing: Standing::default(),
            is_reading: false,
            awaited_frame: 0,
        }
    }

    /// Serves the connection on the event loop this is called on, to its end or until it shall go to another lane.
    pub(super) async fn run(mut self) -> Parting<S> {
        if let Err(error) = self.stream.move_here() {
            return Parting::End(End::Failed(error));
        }
        let end = poll_fn(|context| {
            let turn = self.turn(context);
            match (turn, self.activity.is_to_move()) {
                (Err(end), _) => Poll::Ready(Some(end)),
                (Ok(_), Some(_)) => Poll::Ready(None),
                (Ok(Turn::Wait), None) => Poll::Pending,
                (Ok(Turn::Again), None) => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        })
        .await;
        let Some(end) = end else { return Parting::Move(Box::new(self)) };
        if let End::Stranger(Stranger::Peer) = end {
            Box::pin(self.serve_peer()).await;
            return Parting::End(End::Finished);
        }
        if let End::Stranger(stranger) = &end {
            // Apart from the connection's own future, which would be large all its life for what few ever need.
            Box::pin(self.say_farewell(*stranger)).await;
        }
        Parting::End(end)
    }

    /// One bounded turn. An error is the end of the connection.
    fn turn(&mut self, context: &mut Context<'_>) -> Result<Turn, End> {
        self.activity.register(context.waker());
        if let Some(reason) = self.window.advance(&mut self.output, context) {
            self.reading = Reading::Ending(End::Refused(reason));
        }
        if matches!(self.reading, Reading::Open) && self.shared.drain.is_draining() {
            self.reading = Reading::Ending(End::Finished);
        }
        let mut more = self.start_requests(context);
        let mut read = self.read(context)?;
        if let Some(bytes) = &mut read {
            // Starting what was just read only in the next turn would cost small requests a round.
            more |= self.start_requests(context);
            // A socket that is empty now says so at no cost, and the connection waits for it. Asking only in
            // another turn would cost every request that turn, and wake an idle thread to look for work.
            let next = self.read(context)?;
            more |= next.is_some();
            *bytes += next.unwrap_or(0);
        }
        self.input.release_if_empty();
        let was_full = self.output.unsent() >= OUTPUT_BYTES;
        let written = self.output.write(&mut *self.stream, context).map_err(End::Failed)?;
        self.account.set_held(self.held());
        if read.is_some() || written.bytes > 0 {
            self.activity.worked();
        }
        self.note(read.unwrap_or(0), written.bytes)?;
        self.end_if_done()?;
        let again = more || written.more || (was_full && written.bytes > 0);
        Ok(if again { Turn::Again } else { Turn::Wait })
    }

    /// Starts the requests whose time has come, within the bounds of a turn. True if it stopped at the bound.
    fn start_requests(&mut self, context: &mut Context<'_>) -> bool {
        let mut started = 0;
        while matches!(self.reading, Reading::Open) && self.output.unsent() < OUTPUT_BYTES {
            let pace = match self.input.peek() {
                Ok(Some(frame)) => self.service.pace(frame),
                Ok(None) => return false,
                Err(bad) => {
                    self.reading = Reading::Ending(bad_size(bad));
                    return false;
                }
            };
            if !self.window.admits(pace) {
                return false;
            }
            if started >= READ_BYTES {
                return true;
            }
            let Ok(Some(frame)) = self.input.take() else { return false };
            let bytes = frame.len();
            started += bytes.max(1);
            let future = self.service.start(&self.info, frame);
            self.window.start(pace, bytes, future, context);
            if let Some(reason) = self.window.flush(&mut self.output) {
                self.reading = Reading::Ending(End::Refused(reason));
            }
        }
        false
    }

    /// Reads once, if there is use for more. `None` if nothing was read.
    fn read(&mut self, context: &mut Context<'_>) -> Result<Option<usize>, End> {
        let wants_more = matches!(self.reading, Reading::Open)
            && self.output.unsent() < OUTPUT_BYTES
            && matches!(self.input.peek(), Ok(None));
        if !wants_more {
            self.account.end_overdraft();
        }
        self.is_reading = false;
        if !wants_more {
            return Ok(None);
        }
        let Poll::Ready(limit) = self.account.poll_may_read(self.input.len(), context) else {
            return Ok(None);
        };
        self.is_reading = true;
        match self.input.poll_read(&mut *self.stream, limit, context) {
            Poll::Pending => Ok(None),
            Poll::Ready(Ok(0)) => {
                self.reading = Reading::Ending(End::Finished);
                self.standing.input_ended_at = Some(self.shared.env.clock.now());
                self.info.input_end.set();
                Ok(Some(0))
            }
            Poll::Ready(Ok(count)) => Ok(Some(count)),
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
            Poll::Ready(Err(error)) => Err(End::Failed(error)),
        }
    }

    fn end_if_done(&mut self) -> Result<(), End> {
        if self.output.unsent() > 0 || !self.window.is_empty() {
            return Ok(());
        }
        match std::mem::replace(&mut self.reading, Reading::Open) {
            Reading::Open => Ok(()),
            Reading::Ending(end) => Err(end),
        }
    }

    /// Bytes of memory the connection takes beyond a small constant; what is sent from a file counts as if it were here.
    fn held(&self) -> usize {
        self.input.capacity() + self.window.request_bytes() + self.output.unsent()
    }

    /// Writes down what the connection waits for, and hears the verdict on it.
    fn note(&mut self, read: usize, written: usize) -> Result<(), End> {
        let now = self.shared.env.clock.now();
        let old = self.standing;
        let moved = read > 0 || written > 0;
        let since = |holds: bool, old: Option<Duration>, anew: bool| {
            holds.then(|| old.filter(|_| !anew).unwrap_or(now))
        };
        let has_output = self.output.unsent() > 0;
        let at_rest = self.window.is_empty() && !has_output && self.input.len() == 0;
        let in_frame = self.is_reading && self.input.len() > 0 && matches!(self.input.peek(), Ok(None));
        let same_frame = old.frame.filter(|_| self.awaited_frame == self.input.frames());
        self.awaited_frame = self.input.frames();
        self.standing = Standing {
            in_work: self.window.len(),
            idle_since: since(at_rest, old.idle_since, moved),
            frame: in_frame.then(|| match same_frame {
                Some(frame) if read == 0 => frame,
                Some(frame) => AwaitedFrame { bytes: frame.bytes + read as u64, moved_at: now, ..frame },
                None => AwaitedFrame { since: now, bytes: 0, moved_at: now },
            }),
            unread_since: since(has_output, old.unread_since, written > 0),
            overdrawn_since: since(self.account.is_overdrawn(), old.overdrawn_since, false),
            input_ended_at: old.input_ended_at,
        };
        self.activity.note(self.standing).map_or(Ok(()), |verdict| Err(End::Condemned(verdict)))
    }

    /// Leaves the connection to whoever speaks with other brokers, until the broker drains.
    async fn serve_peer(mut self) {
        let stream = Box::new(Prefixed::new(self.input.take_all(), self.stream));
        tokio::select! {
            biased;
            () = self.service.serve_peer(&self.info, stream) => {}
            () = self.shared.drain.draining() => {}
        }
    }

    /// Tells a peer that does not speak Kafka so, in its own words, and lets it read them: closing at once
    /// with bytes of the peer unread would take them back.
    async fn say_farewell(&mut self, stranger: Stranger) {
        let words = stranger.farewell(self.shared.http_address.as_deref());
        let stream = &mut self.stream;
        let talk = async {
            stream.write_all(&words).await?;
            stream.shutdown().await?;
            let mut left = READ_BYTES;
            let mut ignored = [0; 1024];
            while left > 0 {
                match stream.read(&mut ignored).await? {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
            io::Result::Ok(())
        };
        tokio::select! {
            biased;
            // Whether it heard is its own affair.
            _ = talk => {}
            () = self.shared.env.clock.sleep(FAREWELL) => {}
        }
    }
}

fn bad_size(bad: BadSize) -> End {
    match bad.stranger {
        Some(stranger) => End::Stranger(stranger),
        None => End::BadFrame(bad.size),
    }
}
