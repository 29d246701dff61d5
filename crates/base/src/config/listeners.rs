//! Listeners: where the node listens, for whom, and what clients are told to dial.

use std::fmt;

use super::Roles;

/// `host:port`; an empty host listens on every interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Host name or address, an IPv6 address without brackets.
    pub host: String,
    /// Port; 0 lets the system choose when listening.
    pub port: u16,
}

impl HostPort {
    /// Reads `host:port`, `[ipv6]:port` or `:port`.
    pub fn parse(text: &str) -> Option<HostPort> {
        let (host, port) = text.trim().rsplit_once(':')?;
        let host = match host.strip_prefix('[') {
            Some(address) => address.strip_suffix(']')?,
            None if host.contains([':', '/', '[', ']']) => return None,
            None => host,
        };
        let decimal = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| decimal)?;
        Some(HostPort { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A listener for clients, or for other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Name, in capitals.
    pub name: String,
    /// Where to listen.
    pub bind: HostPort,
    /// What clients are told; `None` tells each the address it used itself.
    pub advertised: Option<HostPort>,
}

/// What the listener keys say, as text, and what the node is.
pub(super) struct ListenerTexts<'a> {
    pub(super) listeners: &'a [String],
    /// Whether somebody has set them, as opposed to the default.
    pub(super) listeners_are_set: bool,
    pub(super) advertised: Option<&'a [String]>,
    pub(super) protocols: &'a str,
    pub(super) protocols_are_set: bool,
    pub(super) controllers: &'a [String],
    pub(super) roles: Roles,
    pub(super) has_other_voters: bool,
}

impl ListenerTexts<'_> {
    fn is_of_controllers(&self, name: &str) -> bool {
        self.controllers.iter().any(|other| other.eq_ignore_ascii_case(name))
    }
}

/// Listeners by whom they are for.
#[derive(Default)]
pub(super) struct Listeners {
    /// In the order they are written.
    pub(super) clients: Vec<Listener>,
    pub(super) controllers: Option<Listener>,
}

/// The listeners, or the key that is wrong and why.
pub(super) fn read_listeners(texts: &ListenerTexts<'_>) -> Result<Listeners, (&'static str, String)> {
    let Roles { broker, controller } = texts.roles;
    let of_controller = |name: &str| texts.is_of_controllers(name);
    let binds = named_addresses(texts.listeners).map_err(|reason| ("listeners", reason))?;
    let told = match texts.advertised {
        Some(items) => named_addresses(items).map_err(|reason| ("advertised.listeners", reason))?,
        None => Vec::new(),
    };
    for (name, address) in &told {
        if !binds.iter().any(|(other, _)| other == name) && !of_controller(name) {
            let reason = format!("`{name}` is no name of a listener in `listeners`");
            return Err(("advertised.listeners", reason));
        }
        if matches!(address.host.as_str(), "0.0.0.0" | "::") {
            let reason = format!("clients cannot dial {}: name an address they can reach", address.host);
            return Err(("advertised.listeners", reason));
        }
    }
    let (of_controllers, of_clients): (Vec<_>, Vec<_>) =
        binds.into_iter().partition(|(name, _)| of_controller(name));
    let advertised_as = |name: &str| {
        let advertised = told.iter().find(|(other, _)| other == name).map(|(_, address)| address.clone());
        // An advertised listener without a host means the host that the client used.
        advertised.filter(|address| !address.host.is_empty())
    };
    let listener = |(name, bind): (String, HostPort)| {
        let advertised = advertised_as(&name);
        Listener { name, bind, advertised }
    };
    check_roles(texts, &of_clients, &of_controllers)?;
    let mut clients = Vec::new();
    for (name, bind) in of_clients.into_iter().filter(|_| broker) {
        check_protocol(&name, texts)?;
        clients.push(listener((name, bind)));
    }
    if broker && !controller {
        // Through it the node speaks with its controllers.
        texts.controllers.first().map_or(Ok(()), |name| check_protocol(name, texts))?;
    }
    let names = texts.controllers.iter();
    let first = names
        .clone()
        .find_map(|name| of_controllers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).cloned());
    if controller && texts.has_other_voters {
        for name in names {
            check_controller(name, &of_controllers, texts)?;
        }
    }
    // Who is alone can do without: brokers elsewhere find it at its clients' listener, too.
    let serves = |name: &str| texts.has_other_voters || check_protocol(name, texts).is_ok();
    Ok(Listeners { clients, controllers: first.filter(|(name, _)| serves(name)).map(listener) })
}

/// Whether the listeners are those of a node of such roles.
fn check_roles(
    texts: &ListenerTexts<'_>,
    of_clients: &[(String, HostPort)],
    of_controllers: &[(String, HostPort)],
) -> Result<(), (&'static str, String)> {
    let Roles { broker, controller } = texts.roles;
    let fail = |reason: String| Err(("listeners", reason));
    match (of_clients, of_controllers) {
        // Told of elsewhere.
        _ if !broker && !controller => Ok(()),
        ([], _) if broker => fail(
            "none of them is for clients: all are controller listeners; add one, as in PLAINTEXT://:9092"
                .to_owned(),
        ),
        (_, [(name, _), ..]) if !controller => fail(format!(
            "`{name}` is a listener of controllers, and this node is only a broker: take it out, or add controller to \
             `process.roles`"
        )),
        ([(name, _), ..], _) if !broker && texts.listeners_are_set => fail(format!(
            "`{name}` is a listener for clients, and this node is only a controller: take it out, or add broker to \
             `process.roles`, or {name} to `controller.listener.names`"
        )),
        _ => Ok(()),
    }
}

