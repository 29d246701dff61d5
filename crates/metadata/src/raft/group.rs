//! The way of a command to whoever leads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::ids::BrokerId;
use openraft::Raft;
use openraft::error::{ClientWriteError, RaftError};

use super::TypeConfig;
use super::entry::Batch;
use super::machine::NAMED_PROPOSALS;
use super::messages::{PeerRequest, PeerResponse};
use super::peers::{AskError, Peer, Speaker};
use super::results::Results;
use crate::command::CommandResult;
use crate::store::QuorumState;

/// How long a command waits for somebody to lead.
pub(super) const LEADER_PATIENCE: Duration = Duration::from_secs(10);
/// What is said when that was in vain.
pub(super) const NO_MAJORITY: &str = "a majority of the controllers does not answer; the command may be applied later. Start them, or mend their network";
/// What is said when nobody led for so long.
pub(super) const NO_LEADER: &str = "no controller leads: a majority of them must run and reach each other";
/// What is said when another one leads before there was an answer.
const REPLACED: &str =
    "another controller leads by now; whether the command was applied is not known: ask again";
/// What is said when a command was applied, and nobody remembers to what result.
pub(super) const FORGOTTEN: &str = "what the command came to is not known any more";
/// How long it waits for the leader's answer.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// How long the leader may take to say how far the voters are.
const ENDS_PATIENCE: Duration = Duration::from_secs(2);
/// Pause before it is asked again who leads.
pub(super) const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The voters of a metadata log (`controller.quorum.voters`), this node among them.
#[derive(Clone, Debug)]
pub struct Quorum {
    /// Where this node listens for the others.
    pub listen: SocketAddr,
    /// Where each is reached, `host:port`.
    pub voters: BTreeMap<BrokerId, String>,
}

/// How an attempt to have commands applied ended.
pub(super) enum Attempt {
    Done(Vec<CommandResult>),
    /// Nothing was sent, or it was refused because somebody else leads: this one, if that is known.
    Again(Option<u64>),
    /// They may be applied or not, and whoever leads now may be asked: a repeat is applied once.
    Lost(String),
    /// They may be applied or not.
    Unknown(String),
}

impl Attempt {
    fn of(results: Option<Vec<CommandResult>>) -> Attempt {
        results.map_or_else(|| Attempt::Unknown(FORGOTTEN.to_owned()), Attempt::Done)
    }
}

/// See the module's head.
pub(super) struct Group {
    pub(super) speaker: Speaker,
    pub(super) results: Arc<Results>,
    /// The way to who led last.
    leader: tokio::sync::Mutex<Option<Peer>>,
}

/// Who leads, as far as this node knows.
fn leader(raft: &Raft<TypeConfig>) -> Option<u64> {
    raft.metrics().borrow().current_leader
}

/// Completes when another one than `id` leads.
async fn replaced(raft: &Raft<TypeConfig>, id: u64) {
    let mut metrics = raft.metrics();
    loop {
        if metrics.borrow_and_update().current_leader.is_some_and(|leader| leader != id) {
            return;
        }
        if metrics.changed().await.is_err() {
            // It ends, and says so to whoever waits for it.
            std::future::pending().await
        }
    }
}

impl Group {
    pub(super) fn new(speaker: Speaker, results: Arc<Results>) -> Group {
        Group { speaker, results, leader: tokio::sync::Mutex::default() }
    }

    /// Has commands applied by whoever leads, as one entry.
    ///
    /// # Errors
    /// Why nobody can say that they were.
    pub(super) async fn write(
        &self,
        raft: &Raft<TypeConfig>,
        batch: Batch,
    ) -> Result<Vec<CommandResult>, String> {
        let clock = &self.speaker.env.clock;
        let deadline = clock.now() + LEADER_PATIENCE;
        loop {
            // A leader whom no majority follows waits for one for ever.
            let own = self.speaker.node;
            let written = tokio::select! {
                biased;
                written = raft.client_write(batch.clone()) => Some(written),
                () = replaced(raft, own), if leader(raft) == Some(own) => None,
                () = clock.sleep(ANSWER_PATIENCE) => return Err(NO_MAJORITY.to_owned()),
            };
            let attempt = match written {
                None => Attempt::Lost(REPLACED.to_owned()),
                Some(Ok(response)) => Attempt::of(response.data),
                Some(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                    match to.leader_id.and_then(|id| Some((id, self.address(id, to.leader_node?.addr)))) {
                        Some((id, address)) => {
                            self.forward_until(replaced(raft, id), id, &address, batch.clone()).await
                        }
                        None => Attempt::Again(None),
                    }
                }
                Some(Err(error)) => Attempt::Unknown(error.to_string()),
            };
            match attempt {
                Attempt::Done(results) => return Ok(results),
                Attempt::Unknown(why) => return Err(why),
                Attempt::Lost(why) if !self.may_repeat() || clock.now() >= deadline => return Err(why),
                Attempt::Again(_) if clock.now() >= deadline => {
                    return Err(NO_LEADER.to_owned());
                }
                Attempt::Again(_) | Attempt::Lost(_) => clock.sleep(ASK_AGAIN_AFTER).await,
            }
        }
    }

