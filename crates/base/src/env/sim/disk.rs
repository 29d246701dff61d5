//! A file system in memory that knows what would survive a power cut.
//!
//! Every file has two contents: what a reader sees, and what is on the platter. A write changes the
//! first; a sync copies to the second. Every change of a name (create, rename, remove) is pending until
//! its directory is synced. [`SimDisk::crash`] lets a seeded choice of the pending things have
//! happened: sectors of 512 bytes each in one of their versions, lengths in between, names new or old.
//! A failed sync behaves as Linux does: what was to be written counts as clean and is lost.
//!
//! Stricter than real file systems where they differ: a synced file is unreachable until the
//! directories on its path are synced too. One thing is granted, as every journal does: a rename is
//! atomic. Handles and locks of a life that ended ([`SimDisk::kill`], [`SimDisk::crash`]) are dead.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, IoSlice};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;

use super::super::{DirEntry, Disk, File, OpenMode, Space};
use super::SimRandom;

/// What a disk writes as a whole or not at all, bytes.
const SECTOR_BYTES: usize = 512;
/// Versions of one sector between two syncs that a crash may fall back to, besides the newest.
const SECTOR_VERSIONS_MAX: usize = 4;
/// Size of a new disk, bytes.
const DEFAULT_CAPACITY: u64 = 1 << 40;

type NodeId = u64;
type Sector = [u8; SECTOR_BYTES];
const ROOT: NodeId = 0;

/// What becomes of unsynced things when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPolicy {
    /// Everything unsynced is lost.
    LoseAll,
    /// Everything happened to be written.
    KeepAll,
    /// Each sector, length and name on its own, by the seed.
    Random,
}

/// How often the disk was asked to do something, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Writes to files, one for each vectored write.
    pub writes: u64,
    /// Syncs of single files.
    pub file_syncs: u64,
    /// Syncs of directories.
    pub dir_syncs: u64,
    /// Syncs of the whole disk.
    pub full_syncs: u64,
    /// Everything that changes what a crash may leave: the above, and changes of names and lengths.
    pub steps: u64,
    /// Opened files.
    pub opens: u64,
}

/// The disk. All handles made by it share one state.
pub struct SimDisk {
    world: Arc<Mutex<World>>,
    /// The life it was handed to: afterwards nothing works through it. `None` for whoever stands outside.
    life: Option<u64>,
}

#[derive(Default)]
struct Faults {
    /// Counts down with every sync of any kind; the one that reaches 0 fails.
    sync_in: Option<u64>,
    /// Counts down with every write; the one that reaches 0 writes a part and fails with the error.
    write_in: Option<(u64, Errno)>,
    /// Counts down with every read; the one that reaches 0 fails.
    read_in: Option<u64>,
    /// Counts down with every step; from 0 on nothing works until the next life.
    power_in: Option<u64>,
    /// No content is in memory.
    cold: bool,
}

struct World {
    nodes: HashMap<NodeId, Node>,
    next_node: NodeId,
    pending: Vec<NameChange>,
    /// Where each node stands on the platter: directory and name.
    durable_names: HashMap<NodeId, (NodeId, String)>,
    random: SimRandom,
    life: u64,
    boot: u64,
    locks: HashSet<PathBuf>,
    capacity: u64,
    faults: Faults,
    counts: DiskCounts,
}

enum Node {
    Dir(DirNode),
    File(FileNode),
}

#[derive(Default)]
struct DirNode {
    names: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
}

#[derive(Default)]
struct FileNode {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors written since the last sync, with the versions in between, oldest first.
    unsynced: BTreeMap<usize, Vec<Sector>>,
    length_unsynced: bool,
    reserved: u64,
    handles: usize,
}

/// One atomic change of names: directory, name, what it stands for afterwards.
struct NameChange(Vec<(NodeId, String, Option<NodeId>)>);

impl FileNode {
    fn size(&self) -> u64 {
        self.reserved.max(self.content.len() as u64)
    }

    fn sector(bytes: &[u8], index: usize) -> Sector {
        let mut sector = [0; SECTOR_BYTES];
        let start = bytes.len().min(index * SECTOR_BYTES);
        let end = bytes.len().min(start + SECTOR_BYTES);
        sector[..end - start].copy_from_slice(&bytes[start..end]);
        sector
    }

