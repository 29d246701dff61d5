//! Clients of the coordinators and of the controller: groups that commit offsets and read them back, and somebody who
//! creates topics and asks other nodes for them.

use std::sync::Arc;

use base::env::sim::SimRandom;
use wire::message::create_topics_request::CreatableTopic;
use wire::message::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use wire::message::{
    CreateTopicsRequest, CreateTopicsResponse, FindCoordinatorRequest, FindCoordinatorResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
};

use super::clients::{Broken, Clients};
use crate::connection::{Connection, decode};

const FIND_VERSION: i16 = 3;
const COMMIT_VERSION: i16 = 8;
const FETCH_VERSION: i16 = 7;
const CREATE_VERSION: i16 = 7;
/// COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR, REQUEST_TIMED_OUT.
const ELSEWHERE: [i16; 4] = [14, 15, 16, 7];
/// Topics that are made at most: each costs every node.
const TOPICS_MAX: u64 = 4;

/// A group that commits ever greater offsets. One whose commit got no answer is left: the commit may still arrive.
pub(crate) struct Group {
    clients: Arc<Clients>,
    number: u64,
    /// Groups left so far.
    left: u64,
    topic: String,
    random: SimRandom,
    /// Sent last, and the greatest that was acknowledged.
    sent: i64,
    acknowledged: i64,
}

impl Group {
    pub(crate) fn new(clients: Arc<Clients>, number: u64, topic: &str, seed: u64) -> Group {
        let random = SimRandom::new(seed);
        Group { clients, number, left: 0, topic: topic.to_owned(), random, sent: -1, acknowledged: -1 }
    }

    fn name(&self) -> String {
        format!("g{}-{}", self.number, self.left)
    }

    /// Commits and reads until clients are to end; returns to be asked once more.
    pub(crate) async fn run(mut self) -> Group {
        while !self.clients.is_ending() {
            if let Err(Broken::Word(word)) = self.talk().await {
                self.clients.accuse(word);
            }
            self.clients.sleep_ms(10 + self.random.below(200)).await;
        }
        self
    }

    /// Reads once more what the group committed.
    pub(crate) async fn check(mut self) -> Result<(), String> {
        for _ in 0..400 {
            let asked = async {
                let mut connection = self.coordinator().await?;
                self.fetch(&mut connection, true).await
            };
            match asked.await {
                Ok(()) => return Ok(()),
                Err(Broken::Word(word)) => return Err(word),
                Err(Broken::Connection) => self.clients.sleep_ms(50).await,
            }
        }
        Err(format!("group {} has no coordinator", self.name()))
    }

    async fn coordinator(&mut self) -> Result<Connection, Broken> {
        let mut connection = self.clients.dial(self.clients.somebody(&self.random)).await?;
        let request = FindCoordinatorRequest { key: self.name().into(), ..Default::default() };
        let body = self.clients.within(connection.ask(FIND_VERSION, &request)).await?;
        let response: FindCoordinatorResponse<'_> = decode(&body, FIND_VERSION)?;
        self.clients.trace.mix(format_args!("{} {} {}", self.name(), response.error_code, response.node_id));
        match response.error_code {
            0 => Ok(self.clients.dial(response.node_id).await?),
            _ => Err(Broken::Connection),
        }
    }

    async fn talk(&mut self) -> Result<(), Broken> {
        let mut connection = self.coordinator().await?;
        while !self.clients.is_ending() {
            self.clients.sleep_ms(self.random.below(400)).await;
            match self.random.below(2) {
                0 => self.fetch(&mut connection, !self.clients.is_isolated()).await?,
                _ => self.commit(&mut connection).await?,
            }
        }
        Ok(())
    }

