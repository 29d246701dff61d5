//! Filling a shard from its log.

use base::batch::{Batches, DecompressBuffer};
use base::ids::Offset;
use bytes::Bytes;
use coordinator::GroupShard;
use replication::Log;

use crate::partition::Producers;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// The most that one batch may decompress to. Ours are not compressed; others are below Kafka's limit of a message
/// by far.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// Reads the whole log into an empty shard. Blocks: the files may be cold. The shard still needs
/// [`GroupShard::finish_loading`].
///
/// # Errors
/// The log cannot be read; a shard filled in part would forget commits.
pub(super) fn fill(log: &Log<Producers>, mut shard: GroupShard) -> Result<GroupShard, String> {
    let mut from = log.log_start();
    let upper = log.high_watermark();
    while from < upper {
        let bytes = log.read(from, READ_BYTES, true).map_err(|error| error.to_string())?;
        let next = replay(&mut shard, &bytes)?;
        // Behind the last batch there may be nothing but offsets that compaction has emptied.
        from = next.filter(|next| *next > from).unwrap_or(upper);
    }
    Ok(shard)
}

/// Takes the records of all batches. Returns the offset after the last, if there is any batch.
fn replay(shard: &mut GroupShard, bytes: &Bytes) -> Result<Option<Offset>, String> {
    let mut buffer = DecompressBuffer::new(DECOMPRESSED_BYTES_MAX);
    let mut next = None;
    for batch in Batches::new(bytes) {
        let batch = batch.map_err(|error| error.to_string())?;
        next = Some(batch.header().next_offset());
        if batch.header().is_control() {
            continue;
        }
        for record in batch.records(&mut buffer).map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            let Some(key) = record.key else { continue };
            if let Err(error) = shard.replay(key, record.value) {
                tracing::warn!(offset = record.offset, %error, "passed over a record of a group");
            }
        }
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use base::batch::BatchBuilder;
    use coordinator::{Answer, Effect, GroupConfig, OffsetFetchRequest, Request, Token};
    use wire::Writer;
    use wire::message::{OffsetCommitKey, OffsetCommitValue};

    use super::*;

    fn commit(offset: i64) -> (Vec<u8>, Vec<u8>) {
        let (mut key, mut value) = (Writer::new(), Writer::new());
        key.i16(1);
        let of = OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 0 };
        of.encode(&mut key, 0).unwrap();
        value.i16(3);
        OffsetCommitValue { offset, ..Default::default() }.encode(&mut value, 3).unwrap();
        (key.to_vec(), value.to_vec())
    }

    #[test]
    fn the_last_record_of_a_key_counts_and_strange_ones_are_passed_over() {
        let mut bytes = Vec::new();
        for (base, offset) in [(0, 5), (2, 7)] {
            let (key, value) = commit(offset);
            let mut batch = BatchBuilder::new().base_offset(base);
            batch.append(1, Some(&key), Some(&value));
            batch.append(1, Some(b"nonsense"), Some(b"?"));
            batch.finish_into(&mut bytes).unwrap();
        }
        let mut shard = GroupShard::new(GroupConfig::default());
        assert_eq!(replay(&mut shard, &Bytes::from(bytes)), Ok(Some(4)));
        shard.finish_loading(1_000);
        let request = OffsetFetchRequest { group_id: "g".into(), topics: None, require_stable: false };
        let effects = shard.request(Token(1), Request::OffsetFetch(request), 1_000);
        let [Effect::Reply { answer: Answer::OffsetFetch(answer), .. }] = &effects[..] else {
            panic!("{effects:?}")
        };
        assert_eq!(answer.topics[0].partitions[0].offset, 7);
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let (key, value) = commit(5);
        let mut batch = BatchBuilder::new();
        batch.append(1, Some(&key), Some(&value));
        let mut bytes = batch.finish().unwrap();
        bytes.truncate(bytes.len() - 1);
        let mut shard = GroupShard::new(GroupConfig::default());
        assert!(replay(&mut shard, &Bytes::from(bytes)).is_err());
        assert_eq!(replay(&mut shard, &Bytes::new()), Ok(None));
    }
}
