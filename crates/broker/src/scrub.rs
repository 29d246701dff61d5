//! Reads every sealed segment of this broker from time to time and compares it with the CRC it was sealed with: nothing
//! else looks at what nobody reads, and offsets in the heads of batches are not covered by the CRC that consumers check.
//!
//! What differs or cannot be read is fetched from another broker that has it ([`crate::repair`]). Where no other has it,
//! the log says so.
//!
//! A pass goes through all copies in the order of topics, partitions and offsets, evenly over
//! `vltava.scrub.interval.ms`; `vltava.scrub.io.max.bytes.per.second` bounds what is read. The first pass of a life begins
//! anywhere, or else a broker that is started often would look at the same copies again and again. Nothing is held from
//! one step to the next but the place: neither files nor the broker.
//!
//! What the page cache holds is read from there: damage on the disk below shows once it is no longer cached.

use std::sync::{Arc, Weak};
use std::time::Duration;

use base::chain::{SegmentEntry, SegmentState};
use base::config::keys;
use base::ids::{Offset, PartitionId, StorageId, TopicPartition};
use metadata::{Image, Topic};
use replication::{SealedInfo, SegmentName, Storage, StorageError, StorageState, Verification};

use crate::broker::Broker;
use crate::elections::partitions_of;

/// How often it is looked how much there is to read and how fast, at least; and the longest rest.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// The least time between two looks or steps.
const REST_MIN: Duration = Duration::from_millis(10);
/// Looks in one pass, at least.
const LOOKS_IN_PASS: u32 = 16;
/// What a step costs at least, bytes: files are opened.
const STEP_BYTES_MIN: u64 = 4 << 10;

/// Where a copy stands in a pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    topic: Arc<str>,
    partition: PartitionId,
    base: Offset,
}

/// A sealed segment that this broker has.
struct Own<'a> {
    topic: &'a Arc<Topic>,
    id: TopicPartition,
    entry: &'a SegmentEntry,
    storage: StorageId,
    bytes: u64,
}

impl Own<'_> {
    fn place(&self) -> Place {
        Place { topic: self.topic.name.clone(), partition: self.id.partition, base: self.entry.base }
    }

    fn cost(&self) -> u64 {
        self.bytes.max(STEP_BYTES_MIN)
    }
}

/// All sealed segments on these storages from a place on, in the order of a pass.
fn copies<'a>(
    image: &'a Image,
    own: &'a [StorageId],
    from: Option<&'a Place>,
) -> impl Iterator<Item = Own<'a>> {
    let skipped = move |topic: &&Arc<Topic>| from.is_some_and(|from| topic.name < from.topic);
    image.topics().skip_while(skipped).flat_map(move |topic| {
        let from = from.filter(|from| from.topic == topic.name);
        let before = from.map_or(0, |from| usize::try_from(from.partition.0).unwrap_or(0));
        partitions_of(topic).skip(before).flat_map(move |(id, state)| {
            let base = from.filter(|from| from.partition == id.partition).map(|from| from.base);
            state.chain.iter().filter_map(move |entry| {
                let SegmentState::Sealed { bytes, replicas, .. } = &entry.state else { return None };
                let storage = replicas.iter().find(|replica| own.contains(replica))?;
                let is_due = base.is_none_or(|base| entry.base >= base);
                is_due.then_some(Own { topic, id, entry, storage: *storage, bytes: *bytes })
            })
        })
    })
}

/// How many bytes are to be read in a second: all of them in an interval, and no more than the limit. Pure.
fn rate(bytes: u64, interval: Duration, limit: f64) -> f64 {
    let wanted = bytes as f64 / interval.as_secs_f64().max(0.001);
    if limit > 0.0 { wanted.min(limit) } else { wanted }
}

/// A copy of which a piece is read.
struct Step {
    place: Place,
    id: TopicPartition,
    name: SegmentName,
    sealed: SealedInfo,
    storage_id: StorageId,
    storage: Weak<Storage>,
    so_far: Verification,
}

