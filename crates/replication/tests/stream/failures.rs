//! Members that crash, disks that fail, leaders whose time is over.

use std::time::Duration;

use base::config::Durability;
use base::env::sim::CrashPolicy;
use base::ids::{Incarnation, LeaderEpoch, SegmentId};
use replication::stream::{FenceResult, FetchRequest, LinkError, Refusal, Refused};

use crate::network::Faults;
use crate::world::*;

fn refusals(led: &Led) -> Vec<Refusal> {
    let of_storage = |refused: &Refused| match refused {
        Refused::Storage(refusal) => *refusal,
        Refused::Source(error) => panic!("{error}"),
    };
    led.heard.lock().refused.iter().map(|(_, refused)| of_storage(refused)).collect()
}

#[test]
fn a_restarted_member_takes_no_more_of_old_segments_and_holds_what_it_acknowledged() {
    for seed in 0..30 {
        simulate(|| async move {
            let world = World::new(seed);
            let (leader, mut member) = (world.broker(1).await, world.broker(2).await);
            world.network.set(Faults { connect_delay_us: 5_000, delay_us: 2_000, ..Faults::default() });
            let links = world.links(&leader);
            let led = Led::new(&leader, 0, 10, 5, Durability::Fsync);
            let push = led.push(&links, &member);
            for _ in 0..30 {
                led.append(2, 300);
                push.wake();
                world.sleep_ms(world.random.below(8)).await;
            }
            let storage = member.storage().id();
            let power = [None, Some(CrashPolicy::LoseAll), Some(CrashPolicy::Random)][seed as usize % 3];
            let replicas = world.restart(&mut member, power, SegmentId(10)).await;
            let acked = led.acked(storage);
            led.copies.lock().clear();
            led.append(1, 10);
            push.wake();
            world.until("refused", || !led.heard.lock().refused.is_empty()).await;
            assert_eq!(refusals(&led), [Refusal::StaleIncarnation(Incarnation(2))]);
            // A push that names the present life, as no ensemble of this segment does, is none to test. What is asked
            // is what a new leader asks.
            let fenced = links.fence(member.life.broker, member.fence(&led, 6), PATIENCE).await.unwrap();
            let (end, is_authoritative) = promised(fenced);
            assert!(end >= acked.max(100) && is_authoritative, "{end}, {acked}");
            if end > 100 {
                assert_eq!(led.check_prefix(&replicas), end);
            }
            assert_eq!(replicas.promised(partition(0)), Some(LeaderEpoch(6)));
            // The next segment names it, and it takes it.
            let next = Led::new(&leader, 0, 11, 6, Durability::Fsync);
            next.append(2, 300);
            let _next = next.push(&links, &member);
            world.until("the next acknowledged", || next.is_acked_by(&member)).await;
        });
    }
}

#[test]
fn a_power_cut_leaves_doubt_only_where_the_page_cache_was_trusted() {
    let cases = [
        (Durability::PageCache, Some(CrashPolicy::LoseAll), false),
        (Durability::PageCache, None, true),
        (Durability::Fsync, Some(CrashPolicy::LoseAll), true),
    ];
    for (class, power, expected) in cases {
        simulate(|| async move {
            let world = World::new(4);
            let (leader, mut member) = (world.broker(1).await, world.broker(2).await);
            let links = world.links(&leader);
            let led = Led::new(&leader, 0, 10, 5, class);
            led.append(5, 100);
            let push = led.push(&links, &member);
            world.until("acknowledged", || led.is_acked_by(&member)).await;
            drop(push);
            world.restart(&mut member, power, SegmentId(10)).await;
            for clean_restarts in 0..3 {
                let ask = async |id, epoch| {
                    let mut fence = member.fence(&led, epoch);
                    fence.name.id = SegmentId(id);
                    promised(links.fence(member.life.broker, fence, PATIENCE).await.unwrap())
                };
                let (end, is_authoritative) = ask(10, 6).await;
                assert_eq!(is_authoritative, expected, "{class:?} {power:?} {clean_restarts}");
                assert_eq!(end, if expected { led.segment.end() } else { 100 });
                // Of what it never heard of it can say no more; of what came later it can.
                assert_eq!(ask(9, 6).await, (100, expected));
                assert_eq!(ask(11, 6).await, (100, true));
                // A clean end does not bring back what the power took.
                member.storage().shutdown_clean().unwrap();
                world.restart(&mut member, None, SegmentId(30)).await;
            }
        });
    }
}

