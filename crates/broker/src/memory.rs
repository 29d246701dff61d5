//! How much memory clients may make a broker hold, and how that is shared out.
//!
//! `vltava.memory.limit`, or half of what the machine has, is split into fixed shares ([`MemoryShares::of`]). Each
//! pool answers pressure in the way that hurts its clients least, and none grows beyond its share:
//!
//! | pool | at its bound |
//! |---|---|
//! | connections | no more are accepted until one closes |
//! | requests and answers | reading stops, then answers wait or come without records ([`crate::net`]) |
//! | groups and their offsets | who brings more is told to come back later (`coordinator::memory`) |
//! | fetch sessions | a fetch gets no session, and names its partitions each time |
//! | producer states | a partition forgets the producers that were silent for longest |
//! | compaction | takes more passes |
//!
//! What is left is for what operators create: topics, partitions, their indexes, and the process itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::config::{BrokerConfig, keys};
use base::metrics::NodeMetrics;

/// Of what the machine has, the part that the limit is where nobody sets one: the page cache serves what consumers
/// read, and needs as much.
const MACHINE_PART: u64 = 2;
/// What a machine is taken to have that does not tell, bytes.
const MACHINE_BYTES_ASSUMED: u64 = 2 << 30;
/// The least limit that is chosen, bytes.
const LIMIT_MIN_BYTES: u64 = 64 << 20;

/// Parts of the limit: one of so many. Groups have four pools of their part each.
const CONNECTIONS_PART: u64 = 8;
const REQUESTS_PART: u64 = 8;
const GROUPS_PART: u64 = 16;
const FETCH_SESSIONS_PART: u64 = 16;
const PRODUCERS_PART: u64 = 8;
const COMPACTION_PART: u64 = 16;

/// Requests and answers get no more than this unless an operator says so, bytes: more makes nothing faster.
const REQUESTS_MAX_BYTES: u64 = 128 << 20;
/// Fetch sessions likewise, bytes: those of a hundred consumers of 5,000 partitions each.
const FETCH_SESSIONS_MAX_BYTES: u64 = 128 << 20;

/// What a connection at rest is taken to hold, bytes: 3.5 KB were measured, and the system's buffers come on top.
const CONNECTION_BYTES: u64 = 10 * 1024;

/// How a limit is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShares {
    /// The limit, bytes.
    pub limit_bytes: u64,
    /// Connections that may be open.
    pub connections_max: usize,
    /// The largest frame, bytes.
    pub frame_bytes: usize,
    /// Requests in work and answers not sent, bytes.
    pub request_bytes: u64,
    /// Members of groups, groups, records on their way to the log, and committed offsets, each, bytes.
    pub group_bytes: usize,
    /// Fetch sessions, bytes.
    pub fetch_session_bytes: usize,
    /// Producer states of all partitions, bytes.
    pub producer_bytes: usize,
    /// The map of keys of all compaction threads, bytes.
    pub compaction_bytes: usize,
}

impl MemoryShares {
    /// The shares of a limit, bytes, where no other key says anything.
    pub fn of(limit_bytes: u64) -> MemoryShares {
        let part = |parts: u64| usize::try_from(limit_bytes / parts).unwrap_or(usize::MAX);
        let at_most = |parts: u64, bytes: u64| part(parts).min(usize::try_from(bytes).unwrap_or(usize::MAX));
        let default = |number: i64| u64::try_from(number).unwrap_or(0);
        let defaults = BrokerConfig::defaults();
        let group_bytes = defaults.get(keys::GROUP_MEMORY_MAX_BYTES);
        let compaction_bytes = defaults.get(keys::LOG_CLEANER_DEDUPE_BUFFER_SIZE);
        let request_bytes = (limit_bytes / REQUESTS_PART).min(REQUESTS_MAX_BYTES);
        MemoryShares {
            limit_bytes,
            connections_max: usize::try_from(limit_bytes / CONNECTIONS_PART / CONNECTION_BYTES)
                .unwrap_or(usize::MAX),
            frame_bytes: frame_bytes(&defaults, request_bytes),
            request_bytes,
            group_bytes: at_most(GROUPS_PART, default(group_bytes)),
            fetch_session_bytes: at_most(FETCH_SESSIONS_PART, FETCH_SESSIONS_MAX_BYTES),
            producer_bytes: part(PRODUCERS_PART),
            compaction_bytes: at_most(COMPACTION_PART, default(compaction_bytes)),
        }
    }

