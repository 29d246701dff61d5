//! Nodes that find the controllers at the port of a broker.

use std::sync::Arc;
use std::time::Duration;

use base::env::Env;
use base::env::sim::Sim;
use base::ids::{BrokerId, Incarnation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::commands::registration;
use super::group::Group;
use super::simulated;
use crate::command::{Command, CommandResult};
use crate::memory::MemoryStore;
use crate::raft::{FollowerStore, Limits, NODE_MAGIC, RaftStore, allocate_node_id};
use crate::store::MetadataStore;

/// Has a store answer nodes at an address, as a broker does at its clients' port.
async fn serve(env: &Env, port: u16, store: Arc<dyn MetadataStore>) -> String {
    let address = format!("127.0.0.1:{port}");
    let mut listener = env.network.listen(address.parse().unwrap()).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut magic = [0; NODE_MAGIC.len()];
            stream.read_exact(&mut magic).await.unwrap();
            assert_eq!(magic, NODE_MAGIC);
            tokio::spawn(store.serve_node(stream));
        }
    });
    address
}

#[test]
fn nodes_join_a_single_controller_at_the_port_of_any_broker() {
    simulated(async {
        let sim = Sim::new(5);
        let opened = RaftStore::open(sim.env.clone(), "/metadata".into(), BrokerId(1)).await.unwrap();
        let alone: Arc<dyn MetadataStore> = Arc::new(opened);
        let at_controller = serve(&sim.env, 9_101, alone.clone()).await;
        let follow = async |node, address: &String| {
            FollowerStore::open(sim.env.clone(), BrokerId(node), vec![address.clone()]).await.unwrap()
        };
        let second = Arc::new(follow(2, &at_controller).await);
        second.propose(Command::RegisterBroker(registration(2))).await.unwrap();
        assert!(alone.image().broker(BrokerId(2)).is_some());
        second.heartbeat(BrokerId(2), Incarnation(1)).await.unwrap();
        assert_eq!(alone.sessions().unwrap().heard[&BrokerId(2)].incarnation, Incarnation(1));
        // The second is no controller, and tells of the one it follows.
        let at_second = serve(&sim.env, 9_102, second.clone()).await;
        let id = async || allocate_node_id(sim.env.clone(), vec![at_second.clone()]).await.unwrap();
        assert_eq!((id().await, id().await), (BrokerId(3), BrokerId(4)));
        let third = follow(3, &at_second).await;
        third.propose(Command::RegisterBroker(registration(3))).await.unwrap();
        third.heartbeat(BrokerId(3), Incarnation(2)).await.unwrap();
        assert!(alone.sessions().unwrap().heard.contains_key(&BrokerId(3)));
        // Entries come as they are applied, whoever proposes.
        alone.propose(Command::RegisterBroker(registration(1))).await.unwrap();
        for store in [&*second as &dyn MetadataStore, &third] {
            let mut images = store.subscribe();
            let arrived = images.wait_for(|image| **image == *alone.image());
            tokio::select! {
                _ = arrived => {}
                () = sim.env.clock.sleep(Duration::from_secs(5)) => panic!("the images differ"),
            }
        }
        alone.shutdown().await;
    });
}

/// What a node is told that says hello in the name of another and asks for a vote; or why it is turned away.
async fn vote_in_the_name_of(env: &Env, address: &str, node: u64) -> String {
    let mut stream = env.network.connect(address).await.unwrap();
    let numbers = [node.to_be_bytes(), u64::MAX.to_be_bytes()].concat();
    stream.write_all(&[&NODE_MAGIC[..], &[0, 0, 0, 1], &[0; 16], &numbers].concat()).await.unwrap();
    let mut answer = async || {
        let mut frame = vec![0; stream.read_u32().await.unwrap() as usize];
        stream.read_exact(&mut frame).await.unwrap();
        if frame.is_empty() {
            // A request for a vote: a record in field 2.
            stream.write_all(&[0, 0, 0, 4, 0x12, 2, 0x0a, 0]).await.unwrap();
        }
        String::from_utf8_lossy(&frame).into_owned()
    };
    match answer().await {
        welcome if welcome.is_empty() => answer().await,
        refusal => refusal,
    }
}

#[test]
fn the_port_of_a_broker_is_not_for_matters_of_voters() {
    simulated(async {
        let sim = Sim::new(6);
        let opened = RaftStore::open(sim.env.clone(), "/metadata".into(), BrokerId(1)).await.unwrap();
        let alone = serve(&sim.env, 9_101, Arc::new(opened)).await;
        for node in [1, 9] {
            let said = vote_in_the_name_of(&sim.env, &alone, node).await;
            assert!(said.contains("is no voter"), "{said}");
        }
        let memory = serve(&sim.env, 9_102, Arc::new(MemoryStore::default())).await;
        let said = vote_in_the_name_of(&sim.env, &memory, 9).await;
        assert!(said.contains("metadata in memory"), "{said}");
    });
}

#[test]
fn any_node_tells_how_far_the_logs_of_all_controllers_go() {
    simulated(async {
        let group = Group::start(3, Limits::default()).await;
        let follower = group.follower(11, &[1]).await;
        let result = follower.propose(Command::RegisterBroker(registration(11))).await.unwrap();
        assert!(matches!(result, CommandResult::Registered(_)), "{result:?}");
        let stores = group.running().map(|store| store as &dyn MetadataStore).chain([&follower as _]);
        for store in stores {
            let quorum = store.ask_quorum().await;
            assert_eq!(quorum.leader, Some(BrokerId(group.leader())));
            assert!(quorum.term.is_some_and(|term| term > 0));
            assert!(quorum.voters.len() == 3 && quorum.voters.iter().all(|voter| voter.log_end > Some(0)));
        }
    });
}
