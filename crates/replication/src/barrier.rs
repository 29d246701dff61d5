//! Whether a broker still leads, asked of those who would know (replication.md 2.6).
//!
//! What is derived from a log, committed offsets say, is as old as the log of this broker, and a broker that was cut off
//! does not hear that another one leads. No clock helps: a new leader may be elected at any moment. But before a new leader
//! commits anything it has a member of the open segment promise its epoch, and all members would have to hold what this
//! broker commits. So if none of them has promised a later epoch, nobody has committed anything that is not here.

use std::sync::Arc;
use std::time::Duration;

use base::chain::{Member, PartitionState, SegmentState};

use crate::log::{Derived, Log};
use crate::peers::Peers;
use crate::stream::{ConfirmRequest, LinkError, Refusal};
use crate::tail::Writable;

/// How long a member may take to answer, and how long all may, with members that fail and are left out meanwhile.
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause before they are asked anew.
const PAUSE: Duration = Duration::from_millis(50);

/// What was found out.
enum Found {
    /// It led when it was asked, or later.
    Leads,
    /// Another broker was elected.
    IsOver,
    /// Somebody did not answer who may know.
    Unknown,
    /// It was not known whom to ask, and is now.
    Again,
}

impl<S: Derived> Log<S> {
    /// Whether this broker led at some moment after the call, so that nothing can have been committed before the call that
    /// it does not have. Costs nothing where no other broker has a copy, and else a question to each that has. False, too,
    /// when those cannot be reached for [`PATIENCE`].
    pub async fn confirm_lead(self: &Arc<Self>) -> bool {
        let Some(peers) = self.spec.peers.clone() else { return true };
        let clock = self.spec.env.clock.clone();
        let deadline = clock.now() + PATIENCE;
        loop {
            let found = tokio::select! {
                biased;
                found = self.ask_members(&peers) => found,
                () = clock.sleep_until(deadline) => Found::Unknown,
            };
            match found {
                Found::Leads => return true,
                Found::IsOver => return false,
                Found::Again => {}
                Found::Unknown if clock.now() >= deadline => return false,
                Found::Unknown => clock.sleep(PAUSE).await,
            }
        }
    }

    async fn ask_members(self: &Arc<Self>, peers: &Peers) -> Found {
        let Some(state) = self.settled_state() else {
            // Of an edit under way nobody knows which members it gives the segment.
            return match self.edit_tail().await {
                Ok(()) => Found::Again,
                Err(_) if self.is_closed() => Found::IsOver,
                Err(_) => Found::Unknown,
            };
        };
        let SegmentState::Open { ensemble } = &state.last().state else { return Found::IsOver };
        let others = ensemble.iter().filter(|member| member.broker != self.spec.broker);
        let asked = others.map(|member| self.ask_member(peers, &state, member));
        for answer in futures::future::join_all(asked).await {
            match answer {
                Ok(None) => {}
                Ok(Some(Refusal::Fenced(_))) => return Found::IsOver,
                // It began a new life, and is about to be left out.
                Ok(Some(_)) | Err(_) => return Found::Unknown,
            }
        }
        Found::Leads
    }

    async fn ask_member(
        &self,
        peers: &Peers,
        state: &PartitionState,
        member: &Member,
    ) -> Result<Option<Refusal>, LinkError> {
        let confirm = ConfirmRequest {
            partition: self.partition(),
            epoch: state.leader_epoch,
            incarnation: member.incarnation,
        };
        peers.links.confirm(member.broker, confirm, ANSWER_PATIENCE).await
    }

    /// The partition, if it is known which segment is open.
    fn settled_state(&self) -> Option<Arc<PartitionState>> {
        let tail = self.tail.lock();
        let state = self.state();
        match &tail.writable {
            Writable::Yes(_) => Some(state),
            // What an earlier life left open waits for the first append; nobody else has it.
            Writable::AfterEdit(_) => {
                let is_alone = |state: &PartitionState| {
                    state.placement == [self.spec.broker] && state.open_members() == 1
                };
                let known = self.spec.store.partition(self.partition());
                (is_alone(&state) && known.is_some_and(|known| is_alone(&known))).then_some(state)
            }
            Writable::Editing(_) | Writable::Never(_) => None,
        }
    }
}
