//! Topics, configs, offsets, records and the cluster.

use base::error::ErrorCode;
use base::ids::BrokerId;
use client::admin::{ConfigChange, ConfigOperation, ConfigResource, NewTopic, OffsetAt};
use client::{Isolation, PartitionName, Topics};

use crate::with_broker;

#[test]
fn topics_come_grow_and_go() {
    with_broker(async |machine| {
        let client = &machine.client;
        let configs = vec![("retention.ms".to_owned(), "5000".to_owned())];
        let wanted = [
            NewTopic { partitions: Some(3), configs, ..NewTopic::named("a") },
            NewTopic::named("no good name"),
            NewTopic { replication_factor: Some(3), ..NewTopic::named("b") },
        ];
        let tried = client.create_topics(&wanted, true).await.unwrap();
        assert_eq!(tried[0].as_ref().unwrap().partitions, Some(3));
        assert!(client.metadata(Topics::All).await.unwrap().topics.is_empty(), "that was a trial");
        let created = client.create_topics(&wanted, false).await.unwrap();
        assert_eq!(created[0].as_ref().unwrap().partitions, Some(3));
        assert_eq!(created[1].as_ref().unwrap_err().code(), Some(ErrorCode::InvalidTopicException));
        assert_eq!(created[2].as_ref().unwrap_err().code(), Some(ErrorCode::InvalidReplicationFactor));
        client.create_partitions("a", 5, false).await.unwrap();
        assert_eq!(client.topics(&["a"]).await.unwrap()["a"].partitions.len(), 5);
        let fewer = client.create_partitions("a", 2, false).await.unwrap_err();
        assert_eq!(fewer.code(), Some(ErrorCode::InvalidPartitions));
        let deleted = client.delete_topics(&["a", "gone"]).await.unwrap();
        assert!(deleted[0].is_ok());
        assert_eq!(deleted[1].as_ref().unwrap_err().code(), Some(ErrorCode::UnknownTopicOrPartition));
        assert!(client.metadata(Topics::All).await.unwrap().topics.is_empty());
    });
}

#[test]
fn configs_change_one_by_one() {
    with_broker(async |machine| {
        machine.topic("a", 1, 0).await;
        let client = &machine.client;
        let topic = ConfigResource::Topic("a".to_owned());
        let set = |name: &str, value: &str| ConfigChange {
            name: name.to_owned(),
            operation: ConfigOperation::Set,
            value: value.to_owned(),
        };
        client.alter_configs(&topic, &[set("retention.ms", "77")], false).await.unwrap();
        client.alter_configs(&topic, &[set("retention.ms", "78")], true).await.unwrap();
        let refused = client.alter_configs(&topic, &[set("retention.ms", "soon")], false).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::InvalidConfig));
        let entries = client.describe_configs(&topic, true).await.unwrap();
        let retention = entries.iter().find(|entry| entry.name == "retention.ms").unwrap();
        assert_eq!((retention.value.as_deref(), retention.source), (Some("77"), "DYNAMIC_TOPIC_CONFIG"));
        assert!(retention.documentation.is_some() && !retention.is_default);
        let delete = ConfigChange { operation: ConfigOperation::Delete, ..set("retention.ms", "") };
        client.alter_configs(&topic, &[delete], false).await.unwrap();
        let entries = client.describe_configs(&topic, false).await.unwrap();
        assert!(entries.iter().find(|entry| entry.name == "retention.ms").unwrap().is_default);
        let broker = client.describe_configs(&ConfigResource::Broker(BrokerId(1)), false).await.unwrap();
        assert!(broker.iter().any(|entry| entry.name == "node.id"));
    });
}

#[test]
fn offsets_are_found_and_beginnings_cut_off() {
    with_broker(async |machine| {
        let partitions = machine.topic("a", 2, 10).await;
        let client = &machine.client;
        let ask = async |at: OffsetAt| {
            let wanted: Vec<_> = partitions.iter().map(|partition| (partition.clone(), at)).collect();
            let found = client.list_offsets(&wanted, Isolation::ReadUncommitted).await.unwrap();
            found.into_values().map(|listed| listed.unwrap().offset).collect::<Vec<_>>()
        };
        assert_eq!(ask(OffsetAt::Latest).await, [Some(10), Some(10)]);
        assert_eq!(ask(OffsetAt::Time(i64::MAX)).await, [None, None]);
        assert_eq!(ask(OffsetAt::Time(0)).await, [Some(0), Some(0)]);
        let cut = [(partitions[0].clone(), Some(4)), (partitions[1].clone(), None)];
        let cut = client.delete_records(&cut).await;
        assert_eq!(cut.into_values().map(Result::unwrap).collect::<Vec<_>>(), [4, 10]);
        assert_eq!(ask(OffsetAt::Earliest).await, [Some(4), Some(10)]);
        let beyond = client.delete_records(&[(partitions[0].clone(), Some(11))]).await;
        let error = beyond.into_values().next().unwrap().unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::OffsetOutOfRange));
        let nowhere = [(PartitionName::new("a", 9), OffsetAt::Latest)];
        let found = client.list_offsets(&nowhere, Isolation::ReadUncommitted).await.unwrap();
        let error = found.into_values().next().unwrap().unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UnknownTopicOrPartition));
    });
}

#[test]
fn a_cluster_describes_itself() {
    with_broker(async |machine| {
        let cluster = machine.client.describe_cluster().await.unwrap();
        assert_eq!(cluster.brokers.len(), 1);
        assert_eq!((cluster.brokers[0].id, cluster.brokers[0].port), (BrokerId(1), 9092));
        assert_eq!(cluster.cluster_id.len(), 22);
    });
}
