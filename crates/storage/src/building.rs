//! A sealed segment that is built beside and put in its place as a whole, durably.
//!
//! What a crash leaves at each step is a directory under `building/`, which the next opening deletes, or the finished
//! segment in its place. The rename is the only step that shows.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::batch::BatchHeader;
use base::env::{File, OpenMode};
use base::ids::Offset;

use crate::checkpoint::Checkpoint;
use crate::crc;
use crate::error::StorageError;
use crate::index::{self, IndexBuilder, IndexCounts, Tail};
use crate::layout::{SegmentFile, SegmentName, file_name};
use crate::segment::{SealedInfo, is_full};
use crate::storage::Storage;

/// The fewest and the most bytes after which the new file is synced.
const SYNC_BYTES_MIN: u64 = 64 << 10;
const SYNC_BYTES_MAX: u64 = 1 << 20;
/// A disk that syncs more slowly than this, bytes per second, gets more bytes with each sync, up to the most.
const SYNCED_BYTES_PER_SECOND_MIN: f64 = 64e6;

/// A segment that is being built. Dropping it removes what was built.
pub(crate) struct Building {
    storage: Arc<Storage>,
    name: SegmentName,
    dir: PathBuf,
    log: Arc<dyn File>,
    written: u64,
    synced: u64,
    /// Bytes after which it is synced.
    sync_bytes: u64,
    crc: u32,
    builder: IndexBuilder,
    tail: Tail,
    in_place: bool,
}

impl Drop for Building {
    fn drop(&mut self) {
        if !self.in_place
            && let Err(error) = self.storage.discard(&self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot remove an unfinished segment");
        }
    }
}

impl Building {
    /// Begins anew, whatever an earlier attempt left. Blocks shortly.
    ///
    /// # Errors
    /// [`StorageError::NoSpace`], [`StorageError::Failed`].
    pub(crate) fn begin(storage: &Arc<Storage>, name: SegmentName) -> Result<Building, StorageError> {
        storage.check_writable()?;
        let dir = storage.layout.building_segment(&name);
        storage.discard(&dir)?;
        let disk = &storage.env.disk;
        disk.create_dir_all(&dir).map_err(|error| write_failed(storage, &dir, &error))?;
        let path = dir.join(file_name(SegmentFile::Log, name.base));
        let log = disk.open(&path, OpenMode::CreateNew);
        let log = log.map_err(|error| write_failed(storage, &path, &error))?;
        Ok(Building {
            builder: IndexBuilder::new(name.base, storage.options.index_interval_bytes),
            storage: storage.clone(),
            name,
            dir,
            log,
            written: 0,
            synced: 0,
            sync_bytes: SYNC_BYTES_MIN,
            crc: crc::EMPTY,
            tail: Tail::default(),
            in_place: false,
        })
    }

    /// Where it will be.
    pub(crate) fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// Bytes written so far, and the CRC over them.
    pub(crate) fn written(&self) -> (u64, u32) {
        (self.written, self.crc)
    }

    /// Notes a batch that is or will be written at `position`; in order.
    pub(crate) fn index(&mut self, header: &BatchHeader, position: u64) {
        self.builder.add(header, position, &mut self.tail);
    }

