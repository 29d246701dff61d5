//! Who showed that he lives: soft state of the controllers, in no log.
//!
//! Every broker shows itself to every controller, so that one that has just begun to lead knows who lives. Only the active
//! controller tells what it heard, and only while a majority follows it: one that was cut off, or whose process stood
//! still, counts anew how long it has been active, so that nobody is taken for dead whose signs of life it missed.
//!
//! Invariants: a sign of an earlier life changes nothing; the table has no more than [`BROKERS_MAX`] rows.
//! It has no clock: times are those of [`base::env::Clock::now`], given by the caller.

use std::collections::BTreeMap;
use std::time::Duration;

use base::ids::{BrokerId, Incarnation};

/// Most brokers that are remembered; a further one takes the place of the one that was silent for longest.
const BROKERS_MAX: usize = 10_000;
/// A leader that has not seen its majority for so long is not active; afterwards it counts from zero.
pub(crate) const LEASE: Duration = Duration::from_secs(1);
/// The connection of what is heard without any: it never ends.
pub(crate) const NO_CONNECTION: u64 = 0;

/// What the active controller heard of brokers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// How long this node has been the active controller without interruption: a broker that is missing in `heard` was
    /// silent for so long at least.
    pub active_for: Duration,
    /// Brokers that were heard at least once since this node started, whether it was active then or not.
    pub heard: BTreeMap<BrokerId, Heard>,
}

/// The last sign of life of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Which life showed itself.
    pub incarnation: Incarnation,
    /// How long ago.
    pub ago: Duration,
    /// The connection that its heartbeats came on ended, and none came since. A broker that lives comes back on another
    /// one with its next heartbeat.
    pub hung_up: bool,
}

#[derive(Debug)]
struct Row {
    incarnation: Incarnation,
    at: Duration,
    connection: u64,
    hung_up: bool,
}

#[derive(Debug)]
struct Active {
    term: u64,
    since: Duration,
    /// When a majority was last seen to follow; `None` where there is nobody else.
    confirmed: Option<Duration>,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<BrokerId, Row>,
    active: Option<Active>,
    connections: u64,
}

impl Table {
    /// The table of the only controller, which is active from now on.
    pub(crate) fn alone(now: Duration) -> Table {
        Table { active: Some(Active { term: 0, since: now, confirmed: None }), ..Table::default() }
    }

    /// A number for a connection that heartbeats may come on.
    pub(crate) fn connect(&mut self) -> u64 {
        self.connections += 1;
        self.connections
    }

    /// Notes a sign of life.
    pub(crate) fn note(
        &mut self,
        broker: BrokerId,
        incarnation: Incarnation,
        connection: u64,
        now: Duration,
    ) {
        let known = self.rows.get(&broker);
        if known.is_some_and(|row| row.incarnation > incarnation) {
            return;
        }
        if known.is_none() && self.rows.len() >= BROKERS_MAX {
            let silent = self.rows.iter().min_by_key(|(_, row)| row.at).map(|(broker, _)| *broker);
            silent.and_then(|broker| self.rows.remove(&broker));
        }
        self.rows.insert(broker, Row { incarnation, at: now, connection, hung_up: false });
    }

    /// Notes that a connection ended.
    pub(crate) fn hang_up(&mut self, connection: u64) {
        for row in self.rows.values_mut().filter(|row| row.connection == connection) {
            row.hung_up = true;
        }
    }

    /// Notes that a majority followed this node in a term at a time not later than `now`.
    pub(crate) fn confirm(&mut self, term: u64, at: Duration, now: Duration) {
        match &mut self.active {
            Some(Active { term: known, confirmed: Some(confirmed), .. })
                if *known == term && at.saturating_sub(*confirmed) <= LEASE =>
            {
                *confirmed = at.max(*confirmed);
            }
            _ => self.active = Some(Active { term, since: now, confirmed: Some(at) }),
        }
    }

    /// Notes that this node does not lead.
    pub(crate) fn step_down(&mut self) {
        self.active = None;
    }

    /// Whether this node is the active controller.
    pub(crate) fn is_active(&self, now: Duration) -> bool {
        self.active_since(now).is_some()
    }

    fn active_since(&self, now: Duration) -> Option<Duration> {
        let active = self.active.as_ref()?;
        let holds = active.confirmed.is_none_or(|confirmed| now.saturating_sub(confirmed) <= LEASE);
        holds.then_some(active.since)
    }

