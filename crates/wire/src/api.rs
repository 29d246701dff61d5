//! API keys and versions: which there are, which are flexible, which header goes with which.

use std::fmt;

pub use crate::message::ApiKey;
use crate::{DecodeError, EncodeError, Reader, Writer};

/// An inclusive range of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VersionRange {
    /// The oldest.
    pub min: i16,
    /// The newest.
    pub max: i16,
}

impl VersionRange {
    /// True if `version` is one of these.
    pub const fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// From the oldest to the newest.
    pub fn iter(self) -> std::ops::RangeInclusive<i16> {
        self.min..=self.max
    }

    /// Refuses to read a version outside the range.
    pub(crate) fn check_decode(self, message: &'static str, version: i16) -> Result<(), DecodeError> {
        let supported = self;
        if self.contains(version) {
            Ok(())
        } else {
            Err(DecodeError::Version { message, version, supported })
        }
    }

    /// Refuses to write a version outside the range.
    pub(crate) fn check_encode(self, message: &'static str, version: i16) -> Result<(), EncodeError> {
        let supported = self;
        if self.contains(version) {
            Ok(())
        } else {
            Err(EncodeError::Version { message, version, supported })
        }
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

/// A message of any kind; the generated structs offer the same functions without this trait in scope.
pub trait Message<'a>: Sized {
    /// Kafka's name of the message.
    const NAME: &'static str;
    /// The versions that can be read and written.
    const VERSIONS: VersionRange;

    /// Reads a message of `version`; what follows it is left unread.
    fn decode(reader: &mut Reader<'a>, version: i16) -> Result<Self, DecodeError>;

    /// Appends the message as `version` has it; after an error the writer holds a part of it.
    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError>;
}

/// The body of a request.
pub trait RequestMessage<'a>: Message<'a> {
    /// The API it belongs to.
    const API_KEY: ApiKey;
    /// What answers it.
    type Response<'r>: ResponseMessage<'r>;
}

/// The body of a response.
pub trait ResponseMessage<'a>: Message<'a> {
    /// The API it belongs to.
    const API_KEY: ApiKey;
}

impl ApiKey {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The API with this number, if we speak it.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.binary_search_by_key(&code, |key| key.code()).ok().map(|index| Self::ALL[index])
    }

    /// True if `version` has tagged fields and compact lengths (KIP-482), were it beyond those we speak.
    pub fn is_flexible(self, version: i16) -> bool {
        self.first_flexible().is_some_and(|first| version >= first)
    }

    /// Version of the header of a request.
    pub fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// Version of the header of a response. That of ApiVersions is 0 for ever, because the client may
    /// not know yet what the broker speaks (KIP-511).
    pub fn response_header_version(self, version: i16) -> i16 {
        if self != Self::ApiVersions && self.is_flexible(version) { 1 } else { 0 }
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_found_by_number() {
        assert!(ApiKey::ALL.is_sorted_by_key(|key| key.code()));
        for key in ApiKey::ALL {
            assert_eq!(ApiKey::from_code(key.code()), Some(*key));
        }
        for gone in [-1, 4, 7, 999] {
            assert_eq!(ApiKey::from_code(gone), None);
        }
    }

    #[test]
    fn header_versions_follow_flexibility_but_for_api_versions() {
        assert_eq!(ApiKey::Fetch.request_header_version(11), 1);
        assert_eq!(ApiKey::Fetch.request_header_version(12), 2);
        assert_eq!(ApiKey::Fetch.response_header_version(12), 1);
        assert_eq!(ApiKey::SaslHandshake.request_header_version(1), 1);
        assert_eq!(ApiKey::ApiVersions.request_header_version(99), 2);
        for version in ApiKey::ApiVersions.versions().iter() {
            assert_eq!(ApiKey::ApiVersions.response_header_version(version), 0);
        }
    }

    #[test]
    fn versions_are_those_kafka_4_3_serves() {
        let served: Vec<String> =
            ApiKey::ALL.iter().map(|key| format!("{}:{}", key.code(), key.versions())).collect();
        let kafka = "0:3-13 1:4-18 2:1-11 3:0-13 8:2-10 9:1-10 10:0-6 11:0-9 12:0-4 13:0-5 14:0-5 15:0-6 16:0-5 \
             17:0-1 18:0-4 19:2-7 20:1-6 21:0-2 22:0-5 23:2-4 24:0-5 25:0-4 26:0-5 27:1-2 28:0-5 29:1-3 30:1-3 \
             31:1-3 32:1-4 33:0-2 34:1-2 35:1-5 36:0-2 37:0-3 42:0-2 43:0-2 44:0-1 45:0-1 46:0-0 47:0-0 48:0-1 \
             49:0-1 50:0-0 51:0-0 55:0-2 57:0-2 60:0-2 61:0-0 64:0-0 65:0-0 66:0-2 68:0-1 69:0-1 71:0-0 72:0-0 \
             74:0-1 75:0-0";
        assert_eq!(served, kafka.split_whitespace().collect::<Vec<_>>());
    }
}
