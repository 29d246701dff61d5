//! A consumer in a classic group: partitions and positions come from the group, and go back to it.
//!
//! ```text
//! poll ─► not in the group, or it is rebalancing ─► commit ─► JoinGroup ─► (leader: assign) ─► SyncGroup
//!      │                                            ─► committed offsets ─► Consumer::assign
//!      └► Consumer::poll, interrupted when the heartbeat hears of a rebalance
//! ```
//!
//! Records of the last poll count as read at the next one. With [`GroupConfig::commit_interval`] they are
//! committed then, else when [`GroupConsumer::commit`] is called; either way a record is read at least once.
//! All partitions are given up at each rebalance (the *eager* way).
//!
//! Invariants: heartbeats go on while the owner is away, so a slow owner is not thrown out (and a stuck one
//! keeps its partitions); nothing is committed for a generation that is over.

mod assign;
mod heartbeat;
pub(crate) mod protocol;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::error::ErrorCode;
use base::ids::Offset;
use wire::RequestMessage;
use wire::message::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse,
};

use crate::admin::{offset_commit_error, offset_commit_request};
use crate::pool::Connections;
use crate::{
    Answer, Client, ClientError, ConsumedRecord, Consumer, ConsumerConfig, PartitionName, Result, Start,
    Topics,
};
use assign::{Subscriber, assign_ranges};
use heartbeat::{Heartbeat, Pulse};

/// The assignor's name in the protocol.
const ASSIGNOR: &str = "range";
/// What members of a group of consumers say they do.
const PROTOCOL_TYPE: &str = "consumer";

/// Settings of a [`GroupConsumer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// Id of the group.
    pub group: String,
    /// Topics to read.
    pub topics: Vec<String>,
    /// The id the member keeps over restarts, if any (KIP-345). Such a member does not leave the group.
    pub instance_id: Option<String>,
    /// Silence after which the group goes on without the member.
    pub session_timeout: Duration,
    /// How long members have to join a rebalance.
    pub rebalance_timeout: Duration,
    /// Time between heartbeats.
    pub heartbeat_interval: Duration,
    /// How often positions are committed by themselves; `None` for never.
    pub commit_interval: Option<Duration>,
    /// Where to begin where nothing is committed; `None` makes that an error.
    pub start: Option<Start>,
    /// How records are read; [`ConsumerConfig::reset`] falls back to `start`.
    pub consumer: ConsumerConfig,
}

impl GroupConfig {
    /// A member of a group that reads topics from their beginning, or from where the group left off.
    pub fn new(group: impl Into<String>, topics: impl IntoIterator<Item = impl Into<String>>) -> GroupConfig {
        GroupConfig {
            group: group.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            instance_id: None,
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(60),
            heartbeat_interval: Duration::from_secs(3),
            commit_interval: Some(Duration::from_secs(5)),
            start: Some(Start::Beginning),
            consumer: ConsumerConfig::default(),
        }
    }
}

/// What the member is in the group's present generation.
#[derive(Debug)]
struct Membership {
    generation: i32,
    heartbeat: Heartbeat,
}

/// Reads topics as a member of a group.
#[derive(Debug)]
pub struct GroupConsumer {
    client: Client,
    config: GroupConfig,
    connections: Arc<Connections>,
    consumer: Consumer,
    /// Given by the coordinator; kept over rebalances.
    member_id: String,
    membership: Option<Membership>,
    committed: BTreeMap<PartitionName, Offset>,
    last_commit: Duration,
}

impl GroupConsumer {
    /// A consumer that joins its group at the first [`GroupConsumer::poll`].
    pub fn new(client: &Client, config: GroupConfig) -> GroupConsumer {
        let reset = config.consumer.reset.or(config.start);
        GroupConsumer {
            client: client.clone(),
            connections: Arc::new(Connections::new(client.env(), client.config().clone())),
            consumer: Consumer::new(client, ConsumerConfig { reset, ..config.consumer.clone() }),
            config,
            member_id: String::new(),
            membership: None,
            committed: BTreeMap::new(),
            last_commit: client.env().clock.now(),
        }
    }

    /// The partitions it has now; none before it has joined.
    pub fn assignment(&self) -> impl Iterator<Item = &PartitionName> {
        self.consumer.assignment()
    }

    /// The generation of the group it is in; `None` before it has joined.
    pub fn generation(&self) -> Option<i32> {
        self.membership.as_ref().map(|membership| membership.generation)
    }

    /// The id the coordinator gave it; empty before it has joined.
    pub fn member_id(&self) -> &str {
        &self.member_id
    }

    /// Offsets of the next records, of the partitions where that is known.
    pub fn positions(&self) -> BTreeMap<PartitionName, Offset> {
        self.consumer.positions()
    }

    /// Whether it has joined and read everything there was when the brokers were last asked.
    pub fn caught_up(&self) -> bool {
        self.membership.is_some() && self.consumer.caught_up()
    }

    /// Whether it has read a partition to the end it had when its leader was last asked.
    pub fn caught_up_with(&self, partition: &PartitionName) -> bool {
        self.consumer.caught_up_with(partition)
    }

