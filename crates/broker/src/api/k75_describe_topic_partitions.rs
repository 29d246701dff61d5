//! DescribeTopicPartitions (75), version 0: topics in pages (KIP-966).
//!
//! Beside the copies in sync it tells which others have all that is committed, and could lead as well (the eligible leader
//! replicas), and which may have lost some of it (the last known ones), so that without an unclean election they wait.
//!
//! Topics come in the order of their names. A page has as many partitions as the request and
//! `max.request.partition.size.limit` allow; a cursor says where the next one begins.

use std::borrow::Cow;
use std::collections::BTreeSet;

use base::config::keys;
use base::error::ErrorCode;
use wire::message::describe_topic_partitions_request::Cursor as RequestCursor;
use wire::message::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use wire::message::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};

use super::cluster::{self, PartitionView};
use super::{Close, RequestContext, authorized};
use crate::turns::Turns;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: DescribeTopicPartitionsRequest<'_>,
) -> Result<DescribeTopicPartitionsResponse<'static>, Close> {
    let image = context.broker.image();
    let cursor = request.cursor.as_ref();
    let asks_for_all = request.topics.is_empty();
    let names: BTreeSet<String> = if asks_for_all {
        image.topics().map(|topic| topic.name.to_string()).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.to_string()).collect()
    };
    if cursor.is_some_and(|cursor| !fits(cursor, &names, asks_for_all)) {
        let refused =
            names.into_iter().map(|name| failed(name, ErrorCode::InvalidRequest, authorized::NOT_ASKED));
        return Ok(DescribeTopicPartitionsResponse {
            topics: refused.collect(),
            ..DescribeTopicPartitionsResponse::default()
        });
    }
    let limit = request
        .response_partition_limit
        .min(context.broker.config().get(keys::MAX_REQUEST_PARTITION_SIZE_LIMIT));
    let mut page = Page { topics: Vec::new(), room: usize::try_from(limit).unwrap_or(0).max(1), next: None };
    let mut turns = Turns::default();
    for name in names {
        turns.done(1).await;
        let from = match cursor {
            Some(cursor) if name.as_str() < &*cursor.topic_name => continue,
            Some(cursor) if name == cursor.topic_name => usize::try_from(cursor.partition_index).unwrap_or(0),
            _ => 0,
        };
        if !page.add(context, name, from) {
            break;
        }
    }
    Ok(DescribeTopicPartitionsResponse {
        topics: page.topics,
        next_cursor: page.next,
        ..DescribeTopicPartitionsResponse::default()
    })
}

/// A cursor names a topic that is asked for and a partition there can be.
fn fits(cursor: &RequestCursor<'_>, names: &BTreeSet<String>, asks_for_all: bool) -> bool {
    // A topic that was deleted between two pages must not end the listing of all.
    cursor.partition_index >= 0 && (asks_for_all || names.contains(&*cursor.topic_name))
}

struct Page {
    topics: Vec<DescribeTopicPartitionsResponseTopic<'static>>,
    /// Partitions that still fit.
    room: usize,
    next: Option<Cursor<'static>>,
}

impl Page {
    /// Adds a topic from a partition on. False once the page is full.
    fn add(&mut self, context: &RequestContext<'_>, name: String, from: usize) -> bool {
        if self.room == 0 {
            self.next = Some(Cursor { topic_name: Cow::Owned(name), partition_index: 0 });
            return false;
        }
        let image = context.broker.image();
        let Some(topic) = image.topic(&name) else {
            let code = match metadata::check_name(&name) {
                Ok(()) => ErrorCode::UnknownTopicOrPartition,
                Err(refused) => refused.code,
            };
            self.topics.push(failed(name, code, authorized::on_topic(true)));
            return true;
        };
        let alive = cluster::alive(&image);
        let partitions: Vec<_> =
            cluster::partitions(context, &alive, topic).skip(from).take(self.room).map(shown).collect();
        let until = from.saturating_add(partitions.len());
        self.room -= partitions.len();
        self.topics.push(DescribeTopicPartitionsResponseTopic {
            error_code: ErrorCode::None.code(),
            name: Some(Cow::Owned(name.clone())),
            topic_id: topic.id,
            is_internal: topic.internal,
            partitions,
            topic_authorized_operations: authorized::on_topic(true),
        });
        if until < topic.partitions.len() {
            let partition_index = i32::try_from(until).unwrap_or(i32::MAX);
            self.next = Some(Cursor { topic_name: Cow::Owned(name), partition_index });
            return false;
        }
        true
    }
}

fn failed(name: String, code: ErrorCode, operations: i32) -> DescribeTopicPartitionsResponseTopic<'static> {
    DescribeTopicPartitionsResponseTopic {
        error_code: code.code(),
        is_internal: cluster::is_internal_name(&name),
        name: Some(Cow::Owned(name)),
        topic_authorized_operations: operations,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

fn shown(view: PartitionView) -> DescribeTopicPartitionsResponsePartition {
    DescribeTopicPartitionsResponsePartition {
        error_code: view.error.code(),
        partition_index: view.index,
        leader_id: view.leader,
        leader_epoch: view.leader_epoch,
        replica_nodes: view.replicas,
        isr_nodes: view.in_sync,
        eligible_leader_replicas: Some(view.eligible),
        last_known_elr: Some(view.last_known),
        offline_replicas: view.offline,
    }
}
