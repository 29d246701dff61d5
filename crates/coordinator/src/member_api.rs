//! SyncGroup, Heartbeat and LeaveGroup: what members do between two joins.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::error::ErrorCode;
use bytes::Bytes;

use crate::answer::{Answer, LeaveAnswer, LeftMember, SyncAnswer};
use crate::append::{AppendId, Assignment, Outcome, PendingAppend};
use crate::context::Context;
use crate::group::{Group, GroupState};
use crate::rebalance;
use crate::record;
use crate::request::{HeartbeatRequest, LeaveRequest, LeavingMember, SyncRequest, Token};

/// From here on SyncGroup must name protocol type and protocol (KIP-559).
const FIRST_SYNC_VERSION_WITH_PROTOCOL: i16 = 5;

/// What can be said of a SyncGroup without its group.
pub(crate) fn check_sync(request: &SyncRequest) -> Result<(), ErrorCode> {
    let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if request.api_version >= FIRST_SYNC_VERSION_WITH_PROTOCOL && !names_protocol {
        return Err(ErrorCode::InconsistentGroupProtocol);
    }
    if request.group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    Ok(())
}

/// SyncGroup: the leader's brings the assignment, which is written; all are answered once it is in the log.
pub(crate) fn sync(context: &mut Context, group: &mut Group, token: Token, request: SyncRequest) {
    if let Err(error) = check_sync_in_group(group, &request) {
        context.reply(token, Answer::Sync(SyncAnswer::error(error)));
        return;
    }
    // An assignment already on its way is the one of this generation.
    let is_due = group.state == GroupState::CompletingRebalance
        && group.is_leader(&request.member_id)
        && group.assignment_append.is_none();
    let has_room = context.may_append();
    let assignment =
        if is_due && has_room { take_assignment(context, group, request.assignments) } else { None };
    if is_due && assignment.is_none() {
        // Members take this code as "look again, after a pause", and COORDINATOR_LOAD_IN_PROGRESS as their end.
        let answer = SyncAnswer::error(ErrorCode::CoordinatorNotAvailable);
        context.reply(token, Answer::Sync(answer));
        return;
    }
    group.pending_sync.remove(request.member_id.as_str());
    if group.pending_sync.is_empty() {
        group.sync_timer.cancel();
    }
    let member = group.members.get_mut(request.member_id.as_str()).expect("the member is checked");
    if group.state == GroupState::Stable {
        let answer = SyncAnswer {
            error: ErrorCode::None,
            protocol_type: group.protocol_type.clone(),
            protocol_name: group.protocol_name.clone(),
            assignment: member.assignment.clone(),
        };
        context.reply(token, Answer::Sync(answer));
        return;
    }
    if let Some(displaced) = member.parked_sync.replace(token) {
        // The client has sent another, so nobody waits for this one.
        context.reply(displaced, Answer::Sync(SyncAnswer::error(ErrorCode::RebalanceInProgress)));
    }
    if let Some(assignment) = assignment {
        append_assignment(context, group, assignment);
    }
}

fn check_sync_in_group(group: &Group, request: &SyncRequest) -> Result<(), ErrorCode> {
    if group.state == GroupState::Empty {
        return Err(ErrorCode::UnknownMemberId);
    }
    group.check_member(&request.member_id, request.instance_id.as_deref())?;
    if request.generation != group.generation {
        return Err(ErrorCode::IllegalGeneration);
    }
    let differs =
        |asked: &Option<String>, is: &Option<String>| asked.is_some() && is.is_some() && asked != is;
    if differs(&request.protocol_type, &group.protocol_type)
        || differs(&request.protocol_name, &group.protocol_name)
    {
        return Err(ErrorCode::InconsistentGroupProtocol);
    }
    if group.state == GroupState::PreparingRebalance {
        return Err(ErrorCode::RebalanceInProgress);
    }
    Ok(())
}

/// What the leader gives to the members; `None` if there is no room for it. The room of the assignments before it
/// counts as free, whatever others hold.
fn take_assignment(
    context: &Context,
    group: &mut Group,
    assignments: Vec<(String, Bytes)>,
) -> Option<Assignment> {
    let mut given: BTreeMap<String, Bytes> = assignments.into_iter().collect();
    let by_member: BTreeMap<Arc<str>, Bytes> =
        group.members.keys().map(|id| (id.clone(), given.remove(&**id).unwrap_or_default())).collect();
    let bytes: usize = by_member.values().map(Bytes::len).sum();
    let had: usize = group.members.values().map(|member| member.assignment_share.bytes()).sum();
    let mut share = context.memory.members.share();
    if !share.try_set(bytes.saturating_sub(had), context.config.max_memory_bytes) {
        return None;
    }
    group.members.values_mut().for_each(|member| share.absorb(&mut member.assignment_share));
    // Without the request around them, which is not counted and may be large.
    let detached = |(id, bytes): (Arc<str>, Bytes)| (id, Bytes::copy_from_slice(&bytes));
    Some(Assignment { by_member: by_member.into_iter().map(detached).collect(), share })
}

fn append_assignment(context: &mut Context, group: &mut Group, assignment: Assignment) {
    let without = assignment.by_member.values().filter(|assignment| assignment.is_empty()).count();
    if without > 0 {
        tracing::warn!(group = %group.id, generation = group.generation, members = without,
            "the leader assigned nothing to some members");
    }
    let records = vec![record::group(group, Some(&assignment.by_member))];
    let outcome = Outcome::Assignment(assignment);
    let pending = PendingAppend { group: group.id.clone(), outcome, ..PendingAppend::default() };
    group.assignment_append = Some(context.append(records, pending));
}

