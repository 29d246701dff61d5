//! What the clients know: which topics were asked for, made and deleted, which records went where.
//!
//! Moments are numbers that grow with every entry, so that "before" and "after" have a meaning for
//! clients that work side by side.

use std::collections::{BTreeMap, HashSet};

use base::batch::{Batches, DecompressBuffer};
use base::error::ErrorCode;
use base::ids::TopicId;

/// The topics that are created and deleted over and over.
pub(crate) const NAMES: [&str; 3] = ["fleeting", "passing", "mayfly"];
/// Partitions of each.
pub(crate) const PARTITIONS: usize = 2;

type Moment = u64;
type Number = u64;

/// What became of a topic, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It must be there.
    Present,
    /// Its deletion was asked for.
    Asked,
    /// Its deletion was acknowledged.
    Deleted,
}

#[derive(Debug)]
struct Topic {
    name: usize,
    /// When its creation was asked for: it cannot hold what was over before.
    asked_at: Moment,
    fate: Fate,
    /// Numbers of the acknowledged records, by partition and offset.
    acknowledged: [BTreeMap<i64, Number>; PARTITIONS],
}

#[derive(Debug)]
struct Record {
    name: usize,
    partition: usize,
    /// The topic it was sent to; none when the topic was named by its name.
    to: Option<TopicId>,
    /// When it could no longer be written: it was answered, or the life ended.
    over_at: Moment,
}

/// What is known of a name.
#[derive(Debug, Default)]
struct Name {
    present: Option<TopicId>,
    /// When a creation without an answer was asked for.
    creating: Option<Moment>,
    /// When something was last asked for or answered.
    changed_at: Moment,
}

/// A record on its way.
#[derive(Debug)]
pub(crate) struct Token {
    number: Number,
    name: usize,
    partition: usize,
    to: Option<TopicId>,
    /// The topic that had the name when it was sent, and since when nothing had changed about the name.
    present: Option<TopicId>,
    changed_at: Moment,
    /// The topic it was sent to had been deleted for certain.
    too_late: bool,
}

/// What a read of a partition must show, from the moment it is asked for.
pub(crate) struct View {
    /// The topic that has the name.
    pub(crate) id: Option<TopicId>,
    partition: usize,
    acknowledged: BTreeMap<i64, Number>,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    topics: BTreeMap<TopicId, Topic>,
    names: [Name; NAMES.len()],
    records: BTreeMap<Number, Record>,
    now: Moment,
    /// Creations and deletions without an answer.
    pub(crate) unclear: usize,
}

impl Ledger {
    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    /// The topic of this name, if it is there for certain.
    pub(crate) fn present(&self, name: usize) -> Option<TopicId> {
        self.names[name].present.filter(|id| self.topics[id].fate == Fate::Present)
    }

    /// A topic to write to: mostly the one of this name, sometimes one that had the name before.
    pub(crate) fn writable(&self, name: usize, draw: u64) -> Option<TopicId> {
        let older = self.topics.iter().filter(|(_, topic)| topic.name == name && draw.is_multiple_of(10));
        let older: Vec<TopicId> = older.map(|(id, _)| *id).collect();
        if older.is_empty() {
            self.names[name].present
        } else {
            Some(older[draw as usize / 10 % older.len()])
        }
    }

    /// Whether a creation or deletion of this name is under way.
    pub(crate) fn is_asked(&self, name: usize) -> bool {
        let name = &self.names[name];
        name.creating.is_some() || name.present.is_some_and(|id| self.topics[&id].fate != Fate::Present)
    }

    /// A creation is about to be sent.
    pub(crate) fn ask_creation(&mut self, name: usize) {
        let now = self.tick();
        (self.names[name].creating, self.names[name].changed_at) = (Some(now), now);
    }

    /// A creation was answered with this id.
    pub(crate) fn created(&mut self, name: usize, id: TopicId) -> Result<(), String> {
        let now = self.tick();
        let asked_at = self.names[name].creating.take().ok_or("nobody asked for the topic")?;
        self.names[name].changed_at = now;
        self.names[name].present = Some(id);
        let topic = Topic { name, asked_at, fate: Fate::Present, acknowledged: Default::default() };
        match self.topics.insert(id, topic) {
            None => Ok(()),
            Some(_) => Err(format!("{id} was given twice")),
        }
    }

