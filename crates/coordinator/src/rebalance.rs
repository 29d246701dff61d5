//! How a group goes from one generation to the next: the join phase, its end, and what members hear of it.
//!
//! `Empty → PreparingRebalance → CompletingRebalance → Stable`, and back to `PreparingRebalance` whenever the
//! members or what they want changes. A join phase ends when everyone has come back, or at its deadline without
//! those who have not; the first one of an empty group always waits for its delay.
//!
//! The functions take one group; which group an event is for is the shard's part.

use base::error::ErrorCode;
use bytes::Bytes;

use crate::answer::{Answer, JoinAnswer, JoinedMember, SyncAnswer};
use crate::append::{AppendId, PendingAppend};
use crate::context::Context;
use crate::group::{Group, GroupState, InitialDelay};
use crate::member::Member;
use crate::record;
use crate::request::Token;

/// What the leader gets to know of the members.
pub(crate) fn joined_members(group: &Group) -> Vec<JoinedMember> {
    let joined = |member: &Member| JoinedMember {
        member_id: member.id.to_string(),
        instance_id: member.instance_id.as_deref().map(str::to_owned),
        metadata: member.metadata(group.protocol_name.as_deref()),
    };
    group.members.values().map(joined).collect()
}

/// A successful answer to JoinGroup for a member of the current generation.
pub(crate) fn join_answer(group: &Group, member_id: &str) -> JoinAnswer {
    JoinAnswer {
        error: ErrorCode::None,
        generation: group.generation,
        protocol_type: group.protocol_type.clone(),
        protocol_name: group.protocol_name.clone(),
        leader: group.leader_id(),
        skip_assignment: false,
        member_id: member_id.to_owned(),
        members: if group.is_leader(member_id) { joined_members(group) } else { Vec::new() },
    }
}

/// Answers a member's parked JoinGroup, if there is one.
pub(crate) fn answer_join(
    context: &mut Context,
    group: &mut Group,
    member_id: &str,
    answer: JoinAnswer,
) -> bool {
    let Some(token) = group.take_join(member_id) else { return false };
    context.reply(token, Answer::Join(answer));
    true
}

/// Parks a JoinGroup until the join phase ends. One the member has sent before is told to try again: nobody
/// waits for it any more, since the client has sent another.
pub(crate) fn park_join(context: &mut Context, group: &mut Group, member_id: &str, token: Token) {
    if let Some(displaced) = group.park_join(member_id, token) {
        let answer = JoinAnswer::error(ErrorCode::RebalanceInProgress, member_id);
        context.reply(displaced, Answer::Join(answer));
    }
}

/// Begins a rebalance if the group is not in one, otherwise ends it if nobody is missing.
pub(crate) fn rebalance_or_complete(
    context: &mut Context,
    group: &mut Group,
    reason: &str,
) -> Option<AppendId> {
    match group.state {
        GroupState::PreparingRebalance => complete_join_if_all_joined(context, group),
        _ => prepare_rebalance(context, group, reason),
    }
}

/// Begins a rebalance.
pub(crate) fn prepare_rebalance(context: &mut Context, group: &mut Group, reason: &str) -> Option<AppendId> {
    if group.state == GroupState::CompletingRebalance {
        reset_assignments(context, group, ErrorCode::RebalanceInProgress);
    }
    group.pending_sync.clear();
    group.sync_timer.cancel();
    let was_empty = group.state == GroupState::Empty;
    group.transition(GroupState::PreparingRebalance, context.now_ms);
    tracing::info!(group = %group.id, generation = group.generation, reason, "preparing to rebalance");
    if was_empty {
        let current_ms = context.config.initial_rebalance_delay_ms.max(0);
        let remaining_ms = group.rebalance_timeout_ms().saturating_sub(current_ms).max(0);
        group.initial_delay = Some(InitialDelay { current_ms, remaining_ms });
        group.member_came = false;
        context.start_join_timer(group, current_ms);
        return None;
    }
    if group.all_joined() {
        return complete_join(context, group);
    }
    let timeout_ms = group.rebalance_timeout_ms();
    context.start_join_timer(group, timeout_ms);
    None
}

/// Ends the join phase if everyone has come back and it is not the first one, which waits for its delay.
pub(crate) fn complete_join_if_all_joined(context: &mut Context, group: &mut Group) -> Option<AppendId> {
    let may_end = group.state == GroupState::PreparingRebalance && group.initial_delay.is_none();
    if may_end && group.all_joined() { complete_join(context, group) } else { None }
}

