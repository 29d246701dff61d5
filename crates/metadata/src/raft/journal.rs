//! The log's files: what was appended, durable before the append is answered.
//!
//! ```text
//!  <sequence, 20 digits>.log
//!  [magic 8][format u32][sequence u64][next index u64][mark u32][crc u32]      head, synced before frames
//!  [mark u32][body bytes u32][count u32][first index u64][crc u32][body] …     one frame for one append
//!                                                        body: count × ([bytes u32][entry])
//! ```
//!
//! Invariants: a frame is written by one append and synced before the next begins, so that only the last
//! one can be unfinished; an unfinished one is cut off when the journal is opened, damage anywhere else is
//! reported and nothing is changed. A frame whose first index lies below the next one takes back the
//! entries from there on; an empty frame does only that, and at the very end it is the mark of a clean
//! end, after which damage of any answered append is seen. The mark of a file is random, so bytes inside an
//! entry do not pass for a frame. Sequence numbers are dense: a missing file is seen. Files go oldest
//! first, each removal durable before the next.
//!
//! It knows nothing of Raft and keeps no entries in memory.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::env::{Env, File, OpenMode};

use super::home::{Action, FORMAT, FileError};

/// Longest body of a frame.
pub(super) const BODY_BYTES_MAX: usize = 64 << 20;
const MAGIC: &[u8; 8] = b"VltavaLg";
const HEAD_BYTES: usize = 8 + 4 + 8 + 8 + 4 + 4;
const FRAME_HEAD_BYTES: usize = 4 + 4 + 4 + 8 + 4;

/// Entries by index.
pub(super) type Entries = BTreeMap<u64, Vec<u8>>;

struct Segment {
    path: PathBuf,
    file: Arc<dyn File>,
    mark: u32,
    length: usize,
    /// One more than the highest index in it, taken back or not.
    bound: u64,
}

/// See the module's head.
pub(super) struct Journal {
    env: Env,
    dir: PathBuf,
    /// A file that has this many bytes is followed by another.
    file_bytes: usize,
    /// Oldest first.
    files: VecDeque<Segment>,
    next_sequence: u64,
    /// Index of the next entry.
    next: u64,
    /// Set by an error after which nobody knows what the disk holds.
    failed: bool,
}

impl Journal {
    /// Opens the journal in `dir`, which exists. Entries below `kept_from` are not needed any more: their
    /// files are removed, and they are not returned.
    pub(super) fn open(
        env: &Env,
        dir: &Path,
        file_bytes: usize,
        kept_from: u64,
    ) -> Result<(Journal, Entries), FileError> {
        let mut journal = Journal {
            env: env.clone(),
            dir: dir.to_owned(),
            file_bytes,
            files: VecDeque::new(),
            next_sequence: 1,
            next: kept_from,
            failed: false,
        };
        let names = env.disk.read_dir(dir).map_err(FileError::io(Action::Read, dir))?;
        let mut sequences: Vec<u64> =
            names.iter().filter_map(|entry| entry.name.strip_suffix(".log")?.parse().ok()).collect();
        sequences.sort_unstable();
        let mut entries = Entries::new();
        for (at, sequence) in sequences.iter().enumerate() {
            if at > 0 && sequences[at - 1] + 1 != *sequence {
                return Err(FileError::damaged(
                    &journal.path_of(*sequence),
                    0,
                    "the file before it is missing",
                ));
            }
            journal.read_file(*sequence, at + 1 == sequences.len(), kept_from, &mut entries)?;
        }
        journal.next = journal.next.max(kept_from);
        journal.purge(kept_from)?;
        Ok((journal, entries))
    }

    fn read_file(
        &mut self,
        sequence: u64,
        is_last: bool,
        kept_from: u64,
        entries: &mut Entries,
    ) -> Result<(), FileError> {
        let path = self.path_of(sequence);
        let file =
            self.env.disk.open(&path, OpenMode::Existing).map_err(FileError::io(Action::Create, &path))?;
        let bytes = read_whole(&*file, &path, self.file_bytes)?;
        self.next_sequence = sequence;
        let (mark, next) = match read_head(&bytes, sequence, &path) {
            Ok(head) => head,
            // It was being made when the power went: frames come after the head is durable.
            Err(FileError::Damaged { .. }) if is_last && bytes.len() <= HEAD_BYTES => {
                return self.remove(&path);
            }
            Err(error) => return Err(error),
        };
        self.next_sequence = sequence + 1;
        let is_first = self.files.is_empty();
        let missing = if is_first { next > kept_from } else { next != self.next && next > kept_from };
        if missing {
            return Err(FileError::damaged(&path, 0, "the entries before it are missing"));
        }
        self.next = next;
        let mut segment = Segment { path, file, mark, length: HEAD_BYTES, bound: next };
        // Where the last frame begins, or the head: all that is not known to be durable.
        let mut last_part = 0;
        while segment.length < bytes.len() {
            let rest = &bytes[segment.length..];
            let Some(frame) = Frame::parse(rest, mark) else {
                if !is_last || has_frame(&rest[1..], mark) {
                    let what = "whole entries follow bytes that are none";
                    return Err(FileError::damaged(&segment.path, segment.length, what));
                }
                cut(&segment, rest.len())?;
                break;
            };
            last_part = segment.length;
            self.replay(&frame, &mut segment, kept_from, entries)?;
        }
        if is_last {
            // A process that was killed between write and sync, or whose sync failed, left bytes that we read but a
            // power cut takes. After a failed sync the kernel holds them for clean: they are written again.
            let part = &bytes[last_part..segment.length];
            let written = segment.file.write_all_at(&[IoSlice::new(part)], last_part as u64);
            written.map_err(FileError::io(Action::Write, &segment.path))?;
            segment.file.sync_data().map_err(FileError::io(Action::Sync, &segment.path))?;
        }
        self.files.push_back(segment);
        Ok(())
    }

