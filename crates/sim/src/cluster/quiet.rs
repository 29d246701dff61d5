//! What must be so when all faults are over: every partition is led and has all its copies, logs hold what clients were
//! told, copies are what was sealed, and no files are left that nobody lists.

use std::collections::BTreeMap;
use std::time::Duration;

use base::chain::{PartitionState, SegmentEntry, SegmentState};
use base::env::Disk;
use base::ids::{BrokerId, PartitionId, StorageId, TopicPartition};
use metadata::{Image, StorageHealth, Topic};
use storage::SegmentName;

use super::Cluster;
use super::history::{Place, Promise};
use super::node::{Node, records_path};
use super::reader::Reader;
use super::writer::key_of;

/// How long the cluster may take to be as it was.
const HEAL_PATIENCE: Duration = Duration::from_secs(90);
/// How long a start may take to remove files that nobody lists, and how often all nodes are started for that.
const SWEEP_PATIENCE: Duration = Duration::from_secs(10);
const SWEEPS_MAX: usize = 4;
/// How long a node may take to have what is listed on it.
const COPY_PATIENCE: Duration = Duration::from_secs(10);
/// Longest file of a segment.
pub(super) const SEGMENT_BYTES_MAX: usize = 64 << 20;

impl Cluster {
    /// Waits until every partition is led, has all copies, and all nodes show the same.
    pub(super) async fn quiet(&self) -> Result<(), String> {
        self.until(HEAL_PATIENCE, async || self.missing()).await?;
        self.trace.note("all is as it was");
        Ok(())
    }

    /// What is not as it should be.
    pub(super) fn missing(&self) -> Option<String> {
        let mut versions = Vec::new();
        let mut found = None;
        for node in &self.nodes {
            let Some(life) = node.life() else { return Some(format!("node {} does not serve", node.id)) };
            let image = life.metadata.image();
            versions.push(image.version);
            if let Some(fenced) = image.brokers().find(|broker| broker.fenced) {
                return Some(format!("broker {} is fenced", fenced.registration.broker));
            }
            for topic in image.topics() {
                for (number, state) in topic.partitions.iter().enumerate() {
                    let lacks = lacks(&image, state).map(|what| format!("{}-{number}: {what}", topic.name));
                    found = found.or(lacks);
                }
            }
        }
        let agree = versions.windows(2).all(|pair| pair[0] == pair[1]);
        found.or_else(|| (!agree).then(|| format!("nodes show versions {versions:?} of the metadata")))
    }

    /// Reads every log and holds it against what clients know.
    pub(super) async fn check_logs(&self, places: &[(Place, Promise)]) -> Result<(), String> {
        for (place, promise) in places {
            let reader = Reader::new(self.clients.clone(), place.clone(), *promise, 1);
            let (start, bytes) = reader.read_all().await?;
            let history = self.clients.history.lock();
            history.check_log(place, start, &bytes)?;
            if promise.compacted {
                history.check_keys(place, &bytes, key_of)?;
            }
            let end = history.end(place);
            self.trace.note(format!("{place:?}: {start} to {end}, {} bytes", bytes.len()));
        }
        Ok(())
    }

    /// Starts all nodes anew, one after the other, and waits until no files are left that nobody lists. A leader that is
    /// deposed may leave some that only the next start removes, so that it may take several rounds.
    pub(super) async fn sweep(&self) -> Result<(), String> {
        let mut swept = Ok(());
        for _ in 0..SWEEPS_MAX {
            for node in &self.nodes {
                node.stop().await;
                self.boot(node);
                self.all_serve().await?;
            }
            self.quiet().await?;
            swept = self.until(SWEEP_PATIENCE, async || self.strays()).await;
            if swept.is_ok() {
                break;
            }
        }
        swept
    }

    fn strays(&self) -> Option<String> {
        for node in &self.nodes {
            let Some(life) = node.life() else { return Some(format!("node {} does not serve", node.id)) };
            let image = life.metadata.image();
            for storage in &life.storages {
                let names = storage.scan().filter_map(Result::ok);
                // A copy that missed the seal of its segment stays as long as the segment, a rewrite that was never listed
                // until there is a later one.
                let may_stay = |name: &SegmentName| {
                    let same =
                        |entry: &SegmentEntry| (entry.id, entry.generation) == (name.id, name.generation);
                    image.partition(&name.partition).is_some_and(|state| {
                        let is_awaited =
                            name.generation.0 > 0 && !state.has_outlived(name.base, name.generation);
                        is_awaited || state.chain.iter().any(same)
                    })
                };
                if let Some(stray) = names.into_iter().find(|name| !may_stay(name)) {
                    let SegmentName { topic, partition, id, base, generation } = stray;
                    return Some(format!(
                        "node {} has segment {id} of generation {} from {base} of {topic}-{}, which no chain lists",
                        node.id, generation.0, partition.partition
                    ));
                }
            }
        }
        None
    }

