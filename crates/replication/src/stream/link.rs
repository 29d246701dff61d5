//! The leader's side: at most one connection to each broker that holds copies of what this one leads.
//!
//! ```text
//! push ──wake──► list of pushes ─► round robin ─► one write for many ─► member
//! fence, pull ─► requests ───────────────┘                               │
//! sinks, answers ◄───────────────────────────────────────────────────────┘
//! ```
//!
//! A connection is made when somebody needs it, made anew with pauses while somebody does, and given up when nobody has
//! for a while. Where a broker is and which life it lives is asked for each attempt ([`Directory`]).
//!
//! Invariants: a push is in the list at most once; what was sent and not acknowledged stays below [`CREDIT_BYTES`], but
//! for one frame; a request is answered once, or times out.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::env::{Env, Stream};
use base::ids::{BrokerId, Incarnation, Offset, StorageId, Uuid};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use super::frame::{FrameReader, send};
use super::message::{
    BrokerLife, ConfirmRequest, FenceRequest, FenceResult, FetchRequest, Hello, MAGIC, Message, MessageError,
    PullRequest, PullResult, PushKind, Refusal, VERSION,
};
use super::push::{Outgoing, Push, PushSink, PushSource, PushTarget, Refused, Wire};
use super::sender;

/// Bytes that are sent to one broker and not acknowledged, at most; one frame more may be on its way.
pub const CREDIT_BYTES: usize = 16 << 20;
/// Of these so many may be of one push.
pub const PUSH_CREDIT_BYTES: usize = 4 << 20;
/// Time for connecting and saying hello.
const HELLO_TIME: Duration = Duration::from_secs(3);
/// Pause after the first failure to connect; doubled with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// `host:port`.
    pub host_port: String,
    /// The life it lives.
    pub incarnation: Incarnation,
}

/// Knows where the brokers are.
pub trait Directory: Send + Sync {
    /// Where a broker is now; `None` for one that is not known or not there.
    fn peer(&self, broker: BrokerId) -> Option<PeerAddress>;
}

/// What [`Links`] is made of.
pub struct LinksSpec {
    /// The world.
    pub env: Env,
    /// The cluster.
    pub cluster: Uuid,
    /// This broker's present life.
    pub life: BrokerLife,
    /// Where the others are.
    pub directory: Arc<dyn Directory>,
}

/// Why a request has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// Not in time; with what kept the broker from being reached last, if anything did.
    #[error("broker {broker} did not answer in time{}", last.as_ref().map(|last| format!(": {last}")).unwrap_or_default())]
    TimedOut {
        /// The broker.
        broker: BrokerId,
        /// The last failure to reach it.
        last: Option<Arc<str>>,
    },
    /// A broker did not fetch what it was asked to.
    #[error("broker {0} did not fetch it: {1}")]
    NotFetched(BrokerId, String),
    /// The copy was refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// What is asked for makes a longer frame than may be.
    #[error(transparent)]
    TooLong(#[from] MessageError),
    /// [`Links`] was dropped.
    #[error("the connections were closed")]
    Closed,
}

/// All connections of this broker as a leader. Dropping it closes them.
pub struct Links {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) spec: LinksSpec,
    runtime: Handle,
    links: Mutex<BTreeMap<BrokerId, Arc<Link>>>,
    next_push: AtomicU64,
    next_request: AtomicU64,
    next_connection: AtomicU64,
    closed: AtomicBool,
}

/// What is needed of one broker.
pub(super) struct Link {
    pub(super) peer: BrokerId,
    needs: Mutex<Needs>,
    /// Something was listed.
    pub(super) filled: Notify,
}

#[derive(Default)]
struct Needs {
    /// All that live.
    pushes: BTreeMap<u64, Arc<Outgoing>>,
    /// Those to be looked at.
    listed: VecDeque<Arc<Outgoing>>,
    /// Those that were dropped: they are not in the list, because they wait for no credit but give theirs back.
    dropped: Vec<Arc<Outgoing>>,
    /// Those that are not answered.
    requests: BTreeMap<u64, Request>,
    /// Those of them that are not sent on the present connection.
    unsent: VecDeque<u64>,
    is_running: bool,
    last_failure: Option<Arc<str>>,
}

struct Request {
    frame: Vec<u8>,
    answer: oneshot::Sender<Message>,
    /// What is asked for takes its time: a silence means nothing.
    is_slow: bool,
}

impl Links {
    /// Connections of the broker of this life. Called in the runtime that is to run them.
    pub fn new(spec: LinksSpec) -> Links {
        Links {
            shared: Arc::new(Shared {
                spec,
                runtime: Handle::current(),
                links: Mutex::default(),
                next_push: AtomicU64::new(0),
                next_request: AtomicU64::new(0),
                next_connection: AtomicU64::new(1),
                closed: AtomicBool::new(false),
            }),
        }
    }

