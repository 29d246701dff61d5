//! Peers that claim gigabytes, talk nonsense or drip bytes, on real sockets: what the process reserves for
//! them stays small, others are served as before, and nothing of them is left when they have gone.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base::env::sim::SimRandom;
use base::env::{Env, Random};

use crate::bystander::Bystander;
use crate::run;
use crate::server::Home;

/// Peers of each kind.
const PEERS: usize = 100;
/// Memory that each may cost, bytes: a read buffer of 64 KiB, and room to spare.
const BYTES_EACH_MAX: u64 = 120_000;
/// How long peers drip.
const DRIP_FOR: Duration = Duration::from_secs(2);
/// Largest request that is read, by default.
const REQUEST_BYTES_MAX: i32 = 104_857_600;
/// Within which the server must have closed what makes no sense.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn claims_noise_and_dripping_cost_next_to_nothing() {
    let home = Home::new("hostile", &[]);
    let server = home.start();
    run(async {
        let bystander = Bystander::new(&home).await;
        let (descriptors, before) = (server.descriptors(), server.memory());
        let choices = SimRandom::new(Env::os().random.next_u64());
        let peers = |first: &dyn Fn() -> Vec<u8>| -> Vec<TcpStream> {
            (0..PEERS).map(|_| peer(&home.address(), &first())).collect()
        };
        let too_long = peers(&|| [&i32::MAX.to_be_bytes()[..], &[0; 100]].concat());
        let negative = peers(&|| (-1_i32).to_be_bytes().to_vec());
        let noisy = peers(&|| {
            let mut noise = vec![0; 1 + choices.below(2_000) as usize];
            choices.fill(&mut noise);
            noise
        });
        // As long as is allowed, with the head of a Produce request.
        let mut dripping = peers(&|| [&REQUEST_BYTES_MAX.to_be_bytes()[..], &[0, 0, 0, 9]].concat());
        let began = Instant::now();
        let mut beside = bystander.latencies().await;
        while began.elapsed() < DRIP_FOR {
            for peer in &mut dripping {
                peer.write_all(&[0]).expect("what is allowed is not closed so soon");
            }
            beside = bystander.latencies().await;
        }
        let memory = server.memory();
        let each = memory.peak.saturating_sub(before.resident) / (4 * PEERS) as u64;
        println!(
            "{} hostile peers: {each} bytes each at the peak, at most {BYTES_EACH_MAX}; {memory}",
            4 * PEERS
        );
        assert!(each <= BYTES_EACH_MAX);
        bystander.assert_unharmed(&beside);
        for peer in too_long.into_iter().chain(negative) {
            assert_closed(peer);
        }
        drop((noisy, dripping));
        server.wait_for_descriptors(descriptors);
        bystander.latencies().await;
    });
    let (status, _) = server.end();
    assert!(status.success(), "{}", home.last_words());
    assert!(!home.log().contains("panicked"), "{}", home.last_words());
}

fn peer(address: &str, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server takes connections");
    stream.write_all(first).expect("the server reads");
    stream
}

/// The server has closed the connection, whether or not it said why.
fn assert_closed(mut peer: TcpStream) {
    peer.set_read_timeout(Some(CLOSED_WITHIN)).expect("a socket");
    let ended = peer.read_to_end(&mut Vec::new());
    let waits = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!waits, "a length of no request leaves the connection open");
}
