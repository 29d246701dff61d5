//! Records that are in the page cache alone when the power goes: nobody leads who may have lost some, unless that is asked
//! for, and then it is the longest copy that leads (replication.md 2.9, 2.10).

use sim::cluster::limbo::{PowerCut, run_power_cut};
use sim::seeds;

const SEEDS: u64 = 3;

fn run(cut: PowerCut) {
    for seed in seeds(SEEDS) {
        let outcome = run_power_cut(seed, cut);
        match outcome.result {
            Ok(counts) => assert!(counts.records > 0, "seed {seed} wrote nothing"),
            Err(error) => panic!("{}\nseed {seed}, {cut:?}: {error}", outcome.trace),
        }
    }
}

#[test]
fn one_that_kept_its_power_leads_and_nothing_is_lost() {
    run(PowerCut::OneStays);
}

#[test]
fn nobody_leads_until_asked_and_then_the_longest_copy() {
    run(PowerCut::OneDiskHasAll);
}

#[test]
fn what_all_have_lost_is_gone_and_the_rest_goes_on() {
    run(PowerCut::AllIsLost);
}
