//! One open segment on its way to one storage, as the leader's side sees it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::config::Durability;
use base::ids::{BrokerId, Incarnation, LeaderEpoch, Offset, StorageId};
use bytes::Bytes;
use parking_lot::Mutex;
use storage::{Patience, SegmentName, StorageError};

use super::link::Link;
use super::message::{Create, PushKind, Refusal};

/// What is pushed: the leader's own copy. It is the only buffer, so it is read again for whoever lost something.
pub trait PushSource: Send + Sync {
    /// Offset after the last record there is to send. Does not fall while it is pushed.
    fn end(&self) -> Offset;
    /// Everything below is committed.
    fn high_watermark(&self) -> Offset;
    /// Whole batches from exactly `from` on, which lies below the end, at most `max_bytes` unless the first one alone is
    /// larger. Without patience it does not block; with patience it is called where it may.
    ///
    /// # Errors
    /// [`StorageError::NotCached`] where that takes patience; [`StorageError::NoHandles`], after which it is tried again;
    /// any other ends the push.
    fn read(&self, from: Offset, max_bytes: usize, patience: Patience) -> Result<Bytes, StorageError>;
}

/// Who hears what becomes of a push. Called from the connection's task: must be cheap and not block.
pub trait PushSink: Send + Sync {
    /// The storage holds everything below `end`, as its durability class says, of which the first was sent so long ago;
    /// none, if it held that before. Ends may come twice.
    fn acked(&self, storage: StorageId, end: Offset, age: Option<Duration>);
    /// The push is over: make a new one if the storage is still wanted.
    fn refused(&self, storage: StorageId, refused: Refused);
    /// The storage cannot be reached at the moment; this is tried again, and acknowledged when it can.
    fn lost(&self, storage: StorageId);
}

/// Why a push is over.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// The storage takes no more of it.
    #[error(transparent)]
    Storage(Refusal),
    /// The leader's own copy cannot be read.
    #[error("the leader's own copy cannot be read: {0}")]
    Source(StorageError),
}

/// Which segment is to be pushed where.
#[derive(Clone, Debug)]
pub struct PushTarget {
    /// The broker that runs the storage.
    pub broker: BrokerId,
    /// The storage.
    pub storage: StorageId,
    /// The life of the broker that the ensemble names; of no meaning for a copy to a storage that is no member.
    pub incarnation: Incarnation,
    /// The segment.
    pub name: SegmentName,
    /// The epoch in which this broker leads.
    pub epoch: LeaderEpoch,
    /// The epochs the segment is written in, and where each begins; at least one.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Producer state at the segment's base.
    pub snapshot: Bytes,
}

impl PushTarget {
    pub(super) fn create(&self, stream: u32, kind: PushKind) -> Create {
        Create {
            stream,
            name: self.name.clone(),
            storage: self.storage,
            epoch: self.epoch,
            epochs: self.epochs.clone(),
            incarnation: self.incarnation,
            durability: self.durability,
            kind,
            snapshot: self.snapshot.clone(),
        }
    }
}

/// Keeps a segment being pushed. Dropping it ends that.
pub struct Push {
    pub(super) link: Arc<Link>,
    pub(super) outgoing: Arc<Outgoing>,
}

impl Push {
    /// There is more to send, or a new high watermark. Cheap, from any thread.
    pub fn wake(&self) {
        self.link.list(&self.outgoing);
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        self.outgoing.is_over.store(true, Ordering::Release);
        self.link.forget(&self.outgoing);
    }
}

impl std::fmt::Debug for Push {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PushTarget { name, storage, .. } = &self.outgoing.target;
        f.debug_struct("Push").field("name", name).field("storage", storage).finish_non_exhaustive()
    }
}

