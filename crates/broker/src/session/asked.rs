//! What a Fetch asks for.

use std::collections::HashMap;
use std::sync::Arc;

use base::ids::Uuid;
use wire::message::fetch_request::FetchTopic;

use super::{FetchPartition, TopicKey};

/// How a Fetch names a topic.
pub(super) fn topic_key(name: &str, id: Uuid, by_topic_id: bool) -> TopicKey {
    if by_topic_id { TopicKey::Id(id) } else { TopicKey::Name(Arc::from(name)) }
}

/// The partitions a request names, each once: a later mention takes the place of an earlier one.
pub(super) fn partitions_asked(topics: &[FetchTopic<'_>], by_topic_id: bool) -> Vec<FetchPartition> {
    let count = topics.iter().map(|topic| topic.partitions.len()).sum();
    let mut asked: Vec<FetchPartition> = Vec::with_capacity(count);
    let mut places = HashMap::with_capacity(count);
    for topic in topics {
        let key = topic_key(&topic.topic, topic.topic_id, by_topic_id);
        for wanted in &topic.partitions {
            let partition = FetchPartition {
                topic: key.clone(),
                partition: wanted.partition,
                fetch_offset: wanted.fetch_offset,
                max_bytes: wanted.partition_max_bytes,
                current_leader_epoch: wanted.current_leader_epoch,
                last_fetched_epoch: wanted.last_fetched_epoch,
            };
            match places.entry((key.clone(), wanted.partition)) {
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(asked.len());
                    asked.push(partition);
                }
                std::collections::hash_map::Entry::Occupied(place) => asked[*place.get()] = partition,
            }
        }
    }
    asked
}
