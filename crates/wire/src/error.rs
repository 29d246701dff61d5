//! What can be wrong with bytes from a peer, and with a value that is to be sent.

use crate::VersionRange;

/// Bytes that are not the message they should be.
///
/// Offsets count from the first byte given to the [`Reader`](crate::Reader).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A value ends behind the last byte.
    #[error("at byte {offset}: {wanted} bytes wanted, {left} left")]
    Truncated {
        /// Where the value begins.
        offset: usize,
        /// Length of the value.
        wanted: usize,
        /// Bytes there are.
        left: usize,
    },
    /// A length no value can have: negative, above its type's limit, or more elements than bytes are left for.
    #[error("at byte {offset}: {length} is no possible length of {what}")]
    Length {
        /// Where the length stands.
        offset: usize,
        /// What was to be read.
        what: &'static str,
        /// The length as sent.
        length: i64,
    },
    /// Null where the version knows no null.
    #[error("at byte {offset}: null {what}")]
    Null {
        /// Where the length stands.
        offset: usize,
        /// What was to be read.
        what: &'static str,
    },
    /// A string that is not UTF-8.
    #[error("at byte {offset}: not UTF-8")]
    Utf8 {
        /// Where the string begins.
        offset: usize,
    },
    /// A variable-length number that does not fit 32 bits.
    #[error("at byte {offset}: varint of more than 32 bits")]
    Varint {
        /// Where the number begins.
        offset: usize,
    },
    /// A known tagged field in a version that does not have it, or one whose size is not what it said.
    #[error("at byte {offset}: tagged field {tag} is malformed or not known to this version")]
    Tag {
        /// Where the field's content begins.
        offset: usize,
        /// The tag.
        tag: u32,
    },
    /// No API we speak has this key.
    #[error("unknown API key {0}")]
    UnknownApi(i16),
    /// A version outside the range we speak.
    #[error("{message} has no version {version}, only {supported}")]
    Version {
        /// Name of the message.
        message: &'static str,
        /// The version asked for.
        version: i16,
        /// The versions there are.
        supported: VersionRange,
    },
}

/// A value that cannot be put into bytes of the wanted version: always a mistake of the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The version lacks a field that is neither at its default nor ignorable.
    #[error("{message}.{field} is set, but version {version} lacks it")]
    Absent {
        /// Name of the struct.
        message: &'static str,
        /// Name of the field.
        field: &'static str,
        /// The version to write.
        version: i16,
    },
    /// Null in a version that knows no null there.
    #[error("{message}.{field} is null, which version {version} cannot say")]
    Null {
        /// Name of the struct.
        message: &'static str,
        /// Name of the field.
        field: &'static str,
        /// The version to write.
        version: i16,
    },
    /// Longer than its length field can say.
    #[error("{what} of length {length} is too long")]
    TooLong {
        /// What was to be written.
        what: &'static str,
        /// Its length.
        length: usize,
    },
    /// A version outside the range we speak.
    #[error("{message} has no version {version}, only {supported}")]
    Version {
        /// Name of the message.
        message: &'static str,
        /// The version asked for.
        version: i16,
        /// The versions there are.
        supported: VersionRange,
    },
}
