// Topics, configs and groups through kadm.
package main

import (
	"context"
	"errors"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func init() {
	add("create-list-describe-topic", createListDescribe)
	add("describe-and-alter-configs", alterConfigs)
	add("create-partitions", createPartitions)
	add("delete-records", deleteRecords)
	add("delete-and-recreate-topic", deleteAndRecreate)
	add("list-offsets", listOffsets)
	add("offset-for-leader-epoch", offsetForLeaderEpoch)
	add("api-versions-and-cluster", apiVersions)
	add("admin-groups", adminGroups)
}

func createListDescribe(ctx context.Context) {
	topic := create(ctx, "topics", 3, map[string]string{"retention.ms": "123456"})
	admin := newAdmin()
	defer admin.Close()
	topics, err := admin.ListTopics(ctx)
	must(err, "listing")
	check(topics.Has(topic), "the topic is listed")
	equal(len(topics[topic].Partitions), 3, "partitions")
	check(topics[topic].ID != kadm.TopicID{}, "the topic has an id")
	check(!topics.Has("__consumer_offsets"), "internal topics are not listed")
	_, err = admin.CreateTopic(ctx, 1, 1, nil, topic)
	check(errors.Is(err, kerr.TopicAlreadyExists), "creating twice: %v", err)
	_, err = admin.CreateTopic(ctx, 1, 1, nil, "no/such name")
	check(errors.Is(err, kerr.InvalidTopicException), "a bad name: %v", err)
	_, err = admin.CreateTopic(ctx, 1, 9, nil, unique("rf"))
	check(errors.Is(err, kerr.InvalidReplicationFactor), "more replicas than brokers: %v", err)
	created, err := admin.CreateTopic(ctx, -1, -1, nil, unique("defaults"))
	must(err, "creating with the broker's defaults")
	equal(created.NumPartitions, 1, "partitions by default")
	equal(created.ReplicationFactor, 1, "replication factor by default")
	answers, err := admin.ValidateCreateTopics(ctx, 2, 1, nil, unique("validated"))
	must(err, "validating")
	must(answers.Error(), "validating")
}

func config(ctx context.Context, admin *kadm.Client, topic, key string) kadm.Config {
	found, err := admin.DescribeTopicConfigs(ctx, topic)
	must(err, "describing configs")
	for _, entry := range found[0].Configs {
		if entry.Key == key {
			return entry
		}
	}
	failf("no config %s of %s", key, topic)
	return kadm.Config{}
}

func alterConfigs(ctx context.Context) {
	topic := create(ctx, "configs", 1, map[string]string{"retention.ms": "100000"})
	admin := newAdmin()
	defer admin.Close()
	value := func(key string) string {
		entry := config(ctx, admin, topic, key)
		return entry.MaybeValue()
	}
	equal(value("retention.ms"), "100000", "retention.ms")
	equal(config(ctx, admin, topic, "retention.ms").Source, kmsg.ConfigSourceDynamicTopicConfig, "its source")
	equal(config(ctx, admin, topic, "segment.bytes").Source, kmsg.ConfigSourceDefaultConfig, "source of a default")
	answers, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "segment.ms", Value: kadm.StringPtr("777777")},
		{Op: kadm.AppendConfig, Name: "cleanup.policy", Value: kadm.StringPtr("compact")},
		{Op: kadm.DeleteConfig, Name: "retention.ms"},
	}, topic)
	must(err, "altering")
	must(answers[0].Err, "altering "+topic)
	until("segment.ms", func() bool { return value("segment.ms") == "777777" })
	check(strings.Contains(value("cleanup.policy"), "compact"), "cleanup.policy is %s", value("cleanup.policy"))
	equal(value("retention.ms"), "604800000", "retention.ms by default")
	answers, err = admin.AlterTopicConfigsState(ctx, []kadm.AlterConfig{
		{Name: "retention.bytes", Value: kadm.StringPtr("4096")},
	}, topic)
	must(err, "replacing all configs")
	must(answers[0].Err, "replacing all configs")
	until("retention.bytes", func() bool { return value("retention.bytes") == "4096" })
	equal(value("cleanup.policy"), "delete", "cleanup.policy after all was replaced")
	answers, err = admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("soon")},
	}, topic)
	must(err, "altering")
	check(errors.Is(answers[0].Err, kerr.InvalidConfig), "a value of the wrong type: %v", answers[0].Err)
}