    /// The next records, none if there are none within `max_wait`. Joins the group where needed, which may
    /// take longer. Records of the poll before count as read.
    pub async fn poll(&mut self, max_wait: Duration) -> Result<Vec<ConsumedRecord>> {
        let clock = self.client.env().clock.clone();
        if let Some(interval) = self.config.commit_interval
            && clock.now() >= self.last_commit + interval
        {
            self.commit_or_rejoin().await?;
        }
        let deadline = clock.now() + max_wait;
        loop {
            let pulse = self.membership.as_ref().map(|membership| membership.heartbeat.pulse());
            if pulse != Some(Pulse::Steady) {
                self.rejoin(pulse).await?;
            }
            let Some(membership) = &mut self.membership else { continue };
            let wait = deadline.saturating_sub(clock.now());
            tokio::select! {
                biased;
                () = membership.heartbeat.changed() => {}
                records = self.consumer.poll(wait) => return records,
            }
        }
    }

    /// Commits what the last poll returned, for the generation it was read in.
    pub async fn commit(&mut self) -> Result<()> {
        let Some(membership) = &self.membership else { return Ok(()) };
        self.last_commit = self.client.env().clock.now();
        let positions = self.consumer.positions();
        if positions == self.committed {
            return Ok(());
        }
        let group = &self.config.group;
        let mut request = offset_commit_request(group, membership.generation, &self.member_id, &positions);
        request.group_instance_id = self.config.instance_id.as_deref().map(Cow::Borrowed);
        let mut backoff = self.client.backoff();
        loop {
            let result = match self.call(&request, Duration::ZERO).await {
                Ok(answer) => ClientError::check(offset_commit_error(&answer)?, None, || self.subject()),
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.retriable() => {
                    self.client.note_group_error(group, &error);
                    backoff.pause(error).await?;
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        self.committed = positions;
        Ok(())
    }

    /// Commits, and takes it for a reason to join anew when the group has moved on meanwhile.
    async fn commit_or_rejoin(&mut self) -> Result<()> {
        match self.commit().await {
            Err(error) if moved_on(&error) => {
                tracing::debug!(%error, "nothing committed: the group has moved on");
                Ok(())
            }
            other => other,
        }
    }

    /// Commits (where that happens by itself) and leaves the group, so that others take over at once.
    pub async fn leave(mut self) -> Result<()> {
        if self.config.commit_interval.is_some() {
            self.commit_or_rejoin().await?;
        }
        if self.membership.take().is_none() || self.config.instance_id.is_some() {
            return Ok(());
        }
        let request = LeaveGroupRequest {
            group_id: self.config.group.as_str().into(),
            member_id: self.member_id.as_str().into(),
            ..Default::default()
        };
        let answer = self.call(&request, Duration::ZERO).await?;
        let response: LeaveGroupResponse = answer.read()?;
        match ClientError::check(response.error_code, None, || self.subject()) {
            Err(error) if error.code() == Some(ErrorCode::UnknownMemberId) => Ok(()),
            other => other,
        }
    }

    /// Joins the group or its next generation, and takes over what it is assigned.
    async fn rejoin(&mut self, pulse: Option<Pulse>) -> Result<()> {
        if pulse == Some(Pulse::Rebalancing) && self.config.commit_interval.is_some() {
            self.commit_or_rejoin().await?;
        }
        if let Some(Pulse::Lost(code)) = pulse {
            tracing::debug!(group = self.config.group, code = code.name(), "thrown out of the group");
            self.forget_membership(code);
        }
        // Partitions may be another's from here on.
        self.consumer.assign([]);
        self.committed.clear();
        let mut backoff = self.client.backoff();
        loop {
            let error = match self.join_once().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match error.code() {
                Some(ErrorCode::MemberIdRequired | ErrorCode::RebalanceInProgress) => {}
                Some(code) if moved_on(&error) && code != ErrorCode::FencedInstanceId => {
                    self.forget_membership(code);
                }
                _ if error.retriable() => {
                    self.client.note_group_error(&self.config.group, &error);
                    backoff.pause(error).await?;
                }
                _ => return Err(error),
            }
        }
    }

    fn forget_membership(&mut self, code: ErrorCode) {
        self.membership = None;
        if code == ErrorCode::UnknownMemberId {
            self.member_id.clear();
        }
    }

    async fn join_once(&mut self) -> Result<()> {
        let (generation, assigned) = self.join_and_sync().await?;
        let committed = self.client.committed_offsets(&self.config.group, Some(&assigned)).await?;
        let mut starts = Vec::with_capacity(assigned.len());
        for partition in assigned {
            let left_off = committed.get(&partition).map(|committed| Start::Offset(committed.offset));
            let Some(start) = left_off.or(self.config.start) else {
                let group = self.config.group.clone();
                return Err(ClientError::NothingCommitted { group, partition });
            };
            starts.push((partition, start));
        }
        self.committed = committed.into_iter().map(|(partition, value)| (partition, value.offset)).collect();
        self.consumer.assign(starts);
        let heartbeat = Heartbeat::start(
            &self.client,
            self.connections.clone(),
            &self.config,
            generation,
            &self.member_id,
        );
        self.membership = Some(Membership { generation, heartbeat });
        Ok(())
    }

    /// One round of the group protocol; answers the generation and the partitions of this member.
    async fn join_and_sync(&mut self) -> Result<(i32, Vec<PartitionName>)> {
        let subscription = protocol::write_subscription(&self.config.topics)?;
        let millis = |duration: Duration| i32::try_from(duration.as_millis()).unwrap_or(i32::MAX);
        let member_id = std::mem::take(&mut self.member_id);
        let request = JoinGroupRequest {
            group_id: self.config.group.as_str().into(),
            session_timeout_ms: millis(self.config.session_timeout),
            rebalance_timeout_ms: millis(self.config.rebalance_timeout),
            member_id: member_id.as_str().into(),
            group_instance_id: self.config.instance_id.as_deref().map(Cow::Borrowed),
            protocol_type: PROTOCOL_TYPE.into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: ASSIGNOR.into(),
                metadata: subscription.into(),
            }],
            ..Default::default()
        };
        // The coordinator answers when all have joined, at the latest after the rebalance timeout.
        let answer = self.call(&request, self.config.rebalance_timeout + self.config.session_timeout).await;
        self.member_id.clone_from(&member_id);
        let answer = answer?;
        let joined: JoinGroupResponse = answer.read()?;
        if !joined.member_id.is_empty() {
            // With MEMBER_ID_REQUIRED it is the id to come back with.
            self.member_id = joined.member_id.clone().into_owned();
        }
        ClientError::check(joined.error_code, None, || self.subject())?;
        let assignments = match joined.leader == joined.member_id && !joined.skip_assignment {
            true => self.assign_all(&joined).await?,
            false => BTreeMap::new(),
        };
        let assignments = assignments.iter().map(|(member_id, partitions)| {
            let assignment = protocol::write_assignment(partitions)?.into();
            Ok(SyncGroupRequestAssignment { member_id: member_id.as_str().into(), assignment })
        });
        let request = SyncGroupRequest {
            group_id: self.config.group.as_str().into(),
            generation_id: joined.generation_id,
            member_id: self.member_id.as_str().into(),
            group_instance_id: self.config.instance_id.as_deref().map(Cow::Borrowed),
            protocol_type: Some(PROTOCOL_TYPE.into()),
            protocol_name: Some(ASSIGNOR.into()),
            assignments: assignments.collect::<Result<_>>()?,
        };
        let answer = self.call(&request, self.config.rebalance_timeout).await?;
        let synced: SyncGroupResponse = answer.read()?;
        ClientError::check(synced.error_code, None, || self.subject())?;
        let assigned = protocol::read_assignment(&synced.assignment);
        let assigned = assigned.map_err(|source| ClientError::Malformed {
            address: "the leader of the group".into(),
            what: "an assignment",
            source,
        })?;
        Ok((joined.generation_id, assigned))
    }

    /// What the leader of the group gives to each member.
    async fn assign_all(
        &self,
        joined: &JoinGroupResponse<'_>,
    ) -> Result<BTreeMap<String, Vec<PartitionName>>> {
        let subscriber = |member: &wire::message::JoinGroupResponseMember<'_>| Subscriber {
            member_id: member.member_id.clone().into_owned(),
            instance_id: member.group_instance_id.as_deref().map(str::to_owned),
            // A member that cannot be understood gets nothing.
            topics: protocol::read_subscription(&member.metadata).unwrap_or_default(),
        };
        let subscribers: Vec<_> = joined.members.iter().map(subscriber).collect();
        let mut wanted: Vec<&str> = subscribers.iter().flat_map(|s| &s.topics).map(String::as_str).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let metadata = self.client.metadata(Topics::Named(&wanted)).await?;
        let topics = metadata.topics.into_iter().filter(|(_, topic)| topic.error == ErrorCode::None);
        let counts = topics.map(|(name, topic)| (name, topic.partitions.len() as i32)).collect();
        Ok(assign_ranges(&subscribers, &counts))
    }

    /// Calls the coordinator over the member's own connection.
    async fn call<'a, R: RequestMessage<'a>>(&self, request: &R, broker_wait: Duration) -> Result<Answer> {
        call_coordinator(&self.client, &self.connections, &self.config.group, request, broker_wait).await
    }

    fn subject(&self) -> String {
        format!("group `{}`", self.config.group)
    }
}

async fn call_coordinator<'a, R: RequestMessage<'a>>(
    client: &Client,
    connections: &Connections,
    group: &str,
    request: &R,
    broker_wait: Duration,
) -> Result<Answer> {
    let coordinator = client.coordinator(group).await?;
    let address = client.known_address(coordinator).await?;
    connections.to(&address).await?.start(request, broker_wait).await?.wait().await
}

/// Whether the group has gone on without this member or to another generation.
fn moved_on(error: &ClientError) -> bool {
    matches!(
        error.code(),
        Some(
            ErrorCode::UnknownMemberId
                | ErrorCode::IllegalGeneration
                | ErrorCode::RebalanceInProgress
                | ErrorCode::FencedInstanceId
        )
    )
}
