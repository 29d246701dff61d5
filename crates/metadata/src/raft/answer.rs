//! The voter's side of what [`super::peers`] dials: answers other voters, and nodes that are none.
//!
//! Invariants: only who calls himself a voter is answered in matters of Raft; everybody of the cluster may propose,
//! follow and show that he lives, and cannot take the places of voters; memory that requests of others than voters take
//! is bounded; every connection says to the table of sessions that it ended.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::env::{Listener, Stream};
use base::ids::{BrokerId, Incarnation};
use openraft::error::{ClientWriteError, RaftError};
use openraft::raft::InstallSnapshotRequest;
use openraft::{BasicNode, Raft, RaftMetrics};
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::TypeConfig;
use super::feed::Feed;
use super::group::{ANSWER_PATIENCE, NO_MAJORITY};
use super::lead::Lead;
use super::machine::IMAGE_BYTES_MAX;
use super::messages::{PeerRequest, PeerResponse};
use super::peers::{
    Caller, HELLO_BYTES, HELLO_TIME, IDLE_MAX, NODE_MAGIC, RETRY_AFTER, Speaker, read_frame_size, read_rest,
    write_frame,
};
use crate::watch;

/// Connections of voters, and of those who did not say yet who they are: several for each of the largest group.
const VOTER_CONNECTIONS_MAX: usize = 256;
/// Connections of other nodes: each has one for heartbeats, one that follows, one for proposals.
const NODE_CONNECTIONS_MAX: usize = 8_192;
/// A request up to this size is read whatever others take, bytes: a heartbeat waits for no proposal.
const SMALL_REQUEST_BYTES: usize = 16 << 10;
/// What larger requests of nodes that are no voters may take together, KiB.
const NODE_REQUESTS_KIB_MAX: u32 = 256 << 10;
/// Longest reason for a refusal, bytes.
const REASON_BYTES_MAX: usize = 1_000;
/// How long a follower may take to let the next bytes of its feed in.
const STALL_MAX: Duration = Duration::from_secs(10);
/// A follower hears something at least so often, while it takes it in.
const ALIVE_EVERY: Duration = Duration::from_millis(300);
/// An image is sent in parts of so many bytes.
const PART_BYTES: usize = 1 << 20;

/// See the module's head.
pub(super) struct Host {
    speaker: Speaker,
    raft: Raft<TypeConfig>,
    lead: Arc<Lead>,
    feed: Arc<Feed>,
    node_places: Arc<Semaphore>,
    node_requests: Semaphore,
}

/// A connection, as the table of sessions knows it.
struct Line<'a> {
    lead: &'a Lead,
    number: u64,
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.lead.table.lock().hang_up(self.number);
    }
}

impl Host {
    pub(super) fn new(speaker: Speaker, raft: Raft<TypeConfig>, lead: Arc<Lead>, feed: Arc<Feed>) -> Host {
        let node_places = Arc::new(Semaphore::new(NODE_CONNECTIONS_MAX));
        let node_requests = Semaphore::new(NODE_REQUESTS_KIB_MAX as usize);
        Host { speaker, raft, lead, feed, node_places, node_requests }
    }

