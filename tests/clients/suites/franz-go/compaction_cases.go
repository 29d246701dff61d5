// What compaction leaves of a log, and that no client stalls in the gaps.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Small segments that are compacted at once. Tombstones may go soon after.
var compactedConfigs = map[string]string{
	"cleanup.policy": "compact", "segment.bytes": "1048576", "segment.ms": "10",
	"min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "100", "delete.retention.ms": "100",
}

const (
	// Beyond `segment.ms`.
	rollTime = 20 * time.Millisecond
	// The key of the record that ends the log.
	lastKey = "last"
)

var (
	sharedKeys = []string{"key-0", "key-1", "key-2", "key-3", "key-4"}
	// The last batch ends with tombstones for these.
	deletedKeys = sharedKeys[3:]
	codecNames  = []string{"none", "gzip", "snappy", "lz4", "zstd"}
)

func init() {
	add("compacted-topic", compactedTopic)
	add("no-key-for-a-compacted-topic", noKeyForACompactedTopic)
}

// compactedRecord tells in its value where it comes from, and is worth compressing. A nil value is a tombstone.
func compactedRecord(topic, round, key string) *kgo.Record {
	value := fmt.Appendf(nil, "%s of %s %s", key, round, strings.Repeat("abcdefghij", 20))
	return &kgo.Record{Topic: topic, Key: []byte(key), Value: value}
}

// batchOf gives what one codec's batch holds: a key of its own, so that the batch is cut down and built again in its
// codec, and all shared keys.
func batchOf(topic, codec string) []*kgo.Record {
	list := []*kgo.Record{compactedRecord(topic, codec, "own-"+codec)}
	for _, key := range sharedKeys {
		list = append(list, compactedRecord(topic, codec, key))
	}
	if codec == codecNames[len(codecNames)-1] {
		for _, record := range list[len(list)-len(deletedKeys):] {
			record.Value = nil
		}
	}
	return list
}

// sendBatch produces the records in one batch. They know their offsets then.
func sendBatch(ctx context.Context, client *kgo.Client, list ...*kgo.Record) {
	must(client.ProduceSync(ctx, list...).FirstErr(), "producing")
}

// sendOnce does the same with a producer of its own.
func sendOnce(ctx context.Context, codec string, list ...*kgo.Record) {
	client := newClient(kgo.ProducerBatchCompression(codecs[codec]), kgo.ProducerLinger(50*time.Millisecond))
	defer client.Close()
	sendBatch(ctx, client, list...)
}

// endOf gives the end of a topic of one partition.
func endOf(ctx context.Context, topic string) int64 {
	admin := newAdmin()
	defer admin.Close()
	ends, err := admin.ListEndOffsets(ctx, topic)
	must(err, "listing ends")
	end, _ := ends.Lookup(topic, 0)
	must(end.Err, "the end")
	return end.Offset
}

// readUntil reads from an offset to the record that ends the log, one batch a fetch, so that empty ones come alone.
func readUntil(ctx context.Context, topic string, from kgo.Offset, last int64) []*kgo.Record {
	place := map[string]map[int32]kgo.Offset{topic: {0: from}}
	client := newClient(kgo.ConsumePartitions(place), kgo.FetchMaxPartitionBytes(1))
	defer client.Close()
	return pollUntil(ctx, client, last)
}

func pollUntil(ctx context.Context, client *kgo.Client, last int64) []*kgo.Record {
	list := take(ctx, client, 1)
	for list[len(list)-1].Offset < last {
		list = append(list, take(ctx, client, 1)...)
	}
	return list
}

// lastValues gives the last record of every key, and whether no key is there twice.
func lastValues(list []*kgo.Record) (map[string]*kgo.Record, bool) {
	found := map[string]*kgo.Record{}
	for _, record := range list {
		found[string(record.Key)] = record
	}
	return found, len(found) == len(list)
}

// equalLast fails the case unless the last record of every key is the wanted one. A tombstone may be gone.
func equalLast(list []*kgo.Record, wanted map[string]*kgo.Record) {
	found, _ := lastValues(list)
	for key, record := range wanted {
		left, known := found[key]
		if !known {
			check(record.Value == nil, "%s is not there", key)
			continue
		}
		same := (left.Value == nil) == (record.Value == nil) && bytes.Equal(left.Value, record.Value)
		check(same, "the last value of %s is %.40q", key, left.Value)
		delete(found, key)
	}
	equal(len(found), 0, "keys that nobody wrote")
}

