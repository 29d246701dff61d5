//! The replication protocol in every order of events: searched to the end in small worlds, walked at random in larger
//! ones (replication.md, section 4). What each deliberate mistake breaks must be found.

use std::collections::HashSet;

use base::env::sim::SimRandom;

mod mistakes;
mod world;

use mistakes::Mistake;
use world::{Action, Bounds, World};

const SMALL: Bounds = Bounds {
    nodes: 3,
    copies_min: 2,
    ack_quorum: 0,
    records: 1,
    epochs: 1,
    segments: 2,
    restarts: 0,
    lossy_crashes: 0,
    mistake: None,
};

struct Broken {
    what: String,
    steps: Vec<Action>,
}

/// Every world that can come of the first one. Returns how many there are.
fn search(bounds: Bounds, most: usize) -> Result<usize, Broken> {
    let first = World::new(bounds);
    let mut seen = HashSet::from([first.fingerprint()]);
    let mut path: Vec<(World, Vec<Action>, Option<Action>)> = vec![(first.clone(), first.actions(), None)];
    while let Some((world, actions, _)) = path.last_mut() {
        let Some(action) = actions.pop() else {
            path.pop();
            continue;
        };
        match world.after(&action) {
            None => {}
            Some(Err(what)) => {
                let mut steps: Vec<Action> = path.into_iter().filter_map(|(.., action)| action).collect();
                steps.push(action);
                return Err(Broken { what, steps });
            }
            Some(Ok(next)) if seen.insert(next.fingerprint()) => {
                assert!(seen.len() <= most, "more than {most} worlds");
                let actions = next.actions();
                path.push((next, actions, Some(action)));
            }
            Some(Ok(_)) => {}
        }
    }
    Ok(seen.len())
}

/// One way through, as long as anything can happen and at most `steps_max` steps.
fn walk(bounds: Bounds, seed: u64, steps_max: usize) -> Result<(), Broken> {
    let random = SimRandom::new(seed);
    let mut world = World::new(bounds);
    let mut steps = Vec::new();
    while steps.len() < steps_max {
        let mut actions = world.actions();
        let next = loop {
            if actions.is_empty() {
                return Ok(());
            }
            let action = actions.swap_remove(random.below(actions.len() as u64) as usize);
            if let Some(next) = world.after(&action) {
                steps.push(action);
                break next;
            }
        };
        match next {
            Ok(next) => world = next,
            Err(what) => return Err(Broken { what, steps }),
        }
    }
    Ok(())
}

fn must_hold(result: Result<usize, Broken>) -> usize {
    result.unwrap_or_else(|broken| panic!("{}\n{:#?}", broken.what, broken.steps))
}

/// The first seeds of the walks; a failure names its own.
fn walks(bounds: Bounds, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        if let Err(broken) = walk(bounds, seed, 400) {
            panic!("seed {seed}: {}\n{:#?}", broken.what, broken.steps);
        }
    }
}

/// Whether some walk breaks.
fn is_found(bounds: Bounds, seeds: u64) -> bool {
    (0..seeds).any(|seed| match walk(bounds, seed, 400) {
        Ok(()) => false,
        Err(broken) => {
            eprintln!("{:?}, seed {seed}, {} steps: {}", bounds.mistake, broken.steps.len(), broken.what);
            true
        }
    })
}

#[test]
fn a_small_world_keeps_what_it_acknowledged() {
    let worlds = must_hold(search(SMALL, 2_000_000));
    eprintln!("{worlds} worlds");
}

#[test]
fn a_small_world_with_majorities_keeps_what_it_acknowledged() {
    let worlds = must_hold(search(Bounds { ack_quorum: 2, ..SMALL }, 2_000_000));
    eprintln!("{worlds} worlds");
}

#[test]
fn two_nodes_that_crash_keep_what_they_acknowledged() {
    let bounds = Bounds { nodes: 2, copies_min: 2, restarts: 1, lossy_crashes: 1, ..SMALL };
    let worlds = must_hold(search(bounds, 2_000_000));
    eprintln!("{worlds} worlds");
}

const LARGE: Bounds =
    Bounds { nodes: 4, records: 5, epochs: 3, segments: 6, restarts: 2, lossy_crashes: 1, ..SMALL };

#[test]
fn larger_worlds_keep_what_they_acknowledged() {
    walks(LARGE, 0..300);
}

#[test]
fn larger_worlds_with_majorities_keep_what_they_acknowledged() {
    walks(Bounds { ack_quorum: 3, ..LARGE }, 0..300);
}

#[test]
fn every_mistake_is_found() {
    let plain = Bounds { nodes: 3, records: 2, epochs: 2, segments: 4, ..SMALL };
    let cases = [
        (Mistake::NoFreeze, plain),
        (Mistake::NoFence, plain),
        (Mistake::AcceptAfterRestart, Bounds { restarts: 1, ..plain }),
        (Mistake::TrustLimbo, Bounds { lossy_crashes: 1, ..plain }),
        (Mistake::SealTooFew, Bounds { lossy_crashes: 1, ..plain }),
        (Mistake::ListNonHolders, plain),
        (Mistake::LowCoverage, Bounds { ack_quorum: 2, ..plain }),
    ];
    for (mistake, bounds) in cases {
        assert!(!is_found(bounds, 500), "{mistake:?}: the walks break without it");
        assert!(is_found(Bounds { mistake: Some(mistake), ..bounds }, 200_000), "{mistake:?} is not found");
    }
}
