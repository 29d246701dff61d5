//! The directory of one store: held for it alone, with the fate that all parts of the store share.
//!
//! Every file says its format number in its head. Nothing here is written in place: a small file is
//! replaced as a whole. A write that meets a full disk may be tried again, a failed sync never: after it
//! nobody knows what the disk holds, so the store fails for good and says so.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::env::{Disk, Env, OpenMode};
use parking_lot::Mutex;

use super::Limits;
use crate::watch;

/// Number in the head of every file this version reads and writes.
pub(super) const FORMAT: u32 = 2;
const MAGIC: &[u8; 8] = b"VltavaMd";
const HEAD_BYTES: usize = 8 + 4 + 4;
/// First and longest pause between two tries to write on a full disk.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// A write that takes so long is told of.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// What was asked of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Create,
    Read,
    Write,
    Sync,
    Cut,
    Rename,
    Remove,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Create => "create",
            Action::Read => "read",
            Action::Write => "write",
            Action::Sync => "sync",
            Action::Cut => "cut",
            Action::Rename => "rename",
            Action::Remove => "remove",
        })
    }
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("cannot {action} {path}: {source}")]
    Io { action: Action, path: PathBuf, source: io::Error },
    #[error("{path} is damaged at byte {position}: {what}")]
    Damaged { path: PathBuf, position: u64, what: String },
    #[error("{path} has format {found}, this version reads format {FORMAT}")]
    Format { path: PathBuf, found: u32 },
}

impl FileError {
    pub(super) fn io(action: Action, path: &Path) -> impl FnOnce(io::Error) -> FileError + '_ {
        move |source| FileError::Io { action, path: path.to_owned(), source }
    }

    pub(super) fn damaged(path: &Path, position: usize, what: impl Into<String>) -> FileError {
        FileError::Damaged { path: path.to_owned(), position: position as u64, what: what.into() }
    }

    /// Whether the same write may be tried again: the disk is full and nothing was lost by it.
    pub(super) fn is_full(&self) -> bool {
        let FileError::Io { action, source, .. } = self else { return false };
        let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        full && *action != Action::Sync
    }
}

/// Which file it is; part of the CRC, so that one cannot be taken for another.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Vote = 1,
    Snapshot = 2,
    Identity = 3,
}

/// Where a store is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A full disk is an error that the operator hears at once.
    Opening,
    /// A full disk is waited out.
    Serving,
    Ending,
}

/// Why a store does not work any more.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// For the operator.
    pub(super) text: String,
    /// Whether a full disk is all that is wrong.
    pub(super) full: bool,
}

/// Writes under way, oldest first.
#[derive(Default)]
struct Writes {
    begun: u64,
    open: BTreeMap<u64, Write>,
}

struct Write {
    since: Duration,
    /// What the disk said to the last attempt.
    refused: Option<String>,
}

/// Ends a [`Write`], however its future ends.
struct WriteGuard<'a> {
    home: &'a Home,
    number: u64,
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        self.home.writes.lock().open.remove(&self.number);
    }
}

/// See the module's head.
pub(super) struct Home {
    pub(super) env: Env,
    pub(super) dir: PathBuf,
    pub(super) limits: Limits,
    phase: watch::Sender<Phase>,
    failure: Mutex<Option<Failure>>,
    writes: Mutex<Writes>,
    /// Held while a snapshot is written.
    pub(super) building: tokio::sync::Mutex<()>,
    /// Keeps other processes out, until the store has ended.
    lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

impl Home {
    /// `lock` keeps other processes out of `dir`.
    pub(super) fn new(env: Env, dir: PathBuf, limits: Limits, lock: Box<dyn Send + Sync>) -> Home {
        let phase = watch::Sender::new(Phase::Opening);
        let building = tokio::sync::Mutex::new(());
        let (failure, writes) = (Mutex::default(), Mutex::default());
        Home { env, dir, limits, phase, failure, writes, building, lock: Mutex::new(Some(lock)) }
    }

