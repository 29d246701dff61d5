//! Where copies of partitions are, and where they are wanted: what of it is under way.
//!
//! A reassignment is a change of the placement. What follows needs nobody who remembers it: the leader opens its next
//! segment on the brokers of the placement, they fetch the sealed ones, one of them is elected if the leader is not among
//! them, and then the others give up what they have.

use std::collections::BTreeMap;

use base::chain::{PartitionState, SegmentState};
use base::ids::{BrokerId, StorageId};
use metadata::{Image, StorageHealth};

use crate::elections::{lacks, open_members};

/// Tells what is under way; made once for many partitions.
pub(crate) struct Moves<'i> {
    image: &'i Image,
    /// Which broker has which log directory, but for those that are lost.
    homes: BTreeMap<StorageId, BrokerId>,
}

/// What is under way for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    /// Brokers of the placement, and then those that have copies and shall not.
    pub(crate) brokers: Vec<BrokerId>,
    /// Those of the placement that do not have everything yet.
    pub(crate) adding: Vec<BrokerId>,
    /// Those that shall not have copies.
    pub(crate) removing: Vec<BrokerId>,
}

impl<'i> Moves<'i> {
    /// By the metadata of this moment.
    pub(crate) fn of(image: &'i Image) -> Moves<'i> {
        let homes = image.brokers().flat_map(|broker| {
            let storages = broker.storages.iter().filter(|(_, state)| **state != StorageHealth::Lost);
            storages.map(|(storage, _)| (*storage, broker.registration.broker))
        });
        Moves { image, homes: homes.collect() }
    }

    /// What is under way for a partition. A broker of the placement that is down and has copies is not: it has nothing to
    /// do but to come back.
    pub(crate) fn of_partition(&self, state: &PartitionState) -> Option<Move> {
        let members = open_members(state);
        let is_member = |broker: &BrokerId| members.iter().any(|member| member.broker == *broker);
        let holders = self.holders(state);
        let is_alive = |broker: &BrokerId| self.image.broker(*broker).is_some_and(|broker| !broker.fenced);
        let needs_all =
            |broker: &BrokerId| state.keepers.is_empty() || state.placement.first() == Some(broker);
        let is_added = |broker: &&BrokerId| {
            (!is_member(broker) || (needs_all(broker) && lacks(self.image, state, **broker) > 0))
                && (is_alive(broker) || !holders.contains(broker))
        };
        let adding: Vec<BrokerId> = state.placement.iter().filter(is_added).copied().collect();
        let removing: Vec<BrokerId> =
            holders.iter().filter(|broker| !is_home(state, **broker)).copied().collect();
        if adding.is_empty() && removing.is_empty() {
            return None;
        }
        Some(Move { brokers: [&state.placement[..], &removing].concat(), adding, removing })
    }

    /// Where the copies of a partition that is being moved were before, as far as that can be told: on the leader, on others
    /// that shall give theirs up, and on those of the placement that have everything, in the order in which the oldest
    /// segment names them. `None` when nothing is missing any more: then there is nothing to call off.
    pub(crate) fn before(&self, state: &PartitionState) -> Option<Vec<BrokerId>> {
        let Move { adding, removing, .. } = self.of_partition(state).filter(|it| !it.adding.is_empty())?;
        let mut first = vec![state.leader];
        first.extend(removing.into_iter().filter(|broker| *broker != state.leader));
        first.extend(state.keepers.iter().filter(|broker| **broker != state.leader));
        let count = state.placement.len().max(first.len());
        let had_first = self.holders(state);
        let stays = |broker: &&BrokerId| state.placement.contains(broker) && !adding.contains(broker);
        let stays: Vec<BrokerId> = had_first.iter().filter(stays).copied().collect();
        first.extend(stays.into_iter().filter(|broker| *broker != state.leader));
        first.truncate(count);
        Some(first)
    }

    /// Brokers that have copies of any segment, in the order in which the segments name them.
    fn holders(&self, state: &PartitionState) -> Vec<BrokerId> {
        let mut holders = Vec::new();
        let mut add = |broker: BrokerId| {
            if !holders.contains(&broker) {
                holders.push(broker);
            }
        };
        for entry in &state.chain {
            match &entry.state {
                SegmentState::Open { ensemble } => ensemble.iter().for_each(|member| add(member.broker)),
                SegmentState::Sealed { replicas, .. } => {
                    replicas
                        .iter()
                        .filter_map(|storage| self.homes.get(storage))
                        .for_each(|broker| add(*broker));
                }
            }
        }
        holders
    }
}

/// Whether a broker may have copies of sealed segments.
fn is_home(state: &PartitionState, broker: BrokerId) -> bool {
    state.placement.contains(&broker) || state.keepers.contains(&broker)
}
