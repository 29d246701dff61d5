//! Zigzag variable-length integers as records use them, with bounds.
//!
//! A varint takes at most 5 bytes, a varlong at most 10; longer ones are refused. Bits beyond the
//! type's width in the last byte are dropped, as Kafka's readers do.

/// Reads record fields off the front of a slice; every method returns `None` when the bytes end early
/// or a number is too long.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Option<i32> {
        let raw = self.raw_varint(5)? as u32;
        Some((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    #[inline]
    pub(super) fn varlong(&mut self) -> Option<i64> {
        let raw = self.raw_varint(10)?;
        Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// Nearly all lengths and deltas fit two bytes, so these go a straight way.
    #[inline]
    fn raw_varint(&mut self, max_bytes: usize) -> Option<u64> {
        match *self.rest {
            [first @ ..0x80, ref rest @ ..] => {
                self.rest = rest;
                Some(u64::from(first))
            }
            [first, second @ ..0x80, ref rest @ ..] => {
                self.rest = rest;
                Some(u64::from(first & 0x7f) | u64::from(second) << 7)
            }
            _ => self.long_varint(max_bytes),
        }
    }

    #[cold]
    fn long_varint(&mut self, max_bytes: usize) -> Option<u64> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().take(max_bytes).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Some(value);
            }
        }
        None
    }

    /// A length-prefixed byte string; a negative length is null.
    #[inline]
    pub(super) fn nullable_bytes(&mut self) -> Option<Option<&'a [u8]>> {
        match usize::try_from(self.varint()?) {
            Ok(length) => self.take(length).map(Some),
            Err(_) => Some(None),
        }
    }
}

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, value: i32) {
    put_raw(out, u64::from(((value << 1) ^ (value >> 31)) as u32));
}

/// Appends a varlong.
pub(super) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    put_raw(out, ((value << 1) ^ (value >> 63)) as u64);
}

fn put_raw(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes a varint takes.
pub(super) fn varint_len(value: i32) -> usize {
    raw_len(u64::from(((value << 1) ^ (value >> 31)) as u32))
}

/// Bytes a varlong takes.
pub(super) fn varlong_len(value: i64) -> usize {
    raw_len(((value << 1) ^ (value >> 63)) as u64)
}

fn raw_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_at_every_width() {
        for shift in 0..64 {
            for value in [(1i64 << shift).wrapping_sub(1), 1 << shift, -(1i64 << shift.min(62))] {
                let mut out = Vec::new();
                put_varlong(&mut out, value);
                assert_eq!(out.len(), varlong_len(value), "{value}");
                assert_eq!(Cursor::new(&out).varlong(), Some(value));
                let small = value as i32;
                out.clear();
                put_varint(&mut out, small);
                assert_eq!(out.len(), varint_len(small), "{small}");
                assert_eq!(Cursor::new(&out).varint(), Some(small));
            }
        }
    }

    #[test]
    fn too_long_or_cut_numbers_are_refused() {
        assert_eq!(Cursor::new(&[0x80; 5]).varint(), None);
        assert_eq!(Cursor::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]).varint(), None);
        assert_eq!(Cursor::new(&[0x80; 10]).varlong(), None);
        assert_eq!(Cursor::new(&[0x80]).varint(), None);
        assert_eq!(Cursor::new(&[]).varint(), None);
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused() {
        let mut out = Vec::new();
        put_varint(&mut out, i32::MAX);
        out.extend_from_slice(b"abc");
        assert_eq!(Cursor::new(&out).nullable_bytes(), None);
        assert_eq!(Cursor::new(&[1]).nullable_bytes(), Some(None));
    }
}
