//! What all parts of a shard share while they handle one event: the time, the limits, the deadlines, the open
//! appends and the effects collected so far.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::ids::TimestampMs;

use crate::answer::Answer;
use crate::append::{AppendId, KeyValue, PendingAppend};
use crate::config::GroupConfig;
use crate::group::{Group, Member};
use crate::request::Token;
use crate::timer::{Timer, TimerKey, TimerKind, Timers};

/// What the caller must do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Answer a request.
    Reply {
        /// Which one.
        token: Token,
        /// With what.
        answer: Answer,
    },
    /// Append these records to the shard's partition, as one batch, after those of every earlier append, and
    /// report the outcome by [`append_succeeded`](crate::GroupShard::append_succeeded) or
    /// [`append_failed`](crate::GroupShard::append_failed).
    Append {
        /// Its number.
        id: AppendId,
        /// The records; at least one.
        records: Vec<KeyValue>,
    },
}

/// How often things happened since the shard was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Generations that became stable.
    pub completed_rebalances: u64,
    /// Offsets committed by clients.
    pub offset_commits: u64,
    /// Offsets removed because their time was over.
    pub offset_expirations: u64,
    /// Offsets removed on request.
    pub offset_deletions: u64,
}

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: GroupConfig,
    pub(crate) now_ms: TimestampMs,
    pub(crate) timers: Timers,
    pub(crate) appends: BTreeMap<AppendId, PendingAppend>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) counters: Counters,
    last_append: AppendId,
}

impl Context {
    pub(crate) fn new(config: GroupConfig) -> Context {
        Context {
            config,
            now_ms: 0,
            timers: Timers::default(),
            appends: BTreeMap::new(),
            effects: Vec::new(),
            counters: Counters::default(),
            last_append: AppendId::default(),
        }
    }

    pub(crate) fn reply(&mut self, token: Token, answer: Answer) {
        self.effects.push(Effect::Reply { token, answer });
    }

    /// The number the next append will have.
    pub(crate) fn next_append(&self) -> AppendId {
        AppendId(self.last_append.0 + 1)
    }

    pub(crate) fn append(&mut self, records: Vec<KeyValue>, pending: PendingAppend) -> AppendId {
        let id = self.next_append();
        self.last_append = id;
        self.appends.insert(id, pending);
        self.effects.push(Effect::Append { id, records });
        id
    }

    /// Gives a member its session anew.
    pub(crate) fn restart_session(&mut self, group: &Arc<str>, member: &mut Member) {
        let timeout_ms = member.session_timeout_ms;
        self.restart_session_for(group, member, timeout_ms);
    }

    /// Lets a member be silent for `timeout_ms` from now.
    pub(crate) fn restart_session_for(&mut self, group: &Arc<str>, member: &mut Member, timeout_ms: i32) {
        let id = &member.id;
        let key = || TimerKey { group: group.clone(), kind: TimerKind::Member(id.clone()) };
        self.timers.schedule(&mut member.session, self.now_ms.saturating_add(timeout_ms.into()), key);
    }

    /// Lets an id that was handed out wait for its client.
    pub(crate) fn start_pending_session(&mut self, group: &mut Group, id: Arc<str>, timeout_ms: i32) {
        let mut timer = Timer::default();
        let key = || TimerKey { group: group.id.clone(), kind: TimerKind::Member(id.clone()) };
        self.timers.schedule(&mut timer, self.now_ms.saturating_add(timeout_ms.into()), key);
        group.pending_members.insert(id, timer);
    }

    /// Sets the end of the join phase.
    pub(crate) fn start_join_timer(&mut self, group: &mut Group, timeout_ms: i32) {
        let key = || TimerKey { group: group.id.clone(), kind: TimerKind::Join };
        let at_ms = self.now_ms.saturating_add(timeout_ms.into());
        self.timers.schedule(&mut group.join_timer, at_ms, key);
    }

    /// Sets the end of the sync phase.
    pub(crate) fn start_sync_timer(&mut self, group: &mut Group, timeout_ms: i32) {
        let key = || TimerKey { group: group.id.clone(), kind: TimerKind::Sync };
        let at_ms = self.now_ms.saturating_add(timeout_ms.into());
        self.timers.schedule(&mut group.sync_timer, at_ms, key);
    }
}
