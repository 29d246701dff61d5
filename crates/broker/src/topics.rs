//! Topics from the broker's side: what a request may ask for, where partitions go, and making them
//! ready before the answer, so that a client that produces at once meets an open log.

use std::sync::Arc;

use base::config::{check_topic_value, keys};
use base::error::ErrorCode;
use base::ids::{BrokerId, TopicId};
use metadata::{Command, CommandResult, NewTopic, Placement, Refusal, check_name};

use crate::broker::Broker;
use crate::room::Room;
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
        let mut room = self.room();
        let mut turns = Turns::default();
        let mut checked = Vec::with_capacity(specs.len());
        for spec in specs {
            checked.push(self.check_topic(spec, &mut budget, &mut room));
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
        let mut room = self.room();
        let placements = match &assignments {
            Some(assignments) if assignments.len() != added => {
                let message =
                    format!("{added} partitions are added, but {} assignments given.", assignments.len());
                return Err(Refused::new(ErrorCode::InvalidReplicaAssignment, message));
            }
            Some(assignments) => assigned(assignments, &mut room)?,
            None => room.place(present, added, topic.replication_factor())?,
        };
        if validate_only {
            return Ok(());
        }
        let id = topic.id;
        let present = i32::try_from(present).unwrap_or(i32::MAX);
        let command = Command::CreatePartitions { topic_id: id, present, placements };
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
        let topic = self.image().topic_by_id(id).cloned();
        match self.metadata.propose(Command::DeleteTopics(vec![id])).await {
            Ok(CommandResult::Items(mut results)) => {
                results.pop().unwrap_or_else(|| Err(unavailable()))?;
            }
            other => {
                tracing::error!(?other, "a topic cannot be deleted");
                return Err(unavailable());
            }
        }
        if let Some(topic) = topic {
            self.partitions.remove(&topic).await;
            self.groups.topic_deleted(&topic.name, id);
        }
        Ok(())
    }

    fn check_topic(&self, spec: TopicSpec, budget: &mut usize, room: &mut Room) -> Result<NewTopic, Refused> {
        check_name(&spec.name)?;
        if spec.name == METADATA_TOPIC {
            let message = format!("`{METADATA_TOPIC}` is the name of Kafka's own metadata log.");
            return Err(Refused::new(ErrorCode::InvalidRequest, message));
        }
        if self.image().topic(&spec.name).is_some() {
            let message = format!("Topic '{}' already exists.", spec.name);
            return Err(Refused::new(ErrorCode::TopicAlreadyExists, message));
        }
        let wanted = self.wanted(&spec, room)?;
        let count = match &wanted {
            Wanted::Assigned(assignments) => assignments.len(),
            Wanted::Chosen { partitions, .. } => *partitions,
        };
        if count > *budget {
            let message = format!("One request can create at most {PARTITIONS_PER_REQUEST_MAX} partitions.");
            return Err(Refused::new(ErrorCode::InvalidPartitions, message));
        }
        *budget -= count;
        for (key, value) in &spec.configs {
            check_topic_value(key, value)
                .map_err(|error| Refused::new(ErrorCode::InvalidConfig, error.to_string()))?;
        }
        let placements = match wanted {
            Wanted::Assigned(assignments) => assigned(assignments, room)?,
            Wanted::Chosen { partitions, copies } => room.place(0, partitions, copies)?,
        };
        Ok(NewTopic {
            id: self.env.random_uuid(),
            name: spec.name,
            placements,
            configs: spec.configs,
            internal: spec.internal,
        })
    }

    /// Copies that a default of the configuration means: never more than the cluster has brokers, those that are down or
    /// yet to come among them.
    pub(crate) fn default_copies(&self, configured: i32) -> i32 {
        let brokers = self.image().brokers().count().max(self.config().voters().len());
        configured.min(i32::try_from(brokers).unwrap_or(i32::MAX))
    }

    /// What a request asks for, with the broker's defaults.
    fn wanted<'s>(&self, spec: &'s TopicSpec, room: &Room) -> Result<Wanted<'s>, Refused> {
        if let Some(assignments) = &spec.assignments {
            if spec.partitions != DEFAULT || spec.replication_factor != DEFAULT {
                let message = "Partition count and replication factor must be -1 with assignments.";
                return Err(Refused::new(ErrorCode::InvalidRequest, message));
            }
            return Ok(Wanted::Assigned(assignments));
        }
        let copies = match spec.replication_factor {
            DEFAULT => self.default_copies(self.config().get(keys::DEFAULT_REPLICATION_FACTOR)),
            factor => factor,
        };
        let Some(copies) = usize::try_from(copies).ok().filter(|copies| *copies > 0) else {
            let message = "Replication factor must be larger than 0, or -1 for the broker's default.";
            return Err(Refused::new(ErrorCode::InvalidReplicationFactor, message));
        };
        check_copies(copies, room)?;
        let count = match spec.partitions {
            DEFAULT => self.config().get(keys::NUM_PARTITIONS),
            count => count,
        };
        match usize::try_from(count) {
            Ok(partitions) if partitions > 0 => Ok(Wanted::Chosen { partitions, copies }),
            _ => {
                let message = "Number of partitions must be larger than 0, or -1 for the broker's default.";
                Err(Refused::new(ErrorCode::InvalidPartitions, message))
            }
        }
    }
}

