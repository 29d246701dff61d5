//! What is pushed arrives, whatever the network does, and all get their share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::batch::Batches;
use base::config::Durability;
use base::env::{Env, Stream};
use base::ids::{BrokerId, Incarnation, LeaderEpoch};
use replication::stream::{
    BrokerLife, CREDIT_BYTES, Directory, FetchRequest, Hello, MAGIC, Message, PUSH_CREDIT_BYTES, Push,
    Refusal, VERSION,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::network::Faults;
use crate::world::*;

#[test]
fn every_acknowledged_prefix_is_the_leaders_byte_for_byte() {
    for seed in 0..40 {
        simulate(|| async move {
            let world = World::new(seed);
            let (leader, one, two) = (world.broker(1).await, world.broker(2).await, world.broker(3).await);
            world.network.set(Faults {
                connect_delay_us: 50_000,
                delay_us: 3_000,
                // A whole segment does not fit through most connections.
                cut_after_bytes: if seed % 2 == 0 { 30_000 } else { 400_000 },
            });
            let links = world.links(&leader);
            let class = if seed % 3 == 0 { Durability::PageCache } else { Durability::Fsync };
            let led: Vec<_> = (0..4).map(|number| Led::new(&leader, number, 10, 5, class)).collect();
            let pushes: Vec<Push> =
                led.iter().flat_map(|led| [led.push(&links, &one), led.push(&links, &two)]).collect();
            for step in 0..120 {
                let at = world.random.below(4) as usize;
                led[at].append(1 + world.random.below(3) as usize, world.random.below(1_500) as usize);
                pushes[2 * at].wake();
                pushes[2 * at + 1].wake();
                if world.random.below(4) == 0 {
                    world.sleep_ms(world.random.below(30)).await;
                }
                if step % 40 == 39 {
                    world.network.cut_all();
                }
                for (led, broker) in led.iter().flat_map(|led| [(led, &one), (led, &two)]) {
                    if broker.replicas().copy(led.name().partition, led.name().id).is_some() {
                        led.check_prefix(&broker.replicas());
                    }
                }
            }
            // A chance cut may always come in time; the network mends some day.
            world.sleep_ms(500).await;
            world.network.set(Faults { delay_us: 2_000, ..Faults::default() });
            world.network.cut_all();
            let is_all_acked = || led.iter().all(|led| led.is_acked_by(&one) && led.is_acked_by(&two));
            world.until("all acknowledged", is_all_acked).await;
            for (led, broker) in led.iter().flat_map(|led| [(led, &one), (led, &two)]) {
                assert_eq!(led.check_prefix(&broker.replicas()), led.segment.end());
                assert!(led.heard.lock().refused.is_empty());
                // The high watermark came along, or comes with the next wake.
                led.high_watermark.store(led.segment.end(), Ordering::Release);
                pushes.iter().for_each(Push::wake);
                let end = Some(led.segment.end());
                let replicas = broker.replicas();
                world
                    .until("a high watermark told", || replicas.high_watermark(led.name().partition) == end)
                    .await;
            }
            assert!(led.iter().any(|led| led.heard.lock().lost > 0), "seed {seed} cut nothing");
        });
    }
}

#[test]
fn a_thousand_pushes_share_one_connection_with_a_busy_one() {
    simulate(|| async {
        let world = World::new(1);
        let (leader, member) = (world.broker(1).await, world.broker(2).await);
        world.network.set(Faults { delay_us: 200, ..Faults::default() });
        let links = world.links(&leader);
        let busy = Led::new(&leader, 0, 10, 5, Durability::PageCache);
        for _ in 0..200 {
            busy.append(1, 100_000);
        }
        let _busy = busy.push(&links, &member);
        let quiet: Vec<_> =
            (1..=1_000).map(|number| Led::new(&leader, number, 10, 5, Durability::PageCache)).collect();
        quiet.iter().for_each(|led| led.append(1, 100));
        let pushes: Vec<_> = quiet.iter().map(|led| led.push(&links, &member)).collect();
        world.until("the quiet ones acknowledged", || quiet.iter().all(|led| led.is_acked_by(&member))).await;
        let storage = member.storage().id();
        let share = busy.acked(storage) - 100;
        assert!(share < 150, "the busy one went first: {share} of 200 batches");
        world.until("the busy one acknowledged", || busy.is_acked_by(&member)).await;
        assert_eq!(world.network.connections(), 1);
        // Once woken, a push sends what is new, and one that was dropped does not.
        let (kept, dropped) = (&quiet[0], &quiet[1]);
        let mut pushes = pushes.into_iter();
        let kept_push = pushes.next().unwrap();
        drop(pushes);
        kept.append(1, 10);
        dropped.append(1, 10);
        kept_push.wake();
        world.until("the kept one acknowledged", || kept.is_acked_by(&member)).await;
        assert!(!dropped.is_acked_by(&member));
    });
}

/// A member that acknowledges late, or never, and counts what it is sent.
#[derive(Clone)]
struct SlowMember {
    env: Env,
    acks_after: Option<Duration>,
    sent: Arc<AtomicUsize>,
    in_flight: Arc<AtomicUsize>,
    in_flight_max: Arc<AtomicUsize>,
    /// To so many frames of streams it says that it has no file handle.
    busy: Arc<AtomicUsize>,
}

impl SlowMember {
    fn new(world: &World) -> SlowMember {
        SlowMember {
            env: world.env.clone(),
            acks_after: None,
            sent: Arc::default(),
            in_flight: Arc::default(),
            in_flight_max: Arc::default(),
            busy: Arc::default(),
        }
    }

    /// Takes the place of a broker.
    async fn start(self, world: &World, acks_after: Option<Duration>) -> SlowMember {
        let member = SlowMember { acks_after, ..self };
        let mut listener = world.env.network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        world.addresses.set(2, &listener.local_address().unwrap().to_string(), 1);
        let serving = member.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        member
    }

    /// Odd frames are taken, so that a stream is refused at its beginning and later.
    fn is_busy(&self) -> bool {
        let one_less = |busy: usize| busy.checked_sub(1);
        let busy = self.busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        busy.is_ok_and(|busy| busy.is_multiple_of(2))
    }

    async fn serve(self, stream: Box<dyn Stream>) {
        let (mut read, mut write) = tokio::io::split(stream);
        let (answers, mut waiting) = tokio::sync::mpsc::unbounded_channel::<(Duration, usize, Message)>();
        let (clock, in_flight) = (self.env.clock.clone(), self.in_flight.clone());
        tokio::spawn(async move {
            while let Some((at, bytes, message)) = waiting.recv().await {
                clock.sleep_until(at).await;
                in_flight.fetch_sub(bytes, Ordering::Relaxed);
                let mut answer = Vec::new();
                message.encode(&mut answer).unwrap();
                if write.write_all(&answer).await.is_err() {
                    return;
                }
            }
        });
        let mut magic = [0; 8];
        read.read_exact(&mut magic).await.unwrap();
        assert_eq!(magic, MAGIC);
        while let Ok(length) = read.read_u32().await {
            let mut frame = vec![0; length as usize];
            read.read_exact(&mut frame).await.unwrap();
            let now = self.env.clock.now();
            let answer = match Message::decode(frame.into()).unwrap() {
                Message::Hello(_) => Some((now, 0, Message::Welcome)),
                Message::Create(create) if self.is_busy() => {
                    Some((now, 0, Message::Nack { stream: create.stream, refusal: Refusal::Busy }))
                }
                Message::Append { stream, .. } if self.is_busy() => {
                    Some((now, 0, Message::Nack { stream, refusal: Refusal::Busy }))
                }
                Message::Create(create) => {
                    Some((now, 0, Message::Ack { stream: create.stream, end: create.name.base }))
                }
                Message::Append { stream, bytes, .. } => {
                    self.sent.fetch_add(bytes.len(), Ordering::Relaxed);
                    let in_flight = self.in_flight.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
                    self.in_flight_max.fetch_max(in_flight, Ordering::Relaxed);
                    let end = Batches::new(&bytes).last().unwrap().unwrap().next_offset();
                    self.acks_after.map(|after| (now + after, bytes.len(), Message::Ack { stream, end }))
                }
                Message::Fetch(request, _) => {
                    self.acks_after.map(|after| (now + after, 0, Message::Fetched(request, None)))
                }
                _ => None,
            };
            answer.into_iter().for_each(|answer| answers.send(answer).unwrap());
        }
    }
}

#[test]
fn credit_comes_back_with_acknowledgements() {
    for (pushes, credit) in [(8, CREDIT_BYTES), (1, PUSH_CREDIT_BYTES)] {
        simulate(|| acknowledged_late(pushes, credit));
    }
}

async fn acknowledged_late(pushes: i32, credit: usize) {
    let world = World::new(1);
    let (leader, member) = (world.broker(1).await, world.broker(2).await);
    let slow = SlowMember::new(&world).start(&world, Some(Duration::from_secs(2))).await;
    let links = world.links(&leader);
    let led: Vec<_> = (0..pushes).map(|number| Led::new(&leader, number, 10, 5, Durability::Fsync)).collect();
    for led in &led {
        (0..60).for_each(|_| led.append(1, 100_000));
    }
    let _pushes: Vec<_> =
        led.iter().map(|led| links.push(member.target(led), led.clone(), led.clone())).collect();
    world.until("acknowledged", || led.iter().all(|led| led.is_acked_by(&member))).await;
    let most = slow.in_flight_max.load(Ordering::Relaxed);
    assert!((credit - 200_000..credit + 200_000).contains(&most), "{most}");
    assert_eq!(world.network.connections(), 1);
}

#[test]
fn what_is_not_acknowledged_is_bounded() {
    simulate(|| async {
        let world = World::new(1);
        let (leader, member) = (world.broker(1).await, world.broker(2).await);
        let slow = SlowMember::new(&world).start(&world, None).await;
        let links = world.links(&leader);
        let led: Vec<_> = (0..8).map(|number| Led::new(&leader, number, 10, 5, Durability::Fsync)).collect();
        for led in &led {
            for _ in 0..60 {
                led.append(1, 100_000);
            }
        }
        let piece = 200_000;
        let first = links.push(member.target(&led[0]), led[0].clone(), led[0].clone());
        world.sleep_ms(5_000).await;
        let sent = slow.sent.load(Ordering::Relaxed);
        assert!((PUSH_CREDIT_BYTES - piece..PUSH_CREDIT_BYTES + piece).contains(&sent), "{sent}");
        let others: Vec<_> =
            led[1..].iter().map(|led| links.push(member.target(led), led.clone(), led.clone())).collect();
        world.sleep_ms(5_000).await;
        let sent = slow.sent.load(Ordering::Relaxed);
        assert!((CREDIT_BYTES - piece..CREDIT_BYTES + piece).contains(&sent), "{sent}");
        // What was in flight of pushes that are over is no debt.
        drop(others);
        let late = links.push(member.target(&led[7]), led[7].clone(), led[7].clone());
        world.sleep_ms(1_000).await;
        let more = slow.sent.load(Ordering::Relaxed) - sent;
        assert!((PUSH_CREDIT_BYTES - piece..PUSH_CREDIT_BYTES + piece).contains(&more), "{more}");
        // Who is silent although an answer is due is called anew.
        let before = world.network.connections();
        world.sleep_ms(20_000).await;
        assert_eq!(world.network.connections(), before + 1);
        assert!(led[0].heard.lock().lost > 0);
        drop((first, late));
    });
}

#[test]
fn a_connection_nobody_needs_is_closed_and_made_again() {
    simulate(|| async {
        let world = World::new(1);
        let (leader, member) = (world.broker(1).await, world.broker(2).await);
        let links = world.links(&leader);
        let led = Led::new(&leader, 0, 10, 5, Durability::Fsync);
        for round in 1..=3 {
            led.append(1, 10);
            let push = led.push(&links, &member);
            world.until("acknowledged", || led.is_acked_by(&member)).await;
            assert_eq!(world.network.connections(), round);
            drop(push);
            world.sleep_ms(100_000).await;
        }
        assert_eq!(led.heard.lock().lost, 0);
    });
}

#[test]
fn a_push_outlives_a_want_of_file_handles() {
    simulate(|| async {
        let world = World::new(1);
        let (leader, member) = (world.broker(1).await, world.broker(2).await);
        let links = world.links(&leader);
        let led = Led::new(&leader, 0, 10, 5, Durability::Fsync);
        led.append(1, 10);
        led.handles_wanting.store(3, Ordering::Relaxed);
        let _push = led.push(&links, &member);
        world.until("acknowledged", || led.is_acked_by(&member)).await;
        let heard = led.heard.lock();
        assert!(heard.refused.is_empty() && heard.lost == 0);
    });
}

/// A large segment takes longer to fetch than a connection may be silent.
#[test]
fn who_fetches_for_long_is_waited_for() {
    simulate(|| async {
        let world = World::new(1);
        let (leader, member) = (world.broker(1).await, world.broker(2).await);
        SlowMember::new(&world).start(&world, Some(Duration::from_secs(40))).await;
        let links = world.links(&leader);
        let led = Led::new(&leader, 0, 10, 5, Durability::Fsync);
        led.append(1, 10);
        let fetch = FetchRequest {
            name: led.name(),
            storage: member.storage().id(),
            sealed: led.segment.seal().unwrap(),
            source: leader.storage().id(),
            epoch: led.epoch,
            snapshot: None,
        };
        links.have_fetched(member.life.broker, fetch, PATIENCE).await.unwrap();
        assert_eq!(world.network.connections(), 1);
    });
}

/// A member that has no handle for a stream's beginning, nor for its first records, and then has.
#[test]
fn a_busy_member_is_asked_again() {
    simulate(|| async {
        let world = World::new(1);
        let (leader, member) = (world.broker(1).await, world.broker(2).await);
        let slow = SlowMember { busy: Arc::new(AtomicUsize::new(4)), ..SlowMember::new(&world) };
        slow.start(&world, Some(Duration::ZERO)).await;
        let links = world.links(&leader);
        let led = Led::new(&leader, 0, 10, 5, Durability::Fsync);
        led.append(1, 10);
        let _push = links.push(member.target(&led), led.clone(), led.clone());
        world.until("acknowledged", || led.is_acked_by(&member)).await;
        let heard = led.heard.lock();
        assert!(heard.refused.is_empty() && heard.lost == 0 && world.network.connections() == 1);
    });
}

#[test]
fn a_cold_segment_is_read_where_that_may_block() {
    simulate(|| async {
        let world = World::new(1);
        let (leader, member) = (world.broker(1).await, world.broker(2).await);
        let links = world.links(&leader);
        let cold = Led::new(&leader, 0, 10, 5, Durability::Fsync);
        for _ in 0..30 {
            cold.append(2, 20_000);
        }
        leader.sim.disk.set_cold(true);
        let _push = cold.push(&links, &member);
        world.until("acknowledged", || cold.is_acked_by(&member)).await;
        assert_eq!(cold.check_prefix(&member.replicas()), cold.segment.end());
    });
}

/// What a port hears that is no stream, or one for somebody else.
#[test]
fn garbage_and_strangers_are_turned_away() {
    simulate(|| async {
        let world = World::new(9);
        let (leader, member) = (world.broker(1).await, world.broker(2).await);
        let led = Led::new(&leader, 0, 10, 5, Durability::Fsync);
        let address = world.addresses.peer(BrokerId(2)).unwrap().host_port;
        let life = |broker, incarnation| BrokerLife {
            broker: BrokerId(broker),
            incarnation: Incarnation(incarnation),
        };
        let good = Hello { version: VERSION, cluster: CLUSTER, from: life(1, 1), to: life(2, 1) };
        let strangers = [
            Hello { version: VERSION + 1, ..good },
            Hello { cluster: base::ids::Uuid([4; 16]), ..good },
            Hello { to: life(3, 1), ..good },
            Hello { to: life(2, 2), ..good },
        ];
        for hello in strangers {
            let mut said = MAGIC.to_vec();
            Message::Hello(hello).encode(&mut said).unwrap();
            let mut stream = world.env.network.connect(&address).await.unwrap();
            stream.write_all(&said).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            let answer = Message::decode(answer.split_off(4).into()).unwrap();
            assert!(matches!(answer, Message::Refused(..)), "{answer:?}");
        }
        let mut hello = MAGIC.to_vec();
        Message::Hello(good).encode(&mut hello).unwrap();
        let mut create = Vec::new();
        let mut wrong_kind = Vec::new();
        Message::Ack { stream: 0, end: 5 }.encode(&mut wrong_kind).unwrap();
        Message::Fence(1, Box::new(member.fence(&led, 6))).encode(&mut create).unwrap();
        for round in 0..200 {
            let mut bytes = hello.clone();
            match round % 4 {
                0 => bytes.extend((0..300).map(|_| world.random.below(256) as u8)),
                1 => bytes.extend_from_slice(&wrong_kind),
                2 => bytes.extend_from_slice(&create[..create.len() / 2]),
                _ => {
                    let at = world.random.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << world.random.below(8);
                }
            }
            let mut stream = world.env.network.connect(&address).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
        }
        assert!(member.replicas().promised(partition(0)).is_none_or(|epoch| epoch <= LeaderEpoch(6)));
        // Of two connections of one broker the newer stays: it would not have called, had it the older.
        let call = async || {
            let mut stream = world.env.network.connect(&address).await.unwrap();
            stream.write_all(&hello).await.unwrap();
            let mut welcome = [0; 5];
            stream.read_exact(&mut welcome).await.unwrap();
            stream
        };
        let mut older = call().await;
        let _newer = call().await;
        assert_eq!(older.read(&mut [0]).await.unwrap(), 0);
        // It still serves who is welcome.
        let links = world.links(&leader);
        led.append(1, 10);
        let _push = led.push(&links, &member);
        world.until("acknowledged", || led.is_acked_by(&member)).await;
    });
}

#[test]
fn bytes_that_are_no_batches_end_the_connection() {
    simulate(|| async {
        let world = World::new(2);
        let (leader, member) = (world.broker(1).await, world.broker(2).await);
        let links = world.links(&leader);
        let led = Led::new(&leader, 0, 10, 5, Durability::Fsync);
        led.append(3, 100);
        let push = led.push(&links, &member);
        world.until("acknowledged", || led.is_acked_by(&member)).await;
        // A bit flips on the leader's disk, within a record.
        let end = led.segment.end();
        let at = led.segment.bytes() + 70;
        led.append(1, 100);
        let path = format!(
            "/data/topics/orders/0.{}/{:020}.10.0/{:020}.log",
            led.name().partition.topic_id,
            100,
            100
        );
        leader.sim.disk.flip_bit(std::path::Path::new(&path), at * 8).unwrap();
        push.wake();
        world.sleep_ms(3_000).await;
        assert!(led.heard.lock().lost > 0);
        assert_eq!(led.acked(member.storage().id()), end);
        assert_eq!(member.replicas().copy(partition(0), led.name().id).unwrap().end(), end);
    });
}
