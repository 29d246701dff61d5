//! One classic group: its members, its state and the rules that need nothing but them.
//!
//! Invariants, which the methods keep and [`Group::check`] states:
//! - a group with members has a leader, and it is one of them; a group without members has none;
//! - every instance id leads to the member that bears it;
//! - `protocol_counts` and `parked_joins` agree with the members;
//! - `Empty` means no members; `CompletingRebalance` and `Stable` mean some.
//!
//! What it does not do: answer anyone, write records, or look at the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::error::ErrorCode;
use base::ids::TimestampMs;

use crate::append::AppendId;
use crate::consumer_protocol;
use crate::member::{Member, PendingMember};
use crate::memory::{self, Share};
use crate::request::{Protocol, Token};
use crate::timer::Timer;

/// Where a group stands. A group that does not exist shows as `Dead`, so that is no state here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupState {
    /// No members; it may hold offsets.
    Empty,
    /// Members come back or new ones come; nobody has the next generation yet.
    PreparingRebalance,
    /// The generation is fixed; the leader owes the assignment.
    CompletingRebalance,
    /// Every member can have its assignment.
    Stable,
}

impl GroupState {
    /// Kafka's name of the state.
    pub(crate) fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
        }
    }
}

/// What is left of the delay before the first rebalance of an empty group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InitialDelay {
    pub(crate) current_ms: i32,
    pub(crate) remaining_ms: i32,
}

/// A classic group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: Arc<str>,
    pub(crate) state: GroupState,
    /// When the state began; `None` for groups from records that did not say.
    pub(crate) state_since_ms: Option<TimestampMs>,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol_name: Option<String>,
    pub(crate) leader: Option<Arc<str>>,
    pub(crate) members: BTreeMap<Arc<str>, Member>,
    /// Member ids by instance id.
    pub(crate) static_members: BTreeMap<Arc<str>, Arc<str>>,
    /// Ids handed out to clients that have not come back with them yet.
    pub(crate) pending_members: BTreeMap<Arc<str>, PendingMember>,
    /// Members of this generation that have not asked for their assignment yet.
    pub(crate) pending_sync: BTreeSet<Arc<str>>,
    /// In the first rebalance after `Empty`: how long it still waits.
    pub(crate) initial_delay: Option<InitialDelay>,
    /// A member came during the initial delay, so it may be extended.
    pub(crate) member_came: bool,
    /// Topics the members read, if they tell by the consumer protocol.
    pub(crate) subscribed_topics: Option<BTreeSet<String>>,
    /// What the group itself holds, and its set of topics.
    share: Share,
    /// The append that carries the assignment of this generation.
    pub(crate) assignment_append: Option<AppendId>,
    pub(crate) join_timer: Timer,
    pub(crate) sync_timer: Timer,
    protocol_counts: BTreeMap<String, usize>,
    /// Members whose JoinGroup is parked, by its token.
    parked_joins: BTreeMap<Token, Arc<str>>,
    next_arrival: u64,
}

/// The most topics the coordinator keeps in mind for a group; one that reads more counts as subscribed to every topic.
const MAX_SUBSCRIBED_TOPICS: usize = 100_000;

/// The protocol type of consumers, whose metadata the coordinator can read.
const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

impl Group {
    /// An empty group, counted by `share`.
    pub(crate) fn new(id: Arc<str>, state_since_ms: Option<TimestampMs>, share: Share) -> Group {
        Group {
            id,
            state: GroupState::Empty,
            state_since_ms,
            generation: 0,
            protocol_type: None,
            protocol_name: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_members: BTreeMap::new(),
            pending_sync: BTreeSet::new(),
            initial_delay: None,
            member_came: false,
            subscribed_topics: None,
            share,
            assignment_append: None,
            join_timer: Timer::default(),
            sync_timer: Timer::default(),
            protocol_counts: BTreeMap::new(),
            parked_joins: BTreeMap::new(),
            next_arrival: 0,
        }
    }