/// Where the partitions of a new topic go.
enum Wanted<'s> {
    /// As the request says, for each.
    Assigned(&'s [Vec<i32>]),
    /// Where there is room.
    Chosen { partitions: usize, copies: usize },
}

fn check_copies(copies: usize, room: &Room) -> Result<(), Refused> {
    let alive = room.brokers().max(1);
    if copies <= alive {
        return Ok(());
    }
    let are = if alive == 1 { "is" } else { "are" };
    let message = format!(
        "Replication factor {copies} needs as many brokers, {alive} {are} alive. Ask for less, or for -1, the broker's default."
    );
    Err(Refused::new(ErrorCode::InvalidReplicationFactor, message))
}

/// Places as a request assigns them: brokers that live, each once for a partition, as many for each partition as for
/// the others.
fn assigned(assignments: &[Vec<i32>], room: &mut Room) -> Result<Vec<Placement>, Refused> {
    let refuse = |message: String| Err(Refused::new(ErrorCode::InvalidReplicaAssignment, message));
    let copies = assignments.first().map_or(0, Vec::len);
    if copies == 0 {
        return refuse("Each partition is assigned to one broker at least.".to_owned());
    }
    for brokers in assignments {
        if brokers.len() != copies {
            return refuse("Every partition is assigned to as many brokers as the others.".to_owned());
        }
        if let Some(broker) = brokers.iter().find(|broker| !room.has(BrokerId(**broker))) {
            return refuse(format!(
                "Broker {broker} is not alive, or its log directories take no partitions."
            ));
        }
        let repeated = brokers.iter().enumerate().find(|(index, broker)| brokers[..*index].contains(broker));
        if let Some((_, broker)) = repeated {
            return refuse(format!("A partition is assigned to broker {broker} twice."));
        }
    }
    let brokers = |brokers: &Vec<i32>| brokers.iter().copied().map(BrokerId).collect();
    Ok(assignments.iter().map(|assignment| room.take(brokers(assignment))).collect())
}

fn created(topic: &NewTopic, validated: bool) -> CreatedTopic {
    let replication_factor = topic.placements.first().map_or(0, |placement| placement.brokers.len());
    let id = if validated { TopicId::ZERO } else { topic.id };
    CreatedTopic { id, partitions: topic.placements.len(), replication_factor }
}

/// The refusal when nobody knows what became of a change.
pub(crate) fn unavailable() -> Refused {
    Refused::new(
        ErrorCode::RequestTimedOut,
        "The metadata store did not answer; the change may have been made.",
    )
}

/// The refusal for a name nobody has.
pub(crate) fn unknown_topic(name: &str) -> Refused {
    Refused::new(ErrorCode::UnknownTopicOrPartition, format!("There is no topic '{name}'."))
}
