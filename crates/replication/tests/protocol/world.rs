//! Some nodes, one partition, and everything that can happen to them next.
//!
//! The state machines are the product's own; this file only carries their messages, late or never, and keeps the
//! books: what clients were told, and what each segment's one writer wrote. A message that is late is an action that
//! is not taken yet. Actions are those of replication.md 2.21.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use base::chain::{Member, NewSegment, PartitionState, Seal, SegmentState};
use base::ids::{BrokerId, Incarnation, LeaderEpoch, Offset, SegmentId, StorageId, Uuid};
use replication::protocol::{FenceAnswer, Life, PartitionReplica, Recovery, SegmentLeader};

use crate::mistakes::Mistake;

/// How much may happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) nodes: usize,
    pub(crate) copies_min: usize,
    /// Members that must hold a record; 0 for all.
    pub(crate) ack_quorum: usize,
    pub(crate) records: u8,
    pub(crate) epochs: i32,
    pub(crate) segments: u64,
    pub(crate) restarts: u8,
    pub(crate) lossy_crashes: u8,
    pub(crate) mistake: Option<Mistake>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Role {
    None,
    Recovering(Recovery),
    Leading(SegmentLeader),
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Node {
    replica: PartitionReplica,
    role: Role,
    /// The epoch in which it last tried to lead.
    epoch: LeaderEpoch,
    /// It lost bytes it had acknowledged.
    lost: bool,
}

/// `SealAndOpen` on its way.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Proposal {
    segment: SegmentId,
    epoch: LeaderEpoch,
    end: Offset,
    holders: Vec<StorageId>,
    members: Vec<usize>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Produce(usize),
    Deliver(usize, SegmentId),
    Ack(usize, usize),
    Elect(usize),
    StartRecovery(usize),
    Fence(usize, usize),
    Decide { node: usize, copy_little: bool },
    CopyUp(usize, usize),
    Freeze { node: usize, at_own_end: bool },
    LeadCopyUp(usize, usize),
    Propose { node: usize, everyone: bool },
    Apply(usize),
    Adopt(usize),
    Restart(usize),
    CrashLossy { node: usize, keeps: Offset },
}

/// Everything.
#[derive(Clone)]
pub(crate) struct World {
    bounds: Bounds,
    partition: PartitionState,
    nodes: Vec<Node>,
    /// What each segment's writer wrote, from its base on.
    written: BTreeMap<SegmentId, Vec<u8>>,
    /// Base, epoch and ensemble of every segment ever opened.
    opened: BTreeMap<SegmentId, (Offset, LeaderEpoch, Vec<Member>)>,
    proposals: BTreeSet<Proposal>,
    /// The largest end a node acknowledged of a segment; the message may arrive at any time.
    acknowledged: BTreeMap<(usize, SegmentId), Offset>,
    /// What producers were told is committed.
    acked: BTreeMap<Offset, u8>,
    next_segment: u64,
    next_value: u8,
    next_incarnation: i64,
    restarts: u8,
    lossy_crashes: u8,
}

fn storage(node: usize) -> StorageId {
    Uuid([node as u8; 16])
}

impl World {
    /// All nodes are members of the first segment, and node 0 leads it.
    pub(crate) fn new(bounds: Bounds) -> World {
        let node = |_| Node {
            replica: PartitionReplica::new(Incarnation(0)),
            role: Role::None,
            epoch: LeaderEpoch(0),
            lost: false,
        };
        let nodes: Vec<Node> = (0..bounds.nodes).map(node).collect();
        let members: Vec<Member> = (0..bounds.nodes).map(|node| member(node, Incarnation(0))).collect();
        let ack_quorum = quorum(&bounds, members.len());
        let first = NewSegment { id: SegmentId(1), ensemble: members.clone(), ack_quorum };
        let partition = PartitionState::create(BrokerId(0), LeaderEpoch(0), Vec::new(), 0, first);
        let mut world = World {
            bounds,
            partition,
            nodes,
            written: BTreeMap::from([(SegmentId(1), Vec::new())]),
            opened: BTreeMap::from([(SegmentId(1), (0, LeaderEpoch(0), members))]),
            proposals: BTreeSet::new(),
            acknowledged: BTreeMap::new(),
            acked: BTreeMap::new(),
            next_segment: 2,
            next_value: 0,
            next_incarnation: 1,
            restarts: 0,
            lossy_crashes: 0,
        };
        let leader = SegmentLeader::new(world.partition.last(), storage(0), bounds.copies_min);
        world.nodes[0].role = Role::Leading(leader.expect("node 0 is a member"));
        world
    }