    /// Moves to another state.
    pub(crate) fn transition(&mut self, state: GroupState, now_ms: TimestampMs) {
        self.state = state;
        self.state_since_ms = Some(now_ms);
    }

    /// True if the group never had a member, so that no record tells of it but its offsets'.
    pub(crate) fn is_unrecorded(&self) -> bool {
        self.state == GroupState::Empty && self.protocol_type.is_none() && self.generation == 0
    }

    /// True if nothing would be lost by forgetting the group, save offsets kept elsewhere.
    pub(crate) fn is_hollow(&self) -> bool {
        self.is_unrecorded() && self.pending_members.is_empty()
    }

    /// Makes an empty group ready to be put aside and perhaps taken back: while it is away its deadlines come up and
    /// are dropped, so it must hold none. Clients with an id not used yet will ask for another one.
    pub(crate) fn put_aside(&mut self) {
        self.pending_members.clear();
        self.join_timer = Timer::default();
        self.sync_timer = Timer::default();
    }

    /// Makes a group whose only members went before they ever had an answer what it was before they came, so that
    /// no record need be written of it. False, and nothing happens, if it has had a generation or has members.
    pub(crate) fn forget_beginning(&mut self, now_ms: TimestampMs) -> bool {
        if self.generation > 0 || !self.members.is_empty() {
            return false;
        }
        self.transition(GroupState::Empty, now_ms);
        self.protocol_type = None;
        self.initial_delay = None;
        self.join_timer.cancel();
        true
    }

    /// True if the members speak the consumer protocol.
    pub(crate) fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    /// True if `id` leads the group.
    pub(crate) fn is_leader(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }

    /// The leader's id, empty if there is none.
    pub(crate) fn leader_id(&self) -> String {
        self.leader.as_deref().unwrap_or_default().to_owned()
    }

