//! The metadata store of a node that is no controller: follows one of them, and keeps nothing on disk.
//!
//! ```text
//!  a controller's feed: image, then every entry ─► the same state machine ─► image
//!  propose ─► queue ─► the leading controller ─► index of the entry ─► its results, once it came through the feed
//! ```
//!
//! Invariants: images follow one another in the order of the log, whichever controller sends them; results are those of
//! applying the entry here; what comes from a controller is bounded. Where a feed ends the next controller is asked for
//! what comes after it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::env::{BoxFuture, Env, Stream};
use base::ids::{BrokerId, Incarnation};
use parking_lot::Mutex;

use super::answer::redirect;
use super::beats::Beats;
use super::entry::Batch;
use super::group::{ASK_AGAIN_AFTER, Attempt, Group, LEADER_PATIENCE, NO_LEADER};
use super::machine::{IMAGE_BYTES_MAX, apply_batch};
use super::messages::{PeerRequest, PeerResponse};
use super::open::MetadataOpenError;
use super::peers::{NOBODY, RETRY_AFTER, Speaker, WHOEVER, read_frame, write_frame};
use super::queue::{Queue, Sink};
use super::results::Results;
use crate::command::{Command, CommandResult};
use crate::image::Image;
use crate::record::decode_image;
use crate::sessions::Sessions;
use crate::store::{MetadataStore, ProposeError, QuorumState, VoterState};
use crate::watch;

/// Most voters that a controller may name.
const VOTERS_MAX: usize = 64;
/// A controller that sent nothing for so long is left.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// A controller that knows of no leader for so long is left: others may know one.
const LEADERLESS_MAX: Duration = Duration::from_secs(3);
/// So long without a controller is told of.
const PROBLEM_AFTER: Duration = Duration::from_secs(3);
/// From this `metadata.version` on new nodes are given numbers.
const NUMBERS_ARE_GIVEN: i16 = 2;
/// How often it is told that opening waits.
const WAIT_TOLD_EVERY: Duration = Duration::from_secs(5);

/// See the module's head.
pub struct FollowerStore {
    queue: Queue,
    follower: Arc<Follower>,
    ended: watch::Sender<bool>,
}

/// The image, and the index of the first entry that it does not show.
#[derive(Default)]
struct State {
    image: Image,
    next: u64,
}

/// What there is to say of the controllers.
struct Contact {
    /// When all was well last: one of them sent metadata, or knew who leads.
    well_at: Duration,
    /// What went wrong last.
    trouble: String,
    /// Why nothing is followed any more.
    failure: Option<String>,
}

struct Follower {
    env: Env,
    /// As given, `host:port`.
    controllers: Vec<String>,
    state: Mutex<State>,
    published: watch::Sender<Arc<Image>>,
    leader: watch::Sender<Option<u64>>,
    contact: Mutex<Contact>,
    group: Group,
    beats: Arc<Beats>,
    ended: watch::Receiver<bool>,
}

impl FollowerStore {
    /// Follows the controllers at these addresses, `host:port` (at least one; the others are learnt from it), for the
    /// node `node`, which is none of them. Returns once an image is there; until then controllers are waited for.
    ///
    /// # Errors
    /// [`MetadataOpenError::Raft`] when `node` is negative, no address is given, or the metadata is of a later version.
    /// Anything else, such as a `node` that is a controller's, is waited for and told in the log.
    pub async fn open(
        env: Env,
        node: BrokerId,
        controllers: Vec<String>,
    ) -> Result<FollowerStore, MetadataOpenError> {
        FollowerStore::open_as(env, super::raft_id(node)?, controllers).await
    }

    async fn open_as(
        env: Env,
        id: u64,
        controllers: Vec<String>,
    ) -> Result<FollowerStore, MetadataOpenError> {
        if controllers.is_empty() {
            return Err(MetadataOpenError::Raft("no controller is named".to_owned()));
        }
        let ended = watch::Sender::new(false);
        let follower = Arc::new(Follower::new(env.clone(), id, controllers, ended.subscribe()));
        let queue = Queue::new(follower.clone(), Some(env.random_uuid()));
        let store = FollowerStore { queue, follower: follower.clone(), ended };
        tokio::spawn(follower.clone().run());
        let mut images = store.subscribe();
        while store.image().cluster_id.is_zero() {
            tokio::select! {
                biased;
                changed = images.changed() => changed.expect("the store has the other end"),
                () = env.clock.sleep(WAIT_TOLD_EVERY) => {
                    let contact = follower.contact.lock();
                    if let Some(failure) = &contact.failure {
                        return Err(MetadataOpenError::Raft(failure.clone()));
                    }
                    tracing::warn!("waiting for a controller: {}", contact.trouble);
                }
            }
        }
        Ok(store)
    }
}