    /// Two worlds with the same fingerprint are taken for one.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.partition.hash(&mut hasher);
        self.nodes.hash(&mut hasher);
        self.written.hash(&mut hasher);
        self.opened.hash(&mut hasher);
        self.proposals.hash(&mut hasher);
        self.acknowledged.hash(&mut hasher);
        self.acked.hash(&mut hasher);
        (self.next_segment, self.next_value, self.next_incarnation).hash(&mut hasher);
        (self.restarts, self.lossy_crashes).hash(&mut hasher);
        hasher.finish()
    }

    /// The world after a step, or `None` where it cannot be taken now.
    ///
    /// # Errors
    /// What a step broke.
    pub(crate) fn after(&self, action: &Action) -> Option<Result<World, String>> {
        let mut next = self.clone();
        match next.take(action) {
            None => None,
            Some(Ok(())) => Some(next.check().map(|()| next)),
            Some(Err(broken)) => Some(Err(broken)),
        }
    }

    /// Every step that might be possible.
    pub(crate) fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        let nodes = self.bounds.nodes;
        for node in 0..nodes {
            actions.extend([
                Action::Produce(node),
                Action::Elect(node),
                Action::StartRecovery(node),
                Action::Adopt(node),
                Action::Restart(node),
            ]);
            for flag in [false, true] {
                actions.push(Action::Decide { node, copy_little: flag });
                actions.push(Action::Freeze { node, at_own_end: flag });
                actions.push(Action::Propose { node, everyone: flag });
            }
            actions.extend(
                (0..=Offset::from(self.bounds.records)).map(|keeps| Action::CrashLossy { node, keeps }),
            );
            actions.extend(self.opened.keys().map(|segment| Action::Deliver(node, *segment)));
            for other in 0..nodes {
                actions.push(Action::Ack(node, other));
                if other != node {
                    actions.extend([
                        Action::Fence(node, other),
                        Action::CopyUp(node, other),
                        Action::LeadCopyUp(node, other),
                    ]);
                }
            }
        }
        actions.extend((0..self.proposals.len()).map(Action::Apply));
        actions
    }

    fn take(&mut self, action: &Action) -> Option<Result<(), String>> {
        let done = match *action {
            Action::Produce(node) => self.produce(node),
            Action::Deliver(node, segment) => self.deliver(node, segment),
            Action::Ack(leader, node) => return self.ack(leader, node),
            Action::Elect(node) => self.elect(node),
            Action::StartRecovery(node) => self.start_recovery(node),
            Action::Fence(leader, node) => self.fence(leader, node),
            Action::Decide { node, copy_little } => self.decide(node, copy_little),
            Action::CopyUp(leader, node) => self.copy_up(leader, node),
            Action::Freeze { node, at_own_end } => self.freeze(node, at_own_end),
            Action::LeadCopyUp(leader, node) => self.lead_copy_up(leader, node),
            Action::Propose { node, everyone } => self.propose(node, everyone),
            Action::Apply(number) => return self.apply(number),
            Action::Adopt(node) => self.adopt(node),
            Action::Restart(node) => self.restart(node, Life::Whole),
            Action::CrashLossy { node, keeps } => self.crash_lossy(node, keeps),
        };
        done.map(Ok)
    }
}

fn member(node: usize, incarnation: Incarnation) -> Member {
    Member { broker: BrokerId(node as i32), storage: storage(node), incarnation }
}

fn quorum(bounds: &Bounds, members: usize) -> u32 {
    if bounds.ack_quorum == 0 { members as u32 } else { bounds.ack_quorum as u32 }
}

/// Writing, and what members answer.
impl World {
    fn end(&self, node: usize, segment: SegmentId) -> Offset {
        self.nodes[node].replica.end(segment).unwrap_or(self.opened[&segment].0)
    }

    /// Sends a member what one segment's writer wrote from the end of its copy up to `end`.
    fn append(&mut self, node: usize, segment: SegmentId, end: Offset) -> Option<()> {
        let (base, epoch, members) = &self.opened[&segment];
        let named = members.iter().find(|member| member.storage == storage(node))?.incarnation;
        let replica = &mut self.nodes[node].replica;
        let named = match self.bounds.mistake {
            Some(Mistake::AcceptAfterRestart) => replica.incarnation(),
            _ => named,
        };
        let from = replica.end(segment).unwrap_or(*base);
        let end = replica.append((segment, *base), *epoch, named, (from, end)).ok()?;
        self.acknowledged.insert((node, segment), end);
        Some(())
    }

