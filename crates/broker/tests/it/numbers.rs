//! One `node.id`, one process: who comes second is refused while the first one lives, and who was replaced hears of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::config::{Assignment, BrokerConfig, UnknownKeys};
use base::error::ErrorCode;
use base::ids::BrokerId;
use base::metrics::Metrics;
use broker::{Broker, BrokerParts, StartError};
use metadata::{Command, CommandResult};
use replication::{Storage, StorageOptions};

use crate::members::Cluster;
use crate::support::run;

/// Starts another process with the number of node 2, and a log directory of its own.
async fn impostor(cluster: &Cluster) -> Result<Arc<Broker>, StartError> {
    let settings = ["node.id=2", "listeners=PLAINTEXT://127.0.0.1:9099"];
    let assignments: Vec<_> =
        settings.iter().map(|text| Assignment::from_argument(text).expect("key=value")).collect();
    let config = BrokerConfig::load(&assignments, UnknownKeys::Refuse).expect("good settings").config;
    let options = StorageOptions { sync_journal_bytes: 1 << 20, ..StorageOptions::default() };
    let storage = Storage::open(cluster.env.clone(), PathBuf::from("/log-of-another"), options).unwrap();
    let parts = BrokerParts {
        env: cluster.env.clone(),
        config: Arc::new(config),
        metadata: cluster.metadata.clone(),
        storages: vec![storage],
        metrics: Metrics::default(),
    };
    Broker::start(parts).await
}

#[test]
fn a_second_process_with_a_number_is_refused_while_the_first_lives() {
    run(async {
        let cluster = Cluster::new(21).await;
        let _first = cluster.start(1).await;
        let second = cluster.start(2).await;
        let life = || cluster.metadata.image().broker(BrokerId(2)).unwrap().incarnation;
        let before = life();
        let began = cluster.env.clock.now();
        match impostor(&cluster).await {
            Err(StartError::Refused { broker: BrokerId(2), reason, is_taken: true }) => {
                assert!(reason.contains("127.0.0.1:9092"), "{reason}");
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it takes the place of another process"),
        }
        assert!(cluster.env.clock.now() - began < Duration::from_secs(6));
        assert_eq!(life(), before);
        assert_eq!(cluster.create(2, "t").await, ErrorCode::None, "the first goes on");
        // The same node, restarted, has the same log directory, and is let in at once.
        let registration = cluster.metadata.image().broker(BrokerId(2)).unwrap().registration.clone();
        let again = cluster.metadata.propose(Command::RegisterBroker(registration)).await.unwrap();
        assert!(matches!(again, CommandResult::Registered(_)), "{again:?}");
        assert!(life() > before);
        // Once that life is gone, too, one with another disk takes its number.
        second.leave(&cluster.env).await;
        let taken_over = impostor(&cluster).await;
        assert!(taken_over.is_ok(), "{:?}", taken_over.err());
    });
}

#[test]
fn a_broker_that_was_replaced_hears_of_it_and_hands_nothing_over() {
    run(async {
        let cluster = Cluster::new(22).await;
        let _first = cluster.start(1).await;
        let second = cluster.start(2).await;
        let broker = second.broker.clone();
        let replaced = broker.replaced();
        tokio::pin!(replaced);
        tokio::select! {
            () = &mut replaced => panic!("nobody replaced it"),
            () = cluster.env.clock.sleep(Duration::from_secs(10)) => {}
        }
        let registration = cluster.metadata.image().broker(BrokerId(2)).unwrap().registration.clone();
        let later = cluster.metadata.propose(Command::RegisterBroker(registration)).await.unwrap();
        assert!(matches!(later, CommandResult::Registered(_)), "{later:?}");
        tokio::select! {
            () = &mut replaced => {}
            () = cluster.env.clock.sleep(Duration::from_secs(1)) => panic!("it does not hear of it"),
        }
        let began = cluster.env.clock.now();
        second.leave(&cluster.env).await;
        assert!(cluster.env.clock.now() - began < Duration::from_secs(1));
        assert!(!cluster.metadata.image().broker(BrokerId(2)).unwrap().draining, "the later life goes on");
    });
}
