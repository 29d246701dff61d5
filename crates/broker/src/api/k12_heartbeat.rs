//! Heartbeat (12), versions 0 to 4: a member lives.

use std::borrow::Cow;

use coordinator::{Answer, HeartbeatRequest as Beat, Request};
use wire::message::{HeartbeatRequest, HeartbeatResponse};

use super::{Close, RequestContext, wrong_answer};

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: HeartbeatRequest<'_>,
) -> Result<HeartbeatResponse, Close> {
    let group = request.group_id.into_owned();
    let beat = Beat {
        group_id: group.clone(),
        generation: request.generation_id,
        member_id: request.member_id.into_owned(),
        instance_id: request.group_instance_id.map(Cow::into_owned),
    };
    let code = match context.broker.groups.ask(&group, Request::Heartbeat(beat)).await {
        Ok(Answer::Heartbeat(code)) => code,
        Ok(other) => wrong_answer(&other),
        Err(code) => code,
    };
    Ok(HeartbeatResponse { error_code: code.code(), ..HeartbeatResponse::default() })
}
