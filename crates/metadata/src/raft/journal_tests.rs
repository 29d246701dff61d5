//! The journal against power loss, torn ends, flipped bits and full disks, on the simulated disk.

use std::path::{Path, PathBuf};

use base::env::sim::{CrashPolicy, Sim, SimRandom};

use super::*;

const DIR: &str = "/log";
const FILE_BYTES: usize = 2_000;

fn world(seed: u64) -> Sim {
    let sim = Sim::new(seed);
    sim.disk.set_capacity(1 << 41);
    sim.env.disk.create_dir_all(Path::new(DIR)).unwrap();
    sim.env.disk.sync_dir(Path::new("/")).unwrap();
    sim
}

fn open(sim: &Sim, kept_from: u64) -> Result<(Journal, Entries), FileError> {
    Journal::open(&sim.env, Path::new(DIR), FILE_BYTES, kept_from)
}

fn payload(index: u64, size: usize) -> Vec<u8> {
    let mut bytes = index.to_be_bytes().to_vec();
    bytes.resize(8 + size, index as u8);
    bytes
}

fn run<T>(work: impl FnOnce() -> T) -> T {
    // The simulated clock wants a runtime; the journal itself needs none.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let _entered = runtime.enter();
    work()
}

fn logs(sim: &Sim) -> Vec<PathBuf> {
    let names = sim.env.disk.read_dir(Path::new(DIR)).unwrap();
    let mut names: Vec<_> = names.into_iter().map(|entry| Path::new(DIR).join(entry.name)).collect();
    names.sort();
    names
}

#[test]
fn what_was_appended_is_there_after_reopening() {
    run(|| {
        let sim = world(1);
        let (mut journal, entries) = open(&sim, 0).unwrap();
        assert!(entries.is_empty());
        for first in (0..60).step_by(3) {
            journal
                .append(first, &[payload(first, 100), payload(first + 1, 0), payload(first + 2, 50)])
                .unwrap();
        }
        assert!(logs(&sim).len() >= 2);
        let (_, entries) = open(&sim, 0).unwrap();
        assert_eq!(entries.keys().copied().collect::<Vec<_>>(), (0..60).collect::<Vec<_>>());
        assert_eq!(entries[&57], payload(57, 100));
    });
}

#[test]
fn an_unfinished_append_is_cut_at_every_length_and_nothing_else_is() {
    run(|| {
        let sim = world(2);
        let (mut journal, _) = open(&sim, 0).unwrap();
        journal.append(0, &[payload(0, 10)]).unwrap();
        let path = logs(&sim)[0].clone();
        let one = sim.env.disk.read(&path, 1 << 20).unwrap().len();
        journal.append(1, &[payload(1, 10), payload(2, 600)]).unwrap();
        let whole = sim.env.disk.read(&path, 1 << 20).unwrap();
        for cut in one..whole.len() {
            sim.disk.overwrite(&path, &whole[..cut]).unwrap();
            let (mut journal, entries) = open(&sim, 0).unwrap();
            assert_eq!(entries.len(), 1, "{cut}");
            journal.append(1, &[payload(1, 3)]).unwrap();
            assert_eq!(open(&sim, 0).unwrap().1[&1], payload(1, 3));
        }
    });
}

#[test]
fn a_flipped_bit_in_an_answered_append_is_reported_after_a_clean_end() {
    run(|| {
        let sim = world(3);
        let (mut journal, _) = open(&sim, 0).unwrap();
        for index in 0..12 {
            journal.append(index, &[payload(index, 300)]).unwrap();
        }
        let frame = FRAME_HEAD_BYTES;
        journal.finish().unwrap();
        assert!(logs(&sim).len() >= 2);
        for path in logs(&sim) {
            let bytes = sim.env.disk.read(&path, 1 << 20).unwrap();
            let is_last = path == *logs(&sim).last().unwrap();
            let answered = bytes.len() - if is_last { frame } else { 0 };
            for byte in 0..answered {
                sim.disk.flip_bit(&path, byte as u64 * 8 + byte as u64 % 8).unwrap();
                let refused = open(&sim, 0);
                assert!(refused.is_err(), "{} byte {byte}", path.display());
                assert!(!matches!(refused, Err(FileError::Io { .. })));
                sim.disk.flip_bit(&path, byte as u64 * 8 + byte as u64 % 8).unwrap();
            }
        }
        assert_eq!(open(&sim, 0).unwrap().1.len(), 12);
    });
}

#[test]
fn a_missing_file_is_reported() {
    run(|| {
        for missing in 0..2 {
            let sim = world(4);
            let (mut journal, _) = open(&sim, 0).unwrap();
            for index in 0..20 {
                journal.append(index, &[payload(index, 300)]).unwrap();
            }
            let files = logs(&sim);
            assert!(files.len() > 2);
            sim.env.disk.remove_file(&files[missing]).unwrap();
            assert!(matches!(open(&sim, 0), Err(FileError::Damaged { .. })), "{missing}");
        }
    });
}

