//! Seeded damage: batches with bytes changed, cut or put in must give errors, never a panic, an endless
//! loop or memory beyond the limit. The coverage-guided twin is the fuzz target `batch`.

use super::*;

/// A small generator with a fixed sequence per seed (xorshift64*).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn some_batch(dice: &mut Dice) -> Vec<u8> {
    let codec = Compression::ALL[dice.below(5)];
    let mut builder = BatchBuilder::new().base_offset(dice.below(1000) as i64).compression(codec);
    for _ in 0..1 + dice.below(6) {
        let key: Vec<u8> = (0..dice.below(9)).map(|_| dice.next() as u8).collect();
        let value = vec![dice.next() as u8; dice.below(300)];
        let headers = [Header { key: b"name", value: Some(&key) }, Header { key: b"name", value: None }];
        let headers = &headers[..dice.below(3)];
        let key = (dice.below(4) > 0).then_some(&key[..]);
        builder.append_with_headers(dice.below(1_000_000) as i64, key, Some(&value), headers);
    }
    builder.finish().unwrap()
}

fn damage(bytes: &mut Vec<u8>, dice: &mut Dice) {
    // Mostly behind the length field, or nearly all batches would end as cut ones.
    let at = if dice.below(4) == 0 { dice.below(bytes.len()) } else { 16 + dice.below(bytes.len() - 16) };
    match dice.below(5) {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << dice.below(8),
        2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][dice.below(5)],
        3 => bytes.insert(at, dice.next() as u8),
        _ => {
            let end = (at + 4).min(bytes.len());
            bytes[at..end].fill([0x7f, 0xff][dice.below(2)]);
        }
    }
}

/// Everything a broker or client does to bytes it does not trust. Returns whether all of it succeeded.
fn exercise(bytes: &[u8], buffer: &mut DecompressBuffer) -> bool {
    let mut whole = true;
    for batch in Batches::new(bytes) {
        let Ok(batch) = batch else {
            return false;
        };
        whole &= batch.verify_crc().is_ok() & batch.check_producer_header().is_ok();
        let (_, _, _) = (batch.last_sequence(), batch.next_offset(), batch.delete_horizon_ms());
        let stamped = batch.stamped_with_timestamp(7, 8, TimestampType::LogAppendTime, 9);
        assert_eq!(BatchHeader::parse(&stamped).map(|header| header.base_offset), Ok(7));
        let rules = RecordRules {
            keys_required: true,
            timestamp_type: batch.timestamp_type(),
            before_max_ms: 1000,
            after_max_ms: i64::MAX,
            now_ms: 500_000,
        };
        whole &= batch.validate_records(&rules, buffer).is_ok();
        let Ok(records) = batch.records(buffer) else {
            return false;
        };
        let mut count = 0;
        for record in records {
            let Ok(record) = record else {
                return false;
            };
            count += 1;
            assert_eq!(record.headers.count(), record.headers.len());
            let _ = (ControlRecordType::parse(record.key), EndTransactionMarker::parse(record.value));
        }
        assert_eq!(count, batch.record_count);
    }
    whole
}

#[test]
fn damaged_batches_never_panic() {
    let mut buffer = DecompressBuffer::new(64 * 1024);
    let (mut read, mut refused) = (0, 0);
    for seed in 1..=20_000u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut bytes = some_batch(&mut dice);
        if dice.below(3) == 0 {
            bytes.extend(some_batch(&mut dice));
        }
        for _ in 0..1 + dice.below(3) {
            if bytes.len() > 20 {
                damage(&mut bytes, &mut dice);
            }
        }
        if exercise(&bytes, &mut buffer) { read += 1 } else { refused += 1 }
    }
    assert!(refused > read, "{refused} refused, {read} read: the damage does not bite");
}

#[test]
fn random_bytes_behind_a_good_header_never_panic() {
    let mut buffer = DecompressBuffer::new(64 * 1024);
    for seed in 1..=20_000u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let payload: Vec<u8> = (0..dice.below(80)).map(|_| dice.next() as u8 >> dice.below(8)).collect();
        let header = BatchHeader {
            base_offset: dice.next() as i64 >> 1,
            batch_length: MIN_BATCH_LENGTH + payload.len() as i32,
            leader_epoch: 0,
            crc: 0,
            attributes: dice.below(128) as i16,
            last_offset_delta: dice.below(4) as i32,
            base_timestamp: dice.next() as i64,
            max_timestamp: dice.next() as i64,
            producer_id: dice.below(3) as i64 - 1,
            producer_epoch: 0,
            base_sequence: dice.next() as i32,
            record_count: dice.below(5) as i32,
        };
        exercise(&[&header.to_bytes()[..], &payload].concat(), &mut buffer);
    }
}
