//! The small language of the scenario files: one command a line, `verb [name] key=value ...`.
//!
//! A request's answer is shown under its name (the verb, if none is given), so that a parked one is recognised later.
//! Member ids are written `client-#1`, where #1, #2, ... count the ids given by the world.

use std::collections::BTreeMap;

use base::error::ErrorCode;
use base::ids::Uuid;
use bytes::Bytes;
use coordinator::{
    CommitPartition, CommitTopic, Effect, FetchTopic, GroupConfig, HeartbeatRequest, JoinRequest,
    LeaveRequest, LeavingMember, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, Protocol, Request, SyncRequest, Token, partition_for,
};
use wire::Writer;
use wire::message::ConsumerProtocolSubscription;

use super::{AppendFate, World, show};

/// Words of one command.
struct Words {
    name: Option<String>,
    flags: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Words {
    fn parse(verb: &str, rest: &str) -> Words {
        let mut words = Words { name: None, flags: Vec::new(), values: BTreeMap::new() };
        for word in rest.split_whitespace() {
            match word.split_once('=') {
                Some((key, value)) => {
                    words.values.insert(key.to_owned(), show::long_ids(value));
                }
                None => words.flags.push(word.to_owned()),
            }
        }
        let takes_name =
            ["join", "sync", "leave", "commit", "fetch", "delete-offsets", "delete-groups"].contains(&verb);
        if takes_name && !words.flags.is_empty() {
            words.name = Some(words.flags.remove(0));
        }
        words
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    fn text(&self, key: &str, default: &str) -> String {
        let value = self.get(key).unwrap_or(default);
        if value == "-" { String::new() } else { value.to_owned() }
    }

    fn number<T: std::str::FromStr>(&self, key: &str, default: T) -> T {
        match self.get(key) {
            Some(value) => value.parse().ok().unwrap_or_else(|| panic!("{key}={value} is not a number")),
            None => default,
        }
    }

    fn optional(&self, key: &str) -> Option<String> {
        self.get(key).map(str::to_owned)
    }

    fn list(&self, key: &str) -> Vec<String> {
        let items = self.get(key).unwrap_or_default().split(',').filter(|item| !item.is_empty());
        items.map(|item| if item == "-" { String::new() } else { item.to_owned() }).collect()
    }
}

/// Runs commands and shows what happened.
pub(crate) struct Script {
    pub(crate) world: World,
    names: BTreeMap<Token, String>,
}

impl Script {
    pub(crate) fn new() -> Script {
        Script { world: World::new(GroupConfig::default()), names: BTreeMap::new() }
    }

    /// Runs one command line; returns what to show, line by line.
    pub(crate) fn run(&mut self, line: &str) -> String {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words = Words::parse(verb, rest);
        let text = match verb {
            "ack" | "fail" | "timeout" if self.world.open.is_empty() => "(nothing is open)\n".to_owned(),
            "advance" => self.advance(&words),
            "log" => self.world.log.iter().map(|record| show::record(record) + "\n").collect(),
            "partition" => {
                let partition = partition_for(&words.text("group", "g"), words.number("of", 50));
                format!("{partition:?}\n")
            }
            "size" => format!("{:?}\n", self.world.shard.size()),
            "counters" => format!("{:?}\n", self.world.shard.counters()),
            "memory" => {
                let memory = &self.world.memory;
                let records = match memory.record_bytes() {
                    0 => String::new(),
                    bytes => format!(" records={bytes}"),
                };
                format!("members={} groups={}{records}\n", memory.member_bytes(), memory.group_bytes())
            }
            "deadline" => format!("{:?}\n", self.world.shard.next_deadline()),
            _ => {
                let effects = self.command(verb, &words);
                self.show(&effects)
            }
        };
        show::short_ids(&text)
    }

    fn command(&mut self, verb: &str, words: &Words) -> Vec<Effect> {
        match verb {
            "config" => self.config(words),
            "hold" => {
                self.world.hold = true;
                Vec::new()
            }
            "ack" => self.world.settle(AppendFate::Written),
            "fail" => {
                let name = words.flags.first().map_or("NOT_ENOUGH_REPLICAS", String::as_str);
                let error = ErrorCode::ALL.iter().find(|code| code.name() == name);
                self.world.settle(AppendFate::Failed(*error.unwrap_or_else(|| panic!("no error {name}"))))
            }
            "timeout" => self.world.settle(AppendFate::TimedOut),
            "release" => {
                self.world.hold = false;
                self.world.take(Vec::new())
            }
            "gone" => self.gone(words),
            "reload" => self.reload(),
            "resign" => {
                let (config, memory) = (self.world.config.clone(), self.world.memory.clone());
                let next = coordinator::GroupShard::sharing(config, memory);
                let shard = std::mem::replace(&mut self.world.shard, next);
                self.world.open.clear();
                let effects = shard.resign();
                self.world.take(effects)
            }
            "delete-topics" => {
                let topics: Vec<(String, Uuid)> = words.flags.iter().map(|name| topic(name)).collect();
                let effects = self.world.shard.topics_deleted(&topics, self.world.now_ms);
                self.world.take(effects)
            }
            _ => {
                let request = self.parse(verb, words);
                let token = self.world.token();
                self.names.insert(token, words.name.clone().unwrap_or_else(|| verb.to_owned()));
                self.world.request(token, request)
            }
        }
    }

    fn config(&mut self, words: &Words) -> Vec<Effect> {
        let config = &mut self.world.config;
        for (key, value) in &words.values {
            let number: i64 = value.parse().unwrap_or_else(|_| panic!("{key}={value} is not a number"));
            match key.as_str() {
                "initial-delay" => config.initial_rebalance_delay_ms = number as i32,
                "max-size" => config.max_size = number as usize,
                "retention" => config.offsets_retention_ms = number,
                "check-interval" => config.offsets_retention_check_interval_ms = number,
                "max-pending" => config.max_pending_members = number as usize,
                "max-groups" => config.max_groups = number as usize,
                "max-memory" => config.max_memory_bytes = number as usize,
                "max-protocols" => config.max_member_protocols = number as usize,
                "max-metadata" => config.max_member_metadata_bytes = number as usize,
                "max-tombstones" => config.max_tombstone_bytes_per_append = number as usize,
                _ => panic!("no setting {key}"),
            }
        }
        self.world.shard.set_config(self.world.config.clone());
        Vec::new()
    }

    /// The client that waits for the last answer of this name goes.
    fn gone(&mut self, words: &Words) -> Vec<Effect> {
        let name = words.flags.first().expect("gone needs a name");
        let asked = self.names.iter().rev().find(|(_, asked)| *asked == name);
        let token = *asked.unwrap_or_else(|| panic!("nobody asked as {name}")).0;
        let effects = self.world.shard.client_gone(&words.text("group", "g"), token, self.world.now_ms);
        self.world.take(effects)
    }

    fn reload(&mut self) -> Vec<Effect> {
        self.world.open.clear();
        self.world.shard = self.world.reloaded_sharing(self.world.memory.clone());
        let effects = self.world.shard.finish_loading(self.world.now_ms);
        self.world.take(effects)
    }

    fn advance(&mut self, words: &Words) -> String {
        let by_ms: i64 = words.flags.first().and_then(|text| text.parse().ok()).expect("advance by how much");
        let mut text = String::new();
        for (at_ms, effects) in self.world.advance(by_ms) {
            let shown = self.show(&effects);
            if !shown.is_empty() {
                text.push_str(&format!("[{at_ms}]\n{shown}"));
            }
        }
        text
    }

    fn show(&self, effects: &[Effect]) -> String {
        let mut text = String::new();
        for effect in effects {
            match effect {
                Effect::Reply { token, answer } => {
                    let name = &self.names[token];
                    let shown = show::answer(answer);
                    let verb = shown.split_whitespace().next().unwrap_or_default();
                    let prefix = if name == verb { String::new() } else { format!("{name}: ") };
                    text.push_str(&format!("{prefix}{shown}\n"));
                }
                Effect::Append { id, records } => {
                    text.push_str(&format!("append {}\n", id.0));
                    for record in records {
                        text.push_str(&format!("  {}\n", show::record(record).replace('\n', "\n  ")));
                    }
                }
            }
        }
        text
    }

    fn parse(&mut self, verb: &str, words: &Words) -> Request {
        let group_id = words.text("group", "g");
        let member_id = words.text("member", "-");
        let instance_id = words.optional("instance");
        let generation = words.number("generation", -1);
        match verb {
            "join" => Request::Join(self.parse_join(words)),
            "sync" => Request::Sync(SyncRequest {
                api_version: words.number("v", 5),
                group_id,
                generation,
                member_id,
                instance_id,
                protocol_type: Some(words.text("type", "consumer"))
                    .filter(|_| words.get("type") != Some("null")),
                protocol_name: Some(words.text("name", "range"))
                    .filter(|_| words.get("name") != Some("null")),
                assignments: words.list("assign").iter().map(|item| assignment(item)).collect(),
            }),
            "heartbeat" => {
                Request::Heartbeat(HeartbeatRequest { group_id, generation, member_id, instance_id })
            }
            "leave" => Request::Leave(LeaveRequest { group_id, members: leaving(words) }),
            "commit" => Request::OffsetCommit(OffsetCommitRequest {
                api_version: words.number("v", 10),
                group_id,
                generation,
                member_id,
                instance_id,
                retention_time_ms: words.number("retention", -1),
                topics: committed(words),
            }),
            "fetch" => Request::OffsetFetch(OffsetFetchRequest {
                group_id,
                topics: words.get("offsets").map(|_| fetched(words)),
                require_stable: words.flags.iter().any(|flag| flag == "stable"),
            }),
            "delete-offsets" => {
                let topics = fetched(words).into_iter().map(|topic| (topic.name, topic.partitions)).collect();
                Request::OffsetDelete(OffsetDeleteRequest { group_id, topics })
            }
            "delete-groups" => Request::DeleteGroups { groups: words.list("groups") },
            "describe" => {
                Request::DescribeGroups { groups: words.list("groups"), api_version: words.number("v", 6) }
            }
            "list" => Request::ListGroups(ListGroupsRequest {
                states: words.list("states"),
                types: words.list("types"),
            }),
            _ => panic!("no command {verb}"),
        }
    }

    fn parse_join(&mut self, words: &Words) -> JoinRequest {
        let protocol_type = words.text("type", "consumer");
        let protocols = words.get("protocols").unwrap_or("range").split(',').filter(|item| *item != "-");
        JoinRequest {
            api_version: words.number("v", 9),
            group_id: words.text("group", "g"),
            member_id: words.text("member", "-"),
            instance_id: words.optional("instance"),
            client_id: words.text("client", "c"),
            client_host: words.text("host", "/127.0.0.1"),
            session_timeout_ms: words.number("session", 10_000),
            rebalance_timeout_ms: words.number("rebalance", 60_000),
            protocols: protocols.map(|item| protocol(item, &protocol_type)).collect(),
            protocol_type,
            reason: words.optional("reason"),
            member_uuid: self.world.uuid(),
        }
    }
}

/// `name` or `name:topic+topic` or, for other types than consumers, `name:text`.
fn protocol(item: &str, protocol_type: &str) -> Protocol {
    let (name, metadata) = item.split_once(':').unwrap_or((item, "t"));
    let metadata = if protocol_type == "consumer" && metadata != "garbage" {
        subscription(metadata)
    } else {
        Bytes::copy_from_slice(metadata.as_bytes())
    };
    Protocol { name: name.to_owned(), metadata }
}

/// A consumer's subscription to topics separated by `+`.
pub(crate) fn subscription(topics: &str) -> Bytes {
    let topics = topics.split('+').map(Into::into).collect();
    let mut writer = Writer::new();
    writer.i16(0);
    let subscription = ConsumerProtocolSubscription { topics, ..ConsumerProtocolSubscription::default() };
    subscription.encode(&mut writer, 0).expect("a small subscription");
    Bytes::from(writer.to_vec())
}

fn assignment(item: &str) -> (String, Bytes) {
    let (member, text) = item.split_once(':').expect("member:text");
    (member.to_owned(), Bytes::copy_from_slice(text.as_bytes()))
}

fn leaving(words: &Words) -> Vec<LeavingMember> {
    let reason = words.optional("reason");
    let member = |item: &String| {
        let (member_id, instance_id) = match item.split_once('/') {
            Some((member_id, instance_id)) => (member_id, Some(instance_id.to_owned())),
            None => (item.as_str(), None),
        };
        let member_id = if member_id == "-" { "" } else { member_id };
        LeavingMember { member_id: member_id.to_owned(), instance_id, reason: reason.clone() }
    };
    words.list("members").iter().map(member).collect()
}

/// `name` or `name:id` with a small number as id.
fn topic(item: &str) -> (String, Uuid) {
    let (name, id) = item.split_once(':').unwrap_or((item, "0"));
    let id: u128 = id.parse().expect("a topic id is a number in tests");
    (name.to_owned(), Uuid(id.to_be_bytes()))
}

/// `topic/partition=offset`, joined by commas; the first `=` has already been cut off.
fn committed(words: &Words) -> Vec<CommitTopic> {
    let mut topics: Vec<CommitTopic> = Vec::new();
    for item in words.list("offsets") {
        let (place, offset) = item.split_once('@').expect("topic/partition@offset");
        let (topic_text, partition) = place.split_once('/').expect("topic/partition");
        let (name, topic_id) = topic(topic_text);
        let metadata = match words.get("metadata") {
            Some(text) if text.starts_with("x*") => Some("x".repeat(text[2..].parse().expect("x*number"))),
            Some(text) if text.starts_with("ž*") => Some("ž".repeat(text[3..].parse().expect("ž*number"))),
            Some(text) => Some(text.to_owned()),
            None => None,
        };
        let partition = CommitPartition {
            partition: partition.parse().expect("a partition is a number"),
            offset: offset.parse().expect("an offset is a number"),
            leader_epoch: words.number("epoch", -1),
            metadata,
        };
        match topics.last_mut().filter(|last| last.name == name && last.topic_id == topic_id) {
            Some(last) => last.partitions.push(partition),
            None => topics.push(CommitTopic { name, topic_id, partitions: vec![partition] }),
        }
    }
    topics
}

fn fetched(words: &Words) -> Vec<FetchTopic> {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for item in words.list("offsets") {
        let (topic_text, partition) = item.split_once('/').expect("topic/partition");
        let (name, topic_id) = topic(topic_text);
        let partition = partition.parse().expect("a partition is a number");
        match topics.last_mut().filter(|last| last.name == name && last.topic_id == topic_id) {
            Some(last) => last.partitions.push(partition),
            None => topics.push(FetchTopic { name, topic_id, partitions: vec![partition] }),
        }
    }
    topics
}
