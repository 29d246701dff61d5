//! ListGroups (16), versions 0 to 5: the groups this broker coordinates, by state (KIP-518) and type (KIP-848).

use std::borrow::Cow;

use base::error::ErrorCode;
use coordinator::{Answer, ListGroupsRequest as List, ListedGroup, Request};
use wire::message::list_groups_response as response;
use wire::message::{ListGroupsRequest, ListGroupsResponse};

use super::{Close, RequestContext, wrong_answer};

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: ListGroupsRequest<'_>,
) -> Result<ListGroupsResponse<'static>, Close> {
    let list = List {
        states: request.states_filter.into_iter().map(Cow::into_owned).collect(),
        types: request.types_filter.into_iter().map(Cow::into_owned).collect(),
    };
    let mut groups = Vec::new();
    let mut error = ErrorCode::None;
    for answer in context.broker.groups.ask_all(|| Request::ListGroups(list.clone())).await {
        match answer {
            Ok(Answer::ListGroups(listed)) => groups.extend(listed.into_iter().map(shown)),
            Ok(other) => error = wrong_answer(&other),
            // A shard that ended while it was asked has no groups here any more.
            Err(ErrorCode::NotCoordinator) => {}
            Err(code) => error = code,
        }
    }
    Ok(ListGroupsResponse { error_code: error.code(), groups, ..ListGroupsResponse::default() })
}

fn shown(group: ListedGroup) -> response::ListedGroup<'static> {
    response::ListedGroup {
        group_id: Cow::Owned(group.group_id),
        protocol_type: Cow::Owned(group.protocol_type),
        group_state: Cow::Borrowed(group.state),
        group_type: Cow::Borrowed(group.group_type),
    }
}
