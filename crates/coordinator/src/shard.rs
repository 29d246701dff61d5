//! One shard: the groups of one partition of `__consumer_offsets`, as a state machine.
//!
//! Events go in with the time, effects come out; nothing else happens. The caller appends records in the order given,
//! reports each append's outcome, answers requests when told to, and calls [`GroupShard::tick`] when
//! [`GroupShard::next_deadline`] has come. A shard lives as long as the partition's leadership: it is filled
//! from the log at its beginning and ended by [`GroupShard::resign`].
//!
//! Invariants: every token is answered exactly once; what clients read of offsets is in the log; whatever the
//! outcome of appends, a new shard filled from the log comes to the same offsets and stable groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::error::ErrorCode;
use base::ids::{TimestampMs, TopicId};

use crate::admin_api;
use crate::answer::{
    Answer, JoinAnswer, LeaveAnswer, LeftMember, OffsetDeleteAnswer, OffsetFetchAnswer, SyncAnswer,
};
use crate::append::{AppendId, Outcome, PendingAppend, append_error};
use crate::config::GroupConfig;
use crate::context::{Context, Counters, Effect};
use crate::group::{Group, GroupState};
use crate::join;
use crate::member_api;
use crate::memory::GroupMemory;
use crate::offset_api::{self, Changes};
use crate::offsets::OffsetStore;
use crate::rebalance;
use crate::record::{self, MAX_STRING_BYTES};
use crate::request::{
    HeartbeatRequest, JoinRequest, LeaveRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, Request, SyncRequest, Token,
};
use crate::timer::{Due, Timer, TimerKey, TimerKind};

/// From here on committing to an unknown group says so.
const FIRST_COMMIT_VERSION_WITH_GROUP_NOT_FOUND: i16 = 9;

/// An OffsetFetch that waits until the appends up to one are decided.
#[derive(Debug)]
struct ParkedFetch {
    token: Token,
    request: OffsetFetchRequest,
    until: AppendId,
}

/// A DeleteGroups that waits for the appends of its groups.
#[derive(Debug)]
struct DeletionJob {
    token: Token,
    results: Vec<(String, ErrorCode)>,
    open_appends: usize,
}

/// How many groups of each state a shard holds, and how many committed offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSize {
    /// Groups without members.
    pub empty_groups: usize,
    /// Groups that wait for their members.
    pub preparing_groups: usize,
    /// Groups that wait for their assignment.
    pub completing_groups: usize,
    /// Groups at work.
    pub stable_groups: usize,
    /// Committed offsets over all groups.
    pub offsets: usize,
}

/// A group at one moment, for metrics.
#[derive(Clone, Debug)]
pub struct GroupSummary {
    /// Its id.
    pub id: Arc<str>,
    /// Kafka's name of its state.
    pub state: &'static str,
    /// How many members it has.
    pub members: usize,
    /// Topic, partition and committed offset.
    pub offsets: Vec<(Arc<str>, i32, i64)>,
}

/// The groups of one partition of the offsets topic.
#[derive(Debug)]
pub struct GroupShard {
    pub(crate) context: Context,
    pub(crate) groups: BTreeMap<Arc<str>, Group>,
    pub(crate) offsets: OffsetStore,
    parked_fetches: Vec<ParkedFetch>,
    deletion_jobs: BTreeMap<u64, DeletionJob>,
    next_job: u64,
    pub(crate) expiry_timer: Timer,
}

impl GroupShard {
    /// A shard without groups. Fill it by [`GroupShard::replay`], then call [`GroupShard::finish_loading`].
    pub fn new(config: GroupConfig) -> GroupShard {
        GroupShard::sharing(config, GroupMemory::default())
    }

    /// A shard without groups that counts what it holds together with others.
    pub fn sharing(config: GroupConfig, memory: GroupMemory) -> GroupShard {
        let offsets = OffsetStore::new(memory.offsets.share());
        GroupShard {
            context: Context::new(config, memory),
            groups: BTreeMap::new(),
            offsets,
            parked_fetches: Vec::new(),
            deletion_jobs: BTreeMap::new(),
            next_job: 0,
            expiry_timer: Timer::default(),
        }
    }

