//! JoinGroup (11), versions 0 to 9: a member enters a group. Waits for the other members.

use std::borrow::Cow;

use base::error::ErrorCode;
use coordinator::{Answer, JoinAnswer, JoinRequest, JoinedMember, Protocol, Request};
use wire::message::join_group_response::JoinGroupResponseMember;
use wire::message::{JoinGroupRequest, JoinGroupResponse};

use super::{Close, RequestContext, wrong_answer};

/// Version from which an answer may have no protocol name; before it that is an empty one.
const NULL_PROTOCOL_VERSION: i16 = 7;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: JoinGroupRequest<'_>,
) -> Result<JoinGroupResponse<'static>, Close> {
    let group = request.group_id.into_owned();
    let member_id = request.member_id.into_owned();
    let join = JoinRequest {
        api_version: context.api_version,
        group_id: group.clone(),
        member_id: member_id.clone(),
        instance_id: request.group_instance_id.map(Cow::into_owned),
        client_id: context.client_id.unwrap_or_default().to_owned(),
        client_host: format!("/{}", context.connection.peer.ip()),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        protocol_type: request.protocol_type.into_owned(),
        protocols: request
            .protocols
            .into_iter()
            .map(|protocol| Protocol {
                name: protocol.name.into_owned(),
                metadata: context.shared(protocol.metadata),
            })
            .collect(),
        reason: request.reason.map(Cow::into_owned),
        member_uuid: context.broker.env.random_uuid(),
    };
    let answer = match context.ask_patiently(&group, Request::Join(join)).await {
        Ok(Answer::Join(answer)) => answer,
        Ok(other) => JoinAnswer::error(wrong_answer(&other), member_id),
        Err(code) => JoinAnswer::error(code, member_id),
    };
    Ok(response(answer, context.api_version))
}

fn response(answer: JoinAnswer, version: i16) -> JoinGroupResponse<'static> {
    let protocol_name = match answer.protocol_name {
        None if version < NULL_PROTOCOL_VERSION => Some(String::new()),
        name => name,
    };
    JoinGroupResponse {
        error_code: ErrorCode::code(answer.error),
        generation_id: answer.generation,
        protocol_type: answer.protocol_type.map(Cow::Owned),
        protocol_name: protocol_name.map(Cow::Owned),
        leader: Cow::Owned(answer.leader),
        skip_assignment: answer.skip_assignment,
        member_id: Cow::Owned(answer.member_id),
        members: answer.members.into_iter().map(member).collect(),
        ..JoinGroupResponse::default()
    }
}

fn member(member: JoinedMember) -> JoinGroupResponseMember<'static> {
    JoinGroupResponseMember {
        member_id: Cow::Owned(member.member_id),
        group_instance_id: member.instance_id.map(Cow::Owned),
        metadata: Cow::Owned(member.metadata.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_no_protocol() {
        let refused = JoinAnswer::error(ErrorCode::InvalidSessionTimeout, "m");
        let name = |version| response(refused.clone(), version).protocol_name;
        assert_eq!(name(NULL_PROTOCOL_VERSION - 1).as_deref(), Some(""));
        assert_eq!(name(NULL_PROTOCOL_VERSION), None);
    }
}
