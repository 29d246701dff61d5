//! A leader that cannot commit gives up, if others live that could (replication.md 2.7): the controllers see all of them,
//! but it does not reach them, or they do not reach it.
//!
//! It has one of the other members elected. So does one whose log directory has no room for another record or takes far longer
//! than those of the others, and one that was elected and cannot take over. Each does that later and later: where nobody
//! reaches anybody, leaders must not go round and round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::ids::{BrokerId, LeaderEpoch, StorageId, TopicPartition};
use metadata::{ChainEdit, Command, Image};
use replication::OwnPace;

use crate::broker::Broker;
use crate::elections::{Electorate, election, open_members, partitions_of};
use crate::partition::Partition;

/// How often it is looked at what cannot be committed.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a leader may have too few members that answer, the first time; twice as long each further time.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may have no room for records, likewise.
const FULL_PATIENCE: Duration = Duration::from_secs(1);
/// How long its disk may be known to be slow, likewise: it is known only once it was slow for a while.
const SLOW_PATIENCE: Duration = Duration::from_millis(250);
/// How long a broker may take to take a partition over, likewise.
const TAKE_OVER_PATIENCE: Duration = Duration::from_secs(30);
/// So often at most it is doubled.
const DOUBLINGS_MAX: u32 = 5;
/// What was given up so long ago counts no more.
const MEMORY: Duration = Duration::from_secs(1_800);
/// Elections in one command.
const ELECTIONS_AT_ONCE: usize = 1_000;

/// A partition that this broker was elected for and in which nothing is committed, or far too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stuck {
    id: TopicPartition,
    epoch: LeaderEpoch,
    why: Why,
}

/// What keeps a leader from committing anything in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Too few of the members answer.
    TooFew,
    /// The log directory of the open segment has no room.
    Full,
    /// It takes far longer than those of the other members.
    Slow,
    /// It is not led yet.
    Opening,
}

impl Why {
    /// How long it may last the first time.
    fn patience(self) -> Duration {
        match self {
            Why::TooFew => PATIENCE,
            Why::Full => FULL_PATIENCE,
            Why::Slow => SLOW_PATIENCE,
            Why::Opening => TAKE_OVER_PATIENCE,
        }
    }
}

/// Since when partitions are stuck, and how often each was given up.
#[derive(Default)]
struct Watch {
    since: BTreeMap<TopicPartition, (LeaderEpoch, Duration)>,
    /// How often, and when last.
    given_up: BTreeMap<TopicPartition, (u32, Duration)>,
}

impl Watch {
    /// Those of the partitions that should be given up now.
    fn due(&mut self, stuck: &[Stuck], now: Duration) -> Vec<Stuck> {
        self.since
            .retain(|id, (epoch, _)| stuck.iter().any(|stuck| (stuck.id, stuck.epoch) == (*id, *epoch)));
        self.given_up.retain(|_, (_, at)| now.saturating_sub(*at) < MEMORY);
        let mut due = Vec::new();
        for stuck in stuck {
            let (_, since) = *self.since.entry(stuck.id).or_insert((stuck.epoch, now));
            let times = self.given_up.get(&stuck.id).map_or(0, |(times, _)| *times);
            if now.saturating_sub(since) >= stuck.why.patience() * (1 << times.min(DOUBLINGS_MAX)) {
                due.push(*stuck);
            }
        }
        due
    }

    fn gave_up(&mut self, id: TopicPartition, now: Duration) {
        self.since.remove(&id);
        let (times, at) = self.given_up.entry(id).or_default();
        (*times, *at) = (times.saturating_add(1), now);
    }
}

/// Who should lead instead: of the other members that live the one behind this broker, so that each has its turn.
fn successor(image: &Image, stuck: &Stuck, own: BrokerId) -> Option<ChainEdit> {
    let state = image.partition(&stuck.id)?;
    if (state.leader, state.leader_epoch) != (own, stuck.epoch) || state.unclean {
        return None;
    }
    let electorate = Electorate::now(image);
    if stuck.why != Why::Opening {
        return electorate.heir(&stuck.id, state).map(|heir| election(stuck.id, state, heir));
    }
    let members = open_members(state);
    let at = members.iter().position(|member| member.broker == own)?;
    let others = members[at + 1..].iter().chain(&members[..at]);
    let next = others.map(|member| member.broker).find(|broker| electorate.may_lead(state, *broker))?;
    Some(election(stuck.id, state, next))
}

/// Whether most of those who lead partitions that a broker should have a copy of do without it in some of theirs: they know
/// how long it takes, and a broker that is held up by its own disk sees everybody late.
fn is_left_out_by_most(image: &Image, own: BrokerId) -> bool {
    let Some(life) = image.broker(own).map(|broker| broker.incarnation) else { return false };
    let lives = |broker: BrokerId| image.broker(broker).is_some_and(|broker| !broker.fenced);
    let states = image.topics().flat_map(|topic| partitions_of(topic)).map(|(_, state)| state);
    let of_others = states
        .filter(|state| state.leader != own && state.placement.contains(&own) && lives(state.leader))
        .map(|state| {
            let mut members = open_members(state).iter();
            (state.leader, members.any(|member| (member.broker, member.incarnation) == (own, life)))
        });
    most_do_without(of_others)
}

/// Of partitions, who leads each and whether somebody is a member there: whether most leaders do without him in one of theirs.
fn most_do_without(partitions: impl Iterator<Item = (BrokerId, bool)>) -> bool {
    let mut leaders: BTreeMap<BrokerId, bool> = BTreeMap::new();
    for (leader, is_member) in partitions {
        *leaders.entry(leader).or_default() |= !is_member;
    }
    leaders.values().filter(|without| **without).count() * 2 > leaders.len()
}

