"""The tools of the binary `vltava` itself: what people and scripts see of them.

They speak the Kafka protocol alone, so every case runs against Apache Kafka too. Data must stand on standard
output and all else on standard error; the exit status must tell success from failure.
"""

import json
import os
import pathlib
import re
import subprocess
import time
import urllib.request

import compaction
import harness
from harness import BOOTSTRAP, SCRATCH, case, check, equal, unique, wait_until

BINARY = os.environ["VLTAVA"]
TOOLS_PAGE = pathlib.Path(__file__).resolve().parents[4] / "docs" / "TOOLS.md"
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


class Done:
    """A command that has ended."""

    def __init__(self, arguments: tuple, status: int, out: bytes, err: bytes):
        self.command = " ".join(arguments)
        self.status = status
        self.raw = out
        self.out = out.decode(errors="replace")
        self.err = err.decode(errors="replace")

    def ok(self) -> "Done":
        """The same, if it succeeded."""
        check(self.status == 0, f"`{self.command}` ended with {self.status}: {self.err.strip()[-400:]}")
        check("\x1b" not in self.err, f"`{self.command}` colours what is no terminal")
        return self

    def refused(self, *words: str) -> "Done":
        """The same, if it failed with an error that has these words."""
        return self._ended(1, words)

    def misused(self, *words: str) -> "Done":
        """The same, if the command line was wrong and the error has these words."""
        return self._ended(2, words)

    def _ended(self, status: int, words: tuple) -> "Done":
        check(self.status == status, f"`{self.command}` ended with {self.status}, not {status}")
        check(self.err.startswith("error: "), f"`{self.command}` said {self.err!r}")
        for word in words:
            check(word in self.err, f"`{self.command}` does not say {word!r}: {self.err!r}")
        return self

    def lines(self) -> list:
        """Standard output by lines."""
        return self.out.splitlines()

    def json(self):
        """Standard output as JSON, of which the page about the tools must list every field."""
        return self._listed(json.loads(self.out))

    def json_lines(self) -> list:
        """The same, where each line is a value."""
        return self._listed([json.loads(line) for line in self.lines()])

    def _listed(self, value):
        unlisted = fields(value) - documented(self.command)
        check(not unlisted, f"docs/TOOLS.md does not list {sorted(unlisted)} of `{self.command}`")
        return value


def fields(value) -> set:
    """The names of all fields in a JSON value, but for keys of configs, which are users' data."""
    if isinstance(value, list):
        return set().union(*map(fields, value))
    if isinstance(value, dict):
        return set(value) | set().union(*(fields(inner) for name, inner in value.items() if name != "configs"))
    return set()


def documented(command: str) -> set:
    """The names in backquotes in the section of docs/TOOLS.md about a command."""
    words = [word for word in command.split() if word != "-b" and word != BOOTSTRAP]
    section = TOOLS_PAGE.read_text().split(f"## {words[0]} {words[1]}\n")
    check(len(section) == 2, f"docs/TOOLS.md has a section about {words[0]} {words[1]}")
    return set(re.findall(r"`(\w+)`", section[1].split("\n## ")[0]))


def run(*arguments: str, data: bytes = b"", timeout: float = 60) -> Done:
    """Runs the binary to its end. No broker is named: that is the caller's."""
    done = subprocess.run([BINARY, *arguments], input=data, capture_output=True, timeout=timeout, check=False)
    return Done(arguments, done.returncode, done.stdout, done.stderr)


def tool(noun: str, *arguments: str, data: bytes = b"") -> Done:
    """Runs a tool against the broker under test."""
    return run(noun, "-b", BOOTSTRAP, *arguments, data=data)


def create(prefix: str, partitions: int = 1, configs: dict | None = None) -> str:
    """A new topic."""
    topic = unique(prefix)
    words = [word for key, value in (configs or {}).items() for word in ("-c", f"{key}={value}")]
    tool("topic", "create", topic, "-p", str(partitions), *words).ok()
    return topic


