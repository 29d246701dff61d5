//! DescribeLogDirs (35), versions 1 to 5: this broker's log directories, and what they hold of partitions (KIP-113).
//!
//! Sizes are those of sealed segments, and of the open ones of partitions that this broker leads: of what others append it
//! keeps no count.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use base::chain::{PartitionState, SegmentState};
use base::error::ErrorCode;
use base::ids::{StorageId, TopicPartition};
use metadata::Topic;
use replication::{Storage, StorageState};
use wire::message::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use wire::message::{DescribeLogDirsRequest, DescribeLogDirsResponse};

use super::{Close, RequestContext};
use crate::elections::partitions_of;
use crate::turns::Turns;

/// Sizes of partitions, bytes, by log directory, topic and number.
type Sizes = BTreeMap<StorageId, BTreeMap<String, BTreeMap<i32, u64>>>;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: DescribeLogDirsRequest<'_>,
) -> Result<DescribeLogDirsResponse<'static>, Close> {
    let broker = context.broker;
    let image = broker.image();
    let mut turns = Turns::default();
    let mut sizes = Sizes::new();
    let mut count = async |topic: &Topic, wanted: Option<&BTreeSet<i32>>| {
        for (id, state) in partitions_of(topic) {
            turns.done(1).await;
            if wanted.is_none_or(|wanted| wanted.contains(&id.partition.0)) {
                add(context, &mut sizes, topic, id, state);
            }
        }
    };
    match &request.topics {
        None => {
            for topic in image.topics() {
                count(topic, None).await;
            }
        }
        Some(asked) => {
            let mut wanted: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
            for asked in asked {
                wanted.entry(&asked.topic).or_default().extend(&asked.partitions);
            }
            for (name, partitions) in wanted {
                if let Some(topic) = image.topic(name) {
                    count(topic, Some(&partitions)).await;
                }
            }
        }
    }
    let leaves = image.leaving().contains(&broker.id);
    let results = broker.storages.iter().map(|storage| DescribeLogDirsResult {
        // What a broker has that leaves is not added to (KIP-1066).
        is_cordoned: leaves,
        ..directory(context, storage, sizes.remove(&storage.id()).unwrap_or_default())
    });
    Ok(DescribeLogDirsResponse { results: results.collect(), ..DescribeLogDirsResponse::default() })
}

/// Adds what this broker has of a partition.
fn add(
    context: &RequestContext<'_>,
    sizes: &mut Sizes,
    topic: &Topic,
    id: TopicPartition,
    state: &PartitionState,
) {
    let broker = context.broker;
    let is_own = |storage: &StorageId| broker.storages.iter().any(|own| own.id() == *storage);
    let mut add = |storage: StorageId, bytes: u64| {
        let partitions = sizes.entry(storage).or_default().entry(topic.name.to_string()).or_default();
        *partitions.entry(id.partition.0).or_default() += bytes;
    };
    let mut sealed = 0;
    for entry in &state.chain {
        match &entry.state {
            SegmentState::Sealed { bytes, replicas, .. } => {
                sealed += bytes;
                replicas.iter().filter(|storage| is_own(storage)).for_each(|storage| add(*storage, *bytes));
            }
            SegmentState::Open { ensemble } => {
                let led = broker.partitions.get(id).map_or(0, |partition| partition.log.size());
                let open = led.saturating_sub(sealed);
                let own = ensemble.iter().map(|member| member.storage).filter(is_own);
                own.for_each(|storage| add(storage, open));
            }
        }
    }
}

fn directory(
    context: &RequestContext<'_>,
    storage: &Storage,
    sizes: BTreeMap<String, BTreeMap<i32, u64>>,
) -> DescribeLogDirsResult<'static> {
    let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let log_dir = Cow::Owned(storage.dir().display().to_string());
    if matches!(storage.state(), StorageState::Failed(_)) {
        let error_code = ErrorCode::KafkaStorageError.code();
        return DescribeLogDirsResult { error_code, log_dir, ..DescribeLogDirsResult::default() };
    }
    let partition = |(partition_index, bytes): (i32, u64)| DescribeLogDirsPartition {
        partition_index,
        partition_size: number(bytes),
        ..DescribeLogDirsPartition::default()
    };
    let topic = |(name, partitions): (String, BTreeMap<i32, u64>)| DescribeLogDirsTopic {
        name: Cow::Owned(name),
        partitions: partitions.into_iter().map(partition).collect(),
    };
    // One look at the file system's counters, which waits for no device.
    let space = context.broker.env.disk.space(storage.dir()).ok();
    DescribeLogDirsResult {
        log_dir,
        topics: sizes.into_iter().map(topic).collect(),
        total_bytes: space.map_or(-1, |space| number(space.total)),
        usable_bytes: space.map_or(-1, |space| number(space.available)),
        ..DescribeLogDirsResult::default()
    }
}
