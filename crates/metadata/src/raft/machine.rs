//! openraft's state machine over the pure one: applies entries, publishes images, keeps snapshots.
//!
//! A snapshot is built on a worker from an image that shares all with the present one, so that proposals
//! go on meanwhile. A full disk delays it; the log grows until there is room.

use std::io::Cursor;
use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{
    BasicNode, Entry, EntryPayload, ErrorSubject, ErrorVerb, LogId, OptionalSend, RaftSnapshotBuilder,
    Snapshot, SnapshotMeta, StorageError, StorageIOError, StoredMembership,
};

use super::TypeConfig;
use super::entry::{Batch, Meta, decode_snapshot, encode_snapshot, snapshot_id};
use super::feed::{Feed, Shown};
use super::home::{self, FileError, Home, Kind, Phase};
use super::results::Results;
use crate::command::CommandResult;
use crate::control;
use crate::image::Image;
use crate::proposals::Novelty;
use crate::record::{RecordError, decode_command, decode_image, encode_image};
use crate::watch;

/// Longest encoded image that is taken in from another node, bytes.
pub(super) const IMAGE_BYTES_MAX: u64 = 1 << 30;
/// Longest snapshot file, bytes.
const SNAPSHOT_BYTES_MAX: usize = 1 << 32;
const SNAPSHOT: &str = "snapshot";
/// From this `metadata.version` on a proposal that has a name is applied once.
pub(super) const NAMED_PROPOSALS: i16 = 2;

type Failure = StorageError<u64>;
type Stored = StoredMembership<u64, BasicNode>;

/// See the module's head.
pub(super) struct Machine {
    home: Arc<Home>,
    image: Image,
    applied: Option<LogId<u64>>,
    membership: Stored,
    published: watch::Sender<Arc<Image>>,
    shared: Shared,
}

/// What a machine tells others than those who look at images.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) results: Arc<Results>,
    pub(super) feed: Arc<Feed>,
}

impl Machine {
    /// Begins with the snapshot in the directory, if there is one. For a node that is the `only` voter.
    pub(super) fn open(home: &Arc<Home>, only: bool) -> Result<Machine, FileError> {
        let results = Arc::new(if only { Results::none() } else { Results::default() });
        let feed = match only {
            true => Feed::while_followed(home.limits.feed_entries),
            false => Feed::new(home.limits.feed_entries),
        };
        let mut machine = Machine {
            home: home.clone(),
            image: Image::default(),
            applied: None,
            membership: Stored::default(),
            published: watch::Sender::new(Arc::default()),
            shared: Shared { results, feed: Arc::new(feed) },
        };
        if let Some((meta, image)) = read_snapshot(home)? {
            machine.take_over(&meta, image);
        }
        Ok(machine)
    }

    /// What others see of it.
    pub(super) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Image>> {
        self.published.subscribe()
    }

    /// The last entry in the image.
    pub(super) fn applied(&self) -> Option<LogId<u64>> {
        self.applied
    }

    /// Voters as the snapshot knows them; `None` before there were any.
    pub(super) fn voters(&self) -> Option<Vec<u64>> {
        let voters: Vec<u64> = self.membership.membership().voter_ids().collect();
        (!voters.is_empty()).then_some(voters)
    }

    fn take_over(&mut self, meta: &Meta, image: Image) {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.image = image;
        self.publish();
    }

    /// Shows the image to all who look at it.
    fn publish(&self) {
        let image = Arc::new(self.image.clone());
        self.published.send_replace(image.clone());
        let Shared { results, feed } = &self.shared;
        results.publish(self.applied.map(|id| id.index));
        feed.publish(Shown { next: self.applied.map_or(0, |id| id.index + 1), image });
    }

    /// Stops the store: an entry means nothing to this version.
    fn unreadable(&self, index: u64, error: RecordError) -> Failure {
        self.home.fail(format!(
            "entry {index} of the log in {} cannot be applied: {error}; it is damaged or of a later version: start the \
             version that wrote it, or restore the directory from a copy",
            self.home.dir.display(),
        ));
        fault(ErrorVerb::Read, error)
    }