    /// Replaces the settings; what is under way keeps its deadlines.
    pub fn set_config(&mut self, config: GroupConfig) {
        self.context.config = config;
    }

    /// What this shard and those it shares its counters with hold.
    pub fn memory(&self) -> &GroupMemory {
        &self.context.memory
    }

    /// How often things happened since the shard was made.
    pub fn counters(&self) -> Counters {
        self.context.counters
    }

    /// What the shard holds, counted anew at each call.
    pub fn size(&self) -> ShardSize {
        let mut size = ShardSize { offsets: self.offsets.committed_count(), ..ShardSize::default() };
        for group in self.groups.values() {
            let count = match group.state {
                GroupState::Empty => &mut size.empty_groups,
                GroupState::PreparingRebalance => &mut size.preparing_groups,
                GroupState::CompletingRebalance => &mut size.completing_groups,
                GroupState::Stable => &mut size.stable_groups,
            };
            *count += 1;
        }
        size
    }

    /// The groups with their committed offsets.
    pub fn summaries(&self) -> Vec<GroupSummary> {
        let summary = |group: &Group| {
            let slots = self.offsets.group(&group.id).into_iter().flat_map(|offsets| offsets.slots());
            let offsets = slots.filter_map(|(topic, partition, slot)| {
                Some((topic.clone(), partition, slot.committed()?.offset))
            });
            GroupSummary {
                id: group.id.clone(),
                state: group.state.name(),
                members: group.members.len(),
                offsets: offsets.collect(),
            }
        };
        self.groups.values().map(summary).collect()
    }

    /// Handles a request. Its answer is among the effects of this call or of a later one.
    pub fn request(&mut self, token: Token, request: Request, now_ms: TimestampMs) -> Vec<Effect> {
        self.context.now_ms = now_ms;
        match request {
            Request::Join(request) => self.join(token, request),
            Request::Sync(request) => self.sync(token, request),
            Request::Heartbeat(request) => self.heartbeat(token, &request),
            Request::Leave(request) => self.leave(token, request),
            Request::OffsetCommit(request) => self.offset_commit(token, request),
            Request::OffsetFetch(request) => self.offset_fetch(token, request),
            Request::OffsetDelete(request) => self.offset_delete(token, &request),
            Request::DeleteGroups { groups } => self.delete_groups(token, groups),
            Request::DescribeGroups { groups, api_version } => {
                let described = groups.into_iter().map(|id| match self.groups.get(id.as_str()) {
                    Some(group) => admin_api::describe(group),
                    None => admin_api::describe_unknown(id, api_version),
                });
                let answer = Answer::DescribeGroups(described.collect());
                self.context.reply(token, answer);
            }
            Request::ListGroups(request) => {
                let answer = Answer::ListGroups(admin_api::list(self.groups.values(), &request));
                self.context.reply(token, answer);
            }
        }
        self.finish()
    }

    /// The client that waits for the answer to a JoinGroup has gone before it could be given.
    pub fn client_gone(&mut self, group: &str, token: Token, now_ms: TimestampMs) -> Vec<Effect> {
        self.context.now_ms = now_ms;
        if let Some(group) = self.groups.get_mut(group) {
            let id = group.id.clone();
            member_api::client_gone(&mut self.context, group, token);
            self.keep_group_fit(&id);
        }
        self.finish()
    }

    /// Removes the offsets of deleted topics, given by name and id.
    pub fn topics_deleted(&mut self, topics: &[(String, TopicId)], now_ms: TimestampMs) -> Vec<Effect> {
        self.context.now_ms = now_ms;
        let deleted: BTreeMap<&str, TopicId> = topics.iter().map(|(name, id)| (name.as_str(), *id)).collect();
        let of_group = |(group, offsets): (&Arc<str>, _)| {
            (group.clone(), offset_api::of_deleted_topics(offsets, &deleted))
        };
        let changes: Vec<(Arc<str>, Changes)> = self.offsets.groups().map(of_group).collect();
        for (group, changes) in changes {
            self.context.counters.offset_deletions += changes.len() as u64;
            self.append_changes_in_parts(&group, changes);
        }
        self.finish()
    }

