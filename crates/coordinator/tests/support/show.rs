//! Answers and records as short lines of text.

use base::error::ErrorCode;
use base::ids::Uuid;
use coordinator::{Answer, DescribedGroup, DescribedMember, FetchedOffset, JoinAnswer, KeyValue, LeftMember};
use wire::Reader;
use wire::message::{
    ConsumerProtocolSubscription, GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue,
};

const ZERO_UUID_HEAD: &str = "00000000-0000-0000-0000-";

/// Replaces the counting UUIDs of tests by `#1`, `#2`, ...
pub(crate) fn short_ids(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(ZERO_UUID_HEAD) {
        let (head, tail) = rest.split_at(at);
        let digits = &tail[ZERO_UUID_HEAD.len()..ZERO_UUID_HEAD.len() + 12];
        out.push_str(head);
        out.push_str(&format!("#{}", u64::from_str_radix(digits, 16).expect("a UUID ends in hex digits")));
        rest = &tail[ZERO_UUID_HEAD.len() + 12..];
    }
    out + rest
}

/// The opposite of [`short_ids`].
pub(crate) fn long_ids(text: &str) -> String {
    let mut parts = text.split('#');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let number: u64 = part[..end].parse().expect("a number follows #");
        out.push_str(&format!("{ZERO_UUID_HEAD}{number:012x}{}", &part[end..]));
    }
    out
}

/// Bytes as text where they are text, as topics where they are a subscription, else in hex.
pub(crate) fn bytes(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".into();
    }
    if let Some(topics) = subscription(bytes) {
        return format!("[{}]", topics.join("+"));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(|c| c.is_ascii_graphic()) => text.into(),
        _ => format!("0x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

fn subscription(bytes: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader::new(bytes);
    if reader.i16().ok()? != 0 {
        return None;
    }
    let subscription = ConsumerProtocolSubscription::decode(&mut reader, 0).ok()?;
    (reader.remaining() == 0)
        .then(|| subscription.topics.into_iter().map(|topic| topic.into_owned()).collect())
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn protocol(protocol_type: Option<&str>, name: Option<&str>) -> String {
    format!("{}/{}", or_dash(protocol_type.unwrap_or_default()), or_dash(name.unwrap_or_default()))
}

fn topic_name(name: &str, id: Uuid) -> String {
    if id.is_zero() { name.to_owned() } else { format!("{name}:{}", u128::from_be_bytes(id.0)) }
}

/// One answer.
pub(crate) fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Join(answer) => join(answer),
        Answer::Sync(answer) if answer.error.is_error() => format!("sync {}", answer.error.name()),
        Answer::Sync(answer) => format!(
            "sync NONE {} assignment={}",
            protocol(answer.protocol_type.as_deref(), answer.protocol_name.as_deref()),
            bytes(&answer.assignment)
        ),
        Answer::Heartbeat(error) => format!("heartbeat {}", error.name()),
        Answer::Leave(answer) => {
            let member = |member: &LeftMember| {
                let instance = member.instance_id.as_deref().map(|id| format!("({id})")).unwrap_or_default();
                format!(" {}{instance}={}", or_dash(&member.member_id), member.error.name())
            };
            let members: String = answer.members.iter().map(member).collect();
            format!("leave {}{members}", answer.error.name())
        }
        Answer::OffsetCommit(answer) => {
            let topics = answer.topics.iter().map(|t| (topic_name(&t.name, t.topic_id), &t.partitions));
            format!("commit{}", partitions(topics))
        }
        Answer::OffsetFetch(answer) => {
            let mut text = format!("fetch {}", answer.error.name());
            for topic in &answer.topics {
                let name = topic_name(&topic.name, topic.topic_id);
                topic.partitions.iter().for_each(|offset| text.push_str(&fetched(&name, offset)));
            }
            text
        }
        Answer::OffsetDelete(answer) => {
            let topics = answer.topics.iter().map(|(name, partitions)| (name.clone(), partitions));
            format!("delete-offsets {}{}", answer.error.name(), partitions(topics))
        }
        Answer::DeleteGroups(groups) => {
            let group = |(id, error): &(String, ErrorCode)| format!(" {}={}", or_dash(id), error.name());
            format!("delete-groups{}", groups.iter().map(group).collect::<String>())
        }
        Answer::DescribeGroups(groups) => groups.iter().map(described).collect::<Vec<_>>().join("\n"),
        Answer::ListGroups(groups) => {
            let group = |group: &coordinator::ListedGroup| {
                let name = or_dash(&group.group_id);
                format!(" {name}={}/{}/{}", group.group_type, or_dash(&group.protocol_type), group.state)
            };
            format!("list{}", groups.iter().map(group).collect::<String>())
        }
    }
}

fn join(answer: &JoinAnswer) -> String {
    if answer.error.is_error() {
        let mut text = format!("join {} member={}", answer.error.name(), or_dash(&answer.member_id));
        if let Some(name) = &answer.protocol_name {
            text.push_str(&format!(" protocol={name}"));
        }
        if !answer.leader.is_empty() {
            text.push_str(&format!(" leader={}", answer.leader));
        }
        return text;
    }
    let mut text = format!(
        "join NONE generation={} {} leader={} member={}",
        answer.generation,
        protocol(answer.protocol_type.as_deref(), answer.protocol_name.as_deref()),
        answer.leader,
        answer.member_id
    );
    if answer.skip_assignment {
        text.push_str(" skip-assignment");
    }
    for member in &answer.members {
        let instance = member.instance_id.as_deref().map(|id| format!("({id})")).unwrap_or_default();
        text.push_str(&format!("\n    {}{instance} {}", member.member_id, bytes(&member.metadata)));
    }
    text
}

fn partitions<'a>(topics: impl Iterator<Item = (String, &'a Vec<(i32, ErrorCode)>)>) -> String {
    let mut text = String::new();
    for (name, partitions) in topics {
        for (partition, error) in partitions {
            text.push_str(&format!(" {name}/{partition}={}", error.name()));
        }
    }
    text
}

