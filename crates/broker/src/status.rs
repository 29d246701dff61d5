//! What the broker tells of itself: a status for people, and the values metrics are made of.

use std::sync::{Arc, Weak};

use base::ids::{BrokerId, Incarnation, Uuid};
use base::metrics::{DirectorySample, GroupSample, PartitionSample, Probe};
use replication::StorageState;

use crate::broker::Broker;

/// A broker at one moment.
#[derive(Clone, Debug)]
pub struct BrokerStatus {
    /// Id of the cluster.
    pub cluster_id: Uuid,
    /// `node.id`.
    pub broker_id: BrokerId,
    /// Number of this life.
    pub incarnation: Incarnation,
    /// Topics there are, internal ones too.
    pub topics: usize,
    /// Partitions this broker leads.
    pub partitions: usize,
    /// Those of them whose files cannot be used.
    pub offline_partitions: usize,
    /// Connections open.
    pub connections: usize,
    /// Version of the metadata.
    pub metadata_version: u64,
    /// Log directories.
    pub directories: Vec<DirectoryStatus>,
}

/// A log directory at one moment.
#[derive(Clone, Debug)]
pub struct DirectoryStatus {
    /// Its path.
    pub path: String,
    /// What it can do.
    pub state: StorageState,
}

impl BrokerStatus {
    /// Why the broker is not healthy; empty when it is.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for directory in &self.directories {
            match &directory.state {
                StorageState::Writable => {}
                StorageState::ReadOnly => problems.push(format!("{} is getting full", directory.path)),
                StorageState::NoSpace => {
                    problems.push(format!("{} is full: produce requests are refused", directory.path));
                }
                StorageState::Failed(reason) => problems.push(format!(
                    "{} failed ({reason}): replace the disk or mend the directory, then restart",
                    directory.path
                )),
            }
        }
        if self.offline_partitions > 0 {
            problems.push(format!("{} partitions are offline; the log says why", self.offline_partitions));
        }
        problems
    }
}

impl Broker {
    /// The broker now.
    pub fn status(&self) -> BrokerStatus {
        let image = self.image();
        let (partitions, offline_partitions) = self.partitions.counts();
        let directory = |storage: &Arc<replication::Storage>| DirectoryStatus {
            path: storage.dir().display().to_string(),
            state: storage.state(),
        };
        BrokerStatus {
            cluster_id: image.cluster_id,
            broker_id: self.id,
            incarnation: self.incarnation,
            topics: image.topics().count(),
            partitions,
            offline_partitions,
            connections: self.connections(),
            metadata_version: image.version,
            directories: self.storages.iter().map(directory).collect(),
        }
    }
}

/// Reads values for metrics from a broker as long as it lives.
pub(crate) struct BrokerProbe(pub(crate) Weak<Broker>);

impl Probe for BrokerProbe {
    fn partitions(&self, visit: &mut dyn FnMut(PartitionSample<'_>)) {
        let Some(broker) = self.0.upgrade() else { return };
        for partition in broker.partitions.all() {
            let log = &partition.log;
            visit(PartitionSample {
                topic: &partition.topic,
                partition: log.partition().partition.0,
                log_start_offset: log.log_start(),
                high_watermark: log.high_watermark(),
                log_end_offset: log.end(),
                size_bytes: log.size(),
                segments: log.segment_count() as u64,
            });
        }
    }

    fn groups(&self, visit: &mut dyn FnMut(GroupSample<'_>)) {
        if let Some(broker) = self.0.upgrade() {
            broker.groups.sample(&broker, visit);
        }
    }

    fn directories(&self, visit: &mut dyn FnMut(DirectorySample<'_>)) {
        let Some(broker) = self.0.upgrade() else { return };
        for storage in broker.storages.iter() {
            // One look at the file system's counters, which waits for no device.
            let space = broker.env.disk.space(storage.dir()).ok();
            visit(DirectorySample {
                path: &storage.dir().display().to_string(),
                offline: matches!(storage.state(), StorageState::Failed(_)),
                total_bytes: space.map_or(0, |space| space.total),
                available_bytes: space.map_or(0, |space| space.available),
            });
        }
    }
}
