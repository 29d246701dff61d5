//! ElectLeaders (43), versions 0 to 2: moves the leader back to the first copy of a partition, or gives it one at all.
//!
//! It answers once the election stands in the metadata; the new leader serves a moment later. An unclean election is held
//! where a partition has no leader, or one that waits for segments which nobody who lives has: of whoever surely has all
//! records, or else of whoever has most of them; the rest is lost then, whatever `unclean.leader.election.enable` says.

use std::borrow::Cow;

use base::error::ErrorCode;
use base::ids::{PartitionId, TopicPartition};
use metadata::{ChainEdit, Command, CommandResult, Image, Refusal, Topic};
use wire::message::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use wire::message::{ElectLeadersRequest, ElectLeadersResponse};

use super::cluster::is_led;
use super::{Close, RequestContext, in_time};
use crate::elections::{Electorate, election, partitions_of, unclean_election};
use crate::topics::{unavailable, unknown_topic};
use crate::turns::Turns;

/// Which leader is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Preferred,
    Unclean,
}

/// A topic and what becomes of its partitions, by number.
type Outcome = (String, Vec<(i32, Result<(), Refusal>)>);

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: ElectLeadersRequest<'_>,
) -> Result<ElectLeadersResponse<'static>, Close> {
    let kind = match request.election_type {
        0 => Kind::Preferred,
        1 => Kind::Unclean,
        other => {
            let message = format!("There are no elections of type {other}.");
            return Ok(refused(context, request, &Refusal::new(ErrorCode::InvalidRequest, message)));
        }
    };
    if let Err(overdue) = in_time(request.timeout_ms) {
        return Ok(refused(context, request, &overdue));
    }
    let image = context.broker.image();
    let mut elections =
        Elections { electorate: Electorate::now(&image), image: &image, kind, edits: Vec::new() };
    let mut turns = Turns::default();
    let mut outcomes: Vec<Outcome> = Vec::new();
    match &request.topic_partitions {
        Some(asked) => {
            for topic in asked {
                let mut results = Vec::with_capacity(topic.partitions.len());
                for number in &topic.partitions {
                    turns.done(1).await;
                    results.push((*number, elections.one(&topic.topic, *number)));
                }
                outcomes.push((topic.topic.to_string(), results));
            }
        }
        None => {
            for topic in image.topics() {
                turns.done(1 + topic.partitions.len()).await;
                outcomes.push((topic.name.to_string(), elections.all_of(topic)));
            }
        }
    }
    let edits = elections.edits;
    hold(context, kind, edits, &mut outcomes).await;
    let replica_election_results = outcomes.into_iter().map(shown).collect();
    Ok(ElectLeadersResponse { replica_election_results, ..ElectLeadersResponse::default() })
}

/// Refuses all that was asked for, one by one; from version 1 on there is a place to say it once, too.
fn refused(
    context: &RequestContext<'_>,
    request: ElectLeadersRequest<'_>,
    refusal: &Refusal,
) -> ElectLeadersResponse<'static> {
    let asked = request.topic_partitions.unwrap_or_default().into_iter();
    let results = asked.map(|topic| {
        let refused = topic.partitions.iter().map(|number| (*number, Err(refusal.clone())));
        shown((topic.topic.into_owned(), refused.collect()))
    });
    ElectLeadersResponse {
        error_code: if context.api_version > 0 { refusal.code.code() } else { ErrorCode::None.code() },
        replica_election_results: results.collect(),
        ..ElectLeadersResponse::default()
    }
}

/// The elections that are to be held.
struct Elections<'i> {
    image: &'i Image,
    electorate: Electorate<'i>,
    kind: Kind,
    /// One for each partition that is not refused, in their order.
    edits: Vec<ChainEdit>,
}

