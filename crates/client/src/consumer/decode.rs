//! Records out of the bytes of a Fetch answer.

use std::collections::HashSet;
use std::sync::Arc;

use base::batch::{
    BatchError, BatchView, Batches, ControlRecordType, DecompressBuffer, Record, TimestampType,
};
use base::ids::{Offset, TimestampMs};
use bytes::Bytes;

use super::ConsumedRecord;
use crate::PartitionName;

/// A transaction that was aborted: records of this producer from that offset on, up to its marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aborted {
    pub(super) producer_id: i64,
    pub(super) first_offset: Offset,
}

/// What came out of the bytes.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) records: Vec<ConsumedRecord>,
    /// Where to read on.
    pub(super) next: Offset,
    /// What is wrong with the batch at `next`.
    pub(super) error: Option<BatchError>,
}

/// Takes the records from `from` on out of whole batches; a batch cut off at the end is left for the next
/// answer. Control records and records of aborted transactions are not shown.
pub(super) fn decode(
    partition: &PartitionName,
    bytes: &Bytes,
    from: Offset,
    mut aborted: Vec<Aborted>,
    buffer: &mut DecompressBuffer,
) -> Decoded {
    aborted.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
    let mut decoded = Decoded { next: from, ..Decoded::default() };
    let mut aborting = HashSet::new();
    for batch in Batches::new(bytes) {
        let taken = match batch {
            Ok(batch) => {
                while let Some(transaction) = aborted.last()
                    && transaction.first_offset <= batch.last_offset()
                {
                    aborting.insert(transaction.producer_id);
                    aborted.pop();
                }
                take_batch(partition, bytes, &batch, &mut aborting, buffer, &mut decoded)
            }
            Err(BatchError::Truncated { .. }) => break,
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            decoded.error = Some(error);
            break;
        }
    }
    decoded
}

fn take_batch(
    partition: &PartitionName,
    bytes: &Bytes,
    batch: &BatchView<'_>,
    aborting: &mut HashSet<i64>,
    buffer: &mut DecompressBuffer,
    decoded: &mut Decoded,
) -> Result<(), BatchError> {
    if batch.last_offset() < decoded.next {
        return Ok(());
    }
    batch.verify_crc()?;
    let before = decoded.records.len();
    if batch.is_control() {
        if let Some(marker) = batch.records(buffer)?.next().transpose()?
            && ControlRecordType::parse(marker.key)? == ControlRecordType::Abort
        {
            aborting.remove(&batch.producer_id);
        }
    } else if !(batch.is_transactional() && aborting.contains(&batch.producer_id)) {
        let timestamp_type = batch.timestamp_type();
        let share = batch.records_in_place().is_some().then_some(bytes);
        for record in batch.records(buffer)? {
            match record {
                Ok(record) if record.offset < decoded.next => {}
                Ok(record) => decoded.records.push(consumed(partition, &record, timestamp_type, share)),
                Err(error) => {
                    // All of a batch or none of it.
                    decoded.records.truncate(before);
                    return Err(error);
                }
            }
        }
    }
    decoded.next = batch.last_offset() + 1;
    Ok(())
}

/// A record of its own. With `share`, its bytes are those of the answer; else they are copied.
fn consumed(
    partition: &PartitionName,
    record: &Record<'_>,
    timestamp_type: TimestampType,
    share: Option<&Bytes>,
) -> ConsumedRecord {
    let own = |part: &[u8]| share.map_or_else(|| Bytes::copy_from_slice(part), |bytes| bytes.slice_ref(part));
    ConsumedRecord {
        topic: Arc::clone(&partition.topic),
        partition: partition.partition,
        offset: record.offset,
        timestamp: Some(record.timestamp).filter(|timestamp: &TimestampMs| *timestamp >= 0),
        timestamp_type,
        key: record.key.map(own),
        value: record.value.map(own),
        headers: record.headers.map(|header| (own(header.key), header.value.map(own))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use base::batch::{BatchBuilder, end_transaction_batch};

    use super::*;

    /// A batch of two records of a transaction of this producer.
    fn transactional(base_offset: Offset, producer_id: i64, sequence: i32) -> Vec<u8> {
        let mut builder = BatchBuilder::new().base_offset(base_offset).transactional();
        builder = builder.producer(producer_id, 0, sequence);
        builder.append(1, None, Some(b"x"));
        builder.append(1, None, Some(b"y"));
        builder.finish().expect("two records")
    }

    fn marker(kind: ControlRecordType, offset: Offset, producer_id: i64) -> Vec<u8> {
        let marker = end_transaction_batch(kind, producer_id, 0, 0, 0);
        let batch = BatchView::parse(&marker).expect("a batch");
        [&batch.stamped(offset, 0)[..], batch.payload()].concat()
    }

    fn offsets(bytes: &[u8], from: Offset, aborted: &[Aborted]) -> (Vec<Offset>, Offset, bool) {
        let bytes = Bytes::copy_from_slice(bytes);
        let mut buffer = DecompressBuffer::new(1 << 20);
        let decoded = decode(&PartitionName::new("t", 0), &bytes, from, aborted.to_vec(), &mut buffer);
        let offsets = decoded.records.iter().map(|record| record.offset).collect();
        (offsets, decoded.next, decoded.error.is_some())
    }

    #[test]
    fn aborted_transactions_and_markers_are_not_shown() {
        let bytes = [
            transactional(0, 1, 0),
            transactional(2, 2, 0),
            marker(ControlRecordType::Abort, 4, 1),
            // The next transaction of the same producer is committed.
            transactional(5, 1, 2),
            marker(ControlRecordType::Commit, 7, 1),
            marker(ControlRecordType::Commit, 8, 2),
        ]
        .concat();
        let aborted = [Aborted { producer_id: 1, first_offset: 0 }];
        assert_eq!(offsets(&bytes, 0, &aborted), (vec![2, 3, 5, 6], 9, false));
        assert_eq!(offsets(&bytes, 0, &[]), (vec![0, 1, 2, 3, 5, 6], 9, false));
        // Begun behind the first batch of the transaction.
        assert_eq!(offsets(&bytes[transactional(0, 1, 0).len()..], 3, &aborted), (vec![3, 5, 6], 9, false));
    }

    #[test]
    fn a_cut_batch_is_left_and_a_damaged_one_is_told_at_its_place() {
        let first = transactional(0, 1, 0);
        let mut bytes = [first.clone(), transactional(2, 1, 2)].concat();
        assert_eq!(offsets(&bytes[..first.len() + 70], 0, &[]), (vec![0, 1], 2, false));
        *bytes.last_mut().expect("bytes") ^= 1;
        assert_eq!(offsets(&bytes, 0, &[]), (vec![0, 1], 2, true));
        assert_eq!(offsets(&bytes, 2, &[]), (vec![], 2, true));
    }
}
