//! Open files, fewer than the system allows.
//!
//! Each segment keeps the handles it opened in its own [`Handles`], so that using one takes no shared
//! lock. The pool counts them and, above its limit, closes those of the segment that was opened or
//! used longest ago (second chance). A handle in use lives on until its user is done with it, so the
//! limit is passed by at most the number of reads and syncs that run.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use base::env::File;
use parking_lot::Mutex;

/// The files a segment keeps open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandleKind {
    Log = 0,
    Index = 1,
    TimeIndex = 2,
}

/// What one segment has open.
#[derive(Default)]
pub(crate) struct Handles {
    open: Mutex<[Option<Arc<dyn File>>; 3]>,
    /// Used since the pool last looked.
    used: AtomicBool,
    /// Listed in the pool's ring.
    listed: AtomicBool,
}

impl Handles {
    /// The handle, if it is open.
    pub(crate) fn get(&self, kind: HandleKind) -> Option<Arc<dyn File>> {
        let handle = self.open.lock()[kind as usize].clone();
        if handle.is_some() && !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        handle
    }

    fn close_all(&self) -> usize {
        let closed = std::mem::take(&mut *self.open.lock());
        closed.iter().flatten().count()
    }
}

/// Something that keeps handles.
pub(crate) trait HandleOwner: Send + Sync {
    fn handles(&self) -> &Handles;
    /// Better not closed now: a sync is due, and a failure of writing back is told most surely to a
    /// handle that was open all the time.
    fn needs_handle(&self) -> bool;
}

/// Counts and bounds the open handles of one storage.
pub(crate) struct HandlePool {
    limit: usize,
    open: AtomicUsize,
    ring: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    owners: VecDeque<Weak<dyn HandleOwner>>,
    /// Length at which owners that are gone are next looked for.
    sweep_at: usize,
}

impl HandlePool {
    pub(crate) fn new(limit: usize) -> HandlePool {
        HandlePool { limit: limit.max(1), open: AtomicUsize::new(0), ring: Mutex::default() }
    }

    /// Handles kept open now.
    pub(crate) fn open_count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Keeps a handle for its owner, closing others if need be.
    pub(crate) fn keep(&self, owner: &Arc<dyn HandleOwner>, kind: HandleKind, file: Arc<dyn File>) {
        let handles = owner.handles();
        let before = handles.open.lock()[kind as usize].replace(file);
        handles.used.store(true, Ordering::Relaxed);
        if before.is_none() {
            self.open.fetch_add(1, Ordering::Relaxed);
        }
        if !handles.listed.swap(true, Ordering::AcqRel) {
            let mut ring = self.ring.lock();
            if ring.owners.len() >= ring.sweep_at {
                ring.owners.retain(|owner| owner.strong_count() > 0);
                ring.sweep_at = (ring.owners.len() * 2).max(64);
            }
            ring.owners.push_back(Arc::downgrade(owner));
        }
        while self.open_count() > self.limit && self.close_one() {}
    }

    /// Closes the handles of an owner that goes away.
    pub(crate) fn release(&self, handles: &Handles) {
        let closed = handles.close_all();
        self.open.fetch_sub(closed, Ordering::Relaxed);
    }

    /// Closes the handles of one owner; false when there is none.
    fn close_one(&self) -> bool {
        let mut chances = 2 * self.ring.lock().owners.len();
        loop {
            // One that is gone has given its handles back; one that is not must not be dropped (which
            // takes the ring's place in the pool) while the ring is locked.
            let Some(owner) = self.ring.lock().owners.pop_front() else { return false };
            let Some(owner) = owner.upgrade() else { continue };
            let handles = owner.handles();
            let spare = handles.used.swap(false, Ordering::Relaxed) || owner.needs_handle();
            if spare && chances > 0 {
                chances -= 1;
                self.ring.lock().owners.push_back(Arc::downgrade(&owner));
                continue;
            }
            handles.listed.store(false, Ordering::Release);
            let closed = handles.close_all();
            self.open.fetch_sub(closed, Ordering::Relaxed);
            if closed > 0 {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use base::env::sim::Sim;
    use base::env::{Disk, OpenMode};

    use super::*;

    struct Owner {
        handles: Handles,
        busy: AtomicBool,
    }

    impl HandleOwner for Owner {
        fn handles(&self) -> &Handles {
            &self.handles
        }
        fn needs_handle(&self) -> bool {
            self.busy.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn the_least_recently_used_handles_are_closed() {
        let sim = Sim::new(1);
        let pool = HandlePool::new(4);
        let owners: Vec<Arc<Owner>> = (0..10)
            .map(|_| Arc::new(Owner { handles: Handles::default(), busy: AtomicBool::new(false) }))
            .collect();
        owners[0].busy.store(true, Ordering::Relaxed);
        for owner in &owners {
            let file = sim.disk.open(Path::new("/f"), OpenMode::ReadWrite).unwrap();
            pool.keep(&(owner.clone() as Arc<dyn HandleOwner>), HandleKind::Log, file);
            assert!(owners[0].handles.get(HandleKind::Log).is_some());
            assert!(pool.open_count() <= 4);
            assert_eq!(sim.disk.open_handles(), pool.open_count());
        }
        assert!(owners[1].handles.get(HandleKind::Log).is_none());
        for owner in owners {
            pool.release(&owner.handles);
        }
        assert_eq!((pool.open_count(), sim.disk.open_handles()), (0, 0));
    }

    #[test]
    fn owners_that_went_away_are_forgotten() {
        let sim = Sim::new(1);
        let pool = HandlePool::new(100);
        for _ in 0..10_000 {
            let owner = Arc::new(Owner { handles: Handles::default(), busy: AtomicBool::new(false) });
            let file = sim.disk.open(Path::new("/f"), OpenMode::ReadWrite).unwrap();
            pool.keep(&(owner.clone() as Arc<dyn HandleOwner>), HandleKind::Index, file);
            pool.release(&owner.handles);
        }
        assert!(pool.ring.lock().owners.len() <= 64);
    }
}
