//! The stored form of commands and images: protocol buffers, written with tagged fields so that a
//! version skips what it does not know.
//!
//! Numbers of fields and of kinds are part of the on-disk format: add, never reuse. A command of a
//! kind this version does not know is an error, because skipping it would make images differ.

mod chain;
mod command;
mod image;

/// Bytes that are not a stored command or image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// Not protocol buffers, or of other types.
    #[error("the bytes are no record: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A field without which the record means nothing is missing, or has an impossible value.
    #[error("a record has no valid {0}")]
    Field(&'static str),
    /// Of a level that this version does not know.
    #[error("it is of metadata.version {0}, and this version knows {known}", known = crate::MetadataVersions::SUPPORTED)]
    MetadataVersion(i32),
}

pub(crate) use command::{decode_command, encode_command};
pub(crate) use image::{decode_image, encode_image};

pub(crate) fn uuid(bytes: &[u8]) -> Result<base::ids::Uuid, RecordError> {
    bytes.try_into().map(base::ids::Uuid).map_err(|_| RecordError::Field("id"))
}

fn required<T>(value: Option<T>, name: &'static str) -> Result<T, RecordError> {
    value.ok_or(RecordError::Field(name))
}
