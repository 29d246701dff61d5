//! Any bytes as a run of record batches, and batches of any records in every codec, sound or damaged:
//! everything a broker or client does to them must end in a value or an error, within the limit on
//! decompressed bytes.

#![no_main]

use base::batch::{
    BatchBuilder, BatchHeader, Batches, Compression, ControlRecordType, DecompressBuffer,
    EndTransactionMarker, RecordRules, TimestampType,
};
use libfuzzer_sys::fuzz_target;

const DECOMPRESS_LIMIT_BYTES: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let Some(codec) = Compression::ALL.get(usize::from(choice % 8)) else {
        return exercise(bytes);
    };
    let (damage, content) = bytes.split_at(bytes.len().min(usize::from(choice / 8 % 4) * 3));
    let mut batch = built(*codec, content);
    exercise(&batch);
    for change in damage.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % batch.len();
        batch[at] = change[2];
    }
    exercise(&batch);
});

/// A batch with a record for each piece of `content`.
fn built(codec: Compression, content: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new().compression(codec).producer(1, 0, 0);
    for (time, value) in (0..).zip(content.split(|byte| *byte == b'\n')) {
        let key = value.get(..2).filter(|key| key[0] > 127);
        builder.append(time, key, Some(value));
    }
    builder.finish().expect("a batch of a few kilobytes")
}

fn exercise(bytes: &[u8]) {
    let mut buffer = DecompressBuffer::new(DECOMPRESS_LIMIT_BYTES);
    for batch in Batches::new(bytes) {
        let Ok(batch) = batch else {
            return;
        };
        let _ = (batch.verify_crc(), batch.check_producer_header(), batch.last_sequence());
        let stamped = batch.stamped_with_timestamp(7, 8, TimestampType::LogAppendTime, 9);
        assert_eq!(BatchHeader::parse(&stamped).map(|header| header.base_offset), Ok(7));
        let rules = RecordRules {
            keys_required: true,
            timestamp_type: TimestampType::CreateTime,
            before_max_ms: 1,
            after_max_ms: 1,
            now_ms: batch.base_timestamp,
        };
        let _ = batch.validate_records(&rules, &mut buffer);
        let Ok(records) = batch.records(&mut buffer) else {
            continue;
        };
        for record in records.map_while(Result::ok) {
            assert_eq!(record.headers.count(), record.headers.len());
            let _ = (ControlRecordType::parse(record.key), EndTransactionMarker::parse(record.value));
        }
    }
}
