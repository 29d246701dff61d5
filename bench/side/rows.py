"""What is measured. Each row is run by turns on both sides, on a fresh broker each time."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable

from .brokers import Sides, Watched

# What one run on one side gives: figures by name.
Run = Callable[[Sides, str, int], dict[str, float]]

PAGE_CACHE = {"vltava": {"vltava.durability": "page-cache"}, "kafka": {}}
# Ours as it comes, which is durable, against Kafka's as it comes, which is not.
DEFAULTS = {"vltava": {}, "kafka": {}}
# Both durable before they answer.
FSYNC = {"vltava": {}, "kafka": {"log.flush.interval.messages": "1"}}


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number of a run, with the ratio it must reach."""

    key: str
    label: str
    bar: float | None = None
    more_is_better: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table."""

    name: str
    what: str
    run: Run
    figures: tuple[Figure, ...]

    def alternate(self, sides: Sides, alternations: int, seconds: int) -> dict[str, dict[str, list[float]]]:
        """Runs both sides by turns; every other time Kafka begins."""
        result = {side: defaultdict(list) for side in Sides.NAMES}
        for turn in range(alternations):
            for side in Sides.NAMES if turn % 2 == 0 else reversed(Sides.NAMES):
                for key, value in self.run(sides, side, seconds).items():
                    result[side][key].append(value)
        return result


def load(settings: dict[str, dict[str, str]], words: str) -> Run:
    """A run of `vltava bench` and what the broker took meanwhile. `{seconds}` stands for the length of the load."""

    def run(sides: Sides, side: str, seconds: int) -> dict[str, float]:
        with sides.running(side, settings[side]) as watched:
            # A JVM that has compiled nothing yet is not what people run.
            warm(sides, watched, words)
            before = watched.cpu_seconds()
            seen = sides.tool(watched.broker, "bench", *words.format(seconds=seconds).split())
            cpu = watched.cpu_seconds() - before
            return flatten(seen) | {
                "cpu_per_million": cpu / seen["records"] * 1e6,
                "cpu_seconds": cpu,
                "peak_mb": watched.peak_mb(),
            }

    return run


def warm(sides: Sides, watched: Watched, words: str) -> None:
    """The same load for some seconds, not measured."""
    sides.tool(watched.broker, "bench", *words.format(seconds=5).split())


def flatten(seen: dict) -> dict[str, float]:
    """The numbers of a result, those within objects under joined names."""
    flat = {}
    for key, value in seen.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": number for inner, number in value.items()}
        else:
            flat[key] = value
    return flat


def start(sides: Sides, side: str, _: int) -> dict[str, float]:
    """From the command on an empty directory to the first acknowledged record, and memory when idle."""
    broker = sides.fresh(side, {})
    began = time.monotonic()
    broker.start()
    try:
        sides.tool(broker, "bench", "produce", "--for", "1", "--warm-up", "0", "--rate", "1")
        # The load lasted a second, from 0.2 s after it was begun.
        took = time.monotonic() - began - 1.2
        time.sleep(5)
        return {"first_record_s": took, "idle_mb": Watched(broker).resident_mb()}
    finally:
        broker.stop()
        broker.remove()


def catch_up(consumers: int) -> Run:
    """Reading 2 GB that were just written."""

    def run(sides: Sides, side: str, _: int) -> dict[str, float]:
        with sides.running(side, PAGE_CACHE[side]) as watched:
            sides.tool(watched.broker, *"bench produce --keep -p 4 --rate 100000 --for 20 --warm-up 0".split())
            before = watched.cpu_seconds()
            seen = sides.tool(watched.broker, *f"bench consume vltava-bench --consumers {consumers}".split())
            cpu = watched.cpu_seconds() - before
            return flatten(seen) | {"cpu_per_gb": cpu / seen["bytes"] * 1e9}

    return run


THROUGHPUT = "records_per_second"
CPU_PER_MILLION = Figure("cpu_per_million", "broker CPU s per million")
P99 = "end_to_end_latency_ms.p99"
P999 = "end_to_end_latency_ms.p99.9"
SATURATION = "produce --producers 2 -p 4 --linger-ms 5 --for {seconds}"

ROWS = (
    Row("start", "an empty directory to the first acknowledged record", start, (
        Figure("first_record_s", "seconds", 1 / 15), Figure("idle_mb", "idle memory, MB"))),
    Row("saturation, 1 KiB", "2 producers, 4 partitions, page cache", load(PAGE_CACHE, SATURATION), (
        Figure(THROUGHPUT, "records/s", 1.5, True), dataclasses.replace(CPU_PER_MILLION, bar=0.4),
        Figure("peak_mb", "peak memory, MB", 1 / 8))),
    Row("saturation, 1 KiB, as they come", "ours with fsync, Kafka without", load(DEFAULTS, SATURATION), (
        Figure(THROUGHPUT, "records/s", 1.0, True), CPU_PER_MILLION)),
    Row("saturation, 100 B, lz4", "2 producers, 4 partitions, page cache", load(PAGE_CACHE, f"{SATURATION} -s 100 -z lz4"), (
        Figure(THROUGHPUT, "records/s", None, True), dataclasses.replace(CPU_PER_MILLION, bar=0.7))),
    Row("fixed 1,000/s", "end to end, page cache", load(PAGE_CACHE, "latency --rate 1000 -p 4 --for {seconds}"), (
        Figure(P99, "p99, ms"), Figure(P999, "p99.9, ms"), Figure("cpu_seconds", "broker CPU s"))),
    Row("fixed 1,000/s, fsync", "end to end, both durable before they answer", load(FSYNC, "latency --rate 1000 -p 4 --for {seconds}"), (
        Figure(P99, "p99, ms", 1 / 5), Figure(P999, "p99.9, ms"))),
    Row("fixed 20,000/s", "end to end, 2 producers, no linger, page cache",
        load(PAGE_CACHE, "latency --rate 20000 --producers 2 -p 4 --for {seconds}"), (
            Figure("cpu_seconds", "broker CPU s", 1 / 3), Figure(P99, "p99, ms", 1 / 3), Figure(P999, "p99.9, ms", 1 / 3))),
    Row("fixed 20,000/s, as they come", "ours with fsync, Kafka without",
        load(DEFAULTS, "latency --rate 20000 --producers 2 -p 4 --for {seconds}"), (Figure(P99, "p99, ms", 1.0),)),
    Row("fixed 100,000/s", "end to end, 2 producers, page cache",
        load(PAGE_CACHE, "latency --rate 100000 --producers 2 -p 4 --for {seconds}"), (
            Figure(P99, "p99, ms", 1 / 3), Figure(P999, "p99.9, ms"))),
    Row("one in flight, 16 producers, fsync", "each waits for its record, both durable before they answer",
        load(FSYNC, "produce --producers 16 --one-at-a-time -p 4 --for {seconds}"), (
            Figure(THROUGHPUT, "records/s", 4.0, True), Figure("ack_latency_ms.p99", "p99, ms"))),
    Row("one in flight, 64 producers, fsync", "as above",
        load(FSYNC, "produce --producers 64 --one-at-a-time -p 4 --for {seconds}"), (
            Figure(THROUGHPUT, "records/s", 5.0, True), Figure("ack_latency_ms.p99", "p99, ms"))),
    Row("catch-up, 1 consumer", "2 GB just written", catch_up(1), (
        Figure("bytes_per_second", "bytes/s", 1.0, True), Figure("cpu_per_gb", "broker CPU s per GB", 0.8))),
    Row("catch-up, 10 consumers", "each reads the same 2 GB", catch_up(10), (
        Figure("bytes_per_second", "bytes/s", 1.0, True), Figure("cpu_per_gb", "broker CPU s per GB", 0.8))),
)
