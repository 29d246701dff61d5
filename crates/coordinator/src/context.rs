//! What all parts of a shard share while they handle one event: the time, the limits, the deadlines, the open
//! appends and the effects collected so far.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::ids::TimestampMs;

use crate::answer::Answer;
use crate::append::{AppendId, KeyValue, PendingAppend};
use crate::config::GroupConfig;
use crate::group::Group;
use crate::member::{Member, PendingMember};
use crate::memory::{self, GroupMemory};
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
    pub(crate) memory: GroupMemory,
    pub(crate) now_ms: TimestampMs,
    pub(crate) timers: Timers,
    pub(crate) appends: BTreeMap<AppendId, PendingAppend>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) counters: Counters,
    last_append: AppendId,
}

impl Context {
    pub(crate) fn new(config: GroupConfig, memory: GroupMemory) -> Context {
        Context {
            config,
            memory,
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

    /// True unless so much is on its way to the log that clients should wait with more. Whatever follows from what was
    /// taken in already is appended all the same.
    pub(crate) fn may_append(&self) -> bool {
        self.memory.record_bytes() < self.config.max_memory_bytes
    }

    /// True if offsets may hold so many bytes more. Those that hold no more than before are never refused.
    pub(crate) fn may_hold(&self, more: usize) -> bool {
        more == 0 || self.memory.offset_bytes().saturating_add(more) <= self.config.max_memory_bytes
    }

    pub(crate) fn append(&mut self, records: Vec<KeyValue>, mut pending: PendingAppend) -> AppendId {
        pending.share = self.memory.records.share();
        pending.share.set(records.iter().map(KeyValue::bytes).sum());
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

    /// Lets an id that was handed out wait for its client. False, and nothing happens, if there is no room for it.
    pub(crate) fn start_pending_session(&mut self, group: &mut Group, id: Arc<str>, timeout_ms: i32) -> bool {
        let mut share = self.memory.members.share();
        if !share.try_set(memory::pending_member_bytes(&id), self.config.max_memory_bytes) {
            return false;
        }
        let mut session = Timer::default();
        let key = || TimerKey { group: group.id.clone(), kind: TimerKind::Member(id.clone()) };
        self.timers.schedule(&mut session, self.now_ms.saturating_add(timeout_ms.into()), key);
        group.pending_members.insert(id, PendingMember { session, _share: share });
        true
    }

    /// An empty group, whatever room there is: the log tells of it already.
    pub(crate) fn known_group(&self, id: Arc<str>, state_since_ms: Option<TimestampMs>) -> Group {
        let mut share = self.memory.groups.share();
        share.set(memory::group_bytes(&id));
        Group::new(id, state_since_ms, share)
    }

    /// A group that did not exist before; `None` if there is no room for it.
    pub(crate) fn new_group(&self, id: Arc<str>) -> Option<Group> {
        let mut share = self.memory.groups.share();
        let fits = share.try_set(memory::group_bytes(&id), self.config.max_memory_bytes);
        fits.then(|| Group::new(id, Some(self.now_ms), share))
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