    /// Remembers the versions of the sectors in a range before they change.
    fn touch(&mut self, start: usize, end: usize) {
        for index in start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let before = FileNode::sector(&self.content, index);
            let versions = self.unsynced.entry(index).or_default();
            if versions.len() < SECTOR_VERSIONS_MAX {
                versions.push(before);
            }
        }
    }

    fn write(&mut self, bytes: &[u8], position: usize) {
        let end = position + bytes.len();
        self.touch(position.min(self.content.len()), end);
        if self.content.len() < end {
            self.content.resize(end, 0);
            self.length_unsynced = true;
        }
        self.content[position..end].copy_from_slice(bytes);
    }

    fn set_len(&mut self, length: usize) {
        self.touch(length.min(self.content.len()), length.max(self.content.len()));
        self.content.resize(length, 0);
        self.length_unsynced = true;
    }

    fn sync(&mut self) {
        if self.length_unsynced || self.durable.len() != self.content.len() {
            self.durable.resize(self.content.len(), 0);
        }
        for index in std::mem::take(&mut self.unsynced).into_keys() {
            let start = (index * SECTOR_BYTES).min(self.content.len());
            let end = (start + SECTOR_BYTES).min(self.content.len());
            self.durable[start..end].copy_from_slice(&self.content[start..end]);
        }
        self.length_unsynced = false;
    }

    /// What a failed sync leaves: the kernel takes the pages for clean.
    fn forget_unsynced(&mut self) {
        self.unsynced.clear();
        self.length_unsynced = false;
    }

    fn crash(&mut self, random: &SimRandom, policy: CrashPolicy) {
        match policy {
            CrashPolicy::LoseAll => {}
            CrashPolicy::KeepAll => self.sync(),
            CrashPolicy::Random => self.durable = self.random_outcome(random),
        }
        self.content.clone_from(&self.durable);
        self.unsynced.clear();
        self.length_unsynced = false;
        self.handles = 0;
    }

    fn random_outcome(&self, random: &SimRandom) -> Vec<u8> {
        let (old, new) = (self.durable.len(), self.content.len());
        let length = match (self.length_unsynced, random.below(3)) {
            (false, _) | (true, 0) => old,
            (true, 1) => new,
            _ => old.min(new) + random.below(old.abs_diff(new) as u64 + 1) as usize,
        };
        let mut outcome = self.durable.clone();
        outcome.resize(length, 0);
        for (index, versions) in &self.unsynced {
            let start = index * SECTOR_BYTES;
            if start >= length {
                break;
            }
            let sector = match random.below(3) {
                0 => FileNode::sector(&self.durable, *index),
                1 => versions[random.below(versions.len() as u64) as usize],
                _ => FileNode::sector(&self.content, *index),
            };
            let end = (start + SECTOR_BYTES).min(length);
            outcome[start..end].copy_from_slice(&sector[..end - start]);
        }
        outcome
    }
}

