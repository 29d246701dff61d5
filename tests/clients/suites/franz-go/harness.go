// The suite of franz-go, the Go client that follows the broker up to the newest version of every API, with its admin
// package kadm.
//
// This file: cases, waiting for conditions, child processes, the control channel. Cases run a few at a time, each with
// topics and groups of its own; exclusive ones (that restart the broker, or measure time) run alone, after the others.
// A check that does not hold panics with a failure, which ends its case.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// How many ordinary cases run at a time.
	width = 4
	// A case that takes longer has failed, and the suite ends there.
	caseTimeout = 90 * time.Second
	// How long a condition is awaited.
	waitTimeout = 30 * time.Second
	// The least session timeout that brokers allow by default: what a member's death costs.
	sessionTimeout = 6 * time.Second
)

var (
	bootstrap = os.Getenv("BOOTSTRAP")
	numbers   atomic.Int64
	output    sync.Mutex
	allCases  []testCase
	roles     = map[string]func(words []string){}
)

type testCase struct {
	name      string
	exclusive bool
	run       func(ctx context.Context)
}

// failure is what a failed check panics with.
type failure string

func add(name string, run func(ctx context.Context)) {
	allCases = append(allCases, testCase{name, false, run})
}

func addExclusive(name string, run func(ctx context.Context)) {
	allCases = append(allCases, testCase{name, true, run})
}

func failf(format string, arguments ...any) {
	panic(failure(fmt.Sprintf(format, arguments...)))
}

func check(condition bool, format string, arguments ...any) {
	if !condition {
		failf(format, arguments...)
	}
}

// must fails the case if there is an error.
func must(err error, what string) {
	if err != nil {
		failf("%s: %v", what, err)
	}
}

func equal[T comparable](found, wanted T, what string) {
	check(found == wanted, "%s: found %v, wanted %v", what, found, wanted)
}

func equalValues(found, wanted [][]byte, what string) {
	equal(len(found), len(wanted), what+", their number")
	for n := range wanted {
		if !bytes.Equal(found[n], wanted[n]) {
			failf("%s: value %d is %.60q, wanted %.60q", what, n, found[n], wanted[n])
		}
	}
}

// until asks until the answer is true.
func until(what string, condition func() bool) {
	deadline := time.Now().Add(waitTimeout)
	for !condition() {
		check(time.Now().Before(deadline), "%s: not within %v", what, waitTimeout)
		time.Sleep(50 * time.Millisecond)
	}
}

// unique gives a name that no other case uses.
func unique(prefix string) string {
	return fmt.Sprintf("%s-%d-%08x", prefix, numbers.Add(1), rand.Uint32())
}

// payload gives a value of that size that tells its number, the same for the same number.
func payload(number, size int) []byte {
	unit := []byte(fmt.Sprintf("%08d:%c žluť\x00", number, 'a'+number%26))
	return bytes.Repeat(unit, size/len(unit)+1)[:size]
}

func payloads(count, size int) [][]byte {
	values := make([][]byte, count)
	for n := range values {
		values[n] = payload(n, size)
	}
	return values
}

// restart ends the broker by the signal and returns once it accepts again, on the same data and port.
func restart(signal string) {
	client := http.Client{Timeout: 2 * time.Minute}
	answer, err := client.Post(os.Getenv("CONTROL")+"/restart?signal="+signal, "text/plain", nil)
	must(err, "asking for a restart")
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	check(answer.StatusCode == http.StatusOK, "restart: %s", text)
}

// child is another process of this suite in one of its roles: what can be killed as a whole.
type child struct {
	command *exec.Cmd
	lines   chan string
	done    chan struct{}
}

func spawn(words ...string) *child {
	command := exec.Command(os.Args[0], words...)
	command.Stderr = os.Stdout
	pipe, err := command.StdoutPipe()
	must(err, "a pipe")
	must(command.Start(), "starting a child")
	c := &child{command, make(chan string, 100_000), make(chan struct{})}
	go func() {
		scanner := bufio.NewScanner(pipe)
		for scanner.Scan() {
			c.lines <- scanner.Text()
		}
		_ = command.Wait()
		close(c.done)
		close(c.lines)
	}()
	return c
}