#[test]
fn a_fence_ends_what_an_old_leader_may_write() {
    for seed in 0..20 {
        simulate(|| async move {
            let world = World::new(seed);
            let (old, member, new) = (world.broker(1).await, world.broker(2).await, world.broker(3).await);
            world.network.set(Faults { delay_us: 2_000, ..Faults::default() });
            let (links, new_links) = (world.links(&old), world.links(&new));
            let led = Led::new(&old, 0, 10, 5, Durability::Fsync);
            let push = led.push(&links, &member);
            for _ in 0..20 {
                led.append(1, 200);
                push.wake();
                world.sleep_ms(world.random.below(4)).await;
            }
            let storage = member.storage().id();
            let fence = member.fence(&led, 7);
            let asked = new_links.fence(member.life.broker, fence, PATIENCE);
            let goes_on = async {
                for _ in 0..50 {
                    led.append(1, 200);
                    push.wake();
                    world.sleep_ms(1).await;
                }
            };
            let (answer, ()) = futures::future::join(asked, goes_on).await;
            let (end, is_authoritative) = promised(answer.unwrap());
            assert!(is_authoritative);
            world.until("refused", || !led.heard.lock().refused.is_empty()).await;
            assert_eq!(refusals(&led), [Refusal::Fenced(LeaderEpoch(7))]);
            assert!(led.acked(storage) <= end && end < led.segment.end());
            assert_eq!(led.check_prefix(&member.replicas()), end);
            // For the next segment of that epoch nothing is even made.
            let next = Led::new(&old, 0, 11, 5, Durability::Fsync);
            let _next = next.push(&links, &member);
            world.until("refused", || !next.heard.lock().refused.is_empty()).await;
            assert!(!member.storage().holds(&next.name()));
            // A push anew is refused at once, and so is a fence of an epoch in between.
            led.heard.lock().refused.clear();
            let _push = led.push(&links, &member);
            world.until("refused again", || !led.heard.lock().refused.is_empty()).await;
            let late = links.fence(member.life.broker, member.fence(&led, 6), PATIENCE).await.unwrap();
            assert_eq!(late, FenceResult::Fenced(LeaderEpoch(7)));
        });
    }
}

/// What a new leader builds on is on the disk, whatever the class of the topic.
#[test]
fn nothing_is_fetched_for_a_leader_that_was_replaced() {
    simulate(|| async {
        let world = World::new(3);
        let (leader, member) = (world.broker(1).await, world.broker(2).await);
        let links = world.links(&leader);
        let led = Led::new(&leader, 0, 10, 5, Durability::Fsync);
        led.append(1, 10);
        let fetch = FetchRequest {
            name: led.name(),
            storage: member.storage().id(),
            sealed: led.segment.seal().unwrap(),
            source: leader.storage().id(),
            epoch: LeaderEpoch(5),
            snapshot: None,
        };
        let answer = async || match links.have_fetched(member.life.broker, fetch.clone(), PATIENCE).await {
            Err(LinkError::NotFetched(_, reason)) => reason,
            other => panic!("{other:?}"),
        };
        // This broker has no way to fetch anything; it would have tried.
        member.replicas().promise(partition(0), LeaderEpoch(5)).unwrap();
        assert_eq!(answer().await, "the broker ends");
        member.replicas().promise(partition(0), LeaderEpoch(6)).unwrap();
        assert_eq!(answer().await, "epoch 6 was promised to another leader");
    });
}

#[test]
fn what_a_fence_tells_of_outlives_a_power_cut() {
    for seed in 0..20 {
        simulate(|| async move {
            let world = World::new(seed);
            let (leader, mut member) = (world.broker(1).await, world.broker(2).await);
            let links = world.links(&leader);
            let led = Led::new(&leader, 0, 10, 5, Durability::PageCache);
            let push = led.push(&links, &member);
            for _ in 0..world.random.below(10) + 1 {
                led.append(2, 300);
            }
            push.wake();
            world.until("acknowledged", || led.is_acked_by(&member)).await;
            let asked = links.fence(member.life.broker, member.fence(&led, 6), PATIENCE).await.unwrap();
            assert_eq!(promised(asked), (led.segment.end(), true));
            led.copies.lock().clear();
            world.restart(&mut member, Some(CrashPolicy::LoseAll), SegmentId(10)).await;
            let asked = links.fence(member.life.broker, member.fence(&led, 7), PATIENCE).await.unwrap();
            assert_eq!(promised(asked), (led.segment.end(), false));
        });
    }
}

