//! Which brokers hold copies, lead, and take over: pure choices over plain values.
//!
//! The controller asks, and puts what it is told into the metadata store; nothing here knows a clock or a network. Equal
//! arguments give equal answers, so a choice can be made again instead of being remembered.
//!
//! What is aimed at, in this order: as many copies as are wanted, in as many racks as there are (`broker.rack`), on the
//! brokers where they are wanted, and as many on one broker as on any other.

use std::collections::BTreeMap;

use base::chain::{Member, PartitionState, SegmentState};
use base::ids::{BrokerId, Generation, Incarnation, SegmentId, StorageId, TopicPartition};

/// A broker that lives, is not fenced, and has a storage that takes segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The broker.
    pub broker: BrokerId,
    /// Its present life.
    pub incarnation: Incarnation,
    /// The log directory that its next segment goes to.
    pub storage: StorageId,
    /// `broker.rack`; brokers without one are in one rack together.
    pub rack: Option<String>,
    /// Copies of segments it has, or anything else that says how full it is, the same for all.
    pub copies: u64,
    /// It takes what no other can: its log directories are nearly full, or it leaves the cluster.
    pub reluctant: bool,
}

/// What spreads the partitions over brokers that would do equally well: a number that is one partition's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw(u64);

impl Draw {
    /// Of a partition; the same everywhere and for ever.
    pub fn of(id: &TopicPartition) -> Draw {
        let halves = id.topic_id.0.split_at(8);
        let half = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Draw(mix(half(halves.0) ^ mix(half(halves.1)) ^ u64::from(id.partition.0.unsigned_abs())))
    }

    /// Whose turn it is: the broker with the least goes first (rendezvous hashing, so that one more or less changes the
    /// choice of few partitions).
    fn turn(self, broker: BrokerId) -> u64 {
        mix(self.0 ^ mix(u64::from(broker.0.unsigned_abs())))
    }
}

/// The finaliser of SplitMix64: every bit of the argument has a say in every bit of the result.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl Candidate {
    fn member(&self) -> Member {
        Member { broker: self.broker, storage: self.storage, incarnation: self.incarnation }
    }
}

/// Brokers for the partitions of a new topic, or for more of them: the first of each is its preferred leader. `first` is
/// the number of the first of these partitions. Fewer than `replication_factor` where there are fewer candidates.
///
/// Of the partitions placed in one call each broker leads as many as any other, give or take one, and holds as many as
/// racks of different sizes allow.
pub fn place(
    candidates: &[Candidate],
    first: usize,
    partitions: usize,
    replication_factor: usize,
) -> Vec<Vec<BrokerId>> {
    if candidates.is_empty() {
        return vec![Vec::new(); partitions];
    }
    let mut leads = vec![0u64; candidates.len()];
    let mut holds = vec![0u64; candidates.len()];
    let place_one = |partition: usize| {
        let turn =
            |index: usize| (index + candidates.len() - partition % candidates.len()) % candidates.len();
        let mut chosen: Vec<usize> = Vec::new();
        while chosen.len() < replication_factor.min(candidates.len()) {
            let free = (0..candidates.len()).filter(|index| !chosen.contains(index));
            let cost = |index: &usize| {
                let neighbours = neighbours(candidates, &chosen, *index);
                let leads = if chosen.is_empty() { leads[*index] } else { 0 };
                (neighbours, leads, holds[*index], candidates[*index].copies, turn(*index))
            };
            let Some(next) = free.min_by_key(cost) else { break };
            leads[next] += u64::from(chosen.is_empty());
            holds[next] += 1;
            chosen.push(next);
        }
        chosen
    };
    let mut placed: Vec<Vec<usize>> = (first..first + partitions).map(place_one).collect();
    while even_out(candidates, &mut placed, &mut holds) {}
    let brokers = |chosen: Vec<usize>| chosen.into_iter().map(|index| candidates[index].broker).collect();
    placed.into_iter().map(brokers).collect()
}

