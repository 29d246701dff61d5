//! Where copies of partitions should be: the plan that empties brokers that leave, gives new brokers their share, and
//! evens out everything on demand. Pure: values in, changes out.
//!
//! ```text
//!  vacate   copies on brokers that leave go to those that have least
//!  fill     brokers that have nothing get their share: followers' copies, and the first place in some of them
//!  even     copies are within one of each other on all brokers, as far as racks allow, and then preferred leaders, as far
//!           as there are other copies that could be preferred
//! ```
//!
//! A *copy* here is a place of a partition's placement, not bytes: what follows from a change is others' work. Brokers
//! that are neither hosts nor leaving (they are down) keep what they have, and are not counted. No change puts two copies
//! of a partition on one broker, or more of them in one rack than before.

use std::collections::{BTreeSet, HashMap, VecDeque};

use base::ids::BrokerId;

/// A broker that takes copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The broker.
    pub broker: BrokerId,
    /// `broker.rack`; brokers without one are in one rack together.
    pub rack: Option<String>,
}

/// A partition. Those of one topic stand side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The same for partitions of one topic.
    pub topic: usize,
    /// Its placement: the preferred leader first.
    pub brokers: Vec<BrokerId>,
    /// Who leads it.
    pub leader: BrokerId,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Nothing is left with brokers that leave.
    Vacate,
    /// That, and brokers that have nothing get their share.
    Fill,
    /// That, and all have as much as any other, give or take one.
    Even,
}

/// A partition whose placement is to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number among the spots.
    pub spot: usize,
    /// Its placement from now on.
    pub brokers: Vec<BrokerId>,
}

/// What each broker has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Copies.
    pub copies: usize,
    /// Of these, those in the first place.
    pub preferred: usize,
}

/// What each of the hosts has, in their order.
pub fn loads(hosts: &[Host], placements: &[Vec<BrokerId>]) -> Vec<Load> {
    let index: HashMap<BrokerId, usize> =
        hosts.iter().enumerate().map(|(index, host)| (host.broker, index)).collect();
    let mut loads = vec![Load::default(); hosts.len()];
    for brokers in placements {
        for (rank, broker) in brokers.iter().enumerate() {
            if let Some(index) = index.get(broker) {
                loads[*index].copies += 1;
                loads[*index].preferred += usize::from(rank == 0);
            }
        }
    }
    loads
}

/// The changes that reach `aim`, in the order of the partitions. Equal arguments give an equal plan, and a plan that was
/// carried out gives no other one.
pub fn plan(hosts: &[Host], leaving: &BTreeSet<BrokerId>, spots: &[Spot], aim: Aim) -> Vec<Change> {
    let mut planner = Planner::new(hosts, spots);
    let empty: Vec<usize> =
        (0..planner.hosts.len()).filter(|index| planner.loads[*index].copies == 0).collect();
    planner.vacate(leaving);
    match aim {
        Aim::Vacate => {}
        Aim::Fill => empty.into_iter().for_each(|host| planner.fill(host)),
        Aim::Even => {
            planner.even_copies();
            planner.even_preferred();
        }
    }
    let changed = planner.placements.into_iter().zip(spots).enumerate();
    let changed = changed.filter(|(_, (after, before))| *after != before.brokers);
    changed.map(|(spot, (brokers, _))| Change { spot, brokers }).collect()
}

/// A move from one host to another that is looked for, and whether the leader itself may go.
type Search = (usize, usize, bool);

struct Planner<'a> {
    hosts: &'a [Host],
    index: HashMap<BrokerId, usize>,
    spots: &'a [Spot],
    placements: Vec<Vec<BrokerId>>,
    loads: Vec<Load>,
    /// For each host the spots that it had a copy of at some time, those of different topics in turn.
    of_host: Vec<Vec<usize>>,
    /// How far those were searched in vain: what did not fit once does not fit later.
    searched: HashMap<Search, usize>,
}