impl Step {
    /// A first piece of a copy; `None` where its storage is gone.
    fn of(copy: &Own<'_>, storages: &[Arc<Storage>]) -> Option<Step> {
        let SegmentState::Sealed { end, crc, bytes, .. } = copy.entry.state else { return None };
        let storage = storages.iter().find(|storage| storage.id() == copy.storage)?;
        let (id, generation, base) = (copy.entry.id, copy.entry.generation, copy.entry.base);
        let topic = copy.topic.name.clone();
        Some(Step {
            place: copy.place(),
            id: copy.id,
            name: SegmentName { topic, partition: copy.id, id, generation, base },
            sealed: SealedInfo { end, bytes, crc },
            storage_id: copy.storage,
            storage: Arc::downgrade(storage),
            so_far: Verification::default(),
        })
    }

    /// Reads on; how many bytes, `None` when the storage was let go of. Blocks.
    fn read(&mut self) -> Option<Result<u64, StorageError>> {
        let SealedInfo { end, bytes, crc } = self.sealed;
        let segment = self.storage.upgrade()?.load(self.name.clone(), end, bytes, crc);
        Some(segment.verify_on(&mut self.so_far))
    }
}

/// What is remembered from one step to the next.
#[derive(Default)]
struct Scrub {
    /// Bytes of all copies, and when they were counted.
    counted: Option<(u64, Duration)>,
    /// When there was the last step or look.
    at: Duration,
    /// Bytes read that are not paid for by waiting yet, and how many are paid for in a second.
    debt: f64,
    rate: f64,
    /// A first place was chosen.
    has_begun: bool,
    /// Where to go on; `None` at the beginning.
    next: Option<Place>,
    /// The copy that is being read.
    reading: Option<Step>,
}

impl Scrub {
    /// What is to be read now, or how long to rest.
    fn begin(&mut self, broker: &Broker) -> Result<Step, Duration> {
        let config = broker.config();
        let now = broker.env.clock.now();
        let passed = now.saturating_sub(std::mem::replace(&mut self.at, now));
        let interval_ms = u64::try_from(config.get(keys::SCRUB_INTERVAL_MS)).unwrap_or(0);
        let interval = Duration::from_millis(interval_ms);
        if interval.is_zero() || broker.drain.is_draining() {
            return Err(LOOK_INTERVAL);
        }
        let (image, own) = (broker.image(), usable(&broker.storages));
        let look_interval = (interval / LOOKS_IN_PASS).clamp(REST_MIN, LOOK_INTERVAL);
        let counted = self.counted.filter(|(_, at)| now.saturating_sub(*at) < look_interval);
        let count = || (copies(&image, &own, None).map(|copy| copy.cost()).sum(), now);
        let (bytes, _) = *self.counted.insert(counted.unwrap_or_else(count));
        if bytes == 0 {
            return Err(look_interval);
        }
        self.rate = rate(bytes, interval, config.get(keys::SCRUB_IO_MAX_BYTES_PER_SECOND));
        self.debt = (self.debt - self.rate * passed.as_secs_f64()).max(0.0);
        if self.debt > 0.0 {
            return Err(self.rest());
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            self.next = place_at(&image, &own, broker.env.random.next_u64() % bytes);
        }
        self.choose(&image, &own, &broker.storages).ok_or(REST_MIN)
    }

    /// The next piece, of the copy that is being read or the one behind; `None` at the end of a pass.
    fn choose(&mut self, image: &Image, own: &[StorageId], storages: &[Arc<Storage>]) -> Option<Step> {
        let begun = self.reading.take();
        let from = begun.as_ref().map(|begun| begun.place.clone()).or_else(|| self.next.take());
        let copy = copies(image, own, from.as_ref()).next()?;
        let place = copy.place();
        self.next = Some(Place { base: place.base + 1, ..place });
        let step = Step::of(&copy, storages)?;
        // Another one may have come in its place.
        let is_same = |begun: &Step| (&begun.name, begun.storage_id) == (&step.name, step.storage_id);
        Some(begun.filter(is_same).unwrap_or(step))
    }