fn fetched(topic: &str, offset: &FetchedOffset) -> String {
    let mut text = format!(" {topic}/{}={}", offset.partition, offset.offset);
    if offset.leader_epoch != -1 {
        text.push_str(&format!("@{}", offset.leader_epoch));
    }
    if !offset.metadata.is_empty() {
        text.push_str(&format!("\"{}\"", offset.metadata));
    }
    if offset.error.is_error() {
        text.push_str(&format!("({})", offset.error.name()));
    }
    text
}

fn described(group: &DescribedGroup) -> String {
    let mut text = format!(
        "describe {} {} {} {}",
        group.group_id,
        group.error.name(),
        group.state,
        protocol(Some(&group.protocol_type), Some(&group.protocol_name))
    );
    if let Some(message) = &group.error_message {
        text.push_str(&format!(" \"{message}\""));
    }
    let member = |member: &DescribedMember| {
        let instance = member.instance_id.as_deref().map(|id| format!("({id})")).unwrap_or_default();
        format!(
            "\n    {}{instance} client={} host={} metadata={} assignment={}",
            member.member_id,
            or_dash(&member.client_id),
            member.client_host,
            bytes(&member.metadata),
            bytes(&member.assignment)
        )
    };
    text.extend(group.members.iter().map(member));
    text
}

/// One record.
pub(crate) fn record(record: &KeyValue) -> String {
    let mut reader = Reader::new(&record.key);
    match reader.i16().expect("a key has a kind") {
        1 => {
            let key = OffsetCommitKey::decode(&mut reader, 0).expect("an offset's key");
            let place = format!("offset {} {}/{}", or_dash(&key.group), key.topic, key.partition);
            match &record.value {
                Some(value) => format!("{place} {}", offset_value(value)),
                None => format!("{place} removed"),
            }
        }
        2 => {
            let key = GroupMetadataKey::decode(&mut reader, 0).expect("a group's key");
            match &record.value {
                Some(value) => format!("group {} {}", key.group, group_value(value)),
                None => format!("group {} removed", or_dash(&key.group)),
            }
        }
        other => panic!("a key of kind {other}"),
    }
}

fn offset_value(value: &[u8]) -> String {
    let mut reader = Reader::new(value);
    let version = reader.i16().expect("a value has a version");
    let value = OffsetCommitValue::decode(&mut reader, version).expect("an offset's value");
    let mut text = format!("v{version} offset={} at={}", value.offset, value.commit_timestamp);
    if value.leader_epoch != -1 {
        text.push_str(&format!(" epoch={}", value.leader_epoch));
    }
    if !value.metadata.is_empty() {
        text.push_str(&format!(" metadata={}", value.metadata));
    }
    if value.expire_timestamp != -1 {
        text.push_str(&format!(" expires={}", value.expire_timestamp));
    }
    if !value.topic_id.is_zero() {
        text.push_str(&format!(" topic-id={}", u128::from_be_bytes(value.topic_id.0)));
    }
    text
}

fn group_value(value: &[u8]) -> String {
    let mut reader = Reader::new(value);
    let version = reader.i16().expect("a value has a version");
    let value = GroupMetadataValue::decode(&mut reader, version).expect("a group's value");
    let mut text = format!(
        "v{version} generation={} {} leader={} since={}",
        value.generation,
        protocol(Some(&value.protocol_type), value.protocol.as_deref()),
        value.leader.as_deref().unwrap_or("-"),
        value.current_state_timestamp
    );
    for member in &value.members {
        let instance = member.group_instance_id.as_deref().map(|id| format!("({id})")).unwrap_or_default();
        text.push_str(&format!(
            "\n    {}{instance} client={} host={} session={} rebalance={} metadata={} assignment={}",
            member.member_id,
            or_dash(&member.client_id),
            member.client_host,
            member.session_timeout,
            member.rebalance_timeout,
            bytes(&member.subscription),
            bytes(&member.assignment)
        ));
    }
    text
}
