//! The door's real side: the only place in the workspace that calls the operating system.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the door")]

use std::collections::VecDeque;
use std::fs;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::fs::{FallocateFlags, FlockOperation, sendfile};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

use super::run::{self, FileRange};
use super::{
    BoxFuture, Clock, DirEntry, Disk, Env, File, Listener, Network, OpenMode, Random, Space, Stream, Workers,
};
use crate::ids::TimestampMs;

/// `pwritev` takes at most this many buffers at once on Linux (`IOV_MAX`).
const BUFFERS_PER_WRITE_MAX: usize = 1024;

pub(super) fn env() -> Env {
    let background = Arc::new(OsBackground::new());
    let home = Arc::<OnceLock<Handle>>::default();
    Env {
        clock: Arc::new(OsClock { start: *START }),
        disk: Arc::new(OsDisk { background: background.clone() }),
        network: Arc::new(OsNetwork::new(home.clone())),
        random: Arc::new(OsRandom),
        workers: Arc::new(OsWorkers { home }),
        background,
    }
}

/// One for the whole process, so that what two environments of it say can be compared.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

struct OsClock {
    start: Instant,
}

impl Clock for OsClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_ms(&self) -> TimestampMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture<'static, ()> {
        let at = tokio::time::Instant::from_std(self.start + deadline);
        Box::pin(tokio::time::sleep_until(at))
    }
}

struct OsRandom;

impl Random for OsRandom {
    fn fill(&self, buffer: &mut [u8]) {
        let mut done = 0;
        while done < buffer.len() {
            match rustix::rand::getrandom(&mut buffer[done..], rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => done += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("the kernel gives no random numbers: {error}"),
            }
        }
    }
}

/// The threads of one runtime for all event loops.
struct OsWorkers {
    home: Arc<OnceLock<Handle>>,
}

impl Workers for OsWorkers {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        match self.home.get().cloned().map_or_else(Handle::try_current, Ok) {
            Ok(handle) => drop(handle.spawn_blocking(job)),
            Err(_) => drop(std::thread::spawn(job)),
        }
    }
}

/// Threads of their own, because one that made itself nice may not take that back. They stay a while for the next
/// job: the end of a thread can take the kernel milliseconds, and whomever it woke just before waits behind that.
struct OsBackground {
    /// As many as there are processors, and more than one or two disks that hang can hold up.
    threads_max: usize,
    jobs: Arc<BackgroundJobs>,
}

#[derive(Default)]
struct BackgroundJobs {
    queue: Mutex<BackgroundQueue>,
    more: Condvar,
}

#[derive(Default)]
struct BackgroundQueue {
    jobs: VecDeque<Box<dyn FnOnce() + Send>>,
    threads: usize,
    idle_threads: usize,
}

/// The least weight the scheduler gives.
const NICEST: i32 = 19;
const BACKGROUND_THREADS_MIN: usize = 4;
const BACKGROUND_THREAD_IDLE_FOR: Duration = Duration::from_secs(10);

impl OsBackground {
    fn new() -> OsBackground {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads_max = processors.max(BACKGROUND_THREADS_MIN);
        OsBackground { threads_max, jobs: Arc::default() }
    }
}

impl Workers for OsBackground {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        let mut queue = self.jobs.queue.lock();
        queue.jobs.push_back(job);
        if queue.idle_threads >= queue.jobs.len() {
            self.jobs.more.notify_one();
            return;
        }
        if queue.threads >= self.threads_max {
            return;
        }
        let jobs = self.jobs.clone();
        let spawned = std::thread::Builder::new().name("background".to_owned()).spawn(move || jobs.work());
        match spawned {
            Ok(_) => queue.threads += 1,
            // The system has no thread left. Those that run come to this job; without any, the pool does, some time.
            Err(_) if queue.threads > 0 => {}
            Err(_) => {
                let job = queue.jobs.pop_back();
                drop(queue);
                job.into_iter().for_each(|job| OsWorkers { home: Arc::default() }.run(job));
            }
        }
    }
}

impl BackgroundJobs {
    fn work(&self) {
        // On Linux this concerns the calling thread alone. Where it is refused, jobs run all the same.
        let _ = rustix::process::setpriority_process(None, NICEST);
        let mut queue = self.queue.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                // Who waits for the result of a job that panics learns of it; the thread goes on.
                let run = || drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)));
                MutexGuard::unlocked(&mut queue, run);
                continue;
            }
            queue.idle_threads += 1;
            let late = self.more.wait_for(&mut queue, BACKGROUND_THREAD_IDLE_FOR).timed_out();
            queue.idle_threads -= 1;
            if late && queue.jobs.is_empty() {
                queue.threads -= 1;
                return;
            }
        }
    }
}