/// The names on a path, without root and dots.
fn components(path: &Path) -> Vec<&str> {
    let normal = path.components().filter_map(|component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    normal.collect()
}

impl World {
    fn step(&mut self) -> io::Result<()> {
        self.counts.steps += 1;
        if let Some(left) = &mut self.faults.power_in {
            if *left == 0 {
                return Err(Errno::IO.into());
            }
            *left -= 1;
        }
        Ok(())
    }

    fn powered(&self) -> io::Result<()> {
        if self.faults.power_in == Some(0) { Err(Errno::IO.into()) } else { Ok(()) }
    }

    fn dir(&self, id: NodeId) -> io::Result<&DirNode> {
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    fn dir_mut(&mut self, id: NodeId) -> io::Result<&mut DirNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    fn file_mut(&mut self, id: NodeId) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(Errno::ISDIR.into()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<NodeId> {
        components(path).into_iter().try_fold(ROOT, |dir, name| {
            self.dir(dir)?.names.get(name).copied().ok_or_else(|| Errno::NOENT.into())
        })
    }

    /// The directory that holds (or would hold) the path's last name, and that name.
    fn parent(&self, path: &Path) -> io::Result<(NodeId, String)> {
        let mut names = components(path);
        let name = names.pop().ok_or_else(|| io::Error::from(Errno::INVAL))?.to_owned();
        let dir = names.into_iter().try_fold(ROOT, |dir, name| {
            self.dir(dir)?.names.get(name).copied().ok_or_else(|| io::Error::from(Errno::NOENT))
        })?;
        self.dir(dir)?;
        Ok((dir, name))
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.next_node += 1;
        self.nodes.insert(self.next_node, node);
        self.next_node
    }

    /// Changes names for readers now and on the platter later.
    fn rename(&mut self, changes: Vec<(NodeId, String, Option<NodeId>)>) -> io::Result<()> {
        self.step()?;
        for (dir, name, after) in &changes {
            let names = &mut self.dir_mut(*dir)?.names;
            match after {
                Some(node) => names.insert(name.clone(), *node),
                None => names.remove(name),
            };
        }
        self.pending.push(NameChange(changes));
        Ok(())
    }

    /// Makes one change durable. A node has one name, so giving it one takes the former away.
    fn settle(&mut self, change: NameChange) {
        for (dir, name, after) in change.0 {
            let former = after.and_then(|node| self.durable_names.insert(node, (dir, name.clone())));
            if let Some((former_dir, former_name)) = former
                && let Ok(holder) = self.dir_mut(former_dir)
                && holder.durable.get(&former_name).copied() == after
            {
                holder.durable.remove(&former_name);
            }
            if let Ok(holder) = self.dir_mut(dir) {
                match after {
                    Some(node) => holder.durable.insert(name, node),
                    None => holder.durable.remove(&name),
                };
            }
        }
    }

    /// Makes every pending change that touches `dir` durable, and those before it on the same names.
    fn settle_dir(&mut self, dir: NodeId) {
        let mut names: HashSet<(NodeId, String)> = HashSet::new();
        let mut chosen = Vec::new();
        let mut rest = Vec::new();
        for change in std::mem::take(&mut self.pending).into_iter().rev() {
            let NameChange(parts) = &change;
            let touches = |part: &(NodeId, String, Option<NodeId>)| {
                part.0 == dir || names.contains(&(part.0, part.1.clone()))
            };
            if parts.iter().any(touches) {
                names.extend(parts.iter().map(|part| (part.0, part.1.clone())));
                chosen.push(change);
            } else {
                rest.push(change);
            }
        }
        rest.reverse();
        self.pending = rest;
        for change in chosen.into_iter().rev() {
            self.settle(change);
        }
    }

    /// Counts a sync that the power lasts for; an error when it is to fail.
    fn sync_fault(&mut self) -> io::Result<()> {
        match &mut self.faults.sync_in {
            Some(0) => {
                self.faults.sync_in = None;
                Err(Errno::IO.into())
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn sync_everything(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            self.settle(change);
        }
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.sync();
            }
        }
        self.collect();
    }

    /// What may still be written, bytes. Not counted out on a disk of the default size, which no
    /// simulation fills.
    fn room(&self) -> u64 {
        match self.capacity {
            DEFAULT_CAPACITY => u64::MAX,
            capacity => capacity.saturating_sub(self.used()),
        }
    }

    fn used(&self) -> u64 {
        let mut used = 0;
        for id in self.reachable(false) {
            if let Some(Node::File(file)) = self.nodes.get(&id) {
                used += file.size();
            }
        }
        used
    }

    /// Nodes that have a name, for readers or on the platter.
    fn reachable(&self, durable: bool) -> HashSet<NodeId> {
        let mut found = HashSet::from([ROOT]);
        let mut todo = vec![ROOT];
        while let Some(id) = todo.pop() {
            if let Some(Node::Dir(dir)) = self.nodes.get(&id) {
                let names = if durable { &dir.durable } else { &dir.names };
                todo.extend(names.values().filter(|child| found.insert(**child)));
            }
        }
        found
    }

    /// Forgets nodes that nobody can reach any more.
    fn collect(&mut self) {
        let mut keep = self.reachable(false);
        keep.extend(self.reachable(true));
        keep.extend(self.pending.iter().flat_map(|change| change.0.iter().filter_map(|part| part.2)));
        self.nodes
            .retain(|id, node| keep.contains(id) || matches!(node, Node::File(file) if file.handles > 0));
        self.durable_names.retain(|id, _| self.nodes.contains_key(id));
    }

    fn crash(&mut self, policy: CrashPolicy) {
        let mut pending = std::mem::take(&mut self.pending);
        match policy {
            CrashPolicy::LoseAll => pending.clear(),
            CrashPolicy::KeepAll => {}
            // A journal loses a suffix; a disk without one loses anything.
            CrashPolicy::Random if self.random.below(2) == 0 => {
                pending.truncate(self.random.below(pending.len() as u64 + 1) as usize);
            }
            CrashPolicy::Random => pending.retain(|_| self.random.below(2) == 0),
        }
        for change in pending {
            self.settle(change);
        }
        let mut ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            match self.nodes.get_mut(&id) {
                Some(Node::Dir(dir)) => dir.names.clone_from(&dir.durable),
                Some(Node::File(file)) => file.crash(&self.random, policy),
                None => {}
            }
        }
        self.collect();
        self.boot += 1;
        self.end_life();
    }

    fn end_life(&mut self) {
        self.life += 1;
        self.locks.clear();
        self.faults = Faults::default();
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.handles = 0;
            }
        }
    }

    fn remove_tree(&mut self, parent: NodeId, name: &str, id: NodeId) -> io::Result<()> {
        if let Some(Node::Dir(dir)) = self.nodes.get(&id) {
            let children: Vec<(String, NodeId)> = dir.names.iter().map(|(n, c)| (n.clone(), *c)).collect();
            for (child_name, child) in children {
                self.remove_tree(id, &child_name, child)?;
            }
        }
        self.rename(vec![(parent, name.to_owned(), None)])
    }
}