    fn produce(&mut self, node: usize) -> Option<()> {
        let Role::Leading(leader) = &self.nodes[node].role else { return None };
        let segment = leader.segment();
        if self.next_value >= self.bounds.records {
            return None;
        }
        let end = self.end(node, segment) + 1;
        self.append(node, segment, end)?;
        self.written.get_mut(&segment)?.push(self.next_value);
        self.next_value += 1;
        Some(())
    }

    fn deliver(&mut self, node: usize, segment: SegmentId) -> Option<()> {
        let end = self.end(node, segment) + 1;
        if end > self.opened[&segment].0 + self.written[&segment].len() as Offset {
            return None;
        }
        self.append(node, segment, end)
    }

    fn ack(&mut self, leader: usize, node: usize) -> Option<Result<(), String>> {
        let Role::Leading(state) = &mut self.nodes[leader].role else { return None };
        let (segment, before) = (state.segment(), state.clone());
        let end = *self.acknowledged.get(&(node, segment))?;
        state.acked(storage(node), end);
        let committed = before.high_watermark()..state.high_watermark();
        if before == *state {
            return None;
        }
        for offset in committed {
            let holders = (0..self.bounds.nodes)
                .filter(|node| self.acknowledged.get(&(*node, segment)).is_some_and(|end| *end > offset));
            let holders = holders.count();
            if holders < self.bounds.copies_min {
                return Some(Err(format!("{offset} was acknowledged with {holders} copies")));
            }
            let value = self.written[&segment][(offset - self.opened[&segment].0) as usize];
            if self.acked.insert(offset, value).is_some_and(|other| other != value) {
                return Some(Err(format!("two records were acknowledged at {offset}")));
            }
        }
        Some(Ok(()))
    }
}

/// A new leader.
impl World {
    fn elect(&mut self, node: usize) -> Option<()> {
        if self.partition.leader_epoch.0 >= self.bounds.epochs {
            return None;
        }
        self.partition.elect(BrokerId(node as i32));
        Some(())
    }

    fn start_recovery(&mut self, node: usize) -> Option<()> {
        let epoch = self.partition.leader_epoch;
        let mut open = self.partition.last().clone();
        let is_due = self.partition.leader == BrokerId(node as i32)
            && epoch > self.nodes[node].epoch
            && open.last_epoch() < epoch;
        if !is_due {
            return None;
        }
        if self.bounds.mistake == Some(Mistake::LowCoverage) {
            open.ack_quorum = self.opened[&open.id].2.len() as u32;
        }
        let copies_min = match self.bounds.mistake {
            Some(Mistake::SealTooFew) => 1,
            _ => self.bounds.copies_min,
        };
        let mut recovery = Recovery::new(&open, epoch, copies_min)?;
        let answer = self.nodes[node].replica.fence(recovery.segment(), epoch).ok()?;
        recovery.answered(storage(node), self.trusted(answer));
        self.nodes[node].epoch = epoch;
        self.nodes[node].role = Role::Recovering(recovery);
        Some(())
    }

    fn trusted(&self, answer: FenceAnswer) -> FenceAnswer {
        let trusts = self.bounds.mistake == Some(Mistake::TrustLimbo);
        FenceAnswer { authoritative: answer.authoritative || trusts, ..answer }
    }

    fn fence(&mut self, leader: usize, node: usize) -> Option<()> {
        let Role::Recovering(recovery) = &self.nodes[leader].role else { return None };
        let mut recovery = recovery.clone();
        if recovery.decision().is_some() {
            return None;
        }
        let before = self.nodes[node].replica.clone();
        let answer = match self.bounds.mistake {
            Some(Mistake::NoFence | Mistake::AcceptAfterRestart) => {
                FenceAnswer { end: self.end(node, recovery.segment().0), authoritative: true }
            }
            _ => self.nodes[node].replica.fence(recovery.segment(), recovery.epoch()).ok()?,
        };
        recovery.answered(storage(node), self.trusted(answer));
        let role = Role::Recovering(recovery);
        let changes = role != self.nodes[leader].role || before != self.nodes[node].replica;
        self.nodes[leader].role = role;
        changes.then_some(())
    }

