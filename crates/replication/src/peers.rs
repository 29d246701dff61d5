//! The other brokers, as the leader of a partition needs them.

use std::sync::Arc;

use base::ids::{BrokerId, StorageId};
use parking_lot::Mutex;

use crate::placement::Candidate;
use crate::stream::{Links, Replicas};

/// Knows which brokers can hold copies now.
pub trait Candidates: Send + Sync {
    /// All that live and have a log directory that takes segments, this one among them.
    fn candidates(&self) -> Vec<Candidate>;
    /// The broker that lives and has the storage, if that can be read.
    fn home(&self, storage: StorageId) -> Option<BrokerId>;

    /// Those, and others that answer although they take no new segments.
    fn alive(&self) -> Vec<Candidate> {
        self.candidates()
    }
}

/// See the module's head.
pub struct Peers {
    /// The way to them.
    pub links: Links,
    /// What this broker holds for them.
    pub replicas: Arc<Replicas>,
    /// Who they are.
    pub candidates: Arc<dyn Candidates>,
    /// Those that failed or were slow lately: they get no segment that others can take.
    pub avoided: Mutex<Vec<BrokerId>>,
}
