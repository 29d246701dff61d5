//! Takes a sealed segment over from another storage, byte by byte.
//!
//! It is built beside and put in its place as a whole, durably, once its length and CRC are those that were sealed. What
//! an import that did not end leaves is a directory under `building/`, which the next opening deletes.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use base::batch::BatchView;
use base::env::{File, OpenMode};
use bytes::Bytes;

use crate::checkpoint::Checkpoint;
use crate::crc;
use crate::error::StorageError;
use crate::index::{self, IndexBuilder, IndexCounts, Tail};
use crate::layout::{SegmentFile, SegmentName, file_name};
use crate::segment::{SealedInfo, is_full};
use crate::storage::Storage;

/// What may stay unsynced until more is written, bytes: so that the end waits for little.
const SYNC_BYTES: u64 = 8 << 20;

/// An import under way. Dropping it removes what was built.
pub struct Import {
    storage: Arc<Storage>,
    name: SegmentName,
    sealed: SealedInfo,
    dir: PathBuf,
    log: Arc<dyn File>,
    length: u64,
    synced: u64,
    crc: u32,
    builder: IndexBuilder,
    tail: Tail,
    in_place: bool,
}

impl Drop for Import {
    fn drop(&mut self) {
        if !self.in_place
            && let Err(error) = self.storage.discard(&self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot remove an unfinished import");
        }
    }
}

impl Import {
    /// Begins to import a segment that was sealed so. Blocks shortly.
    ///
    /// # Errors
    /// [`StorageError::NoSpace`], [`StorageError::Failed`].
    pub fn begin(
        storage: &Arc<Storage>,
        name: SegmentName,
        sealed: SealedInfo,
    ) -> Result<Import, StorageError> {
        storage.check_writable()?;
        let dir = storage.layout.building_segment(&name);
        storage.discard(&dir)?;
        let failed = |path: &PathBuf, error: std::io::Error| write_failed(storage, path, &error);
        storage.env.disk.create_dir_all(&dir).map_err(|error| failed(&dir, error))?;
        let path = dir.join(file_name(SegmentFile::Log, name.base));
        let log = storage.env.disk.open(&path, OpenMode::CreateNew).map_err(|error| failed(&path, error))?;
        Ok(Import {
            builder: IndexBuilder::new(name.base, storage.options.index_interval_bytes),
            storage: storage.clone(),
            name,
            sealed,
            dir,
            log,
            length: 0,
            synced: 0,
            crc: crc::EMPTY,
            tail: Tail::default(),
            in_place: false,
        })
    }

