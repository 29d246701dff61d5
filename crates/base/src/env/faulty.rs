//! A door whose disk and clock misbehave as they are told: to rehearse faults with a real process.
//!
//! What it does not do: lose what was written (that is for [`super::sim`]), or trouble connections (the system's
//! own tools do that).

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustix::io::Errno;

use super::{BoxFuture, Clock, DirEntry, Disk, Env, File, OpenMode, Space};
use crate::ids::TimestampMs;

/// What is wrong at present. The text form is a line `key=value` for each thing:
///
/// | key | value |
/// |---|---|
/// | `write.delay.ms` | how long each write waits first |
/// | `sync.delay.ms` | how long each sync waits first |
/// | `write.error` | `true`: writes fail with EIO |
/// | `sync.error` | `true`: syncs fail with EIO |
/// | `full` | `true`: no room is left, and writes fail with ENOSPC |
/// | `wall.jump.ms` | how far the wall clock is off |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// How long each write waits first.
    pub write_delay: Duration,
    /// How long each sync waits first.
    pub sync_delay: Duration,
    /// Writes fail with EIO.
    pub write_error: bool,
    /// Syncs fail with EIO.
    pub sync_error: bool,
    /// No room is left, and writes fail with ENOSPC.
    pub full: bool,
    /// How far the wall clock is off, ms.
    pub wall_jump_ms: i64,
}

/// A line of [`Faults`] that says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoFault(String);

impl fmt::Display for NoFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no fault", self.0)
    }
}

impl std::error::Error for NoFault {}

impl FromStr for Faults {
    type Err = NoFault;

    fn from_str(text: &str) -> Result<Faults, NoFault> {
        let mut faults = Faults::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let wrong = || NoFault(line.to_owned());
            let (key, value) = line.split_once('=').ok_or_else(wrong)?;
            let delay = || value.parse().map(Duration::from_millis).map_err(|_| wrong());
            let switch = || value.parse().map_err(|_| wrong());
            match key {
                "write.delay.ms" => faults.write_delay = delay()?,
                "sync.delay.ms" => faults.sync_delay = delay()?,
                "write.error" => faults.write_error = switch()?,
                "sync.error" => faults.sync_error = switch()?,
                "full" => faults.full = switch()?,
                "wall.jump.ms" => faults.wall_jump_ms = value.parse().map_err(|_| wrong())?,
                _ => return Err(wrong()),
            }
        }
        Ok(faults)
    }
}

/// The faults of a world, to be changed while it runs.
#[derive(Clone, Debug, Default)]
pub struct Faulty(Arc<RwLock<Faults>>);

impl Faulty {
    /// What is wrong from now on.
    pub fn set(&self, faults: Faults) {
        *self.0.write() = faults;
    }

    /// A world with these faults, and all else as in `env`.
    pub fn over(&self, env: Env) -> Env {
        let disk = Arc::new(FaultyDisk { inner: env.disk.clone(), faulty: self.clone() });
        let clock = Arc::new(FaultyClock { inner: env.clock.clone(), faulty: self.clone() });
        Env { disk, clock, ..env }
    }

    fn now(&self) -> Faults {
        *self.0.read()
    }

    /// Waits as a write does, and fails as it does.
    fn write(&self) -> io::Result<()> {
        let faults = self.now();
        wait(faults.write_delay);
        match (faults.write_error, faults.full) {
            (true, _) => Err(Errno::IO.into()),
            (_, true) => Err(Errno::NOSPC.into()),
            _ => Ok(()),
        }
    }

    /// Waits as a sync does, and fails as it does.
    fn sync(&self) -> io::Result<()> {
        let faults = self.now();
        wait(faults.sync_delay);
        match faults.sync_error {
            true => Err(Errno::IO.into()),
            false => Ok(()),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the door's other side")]
fn wait(delay: Duration) {
    if !delay.is_zero() {
        std::thread::sleep(delay);
    }
}

struct FaultyClock {
    inner: Arc<dyn Clock>,
    faulty: Faulty,
}

impl Clock for FaultyClock {
    fn now(&self) -> Duration {
        self.inner.now()
    }

    fn wall_ms(&self) -> TimestampMs {
        self.inner.wall_ms().saturating_add(self.faulty.now().wall_jump_ms)
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep_until(deadline)
    }
}

struct FaultyDisk {
    inner: Arc<dyn Disk>,
    faulty: Faulty,
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(FaultyFile { inner, faulty: self.faulty.clone() }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.faulty.write()?;
        self.inner.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.read_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.faulty.sync()?;
        self.inner.sync_dir(path)
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        self.faulty.sync()?;
        self.inner.sync_all(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }

    fn modified_ms(&self, path: &Path) -> io::Result<TimestampMs> {
        self.inner.modified_ms(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let space = self.inner.space(path)?;
        Ok(if self.faulty.now().full { Space { available: 0, ..space } } else { space })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.inner.lock(path)
    }

    fn boot_id(&self) -> String {
        self.inner.boot_id()
    }

    fn open_files_max(&self) -> usize {
        self.inner.open_files_max()
    }

    fn memory_max_bytes(&self) -> Option<u64> {
        self.inner.memory_max_bytes()
    }
}

struct FaultyFile {
    inner: Arc<dyn File>,
    faulty: Faulty,
}

impl File for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, position)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_cached_at(buffer, position)
    }

    fn write_all_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        self.faulty.write()?;
        self.inner.write_all_at(buffers, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faulty.sync()?;
        self.inner.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.inner.set_len(length)
    }

    fn allocate(&self, position: u64, length: u64) -> io::Result<()> {
        self.faulty.write()?;
        self.inner.allocate(position, length)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inner.descriptor()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_every_fault_and_refuses_others() {
        let text = "write.delay.ms=100\nsync.delay.ms=7\n\nwrite.error=true\nsync.error=false\nfull=true\n\
            wall.jump.ms=-5";
        let faults = Faults {
            write_delay: Duration::from_millis(100),
            sync_delay: Duration::from_millis(7),
            write_error: true,
            sync_error: false,
            full: true,
            wall_jump_ms: -5,
        };
        assert_eq!(text.parse(), Ok(faults));
        assert_eq!("".parse(), Ok(Faults::default()));
        for wrong in ["full", "full=1", "write.delay.ms=-1", "read.error=true"] {
            assert_eq!(wrong.parse::<Faults>().unwrap_err().to_string(), format!("`{wrong}` is no fault"));
        }
    }

    #[test]
    fn what_is_told_to_fail_fails_until_it_is_told_otherwise() {
        let faulty = Faulty::default();
        let env = faulty.over(Env::sim(1));
        let path = Path::new("/a");
        let file = env.disk.open(path, OpenMode::ReadWrite).unwrap();
        let write = || file.write_all_at(&[IoSlice::new(b"x")], 0).map_err(|error| error.kind());
        faulty.set(Faults { full: true, sync_error: true, ..Faults::default() });
        assert_eq!(write(), Err(io::ErrorKind::StorageFull));
        assert_eq!(env.disk.space(path).unwrap().available, 0);
        assert!(
            file.sync_data().is_err() && env.disk.sync_dir(path).is_err() && env.disk.sync_all(path).is_err()
        );
        faulty.set(Faults::default());
        assert_eq!(write(), Ok(()));
        file.sync_data().unwrap();
        assert!(env.disk.space(path).unwrap().available > 0);
    }
}
