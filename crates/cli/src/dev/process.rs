//! A node of the cluster: a child process of this binary.

use std::process::{ExitStatus, Stdio};

use base::env::Env;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::layout::Layout;
use crate::failure::{Failure, Outcome};

/// Lines of a node's log that are shown when it does not start.
const LOG_LINES_SHOWN: usize = 10;
/// How much of the end of a log is looked at, bytes.
const LOG_BYTES_SHOWN: u64 = 16 * 1024;

/// A node as a process; it is killed when dropped.
pub(super) struct Process {
    /// From 1.
    pub(super) node: u16,
    pub(super) id: u32,
    child: Child,
    /// Set once it has ended.
    pub(super) ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a node from its file; what it tells goes to the end of its log.
    pub(super) fn start(layout: &Layout, node: u16) -> Outcome<Process> {
        let failed =
            |what: &str, error: std::io::Error| Failure::new(format!("node {node}: {what}: {error}"));
        let binary = std::env::current_exe().map_err(|error| failed("this binary is not found", error))?;
        #[expect(clippy::disallowed_types, reason = "a process takes a file of the system as it is")]
        let log = std::fs::File::options().create(true).append(true).open(layout.log_path(node));
        let log = log.map_err(|error| failed(&layout.log_path(node).display().to_string(), error))?;
        let mut command = Command::new(binary);
        command.arg("serve").arg("--config").arg(layout.properties_path(node));
        command.arg("--end-with").arg(std::process::id().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        let child = command.spawn().map_err(|error| failed("it cannot be started", error))?;
        let id = child.id().ok_or_else(|| Failure::new(format!("node {node} ended at once")))?;
        Ok(Process { node, id, child, ended: None })
    }

    /// Whether the process has ended since the last look.
    pub(super) fn ends(&mut self) -> bool {
        if self.ended.is_some() {
            return false;
        }
        // What cannot be waited for is not there any more.
        self.ended = self.child.try_wait().unwrap_or_else(|_| Some(ExitStatus::default()));
        self.ended.is_some()
    }

    /// Asks it to end, as SIGTERM does.
    pub(super) fn ask_to_end(&self) {
        let running = self.ended.is_none().then_some(self.id);
        if let Some(id) = running.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            // It may have ended just now; its number is not given away before it was waited for.
            let _ = kill_process(id, Signal::TERM);
        }
    }

    /// Ends it at once.
    pub(super) async fn kill(&mut self) {
        // It may have ended just now.
        let _ = self.child.kill().await;
        self.ends();
    }
}

/// How a process ended, in words.
pub(super) fn end_text(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (None, Some(0)) => "ended".to_owned(),
        (None, code) => format!("failed with status {}", code.unwrap_or_default()),
    }
}

/// The last lines of a node's log.
pub(super) fn last_words(env: &Env, layout: &Layout, node: u16) -> String {
    let file = env.disk.open(&layout.log_path(node), base::env::OpenMode::Read);
    let tail = file.and_then(|file| {
        let length = file.len()?;
        let begin = length.saturating_sub(LOG_BYTES_SHOWN);
        let mut tail = vec![0; usize::try_from(length - begin).unwrap_or(0)];
        file.read_exact_at(&mut tail, begin)?;
        Ok(tail)
    });
    let tail = tail.unwrap_or_default();
    let text = String::from_utf8_lossy(&tail);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n  ")
}
