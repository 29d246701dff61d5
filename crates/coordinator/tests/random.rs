//! Random clients, random outcomes of appends and random passing of time, by seed, against what must always hold:
//! - every request is answered exactly once ([`World`] sees that none is answered twice);
//! - the shard's own invariants, after every step;
//! - the generation of a group never falls while the group lives;
//! - what members hold is within its bound, and nothing is left of it when all have gone;
//! - whoever is told that it leads is told the members, and nobody else is;
//! - a shard filled from the log holds the same offsets and the same stable and empty groups.
//!
//! `COORDINATOR_SEEDS=from..to` runs other seeds.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use base::error::ErrorCode;
use base::ids::Uuid;
use bytes::Bytes;
use coordinator::{
    Answer, CommitPartition, CommitTopic, DescribedGroup, Effect, FetchTopic, GroupConfig, GroupShard,
    HeartbeatRequest, JoinAnswer, JoinRequest, KeyValue, LeaveRequest, LeavingMember, ListGroupsRequest,
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchAnswer, OffsetFetchRequest, Protocol, Request,
    SyncRequest, Token,
};
use support::script::subscription;
use support::{AppendFate, World, show};

const STEPS: usize = 400;
const GROUPS: [&str; 3] = ["g", "h", "i"];
const TOPICS: [&str; 3] = ["t", "u", "v"];

/// A small generator, so that a seed gives the same run everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

/// What a well-behaved client does next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Next {
    #[default]
    Join,
    Sync,
    Heartbeat,
}

/// What a client believes.
#[derive(Clone, Debug, Default)]
struct Client {
    next: Next,
    waits_for: Option<Token>,
    group: String,
    instance_id: Option<String>,
    member_id: String,
    generation: i32,
    protocol: String,
    members: Vec<String>,
}