    /// Appends whole batches. Blocks.
    ///
    /// # Errors
    /// [`StorageError::InvalidBatch`] for anything else, or more than was sealed; [`StorageError::NoSpace`],
    /// [`StorageError::Failed`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let invalid = |reason: String| StorageError::InvalidBatch { reason };
        if self.length + bytes.len() as u64 > self.sealed.bytes {
            return Err(invalid(format!("more than the {} bytes that were sealed", self.sealed.bytes)));
        }
        let mut rest = bytes;
        let mut position = self.length;
        while !rest.is_empty() {
            let batch = BatchView::parse(rest).map_err(|error| invalid(error.to_string()))?;
            self.builder.add(batch.header(), position, &mut self.tail);
            position += batch.total_size() as u64;
            rest = &rest[batch.total_size()..];
        }
        let path = self.dir.join(file_name(SegmentFile::Log, self.name.base));
        let written = self.log.write_all_at(&[IoSlice::new(bytes)], self.length);
        written.map_err(|error| write_failed(&self.storage, &path, &error))?;
        self.crc = crc::extend(self.crc, bytes);
        self.length = position;
        if self.length - self.synced >= SYNC_BYTES {
            self.log.sync_data().map_err(|error| self.storage.fail("sync", &path, &error))?;
            self.synced = self.length;
        }
        Ok(())
    }

    /// Completes the files and puts the segment in its place, durably. `snapshot` is the state at its base, where that is
    /// known. Blocks.
    ///
    /// # Errors
    /// [`StorageError::InvalidBatch`] if the bytes are not those that were sealed; [`StorageError::NoSpace`],
    /// [`StorageError::Failed`], [`StorageError::Io`].
    pub fn finish(mut self, snapshot: Option<Bytes>) -> Result<(), StorageError> {
        if (self.length, self.crc) != (self.sealed.bytes, self.sealed.crc) {
            let SealedInfo { bytes, crc, .. } = self.sealed;
            let reason = format!(
                "{} bytes of CRC {:08x} came, {bytes} of CRC {crc:08x} were sealed",
                self.length, self.crc
            );
            return Err(StorageError::InvalidBatch { reason });
        }
        self.builder.add_time(&mut self.tail);
        self.write_beside(snapshot)?;
        let (storage, disk) = (self.storage.clone(), self.storage.env.disk.clone());
        let path = self.dir.join(file_name(SegmentFile::Log, self.name.base));
        self.log.sync_data().map_err(|error| storage.fail("sync", &path, &error))?;
        disk.sync_dir(&self.dir).map_err(|error| storage.fail("sync", &self.dir, &error))?;
        // A copy that was not whole.
        storage.remove(&self.name)?;
        let parent = storage.layout.partition(&self.name.topic, self.name.partition);
        disk.create_dir_all(&parent).map_err(|error| write_failed(&storage, &parent, &error))?;
        let place = storage.layout.segment(&self.name);
        disk.rename(&self.dir, &place).map_err(|error| StorageError::io("rename", &self.dir, error))?;
        self.in_place = true;
        storage.sync_names(&self.name)
    }

    /// Writes the index files and checkpoints.
    fn write_beside(&self, snapshot: Option<Bytes>) -> Result<(), StorageError> {
        let (offset_bytes, offsets_crc) = index::encode(&self.tail.offsets, crc::EMPTY);
        let (time_bytes, times_crc) = index::encode(&self.tail.times, crc::EMPTY);
        let counts = IndexCounts {
            offsets: self.tail.offsets.len() as u32,
            offsets_crc,
            times: self.tail.times.len() as u32,
            times_crc,
        };
        let ending = Checkpoint {
            id: self.name.id,
            generation: self.name.generation,
            offset: self.sealed.end,
            position: self.sealed.bytes,
            crc: self.sealed.crc,
            durable: true,
            boot: self.storage.boot.clone(),
            counts,
            marks: self.builder.marks(),
            snapshot: None,
        };
        self.write_file(SegmentFile::Index, &offset_bytes)?;
        self.write_file(SegmentFile::TimeIndex, &time_bytes)?;
        self.write_file(SegmentFile::EndCheckpoint, &ending.encode())?;
        if let Some(snapshot) = snapshot {
            let bare = self.storage.bare_start(&self.name);
            let beginning = Checkpoint { snapshot: Some(snapshot), boot: self.storage.boot.clone(), ..bare };
            self.write_file(SegmentFile::BaseCheckpoint, &beginning.encode())?;
        }
        Ok(())
    }

    fn write_file(&self, file: SegmentFile, bytes: &[u8]) -> Result<(), StorageError> {
        let path = self.dir.join(file_name(file, self.name.base));
        let handle = self.storage.env.disk.open(&path, OpenMode::CreateNew);
        let handle = handle.and_then(|handle| {
            handle.write_all_at(&[IoSlice::new(bytes)], 0)?;
            Ok(handle)
        });
        let handle = handle.map_err(|error| write_failed(&self.storage, &path, &error))?;
        handle.sync_data().map_err(|error| self.storage.fail("sync", &path, &error))
    }
}

fn write_failed(storage: &Storage, path: &std::path::Path, error: &std::io::Error) -> StorageError {
    if is_full(error) { storage.out_of_space() } else { storage.fail("write", path, error) }
}
