//! What has to be known before a partition can be fetched: its leader, and the offset where to begin.

use base::ids::{BrokerId, Offset};

use super::{Isolation, Start};
use crate::admin::{ListedOffset, OffsetAt};
use crate::{Client, ClientError, PartitionName, Result};

/// One step towards the first fetch of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The client knows the leader now.
    Leader,
    /// Where to begin.
    Offset(Offset),
}

/// What came of a look-up: partitions, where each was to begin when it was asked for, and the step.
pub(super) type LookedUp = Vec<(PartitionName, Start, Result<Found>)>;

/// Learns who leads these partitions.
pub(super) async fn find_leaders(client: Client, wanted: Vec<(PartitionName, Start)>) -> LookedUp {
    let partitions: Vec<_> = wanted.iter().map(|(partition, _)| partition.clone()).collect();
    let found = client.find_leaders(&partitions).await;
    let found = found.into_iter().map(|leader| leader.map(|_| Found::Leader));
    wanted.into_iter().zip(found).map(|((partition, start), found)| (partition, start, found)).collect()
}

/// Learns from one leader where reading of these partitions begins.
pub(super) async fn find_offsets(
    client: Client,
    leader: BrokerId,
    wanted: Vec<(PartitionName, Start)>,
    isolation: Isolation,
) -> LookedUp {
    let first = ask(&client, leader, &wanted, isolation, |start| match start {
        Start::Beginning => OffsetAt::Earliest,
        Start::Time(timestamp) => OffsetAt::Time(timestamp),
        // That of an offset is not asked for.
        Start::End | Start::BeforeEnd(_) | Start::Offset(_) => OffsetAt::Latest,
    });
    let first = first.await;
    // Before the end, but not before the beginning; at the end, when no record is so late.
    let ask_again = |(_, start): &(PartitionName, Start), listed: &Result<ListedOffset>| match (start, listed)
    {
        (Start::BeforeEnd(_), Ok(_)) => true,
        (Start::Time(_), Ok(listed)) => listed.offset.is_none(),
        _ => false,
    };
    let pairs = wanted.iter().zip(&first);
    let again: Vec<_> =
        pairs.filter(|(wanted, listed)| ask_again(wanted, listed)).map(|(w, _)| w.clone()).collect();
    let second = ask(&client, leader, &again, isolation, |start| match start {
        Start::BeforeEnd(_) => OffsetAt::Earliest,
        _ => OffsetAt::Latest,
    });
    let mut second = second.await.into_iter();
    let steps = wanted.into_iter().zip(first).map(|(wanted, listed)| {
        let second = if ask_again(&wanted, &listed) { second.next() } else { None };
        let (partition, start) = wanted;
        let found = settle(&partition, start, listed, second).map(Found::Offset);
        (partition, start, found)
    });
    steps.collect()
}

async fn ask(
    client: &Client,
    leader: BrokerId,
    wanted: &[(PartitionName, Start)],
    isolation: Isolation,
    at: impl Fn(Start) -> OffsetAt,
) -> Vec<Result<ListedOffset>> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let wanted: Vec<_> = wanted.iter().map(|(partition, start)| (partition.clone(), at(*start))).collect();
    match client.list_offsets_at(leader, &wanted, isolation).await {
        Ok(listed) => listed,
        Err(error) => wanted.iter().map(|_| Err(error.clone())).collect(),
    }
}

/// Where to begin, from the answers to the first and, where there was one, the second question.
fn settle(
    partition: &PartitionName,
    start: Start,
    first: Result<ListedOffset>,
    second: Option<Result<ListedOffset>>,
) -> Result<Offset> {
    let (first, second) = (first?.offset, second.transpose()?.and_then(|listed| listed.offset));
    let offset = match (start, first) {
        (Start::BeforeEnd(count), Some(end)) => {
            Some(end.saturating_sub_unsigned(count).max(second.unwrap_or(0)))
        }
        (Start::Time(_), None) => second,
        (_, offset) => offset,
    };
    offset.ok_or_else(|| ClientError::Missing { subject: format!("an offset of {partition}") })
}
