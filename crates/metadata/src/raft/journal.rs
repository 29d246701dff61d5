//! The log's files: frames of bytes under ascending indexes, durable before an append is answered.
//!
//! ```text
//!  <first index, 20 digits>.log:  [length u32][crc32c u32][payload] [length][crc][payload] …
//! ```
//!
//! Invariants: indexes are dense from the first kept to the last; an append that was answered survives
//! power loss; an unfinished write at the end is cut when the journal is opened, damage anywhere else is
//! reported and nothing is changed. Payloads stay in memory too: snapshots keep the log short.
//!
//! It knows nothing of Raft: the index of a payload is told by the caller's function.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::env::{Disk, File, OpenMode};

/// A file is ended when it has this many bytes.
const FILE_BYTES: u64 = 8 << 20;
/// Longest payload: what one command may take.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 << 20;
const HEADER_BYTES: usize = 8;

/// Damage that is no unfinished write.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is damaged at byte {position}: {what}")]
    Damaged { path: PathBuf, position: u64, what: &'static str },
}

struct Segment {
    path: PathBuf,
    file: Arc<dyn File>,
    length: u64,
}

/// Reads the index out of a payload; `None` for bytes that are no payload.
pub(crate) type IndexOf = fn(&[u8]) -> Option<u64>;

/// See the module's head.
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Files by their first index.
    files: BTreeMap<u64, Segment>,
    /// Payloads by index, and where each begins in its file.
    payloads: BTreeMap<u64, (Arc<[u8]>, u64)>,
}

