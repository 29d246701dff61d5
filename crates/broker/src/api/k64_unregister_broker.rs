//! UnregisterBroker (64), version 0: takes a broker off the list for good.
//!
//! Kafka's controller does it whatever the broker still has. Here it is refused as long as anything would be lost with the
//! broker, or as long as it runs: the answer says which ([`metadata::Residence`]).

use std::borrow::Cow;

use base::error::ErrorCode;
use base::ids::BrokerId;
use metadata::{Command, CommandResult, Refusal};
use wire::message::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::{Close, RequestContext};
use crate::topics::unavailable;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: UnregisterBrokerRequest,
) -> Result<UnregisterBrokerResponse<'static>, Close> {
    let broker = BrokerId(request.broker_id);
    let outcome = match context.broker.metadata.propose(Command::UnregisterBroker { broker }).await {
        Ok(CommandResult::Items(mut items)) => items.pop().unwrap_or_else(|| Err(unavailable())),
        other => {
            tracing::error!(?other, %broker, "a broker cannot be unregistered");
            Err(unavailable())
        }
    };
    let (code, message) = match outcome {
        Ok(()) => (ErrorCode::None, None),
        Err(Refusal { code, message }) => (code, Some(Cow::Owned(message))),
    };
    Ok(UnregisterBrokerResponse {
        error_code: code.code(),
        error_message: message,
        ..UnregisterBrokerResponse::default()
    })
}
