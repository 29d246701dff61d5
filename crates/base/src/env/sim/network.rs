//! The network of a simulated world: machines with names and addresses, and links between them that can be cut in one
//! direction or both, slow down, and heal.
//!
//! ```text
//!  near end ─► carrier: link open? both machines running? delay ─► far end      and back, for each connection
//! ```
//!
//! Bytes of a connection that is cut wait, as TCP sends them again, until the link heals. A process that is killed closes
//! its connections, which the other side sees at once. A machine that loses power says nothing: the other side sees the
//! end when the machine has started again. Within one machine bytes travel without delay.
//!
//! What it does not do: lose or reorder bytes of a connection; that is what TCP is for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::{Notify, mpsc};

use super::super::{BoxFuture, Listener, Network, Stream};
use super::SimRandom;
use super::life::{Life, until};

/// Bytes on their way in one direction of a connection.
const PIPE_BYTES: usize = 64 * 1024;
/// Connections not accepted yet.
const BACKLOG: usize = 1024;
/// First port given where any would do, as Linux has it.
const FIRST_FREE_PORT: u16 = 32_768;
/// How long a connection is tried for, as Linux does by default.
const CONNECT_PATIENCE: Duration = Duration::from_secs(127);
/// Longest delay on the way between two machines, ms, until another is set.
const DELAY_MAX_MS: u64 = 2;

type MachineId = usize;

/// One machine's side of the network. Any host name that is no address and no machine's name stands for 127.0.0.1.
pub struct SimNetwork {
    hub: Arc<Hub>,
    machine: MachineId,
    /// The life it was handed to; `None` for whoever stands outside.
    life: Option<Arc<Life>>,
}

/// What all machines share.
pub(super) struct Hub {
    state: Mutex<HubState>,
    random: SimRandom,
    /// Said when anything changes.
    pub(super) changed: Arc<Notify>,
}

#[derive(Default)]
struct HubState {
    machines: Vec<Machine>,
    /// From whom nothing arrives at whom.
    cut: BTreeSet<(MachineId, MachineId)>,
    delay_max_ms: u64,
    /// What is added to that, ms, for one direction.
    slow: BTreeMap<(MachineId, MachineId), u64>,
    /// Ends of connections whose process is gone: nothing comes and nothing is taken there.
    graves: Vec<DuplexStream>,
    next_listener: u64,
}

struct Machine {
    name: String,
    ip: Ipv4Addr,
    listeners: BTreeMap<SocketAddr, Open>,
    given: u16,
    /// Of the process that runs there; `None` where there are no lives.
    life: Option<Arc<Life>>,
    has_power: bool,
    /// How often all its connections broke.
    broken: u64,
}

/// Where connections to a listener go.
struct Open {
    id: u64,
    connections: mpsc::Sender<(SimStream, SocketAddr)>,
}

impl Machine {
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
    fn listener(&self, address: SocketAddr) -> Option<&Open> {
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
        self.listeners.get(&address).or_else(|| self.listeners.get(&any))
    }
}

impl Hub {
    pub(super) fn new(seed: u64) -> Hub {
        let state = HubState { delay_max_ms: DELAY_MAX_MS, ..HubState::default() };
        Hub { state: Mutex::new(state), random: SimRandom::new(seed), changed: Arc::default() }
    }

    /// Plugs in a machine.
    pub(super) fn plug(self: &Arc<Self>, name: &str) -> SimNetwork {
        let mut state = self.state.lock();
        let machine = state.machines.len();
        let number = u8::try_from(machine + 1).expect("a world has few machines");
        state.machines.push(Machine {
            name: name.to_owned(),
            ip: Ipv4Addr::new(10, 0, 0, number),
            listeners: BTreeMap::new(),
            given: 0,
            life: None,
            has_power: true,
            broken: 0,
        });
        SimNetwork { hub: self.clone(), machine, life: None }
    }

    /// Changes something and tells whoever waits for it.
    fn change<T>(&self, change: impl FnOnce(&mut HubState) -> T) -> T {
        let result = change(&mut self.state.lock());
        self.changed.notify_waiters();
        result
    }

    /// All links carry again, without delays of their own.
    pub(super) fn heal_all(&self) {
        self.change(|state| {
            state.cut.clear();
            state.slow.clear();
        });
    }

    /// Sets the longest delay between any two machines, ms.
    pub(super) fn set_delay_max_ms(&self, ms: u64) {
        self.change(|state| state.delay_max_ms = ms);
    }

    /// How long bytes are on their way.
    fn delay(&self, from: MachineId, to: MachineId) -> Duration {
        let state = self.state.lock();
        let slow = state.slow.get(&(from, to)).copied().unwrap_or(0);
        Duration::from_millis(self.random.below(state.delay_max_ms + 1) + slow)
    }
}

