//! A data directory that is removed at the end: in memory where the system has such a file system, else
//! among the temporary files.
//!
//! What a killed process leaves behind is removed by the next one: a directory whose lock nobody holds
//! belongs to nobody.

use std::path::{Path, PathBuf};

use base::env::Env;

use crate::failure::{Failure, Outcome};

/// The file system in memory that Linux systems have.
const MEMORY_FILES: &str = "/dev/shm";
/// Below this, the file system in memory is a token one, as in a container with defaults.
const MEMORY_BYTES_MIN: u64 = 1 << 30;
/// How the directories are called; a random id follows.
const PREFIX: &str = "vltava-ephemeral-";
/// The file in the directory that its owner holds locked.
const LOCK: &str = "owner.lock";

/// The directory; removed when dropped.
pub(crate) struct Ephemeral {
    env: Env,
    path: PathBuf,
    in_memory: bool,
    _lock: Box<dyn Send + Sync>,
}

impl Ephemeral {
    /// Makes a directory, in memory if that is wanted and possible, and clears away those of dead
    /// processes.
    pub(crate) fn make(env: &Env, in_memory: bool) -> Outcome<Ephemeral> {
        let memory = Path::new(MEMORY_FILES);
        let roomy = || env.disk.space(memory).is_ok_and(|space| space.available >= MEMORY_BYTES_MIN);
        let in_memory = in_memory && roomy();
        let parent = if in_memory { memory.to_owned() } else { std::env::temp_dir() };
        Ephemeral::make_in(env, &parent, in_memory)
    }

    fn make_in(env: &Env, parent: &Path, in_memory: bool) -> Outcome<Ephemeral> {
        remove_ownerless(env, parent);
        let path = parent.join(format!("{PREFIX}{}", env.random_uuid()));
        let failed = |error: std::io::Error| {
            Failure::new(format!("a directory in {} cannot be made: {error}", parent.display()))
                .help("set TMPDIR to a directory that can be written, or name one with `--data`")
        };
        env.disk.create_dir_all(&path).map_err(failed)?;
        let lock = env.disk.lock(&path.join(LOCK)).map_err(failed)?;
        Ok(Ephemeral { env: env.clone(), path, in_memory, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it takes memory and no disk.
    pub(crate) fn in_memory(&self) -> bool {
        self.in_memory
    }
}

impl Drop for Ephemeral {
    fn drop(&mut self) {
        if let Err(error) = self.env.disk.remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the data could not be removed");
        }
    }
}

/// Removes what dead processes left. A directory without a lock file may be one in the making.
fn remove_ownerless(env: &Env, parent: &Path) {
    let entries = env.disk.read_dir(parent).unwrap_or_default();
    for entry in entries.into_iter().filter(|entry| entry.is_dir && entry.name.starts_with(PREFIX)) {
        let path = parent.join(entry.name);
        let lock = path.join(LOCK);
        if env.disk.exists(&lock) && env.disk.lock(&lock).is_ok() {
            tracing::info!(path = %path.display(), "removing what a killed process left");
            // Another user's, perhaps; then it is for them to remove.
            let _ = env.disk.remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_the_living_stay_and_those_of_the_dead_go() {
        let env = Env::os();
        let parent = std::env::temp_dir().join(format!("vltava-test-{}", env.random_uuid()));
        env.disk.create_dir_all(&parent).expect("a directory for the test");
        let first = Ephemeral::make_in(&env, &parent, false).expect("a directory");
        let dead = parent.join(format!("{PREFIX}dead"));
        env.disk.create_dir_all(&dead).expect("a directory");
        drop(env.disk.lock(&dead.join(LOCK)).expect("nobody holds it"));
        let second = Ephemeral::make_in(&env, &parent, false).expect("a directory");
        assert!(env.disk.exists(first.path()) && env.disk.exists(second.path()));
        assert!(!env.disk.exists(&dead));
        let gone = first.path().to_owned();
        drop(first);
        assert!(!env.disk.exists(&gone));
        drop(second);
        env.disk.remove_dir_all(&parent).expect("the test's own");
    }
}
