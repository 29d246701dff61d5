//! Every bound on connections: those an operator sets and those that are ours.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use base::config::{BrokerConfig, keys};

use crate::memory::MemoryShares;

/// Room made for reading when nothing is known of what comes, bytes. Also the most that one turn of a
/// connection reads: with more, a busy producer starves consumers on the same thread.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// A frame gets room for this many times what has arrived of it, so that what a peer announces is paid for by
/// what it sends; 16 means that a frame of 1 MiB moves once, when its first 64 KiB are there.
pub(super) const GROWTH_FACTOR: usize = 16;

/// Frames up to this size are copied out of the read buffer instead of holding on to it, and are read even when
/// memory is short, bytes.
pub(super) const SMALL_FRAME_BYTES: usize = 4 * 1024;

/// Requests of one connection that may be unanswered at once. Clients have at most a handful in flight.
pub(super) const WINDOW_REQUESTS: usize = 64;

/// Unsent bytes of answers above which a connection starts no further request, bytes.
pub(super) const OUTPUT_BYTES: usize = 1024 * 1024;

/// The most that one turn of a connection writes, bytes.
pub(super) const WRITE_BYTES: usize = 256 * 1024;

/// Runs of bytes given to one vectored write.
pub(super) const RUNS_PER_WRITE: usize = 64;

/// Changes of the bytes a connection holds below this are not told to the common budget, bytes; so small
/// requests do not meet on one counter.
pub(super) const ACCOUNT_GRAIN_BYTES: usize = 16 * 1024;

/// Answers may hold more than the budget by one of so many parts of it.
pub(super) const ANSWERS_BEYOND_PART: i64 = 4;

/// How often connections are looked at for having stood still.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is looked at which lane is how busy.
pub(super) const BALANCE_INTERVAL: Duration = Duration::from_millis(200);

/// Time a frame may take whatever its size. After it the frame must have come at [`FRAME_BYTES_PER_SECOND`].
pub(super) const FRAME_GRACE: Duration = Duration::from_secs(30);

/// The slowest pace of a frame beyond [`FRAME_GRACE`]: a modem's. A client that drips bytes is slower.
pub(super) const FRAME_BYTES_PER_SECOND: u64 = 4 * 1024;

/// While memory is short: time for the whole rest of a frame that is read beyond the budget, and time any frame may
/// stand still.
pub(super) const SHORT_OF_MEMORY_FRAME: Duration = Duration::from_secs(10);

/// Time a client may leave its answers unread while memory is short.
pub(super) const SHORT_OF_MEMORY_WRITE: Duration = Duration::from_secs(30);

/// Time a client may leave its answers unread when the operator lets connections be idle for ever.
pub(super) const UNREAD_ANSWERS: Duration = Duration::from_secs(600);

/// Time the requests of a client that has closed its sending side may still take.
pub(super) const AFTER_END_OF_INPUT: Duration = Duration::from_secs(5);

/// Time given to a peer that does not speak Kafka to read what it is told.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// Pauses between attempts to accept when the system has no file descriptor or memory left.
pub(super) const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(10);
/// See [`ACCEPT_PAUSE_MIN`].
pub(super) const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Limits that an operator sets; the dynamic ones may change while connections are open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `socket.request.max.bytes`, or our choice: the largest frame, without its size.
    pub frame_bytes_max: usize,
    /// `connections.max.idle.ms`; `None` never closes an idle connection.
    pub idle_max: Option<Duration>,
    /// `max.connections`.
    pub connections_max: usize,
    /// `max.connections.per.ip`.
    pub connections_per_address_max: usize,
    /// `max.connections.per.ip.overrides`, by address.
    pub connections_per_address_overrides: HashMap<IpAddr, usize>,
    /// `queued.max.request.bytes`, or our choice: bytes of requests and answers held over all connections.
    pub budget_bytes: u64,
}

impl Limits {
    /// The limits that a configuration and what memory there is set.
    pub fn from_config(config: &BrokerConfig, memory: &MemoryShares) -> Limits {
        let count = |number: i32| usize::try_from(number).unwrap_or(0);
        let (overrides, per_address) = config.connections_per_address();
        let overrides = overrides.into_iter().filter_map(|(address, number)| {
            let parsed = address.parse::<IpAddr>();
            if parsed.is_err() {
                // Looking a name up would wait for a name server, and the address behind it may change.
                tracing::warn!(%address, "max.connections.per.ip.overrides takes addresses, not host names");
            }
            Some((parsed.ok()?, count(number)))
        });
        Limits {
            frame_bytes_max: memory.frame_bytes,
            idle_max: config.connections_max_idle_ms().map(Duration::from_millis),
            connections_max: count(config.get(keys::MAX_CONNECTIONS)).min(memory.connections_max),
            connections_per_address_max: count(per_address),
            connections_per_address_overrides: overrides.collect(),
            budget_bytes: memory.request_bytes,
        }
    }

    /// How many connections one address may have.
    pub(super) fn connections_from(&self, address: IpAddr) -> usize {
        let own = self.connections_per_address_overrides.get(&address);
        own.copied().unwrap_or(self.connections_per_address_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_kafkas() {
        let shares = MemoryShares::of(1 << 50);
        let limits = Limits::from_config(&BrokerConfig::defaults(), &shares);
        assert_eq!(limits.frame_bytes_max, 104_857_600);
        assert_eq!(limits.idle_max, Some(Duration::from_secs(600)));
        assert_eq!(limits.connections_max, i32::MAX as usize);
        assert_eq!(limits.connections_from("10.0.0.1".parse().unwrap()), i32::MAX as usize);
        assert_eq!(limits.budget_bytes, shares.request_bytes);
    }

    #[test]
    fn memory_bounds_connections_and_frames() {
        let limits = Limits::from_config(&BrokerConfig::defaults(), &MemoryShares::of(64 << 20));
        assert_eq!((limits.connections_max, limits.frame_bytes_max), (819, 8 << 20));
    }
}
