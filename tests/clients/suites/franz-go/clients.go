// Clients and the small verbs that the cases are made of.
package main

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func newClient(options ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(bootstrap),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MetadataMinAge(50 * time.Millisecond),
	}, options...)...)
	must(err, "a client")
	return client
}

func newAdmin() *kadm.Client {
	return kadm.NewClient(newClient())
}

// newGroup makes a client that consumes a topic in a group, from the beginning where nothing is committed.
func newGroup(group, topic string, options ...kgo.Opt) *kgo.Client {
	return newClient(append([]kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(sessionTimeout), kgo.HeartbeatInterval(500 * time.Millisecond),
	}, options...)...)
}

// create makes a topic whose every partition has a leader.
func create(ctx context.Context, prefix string, partitions int32, configs map[string]string) string {
	admin := newAdmin()
	defer admin.Close()
	topic := unique(prefix)
	pointers := map[string]*string{}
	for key, value := range configs {
		pointers[key] = kadm.StringPtr(value)
	}
	_, err := admin.CreateTopic(ctx, partitions, 1, pointers, topic)
	must(err, "creating "+topic)
	awaitLeaders(ctx, admin, topic, int(partitions))
	return topic
}

func awaitLeaders(ctx context.Context, admin *kadm.Client, topic string, partitions int) {
	until("leaders of "+topic, func() bool {
		topics, err := admin.ListTopics(ctx, topic)
		must(err, "listing topics")
		led := 0
		for _, partition := range topics[topic].Partitions {
			if partition.Leader >= 0 && partition.Err == nil {
				led++
			}
		}
		return led == partitions
	})
}

// records puts values into one partition of a topic.
func records(topic string, partition int32, values ...[]byte) []*kgo.Record {
	list := make([]*kgo.Record, len(values))
	for n, value := range values {
		list[n] = &kgo.Record{Topic: topic, Partition: partition, Value: value}
	}
	return list
}

// send produces the values to one partition and waits for every answer.
func send(ctx context.Context, topic string, partition int32, values ...[]byte) []*kgo.Record {
	client := newClient()
	defer client.Close()
	list := records(topic, partition, values...)
	must(client.ProduceSync(ctx, list...).FirstErr(), "producing")
	return list
}

// take polls until it has `count` records.
func take(ctx context.Context, client *kgo.Client, count int) []*kgo.Record {
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	var list []*kgo.Record
	for len(list) < count {
		fetches := client.PollRecords(ctx, count-len(list))
		check(ctx.Err() == nil, "%d of %d records within %v", len(list), count, waitTimeout)
		fetches.EachError(func(topic string, partition int32, err error) {
			failf("fetching %s/%d: %v", topic, partition, err)
		})
		list = append(list, fetches.Records()...)
	}
	return list
}

// read gives `count` records of one partition from an offset, without a group.
func read(ctx context.Context, topic string, partition int32, offset kgo.Offset, count int) []*kgo.Record {
	client := newClient(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: offset}}))
	defer client.Close()
	return take(ctx, client, count)
}

func atStart() kgo.Offset { return kgo.NewOffset().AtStart() }

func at(offset int64) kgo.Offset { return kgo.NewOffset().At(offset) }

func valuesOf(list []*kgo.Record) [][]byte {
	values := make([][]byte, len(list))
	for n, record := range list {
		values[n] = record.Value
	}
	return values
}