/// The deadline of the join phase has come. In the first one, if members came during the delay there is another
/// delay, as long as the rebalance timeout leaves time for it.
pub(crate) fn join_deadline(context: &mut Context, group: &mut Group) -> Option<AppendId> {
    if group.state != GroupState::PreparingRebalance {
        return None;
    }
    match group.initial_delay {
        Some(delay) if group.member_came && delay.remaining_ms > 0 => {
            group.member_came = false;
            let current_ms = context.config.initial_rebalance_delay_ms.clamp(0, delay.remaining_ms);
            let remaining_ms = (delay.remaining_ms - delay.current_ms).max(0);
            group.initial_delay = Some(InitialDelay { current_ms, remaining_ms });
            context.start_join_timer(group, current_ms);
            None
        }
        _ => complete_join(context, group),
    }
}

/// Ends the join phase without those who did not come back. Static members are kept until their session ends.
fn complete_join(context: &mut Context, group: &mut Group) -> Option<AppendId> {
    group.join_timer.cancel();
    let has_gone = |member: &Member| member.parked_join.is_none() && !member.is_static();
    let gone: Vec<_> =
        group.members.values().filter(|member| has_gone(member)).map(|m| m.id.clone()).collect();
    for id in &gone {
        group.remove(id);
        tracing::info!(group = %group.id, member = %id, "removed a member that did not come back in time");
    }
    if !group.elect_joined_leader() && !group.members.is_empty() {
        // Only static members that are away are left; they end with their sessions or come back.
        let timeout_ms = group.rebalance_timeout_ms();
        context.start_join_timer(group, timeout_ms);
        return None;
    }
    group.start_generation(context.now_ms, context.config.max_memory_bytes);
    if group.state == GroupState::Empty {
        tracing::info!(group = %group.id, generation = group.generation, "the group is empty");
        let records = vec![record::group(group, None)];
        let pending = PendingAppend { group: group.id.clone(), ..PendingAppend::default() };
        return Some(context.append(records, pending));
    }
    begin_generation(context, group);
    None
}

/// Tells every member of the new generation and expects all of them to ask for their assignment.
fn begin_generation(context: &mut Context, group: &mut Group) {
    tracing::info!(group = %group.id, generation = group.generation, members = group.members.len(),
        "all members joined");
    let ids: Vec<_> = group.members.keys().cloned().collect();
    for id in ids {
        let answer = join_answer(group, &id);
        answer_join(context, group, &id, answer);
        if let Some(member) = group.members.get_mut(&id) {
            member.is_new = false;
            context.restart_session(&group.id, member);
        }
        group.pending_sync.insert(id);
    }
    let timeout_ms = group.rebalance_timeout_ms();
    context.start_sync_timer(group, timeout_ms);
}

/// The deadline of the sync phase has come: members that did not ask for their assignment are out.
pub(crate) fn sync_deadline(context: &mut Context, group: &mut Group) -> Option<AppendId> {
    let in_sync_phase = matches!(group.state, GroupState::CompletingRebalance | GroupState::Stable);
    if !in_sync_phase || group.pending_sync.is_empty() {
        return None;
    }
    for id in std::mem::take(&mut group.pending_sync) {
        remove_member(context, group, &id, ErrorCode::UnknownMemberId);
        tracing::info!(group = %group.id, member = %id, "removed a member that did not sync in time");
    }
    prepare_rebalance(context, group, "members did not sync in time")
}

/// Takes a member out of the group and answers what it has parked. Whether a rebalance follows is the caller's part.
pub(crate) fn remove_member(
    context: &mut Context,
    group: &mut Group,
    member_id: &str,
    error: ErrorCode,
) -> bool {
    answer_join(context, group, member_id, JoinAnswer::error(error, ""));
    let Some(member) = group.remove(member_id) else { return false };
    if let Some(token) = member.parked_sync {
        context.reply(token, Answer::Sync(SyncAnswer::error(error)));
    }
    true
}

/// Takes every assignment back and tells the members that wait for theirs.
pub(crate) fn reset_assignments(context: &mut Context, group: &mut Group, error: ErrorCode) {
    group.assignment_append = None;
    group.members.values_mut().for_each(|member| member.assignment = Bytes::new());
    answer_syncs(context, group, error);
}

/// Answers every parked SyncGroup, with the assignment if there is no error, and gives those members their session
/// anew: while they waited, its end was passed over.
pub(crate) fn answer_syncs(context: &mut Context, group: &mut Group, error: ErrorCode) {
    let (protocol_type, protocol_name) = (group.protocol_type.clone(), group.protocol_name.clone());
    for member in group.members.values_mut() {
        let Some(token) = member.parked_sync.take() else { continue };
        let answer = if error.is_error() {
            SyncAnswer::error(error)
        } else {
            SyncAnswer {
                error,
                protocol_type: protocol_type.clone(),
                protocol_name: protocol_name.clone(),
                assignment: member.assignment.clone(),
            }
        };
        context.reply(token, Answer::Sync(answer));
        context.restart_session(&group.id, member);
    }
}
