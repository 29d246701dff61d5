//! Who leads, and whether it is this node with a majority behind it: what makes it the active controller.

use std::sync::Arc;
use std::time::Duration;

use base::env::Clock;
use openraft::{BasicNode, Raft, RaftMetrics, ServerState};
use parking_lot::Mutex;

use super::TypeConfig;
use super::group::NO_LEADER;
use crate::sessions::Table;
use crate::watch;

/// So long without a leader is told of.
const PROBLEM_AFTER: Duration = Duration::from_secs(3);

/// See the module's head.
pub(super) struct Lead {
    clock: Arc<dyn Clock>,
    node: u64,
    pub(super) table: Mutex<Table>,
    /// When somebody led last, as far as this node knew; `None` where there are no others.
    led_at: Option<Mutex<Duration>>,
}

impl Lead {
    /// The only node leads always; of several, whom [`Lead::watch`] sees.
    pub(super) fn new(clock: Arc<dyn Clock>, node: u64, has_peers: bool) -> Lead {
        let now = clock.now();
        let table = if has_peers { Table::default() } else { Table::alone(now) };
        let led_at = has_peers.then(|| Mutex::new(now));
        Lead { clock, node, table: Mutex::new(table), led_at }
    }

    /// Time, for the table.
    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Keeps itself informed until the store ends.
    pub(super) async fn watch(self: Arc<Lead>, raft: Raft<TypeConfig>, mut ended: watch::Receiver<bool>) {
        let mut metrics = raft.metrics();
        loop {
            self.observe(&metrics.borrow_and_update());
            let changed = tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => break,
                changed = metrics.changed() => changed,
            };
            if changed.is_err() {
                break;
            }
        }
        self.table.lock().step_down();
    }

    fn observe(&self, metrics: &RaftMetrics<u64, BasicNode>) {
        let (mut table, now) = (self.table.lock(), self.clock.now());
        let leads = metrics.state == ServerState::Leader && metrics.current_leader == Some(metrics.id);
        match metrics.millis_since_quorum_ack.filter(|_| leads) {
            Some(ms) => {
                table.confirm(metrics.current_term, now.saturating_sub(Duration::from_millis(ms)), now);
            }
            None => table.step_down(),
        }
        let is_led = if leads { table.is_active(now) } else { metrics.current_leader.is_some() };
        if let Some(led_at) = self.led_at.as_ref().filter(|_| is_led) {
            *led_at.lock() = now;
        }
    }

    /// Who leads, as far as this node knows; not itself if no majority follows it: it may have a successor.
    pub(super) fn leader(&self, raft: &Raft<TypeConfig>) -> Option<u64> {
        let leader = raft.metrics().borrow().current_leader?;
        (leader != self.node || self.table.lock().is_active(self.clock.now())).then_some(leader)
    }

    /// What to say when nobody led for long.
    pub(super) fn problem(&self) -> Option<String> {
        let led_at = *self.led_at.as_ref()?.lock();
        (self.clock.now().saturating_sub(led_at) > PROBLEM_AFTER).then(|| NO_LEADER.to_owned())
    }
}
