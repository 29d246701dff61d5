//! The state machine: applies commands to an image. Deterministic: no clock, no randomness.
//!
//! Invariants: equal images and equal commands give equal images and equal results; a refused item
//! changes nothing; ids of segments, producers and incarnations are given once.

mod brokers;
mod chains;
mod cluster;
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
        Command::FormatCluster { cluster_id, metadata_version } => {
            if image.cluster_id.is_zero() {
                image.cluster_id = cluster_id;
                image.metadata_version = image.metadata_version.max(metadata_version);
            }
            CommandResult::Done
        }
        Command::SetMetadataVersion(version) => {
            CommandResult::Items(vec![cluster::set_metadata_version(image, version)])
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
        Command::UnregisterBroker { broker } => {
            CommandResult::Items(vec![brokers::unregister(image, broker)])
        }
        Command::SetStorageHealth { broker, storage, state } => {
            CommandResult::Items(vec![brokers::set_storage_health(image, broker, storage, state)])
        }
        Command::AllocateBrokerId { above } => match brokers::allocate_id(image, above) {
            Ok(id) => CommandResult::FirstId(i64::from(id.0)),
            Err(refusal) => CommandResult::Items(vec![Err(refusal)]),
        },
        Command::AllocateProducerIds { count } => match brokers::allocate_producer_ids(image, count) {
            Ok(first) => CommandResult::FirstId(first),
            Err(refusal) => CommandResult::Items(vec![Err(refusal)]),
        },
    }
}