def produce(topic: str, lines: list, *options: str) -> None:
    """Writes lines."""
    tool("topic", "produce", topic, *options, data="".join(f"{line}\n" for line in lines).encode()).ok()


def consume(topic: str, *options: str) -> list:
    """Reads to the end."""
    return tool("topic", "consume", topic, "-e", *options).ok().lines()


# ---------------------------------------------------------------- compaction: first, since it waits

PAIRS = ["-K", "=", "-Z"]


def read_all(topic: str, *options: str) -> list:
    """Offsets, keys and values from the beginning to the end."""
    rows = [json.loads(line) for line in consume(topic, "-o", "json", *options)]
    return [(row["offset"], row["key"], row["value"]) for row in rows]


def offsets(topic: str) -> tuple:
    """The first offset and the end of a topic of one partition."""
    row = tool("topic", "offsets", topic, "-o", "json").ok().json()[0]
    return row["first_offset"], row["end_offset"]


class Lasting:
    """A producer that goes on while others come and go. It sends each line as it comes."""

    def __init__(self, topic: str):
        self._topic = topic
        command = [BINARY, "topic", "-b", BOOTSTRAP, "produce", topic, *PAIRS]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)

    def send(self, pairs: list, end: int) -> None:
        """Produces; returns once the log ends there."""
        self._process.stdin.write("".join(f"{line}\n" for line in compaction.lines(pairs)).encode())
        self._process.stdin.flush()
        wait_until(lambda: offsets(self._topic)[1] == end, f"an end at {end}")

    def close(self) -> None:
        """Fails the case unless all was sent without an error."""
        _, error = self._process.communicate(timeout=60)
        equal((self._process.returncode, error.count(b"error")), (0, 0), f"status and errors: {error.decode()}")


@case
def compacted_topic():
    topic, group = create("compacted", configs=compaction.CONFIG), unique("compacted")
    lasting = Lasting(topic)
    first = compaction.first_batch()
    lasting.send(first, len(first))
    equal(consume(topic, "-g", group, "-n", "3"), [value for _, value in first[:3]], "what a group commits")
    for codec in CODECS:
        produce(topic, compaction.lines(compaction.batch(codec, CODECS)), *PAIRS, "-z", codec)
    compaction.await_roll()
    wanted, count = compaction.left(CODECS), compaction.written(CODECS)
    produce(topic, compaction.lines([compaction.LAST]), *PAIRS)
    wait_until(lambda: compaction.settled(read_all(topic)), "compaction", every_s=0.2)
    records = read_all(topic)
    compaction.judge(records, wanted, count)
    check(records[0][0] > 3, "the group committed where nothing is left")
    lag = tool("group", "describe", group, "-o", "json").ok().json()[0]["lag"]
    equal(lag, count - 3, "the lag counts offsets")
    rest = read_all(topic, "-g", group)
    equal(compaction.live(rest), compaction.live(records), "records from there")

    # The producer goes on; then nothing is left at the end of the log but, at most, a tombstone.
    changes = [("key-0", "afterwards"), (compaction.LAST[0], None)]
    for end, change in enumerate(changes, count + 1):
        lasting.send([change], end)
    lasting.close()
    found = {key: value for _, key, value in read_all(topic)}
    equal({key: found.get(key) for key in wanted}, {**wanted, **dict(changes)}, "the last values")


@case
def no_key_for_a_compacted_topic():
    topic = create("keyless", configs=compaction.CONFIG)
    tool("topic", "produce", topic, data=b"no key\n").refused("INVALID_RECORD")
    produce(topic, ["key=value"], *PAIRS)
    equal(read_all(topic), [(0, "key", "value")], "the record after the refused one")