    /// Begins to push a segment to a member of its ensemble, from what it says it holds. Goes on until the [`Push`] is
    /// dropped or `sink` hears that it was refused.
    pub fn push(&self, target: PushTarget, source: Arc<dyn PushSource>, sink: Arc<dyn PushSink>) -> Push {
        self.begin(target, PushKind::Member, Offset::MAX, source, sink)
    }

    fn begin(
        &self,
        target: PushTarget,
        kind: PushKind,
        limit: Offset,
        source: Arc<dyn PushSource>,
        sink: Arc<dyn PushSink>,
    ) -> Push {
        let link = self.shared.link(target.broker);
        let outgoing = Arc::new(Outgoing {
            id: self.shared.next_push.fetch_add(1, Ordering::Relaxed),
            target,
            kind,
            limit,
            source,
            sink,
            listed: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            wire: Mutex::new(Wire::new()),
        });
        {
            let mut needs = link.needs.lock();
            needs.pushes.insert(outgoing.id, outgoing.clone());
            // So that waking one never allocates.
            let count = needs.pushes.len();
            needs.listed.reserve(count);
        }
        link.list(&outgoing);
        self.shared.run(&link);
        Push { link, outgoing }
    }

    /// Asks a storage to promise an epoch and tell what it holds. Asked again on every connection until it is answered.
    ///
    /// # Errors
    /// [`LinkError`]; the storage may have promised all the same.
    pub async fn fence(
        &self,
        broker: BrokerId,
        fence: FenceRequest,
        patience: Duration,
    ) -> Result<FenceResult, LinkError> {
        let ask = |request| Message::Fence(request, Box::new(fence));
        match self.ask(broker, ask, patience, false).await? {
            Message::FenceAnswer(_, result) => Ok(result),
            _ => Ok(FenceResult::Unknown),
        }
    }

    /// Asks a member of an open segment whether it would still take records from this leader: nothing, or why not.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn confirm(
        &self,
        broker: BrokerId,
        confirm: ConfirmRequest,
        patience: Duration,
    ) -> Result<Option<Refusal>, LinkError> {
        let ask = |request| Message::Confirm(request, confirm);
        match self.ask(broker, ask, patience, false).await? {
            Message::Confirmed(_, refusal) => Ok(refusal),
            _ => Err(LinkError::Closed),
        }
    }

    /// Asks for bytes of a segment.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn pull(
        &self,
        broker: BrokerId,
        pull: PullRequest,
        patience: Duration,
    ) -> Result<PullResult, LinkError> {
        let ask = |request| Message::Pull(request, Box::new(pull));
        match self.ask(broker, ask, patience, false).await? {
            Message::Pulled(_, result) => Ok(result),
            _ => Ok(PullResult::Unknown),
        }
    }

    /// Has a broker fetch a sealed segment from this one, for one of its storages.
    ///
    /// # Errors
    /// [`LinkError`]; the segment may be there all the same.
    pub async fn have_fetched(
        &self,
        broker: BrokerId,
        fetch: FetchRequest,
        patience: Duration,
    ) -> Result<(), LinkError> {
        let ask = |request| Message::Fetch(request, Box::new(fetch));
        match self.ask(broker, ask, patience, true).await? {
            Message::Fetched(_, None) => Ok(()),
            Message::Fetched(_, Some(reason)) => Err(LinkError::NotFetched(broker, reason)),
            _ => Err(LinkError::Closed),
        }
    }

    /// Copies everything below `end`, which `source` has, to a storage that need not be a member, and which promises the
    /// target's epoch. Returns once the storage acknowledged it.
    ///
    /// # Errors
    /// [`LinkError`]; a part may have been copied.
    pub async fn copy_up(
        &self,
        target: PushTarget,
        source: Arc<dyn PushSource>,
        end: Offset,
        patience: Duration,
    ) -> Result<(), LinkError> {
        let (broker, clock) = (target.broker, self.shared.spec.env.clock.clone());
        let (done, is_done) = oneshot::channel();
        let sink = Arc::new(UpTo { end, done: Mutex::new(Some(done)) });
        let push = self.begin(target, PushKind::CopyUp, end, source, sink);
        tokio::select! {
            biased;
            done = is_done => done.unwrap_or(Ok(())).map_err(LinkError::Refused),
            () = clock.sleep(patience) => Err(push.link.timed_out(broker)),
        }
    }

    async fn ask(
        &self,
        broker: BrokerId,
        ask: impl FnOnce(u64) -> Message,
        patience: Duration,
        is_slow: bool,
    ) -> Result<Message, LinkError> {
        let link = self.shared.link(broker);
        let number = self.shared.next_request.fetch_add(1, Ordering::Relaxed);
        let mut frame = Vec::new();
        ask(number).encode(&mut frame)?;
        let (answer, answered) = oneshot::channel();
        {
            let mut needs = link.needs.lock();
            needs.requests.insert(number, Request { frame, answer, is_slow });
            needs.unsent.push_back(number);
        }
        let _asked = Asked { link: &link, number };
        link.filled.notify_one();
        self.shared.run(&link);
        tokio::select! {
            biased;
            answer = answered => answer.map_err(|_| LinkError::Closed),
            () = self.shared.spec.env.clock.sleep(patience) => Err(link.timed_out(broker)),
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        for link in self.shared.links.lock().values() {
            let mut needs = link.needs.lock();
            needs.requests.clear();
            needs.unsent.clear();
            drop(needs);
            link.filled.notify_one();
        }
    }
}

