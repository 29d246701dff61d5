//! Whether the images of the metadata that nodes show can follow each other (replication.md section 4, invariants 3, 8, 9
//! and 13).
//!
//! Pure: each node's images are given in the order in which it shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::chain::{PartitionState, SegmentEntry, SegmentState};
use base::ids::TopicPartition;
use metadata::Image;

/// Images that are kept to be compared with those of other nodes.
const KEPT: usize = 500;

/// What nodes showed so far.
#[derive(Default)]
pub struct Witness {
    /// By version, the newest ones.
    images: BTreeMap<u64, Arc<Image>>,
    /// What each life of a node showed last.
    last: BTreeMap<(i32, u64), Arc<Image>>,
    newest: Option<Arc<Image>>,
}

impl Witness {
    /// A node shows an image in one of its lives. Returns what is new in it, for people, if nobody showed it yet.
    ///
    /// # Errors
    /// It contradicts an earlier one.
    pub fn see(&mut self, node: i32, life: u64, image: &Arc<Image>) -> Result<Option<String>, String> {
        if let Some(before) = self.last.insert((node, life), image.clone()) {
            if image.version < before.version {
                return Err(format!(
                    "node {node} shows version {} of the metadata after {}",
                    image.version, before.version
                ));
            }
            follows(&before, image).map_err(|error| format!("version {}: {error}", image.version))?;
        }
        match self.images.get(&image.version) {
            Some(other) if **other != **image => {
                return Err(format!(
                    "node {node} shows another version {} of the metadata than others",
                    image.version
                ));
            }
            _ => {}
        }
        self.images.insert(image.version, image.clone());
        while self.images.len() > KEPT {
            self.images.pop_first();
        }
        let newest = self.newest.clone().unwrap_or_default();
        if image.version <= newest.version {
            return Ok(None);
        }
        follows(&newest, image).map_err(|error| format!("version {}: {error}", image.version))?;
        self.newest = Some(image.clone());
        Ok(Some(difference(&newest, image)))
    }

    /// The newest image that anybody showed.
    pub fn newest(&self) -> Option<Arc<Image>> {
        self.newest.clone()
    }
}

/// Whether one image can follow another.
///
/// # Errors
/// Why not.
pub fn follows(before: &Image, after: &Image) -> Result<(), String> {
    if !before.cluster_id.is_zero() && before.cluster_id != after.cluster_id {
        return Err("the cluster has another id".to_owned());
    }
    for topic in after.topics() {
        for (number, state) in topic.partitions.iter().enumerate() {
            let of_partition = |error: String| format!("{}-{number}: {error}", topic.name);
            is_chain(state).map_err(of_partition)?;
            let id = TopicPartition {
                topic_id: topic.id,
                partition: base::ids::PartitionId(i32::try_from(number).unwrap_or(i32::MAX)),
            };
            if let Some(former) = before.partition(&id) {
                state_follows(former, state).map_err(of_partition)?;
            }
        }
    }
    Ok(())
}

/// Whether the entries of a chain fit together.
///
/// # Errors
/// Why not.
pub fn is_chain(state: &PartitionState) -> Result<(), String> {
    for pair in state.chain.windows(2) {
        if pair[0].end() != Some(pair[1].base) {
            return Err(format!(
                "{:?} ends at {:?}, {:?} begins at {}",
                pair[0].id,
                pair[0].end(),
                pair[1].id,
                pair[1].base
            ));
        }
        if pair[0].last_epoch() > pair[1].last_epoch() {
            return Err(format!("the epoch falls at {:?}", pair[1].id));
        }
    }
    if !state.last().is_open() {
        return Err("no segment is open".to_owned());
    }
    if state.last().last_epoch() > state.leader_epoch {
        return Err("the open segment is of a later epoch than the partition".to_owned());
    }
    if state.chain[0].base > state.log_start {
        return Err(format!("the log starts at {}, below its first segment", state.log_start));
    }
    for entry in &state.chain {
        let copies = match &entry.state {
            SegmentState::Open { ensemble } => ensemble.len(),
            SegmentState::Sealed { end, replicas, .. } => {
                if *end <= entry.base {
                    return Err(format!("{:?} is empty", entry.id));
                }
                replicas.len()
            }
        };
        if copies == 0 {
            return Err(format!("{:?} has no copies", entry.id));
        }
    }
    Ok(())
}