    async fn commit(&mut self, connection: &mut Connection) -> Result<(), Broken> {
        self.sent += 1;
        let partition = OffsetCommitRequestPartition {
            partition_index: 0,
            committed_offset: self.sent,
            ..Default::default()
        };
        let topic = self.topic.clone();
        let topic = OffsetCommitRequestTopic {
            name: topic.into(),
            partitions: vec![partition],
            ..Default::default()
        };
        let request =
            OffsetCommitRequest { group_id: self.name().into(), topics: vec![topic], ..Default::default() };
        let answer = self.clients.within(connection.ask(COMMIT_VERSION, &request)).await;
        let code = answer.and_then(|body| {
            let response = decode::<OffsetCommitResponse<'_>>(&body, COMMIT_VERSION)?;
            Ok(response
                .topics
                .first()
                .and_then(|topic| topic.partitions.first())
                .map_or(-1, |it| it.error_code))
        });
        self.clients.trace.mix(format_args!("{} commits {}: {code:?}", self.name(), self.sent));
        match code {
            Ok(0) => self.acknowledged = self.sent,
            _ => {
                (self.left, self.sent, self.acknowledged) = (self.left + 1, -1, -1);
                return Err(Broken::Connection);
            }
        }
        Ok(())
    }

    async fn fetch(&mut self, connection: &mut Connection, strict: bool) -> Result<(), Broken> {
        let request = OffsetFetchRequest { group_id: self.name().into(), topics: None, ..Default::default() };
        let body = self.clients.within(connection.ask(FETCH_VERSION, &request)).await?;
        let response = decode::<OffsetFetchResponse<'_>>(&body, FETCH_VERSION)?;
        match response.error_code {
            0 => {}
            code if ELSEWHERE.contains(&code) => return Err(Broken::Connection),
            code => return Err(Broken::Word(format!("OffsetFetch of {}: {code}", self.name()))),
        }
        let partition = response.topics.first().and_then(|topic| topic.partitions.first());
        let found = partition.map_or(-1, |partition| partition.committed_offset);
        self.clients.trace.mix(format_args!("{} has {found}", self.name()));
        // A coordinator that was cut off tells what it knew (replication.md 2.6).
        let is_old = found < self.acknowledged;
        if found > self.sent || (is_old && strict && !self.clients.is_isolated()) {
            return Err(Broken::Word(format!(
                "group {}: OffsetFetch tells {found}, {} was acknowledged and {} sent",
                self.name(),
                self.acknowledged,
                self.sent
            )));
        }
        if is_old { Err(Broken::Connection) } else { Ok(()) }
    }
}

/// Creates topics now and then, each through some node, and asks others for it.
pub(crate) async fn create_topics(clients: Arc<Clients>, copies: i16, seed: u64) {
    let random = SimRandom::new(seed);
    for number in 0..TOPICS_MAX {
        clients.sleep_ms(1_000 + random.below(4_000)).await;
        if clients.is_ending() {
            return;
        }
        let name = format!("made-{number}");
        let through = clients.somebody(&random);
        let created = create(&clients, through, &name, 1, copies, &[]).await;
        clients.trace.mix(format_args!("{name} {created:?}"));
        if !matches!(created, Ok(0)) {
            continue;
        }
        let other = clients.somebody(&random);
        let was_isolated = clients.is_isolated();
        let known = clients.knows(other, &name).await;
        clients.trace.mix(format_args!("{other} knows {name}: {known:?}"));
        if known == Some(false) && !was_isolated && !clients.is_isolated() {
            clients.accuse(format!("node {through} created {name}, and node {other} does not know it"));
        }
    }
}

/// Creates a topic through a node; the error code of the answer.
pub(crate) async fn create(
    clients: &Clients,
    node: i32,
    name: &str,
    partitions: i32,
    copies: i16,
    configs: &[(&str, &str)],
) -> Result<i16, std::io::Error> {
    let config = |(name, value): &(&str, &str)| wire::message::create_topics_request::CreatableTopicConfig {
        name: (*name).to_owned().into(),
        value: Some((*value).to_owned().into()),
    };
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: copies,
        configs: configs.iter().map(config).collect(),
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 5_000, ..Default::default() };
    let mut connection = clients.dial(node).await?;
    let body = clients.within(connection.ask(CREATE_VERSION, &request)).await?;
    let response = decode::<CreateTopicsResponse<'_>>(&body, CREATE_VERSION)?;
    Ok(response.topics.first().map_or(-1, |topic| topic.error_code))
}
