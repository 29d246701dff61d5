//! Which brokers have a connection to this one: at most one each, the newest.

use std::collections::HashMap;
use std::sync::Arc;

use base::ids::{BrokerId, Incarnation};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::message::BrokerLife;

/// The connections.
#[derive(Default)]
pub(super) struct Sessions {
    of: Mutex<HashMap<BrokerId, (Incarnation, Arc<Notify>)>>,
}

/// One of them, until it is dropped.
pub(super) struct Session<'a> {
    sessions: &'a Sessions,
    broker: BrokerId,
    ended: Arc<Notify>,
}

impl Sessions {
    /// Takes the place of an earlier connection of the same broker, which is told to end: a broker that calls anew has
    /// given it up, even if nobody has told this end. `None` for a life that is over.
    pub(super) fn begin(&self, from: BrokerLife) -> Option<Session<'_>> {
        let ended = Arc::new(Notify::new());
        let mut of = self.of.lock();
        if of.get(&from.broker).is_some_and(|(incarnation, _)| *incarnation > from.incarnation) {
            return None;
        }
        if let Some((_, before)) = of.insert(from.broker, (from.incarnation, ended.clone())) {
            before.notify_one();
        }
        Some(Session { sessions: self, broker: from.broker, ended })
    }
}

impl Session<'_> {
    /// Completes when another connection took its place.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let mut of = self.sessions.of.lock();
        if of.get(&self.broker).is_some_and(|(_, ended)| Arc::ptr_eq(ended, &self.ended)) {
            of.remove(&self.broker);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn life(incarnation: i64) -> BrokerLife {
        BrokerLife { broker: BrokerId(1), incarnation: Incarnation(incarnation) }
    }

    #[test]
    fn the_newest_connection_of_a_broker_stays() {
        let sessions = Sessions::default();
        let first = sessions.begin(life(5)).unwrap();
        assert!(first.ended().now_or_never().is_none());
        let second = sessions.begin(life(5)).unwrap();
        assert!(first.ended().now_or_never().is_some());
        drop(first);
        assert!(sessions.begin(life(4)).is_none());
        assert!(second.ended().now_or_never().is_none());
        drop(second);
        assert!(sessions.of.lock().is_empty());
    }
}
