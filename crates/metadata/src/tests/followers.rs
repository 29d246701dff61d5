//! Nodes that are no voters: they see what voters see, go on at another voter, and have commands applied once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::env::sim::SimRandom;
use base::env::{Listener, Stream};
use base::ids::{BrokerId, Uuid};
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::commands::{Draw, registration};
use super::group::{Group, address};
use super::simulated;
use crate::command::{Command, CommandResult};
use crate::raft::{FollowerStore, Limits, RaftStore};
use crate::store::{MetadataStore, ProposeError};

impl Group {
    pub(super) async fn follower(&self, node: i32, controllers: &[i32]) -> FollowerStore {
        let controllers = controllers.iter().map(|node| address(*node)).collect();
        FollowerStore::open(self.sim.env.clone(), BrokerId(node), controllers).await.expect("a store")
    }

    /// Waits until the follower shows what the voters show, which is the same.
    async fn agree_with(&self, followers: &[&FollowerStore]) {
        self.agree().await;
        let newest = self.running().next().expect("one runs").image();
        for follower in followers {
            let mut images = follower.subscribe();
            let caught_up = images.wait_for(|image| image.version >= newest.version);
            let patience = self.sim.env.clock.sleep(Duration::from_secs(60));
            tokio::select! {
                shown = caught_up => assert!(**shown.unwrap() == *newest, "it shows something else"),
                () = patience => panic!("the follower is not caught up: {:?}", follower.problem()),
            }
        }
    }
}

#[test]
fn followers_show_what_voters_show_after_random_commands() {
    simulated(async {
        for seed in 0..6 {
            // Some take every entry, some an image now and then.
            let limits = Limits { snapshot_entries: 50, feed_entries: 3, ..Limits::default() };
            let limits = if seed % 2 == 0 { Limits::default() } else { limits };
            let group = Group::seeded(seed, 3, limits).await;
            let followers = [group.follower(11, &[1, 2, 3]).await, group.follower(12, &[2]).await];
            let draw = Draw(SimRandom::new(seed));
            let mut stores: Vec<&dyn MetadataStore> = vec![&followers[0], &followers[1]];
            stores.extend(group.running().map(|store| store as &dyn MetadataStore));
            for _ in 0..200 {
                let store = stores[draw.0.below(stores.len() as u64) as usize];
                let before = store.image().version;
                let result = store.propose(draw.command(&store.image())).await.unwrap();
                assert!(store.image().version > before, "what was answered shows: {result:?}");
            }
            group.agree_with(&[&followers[0], &followers[1]]).await;
            assert!(followers.iter().all(|follower| follower.problem().is_none()));
            let leader = Some(BrokerId(group.leader()));
            assert!(followers.iter().all(|follower| follower.controller() == leader));
            assert!(followers.iter().all(|follower| follower.sessions().is_none()));
        }
    });
}

#[test]
fn a_follower_goes_on_at_another_voter() {
    simulated(async {
        let mut group = Group::start(3, Limits::default()).await;
        // It learns of the others from the one it is told.
        let follower = group.follower(11, &[1]).await;
        for node in [1, 2, 3, 1] {
            group.stop(node).await;
            let result = follower.propose(Command::RegisterBroker(registration(9))).await.unwrap();
            assert!(matches!(result, CommandResult::Registered(_)), "{result:?}");
            group.agree_with(&[&follower]).await;
            group.restart(node).await;
            group.agree_with(&[&follower]).await;
        }
        assert_eq!(follower.image().broker(BrokerId(9)).unwrap().incarnation.0, 4);
    });
}

#[test]
fn a_follower_without_controllers_says_so_and_comes_back() {
    simulated(async {
        let mut group = Group::start(3, Limits::default()).await;
        let follower = group.follower(11, &[1, 2, 3]).await;
        let before = follower.image();
        let minority = group.leader();
        for node in (1..=3).filter(|node| *node != minority) {
            group.stop(node).await;
        }
        group.sim.env.clock.sleep(Duration::from_secs(15)).await;
        let said = follower.problem().expect("there is a problem");
        assert!(said.contains("no controller"), "{said}");
        group.stop(minority).await;
        let refused = follower.propose(Command::RegisterBroker(registration(2))).await;
        assert!(matches!(refused, Err(ProposeError::Unavailable(_))), "{refused:?}");
        let said = follower.problem().expect("there is a problem");
        assert!(said.contains("no controller"), "{said}");
        assert_eq!(*follower.image(), *before, "it shows what it knew");
        let (one, two) = tokio::join!(group.open(1), group.open(2));
        group.stores[0] = Some(one);
        group.stores[1] = Some(two);
        group.register_through_all().await;
        group.agree_with(&[&follower]).await;
        assert_eq!(follower.problem(), None);
        follower.shutdown().await;
        let refused = follower.propose(Command::RegisterBroker(registration(2))).await;
        assert!(matches!(refused, Err(ProposeError::Unavailable(_))), "{refused:?}");
    });
}

