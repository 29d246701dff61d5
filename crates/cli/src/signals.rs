//! The two ways a user or the system asks a process to end.

use std::sync::Arc;
use std::time::Duration;

use base::env::{Clock, Env};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Failure, Outcome};

/// Listens for Ctrl-C (SIGINT) and SIGTERM from its making on.
pub(crate) struct EndSignals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    clock: Arc<dyn Clock>,
    repeats: Repeats,
}

/// Wrappers such as `timeout` signal a process and then its whole group: what comes this soon after the
/// first signal is the same wish, not impatience.
const SAME_WISH: Duration = Duration::from_secs(1);

/// Tells impatience from one wish that is heard twice.
#[derive(Default)]
struct Repeats {
    first_at: Option<Duration>,
}

impl Repeats {
    /// A signal is heard; answers whether it shows impatience.
    fn heard(&mut self, now: Duration) -> bool {
        now >= *self.first_at.get_or_insert(now) + SAME_WISH
    }
}

impl EndSignals {
    /// From now on neither signal ends the process by itself.
    pub(crate) fn listen() -> Outcome<EndSignals> {
        let failed = |error| Failure::new(format!("signals cannot be heard: {error}"));
        Ok(EndSignals {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            clock: Env::os().clock,
            repeats: Repeats::default(),
        })
    }

    /// Completes at the next of them, with its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        self.hear().await.0
    }

    /// The next of them, and whether it shows impatience.
    async fn hear(&mut self) -> (&'static str, bool) {
        let name = tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        };
        (name, self.repeats.heard(self.clock.now()))
    }

    /// Completes at the next that comes a second or more after the first: the user cannot wait.
    pub(crate) async fn impatience(&mut self) -> &'static str {
        loop {
            if let (name, true) = self.hear().await {
                return name;
            }
        }
    }
}

/// Has the system send SIGTERM to this process when the one that started it, which has this number, is gone, however that
/// ended. Where the system cannot do so, nothing happens.
pub(crate) fn end_with_parent(parent: u32) -> Outcome {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        let set = set_parent_process_death_signal(Some(Signal::TERM));
        set.map_err(|error| {
            Failure::new(format!("the end of process {parent} cannot be heard of: {error}"))
        })?;
        // It may have gone before.
        let is_there = getppid().is_some_and(|pid| u32::try_from(pid.as_raw_nonzero().get()) == Ok(parent));
        if !is_there {
            return Err(Failure::new(format!("process {parent}, which started this one, is gone")));
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = parent;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_heard_twice_at_once_is_one_wish() {
        let mut repeats = Repeats::default();
        let heard = [10_000, 10_000, 10_999, 11_000].map(|ms| repeats.heard(Duration::from_millis(ms)));
        assert_eq!(heard, [false, false, false, true]);
    }
}