/// Disturbing the network.
impl SimNetwork {
    /// The same machine's network for a life of its process.
    pub(super) fn of_life(&self, life: Arc<Life>) -> SimNetwork {
        self.hub.change(|state| {
            let machine = &mut state.machines[self.machine];
            (machine.life, machine.has_power) = (Some(life.clone()), true);
        });
        SimNetwork { hub: self.hub.clone(), machine: self.machine, life: Some(life) }
    }

    /// The process is gone: listeners vanish, connections end. Without power nobody is told of the latter before the
    /// machine starts again.
    pub(super) fn die(&self, has_power: bool) {
        self.hub.change(|state| {
            let machine = &mut state.machines[self.machine];
            machine.listeners.clear();
            machine.has_power = has_power;
        });
    }

    /// Whether bytes from this machine arrive at the other one from now on.
    pub fn cut(&self, to: &SimNetwork, cut: bool) {
        let link = (self.machine, to.machine);
        self.hub.change(|state| if cut { state.cut.insert(link) } else { state.cut.remove(&link) });
    }

    /// How much longer bytes from this machine to the other one take than usual, ms.
    pub fn slow_down(&self, to: &SimNetwork, ms: u64) {
        self.hub.change(|state| state.slow.insert((self.machine, to.machine), ms));
    }

    /// Ends all connections of this machine, as a fault on the way does; its process and listeners stay.
    pub fn reset_connections(&self) {
        self.hub.change(|state| state.machines[self.machine].broken += 1);
    }
}

/// Where a connection begins or ends.
#[derive(Clone)]
struct End {
    machine: MachineId,
    life: Option<Arc<Life>>,
    /// What [`Machine::broken`] was when the connection was made.
    broken: u64,
}

impl End {
    fn of(state: &HubState, machine: MachineId) -> End {
        let Machine { life, broken, .. } = &state.machines[machine];
        End { machine, life: life.clone(), broken: *broken }
    }

    fn has_died(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.has_ended())
    }

    fn runs(&self) -> bool {
        self.life.as_ref().is_none_or(|life| life.is_running())
    }
}

/// The way of bytes between two machines.
struct Wire {
    hub: Arc<Hub>,
    client: End,
    server: End,
}

impl Wire {
    fn is_whole(&self) -> bool {
        let state = self.hub.state.lock();
        let whole = |end: &End| !end.has_died() && state.machines[end.machine].broken == end.broken;
        whole(&self.client) && whole(&self.server)
    }

    /// Carries bytes until an end closes or the connection breaks.
    async fn run(self, mut near: DuplexStream, mut far: DuplexStream, accept: impl Future<Output = bool>) {
        let ((near_read, near_write), (far_read, far_write)) =
            (tokio::io::split(&mut near), tokio::io::split(&mut far));
        let (client, server) = (&self.client, &self.server);
        let carry = async {
            self.passable(client, server).await;
            if accept.await {
                let there = self.carry(near_read, far_write, client, server);
                let back = self.carry(far_read, near_write, server, client);
                // Where one direction fails, the other has nobody to serve.
                let _ = futures::future::try_join(there, back).await;
            }
        };
        tokio::select! {
            biased;
            () = until(&self.hub.changed, || !self.is_whole()) => {}
            () = carry => {}
        }
        self.bury([near, far]).await;
    }

    /// Completes when bytes pass from one end to the other.
    async fn passable(&self, from: &End, to: &End) {
        let link = (from.machine, to.machine);
        let passes = || from.runs() && to.runs() && !self.hub.state.lock().cut.contains(&link);
        until(&self.hub.changed, passes).await;
    }

    async fn carry(
        &self,
        mut source: impl AsyncRead + Unpin,
        mut target: impl AsyncWrite + Unpin,
        from: &End,
        to: &End,
    ) -> io::Result<()> {
        let mut buffer = vec![0; PIPE_BYTES];
        loop {
            // So that a connection may break anywhere in a message.
            let most = 1 + self.hub.random.below(PIPE_BYTES as u64) as usize;
            let count = source.read(&mut buffer[..most]).await?;
            let delay = self.hub.delay(from.machine, to.machine);
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            self.passable(from, to).await;
            if count == 0 {
                return target.shutdown().await;
            }
            target.write_all(&buffer[..count]).await?;
        }
    }

    /// Ends at processes that are gone stay as they are; the others are closed, as soon as they can know.
    async fn bury(self, pipes: [DuplexStream; 2]) {
        let mut left = Vec::new();
        let mut silent = Vec::new();
        for (end, pipe) in [&self.client, &self.server].into_iter().zip(pipes) {
            if end.has_died() {
                silent.push(end.machine);
                self.hub.state.lock().graves.push(pipe);
            } else {
                left.push(pipe);
            }
        }
        for machine in silent {
            until(&self.hub.changed, || self.hub.state.lock().machines[machine].has_power).await;
        }
        drop(left);
    }
}

