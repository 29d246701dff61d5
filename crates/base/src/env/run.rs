//! Bytes on their way to a peer: in memory, or still in the file that holds them.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::File;

/// As much is read at once of what must be copied after all.
const COPIED_BYTES: usize = 64 << 10;

/// A part of a file that is sent from there (`sendfile`), without a way through our memory.
///
/// Its bytes are those that are there when they are sent: the file must not change below its end any more.
#[derive(Clone)]
pub struct FileRange {
    /// The file.
    pub file: Arc<dyn File>,
    /// Where the part begins, bytes.
    pub position: u64,
    /// How long it is, bytes.
    pub length: usize,
}

impl FileRange {
    /// Reads all of it into memory.
    ///
    /// # Errors
    /// Those of [`File::read_exact_at`].
    pub fn read(&self) -> io::Result<Bytes> {
        let mut bytes = vec![0; self.length];
        self.file.read_exact_at(&mut bytes, self.position)?;
        Ok(bytes.into())
    }
}

impl fmt::Debug for FileRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {} of a file", self.length, self.position)
    }
}

/// Bytes that are sent one after the other.
#[derive(Clone, Debug)]
pub enum Run {
    /// These.
    Memory(Bytes),
    /// What a file holds.
    File(FileRange),
}

impl Run {
    /// How many bytes.
    pub fn len(&self) -> usize {
        match self {
            Run::Memory(bytes) => bytes.len(),
            Run::File(range) => range.length,
        }
    }

    /// True without bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops the first `count` bytes, which must be there.
    pub fn advance(&mut self, count: usize) {
        match self {
            Run::Memory(bytes) => bytes.advance(count),
            Run::File(range) => {
                assert!(count <= range.length, "more was sent than there is");
                range.position += count as u64;
                range.length -= count;
            }
        }
    }

    /// Its bytes in memory.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> io::Result<Bytes> {
        match self {
            Run::Memory(bytes) => Ok(bytes.clone()),
            Run::File(range) => range.read(),
        }
    }
}

impl From<Bytes> for Run {
    fn from(bytes: Bytes) -> Run {
        Run::Memory(bytes)
    }
}

/// Sends the first bytes of a part of a file through memory.
pub(super) fn send_copied(
    stream: &mut (impl AsyncWrite + Unpin + ?Sized),
    context: &mut Context<'_>,
    range: &FileRange,
) -> Poll<io::Result<usize>> {
    let bytes = FileRange { length: range.length.min(COPIED_BYTES), ..range.clone() }.read()?;
    Pin::new(stream).poll_write(context, &bytes)
}