struct OsDisk {
    /// Closes what takes long to close.
    background: Arc<dyn Workers>,
}

impl Disk for OsDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        match mode {
            OpenMode::Read => options.read(true),
            OpenMode::ReadWrite => options.read(true).write(true).create(true).truncate(false),
            OpenMode::Existing => options.read(true).write(true),
            OpenMode::CreateNew => options.read(true).write(true).create_new(true),
        };
        Ok(Arc::new(OsFile {
            file: open_without_access_time(options, path)?,
            background: self.background.clone(),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        fs::read_dir(path)?
            .map(|entry| {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                Ok(DirEntry { name, is_dir: entry.file_type()?.is_dir() })
            })
            .collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        let file = fs::File::open(path)?;
        Ok(rustix::fs::syncfs(&file)?)
    }

    fn exists(&self, path: &Path) -> bool {
        path.try_exists().unwrap_or(true)
    }

    fn modified_ms(&self, path: &Path) -> io::Result<TimestampMs> {
        let since = fs::metadata(path)?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space { total: stat.f_blocks * stat.f_frsize, available: stat.f_bavail * stat.f_frsize })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        // Whoever finds it locked may read who holds it; the lock itself does not depend on that.
        let _ =
            file.set_len(0).and_then(|()| file.write_all_at(std::process::id().to_string().as_bytes(), 0));
        Ok(Box::new(file))
    }

    fn boot_id(&self) -> String {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
    }

    fn open_files_max(&self) -> usize {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        // No limit at all reads as `None`.
        let current = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(_) => limit.current,
        };
        usize::try_from(current.unwrap_or(u64::MAX)).unwrap_or(usize::MAX)
    }

    fn memory_max_bytes(&self) -> Option<u64> {
        super::memory::limit_bytes(|path| fs::read_to_string(path).ok())
    }
}

/// Has reads not note their time: with `relatime`, the usual way of mounting, the first read after each write would change
/// the file's inode, and what is appended is read soon, by consumers and for the sync journal.
#[cfg(target_os = "linux")]
fn open_without_access_time(mut options: fs::OpenOptions, path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    options.custom_flags(rustix::fs::OFlags::NOATIME.bits() as i32);
    match options.open(path) {
        // The file is somebody else's.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => options.custom_flags(0).open(path),
        result => result,
    }
}

#[cfg(not(target_os = "linux"))]
fn open_without_access_time(options: fs::OpenOptions, path: &Path) -> io::Result<fs::File> {
    options.open(path)
}

struct OsFile {
    file: fs::File,
    background: Arc<dyn Workers>,
}

/// What the largest file takes on the disk that is closed at once although nobody can open it again.
const CLOSED_AT_ONCE_BYTES_MAX: u64 = 1 << 20;

/// Closing the last handle of a removed file frees all it had, its pages in memory too: 260 ms for the segments
/// that compaction of a million records of 1 KiB replaced, which is not to happen where connections are served.
/// Whoever drops a handle cannot know that it is the last, so this is seen to here.
impl Drop for OsFile {
    fn drop(&mut self) {
        let Ok(about) = self.file.metadata() else { return };
        if about.nlink() == 0
            && about.blocks() * 512 > CLOSED_AT_ONCE_BYTES_MAX
            && let Ok(last) = self.file.try_clone()
        {
            self.background.run(Box::new(move || drop(last)));
        }
    }
}