impl Journal {
    /// Opens the journal in `dir`, which exists.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path, index_of: IndexOf) -> Result<Journal, JournalError> {
        let mut journal =
            Journal { disk, dir: dir.to_owned(), files: BTreeMap::new(), payloads: BTreeMap::new() };
        let names = journal.disk.read_dir(dir).map_err(|source| io_error(dir, source))?;
        let mut firsts: Vec<u64> =
            names.iter().filter_map(|entry| entry.name.strip_suffix(".log")?.parse().ok()).collect();
        firsts.sort_unstable();
        let last = firsts.last().copied();
        for first in firsts {
            journal.read_file(first, Some(first) == last, index_of)?;
        }
        Ok(journal)
    }

    fn read_file(&mut self, first: u64, is_last: bool, index_of: IndexOf) -> Result<(), JournalError> {
        let path = self.path_of(first);
        let fail = |source| io_error(&path, source);
        let file = self.disk.open(&path, OpenMode::ReadWrite).map_err(fail)?;
        let mut bytes = vec![0; usize::try_from(file.len().map_err(fail)?).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, 0).map_err(fail)?;
        let mut position = 0;
        let mut expected = match self.payloads.last_key_value() {
            Some((index, _)) => index + 1,
            None => first,
        };
        let damaged = |position: usize, what| {
            Err(JournalError::Damaged { path: path.clone(), position: position as u64, what })
        };
        if expected != first {
            return damaged(0, "the entries before it are missing");
        }
        while position < bytes.len() {
            let Some(payload) = frame_at(&bytes[position..]) else {
                if !is_last || has_later_frame(&bytes[position + 1..], expected, index_of) {
                    return damaged(position, "valid entries follow bytes that are none");
                }
                let torn = bytes.len() - position;
                tracing::warn!(path = %path.display(), torn, "an unfinished write was cut off the metadata log's end");
                file.set_len(position as u64).map_err(fail)?;
                file.sync_data().map_err(fail)?;
                bytes.truncate(position);
                break;
            };
            if index_of(payload) != Some(expected) {
                return damaged(position, "an entry of another index stands there");
            }
            self.payloads.insert(expected, (payload.into(), position as u64));
            position += HEADER_BYTES + payload.len();
            expected += 1;
        }
        let length = bytes.len() as u64;
        self.files.insert(first, Segment { path, file, length });
        Ok(())
    }

    /// First and last index kept.
    pub(crate) fn bounds(&self) -> Option<(u64, u64)> {
        Some((*self.payloads.first_key_value()?.0, *self.payloads.last_key_value()?.0))
    }

    /// Payloads of a range of indexes, in order.
    pub(crate) fn range(&self, range: impl std::ops::RangeBounds<u64>) -> Vec<Arc<[u8]>> {
        self.payloads.range(range).map(|(_, (payload, _))| payload.clone()).collect()
    }

    /// Appends payloads with one write and returns what must be synced for them to be durable. The
    /// first continues the journal, or begins it anywhere when it is empty.
    pub(crate) fn append(&mut self, first: u64, payloads: Vec<Vec<u8>>) -> Result<Arc<dyn File>, JournalError> {
        let open = self.files.last_entry().filter(|file| file.get().length < FILE_BYTES);
        let begin = match open {
            Some(file) => *file.key(),
            None => self.begin_file(first)?,
        };
        let file = self.files.get_mut(&begin).expect("the file was found or made");
        let mut frames = Vec::new();
        let mut positions = Vec::with_capacity(payloads.len());
        for payload in &payloads {
            positions.push(file.length + frames.len() as u64);
            frames.extend_from_slice(&(payload.len() as u32).to_be_bytes());
            frames.extend_from_slice(&crc_fast::crc32_iscsi(payload).to_be_bytes());
            frames.extend_from_slice(payload);
        }
        file.file
            .write_all_at(&[IoSlice::new(&frames)], file.length)
            .map_err(|source| io_error(&file.path, source))?;
        file.length += frames.len() as u64;
        for ((index, payload), position) in (first..).zip(payloads).zip(positions) {
            self.payloads.insert(index, (payload.into(), position));
        }
        Ok(file.file.clone())
    }

    fn begin_file(&mut self, first: u64) -> Result<u64, JournalError> {
        let path = self.path_of(first);
        let file = self.disk.open(&path, OpenMode::ReadWrite).map_err(|source| io_error(&path, source))?;
        file.set_len(0).map_err(|source| io_error(&path, source))?;
        self.disk.sync_dir(&self.dir).map_err(|source| io_error(&self.dir, source))?;
        self.files.insert(first, Segment { path, file, length: 0 });
        Ok(first)
    }

    /// Drops everything from `index` on.
    pub(crate) fn truncate(&mut self, index: u64) -> Result<(), JournalError> {
        let Some((_, position)) = self.payloads.get(&index) else { return Ok(()) };
        let position = *position;
        let later = self.files.split_off(&(index + 1));
        for file in later.into_values() {
            self.disk.remove_file(&file.path).map_err(|source| io_error(&file.path, source))?;
        }
        if let Some(mut file) = self.files.last_entry() {
            let file = file.get_mut();
            let cut = file.file.set_len(position).and_then(|()| file.file.sync_data());
            cut.map_err(|source| io_error(&file.path, source))?;
            file.length = position;
        }
        self.payloads.split_off(&index);
        self.disk.sync_dir(&self.dir).map_err(|source| io_error(&self.dir, source))
    }

    /// Forgets everything up to and including `index`: whole files go, the rest stays readable on disk
    /// but not here.
    pub(crate) fn purge(&mut self, index: u64) -> Result<(), JournalError> {
        self.payloads = self.payloads.split_off(&(index + 1));
        let firsts: Vec<u64> = self.files.keys().copied().collect();
        for pair in firsts.windows(2) {
            if pair[1] <= index + 1
                && let Some(file) = self.files.remove(&pair[0])
            {
                self.disk.remove_file(&file.path).map_err(|source| io_error(&file.path, source))?;
            }
        }
        Ok(())
    }

    fn path_of(&self, first: u64) -> PathBuf {
        self.dir.join(format!("{first:020}.log"))
    }
}

fn io_error(path: &Path, source: io::Error) -> JournalError {
    JournalError::Io { path: path.to_owned(), source }
}

