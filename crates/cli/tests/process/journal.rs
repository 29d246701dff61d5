//! What the test knows for certain of a server's data, and the comparison with what is there.
//!
//! Certain is what was acknowledged, and what a consumer was shown: neither may change or vanish. Where an
//! answer was lost with the process, both outcomes are possible until one of them is seen.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use base::ids::{Offset, TopicId};
use client::{ClusterMetadata, ConsumedRecord, PartitionName};
use parking_lot::Mutex;

/// What a topic promises, beyond that acknowledged records stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Written by idempotent producers: all that was sent, in order, once.
    Once,
    /// Written by others: in order, at least once.
    AtLeastOnce,
    /// The same as [`Promise::Once`], and compacted: the last record of each writer stays, each writer
    /// has a key of its own.
    LastOfKey,
}

/// A record as it is known: who wrote it, the how manieth of this writer in this partition, what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    writer: u16,
    number: u32,
    hash: u64,
}

/// Longest value written.
pub(crate) const VALUE_BYTES_MAX: usize = 100_000;
/// Shortest value written; it still tells who wrote it.
pub(crate) const VALUE_BYTES_MIN: usize = 10;

impl Known {
    /// Stands for a value that none of the writers wrote.
    pub(crate) const STRANGE: Known = Known { writer: u16::MAX, number: u32::MAX, hash: 0 };

    /// Begins a value that tells who wrote it; what follows is free.
    pub(crate) fn begin_value(writer: u16, number: u32) -> Vec<u8> {
        [&writer.to_be_bytes()[..], &number.to_be_bytes()].concat()
    }

    /// Reads a value made by [`Known::begin_value`].
    pub(crate) fn of_value(value: &[u8]) -> Option<Known> {
        let (writer, rest) = value.split_first_chunk()?;
        let (number, _) = rest.split_first_chunk()?;
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let (writer, number) = (u16::from_be_bytes(*writer), u32::from_be_bytes(*number));
        Some(Known { writer, number, hash: hasher.finish() })
    }
}

/// What is known of a partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    records: BTreeMap<Offset, Known>,
    /// The greatest high watermark that was told.
    end_told: Offset,
    /// The least first offset: a trim up to it was acknowledged.
    trimmed: Offset,
    /// The greatest first offset: a trim up to it was asked for.
    trim_asked: Offset,
}

/// What was committed for a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Commit {
    acknowledged: Option<Offset>,
    asked: Offset,
}

/// A topic that may come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Existence {
    There {
        id: TopicId,
        partitions: usize,
    },
    Gone,
    /// The answer to its creation was lost.
    PerhapsCreated {
        partitions: usize,
    },
    /// The answer to its deletion was lost.
    PerhapsDeleted {
        id: TopicId,
        partitions: usize,
    },
    /// The answer to the addition of partitions was lost.
    PerhapsGrown {
        id: TopicId,
        from: usize,
        to: usize,
    },
}

/// All that is known. Methods may be called from many tasks.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pages: Mutex<BTreeMap<PartitionName, Page>>,
    commits: Mutex<BTreeMap<(String, PartitionName), Commit>>,
    groups_deleted: Mutex<Vec<String>>,
    topics: Mutex<BTreeMap<String, Existence>>,
    findings: Mutex<Vec<String>>,
}

impl Journal {
    /// Notes something that must not be.
    pub(crate) fn find(&self, finding: String) {
        self.findings.lock().push(finding);
    }

    /// All that must not be and was.
    pub(crate) fn findings(&self) -> Vec<String> {
        self.findings.lock().clone()
    }

    /// A record was acknowledged, or shown to a consumer.
    pub(crate) fn record(&self, partition: &PartitionName, offset: Offset, known: Known) {
        let mut pages = self.pages.lock();
        let page = pages.entry(partition.clone()).or_default();
        page.end_told = page.end_told.max(offset + 1);
        let before = page.records.insert(offset, known);
        if before.is_some_and(|before| before != known) {
            drop(pages);
            self.find(format!("{partition}, offset {offset}: first {before:?}, then {known:?}"));
        }
    }

    /// A consumer was shown records.
    pub(crate) fn shown(&self, records: &[ConsumedRecord]) {
        for record in records {
            let partition = PartitionName::new(record.topic.clone(), record.partition);
            match record.value.as_deref().and_then(Known::of_value) {
                Some(known) => self.record(&partition, record.offset, known),
                None => self.find(format!("{partition}, offset {}: nobody wrote this", record.offset)),
            }
        }
    }

