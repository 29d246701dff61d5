//! For every key of a range, the last offset at which it was written: 24 bytes a key, never more than
//! a bounded buffer holds.
//!
//! Keys are known by 128 bits of a keyed hash, so that two of them are taken for one with a chance
//! that no log is long enough for (2^-88 for a million keys), whoever chose them.

use std::hash::{DefaultHasher, Hasher};

use base::env::Env;
use base::ids::Offset;

/// Size of an entry, bytes: the hash and the offset.
pub const OFFSET_MAP_ENTRY_BYTES: usize = 24;

/// The map. Open addressing with linear probing.
pub struct OffsetMap {
    secrets: [u64; 4],
    /// Hash of each slot's key.
    hashes: Vec<[u64; 2]>,
    /// One more than the offset; 0 for an empty slot, so that fresh memory from the system is a table.
    offsets: Vec<u64>,
    len: usize,
    len_max: usize,
    end: Offset,
}

impl std::fmt::Debug for OffsetMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OffsetMap").field("len", &self.len).field("end", &self.end).finish_non_exhaustive()
    }
}

impl OffsetMap {
    /// A map in at most `buffer_bytes` of memory (Kafka's `log.cleaner.dedupe.buffer.size`) that counts
    /// as full when `load_factor` of its slots are taken (`log.cleaner.io.buffer.load.factor`).
    /// `keys_max`, the most keys that can come, makes it smaller where less will do. `start` is the
    /// first offset that will be put.
    pub fn new(env: &Env, buffer_bytes: usize, load_factor: f64, keys_max: u64, start: Offset) -> OffsetMap {
        let load_factor = load_factor.clamp(0.01, 0.95);
        let needed = (keys_max as f64 / load_factor).ceil() as usize;
        let slots = (buffer_bytes / OFFSET_MAP_ENTRY_BYTES).min(needed.saturating_add(1)).max(2);
        let secrets = std::array::from_fn(|_| env.random.next_u64());
        let len_max = ((slots as f64 * load_factor) as usize).clamp(1, slots - 1);
        let (hashes, offsets) = (vec![[0; 2]; slots], vec![0; slots]);
        OffsetMap { secrets, hashes, offsets, len: 0, len_max, end: start }
    }

    /// Keys in the map.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without keys.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Offset after the last one the map accounts for; later records are not to be judged by it.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Whether so many more keys are sure to fit.
    pub fn has_room_for(&self, keys: usize) -> bool {
        keys <= self.len_max - self.len
    }

    /// Notes that everything below `end` is accounted for.
    pub fn advance(&mut self, end: Offset) {
        self.end = self.end.max(end);
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        std::array::from_fn(|half| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u64(self.secrets[2 * half]);
            hasher.write_u64(self.secrets[2 * half + 1]);
            hasher.write(key);
            hasher.finish()
        })
    }

    /// The slot of a hash, or the empty one where it belongs.
    fn slot(&self, hash: [u64; 2]) -> usize {
        let slots = self.offsets.len();
        // Maps 64 bits onto the slots evenly.
        let mut slot = ((u128::from(hash[0]) * slots as u128) >> 64) as usize;
        while self.offsets[slot] != 0 && self.hashes[slot] != hash {
            slot = if slot + 1 == slots { 0 } else { slot + 1 };
        }
        slot
    }

    /// Notes that `key` was written at `offset` (0 or more); a lower offset than known changes nothing.
    /// False when the map is full and the key is new.
    pub fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hash(key);
        let slot = self.slot(hash);
        if self.offsets[slot] == 0 {
            if self.len == self.len_max {
                return false;
            }
            self.len += 1;
            self.hashes[slot] = hash;
        }
        self.offsets[slot] = self.offsets[slot].max(offset as u64 + 1);
        true
    }

    /// The last offset at which `key` was written in the range.
    pub fn get(&self, key: &[u8]) -> Option<Offset> {
        let slot = self.slot(self.hash(key));
        self.offsets[slot].checked_sub(1).map(|offset| offset as Offset)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn it_agrees_with_a_plain_map_until_it_is_full() {
        let env = Env::sim(1);
        let mut map = OffsetMap::new(&env, 24 * 1_000, 0.9, u64::MAX, 5);
        let mut plain: HashMap<Vec<u8>, Offset> = HashMap::new();
        let mut offset = 5;
        loop {
            let key = format!("key-{}", env.random.next_u64() % 5_000).into_bytes();
            if !map.put(&key, offset) {
                assert!(!plain.contains_key(&key));
                break;
            }
            plain.insert(key, offset);
            offset += 1;
        }
        assert_eq!((map.len(), plain.len()), (900, 900));
        assert!(!map.has_room_for(1));
        for (key, offset) in &plain {
            assert_eq!(map.get(key), Some(*offset));
        }
        assert_eq!(map.get(b"another"), None);
        assert!(map.put(plain.keys().next().unwrap(), 1), "a known key always fits");
        assert!(plain.iter().all(|(key, offset)| map.get(key) == Some(*offset)));
        assert_eq!(map.end(), 5);
        map.advance(99);
        map.advance(7);
        assert_eq!(map.end(), 99);
    }

    #[test]
    fn it_takes_no_more_memory_than_it_can_use() {
        let env = Env::sim(1);
        let small = OffsetMap::new(&env, 128 << 20, 0.9, 10, 0);
        assert!(small.offsets.len() <= 13 && small.has_room_for(10));
        let bounded = OffsetMap::new(&env, 2_400, 0.9, 1 << 40, 0);
        assert_eq!(bounded.offsets.len(), 100);
        let tiny = OffsetMap::new(&env, 0, 0.9, 1 << 40, 0);
        assert!(tiny.has_room_for(1) && !tiny.has_room_for(2));
    }

    #[test]
    fn an_empty_key_is_a_key() {
        let mut map = OffsetMap::new(&Env::sim(1), 1_000, 0.9, 10, 0);
        assert!(map.is_empty() && map.put(b"", 0));
        assert_eq!(map.get(b""), Some(0));
    }
}