    /// When [`GroupShard::tick`] must be called next.
    pub fn next_deadline(&mut self) -> Option<TimestampMs> {
        loop {
            let (at_ms, key) = self.context.timers.first()?;
            let timer = find_timer(&mut self.groups, &mut self.expiry_timer, key);
            if self.context.timers.first_is_exact(timer.as_deref()) {
                return Some(at_ms);
            }
            let key = key.clone();
            let timer = find_timer(&mut self.groups, &mut self.expiry_timer, &key);
            self.context.timers.take_first(timer);
        }
    }

    /// Handles every deadline that has come.
    pub fn tick(&mut self, now_ms: TimestampMs) -> Vec<Effect> {
        self.context.now_ms = now_ms;
        self.finish()
    }

    /// The records of an append are in the log and will stay there.
    pub fn append_succeeded(&mut self, id: AppendId, now_ms: TimestampMs) -> Vec<Effect> {
        self.context.now_ms = now_ms;
        if let Some(mut pending) = self.context.appends.remove(&id) {
            self.offsets.decide(&pending.group, &pending.offsets, id, true);
            let outcome = std::mem::take(&mut pending.outcome);
            match (outcome, self.groups.get_mut(&pending.group)) {
                (Outcome::Assignment(assignment), Some(group)) => {
                    member_api::assignment_stored(&mut self.context, group, id, assignment);
                }
                (Outcome::StaticMember(change), Some(group)) => {
                    join::static_member_stored(&mut self.context, group, &change);
                }
                (Outcome::Deletion { job, .. }, _) => {
                    self.deletion_part_done(job, ErrorCode::None);
                    // Offsets of a part that failed are still there.
                    self.keep_group_fit(&pending.group);
                }
                _ => {}
            }
            for (token, answer) in pending.answers {
                self.context.reply(token, answer);
            }
            self.answer_parked_fetches();
        }
        self.finish()
    }

    /// The records of an append are not in the log and never will be.
    pub fn append_failed(&mut self, id: AppendId, error: ErrorCode, now_ms: TimestampMs) -> Vec<Effect> {
        self.context.now_ms = now_ms;
        if let Some(mut pending) = self.context.appends.remove(&id) {
            let error = append_error(error);
            tracing::warn!(group = %pending.group, %error, "records of a group could not be stored");
            self.offsets.decide(&pending.group, &pending.offsets, id, false);
            let outcome = std::mem::take(&mut pending.outcome);
            match (outcome, self.groups.get_mut(&pending.group)) {
                (Outcome::Assignment(_), Some(group)) => {
                    member_api::assignment_not_stored(&mut self.context, group, id, error);
                }
                (Outcome::StaticMember(change), Some(group)) => {
                    join::static_member_not_stored(&mut self.context, group, &change, error);
                }
                (Outcome::Deletion { job, group }, _) => {
                    if let Some(group) = group {
                        self.take_group_back(group);
                    }
                    self.deletion_part_done(job, error);
                }
                _ => {}
            }
            self.keep_group_fit(&pending.group);
            fail_answers(&mut self.context, &mut pending, error);
            self.answer_parked_fetches();
        }
        self.finish()
    }