    /// Compares all copies of sealed segments with what was sealed; returns how many.
    pub(super) async fn check_copies(&self) -> Result<usize, String> {
        let mut copies = 0;
        // A node may be about to take a step of which another has told already.
        let compared = self.until(COPY_PATIENCE, async || match self.compare_copies() {
            Ok(compared) => {
                copies = compared;
                None
            }
            Err(error) => Some(error),
        });
        compared.await?;
        Ok(copies)
    }

    fn compare_copies(&self) -> Result<usize, String> {
        let mut homes = BTreeMap::new();
        for node in &self.nodes {
            let life = node.life().ok_or("a node does not serve")?;
            homes.extend(life.storages.iter().map(|storage| (storage.id(), node)));
        }
        let image = self.witness.lock().newest().unwrap_or_default();
        let mut compared = 0;
        for topic in image.topics() {
            for (number, state) in topic.partitions.iter().enumerate() {
                for entry in state.chain.iter().filter(|entry| !entry.is_open()) {
                    compared += check_entry(topic, number, entry, &homes)?;
                }
            }
        }
        Ok(compared)
    }
}

/// Whether a file begins with what was sealed.
pub(super) fn is_as_sealed(content: &[u8], bytes: u64, crc: u32) -> bool {
    let whole = usize::try_from(bytes).ok().and_then(|bytes| content.get(..bytes));
    whole.map(crc_fast::crc32_iscsi) == Some(crc)
}

fn check_entry(
    topic: &Topic,
    number: usize,
    entry: &SegmentEntry,
    homes: &BTreeMap<StorageId, &std::sync::Arc<Node>>,
) -> Result<usize, String> {
    let SegmentState::Sealed { crc, bytes, replicas, .. } = &entry.state else { return Ok(0) };
    let partition =
        TopicPartition { topic_id: topic.id, partition: PartitionId(i32::try_from(number).unwrap_or(0)) };
    let name = SegmentName {
        topic: topic.name.clone(),
        partition,
        id: entry.id,
        generation: entry.generation,
        base: entry.base,
    };
    for replica in replicas {
        let node = homes.get(replica).ok_or_else(|| format!("{name:?} is on {replica}, which nobody has"))?;
        let content = node.sim.disk.read(&records_path(&name), SEGMENT_BYTES_MAX);
        let content = content.map_err(|error| format!("{name:?} on node {}: {error}", node.id))?;
        if !is_as_sealed(&content, *bytes, *crc) {
            let length = content.len();
            return Err(format!(
                "{name:?} on node {} is not what was sealed: {length} bytes, not {bytes}",
                node.id
            ));
        }
    }
    Ok(replicas.len())
}

/// What a partition lacks.
fn lacks(image: &Image, state: &PartitionState) -> Option<String> {
    let live = |broker: BrokerId| image.broker(broker).is_some_and(|broker| !broker.fenced);
    if !live(state.leader) {
        return Some(format!("its leader {} does not live", state.leader));
    }
    let incarnation = |broker: BrokerId| image.broker(broker).map(|broker| broker.incarnation);
    for entry in &state.chain {
        let (have, what) = match &entry.state {
            SegmentState::Open { ensemble } => {
                let living = ensemble.iter().filter(|m| incarnation(m.broker) == Some(m.incarnation));
                (living.count(), "members that live")
            }
            SegmentState::Sealed { replicas, .. } => {
                let can_be_read =
                    |id: &&StorageId| image.storage_health(**id).is_some_and(StorageHealth::can_be_read);
                if let Some(gone) = replicas.iter().find(|id| !can_be_read(id)) {
                    return Some(format!("{} is to be on {gone}, which is gone", entry.id));
                }
                (replicas.len(), "copies")
            }
        };
        // An open segment without records is opened anew by the first.
        if have < state.placement.len() && !(entry.is_open() && state.chain.len() == 1) {
            return Some(format!("{} has {have} {what} of {}", entry.id, state.placement.len()));
        }
    }
    None
}
