//! Whole frames: size, header, body.
//!
//! A frame on the wire is a 32-bit size and that many bytes. Reading from a socket, and how large a
//! frame may be, are the caller's matter; here is what stands inside.

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
) -> Result<Vec<Bytes>, EncodeError> {
    let header = RequestHeader {
        request_api_key: R::API_KEY.code(),
        request_api_version: version,
        correlation_id,
        client_id: client_id.map(Into::into),
    };
    frame(|writer| {
        header.encode(writer, R::API_KEY.request_header_version(version))?;
        body.encode(writer, version)
    })
}

/// A whole response with its size, ready for a socket; record bytes in it are the caller's own chunks.
pub fn response_frame<'a, R: ResponseMessage<'a>>(
    correlation_id: i32,
    version: i16,
    body: &R,
) -> Result<Vec<Bytes>, EncodeError> {
    response_frame_of(R::API_KEY, correlation_id, version, |writer| body.encode(writer, version))
}

impl Response<'_> {
    /// A whole response with its size, as [`response_frame`] makes it.
    pub fn to_frame(&self, correlation_id: i32, version: i16) -> Result<Vec<Bytes>, EncodeError> {
        response_frame_of(self.api_key(), correlation_id, version, |writer| self.encode(writer, version))
    }
}

fn response_frame_of(
    api_key: ApiKey,
    correlation_id: i32,
    version: i16,
    body: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
) -> Result<Vec<Bytes>, EncodeError> {
    frame(|writer| {
        ResponseHeader { correlation_id }.encode(writer, api_key.response_header_version(version))?;
        body(writer)
    })
}

fn frame(content: impl FnOnce(&mut Writer) -> Result<(), EncodeError>) -> Result<Vec<Bytes>, EncodeError> {
    let mut writer = Writer::with_capacity(USUAL_FRAME_BYTES);
    writer.i32(0);
    content(&mut writer)?;
    let length = writer.len() - 4;
    let size = i32::try_from(length).map_err(|_| EncodeError::TooLong { what: "frame", length })?;
    writer.patch_i32(0, size);
    Ok(writer.finish())
}
