//! How fast it is with 10,000 topics or partitions. Bounds hold for release builds; all builds print.

use std::time::Duration;

use base::env::Env;
use base::ids::BrokerId;

use super::commands::{member, registration, topic};
use crate::command::{Command, CommandResult};
use crate::control::apply;
use crate::image::Image;
use crate::raft::RaftStore;
use crate::store::MetadataStore;

const COUNT: usize = 10_000;

fn within(what: &str, took: Duration, limit: Duration) {
    println!("{what}: {took:?}");
    assert!(cfg!(debug_assertions) || took < limit, "{what} took {took:?}, more than {limit:?}");
}

fn accepted(result: &CommandResult) -> bool {
    matches!(result, CommandResult::Items(items) if items.iter().all(Result::is_ok))
}

#[test]
fn ten_thousand_topics_one_by_one_and_ten_thousand_partitions_at_once() {
    let env = Env::os();
    let mut image = Image::default();
    apply(&mut image, Command::RegisterBroker(registration(1)));
    let begin = env.clock.now();
    for number in 0..COUNT {
        let new = topic(&format!("topic.with_both-{number}"), 1, member(1, 1));
        assert!(accepted(&apply(&mut image, Command::CreateTopics(vec![new]))));
    }
    within("10,000 topics one by one", env.clock.now() - begin, Duration::from_secs(2));
    let begin = env.clock.now();
    assert!(accepted(&apply(&mut image, Command::CreateTopics(vec![topic("wide", COUNT, member(1, 1))]))));
    within("one topic of 10,000 partitions", env.clock.now() - begin, Duration::from_secs(1));
    let begin = env.clock.now();
    assert_eq!(apply(&mut image, Command::ElectAll { leader: BrokerId(1) }), CommandResult::Count(2 * COUNT));
    within("an election of 20,000 partitions", env.clock.now() - begin, Duration::from_secs(1));
}

#[test]
fn opening_with_ten_thousand_partitions_is_fast() {
    let env = Env::os();
    let dir = std::env::temp_dir().join(format!("vltava-metadata-{}", env.random_uuid()));
    for (what, split) in [("from the log", COUNT), ("from a snapshot", 4)] {
        let dir = dir.join(what);
        // A runtime for each life: with it ends whatever a life has running.
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime().block_on(async {
            let store = RaftStore::open(env.clone(), dir.clone(), BrokerId(1)).await.unwrap();
            store.propose(Command::RegisterBroker(registration(1))).await.unwrap();
            let topics = (0..COUNT / split).map(|number| {
                store.propose(Command::CreateTopics(vec![topic(&format!("t.{number}"), split, member(1, 1))]))
            });
            for created in futures::future::join_all(topics.collect::<Vec<_>>()).await {
                assert!(accepted(&created.unwrap()));
            }
            if split < COUNT {
                for _ in 0..2_000 {
                    store.propose(Command::AllocateProducerIds { count: 1 }).await.unwrap();
                }
            }
            store.shutdown().await;
        });
        runtime().block_on(async {
            let begin = env.clock.now();
            let store = RaftStore::open(env.clone(), dir.clone(), BrokerId(1)).await.unwrap();
            within(
                &format!("opening 10,000 partitions {what}"),
                env.clock.now() - begin,
                Duration::from_secs(1),
            );
            assert_eq!(store.image().topics().map(|topic| topic.partitions.len()).sum::<usize>(), COUNT);
            assert_eq!(dir.join("snapshot").exists(), split < COUNT);
            store.shutdown().await;
        });
    }
    env.disk.remove_dir_all(&dir).unwrap();
}