#[test]
fn a_follower_that_is_far_behind_gets_an_image() {
    simulated(async {
        let limits = Limits { snapshot_entries: 20, feed_entries: 5, ..Limits::default() };
        let mut group = Group::start(3, limits).await;
        let follower = group.follower(11, &[1]).await;
        // All voters begin anew: none of them has the entries before its last snapshot.
        for node in 1..=3 {
            group.stop(node).await;
        }
        let before = follower.image().version;
        let stores = join_all([1, 2].map(|node| group.open(node))).await;
        for (at, store) in stores.into_iter().enumerate() {
            group.stores[at] = Some(store);
        }
        // Faster than the follower comes back.
        let leader = group.store(group.leader());
        let register = |_| leader.propose(Command::RegisterBroker(registration(1)));
        for _ in 0..10 {
            join_all((0..50).map(register)).await;
        }
        group.agree_with(&[&follower]).await;
        assert!(follower.image().version >= before + 500);
        let late = group.follower(12, &[2]).await;
        group.agree_with(&[&late]).await;
    });
}

#[test]
fn an_answer_is_for_one_application_though_leaders_change() {
    simulated(async {
        for seed in 0..6 {
            let mut group = Group::seeded(seed, 3, Limits::default()).await;
            let random = SimRandom::new(seed);
            let followers = [group.follower(11, &[1]).await, group.follower(12, &[3]).await].map(Arc::new);
            let allocating = followers.clone().map(|follower| {
                let env = group.sim.env.clone();
                let pauses: Vec<u64> = (0..60).map(|_| random.below(150)).collect();
                tokio::spawn(async move {
                    let (mut answered, mut unknown) = (Vec::new(), 0);
                    for pause in pauses {
                        match follower.propose(Command::AllocateProducerIds { count: 1 }).await {
                            Ok(CommandResult::FirstId(id)) => {
                                assert!(follower.image().next_producer_id > id, "what was answered shows");
                                answered.push(id);
                            }
                            Ok(other) => panic!("{other:?}"),
                            Err(_) => unknown += 1,
                        }
                        env.clock.sleep(Duration::from_millis(pause)).await;
                    }
                    (answered, unknown)
                })
            });
            for _ in 0..4 {
                group.sim.env.clock.sleep(Duration::from_millis(300 + random.below(500))).await;
                let leader = group.leader();
                group.stop(leader).await;
                group.sim.env.clock.sleep(Duration::from_millis(1_000 + random.below(1_000))).await;
                group.restart(leader).await;
            }
            let (mut answered, mut unknown) = (Vec::new(), 0);
            for task in allocating {
                let (ids, lost) = task.await.unwrap();
                answered.extend(ids);
                unknown += lost;
            }
            group.agree_with(&[&followers[0], &followers[1]]).await;
            let distinct: BTreeSet<i64> = answered.iter().copied().collect();
            assert_eq!(distinct.len(), answered.len(), "an id was given twice");
            let given = followers[0].image().next_producer_id;
            assert!(given >= answered.len() as i64 && given <= (answered.len() + unknown) as i64);
            assert!(answered.len() > 60, "{} answered, {unknown} unknown", answered.len());
        }
    });
}

#[test]
fn a_follower_of_a_single_voter_works() {
    simulated(async {
        let group = Group::start(1, Limits::default()).await;
        let follower = group.follower(2, &[1]).await;
        follower.propose(Command::RegisterBroker(registration(2))).await.unwrap();
        group.agree_with(&[&follower]).await;
        assert_eq!(follower.controller(), Some(BrokerId(1)));
    });
}

#[test]
fn who_takes_nothing_in_is_left_and_others_are_not_delayed() {
    simulated(async {
        let group = Group::start(1, Limits::default()).await;
        let cluster = group.store(1).image().cluster_id;
        let mut stream = group.sim.env.network.connect(&address(1)).await.unwrap();
        let numbers = [9_u64.to_be_bytes(), u64::MAX.to_be_bytes()].concat();
        stream.write_all(&[&b"VltavaCq"[..], &[0, 0, 0, 1], &cluster.0, &numbers].concat()).await.unwrap();
        // It follows from entry 0 on and never reads.
        stream.write_all(&[0, 0, 0, 2, 0x30, 0]).await.unwrap();
        let follower = group.follower(2, &[1]).await;
        let changes = |number: u64| {
            let value = Some("v".repeat(20_000));
            Command::AlterConfigs {
                resource: crate::command::Resource::AllBrokers,
                changes: vec![(format!("k{}", number % 4), value)],
            }
        };
        for number in 0..50 {
            follower.propose(changes(number)).await.unwrap();
        }
        group.agree_with(&[&follower]).await;
        group.sim.env.clock.sleep(Duration::from_secs(11)).await;
        assert!(stream.write_all(&[0]).await.is_err(), "its connection is closed");
    });
}

