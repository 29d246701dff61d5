//! A broker that is cut off: from other brokers, from the controllers, or from both, while clients reach it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use base::env::{BoxFuture, Env, Listener, Network, Stream};
use base::ids::{BrokerId, Incarnation};
use metadata::watch;
use metadata::{Command, CommandResult, Image, MetadataStore, ProposeError, QuorumState, Sessions};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Which brokers are cut off; shared by all.
#[derive(Clone, Default)]
pub(crate) struct Cuts(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Pairs that do not reach each other.
    cut: Vec<(i32, i32)>,
    waiting: Vec<Waker>,
}

impl Cuts {
    /// From now on two brokers do not reach each other. Nothing is lost: it stands still.
    pub(crate) fn cut(&self, one: i32, other: i32) {
        self.0.lock().cut.push((one.min(other), one.max(other)));
    }

    /// All reach each other again.
    pub(crate) fn heal(&self) {
        let mut state = self.0.lock();
        state.cut.clear();
        state.waiting.drain(..).for_each(Waker::wake);
    }

    fn is_cut(&self, one: i32, other: i32) -> bool {
        self.0.lock().cut.contains(&(one.min(other), one.max(other)))
    }

    /// The world as a broker sees it.
    pub(crate) fn env(&self, env: &Env, node: i32) -> Env {
        let network = Arc::new(CutNetwork { inner: env.network.clone(), node, cuts: self.clone() });
        Env { network, ..env.clone() }
    }
}

struct CutNetwork {
    inner: Arc<dyn Network>,
    node: i32,
    cuts: Cuts,
}

impl Network for CutNetwork {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        self.inner.listen(address)
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let port: i32 = address.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0);
            let (node, peer) = (self.node, port - 9_090);
            if self.cuts.is_cut(node, peer) {
                return Err(io::ErrorKind::HostUnreachable.into());
            }
            let inner = self.inner.connect(address).await?;
            let stream: Box<dyn Stream> = Box::new(CutStream { inner, node, peer, cuts: self.cuts.clone() });
            Ok(stream)
        })
    }

    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        self.inner.resolve(address)
    }
}

/// The end of who connected; as long as it stands still, the other end hears and says nothing.
struct CutStream {
    inner: Box<dyn Stream>,
    node: i32,
    peer: i32,
    cuts: Cuts,
}

impl CutStream {
    fn stands_still(&self, context: &Context<'_>) -> bool {
        let is_cut = self.cuts.is_cut(self.node, self.peer);
        if is_cut {
            self.cuts.0.lock().waiting.push(context.waker().clone());
        }
        is_cut
    }
}

impl Stream for CutStream {
    fn local_address(&self) -> io::Result<SocketAddr> {
        self.inner.local_address()
    }
}

impl AsyncRead for CutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.stands_still(context) {
            return Poll::Pending;
        }
        Pin::new(&mut *self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for CutStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.stands_still(context) {
            return Poll::Pending;
        }
        Pin::new(&mut *self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_shutdown(context)
    }
}

/// The metadata as a broker sees it that may be cut off from the controllers.
pub(crate) struct Remote {
    inner: Arc<dyn MetadataStore>,
    seen: watch::Sender<Arc<Image>>,
    is_cut: watch::Sender<bool>,
}

impl Remote {
    pub(crate) fn new(inner: Arc<dyn MetadataStore>) -> Arc<Remote> {
        let seen = watch::Sender::new(inner.image());
        let remote = Arc::new(Remote { inner, seen, is_cut: watch::Sender::new(false) });
        tokio::spawn(follow(remote.clone()));
        remote
    }

    /// From now on it hears nothing and is not heard, or is again.
    pub(crate) fn set_cut(&self, is_cut: bool) {
        self.is_cut.send_replace(is_cut);
    }

    fn is_cut(&self) -> bool {
        *self.is_cut.borrow()
    }
}

async fn follow(remote: Arc<Remote>) {
    let mut images = remote.inner.subscribe();
    let mut cut = remote.is_cut.subscribe();
    loop {
        if !remote.is_cut() {
            let image = images.borrow_and_update().clone();
            remote.seen.send_replace(image);
        }
        tokio::select! {
            changed = images.changed(), if !remote.is_cut() => {
                if changed.is_err() {
                    return;
                }
            }
            _ = cut.changed() => {}
        }
    }
}

fn cut_off<T>() -> Result<T, ProposeError> {
    Err(ProposeError::Unavailable("cut off".to_owned()))
}

impl MetadataStore for Remote {
    fn image(&self) -> Arc<Image> {
        // What is asked of it shows at once.
        if !self.is_cut() {
            self.seen.send_replace(self.inner.image());
        }
        self.seen.borrow().clone()
    }

    fn propose(&self, command: Command) -> BoxFuture<'_, Result<CommandResult, ProposeError>> {
        if self.is_cut() {
            return Box::pin(std::future::ready(cut_off()));
        }
        self.inner.propose(command)
    }

    fn subscribe(&self) -> watch::Receiver<Arc<Image>> {
        self.seen.subscribe()
    }

    fn problem(&self) -> Option<String> {
        self.is_cut().then(|| "cut off".to_owned())
    }

    fn controller(&self) -> Option<BrokerId> {
        self.inner.controller()
    }

    fn quorum(&self) -> QuorumState {
        self.inner.quorum()
    }

    fn heartbeat(
        &self,
        broker: BrokerId,
        incarnation: Incarnation,
    ) -> BoxFuture<'_, Result<(), ProposeError>> {
        if self.is_cut() {
            return Box::pin(std::future::ready(cut_off()));
        }
        self.inner.heartbeat(broker, incarnation)
    }

    fn serve_node(&self, stream: Box<dyn Stream>) -> BoxFuture<'static, std::io::Result<()>> {
        self.inner.serve_node(stream)
    }

    fn sessions(&self) -> Option<Sessions> {
        None
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
