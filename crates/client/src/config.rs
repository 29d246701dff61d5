//! Settings of a client, and the limits that need no setting.

use std::time::Duration;

/// Requests that may wait for their answer on one connection; the next waits for room.
pub(crate) const IN_FLIGHT_MAX: usize = 64;
/// Largest answer a client reads, bytes: Kafka's largest Fetch answer and room to spare.
pub(crate) const ANSWER_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Most bytes reserved for an answer before any of it has come.
pub(crate) const ANSWER_RESERVE_BYTES: usize = 1024 * 1024;
/// Least pause between two attempts of a call.
pub(crate) const RETRY_PAUSE_MIN: Duration = Duration::from_millis(20);
/// Greatest pause between two attempts of a call.
pub(crate) const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Settings of a [`Client`](crate::Client).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Addresses (`host:port`) to begin at; one that answers is enough.
    pub bootstrap: Vec<String>,
    /// What brokers log and count this client as.
    pub client_id: String,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for an answer, over and above what the request itself allows the broker to wait.
    pub request_timeout: Duration,
    /// How long a call is tried again after errors that may pass.
    pub retry_for: Duration,
}

impl ClientConfig {
    /// The defaults, with these bootstrap addresses.
    pub fn new(bootstrap: impl IntoIterator<Item = impl Into<String>>) -> ClientConfig {
        ClientConfig {
            bootstrap: bootstrap.into_iter().map(Into::into).collect(),
            client_id: "vltava".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            retry_for: Duration::from_secs(30),
        }
    }
}
