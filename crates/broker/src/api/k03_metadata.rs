//! Metadata (3), versions 0 to 13: brokers, topics, partitions, leaders.
//!
//! Which topics: in version 0 an empty list means all, later null does and an empty list means none. From version
//! 12 on (in 10 and 11 by mistake not yet) a topic may be named by id alone. A topic that does not exist is created
//! if both the request and the broker allow it; unlike Kafka this answers once it is there, so that a client
//! may produce at once.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use base::config::keys;
use base::error::ErrorCode;
use base::ids::{BrokerId, Incarnation, Uuid};
use metadata::Topic;
use wire::message::metadata_request::MetadataRequestTopic;
use wire::message::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use wire::message::{MetadataRequest, MetadataResponse};

use super::cluster::{self, BrokerView, PartitionView};
use super::{Close, RequestContext, authorized};
use crate::groups::OFFSETS_TOPIC;
use crate::topics::{DEFAULT, METADATA_TOPIC, TopicSpec};
use crate::turns::Turns;

/// Version from which a topic may be named by id.
const TOPIC_ID_VERSION: i16 = 12;

/// Topics that one request creates at most. Clients ask for a handful at once.
const CREATED_AT_ONCE_MAX: usize = 1_000;

/// Answers the request.
pub(crate) async fn handle(
    context: &RequestContext<'_>,
    request: MetadataRequest<'_>,
) -> Result<MetadataResponse<'static>, Close> {
    let asked = request.topics.filter(|topics| context.api_version > 0 || !topics.is_empty());
    if let Some(code) = asked.as_deref().and_then(|asked| misnamed(context.api_version, asked)) {
        return Ok(refused(code, asked.unwrap_or_default()));
    }
    let operations = authorized::on_topic(request.include_topic_authorized_operations);
    let topics = match asked {
        None => all(context, operations).await,
        Some(asked) if asked.iter().any(|topic| !topic.topic_id.is_zero()) => {
            by_id(context, &asked, operations).await
        }
        Some(asked) => by_name(context, &asked, request.allow_auto_topic_creation, operations).await,
    };
    // The image may have moved on since, which is as if the request had come later.
    let image = context.broker.image();
    let brokers = cluster::brokers(context, &image);
    Ok(MetadataResponse {
        controller_id: cluster::controller(context, &brokers),
        brokers: brokers.into_iter().map(broker).collect(),
        cluster_id: Some(Cow::Owned(image.cluster_id.to_string())),
        topics,
        cluster_authorized_operations: authorized::on_cluster(request.include_cluster_authorized_operations),
        ..MetadataResponse::default()
    })
}

/// The code for a request that names a topic in a way its version does not know.
fn misnamed(version: i16, asked: &[MetadataRequestTopic<'_>]) -> Option<ErrorCode> {
    let nameless = |topic: &MetadataRequestTopic<'_>| {
        topic.name.is_none() && (version < TOPIC_ID_VERSION || topic.topic_id.is_zero())
    };
    let early_id = |topic: &MetadataRequestTopic<'_>| version < TOPIC_ID_VERSION && !topic.topic_id.is_zero();
    asked.iter().any(|topic| nameless(topic) || early_id(topic)).then_some(ErrorCode::InvalidRequest)
}

