//! Log lines about peers, at most one for each address and kind in a while.
//!
//! Whoever can reach the port can cause these lines, so neither their number nor the memory that remembers
//! them may grow with the number of attempts.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;

/// Time between two lines of a kind about an address.
const QUIET: Duration = Duration::from_secs(60);

/// Addresses and kinds remembered; when it is full, everything is forgotten.
const REMEMBERED_MAX: usize = 1024;

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Http,
    Tls,
    OtherProtocol,
    BadFrame,
    Refused,
    Stalled,
    TooManyFromAddress,
    TooManyAtAll,
    AcceptFailed,
}

/// When which line was last written.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<HashMap<(IpAddr, Kind), Duration>>);

impl Notices {
    /// True if a line of this kind about this address is due; then it counts as written.
    pub(super) fn is_due(&self, address: IpAddr, kind: Kind, now: Duration) -> bool {
        let mut written = self.0.lock();
        if written.get(&(address, kind)).is_some_and(|last| now.saturating_sub(*last) < QUIET) {
            return false;
        }
        if written.len() >= REMEMBERED_MAX {
            written.clear();
        }
        written.insert((address, kind), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_line_comes_again_only_after_a_while() {
        let notices = Notices::default();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let at = Duration::from_secs;
        assert!(notices.is_due(address, Kind::Tls, at(5)));
        assert!(!notices.is_due(address, Kind::Tls, at(64)));
        assert!(notices.is_due(address, Kind::Http, at(64)));
        assert!(notices.is_due(address, Kind::Tls, at(65)));
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let notices = Notices::default();
        for number in 0..10_000u32 {
            let address = IpAddr::V4(Ipv4Addr::from(number));
            assert!(notices.is_due(address, Kind::BadFrame, Duration::ZERO));
            assert!(notices.0.lock().len() <= REMEMBERED_MAX);
        }
    }
}
