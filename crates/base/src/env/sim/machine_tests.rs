//! Several machines in one world: what reaches whom, and what a life leaves behind.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::{Env, Listener, OpenMode, Stream};
use super::{CrashPolicy, Sim, SimWorld};

const LONG: Duration = Duration::from_secs(3600);

fn simulated(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(test);
}

/// Two machines, and a process on each.
struct Pair {
    world: SimWorld,
    a: Sim,
    b: Sim,
    at_a: Env,
    at_b: Env,
}

impl Pair {
    fn new() -> Pair {
        let world = SimWorld::new(1);
        let (a, b) = (world.machine("a"), world.machine("b"));
        let (at_a, at_b) = (a.boot(), b.boot());
        Pair { world, a, b, at_a, at_b }
    }

    async fn listen(&self) -> Box<dyn Listener> {
        self.at_b.network.listen("0.0.0.0:9092".parse().unwrap()).await.unwrap()
    }

    async fn connect(&self, listener: &mut dyn Listener) -> (Box<dyn Stream>, Box<dyn Stream>) {
        let client = self.at_a.network.connect("b:9092").await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }
}

/// Whether a byte sent at one end arrives at the other within an hour.
async fn arrives(from: &mut Box<dyn Stream>, to: &mut Box<dyn Stream>) -> bool {
    from.write_all(b"x").await.unwrap();
    tokio::time::timeout(LONG, to.read_u8()).await.is_ok_and(|read| read.is_ok())
}

#[test]
fn machines_are_reached_by_name_and_loopback_is_ones_own() {
    simulated(async {
        let pair = Pair::new();
        let mut listener = pair.listen().await;
        let (mut client, mut server) = pair.connect(&mut *listener).await;
        assert!(arrives(&mut client, &mut server).await && arrives(&mut server, &mut client).await);
        drop(client);
        assert_eq!(server.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let refused = |env: &Env, address: &'static str| {
            let env = env.clone();
            async move { env.network.connect(address).await.err().map(|error| error.kind()) }
        };
        assert_eq!(refused(&pair.at_a, "localhost:9092").await, Some(io::ErrorKind::ConnectionRefused));
        assert_eq!(refused(&pair.at_a, "b:9093").await, Some(io::ErrorKind::ConnectionRefused));
        assert_eq!(refused(&pair.at_a, "10.0.0.9:9092").await, Some(io::ErrorKind::HostUnreachable));
        assert_eq!(refused(&pair.at_b, "127.0.0.1:9092").await, None);
    });
}

#[test]
fn a_link_is_cut_one_way_and_what_was_sent_arrives_once_it_heals() {
    simulated(async {
        let pair = Pair::new();
        let mut listener = pair.listen().await;
        let (mut client, mut server) = pair.connect(&mut *listener).await;
        pair.a.network.cut(&pair.b.network, true);
        assert!(!arrives(&mut client, &mut server).await);
        assert!(arrives(&mut server, &mut client).await);
        let began = pair.at_a.clock.now();
        let dialled = pair.at_a.network.connect("b:9092").await;
        assert_eq!(dialled.err().unwrap().kind(), io::ErrorKind::TimedOut);
        assert!(pair.at_a.clock.now() - began > Duration::from_secs(100));
        pair.world.heal_network();
        assert_eq!(server.read_u8().await.unwrap(), b'x');
    });
}

#[test]
fn a_link_that_is_slow_delays_one_direction() {
    simulated(async {
        let pair = Pair::new();
        let mut listener = pair.listen().await;
        let (mut client, mut server) = pair.connect(&mut *listener).await;
        pair.a.network.slow_down(&pair.b.network, 500);
        let began = pair.at_a.clock.now();
        assert!(arrives(&mut server, &mut client).await);
        assert!(pair.at_a.clock.now() - began < Duration::from_millis(10));
        assert!(arrives(&mut client, &mut server).await);
        assert!(pair.at_a.clock.now() - began >= Duration::from_millis(500));
        pair.a.network.reset_connections();
        assert!(client.read_u8().await.is_err() && server.read_u8().await.is_err());
    });
}

