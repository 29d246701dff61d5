// Groups, commits, and what a restart of the broker must not lose.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

var balancers = map[string]kgo.GroupBalancer{
	"range": kgo.RangeBalancer(), "roundrobin": kgo.RoundRobinBalancer(),
	"sticky": kgo.StickyBalancer(), "cooperative-sticky": kgo.CooperativeStickyBalancer(),
}

func init() {
	roles["member"] = member
	for name := range balancers {
		add("group-join-and-leave-"+name, func(ctx context.Context) { joinAndLeave(ctx, name) })
	}
	add("group-of-one", groupOfOne)
	add("group-member-dies", memberDies)
	add("group-static-member-returns", staticMemberReturns)
	add("commits", commits)
	addExclusive("commits-survive-kill", commitsSurviveKill)
	addExclusive("idempotent-produce-over-kill", produceOverKill)
	addExclusive("group-lives-over-clean-restart", groupOverRestart)
}

// member is a child's role: a group member that tells its partitions whenever they change; SIGTERM makes it leave.
func member(words []string) {
	group, topic, balancer := words[0], words[1], words[2]
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var lock sync.Mutex
	owned := map[int32]bool{}
	change := func(own bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, changed map[string][]int32) {
			lock.Lock()
			defer lock.Unlock()
			for _, partition := range changed[topic] {
				if own {
					owned[partition] = true
				} else {
					delete(owned, partition)
				}
			}
			var list []int32
			for partition := range owned {
				list = append(list, partition)
			}
			tellAssigned(list)
		}
	}
	options := []kgo.Opt{
		kgo.Balancers(balancers[balancer]), kgo.OnPartitionsAssigned(change(true)),
		kgo.OnPartitionsRevoked(change(false)), kgo.OnPartitionsLost(change(false)),
	}
	if len(words) > 3 {
		options = append(options, kgo.InstanceID(words[3]))
	}
	client := newGroup(group, topic, options...)
	defer client.Close()
	for ctx.Err() == nil {
		client.PollFetches(ctx).EachRecord(func(record *kgo.Record) {
			fmt.Fprintf(os.Stdout, "got %d %d\n", record.Partition, record.Offset)
		})
	}
}

func groupOfOne(ctx context.Context) {
	topic := create(ctx, "one", 3, nil)
	group := unique("one")
	for partition := range int32(3) {
		send(ctx, topic, partition, []byte("x"))
	}
	client := newGroup(group, topic)
	take(ctx, client, 3)
	must(client.CommitUncommittedOffsets(ctx), "committing")
	client.Close()
	client = newGroup(group, topic)
	defer client.Close()
	send(ctx, topic, 1, []byte("later"))
	equal(string(take(ctx, client, 1)[0].Value), "later", "only what follows the commit")
}

func joinAndLeave(ctx context.Context, balancer string) {
	topic := create(ctx, "join", 4, nil)
	group := unique("join")
	first := spawn("member", group, topic, balancer)
	defer first.kill()
	first.owns(4, "the only member owns all")
	second := spawn("member", group, topic, balancer)
	defer second.kill()
	all := append(second.owns(2, "the second member's half"), first.owns(2, "the first member's half")...)
	slices.Sort(all)
	check(slices.Equal(all, []int32{0, 1, 2, 3}), "together they own all, not %v", all)
	second.end()
	first.owns(4, "all again after the second left")
}

func memberDies(ctx context.Context) {
	topic := create(ctx, "die", 4, nil)
	group := unique("die")
	first := spawn("member", group, topic, "range")
	defer first.kill()
	second := spawn("member", group, topic, "range")
	defer second.kill()
	first.owns(2, "the first member's half")
	second.owns(2, "the second member's half")
	second.kill()
	first.owns(4, "the rest takes over")
	send(ctx, topic, 3, []byte("x"))
	first.waitLine("a record of a partition taken over", func(line string) bool { return line == "got 3 0" })
}

