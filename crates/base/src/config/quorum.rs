//! What makes a node one of several: its roles, the voters of the metadata log, the listeners between nodes.
//!
//! The rules are those of Apache Kafka 4.3's KRaft, with one more freedom: a controller that has no other voters needs
//! neither a listener for them nor a word about them, so that a node starts without any file.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::broker::Note;
use super::listeners::ListenerTexts;
use super::{BrokerConfig, HostPort, Listener, Origin, Value, keys};
use crate::ids::BrokerId;

/// Most voters of a metadata log: each one more makes every change slower.
const VOTERS_MAX: usize = 15;
/// Most controllers that a broker is told of.
const BOOTSTRAP_MAX: usize = 64;
/// A broker is not taken for dead before this many heartbeats are missing.
const HEARTBEATS_PER_SESSION: u32 = 3;

const VOTERS: &str = keys::CONTROLLER_QUORUM_VOTERS.row().name;
const BOOTSTRAP: &str = keys::CONTROLLER_QUORUM_BOOTSTRAP_SERVERS.row().name;
const ROLES: &str = keys::PROCESS_ROLES.row().name;
const LISTENER_NAMES: &str = keys::CONTROLLER_LISTENER_NAMES.row().name;
const INTER_BROKER: &str = keys::INTER_BROKER_LISTENER_NAME.row().name;
const SESSION: &str = keys::BROKER_SESSION_TIMEOUT_MS.row().name;
const HEARTBEAT: &str = keys::BROKER_HEARTBEAT_INTERVAL_MS.row().name;

/// What a process is (`process.roles`); at least one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Serves clients and leads partitions.
    pub broker: bool,
    /// Votes on the metadata log.
    pub controller: bool,
}

impl std::fmt::Display for Roles {
    /// As `process.roles` says it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.broker, self.controller) {
            (true, true) => "broker,controller",
            (true, false) => "broker",
            (false, true) => "controller",
            (false, false) => "none",
        })
    }
}

impl BrokerConfig {
    /// What this process is.
    pub fn roles(&self) -> Roles {
        let names = self.get(keys::PROCESS_ROLES);
        let has = |role: &str| names.iter().any(|name| name == role);
        Roles { broker: has("broker"), controller: has("controller") }
    }

    /// The number of this node (`node.id`).
    pub fn node(&self) -> BrokerId {
        BrokerId(self.get(keys::NODE_ID))
    }

    /// The voters of the metadata log and where each is reached (`controller.quorum.voters`); empty where none are
    /// named. At most 15.
    pub fn voters(&self) -> BTreeMap<BrokerId, HostPort> {
        read_voters(self.get(keys::CONTROLLER_QUORUM_VOTERS)).unwrap_or_default()
    }

    /// The same configuration for a node of this number.
    pub fn with_node(&self, node: BrokerId) -> BrokerConfig {
        let mut changed = self.clone();
        for key in [keys::NODE_ID.name(), keys::BROKER_ID.name()] {
            changed.fixed.insert(key, Value::Number(node.0.into()));
        }
        changed.settle();
        changed
    }

    /// Whether somebody said which number this node has.
    pub fn node_is_set(&self) -> bool {
        self.set_value(keys::NODE_ID).is_some()
    }

    /// Whether the metadata log has voters besides this node.
    pub fn has_other_voters(&self) -> bool {
        let node = self.node();
        self.voters().keys().any(|voter| *voter != node)
    }

    /// Controllers that a broker may ask: `controller.quorum.bootstrap.servers`, or else the voters. At most 64.
    pub fn controller_bootstrap(&self) -> Vec<HostPort> {
        let named = read_addresses(self.get(keys::CONTROLLER_QUORUM_BOOTSTRAP_SERVERS)).unwrap_or_default();
        if named.is_empty() { self.voters().into_values().collect() } else { named }
    }

    /// Where this node listens for other controllers and for brokers: the first of `controller.listener.names` that is
    /// in `listeners`.
    pub fn controller_listener(&self) -> Option<&Listener> {
        self.controller_listener.as_ref()
    }

    /// The listener at which other brokers reach this one; `None` for a node that is no broker.
    ///
    /// It is that of `inter.broker.listener.name`, or of the name that `security.inter.broker.protocol` is, or, for a
    /// node that serves alone, the first.
    pub fn inter_broker_listener(&self) -> Option<&Listener> {
        let wanted = match self.get(keys::INTER_BROKER_LISTENER_NAME) {
            Some(name) if !name.is_empty() => name,
            _ => self.get(keys::SECURITY_INTER_BROKER_PROTOCOL),
        };
        let clients = self.client_listeners();
        let named = clients.iter().find(|listener| listener.name.eq_ignore_ascii_case(wanted));
        named.or_else(|| clients.first())
    }