#[test]
fn who_is_killed_hangs_up_and_who_loses_power_is_silent_until_it_is_back() {
    simulated(async {
        for kill in [true, false] {
            let pair = Pair::new();
            let mut listener = pair.listen().await;
            let (mut client, mut server) = pair.connect(&mut *listener).await;
            if kill {
                pair.b.kill()
            } else {
                pair.b.lose_power(CrashPolicy::LoseAll)
            }
            let told = tokio::time::timeout(LONG, client.read_u8()).await;
            assert_eq!(told.is_ok(), kill);
            let dialled = pair.at_a.network.connect("b:9092").await.err().unwrap().kind();
            let expected = if kill { io::ErrorKind::ConnectionRefused } else { io::ErrorKind::TimedOut };
            assert_eq!(dialled, expected);
            let hears = tokio::time::timeout(LONG, server.read_u8()).await;
            assert!(hears.is_err(), "the life that ended hears nothing");
            let again = pair.b.boot();
            assert!(client.read_u8().await.is_err());
            // The old listener is in nobody's way.
            let mut anew = again.network.listen("0.0.0.0:9092".parse().unwrap()).await.unwrap();
            drop(listener);
            let (mut client, mut server) = pair.connect(&mut *anew).await;
            assert!(arrives(&mut client, &mut server).await);
        }
    });
}

#[test]
fn through_the_door_of_a_life_that_ended_nothing_works() {
    simulated(async {
        let machine = SimWorld::new(1).machine("a");
        let old = machine.boot();
        old.disk.create_dir_all(Path::new("/d")).unwrap();
        let file = old.disk.open(Path::new("/d/f"), OpenMode::CreateNew).unwrap();
        let ran = Arc::new(AtomicU64::new(0));
        let count = |env: &Env| {
            let (env, ran) = (env.clone(), ran.clone());
            tokio::spawn(async move {
                env.blocking(move || ran.fetch_add(1, Ordering::Relaxed)).await;
            })
        };
        count(&old);
        tokio::task::yield_now().await;
        machine.kill();
        let new = machine.boot();
        count(&new);
        assert!(file.write_all_at(&[IoSlice::new(b"x")], 0).is_err());
        assert!(
            old.disk.open(Path::new("/d/f"), OpenMode::Read).is_err() && old.disk.exists(Path::new("/no"))
        );
        assert!(new.disk.open(Path::new("/d/f"), OpenMode::Read).is_ok());
        assert!(tokio::time::timeout(LONG, old.clock.sleep(Duration::from_secs(1))).await.is_err());
        assert!(tokio::time::timeout(LONG, old.network.connect("a:1")).await.is_err());
        assert_eq!(ran.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_process_that_stands_still_goes_on_where_it_was() {
    simulated(async {
        let pair = Pair::new();
        let mut listener = pair.listen().await;
        let (mut client, mut server) = pair.connect(&mut *listener).await;
        let slept = tokio::spawn(pair.at_b.clock.sleep(Duration::from_secs(1)));
        let job = tokio::spawn({
            let env = pair.at_b.clone();
            async move { env.blocking(|| ()).await }
        });
        tokio::task::yield_now().await;
        pair.b.pause(true);
        assert!(!pair.b.is_running());
        assert!(!arrives(&mut client, &mut server).await);
        assert!(!slept.is_finished() && !job.is_finished());
        pair.b.pause(false);
        assert_eq!(server.read_u8().await.unwrap(), b'x');
        slept.await.unwrap();
        job.await.unwrap();
    });
}

#[test]
fn each_machine_has_a_disk_and_a_wall_clock_of_its_own() {
    simulated(async {
        let pair = Pair::new();
        pair.at_a.disk.create_dir_all(Path::new("/d")).unwrap();
        assert!(!pair.at_b.disk.exists(Path::new("/d")));
        pair.a.clock.jump_wall(60_000);
        assert_eq!(pair.at_a.clock.wall_ms() - pair.at_b.clock.wall_ms(), 60_000);
        pair.a.set_job_delay_max_us(Some(10_000_000));
        let began = pair.at_a.clock.now();
        for _ in 0..20 {
            pair.at_a.blocking(|| ()).await;
        }
        assert!(pair.at_a.clock.now() - began > Duration::from_secs(10));
    });
}
