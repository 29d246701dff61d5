//! Batches written by other implementations, byte for byte.
//!
//! `java` ones come from the builders of Apache Kafka's Java client 4.3.1, `python` ones from kafka-python
//! 3.0.12. All data batches hold the same three records.

use super::*;

const JAVA: [(Compression, &str); 5] = [
    (
        Compression::None,
        "0000000000000064000001280000000902422bc1a60010000000020000018bcfe568000000018bcfe568050000000000\
     12d6870007000000290000000338000000046b311276616c7565206f6e65060268023102680232026e019e03000a0201\
     900361616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161\
     616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161\
     616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161\
     616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161\
     616161616161616161610010000604046b330100",
    ),
    (
        Compression::Gzip,
        "0000000000000064000000760000000902a77820190011000000020000018bcfe568000000018bcfe568050000000000\
     12d687000700000029000000031f8b08000000000000ffb360606060c936142a4bcc294d55c8cf4b6563ca6032046223\
     a63cc679cc0c5c4c8c1398138709601060606361c93666640000e0adeda2f7000000",
    ),
    (
        Compression::Snappy,
        "0000000000000064000000850000000902ff3e3a930012000000020000018bcfe568000000018bcfe568050000000000\
     12d6870007000000290000000382534e4150505900000000010000000100000040f7019838000000046b311276616c75\
     65206f6e65060268023102680232026e019e03000a020190036161fe0200fe0200fe02000902240010000604046b3301\
     00",
    ),
    (
        Compression::Lz4,
        "0000000000000064000000760000000902095c0de20013000000020000018bcfe568000000018bcfe568050000000000\
     12d6870007000000290000000304224d1860408236000000ff1738000000046b311276616c7565206f6e650602680231\
     02680232026e019e03000a02019003610100b4a00010000604046b33010000000000",
    ),
    (
        Compression::Zstd,
        "0000000000000064000000750000000902352939a30014000000020000018bcfe568000000018bcfe568050000000000\
     12d6870007000000290000000328b52ffd0058c40100040338000000046b311276616c7565206f6e6506026802310268\
     0232026e019e03000a02019003610010000604046b33010001002652e009010000",
    ),
];

const PYTHON: [(Compression, &str); 5] = [
    (
        Compression::None,
        "0000000000000000000001280000000002422bc1a60010000000020000018bcfe568000000018bcfe568050000000000\
     12d6870007000000290000000338000000046b311276616c7565206f6e65060268023102680232026e019e03000a0201\
     900361616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161\
     616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161\
     616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161\
     616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161\
     616161616161616161610010000604046b330100",
    ),
    (
        Compression::Gzip,
        "00000000000000000000007600000000029cd4b1bf0011000000020000018bcfe568000000018bcfe568050000000000\
     12d687000700000029000000031f8b0800257a056b02ffb360606060c936142a4bcc294d55c8cf4b6563ca6032046223\
     a63cc679cc0c5c4c8c1398138709601060606361c93666640000e0adeda2f7000000",
    ),
    (
        Compression::Snappy,
        "0000000000000000000000850000000002ff3e3a930012000000020000018bcfe568000000018bcfe568050000000000\
     12d6870007000000290000000382534e4150505900000000010000000100000040f7019838000000046b311276616c75\
     65206f6e65060268023102680232026e019e03000a020190036161fe0200fe0200fe02000902240010000604046b3301\
     00",
    ),
    (
        Compression::Lz4,
        "00000000000000000000007e000000000227cd31540013000000020000018bcfe568000000018bcfe568050000000000\
     12d6870007000000290000000304224d186840f7000000000000009036000000ff1738000000046b311276616c756520\
     6f6e65060268023102680232026e019e03000a02019003610100b4a00010000604046b33010000000000",
    ),
    (
        Compression::Zstd,
        "0000000000000000000000720000000002a0dc35380014000000020000018bcfe568000000018bcfe568050000000000\
     12d6870007000000290000000328b52ffd20f7c50100040338000000046b311276616c7565206f6e6506026802310268\
     0232026e019e03000a02019003610010000604046b33010001002652e009",
    ),
];

const JAVA_APPEND_TIME: &str = "0000000000000005000000430000000302e1fc948300080000000100000174876e80000000018bcfe56b09ffffffffff\
     ffffffffffffffffff0000000210000000026b02760010000202026b027700";

const JAVA_MARKER: &str = "000000000000000000000042ffffffff02f7ec3ce20030000000000000018bcfe568000000018bcfe568000000000000\
     0000370003ffffffff000000012000000008000000010c00000000001500";

