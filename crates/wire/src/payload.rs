//! Record bytes on their way into a response: shared, never copied.

use std::{fmt, io};

use base::env::{FileRange, Run};
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
    /// What a file holds, sent from there.
    File(FileRange),
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
        match self {
            Self::Null => 0,
            Self::One(bytes) => bytes.len(),
            Self::Many(chunks) => chunks.iter().map(Bytes::len).sum(),
            Self::File(range) => range.length,
        }
    }

    /// True for null as well as for zero bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives the chunks in order to `take`, but not empty ones.
    pub(crate) fn each_run(&self, mut take: impl FnMut(Run)) {
        let mut take = |run: Run| {
            if !run.is_empty() {
                take(run);
            }
        };
        match self {
            Self::Null => {}
            Self::One(bytes) => take(Run::Memory(bytes.clone())),
            Self::Many(chunks) => chunks.iter().for_each(|chunk| take(Run::Memory(chunk.clone()))),
            Self::File(range) => take(Run::File(range.clone())),
        }
    }

    /// One run of bytes in memory: shared if it is one already, else copied together.
    ///
    /// # Errors
    /// The file that holds them cannot be read.
    pub fn to_bytes(&self) -> io::Result<Bytes> {
        match self {
            Self::Null => Ok(Bytes::new()),
            Self::One(bytes) => Ok(bytes.clone()),
            Self::Many(chunks) => Ok(chunks.concat().into()),
            Self::File(range) => range.read(),
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
        let same_bytes = || self.to_bytes().ok() == other.to_bytes().ok();
        self.is_null() == other.is_null() && self.len() == other.len() && same_bytes()
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::File(range) => range.fmt(f),
            _ => write!(f, "{} bytes", self.len()),
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
        assert_eq!(cut.to_bytes().unwrap(), "abc");
        assert_ne!(one, Payload::from(Bytes::from_static(b"abd")));
        assert_ne!(Payload::Null, Payload::empty());
        assert_eq!(Payload::from(Vec::new()), Payload::empty());
    }
}
