//! Where new partitions may go: brokers that live, with log directories that take segments.

use std::collections::{BTreeMap, HashMap};

use base::chain::{Member, SegmentState};
use base::error::ErrorCode;
use base::ids::{BrokerId, Incarnation, StorageId};
use metadata::{Image, Placement, Refusal, StorageHealth};
use replication::StorageState;
use replication::placement::{Candidate, place};

use crate::broker::Broker;

/// A log directory and how many open segments it has.
type Directory = (StorageId, usize);

/// A broker that takes partitions.
struct Home {
    incarnation: Incarnation,
    rack: Option<String>,
    /// At least one.
    directories: Vec<Directory>,
    /// They are nearly full.
    reluctant: bool,
}

/// See the module's head. It counts what is placed with it.
pub(crate) struct Room {
    homes: BTreeMap<BrokerId, Home>,
}

impl Broker {
    /// Where new partitions may go now.
    pub(crate) fn room(&self) -> Room {
        let image = self.image();
        let leaving = image.leaving();
        let mut homes = BTreeMap::new();
        for broker in image.brokers().filter(|broker| !broker.fenced && !broker.draining) {
            let id = broker.registration.broker;
            let directories = |health: StorageHealth, state: StorageState| -> Vec<Directory> {
                // What this broker knows of its own is newer.
                let of_own = self.storages.iter().filter(|storage| storage.state() == state);
                let of_others = broker.storages.iter().filter(|(_, known)| **known == health);
                match id == self.id {
                    true => of_own.map(|storage| (storage.id(), 0)).collect(),
                    false => of_others.map(|(storage, _)| (*storage, 0)).collect(),
                }
            };
            let writable = directories(StorageHealth::Writable, StorageState::Writable);
            let reluctant = writable.is_empty();
            let directories = match reluctant {
                true => directories(StorageHealth::ReadOnly, StorageState::ReadOnly),
                false => writable,
            };
            if !directories.is_empty() && !leaving.contains(&id) {
                let (incarnation, rack) = (broker.incarnation, broker.registration.rack.clone());
                homes.insert(id, Home { incarnation, rack, directories, reluctant });
            }
        }
        let mut room = Room { homes };
        room.count(&image);
        room
    }
}

impl Room {
    /// How many brokers take partitions.
    pub(crate) fn brokers(&self) -> usize {
        self.homes.len()
    }

    /// Whether a broker takes partitions.
    pub(crate) fn has(&self, broker: BrokerId) -> bool {
        self.homes.contains_key(&broker)
    }

    /// Places for `count` new partitions of a topic, the first of which has the number `first`, with
    /// `replication_factor` copies each.
    ///
    /// # Errors
    /// `KAFKA_STORAGE_ERROR` when no broker has a log directory that takes them.
    pub(crate) fn place(
        &mut self,
        first: usize,
        count: usize,
        replication_factor: usize,
    ) -> Result<Vec<Placement>, Refusal> {
        if self.homes.is_empty() {
            let message = "No log directory takes new partitions: all are full or failed.";
            return Err(Refusal::new(ErrorCode::KafkaStorageError, message));
        }
        let mut candidates = self.candidates();
        // One that is getting full is for what is there already, as long as others have more room.
        if candidates.iter().filter(|candidate| !candidate.reluctant).count() >= replication_factor {
            candidates.retain(|candidate| !candidate.reluctant);
        }
        let chosen = place(&candidates, first, count, replication_factor);
        Ok(chosen.into_iter().map(|brokers| self.take(brokers)).collect())
    }

    /// The partition on these brokers, each of which takes partitions ([`Room::has`]); the first leads.
    pub(crate) fn take(&mut self, brokers: Vec<BrokerId>) -> Placement {
        let member = |broker: &BrokerId| {
            let home = self.homes.get_mut(broker)?;
            // Of several that have as few, the first.
            let least = home.directories.iter_mut().min_by_key(|(_, taken)| *taken)?;
            least.1 += 1;
            Some(Member { broker: *broker, storage: least.0, incarnation: home.incarnation })
        };
        let ensemble = brokers.iter().filter_map(member).collect();
        Placement { brokers, ensemble }
    }

    fn candidates(&self) -> Vec<Candidate> {
        let candidate = |(broker, home): (&BrokerId, &Home)| Candidate {
            broker: *broker,
            incarnation: home.incarnation,
            storage: home.directories[0].0,
            rack: home.rack.clone(),
            copies: home.directories.iter().map(|(_, taken)| *taken as u64).sum(),
            reluctant: home.reluctant,
        };
        self.homes.iter().map(candidate).collect()
    }

    /// Counts the open segments that are there, if it makes a difference.
    fn count(&mut self, image: &Image) {
        let directories = || self.homes.values().flat_map(|home| &home.directories);
        if directories().count() < 2 {
            return;
        }
        let mut counts: HashMap<StorageId, usize> = directories().copied().collect();
        for state in image.topics().flat_map(|topic| topic.partitions.iter()) {
            if let SegmentState::Open { ensemble } = &state.last().state {
                for member in ensemble {
                    if let Some(count) = counts.get_mut(&member.storage) {
                        *count += 1;
                    }
                }
            }
        }
        for (storage, taken) in self.homes.values_mut().flat_map(|home| &mut home.directories) {
            *taken = counts[storage];
        }
    }
}

#[cfg(test)]
mod tests {
    use base::ids::Uuid;

    use super::*;

    fn storage(number: u8) -> StorageId {
        Uuid([number; 16])
    }

    /// Broker 1 with directories 1 and 2, broker 2 with directory 3.
    fn room() -> Room {
        let home = |storages: &[u8]| Home {
            incarnation: Incarnation(1),
            rack: None,
            directories: storages.iter().map(|number| (storage(*number), 0)).collect(),
            reluctant: false,
        };
        Room { homes: BTreeMap::from([(BrokerId(1), home(&[1, 2])), (BrokerId(2), home(&[3]))]) }
    }

    #[test]
    fn partitions_take_turns_over_brokers_and_directories() {
        let mut room = room();
        let placed = room.place(0, 4, 1).unwrap();
        let homes: Vec<_> =
            placed.iter().map(|place| (place.brokers[0].0, place.ensemble[0].storage)).collect();
        assert_eq!(homes, [(1, storage(1)), (2, storage(3)), (1, storage(2)), (2, storage(3))]);
        // What was placed counts for what comes next, as the topic after it may be another one.
        assert_eq!(room.place(0, 1, 2).unwrap()[0].ensemble.len(), 2);
        assert_eq!(room.candidates().iter().map(|candidate| candidate.copies).collect::<Vec<_>>(), [3, 3]);
    }

    #[test]
    fn who_is_nearly_full_takes_what_nobody_else_can() {
        let mut room = room();
        room.homes.get_mut(&BrokerId(1)).unwrap().reluctant = true;
        let placed = room.place(0, 3, 1).unwrap();
        assert!(placed.iter().all(|place| place.brokers == [BrokerId(2)]), "{placed:?}");
        assert_eq!(room.place(0, 1, 2).unwrap()[0].brokers.len(), 2);
    }

    #[test]
    fn without_a_directory_nothing_is_placed() {
        let mut room = Room { homes: BTreeMap::new() };
        assert_eq!(room.place(0, 1, 1).unwrap_err().code, ErrorCode::KafkaStorageError);
    }
}