@case
def compaction_and_retention():
    both = {**compaction.CONFIG, "cleanup.policy": "compact,delete", "retention.ms": "1000"}
    topic = create("both", configs=both)
    for codec in CODECS:
        produce(topic, compaction.lines(compaction.batch(codec, CODECS)), *PAIRS, "-z", codec)
    end = len(CODECS) * len(compaction.batch("none", CODECS))
    wait_until(lambda: offsets(topic) == (end, end), "all records to grow too old")
    equal(read_all(topic), [], "records")
    produce(topic, ["key=value"], *PAIRS)
    equal(offsets(topic)[1], end + 1, "the end after one more record")


# ---------------------------------------------------------------- topics

@case
def topic_life():
    topic = unique("life")
    created = tool("topic", "create", topic, "-p", "3", "-c", "retention.ms=3600000", "-o", "json").ok().json()
    equal([(row["topic"], row["partitions"], row["created"]) for row in created], [(topic, 3, True)], "created")
    tool("topic", "create", topic).refused("already exists", "help: ")
    check("exists already" in tool("topic", "create", topic, "--if-not-exists").ok().out, "it says that it exists")
    listed = {row["topic"]: row for row in tool("topic", "list", "-o", "json").ok().json()}
    equal(listed[topic]["partitions"], 3, "partitions listed")
    described = tool("topic", "describe", topic, "-o", "json").ok().json()[0]
    equal(described["configs"].get("retention.ms"), "3600000", "config")
    equal([p["end_offset"] for p in described["partitions"]], [0, 0, 0], "ends")
    table = tool("topic", "describe", topic).ok().out
    check(f"topic    {topic}" in table and "\x1b" not in table, "the table has a head and no colours")
    preview = tool("topic", "delete", topic).ok()
    check("nothing was deleted" in preview.err and topic in preview.out, "a preview first")
    tool("topic", "describe", topic).ok()
    tool("topic", "delete", topic, "--yes").ok()
    wait_until(lambda: tool("topic", "describe", topic).status == 1, "the topic is gone")
    tool("topic", "describe", topic).refused("UNKNOWN_TOPIC_OR_PARTITION", "help: ")


@case
def dry_run_creates_nothing():
    topic = unique("dry")
    tool("topic", "create", topic, "--dry-run").ok()
    tool("topic", "describe", topic).refused(topic)
    tool("topic", "create", topic, "-c", "no.such.key=1").refused("no.such.key")


@case
def partitions_are_added_and_never_taken_away():
    topic = create("grown", partitions=2)
    produce(topic, ["a:1", "b:2"], "-K", ":")
    dry = tool("topic", "alter", topic, "-p", "5", "--dry-run", "-o", "json").ok()
    equal(dry.json(), [{"topic": topic, "partitions_before": 2, "partitions": 5, "altered": False}], "a dry run")
    ends = lambda: [row["end_offset"] for row in tool("topic", "offsets", topic, "-o", "json").ok().json()]
    equal(len(ends()), 2, "partitions after a dry run")
    altered = tool("topic", "alter", topic, "--partitions", "5").ok()
    check("2 before, 5 now" in altered.out and altered.err.startswith("warning: keys map to other"), altered.err)
    equal(sorted(consume(topic)), ["1", "2"], "records are where they were")
    produce(topic, ["new"], "-p", "4")
    equal(ends()[2:], [0, 0, 1], "the new partitions take records")
    again = tool("topic", "alter", topic, "-p", "5").ok()
    check("has 5 partitions already" in again.out and again.err == "", "nothing to do")
    tool("topic", "alter", topic, "-p", "4").refused("has 5 partitions, which cannot become 4", "help: ")
    tool("topic", "alter", unique("none"), "-p", "4").refused("UNKNOWN_TOPIC_OR_PARTITION", "help: ")
    equal(tool("topic", "alter", topic, "-p", "0").status, 2, "no partitions at all")


