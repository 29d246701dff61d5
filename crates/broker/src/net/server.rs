//! Listeners: accepting, counting, draining.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use base::config::{HostPort, Listener as ListenerConfig};
use base::env::{Env, Listener, Stream};
use base::metrics::NodeMetrics;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::account::MemoryBudget;
use super::activity::{Activity, Register, Verdict};
use super::connection::{Connection, End, Parting};
use super::lanes;
use super::lifecycle::DrainSignal;
use super::limits::{ACCEPT_PAUSE_MAX, ACCEPT_PAUSE_MIN, BALANCE_INTERVAL, CHECK_INTERVAL, Limits};
use super::notices::{Kind, Notices};
use super::{AnswerPace, ConnectionInfo, InputEnd, ListenerInfo, Service};

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listener {name} cannot listen on {address}: {source}")]
pub struct BindError {
    /// Name of the listener.
    pub name: String,
    /// The address as configured.
    pub address: String,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

/// What a server is made with.
#[derive(Debug)]
pub struct ServerOptions {
    /// Where to listen.
    pub listeners: Vec<ListenerConfig>,
    /// Limits to begin with.
    pub limits: Limits,
    /// Shared by all connections; the service may look at it to bound its answers.
    pub budget: Arc<MemoryBudget>,
    /// Begins the end: nothing is accepted, read or started any more.
    pub drain: DrainSignal,
    /// Where HTTP is served, for those who try it on a Kafka port.
    pub http_address: Option<String>,
    /// Where connections are counted.
    pub metrics: NodeMetrics,
}

/// What all connections of a server share.
pub(super) struct Shared<S> {
    pub(super) env: Env,
    /// Handed to each new connection. Given up at the end of a drain: the service may own this server.
    service: Mutex<Option<Arc<S>>>,
    pub(super) limits: ArcSwap<Limits>,
    pub(super) budget: Arc<MemoryBudget>,
    pub(super) drain: DrainSignal,
    pub(super) http_address: Option<String>,
    pub(super) metrics: NodeMetrics,
    register: Register,
    notices: Notices,
    population: Population,
    next_connection: AtomicU64,
    busy: Mutex<Busy>,
}

/// Connections there are, by address.
#[derive(Debug, Default)]
struct Population {
    by_address: Mutex<Counts>,
    /// Told when one leaves.
    left: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Listeners and their connections.
pub struct Server<S: Service> {
    shared: Arc<Shared<S>>,
    bound: Vec<(String, SocketAddr)>,
}

impl<S: Service> Server<S> {
    /// Opens all listeners and begins to serve, in tasks of the current runtime, until `options.drain` says
    /// otherwise.
    ///
    /// # Errors
    /// One of the listeners cannot be opened; then none is.
    pub async fn start(env: Env, options: ServerOptions, service: Arc<S>) -> Result<Server<S>, BindError> {
        let mut opened = Vec::new();
        for config in options.listeners {
            let failed =
                |source| BindError { name: config.name.clone(), address: config.bind.to_string(), source };
            let listener = listen(&env, &config.bind).await.map_err(failed)?;
            let address = listener.local_address().map_err(failed)?;
            opened.push((
                ListenerInfo { name: config.name, advertised: config.advertised },
                address,
                listener,
            ));
        }
        options.metrics.connections_max.set(options.limits.connections_max as i64);
        let lanes = env.network.lanes();
        let shared = Arc::new(Shared {
            env,
            service: Mutex::new(Some(service)),
            limits: ArcSwap::from_pointee(options.limits),
            budget: options.budget,
            drain: options.drain,
            http_address: options.http_address,
            metrics: options.metrics,
            register: Register::default(),
            notices: Notices::default(),
            population: Population::default(),
            next_connection: AtomicU64::new(1),
            busy: Mutex::new(Busy { shares: vec![0.0; lanes], ..Busy::default() }),
        });
        let bound = opened.iter().map(|(info, address, _)| (info.name.clone(), *address)).collect();
        for (mut info, address, listener) in opened {
            // Port 0 in `advertised.listeners` stands for the port the system gave.
            if let Some(advertised) = info.advertised.as_mut().filter(|advertised| advertised.port == 0) {
                advertised.port = address.port();
            }
            tracing::info!(listener = info.name, %address, "listening");
            tokio::spawn(accept_all(shared.clone(), listener, Arc::new(info)));
        }
        tokio::spawn(check_all(shared.clone()));
        tokio::spawn(balance_all(shared.clone()));
        Ok(Server { shared, bound })
    }

