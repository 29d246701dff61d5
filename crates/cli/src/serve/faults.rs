//! Faults of disk and clock that a file asks for, to see what a real process makes of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base::env::{Env, Faults, Faulty};

use crate::failure::{Failure, Outcome};

/// Time between two looks at the file.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Longest file, bytes.
const BYTES_MAX: usize = 4096;

/// The world with the faults of a file (see [`Faults`]), which may come and go.
///
/// # Errors
/// The file is there and names something else.
pub(super) fn rehearse(env: Env, path: PathBuf) -> Outcome<Env> {
    let faulty = Faulty::default();
    let mut present = read(&env, &path)?;
    faulty.set(present);
    tracing::warn!(path = %path.display(), "disk and clock may misbehave: this is a rehearsal");
    let world = faulty.over(env.clone());
    tokio::spawn(async move {
        loop {
            env.clock.sleep(LOOK_INTERVAL).await;
            match read(&env, &path) {
                Ok(faults) if faults == present => {}
                Ok(faults) => {
                    tracing::warn!(?faults, "from now on");
                    faulty.set(faults);
                    present = faults;
                }
                Err(failure) => tracing::error!("the faults stay as they are: {failure}"),
            }
        }
    });
    Ok(world)
}

fn read(env: &Env, path: &Path) -> Outcome<Faults> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
    let bytes = match env.disk.read(path, BYTES_MAX) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Faults::default()),
        read => read.map_err(|error| failed(&error))?,
    };
    String::from_utf8_lossy(&bytes).parse().map_err(|error| failed(&error))
}
