//! Which proposals were applied: so that one that was given to two leaders, because the first one failed before it
//! answered, is applied once.
//!
//! A proposer is one life of a store, named by a random id. It has one proposal, which may be many commands, under way at a
//! time, and numbers them in order; so the last number of each proposer is all that must be remembered. The table is part
//! of the image and changes with it: every node decides alike which entry of the log is a repeat.
//!
//! Invariants: a proposal has effect once, as long as its proposer is among the [`PROPOSERS_MAX`] that had something
//! applied last; the table has no more rows than that.

use base::ids::Uuid;
use imbl::OrdMap;

/// Most proposers that are remembered; a further one takes the place of the one that was silent for longest. There is one
/// for each controller and broker, and for each of their lives of late.
pub(crate) const PROPOSERS_MAX: usize = 1_000;

/// Names a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProposalId {
    /// One life of a store.
    pub(crate) proposer: Uuid,
    /// Counts its proposals, from 1.
    pub(crate) sequence: u64,
}

/// The last proposal of a proposer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) sequence: u64,
    /// Its entry of the metadata log.
    pub(crate) index: u64,
}

/// What an entry of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Novelty {
    /// It is to be applied.
    New,
    /// It was applied as this entry.
    Repeat(u64),
    /// A later one of its proposer was applied; nobody waits for it any more.
    Late,
}

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Proposers(OrdMap<Uuid, Applied>);

impl Proposers {
    /// Judges the proposal in an entry, and remembers it if it is new.
    pub(crate) fn note(&mut self, id: ProposalId, index: u64) -> Novelty {
        let ProposalId { proposer, sequence } = id;
        match self.0.get(&proposer) {
            Some(last) if last.sequence == sequence => return Novelty::Repeat(last.index),
            Some(last) if last.sequence > sequence => return Novelty::Late,
            Some(_) => {}
            None if self.0.len() >= PROPOSERS_MAX => {
                let oldest = self.0.iter().min_by_key(|(_, last)| last.index).map(|(proposer, _)| *proposer);
                oldest.and_then(|oldest| self.0.remove(&oldest));
            }
            None => {}
        }
        self.0.insert(proposer, Applied { sequence, index });
        Novelty::New
    }

    /// All rows, by proposer.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&Uuid, &Applied)> {
        self.0.iter()
    }

    /// The table with these rows.
    pub(crate) fn of(rows: impl IntoIterator<Item = (Uuid, Applied)>) -> Proposers {
        Proposers(rows.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(proposer: u16, sequence: u64) -> ProposalId {
        let mut bytes = [7; 16];
        bytes[..2].copy_from_slice(&proposer.to_be_bytes());
        ProposalId { proposer: Uuid(bytes), sequence }
    }

    #[test]
    fn a_proposal_is_new_once() {
        let mut proposers = Proposers::default();
        assert_eq!(proposers.note(id(1, 1), 10), Novelty::New);
        assert_eq!(proposers.note(id(1, 1), 11), Novelty::Repeat(10));
        assert_eq!(proposers.note(id(2, 1), 12), Novelty::New);
        assert_eq!(proposers.note(id(1, 3), 13), Novelty::New);
        assert_eq!(proposers.note(id(1, 2), 14), Novelty::Late);
        assert_eq!(proposers.note(id(1, 3), 15), Novelty::Repeat(13));
        assert_eq!(Proposers::of(proposers.rows().map(|(id, row)| (*id, *row))), proposers);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_was_silent_for_longest() {
        let mut proposers = Proposers::default();
        for proposer in 0..PROPOSERS_MAX as u16 {
            proposers.note(id(proposer, 1), u64::from(proposer));
        }
        proposers.note(id(0, 2), 5_000);
        assert_eq!(proposers.note(id(u16::MAX, 1), 5_001), Novelty::New);
        assert_eq!(proposers.rows().count(), PROPOSERS_MAX);
        assert_eq!(proposers.note(id(0, 2), 5_002), Novelty::Repeat(5_000));
        assert_eq!(proposers.note(id(2, 1), 5_003), Novelty::Repeat(2));
        assert_eq!(proposers.note(id(1, 1), 5_004), Novelty::New, "it was forgotten");
    }
}
