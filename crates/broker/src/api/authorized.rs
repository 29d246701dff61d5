//! Authorized-operations fields: bit n stands for Kafka's operation n.
//!
//! Without access control everyone may do everything, which is every operation the kind of resource has.

/// Nobody asked: the field's default.
pub(crate) const NOT_ASKED: i32 = i32::MIN;

const READ: i32 = 3;
const WRITE: i32 = 4;
const CREATE: i32 = 5;
const DELETE: i32 = 6;
const ALTER: i32 = 7;
const DESCRIBE: i32 = 8;
const CLUSTER_ACTION: i32 = 9;
const DESCRIBE_CONFIGS: i32 = 10;
const ALTER_CONFIGS: i32 = 11;
const IDEMPOTENT_WRITE: i32 = 12;

const ALL_ON_TOPIC: i32 =
    bits(&[READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS]);
const ALL_ON_GROUP: i32 = bits(&[READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS]);
const ALL_ON_CLUSTER: i32 =
    bits(&[CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE]);

const fn bits(operations: &[i32]) -> i32 {
    let mut bits = 0;
    let mut index = 0;
    while index < operations.len() {
        bits |= 1 << operations[index];
        index += 1;
    }
    bits
}

/// What the asking client may do with a topic.
pub(crate) fn on_topic(asked: bool) -> i32 {
    if asked { ALL_ON_TOPIC } else { NOT_ASKED }
}

/// What the asking client may do with a group.
pub(crate) fn on_group(asked: bool) -> i32 {
    if asked { ALL_ON_GROUP } else { NOT_ASKED }
}

/// What the asking client may do with the cluster.
pub(crate) fn on_cluster(asked: bool) -> i32 {
    if asked { ALL_ON_CLUSTER } else { NOT_ASKED }
}
