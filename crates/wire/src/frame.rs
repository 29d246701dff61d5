//! Whole frames: size, header, body.
//!
//! A frame on the wire is a 32-bit size and that many bytes. Reading from a socket, and how large a
//! frame may be, are the caller's matter; here is what stands inside.

use base::env::Run;
use bytes::Bytes;

use crate::message::{RequestHeader, Response, ResponseHeader};
use crate::{ApiKey, DecodeError, EncodeError, Reader, RequestMessage, ResponseMessage, Writer};

/// Room a new frame begins with: most responses but Fetch and Metadata fit.
const USUAL_FRAME_BYTES: usize = 256;

/// The first four bytes of a request, from which everything else about it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// The API, one we speak.
    pub api_key: ApiKey,
    /// Its version as sent, which may be one we do not speak.
    pub version: i16,
}

impl FrameHead {
    /// Reads the header of a request (`frame` is without its size) and leaves the reader at the body.
    ///
    /// An unknown API is an error, because the form of its header is unknown too; the caller closes
    /// the connection. An unknown *version* is not: the caller must see it, since an ApiVersions
    /// request of any version is answered (KIP-511). Bytes behind a body are ignored, as Kafka does.
    pub fn decode<'a>(reader: &mut Reader<'a>) -> Result<(Self, RequestHeader<'a>), DecodeError> {
        let mut ahead = reader.clone();
        let (code, version) = (ahead.i16()?, ahead.i16()?);
        let api_key = ApiKey::from_code(code).ok_or(DecodeError::UnknownApi(code))?;
        let header = RequestHeader::decode(reader, api_key.request_header_version(version))?;
        Ok((Self { api_key, version }, header))
    }
}

/// A whole request with its size, ready for a socket.
pub fn request_frame<'a, R: RequestMessage<'a>>(
    correlation_id: i32,
    client_id: Option<&str>,
    version: i16,
    body: &R,
) -> Result<Bytes, EncodeError> {
    let header = RequestHeader {
        request_api_key: R::API_KEY.code(),
        request_api_version: version,
        correlation_id,
        client_id: client_id.map(Into::into),
    };
    let writer = frame(|writer| {
        header.encode(writer, R::API_KEY.request_header_version(version))?;
        body.encode(writer, version)
    })?;
    Ok(writer.to_vec().into())
}

/// A whole response with its size, ready for a socket; record bytes in it are the caller's own chunks.
pub fn response_frame<'a, R: ResponseMessage<'a>>(
    correlation_id: i32,
    version: i16,
    body: &R,
) -> Result<Vec<Run>, EncodeError> {
    response_frame_of(R::API_KEY, correlation_id, version, |writer| body.encode(writer, version))
}

impl Response<'_> {
    /// A whole response with its size, as [`response_frame`] makes it.
    pub fn to_frame(&self, correlation_id: i32, version: i16) -> Result<Vec<Run>, EncodeError> {
        response_frame_of(self.api_key(), correlation_id, version, |writer| self.encode(writer, version))
    }
}

fn response_frame_of(
    api_key: ApiKey,
    correlation_id: i32,
    version: i16,
    body: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
) -> Result<Vec<Run>, EncodeError> {
    let writer = frame(|writer| {
        ResponseHeader { correlation_id }.encode(writer, api_key.response_header_version(version))?;
        body(writer)
    })?;
    Ok(writer.finish())
}

fn frame(content: impl FnOnce(&mut Writer) -> Result<(), EncodeError>) -> Result<Writer, EncodeError> {
    let mut writer = Writer::with_capacity(USUAL_FRAME_BYTES);
    writer.i32(0);
    content(&mut writer)?;
    let length = writer.len() - 4;
    let size = i32::try_from(length).map_err(|_| EncodeError::TooLong { what: "frame", length })?;
    writer.patch_i32(0, size);
    Ok(writer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{
        ApiVersionsRequest, ApiVersionsResponse, FetchResponse, FetchableTopicResponse, HeartbeatRequest,
    };
    use crate::{Payload, in_memory, message::fetch_response::PartitionData};

    #[test]
    fn flexible_request_keeps_the_old_coding_of_the_client_id() {
        let body =
            ApiVersionsRequest { client_software_name: "ab".into(), client_software_version: "1".into() };
        let frame = request_frame(7, Some("me"), 3, &body).expect("fits");
        let expected =
            [&[0, 0, 0, 19, 0, 18, 0, 3, 0, 0, 0, 7, 0, 2][..], b"me", &[0, 3], b"ab", &[2], b"1", &[0]]
                .concat();
        assert_eq!(frame, expected);

        let mut reader = Reader::new(&frame[4..]);
        let (head, header) = FrameHead::decode(&mut reader).expect("just written");
        assert_eq!(head, FrameHead { api_key: ApiKey::ApiVersions, version: 3 });
        assert_eq!((header.correlation_id, header.client_id.as_deref()), (7, Some("me")));
        assert_eq!(ApiVersionsRequest::decode(&mut reader, 3), Ok(body));
    }

    #[test]
    fn the_head_of_an_unknown_version_is_read_but_not_that_of_an_unknown_api() {
        let from_the_future = [0, 18, 0, 99, 0, 0, 0, 7, 0xff, 0xff, 0, 1, 2, 3];
        let (head, header) = FrameHead::decode(&mut Reader::new(&from_the_future)).expect("a header v2");
        assert_eq!((head.version, header.correlation_id, header.client_id), (99, 7, None));
        let unknown = [0, 4, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
        assert_eq!(FrameHead::decode(&mut Reader::new(&unknown)), Err(DecodeError::UnknownApi(4)));
    }

    #[test]
    fn response_header_has_tags_only_where_it_should() {
        let response = ApiVersionsResponse::default();
        let frame = in_memory(&response_frame(7, 3, &response).expect("fits")).expect("in memory");
        assert_eq!(frame[4..10], [0, 0, 0, 7, 0, 0], "header v0, then the error code");
        let frame = Response::from(FetchResponse::default()).to_frame(7, 12).expect("fits");
        let frame = in_memory(&frame).expect("in memory");
        assert_eq!(frame[4..9], [0, 0, 0, 7, 0], "header v1 ends with its tags");
        assert_eq!(
            usize::try_from(i32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]])),
            Ok(frame.len() - 4)
        );
    }

    #[test]
    fn record_bytes_reach_the_frame_uncopied() {
        let records = Bytes::from_static(b"not really a batch");
        let partition = PartitionData { records: Payload::One(records.clone()), ..Default::default() };
        let topic = FetchableTopicResponse { partitions: vec![partition], ..Default::default() };
        let response = FetchResponse { responses: vec![topic], ..Default::default() };
        let runs = response_frame(1, 12, &response).expect("fits");
        let runs: Vec<Bytes> = runs.iter().map(|run| run.read().expect("in memory")).collect();
        assert_eq!(runs.len(), 3);
        assert_eq!(runs[1].as_ptr(), records.as_ptr());
        let size = i32::from_be_bytes(*runs[0].first_chunk().expect("a size"));
        assert_eq!(size as usize + 4, runs.iter().map(Bytes::len).sum::<usize>());
    }

    #[test]
    fn bytes_behind_a_body_are_left_alone() {
        let mut writer = Writer::new();
        HeartbeatRequest::default().encode(&mut writer, 0).expect("fits");
        writer.i32(0x0bad);
        let bytes = writer.to_vec();
        let mut reader = Reader::new(&bytes);
        assert_eq!(HeartbeatRequest::decode(&mut reader, 0), Ok(HeartbeatRequest::default()));
        assert_eq!(reader.remaining(), 4);
    }
}
