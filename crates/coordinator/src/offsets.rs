//! The offsets of all groups of a shard, committed ones and those on their way into the log.
//!
//! Each place (group, topic, partition) holds what the log says and, in order, the changes that are not decided
//! yet. Clients read only the former. Decisions about further changes look at the latter, since the log will
//! hold them in that order.
//!
//! Invariant: the committed value is that of the decided change with the highest append number, whatever the order
//! in which the outcomes are reported. A place with neither value nor open change does not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::ids::{Offset, TimestampMs, TopicId};

use crate::append::{AppendId, OffsetPlace};
use crate::memory::{OFFSET_BYTES, Share};
use crate::offset_api::Changes;

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    pub(crate) offset: Offset,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
    pub(crate) commit_timestamp_ms: TimestampMs,
    /// Set by clients that name a retention themselves (OffsetCommit versions 2 to 4).
    pub(crate) expire_timestamp_ms: Option<TimestampMs>,
    /// Id of the topic, all zero if the client did not know it.
    pub(crate) topic_id: TopicId,
}

impl CommittedOffset {
    /// What it holds, bytes.
    fn bytes(&self) -> usize {
        OFFSET_BYTES + self.metadata.len()
    }
}

/// One place.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    committed: Option<CommittedOffset>,
    /// The append whose change `committed` is.
    decided_by: AppendId,
    /// Open changes in the order of the log; `None` removes.
    open: Vec<(AppendId, Option<CommittedOffset>)>,
}

impl Slot {
    /// What the log says.
    pub(crate) fn committed(&self) -> Option<&CommittedOffset> {
        self.committed.as_ref()
    }

    /// What the log will say if every open change goes through.
    pub(crate) fn latest(&self) -> Option<&CommittedOffset> {
        match self.open.last() {
            Some((_, change)) => change.as_ref(),
            None => self.committed.as_ref(),
        }
    }

    /// What the committed value holds, bytes.
    fn bytes(&self) -> usize {
        self.committed.as_ref().map_or(0, CommittedOffset::bytes)
    }

    /// True while a change is not decided.
    pub(crate) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// True while a change of an append up to `id` is not decided.
    pub(crate) fn is_open_up_to(&self, id: AppendId) -> bool {
        self.open.first().is_some_and(|(first, _)| *first <= id)
    }

    fn decide(&mut self, id: AppendId, written: bool) {
        let Some(index) = self.open.iter().position(|(open_id, _)| *open_id == id) else { return };
        let (_, change) = self.open.remove(index);
        if written && id >= self.decided_by {
            self.committed = change;
            self.decided_by = id;
        }
    }

    fn is_unused(&self) -> bool {
        self.committed.is_none() && self.open.is_empty()
    }
}

/// Offsets of one group, by topic and partition.
#[derive(Debug, Default)]
pub(crate) struct GroupOffsets {
    topics: BTreeMap<Arc<str>, BTreeMap<i32, Slot>>,
    open_appends: BTreeSet<AppendId>,
}

impl GroupOffsets {
    /// The place of one partition.
    pub(crate) fn slot(&self, topic: &str, partition: i32) -> Option<&Slot> {
        self.topics.get(topic)?.get(&partition)
    }

    /// All places of each topic, by name.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (&Arc<str>, &BTreeMap<i32, Slot>)> {
        self.topics.iter()
    }

    /// All places.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (&Arc<str>, i32, &Slot)> {
        let per_topic = |(topic, partitions)| {
            let partitions: &BTreeMap<i32, Slot> = partitions;
            partitions.iter().map(move |(partition, slot)| (topic, *partition, slot))
        };
        self.topics.iter().flat_map(per_topic)
    }

    /// The last append with open changes here.
    pub(crate) fn last_open(&self) -> Option<AppendId> {
        self.open_appends.last().copied()
    }

    /// True if an append up to `id` is still open here.
    pub(crate) fn is_open_up_to(&self, id: AppendId) -> bool {
        self.open_appends.first().is_some_and(|first| *first <= id)
    }

    fn slot_mut(&mut self, (topic, partition): &OffsetPlace) -> &mut Slot {
        self.topics.entry(topic.clone()).or_default().entry(*partition).or_default()
    }

    fn forget_if_unused(&mut self, (topic, partition): &OffsetPlace) {
        let Some(partitions) = self.topics.get_mut(topic) else { return };
        if partitions.get(partition).is_some_and(Slot::is_unused) {
            partitions.remove(partition);
        }
        if partitions.is_empty() {
            self.topics.remove(topic);
        }
    }

    fn is_unused(&self) -> bool {
        self.topics.is_empty() && self.open_appends.is_empty()
    }
}

/// Offsets of all groups of a shard.
#[derive(Debug, Default)]
pub(crate) struct OffsetStore {
    groups: BTreeMap<Arc<str>, GroupOffsets>,
    /// Of what committed offsets hold.
    share: Share,
}

impl OffsetStore {
    /// No offsets; what committed ones hold is counted in `share`.
    pub(crate) fn new(share: Share) -> OffsetStore {
        OffsetStore { groups: BTreeMap::new(), share }
    }

    /// Bytes that changes to a group would make offsets hold more than now.
    pub(crate) fn growth(&self, group: &str, changes: &Changes) -> usize {
        let offsets = self.groups.get(group);
        let more = changes.iter().map(|(topic, partition, change)| {
            let slot = offsets.and_then(|offsets| offsets.slot(topic, *partition));
            let before = slot.and_then(Slot::latest).map_or(0, CommittedOffset::bytes);
            change.as_ref().map_or(0, CommittedOffset::bytes).saturating_sub(before)
        });
        more.sum()
    }

    /// Offsets of a group, if it has any.
    pub(crate) fn group(&self, group: &str) -> Option<&GroupOffsets> {
        self.groups.get(group)
    }

