//! A cursor over received bytes: every read is bounded by the bytes left.
//!
//! Invariants: no read panics or allocates more than a small multiple of the bytes that back it; a
//! failed read leaves the reader at an unspecified place within its bytes. The reader knows nothing of
//! messages; the generated code calls it in field order.

use std::borrow::Cow;

use base::ids::Uuid;
use bytes::Bytes;

use crate::{DecodeError, Payload};

/// Longest string Kafka accepts, in bytes, whatever the width of its length field.
pub(crate) const MAX_STRING_BYTES: usize = i16::MAX as usize;

/// Room reserved before the first element of an array is read; beyond it the vector grows with what
/// really arrives, so that a short frame cannot ask for much memory.
const RESERVE_AT_MOST_BYTES: usize = 64 * 1024;

/// Reads the protocol's types one after the other.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    backing: Option<&'a Bytes>,
    position: usize,
    end: usize,
    elements_left: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, backing: None, position: 0, end: bytes.len(), elements_left: usize::MAX }
    }

    /// Like [`Reader::new`], and a [`Payload`] read from it shares `bytes` instead of copying.
    pub fn from_bytes(bytes: &'a Bytes) -> Self {
        Self { bytes, backing: Some(bytes), position: 0, end: bytes.len(), elements_left: usize::MAX }
    }

    /// Refuses more elements than this, over all arrays together: what an element of a byte or two becomes
    /// in memory, and in an answer, may be a hundred times as large.
    pub fn with_elements_max(self, elements_max: usize) -> Self {
        Self { elements_left: elements_max, ..self }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.end - self.position
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The bytes not read yet, without reading them.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.position..self.end]
    }

    /// Takes the next `length` bytes.
    pub fn slice(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        if length > self.remaining() {
            return Err(DecodeError::Truncated {
                offset: self.position,
                wanted: length,
                left: self.remaining(),
            });
        }
        let start = self.position;
        self.position += length;
        Ok(&self.bytes[start..self.position])
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let left = self.rest();
        let Some(found) = left.first_chunk::<N>() else {
            return Err(DecodeError::Truncated { offset: self.position, wanted: N, left: left.len() });
        };
        self.position += N;
        Ok(*found)
    }

    /// One byte; everything but 0 is true.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? != 0)
    }

    /// One byte.
    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        self.fixed().map(i8::from_be_bytes)
    }

    /// Two bytes.
    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        self.fixed().map(i16::from_be_bytes)
    }

    /// Two bytes, unsigned.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.fixed().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.fixed().map(i32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.fixed().map(i64::from_be_bytes)
    }

    /// Eight bytes, IEEE 754.
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        self.fixed().map(f64::from_be_bytes)
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        self.fixed().map(Uuid)
    }

    /// Up to five bytes of seven bits each, least significant first.
    pub fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let offset = self.position;
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| DecodeError::Varint { offset });
            }
        }
        Err(DecodeError::Varint { offset })
    }

    /// A string of the version's coding that may not be null.
    pub fn string(&mut self, flexible: bool) -> Result<Cow<'a, str>, DecodeError> {
        let offset = self.position;
        self.nullable_string(flexible)?.ok_or(DecodeError::Null { offset, what: "string" })
    }

    /// A string or null.
    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<Cow<'a, str>>, DecodeError> {
        let offset = self.position;
        let length = if flexible { self.compact_length()? } else { i64::from(self.i16()?) };
        let Some(length) = checked_length(length, offset, "string", MAX_STRING_BYTES)? else {
            return Ok(None);
        };
        let offset = self.position;
        let bytes = self.slice(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8 { offset })?;
        Ok(Some(Cow::Borrowed(text)))
    }

    /// Bytes that may not be null.
    pub fn bytes(&mut self, flexible: bool) -> Result<Cow<'a, [u8]>, DecodeError> {
        let offset = self.position;
        self.nullable_bytes(flexible)?.ok_or(DecodeError::Null { offset, what: "bytes" })
    }

    /// Bytes or null.
    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<Cow<'a, [u8]>>, DecodeError> {
        Ok(self.records(flexible)?.map(Cow::Borrowed))
    }

    /// Record batches as they stand in the frame, or null.
    pub fn records(&mut self, flexible: bool) -> Result<Option<&'a [u8]>, DecodeError> {
        let offset = self.position;
        let length = self.long_length(flexible)?;
        checked_length(length, offset, "bytes", i32::MAX as usize)?
            .map(|length| self.slice(length))
            .transpose()
    }

    /// Record batches that outlive the frame: shared if the reader owns it, else copied.
    pub fn payload(&mut self, flexible: bool) -> Result<Payload, DecodeError> {
        Ok(match (self.records(flexible)?, self.backing) {
            (None, _) => Payload::Null,
            (Some(records), Some(backing)) => Payload::One(backing.slice_ref(records)),
            (Some(records), None) => Payload::One(Bytes::copy_from_slice(records)),
        })
    }

    /// An array that may not be null, of elements that take `least_bytes` or more each (at least 1).
    pub fn array<T>(
        &mut self,
        flexible: bool,
        least_bytes: usize,
        element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let offset = self.position;
        let array = self.nullable_array(flexible, least_bytes, element)?;
        array.ok_or(DecodeError::Null { offset, what: "array" })
    }

    /// An array or null; see [`Reader::array`].
    pub fn nullable_array<T>(
        &mut self,
        flexible: bool,
        least_bytes: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let offset = self.position;
        let length = self.long_length(flexible)?;
        let most = (self.remaining() / least_bytes.max(1)).min(self.elements_left);
        let Some(length) = checked_length(length, offset, "array", most)? else { return Ok(None) };
        self.elements_left -= length;
        let reserve = RESERVE_AT_MOST_BYTES / size_of::<T>().max(1);
        let mut array = Vec::with_capacity(length.min(reserve));
        for _ in 0..length {
            array.push(element(self)?);
        }
        Ok(Some(array))
    }

    /// A struct behind a byte that is negative for null.
    pub fn nullable_struct<T>(
        &mut self,
        content: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.i8()? < 0 { Ok(None) } else { content(self).map(Some) }
    }

    /// The content of a tagged field that is a struct or null: a varint that is 0 for null comes first.
    pub fn tagged_struct<T>(
        &mut self,
        content: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.unsigned_varint()? == 0 { Ok(None) } else { content(self).map(Some) }
    }

    /// All tagged fields of a struct. `field` reads the one field it is given or [skips](Reader::skip_rest) it.
    pub fn tagged_fields(
        &mut self,
        mut field: impl FnMut(u32, &mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        for _ in 0..self.unsigned_varint()? {
            let tag = self.unsigned_varint()?;
            let size = self.unsigned_varint()? as usize;
            let offset = self.position;
            if size > self.remaining() {
                return Err(DecodeError::Truncated { offset, wanted: size, left: self.remaining() });
            }
            let end = std::mem::replace(&mut self.end, offset + size);
            field(tag, self)?;
            if self.remaining() > 0 {
                return Err(DecodeError::Tag { offset, tag });
            }
            self.end = end;
        }
        Ok(())
    }

    /// Passes over the tagged fields of a struct that knows none.
    pub fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        self.tagged_fields(|_, content| {
            content.skip_rest();
            Ok(())
        })
    }

    /// Passes over all that is left: within [`Reader::tagged_fields`], over the field.
    pub fn skip_rest(&mut self) {
        self.position = self.end;
    }

    /// The error for a known tag in a version without it, which Kafka refuses too.
    pub fn unexpected_tag(&self, tag: u32) -> DecodeError {
        DecodeError::Tag { offset: self.position, tag }
    }

    /// Length of bytes or of an array; -1 is null.
    fn long_length(&mut self, flexible: bool) -> Result<i64, DecodeError> {
        if flexible { self.compact_length() } else { self.i32().map(i64::from) }
    }

    fn compact_length(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from(self.unsigned_varint()?) - 1)
    }
}

