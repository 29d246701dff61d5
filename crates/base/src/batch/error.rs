//! What can be wrong with a batch, and which error a client hears for it.

use super::{Compression, HEADER_LEN, MIN_BATCH_LENGTH};
use crate::error::ErrorCode;

/// Why bytes are not a batch, or a batch cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does. At the end of a segment this is a torn tail, at the end of
    /// a fetch answer a batch cut by the size limit.
    #[error("the batch needs {needed} bytes but only {available} are there")]
    Truncated {
        /// Size of the batch, or of its header as long as the length field is not there yet.
        needed: usize,
        /// Bytes at hand.
        available: usize,
    },
    /// The length field is too small to hold a header.
    #[error("batch length {0} is below {MIN_BATCH_LENGTH}, the least a batch can have")]
    InvalidLength(i32),
    /// A message format other than version 2.
    #[error("message format {0} is not supported, only format 2 is")]
    UnsupportedMagic(i8),
    /// Negative last offset delta or record count, or offsets beyond 2^63 - 1.
    #[error("the batch claims {record_count} records up to offset delta {last_offset_delta}")]
    InvalidCount {
        /// Record count of the header.
        record_count: i32,
        /// Last offset delta of the header.
        last_offset_delta: i32,
    },
    /// The bytes are not those the writer wrote.
    #[error("the batch has CRC {stored:#010x} but its bytes give {computed:#010x}")]
    CrcMismatch {
        /// Value in the header.
        stored: u32,
        /// Value of the bytes.
        computed: u32,
    },
    /// Attribute bits that name no codec.
    #[error("compression type {0} is unknown")]
    UnknownCompression(u8),
    /// The codec refuses the bytes.
    #[error("the records cannot be decompressed as {codec}: {reason}")]
    Decompression {
        /// Codec the attributes name.
        codec: Compression,
        /// What the codec says.
        reason: String,
    },
    /// The records grow beyond the caller's limit.
    #[error("the records decompress to more than {limit} bytes")]
    TooLarge {
        /// The limit, bytes.
        limit: usize,
    },
    /// A record that breaks the format.
    #[error("record {index} of the batch is malformed: {reason}")]
    InvalidRecord {
        /// Position in the batch, from 0.
        index: i32,
        /// What is wrong.
        reason: &'static str,
    },
}

impl BatchError {
    /// The error a producer hears. Only damage on the way is retriable; a batch that was built wrong
    /// stays wrong, so it must not be answered with CORRUPT_MESSAGE.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            BatchError::Truncated { .. } | BatchError::InvalidLength(_) | BatchError::CrcMismatch { .. } => {
                ErrorCode::CorruptMessage
            }
            BatchError::UnknownCompression(_) => ErrorCode::UnsupportedCompressionType,
            BatchError::TooLarge { .. } => ErrorCode::MessageTooLarge,
            BatchError::UnsupportedMagic(_)
            | BatchError::InvalidCount { .. }
            | BatchError::Decompression { .. }
            | BatchError::InvalidRecord { .. } => ErrorCode::InvalidRecord,
        }
    }

    pub(super) fn truncated_header(available: usize) -> BatchError {
        BatchError::Truncated { needed: HEADER_LEN, available }
    }
}