#[test]
fn a_full_disk_and_a_failed_one_are_told_apart() {
    for full in [true, false] {
        simulate(|| async move {
            let world = World::new(6);
            let (leader, member) = (world.broker(1).await, world.broker(2).await);
            let links = world.links(&leader);
            let led = Led::new(&leader, 0, 10, 5, Durability::Fsync);
            led.append(5, 100);
            let push = led.push(&links, &member);
            world.until("acknowledged", || led.is_acked_by(&member)).await;
            let end = led.segment.end();
            if full {
                member.sim.disk.fail_write_after(0, true);
            } else {
                member.sim.disk.fail_sync_after(0);
            }
            led.append(5, 100);
            push.wake();
            world.until("refused", || !led.heard.lock().refused.is_empty()).await;
            let expected = if full { Refusal::NoSpace } else { Refusal::StorageFailed };
            assert_eq!(refusals(&led), [expected]);
            assert_eq!(led.acked(member.storage().id()), end);
            let fenced = links.fence(member.life.broker, member.fence(&led, 6), PATIENCE).await.unwrap();
            assert_eq!(promised(fenced), (end, full));
        });
    }
}

#[test]
fn whoever_is_not_there_answers_nothing_until_it_is() {
    simulate(|| async {
        let world = World::new(3);
        let (leader, mut member) = (world.broker(1).await, world.broker(2).await);
        let links = world.links(&leader);
        let led = Led::new(&leader, 0, 10, 5, Durability::Fsync);
        led.append(1, 10);
        let target = member.target(&led);
        let fence = member.fence(&led, 6);
        member.stop().await;
        let soon = Duration::from_secs(2);
        let none = links.fence(member.life.broker, fence.clone(), soon).await;
        assert!(matches!(none, Err(LinkError::TimedOut { last: Some(_), .. })), "{none:?}");
        let none = links.fence(base::ids::BrokerId(77), fence.clone(), soon).await;
        assert!(matches!(none, Err(LinkError::TimedOut { .. })), "{none:?}");
        let _push = links.push(target, led.clone(), led.clone());
        world.until("lost", || led.heard.lock().lost > 0).await;
        let asked = links.fence(member.life.broker, fence, PATIENCE);
        let comes_back = async {
            world.sleep_ms(5_000).await;
            world.restart(&mut member, None, SegmentId(10)).await;
        };
        let (answer, ()) = futures::future::join(asked, comes_back).await;
        assert_eq!(promised(answer.unwrap()), (100, true));
        assert_eq!(led.heard.lock().lost, 1);
        drop(links);
    });
}

/// Crash after crash, of any kind, in the midst of anything: what was acknowledged as durable is there.
#[test]
fn what_was_acknowledged_outlives_every_crash() {
    for seed in 0..40 {
        simulate(|| async move {
            let world = World::new(seed);
            let (leader, mut member) = (world.broker(1).await, world.broker(2).await);
            world.network.set(Faults { connect_delay_us: 9_000, delay_us: 1_000, cut_after_bytes: 60_000 });
            let links = world.links(&leader);
            for life in 1..=4 {
                let led = Led::new(&leader, 0, 10 + life, 5 + life as i32, Durability::Fsync);
                let push = led.push(&links, &member);
                let appends = 1 + world.random.below(40);
                for _ in 0..appends {
                    led.append(1 + world.random.below(3) as usize, world.random.below(3_000) as usize);
                    push.wake();
                    world.sleep_ms(world.random.below(5)).await;
                }
                let acked = led.acked(member.storage().id());
                let policy = [None, Some(CrashPolicy::Random), Some(CrashPolicy::LoseAll)];
                let policy = policy[world.random.below(3) as usize];
                let replicas = world.restart(&mut member, policy, SegmentId(10 + life)).await;
                drop(push);
                let fence = member.fence(&led, 6 + life as i32);
                let (end, is_authoritative) =
                    promised(links.fence(member.life.broker, fence, PATIENCE).await.unwrap());
                assert!(is_authoritative && end >= acked, "seed {seed}: {end}, acknowledged {acked}");
                if replicas.copy(partition(0), led.name().id).is_some() {
                    assert_eq!(led.check_prefix(&replicas), end);
                }
            }
        });
    }
}
