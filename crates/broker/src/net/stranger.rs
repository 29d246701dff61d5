//! Peers that speak another protocol, told by their first bytes.
//!
//! Read as a frame's size the first four bytes of HTTP, TLS and the like are larger than any frame that is
//! taken, so this is asked only when a connection would be closed anyway. Other brokers of the cluster are among them:
//! they speak with each other on the ports of clients, as Kafka's do.

use metadata::NODE_MAGIC;
use replication::stream::MAGIC;

use super::notices::Kind;

/// Who may be at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stranger {
    /// A browser, `curl`, a monitoring probe.
    Http,
    /// A Kafka client with `security.protocol=SSL` or `SASL_SSL`, or anything else with TLS.
    Tls,
    /// An SSH client.
    Ssh,
    /// Another broker, which pushes copies of what it leads, or a node that follows the metadata.
    Peer,
}

/// First four bytes of HTTP requests, HTTP/2 with prior knowledge among them.
const HTTP_STARTS: &[&[u8; 4]] =
    &[b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC", b"PRI "];

/// A fatal `handshake_failure` alert in TLS 1.0 framing, which every version of TLS reads.
const TLS_ALERT: &[u8] = &[0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 40];

impl Stranger {
    /// Judges the first bytes of a connection.
    pub(super) fn recognise(first: &[u8]) -> Option<Stranger> {
        let start = first.first_chunk::<4>()?;
        if HTTP_STARTS.contains(&start) {
            return Some(Stranger::Http);
        }
        match start {
            // Record type handshake, major version 3.
            [0x16, 0x03, 0..=4, _] => Some(Stranger::Tls),
            b"SSH-" => Some(Stranger::Ssh),
            start if MAGIC.starts_with(start) || NODE_MAGIC.starts_with(start) => Some(Stranger::Peer),
            _ => None,
        }
    }

    /// What to send before closing, in the peer's own protocol.
    pub(super) fn farewell(self, http_address: Option<&str>) -> Vec<u8> {
        match self {
            Stranger::Http => http_answer(http_address),
            Stranger::Tls => TLS_ALERT.to_vec(),
            Stranger::Peer => Vec::new(),
            Stranger::Ssh => b"This is a Kafka port, it does not speak SSH.\r\n".to_vec(),
        }
    }

    /// What the log says.
    pub(super) fn explanation(self) -> &'static str {
        match self {
            Stranger::Http => {
                "HTTP request on a Kafka listener: answered with 400; HTTP is served by vltava.http.listener"
            }
            Stranger::Tls => {
                "TLS client on a plaintext listener: set security.protocol=PLAINTEXT in the client, \
                 or dial a listener that has TLS"
            }
            Stranger::Ssh => "SSH client on a Kafka listener",
            Stranger::Peer => "another broker",
        }
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Stranger::Http => Kind::Http,
            Stranger::Tls => Kind::Tls,
            Stranger::Ssh | Stranger::Peer => Kind::OtherProtocol,
        }
    }
}

fn http_answer(http_address: Option<&str>) -> Vec<u8> {
    let where_to_go = match http_address {
        Some(address) => format!("This broker serves HTTP at http://{address}/\n"),
        None => "This broker serves no HTTP; vltava.http.listener would.\n".to_owned(),
    };
    let body = format!("This port speaks the Kafka protocol: connect a Kafka client to it.\n{where_to_go}");
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_recognised_and_kafka_clients_are_not() {
        for (first, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Stranger::Http)),
            (b"PRI * HTTP/2.0\r\n", Some(Stranger::Http)),
            (b"PUT /", Some(Stranger::Http)),
            (&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01], Some(Stranger::Tls)),
            (b"SSH-2.0-OpenSSH", Some(Stranger::Ssh)),
            (&MAGIC, Some(Stranger::Peer)),
            (&NODE_MAGIC, Some(Stranger::Peer)),
            (&[0, 0, 0, 30, 0, 18], None),
            (&[0x16, 0x04, 0, 0], None),
            (b"GET", None),
            (&[], None),
        ] {
            assert_eq!(Stranger::recognise(first), expected, "{first:?}");
        }
    }

    #[test]
    fn http_is_told_where_http_is() {
        let answer = String::from_utf8(Stranger::Http.farewell(Some("127.0.0.1:9644"))).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 ") && head.contains(&format!("Length: {}\r\n", body.len())));
        assert!(body.contains("http://127.0.0.1:9644/"));
    }
}
