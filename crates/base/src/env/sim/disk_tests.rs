//! What the simulated disk loses, tears and refuses.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;

use super::super::{Disk, File, OpenMode};
use super::{CrashPolicy, SimDisk};

fn write(file: &Arc<dyn File>, bytes: &[u8], position: u64) {
    file.write_all_at(&[IoSlice::new(bytes)], position).unwrap();
}

/// A disk on which `/d/f` holds "old" durably.
fn disk_with_file(seed: u64) -> (SimDisk, Arc<dyn File>) {
    let disk = SimDisk::new(seed);
    disk.create_dir_all(Path::new("/d")).unwrap();
    let file = disk.open(Path::new("/d/f"), OpenMode::CreateNew).unwrap();
    write(&file, b"old", 0);
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    (disk, file)
}

fn read(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    disk.read(Path::new(path), usize::MAX).ok()
}

#[test]
fn only_synced_things_are_sure_to_survive() {
    let (disk, file) = disk_with_file(1);
    write(&file, b"new!", 0);
    disk.replace(Path::new("/d/g"), b"synced").unwrap();
    disk.rename(Path::new("/d/g"), Path::new("/d/h")).unwrap();
    disk.create_dir_all(Path::new("/e")).unwrap();
    disk.crash(CrashPolicy::LoseAll);
    assert_eq!(read(&disk, "/d/f").unwrap(), b"old");
    assert_eq!(read(&disk, "/d/g").unwrap(), b"synced");
    assert!(read(&disk, "/d/h").is_none() && !disk.exists(Path::new("/e")));
}

#[test]
fn a_synced_file_is_lost_with_its_unsynced_name() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/d")).unwrap();
    let file = disk.open(Path::new("/d/f"), OpenMode::CreateNew).unwrap();
    write(&file, b"x", 0);
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.crash(CrashPolicy::LoseAll);
    assert!(!disk.exists(Path::new("/d")));
}

#[test]
fn everything_may_survive() {
    let (disk, file) = disk_with_file(1);
    write(&file, b"newer", 0);
    disk.rename(Path::new("/d/f"), Path::new("/g")).unwrap();
    disk.crash(CrashPolicy::KeepAll);
    assert_eq!(read(&disk, "/g").unwrap(), b"newer");
    assert!(read(&disk, "/d/f").is_none());
}

#[test]
fn random_crashes_tear_by_sector_and_reorder() {
    let (mut tail_without_head, mut short, mut whole, mut none) = (0, 0, 0, 0);
    for seed in 0..400 {
        let (disk, file) = disk_with_file(seed);
        write(&file, &[7; 4096], 0);
        disk.crash(CrashPolicy::Random);
        let after = read(&disk, "/d/f").unwrap();
        for sector in after.chunks(512) {
            let torn = sector.contains(&7) && sector.iter().any(|b| *b != 7);
            assert!(!torn, "a sector is written whole: {seed}");
        }
        let sector_is_new = |index: usize| after.get(index * 512) == Some(&7);
        tail_without_head += u32::from(!sector_is_new(0) && sector_is_new(3));
        short += u32::from(after.len() > 3 && after.len() < 4096);
        whole += u32::from(after == [7; 4096]);
        none += u32::from(after == b"old");
    }
    assert!(tail_without_head > 10 && short > 10 && none > 10, "{tail_without_head} {short} {none}");
    assert!(whole < 100);
}

#[test]
fn a_rename_happens_whole_or_not_at_all() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..100 {
        let (disk, _file) = disk_with_file(seed);
        disk.create_dir_all(Path::new("/e")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk.rename(Path::new("/d/f"), Path::new("/e/f")).unwrap();
        disk.rename(Path::new("/e/f"), Path::new("/e/g")).unwrap();
        disk.crash(CrashPolicy::Random);
        let found: Vec<bool> =
            ["/d/f", "/e/f", "/e/g"].iter().map(|path| read(&disk, path).is_some()).collect();
        assert!(found.iter().filter(|found| **found).count() <= 1, "{seed}: {found:?}");
        old += u32::from(found[0]);
        new += u32::from(found[2]);
    }
    assert!(old > 10 && new > 10);
}

