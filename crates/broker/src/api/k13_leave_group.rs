//! LeaveGroup (13), versions 0 to 5: members leave a group, or an administrator removes them (KIP-345).

use std::borrow::Cow;

use coordinator::{Answer, LeaveAnswer, LeaveRequest, LeavingMember, LeftMember, Request};
use wire::message::leave_group_response::MemberResponse;
use wire::message::{LeaveGroupRequest, LeaveGroupResponse};

use super::{Close, RequestContext, wrong_answer};

/// Version from which a request names several members.
const MEMBERS_VERSION: i16 = 3;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: LeaveGroupRequest<'_>,
) -> Result<LeaveGroupResponse<'static>, Close> {
    let group = request.group_id.into_owned();
    let names_several = context.api_version >= MEMBERS_VERSION;
    let members = if names_several {
        let leaving = request.members.into_iter().map(|member| LeavingMember {
            member_id: member.member_id.into_owned(),
            instance_id: member.group_instance_id.map(Cow::into_owned),
            reason: member.reason.map(Cow::into_owned),
        });
        leaving.collect()
    } else {
        let member_id = request.member_id.into_owned();
        vec![LeavingMember { member_id, instance_id: None, reason: None }]
    };
    let leave = LeaveRequest { group_id: group.clone(), members };
    let answer = match context.broker.groups.ask(&group, Request::Leave(leave)).await {
        Ok(Answer::Leave(answer)) => answer,
        Ok(other) => LeaveAnswer { error: wrong_answer(&other), members: Vec::new() },
        Err(error) => LeaveAnswer { error, members: Vec::new() },
    };
    if !names_several {
        let error_code = answer.single_error().code();
        return Ok(LeaveGroupResponse { error_code, ..LeaveGroupResponse::default() });
    }
    Ok(LeaveGroupResponse {
        error_code: answer.error.code(),
        members: answer.members.into_iter().map(left).collect(),
        ..LeaveGroupResponse::default()
    })
}

fn left(member: LeftMember) -> MemberResponse<'static> {
    MemberResponse {
        member_id: Cow::Owned(member.member_id),
        group_instance_id: member.instance_id.map(Cow::Owned),
        error_code: member.error.code(),
    }
}
