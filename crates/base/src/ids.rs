//! The names things go by: brokers, topics, partitions, storages, segments.
//!
//! Every id is a newtype, so that a broker id is never taken for a partition number. Numbers that
//! are compared and counted (offsets, timestamps) stay plain integers with an alias that names
//! them, because arithmetic on them is the daily work.

use std::fmt;
use std::str::FromStr;

/// Position of a record in a partition, dense from the log start; 0 or more for real records.
pub type Offset = i64;

/// Milliseconds since the Unix epoch, as Kafka's record timestamps; -1 means "none".
pub type TimestampMs = i64;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id! {
    /// Kafka's `node.id`: unique over all cells of a federation, 0 or more.
    BrokerId(i32)
}
number_id! {
    /// Number of a partition within its topic, 0 or more.
    PartitionId(i32)
}
number_id! {
    /// Raised by one at every election of a leader (KIP-101); -1 means "unknown".
    LeaderEpoch(i32)
}
number_id! {
    /// Which life of a broker this is: the number given at each registration (Kafka's broker epoch).
    Incarnation(i64)
}
number_id! {
    /// Unique for ever within a cell, given by the metadata state machine when a segment is opened.
    SegmentId(u64)
}
number_id! {
    /// 0 for a segment as its leader wrote it, one more for each rewrite of the same offset range.
    Generation(u32)
}

/// A 128-bit id in Kafka's form: printed as 22 characters of URL-safe base64 without padding.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

/// Random id of a topic; a topic created anew under an old name has another id (KIP-516).
pub type TopicId = Uuid;

/// Random id of one log directory, given when it is formatted and never reused.
pub type StorageId = Uuid;

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Uuid {
    /// All bits zero: "no id" on the wire.
    pub const ZERO: Uuid = Uuid([0; 16]);

    /// Turns 16 random bytes into a version 4 UUID whose text form does not begin with a dash
    /// (a leading dash would read as a command line option, so Kafka avoids it too).
    /// Returns `None` for the few values that must be drawn again.
    pub fn from_random(mut bytes: [u8; 16]) -> Option<Uuid> {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let leading = bytes[0] >> 2;
        (BASE64_URL[usize::from(leading)] != b'-').then_some(Uuid(bytes))
    }

    /// True for [`Uuid::ZERO`].
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 22];
        let value = u128::from_be_bytes(self.0);
        for (index, slot) in text.iter_mut().enumerate() {
            let shift = 122i32 - 6 * index as i32;
            let six = if shift >= 0 { value >> shift } else { value << -shift } & 0x3f;
            *slot = BASE64_URL[six as usize];
        }
        f.write_str(std::str::from_utf8(&text).expect("base64 is ASCII"))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 22 characters of URL-safe base64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id: expected 22 characters of URL-safe base64")]
pub struct ParseUuidError(String);

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseUuidError(text.chars().take(64).collect());
        let digits = text.trim_end_matches('=').as_bytes();
        if digits.len() != 22 {
            return Err(bad());
        }
        let mut value: u128 = 0;
        for (index, digit) in digits.iter().enumerate() {
            let six = BASE64_URL.iter().position(|c| c == digit).ok_or_else(bad)? as u128;
            value = if index < 21 { (value << 6) | six } else { (value << 2) | (six >> 4) };
        }
        Ok(Uuid(value.to_be_bytes()))
    }
}

/// One partition of one topic incarnation: the key under which logs and chains are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Id of the topic, not its name: a re-created topic is another one.
    pub topic_id: TopicId,
    /// Number of the partition within the topic.
    pub partition: PartitionId,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic_id, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_text_form_round_trips() {
        for seed in 0u8..=255 {
            let id = Uuid(std::array::from_fn(|i| seed.wrapping_mul(31).wrapping_add(i as u8 * 17)));
            let text = id.to_string();
            assert_eq!(text.len(), 22);
            assert_eq!(text.parse::<Uuid>(), Ok(id));
        }
    }

    #[test]
    fn uuid_text_form_is_kafkas() {
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        let metadata_topic = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(metadata_topic.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
    }

    #[test]
    fn uuid_refuses_other_text() {
        for text in ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAA+", "AAAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(text.parse::<Uuid>().is_err(), "{text}");
        }
    }

    #[test]
    fn random_uuid_never_begins_with_a_dash() {
        assert_eq!(Uuid::from_random([0xf8; 16]), None);
        assert!(Uuid::from_random([0x11; 16]).is_some());
    }
}
