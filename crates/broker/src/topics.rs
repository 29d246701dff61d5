//! Topics from the broker's side: what a request may ask for, where partitions go, and making them
//! ready before the answer, so that a client that produces at once meets an open log.

use std::collections::HashMap;
use std::sync::Arc;

use base::chain::{Member, SegmentState};
use base::config::{check_topic_value, keys};
use base::error::ErrorCode;
use base::ids::{StorageId, TopicId};
use metadata::{Command, CommandResult, NewTopic, Placement, Refusal, check_name};
use replication::StorageState;

use crate::broker::Broker;
use crate::turns::Turns;

/// The name under which Kafka keeps its metadata, which it lets nobody take.
pub(crate) const METADATA_TOPIC: &str = "__cluster_metadata";

/// Asks for the default of the broker (KIP-464).
pub(crate) const DEFAULT: i32 = -1;

/// Most partitions one request may ask for; bounds the work of one request.
const PARTITIONS_PER_REQUEST_MAX: usize = 100_000;

/// A topic as a request asks for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicSpec {
    pub(crate) name: String,
    /// Number of partitions or [`DEFAULT`].
    pub(crate) partitions: i32,
    /// Copies or [`DEFAULT`].
    pub(crate) replication_factor: i32,
    /// Brokers for each partition, in the order of their numbers; excludes the two numbers above.
    pub(crate) assignments: Option<Vec<Vec<i32>>>,
    /// Its own config values.
    pub(crate) configs: Vec<(String, String)>,
    pub(crate) internal: bool,
}

/// A topic that was created, or would have been.
#[derive(Clone, Debug)]
pub(crate) struct CreatedTopic {
    /// Zero when only validated.
    pub(crate) id: TopicId,
    pub(crate) partitions: usize,
    pub(crate) replication_factor: usize,
}

type Refused = Refusal;

impl Broker {
    /// Creates topics and opens their partitions. One result for each, in order.
    pub(crate) async fn create_topics(
        self: &Arc<Self>,
        specs: Vec<TopicSpec>,
        validate_only: bool,
    ) -> Vec<Result<CreatedTopic, Refused>> {
        let mut budget = PARTITIONS_PER_REQUEST_MAX;
        let mut turns = Turns::default();
        let mut checked = Vec::with_capacity(specs.len());
        for spec in specs {
            checked.push(self.check_topic(spec, &mut budget));
            turns.done(1).await;
        }
        if validate_only {
            return checked.into_iter().map(|topic| topic.map(|topic| created(&topic, true))).collect();
        }
        let proposed: Vec<NewTopic> = checked.iter().filter_map(|topic| topic.clone().ok()).collect();
        let ids: Vec<TopicId> = proposed.iter().map(|topic| topic.id).collect();
        let mut results = self.propose_topics(proposed).await.into_iter();
        for id in ids {
            self.partitions.sync_topic(&self.image(), &self.config(), id).await;
        }
        checked
            .into_iter()
            .map(|topic| {
                let topic = topic?;
                results.next().unwrap_or_else(|| Err(unavailable()))?;
                Ok(created(&topic, false))
            })
            .collect()
    }

    async fn propose_topics(&self, topics: Vec<NewTopic>) -> Vec<Result<(), Refused>> {
        if topics.is_empty() {
            return Vec::new();
        }
        let count = topics.len();
        match self.metadata.propose(Command::CreateTopics(topics)).await {
            Ok(CommandResult::Items(results)) => results,
            other => {
                tracing::error!(?other, "topics cannot be created");
                vec![Err(unavailable()); count]
            }
        }
    }

