//! Whole clusters under faults, over many seeds: what clients were told stays true, copies are what was sealed, chains follow
//! each other, and afterwards everything is as it was (replication.md section 4). `SIM_SEEDS=a..b` picks seeds; `cargo run -p
//! sim -- --seed N` shows one.

use sim::cluster::faults::Kind;
use sim::cluster::{Counts, Options, Outcome, run_seed};
use sim::seeds;

/// A seed takes some seven seconds of processor time in a debug build.
const SEEDS: u64 = 5;

fn run(options: Options) -> Outcome {
    let outcome = run_seed(&options);
    if let Err(error) = &outcome.result {
        panic!("{}\nseed {}: {error}\n{options:?}", outcome.trace, options.seed);
    }
    outcome
}

/// Runs seeds from `first` on; counts of all.
fn run_all(first: u64, options: impl Fn(u64) -> Options) -> Counts {
    let mut all = Counts::default();
    for seed in seeds(SEEDS) {
        let counts = run(options(first + seed)).result.unwrap_or_default();
        assert!(counts.records > 0, "seed {seed} wrote nothing");
        all.records += counts.records;
        all.copies += counts.copies;
        all.faults += counts.faults;
        all.disks += counts.disks;
    }
    assert!(all.copies > 0, "nothing was sealed");
    println!("{all:?}");
    all
}

#[test]
fn a_cluster_keeps_its_word_under_all_kinds_of_faults() {
    run_all(0, Options::new);
}

#[test]
fn three_voters_and_two_that_follow_them_keep_their_word() {
    let compaction = |seed: u64| seed.is_multiple_of(2);
    run_all(1_000, |seed| Options { nodes: 5, compaction: compaction(seed), ..Options::new(seed) });
}

#[test]
fn a_cluster_whose_disks_are_lost_or_damaged_keeps_its_word() {
    let faults = vec![Kind::LoseDisk, Kind::FlipBit, Kind::Overlap, Kind::Power, Kind::FailDisk];
    let counts = run_all(3_000, |seed| Options { faults: faults.clone(), ..Options::new(seed) });
    assert!(counts.disks > 0, "no disk was touched");
}

#[test]
fn everything_in_a_run_follows_from_its_seed() {
    let (one, other) = (run(Options::new(3)), run(Options::new(3)));
    assert_eq!(one.trace, other.trace);
    assert!(one.trace.lines().count() > 50, "{}", one.trace);
    let trace = |seed| run(Options { faults: Vec::new(), ..Options::new(seed) }).trace;
    assert_ne!(trace(5), trace(6));
}
