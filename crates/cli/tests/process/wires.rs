//! A network for one test: every node in a network namespace of its own, all on one bridge with the test itself. What
//! goes from one node to another can be lost, in one direction or in both.
//!
//! The test runs itself again in fresh namespaces (`unshare`), so that it needs no rights, leaves nothing behind and
//! may use any address. Needs util-linux and iproute2.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

/// Set in the process that is inside.
const INSIDE: &str = "PROCESS_INSIDE_NETWORK";
/// An address of the link layer that nobody has.
const NOBODY: &str = "02:00:00:00:00:ff";
const NETWORK: [u8; 3] = [10, 77, 0];

/// Runs a test of this binary again with a network to itself; whether this is that run.
pub(crate) fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let binary = std::env::current_exe().expect("a path");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount", "--"]).arg(binary);
    let status = command.args([test, "--exact", "--nocapture"]).env(INSIDE, "true").status();
    let status = status.expect("unshare, of util-linux, is installed");
    assert!(status.success(), "{test} in a network of its own: {status}");
    false
}

/// The wires of nodes 1 to `count`.
pub(crate) struct Wires {
    count: usize,
}

impl Wires {
    /// Lays them; once in a process.
    pub(crate) fn lay(count: usize) -> Wires {
        let [a, b, c] = NETWORK;
        run("mount", "-t tmpfs none /run");
        ip("link set lo up");
        ip("link add wires type bridge");
        ip(&format!("addr add {a}.{b}.{c}.254/24 dev wires"));
        ip("link set wires up");
        let wires = Wires { count };
        for node in 0..count {
            let (name, host) = (name(node), host(node));
            ip(&format!("netns add {name}"));
            ip(&format!("link add {name} type veth peer name eth0 address {} netns {name}", link(node)));
            ip(&format!("link set {name} master wires up"));
            ip(&format!("-n {name} addr add {host}/24 dev eth0"));
            ip(&format!("-n {name} link set eth0 up"));
            ip(&format!("-n {name} link set lo up"));
        }
        wires
    }

    /// Where each node may listen.
    pub(crate) fn addresses(&self) -> Vec<[SocketAddr; 3]> {
        let of = |node| [9_093, 9_092, 9_094].map(|port| SocketAddr::from((host(node), port)));
        (0..self.count).map(of).collect()
    }

    /// What runs a program on a node.
    pub(crate) fn command(node: usize) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", name(node))).arg("--");
        command
    }

    /// From now on what one node sends to another is lost.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        neighbour(from, to, NOBODY);
    }

    /// It arrives again.
    pub(crate) fn mend(&self, from: usize, to: usize) {
        neighbour(from, to, &link(to));
    }
}

fn name(node: usize) -> String {
    format!("node-{}", node + 1)
}

fn host(node: usize) -> Ipv4Addr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, node as u8 + 1)
}

/// Its address on the link layer.
fn link(node: usize) -> String {
    format!("02:00:00:00:00:{:02x}", node + 1)
}

/// Makes a node think that another one has this address on the link layer.
fn neighbour(from: usize, to: usize, link: &str) {
    ip(&format!("-n {} neigh replace {} lladdr {link} dev eth0 nud permanent", name(from), host(to)));
}

fn ip(arguments: &str) {
    run("ip", arguments);
}

fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is to be installed: {error}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {words}");
}
