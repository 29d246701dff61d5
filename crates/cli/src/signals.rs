//! The two ways a user or the system asks a process to end.

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Failure, Outcome};

/// Listens for Ctrl-C (SIGINT) and SIGTERM from its making on.
pub(crate) struct EndSignals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl EndSignals {
    /// From now on neither signal ends the process by itself.
    pub(crate) fn listen() -> Outcome<EndSignals> {
        let failed = |error| Failure::new(format!("signals cannot be heard: {error}"));
        Ok(EndSignals {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    /// Completes at the next of them, with its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
