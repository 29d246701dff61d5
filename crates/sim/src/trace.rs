//! What happened when in a run: lines that are the same on every run of a seed.

use std::sync::Arc;

use base::env::Clock;
use parking_lot::Mutex;

/// FNV-1a, 64 bits: of no secrecy, and the same everywhere.
const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;
const HASH_PRIME: u64 = 0x100_0000_01b3;

/// See the module's head. Clones share the lines.
#[derive(Clone)]
pub struct Trace {
    clock: Arc<dyn Clock>,
    lines: Arc<Mutex<Lines>>,
    echo: bool,
}

struct Lines {
    text: Vec<String>,
    hash: u64,
}

impl Trace {
    /// An empty one; `echo` prints lines as they come.
    pub fn new(clock: Arc<dyn Clock>, echo: bool) -> Trace {
        Trace { clock, lines: Arc::new(Mutex::new(Lines { text: Vec::new(), hash: HASH_START })), echo }
    }

    /// Notes what happens now.
    pub fn note(&self, what: impl AsRef<str>) {
        let now = self.clock.now().as_millis();
        let mut lines = self.lines.lock();
        let line = format!("{:>4}.{:03} {:016x} {}", now / 1_000, now % 1_000, lines.hash, what.as_ref());
        if self.echo {
            println!("{line}");
        }
        lines.text.push(line);
    }

    /// Mixes a detail into the number in front of the lines that follow: an answer to a client, say, of which there are too
    /// many for lines of their own.
    pub fn mix(&self, detail: impl std::fmt::Display) {
        let detail = format!("{} {detail}", self.clock.now().as_millis());
        let mut lines = self.lines.lock();
        for byte in detail.bytes() {
            lines.hash = (lines.hash ^ u64::from(byte)).wrapping_mul(HASH_PRIME);
        }
    }

    /// All lines so far.
    pub fn text(&self) -> String {
        self.lines.lock().text.iter().map(|line| format!("{line}\n")).collect()
    }
}
