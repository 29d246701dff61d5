//! Any bytes as a request frame, and as a response of the API and version the bytes name.
//!
//! What decodes must encode again in the same version, and come back from those bytes as the same
//! bytes: so the fuzzer finds panics, memory out of proportion, and values only one direction knows.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use wire::message::{Request, Response};
use wire::{EncodeError, FrameHead, Reader, Writer};

fuzz_target!(|frame: &[u8]| {
    let mut reader = Reader::new(frame);
    let Ok((head, _)) = FrameHead::decode(&mut reader) else { return };
    let body = Bytes::copy_from_slice(reader.rest());

    if let Ok(request) = Request::decode(head.api_key, &mut Reader::new(&body), head.version) {
        let written = bytes_of(|writer| request.encode(writer, head.version));
        let again = Request::decode(head.api_key, &mut Reader::new(&written), head.version);
        let again = again.expect("written by us");
        assert_eq!(bytes_of(|writer| again.encode(writer, head.version)), written);
    }
    if let Ok(response) = Response::decode(head.api_key, &mut Reader::from_bytes(&body), head.version) {
        let written = bytes_of(|writer| response.encode(writer, head.version));
        let again = Response::decode(head.api_key, &mut Reader::new(&written), head.version);
        let again = again.expect("written by us");
        assert_eq!(bytes_of(|writer| again.encode(writer, head.version)), written);
    }
});

fn bytes_of(encode: impl FnOnce(&mut Writer) -> Result<(), EncodeError>) -> Vec<u8> {
    let mut writer = Writer::new();
    encode(&mut writer).expect("decoded from this version");
    writer.to_vec()
}