/// Moves one copy from who holds most to who holds least, if they differ by more than one and some partition's racks
/// allow it. Leaders stay.
fn even_out(candidates: &[Candidate], placed: &mut [Vec<usize>], holds: &mut [u64]) -> bool {
    let least = (0..holds.len()).min_by_key(|index| holds[*index]).unwrap_or(0);
    let most = (0..holds.len()).max_by_key(|index| holds[*index]).unwrap_or(0);
    if holds[most] - holds[least] <= 1 {
        return false;
    }
    for chosen in placed {
        let Some(at) = chosen.iter().skip(1).position(|index| *index == most) else { continue };
        let others: Vec<usize> = chosen.iter().copied().filter(|index| *index != most).collect();
        let is_worse = neighbours(candidates, &others, least) > neighbours(candidates, &others, most);
        if others.contains(&least) || is_worse {
            continue;
        }
        chosen[at + 1] = least;
        holds[most] -= 1;
        holds[least] += 1;
        return true;
    }
    false
}

/// Members of the next segment of a partition: the leader, then those of its placement that are candidates, then others
/// until there are as many as wanted. Brokers in `avoided` are taken last, before them those that are reluctant. Without
/// the leader among the candidates there is no such segment. A leader where no copy is wanted comes on top of the others:
/// it is to leave, and needs somebody who has all it has.
pub fn next_ensemble(
    draw: Draw,
    state: &PartitionState,
    candidates: &[Candidate],
    avoided: &[BrokerId],
) -> Option<Vec<Member>> {
    let leader = candidates.iter().position(|candidate| candidate.broker == state.leader)?;
    let mut chosen = vec![leader];
    let is_home = |broker: &BrokerId| state.placement.contains(broker) && !avoided.contains(broker);
    let goes = !state.placement.contains(&state.leader);
    loop {
        let free = (0..candidates.len()).filter(|index| !chosen.contains(index));
        let cost = |index: &usize| {
            let Candidate { broker, reluctant, copies, .. } = candidates[*index];
            let wanted = state.placement.iter().position(|home| *home == broker).unwrap_or(usize::MAX);
            let neighbours = neighbours(candidates, &chosen, *index);
            (avoided.contains(&broker), reluctant, wanted, neighbours, copies, draw.turn(broker))
        };
        let Some(next) = free.min_by_key(cost) else { break };
        let is_instead = goes && is_home(&candidates[next].broker);
        if chosen.len() >= state.placement.len() + usize::from(is_instead) {
            break;
        }
        chosen.push(next);
    }
    Some(chosen.into_iter().map(|index| candidates[index].member()).collect())
}

/// Who should lead a partition whose leader is gone, is drained, or is not the preferred one. `None` without candidates.
///
/// Anybody is safe, because a new leader recovers first; members of the open segment are fast, since they need no copy
/// (replication.md 2.8). Of these the preferred one leads, then those that did not restart since.
pub fn next_leader(
    state: &PartitionState,
    candidates: &[Candidate],
    avoided: &[BrokerId],
) -> Option<BrokerId> {
    let members: &[Member] = match &state.last().state {
        SegmentState::Open { ensemble } => ensemble,
        SegmentState::Sealed { .. } => &[],
    };
    let cost = |candidate: &&Candidate| {
        let membership = members.iter().find(|member| member.broker == candidate.broker);
        let standing = match membership {
            Some(member) if member.incarnation == candidate.incarnation => 0,
            Some(_) => 1,
            None => 2,
        };
        let wanted = state.placement.iter().position(|broker| *broker == candidate.broker);
        let avoided = avoided.contains(&candidate.broker);
        (avoided, standing, wanted.unwrap_or(usize::MAX), candidate.copies, candidate.broker)
    };
    candidates.iter().min_by_key(cost).map(|candidate| candidate.broker)
}

/// What brings the copies of a sealed segment where they are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// A storage should fetch the segment.
    Copy {
        /// Which.
        segment: (SegmentId, Generation),
        /// Where to.
        to: Member,
        /// Storages that have it, of brokers that live.
        from: Vec<StorageId>,
    },
    /// A storage may forget it: there are enough elsewhere.
    Drop {
        /// Which.
        segment: (SegmentId, Generation),
        /// Where.
        storage: StorageId,
    },
    /// No broker that lives has it.
    Missing {
        /// Which.
        segment: (SegmentId, Generation),
    },
}

/// A storage that may have copies, as the metadata tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// Whose it is.
    pub broker: BrokerId,
    /// What its copies are worth.
    pub standing: Standing,
}

/// What copies on a storage are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They can be read, and count.
    Here,
    /// They cannot be read now, and are expected back soon: they count.
    Away,
    /// They can be read and do not count, because their broker leaves the cluster.
    Leaving,
}

