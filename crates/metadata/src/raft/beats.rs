//! Shows every voter that the broker of this node lives, on a connection of its own to each.
//!
//! Invariants: a voter that is slow or gone delays nothing on the way to the others; only the newest heartbeat waits; a
//! connection that works is kept until this node ends, so that its end tells the voter of ours.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::ids::{BrokerId, Incarnation};
use parking_lot::Mutex;

use super::messages::{PeerRequest, PeerResponse};
use super::peers::{Peer, RETRY_AFTER, Speaker};
use crate::store::ProposeError;
use crate::watch;

/// How long a heartbeat waits for a majority.
const MAJORITY_PATIENCE: Duration = Duration::from_secs(1);
/// How long it waits for one voter, before another connection is made.
const VOTER_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
struct Beat {
    number: u64,
    broker: BrokerId,
    incarnation: Incarnation,
}

/// See the module's head.
pub(super) struct Beats {
    speaker: Speaker,
    newest: watch::Sender<Option<Beat>>,
    /// Number of the last heartbeat that each voter heard.
    heard: watch::Sender<BTreeMap<u64, u64>>,
    /// Where each voter is reached; there is a task for each.
    voters: Mutex<BTreeMap<u64, String>>,
    ended: watch::Receiver<bool>,
}

impl Beats {
    /// Beats until `ended` says so, once there are voters.
    pub(super) fn new(speaker: Speaker, ended: watch::Receiver<bool>) -> Arc<Beats> {
        let (newest, heard) = (watch::Sender::new(None), watch::Sender::default());
        Arc::new(Beats { speaker, newest, heard, voters: Mutex::default(), ended })
    }

    /// Says who hears heartbeats from now on. This node, if it is one of them, is not asked: it knows.
    pub(super) fn set_voters(self: &Arc<Beats>, voters: BTreeMap<u64, String>) {
        let mut known = self.voters.lock();
        for id in voters.keys().filter(|id| !known.contains_key(id) && **id != self.speaker.node) {
            let (beats, id, mut ended) = (self.clone(), *id, self.ended.clone());
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    _ = ended.wait_for(|ended| *ended) => {}
                    () = beats.beat_to(id) => {}
                }
            });
        }
        *known = voters;
    }

    /// Who hears heartbeats, and where.
    pub(super) fn voters(&self) -> BTreeMap<u64, String> {
        self.voters.lock().clone()
    }

    /// Brings a heartbeat to all and waits until most of them heard it.
    pub(super) fn beat(
        &self,
        broker: BrokerId,
        incarnation: Incarnation,
    ) -> impl Future<Output = Result<(), ProposeError>> {
        let mut number = 0;
        self.newest.send_modify(|newest| {
            number = newest.map_or(1, |newest| newest.number + 1);
            *newest = Some(Beat { number, broker, incarnation });
        });
        async move {
            let mut heard = self.heard.subscribe();
            tokio::select! {
                biased;
                _ = heard.wait_for(|heard| self.is_majority(heard, number)) => Ok(()),
                () = self.speaker.env.clock.sleep(MAJORITY_PATIENCE) => Err(ProposeError::Unavailable(
                    "fewer than a majority of the controllers heard in time that this broker lives".to_owned(),
                )),
            }
        }
    }

    fn is_majority(&self, heard: &BTreeMap<u64, u64>, number: u64) -> bool {
        let voters = self.voters.lock();
        let knows = |id: &u64| *id == self.speaker.node || heard.get(id).is_some_and(|last| *last >= number);
        voters.keys().filter(|id| knows(id)).count() > voters.len() / 2
    }

    /// Brings the newest heartbeat to one voter, for as long as it is one.
    async fn beat_to(&self, id: u64) {
        let mut newest = self.newest.subscribe();
        let mut peer: Option<Peer> = None;
        loop {
            let Some(address) = self.voters.lock().get(&id).cloned() else { return };
            let beat = *newest.borrow_and_update();
            if let Some(Beat { number, broker, incarnation }) = beat {
                let peer = match &mut peer {
                    Some(peer) if peer.is(id, &address) => peer,
                    other => other.insert(Peer::new(self.speaker.clone(), id, address)),
                };
                let was_connected = peer.is_connected();
                match peer.ask(&PeerRequest::Heartbeat { broker, incarnation }, VOTER_PATIENCE).await {
                    Ok(PeerResponse::Heard) => self.heard.send_modify(|heard| {
                        heard.insert(id, number);
                    }),
                    Ok(other) => {
                        tracing::warn!(
                            controller = id,
                            ?other,
                            "a controller takes no heartbeat of this node"
                        );
                        self.speaker.env.clock.sleep(RETRY_AFTER).await;
                    }
                    Err(error) => {
                        tracing::debug!(controller = id, %error, "a controller does not hear this node");
                        // It shall hear that this node lives as soon as it can be reached: at once, if only the
                        // connection broke.
                        if !was_connected {
                            self.speaker.env.clock.sleep(RETRY_AFTER).await;
                        }
                        newest.mark_changed();
                    }
                }
            }
            if newest.changed().await.is_err() {
                return;
            }
        }
    }
}