    /// The records of an append may or may not be in the log: the caller's time to wait is over. Clients are told so;
    /// the append stays open until its outcome is reported.
    pub fn append_timed_out(&mut self, id: AppendId, now_ms: TimestampMs) -> Vec<Effect> {
        self.context.now_ms = now_ms;
        let error = append_error(ErrorCode::RequestTimedOut);
        if let Some(mut pending) = self.context.appends.remove(&id) {
            pending.timed_out = true;
            fail_answers(&mut self.context, &mut pending, error);
            match (&mut pending.outcome, self.groups.get_mut(&pending.group)) {
                (Outcome::Assignment(_), Some(group)) if group.assignment_append == Some(id) => {
                    rebalance::answer_syncs(&mut self.context, group, error);
                }
                (Outcome::StaticMember(change), Some(group)) => {
                    join::answer_static_member_error(&mut self.context, group, change, error);
                }
                (Outcome::Deletion { job, .. }, _) => {
                    let job = job.take();
                    self.deletion_part_done(job, error);
                }
                _ => {}
            }
            self.context.appends.insert(id, pending);
            self.answer_parked_fetches();
        }
        self.finish()
    }

    /// Ends the shard because another broker leads the partition now: everyone who waits is sent there.
    pub fn resign(mut self) -> Vec<Effect> {
        let error = ErrorCode::NotCoordinator;
        for pending in std::mem::take(&mut self.context.appends).values_mut() {
            fail_answers(&mut self.context, pending, error);
        }
        for parked in std::mem::take(&mut self.parked_fetches) {
            let answer = OffsetFetchAnswer { error, topics: Vec::new() };
            self.context.reply(parked.token, Answer::OffsetFetch(answer));
        }
        for job in std::mem::take(&mut self.deletion_jobs).into_values() {
            let mut answer = Answer::DeleteGroups(job.results);
            answer.fail(error);
            self.context.reply(job.token, answer);
        }
        for member in self.groups.values_mut().flat_map(|group| group.members.values_mut()) {
            if let Some(token) = member.parked_join.take() {
                self.context.reply(token, Answer::Join(JoinAnswer::error(error, &*member.id)));
            }
            if let Some(token) = member.parked_sync.take() {
                self.context.reply(token, Answer::Sync(SyncAnswer::error(error)));
            }
        }
        self.context.effects
    }