/// A request that somebody waits for.
struct Asked<'a> {
    link: &'a Link,
    number: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.link.needs.lock().requests.remove(&self.number);
    }
}

/// Waits for a copy to be whole.
struct UpTo {
    end: Offset,
    done: Mutex<Option<oneshot::Sender<Result<(), Refused>>>>,
}

impl UpTo {
    fn tell(&self, result: Result<(), Refused>) {
        if let Some(done) = self.done.lock().take() {
            // Who waited may have gone away.
            let _ = done.send(result);
        }
    }
}

impl PushSink for UpTo {
    fn acked(&self, _: StorageId, end: Offset, _: Option<Duration>) {
        if end >= self.end {
            self.tell(Ok(()));
        }
    }

    fn refused(&self, _: StorageId, refused: Refused) {
        self.tell(Err(refused));
    }

    fn lost(&self, _: StorageId) {}
}

impl Link {
    /// Lists a push to be looked at, once.
    pub(super) fn list(&self, outgoing: &Arc<Outgoing>) {
        if !outgoing.listed.swap(true, Ordering::AcqRel) {
            self.needs.lock().listed.push_back(outgoing.clone());
            self.filled.notify_one();
        }
    }

    /// The push that was listed first. What changes from now on lists it anew.
    pub(super) fn next_listed(&self) -> Option<Arc<Outgoing>> {
        let outgoing = self.needs.lock().listed.pop_front()?;
        outgoing.listed.swap(false, Ordering::AcqRel);
        Some(outgoing)
    }

    /// A push was dropped; the member is told.
    pub(super) fn forget(&self, outgoing: &Arc<Outgoing>) {
        let mut needs = self.needs.lock();
        needs.pushes.remove(&outgoing.id);
        if needs.is_running {
            needs.dropped.push(outgoing.clone());
            drop(needs);
            self.filled.notify_one();
        }
    }

    /// The pushes that were dropped since the last call.
    pub(super) fn take_dropped(&self) -> Vec<Arc<Outgoing>> {
        std::mem::take(&mut self.needs.lock().dropped)
    }

    /// A push is over.
    pub(super) fn refuse(&self, outgoing: &Arc<Outgoing>, refused: Refused) {
        self.needs.lock().pushes.remove(&outgoing.id);
        if !outgoing.is_over.swap(true, Ordering::AcqRel) {
            outgoing.sink.refused(outgoing.target.storage, refused);
        }
    }

    /// Appends requests that were not sent, until there are so many bytes; false when there was none.
    pub(super) fn take_requests(&self, frames: &mut Vec<u8>, bytes_max: usize) -> bool {
        let mut needs = self.needs.lock();
        let Needs { requests, unsent, .. } = &mut *needs;
        let before = frames.len();
        while frames.len() < bytes_max
            && let Some(number) = unsent.pop_front()
        {
            // It may have timed out.
            if let Some(request) = requests.get(&number) {
                frames.extend_from_slice(&request.frame);
            }
        }
        frames.len() > before
    }

    /// Hands an answer to who asked, if that one still waits.
    pub(super) fn answer(&self, number: u64, answer: Message) {
        let request = self.needs.lock().requests.remove(&number);
        if let Some(request) = request {
            // It may have timed out just now.
            let _ = request.answer.send(answer);
        }
    }

    /// Whether anybody waits for an answer that is soon given.
    pub(super) fn has_requests(&self) -> bool {
        self.needs.lock().requests.values().any(|request| !request.is_slow)
    }

    /// Whether anybody needs the connection.
    pub(super) fn is_needed(&self) -> bool {
        let needs = self.needs.lock();
        !needs.pushes.is_empty() || !needs.requests.is_empty()
    }

