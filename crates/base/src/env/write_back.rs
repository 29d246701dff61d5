//! `sync_file_range(2)`, which no safe crate wraps.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Begins to write all dirty pages of a file to the device, and waits for none.
#[allow(unsafe_code)]
pub(super) fn begin(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as it is borrowed, and no memory of ours is handed over.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
