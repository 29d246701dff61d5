//! The committed end of one log, and who waits for it to move.
//!
//! Producers with acks=all wait for the end of their own batch; parked fetches wait for a number of
//! new bytes and are woken once, when they have it. Both are told exactly when their condition
//! holds, so an append costs nothing for waiters it does not satisfy.
//!
//! Invariants: the high watermark never falls; every waiting producer is answered exactly once;
//! after a failure nobody is told success.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use base::ids::Offset;
use parking_lot::Mutex;
use storage::{DurableListener, StorageError};
use tokio::sync::{Notify, oneshot};

/// Why an appended batch will not be known to be committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The storage failed; whether the batch survives is not known.
    #[error("the storage failed: {0}")]
    Storage(String),
    /// The log was closed: its topic was deleted or the broker shuts down.
    #[error("the log was closed")]
    Closed,
}

/// Completes when a batch is committed.
pub type Committed = oneshot::Receiver<Result<(), CommitError>>;

struct Pending {
    end: Offset,
    bytes: u64,
    answer: Option<oneshot::Sender<Result<(), CommitError>>>,
}

#[derive(Default)]
struct Waiting {
    pending: VecDeque<Pending>,
    readers: Vec<Weak<ReadWaiter>>,
    failed: Option<CommitError>,
}

impl Waiting {
    fn tell_readers(&mut self, bytes: u64) {
        self.readers.retain(|reader| reader.upgrade().is_some_and(|reader| !reader.add(bytes)));
    }
}

/// Committed end and waiters.
pub(crate) struct CommitPoint {
    high_watermark: AtomicI64,
    waiting: Mutex<Waiting>,
    /// Told of every sync round that covered this log, whatever it committed.
    synced: Notify,
}

impl CommitPoint {
    pub(crate) fn new(high_watermark: Offset) -> CommitPoint {
        CommitPoint {
            high_watermark: AtomicI64::new(high_watermark),
            waiting: Mutex::default(),
            synced: Notify::new(),
        }
    }

    /// Everything below is committed.
    pub(crate) fn high_watermark(&self) -> Offset {
        self.high_watermark.load(Ordering::Acquire)
    }

    /// Notes that `bytes` up to `end` were appended. With `wait` the answer comes when the high
    /// watermark reaches `end`. Called in offset order. A sync round that was under way may have
    /// committed the bytes before this call: then they count, and are answered, at once.
    pub(crate) fn appended(&self, end: Offset, bytes: u64, wait: bool) -> Option<Committed> {
        let (answer, receiver) = if wait {
            let (sender, receiver) = oneshot::channel();
            (Some(sender), Some(receiver))
        } else {
            (None, None)
        };
        self.enqueue(Pending { end, bytes, answer });
        receiver
    }

    /// Answers when the high watermark reaches `end`, which was appended before.
    pub(crate) fn wait_for(&self, end: Offset, answer: oneshot::Sender<Result<(), CommitError>>) {
        // Behind later ends in the queue it is answered with them, which were appended before the call.
        self.enqueue(Pending { end, bytes: 0, answer: Some(answer) });
    }

    fn enqueue(&self, pending: Pending) {
        let mut waiting = self.waiting.lock();
        let known = match &waiting.failed {
            Some(error) => Some(Err(error.clone())),
            None => (pending.end <= self.high_watermark()).then_some(Ok(())),
        };
        let Some(result) = known else {
            waiting.pending.push_back(pending);
            return;
        };
        if let Some(answer) = pending.answer {
            // Who asked may have gone away; then nobody wants the answer.
            let _ = answer.send(result);
        }
        if pending.bytes > 0 {
            waiting.tell_readers(pending.bytes);
        }
    }

    /// As [`CommitPoint::wait_for`].
    pub(crate) fn reaches(&self, end: Offset) -> Committed {
        let (sender, receiver) = oneshot::channel();
        self.wait_for(end, sender);
        receiver
    }

    /// Completes when `reached` holds, which is asked again after every sync round.
    pub(crate) async fn durable(&self, reached: impl Fn() -> bool) -> Result<(), CommitError> {
        loop {
            let mut synced = pin!(self.synced.notified());
            synced.as_mut().enable();
            if reached() {
                return Ok(());
            }
            if let Some(error) = &self.waiting.lock().failed {
                return Err(error.clone());
            }
            synced.await;
        }
    }

    /// Moves the high watermark to `end` unless it is there already, and wakes whom that satisfies.
    pub(crate) fn advance(&self, end: Offset) {
        let mut waiting = self.waiting.lock();
        if end <= self.high_watermark() || waiting.failed.is_some() {
            return;
        }
        self.high_watermark.store(end, Ordering::Release);
        let mut bytes = 0;
        while waiting.pending.front().is_some_and(|pending| pending.end <= end) {
            let Some(pending) = waiting.pending.pop_front() else { break };
            bytes += pending.bytes;
            if let Some(answer) = pending.answer {
                // The producer may have gone away; then nobody wants the answer.
                let _ = answer.send(Ok(()));
            }
        }
        waiting.tell_readers(bytes);
    }