    fn builder(&self) -> Builder {
        let meta = Meta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: snapshot_id(self.applied),
        };
        Builder { home: self.home.clone(), image: self.image.clone(), meta }
    }
}

/// What an entry came to.
pub(super) enum Outcome {
    Applied(Vec<CommandResult>),
    /// It was applied before, as this entry, or is too late; then nothing happened.
    Repeated(Option<u64>),
}

/// Applies the commands of an entry, unless they were applied before.
pub(super) fn apply_batch(image: &mut Image, index: u64, batch: &Batch) -> Result<Outcome, RecordError> {
    if let Some(id) = batch.id.filter(|_| image.metadata_version() >= NAMED_PROPOSALS) {
        match image.proposers.note(id, index) {
            Novelty::New => {}
            Novelty::Repeat(first) => return Ok(Outcome::Repeated(Some(first))),
            Novelty::Late => return Ok(Outcome::Repeated(None)),
        }
    }
    let results = batch.commands.iter().map(|command| Ok(control::apply(image, decode_command(command)?)));
    results.collect::<Result<_, _>>().map(Outcome::Applied)
}

fn read_snapshot(home: &Home) -> Result<Option<(Meta, Image)>, FileError> {
    let path = home.dir.join(SNAPSHOT);
    let Some(bytes) = home::read(&*home.env.disk, &path, Kind::Snapshot, SNAPSHOT_BYTES_MAX)? else {
        return Ok(None);
    };
    let read = decode_snapshot(&bytes).and_then(|(meta, image)| Ok((meta, decode_image(&image)?)));
    read.map(Some).map_err(|error| FileError::damaged(&path, 0, error.to_string()))
}

fn fault(verb: ErrorVerb, error: impl std::error::Error + 'static) -> Failure {
    StorageIOError::new(ErrorSubject::StateMachine, verb, openraft::AnyError::new(&error)).into()
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId<u64>>, Stored), Failure> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Option<Vec<CommandResult>>>, Failure>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut results = Vec::new();
        for entry in entries {
            self.applied = Some(entry.log_id);
            let index = entry.log_id.index;
            let mut commands = Batch::default();
            let outcome = match entry.payload {
                EntryPayload::Blank => Outcome::Applied(Vec::new()),
                EntryPayload::Normal(batch) => {
                    commands = batch;
                    apply_batch(&mut self.image, index, &commands)
                        .map_err(|error| self.unreadable(index, error))?
                }
                EntryPayload::Membership(membership) => {
                    self.membership = Stored::new(Some(entry.log_id), membership);
                    Outcome::Applied(Vec::new())
                }
            };
            results.push(self.shared.results.note(index, outcome));
            self.shared.feed.add(index, commands);
        }
        self.publish();
        Ok(results)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, Failure> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), Failure> {
        let image = decode_image(snapshot.get_ref()).map_err(|error| fault(ErrorVerb::Read, error))?;
        self.take_over(meta, image);
        self.builder().build_snapshot().await.map(drop)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, Failure> {
        let home = self.home.clone();
        let read = self.home.env.blocking(move || read_snapshot(&home)).await;
        let Some((meta, image)) = read.map_err(|error| fault(ErrorVerb::Read, error))? else {
            return Ok(None);
        };
        Ok(Some(Snapshot { meta, snapshot: Box::new(Cursor::new(encode_image(&image))) }))
    }
}

/// Writes one snapshot: an image and what it covers, both taken when it was made.
pub(super) struct Builder {
    home: Arc<Home>,
    image: Image,
    meta: Meta,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, Failure> {
        let _building = self.home.building.lock().await;
        if self.home.phase() == Phase::Ending {
            return Err(fault(ErrorVerb::Write, std::io::Error::other("the store was shut down")));
        }
        let (disk, path) = (self.home.env.disk.clone(), self.home.dir.join(SNAPSHOT));
        let (image, meta) = (self.image.clone(), self.meta.clone());
        let write = move || {
            let image = encode_image(&image);
            home::replace(&*disk, &path, Kind::Snapshot, &encode_snapshot(&meta, image.clone()))?;
            Ok(image)
        };
        let image = self.home.persist(write).await.map_err(|error| fault(ErrorVerb::Write, error))?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: Box::new(Cursor::new(image)) })
    }
}
