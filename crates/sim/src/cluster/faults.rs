//! What is done to a cluster: faults of machines, disks, links and clocks, drawn from the seed.

use base::env::Random;
use base::env::sim::SimRandom;

/// A kind of fault, by the name that `--faults` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A process is killed and started again.
    Kill,
    /// A machine loses power and comes back.
    Power,
    /// All machines lose power at once.
    Blackout,
    /// Two machines lose power or their processes, one after the other.
    Two,
    /// A process stands still.
    Pause,
    /// A machine is cut off from the others.
    Cut,
    /// Nothing arrives from one machine at another.
    OneWay,
    /// All connections of a machine break.
    Reset,
    /// A link is slow.
    SlowLink,
    /// A disk is slow.
    SlowDisk,
    /// A sync or write of a disk fails.
    FailDisk,
    /// A disk is full for a while.
    FullDisk,
    /// A wall clock jumps.
    Clock,
    /// A node ends in order and is started again.
    Restart,
    /// All nodes, one after the other.
    Rolling,
}

impl Kind {
    /// All kinds, with their names.
    pub const ALL: [(Kind, &'static str); 15] = [
        (Kind::Kill, "kill"),
        (Kind::Power, "power"),
        (Kind::Blackout, "blackout"),
        (Kind::Two, "two"),
        (Kind::Pause, "pause"),
        (Kind::Cut, "cut"),
        (Kind::OneWay, "one-way"),
        (Kind::Reset, "reset"),
        (Kind::SlowLink, "slow-link"),
        (Kind::SlowDisk, "slow-disk"),
        (Kind::FailDisk, "fail-disk"),
        (Kind::FullDisk, "full-disk"),
        (Kind::Clock, "clock"),
        (Kind::Restart, "restart"),
        (Kind::Rolling, "rolling"),
    ];

    /// The kind of this name.
    pub fn of(name: &str) -> Option<Kind> {
        Kind::ALL.iter().find(|(_, own)| *own == name).map(|(kind, _)| *kind)
    }

    /// Whether a broker may not know for a while what the others do: what it tells of others may be old then.
    pub fn isolates(self) -> bool {
        matches!(self, Kind::Pause | Kind::Cut | Kind::OneWay | Kind::SlowLink)
    }
}

/// One fault: of which kind, where, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happens.
    pub kind: Kind,
    /// To which node, from 0.
    pub node: usize,
    /// Another node, from 0.
    pub other: usize,
    /// How long until it is undone, ms.
    pub lasts_ms: u64,
    /// How long until the next one begins after that, ms.
    pub rest_ms: u64,
    /// Chooses among variants.
    pub variant: u64,
}

/// Faults one after the other, of the given kinds, in a cluster of so many nodes.
pub fn plan(random: &SimRandom, kinds: &[Kind], nodes: usize) -> Vec<Fault> {
    if kinds.is_empty() {
        return Vec::new();
    }
    let count = 2 + random.below(4);
    let fault = |_| {
        let node = random.below(nodes as u64) as usize;
        let other = (node + 1 + random.below(nodes as u64 - 1) as usize) % nodes;
        let kind = kinds[random.below(kinds.len() as u64) as usize];
        // Some are shorter than any time-out, some longer than all.
        let lasts_ms = [300, 1_500, 5_000, 12_000][random.below(4) as usize] * (50 + random.below(100)) / 100;
        let rest_ms = [0, 500, 4_000][random.below(3) as usize] * (50 + random.below(100)) / 100;
        Fault { kind, node, other, lasts_ms, rest_ms, variant: random.next_u64() >> 32 }
    };
    (0..count).map(fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_follow_from_the_seed_and_name_two_nodes() {
        let kinds: Vec<Kind> = Kind::ALL.iter().map(|(kind, _)| *kind).collect();
        let of = |seed| plan(&SimRandom::new(seed), &kinds, 3);
        assert_eq!(of(5), of(5));
        let all: Vec<Fault> = (0..200).flat_map(of).collect();
        assert!(all.iter().all(|fault| fault.node < 3 && fault.other < 3 && fault.node != fault.other));
        assert!(kinds.iter().all(|kind| all.iter().any(|fault| fault.kind == *kind)));
        assert!(plan(&SimRandom::new(1), &[], 3).is_empty());
    }

    #[test]
    fn kinds_are_named() {
        assert!(Kind::ALL.iter().all(|(kind, name)| Kind::of(name) == Some(*kind)));
        assert_eq!(Kind::of("nothing"), None);
    }
}
