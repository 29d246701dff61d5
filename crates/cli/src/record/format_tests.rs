//! Tests of the format strings.

use base::batch::TimestampType;
use bytes::Bytes;

use super::*;

pub(crate) fn record() -> ConsumedRecord {
    ConsumedRecord {
        topic: "orders".into(),
        partition: 3,
        offset: 41,
        timestamp: Some(1_700_000_000_123),
        timestamp_type: TimestampType::CreateTime,
        key: Some(Bytes::from_static(b"key")),
        value: Some(Bytes::from_static("wörld".as_bytes())),
        headers: vec![
            (Bytes::from_static(b"a"), Some(Bytes::from_static(b"1"))),
            (Bytes::from_static(b"b"), None),
        ],
    }
}

fn shown(format: &str, show_null: bool, record: &ConsumedRecord) -> Vec<u8> {
    let mut out = Vec::new();
    Format::parse(format, show_null).expect("a valid format").put(record, &mut out);
    out
}

#[test]
fn every_token_shows_its_part() {
    let line = shown(r"%t|%p|%o|%T|%K|%k|%S|%s|%h|100%%\n", false, &record());
    let expected = "orders|3|41|1700000000123|3|key|6|wörld|a=1,b=NULL|100%\n";
    assert_eq!(String::from_utf8(line).expect("text"), expected);
    assert_eq!(shown("%R", false, &record()), [0, 0, 0, 6]);
}

#[test]
fn null_is_nothing_or_null_and_its_length_is_minus_one() {
    let mut record = record();
    (record.key, record.value, record.timestamp) = (None, None, None);
    assert_eq!(shown("%k:%s:%K:%S:%T", false, &record), b"::-1:-1:-1");
    assert_eq!(shown("%k:%s:%R", true, &record), b"NULL:NULL:\xff\xff\xff\xff");
}

#[test]
fn escapes_are_bytes() {
    assert_eq!(unescape(r"a\t\x00\xfF\\\0").expect("valid"), b"a\t\0\xff\\\0");
    assert_eq!(shown(r"\%s%%s", false, &record()), b"%s%s");
    for bad in [r"\q", r"\x1", r"\xzz", "\\"] {
        assert!(unescape(bad).is_err(), "{bad}");
    }
    for bad in ["%", "%z", r"%\n"] {
        assert!(Format::parse(bad, false).is_err(), "{bad}");
    }
}

#[test]
fn without_a_format_values_are_lines() {
    let mut out = Vec::new();
    Format::usual(None, b"\n", false).put(&record(), &mut out);
    Format::usual(Some(b"="), b";", false).put(&record(), &mut out);
    Format::usual(Some(b"="), b";", false).behind_offset(Some(b"=")).put(&record(), &mut out);
    assert_eq!(String::from_utf8(out).expect("text"), "wörld\nkey=wörld;41=key=wörld;");
}
