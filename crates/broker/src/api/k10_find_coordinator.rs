//! FindCoordinator (10), versions 0 to 6: which broker looks after a group.
//!
//! With one broker it is always this one. The topic behind it is made when it is first asked for, before the answer, so
//! that the client's next request is served; Kafka answers COORDINATOR_NOT_AVAILABLE meanwhile.

use std::borrow::Cow;
use std::collections::HashSet;

use base::error::ErrorCode;
use wire::message::find_coordinator_response::Coordinator;
use wire::message::{FindCoordinatorRequest, FindCoordinatorResponse};

use super::{Close, RequestContext};
use crate::turns::Turns;

/// Version from which a request asks for several keys (KIP-699).
const KEYS_VERSION: i16 = 4;

/// What Kafka has in the place of a message before [`KEYS_VERSION`] when there is nothing wrong; later it is empty.
const NO_ERROR: &str = "NONE";

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: FindCoordinatorRequest<'_>,
) -> Result<FindCoordinatorResponse<'static>, Close> {
    let found = find(context, request.key_type).await;
    if context.api_version < KEYS_VERSION {
        let Coordinator { node_id, host, port, error_code, error_message, .. } =
            coordinator(context, "", found);
        let error_message = if found.is_ok() { Some(Cow::Borrowed(NO_ERROR)) } else { error_message };
        return Ok(FindCoordinatorResponse {
            error_code,
            error_message,
            node_id,
            host,
            port,
            ..FindCoordinatorResponse::default()
        });
    }
    // Each is answered once, however often it is named.
    let mut named = HashSet::new();
    let mut turns = Turns::default();
    let mut coordinators = Vec::new();
    for key in &request.coordinator_keys {
        if named.insert(&**key) {
            coordinators.push(coordinator(context, key, found));
        }
        turns.done(1).await;
    }
    Ok(FindCoordinatorResponse { coordinators, ..FindCoordinatorResponse::default() })
}

async fn find(context: &RequestContext<'_>, key_type: i8) -> Result<(), (ErrorCode, &'static str)> {
    match key_type {
        GROUP => {
            let ready = context.broker.groups.ensure(context.broker).await;
            ready.map_err(|code| (code, "The topic of groups cannot be created yet."))
        }
        // Fatal to every client; a code that is worth a retry would let it try for ever.
        TRANSACTION => Err((
            ErrorCode::TransactionalIdAuthorizationFailed,
            "Transactions are not served by this broker.",
        )),
        _ => Err((ErrorCode::InvalidRequest, "There are no coordinators of this type.")),
    }
}

fn coordinator(
    context: &RequestContext<'_>,
    key: &str,
    found: Result<(), (ErrorCode, &'static str)>,
) -> Coordinator<'static> {
    let key = Cow::Owned(key.to_owned());
    match found {
        Ok(()) => {
            let address = context.connection.advertised();
            Coordinator {
                key,
                node_id: context.broker.id.0,
                host: Cow::Owned(address.host),
                port: i32::from(address.port),
                error_code: ErrorCode::None.code(),
                error_message: Some(Cow::Borrowed("")),
            }
        }
        Err((code, message)) => Coordinator {
            key,
            node_id: -1,
            host: Cow::Borrowed(""),
            port: -1,
            error_code: code.code(),
            error_message: Some(Cow::Borrowed(message)),
        },
    }
}