    /// As [`Group::forward`], until `replaced`, which says that another one leads: who stands still or is cut off would be
    /// waited for in vain.
    pub(super) async fn forward_until(
        &self,
        replaced: impl Future<Output = ()>,
        id: u64,
        address: &str,
        batch: Batch,
    ) -> Attempt {
        tokio::select! {
            biased;
            attempt = self.forward(id, address, batch) => return attempt,
            () = replaced => {}
        }
        // Its answer may still come on that connection.
        *self.leader.lock().await = None;
        Attempt::Lost(REPLACED.to_owned())
    }

    /// Whether what may have been applied may be proposed again.
    pub(super) fn may_repeat(&self) -> bool {
        self.speaker.images.borrow().metadata_version() >= NAMED_PROPOSALS
    }

    /// Where a voter is reached today; the log knows where it was when the log began.
    fn address(&self, id: u64, logged: String) -> String {
        self.speaker.voters.get(&id).cloned().unwrap_or(logged)
    }

    /// Gives commands to the voter that is said to lead.
    async fn forward(&self, id: u64, address: &str, batch: Batch) -> Attempt {
        let mut known = self.leader.lock().await;
        let peer = match known.take() {
            Some(peer) if peer.is(id, address) => peer,
            _ => Peer::new(self.speaker.clone(), id, address.to_owned()),
        };
        match known.insert(peer).ask(&PeerRequest::Propose(batch), ANSWER_PATIENCE).await {
            Ok(PeerResponse::Proposed(index)) => Attempt::of(self.results_of(index).await),
            Ok(PeerResponse::NotLeader(leader)) => Attempt::Again(leader),
            Ok(PeerResponse::Failed(why)) => Attempt::Unknown(why),
            Ok(other) => Attempt::Unknown(format!("the answer is of another kind: {other:?}")),
            Err(AskError::NotSent(error)) => {
                tracing::debug!(node = id, %error, "the leading controller cannot be reached");
                Attempt::Again(None)
            }
            Err(AskError::Unanswered(error)) => {
                Attempt::Lost(format!("the leading controller did not answer: {error}"))
            }
        }
    }

    /// Adds what only the leader knows, if it is another node and can be asked.
    pub(super) async fn ask_ends(
        &self,
        mut known: QuorumState,
        addresses: &BTreeMap<u64, String>,
    ) -> QuorumState {
        let leader = known.leader.and_then(|leader| u64::try_from(leader.0).ok());
        let other = leader.filter(|leader| *leader != self.speaker.node);
        let Some((id, address)) = other.and_then(|id| Some((id, addresses.get(&id)?.clone()))) else {
            return known;
        };
        match Peer::new(self.speaker.clone(), id, address).ask(&PeerRequest::Ends, ENDS_PATIENCE).await {
            Ok(PeerResponse::Ends { term, ends }) => {
                known.term = Some(term);
                for voter in &mut known.voters {
                    let id = u64::try_from(voter.id.0).ok();
                    voter.log_end = id.and_then(|id| ends.get(&id).copied()).or(voter.log_end);
                }
            }
            other => {
                tracing::debug!(node = id, ?other, "the leading controller does not say how far others are")
            }
        }
        known
    }

    /// What the entry came to here; `None` when that is not known in time.
    async fn results_of(&self, index: u64) -> Option<Vec<CommandResult>> {
        tokio::select! {
            biased;
            results = self.results.of(index) => results,
            () = self.speaker.env.clock.sleep(ANSWER_PATIENCE) => None,
        }
    }
}
