//! The records of the offsets topic are Kafka's: bytes written by Apache Kafka 4.3.1's own classes are read, and what
//! a shard writes is the same, byte for byte.

mod support;

use base::ids::Uuid;
use bytes::Bytes;
use coordinator::{
    Answer, CommitPartition, CommitTopic, Effect, GroupConfig, GroupShard, JoinRequest, KeyValue,
    OffsetCommitRequest, OffsetFetchRequest, Protocol, RecordError, Request, SyncRequest, Token,
};
use support::show;

const OFFSET_KEY: &str = "00010001670005746f70696300000003";
const LEGACY_OFFSET_KEY: &str = "00000001670005746f70696300000003";
/// Offset 7 of leader epoch 5 with text `meta`, committed at 1000; version 1 expires at 61000, version 4 has topic id 9.
const OFFSET_VALUES: [&str; 5] = [
    "0000000000000000000700046d65746100000000000003e8",
    "0001000000000000000700046d65746100000000000003e8000000000000ee48",
    "0002000000000000000700046d65746100000000000003e8",
    "000300000000000000070000000500046d65746100000000000003e8",
    "0004000000000000000700000005056d65746100000000000003e801001000000000000000000000000000000009",
];
const GROUP_KEY: &str = "0002000167";
/// Generation 4 with one member; from version 3 on it is a static one.
const GROUP_VALUES: [&str; 5] = [
    "00000008636f6e73756d657200000004000572616e676500266d2d30303030303030302d303030302d303030302d303030302d303030303030\
     3030303030310000000100266d2d30303030303030302d303030302d303030302d303030302d303030303030303030303031000163000a2f31\
     32372e302e302e31000027100000000201020000000103",
    "00010008636f6e73756d657200000004000572616e676500266d2d30303030303030302d303030302d303030302d303030302d303030303030\
     3030303030310000000100266d2d30303030303030302d303030302d303030302d303030302d303030303030303030303031000163000a2f31\
     32372e302e302e310000ea60000027100000000201020000000103",
    "00020008636f6e73756d657200000004000572616e676500266d2d30303030303030302d303030302d303030302d303030302d303030303030\
     30303030303100000000000000000000000100266d2d30303030303030302d303030302d303030302d303030302d3030303030303030303030\
     31000163000a2f3132372e302e302e310000ea60000027100000000201020000000103",
    "00030008636f6e73756d657200000004000572616e676500266d2d30303030303030302d303030302d303030302d303030302d303030303030\
     30303030303100000000000000000000000100266d2d30303030303030302d303030302d303030302d303030302d3030303030303030303030\
     3100016d000163000a2f3132372e302e302e310000ea60000027100000000201020000000103",
    "000409636f6e73756d6572000000040672616e6765276d2d30303030303030302d303030302d303030302d303030302d303030303030303030\
     303031000000000000000002276d2d30303030303030302d303030302d303030302d303030302d303030303030303030303031026d02630b2f\
     3132372e302e302e310000ea600000271003010202030000",
];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).expect("hex digits are ASCII");
        u8::from_str_radix(text, 16).expect("two hex digits")
    };
    digits.chunks(2).map(byte).collect()
}

fn ask(shard: &mut GroupShard, request: Request) -> String {
    match &shard.request(Token(0), request, 0)[..] {
        [Effect::Reply { answer, .. }] => show::short_ids(&show::answer(answer)),
        other => panic!("one answer was expected: {other:?}"),
    }
}

fn loaded(records: &[(Vec<u8>, Option<Vec<u8>>)]) -> GroupShard {
    let mut shard = GroupShard::new(GroupConfig::default());
    for (key, value) in records {
        shard.replay(key, value.as_deref()).expect("Kafka's record can be read");
    }
    shard.finish_loading(0);
    shard
}

fn fetch_all(shard: &mut GroupShard) -> String {
    let request = OffsetFetchRequest { group_id: "g".into(), topics: None, require_stable: false };
    ask(shard, Request::OffsetFetch(request))
}

fn describe(shard: &mut GroupShard) -> String {
    ask(shard, Request::DescribeGroups { groups: vec!["g".into()], api_version: 6 })
}

#[test]
fn offsets_of_every_version_are_read() {
    for key in [OFFSET_KEY, LEGACY_OFFSET_KEY] {
        for (version, value) in OFFSET_VALUES.iter().enumerate() {
            let mut shard = loaded(&[(hex(key), Some(hex(value)))]);
            let epoch = if version >= 3 { "@5" } else { "" };
            assert_eq!(
                fetch_all(&mut shard),
                format!("fetch NONE topic/3=7{epoch}\"meta\""),
                "version {version}"
            );
        }
        let mut removed = loaded(&[(hex(OFFSET_KEY), Some(hex(OFFSET_VALUES[4]))), (hex(key), None)]);
        assert_eq!(fetch_all(&mut removed), "fetch NONE");
    }
}

#[test]
fn groups_of_every_version_are_read() {
    for (version, value) in GROUP_VALUES.iter().enumerate() {
        let mut shard = loaded(&[(hex(GROUP_KEY), Some(hex(value)))]);
        let instance = if version >= 3 { "(m)" } else { "" };
        let expected = format!(
            "describe g NONE Stable consumer/range\n    m-#1{instance} client=c host=/127.0.0.1 metadata=0x0102 \
             assignment=0x03"
        );
        assert_eq!(describe(&mut shard), expected, "version {version}");
    }
    let mut removed = loaded(&[(hex(GROUP_KEY), Some(hex(GROUP_VALUES[3]))), (hex(GROUP_KEY), None)]);
    assert_eq!(describe(&mut removed), "describe g GROUP_ID_NOT_FOUND Dead -/- \"Group g not found.\"");
}

