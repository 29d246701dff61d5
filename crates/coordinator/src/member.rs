//! One member of a group, and a member to be: what is known of it and what it holds.

use std::sync::Arc;

use bytes::Bytes;

use crate::memory::{self, Share};
use crate::request::{Protocol, Token};
use crate::timer::Timer;

/// One member of a group.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout_ms: i32,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) assignment: Bytes,
    /// Order of arrival; the longest-standing member is the next leader.
    pub(crate) arrival: u64,
    /// It does not know its id yet, so it cannot send heartbeats.
    pub(crate) is_new: bool,
    /// JoinGroup that waits for the join phase to end.
    pub(crate) parked_join: Option<Token>,
    /// SyncGroup that waits for the assignment.
    pub(crate) parked_sync: Option<Token>,
    pub(crate) session: Timer,
    /// What it holds without its assignment.
    pub(crate) share: Share,
    /// What its assignment holds; stays from one generation to the next, so that an assignment that does not grow
    /// finds room whatever others hold meanwhile.
    pub(crate) assignment_share: Share,
}

/// An id handed out to a client that has not come back with it yet.
#[derive(Debug)]
pub(crate) struct PendingMember {
    pub(crate) session: Timer,
    /// Counts it as long as it is here.
    pub(crate) _share: Share,
}

impl Member {
    /// What it holds without its assignment, bytes.
    pub(crate) fn bytes(&self) -> usize {
        let client = [self.client_id.as_str(), &self.client_host];
        memory::member_bytes(&self.id, self.instance_id.as_deref(), client, &self.protocols)
    }

    /// True for a member with an instance id (KIP-345).
    pub(crate) fn is_static(&self) -> bool {
        self.instance_id.is_some()
    }

    /// Its metadata under a protocol; empty if it does not support it.
    pub(crate) fn metadata(&self, protocol_name: Option<&str>) -> Bytes {
        let found = self.protocols.iter().find(|protocol| Some(protocol.name.as_str()) == protocol_name);
        found.map(|protocol| protocol.metadata.clone()).unwrap_or_default()
    }

    /// A member that waits in a rebalance proves its life by that, once it knows its id.
    pub(crate) fn is_waiting_alive(&self) -> bool {
        !self.is_new && (self.parked_join.is_some() || self.parked_sync.is_some())
    }
}
