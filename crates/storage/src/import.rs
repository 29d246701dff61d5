//! Takes a sealed segment over from another storage, byte by byte. It is there once its length and CRC are those that were
//! sealed.

use std::sync::Arc;

use base::batch::Batches;
use bytes::Bytes;

use crate::building::Building;
use crate::error::StorageError;
use crate::layout::SegmentName;
use crate::segment::SealedInfo;
use crate::storage::Storage;

/// An import under way. Dropping it removes what was built.
pub struct Import {
    building: Building,
    name: SegmentName,
    sealed: SealedInfo,
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
        let building = Building::begin(storage, name.clone())?;
        Ok(Import { building, name, sealed })
    }

    /// Appends whole batches. Blocks.
    ///
    /// # Errors
    /// [`StorageError::InvalidBatch`] for anything else, or more than was sealed; [`StorageError::NoSpace`],
    /// [`StorageError::Failed`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let invalid = |reason: String| StorageError::InvalidBatch { reason };
        let (mut position, _) = self.building.written();
        if position + bytes.len() as u64 > self.sealed.bytes {
            return Err(invalid(format!("more than the {} bytes that were sealed", self.sealed.bytes)));
        }
        for batch in Batches::new(bytes) {
            let batch = batch.map_err(|error| invalid(error.to_string()))?;
            self.building.index(batch.header(), position);
            position += batch.total_size() as u64;
        }
        self.building.write(bytes)
    }

    /// Puts the segment in its place, durably. `snapshot` is the state at its base, where that is known. Blocks.
    ///
    /// # Errors
    /// [`StorageError::InvalidBatch`] if the bytes are not those that were sealed; [`StorageError::NoSpace`],
    /// [`StorageError::Failed`], [`StorageError::Io`].
    pub fn finish(self, snapshot: Option<Bytes>) -> Result<(), StorageError> {
        let SealedInfo { end, bytes, crc } = self.sealed;
        if self.building.written() != (bytes, crc) {
            let (length, found) = self.building.written();
            let reason =
                format!("{length} bytes of CRC {found:08x} came, {bytes} of CRC {crc:08x} were sealed");
            return Err(StorageError::InvalidBatch { reason });
        }
        // The first segment of the partition here, perhaps.
        let storage = self.building.storage();
        let parent = storage.layout.partition(&self.name.topic, self.name.partition);
        let made = storage.env.disk.create_dir_all(&parent);
        made.map_err(|error| storage.fail("make", &parent, &error))?;
        let beginning = snapshot.map(|snapshot| storage.first_checkpoint(&self.name, snapshot));
        self.building.finish(end, beginning).map(drop)
    }
}