func staticMemberReturns(ctx context.Context) {
	topic := create(ctx, "static", 2, nil)
	group := unique("static")
	first := spawn("member", group, topic, "range", "a")
	defer first.kill()
	first.owns(2, "all")
	second := spawn("member", group, topic, "range", "b")
	defer second.kill()
	other := second.owns(1, "the second half")
	mine := first.owns(1, "the first half")
	check(mine[0] != other[0], "the halves differ")
	second.kill()
	returned := spawn("member", group, topic, "range", "b")
	defer returned.kill()
	equal(returned.owns(1, "its old partition")[0], other[0], "partition of the returned member")
	send(ctx, topic, mine[0], []byte("x"))
	line := first.waitLine("the record", func(line string) bool {
		return strings.HasPrefix(line, "got") || strings.HasPrefix(line, "assigned")
	})
	equal(line, fmt.Sprintf("got %d 0", mine[0]), "what the untouched member saw")
}

func commits(ctx context.Context) {
	topic := create(ctx, "commits", 2, nil)
	group := unique("commits")
	send(ctx, topic, 0, payloads(10, 10)...)
	client := newGroup(group, topic)
	defer client.Close()
	list := take(ctx, client, 10)
	must(client.CommitRecords(ctx, list[3]), "committing")
	admin := newAdmin()
	defer admin.Close()
	fetched, err := admin.FetchOffsets(ctx, group)
	must(err, "fetching")
	equal(fetched[topic][0].At, 4, "committed")
	check(fetched[topic][0].LeaderEpoch >= 0, "the leader epoch is kept, not %d", fetched[topic][0].LeaderEpoch)
	_, known := fetched.Lookup(topic, 1)
	check(!known, "nothing is committed for the other partition")
	// A commit from outside must not disturb a group that has members.
	var offsets kadm.Offsets
	offsets.AddOffset(topic, 0, 1, -1)
	err = admin.CommitAllOffsets(ctx, group, offsets)
	check(errors.Is(err, kerr.UnknownMemberID), "a commit from outside: %v", err)
}

func commitsSurviveKill(ctx context.Context) {
	topic := create(ctx, "survive", 1, nil)
	group := unique("survive")
	values := payloads(100, 100)
	send(ctx, topic, 0, values...)
	client := newGroup(group, topic)
	list := take(ctx, client, 60)
	must(client.CommitRecords(ctx, list...), "committing")
	client.Close()
	restart("KILL")
	admin := newAdmin()
	defer admin.Close()
	fetched, err := admin.FetchOffsets(ctx, group)
	must(err, "fetching")
	equal(fetched[topic][0].At, 60, "committed after kill -9")
	client = newGroup(group, topic)
	defer client.Close()
	equalValues(valuesOf(take(ctx, client, 40)), values[60:], "the rest")
}

func produceOverKill(ctx context.Context) {
	topic := create(ctx, "in-flight", 1, nil)
	values := payloads(4000, 100)
	client := newClient(kgo.ProducerLinger(2*time.Millisecond), kgo.ProducerBatchMaxBytes(4096))
	defer client.Close()
	var delivered, failed atomic.Int64
	var restarted atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n, value := range values {
			client.Produce(ctx, &kgo.Record{Topic: topic, Value: value}, func(_ *kgo.Record, err error) {
				if err == nil {
					delivered.Add(1)
				} else {
					failed.Add(1)
				}
			})
			if n > 2000 && !restarted.Load() {
				time.Sleep(2 * time.Millisecond)
			}
		}
	}()
	until("the first deliveries", func() bool { return delivered.Load() > 1500 })
	restart("KILL")
	restarted.Store(true)
	<-done
	must(client.Flush(ctx), "flushing")
	equal(failed.Load(), 0, "failed records")
	equalValues(valuesOf(read(ctx, topic, 0, atStart(), len(values))), values, "each once and in order")
}

func groupOverRestart(ctx context.Context) {
	topic := create(ctx, "restart", 2, nil)
	first := spawn("member", unique("restart"), topic, "cooperative-sticky")
	defer first.kill()
	first.owns(2, "all")
	send(ctx, topic, 0, []byte("before"))
	first.waitLine("the record before", func(line string) bool { return line == "got 0 0" })
	restart("TERM")
	send(ctx, topic, 0, []byte("after"))
	first.waitLine("the record after", func(line string) bool { return line == "got 0 1" })
}
