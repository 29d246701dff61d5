//! One life of a machine's process: it runs, stands still (SIGSTOP), or has ended.
//!
//! Tasks cannot be taken off their runtime, so a life is held by what it waits for: while it stands still no timer, job
//! or connection of its own goes on, and once it has ended none ever does. What such a task does before it waits next
//! reaches nothing: the disk refuses a life that ended, and its connections are gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// See the module's head.
pub(super) struct Life {
    paused: AtomicBool,
    ended: AtomicBool,
    /// Of the whole world: said when anything changes.
    changed: Arc<Notify>,
}

impl Life {
    /// One that runs.
    pub(super) fn new(changed: Arc<Notify>) -> Life {
        Life { paused: AtomicBool::new(false), ended: AtomicBool::new(false), changed }
    }

    pub(super) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether it neither ended nor stands still.
    pub(super) fn is_running(&self) -> bool {
        !self.has_ended() && !self.paused.load(Ordering::Relaxed)
    }

    /// Completes when the life runs: at once, when it goes on, or never.
    pub(super) async fn running(&self) {
        until(&self.changed, || self.is_running()).await;
    }
}

/// Waits until `good`, which is looked at now and whenever something changed.
pub(super) async fn until(changed: &Notify, good: impl Fn() -> bool) {
    loop {
        let notified = changed.notified();
        if good() {
            return;
        }
        notified.await;
    }
}
