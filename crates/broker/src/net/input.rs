//! Bytes on their way in, cut into frames.
//!
//! A frame is a 32-bit size and that many bytes. The buffer exists only while there are bytes in it, so a
//! connection at rest holds none; it grows with what arrives, never with what is announced. Each thread keeps one
//! empty buffer for whichever connection of its reads next, so that small requests cost no allocation.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use base::env::Stream;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use super::limits::{GROWTH_FACTOR, READ_BYTES, SMALL_FRAME_BYTES};
use super::stranger::Stranger;

/// Length of the size in front of a frame.
const SIZE_BYTES: usize = 4;

thread_local! {
    /// An empty buffer of at most twice [`READ_BYTES`].
    static SPARE: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Bytes read and not yet handed out.
#[derive(Debug)]
pub(super) struct Input {
    buffer: BytesMut,
    frame_bytes_max: usize,
    frames: u64,
}

/// A size no frame has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadSize {
    /// The size as sent.
    pub(super) size: i32,
    /// Who that may be, when these are the first bytes of the connection.
    pub(super) stranger: Option<Stranger>,
}

impl Input {
    pub(super) fn new(frame_bytes_max: usize) -> Input {
        Input { buffer: BytesMut::new(), frame_bytes_max, frames: 0 }
    }

    /// Room the buffer takes.
    pub(super) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Bytes that are there and not handed out.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Takes all bytes that are there, as they came.
    pub(super) fn take_all(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }

    /// Frames handed out so far.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// Length of the frame at the front, without its size, once the size is there.
    fn announced(&self) -> Result<Option<usize>, BadSize> {
        let Some(size) = self.buffer.first_chunk::<SIZE_BYTES>() else { return Ok(None) };
        let size = i32::from_be_bytes(*size);
        match usize::try_from(size) {
            Ok(length) if length <= self.frame_bytes_max => Ok(Some(length)),
            _ => {
                let stranger = Stranger::recognise(&self.buffer).filter(|_| self.frames == 0);
                Err(BadSize { size, stranger })
            }
        }
    }

    /// The next frame without taking it, if it is complete.
    pub(super) fn peek(&self) -> Result<Option<&[u8]>, BadSize> {
        let announced = self.announced()?;
        Ok(announced.and_then(|length| self.buffer.get(SIZE_BYTES..SIZE_BYTES + length)))
    }

    /// Takes the next frame, if it is complete.
    pub(super) fn take(&mut self) -> Result<Option<Bytes>, BadSize> {
        let Some(length) = self.peek()?.map(<[u8]>::len) else { return Ok(None) };
        self.frames += 1;
        let total = SIZE_BYTES + length;
        // A frame that is small in its buffer would hold on to all of it for as long as it is in work.
        if length <= SMALL_FRAME_BYTES || length < self.buffer.capacity() / 4 {
            let frame = Bytes::copy_from_slice(&self.buffer[SIZE_BYTES..total]);
            self.buffer.advance(total);
            return Ok(Some(frame));
        }
        let mut frame = self.buffer.split_to(total).freeze();
        frame.advance(SIZE_BYTES);
        Ok(Some(frame))
    }

    /// Reads once, at most `limit` bytes. 0 is the end of the stream. Call it only when no complete frame is at the
    /// front.
    pub(super) fn poll_read(
        &mut self,
        stream: &mut dyn Stream,
        limit: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room(limit);
        let read = {
            let mut room = (&mut self.buffer).limit(limit);
            // Polled once and dropped: it reads at once or not at all.
            let reading = pin!(stream.read_buf(&mut room));
            reading.poll(context)
        };
        if read.is_pending() {
            self.give_back_room();
        }
        read
    }

    /// Makes room for a read: what is missing of the frame at the front, but no more than what has
    /// arrived of it deserves, nor than may be read.
    fn make_room(&mut self, limit: usize) {
        if self.buffer.capacity() == 0 && limit >= READ_BYTES {
            self.buffer = SPARE.take();
        }
        let have = self.buffer.len();
        let missing = match self.announced() {
            Ok(Some(length)) => (SIZE_BYTES + length).saturating_sub(have),
            _ => READ_BYTES,
        };
        let deserved = have.saturating_mul(GROWTH_FACTOR).max(READ_BYTES);
        let wanted = if limit < READ_BYTES { missing.min(limit) } else { missing.min(deserved) };
        if self.buffer.capacity() - have < wanted.min(READ_BYTES) {
            self.buffer.reserve(wanted);
        }
    }

