//! Record bytes on their way into a response: shared, never copied.

use std::fmt;

use bytes::Bytes;

/// Record batches of a response, or null.
///
/// The chunks go to the socket in order as they are; a reader sees one run of bytes, so payloads are
/// equal when their bytes are, however they are cut.
#[derive(Clone, Default)]
pub enum Payload {
    /// No records, told apart from zero bytes of records.
    #[default]
    Null,
    /// One run of bytes.
    One(Bytes),
    /// Several runs, sent one after the other.
    Many(Vec<Bytes>),
}

impl Payload {
    /// Zero bytes, which is not null.
    pub const fn empty() -> Self {
        Self::One(Bytes::new())
    }

    /// True for [`Payload::Null`].
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Bytes in all chunks.
    pub fn len(&self) -> usize {
        self.chunks().iter().map(Bytes::len).sum()
    }

    /// True for null as well as for zero bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The chunks in order.
    pub fn chunks(&self) -> &[Bytes] {
        match self {
            Self::Null => &[],
            Self::One(bytes) => std::slice::from_ref(bytes),
            Self::Many(chunks) => chunks,
        }
    }

    /// One run of bytes: shared if it is one already, else copied together.
    pub fn to_bytes(&self) -> Bytes {
        match self.chunks() {
            [] => Bytes::new(),
            [only] => only.clone(),
            chunks => chunks.concat().into(),
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::One(bytes)
    }
}

impl From<Vec<Bytes>> for Payload {
    fn from(chunks: Vec<Bytes>) -> Self {
        Self::Many(chunks)
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |payload: &Self| payload.chunks().concat();
        self.is_null() == other.is_null() && self.len() == other.len() && bytes(self) == bytes(other)
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            _ => write!(f, "{} bytes in {} chunks", self.len(), self.chunks().len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_when_the_bytes_are() {
        let one = Payload::from(Bytes::from_static(b"abc"));
        let cut = Payload::from(vec![Bytes::from_static(b"a"), Bytes::new(), Bytes::from_static(b"bc")]);
        assert_eq!(one, cut);
        assert_eq!(cut.to_bytes(), "abc");
        assert_ne!(one, Payload::from(Bytes::from_static(b"abd")));
        assert_ne!(Payload::Null, Payload::empty());
        assert_eq!(Payload::from(Vec::new()), Payload::empty());
    }
}