impl Elections<'_> {
    fn one(&mut self, topic: &str, number: i32) -> Result<(), Refusal> {
        let topic = self.image.topic(topic).ok_or_else(|| unknown_topic(topic))?;
        let id = TopicPartition { topic_id: topic.id, partition: PartitionId(number) };
        if topic.partition(id.partition).is_none() {
            let message = format!("Topic '{}' has no partition {number}.", topic.name);
            return Err(Refusal::new(ErrorCode::UnknownTopicOrPartition, message));
        }
        self.elect(id)
    }

    /// As Kafka, this leaves out partitions that have the right leader.
    fn all_of(&mut self, topic: &Topic) -> Vec<(i32, Result<(), Refusal>)> {
        let mut results = Vec::new();
        for (id, _) in partitions_of(topic) {
            let result = self.elect(id);
            if result.as_ref().err().is_none_or(|refused| refused.code != ErrorCode::ElectionNotNeeded) {
                results.push((id.partition.0, result));
            }
        }
        results
    }

    fn elect(&mut self, id: TopicPartition) -> Result<(), Refusal> {
        let state = self.image.partition(&id).ok_or_else(|| unknown_topic(&id.topic_id.to_string()))?;
        let is_led = is_led(self.image, state);
        let not_needed = |message: &str| Err(Refusal::new(ErrorCode::ElectionNotNeeded, message));
        match self.kind {
            Kind::Unclean => {
                let lacks_any = self.electorate.lacks_any(state);
                if is_led && !lacks_any {
                    return not_needed("The partition has a leader.");
                }
                if let Some(leader) = self.electorate.successor(state).filter(|_| !lacks_any) {
                    self.edits.push(election(id, state, leader));
                } else if let Some(leader) = self.electorate.salvager(state) {
                    self.edits.push(unclean_election(id, state, leader));
                } else {
                    let message = "No broker lives that is to have a copy of the partition.";
                    return Err(Refusal::new(ErrorCode::EligibleLeadersNotAvailable, message));
                }
                Ok(())
            }
            Kind::Preferred if is_led && state.placement.first() == Some(&state.leader) => {
                not_needed("The preferred leader leads.")
            }
            Kind::Preferred => {
                let leader = self.electorate.preferred(state).ok_or_else(|| {
                    let message = "The preferred leader is not alive, or its copy is not complete.";
                    Refusal::new(ErrorCode::PreferredLeaderNotAvailable, message)
                })?;
                self.edits.push(election(id, state, leader));
                Ok(())
            }
        }
    }
}

/// Holds the elections, and notes which were not held.
async fn hold(context: &RequestContext<'_>, kind: Kind, edits: Vec<ChainEdit>, outcomes: &mut [Outcome]) {
    let not_elected = match kind {
        Kind::Preferred => ErrorCode::PreferredLeaderNotAvailable,
        Kind::Unclean => ErrorCode::EligibleLeadersNotAvailable,
    };
    if edits.is_empty() {
        return;
    }
    let results = match context.broker.metadata.propose(Command::Edit(edits)).await {
        Ok(CommandResult::Chains(results)) => results,
        other => {
            tracing::error!(?other, "leaders cannot be elected");
            Vec::new()
        }
    };
    let mut results = results.into_iter();
    let elected = outcomes.iter_mut().flat_map(|(_, results)| results).filter(|(_, result)| result.is_ok());
    for (_, outcome) in elected {
        *outcome = match results.next() {
            Some(Ok(_)) => Ok(()),
            // Another election came first, or the broker is gone.
            Some(Err(error)) => Err(Refusal::new(not_elected, format!("Not elected: {error}."))),
            None => Err(unavailable()),
        };
    }
}

fn shown((topic, results): Outcome) -> ReplicaElectionResult<'static> {
    let result = |(partition_id, outcome): (i32, Result<(), Refusal>)| {
        let (code, message) = match outcome {
            Ok(()) => (ErrorCode::None, None),
            Err(refused) => (refused.code, Some(Cow::Owned(refused.message))),
        };
        PartitionResult { partition_id, error_code: code.code(), error_message: message }
    };
    ReplicaElectionResult {
        topic: Cow::Owned(topic),
        partition_result: results.into_iter().map(result).collect(),
    }
}