    /// The shares of a configuration on a machine with so much memory, bytes. Keys that bound one thing count more
    /// than its share.
    pub fn from_config(config: &BrokerConfig, machine_bytes: Option<u64>) -> MemoryShares {
        let machine_bytes = machine_bytes.unwrap_or(MACHINE_BYTES_ASSUMED);
        let chosen = (machine_bytes / MACHINE_PART).max(LIMIT_MIN_BYTES);
        let shares = MemoryShares::of(config.memory_limit_bytes().unwrap_or(chosen));
        let bytes = |number: i64| usize::try_from(number).unwrap_or(0);
        let group = config.set_value(keys::GROUP_MEMORY_MAX_BYTES);
        let compaction = config.set_value(keys::LOG_CLEANER_DEDUPE_BUFFER_SIZE);
        let request_bytes = config.queued_max_request_bytes().unwrap_or(shares.request_bytes);
        MemoryShares {
            frame_bytes: frame_bytes(config, request_bytes),
            request_bytes,
            group_bytes: group.map_or(shares.group_bytes, bytes),
            compaction_bytes: compaction.map_or(shares.compaction_bytes, bytes),
            ..shares
        }
    }

    /// Shows limit and bounds.
    pub(crate) fn show(&self, node: &NodeMetrics) {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        node.memory_limit_bytes.set(number(self.limit_bytes));
        node.request_bytes_max.set(number(self.request_bytes));
        node.group_bytes_max.set(number(self.group_bytes as u64));
        node.fetch_session_bytes_max.set(number(self.fetch_session_bytes as u64));
        node.producer_bytes_max.set(number(self.producer_bytes as u64));
    }
}

/// The largest frame, bytes: `socket.request.max.bytes`, and where nobody sets that, what requests may hold at most.
fn frame_bytes(config: &BrokerConfig, request_bytes: u64) -> usize {
    let bytes = usize::try_from(config.get(keys::SOCKET_REQUEST_MAX_BYTES)).unwrap_or(0);
    match config.set_value(keys::SOCKET_REQUEST_MAX_BYTES) {
        Some(_) => bytes,
        None => bytes.min(usize::try_from(request_bytes).unwrap_or(usize::MAX)),
    }
}

/// What the producer states of all partitions hold together.
#[derive(Debug)]
pub(crate) struct ProducerMemory {
    max_bytes: usize,
    held_bytes: AtomicUsize,
    metrics: NodeMetrics,
}

impl ProducerMemory {
    /// Of which nothing is held.
    pub(crate) fn new(max_bytes: usize, metrics: NodeMetrics) -> Arc<ProducerMemory> {
        Arc::new(ProducerMemory { max_bytes, held_bytes: AtomicUsize::new(0), metrics })
    }

    /// Bytes held beyond the bound if `more` came.
    pub(crate) fn excess(&self, more: usize) -> usize {
        self.held_bytes.load(Ordering::Relaxed).saturating_add(more).saturating_sub(self.max_bytes)
    }

    /// Says that somebody who held `before` holds `after` now, bytes.
    pub(crate) fn changed(&self, before: usize, after: usize) {
        let held = if after >= before {
            self.held_bytes.fetch_add(after - before, Ordering::Relaxed) + (after - before)
        } else {
            self.held_bytes.fetch_sub(before - after, Ordering::Relaxed) - (before - after)
        };
        self.metrics.producer_bytes.set(i64::try_from(held).unwrap_or(i64::MAX));
    }

    /// Counts producers that were forgotten for want of memory.
    pub(crate) fn evicted(&self, producers: usize) {
        self.metrics.producers_evicted.inc_by(producers as u64);
    }
}