/// Has the controllers at these addresses, or those that a broker there tells of, give a new node a number. Waits for them.
///
/// # Errors
/// [`MetadataOpenError::Raft`] when no address is given, the metadata is of a later version, or of one in which nodes are
/// not given numbers, or none is left.
pub async fn allocate_node_id(env: Env, controllers: Vec<String>) -> Result<BrokerId, MetadataOpenError> {
    let store = FollowerStore::open_as(env.clone(), NOBODY, controllers).await?;
    let failed = |why: &dyn std::fmt::Display| MetadataOpenError::Raft(why.to_string());
    let version = store.image().metadata_version();
    if version < NUMBERS_ARE_GIVEN {
        return Err(failed(&format!(
            "the cluster is at metadata.version {version}, at which new nodes are given no numbers: set node.id, or raise \
             the version"
        )));
    }
    let id = loop {
        let voters = store.follower.beats.voters();
        let above = voters.keys().filter_map(|id| i32::try_from(*id).ok()).max().unwrap_or(-1);
        match store.propose(Command::AllocateBrokerId { above: BrokerId(above) }).await {
            Ok(CommandResult::FirstId(id)) => break i32::try_from(id).map_err(|error| failed(&error))?,
            Ok(other) => return Err(failed(&format!("no number was given: {other:?}"))),
            Err(error) => tracing::warn!(%error, "waiting for a controller that gives this node a number"),
        }
        env.clock.sleep(RETRY_AFTER).await;
    };
    store.shutdown().await;
    Ok(BrokerId(id))
}

impl Follower {
    fn new(env: Env, node: u64, controllers: Vec<String>, ended: watch::Receiver<bool>) -> Follower {
        let published = watch::Sender::new(Arc::<Image>::default());
        let images = published.subscribe();
        let speaker = Speaker { env: env.clone(), node, images, voters: Arc::default() };
        let trouble = format!("none of {} was reached yet", controllers.join(", "));
        Follower {
            contact: Mutex::new(Contact { well_at: env.clock.now(), trouble, failure: None }),
            env,
            controllers,
            state: Mutex::default(),
            published,
            leader: watch::Sender::new(None),
            group: Group::new(speaker.clone(), Arc::<Results>::default()),
            beats: Beats::new(speaker, ended.clone()),
            ended,
        }
    }