@case
def topic_configs():
    topic = create("config")
    tool("topic", "config", topic, "--set", "retention.ms=1000", "--set", "cleanup.policy=compact").ok()
    tool("topic", "config", topic, "--append", "cleanup.policy=delete", "--reset", "retention.ms").ok()

    def entries(*options: str) -> dict:
        rows = tool("topic", "config", topic, "-o", "json", *options).ok().json()
        return {row["name"]: row for row in rows}

    wait_until(lambda: entries().get("cleanup.policy", {}).get("value") == "compact,delete", "the policy")
    check("retention.ms" not in entries(), "a reset config is no longer shown")
    check(entries("--all")["retention.ms"]["default"], "with --all it is, as the default")
    tool("topic", "config", topic, "--set", "retention.ms=soon").refused("retention.ms")


@case
def offsets_and_trim():
    topic = create("trim")
    before = int(time.time() * 1000) - 60_000
    produce(topic, [f"line {n}" for n in range(100)])
    row = tool("topic", "offsets", topic, "--at", str(before), "-o", "json").ok().json()[0]
    equal((row["first_offset"], row["end_offset"], row["offset_at_time"]), (0, 100, 0), "offsets")
    preview = tool("topic", "trim", topic, "--before-offset", "40").ok()
    check("nothing was deleted" in preview.err, "a preview first")
    equal(len(consume(topic)), 100, "records after the preview")
    done = tool("topic", "trim", topic, "--before-offset", "40", "--yes", "-o", "json").ok().json()[0]
    equal((done["first_offset_after"], done["deleted"]), (40, True), "trimmed")
    equal(consume(topic), [f"line {n}" for n in range(40, 100)], "what is left")
    tool("topic", "trim", topic, "--all", "--yes").ok()
    equal(consume(topic), [], "nothing is left")


@case
def json_of_the_other_verbs():
    topic, group = create("json"), unique("json")
    produced = tool("topic", "produce", topic, "-H", "a=1", "-o", "json", data=b"x\n\xff\n").ok().json()
    equal((produced["records"], produced["bytes"]), (2, 2), "produced")
    first, second = tool("topic", "consume", topic, "-e", "-g", group, "-o", "json").ok().json_lines()
    equal((first["value"], first["headers"]), ("x", [{"name": "a", "value": "1"}]), "text")
    equal((second["value_base64"], second["offset"]), ("/w==", 1), "bytes")
    for options in [[], ["--yes"]]:
        row = tool("group", "delete", group, *options, "-o", "json").ok().json()[0]
        equal((row["offsets"], row["deleted"]), (1, bool(options)), "the group")
    for options in [[], ["--yes"]]:
        equal(tool("topic", "delete", topic, *options, "-o", "json").ok().json()[0]["deleted"], bool(options), "the topic")


# ---------------------------------------------------------------- records

def round_trip(codec: str, acks: str):
    def body():
        topic = create(f"trip-{codec}")
        lines = [f"line {n} " + "abcdefghij" * 20 for n in range(500)]
        produce(topic, lines, "-z", codec, "--acks", acks)
        if acks == "none":
            # Nobody has said yet that they arrived.
            wait_until(lambda: len(consume(topic)) >= len(lines), "the records")
        equal(consume(topic), lines, "values")
        equal(consume(topic, "-f", "%o\\n"), [str(n) for n in range(500)], "offsets")

    return body


for _codec in CODECS:
    for _acks in ["none", "leader", "all"]:
        harness.add(f"produce-{_codec}-acks-{_acks}", round_trip(_codec, _acks))


@case
def keys_nulls_and_headers():
    topic = create("keys")
    produce(topic, ["k:v", "gone:", ":only value", "plain"], "-K", ":", "-Z", "-H", "a=1", "-H", "b")
    rows = [json.loads(line) for line in consume(topic, "-o", "json")]
    equal([(row["key"], row["value"]) for row in rows],
          [("k", "v"), ("gone", None), (None, "only value"), (None, "plain")], "keys and values")
    equal(rows[0]["headers"], [{"name": "a", "value": "1"}, {"name": "b", "value": None}], "headers")
    now = time.time() * 1000
    check(all(abs(now - row["timestamp"]) < 60_000 for row in rows), "timestamps are of now")


