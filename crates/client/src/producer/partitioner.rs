//! Which partition a record with a key goes to: the same as with Kafka's own clients, so that records of
//! one key stay together whoever writes them.

/// The partition of a key among `partitions`, as Kafka's default partitioner has it.
pub fn partition_of_key(key: &[u8], partitions: i32) -> i32 {
    // Kafka drops the sign bit rather than taking the absolute value.
    (murmur2(key) & 0x7fff_ffff) as i32 % partitions.max(1)
}

/// MurmurHash2 with Kafka's seed.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const MULTIPLIER: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(MULTIPLIER);
        k ^= k >> 24;
        hash = hash.wrapping_mul(MULTIPLIER) ^ k.wrapping_mul(MULTIPLIER);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_kafkas_client() {
        // Computed with org.apache.kafka.common.utils.Utils.murmur2 of kafka-clients 4.3.1.
        let expected = [
            ("", 275_646_681),
            ("2", 648_968_168),
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ];
        for (key, hash) in expected {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn partitions_lie_within_the_topic() {
        for count in [1, 3, 64] {
            for key in 0..500u32 {
                assert!((0..count).contains(&partition_of_key(&key.to_le_bytes(), count)));
            }
        }
        assert_eq!(partition_of_key(b"foobar", 1000), (-790_332_482i32 & 0x7fff_ffff) % 1000);
    }
}