impl<'a> Planner<'a> {
    fn new(hosts: &'a [Host], spots: &'a [Spot]) -> Planner<'a> {
        let placements: Vec<Vec<BrokerId>> = spots.iter().map(|spot| spot.brokers.clone()).collect();
        let index: HashMap<BrokerId, usize> =
            hosts.iter().enumerate().map(|(index, host)| (host.broker, index)).collect();
        let mut of_host = vec![Vec::new(); hosts.len()];
        let mut met: HashMap<(usize, usize), usize> = HashMap::new();
        for (number, spot) in spots.iter().enumerate() {
            for host in spot.brokers.iter().filter_map(|broker| index.get(broker)) {
                let turn = met.entry((*host, spot.topic)).or_default();
                of_host[*host].push((*turn, number));
                *turn += 1;
            }
        }
        let in_turn = |mut spots: Vec<(usize, usize)>| {
            spots.sort_unstable();
            spots.into_iter().map(|(_, spot)| spot).collect()
        };
        let loads = loads(hosts, &placements);
        let of_host = of_host.into_iter().map(in_turn).collect();
        Planner { hosts, index, spots, placements, loads, of_host, searched: HashMap::new() }
    }

    fn vacate(&mut self, leaving: &BTreeSet<BrokerId>) {
        if leaving.is_empty() {
            return;
        }
        for spot in 0..self.spots.len() {
            for rank in 0..self.placements[spot].len() {
                if leaving.contains(&self.placements[spot][rank])
                    && let Some(to) = self.least_loaded(spot, rank)
                {
                    self.put(spot, rank, to);
                    if rank == 0 {
                        self.prefer_least(spot);
                    }
                }
            }
        }
    }

    /// The host that should take a copy from who has it, if one can.
    fn least_loaded(&self, spot: usize, rank: usize) -> Option<usize> {
        let free =
            (0..self.hosts.len()).filter(|host| !self.placements[spot].contains(&self.hosts[*host].broker));
        let cost = |host: &usize| {
            // Of those that have as much the next in turn, so that they do not all begin with the same.
            let turn = (host + self.hosts.len() - spot % self.hosts.len()) % self.hosts.len();
            (self.neighbours(spot, rank, *host), self.loads[*host].copies, turn)
        };
        free.min_by_key(cost)
    }

    /// Puts the broker that is preferred least often first.
    fn prefer_least(&mut self, spot: usize) {
        let index = |broker: &BrokerId| self.index.get(broker).copied();
        let load = |host: usize| {
            self.loads[host].preferred - usize::from(index(&self.placements[spot][0]) == Some(host))
        };
        let ranks = 0..self.placements[spot].len();
        let ranks = ranks.filter_map(|rank| Some((load(index(&self.placements[spot][rank])?), rank)));
        if let Some((_, rank)) = ranks.min() {
            self.prefer(spot, rank);
        }
    }

    /// Gives a host that has nothing its share.
    fn fill(&mut self, to: usize) {
        // Who has the only copy leads, and leads on.
        let spare = |brokers: &&Vec<BrokerId>| brokers.len() > 1;
        let placed = self.placements.iter().filter(spare);
        let copies: usize = placed.flatten().filter(|broker| self.index.contains_key(broker)).count();
        let share = copies / self.hosts.len();
        while self.loads[to].copies < share {
            if !self.take_copy(to, false) {
                break;
            }
        }
        let preferred: usize = self.loads.iter().map(|load| load.preferred).sum();
        let share = (preferred / self.hosts.len()).min(self.loads[to].copies);
        for spot in self.of_host[to].clone() {
            if self.loads[to].preferred >= share {
                break;
            }
            let brokers = &self.placements[spot];
            let giver = self.index.get(&brokers[0]).filter(|giver| self.loads[**giver].preferred > share);
            let rank = brokers.iter().position(|broker| *broker == self.hosts[to].broker);
            if let (Some(_), Some(rank)) = (giver, rank) {
                self.prefer(spot, rank);
            }
        }
    }

    fn even_copies(&mut self) {
        loop {
            let mut hosts: Vec<usize> = (0..self.hosts.len()).collect();
            hosts.sort_by_key(|host| self.loads[*host].copies);
            let moved = hosts.iter().any(|to| self.take_copy(*to, false))
                || hosts.iter().any(|to| self.take_copy(*to, true));
            if !moved {
                return;
            }
        }
    }

    /// Moves a copy to a host from one that has two more at least, the one with most if that is possible.
    fn take_copy(&mut self, to: usize, with_leaders: bool) -> bool {
        let mut hosts: Vec<usize> = (0..self.hosts.len()).collect();
        hosts.sort_by_key(|host| std::cmp::Reverse(self.loads[*host].copies));
        let least = self.loads[to].copies + 2;
        for from in hosts.into_iter().take_while(|from| self.loads[*from].copies >= least).collect::<Vec<_>>()
        {
            if let Some((spot, rank)) = self.find_copy(from, to, with_leaders) {
                self.put(spot, rank, to);
                return true;
            }
        }
        false
    }

    /// A partition of which `from` may give its copy to `to`, and the rank of that.
    fn find_copy(&mut self, from: usize, to: usize, with_leaders: bool) -> Option<(usize, usize)> {
        let (giver, taker) = (self.hosts[from].broker, self.hosts[to].broker);
        let key = (from, to, with_leaders);
        let mut at = self.searched.get(&key).copied().unwrap_or(0);
        let mut found = None;
        while let Some(spot) = self.of_host[from].get(at).copied() {
            let brokers = &self.placements[spot];
            let rank = brokers.iter().position(|broker| *broker == giver);
            // Who is preferred or leads stays, unless nothing else can go.
            let may = |rank: &usize| with_leaders || (*rank > 0 && self.spots[spot].leader != giver);
            let fits = |rank: &usize| self.neighbours(spot, *rank, to) <= self.neighbours(spot, *rank, from);
            if let Some(rank) = rank.filter(may).filter(|rank| !brokers.contains(&taker) && fits(rank)) {
                found = Some((spot, rank));
                break;
            }
            at += 1;
        }
        self.searched.insert(key, at);
        found
    }

    fn even_preferred(&mut self) {
        while let Some(path) = self.relief() {
            for (spot, rank) in path {
                self.prefer(spot, rank);
            }
        }
    }

    /// Changes of the first place, one after the other, that take one from a host which has it two times more often than
    /// another, to whom it comes.
    fn relief(&self) -> Option<Vec<(usize, usize)>> {
        for start in self.by_preferred().into_iter().rev() {
            let mut came: HashMap<usize, (usize, (usize, usize))> = HashMap::new();
            let mut queue = VecDeque::from([start]);
            while let Some(host) = queue.pop_front() {
                if self.loads[host].preferred + 2 <= self.loads[start].preferred {
                    let mut path = Vec::new();
                    let mut at = host;
                    while at != start {
                        let (before, step) = came[&at];
                        path.push(step);
                        at = before;
                    }
                    // From the end: each host on the way has given before it takes.
                    return Some(path);
                }
                for next in self.by_preferred() {
                    if next != start
                        && !came.contains_key(&next)
                        && let Some(step) = self.find_preferred(host, next)
                    {
                        came.insert(next, (host, step));
                        queue.push_back(next);
                    }
                }
            }
        }
        None
    }

    /// Hosts, those that are preferred least often first.
    fn by_preferred(&self) -> Vec<usize> {
        let mut hosts: Vec<usize> = (0..self.hosts.len()).collect();
        hosts.sort_by_key(|host| self.loads[*host].preferred);
        hosts
    }

    /// A partition in which `from` is preferred and `to` could be, and the rank of `to`.
    fn find_preferred(&self, from: usize, to: usize) -> Option<(usize, usize)> {
        let (giver, taker) = (self.hosts[from].broker, self.hosts[to].broker);
        self.of_host[to].iter().find_map(|spot| {
            let brokers = &self.placements[*spot];
            let is_givers = brokers.first() == Some(&giver);
            let rank = brokers.iter().position(|broker| *broker == taker)?;
            is_givers.then_some((*spot, rank))
        })
    }

    /// The copies of a partition, other than that of this rank, in the rack of a host.
    fn neighbours(&self, spot: usize, rank: usize, host: usize) -> usize {
        let rack = &self.hosts[host].rack;
        let others = self.placements[spot].iter().enumerate().filter(|(other, _)| *other != rank);
        let others = others.filter_map(|(_, broker)| self.index.get(broker));
        others.filter(|other| self.hosts[**other].rack == *rack).count()
    }

    /// Gives the copy of this rank to a host.
    fn put(&mut self, spot: usize, rank: usize, to: usize) {
        let from = std::mem::replace(&mut self.placements[spot][rank], self.hosts[to].broker);
        self.of_host[to].push(spot);
        if let Some(from) = self.index.get(&from) {
            self.loads[*from].copies -= 1;
            self.loads[*from].preferred -= usize::from(rank == 0);
        }
        self.loads[to].copies += 1;
        self.loads[to].preferred += usize::from(rank == 0);
    }

    /// Puts the broker of this rank first.
    fn prefer(&mut self, spot: usize, rank: usize) {
        let brokers = &mut self.placements[spot];
        for (broker, gains) in [(brokers[0], false), (brokers[rank], true)] {
            if let Some(host) = self.index.get(&broker) {
                let preferred = &mut self.loads[*host].preferred;
                *preferred = if gains { *preferred + 1 } else { *preferred - 1 };
            }
        }
        brokers.swap(0, rank);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(ids: &[i32]) -> Vec<Host> {
        ids.iter().map(|id| Host { broker: BrokerId(*id), rack: None }).collect()
    }

    fn racks(hosts: &[(i32, &str)]) -> Vec<Host> {
        hosts
            .iter()
            .map(|(id, rack)| Host { broker: BrokerId(*id), rack: Some((*rack).to_owned()) })
            .collect()
    }

    /// A partition for each list, of topics of four partitions each, that is led where it is preferred.
    fn spots(placements: &[Vec<i32>]) -> Vec<Spot> {
        let spot = |(number, brokers): (usize, &Vec<i32>)| Spot {
            topic: number / 4,
            brokers: brokers.iter().copied().map(BrokerId).collect(),
            leader: BrokerId(brokers[0]),
        };
        placements.iter().enumerate().map(spot).collect()
    }

    /// `count` partitions with `copies` each, in turn over brokers 1 to `brokers`.
    fn round(brokers: i32, count: i32, copies: i32) -> Vec<Spot> {
        let placement = |number| (0..copies).map(|rank| 1 + (number + rank) % brokers).collect();
        spots(&(0..count).map(placement).collect::<Vec<_>>())
    }

    fn apply(spots: &[Spot], changes: &[Change]) -> Vec<Spot> {
        let mut spots = spots.to_vec();
        for change in changes {
            spots[change.spot].brokers = change.brokers.clone();
        }
        spots
    }

    fn planned(hosts: &[Host], leaving: &[i32], spots: &[Spot], aim: Aim) -> (Vec<Change>, Vec<Spot>) {
        let leaving = leaving.iter().copied().map(BrokerId).collect();
        let changes = plan(hosts, &leaving, spots, aim);
        let after = apply(spots, &changes);
        for (before, after) in spots.iter().zip(&after) {
            assert_eq!(before.brokers.len(), after.brokers.len());
            let different: BTreeSet<_> = after.brokers.iter().collect();
            assert_eq!(different.len(), after.brokers.len(), "two copies on one broker: {after:?}");
        }
        assert_eq!(plan(hosts, &leaving, &after, aim), [], "what was carried out is not planned again");
        (changes, after)
    }

    fn loads_of(hosts: &[Host], spots: &[Spot]) -> Vec<Load> {
        loads(hosts, &spots.iter().map(|spot| spot.brokers.clone()).collect::<Vec<_>>())
    }

    fn spread(values: impl Iterator<Item = usize> + Clone) -> usize {
        values.clone().max().unwrap_or(0) - values.min().unwrap_or(0)
    }

    fn spreads(hosts: &[Host], spots: &[Spot]) -> (usize, usize) {
        let loads = loads_of(hosts, spots);
        (spread(loads.iter().map(|load| load.copies)), spread(loads.iter().map(|load| load.preferred)))
    }

    #[test]
    fn what_is_on_a_broker_that_leaves_goes_to_those_that_have_least() {
        for (brokers, count, copies) in [(4, 12, 2), (4, 12, 3), (5, 20, 3), (2, 6, 1), (4, 5, 2)] {
            let staying = hosts(&(1..brokers).collect::<Vec<_>>());
            let before = round(brokers, count, copies);
            let (changes, after) = planned(&staying, &[brokers], &before, Aim::Vacate);
            let named = |spot: &&Spot| spot.brokers.contains(&BrokerId(brokers));
            assert_eq!(changes.len(), before.iter().filter(named).count(), "no other partition moves");
            assert_eq!(after.iter().filter(named).count(), 0);
            let (copies, preferred) = spreads(&staying, &after);
            assert!(copies <= 1 && preferred <= 1, "{brokers} {count}: {:?}", loads_of(&staying, &after));
        }
    }

    #[test]
    fn who_cannot_be_replaced_stays() {
        let before = round(3, 6, 3);
        assert_eq!(planned(&hosts(&[1, 2]), &[3], &before, Aim::Vacate).0, []);
        assert_eq!(planned(&[], &[3], &before, Aim::Even).0, []);
    }

    #[test]
    fn a_copy_of_a_broker_that_leaves_stays_in_as_many_racks() {
        let staying = racks(&[(1, "a"), (2, "b"), (4, "a"), (5, "c")]);
        let (_, after) = planned(&staying, &[3], &spots(&[vec![1, 2, 3], vec![5, 3, 1]]), Aim::Vacate);
        assert_eq!(after[0].brokers[2], BrokerId(5), "the only one in the third rack");
        assert_eq!(after[1].brokers[1], BrokerId(2));
    }

    #[test]
    fn a_new_broker_gets_its_share_and_leaders_do_not_move() {
        for (brokers, count, copies) in [(3, 12, 3), (3, 12, 2), (3, 40, 3), (5, 7, 2), (3, 4, 3)] {
            let new = brokers + 1;
            let all = hosts(&(1..=new).collect::<Vec<_>>());
            let before = round(brokers, count, copies);
            let (changes, after) = planned(&all, &[], &before, Aim::Fill);
            let share = (count * copies / new) as usize;
            assert_eq!(changes.len(), share, "one copy of a partition moves");
            let load = loads_of(&all, &after)[new as usize - 1];
            assert_eq!(load, Load { copies: share, preferred: share.min((count / new) as usize) });
            assert!(after.iter().all(|spot| spot.brokers.contains(&spot.leader)));
            let (copies, preferred) = spreads(&all, &after);
            assert!(copies <= 1 && preferred <= 1, "{:?}", loads_of(&all, &after));
        }
    }

    #[test]
    fn a_new_broker_takes_from_all_topics_in_turn() {
        let (changes, _) = planned(&hosts(&[1, 2, 3, 4]), &[], &round(3, 16, 3), Aim::Fill);
        let mut of_topic = [0; 4];
        changes.iter().for_each(|change| of_topic[change.spot / 4] += 1);
        assert_eq!(of_topic, [3; 4]);
    }

    #[test]
    fn what_is_uneven_otherwise_waits_for_somebody_who_asks() {
        let before = spots(&[vec![1, 2], vec![1, 2], vec![1, 2], vec![1, 3]]);
        assert_eq!(planned(&hosts(&[1, 2, 3]), &[], &before, Aim::Fill).0, []);
        assert_eq!(
            planned(&hosts(&[1, 2]), &[], &spots(&vec![vec![1]; 8]), Aim::Fill).0,
            [],
            "single copies stay"
        );
        let (_, after) = planned(&hosts(&[1, 2, 3]), &[], &before, Aim::Even);
        assert_eq!(spreads(&hosts(&[1, 2, 3]), &after), (1, 1));
        let (_, after) = planned(&hosts(&[1, 2]), &[], &spots(&vec![vec![1]; 8]), Aim::Even);
        assert_eq!(spreads(&hosts(&[1, 2]), &after), (0, 0));
    }

    #[test]
    fn everything_is_evened_out() {
        let random = base::env::sim::SimRandom::new(7);
        use base::env::Random;
        for _ in 0..200 {
            let brokers = 2 + (random.next_u64() % 6) as i32;
            let all = hosts(&(1..=brokers).collect::<Vec<_>>());
            let placement = |_| {
                let mut rest: Vec<i32> = (1..=brokers).collect();
                let copies = 2 + random.next_u64() % (brokers.min(3) as u64 - 1);
                // Crowded towards the first ones.
                let mut take = || rest.remove((random.next_u64() % 3.min(rest.len() as u64)) as usize);
                (0..copies).map(|_| take()).collect::<Vec<_>>()
            };
            let before = spots(&(0..1 + random.next_u64() % 40).map(placement).collect::<Vec<_>>());
            let (_, after) = planned(&all, &[], &before, Aim::Even);
            let (copies, preferred) = spreads(&all, &after);
            assert!(copies <= 1 && preferred <= 1, "{before:?} {:?}", loads_of(&all, &after));
        }
    }

    #[test]
    fn racks_come_before_evenness_and_who_is_down_keeps_what_it_has() {
        let all = racks(&[(1, "a"), (2, "a"), (3, "b")]);
        let before = spots(&[vec![1, 3], vec![1, 3], vec![1, 3], vec![1, 3]]);
        let (_, after) = planned(&all, &[], &before, Aim::Even);
        assert!(after.iter().all(|spot| spot.brokers.contains(&BrokerId(3))), "{after:?}");
        assert_eq!(loads_of(&all, &after).iter().map(|load| load.copies).collect::<Vec<_>>(), [2, 2, 4]);
        let before = spots(&[vec![9, 1], vec![9, 1], vec![1, 9], vec![1, 9]]);
        let (_, after) = planned(&hosts(&[1, 2]), &[], &before, Aim::Even);
        assert!(after.iter().all(|spot| spot.brokers.contains(&BrokerId(9))), "{after:?}");
    }
}
