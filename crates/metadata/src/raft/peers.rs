//! Voters talk over TCP: connections of their own, one request at a time on each.
//!
//! ```text
//! dialler                                   answerer
//!   hello: magic, format, cluster, from, to ─►
//!                                         ◄─ nothing, or why not
//!   size, request ─►  ◄─ size, response       again and again
//! ```
//!
//! Invariants: no frame larger than [`FRAME_BYTES_MAX`] is read or written; after a time-out the connection is closed,
//! so that a late response is never taken for that to another request; who does not call itself a voter of this cluster
//! gets nothing. Nobody proves who he is yet.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::env::{Env, Listener, Stream};
use base::ids::Uuid;
use openraft::error::{
    ClientWriteError, InstallSnapshotError, NetworkError, RPCError, RaftError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, Raft};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, watch};

use super::TypeConfig;
use super::entry::encode_entry;
use super::messages::{PeerRequest, PeerResponse};
use crate::image::Image;
use crate::store::COMMAND_BYTES_MAX;

const MAGIC: &[u8; 8] = b"VltavaCq";
/// Number of this way of talking; another one is refused.
const FORMAT: u32 = 1;
const HELLO_BYTES: usize = 8 + 4 + 16 + 8 + 8;
/// Largest frame, bytes: an entry of one largest command, and what stands around it.
const FRAME_BYTES_MAX: usize = COMMAND_BYTES_MAX + (1 << 20);
/// Entries are sent in frames of about this size, bytes, if one alone is not larger.
const APPEND_BYTES: usize = 4 << 20;
/// Longest reason for a refusal, bytes.
const REASON_BYTES_MAX: usize = 1_000;
/// Connections of others at a time: several for each voter of the largest group.
const CONNECTIONS_MAX: usize = 64;
/// Time for connecting and saying hello.
const HELLO_TIME: Duration = Duration::from_secs(3);
/// Pause between attempts to reach a peer that is not there.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Who speaks, and for which cluster.
#[derive(Clone)]
pub(super) struct Speaker {
    pub(super) env: Env,
    pub(super) node: u64,
    pub(super) images: watch::Receiver<Arc<Image>>,
    /// All voters, this node among them.
    pub(super) voters: Arc<BTreeSet<u64>>,
}

impl Speaker {
    fn cluster(&self) -> Uuid {
        self.images.borrow().cluster_id
    }

    /// Whether a hello is meant for this node; else why not.
    fn judge(&self, hello: &[u8; HELLO_BYTES]) -> Result<(), String> {
        let number = |at: usize| u64::from_be_bytes(hello[at..at + 8].try_into().expect("eight bytes"));
        let format = u32::from_be_bytes(hello[8..12].try_into().expect("four bytes"));
        if &hello[..8] != MAGIC {
            return Err("this is the port of Vltava's controllers; clients connect to brokers".to_owned());
        }
        if format != FORMAT {
            return Err(format!("controllers of this version speak format {FORMAT}, not {format}"));
        }
        let cluster = Uuid(hello[12..28].try_into().expect("sixteen bytes"));
        let ours = self.cluster();
        if !cluster.is_zero() && !ours.is_zero() && cluster != ours {
            return Err(format!("this is cluster {ours}, not {cluster}"));
        }
        let (node, from, to) = (self.node, number(28), number(36));
        if !self.voters.contains(&from) {
            return Err(format!("node {from} is no voter; compare controller.quorum.voters of both"));
        }
        if to != node {
            return Err(format!("this is node {node}, not {to}; compare controller.quorum.voters of both"));
        }
        Ok(())
    }

    fn hello(&self, to: u64) -> Vec<u8> {
        let numbers = [self.node.to_be_bytes(), to.to_be_bytes()].concat();
        [&MAGIC[..], &FORMAT.to_be_bytes(), &self.cluster().0, &numbers].concat()
    }
}

