//! What the last entries came to, for commands that another node put into the log.
//!
//! A node that does not lead sends commands to the leader and hears in which entry they are. It applies the same entry
//! itself, to the same result, because the state machine is deterministic: results never travel.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::command::CommandResult;
use crate::watch;

/// Entries whose results are kept: the response that names one is on its way for one round trip.
const ENTRIES_MAX: usize = 1_000;

/// See the module's head.
pub(super) struct Results {
    kept: Mutex<VecDeque<(u64, Vec<CommandResult>)>>,
    applied: watch::Sender<Option<u64>>,
}

impl Default for Results {
    fn default() -> Results {
        Results { kept: Mutex::default(), applied: watch::Sender::new(None) }
    }
}

impl Results {
    /// Notes what an entry came to.
    pub(super) fn add(&self, index: u64, results: Vec<CommandResult>) {
        let mut kept = self.kept.lock();
        kept.push_back((index, results));
        if kept.len() > ENTRIES_MAX {
            kept.pop_front();
        }
    }

    /// Says that everything up to an entry is in the image.
    pub(super) fn publish(&self, applied: Option<u64>) {
        self.applied.send_replace(applied);
    }

    /// What an entry came to, once it is in the image; `None` if that is not known any more.
    pub(super) async fn of(&self, index: u64) -> Option<Vec<CommandResult>> {
        drop(self.applied.subscribe().wait_for(|applied| *applied >= Some(index)).await.ok()?);
        let kept = self.kept.lock();
        let at = kept.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        Some(kept[at].1.clone())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn results_are_there_when_the_entry_is_applied_and_not_for_ever() {
        let results = Results::default();
        results.add(7, vec![CommandResult::FirstId(7)]);
        assert_eq!(results.of(7).now_or_never(), None, "not in the image yet");
        results.publish(Some(7));
        assert_eq!(results.of(7).now_or_never(), Some(Some(vec![CommandResult::FirstId(7)])));
        for index in 8..8 + ENTRIES_MAX as u64 {
            results.add(index, Vec::new());
            results.publish(Some(index));
        }
        assert_eq!(results.of(7).now_or_never(), Some(None), "too long ago");
        assert_eq!(results.of(8).now_or_never(), Some(Some(Vec::new())));
    }
}
