//! Several voters: they agree, go on while most of them run, and take in who comes back.

use std::path::PathBuf;

use base::env::sim::Sim;
use base::ids::BrokerId;
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::commands::registration;
use super::simulated;
use crate::command::{Command, CommandResult};
use crate::raft::{Limits, Quorum, RaftStore};
use crate::store::{MetadataStore, ProposeError};

pub(super) fn address(node: i32) -> String {
    format!("127.0.0.1:{}", 9_090 + node)
}

pub(super) fn quorum(node: i32, voters: i32) -> Quorum {
    Quorum {
        listen: address(node).parse().expect("an address"),
        voters: (1..=voters).map(|id| (BrokerId(id), address(id))).collect(),
    }
}

/// All voters are on one simulated machine, each with a directory of its own.
pub(super) struct Group {
    pub(super) sim: Sim,
    pub(super) voters: i32,
    limits: Limits,
    pub(super) stores: Vec<Option<RaftStore>>,
}

impl Group {
    pub(super) async fn start(voters: i32, limits: Limits) -> Group {
        Group::seeded(1, voters, limits).await
    }

    pub(super) async fn seeded(seed: u64, voters: i32, limits: Limits) -> Group {
        let mut group = Group { sim: Sim::new(seed), voters, limits, stores: Vec::new() };
        let stores = join_all((1..=voters).map(|node| group.open(node))).await;
        group.stores = stores.into_iter().map(Some).collect();
        group
    }

    pub(super) async fn open(&self, node: i32) -> RaftStore {
        let dir = PathBuf::from(format!("/metadata-{node}"));
        let quorum = quorum(node, self.voters);
        let opened =
            RaftStore::open_with(self.sim.env.clone(), dir, BrokerId(node), self.limits, Some(quorum));
        opened.await.expect("a store")
    }

    pub(super) async fn restart(&mut self, node: i32) {
        let store = self.open(node).await;
        self.stores[node as usize - 1] = Some(store);
    }