    /// Lets others open the directory: nothing is written any more.
    pub(super) fn unlock(&self) {
        self.lock.lock().take();
    }

    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Begins the next phase of the life; it never goes back.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = phase as u8 > *now as u8;
            if later {
                *now = phase;
            }
            later
        });
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.lock().clone()
    }

    /// Why nothing can be written at the moment, for the operator.
    pub(super) fn problem(&self) -> Option<String> {
        if let Some(failure) = self.failure() {
            return Some(failure.text);
        }
        let writes = self.writes.lock();
        let oldest = writes.open.values().next()?;
        if let Some(refused) = &oldest.refused {
            return Some(format!("changes of metadata wait: {refused}; free space on the disk"));
        }
        let waits = self.env.clock.now().saturating_sub(oldest.since);
        let dir = self.dir.display();
        (waits >= STUCK_AFTER).then(|| {
            format!(
                "changes of metadata wait: the disk of {dir} has not answered for {} s; check it",
                waits.as_secs()
            )
        })
    }

    fn begin_write(&self) -> WriteGuard<'_> {
        let mut writes = self.writes.lock();
        writes.begun += 1;
        let number = writes.begun;
        writes.open.insert(number, Write { since: self.env.clock.now(), refused: None });
        WriteGuard { home: self, number }
    }

    /// Remembers the first thing that ended the store's work and tells the operator.
    pub(super) fn fail(&self, what: String) {
        self.remember(Failure { text: format!("the metadata store stopped: {what}"), full: false });
    }

    fn fail_file(&self, error: &FileError) {
        let full = error.is_full();
        let advice = match full {
            true => "free space on the disk and start again",
            false => "everything answered so far is kept; check the disk, then restart",
        };
        self.remember(Failure { text: format!("the metadata store stopped: {error}; {advice}"), full });
    }

    fn remember(&self, failure: Failure) {
        if self.phase() != Phase::Ending {
            tracing::error!("{}", failure.text);
        }
        self.failure.lock().get_or_insert(failure);
    }

    /// Runs a write until it succeeds, fails for good or the store ends. A full disk is waited out while
    /// serving; any other error stops the store.
    pub(super) async fn persist<T: Send + 'static>(
        &self,
        work: impl Fn() -> Result<T, FileError> + Clone + Send + 'static,
    ) -> Result<T, FileError> {
        let mut pause = RETRY_FIRST;
        let mut phase = self.phase.subscribe();
        let write = self.begin_write();
        loop {
            let error = match self.env.blocking(work.clone()).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if !error.is_full() || *phase.borrow() != Phase::Serving {
                self.fail_file(&error);
                return Err(error);
            }
            if pause == RETRY_FIRST {
                tracing::error!("changes of metadata wait: {error}; free space on the disk");
                if let Some(open) = self.writes.lock().open.get_mut(&write.number) {
                    open.refused = Some(error.to_string());
                }
            }
            tokio::select! {
                biased;
                _ = phase.wait_for(|phase| *phase == Phase::Ending) => {}
                () = self.env.clock.sleep(pause) => {}
            }
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }
}

/// Replaces a file so that after a crash either the old or the new content is there.
pub(super) fn replace(disk: &dyn Disk, path: &Path, kind: Kind, body: &[u8]) -> Result<(), FileError> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&FORMAT.to_be_bytes());
    head.extend_from_slice(&crc(kind, body).to_be_bytes());
    let sibling = path.with_extension("new");
    let io = FileError::io;
    let file = disk.open(&sibling, OpenMode::ReadWrite).map_err(io(Action::Create, &sibling))?;
    file.set_len(0).map_err(io(Action::Cut, &sibling))?;
    let content = [IoSlice::new(&head), IoSlice::new(body)];
    file.write_all_at(&content, 0).map_err(io(Action::Write, &sibling))?;
    file.sync_data().map_err(io(Action::Sync, &sibling))?;
    drop(file);
    disk.rename(&sibling, path).map_err(io(Action::Rename, path))?;
    let dir = path.parent().unwrap_or(path);
    disk.sync_dir(dir).map_err(io(Action::Sync, dir))
}

/// Reads what [`replace`] wrote; `None` when there is no such file.
pub(super) fn read(
    disk: &dyn Disk,
    path: &Path,
    kind: Kind,
    limit: usize,
) -> Result<Option<Vec<u8>>, FileError> {
    if !disk.exists(path) {
        return Ok(None);
    }
    let mut bytes = disk.read(path, limit).map_err(FileError::io(Action::Read, path))?;
    let head = bytes.get(..HEAD_BYTES).filter(|head| head.starts_with(MAGIC));
    let Some(head) = head else {
        return Err(FileError::damaged(path, 0, "it does not begin as a metadata file does"));
    };
    let number = |at: usize| head[at..at + 4].try_into().map(u32::from_be_bytes).unwrap_or_default();
    let (format, expected) = (number(8), number(12));
    if format != FORMAT {
        return Err(FileError::Format { path: path.to_owned(), found: format });
    }
    if crc(kind, &bytes[HEAD_BYTES..]) != expected {
        return Err(FileError::damaged(path, HEAD_BYTES, "its CRC does not fit"));
    }
    Ok(Some(bytes.split_off(HEAD_BYTES)))
}

fn crc(kind: Kind, body: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&FORMAT.to_be_bytes());
    digest.update(&[kind as u8]);
    digest.update(body);
    digest.finalize() as u32
}