    /// A deletion is about to be sent.
    pub(crate) fn ask_deletion(&mut self, id: TopicId) {
        self.turn(id, Fate::Asked);
    }

    /// A deletion was acknowledged.
    pub(crate) fn deleted(&mut self, id: TopicId) {
        self.turn(id, Fate::Deleted);
    }

    fn turn(&mut self, id: TopicId, fate: Fate) {
        let now = self.tick();
        let Some(topic) = self.topics.get_mut(&id) else { return };
        topic.fate = fate;
        let name = &mut self.names[topic.name];
        name.changed_at = now;
        if fate == Fate::Deleted {
            name.present = None;
        }
    }

    /// A number no record has.
    pub(crate) fn number(&mut self) -> Number {
        self.tick()
    }

    /// A record is about to be sent.
    pub(crate) fn send(
        &mut self,
        number: Number,
        name: usize,
        partition: usize,
        to: Option<TopicId>,
    ) -> Token {
        self.records.insert(number, Record { name, partition, to, over_at: Moment::MAX });
        let Name { present, changed_at, .. } = self.names[name];
        let too_late = match to {
            Some(id) => self.topics[&id].fate == Fate::Deleted,
            None => present.is_none() && self.names[name].creating.is_none(),
        };
        Token { number, name, partition, to, present, changed_at, too_late }
    }

    /// A record was acknowledged at this offset.
    pub(crate) fn acknowledged(&mut self, token: &Token, offset: i64) -> Result<(), String> {
        self.refused(token);
        let unchanged = self.names[token.name].changed_at == token.changed_at;
        if token.too_late && (token.to.is_some() || unchanged) {
            return Err(format!("a topic that was deleted took {token:?}"));
        }
        let into = token.to.or(token.present.filter(|_| unchanged));
        let Some(topic) = into.and_then(|id| self.topics.get_mut(&id)) else { return Ok(()) };
        match topic.acknowledged[token.partition].insert(offset, token.number) {
            None => Ok(()),
            Some(_) => Err(format!("offset {offset} was given twice, to {token:?} at last")),
        }
    }

    /// A record was answered; it can no longer be written.
    pub(crate) fn refused(&mut self, token: &Token) {
        let now = self.tick();
        self.records.entry(token.number).and_modify(|record| record.over_at = now);
    }

    /// Whether what is known of the topics is reason enough for this answer.
    pub(crate) fn explains(&self, token: &Token, code: ErrorCode) -> bool {
        let gone = [
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::UnknownTopicId,
            // The log was closed while the batch was queued.
            ErrorCode::NotLeaderOrFollower,
        ];
        let doubtful = match token.to {
            Some(id) => self.topics[&id].fate != Fate::Present,
            None => token.too_late || self.names[token.name].changed_at != token.changed_at,
        };
        gone.contains(&code) && (doubtful || self.is_asked(token.name))
    }

    /// One of the topics deleted for certain.
    pub(crate) fn gone(&self, draw: u64) -> Option<TopicId> {
        let all = self.all_gone();
        if all.is_empty() { None } else { Some(all[draw as usize % all.len()]) }
    }

    /// All topics deleted for certain.
    pub(crate) fn all_gone(&self) -> Vec<TopicId> {
        self.topics.iter().filter(|(_, topic)| topic.fate == Fate::Deleted).map(|(id, _)| *id).collect()
    }

    /// What became of the topic with an id in its printed form.
    pub(crate) fn fate_of(&self, id: &str) -> Option<Fate> {
        self.topics.iter().find(|(known, _)| known.to_string() == id).map(|(_, topic)| topic.fate)
    }

    /// How many records were acknowledged.
    pub(crate) fn records(&self) -> usize {
        self.topics.values().flat_map(|topic| &topic.acknowledged).map(BTreeMap::len).sum()
    }

    /// What a read that is asked for now must show.
    pub(crate) fn view(&self, name: usize, partition: usize) -> View {
        let id = self.names[name].present;
        let acknowledged = id.map(|id| self.topics[&id].acknowledged[partition].clone()).unwrap_or_default();
        View { id, partition, acknowledged }
    }

