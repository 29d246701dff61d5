"""kcat as Debian packages it, and so a librdkafka of 2022: what operators still have on their machines.

kcat cannot create topics, so its broker is set to create them by itself, with four partitions. The compacted ones
are created by `vltava topic create`.

With STAND_IN set, what is called kcat is our own `vltava cat`: the same cases hold, but for errors in its own
words and for an assignor it does not offer.
"""

import json
import os
import queue
import re
import signal
import subprocess
import threading
import time

import compaction
import harness
from harness import BOOTSTRAP, BROKER, SESSION_MS, case, check, equal, unique, wait_until

PARTITIONS = 4
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
STAND_IN = bool(os.environ.get("STAND_IN"))
# One line per record: partition, offset, timestamp, key length, key, value length, value, headers.
FORMAT = "%p|%o|%T|%K|%k|%S|%s|%h\n"
# The same for what is read from a compacted topic: offset, key, value length, value.
ROW = "%o|%k|%S|%s\n"
# What comes of one producer. kcat reads its input in blocks, so that none can be kept waiting for the next record.
IDEMPOTENT = ["-X", "enable.idempotence=true"]
GROUP = ["-X", f"session.timeout.ms={SESSION_MS}", "-X", "heartbeat.interval.ms=500",
         "-X", "auto.offset.reset=earliest"]


def kcat(*arguments: str, data: bytes = b"", fails: bool = False) -> str:
    """Runs kcat to its end; returns its standard output, or the error if it must fail."""
    command = ["kcat", "-b", BOOTSTRAP, "-m", "30", *arguments]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    error = done.stderr.decode(errors="replace")
    if fails:
        check(done.returncode != 0, "kcat should have failed")
        return error
    check(done.returncode == 0, f"kcat ended with status {done.returncode}: {error.strip()[-300:]}")
    return done.stdout.decode()


def produce(topic: str, lines: list, *options: str, partition: int = 0) -> None:
    """Produces one record per line; the topic comes into being by it."""
    data = "".join(f"{line}\n" for line in lines).encode()
    kcat("-P", "-t", topic, "-p", str(partition), *options, data=data)


def create(prefix: str) -> str:
    """A topic that exists and has a leader for each of its partitions."""
    topic = unique(prefix)
    wait_until(lambda: len([p for p in describe(topic) if p["leader"] >= 0]) == PARTITIONS, f"leaders of {topic}")
    return topic


def describe(topic: str) -> list:
    """The partitions of one topic as kcat's metadata listing tells them."""
    listing = json.loads(kcat("-L", "-J", "-t", topic, "-X", "allow.auto.create.topics=true"))
    return listing["topics"][0]["partitions"]


def consume(topic: str, *options: str, partition: int = 0, offset: str = "beginning", form: str = "%s\n") -> list:
    """The lines of one partition from an offset to its end."""
    output = kcat("-C", "-q", "-e", "-t", topic, "-p", str(partition), "-o", offset, "-f", form, *options)
    return output.splitlines()


# ---------------------------------------------------------------- compaction: first, since it waits

def create_compacted(prefix: str) -> str:
    """A compacted topic of one partition."""
    topic = unique(prefix)
    configs = [word for key, value in compaction.CONFIG.items() for word in ("-c", f"{key}={value}")]
    command = [os.environ["VLTAVA"], "topic", "create", topic, "-b", BOOTSTRAP, "-p", "1", *configs]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    equal((done.returncode, done.stderr), (0, b""), "creating a compacted topic")
    return topic


def produce_pairs(topic: str, pairs: list, *options: str) -> None:
    """Produces keys and values in one batch."""
    produce(topic, compaction.lines(pairs), "-K", "=", "-Z", "-X", "linger.ms=50", *options)


def rows(output: str) -> list:
    """Offsets, keys and values of what was printed as ROW."""
    fields = [line.split("|") for line in output.splitlines()]
    return [(int(offset), key, None if size == "-1" else value) for offset, key, size, value in fields]


def read_all(topic: str) -> list:
    """Reads from the beginning to the end, one batch a fetch, so that empty ones come alone."""
    return rows(kcat("-C", "-q", "-e", "-t", topic, "-p", "0", "-o", "beginning", "-f", ROW,
                     "-X", "fetch.message.max.bytes=1"))