fn state_follows(before: &PartitionState, after: &PartitionState) -> Result<(), String> {
    let falls = |what: &str, before: i64, after: i64| match after < before {
        true => Err(format!("{what} falls from {before} to {after}")),
        false => Ok(()),
    };
    falls("the leader epoch", before.leader_epoch.0.into(), after.leader_epoch.0.into())?;
    falls("the log start", before.log_start, after.log_start)?;
    falls("compacted_to", before.compacted_to, after.compacted_to)?;
    if after.version < before.version {
        return Err(format!("the version falls from {} to {}", before.version, after.version));
    }
    if before.leader != after.leader && before.leader_epoch == after.leader_epoch {
        return Err("another leader in the same epoch".to_owned());
    }
    before.chain.iter().try_for_each(|entry| entry_lasts(entry, after))
}

/// Whether an entry is there afterwards, or went as entries may.
fn entry_lasts(entry: &SegmentEntry, after: &PartitionState) -> Result<(), String> {
    let same = |other: &&SegmentEntry| (other.id, other.generation) == (entry.id, entry.generation);
    let now = after.chain.iter().find(same);
    match (&entry.state, now.map(|now| (&now.state, now.base))) {
        (_, Some((_, base))) if base != entry.base => Err(format!("{:?} begins elsewhere", entry.id)),
        (
            SegmentState::Sealed { end, crc, bytes, .. },
            Some((SegmentState::Sealed { end: e, crc: c, bytes: b, .. }, _)),
        ) if (end, crc, bytes) != (e, c, b) => Err(format!("sealed {:?} has changed", entry.id)),
        (SegmentState::Sealed { .. }, Some((SegmentState::Open { .. }, _))) => {
            Err(format!("sealed {:?} is open", entry.id))
        }
        (SegmentState::Open { ensemble: members }, Some((SegmentState::Open { ensemble }, _)))
            if members != ensemble =>
        {
            Err(format!("the members of {:?} have changed", entry.id))
        }
        (_, Some(_)) => Ok(()),
        // It ended empty, was trimmed, or rewritten.
        (SegmentState::Open { .. }, None) => Ok(()),
        (SegmentState::Sealed { end, .. }, None) => {
            let is_trimmed = *end <= after.log_start;
            let is_rewritten = after.chain.iter().any(|other| {
                other.base <= entry.base
                    && other.end().is_some_and(|other_end| other_end >= *end)
                    && other.generation > entry.generation
            });
            match is_trimmed || is_rewritten {
                true => Ok(()),
                false => Err(format!("sealed {:?} up to {end} is gone", entry.id)),
            }
        }
    }
}

/// What changed, for people.
fn difference(before: &Image, after: &Image) -> String {
    let mut parts = vec![format!("metadata {}", after.version)];
    for broker in after.brokers() {
        let id = broker.registration.broker;
        let former = before.broker(id);
        if former.map(|former| (former.incarnation, former.fenced, former.draining))
            != Some((broker.incarnation, broker.fenced, broker.draining))
        {
            let fenced = if broker.fenced { " fenced" } else { "" };
            let draining = if broker.draining { " draining" } else { "" };
            parts.push(format!("broker {id} life {}{fenced}{draining}", broker.incarnation.0));
        }
    }
    for topic in after.topics() {
        let former = before.topic_by_id(topic.id);
        for (number, state) in topic.partitions.iter().enumerate() {
            let known = former.and_then(|former| former.partitions.get(number));
            if known != Some(state) {
                parts.push(format!("{}-{number}: {}", topic.name, summary(state)));
            }
        }
    }
    parts.join("; ")
}