#[test]
fn a_frame_inside_an_entry_does_not_pass_for_one() {
    run(|| {
        let sim = world(5);
        let (mut journal, _) = open(&sim, 0).unwrap();
        journal.append(0, &[payload(0, 10)]).unwrap();
        let path = logs(&sim)[0].clone();
        let one = sim.env.disk.read(&path, 1 << 20).unwrap().len();
        // What a client that knows the format, but not the file's mark, can do.
        let forged = write_frame(0, 7, &[payload(7, 10)], 22);
        journal.append(1, &[[payload(1, 0), forged].concat()]).unwrap();
        sim.disk.flip_bit(&path, one as u64 * 8 + 3).unwrap();
        assert_eq!(open(&sim, 0).unwrap().1.len(), 1);
    });
}

#[test]
fn truncate_and_purge_keep_the_middle() {
    run(|| {
        let sim = world(6);
        let (mut journal, _) = open(&sim, 0).unwrap();
        for index in 0..30 {
            journal.append(index, &[payload(index, 300)]).unwrap();
        }
        journal.truncate(25).unwrap();
        journal.purge(12).unwrap();
        let bounds = |entries: Entries| (*entries.keys().next().unwrap(), *entries.keys().last().unwrap());
        assert_eq!(bounds(open(&sim, 12).unwrap().1), (12, 24));
        journal.append(25, &[payload(25, 1)]).unwrap();
        let (mut journal, entries) = open(&sim, 12).unwrap();
        assert_eq!(entries[&25], payload(25, 1));
        // Everything goes, and far more: the log begins anew further on.
        journal.purge(100).unwrap();
        assert!(logs(&sim).is_empty());
        journal.append(100, &[payload(100, 1)]).unwrap();
        assert_eq!(bounds(open(&sim, 100).unwrap().1), (100, 100));
        assert!(matches!(open(&sim, 99), Err(FileError::Damaged { .. })), "entry 99 is in no snapshot");
    });
}

#[test]
fn a_full_disk_is_met_again_until_there_is_room_and_a_failed_sync_is_final() {
    run(|| {
        let sim = world(7);
        let (mut journal, _) = open(&sim, 0).unwrap();
        journal.append(0, &[payload(0, 900)]).unwrap();
        for after in 0..2 {
            sim.disk.fail_write_after(0, true);
            let error = journal.append(1 + after, &[payload(1 + after, 900)]).unwrap_err();
            assert!(error.is_full());
            journal.append(1 + after, &[payload(1 + after, 900)]).unwrap();
        }
        assert_eq!(open(&sim, 0).unwrap().1.len(), 3);
        sim.disk.fail_sync_after(0);
        assert!(!journal.append(3, &[payload(3, 1)]).unwrap_err().is_full());
        let error = journal.append(3, &[payload(3, 1)]).unwrap_err();
        assert!(error.to_string().contains("earlier"), "{error}");
    });
}

/// Random appends, truncations and purges with the power cut at a random step.
#[test]
fn power_loss_keeps_what_was_answered_and_lets_the_journal_open() {
    for seed in 0..3_000 {
        run(|| survive(seed));
    }
}

fn survive(seed: u64) {
    let sim = world(seed);
    let random = SimRandom::new(seed);
    let (mut answered, mut kept_from, mut open_ended) = (Entries::new(), 0, 0);
    for life in 0..4 {
        let (mut journal, entries) =
            open(&sim, kept_from).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for (index, payload) in &answered {
            assert_eq!(entries.get(index), Some(payload), "seed {seed} life {life} entry {index}");
        }
        let most = answered.len() + open_ended;
        assert!(entries.len() <= most, "seed {seed}: only what was under way may be there too");
        answered = entries;
        sim.disk.cut_power_after(random.below(120));
        while work(&mut journal, &random, &mut answered, &mut kept_from, &mut open_ended).is_ok() {}
        let policy = [CrashPolicy::LoseAll, CrashPolicy::KeepAll, CrashPolicy::Random, CrashPolicy::Random];
        sim.disk.crash(policy[random.below(4) as usize]);
    }
}

fn work(
    journal: &mut Journal,
    random: &SimRandom,
    answered: &mut Entries,
    kept_from: &mut u64,
    open_ended: &mut usize,
) -> Result<(), FileError> {
    let next = answered.keys().last().map_or(*kept_from, |last| last + 1);
    match random.below(12) {
        0 => {
            // The snapshot that allows it is durable before.
            *kept_from += random.below(next - *kept_from + 1);
            *answered = answered.split_off(kept_from);
            *open_ended = 0;
            journal.purge(*kept_from)
        }
        1 => {
            let index = *kept_from + random.below(next - *kept_from + 1);
            // Cut off half way, they may be there still.
            *open_ended = answered.split_off(&index).len();
            journal.truncate(index)
        }
        _ => {
            let count = 1 + random.below(3);
            let entries: Vec<_> =
                (next..next + count).map(|index| payload(index, random.below(700) as usize)).collect();
            *open_ended = entries.len();
            journal.append(next, &entries)?;
            answered.extend((next..).zip(entries));
            Ok(())
        }
    }
}
