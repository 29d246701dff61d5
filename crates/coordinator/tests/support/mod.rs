//! A shard with a log beside it, for tests: appends are acknowledged at once unless they are held, and everything the
//! shard does can be shown as text.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod script;
pub(crate) mod show;

use std::collections::{BTreeMap, VecDeque};

use base::error::ErrorCode;
use base::ids::Uuid;
use coordinator::{AppendId, Effect, GroupConfig, GroupMemory, GroupShard, KeyValue, Request, Token};

/// Outcome of an append in tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppendFate {
    Written,
    Failed(ErrorCode),
    TimedOut,
}

/// A shard, its log and its time.
pub(crate) struct World {
    pub(crate) shard: GroupShard,
    pub(crate) config: GroupConfig,
    pub(crate) memory: GroupMemory,
    pub(crate) now_ms: i64,
    /// Committed records in order.
    pub(crate) log: Vec<KeyValue>,
    /// Appends whose outcome is not reported yet.
    pub(crate) open: VecDeque<(AppendId, Vec<KeyValue>)>,
    /// Keep appends open until told otherwise.
    pub(crate) hold: bool,
    next_token: u64,
    next_uuid: u128,
    answers: BTreeMap<Token, u32>,
}

impl World {
    pub(crate) fn new(config: GroupConfig) -> World {
        let memory = GroupMemory::default();
        let mut shard = GroupShard::sharing(config.clone(), memory.clone());
        assert_eq!(shard.finish_loading(0), [], "an empty shard does nothing");
        World {
            shard,
            config,
            memory,
            now_ms: 0,
            log: Vec::new(),
            open: VecDeque::new(),
            hold: false,
            next_token: 0,
            next_uuid: 0,
            answers: BTreeMap::new(),
        }
    }

    pub(crate) fn token(&mut self) -> Token {
        self.next_token += 1;
        let token = Token(self.next_token);
        self.answers.insert(token, 0);
        token
    }

    /// Ids that count up, so that tests can name them.
    pub(crate) fn uuid(&mut self) -> Uuid {
        self.next_uuid += 1;
        Uuid(self.next_uuid.to_be_bytes())
    }

    pub(crate) fn request(&mut self, token: Token, request: Request) -> Vec<Effect> {
        let effects = self.shard.request(token, request, self.now_ms);
        self.take(effects)
    }

    /// Notes what the effects mean for the log and, unless appends are held, acknowledges them.
    pub(crate) fn take(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let mut shown = Vec::new();
        for effect in effects {
            match &effect {
                Effect::Append { id, records } => {
                    assert!(!records.is_empty(), "an append without records");
                    self.open.push_back((*id, records.clone()));
                }
                Effect::Reply { token, .. } => {
                    let count = self.answers.get_mut(token).expect("an answer to a request that was made");
                    *count += 1;
                    assert_eq!(*count, 1, "{token:?} is answered twice");
                }
            }
            shown.push(effect);
        }
        if let Err(broken) = self.shard.check_invariants() {
            panic!("{broken}");
        }
        if !self.hold {
            while !self.open.is_empty() {
                shown.extend(self.settle(AppendFate::Written));
            }
        }
        shown
    }

    /// Reports the outcome of the oldest open append. A time-out leaves it open, as the last one.
    pub(crate) fn settle(&mut self, fate: AppendFate) -> Vec<Effect> {
        let (id, records) = self.open.pop_front().expect("there is an open append");
        let effects = match fate {
            AppendFate::Written => {
                self.log.extend(records);
                self.shard.append_succeeded(id, self.now_ms)
            }
            AppendFate::Failed(error) => self.shard.append_failed(id, error, self.now_ms),
            AppendFate::TimedOut => {
                self.open.push_front((id, records));
                self.shard.append_timed_out(id, self.now_ms)
            }
        };
        self.take(effects)
    }

    /// Lets time pass, stopping at each deadline. Returns the effects with the time of each.
    pub(crate) fn advance(&mut self, by_ms: i64) -> Vec<(i64, Vec<Effect>)> {
        let until_ms = self.now_ms + by_ms;
        let mut happened = Vec::new();
        while let Some(at_ms) = self.shard.next_deadline().filter(|at_ms| *at_ms <= until_ms) {
            assert!(at_ms >= self.now_ms, "a deadline at {at_ms} was missed");
            self.now_ms = at_ms;
            let effects = self.shard.tick(at_ms);
            let effects = self.take(effects);
            happened.push((at_ms, effects));
        }
        self.now_ms = until_ms;
        happened
    }

    /// A new shard filled from the log, which counts what it holds by itself.
    pub(crate) fn reloaded(&self) -> GroupShard {
        self.reloaded_sharing(GroupMemory::default())
    }

    /// A new shard filled from the log.
    pub(crate) fn reloaded_sharing(&self, memory: GroupMemory) -> GroupShard {
        let mut shard = GroupShard::sharing(self.config.clone(), memory);
        for record in &self.log {
            shard.replay(&record.key, record.value.as_deref()).expect("the shard's own records can be read");
        }
        shard
    }

    /// Tokens that wait for their answer.
    pub(crate) fn unanswered(&self) -> Vec<Token> {
        self.answers.iter().filter(|(_, count)| **count == 0).map(|(token, _)| *token).collect()
    }
}