    /// The name of [`BrokerConfig::inter_broker_listener`], in capitals.
    pub fn inter_broker_listener_name(&self) -> Option<&str> {
        self.inter_broker_listener().map(|listener| listener.name.as_str())
    }

    /// Silence after which a broker is taken for dead; 1 ms or more.
    pub fn broker_session_timeout(&self) -> Duration {
        millis(self.get(keys::BROKER_SESSION_TIMEOUT_MS))
    }

    /// Time between two heartbeats of a broker: `broker.heartbeat.interval.ms`, at most a third of
    /// [`BrokerConfig::broker_session_timeout`], so that one lost heartbeat ends nothing; 1 ms or more.
    pub fn broker_heartbeat_interval(&self) -> Duration {
        let most = self.broker_session_timeout() / HEARTBEATS_PER_SESSION;
        millis(self.get(keys::BROKER_HEARTBEAT_INTERVAL_MS)).min(most).max(Duration::from_millis(1))
    }

    pub(super) fn listener_texts(&self) -> ListenerTexts<'_> {
        ListenerTexts {
            listeners: self.get(keys::LISTENERS),
            listeners_are_set: self.set_value(keys::LISTENERS).is_some(),
            advertised: self.get(keys::ADVERTISED_LISTENERS),
            protocols: self.get(keys::LISTENER_SECURITY_PROTOCOL_MAP),
            protocols_are_set: self.set_value(keys::LISTENER_SECURITY_PROTOCOL_MAP).is_some(),
            controllers: self.get(keys::CONTROLLER_LISTENER_NAMES),
            roles: self.roles(),
            has_other_voters: self.has_other_voters(),
        }
    }

    /// The part of the contradictions that is about several nodes: the key to blame and why.
    pub(super) fn contradictions_of_quorum(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if !self.roles().broker && !self.roles().controller {
            return vec![(ROLES, "it takes broker, controller, or both".to_owned())];
        }
        if let Err(reason) = read_voters(self.get(keys::CONTROLLER_QUORUM_VOTERS)) {
            return vec![(VOTERS, reason)];
        }
        let bootstrap = match read_addresses(self.get(keys::CONTROLLER_QUORUM_BOOTSTRAP_SERVERS)) {
            Ok(bootstrap) => bootstrap,
            Err(reason) => return vec![(BOOTSTRAP, reason)],
        };
        let (roles, voters, node) = (self.roles(), self.voters(), self.node());
        let is_voter = voters.contains_key(&node);
        let ids = || voters.keys().map(BrokerId::to_string).collect::<Vec<_>>().join(", ");
        if roles.controller && !voters.is_empty() && !is_voter {
            let reason = format!(
                "a controller is one of `{VOTERS}` ({}), and {node} is not: set it to one of them, add {node}@host:port \
                 to the voters of every node, or set `{ROLES}=broker`",
                ids()
            );
            found.push((keys::NODE_ID.name(), reason));
        }
        if roles.controller && voters.is_empty() && bootstrap.len() > 1 {
            let reason = format!(
                "it names {} controllers without their ids: set `{VOTERS}=1@host:port,…` on every node, because \
                 controllers do not find each other by themselves yet",
                bootstrap.len()
            );
            found.push((BOOTSTRAP, reason));
        }
        if !roles.controller && is_voter {
            let reason = format!(
                "node {node} is one of `{VOTERS}` ({}), so it is a controller too: say broker,controller, or take it \
                 out of the voters of every node",
                ids()
            );
            found.push((ROLES, reason));
        }
        if !roles.controller && voters.is_empty() && bootstrap.is_empty() {
            let reason = format!(
                "a node that is only a broker must know its controllers: set `{VOTERS}=id@host:port,…` or \
                 `{BOOTSTRAP}=host:port,…`, or add controller to the roles"
            );
            found.push((ROLES, reason));
        }
        if !roles.controller && self.get(keys::CONTROLLER_LISTENER_NAMES).is_empty() {
            found.push((LISTENER_NAMES, "it must name the listener of the controllers".to_owned()));
        }
        found.extend(self.contradictions_between_brokers());
        found
    }

    /// What is wrong with how brokers speak with each other.
    fn contradictions_between_brokers(&self) -> Vec<(&'static str, String)> {
        const PROTOCOL: &str = keys::SECURITY_INTER_BROKER_PROTOCOL.row().name;
        let mut found = Vec::new();
        for (key, name) in
            [(keys::BROKER_SESSION_TIMEOUT_MS, SESSION), (keys::BROKER_HEARTBEAT_INTERVAL_MS, HEARTBEAT)]
        {
            if self.get(key) < 1 {
                found.push((name, "it takes 1 ms and more".to_owned()));
            }
        }
        let clients = self.client_listeners();
        let names = || clients.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>().join(", ");
        let is_there = |name: &str| clients.iter().any(|listener| listener.name.eq_ignore_ascii_case(name));
        let name = self.get(keys::INTER_BROKER_LISTENER_NAME).filter(|name| !name.is_empty());
        let protocol = self.get(keys::SECURITY_INTER_BROKER_PROTOCOL);
        let serves_alone = self.roles().controller && !self.has_other_voters();
        match name {
            Some(_) if self.set_value(keys::SECURITY_INTER_BROKER_PROTOCOL).is_some() => {
                found.push((
                    INTER_BROKER,
                    format!("only one of it and `{PROTOCOL}` may be set: leave one out"),
                ));
            }
            // Wrong listeners are told of already.
            _ if clients.is_empty() => {}
            Some(name) if !is_there(name) => {
                let reason =
                    format!("`{name}` is no listener of brokers in `listeners`: it takes one of {}", names());
                found.push((INTER_BROKER, reason));
            }
            None if !serves_alone && !is_there(protocol) => {
                let reason = format!(
                    "brokers need a listener among themselves, and there is none called {protocol}: set it to one of {}",
                    names()
                );
                found.push((INTER_BROKER, reason));
            }
            _ => {}
        }
        found
    }

    /// What an operator should know of keys about several nodes although they are valid.
    pub(super) fn notes_of_quorum(&self, origins: &HashMap<&'static str, Origin>) -> Vec<Note> {
        let mut notes = Vec::new();
        let mut note = |key: &'static str, text: String| {
            if let Some(origin) = origins.get(key) {
                notes.push(Note { origin: *origin, key: key.to_owned(), text });
            }
        };
        let names = self.get(keys::CONTROLLER_LISTENER_NAMES);
        if let [first, _, ..] = names {
            note(LISTENER_NAMES, format!("has several names, and controllers use the first, {first}"));
        }
        let has_bootstrap = !self.get(keys::CONTROLLER_QUORUM_BOOTSTRAP_SERVERS).is_empty();
        if self.roles().controller && has_bootstrap {
            let why = match self.voters().is_empty() {
                true => format!("without `{VOTERS}` this node is the only controller"),
                false => format!("`{VOTERS}` names the controllers"),
            };
            note(BOOTSTRAP, format!("has no effect here, because {why}"));
        }
        let interval = self.broker_heartbeat_interval();
        if interval < millis(self.get(keys::BROKER_HEARTBEAT_INTERVAL_MS)) {
            let interval = interval.as_millis();
            note(
                HEARTBEAT,
                format!("is more than a third of `{SESSION}`: there is a heartbeat every {interval} ms"),
            );
        }
        notes
    }
}

