//! DeleteGroups (42), versions 0 to 2: groups without members go, with their offsets (KIP-229).

use std::borrow::Cow;
use std::collections::HashMap;

use coordinator::{Answer, Request};
use wire::message::delete_groups_response::DeletableGroupResult;
use wire::message::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::{Close, RequestContext, wrong_answer};

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: DeleteGroupsRequest<'_>,
) -> Result<DeleteGroupsResponse<'static>, Close> {
    let mut asked: Vec<String> = request.groups_names.into_iter().map(Cow::into_owned).collect();
    // Each group once: the second deletion would only say that the group is gone.
    let mut seen = std::collections::HashSet::new();
    asked.retain(|group| seen.insert(group.clone()));
    let mut outcomes = HashMap::new();
    let make = |groups| Request::DeleteGroups { groups };
    for (groups, answer) in context.broker.groups.ask_each(&asked, make).await {
        let code = match answer {
            Ok(Answer::DeleteGroups(results)) => {
                outcomes.extend(results);
                continue;
            }
            Ok(other) => wrong_answer(&other),
            Err(code) => code,
        };
        outcomes.extend(groups.into_iter().map(|group| (group, code)));
    }
    let results = asked.into_iter().filter_map(|group| {
        let code = outcomes.get(&group)?.code();
        Some(DeletableGroupResult { group_id: Cow::Owned(group), error_code: code })
    });
    Ok(DeleteGroupsResponse { results: results.collect(), ..DeleteGroupsResponse::default() })
}
