//! Frames off a connection, many with one read.

use std::io;

use base::env::Stream;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::message::{FRAME_BYTES_MAX, LENGTH_BYTES, Message};

/// Room for what one read brings, bytes.
const READ_BYTES: usize = 64 << 10;
/// Of a long frame so much memory is taken at once, bytes: a peer cannot make us hold what it does not send.
const GROW_BYTES: usize = 1 << 20;

/// The reading end of a connection.
pub(super) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(stream: R) -> FrameReader<R> {
        FrameReader { stream, buffer: BytesMut::new() }
    }

    /// The next frame's content; `None` when the peer is done. A call that is given up loses nothing.
    ///
    /// # Errors
    /// Those of the connection; a frame that is too long; an end within a frame.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let need = match self.buffer.first_chunk() {
                None => LENGTH_BYTES,
                Some(length) => {
                    let length = u32::from_be_bytes(*length) as usize;
                    if length > FRAME_BYTES_MAX {
                        let reason = format!("a frame of {length} bytes is longer than any may be");
                        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
                    }
                    if self.buffer.len() >= LENGTH_BYTES + length {
                        let frame = self.buffer.split_to(LENGTH_BYTES + length).freeze();
                        return Ok(Some(frame.slice(LENGTH_BYTES..)));
                    }
                    LENGTH_BYTES + length
                }
            };
            let missing = need - self.buffer.len();
            self.buffer.reserve(missing.clamp(READ_BYTES, GROW_BYTES));
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                let ended = self.buffer.is_empty();
                return if ended { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// The next message; `None` when the peer is done.
    ///
    /// # Errors
    /// As [`FrameReader::next`]; a frame that is no message.
    pub(super) async fn message(&mut self) -> io::Result<Option<Message>> {
        let Some(frame) = self.next().await? else { return Ok(None) };
        Message::decode(frame).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Writes one message.
///
/// # Errors
/// Those of the connection.
pub(super) async fn send(stream: &mut dyn Stream, before: &[u8], message: &Message) -> io::Result<()> {
    let mut bytes = before.to_vec();
    message.encode(&mut bytes).map_err(io::Error::other)?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32).to_be_bytes(), content].concat()
    }

    #[tokio::test]
    async fn frames_come_whole_however_they_are_cut() {
        let contents: Vec<Vec<u8>> = [0, 1, 5, 300_000, 2_000_000, 3].map(|size| vec![7; size]).into();
        let bytes = contents.iter().map(|content| frame(content)).collect::<Vec<_>>().concat();
        for piece in [1_000, 65_536, usize::MAX] {
            let (mut near, far) = tokio::io::duplex(piece.min(1 << 22));
            let sent = bytes.clone();
            let writer = tokio::spawn(async move { near.write_all(&sent).await });
            let mut reader = FrameReader::new(far);
            for content in &contents {
                assert_eq!(reader.next().await.unwrap().unwrap(), content);
            }
            assert!(reader.next().await.unwrap().is_none());
            writer.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn long_and_cut_frames_end_the_connection() {
        let long = (FRAME_BYTES_MAX as u32 + 1).to_be_bytes();
        let cut = &frame(b"content")[..9];
        for (bytes, kind) in [(&long[..], io::ErrorKind::InvalidData), (cut, io::ErrorKind::UnexpectedEof)] {
            let mut reader = FrameReader::new(bytes);
            assert_eq!(reader.next().await.unwrap_err().kind(), kind);
        }
    }
}