func createPartitions(ctx context.Context) {
	topic := create(ctx, "grow", 1, nil)
	admin := newAdmin()
	defer admin.Close()
	answers, err := admin.UpdatePartitions(ctx, 4, topic)
	must(err, "growing")
	must(answers.Error(), "growing")
	awaitLeaders(ctx, admin, topic, 4)
	send(ctx, topic, 3, []byte("in the last"))
	equal(string(read(ctx, topic, 3, atStart(), 1)[0].Value), "in the last", "record of a new partition")
	answers, err = admin.UpdatePartitions(ctx, 2, topic)
	must(err, "shrinking")
	check(errors.Is(answers.Error(), kerr.InvalidPartitions), "shrinking: %v", answers.Error())
}

func deleteRecords(ctx context.Context) {
	topic := create(ctx, "trim", 1, nil)
	send(ctx, topic, 0, payloads(100, 100)...)
	admin := newAdmin()
	defer admin.Close()
	var offsets kadm.Offsets
	offsets.AddOffset(topic, 0, 40, -1)
	answers, err := admin.DeleteRecords(ctx, offsets)
	must(err, "deleting records")
	must(answers.Error(), "deleting records")
	equal(answers[topic][0].LowWatermark, 40, "low watermark")
	started, err := admin.ListStartOffsets(ctx, topic)
	must(err, "start offsets")
	equal(started[topic][0].Offset, 40, "start offset")
	equalValues(valuesOf(read(ctx, topic, 0, atStart(), 60)), payloads(100, 100)[40:], "values left")
	offsets.AddOffset(topic, 0, 1000, -1)
	answers, err = admin.DeleteRecords(ctx, offsets)
	must(err, "deleting beyond the end")
	check(errors.Is(answers.Error(), kerr.OffsetOutOfRange), "deleting beyond the end: %v", answers.Error())
}

func deleteAndRecreate(ctx context.Context) {
	topic := create(ctx, "gone", 1, nil)
	send(ctx, topic, 0, []byte("old"))
	admin := newAdmin()
	defer admin.Close()
	before, err := admin.ListTopics(ctx, topic)
	must(err, "listing")
	_, err = admin.DeleteTopic(ctx, topic)
	must(err, "deleting")
	until("the topic is gone", func() bool {
		topics, err := admin.ListTopics(ctx)
		must(err, "listing")
		return !topics.Has(topic)
	})
	_, err = admin.DeleteTopic(ctx, topic)
	check(errors.Is(err, kerr.UnknownTopicOrPartition), "deleting twice: %v", err)
	_, err = admin.CreateTopic(ctx, 1, 1, nil, topic)
	must(err, "creating again")
	// A client of its own: the other one may answer from what it asked a moment ago.
	fresh := newAdmin()
	defer fresh.Close()
	awaitLeaders(ctx, fresh, topic, 1)
	after, err := fresh.ListTopics(ctx, topic)
	must(err, "listing")
	check(before[topic].ID != after[topic].ID, "a topic created again has another id")
	equal(send(ctx, topic, 0, []byte("new"))[0].Offset, 0, "first offset")
	equal(string(read(ctx, topic, 0, atStart(), 1)[0].Value), "new", "content of the new topic")
}

func listOffsets(ctx context.Context) {
	topic := create(ctx, "offsets", 1, nil)
	produceAtTimes(ctx, topic, 10, 1000)
	admin := newAdmin()
	defer admin.Close()
	for what, ask := range map[string]struct {
		list   func() (kadm.ListedOffsets, error)
		wanted int64
	}{
		"earliest":     {func() (kadm.ListedOffsets, error) { return admin.ListStartOffsets(ctx, topic) }, 0},
		"latest":       {func() (kadm.ListedOffsets, error) { return admin.ListEndOffsets(ctx, topic) }, 10},
		"committed":    {func() (kadm.ListedOffsets, error) { return admin.ListCommittedOffsets(ctx, topic) }, 10},
		"max time":     {func() (kadm.ListedOffsets, error) { return admin.ListMaxTimestampOffsets(ctx, topic) }, 9},
		"local start":  {func() (kadm.ListedOffsets, error) { return admin.ListLocalLogStartOffsets(ctx, topic) }, 0},
		"after a time": {func() (kadm.ListedOffsets, error) { return admin.ListOffsetsAfterMilli(ctx, baseTime+4500, topic) }, 5},
	} {
		found, err := ask.list()
		must(err, what)
		must(found.Error(), what)
		equal(found[topic][0].Offset, ask.wanted, what)
	}
}