#[test]
fn syncing_a_directory_takes_earlier_changes_of_its_names_along() {
    let (disk, _file) = disk_with_file(1);
    disk.create_dir_all(Path::new("/e")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    drop(disk.open(Path::new("/d/n"), OpenMode::CreateNew).unwrap());
    disk.rename(Path::new("/d/n"), Path::new("/e/n")).unwrap();
    disk.sync_dir(Path::new("/e")).unwrap();
    disk.crash(CrashPolicy::KeepAll);
    assert!(read(&disk, "/e/n").is_some() && read(&disk, "/d/n").is_none());
}

#[test]
fn a_failed_sync_loses_what_it_was_to_write() {
    let (disk, file) = disk_with_file(1);
    write(&file, b"gone", 0);
    disk.fail_sync_after(0);
    assert!(file.sync_data().is_err());
    assert_eq!(read(&disk, "/d/f").unwrap(), b"gone", "readers still see it");
    file.sync_data().expect("the kernel takes the pages for clean");
    disk.crash(CrashPolicy::KeepAll);
    assert_ne!(read(&disk, "/d/f").unwrap(), b"gone");
}

#[test]
fn writes_fail_short_when_told_or_full() {
    let (disk, file) = disk_with_file(3);
    disk.fail_write_after(1, true);
    write(&file, b"ok", 3);
    let error = file.write_all_at(&[IoSlice::new(&[1; 1000])], 5).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(file.len().unwrap() < 1005);
    file.set_len(5).unwrap();
    disk.set_capacity(100);
    let error = file.write_all_at(&[IoSlice::new(&[1; 1000])], 5).unwrap_err();
    assert_eq!((error.kind(), file.len().unwrap()), (ErrorKind::StorageFull, 100));
    assert_eq!(disk.space(Path::new("/d")).unwrap().available, 0);
    file.set_len(10).unwrap();
    assert!(file.allocate(0, 101).is_err());
    file.allocate(0, 90).unwrap();
    assert_eq!(disk.space(Path::new("/d")).unwrap().available, 10);
    write(&file, &[1; 80], 10);
    disk.fail_read_after(0);
    assert!(file.read_at(&mut [0], 0).is_err());
    assert_eq!(file.read_at(&mut [0], 0).unwrap(), 1);
}

#[test]
fn the_power_goes_at_a_chosen_step() {
    let (disk, file) = disk_with_file(1);
    disk.cut_power_after(2);
    write(&file, b"a", 0);
    assert!(!disk.is_cut());
    file.sync_data().unwrap();
    assert!(disk.is_cut());
    assert!(file.read_at(&mut [0], 0).is_err());
    assert!(file.write_all_at(&[IoSlice::new(b"b")], 0).is_err());
    assert!(disk.create_dir_all(Path::new("/q")).is_err());
    disk.crash(CrashPolicy::LoseAll);
    assert_eq!(read(&disk, "/d/f").unwrap(), b"ald");
}

#[test]
fn handles_and_locks_die_with_their_life() {
    let (disk, file) = disk_with_file(1);
    let lock = disk.lock(Path::new("/d/lock")).unwrap();
    let boot = disk.boot_id();
    assert_eq!(disk.open_handles(), 1);
    disk.kill();
    assert_eq!((disk.boot_id(), disk.open_handles()), (boot.clone(), 0));
    assert!(file.read_at(&mut [0], 0).is_err());
    let second = disk.lock(Path::new("/d/lock")).unwrap();
    drop((file, lock));
    assert!(disk.lock(Path::new("/d/lock")).is_err(), "the dead lock's end does not free the new one");
    drop(second);
    disk.crash(CrashPolicy::KeepAll);
    assert_ne!(disk.boot_id(), boot);
}

#[test]
fn damage_is_for_readers_and_for_good() {
    let (disk, _file) = disk_with_file(1);
    disk.flip_bit(Path::new("/d/f"), 9).unwrap();
    assert_eq!(read(&disk, "/d/f").unwrap(), b"ond");
    disk.crash(CrashPolicy::LoseAll);
    assert_eq!(read(&disk, "/d/f").unwrap(), b"ond");
    assert!(disk.flip_bit(Path::new("/d/f"), 24).is_err());
    disk.overwrite(Path::new("/d/f"), b"other").unwrap();
    disk.crash(CrashPolicy::Random);
    assert_eq!(read(&disk, "/d/f").unwrap(), b"other");
}