impl Network for SimNetwork {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            self.live().await;
            let mut state = self.hub.state.lock();
            state.next_listener += 1;
            let id = state.next_listener;
            let machine = &mut state.machines[self.machine];
            let port = if address.port() == 0 { machine.free_port(address.ip())? } else { address.port() };
            let address = SocketAddr::new(address.ip(), port);
            if machine.listeners.contains_key(&address) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let (sender, connections) = mpsc::channel(BACKLOG);
            machine.listeners.insert(address, Open { id, connections: sender });
            let (hub, machine) = (self.hub.clone(), self.machine);
            let listener: Box<dyn Listener> =
                Box::new(SimListener { id, address, connections, hub, machine });
            Ok(listener)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            self.live().await;
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let server = *self.resolve(address).await?.first().ok_or_else(refused)?;
            let target = self.machine_at(server.ip()).ok_or(io::ErrorKind::HostUnreachable)?;
            if target != self.machine {
                let reached = tokio::time::timeout(CONNECT_PATIENCE, self.reach(target)).await;
                reached.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
            }
            let (sender, client, wire) = {
                let mut state = self.hub.state.lock();
                let sender = state.machines[target].listener(server).ok_or_else(refused)?;
                let sender = sender.connections.clone();
                let machine = &mut state.machines[self.machine];
                let ip = if target == self.machine { Ipv4Addr::LOCALHOST } else { machine.ip };
                let client = SocketAddr::new(ip.into(), machine.free_port(ip.into())?);
                let (near, far) = (End::of(&state, self.machine), End::of(&state, target));
                (sender, client, Wire { hub: self.hub.clone(), client: near, server: far })
            };
            let stream = |pipe, local| SimStream { pipe, local };
            let (near, own_end) = tokio::io::duplex(PIPE_BYTES);
            if target == self.machine {
                sender.send((stream(own_end, server), client)).await.map_err(|_| refused())?;
            } else {
                let (far, their_end) = tokio::io::duplex(PIPE_BYTES);
                let accept = async move { sender.send((stream(far, server), client)).await.is_ok() };
                tokio::spawn(wire.run(own_end, their_end, accept));
            }
            let near: Box<dyn Stream> = Box::new(stream(near, client));
            Ok(near)
        })
    }

    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            if let Ok(address) = address.parse() {
                return Ok(vec![address]);
            }
            let parts = address.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?)));
            let (name, port) = parts.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            let state = self.hub.state.lock();
            let named = state.machines.iter().find(|machine| machine.name == name);
            let ip = named.map_or(Ipv4Addr::LOCALHOST, |machine| machine.ip);
            Ok(vec![SocketAddr::new(ip.into(), port)])
        })
    }
}

impl SimNetwork {
    /// Completes when whoever asks lives, at once or never.
    async fn live(&self) {
        if let Some(life) = &self.life {
            life.running().await;
        }
    }

    fn machine_at(&self, ip: IpAddr) -> Option<MachineId> {
        if ip.is_loopback() || ip.is_unspecified() {
            return Some(self.machine);
        }
        self.hub.state.lock().machines.iter().position(|machine| IpAddr::V4(machine.ip) == ip)
    }

    /// Completes when the other machine answers.
    async fn reach(&self, target: MachineId) {
        let answers = || {
            let state = self.hub.state.lock();
            let cut = |from, to| state.cut.contains(&(from, to));
            state.machines[target].has_power && !cut(self.machine, target) && !cut(target, self.machine)
        };
        tokio::time::sleep(self.hub.delay(self.machine, target)).await;
        until(&self.hub.changed, answers).await;
        self.live().await;
    }
}

struct SimListener {
    id: u64,
    address: SocketAddr,
    connections: mpsc::Receiver<(SimStream, SocketAddr)>,
    hub: Arc<Hub>,
    machine: MachineId,
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let listeners = &mut self.hub.state.lock().machines[self.machine].listeners;
        // One of a life that ended may be there again.
        if listeners.get(&self.address).is_some_and(|open| open.id == self.id) {
            listeners.remove(&self.address);
        }
    }
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async move {
            let Some((stream, peer)) = self.connections.recv().await else {
                // The life of this listener ended.
                return std::future::pending().await;
            };
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

    fn network() -> SimNetwork {
        Arc::new(Hub::new(1)).plug("alone")
    }

    #[tokio::test]
    async fn bytes_travel_both_ways_until_an_end_closes() {
        let network = network();
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
        let network = network();
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