    /// A sync round that covered the log is over.
    pub(crate) fn round_passed(&self) {
        self.synced.notify_waiters();
    }

    /// Answers every waiting producer with `error`, and every later one; wakes every reader.
    pub(crate) fn fail(&self, error: &CommitError) {
        let mut waiting = self.waiting.lock();
        waiting.failed.get_or_insert_with(|| error.clone());
        for answer in waiting.pending.drain(..).filter_map(|pending| pending.answer) {
            let _ = answer.send(Err(error.clone()));
        }
        for reader in waiting.readers.drain(..).filter_map(|reader| reader.upgrade()) {
            reader.wake();
        }
        drop(waiting);
        self.synced.notify_waiters();
    }

    /// Whether the log was given up.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.waiting.lock().failed, Some(CommitError::Closed))
    }

    /// Lets `reader` be told of bytes committed from now on. It is forgotten when it is dropped or
    /// has been woken.
    pub(crate) fn register(&self, reader: &Arc<ReadWaiter>) {
        let mut waiting = self.waiting.lock();
        match &waiting.failed {
            // There is news: the log is no more.
            Some(CommitError::Closed) => {
                reader.wake();
                return;
            }
            // Nothing will ever be committed here; what was, was there to be read before.
            Some(CommitError::Storage(_)) => return,
            None => {}
        }
        if waiting.readers.len() == waiting.readers.capacity() {
            waiting.readers.retain(|reader| reader.strong_count() > 0);
        }
        waiting.readers.push(Arc::downgrade(reader));
    }
}

impl DurableListener for CommitPoint {
    fn durable(&self, end: Offset) {
        self.advance(end);
        self.round_passed();
    }

    fn failed(&self, error: &StorageError) {
        self.fail(&CommitError::Storage(error.to_string()));
    }
}

/// A parked fetch: registered with every log it reads, woken when together they have gained enough.
#[derive(Debug)]
pub struct ReadWaiter {
    missing: AtomicI64,
    notify: Notify,
}

impl ReadWaiter {
    /// A waiter that is woken after `bytes` (at least 1) more bytes are committed.
    pub fn new(bytes: u64) -> Arc<ReadWaiter> {
        let missing = i64::try_from(bytes.max(1)).unwrap_or(i64::MAX);
        Arc::new(ReadWaiter { missing: AtomicI64::new(missing), notify: Notify::new() })
    }

    /// Completes once enough has been committed, or a log it waits for changed in another way.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }

    /// Wakes the fetch whatever it has.
    pub fn wake(&self) {
        self.missing.store(0, Ordering::Release);
        self.notify.notify_one();
    }

    /// Counts new bytes; true when the waiter has enough and need not be told again.
    fn add(&self, bytes: u64) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let before = self.missing.fetch_sub(bytes, Ordering::AcqRel);
        if before <= bytes {
            self.notify.notify_one();
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_are_answered_in_order_and_once() {
        let point = CommitPoint::new(0);
        let mut first = point.appended(10, 100, true).unwrap();
        let mut second = point.appended(20, 100, true).unwrap();
        point.advance(10);
        assert_eq!(first.try_recv(), Ok(Ok(())));
        assert!(second.try_recv().is_err());
        point.advance(25);
        assert_eq!(second.try_recv(), Ok(Ok(())));
        point.advance(5);
        assert_eq!(point.high_watermark(), 25);
    }

    #[test]
    fn an_append_that_a_running_round_committed_is_answered_at_once() {
        let point = CommitPoint::new(0);
        let reader = ReadWaiter::new(1);
        point.register(&reader);
        point.advance(10);
        let mut late = point.appended(10, 100, true).unwrap();
        assert_eq!(late.try_recv(), Ok(Ok(())));
        assert!(point.waiting.lock().readers.is_empty());
    }

    #[test]
    fn a_failure_answers_those_who_wait_and_those_who_come() {
        let point = CommitPoint::new(0);
        let mut early = point.appended(10, 1, true).unwrap();
        let error = CommitError::Storage("gone".into());
        point.fail(&error);
        let mut late = point.appended(20, 1, true).unwrap();
        point.advance(20);
        assert_eq!(early.try_recv(), Ok(Err(error.clone())));
        assert_eq!(late.try_recv(), Ok(Err(error)));
        assert_eq!(point.high_watermark(), 0);
    }

    #[tokio::test]
    async fn a_reader_wakes_once_it_has_enough() {
        let point = CommitPoint::new(0);
        let reader = ReadWaiter::new(150);
        point.register(&reader);
        point.appended(10, 100, false);
        point.advance(10);
        assert_eq!(point.waiting.lock().readers.len(), 1);
        point.appended(20, 100, false);
        point.advance(20);
        reader.woken().await;
        assert!(point.waiting.lock().readers.is_empty());
    }

    #[test]
    fn readers_that_went_away_are_forgotten() {
        let point = CommitPoint::new(0);
        for _ in 0..10_000 {
            point.register(&ReadWaiter::new(1));
        }
        assert!(point.waiting.lock().readers.capacity() < 64);
    }
}