/// Whether other controllers can reach this one at the listener of a name.
fn check_controller(
    name: &str,
    of_controllers: &[(String, HostPort)],
    texts: &ListenerTexts<'_>,
) -> Result<(), (&'static str, String)> {
    let bind = of_controllers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
    let Some((name, bind)) = bind else {
        let reason = format!(
            "`{name}` of `controller.listener.names` is not there, and other controllers need it: add {name}://:9093, \
             with the port that `controller.quorum.voters` tells them"
        );
        return Err(("listeners", reason));
    };
    if bind.port == 0 {
        let reason =
            format!("`{name}` needs the port that `controller.quorum.voters` tells other controllers, not 0");
        return Err(("listeners", reason));
    }
    check_protocol(name, texts)
}

fn named_addresses(items: &[String]) -> Result<Vec<(String, HostPort)>, String> {
    let mut all: Vec<(String, HostPort)> = Vec::new();
    for item in items {
        let parsed = item.split_once("://").filter(|(name, _)| !name.is_empty());
        let parsed =
            parsed.and_then(|(name, address)| Some((name.to_uppercase(), HostPort::parse(address)?)));
        let (name, address) =
            parsed.ok_or_else(|| format!("`{item}` is not of the form name://host:port"))?;
        if all.iter().any(|(other, _)| *other == name) {
            return Err(format!("two listeners have the name `{name}`"));
        }
        let taken = |other: &HostPort| *other == address && address.port != 0;
        if all.iter().any(|(_, other)| taken(other)) {
            return Err(format!("two listeners have the address {address}"));
        }
        all.push((name, address));
    }
    Ok(all)
}

fn check_protocol(name: &str, texts: &ListenerTexts<'_>) -> Result<(), (&'static str, String)> {
    const MAP: &str = "listener.security.protocol.map";
    if !texts.protocols_are_set && texts.is_of_controllers(name) {
        // As in Kafka: PLAINTEXT without a word.
        return Ok(());
    }
    let mut entries = texts.protocols.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let protocol = entries.find_map(|entry| {
        let (listener, protocol) = entry.split_once(':')?;
        listener.trim().eq_ignore_ascii_case(name).then_some(protocol.trim())
    });
    match protocol {
        None => Err((MAP, format!("it names no security protocol for listener `{name}`"))),
        Some(protocol) if protocol.eq_ignore_ascii_case("PLAINTEXT") => Ok(()),
        Some(protocol) => Err((
            MAP,
            format!(
                "listener `{name}` wants {protocol}, but only PLAINTEXT is served yet, and it is not encrypted"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOCOLS: &str = "PLAINTEXT:PLAINTEXT, INTERNAL:plaintext,SSL:SSL";

    fn list(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    fn parse(listeners: &str, advertised: Option<&str>) -> Result<Vec<Listener>, (&'static str, String)> {
        let (listeners, advertised) = (list(listeners), advertised.map(list));
        let controllers = list("CONTROLLER");
        let texts = ListenerTexts {
            listeners: &listeners,
            listeners_are_set: true,
            advertised: advertised.as_deref(),
            protocols: PROTOCOLS,
            protocols_are_set: true,
            controllers: &controllers,
            roles: Roles { broker: true, controller: true },
            has_other_voters: false,
        };
        read_listeners(&texts).map(|listeners| listeners.clients)
    }

    #[test]
    fn hosts_and_ports() {
        let show = |text| HostPort::parse(text).map(|address| address.to_string());
        for good in ["localhost:9092", ":9092", "[::1]:0", "0.0.0.0:65535"] {
            assert_eq!(show(good).as_deref(), Some(good));
        }
        for bad in ["localhost", "localhost:", "::1:9092", "a:65536", "a:-1", "a:+1", "a/b:1", "[::1:1"] {
            assert_eq!(show(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_kraft_file_gives_the_client_listeners_alone() {
        let all =
            parse("plaintext://:9092,CONTROLLER://:9093", Some("PLAINTEXT://kafka.example:19092")).unwrap();
        let [listener] = &all[..] else { panic!("{all:?}") };
        assert_eq!((listener.name.as_str(), listener.bind.to_string().as_str()), ("PLAINTEXT", ":9092"));
        assert_eq!(listener.advertised.as_ref().unwrap().to_string(), "kafka.example:19092");
        let all = parse("PLAINTEXT://:9092,INTERNAL://:9094", Some("PLAINTEXT://:9092")).unwrap();
        assert!(all.iter().all(|listener| listener.advertised.is_none()) && all.len() == 2);
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_the_key_to_blame() {
        for (listeners, advertised, key) in [
            ("CONTROLLER://:9093", None, "listeners"),
            ("PLAINTEXT:9092", None, "listeners"),
            ("PLAINTEXT://:9092,plaintext://:9093", None, "listeners"),
            ("PLAINTEXT://:9092,INTERNAL://:9092", None, "listeners"),
            ("SSL://:9092", None, "listener.security.protocol.map"),
            ("OTHER://:9092", None, "listener.security.protocol.map"),
            ("PLAINTEXT://:9092", Some("PLAINTEXT://0.0.0.0:9092"), "advertised.listeners"),
            ("PLAINTEXT://:9092", Some("INTERNAL://a:9092"), "advertised.listeners"),
        ] {
            assert_eq!(parse(listeners, advertised).unwrap_err().0, key, "{listeners} {advertised:?}");
        }
    }
}
