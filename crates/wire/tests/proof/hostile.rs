//! Hostile bytes: whatever a peer sends, decoding neither panics nor takes memory out of proportion.
//!
//! The bytes are valid messages spoiled in every way a seed can choose, and with the largest lengths
//! put over every position, hence over every length. The runs are the same each time; the open-ended
//! search are the fuzz targets `frame` and `message`.

use allocation_counter::measure;
use wire::message::*;
use wire::{ApiKey, FrameHead, Reader, Writer};

use crate::all::{for_each_body, for_each_message};
use crate::source::{Sample, Source, seeded_bytes};

/// Messages per message type and version.
const SEEDS: u64 = 3;
/// Random changes to each of them.
const CHANGES: u64 = 64;

/// Memory a decoder may hold for a spoiled frame: arrays reserve at most 64 KiB at each of a handful of
/// levels; the worst element is an empty string, 24 bytes for one on the wire, while a vector doubles.
fn allowed_bytes(frame: usize) -> u64 {
    256 * 1024 + 80 * frame as u64
}

/// Lengths that no frame here can hold, in all codings.
const HUGE: &[&[u8]] = &[
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x7f, 0xff],
    &[0xff, 0xff, 0xff, 0xff, 0x07],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0x80, 0x80, 0x80, 0x80, 0x08],
    &[0xff, 0xff, 0xff, 0xfe],
    &[0x00, 0x0f, 0xff, 0xff],
];

/// Decodes bytes and tells how many bytes of memory were held at most.
fn peak(decode: impl FnOnce()) -> u64 {
    measure(decode).bytes_max
}

/// One spoiled form of `frame`, the same for the same seed.
fn spoil(frame: &[u8], seed: u64) -> Vec<u8> {
    let mut spoiled = frame.to_vec();
    let choices = seeded_bytes(seed, 64);
    for change in choices.chunks_exact(8).take(1 + usize::from(choices[63] % 4)) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % (spoiled.len() + 1);
        match change[2] % 6 {
            0 if at < spoiled.len() => spoiled[at] ^= 1 << (change[3] % 8),
            1 if at < spoiled.len() => spoiled[at] = change[3],
            2 => spoiled.truncate(at),
            3 => {
                spoiled.splice(at..at, change[3..].iter().copied());
            }
            4 => {
                let end = (at + usize::from(change[3] % 8)).min(spoiled.len());
                spoiled.drain(at..end);
            }
            _ => {
                let huge = HUGE[usize::from(change[3]) % HUGE.len()];
                let end = (at + huge.len()).min(spoiled.len());
                spoiled.splice(at..end, huge.iter().copied());
            }
        }
    }
    spoiled
}

/// All spoiled forms of `frame`: huge lengths over every position, then random changes.
fn spoiled_forms(frame: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let positions = (0..frame.len()).step_by(1 + frame.len() / 200);
    let with_lengths = positions.flat_map(move |at| {
        HUGE.iter().map(move |huge| {
            let mut spoiled = frame.to_vec();
            let end = (at + huge.len()).min(frame.len());
            spoiled.splice(at..end, huge.iter().copied());
            spoiled
        })
    });
    with_lengths.chain((0..CHANGES).map(move |seed| spoil(frame, seed)))
}

#[test]
fn every_message_survives_spoiled_bytes() {
    let (mut tried, mut refused) = (0u64, 0u64);
    macro_rules! check {
        ($message:ident) => {
            for version in $message::VERSIONS.iter() {
                for seed in 0..SEEDS {
                    let choices = seeded_bytes(seed, 100 + 100 * seed as usize);
                    let value = <$message as Sample>::sample(&mut Source::new(&choices), version);
                    let mut writer = Writer::new();
                    value.encode(&mut writer, version).expect($message::NAME);
                    for spoiled in spoiled_forms(&writer.to_vec()) {
                        let held = peak(|| {
                            let decoded = $message::decode(&mut Reader::new(&spoiled), version);
                            refused += u64::from(decoded.is_err());
                        });
                        tried += 1;
                        let allowed = allowed_bytes(spoiled.len());
                        assert!(
                            held <= allowed,
                            "{} {version}: {held} bytes held for {spoiled:?}",
                            $message::NAME
                        );
                    }
                }
            }
        };
    }
    for_each_message!(check);
    assert!(refused > tried / 4, "{refused} of {tried} refused: the bytes are hardly spoiled");
}

#[test]
fn arrays_of_the_smallest_elements_stay_in_proportion() {
    macro_rules! check {
        ($message:ident, $api:ident) => {
            for version in $message::VERSIONS.iter() {
                for fill in [0x00, 0x01, 0x02, 0x7f, 0xff] {
                    for length in [&[0x00, 0x01, 0x00, 0x00][..], &[0xff, 0xff, 0x03]] {
                        for at in 0..24 {
                            let mut frame = vec![fill; at];
                            frame.extend_from_slice(length);
                            frame.resize(100_000, fill);
                            let held = peak(|| drop($message::decode(&mut Reader::new(&frame), version)));
                            let allowed = allowed_bytes(frame.len());
                            assert!(
                                held <= allowed,
                                "{} {version}: {held} bytes, {fill} from {at}",
                                $message::NAME
                            );
                        }
                    }
                }
            }
        };
    }
    for_each_body!(check);
}

#[test]
fn heads_of_frames_survive_any_bytes() {
    for seed in 0..20_000 {
        let mut frame = seeded_bytes(seed, (seed % 40) as usize);
        if let (Some(code), true) = (frame.first_chunk_mut::<4>(), seed % 4 != 0) {
            let key = ApiKey::ALL[seed as usize % ApiKey::ALL.len()];
            *code = [0, key.code() as u8, 0, (seed % 16) as u8];
        }
        let mut reader = Reader::new(&frame);
        if let Ok((head, header)) = FrameHead::decode(&mut reader) {
            assert_eq!(header.request_api_key, head.api_key.code());
            assert_eq!(header.request_api_version, head.version);
            let _ = Request::decode(head.api_key, &mut reader, head.version);
        }
    }
}
