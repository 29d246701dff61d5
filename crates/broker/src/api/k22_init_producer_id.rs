//! InitProducerId (22), versions 0 to 5: an id for an idempotent producer (KIP-98, KIP-360).
//!
//! A producer without transactions gets a fresh id at epoch 0, also when it shows an old id to have its
//! epoch raised: a fresh id is as good, and Kafka answers so too. Transactional ids are not served yet.

use base::error::ErrorCode;
use wire::message::{InitProducerIdRequest, InitProducerIdResponse};

use super::{Close, RequestContext};

/// Stands for no producer id, and for no epoch. A request shows both or neither.
const NONE: i64 = -1;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: InitProducerIdRequest<'_>,
) -> Result<InitProducerIdResponse, Close> {
    let result = match &request.transactional_id {
        _ if (request.producer_id == NONE) != (i64::from(request.producer_epoch) == NONE) => {
            Err(ErrorCode::InvalidRequest)
        }
        None => context.broker.producer_ids.next().await,
        Some(id) if id.is_empty() => Err(ErrorCode::InvalidRequest),
        // Fatal to every client, unlike the codes that make it look for a coordinator again.
        Some(_) => Err(ErrorCode::TransactionalIdAuthorizationFailed),
    };
    Ok(match result {
        Ok(producer_id) => {
            InitProducerIdResponse { producer_id, producer_epoch: 0, ..InitProducerIdResponse::default() }
        }
        Err(code) => InitProducerIdResponse {
            error_code: code.code(),
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdResponse::default()
        },
    })
}
