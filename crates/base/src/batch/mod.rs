//! The record batch, magic 2: one byte format from socket to disk to replica to socket.
//!
//! ```text
//!  0        8     12    16  17   21   23      27        35       43       51    53      57    61
//!  | base   |batch|leader|m |crc |attr|last   | base    | max     |producer|prod.| base  |rec- |records…
//!  | offset |length|epoch|2 |    |    |offset | time-   | time-   | id     |epoch| sequ- |ord  |(compressed
//!  |        |     |      |  |    |    |delta  | stamp   | stamp   |        |     | ence  |count| as one)
//!  └────── outside the CRC ─────┘└──────────────── covered by the CRC (CRC-32C) ──────────────────…
//! ```
//!
//! All numbers are big-endian. `batch length` counts the bytes after itself. The broker sets base
//! offset and leader epoch in place; both lie outside the CRC, so accepting a batch never touches
//! its records.
//!
//! Invariants: a [`BatchView`] spans exactly one whole batch whose length field and magic were
//! checked; nothing else about it is trusted. No function here panics on any bytes, and none
//! allocates more than what the bytes at hand or a limit given by the caller allow.
//!
//! What it does not do: message sets of magic 0 and 1 (refused, as Kafka 4 does), and re-encoding.

mod builder;
mod codec;
mod control;
mod error;
mod header;
mod record;
mod validate;
mod varint;
mod view;

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod golden_tests;

pub use builder::{BatchBuilder, BuildError, end_transaction_batch};
pub use codec::{Compression, DecompressBuffer, ParseCompressionError};
pub use control::{ControlRecordType, EndTransactionMarker};
pub use error::BatchError;
pub use header::{BatchHeader, TimestampType, next_sequence, stamp};
pub use record::{Header, Headers, Record, Records};
pub use validate::{RecordError, RecordErrorKind, RecordRules, RecordSummary, Rejection};
pub use view::{BatchView, Batches, PAYLOAD_OFFSET};

/// Bytes before the records: the size of every batch header.
pub const HEADER_LEN: usize = 61;
/// Bytes of base offset and length field; `batch length` counts what follows them.
pub const LOG_OVERHEAD: usize = 12;
/// The least value of the length field: a header without records.
pub const MIN_BATCH_LENGTH: i32 = (HEADER_LEN - LOG_OVERHEAD) as i32;
/// The only magic this product reads or writes.
pub const MAGIC: i8 = 2;

/// Position of the base offset, i64.
pub const BASE_OFFSET_AT: usize = 0;
/// Position of the length field, i32.
pub const BATCH_LENGTH_AT: usize = 8;
/// Position of the leader epoch, i32.
pub const LEADER_EPOCH_AT: usize = 12;
/// Position of the magic, i8.
pub const MAGIC_AT: usize = 16;
/// Position of the CRC-32C, u32.
pub const CRC_AT: usize = 17;
/// Position of the attributes, i16; the CRC covers everything from here on.
pub const ATTRIBUTES_AT: usize = 21;
/// Position of the last offset delta, i32.
pub const LAST_OFFSET_DELTA_AT: usize = 23;
/// Position of the base timestamp, i64.
pub const BASE_TIMESTAMP_AT: usize = 27;
/// Position of the max timestamp, i64.
pub const MAX_TIMESTAMP_AT: usize = 35;
/// Position of the producer id, i64.
pub const PRODUCER_ID_AT: usize = 43;
/// Position of the producer epoch, i16.
pub const PRODUCER_EPOCH_AT: usize = 51;
/// Position of the base sequence, i32.
pub const BASE_SEQUENCE_AT: usize = 53;
/// Position of the record count, i32.
pub const RECORD_COUNT_AT: usize = 57;

/// Attribute bits 0 to 2: the codec.
pub const COMPRESSION_MASK: i16 = 0x07;
/// Attribute bit 3: timestamps are the broker's, all equal to the max timestamp.
pub const LOG_APPEND_TIME_BIT: i16 = 0x08;
/// Attribute bit 4: part of a transaction.
pub const TRANSACTIONAL_BIT: i16 = 0x10;
/// Attribute bit 5: holds control records, which clients do not show.
pub const CONTROL_BIT: i16 = 0x20;
/// Attribute bit 6: the base timestamp is the time from which tombstones in this batch may go (KIP-534).
pub const DELETE_HORIZON_BIT: i16 = 0x40;

/// Timestamp of a record or batch that has none.
pub const NO_TIMESTAMP: i64 = -1;
/// Producer id of a batch written without idempotence.
pub const NO_PRODUCER_ID: i64 = -1;
/// Producer epoch of a batch written without idempotence.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// Base sequence of a batch written without idempotence.
pub const NO_SEQUENCE: i32 = -1;
/// Leader epoch that is not known.
pub const NO_LEADER_EPOCH: i32 = -1;
