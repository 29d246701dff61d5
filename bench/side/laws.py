"""How cost grows: what is measured at each size, on a fresh Vltava each time."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import resource
import signal
import time
from collections.abc import Callable

from . import runs
from .brokers import Sides, Watched
from .wire import Connection, timed_ms

Measure = Callable[[Sides, int, int], dict[str, float]]

# What grows by a smaller exponent counts as flat, and up to the larger one as near linear.
FLAT_MAX = 0.15
LINEAR_MAX = 1.15

TOPIC = runs.TOPIC
LOAD = "bench produce --topic {topic} --keep --producers 2 --rate 5000 --round-robin --for {seconds}"
ONE_AT_A_TIME = f"bench produce --topic {TOPIC} --keep --one-at-a-time --for {{seconds}}"
FETCH_BYTES = 64 << 10
REQUESTS = 500
COMMITS = 2_000
# Records of 16 KiB a second: a broker that is given more lets segments grow while it begins the next.
SEGMENTS_FILL_RATE = 2_000


@dataclasses.dataclass(frozen=True)
class Cost:
    """A figure, and how it may grow: by the exponent of its fit."""

    key: str
    label: str
    exponent_max: float


def flat(key: str, label: str) -> Cost:
    """A figure that must not grow."""
    return Cost(key, label, FLAT_MAX)


def linear(key: str, label: str) -> Cost:
    """A figure of all together, which may grow with their number."""
    return Cost(key, label, LINEAR_MAX)


@dataclasses.dataclass(frozen=True)
class Law:
    """One way to grow."""

    name: str
    what: str
    sizes: tuple[int, ...]
    quick: tuple[int, ...]
    measure: Measure
    costs: tuple[Cost, ...]


def exponent(sizes: list[float], values: list[float]) -> float | None:
    """The slope of a line through the logarithms; `None` when there are not two positive values of two sizes."""
    points = [(math.log(size), math.log(value)) for size, value in zip(sizes, values) if size > 0 and value > 0]
    if len({x for x, _ in points}) < 2:
        return None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def shape(slope: float | None) -> str:
    """What an exponent says."""
    if slope is None:
        return "no fit"
    if slope <= FLAT_MAX:
        return "flat"
    if slope < 2 - LINEAR_MAX:
        return "below linear"
    return "near linear" if slope <= LINEAR_MAX else "above linear"


def under_load(sides: Sides, watched: Watched, seconds: int, topic: str = TOPIC) -> dict[str, float]:
    """5,000 records a second, and what the broker took for one."""
    words = LOAD.format(topic=topic, seconds=seconds).split()
    sides.tool(watched.broker, *LOAD.format(topic=topic, seconds=min(3, seconds)).split())
    seen, burden = watched.during(lambda: sides.tool(watched.broker, *words))
    return {
        "cpu_us": burden["broker_cpu_s"] / seen["records"] * 1e6,
        "ack_p50_ms": seen["ack_latency_ms"]["p50"],
        "ack_p99_ms": seen["ack_latency_ms"]["p99"],
    }


def killed(sides: Sides, watched: Watched) -> dict[str, float]:
    """Kills the broker and starts it again: until a record is acknowledged."""
    watched.broker.stop(signal.SIGKILL)
    began = time.monotonic()
    watched.broker.start()
    return {"restart_ms": runs.first_record_s(sides, watched.broker, began) * 1000}


@contextlib.contextmanager
def connected(watched: Watched):
    """A connection of our own."""
    connection = Connection(watched.broker.port)
    try:
        yield connection
    finally:
        connection.close()


def of_partitions(sides: Sides, count: int, seconds: int) -> dict[str, float]:
    """A topic of so many partitions."""
    with sides.running("vltava", {}) as watched:
        # Memory that every load takes once is not the partitions'.
        runs.create_topic(sides, watched.broker, "growth-first", 4)
        under_load(sides, watched, min(3, seconds), "growth-first")
        before_mb = watched.resident_mb()
        began = time.monotonic()
        runs.create_topic(sides, watched.broker, TOPIC, count)
        found = {"create_ms": (time.monotonic() - began) * 1000}
        found |= under_load(sides, watched, seconds)
        found["memory_kb"] = (watched.resident_mb() - before_mb) * 1000
        with connected(watched) as connection:
            found["metadata_ms"] = timed_ms(lambda _: connection.metadata(TOPIC), 20)
        return found | killed(sides, watched)


def of_connections(sides: Sides, count: int, seconds: int) -> dict[str, float]:
    """So many idle connections beside a load."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with sides.running("vltava", {}) as watched, contextlib.ExitStack() as idle:
        runs.create_topic(sides, watched.broker, TOPIC, 4)
        # Memory that every load takes once is not the connections'.
        under_load(sides, watched, min(3, seconds))
        before_mb = watched.resident_mb()
        for _ in range(count):
            idle.enter_context(connected(watched)).api_versions()
        time.sleep(1)
        memory_kb = (watched.resident_mb() - before_mb) * 1000
        return {"memory_kb": memory_kb} | under_load(sides, watched, seconds)