func offsetForLeaderEpoch(ctx context.Context) {
	topic := create(ctx, "epoch", 1, nil)
	send(ctx, topic, 0, payloads(5, 10)...)
	admin := newAdmin()
	defer admin.Close()
	listed, err := admin.ListEndOffsets(ctx, topic)
	must(err, "end offsets")
	epoch := listed[topic][0].LeaderEpoch
	check(epoch >= 0, "ListOffsets tells the leader epoch, not %d", epoch)
	var request kadm.OffsetForLeaderEpochRequest
	request.Add(topic, 0, epoch)
	found, err := admin.OffetForLeaderEpoch(ctx, request)
	must(err, "asking")
	must(found[topic][0].Err, "asking")
	equal(found[topic][0].EndOffset, 5, "end offset of the epoch")
}

func apiVersions(ctx context.Context) {
	admin := newAdmin()
	defer admin.Close()
	versions, err := admin.ApiVersions(ctx)
	must(err, "ApiVersions")
	for _, broker := range versions {
		must(broker.Err, "ApiVersions of a broker")
		least, most, known := broker.KeyVersions(int16(kmsg.Produce))
		check(known && least == 0 && most >= 11, "Produce %d-%d", least, most)
	}
	metadata, err := admin.BrokerMetadata(ctx)
	must(err, "metadata")
	equal(len(metadata.Brokers), 1, "brokers")
	check(metadata.Cluster != "", "the cluster has an id")
	configs, err := admin.DescribeBrokerConfigs(ctx, metadata.Brokers[0].NodeID)
	must(err, "broker configs")
	for _, entry := range configs[0].Configs {
		if entry.Key == "group.initial.rebalance.delay.ms" {
			equal(entry.MaybeValue(), "100", "a config set at start")
			return
		}
	}
	failf("group.initial.rebalance.delay.ms is not described")
}

func adminGroups(ctx context.Context) {
	topic := create(ctx, "admin-groups", 2, nil)
	group := unique("admin-groups")
	send(ctx, topic, 0, payloads(10, 10)...)
	admin := newAdmin()
	defer admin.Close()
	member := newGroup(group, topic)
	take(ctx, member, 10)
	must(member.CommitUncommittedOffsets(ctx), "committing")
	listed, err := admin.ListGroups(ctx, "Stable")
	must(err, "listing")
	equal(listed[group].ProtocolType, "consumer", "protocol type of the listed group")
	described, err := admin.DescribeGroups(ctx, group)
	must(err, "describing")
	equal(described[group].State, "Stable", "state")
	equal(len(described[group].Members), 1, "members")
	lags, err := admin.Lag(ctx, group)
	must(err, "lag")
	equal(lags[group].Lag.Total(), 0, "lag")
	_, err = admin.DeleteGroup(ctx, group)
	check(errors.Is(err, kerr.NonEmptyGroup), "deleting a live group: %v", err)
	removed, err := admin.DeleteOffsets(ctx, group, kadm.TopicsSet{topic: {0: {}}})
	must(err, "deleting offsets of a live group")
	check(errors.Is(removed.Error(), kerr.GroupSubscribedToTopic), "deleting live offsets: %v", removed.Error())
	member.Close()
	until("an empty group", func() bool {
		described, err := admin.DescribeGroups(ctx, group)
		must(err, "describing")
		return described[group].State == "Empty"
	})
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: topic, Partition: 0, At: 3, LeaderEpoch: -1, Metadata: "žluť"})
	must(admin.CommitAllOffsets(ctx, group, offsets), "altering offsets")
	fetched, err := admin.FetchOffsets(ctx, group)
	must(err, "fetching offsets")
	equal(fetched[topic][0].At, 3, "altered offset")
	equal(fetched[topic][0].Metadata, "žluť", "its metadata")
	_, err = admin.DeleteGroup(ctx, group)
	must(err, "deleting")
	_, err = admin.DeleteGroup(ctx, group)
	check(errors.Is(err, kerr.GroupIDNotFound), "deleting twice: %v", err)
}
