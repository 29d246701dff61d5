// Producing and consuming.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const baseTime = int64(1_700_000_000_000)

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

var acks = map[string]kgo.Acks{"0": kgo.NoAck(), "1": kgo.LeaderAck(), "all": kgo.AllISRAcks()}

func init() {
	for codecName, codec := range codecs {
		for acksName, ack := range acks {
			add(fmt.Sprintf("produce-%s-acks-%s", codecName, acksName), func(ctx context.Context) {
				produceWith(ctx, codecName, codec, ack)
			})
		}
	}
	add("produce-idempotent", produceIdempotent)
	add("round-trip", roundTrip)
	add("large-record", largeRecord)
	add("too-large-record", tooLargeRecord)
	add("auto-create", autoCreate)
	add("consume-from-offset", consumeFromOffset)
	add("consume-by-timestamp", consumeByTimestamp)
	add("offset-reset-latest", offsetResetLatest)
	add("offset-reset-none", offsetResetNone)
	add("concurrent-order", concurrentOrder)
	addExclusive("long-poll-latency", longPollLatency)
}

func produceWith(ctx context.Context, name string, codec kgo.CompressionCodec, ack kgo.Acks) {
	topic := create(ctx, "codec-"+name, 1, nil)
	values := payloads(200, 300)
	client := newClient(kgo.ProducerBatchCompression(codec), kgo.RequiredAcks(ack), kgo.DisableIdempotentWrite(),
		kgo.ProducerLinger(20*time.Millisecond))
	defer client.Close()
	must(client.ProduceSync(ctx, records(topic, 0, values...)...).FirstErr(), "producing")
	found := read(ctx, topic, 0, atStart(), 200)
	equalValues(valuesOf(found), values, "values")
	for n, record := range found {
		equal(record.Offset, int64(n), "offset")
	}
}

func produceIdempotent(ctx context.Context) {
	topic := create(ctx, "idempotent", 2, nil)
	values := payloads(2000, 100)
	client := newClient(kgo.ProducerLinger(time.Millisecond), kgo.ProducerBatchMaxBytes(4096))
	defer client.Close()
	for n, value := range values {
		client.Produce(ctx, &kgo.Record{Topic: topic, Partition: int32(n % 2), Value: value},
			func(_ *kgo.Record, err error) { must(err, "producing") })
	}
	must(client.Flush(ctx), "flushing")
	for partition := range 2 {
		var wanted [][]byte
		for n := partition; n < len(values); n += 2 {
			wanted = append(wanted, values[n])
		}
		equalValues(valuesOf(read(ctx, topic, int32(partition), atStart(), 1000)), wanted, "values")
	}
}

func roundTrip(ctx context.Context) {
	topic := create(ctx, "round-trip", 1, nil)
	all := make([]byte, 256)
	for n := range all {
		all[n] = byte(n)
	}
	sent := []*kgo.Record{
		{Key: []byte("key"), Value: []byte("value"), Headers: []kgo.RecordHeader{
			{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("2")}, {Key: "empty", Value: []byte{}}, {Key: "null"},
		}},
		{Value: []byte("no key")},
		{Key: []byte("null value")},
		{Key: []byte{}, Value: []byte{}, Headers: []kgo.RecordHeader{{Key: "ключ", Value: []byte("Влтава")}}},
		{Key: all, Value: bytes.Clone(all)},
	}
	for n, record := range sent {
		record.Topic = topic
		record.Timestamp = time.UnixMilli(baseTime + int64(n))
	}
	client := newClient()
	defer client.Close()
	must(client.ProduceSync(ctx, sent...).FirstErr(), "producing")
	same := func(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }
	for n, found := range read(ctx, topic, 0, atStart(), len(sent)) {
		check(same(found.Key, sent[n].Key), "key %d: %q", n, found.Key)
		check(same(found.Value, sent[n].Value), "value %d: %q", n, found.Value)
		equal(found.Timestamp.UnixMilli(), baseTime+int64(n), "timestamp")
		equal(len(found.Headers), len(sent[n].Headers), "number of headers")
		for h, header := range found.Headers {
			wanted := sent[n].Headers[h]
			check(header.Key == wanted.Key && same(header.Value, wanted.Value), "header %d of %d: %v", h, n, header)
		}
	}
}

func largeRecord(ctx context.Context) {
	topic := create(ctx, "large", 1, nil)
	values := [][]byte{payload(1, 950_000), payload(2, 950_000), payload(3, 950_000)}
	send(ctx, topic, 0, values...)
	equalValues(valuesOf(read(ctx, topic, 0, atStart(), 3)), values, "values")
}

func tooLargeRecord(ctx context.Context) {
	topic := create(ctx, "too-large", 1, map[string]string{"max.message.bytes": "50000"})
	client := newClient(kgo.ProducerBatchCompression(kgo.NoCompression()))
	defer client.Close()
	err := client.ProduceSync(ctx, records(topic, 0, payload(1, 60_000))...).FirstErr()
	check(errors.Is(err, kerr.MessageTooLarge), "the broker's refusal: %v", err)
	send(ctx, topic, 0, []byte("small"))
	equal(string(read(ctx, topic, 0, atStart(), 1)[0].Value), "small", "the record after the refused one")
}

