//! 5,000 connections that do nothing: cheap, out of the way of others, and gone when they are closed.

use std::io::{Read, Write};
use std::net::TcpStream;

use wire::message::ApiVersionsRequest;
use wire::request_frame;

use crate::bystander::Bystander;
use crate::run;
use crate::server::{Home, need_descriptors};

const CONNECTIONS: usize = 5_000;
/// Memory of the process for each, bytes.
const BYTES_EACH_MAX: u64 = 20_000;

#[test]
fn five_thousand_idle_connections_harm_nobody() {
    need_descriptors(CONNECTIONS + 1_000);
    let home = Home::new("idle", &[]);
    let server = home.start();
    run(async {
        let bystander = Bystander::new(&home).await;
        let (descriptors, memory) = (server.descriptors(), server.memory());

        let connections: Vec<_> =
            (0..CONNECTIONS).map(|number| connect(&home.address(), number % 2 == 0)).collect();
        let beside = bystander.latencies().await;
        let more = server.memory().resident.saturating_sub(memory.resident);
        let each = more / CONNECTIONS as u64;
        println!(
            "{CONNECTIONS} idle connections: {each} bytes each, at most {BYTES_EACH_MAX}; {}",
            server.memory()
        );
        assert!(server.descriptors() >= descriptors + CONNECTIONS, "they are open");
        assert!(each <= BYTES_EACH_MAX);
        bystander.assert_unharmed(&beside);

        drop(connections);
        let took = server.wait_for_descriptors(descriptors);
        println!("all closed within {took:.1?}; {}", server.memory());
        bystander.latencies().await;
    });
}

/// A connection; some have asked something before they fall silent.
fn connect(address: &str, asks: bool) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server takes connections");
    if asks {
        let request =
            ApiVersionsRequest { client_software_name: "idle".into(), client_software_version: "1".into() };
        let frame = request_frame(7, Some("idle"), 3, &request).expect("a request").concat();
        stream.write_all(&frame).expect("the server reads");
        let mut size = [0; 4];
        stream.read_exact(&mut size).expect("an answer");
        let mut answer = vec![0; i32::from_be_bytes(size) as usize];
        stream.read_exact(&mut answer).expect("the rest of the answer");
        assert_eq!(answer[..4], 7_i32.to_be_bytes(), "the number of the request");
    }
    stream
}
