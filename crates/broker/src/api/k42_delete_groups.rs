//! DeleteGroups (42), versions 0 to 2: groups without members go, with their offsets (KIP-229).

use std::borrow::Cow;
use std::collections::HashMap;

use coordinator::{Answer, Request};
use wire::message::delete_groups_response::DeletableGroupResult;
use wire::message::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::{Close, RequestContext, wrong_answer};
use crate::turns::Turns;

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
    let mut turns = Turns::default();
    for (groups, answer) in context.broker.groups.ask_each(&asked, make).await {
        turns.done(groups.len()).await;
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
    let mut results = Vec::with_capacity(asked.len());
    for group in asked {
        turns.done(1).await;
        let Some(code) = outcomes.get(&group) else { continue };
        results.push(DeletableGroupResult { error_code: code.code(), group_id: Cow::Owned(group) });
    }
    Ok(DeleteGroupsResponse { results, ..DeleteGroupsResponse::default() })
}
