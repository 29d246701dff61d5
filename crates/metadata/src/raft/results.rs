//! What the last entries came to, for commands that another node put into the log.
//!
//! A node that does not lead sends commands to the leader and hears in which entry they are. It applies the same entry
//! itself, to the same result, because the state machine is deterministic: results never travel.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::machine::Outcome;
use crate::command::CommandResult;
use crate::watch;

/// Entries whose results are kept: the response that names one is on its way for one round trip.
const ENTRIES_MAX: usize = 1_000;

/// See the module's head.
pub(super) struct Results {
    kept: Mutex<VecDeque<(u64, Vec<CommandResult>)>>,
    entries_max: usize,
    applied: watch::Sender<Option<u64>>,
}

impl Default for Results {
    fn default() -> Results {
        Results { kept: Mutex::default(), entries_max: ENTRIES_MAX, applied: watch::Sender::new(None) }
    }
}

impl Results {
    /// Keeps nothing: for a node that gives commands to nobody else.
    pub(super) fn none() -> Results {
        Results { entries_max: 0, ..Results::default() }
    }

    /// Notes what an entry came to, which for a repeat is what the first came to; `None` if that is not known any more.
    pub(super) fn note(&self, index: u64, outcome: Outcome) -> Option<Vec<CommandResult>> {
        let results = match outcome {
            Outcome::Applied(results) => results,
            Outcome::Repeated(first) => self.find(first?)?,
        };
        if self.entries_max > 0 {
            let mut kept = self.kept.lock();
            kept.push_back((index, results.clone()));
            if kept.len() > self.entries_max {
                kept.pop_front();
            }
        }
        Some(results)
    }

    fn find(&self, index: u64) -> Option<Vec<CommandResult>> {
        let kept = self.kept.lock();
        let at = kept.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        Some(kept[at].1.clone())
    }

    /// Says that everything up to an entry is in the image.
    pub(super) fn publish(&self, applied: Option<u64>) {
        self.applied.send_replace(applied);
    }

    /// What an entry came to, once it is in the image; `None` if that is not known any more.
    pub(super) async fn of(&self, index: u64) -> Option<Vec<CommandResult>> {
        drop(self.applied.subscribe().wait_for(|applied| *applied >= Some(index)).await.ok()?);
        self.find(index)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn results_are_there_when_the_entry_is_applied_and_not_for_ever() {
        let results = Results::default();
        let first = Some(vec![CommandResult::FirstId(7)]);
        let noted = results.note(7, Outcome::Applied(vec![CommandResult::FirstId(7)]));
        assert_eq!(noted, first);
        assert_eq!(results.of(7).now_or_never(), None, "not in the image yet");
        results.publish(Some(7));
        assert_eq!(results.of(7).now_or_never(), Some(Some(vec![CommandResult::FirstId(7)])));
        assert_eq!(results.note(8, Outcome::Repeated(Some(7))), first);
        assert_eq!(results.note(9, Outcome::Repeated(None)), None);
        for index in 10..10 + ENTRIES_MAX as u64 {
            results.note(index, Outcome::Applied(Vec::new()));
            results.publish(Some(index));
        }
        assert_eq!(results.of(7).now_or_never(), Some(None), "too long ago");
        assert_eq!(results.note(2_000, Outcome::Repeated(Some(7))), None, "too long ago");
        assert_eq!(results.of(10).now_or_never(), Some(Some(Vec::new())));
        let none = Results::none();
        assert_eq!(none.note(1, Outcome::Applied(Vec::new())), Some(Vec::new()));
        none.publish(Some(1));
        assert_eq!(none.of(1).now_or_never(), Some(None));
    }
}