impl SimDisk {
    /// An empty disk whose crashes follow from `seed`.
    pub fn new(seed: u64) -> SimDisk {
        let world = World {
            nodes: HashMap::from([(ROOT, Node::Dir(DirNode::default()))]),
            next_node: ROOT,
            pending: Vec::new(),
            durable_names: HashMap::new(),
            random: SimRandom::new(seed),
            life: 0,
            boot: 0,
            locks: HashSet::new(),
            capacity: DEFAULT_CAPACITY,
            faults: Faults::default(),
            counts: DiskCounts::default(),
        };
        SimDisk { world: Arc::new(Mutex::new(world)), life: None }
    }

    /// The same disk for the present life: when that ends, nothing works through it any more.
    pub(super) fn of_this_life(&self) -> SimDisk {
        SimDisk { world: self.world.clone(), life: Some(self.life()) }
    }

    /// The state, if the life goes on.
    fn enter(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.world.lock();
        match self.life {
            Some(life) if life != world.life => Err(Errno::IO.into()),
            _ => Ok(world),
        }
    }

    /// The power goes and comes back: unsynced things are lost by `policy`, the boot id changes, every
    /// handle and lock is dead, planned faults are forgotten.
    pub fn crash(&self, policy: CrashPolicy) {
        self.world.lock().crash(policy);
    }

    /// The process is killed: nothing is lost, but its handles and locks are dead.
    pub fn kill(&self) {
        self.world.lock().end_life();
    }

    /// Lives that ended so far.
    pub(super) fn life(&self) -> u64 {
        self.world.lock().life
    }

    /// After `steps` more steps (see [`DiskCounts::steps`]) nothing works any more, as if the power were
    /// gone already; call [`SimDisk::crash`] or [`SimDisk::kill`] then.
    pub fn cut_power_after(&self, steps: u64) {
        self.world.lock().faults.power_in = Some(steps);
    }

    /// Whether the power is cut.
    pub fn is_cut(&self) -> bool {
        self.world.lock().powered().is_err()
    }