    /// Holds what was read of a partition from its beginning against the records sent.
    pub(crate) fn check(&self, view: &View, bytes: &[u8]) -> Result<(), String> {
        let Some((id, topic)) = view.id.and_then(|id| self.topics.get_key_value(&id)) else { return Ok(()) };
        let place = format!("{} {}, partition {}", NAMES[topic.name], id, view.partition);
        let mut found = BTreeMap::new();
        let mut buffer = DecompressBuffer::new(1 << 20);
        for batch in Batches::new(bytes) {
            let batch = batch.map_err(|error| format!("{place}: {error}"))?;
            batch.verify_crc().map_err(|error| format!("{place}: {error}"))?;
            for record in batch.records(&mut buffer).map_err(|error| error.to_string())? {
                let record = record.map_err(|error| error.to_string())?;
                let digits = record.value.unwrap_or_default().split(|byte| *byte == b' ').next();
                let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
                let number: Number = number.ok_or_else(|| format!("{place}: a record nobody sent"))?;
                if record.offset != found.len() as i64 {
                    return Err(format!("{place}: offset {} after {} records", record.offset, found.len()));
                }
                self.may_hold(*id, topic, view.partition, number)
                    .map_err(|error| format!("{place}: {error}"))?;
                found.insert(record.offset, number);
            }
        }
        let distinct: HashSet<&Number> = found.values().collect();
        if distinct.len() != found.len() {
            return Err(format!("{place}: a record is there twice"));
        }
        for (offset, number) in &view.acknowledged {
            if found.get(offset) != Some(number) {
                return Err(format!(
                    "{place}: record {number} was acknowledged at {offset}, where {:?} is",
                    found.get(offset)
                ));
            }
        }
        Ok(())
    }

    fn may_hold(&self, id: TopicId, topic: &Topic, partition: usize, number: Number) -> Result<(), String> {
        let record = self.records.get(&number).ok_or_else(|| format!("record {number} was never sent"))?;
        let sent_here = (record.name, record.partition) == (topic.name, partition)
            && record.to.is_none_or(|to| to == id)
            && record.over_at >= topic.asked_at;
        if sent_here { Ok(()) } else { Err(format!("it was made at {}; {record:?}", topic.asked_at)) }
    }

    /// The life ended: nothing that is on its way arrives any more.
    pub(crate) fn end_life(&mut self) {
        let now = self.tick();
        for record in self.records.values_mut() {
            record.over_at = record.over_at.min(now);
        }
    }

    /// Takes over what a broker says after its start: what had no answer is decided now.
    pub(crate) fn settle(&mut self, listed: &[(TopicId, String)]) -> Result<(), String> {
        let now = self.tick();
        for (id, topic) in &mut self.topics {
            let is_listed = listed.iter().any(|(listed, _)| listed == id);
            topic.fate = match (topic.fate, is_listed) {
                (Fate::Present, true) => Fate::Present,
                (Fate::Deleted, false) => Fate::Deleted,
                (Fate::Asked, is_listed) => {
                    self.unclear += 1;
                    if is_listed { Fate::Present } else { Fate::Deleted }
                }
                (Fate::Present, false) => return Err(format!("{} {id} is gone", NAMES[topic.name])),
                (Fate::Deleted, true) => return Err(format!("{} {id} is back", NAMES[topic.name])),
            };
        }
        let mut names: [Name; NAMES.len()] = Default::default();
        for (id, text) in listed {
            let name = NAMES.iter().position(|name| name == text);
            let name = name.ok_or_else(|| format!("a topic {text} nobody asked for"))?;
            if names[name].present.is_some() {
                return Err(format!("two topics have the name {text}"));
            }
            if !self.topics.contains_key(id) {
                let asked_at = self.names[name].creating;
                let asked_at = asked_at.ok_or_else(|| format!("nobody asked for {text} {id}"))?;
                let topic = Topic { name, asked_at, fate: Fate::Present, acknowledged: Default::default() };
                self.topics.insert(*id, topic);
            }
            names[name] = Name { present: Some(*id), creating: None, changed_at: now };
        }
        self.unclear += self.names.iter().filter(|name| name.creating.is_some()).count();
        for name in &mut names {
            name.changed_at = now;
        }
        self.names = names;
        Ok(())
    }
}