/// The assignment is in the log.
pub(crate) fn assignment_stored(
    context: &mut Context,
    group: &mut Group,
    id: AppendId,
    mut assignment: Assignment,
) {
    if group.assignment_append != Some(id) {
        return;
    }
    group.assignment_append = None;
    for (member_id, member) in &mut group.members {
        member.assignment = assignment.by_member.remove(member_id).unwrap_or_default();
        member.assignment_share = assignment.share.split(member.assignment.len());
    }
    rebalance::answer_syncs(context, group, ErrorCode::None);
    group.transition(GroupState::Stable, context.now_ms);
    context.counters.completed_rebalances += 1;
}

/// The assignment is not in the log: the members hear why and join again.
pub(crate) fn assignment_not_stored(
    context: &mut Context,
    group: &mut Group,
    id: AppendId,
    error: ErrorCode,
) {
    if group.assignment_append != Some(id) {
        return;
    }
    rebalance::reset_assignments(context, group, error);
    rebalance::prepare_rebalance(context, group, "the assignment could not be stored");
}

/// Heartbeat.
pub(crate) fn heartbeat(context: &mut Context, group: &mut Group, request: &HeartbeatRequest) -> ErrorCode {
    if let Err(error) = group.check_member(&request.member_id, request.instance_id.as_deref()) {
        return error;
    }
    if request.generation != group.generation {
        return ErrorCode::IllegalGeneration;
    }
    keep_alive(context, group, &request.member_id);
    match group.state {
        GroupState::PreparingRebalance => ErrorCode::RebalanceInProgress,
        _ => ErrorCode::None,
    }
}

/// A member has shown that it lives.
pub(crate) fn keep_alive(context: &mut Context, group: &mut Group, member_id: &str) {
    if let Some(member) = group.members.get_mut(member_id) {
        context.restart_session(&group.id, member);
    }
}

/// LeaveGroup. If the group is empty by it, the client is answered once that is in the log.
pub(crate) fn leave(context: &mut Context, group: &mut Group, token: Token, request: LeaveRequest) {
    let members_before = group.members.len();
    let members: Vec<LeftMember> =
        request.members.into_iter().map(|leaving| leave_one(context, group, leaving)).collect();
    let append = match group.state {
        GroupState::PreparingRebalance => rebalance::complete_join_if_all_joined(context, group),
        // An id that was handed out but not used yet goes without a trace.
        _ if group.members.len() == members_before => None,
        _ => rebalance::prepare_rebalance(context, group, "members left"),
    };
    let answer = Answer::Leave(LeaveAnswer { error: ErrorCode::None, members });
    match append.and_then(|id| context.appends.get_mut(&id)) {
        Some(pending) => pending.answers.push((token, answer)),
        None => context.reply(token, answer),
    }
}

fn leave_one(context: &mut Context, group: &mut Group, leaving: LeavingMember) -> LeftMember {
    let error = match leaving_member_id(group, &leaving) {
        Ok(id) => {
            let reason = leaving.reason.as_deref().unwrap_or("not provided");
            tracing::info!(group = %group.id, member = %id, reason, "a member leaves");
            if group.pending_members.remove(&id).is_none() {
                rebalance::remove_member(context, group, &id, ErrorCode::UnknownMemberId);
            }
            ErrorCode::None
        }
        Err(error) => error,
    };
    LeftMember { member_id: leaving.member_id, instance_id: leaving.instance_id, error }
}

/// Whom a leave is about: an administrator names a static member by its instance id alone.
fn leaving_member_id(group: &Group, leaving: &LeavingMember) -> Result<Arc<str>, ErrorCode> {
    let instance_id = leaving.instance_id.as_deref();
    if leaving.member_id.is_empty() {
        let id = instance_id.and_then(|instance_id| group.static_members.get(instance_id));
        return id.cloned().ok_or(ErrorCode::UnknownMemberId);
    }
    if let Some((id, _)) = group.pending_members.get_key_value(leaving.member_id.as_str()) {
        return Ok(id.clone());
    }
    group.check_member(&leaving.member_id, instance_id)?;
    Ok(Arc::from(leaving.member_id.as_str()))
}

/// The client that a JoinGroup was to answer has gone. If it is one that never had an answer as a member, nobody can
/// speak for it, so it is out at once with all it brought; others have their session to come back.
pub(crate) fn client_gone(context: &mut Context, group: &mut Group, token: Token) {
    let Some(member) = group.joining(token).filter(|member| member.is_new) else { return };
    let member_id = member.id.clone();
    tracing::info!(group = %group.id, member = %member_id, "removed a new member whose client has gone");
    rebalance::remove_member(context, group, &member_id, ErrorCode::UnknownMemberId);
    if group.forget_beginning(context.now_ms) {
        return;
    }
    rebalance::rebalance_or_complete(context, group, "the client of a new member has gone");
}

/// A member's session, or that of an id handed out, is over.
pub(crate) fn session_over(context: &mut Context, group: &mut Group, member_id: &str) {
    if group.pending_members.remove(member_id).is_some() {
        tracing::info!(group = %group.id, member = member_id, "nobody came back with a member id handed out");
        rebalance::complete_join_if_all_joined(context, group);
        return;
    }
    let Some(member) = group.members.get(member_id) else { return };
    if member.is_waiting_alive() {
        // It gets its session anew when it is answered.
        return;
    }
    tracing::info!(group = %group.id, member = member_id, "removed a member that was silent for too long");
    rebalance::remove_member(context, group, member_id, ErrorCode::UnknownMemberId);
    if group.state != GroupState::Empty {
        rebalance::rebalance_or_complete(context, group, "a member was silent for too long");
    }
}
