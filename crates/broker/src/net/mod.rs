//! Connections: listeners, frames, the order of answers, limits, graceful drain.
//!
//! One task per connection does the whole of a request, without a hop. It reads frames into one buffer that
//! exists only while bytes are there, hands each frame to a [`Service`] and writes the answers in the order
//! of the requests.
//!
//! ```text
//! socket ─► Input (bounded frames) ─► Window (in order, several at once) ─► Output (vectored) ─► socket
//!              └── Account: bytes held, against one MemoryBudget for all connections ──┘
//! ```
//!
//! Invariants:
//! - answers leave in the order of the requests of their connection;
//! - a request starts when those before it are answered; only [`Pace::Pipelined`] ones start behind others
//!   of their kind, so a later request sees what an earlier one did;
//! - a length field costs nothing until the bytes it announces arrive;
//! - a turn of a connection is bounded, so that a busy one does not starve others of its thread;
//! - whatever a connection holds is accounted for, and one that stands still is closed in bounded time.
//!
//! It knows nothing of what is inside a frame; the only door to the network is `base::env`.

mod account;
mod activity;
mod answers;
mod connection;
mod input;
mod lanes;
mod lifecycle;
mod limits;
mod notices;
mod output;
mod prefixed;
mod server;
mod stranger;
mod window;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use base::config::HostPort;
use base::env::{BoxFuture, Run, Stream};
use bytes::Bytes;
use futures::task::AtomicWaker;

pub use account::{Held, MemoryBudget};
pub use answers::AnswerPace;
pub use lifecycle::{DrainSignal, DrainTrigger, drain_channel};
pub use limits::Limits;
pub use server::{BindError, Server, ServerOptions};

/// Answers frames.
pub trait Service: Send + Sync + 'static {
    /// Whether a request may start while earlier ones of its connection are unanswered. Called before
    /// [`Service::start`] with the same frame, maybe several times.
    fn pace(&self, frame: &[u8]) -> Pace;

    /// Begins to answer a frame (without its size). The future is polled once at once, so what it does
    /// before it first waits is done in the order of the requests of the connection. It is dropped when the
    /// connection ends before it is ready.
    fn start(&self, connection: &Arc<ConnectionInfo>, frame: Bytes) -> BoxFuture<'static, Outcome>;

    /// Serves a connection that began as those of other brokers do, to its end. Nothing of it was taken.
    fn serve_peer(&self, connection: &Arc<ConnectionInfo>, stream: Box<dyn Stream>)
    -> BoxFuture<'static, ()>;
}

/// When a request may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Once all earlier requests of the connection are answered.
    Alone,
    /// Also while earlier requests of this pace wait.
    Pipelined,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Outcome {
    /// Send these runs of bytes, a whole frame with its size.
    Answer(Vec<Run>),
    /// Send nothing and go on (Produce with acks=0).
    Silence,
    /// Send the answers of earlier requests and close the connection. The text goes to the log.
    Close(Cow<'static, str>),
}

/// A listener as connections know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerInfo {
    /// Name, in capitals.
    pub name: String,
    /// What clients are told to dial; `None` tells each the address it used itself.
    pub advertised: Option<HostPort>,
}

/// Name and version of a client's library, as it says in ApiVersions (KIP-511).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSoftware {
    /// Name, such as `apache-kafka-java`.
    pub name: String,
    /// Version.
    pub version: String,
}

/// What is known of a connection besides its requests.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// Number, unique in the life of the server.
    pub id: u64,
    /// Address of the client; an IPv4 address is never written as IPv6.
    pub peer: SocketAddr,
    /// Address the client dialled, likewise.
    pub local: SocketAddr,
    /// The listener it came through.
    pub listener: Arc<ListenerInfo>,
    /// What the client says it is; set at most once.
    pub software: OnceLock<ClientSoftware>,
    /// Whether the client has closed its sending side.
    pub input_end: InputEnd,
    /// How often it is sent small answers.
    pub answers: AnswerPace,
}

/// The end of what a client sends. Requests it sent before are still answered, for a few seconds; one that waits for
/// other clients need not wait any longer.
#[derive(Debug, Default)]
pub struct InputEnd {
    has_come: AtomicBool,
    waker: AtomicWaker,
}

impl InputEnd {
    /// It is there.
    fn set(&self) {
        self.has_come.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Completes once it is there. Of those that wait at the same time the last one is woken: a request that waits
    /// for this is [`Pace::Alone`].
    pub async fn reached(&self) {
        poll_fn(|context| {
            self.waker.register(context.waker());
            if self.has_come.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl ConnectionInfo {
    /// Where this client reaches this broker: the listener's advertised address, or the one it dialled.
    pub fn advertised(&self) -> HostPort {
        match &self.listener.advertised {
            Some(address) => address.clone(),
            None => HostPort { host: self.local.ip().to_string(), port: self.local.port() },
        }
    }
}