    /// Every group that has offsets.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&Arc<str>, &GroupOffsets)> {
        self.groups.iter()
    }

    /// True if the group has offsets, decided or not.
    pub(crate) fn has_group(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    /// How many committed offsets there are.
    pub(crate) fn committed_count(&self) -> usize {
        let slots = self.groups.values().flat_map(GroupOffsets::slots);
        slots.filter(|(_, _, slot)| slot.committed().is_some()).count()
    }

    /// Looks whether what is counted is what there is, for tests and simulations.
    ///
    /// # Errors
    /// Both figures, in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        let slots = self.groups.values().flat_map(GroupOffsets::slots);
        let held: usize = slots.map(|(_, _, slot)| slot.bytes()).sum();
        let counted = self.share.bytes();
        if held == counted {
            Ok(())
        } else {
            Err(format!("offsets hold {held} bytes, {counted} are counted"))
        }
    }

    /// Notes an open change; `None` removes.
    pub(crate) fn open(
        &mut self,
        group: &Arc<str>,
        place: &OffsetPlace,
        id: AppendId,
        change: Option<CommittedOffset>,
    ) {
        let offsets = self.groups.entry(group.clone()).or_default();
        offsets.open_appends.insert(id);
        offsets.slot_mut(place).open.push((id, change));
    }

    /// Ends the open changes of one append.
    pub(crate) fn decide(&mut self, group: &Arc<str>, places: &[OffsetPlace], id: AppendId, written: bool) {
        let Some(offsets) = self.groups.get_mut(group) else { return };
        for place in places {
            let slot = offsets.slot_mut(place);
            let before = slot.bytes();
            slot.decide(id, written);
            self.share.set(self.share.bytes() + slot.bytes() - before);
            offsets.forget_if_unused(place);
        }
        offsets.open_appends.remove(&id);
        if offsets.is_unused() {
            self.groups.remove(group);
        }
    }

    /// Takes a change from the log.
    pub(crate) fn replay(&mut self, group: &Arc<str>, place: &OffsetPlace, value: Option<CommittedOffset>) {
        if value.is_none() && !self.groups.contains_key(group) {
            return;
        }
        let offsets = self.groups.entry(group.clone()).or_default();
        let slot = offsets.slot_mut(place);
        let before = slot.bytes();
        slot.committed = value;
        self.share.set(self.share.bytes() + slot.bytes() - before);
        offsets.forget_if_unused(place);
        if offsets.is_unused() {
            self.groups.remove(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(offset: i64) -> CommittedOffset {
        CommittedOffset {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            commit_timestamp_ms: 0,
            expire_timestamp_ms: None,
            topic_id: TopicId::ZERO,
        }
    }

    fn store() -> (OffsetStore, Arc<str>, OffsetPlace) {
        (OffsetStore::default(), "g".into(), ("t".into(), 0))
    }

    fn committed(store: &OffsetStore) -> Option<i64> {
        Some(store.group("g")?.slot("t", 0)?.committed()?.offset)
    }

    #[test]
    fn an_open_change_is_not_committed_but_is_the_latest() {
        let (mut store, group, place) = store();
        store.open(&group, &place, AppendId(1), Some(offset(5)));
        assert_eq!(committed(&store), None);
        let slot = store.group("g").and_then(|offsets| offsets.slot("t", 0)).expect("the place is open");
        assert_eq!(slot.latest().map(|value| value.offset), Some(5));
        store.decide(&group, &[place], AppendId(1), true);
        assert_eq!(committed(&store), Some(5));
    }

    #[test]
    fn only_what_grows_takes_more_and_all_of_it_comes_back() {
        let memory = crate::GroupMemory::default();
        let (mut store, (_, group, place)) = (OffsetStore::new(memory.offsets.share()), self::store());
        let change = |metadata: &str| {
            let value = CommittedOffset { metadata: metadata.to_owned(), ..offset(1) };
            vec![(place.0.clone(), place.1, Some(value))]
        };
        assert_eq!(store.growth(&group, &change("four")), OFFSET_BYTES + 4);
        store.open(&group, &place, AppendId(1), change("four").remove(0).2);
        assert_eq!(memory.offset_bytes(), 0, "an open change is counted with the records");
        assert_eq!([store.growth(&group, &change("4")), store.growth(&group, &change("five!"))], [0, 1]);
        store.decide(&group, std::slice::from_ref(&place), AppendId(1), true);
        assert_eq!(memory.offset_bytes(), OFFSET_BYTES + 4);
        store.replay(&group, &place, None);
        assert_eq!(memory.offset_bytes(), 0);
        store.replay(&group, &place, Some(offset(2)));
        drop(store);
        assert_eq!(memory.offset_bytes(), 0);
    }

    #[test]
    fn a_change_that_fails_leaves_what_was_there() {
        let (mut store, group, place) = store();
        store.replay(&group, &place, Some(offset(1)));
        store.open(&group, &place, AppendId(1), Some(offset(5)));
        store.decide(&group, std::slice::from_ref(&place), AppendId(1), false);
        assert_eq!(committed(&store), Some(1));
        store.open(&group, &place, AppendId(2), None);
        store.decide(&group, &[place], AppendId(2), true);
        assert!(!store.has_group("g"));
    }

    #[test]
    fn the_later_append_wins_in_whatever_order_outcomes_come() {
        let (mut store, group, place) = store();
        store.open(&group, &place, AppendId(1), Some(offset(1)));
        store.open(&group, &place, AppendId(2), None);
        store.decide(&group, std::slice::from_ref(&place), AppendId(2), true);
        store.decide(&group, std::slice::from_ref(&place), AppendId(1), true);
        assert_eq!(committed(&store), None);
        assert!(!store.has_group("g"));
    }
}