fn millis(number: i32) -> Duration {
    Duration::from_millis(u64::try_from(number).unwrap_or(0).max(1))
}

/// `id@host:port` items; else what is wrong with one.
fn read_voters(items: &[String]) -> Result<BTreeMap<BrokerId, HostPort>, String> {
    let mut voters = BTreeMap::new();
    if items.len() > VOTERS_MAX {
        return Err(format!("there are {} voters, more than {VOTERS_MAX}; 3 or 5 do", items.len()));
    }
    for item in items {
        let no_voter =
            || format!("`{item}` is not of the form id@host:port, as in 1@controller-1.example:9093");
        let (id, address) = item.split_once('@').ok_or_else(no_voter)?;
        let id: i32 = id.trim().parse().ok().filter(|id| *id >= 0).ok_or_else(no_voter)?;
        let address = HostPort::parse(address).ok_or_else(no_voter)?;
        check_reachable(&address, item)?;
        if let Some((other, _)) = voters.iter().find(|(_, other)| **other == address) {
            return Err(format!("{other} and {id} have the same address, {address}"));
        }
        if voters.insert(BrokerId(id), address).is_some() {
            return Err(format!("{id} stands there twice: each voter has its own `node.id`"));
        }
    }
    Ok(voters)
}

/// `host:port` items; else what is wrong with one.
fn read_addresses(items: &[String]) -> Result<Vec<HostPort>, String> {
    if items.len() > BOOTSTRAP_MAX {
        return Err(format!("there are {} of them, more than {BOOTSTRAP_MAX}", items.len()));
    }
    let read = |item: &String| {
        let address =
            HostPort::parse(item).ok_or_else(|| format!("`{item}` is not of the form host:port"))?;
        check_reachable(&address, item).map(|()| address)
    };
    items.iter().map(read).collect()
}

fn check_reachable(address: &HostPort, item: &str) -> Result<(), String> {
    match address.port == 0 || matches!(address.host.as_str(), "" | "0.0.0.0" | "::") {
        true => Err(format!("`{item}` is no address that another node can dial: name a host and a port")),
        false => Ok(()),
    }
}
