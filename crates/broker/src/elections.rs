//! Who should lead a partition: choices over the metadata that the controller, a client that asks for an election, and a
//! broker that ends have in common. An election is proposed by whoever made the choice.

use base::chain::{Member, PartitionState, SegmentEntry, SegmentState};
use base::ids::{BrokerId, LeaderEpoch, PartitionId, TopicPartition};
use metadata::{ChainEdit, Image, Resource, StorageHealth, Topic};
use replication::placement::{Candidate, next_leader};

use crate::peers::candidates;

/// The brokers that may lead, by the metadata of one moment.
pub(crate) struct Electorate<'i> {
    image: &'i Image,
    /// Those that live, by id; those that are about to end among them.
    alive: Vec<Candidate>,
    /// Those that end their life, and those that leave the cluster.
    avoided: Vec<BrokerId>,
}

impl<'i> Electorate<'i> {
    /// Of those brokers for which `lives` holds.
    pub(crate) fn of(image: &'i Image, lives: impl Fn(&metadata::Broker) -> bool) -> Electorate<'i> {
        let ending = image.brokers().filter(|broker| broker.draining);
        let ending = ending.map(|broker| broker.registration.broker);
        Electorate {
            image,
            alive: candidates(image, lives),
            avoided: ending.chain(image.leaving()).collect(),
        }
    }

    /// Of those that are not fenced.
    pub(crate) fn now(image: &'i Image) -> Electorate<'i> {
        Electorate::of(image, |broker| !broker.fenced)
    }

    /// Whether the leader is about to end.
    pub(crate) fn is_ending(&self, broker: BrokerId) -> bool {
        self.image.broker(broker).is_some_and(|broker| broker.draining)
    }

    /// Whether the broker lives on and stays in the cluster.
    fn stays(&self, broker: BrokerId) -> bool {
        !self.avoided.contains(&broker)
    }

    /// Who leads where the leader is gone: a member of the open segment that lacks least of the sealed ones. Who has
    /// nothing of the open one cannot lead without a copy of it, and who lacks others must fetch them first.
    ///
    /// `None` as well where all that are left may have lost records: none of them could tell where the segment ends.
    pub(crate) fn successor(&self, state: &PartitionState) -> Option<BrokerId> {
        if self.is_in_doubt(state) {
            return None;
        }
        self.best(state, |candidate| self.holds_open(state, candidate.broker))
    }

    /// Whether all members of the open segment that live may have lost records of it: whoever is elected waits.
    pub(crate) fn is_in_doubt(&self, state: &PartitionState) -> bool {
        is_in_doubt(state, |broker| self.lives(broker))
    }

    /// Who leads where nobody is left that surely has all that was committed: a member of the open segment, or else a broker
    /// where copies are wanted, that lacks least of the sealed ones. The longest copy it finds out itself.
    pub(crate) fn salvager(&self, state: &PartitionState) -> Option<BrokerId> {
        let holds = |candidate: &Candidate| self.holds_open(state, candidate.broker);
        let is_home = |candidate: &Candidate| state.placement.contains(&candidate.broker);
        self.best(state, holds).or_else(|| self.best(state, is_home))
    }

    /// Whether nobody who lives has some of the sealed segments.
    pub(crate) fn lacks_any(&self, state: &PartitionState) -> bool {
        let has = |entry: &SegmentEntry, broker: BrokerId| {
            let storages = self.image.broker(broker).into_iter().flat_map(|broker| &broker.storages);
            storages.into_iter().any(|(storage, health)| health.can_be_read() && entry.is_on(*storage))
        };
        // Nearly always the leader has it.
        let is_there = |entry: &SegmentEntry| {
            (self.lives(state.leader) && has(entry, state.leader))
                || self.alive.iter().any(|candidate| has(entry, candidate.broker))
        };
        state.chain.iter().any(|entry| !entry.is_open() && !is_there(entry))
    }

    /// Whether the leader lives and waits for sealed segments that it lacks, and that nobody who lives has.
    pub(crate) fn is_stranded(&self, state: &PartitionState) -> bool {
        !state.unclean && self.lives(state.leader) && self.lacks_any(state)
    }

    fn lives(&self, broker: BrokerId) -> bool {
        self.alive.iter().any(|candidate| candidate.broker == broker)
    }

    /// Whether nobody is missing any more that may know more of the open segment.
    pub(crate) fn are_all_back(&self, state: &PartitionState) -> bool {
        open_members(state).iter().all(|member| self.lives(member.broker))
    }

    /// Who leads where the leader lives, but its log directory has failed.
    pub(crate) fn substitute(&self, state: &PartitionState) -> Option<BrokerId> {
        let is_member = open_members(state).iter().any(|member| member.broker == state.leader);
        if !is_member || self.holds_open(state, state.leader) {
            return None;
        }
        self.best(state, |candidate| {
            candidate.broker != state.leader && self.holds_open(state, candidate.broker)
        })
    }

    /// Whether a broker is a member of the open segment with a log directory that can be read.
    fn holds_open(&self, state: &PartitionState, broker: BrokerId) -> bool {
        let can_be_read = |member: &Member| {
            let health = self.image.storage_health(member.storage);
            matches!(health, Some(StorageHealth::Writable | StorageHealth::ReadOnly))
        };
        open_members(state).iter().any(|member| member.broker == broker && can_be_read(member))
    }

    /// Who leads where the leader lives and gives up: a member in its present life that does not end itself. `None` when
    /// that would leave too few brokers for `min.insync.replicas`.
    pub(crate) fn heir(&self, id: &TopicPartition, state: &PartitionState) -> Option<BrokerId> {
        let staying = self.alive.iter().filter(|candidate| self.stays(candidate.broker)).count();
        if staying < self.image.copies_min(id, state.placement.len()) {
            return None;
        }
        self.best(state, |candidate| candidate.broker != state.leader && self.stays_in(state, candidate))
    }

    /// Whether a broker that lives can find out where the open segment ends, of which it is a member.
    pub(crate) fn may_lead(&self, state: &PartitionState, broker: BrokerId) -> bool {
        self.lives(broker)
            && !self.is_ending(broker)
            && !self.is_in_doubt(state)
            && self.holds_open(state, broker)
    }

    /// Whether the leader lives, stays, and can have a next segment without a broker that ends.
    pub(crate) fn does_without(&self, broker: BrokerId, id: &TopicPartition, state: &PartitionState) -> bool {
        let staying = |candidate: &&Candidate| candidate.broker != broker && self.stays(candidate.broker);
        let mut staying = self.alive.iter().filter(staying);
        let leads = staying.clone().any(|candidate| candidate.broker == state.leader);
        let copies_min = self.image.copies_min(id, state.placement.len());
        leads && staying.nth(copies_min.saturating_sub(1)).is_some()
    }

    /// The preferred leader, the first of the placement, if it does not lead and can.
    pub(crate) fn preferred(&self, state: &PartitionState) -> Option<BrokerId> {
        let preferred = *state.placement.first()?;
        (preferred != state.leader && self.is_ready(state, preferred)).then_some(preferred)
    }

    /// Who leads instead of a broker where no copies are wanted any more, or that leaves the cluster.
    pub(crate) fn homecomer(&self, state: &PartitionState) -> Option<BrokerId> {
        if state.placement.contains(&state.leader) && self.stays(state.leader) {
            return None;
        }
        state.placement.iter().copied().find(|broker| self.is_ready(state, *broker))
    }

    /// Whether a broker can lead at once: it is a member of the open segment in its present life, does not end, and lacks
    /// no sealed segment.
    fn is_ready(&self, state: &PartitionState, broker: BrokerId) -> bool {
        let candidate = self.alive.iter().find(|candidate| candidate.broker == broker);
        candidate.is_some_and(|candidate| self.stays_in(state, candidate))
            && lacks(self.image, state, broker) == 0
    }

    fn stays_in(&self, state: &PartitionState, candidate: &Candidate) -> bool {
        let life = (candidate.broker, candidate.incarnation);
        let is_member = open_members(state).iter().any(|member| (member.broker, member.incarnation) == life);
        is_member && self.stays(candidate.broker)
    }

    fn best(&self, state: &PartitionState, may: impl Fn(&Candidate) -> bool) -> Option<BrokerId> {
        let able = self.alive.iter().filter(|candidate| may(candidate));
        let mut able: Vec<(usize, Candidate)> =
            able.map(|candidate| (lacks(self.image, state, candidate.broker), candidate.clone())).collect();
        let least = able.iter().map(|(lacks, _)| *lacks).min();
        able.retain(|(lacks, _)| Some(*lacks) == least);
        let able: Vec<Candidate> = able.into_iter().map(|(_, candidate)| candidate).collect();
        next_leader(state, &able, &self.avoided)
    }
}

/// As [`Electorate::is_in_doubt`], of brokers for which `lives` holds.
pub(crate) fn is_in_doubt(state: &PartitionState, lives: impl Fn(BrokerId) -> bool) -> bool {
    !state.doubtful.is_empty() && !state.unclean && !state.sure_members().any(|member| lives(member.broker))
}

/// Whether records of a topic may be lost for the sake of a leader (`unclean.leader.election.enable`); `file` is what the
/// controller's own configuration says.
pub(crate) fn may_lose(image: &Image, topic: &str, file: bool) -> bool {
    let set = |resource: Resource| {
        let configs = image.configs(&resource);
        configs.get("unclean.leader.election.enable").map(|value| value.trim().eq_ignore_ascii_case("true"))
    };
    set(Resource::Topic(topic.to_owned())).or_else(|| set(Resource::AllBrokers)).unwrap_or(file)
}

/// How many of the sealed segments a broker has in none of its log directories.
pub(crate) fn lacks(image: &Image, state: &PartitionState, broker: BrokerId) -> usize {
    let Some(broker) = image.broker(broker) else { return usize::MAX };
    let has = |entry: &&SegmentEntry| broker.storages.keys().any(|storage| entry.is_on(*storage));
    state.chain.iter().filter(|entry| !entry.is_open() && !has(entry)).count()
}

/// Members of the open segment.
pub(crate) fn open_members(state: &PartitionState) -> &[Member] {
    match &state.last().state {
        SegmentState::Open { ensemble } => ensemble,
        SegmentState::Sealed { .. } => &[],
    }
}

/// The edit that makes a broker the leader of a partition that is as `state` says.
pub(crate) fn election(partition: TopicPartition, state: &PartitionState, leader: BrokerId) -> ChainEdit {
    ChainEdit::Elect { partition, leader, epoch: LeaderEpoch(state.leader_epoch.0 + 1) }
}

/// As [`election`], of one that may lose records.
pub(crate) fn unclean_election(
    partition: TopicPartition,
    state: &PartitionState,
    leader: BrokerId,
) -> ChainEdit {
    ChainEdit::ElectUnclean { partition, leader, epoch: LeaderEpoch(state.leader_epoch.0 + 1) }
}

/// The partitions of a topic with their ids.
pub(crate) fn partitions_of(topic: &Topic) -> impl Iterator<Item = (TopicPartition, &PartitionState)> {
    topic.partitions.iter().enumerate().map(|(number, state)| {
        let partition = PartitionId(i32::try_from(number).unwrap_or(i32::MAX));
        (TopicPartition { topic_id: topic.id, partition }, &**state)
    })
}
