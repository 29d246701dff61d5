//! Where the nodes of a cluster on one machine listen, and the `server.properties` of each.
//!
//! Ports lie in blocks behind the first, so that a cluster with data finds its own again:
//!
//! ```text
//!  first ‥    clients        first + 10 ‥   controllers        first + 20 ‥   HTTP
//! ```

use std::path::{Path, PathBuf};

use base::config::{Assignment, BrokerConfig, HostPort, UnknownKeys, parse_properties};
use base::env::Env;

use crate::failure::{Failure, Outcome};

/// Most nodes of a cluster.
pub(super) const NODES_MAX: u16 = 9;
/// Distance between the ports of two kinds.
const BLOCK: u16 = 10;
/// Ports that a cluster takes from the first on.
pub(super) const PORTS_TAKEN: u16 = 3 * BLOCK;
/// The first port when none is named, and how far the next candidate lies from it when one is taken.
const USUAL_FIRST: u16 = 9092;
const STEP: u16 = 100;
const CANDIDATES: u16 = 50;
/// Longest file that is read.
const FILE_BYTES_MAX: usize = 1 << 20;
/// Keys that make the nodes a cluster, set for each.
const OWN_KEYS: [&str; 11] = [
    "process.roles",
    "node.id",
    "broker.id",
    "controller.quorum.voters",
    "controller.quorum.bootstrap.servers",
    "controller.listener.names",
    "listeners",
    "advertised.listeners",
    "log.dirs",
    "log.dir",
    "vltava.http.listener",
];
/// The share of a machine's memory that one node alone takes for clients is half; together they take no more.
const MEMORY_KEY: &str = "vltava.memory.limit";
const MEMORY_MIN_BYTES: u64 = 64 << 20;

/// A cluster on this machine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Absolute.
    pub(super) dir: PathBuf,
    pub(super) nodes: u16,
    first: u16,
    /// Ports of the controllers, which are the first nodes.
    controllers: Vec<u16>,
    /// `KEY=VALUE` for all nodes.
    set: Vec<Assignment>,
}

/// How many of so many nodes are controllers: a majority of them must run, so that more are no gain.
fn controllers_of(nodes: u16) -> u16 {
    match nodes {
        0..=3 => nodes,
        4 => 3,
        _ => 5,
    }
}

impl Layout {
    /// Looks for free ports; a cluster that is in the directory already keeps those of its controllers, and the others
    /// where no first one is named.
    pub(super) async fn choose(
        env: &Env,
        dir: &Path,
        nodes: u16,
        first: Option<u16>,
        set: &[String],
    ) -> Outcome<Layout> {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        let set = set.iter().map(|text| assignment(text)).collect::<Outcome<Vec<_>>>()?;
        let before = Before::read(env, &dir)?;
        let known = before.as_ref().map(|before| before.controllers.clone());
        if let Some(known) = &known
            && (known.len() > usize::from(nodes) || known.len() > usize::from(NODES_MAX))
        {
            let message = format!("{} holds a cluster of {} controllers", dir.display(), known.len());
            return Err(Failure::new(message).help(format!("say --nodes {}, or more", known.len())));
        }
        let candidates = match first.or(before.map(|before| before.first)) {
            Some(first) => vec![first],
            None => (0..CANDIDATES).map(|number| USUAL_FIRST + number * STEP).collect(),
        };
        let mut taken = None;
        for first in candidates {
            let controllers = || (0..controllers_of(nodes)).map(|index| first + BLOCK + index).collect();
            let controllers = known.clone().unwrap_or_else(controllers);
            let layout = Layout { dir: dir.clone(), nodes, first, controllers, set: set.clone() };
            match layout.taken(env).await {
                None => return Ok(layout),
                Some(port) => taken = taken.or(Some(port)),
            }
        }
        let port = taken.unwrap_or_default();
        let of_controller = known.is_some_and(|known| known.contains(&port));
        let failure = Failure::new(format!("port {port} is taken, and the cluster needs it"));
        Err(failure.help(match of_controller {
            true => format!(
                "a controller of the cluster in {} listens there: `ss -ltnp 'sport = :{port}'` shows who has it",
                dir.display()
            ),
            false => format!("name another first port with --port; {PORTS_TAKEN} from there on are used"),
        }))
    }

