//! ApiVersions (18), versions 0 to 4: what this broker serves.
//!
//! A version this broker does not know is answered in version 0 with UNSUPPORTED_VERSION and the versions of this
//! one API, so that the client can ask again (KIP-511). No feature is reported: clients switch protocols
//! on them, and none of those is served.

use base::error::ErrorCode;
use wire::message::api_versions_response::ApiVersion;
use wire::message::{ApiVersionsRequest, ApiVersionsResponse};

use super::{Close, RequestContext};
use crate::dispatch::SERVED;
use crate::net::ClientSoftware;

/// From this version on a client says what it is.
const FIRST_VERSION_WITH_SOFTWARE: i16 = 3;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: ApiVersionsRequest<'_>,
) -> Result<ApiVersionsResponse<'static>, Close> {
    if context.api_version >= FIRST_VERSION_WITH_SOFTWARE {
        let (name, version) = (&*request.client_software_name, &*request.client_software_version);
        if !is_software_text(name) || !is_software_text(version) {
            let error_code = ErrorCode::InvalidRequest.code();
            return Ok(ApiVersionsResponse { error_code, ..ApiVersionsResponse::default() });
        }
        let software = ClientSoftware { name: name.to_owned(), version: version.to_owned() };
        // A client that says it again, or something else, is kept as it was first.
        let _ = context.connection.software.set(software);
    }
    Ok(ApiVersionsResponse {
        api_keys: SERVED.iter().map(|served| served.advertised()).collect(),
        finalized_features_epoch: i64::try_from(context.broker.image().version).unwrap_or(i64::MAX),
        ..ApiVersionsResponse::default()
    })
}

/// The answer, to be sent as version 0, to a version this broker does not know.
pub(crate) fn unknown_version() -> ApiVersionsResponse<'static> {
    let this: Vec<ApiVersion> = SERVED
        .iter()
        .filter(|served| served.key == wire::ApiKey::ApiVersions)
        .map(|served| served.advertised())
        .collect();
    let error_code = ErrorCode::UnsupportedVersion.code();
    ApiVersionsResponse { error_code, api_keys: this, ..ApiVersionsResponse::default() }
}

/// Letters and digits, with dashes and points between them.
fn is_software_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    is_edge(bytes.first())
        && is_edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_texts_are_those_kafka_takes() {
        for good in ["a", "apache-kafka-java", "4.1.0", "a--b..c", "Z9"] {
            assert!(is_software_text(good), "{good}");
        }
        for bad in ["", "-a", "a-", ".", "a b", "a_b", "ž", "a\n", "1.0+2"] {
            assert!(!is_software_text(bad), "{bad}");
        }
    }
}