    fn replay(
        &mut self,
        frame: &Frame<'_>,
        segment: &mut Segment,
        kept_from: u64,
        entries: &mut Entries,
    ) -> Result<(), FileError> {
        let damaged = |what| FileError::damaged(&segment.path, segment.length, what);
        if frame.first > self.next {
            return Err(damaged("entries are missing before this one"));
        }
        let payloads = frame.payloads().ok_or_else(|| damaged("an entry has another length than it says"))?;
        entries.split_off(&frame.first);
        self.next = frame.first;
        for payload in payloads {
            if self.next >= kept_from {
                entries.insert(self.next, payload.to_vec());
            }
            self.next += 1;
        }
        segment.bound = segment.bound.max(self.next);
        segment.length += FRAME_HEAD_BYTES + frame.body.len();
        Ok(())
    }

    /// Appends entries durably. The first continues the journal, takes back what stands there, or, after a
    /// purge of everything, begins further on. After an error of a full disk the same call may be made
    /// again; after any other the journal is dead.
    pub(super) fn append(&mut self, first: u64, payloads: &[Vec<u8>]) -> Result<(), FileError> {
        if self.failed {
            let source = io::Error::other("an earlier write or sync failed");
            return Err(FileError::io(Action::Write, &self.dir)(source));
        }
        let done = self.try_append(first, payloads);
        self.failed = done.as_ref().is_err_and(|error| !error.is_full());
        done
    }

    fn try_append(&mut self, first: u64, payloads: &[Vec<u8>]) -> Result<(), FileError> {
        if self.files.back().is_none_or(|file| file.length >= self.file_bytes) {
            self.begin_file()?;
        }
        let segment = self.files.back_mut().expect("a file was found or made");
        let body_bytes: usize = payloads.iter().map(|payload| 4 + payload.len()).sum();
        if body_bytes > BODY_BYTES_MAX || first > self.next {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the append does not fit the log");
            return Err(FileError::io(Action::Write, &segment.path)(source));
        }
        let frame = write_frame(segment.mark, first, payloads, body_bytes);
        let io = |action| FileError::io(action, &segment.path);
        segment
            .file
            .write_all_at(&[IoSlice::new(&frame)], segment.length as u64)
            .map_err(io(Action::Write))?;
        segment.file.sync_data().map_err(io(Action::Sync))?;
        segment.length += frame.len();
        self.next = first + payloads.len() as u64;
        segment.bound = segment.bound.max(self.next);
        Ok(())
    }

    fn begin_file(&mut self) -> Result<(), FileError> {
        let (sequence, path) = (self.next_sequence, self.path_of(self.next_sequence));
        let mark = self.env.random.next_u64() as u32;
        let head = write_head(sequence, self.next, mark);
        let io = |action| FileError::io(action, &path);
        let file = self.env.disk.open(&path, OpenMode::ReadWrite).map_err(io(Action::Create))?;
        file.set_len(0).map_err(io(Action::Cut))?;
        file.write_all_at(&[IoSlice::new(&head)], 0).map_err(io(Action::Write))?;
        file.sync_data().map_err(io(Action::Sync))?;
        self.env.disk.sync_dir(&self.dir).map_err(FileError::io(Action::Sync, &self.dir))?;
        self.files.push_back(Segment { path, file, mark, length: HEAD_BYTES, bound: self.next });
        self.next_sequence += 1;
        Ok(())
    }

    /// Takes back everything from `index` on, durably.
    pub(super) fn truncate(&mut self, index: u64) -> Result<(), FileError> {
        if index < self.next { self.append(index, &[]) } else { Ok(()) }
    }

    /// Marks a clean end: from now on damage of the last append too is told from an unfinished one.
    pub(super) fn finish(&mut self) -> Result<(), FileError> {
        if self.files.is_empty() { Ok(()) } else { self.append(self.next, &[]) }
    }

    /// Removes the files that hold nothing from `kept_from` on.
    pub(super) fn purge(&mut self, kept_from: u64) -> Result<(), FileError> {
        while self.files.front().is_some_and(|file| file.bound <= kept_from) {
            let file = self.files.pop_front().expect("there is a front");
            self.remove(&file.path)?;
        }
        self.next = self.next.max(kept_from);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), FileError> {
        self.env.disk.remove_file(path).map_err(FileError::io(Action::Remove, path))?;
        self.env.disk.sync_dir(&self.dir).map_err(FileError::io(Action::Sync, &self.dir))
    }

