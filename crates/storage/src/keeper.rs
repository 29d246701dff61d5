//! What goes on behind: checkpoints, room, removed files, and finding what lies on the disk.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::env::OpenMode;

use crate::error::StorageError;
use crate::layout::{SegmentName, parse_partition_dir, parse_segment_dir};
use crate::space::{Fullness, fullness, reserve_bytes};
use crate::storage::Storage;

/// Time between two rounds of housekeeping.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(500);

/// Removed directories that wait for being deleted.
#[derive(Default)]
pub(crate) struct Trash {
    waiting: VecDeque<PathBuf>,
    running: bool,
}

impl Storage {
    /// The storage's background work; spawn it once. Ends after [`Storage::shutdown_clean`].
    pub async fn run(self: Arc<Self>) {
        while !self.is_closed() {
            self.env.clock.sleep(HOUSEKEEPING_INTERVAL).await;
            let storage = self.clone();
            self.env.blocking(move || storage.keep_house()).await;
        }
    }

    /// One round of housekeeping: looks at the room left and writes checkpoints that are due. Blocks.
    pub fn keep_house(self: &Arc<Self>) {
        self.poll_space();
        self.decay_dirty();
        let deferred = std::mem::take(&mut *self.deferred_syncs.lock());
        deferred.iter().for_each(|segment| self.request_sync(segment));
        self.sync_behind_at_rest();
        let listed = std::mem::take(&mut *self.checkpoints.lock());
        for segment in listed.iter().filter_map(Weak::upgrade) {
            if !self.is_closed() && segment.write_pending(false) {
                self.list_checkpoint(&segment);
            }
        }
    }

    /// Looks at the room left and moves between the disk-full states. Cheap.
    pub fn poll_space(&self) {
        let root = self.layout.root();
        let Ok(space) = self.env.disk.space(root) else { return };
        let reserve = reserve_bytes(self.options.reserve_bytes, space);
        let held = self.reserve_held.load(Ordering::Acquire);
        let state = fullness(space, self.options.space, if held { 0 } else { reserve });
        let before = Fullness::from_u8(self.fullness.swap(state as u8, Ordering::AcqRel));
        if state != before {
            let available_bytes = space.available;
            tracing::warn!(dir = %root.display(), ?before, now = ?state, available_bytes, "room on the disk");
        }
        match state {
            Fullness::Full => self.give_up_reserve(),
            Fullness::Roomy if !held && reserve > 0 && self.check_open().is_ok() => {
                let file = self.env.disk.open(&self.layout.reserve(), OpenMode::ReadWrite);
                // Some file systems cannot reserve blocks; then there is no reserve.
                if file.and_then(|file| file.allocate(0, reserve)).is_ok() {
                    self.reserve_held.store(true, Ordering::Release);
                }
            }
            Fullness::Roomy | Fullness::Filling => {}
        }
    }

    /// The disk refused a write for want of room.
    pub(crate) fn out_of_space(&self) -> StorageError {
        let before = self.fullness.swap(Fullness::Full as u8, Ordering::AcqRel);
        if before != Fullness::Full as u8 {
            tracing::error!(dir = %self.dir().display(), "the disk is full");
        }
        self.give_up_reserve();
        StorageError::NoSpace { path: self.layout.root().clone() }
    }

