//! Copies: made for a seal, sealed, pulled, and handed from one side of a broker to the other.

use std::sync::Arc;
use std::time::Duration;

use base::chain::{SegmentEntry, SegmentKind, SegmentState};
use base::config::Durability;
use base::env::Stream;
use base::env::sim::CrashPolicy;
use base::ids::{BrokerId, Incarnation, LeaderEpoch, Offset, SegmentId, StorageId, TopicPartition, Uuid};
use bytes::Bytes;
use parking_lot::Mutex;
use replication::placement::Candidate;
use replication::stream::{
    BrokerLife, Create, Directory, FenceResult, Hello, Leading, LinkError, Local, MAGIC, Message,
    PullRequest, PullResult, PushKind, Refusal, Refused, SealedCopy, VERSION,
};
use replication::{Candidates, Peers, WantedSegment, fetch_segment};
use storage::{SealedInfo, Segment, Storage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::*;

fn entry(led: &Led, sealed: SealedInfo) -> SegmentEntry {
    let name = led.name();
    let SealedInfo { end, bytes, crc } = sealed;
    SegmentEntry {
        id: name.id,
        kind: SegmentKind::Replicated,
        generation: name.generation,
        base: name.base,
        epochs: vec![(led.epoch, name.base)],
        ack_quorum: 1,
        state: SegmentState::Sealed { end, crc, bytes, replicas: Vec::new() },
        unclean: false,
    }
}

#[test]
fn a_copy_for_a_seal_goes_to_its_end_and_promises_the_epoch() {
    simulate(|| async {
        let world = World::new(1);
        let (leader, other) = (world.broker(1).await, world.broker(2).await);
        let links = world.links(&leader);
        let led = Led::new(&leader, 0, 10, 5, Durability::Fsync);
        for _ in 0..50 {
            led.append(2, 1_000);
        }
        let mut target = other.target(&led);
        // No member, so no life of it is named; and the new leader's epoch, not the segment's.
        (target.incarnation, target.epoch) = (Incarnation(-1), LeaderEpoch(8));
        links.copy_up(target.clone(), led.clone(), 160, PATIENCE).await.unwrap();
        let replicas = other.replicas();
        assert_eq!(led.check_prefix(&replicas), 160);
        assert_eq!(replicas.promised(partition(0)), Some(LeaderEpoch(8)));
        // Once more, and further.
        links.copy_up(target.clone(), led.clone(), 160, PATIENCE).await.unwrap();
        links.copy_up(target.clone(), led.clone(), 200, PATIENCE).await.unwrap();
        assert_eq!(led.check_prefix(&replicas), 200);
        target.epoch = LeaderEpoch(7);
        let refused = links.copy_up(target, led.clone(), 200, PATIENCE).await.unwrap_err();
        let LinkError::Refused(Refused::Storage(refusal)) = refused else { panic!("{refused}") };
        assert_eq!(refusal, Refusal::Fenced(LeaderEpoch(8)));
    });
}

#[test]
fn a_sealed_copy_is_cut_and_compared() {
    for restarted in [false, true] {
        simulate(|| async move {
            let world = World::new(1);
            let (leader, mut member) = (world.broker(1).await, world.broker(2).await);
            let links = world.links(&leader);
            let led: Vec<_> =
                (0..4).map(|number| Led::new(&leader, number, 10, 5, Durability::Fsync)).collect();
            let mut pushes = Vec::new();
            for led in &led {
                for _ in 0..20 {
                    led.append(2, 500);
                }
                pushes.push(led.push(&links, &member));
            }
            world.until("acknowledged", || led.iter().all(|led| led.is_acked_by(&member))).await;
            drop(pushes);
            // The leader ends two where the copies do, one before, and one behind.
            led[2].append(1, 10);
            let cut = led[1].segment.seal_at(130).unwrap();
            let [whole, short, damaged] = [0, 2, 3].map(|at: usize| led[at].segment.seal().unwrap());
            let damaged = SealedInfo { crc: !damaged.crc, ..damaged };
            if restarted {
                world.restart(&mut member, Some(CrashPolicy::LoseAll), SegmentId(10)).await;
            }
            let (replicas, id) = (member.replicas(), member.storage().id());
            let topic: Arc<str> = "orders".into();
            let seal = async |at: usize, sealed| {
                let of = entry(&led[at], sealed);
                replicas.sealed(&topic, partition(at as i32), &of).await.unwrap()
            };
            for _ in 0..2 {
                assert_eq!(seal(0, whole).await, SealedCopy::Whole(id));
                assert_eq!(seal(1, cut).await, SealedCopy::Whole(id));
                assert_eq!(seal(2, short).await, SealedCopy::Short(id, 140));
                assert_eq!(seal(3, damaged).await, SealedCopy::Damaged(id));
            }
            let absent = SegmentEntry { id: SegmentId(99), ..entry(&led[0], whole) };
            assert_eq!(replicas.sealed(&topic, partition(0), &absent).await.unwrap(), SealedCopy::Absent);
            // The cut one is served as it was sealed, and nobody appends to it any more.
            let loaded = member.storage().load(led[1].name(), cut.end, cut.bytes, cut.crc);
            assert_eq!(content(&loaded), content(&led[1].segment));
            let _push = links.push(member.target(&led[0]), led[0].clone(), led[0].clone());
            world.until("refused", || !led[0].heard.lock().refused.is_empty()).await;
            // The short one is mended as any copy is made for a seal, and then whole.
            links.copy_up(member.target(&led[2]), led[2].clone(), short.end, PATIENCE).await.unwrap();
            assert_eq!(seal(2, short).await, SealedCopy::Whole(id));
        });
    }
}

struct Nobody;

impl Candidates for Nobody {
    fn candidates(&self) -> Vec<Candidate> {
        Vec::new()
    }

    fn home(&self, _: StorageId) -> Option<BrokerId> {
        None
    }
}

/// A leader that stood still while another one took over goes on, and rolls its segment at an end of its own.
#[test]
fn what_a_replaced_leader_sealed_at_its_own_end_is_cut_when_a_copy_is_wanted_there() {
    simulate(|| async {
        let world = World::new(1);
        let broker = world.broker(1).await;
        let [led, twin] = [0, 1].map(|number| Led::new(&broker, number, 10, 5, Durability::Fsync));
        for _ in 0..20 {
            led.append(2, 500);
            twin.append(2, 500);
        }
        assert_eq!(content(&led.segment), content(&twin.segment));
        let own = led.segment.seal().unwrap();
        let sealed = twin.segment.seal_at(130).unwrap();
        assert!(sealed.bytes < own.bytes);
        let peers = Peers {
            links: world.links(&broker),
            replicas: broker.replicas(),
            candidates: Arc::new(Nobody),
            avoided: Mutex::default(),
        };
        let (name, to) = (led.name(), broker.storage());
        let sources = Vec::new();
        let wanted = WantedSegment { env: &broker.env, name, sealed, sources, to, throttle: None };
        fetch_segment(&peers, &wanted).await.unwrap();
        let loaded = |info: SealedInfo| broker.storage().load(led.name(), info.end, info.bytes, info.crc);
        assert_eq!(content(&loaded(sealed)), content(&twin.segment));
        assert!(loaded(own).verify().is_err(), "nothing is left behind the end");
    });
}

#[test]
fn what_is_held_can_be_pulled_and_what_is_not_is_told_for_sure() {
    simulate(|| async {
        let world = World::new(1);
        let (leader, mut member, asker) =
            (world.broker(1).await, world.broker(2).await, world.broker(3).await);
        let links = world.links(&leader);
        let led = Led::new(&leader, 0, 10, 5, Durability::Fsync);
        for _ in 0..20 {
            led.append(2, 500);
        }
        let push = led.push(&links, &member);
        world.until("acknowledged", || led.is_acked_by(&member)).await;
        let links = world.links(&asker);
        let request = |id, sealed, from| PullRequest {
            name: storage::SegmentName { id: SegmentId(id), ..led.name() },
            storage: member.storage().id(),
            sealed,
            from,
            max_bytes: 3_000,
        };
        let pull = async |request| links.pull(member.life.broker, request, PATIENCE).await.unwrap();
        let all = async |sealed| {
            let (mut from, mut bytes): (Offset, Vec<u8>) = (100, Vec::new());
            loop {
                match pull(request(10, sealed, from)).await {
                    PullResult::Bytes(more) if more.is_empty() => return Bytes::from(bytes),
                    PullResult::Bytes(more) => {
                        from = base::batch::Batches::new(&more).last().unwrap().unwrap().next_offset();
                        bytes.extend_from_slice(&more);
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        assert_eq!(all(None).await, content(&led.segment));
        drop(push);
        let sealed = led.segment.seal().unwrap();
        let topic: Arc<str> = "orders".into();
        let whole = member.replicas().sealed(&topic, partition(0), &entry(&led, sealed)).await.unwrap();
        assert_eq!(whole, SealedCopy::Whole(member.storage().id()));
        assert_eq!(all(Some(sealed)).await, content(&led.segment));
        assert_eq!(pull(request(10, None, 100)).await, PullResult::Unknown);
        for sealed in [None, Some(sealed)] {
            assert_eq!(pull(request(11, sealed, 100)).await, PullResult::NotHere);
        }
        let stranger = PullRequest { storage: Uuid([1; 16]), ..request(10, Some(sealed), 100) };
        assert_eq!(pull(stranger).await, PullResult::Unknown);
        // More than there is on the disk, or other bytes, is not given.
        let longer = SealedInfo { bytes: sealed.bytes + 1, ..sealed };
        assert_eq!(pull(request(10, Some(longer), 100)).await, PullResult::Unknown);
        let [older, newer] = [9, 11].map(|id| request(id, Some(sealed), 100));
        world.restart(&mut member, Some(CrashPolicy::LoseAll), SegmentId(10)).await;
        // Of what there was before the power cut it cannot tell what it lost.
        let lost = async |request| links.pull(member.life.broker, request, PATIENCE).await.unwrap();
        assert_eq!(lost(older).await, PullResult::Unknown);
        assert_eq!(lost(newer).await, PullResult::NotHere);
    });
}

type LedSegment = (LeaderEpoch, Arc<Segment>, Arc<Storage>);

/// The leader's side of a broker, which leads one partition at most.
#[derive(Default)]
struct LeadsOne(Mutex<Option<LedSegment>>);

impl Leading for LeadsOne {
    fn fence(&self, of: TopicPartition, epoch: LeaderEpoch) -> Local {
        let mut led = self.0.lock();
        match led.take_if(|(own, _, _)| of == partition(0) && *own < epoch) {
            Some((_, segment, storage)) => {
                Local::Stopped { open: Some((segment, storage)), high_watermark: 107 }
            }
            None => match &*led {
                Some((own, _, _)) if of == partition(0) => Local::Leads(*own),
                _ => Local::Follows,
            },
        }
    }
}

#[test]
fn a_copy_goes_over_to_the_leaders_side_and_back() {
    simulate(|| async {
        let world = World::new(1);
        let leads = Arc::new(LeadsOne::default());
        let first = world.broker(1).await;
        let member = world.broker_that_leads(2, leads.clone()).await;
        let links = world.links(&first);
        let led = Led::new(&first, 0, 10, 5, Durability::PageCache);
        led.append(9, 100);
        let push = led.push(&links, &member);
        world.until("acknowledged", || led.is_acked_by(&member)).await;
        let replicas = member.replicas();
        // The member is elected: it promises, takes the copy over and appends to it.
        replicas.promise(partition(0), LeaderEpoch(6)).unwrap();
        let released = replicas.release(partition(0)).await.unwrap();
        assert_eq!(released.promised, LeaderEpoch(6));
        assert_eq!(released.copies, [(led.name(), member.storage().id(), 109)]);
        assert!(replicas.copy(partition(0), SegmentId(10)).is_none());
        led.append(1, 100);
        push.wake();
        world.until("refused", || !led.heard.lock().refused.is_empty()).await;
        let mut all = |_: storage::Replay<'_>| true;
        let recovered = member.storage().recover(led.name(), &[(led.epoch, 100)], &mut all).unwrap();
        assert_eq!((recovered.segment.end(), recovered.torn_bytes), (109, 0));
        *leads.0.lock() = Some((LeaderEpoch(6), recovered.segment.clone(), member.storage()));
        // The first leader is not heard any more; nor is one of the same epoch.
        for epoch in [5, 6] {
            let fence = links.fence(member.life.broker, member.fence(&led, epoch), PATIENCE).await.unwrap();
            assert_eq!(fence, FenceResult::Fenced(LeaderEpoch(6)));
        }
        // A later one is: the own leader stops, and its segment goes on as a copy.
        let fence = links.fence(member.life.broker, member.fence(&led, 7), PATIENCE).await.unwrap();
        assert_eq!(promised(fence), (109, true));
        assert!(leads.0.lock().is_none());
        assert_eq!(replicas.high_watermark(partition(0)), Some(107));
        let copy = replicas.copy(partition(0), SegmentId(10)).unwrap();
        assert!(Arc::ptr_eq(&copy, &recovered.segment));
        let mut target = member.target(&led);
        target.epoch = LeaderEpoch(7);
        links.copy_up(target, led.clone(), 110, PATIENCE).await.unwrap();
        assert_eq!(led.check_prefix(&replicas), 110);
        assert_eq!(replicas.promise(partition(0), LeaderEpoch(6)), Err(LeaderEpoch(7)));
    });
}

/// Whoever opens the file counts on all of it being durable, and on nobody else appending to it.
#[test]
fn a_copy_that_was_let_go_of_is_durable_and_nobodys() {
    simulate(|| async {
        let world = World::new(1);
        let (leader, mut member) = (world.broker(1).await, world.broker(2).await);
        let links = world.links(&leader);
        let led = Led::new(&leader, 0, 10, 5, Durability::PageCache);
        led.append(9, 100);
        let push = led.push(&links, &member);
        world.until("acknowledged", || led.is_acked_by(&member)).await;
        led.append(1, 100);
        push.wake();
        world.until("acknowledged", || led.is_acked_by(&member)).await;
        let copy = member.replicas().copy(partition(0), SegmentId(10)).unwrap();
        assert!(copy.durable_end() < copy.end());
        // Nothing was promised since, so only that it was let go of keeps the leader out.
        assert!(member.replicas().release(partition(0)).await.is_some());
        led.append(1, 100);
        push.wake();
        world.until("refused", || !led.heard.lock().refused.is_empty()).await;
        assert_eq!((copy.end(), copy.durable_end()), (110, 110));
        drop((copy, push));
        world.restart(&mut member, Some(CrashPolicy::LoseAll), SegmentId(10)).await;
        let recovered = member.storage().recover(led.name(), &[(led.epoch, 100)], &mut |_| true).unwrap();
        assert_eq!(recovered.segment.end(), 110);
        assert!(member.replicas().release(partition(5)).await.is_none());
    });
}

/// A connection on which frames are said one by one, as stream 4 of a leader.
struct Caller {
    stream: Box<dyn Stream>,
    create: Message,
}

const ACK: fn(Offset) -> Message = |end| Message::Ack { stream: 4, end };

fn append(from: Offset, batches: &[Vec<u8>]) -> Message {
    Message::Append { stream: 4, from, high_watermark: from, bytes: batches.concat().into() }
}

impl Caller {
    async fn call(world: &World, member: &Broker, led: &Led) -> Caller {
        let address = Directory::peer(&*world.addresses, member.life.broker).unwrap();
        let mut stream = world.env.network.connect(&address.host_port).await.unwrap();
        stream.write_all(&MAGIC).await.unwrap();
        let target = member.target(led);
        let create = Create {
            stream: 4,
            name: target.name,
            storage: target.storage,
            epoch: target.epoch,
            epochs: target.epochs,
            incarnation: target.incarnation,
            durability: target.durability,
            kind: PushKind::Member,
            snapshot: target.snapshot,
        };
        let mut caller = Caller { stream, create: Message::Create(Box::new(create)) };
        let from = BrokerLife { broker: BrokerId(1), incarnation: Incarnation(1) };
        caller
            .say(&[Message::Hello(Hello { version: VERSION, cluster: CLUSTER, from, to: member.life })])
            .await;
        assert_eq!(caller.hear().await, Message::Welcome);
        caller
    }

    async fn say(&mut self, messages: &[Message]) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| message.encode(&mut bytes).unwrap());
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn hear(&mut self) -> Message {
        let length = self.stream.read_u32().await.unwrap();
        let mut frame = vec![0; length as usize];
        self.stream.read_exact(&mut frame).await.unwrap();
        Message::decode(frame.into()).unwrap()
    }

    async fn ask(&mut self, messages: &[Message]) -> Message {
        self.say(messages).await;
        self.hear().await
    }
}

#[test]
fn a_gap_is_told_once_and_a_duplicate_is_acknowledged() {
    simulate(|| async {
        let world = World::new(1);
        let (leader, member) = (world.broker(1).await, world.broker(2).await);
        let led = Led::new(&leader, 0, 10, 5, Durability::PageCache);
        let batch_at = |base| batch(base, 5, 10, led.epoch);
        let mut caller = Caller::call(&world, &member, &led).await;
        let create = caller.create.clone();
        assert_eq!(caller.ask(&[create]).await, ACK(100));
        let early = [105, 110, 115].map(|from| append(from, &[batch_at(from)]));
        let gap = Message::Nack { stream: 4, refusal: Refusal::Gap(100) };
        assert_eq!(caller.ask(&early).await, gap);
        assert_eq!(caller.ask(&[append(100, &[batch_at(100), batch_at(105)])]).await, ACK(110));
        assert_eq!(caller.ask(&[append(100, &[batch_at(100)])]).await, ACK(110));
        // Half of it is new.
        assert_eq!(caller.ask(&[append(105, &[batch_at(105), batch_at(110)])]).await, ACK(115));
        assert_eq!(caller.ask(&early[..1]).await, ACK(115));
        assert_eq!(member.replicas().high_watermark(partition(0)), Some(105));
    });
}

/// A connection may end while a copy is being made; the next one must not have it made over what it brought meanwhile.
#[test]
fn a_copy_is_made_once_whatever_becomes_of_who_asked() {
    for seed in 0..60 {
        simulate(|| async move {
            let world = World::new(seed);
            let (leader, mut member) = (world.broker(1).await, world.broker(2).await);
            let led = Led::new(&leader, 0, 10, 5, Durability::Fsync);
            let mut first = Caller::call(&world, &member, &led).await;
            let create = first.create.clone();
            first.say(std::slice::from_ref(&create)).await;
            world.env.clock.sleep(Duration::from_micros(world.random.below(1_500))).await;
            let mut second = Caller::call(&world, &member, &led).await;
            assert_eq!(second.ask(&[create]).await, ACK(100));
            second.say(&[append(100, &[batch(100, 5, 10, led.epoch)])]).await;
            while second.hear().await != ACK(105) {}
            world.sleep_ms(10).await;
            world.restart(&mut member, Some(CrashPolicy::LoseAll), SegmentId(10)).await;
            let mut all = |_: storage::Replay<'_>| true;
            let recovered = member.storage().recover(led.name(), &[(led.epoch, 100)], &mut all).unwrap();
            assert_eq!(recovered.segment.end(), 105, "seed {seed}");
        });
    }
}
