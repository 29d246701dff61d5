//! DescribeGroups (15), versions 0 to 6: state and members of groups.

use std::borrow::Cow;
use std::collections::HashMap;

use base::error::ErrorCode;
use coordinator::{Answer, DescribedGroup, DescribedMember, Request};
use wire::message::describe_groups_response as response;
use wire::message::{DescribeGroupsRequest, DescribeGroupsResponse};

use super::{Close, RequestContext, authorized, wrong_answer};

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: DescribeGroupsRequest<'_>,
) -> Result<DescribeGroupsResponse<'static>, Close> {
    let asked: Vec<String> = request.groups.into_iter().map(Cow::into_owned).collect();
    let api_version = context.api_version;
    let make = |groups| Request::DescribeGroups { groups, api_version };
    let mut described = HashMap::new();
    for (groups, answer) in context.broker.groups.ask_each(&asked, make).await {
        let code = match answer {
            Ok(Answer::DescribeGroups(groups)) => {
                described.extend(groups.into_iter().map(|group| (group.group_id.clone(), group)));
                continue;
            }
            Ok(other) => wrong_answer(&other),
            Err(code) => code,
        };
        described.extend(groups.into_iter().map(|group| (group.clone(), refused(group, code))));
    }
    let operations = authorized::on_group(request.include_authorized_operations);
    // In the order asked, also where a group was asked for twice.
    let groups = asked.iter().filter_map(|id| described.get(id)).map(|group| shown(group, operations));
    Ok(DescribeGroupsResponse { groups: groups.collect(), ..DescribeGroupsResponse::default() })
}

fn refused(group_id: String, error: ErrorCode) -> DescribedGroup {
    DescribedGroup {
        error,
        error_message: None,
        group_id,
        state: "",
        protocol_type: String::new(),
        protocol_name: String::new(),
        members: Vec::new(),
    }
}

fn shown(group: &DescribedGroup, operations: i32) -> response::DescribedGroup<'static> {
    let authorized_operations = if group.error.is_error() { authorized::NOT_ASKED } else { operations };
    response::DescribedGroup {
        error_code: group.error.code(),
        error_message: group.error_message.clone().map(Cow::Owned),
        group_id: Cow::Owned(group.group_id.clone()),
        group_state: Cow::Borrowed(group.state),
        protocol_type: Cow::Owned(group.protocol_type.clone()),
        protocol_data: Cow::Owned(group.protocol_name.clone()),
        members: group.members.iter().map(member).collect(),
        authorized_operations,
    }
}

fn member(member: &DescribedMember) -> response::DescribedGroupMember<'static> {
    response::DescribedGroupMember {
        member_id: Cow::Owned(member.member_id.clone()),
        group_instance_id: member.instance_id.clone().map(Cow::Owned),
        client_id: Cow::Owned(member.client_id.clone()),
        client_host: Cow::Owned(member.client_host.clone()),
        member_metadata: Cow::Owned(member.metadata.to_vec()),
        member_assignment: Cow::Owned(member.assignment.to_vec()),
    }
}