    /// Raises the number of partitions of a topic to `total` and opens the new ones.
    pub(crate) async fn create_partitions(
        self: &Arc<Self>,
        name: &str,
        total: i32,
        assignments: Option<Vec<Vec<i32>>>,
        validate_only: bool,
    ) -> Result<(), Refused> {
        let image = self.image();
        let topic = image.topic(name).ok_or_else(|| unknown_topic(name))?;
        let present = topic.partitions.len();
        let added = usize::try_from(total).unwrap_or(0).saturating_sub(present);
        if added == 0 {
            let message =
                format!("The topic currently has {present} partition(s); {total} would not be an increase.");
            return Err(Refused::new(ErrorCode::InvalidPartitions, message));
        }
        if added > PARTITIONS_PER_REQUEST_MAX {
            let message = format!("At most {PARTITIONS_PER_REQUEST_MAX} partitions can be added at once.");
            return Err(Refused::new(ErrorCode::InvalidPartitions, message));
        }
        if let Some(assignments) = &assignments {
            if assignments.len() != added {
                let message =
                    format!("{added} partitions are added, but {} assignments given.", assignments.len());
                return Err(Refused::new(ErrorCode::InvalidReplicaAssignment, message));
            }
            self.check_assignments(assignments)?;
        }
        if validate_only {
            return Ok(());
        }
        let id = topic.id;
        let present = i32::try_from(present).unwrap_or(i32::MAX);
        let command = Command::CreatePartitions { topic_id: id, present, placements: self.place(added)? };
        match self.metadata.propose(command).await {
            Ok(CommandResult::Items(mut results)) => {
                results.pop().unwrap_or_else(|| Err(unavailable()))?;
            }
            other => {
                tracing::error!(?other, "partitions cannot be created");
                return Err(unavailable());
            }
        }
        self.partitions.sync_topic(&self.image(), &self.config(), id).await;
        Ok(())
    }

    /// Deletes a topic with all it holds. Its groups' offsets go too.
    pub(crate) async fn delete_topic(self: &Arc<Self>, id: TopicId) -> Result<(), Refused> {
        let name = self.image().topic_by_id(id).map(|topic| topic.name.to_string());
        match self.metadata.propose(Command::DeleteTopics(vec![id])).await {
            Ok(CommandResult::Items(mut results)) => {
                results.pop().unwrap_or_else(|| Err(unavailable()))?;
            }
            other => {
                tracing::error!(?other, "a topic cannot be deleted");
                return Err(unavailable());
            }
        }
        self.partitions.sync_topic(&self.image(), &self.config(), id).await;
        if let Some(name) = name {
            self.groups.topic_deleted(self, &name, id).await;
        }
        Ok(())
    }

    fn check_topic(&self, spec: TopicSpec, budget: &mut usize) -> Result<NewTopic, Refused> {
        check_name(&spec.name)?;
        if spec.name == METADATA_TOPIC {
            let message = format!("`{METADATA_TOPIC}` is the name of Kafka's own metadata log.");
            return Err(Refused::new(ErrorCode::InvalidRequest, message));
        }
        if self.image().topic(&spec.name).is_some() {
            let message = format!("Topic '{}' already exists.", spec.name);
            return Err(Refused::new(ErrorCode::TopicAlreadyExists, message));
        }
        let count = self.partition_count(&spec)?;
        if count > *budget {
            let message = format!("One request can create at most {PARTITIONS_PER_REQUEST_MAX} partitions.");
            return Err(Refused::new(ErrorCode::InvalidPartitions, message));
        }
        *budget -= count;
        for (key, value) in &spec.configs {
            check_topic_value(key, value)
                .map_err(|error| Refused::new(ErrorCode::InvalidConfig, error.to_string()))?;
        }
        Ok(NewTopic {
            id: self.env.random_uuid(),
            name: spec.name,
            placements: self.place(count)?,
            configs: spec.configs,
            internal: spec.internal,
        })
    }

