//! Every message at every version: what is written is read back, byte for byte and value for value.

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use wire::message::*;
use wire::{Reader, Writer};

use crate::all::for_each_message;
use crate::source::{Sample, Source};

/// Random values per message and version.
const CASES: u32 = 32;

/// Fails a proptest case with the message it is about.
macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(TestCaseError::fail(format!($($text)*)));
        }
    };
}

#[test]
fn every_message_at_every_version() {
    let mut pairs = 0;
    macro_rules! check {
        ($message:ident) => {
            for version in $message::VERSIONS.iter() {
                pairs += 1;
                let mut runner =
                    TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
                let result = runner.run(&vec(any::<u8>(), 0..600), |choices| {
                    let value = <$message as Sample>::sample(&mut Source::new(&choices), version);
                    let name = format!("{} {version}", $message::NAME);
                    let mut writer = Writer::new();
                    let written = value.encode(&mut writer, version);
                    ensure!(written.is_ok(), "{name}: {written:?}");
                    let length = writer.len();
                    let bytes = writer.to_vec();
                    ensure!(bytes.len() == length, "{name}: length {length} told, {} written", bytes.len());
                    let mut reader = Reader::new(&bytes);
                    let again = $message::decode(&mut reader, version);
                    ensure!(again.as_ref() == Ok(&value), "{name}: {value:?} became {again:?}");
                    ensure!(reader.remaining() == 0, "{name}: {} bytes left", reader.remaining());
                    for cut in (0..bytes.len()).step_by(1 + bytes.len() / 16) {
                        let short = $message::decode(&mut Reader::new(&bytes[..cut]), version);
                        ensure!(short.is_err(), "{name}: read from {cut} of {length} bytes");
                    }
                    Ok(())
                });
                assert!(result.is_ok(), "{}", result.unwrap_err());
            }
        };
    }
    for_each_message!(check);
    assert!(pairs > 400, "only {pairs} pairs of message and version");
}

#[test]
fn enums_over_all_bodies_agree_with_the_structs() {
    use crate::all::for_each_body;
    use crate::source::seeded_bytes;

    macro_rules! check {
        ($message:ident, $api:ident) => {
            let version = $message::VERSIONS.max;
            let choices = seeded_bytes(7, 400);
            let value = <$message as Sample>::sample(&mut Source::new(&choices), version);
            let mut writer = Writer::new();
            value.encode(&mut writer, version).expect($message::NAME);
            let bytes = writer.to_vec();
            check_enum!($message, $api, &bytes, version);
        };
    }
    macro_rules! check_enum {
        ($message:ident, $api:ident, $bytes:expr, $version:expr) => {
            let mut writer = Writer::new();
            if $message::NAME.ends_with("Request") {
                let body =
                    Request::decode(wire::ApiKey::$api, &mut Reader::new($bytes), $version).expect("valid");
                assert_eq!(body.api_key(), wire::ApiKey::$api);
                body.encode(&mut writer, $version).expect("valid");
            } else {
                let body =
                    Response::decode(wire::ApiKey::$api, &mut Reader::new($bytes), $version).expect("valid");
                assert_eq!(body.api_key(), wire::ApiKey::$api);
                body.encode(&mut writer, $version).expect("valid");
            }
            assert_eq!(writer.to_vec(), *$bytes, "{}", $message::NAME);
        };
    }
    for_each_body!(check);
}
