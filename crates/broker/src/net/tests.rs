//! Peers as they should not be, and the promises to those that are as they should.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::config::{HostPort, Listener};
use base::env::{BoxFuture, Env, Stream};
use base::metrics::Metrics;
use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::limits::SMALL_FRAME_BYTES;
use super::{
    ConnectionInfo, DrainTrigger, Limits, MemoryBudget, Outcome, Pace, Server, ServerOptions, Service,
    drain_channel,
};

/// The first byte of a frame says what to do with it.
///
/// - `e`: echo the frame, alone
/// - `p`: echo, pipelined, once the test says so
/// - `w`: echo, alone, once the test says so
/// - `s`: say nothing
/// - `x`: close
/// - `b`: answer with as many MiB as the second byte says
/// - `!`: panic
#[derive(Default)]
struct TestService {
    started: Mutex<Vec<u8>>,
    waiting: Mutex<Vec<oneshot::Sender<()>>>,
}

impl TestService {
    fn release(&self, index: usize) {
        self.waiting.lock().remove(index).send(()).expect("its request waits");
    }

    fn started(&self) -> String {
        String::from_utf8(self.started.lock().clone()).unwrap()
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as i32).to_be_bytes()[..], body].concat()
}

fn answer(frame: &[u8]) -> Outcome {
    Outcome::Answer(vec![Bytes::from(framed(frame)).into()])
}

impl Service for TestService {
    fn serve_peer(&self, _: &Arc<ConnectionInfo>, mut stream: Box<dyn Stream>) -> BoxFuture<'static, ()> {
        // Says what it hears.
        Box::pin(async move {
            let mut heard = [0; 16];
            while let Ok(count @ 1..) = stream.read(&mut heard).await {
                stream.write_all(&heard[..count]).await.expect("the peer reads");
            }
        })
    }

    fn pace(&self, frame: &[u8]) -> Pace {
        if frame.first() == Some(&b'p') { Pace::Pipelined } else { Pace::Alone }
    }

    fn start(&self, _connection: &Arc<ConnectionInfo>, frame: Bytes) -> BoxFuture<'static, Outcome> {
        self.started.lock().extend(frame.get(1));
        match frame.first() {
            Some(b'e') => async move { answer(&frame) }.boxed(),
            Some(b'p' | b'w') => {
                let (sender, receiver) = oneshot::channel();
                self.waiting.lock().push(sender);
                async move {
                    let _ = receiver.await;
                    answer(&frame)
                }
                .boxed()
            }
            Some(b's') => async { Outcome::Silence }.boxed(),
            Some(b'b') => {
                let body = Bytes::from(vec![b'b'; usize::from(frame[1]) << 20]);
                let size = Bytes::copy_from_slice(&(body.len() as i32).to_be_bytes());
                async move { Outcome::Answer(vec![size.into(), body.into()]) }.boxed()
            }
            Some(b'!') => panic!("asked for"),
            _ => async { Outcome::Close("asked for".into()) }.boxed(),
        }
    }
}

struct World {
    env: Env,
    server: Server<TestService>,
    service: Arc<TestService>,
    budget: Arc<MemoryBudget>,
    metrics: Metrics,
    trigger: Option<DrainTrigger>,
    address: SocketAddr,
}

fn limits() -> Limits {
    Limits {
        frame_bytes_max: 1 << 20,
        idle_max: Some(Duration::from_secs(600)),
        connections_max: 10_000,
        connections_per_address_max: 10_000,
        connections_per_address_overrides: Default::default(),
        budget_bytes: 128 << 20,
    }
}

impl World {
    async fn new(limits: Limits) -> World {
        World::in_env(Env::sim(1), limits).await
    }

