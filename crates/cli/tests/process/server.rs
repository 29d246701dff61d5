//! The real process: started, killed, asked to end, looked at.
//!
//! A [`Home`] is a data directory with an address that stays the same over restarts, as clients know it. A
//! [`Server`] is one life of the process; it is killed when dropped.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use base::env::Env;
use base::env::sim::SimRandom;
use client::{Client, ClientConfig};

use crate::binary;

/// Ports to listen on: below those that systems give to outgoing connections, so that nothing takes a
/// server's port while it is down.
const PORTS: std::ops::Range<u64> = 12_000..32_000;
/// How long a server may take for anything before the test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);
/// What an event loop has open for itself: two for its events, one to be woken, one for signals.
const EVENT_LOOP_DESCRIPTORS: usize = 4;
/// Lines of the log shown when something goes wrong.
const LOG_LINES_SHOWN: usize = 40;

/// Threads that remove a data directory, and into how many parts it is split for them.
const REMOVING_THREADS: usize = 16;
const REMOVED_APART: usize = 64;

/// Where a server keeps its data and where it listens.
pub(crate) struct Home {
    dir: PathBuf,
    log_dirs: Vec<PathBuf>,
    address: SocketAddr,
    settings: Vec<String>,
}

impl Home {
    /// An empty directory and a free address; `settings` are as behind `--set`.
    pub(crate) fn new(name: &str, settings: &[&str]) -> Home {
        let id = Env::os().random.next_u64();
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("process-{name}-{id:016x}"));
        fs::create_dir_all(&dir).expect("cargo's directory for tests can be written");
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let log_dirs = vec![dir.join("data/log")];
        Home { dir, log_dirs, address: free_address(), settings }
    }

    /// The same with so many log directories instead of the usual one.
    pub(crate) fn with_log_dirs(mut self, count: u64) -> Home {
        self.log_dirs = (0..count).map(|number| self.dir.join(format!("log-{number}"))).collect();
        let names: Vec<_> = self.log_dirs.iter().map(|dir| dir.display().to_string()).collect();
        self.settings.push(format!("log.dirs={}", names.join(",")));
        self
    }

    /// The log directories.
    pub(crate) fn log_dirs(&self) -> &[PathBuf] {
        &self.log_dirs
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// What the servers of all lives have logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A client that goes on trying while the server is away.
    pub(crate) async fn client(&self) -> Client {
        let config = ClientConfig { retry_for: PATIENCE, ..ClientConfig::new([self.address()]) };
        Client::connect(&Env::os(), config).await.expect("the server listens")
    }

    /// Starts the process, and does not wait for it.
    pub(crate) fn spawn(&self) -> Server<'_> {
        let log =
            File::options().create(true).append(true).open(self.log_path()).expect("a file for the log");
        let mut command = Command::new(binary());
        command.arg("serve").arg("--data").arg(self.data());
        command.args(["--set", &format!("listeners=PLAINTEXT://{}", self.address)]);
        command.args(["--set", "vltava.http.listener=127.0.0.1:0"]);
        command.args(self.settings.iter().flat_map(|setting| ["--set", setting]));
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let began = Instant::now();
        let child = command.spawn().expect("the binary was built for this test");
        Server { home: self, child, began }
    }

    /// Starts the process and waits until it listens.
    pub(crate) fn start(&self) -> Server<'_> {
        let mut server = self.spawn();
        server.wait_until_listening();
        server
    }

    /// The last lines of the log, to be shown with a failure.
    pub(crate) fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The evidence stays.
            eprintln!("data and log are in {}; the log ends with\n{}", self.dir.display(), self.last_words());
        } else if let Err(error) = remove(&self.dir) {
            eprintln!("{} is not removed: {error}", self.dir.display());
        }
    }
}

/// Removes a directory with many threads: where a file system tells its device of every block that becomes
/// free, each file may take milliseconds.
fn remove(dir: &Path) -> std::io::Result<()> {
    let mut parts = vec![dir.to_owned()];
    while parts.len() < REMOVED_APART {
        let mut smaller = Vec::new();
        for part in &parts {
            for entry in fs::read_dir(part)? {
                smaller.extend(Some(entry?.path()).filter(|path| path.is_dir()));
            }
        }
        if smaller.is_empty() {
            break;
        }
        parts = smaller;
    }
    std::thread::scope(|scope| {
        for share in parts.chunks(parts.len().div_ceil(REMOVING_THREADS)) {
            // What fails here fails again below, and is told.
            scope.spawn(move || share.iter().for_each(|part| drop(fs::remove_dir_all(part))));
        }
    });
    if dir.exists() { fs::remove_dir_all(dir) } else { Ok(()) }
}