@case
def compacted_topic():
    topic, group = create_compacted("compacted"), unique("compacted")
    first = compaction.first_batch()
    produce_pairs(topic, first, *IDEMPOTENT)
    read = kcat("-G", group, *GROUP, "-q", "-c", "3", topic).splitlines()
    equal(read, [value for _, value in first[:3]], "what a group reads and commits")
    for codec in CODECS:
        produce_pairs(topic, compaction.batch(codec, CODECS), "-z", codec)
    compaction.await_roll()
    wanted, count = compaction.left(CODECS), compaction.written(CODECS)
    produce_pairs(topic, [compaction.LAST])
    wait_until(lambda: compaction.settled(read_all(topic)), "compaction", every_s=0.2)
    records = read_all(topic)
    compaction.judge(records, wanted, count)
    check(records[0][0] > 3, "the group committed where nothing is left")
    rest = rows(kcat("-G", group, *GROUP, "-q", "-e", "-f", ROW, topic))
    equal(compaction.live(rest), compaction.live(records), "records from there")

    # Nothing is left at the end of the log but, at most, a tombstone.
    changes = [("key-0", "afterwards"), (compaction.LAST[0], None)]
    for change in changes:
        produce_pairs(topic, [change], *IDEMPOTENT)
    found = {key: value for _, key, value in read_all(topic)}
    equal({key: found.get(key) for key in wanted}, {**wanted, **dict(changes)}, "the last values")


@case
def no_key_for_a_compacted_topic():
    topic = create_compacted("keyless")
    error = kcat("-P", "-t", topic, "-p", "0", data=b"no key\n", fails=True)
    words = "INVALID_RECORD" if STAND_IN else "Broker failed to validate record"
    check(words in error, f"the broker's refusal, not: {error[-300:]}")
    produce_pairs(topic, [("key", "value")])
    equal(read_all(topic), [(0, "key", "value")], "the record after the refused one")


# ---------------------------------------------------------------- metadata

@case
def metadata_listing():
    topic = create("listing")
    listing = json.loads(kcat("-L", "-J"))
    port = int(BOOTSTRAP.split(":")[1])
    equal([broker["name"] for broker in listing["brokers"]], [f"127.0.0.1:{port}"], "brokers")
    check(listing["controllerid"] in [broker["id"] for broker in listing["brokers"]], "the controller is a broker")
    found = [entry for entry in listing["topics"] if entry["topic"] == topic]
    equal([p["partition"] for p in found[0]["partitions"]], list(range(PARTITIONS)), "partitions")
    check("1 brokers" in kcat("-L"), "the listing for people")


# ---------------------------------------------------------------- produce and consume

def produce_with(codec: str, acks: str):
    def body():
        topic = create(f"codec-{codec}")
        lines = [f"line {n} " + "abcdefghij" * 20 for n in range(200)]
        produce(topic, lines, "-z", codec, "-X", f"acks={acks}", "-X", "linger.ms=20")
        wanted = lines
        if acks == "0" and BROKER == "kafka":
            # Apache Kafka may lose what comes right before its connection is closed. Vltava must not.
            wanted = lines[:len(consume(topic))]
        elif acks == "0":
            # Nobody has said yet that they arrived.
            wait_until(lambda: len(consume(topic)) >= len(lines), "the records")
        equal(consume(topic)[:len(wanted)], wanted, "values")
        equal(consume(topic, form="%o\n")[:len(wanted)], [str(n) for n in range(len(wanted))], "offsets")

    return body


for _codec in CODECS:
    for _acks in ["0", "1", "-1"]:
        name = "all" if _acks == "-1" else _acks
        harness.add(f"produce-{_codec}-acks-{name}", produce_with(_codec, _acks))


@case
def produce_idempotent():
    topic = create("idempotent")
    lines = [f"line {n}" for n in range(5000)]
    produce(topic, lines, "-X", "enable.idempotence=true", "-X", "batch.num.messages=50")
    equal(consume(topic), lines, "values")


@case
def round_trip():
    topic = create("round-trip")
    kcat("-P", "-t", topic, "-p", "0", "-K", "=", "-H", "a=1", "-H", "a=2", data=b"key=value\n")
    kcat("-P", "-t", topic, "-p", "0", "-K", "=", "-Z", data=b"null value=\n=\n")
    kcat("-P", "-t", topic, "-p", "0", data="žluť ключ\n".encode())
    rows = [line.split("|") for line in consume(topic, form=FORMAT)]
    equal([row[3:] for row in rows], [
        ["3", "key", "5", "value", "a=1,a=2"],
        ["10", "null value", "-1", "", ""],
        ["-1", "", "-1", "", ""],
        ["-1", "", str(len("žluť ключ".encode())), "žluť ключ", ""],
    ], "records")
    now = time.time() * 1000
    check(all(abs(now - int(row[2])) < 60_000 for row in rows), "timestamps are of now")


