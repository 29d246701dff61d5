//! Consumers in groups: sharing, taking over, committing, over restarts of the broker too.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use base::error::ErrorCode;
use client::{Client, GroupConfig, GroupConsumer, PartitionName};

use crate::{Machine, SECOND, with_broker};

/// A member of group `g` that reads topic `a` and is quick to notice.
fn member(client: &Client) -> GroupConsumer {
    let config = GroupConfig {
        session_timeout: 10 * SECOND,
        rebalance_timeout: 5 * SECOND,
        heartbeat_interval: SECOND,
        ..GroupConfig::new("g", ["a"])
    };
    GroupConsumer::new(client, config)
}

/// Reads until everything is read; counts records by partition and value.
async fn read_all(member: &mut GroupConsumer) -> usize {
    let mut seen = BTreeSet::new();
    loop {
        for record in member.poll(SECOND).await.unwrap() {
            assert!(seen.insert((record.partition, record.offset)), "{record:?} came twice");
        }
        if member.caught_up() {
            return seen.len();
        }
    }
}

fn owned(member: &GroupConsumer) -> BTreeSet<PartitionName> {
    member.assignment().cloned().collect()
}

#[test]
fn a_member_reads_all_and_the_next_goes_on_where_it_left() {
    with_broker(async |machine| {
        machine.topic("a", 3, 20).await;
        let mut first = member(&machine.client);
        assert_eq!(read_all(&mut first).await, 60);
        first.leave().await.unwrap();
        machine.fill("a", 3, 5).await;
        let mut second = member(&machine.client);
        assert_eq!(read_all(&mut second).await, 15);
        let group = machine.client.describe_group("g").await.unwrap();
        assert_eq!(
            (group.state.as_str(), group.assignor.as_str(), group.members.len()),
            ("Stable", "range", 1)
        );
        assert_eq!(group.members[0].partitions.len(), 3);
    });
}

#[test]
fn two_members_share_and_one_takes_over() {
    with_broker(async |machine| {
        let all: BTreeSet<_> = machine.topic("a", 4, 10).await.into_iter().collect();
        let mut first = member(&machine.client);
        read_all(&mut first).await;
        assert_eq!(owned(&first), all);
        let mut second = member(&machine.client);
        let shared = |first: &GroupConsumer, second: &GroupConsumer| {
            let (first, second) = (owned(first), owned(second));
            first.len() == 2
                && second.len() == 2
                && first.union(&second).cloned().collect::<BTreeSet<_>>() == all
        };
        while !shared(&first, &second) {
            // The one that is in already must hear of the other while that one waits to be let in.
            let (a, b) = tokio::join!(first.poll(4 * SECOND), second.poll(SECOND));
            assert!(a.unwrap().is_empty() && b.unwrap().is_empty(), "what was read stays read");
        }
        machine.fill("a", 4, 3).await;
        let (a, b) = tokio::join!(read_all(&mut first), read_all(&mut second));
        assert_eq!((a, b), (6, 6));
        second.leave().await.unwrap();
        while owned(&first) != all {
            assert!(first.poll(SECOND).await.unwrap().is_empty());
        }
        // One that dies without a word is missed after its session timeout.
        let mut third = member(&machine.client);
        while owned(&third).len() != 2 {
            let (a, b) = tokio::join!(first.poll(4 * SECOND), third.poll(SECOND));
            assert!(a.unwrap().is_empty() && b.unwrap().is_empty());
        }
        drop(third);
        let before = machine.world.sim.env.clock.now();
        while owned(&first) != all {
            first.poll(SECOND).await.unwrap();
        }
        let took = machine.world.sim.env.clock.now() - before;
        assert!(took > 5 * SECOND && took < 30 * SECOND, "{took:?}");
    });
}

#[test]
fn a_group_lives_on_over_a_restart_of_the_broker() {
    with_broker(async |machine| {
        machine.topic("a", 2, 10).await;
        let mut reader = member(&machine.client);
        read_all(&mut reader).await;
        reader.commit().await.unwrap();
        let Machine { world, life, client } = machine;
        life.stop(&world).await.unwrap();
        let life = world.start().await.unwrap();
        let machine = Machine { world, life, client };
        machine.fill("a", 2, 5).await;
        assert_eq!(read_all(&mut reader).await, 10);
        reader.leave().await.unwrap();
        let committed = machine.client.committed_offsets("g", None).await.unwrap();
        let offsets: Vec<_> = committed.values().map(|committed| committed.offset).collect();
        assert_eq!(offsets, [15, 15]);
        machine.life.stop(&machine.world).await.unwrap();
    });
}

#[test]
fn offsets_are_set_while_nobody_reads_and_groups_deleted() {
    with_broker(async |machine| {
        let partitions = machine.topic("a", 2, 10).await;
        let client = &machine.client;
        let mut reader = member(client);
        read_all(&mut reader).await;
        let busy = client.delete_group("g").await.unwrap_err();
        assert_eq!(busy.code(), Some(ErrorCode::NonEmptyGroup));
        let offsets = BTreeMap::from([(partitions[0].clone(), 3), (partitions[1].clone(), 8)]);
        let refused = client.commit_offsets("g", &offsets).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::UnknownMemberId));
        reader.leave().await.unwrap();
        client.commit_offsets("g", &offsets).await.unwrap();
        client.delete_offsets("g", &partitions[1..]).await.unwrap();
        let committed = client.committed_offsets("g", None).await.unwrap();
        assert_eq!(committed.len(), 1);
        assert_eq!(committed[&partitions[0]].offset, 3);
        let mut again = member(client);
        assert_eq!(read_all(&mut again).await, 7 + 10);
        again.leave().await.unwrap();
        assert_eq!(client.list_groups().await.unwrap()[0].state, "Empty");
        client.delete_group("g").await.unwrap();
        let missing = client.describe_group("g").await.unwrap_err();
        assert_eq!(missing.code(), Some(ErrorCode::GroupIdNotFound));
        assert!(client.list_groups().await.unwrap().is_empty());
    });
}
