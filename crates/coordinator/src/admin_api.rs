//! DescribeGroups and ListGroups: how groups look from outside.

use std::collections::BTreeSet;

use base::error::ErrorCode;

use crate::answer::{DescribedGroup, DescribedMember, ListedGroup};
use crate::group::{Group, GroupState};
use crate::member::Member;
use crate::request::ListGroupsRequest;

/// State shown for a group that does not exist.
const DEAD: &str = "Dead";
/// The only type of group there is so far (KIP-848 adds others).
const CLASSIC: &str = "classic";
/// From here on describing an unknown group is an error.
const FIRST_DESCRIBE_VERSION_WITH_NOT_FOUND: i16 = 6;

/// A group as DescribeGroups shows it. Metadata is shown while the protocol it belongs to is certain.
pub(crate) fn describe(group: &Group) -> DescribedGroup {
    let protocol_name = group.protocol_name.as_deref().filter(|_| group.state == GroupState::Stable);
    let member = |member: &Member| DescribedMember {
        member_id: member.id.to_string(),
        instance_id: member.instance_id.as_deref().map(str::to_owned),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        metadata: member.metadata(protocol_name),
        assignment: member.assignment.clone(),
    };
    DescribedGroup {
        error: ErrorCode::None,
        error_message: None,
        group_id: group.id.to_string(),
        state: group.state.name(),
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        protocol_name: protocol_name.unwrap_or_default().to_owned(),
        members: group.members.values().map(member).collect(),
    }
}

/// What DescribeGroups says of a group that does not exist.
pub(crate) fn describe_unknown(group_id: String, api_version: i16) -> DescribedGroup {
    let is_error = api_version >= FIRST_DESCRIBE_VERSION_WITH_NOT_FOUND;
    DescribedGroup {
        error: if is_error { ErrorCode::GroupIdNotFound } else { ErrorCode::None },
        error_message: is_error.then(|| format!("Group {group_id} not found.")),
        group_id,
        state: DEAD,
        protocol_type: String::new(),
        protocol_name: String::new(),
        members: Vec::new(),
    }
}

/// The groups that pass the filters.
pub(crate) fn list<'a>(
    groups: impl Iterator<Item = &'a Group>,
    request: &ListGroupsRequest,
) -> Vec<ListedGroup> {
    let states: BTreeSet<String> = request.states.iter().map(|state| state.trim().to_lowercase()).collect();
    let is_type_wanted =
        request.types.is_empty() || request.types.iter().any(|name| name.eq_ignore_ascii_case(CLASSIC));
    let is_wanted = |group: &&Group| {
        is_type_wanted && (states.is_empty() || states.contains(&group.state.name().to_lowercase()))
    };
    let listed = |group: &Group| ListedGroup {
        group_id: group.id.to_string(),
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        state: group.state.name(),
        group_type: CLASSIC,
    };
    groups.filter(is_wanted).map(listed).collect()
}