    /// Follows one controller after the other until the store ends.
    async fn run(self: Arc<Self>) {
        let mut at = (self.env.random.next_u64() % self.controllers.len() as u64) as usize;
        let mut ended = self.ended.clone();
        loop {
            let address = self.address(at);
            let began = self.env.clock.now();
            let left = tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => return,
                left = self.follow(&address) => left,
            };
            let Err(error) = left;
            {
                let mut contact = self.contact.lock();
                contact.trouble = format!("{address}: {error}");
                if contact.failure.is_some() {
                    return;
                }
            }
            match self.env.clock.now().saturating_sub(began) > SILENCE_MAX {
                true => tracing::warn!(controller = address, %error, "a controller is followed no more"),
                false => tracing::debug!(controller = address, %error, "a controller cannot be followed"),
            }
            at = at.wrapping_add(1);
            self.env.clock.sleep(RETRY_AFTER).await;
        }
    }

    /// One of the controllers: those that were named and those that were learnt, round and round.
    fn address(&self, at: usize) -> String {
        let mut addresses = self.controllers.clone();
        addresses.extend(self.beats.voters().into_values().filter(|voter| !self.controllers.contains(voter)));
        addresses.swap_remove(at % addresses.len())
    }

    /// Follows a controller for as long as it is one to follow; says why it is none any more.
    async fn follow(&self, address: &str) -> io::Result<std::convert::Infallible> {
        let mut stream = self.group.speaker.dial(address, WHOEVER).await?;
        let next = self.state.lock().next;
        write_frame(&mut *stream, &PeerRequest::Follow { next }.encode()).await?;
        let mut led_at = self.env.clock.now();
        loop {
            match self.read(&mut *stream).await? {
                PeerResponse::Voters(voters) if voters.contains_key(&self.group.speaker.node) => {
                    let why = "the node.id of this node is that of a controller; give it one of its own";
                    return Err(io::Error::other(why));
                }
                PeerResponse::Voters(mut voters) if voters.len() <= VOTERS_MAX => {
                    // The only controller does not know by which address others reach it; it is the one that was dialled.
                    let unnamed = voters.values_mut().filter(|voter| voter.is_empty());
                    unnamed.for_each(|voter| address.clone_into(voter));
                    self.beats.set_voters(voters);
                }
                PeerResponse::Image { next, bytes } => self.take_image(&mut *stream, next, bytes).await?,
                PeerResponse::Entries(entries) => {
                    self.apply(&entries)?;
                    self.contact.lock().well_at = self.env.clock.now();
                }
                PeerResponse::Alive(leader) => {
                    let now = self.env.clock.now();
                    // Who waits hears of changes alone.
                    self.leader.send_if_modified(|known| std::mem::replace(known, leader) != leader);
                    if leader.is_some() {
                        led_at = now;
                        self.contact.lock().well_at = now;
                    } else if now.saturating_sub(led_at) > LEADERLESS_MAX {
                        return Err(io::Error::other(NO_LEADER));
                    }
                }
                PeerResponse::Failed(why) => return Err(io::Error::other(why)),
                _ => return Err(io::Error::other("it sends what does not belong in a feed")),
            }
        }
    }

    async fn read(&self, stream: &mut dyn Stream) -> io::Result<PeerResponse> {
        let frame = tokio::select! {
            biased;
            frame = read_frame(stream) => frame?.ok_or(io::ErrorKind::UnexpectedEof)?,
            () = self.env.clock.sleep(SILENCE_MAX) => return Err(io::ErrorKind::TimedOut.into()),
        };
        PeerResponse::decode(&frame).map_err(io::Error::other)
    }

    /// Takes in an image that shows every entry before `next`.
    async fn take_image(&self, stream: &mut dyn Stream, next: u64, bytes: u64) -> io::Result<()> {
        if bytes > IMAGE_BYTES_MAX {
            let why = format!("an image of {bytes} bytes is not taken in, {IMAGE_BYTES_MAX} are the most");
            return Err(io::Error::other(why));
        }
        // Grows as parts come.
        let mut encoded = Vec::new();
        while (encoded.len() as u64) < bytes {
            match self.read(stream).await? {
                PeerResponse::Part(part) => {
                    encoded.extend_from_slice(&part);
                    self.contact.lock().well_at = self.env.clock.now();
                }
                _ => return Err(io::Error::other("it sends something else than the rest of an image")),
            }
        }
        if encoded.len() as u64 != bytes {
            return Err(io::Error::other("it sends more of an image than it said"));
        }
        let image = self.env.blocking(move || decode_image(&encoded)).await;
        let image =
            image.map_err(|error| self.unreadable(&format!("the image before entry {next}"), &error))?;
        let mut state = self.state.lock();
        let known = state.image.cluster_id;
        if next < state.next || image.version < state.image.version {
            return Err(io::Error::other("its image is older than what this node has"));
        }
        if !known.is_zero() && image.cluster_id != known {
            return Err(io::Error::other(format!("it belongs to cluster {}, not {known}", image.cluster_id)));
        }
        *state = State { image, next };
        self.publish(&state);
        Ok(())
    }

    fn apply(&self, entries: &[(u64, Batch)]) -> io::Result<()> {
        let mut state = self.state.lock();
        for (index, batch) in entries {
            if *index != state.next {
                let why = format!("entry {index} comes where {} was expected", state.next);
                return Err(io::Error::other(why));
            }
            let outcome = apply_batch(&mut state.image, *index, batch);
            let outcome = outcome.map_err(|error| self.unreadable(&format!("entry {index}"), &error))?;
            self.group.results.note(*index, outcome);
            state.next += 1;
        }
        self.publish(&state);
        Ok(())
    }

    fn publish(&self, state: &State) {
        self.published.send_replace(Arc::new(state.image.clone()));
        self.group.results.publish(state.next.checked_sub(1));
    }

    /// Follows no more: images would differ from those of others.
    fn unreadable(&self, what: &str, error: &dyn std::fmt::Display) -> io::Error {
        let why = format!(
            "{what} of the metadata cannot be read: {error}; it is of a later version: start that version here"
        );
        tracing::error!("{why}");
        self.contact.lock().failure.get_or_insert(why.clone());
        io::Error::other(why)
    }

    fn problem(&self) -> Option<String> {
        let contact = self.contact.lock();
        if let Some(failure) = &contact.failure {
            return Some(failure.clone());
        }
        let silent = self.env.clock.now().saturating_sub(contact.well_at);
        (silent > PROBLEM_AFTER).then(|| {
            format!(
                "no controller that follows a leader could be reached for {} s ({}); start a majority of them, or mend \
                 the network",
                silent.as_secs(),
                contact.trouble
            )
        })
    }

    /// Completes when it is heard from now on that another one than `id` leads.
    async fn replaced(&self, id: u64) {
        let mut leader = self.leader.subscribe();
        loop {
            if leader.changed().await.is_err() {
                std::future::pending().await
            }
            if leader.borrow_and_update().is_some_and(|leader| leader != id) {
                return;
            }
        }
    }

    async fn propose(&self, batch: Batch) -> Result<Vec<CommandResult>, String> {
        let deadline = self.env.clock.now() + LEADER_PATIENCE;
        let mut hint = None;
        loop {
            let leader = hint.take().or(*self.leader.borrow());
            let voters: BTreeMap<u64, String> = self.beats.voters();
            let attempt = match leader.and_then(|id| Some((id, voters.get(&id)?))) {
                Some((id, address)) => {
                    self.group.forward_until(self.replaced(id), id, address, batch.clone()).await
                }
                None => Attempt::Again(None),
            };
            match attempt {
                Attempt::Done(results) => return Ok(results),
                Attempt::Unknown(why) => return Err(why),
                Attempt::Lost(why) if !self.group.may_repeat() || self.env.clock.now() >= deadline => {
                    return Err(why);
                }
                Attempt::Lost(_) => self.env.clock.sleep(ASK_AGAIN_AFTER).await,
                Attempt::Again(_) if self.env.clock.now() >= deadline => return Err(NO_LEADER.to_owned()),
                Attempt::Again(other) => {
                    hint = other.filter(|other| Some(*other) != leader);
                    self.env.clock.sleep(ASK_AGAIN_AFTER).await;
                }
            }
        }
    }
}