func autoCreate(ctx context.Context) {
	topic := unique("auto")
	client := newClient(kgo.AllowAutoTopicCreation())
	defer client.Close()
	must(client.ProduceSync(ctx, records(topic, 0, []byte("first"))...).FirstErr(), "producing")
	equal(string(read(ctx, topic, 0, atStart(), 1)[0].Value), "first", "the record")
}

func consumeFromOffset(ctx context.Context) {
	topic := create(ctx, "from-offset", 1, nil)
	values := payloads(500, 100)
	client := newClient(kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerLinger(100*time.Millisecond))
	defer client.Close()
	must(client.ProduceSync(ctx, records(topic, 0, values...)...).FirstErr(), "producing")
	for _, offset := range []int64{0, 1, 137, 498, 499} {
		found := read(ctx, topic, 0, at(offset), 500-int(offset))
		equal(found[0].Offset, offset, "first offset")
		equalValues(valuesOf(found), values[offset:], fmt.Sprintf("values from %d", offset))
	}
}

// produceAtTimes produces `count` records in one batch, `step` milliseconds apart from baseTime on.
func produceAtTimes(ctx context.Context, topic string, count int, step int64) {
	client := newClient(kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.ProducerLinger(100*time.Millisecond))
	defer client.Close()
	list := records(topic, 0, payloads(count, 100)...)
	for n, record := range list {
		record.Timestamp = time.UnixMilli(baseTime + int64(n)*step)
	}
	must(client.ProduceSync(ctx, list...).FirstErr(), "producing")
}

func consumeByTimestamp(ctx context.Context) {
	topic := create(ctx, "by-time", 1, nil)
	produceAtTimes(ctx, topic, 100, 10)
	for after, wanted := range map[int64]int64{0: 0, 505: 51, 990: 99} {
		found := read(ctx, topic, 0, kgo.NewOffset().AfterMilli(baseTime+after), 1)[0]
		equal(found.Offset, wanted, fmt.Sprintf("offset for +%d", after))
		equal(found.Timestamp.UnixMilli(), baseTime+wanted*10, "its timestamp")
	}
}

func offsetResetLatest(ctx context.Context) {
	topic := create(ctx, "reset-latest", 1, nil)
	send(ctx, topic, 0, []byte("before"))
	client := newGroup(unique("latest"), topic, kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()))
	defer client.Close()
	var found []*kgo.Record
	until("a record after the reset", func() bool {
		send(ctx, topic, 0, []byte("after"))
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		found = client.PollFetches(short).Records()
		return len(found) > 0
	})
	equal(string(found[0].Value), "after", "first record")
}

func offsetResetNone(ctx context.Context) {
	topic := create(ctx, "reset-none", 1, nil)
	send(ctx, topic, 0, payloads(5, 10)...)
	// Beyond the end, and told not to reset: the broker's OFFSET_OUT_OF_RANGE must reach the program.
	client := newClient(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: at(1000)}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	)
	defer client.Close()
	fetches := client.PollFetches(ctx)
	check(errors.Is(fetches.Err(), kerr.OffsetOutOfRange), "offset beyond the end: %v", fetches.Err())
}

func concurrentOrder(ctx context.Context) {
	topic := create(ctx, "concurrent", 4, nil)
	const producers, count = 3, 1500
	var group sync.WaitGroup
	for who := range producers {
		group.Go(func() {
			client := newClient(kgo.ProducerLinger(time.Millisecond))
			defer client.Close()
			for n := range count {
				client.Produce(ctx, &kgo.Record{
					Topic: topic, Partition: int32(n % 4), Value: fmt.Appendf(nil, "%d:%d", who, n),
				}, nil)
			}
			_ = client.Flush(ctx)
		})
	}
	client := newClient(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(atStart()))
	defer client.Close()
	last := map[[2]int]int{}
	for _, record := range take(ctx, client, producers*count) {
		var who, n int
		_, err := fmt.Sscanf(string(record.Value), "%d:%d", &who, &n)
		must(err, "reading a value")
		place := [2]int{int(record.Partition), who}
		previous, known := last[place]
		check(!known || n > previous, "producer %d, partition %d: %d after %d", who, record.Partition, n, previous)
		last[place] = n
	}
	group.Wait()
}

func longPollLatency(ctx context.Context) {
	topic := create(ctx, "latency", 1, nil)
	client := newClient(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(atStart()), kgo.FetchMaxWait(5*time.Second))
	defer client.Close()
	sender := newClient()
	defer sender.Close()
	must(sender.ProduceSync(ctx, records(topic, 0, []byte("warm"))...).FirstErr(), "producing")
	take(ctx, client, 1)
	slow := 0
	for range 20 {
		started := time.Now()
		must(sender.ProduceSync(ctx, records(topic, 0, []byte("x"))...).FirstErr(), "producing")
		take(ctx, client, 1)
		if time.Since(started) > 250*time.Millisecond {
			slow++
		}
	}
	check(slow < 10, "a waiting fetch is answered late: %d of 20 took more than 250 ms", slow)
}