    fn decide(&mut self, node: usize, copy_little: bool) -> Option<()> {
        let Role::Recovering(recovery) = &mut self.nodes[node].role else { return None };
        if recovery.decision().is_some() {
            return None;
        }
        recovery.decide(|_, _| copy_little).map(|_| ())
    }

    fn copy_up(&mut self, leader: usize, node: usize) -> Option<()> {
        let Role::Recovering(recovery) = &self.nodes[leader].role else { return None };
        let (segment, epoch) = (recovery.segment(), recovery.epoch());
        let decision = recovery.decision()?;
        let holds = |holder: usize| {
            decision.holders.contains(&storage(holder)) && self.end(holder, segment.0) >= decision.end
        };
        let is_due = recovery.copies_missing() != Some(0) && !decision.holders.contains(&storage(node));
        if !is_due || !(0..self.bounds.nodes).any(holds) {
            return None;
        }
        let end = decision.end;
        self.nodes[node].replica.copy_up(segment, epoch, end).ok()?;
        let Role::Recovering(recovery) = &mut self.nodes[leader].role else { return None };
        recovery.copied(storage(node));
        Some(())
    }
}

/// The end of a segment, and the next one.
impl World {
    fn freeze(&mut self, node: usize, at_own_end: bool) -> Option<()> {
        let Role::Leading(leader) = &self.nodes[node].role else { return None };
        let mut leader = leader.clone();
        if leader.frozen().is_some() {
            return None;
        }
        if at_own_end {
            leader.freeze_at(self.end(node, leader.segment()));
        } else {
            leader.freeze();
        }
        if self.bounds.mistake == Some(Mistake::NoFreeze) {
            let members = (0..self.bounds.nodes).collect();
            return self.send(&leader.seal()?, (leader.segment(), leader.epoch()), members);
        }
        self.nodes[node].role = Role::Leading(leader);
        Some(())
    }

    fn lead_copy_up(&mut self, leader: usize, node: usize) -> Option<()> {
        let Role::Leading(state) = &self.nodes[leader].role else { return None };
        let (segment, epoch, end) = (state.segment(), state.epoch(), state.frozen()?);
        let base = self.opened[&segment].0;
        if state.copies_missing() == 0 || self.end(leader, segment) < end {
            return None;
        }
        self.nodes[node].replica.copy_up((segment, base), epoch, end).ok()?;
        let Role::Leading(state) = &mut self.nodes[leader].role else { return None };
        let before = state.clone();
        state.copied(storage(node));
        (before != *state).then_some(())
    }

    fn propose(&mut self, node: usize, everyone: bool) -> Option<()> {
        let (sealed, name) = match &self.nodes[node].role {
            Role::None => return None,
            Role::Leading(leader) => (leader.seal()?, (leader.segment(), leader.epoch())),
            Role::Recovering(recovery) => {
                let listed = match (self.bounds.mistake, recovery.decision()) {
                    (Some(Mistake::ListNonHolders), Some(decision)) => {
                        Some((decision.end, (0..self.bounds.nodes).map(storage).collect()))
                    }
                    _ => recovery.seal(),
                };
                (listed?, (recovery.segment().0, recovery.epoch()))
            }
        };
        let holds = |other: &usize| sealed.1.contains(&storage(*other));
        let members: Vec<usize> =
            (0..self.bounds.nodes).filter(|other| everyone || *other == node || holds(other)).collect();
        self.send(&sealed, name, members)
    }

    fn send(
        &mut self,
        (end, holders): &(Offset, Vec<StorageId>),
        (segment, epoch): (SegmentId, LeaderEpoch),
        members: Vec<usize>,
    ) -> Option<()> {
        let proposal = Proposal { segment, epoch, end: *end, holders: holders.clone(), members };
        let room = self.opened.len() < self.bounds.segments as usize;
        let is_stale = self.partition.last().id != segment;
        (room && !is_stale && self.proposals.insert(proposal)).then_some(())
    }

