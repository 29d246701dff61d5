//! Proofs that span all messages: round trips, comparison with independent codecs, hostile bytes.
//!
//! `all.rs` and `samples.rs` are generated with the messages, so that a new message is under test from
//! its first day.

mod all;
mod hostile;
mod other_codec;
mod round_trip;
mod samples;
mod source;
mod versions;