/// The payload of a whole and undamaged frame at the front of the bytes.
fn frame_at(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    if length == 0 || length > PAYLOAD_BYTES_MAX {
        return None;
    }
    let payload = rest.get(..length)?;
    (crc_fast::crc32_iscsi(payload) == u32::from_be_bytes(*crc)).then_some(payload)
}

/// Whether a valid entry of a later index stands anywhere in the bytes.
fn has_later_frame(bytes: &[u8], index: u64, index_of: IndexOf) -> bool {
    (0..bytes.len()).any(|at| {
        frame_at(&bytes[at..]).and_then(index_of).is_some_and(|found| found >= index)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::env::Env;

    fn index_of(payload: &[u8]) -> Option<u64> {
        payload.get(..8)?.try_into().ok().map(u64::from_be_bytes)
    }

    fn payload(index: u64, size: usize) -> Vec<u8> {
        let mut bytes = index.to_be_bytes().to_vec();
        bytes.resize(8 + size, index as u8);
        bytes
    }

    struct Folder(PathBuf, Arc<dyn Disk>);

    impl Folder {
        fn new(name: &str) -> Folder {
            let env = Env::os();
            let dir = std::env::temp_dir().join(format!("vltava-journal-{name}-{}", env.random_uuid()));
            env.disk.create_dir_all(&dir).unwrap();
            Folder(dir, env.disk.clone())
        }

        fn open(&self) -> Result<Journal, JournalError> {
            Journal::open(self.1.clone(), &self.0, index_of)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = self.1.remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_was_appended_is_there_after_reopening() {
        let folder = Folder::new("reopen");
        let mut journal = folder.open().unwrap();
        journal.append(1, (1..=5).map(|i| payload(i, 10)).collect()).unwrap();
        journal.append(6, vec![payload(6, 9 << 20)]).unwrap();
        journal.append(7, vec![payload(7, 10)]).unwrap();
        assert_eq!(journal.files.len(), 2);
        let journal = folder.open().unwrap();
        assert_eq!(journal.bounds(), Some((1, 7)));
        assert_eq!(&*journal.range(6..=6)[0], payload(6, 9 << 20));
    }

    #[test]
    fn an_unfinished_write_is_cut_at_every_length() {
        for cut in 1..26 {
            let folder = Folder::new("torn");
            let mut journal = folder.open().unwrap();
            let file = journal.append(1, vec![payload(1, 10), payload(2, 10)]).unwrap();
            file.set_len(file.len().unwrap() - cut).unwrap();
            let mut journal = folder.open().unwrap();
            assert_eq!(journal.bounds(), Some((1, 1)), "{cut}");
            journal.append(2, vec![payload(2, 3)]).unwrap();
            assert_eq!(folder.open().unwrap().bounds(), Some((1, 2)));
        }
    }

    #[test]
    fn damage_before_the_end_is_reported_and_nothing_changes() {
        let folder = Folder::new("damage");
        let mut journal = folder.open().unwrap();
        let file = journal.append(1, (1..=3).map(|i| payload(i, 10)).collect()).unwrap();
        file.write_all_at(&[IoSlice::new(&[0xff])], 30).unwrap();
        let length = file.len().unwrap();
        assert!(matches!(folder.open(), Err(JournalError::Damaged { .. })));
        assert_eq!(file.len().unwrap(), length);
    }

    #[test]
    fn purge_and_truncate_keep_the_middle() {
        let folder = Folder::new("middle");
        let mut journal = folder.open().unwrap();
        for index in 1..=4 {
            journal.append(index, vec![payload(index, 9 << 20)]).unwrap();
        }
        journal.purge(2).unwrap();
        journal.truncate(4).unwrap();
        assert_eq!(journal.bounds(), Some((3, 3)));
        assert_eq!(folder.open().unwrap().bounds(), Some((3, 3)));
        journal.append(4, vec![payload(4, 1)]).unwrap();
        assert_eq!(folder.open().unwrap().bounds(), Some((3, 4)));
    }
}
