//! openraft's state machine over the pure one: applies entries, publishes images, keeps snapshots.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::env::Env;
use openraft::storage::RaftStateMachine;
use openraft::{
    BasicNode, Entry, EntryPayload, ErrorSubject, ErrorVerb, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot,
    SnapshotMeta, StorageError, StorageIOError, StoredMembership,
};
use tokio::sync::watch;

use super::entry::{Meta, decode_snapshot, encode_snapshot, snapshot_id};
use super::{MetadataOpenError, SNAPSHOT_BYTES_MAX, TypeConfig};
use crate::command::CommandResult;
use crate::control;
use crate::image::Image;
use crate::record::{decode_image, encode_image};

type Failure = StorageError<u64>;
type Stored = StoredMembership<u64, BasicNode>;

/// See the module's head. Clones of its parts build snapshots.
pub(super) struct Machine {
    env: Env,
    path: PathBuf,
    image: Image,
    applied: Option<LogId<u64>>,
    membership: Stored,
    published: watch::Sender<Arc<Image>>,
}

impl Machine {
    /// Begins with the snapshot in the directory, if there is one.
    pub(super) fn open(env: &Env, dir: &Path) -> Result<Machine, MetadataOpenError> {
        let mut machine = Machine {
            env: env.clone(),
            path: dir.join("snapshot"),
            image: Image::default(),
            applied: None,
            membership: Stored::default(),
            published: watch::Sender::new(Arc::default()),
        };
        if env.disk.exists(&machine.path) {
            let bytes = env
                .disk
                .read(&machine.path, SNAPSHOT_BYTES_MAX)
                .map_err(|source| MetadataOpenError::Io { dir: dir.to_owned(), source })?;
            let damaged = |what: String| MetadataOpenError::Damaged { dir: dir.to_owned(), what };
            let (meta, image) = read_file(&bytes).map_err(|what| damaged(format!("snapshot: {what}")))?;
            machine.take_over(&meta, image);
        }
        Ok(machine)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Image>> {
        self.published.subscribe()
    }

    fn take_over(&mut self, meta: &Meta, image: Image) {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.image = image;
        self.published.send_replace(Arc::new(self.image.clone()));
    }

    fn builder(&self) -> Builder {
        let meta = Meta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: snapshot_id(self.applied),
        };
        Builder { env: self.env.clone(), path: self.path.clone(), image: self.image.clone(), meta }
    }
}

/// The file: CRC, then the record.
fn read_file(bytes: &[u8]) -> Result<(Meta, Image), String> {
    let (crc, rest) = bytes.split_first_chunk::<4>().ok_or("it is too short")?;
    if crc_fast::crc32_iscsi(rest) != u32::from_be_bytes(*crc) {
        return Err("its CRC does not fit".to_owned());
    }
    let (meta, image) = decode_snapshot(rest).map_err(|error| error.to_string())?;
    Ok((meta, decode_image(&image).map_err(|error| error.to_string())?))
}

fn fault(verb: ErrorVerb, error: impl std::error::Error + 'static) -> Failure {
    StorageIOError::new(ErrorSubject::StateMachine, verb, openraft::AnyError::new(&error)).into()
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId<u64>>, Stored), Failure> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<CommandResult>, Failure>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut results = Vec::new();
        for entry in entries {
            self.applied = Some(entry.log_id);
            results.push(match entry.payload {
                EntryPayload::Blank => CommandResult::Done,
                EntryPayload::Normal(command) => control::apply(&mut self.image, command),
                EntryPayload::Membership(membership) => {
                    self.membership = Stored::new(Some(entry.log_id), membership);
                    CommandResult::Done
                }
            });
        }
        self.published.send_replace(Arc::new(self.image.clone()));
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
        let (disk, path) = (self.env.disk.clone(), self.path.clone());
        let read = move || if disk.exists(&path) { disk.read(&path, SNAPSHOT_BYTES_MAX).map(Some) } else { Ok(None) };
        let bytes = self.env.blocking(read).await.map_err(|error| fault(ErrorVerb::Read, error))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let damaged = |what: String| fault(ErrorVerb::Read, std::io::Error::other(what));
        let (meta, image) = read_file(&bytes).map_err(damaged)?;
        Ok(Some(Snapshot { meta, snapshot: Box::new(Cursor::new(encode_image(&image))) }))
    }
}

/// Writes one snapshot: an image and what it covers, both taken when it was made.
pub(super) struct Builder {
    env: Env,
    path: PathBuf,
    image: Image,
    meta: Meta,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, Failure> {
        let (disk, path, image, meta) =
            (self.env.disk.clone(), self.path.clone(), self.image.clone(), self.meta.clone());
        let write = move || {
            let image = encode_image(&image);
            let record = encode_snapshot(&meta, image.clone());
            let crc = crc_fast::crc32_iscsi(&record).to_be_bytes();
            disk.replace(&path, &[&crc[..], &record].concat()).map(|()| image)
        };
        let image = self.env.blocking(write).await.map_err(|error| fault(ErrorVerb::Write, error))?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: Box::new(Cursor::new(image)) })
    }
}
