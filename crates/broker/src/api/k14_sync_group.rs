//! SyncGroup (14), versions 0 to 5: the leader hands in the assignment, every member gets its own. Waits for the
//! leader.

use std::borrow::Cow;

use coordinator::{Answer, Request, SyncAnswer, SyncRequest};
use wire::message::{SyncGroupRequest, SyncGroupResponse};

use super::{Close, RequestContext, wrong_answer};

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: SyncGroupRequest<'_>,
) -> Result<SyncGroupResponse<'static>, Close> {
    let group = request.group_id.into_owned();
    let assignments = request
        .assignments
        .into_iter()
        .map(|assignment| (assignment.member_id.into_owned(), context.shared(assignment.assignment)));
    let sync = SyncRequest {
        api_version: context.api_version,
        group_id: group.clone(),
        generation: request.generation_id,
        member_id: request.member_id.into_owned(),
        instance_id: request.group_instance_id.map(Cow::into_owned),
        protocol_type: request.protocol_type.map(Cow::into_owned),
        protocol_name: request.protocol_name.map(Cow::into_owned),
        assignments: assignments.collect(),
    };
    let answer = match context.ask_patiently(&group, Request::Sync(sync)).await {
        Ok(Answer::Sync(answer)) => answer,
        Ok(other) => SyncAnswer::error(wrong_answer(&other)),
        Err(code) => SyncAnswer::error(code),
    };
    Ok(SyncGroupResponse {
        error_code: answer.error.code(),
        protocol_type: answer.protocol_type.map(Cow::Owned),
        protocol_name: answer.protocol_name.map(Cow::Owned),
        assignment: Cow::Owned(answer.assignment.into()),
        ..SyncGroupResponse::default()
    })
}
