//! Any bytes as a run of record batches: everything a broker or client does to them must end in a value
//! or an error, within the limit on decompressed bytes.

#![no_main]

use base::batch::{
    BatchHeader, Batches, ControlRecordType, DecompressBuffer, EndTransactionMarker, RecordRules,
    TimestampType,
};
use libfuzzer_sys::fuzz_target;

const DECOMPRESS_LIMIT_BYTES: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
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
});