    /// Looks for a broken invariant, for tests and simulations. Costs time in proportion to what the shard holds.
    ///
    /// # Errors
    /// The invariant, in words.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.groups.values().try_for_each(Group::check)?;
        self.offsets.check()?;
        match self
            .offsets
            .groups()
            .find(|(id, _)| !self.groups.contains_key(*id) && !self.is_being_deleted(id))
        {
            Some((id, _)) => Err(format!("group {id} has offsets but does not exist")),
            None => Ok(()),
        }
    }

    fn is_being_deleted(&self, group: &str) -> bool {
        self.context
            .appends
            .values()
            .any(|pending| &*pending.group == group && matches!(pending.outcome, Outcome::Deletion { .. }))
    }

    /// Runs what is due by now and hands out the effects. Deadlines come after the event, so that a member whose
    /// heartbeat arrives late, because the caller was late, is not put out.
    pub(crate) fn finish(&mut self) -> Vec<Effect> {
        let now_ms = self.context.now_ms;
        let (groups, expiry) = (&mut self.groups, &mut self.expiry_timer);
        self.context.timers.sweep(|key, at_ms| {
            find_timer(groups, expiry, key).is_some_and(|timer| timer.is_queued_at(at_ms))
        });
        while let Some((at_ms, key)) = self.context.timers.first() {
            if at_ms > now_ms {
                break;
            }
            let key = key.clone();
            let timer = find_timer(&mut self.groups, &mut self.expiry_timer, &key);
            if let Due::Fire(key) = self.context.timers.take_first(timer) {
                self.deadline(&key);
            }
        }
        std::mem::take(&mut self.context.effects)
    }

    fn deadline(&mut self, key: &TimerKey) {
        if key.kind == TimerKind::Expiry {
            self.expire();
            return;
        }
        let Some(group) = self.groups.get_mut(&key.group) else { return };
        match &key.kind {
            TimerKind::Join => {
                rebalance::join_deadline(&mut self.context, group);
            }
            TimerKind::Sync => {
                rebalance::sync_deadline(&mut self.context, group);
            }
            TimerKind::Member(member_id) => member_api::session_over(&mut self.context, group, member_id),
            TimerKind::Expiry => {}
        }
        self.keep_group_fit(&key.group);
    }

    fn join(&mut self, token: Token, mut request: JoinRequest) {
        if let Err(error) = join::check(&mut request, &self.context.config) {
            self.context.reply(token, Answer::Join(JoinAnswer::error(error, request.member_id)));
            return;
        }
        let is_known = self.groups.contains_key(request.group_id.as_str());
        if !is_known && !request.member_id.is_empty() {
            let answer = JoinAnswer::error(ErrorCode::UnknownMemberId, request.member_id);
            self.context.reply(token, Answer::Join(answer));
            return;
        }
        let group_id = self.interned(&request.group_id);
        self.make_group(&group_id);
        match self.groups.get_mut(&group_id) {
            Some(group) => {
                join::join(&mut self.context, group, token, request);
                self.keep_group_fit(&group_id);
            }
            None => {
                let answer = JoinAnswer::error(ErrorCode::CoordinatorLoadInProgress, "");
                self.context.reply(token, Answer::Join(answer));
            }
        }
    }

    /// Makes the group if it does not exist, unless there is no room for it.
    fn make_group(&mut self, id: &Arc<str>) {
        if self.groups.contains_key(id) || self.groups.len() >= self.context.config.max_groups {
            return;
        }
        if let Some(group) = self.context.new_group(id.clone()) {
            self.groups.insert(id.clone(), group);
        }
    }

    /// Forgets a group that holds nothing, and makes one where there are offsets without a group.
    pub(crate) fn keep_group_fit(&mut self, id: &Arc<str>) {
        let has_offsets = self.offsets.has_group(id);
        match self.groups.get(id) {
            Some(group) if group.is_hollow() && !has_offsets => {
                self.groups.remove(id);
            }
            None if has_offsets && !self.is_being_deleted(id) => {
                let group = self.context.known_group(id.clone(), Some(self.context.now_ms));
                self.groups.insert(id.clone(), group);
            }
            _ => {}
        }
    }

    fn sync(&mut self, token: Token, request: SyncRequest) {
        let error = match (member_api::check_sync(&request), self.groups.get_mut(request.group_id.as_str())) {
            (Ok(()), Some(group)) => {
                member_api::sync(&mut self.context, group, token, request);
                return;
            }
            (Ok(()), None) => ErrorCode::UnknownMemberId,
            (Err(error), _) => error,
        };
        self.context.reply(token, Answer::Sync(SyncAnswer::error(error)));
    }

    fn heartbeat(&mut self, token: Token, request: &HeartbeatRequest) {
        let error = match self.groups.get_mut(request.group_id.as_str()) {
            _ if request.group_id.is_empty() => ErrorCode::InvalidGroupId,
            Some(group) => member_api::heartbeat(&mut self.context, group, request),
            None => ErrorCode::UnknownMemberId,
        };
        self.context.reply(token, Answer::Heartbeat(error));
    }

    fn leave(&mut self, token: Token, request: LeaveRequest) {
        if request.group_id.is_empty() {
            let answer = LeaveAnswer { error: ErrorCode::InvalidGroupId, members: Vec::new() };
            self.context.reply(token, Answer::Leave(answer));
            return;
        }
        let Some(group) = self.groups.get_mut(request.group_id.as_str()) else {
            let unknown = |member: crate::request::LeavingMember| LeftMember {
                member_id: member.member_id,
                instance_id: member.instance_id,
                error: ErrorCode::UnknownMemberId,
            };
            let members = request.members.into_iter().map(unknown).collect();
            self.context.reply(token, Answer::Leave(LeaveAnswer { error: ErrorCode::None, members }));
            return;
        };
        let id = group.id.clone();
        member_api::leave(&mut self.context, group, token, request);
        self.keep_group_fit(&id);
    }

    fn offset_commit(&mut self, token: Token, request: OffsetCommitRequest) {
        if let Err(error) = self.check_commit(&request) {
            let answer = offset_api::commit_error(&request, error);
            self.context.reply(token, Answer::OffsetCommit(answer));
            return;
        }
        let group_id = self.interned(&request.group_id);
        if let Some(group) = self.groups.get_mut(&group_id)
            && matches!(group.state, GroupState::Stable | GroupState::PreparingRebalance)
        {
            member_api::keep_alive(&mut self.context, group, &request.member_id);
        }
        // A group of offsets alone, if nobody knew it yet.
        self.make_group(&group_id);
        let has_room = self.groups.contains_key(&group_id) && self.context.may_append();
        let error = offset_api::commit_error(&request, ErrorCode::CoordinatorLoadInProgress);
        let (changes, answer) = offset_api::commit(request, &self.context.config, self.context.now_ms);
        if !has_room || !self.context.may_hold(self.offsets.growth(&group_id, &changes)) {
            self.keep_group_fit(&group_id);
            self.context.reply(token, Answer::OffsetCommit(error));
            return;
        }
        if changes.is_empty() {
            self.keep_group_fit(&group_id);
        }
        self.context.counters.offset_commits += changes.len() as u64;
        self.append_changes(&group_id, changes, vec![(token, Answer::OffsetCommit(answer))]);
    }

    fn check_commit(&self, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
        if request.group_id.len() > MAX_STRING_BYTES {
            return Err(ErrorCode::InvalidGroupId);
        }
        match self.groups.get(request.group_id.as_str()) {
            Some(group) => offset_api::check_commit(group, request),
            None if request.generation < 0 => Ok(()),
            None if request.api_version >= FIRST_COMMIT_VERSION_WITH_GROUP_NOT_FOUND => {
                Err(ErrorCode::GroupIdNotFound)
            }
            None => Err(ErrorCode::IllegalGeneration),
        }
    }

    /// Appends changes to a group's offsets; `answers` follow once they are in the log, or at once if there are none.
    fn append_changes(&mut self, group: &Arc<str>, changes: Changes, answers: Vec<(Token, Answer)>) {
        if changes.is_empty() {
            answers.into_iter().for_each(|(token, answer)| self.context.reply(token, answer));
            return;
        }
        let records = offset_api::records(group, &changes);
        self.append_with_changes(group, records, changes, answers, Outcome::Plain);
    }

    fn append_with_changes(
        &mut self,
        group: &Arc<str>,
        records: Vec<crate::append::KeyValue>,
        changes: Changes,
        answers: Vec<(Token, Answer)>,
        outcome: Outcome,
    ) {
        let id = self.context.next_append();
        let mut offsets = Vec::with_capacity(changes.len());
        for (topic, partition, change) in changes {
            let place = (topic, partition);
            self.offsets.open(group, &place, id, change);
            offsets.push(place);
        }
        let pending =
            PendingAppend { group: group.clone(), offsets, answers, outcome, ..PendingAppend::default() };
        self.context.append(records, pending);
    }

    fn append_changes_in_parts(&mut self, group: &Arc<str>, changes: Changes) {
        for part in parts(group, changes, self.context.config.max_tombstone_bytes_per_append) {
            self.append_changes(group, part, Vec::new());
        }
    }

    fn offset_fetch(&mut self, token: Token, request: OffsetFetchRequest) {
        let offsets = self.offsets.group(&request.group_id);
        let last_open = offsets.and_then(|offsets| offsets.last_open()).filter(|_| request.require_stable);
        match last_open {
            Some(until) => {
                self.parked_fetches.push(ParkedFetch { token, request, until });
                // Those that have timed out are not waited for again.
                self.answer_parked_fetches();
            }
            None => {
                let answer = Answer::OffsetFetch(offset_api::fetch(offsets, &request, None));
                self.context.reply(token, answer);
            }
        }
    }

    /// Answers the fetches that wait for nothing any more. Where an append has timed out the offset stays unstable.
    fn answer_parked_fetches(&mut self) {
        let mut waiting = Vec::new();
        for parked in std::mem::take(&mut self.parked_fetches) {
            let offsets = self.offsets.group(&parked.request.group_id);
            let is_open = offsets.is_some_and(|offsets| offsets.is_open_up_to(parked.until));
            if is_open && !self.has_timed_out(&parked) {
                waiting.push(parked);
                continue;
            }
            let answer = Answer::OffsetFetch(offset_api::fetch(offsets, &parked.request, Some(parked.until)));
            self.context.reply(parked.token, answer);
        }
        self.parked_fetches = waiting;
    }

    fn has_timed_out(&self, parked: &ParkedFetch) -> bool {
        let mut before = self.context.appends.range(..=parked.until);
        before.any(|(_, pending)| pending.timed_out && *pending.group == *parked.request.group_id)
    }

    fn offset_delete(&mut self, token: Token, request: &OffsetDeleteRequest) {
        let refuse = |error| Answer::OffsetDelete(OffsetDeleteAnswer { error, topics: Vec::new() });
        if request.group_id.is_empty() {
            self.context.reply(token, refuse(ErrorCode::InvalidGroupId));
            return;
        }
        let Some(group) = self.groups.get(request.group_id.as_str()) else {
            self.context.reply(token, refuse(ErrorCode::GroupIdNotFound));
            return;
        };
        match offset_api::delete(group, self.offsets.group(&request.group_id), request) {
            Err(error) => self.context.reply(token, refuse(error)),
            Ok((changes, answer)) => {
                let id = group.id.clone();
                self.context.counters.offset_deletions += changes.len() as u64;
                self.append_changes(&id, changes, vec![(token, Answer::OffsetDelete(answer))]);
            }
        }
    }

    fn delete_groups(&mut self, token: Token, groups: Vec<String>) {
        self.next_job += 1;
        let job_id = self.next_job;
        let mut seen = BTreeSet::new();
        let ids: Vec<String> = groups.into_iter().filter(|id| seen.insert(id.clone())).collect();
        let mut job = DeletionJob { token, results: Vec::with_capacity(ids.len()), open_appends: 0 };
        for (index, id) in ids.into_iter().enumerate() {
            let error = match self.groups.get(id.as_str()) {
                None => ErrorCode::GroupIdNotFound,
                Some(group) if group.state != GroupState::Empty => ErrorCode::NonEmptyGroup,
                Some(group) => {
                    let group_id = group.id.clone();
                    let changes = offset_api::all(self.offsets.group(&id));
                    self.context.counters.offset_deletions += changes.len() as u64;
                    job.open_appends += self.remove_group(&group_id, changes, Some((job_id, index)));
                    ErrorCode::None
                }
            };
            job.results.push((id, error));
        }
        if job.open_appends == 0 {
            self.context.reply(token, Answer::DeleteGroups(job.results));
        } else {
            self.deletion_jobs.insert(job_id, job);
        }
    }

    /// Removes a group with its offsets: the offsets first, in as many appends as they need, the group with the last.
    /// It is gone for everyone at once and comes back if the last append fails. Returns the number of appends.
    fn remove_group(&mut self, id: &Arc<str>, changes: Changes, job: Option<(u64, usize)>) -> usize {
        let mut parts = parts(id, changes, self.context.config.max_tombstone_bytes_per_append);
        let last = parts.pop().unwrap_or_default();
        let count = parts.len() + 1;
        for part in parts {
            let records = offset_api::records(id, &part);
            self.append_with_changes(id, records, part, Vec::new(), Outcome::Deletion { job, group: None });
        }
        let mut records = offset_api::records(id, &last);
        records.push(record::group_tombstone(id));
        let mut group = self.groups.remove(id).map(Box::new);
        if let Some(group) = &mut group {
            group.put_aside();
        }
        self.append_with_changes(id, records, last, Vec::new(), Outcome::Deletion { job, group });
        count
    }

    /// A group could not be deleted, so the log still tells of it. If it is being deleted again, that decides;
    /// otherwise it takes the place of what was made under its name meanwhile, unless that has records of its own.
    fn take_group_back(&mut self, mut group: Box<Group>) {
        let later = self.context.appends.values_mut().find_map(|pending| match &mut pending.outcome {
            Outcome::Deletion { group: Some(later), .. } if later.id == group.id => Some(later),
            _ => None,
        });
        if let Some(later) = later {
            if later.is_unrecorded() {
                *later = group;
            }
            return;
        }
        if let Some(made) = self.groups.get_mut(&group.id) {
            if !made.is_unrecorded() {
                return;
            }
            group.pending_members = std::mem::take(&mut made.pending_members);
        }
        self.groups.insert(group.id.clone(), *group);
    }

    fn deletion_part_done(&mut self, job: Option<(u64, usize)>, error: ErrorCode) {
        let Some((job_id, index)) = job else { return };
        let Some(job) = self.deletion_jobs.get_mut(&job_id) else { return };
        job.open_appends -= 1;
        if error.is_error() {
            job.results[index].1 = error;
        }
        if job.open_appends == 0
            && let Some(job) = self.deletion_jobs.remove(&job_id)
        {
            self.context.reply(job.token, Answer::DeleteGroups(job.results));
        }
    }

    /// Removes offsets whose time is over, and empty groups that have none left.
    fn expire(&mut self) {
        self.schedule_expiry();
        let ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        let (now_ms, retention_ms) = (self.context.now_ms, self.context.config.offsets_retention_ms);
        for id in ids {
            let Some(group) = self.groups.get(&id) else { continue };
            let (changes, none_left) =
                offset_api::expired(group, self.offsets.group(&id), retention_ms, now_ms);
            let is_over = none_left && group.state == GroupState::Empty && group.pending_members.is_empty();
            self.context.counters.offset_expirations += changes.len() as u64;
            if is_over {
                self.remove_group(&id, changes, None);
            } else {
                self.append_changes_in_parts(&id, changes);
            }
        }
    }

    pub(crate) fn schedule_expiry(&mut self) {
        let interval_ms = self.context.config.offsets_retention_check_interval_ms.max(1);
        let at_ms = self.context.now_ms.saturating_add(interval_ms);
        let key = || TimerKey { group: "".into(), kind: TimerKind::Expiry };
        self.context.timers.schedule(&mut self.expiry_timer, at_ms, key);
    }
}

