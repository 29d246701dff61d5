//! A network that delays, and that cuts connections when asked or by chance.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use base::env::sim::SimRandom;
use base::env::{BoxFuture, Clock, Listener, Network, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::watch;

/// Bytes on their way in one direction.
const PIPE_BYTES: usize = 64 << 10;

/// What is done to connections.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Longest time a connection takes to be made, µs.
    pub(crate) connect_delay_us: u64,
    /// Longest time a piece of bytes takes, µs.
    pub(crate) delay_us: u64,
    /// A direction is cut after at most so many bytes; 0 for never.
    pub(crate) cut_after_bytes: u64,
}

/// The network behind it, and what is done to it.
pub(crate) struct FaultyNetwork {
    inner: Arc<dyn Network>,
    clock: Arc<dyn Clock>,
    random: Arc<SimRandom>,
    faults: parking_lot::Mutex<Faults>,
    /// Raised to cut all connections.
    cuts: watch::Sender<u64>,
    connections: AtomicU64,
}

impl FaultyNetwork {
    pub(crate) fn new(inner: Arc<dyn Network>, clock: Arc<dyn Clock>, seed: u64) -> Arc<FaultyNetwork> {
        Arc::new(FaultyNetwork {
            inner,
            clock,
            random: Arc::new(SimRandom::new(seed)),
            faults: parking_lot::Mutex::default(),
            cuts: watch::channel(0).0,
            connections: AtomicU64::new(0),
        })
    }

    pub(crate) fn set(&self, faults: Faults) {
        *self.faults.lock() = faults;
    }

    pub(crate) fn cut_all(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Connections made so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    fn wrap(&self, far: Box<dyn Stream>, faults: Faults) -> io::Result<Box<dyn Stream>> {
        let local = far.local_address()?;
        let (near, middle) = tokio::io::duplex(PIPE_BYTES);
        let (far_read, far_write) = tokio::io::split(far);
        let (middle_read, middle_write) = tokio::io::split(middle);
        let mut cuts = self.cuts.subscribe();
        let (clock, random) = (self.clock.clone(), self.random.clone());
        tokio::spawn(async move {
            let directions = async {
                tokio::select! {
                    biased;
                    () = carry(middle_read, far_write, &*clock, &random, faults) => {}
                    () = carry(far_read, middle_write, &*clock, &random, faults) => {}
                }
            };
            tokio::select! {
                biased;
                _ = cuts.changed() => {}
                () = directions => {}
            }
        });
        Ok(Box::new(FaultyStream { pipe: near, local }))
    }
}

/// Carries bytes one way until an end closes or chance cuts it.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    clock: &dyn Clock,
    random: &SimRandom,
    faults: Faults,
) {
    let mut left = match faults.cut_after_bytes {
        0 => u64::MAX,
        most => random.below(most),
    };
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        if faults.delay_us > 0 {
            clock.sleep(Duration::from_micros(random.below(faults.delay_us))).await;
        }
        let count = left.min(count as u64) as usize;
        left -= count as u64;
        if to.write_all(&buffer[..count]).await.is_err() || left == 0 {
            return;
        }
    }
}

impl Network for FaultyNetwork {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        self.inner.listen(address)
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let faults = *self.faults.lock();
            if faults.connect_delay_us > 0 {
                let delay = self.random.below(faults.connect_delay_us);
                self.clock.sleep(Duration::from_micros(delay)).await;
            }
            let far = self.inner.connect(address).await?;
            self.connections.fetch_add(1, Ordering::Relaxed);
            self.wrap(far, faults)
        })
    }

    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        self.inner.resolve(address)
    }
}

struct FaultyStream {
    pipe: DuplexStream,
    local: SocketAddr,
}

impl Stream for FaultyStream {
    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

impl AsyncRead for FaultyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(context, buffer)
    }
}

impl AsyncWrite for FaultyStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(context)
    }
}