/// What the sealed segments of a partition need. `homes` tells of every storage whose copies are worth anything; of those
/// who take copies, reluctant ones do only where they are of the placement. Nothing is dropped of a segment as long as
/// somebody must copy it.
///
/// Where keepers have copies in the place of brokers of the placement, those need none, but for the preferred leader:
/// without all segments it cannot lead.
pub fn repairs(
    draw: Draw,
    state: &PartitionState,
    candidates: &[Candidate],
    homes: &BTreeMap<StorageId, Home>,
) -> Vec<Repair> {
    let mut repairs = Vec::new();
    for entry in &state.chain {
        let SegmentState::Sealed { replicas, .. } = &entry.state else { continue };
        let segment = (entry.id, entry.generation);
        let can_be_read = |id: &StorageId| homes.get(id).is_some_and(|home| home.standing != Standing::Away);
        let from: Vec<StorageId> = replicas.iter().copied().filter(can_be_read).collect();
        if from.is_empty() {
            repairs.push(Repair::Missing { segment });
            continue;
        }
        let targets = Targets::new(state, candidates, homes, replicas).choose(draw);
        if targets.is_empty() {
            let superfluous = superfluous(state, &from, homes);
            repairs.extend(superfluous.into_iter().map(|storage| Repair::Drop { segment, storage }));
        }
        let copy = |to| Repair::Copy { segment, to, from: from.clone() };
        repairs.extend(targets.into_iter().map(copy));
    }
    repairs
}

/// Who should fetch a segment.
struct Targets<'a> {
    state: &'a PartitionState,
    candidates: &'a [Candidate],
    /// Brokers that have it, or will without our doing.
    holders: Vec<BrokerId>,
    /// Brokers that have it and leave.
    leaving: Vec<BrokerId>,
    chosen: Vec<usize>,
}

impl<'a> Targets<'a> {
    fn new(
        state: &'a PartitionState,
        candidates: &'a [Candidate],
        homes: &BTreeMap<StorageId, Home>,
        replicas: &[StorageId],
    ) -> Targets<'a> {
        let of = |leaves: bool| {
            let homes = replicas.iter().filter_map(|storage| homes.get(storage));
            let homes = homes.filter(move |home| (home.standing == Standing::Leaving) == leaves);
            homes.map(|home| home.broker).collect::<Vec<_>>()
        };
        let (mut holders, leaving) = (of(false), of(true));
        // One of the placement that is down fetches what it lacks when it is back.
        let is_away = |broker: &BrokerId| {
            homes.values().any(|home| home.broker == *broker && home.standing == Standing::Away)
        };
        let lacks = |broker: &BrokerId| !holders.contains(broker) && is_away(broker);
        let absent: Vec<BrokerId> = state.placement.iter().copied().filter(lacks).collect();
        holders.extend(absent);
        holders.sort_unstable();
        holders.dedup();
        Targets { state, candidates, holders, leaving, chosen: Vec::new() }
    }

    /// Whoever of the placement has none, and others while that makes too few.
    fn choose(mut self, draw: Draw) -> Vec<Member> {
        let Targets { state, candidates, .. } = self;
        let wanted = state.placement.len();
        for (rank, broker) in state.placement.iter().enumerate() {
            let is_needed = rank == 0 || state.keepers.is_empty() || self.copies() < wanted;
            let has = self.holders.contains(broker);
            if let Some(index) = self.position(*broker).filter(|_| is_needed && !has) {
                self.chosen.push(index);
            }
        }
        while self.copies() < wanted {
            let near: Vec<usize> = self.holders.iter().filter_map(|broker| self.position(*broker)).collect();
            let near = [&near[..], &self.chosen].concat();
            let is_free = |index: &usize| {
                let Candidate { broker, reluctant, .. } = candidates[*index];
                !reluctant
                    && !self.chosen.contains(index)
                    && !self.holders.contains(&broker)
                    && !self.leaving.contains(&broker)
            };
            let cost = |index: &usize| {
                let Candidate { broker, copies, .. } = candidates[*index];
                (neighbours(candidates, &near, *index), copies, draw.turn(broker))
            };
            let Some(next) = (0..candidates.len()).filter(is_free).min_by_key(cost) else { break };
            self.chosen.push(next);
        }
        self.chosen.into_iter().map(|index| candidates[index].member()).collect()
    }

    fn copies(&self) -> usize {
        self.holders.len() + self.chosen.len()
    }

    fn position(&self, broker: BrokerId) -> Option<usize> {
        self.candidates.iter().position(|candidate| candidate.broker == broker)
    }
}

