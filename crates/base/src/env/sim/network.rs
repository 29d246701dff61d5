//! Connections within one process: every listener has an address, every connection is a pair of pipes.
//!
//! What it does not do yet: lose, delay or cut anything.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

use super::super::{BoxFuture, Listener, Network, Stream};

/// Bytes on their way in one direction of a connection.
const PIPE_BYTES: usize = 64 * 1024;
/// Connections not accepted yet.
const BACKLOG: usize = 1024;
/// First port given where any would do, as Linux has it.
const FIRST_FREE_PORT: u16 = 32_768;

/// An in-memory network. Any host name that is no address stands for 127.0.0.1.
pub struct SimNetwork {
    ports: Arc<Mutex<Ports>>,
}

#[derive(Default)]
struct Ports {
    listeners: HashMap<SocketAddr, mpsc::Sender<(SimStream, SocketAddr)>>,
    given: u16,
}

impl Ports {
    fn free_port(&mut self, ip: IpAddr) -> io::Result<u16> {
        for _ in FIRST_FREE_PORT..=u16::MAX {
            let port = FIRST_FREE_PORT + self.given % (u16::MAX - FIRST_FREE_PORT);
            self.given = self.given.wrapping_add(1);
            if !self.listeners.contains_key(&SocketAddr::new(ip, port)) {
                return Ok(port);
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// The listener for an address: its own, or one for all addresses of the port.
    fn listener(&self, address: SocketAddr) -> Option<&mpsc::Sender<(SimStream, SocketAddr)>> {
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
        self.listeners.get(&address).or_else(|| self.listeners.get(&any))
    }
}

impl SimNetwork {
    pub(super) fn new() -> SimNetwork {
        SimNetwork { ports: Arc::default() }
    }
}

impl Network for SimNetwork {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let mut ports = self.ports.lock();
            let port = if address.port() == 0 { ports.free_port(address.ip())? } else { address.port() };
            let address = SocketAddr::new(address.ip(), port);
            if ports.listeners.contains_key(&address) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let (sender, connections) = mpsc::channel(BACKLOG);
            ports.listeners.insert(address, sender);
            let listener: Box<dyn Listener> =
                Box::new(SimListener { address, connections, ports: self.ports.clone() });
            Ok(listener)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let server = *self.resolve(address).await?.first().ok_or_else(refused)?;
            let (sender, client) = {
                let mut ports = self.ports.lock();
                let sender = ports.listener(server).ok_or_else(refused)?.clone();
                let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
                (sender, SocketAddr::new(ip, ports.free_port(ip)?))
            };
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            let far = SimStream { pipe: far, local: server };
            sender.send((far, client)).await.map_err(|_| refused())?;
            let near: Box<dyn Stream> = Box::new(SimStream { pipe: near, local: client });
            Ok(near)
        })
    }

    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            if let Ok(address) = address.parse() {
                return Ok(vec![address]);
            }
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            let port = port.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            Ok(vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)])
        })
    }
}

struct SimListener {
    address: SocketAddr,
    connections: mpsc::Receiver<(SimStream, SocketAddr)>,
    ports: Arc<Mutex<Ports>>,
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.ports.lock().listeners.remove(&self.address);
    }
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async move {
            let accepted = self.connections.recv().await;
            let (stream, peer) = accepted.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
            let stream: Box<dyn Stream> = Box::new(stream);
            Ok((stream, peer))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

struct SimStream {
    pipe: DuplexStream,
    local: SocketAddr,
}

impl Stream for SimStream {
    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(context, buffer)
    }
}

impl AsyncWrite for SimStream {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_travel_both_ways_until_an_end_closes() {
        let network = SimNetwork::new();
        let mut listener = network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_address().unwrap();
        let mut client = network.connect(&format!("some.host:{}", address.port())).await.unwrap();
        let (mut server, peer) = listener.accept().await.unwrap();
        assert_eq!(client.local_address().unwrap(), peer);
        assert_eq!(server.local_address().unwrap(), address);
        client.write_all(b"ping").await.unwrap();
        let mut buffer = [0; 4];
        server.read_exact(&mut buffer).await.unwrap();
        server.write_all(b"pong").await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!((&buffer, &answer[..]), (b"ping", &b"pong"[..]));
    }

    #[tokio::test]
    async fn a_port_has_one_listener_and_none_refuses() {
        let network = SimNetwork::new();
        let listener = network.listen("0.0.0.0:9092".parse().unwrap()).await.unwrap();
        let taken = network.listen("0.0.0.0:9092".parse().unwrap()).await.err().unwrap();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        assert!(network.connect("127.0.0.1:9092").await.is_ok());
        drop(listener);
        let refused = network.connect("127.0.0.1:9092").await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(network.resolve("no port").await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
