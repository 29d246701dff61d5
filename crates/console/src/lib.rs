//! HTTP beside the broker: `/metrics` for Prometheus, `/healthz` for orchestrators, `/status` for
//! programs and `/` for people.
//!
//! It knows nothing of brokers: whoever starts it hands over a [`Node`]. Everything is read-only, so it
//! needs no login; it listens where `vltava.http.listener` says, on loopback by default.
//!
//! Connections are bounded in number and closed when they are silent; request bodies are never read.
//!
//! What it does not do: TLS, logins, changes.

mod listener;
mod page;
mod server;

#[cfg(test)]
mod tests;

pub use server::{Health, Node, Server};