const JAVA_EMPTY: &str = "0000000000000028000000310000000602d58c6ed8000000000004ffffffffffffffff0000018bcfe568090000000000\
     00003700030000000a00000000";

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

const LONG_VALUE: &[u8] = &[b'a'; 200];

fn same_batch() -> BatchBuilder {
    let mut builder =
        BatchBuilder::new().base_offset(100).leader_epoch(9).producer(1234567, 7, 41).transactional();
    let headers = [
        Header { key: b"h", value: Some(b"1") },
        Header { key: b"h", value: Some(b"2") },
        Header { key: b"n", value: None },
    ];
    builder.append_with_headers(1_700_000_000_000, Some(b"k1"), Some(b"value one"), &headers);
    builder.append(1_700_000_000_005, None, Some(LONG_VALUE));
    builder.append(1_700_000_000_003, Some(b"k3"), None);
    builder
}

/// Offset delta, timestamp, key, value.
type Parts<'a> = (i64, i64, Option<&'a [u8]>, Option<&'a [u8]>);

fn check_records(batch: &BatchView<'_>) {
    let mut buffer = DecompressBuffer::new(10_000);
    let records: Vec<_> = batch.records(&mut buffer).unwrap().collect::<Result<_, _>>().unwrap();
    let parts: Vec<_> =
        records.iter().map(|r| (r.offset - batch.base_offset, r.timestamp, r.key, r.value)).collect();
    let expected: [Parts<'_>; 3] = [
        (0, 1_700_000_000_000, Some(b"k1"), Some(b"value one")),
        (1, 1_700_000_000_005, None, Some(LONG_VALUE)),
        (2, 1_700_000_000_003, Some(b"k3"), None),
    ];
    assert_eq!(parts, expected);
    let headers: Vec<_> = records[0].headers.map(|h| (h.key_text().into_owned(), h.value)).collect();
    let expected: [(String, Option<&[u8]>); 3] =
        [("h".into(), Some(b"1")), ("h".into(), Some(b"2")), ("n".into(), None)];
    assert_eq!(headers, expected);
    assert_eq!(records[0].headers.last_named(b"h").unwrap().value, Some(&b"2"[..]));
    assert!(records[1].headers.is_empty() && records[2].headers.is_empty());
}

#[test]
fn batches_of_the_java_client_are_read() {
    for (codec, hex) in JAVA {
        let bytes = bytes(hex);
        let batch = BatchView::parse(&bytes).unwrap();
        assert_eq!(batch.total_size(), bytes.len(), "{codec}");
        assert_eq!(batch.compression(), Ok(codec));
        assert_eq!(batch.verify_crc(), Ok(()), "{codec}");
        assert_eq!((batch.base_offset, batch.last_offset(), batch.next_offset()), (100, 102, 103));
        assert_eq!((batch.leader_epoch, batch.record_count), (9, 3));
        assert_eq!((batch.producer_id, batch.producer_epoch), (1_234_567, 7));
        assert_eq!((batch.base_sequence, batch.last_sequence()), (41, 43));
        assert!(batch.is_transactional() && !batch.is_control() && batch.has_producer_id());
        assert_eq!((batch.base_timestamp, batch.max_timestamp), (1_700_000_000_000, 1_700_000_000_005));
        assert_eq!(batch.timestamp_type(), TimestampType::CreateTime);
        check_records(&batch);
    }
}

#[test]
fn batches_of_kafka_python_are_read() {
    for (codec, hex) in PYTHON {
        let bytes = bytes(hex);
        let batch = BatchView::parse(&bytes).unwrap();
        assert_eq!(batch.compression(), Ok(codec));
        assert_eq!(batch.verify_crc(), Ok(()), "{codec}");
        check_records(&batch);
    }
}

#[test]
fn raw_snappy_without_framing_is_read() {
    let plain = same_batch().finish().unwrap();
    let payload = BatchView::parse(&plain).unwrap().payload();
    let raw = snap::raw::Encoder::new().compress_vec(payload).unwrap();
    let mut header = *BatchView::parse(&plain).unwrap().header();
    header.attributes |= i16::from(Compression::Snappy.code());
    header.batch_length = MIN_BATCH_LENGTH + raw.len() as i32;
    let bytes = [&header.to_bytes()[..], &raw].concat();
    check_records(&BatchView::parse(&bytes).unwrap());
}

