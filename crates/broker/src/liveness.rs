//! Shows the controllers that this broker lives, as long as it does.

use std::sync::{Arc, Weak};

use crate::broker::Broker;

impl Broker {
    /// Starts the task; it ends with the broker.
    pub(crate) fn spawn_heartbeats(self: &Arc<Self>) {
        tokio::spawn(beat(Arc::downgrade(self)));
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
        let sleep = broker.env.clock.sleep(broker.config().broker_heartbeat_interval());
        drop(broker);
        sleep.await;
    }
}