/// Copies that can be read beyond those that are wanted: first those of brokers that leave, then those of brokers that are
/// neither of the placement nor keepers.
fn superfluous(
    state: &PartitionState,
    copies: &[StorageId],
    homes: &BTreeMap<StorageId, Home>,
) -> Vec<StorageId> {
    let rank = |storage: &StorageId| {
        let Home { broker, standing } = homes[storage];
        let wanted = state.placement.iter().position(|home| *home == broker);
        let keeps = state.keepers.contains(&broker);
        (standing == Standing::Leaving, wanted.unwrap_or(usize::MAX), !keeps, *storage)
    };
    let mut copies = copies.to_vec();
    copies.sort_by_key(rank);
    copies.split_off(state.placement.len().min(copies.len()))
}

/// How many of the chosen are in the candidate's rack.
fn neighbours(candidates: &[Candidate], chosen: &[usize], index: usize) -> usize {
    chosen.iter().filter(|other| candidates[**other].rack == candidates[index].rack).count()
}

#[cfg(test)]
mod tests {
    use base::chain::{NewSegment, Seal};
    use base::ids::{LeaderEpoch, Uuid};

    use super::*;

    /// With it brokers take turns in the order of their ids, as far as the tests see.
    const DRAW: Draw = Draw(0);

    fn storage(broker: i32) -> StorageId {
        Uuid([broker as u8; 16])
    }

    fn candidate(broker: i32, rack: Option<&str>) -> Candidate {
        Candidate {
            broker: BrokerId(broker),
            incarnation: Incarnation(1),
            storage: storage(broker),
            rack: rack.map(str::to_owned),
            copies: 0,
            reluctant: false,
        }
    }

    fn plain(brokers: i32) -> Vec<Candidate> {
        (1..=brokers).map(|broker| candidate(broker, None)).collect()
    }

    fn ids(brokers: &[i32]) -> Vec<BrokerId> {
        brokers.iter().copied().map(BrokerId).collect()
    }

    fn brokers(members: &[Member]) -> Vec<i32> {
        members.iter().map(|member| member.broker.0).collect()
    }

    /// Led by broker 1, placed on 1, 2, 3; sealed up to 10 on these, and open on them.
    fn partition() -> PartitionState {
        let ensemble: Vec<Member> = plain(3).iter().map(Candidate::member).collect();
        let open = |id| NewSegment { id: SegmentId(id), ensemble: ensemble.clone(), ack_quorum: 3 };
        let mut state = PartitionState::create(BrokerId(1), LeaderEpoch(0), ids(&[1, 2, 3]), 0, open(1));
        let seal = Seal {
            segment: SegmentId(1),
            leader_epoch: LeaderEpoch(0),
            end: 10,
            crc: 1,
            bytes: 1,
            holders: (1..=3).map(storage).collect(),
            unclean: false,
        };
        state.seal_and_open(&seal, open(2), 2).unwrap();
        state
    }

    #[test]
    fn leaders_and_copies_are_spread_within_one() {
        for brokers in 1..=7 {
            for factor in 1..=4 {
                for partitions in [1, 2, 5, 12, 100] {
                    let placed = place(&plain(brokers), 0, partitions, factor);
                    let (mut leads, mut holds) = (vec![0; brokers as usize], vec![0; brokers as usize]);
                    for placement in &placed {
                        assert_eq!(placement.len(), factor.min(brokers as usize));
                        leads[placement[0].0 as usize - 1] += 1;
                        for (index, broker) in placement.iter().enumerate() {
                            assert!(!placement[..index].contains(broker), "{placement:?}");
                            holds[broker.0 as usize - 1] += 1;
                        }
                    }
                    for spread in [&leads, &holds] {
                        let (least, most) = (spread.iter().min().unwrap(), spread.iter().max().unwrap());
                        assert!(most - least <= 1, "{brokers} {factor} {partitions}: {leads:?} {holds:?}");
                    }
                }
            }
        }
        assert_eq!(place(&[], 0, 2, 3), [vec![], vec![]]);
    }

