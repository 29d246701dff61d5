//! JoinGroup.
//!
//! A client without member id is first given one and must come back with it (KIP-394), so that a client that
//! gives up and tries again does not fill the group with members nobody speaks for. A static member that
//! comes back takes its old place over and, if nothing changes for the others, no rebalance happens (KIP-345).

use std::sync::Arc;

use base::error::ErrorCode;
use base::ids::Uuid;
use bytes::Bytes;

use crate::answer::{Answer, JoinAnswer, SyncAnswer};
use crate::append::{AppendId, Outcome, PendingAppend, StaticMemberChange};
use crate::config::GroupConfig;
use crate::context::Context;
use crate::group::{Group, GroupState};
use crate::member::Member;
use crate::memory;
use crate::rebalance;
use crate::record::{self, MAX_STRING_BYTES};
use crate::request::{JoinRequest, Protocol, Token};
use crate::timer::Timer;

/// From here on a client must know its member id before it becomes a member.
const FIRST_VERSION_WITH_REQUIRED_MEMBER_ID: i16 = 4;
/// From here on a static leader that comes back can be told to leave the assignment as it is.
const FIRST_VERSION_WITH_SKIPPED_ASSIGNMENT: i16 = 9;
/// Bytes a member id has beyond the name in it: a dash and a UUID in text.
const MEMBER_ID_SUFFIX_BYTES: usize = 37;

/// Checks what can be checked without the group, and brings the request into the form the rest expects.
///
/// # Errors
/// The code to answer.
pub(crate) fn check(request: &mut JoinRequest, config: &GroupConfig) -> Result<(), ErrorCode> {
    if request.group_id.is_empty() || request.group_id.len() > MAX_STRING_BYTES {
        return Err(ErrorCode::InvalidGroupId);
    }
    if !(config.min_session_timeout_ms..=config.max_session_timeout_ms).contains(&request.session_timeout_ms)
    {
        return Err(ErrorCode::InvalidSessionTimeout);
    }
    if request.rebalance_timeout_ms <= 0 {
        request.rebalance_timeout_ms = request.session_timeout_ms;
    }
    if !request.client_host.starts_with('/') {
        request.client_host.insert(0, '/');
    }
    let names = [&request.member_id, &request.protocol_type, &request.client_host];
    let stems = [Some(&request.client_id), request.instance_id.as_ref()];
    let protocol_names = request.protocols.iter().map(|protocol| &protocol.name);
    let too_long = names.into_iter().chain(protocol_names).any(|name| name.len() > MAX_STRING_BYTES)
        || stems.into_iter().flatten().any(|stem| stem.len() > MAX_STRING_BYTES - MEMBER_ID_SUFFIX_BYTES);
    let bytes: usize = request.protocols.iter().map(|p| p.name.len() + p.metadata.len()).sum();
    let too_many = request.protocols.len() > config.max_member_protocols;
    if too_long || too_many || bytes > config.max_member_metadata_bytes {
        return Err(ErrorCode::InvalidRequest);
    }
    let mut seen = std::collections::BTreeSet::new();
    request.protocols.retain(|protocol| seen.insert(protocol.name.clone()));
    Ok(())
}

/// Lets a client join. The append, if one results, carries nothing the client waits for.
pub(crate) fn join(
    context: &mut Context,
    group: &mut Group,
    token: Token,
    request: JoinRequest,
) -> Option<AppendId> {
    if !has_room(group, &request, context.config.max_size) {
        context.reply(token, Answer::Join(JoinAnswer::error(ErrorCode::GroupMaxSizeReached, "")));
        let was_member =
            rebalance::remove_member(context, group, &request.member_id, ErrorCode::GroupMaxSizeReached);
        let was_pending = group.pending_members.remove(request.member_id.as_str()).is_some();
        // One less to wait for.
        return (was_member || was_pending)
            .then(|| rebalance::complete_join_if_all_joined(context, group))
            .flatten();
    }
    if !group.supports(&request.protocol_type, &request.protocols) {
        let error = JoinAnswer::error(ErrorCode::InconsistentGroupProtocol, request.member_id);
        context.reply(token, Answer::Join(error));
        return None;
    }
    if request.member_id.is_empty() {
        join_without_id(context, group, token, request)
    } else {
        join_with_id(context, group, token, request)
    }
}