@case
def bytes_come_back_unchanged():
    topic = create("bytes")
    path = os.path.join(SCRATCH, topic)
    noise = bytes(n * 7919 >> 3 & 0xff for n in range(200_000)).replace(b"\n", b"\r") + b"\n\n\xff\xfe\n"
    with open(path, "wb") as file:
        file.write(noise)
    tool("topic", "produce", topic, path, "-z", "zstd").ok()
    equal(tool("topic", "consume", topic, "-e").ok().raw, noise, "bytes")


@case
def equal_keys_share_a_partition():
    topic = create("spread", partitions=4)
    produce(topic, [f"key-{n % 10}:{n}" for n in range(200)], "-K", ":")
    rows = [json.loads(line) for line in consume(topic, "-o", "json")]
    equal(len(rows), 200, "records")
    for key in {row["key"] for row in rows}:
        own = [row for row in rows if row["key"] == key]
        equal(len({row["partition"] for row in own}), 1, f"partitions of {key}")
        values = [int(row["value"]) for row in own]
        equal(values, sorted(values), f"order of {key}")


@case
def positions():
    topic = create("positions")
    produce(topic, [str(n) for n in range(50)])
    equal(consume(topic, "--from", "47"), ["47", "48", "49"], "from an offset")
    equal(consume(topic, "--from", "-2"), ["48", "49"], "before the end")
    equal(consume(topic, "--from", "end"), [], "from the end")
    equal(consume(topic, "--from", "@1h")[:1], ["0"], "from a time")
    equal(consume(topic, "-n", "3"), ["0", "1", "2"], "a count")
    tool("topic", "consume", topic, "-p", "9", "-e").refused("no partition 9")
    tool("topic", "consume", topic, "--from", "soon").misused("no position", "help: ")


@case
def a_reader_that_goes_away_ends_the_command():
    topic = create("pipe")
    produce(topic, ["x" * 1000] * 2000)
    command = [BINARY, "topic", "-b", BOOTSTRAP, "consume", topic]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        equal((process.wait(30), process.stderr.read()), (0, b""), "status and words")


