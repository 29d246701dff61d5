//! Whether a segment's file still is what was sealed.

use base::env::File;

use super::Segment;
use crate::crc;
use crate::error::StorageError;
use crate::layout::SegmentFile;
use crate::scan::read_up_to;

/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// How much of a sealed segment's file was read to compare it with its CRC, and the CRC so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verification {
    position: u64,
    crc: u32,
}

impl Default for Verification {
    fn default() -> Verification {
        Verification { position: 0, crc: crc::EMPTY }
    }
}

impl Segment {
    /// The CRC of the first bytes of the log.
    pub(super) fn crc_below(&self, length: u64) -> Result<u32, StorageError> {
        let mut so_far = Verification::default();
        if length == 0 {
            return Ok(so_far.crc);
        }
        let log = self.log()?;
        let mut buffer = vec![0; CHUNK_BYTES.min(length as usize)];
        while self.read_on(&*log, &mut so_far, length, &mut buffer)? > 0 {}
        Ok(so_far.crc)
    }

    /// Reads what comes next of the first bytes of the log, as much as fits; 0 when that was all.
    fn read_on(
        &self,
        log: &dyn File,
        so_far: &mut Verification,
        length: u64,
        buffer: &mut [u8],
    ) -> Result<u64, StorageError> {
        let want = length.saturating_sub(so_far.position).min(buffer.len() as u64) as usize;
        if want == 0 {
            return Ok(0);
        }
        let count = read_up_to(log, &mut buffer[..want], so_far.position)
            .map_err(|error| self.io_error("read", SegmentFile::Log, error))?;
        if count == 0 {
            return Err(self.corrupt(so_far.position, "the file ends early"));
        }
        so_far.crc = crc::extend(so_far.crc, &buffer[..count]);
        so_far.position += count as u64;
        Ok(count as u64)
    }

    /// Reads on in the file of a sealed segment, at most a mebibyte. Returns how many bytes; 0 at the end, where the CRC
    /// is that with which it was sealed. Blocks.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when it differs; [`StorageError::Io`], [`StorageError::NotHere`].
    pub fn verify_on(&self, so_far: &mut Verification) -> Result<u64, StorageError> {
        let length = self.bytes();
        // An empty one may have no file.
        if so_far.position < length {
            let mut buffer = vec![0; CHUNK_BYTES.min((length - so_far.position) as usize)];
            return self.read_on(&*self.log()?, so_far, length, &mut buffer);
        }
        self.compare(so_far.crc).map(|()| 0)
    }

    /// Reads the whole file and compares it with the CRC it was sealed with. Blocks.
    ///
    /// # Errors
    /// As [`Segment::verify_on`].
    pub fn verify(&self) -> Result<(), StorageError> {
        self.compare(self.crc_below(self.bytes())?)
    }

    fn compare(&self, crc: u32) -> Result<(), StorageError> {
        let expected = self.appender.lock().crc;
        if crc == expected {
            return Ok(());
        }
        Err(self.corrupt(0, format!("the file has CRC {crc:#010x}, {expected:#010x} is due")))
    }

    /// Closes the files of a sealed segment that another copy of the same bytes has taken the place of: readers open that
    /// one.
    pub fn reopen(&self) {
        self.storage.handles.release(&self.handles);
    }
}
