//! Clusters of real processes: nodes that are started one by one from Kafka's kind of file, and `vltava dev cluster`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use base::env::Env;
use client::{Client, ClientConfig};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::binary;
use crate::run;
use crate::server::free_address;
use crate::wires::Wires;

/// How long anything but an end may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a node may take to end.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// How long a node may take to end that waits for others.
const END_WHILE_WAITING: Duration = Duration::from_secs(2);

/// A process; killed when dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn spawn(mut command: Command) -> Process {
        Process(command.spawn().expect("the binary was built for this test"))
    }

    fn number(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("it is our child");
        self.0.wait().expect("it is our child");
    }

    /// SIGSTOP, or SIGCONT.
    pub(crate) fn hold(&self, holds: bool) {
        let signal = if holds { Signal::STOP } else { Signal::CONT };
        kill_process(self.number(), signal).expect("it is our child");
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("it is our child")
    }

    /// SIGTERM; how it ended, which is to be within the time.
    pub(crate) fn end(&mut self, patience: Duration) -> ExitStatus {
        kill_process(self.number(), Signal::TERM).expect("it is our child");
        let asked = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("it is our child") {
                return status;
            }
            assert!(asked.elapsed() < patience, "SIGTERM did not end it within {patience:?}");
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is lost when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory for one test; it stays when the test fails.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Place {
        let id = Env::os().random.next_u64();
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("process-{name}-{id:016x}"));
        fs::create_dir_all(&dir).expect("cargo's directory for tests can be written");
        Place(dir)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match std::thread::panicking() || std::env::var_os("PROCESS_KEEP").is_some() {
            true => eprintln!("data and logs are in {}", self.0.display()),
            false => drop(fs::remove_dir_all(&self.0)),
        }
    }
}

/// A node with its file, as an operator of Kafka writes it.
pub(crate) struct Node {
    index: usize,
    pub(crate) dir: PathBuf,
    pub(crate) clients: SocketAddr,
    http: SocketAddr,
    /// It runs in the network namespace of [`Wires`].
    pub(crate) wired: bool,
    /// Its disk and its clock do as [`Node::fault`] says.
    pub(crate) faulty: bool,
}

impl Node {
    /// Nodes 1 and so on, all controllers and brokers.
    pub(crate) fn several(place: &Place, count: usize) -> Vec<Node> {
        let mut addresses: Vec<SocketAddr> = Vec::new();
        while addresses.len() < 3 * count {
            let address = free_address();
            addresses.extend((!addresses.contains(&address)).then_some(address));
        }
        let of = |node: &[SocketAddr]| [node[0], node[1], node[2]];
        Node::at(place, &addresses.chunks(3).map(of).collect::<Vec<_>>())
    }

    /// The same where the addresses are given: of each its controller's, its broker's and its console's.
    pub(crate) fn at(place: &Place, addresses: &[[SocketAddr; 3]]) -> Vec<Node> {
        let voters: Vec<_> =
            (1..).zip(addresses).map(|(id, [address, ..])| format!("{id}@{address}")).collect();
        let node = |(index, [controller, clients, http]): (usize, &[SocketAddr; 3])| {
            let id = index + 1;
            let dir = place.0.join(format!("{id}"));
            fs::create_dir_all(&dir).expect("a directory");
            let text = format!(
                "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={}\n\
                 listeners=PLAINTEXT://{clients},CONTROLLER://{controller}\n\
                 controller.listener.names=CONTROLLER\n\
                 listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
                 inter.broker.listener.name=PLAINTEXT\nlog.dirs={}\nvltava.http.listener={http}\n",
                voters.join(","),
                dir.join("data").display(),
            );
            fs::write(dir.join("server.properties"), text).expect("a file");
            Node { index, dir, clients: *clients, http: *http, wired: false, faulty: false }
        };
        addresses.iter().enumerate().map(node).collect()
    }

