//! What a new life does with the journal of the one before it.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use base::env::{Env, File, OpenMode};

use super::Writer;
use super::block::{ALIGNMENT, BLOCK_BYTES_MAX, BlockHead, Entry, Stamp, Target, entries};
use crate::error::StorageError;
use crate::layout::{Layout, SegmentFile, SegmentName};

/// Log files held open at once.
const OPEN_FILES_MAX: usize = 256;

/// A block that was read.
struct Found {
    stamp: Stamp,
    position: u64,
    size: usize,
}

/// Writes what the journal holds to the segment files again; durable once they are synced. Returns the ranges
/// written, 0 without a journal. Blocks.
///
/// # Errors
/// [`StorageError::Io`]; [`StorageError::Corrupt`] when a block is damaged that others follow.
pub(crate) fn apply(env: &Env, layout: &Layout) -> Result<usize, StorageError> {
    let path = layout.journal();
    let file = match env.disk.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(StorageError::io("open", &path, error)),
    };
    let length = file.len().map_err(|error| StorageError::io("measure", &path, error))?;
    let half = length / 2;
    let ranges = [0..half, half..2 * half];
    let lives = [read_life(&*file, &path, &ranges[0])?, read_life(&*file, &path, &ranges[1])?];
    let [first, second] = ranges;
    let mut halves = [
        read_half(&*file, &path, first, lives[0].or(lives[1]))?,
        read_half(&*file, &path, second, lives[1].or(lives[0]))?,
    ];
    // Of one life's two cycles the newer comes last. There is never more than one life: each voids the one before.
    halves.sort_by_key(|half| half.blocks.first().map(|block| block.stamp.sequence));
    let [older, newer] = &halves;
    older.check_order(&path, newer)?;
    newer.check_order(&path, older)?;
    let mut target = Applying { env, layout, files: HashMap::new(), ranges: 0 };
    let mut bytes = Vec::new();
    for block in halves.iter().flat_map(|half| &half.blocks) {
        read_block(&*file, &mut bytes, block.position, block.size)
            .map_err(|error| StorageError::io("read", &path, error))?;
        for entry in entries(&bytes).unwrap_or_default() {
            target.apply(&entry)?;
        }
    }
    Ok(target.ranges)
}

/// What was found in a half.
struct Half {
    /// Of the life whose half it is: one after the other.
    blocks: Vec<Found>,
    /// Where they end.
    end: u64,
    /// What whole blocks of that life behind the end say: an earlier cycle left them, or one between was damaged.
    later: Vec<Stamp>,
}

impl Half {
    fn last_sequence(&self) -> Option<u64> {
        self.blocks.last().map(|last| last.stamp.sequence)
    }

    /// The last round may be torn, each of its blocks: nobody was told of it. What a later round left behind a block
    /// that is not whole says that the block was synced: it is damaged.
    fn check_order(&self, path: &Path, other: &Half) -> Result<(), StorageError> {
        let due = self.last_sequence().or(other.last_sequence()).unwrap_or(0) + 1;
        if self.later.iter().any(|later| later.round > due) {
            let reason = "no block, although another one follows: records acknowledged before a power cut may be \
                          lost. To go on without them, remove the file";
            return Err(StorageError::corrupt(path, self.end, reason));
        }
        Ok(())
    }
}

/// What the first block of a half says, if it is whole.
fn read_life(file: &dyn File, path: &Path, half: &Range<u64>) -> Result<Option<u64>, StorageError> {
    let head = whole_block(file, &mut Vec::new(), half.start, half.end);
    let head = head.map_err(|error| StorageError::io("read", path, error))?;
    Ok(head.map(|head| head.stamp.life))
}

/// Reads a half that belongs to `life`. Without one the file was never made to its end, and nothing was written to it.
fn read_half(
    file: &dyn File,
    path: &Path,
    half: Range<u64>,
    life: Option<u64>,
) -> Result<Half, StorageError> {
    let io = |error| StorageError::io("read", path, error);
    let mut bytes = Vec::new();
    let mut position = half.start + ALIGNMENT as u64;
    let mut found = Half { blocks: Vec::new(), end: position, later: Vec::new() };
    let Some(life) = life else { return Ok(found) };
    while position + (ALIGNMENT as u64) <= half.end {
        let block = whole_block(file, &mut bytes, position, half.end).map_err(io)?;
        let block = block.filter(|block| block.stamp.life == life);
        let size = block.as_ref().map_or(ALIGNMENT, |block| block.size) as u64;
        let is_next = |block: &Found| {
            let follows = |last: &Found| block.stamp.sequence == last.stamp.sequence + 1;
            found.end == position && found.blocks.last().is_none_or(follows)
        };
        match block {
            Some(block) if is_next(&block) => {
                found.end += size;
                found.blocks.push(block);
            }
            Some(block) => found.later.push(block.stamp),
            None => {}
        }
        position += size;
    }
    Ok(found)
}

