//! What a version lacks: tags, nulls, and fields that are or are not ignorable.

use wire::message::*;
use wire::{DecodeError, EncodeError, Reader, Writer};

/// A FetchRequest of `version` without topics whose tagged fields are `tags`.
fn fetch_with_tags(version: i16, tags: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    FetchRequest::default().encode(&mut writer, version).expect("defaults fit every version");
    let mut bytes = writer.to_vec();
    assert_eq!(bytes.pop(), Some(0), "no tagged field equals its default");
    bytes.extend_from_slice(tags);
    bytes
}

#[test]
fn unknown_tags_are_skipped() {
    for version in 12..=18 {
        let bytes = fetch_with_tags(version, &[1, 99, 3, 1, 2, 3]);
        let mut reader = Reader::new(&bytes);
        assert_eq!(FetchRequest::decode(&mut reader, version), Ok(FetchRequest::default()));
        assert_eq!(reader.remaining(), 0);
    }
}

#[test]
fn a_known_tag_is_refused_where_the_version_lacks_it() {
    let state = [1, 1, 13, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0];
    for version in 12..=18 {
        let decoded = FetchRequest::decode(&mut Reader::new(&fetch_with_tags(version, &state)), version)
            .map(|request| request.replica_state.replica_id);
        if version >= 15 {
            assert_eq!(decoded, Ok(5));
        } else {
            assert!(matches!(decoded, Err(DecodeError::Tag { tag: 1, .. })), "{version}: {decoded:?}");
        }
    }
}

#[test]
fn a_tagged_field_must_fill_its_size() {
    let too_long = [1, 1, 14, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0];
    let decoded = FetchRequest::decode(&mut Reader::new(&fetch_with_tags(15, &too_long)), 15).map(drop);
    assert!(matches!(decoded, Err(DecodeError::Tag { tag: 1, .. })), "{decoded:?}");
}

#[test]
fn a_value_the_version_lacks_is_an_error_unless_ignorable() {
    let strict = JoinGroupRequest { group_instance_id: Some("i".into()), ..Default::default() };
    let ignorable =
        JoinGroupRequest { rebalance_timeout_ms: 5, reason: Some("r".into()), ..Default::default() };
    for version in JoinGroupRequest::VERSIONS.iter() {
        let refused =
            EncodeError::Absent { message: "JoinGroupRequest", field: "group_instance_id", version };
        let expected = if version >= 5 { Ok(()) } else { Err(refused) };
        assert_eq!(strict.encode(&mut Writer::new(), version), expected);

        let mut writer = Writer::new();
        ignorable.encode(&mut writer, version).expect("ignorable");
        let bytes = writer.to_vec();
        let back = JoinGroupRequest::decode(&mut Reader::new(&bytes), version).expect("just written");
        assert_eq!(back.rebalance_timeout_ms, if version >= 1 { 5 } else { -1 });
        assert_eq!(back.reason.as_deref(), (version >= 8).then_some("r"));
    }
}

#[test]
fn null_is_refused_where_the_version_has_none() {
    let all_topics = MetadataRequest { topics: None, ..Default::default() };
    let refused = EncodeError::Null { message: "MetadataRequest", field: "topics", version: 0 };
    assert_eq!(all_topics.encode(&mut Writer::new(), 0), Err(refused));
    assert_eq!(all_topics.encode(&mut Writer::new(), 1), Ok(()));
    let null_array = [0xff; 4];
    assert!(matches!(
        MetadataRequest::decode(&mut Reader::new(&null_array), 0),
        Err(DecodeError::Null { .. })
    ));
    assert_eq!(MetadataRequest::decode(&mut Reader::new(&null_array), 1), Ok(all_topics));
}

#[test]
fn versions_outside_the_range_are_refused() {
    for version in [-1, 2, 14, i16::MAX] {
        let read = ProduceRequest::decode(&mut Reader::new(&[0; 64]), version).map(drop);
        assert!(matches!(read, Err(DecodeError::Version { .. })), "{version}: {read:?}");
        let written = ProduceRequest::default().encode(&mut Writer::new(), version);
        assert!(matches!(written, Err(EncodeError::Version { .. })), "{version}: {written:?}");
    }
}

#[test]
fn fields_a_version_lacks_read_as_their_defaults() {
    let mut writer = Writer::new();
    FetchRequest::default().encode(&mut writer, 4).expect("defaults fit every version");
    let bytes = writer.to_vec();
    let oldest = FetchRequest::decode(&mut Reader::new(&bytes), 4).expect("just written");
    assert_eq!((oldest.session_epoch, oldest.rack_id.as_ref()), (-1, ""));
}

#[test]
fn record_bytes_are_borrowed_from_the_frame() {
    let records = b"not really a batch".as_slice();
    let request = ProduceRequest {
        topic_data: vec![TopicProduceData {
            name: "t".into(),
            partition_data: vec![PartitionProduceData { index: 3, records: Some(records) }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut writer = Writer::new();
    request.encode(&mut writer, 9).expect("fits");
    let frame = writer.to_vec();
    let read = ProduceRequest::decode(&mut Reader::new(&frame), 9).expect("just written");
    let found = read.topic_data[0].partition_data[0].records.expect("not null");
    assert_eq!(found, records);
    assert!(frame.as_ptr_range().contains(&found.as_ptr()), "copied out of the frame");
}
