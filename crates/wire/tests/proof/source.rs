//! Where samples come from: bytes read as choices, so that proptest can shrink a failing message by
//! shrinking bytes. Behind the last byte every choice is the simplest one.

use std::borrow::Cow;

use base::ids::Uuid;
use bytes::Bytes;
use wire::Payload;

/// A random value that `version` can carry.
pub(crate) trait Sample: Sized {
    /// Draws the value from `source`.
    fn sample(source: &mut Source, version: i16) -> Self;
}

/// Record bytes that samples borrow.
static RECORDS: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut index = 0;
    while index < 256 {
        bytes[index] = (index as u8).wrapping_mul(37);
        index += 1;
    }
    bytes
};

/// A stream of choices.
pub(crate) struct Source<'b> {
    bytes: &'b [u8],
}

impl<'b> Source<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes }
    }

    fn byte(&mut self) -> u8 {
        let (first, rest) = self.bytes.split_first().unwrap_or((&0, &[]));
        self.bytes = rest;
        *first
    }

    /// True one time in `times`.
    fn once_in(&mut self, times: u8) -> bool {
        self.byte() % times == times - 1
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// An edge of the type or any number.
    pub(crate) fn number<T: Number>(&mut self) -> T {
        match self.byte() % 8 {
            0 => T::truncate(0),
            1 => T::truncate(-1),
            2 => T::LEAST,
            3 => T::MOST,
            4 => T::truncate(i64::from(self.byte())),
            _ => {
                let bytes = std::array::from_fn(|_| self.byte());
                T::truncate(i64::from_be_bytes(bytes))
            }
        }
    }

    pub(crate) fn f64(&mut self) -> f64 {
        f64::from(self.number::<i32>()) / 8.0
    }

    pub(crate) fn uuid(&mut self) -> Uuid {
        if self.once_in(4) { Uuid::ZERO } else { Uuid(std::array::from_fn(|_| self.byte())) }
    }

    /// Short most times, now and then beyond what one byte of a varint can say.
    fn length(&mut self) -> usize {
        let choice = self.byte();
        usize::from(choice % 16) + if choice == 255 { 300 } else { 0 }
    }

    pub(crate) fn string(&mut self) -> Cow<'static, str> {
        let letters = ['a', '.', 'Z', '-', '0', '"', '\\', 'é', '\u{1f600}', '\n', '\0', ' '];
        let (length, first) = (self.length(), usize::from(self.byte()));
        (0..length).map(|index| letters[(first + index) % letters.len()]).collect::<String>().into()
    }

    pub(crate) fn bytes(&mut self) -> Cow<'static, [u8]> {
        Cow::Borrowed(self.records())
    }

    pub(crate) fn records(&mut self) -> &'static [u8] {
        let start = usize::from(self.byte());
        let end = (start + self.length()).min(RECORDS.len());
        &RECORDS[start..end]
    }

    pub(crate) fn payload(&mut self) -> Payload {
        match self.byte() % 4 {
            0 => Payload::Null,
            1 => Payload::empty(),
            2 => Payload::One(Bytes::from_static(self.records())),
            _ => Payload::Many(self.array(|source| Bytes::from_static(source.records()))),
        }
    }

    pub(crate) fn nullable<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.once_in(4) { None } else { Some(value(self)) }
    }

    pub(crate) fn array<T>(&mut self, mut element: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let length = match self.byte() {
            255 => 140,
            choice => usize::from(choice % 4),
        };
        (0..length).map(|_| element(self)).collect()
    }
}

/// The integers of the protocol.
pub(crate) trait Number {
    const LEAST: Self;
    const MOST: Self;
    fn truncate(value: i64) -> Self;
}

macro_rules! number {
    ($($number:ty),*) => {$(
        impl Number for $number {
            const LEAST: Self = Self::MIN;
            const MOST: Self = Self::MAX;
            fn truncate(value: i64) -> Self {
                value as Self
            }
        }
    )*};
}

number!(i8, i16, i32, i64, u16);

/// Bytes that look random and are the same on every run: splitmix64 over a counter.
pub(crate) fn seeded_bytes(seed: u64, length: usize) -> Vec<u8> {
    let words = (1..).map(|step: u64| {
        let mut word = seed.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    });
    words.flat_map(u64::to_be_bytes).take(length).collect()
}
