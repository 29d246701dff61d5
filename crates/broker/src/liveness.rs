//! Shows the controllers that this broker lives, as long as it does, and which of its log directories do not, or are nearly
//! full.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::ids::StorageId;

use metadata::{Command, StorageHealth};
use replication::StorageState;

use crate::broker::Broker;

/// A log directory that was nearly full counts as roomy again after so long: what moves away from it and back costs a
/// segment each time.
const ROOMY_PATIENCE: Duration = Duration::from_secs(60);

/// Since when log directories have room again that are known as nearly full.
type Roomy = BTreeMap<StorageId, Duration>;

impl Broker {
    /// Starts the task; it ends with the broker.
    pub(crate) fn spawn_heartbeats(self: &Arc<Self>) {
        tokio::spawn(beat(Arc::downgrade(self)));
    }
}

impl Broker {
    /// How long ago, at least, a majority of the controllers heard that this broker lives.
    pub(crate) fn unheard_for(&self) -> Duration {
        self.env.clock.now().saturating_sub(*self.heard_at.lock())
    }

    /// Tells the controllers of log directories that failed, so that others lead what is on them, and of those that are
    /// nearly full or no longer, so that new segments go elsewhere or come.
    async fn report_storages(&self, roomy: &mut Roomy) {
        let image = self.image();
        if image.brokers().nth(1).is_none() {
            return;
        }
        let now = self.env.clock.now();
        for storage in self.storages.iter() {
            let (id, known) = (storage.id(), image.storage_health(storage.id()));
            let Some(health) = changed(&storage.state(), known) else {
                roomy.remove(&id);
                continue;
            };
            if health == StorageHealth::Writable
                && now.saturating_sub(*roomy.entry(id).or_insert(now)) < ROOMY_PATIENCE
            {
                continue;
            }
            // What was not heard is told again.
            let command = Command::SetStorageHealth { broker: self.id, storage: id, state: health };
            if self.metadata.propose(command).await.is_ok() {
                tracing::warn!(storage = %id, state = ?health, "the controllers know the state of a log directory");
            }
        }
    }
}

/// What the controllers should know of a log directory, if they know something else.
fn changed(state: &StorageState, known: Option<StorageHealth>) -> Option<StorageHealth> {
    let health = match state {
        StorageState::Writable => StorageHealth::Writable,
        StorageState::ReadOnly | StorageState::NoSpace => StorageHealth::ReadOnly,
        StorageState::Failed(_) => StorageHealth::Failed,
    };
    // One that failed or is lost stays so until the next life.
    let may_change = health == StorageHealth::Failed || known.is_some_and(StorageHealth::can_be_read);
    (may_change && known != Some(health)).then_some(health)
}

async fn beat(broker: Weak<Broker>) {
    let mut is_heard = true;
    let mut roomy = Roomy::new();
    loop {
        let Some(broker) = broker.upgrade() else { return };
        let began = broker.env.clock.now();
        let beat = broker.metadata.heartbeat(broker.id, broker.incarnation).await;
        if beat.is_ok() {
            *broker.heard_at.lock() = began;
        }
        match &beat {
            Err(error) if is_heard => {
                tracing::warn!(%error, "the controllers do not hear this broker; without them it goes on with what it leads");
            }
            Ok(()) if !is_heard => tracing::info!("the controllers hear this broker again"),
            _ => {}
        }
        is_heard = beat.is_ok();
        broker.report_storages(&mut roomy).await;
        let sleep = broker.env.clock.sleep(broker.config().broker_heartbeat_interval());
        drop(broker);
        sleep.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_news_is_told() {
        use StorageHealth::{Failed, Lost, ReadOnly, Writable};
        let failed = StorageState::Failed("EIO".into());
        for (state, known, told) in [
            (&StorageState::Writable, Writable, None),
            (&StorageState::ReadOnly, Writable, Some(ReadOnly)),
            (&StorageState::NoSpace, Writable, Some(ReadOnly)),
            (&StorageState::NoSpace, ReadOnly, None),
            (&StorageState::Writable, ReadOnly, Some(Writable)),
            (&failed, Writable, Some(Failed)),
            (&failed, ReadOnly, Some(Failed)),
            (&failed, Failed, None),
            (&StorageState::Writable, Failed, None),
            (&StorageState::ReadOnly, Lost, None),
        ] {
            assert_eq!(changed(state, Some(known)), told, "{state:?} {known:?}");
        }
        assert_eq!(changed(&StorageState::Writable, None), None);
    }
}