/// True unless the group is full. A member that is in stays in, a static one also when it comes back without its id.
/// Except that in a rebalance those who come back last are out if the limit was lowered meanwhile: there the number
/// of those who came back counts.
fn has_room(group: &Group, request: &JoinRequest, max_size: usize) -> bool {
    let by_instance = request.instance_id.as_deref().and_then(|id| group.static_members.get(id));
    let member_id = by_instance.map_or(request.member_id.as_str(), |id| id);
    let member = group.members.get(member_id);
    match group.state {
        GroupState::Empty => true,
        GroupState::PreparingRebalance => {
            member.is_some_and(|member| member.parked_join.is_some()) || group.awaiting_join() < max_size
        }
        GroupState::CompletingRebalance | GroupState::Stable => {
            member.is_some() || group.members.len() < max_size
        }
    }
}

fn join_without_id(
    context: &mut Context,
    group: &mut Group,
    token: Token,
    request: JoinRequest,
) -> Option<AppendId> {
    let member_id = new_member_id(&request);
    if let Some(instance_id) = &request.instance_id {
        return match group.static_members.get(instance_id.as_str()).cloned() {
            Some(old_id) => replace_static_member(context, group, token, request, &old_id, member_id),
            None => add_member(context, group, token, request, member_id),
        };
    }
    if request.api_version < FIRST_VERSION_WITH_REQUIRED_MEMBER_ID {
        return add_member(context, group, token, request, member_id);
    }
    let is_full = group.pending_members.len() >= context.config.max_pending_members;
    if is_full || !context.start_pending_session(group, member_id.clone(), request.session_timeout_ms) {
        return refuse_for_now(context, token, "");
    }
    let answer = JoinAnswer::error(ErrorCode::MemberIdRequired, &*member_id);
    context.reply(token, Answer::Join(answer));
    None
}

/// There is no room. Clients take this code as "a little later" and ask again after a pause, without looking for
/// another coordinator; GROUP_MAX_SIZE_REACHED would end them.
fn refuse_for_now(context: &mut Context, token: Token, member_id: &str) -> Option<AppendId> {
    let answer = JoinAnswer::error(ErrorCode::CoordinatorLoadInProgress, member_id);
    context.reply(token, Answer::Join(answer));
    None
}

/// Makes room for what a member says of itself now in the place of what it said before. One that asks for no more
/// than it has is never refused.
fn make_room(context: &Context, group: &mut Group, member_id: &str, request: &JoinRequest) -> bool {
    let bytes = requested_bytes(request, member_id);
    let member = group.members.get_mut(member_id);
    member.is_some_and(|member| member.share.try_set(bytes, context.config.max_memory_bytes))
}

fn requested_bytes(request: &JoinRequest, member_id: &str) -> usize {
    let client = [request.client_id.as_str(), &request.client_host];
    memory::member_bytes(member_id, request.instance_id.as_deref(), client, &request.protocols)
}

fn join_with_id(
    context: &mut Context,
    group: &mut Group,
    token: Token,
    request: JoinRequest,
) -> Option<AppendId> {
    let is_pending = group.pending_members.contains_key(request.member_id.as_str());
    if is_pending && request.instance_id.is_none() {
        let member_id = Arc::from(request.member_id.as_str());
        return add_member(context, group, token, request, member_id);
    }
    if let Err(error) = group.check_member(&request.member_id, request.instance_id.as_deref()) {
        context.reply(token, Answer::Join(JoinAnswer::error(error, request.member_id)));
        return None;
    }
    let unchanged =
        group.members.get(request.member_id.as_str()).is_some_and(|m| m.protocols == request.protocols);
    let answer_at_once = match group.state {
        GroupState::PreparingRebalance => false,
        // It may not have received the answer to its first JoinGroup.
        GroupState::CompletingRebalance => unchanged,
        // The leader joins again to force a rebalance, when something changed that only it can see.
        GroupState::Stable => unchanged && !group.is_leader(&request.member_id),
        // A group with this member is not empty; kept for completeness.
        GroupState::Empty => {
            context
                .reply(token, Answer::Join(JoinAnswer::error(ErrorCode::UnknownMemberId, request.member_id)));
            return None;
        }
    };
    if answer_at_once {
        let answer = rebalance::join_answer(group, &request.member_id);
        context.reply(token, Answer::Join(answer));
        return None;
    }
    let member_id = request.member_id.clone();
    if !make_room(context, group, &member_id, &request) {
        return refuse_for_now(context, token, &member_id);
    }
    let reason = format!("member {member_id} joins again: {}", reason(&request));
    update_member(group, &member_id, request);
    rebalance::park_join(context, group, &member_id, token);
    rebalance::rebalance_or_complete(context, group, &reason)
}