    pub(super) async fn stop(&mut self, node: i32) {
        let store = self.stores[node as usize - 1].take().expect("it runs");
        store.shutdown().await;
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &RaftStore> {
        self.stores.iter().flatten()
    }

    pub(super) fn store(&self, node: i32) -> &RaftStore {
        self.stores[node as usize - 1].as_ref().expect("it runs")
    }

    pub(super) fn leader(&self) -> i32 {
        self.running().find_map(RaftStore::leader).expect("somebody leads").0
    }

    /// Registers a broker through each node that runs.
    pub(super) async fn register_through_all(&self) {
        for store in self.running() {
            let result = store.propose(Command::RegisterBroker(registration(1))).await.unwrap();
            let CommandResult::Registered(incarnation) = result else { panic!("{result:?}") };
            let broker = store.image().broker(BrokerId(1)).cloned().expect("what was answered shows");
            assert!(broker.incarnation >= incarnation);
        }
    }

    /// Waits until all that run show the newest image, which is the same for all.
    pub(super) async fn agree(&self) {
        let newest = self.running().map(|store| store.image().version).max().expect("one runs");
        for store in self.running() {
            drop(store.subscribe().wait_for(|image| image.version >= newest).await.expect("the store runs"));
        }
        let images: Vec<_> = self.running().map(RaftStore::image).collect();
        assert!(images.windows(2).all(|pair| pair[0] == pair[1]), "they do not agree");
    }
}

#[test]
fn commands_through_any_voter_are_applied_once_and_seen_by_all() {
    simulated(async {
        for voters in [3, 5] {
            let group = Group::start(voters, Limits::default()).await;
            group.register_through_all().await;
            group.agree().await;
            let image = group.store(1).image();
            assert!(!image.cluster_id.is_zero());
            assert_eq!(image.broker(BrokerId(1)).unwrap().incarnation.0, i64::from(voters));
        }
    });
}

#[test]
fn the_others_go_on_without_the_leader_and_it_catches_up() {
    simulated(async {
        let mut group = Group::start(3, Limits::default()).await;
        for _ in 0..3 {
            let leader = group.leader();
            group.stop(leader).await;
            group.register_through_all().await;
            group.agree().await;
            group.restart(leader).await;
            group.register_through_all().await;
            group.agree().await;
        }
        assert_eq!(group.store(1).image().broker(BrokerId(1)).unwrap().incarnation.0, 3 * (2 + 3));
    });
}

#[test]
fn a_minority_applies_nothing_and_says_so() {
    simulated(async {
        let mut group = Group::start(3, Limits::default()).await;
        group.register_through_all().await;
        let leader = group.leader();
        let others: Vec<i32> = (1..=3).filter(|node| *node != leader).collect();
        for node in &others {
            group.stop(*node).await;
        }
        let alone = group.store(leader);
        let refused = alone.propose(Command::RegisterBroker(registration(2))).await;
        let Err(ProposeError::Unavailable(said)) = refused else { panic!("{refused:?}") };
        assert!(said.contains("majority"), "{said}");
        let said = alone.problem().expect("there is a problem");
        assert!(said.contains("no controller leads"), "{said}");
        assert!(alone.image().broker(BrokerId(2)).is_none());
        group.restart(others[0]).await;
        group.register_through_all().await;
        group.agree().await;
        assert!(group.running().all(|store| store.problem().is_none()));
    });
}

#[test]
fn who_was_away_for_long_gets_a_snapshot() {
    simulated(async {
        let limits = Limits { snapshot_entries: 20, ..Limits::default() };
        let mut group = Group::start(3, limits).await;
        let away = 1 + group.leader() % 3;
        group.stop(away).await;
        for _ in 0..100 {
            group.register_through_all().await;
        }
        group.restart(away).await;
        group.agree().await;
        group.register_through_all().await;
        group.agree().await;
    });
}

#[test]
fn strangers_hear_why_and_are_cut_off() {
    simulated(async {
        let group = Group::start(3, Limits::default()).await;
        let cluster = group.store(1).image().cluster_id;
        let hello_of = |magic: &[u8; 8], format: u32, cluster: [u8; 16], from: u64, to: u64| {
            let numbers = [from.to_be_bytes(), to.to_be_bytes()].concat();
            [&magic[..], &format.to_be_bytes(), &cluster, &numbers].concat()
        };
        let hello = |magic, format, cluster, to| hello_of(magic, format, cluster, 2, to);
        for (hello, why) in [
            (hello(b"GET / HT", 1, cluster.0, 1), "clients connect to brokers"),
            (hello(b"VltavaCq", 9, cluster.0, 1), "speak format 1, not 9"),
            (hello(b"VltavaCq", 1, [9; 16], 1), "this is cluster"),
            (hello(b"VltavaCq", 1, cluster.0, 3), "this is node 1, not 3"),
        ] {
            let mut stream = group.sim.env.network.connect(&address(1)).await.unwrap();
            stream.write_all(&hello).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            let said = String::from_utf8_lossy(&answer[4..]).into_owned();
            assert!(said.contains(why), "{said}");
        }
        // Who is no voter says hello, and is refused what is a matter of voters.
        let mut stream = group.sim.env.network.connect(&address(1)).await.unwrap();
        stream.write_all(&hello_of(b"VltavaCq", 1, cluster.0, 9, 1)).await.unwrap();
        assert_eq!(stream.read_u32().await.unwrap(), 0, "welcome");
        // A request for a vote: a record in field 2.
        stream.write_all(&[0, 0, 0, 4, 0x12, 2, 0x0a, 0]).await.unwrap();
        let mut answer = vec![0; stream.read_u32().await.unwrap() as usize];
        stream.read_exact(&mut answer).await.unwrap();
        let said = String::from_utf8_lossy(&answer).into_owned();
        assert!(said.contains("node 9 is no voter"), "{said}");
        // A frame that says to be longer than any may be.
        let mut stream = group.sim.env.network.connect(&address(1)).await.unwrap();
        stream.write_all(&hello(b"VltavaCq", 1, cluster.0, 1)).await.unwrap();
        assert_eq!(stream.read_u32().await.unwrap(), 0, "welcome");
        stream.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "it is closed");
        group.register_through_all().await;
    });
}
