//! One partition this broker leads: the log, the producers that write to it, and the queue in front.
//!
//! Requests of many connections put their batches into the queue. The first that finds it without an
//! owner becomes the owner of the tail and appends all that has arrived, again and again until the
//! queue is empty, each time with one write; the others only wait for their answer. So a batch that
//! meets no other costs no hop, and many that meet share a write.
//!
//! Invariants: batches of one connection are appended in the order they were queued; whoever queued a
//! batch is answered exactly once; producer state and log change together under the tail.

mod prepare;
mod producers;

use std::sync::Arc;

use base::batch::HEADER_LEN;
use base::error::ErrorCode;
use base::ids::{LeaderEpoch, Offset, TimestampMs, TopicPartition};
use base::metrics::TopicMetrics;
use parking_lot::Mutex;
use replication::{
    Append, AppendError, CommitError, Committed, Log, StorageError, TailGuard, TailState, Wait,
};
use tokio::sync::oneshot;

pub(crate) use prepare::{Prepared, internal, produced};
pub(crate) use producers::Producers;
use producers::{Remembered, Verdict};

/// A batch that is in the log, maybe not committed yet.
#[derive(Debug)]
pub(crate) struct Appended {
    /// Offset of its first record.
    pub(crate) base_offset: Offset,
    /// The broker's time if the topic stamps it, else -1.
    pub(crate) log_append_time_ms: TimestampMs,
    /// Present if the caller asked to wait.
    pub(crate) committed: Option<Committed>,
}

/// Why a batch was not appended.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AppendFailure {
    /// The producer's epoch or sequence does not fit.
    #[error("{0}")]
    Producer(ErrorCode),
    /// The log does not take it.
    #[error(transparent)]
    Log(#[from] AppendError),
}

impl AppendFailure {
    /// What the client hears.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            AppendFailure::Producer(code) => *code,
            AppendFailure::Log(error) => append_code(error),
        }
    }
}

/// What a client hears when an append or its commit fails.
pub(crate) fn append_code(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::Storage(StorageError::SegmentFull) => ErrorCode::NotLeaderOrFollower,
        AppendError::Storage(_) | AppendError::Commit(CommitError::Storage(_)) => {
            ErrorCode::KafkaStorageError
        }
        AppendError::TooFewMembers { .. } => ErrorCode::NotEnoughReplicas,
        // Retriable: the next attempt edits the chain again, or finds the topic gone.
        AppendError::Chain(_) | AppendError::Closed | AppendError::Commit(CommitError::Closed) => {
            ErrorCode::NotLeaderOrFollower
        }
    }
}