    /// Names of the listeners and the addresses they really listen on.
    pub fn listeners(&self) -> &[(String, SocketAddr)] {
        &self.bound
    }

    /// Connections open at the moment.
    pub fn connections(&self) -> usize {
        self.shared.population.by_address.lock().total
    }

    /// Replaces the limits. Those on frames count for connections opened from now on, the budget of memory
    /// stays.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.metrics.connections_max.set(limits.connections_max as i64);
        self.shared.limits.store(Arc::new(limits));
        self.shared.population.left.notify_waiters();
    }

    /// Waits until all connections are gone after the drain has begun; those that are left after `patience`
    /// are cut off. Returns how many those were.
    pub async fn drained(&self, patience: Duration) -> usize {
        self.shared.drain.draining().await;
        let cut_off = tokio::select! {
            biased;
            () = self.all_left() => 0,
            () = self.shared.env.clock.sleep(patience) => {
                let cut_off = self.connections();
                self.shared.register.condemn_all(Verdict::Stopped);
                self.all_left().await;
                cut_off
            }
        };
        self.shared.service.lock().take();
        cut_off
    }

    async fn all_left(&self) {
        loop {
            let left = self.shared.population.left.notified();
            if self.connections() == 0 {
                return;
            }
            left.await;
        }
    }
}

/// Opens a listening socket. An empty host means every interface, over IPv6 and IPv4 where the system has both.
async fn listen(env: &Env, bind: &HostPort) -> io::Result<Box<dyn Listener>> {
    if bind.host.is_empty() {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, bind.port));
        return match env.network.listen(any).await {
            Ok(listener) => Ok(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
            Err(_) => env.network.listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, bind.port))).await,
        };
    }
    let addresses = env.network.resolve(&bind.to_string()).await?;
    // Clients that are told a name try IPv4 first or only.
    let chosen = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    let chosen = chosen.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?;
    env.network.listen(*chosen).await
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Looks for connections that stand still until the last one has gone after a drain.
async fn check_all<S: Service>(shared: Arc<Shared<S>>) {
    let mut told = false;
    while !(told && shared.population.by_address.lock().total == 0) {
        tokio::select! {
            biased;
            () = shared.env.clock.sleep(CHECK_INTERVAL) => {}
            () = shared.drain.draining(), if !told => {
                told = true;
                shared.register.wake_all();
            }
        }
        let limits = shared.limits.load();
        let in_work =
            shared.register.check(shared.env.clock.now(), limits.idle_max, shared.budget.is_spent());
        shared.metrics.requests_waiting.set(in_work as i64);
        shared.metrics.request_bytes_queued.set(shared.budget.held() as i64);
    }
}

async fn accept_all<S: Service>(
    shared: Arc<Shared<S>>,
    mut listener: Box<dyn Listener>,
    info: Arc<ListenerInfo>,
) {
    let mut pause = ACCEPT_PAUSE_MIN;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.drain.draining() => return,
            accepted = async {
                shared.room_for_one().await;
                listener.accept().await
            } => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = ACCEPT_PAUSE_MIN;
                shared.welcome(stream, canonical(peer), &info);
            }
            Err(error) if is_peers_fault(&error) => {}
            Err(error) => {
                // No file descriptors or memory: waiting lets connections end; spinning would take the thread.
                let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                if shared.notices.is_due(nobody, Kind::AcceptFailed, shared.env.clock.now()) {
                    tracing::error!(
                        listener = info.name, %error,
                        "cannot accept connections, trying on: is the limit of open files too low?"
                    );
                }
                shared.env.clock.sleep(pause).await;
                pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
            }
        }
    }
}