    /// A port that is taken, or that two would listen on.
    async fn taken(&self, env: &Env) -> Option<u16> {
        let mut ports = Vec::new();
        for node in 1..=self.nodes {
            ports.extend([self.client_port(node), self.http_port(node)]);
        }
        // A single controller listens nowhere.
        ports.extend(self.controllers.iter().filter(|_| self.nodes > 1));
        for (index, port) in ports.iter().enumerate() {
            let address = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, *port));
            if ports[..index].contains(port) || env.network.listen(address).await.is_err() {
                return Some(*port);
            }
        }
        None
    }

    fn client_port(&self, node: u16) -> u16 {
        self.first + node - 1
    }

    fn http_port(&self, node: u16) -> u16 {
        self.first + 2 * BLOCK + node - 1
    }

    /// Where clients reach a node, from 1.
    pub(super) fn client_address(&self, node: u16) -> String {
        format!("127.0.0.1:{}", self.client_port(node))
    }

    /// Where a node serves HTTP.
    pub(super) fn http_address(&self, node: u16) -> String {
        format!("127.0.0.1:{}", self.http_port(node))
    }

    /// Where clients reach the cluster.
    pub(super) fn bootstrap(&self) -> String {
        (1..=self.nodes).map(|node| self.client_address(node)).collect::<Vec<_>>().join(",")
    }

    /// What a node is, as `process.roles` says it.
    pub(super) fn roles(&self, node: u16) -> &'static str {
        if usize::from(node) <= self.controllers.len() { "broker,controller" } else { "broker" }
    }

    /// The directory of a node.
    pub(super) fn node_dir(&self, node: u16) -> PathBuf {
        self.dir.join(format!("node-{node}"))
    }

    /// The file that starts a node.
    pub(super) fn properties_path(&self, node: u16) -> PathBuf {
        self.node_dir(node).join("server.properties")
    }

    /// The file that a node logs to.
    pub(super) fn log_path(&self, node: u16) -> PathBuf {
        self.node_dir(node).join("log")
    }

    /// Writes the files of all nodes, if each can be started with its own.
    pub(super) fn write(&self, env: &Env) -> Outcome {
        let texts: Vec<_> = (1..=self.nodes).map(|node| (node, self.properties(env, node))).collect();
        for (_, text) in &texts {
            let assignments = parse_properties(text).map_err(|error| Failure::new(error.to_string()))?;
            BrokerConfig::load(&assignments, UnknownKeys::Refuse).map_err(|errors| refused(&errors))?;
        }
        for (node, text) in texts {
            let path = self.properties_path(node);
            let written = env.disk.create_dir_all(&self.node_dir(node));
            let written = written.and_then(|()| env.disk.replace(&path, text.as_bytes()));
            written.map_err(|error| {
                Failure::new(format!("{}: {}", path.display(), client::io_text(&error)))
                    .help("name a directory that can be written with `--data DIR`")
            })?;
        }
        Ok(())
    }

    fn properties(&self, env: &Env, node: u16) -> String {
        let mut listeners = format!("PLAINTEXT://{}", self.client_address(node));
        if let Some(port) = self.controllers.get(usize::from(node) - 1) {
            listeners.push_str(&format!(",CONTROLLER://127.0.0.1:{port}"));
        }
        let voters = self.controllers.iter().zip(1..).map(|(port, id)| format!("{id}@127.0.0.1:{port}"));
        let memory = env.disk.memory_max_bytes().unwrap_or(0) / 2 / u64::from(self.nodes);
        let own = [
            ("process.roles", self.roles(node).to_owned()),
            ("node.id", node.to_string()),
            ("controller.quorum.voters", voters.collect::<Vec<_>>().join(",")),
            ("controller.listener.names", "CONTROLLER".to_owned()),
            ("listeners", listeners),
            ("log.dirs", self.node_dir(node).join("data").display().to_string()),
            ("vltava.http.listener", self.http_address(node)),
            ("broker.rack", format!("rack-{node}")),
            (MEMORY_KEY, memory.max(MEMORY_MIN_BYTES).to_string()),
        ];
        let is_set = |key: &str| self.set.iter().any(|assignment| assignment.key == key);
        let own = own.iter().filter(|(key, _)| !is_set(key)).map(|(key, value)| (*key, value.as_str()));
        let set = self.set.iter().map(|assignment| (assignment.key.as_str(), assignment.value.as_str()));
        let mut text = "# Written by `vltava dev cluster` whenever it starts.\n".to_owned();
        for (key, value) in own.chain(set) {
            text.push_str(&format!("{}={}\n", escaped(key), escaped(value)));
        }
        text
    }
}

/// What a value or a key is in a file of properties.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\\' => out.push_str("\\\\"),
            other => out.push(other),
        }
    }
    out
}

fn assignment(text: &str) -> Outcome<Assignment> {
    let assignment = Assignment::from_argument(text);
    let assignment = assignment
        .ok_or_else(|| Failure::usage(format!("`--set {text}` sets nothing")).help("say --set KEY=VALUE"))?;
    if OWN_KEYS.contains(&assignment.key.as_str()) {
        return Err(Failure::usage(format!("{} is different on each node", assignment.key)).help(
            "--nodes, --data and --port decide it; the files in --data may be changed and started by hand",
        ));
    }
    Ok(assignment)
}

/// Why no node would start: what the user has set, because the rest is written here.
fn refused(errors: &[base::config::ConfigError]) -> Failure {
    let lines: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
    Failure::usage(lines.join("; ")).help("`vltava docs config` lists every key with the values it takes")
}

