//! How much memory the system lets this process have, as Linux tells it in files.
//!
//! The least counts of: what the machine has, and what each cgroup from the process's own up to the root allows, in
//! both versions of cgroups. A container often sees its own cgroup as the root of what is mounted, although its name
//! is longer: names that lead nowhere are passed over, the root is looked at in any case.

use std::path::{Path, PathBuf};

/// What the machine has.
const MACHINE: &str = "/proc/meminfo";
/// Which cgroups the process is in.
const CGROUPS: &str = "/proc/self/cgroup";
/// Where version 2 is mounted: alone, or beside version 1.
const VERSION_2: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Where version 1 keeps the memory controller.
const VERSION_1: &str = "/sys/fs/cgroup/memory";
/// Limits of a cgroup, bytes, or the word `max`.
const LIMIT_2: &str = "memory.max";
/// Likewise in version 1, where a number near 2^63 stands for none.
const LIMIT_1: &str = "memory.limit_in_bytes";

/// Bytes of memory this process may have; `None` when nothing tells. `read` gives a file's text.
pub(super) fn limit_bytes(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let machine = read(Path::new(MACHINE)).and_then(|text| machine_bytes(&text));
    let cgroups = read(Path::new(CGROUPS)).unwrap_or_default();
    let limits = cgroups.lines().flat_map(limit_files).filter_map(|file| read(&file)?.trim().parse().ok());
    machine.into_iter().chain(limits).min()
}

/// The line `MemTotal:  24683916 kB`.
fn machine_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The files that may bound the cgroup of a line `number:controllers:path`.
fn limit_files(line: &str) -> Vec<PathBuf> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
    let own = Path::new(path.trim_start_matches('/'));
    // The last of the ancestors is the empty path, the root.
    let below = |mount: &str, file: &str| {
        own.ancestors().map(|group| Path::new(mount).join(group).join(file)).collect::<Vec<_>>()
    };
    if controllers.is_empty() {
        VERSION_2.iter().flat_map(|mount| below(mount, LIMIT_2)).collect()
    } else if controllers.split(',').any(|controller| controller == "memory") {
        below(VERSION_1, LIMIT_1)
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:        8000000 kB\nMemFree:         1000000 kB\n";
    const MACHINE_BYTES: u64 = 8_192_000_000;

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        limit_bytes(|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn without_cgroups_the_machine_counts() {
        assert_eq!(limit(&[]), None);
        assert_eq!(limit(&[(MACHINE, "MemTotal: much\n")]), None);
        assert_eq!(limit(&[(MACHINE, MEMINFO)]), Some(MACHINE_BYTES));
        let unlimited = ("/sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(limit(&[(MACHINE, MEMINFO), (CGROUPS, "0::/\n"), unlimited]), Some(MACHINE_BYTES));
    }

    #[test]
    fn of_nested_cgroups_the_tightest_counts() {
        let files = [
            (MACHINE, MEMINFO),
            (CGROUPS, "0::/system.slice/vltava.service\n"),
            ("/sys/fs/cgroup/system.slice/memory.max", "1000000\n"),
            ("/sys/fs/cgroup/system.slice/vltava.service/memory.max", "2000000\n"),
        ];
        assert_eq!(limit(&files), Some(1_000_000));
        assert_eq!(limit(&[files[0], files[1], files[3]]), Some(2_000_000));
    }

    #[test]
    fn version_1_is_read_beside_version_2() {
        let files = [
            (MACHINE, MEMINFO),
            (CGROUPS, "5:cpu,cpuacct:/a\n4:memory:/docker/abc\n0::/\n"),
            ("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "3000000\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(limit(&files), Some(3_000_000));
        assert_eq!(limit(&[files[0], files[1], files[3]]), Some(MACHINE_BYTES));
    }

    #[test]
    fn a_container_finds_its_limit_at_the_root_of_what_is_mounted() {
        let files = [
            (MACHINE, MEMINFO),
            (CGROUPS, "4:memory:/kubepods/pod1/abc\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "4000000\n"),
        ];
        assert_eq!(limit(&files), Some(4_000_000));
    }
}
