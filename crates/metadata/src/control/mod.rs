//! The state machine: applies commands to an image. Deterministic: no clock, no randomness.
//!
//! Invariants: equal images and equal commands give equal images and equal results; a refused item
//! changes nothing; ids of segments, producers and incarnations are given once.

mod brokers;
mod chains;
mod configs;
mod topics;

pub use brokers::PRODUCER_IDS_PER_COMMAND_MAX;
pub use topics::{TOPIC_NAME_LENGTH_MAX, TOPIC_PARTITIONS_MAX, check_name};

use crate::command::{Command, CommandResult};
use crate::image::Image;

/// Applies one command.
pub(crate) fn apply(image: &mut Image, command: Command) -> CommandResult {
    image.version += 1;
    match command {
        Command::Bootstrap { cluster_id } => {
            if image.cluster_id.is_zero() {
                image.cluster_id = cluster_id;
            }
            CommandResult::Done
        }
        Command::RegisterBroker(registration) => match brokers::register(image, registration) {
            Ok(incarnation) => CommandResult::Registered(incarnation),
            Err(refusal) => CommandResult::Items(vec![Err(refusal)]),
        },
        Command::CreateTopics(topics) => {
            CommandResult::Items(topics.into_iter().map(|topic| topics::create(image, topic)).collect())
        }
        Command::DeleteTopics(ids) => {
            CommandResult::Items(ids.into_iter().map(|id| topics::delete(image, id)).collect())
        }
        Command::CreatePartitions { topic_id, present, placements } => {
            CommandResult::Items(vec![topics::grow(image, topic_id, present, placements)])
        }
        Command::AlterConfigs { resource, changes } => {
            CommandResult::Items(vec![configs::alter(image, resource, changes)])
        }
        Command::ElectAll { leader } => CommandResult::Count(chains::elect_all(image, leader)),
        Command::Edit(edits) => {
            CommandResult::Chains(edits.into_iter().map(|edit| chains::edit(image, edit)).collect())
        }
        Command::SetFenced { broker, incarnation, fenced } => {
            CommandResult::Items(vec![brokers::set_fenced(image, broker, incarnation, fenced)])
        }
        Command::Drain { broker, incarnation } => {
            CommandResult::Items(vec![brokers::drain(image, broker, incarnation)])
        }
        Command::SetStorageHealth { broker, storage, state } => {
            CommandResult::Items(vec![brokers::set_storage_health(image, broker, storage, state)])
        }
        Command::AllocateProducerIds { count } => match brokers::allocate_producer_ids(image, count) {
            Ok(first) => CommandResult::FirstId(first),
            Err(refusal) => CommandResult::Items(vec![Err(refusal)]),
        },
    }
}