struct Run {
    world: World,
    random: Random,
    clients: Vec<Client>,
    /// Which client a token belongs to.
    asked_by: BTreeMap<Token, usize>,
    /// Highest generation told, by group, since the group was last deleted.
    generations: BTreeMap<String, i32>,
    /// Groups whose last record is not in the log although they went on.
    unsaved: BTreeSet<String>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let config = GroupConfig {
            // Every other run is short of memory; a member takes about 1,200 bytes.
            max_memory_bytes: if seed.is_multiple_of(2) { 1 << 20 } else { 6_000 },
            initial_rebalance_delay_ms: 500,
            offsets_retention_ms: 300_000,
            offsets_retention_check_interval_ms: 20_000,
            max_tombstone_bytes_per_append: 150,
            ..GroupConfig::default()
        };
        let mut random = Random(seed);
        let clients = (0..8).map(|index| Client {
            group: random.pick(&GROUPS).to_owned(),
            // Some share an instance id, as a client that is started twice does.
            instance_id: (index % 2 == 0).then(|| format!("i{}", index / 4)),
            generation: -1,
            ..Client::default()
        });
        let clients = clients.collect();
        Run {
            world: World::new(config),
            random,
            clients,
            asked_by: BTreeMap::new(),
            generations: BTreeMap::new(),
            unsaved: BTreeSet::new(),
        }
    }

    fn step(&mut self) {
        if !self.random.one_in(3) {
            self.behave();
            return;
        }
        match self.random.below(40) {
            0..=7 => self.client_asks(Run::join),
            8..=14 => self.client_asks(Run::sync),
            15..=17 => self.client_asks(Run::heartbeat),
            18..=19 => self.client_asks(Run::leave),
            20..=24 => self.client_asks(Run::commit),
            25..=26 => self.client_asks(Run::fetch),
            27 => self.client_asks(Run::admin),
            28..=31 => {
                let by_ms = self.random.pick(&[1, 1, 100, 100, 500, 500, 3_000, 3_000, 8_000, 30_000]);
                self.advance(by_ms);
            }
            32 => self.world.hold = true,
            34 => self.client_goes(),
            33 => {
                let topic = self.random.pick(&TOPICS).to_owned();
                let effects = self.world.shard.topics_deleted(&[(topic, Uuid::ZERO)], self.world.now_ms);
                self.take(effects);
            }
            _ => self.settle_one(),
        }
    }

    /// Some client does what a client should, unless it waits for an answer.
    fn behave(&mut self) {
        match self.random.below(10) {
            0..=1 if self.world.hold => return self.settle_one(),
            2 => return self.advance(300),
            _ => {}
        }
        let index = self.random.below(self.clients.len());
        match self.clients[index].next {
            _ if self.clients[index].waits_for.is_some() => {}
            Next::Join => self.ask_as(index, Run::join),
            Next::Sync => self.ask_as(index, Run::sync),
            Next::Heartbeat => self.ask_as(index, Run::heartbeat),
        }
    }

    fn client_asks(&mut self, request: impl FnOnce(&mut Run, usize) -> Request) {
        let index = self.random.below(self.clients.len());
        self.ask_as(index, request);
    }

    fn ask_as(&mut self, index: usize, request: impl FnOnce(&mut Run, usize) -> Request) {
        let request = request(self, index);
        let token = self.world.token();
        self.asked_by.insert(token, index);
        self.clients[index].waits_for = Some(token);
        let effects = self.world.request(token, request);
        self.hear(&effects);
    }

    /// A connection ends, and with it what waits for an answer.
    fn client_goes(&mut self) {
        let index = self.random.below(self.clients.len());
        let client = &mut self.clients[index];
        if let Some(token) = client.waits_for {
            let effects = self.world.shard.client_gone(&client.group, token, self.world.now_ms);
            self.take(effects);
        }
    }

    fn advance(&mut self, by_ms: i64) {
        for (_, effects) in self.world.advance(by_ms) {
            self.hear(&effects);
        }
    }

    fn take(&mut self, effects: Vec<Effect>) {
        let effects = self.world.take(effects);
        self.hear(&effects);
    }

    fn settle_one(&mut self) {
        if self.world.open.is_empty() {
            self.world.hold = false;
            return;
        }
        let fate = match self.random.below(10) {
            0..=1 => AppendFate::Failed(self.random.pick(&[
                ErrorCode::NotEnoughReplicas,
                ErrorCode::NotLeaderOrFollower,
                ErrorCode::MessageTooLarge,
            ])),
            2 => AppendFate::TimedOut,
            _ => AppendFate::Written,
        };
        if let Some((_, records)) = self.world.open.front().cloned() {
            self.note_saved(&records, fate);
        }
        let effects = self.world.settle(fate);
        self.hear(&effects);
    }

    /// Keeps track of groups that went on although their record was lost.
    fn note_saved(&mut self, records: &[KeyValue], fate: AppendFate) {
        for record in records {
            let shown = show::record(record);
            let Some(rest) = shown.strip_prefix("group ") else { continue };
            let group = rest.split(' ').next().unwrap_or_default().to_owned();
            match fate {
                AppendFate::Written => self.unsaved.remove(&group),
                AppendFate::Failed(_) => self.unsaved.insert(group),
                AppendFate::TimedOut => false,
            };
        }
    }

    fn hear(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Append { records, .. } => {
                    if !self.world.hold {
                        self.note_saved(records, AppendFate::Written);
                    }
                    for record in records.iter().map(show::record) {
                        let deleted = record.strip_prefix("group ").and_then(|r| r.strip_suffix(" removed"));
                        deleted.map(|group| self.generations.remove(group));
                    }
                }
                Effect::Reply { token, answer } => self.hear_answer(*token, answer),
            }
        }
    }

    fn hear_answer(&mut self, token: Token, answer: &Answer) {
        let client = &mut self.clients[self.asked_by[&token]];
        client.waits_for = client.waits_for.filter(|waited| *waited != token);
        match answer {
            Answer::Join(answer) => self.hear_join(token, answer),
            Answer::Sync(answer) if answer.error == ErrorCode::None => client.next = Next::Heartbeat,
            Answer::Sync(_) => client.next = Next::Join,
            Answer::Heartbeat(error) if error.is_error() => client.next = Next::Join,
            _ => {}
        }
    }

    fn hear_join(&mut self, token: Token, answer: &JoinAnswer) {
        let client = &mut self.clients[self.asked_by[&token]];
        client.next = if answer.error == ErrorCode::None { Next::Sync } else { Next::Join };
        match answer.error {
            ErrorCode::None => {
                let highest = self.generations.entry(client.group.clone()).or_insert(answer.generation);
                assert!(answer.generation >= *highest, "generation {} after {highest}", answer.generation);
                *highest = answer.generation;
                assert_eq!(answer.leader == answer.member_id, !answer.members.is_empty(), "{answer:?}");
                client.member_id.clone_from(&answer.member_id);
                client.generation = answer.generation;
                client.protocol = answer.protocol_name.clone().expect("a join names the protocol");
                client.members = answer.members.iter().map(|member| member.member_id.clone()).collect();
            }
            ErrorCode::MemberIdRequired => client.member_id.clone_from(&answer.member_id),
            _ => {
                client.member_id.clear();
                client.generation = -1;
            }
        }
    }

    fn generation(&mut self, index: usize) -> i32 {
        let generation = self.clients[index].generation;
        if self.random.one_in(20) { generation - 1 } else { generation }
    }

    fn join(&mut self, index: usize) -> Request {
        let api_version = self.random.pick(&[0, 3, 5, 9]);
        let changes = self.random.one_in(8);
        let names: &[&str] = match self.random.below(3) {
            0 if changes => &["other"],
            1 if changes => &["sticky"],
            _ => [&["range", "sticky"][..], &["sticky", "range"]][index % 2],
        };
        let topics = if changes { self.random.pick(&["t", "u", "v"]) } else { "t+u" };
        let protocols =
            names.iter().map(|name| Protocol { name: (*name).into(), metadata: subscription(topics) });
        let member_uuid = self.world.uuid();
        let client = &self.clients[index];
        let forgets_id = self.random.one_in(20);
        Request::Join(JoinRequest {
            api_version,
            group_id: client.group.clone(),
            member_id: if forgets_id { String::new() } else { client.member_id.clone() },
            instance_id: client.instance_id.clone().filter(|_| api_version >= 5),
            client_id: format!("c{index}"),
            client_host: "127.0.0.1".into(),
            session_timeout_ms: self.random.pick(&[6_000, 10_000, 45_000]),
            rebalance_timeout_ms: self.random.pick(&[0, 5_000, 60_000]),
            protocol_type: "consumer".into(),
            protocols: protocols.collect(),
            reason: None,
            member_uuid,
        })
    }

    fn sync(&mut self, index: usize) -> Request {
        let generation = self.generation(index);
        let client = &self.clients[index];
        let assignments =
            client.members.iter().map(|id| (id.clone(), Bytes::from(format!("{generation}:{id}"))));
        Request::Sync(SyncRequest {
            api_version: 5,
            group_id: client.group.clone(),
            generation,
            member_id: client.member_id.clone(),
            instance_id: client.instance_id.clone(),
            protocol_type: Some("consumer".into()),
            protocol_name: Some(client.protocol.clone()),
            assignments: assignments.collect(),
        })
    }

    fn heartbeat(&mut self, index: usize) -> Request {
        let generation = self.generation(index);
        let client = &self.clients[index];
        Request::Heartbeat(HeartbeatRequest {
            group_id: client.group.clone(),
            generation,
            member_id: client.member_id.clone(),
            instance_id: client.instance_id.clone(),
        })
    }

    fn leave(&mut self, index: usize) -> Request {
        let by_instance_alone = self.random.one_in(3);
        let client = &self.clients[index];
        let member = LeavingMember {
            member_id: if by_instance_alone { String::new() } else { client.member_id.clone() },
            instance_id: client.instance_id.clone(),
            reason: None,
        };
        Request::Leave(LeaveRequest { group_id: client.group.clone(), members: vec![member] })
    }

    fn commit(&mut self, index: usize) -> Request {
        let is_member = !self.random.one_in(3);
        let generation = if is_member { self.generation(index) } else { -1 };
        let retention_time_ms = self.random.pick(&[-1, -1, 60_000]);
        let partitions = (0..1 + self.random.below(2)).map(|_| CommitPartition {
            partition: self.random.below(2) as i32,
            offset: self.random.below(1_000) as i64,
            // No version of the request has both a retention and a leader epoch.
            leader_epoch: if retention_time_ms == -1 { 1 } else { -1 },
            metadata: None,
        });
        let partitions = partitions.collect();
        let name = self.random.pick(&TOPICS).into();
        let client = &self.clients[index];
        Request::OffsetCommit(OffsetCommitRequest {
            api_version: 9,
            group_id: client.group.clone(),
            generation,
            member_id: if is_member { client.member_id.clone() } else { String::new() },
            instance_id: client.instance_id.clone().filter(|_| is_member),
            retention_time_ms,
            topics: vec![CommitTopic { name, topic_id: Uuid::ZERO, partitions }],
        })
    }

    fn fetch(&mut self, index: usize) -> Request {
        let topics = self
            .random
            .one_in(2)
            .then(|| vec![FetchTopic { name: "t".into(), topic_id: Uuid::ZERO, partitions: vec![0, 1, 2] }]);
        let require_stable = self.random.one_in(2);
        Request::OffsetFetch(OffsetFetchRequest {
            group_id: self.clients[index].group.clone(),
            topics,
            require_stable,
        })
    }

    fn admin(&mut self, index: usize) -> Request {
        let group_id = self.clients[index].group.clone();
        match self.random.below(4) {
            0 => Request::DeleteGroups { groups: vec![group_id, "unknown".into()] },
            1 => Request::OffsetDelete(OffsetDeleteRequest {
                group_id,
                topics: vec![("t".into(), vec![0, 1]), ("u".into(), vec![0])],
            }),
            2 => Request::DescribeGroups { groups: vec![group_id], api_version: 6 },
            _ => Request::ListGroups(ListGroupsRequest::default()),
        }
    }

    /// Decides every open append and compares the shard with one filled from the log.
    fn compare_with_log(&mut self) {
        while let Some((_, records)) = self.world.open.front().cloned() {
            self.note_saved(&records, AppendFate::Written);
            let effects = self.world.settle(AppendFate::Written);
            self.hear(&effects);
        }
        let now_ms = self.world.now_ms;
        let mut loaded = self.world.reloaded();
        for group in GROUPS {
            let (live_offsets, log_offsets) =
                (fetch_all(&mut self.world.shard, group, now_ms), fetch_all(&mut loaded, group, now_ms));
            assert_eq!(live_offsets, log_offsets, "offsets of {group}");
            if self.unsaved.contains(group) {
                continue;
            }
            let (live, logged) =
                (describe(&mut self.world.shard, group, now_ms), describe(&mut loaded, group, now_ms));
            match live.state {
                "Stable" => assert_eq!(live, logged),
                // A group that never had a generation leaves no record.
                "Empty" if !live.protocol_type.is_empty() => assert_eq!(live, logged),
                "Dead" => assert!(["Dead", "Empty"].contains(&logged.state), "{logged:?}"),
                _ => {}
            }
        }
    }

    /// Everyone goes silent: whoever waits is answered in the end.
    fn finish(&mut self) {
        self.world.hold = false;
        self.compare_with_log();
        self.advance(3_600_000);
        assert_eq!(self.world.unanswered(), [], "requests without an answer");
        let memory = &self.world.memory;
        assert_eq!(memory.member_bytes(), 0, "members have gone and still hold memory");
        assert_eq!(memory.record_bytes(), 0, "records are in the log and still hold memory");
        let size = self.world.shard.size();
        assert_eq!(
            (size.preparing_groups, size.completing_groups, size.stable_groups),
            (0, 0, 0),
            "{size:?}"
        );
        assert_eq!(size.offsets, 0, "offsets of groups nobody uses end");
        self.compare_with_log();
    }
}