def of_groups(sides: Sides, count: int, _: int) -> dict[str, float]:
    """So many groups with a member and a committed offset each."""
    with sides.running("vltava", {"group.initial.rebalance.delay.ms": "0"}) as watched:
        runs.create_topic(sides, watched.broker, TOPIC, 1)
        with connected(watched) as connection:
            connection.coordinator("growth-first")
            connection.commit("growth-first", *connection.join("growth-first"), TOPIC, 0)
            before_mb = watched.resident_mb()
            members = []
            join_ms = timed_ms(lambda number: members.append(connection.join(f"growth-{number}")), count)

            def commit(number: int) -> None:
                which = number % count
                connection.commit(f"growth-{which}", *members[which], TOPIC, number)

            for number in range(count):
                commit(number)
            found = {"join_ms": join_ms, "memory_kb": (watched.resident_mb() - before_mb) * 1000}
            before_s = watched.cpu_seconds()
            found["commit_ms"] = timed_ms(commit, COMMITS)
            found["cpu_us"] = (watched.cpu_seconds() - before_s) / COMMITS * 1e6
        began = time.monotonic()
        sides.tool(watched.broker, "group", "list")
        found["list_ms"] = (time.monotonic() - began) * 1000
        return found | killed(sides, watched)


def stored(
    sides: Sides, total_bytes: int, seconds: int, *configs: str, rate_max: float = runs.FILL_RATE,
) -> dict[str, float]:
    """So many bytes in one partition."""
    with sides.running("vltava", runs.PAGE_CACHE["vltava"]) as watched:
        broker = watched.broker
        runs.create_topic(sides, broker, TOPIC, 1, *configs)
        began_ms = time.time() * 1000
        runs.fill(sides, broker, TOPIC, total_bytes, rate_max)
        ended_ms = time.time() * 1000
        found = {"segments": len(list(broker.data.rglob(f"topics/{TOPIC}/**/*.log")))}
        found["memory_mb"] = watched.resident_mb()
        chance = random.Random(1)
        with connected(watched) as connection:
            end = connection.offset_for(TOPIC, -1)
            found["fetch_ms"] = timed_ms(
                lambda _: connection.fetch(TOPIC, chance.randrange(end), FETCH_BYTES), REQUESTS)
            found["search_ms"] = timed_ms(
                lambda _: connection.offset_for(TOPIC, int(chance.uniform(began_ms, ended_ms))), REQUESTS)
        seen = sides.tool(broker, *ONE_AT_A_TIME.format(seconds=seconds).split())
        found["ack_p50_ms"] = seen["ack_latency_ms"]["p50"]
        return found | killed(sides, watched)


def of_bytes(sides: Sides, mebibytes: int, seconds: int) -> dict[str, float]:
    """So many MiB in one partition."""
    return stored(sides, mebibytes << 20, seconds)


def of_segments(sides: Sides, count: int, seconds: int) -> dict[str, float]:
    """About so many segments of 1 MiB in one partition."""
    return stored(sides, count << 20, seconds, "segment.bytes=1048576", rate_max=SEGMENTS_FILL_RATE)


RESTART = linear("restart_ms", "restart after kill -9, ms")
LOAD_COSTS = (
    flat("cpu_us", "broker CPU per record, µs"), flat("ack_p50_ms", "acknowledged p50, ms"),
    flat("ack_p99_ms", "acknowledged p99, ms"))
READ_COSTS = (
    flat("ack_p50_ms", "acknowledged p50, ms"), flat("fetch_ms", "fetch of 64 KiB anywhere, ms"),
    flat("search_ms", "offset of a time, ms"))

LAWS = (
    Law("partitions", "of one topic; 5,000 records/s to one after the other, fsync",
        (10, 100, 1_000, 10_000), (10, 40, 160), of_partitions, (
            *LOAD_COSTS, linear("memory_kb", "memory of all, KB"), linear("create_ms", "creation of all, ms"),
            linear("metadata_ms", "Metadata of all, ms"), RESTART)),
    Law("connections", "idle, beside 5,000 records/s, fsync", (10, 100, 1_000, 5_000), (10, 40, 160), of_connections,
        (*LOAD_COSTS, linear("memory_kb", "memory of all, KB"))),
    Law("groups", "with a member each, fsync", (10, 100, 1_000), (10, 40, 160), of_groups,
        (flat("cpu_us", "broker CPU per commit, µs"), flat("commit_ms", "commit, ms"),
         flat("join_ms", "join and sync, ms"), linear("memory_kb", "memory of all, KB"),
         linear("list_ms", "group list, ms"), RESTART)),
    Law("stored MiB", "in one partition, page cache", (100, 1_024, 10_240), (16, 64, 256), of_bytes,
        (*READ_COSTS, flat("memory_mb", "memory, MB"), flat("restart_ms", "restart after kill -9, ms"))),
    Law("segments", "of 1 MiB in the chain of one partition, page cache",
        (1, 100, 1_000, 5_000), (1, 16, 64), of_segments, (
            *READ_COSTS, linear("memory_mb", "memory, MB"), RESTART)),
)