/// Errors of `accept` that concern one connection, which is gone already.
fn is_peers_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::Interrupted
    )
}

impl<S: Service> Shared<S> {
    /// Waits while as many are open as may be; further ones queue up in the system, as with Kafka.
    async fn room_for_one(&self) {
        loop {
            let left = self.population.left.notified();
            let limit = self.limits.load().connections_max;
            if self.population.by_address.lock().total < limit {
                return;
            }
            let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            if self.notices.is_due(nobody, Kind::TooManyAtAll, self.env.clock.now()) {
                tracing::warn!(
                    limit,
                    "as many connections are open as max.connections, the limit of open files and \
                     vltava.memory.limit allow: no more are accepted until one closes"
                );
            }
            left.await;
        }
    }

    /// Begins to serve a new connection, or closes it.
    fn welcome(self: &Arc<Self>, stream: Box<dyn Stream>, peer: SocketAddr, listener: &Arc<ListenerInfo>) {
        let limit = self.limits.load().connections_from(peer.ip());
        let Some(place) = Place::take(self, peer.ip(), limit) else {
            self.metrics.connections_refused.inc();
            if self.notices.is_due(peer.ip(), Kind::TooManyFromAddress, self.env.clock.now()) {
                tracing::warn!(peer = %peer.ip(), limit, "too many connections from one address: closed the newest");
            }
            return;
        };
        let Some(service) = self.service.lock().clone() else { return };
        // An address that cannot be told means that the connection is gone; its first read will say so.
        let local = stream.local_address().map_or(peer, canonical);
        let id = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let listener = listener.clone();
        let info = Arc::new(ConnectionInfo {
            id,
            peer,
            local,
            listener,
            software: OnceLock::new(),
            input_end: InputEnd::default(),
            answers: AnswerPace::default(),
        });
        self.metrics.connections_accepted.inc();
        let registered = Registered::new(self, id);
        let activity = registered.activity.clone();
        activity.settle_on(lanes::place(&self.busy.lock().shares));
        let connection = Connection::new(stream, info.clone(), self.clone(), service, activity);
        // Dropped at the end, also when the task panics.
        serve(Guest { info, registered, _place: place }, connection);
    }

    /// Writes the log line about the end of a connection.
    fn tell(&self, info: &ConnectionInfo, end: &End) {
        let kind = match end {
            End::Finished => return,
            End::Failed(error) => {
                tracing::debug!(peer = %info.peer, %error, "connection lost");
                return;
            }
            End::Condemned(verdict) => {
                if verdict.is_expiry() {
                    self.metrics.connections_idle_closed.inc();
                }
                if !verdict.is_notable() {
                    tracing::debug!(peer = %info.peer, reason = verdict.explanation(), "connection closed");
                    return;
                }
                Kind::Stalled
            }
            End::Refused(_) => Kind::Refused,
            End::BadFrame(_) => {
                self.metrics.connections_malformed.inc();
                Kind::BadFrame
            }
            End::Stranger(stranger) => {
                self.metrics.connections_malformed.inc();
                stranger.kind()
            }
        };
        if !self.notices.is_due(info.peer.ip(), kind, self.env.clock.now()) {
            return;
        }
        let (peer, listener) = (info.peer, info.listener.name.as_str());
        match end {
            End::Refused(reason) => tracing::info!(%peer, listener, %reason, "closed a connection"),
            End::BadFrame(size) => tracing::info!(
                %peer, listener, size,
                "closed a connection: no frame has this size (socket.request.max.bytes)"
            ),
            End::Stranger(stranger) => tracing::warn!(%peer, listener, "{}", stranger.explanation()),
            End::Condemned(verdict) => {
                tracing::info!(%peer, listener, reason = verdict.explanation(), "closed a connection");
            }
            End::Finished | End::Failed(_) => {}
        }
    }
}