    /// After `syncs` more syncs of any kind the next one fails, and what it was to write is lost.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.world.lock().faults.sync_in = Some(syncs);
    }

    /// After `writes` more writes the next one stops at a random byte: with "no space" if `full`, else
    /// with an I/O error.
    pub fn fail_write_after(&self, writes: u64, full: bool) {
        let error = if full { Errno::NOSPC } else { Errno::IO };
        self.world.lock().faults.write_in = Some((writes, error));
    }

    /// After `reads` more reads the next one fails.
    pub fn fail_read_after(&self, reads: u64) {
        self.world.lock().faults.read_in = Some(reads);
    }

    /// Whether the content of files is in memory: if not, whoever reads without waiting is told so.
    pub fn set_cold(&self, cold: bool) {
        self.world.lock().faults.cold = cold;
    }

    /// Sets the size of the disk, bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.world.lock().capacity = bytes;
    }

    /// Flips one bit of a file, on the platter and for readers.
    ///
    /// # Errors
    /// When there is no such file or bit.
    pub fn flip_bit(&self, path: &Path, bit: u64) -> io::Result<()> {
        let mut world = self.world.lock();
        let id = world.find(path)?;
        let file = world.file_mut(id)?;
        let (at, mask) = ((bit / 8) as usize, 1u8 << (bit % 8));
        *file.content.get_mut(at).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))? ^= mask;
        if let Some(byte) = file.durable.get_mut(at) {
            *byte ^= mask;
        }
        Ok(())
    }

    /// Replaces a file's content, on the platter and for readers.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn overwrite(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut world = self.world.lock();
        let id = world.find(path)?;
        let file = world.file_mut(id)?;
        file.content = content.to_vec();
        file.sync();
        file.durable = content.to_vec();
        Ok(())
    }

    /// What it was asked to do so far.
    pub fn counts(&self) -> DiskCounts {
        self.world.lock().counts
    }

    /// Open handles of the present life.
    pub fn open_handles(&self) -> usize {
        let world = self.world.lock();
        let handles = world.nodes.values().map(|node| match node {
            Node::File(file) => file.handles,
            Node::Dir(_) => 0,
        });
        handles.sum()
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut world = self.enter()?;
        world.powered()?;
        let (dir, name) = world.parent(path)?;
        let found = world.dir(dir)?.names.get(&name).copied();
        let node = match (found, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(Errno::EXIST.into()),
            (None, OpenMode::Read | OpenMode::Existing) => return Err(Errno::NOENT.into()),
            (Some(node), _) => node,
            (None, _) => {
                let node = world.add(Node::File(FileNode::default()));
                world.rename(vec![(dir, name, Some(node))])?;
                node
            }
        };
        world.file_mut(node)?.handles += 1;
        world.counts.opens += 1;
        let life = world.life;
        Ok(Arc::new(SimFile { world: self.world.clone(), node, life, writable: mode != OpenMode::Read }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut world = self.enter()?;
        let mut dir = ROOT;
        for name in components(path) {
            dir = match world.dir(dir)?.names.get(name) {
                Some(found) => *found,
                None => {
                    let made = world.add(Node::Dir(DirNode::default()));
                    world.rename(vec![(dir, name.to_owned(), Some(made))])?;
                    made
                }
            };
        }
        world.dir(dir).map(|_| ())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let world = self.enter()?;
        world.powered()?;
        let dir = world.dir(world.find(path)?)?;
        let entries = dir.names.iter().map(|(name, id)| {
            let is_dir = matches!(world.nodes.get(id), Some(Node::Dir(_)));
            DirEntry { name: name.clone(), is_dir }
        });
        Ok(entries.collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.enter()?;
        let (from_dir, from_name) = world.parent(from)?;
        let (to_dir, to_name) = world.parent(to)?;
        let node = world.find(from)?;
        if components(to).starts_with(&components(from)) {
            return if components(to) == components(from) { Ok(()) } else { Err(Errno::INVAL.into()) };
        }
        match (world.nodes.get(&node), world.find(to).ok().and_then(|id| world.nodes.get(&id))) {
            (_, None) | (Some(Node::File(_)), Some(Node::File(_))) => {}
            (Some(Node::Dir(_)), Some(Node::Dir(target))) if target.names.is_empty() => {}
            (_, Some(Node::Dir(target))) if !target.names.is_empty() => return Err(Errno::NOTEMPTY.into()),
            (_, Some(Node::Dir(_))) => return Err(Errno::ISDIR.into()),
            (_, Some(Node::File(_))) => return Err(Errno::NOTDIR.into()),
        }
        world.rename(vec![(from_dir, from_name, None), (to_dir, to_name, Some(node))])
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut world = self.enter()?;
        let (dir, name) = world.parent(path)?;
        let node = world.find(path)?;
        world.file_mut(node)?;
        world.rename(vec![(dir, name, None)])
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut world = self.enter()?;
        let (dir, name) = world.parent(path)?;
        let node = world.find(path)?;
        world.dir(node)?;
        world.remove_tree(dir, &name, node)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.enter()?;
        let dir = world.find(path)?;
        world.dir(dir)?;
        world.counts.dir_syncs += 1;
        world.step()?;
        world.sync_fault()?;
        world.settle_dir(dir);
        Ok(())
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        let mut world = self.enter()?;
        world.find(path)?;
        world.counts.full_syncs += 1;
        world.step()?;
        if let Err(error) = world.sync_fault() {
            for node in world.nodes.values_mut() {
                if let Node::File(file) = node {
                    file.forget_unsynced();
                }
            }
            return Err(error);
        }
        world.sync_everything();
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        self.enter().map_or(true, |world| world.find(path).is_ok())
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let world = self.enter()?;
        world.find(path)?;
        Ok(Space { total: world.capacity, available: world.capacity.saturating_sub(world.used()) })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        drop(self.open(path, OpenMode::ReadWrite)?);
        let mut world = self.enter()?;
        let path: PathBuf = components(path).into_iter().collect();
        if !world.locks.insert(path.clone()) {
            return Err(Errno::WOULDBLOCK.into());
        }
        Ok(Box::new(SimLock { world: self.world.clone(), path, life: world.life }))
    }

    fn boot_id(&self) -> String {
        format!("simulated-boot-{}", self.world.lock().boot)
    }
}

struct SimLock {
    world: Arc<Mutex<World>>,
    path: PathBuf,
    life: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut world = self.world.lock();
        if world.life == self.life {
            world.locks.remove(&self.path);
        }
    }
}

struct SimFile {
    world: Arc<Mutex<World>>,
    node: NodeId,
    life: u64,
    writable: bool,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut world = self.world.lock();
        if world.life == self.life
            && let Ok(file) = world.file_mut(self.node)
        {
            file.handles -= 1;
        }
    }
}