    /// Time for members to come back: the most any of them asks for.
    pub(crate) fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    /// Adds a member. The first one gives the protocol type and leads.
    pub(crate) fn add(&mut self, mut member: Member, protocol_type: &str) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.to_owned());
        }
        self.next_arrival += 1;
        member.arrival = self.next_arrival;
        self.pending_members.remove(&member.id);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), member.id.clone());
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        self.parked_joins.extend(member.parked_join.map(|token| (token, member.id.clone())));
        self.count_protocols(&member.protocols, 1);
        self.members.insert(member.id.clone(), member);
    }

    /// Takes a member out; the longest-standing other one leads if it led.
    pub(crate) fn remove(&mut self, id: &str) -> Option<Member> {
        self.pending_sync.remove(id);
        let member = self.members.remove(id)?;
        self.count_protocols(&member.protocols, -1);
        member.parked_join.map(|token| self.parked_joins.remove(&token));
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if self.is_leader(id) {
            self.leader = self.longest_standing(|_| true);
        }
        Some(member)
    }

    /// Gives a static member another member id and keeps everything else. The caller has answered what was parked.
    pub(crate) fn rename(&mut self, old_id: &str, new_id: Arc<str>) -> bool {
        let Some(mut member) = self.members.remove(old_id) else { return false };
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), new_id.clone());
        }
        if self.is_leader(old_id) {
            self.leader = Some(new_id.clone());
        }
        if self.pending_sync.remove(old_id) {
            self.pending_sync.insert(new_id.clone());
        }
        member.id = new_id.clone();
        member.share.set(member.bytes());
        member.session = Timer::default();
        self.members.insert(new_id, member);
        true
    }

    /// Replaces a member's protocols.
    pub(crate) fn set_protocols(&mut self, id: &str, protocols: Vec<Protocol>) -> Vec<Protocol> {
        let Some(member) = self.members.get_mut(id) else { return protocols };
        let old = std::mem::replace(&mut member.protocols, protocols.clone());
        self.count_protocols(&old, -1);
        self.count_protocols(&protocols, 1);
        old
    }

    fn count_protocols(&mut self, protocols: &[Protocol], change: isize) {
        for protocol in protocols {
            let count = self.protocol_counts.entry(protocol.name.clone()).or_default();
            *count = count.saturating_add_signed(change);
            if *count == 0 {
                self.protocol_counts.remove(&protocol.name);
            }
        }
    }

    /// Parks a JoinGroup; returns the one it displaces.
    pub(crate) fn park_join(&mut self, id: &str, token: Token) -> Option<Token> {
        let displaced = self.take_join(id);
        if let Some(member) = self.members.get_mut(id) {
            member.parked_join = Some(token);
            self.parked_joins.insert(token, member.id.clone());
        }
        displaced
    }

    /// Takes a parked JoinGroup to answer it.
    pub(crate) fn take_join(&mut self, id: &str) -> Option<Token> {
        let token = self.members.get_mut(id)?.parked_join.take()?;
        self.parked_joins.remove(&token);
        Some(token)
    }

    /// The member whose JoinGroup is parked under this token.
    pub(crate) fn joining(&self, token: Token) -> Option<&Member> {
        self.members.get(self.parked_joins.get(&token)?)
    }

    /// How many members have come back in this rebalance.
    pub(crate) fn awaiting_join(&self) -> usize {
        self.parked_joins.len()
    }

    /// True if nobody is waited for any more.
    pub(crate) fn all_joined(&self) -> bool {
        self.awaiting_join() == self.members.len() && self.pending_members.is_empty()
    }

    fn longest_standing(&self, wanted: impl Fn(&Member) -> bool) -> Option<Arc<str>> {
        let candidates = self.members.values().filter(|member| wanted(member));
        candidates.min_by_key(|member| member.arrival).map(|member| member.id.clone())
    }

    /// Makes sure the leader is one that came back. False if nobody did.
    pub(crate) fn elect_joined_leader(&mut self) -> bool {
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id));
        if leader.is_some_and(|member| member.parked_join.is_some()) {
            return true;
        }
        match self.longest_standing(|member| member.parked_join.is_some()) {
            Some(id) => {
                tracing::info!(group = %self.id, leader = %id, "the leader did not come back, another one leads");
                self.leader = Some(id);
                true
            }
            None => false,
        }
    }

    /// True if a member with these protocols can be in the group.
    pub(crate) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.state == GroupState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|protocol| self.is_supported_by_all(&protocol.name))
    }

    fn is_supported_by_all(&self, protocol_name: &str) -> bool {
        self.protocol_counts.get(protocol_name).copied().unwrap_or(0) == self.members.len()
    }

    /// The protocol all members support that most of them like best; among equals the one the leader prefers.
    pub(crate) fn select_protocol(&self) -> Option<String> {
        let leader = self.members.get(self.leader.as_ref()?)?;
        let candidates: Vec<&str> = leader.protocols.iter().map(|protocol| protocol.name.as_str()).collect();
        let mut votes = vec![0usize; candidates.len()];
        for member in self.members.values() {
            let favourite = member.protocols.iter().find(|protocol| self.is_supported_by_all(&protocol.name));
            let index = favourite.and_then(|p| candidates.iter().position(|name| *name == p.name));
            if let Some(index) = index {
                votes[index] += 1;
            }
        }
        let most = votes.iter().copied().max().filter(|most| *most > 0)?;
        let index = votes.iter().position(|count| *count == most)?;
        Some(candidates[index].to_owned())
    }

    /// Begins the next generation: fixes the protocol, or empties the group.
    pub(crate) fn start_generation(&mut self, now_ms: TimestampMs, max_memory_bytes: usize) {
        // The number cannot run out in practice; a record from elsewhere may still hold the last one.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.pending_sync.clear();
        self.assignment_append = None;
        self.initial_delay = None;
        let state = if self.members.is_empty() {
            self.protocol_name = None;
            GroupState::Empty
        } else {
            self.protocol_name = self.select_protocol();
            GroupState::CompletingRebalance
        };
        self.transition(state, now_ms);
        self.read_subscribed_topics(max_memory_bytes);
    }

    /// Finds out what the members read: known for the consumer protocol alone, and only if every member's metadata is
    /// well formed and there is room for the topics, which in a set take many times what they take on the wire.
    pub(crate) fn read_subscribed_topics(&mut self, max_memory_bytes: usize) {
        let own_bytes = memory::group_bytes(&self.id);
        self.share.set(own_bytes);
        self.subscribed_topics = self.collect_subscribed_topics();
        let topics = self.subscribed_topics.iter().flatten();
        let bytes = own_bytes + topics.map(|topic| memory::topic_bytes(topic)).sum::<usize>();
        if !self.share.try_set(bytes, max_memory_bytes) {
            tracing::warn!(group = %self.id, bytes,
                "no room for the topics of the members, so the group counts as subscribed to every topic");
            self.subscribed_topics = None;
        }
    }

    fn collect_subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol_name = self.protocol_name.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            match consumer_protocol::subscribed_topics(
                &member.metadata(Some(protocol_name)),
                MAX_SUBSCRIBED_TOPICS,
            ) {
                Some(subscribed) if topics.len() + subscribed.len() <= MAX_SUBSCRIBED_TOPICS => {
                    topics.extend(subscribed);
                }
                _ => {
                    tracing::warn!(group = %self.id, member = %member.id, protocol_name,
                        "the subscription cannot be read or is too long, so the group counts as subscribed to every topic");
                    return None;
                }
            }
        }
        Some(topics)
    }

    /// True if the group reads the topic, or might: a consumer group that did not tell counts as subscribed.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    /// Checks who a request comes from.
    ///
    /// # Errors
    /// FENCED_INSTANCE_ID if another member took over the instance id, UNKNOWN_MEMBER_ID if there is no such member.
    pub(crate) fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(current) if &**current != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// The first invariant that does not hold, in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        let fail = |what: &str| Err(format!("group {}: {what}", self.id));
        let leader_is_member = self.leader.as_ref().is_some_and(|id| self.members.contains_key(id));
        if leader_is_member == self.members.is_empty() {
            return fail("a group has a leader among its members exactly if it has members");
        }
        let parked = |member: &Member| Some((member.parked_join?, member.id.clone()));
        if self.members.values().filter_map(parked).collect::<BTreeMap<_, _>>() != self.parked_joins {
            return fail("a parked join does not lead to its member");
        }
        let statics = self.members.values().filter(|member| member.is_static()).count();
        let bears = |(instance, id): (&Arc<str>, &Arc<str>)| {
            self.members.get(id).is_some_and(|member| member.instance_id.as_ref() == Some(instance))
        };
        if statics != self.static_members.len() || !self.static_members.iter().all(bears) {
            return fail("an instance id does not lead to the member that bears it");
        }
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for protocol in self.members.values().flat_map(|member| &member.protocols) {
            *counts.entry(protocol.name.clone()).or_default() += 1;
        }
        if counts != self.protocol_counts {
            return fail("the counts of protocols are wrong");
        }
        let expects_members = matches!(self.state, GroupState::CompletingRebalance | GroupState::Stable);
        if (self.state == GroupState::Empty && !self.members.is_empty())
            || (expects_members && self.members.is_empty())
        {
            return fail("the state does not fit the members");
        }
        if self.members.values().any(|member| member.share.bytes() != member.bytes()) {
            return fail("a member holds something else than what is counted");
        }
        let assigned = |member: &Member| {
            member.assignment.is_empty() || member.assignment_share.bytes() >= member.assignment.len()
        };
        if self.assignment_append.is_none() && !self.members.values().all(assigned) {
            return fail("an assignment is not counted");
        }
        let parked_sync = self.members.values().any(|member| member.parked_sync.is_some());
        if parked_sync && self.state != GroupState::CompletingRebalance {
            return fail("a sync is parked outside of CompletingRebalance");
        }
        Ok(())
    }
}