    async fn in_env(env: Env, limits: Limits) -> World {
        let (trigger, drain) = drain_channel();
        let budget = MemoryBudget::new(limits.budget_bytes);
        let metrics = Metrics::default();
        let bind = HostPort { host: "127.0.0.1".into(), port: 0 };
        let options = ServerOptions {
            listeners: vec![Listener { name: "PLAINTEXT".into(), bind, advertised: None }],
            limits,
            budget: budget.clone(),
            drain,
            http_address: Some("127.0.0.1:9644".into()),
            metrics: metrics.node().clone(),
        };
        let service = Arc::new(TestService::default());
        let server = Server::start(env.clone(), options, service.clone()).await.expect("a free port");
        let address = server.listeners()[0].1;
        World { env, server, service, budget, metrics, trigger: Some(trigger), address }
    }

    async fn connect(&self) -> Box<dyn Stream> {
        self.env.network.connect(&self.address.to_string()).await.expect("the server listens")
    }

    /// Lets every task run until all wait.
    async fn settle(&self) {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }

    async fn pass(&self, seconds: u64) {
        self.env.clock.sleep(Duration::from_secs(seconds)).await;
        self.settle().await;
    }

    async fn is_unharmed(&self) {
        let mut other = self.connect().await;
        ask(&mut *other, b"e-still-there").await;
        expect(&mut *other, b"e-still-there").await;
    }
}

async fn ask(stream: &mut dyn Stream, body: &[u8]) {
    stream.write_all(&framed(body)).await.unwrap();
}

async fn expect(stream: &mut dyn Stream, body: &[u8]) {
    let mut bytes = vec![0; body.len() + 4];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, framed(body), "{}", String::from_utf8_lossy(&bytes));
}