/// Leader, epoch and the end of the chain.
fn summary(state: &PartitionState) -> String {
    let last = state.last();
    let members: Vec<String> = match &last.state {
        SegmentState::Open { ensemble } => ensemble.iter().map(|member| member.broker.to_string()).collect(),
        SegmentState::Sealed { .. } => Vec::new(),
    };
    let copies = state.chain.iter().rev().nth(1).map_or(String::new(), |entry| match &entry.state {
        SegmentState::Sealed { replicas, .. } => format!(" before it {} x{}", entry.id, replicas.len()),
        SegmentState::Open { .. } => String::new(),
    });
    format!(
        "leader {} epoch {} start {} of {}: {} from {} on [{}]{copies}",
        state.leader,
        state.leader_epoch.0,
        state.log_start,
        state.chain.len(),
        last.id,
        last.base,
        members.join(",")
    )
}

#[cfg(test)]
mod tests {
    use base::chain::{Member, NewSegment, Rewrite, Seal};
    use base::ids::{BrokerId, Generation, Incarnation, LeaderEpoch, SegmentId, Uuid};

    use super::*;

    fn segment(id: i64) -> NewSegment {
        let member = Member { broker: BrokerId(1), storage: Uuid([1; 16]), incarnation: Incarnation(1) };
        NewSegment { id: SegmentId(id.try_into().unwrap()), ensemble: vec![member], ack_quorum: 1 }
    }

    /// Segments of ten records each, the last one open.
    fn chain(segments: i64) -> PartitionState {
        let mut state = PartitionState::create(BrokerId(1), LeaderEpoch(0), vec![BrokerId(1)], 0, segment(1));
        for id in 2..=segments {
            seal(&mut state, id);
        }
        state
    }

    fn seal(state: &mut PartitionState, next: i64) {
        let last = state.last();
        let seal = Seal {
            segment: last.id,
            leader_epoch: state.leader_epoch,
            end: last.base + 10,
            crc: 7,
            bytes: 100,
            holders: vec![Uuid([1; 16])],
            unclean: false,
        };
        state.seal_and_open(&seal, segment(next), 1).unwrap();
    }

    #[test]
    fn edits_follow_and_their_opposites_do_not() {
        let before = chain(3);
        let mut sealed = before.clone();
        seal(&mut sealed, 4);
        let mut trimmed = before.clone();
        trimmed.trim(10).unwrap();
        let mut elected = before.clone();
        elected.elect(BrokerId(2));
        let mut rewritten = before.clone();
        let mut new = before.chain[0].clone();
        new.generation = Generation(1);
        if let SegmentState::Sealed { crc, .. } = &mut new.state {
            *crc = 8;
        }
        let old = vec![(before.chain[0].id, before.chain[0].generation)];
        let rewrite = Rewrite { old, new, compacted_to: 10, leader_epoch: None };
        rewritten.replace(rewrite, 1).unwrap();
        for after in [&sealed, &trimmed, &elected, &rewritten] {
            assert_eq!(is_chain(after), Ok(()));
            assert_eq!(state_follows(&before, after), Ok(()));
            assert!(state_follows(after, &before).is_err());
        }
    }

    #[test]
    fn what_cannot_be_is_told() {
        let good = chain(3);
        let broken = |change: &dyn Fn(&mut PartitionState)| {
            let mut state = good.clone();
            change(&mut state);
            is_chain(&state).is_err() || state_follows(&good, &state).is_err()
        };
        assert!(!broken(&|_| ()));
        assert!(broken(&|state| drop(state.chain.remove(1))));
        assert!(broken(&|state| drop(state.chain.remove(0))));
        assert!(broken(&|state| drop(state.chain.pop())));
        assert!(broken(&|state| state.leader = BrokerId(2)));
        assert!(broken(&|state| state.chain[2].epochs[0].0 = LeaderEpoch(9)));
        assert!(broken(&|state| match &mut state.chain[0].state {
            SegmentState::Sealed { crc, .. } => *crc = 1,
            SegmentState::Open { .. } => {}
        }));
    }
}
