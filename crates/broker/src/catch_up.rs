//! Waits until this broker knows what others were told before: a topic that one broker has just created is then known on
//! whichever is asked next, which Kafka does not promise.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metadata::{Command, Resource};

use crate::broker::Broker;

/// How long it is waited for the controllers; then what is known is told.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who asked, and whom an answer that came covers: those that ask while one is under way share the next.
#[derive(Debug, Default)]
pub(crate) struct CatchUp {
    asked: AtomicU64,
    covered: AtomicU64,
    turn: tokio::sync::Mutex<()>,
}

impl Broker {
    /// Completes when [`Broker::image`] shows what any broker was answered before the call, as far as the controllers
    /// answer in time.
    pub(crate) async fn catch_up(&self) {
        // What the only broker does not know nobody was told.
        if self.image().brokers().nth(1).is_none() {
            return;
        }
        tokio::select! {
            biased;
            () = self.catch_up_with_all() => {}
            () = self.env.clock.sleep(PATIENCE) => {}
        }
    }

    async fn catch_up_with_all(&self) {
        let CatchUp { asked, covered, turn } = &self.catch_up;
        let mine = asked.fetch_add(1, Ordering::AcqRel) + 1;
        let _turn = turn.lock().await;
        if covered.load(Ordering::Acquire) >= mine {
            return;
        }
        let upto = asked.load(Ordering::Acquire);
        // A change of nothing is ordered behind all that was answered, and shown here before it is answered.
        let nothing = Command::AlterConfigs { resource: Resource::AllBrokers, changes: Vec::new() };
        if self.metadata.propose(nothing).await.is_ok() {
            covered.store(upto, Ordering::Release);
        }
    }
}
