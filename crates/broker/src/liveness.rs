//! Shows the controllers that this broker lives, as long as it does, and which of its log directories do not.

use std::sync::{Arc, Weak};

use metadata::{Command, StorageHealth};
use replication::StorageState;

use crate::broker::Broker;

impl Broker {
    /// Starts the task; it ends with the broker.
    pub(crate) fn spawn_heartbeats(self: &Arc<Self>) {
        tokio::spawn(beat(Arc::downgrade(self)));
    }
}

impl Broker {
    /// Tells the controllers of log directories that failed, so that others lead what is on them.
    async fn report_storages(&self) {
        let image = self.image();
        if image.brokers().nth(1).is_none() {
            return;
        }
        for storage in self.storages.iter() {
            let has_failed = matches!(storage.state(), StorageState::Failed(_));
            let is_known = image.storage_health(storage.id()) == Some(StorageHealth::Failed);
            if has_failed && !is_known {
                let (broker, storage, state) = (self.id, storage.id(), StorageHealth::Failed);
                // What was not heard is told again.
                if self.metadata.propose(Command::SetStorageHealth { broker, storage, state }).await.is_ok() {
                    tracing::warn!(%storage, "the controllers know that a log directory failed");
                }
            }
        }
    }
}

async fn beat(broker: Weak<Broker>) {
    let mut is_heard = true;
    loop {
        let Some(broker) = broker.upgrade() else { return };
        let beat = broker.metadata.heartbeat(broker.id, broker.incarnation).await;
        match &beat {
            Err(error) if is_heard => {
                tracing::warn!(%error, "the controllers do not hear this broker; without them it goes on with what it leads");
            }
            Ok(()) if !is_heard => tracing::info!("the controllers hear this broker again"),
            _ => {}
        }
        is_heard = beat.is_ok();
        broker.report_storages().await;
        let sleep = broker.env.clock.sleep(broker.config().broker_heartbeat_interval());
        drop(broker);
        sleep.await;
    }
}
