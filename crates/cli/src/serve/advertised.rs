//! Whether clients on other machines are told an address that leads them to themselves, and controllers one where
//! nobody listens.

use base::config::{BrokerConfig, HostPort, Listener};

/// A sentence for each listener that takes connections from elsewhere and tells clients to dial loopback, and one when
/// other controllers are told to dial a port where this one does not listen.
pub(super) fn warnings(config: &BrokerConfig) -> Vec<String> {
    config.client_listeners().iter().filter_map(warning).chain(controllers_warning(config)).collect()
}

fn controllers_warning(config: &BrokerConfig) -> Option<String> {
    let Listener { name, bind, .. } = config.controller_listener().filter(|_| config.has_other_voters())?;
    let voters = config.voters();
    let told = voters.get(&config.node()).filter(|told| told.port != bind.port)?;
    Some(format!(
        "listener {name} listens on {bind}, but controller.quorum.voters tells the other controllers to dial {told}: \
         unless something forwards that port, they do not reach this node"
    ))
}

fn warning(listener: &Listener) -> Option<String> {
    let advertised = listener.advertised.as_ref().filter(|address| is_loopback(&address.host))?;
    if is_loopback(&listener.bind.host) {
        return None;
    }
    let Listener { name, bind, .. } = listener;
    let HostPort { port, .. } = bind;
    Some(format!(
        "listener {name} listens on {bind}, but advertised.listeners tells clients to dial {advertised}, which on \
         other machines is those machines themselves: they connect once and then fail. Name this machine as they \
         reach it, as in --set advertised.listeners={name}://HOST:{port}, or leave advertised.listeners out: then \
         each client is told the address it used"
    ))
}

/// Whether a host means the machine that dials it.
pub(super) fn is_loopback(host: &str) -> bool {
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use base::config::UnknownKeys;

    use super::*;

    fn warnings_of(listeners: &str, advertised: &str) -> Vec<String> {
        let text = format!(
            "log.dirs=/d\nlisteners={listeners}\nadvertised.listeners={advertised}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT\n"
        );
        let mut assignments = base::config::parse_properties(&text).expect("properties");
        assignments.retain(|assignment| !assignment.value.is_empty());
        warnings(&BrokerConfig::load(&assignments, UnknownKeys::Refuse).expect("valid").config)
    }

    #[test]
    fn loopback_is_no_address_for_clients_elsewhere() {
        for (listeners, advertised) in [
            ("PLAINTEXT://0.0.0.0:9092", "PLAINTEXT://localhost:9092"),
            ("PLAINTEXT://:9092", "PLAINTEXT://127.0.0.1:9092"),
            ("PLAINTEXT://10.0.0.5:9092", "PLAINTEXT://[::1]:9092"),
        ] {
            let warnings = warnings_of(listeners, advertised);
            let [warning] = &warnings[..] else { panic!("{listeners}: {warnings:?}") };
            assert!(warning.contains("--set advertised.listeners=PLAINTEXT://HOST:9092"), "{warning}");
        }
    }

    #[test]
    fn controllers_are_to_dial_the_port_where_one_listens() {
        let warnings_for = |port: u16| {
            let text = format!(
                "log.dirs=/d\nlisteners=PLAINTEXT://:9092,CONTROLLER://:{port}\n\
                 controller.quorum.voters=1@a:9093,2@b:9093\n"
            );
            let assignments = base::config::parse_properties(&text).expect("properties");
            warnings(&BrokerConfig::load(&assignments, UnknownKeys::Refuse).expect("valid").config)
        };
        assert!(warnings_for(9093).is_empty());
        assert!(warnings_for(9094)[0].contains("dial a:9093"));
    }

    #[test]
    fn who_can_be_reached_or_wants_no_strangers_is_not_warned() {
        let both = "PLAINTEXT://0.0.0.0:9092,INTERNAL://127.0.0.1:9094";
        for (listeners, advertised) in [
            ("PLAINTEXT://0.0.0.0:9092", ""),
            ("PLAINTEXT://0.0.0.0:9092", "PLAINTEXT://kafka.example:9092"),
            ("PLAINTEXT://127.0.0.1:9092", "PLAINTEXT://localhost:9092"),
            ("PLAINTEXT://localhost:9092", "PLAINTEXT://127.0.0.1:9092"),
            // One for this machine beside one for the others.
            (both, "PLAINTEXT://kafka.example:9092,INTERNAL://localhost:9094"),
        ] {
            assert!(warnings_of(listeners, advertised).is_empty(), "{listeners} {advertised}");
        }
    }
}