/// The slot a timer's name leads to, if it still exists.
fn find_timer<'a>(
    groups: &'a mut BTreeMap<Arc<str>, Group>,
    expiry: &'a mut Timer,
    key: &TimerKey,
) -> Option<&'a mut Timer> {
    if key.kind == TimerKind::Expiry {
        return Some(expiry);
    }
    let group = groups.get_mut(&key.group)?;
    match &key.kind {
        TimerKind::Join => Some(&mut group.join_timer),
        TimerKind::Sync => Some(&mut group.sync_timer),
        TimerKind::Member(id) => match group.members.get_mut(id) {
            Some(member) => Some(&mut member.session),
            None => group.pending_members.get_mut(id).map(|pending| &mut pending.session),
        },
        TimerKind::Expiry => None,
    }
}

fn fail_answers(context: &mut Context, pending: &mut PendingAppend, error: ErrorCode) {
    for (token, mut answer) in std::mem::take(&mut pending.answers) {
        answer.fail(error);
        context.reply(token, answer);
    }
}

/// Cuts removals into parts whose records stay below a size.
fn parts(group: &str, changes: Changes, max_bytes: usize) -> Vec<Changes> {
    /// Fixed bytes of an offset's key and of a record around it, generously.
    const OVERHEAD: usize = 64;
    let mut parts: Vec<Changes> = Vec::new();
    let mut room = 0usize;
    for change in changes {
        let bytes = OVERHEAD + group.len() + change.0.len();
        match parts.last_mut() {
            Some(part) if bytes <= room => {
                part.push(change);
                room -= bytes;
            }
            _ => {
                parts.push(vec![change]);
                room = max_bytes.saturating_sub(bytes);
            }
        }
    }
    parts
}
