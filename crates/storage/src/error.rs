//! What can go wrong on a disk, told so that a person can mend it.
//!
//! Three families with different consequences, never mixed up:
//! - the *storage* is unfit ([`StorageError::Failed`], [`StorageError::NoSpace`]): other storages go on;
//! - the *bytes* are damaged ([`StorageError::Corrupt`]): reported, never cut away, and never taken
//!   for "not there" (which would let a peer truncate);
//! - the *caller* asked for something that cannot be ([`StorageError::Sealed`] and the like).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::ids::{Offset, StorageId};

/// Why the storage cannot do what was asked. Cheap to clone, because one failed round of syncing
/// answers many waiters.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused an operation that says nothing about the storage as a whole, such
    /// as a read.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: Arc<Path>,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Bytes on the disk are not those that were written.
    #[error(transparent)]
    Corrupt(Arc<Corruption>),
    /// A write or sync failed some time ago. Nothing more is written to this storage until the process
    /// restarts: after a failed sync the kernel may have dropped pages that it reports as clean.
    #[error("the storage failed: {reason}")]
    Failed {
        /// The first failure.
        reason: Arc<str>,
    },
    /// The disk is as good as full; nothing was written.
    #[error("the disk that holds {} is full", path.display())]
    NoSpace {
        /// The storage's directory.
        path: Arc<Path>,
    },
    /// The segment is not on this storage.
    #[error("segment {} is not here", path.display())]
    NotHere {
        /// Where it would be.
        path: Arc<Path>,
    },
    /// None of the storages that hold a segment belongs to this broker or could be opened.
    #[error("none of the storages {0:?} is open on this broker")]
    Missing(Vec<StorageId>),
    /// The segment was sealed and takes no more.
    #[error("the segment is sealed")]
    Sealed,
    /// The segment would outgrow the 32-bit positions and relative offsets of its index: open the next.
    #[error("the segment is full")]
    SegmentFull,
    /// A batch does not begin where the segment ends.
    #[error("a batch begins at offset {found} where {expected} comes next")]
    OffsetGap {
        /// The segment's end.
        expected: Offset,
        /// Base offset of the batch.
        found: Offset,
    },
    /// Bytes that are no batch of this segment.
    #[error("the batch cannot be appended: {reason}")]
    InvalidBatch {
        /// What is wrong.
        reason: String,
    },
    /// Segments that cannot be rewritten as one.
    #[error("the segments cannot be rewritten as one: {reason}")]
    InvalidRun {
        /// What is wrong.
        reason: String,
    },
    /// The bytes are not in memory, and the caller does not want to wait for the device ([`Patience::Cached`]).
    ///
    /// [`Patience::Cached`]: crate::Patience::Cached
    #[error("the records are not in memory")]
    NotCached,
    /// The process has no file handle left. It says nothing of the disk, so the storage goes on.
    #[error(
        "cannot {action} {}: too many files are open; raise the limit (ulimit -n), or lower max.connections",
        path.display()
    )]
    NoHandles {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: Arc<Path>,
    },
    /// The directory cannot be taken as a storage.
    #[error("{} cannot be used: {reason}", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why, and what to do about it.
        reason: String,
    },
}

/// Damage found in a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged at byte {position}: {reason}", path.display())]
pub struct Corruption {
    /// The file.
    pub path: PathBuf,
    /// Where, bytes from the start.
    pub position: u64,
    /// What was found.
    pub reason: String,
}

/// No descriptor left in the process, and in the system.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

impl StorageError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> StorageError {
        StorageError::no_handles(action, path, &source).unwrap_or_else(|| StorageError::Io {
            action,
            path: path.into(),
            source: Arc::new(source),
        })
    }

    /// [`StorageError::NoHandles`], if it is that. Only what opens something can meet it.
    pub(crate) fn no_handles(action: &'static str, path: &Path, source: &io::Error) -> Option<StorageError> {
        let none_left = matches!(source.raw_os_error(), Some(EMFILE | ENFILE));
        none_left.then(|| StorageError::NoHandles { action, path: path.into() })
    }

    pub(crate) fn corrupt(path: &Path, position: u64, reason: impl Into<String>) -> StorageError {
        let corruption = Corruption { path: path.to_owned(), position, reason: reason.into() };
        StorageError::Corrupt(Arc::new(corruption))
    }

    /// Damage in the open segment, behind which an operator may want to go on knowingly.
    pub(crate) fn damaged_tail(path: &Path, position: u64, reason: &str) -> StorageError {
        let way_on = format!("truncate -s {position} '{}'", path.display());
        let reason = format!(
            "{reason}; nothing was changed. To go on without this and all that follows it: stop the broker, keep a \
             copy of the file elsewhere, run {way_on}, start again"
        );
        StorageError::corrupt(path, position, reason)
    }

    pub(crate) fn unusable(path: &Path, reason: impl Into<String>) -> StorageError {
        StorageError::Unusable { path: path.to_owned(), reason: reason.into() }
    }
}
