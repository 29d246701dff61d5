//! What the broker answers: one file per API, named by its key.
//!
//! A handler is given the decoded request, which borrows from the frame, and gives back the response or the wish to
//! close the connection. What it does before its first wait happens in the order of the requests of the
//! connection; it may be dropped at any wait, when the connection ends.
//!
//! Which of them are served, and in which versions, stands in [`crate::dispatch`].

mod authorized;
mod cluster;
mod codes;
pub(crate) mod k00_produce;
pub(crate) mod k01_fetch;
pub(crate) mod k02_list_offsets;
pub(crate) mod k03_metadata;
pub(crate) mod k08_offset_commit;
pub(crate) mod k09_offset_fetch;
pub(crate) mod k10_find_coordinator;
pub(crate) mod k11_join_group;
pub(crate) mod k12_heartbeat;
pub(crate) mod k13_leave_group;
pub(crate) mod k14_sync_group;
pub(crate) mod k15_describe_groups;
pub(crate) mod k16_list_groups;
pub(crate) mod k18_api_versions;
pub(crate) mod k19_create_topics;
pub(crate) mod k20_delete_topics;
pub(crate) mod k21_delete_records;
pub(crate) mod k22_init_producer_id;
pub(crate) mod k23_offset_for_leader_epoch;
pub(crate) mod k32_describe_configs;
pub(crate) mod k33_alter_configs;
pub(crate) mod k35_describe_log_dirs;
pub(crate) mod k37_create_partitions;
pub(crate) mod k42_delete_groups;
pub(crate) mod k43_elect_leaders;
pub(crate) mod k44_incremental_alter_configs;
pub(crate) mod k45_alter_partition_reassignments;
pub(crate) mod k46_list_partition_reassignments;
pub(crate) mod k47_offset_delete;
pub(crate) mod k55_describe_quorum;
pub(crate) mod k60_describe_cluster;
pub(crate) mod k64_unregister_broker;
pub(crate) mod k75_describe_topic_partitions;
mod leaders;
mod mentions;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base::error::ErrorCode;
use bytes::Bytes;
use coordinator::{Answer, Request};
use metadata::Refusal;

use crate::broker::Broker;
use crate::net::ConnectionInfo;

pub(crate) use codes::ErrorCodes;

/// What a handler knows of a request besides its body.
pub(crate) struct RequestContext<'a> {
    /// The broker.
    pub(crate) broker: &'a Arc<Broker>,
    /// The connection it came over.
    pub(crate) connection: &'a ConnectionInfo,
    /// What the client calls itself.
    pub(crate) client_id: Option<&'a str>,
    /// Version of the request, one that is served.
    pub(crate) api_version: i16,
    /// The whole request, from which the decoded one borrows.
    pub(crate) frame: &'a Bytes,
}

impl RequestContext<'_> {
    /// Bytes that the decoded request borrows from the frame, without copying them.
    fn shared(&self, bytes: Cow<'_, [u8]>) -> Bytes {
        match bytes {
            Cow::Borrowed(bytes) => self.frame.slice_ref(bytes),
            Cow::Owned(bytes) => Bytes::from(bytes),
        }
    }

    /// Waits until then on the environment's clock, not longer than until the broker drains.
    async fn rest_until(&self, time: Duration) {
        tokio::select! {
            biased;
            () = self.broker.env.clock.sleep_until(time) => {}
            () = self.broker.drain.draining() => {}
        }
    }

    /// Asks the shard of a group for what may take until other clients have come. When the broker drains, the client
    /// is sent away at once instead, and when the client has ended its input, nobody waits for the answer any more.
    async fn ask_patiently(&self, group: &str, request: Request) -> Result<Answer, ErrorCode> {
        tokio::select! {
            biased;
            answer = self.broker.groups.ask(group, request) => answer,
            () = self.broker.drain.draining() => Err(ErrorCode::CoordinatorNotAvailable),
            () = self.connection.input_end.reached() => Err(ErrorCode::CoordinatorNotAvailable),
        }
    }
}

/// Refuses what was to be done before it was asked for: Kafka's controller gives up what is overdue when it comes.
fn in_time(timeout_ms: i32) -> Result<(), Refusal> {
    if timeout_ms >= 0 {
        return Ok(());
    }
    Err(Refusal::new(ErrorCode::RequestTimedOut, format!("A timeout of {timeout_ms} ms is over at once.")))
}

/// The code for an answer of another kind than the question: a bug of ours.
fn wrong_answer(answer: &Answer) -> ErrorCode {
    tracing::error!(?answer, "a shard of groups gave the answer to another question");
    ErrorCode::UnknownServerError
}

/// The connection must be closed, because Kafka's protocol has no way to say what is wrong. The text goes to
/// the log.
#[derive(Debug)]
pub(crate) struct Close(pub(crate) Cow<'static, str>);

impl Close {
    /// With this reason.
    pub(crate) fn because(reason: impl Into<Cow<'static, str>>) -> Close {
        Close(reason.into())
    }
}