    fn apply(&mut self, number: usize) -> Option<Result<(), String>> {
        let proposal = self.proposals.iter().nth(number)?.clone();
        self.proposals.remove(&proposal);
        let Proposal { segment, epoch, end, holders, members } = proposal;
        let seal = Seal { segment, leader_epoch: epoch, end, crc: 0, bytes: 0, holders, unclean: false };
        let members: Vec<Member> =
            members.iter().map(|node| member(*node, self.nodes[*node].replica.incarnation())).collect();
        let next = NewSegment {
            id: SegmentId(self.next_segment),
            ack_quorum: quorum(&self.bounds, members.len()).min(members.len() as u32),
            ensemble: members.clone(),
        };
        let copies_min = match self.bounds.mistake {
            Some(Mistake::SealTooFew) => 1,
            _ => self.bounds.copies_min,
        };
        if self.opened.len() >= self.bounds.segments as usize
            || self.partition.seal_and_open(&seal, next, copies_min).is_err()
        {
            return Some(Ok(()));
        }
        if let Some((offset, _)) = self.acked.range(end..).next() {
            return Some(Err(format!("{offset} was acknowledged, and the seal ends at {end}")));
        }
        self.opened.insert(SegmentId(self.next_segment), (end, epoch, members));
        self.written.insert(SegmentId(self.next_segment), Vec::new());
        self.next_segment += 1;
        Some(Ok(()))
    }

    /// The leader of a new segment begins to write, with its own tail beyond the end of the one before.
    fn adopt(&mut self, node: usize) -> Option<()> {
        let open = self.partition.last().clone();
        let SegmentState::Open { ensemble } = &open.state else { return None };
        let lives = member(node, self.nodes[node].replica.incarnation());
        let epoch = self.partition.leader_epoch;
        let is_due = self.partition.leader == BrokerId(node as i32)
            && open.last_epoch() == epoch
            && self.nodes[node].epoch == epoch
            && ensemble.contains(&lives);
        if !is_due {
            return None;
        }
        let leader = SegmentLeader::new(&open, storage(node), self.bounds.copies_min)?;
        let tail = match &self.nodes[node].role {
            Role::None => return None,
            Role::Leading(old) if old.segment() == open.id => return None,
            Role::Leading(old) => {
                let from = (open.base - self.opened[&old.segment()].0) as usize;
                self.written[&old.segment()][from..].to_vec()
            }
            Role::Recovering(_) => Vec::new(),
        };
        self.append(node, open.id, open.base + tail.len() as Offset)?;
        self.written.insert(open.id, tail);
        self.nodes[node].role = Role::Leading(leader);
        Some(())
    }
}

/// Ends of lives, and what must hold after every step.
impl World {
    fn restart(&mut self, node: usize, life: Life) -> Option<()> {
        if life == Life::Whole {
            if self.restarts >= self.bounds.restarts {
                return None;
            }
            self.restarts += 1;
        }
        let newest = SegmentId(self.next_segment - 1);
        self.nodes[node].replica.restarted(Incarnation(self.next_incarnation), newest, life);
        self.nodes[node].role = Role::None;
        self.next_incarnation += 1;
        Some(())
    }

    fn crash_lossy(&mut self, node: usize, keeps: Offset) -> Option<()> {
        if self.lossy_crashes >= self.bounds.lossy_crashes {
            return None;
        }
        let before = self.nodes[node].replica.clone();
        for segment in self.opened.keys() {
            self.nodes[node].replica.cut(*segment, keeps);
        }
        if before == self.nodes[node].replica {
            return None;
        }
        self.lossy_crashes += 1;
        self.nodes[node].lost = true;
        self.restart(node, Life::Doubtful)
    }

    fn check(&self) -> Result<(), String> {
        for (offset, value) in &self.acked {
            let entry = self.partition.entry_for(*offset);
            let entry = entry.ok_or_else(|| format!("nothing covers {offset}, which was acknowledged"))?;
            let found = self.written[&entry.id].get((offset - entry.base) as usize);
            if found != Some(value) {
                return Err(format!("{offset} was acknowledged as {value} and is {found:?} now"));
            }
        }
        let lossy = self.nodes.iter().filter(|node| node.lost).count();
        for entry in &self.partition.chain {
            let SegmentState::Sealed { end, replicas, .. } = &entry.state else { continue };
            let is_listed = |node: &usize| replicas.contains(&storage(*node));
            let mut whole = 0;
            for node in (0..self.bounds.nodes).filter(is_listed) {
                if self.end(node, entry.id) >= *end {
                    whole += 1;
                } else if !self.nodes[node].lost {
                    return Err(format!("node {node} is listed for segment {} and lacks its end", entry.id));
                }
            }
            if whole == 0 && lossy < self.bounds.copies_min {
                return Err(format!("no copy of segment {} is left", entry.id));
            }
        }
        Ok(())
    }
}
