//! A record as one line of JSON.

use base::batch::TimestampType;
use client::ConsumedRecord;
use serde_json::{Map, Value, json};

use crate::output::timestamp;

/// A record as one object. Bytes that are UTF-8 are strings; others stand in Base64 under the same name
/// with `_base64` behind it, so that nothing is lost.
pub(crate) fn json_line(record: &ConsumedRecord) -> String {
    let mut object = Map::new();
    object.insert("topic".to_owned(), json!(&*record.topic));
    object.insert("partition".to_owned(), json!(record.partition));
    object.insert("offset".to_owned(), json!(record.offset));
    object.insert("timestamp".to_owned(), json!(record.timestamp));
    object.insert("time".to_owned(), json!(record.timestamp.map(timestamp)));
    put_bytes(&mut object, "key", record.key.as_deref());
    put_bytes(&mut object, "value", record.value.as_deref());
    let headers = record.headers.iter().map(|(name, value)| {
        let mut header = Map::new();
        put_bytes(&mut header, "name", Some(name));
        put_bytes(&mut header, "value", value.as_deref());
        Value::Object(header)
    });
    object.insert("headers".to_owned(), Value::Array(headers.collect()));
    Value::Object(object).to_string()
}

/// The same in kcat's form, which has text alone: bytes that are not UTF-8 become replacement characters.
pub(crate) fn kcat_json_line(record: &ConsumedRecord) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let by_broker = record.timestamp_type == TimestampType::LogAppendTime;
    let headers = record.headers.iter().flat_map(|(name, value)| {
        [json!(text(name)), value.as_deref().map_or(Value::Null, |value| json!(text(value)))]
    });
    let mut object = json!({
        "topic": &*record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "tstype": if by_broker { "logappend" } else { "create" },
        "ts": record.timestamp.unwrap_or(-1),
        "key": record.key.as_deref().map(text),
        "payload": record.value.as_deref().map(text),
    });
    if !record.headers.is_empty() {
        object["headers"] = Value::Array(headers.collect());
    }
    object.to_string()
}

fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => object.insert(name.to_owned(), Value::Null),
        Some((Ok(text), _)) => object.insert(name.to_owned(), json!(text)),
        Some((Err(_), bytes)) => object.insert(format!("{name}_base64"), json!(base64(bytes))),
    };
}

/// The standard alphabet, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4 {
            if index <= group.len() {
                text.push(char::from(ALPHABET[(bits >> (18 - 6 * index) & 0x3f) as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::format::tests::record;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let shown = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(shown, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
        assert_eq!(base64(&[0xff, 0xfe, 0xfb]), "//77");
    }

    #[test]
    fn text_is_text_and_other_bytes_are_kept() {
        let mut record = record();
        record.key = Some(bytes::Bytes::from_static(&[0xff]));
        let line = json_line(&record);
        let value: Value = serde_json::from_str(&line).expect("valid JSON");
        assert_eq!(value["value"], "wörld");
        assert_eq!(value["key_base64"], "/w==");
        assert_eq!(value.get("key"), None);
        assert_eq!(value["headers"], json!([{ "name": "a", "value": "1" }, { "name": "b", "value": null }]));
        assert_eq!(value["time"], "2023-11-14T22:13:20.123Z");
        assert!(!line.contains('\n'));
    }
}