#[test]
fn a_follower_of_another_cluster_is_sent_away() {
    simulated(async {
        let group = Group::start(3, Limits::default()).await;
        let follower = group.follower(11, &[1, 2, 3]).await;
        let network = group.sim.env.network.clone();
        drop(group);
        let sim = base::env::sim::Sim::new(77);
        // Another cluster comes up where the first one was.
        let other = RaftStore::join(
            base::env::Env { network, ..sim.env.clone() },
            "/metadata".into(),
            BrokerId(1),
            super::group::quorum(1, 1),
        );
        let other = other.await.unwrap();
        sim.env.clock.sleep(Duration::from_secs(20)).await;
        assert_ne!(other.image().cluster_id, follower.image().cluster_id);
        assert_ne!(follower.image().cluster_id, Uuid([0; 16]));
        let said = follower.problem().expect("there is a problem");
        assert!(said.contains("this is cluster") || said.contains("refused"), "{said}");
        let refused = follower.propose(Command::RegisterBroker(registration(2))).await;
        assert!(matches!(refused, Err(ProposeError::Unavailable(_))), "{refused:?}");
    });
}

#[test]
fn a_command_after_a_long_time_is_applied() {
    simulated(async {
        let group = Group::start(3, Limits::default()).await;
        let follower = group.follower(11, &[1]).await;
        for idle_s in [0, 59, 61, 119, 121, 10_000] {
            group.sim.env.clock.sleep(Duration::from_secs(idle_s)).await;
            follower.propose(Command::RegisterBroker(registration(1))).await.unwrap();
            group.register_through_all().await;
        }
        group.agree_with(&[&follower]).await;
    });
}

#[test]
fn a_follower_with_the_id_of_a_voter_sees_nothing() {
    simulated(async {
        let group = Group::start(3, Limits::default()).await;
        let opened = FollowerStore::open(group.sim.env.clone(), BrokerId(2), vec![address(1)]);
        tokio::select! {
            _ = opened => panic!("it takes the place of a voter"),
            () = group.sim.env.clock.sleep(Duration::from_secs(30)) => {}
        }
        for nobody in [
            FollowerStore::open(group.sim.env.clone(), BrokerId(-1), vec![address(1)]).await,
            FollowerStore::open(group.sim.env.clone(), BrokerId(9), Vec::new()).await,
        ] {
            assert!(nobody.is_err());
        }
    });
}

/// Plays a controller towards a follower that knows a real one: says welcome, and returns what it wants next, an index
/// below 128.
async fn welcome(listener: &mut Box<dyn Listener>) -> (Box<dyn Stream>, u8) {
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(&[0; 4]).await.unwrap();
    // The hello, then a frame of two bytes.
    let mut asked = [0; 44 + 4 + 2];
    stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(asked[44..49], [0, 0, 0, 2, 0x30]);
    (stream, asked[49])
}

#[test]
fn an_image_without_bound_is_refused() {
    simulated(async {
        let mut group = Group::start(1, Limits::default()).await;
        let follower = group.follower(2, &[1]).await;
        group.stop(1).await;
        let mut listener = group.sim.env.network.listen(address(1).parse().unwrap()).await.unwrap();
        let (mut stream, _) = welcome(&mut listener).await;
        // An image that has one byte more than 1 GiB.
        stream.write_all(&[0, 0, 0, 8, 0x62, 6, 0x10, 0x81, 0x80, 0x80, 0x80, 0x04]).await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "it is closed");
        // It comes back for a better one.
        welcome(&mut listener).await;
        assert!(!follower.image().cluster_id.is_zero());
    });
}

#[test]
fn a_command_of_a_later_version_stops_a_follower_and_gaps_are_refused() {
    simulated(async {
        let mut group = Group::start(1, Limits::default()).await;
        let follower = group.follower(2, &[1]).await;
        let before = follower.image();
        group.stop(1).await;
        let mut listener = group.sim.env.network.listen(address(1).parse().unwrap()).await.unwrap();
        // Field 1000 of a command: a kind that is not known.
        let entry = |index: u8| [0, 0, 0, 11, 0x72, 9, 0x0a, 7, 0x08, index, 0x12, 3, 0xc2, 0x3e, 0];
        let (mut stream, next) = welcome(&mut listener).await;
        stream.write_all(&entry(next + 1)).await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "it is closed");
        let (mut stream, again) = welcome(&mut listener).await;
        assert_eq!(again, next);
        stream.write_all(&entry(next)).await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "it is closed");
        let said = follower.problem().expect("there is a problem");
        assert!(said.contains("cannot be read") && said.contains("start that version"), "{said}");
        let refused = follower.propose(Command::RegisterBroker(registration(2))).await;
        assert!(refused.is_err_and(|error| error.to_string().contains("start that version")));
        assert_eq!(*follower.image(), *before);
    });
}
