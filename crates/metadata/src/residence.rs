//! Brokers that leave the cluster for good, and what of it is still with them.
//!
//! Who leaves stands in a config of all brokers ([`LEAVING_BROKERS`]), so that any client of Kafka's can say it, of a broker
//! that is down too. A broker whose life ends ([`crate::Broker::draining`]) is something else: it comes back.

use std::collections::BTreeSet;
use std::fmt;

use base::chain::{PartitionState, SegmentState};
use base::ids::{BrokerId, StorageId};

use crate::command::Resource;
use crate::image::Image;

/// The config of all brokers that lists those that leave.
pub const LEAVING_BROKERS: &str = "vltava.leaving.brokers";

impl Image {
    /// Brokers that leave the cluster for good: they get nothing new, and what they have goes to others.
    pub fn leaving(&self) -> BTreeSet<BrokerId> {
        let configs = self.configs(&Resource::AllBrokers);
        let listed = configs.get(LEAVING_BROKERS).map(String::as_str).unwrap_or_default();
        listed.split(',').filter_map(|id| id.trim().parse().ok().map(BrokerId)).collect()
    }
}

/// What a broker still has, and what the cluster would lack without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residence {
    /// Partitions that it leads, or where its copies are wanted or kept.
    pub partitions: usize,
    /// Copies of segments that it has, open ones too.
    pub copies: usize,
    /// Their bytes, as far as they are sealed.
    pub bytes: u64,
    /// Segments of the whole cluster that have fewer copies with other brokers that live than are wanted.
    pub short: usize,
}

impl Residence {
    /// By the metadata of this moment.
    pub fn of(image: &Image, broker: BrokerId) -> Residence {
        let storages: BTreeSet<StorageId> =
            image.broker(broker).map(|broker| broker.storages.keys().copied().collect()).unwrap_or_default();
        let elsewhere: BTreeSet<StorageId> = image
            .brokers()
            .filter(|other| !other.fenced && other.registration.broker != broker)
            .flat_map(|other| other.storages.iter().filter(|(_, state)| state.can_be_read()))
            .map(|(storage, _)| *storage)
            .collect();
        let mut residence = Residence::default();
        for state in image.topics().flat_map(|topic| &topic.partitions) {
            residence.count(state, broker, &storages, &elsewhere);
        }
        residence
    }

    fn count(
        &mut self,
        state: &PartitionState,
        broker: BrokerId,
        storages: &BTreeSet<StorageId>,
        elsewhere: &BTreeSet<StorageId>,
    ) {
        let is_named =
            state.leader == broker || state.placement.contains(&broker) || state.keepers.contains(&broker);
        self.partitions += usize::from(is_named);
        for entry in &state.chain {
            let (held, others) = match &entry.state {
                SegmentState::Open { ensemble } => (
                    ensemble.iter().filter(|member| member.broker == broker).count(),
                    ensemble.iter().filter(|member| elsewhere.contains(&member.storage)).count(),
                ),
                SegmentState::Sealed { bytes, replicas, .. } => {
                    let held = replicas.iter().filter(|replica| storages.contains(replica)).count();
                    self.bytes += bytes * held as u64;
                    (held, replicas.iter().filter(|replica| elsewhere.contains(replica)).count())
                }
            };
            self.copies += held;
            self.short += usize::from(others < state.placement.len());
        }
    }

    /// Whether the broker can go: it has nothing, and no acknowledged record has fewer copies than are wanted.
    pub fn is_empty(&self) -> bool {
        let Residence { partitions, copies, bytes: _, short } = *self;
        partitions == 0 && copies == 0 && short == 0
    }
}

impl fmt::Display for Residence {
    /// After "it cannot go, because".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Residence { partitions, copies, bytes, short } = self;
        write!(
            f,
            "{partitions} partitions are placed on it, it has {copies} copies of segments ({bytes} bytes), and {short} \
             segments have fewer copies with other brokers that live than are wanted"
        )
    }
}
