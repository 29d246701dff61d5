//! Which partition of `__consumer_offsets` holds a group. Every broker, and every client that computes it
//! itself, must come to the same number, so it is Kafka's formula: Java's string hash over UTF-16.

/// Partition of the offsets topic that coordinates `group_id`, or `None` if there are no partitions.
pub fn partition_for(group_id: &str, partition_count: i32) -> Option<i32> {
    let hash = java_string_hash(group_id);
    // Kafka's own absolute value: the one number that has none counts as 0.
    let positive = hash.checked_abs().unwrap_or(0);
    (partition_count > 0).then(|| positive % partition_count)
}

/// Java's `String.hashCode`: `s[0]*31^(n-1) + ... + s[n-1]` over UTF-16 units, wrapping.
fn java_string_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_is_the_one_kafka_computes() {
        // Read off Apache Kafka 4.3.1 with 50 partitions.
        for (group, hash, partition) in [
            ("", 0, 0),
            ("a", 97, 47),
            ("my-group", -1_906_497_762, 12),
            ("žluťoučký", -1_512_236_005, 5),
            ("😀", 1_772_899, 49),
            ("polygenelubricants", i32::MIN, 0),
        ] {
            assert_eq!(java_string_hash(group), hash, "{group}");
            assert_eq!(partition_for(group, 50), Some(partition), "{group}");
        }
    }

    #[test]
    fn no_partitions_means_no_coordinator() {
        assert_eq!(partition_for("group", 0), None);
        assert_eq!(partition_for("group", -1), None);
    }
}
