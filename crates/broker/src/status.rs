//! What the broker tells of itself: a status for people, and the values metrics are made of.

use std::path::Path;
use std::sync::{Arc, Weak};

use base::chain::PartitionState;
use base::env::{Disk, OpenMode};
use base::ids::{BrokerId, Incarnation, Uuid};
use base::metrics::{DirectorySample, GroupSample, NodeMetrics, PartitionSample, Probe};
use metadata::Image;
use replication::StorageState;

use crate::broker::Broker;
use crate::elections::is_in_doubt;

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
    /// Why the metadata cannot be changed at the moment.
    pub metadata_problem: Option<String>,
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
                // Getting full is told by the log and by `vltava_directory_available_bytes`; all is served still.
                StorageState::Writable | StorageState::ReadOnly => {}
                StorageState::NoSpace => {
                    problems.push(format!("{} is full: produce requests are refused", directory.path));
                }
                StorageState::Failed(reason) => problems.push(format!(
                    "{} failed ({reason}): replace the disk or mend the directory, then restart",
                    directory.path
                )),
            }
        }
        if let Some(problem) = &self.metadata_problem {
            problems.push(format!("{problem} (records are still taken where no new segment is due)"));
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
            metadata_problem: self.metadata.problem(),
            directories: self.storages.iter().map(directory).collect(),
        }
    }
}

/// How many partitions that the broker leads have too few copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Copies {
    /// Fewer storages take their records than are to.
    under_replicated: usize,
    /// Fewer than `min.insync.replicas`, so that acks=all is refused.
    under_min_isr: usize,
}

impl Broker {
    fn copies(&self) -> Copies {
        let mut copies = Copies::default();
        for partition in self.partitions.all() {
            let (_, in_sync) = partition.log.in_sync();
            copies.under_replicated += usize::from(in_sync < partition.log.state().placement.len());
            copies.under_min_isr += usize::from(partition.has_too_few_copies());
        }
        copies
    }
}

/// Partitions of the cluster that have no leader who lives and knows where their logs end.
fn leaderless(image: &Image) -> usize {
    let lives = |id: BrokerId| image.broker(id).is_some_and(|broker| !broker.fenced);
    let is_led = |state: &Arc<PartitionState>| lives(state.leader) && !is_in_doubt(state, lives);
    image.topics().flat_map(|topic| topic.partitions.iter()).filter(|state| !is_led(state)).count()
}

/// Reads values for metrics from a broker as long as it lives.
pub(crate) struct BrokerProbe(pub(crate) Weak<Broker>);

impl Probe for BrokerProbe {
    fn refresh(&self, node: &NodeMetrics) {
        let Some(broker) = self.0.upgrade() else { return };
        let (partitions, offline) = broker.partitions.counts();
        let image = broker.image();
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        node.partitions.set(count(partitions));
        node.leaders.set(count(partitions - offline));
        node.offline_partitions.set(count(offline));
        node.leaderless_partitions.set(count(leaderless(&image)));
        node.metadata_available.set(i64::from(broker.metadata.problem().is_none()));
        node.topics.set(count(image.topics().count()));
        node.cluster_partitions.set(count(image.topics().map(|topic| topic.partitions.len()).sum()));
        node.active_controller.set(i64::from(broker.metadata.controller() == Some(broker.id)));
        let copies = broker.copies();
        node.under_replicated_partitions.set(count(copies.under_replicated));
        node.under_min_isr_partitions.set(count(copies.under_min_isr));
        node.start_time_seconds.set(broker.started_at_ms as f64 / 1_000.0);
        let disk = &*broker.env.disk;
        node.resident_memory_bytes.set(resident_bytes(disk).unwrap_or(0));
        node.open_files.set(disk.read_dir(Path::new("/proc/self/fd")).map_or(0, |open| count(open.len())));
    }

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

/// What the kernel says of this process's memory; `None` where there is no such file.
fn resident_bytes(disk: &dyn Disk) -> Option<i64> {
    let status = disk.open(Path::new("/proc/self/status"), OpenMode::Read).ok()?;
    let mut bytes = [0; 4_096];
    let count = status.read_at(&mut bytes, 0).ok()?;
    let text = std::str::from_utf8(&bytes[..count]).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1_024)
}
