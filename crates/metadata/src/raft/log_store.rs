//! openraft's log storage over the journal.
//!
//! An append is written and synced on a worker and only then reported; openraft has one append under way at
//! a time. Entries stay in memory too: snapshots keep the log short. What a snapshot covers counts as
//! purged, so nothing but the snapshot says how far that goes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{
    Entry, EntryPayload, ErrorSubject, ErrorVerb, LogId, LogState, RaftLogReader, StorageError,
    StorageIOError, Vote,
};
use parking_lot::Mutex;

use super::TypeConfig;
use super::entry::{decode_entry, decode_vote, encode_entry, encode_vote};
use super::home::{self, FileError, Home, Kind};
use super::journal::Journal;

/// Longest file with a vote.
const VOTE_BYTES_MAX: usize = 4_096;

type Failure = StorageError<u64>;

/// The log; clones share it.
#[derive(Clone)]
pub(super) struct LogStore {
    home: Arc<Home>,
    /// Lent to one worker at a time; nothing else waits for it.
    journal: Arc<Mutex<Journal>>,
    log: Arc<Mutex<Log>>,
}

struct Log {
    /// Entries and their sizes in the journal.
    entries: BTreeMap<u64, (Entry<TypeConfig>, usize)>,
    bytes: usize,
    purged: Option<LogId<u64>>,
    vote: Option<Vote<u64>>,
}

impl LogStore {
    /// Opens the log; `purged` is the last entry in the snapshot.
    pub(super) fn open(home: &Arc<Home>, purged: Option<LogId<u64>>) -> Result<LogStore, FileError> {
        let disk = &*home.env.disk;
        let vote_path = home.dir.join("vote");
        let vote = match home::read(disk, &vote_path, Kind::Vote, VOTE_BYTES_MAX)? {
            Some(bytes) => Some(decode_vote(&bytes).map_err(|error| unreadable(&vote_path, &error))?),
            None => None,
        };
        let kept_from = purged.map_or(0, |id| id.index + 1);
        let (journal, payloads) = Journal::open(&home.env, &home.dir, home.limits.file_bytes, kept_from)?;
        let mut log = Log { entries: BTreeMap::new(), bytes: 0, purged, vote };
        for (index, payload) in payloads {
            let entry = decode_entry(&payload).ok().filter(|entry| entry.log_id.index == index);
            let entry = entry.ok_or_else(|| unreadable(&home.dir, &format!("entry {index} of the log")))?;
            log.insert(entry, payload.len());
        }
        let journal = Arc::new(Mutex::new(journal));
        Ok(LogStore { home: home.clone(), journal, log: Arc::new(Mutex::new(log)) })
    }

    /// Index of the last entry.
    pub(super) fn last_index(&self) -> Option<u64> {
        self.log.lock().entries.last_key_value().map(|(index, _)| *index)
    }

    /// Voters by the last entry about them; `None` when the log has no such entry.
    pub(super) fn last_voters(&self) -> Option<Vec<u64>> {
        let log = self.log.lock();
        log.entries.values().rev().find_map(|(entry, _)| match &entry.payload {
            EntryPayload::Membership(membership) => Some(membership.voter_ids().collect()),
            _ => None,
        })
    }

    /// Bytes of the entries that no snapshot covers yet.
    pub(super) fn bytes(&self) -> usize {
        self.log.lock().bytes
    }

    /// Marks a clean end; nothing is appended any more.
    pub(super) async fn finish(&self) -> Result<(), FileError> {
        self.on_journal(Journal::finish).await
    }

    async fn on_journal<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Journal) -> Result<T, FileError> + Clone + Send + 'static,
    ) -> Result<T, FileError> {
        let journal = self.journal.clone();
        self.home.persist(move || work(&mut journal.lock())).await
    }
}

impl Log {
    fn insert(&mut self, entry: Entry<TypeConfig>, bytes: usize) {
        self.bytes += bytes;
        if let Some((_, replaced)) = self.entries.insert(entry.log_id.index, (entry, bytes)) {
            self.bytes -= replaced;
        }
    }

    fn recount(&mut self) {
        self.bytes = self.entries.values().map(|(_, bytes)| bytes).sum();
    }
}

fn unreadable(path: &Path, what: &dyn std::fmt::Display) -> FileError {
    FileError::damaged(path, 0, format!("{what} cannot be read"))
}

fn fault(subject: ErrorSubject<u64>, verb: ErrorVerb) -> impl FnOnce(FileError) -> Failure {
    move |error| StorageIOError::new(subject, verb, openraft::AnyError::new(&error)).into()
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<TypeConfig>>, Failure> {
        Ok(self.log.lock().entries.range(range).map(|(_, (entry, _))| entry.clone()).collect())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, Failure> {
        let log = self.log.lock();
        let last = log.entries.last_key_value().map(|(_, (entry, _))| entry.log_id);
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: last.or(log.purged) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), Failure> {
        let (disk, path, body) = (self.home.env.disk.clone(), self.home.dir.join("vote"), encode_vote(vote));
        let write = move || home::replace(&*disk, &path, Kind::Vote, &body);
        self.home.persist(write).await.map_err(fault(ErrorSubject::Vote, ErrorVerb::Write))?;
        self.log.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, Failure> {
        Ok(self.log.lock().vote)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), Failure>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        if let Some(first) = entries.first().map(|entry| entry.log_id.index) {
            let payloads: Arc<Vec<Vec<u8>>> = Arc::new(entries.iter().map(encode_entry).collect());
            let written = payloads.clone();
            let append = move |journal: &mut Journal| journal.append(first, &written);
            self.on_journal(append).await.map_err(fault(ErrorSubject::Logs, ErrorVerb::Write))?;
            let mut log = self.log.lock();
            for (entry, payload) in entries.into_iter().zip(&*payloads) {
                log.insert(entry, payload.len());
            }
        }
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), Failure> {
        let truncate = move |journal: &mut Journal| journal.truncate(log_id.index);
        self.on_journal(truncate).await.map_err(fault(ErrorSubject::Logs, ErrorVerb::Delete))?;
        let mut log = self.log.lock();
        log.entries.split_off(&log_id.index);
        log.recount();
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), Failure> {
        {
            let mut log = self.log.lock();
            log.purged = Some(log_id);
            log.entries = log.entries.split_off(&(log_id.index + 1));
            log.recount();
        }
        let purge = move |journal: &mut Journal| journal.purge(log_id.index + 1);
        self.on_journal(purge).await.map_err(fault(ErrorSubject::Logs, ErrorVerb::Delete))
    }
}
