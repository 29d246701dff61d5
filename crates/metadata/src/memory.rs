//! A metadata store that forgets all when it goes: for tests and brokers without a disk.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::env::{BoxFuture, Env, Stream};
use base::ids::{BrokerId, Incarnation};
use parking_lot::Mutex;

use crate::command::{Command, CommandResult, MetadataVersions};
use crate::control;
use crate::image::Image;
use crate::raft::refuse;
use crate::record::encode_command;
use crate::sessions::{NO_CONNECTION, Sessions, Table};
use crate::store::{MetadataStore, ProposeError, QuorumState, VoterState, check_length};
use crate::watch;

/// See the module's head.
pub struct MemoryStore {
    image: Mutex<Image>,
    published: watch::Sender<Arc<Image>>,
    table: Mutex<Table>,
    /// Its clock and its node, if it was told.
    home: Option<(Env, BrokerId)>,
}

/// Without a clock, for which no time passes: who was heard was heard just now. Its controller is the first broker.
impl Default for MemoryStore {
    fn default() -> Self {
        let image = Image { metadata_version: MetadataVersions::SUPPORTED.max, ..Image::default() };
        MemoryStore {
            published: watch::Sender::new(Arc::new(image.clone())),
            image: Mutex::new(image),
            table: Mutex::new(Table::alone(Duration::ZERO)),
            home: None,
        }
    }
}

impl MemoryStore {
    /// An empty store of a node, which is the only controller.
    pub fn new(env: Env, node: BrokerId) -> MemoryStore {
        let table = Mutex::new(Table::alone(env.clock.now()));
        MemoryStore { table, home: Some((env, node)), ..MemoryStore::default() }
    }

    /// The same store at an earlier `metadata.version`, as a cluster that is being upgraded has it.
    pub fn at_metadata_version(self, version: i16) -> MemoryStore {
        self.image.lock().metadata_version = version;
        self.published.send_replace(Arc::new(self.image.lock().clone()));
        self
    }

    fn now(&self) -> Duration {
        self.home.as_ref().map_or(Duration::ZERO, |(env, _)| env.clock.now())
    }
}

impl MetadataStore for MemoryStore {
    fn image(&self) -> Arc<Image> {
        self.published.borrow().clone()
    }

    fn propose(&self, command: Command) -> BoxFuture<'_, Result<CommandResult, ProposeError>> {
        if let Err(error) = check_length(&encode_command(&command)) {
            return Box::pin(std::future::ready(Err(error)));
        }
        let mut image = self.image.lock();
        let result = control::apply(&mut image, command);
        self.published.send_replace(Arc::new(image.clone()));
        Box::pin(std::future::ready(Ok(result)))
    }

    fn subscribe(&self) -> watch::Receiver<Arc<Image>> {
        self.published.subscribe()
    }

    fn problem(&self) -> Option<String> {
        None
    }

    fn controller(&self) -> Option<BrokerId> {
        let first = || self.image().brokers().next().map(|broker| broker.registration.broker);
        self.home.as_ref().map(|(_, node)| *node).or_else(first)
    }

    fn quorum(&self) -> QuorumState {
        let (leader, applied) = (self.controller(), self.image().version);
        let voter = |id| VoterState { id, address: None, log_end: Some(applied) };
        QuorumState { leader, term: Some(0), applied, voters: leader.into_iter().map(voter).collect() }
    }

    fn heartbeat(
        &self,
        broker: BrokerId,
        incarnation: Incarnation,
    ) -> BoxFuture<'_, Result<(), ProposeError>> {
        self.table.lock().note(broker, incarnation, NO_CONNECTION, self.now());
        Box::pin(std::future::ready(Ok(())))
    }

    fn serve_node(&self, stream: Box<dyn Stream>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(refuse(stream, "this node keeps its metadata in memory: no other node can join it"))
    }

    fn sessions(&self) -> Option<Sessions> {
        self.table.lock().sessions(self.now())
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
