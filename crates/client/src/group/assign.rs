//! The range assignor: each topic's partitions go in runs to the members that subscribe to it, as Kafka's
//! own `range` does, so that members of other clients may share a group with ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::PartitionName;

/// A member and the topics it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscriber {
    pub(super) member_id: String,
    /// Sorts before the member id where it is set, so that a member that comes back gets its own again.
    pub(super) instance_id: Option<String>,
    pub(super) topics: Vec<String>,
}

/// Gives every partition of `partitions` (topic, number of partitions) to one member that wants its topic.
/// Every member has an entry, if only an empty one.
pub(super) fn assign_ranges(
    subscribers: &[Subscriber],
    partitions: &BTreeMap<String, i32>,
) -> BTreeMap<String, Vec<PartitionName>> {
    let mut sorted: Vec<&Subscriber> = subscribers.iter().collect();
    // Members with an instance id come first, in its order; the others follow by member id.
    sorted.sort_by_key(|s| (s.instance_id.is_none(), s.instance_id.as_deref(), s.member_id.as_str()));
    let mut assigned: BTreeMap<String, Vec<PartitionName>> =
        subscribers.iter().map(|subscriber| (subscriber.member_id.clone(), Vec::new())).collect();
    for (topic, count) in partitions {
        let name: Arc<str> = topic.as_str().into();
        let takers: Vec<_> =
            sorted.iter().filter(|s| s.topics.iter().any(|wanted| wanted == topic)).collect();
        let Ok(members) = i32::try_from(takers.len()) else { continue };
        if members == 0 {
            continue;
        }
        let (each, more) = (count / members, count % members);
        let mut next = 0;
        for (index, taker) in takers.into_iter().enumerate() {
            let length = each + i32::from((index as i32) < more);
            let run = (next..next + length).map(|index| PartitionName::new(name.clone(), index));
            assigned.entry(taker.member_id.clone()).or_default().extend(run);
            next += length;
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, topics: &[&str]) -> Subscriber {
        Subscriber {
            member_id: id.to_owned(),
            instance_id: None,
            topics: topics.iter().map(|t| (*t).to_owned()).collect(),
        }
    }

    fn shares(subscribers: &[Subscriber], topics: &[(&str, i32)]) -> Vec<(String, Vec<String>)> {
        let partitions = topics.iter().map(|(topic, count)| ((*topic).to_owned(), *count)).collect();
        let assigned = assign_ranges(subscribers, &partitions).into_iter();
        let text = |p: PartitionName| format!("{}{}", p.topic, p.partition);
        assigned.map(|(id, list)| (id, list.into_iter().map(text).collect())).collect()
    }

    fn row(id: &str, partitions: &[&str]) -> (String, Vec<String>) {
        (id.to_owned(), partitions.iter().map(|p| (*p).to_owned()).collect())
    }

    #[test]
    fn the_first_members_get_what_is_left_over() {
        let both = [member("b", &["x", "y"]), member("a", &["x", "y"])];
        let expected = [row("a", &["x0", "x1", "y0", "y1"]), row("b", &["x2", "y2"])];
        assert_eq!(shares(&both, &[("x", 3), ("y", 3)]), expected);
    }

    #[test]
    fn topics_go_to_those_who_want_them_and_some_get_nothing() {
        let members = [member("a", &["x"]), member("b", &["x", "y"]), member("c", &[])];
        let expected = [row("a", &["x0"]), row("b", &["y0", "y1"]), row("c", &[])];
        assert_eq!(shares(&members, &[("x", 1), ("y", 2), ("z", 9)]), expected);
    }

    #[test]
    fn a_static_member_keeps_its_place_under_another_member_id() {
        let mut first = member("zzz", &["x"]);
        first.instance_id = Some("one".to_owned());
        let second = member("aaa", &["x"]);
        let expected = [row("aaa", &["x1"]), row("zzz", &["x0"])];
        assert_eq!(shares(&[second, first], &[("x", 2)]), expected);
    }
}