impl Sink for Follower {
    fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    fn write(&self, batch: Batch) -> BoxFuture<'_, Result<Vec<CommandResult>, String>> {
        let mut ended = self.ended.clone();
        Box::pin(async move {
            if let Some(failure) = self.contact.lock().failure.clone() {
                return Err(failure);
            }
            tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => Err("it was shut down".to_owned()),
                written = self.propose(batch) => written,
            }
        })
    }
}

impl MetadataStore for FollowerStore {
    fn image(&self) -> Arc<Image> {
        self.follower.published.borrow().clone()
    }

    fn propose(&self, command: Command) -> BoxFuture<'_, Result<CommandResult, ProposeError>> {
        self.queue.propose(&command)
    }

    fn subscribe(&self) -> watch::Receiver<Arc<Image>> {
        self.follower.published.subscribe()
    }

    fn problem(&self) -> Option<String> {
        self.follower.problem()
    }

    fn controller(&self) -> Option<BrokerId> {
        let leader = *self.follower.leader.borrow();
        i32::try_from(leader?).ok().map(BrokerId)
    }

    fn quorum(&self) -> QuorumState {
        let voter = |(id, address): (u64, String)| {
            Some(VoterState { id: BrokerId(i32::try_from(id).ok()?), address: Some(address), log_end: None })
        };
        QuorumState {
            leader: self.controller(),
            term: None,
            applied: self.follower.state.lock().next,
            voters: self.follower.beats.voters().into_iter().filter_map(voter).collect(),
        }
    }

    fn ask_quorum(&self) -> BoxFuture<'_, QuorumState> {
        let known = self.quorum();
        Box::pin(async move { self.follower.group.ask_ends(known, &self.follower.beats.voters()).await })
    }

    fn heartbeat(
        &self,
        broker: BrokerId,
        incarnation: Incarnation,
    ) -> BoxFuture<'_, Result<(), ProposeError>> {
        Box::pin(self.follower.beats.beat(broker, incarnation))
    }

    fn serve_node(&self, stream: Box<dyn Stream>) -> BoxFuture<'static, io::Result<()>> {
        let (speaker, voters) = (self.follower.group.speaker.clone(), self.follower.beats.voters());
        Box::pin(async move { redirect(&speaker, stream, voters).await })
    }

    fn sessions(&self) -> Option<Sessions> {
        None
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        self.ended.send_replace(true);
        Box::pin(std::future::ready(()))
    }
}

impl Drop for FollowerStore {
    fn drop(&mut self) {
        self.ended.send_replace(true);
    }
}