    fn partition_count(&self, spec: &TopicSpec) -> Result<usize, Refused> {
        if let Some(assignments) = &spec.assignments {
            if spec.partitions != DEFAULT || spec.replication_factor != DEFAULT {
                let message = "Partition count and replication factor must be -1 with assignments.";
                return Err(Refused::new(ErrorCode::InvalidRequest, message));
            }
            self.check_assignments(assignments)?;
            return Ok(assignments.len());
        }
        let factor = match spec.replication_factor {
            DEFAULT => 1,
            factor => factor,
        };
        if factor <= 0 {
            let message = "Replication factor must be larger than 0, or -1 for the broker's default.";
            return Err(Refused::new(ErrorCode::InvalidReplicationFactor, message));
        }
        if factor > 1 {
            let message = format!(
                "Replication factor {factor} needs as many brokers, 1 is alive. Ask for 1, or for -1, the broker's default."
            );
            return Err(Refused::new(ErrorCode::InvalidReplicationFactor, message));
        }
        let count = match spec.partitions {
            DEFAULT => self.config().get(keys::NUM_PARTITIONS),
            count => count,
        };
        match usize::try_from(count) {
            Ok(count) if count > 0 => Ok(count),
            _ => {
                let message = "Number of partitions must be larger than 0, or -1 for the broker's default.";
                Err(Refused::new(ErrorCode::InvalidPartitions, message))
            }
        }
    }

    fn check_assignments(&self, assignments: &[Vec<i32>]) -> Result<(), Refused> {
        let fits = |brokers: &Vec<i32>| brokers == &[self.id.0];
        if assignments.is_empty() || !assignments.iter().all(fits) {
            let message =
                format!("Each partition is assigned to exactly broker {}, the only one alive.", self.id);
            return Err(Refused::new(ErrorCode::InvalidReplicaAssignment, message));
        }
        Ok(())
    }

    /// Places for `count` new partitions: each on the storage with the fewest, among those that take new
    /// segments.
    fn place(&self, count: usize) -> Result<Vec<Placement>, Refused> {
        let mut load = self.partitions_by_storage();
        let place = |_| {
            let (storage, taken) = load.iter_mut().min_by_key(|(_, taken)| *taken)?;
            *taken += 1;
            let member = Member { broker: self.id, storage: *storage, incarnation: self.incarnation };
            Some(Placement { brokers: vec![self.id], ensemble: vec![member] })
        };
        (0..count).map(place).collect::<Option<Vec<_>>>().ok_or_else(|| {
            let message = "No log directory takes new partitions: all are full or failed.";
            Refused::new(ErrorCode::KafkaStorageError, message)
        })
    }

    fn partitions_by_storage(&self) -> Vec<(StorageId, usize)> {
        // One that is getting full is for what is there already, as long as another has more room.
        let of = |state: StorageState| self.storages.iter().filter(move |storage| storage.state() == state);
        let mut counts: HashMap<StorageId, usize> =
            of(StorageState::Writable).map(|storage| (storage.id(), 0)).collect();
        if counts.is_empty() {
            counts = of(StorageState::ReadOnly).map(|storage| (storage.id(), 0)).collect();
        }
        if counts.len() > 1 {
            let image = self.image();
            for state in image.topics().flat_map(|topic| topic.partitions.iter()) {
                if let SegmentState::Open { ensemble } = &state.last().state {
                    let own = ensemble.iter().find(|member| member.broker == self.id);
                    if let Some(count) = own.and_then(|member| counts.get_mut(&member.storage)) {
                        *count += 1;
                    }
                }
            }
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable();
        counts
    }
}

fn created(topic: &NewTopic, validated: bool) -> CreatedTopic {
    let replication_factor = topic.placements.first().map_or(0, |placement| placement.brokers.len());
    let id = if validated { TopicId::ZERO } else { topic.id };
    CreatedTopic { id, partitions: topic.placements.len(), replication_factor }
}

fn unavailable() -> Refused {
    Refused::new(
        ErrorCode::RequestTimedOut,
        "The metadata store did not answer; the change may have been made.",
    )
}

/// The refusal for a name nobody has.
pub(crate) fn unknown_topic(name: &str) -> Refused {
    Refused::new(ErrorCode::UnknownTopicOrPartition, format!("There is no topic '{name}'."))
}
