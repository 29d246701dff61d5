//! One shard at work: the pure machine, the requests that wait for it, its clock and its log.
//!
//! Every event is one step under one lock: the machine gives effects, and they are carried out before the next step, in
//! their order. An append is queued at its partition within the step, so records stand in the log in the
//! order in which the machine made them; whether they got there is the event of a later step.
//!
//! Invariant: whoever asked is answered or, when the shard ends, told so by a closed channel.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use base::batch::BatchBuilder;
use base::env::{BoxFuture, Env};
use base::error::ErrorCode;
use base::ids::{TimestampMs, TopicId};
use base::metrics::NodeMetrics;
use bytes::Bytes;
use coordinator::{
    Answer, AppendId, Counters, Effect, GroupMemory, GroupShard, GroupSummary, KeyValue, Request, Token,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::clock::SteadyClock;

/// Where a shard's records go.
pub(super) trait GroupLog: Send + Sync {
    /// Queues a batch behind all earlier ones before it returns. Completes when the batch is committed.
    fn append(&self, batch: Bytes) -> BoxFuture<'static, Result<(), Lost>>;
}

/// What became of a batch that is not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It is not in the log and never will be.
    Refused(ErrorCode),
    /// It may be in the log, of which nothing more can be known in this life.
    Unknown(ErrorCode),
}

/// What a shard is made with.
pub(super) struct ShardSpec {
    pub(super) env: Env,
    pub(super) clock: SteadyClock,
    pub(super) log: Box<dyn GroupLog>,
    pub(super) metrics: NodeMetrics,
    /// How long an append may take before clients are told that it takes too long.
    pub(super) commit_timeout: Duration,
}

/// See the module's head.
pub(super) struct Shard {
    spec: ShardSpec,
    state: Mutex<State>,
    /// The next deadline came nearer, or the shard has ended.
    timer_moved: Arc<Notify>,
}

struct State {
    /// `None` once the shard has ended.
    machine: Option<GroupShard>,
    waiting: HashMap<Token, oneshot::Sender<Answer>>,
    last_token: u64,
    /// The deadline that the timer task sleeps for.
    armed_ms: Option<TimestampMs>,
    counted: Counters,
}

impl Shard {
    /// Lets a machine that was filled from the log begin.
    pub(super) fn start(spec: ShardSpec, machine: GroupShard) -> Arc<Shard> {
        let state = State {
            machine: Some(machine),
            waiting: HashMap::new(),
            last_token: 0,
            armed_ms: None,
            counted: Counters::default(),
        };
        let shard = Arc::new(Shard { spec, state: Mutex::new(state), timer_moved: Arc::default() });
        shard.step(|machine, now_ms| machine.finish_loading(now_ms));
        tokio::spawn(keep_time(Arc::downgrade(&shard), shard.timer_moved.clone()));
        shard
    }

    /// Hands a request to the machine.
    pub(super) fn ask(self: &Arc<Self>, request: Request) -> Asked {
        let (sender, answer) = oneshot::channel();
        let joins = match &request {
            Request::Join(join) => Some(join.group_id.clone()),
            _ => None,
        };
        let mut state = self.state.lock();
        state.last_token += 1;
        let token = Token(state.last_token);
        if state.machine.is_some() {
            state.waiting.insert(token, sender);
            self.step_locked(&mut state, |machine, now_ms| machine.request(token, request, now_ms));
        }
        Asked { answer, joins: joins.map(|group| (self.clone(), group, token)) }
    }

    /// Drops the offsets of deleted topics.
    pub(super) fn topics_deleted(self: &Arc<Self>, topics: &[(String, TopicId)]) {
        self.step(|machine, now_ms| machine.topics_deleted(topics, now_ms));
    }

    /// Ends the shard; whoever waits is sent to look for the coordinator again.
    pub(super) fn resign(&self) {
        let mut state = self.state.lock();
        if let Some(machine) = state.machine.take() {
            let memory = machine.memory().clone();
            let effects = machine.resign();
            self.show_memory(&memory);
            for effect in effects {
                if let Effect::Reply { token, answer } = effect {
                    state.reply(token, answer);
                }
            }
            state.waiting.clear();
            self.timer_moved.notify_one();
        }
    }

    /// Its groups with their committed offsets.
    pub(super) fn summaries(&self) -> Vec<GroupSummary> {
        self.state.lock().machine.as_ref().map(GroupShard::summaries).unwrap_or_default()
    }

    fn now_ms(&self) -> TimestampMs {
        self.spec.clock.now_ms(&*self.spec.env.clock)
    }

    fn step(self: &Arc<Self>, event: impl FnOnce(&mut GroupShard, TimestampMs) -> Vec<Effect>) {
        self.step_locked(&mut self.state.lock(), event);
    }

