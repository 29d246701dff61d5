//! 5,000 connections that do nothing: cheap, out of the way of others, and gone when they are closed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use client::admin::NewTopic;
use client::{Client, Producer, ProducerConfig, ProducerRecord};
use wire::message::ApiVersionsRequest;
use wire::request_frame;

use crate::run;
use crate::server::{Home, need_descriptors};

const CONNECTIONS: usize = 5_000;
/// Memory of the process for each, bytes.
const BYTES_EACH_MAX: u64 = 20_000;
/// Records whose way is measured.
const MEASURED: usize = 500;
/// What the median of another client may grow to, and by so much in any case: a scheduler's turn.
pub(crate) const SLOWDOWN_MAX: u32 = 2;
pub(crate) const SLOWDOWN_FREE: Duration = Duration::from_millis(1);
/// Within which the server has noticed that connections are closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
const TOPIC: &str = "beside";

#[test]
fn five_thousand_idle_connections_harm_nobody() {
    need_descriptors(CONNECTIONS + 1_000);
    let home = Home::new("idle", &[]);
    let server = home.start();
    run(async {
        let client = home.client().await;
        create_topic(&client).await;
        latencies(&client).await;
        let alone = latencies(&client).await;
        let (descriptors, memory) = (server.descriptors(), server.memory());

        let connections: Vec<_> =
            (0..CONNECTIONS).map(|number| connect(&home.address(), number % 2 == 0)).collect();
        let beside = latencies(&client).await;
        let more = server.memory().resident.saturating_sub(memory.resident);
        let each = more / CONNECTIONS as u64;
        println!(
            "{CONNECTIONS} idle connections: {each} bytes each, at most {BYTES_EACH_MAX}; {}; produce alone \
             {}, beside them {}",
            server.memory(),
            show(&alone),
            show(&beside)
        );
        assert!(server.descriptors() >= descriptors + CONNECTIONS, "they are open");
        assert!(each <= BYTES_EACH_MAX);
        assert!(median(&beside) <= median(&alone) * SLOWDOWN_MAX + SLOWDOWN_FREE);

        drop(connections);
        let closed = Instant::now();
        while server.descriptors() > descriptors {
            let left = server.descriptors() - descriptors;
            assert!(closed.elapsed() < CLOSED_WITHIN, "{left} descriptors are left");
            sleep(Duration::from_millis(20));
        }
        println!("all closed within {:.1?}; {}", closed.elapsed(), server.memory());
        latencies(&client).await;
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

/// The topic that records are written to. What an acknowledgement costs on the disk would hide what it
/// costs beside others.
pub(crate) async fn create_topic(client: &Client) {
    let configs = vec![("vltava.durability".to_owned(), "page-cache".to_owned())];
    let topic = NewTopic { configs, ..NewTopic::named(TOPIC) };
    client.create_topics(&[topic], false).await.expect("an answer").remove(0).expect("a new topic");
}

/// How long records take, each sent when the one before is acknowledged; shortest first.
pub(crate) async fn latencies(client: &Client) -> Vec<Duration> {
    let config = ProducerConfig { linger: Duration::ZERO, ..ProducerConfig::default() };
    let producer = Producer::new(client, config);
    let mut times = Vec::with_capacity(MEASURED);
    for _ in 0..MEASURED {
        let began = Instant::now();
        let sent = producer.send(ProducerRecord::value(TOPIC, &[b'v'; 100])).await.expect("room");
        sent.wait().await.expect("acknowledged");
        times.push(began.elapsed());
    }
    times.sort();
    times
}

pub(crate) fn median(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() / 2]
}

pub(crate) fn show(sorted: &[Duration]) -> String {
    let p99 = sorted[sorted.len() * 99 / 100];
    format!("{:.2?} (p99 {p99:.2?})", median(sorted))
}
