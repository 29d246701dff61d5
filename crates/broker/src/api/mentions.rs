//! What a request names more than once is told once.

use std::collections::HashMap;
use std::hash::Hash;

/// How often a request names each of its subjects.
pub(super) struct Mentions<K>(HashMap<K, usize>);

/// What a mention is to the others of the same subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mention {
    /// There is no other.
    Only,
    /// There are others, all to come.
    FirstOfSeveral,
    /// One has come before.
    Again,
}

impl<K: Eq + Hash> Mentions<K> {
    /// Counts the subjects.
    pub(super) fn of(subjects: impl Iterator<Item = K>) -> Mentions<K> {
        let mut counts = HashMap::new();
        for subject in subjects {
            *counts.entry(subject).or_default() += 1;
        }
        Mentions(counts)
    }

    /// To be called for each mention, in order.
    pub(super) fn next(&mut self, subject: &K) -> Mention {
        match self.0.get_mut(subject) {
            Some(1) | None => Mention::Only,
            Some(0) => Mention::Again,
            Some(count) => {
                *count = 0;
                Mention::FirstOfSeveral
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_named_more_than_once_is_told_once() {
        let subjects = ["a", "b", "a", "c", "a"];
        let mut mentions = Mentions::of(subjects.iter());
        let told = subjects.iter().map(|subject| mentions.next(&subject));
        use Mention::{Again, FirstOfSeveral, Only};
        assert_eq!(told.collect::<Vec<_>>(), [FirstOfSeveral, Only, Again, Only, Again]);
    }
}