fn ask(shard: &mut GroupShard, request: Request, now_ms: i64) -> Answer {
    match shard.request(Token(u64::MAX), request, now_ms).remove(0) {
        Effect::Reply { answer, .. } => answer,
        other @ Effect::Append { .. } => panic!("a read appends nothing: {other:?}"),
    }
}

fn fetch_all(shard: &mut GroupShard, group: &str, now_ms: i64) -> OffsetFetchAnswer {
    let request = OffsetFetchRequest { group_id: group.into(), topics: None, require_stable: false };
    match ask(shard, Request::OffsetFetch(request), now_ms) {
        Answer::OffsetFetch(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn describe(shard: &mut GroupShard, group: &str, now_ms: i64) -> DescribedGroup {
    let request = Request::DescribeGroups { groups: vec![group.into()], api_version: 5 };
    match ask(shard, request, now_ms) {
        Answer::DescribeGroups(mut groups) => groups.remove(0),
        other => panic!("{other:?}"),
    }
}

fn seeds() -> std::ops::Range<u64> {
    let asked = std::env::var("COORDINATOR_SEEDS").ok();
    let range = asked.and_then(|text| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    range.unwrap_or(0..300)
}

#[test]
fn random_clients_find_nothing_broken() {
    let mut stable = 0;
    for seed in seeds() {
        println!("seed {seed}");
        let mut run = Run::new(seed);
        for step in 0..STEPS {
            run.step();
            let (held, max) = (run.world.memory.member_bytes(), run.world.config.max_memory_bytes);
            assert!(held <= max, "{held} bytes held, {max} allowed");
            if step % 50 == 49 && !run.world.hold {
                run.compare_with_log();
            }
        }
        stable += run.world.shard.counters().completed_rebalances;
        run.finish();
    }
    assert!(
        stable > 3 * seeds().count() as u64,
        "only {stable} generations became stable: the test tests nothing"
    );
}
