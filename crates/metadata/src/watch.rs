//! The newest value for whoever looks, as tokio's `watch` has it, with one difference: those who wait for a change are woken
//! in the order in which they began to, not in a random one, so that a simulated run follows from its seed.

use std::sync::Arc;

use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// The value, for as long as nobody changes it: not to be held while anything is waited for.
pub type Ref<'a, T> = MappedRwLockReadGuard<'a, T>;

/// The other end is gone, and the last value was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody changes it any more")]
pub struct Closed;

struct Shared<T> {
    state: RwLock<State<T>>,
    changed: Notify,
}

struct State<T> {
    value: T,
    /// Raised by every change.
    version: u64,
    closed: bool,
}

/// Who changes the value.
pub struct Sender<T>(Arc<Shared<T>>);

/// Who looks at it.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// What was seen last.
    seen: u64,
}

impl<T> Sender<T> {
    /// With a first value, which counts as seen.
    pub fn new(value: T) -> Sender<T> {
        let state = RwLock::new(State { value, version: 1, closed: false });
        Sender(Arc::new(Shared { state, changed: Notify::new() }))
    }

    /// Changes the value if `change` says that it did, and tells so.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        {
            let mut state = self.0.state.write();
            if !change(&mut state.value) {
                return false;
            }
            state.version += 1;
        }
        self.0.changed.notify_waiters();
        true
    }

    /// Changes the value.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Puts another value in its place, and returns the one before.
    pub fn send_replace(&self, mut value: T) -> T {
        self.send_modify(|old| std::mem::swap(old, &mut value));
        value
    }

    /// The value now.
    pub fn borrow(&self) -> Ref<'_, T> {
        RwLockReadGuard::map(self.0.state.read(), |state| &state.value)
    }

    /// How many look.
    pub fn receiver_count(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }

    /// Somebody who looks, and has seen the value of now.
    pub fn subscribe(&self) -> Receiver<T> {
        let seen = self.0.state.read().version;
        Receiver { shared: self.0.clone(), seen }
    }
}

impl<T: Default> Default for Sender<T> {
    fn default() -> Sender<T> {
        Sender::new(T::default())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state.write().closed = true;
        self.0.changed.notify_waiters();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        Receiver { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> std::fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl<T> Receiver<T> {
    /// The value now.
    pub fn borrow(&self) -> Ref<'_, T> {
        RwLockReadGuard::map(self.shared.state.read(), |state| &state.value)
    }

    /// The value now, which is seen by that.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let state = self.shared.state.read();
        self.seen = state.version;
        RwLockReadGuard::map(state, |state| &state.value)
    }

    /// What is there counts as not seen.
    pub fn mark_changed(&mut self) {
        self.seen = 0;
    }

    /// Completes when there is a value that was not seen, which then is.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            // Hears from here on, so that a change between the look and the wait is not missed.
            let changed = self.shared.changed.notified();
            {
                let state = self.shared.state.read();
                if state.version != self.seen {
                    self.seen = state.version;
                    return Ok(());
                }
                if state.closed {
                    return Err(Closed);
                }
            }
            changed.await;
        }
    }

    /// Completes when the value is `good`, at once if it is. Returns the value of then, which may be another one already.
    ///
    /// # Errors
    /// [`Closed`]: it is not, and will not be.
    pub async fn wait_for(&mut self, mut good: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        loop {
            if good(&self.borrow_and_update()) {
                return Ok(self.borrow());
            }
            self.changed().await?;
            self.mark_changed();
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn changes_are_seen_once_and_the_end_after_the_last() {
        let sender = Sender::new(1);
        let mut receiver = sender.subscribe();
        let mut late = receiver.clone();
        assert_eq!(sender.send_replace(2), 1);
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!(*receiver.borrow(), 2);
        assert!(!sender.send_if_modified(|_| false));
        receiver.mark_changed();
        assert_eq!(receiver.changed().await, Ok(()));
        sender.send_modify(|value| *value = 3);
        assert_eq!((*receiver.borrow_and_update(), *sender.borrow()), (3, 3));
        drop(sender);
        assert_eq!(receiver.changed().await, Err(Closed));
        assert_eq!(*late.wait_for(|value| *value == 3).await.unwrap(), 3);
        assert_eq!(late.wait_for(|value| *value == 4).await.err(), Some(Closed));
    }

    #[tokio::test]
    async fn those_who_wait_are_woken_in_order() {
        let sender = Sender::new(0);
        let order = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..20)
            .map(|number| {
                let (mut receiver, order) = (sender.subscribe(), order.clone());
                tokio::spawn(async move {
                    drop(receiver.wait_for(|value| *value == 2).await.unwrap());
                    order.lock().push(number);
                })
            })
            .collect();
        for value in [1, 2] {
            tokio::task::yield_now().await;
            sender.send_replace(value);
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), (0..20).collect::<Vec<_>>());
    }
}