impl File for OsFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }

    #[cfg(target_os = "linux")]
    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        match preadv2(&self.file, &mut [io::IoSliceMut::new(buffer)], position, ReadWriteFlags::NOWAIT) {
            // A file system that does not know the flag, or a kernel.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.file.read_at(buffer, position),
            result => Ok(result?),
        }
    }

    fn write_all_at(&self, buffers: &[IoSlice<'_>], mut position: u64) -> io::Result<()> {
        for group in buffers.chunks(BUFFERS_PER_WRITE_MAX) {
            let mut group: Vec<IoSlice<'_>> = group.to_vec();
            let mut rest: &mut [IoSlice<'_>] = &mut group;
            IoSlice::advance_slices(&mut rest, 0);
            while !rest.is_empty() {
                match rustix::io::pwritev(&self.file, rest, position) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        position += count as u64;
                        IoSlice::advance_slices(&mut rest, count);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn allocate(&self, position: u64, length: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, position, length)?)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

/// An event loop in a thread of its own; it ends when this is dropped.
struct OsLane {
    runtime: Handle,
    _end: tokio::sync::oneshot::Sender<()>,
}

impl OsLane {
    fn start() -> io::Result<OsLane> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = tokio::sync::oneshot::channel();
        let serve = move || runtime.block_on(tick_until(ended));
        std::thread::Builder::new().name("lane".to_owned()).spawn(serve)?;
        Ok(OsLane { runtime: handle, _end: end })
    }
}

/// A timer that is set for later than this wakes nobody. One for earlier than all others makes tokio write to its own
/// event loop, and without ticks the wait of each fetch would be such.
const TICK: Duration = Duration::from_millis(50);

async fn tick_until(mut ended: tokio::sync::oneshot::Receiver<()>) {
    while tokio::time::timeout(TICK, &mut ended).await.is_err() {}
}

struct OsNetwork {
    /// One for each processor, made when a connection is put on it; `None` where the system gave no thread.
    lanes: Vec<OnceLock<Option<OsLane>>>,
    /// The runtime that accepts.
    home: Arc<OnceLock<Handle>>,
}

impl OsNetwork {
    fn new(home: Arc<OnceLock<Handle>>) -> OsNetwork {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        OsNetwork { lanes: (0..processors).map(|_| OnceLock::new()).collect(), home }
    }
}

impl Network for OsNetwork {
    fn host_name(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    fn lanes(&self) -> usize {
        self.lanes.len()
    }

    fn spawn_on(&self, lane: usize, future: BoxFuture<'static, ()>) {
        let start = || {
            self.home.get_or_init(Handle::current);
            OsLane::start().ok()
        };
        match self.lanes[lane].get_or_init(start) {
            Some(lane) => drop(lane.runtime.spawn(future)),
            None => drop(tokio::spawn(future)),
        }
    }

    fn busy(&self, lane: usize) -> Duration {
        let lane = self.lanes[lane].get().and_then(Option::as_ref);
        lane.map_or(Duration::ZERO, |lane| lane.runtime.metrics().worker_total_busy_duration(0))
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let socket = if address.is_ipv4() {
                tokio::net::TcpSocket::new_v4()?
            } else {
                tokio::net::TcpSocket::new_v6()?
            };
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let listener: Box<dyn Listener> = Box::new(OsListener(socket.listen(1024)?));
            Ok(listener)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let stream: Box<dyn Stream> = Box::new(OsStream(socket));
            Ok(stream)
        })
    }

    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host(address).await?.collect()) })
    }
}

struct OsListener(TcpListener);

impl Listener for OsListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async move {
            let (socket, peer) = self.0.accept().await?;
            socket.set_nodelay(true)?;
            let stream: Box<dyn Stream> = Box::new(OsStream(socket));
            Ok((stream, peer))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

struct OsStream(TcpStream);

impl AsyncRead for OsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for OsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl Stream for OsStream {
    fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn move_here(&mut self) -> io::Result<()> {
        // The old registration goes with the old descriptor; the connection is the same.
        let socket = std::net::TcpStream::from(self.0.as_fd().try_clone_to_owned()?);
        self.0 = TcpStream::from_std(socket)?;
        Ok(())
    }

    fn poll_send_file(&mut self, context: &mut Context<'_>, range: &FileRange) -> Poll<io::Result<usize>> {
        let Some(file) = range.file.descriptor() else { return run::send_copied(self, context, range) };
        loop {
            ready!(self.0.poll_write_ready(context))?;
            let mut position = range.position;
            let send = || Ok(sendfile(&self.0, file, Some(&mut position), range.length)?);
            match self.0.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The file has become shorter.
                Ok(0) if range.length > 0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                result => return Poll::Ready(result),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Workers for Count {
        fn run(&self, _: Box<dyn FnOnce() + Send>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_large_file_that_was_removed_is_closed_in_the_background() {
        let path = std::env::temp_dir().join(format!("vltava-close-{}", env().random_uuid()));
        let jobs = Arc::new(Count::default());
        let disk = OsDisk { background: jobs.clone() };
        let close = |bytes: usize, removed: bool| {
            let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
            file.write_all_at(&[IoSlice::new(&vec![1; bytes])], 0).unwrap();
            file.sync_data().unwrap();
            if removed {
                disk.remove_file(&path).unwrap();
            }
            drop(file);
            jobs.0.swap(0, Ordering::Relaxed)
        };
        assert_eq!(close(4 << 10, true), 0, "a small one is freed at once");
        assert_eq!(close(4 << 20, false), 0, "one that is still there frees nothing");
        assert_eq!(close(4 << 20, true), 1);
    }
}
