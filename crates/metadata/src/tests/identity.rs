//! A directory belongs to one node and to the voters its log began with.

use std::path::{Path, PathBuf};

use base::env::sim::Sim;
use base::ids::BrokerId;
use futures::future::join_all;

use super::group::{Group, address, quorum};
use super::simulated;
use crate::raft::{Limits, MetadataOpenError, Quorum, RaftStore};
use crate::store::MetadataStore;

const DIR: &str = "/metadata";

async fn refusal(opened: impl Future<Output = Result<RaftStore, MetadataOpenError>>) -> String {
    opened.await.err().expect("it is refused").to_string()
}

#[test]
fn the_directory_of_another_node_is_refused() {
    simulated(async {
        let mut group = Group::start(3, Limits::default()).await;
        for node in 1..=3 {
            group.stop(node).await;
        }
        let env = &group.sim.env;
        let said =
            refusal(RaftStore::join(env.clone(), "/metadata-1".into(), BrokerId(2), quorum(2, 3))).await;
        for part in ["/metadata-1", "belongs to node.id 1, not 2", "set node.id=1"] {
            assert!(said.contains(part), "{said}");
        }
    });
}

#[test]
fn other_voters_are_refused() {
    simulated(async {
        let mut group = Group::start(3, Limits { snapshot_entries: 10, ..Limits::default() }).await;
        for _ in 0..10 {
            group.register_through_all().await;
        }
        for node in 1..=3 {
            group.stop(node).await;
        }
        let (env, dir) = (&group.sim.env, PathBuf::from("/metadata-1"));
        for voters in [1, 2, 5] {
            let said =
                refusal(RaftStore::join(env.clone(), dir.clone(), BrokerId(1), quorum(1, voters))).await;
            let asked: Vec<String> = (1..=voters).map(|id| id.to_string()).collect();
            let found = format!("that of the controllers 1,2,3, not {}", asked.join(","));
            assert!(said.contains(&found) && said.contains("controller.quorum.voters"), "{said}");
        }
        let said = refusal(RaftStore::open(env.clone(), dir, BrokerId(1))).await;
        assert!(said.contains("controllers 1,2,3, not 1"), "{said}");
        for node in [1, 2] {
            assert!(env.disk.exists(&PathBuf::from(format!("/metadata-{node}")).join("identity")));
        }
        let (one, two) = tokio::join!(group.open(1), group.open(2));
        assert!(one.leader().is_some() && two.leader().is_some());
    });
}

#[test]
fn a_single_voter_does_not_become_one_of_many_by_configuration() {
    simulated(async {
        let sim = Sim::new(1);
        let store = RaftStore::open(sim.env.clone(), DIR.into(), BrokerId(1)).await.unwrap();
        store.shutdown().await;
        let said = refusal(RaftStore::join(sim.env.clone(), DIR.into(), BrokerId(1), quorum(1, 3))).await;
        assert!(said.contains("controllers 1, not 1,2,3"), "{said}");
    });
}

#[test]
fn a_directory_without_the_file_opens_and_gets_it() {
    simulated(async {
        let sim = Sim::new(1);
        let open = |node| RaftStore::open(sim.env.clone(), DIR.into(), BrokerId(node));
        let store = open(1).await.unwrap();
        store.shutdown().await;
        let file = Path::new(DIR).join("identity");
        sim.env.disk.remove_file(&file).unwrap();
        let said = refusal(open(2)).await;
        assert!(said.contains("belongs to node.id 1, not 2"), "{said}");
        assert!(!sim.env.disk.exists(&file), "nothing was changed");
        let again = open(1).await.unwrap();
        assert_eq!(*again.image(), *store.image());
        assert!(sim.env.disk.exists(&file));
        again.shutdown().await;
        sim.env.disk.replace(&file, b"not what was written").unwrap();
        let said = refusal(open(1)).await;
        assert!(said.contains("identity is damaged"), "{said}");
    });
}

#[test]
fn addresses_may_change() {
    simulated(async {
        let mut group = Group::start(3, Limits::default()).await;
        group.register_through_all().await;
        group.agree().await;
        for node in 1..=3 {
            group.stop(node).await;
        }
        // All moved to other ports; the old ones belong to somebody who says nothing.
        let mut old = Vec::new();
        for node in 1..=3 {
            old.push(group.sim.env.network.listen(address(node).parse().unwrap()).await.unwrap());
        }
        let moved = |node: i32| Quorum {
            listen: address(100 + node).parse().unwrap(),
            voters: (1..=3).map(|id| (BrokerId(id), address(100 + id))).collect(),
        };
        let stores = join_all((1..=3).map(|node| {
            let dir = PathBuf::from(format!("/metadata-{node}"));
            RaftStore::join(group.sim.env.clone(), dir, BrokerId(node), moved(node))
        }))
        .await;
        group.stores = stores.into_iter().map(|store| Some(store.unwrap())).collect();
        group.register_through_all().await;
        group.agree().await;
        assert_eq!(group.store(2).image().broker(BrokerId(1)).unwrap().incarnation.0, 6);
    });
}
