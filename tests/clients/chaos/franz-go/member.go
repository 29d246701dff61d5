// The franz-go member of the chaos test: `run` produces and consumes until told to end, `read` reads all back.
//
// What it is given and what it writes stands in tests/clients/README.md.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	commitEvery = 500 * time.Millisecond
	// Shorter, together, than a broker is held: what was sent to it is sent to others before it goes on.
	produceTimeout = 3 * time.Second
	requestTimeout = time.Second
)

var (
	topic      = os.Getenv("TOPIC")
	partitions = number("PARTITIONS")

	journal *os.File
	lock    sync.Mutex
)

func number(name string) int {
	value, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		panic(name + " is to be a number")
	}
	return value
}

// write adds a line that others read while more are written.
func write(words ...any) {
	line := fmt.Sprint(time.Now().UnixMilli())
	for _, word := range words {
		line += " " + strings.ReplaceAll(fmt.Sprint(word), "\n", " ")
	}
	lock.Lock()
	defer lock.Unlock()
	if _, err := journal.WriteString(line + "\n"); err != nil {
		panic(err)
	}
}

func newClient(options ...kgo.Opt) *kgo.Client {
	seeds := kgo.SeedBrokers(strings.Split(os.Getenv("BOOTSTRAP"), ",")...)
	client, err := kgo.NewClient(append([]kgo.Opt{seeds, kgo.RequestTimeoutOverhead(requestTimeout)}, options...)...)
	if err != nil {
		panic(err)
	}
	return client
}

// produce writes numbered records, round and round the partitions, until the end; then it waits for what is under way.
func produce(ends <-chan struct{}) {
	client := newClient(
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(5*time.Millisecond), kgo.StopProducerOnDataLossDetected(),
		kgo.ProduceRequestTimeout(produceTimeout),
	)
	step := time.Second / time.Duration(number("RATE"))
	due := time.Now()
	count := 0
	for goesOn := true; goesOn; count++ {
		partition, sequence := int32(count%partitions), count/partitions
		value := fmt.Sprintf("franz-go:%d:%d", partition, sequence)
		record := &kgo.Record{Topic: topic, Partition: partition, Value: []byte(value)}
		client.Produce(context.Background(), record, func(record *kgo.Record, err error) {
			if err != nil {
				write("refused", partition, sequence, err)
			} else {
				write("acked", partition, sequence, record.Offset)
			}
		})
		// What was missed while there was no room is not made up for.
		due = due.Add(step)
		if least := time.Now().Add(-100 * time.Millisecond); due.Before(least) {
			due = least
		}
		select {
		case <-ends:
			goesOn = false
		case <-time.After(time.Until(due)):
		}
	}
	limited, cancel := context.WithTimeout(context.Background(), time.Duration(number("FLUSH_S"))*time.Second)
	defer cancel()
	if err := client.Flush(limited); err != nil {
		write("note", "producer: flush:", err)
	}
	write("flushed", count)
	client.Close()
}

// member is one consumer of the group; it commits what it has seen.
type member struct {
	name      string
	client    *kgo.Client
	positions map[int32]kgo.EpochOffset
}

func newMember(name string) *member {
	m := &member{name: name, positions: map[int32]kgo.EpochOffset{}}
	m.client = newClient(
		kgo.ConsumerGroup(os.Getenv("GROUP")), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(time.Duration(number("SESSION_MS"))*time.Millisecond),
		kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.OnPartitionsRevoked(func(ctx context.Context, _ *kgo.Client, revoked map[string][]int32) {
			m.commit(ctx)
			m.forget(revoked)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) { m.forget(lost) }),
	)
	return m
}

func (m *member) forget(gone map[string][]int32) {
	for _, partition := range gone[topic] {
		delete(m.positions, partition)
	}
}

func (m *member) run(ends <-chan struct{}) {
	due := time.Now().Add(commitEvery)
	for {
		m.poll()
		select {
		case <-ends:
			m.commit(context.Background())
			m.client.AllowRebalance()
			m.client.Close()
			return
		default:
		}
		if time.Now().After(due) {
			m.commit(context.Background())
			due = time.Now().Add(commitEvery)
		}
		// Until the next poll members may come and go; not so while positions are touched.
		m.client.AllowRebalance()
	}
}

func (m *member) poll() {
	limited, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	fetches := m.client.PollFetches(limited)
	fetches.EachError(func(_ string, partition int32, err error) {
		var loss *kgo.ErrDataLoss
		if errors.As(err, &loss) {
			write("failed", m.name, err)
		} else if !errors.Is(err, context.DeadlineExceeded) {
			write("note", m.name+":", partition, err)
		}
	})
	fetches.EachRecord(func(record *kgo.Record) {
		write("saw", m.name, record.Partition, record.Offset, string(record.Value))
		m.positions[record.Partition] = kgo.EpochOffset{Epoch: record.LeaderEpoch, Offset: record.Offset + 1}
	})
}

func (m *member) commit(ctx context.Context) {
	if len(m.positions) == 0 {
		return
	}
	asked := map[string]map[int32]kgo.EpochOffset{topic: m.positions}
	m.client.CommitOffsetsSync(ctx, asked, func(
		_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error,
	) {
		if err != nil {
			write("note", m.name+": commit:", err)
			return
		}
		for _, partition := range response.Topics[0].Partitions {
			if err := kerr.ErrorForCode(partition.ErrorCode); err != nil {
				write("note", m.name+": commit:", err)
				continue
			}
			write("committed", m.name, partition.Partition, m.positions[partition.Partition].Offset)
			delete(m.positions, partition.Partition)
		}
	})
}

// run goes on until the input ends; the first line of it ends the producer.
func run() {
	flush, end := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() { produce(flush) })
	for _, name := range []string{"first", "second"} {
		all.Go(func() { newMember(name).run(end) })
	}
	input := bufio.NewReader(os.Stdin)
	// The end of the input is an answer, too.
	_, _ = input.ReadString('\n')
	close(flush)
	_, _ = io.Copy(io.Discard, input)
	close(end)
	all.Wait()
}

// read tells every record of the topic up to its present end.
func read() {
	ctx := context.Background()
	from := map[int32]kgo.Offset{}
	for partition := range int32(partitions) {
		from[partition] = kgo.NewOffset().AtStart()
	}
	client := newClient(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		panic(err)
	}
	left := map[int32]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		write("end", end.Partition, end.Offset)
		if end.Offset > 0 {
			left[end.Partition] = end.Offset
		}
	})
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		fetches.EachError(func(_ string, partition int32, err error) { write("note", "reader:", partition, err) })
		fetches.EachRecord(func(record *kgo.Record) {
			write("found", record.Partition, record.Offset, string(record.Value))
			if record.Offset+1 >= left[record.Partition] {
				delete(left, record.Partition)
			}
		})
	}
}

func main() {
	var err error
	if journal, err = os.OpenFile(os.Getenv("JOURNAL"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
		panic(err)
	}
	if os.Args[1] == "read" {
		read()
	} else {
		run()
	}
	write("ended")
}
