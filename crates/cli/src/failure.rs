//! How a command fails: what happened, and how to go on.

use std::fmt;

use base::error::ErrorCode;
use client::ClientError;

/// Why a command did not do its work. Shown as `error: …`, and `help: …` where there is advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    message: String,
    help: Option<String>,
    /// Whoever read the output went away: nothing is to be told to anybody.
    quiet: bool,
    /// The command line is wrong, as opposed to the world.
    usage: bool,
}

/// The result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// What happened, one sentence without the point.
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), help: None, quiet: false, usage: false }
    }

    /// What is wrong with the command line, one sentence without the point.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure { usage: true, ..Failure::new(message) }
    }

    /// The exit status that goes with it: 2 for a wrong command line, as for what the parser refuses.
    pub(crate) fn exit_status(&self) -> u8 {
        if self.usage { 2 } else { 1 }
    }

    /// The reader of standard output went away, as `| head` does: an end, not an error.
    pub(crate) fn reader_gone() -> Failure {
        Failure { quiet: true, ..Failure::new("nobody reads the output any more") }
    }

    /// True for [`Failure::reader_gone`].
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Adds how to go on.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Failure {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n help: {help}"),
            None => Ok(()),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let failure = Failure::new(error.to_string());
        match advice(&error) {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}

fn advice(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::Bootstrap { tried } if tried.iter().any(|e| matches!(e, ClientError::Closed { .. })) => {
            Some("something listens there; does it speak Kafka's protocol, without TLS and login?")
        }
        ClientError::Bootstrap { .. } | ClientError::Connect { .. } => {
            Some("is a broker running there? `vltava serve` starts one; `-b HOST:PORT` names another")
        }
        ClientError::Broker {
            code: ErrorCode::KafkaStorageError | ErrorCode::LeaderNotAvailable, ..
        } => advice_while_trying(error),
        ClientError::Closed { .. } => {
            Some("does that port speak Kafka's protocol without TLS or login? Others are not spoken yet")
        }
        ClientError::Broker { subject, code: ErrorCode::UnknownTopicOrPartition, .. }
            if subject.starts_with("partition ") =>
        {
            Some("`vltava topic describe` shows the partitions there are")
        }
        ClientError::Broker { code, .. } => advice_for_code(*code),
        _ => None,
    }
}

/// What may help while a call is being tried again.
pub(crate) fn advice_while_trying(error: &ClientError) -> Option<&'static str> {
    match error.code()? {
        ErrorCode::KafkaStorageError => {
            Some("the disk may be full or broken; the broker's log says more, and so does its /healthz")
        }
        ErrorCode::LeaderNotAvailable => Some(
            "no broker serves the partition; `vltava topic describe` shows it, the broker's log says why",
        ),
        _ => None,
    }
}

fn advice_for_code(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::UnknownTopicOrPartition => Some("`vltava topic list` shows the topics there are"),
        ErrorCode::GroupIdNotFound => Some("`vltava group list` shows the groups there are"),
        ErrorCode::TopicAlreadyExists => Some("`vltava topic describe` shows it"),
        ErrorCode::NonEmptyGroup => {
            Some("stop the members of the group first; `vltava group describe` names them")
        }
        ErrorCode::InvalidReplicationFactor => {
            Some("there must be a broker for each copy; `vltava cluster info` counts them")
        }
        ErrorCode::OffsetOutOfRange => Some("`vltava topic offsets` shows where partitions begin and end"),
        ErrorCode::InvalidConfig => Some("`vltava docs config` lists every key with the values it takes"),
        ErrorCode::MessageTooLarge => Some("the topic's `max.message.bytes` says how large a batch may be"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_happened_and_how_to_go_on() {
        let failure = Failure::new("reading `a`: no such file").help("name another");
        assert_eq!(failure.to_string(), "error: reading `a`: no such file\n help: name another");
        assert_eq!(Failure::new("x").to_string(), "error: x");
    }

    #[test]
    fn a_wrong_command_line_has_a_status_of_its_own() {
        assert_eq!(Failure::usage("x").help("y").exit_status(), 2);
        assert_eq!(Failure::new("x").exit_status(), 1);
    }

    #[test]
    fn refusals_of_a_broker_carry_advice() {
        for (subject, code, advice) in [
            ("group `g`", ErrorCode::NonEmptyGroup, "stop the members"),
            ("topic `t`", ErrorCode::UnknownTopicOrPartition, "`vltava topic list`"),
            ("partition 7 of topic `t`", ErrorCode::UnknownTopicOrPartition, "`vltava topic describe`"),
            ("topic `t`", ErrorCode::InvalidConfig, "`vltava docs config`"),
        ] {
            let refused = ClientError::Broker { subject: subject.to_owned(), code, message: None };
            let text = Failure::from(refused).to_string();
            assert!(text.starts_with(&format!("error: {subject}: ")), "{text}");
            assert!(text.contains(&format!("\n help: {advice}")), "{text}");
        }
    }
}