    /// The high watermark of a partition was told.
    pub(crate) fn end_told(&self, partition: &PartitionName, end: Offset) {
        let mut pages = self.pages.lock();
        let page = pages.entry(partition.clone()).or_default();
        page.end_told = page.end_told.max(end);
    }

    /// The greatest high watermark of a partition that was told.
    pub(crate) fn end(&self, partition: &PartitionName) -> Offset {
        self.pages.lock().get(partition).map_or(0, |page| page.end_told)
    }

    /// A trim is about to be asked for.
    pub(crate) fn trim_asked(&self, partition: &PartitionName, offset: Offset) {
        let mut pages = self.pages.lock();
        let page = pages.entry(partition.clone()).or_default();
        page.trim_asked = page.trim_asked.max(offset);
    }

    /// A trim was acknowledged.
    pub(crate) fn trimmed(&self, partition: &PartitionName, offset: Offset) {
        let mut pages = self.pages.lock();
        let page = pages.entry(partition.clone()).or_default();
        page.trimmed = page.trimmed.max(offset);
        page.records = page.records.split_off(&page.trimmed);
    }

    /// How many records are known.
    pub(crate) fn len(&self) -> usize {
        self.pages.lock().values().map(|page| page.records.len()).sum()
    }

    /// What is known of the partitions of topics at this moment.
    pub(crate) fn pages(&self, topics: &[&str]) -> BTreeMap<PartitionName, Page> {
        let pages = self.pages.lock();
        let of_topics = pages.iter().filter(|(partition, _)| topics.contains(&&*partition.topic));
        of_topics.map(|(partition, page)| (partition.clone(), page.clone())).collect()
    }
}

/// Commits of groups.
impl Journal {
    /// Offsets are about to be committed.
    pub(crate) fn commit_asked(&self, group: &str, offsets: &BTreeMap<PartitionName, Offset>) {
        let mut commits = self.commits.lock();
        for (partition, offset) in offsets {
            let commit = commits.entry((group.to_owned(), partition.clone())).or_default();
            commit.asked = commit.asked.max(*offset);
        }
    }

    /// A commit was acknowledged.
    pub(crate) fn committed(&self, group: &str, offsets: &BTreeMap<PartitionName, Offset>) {
        let mut commits = self.commits.lock();
        for (partition, offset) in offsets {
            let commit = commits.entry((group.to_owned(), partition.clone())).or_default();
            commit.acknowledged = commit.acknowledged.max(Some(*offset));
        }
    }

    /// A group was deleted, and will not come again.
    pub(crate) fn group_deleted(&self, group: &str) {
        self.groups_deleted.lock().push(group.to_owned());
    }

    /// Groups that were deleted.
    pub(crate) fn groups_deleted(&self) -> Vec<String> {
        self.groups_deleted.lock().clone()
    }

    /// Groups that have asked for a commit.
    pub(crate) fn groups(&self) -> Vec<String> {
        let mut groups: Vec<_> = self.commits.lock().keys().map(|(group, _)| group.clone()).collect();
        groups.dedup();
        groups
    }

    /// How many positions of groups are known.
    pub(crate) fn commit_count(&self) -> usize {
        self.commits.lock().values().filter(|commit| commit.acknowledged.is_some()).count()
    }

    /// What must be committed at least, to be compared later with what is found.
    pub(crate) fn commits_acknowledged(&self, group: &str) -> BTreeMap<PartitionName, Offset> {
        let commits = self.commits.lock();
        let of_group = commits.iter().filter(|((name, _), _)| name == group);
        of_group
            .filter_map(|((_, partition), commit)| Some((partition.clone(), commit.acknowledged?)))
            .collect()
    }

    /// Compares what is committed with what was acknowledged before it was asked for.
    pub(crate) fn check_commits(
        &self,
        group: &str,
        acknowledged: &BTreeMap<PartitionName, Offset>,
        found: &BTreeMap<PartitionName, Offset>,
    ) {
        for (partition, least) in acknowledged {
            let found = found.get(partition).copied();
            if found < Some(*least) {
                self.find(format!("group {group}, {partition}: {least} was committed, {found:?} is found"));
            }
        }
        for (partition, found) in found {
            let asked = self.commits.lock().get(&(group.to_owned(), partition.clone())).map(|c| c.asked);
            if Some(*found) > asked {
                self.find(format!("group {group}, {partition}: {found} is found, {asked:?} was asked for"));
            }
        }
    }
}

/// Topics that come and go.
impl Journal {
    /// What is known of a topic.
    pub(crate) fn topic(&self, name: &str) -> Existence {
        self.topics.lock().get(name).cloned().unwrap_or(Existence::Gone)
    }