    fn give_up_reserve(&self) {
        if self.reserve_held.swap(false, Ordering::AcqRel) {
            let path = self.layout.reserve();
            if let Err(error) = self.env.disk.remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot give up the reserve");
            }
        }
    }

    /// Deletes what a former life removed or did not finish.
    pub(crate) fn clear_leftovers(self: &Arc<Self>) -> Result<(), StorageError> {
        let list = |dir: PathBuf| {
            let entries = self.env.disk.read_dir(&dir);
            let entries = entries.map_err(|error| StorageError::io("list", &dir, error))?;
            Ok(entries.into_iter().map(move |entry| dir.join(entry.name)))
        };
        for unfinished in list(self.layout.building())? {
            self.discard(&unfinished)?;
        }
        for removed in list(self.layout.trash())? {
            self.delete_behind(removed);
        }
        Ok(())
    }

    /// Takes a directory out of its place and deletes it behind. Nothing happens when it is not there.
    pub(crate) fn discard(self: &Arc<Self>, dir: &Path) -> Result<(), StorageError> {
        let disk = &self.env.disk;
        if !disk.exists(dir) {
            return Ok(());
        }
        let target = self.layout.trash().join(format!("{:016x}", self.env.random.next_u64()));
        disk.rename(dir, &target).map_err(|error| StorageError::io("remove", dir, error))?;
        self.delete_behind(target);
        Ok(())
    }

    fn delete_behind(self: &Arc<Self>, dir: PathBuf) {
        let idle = {
            let mut trash = self.trash.lock();
            trash.waiting.push_back(dir);
            !std::mem::replace(&mut trash.running, true)
        };
        if idle {
            let storage = self.clone();
            // Nobody waits for it, and large files take the kernel a while.
            self.env.background.run(Box::new(move || storage.empty_trash()));
        }
    }

    fn empty_trash(&self) {
        loop {
            let next = {
                let mut trash = self.trash.lock();
                let next = trash.waiting.pop_front();
                trash.running = next.is_some();
                next
            };
            let Some(dir) = next else { return };
            if self.env.disk.exists(&dir)
                && let Err(error) = self.env.disk.remove_dir_all(&dir)
            {
                tracing::warn!(dir = %dir.display(), %error, "cannot delete a removed directory");
            }
        }
    }

    /// Removes a topic's directory once no partition is left in it.
    pub(crate) fn remove_empty_topic(&self, topic: &str) {
        let dir = self.layout.topic(topic);
        let _names = self.names.write();
        if self.remove_if_empty(&dir) {
            self.durable_topics.lock().remove(topic);
        }
    }

    /// Removes a directory if nothing is in it. The caller holds `names`, so that nobody is filling it.
    fn remove_if_empty(&self, dir: &Path) -> bool {
        let disk = &self.env.disk;
        let is_empty = disk.read_dir(dir).is_ok_and(|entries| entries.is_empty());
        if is_empty && let Err(error) = disk.remove_dir_all(dir) {
            tracing::warn!(dir = %dir.display(), %error, "cannot remove an empty directory");
        }
        is_empty
    }

    /// What lies on the disk, for finding segments that no chain lists. Reads directories as it goes.
    pub fn scan(self: &Arc<Self>) -> Scan {
        Scan { storage: self.clone(), todo: vec![Level::Topics], found: Vec::new(), empty: Vec::new() }
    }
}

enum Level {
    Topics,
    Topic(Arc<str>),
    Partition(Arc<str>, PathBuf),
}

/// Iterator over the segments found on disk; see [`Storage::scan`].
pub struct Scan {
    storage: Arc<Storage>,
    todo: Vec<Level>,
    found: Vec<SegmentName>,
    /// Topics with a directory in which nothing was found: the partition's, or its own.
    empty: Vec<(Arc<str>, Option<PathBuf>)>,
}

impl Scan {
    /// Removes the directories in which nothing was found: a power cut can leave them behind a removal. They are
    /// made again when they are needed.
    pub fn remove_empty(&mut self) {
        for (topic, partition) in self.empty.drain(..) {
            if let Some(dir) = partition {
                let _names = self.storage.names.write();
                self.storage.remove_if_empty(&dir);
            }
            self.storage.remove_empty_topic(&topic);
        }
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, StorageError> {
        let entries = self.storage.env.disk.read_dir(dir);
        match entries {
            Ok(entries) => Ok(entries.into_iter().filter(|entry| entry.is_dir).map(|e| e.name).collect()),
            // Removed meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(StorageError::io("list", dir, error)),
        }
    }

    fn expand(&mut self, level: Level) -> Result<(), StorageError> {
        let layout = &self.storage.layout;
        match level {
            Level::Topics => {
                let topics = self.list(&layout.topics())?;
                self.todo.extend(topics.into_iter().map(|topic| Level::Topic(topic.into())));
            }
            Level::Topic(topic) => {
                let dir = layout.topic(&topic);
                let partitions = self.list(&dir)?;
                if partitions.is_empty() {
                    self.empty.push((topic.clone(), None));
                }
                let levels =
                    partitions.into_iter().map(|name| Level::Partition(topic.clone(), dir.join(name)));
                self.todo.extend(levels);
            }
            Level::Partition(topic, dir) => {
                let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let Some(partition) = parse_partition_dir(name) else { return Ok(()) };
                let segments = self.list(&dir)?;
                if segments.is_empty() {
                    self.empty.push((topic.clone(), Some(dir)));
                }
                for segment in segments {
                    if let Some((base, id, generation)) = parse_segment_dir(&segment) {
                        let topic = topic.clone();
                        self.found.push(SegmentName { topic, partition, id, generation, base });
                    }
                }
            }
        }
        Ok(())
    }
}

impl Iterator for Scan {
    type Item = Result<SegmentName, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(name) = self.found.pop() {
                return Some(Ok(name));
            }
            let level = self.todo.pop()?;
            if let Err(error) = self.expand(level) {
                return Some(Err(error));
            }
        }
    }
}
