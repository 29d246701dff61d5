//! How much memory groups and their members hold, counted over all shards of a broker.
//!
//! Whatever a client brings that outlives its request belongs to a [`Share`], which counts it as long as it is there:
//! dropping the share gives everything back. Members (with ids that were only handed out, and assignments), the groups
//! themselves, records on their way to the log and committed offsets are counted apart, each up to
//! [`max_memory_bytes`](crate::GroupConfig::max_memory_bytes), so that groups left behind or a slow disk never keep
//! members out.
//!
//! Bytes are those of names and contents plus a constant for each thing, a little more than it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::request::Protocol;

/// A group without members, its deadlines and places in maps, bytes.
const GROUP_BYTES: usize = 1_024;
/// A member, its session and its places in maps, bytes.
const MEMBER_BYTES: usize = 768;
/// An id that was handed out, and its session, bytes.
const PENDING_MEMBER_BYTES: usize = 256;
/// A protocol of a member, bytes.
const PROTOCOL_BYTES: usize = 192;
/// A topic in a group's set of subscribed ones, bytes.
const TOPIC_BYTES: usize = 64;
/// A committed offset with its place in maps, without its metadata, bytes.
pub(crate) const OFFSET_BYTES: usize = 256;
/// How often a group or member id stands in memory: in maps, beside deadlines, as the leader.
const COPIES_OF_IDS: usize = 2;

/// The counters that all shards of a broker share.
#[derive(Clone, Debug, Default)]
pub struct GroupMemory {
    pub(crate) members: Counter,
    pub(crate) groups: Counter,
    pub(crate) records: Counter,
    pub(crate) offsets: Counter,
}

impl GroupMemory {
    /// Bytes that members hold, and member ids that were handed out.
    pub fn member_bytes(&self) -> usize {
        self.members.0.load(Ordering::Relaxed)
    }

    /// Bytes of records whose outcome is not known yet.
    pub fn record_bytes(&self) -> usize {
        self.records.0.load(Ordering::Relaxed)
    }

    /// Bytes of committed offsets.
    pub fn offset_bytes(&self) -> usize {
        self.offsets.0.load(Ordering::Relaxed)
    }

    /// Bytes that the groups themselves hold.
    pub fn group_bytes(&self) -> usize {
        self.groups.0.load(Ordering::Relaxed)
    }
}

/// Bytes counted together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter(Arc<AtomicUsize>);

impl Counter {
    /// A share of nothing yet.
    pub(crate) fn share(&self) -> Share {
        Share { counter: self.clone(), bytes: 0 }
    }
}

/// A part of what is counted.
#[derive(Debug, Default)]
pub(crate) struct Share {
    counter: Counter,
    bytes: usize,
}

impl Share {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes the share this large, whatever the bound: for what is in the log already.
    pub(crate) fn set(&mut self, bytes: usize) {
        let counter = &self.counter.0;
        if bytes > self.bytes {
            counter.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            counter.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// Makes the share this large. False, and nothing changes, if it would grow beyond what there is: a share that
    /// does not grow is never refused.
    pub(crate) fn try_set(&mut self, bytes: usize, max_bytes: usize) -> bool {
        if let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) {
            let counter = &self.counter.0;
            let fits = |held: usize| held.checked_add(more).filter(|sum| *sum <= max_bytes);
            if counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
                return false;
            }
            self.bytes = bytes;
        } else {
            self.set(bytes);
        }
        true
    }

    /// Takes another share of the same counter in.
    pub(crate) fn absorb(&mut self, other: &mut Share) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Gives a part away, at most all.
    pub(crate) fn split(&mut self, bytes: usize) -> Share {
        let part = bytes.min(self.bytes);
        self.bytes -= part;
        Share { counter: self.counter.clone(), bytes: part }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// What a member holds without its assignment, bytes.
pub(crate) fn member_bytes(
    id: &str,
    instance_id: Option<&str>,
    client: [&str; 2],
    protocols: &[Protocol],
) -> usize {
    let ids = COPIES_OF_IDS * (id.len() + instance_id.map_or(0, str::len));
    let client: usize = client.iter().map(|text| text.len()).sum();
    MEMBER_BYTES + ids + client + protocol_bytes(protocols)
}

/// What an id that was handed out holds, bytes.
pub(crate) fn pending_member_bytes(id: &str) -> usize {
    PENDING_MEMBER_BYTES + COPIES_OF_IDS * id.len()
}

/// What a group itself holds, without its subscribed topics, bytes.
pub(crate) fn group_bytes(id: &str) -> usize {
    GROUP_BYTES + COPIES_OF_IDS * id.len()
}

/// What a member's protocols hold, bytes.
pub(crate) fn protocol_bytes(protocols: &[Protocol]) -> usize {
    let bytes = |protocol: &Protocol| PROTOCOL_BYTES + 2 * protocol.name.len() + protocol.metadata.len();
    protocols.iter().map(bytes).sum()
}

/// What a topic in a set of names holds, bytes.
pub(crate) fn topic_bytes(name: &str) -> usize {
    TOPIC_BYTES + name.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_comes_back() {
        let memory = GroupMemory::default();
        let mut share = memory.members.share();
        assert!(share.try_set(70, 100));
        let mut other = memory.members.share();
        assert!(!other.try_set(31, 100) && other.bytes() == 0);
        assert!(other.try_set(30, 100));
        assert_eq!(memory.member_bytes(), 100);
        drop(share);
        assert_eq!((memory.member_bytes(), memory.group_bytes()), (30, 0));
        drop(other);
        assert_eq!(memory.member_bytes(), 0);
    }

    #[test]
    fn a_share_that_does_not_grow_is_not_refused() {
        let memory = GroupMemory::default();
        let mut share = memory.members.share();
        share.set(500);
        assert!(share.try_set(500, 100) && share.try_set(400, 100));
        assert!(!share.try_set(401, 100));
        assert_eq!(memory.member_bytes(), 400);
    }

    #[test]
    fn shares_are_put_together_and_taken_apart() {
        let memory = GroupMemory::default();
        let (mut one, mut two) = (memory.members.share(), memory.members.share());
        one.set(10);
        two.set(5);
        one.absorb(&mut two);
        drop(two);
        assert_eq!((one.bytes(), memory.member_bytes()), (15, 15));
        let (part, rest) = (one.split(4), one.split(100));
        assert_eq!((part.bytes(), rest.bytes(), one.bytes()), (4, 11, 0));
        drop(part);
        assert_eq!(memory.member_bytes(), 11);
    }
}