    /// Writes what comes next of the log, and syncs once that is much. Blocks.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let path = self.path(SegmentFile::Log);
        let written = self.log.write_all_at(&[IoSlice::new(bytes)], self.written);
        written.map_err(|error| write_failed(&self.storage, &path, &error))?;
        self.crc = crc::extend(self.crc, bytes);
        self.written += bytes.len() as u64;
        if self.written - self.synced >= self.sync_bytes {
            let began = self.storage.env.clock.now();
            self.log.sync_data().map_err(|error| self.storage.fail("sync", &path, &error))?;
            self.sync_bytes = next_sync_bytes(self.sync_bytes, self.storage.env.clock.now() - began);
            self.synced = self.written;
        }
        Ok(())
    }

    /// Completes the files and puts the segment, which ends at `end`, in its place, durably. `beginning` is what is known
    /// of the state at its base. Blocks.
    pub(crate) fn finish(
        mut self,
        end: Offset,
        beginning: Option<Checkpoint>,
    ) -> Result<SealedInfo, StorageError> {
        self.storage.check_writable()?;
        self.builder.add_time(&mut self.tail);
        let info = SealedInfo { end, bytes: self.written, crc: self.crc };
        self.write_beside(info, beginning)?;
        let (storage, disk) = (self.storage.clone(), self.storage.env.disk.clone());
        let path = self.path(SegmentFile::Log);
        self.log.sync_data().map_err(|error| storage.fail("sync", &path, &error))?;
        disk.sync_dir(&self.dir).map_err(|error| storage.fail("sync", &self.dir, &error))?;
        // An earlier one of this name: nobody listed it, or it is not whole.
        storage.remove(&self.name)?;
        let place = storage.layout.segment(&self.name);
        disk.rename(&self.dir, &place).map_err(|error| StorageError::io("rename", &self.dir, error))?;
        self.in_place = true;
        storage.sync_names(&self.name)?;
        Ok(info)
    }

    /// Writes the index files and checkpoints.
    fn write_beside(&self, info: SealedInfo, beginning: Option<Checkpoint>) -> Result<(), StorageError> {
        let (offset_bytes, offsets_crc) = index::encode(&self.tail.offsets, crc::EMPTY);
        let (time_bytes, times_crc) = index::encode(&self.tail.times, crc::EMPTY);
        let counts = IndexCounts {
            offsets: self.tail.offsets.len() as u32,
            offsets_crc,
            times: self.tail.times.len() as u32,
            times_crc,
        };
        let (id, generation) = (self.name.id, self.name.generation);
        let ending = Checkpoint {
            id,
            generation,
            offset: info.end,
            position: info.bytes,
            crc: info.crc,
            durable: true,
            boot: self.storage.boot.clone(),
            counts,
            marks: self.builder.marks(),
            snapshot: None,
        };
        self.write_file(SegmentFile::Index, &offset_bytes)?;
        self.write_file(SegmentFile::TimeIndex, &time_bytes)?;
        self.write_file(SegmentFile::EndCheckpoint, &ending.encode())?;
        if let Some(beginning) = beginning {
            let beginning = Checkpoint { id, generation, ..beginning };
            self.write_file(SegmentFile::BaseCheckpoint, &beginning.encode())?;
        }
        Ok(())
    }

    fn write_file(&self, file: SegmentFile, bytes: &[u8]) -> Result<(), StorageError> {
        let path = self.path(file);
        let handle = self.storage.env.disk.open(&path, OpenMode::CreateNew);
        let handle = handle.and_then(|handle| {
            handle.write_all_at(&[IoSlice::new(bytes)], 0)?;
            Ok(handle)
        });
        let handle = handle.map_err(|error| write_failed(&self.storage, &path, &error))?;
        handle.sync_data().map_err(|error| self.storage.fail("sync", &path, &error))
    }

    fn path(&self, file: SegmentFile) -> PathBuf {
        self.dir.join(file_name(file, self.name.base))
    }
}

/// How many bytes to write before the next sync, when one of `bytes` took so long. Small syncs are hardly felt by
/// others who use the disk or the processors, so there are as few bytes as can be written fast enough. Pure.
fn next_sync_bytes(bytes: u64, took: Duration) -> u64 {
    let is_fast_enough = |bytes: u64| bytes as f64 >= SYNCED_BYTES_PER_SECOND_MIN * took.as_secs_f64();
    if !is_fast_enough(bytes) {
        (bytes * 2).min(SYNC_BYTES_MAX)
    } else if is_fast_enough(bytes / 2) {
        (bytes / 2).max(SYNC_BYTES_MIN)
    } else {
        bytes
    }
}

fn write_failed(storage: &Storage, path: &Path, error: &io::Error) -> StorageError {
    if is_full(error) { storage.out_of_space() } else { storage.fail("write", path, error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the bytes come to rest on a disk that takes so long over each sync and so many bytes a second.
    fn settled(sync_us: u64, bytes_per_second: f64) -> Vec<u64> {
        let mut seen = vec![SYNC_BYTES_MIN];
        for _ in 0..20 {
            let bytes = seen[seen.len() - 1];
            let took =
                Duration::from_micros(sync_us) + Duration::from_secs_f64(bytes as f64 / bytes_per_second);
            seen.push(next_sync_bytes(bytes, took));
        }
        seen.split_off(17)
    }

    #[test]
    fn syncs_are_as_small_as_the_disk_lets_them_be() {
        assert_eq!(settled(100, 500e6), [64 << 10; 4]);
        assert_eq!(settled(1_000, 500e6), [128 << 10; 4]);
        assert_eq!(settled(5_000, 500e6), [512 << 10; 4]);
        assert_eq!(settled(10_000, 150e6), [1 << 20; 4], "never more than this");
        assert_eq!(
            next_sync_bytes(1 << 20, Duration::from_micros(500)),
            512 << 10,
            "one slow sync is forgotten"
        );
        assert_eq!(next_sync_bytes(64 << 10, Duration::ZERO), 64 << 10);
    }
}