    #[test]
    fn copies_are_in_as_many_racks_as_there_are() {
        let racks = [("a", 3), ("b", 1), ("c", 2)];
        let of = |(rack, size): &(&'static str, i32)| (0..*size).map(|_| *rack).collect::<Vec<_>>();
        let racks: Vec<&str> = racks.iter().flat_map(of).collect();
        let candidates: Vec<Candidate> =
            racks.iter().enumerate().map(|(index, rack)| candidate(index as i32, Some(rack))).collect();
        for factor in 1..=4 {
            for placement in place(&candidates, 0, 30, factor) {
                let mut seen: Vec<&str> = placement.iter().map(|broker| racks[broker.0 as usize]).collect();
                seen.sort_unstable();
                seen.dedup();
                assert_eq!(seen.len(), factor.min(3), "{placement:?}");
            }
        }
    }

    #[test]
    fn single_partitions_of_many_topics_do_not_all_go_to_the_first_broker() {
        let mut candidates = plain(3);
        let mut leads = [0; 3];
        for _ in 0..30 {
            let placed = place(&candidates, 0, 1, 1);
            leads[placed[0][0].0 as usize - 1] += 1;
            candidates[placed[0][0].0 as usize - 1].copies += 1;
        }
        assert_eq!(leads, [10, 10, 10]);
    }

    #[test]
    fn an_ensemble_is_the_leader_the_placement_and_substitutes() {
        let state = partition();
        let ensemble = |candidates: &[Candidate], avoided: &[i32]| {
            next_ensemble(DRAW, &state, candidates, &ids(avoided)).map(|members| brokers(&members))
        };
        assert_eq!(ensemble(&plain(5), &[]), Some(vec![1, 2, 3]));
        assert_eq!(ensemble(&plain(5), &[2]), Some(vec![1, 3, 4]));
        assert_eq!(ensemble(&plain(2), &[]), Some(vec![1, 2]), "fewer, where there are no more");
        assert_eq!(ensemble(&plain(3), &[2]), Some(vec![1, 3, 2]), "a slow one is better than none");
        assert_eq!(ensemble(&plain(5)[1..], &[]), None);
        let mut racks: Vec<Candidate> =
            [(1, "a"), (4, "a"), (5, "b")].map(|(id, rack)| candidate(id, Some(rack))).to_vec();
        assert_eq!(ensemble(&racks, &[]), Some(vec![1, 5, 4]));
        racks[2].rack = Some("a".to_owned());
        racks[2].copies = 1;
        assert_eq!(ensemble(&racks, &[]), Some(vec![1, 4, 5]), "the emptier one of a rack");
    }

    #[test]
    fn a_leader_that_is_to_leave_comes_on_top() {
        let ensemble = |placement: &[i32], brokers_alive: i32, avoided: &[i32]| {
            let mut state = partition();
            state.set_placement(ids(placement), Vec::new());
            next_ensemble(DRAW, &state, &plain(brokers_alive), &ids(avoided)).map(|members| brokers(&members))
        };
        assert_eq!(ensemble(&[4, 5, 6], 6, &[]), Some(vec![1, 4, 5, 6]));
        assert_eq!(ensemble(&[4, 5, 6], 5, &[]), Some(vec![1, 4, 5]), "no more than there are");
        assert_eq!(ensemble(&[4, 5, 6], 6, &[5]), Some(vec![1, 4, 6]));
        assert_eq!(ensemble(&[4], 6, &[]), Some(vec![1, 4]));
        assert_eq!(ensemble(&[4], 3, &[]), Some(vec![1]));
        assert_eq!(ensemble(&[1], 3, &[]), Some(vec![1]));
    }

    #[test]
    fn the_next_leader_needs_as_little_as_possible() {
        let state = partition();
        let leader = |candidates: &[Candidate], avoided: &[i32]| {
            next_leader(&state, candidates, &ids(avoided)).map(|broker| broker.0)
        };
        assert_eq!(leader(&plain(5), &[]), Some(1), "the preferred one");
        assert_eq!(leader(&plain(5), &[1]), Some(2));
        assert_eq!(leader(&plain(5)[1..], &[]), Some(2));
        let mut restarted = plain(5);
        restarted[1].incarnation = Incarnation(9);
        assert_eq!(leader(&restarted[1..], &[]), Some(3), "who restarted is in no ensemble any more");
        assert_eq!(leader(&restarted[1..2], &[]), Some(2));
        assert_eq!(leader(&plain(5)[3..], &[]), Some(4), "anybody is safe");
        assert_eq!(leader(&plain(1), &[1]), Some(1), "a drained one is better than none");
        assert_eq!(leader(&[], &[]), None);
    }

    fn homes(brokers: &[(i32, Standing)]) -> BTreeMap<StorageId, Home> {
        let home = |(id, standing): &(i32, Standing)| {
            (storage(*id), Home { broker: BrokerId(*id), standing: *standing })
        };
        brokers.iter().map(home).collect()
    }

    fn here(brokers: &[i32]) -> BTreeMap<StorageId, Home> {
        homes(&brokers.iter().map(|broker| (*broker, Standing::Here)).collect::<Vec<_>>())
    }

    const SEGMENT: (SegmentId, Generation) = (SegmentId(1), Generation(0));

    fn copy(to: i32, from: &[i32]) -> Repair {
        let from = from.iter().copied().map(storage).collect();
        Repair::Copy { segment: SEGMENT, to: candidate(to, None).member(), from }
    }

    fn drop_at(broker: i32) -> Repair {
        Repair::Drop { segment: SEGMENT, storage: storage(broker) }
    }

    fn without(candidates: Vec<Candidate>, broker: i32) -> Vec<Candidate> {
        candidates.into_iter().filter(|candidate| candidate.broker.0 != broker).collect()
    }

    #[test]
    fn copies_move_to_where_they_are_wanted() {
        let mut state = partition();
        let repairs = |state: &PartitionState, candidates: &[Candidate], homes| {
            super::repairs(DRAW, state, candidates, &homes)
        };
        assert_eq!(repairs(&state, &plain(4), here(&[1, 2, 3, 4])), []);
        // One is gone: another takes its place.
        assert_eq!(repairs(&state, &without(plain(4), 3), here(&[1, 2, 4])), [copy(4, &[1, 2])]);
        // It is wanted elsewhere: copied first, dropped when that is done.
        state.set_placement(ids(&[1, 2, 4]), Vec::new());
        assert_eq!(repairs(&state, &plain(4), here(&[1, 2, 3, 4])), [copy(4, &[1, 2, 3])]);
        state.add_replica(SEGMENT, storage(4), 1).unwrap();
        assert_eq!(repairs(&state, &plain(4), here(&[1, 2, 3, 4])), [drop_at(3)]);
        state.drop_replica(SEGMENT, storage(3), 2).unwrap();
        assert_eq!(repairs(&state, &plain(4), here(&[1, 2, 3, 4])), []);
        assert_eq!(repairs(&state, &plain(3), here(&[3])), [Repair::Missing { segment: SEGMENT }]);
    }

    #[test]
    fn who_is_away_for_a_while_is_waited_for() {
        let mut state = partition();
        let alive = without(plain(5), 3);
        let away = [(1, Standing::Here), (2, Standing::Here), (3, Standing::Away), (4, Standing::Here)];
        assert_eq!(repairs(DRAW, &state, &alive, &homes(&away)), []);
        // It was down already when the segment was sealed: it fetches when it is back.
        state.drop_replica(SEGMENT, storage(3), 2).unwrap();
        assert_eq!(repairs(DRAW, &state, &alive, &homes(&away)), []);
        // It is gone for good, as far as anybody knows; a copy elsewhere is dropped once it is back, and not before.
        assert_eq!(repairs(DRAW, &state, &without(alive.clone(), 5), &here(&[1, 2, 4])), [copy(4, &[1, 2])]);
        state.add_replica(SEGMENT, storage(4), 1).unwrap();
        assert_eq!(repairs(DRAW, &state, &alive, &here(&[1, 2, 4])), []);
        assert_eq!(repairs(DRAW, &state, &plain(5), &here(&[1, 2, 3, 4])), [copy(3, &[1, 2, 4])]);
        state.add_replica(SEGMENT, storage(3), 1).unwrap();
        assert_eq!(repairs(DRAW, &state, &plain(5), &here(&[1, 2, 3, 4])), [drop_at(4)]);
    }

    #[test]
    fn substitutes_are_in_other_racks_and_not_always_the_same() {
        let state = partition();
        let racks = [(1, "a"), (2, "b"), (4, "a"), (5, "b"), (6, "c")];
        let alive: Vec<Candidate> = racks.iter().map(|(id, rack)| candidate(*id, Some(rack))).collect();
        let all = here(&[1, 2, 4, 5, 6]);
        for draw in 0..20 {
            let [Repair::Copy { to, .. }] = repairs(Draw(draw), &state, &alive, &all)[..] else { panic!() };
            assert_eq!(to.broker, BrokerId(6), "the only one in a rack that has none");
        }
        let alive = without(plain(12), 3);
        let all = here(&alive.iter().map(|candidate| candidate.broker.0).collect::<Vec<_>>());
        let mut taken = BTreeMap::new();
        for draw in 0..900 {
            let [Repair::Copy { to, .. }] = repairs(Draw(draw), &state, &alive, &all)[..] else { panic!() };
            let members = next_ensemble(Draw(draw), &state, &alive, &[]).unwrap();
            assert_eq!(members[2], to, "the open segment and the sealed ones have one substitute");
            *taken.entry(to.broker).or_insert(0) += 1;
        }
        assert!(taken.len() == 9 && taken.values().all(|count| (60..140).contains(count)), "{taken:?}");
    }

    #[test]
    fn who_is_nearly_full_takes_what_nobody_else_can() {
        let state = partition();
        let mut candidates = plain(5);
        candidates[1].reluctant = true;
        candidates[3].reluctant = true;
        let members = |candidates: &[Candidate]| {
            let mut members = brokers(&next_ensemble(DRAW, &state, candidates, &[]).unwrap());
            members.sort_unstable();
            members
        };
        assert_eq!(members(&candidates), [1, 3, 5]);
        assert_eq!(members(&candidates[..4]), [1, 2, 3], "the one of the placement rather than another");
        candidates[0].reluctant = true;
        assert_eq!(members(&candidates), [1, 3, 5], "who leads is a member");
        let alive = without(candidates, 3);
        assert_eq!(repairs(DRAW, &state, &alive, &here(&[1, 2, 4, 5])), [copy(5, &[1, 2])]);
        assert_eq!(repairs(DRAW, &state, &without(alive, 5), &here(&[1, 2, 4])), []);
    }

    #[test]
    fn copies_of_who_leaves_are_made_elsewhere_before_they_go() {
        let mut state = partition();
        let leaves = |others: &[i32]| {
            let mut homes = here(others);
            homes.insert(storage(3), Home { broker: BrokerId(3), standing: Standing::Leaving });
            homes
        };
        let staying = without(plain(4), 3);
        assert_eq!(repairs(DRAW, &state, &staying, &leaves(&[1, 2, 4])), [copy(4, &[1, 2, 3])]);
        assert_eq!(repairs(DRAW, &state, &without(staying.clone(), 4), &leaves(&[1, 2])), [], "nobody can");
        state.set_placement(ids(&[1, 2, 4]), Vec::new());
        assert_eq!(repairs(DRAW, &state, &staying, &leaves(&[1, 2, 4])), [copy(4, &[1, 2, 3])]);
        state.add_replica(SEGMENT, storage(4), 1).unwrap();
        assert_eq!(repairs(DRAW, &state, &staying, &leaves(&[1, 2, 4])), [drop_at(3)]);
    }

    #[test]
    fn keepers_keep_what_they_have_and_only_the_preferred_leader_copies() {
        let mut state = partition();
        state.set_placement(ids(&[1, 2, 4]), ids(&[3]));
        let all = here(&[1, 2, 3, 4]);
        assert_eq!(repairs(DRAW, &state, &plain(4), &all), [], "a new member takes what comes");
        assert_eq!(repairs(DRAW, &state, &without(plain(4), 3), &here(&[1, 2, 4])), [copy(4, &[1, 2])]);
        state.set_placement(ids(&[4, 1, 2]), ids(&[3]));
        assert_eq!(repairs(DRAW, &state, &plain(4), &all), [copy(4, &[1, 2, 3])]);
        state.add_replica(SEGMENT, storage(4), 1).unwrap();
        assert_eq!(repairs(DRAW, &state, &plain(4), &all), [drop_at(3)]);
    }
}