/// One life of the process.
pub(crate) struct Server<'a> {
    home: &'a Home,
    child: Child,
    began: Instant,
}

impl Server<'_> {
    /// Waits until the process takes connections; tells how long that took from its start.
    pub(crate) fn wait_until_listening(&mut self) -> Duration {
        loop {
            if TcpStream::connect(self.home.address).is_ok() {
                return self.began.elapsed();
            }
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                panic!("the server ended while it started, {status}:\n{}", self.home.last_words());
            }
            assert!(self.began.elapsed() < PATIENCE, "no listener after {PATIENCE:?}");
            sleep(Duration::from_millis(1));
        }
    }

    /// The number of the process.
    pub(crate) fn number(&self) -> u32 {
        self.child.id()
    }

    /// Time since the process was started.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is our child");
        let status = self.child.wait().expect("it is our child");
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(9), "the server ended by itself: {status}\n{}", self.home.last_words());
    }

    /// SIGTERM; waits for the end and tells how long it took.
    pub(crate) fn end(mut self) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is our child");
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return (status, asked.elapsed());
            }
            assert!(asked.elapsed() < PATIENCE, "SIGTERM did not end the server within {PATIENCE:?}");
            sleep(Duration::from_millis(2));
        }
    }

    /// What the system says of the process's memory.
    pub(crate) fn memory(&self) -> Memory {
        Memory::of(self.child.id())
    }

    /// Waits until it has no more open than `count` again; tells how long that took. What its event loops have open
    /// themselves does not count: each begins when connections first need it, and stays.
    pub(crate) fn wait_for_descriptors(&self, count: usize) -> Duration {
        let loops = std::thread::available_parallelism().map_or(1, usize::from);
        let most = count + loops * EVENT_LOOP_DESCRIPTORS;
        let began = Instant::now();
        loop {
            let open = self.descriptors();
            if open <= most {
                return began.elapsed();
            }
            assert!(began.elapsed() < PATIENCE, "{} descriptors are left", open - most);
            sleep(Duration::from_millis(20));
        }
    }

    /// Files and sockets it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it is our child").count()
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        // Nothing is lost when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// All that is resident: anonymous pages, and pages of the binary and other mapped files.
    pub(crate) resident: u64,
    /// The greatest it has been.
    pub(crate) peak: u64,
    /// Of what is resident: its own, without files.
    pub(crate) anonymous: u64,
    /// Of what is resident: mapped files, the binary among them.
    pub(crate) files: u64,
}

impl Memory {
    fn of(process: u32) -> Memory {
        let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it is our child");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
            kilobytes.and_then(|text| text.parse::<u64>().ok()).expect("the system tells it") * 1024
        };
        Memory {
            resident: field("VmRSS"),
            peak: field("VmHWM"),
            anonymous: field("RssAnon"),
            files: field("RssFile"),
        }
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Memory { resident, peak, anonymous, files } = self;
        let [resident, peak, anonymous, files] =
            [resident, peak, anonymous, files].map(|bytes| megabytes(*bytes));
        write!(f, "{resident:.1} MB (peak {peak:.1}; {anonymous:.1} anonymous, {files:.1} mapped files)")
    }
}

/// Bytes as MB of 1,000,000.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// An address of this machine where nobody listens.
pub(crate) fn free_address() -> SocketAddr {
    let random = SimRandom::new(Env::os().random.next_u64());
    let candidates = std::iter::repeat_with(|| PORTS.start + random.below(PORTS.end - PORTS.start));
    let mut addresses = candidates.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16)));
    let free = |address: &SocketAddr| TcpListener::bind(address).is_ok();
    addresses.find(free).expect("the sequence has no end")
}

/// Makes room for so many descriptors in this process and those it starts.
pub(crate) fn need_descriptors(count: usize) {
    let limit = Env::os().disk.open_files_max();
    assert!(
        limit >= count,
        "this test opens {count} files, the limit is {limit}: raise the hard limit \
         (`ulimit -Hn {count}` as root, LimitNOFILE= of a systemd unit, `--ulimit nofile={count}` of a container)"
    );
}