#[cfg(test)]
mod tests {
    use base::config::{Assignment, UnknownKeys};

    use super::*;

    const GIB: u64 = 1 << 30;

    fn shares(settings: &[&str], machine_bytes: Option<u64>) -> MemoryShares {
        let assignments: Vec<_> =
            settings.iter().map(|text| Assignment::from_argument(text).expect("key=value")).collect();
        let config = BrokerConfig::load(&assignments, UnknownKeys::Refuse).expect("good settings").config;
        MemoryShares::from_config(&config, machine_bytes)
    }

    #[test]
    fn the_shares_leave_a_quarter_whatever_the_limit() {
        for limit_bytes in [LIMIT_MIN_BYTES, 200 << 20, GIB, 12 * GIB, 1 << 45] {
            let shares = MemoryShares::of(limit_bytes);
            let connections = shares.connections_max as u64 * CONNECTION_BYTES;
            let pools = [shares.fetch_session_bytes, shares.producer_bytes, shares.compaction_bytes];
            let pools: u64 = pools.iter().map(|bytes| *bytes as u64).sum();
            let sum = connections + shares.request_bytes + 4 * shares.group_bytes as u64 + pools;
            assert!(sum <= limit_bytes / 4 * 3, "{shares:?}");
            assert!(shares.frame_bytes as u64 <= shares.request_bytes, "one frame fits");
        }
    }

    #[test]
    fn a_machine_of_two_gibibytes_serves_as_usual() {
        let shares = shares(&[], Some(2 * GIB));
        assert_eq!(shares.limit_bytes, GIB);
        assert_eq!((shares.request_bytes, shares.frame_bytes), (128 << 20, 104_857_600));
        assert_eq!(shares.connections_max, 13_107);
        assert_eq!((shares.group_bytes, shares.fetch_session_bytes), (64 << 20, 64 << 20));
        assert_eq!((shares.producer_bytes, shares.compaction_bytes), (128 << 20, 64 << 20));
        assert_eq!(shares, super::MemoryShares::from_config(&BrokerConfig::defaults(), None));
    }

    #[test]
    fn little_and_much_memory_have_sensible_shares() {
        let least = shares(&[], Some(32 << 20));
        assert_eq!((least.limit_bytes, least.request_bytes, least.frame_bytes), (64 << 20, 8 << 20, 8 << 20));
        assert_eq!((least.connections_max, least.group_bytes), (819, 4 << 20));
        let much = shares(&[], Some(256 * GIB));
        assert_eq!((much.request_bytes, much.fetch_session_bytes), (128 << 20, 128 << 20));
        assert_eq!((much.group_bytes, much.compaction_bytes), (256 << 20, 128 << 20));
        assert_eq!(much.producer_bytes as u64, 16 * GIB);
    }

    #[test]
    fn what_an_operator_sets_wins() {
        let limit = "vltava.memory.limit=67108864";
        assert_eq!(shares(&[limit], Some(64 * GIB)), MemoryShares::of(64 << 20));
        let set = shares(
            &[
                limit,
                "queued.max.request.bytes=200000000",
                "socket.request.max.bytes=90000000",
                "vltava.group.memory.max.bytes=300000000",
                "log.cleaner.dedupe.buffer.size=134217728",
            ],
            None,
        );
        assert_eq!((set.request_bytes, set.frame_bytes), (200_000_000, 90_000_000));
        assert_eq!((set.group_bytes, set.compaction_bytes), (300_000_000, 128 << 20));
        assert_eq!(set.producer_bytes, 8 << 20);
    }

    #[test]
    fn producer_states_are_counted() {
        let metrics = base::metrics::Metrics::default().node().clone();
        let memory = ProducerMemory::new(100, metrics.clone());
        memory.changed(0, 90);
        assert_eq!((memory.excess(10), memory.excess(11)), (0, 1));
        memory.changed(90, 30);
        assert_eq!((memory.excess(80), metrics.producer_bytes.get()), (10, 30));
    }
}