    /// One more node, a broker alone, of the cluster that `of` is one of.
    pub(crate) fn broker(place: &Place, id: usize, of: &Node) -> Node {
        let known = fs::read_to_string(of.dir.join("server.properties")).expect("a file");
        let voters =
            known.lines().find(|line| line.starts_with("controller.quorum.voters=")).expect("a line");
        let (clients, http) = (free_address(), free_address());
        let dir = place.0.join(format!("{id}"));
        fs::create_dir_all(&dir).expect("a directory");
        let text = format!(
            "process.roles=broker\nnode.id={id}\n{voters}\nlisteners=PLAINTEXT://{clients}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
             inter.broker.listener.name=PLAINTEXT\nlog.dirs={}\nvltava.http.listener={http}\n",
            dir.join("data").display(),
        );
        fs::write(dir.join("server.properties"), text).expect("a file");
        Node { index: id - 1, dir, clients, http, wired: false, faulty: false }
    }

    /// Adds lines to its file.
    pub(crate) fn set(&self, lines: &str) {
        let path = self.dir.join("server.properties");
        let text = fs::read_to_string(&path).expect("a file");
        fs::write(path, text + lines).expect("a file");
    }

    pub(crate) fn start(&self) -> Process {
        let log = File::options().create(true).append(true).open(self.dir.join("log")).expect("a log");
        let binary = binary();
        let mut command = if self.wired { Wires::command(self.index) } else { Command::new(binary) };
        if self.wired {
            command.arg(binary);
        }
        command.arg("serve").arg("--config").arg(self.dir.join("server.properties"));
        if self.faulty {
            command.arg("--faults").arg(self.dir.join("faults"));
        }
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Process(command.spawn().expect("the binary was built for this test"))
    }

    /// What is wrong with its disk and its clock from now on (see [`base::env::Faults`]).
    pub(crate) fn fault(&self, faults: &str) {
        let path = self.dir.join("faults");
        Env::os().disk.replace(&path, faults.as_bytes()).expect("a file");
    }

    pub(crate) fn serves(&self) -> bool {
        TcpStream::connect(self.clients).is_ok()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// What `/healthz` answers, head and body; nothing as long as nobody listens.
    fn health(&self) -> String {
        let Ok(mut stream) = TcpStream::connect(self.http) else { return String::new() };
        let mut answer = String::new();
        let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let read = asked.and_then(|()| stream.read_to_string(&mut answer));
        read.map(|_| answer).unwrap_or_default()
    }
}

/// Waits until something holds.
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(20));
    }
}

/// The cluster's id as the broker at an address tells it, by ApiVersions and Metadata.
fn cluster_id_at(address: &str) -> String {
    run(async {
        let config = ClientConfig { retry_for: PATIENCE, ..ClientConfig::new([address.to_owned()]) };
        let client = Client::connect(&Env::os(), config).await.expect("it answers ApiVersions and Metadata");
        let cluster = client.describe_cluster().await.expect("it answers");
        cluster.cluster_id
    })
}