fn refused(code: ErrorCode, asked: Vec<MetadataRequestTopic<'_>>) -> MetadataResponse<'static> {
    let topics = asked.into_iter().map(|topic| {
        let name = topic.name.unwrap_or_default().into_owned();
        failed(Some(name), topic.topic_id, code, authorized::NOT_ASKED)
    });
    MetadataResponse { controller_id: -1, topics: topics.collect(), ..MetadataResponse::default() }
}

async fn all(context: &RequestContext<'_>, operations: i32) -> Vec<MetadataResponseTopic<'static>> {
    let image = context.broker.image();
    let alive = cluster::alive(&image);
    let mut turns = Turns::default();
    let mut topics = Vec::new();
    for topic in image.topics() {
        topics.push(known(context, &alive, topic, operations));
        turns.done(topic.partitions.len()).await;
    }
    topics
}

async fn by_id(
    context: &RequestContext<'_>,
    asked: &[MetadataRequestTopic<'_>],
    operations: i32,
) -> Vec<MetadataResponseTopic<'static>> {
    if asked.iter().any(|topic| context.broker.image().topic_by_id(topic.topic_id).is_none()) {
        context.broker.catch_up().await;
    }
    let image = context.broker.image();
    let alive = cluster::alive(&image);
    let mut seen = HashSet::new();
    let ids = asked.iter().map(|topic| topic.topic_id).filter(|id| !id.is_zero() && seen.insert(*id));
    let mut turns = Turns::default();
    let mut topics = Vec::new();
    for id in ids {
        let topic = match image.topic_by_id(id) {
            Some(topic) => known(context, &alive, topic, operations),
            None => failed(None, id, ErrorCode::UnknownTopicId, authorized::NOT_ASKED),
        };
        turns.done(1 + topic.partitions.len()).await;
        topics.push(topic);
    }
    topics
}

async fn by_name(
    context: &RequestContext<'_>,
    asked: &[MetadataRequestTopic<'_>],
    may_create: bool,
    operations: i32,
) -> Vec<MetadataResponseTopic<'static>> {
    let mut seen = HashSet::new();
    let names = asked.iter().map(|topic| topic.name.as_deref().unwrap_or_default());
    let names: Vec<&str> = names.filter(|name| seen.insert(*name)).collect();
    let is_known = |name: &&str| context.broker.image().topic(name).is_some();
    if !names.iter().all(is_known) {
        context.broker.catch_up().await;
    }
    let missing: Vec<&str> = names.iter().copied().filter(|name| !is_known(name)).collect();
    let codes = create_missing(context, &missing, may_create).await;
    let image = context.broker.image();
    let alive = cluster::alive(&image);
    let mut turns = Turns::default();
    let mut topics = Vec::with_capacity(names.len());
    for name in names {
        let topic = match (image.topic(name), codes.get(name)) {
            (Some(topic), _) => known(context, &alive, topic, operations),
            (None, code) => {
                let code = code.copied().unwrap_or(ErrorCode::UnknownTopicOrPartition);
                failed(Some(name.to_owned()), Uuid::ZERO, code, operations)
            }
        };
        turns.done(1 + topic.partitions.len()).await;
        topics.push(topic);
    }
    topics
}

/// Creates topics, if that is allowed, and says what to answer for those that are not there after it.
async fn create_missing<'n>(
    context: &RequestContext<'_>,
    missing: &[&'n str],
    may_create: bool,
) -> HashMap<&'n str, ErrorCode> {
    let broker = context.broker;
    let mut codes = HashMap::new();
    let mut specs = Vec::new();
    let mut turns = Turns::default();
    for name in missing {
        turns.done(1).await;
        if let Err(refused) = metadata::check_name(name) {
            codes.insert(*name, refused.code);
        } else if !may_create
            || !broker.config().get(keys::AUTO_CREATE_TOPICS_ENABLE)
            || *name == METADATA_TOPIC
        {
            codes.insert(*name, ErrorCode::UnknownTopicOrPartition);
        } else if *name == OFFSETS_TOPIC {
            codes.extend(broker.groups.ensure(broker).await.err().map(|code| (*name, code)));
        } else if specs.len() >= CREATED_AT_ONCE_MAX {
            // The client asks again in a moment, and the next ones are created.
            codes.insert(*name, ErrorCode::LeaderNotAvailable);
        } else {
            specs.push((*name, automatic(name)));
        }
    }
    let (names, specs): (Vec<&str>, Vec<TopicSpec>) = specs.into_iter().unzip();
    if specs.is_empty() {
        return codes;
    }
    for (name, created) in names.into_iter().zip(broker.create_topics(specs, false).await) {
        match created {
            Ok(_) => tracing::info!(topic = name, "created a topic because a client asked for it"),
            // Another client was first: it will be there in a moment.
            Err(refused) if refused.code == ErrorCode::TopicAlreadyExists => {
                codes.insert(name, ErrorCode::LeaderNotAvailable);
            }
            Err(refused) => drop(codes.insert(name, refused.code)),
        }
    }
    codes
}

fn automatic(name: &str) -> TopicSpec {
    TopicSpec {
        name: name.to_owned(),
        partitions: DEFAULT,
        replication_factor: DEFAULT,
        assignments: None,
        configs: Vec::new(),
        internal: cluster::is_internal_name(name),
    }
}

fn known(
    context: &RequestContext<'_>,
    alive: &[(BrokerId, Incarnation)],
    topic: &Topic,
    operations: i32,
) -> MetadataResponseTopic<'static> {
    MetadataResponseTopic {
        error_code: ErrorCode::None.code(),
        name: Some(Cow::Owned(topic.name.to_string())),
        topic_id: topic.id,
        is_internal: topic.internal,
        partitions: cluster::partitions(context, alive, topic).map(partition).collect(),
        topic_authorized_operations: operations,
    }
}

fn failed(
    name: Option<String>,
    topic_id: Uuid,
    code: ErrorCode,
    operations: i32,
) -> MetadataResponseTopic<'static> {
    MetadataResponseTopic {
        error_code: code.code(),
        is_internal: name.as_deref().is_some_and(cluster::is_internal_name),
        name: name.map(Cow::Owned),
        topic_id,
        partitions: Vec::new(),
        topic_authorized_operations: operations,
    }
}

fn broker(broker: BrokerView) -> MetadataResponseBroker<'static> {
    MetadataResponseBroker {
        node_id: broker.id,
        host: Cow::Owned(broker.address.host),
        port: i32::from(broker.address.port),
        rack: broker.rack.map(Cow::Owned),
    }
}

fn partition(view: PartitionView) -> MetadataResponsePartition {
    MetadataResponsePartition {
        error_code: view.error.code(),
        partition_index: view.index,
        leader_id: view.leader,
        leader_epoch: view.leader_epoch,
        replica_nodes: view.replicas,
        isr_nodes: view.in_sync,
        offline_replicas: view.offline,
    }
}
