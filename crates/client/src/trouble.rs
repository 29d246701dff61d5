//! What a client tries again at the moment, so that whoever waits for it can be told why.
//!
//! Every series of attempts that has failed at least once has a note here, from its first failure until it
//! succeeds, is given up or is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::ClientError;

/// The oldest thing that is being tried again.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Why the last attempt failed.
    pub error: ClientError,
    /// When the first attempt failed, on the client's clock.
    pub since: Duration,
    /// How many other things are being tried again.
    pub others: usize,
}

/// The notes of one client.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    next_number: u64,
    /// By number, so the first is the oldest: when it began, and the last error.
    open: BTreeMap<u64, (Duration, ClientError)>,
}

impl Troubles {
    /// Begins a note; it stands until the answer is dropped.
    pub(crate) fn begin(self: &Arc<Troubles>, since: Duration, error: ClientError) -> TroubleNote {
        let mut notes = self.notes.lock();
        let number = notes.next_number;
        notes.next_number += 1;
        notes.open.insert(number, (since, error));
        TroubleNote { troubles: self.clone(), number }
    }

    pub(crate) fn oldest(&self) -> Option<Trouble> {
        let notes = self.notes.lock();
        let (since, error) = notes.open.values().next()?.clone();
        Some(Trouble { error, since, others: notes.open.len() - 1 })
    }
}

/// One note.
#[derive(Debug)]
pub(crate) struct TroubleNote {
    troubles: Arc<Troubles>,
    number: u64,
}

impl TroubleNote {
    /// Another attempt failed.
    pub(crate) fn update(&self, error: ClientError) {
        if let Some(note) = self.troubles.notes.lock().open.get_mut(&self.number) {
            note.1 = error;
        }
    }
}

impl Drop for TroubleNote {
    fn drop(&mut self) {
        self.troubles.notes.lock().open.remove(&self.number);
    }
}