#[test]
fn our_uncompressed_batch_is_the_java_clients_to_the_byte() {
    assert_eq!(same_batch().finish().unwrap(), bytes(JAVA[0].1));
}

#[test]
fn our_compressed_batches_differ_at_most_in_the_compressed_bytes() {
    for (codec, hex) in JAVA {
        let ours = same_batch().compression(codec).finish().unwrap();
        let ours = BatchView::parse(&ours).unwrap();
        let theirs = bytes(hex);
        let theirs = BatchView::parse(&theirs).unwrap();
        let same_lengths = BatchHeader { batch_length: 0, crc: 0, ..*ours.header() };
        assert_eq!(same_lengths, BatchHeader { batch_length: 0, crc: 0, ..*theirs.header() });
        assert_eq!(ours.verify_crc(), Ok(()));
        check_records(&ours);
    }
}

#[test]
fn stamping_keeps_the_crc_right() {
    for (codec, hex) in JAVA {
        let original = bytes(hex);
        let batch = BatchView::parse(&original).unwrap();
        let stamped = [&batch.stamped(1 << 40, 77)[..], batch.payload()].concat();
        let stamped = BatchView::parse(&stamped).unwrap();
        assert_eq!((stamped.base_offset, stamped.leader_epoch, stamped.crc), (1 << 40, 77, batch.crc));
        assert_eq!(stamped.verify_crc(), Ok(()), "{codec}");
    }
}

#[test]
fn stamping_log_append_time_gives_the_java_brokers_bytes() {
    let mut builder = BatchBuilder::new();
    builder.append(1_600_000_000_000, Some(b"k"), Some(b"v"));
    builder.append(1_600_000_000_001, Some(b"k"), Some(b"w"));
    let sent = builder.clone().finish().unwrap();
    let batch = BatchView::parse(&sent).unwrap();
    let header = batch.stamped_with_timestamp(5, 3, TimestampType::LogAppendTime, 1_700_000_000_777);
    let stamped = [&header[..], batch.payload()].concat();
    assert_eq!(stamped, bytes(JAVA_APPEND_TIME));
    let built = builder.clone().log_append_time(1_700_000_000_777);
    let built = built.finish().unwrap();
    assert_eq!(BatchView::parse(&built).unwrap().stamped(5, 3), header);
    let stamped = BatchView::parse(&stamped).unwrap();
    assert_eq!(stamped.verify_crc(), Ok(()));
    let times: Vec<_> = stamped.records_in_place().unwrap().map(|record| record.unwrap().timestamp).collect();
    assert_eq!(times, [1_700_000_000_777; 2]);
    // And back: a batch forwarded to a topic with create times.
    let back = stamped.stamped_with_timestamp(0, -1, TimestampType::CreateTime, 1_600_000_000_001);
    assert_eq!([&back[..], batch.payload()].concat(), sent);
}

#[test]
fn the_transaction_marker_is_the_java_clients_to_the_byte() {
    let ours = end_transaction_batch(ControlRecordType::Commit, 55, 3, 21, 1_700_000_000_000);
    assert_eq!(ours, bytes(JAVA_MARKER));
    let batch = BatchView::parse(&ours).unwrap();
    assert!(batch.is_control() && batch.is_transactional());
    let record = batch.records_in_place().unwrap().next().unwrap().unwrap();
    assert_eq!(ControlRecordType::parse(record.key), Ok(ControlRecordType::Commit));
    assert_eq!(EndTransactionMarker::parse(record.value), Ok(EndTransactionMarker { coordinator_epoch: 21 }));
}

#[test]
fn an_emptied_batch_is_the_java_cleaners_to_the_byte() {
    let mut builder = BatchBuilder::new().base_offset(40).leader_epoch(6).producer(55, 3, 10);
    for timestamp in 5..=9 {
        builder.append(1_700_000_000_000 + timestamp, Some(b"k"), Some(b"v"));
    }
    let full = builder.compression(Compression::Zstd).finish().unwrap();
    let full = BatchView::parse(&full).unwrap();
    let emptied = BatchBuilder::rewrite(full.header(), Compression::Zstd).finish().unwrap();
    // The Java cleaner is told the sequence of the first record and the offsets 40 to 44.
    assert_eq!(emptied, bytes(JAVA_EMPTY));
    let emptied = BatchView::parse(&emptied).unwrap();
    assert_eq!((emptied.last_offset(), emptied.last_sequence(), emptied.record_count), (44, 14, 0));
    assert_eq!(emptied.records(&mut DecompressBuffer::new(10)).unwrap().count(), 0);
}
