//! Whole clusters under faults, over many seeds: what clients were told stays true, copies are what was sealed, chains follow
//! each other, and afterwards everything is as it was (replication.md section 4). `SIM_SEEDS=a..b` picks seeds; `cargo run -p
//! sim -- --seed N` shows one.

use sim::cluster::faults::Kind;
use sim::cluster::{Options, Outcome, run_seed};
use sim::seeds;

/// A seed takes some five seconds of processor time in a debug build.
const SEEDS: u64 = 6;

fn run(options: Options) -> Outcome {
    let outcome = run_seed(&options);
    if let Err(error) = &outcome.result {
        panic!("{}\nseed {}: {error}\n{options:?}", outcome.trace, options.seed);
    }
    outcome
}

/// Runs seeds from `first` on; records and copies of all.
fn run_all(first: u64, options: impl Fn(u64) -> Options) {
    let (mut records, mut copies, mut faults) = (0, 0, 0);
    for seed in seeds(SEEDS) {
        let counts = run(options(first + seed)).result.unwrap_or_default();
        assert!(counts.records > 0, "seed {seed} wrote nothing");
        (records, copies, faults) =
            (records + counts.records, copies + counts.copies, faults + counts.faults);
    }
    assert!(copies > 0, "nothing was sealed");
    println!("{records} records, {copies} copies, {faults} faults");
}

#[test]
fn a_cluster_keeps_its_word_under_all_kinds_of_faults() {
    run_all(0, |seed| Options { compaction: false, ..Options::new(seed) });
}

#[test]
fn three_voters_and_two_that_follow_them_keep_their_word() {
    run_all(1_000, |seed| Options { nodes: 5, compaction: false, ..Options::new(seed) });
}

#[test]
fn a_cluster_that_compacts_keeps_its_word_while_leaders_stay() {
    let faults = vec![Kind::Clock, Kind::SlowDisk, Kind::Reset];
    run_all(2_000, |seed| Options { faults: faults.clone(), ..Options::new(seed) });
}

#[test]
fn everything_in_a_run_follows_from_its_seed() {
    for seed in [3, 4] {
        let options = Options { compaction: false, ..Options::new(seed) };
        let (one, other) = (run(options.clone()), run(options));
        assert_eq!(one.trace, other.trace);
        assert!(one.trace.lines().count() > 50, "{}", one.trace);
    }
    let trace = |seed| run(Options { faults: Vec::new(), ..Options::new(seed) }).trace;
    assert_ne!(trace(5), trace(6));
}
