//! Every message in every version, those of records included: any bytes, and a sound message with some of its
//! bytes changed. What is sound comes back as it was; what decodes encodes again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::message::*;
use wire::{Reader, Writer};

use crate::all::for_each_message;
use crate::source::{Sample, Source};

#[path = "../../crates/wire/tests/proof/all.rs"]
#[allow(unused_macros, unused_imports, reason = "the proofs of the codec use more of it")]
mod all;
#[path = "../../crates/wire/tests/proof/samples.rs"]
mod samples;
#[path = "../../crates/wire/tests/proof/source.rs"]
#[allow(dead_code, reason = "the proofs of the codec use more of it")]
mod source;

fuzz_target!(|bytes: &[u8]| {
    let [which, version, changes, content @ ..] = bytes else { return };
    let mut number = 0;
    macro_rules! exercise {
        ($message:ident) => {
            if number == *which {
                let versions = $message::VERSIONS;
                let version = versions.min + i16::from(*version) % (versions.max - versions.min + 1);
                if *changes % 4 == 0 {
                    check!($message, version, content);
                    return;
                }
                let (changes, content) =
                    content.split_at(content.len().min(usize::from(*changes % 4) * 3 - 3));
                let value = <$message as Sample>::sample(&mut Source::new(content), version);
                let mut writer = Writer::new();
                value.encode(&mut writer, version).expect("a sample of this version");
                let mut frame = writer.to_vec();
                assert_eq!($message::decode(&mut Reader::new(&frame), version).as_ref(), Ok(&value));
                for change in changes.chunks_exact(3) {
                    let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % (frame.len() + 1);
                    frame.get_mut(at).into_iter().for_each(|byte| *byte = change[2]);
                }
                check!($message, version, &frame);
                return;
            }
            number += 1;
        };
    }
    macro_rules! check {
        ($message:ident, $version:expr, $bytes:expr) => {
            if let Ok(value) = $message::decode(&mut Reader::new($bytes), $version) {
                let mut writer = Writer::new();
                value.encode(&mut writer, $version).expect("decoded from this version");
                let written = writer.to_vec();
                $message::decode(&mut Reader::new(&written), $version).expect("written by us");
            }
        };
    }
    for_each_message!(exercise);
    let _ = number;
});