/// `None` is null; an error is a length that is negative otherwise or more than `most`.
fn checked_length(
    length: i64,
    offset: usize,
    what: &'static str,
    most: usize,
) -> Result<Option<usize>, DecodeError> {
    match usize::try_from(length) {
        Ok(length) if length <= most => Ok(Some(length)),
        Err(_) if length == -1 => Ok(None),
        _ => Err(DecodeError::Length { offset, what, length }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_lengths_fail_before_anything_is_allocated() {
        let array = [0x7f, 0xff, 0xff, 0xff, 1, 2, 3];
        let refused = Reader::new(&array).array(false, 1, Reader::i8);
        assert!(matches!(refused, Err(DecodeError::Length { what: "array", length: 0x7fff_ffff, .. })));
        let refused = Reader::new(&array).bytes(false);
        assert_eq!(refused, Err(DecodeError::Truncated { offset: 4, wanted: 0x7fff_ffff, left: 3 }));
        let compact = [0xff, 0xff, 0xff, 0xff, 0x0f, 1];
        assert!(matches!(Reader::new(&compact).array(true, 1, Reader::i8), Err(DecodeError::Length { .. })));
        assert!(matches!(Reader::new(&compact).string(true), Err(DecodeError::Length { .. })));
    }

    #[test]
    fn array_length_is_bounded_by_the_least_size_of_an_element() {
        let two_of_four_bytes = [0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2];
        let refused = Reader::new(&two_of_four_bytes).array(false, 4, Reader::i32);
        assert!(matches!(refused, Err(DecodeError::Length { length: 3, .. })));
    }

    #[test]
    fn elements_are_counted_over_all_arrays() {
        let bytes = [3, 7, 8, 3, 9, 10];
        let read = |elements_max| {
            let mut reader = Reader::new(&bytes).with_elements_max(elements_max);
            reader.array(true, 1, Reader::i8)?;
            reader.array(true, 1, Reader::i8)
        };
        assert_eq!(read(4), Ok(vec![9, 10]));
        assert!(matches!(read(3), Err(DecodeError::Length { offset: 3, length: 2, .. })));
    }

    #[test]
    fn null_empty_and_negative_lengths_differ() {
        assert_eq!(Reader::new(&[0xff, 0xff]).nullable_string(false), Ok(None));
        assert_eq!(Reader::new(&[0]).nullable_string(true), Ok(None));
        assert_eq!(Reader::new(&[1]).nullable_string(true), Ok(Some("".into())));
        assert!(matches!(Reader::new(&[0xff, 0xfe]).nullable_string(false), Err(DecodeError::Length { .. })));
        assert!(matches!(Reader::new(&[0]).string(true), Err(DecodeError::Null { .. })));
        assert!(matches!(Reader::new(&[0xff; 4]).array(false, 1, Reader::i8), Err(DecodeError::Null { .. })));
    }

    #[test]
    fn varints_stop_at_32_bits() {
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).unsigned_varint(), Ok(u32::MAX));
        assert_eq!(Reader::new(&[0x80, 0x01]).unsigned_varint(), Ok(128));
        for too_long in [&[0xff, 0xff, 0xff, 0xff, 0x1f][..], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]] {
            assert_eq!(Reader::new(too_long).unsigned_varint(), Err(DecodeError::Varint { offset: 0 }));
        }
        assert!(matches!(Reader::new(&[0x80]).unsigned_varint(), Err(DecodeError::Truncated { .. })));
    }

    #[test]
    fn strings_are_utf8() {
        assert_eq!(Reader::new(&[0, 2, 0xc3, 0xa9]).string(false), Ok("é".into()));
        assert_eq!(Reader::new(&[0, 1, 0xc3]).string(false), Err(DecodeError::Utf8 { offset: 2 }));
    }

    #[test]
    fn tagged_fields_are_confined_to_their_size() {
        let two_fields = [2, 0, 4, 0, 0, 0, 7, 9, 1, 0xaa, 0x55];
        let mut reader = Reader::new(&two_fields);
        let mut seen = Vec::new();
        let walked = reader.tagged_fields(|tag, content| {
            match tag {
                0 => seen.push(content.i32()?),
                _ => content.skip_rest(),
            }
            Ok(())
        });
        assert_eq!((walked, seen), (Ok(()), vec![7]));
        assert_eq!(reader.rest(), [0x55]);

        let too_short = [1, 0, 3, 0, 0, 0, 7];
        let refused = Reader::new(&too_short).tagged_fields(|_, content| content.i32().map(drop));
        assert!(matches!(refused, Err(DecodeError::Truncated { left: 3, .. })));
        let too_long = [1, 0, 5, 0, 0, 0, 7, 0];
        let refused = Reader::new(&too_long).tagged_fields(|_, content| content.i32().map(drop));
        assert!(matches!(refused, Err(DecodeError::Tag { tag: 0, .. })));
    }

    #[test]
    fn payload_shares_an_owned_frame() {
        let frame = Bytes::from_static(&[0, 0, 0, 3, b'a', b'b', b'c']);
        let Ok(Payload::One(shared)) = Reader::from_bytes(&frame).payload(false) else { panic!("one chunk") };
        assert_eq!(shared.as_ptr(), frame[4..].as_ptr());
        let Ok(Payload::One(copied)) = Reader::new(&frame).payload(false) else { panic!("one chunk") };
        assert_eq!(copied, shared);
        assert_ne!(copied.as_ptr(), shared.as_ptr());
    }
}
