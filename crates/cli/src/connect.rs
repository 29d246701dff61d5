//! From the command line to a cluster.

use base::env::Env;
use client::{Client, ClientConfig};

use crate::arguments::Bootstrap;
use crate::failure::{Failure, Outcome};
use crate::telling::tell_troubles;

/// The port of an address that names none.
const USUAL_PORT: u16 = 9092;

/// Connects to the cluster at these addresses. From then on standard error tells what is tried again.
pub(crate) async fn connect(bootstrap: &Bootstrap) -> Outcome<Client> {
    let mut config = ClientConfig::new(addresses(&bootstrap.brokers)?);
    let patience = bootstrap.patience();
    config.retry_for = patience;
    config.request_timeout = patience;
    config.connect_timeout = patience.min(config.connect_timeout);
    config.client_id = "vltava-cli".to_owned();
    let client = Client::connect(&Env::os(), config).await?;
    tell_troubles(&client);
    Ok(client)
}

/// The addresses of brokers as a user names them, each with a port.
pub(crate) fn addresses(brokers: &[String]) -> Outcome<Vec<String>> {
    let named = brokers.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
    let addresses: Vec<_> = named.map(with_port).collect::<Outcome<_>>()?;
    if addresses.is_empty() {
        return Err(Failure::usage("no broker is named").help("say `-b HOST:PORT` or set VLTAVA_BOOTSTRAP"));
    }
    Ok(addresses)
}

/// `host` becomes `host:9092`; a scheme as in `PLAINTEXT://host:9092` is what people paste.
fn with_port(text: &str) -> Outcome<String> {
    let wrong = |text: &str| {
        Failure::usage(format!("`{text}` is no broker's address")).help("addresses look like localhost:9092")
    };
    let address = text.strip_prefix("PLAINTEXT://").unwrap_or(text);
    if address.starts_with("http://") || address.starts_with("https://") {
        return Err(wrong(text));
    }
    if address.contains("://") {
        return Err(Failure::usage(format!("`{text}`: only plain connections are spoken"))
            .help("name a PLAINTEXT listener of the broker"));
    }
    let has_port =
        address.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    let full = if has_port { address.to_owned() } else { format!("{address}:{USUAL_PORT}") };
    match base::config::HostPort::parse(&full) {
        Some(parsed) if !parsed.host.is_empty() && parsed.port != 0 => Ok(full),
        _ => Err(wrong(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_the_usual_port() {
        let brokers = ["a", "b:1", " c:2 ", "PLAINTEXT://d:3", "[::1]:4", "[::1]", ""].map(str::to_owned);
        let expected = ["a:9092", "b:1", "c:2", "d:3", "[::1]:4", "[::1]:9092"];
        assert_eq!(addresses(&brokers).expect("all are valid"), expected);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["SSL://a:1", "http://a:1", ":9092", "a:b", "a:0", "a:99999", "::1"] {
            assert!(with_port(text).is_err(), "{text}");
        }
        assert!(addresses(&[String::new()]).is_err());
    }
}