impl RaftNetworkFactory<TypeConfig> for Speaker {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer { speaker: self.clone(), node: target, address: node.addr.clone(), stream: None }
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

/// Another voter, as this one reaches it.
pub(super) struct Peer {
    speaker: Speaker,
    node: u64,
    address: String,
    /// In a lock only because streams are not `Sync`.
    stream: Option<Mutex<Box<dyn Stream>>>,
}

impl Peer {
    pub(super) fn new(speaker: Speaker, node: u64, address: String) -> Peer {
        Peer { speaker, node, address, stream: None }
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
        let stream = self.stream.take().map(Mutex::into_inner);
        let clock = self.speaker.env.clock.clone();
        let is_sent = AtomicBool::new(false);
        let exchange = async {
            let mut stream = match stream {
                Some(stream) => stream,
                None => self.connect().await?,
            };
            write_frame(&mut *stream, &request.encode()).await?;
            is_sent.store(true, Ordering::Relaxed);
            let frame = read_frame(&mut *stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let response = PeerResponse::decode(&frame).map_err(io::Error::other)?;
            io::Result::Ok((stream, response))
        };
        let result = tokio::select! {
            result = exchange => result,
            () = clock.sleep(patience) => Err(io::ErrorKind::TimedOut.into()),
        };
        let is_sent = is_sent.into_inner();
        let failed = |error| if is_sent { AskError::Unanswered(error) } else { AskError::NotSent(error) };
        let (stream, response) = result.map_err(failed)?;
        self.stream = Some(Mutex::new(stream));
        Ok(response)
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let env = &self.speaker.env;
        let say_hello = async {
            let mut stream = env.network.connect(&self.address).await?;
            stream.write_all(&self.speaker.hello(self.node)).await?;
            stream.flush().await?;
            let reason = read_frame(&mut *stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            match reason.is_empty() {
                true => Ok(stream),
                false => Err(io::Error::other(String::from_utf8_lossy(&reason).into_owned())),
            }
        };
        tokio::select! {
            result = say_hello => result,
            () = env.clock.sleep(HELLO_TIME) => Err(io::ErrorKind::TimedOut.into()),
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

/// Answers the other voters until `ended` says so.
pub(super) async fn serve(
    speaker: Speaker,
    mut listener: Box<dyn Listener>,
    raft: Raft<TypeConfig>,
    mut ended: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ended.wait_for(|ended| *ended) => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a controller's connection cannot be accepted");
                speaker.env.clock.sleep(RETRY_AFTER).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%from, "too many connections of controllers; one was closed");
            continue;
        };
        let (speaker, raft, mut ended) = (speaker.clone(), raft.clone(), ended.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                result = answer_all(&speaker, stream, &raft) => {
                    if let Err(error) = result {
                        tracing::debug!(%from, %error, "the connection of a controller ended");
                    }
                }
                _ = ended.wait_for(|ended| *ended) => {}
            }
        });
    }
}

async fn answer_all(
    speaker: &Speaker,
    mut stream: Box<dyn Stream>,
    raft: &Raft<TypeConfig>,
) -> io::Result<()> {
    let mut hello = [0; HELLO_BYTES];
    tokio::select! {
        read = stream.read_exact(&mut hello) => drop(read?),
        () = speaker.env.clock.sleep(HELLO_TIME) => return Err(io::ErrorKind::TimedOut.into()),
    }
    let verdict = speaker.judge(&hello);
    let reason = verdict.clone().err().unwrap_or_default();
    write_frame(&mut *stream, &reason.as_bytes()[..reason.len().min(REASON_BYTES_MAX)]).await?;
    if let Err(reason) = verdict {
        return Err(io::Error::other(reason));
    }
    while let Some(frame) = read_frame(&mut *stream).await? {
        let request = PeerRequest::decode(&frame).map_err(io::Error::other)?;
        write_frame(&mut *stream, &answer(raft, request).await.encode()).await?;
    }
    Ok(())
}

async fn answer(raft: &Raft<TypeConfig>, request: PeerRequest) -> PeerResponse {
    let failed = |error: &dyn std::fmt::Display| PeerResponse::Failed(error.to_string());
    match request {
        PeerRequest::Append(request) => {
            raft.append_entries(request).await.map_or_else(|error| failed(&error), PeerResponse::Append)
        }
        PeerRequest::Vote(request) => {
            raft.vote(request).await.map_or_else(|error| failed(&error), PeerResponse::Vote)
        }
        PeerRequest::Snapshot(request) => {
            raft.install_snapshot(request).await.map_or_else(|error| failed(&error), PeerResponse::Snapshot)
        }
        PeerRequest::Propose(batch) => match raft.client_write(batch).await {
            Ok(response) => PeerResponse::Proposed(response.log_id.index),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                PeerResponse::NotLeader(to.leader_id)
            }
            Err(error) => failed(&error),
        },
    }
}

async fn write_frame(stream: &mut dyn Stream, bytes: &[u8]) -> io::Result<()> {
    let size = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= FRAME_BYTES_MAX);
    let size = size.ok_or_else(|| io::Error::other("the frame is too long"))?;
    stream.write_all(&size.to_be_bytes()).await?;
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// The next frame; `None` when the peer is done.
async fn read_frame(stream: &mut dyn Stream) -> io::Result<Option<Vec<u8>>> {
    let size = match stream.read_u32().await {
        Ok(size) => size as usize,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if size > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!("a frame of {size} bytes is longer than any may be")));
    }
    // Grows as bytes come: a peer cannot make us hold what it does not send.
    let mut frame = Vec::with_capacity(size.min(1 << 16));
    let read = stream.take(size as u64).read_to_end(&mut frame).await?;
    if read < size { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Some(frame)) }
}
