//! The word that the broker is about to stop, told to everyone who waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Makes the two ends: who says it, and who hears it.
pub fn drain_channel() -> (DrainTrigger, DrainSignal) {
    let (sender, receiver) = watch::channel(());
    let said = Arc::new(AtomicBool::new(false));
    (DrainTrigger { said: said.clone(), _sender: sender }, DrainSignal { said, receiver })
}

/// Says that the broker drains, when it is dropped at the latest.
#[derive(Debug)]
pub struct DrainTrigger {
    said: Arc<AtomicBool>,
    /// Its end is what those who wait are woken by.
    _sender: watch::Sender<()>,
}

impl DrainTrigger {
    /// From now on no request is started; those that merely wait answer with what they have.
    pub fn drain(self) {
        drop(self);
    }
}

impl Drop for DrainTrigger {
    fn drop(&mut self) {
        self.said.store(true, Ordering::SeqCst);
    }
}

/// Hears that the broker drains. Clones hear the same.
#[derive(Clone, Debug)]
pub struct DrainSignal {
    said: Arc<AtomicBool>,
    receiver: watch::Receiver<()>,
}

impl DrainSignal {
    /// True once it was said. Costs one load, so it may be asked often.
    pub fn is_draining(&self) -> bool {
        self.said.load(Ordering::SeqCst)
    }

    /// Completes once it was said, at once if it was before.
    pub async fn draining(&self) {
        // Nothing is ever sent: the only news is that the trigger is gone.
        let mut receiver = self.receiver.clone();
        while receiver.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn heard_by_all_before_and_after_and_when_the_trigger_is_dropped() {
        let (trigger, signal) = drain_channel();
        assert!(!signal.is_draining());
        let waiting = tokio::spawn({
            let signal = signal.clone();
            async move { signal.draining().await }
        });
        trigger.drain();
        waiting.await.unwrap();
        signal.draining().await;
        assert!(signal.is_draining());

        let (trigger, signal) = drain_channel();
        drop(trigger);
        signal.draining().await;
        assert!(signal.is_draining());
    }
}