    /// What was heard; `None` unless this node is the active controller.
    pub(crate) fn sessions(&self, now: Duration) -> Option<Sessions> {
        let active_for = now.saturating_sub(self.active_since(now)?);
        let heard = |row: &Row| Heard {
            incarnation: row.incarnation,
            ago: now.saturating_sub(row.at),
            hung_up: row.hung_up,
        };
        let heard = self.rows.iter().map(|(broker, row)| (*broker, heard(row))).collect();
        Some(Sessions { active_for, heard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKER: BrokerId = BrokerId(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn heard(table: &Table, now: Duration) -> Heard {
        table.sessions(now).expect("it is active").heard[&BROKER]
    }

    #[test]
    fn the_only_controller_tells_who_was_heard_when() {
        let mut table = Table::alone(ms(5));
        table.note(BROKER, Incarnation(3), NO_CONNECTION, ms(10));
        let sessions = table.sessions(ms(1_000_000)).unwrap();
        assert_eq!(sessions.active_for, ms(999_995));
        let last = Heard { incarnation: Incarnation(3), ago: ms(999_990), hung_up: false };
        assert_eq!(sessions.heard, BTreeMap::from([(BROKER, last)]));
    }

    #[test]
    fn a_connection_that_ended_counts_until_another_one_is_used() {
        let mut table = Table::alone(ms(0));
        let (first, second) = (table.connect(), table.connect());
        table.note(BROKER, Incarnation(1), first, ms(0));
        table.hang_up(second);
        assert!(!heard(&table, ms(1)).hung_up, "it was the connection of nobody");
        table.hang_up(first);
        assert!(heard(&table, ms(1)).hung_up);
        table.note(BROKER, Incarnation(1), second, ms(2));
        table.hang_up(first);
        assert!(!heard(&table, ms(2)).hung_up, "it was left before");
    }

    #[test]
    fn an_earlier_life_is_not_heard_any_more() {
        let mut table = Table::alone(ms(0));
        table.note(BROKER, Incarnation(2), NO_CONNECTION, ms(1));
        table.note(BROKER, Incarnation(1), table.connections, ms(5));
        assert_eq!(heard(&table, ms(5)), Heard { incarnation: Incarnation(2), ago: ms(4), hung_up: false });
        table.note(BROKER, Incarnation(3), NO_CONNECTION, ms(6));
        assert_eq!(heard(&table, ms(6)).incarnation, Incarnation(3));
    }

    #[test]
    fn who_does_not_lead_tells_nothing_but_remembers() {
        let mut table = Table::default();
        table.note(BROKER, Incarnation(1), NO_CONNECTION, ms(0));
        assert_eq!(table.sessions(ms(0)), None);
        table.confirm(4, ms(10), ms(10));
        assert_eq!(table.sessions(ms(15)).unwrap().active_for, ms(5));
        assert_eq!(heard(&table, ms(15)).ago, ms(15));
        table.step_down();
        assert_eq!(table.sessions(ms(15)), None);
    }

    #[test]
    fn the_time_as_active_controller_begins_anew_after_a_gap_and_in_another_term() {
        let mut table = Table::default();
        for now in (0..=5_000).step_by(100) {
            table.confirm(1, ms(now), ms(now));
        }
        assert_eq!(table.sessions(ms(5_100)).unwrap().active_for, ms(5_100));
        table.confirm(1, ms(4_900), ms(5_200));
        assert!(table.is_active(ms(6_000)), "an older word takes nothing back");
        // The process stood still: it must not think that all others died meanwhile.
        assert_eq!(table.sessions(ms(20_000)), None);
        table.confirm(1, ms(20_010), ms(20_010));
        assert_eq!(table.sessions(ms(20_110)).unwrap().active_for, ms(100));
        table.confirm(2, ms(20_110), ms(20_120));
        assert_eq!(table.sessions(ms(20_120)).unwrap().active_for, ms(0));
    }

    #[test]
    fn the_table_does_not_grow_without_bound() {
        let mut table = Table::alone(ms(0));
        for broker in 0..BROKERS_MAX as u64 + 10 {
            table.note(BrokerId(broker as i32), Incarnation(1), NO_CONNECTION, ms(broker));
        }
        let heard = table.sessions(ms(0)).unwrap().heard;
        assert_eq!(heard.len(), BROKERS_MAX);
        assert_eq!(heard.first_key_value().unwrap().0, &BrokerId(10));
    }
}