    fn path_of(&self, sequence: u64) -> PathBuf {
        self.dir.join(format!("{sequence:020}.log"))
    }
}

fn read_whole(file: &dyn File, path: &Path, file_bytes: usize) -> Result<Vec<u8>, FileError> {
    let length = file.len().map_err(FileError::io(Action::Read, path))?;
    let longest = file_bytes + FRAME_HEAD_BYTES + BODY_BYTES_MAX;
    if length > longest as u64 {
        return Err(FileError::damaged(path, longest, "it is longer than a log file can be"));
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0).map_err(FileError::io(Action::Read, path))?;
    Ok(bytes)
}

fn cut(segment: &Segment, torn_bytes: usize) -> Result<(), FileError> {
    let path = &segment.path;
    tracing::warn!(path = %path.display(), torn_bytes, "an unfinished write was cut off the end of the metadata log");
    segment.file.set_len(segment.length as u64).map_err(FileError::io(Action::Cut, path))
}

fn write_head(sequence: u64, next: u64, mark: u32) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&FORMAT.to_be_bytes());
    head.extend_from_slice(&sequence.to_be_bytes());
    head.extend_from_slice(&next.to_be_bytes());
    head.extend_from_slice(&mark.to_be_bytes());
    head.extend_from_slice(&crc_fast::crc32_iscsi(&head).to_be_bytes());
    head
}

/// The mark and the next index in the head of a file.
fn read_head(bytes: &[u8], sequence: u64, path: &Path) -> Result<(u32, u64), FileError> {
    let damaged = |what| FileError::damaged(path, 0, what);
    let head = bytes.get(..HEAD_BYTES).ok_or_else(|| damaged("it is shorter than its head"))?;
    let mut fields = Fields(&head[8..]);
    let read = (fields.u32(), fields.u64(), fields.u64(), fields.u32(), fields.u32());
    let (Some(format), Some(found), Some(next), Some(mark), Some(crc)) = read else {
        return Err(damaged("it is shorter than its head"));
    };
    if &head[..8] != MAGIC || crc_fast::crc32_iscsi(&head[..HEAD_BYTES - 4]) != crc {
        return Err(damaged("its head cannot be read"));
    }
    if format != FORMAT {
        return Err(FileError::Format { path: path.to_owned(), found: format });
    }
    if found != sequence {
        return Err(damaged("it bears the name of another file"));
    }
    Ok((mark, next))
}

fn write_frame(mark: u32, first: u64, payloads: &[Vec<u8>], body_bytes: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + body_bytes);
    frame.extend_from_slice(&mark.to_be_bytes());
    frame.extend_from_slice(&(body_bytes as u32).to_be_bytes());
    frame.extend_from_slice(&(payloads.len() as u32).to_be_bytes());
    frame.extend_from_slice(&first.to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    for payload in payloads {
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
    }
    let crc = frame_crc(&frame[..FRAME_HEAD_BYTES - 4], &frame[FRAME_HEAD_BYTES..]);
    frame[FRAME_HEAD_BYTES - 4..FRAME_HEAD_BYTES].copy_from_slice(&crc.to_be_bytes());
    frame
}

fn frame_crc(head: &[u8], body: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(head);
    digest.update(body);
    digest.finalize() as u32
}

/// Whether a whole frame stands anywhere in the bytes.
fn has_frame(bytes: &[u8], mark: u32) -> bool {
    let mark_bytes = mark.to_be_bytes();
    let mut places = bytes.windows(4).enumerate().filter(|(_, four)| *four == mark_bytes);
    places.any(|(at, _)| Frame::parse(&bytes[at..], mark).is_some())
}

/// A whole and undamaged frame.
struct Frame<'a> {
    first: u64,
    count: u32,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the front of the bytes.
    fn parse(bytes: &'a [u8], mark: u32) -> Option<Frame<'a>> {
        let mut fields = Fields(bytes);
        if fields.u32()? != mark {
            return None;
        }
        let (length, count, first, crc) =
            (fields.u32()? as usize, fields.u32()?, fields.u64()?, fields.u32()?);
        let body = fields.0.get(..length)?;
        let whole = frame_crc(&bytes[..FRAME_HEAD_BYTES - 4], body) == crc;
        let fits = length <= BODY_BYTES_MAX && first.checked_add(count.into()).is_some();
        (whole && fits).then_some(Frame { first, count, body })
    }

    fn payloads(&self) -> Option<Vec<&'a [u8]>> {
        let mut fields = Fields(self.body);
        let mut payloads = Vec::new();
        for _ in 0..self.count {
            let length = fields.u32()? as usize;
            payloads.push(fields.take(length)?);
        }
        fields.0.is_empty().then_some(payloads)
    }
}

/// Numbers at the front of bytes, big-endian; `None` when there are too few.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
