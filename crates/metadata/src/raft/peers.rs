//! How nodes reach voters over TCP: connections of their own, one request at a time on each.
//!
//! ```text
//! dialler                                   answerer
//!   hello: magic, format, cluster, from, to ─►
//!                                         ◄─ nothing, or why not
//!   size, request ─►  ◄─ size, response       again and again
//! ```
//!
//! Invariants: no frame larger than [`FRAME_BYTES_MAX`] is read or written; after a time-out nothing more is asked on the
//! connection, so that a late response is never taken for that to another request. Nobody proves who he is yet.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::env::{Env, Stream};
use base::ids::Uuid;
use openraft::BasicNode;
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::TypeConfig;
use super::entry::encode_entry;
use super::messages::{PeerRequest, PeerResponse};
use crate::image::Image;
use crate::store::COMMAND_BYTES_MAX;
use crate::watch;

/// What a node says first to a controller, and to a broker of which it wants to learn of the controllers.
pub const NODE_MAGIC: [u8; 8] = *b"VltavaCq";
/// Number of this way of talking; another one is refused.
const FORMAT: u32 = 1;
/// In a hello: whichever voter listens there.
pub(super) const WHOEVER: u64 = u64::MAX;
/// In a hello: a node that has no number yet.
pub(super) const NOBODY: u64 = u64::MAX;
pub(super) const HELLO_BYTES: usize = 8 + 4 + 16 + 8 + 8;
/// Largest frame, bytes: an entry of one largest command, and what stands around it.
const FRAME_BYTES_MAX: usize = COMMAND_BYTES_MAX + (1 << 20);
/// Entries are sent in frames of about this size, bytes, if one alone is not larger.
const APPEND_BYTES: usize = 4 << 20;
/// Time for connecting and saying hello.
pub(super) const HELLO_TIME: Duration = Duration::from_secs(3);
/// A connection on which nothing was asked for so long is closed by the answerer: the dialler may be gone without a word.
/// The dialler makes a new one well before.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(120);
/// Pause between attempts to reach a peer that is not there.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Who speaks, and for which cluster.
#[derive(Clone)]
pub(super) struct Speaker {
    pub(super) env: Env,
    pub(super) node: u64,
    pub(super) images: watch::Receiver<Arc<Image>>,
    /// Where each voter is reached, as this node is configured; nothing for one that is no voter.
    pub(super) voters: Arc<BTreeMap<u64, String>>,
}

/// Who said hello.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) node: u64,
    /// He calls himself a voter.
    pub(super) votes: bool,
    /// Of which cluster; zero when he does not know yet.
    pub(super) cluster: Uuid,
}

impl Speaker {
    fn cluster(&self) -> Uuid {
        self.images.borrow().cluster_id
    }

    /// Who says hello, if it is meant for this node; else why not.
    pub(super) fn judge(&self, hello: &[u8; HELLO_BYTES]) -> Result<Caller, String> {
        let number = |at: usize| u64::from_be_bytes(hello[at..at + 8].try_into().expect("eight bytes"));
        let format = u32::from_be_bytes(hello[8..12].try_into().expect("four bytes"));
        if hello[..8] != NODE_MAGIC {
            return Err("this is the port of Vltava's controllers; clients connect to brokers".to_owned());
        }
        if format != FORMAT {
            return Err(format!("controllers of this version speak format {FORMAT}, not {format}"));
        }
        let cluster = Uuid(hello[12..28].try_into().expect("sixteen bytes"));
        self.check_cluster(cluster)?;
        let (node, from, to) = (self.node, number(28), number(36));
        if to != node && to != WHOEVER {
            return Err(format!("this is node {node}, not {to}; compare controller.quorum.voters of both"));
        }
        Ok(Caller { node: from, votes: self.voters.contains_key(&from), cluster })
    }

    fn check_cluster(&self, theirs: Uuid) -> Result<(), String> {
        let ours = self.cluster();
        match theirs.is_zero() || ours.is_zero() || theirs == ours {
            true => Ok(()),
            false => Err(format!("this is cluster {ours}, not {theirs}")),
        }
    }

