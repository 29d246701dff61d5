//! FindCoordinator (10), versions 0 to 6: which broker looks after a group.
//!
//! It is the leader of the group's partition of the topic behind it. The topic is made when it is first asked for, before the answer, so
//! that the client's next request is served; Kafka answers COORDINATOR_NOT_AVAILABLE meanwhile.

use std::borrow::Cow;
use std::collections::HashSet;

use base::error::ErrorCode;
use base::ids::BrokerId;
use wire::message::find_coordinator_response::Coordinator;
use wire::message::{FindCoordinatorRequest, FindCoordinatorResponse};

use super::cluster::{self, BrokerView};
use super::{Close, RequestContext};
use crate::groups::Groups;
use crate::turns::Turns;

/// Version from which a request asks for several keys (KIP-699).
const KEYS_VERSION: i16 = 4;

/// What Kafka has in the place of a message before [`KEYS_VERSION`] when there is nothing wrong; later it is empty.
const NO_ERROR: &str = "NONE";

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// Why there is no coordinator, and what is said of it.
type NotFound = (ErrorCode, &'static str);

/// The broker that leads the group's partition is down, or does not listen where the client asks.
const NO_LEADER: NotFound =
    (ErrorCode::CoordinatorNotAvailable, "No broker leads the partition of the group at the moment.");

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: FindCoordinatorRequest<'_>,
) -> Result<FindCoordinatorResponse<'static>, Close> {
    let ready = ready(context, request.key_type).await;
    let image = context.broker.image();
    let brokers = cluster::brokers(context, &image);
    let find = |key: &str| {
        ready?;
        let leader = Groups::coordinator(&image, key);
        let is_leader = |broker: &&BrokerView| Some(BrokerId(broker.id)) == leader;
        brokers.iter().find(is_leader).cloned().ok_or(NO_LEADER)
    };
    if context.api_version < KEYS_VERSION {
        let found = find(&request.key);
        let no_error = found.is_ok();
        let Coordinator { node_id, host, port, error_code, error_message, .. } = coordinator("", found);
        let error_message = if no_error { Some(Cow::Borrowed(NO_ERROR)) } else { error_message };
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
            coordinators.push(coordinator(key, find(key)));
        }
        turns.done(1).await;
    }
    Ok(FindCoordinatorResponse { coordinators, ..FindCoordinatorResponse::default() })
}

/// Sees to it that the topic behind is there.
async fn ready(context: &RequestContext<'_>, key_type: i8) -> Result<(), NotFound> {
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

fn coordinator(key: &str, found: Result<BrokerView, NotFound>) -> Coordinator<'static> {
    let key = Cow::Owned(key.to_owned());
    match found {
        Ok(broker) => Coordinator {
            key,
            node_id: broker.id,
            host: Cow::Owned(broker.address.host),
            port: i32::from(broker.address.port),
            error_code: ErrorCode::None.code(),
            error_message: Some(Cow::Borrowed("")),
        },
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