    /// Notes what is known of a topic now. Nothing is known of the records of one that may be gone.
    pub(crate) fn set_topic(&self, name: &str, existence: Existence) {
        if matches!(existence, Existence::Gone | Existence::PerhapsDeleted { .. }) {
            self.pages.lock().retain(|partition, _| &*partition.topic != name);
        }
        self.topics.lock().insert(name.to_owned(), existence);
    }

    /// Compares topics with what the cluster says of them; where the outcome was not known, now it is.
    /// Nothing may be under way.
    pub(crate) fn check_topics(&self, cluster: &ClusterMetadata) {
        let mut topics = self.topics.lock();
        for (name, existence) in &mut *topics {
            let found = cluster.topics.get(name).map(|topic| (topic.id, topic.partitions.len()));
            let settled = match (existence.clone(), found) {
                (Existence::There { id, partitions }, Some(found)) if found == (id, partitions) => None,
                (Existence::Gone, None) => None,
                (Existence::PerhapsCreated { partitions }, Some((id, count))) if count == partitions => {
                    Some(Existence::There { id, partitions })
                }
                (Existence::PerhapsCreated { .. } | Existence::PerhapsDeleted { .. }, None) => {
                    Some(Existence::Gone)
                }
                (Existence::PerhapsDeleted { id, partitions }, Some(found)) if found == (id, partitions) => {
                    Some(Existence::There { id, partitions })
                }
                (Existence::PerhapsGrown { id, from, to }, Some((found, partitions)))
                    if found == id && (partitions == from || partitions == to) =>
                {
                    Some(Existence::There { id, partitions })
                }
                (known, found) => {
                    self.find(format!("topic {name}: {known:?} is known, {found:?} is found"));
                    None
                }
            };
            if let Some(settled) = settled {
                *existence = settled;
            }
        }
    }
}

/// What was read of a partition, from its first record to its end.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// The first offset, as the server tells it.
    pub(crate) start: Offset,
    /// The end, as the server tells it.
    pub(crate) end: Offset,
    /// The records in the order they came.
    pub(crate) records: Vec<(Offset, Known)>,
}

/// Compares a partition with what was known of it before it was read; what is wrong, in words.
pub(crate) fn compare(page: &Page, read: &Read, promise: Promise) -> Result<(), String> {
    let Read { start, end, records } = read;
    if *start < page.trimmed || *start > page.trim_asked {
        let (trimmed, asked) = (page.trimmed, page.trim_asked);
        return Err(format!(
            "begins at {start}, trims up to {trimmed} were acknowledged, up to {asked} asked for"
        ));
    }
    if *end < page.end_told {
        return Err(format!("ends at {end}, {} was told before", page.end_told));
    }
    check_offsets(read, promise)?;
    let found: BTreeMap<Offset, &Known> = records.iter().map(|(offset, known)| (*offset, known)).collect();
    for (offset, known) in page.records.range(start..) {
        let replaced = |of: &Known| {
            let later = records[records.partition_point(|(other, _)| other <= offset)..].iter();
            promise == Promise::LastOfKey
                && later.map(|(_, later)| later.writer).any(|later| later == of.writer)
        };
        match found.get(offset) {
            Some(found) if *found == known => {}
            None if replaced(known) => {}
            found => return Err(format!("offset {offset}: {known:?} was acknowledged, {found:?} is found")),
        }
    }
    check_numbers(read, promise)
}

/// Offsets go up one by one, but for a compacted partition from the first to the last.
fn check_offsets(read: &Read, promise: Promise) -> Result<(), String> {
    let mut next = read.start;
    for (offset, _) in &read.records {
        if *offset < next || (*offset > next && promise != Promise::LastOfKey) {
            return Err(format!("offset {offset} comes where {next} was due"));
        }
        next = offset + 1;
    }
    // Compaction keeps the last offset.
    match next >= read.end {
        true => Ok(()),
        false => Err(format!("reads to {next}, ends at {}", read.end)),
    }
}