/// What an earlier run left in the directory.
struct Before {
    first: u16,
    controllers: Vec<u16>,
}

impl Before {
    fn read(env: &Env, dir: &Path) -> Outcome<Option<Before>> {
        let path = dir.join("node-1/server.properties");
        let bytes = match env.disk.read(&path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(Failure::new(format!("{}: {}", path.display(), client::io_text(&error))));
            }
        };
        let not_ours = |why: String| {
            Failure::new(format!("{}: {why}", path.display()))
                .help("name another directory with `--data DIR`")
        };
        let text = String::from_utf8(bytes).map_err(|_| not_ours("it is not UTF-8".to_owned()))?;
        let assignments = parse_properties(&text).map_err(|error| not_ours(error.to_string()))?;
        let loaded = BrokerConfig::load(&assignments, UnknownKeys::Tell);
        let config = loaded.map_err(|errors| not_ours(errors[0].to_string()))?.config;
        let ids: Vec<i32> = config.voters().keys().map(|id| id.0).collect();
        let is_counted = ids.iter().zip(1..).all(|(id, number)| *id == number) && !ids.is_empty();
        let port = config.client_listeners().first().map(|listener| listener.bind.port);
        // The ports of all kinds are counted from it.
        let port = port.filter(|port| (1..=u16::MAX - PORTS_TAKEN).contains(port));
        match (is_counted, port) {
            (true, Some(first)) => {
                let ports = config.voters().into_values().map(|HostPort { port, .. }| port);
                Ok(Some(Before { first, controllers: ports.collect() }))
            }
            _ => Err(not_ours("it was not written by `vltava dev cluster`".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use base::env::sim::Sim;

    use super::*;

    fn choose(sim: &Sim, nodes: u16, first: Option<u16>, set: &[&str]) -> Outcome<Layout> {
        let set: Vec<_> = set.iter().map(|text| (*text).to_owned()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(Layout::choose(&sim.env, Path::new("/c"), nodes, first, &set))
    }

    #[test]
    fn a_cluster_finds_its_ports_again() {
        let sim = Sim::new(1);
        let layout = choose(&sim, 3, Some(9200), &[]).expect("free ports");
        layout.write(&sim.env).expect("it is written");
        assert_eq!(choose(&sim, 3, None, &[]), Ok(layout));
        let moved = choose(&sim, 3, Some(9300), &[]).expect("free ports");
        assert_eq!(moved.bootstrap(), "127.0.0.1:9300,127.0.0.1:9301,127.0.0.1:9302");
        assert_eq!(moved.controllers, [9210, 9211, 9212]);
        assert_eq!(choose(&sim, 4, None, &[]).map(|layout| layout.roles(4)), Ok("broker"));
        let fewer = choose(&sim, 2, None, &[]).expect_err("a majority could be missing").to_string();
        assert!(fewer.contains("3 controllers") && fewer.contains("--nodes 3"), "{fewer}");
        // Two nodes on one port.
        let taken = choose(&sim, 3, Some(9210), &[]).expect_err("a controller is there").to_string();
        assert!(taken.contains("port 9210"), "{taken}");
    }

    #[test]
    fn every_node_can_be_started_from_its_file() {
        let sim = Sim::new(1);
        for (nodes, controllers) in [(1, 1), (2, 2), (3, 3), (4, 3), (5, 5), (9, 5)] {
            let sim = Sim::new(1);
            let layout = choose(&sim, nodes, None, &["num.partitions=7"]).expect("free ports");
            layout.write(&sim.env).expect("it is written");
            for node in 1..=nodes {
                let text = sim.env.disk.read(&layout.properties_path(node), FILE_BYTES_MAX).expect("a file");
                let text = String::from_utf8(text).expect("text");
                let loaded =
                    BrokerConfig::load(&parse_properties(&text).expect("properties"), UnknownKeys::Refuse);
                let Ok(loaded) = loaded else { panic!("{text}") };
                assert!(loaded.notes.is_empty(), "{:?}", loaded.notes);
                assert_eq!(loaded.config.voters().len(), controllers);
                assert_eq!(loaded.config.get(base::config::keys::NUM_PARTITIONS), 7);
            }
        }
        let refused =
            |set: &str| choose(&sim, 3, None, &[set]).and_then(|layout| layout.write(&sim.env)).unwrap_err();
        assert!(refused("node.id=4").to_string().contains("different on each node"));
        assert!(refused("num.partition=4").to_string().contains("did you mean"));
        assert_eq!(refused("num.partitions").exit_status(), 2);
    }

    #[test]
    fn values_survive_the_file() {
        let value = "a\\b c#d!e=f:g\nh";
        let text = format!("key={}\n", escaped(value));
        assert_eq!(parse_properties(&text).expect("properties")[0].value, value);
    }
}
