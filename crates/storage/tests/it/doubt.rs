//! What a storage remembers of power cuts, for those who must not say more than they know.

use base::env::sim::{CrashPolicy, Sim};
use base::ids::SegmentId;

use crate::common::*;

#[test]
fn only_a_power_cut_raises_doubt() {
    let sim = Sim::new(1);
    for _ in 0..2 {
        let storage = open(&sim);
        storage.note_doubt(SegmentId(9)).unwrap();
        assert_eq!(storage.doubtful_to(), None);
        drop(storage);
        sim.disk.kill();
    }
    open(&sim).shutdown_clean().unwrap();
    // After a clean end there was nothing to lose.
    sim.disk.crash(CrashPolicy::LoseAll);
    let storage = open(&sim);
    storage.note_doubt(SegmentId(9)).unwrap();
    assert_eq!(storage.doubtful_to(), None);
}

#[test]
fn doubt_is_noted_by_whichever_life_comes_to_it_and_stays() {
    let sim = Sim::new(1);
    drop(open(&sim));
    sim.disk.crash(CrashPolicy::LoseAll);
    // A life that ended before it was told what there was, and one that failed.
    drop(open(&sim));
    sim.disk.kill();
    let storage = open(&sim);
    storage.note_doubt(SegmentId(9)).unwrap();
    assert_eq!(storage.doubtful_to(), Some(SegmentId(9)));
    storage.note_doubt(SegmentId(12)).unwrap();
    assert_eq!(storage.doubtful_to(), Some(SegmentId(9)));
    storage.shutdown_clean().unwrap();
    drop(storage);
    sim.disk.kill();
    let storage = open(&sim);
    storage.note_doubt(SegmentId(15)).unwrap();
    assert_eq!(storage.doubtful_to(), Some(SegmentId(9)));
    drop(storage);
    sim.disk.crash(CrashPolicy::LoseAll);
    let storage = open(&sim);
    storage.note_doubt(SegmentId(20)).unwrap();
    assert_eq!(storage.doubtful_to(), Some(SegmentId(20)));
}
