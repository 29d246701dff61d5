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
    /// A log directory is lost, and its node comes back with an empty one.
    LoseDisk,
    /// A bit of a sealed segment flips on one disk, which is replaced some time later, or mended by its broker.
    FlipBit,
    /// Two faults of other kinds at once.
    Overlap,
}

impl Kind {
    /// All kinds, with their names.
    pub const ALL: [(Kind, &'static str); 18] = [
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
        (Kind::LoseDisk, "lose-disk"),
        (Kind::FlipBit, "flip-bit"),
        (Kind::Overlap, "overlap"),
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
    /// How long after another one, which lasts, it begins, ms.
    pub after_ms: u64,
    /// How long until it is undone, ms.
    pub lasts_ms: u64,
    /// How long until the next one begins after that, ms.
    pub rest_ms: u64,
    /// Chooses among variants.
    pub variant: u64,
}

/// Faults of the given kinds in a cluster of so many nodes: those in one list lap over, the lists come one after the other.
pub fn plan(random: &SimRandom, kinds: &[Kind], nodes: usize) -> Vec<Vec<Fault>> {
    let single: Vec<Kind> = kinds.iter().copied().filter(|kind| *kind != Kind::Overlap).collect();
    if single.is_empty() {
        return Vec::new();
    }
    let count = 2 + random.below(4);
    let strike = |_| match pick(random, kinds) {
        Kind::Overlap => overlap(random, &single, nodes),
        kind => vec![draw(random, kind, nodes)],
    };
    (0..count).map(strike).collect()
}

fn pick(random: &SimRandom, kinds: &[Kind]) -> Kind {
    kinds[random.below(kinds.len() as u64) as usize]
}

fn draw(random: &SimRandom, kind: Kind, nodes: usize) -> Fault {
    let node = random.below(nodes as u64) as usize;
    let other = (node + 1 + random.below(nodes as u64 - 1) as usize) % nodes;
    // Some are shorter than any time-out, some longer than all.
    let lasts_ms = [300, 1_500, 5_000, 12_000][random.below(4) as usize] * (50 + random.below(100)) / 100;
    let rest_ms = [0, 500, 4_000][random.below(3) as usize] * (50 + random.below(100)) / 100;
    Fault { kind, node, other, after_ms: 0, lasts_ms, rest_ms, variant: random.next_u64() >> 32 }
}

/// Two of different kinds, of which the second begins while the first lasts.
fn overlap(random: &SimRandom, kinds: &[Kind], nodes: usize) -> Vec<Fault> {
    let first = draw(random, pick(random, kinds), nodes);
    let others: Vec<Kind> = kinds.iter().copied().filter(|kind| *kind != first.kind).collect();
    if others.is_empty() {
        return vec![first];
    }
    let after_ms = random.below(first.lasts_ms);
    let second = Fault { after_ms, ..draw(random, pick(random, &others), nodes) };
    vec![first, second]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_follow_from_the_seed_and_name_two_nodes() {
        let kinds: Vec<Kind> = Kind::ALL.iter().map(|(kind, _)| *kind).collect();
        let of = |seed| plan(&SimRandom::new(seed), &kinds, 3);
        assert_eq!(of(5), of(5));
        let strikes: Vec<Vec<Fault>> = (0..200).flat_map(of).collect();
        let all = strikes.concat();
        assert!(all.iter().all(|fault| fault.node < 3 && fault.other < 3 && fault.node != fault.other));
        let single = kinds.iter().filter(|kind| **kind != Kind::Overlap);
        assert!(single.into_iter().all(|kind| all.iter().any(|fault| fault.kind == *kind)));
        assert!(plan(&SimRandom::new(1), &[], 3).is_empty());
        assert!(plan(&SimRandom::new(1), &[Kind::Overlap], 3).is_empty());
        let pairs: Vec<_> = strikes.iter().filter(|strike| strike.len() == 2).collect();
        assert!(pairs.len() > 10);
        let laps = |pair: &&Vec<Fault>| pair[0].kind != pair[1].kind && pair[1].after_ms < pair[0].lasts_ms;
        assert!(pairs.iter().all(laps));
    }

    #[test]
    fn kinds_are_named() {
        assert!(Kind::ALL.iter().all(|(kind, name)| Kind::of(name) == Some(*kind)));
        assert_eq!(Kind::of("nothing"), None);
    }
}