func compactedTopic(ctx context.Context) {
	topic := create(ctx, "compacted", 1, compactedConfigs)
	// Idempotent. Of its first batch an empty one stays, since it is the last of a producer that may go on.
	lasting := newClient(kgo.ProducerLinger(50 * time.Millisecond))
	defer lasting.Close()
	var written []*kgo.Record
	for _, key := range sharedKeys {
		written = append(written, compactedRecord(topic, "first", key))
	}
	sendBatch(ctx, lasting, written...)
	for _, codec := range codecNames {
		list := batchOf(topic, codec)
		sendOnce(ctx, codec, list...)
		written = append(written, list...)
	}
	// A record that is so much younger closes the segment before it.
	begun := time.Now()
	until("the clock to move", func() bool { return time.Since(begun) > rollTime })
	end := compactedRecord(topic, "end", lastKey)
	sendOnce(ctx, "none", end)
	written = append(written, end)
	equal(end.Offset, int64(len(written)-1), "offset of the last record")

	var left []*kgo.Record
	until("compaction", func() bool {
		left = readUntil(ctx, topic, atStart(), end.Offset)
		_, settled := lastValues(left)
		return settled
	})
	check(len(left) < len(written), "%d of %d records are left", len(left), len(written))
	for n := range left[1:] {
		check(left[n].Offset < left[n+1].Offset, "offset %d after %d", left[n+1].Offset, left[n].Offset)
	}
	wanted, _ := lastValues(written)
	equalLast(left, wanted)
	resumeInGap(ctx, topic, left)

	// The producer goes on; then nothing is left at the end of the log but, at most, a tombstone.
	after := &kgo.Record{Topic: topic, Key: []byte("key-0"), Value: []byte("afterwards")}
	gone := &kgo.Record{Topic: topic, Key: []byte(lastKey)}
	for n, record := range []*kgo.Record{after, gone} {
		sendBatch(ctx, lasting, record)
		equal(record.Offset, end.Offset+1+int64(n), "offset after compaction")
		wanted[string(record.Key)] = record
	}
	readOverTheEnd(ctx, lasting, topic, wanted)
}

// resumeInGap lets a group begin where it committed, and there is nothing any more.
func resumeInGap(ctx context.Context, topic string, left []*kgo.Record) {
	group := unique("compacted")
	check(left[0].Offset > 2, "a gap at the beginning, not %d", left[0].Offset)
	admin := newAdmin()
	defer admin.Close()
	var offsets kadm.Offsets
	offsets.AddOffset(topic, 0, 2, -1)
	must(admin.CommitAllOffsets(ctx, group, offsets), "committing")
	client := newGroup(group, topic)
	defer client.Close()
	rest := pollUntil(ctx, client, left[len(left)-1].Offset)
	equal(rest[0].Offset, left[0].Offset, "first offset after the gap")
}

// readOverTheEnd reads a log whose last record is a tombstone, or has been one, and then a record that comes later.
func readOverTheEnd(ctx context.Context, producer *kgo.Client, topic string, wanted map[string]*kgo.Record) {
	client := newClient(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: atStart()}}),
		kgo.FetchMaxPartitionBytes(1))
	defer client.Close()
	later := compactedRecord(topic, "later", "later")
	list := pollUntil(ctx, client, wanted["key-0"].Offset)
	// Until it waits at the end, whatever that looks like.
	list = append(list, pollShortly(ctx, client)...)
	sendBatch(ctx, producer, later)
	list = append(list, pollUntil(ctx, client, later.Offset)...)
	wanted["later"] = later
	equalLast(list, wanted)
}

// pollShortly gives what comes within a time in which something would come.
func pollShortly(ctx context.Context, client *kgo.Client) []*kgo.Record {
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	return client.PollFetches(short).Records()
}

func noKeyForACompactedTopic(ctx context.Context) {
	topic := create(ctx, "keyless", 1, compactedConfigs)
	client := newClient()
	defer client.Close()
	err := client.ProduceSync(ctx, records(topic, 0, []byte("no key"))...).FirstErr()
	check(errors.Is(err, kerr.InvalidRecord), "a record without a key: %v", err)
	record := compactedRecord(topic, "after", "key")
	sendBatch(ctx, client, record)
	equal(record.Offset, 0, "offset of the record after the refused one")
}