@case(exclusive=True)
def a_killed_broker_loses_and_doubles_nothing():
    topic = create("killed")
    command = [BINARY, "topic", "-b", BOOTSTRAP, "--timeout", "60", "produce", topic]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        for number in range(3000):
            process.stdin.write(b"%d\n" % number)
            if number in (999, 1999):
                process.stdin.flush()
                wait_until(lambda: len(consume(topic)) > number // 2, "the first records")
                harness.stop("KILL")
                # These are sent while nobody is there.
                process.stdin.write(b"%d\n" % (number + 10_000))
                process.stdin.flush()
                time.sleep(2)
                harness.start()
        process.stdin.close()
        equal(process.wait(80), 0, "status")
    wanted = [*range(1000), 10_999, *range(1000, 2000), 11_999, *range(2000, 3000)]
    equal(consume(topic), [str(n) for n in wanted], "each record once, in order")


# ---------------------------------------------------------------- groups

@case
def group_life():
    topic, group = create("group"), unique("readers")
    produce(topic, [str(n) for n in range(10)])
    equal(consume(topic, "-g", group, "-n", "4"), ["0", "1", "2", "3"], "the first four")
    listed = {row["group"]: row for row in tool("group", "list", "-o", "json").ok().json()}
    check(group in listed, "the group is listed")
    described = tool("group", "describe", group, "-o", "json").ok().json()[0]
    equal((described["state"], described["lag"]), ("Empty", 6), "state and lag")
    check("6" in tool("group", "describe", group).ok().out, "the table shows the lag")
    equal(consume(topic, "-g", group), [str(n) for n in range(4, 10)], "the rest")
    tool("group", "reset", group, "--topic", topic, "--to", "beginning").ok()
    equal(tool("group", "describe", group, "-o", "json").ok().json()[0]["lag"], 0, "lag after a preview")
    moved = tool("group", "reset", group, "--all-topics", "--shift", "-3", "--yes", "-o", "json").ok().json()[0]
    equal((moved["offset_before"], moved["offset_after"], moved["moved"]), (10, 7, True), "moved")
    equal(consume(topic, "-g", group), ["7", "8", "9"], "what was read again")
    tool("group", "delete", group).ok()
    tool("group", "describe", group).ok()
    tool("group", "delete", group, "--yes").ok()
    tool("group", "describe", group).refused("GROUP_ID_NOT_FOUND", "help: ")


@case
def all_topics_of_a_group_with_several_partitions():
    topic, group = create("several", partitions=3), unique("several")
    tool("group", "reset", group, "--topic", topic, "--to", "end", "--yes").ok()
    rows = tool("group", "reset", group, "--all-topics", "--to", "beginning", "-o", "json").ok().json()
    equal([row["partition"] for row in rows], [0, 1, 2], "each partition once")
    equal(len(tool("topic", "describe", topic, topic, "-o", "json").ok().json()), 1, "a topic named twice")


@case
def a_group_with_members_is_not_reset():
    topic, group = create("busy"), unique("busy")
    produce(topic, ["a"])
    command = [BINARY, "topic", "-b", BOOTSTRAP, "consume", topic, "-g", group]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            equal(process.stdout.readline(), b"a\n", "the record")
            described = tool("group", "describe", group, "-o", "json").ok().json()[0]
            equal((described["state"], len(described["members"])), ("Stable", 1), "state and members")
            tool("group", "reset", group, "--topic", topic, "--to", "end", "--yes").refused("has 1 member", "help: ")
            tool("group", "delete", group, "--yes").refused("help: ")
        finally:
            process.terminate()
        equal(process.wait(30), 0, "it leaves when it is told to end")
    described = tool("group", "describe", group, "-o", "json").ok().json()[0]
    equal((described["state"], described["lag"]), ("Empty", 0), "left, and its position is committed")


@case
def reset_of_a_new_group_and_its_offsets_deleted():
    topic, group = create("fresh", partitions=2), unique("fresh")
    produce(topic, [str(n) for n in range(10)], "-p", "1")
    tool("group", "reset", group, "--topic", f"{topic}:1", "--to", "-4", "--yes").ok()
    equal(consume(topic, "-g", group), ["6", "7", "8", "9"], "records from there")
    tool("group", "delete", group, "--topic", topic, "--yes").ok()
    described = tool("group", "describe", group, "-o", "json")
    if described.status == 0:
        equal(described.json()[0]["offsets"], [], "offsets that are left")
    equal(tool("group", "reset", group, "--to", "end").status, 2, "status without a scope")


# ---------------------------------------------------------------- cat

@case
def cat_round_trip():
    topic = create("cat", partitions=2)
    tool("cat", "-P", "-t", topic, "-p", "1", "-K", "=", "-H", "h=1", "-z", "lz4", data=b"a=1\nb=2\nc=3\n").ok()
    read = tool("cat", "-C", "-t", topic, "-p", "1", "-e", "-f", "%t|%p|%o|%K|%k|%S|%s|%h\\n").ok()
    equal(read.lines(), [f"{topic}|1|{n}|1|{k}|1|{n + 1}|h=1" for n, k in enumerate("abc")], "records")
    check(f"Reached end of topic {topic} [1] at offset 3: exiting" in read.err, "it tells the end")
    equal(tool("cat", "-C", "-t", topic, "-o", "-2", "-e", "-q").ok().lines(), ["2", "3"], "the last two")
    equal(tool("cat", "-C", "-t", topic, "-p", "1", "-c", "1", "-D", ";").ok().out, "1;", "count and delimiter")
    row = json.loads(tool("cat", "-C", "-t", topic, "-p", "1", "-c", "1", "-J").ok().out)
    equal((row["key"], row["payload"], row["tstype"], row["headers"]), ("a", "1", "create", ["h", "1"]), "JSON")


@case
def cat_lists_and_queries():
    topic = create("list", partitions=2)
    produce(topic, ["a", "b"], "-p", "0")
    listing = tool("cat", "-L", "-t", topic).ok().out
    check(f'topic "{topic}" with 2 partitions' in listing and "partition 1, leader " in listing, listing)
    metadata = json.loads(tool("cat", "-L", "-J", "-t", topic).ok().out)
    equal([broker["name"] for broker in metadata["brokers"]], [BOOTSTRAP], "brokers")
    equal([p["partition"] for p in metadata["topics"][0]["partitions"]], [0, 1], "partitions")
    equal(tool("cat", "-Q", "-t", f"{topic}:0:0").ok().lines(), [f"{topic} [0] offset 0"], "by time")
    equal(tool("cat", "-Q", "-t", f"{topic}:0:-1").ok().lines(), [f"{topic} [0] offset 2"], "the end")


@case
def cat_in_a_group():
    topic, group = create("catgroup"), unique("cat")
    produce(topic, [str(n) for n in range(6)])
    first = tool("cat", "-G", group, "-X", "auto.offset.reset=earliest", "-c", "2", topic).ok()
    equal(first.lines(), ["0", "1"], "the first two")
    equal(tool("cat", "-G", group, "-e", topic).ok().lines(), ["2", "3", "4", "5"], "the rest")
    nowhere = unique("nowhere")
    tool("cat", "-Q", "-t", f"{nowhere}:0:-1").refused("UNKNOWN_TOPIC_OR_PARTITION", "help: ")
    check(nowhere not in tool("topic", "list").ok().out, "asking creates nothing")
    tool("cat", "-Q", "-t", f"{nowhere}:0").misused("no query", "help: ")
    tool("cat", "-L", "-X", "no.such=1").misused("no.such", "help: ")


# ---------------------------------------------------------------- everything else

@case
def cluster_info():
    info = tool("cluster", "info", "--versions", "-o", "json").ok().json()
    equal([f"{broker['host']}:{broker['port']}" for broker in info["brokers"]], [BOOTSTRAP], "brokers")
    check(len(info["cluster_id"]) == 22, "the cluster has an id")
    served = {row["api"]: row["max_version"] for row in info["versions"]}
    check(served["Produce"] >= 8 and served["Fetch"] >= 11, "versions")
    check(BOOTSTRAP in tool("cluster", "info").ok().out, "the table names the broker")


@case
def nobody_answers():
    run("topic", "-b", "127.0.0.1:1", "list").refused("no broker answers at 127.0.0.1:1", "vltava serve")
    run("topic", "-b", "SSL://a:1", "list").misused("plain", "help: ")


@case
def errors_say_how_to_go_on():
    topic = create("meant")
    tool("topic", "describe", topic[:-1]).refused("does not exist", f"did you mean `{topic}`?")
    tool("topic", "config", topic, "--reset", "no.such.key").refused("no.such.key", "--all")
    tool("topic", "produce", topic, "-p", "77", data=b"x\n").refused("topic describe")
    tool("topic", "consume", topic, "--from", "5", "-e").refused("OFFSET_OUT_OF_RANGE", "topic offsets")
    tool("topic", "trim", topic, "--before-offset", "-3").misused("-3 is not in 0..")
    tool("topic", "trim", topic, "--before-offset", "0", "-p", "9").refused("no partition 9", "topic describe")
    group = unique("readers")
    tool("group", "reset", group, "--to", "end", "--topic", topic, "--yes").ok()
    tool("group", "describe", group[:-1]).refused("GROUP_ID_NOT_FOUND", f"did you mean `{group}`?")
    tool("group", "delete", group, "--topic", "other", "--yes").refused("committed nothing for other")
    tool("group", "reset", unique("none"), "--shift", "3", "--topic", topic).refused("committed nothing", "--to")
    run("cluster", "-b", "http://localhost:9644", "info").misused("is no broker's address", "localhost:9092")
    run("cluster", "--log", "shout", "info").misused("`shout` is no level", "info,broker=debug")
    run("serve", "--data", str(TOOLS_PAGE)).refused("is a file", "--data DIR")


@case
def generated_texts():
    for part in ["config", "metrics", "compat"]:
        text = run("docs", part).ok().out
        check(text.startswith("<!-- ") and "cargo xtask fix" in text.splitlines()[0], f"the head of {part}")
        check(text.count("\n|") > 20, f"{part} has a table")
    script = run("completion", "bash").ok().raw
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, check=False)
    equal((done.returncode, done.stderr), (0, b""), "bash reads its completion")
    for shell in ["zsh", "fish", "powershell", "elvish"]:
        check("VLTAVA_COMPLETE" in run("completion", shell).ok().out, f"completion for {shell}")


