//! Who leads a partition, for clients that asked somebody else or too late (KIP-951): told in the answer, they go on
//! without asking for Metadata first.
//!
//! Both come from the metadata image, so that it makes no difference which broker is asked.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::ids::PartitionId;
use metadata::Image;

use super::cluster::{BrokerView, is_led};
use crate::session::TopicKey;

/// A partition's leader and its epoch, -1 and -1 where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leader {
    pub(super) id: i32,
    pub(super) epoch: i32,
}

/// The leaders that an answer names.
pub(super) struct Leaders {
    image: Arc<Image>,
    named: BTreeSet<i32>,
}

impl Leaders {
    /// None yet.
    pub(super) fn new(image: Arc<Image>) -> Leaders {
        Leaders { image, named: BTreeSet::new() }
    }

    /// Looks up who leads a partition.
    pub(super) fn of(&mut self, topic: &TopicKey, partition: i32) -> Leader {
        let topic = match topic {
            TopicKey::Name(name) => self.image.topic(name),
            TopicKey::Id(id) => self.image.topic_by_id(*id),
        };
        let state = topic.and_then(|topic| topic.partition(PartitionId(partition)));
        let Some(state) = state else { return Leader { id: -1, epoch: -1 } };
        if !is_led(&self.image, state) {
            return Leader { id: -1, epoch: state.leader_epoch.0 };
        }
        self.named.insert(state.leader.0);
        Leader { id: state.leader.0, epoch: state.leader_epoch.0 }
    }

    /// Where the leaders named are reached. `brokers` are those that the client can reach, as
    /// [`super::cluster::brokers`] tells them.
    pub(super) fn endpoints(self, brokers: impl FnOnce(&Image) -> Vec<BrokerView>) -> Vec<BrokerView> {
        if self.named.is_empty() {
            return Vec::new();
        }
        let mut brokers = brokers(&self.image);
        brokers.retain(|broker| self.named.contains(&broker.id));
        brokers
    }
}

#[cfg(test)]
mod tests {
    use base::chain::Member;
    use base::config::HostPort;
    use base::ids::{BrokerId, Incarnation, Uuid};
    use metadata::{
        Command, MemoryStore, MetadataStore, MetadataVersions, NewTopic, Placement, Registration,
    };

    use super::*;

    fn name(name: &str) -> TopicKey {
        TopicKey::Name(name.into())
    }

    fn view(id: i32) -> BrokerView {
        BrokerView { id, address: HostPort { host: format!("b{id}"), port: 9092 }, rack: None, fenced: false }
    }

    /// Brokers 1 and 2; one topic whose partitions 0 and 1 the second one leads.
    async fn image() -> Arc<Image> {
        let store = MemoryStore::default();
        for broker in [1, 2] {
            let storages = vec![Uuid([broker; 16])];
            let broker = BrokerId(broker.into());
            let registration = Registration {
                broker,
                listeners: Vec::new(),
                rack: None,
                storages,
                metadata_versions: MetadataVersions::SUPPORTED,
                min_insync_replicas: None,
            };
            store.propose(Command::RegisterBroker(registration)).await.unwrap();
        }
        let member = Member { broker: BrokerId(2), storage: Uuid([2; 16]), incarnation: Incarnation(2) };
        let placement = Placement { brokers: vec![BrokerId(2)], ensemble: vec![member] };
        let topic = NewTopic {
            id: Uuid([9; 16]),
            name: "t".into(),
            placements: vec![placement.clone(), placement],
            configs: Vec::new(),
            internal: false,
        };
        store.propose(Command::CreateTopics(vec![topic])).await.unwrap();
        store.image()
    }

    #[tokio::test]
    async fn leaders_are_named_once_and_no_others() {
        let mut leaders = Leaders::new(image().await);
        for partition in [0, 1] {
            let leader = leaders.of(&name("t"), partition);
            assert_eq!(leader, Leader { id: 2, epoch: 0 });
            assert_eq!(leaders.of(&TopicKey::Id(Uuid([9; 16])), partition), leader);
        }
        let endpoints = leaders.endpoints(|_| vec![view(1), view(2), view(3)]);
        assert_eq!(endpoints.iter().map(|broker| &*broker.address.host).collect::<Vec<_>>(), ["b2"]);
    }

    #[tokio::test]
    async fn what_nobody_knows_has_no_leader() {
        let mut leaders = Leaders::new(image().await);
        let none = Leader { id: -1, epoch: -1 };
        assert_eq!(leaders.of(&name("t"), 2), none);
        assert_eq!(leaders.of(&name("t"), -1), none);
        assert_eq!(leaders.of(&name("u"), 0), none);
        assert_eq!(leaders.of(&TopicKey::Id(Uuid([8; 16])), 0), none);
        assert!(leaders.endpoints(|_| panic!("nobody is to be looked for")).is_empty());
    }
}
