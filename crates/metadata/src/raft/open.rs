//! Opening a metadata directory: made when it is new, locked, of our format; or an error that says what
//! happened, why, and how to mend it.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::env::Env;
use base::ids::BrokerId;

use super::Limits;
use super::home::{FORMAT, FileError, Home};
use super::identity;
use super::log_store::LogStore;
use super::machine::Machine;

/// Longest format file.
const FORMAT_FILE_BYTES_MAX: usize = 4_096;

/// Why a metadata directory cannot be opened; says how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum MetadataOpenError {
    /// The directory was written by another version.
    #[error(
        "{dir} has another metadata format ({found}); start the version that wrote it, or point to an empty directory"
    )]
    Format {
        /// The directory.
        dir: PathBuf,
        /// What it says of its format.
        found: String,
    },
    /// A file is damaged.
    #[error(
        "the metadata in {dir} cannot be read: {what}; nothing was changed. Restore the directory from a copy, \
         and check the disk"
    )]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What and where.
        what: String,
    },
    /// Another process has the directory open.
    #[error(
        "the metadata directory {dir} is in use by another process; stop that one first, or use another directory"
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory belongs to another node.
    #[error(
        "the metadata in {dir} belongs to node.id {found}, not {node}; set node.id={found}, or point to an empty \
         directory"
    )]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asked.
        node: BrokerId,
    },
    /// The log is that of other voters.
    #[error(
        "the metadata in {dir} is that of the controllers {found}, not {asked}; name those in \
         controller.quorum.voters again (their addresses may change), or point to an empty directory"
    )]
    OtherVoters {
        /// The directory.
        dir: PathBuf,
        /// Voters of the log, ids with commas.
        found: String,
        /// Voters that were asked for, ids with commas.
        asked: String,
    },
    /// There is no room to open it.
    #[error("the disk of the metadata directory {dir} is full: {what}. Free some MiB there and start again")]
    Full {
        /// The directory.
        dir: PathBuf,
        /// What could not be done.
        what: String,
    },
    /// The operating system refused something.
    #[error(
        "the metadata directory {dir} cannot be used: {source}; check the path, its owner and its permissions"
    )]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The address for other controllers cannot be listened on.
    #[error("cannot listen for other controllers on {0}: {1}; check `listeners` and who else uses the port")]
    Listen(SocketAddr, io::Error),
    /// The log does not start.
    #[error("the metadata log does not start: {0}")]
    Raft(String),
}

/// Opens what the directory holds, for a node that is one of `voters`.
pub(super) fn open_parts(
    env: &Env,
    dir: &Path,
    node: BrokerId,
    voters: &BTreeSet<u64>,
    limits: Limits,
) -> Result<(Arc<Home>, LogStore, Machine), MetadataOpenError> {
    let home = Arc::new(open_home(env, dir, limits)?);
    let fail = |error| of_file(dir, error);
    let machine = Machine::open(&home, voters.len() <= 1).map_err(fail)?;
    let log = LogStore::open(&home, machine.applied()).map_err(fail)?;
    let logged = log.last_voters().or_else(|| machine.voters());
    identity::check(&home, node, voters, logged.map(BTreeSet::from_iter))?;
    Ok((home, log, machine))
}

fn open_home(env: &Env, dir: &Path, limits: Limits) -> Result<Home, MetadataOpenError> {
    let fail = |source: io::Error| of_io(dir, source);
    env.disk.create_dir_all(dir).map_err(fail)?;
    let lock = env.disk.lock(&dir.join("lock")).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => MetadataOpenError::Locked { dir: dir.to_owned() },
        _ => fail(source),
    })?;
    let path = dir.join("format");
    let expected = format!("vltava metadata format {FORMAT}\n");
    if env.disk.exists(&path) {
        let found = env.disk.read(&path, FORMAT_FILE_BYTES_MAX).map_err(fail)?;
        if found != expected.as_bytes() {
            let found = String::from_utf8_lossy(&found).trim().escape_debug().take(80).collect();
            return Err(MetadataOpenError::Format { dir: dir.to_owned(), found });
        }
    } else {
        let is_ours = |name: &str| name.ends_with(".log") || name == "snapshot" || name == "vote";
        if env.disk.read_dir(dir).map_err(fail)?.iter().any(|entry| is_ours(&entry.name)) {
            let found = "metadata files without a file `format`".to_owned();
            return Err(MetadataOpenError::Format { dir: dir.to_owned(), found });
        }
        sync_ancestors(env, dir).map_err(fail)?;
        env.disk.replace(&path, expected.as_bytes()).map_err(fail)?;
    }
    // A process that was killed before it synced the directory left names that a power cut takes back.
    env.disk.sync_dir(dir).map_err(fail)?;
    Ok(Home::new(env.clone(), dir.to_owned(), limits, lock))
}

/// Makes the names of a new directory and of its parents durable. A parent that we may not read is not
/// one that we made.
fn sync_ancestors(env: &Env, dir: &Path) -> io::Result<()> {
    let parents = dir.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty());
    for parent in parents {
        match env.disk.sync_dir(parent) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            other => other?,
        }
    }
    Ok(())
}

fn of_io(dir: &Path, source: io::Error) -> MetadataOpenError {
    let dir = dir.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            MetadataOpenError::Full { dir, what: source.to_string() }
        }
        _ => MetadataOpenError::Io { dir, source },
    }
}

pub(super) fn of_file(dir: &Path, error: FileError) -> MetadataOpenError {
    match error {
        FileError::Io { action, path, source } => {
            let message = format!("cannot {action} {}: {source}", path.display());
            of_io(dir, io::Error::new(source.kind(), message))
        }
        FileError::Format { .. } => {
            MetadataOpenError::Format { dir: dir.to_owned(), found: error.to_string() }
        }
        FileError::Damaged { .. } => {
            MetadataOpenError::Damaged { dir: dir.to_owned(), what: error.to_string() }
        }
    }
}

/// What the Raft library's failure at the start comes from.
pub(super) fn of_raft(home: &Home, error: &dyn std::fmt::Display) -> MetadataOpenError {
    match home.failure() {
        Some(failure) if failure.full => {
            MetadataOpenError::Full { dir: home.dir.clone(), what: failure.text }
        }
        Some(failure) => MetadataOpenError::Raft(failure.text),
        None => MetadataOpenError::Raft(error.to_string()),
    }
}
