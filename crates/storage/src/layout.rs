//! Where things lie in a log directory.
//!
//! ```text
//! storage.properties                 format version, storage id, cluster id
//! life                               boot id, and whether the last life ended cleanly
//! .lock  reserve                     one process at a time; space for emergencies
//! sync-journal                       what was synced there before it is in the segments' own files
//! trash/<n>                          removed, being deleted
//! building/<segment>                 a rewrite that is not finished, or a sync journal
//! topics/<topic>/<partition>.<topic id>/<base>.<segment id>.<generation>/
//!     <base>.log  <base>.index  <base>.timeindex       as Kafka's
//!     base.checkpoint  even.checkpoint  odd.checkpoint  end.checkpoint
//! ```
//!
//! `<base>` has 20 digits, so that Kafka's tools read the base offset off the file names. A Kafka log
//! directory has a `meta.properties` instead and is refused, and Kafka refuses ours.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::ids::{Generation, Offset, PartitionId, SegmentId, TopicPartition};

/// Which segment: the unit that is created, loaded, recovered and removed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SegmentName {
    /// Name of the topic, for the path only. Kafka's rules for topic names make it a safe file name.
    pub topic: Arc<str>,
    /// Whose log it is part of.
    pub partition: TopicPartition,
    /// Unique for ever.
    pub id: SegmentId,
    /// Count of rewrites.
    pub generation: Generation,
    /// First offset covered.
    pub base: Offset,
}

/// The files of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentFile {
    Log,
    Index,
    TimeIndex,
    /// State at the base; written once.
    BaseCheckpoint,
    /// Written in turn while the segment is open.
    EvenCheckpoint,
    OddCheckpoint,
    /// Describes the index files of a sealed segment.
    EndCheckpoint,
}

/// What the name of a file of a segment at `base` is.
pub(crate) fn file_name(file: SegmentFile, base: Offset) -> String {
    match file {
        SegmentFile::Log => format!("{base:020}.log"),
        SegmentFile::Index => format!("{base:020}.index"),
        SegmentFile::TimeIndex => format!("{base:020}.timeindex"),
        SegmentFile::BaseCheckpoint => "base.checkpoint".to_owned(),
        SegmentFile::EvenCheckpoint => "even.checkpoint".to_owned(),
        SegmentFile::OddCheckpoint => "odd.checkpoint".to_owned(),
        SegmentFile::EndCheckpoint => "end.checkpoint".to_owned(),
    }
}

/// Paths below one log directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: Arc<Path>,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Layout {
        Layout { root: root.into() }
    }

    pub(crate) fn root(&self) -> &Arc<Path> {
        &self.root
    }

    pub(crate) fn properties(&self) -> PathBuf {
        self.root.join("storage.properties")
    }

    /// The file by which a log directory of Apache Kafka is known.
    pub(crate) fn kafka_properties(&self) -> PathBuf {
        self.root.join("meta.properties")
    }

    pub(crate) fn life(&self) -> PathBuf {
        self.root.join("life")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join(".lock")
    }

    pub(crate) fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join("sync-journal")
    }

    /// The directory where it is made; `number` makes it nobody else's.
    pub(crate) fn unfinished_journal(&self, number: u64) -> PathBuf {
        self.building().join(format!("sync-journal.{number:016x}"))
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    pub(crate) fn building(&self) -> PathBuf {
        self.root.join("building")
    }

    pub(crate) fn topics(&self) -> PathBuf {
        self.root.join("topics")
    }

    pub(crate) fn topic(&self, topic: &str) -> PathBuf {
        self.topics().join(topic)
    }

    pub(crate) fn partition(&self, topic: &str, partition: TopicPartition) -> PathBuf {
        self.topic(topic).join(format!("{}.{}", partition.partition, partition.topic_id))
    }

    pub(crate) fn segment(&self, name: &SegmentName) -> PathBuf {
        self.partition(&name.topic, name.partition).join(segment_dir_name(name))
    }

    /// Where a rewrite is built before it takes its place.
    pub(crate) fn building_segment(&self, name: &SegmentName) -> PathBuf {
        let SegmentName { partition, .. } = name;
        let dir = format!("{}.{}.{}", partition.partition, partition.topic_id, segment_dir_name(name));
        self.building().join(dir)
    }

    pub(crate) fn file(&self, name: &SegmentName, file: SegmentFile) -> PathBuf {
        self.segment(name).join(file_name(file, name.base))
    }
}

fn segment_dir_name(name: &SegmentName) -> String {
    format!("{:020}.{}.{}", name.base, name.id, name.generation)
}

/// Reads `<partition>.<topic id>`.
pub(crate) fn parse_partition_dir(name: &str) -> Option<TopicPartition> {
    let (partition, topic_id) = name.split_once('.')?;
    let partition = PartitionId(partition.parse().ok().filter(|number| *number >= 0)?);
    Some(TopicPartition { topic_id: topic_id.parse().ok()?, partition })
}

/// Reads `<base>.<segment id>.<generation>`.
pub(crate) fn parse_segment_dir(name: &str) -> Option<(Offset, SegmentId, Generation)> {
    let mut parts = name.split('.');
    let base = parts.next().filter(|text| text.len() == 20)?.parse().ok()?;
    let id = SegmentId(parts.next()?.parse().ok()?);
    let generation = Generation(parts.next()?.parse().ok()?);
    parts.next().is_none().then_some((base, id, generation))
}

#[cfg(test)]
mod tests {
    use base::ids::Uuid;

    use super::*;

    #[test]
    fn names_are_paths_and_back() {
        let name = SegmentName {
            topic: "orders.eu".into(),
            partition: TopicPartition { topic_id: Uuid([7; 16]), partition: PartitionId(12) },
            id: SegmentId(99),
            generation: Generation(3),
            base: 1_234,
        };
        let layout = Layout::new(Path::new("/data"));
        let log = layout.file(&name, SegmentFile::Log);
        let expected = format!(
            "/data/topics/orders.eu/12.{}/00000000000000001234.99.3/00000000000000001234.log",
            name.partition.topic_id
        );
        assert_eq!(log, Path::new(&expected));
        let dir = layout.segment(&name);
        let dir_name = dir.file_name().unwrap().to_str().unwrap();
        assert_eq!(parse_segment_dir(dir_name), Some((1_234, SegmentId(99), Generation(3))));
        let parent = dir.parent().unwrap().file_name().unwrap().to_str().unwrap();
        assert_eq!(parse_partition_dir(parent), Some(name.partition));
    }

    #[test]
    fn other_names_are_nothing() {
        for name in ["", "1.2.3", "00000000000000001234.99", "00000000000000001234.99.3.tmp", "x.y.z"] {
            assert_eq!(parse_segment_dir(name), None, "{name}");
        }
        for name in ["", "12", "12.short", "-1.AAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(parse_partition_dir(name), None, "{name}");
        }
    }
}
