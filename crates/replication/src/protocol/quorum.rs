//! Counting copies.

use base::ids::Offset;

/// The `n`-th largest of the values, counted from 1; `None` when there are fewer, or `n` is 0.
pub fn nth_largest(values: impl IntoIterator<Item = Offset>, n: usize) -> Option<Offset> {
    let mut values: Vec<Offset> = values.into_iter().collect();
    values.sort_unstable_by(|a, b| b.cmp(a));
    values.get(n.checked_sub(1)?).copied()
}

/// The end of what is committed: the largest offset below which `ack_quorum` members hold everything. `acked` has one
/// end for each member. `None` when there are fewer members than that.
pub fn committed(acked: impl IntoIterator<Item = Offset>, ack_quorum: usize) -> Option<Offset> {
    nth_largest(acked, ack_quorum)
}

/// How many of `members` must answer a new leader until it knows that every committed record is on one of them: with
/// one fewer, all copies of a record could lie on those that did not (replication.md 2.8).
pub fn coverage(members: usize, ack_quorum: usize) -> usize {
    (members + 1).saturating_sub(ack_quorum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_members_hold_is_committed() {
        assert_eq!(committed([7, 5, 9], 3), Some(5));
        assert_eq!(committed([7, 5, 9], 2), Some(7));
        assert_eq!(committed([7, 5], 3), None);
        assert_eq!(committed([], 0), None);
    }

    #[test]
    fn any_quorum_meets_any_coverage() {
        for members in 1..=7 {
            for ack_quorum in 1..=members {
                let coverage = coverage(members, ack_quorum);
                assert_eq!(coverage + ack_quorum, members + 1);
            }
        }
    }
}