impl Broker {
    /// Starts the task; it ends with the broker.
    pub(crate) fn spawn_resigning(self: &Arc<Self>) {
        tokio::spawn(resign_for_ever(Arc::downgrade(self)));
    }

    fn stuck(&self, image: &Image) -> Vec<Stuck> {
        let partitions = self.partitions.all();
        let slow = self.slow_storages(image, &partitions);
        let mut stuck = Vec::new();
        for partition in partitions {
            let is_slow = || partition.log.open_storage().is_some_and(|storage| slow.contains(&storage));
            let why = if partition.log.has_no_room() {
                Why::Full
            } else if partition.has_too_few_copies() {
                Why::TooFew
            } else if !slow.is_empty() && partition.log.in_sync().0 > 1 && is_slow() {
                Why::Slow
            } else {
                continue;
            };
            stuck.push(Stuck { id: partition.id(), epoch: partition.log.leader_epoch(), why });
        }
        let opening = self.partitions.opening();
        stuck.extend(opening.into_iter().map(|(id, epoch)| Stuck { id, epoch, why: Why::Opening }));
        stuck
    }

    /// Log directories that take far longer than those of other brokers: what one partition shows holds for all on it.
    fn slow_storages(&self, image: &Image, partitions: &[Arc<Partition>]) -> BTreeSet<StorageId> {
        let mut is_left_out = None;
        let mut is_slow = |pace| match pace {
            OwnPace::InTime => false,
            OwnPace::Late => *is_left_out.get_or_insert_with(|| is_left_out_by_most(image, self.id)),
            OwnPace::Slow => true,
        };
        let slow = partitions.iter().filter(|partition| is_slow(partition.log.own_pace()));
        slow.filter_map(|partition| partition.log.open_storage()).collect()
    }

    async fn give_up_stuck(&self, watch: &mut Watch) {
        let image = self.image();
        if image.brokers().nth(1).is_none() {
            return;
        }
        let stuck = self.stuck(&image);
        let now = self.env.clock.now();
        let due = watch.due(&stuck, now);
        let elections: Vec<ChainEdit> = due
            .iter()
            .filter_map(|stuck| successor(&image, stuck, self.id))
            .take(ELECTIONS_AT_ONCE)
            .collect();
        if elections.is_empty() {
            return;
        }
        let given_up: Vec<TopicPartition> = elections.iter().map(ChainEdit::partition).collect();
        match self.metadata.propose(Command::Edit(elections)).await {
            Ok(_) => {
                let partitions = given_up.len();
                tracing::warn!(
                    partitions,
                    "this broker can commit nothing in time, for want of answers of others or of room, or because \
                     its disk is slow: others are to lead"
                );
                given_up.into_iter().for_each(|id| watch.gave_up(id, now));
            }
            Err(error) => tracing::warn!(%error, "what this broker cannot lead it cannot give up either"),
        }
    }
}

async fn resign_for_ever(broker: Weak<Broker>) {
    let mut watch = Watch::default();
    while let Some(strong) = Broker::after(&broker, LOOK_INTERVAL).await {
        if !strong.drain.is_draining() {
            strong.give_up_stuck(&mut watch).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use base::ids::{PartitionId, Uuid};

    use super::*;

    fn stuck(epoch: i32, why: Why) -> Stuck {
        let id = TopicPartition { topic_id: Uuid([9; 16]), partition: PartitionId(0) };
        Stuck { id, epoch: LeaderEpoch(epoch), why }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn most_leaders_must_do_without_a_broker() {
        let of = |partitions: &[(i32, bool)]| {
            most_do_without(partitions.iter().map(|(leader, is_member)| (BrokerId(*leader), *is_member)))
        };
        assert!(!of(&[]), "nobody can judge");
        assert!(of(&[(1, false)]));
        assert!(of(&[(1, true), (1, false), (1, true)]), "in one of theirs");
        assert!(!of(&[(1, false), (2, true)]), "half are not most");
        assert!(of(&[(1, false), (2, true), (3, false)]));
    }

    #[test]
    fn a_leader_waits_a_moment_for_its_members() {
        let mut watch = Watch::default();
        let one = [stuck(1, Why::TooFew)];
        assert_eq!(watch.due(&one, seconds(10)), []);
        assert_eq!(watch.due(&[], seconds(14)), [], "they answer again");
        assert_eq!(watch.due(&one, seconds(15)), []);
        assert_eq!(watch.due(&one, seconds(19)), []);
        assert_eq!(watch.due(&one, seconds(20)), one);
        assert_eq!(watch.due(&[stuck(2, Why::TooFew)], seconds(20)), [], "another election");
    }

    #[test]
    fn who_gives_up_often_gives_up_later_and_later_until_that_is_long_ago() {
        for (why, first) in [(Why::Opening, 30), (Why::TooFew, 5), (Why::Full, 1)] {
            let mut watch = Watch::default();
            let mut now = 0;
            for factor in [1, 2, 4, 8, 16, 32, 32] {
                let (one, patience) = ([stuck(now as i32, why)], factor * first);
                assert_eq!(watch.due(&one, seconds(now)), []);
                assert_eq!(watch.due(&one, seconds(now + patience - 1)), []);
                now += patience;
                assert_eq!(watch.due(&one, seconds(now)), one);
                watch.gave_up(one[0].id, seconds(now));
            }
            now += MEMORY.as_secs();
            let one = [stuck(-1, why)];
            watch.due(&one, seconds(now));
            assert_eq!(watch.due(&one, seconds(now + first)), one);
        }
    }
}
