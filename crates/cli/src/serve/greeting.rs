//! What a node says once it serves: a few lines that tell a newcomer all there is to know.

use std::net::SocketAddr;

use base::config::Durability;

use super::{Node, metadata};

/// Six lines: data, bootstrap address, console, durability, and the next two commands. One more for a node that has
/// others; less for one that serves no clients.
pub(crate) fn lines(node: &Node) -> Vec<String> {
    let config = node.config();
    let console = match node.console_address() {
        Some(address) => format!("http://{}/", reachable(address)),
        None => "none (vltava.http.listener is empty)".to_owned(),
    };
    let mut lines =
        vec![format!("Vltava {} serves   data: {}", env!("CARGO_PKG_VERSION"), node.place_text())];
    if metadata::waits_for_others(&config) || !config.roles().broker {
        lines.push(format!("  node                {}, {}", config.node(), config.roles()));
    }
    if metadata::waits_for_others(&config) {
        lines.push(format!("  controllers         {}", metadata::controllers_text(&config)));
    }
    if !config.roles().broker {
        lines.push(format!("  console             {console}"));
        return lines;
    }
    let bootstrap = bootstrap(node);
    // The default address needs no words.
    let option = if bootstrap == "127.0.0.1:9092" { String::new() } else { format!(" -b {bootstrap}") };
    lines.extend([
        format!("  bootstrap servers   {bootstrap}{}", elsewhere(node)),
        format!("  console             {console}"),
        format!("  durability          {}", durability(node)),
        format!("  try                 vltava topic create{option} hello"),
        format!(
            "  and                 echo world | vltava cat -P{option} -t hello && vltava cat -C{option} -t hello -e"
        ),
    ]);
    lines
}

fn durability(node: &Node) -> &'static str {
    if node.is_temporary() {
        return "none: everything is gone at the end";
    }
    match node.config().durability() {
        Durability::Fsync => "fsync: what is acknowledged survives a power cut",
        Durability::PageCache => "page-cache: what is acknowledged survives the process, not a power cut",
    }
}

fn bootstrap(node: &Node) -> String {
    let advertised = node.config();
    let advertised = advertised.client_listeners().first().and_then(|listener| listener.advertised.clone());
    match (advertised, node.addresses().first()) {
        (Some(advertised), _) => advertised.to_string(),
        (None, Some((_, address))) => reachable(*address).to_string(),
        (None, None) => "none".to_owned(),
    }
}

/// What other machines are to dial, where the node listens to them and no configuration says it.
fn elsewhere(node: &Node) -> String {
    let config = node.config();
    let is_told = config.client_listeners().first().is_some_and(|listener| listener.advertised.is_some());
    match node.addresses().first() {
        Some((_, address)) if address.ip().is_unspecified() && !is_told => {
            format!(" here; from other machines this one's name with port {}", address.port())
        }
        _ => String::new(),
    }
}

/// What to dial on this machine for an address to listen on.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    let loopback: std::net::IpAddr = match address.ip() {
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(loopback, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_is_dialled_at_loopback() {
        let shown = |text: &str| reachable(text.parse().expect("an address")).to_string();
        assert_eq!(shown("0.0.0.0:9092"), "127.0.0.1:9092");
        assert_eq!(shown("[::]:9092"), "[::1]:9092");
        assert_eq!(shown("10.1.2.3:9092"), "10.1.2.3:9092");
    }
}