    fn step_locked(
        self: &Arc<Self>,
        state: &mut State,
        event: impl FnOnce(&mut GroupShard, TimestampMs) -> Vec<Effect>,
    ) {
        let now_ms = self.now_ms();
        let Some(machine) = state.machine.as_mut() else { return };
        let mut effects = VecDeque::from(event(machine, now_ms));
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Reply { token, answer } => state.reply(token, answer),
                Effect::Append { id, records } => {
                    if let Err(code) = self.append(id, &records, now_ms)
                        && let Some(machine) = state.machine.as_mut()
                    {
                        effects.extend(machine.append_failed(id, code, now_ms));
                    }
                }
            }
        }
        self.count(state);
        self.arm(state);
    }

    /// Queues the records of an append and sees to it that their fate comes back.
    fn append(
        self: &Arc<Self>,
        id: AppendId,
        records: &[KeyValue],
        now_ms: TimestampMs,
    ) -> Result<(), ErrorCode> {
        let mut batch = BatchBuilder::new();
        for record in records {
            batch.append(now_ms, Some(&record.key), record.value.as_deref());
        }
        let batch = batch.finish().map_err(|error| {
            tracing::error!(%error, "the records of a group make no batch");
            ErrorCode::RecordListTooLarge
        })?;
        let mut committed = self.spec.log.append(Bytes::from(batch));
        let shard = self.clone();
        tokio::spawn(async move {
            let timeout = shard.spec.env.clock.sleep(shard.spec.commit_timeout);
            let outcome = tokio::select! {
                biased;
                outcome = &mut committed => outcome,
                () = timeout => {
                    shard.step(|machine, now_ms| machine.append_timed_out(id, now_ms));
                    committed.await
                }
            };
            shard.decided(id, outcome);
        });
        Ok(())
    }

    fn decided(self: &Arc<Self>, id: AppendId, outcome: Result<(), Lost>) {
        match outcome {
            Ok(()) => self.step(|machine, now_ms| machine.append_succeeded(id, now_ms)),
            Err(Lost::Refused(code)) => self.step(|machine, now_ms| machine.append_failed(id, code, now_ms)),
            Err(Lost::Unknown(code)) => {
                // Going on would mean to guess: only the log knows, and it is read at the next start.
                tracing::error!(%code, "the log of groups failed: they are not served until it is opened again");
                self.resign();
            }
        }
    }

    fn count(&self, state: &mut State) {
        let Some(machine) = &state.machine else { return };
        self.show_memory(machine.memory());
        let now = machine.counters();
        let before = std::mem::replace(&mut state.counted, now);
        if now != before {
            let metrics = &self.spec.metrics;
            metrics.rebalances.inc_by(now.completed_rebalances - before.completed_rebalances);
            metrics.offset_commits.inc_by(now.offset_commits - before.offset_commits);
            metrics.offset_expirations.inc_by(now.offset_expirations - before.offset_expirations);
        }
    }

    fn show_memory(&self, memory: &GroupMemory) {
        let bytes = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.spec.metrics.group_member_bytes.set(bytes(memory.member_bytes()));
        self.spec.metrics.group_bytes.set(bytes(memory.group_bytes()));
        self.spec.metrics.group_offset_bytes.set(bytes(memory.offset_bytes()));
    }

    /// Wakes the timer task if it would sleep too long. Deadlines that move away, as they do at every
    /// heartbeat, let it sleep.
    fn arm(&self, state: &mut State) {
        let next_ms = state.machine.as_mut().and_then(GroupShard::next_deadline);
        let is_nearer = match (next_ms, state.armed_ms) {
            (Some(next_ms), Some(armed_ms)) => next_ms < armed_ms,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_nearer {
            state.armed_ms = next_ms;
            self.timer_moved.notify_one();
        }
    }

    /// Handles the deadlines that have come. Returns when to look again; the inner `None` is "when told", the outer
    /// "never".
    fn tick(self: &Arc<Self>) -> Option<Option<Duration>> {
        let mut state = self.state.lock();
        let now_ms = self.now_ms();
        state.armed_ms = None;
        if state.machine.as_mut()?.next_deadline().is_some_and(|deadline_ms| deadline_ms <= now_ms) {
            self.step_locked(&mut state, |machine, now_ms| machine.tick(now_ms));
        }
        state.armed_ms = state.machine.as_mut()?.next_deadline();
        Some(state.armed_ms.map(|deadline_ms| self.spec.clock.when(deadline_ms)))
    }
}

impl State {
    fn reply(&mut self, token: Token, answer: Answer) {
        if let Some(sender) = self.waiting.remove(&token) {
            // A client that has gone does not want it.
            let _ = sender.send(answer);
        }
    }
}

/// The answer to a request, once it is there; an error when the shard has ended. Who drops it without having taken
/// the answer goes: with a JoinGroup goes the member that it was to make.
pub(super) struct Asked {
    answer: oneshot::Receiver<Answer>,
    /// For a JoinGroup until it is answered: its shard, its group and its token.
    joins: Option<(Arc<Shard>, String, Token)>,
}

impl Future for Asked {
    type Output = Result<Answer, oneshot::error::RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(context));
        self.joins = None;
        Poll::Ready(answer)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some((shard, group, token)) = self.joins.take() {
            shard.step(|machine, now_ms| machine.client_gone(&group, token, now_ms));
        }
    }
}

/// Ticks a shard at its deadlines, as long as there is one.
async fn keep_time(shard: Weak<Shard>, moved: Arc<Notify>) {
    loop {
        let Some(strong) = shard.upgrade() else { return };
        let Some(deadline) = strong.tick() else { return };
        let sleep = deadline.map(|deadline| strong.spec.env.clock.sleep_until(deadline));
        drop(strong);
        match sleep {
            None => moved.notified().await,
            Some(sleep) => tokio::select! {
                biased;
                () = sleep => {}
                () = moved.notified() => {}
            },
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.timer_moved.notify_one();
    }
}
