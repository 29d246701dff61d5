//! What was found for partitions, gathered by topic: an answer has one entry for each topic, however often the
//! request names it, and none for a topic of which nothing is asked.

use std::collections::HashMap;
use std::hash::Hash;

/// Outcomes in the order in which their topics first came.
pub(super) struct ByTopic<K, P> {
    entries: Vec<(K, Vec<P>)>,
    places: HashMap<K, usize>,
}

impl<K: Clone + Eq + Hash, P> ByTopic<K, P> {
    /// Without any outcome yet.
    pub(super) fn new() -> ByTopic<K, P> {
        ByTopic { entries: Vec::new(), places: HashMap::new() }
    }

    /// Adds the outcome for a partition of a topic.
    pub(super) fn add(&mut self, topic: &K, partition: P) {
        match self.places.get(topic) {
            Some(place) => self.entries[*place].1.push(partition),
            None => {
                self.places.insert(topic.clone(), self.entries.len());
                self.entries.push((topic.clone(), vec![partition]));
            }
        }
    }

    /// Topics with their outcomes.
    pub(super) fn into_entries(self) -> impl Iterator<Item = (K, Vec<P>)> {
        self.entries.into_iter()
    }
}

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
    fn outcomes_of_one_topic_come_together() {
        let mut found = ByTopic::new();
        for (topic, partition) in [("b", 1), ("a", 2), ("b", 3)] {
            found.add(&topic, partition);
        }
        assert_eq!(found.into_entries().collect::<Vec<_>>(), [("b", vec![1, 3]), ("a", vec![2])]);
    }

    #[test]
    fn a_subject_named_more_than_once_is_told_once() {
        let subjects = ["a", "b", "a", "c", "a"];
        let mut mentions = Mentions::of(subjects.iter());
        let told = subjects.iter().map(|subject| mentions.next(&subject));
        use Mention::{Again, FirstOfSeveral, Only};
        assert_eq!(told.collect::<Vec<_>>(), [FirstOfSeveral, Only, Again, Only, Again]);
    }
}
