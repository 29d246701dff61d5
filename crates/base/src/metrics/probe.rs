//! Values that are read when somebody looks, because keeping them up to date would cost every append.

use super::NodeMetrics;

/// One partition this node holds.
#[derive(Clone, Copy, Debug)]
pub struct PartitionSample<'a> {
    /// Name of the topic.
    pub topic: &'a str,
    /// Number of the partition.
    pub partition: i32,
    /// First offset that can be read.
    pub log_start_offset: i64,
    /// High watermark: one past the last offset that can be read.
    pub high_watermark: i64,
    /// One past the last offset written.
    pub log_end_offset: i64,
    /// Bytes of its segment files.
    pub size_bytes: u64,
    /// Number of its segments.
    pub segments: u64,
}

/// One group of which this node is the coordinator.
#[derive(Clone, Copy, Debug)]
pub struct GroupSample<'a> {
    /// Its id.
    pub group: &'a str,
    /// Kafka's name of its state, such as `Stable`.
    pub state: &'a str,
    /// Its members.
    pub members: usize,
    /// Its committed offsets, each with the end of the partition.
    pub offsets: &'a [GroupOffset<'a>],
}

/// One committed offset.
#[derive(Clone, Copy, Debug)]
pub struct GroupOffset<'a> {
    /// Name of the topic.
    pub topic: &'a str,
    /// Number of the partition.
    pub partition: i32,
    /// The committed offset: the next one the group reads.
    pub committed: i64,
    /// High watermark of the partition; `None` when this node does not know it.
    pub high_watermark: Option<i64>,
}

/// One log directory.
#[derive(Clone, Copy, Debug)]
pub struct DirectorySample<'a> {
    /// Its path.
    pub path: &'a str,
    /// Whether it failed.
    pub offline: bool,
    /// Size of its file system, bytes.
    pub total_bytes: u64,
    /// What may still be written, bytes.
    pub available_bytes: u64,
}

/// What a node can be asked for when its metrics are read. Called on the thread that renders them: no
/// method may wait for a device.
pub trait Probe: Send + Sync {
    /// Brings the gauges without labels up to date.
    fn refresh(&self, node: &NodeMetrics);
    /// Visits the partitions, in any order.
    fn partitions(&self, visit: &mut dyn FnMut(PartitionSample<'_>));
    /// Visits the groups, in any order.
    fn groups(&self, visit: &mut dyn FnMut(GroupSample<'_>));
    /// Visits the log directories.
    fn directories(&self, visit: &mut dyn FnMut(DirectorySample<'_>));
}
