//! Limits and timings of the group coordinator, under Kafka's configuration keys where Kafka has one.
//!
//! Values are taken as they are; bounds are checked where the broker parses its configuration.

/// Settings of one [`GroupShard`](crate::GroupShard). All shards of a broker share the same values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.initial.rebalance.delay.ms`: how long the first rebalance of an empty group waits for more members.
    pub initial_rebalance_delay_ms: i32,
    /// `group.min.session.timeout.ms`: the shortest session timeout a member may ask for.
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`: the longest session timeout a member may ask for.
    pub max_session_timeout_ms: i32,
    /// `group.max.size`: the most members one group may have.
    pub max_size: usize,
    /// `offset.metadata.max.bytes`: the longest metadata text of one committed offset, counted in UTF-16
    /// units as Kafka does, and never more than a 16-bit length can hold.
    pub offset_metadata_max_size: usize,
    /// `offsets.retention.minutes`, here in milliseconds: how long offsets outlive their group's last member,
    /// or their last commit where the group has no members at all.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`: how often offsets are looked through for expired ones.
    pub offsets_retention_check_interval_ms: i64,
    /// How long a member that does not know its id yet may wait in a rebalance. It cannot send heartbeats
    /// before it has an id, so this bounds how long a client that went away is counted in. Kafka's constant.
    pub new_member_join_timeout_ms: i32,
    /// The most member ids one group hands out to members that have not joined yet (KIP-394).
    /// Beyond it a client is told to come back later.
    pub max_pending_members: usize,
    /// `vltava.group.memory.max.bytes`: the most bytes that the members of all groups of a broker hold together, as
    /// much again the groups themselves, and as much again (and one request) records on their way to the log, and as much again committed offsets. Beyond it
    /// clients are told to come back later, but for those that ask for no more than they have. What the log tells is
    /// taken in whatever the bound.
    pub max_memory_bytes: usize,
    /// The most groups one shard keeps. Beyond it new groups are refused until some expire.
    pub max_groups: usize,
    /// The most bytes of protocol names and metadata one member may bring.
    pub max_member_metadata_bytes: usize,
    /// The most protocols one member may bring; clients have two or three.
    pub max_member_protocols: usize,
    /// Deletions of many offsets are written in several appends of at most about this many bytes,
    /// so that each fits into one batch of the offsets topic.
    pub max_tombstone_bytes_per_append: usize,
}

impl Default for GroupConfig {
    fn default() -> Self {
        GroupConfig {
            initial_rebalance_delay_ms: 3_000,
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 30 * 60_000,
            max_size: i32::MAX as usize,
            offset_metadata_max_size: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60_000,
            offsets_retention_check_interval_ms: 10 * 60_000,
            new_member_join_timeout_ms: 5 * 60_000,
            max_pending_members: 10_000,
            max_memory_bytes: 256 << 20,
            max_groups: 1_000_000,
            max_member_metadata_bytes: 4 << 20,
            max_member_protocols: 100,
            max_tombstone_bytes_per_append: 256 << 10,
        }
    }
}
