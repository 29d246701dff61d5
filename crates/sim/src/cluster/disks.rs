//! Disks that lose what they hold, or show something else.
//!
//! What is promised holds while fewer copies than `min.insync.replicas` are gone: two must hold a record before it is
//! acknowledged, so that one disk may be lost or damaged at a time. The next one is only touched when all copies are there
//! again, wherever they were made, and what was damaged is mended.

use std::time::Duration;

use base::batch::Batches;
use base::chain::{SegmentEntry, SegmentState};
use base::env::Disk;
use base::ids::{PartitionId, StorageId, TopicPartition};
use storage::SegmentName;

use super::Cluster;
use super::faults::Fault;
use super::node::{Node, records_path};
use super::quiet::{SEGMENT_BYTES_MAX, is_as_sealed};

/// How often it is looked whether all copies are there before a second disk is touched, and how long between.
const LOOKS_MAX: usize = 200;
const LOOK_INTERVAL_MS: u64 = 100;
/// How long a broker may take to find damage and mend it, once all is well.
const MEND_PATIENCE: Duration = Duration::from_secs(90);
/// Where the part of a batch begins that its CRC protects.
///
/// What is before it is left alone: of these 21 bytes a reader takes the base offset and the epoch at their word, as Kafka's
/// do, and no broker compares them with its neighbours when it reads.
const PROTECTED_FROM: usize = 21;

/// Whose copies may not be counted on.
#[derive(Default)]
pub(super) struct Spoilt {
    /// The node whose disk was lost or damaged last.
    node: Option<usize>,
    /// Which of its segments was damaged and is not known to be mended.
    damaged: Option<SegmentName>,
    /// How often a disk was lost or damaged.
    pub(super) times: usize,
}

impl Cluster {
    /// Takes the log directory from a node, which comes back some time later.
    pub(super) async fn lose_disk(&self, fault: Fault) {
        if !self.may_spoil(fault.node).await {
            return self.trace.note("another disk may not be lost yet");
        }
        let node = &self.nodes[fault.node];
        self.take_disk(node);
        self.sleep_ms(fault.lasts_ms).await;
        self.boot(node);
    }

    /// Flips a bit of a sealed segment on the disk of a node. In half of the cases the disk is replaced after a while; else
    /// the broker finds the damage and mends it.
    pub(super) async fn flip_bit(&self, fault: Fault) {
        if !self.may_spoil(fault.node).await {
            return self.trace.note("another disk may not be damaged yet");
        }
        let node = &self.nodes[fault.node];
        let Some((name, bit)) = self.choose_bit(fault) else {
            return self.trace.note(format!("node {} has no sealed segment", node.id));
        };
        self.spoilt.lock().damaged = Some(name.clone());
        self.clients.set_damaged(node.id, true);
        let flipped = node.sim.disk.flip_bit(&records_path(&name), bit);
        self.spoilt.lock().times += usize::from(flipped.is_ok());
        let SegmentName { topic, partition, id, .. } = &name;
        let place = format!("{topic}-{} on node {}", partition.partition, node.id);
        self.trace.note(format!("bit {bit} of segment {id} of {place} flips: {flipped:?}"));
        self.sleep_ms(fault.lasts_ms).await;
        if fault.variant.is_multiple_of(2) && self.damaged().is_some() {
            self.trace.note(format!("the disk of node {} is replaced", node.id));
            self.take_disk(node);
            self.boot(node);
        }
    }

    /// Waits until no copy is damaged any more.
    pub(super) async fn mended(&self) -> Result<(), String> {
        self.until(MEND_PATIENCE, async || self.damaged().map(|name| format!("{name:?} is damaged"))).await
    }

    /// The copy that was damaged and is not mended.
    fn damaged(&self) -> Option<SegmentName> {
        let (node, name) = {
            let spoilt = self.spoilt.lock();
            (&self.nodes[spoilt.node?], spoilt.damaged.clone()?)
        };
        if self.is_whole(node, &name) {
            self.trace.note(format!("{name:?} of node {} is mended or gone", node.id));
            // Clients go on taking it for damaged: what they were sent before may reach them now.
            self.spoilt.lock().damaged = None;
            return None;
        }
        Some(name)
    }

