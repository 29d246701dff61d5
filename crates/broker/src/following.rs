//! Keeps the broker in step with the metadata: others create and delete topics, and make this broker lead or not.
//!
//! What a request to this broker changes is brought in step before its answer; everything else comes this way.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use base::chain::SegmentEntry;
use base::ids::{PartitionId, StorageId, TopicId, TopicPartition};
use metadata::{Image, Resource, Topic, watch};
use replication::SegmentName;
use replication::stream::SealedCopy;
use tokio::sync::Notify;

use crate::broker::Broker;
use crate::groups::OFFSETS_TOPIC;

impl Broker {
    /// Starts the task; it ends with the broker. `image` is what the broker is in step with.
    pub(crate) fn follow_metadata(self: &Arc<Self>, image: Arc<Image>) {
        let images = self.metadata.subscribe();
        tokio::spawn(follow(Arc::downgrade(self), images, image));
        tokio::spawn(open_groups(Arc::downgrade(self), self.partitions.taken_over()));
    }

    async fn step(self: &Arc<Self>, before: &Image, now: &Image) {
        let configs =
            |image: &Image| (image.configs(&Resource::AllBrokers), image.configs(&Resource::Broker(self.id)));
        if configs(before) != configs(now) {
            self.reload_config();
        }
        let mut old: BTreeMap<TopicId, &Arc<Topic>> =
            before.topics().map(|topic| (topic.id, topic)).collect();
        let mut groups_move = false;
        for topic in now.topics() {
            let known = old.remove(&topic.id);
            let configs = |image: &Image| image.configs(&Resource::Topic(topic.name.to_string()));
            let same_leaders =
                known.is_some_and(|known| Arc::ptr_eq(known, topic) || same_leaders(known, topic));
            if !same_leaders || configs(before) != configs(now) {
                self.partitions.sync_topic(now, &self.config(), topic.id).await;
                groups_move |= *topic.name == *OFFSETS_TOPIC;
            }
            if let Some(known) = known.filter(|known| !Arc::ptr_eq(known, topic)) {
                self.follow_chains(known, topic).await;
            }
        }
        for topic in old.into_values() {
            self.partitions.remove(topic).await;
            self.groups.topic_deleted(&topic.name, topic.id);
        }
        if groups_move {
            self.groups.sync(self).await;
        }
    }
}

impl Broker {
    /// Brings the copies that this broker has of others' partitions in step with their chains.
    async fn follow_chains(&self, before: &Topic, now: &Topic) {
        let own: Vec<StorageId> = self.storages.iter().map(|storage| storage.id()).collect();
        for (number, (old, new)) in before.partitions.iter().zip(&now.partitions).enumerate() {
            if Arc::ptr_eq(old, new) {
                continue;
            }
            let partition = PartitionId(i32::try_from(number).unwrap_or(i32::MAX));
            let id = TopicPartition { topic_id: now.id, partition };
            for entry in old.chain.iter().filter(|entry| own.iter().any(|own| entry.is_on(*own))) {
                let same = |new: &&SegmentEntry| (new.id, new.generation) == (entry.id, entry.generation);
                let new_entry = new.chain.iter().find(same);
                // What this broker leads its log looks after, but for what was never part of it.
                let leads = new.leader == self.id;
                let leads_still = leads && (old.leader, old.leader_epoch) == (new.leader, new.leader_epoch);
                let (generation, base) = (entry.generation, entry.base);
                let name =
                    SegmentName { topic: now.name.clone(), partition: id, id: entry.id, generation, base };
                match new_entry {
                    None if !leads_still || entry.is_open() => self.mender.remove_copy(name).await,
                    // Given up, because others have enough of it.
                    Some(given_up) if !entry.is_open() && !own.iter().any(|own| given_up.is_on(*own)) => {
                        let mender = self.mender.clone();
                        // It may have to wait for what is being fetched.
                        tokio::spawn(async move { mender.remove_given_up(name).await });
                    }
                    Some(sealed) if entry.is_open() && !sealed.is_open() && !leads => {
                        self.seal_copy(&now.name, id, sealed).await;
                    }
                    _ => {}
                }
            }
        }
    }

    async fn seal_copy(&self, topic: &Arc<str>, id: TopicPartition, entry: &SegmentEntry) {
        match self.peers.replicas.sealed(topic, id, entry).await {
            Ok(SealedCopy::Whole(_)) => {}
            Ok(other) => {
                tracing::info!(topic = &**topic, partition = id.partition.0, segment = %entry.id, ?other, "a copy is not whole");
                if self.storages.iter().any(|storage| entry.is_on(storage.id())) {
                    self.mender.suspect(id, entry);
                }
            }
            Err(error) => {
                tracing::warn!(topic = &**topic, partition = id.partition.0, segment = %entry.id, %error, "a copy cannot be ended");
            }
        }
    }
}

/// Opens the groups of partitions that were taken over.
async fn open_groups(broker: Weak<Broker>, taken_over: Arc<Notify>) {
    loop {
        taken_over.notified().await;
        let Some(broker) = broker.upgrade() else { return };
        broker.groups.sync(&broker).await;
    }
}

/// Whether the partitions are as many and have the same leaders in the same epochs.
fn same_leaders(one: &Topic, other: &Topic) -> bool {
    let leader = |topic: &Topic, index: usize| {
        topic.partitions.get(index).map(|partition| (partition.leader, partition.leader_epoch))
    };
    let count = one.partitions.len();
    count == other.partitions.len() && (0..count).all(|index| leader(one, index) == leader(other, index))
}

async fn follow(broker: Weak<Broker>, mut images: watch::Receiver<Arc<Image>>, mut before: Arc<Image>) {
    loop {
        {
            let now = images.borrow_and_update().clone();
            let Some(broker) = broker.upgrade() else { return };
            broker.step(&before, &now).await;
            before = now;
        }
        if images.changed().await.is_err() {
            return;
        }
    }
}