/// The block at `position` if it is whole.
fn whole_block(file: &dyn File, bytes: &mut Vec<u8>, position: u64, end: u64) -> io::Result<Option<Found>> {
    if position + (ALIGNMENT as u64) > end {
        return Ok(None);
    }
    read_block(file, bytes, position, ALIGNMENT)?;
    let Some(head) = BlockHead::parse(bytes) else { return Ok(None) };
    if head.size as u64 > end - position {
        return Ok(None);
    }
    read_block(file, bytes, position, head.size)?;
    Ok(entries(bytes).map(|_| Found { stamp: head.stamp, position, size: head.size }))
}

fn read_block(file: &dyn File, bytes: &mut Vec<u8>, position: u64, size: usize) -> io::Result<()> {
    debug_assert!(size <= BLOCK_BYTES_MAX.next_multiple_of(ALIGNMENT));
    bytes.resize(size, 0);
    file.read_exact_at(bytes, position)
}

/// A log file and its length, bytes.
type OpenLog = (Arc<dyn File>, u64);

struct Applying<'a> {
    env: &'a Env,
    layout: &'a Layout,
    /// `None` for a segment that is gone.
    files: HashMap<SegmentName, Option<OpenLog>>,
    ranges: usize,
}

impl Applying<'_> {
    fn apply(&mut self, entry: &Entry<'_>) -> Result<(), StorageError> {
        if entry.target == Target::BaseCheckpoint {
            let path = self.layout.file(&entry.name, SegmentFile::BaseCheckpoint);
            return self.write(&path, None, entry);
        }
        let path = self.layout.file(&entry.name, SegmentFile::Log);
        if self.files.len() >= OPEN_FILES_MAX {
            self.files.clear();
        }
        if !self.files.contains_key(&entry.name) {
            let opened = self.open(&path, entry)?;
            self.files.insert(entry.name.clone(), opened);
        }
        let Some(Some((file, length))) = self.files.get_mut(&entry.name) else { return Ok(()) };
        if *length < entry.position {
            tracing::error!(
                path = %path.display(), length, position = entry.position,
                "a segment is shorter than what was synced of it"
            );
            return Ok(());
        }
        *length = (*length).max(entry.position + entry.content.len() as u64);
        let file = file.clone();
        self.ranges += 1;
        self.write(&path, Some(&*file), entry)
    }

    /// The log file of an entry's segment. One that was new is made again; of another one that is not there the
    /// partition was removed, or the segment was.
    fn open(&self, path: &Path, entry: &Entry<'_>) -> Result<Option<OpenLog>, StorageError> {
        let io = |action| move |error| StorageError::io(action, path, error);
        let mode = if entry.position == 0 { OpenMode::ReadWrite } else { OpenMode::Existing };
        if mode == OpenMode::ReadWrite {
            let dir = self.layout.segment(&entry.name);
            self.env.disk.create_dir_all(&dir).map_err(io("make"))?;
        }
        match self.env.disk.open(path, mode) {
            Ok(file) => {
                let length = file.len().map_err(io("measure"))?;
                Ok(Some((file, length)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("open")(error)),
        }
    }

    fn write(&self, path: &Path, file: Option<&dyn File>, entry: &Entry<'_>) -> Result<(), StorageError> {
        let write = |file: &dyn File| file.write_all_at(&[IoSlice::new(entry.content)], entry.position);
        let written = match file {
            Some(file) => write(file),
            None => self.env.disk.open(path, OpenMode::ReadWrite).and_then(|file| write(&*file)),
        };
        written.map_err(|error| StorageError::io("write", path, error))
    }
}

/// Makes the journal of an earlier life void, durably: every block it holds is in place now. Returns it for this life
/// if it has the length that wants, and removes it otherwise. Blocks.
///
/// # Errors
/// [`StorageError::Io`].
pub(crate) fn reset(env: &Env, layout: &Layout, half_bytes: u64) -> Result<Option<Writer>, StorageError> {
    let path = layout.journal();
    let io = |action| {
        let path = &path;
        move |error| StorageError::io(action, path, error)
    };
    let file = match env.disk.open(&path, OpenMode::Existing) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("open")(error)),
    };
    let length = file.len().map_err(io("measure"))?;
    if half_bytes == 0 || length != 2 * half_bytes {
        drop(file);
        env.disk.remove_file(&path).map_err(io("remove"))?;
        env.disk.sync_dir(layout.root()).map_err(io("sync the directory of"))?;
        return Ok(None);
    }
    Writer::begin(file, half_bytes, env).map(Some).map_err(io("write"))
}