@case
def serve_greets_in_six_lines():
    command = [BINARY, "serve", "--memory", "--set", "listeners=PLAINTEXT://127.0.0.1:0",
               "--set", "vltava.http.listener=127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            greeting = [process.stderr.readline().decode() for _ in range(6)]
            words = ["data: ", "bootstrap servers", "console", "durability", "vltava topic create", "vltava cat"]
            for line, word in zip(greeting, words):
                check(word in line, f"{word!r} is not in {line!r}")
            data = greeting[0].split("data: ")[1].split(",")[0]
            check(os.path.isdir(data), f"{data} is there")
            url = greeting[2].split()[1]
            with urllib.request.urlopen(url + "healthz", timeout=10) as answer:
                equal(answer.read(), b"ok\n", "health")
            with urllib.request.urlopen(url + "status", timeout=10) as answer:
                equal(json.loads(answer.read())["state"], "serving", "state")
            bootstrap = greeting[1].split()[2]
            run("topic", "-b", bootstrap, "create", "hello").ok()
        finally:
            process.terminate()
        equal(process.wait(30), 0, "status after SIGTERM")
        rest = process.stderr.read().decode()
        check("ERROR" not in rest and "WARN" not in rest, rest)
    check(not os.path.exists(data), f"{data} is gone")


@case
def serve_refuses_what_it_cannot_read():
    path = os.path.join(SCRATCH, "server.properties")
    with open(path, "w") as file:
        file.write("# Kafka's own\nnum.io.threads=8\nnum.partition=3\n")
    run("serve", "--config", path).refused("line 3", "num.partition", "did you mean `num.partitions`")
    run("serve", "--set", "node.id=x").misused("node.id")
    run("serve", "--config", os.path.join(SCRATCH, "nothing")).refused("nothing")
    equal(run("serve", "--memory", "--data", "x").status, 2, "status of a contradiction")


@case
def quickstart():
    done = run("quickstart", "--exit").ok()
    check("all bytes are equal" in done.out, done.out)
    path = os.path.join(SCRATCH, "lines")
    with open(path, "wb") as file:
        file.write(b"".join(b"%d\x00\xff\r\n" % n for n in range(20_000)) + b"no newline")
    check("20,001 records" in run("quickstart", path, "--exit").ok().out, "every line is a record")
    check("0 records" in run("quickstart", "-", "--exit").ok().out, "an empty input ends")
    run("quickstart", os.path.join(SCRATCH, "nothing"), "--exit").refused("nothing")


if __name__ == "__main__":
    harness.main()