@case
def large_record():
    topic = create("large")
    line = "x" * 950_000
    produce(topic, [line, line], "-X", "message.max.bytes=2000000")
    equal([len(value) for value in consume(topic)], [950_000, 950_000], "sizes")


@case
def too_large_record():
    topic = create("too-large")
    error = kcat("-P", "-t", topic, "-p", "0", "-X", "message.max.bytes=4000000", data=b"x" * 2_000_000, fails=True)
    words = "MESSAGE_TOO_LARGE" if STAND_IN else "Message size too large"
    check(words in error, f"the broker's refusal, not: {error[-300:]}")


@case
def auto_create():
    topic = unique("auto")
    kcat("-P", "-t", topic, "-X", "allow.auto.create.topics=true", data=b"first\n")
    values = [line for partition in range(PARTITIONS) for line in consume(topic, partition=partition)]
    equal(values, ["first"], "the record, in whichever partition")


@case
def consume_from_offset():
    topic = create("from-offset")
    lines = [f"line {n}" for n in range(500)]
    produce(topic, lines, "-z", "gzip", "-X", "linger.ms=100")
    for offset in [1, 137, 499]:
        equal(consume(topic, offset=str(offset)), lines[offset:], f"values from {offset}")
    equal(consume(topic, offset="-10"), lines[-10:], "the last ten")
    equal(consume(topic, "-c", "3", offset="250"), lines[250:253], "three from the middle of a batch")


@case
def consume_by_timestamp():
    topic = create("by-time")
    stamps = []
    for n in range(3):
        produce(topic, [f"round {n}"] * 10, "-z", "lz4", "-X", "linger.ms=50")
        stamps.append([int(t) for t in consume(topic, form="%T\n")][n * 10])
        # The next round must differ by at least one millisecond.
        wait_until(lambda: time.time() * 1000 > stamps[-1] + 20, "the clock to move")
    answer = kcat("-Q", "-t", f"{topic}:0:{stamps[1]}")
    check(answer.split() == [topic, "[0]", "offset", "10"], f"offset for the second round: {answer}")
    equal(consume(topic, offset=f"s@{stamps[1]}"), ["round 1"] * 10 + ["round 2"] * 10, "from the second round")
    equal(consume(topic, "-o", f"e@{stamps[2]}", offset=f"s@{stamps[1]}"), ["round 1"] * 10, "the second round alone")
    equal(kcat("-Q", "-t", f"{topic}:0:-1", "-t", f"{topic}:0:-2").count("offset"), 2, "earliest and latest")


@case
def offset_reset():
    topic = create("reset")
    produce(topic, ["before"])
    for policy, wanted in [("earliest", "before"), ("error", "")]:
        options = ["-G", unique("reset"), "-q", "-e", "-X", f"auto.offset.reset={policy}", topic]
        if policy == "error":
            error = kcat(*options, fails=True)
            words = "has committed nothing" if STAND_IN else "no previously committed offset"
            check(words in error.lower(), f"why it failed: {error[-300:]}")
        else:
            equal(kcat(*options).strip(), wanted, "first record")


# ---------------------------------------------------------------- groups

