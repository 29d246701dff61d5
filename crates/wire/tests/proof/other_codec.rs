//! Against the crate `kafka-protocol`: bytes of ours mean the same there and come back the same.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable, Message};
use wire::message::*;
use wire::{Reader, VersionRange, Writer};

use crate::all::for_each_body;
use crate::source::{Sample, Source, seeded_bytes};

/// Random values per message and version.
const CASES: u64 = 24;

/// Sends `bytes` through the other codec.
fn through_theirs<T: Decodable + Encodable>(bytes: Bytes, version: i16) -> anyhow::Result<BytesMut> {
    let mut unread = bytes;
    let value = T::decode(&mut unread, version)?;
    anyhow::ensure!(unread.is_empty(), "{} bytes left unread", unread.len());
    let mut written = BytesMut::new();
    value.encode(&mut written, version)?;
    Ok(written)
}

/// The versions both codecs have.
fn common<T: Message>(ours: VersionRange) -> impl Iterator<Item = i16> {
    ours.iter().filter(|version| (T::VERSIONS.min..=T::VERSIONS.max).contains(version))
}

#[test]
fn every_common_version_of_every_body() {
    let mut pairs = 0;
    macro_rules! check {
        ($message:ident, $api:ident) => {
            for version in common::<theirs::$message>($message::VERSIONS) {
                pairs += 1;
                for seed in 0..CASES {
                    let choices = seeded_bytes(seed, 40 * seed as usize);
                    let value = <$message as Sample>::sample(&mut Source::new(&choices), version);
                    let mut writer = Writer::new();
                    value.encode(&mut writer, version).expect($message::NAME);
                    let ours = Bytes::from(writer.to_vec());
                    let name = format!("{} {version}, seed {seed}: {value:?}", $message::NAME);
                    let back = through_theirs::<theirs::$message>(ours.clone(), version)
                        .unwrap_or_else(|error| panic!("{name}: {error}"));
                    assert_eq!(back, ours, "{name}");
                    let again = $message::decode(&mut Reader::new(&back), version).expect($message::NAME);
                    assert_eq!(again, value, "{name}");
                }
            }
        };
    }
    for_each_body!(check);
    assert!(pairs > 350, "only {pairs} pairs of message and version");
}

#[test]
fn headers_and_the_consumer_protocol() {
    macro_rules! check {
        ($message:ident) => {
            for version in common::<theirs::$message>($message::VERSIONS) {
                for seed in 0..CASES {
                    let choices = seeded_bytes(seed, 40 * seed as usize);
                    let value = <$message as Sample>::sample(&mut Source::new(&choices), version);
                    let mut writer = Writer::new();
                    value.encode(&mut writer, version).expect($message::NAME);
                    let ours = Bytes::from(writer.to_vec());
                    let back =
                        through_theirs::<theirs::$message>(ours.clone(), version).expect($message::NAME);
                    assert_eq!(back, ours, "{} {version}, seed {seed}", $message::NAME);
                }
            }
        };
    }
    check!(RequestHeader);
    check!(ResponseHeader);
    check!(ConsumerProtocolSubscription);
    check!(ConsumerProtocolAssignment);
    check!(EndTxnMarker);
}

#[test]
fn default_values_are_the_same() {
    macro_rules! check {
        ($message:ident, $api:ident) => {
            for version in common::<theirs::$message>($message::VERSIONS) {
                let mut writer = Writer::new();
                let ours = $message::default().encode(&mut writer, version);
                let mut written = BytesMut::new();
                let theirs = theirs::$message::default().encode(&mut written, version);
                assert_eq!(ours.is_ok(), theirs.is_ok(), "{} {version}: {ours:?}", $message::NAME);
                if ours.is_ok() {
                    assert_eq!(writer.to_vec(), written, "{} {version}", $message::NAME);
                }
            }
        };
    }
    for_each_body!(check);
}
