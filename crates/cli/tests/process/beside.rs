//! A second process that wants what a first one holds: it must name the true cause and a way out that works.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::binary;
use crate::server::{Home, free_address};

/// What a start that is refused says.
fn refused(data: &Path, listeners: &str, http: &str) -> String {
    let mut command = Command::new(binary());
    command.arg("serve").arg("--data").arg(data);
    command.args(["--set", &format!("listeners=PLAINTEXT://{listeners}")]);
    command.args(["--set", &format!("vltava.http.listener={http}")]);
    let done = command.env_remove("RUST_LOG").stdin(Stdio::null()).output().expect("the binary was built");
    let said = String::from_utf8(done.stderr).expect("text");
    assert_eq!(done.status.code(), Some(1), "{said}");
    said
}

#[test]
fn a_held_directory_is_told_before_the_addresses_that_are_taken_too() {
    let http = free_address().to_string();
    let home = Home::new("beside", &[&format!("vltava.http.listener={http}")]);
    let server = home.start();
    let holder = format!("error: process {} serves from ", server.number());
    let said = refused(&home.data(), &home.address(), &http);
    assert!(said.starts_with(&holder) && said.contains("--data DIR"), "{said}");
    assert!(said.contains("--set listeners=") && said.contains("--set vltava.http.listener="), "{said}");
    // With addresses of its own, the directory alone is in the way.
    let said = refused(&home.data(), "127.0.0.1:0", "127.0.0.1:0");
    assert!(said.starts_with(&holder) && said.contains("--data DIR"), "{said}");
    assert!(!said.contains("--set"), "{said}");
}

#[test]
fn every_address_that_is_taken_is_told_with_a_free_one() {
    let http = free_address().to_string();
    let home = Home::new("beside-ports", &[&format!("vltava.http.listener={http}")]);
    let other = Home::new("beside-other", &[]);
    let _server = home.start();
    let address = home.address();
    let said = refused(&other.data(), &address, &http);
    assert!(
        said.contains(&format!("{address} (listeners) and {http} (vltava.http.listener) are taken")),
        "{said}"
    );
    let said = refused(&other.data(), "127.0.0.1:0", &http);
    assert!(said.contains(&format!("{http} (vltava.http.listener) is taken")), "{said}");
    assert!(!said.contains("--set listeners="), "{said}");
    // On every interface, the one that is taken is in the way too.
    let port = address.rsplit(':').next().expect("a port");
    let said = refused(&other.data(), &format!("0.0.0.0:{port}"), "127.0.0.1:0");
    assert!(said.contains(&format!("0.0.0.0:{port} (listeners) is taken")), "{said}");
    // What is proposed is free.
    let proposed = said.split("--set listeners=PLAINTEXT://").nth(1).and_then(|rest| rest.split(',').next());
    TcpListener::bind(proposed.expect("an address is proposed")).expect("nobody listens there");
}