    /// Lets go of the buffer if nothing is in it: the next turn may be long in coming.
    pub(super) fn release_if_empty(&mut self) {
        if !self.buffer.is_empty() {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        // Not what grew for a large frame, nor what a frame in work is a part of.
        if buffer.try_reclaim(READ_BYTES) && buffer.capacity() <= 2 * READ_BYTES {
            SPARE.set(buffer);
        }
    }

    /// Nothing came: lets go of room that a few bytes do not need.
    fn give_back_room(&mut self) {
        self.release_if_empty();
        if self.buffer.len() <= SMALL_FRAME_BYTES && self.buffer.capacity() > 2 * SMALL_FRAME_BYTES {
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use base::env::Env;
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn pair() -> (Box<dyn Stream>, Box<dyn Stream>) {
        let env = Env::sim(1);
        let mut listener = env.network.listen("127.0.0.1:9092".parse().unwrap()).await.unwrap();
        let client = env.network.connect("127.0.0.1:9092").await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    async fn read(input: &mut Input, stream: &mut dyn Stream) -> usize {
        std::future::poll_fn(|context| input.poll_read(&mut *stream, READ_BYTES, context)).await.unwrap()
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        [&(body.len() as i32).to_be_bytes()[..], body].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn frames_come_out_whole_however_they_arrive() {
        let (mut client, mut server) = pair().await;
        let bodies: Vec<Vec<u8>> = [0usize, 1, 5_000, 70_000, 3, 400_000]
            .iter()
            .map(|length| vec![*length as u8; *length])
            .collect();
        let sent: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
        let writer = tokio::spawn(async move {
            for part in sent.chunks(777) {
                client.write_all(part).await.unwrap();
            }
            client
        });
        let mut input = Input::new(1 << 20);
        for body in &bodies {
            let frame = loop {
                match input.take().unwrap() {
                    Some(frame) => break frame,
                    None => assert!(read(&mut input, &mut *server).await > 0),
                };
            };
            assert_eq!(frame, body);
        }
        drop(writer.await.unwrap());
        assert_eq!((read(&mut input, &mut *server).await, input.len(), input.frames()), (0, 0, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_announced_costs_nothing_until_it_comes() {
        let (mut client, mut server) = pair().await;
        let mut input = Input::new(i32::MAX as usize);
        client.write_all(&i32::MAX.to_be_bytes()).await.unwrap();
        client.write_all(b"abc").await.unwrap();
        while input.len() < 7 {
            read(&mut input, &mut *server).await;
        }
        let nothing = futures::poll!(std::future::poll_fn(|context| input.poll_read(
            &mut *server,
            READ_BYTES,
            context
        )));
        assert!(nothing.is_pending());
        assert!(input.capacity() <= 2 * SMALL_FRAME_BYTES, "{} bytes at rest", input.capacity());
        let sender = tokio::spawn(async move { client.write_all(&vec![1; 100_000]).await.map(|()| client) });
        while input.len() < 100_007 {
            read(&mut input, &mut *server).await;
            assert!(input.capacity() <= 2 * GROWTH_FACTOR * input.len().max(READ_BYTES));
        }
        assert_eq!(input.take(), Ok(None));
        sender.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_buffer_is_given_back() {
        let (mut client, mut server) = pair().await;
        let mut input = Input::new(1000);
        client.write_all(&framed(b"hello")).await.unwrap();
        read(&mut input, &mut *server).await;
        assert_eq!(input.peek().unwrap(), Some(&b"hello"[..]));
        assert_eq!(input.take().unwrap().unwrap(), "hello");
        let nothing = futures::poll!(std::future::poll_fn(|context| input.poll_read(
            &mut *server,
            READ_BYTES,
            context
        )));
        assert!(nothing.is_pending());
        assert_eq!(input.capacity(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn sizes_no_frame_has_are_told() {
        for (first, size, stranger) in [
            (&[0xff, 0xff, 0xff, 0xff][..], -1, None),
            (&[0, 0, 0x03, 0xe9], 1001, None),
            (&[0x7f, 0xff, 0xff, 0xff], i32::MAX, None),
            (b"GET /", 0x4745_5420, Some(Stranger::Http)),
        ] {
            let (mut client, mut server) = pair().await;
            let mut input = Input::new(1000);
            client.write_all(first).await.unwrap();
            read(&mut input, &mut *server).await;
            assert_eq!(input.take(), Err(BadSize { size, stranger }));
        }
    }
}
