//! What can go wrong between a client and a cluster.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::batch::{BatchError, BuildError};
use base::error::ErrorCode;
use wire::{ApiKey, DecodeError, EncodeError, VersionRange};

/// The result of a call.
pub type Result<T> = std::result::Result<T, ClientError>;

/// Why a call failed. Cloning is cheap, because one failure may end many calls.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at an address.
    #[error("no connection to {address}: {}", io_text(.source))]
    Connect {
        /// Host and port.
        address: Arc<str>,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// None of the bootstrap addresses leads to a cluster.
    #[error("no broker answers at {}", list(.tried))]
    Bootstrap {
        /// One failure for each address, in the order they were tried.
        tried: Vec<ClientError>,
    },
    /// A connection ended before the answer came.
    #[error("the connection to {address} ended: {reason}")]
    Closed {
        /// Host and port.
        address: Arc<str>,
        /// Why.
        reason: Arc<str>,
    },
    /// The answer did not come in time.
    #[error("{address} did not answer {what} within {} ms", .after.as_millis())]
    Timeout {
        /// Host and port.
        address: Arc<str>,
        /// What was asked.
        what: &'static str,
        /// How long the client waited.
        after: Duration,
    },
    /// The answer is not what the protocol says.
    #[error("{address} answered {what} with bytes that cannot be read: {source}")]
    Malformed {
        /// Host and port.
        address: Arc<str>,
        /// What was asked.
        what: &'static str,
        /// What is wrong.
        source: DecodeError,
    },
    /// Client and broker have no version of an API in common.
    #[error("{address} {}; this client speaks versions {ours}", theirs_text(*.api, .theirs))]
    UnsupportedApi {
        /// Host and port.
        address: Arc<str>,
        /// The API.
        api: ApiKey,
        /// What this client speaks.
        ours: VersionRange,
        /// What the broker speaks; `None` when it does not know the API.
        theirs: Option<VersionRange>,
    },
    /// A request that cannot be put into bytes.
    #[error("the request cannot be written: {0}")]
    Encode(#[from] EncodeError),
    /// Records that make no batch.
    #[error("the records cannot be written: {0}")]
    Build(#[from] BuildError),
    /// A batch that cannot be read.
    #[error("{partition}, offset {offset}: {source}")]
    Batch {
        /// Which partition.
        partition: crate::PartitionName,
        /// Position at which the client read.
        offset: i64,
        /// What is wrong with the batch.
        source: BatchError,
    },
    /// The broker refused.
    #[error("{subject}: {} ({})", text_of(*.code, .message), .code.name())]
    Broker {
        /// What it was about, as in "topic `orders`".
        subject: String,
        /// Kafka's error code.
        code: ErrorCode,
        /// The broker's own words, if it has any.
        message: Option<String>,
    },
    /// The broker left out what it was asked for.
    #[error("the answer says nothing about {subject}")]
    Missing {
        /// What was asked for.
        subject: String,
    },
    /// A group has no position in a partition and may not begin anywhere else.
    #[error("group `{group}` has committed nothing for {partition}")]
    NothingCommitted {
        /// The group.
        group: String,
        /// The partition.
        partition: crate::PartitionName,
    },
    /// A record larger than the producer's limit.
    #[error("a record of {size} bytes is larger than the limit of {limit}")]
    RecordTooLarge {
        /// Size of the record, bytes.
        size: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// The producer, consumer or client is closed.
    #[error("the {0} is closed")]
    Ended(&'static str),
}

fn list(tried: &[ClientError]) -> String {
    let texts = tried.iter().map(|error| match error {
        ClientError::Connect { address, source } => format!("{address} ({})", io_text(source)),
        ClientError::Closed { address, reason } => format!("{address} ({reason})"),
        other => other.to_string(),
    });
    texts.collect::<Vec<_>>().join(", ")
}

/// What the system says, without the number that says it again.
pub fn io_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

fn theirs_text(api: ApiKey, theirs: &Option<VersionRange>) -> String {
    match theirs {
        Some(range) => format!("speaks versions {range} of {api}"),
        None => format!("does not know {api}"),
    }
}

fn text_of(code: ErrorCode, message: &Option<String>) -> &str {
    let text = message.as_deref().filter(|text| !text.is_empty()).unwrap_or(code.message());
    text.strip_suffix('.').unwrap_or(text)
}

impl ClientError {
    /// The refusal of a broker, or nothing for [`ErrorCode::None`]. `subject` names what it was about.
    pub fn check(code: i16, message: Option<&str>, subject: impl FnOnce() -> String) -> Result<()> {
        match ErrorCode::from_code(code) {
            ErrorCode::None => Ok(()),
            code => {
                Err(ClientError::Broker { subject: subject(), code, message: message.map(str::to_owned) })
            }
        }
    }

    /// Kafka's error code, when a broker refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same call may succeed when made again a little later.
    pub fn retriable(&self) -> bool {
        match self {
            ClientError::Connect { .. } | ClientError::Closed { .. } | ClientError::Timeout { .. } => true,
            ClientError::Bootstrap { tried } => tried.iter().all(ClientError::retriable),
            // A broker that left: what it did another one does, or will.
            ClientError::Broker { code: ErrorCode::BrokerNotAvailable, .. } => true,
            ClientError::Broker { code, .. } => code.retriable(),
            _ => false,
        }
    }

    /// Whether the answer was lost or ambiguous, so that the request may have been carried out all the same.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            ClientError::Closed { .. } | ClientError::Timeout { .. } | ClientError::Malformed { .. } => true,
            ClientError::Broker { code, .. } => matches!(
                code,
                ErrorCode::RequestTimedOut
                    | ErrorCode::NotEnoughReplicasAfterAppend
                    | ErrorCode::UnknownServerError
                    | ErrorCode::KafkaStorageError
            ),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_sentences() {
        let refused = ClientError::check(3, None, || "topic `orders`".to_owned()).unwrap_err();
        assert!(refused.to_string().starts_with("topic `orders`: "), "{refused}");
        assert!(refused.to_string().ends_with("(UNKNOWN_TOPIC_OR_PARTITION)"), "{refused}");
        assert!(refused.retriable() && !refused.outcome_unknown());
        let said = ClientError::check(37, Some("Too few."), || "topic `orders`".to_owned()).unwrap_err();
        assert_eq!(said.to_string(), "topic `orders`: Too few (INVALID_PARTITIONS)");
        let source = Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        let tried = vec![ClientError::Connect { address: "a:1".into(), source }];
        assert_eq!(
            ClientError::Bootstrap { tried }.to_string(),
            "no broker answers at a:1 (connection refused)"
        );
        let tried = vec![ClientError::Closed { address: "a:1".into(), reason: "it spoke HTTP".into() }];
        assert_eq!(ClientError::Bootstrap { tried }.to_string(), "no broker answers at a:1 (it spoke HTTP)");
        assert_eq!(io_text(&io::Error::from_raw_os_error(2)), "No such file or directory");
    }
}
