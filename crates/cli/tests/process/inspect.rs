//! Reads all that a server has and compares it with what is known.

use std::collections::BTreeMap;
use std::time::Duration;

use client::admin::OffsetAt;
use client::{
    Client, ClientError, Consumer, ConsumerConfig, Isolation, PartitionName, Result, Start, Topics,
};

use crate::journal::{Journal, Known, Promise, Read, compare};
use crate::server::megabytes;

/// How long the server may send nothing while there is something to read.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// How much was read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Inspection {
    records: usize,
    bytes: u64,
}

impl std::ops::AddAssign for Inspection {
    fn add_assign(&mut self, other: Inspection) {
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

impl std::fmt::Display for Inspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} records of {:.0} MB", self.records, megabytes(self.bytes))
    }
}

/// Reads the topics that are there, and what groups have committed. What is wrong goes to the journal; an
/// error means that reading itself failed.
pub(crate) async fn inspect(
    client: &Client,
    journal: &Journal,
    topics: &[(&str, Promise)],
) -> Result<Inspection> {
    check_groups(client, journal).await?;
    let names: Vec<_> = topics.iter().map(|(name, _)| *name).collect();
    // From here on only more can be known.
    let pages = journal.pages(&names);
    let cluster = client.metadata(Topics::Named(&names)).await?;
    let partitions = cluster.topics.iter().flat_map(|(name, topic)| {
        let name: std::sync::Arc<str> = name.as_str().into();
        topic.partitions.keys().map(move |partition| PartitionName::new(name.clone(), *partition))
    });
    let reads = read(client, partitions.collect()).await?;
    let mut inspection = Inspection::default();
    for (partition, (read, bytes)) in &reads {
        inspection += Inspection { records: read.records.len(), bytes: *bytes };
        let promise = topics.iter().find(|(name, _)| *name == &*partition.topic).expect("it was asked for").1;
        let page = pages.get(partition).cloned().unwrap_or_default();
        if let Err(text) = compare(&page, read, promise) {
            journal.find(format!("{partition}: {text}"));
        }
    }
    if let Some(partition) = pages.keys().find(|partition| !reads.contains_key(partition)) {
        journal.find(format!("{partition} is not there any more"));
    }
    Ok(inspection)
}

async fn check_groups(client: &Client, journal: &Journal) -> Result<()> {
    for group in journal.groups() {
        let acknowledged = journal.commits_acknowledged(&group);
        let found = client.committed_offsets(&group, None).await?;
        let found = found.into_iter().map(|(partition, committed)| (partition, committed.offset)).collect();
        journal.check_commits(&group, &acknowledged, &found);
    }
    let deleted = journal.groups_deleted();
    let listed = client.list_groups().await?;
    if let Some(group) = listed.iter().find(|listed| deleted.contains(&listed.group)) {
        journal.find(format!("group {} was deleted, and is there", group.group));
    }
    Ok(())
}

/// Reads partitions from their first record to the end they have now; with the bytes of their values.
async fn read(
    client: &Client,
    partitions: Vec<PartitionName>,
) -> Result<BTreeMap<PartitionName, (Read, u64)>> {
    let starts = offsets(client, &partitions, OffsetAt::Earliest).await?;
    let ends = offsets(client, &partitions, OffsetAt::Latest).await?;
    let read = |partition: &PartitionName| {
        let read = Read { start: starts[partition], end: ends[partition], records: Vec::new() };
        (partition.clone(), (read, 0))
    };
    let mut reads: BTreeMap<_, _> = partitions.iter().map(read).collect();
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    let begin = |(partition, (read, _)): (&PartitionName, &(Read, u64))| {
        (read.start < read.end).then(|| (partition.clone(), Start::Offset(read.start)))
    };
    consumer.assign(reads.iter().filter_map(begin));
    while consumer.assignment().next().is_some() {
        let records = consumer.poll(SILENCE_MAX).await?;
        if records.is_empty() {
            let waiting: Vec<_> = consumer.assignment().map(ToString::to_string).collect();
            let subject = format!("the rest of {}", waiting.join(", "));
            return Err(ClientError::Missing { subject });
        }
        for record in &records {
            let partition = PartitionName::new(record.topic.clone(), record.partition);
            let (read, bytes) = reads.get_mut(&partition).expect("it was assigned");
            let value = record.value.as_deref().unwrap_or_default();
            *bytes += value.len() as u64;
            let known = Known::of_value(value);
            read.records.push((record.offset, known.unwrap_or(Known::STRANGE)));
        }
        for (partition, position) in consumer.positions() {
            if position >= reads[&partition].0.end {
                consumer.unassign(&partition);
            }
        }
    }
    for (read, _) in reads.values_mut() {
        // What came later is for the next time.
        read.end = read.end.max(read.records.last().map_or(0, |(offset, _)| offset + 1));
    }
    Ok(reads)
}

async fn offsets(
    client: &Client,
    partitions: &[PartitionName],
    at: OffsetAt,
) -> Result<BTreeMap<PartitionName, i64>> {
    let wanted: Vec<_> = partitions.iter().map(|partition| (partition.clone(), at)).collect();
    let listed = client.list_offsets(&wanted, Isolation::ReadUncommitted).await?;
    listed.into_iter().map(|(partition, listed)| Ok((partition, listed?.offset.unwrap_or(0)))).collect()
}