fn reason(request: &JoinRequest) -> &str {
    request.reason.as_deref().filter(|reason| !reason.is_empty()).unwrap_or("not provided")
}

/// `<instance id or client id>-<uuid>`, the UUID as Java prints it.
fn new_member_id(request: &JoinRequest) -> Arc<str> {
    let stem = request.instance_id.as_ref().unwrap_or(&request.client_id);
    format!("{stem}-{}", uuid_text(&request.member_uuid)).into()
}

fn uuid_text(uuid: &Uuid) -> String {
    let number = u128::from_be_bytes(uuid.0);
    let part = |shift: u32, bits: u32| (number >> shift) & ((1 << bits) - 1);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(96, 32),
        part(80, 16),
        part(64, 16),
        part(48, 16),
        part(0, 48)
    )
}

fn add_member(
    context: &mut Context,
    group: &mut Group,
    token: Token,
    request: JoinRequest,
    member_id: Arc<str>,
) -> Option<AppendId> {
    let mut share = context.memory.members.share();
    if !share.try_set(requested_bytes(&request, &member_id), context.config.max_memory_bytes) {
        return refuse_for_now(context, token, &request.member_id);
    }
    let reason = format!("new member {member_id}: {}", reason(&request));
    let mut member = Member {
        id: member_id.clone(),
        instance_id: request.instance_id.map(Arc::from),
        client_id: request.client_id,
        client_host: request.client_host,
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        protocols: detached(request.protocols),
        assignment: Bytes::new(),
        arrival: 0,
        is_new: true,
        parked_join: Some(token),
        parked_sync: None,
        session: Timer::default(),
        share,
        assignment_share: context.memory.members.share(),
    };
    // It cannot send heartbeats yet, and a connection that waits for its answer shows nobody when it dies.
    context.restart_session_for(&group.id, &mut member, context.config.new_member_join_timeout_ms);
    group.member_came |= group.initial_delay.is_some();
    group.add(member, &request.protocol_type);
    rebalance::rebalance_or_complete(context, group, &reason)
}

/// The same bytes without the request around them, which is not counted and may be large.
fn detached(mut protocols: Vec<Protocol>) -> Vec<Protocol> {
    for protocol in &mut protocols {
        protocol.metadata = Bytes::copy_from_slice(&protocol.metadata);
    }
    protocols
}

/// What of a member an update replaced.
struct OldMember {
    protocols: Vec<Protocol>,
    session_timeout_ms: i32,
    rebalance_timeout_ms: i32,
    client_id: String,
    client_host: String,
}

/// Takes over all a member says of itself, for which there is room.
fn update_member(group: &mut Group, member_id: &str, request: JoinRequest) -> Option<OldMember> {
    let protocols = group.set_protocols(member_id, detached(request.protocols));
    let member = group.members.get_mut(member_id)?;
    let old = OldMember {
        protocols,
        session_timeout_ms: std::mem::replace(&mut member.session_timeout_ms, request.session_timeout_ms),
        rebalance_timeout_ms: std::mem::replace(
            &mut member.rebalance_timeout_ms,
            request.rebalance_timeout_ms,
        ),
        client_id: std::mem::replace(&mut member.client_id, request.client_id),
        client_host: std::mem::replace(&mut member.client_host, request.client_host),
    };
    member.share.set(member.bytes());
    Some(old)
}

/// Tells whoever still speaks for a member id that it is fenced.
fn fence(context: &mut Context, group: &mut Group, member_id: &str) {
    let error = ErrorCode::FencedInstanceId;
    rebalance::answer_join(context, group, member_id, JoinAnswer::error(error, member_id));
    let parked_sync = group.members.get_mut(member_id).and_then(|member| member.parked_sync.take());
    if let Some(token) = parked_sync {
        context.reply(token, Answer::Sync(SyncAnswer::error(error)));
    }
}