    /// Whether a copy is what was sealed, or is none any more.
    fn is_whole(&self, node: &Node, name: &SegmentName) -> bool {
        let image = self.witness.lock().newest().unwrap_or_default();
        let same = |entry: &&SegmentEntry| (entry.id, entry.generation) == (name.id, name.generation);
        let entry = image.partition(&name.partition).and_then(|state| state.chain.iter().find(same));
        let Some(SegmentState::Sealed { bytes, crc, .. }) = entry.map(|entry| &entry.state) else {
            return true;
        };
        let Ok(content) = node.sim.disk.read(&records_path(name), SEGMENT_BYTES_MAX) else { return true };
        is_as_sealed(&content, *bytes, *crc)
    }

    /// Takes the log directory from a node.
    fn take_disk(&self, node: &Node) {
        node.lose_log_directory();
        self.clients.set_damaged(node.id, false);
        let mut spoilt = self.spoilt.lock();
        (spoilt.damaged, spoilt.times) = (None, spoilt.times + 1);
    }

    /// Whether the disk of this node may be lost or damaged; it counts as such from then on. Waits for the copies that
    /// another one has lost.
    async fn may_spoil(&self, node: usize) -> bool {
        for _ in 0..LOOKS_MAX {
            if self.spoils(node) {
                return true;
            }
            self.sleep_ms(LOOK_INTERVAL_MS).await;
        }
        false
    }

    /// Notes that the disk of this node is touched, unless that of another one was and copies are missing.
    fn spoils(&self, node: usize) -> bool {
        let is_damaged = self.damaged().is_some();
        let mut spoilt = self.spoilt.lock();
        let may = match spoilt.node {
            Some(other) if other != node => !is_damaged && self.missing().is_none(),
            _ => true,
        };
        if may {
            spoilt.node = Some(node);
        }
        may
    }

    /// A bit that a CRC protects, of a sealed segment that is on the node and on another.
    fn choose_bit(&self, fault: Fault) -> Option<(SegmentName, u64)> {
        let node = &self.nodes[fault.node];
        let own: Vec<StorageId> = node.life()?.storages.iter().map(|storage| storage.id()).collect();
        let names = self.sealed_on(&own);
        let name = names.get(self.random.below(names.len().max(1) as u64) as usize)?;
        let content = node.sim.disk.read(&records_path(name), SEGMENT_BYTES_MAX).ok()?;
        let mut batches = Vec::new();
        let mut position = 0;
        for batch in Batches::new(&content) {
            let size = batch.ok()?.total_size();
            batches.push((position, size));
            position += size;
        }
        let (position, size) = *batches.get(self.random.below(batches.len().max(1) as u64) as usize)?;
        let from = (position + PROTECTED_FROM) as u64 * 8;
        let bit = from + self.random.below((size - PROTECTED_FROM) as u64 * 8);
        Some((name.clone(), bit))
    }

    /// Sealed segments that are on one of these storages and on another one.
    fn sealed_on(&self, own: &[StorageId]) -> Vec<SegmentName> {
        let image = self.witness.lock().newest().unwrap_or_default();
        let is_on = |entry: &&SegmentEntry| match &entry.state {
            SegmentState::Sealed { replicas, .. } => {
                replicas.len() > 1 && replicas.iter().any(|replica| own.contains(replica))
            }
            SegmentState::Open { .. } => false,
        };
        let mut names = Vec::new();
        for topic in image.topics() {
            for (number, state) in (0..).zip(&topic.partitions) {
                let partition = TopicPartition { topic_id: topic.id, partition: PartitionId(number) };
                let named = state.chain.iter().filter(is_on).map(|entry| SegmentName {
                    topic: topic.name.clone(),
                    partition,
                    id: entry.id,
                    generation: entry.generation,
                    base: entry.base,
                });
                names.extend(named);
            }
        }
        names
    }
}
