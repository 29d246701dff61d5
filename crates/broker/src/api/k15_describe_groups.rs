//! DescribeGroups (15), versions 0 to 6: state and members of groups.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use base::error::ErrorCode;
use coordinator::{Answer, DescribedGroup, DescribedMember, Request};
use wire::message::describe_groups_response as response;
use wire::message::{DescribeGroupsRequest, DescribeGroupsResponse};

use super::{Close, RequestContext, authorized, wrong_answer};
use crate::turns::Turns;

/// Bytes of members after which no further group is told: one request may name all groups, and each of them often.
const MEMBER_BYTES_MAX: usize = 32 << 20;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: DescribeGroupsRequest<'_>,
) -> Result<DescribeGroupsResponse<'static>, Close> {
    let asked: Vec<String> = request.groups.into_iter().map(Cow::into_owned).collect();
    let api_version = context.api_version;
    let make = |groups| Request::DescribeGroups { groups, api_version };
    let mut described = HashMap::new();
    let mut seen = HashSet::new();
    let each: Vec<String> = asked.iter().filter(|group| seen.insert(group.as_str())).cloned().collect();
    let mut turns = Turns::default();
    for (groups, answer) in context.broker.groups.ask_each(&each, make).await {
        turns.done(groups.len()).await;
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
    let mut groups = Vec::with_capacity(asked.len());
    let mut told_bytes = 0;
    for id in asked {
        let Some(group) = described.get(&id) else { continue };
        if told_bytes < MEMBER_BYTES_MAX {
            told_bytes += group.members.iter().map(member_bytes).sum::<usize>();
            groups.push(shown(group, operations));
        } else {
            // Clients ask again for those groups that are answered so.
            groups.push(shown(&refused(id, ErrorCode::CoordinatorLoadInProgress), operations));
        }
        turns.done(1 + group.members.len()).await;
    }
    Ok(DescribeGroupsResponse { groups, ..DescribeGroupsResponse::default() })
}

/// About what a member takes in an answer.
fn member_bytes(member: &DescribedMember) -> usize {
    let names = [&member.member_id, &member.client_id, &member.client_host];
    let names: usize = names.iter().map(|name| name.len()).sum();
    names + member.metadata.len() + member.assignment.len()
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