/// A push as the connection's task sees it.
pub(super) struct Outgoing {
    pub(super) id: u64,
    pub(super) target: PushTarget,
    pub(super) kind: PushKind,
    /// Nothing at or above is sent.
    pub(super) limit: Offset,
    pub(super) source: Arc<dyn PushSource>,
    pub(super) sink: Arc<dyn PushSink>,
    /// Listed to be looked at.
    pub(super) listed: AtomicBool,
    /// Dropped, or refused.
    pub(super) is_over: AtomicBool,
    /// Touched by the connection's task alone.
    pub(super) wire: Mutex<Wire>,
}

/// What was done for a push on the present connection.
#[derive(Default)]
pub(super) struct Wire {
    /// Number of that connection.
    connection: u64,
    /// Its number, once it was begun.
    pub(super) stream: Option<u32>,
    /// The next offset to send; `None` before the storage said what it holds.
    pub(super) cursor: Option<Offset>,
    /// What was sent and not acknowledged: end of each frame, its bytes, and when.
    pub(super) sent: VecDeque<(Offset, usize, Duration)>,
    /// The bytes of those.
    pub(super) in_flight: usize,
    pub(super) told_high_watermark: Offset,
    /// A high watermark is about to be told.
    pub(super) commit_waits: bool,
    /// It waits for an acknowledgement before it sends more.
    pub(super) is_held: bool,
    /// It waits for the disk.
    pub(super) is_cold: bool,
    /// What the disk gave for the offset.
    pub(super) read: Option<(Offset, Result<Bytes, StorageError>)>,
    /// The sink knows that the storage cannot be reached.
    pub(super) told_lost: bool,
}

impl Wire {
    /// Nothing was done yet.
    pub(super) fn new() -> Wire {
        Wire { told_high_watermark: -1, ..Wire::default() }
    }

    /// Begins anew if this is another connection than the last; their numbers are 1 and up.
    pub(super) fn on(&mut self, connection: u64) {
        if self.connection != connection {
            *self = Wire { connection, told_lost: self.told_lost, ..Wire::new() };
        }
    }

    /// Nothing is known on this connection any more; what was in flight was given up before.
    pub(super) fn restart(&mut self) {
        *self = Wire { connection: self.connection, told_lost: self.told_lost, ..Wire::new() };
    }

    /// Counts what was sent.
    pub(super) fn note_sent(&mut self, end: Offset, bytes: usize, now: Duration) {
        self.cursor = Some(end);
        self.sent.push_back((end, bytes, now));
        self.in_flight += bytes;
    }

    /// Everything below `end` arrived: returns the bytes that are not in flight any more, and when the first of them were
    /// sent.
    pub(super) fn note_acked(&mut self, end: Offset) -> (usize, Option<Duration>) {
        let (mut freed, mut sent_at) = (0, None);
        while let Some((_, bytes, at)) = self.sent.pop_front_if(|(sent_end, ..)| *sent_end <= end) {
            freed += bytes;
            sent_at.get_or_insert(at);
        }
        self.in_flight -= freed;
        (freed, sent_at)
    }

    /// Nothing that is in flight will be acknowledged: returns its bytes.
    pub(super) fn give_up_sent(&mut self) -> usize {
        self.sent.clear();
        std::mem::take(&mut self.in_flight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_flight_is_what_was_sent_and_not_acknowledged() {
        let mut wire = Wire::new();
        let at = |ms| Duration::from_millis(ms);
        wire.note_sent(10, 100, at(1));
        wire.note_sent(15, 50, at(2));
        wire.note_sent(20, 70, at(3));
        assert_eq!((wire.note_acked(9), wire.in_flight), ((0, None), 220));
        assert_eq!((wire.note_acked(15), wire.in_flight), ((150, Some(at(1))), 70));
        assert_eq!((wire.give_up_sent(), wire.in_flight), (70, 0));
        assert_eq!((wire.note_acked(20), wire.cursor), ((0, None), Some(20)));
        wire.on(0);
        assert_eq!(wire.cursor, Some(20));
        wire.on(1);
        assert_eq!(wire.cursor, None);
    }
}
