//! Signs of life: every voter hears them, the active controller tells.

use std::time::Duration;

use base::ids::{BrokerId, Incarnation};
use futures::FutureExt;

use super::group::{Group, address};
use super::simulated;
use crate::memory::MemoryStore;
use crate::raft::{FollowerStore, Limits, RaftStore};
use crate::sessions::Sessions;
use crate::store::{MetadataStore, ProposeError};

const LIFE: Incarnation = Incarnation(5);

impl Group {
    fn active(&self) -> Option<(i32, Sessions)> {
        let mut active = self.running().filter_map(|store| Some((store.leader()?.0, store.sessions()?)));
        let first = active.next();
        assert!(active.next().is_none(), "two are active");
        first
    }

    async fn sleep(&self, ms: u64) {
        self.sim.env.clock.sleep(Duration::from_millis(ms)).await;
    }

    /// Every node's own broker shows itself for so long, every 100 ms.
    async fn beat_for(&self, ms: u64, followers: &[(i32, &FollowerStore)]) {
        for _ in 0..ms / 100 {
            for node in 1..=self.voters {
                if let Some(store) = &self.stores[node as usize - 1] {
                    store.heartbeat(BrokerId(node), LIFE).await.unwrap();
                }
            }
            for (node, follower) in followers {
                follower.heartbeat(BrokerId(*node), LIFE).await.unwrap();
            }
            self.sleep(100).await;
        }
    }
}

#[test]
fn the_only_controller_is_active_and_hears() {
    simulated(async {
        let sim = base::env::sim::Sim::new(1);
        let memory = MemoryStore::new(sim.env.clone(), BrokerId(1));
        let raft = RaftStore::open(sim.env.clone(), "/metadata".into(), BrokerId(1)).await.unwrap();
        let stores: [&dyn MetadataStore; 2] = [&memory, &raft];
        for store in stores {
            assert_eq!(store.controller(), Some(BrokerId(1)));
            let before = store.sessions().unwrap();
            store.heartbeat(BrokerId(1), LIFE).await.unwrap();
            sim.env.clock.sleep(Duration::from_secs(9)).await;
            let sessions = store.sessions().unwrap();
            assert_eq!(sessions.active_for, before.active_for + Duration::from_secs(9));
            let heard = sessions.heard[&BrokerId(1)];
            assert_eq!((heard.incarnation, heard.ago.as_secs(), heard.hung_up), (LIFE, 9, false));
        }
        let nameless = MemoryStore::default();
        assert_eq!(nameless.controller(), None);
        nameless.heartbeat(BrokerId(1), LIFE).now_or_never().unwrap().unwrap();
        assert_eq!(nameless.sessions().unwrap().heard[&BrokerId(1)].ago, Duration::ZERO);
        let register = crate::command::Command::RegisterBroker(super::commands::registration(4));
        nameless.propose(register).await.unwrap();
        assert_eq!(nameless.controller(), Some(BrokerId(4)));
    });
}

#[test]
fn whoever_leads_has_heard_everybody_and_sees_at_once_who_is_gone() {
    simulated(async {
        let mut group = Group::start(3, Limits::default()).await;
        let followers = [11, 12].map(|node| {
            let controllers = (1..=3).map(address).collect();
            FollowerStore::open(group.sim.env.clone(), BrokerId(node), controllers)
        });
        let [one, two] = followers;
        let (one, two) = (one.await.unwrap(), two.await.unwrap());
        let lasting = [(11, &one)];
        group.beat_for(1_000, &[(11, &one), (12, &two)]).await;
        let (leader, sessions) = group.active().expect("one is active");
        assert_eq!(sessions.heard.len(), 5);
        let lives = |heard: &crate::sessions::Heard| {
            heard.incarnation == LIFE && heard.ago < Duration::from_millis(300) && !heard.hung_up
        };
        assert!(sessions.heard.values().all(lives), "{sessions:?}");
        assert!(sessions.active_for >= Duration::from_millis(1_000));

        // A follower and the controller go at once.
        drop(two);
        group.stop(leader).await;
        let gone = [BrokerId(12), BrokerId(leader)];
        let began = group.sim.env.clock.now();
        while group.active().is_none() {
            group.sleep(20).await;
        }
        let (next, sessions) = group.active().unwrap();
        assert_ne!(next, leader);
        assert!(sessions.active_for < Duration::from_secs(1));
        for (broker, heard) in &sessions.heard {
            assert_eq!(heard.hung_up, gone.contains(broker), "{broker}: {heard:?}");
        }
        assert_eq!(sessions.heard.len(), 5);
        let took = group.sim.env.clock.now() - began;
        assert!(took < Duration::from_secs(3), "{took:?}");

        // Who comes back is heard again.
        group.restart(leader).await;
        group.beat_for(1_000, &lasting).await;
        let heard = group.active().unwrap().1.heard;
        assert!(lives(&heard[&BrokerId(leader)]) && lives(&heard[&BrokerId(11)]), "{heard:?}");
        assert!(heard[&BrokerId(12)].hung_up);
    });
}

#[test]
fn a_voter_that_does_not_answer_delays_nobody() {
    simulated(async {
        let mut group = Group::start(3, Limits::default()).await;
        let deaf = 1 + group.leader() % 3;
        group.stop(deaf).await;
        // It accepts connections and is silent.
        let _listener = group.sim.env.network.listen(address(deaf).parse().unwrap()).await.unwrap();
        let began = group.sim.env.clock.now();
        group.beat_for(5_000, &[]).await;
        let took = group.sim.env.clock.now() - began;
        assert!(took < Duration::from_millis(5_500), "{took:?}");
        let heard = group.active().unwrap().1.heard;
        assert!(heard.values().filter(|heard| heard.ago < Duration::from_millis(300)).count() == 2);
    });
}

#[test]
fn a_controller_that_lost_its_majority_is_not_active() {
    simulated(async {
        let mut group = Group::start(3, Limits::default()).await;
        group.beat_for(500, &[]).await;
        let leader = group.leader();
        for node in (1..=3).filter(|node| *node != leader) {
            group.stop(node).await;
        }
        group.sleep(1_500).await;
        let alone = group.store(leader);
        assert_eq!(alone.sessions(), None);
        assert_eq!(alone.controller(), None);
        let refused = alone.heartbeat(BrokerId(leader), LIFE).await;
        assert!(matches!(refused, Err(ProposeError::Unavailable(_))), "{refused:?}");
        let other = 1 + leader % 3;
        group.restart(other).await;
        group.beat_for(1_000, &[]).await;
        let (_, sessions) = group.active().expect("one is active");
        assert!(sessions.active_for < Duration::from_secs(3), "{sessions:?}");
    });
}

#[test]
fn nobody_speaks_for_the_broker_of_another_node() {
    simulated(async {
        let group = Group::start(3, Limits::default()).await;
        let controllers = (1..=3).map(address).collect();
        let follower = FollowerStore::open(group.sim.env.clone(), BrokerId(11), controllers).await.unwrap();
        let refused = follower.heartbeat(BrokerId(1), LIFE).await;
        assert!(matches!(refused, Err(ProposeError::Unavailable(_))), "{refused:?}");
        assert!(group.active().unwrap().1.heard.is_empty());
    });
}
