//! Filling a shard from the log.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::ids::TimestampMs;
use bytes::Bytes;
use wire::message::GroupMetadataValue;
use wire::message::group_metadata_value::MemberMetadata;

use crate::context::{Context, Effect};
use crate::group::{Group, GroupState};
use crate::member::Member;
use crate::rebalance;
use crate::record::{self, Record, RecordError};
use crate::request::Protocol;
use crate::shard::GroupShard;
use crate::timer::Timer;

impl GroupShard {
    /// Takes one record, in the order of the log and before the first request. Records of other types of groups are
    /// passed over.
    ///
    /// # Errors
    /// The record cannot be read; the shard is as it was, and the caller may go on with the next one.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
        match record::decode(key, value)? {
            Record::Offset { key, value } => {
                let group_id = self.interned(&key.group);
                if value.is_some() && !self.groups.contains_key(&group_id) {
                    let group = self.context.known_group(group_id.clone(), None);
                    self.groups.insert(group_id.clone(), group);
                }
                self.offsets.replay(&group_id, &(Arc::from(&*key.topic), key.partition), value);
            }
            Record::Group { key, value: None } => {
                self.groups.remove(&*key.group);
            }
            Record::Group { key, value: Some(value) } => {
                let group_id = self.interned(&key.group);
                let group = loaded_group(&self.context, group_id.clone(), value);
                self.groups.insert(group_id, group);
            }
            Record::Other(version) => {
                tracing::debug!(version, "passed over a record of another kind of group")
            }
        }
        Ok(())
    }

    /// The id as the group already holds it, so that it is kept in memory once.
    pub(crate) fn interned(&self, group_id: &str) -> Arc<str> {
        match self.groups.get(group_id) {
            Some(group) => group.id.clone(),
            None => Arc::from(group_id),
        }
    }

    /// Ends the filling: members get their session anew, since they could not send heartbeats meanwhile.
    pub fn finish_loading(&mut self, now_ms: TimestampMs) -> Vec<Effect> {
        self.context.now_ms = now_ms;
        self.schedule_expiry();
        let orphans: Vec<Arc<str>> = self.offsets.groups().map(|(id, _)| id.clone()).collect();
        for id in orphans {
            self.keep_group_fit(&id);
        }
        for group in self.groups.values_mut() {
            for member in group.members.values_mut() {
                self.context.restart_session(&group.id, member);
            }
            if group.members.len() > self.context.config.max_size {
                let reason = "the group is larger than allowed since the limit was lowered";
                rebalance::prepare_rebalance(&mut self.context, group, reason);
            }
        }
        tracing::debug!(groups = self.groups.len(), "loaded the groups of a partition");
        self.finish()
    }
}

/// A group as a record says. What a record of our own never says, but a damaged or foreign one may, is mended.
fn loaded_group(context: &Context, id: Arc<str>, value: GroupMetadataValue<'_>) -> Group {
    let since_ms = (value.current_state_timestamp != -1).then_some(value.current_state_timestamp);
    let mut group = context.known_group(id, since_ms);
    group.generation = value.generation.max(0);
    let protocol_type = value.protocol_type.into_owned();
    let protocol_name = value.protocol.map(|name| name.into_owned());
    let mut instance_ids = BTreeSet::new();
    let mut member_ids = BTreeSet::new();
    for metadata in value.members {
        let is_first = member_ids.insert(metadata.member_id.to_string())
            && metadata.group_instance_id.as_ref().is_none_or(|id| instance_ids.insert(id.to_string()));
        if is_first {
            group.add(loaded_member(context, metadata, protocol_name.as_deref()), &protocol_type);
        }
    }
    group.protocol_type = Some(protocol_type).filter(|name| !name.is_empty());
    if !group.members.is_empty() {
        group.state = GroupState::Stable;
        group.protocol_name = Some(protocol_name.unwrap_or_default());
        if let Some((leader, _)) = value.leader.and_then(|id| group.members.get_key_value(&*id)) {
            group.leader = Some(leader.clone());
        }
    }
    group.read_subscribed_topics(context.config.max_memory_bytes);
    group
}

fn loaded_member(context: &Context, metadata: MemberMetadata<'_>, protocol_name: Option<&str>) -> Member {
    let session_timeout_ms = metadata.session_timeout.max(1);
    let rebalance_timeout_ms =
        if metadata.rebalance_timeout > 0 { metadata.rebalance_timeout } else { session_timeout_ms };
    let metadata_bytes = Bytes::from(metadata.subscription.into_owned());
    let mut member = Member {
        id: Arc::from(&*metadata.member_id),
        instance_id: metadata.group_instance_id.map(|id| Arc::from(&*id)),
        client_id: metadata.client_id.into_owned(),
        client_host: metadata.client_host.into_owned(),
        session_timeout_ms,
        rebalance_timeout_ms,
        // The one protocol the record holds; the member tells the others when it joins again.
        protocols: vec![Protocol {
            name: protocol_name.unwrap_or_default().to_owned(),
            metadata: metadata_bytes,
        }],
        assignment: Bytes::from(metadata.assignment.into_owned()),
        arrival: 0,
        is_new: false,
        parked_join: None,
        parked_sync: None,
        session: Timer::default(),
        share: context.memory.members.share(),
        assignment_share: context.memory.members.share(),
    };
    member.share.set(member.bytes());
    member.assignment_share.set(member.assignment.len());
    member
}