    /// Answers everybody until `ended` says so.
    pub(super) async fn serve(
        self: Arc<Host>,
        mut listener: Box<dyn Listener>,
        mut ended: watch::Receiver<bool>,
    ) {
        let places = Arc::new(Semaphore::new(VOTER_CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection to this controller cannot be accepted");
                    self.speaker.env.clock.sleep(RETRY_AFTER).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                tracing::warn!(%from, "too many connections to this controller; one was closed");
                continue;
            };
            let (host, mut ended) = (self.clone(), ended.clone());
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    result = host.answer_all(stream, place) => {
                        if let Err(error) = result {
                            tracing::debug!(%from, %error, "a connection to this controller ended");
                        }
                    }
                    _ = ended.wait_for(|ended| *ended) => {}
                }
            });
        }
    }

    /// Answers a node that dialled a port of this node's broker, of whose hello the magic was read.
    pub(super) async fn serve_node(
        self: Arc<Host>,
        mut stream: Box<dyn Stream>,
        mut ended: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let serve = async {
            let hello = read_hello(&self.speaker, &mut *stream, true).await?;
            // Voters speak with each other at the listener of controllers alone.
            let verdict = self.speaker.judge(&hello).map(|caller| Caller { votes: false, ..caller });
            self.converse(stream, verdict, None).await
        };
        tokio::select! {
            biased;
            served = serve => served,
            _ = ended.wait_for(|ended| *ended) => Ok(()),
        }
    }

    async fn answer_all(&self, mut stream: Box<dyn Stream>, place: OwnedSemaphorePermit) -> io::Result<()> {
        let hello = read_hello(&self.speaker, &mut *stream, false).await?;
        self.converse(stream, self.speaker.judge(&hello), Some(place)).await
    }

    async fn converse(
        &self,
        mut stream: Box<dyn Stream>,
        mut verdict: Result<Caller, String>,
        mut place: Option<OwnedSemaphorePermit>,
    ) -> io::Result<()> {
        if verdict.as_ref().is_ok_and(|caller| !caller.votes) {
            place = self.node_places.clone().try_acquire_owned().ok();
            if place.is_none() {
                verdict = Err(format!("this controller has {NODE_CONNECTIONS_MAX} connections already"));
            }
        }
        welcome(&mut *stream, verdict.as_ref().err().map_or("", String::as_str)).await?;
        let caller = verdict.map_err(io::Error::other)?;
        let _place = place;
        let line = Line { lead: &self.lead, number: self.lead.table.lock().connect() };
        while let Some(size) = self.next_size(&mut *stream).await? {
            let _room = match caller.votes || size <= SMALL_REQUEST_BYTES {
                true => None,
                // Waits until others had their answers: what they sent stays with them.
                false => self.node_requests.acquire_many(1 + (size >> 10) as u32).await.ok(),
            };
            let frame = tokio::select! {
                biased;
                frame = read_rest(&mut *stream, size) => frame?,
                () = self.speaker.env.clock.sleep(ANSWER_PATIENCE) => return Err(io::ErrorKind::TimedOut.into()),
            };
            let request = PeerRequest::decode(&frame).map_err(io::Error::other)?;
            drop(frame);
            let response = match (self.speaker.admit(caller), request) {
                (Err(why), _) => PeerResponse::Failed(why),
                (Ok(()), PeerRequest::Follow { next }) => return self.feed(&mut *stream, next).await,
                (Ok(()), request) => self.answer(caller, line.number, request).await,
            };
            write_frame(&mut *stream, &response.encode()).await?;
        }
        Ok(())
    }

    /// The size of the next request; `None` when none comes any more.
    async fn next_size(&self, stream: &mut dyn Stream) -> io::Result<Option<usize>> {
        tokio::select! {
            biased;
            size = read_frame_size(stream) => size,
            () = self.speaker.env.clock.sleep(IDLE_MAX) => Ok(None),
        }
    }

    async fn answer(&self, caller: Caller, connection: u64, request: PeerRequest) -> PeerResponse {
        let failed = |error: &dyn std::fmt::Display| PeerResponse::Failed(error.to_string());
        let raft = &self.raft;
        match request {
            PeerRequest::Heartbeat { broker, incarnation } => {
                self.hear(caller, connection, broker, incarnation)
            }
            PeerRequest::Propose(batch) => tokio::select! {
                biased;
                written = raft.client_write(batch) => match written {
                    Ok(response) => PeerResponse::Proposed(response.log_id.index),
                    Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                        PeerResponse::NotLeader(to.leader_id)
                    }
                    Err(error) => failed(&error),
                },
                () = self.speaker.env.clock.sleep(ANSWER_PATIENCE) => failed(&NO_MAJORITY),
            },
            PeerRequest::Ends => {
                let metrics = raft.metrics().borrow().clone();
                match self.lead.leader(raft) {
                    Some(leader) if leader == metrics.id => {
                        PeerResponse::Ends { term: metrics.current_term, ends: ends(&metrics) }
                    }
                    other => PeerResponse::NotLeader(other),
                }
            }
            _ if !caller.votes => PeerResponse::Failed(format!(
                "node {} is no voter; compare controller.quorum.voters of both",
                caller.node
            )),
            PeerRequest::Append(request) => {
                raft.append_entries(request).await.map_or_else(|error| failed(&error), PeerResponse::Append)
            }
            PeerRequest::Vote(request) => {
                raft.vote(request).await.map_or_else(|error| failed(&error), PeerResponse::Vote)
            }
            PeerRequest::Snapshot(request) => match check_snapshot(&request) {
                Ok(()) => {
                    let installed = raft.install_snapshot(request).await;
                    installed.map_or_else(|error| failed(&error), PeerResponse::Snapshot)
                }
                Err(why) => failed(&why),
            },
            PeerRequest::Follow { .. } => failed(&"a feed has a connection of its own"),
        }
    }

    fn hear(
        &self,
        caller: Caller,
        connection: u64,
        broker: BrokerId,
        incarnation: Incarnation,
    ) -> PeerResponse {
        if u64::try_from(broker.0) != Ok(caller.node) {
            return PeerResponse::Failed(format!("node {} cannot speak for broker {broker}", caller.node));
        }
        self.lead.table.lock().note(broker, incarnation, connection, self.lead.now());
        PeerResponse::Heard
    }

    /// Sends a follower what is applied, from an entry on, for as long as it keeps up.
    async fn feed(&self, stream: &mut dyn Stream, mut next: u64) -> io::Result<()> {
        let clock = &self.speaker.env.clock;
        let mut shown = self.feed.subscribe();
        let voters = self.speaker.voters.iter().map(|(id, address)| (*id, address.clone()));
        self.send(stream, &PeerResponse::Voters(voters.collect())).await?;
        if self.feed.from(next).is_none() {
            next = self.send_image(stream).await?;
        }
        let mut alive_at = clock.now();
        loop {
            if clock.now() >= alive_at {
                self.send(stream, &PeerResponse::Alive(self.lead.leader(&self.raft))).await?;
                alive_at = clock.now() + ALIVE_EVERY;
            }
            drop(shown.borrow_and_update());
            let entries = self.feed.from(next);
            let entries = entries.ok_or_else(|| io::Error::other("the follower is too slow"))?;
            if let Some((last, _)) = entries.last() {
                next = last + 1;
                self.send(stream, &PeerResponse::Entries(entries)).await?;
                continue;
            }
            tokio::select! {
                biased;
                changed = shown.changed() => changed.map_err(io::Error::other)?,
                () = clock.sleep_until(alive_at) => {}
            }
        }
    }

    /// Sends the image; the index of the first entry that it does not show.
    async fn send_image(&self, stream: &mut dyn Stream) -> io::Result<u64> {
        let encoding = self.feed.encode(&self.speaker.env);
        tokio::pin!(encoding);
        let encoded = loop {
            tokio::select! {
                biased;
                encoded = &mut encoding => break encoded,
                () = self.speaker.env.clock.sleep(ALIVE_EVERY) => {
                    self.send(stream, &PeerResponse::Alive(self.lead.leader(&self.raft))).await?;
                }
            }
        };
        let (next, bytes) = (encoded.next, encoded.bytes.len() as u64);
        self.send(stream, &PeerResponse::Image { next, bytes }).await?;
        for part in encoded.bytes.chunks(PART_BYTES) {
            self.send(stream, &PeerResponse::Part(part.to_vec())).await?;
        }
        Ok(next)
    }

    async fn send(&self, stream: &mut dyn Stream, response: &PeerResponse) -> io::Result<()> {
        let frame = response.encode();
        tokio::select! {
            biased;
            written = write_frame(stream, &frame) => written,
            () = self.speaker.env.clock.sleep(STALL_MAX) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Reads what a node says first, some of which may have been read.
async fn read_hello(
    speaker: &Speaker,
    stream: &mut dyn Stream,
    magic_was_read: bool,
) -> io::Result<[u8; HELLO_BYTES]> {
    let mut hello = [0; HELLO_BYTES];
    hello[..NODE_MAGIC.len()].copy_from_slice(&NODE_MAGIC);
    let from = if magic_was_read { NODE_MAGIC.len() } else { 0 };
    tokio::select! {
        biased;
        read = stream.read_exact(&mut hello[from..]) => drop(read?),
        () = speaker.env.clock.sleep(HELLO_TIME) => return Err(io::ErrorKind::TimedOut.into()),
    }
    Ok(hello)
}

/// Says welcome with an empty reason, or else why not.
async fn welcome(stream: &mut dyn Stream, reason: &str) -> io::Result<()> {
    write_frame(stream, &reason.as_bytes()[..reason.len().min(REASON_BYTES_MAX)]).await
}

/// Turns away whoever said hello, of which the magic was read.
pub(crate) async fn refuse(mut stream: Box<dyn Stream>, reason: &str) -> io::Result<()> {
    stream.read_exact(&mut [0; HELLO_BYTES - NODE_MAGIC.len()]).await?;
    welcome(&mut *stream, reason).await?;
    Err(io::Error::other(reason.to_owned()))
}

/// Tells a node that dialled one which is no voter where the voters are; of its hello the magic was read.
pub(super) async fn redirect(
    speaker: &Speaker,
    mut stream: Box<dyn Stream>,
    voters: BTreeMap<u64, String>,
) -> io::Result<()> {
    let hello = read_hello(speaker, &mut *stream, true).await?;
    let mut verdict = speaker.judge(&hello);
    if voters.is_empty() {
        verdict = Err("this node knows no controllers yet".to_owned());
    }
    welcome(&mut *stream, verdict.as_ref().err().map_or("", String::as_str)).await?;
    verdict.map_err(io::Error::other)?;
    write_frame(&mut *stream, &PeerResponse::Voters(voters).encode()).await?;
    let why = "this node is no controller; it has told of those";
    write_frame(&mut *stream, &PeerResponse::Failed(why.to_owned()).encode()).await?;
    // Closing at once, with bytes of the other unread, would take the answer back.
    tokio::select! {
        biased;
        _ = read_frame_size(&mut *stream) => {}
        () = speaker.env.clock.sleep(HELLO_TIME) => {}
    }
    Ok(())
}

/// How many entries of the log each voter has, as far as this one knows.
pub(super) fn ends(metrics: &RaftMetrics<u64, BasicNode>) -> BTreeMap<u64, u64> {
    let end = |index: Option<u64>| index.map_or(0, |index| index + 1);
    let of_others = metrics.replication.iter().flatten();
    let of_others = of_others.map(|(id, last)| (*id, end(last.map(|last| last.index))));
    of_others.chain([(metrics.id, end(metrics.last_log_index))]).collect()
}

/// Refuses a part of a snapshot that would make it larger than any may be.
fn check_snapshot(request: &InstallSnapshotRequest<TypeConfig>) -> Result<(), String> {
    let end = request.offset.checked_add(request.data.len() as u64);
    match end {
        Some(end) if end <= IMAGE_BYTES_MAX => Ok(()),
        _ => {
            let why = format!("a snapshot of more than {IMAGE_BYTES_MAX} bytes is not taken in");
            tracing::error!("{why}");
            Err(why)
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::Vote;

    use super::super::entry::Meta;
    use super::*;

    #[test]
    fn a_snapshot_without_bound_is_refused() {
        let part = |offset, bytes| InstallSnapshotRequest {
            vote: Vote::new(1, 1),
            meta: Meta::default(),
            offset,
            data: vec![0; bytes],
            done: false,
        };
        assert!(check_snapshot(&part(IMAGE_BYTES_MAX - 9, 9)).is_ok());
        for (offset, bytes) in [(IMAGE_BYTES_MAX - 9, 10), (u64::MAX, 1), (IMAGE_BYTES_MAX + 1, 0)] {
            assert!(check_snapshot(&part(offset, bytes)).is_err());
        }
    }
}