class Member:
    """A kcat in a group; its notices and records are read as they come."""

    def __init__(self, group: str, topic: str, *options: str):
        self._process = subprocess.Popen(
            ["kcat", "-b", BOOTSTRAP, "-G", group, *GROUP, *options, "-u", "-f", "got %p %o %s\n", topic],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._lines: queue.Queue = queue.Queue()
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self):
        for line in self._process.stdout:
            self._lines.put(line.strip())
        self._lines.put(None)

    def wait_line(self, accept, what: str) -> str:
        """The first line from now on that is accepted."""
        seen = []
        deadline = time.monotonic() + harness.WAIT_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise harness.Failure(f"{what}: not in time; last lines {seen[-5:]}") from None
            if line is None:
                raise harness.Failure(f"{what}: kcat ended; last lines {seen[-5:]}")
            if accept(line):
                return line
            seen.append(line)

    def owns(self, count: int, what: str) -> set:
        """Waits until a rebalance gives it that many partitions."""
        def fits(line: str) -> bool:
            return "assigned:" in line and len(re.findall(r"\[\d+\]", line.split("assigned:")[1])) == count

        line = self.wait_line(fits, what)
        return {int(number) for number in re.findall(r"\[(\d+)\]", line.split("assigned:")[1])}

    def leave(self):
        """Ends it as Ctrl-C does."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(harness.WAIT_S)

    def kill(self):
        self._process.kill()
        self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


@case
def group_reads_once():
    topic = create("once")
    group = unique("once")
    for partition in range(PARTITIONS):
        produce(topic, [f"p{partition}"], partition=partition)
    first = kcat("-G", group, *GROUP, "-q", "-e", topic).split()
    equal(sorted(first), ["p0", "p1", "p2", "p3"], "all partitions")
    produce(topic, ["later"], partition=2)
    equal(kcat("-G", group, *GROUP, "-q", "-e", topic).split(), ["later"], "only what follows the commit")


def join_leave(strategy: str):
    def body():
        topic = create("join")
        group = unique("join")
        options = ["-X", f"partition.assignment.strategy={strategy}"]
        with Member(group, topic, *options) as first:
            first.owns(4, "the only member owns all")
            with Member(group, topic, *options) as second:
                both = second.owns(2, "the second member's half"), first.owns(2, "the first member's half")
                equal(both[0] | both[1], {0, 1, 2, 3}, "together they own all")
                second.leave()
            first.owns(4, "all again after the second left")

    return body


for _strategy in ["range"] if STAND_IN else ["range", "roundrobin"]:
    harness.add(f"group-join-and-leave-{_strategy}", join_leave(_strategy))


@case
def group_member_dies():
    topic = create("die")
    group = unique("die")
    with Member(group, topic) as first, Member(group, topic) as second:
        first.owns(2, "the first member's half")
        second.owns(2, "the second member's half")
        second.kill()
        first.owns(4, "the rest takes over")
        produce(topic, ["x"], partition=3)
        first.wait_line(lambda l: l.startswith("got 3 0"), "a record of a partition taken over")


@case
def group_static_member_returns():
    topic = create("static")
    group = unique("static")
    with Member(group, topic, "-X", "group.instance.id=a") as first:
        first.owns(4, "all")
        with Member(group, topic, "-X", "group.instance.id=b") as second:
            mine, other = first.owns(2, "the first half"), second.owns(2, "the second half")
            second.kill()
            with Member(group, topic, "-X", "group.instance.id=b") as returned:
                equal(returned.owns(2, "its old partitions"), other, "partitions of the returned member")
                produce(topic, ["x"], partition=min(mine))
                line = first.wait_line(lambda l: l.startswith("got") or "assigned" in l, "the record")
                equal(line, f"got {min(mine)} 0 x", "what the untouched member saw")


# ---------------------------------------------------------------- alone: restarts

def commits_survive(with_signal: str):
    def body():
        topic = create("survive")
        group = unique("survive")
        lines = [f"line {n}" for n in range(50)]
        produce(topic, lines)
        equal(kcat("-G", group, *GROUP, "-q", "-e", topic).splitlines(), lines, "all records")
        harness.restart(with_signal)
        produce(topic, ["later"])
        equal(kcat("-G", group, *GROUP, "-q", "-e", topic).splitlines(), ["later"], "only the later one")

    return body


for _signal in ["KILL", "TERM"]:
    harness.add(f"commits-survive-{_signal.lower()}", commits_survive(_signal), exclusive=True)


@case(exclusive=True)
def produce_over_kill():
    topic = create("in-flight")
    lines = [f"line {n}" for n in range(3000)]
    command = ["kcat", "-b", BOOTSTRAP, "-P", "-t", topic, "-p", "0", "-X", "enable.idempotence=true",
               "-X", "linger.ms=2"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    restarted = threading.Event()

    def feed():
        for n, line in enumerate(lines):
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()
            if n > 1500 and not restarted.is_set():
                time.sleep(0.002)
        process.stdin.close()

    thread = threading.Thread(target=feed)
    thread.start()
    wait_until(lambda: len(consume(topic)) > 1000, "the first records")
    harness.restart("KILL")
    restarted.set()
    thread.join()
    equal(process.wait(60), 0, "kcat's exit status")
    equal(consume(topic), lines, "each once and in order")


if __name__ == "__main__":
    harness.main()