    /// Lists everything for a connection that begins.
    pub(super) fn begin_anew(&self) {
        let pushes: Vec<_> = {
            let mut needs = self.needs.lock();
            needs.unsent = needs.requests.keys().copied().collect();
            needs.pushes.values().cloned().collect()
        };
        pushes.iter().for_each(|outgoing| self.list(outgoing));
        self.filled.notify_one();
    }

    /// Tells all who do not know yet that the broker cannot be reached.
    fn tell_lost(&self, failure: &io::Error) {
        let pushes: Vec<_> = {
            let mut needs = self.needs.lock();
            needs.last_failure = Some(failure.to_string().into());
            needs.pushes.values().cloned().collect()
        };
        for outgoing in pushes {
            if !std::mem::replace(&mut outgoing.wire.lock().told_lost, true) {
                outgoing.sink.lost(outgoing.target.storage);
            }
        }
    }

    fn timed_out(&self, broker: BrokerId) -> LinkError {
        LinkError::TimedOut { broker, last: self.needs.lock().last_failure.clone() }
    }

    /// Whether the task may end: nobody needs it. Who does from now on starts it anew.
    fn rest(&self) -> bool {
        let mut needs = self.needs.lock();
        let is_needed = !needs.pushes.is_empty() || !needs.requests.is_empty();
        if !is_needed {
            needs.is_running = false;
            needs.dropped.clear();
            for outgoing in needs.listed.drain(..) {
                outgoing.listed.store(false, Ordering::Release);
            }
        }
        !is_needed
    }
}

impl Shared {
    fn link(&self, peer: BrokerId) -> Arc<Link> {
        let new = || Arc::new(Link { peer, needs: Mutex::default(), filled: Notify::new() });
        self.links.lock().entry(peer).or_insert_with(new).clone()
    }

    /// Makes sure that a task cares for the link.
    fn run(self: &Arc<Self>, link: &Arc<Link>) {
        if !std::mem::replace(&mut link.needs.lock().is_running, true) {
            let (shared, link): (Weak<Shared>, _) = (Arc::downgrade(self), link.clone());
            self.runtime.spawn(async move { care(shared, link).await });
        }
    }

    pub(super) fn next_connection(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// A connection to the broker, that has said hello.
    async fn connect(&self, peer: BrokerId) -> io::Result<Box<dyn Stream>> {
        let LinksSpec { env, cluster, life, directory } = &self.spec;
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "nobody knows where it is");
        let PeerAddress { host_port, incarnation } = directory.peer(peer).ok_or_else(unknown)?;
        let to = BrokerLife { broker: peer, incarnation };
        let hello = Hello { version: VERSION, cluster: *cluster, from: *life, to };
        let say_hello = async {
            let mut stream = env.network.connect(&host_port).await?;
            send(&mut *stream, &MAGIC, &Message::Hello(hello)).await?;
            match FrameReader::new(&mut *stream).message().await? {
                Some(Message::Welcome) => Ok(stream),
                Some(Message::Refused(reason, text)) => {
                    let text = format!("it turned this broker away ({reason:?}): {text}");
                    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
                }
                Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "its first frame is no answer")),
                None => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        tokio::select! {
            biased;
            result = say_hello => result,
            () = env.clock.sleep(HELLO_TIME) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// How long to wait after so many failures: random, so that brokers do not all call at once.
    fn pause(&self, failures: u32) -> Duration {
        let most = PAUSE_MIN.saturating_mul(1 << failures.min(10)).min(PAUSE_MAX);
        let half_us = most.as_micros() as u64 / 2;
        Duration::from_micros(half_us + self.spec.env.random.next_u64() % half_us.max(1))
    }
}

/// Keeps a connection while somebody needs it.
async fn care(shared: Weak<Shared>, link: Arc<Link>) {
    let mut failures = 0;
    loop {
        let Some(shared) = shared.upgrade().filter(|shared| !shared.is_closed()) else { return };
        if link.rest() {
            return;
        }
        let result = match shared.connect(link.peer).await {
            Ok(stream) => {
                let ended = sender::run(&shared, &link, stream).await;
                if ended.heard_anything {
                    failures = 0;
                }
                ended.result
            }
            Err(error) => Err(error),
        };
        if shared.is_closed() {
            return;
        }
        let Err(error) = result else { continue };
        tracing::debug!(broker = link.peer.0, %error, "no connection to a broker that holds copies");
        link.tell_lost(&error);
        let pause = shared.pause(failures);
        failures = failures.saturating_add(1);
        let clock = shared.spec.env.clock.clone();
        drop(shared);
        clock.sleep(pause).await;
    }
}