/// Everything up to the end of the stream, which must come.
async fn rest(stream: &mut dyn Stream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

fn nothing_to_read(stream: &mut dyn Stream) -> bool {
    let mut byte = [0];
    stream.read(&mut byte).now_or_never().is_none()
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_start_in_order_and_are_answered_in_order() {
    let world = World::new(limits()).await;
    let mut client = world.connect().await;
    for body in [b"p1", b"p2", b"p3", b"e4", b"p5"] {
        ask(&mut *client, body).await;
    }
    world.settle().await;
    assert_eq!(world.service.started(), "123", "the fourth must see what the first three did");
    world.service.release(2);
    world.service.release(1);
    world.settle().await;
    assert!(nothing_to_read(&mut *client));
    world.service.release(0);
    for body in [b"p1", b"p2", b"p3", b"e4"] {
        expect(&mut *client, body).await;
    }
    world.settle().await;
    assert_eq!(world.service.started(), "12345");
    world.service.release(0);
    expect(&mut *client, b"p5").await;
}

#[tokio::test(start_paused = true)]
async fn a_parked_request_holds_up_its_own_connection_alone() {
    let world = World::new(limits()).await;
    let mut parked = world.connect().await;
    ask(&mut *parked, b"w1").await;
    ask(&mut *parked, b"e2").await;
    world.is_unharmed().await;
    assert!(nothing_to_read(&mut *parked));
    world.service.release(0);
    expect(&mut *parked, b"w1").await;
    expect(&mut *parked, b"e2").await;
}

#[tokio::test(start_paused = true)]
async fn silence_leaves_no_gap_and_close_sends_what_came_before() {
    let world = World::new(limits()).await;
    let mut client = world.connect().await;
    for body in [b"s1", b"e2", b"s3", b"e4", b"x5", b"e6"] {
        ask(&mut *client, body).await;
    }
    assert_eq!(rest(&mut *client).await, [framed(b"e2"), framed(b"e4")].concat());
    assert_eq!(world.service.started(), "12345");
}

#[tokio::test(start_paused = true)]
async fn impossible_sizes_close_and_cost_nothing() {
    let world = World::new(limits()).await;
    for size in [-1, i32::MIN, i32::MAX, (1 << 20) + 1] {
        let mut client = world.connect().await;
        client.write_all(&size.to_be_bytes()).await.unwrap();
        assert_eq!(rest(&mut *client).await, b"");
    }
    world.settle().await;
    assert_eq!((world.server.connections(), world.budget.held()), (0, 0));
    world.is_unharmed().await;
}

#[tokio::test(start_paused = true)]
async fn the_largest_frame_is_taken() {
    let world = World::new(limits()).await;
    let mut client = world.connect().await;
    let mut body = vec![7; 1 << 20];
    body[0] = b'e';
    let (mut reader, mut writer) = tokio::io::split(&mut client);
    let mut echoed = vec![0; body.len() + 4];
    let frame = framed(&body);
    let (written, read) = tokio::join!(writer.write_all(&frame), reader.read_exact(&mut echoed));
    written.unwrap();
    read.unwrap();
    assert!(echoed == frame);
    world.settle().await;
    assert_eq!(world.budget.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn truncated_frames_and_random_bytes_harm_nobody() {
    let world = World::new(limits()).await;
    for round in 0..200u64 {
        let mut client = world.connect().await;
        let mut noise = vec![0; 1 + (world.env.random.next_u64() % 3_000) as usize];
        world.env.random.fill(&mut noise);
        if round % 2 == 0 {
            // A plausible size, then less than that.
            noise.splice(..0, 4_000i32.to_be_bytes());
        }
        // The server may close in the middle of it.
        let _ = client.write_all(&noise).await;
        let _ = client.shutdown().await;
        rest(&mut *client).await;
    }
    world.settle().await;
    assert_eq!((world.server.connections(), world.budget.held()), (0, 0));
    world.is_unharmed().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_drips_is_closed_and_one_that_is_slow_is_not() {
    let world = World::new(limits()).await;
    let mut dripping = world.connect().await;
    let mut slow = world.connect().await;
    let frame = framed(&[&b"e"[..], &[7; 299_999]].concat());
    dripping.write_all(&frame[..100]).await.unwrap();
    let mut seconds = 0;
    for part in frame.chunks(5_000) {
        slow.write_all(part).await.unwrap();
        let _ = dripping.write_all(b"d").await;
        world.pass(1).await;
        seconds += 1;
        let open = world.server.connections();
        assert!(open == if seconds < 31 { 2 } else { open.min(2) }, "{open} after {seconds} s");
    }
    assert_eq!(world.server.connections(), 1, "the dripping one is gone");
    let mut echoed = vec![0; frame.len()];
    slow.read_exact(&mut echoed).await.unwrap();
    assert!(echoed == frame);
    assert_eq!(world.metrics.node().connections_idle_closed.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed_but_not_those_that_wait_for_us() {
    let world = World::new(limits()).await;
    let mut idle = world.connect().await;
    ask(&mut *idle, b"e1").await;
    expect(&mut *idle, b"e1").await;
    let mut waiting = world.connect().await;
    ask(&mut *waiting, b"w2").await;
    world.pass(590).await;
    assert_eq!(world.server.connections(), 2);
    world.pass(12).await;
    assert_eq!(rest(&mut *idle).await, b"");
    world.pass(10_000).await;
    assert_eq!(world.metrics.node().requests_waiting.get(), 1);
    world.service.release(0);
    expect(&mut *waiting, b"w2").await;
    world.pass(602).await;
    assert_eq!(world.server.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn unread_answers_hold_up_the_reader_and_end_in_its_end() {
    let world = World::new(limits()).await;
    let mut client = world.connect().await;
    for _ in 0..50 {
        ask(&mut *client, &[b'b', 4]).await;
    }
    world.settle().await;
    assert_eq!(world.service.started().len(), 1, "nothing is started while an answer of 4 MiB waits");
    assert!(world.budget.held() > 3 << 20 && world.budget.held() <= 5 << 20);
    world.is_unharmed().await;
    world.pass(602).await;
    assert_eq!((world.server.connections(), world.budget.held()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn reading_slowly_is_fine() {
    let world = World::new(limits()).await;
    let mut client = world.connect().await;
    for _ in 0..3 {
        ask(&mut *client, &[b'b', 2]).await;
    }
    let mut left = 3 * ((2 << 20) + 4);
    while left > 0 {
        let mut part = vec![0; left.min(200_000)];
        client.read_exact(&mut part).await.unwrap();
        left -= part.len();
        world.pass(400).await;
    }
    ask(&mut *client, b"e1").await;
    expect(&mut *client, b"e1").await;
}

#[tokio::test(start_paused = true)]
async fn when_memory_is_short_nobody_reads_but_frames_still_get_complete() {
    let world = World::new(Limits { budget_bytes: 256 * 1024, ..limits() }).await;
    let body = [&b"e"[..], &[9; 199_999]].concat();
    let frame = framed(&body);
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = world.connect().await;
        client.write_all(&frame[..60_000]).await.unwrap();
        world.settle().await;
        clients.push(client);
    }
    assert!(world.budget.held() < 2 << 20, "{} held", world.budget.held());
    world.is_unharmed().await;
    // The rest comes from all at once: each must get complete in its turn.
    let tasks = clients.into_iter().map(|mut client| {
        let frame = frame.clone();
        tokio::spawn(async move {
            client.write_all(&frame[60_000..]).await.unwrap();
            let mut echoed = vec![0; frame.len()];
            client.read_exact(&mut echoed).await.unwrap();
            assert!(echoed == frame);
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    world.settle().await;
    assert_eq!(world.budget.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_holds_the_last_memory_and_stands_still_is_closed_soon() {
    let world = World::new(Limits { budget_bytes: 128 * 1024, ..limits() }).await;
    let frame = framed(&vec![b'e'; 500_000]);
    let mut holders = Vec::new();
    for _ in 0..3 {
        let mut holder = world.connect().await;
        holder.write_all(&frame[..150_000]).now_or_never();
        world.settle().await;
        holders.push(holder);
    }
    world.pass(45).await;
    assert_eq!(world.metrics.node().connections_idle_closed.get(), 3, "one after the other");
    world.is_unharmed().await;
}

#[tokio::test(start_paused = true)]
async fn strangers_are_told_where_they_are() {
    let world = World::new(limits()).await;
    let mut browser = world.connect().await;
    browser.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(rest(&mut *browser).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("http://127.0.0.1:9644/"), "{answer}");
    let mut tls = world.connect().await;
    tls.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]).await.unwrap();
    assert_eq!(rest(&mut *tls).await[0], 0x15, "an alert");
    let mut late = world.connect().await;
    ask(&mut *late, b"e1").await;
    expect(&mut *late, b"e1").await;
    late.write_all(b"GET /").await.unwrap();
    assert_eq!(rest(&mut *late).await, b"", "a Kafka client sends nothing of the kind");
}

#[tokio::test(start_paused = true)]
async fn a_stranger_that_does_not_listen_is_not_waited_for() {
    let world = World::new(limits()).await;
    let mut browser = world.connect().await;
    browser.write_all(b"POST / HTTP/1.1\r\n").await.unwrap();
    world.pass(2).await;
    assert_eq!(world.server.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn connections_per_address_are_limited() {
    let world = World::new(Limits { connections_per_address_max: 2, ..limits() }).await;
    let (mut first, _second) = (world.connect().await, world.connect().await);
    let mut third = world.connect().await;
    assert_eq!(rest(&mut *third).await, b"");
    assert_eq!(world.metrics.node().connections_refused.get(), 1);
    ask(&mut *first, b"e1").await;
    expect(&mut *first, b"e1").await;
    drop(first);
    world.settle().await;
    world.is_unharmed().await;
    let own = [("127.0.0.1".parse().unwrap(), 0)].into_iter().collect();
    world.server.set_limits(Limits { connections_per_address_overrides: own, ..limits() });
    let mut refused = world.connect().await;
    assert_eq!(rest(&mut *refused).await, b"");
}

#[tokio::test(start_paused = true)]
async fn beyond_max_connections_the_next_one_waits_in_the_queue() {
    let world = World::new(Limits { connections_max: 1, ..limits() }).await;
    let first = world.connect().await;
    world.settle().await;
    let mut second = world.connect().await;
    ask(&mut *second, b"e1").await;
    world.settle().await;
    assert!(nothing_to_read(&mut *second));
    drop(first);
    expect(&mut *second, b"e1").await;
    let mut third = world.connect().await;
    ask(&mut *third, b"e2").await;
    world.settle().await;
    assert!(nothing_to_read(&mut *third));
    world.server.set_limits(limits());
    expect(&mut *third, b"e2").await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_gone_does_not_keep_its_requests_waiting_for_ever() {
    let world = World::new(limits()).await;
    let mut half_open = world.connect().await;
    ask(&mut *half_open, b"w1").await;
    half_open.shutdown().await.unwrap();
    world.settle().await;
    world.service.release(0);
    assert_eq!(rest(&mut *half_open).await, framed(b"w1"), "who only stops sending gets its answers");
    let mut gone = world.connect().await;
    ask(&mut *gone, b"w2").await;
    drop(gone);
    world.pass(7).await;
    assert_eq!(world.server.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_bug_in_a_request_costs_one_connection() {
    let world = World::new(limits()).await;
    let mut client = world.connect().await;
    ask(&mut *client, b"!").await;
    assert_eq!(rest(&mut *client).await, b"");
    world.settle().await;
    assert_eq!((world.server.connections(), world.budget.held()), (0, 0));
    world.is_unharmed().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_answers_what_was_started_and_nothing_else() {
    let mut world = World::new(limits()).await;
    let mut busy = world.connect().await;
    ask(&mut *busy, b"w1").await;
    ask(&mut *busy, b"e2").await;
    let mut idle = world.connect().await;
    world.settle().await;
    world.trigger.take().expect("not drained yet").drain();
    assert_eq!(rest(&mut *idle).await, b"");
    world.settle().await;
    assert!(world.env.network.connect(&world.address.to_string()).await.is_err());
    world.service.release(0);
    assert_eq!(world.server.drained(Duration::from_secs(10)).await, 0);
    assert_eq!(rest(&mut *busy).await, framed(b"w1"));
    world.settle().await;
    assert_eq!(Arc::strong_count(&world.service), 1, "the service may own the server");
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_even_when_requests_do_not() {
    let mut world = World::new(limits()).await;
    let mut stuck = world.connect().await;
    ask(&mut *stuck, b"w1").await;
    world.settle().await;
    world.trigger.take().expect("not drained yet").drain();
    assert_eq!(world.server.drained(Duration::from_secs(10)).await, 1);
    assert_eq!(rest(&mut *stuck).await, b"");
}

#[tokio::test(start_paused = true)]
async fn an_address_in_use_is_told_with_its_listener() {
    let world = World::new(limits()).await;
    let bind = HostPort { host: "127.0.0.1".into(), port: world.address.port() };
    let (_trigger, drain) = drain_channel();
    let options = ServerOptions {
        listeners: vec![Listener { name: "EXTERNAL".into(), bind, advertised: None }],
        limits: limits(),
        budget: MemoryBudget::new(1 << 20),
        drain,
        http_address: None,
        metrics: world.metrics.node().clone(),
    };
    let error = Server::start(world.env.clone(), options, world.service.clone()).await.err().unwrap();
    assert!(error.to_string().starts_with("listener EXTERNAL cannot listen on 127.0.0.1:"), "{error}");
}

/// Real sockets, since it is their behaviour that counts.
#[tokio::test]
async fn thousands_of_idle_connections_hold_next_to_nothing() {
    const CONNECTIONS: usize = 400;
    let world = World::in_env(Env::os(), limits()).await;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = world.connect().await;
        ask(&mut *client, &[&b"e"[..], &[1; 2 * SMALL_FRAME_BYTES]].concat()).await;
        let mut echoed = vec![0; 5 + 2 * SMALL_FRAME_BYTES];
        client.read_exact(&mut echoed).await.unwrap();
        clients.push(client);
    }
    while world.budget.held() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.server.connections(), CONNECTIONS);
    world.is_unharmed().await;
    assert_eq!(world.metrics.node().connections_accepted.get(), CONNECTIONS as u64 + 1);
}