/// A static member has come back without its member id: it gets a new one and its old place.
fn replace_static_member(
    context: &mut Context,
    group: &mut Group,
    token: Token,
    request: JoinRequest,
    old_id: &Arc<str>,
    new_id: Arc<str>,
) -> Option<AppendId> {
    let max_bytes = context.config.max_memory_bytes;
    // Until the return is in the log, the old protocols are kept beside the new ones.
    let mut old_share = context.memory.members.share();
    let old_bytes = group.members.get(old_id).map_or(0, |old| memory::protocol_bytes(&old.protocols));
    if !old_share.try_set(old_bytes, max_bytes) || !make_room(context, group, old_id, &request) {
        return refuse_for_now(context, token, "");
    }
    let leader_before = group.leader_id();
    let may_skip_assignment = request.api_version >= FIRST_VERSION_WITH_SKIPPED_ASSIGNMENT;
    let reason = format!("static member {new_id} comes back: {}", reason(&request));
    fence(context, group, old_id);
    group.rename(old_id, new_id.clone());
    let old = update_member(group, &new_id, request);
    let member = group.members.get_mut(&new_id).expect("it has just been renamed");
    member.is_new = false;
    context.restart_session(&group.id, member);
    rebalance::park_join(context, group, &new_id, token);
    match group.state {
        GroupState::Stable if group.select_protocol() == group.protocol_name => {
            group.read_subscribed_topics(max_bytes);
            let old = old.expect("the member is there");
            let change = StaticMemberChange {
                generation: group.generation,
                new_id,
                old_id: old_id.clone(),
                leader_before,
                may_skip_assignment,
                old_protocols: old.protocols,
                _share: old_share,
                old_session_timeout_ms: old.session_timeout_ms,
                old_rebalance_timeout_ms: old.rebalance_timeout_ms,
                old_client_id: old.client_id,
                old_client_host: old.client_host,
            };
            let records = vec![record::group(group, None)];
            let outcome = Outcome::StaticMember(Box::new(change));
            let pending = PendingAppend { group: group.id.clone(), outcome, ..PendingAppend::default() };
            context.append(records, pending);
            None
        }
        // The leader may already have made an assignment for the old member id.
        GroupState::Stable | GroupState::CompletingRebalance => {
            rebalance::prepare_rebalance(context, group, &reason)
        }
        GroupState::PreparingRebalance | GroupState::Empty => {
            rebalance::complete_join_if_all_joined(context, group)
        }
    }
}

/// True while nothing has happened to the group since the member came back. If a rebalance began meanwhile, that
/// answers the member, under its new id.
fn is_current(group: &Group, change: &StaticMemberChange) -> bool {
    group.state == GroupState::Stable && group.generation == change.generation
}

/// The record that gives a static member its new id is in the log.
pub(crate) fn static_member_stored(context: &mut Context, group: &mut Group, change: &StaticMemberChange) {
    if !is_current(group, change) {
        return;
    }
    let mut answer = rebalance::join_answer(group, &change.new_id);
    if change.may_skip_assignment {
        answer.skip_assignment = group.is_leader(&change.new_id);
    } else {
        // An older client would take itself for the leader and make an assignment nobody asked for.
        answer.leader.clone_from(&change.leader_before);
        answer.members = Vec::new();
    }
    rebalance::answer_join(context, group, &change.new_id, answer);
}

/// The record is not in the log: the member has its old id again.
pub(crate) fn static_member_not_stored(
    context: &mut Context,
    group: &mut Group,
    change: &StaticMemberChange,
    error: ErrorCode,
) {
    if !is_current(group, change) {
        return;
    }
    answer_static_member_error(context, group, change, error);
    if !group.rename(&change.new_id, change.old_id.clone()) {
        return;
    }
    group.set_protocols(&change.old_id, change.old_protocols.clone());
    group.read_subscribed_topics(context.config.max_memory_bytes);
    let member = group.members.get_mut(&change.old_id).expect("it has just been renamed");
    member.session_timeout_ms = change.old_session_timeout_ms;
    member.rebalance_timeout_ms = change.old_rebalance_timeout_ms;
    member.client_id.clone_from(&change.old_client_id);
    member.client_host.clone_from(&change.old_client_host);
    member.share.set(member.bytes());
    context.restart_session(&group.id, member);
}

/// Tells a static member that its return could not be stored.
pub(crate) fn answer_static_member_error(
    context: &mut Context,
    group: &mut Group,
    change: &StaticMemberChange,
    error: ErrorCode,
) {
    let mut answer = JoinAnswer::error(error, "");
    answer.leader.clone_from(&change.leader_before);
    rebalance::answer_join(context, group, &change.new_id, answer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_is_printed_as_java_does() {
        let bytes = std::array::from_fn(|index| index as u8 * 0x11);
        assert_eq!(uuid_text(&Uuid(bytes)), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(uuid_text(&Uuid([0xff; 16])), "ffffffff-ffff-ffff-ffff-ffffffffffff");
    }
}