/// The numbers of each writer go up as its topic promises.
fn check_numbers(read: &Read, promise: Promise) -> Result<(), String> {
    let mut last: BTreeMap<u16, u32> = BTreeMap::new();
    for (offset, Known { writer, number, .. }) in &read.records {
        let before = last.insert(*writer, *number);
        let right = match (before, promise) {
            // A trim may have taken the first ones.
            (None, Promise::LastOfKey) => true,
            (None, _) => *number == 0 || read.start > 0,
            (Some(before), Promise::Once) => *number == before + 1,
            (Some(before), Promise::LastOfKey) => *number > before,
            (Some(before), Promise::AtLeastOnce) => *number <= before + 1,
        };
        if !right {
            return Err(format!("offset {offset}: writer {writer} wrote {number} after {before:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(writer: u16, number: u32) -> Known {
        Known { writer, number, hash: u64::from(number) }
    }

    /// A partition with numbers of one writer at offsets from 10 on.
    fn read(numbers: &[u32]) -> Read {
        let records: Vec<_> = (10..).zip(numbers.iter().map(|number| known(1, *number))).collect();
        Read { start: 10, end: 10 + records.len() as Offset, records }
    }

    /// Of the same partition: that much was acknowledged, and trimmed up to the offset 10.
    fn page(numbers: &[u32]) -> Page {
        let Read { end, records, .. } = read(numbers);
        Page { records: records.into_iter().collect(), end_told: end, trimmed: 10, trim_asked: 10 }
    }

    fn wrong(page: &Page, read: &Read, promise: Promise) -> bool {
        compare(page, read, promise).is_err()
    }

    #[test]
    fn what_is_as_acknowledged_is_right() {
        assert_eq!(compare(&page(&[5, 6]), &read(&[5, 6, 7]), Promise::Once), Ok(()));
        assert_eq!(compare(&page(&[5, 6]), &read(&[5, 6, 5, 6, 7]), Promise::AtLeastOnce), Ok(()));
    }

    #[test]
    fn what_is_lost_changed_repeated_or_out_of_order_is_found() {
        assert!(wrong(&page(&[5, 6, 7]), &read(&[5, 6]), Promise::Once), "the end is lost");
        assert!(wrong(&page(&[5, 6]), &read(&[5, 7]), Promise::AtLeastOnce), "another record");
        assert!(wrong(&page(&[5]), &read(&[5, 6, 6]), Promise::Once), "written twice");
        assert!(wrong(&page(&[5]), &read(&[5, 7]), Promise::AtLeastOnce), "one is lost");
        assert!(wrong(&page(&[5]), &read(&[5, 7]), Promise::Once), "one is lost");
        let mut gap = read(&[5, 6]);
        gap.records[1].0 += 1;
        gap.end += 1;
        assert!(wrong(&page(&[5]), &gap, Promise::Once), "a hole");
        let short = Read { end: 14, ..read(&[5, 6]) };
        assert!(wrong(&page(&[5]), &short, Promise::Once), "the end cannot be read");
        let told = Page { end_told: 13, ..page(&[5]) };
        assert!(wrong(&told, &read(&[5, 6]), Promise::Once), "the high watermark went back");
        let trimmed = Page { trimmed: 11, trim_asked: 11, ..page(&[5]) };
        assert!(wrong(&trimmed, &read(&[5]), Promise::Once), "a trim is lost");
        let whole = Page { trim_asked: 9, trimmed: 0, ..page(&[5]) };
        assert!(wrong(&whole, &read(&[5]), Promise::Once), "records went without a trim");
    }

    #[test]
    fn compaction_may_take_what_is_replaced_and_nothing_else() {
        let mut compacted = read(&[5, 6, 7]);
        compacted.records.remove(0);
        assert_eq!(compare(&page(&[5, 6]), &compacted, Promise::LastOfKey), Ok(()));
        assert!(wrong(&page(&[5, 6]), &compacted, Promise::Once));
        compacted.records[1].1.writer = 2;
        compacted.records.remove(0);
        assert!(wrong(&page(&[5, 6]), &compacted, Promise::LastOfKey), "the last of its key is lost");
    }

    #[test]
    fn lost_commits_and_topics_are_found() {
        let journal = Journal::default();
        let partition = PartitionName::new("t", 0);
        let at = |offset| BTreeMap::from([(partition.clone(), offset)]);
        journal.commit_asked("g", &at(7));
        journal.committed("g", &at(5));
        for right in [at(5), at(7)] {
            journal.check_commits("g", &journal.commits_acknowledged("g"), &right);
        }
        assert_eq!(journal.findings().len(), 0);
        for wrong in [at(4), at(8), BTreeMap::new()] {
            journal.check_commits("g", &journal.commits_acknowledged("g"), &wrong);
        }
        assert_eq!(journal.findings().len(), 3);
        journal.set_topic("perhaps", Existence::PerhapsCreated { partitions: 1 });
        journal.check_topics(&ClusterMetadata::default());
        assert_eq!((journal.findings().len(), journal.topic("perhaps")), (3, Existence::Gone));
        journal.set_topic("there", Existence::There { id: TopicId::default(), partitions: 1 });
        journal.check_topics(&ClusterMetadata::default());
        assert_eq!(journal.findings().len(), 4);
    }
}