    /// Notes what a step came to; how long to rest.
    fn end(&mut self, broker: &Broker, step: Step, read: Option<Result<u64, StorageError>>) -> Duration {
        let bytes = match read {
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) => {
                // Nothing is wrong with the copy where there was no handle to read it with: the next pass does.
                if !matches!(error, StorageError::NoHandles { .. }) {
                    tell(broker, &step, &error);
                }
                0
            }
            None => 0,
        };
        self.debt = bytes.max(STEP_BYTES_MIN) as f64;
        if bytes > 0 {
            broker.metrics.node().scrub_read_bytes.inc_by(bytes);
            self.reading = Some(step);
        }
        self.rest()
    }

    /// How long it takes to pay.
    fn rest(&self) -> Duration {
        let longest_s = LOOK_INTERVAL.as_secs_f64();
        Duration::from_secs_f64((self.debt / self.rate).min(longest_s)).max(REST_MIN)
    }
}

/// Storages that can be read.
fn usable(storages: &[Arc<Storage>]) -> Vec<StorageId> {
    let lives = |storage: &&Arc<Storage>| !matches!(storage.state(), StorageState::Failed(_));
    storages.iter().filter(lives).map(|storage| storage.id()).collect()
}

/// The copy in which the given byte of all lies.
fn place_at(image: &Image, own: &[StorageId], byte: u64) -> Option<Place> {
    let mut left = byte;
    let at = |copy: &Own<'_>| {
        let is_in = left < copy.cost();
        left = left.saturating_sub(copy.cost());
        is_in
    };
    copies(image, own, None).find(at).map(|copy| copy.place())
}

/// Says that a copy is damaged, and has it mended, unless it left the chain meanwhile.
fn tell(broker: &Broker, step: &Step, error: &StorageError) {
    let image = broker.image();
    let same = |entry: &&SegmentEntry| {
        (entry.id, entry.generation) == (step.name.id, step.name.generation) && entry.is_on(step.storage_id)
    };
    let Some(entry) = image.partition(&step.id).and_then(|state| state.chain.iter().find(same)) else {
        return;
    };
    broker.metrics.node().scrub_damaged_segments.inc();
    let SegmentState::Sealed { replicas, .. } = &entry.state else { return };
    let (topic, partition) = (&*step.name.topic, step.id.partition.0);
    if replicas.iter().any(|replica| *replica != step.storage_id) {
        tracing::error!(topic, partition, segment = %entry.id, %error, "a copy is damaged: it is fetched from another broker");
        broker.mender.suspect(step.id, entry);
    } else {
        tracing::error!(
            topic, partition, segment = %entry.id, %error,
            "the only copy of these records is damaged: bring the file back from a backup"
        );
    }
}

impl Broker {
    /// Starts the task; it ends with the broker.
    pub(crate) fn spawn_scrub(self: &Arc<Self>) {
        tokio::spawn(scrub_for_ever(Arc::downgrade(self)));
    }
}

/// Who ends the broker does not wait for what is being read.
async fn scrub_for_ever(broker: Weak<Broker>) {
    let mut scrub = Scrub::default();
    let mut rest = REST_MIN;
    while let Some(strong) = Broker::after(&broker, rest).await {
        let mut step = match scrub.begin(&strong) {
            Ok(step) => step,
            Err(until) => {
                rest = until;
                continue;
            }
        };
        let env = strong.env.clone();
        drop(strong);
        let (step, read) = env
            .in_background(move || {
                let read = step.read();
                (step, read)
            })
            .await;
        let Some(strong) = broker.upgrade() else { return };
        rest = scrub.end(&strong, step, read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_read_in_an_interval_unless_that_is_too_much() {
        let day = Duration::from_secs(86_400);
        assert_eq!(rate(86_400_000, day, 1e6), 1_000.0);
        assert_eq!(rate(86_400_000, day, 100.0), 100.0);
        assert_eq!(rate(86_400_000, day, 0.0), 1_000.0);
        assert_eq!(rate(0, day, 1e6), 0.0);
        assert!(rate(1, Duration::ZERO, 0.0).is_finite());
    }
}