fn appended(effects: &[Effect]) -> Vec<KeyValue> {
    let records = |effect: &Effect| match effect {
        Effect::Append { records, .. } => records.clone(),
        Effect::Reply { .. } => Vec::new(),
    };
    effects.iter().flat_map(records).collect()
}

fn commit(retention_time_ms: i64) -> Request {
    let partition =
        CommitPartition { partition: 3, offset: 7, leader_epoch: 5, metadata: Some("meta".to_owned()) };
    let topic_id = Uuid(9u128.to_be_bytes());
    Request::OffsetCommit(OffsetCommitRequest {
        api_version: 10,
        group_id: "g".into(),
        generation: -1,
        member_id: String::new(),
        instance_id: None,
        retention_time_ms,
        topics: vec![CommitTopic { name: "topic".into(), topic_id, partitions: vec![partition] }],
    })
}

#[test]
fn offsets_are_written_as_kafka_writes_them() {
    let mut shard = GroupShard::new(GroupConfig::default());
    for (retention_time_ms, version) in [(-1, 4), (60_000, 1)] {
        let records = appended(&shard.request(Token(1), commit(retention_time_ms), 1_000));
        let expected =
            KeyValue { key: hex(OFFSET_KEY).into(), value: Some(hex(OFFSET_VALUES[version]).into()) };
        assert_eq!(records, [expected]);
    }
}

#[test]
fn groups_are_written_as_kafka_writes_them() {
    let mut shard = GroupShard::new(GroupConfig { initial_rebalance_delay_ms: 0, ..GroupConfig::default() });
    let join = JoinRequest {
        api_version: 9,
        group_id: "g".into(),
        member_id: String::new(),
        instance_id: Some("m".into()),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol { name: "range".into(), metadata: Bytes::from_static(&[1, 2]) }],
        reason: None,
        member_uuid: Uuid(1u128.to_be_bytes()),
    };
    let joined = shard.request(Token(1), Request::Join(join), 0);
    let Some(Effect::Reply { answer: Answer::Join(answer), .. }) = joined.first() else {
        panic!("a join was expected: {joined:?}")
    };
    let sync = SyncRequest {
        api_version: 5,
        group_id: "g".into(),
        generation: 1,
        member_id: answer.member_id.clone(),
        instance_id: None,
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: vec![(answer.member_id.clone(), Bytes::from_static(&[3]))],
    };
    let records = appended(&shard.request(Token(2), Request::Sync(sync), 0));
    // Kafka's bytes are of generation 4.
    let value = hex(&GROUP_VALUES[3].replacen("00000004000572", "00000001000572", 1));
    assert_eq!(records, [KeyValue { key: hex(GROUP_KEY).into(), value: Some(value.into()) }]);
}

#[test]
fn records_of_other_kinds_are_passed_over() {
    let mut shard = GroupShard::new(GroupConfig::default());
    for kind in 3i16..20 {
        let key = [&kind.to_be_bytes()[..], &[0, 1, b'g']].concat();
        assert_eq!(shard.replay(&key, Some(&[0, 0, 1])), Ok(()));
    }
    assert_eq!(describe(&mut shard), "describe g GROUP_ID_NOT_FOUND Dead -/- \"Group g not found.\"");
}

#[test]
fn damaged_records_are_refused_and_change_nothing() {
    let values = OFFSET_VALUES.iter().map(|value| (OFFSET_KEY, *value));
    let groups = GROUP_VALUES.iter().map(|value| (GROUP_KEY, *value));
    for (key, value) in values.chain(groups) {
        let (key, value) = (hex(key), hex(value));
        for cut in 0..key.len() {
            let mut shard = GroupShard::new(GroupConfig::default());
            assert!(shard.replay(&key[..cut], Some(&value)).is_err(), "a key of {cut} bytes");
            assert_eq!(shard.size(), GroupShard::new(GroupConfig::default()).size());
        }
        for cut in 0..value.len() {
            let mut shard = GroupShard::new(GroupConfig::default());
            assert!(shard.replay(&key, Some(&value[..cut])).is_err(), "a value of {cut} bytes");
        }
        // Any single byte may be anything: never a panic, and what is taken can be used.
        for index in 0..value.len() {
            for byte in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut damaged = value.clone();
                damaged[index] = byte;
                let mut shard = GroupShard::new(GroupConfig::default());
                if shard.replay(&key, Some(&damaged)).is_ok() {
                    shard.finish_loading(0);
                    shard.check_invariants().expect("a record that is taken makes a sound group");
                    shard.tick(i64::MAX / 2);
                    shard.check_invariants().expect("and the passing of time keeps it so");
                }
            }
        }
    }
}

#[test]
fn values_of_unknown_versions_are_named() {
    let mut shard = GroupShard::new(GroupConfig::default());
    let refused = shard.replay(&hex(OFFSET_KEY), Some(&hex("0005")));
    assert_eq!(refused, Err(RecordError::UnknownValueVersion(5)));
    assert!(matches!(shard.replay(&hex("ffff"), None), Err(RecordError::Malformed(_))));
}

#[test]
fn strings_longer_than_we_can_write_are_refused() {
    let mut writer = wire::Writer::new();
    writer.i16(4);
    writer.i64(7);
    writer.i32(5);
    writer.unsigned_varint(40_001);
    let mut value = writer.to_vec();
    value.extend(std::iter::repeat_n(b'm', 40_000));
    value.extend([0; 9]);
    let mut shard = GroupShard::new(GroupConfig::default());
    let refused = shard.replay(&hex(OFFSET_KEY), Some(&value));
    assert!(matches!(refused, Err(RecordError::Malformed(_))), "{refused:?}");
}
