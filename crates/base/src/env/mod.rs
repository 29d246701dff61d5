//! The one door to the world: clock, disk, network, randomness, blocking work.
//!
//! Everything above this module is handed an [`Env`] and touches nothing else, so a whole cluster
//! runs in one seeded thread when the handles are simulated ones ([`sim`]). `clippy.toml` forbids
//! the standard library's own doors elsewhere.
//!
//! What it does not do: schedule tasks. Tasks are tokio's; the simulation runs them on one thread
//! with tokio's paused clock, which is deterministic.

mod faulty;
mod memory;
mod os;
mod run;
pub mod sim;

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

pub use faulty::{Faults, Faulty, NoFault};
pub use run::{FileRange, Run};

use crate::ids::{TimestampMs, Uuid};

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The handles to the world. Cloning is cheap; all clones share the same world.
#[derive(Clone)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Connections.
    pub network: Arc<dyn Network>,
    /// Random numbers.
    pub random: Arc<dyn Random>,
    /// Threads for work that waits on a device (fsync, cold reads, deletes).
    pub workers: Arc<dyn Workers>,
    /// Threads for work nobody waits for (compaction): they give way to all others.
    pub background: Arc<dyn Workers>,
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Env")
    }
}

impl Env {
    /// The real world: the operating system's clock, files, sockets and random numbers.
    pub fn os() -> Env {
        os::env()
    }

    /// A fresh random id whose text form does not begin with a dash.
    pub fn random_uuid(&self) -> Uuid {
        loop {
            let mut bytes = [0; 16];
            self.random.fill(&mut bytes);
            if let Some(id) = Uuid::from_random(bytes) {
                return id;
            }
        }
    }

    /// Runs `work` where it may block and returns its result.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        run_on(&*self.workers, work).await
    }

    /// Runs `work` where it may block and takes processor time only when nobody else wants it. For work
    /// in steps of a few milliseconds.
    pub async fn in_background<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        run_on(&*self.background, work).await
    }
}

async fn run_on<T: Send + 'static>(workers: &dyn Workers, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    workers.run(Box::new(move || {
        // The caller may have gone away; then nobody wants the result.
        let _ = sender.send(work());
    }));
    receiver.await.expect("a worker runs every job to its end")
}

/// Time: a monotonic clock for waiting and measuring, a wall clock for record timestamps.
pub trait Clock: Send + Sync {
    /// Time since this environment began; never goes back.
    fn now(&self) -> Duration;
    /// Wall-clock time in milliseconds since the Unix epoch; may jump.
    fn wall_ms(&self) -> TimestampMs;
    /// Completes when [`Clock::now`] has reached `deadline`.
    fn sleep_until(&self, deadline: Duration) -> BoxFuture<'static, ()>;
    /// Completes `duration` from now.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(self.now() + duration)
    }
}

/// Random numbers; the simulated form is seeded.
pub trait Random: Send + Sync {
    /// Fills the buffer with random bytes.
    fn fill(&self, buffer: &mut [u8]);
    /// A random number.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// A pool for work that may block its thread.
pub trait Workers: Send + Sync {
    /// Runs the job soon, on some thread, exactly once.
    fn run(&self, job: Box<dyn FnOnce() + Send>);
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading only; the file must exist.
    Read,
    /// For reading and writing; created when absent, never truncated.
    ReadWrite,
    /// For reading and writing; the file must exist.
    Existing,
    /// For reading and writing; it must not exist yet.
    CreateNew,
}

/// What a name in a directory stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Last component of the path.
    pub name: String,
    /// True for a directory.
    pub is_dir: bool,
}

/// Room on the file system that holds a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system, bytes.
    pub total: u64,
    /// What this process may still write, bytes.
    pub available: u64,
}