// waitLine returns the first line from now on that is accepted.
func (c *child) waitLine(what string, accept func(line string) bool) string {
	deadline := time.After(waitTimeout)
	var seen []string
	for {
		select {
		case line, open := <-c.lines:
			last := seen[max(0, len(seen)-5):]
			check(open, "%s: the child ended; last lines %q", what, last)
			if accept(line) {
				return line
			}
			seen = append(seen, line)
		case <-deadline:
			failf("%s: not within %v; last lines %q", what, waitTimeout, seen[max(0, len(seen)-5):])
		}
	}
}

// owns waits until the child owns that many partitions; returns them.
func (c *child) owns(count int, what string) []int32 {
	return partitionsOf(c.waitLine(what, func(line string) bool {
		return strings.HasPrefix(line, "assigned ") && len(partitionsOf(line)) == count
	}))
}

// kill is kill -9.
func (c *child) kill() {
	_ = c.command.Process.Kill()
	<-c.done
}

// end asks the child to leave by SIGTERM and waits for its end.
func (c *child) end() {
	must(c.command.Process.Signal(syscall.SIGTERM), "SIGTERM")
	select {
	case <-c.done:
	case <-time.After(waitTimeout):
		failf("the child did not end after SIGTERM")
	}
}

// tellAssigned prints the line by which a member child tells what it owns.
func tellAssigned(partitions []int32) {
	words := make([]string, len(partitions))
	for n, partition := range slices.Sorted(slices.Values(partitions)) {
		words[n] = strconv.Itoa(int(partition))
	}
	fmt.Println("assigned " + strings.Join(words, ","))
}

func partitionsOf(line string) []int32 {
	var partitions []int32
	for _, word := range strings.Split(strings.TrimPrefix(line, "assigned "), ",") {
		if number, err := strconv.Atoi(word); err == nil {
			partitions = append(partitions, int32(number))
		}
	}
	return partitions
}

func say(line string) {
	output.Lock()
	defer output.Unlock()
	fmt.Println(line)
}

func runCase(entry testCase) {
	ctx, cancel := context.WithTimeout(context.Background(), caseTimeout)
	defer cancel()
	watchdog := time.AfterFunc(caseTimeout+5*time.Second, func() {
		say(fmt.Sprintf("not ok %s: took more than %v", entry.name, caseTimeout))
		os.Exit(1)
	})
	defer watchdog.Stop()
	defer func() {
		switch why := recover().(type) {
		case nil:
			say("ok " + entry.name)
		case failure:
			say(fmt.Sprintf("not ok %s: %s", entry.name, strings.Join(strings.Fields(string(why)), " ")))
		default:
			say(string(debug.Stack()))
			say(fmt.Sprintf("not ok %s: %v", entry.name, why))
		}
	}()
	entry.run(ctx)
}

// main runs the role named on the command line, or else all cases (`CASES=a,b` picks some).
func main() {
	if len(os.Args) > 1 {
		roles[os.Args[1]](os.Args[2:])
		return
	}
	picked := strings.FieldsFunc(os.Getenv("CASES"), func(r rune) bool { return r == ',' })
	var wanted []testCase
	for _, entry := range allCases {
		if len(picked) == 0 || slices.Contains(picked, entry.name) {
			wanted = append(wanted, entry)
		}
	}
	var group sync.WaitGroup
	places := make(chan struct{}, width)
	for _, entry := range wanted {
		if !entry.exclusive {
			places <- struct{}{}
			group.Go(func() {
				runCase(entry)
				<-places
			})
		}
	}
	group.Wait()
	for _, entry := range wanted {
		if entry.exclusive {
			runCase(entry)
		}
	}
	say(fmt.Sprintf("end %d", len(wanted)))
}
