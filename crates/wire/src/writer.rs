//! Builds a message as a list of byte runs: small fields in one buffer of its own, record bytes as
//! the caller's own chunks.
//!
//! Invariants: record bytes are never copied; the list of runs in order is the message. Numbers are
//! written without a check, lengths are checked against what their field can say.

use std::io;

use base::env::Run;
use base::ids::Uuid;
use bytes::Bytes;

use crate::reader::MAX_STRING_BYTES;
use crate::{EncodeError, Payload};

/// Writes the protocol's types one after the other.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    inline: Vec<u8>,
    /// Chunks of others and the length of `inline` at which each belongs.
    external: Vec<(usize, Run)>,
    external_bytes: usize,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty writer with room for `bytes` bytes besides record bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { inline: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Bytes written, record bytes included.
    pub fn len(&self) -> usize {
        self.inline.len() + self.external_bytes
    }

    /// True if nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The runs of bytes in the order in which they go to the socket; none of them is empty.
    pub fn finish(self) -> Vec<Run> {
        let inline = Bytes::from(self.inline);
        let mut runs = Vec::with_capacity(2 * self.external.len() + 1);
        let mut from = 0;
        for (at, chunk) in self.external {
            runs.push(Run::Memory(inline.slice(from..at)));
            runs.push(chunk);
            from = at;
        }
        runs.push(Run::Memory(inline.slice(from..)));
        runs.retain(|run| !run.is_empty());
        runs
    }

    /// All bytes in one run; copies record bytes, so not for responses.
    ///
    /// # Panics
    /// On record bytes that lie in a file, which only a broker's responses have.
    pub fn to_vec(self) -> Vec<u8> {
        if self.external.is_empty() {
            self.inline
        } else {
            in_memory(&self.finish()).expect("record bytes in memory")
        }
    }

    /// Puts `value` over four bytes written earlier, for a size known only at the end.
    pub(crate) fn patch_i32(&mut self, at: usize, value: i32) {
        self.inline[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// One byte, 1 for true.
    pub fn bool(&mut self, value: bool) {
        self.inline.push(u8::from(value));
    }

    /// One byte.
    pub fn i8(&mut self, value: i8) {
        self.inline.extend_from_slice(&value.to_be_bytes());
    }

    /// Two bytes.
    pub fn i16(&mut self, value: i16) {
        self.inline.extend_from_slice(&value.to_be_bytes());
    }

    /// Two bytes, unsigned.
    pub fn u16(&mut self, value: u16) {
        self.inline.extend_from_slice(&value.to_be_bytes());
    }

    /// Four bytes.
    pub fn i32(&mut self, value: i32) {
        self.inline.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes.
    pub fn i64(&mut self, value: i64) {
        self.inline.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes, IEEE 754.
    pub fn f64(&mut self, value: f64) {
        self.inline.extend_from_slice(&value.to_be_bytes());
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self, value: Uuid) {
        self.inline.extend_from_slice(&value.0);
    }

    /// One to five bytes of seven bits each, least significant first.
    pub fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.inline.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.inline.push(value as u8);
    }

    /// A string in the version's coding.
    pub fn string(&mut self, value: &str, flexible: bool) -> Result<(), EncodeError> {
        self.nullable_string(Some(value), flexible)
    }

    /// A string or null.
    pub fn nullable_string(&mut self, value: Option<&str>, flexible: bool) -> Result<(), EncodeError> {
        let length = value.map(str::len);
        if let Some(length) = length.filter(|length| *length > MAX_STRING_BYTES) {
            return Err(EncodeError::TooLong { what: "string", length });
        }
        match length {
            _ if flexible => self.long_length(length, true, "string")?,
            None => self.i16(-1),
            Some(length) => self.i16(length as i16),
        }
        self.inline.extend_from_slice(value.unwrap_or_default().as_bytes());
        Ok(())
    }

    /// Bytes in the version's coding.
    pub fn bytes(&mut self, value: &[u8], flexible: bool) -> Result<(), EncodeError> {
        self.records(Some(value), flexible)
    }

    /// Bytes or null.
    pub fn nullable_bytes(&mut self, value: Option<&[u8]>, flexible: bool) -> Result<(), EncodeError> {
        self.records(value, flexible)
    }

    /// Record batches of a request, copied, or null.
    pub fn records(&mut self, value: Option<&[u8]>, flexible: bool) -> Result<(), EncodeError> {
        self.long_length(value.map(<[u8]>::len), flexible, "bytes")?;
        self.inline.extend_from_slice(value.unwrap_or_default());
        Ok(())
    }

    /// Record batches of a response, shared, or null.
    pub fn payload(&mut self, value: &Payload, flexible: bool) -> Result<(), EncodeError> {
        let length = value.len();
        self.long_length((!value.is_null()).then_some(length), flexible, "records")?;
        let at = self.inline.len();
        value.each_run(|run| self.external.push((at, run)));
        self.external_bytes += length;
        Ok(())
    }

    /// An array in the version's coding.
    pub fn array<T>(
        &mut self,
        value: &[T],
        flexible: bool,
        element: impl FnMut(&mut Self, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.nullable_array(Some(value), flexible, element)
    }

    /// An array or null.
    pub fn nullable_array<T>(
        &mut self,
        value: Option<&[T]>,
        flexible: bool,
        mut element: impl FnMut(&mut Self, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.long_length(value.map(<[T]>::len), flexible, "array")?;
        value.unwrap_or_default().iter().try_for_each(|item| element(self, item))
    }

    /// A struct behind the byte that tells it from null.
    pub fn nullable_struct<T>(
        &mut self,
        value: Option<&T>,
        content: impl FnOnce(&mut Self, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.i8(if value.is_some() { 1 } else { -1 });
        value.map_or(Ok(()), |value| content(self, value))
    }

    /// The content of a tagged field that is a struct or null, behind the varint that tells the two apart.
    pub fn tagged_struct<T>(
        &mut self,
        value: Option<&T>,
        content: impl FnOnce(&mut Self, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.unsigned_varint(u32::from(value.is_some()));
        value.map_or(Ok(()), |value| content(self, value))
    }

    /// Begins the tagged fields of a struct, which must come in the order of their tags.
    pub fn tags(&mut self) -> Tags<'_> {
        let count_at = self.inline.len();
        self.inline.push(0);
        Tags { writer: self, count_at }
    }

    /// Length of bytes or of an array; `None` is null.
    fn long_length(
        &mut self,
        length: Option<usize>,
        flexible: bool,
        what: &'static str,
    ) -> Result<(), EncodeError> {
        let Some(length) = length else {
            if flexible {
                self.unsigned_varint(0)
            } else {
                self.i32(-1)
            }
            return Ok(());
        };
        let known = i32::try_from(length).map_err(|_| EncodeError::TooLong { what, length })?;
        if flexible {
            self.unsigned_varint(known as u32 + 1)
        } else {
            self.i32(known)
        }
        Ok(())
    }
}

/// The tagged fields of one struct while they are written.
#[derive(Debug)]
pub struct Tags<'w> {
    writer: &'w mut Writer,
    count_at: usize,
}

impl Tags<'_> {
    /// Writes one field; call it only for values that are not the default.
    pub fn field(
        &mut self,
        tag: u32,
        content: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let writer = &mut *self.writer;
        writer.inline[self.count_at] += 1;
        debug_assert!(writer.inline[self.count_at] < 0x80, "the count of known tags fits one byte");
        writer.unsigned_varint(tag);
        let content_at = writer.inline.len();
        content(writer)?;
        // The size comes before the content but is known only after it: write it behind, then swap the two.
        let size = writer.inline.len() - content_at;
        let known =
            u32::try_from(size).map_err(|_| EncodeError::TooLong { what: "tagged field", length: size })?;
        writer.unsigned_varint(known);
        writer.inline[content_at..].rotate_left(size);
        Ok(())
    }
}

/// The value of a field that the version does not let be null.
pub(crate) fn required<T>(
    value: Option<T>,
    message: &'static str,
    field: &'static str,
    version: i16,
) -> Result<T, EncodeError> {
    value.ok_or(EncodeError::Null { message, field, version })
}

/// All bytes of a message, copied together.
///
/// # Errors
/// A file that holds some of them cannot be read.
pub fn in_memory(runs: &[Run]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(runs.iter().map(Run::len).sum());
    for run in runs {
        bytes.extend_from_slice(&run.read()?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reader;

    #[test]
    fn record_bytes_are_shared_and_stay_in_order() {
        let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
        let mut writer = Writer::new();
        writer.i8(1);
        writer.payload(&Payload::from(vec![first.clone(), second.clone()]), false).expect("short");
        writer.i8(2);
        writer.payload(&Payload::empty(), true).expect("short");
        writer.payload(&Payload::Null, true).expect("short");
        assert_eq!(writer.len(), 1 + 4 + 11 + 1 + 2);
        let runs = writer.finish();
        let runs: Vec<Bytes> = runs.iter().map(|run| run.read().unwrap()).collect();
        assert_eq!(runs, [&[1, 0, 0, 0, 11][..], b"first", b"second", &[2, 1, 0]]);
        assert_eq!((runs[1].as_ptr(), runs[2].as_ptr()), (first.as_ptr(), second.as_ptr()));
    }

    #[test]
    fn tagged_fields_carry_count_and_size() {
        let mut writer = Writer::new();
        let mut tags = writer.tags();
        tags.field(0, |writer| writer.string("ab", true)).expect("short");
        tags.field(300, |writer| writer.bytes(&[7; 200], true)).expect("short");
        let bytes = writer.to_vec();
        assert_eq!(bytes[..10], [2, 0, 3, 3, b'a', b'b', 0xac, 0x02, 0xca, 0x01]);
        let mut reader = Reader::new(&bytes);
        let mut seen = 0;
        let walked = reader.tagged_fields(|tag, content| {
            seen += tag;
            if tag == 300 {
                assert_eq!(*content.bytes(true)?, [7; 200]);
            }
            content.skip_rest();
            Ok(())
        });
        assert_eq!((walked, seen, reader.remaining()), (Ok(()), 300, 0));
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let long = "x".repeat(MAX_STRING_BYTES + 1);
        for flexible in [false, true] {
            let refused = Writer::new().string(&long, flexible);
            assert_eq!(refused, Err(EncodeError::TooLong { what: "string", length: 32768 }));
            assert_eq!(Writer::new().string(&long[1..], flexible), Ok(()));
        }
    }

    #[test]
    fn null_struct_and_varint_bytes() {
        let mut writer = Writer::new();
        writer.nullable_struct(None::<&i32>, |_, _| Ok(())).expect("null");
        writer
            .nullable_struct(Some(&5), |writer, value| {
                writer.i32(*value);
                Ok(())
            })
            .expect("a number");
        writer.unsigned_varint(u32::MAX);
        assert_eq!(writer.to_vec(), [0xff, 1, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    }
}