/// A file system. Calls block; on the hot path only page-cache writes and warm reads are called
/// inline, everything that waits for a device goes through [`Env::blocking`] or an own thread.
pub trait Disk: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Makes a directory and its missing parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory, in no particular order.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Renames a file or directory, replacing a file of the new name. Durable after
    /// [`Disk::sync_dir`] of the parents.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with all it holds.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in this directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes everything written so far on the file system that holds `path` durable (`syncfs`).
    fn sync_all(&self, path: &Path) -> io::Result<()>;
    /// Whether the path exists; true also when that cannot be told, so that nothing is made anew over what
    /// may be there: whoever goes on then meets the error.
    fn exists(&self, path: &Path) -> bool;
    /// When a file was last written, wall clock, ms; `Unsupported` where the file system does not tell.
    fn modified_ms(&self, path: &Path) -> io::Result<TimestampMs> {
        Err(io::Error::new(io::ErrorKind::Unsupported, format!("{} has no times", path.display())))
    }
    /// Room left.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Takes an exclusive lock on a file (created when absent) that lasts until the handle is
    /// dropped or the process dies. Fails with `WouldBlock` when somebody else holds it; the real file then
    /// holds the number of that process.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// An id that changes at every boot of the machine, for "same kernel" checks.
    fn boot_id(&self) -> String;
    /// How many files this process may have open, sockets included. The first call raises the limit
    /// as far as the system lets it.
    fn open_files_max(&self) -> usize {
        1024
    }
    /// Bytes of memory this process may have: what the machine has, or less where a cgroup allows less; `None`
    /// when the system does not tell.
    fn memory_max_bytes(&self) -> Option<u64> {
        None
    }
    /// Reads a small file whole; fails with `InvalidData` when it is longer than `limit` bytes.
    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let length = file.len()?;
        if length > limit as u64 {
            let message = format!("{} has {length} bytes, more than {limit}", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
    /// Replaces a small file so that after a crash either the old or the new content is there:
    /// writes a sibling, syncs it, renames it, syncs the directory.
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut sibling = path.as_os_str().to_owned();
        sibling.push(".new");
        let sibling = PathBuf::from(sibling);
        let file = self.open(&sibling, OpenMode::ReadWrite)?;
        file.set_len(0)?;
        file.write_all_at(&[IoSlice::new(content)], 0)?;
        file.sync_data()?;
        drop(file);
        self.rename(&sibling, path)?;
        match path.parent() {
            Some(parent) => self.sync_dir(parent),
            None => Ok(()),
        }
    }
}

/// An open file. Reads and writes name their position, so a handle may be shared. Dropping one keeps nobody
/// waiting, not even the last one of a large file that was removed.
pub trait File: Send + Sync {
    /// Reads at most `buffer.len()` bytes; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// As [`File::read_at`], but fails with `WouldBlock` where that would wait for the device. Where the system cannot
    /// tell, it waits.
    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.read_at(buffer, position)
    }
    /// Writes all buffers one after the other, in as few system calls as possible.
    fn write_all_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<()>;
    /// Makes content and length durable (`fdatasync`). After an error the caller must treat the
    /// file as failed for good: the kernel may have dropped the dirty pages.
    fn sync_data(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or extends the file.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// True for a file of length 0.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reserves disk blocks for `[position, position + length)` without changing the length.
    fn allocate(&self, position: u64, length: u64) -> io::Result<()>;
    /// The descriptor, for `sendfile`; simulated files have none.
    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
    /// Reads exactly `buffer.len()` bytes or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], position + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The network.
pub trait Network: Send + Sync {
    /// Listens on an address; port 0 picks a free one.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;
    /// Connects to `host:port`, trying each address the name resolves to.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>>;
    /// The addresses a `host:port` text stands for.
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
    /// The name by which other machines may know this one.
    fn host_name(&self) -> String {
        "localhost".to_owned()
    }
    /// How many event loops there are to serve connections on; at least one.
    fn lanes(&self) -> usize {
        1
    }
    /// Runs the future on one of those, to its end. Called in the runtime that accepts.
    fn spawn_on(&self, lane: usize, future: BoxFuture<'static, ()>) {
        let _only = lane;
        tokio::spawn(future);
    }
    /// How long an event loop has worked so far.
    fn busy(&self, lane: usize) -> Duration {
        let _only = lane;
        Duration::ZERO
    }
}

/// A listening socket.
pub trait Listener: Send + Sync {
    /// The next connection and where it came from.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>>;
    /// The address it really listens on.
    fn local_address(&self) -> io::Result<SocketAddr>;
}

/// A connection. `Unpin`, so it can be split and polled in place.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// The address of this end: what the peer dialled.
    fn local_address(&self) -> io::Result<SocketAddr>;
    /// Goes over to the event loop it is called on, and is polled there from now on.
    ///
    /// # Errors
    /// The system has no room for it there.
    fn move_here(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Sends the first bytes of a part of a file, and tells how many, as `poll_write` does for bytes in memory. Waits
    /// for the device where they are not in memory.
    fn poll_send_file(&mut self, context: &mut Context<'_>, range: &FileRange) -> Poll<io::Result<usize>> {
        run::send_copied(self, context, range)
    }
}