impl SimFile {
    fn run<T>(&self, work: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.world.lock();
        if world.life != self.life {
            return Err(Errno::BADF.into());
        }
        world.powered()?;
        work(&mut world)
    }

    fn change<T>(&self, work: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        if !self.writable {
            return Err(Errno::BADF.into());
        }
        self.run(work)
    }
}

/// The bytes of a file that does not reach beyond `usize`, which memory bounds.
fn index(position: u64) -> io::Result<usize> {
    usize::try_from(position).map_err(|_| Errno::FBIG.into())
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.run(|world| {
            match &mut world.faults.read_in {
                Some(0) => {
                    world.faults.read_in = None;
                    return Err(Errno::IO.into());
                }
                Some(left) => *left -= 1,
                None => {}
            }
            let content = &world.file_mut(self.node)?.content;
            let start = index(position)?.min(content.len());
            let count = buffer.len().min(content.len() - start);
            buffer[..count].copy_from_slice(&content[start..start + count]);
            Ok(count)
        })
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        if self.run(|world| Ok(world.faults.cold))? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.read_at(buffer, position)
    }

    fn write_all_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        self.change(|world| {
            world.counts.writes += 1;
            world.step()?;
            let bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
            let position = index(position)?;
            let mut stop = None;
            match &mut world.faults.write_in {
                Some((0, error)) => {
                    stop = Some((*error, world.random.below(bytes.len() as u64 + 1) as usize));
                    world.faults.write_in = None;
                }
                Some((left, _)) => *left -= 1,
                None => {}
            }
            let room = world.room();
            let file = world.file_mut(self.node)?;
            let end = (position + bytes.len()) as u64;
            if end.saturating_sub(file.size()) > room {
                let fits = file.size().saturating_add(room).saturating_sub(position as u64) as usize;
                stop = Some((Errno::NOSPC, fits.min(bytes.len())));
            }
            match stop {
                None => {
                    file.write(&bytes, position);
                    Ok(())
                }
                Some((error, count)) => {
                    file.write(&bytes[..count], position);
                    Err(error.into())
                }
            }
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.run(|world| {
            world.counts.file_syncs += 1;
            world.step()?;
            if let Err(error) = world.sync_fault() {
                world.file_mut(self.node)?.forget_unsynced();
                return Err(error);
            }
            world.file_mut(self.node)?.sync();
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.run(|world| Ok(world.file_mut(self.node)?.content.len() as u64))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(|world| {
            world.step()?;
            world.file_mut(self.node)?.set_len(index(length)?);
            Ok(())
        })
    }

    fn allocate(&self, position: u64, length: u64) -> io::Result<()> {
        self.change(|world| {
            let room = world.room();
            let file = world.file_mut(self.node)?;
            let reserved = file.size().max(position.saturating_add(length));
            if reserved - file.size() > room {
                return Err(Errno::NOSPC.into());
            }
            file.reserved = reserved;
            Ok(())
        })
    }
}