/// As [`Partition::check_epoch`], of a partition whose leader leads in an epoch.
pub(crate) fn check_epoch(LeaderEpoch(current): LeaderEpoch, believed: i32) -> Result<(), ErrorCode> {
    match believed {
        -1 => Ok(()),
        older if older < current => Err(ErrorCode::FencedLeaderEpoch),
        newer if newer > current => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

struct Entry {
    batch: Prepared,
    wait: Wait,
    answer: oneshot::Sender<Result<Appended, AppendFailure>>,
}

#[derive(Default)]
struct Queue {
    entries: Vec<Entry>,
    /// Whether somebody is appending and will look again before leaving.
    owned: bool,
}

/// A partition. See the module's head.
pub(crate) struct Partition {
    /// Name of its topic.
    pub(crate) topic: Arc<str>,
    /// The log.
    pub(crate) log: Arc<Log<Producers>>,
    /// Traffic counters of its topic.
    pub(crate) metrics: TopicMetrics,
    queue: Mutex<Queue>,
}

impl Partition {
    pub(crate) fn new(topic: Arc<str>, log: Arc<Log<Producers>>, metrics: TopicMetrics) -> Arc<Partition> {
        Arc::new(Partition { topic, log, metrics, queue: Mutex::default() })
    }

    /// Whose it is.
    pub(crate) fn id(&self) -> TopicPartition {
        self.log.partition()
    }

    /// Checks the epoch a client believes current (KIP-320); -1 is not checked.
    ///
    /// # Errors
    /// `FENCED_LEADER_EPOCH` for an older, `UNKNOWN_LEADER_EPOCH` for a newer one.
    pub(crate) fn check_epoch(&self, believed: i32) -> Result<(), ErrorCode> {
        check_epoch(self.log.leader_epoch(), believed)
    }

    /// Whether fewer members of the open segment answer than must hold a record (`min.insync.replicas`).
    pub(crate) fn has_too_few_copies(&self) -> bool {
        let wanted = usize::try_from(self.log.settings().min_insync_replicas).unwrap_or(1);
        if wanted < 2 {
            return false;
        }
        let (_, in_sync) = self.log.in_sync();
        in_sync < wanted.min(self.log.state().placement.len())
    }

    /// Queues a batch; it is in the queue, in order, when this returns. The answer comes once it is in
    /// the log. It carries a [`Committed`] for what `wait` says.
    pub(crate) fn append(
        self: &Arc<Self>,
        batch: Prepared,
        wait: Wait,
    ) -> oneshot::Receiver<Result<Appended, AppendFailure>> {
        let (answer, receiver) = oneshot::channel();
        let owner = {
            let mut queue = self.queue.lock();
            queue.entries.push(Entry { batch, wait, answer });
            !std::mem::replace(&mut queue.owned, true)
        };
        if owner {
            self.own();
        }
        receiver
    }

    /// Works as the owner until the queue is empty. Where the chain must be edited first, a task of its
    /// own goes on as the owner, so that a client that hangs up leaves no queue without one.
    fn own(self: &Arc<Self>) {
        loop {
            match self.log.tail() {
                TailState::Ready(mut tail) => {
                    let entries = std::mem::take(&mut self.queue.lock().entries);
                    self.append_all(&mut tail, entries);
                    tail.release();
                }
                TailState::NeedsEdit => {
                    let partition = self.clone();
                    tokio::spawn(async move {
                        match partition.log.edit_tail().await {
                            Ok(()) => {}
                            Err(error) => partition.refuse_all(&error),
                        }
                        if partition.has_work() {
                            partition.own();
                        }
                    });
                    return;
                }
                TailState::Refused(error) => self.refuse_all(&error),
            }
            if !self.has_work() {
                return;
            }
        }
    }

    /// Whether the owner has more to do; otherwise it is the owner no longer.
    fn has_work(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.owned = !queue.entries.is_empty();
        queue.owned
    }

    fn refuse_all(&self, error: &AppendError) {
        let entries = std::mem::take(&mut self.queue.lock().entries);
        for entry in entries {
            // Who asked may have gone away; then nobody wants the answer.
            let _ = entry.answer.send(Err(AppendFailure::Log(error.clone())));
        }
    }

    fn append_all(&self, tail: &mut TailGuard<'_, Producers>, entries: Vec<Entry>) {
        let now_ms = self.log.now_ms();
        let mut offset = tail.next_offset();
        let epoch = tail.leader_epoch();
        let mut accepted = Vec::with_capacity(entries.len());
        let mut undo = Vec::new();
        let mut repeated = Vec::new();
        for entry in entries {
            if let Some(producer) = &entry.batch.producer {
                match tail.derived().judge(producer) {
                    Err(code) => {
                        let _ = entry.answer.send(Err(AppendFailure::Producer(code)));
                        continue;
                    }
                    Ok(Verdict::Duplicate(old)) => {
                        // A retry that came together with its original waits for what becomes of that.
                        if old.last_offset >= tail.next_offset() {
                            repeated.push((entry, old));
                        } else {
                            self.answer_repeated(entry, old);
                        }
                        continue;
                    }
                    Ok(Verdict::New) => {
                        let last_offset = offset + Offset::from(producer.offset_delta);
                        undo.push(tail.derived().record(producer, last_offset, now_ms));
                    }
                }
            }
            accepted.push((entry, offset));
            offset += accepted.last().map_or(0, |(entry, _)| entry.batch.offset_count());
        }
        if accepted.is_empty() {
            return;
        }
        let appends: Vec<_> = accepted
            .iter()
            .map(|(entry, base)| Append {
                header: entry.batch.stamped(*base, epoch),
                rest: entry.batch.rest(),
                next_offset: base + entry.batch.offset_count(),
                wait: entry.wait,
            })
            .collect();
        let result = tail.append(&appends);
        drop(appends);
        match result {
            Ok(commits) => {
                self.answer_appended(accepted, commits);
                repeated.into_iter().for_each(|(entry, old)| self.answer_repeated(entry, old));
            }
            Err(error) => {
                undo.into_iter().rev().for_each(|undo| tail.derived().undo(undo));
                let refused = accepted.into_iter().map(|(entry, _)| entry);
                for entry in refused.chain(repeated.into_iter().map(|(entry, _)| entry)) {
                    let _ = entry.answer.send(Err(AppendFailure::Log(error.clone())));
                }
            }
        }
    }

    /// Answers a retry with what its original was given. Nobody knows any more how far that was written, so it waits until
    /// it is committed.
    fn answer_repeated(&self, entry: Entry, old: Remembered) {
        let committed = (entry.wait != Wait::No).then(|| self.log.committed(old.last_offset + 1));
        let log_append_time_ms = entry.batch.log_append_time_ms;
        let _ =
            entry.answer.send(Ok(Appended { base_offset: old.base_offset(), log_append_time_ms, committed }));
    }

    fn answer_appended(&self, accepted: Vec<(Entry, Offset)>, commits: Vec<Option<Committed>>) {
        for ((entry, base_offset), committed) in accepted.into_iter().zip(commits) {
            debug_assert!(entry.batch.size() >= HEADER_LEN, "a batch has a header");
            let log_append_time_ms = entry.batch.log_append_time_ms;
            let _ = entry.answer.send(Ok(Appended { base_offset, log_append_time_ms, committed }));
        }
    }
}