/// What there is of a connection beside itself, for as long as it is there.
struct Guest<S: Service> {
    info: Arc<ConnectionInfo>,
    registered: Registered<S>,
    _place: Place<S>,
}

/// Serves a connection on its lane, and on the others it moves to.
fn serve<S: Service>(guest: Guest<S>, connection: Connection<S>) {
    let lane = guest.registered.activity.is_to_move().unwrap_or(guest.registered.activity.lane());
    guest.registered.activity.settle_on(lane);
    let network = guest.registered.shared.env.network.clone();
    network.spawn_on(
        lane,
        Box::pin(async move {
            match connection.run().await {
                Parting::End(end) => guest.registered.shared.tell(&guest.info, &end),
                Parting::Move(connection) => serve(guest, *connection),
            }
        }),
    );
}

/// How busy the lanes were lately.
#[derive(Debug, Default)]
struct Busy {
    looked_at: Duration,
    /// How long each had worked by then.
    worked: Vec<Duration>,
    /// The share of its time each worked before that.
    shares: Vec<f64>,
}

/// Keeps connections on as few lanes as can serve them well.
async fn balance_all<S: Service>(shared: Arc<Shared<S>>) {
    let lanes = shared.env.network.lanes();
    while lanes > 1 && !shared.drain.is_draining() {
        shared.env.clock.sleep(BALANCE_INTERVAL).await;
        let shares = {
            let mut busy = shared.busy.lock();
            let now = shared.env.clock.now();
            let worked: Vec<Duration> = (0..lanes).map(|lane| shared.env.network.busy(lane)).collect();
            let took = now.saturating_sub(busy.looked_at).as_secs_f64().max(1e-3);
            let share = |(lane, worked): (usize, &Duration)| {
                let before = busy.worked.get(lane).copied().unwrap_or_default();
                worked.saturating_sub(before).as_secs_f64() / took
            };
            let shares: Vec<f64> = worked.iter().enumerate().map(share).collect();
            *busy = Busy { looked_at: now, worked, shares: shares.clone() };
            shares
        };
        shared.register.balance(&shares);
    }
}

/// A connection's place among those that are counted.
struct Place<S: Service> {
    shared: Arc<Shared<S>>,
    address: IpAddr,
}

impl<S: Service> Place<S> {
    fn take(shared: &Arc<Shared<S>>, address: IpAddr, limit: usize) -> Option<Place<S>> {
        let mut counts = shared.population.by_address.lock();
        let there = counts.by_address.get(&address).copied().unwrap_or(0);
        if there >= limit {
            return None;
        }
        counts.by_address.insert(address, there + 1);
        counts.total += 1;
        shared.metrics.connections.set(counts.total as i64);
        Some(Place { shared: shared.clone(), address })
    }
}

impl<S: Service> Drop for Place<S> {
    fn drop(&mut self) {
        let mut counts = self.shared.population.by_address.lock();
        counts.total -= 1;
        self.shared.metrics.connections.set(counts.total as i64);
        match counts.by_address.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.by_address.remove(&self.address)),
        }
        drop(counts);
        self.shared.population.left.notify_waiters();
    }
}

/// A connection's entry in the register.
struct Registered<S: Service> {
    shared: Arc<Shared<S>>,
    id: u64,
    activity: Arc<Activity>,
}

impl<S: Service> Registered<S> {
    fn new(shared: &Arc<Shared<S>>, id: u64) -> Registered<S> {
        Registered { shared: shared.clone(), id, activity: shared.register.add(id) }
    }
}

impl<S: Service> Drop for Registered<S> {
    fn drop(&mut self) {
        self.shared.register.remove(self.id);
    }
}