    /// Whether a caller may ask at all now; else why not. When he said hello, this node may not have known its cluster.
    pub(super) fn admit(&self, caller: Caller) -> Result<(), String> {
        match caller.votes || !self.cluster().is_zero() {
            true => self.check_cluster(caller.cluster),
            false => Err("the cluster has no id yet".to_owned()),
        }
    }

    fn hello(&self, to: u64) -> Vec<u8> {
        let numbers = [self.node.to_be_bytes(), to.to_be_bytes()].concat();
        [&NODE_MAGIC[..], &FORMAT.to_be_bytes(), &self.cluster().0, &numbers].concat()
    }

    /// Connects to a voter and says hello.
    ///
    /// # Errors
    /// It cannot be reached in time, or says why it does not talk to this node.
    pub(super) async fn dial(&self, address: &str, to: u64) -> io::Result<Box<dyn Stream>> {
        let say_hello = async {
            let mut stream = self.env.network.connect(address).await?;
            stream.write_all(&self.hello(to)).await?;
            stream.flush().await?;
            let reason = read_frame(&mut *stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            match reason.is_empty() {
                true => Ok(stream),
                false => Err(io::Error::other(String::from_utf8_lossy(&reason).into_owned())),
            }
        };
        tokio::select! {
            biased;
            result = say_hello => result,
            () = self.env.clock.sleep(HELLO_TIME) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Speaker {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        // The log knows the addresses of the day it began; the configured ones are those of today.
        let address = self.voters.get(&target).unwrap_or(&node.addr).clone();
        Peer::new(self.clone(), target, address)
    }
}

/// Why a request has no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error(transparent)]
    NotSent(io::Error),
    /// It may have been read.
    #[error(transparent)]
    Unanswered(io::Error),
}

/// A voter, as this node reaches it.
pub(super) struct Peer {
    speaker: Speaker,
    node: u64,
    address: String,
    /// In a lock only because streams are not `Sync`.
    stream: Option<Mutex<Box<dyn Stream>>>,
    /// When it was used last.
    used_at: Duration,
    /// A connection that did not answer in time. It is closed once another one works: the voter would take its end for
    /// that of this node.
    stale: Option<Mutex<Box<dyn Stream>>>,
}

impl Peer {
    pub(super) fn new(speaker: Speaker, node: u64, address: String) -> Peer {
        Peer { speaker, node, address, stream: None, used_at: Duration::ZERO, stale: None }
    }

    /// Whether there is a connection that worked last.
    pub(super) fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether it is that voter at that address.
    pub(super) fn is(&self, node: u64, address: &str) -> bool {
        self.node == node && self.address == address
    }

    /// Asks and waits for the response, at most so long.
    ///
    /// # Errors
    /// [`AskError::NotSent`] where the request cannot have been read: not all of it was written.
    pub(super) async fn ask(
        &mut self,
        request: &PeerRequest,
        patience: Duration,
    ) -> Result<PeerResponse, AskError> {
        let clock = self.speaker.env.clock.clone();
        let deadline = clock.now() + patience;
        if clock.now().saturating_sub(self.used_at) > IDLE_MAX / 2 {
            self.stream = None;
        }
        let mut stream = match self.stream.take().map(Mutex::into_inner) {
            Some(stream) => stream,
            None => tokio::select! {
                biased;
                dialled = self.speaker.dial(&self.address, self.node) => dialled.map_err(AskError::NotSent)?,
                () = clock.sleep_until(deadline) => return Err(AskError::NotSent(io::ErrorKind::TimedOut.into())),
            },
        };
        let is_sent = AtomicBool::new(false);
        let exchange = async {
            write_frame(&mut *stream, &request.encode()).await?;
            is_sent.store(true, Ordering::Relaxed);
            let frame = read_frame(&mut *stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            PeerResponse::decode(&frame).map_err(io::Error::other)
        };
        let result = tokio::select! {
            biased;
            result = exchange => Some(result),
            () = clock.sleep_until(deadline) => None,
        };
        let failed = |error| match is_sent.load(Ordering::Relaxed) {
            true => AskError::Unanswered(error),
            false => AskError::NotSent(error),
        };
        match result {
            Some(Ok(response)) => {
                self.stream = Some(Mutex::new(stream));
                self.used_at = clock.now();
                self.stale = None;
                Ok(response)
            }
            Some(Err(error)) => Err(failed(error)),
            None => {
                self.stale = Some(Mutex::new(stream));
                Err(failed(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    async fn ask_raft<E: std::error::Error>(
        &mut self,
        request: PeerRequest,
        option: &RPCOption,
    ) -> Result<PeerResponse, RPCError<u64, BasicNode, RaftError<u64, E>>> {
        let response = self.ask(&request, option.hard_ttl()).await;
        response.map_err(|error| {
            tracing::debug!(node = self.node, address = self.address, %error, "a controller does not answer");
            RPCError::Unreachable(Unreachable::new(&error))
        })
    }
}

/// What a response of another kind, or a failure over there, comes to.
fn unexpected<E: std::error::Error>(response: PeerResponse) -> RPCError<u64, BasicNode, RaftError<u64, E>> {
    let what = match response {
        PeerResponse::Failed(why) => why,
        other => format!("the answer is of another kind: {other:?}"),
    };
    RPCError::Network(NetworkError::new(&io::Error::other(what)))
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        mut request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        let mut bytes = 0;
        let fitting = request.entries.iter().take_while(|entry| {
            let first = bytes == 0;
            bytes += encode_entry(entry).len();
            first || bytes <= APPEND_BYTES
        });
        let fitting = fitting.count();
        let cut = (fitting < request.entries.len()).then(|| request.entries[fitting - 1].log_id);
        request.entries.truncate(fitting);
        match self.ask_raft(PeerRequest::Append(request), &option).await? {
            PeerResponse::Append(AppendEntriesResponse::Success) if cut.is_some() => {
                Ok(AppendEntriesResponse::PartialSuccess(cut))
            }
            PeerResponse::Append(response) => Ok(response),
            other => Err(unexpected(other)),
        }
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RPCError<u64, BasicNode, RaftError<u64, InstallSnapshotError>>>
    {
        match self.ask_raft(PeerRequest::Snapshot(request), &option).await? {
            PeerResponse::Snapshot(response) => Ok(response),
            other => Err(unexpected(other)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        match self.ask_raft(PeerRequest::Vote(request), &option).await? {
            PeerResponse::Vote(response) => Ok(response),
            other => Err(unexpected(other)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY_AFTER))
    }
}

/// Sends a frame.
///
/// # Errors
/// The connection fails, or the frame is too long.
pub(super) async fn write_frame(stream: &mut dyn Stream, bytes: &[u8]) -> io::Result<()> {
    let size = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= FRAME_BYTES_MAX);
    let size = size.ok_or_else(|| io::Error::other("the frame is too long"))?;
    stream.write_all(&size.to_be_bytes()).await?;
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// The next frame; `None` when the peer is done.
///
/// # Errors
/// The connection fails, or the frame is too long.
pub(super) async fn read_frame(stream: &mut dyn Stream) -> io::Result<Option<Vec<u8>>> {
    match read_frame_size(stream).await? {
        Some(size) => read_rest(stream, size).await.map(Some),
        None => Ok(None),
    }
}

/// The size of the next frame, bytes; `None` when the peer is done.
///
/// # Errors
/// The connection fails, or the frame is too long.
pub(super) async fn read_frame_size(stream: &mut dyn Stream) -> io::Result<Option<usize>> {
    let size = match stream.read_u32().await {
        Ok(size) => size as usize,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    match size <= FRAME_BYTES_MAX {
        true => Ok(Some(size)),
        false => Err(io::Error::other(format!("a frame of {size} bytes is longer than any may be"))),
    }
}

/// The frame after its size.
///
/// # Errors
/// The connection fails, or ends before the frame does.
pub(super) async fn read_rest(stream: &mut dyn Stream, size: usize) -> io::Result<Vec<u8>> {
    // Grows as bytes come: a peer cannot make us hold what it does not send.
    let mut frame = Vec::with_capacity(size.min(1 << 16));
    let read = stream.take(size as u64).read_to_end(&mut frame).await?;
    if read < size { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(frame) }
}
