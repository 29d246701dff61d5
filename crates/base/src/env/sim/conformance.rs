//! One suite for every [`Disk`]: what the product relies on, run on the real file system and on the
//! simulated one.

use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};

use super::super::{Disk, Env, OpenMode};
use super::Sim;

fn on_every_disk(test: impl Fn(&dyn Disk, &Path)) {
    let env = Env::os();
    let dir = std::env::temp_dir().join(format!("vltava-disk-{}", env.random_uuid()));
    env.disk.create_dir_all(&dir).unwrap();
    test(&*env.disk, &dir);
    env.disk.remove_dir_all(&dir).unwrap();

    let sim = Sim::new(1);
    let dir = PathBuf::from("/some/where");
    sim.disk.create_dir_all(&dir).unwrap();
    test(&*sim.disk, &dir);
}

fn names(disk: &dyn Disk, dir: &Path) -> Vec<(String, bool)> {
    let mut names: Vec<_> = disk.read_dir(dir).unwrap().into_iter().map(|e| (e.name, e.is_dir)).collect();
    names.sort();
    names
}

#[test]
fn files_read_back_what_was_written() {
    on_every_disk(|disk, dir| {
        let file = disk.open(&dir.join("a"), OpenMode::CreateNew).unwrap();
        assert!(file.is_empty().unwrap());
        file.write_all_at(&[IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two")], 0).unwrap();
        file.write_all_at(&[IoSlice::new(b"END")], 10).unwrap();
        assert_eq!(file.len().unwrap(), 13);
        let mut bytes = [9; 20];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 13);
        assert_eq!(&bytes[..13], b"one two\0\0\0END");
        assert_eq!(file.read_at(&mut bytes, 13).unwrap(), 0);
        assert_eq!(file.read_at(&mut bytes, 99).unwrap(), 0);
        let error = file.read_exact_at(&mut bytes, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        file.set_len(5).unwrap();
        file.set_len(7).unwrap();
        file.sync_data().unwrap();
        assert_eq!(disk.read(&dir.join("a"), 7).unwrap(), b"one t\0\0");
        assert_eq!(disk.read(&dir.join("a"), 6).unwrap_err().kind(), ErrorKind::InvalidData);
    });
}

#[test]
fn writes_take_thousands_of_buffers() {
    on_every_disk(|disk, dir| {
        let file = disk.open(&dir.join("a"), OpenMode::ReadWrite).unwrap();
        let buffers: Vec<IoSlice<'_>> = (0..5_000).map(|_| IoSlice::new(b"abc")).collect();
        file.write_all_at(&buffers, 1).unwrap();
        let bytes = disk.read(&dir.join("a"), 1 << 20).unwrap();
        assert_eq!(bytes.len(), 15_001);
        assert!(bytes[1..].chunks(3).all(|chunk| chunk == b"abc"));
    });
}

#[test]
fn open_modes_keep_their_word() {
    on_every_disk(|disk, dir| {
        let path = dir.join("a");
        let open = |mode| disk.open(&path, mode).map(|_| ()).map_err(|error| error.kind());
        assert_eq!(open(OpenMode::Read), Err(ErrorKind::NotFound));
        assert_eq!(open(OpenMode::Existing), Err(ErrorKind::NotFound));
        assert_eq!(open(OpenMode::ReadWrite), Ok(()));
        assert_eq!(open(OpenMode::CreateNew), Err(ErrorKind::AlreadyExists));
        let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
        file.write_all_at(&[IoSlice::new(b"kept")], 0).unwrap();
        assert_eq!(open(OpenMode::ReadWrite), Ok(()));
        let existing = disk.open(&path, OpenMode::Existing).unwrap();
        existing.write_all_at(&[IoSlice::new(b"K")], 0).unwrap();
        let read = disk.open(&path, OpenMode::Read).unwrap();
        assert_eq!(read.len().unwrap(), 4);
        assert!(read.write_all_at(&[IoSlice::new(b"no")], 0).is_err());
        let missing = disk.open(&dir.join("no/such"), OpenMode::ReadWrite);
        assert_eq!(missing.err().unwrap().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn names_come_move_and_go() {
    on_every_disk(|disk, dir| {
        disk.create_dir_all(&dir.join("x/y")).unwrap();
        disk.create_dir_all(&dir.join("x/y")).unwrap();
        disk.replace(&dir.join("x/y/f"), b"1").unwrap();
        disk.replace(&dir.join("x/y/f"), b"22").unwrap();
        disk.replace(&dir.join("g"), b"333").unwrap();
        assert_eq!(names(disk, dir), [("g".into(), false), ("x".into(), true)]);
        assert_eq!(names(disk, &dir.join("x/y")), [("f".into(), false)]);
        disk.rename(&dir.join("g"), &dir.join("x/y/f")).unwrap();
        assert_eq!(disk.read(&dir.join("x/y/f"), 9).unwrap(), b"333");
        disk.rename(&dir.join("x/y"), &dir.join("z")).unwrap();
        assert!(disk.exists(&dir.join("z/f")) && !disk.exists(&dir.join("x/y")));
        disk.sync_dir(dir).unwrap();
        disk.sync_all(dir).unwrap();
        assert!(disk.rename(&dir.join("x"), &dir.join("z")).is_err(), "the target is not empty");
        assert!(disk.rename(&dir.join("nothing"), &dir.join("n")).is_err());
        assert!(disk.remove_file(&dir.join("z")).is_err());
        disk.remove_file(&dir.join("z/f")).unwrap();
        assert_eq!(disk.remove_file(&dir.join("z/f")).unwrap_err().kind(), ErrorKind::NotFound);
        disk.replace(&dir.join("z/h"), b"").unwrap();
        disk.remove_dir_all(&dir.join("z")).unwrap();
        assert_eq!(names(disk, dir), [("x".into(), true)]);
        assert_eq!(disk.read_dir(&dir.join("z")).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn open_files_outlive_their_names() {
    on_every_disk(|disk, dir| {
        disk.create_dir_all(&dir.join("d")).unwrap();
        let file = disk.open(&dir.join("d/a"), OpenMode::CreateNew).unwrap();
        file.write_all_at(&[IoSlice::new(b"bytes")], 0).unwrap();
        disk.rename(&dir.join("d"), &dir.join("e")).unwrap();
        disk.remove_dir_all(&dir.join("e")).unwrap();
        disk.sync_all(dir).unwrap();
        let mut bytes = [0; 5];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"bytes");
    });
}

#[test]
fn a_lock_has_one_holder() {
    on_every_disk(|disk, dir| {
        let path = dir.join(".lock");
        let held = disk.lock(&path).unwrap();
        assert_eq!(disk.lock(&path).err().unwrap().kind(), ErrorKind::WouldBlock);
        drop(held);
        assert!(disk.lock(&path).is_ok());
    });
}

#[test]
fn space_and_boot_id_are_there() {
    on_every_disk(|disk, dir| {
        let space = disk.space(dir).unwrap();
        assert!(space.available <= space.total && space.total > 0);
        assert!(!disk.boot_id().is_empty());
        assert_eq!(disk.boot_id(), disk.boot_id());
        assert!(disk.open_files_max() >= 256);
        let file = disk.open(&dir.join("a"), OpenMode::ReadWrite).unwrap();
        file.allocate(0, 10_000).unwrap();
        assert_eq!(file.len().unwrap(), 0);
    });
}

#[test]
fn the_real_disk_tells_when_a_file_was_last_written() {
    let env = Env::os();
    let path = std::env::temp_dir().join(format!("vltava-disk-{}", env.random_uuid()));
    let file = env.disk.open(&path, OpenMode::CreateNew).unwrap();
    file.write_all_at(&[IoSlice::new(b"now")], 0).unwrap();
    let age_ms = env.clock.wall_ms() - env.disk.modified_ms(&path).unwrap();
    env.disk.remove_file(&path).unwrap();
    // File systems round, and the kernel's clock ticks.
    assert!((-1_000..60_000).contains(&age_ms), "{age_ms}");
    assert!(env.disk.modified_ms(&path).is_err());
}
