//! openraft's log storage over the journal.
//!
//! An append is written, synced on a worker and only then reported; openraft has one append under way at a
//! time. The last purged log id stands in a small file, because the journal's files do not tell it.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::env::Env;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{Entry, ErrorSubject, ErrorVerb, LogId, LogState, RaftLogReader, StorageError, StorageIOError, Vote};
use parking_lot::Mutex;
use prost::Message;

use super::entry::{LogIdRecord, decode_entry, decode_vote, encode_entry, encode_vote, index_of};
use super::journal::{Journal, JournalError};
use super::{SMALL_FILE_BYTES_MAX, TypeConfig};

type Failure = StorageError<u64>;

/// The log; clones share it.
#[derive(Clone)]
pub(super) struct LogStore {
    env: Env,
    dir: PathBuf,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    journal: Journal,
    purged: Option<LogId<u64>>,
    vote: Option<Vote<u64>>,
}

impl LogStore {
    pub(super) fn open(env: &Env, dir: &Path) -> Result<LogStore, JournalError> {
        let journal = Journal::open(env.disk.clone(), dir, index_of)?;
        let damaged = |name: &str| JournalError::Damaged {
            path: dir.join(name),
            position: 0,
            what: "the content cannot be read",
        };
        let vote = match read_small(env, &dir.join("vote"))? {
            Some(bytes) => Some(decode_vote(&bytes).map_err(|_| damaged("vote"))?),
            None => None,
        };
        let purged = match read_small(env, &dir.join("purged"))? {
            Some(bytes) => Some(LogIdRecord::decode(&*bytes).map_err(|_| damaged("purged"))?.read()),
            None => None,
        };
        let mut shared = Shared { journal, purged, vote };
        if let Some(purged) = purged {
            shared.journal.purge(purged.index)?;
        }
        Ok(LogStore { env: env.clone(), dir: dir.to_owned(), shared: Arc::new(Mutex::new(shared)) })
    }

    /// Index of the last entry.
    pub(super) fn last_index(&self) -> Option<u64> {
        self.shared.lock().journal.bounds().map(|(_, last)| last)
    }

    async fn replace(&self, name: &str, content: Vec<u8>) -> io::Result<()> {
        let (disk, path) = (self.env.disk.clone(), self.dir.join(name));
        let crc = crc_fast::crc32_iscsi(&content).to_be_bytes();
        self.env.blocking(move || disk.replace(&path, &[&crc[..], &content].concat())).await
    }
}

/// A small file that begins with the CRC of the rest; `None` when it is not there.
fn read_small(env: &Env, path: &Path) -> Result<Option<Vec<u8>>, JournalError> {
    if !env.disk.exists(path) {
        return Ok(None);
    }
    let fail = |source| JournalError::Io { path: path.to_owned(), source };
    let bytes = env.disk.read(path, SMALL_FILE_BYTES_MAX).map_err(fail)?;
    match bytes.split_first_chunk::<4>() {
        Some((crc, rest)) if crc_fast::crc32_iscsi(rest) == u32::from_be_bytes(*crc) => Ok(Some(rest.to_vec())),
        _ => Err(JournalError::Damaged { path: path.to_owned(), position: 0, what: "its CRC does not fit" }),
    }
}

fn fault(subject: ErrorSubject<u64>, verb: ErrorVerb, error: impl std::error::Error + 'static) -> Failure {
    StorageIOError::new(subject, verb, openraft::AnyError::new(&error)).into()
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<TypeConfig>>, Failure> {
        let payloads = self.shared.lock().journal.range(range);
        let decode = |payload: Arc<[u8]>| {
            decode_entry(&payload).map_err(|error| fault(ErrorSubject::Logs, ErrorVerb::Read, error))
        };
        payloads.into_iter().map(decode).collect()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, Failure> {
        let (last, purged) = {
            let shared = self.shared.lock();
            let last = shared.journal.bounds().map(|(_, last)| shared.journal.range(last..=last));
            (last, shared.purged)
        };
        let last = match last.and_then(|entries| entries.into_iter().next()) {
            Some(payload) => {
                let entry = decode_entry(&payload);
                Some(entry.map_err(|error| fault(ErrorSubject::Logs, ErrorVerb::Read, error))?.log_id)
            }
            None => purged,
        };
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), Failure> {
        let saved = self.replace("vote", encode_vote(vote)).await;
        saved.map_err(|error| fault(ErrorSubject::Vote, ErrorVerb::Write, error))?;
        self.shared.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, Failure> {
        Ok(self.shared.lock().vote)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), Failure>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let Some(first) = entries.first().map(|entry| entry.log_id.index) else {
            callback.log_io_completed(Ok(()));
            return Ok(());
        };
        let payloads = entries.iter().map(encode_entry).collect();
        let written = self.shared.lock().journal.append(first, payloads);
        let file = written.map_err(|error| fault(ErrorSubject::Logs, ErrorVerb::Write, error))?;
        callback.log_io_completed(self.env.blocking(move || file.sync_data()).await);
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), Failure> {
        let truncated = self.shared.lock().journal.truncate(log_id.index);
        truncated.map_err(|error| fault(ErrorSubject::Logs, ErrorVerb::Delete, error))
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), Failure> {
        let saved = self.replace("purged", LogIdRecord::from(&log_id).encode_to_vec()).await;
        saved.map_err(|error| fault(ErrorSubject::Logs, ErrorVerb::Write, error))?;
        let mut shared = self.shared.lock();
        shared.purged = Some(log_id);
        let purged = shared.journal.purge(log_id.index);
        purged.map_err(|error| fault(ErrorSubject::Logs, ErrorVerb::Delete, error))
    }
}
