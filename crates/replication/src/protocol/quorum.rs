//! Counting copies.

use base::ids::Offset;

/// The `n`-th largest of the values, counted from 1; `None` when there are fewer, or `n` is 0. Of the ends that members
/// hold, the one of a whole quorum is where the committed part ends.
pub(super) fn nth_largest(values: impl IntoIterator<Item = Offset>, n: usize) -> Option<Offset> {
    let mut values: Vec<Offset> = values.into_iter().collect();
    values.sort_unstable_by(|a, b| b.cmp(a));
    values.get(n.checked_sub(1)?).copied()
}

/// How many of `members` must answer a new leader until it knows that every committed record is on one of them: with
/// one fewer, all copies of a record could lie on those that did not (replication.md 2.8).
pub(super) fn coverage(members: usize, ack_quorum: usize) -> usize {
    (members + 1).saturating_sub(ack_quorum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_whole_quorum_holds_is_committed() {
        assert_eq!(nth_largest([7, 5, 9], 3), Some(5));
        assert_eq!(nth_largest([7, 5, 9], 2), Some(7));
        assert_eq!(nth_largest([7, 5], 3), None);
        assert_eq!(nth_largest([], 0), None);
    }

    #[test]
    fn so_many_answers_meet_every_quorum_and_fewer_do_not() {
        for members in 1..=7 {
            let sets =
                |size: usize| (0..1_u32 << members).filter(move |set| set.count_ones() as usize == size);
            for ack_quorum in 1..=members {
                let meets = |size| sets(size).all(|answers| sets(ack_quorum).all(|held| answers & held != 0));
                let coverage = coverage(members, ack_quorum);
                assert!(meets(coverage) && !meets(coverage - 1), "{ack_quorum} of {members}");
            }
        }
    }
}