#[test]
fn three_nodes_start_one_by_one_and_outlive_one_of_them() {
    let place = Place::new("three-nodes");
    let nodes = Node::several(&place, 3);
    let mut third = nodes[2].start();
    wait_for("the console is up while a majority is waited for", || {
        nodes[2].health().contains("a majority of the controllers is waited for: 1@")
    });
    assert!(nodes[2].health().starts_with("HTTP/1.1 503") && !nodes[2].serves());
    wait_for("the log says what is waited for", || nodes[2].log().contains("no controller leads yet"));
    let mut first = nodes[0].start();
    wait_for("two of three are a majority", || nodes[0].serves() && nodes[2].serves());
    let mut second = nodes[1].start();
    wait_for("the third serves too", || nodes[1].serves());
    let ids: Vec<_> = nodes.iter().map(|node| cluster_id_at(&node.clients.to_string())).collect();
    assert!(ids[0].len() == 22 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert!(nodes[0].log().contains("controllers         1@"), "{}", nodes[0].log());
    first.0.kill().expect("it is our child");
    first.0.wait().expect("it is our child");
    sleep(Duration::from_secs(2));
    for (node, process) in [(&nodes[1], &mut second), (&nodes[2], &mut third)] {
        assert!(process.0.try_wait().expect("it is our child").is_none(), "{}", node.log());
        assert_eq!(cluster_id_at(&node.clients.to_string()), ids[0]);
    }
    first = nodes[0].start();
    wait_for("the first is back", || nodes[0].serves());
    assert_eq!(cluster_id_at(&nodes[0].clients.to_string()), ids[0]);
    // The last one ends although no majority is left.
    for (node, process) in nodes.iter().zip([&mut first, &mut second, &mut third]) {
        let status = process.end(END_PATIENCE);
        assert!(status.success(), "{status}:\n{}", node.log());
    }
}

#[test]
fn a_node_that_waits_for_a_majority_ends_at_once() {
    let place = Place::new("waiting-node");
    let nodes = Node::several(&place, 3);
    let mut process = nodes[1].start();
    wait_for("it waits", || nodes[1].health().contains("is waited for"));
    let status = process.end(END_WHILE_WAITING);
    assert!(status.success() && nodes[1].log().contains("ended while starting"), "{}", nodes[1].log());
}

#[test]
fn a_taken_controller_port_is_told_before_anything_is_opened() {
    let place = Place::new("taken-port");
    let nodes = Node::several(&place, 3);
    let text = fs::read_to_string(nodes[0].dir.join("server.properties")).expect("a file");
    let address =
        text.split_once("CONTROLLER://").expect("a listener").1.lines().next().expect("its address");
    let _other = std::net::TcpListener::bind(address).expect("it is free");
    let mut process = nodes[0].start();
    wait_for("it ends", || process.0.try_wait().expect("it is our child").is_some());
    let log = nodes[0].log();
    assert!(log.contains(address) && log.contains("controller.quorum.voters"), "{log}");
    assert!(!nodes[0].dir.join("data/metadata").exists());
}

#[test]
fn a_controller_alone_serves_no_clients_and_starts() {
    let place = Place::new("controller-alone");
    let nodes = Node::several(&place, 1);
    let path = nodes[0].dir.join("server.properties");
    let text = fs::read_to_string(&path).expect("a file");
    let text = text
        .replace("=broker,controller", "=controller")
        .replace(&format!("PLAINTEXT://{},", nodes[0].clients), "");
    fs::write(&path, text.replace("inter.broker.listener.name=PLAINTEXT\n", "")).expect("a file");
    let mut process = nodes[0].start();
    wait_for("it is healthy", || nodes[0].health().starts_with("HTTP/1.1 200"));
    assert!(!nodes[0].serves());
    let status = process.end(END_PATIENCE);
    assert!(status.success(), "{status}:\n{}", nodes[0].log());
}

/// `vltava dev cluster` and what it tells, line by line.
struct DevCluster {
    process: Process,
    lines: mpsc::Receiver<String>,
    told: Vec<String>,
}

impl DevCluster {
    fn start(arguments: &[&str]) -> DevCluster {
        let mut command = Command::new(binary());
        command.args(["dev", "cluster"]).args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary was built for this test");
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let (sender, lines) = mpsc::channel();
        // Ends with the process.
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        DevCluster { process: Process(child), lines, told: Vec::new() }
    }

    /// The next line that has these words.
    fn hear(&mut self, words: &str) -> String {
        let began = Instant::now();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE.saturating_sub(began.elapsed())) {
            self.told.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
        panic!("`{words}` was not told within {PATIENCE:?}, but:\n{}", self.told.join("\n"));
    }
}

/// The number of the process in a line about a node.
fn number_in(line: &str) -> Pid {
    let (_, rest) = line.split_once("process ").expect("a process is named");
    let number = rest.split(',').next().and_then(|text| text.parse().ok()).expect("its number");
    Pid::from_raw(number).expect("a process")
}

#[test]
fn a_cluster_for_developers_tells_who_died_and_leaves_nothing_behind() {
    let place = Place::new("dev-cluster");
    let dir = place.0.join("data").display().to_string();
    // A cluster is not moved by chance to ports that others take meanwhile.
    let port = free_address().port().to_string();
    for _ in 0..2 {
        // The second time the cluster goes on with what is there.
        let mut cluster = DevCluster::start(&[
            "--nodes",
            "3",
            "--data",
            &dir,
            "--port",
            &port,
            "--set",
            "num.partitions=2",
        ]);
        let line = cluster.hear("bootstrap servers");
        let addresses: Vec<_> = line.split_whitespace().last().expect("addresses").split(',').collect();
        let ids: Vec<_> = addresses.iter().map(|address| cluster_id_at(address)).collect();
        assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        let numbers = [1, 2, 3].map(|node| number_in(&cluster.hear(&format!("node {node} "))));
        kill_process(numbers[1], Signal::KILL).expect("it runs");
        cluster.hear("node 2 (process");
        let by_hand = cluster.hear("start it again by hand");
        assert!(by_hand.ends_with(&format!("serve --config {dir}/node-2/server.properties")), "{by_hand}");
        assert_eq!(cluster_id_at(addresses[0]), ids[0]);
        let status = cluster.process.end(2 * END_PATIENCE);
        assert!(status.success(), "{status}");
        for number in numbers {
            assert!(test_kill_process(number).is_err(), "{number:?} is left over");
        }
    }
}

#[test]
fn a_cluster_without_a_directory_is_gone_at_the_end() {
    // The fourth is no controller.
    let mut cluster = DevCluster::start(&["--nodes", "4", "--port", &free_address().port().to_string()]);
    let line = cluster.hear("data: ");
    let dir = line.split_once("data: ").and_then(|(_, rest)| rest.split(',').next()).expect("a directory");
    let line = cluster.hear("bootstrap servers");
    let addresses: Vec<_> = line.split_whitespace().last().expect("addresses").split(',').collect();
    let ids: Vec<_> = addresses.iter().map(|address| cluster_id_at(address)).collect();
    assert!(ids.len() == 4 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let numbers = [1, 2, 3, 4].map(|node| number_in(&cluster.hear(&format!("node {node} "))));
    let status = cluster.process.end(2 * END_PATIENCE);
    assert!(status.success() && !Path::new(dir).exists(), "{status}");
    assert!(numbers.iter().all(|number| test_kill_process(*number).is_err()));
}

#[cfg(target_os = "linux")]
#[test]
fn no_node_outlives_a_cluster_that_was_killed() {
    let place = Place::new("killed-cluster");
    let dir = place.0.display().to_string();
    let mut cluster = DevCluster::start(&["--data", &dir, "--port", &free_address().port().to_string()]);
    let line = cluster.hear("bootstrap servers");
    let addresses: Vec<_> = line.split_whitespace().last().expect("addresses").split(',').collect();
    cluster.process.0.kill().expect("it is our child");
    wait_for("the nodes end", || addresses.iter().all(|address| TcpStream::connect(address).is_err()));
    let log = fs::read_to_string(place.0.join("node-3/log")).expect("a log");
    assert!(log.contains("ending signal=\"SIGTERM\""), "{log}");
}

#[test]
fn a_broker_waits_for_its_controllers_and_ends_at_once() {
    let place = Place::new("waiting-broker");
    let nodes = Node::several(&place, 1);
    let text = format!(
        "process.roles=broker\nnode.id=7\ncontroller.quorum.bootstrap.servers={}\n\
         listeners=PLAINTEXT://{}\nlog.dirs={}\nvltava.http.listener={}\n",
        free_address(),
        nodes[0].clients,
        nodes[0].dir.join("data").display(),
        nodes[0].http,
    );
    fs::write(nodes[0].dir.join("server.properties"), text).expect("a file");
    let mut process = nodes[0].start();
    wait_for("it waits", || nodes[0].health().contains("a controller is waited for"));
    let status = process.end(END_WHILE_WAITING);
    assert!(status.success() && nodes[0].log().contains("ended while starting"), "{}", nodes[0].log());
}
