//! The word that the broker is about to stop, told to everyone who waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Makes the two ends: who says it, and who hears it.
pub fn drain_channel() -> (DrainTrigger, DrainSignal) {
    let word = Arc::<Word>::default();
    (DrainTrigger { word: word.clone() }, DrainSignal { word })
}

/// Those who wait are woken in the order in which they came.
#[derive(Debug, Default)]
struct Word {
    said: AtomicBool,
    heard: Notify,
}

/// Says that the broker drains, when it is dropped at the latest.
#[derive(Debug)]
pub struct DrainTrigger {
    word: Arc<Word>,
}

impl DrainTrigger {
    /// From now on no request is started; those that merely wait answer with what they have.
    pub fn drain(self) {
        drop(self);
    }
}

impl Drop for DrainTrigger {
    fn drop(&mut self) {
        self.word.said.store(true, Ordering::SeqCst);
        self.word.heard.notify_waiters();
    }
}

/// Hears that the broker drains. Clones hear the same.
#[derive(Clone, Debug)]
pub struct DrainSignal {
    word: Arc<Word>,
}

impl DrainSignal {
    /// True once it was said. Costs one load, so it may be asked often.
    pub fn is_draining(&self) -> bool {
        self.word.said.load(Ordering::SeqCst)
    }

    /// Completes once it was said, at once if it was before.
    pub async fn draining(&self) {
        // Hears from here on, so that a word between the look and the wait is not missed.
        let heard = self.word.heard.notified();
        if !self.is_draining() {
            heard.await;
        }
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
