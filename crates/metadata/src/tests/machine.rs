//! The state machine under seeded random commands: equal, restorable, never broken.

use base::chain::PartitionState;
use base::env::sim::SimRandom;
use base::ids::{BrokerId, LeaderEpoch, PartitionId, TopicPartition};

use super::commands::{Draw, member, registration, topic};
use crate::command::{ChainEdit, Command, CommandResult, Registration, Resource};
use crate::control::apply;
use crate::image::Image;
use crate::record::{decode_command, decode_image, encode_command, encode_image};

const SEEDS: u64 = 60;
const COMMANDS: usize = 400;

fn check(image: &Image) {
    assert_eq!(image.names.len(), image.topics.len());
    for topic in image.topics() {
        assert_eq!(image.topic(&topic.name).map(|found| found.id), Some(topic.id));
        topic.partitions.iter().for_each(|partition| check_chain(partition, image));
    }
}

/// The invariants at the head of `base::chain`.
fn check_chain(state: &PartitionState, image: &Image) {
    let (last, sealed) = state.chain.split_last().expect("a chain is never empty");
    assert!(last.is_open() && sealed.iter().all(|entry| !entry.is_open()), "{state:?}");
    for pair in state.chain.windows(2) {
        assert_eq!(pair[0].end(), Some(pair[1].base), "{state:?}");
        assert!(pair[0].last_epoch() <= pair[1].last_epoch(), "{state:?}");
        assert!(pair[0].end() > Some(pair[0].base), "an empty segment stayed: {state:?}");
    }
    let mut names: Vec<_> = state.chain.iter().map(|entry| (entry.id, entry.generation)).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), state.chain.len(), "a name twice: {state:?}");
    assert!(state.chain.iter().all(|entry| entry.id.0 <= image.next_segment_id));
    assert!(state.log_start >= state.chain[0].base && last.last_epoch() <= state.leader_epoch, "{state:?}");
}

#[test]
fn equal_commands_make_equal_images_and_a_snapshot_with_its_tail_makes_the_same() {
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..SEEDS {
        let draw = Draw(SimRandom::new(seed));
        let (mut first, mut second, mut restored) = (Image::default(), Image::default(), Image::default());
        let restore_at = draw.0.below(COMMANDS as u64) as usize;
        for number in 0..COMMANDS {
            let command = draw.command(&first);
            let stored = decode_command(&encode_command(&command)).expect("an encoded command can be read");
            assert_eq!(stored, command);
            if number == restore_at {
                restored = decode_image(&encode_image(&first)).expect("an encoded image can be read");
            }
            let result = apply(&mut first, command);
            assert_eq!(result, apply(&mut second, stored.clone()));
            if number >= restore_at {
                assert_eq!(result, apply(&mut restored, stored));
            }
            if let CommandResult::Chains(edits) = &result {
                accepted += edits.iter().filter(|edit| edit.is_ok()).count();
                refused += edits.iter().filter(|edit| edit.is_err()).count();
            }
            check(&first);
        }
        assert_eq!(first, restored, "seed {seed}");
        assert_eq!(encode_image(&first), encode_image(&second));
        assert_eq!(encode_image(&first), encode_image(&restored));
    }
    assert!(accepted > 1_000 && refused > 500, "the commands try too little: {accepted} and {refused}");
}

#[test]
fn a_refused_item_changes_nothing() {
    for seed in 0..SEEDS {
        let draw = Draw(SimRandom::new(seed + 1_000));
        let mut image = Image::default();
        for _ in 0..COMMANDS {
            let command = draw.command(&image);
            let before = image.clone();
            let refused = match apply(&mut image, command.clone()) {
                CommandResult::Items(items) => items.iter().all(Result::is_err),
                CommandResult::Chains(edits) => edits.iter().all(Result::is_err),
                _ => false,
            };
            if refused {
                let expected = Image { version: before.version + 1, ..before };
                assert_eq!(image, expected, "seed {seed}: {command:?}");
            }
        }
    }
}

#[test]
fn an_edit_that_is_repeated_at_once_is_answered_the_same_and_changes_nothing() {
    let mut repeated = 0;
    for seed in 0..SEEDS {
        let draw = Draw(SimRandom::new(seed + 2_000));
        let mut image = Image::default();
        for _ in 0..COMMANDS {
            let command = draw.command(&image);
            let result = apply(&mut image, command.clone());
            let single = matches!(&command, Command::Edit(edits) if edits.len() == 1);
            if single && matches!(&result, CommandResult::Chains(edits) if edits[0].is_ok()) {
                let before = image.clone();
                assert_eq!(apply(&mut image, command.clone()), result, "seed {seed}: {command:?}");
                assert_eq!(image, Image { version: before.version + 1, ..before });
                repeated += 1;
            }
        }
    }
    assert!(repeated > 300, "{repeated}");
}

#[test]
fn records_need_as_many_copies_as_their_leader_counts() {
    let mut image = Image::default();
    for broker in [1, 2] {
        let registration = Registration { min_insync_replicas: Some(broker + 1), ..registration(broker) };
        apply(&mut image, Command::RegisterBroker(registration));
    }
    let topic = topic("t", 1, member(1, 1));
    let id = TopicPartition { topic_id: topic.id, partition: PartitionId(0) };
    apply(&mut image, Command::CreateTopics(vec![topic]));
    assert_eq!((image.copies_min(&id, 5), image.copies_min(&id, 1)), (2, 1));
    let epoch = LeaderEpoch(1);
    let edit = ChainEdit::Elect { partition: id, leader: BrokerId(2), epoch };
    apply(&mut image, Command::Edit(vec![edit]));
    assert_eq!(image.copies_min(&id, 5), 3);
    let set = |resource, value: i32| {
        let changes = vec![("min.insync.replicas".to_owned(), Some(value.to_string()))];
        Command::AlterConfigs { resource, changes }
    };
    // What is more particular counts, whatever came first.
    for (resource, value) in
        [(Resource::AllBrokers, 4), (Resource::Broker(BrokerId(2)), 1), (Resource::Topic("t".to_owned()), 5)]
    {
        apply(&mut image, set(resource, value));
        assert_eq!(image.copies_min(&id, 5), value as usize);
    }
    apply(&mut image, set(Resource::Broker(BrokerId(1)), 2));
    assert_eq!(image.copies_min(&id, 5), 5);
}
